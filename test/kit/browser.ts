// A browser as far as logins are concerned: a cookie jar that keeps to the rules, and navigation that follows redirects. No page is drawn.

/** What RFC 6265bis has browsers keep, of name and value together. */
const COOKIE_BYTES_MAX = 4_096;
const REDIRECTS_MAX = 12;

interface Cookie {
  readonly name: string;
  readonly value: string;
  readonly secure: boolean;
  readonly path: string;
  /** Milliseconds since 1970; Infinity for a session cookie. */
  readonly endsMs: number;
}

/** Ports do not tell cookies apart, hosts do. */
export class CookieJar {
  readonly #hosts = new Map<string, Map<string, Cookie>>();
  readonly #nowMs: () => number;
  /** Why cookies were not taken. */
  readonly refused: string[] = [];

  constructor(nowMs: () => number = Date.now) {
    this.#nowMs = nowMs;
  }

  store(url: URL, lines: readonly string[]): void {
    for (const line of lines) this.#take(url, line);
  }

  header(url: URL): string | null {
    const sent = this.of(url.hostname).filter(({ secure, path }) => (!secure || isTrustworthy(url)) && url.pathname.startsWith(path));
    return sent.length === 0 ? null : sent.map(({ name, value }) => `${name}=${value}`).join("; ");
  }

  of(host: string): readonly Cookie[] {
    return [...(this.#hosts.get(host)?.values() ?? [])].filter(({ endsMs }) => endsMs > this.#nowMs());
  }

  names(host: string): readonly string[] {
    return this.of(host).map(({ name }) => name).sort();
  }

  /** As if somebody had the disk. */
  steal(host: string): string {
    return this.of(host).map(({ name, value }) => `${name}=${value}`).join("; ");
  }

  #take(url: URL, line: string): void {
    const [pair = "", ...attributes] = line.split(";").map((part) => part.trim());
    const equals = pair.indexOf("=");
    const [name, value] = [pair.slice(0, equals), pair.slice(equals + 1)];
    const attribute = new Map(attributes.map((text) => [text.split("=", 1)[0]!.toLowerCase(), text.slice(text.indexOf("=") + 1)] as const));
    const secure = attribute.has("secure");
    const problem =
      equals <= 0 ? "no name"
      : name.length + value.length > COOKIE_BYTES_MAX ? "too large"
      : secure && !isTrustworthy(url) ? "Secure over http"
      : name.startsWith("__Host-") && (!secure || attribute.get("path") !== "/" || attribute.has("domain")) ? "__Host- without Secure and Path=/, or with Domain"
      : null;
    if (problem !== null) {
      this.refused.push(`${name}: ${problem}`);
      return;
    }
    const maxAge = attribute.get("max-age");
    const expires = attribute.get("expires");
    const endsMs = maxAge !== undefined ? this.#nowMs() + Number(maxAge) * 1000 : expires !== undefined ? Date.parse(expires) : Infinity;
    let host = this.#hosts.get(url.hostname);
    if (host === undefined) this.#hosts.set(url.hostname, (host = new Map()));
    if (endsMs <= this.#nowMs()) host.delete(name);
    else host.set(name, { name, value, secure, path: attribute.get("path") ?? "/", endsMs });
  }
}

const isTrustworthy = (url: URL): boolean => url.protocol === "https:" || url.hostname === "localhost" || url.hostname === "127.0.0.1";

export interface Visit {
  readonly url: URL;
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
  /** Every address on the way, the last one too. */
  readonly trail: readonly string[];
}

export type Transport = (request: Request) => Promise<Response>;

export class Browser {
  readonly jar: CookieJar;
  readonly #transport: Transport;

  constructor(transport: Transport, jar = new CookieJar()) {
    this.#transport = transport;
    this.jar = jar;
  }

  /** Opens a page, as by typing its address; follows redirects. */
  open(url: string, init: { readonly method?: string; readonly form?: Readonly<Record<string, string>>; readonly headers?: Readonly<Record<string, string>> } = {}): Promise<Visit> {
    return this.#visit(url, { accept: "text/html,application/xhtml+xml,*/*;q=0.8", ...init.headers }, init, REDIRECTS_MAX);
  }

  /** Sends the first form of a page, its hidden fields with it; one without an action goes to the page's own address. */
  submit({ body, url }: Visit, fields: Readonly<Record<string, string>>): Promise<Visit> {
    const form = /<form\b([^>]*)>([\s\S]*?)<\/form>/.exec(body);
    if (form === null) throw new Error(`${url.href} has no form: ${body}`);
    const [, attributes = "", content = ""] = form;
    const action = /\saction="([^"]+)"/.exec(attributes)?.[1]?.replaceAll("&amp;", "&") ?? url.href;
    const hidden = [...content.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)"/g)].map(([, name, value]): [string, string] => [name!, value!]);
    return this.open(new URL(action, url).href, { method: "POST", form: { ...Object.fromEntries(hidden), ...fields } });
  }

  /** One request, no redirect followed. */
  one(url: string, headers: Readonly<Record<string, string>> = { accept: "text/html" }, method = "GET"): Promise<Visit> {
    return this.#visit(url, headers, { method }, 0);
  }

  async #visit(first: string, headers: Readonly<Record<string, string>>, init: { readonly method?: string; readonly form?: Readonly<Record<string, string>> }, redirectsMax: number): Promise<Visit> {
    let url = new URL(first);
    let method = init.method ?? "GET";
    let body = init.form === undefined ? null : new URLSearchParams(init.form).toString();
    const trail: string[] = [];
    for (;;) {
      trail.push(url.href);
      // A cookie that a test writes stands in the place of the jar.
      const cookie = headers["cookie"] === undefined ? this.jar.header(url) : null;
      const response = await this.#transport(new Request(url.href, {
        method, body, redirect: "manual",
        headers: { ...headers, ...(cookie === null ? {} : { cookie }), ...(body === null ? {} : { "content-type": "application/x-www-form-urlencoded" }) },
      }));
      this.jar.store(url, response.headers.getSetCookie());
      const location = response.headers.get("location");
      if (response.status < 300 || response.status > 399 || location === null || trail.length > redirectsMax) {
        return { url, status: response.status, headers: response.headers, body: await response.text(), trail };
      }
      await response.body?.cancel();
      url = new URL(location, url);
      if (response.status !== 307 && response.status !== 308) [method, body] = ["GET", null];
    }
  }
}
