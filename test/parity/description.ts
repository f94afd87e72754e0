// What a service behind a proxy is told to do, in words of neither proxy. The corpus is written in it; mesh-yaml.ts says it to a waypoint,
// envoy-config.ts to Envoy.

/** Servers that the corpus sends to; see servers.ts. */
export type ServerName = "one" | "two" | "shadow";

export type TextMatch = { readonly exact: string } | { readonly regex: string };

export interface RequestMatch {
  /** `prefix` by whole path segments in an HTTPRoute, by characters in a VirtualService: as their specifications have it. */
  readonly path?: TextMatch | { readonly prefix: string };
  readonly method?: string;
  /** VirtualService only: in a mesh the hostnames of an HTTPRoute mean nothing. */
  readonly host?: TextMatch | { readonly prefix: string };
  readonly headers?: Readonly<Record<string, TextMatch>>;
  readonly query?: Readonly<Record<string, TextMatch>>;
}

export interface HeaderChange {
  readonly set?: Readonly<Record<string, string>>;
  readonly add?: Readonly<Record<string, string>>;
  readonly remove?: readonly string[];
}

export type PathChange = { readonly full: string } | { readonly prefix: string };

export interface Rule {
  readonly matches?: readonly RequestMatch[];
  readonly to?: readonly { readonly server: ServerName; readonly weight?: number; readonly request?: HeaderChange }[];
  readonly redirect?: { readonly scheme?: "http" | "https"; readonly host?: string; readonly port?: number; readonly path?: PathChange; readonly status?: 301 | 302 | 303 | 307 | 308 };
  readonly rewrite?: { readonly host?: string; readonly path?: PathChange };
  readonly request?: HeaderChange;
  readonly response?: HeaderChange;
  readonly mirrors?: readonly ServerName[];
  readonly cors?: {
    readonly origins: readonly string[]; readonly methods?: readonly string[]; readonly headers?: readonly string[]; readonly expose?: readonly string[];
    readonly credentials?: boolean; readonly maxAgeS?: number;
  };
  readonly timeoutMs?: number;
  /** `attempts` are those after the first. */
  readonly retry?: { readonly attempts: number; readonly codes: readonly number[]; readonly on?: readonly string[]; readonly perTryMs?: number };
  /** VirtualService only. */
  readonly fault?: { readonly abort?: number; readonly delayMs?: number };
  /** VirtualService only. */
  readonly answer?: { readonly status: number; readonly body: string };
}

export interface AccessPolicy {
  readonly action: "ALLOW" | "DENY";
  /** Texts as an AuthorizationPolicy has them: `a*`, `*a`, `*`, `a`. */
  readonly rules: readonly {
    readonly methods?: readonly string[]; readonly notMethods?: readonly string[]; readonly paths?: readonly string[]; readonly notPaths?: readonly string[];
    readonly hosts?: readonly string[]; readonly headers?: Readonly<Record<string, readonly string[]>>; readonly principals?: readonly string[];
    readonly claims?: Readonly<Record<string, readonly string[]>>;
  }[];
}

export interface TokenRule {
  readonly issuer: string;
  readonly audiences?: readonly string[];
  /** The backend gets the token too. */
  readonly forward?: boolean;
  /** Header to claim. */
  readonly claimHeaders?: Readonly<Record<string, string>>;
  /** Where it is looked for besides `Authorization: Bearer`; then not there. */
  readonly header?: { readonly name: string; readonly prefix?: string };
  readonly query?: string;
}

export interface ServiceSpec {
  readonly kind?: "HTTPRoute" | "VirtualService";
  readonly routes: readonly { readonly hostnames?: readonly string[]; readonly rules: readonly Rule[] }[];
  readonly access?: readonly AccessPolicy[];
  readonly tokens?: readonly TokenRule[];
}

export interface Http2Request {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
}

export interface Exchange {
  readonly name: string;
  /** As it goes over the wire, Latin-1; `{token NAME}` is replaced by a token of tokens.ts. */
  readonly send: string;
  /** Answers that are read; 1. */
  readonly answers?: number;
  /** The same request over HTTP/2, where HTTP/2 can say it: a waypoint answers it the same way. */
  readonly http2?: Http2Request;
  /** Requests that servers get, copies included; waited for. 1 when an answer comes from one, else 0. */
  readonly arrivals?: number;
}

export interface Case {
  readonly name: string;
  readonly service: ServiceSpec;
  readonly exchanges: readonly Exchange[];
}

export interface RequestOptions {
  readonly method?: string;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** A request that is well formed. */
export function request(target: string, { method, host = "web.example", headers = {}, body }: RequestOptions = {}): string {
  const lines = [`${method ?? (body === undefined ? "GET" : "POST")} ${target} HTTP/1.1`, `host: ${host}`, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)];
  if (body !== undefined) lines.push(`content-length: ${body.length}`);
  return `${lines.join("\r\n")}\r\n\r\n${body ?? ""}`;
}

/** An exchange with such a request, named after what is special about it. */
export function ask(target: string, options: RequestOptions & Partial<Omit<Exchange, "send">> = {}): Exchange {
  const { method, host, headers, body, name, ...rest } = options;
  const described = [method ?? (body === undefined ? "GET" : "POST"), target, host === undefined ? "" : `to ${host}`, ...Object.entries(headers ?? {}).map(([key, value]) => `${key}: ${value}`)];
  const http2 = http2Of(target, options);
  return { name: name ?? described.filter((part) => part !== "").join(" "), send: request(target, options), ...(http2 === null ? {} : { http2 }), ...rest };
}

/** Of connections, which HTTP/2 manages otherwise; and what its clients may not write. */
const HTTP1_ONLY = /^(connection|keep-alive|proxy-connection|upgrade|transfer-encoding|te|http2-settings|expect)$/i;

function http2Of(target: string, { method, host = "web.example", headers = {}, body }: RequestOptions): Http2Request | null {
  const used = method ?? (body === undefined ? "GET" : "POST");
  // A fragment is for the client alone: those of HTTP/2 see to it.
  if (!target.startsWith("/") || target.includes("#") || /[^\x21-\x7e]/.test(target) || used === "TRACE" || used === "CONNECT" || Object.keys(headers).some((name) => HTTP1_ONLY.test(name))) return null;
  const lower = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value.trim()] as const);
  // Fields that HTTP/1.1 writes twice, a client of HTTP/2 writes as one list.
  if (new Set(lower.map(([name]) => name)).size !== lower.length) return null;
  return { method: used, target, host, headers: Object.fromEntries(lower), body: body ?? null };
}
