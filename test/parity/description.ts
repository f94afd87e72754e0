// What a service behind a proxy is told to do, in words of neither proxy. The corpus is written in it; mesh-yaml.ts says it to a waypoint,
// envoy-config.ts to Envoy.

/** Servers that the corpus sends to, each over HTTP/1.1 and over HTTP/2, and an address where none is; see servers.ts. */
export type ServerName = "one" | "two" | "shadow" | "nobody";
export type ServerProtocol = "http1" | "http2";

export type TextMatch = { readonly exact: string } | { readonly regex: string };

export interface RequestMatch {
  /** `prefix` by whole path segments in an HTTPRoute, by characters in a VirtualService: as their specifications have it. */
  readonly path?: TextMatch | { readonly prefix: string };
  readonly method?: string;
  /** VirtualService only: in a mesh the hostnames of an HTTPRoute mean nothing. */
  readonly host?: TextMatch | { readonly prefix: string };
  readonly headers?: Readonly<Record<string, TextMatch>>;
  readonly query?: Readonly<Record<string, TextMatch>>;
  /** GRPCRoute only. */
  readonly grpc?: { readonly service?: string; readonly method?: string; readonly regex?: true };
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
  readonly fault?: { readonly abort?: number; readonly abortGrpc?: GrpcStatus; readonly delayMs?: number };
  /** VirtualService only. */
  readonly answer?: { readonly status: number; readonly body: string };
}

/** By its name in VirtualServices, with its number. */
export const GRPC_STATUS = { NOT_FOUND: 5, PERMISSION_DENIED: 7, RESOURCE_EXHAUSTED: 8, INTERNAL: 13, UNAVAILABLE: 14 } as const;
export type GrpcStatus = keyof typeof GRPC_STATUS;

export interface AccessPolicy {
  readonly action: "ALLOW" | "DENY";
  /** Texts as an AuthorizationPolicy has them: `a*`, `*a`, `*`, `a`. */
  readonly rules: readonly {
    readonly methods?: readonly string[]; readonly notMethods?: readonly string[]; readonly paths?: readonly string[]; readonly notPaths?: readonly string[];
    readonly hosts?: readonly string[]; readonly headers?: Readonly<Record<string, readonly string[]>>; readonly principals?: readonly string[];
    readonly claims?: Readonly<Record<string, readonly string[]>>; readonly notHosts?: readonly string[]; readonly notPrincipals?: readonly string[]; readonly audiences?: readonly string[];
    readonly notHeaders?: Readonly<Record<string, readonly string[]>>;
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

/** Asked before every request; see authorizer.ts for what it says. */
export interface AuthorizerRule {
  readonly protocol: "http" | "grpc";
  readonly timeoutMs?: number;
  readonly failOpen?: boolean;
  readonly statusOnError?: number;
  readonly bodyBytes?: number;
  readonly partialBody?: boolean;
  /** HTTP alone: what it is shown and what of its answer goes where. */
  readonly pathPrefix?: string;
  readonly shown?: readonly string[];
  readonly added?: Readonly<Record<string, string>>;
  readonly toServer?: readonly string[];
  readonly toClientOnDeny?: readonly string[];
  readonly toClientOnAllow?: readonly string[];
}

export interface ServiceSpec {
  readonly kind?: "HTTPRoute" | "VirtualService" | "GRPCRoute";
  /** How its port is declared: `http`. */
  readonly port?: "http" | "grpc" | "grpc-web";
  /** What a proxy speaks to the servers, whatever the client speaks: `http1`. */
  readonly servers?: ServerProtocol;
  readonly routes: readonly { readonly hostnames?: readonly string[]; readonly rules: readonly Rule[] }[];
  readonly access?: readonly AccessPolicy[];
  readonly tokens?: readonly TokenRule[];
  readonly authorizer?: AuthorizerRule;
  /** Of the server `one`, at once. */
  readonly limits?: { readonly requests?: number; readonly pending?: number; readonly connections?: number };
  /** So many in a time, as many at once. */
  readonly rate?: { readonly requests: number; readonly perMs: number };
  /** In Istio's words: `BASE`. */
  readonly normalization?: Normalization;
}

export type Normalization = "BASE" | "MERGE_SLASHES" | "DECODE_AND_MERGE_SLASHES";

export interface Http2Request {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Latin-1. */
  readonly body: string | null;
  readonly trailers?: Readonly<Record<string, string>>;
  /** Of an extended CONNECT. */
  readonly protocol?: string;
}

/** Fields as they go over the wire, Latin-1: name, value, … */
export interface RawHttp2Request {
  readonly fields: readonly string[];
  readonly body?: string;
  readonly trailers?: readonly string[];
}

export interface Exchange {
  readonly name: string;
  /** As it goes over the wire, Latin-1; `{token NAME}` is replaced by a token of tokens.ts. Null for what HTTP/2 alone can say. */
  readonly send: string | null;
  /** Answers that are read; 1. */
  readonly answers?: number;
  /** The same request over HTTP/2, where HTTP/2 can say it: both sides answer it as over HTTP/1.1, or it is a difference of its own. */
  readonly http2?: Http2Request;
  /** In place of both. */
  readonly rawHttp2?: RawHttp2Request;
  /** Requests that servers get, copies included; waited for. 1 when an answer comes from one, else 0. */
  readonly arrivals?: number;
  /** Said once the protocol has been changed; as many bytes are read, and are the body of the answer. */
  readonly talk?: string;
  /** Bytes of another client, whose request is at a server before this one is sent; its answer is seen after this one's. */
  readonly meanwhile?: string;
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

/** A unary gRPC call, and its message in a frame. */
export function call(method: string, { headers = {}, message = "hello", ...rest }: { readonly headers?: Readonly<Record<string, string>>; readonly message?: string } & Partial<Omit<Exchange, "send" | "http2">> = {}): Exchange {
  const http2 = { method: "POST", target: method, host: "web.example", headers: { "content-type": "application/grpc", te: "trailers", ...headers }, body: grpcFrame(message) };
  return { name: [method, ...Object.entries(headers).map(([key, value]) => `${key}: ${value}`)].join(" "), send: null, http2, ...rest };
}

/** One message of gRPC, Latin-1: not compressed, its length, itself. */
export function grpcFrame(message: string): string {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return head.toString("latin1") + message;
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
