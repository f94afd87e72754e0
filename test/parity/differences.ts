// Where the two differ, and why that stays. An exchange that is listed must differ, and each side as it is recorded.

export interface Difference {
  readonly title: string;
  readonly reason: string;
  /** `group: case / exchange`. */
  readonly exchanges: readonly string[];
}

export const DIFFERENCES: readonly Difference[] = [
  {
    title: "Escapes in paths",
    reason: "Escapes are written in capitals, and what no path may contain is escaped (RFC 3986, section 6.2.2): routes, policies, the log and the server see one form. `..;` and `.;` are dot segments here, however their dots are written.",
    exchanges: [
      "routing: paths / GET /exact%2f",
      "routing: paths / GET /prefix%2fa",
      "access: deny / GET /a%2f..%2fadmin",
      "access: deny / GET /a/..%2fadmin",
      "input: paths / GET /a%2fb",
      "input: paths / GET /a%5cb",
      "input: paths / GET /%c3%a9",
      "input: paths / GET /%e9",
      "input: paths / GET /a[b]",
      "input: paths / GET /a/..%3b/b",
      "input: paths / GET /a/%2e%2e;/b",
      "input: heads / target with Latin-1",
    ],
  },
  {
    title: "Broken escapes",
    reason: "A `%` that two hexadecimal digits do not follow is refused: servers disagree about what it means.",
    exchanges: [
      "input: paths / GET /%zz",
      "input: paths / GET /%",
    ],
  },
  {
    title: "Headers given several times",
    reason: "For routes several values are one, joined by commas (RFC 9110, section 5.3; Gateway API, HTTPHeaderMatch). For policies each of the values counts, also those that the client joined itself: a denied value is not hidden behind another.",
    exchanges: [
      "routing: headers / the header twice",
      "routing: headers / the header twice, equal",
      "access: deny / GET / x-bad: no, 1",
    ],
  },
  {
    title: "Query parameters",
    reason: "Names and values are compared decoded, as servers read them.",
    exchanges: [
      "routing: query parameters / GET /?v=%32",
      "routing: query parameters / GET /?%76=2",
    ],
  },
  {
    title: "Hosts",
    reason: "A host has one form: small letters, no dot at its end. Rules that name no port hold for every port, in routes and in policies: `closed.example` also denies `closed.example:80`.",
    exchanges: [
      "routing: hosts / GET / to SHOP.Example",
      "routing: hosts / GET / to shop.example:8080",
      "routing: hosts / GET / to shop.example.",
      "access: deny / GET / to closed.example:80",
    ],
  },
  {
    title: "Redirects",
    reason: "The port of a redirect is that of its scheme when a scheme is given, and one that the scheme implies is left out (Gateway API, HTTPRequestRedirectFilter.port).",
    exchanges: [
      "filters: redirects / GET /https to web.example:8080",
      "filters: redirects / GET /443",
      "filters: redirects / GET /80",
    ],
  },
  {
    title: "Copies",
    reason: "A copy is the request as the server gets it. Envoy adds an X-Forwarded-For that names its own address.",
    exchanges: [
      "filters: mirrors / GET /copy/a?b",
      "filters: mirrors / POST /copy",
      "filters: mirrors / GET /twice x-own: kept",
      "filters: mirrors / GET /copy x-status: 503",
    ],
  },
  {
    title: "CORS",
    reason: "Answers that depend on the origin say so to caches (`Vary: Origin`). A preflight is answered with 204, and one that is not allowed is answered too, without the headers that would allow it: the server never sees it. `*` without credentials is answered with `*`, and a preflight's answer may be kept for five seconds where the rule names no time (Gateway API, HTTPCORSFilter).",
    exchanges: [
      "filters: CORS / GET /some origin: https://shop.example",
      "filters: CORS / GET /some origin: https://a.shop.example",
      "filters: CORS / GET /some origin: https://evil.example",
      "filters: CORS / GET /some origin: http://shop.example",
      "filters: CORS / GET /some",
      "filters: CORS / OPTIONS /some origin: https://shop.example access-control-request-method: PUT access-control-request-headers: x-own",
      "filters: CORS / OPTIONS /some origin: https://shop.example access-control-request-method: DELETE",
      "filters: CORS / OPTIONS /some origin: https://evil.example access-control-request-method: PUT",
      "filters: CORS / OPTIONS /some origin: https://shop.example",
      "filters: CORS / OPTIONS /some",
      "filters: CORS / GET /any origin: https://wherever.example",
      "filters: CORS / OPTIONS /any origin: https://wherever.example access-control-request-method: POST access-control-request-headers: x-1, x-2",
      "filters: CORS / GET /some origin: https://shop.example x-answer: access-control-allow-origin=*",
      "filters: CORS / GET /some origin: null",
    ],
  },
  {
    title: "Time limits of attempts",
    reason: "A retry policy that names 504 holds for an attempt that took too long as it does for a 504 of the server; Envoy wants `gateway-error` or `5xx` for it.",
    exchanges: [
      "resilience: VirtualService: per-try timeouts / GET /code x-id: p5 x-delay: 1000",
    ],
  },
  {
    title: "Tokens",
    reason: "A refused token is 401 with `invalid_token` whatever is wrong with it (RFC 6750, section 3.1), a foreign audience too. The challenge names no realm: Envoy's repeats the URL, with the query. The scheme `Bearer` may be written in any case (RFC 9110, section 11.1).",
    exchanges: [
      "access: tokens / / with expired",
      "access: tokens / / with early",
      "access: tokens / / with foreign-issuer",
      "access: tokens / / with foreign-audience",
      "access: tokens / / with no-audience",
      "access: tokens / / with foreign-key",
      "access: tokens / / with unsigned",
      "access: tokens / / with changed",
      "access: tokens / GET / authorization: Bearer nonsense",
      "access: tokens / bearer in small letters",
      "access: tokens / GET /?access_token=nonsense",
      "access: tokens from elsewhere, passed on / GET / x-token: T {token expired}",
      "access: access by token / /open with expired",
    ],
  },
  {
    title: "Framing",
    reason: "Whatever two servers could read as two different requests is refused (RFC 9112, sections 6 and 11.2), and a chunk size that fits no number is too large rather than malformed.",
    exchanges: [
      "input: framing / transfer coding twice",
      "input: framing / chunk longer than said",
      "input: framing / chunk size overflows",
      "input: framing / HTTP/1.0 with chunked",
      "input: hop by hop / POST / connection: content-length",
    ],
  },
  {
    title: "Request heads",
    reason: "Read strictly as RFC 9112 has them: one Host that is one, or in HTTP/1.0 none; one space between the parts of the first line; CRLF; no folding; no control bytes; at most one empty line before. An absolute target and a Host that differ are refused rather than resolved. Only HTTP/1.0 and 1.1 are spoken; a target that is too long is 414; CONNECT without a protocol is refused as no proxy of that kind, and `OPTIONS *` is asked of no server.",
    exchanges: [
      "routing: hosts / absolute form, another Host",
      "input: heads / empty Host",
      "input: heads / two Hosts",
      "input: heads / Host with userinfo",
      "input: heads / Host with a bad port",
      "input: heads / folded header",
      "input: heads / bare CR in a value",
      "input: heads / bare LF line ends",
      "input: heads / empty lines before",
      "input: heads / HTTP/1.0 without Host",
      "input: heads / HTTP/1.2",
      "input: heads / HTTP/3.0",
      "input: heads / two spaces in the request line",
      "input: heads / tab in the request line",
      "input: heads / asterisk with OPTIONS",
      "input: heads / CONNECT",
      "input: heads / a target of 20 KiB",
    ],
  },
  {
    title: "Headers from outside",
    reason: "What only a proxy may say (`x-forwarded-*`, `forwarded`, `x-original-url`) is taken out of requests of clients without an identity of the mesh.",
    exchanges: [
      "input: hop by hop / GET / x-forwarded-host: other.example",
      "input: hop by hop / GET / forwarded: for=198.51.100.1",
      "input: hop by hop / GET / x-original-url: /admin",
    ],
  },
  {
    title: "Upgrades and Expect",
    reason: "A client that wants another protocol, or to be told before it sends its body, asks the server: the answer is the server's (RFC 9110, sections 7.8 and 10.1.1). Envoy knows WebSocket alone, and answers 100 by itself.",
    exchanges: [
      "input: hop by hop / GET / upgrade: foo/2 connection: upgrade",
      "input: hop by hop / POST / expect: 100-continue",
    ],
  },
];

const REASONS = new Map(DIFFERENCES.flatMap(({ reason, exchanges }) => exchanges.map((key) => [key, reason] as const)));

export function reasonOf(key: string): string | null {
  return REASONS.get(key) ?? null;
}

/** Of exchanges that are not there. */
export function unknownKeys(known: ReadonlySet<string>): string[] {
  return [...REASONS.keys()].filter((key) => !known.has(key));
}
