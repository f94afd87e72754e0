// What rules do to requests and answers.

import { ask, type Case, request } from "../description.ts";

const preflight = (origin: string, method: string, headers?: string): Readonly<Record<string, string>> => ({
  origin, "access-control-request-method": method, ...(headers === undefined ? {} : { "access-control-request-headers": headers }),
});

export const FILTERS: readonly Case[] = [
  {
    name: "rewriting paths",
    service: { routes: [{ rules: [
      { matches: [{ path: { prefix: "/old" } }], rewrite: { path: { prefix: "/new" } } }, { matches: [{ path: { prefix: "/strip" } }], rewrite: { path: { prefix: "/" } } },
      { matches: [{ path: { prefix: "/fixed" } }], rewrite: { path: { full: "/always" } } }, { matches: [{ path: { prefix: "/deep/er" } }], rewrite: { path: { prefix: "/x/y/z" } } },
      { matches: [{ path: { prefix: "/host" } }], rewrite: { host: "inner.example" } }, { matches: [{ path: { prefix: "/all" } }], rewrite: { host: "inner.example", path: { prefix: "/everything" } } },
    ] }] },
    exchanges: [
      ask("/old"), ask("/old/"), ask("/old/a?b=c"), ask("/old?x"), ask("/strip"), ask("/strip/"), ask("/strip/a/b"), ask("/strip?q=1"), ask("/fixed"), ask("/fixed/a?keep=1"), ask("/deep/er"), ask("/deep/er/and/more"),
      ask("/host/x", { host: "web.example:80" }), ask("/all/a", { method: "PUT", body: "text" }), ask("/old/%2e%2e/x"), ask("/old/a%20b"),
    ],
  },
  {
    name: "redirects",
    service: { routes: [{ rules: [
      { matches: [{ path: { prefix: "/https" } }], redirect: { scheme: "https" } }, { matches: [{ path: { prefix: "/host" } }], redirect: { host: "other.example", status: 301 } },
      { matches: [{ path: { prefix: "/port" } }], redirect: { port: 8443 } }, { matches: [{ path: { prefix: "/both" } }], redirect: { scheme: "https", port: 8443, host: "other.example" } },
      { matches: [{ path: { prefix: "/prefix" } }], redirect: { path: { prefix: "/target" } } }, { matches: [{ path: { prefix: "/root" } }], redirect: { path: { prefix: "/" } } }, { matches: [{ path: { prefix: "/full" } }], redirect: { path: { full: "/just/this" }, status: 303 } },
      { matches: [{ path: { prefix: "/307" } }], redirect: { host: "a.example", status: 307 } }, { matches: [{ path: { prefix: "/308" } }], redirect: { host: "a.example", status: 308 } },
      { matches: [{ path: { prefix: "/443" } }], redirect: { scheme: "https", port: 443 } }, { matches: [{ path: { prefix: "/80" } }], redirect: { port: 80 } },
    ] }] },
    exchanges: [
      ask("/https"), ask("/https/a?b=c"), ask("/https", { host: "web.example:8080" }), ask("/https", { host: "web.example:80" }), ask("/host/x?y"), ask("/host", { host: "web.example:8080" }), ask("/port/x"), ask("/port", { host: "web.example:99" }), ask("/both/a"),
      ask("/prefix"), ask("/prefix/a?b"), ask("/root/a"), ask("/root"), ask("/full/x?q=1"), ask("/307", { method: "POST", body: "kept by the client" }), ask("/308"), ask("/443"), ask("/80"), ask("/https", { method: "HEAD" }),
    ],
  },
  {
    name: "headers",
    service: { routes: [{ rules: [{
      request: { set: { "x-set": "ours", "x-new": "made" }, add: { "x-add": "more" }, remove: ["x-remove", "X-Remove-Too"] }, response: { set: { "x-seen": "by us", "x-status-note": "set" }, add: { "x-more": "added" }, remove: ["x-private"] },
    }] }] },
    exchanges: [
      ask("/", { headers: { "x-set": "theirs", "x-add": "one", "x-remove": "gone", "x-remove-too": "gone" } }), ask("/"), { name: "x-set twice", send: request("/", { headers: { "x-set": "a", "X-Set": "b" } }) },
      ask("/", { headers: { "x-answer": "x-private=secret; x-seen=theirs; x-more=first" } }), ask("/", { headers: { "x-status": "500" } }), ask("/", { headers: { "x-status": "304" } }), ask("/", { headers: { "x-status": "204" } }),
      ask("/", { headers: { "x-answer": "set-cookie=a=1; set-cookie=b=2" } }),
    ],
  },
  {
    name: "mirrors",
    service: { routes: [{ rules: [{ matches: [{ path: { prefix: "/copy" } }], mirrors: ["shadow"] }, { matches: [{ path: { prefix: "/twice" } }], mirrors: ["shadow", "two"] }, {}] }] },
    exchanges: [
      ask("/copy/a?b", { arrivals: 2 }), ask("/copy", { method: "POST", body: "the same body", arrivals: 2 }), ask("/twice", { arrivals: 3, headers: { "x-own": "kept" } }), ask("/none"), ask("/copy", { headers: { "x-status": "503" }, arrivals: 2 }),
    ],
  },
  {
    name: "CORS",
    service: { routes: [{ rules: [
      { matches: [{ path: { prefix: "/some" } }], cors: { origins: ["https://shop.example", "https://*.shop.example"], methods: ["GET", "PUT"], headers: ["x-own", "content-type"], expose: ["x-server"], credentials: true, maxAgeS: 600 } },
      { matches: [{ path: { prefix: "/any" } }], cors: { origins: ["*"], methods: ["GET", "POST"] } }, {},
    ] }] },
    exchanges: [
      ask("/some", { headers: { origin: "https://shop.example" } }), ask("/some", { headers: { origin: "https://a.shop.example" } }), ask("/some", { headers: { origin: "https://evil.example" } }), ask("/some", { headers: { origin: "http://shop.example" } }), ask("/some"),
      ask("/some", { method: "OPTIONS", headers: preflight("https://shop.example", "PUT", "x-own") }), ask("/some", { method: "OPTIONS", headers: preflight("https://shop.example", "DELETE") }),
      ask("/some", { method: "OPTIONS", headers: preflight("https://evil.example", "PUT") }), ask("/some", { method: "OPTIONS", headers: { origin: "https://shop.example" } }), ask("/some", { method: "OPTIONS" }),
      ask("/any", { headers: { origin: "https://wherever.example" } }), ask("/any", { method: "OPTIONS", headers: preflight("https://wherever.example", "POST", "x-1, x-2") }), ask("/none", { method: "OPTIONS", headers: preflight("https://shop.example", "GET") }),
      ask("/some", { headers: { origin: "https://shop.example", "x-answer": "access-control-allow-origin=*" } }), ask("/some", { headers: { origin: "null" } }),
    ],
  },
  {
    name: "VirtualService: rewrites, redirects, answers",
    service: { kind: "VirtualService", routes: [{ rules: [
      { matches: [{ path: { prefix: "/old/" } }], rewrite: { path: { prefix: "/new/" } } }, { matches: [{ path: { prefix: "/cut" } }], rewrite: { path: { prefix: "/" } } }, { matches: [{ path: { prefix: "/host" } }], rewrite: { host: "inner.example" } },
      { matches: [{ path: { prefix: "/to" } }], redirect: { host: "other.example", path: { full: "/there" } } }, { matches: [{ path: { prefix: "/code" } }], redirect: { scheme: "https", status: 308 } },
      { matches: [{ path: { exact: "/teapot" } }], answer: { status: 418, body: "short and stout" } }, { matches: [{ path: { prefix: "/changed" } }], request: { set: { "x-set": "ours" }, add: { "x-add": "more" }, remove: ["x-remove"] }, response: { set: { "x-seen": "yes" } } },
    ] }] },
    exchanges: [
      ask("/old/a"), ask("/old/"), ask("/cut/a"), ask("/cut"), ask("/cutter"), ask("/host"), ask("/to/x?q"), ask("/code/x?q"), ask("/teapot"), ask("/teapot", { method: "POST", body: "x" }), ask("/teapot", { method: "HEAD" }),
      ask("/changed", { headers: { "x-set": "theirs", "x-add": "one", "x-remove": "gone" } }), ask("/none"),
    ],
  },
  {
    name: "VirtualService: CORS",
    service: { kind: "VirtualService", routes: [{ rules: [{ cors: { origins: ["https://shop.example"], methods: ["GET", "PUT"], headers: ["x-own"], expose: ["x-server"], credentials: true, maxAgeS: 86_400 } }] }] },
    exchanges: [
      ask("/", { headers: { origin: "https://shop.example" } }), ask("/", { headers: { origin: "https://evil.example" } }), ask("/", { headers: { origin: "https://SHOP.example" } }), ask("/", { headers: { origin: "https://shop.example:443" } }), ask("/", { method: "OPTIONS", headers: preflight("https://shop.example", "PUT", "x-own") }),
      ask("/", { method: "OPTIONS", headers: preflight("https://shop.example", "PATCH", "x-other") }), ask("/", { method: "OPTIONS", headers: preflight("https://evil.example", "PUT") }), ask("/", { method: "OPTIONS", headers: { ...preflight("https://shop.example", "PUT"), "access-control-request-private-network": "true" } }),
      ask("/", { headers: { origin: "https://shop.example", "x-status": "500" } }), ask("/", { headers: { origin: "https://shop.example", "x-answer": "access-control-allow-origin=https://shop.example; vary=accept" } }),
    ],
  },
  {
    name: "filters of backends",
    service: { routes: [{ rules: [{ to: [{ server: "two", weight: 1, request: { set: { "x-both": "backend" }, add: { "x-list": "backend" }, remove: ["x-gone"] } }], request: { set: { "x-both": "rule" }, add: { "x-list": "rule" } } }] }] },
    exchanges: [ask("/"), ask("/", { headers: { "x-both": "client", "x-list": "client", "x-gone": "1" } })],
  },
  {
    name: "rewrites, mirrors and headers together",
    service: { routes: [{ rules: [{ matches: [{ path: { prefix: "/all" } }], rewrite: { host: "inner.example", path: { prefix: "/new" } }, mirrors: ["shadow"], request: { set: { "x-set": "ours" } }, response: { add: { "x-seen": "yes" } } }] }] },
    exchanges: [ask("/all/a?b", { arrivals: 2 }), ask("/all", { method: "PUT", body: "kept", arrivals: 2 })],
  },
];
