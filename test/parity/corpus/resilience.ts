// What happens when servers are slow or fail, on purpose or not.

import { ask, call, type Case } from "../description.ts";

export const RESILIENCE: readonly Case[] = [
  {
    name: "retries",
    service: { routes: [{ rules: [{ matches: [{ path: { prefix: "/retried" } }], retry: { attempts: 2, codes: [503, 500] } }, { matches: [{ path: { prefix: "/once" } }], retry: { attempts: 1, codes: [429] } }, {}] }] },
    exchanges: [
      ask("/retried", { headers: { "x-id": "r1", "x-fail": "503" }, arrivals: 2 }), ask("/retried", { headers: { "x-id": "r2", "x-fail": "503,500" }, arrivals: 3 }), ask("/retried", { headers: { "x-id": "r3", "x-fail": "503,503,503" }, arrivals: 3 }),
      ask("/retried", { headers: { "x-id": "r4", "x-fail": "502" }, arrivals: 1 }), ask("/retried", { method: "PUT", body: "again and again", headers: { "x-id": "r5", "x-fail": "503" }, arrivals: 2 }),
      ask("/retried", { method: "POST", body: "not idempotent", headers: { "x-id": "r6", "x-fail": "503" }, arrivals: 1 }), ask("/once", { headers: { "x-id": "r7", "x-fail": "429" }, arrivals: 2 }), ask("/once", { headers: { "x-id": "r8", "x-fail": "429,429" }, arrivals: 2 }),
      ask("/none", { headers: { "x-id": "r9", "x-fail": "503" }, arrivals: 1 }), ask("/retried", { headers: { "x-id": "r10", "x-fail": "404" }, arrivals: 1 }),
    ],
  },
  {
    name: "timeouts",
    service: { routes: [{ rules: [{ matches: [{ path: { prefix: "/short" } }], timeoutMs: 200 }, {}] }] },
    exchanges: [ask("/short"), ask("/short", { headers: { "x-delay": "1000" }, arrivals: 1 }), ask("/long", { headers: { "x-delay": "400" } }), ask("/short", { method: "POST", body: "x", headers: { "x-delay": "1000" }, arrivals: 1 })],
  },
  {
    name: "VirtualService: per-try timeouts",
    service: { kind: "VirtualService", routes: [{ rules: [
      { matches: [{ path: { prefix: "/code" } }], retry: { attempts: 1, codes: [504], perTryMs: 150 }, timeoutMs: 2000 }, { retry: { attempts: 1, codes: [], on: ["gateway-error"], perTryMs: 150 }, timeoutMs: 2000 },
    ] }] },
    exchanges: [
      ask("/", { headers: { "x-id": "p1", "x-delay": "1000" }, arrivals: 2 }), ask("/", { headers: { "x-id": "p2" } }), ask("/", { headers: { "x-id": "p3", "x-fail": "502" }, arrivals: 2 }), ask("/", { headers: { "x-id": "p4", "x-fail": "500" }, arrivals: 1 }),
      ask("/code", { headers: { "x-id": "p5", "x-delay": "1000" }, arrivals: 2 }),
    ],
  },
  {
    name: "VirtualService: faults",
    service: { kind: "VirtualService", routes: [{ rules: [
      { matches: [{ path: { prefix: "/abort" } }], fault: { abort: 418 } }, { matches: [{ path: { prefix: "/delay" } }], fault: { delayMs: 100 } }, { matches: [{ path: { prefix: "/both" } }], fault: { delayMs: 50, abort: 503 } }, {},
    ] }] },
    exchanges: [ask("/abort"), ask("/abort", { method: "POST", body: "x" }), ask("/delay"), ask("/both"), ask("/none")],
  },
  {
    name: "servers that fail",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      ask("/", { headers: { "x-id": "d1", "x-drop": "9" }, method: "POST", body: "x", name: "a connection that dies before the answer", arrivals: 1 }), ask("/", { headers: { "x-status": "500" } }), ask("/", { headers: { "x-status": "503" } }), ask("/", { headers: { "x-status": "404" } }),
      ask("/", { headers: { "x-status": "429" } }), ask("/", { headers: { "x-status": "599" } }), ask("/", { headers: { "x-status": "304" } }), ask("/", { method: "HEAD" }), ask("/", { method: "OPTIONS" }), ask("/", { method: "TRACE" }),
    ],
  },
  {
    name: "VirtualService: kinds of retries",
    service: { kind: "VirtualService", routes: [{ rules: [
      { matches: [{ path: { prefix: "/5xx" } }], retry: { attempts: 2, codes: [], on: ["5xx"] } }, { matches: [{ path: { prefix: "/reset" } }], retry: { attempts: 1, codes: [], on: ["reset"] } }, { matches: [{ path: { prefix: "/4xx" } }], retry: { attempts: 1, codes: [], on: ["retriable-4xx"] } },
      { matches: [{ path: { prefix: "/none" } }], retry: { attempts: 0, codes: [] } }, { matches: [{ path: { prefix: "/codes" } }], retry: { attempts: 1, codes: [404, 409] } }, {},
    ] }] },
    exchanges: [
      ask("/5xx", { headers: { "x-id": "k1", "x-fail": "500" }, arrivals: 2 }), ask("/5xx", { headers: { "x-id": "k2", "x-fail": "500,599,500" }, arrivals: 3 }), ask("/5xx", { headers: { "x-id": "k3", "x-drop": "1" }, arrivals: 2 }), ask("/5xx", { headers: { "x-id": "k4", "x-fail": "499" }, arrivals: 1 }), ask("/reset", { headers: { "x-id": "k5", "x-drop": "1" }, arrivals: 2 }),
      ask("/reset", { headers: { "x-id": "k6", "x-fail": "500" }, arrivals: 1 }), ask("/4xx", { headers: { "x-id": "k7", "x-fail": "409" }, arrivals: 2 }), ask("/4xx", { headers: { "x-id": "k8", "x-fail": "404" }, arrivals: 1 }), ask("/none", { headers: { "x-id": "k9", "x-fail": "503" }, arrivals: 1 }), ask("/codes", { headers: { "x-id": "k10", "x-fail": "404" }, arrivals: 2 }),
      ask("/codes", { headers: { "x-id": "k11", "x-fail": "409,409" }, arrivals: 2 }), ask("/5xx", { method: "POST", body: "sent again", headers: { "x-id": "k12", "x-fail": "500" }, arrivals: 2 }), ask("/", { headers: { "x-id": "k13", "x-fail": "503" }, arrivals: 1 }), ask("/", { headers: { "x-id": "k14", "x-drop": "9" }, method: "POST", body: "x", arrivals: 1 }),
    ],
  },
  {
    name: "servers that cannot be reached",
    service: { routes: [{ rules: [{ to: [{ server: "nobody" }] }] }] },
    exchanges: [ask("/"), ask("/", { method: "POST", body: "x" }), ask("/", { method: "HEAD" })],
  },
  {
    name: "calls that cannot be sent",
    service: { port: "grpc", servers: "http2", routes: [{ rules: [{ to: [{ server: "nobody" }] }] }] },
    exchanges: [call("/a.B/C")],
  },
  {
    name: "headers of a rule on answers of the proxy",
    service: { routes: [{ rules: [
      { matches: [{ path: { prefix: "/nobody" } }], to: [{ server: "nobody" }], response: { set: { "x-rule": "n" } } }, { matches: [{ path: { prefix: "/short" } }], timeoutMs: 200, response: { set: { "x-rule": "s" } } },
      { matches: [{ path: { prefix: "/dies" } }], response: { add: { "x-rule": "d" } } }, { matches: [{ path: { prefix: "/moved" } }], redirect: { host: "other.example" }, response: { set: { "x-rule": "m" } } },
    ] }] },
    exchanges: [
      ask("/nobody"), ask("/nobody", { method: "HEAD" }), ask("/short", { headers: { "x-delay": "1000" }, arrivals: 1 }), ask("/dies", { method: "POST", body: "x", headers: { "x-id": "h1", "x-drop": "9" }, arrivals: 1 }), ask("/moved"), ask("/unknown"),
    ],
  },
  {
    name: "VirtualService: headers of a rule on answers of the proxy",
    service: { kind: "VirtualService", routes: [{ rules: [
      { matches: [{ path: { prefix: "/abort" } }], fault: { abort: 503 }, response: { set: { "x-rule": "a" } } }, { matches: [{ path: { prefix: "/answer" } }], answer: { status: 404, body: "gone" }, response: { set: { "x-rule": "w", "cache-control": "no-store" } } },
      { matches: [{ path: { prefix: "/moved" } }], redirect: { host: "other.example" }, response: { set: { "x-rule": "m" } } },
    ] }] },
    exchanges: [ask("/abort"), ask("/answer"), ask("/moved")],
  },
];
