// Calls of gRPC, and of gRPC-Web: which rule they meet, and what becomes of their statuses.

import { ask, call, type Case, grpcFrame, type Rule } from "../description.ts";
import { ISSUER } from "../tokens.ts";

const ruled = (rule: string): Pick<Rule, "response"> => ({ response: { set: { "x-rule": rule } } });
const web = { "content-type": "application/grpc-web", "x-grpc-web": "1" };
const webText = { ...web, "content-type": "application/grpc-web-text" };
const base64 = (latin1: string): string => Buffer.from(latin1, "latin1").toString("base64");

export const GRPC: readonly Case[] = [
  {
    name: "GRPCRoute: matches",
    service: { kind: "GRPCRoute", port: "grpc", servers: "http2", routes: [{ rules: [
      { matches: [{ grpc: { service: "shop.Cart", method: "Add" } }], to: [{ server: "two" }], ...ruled("add") }, { matches: [{ grpc: { service: "shop.Cart" } }], ...ruled("cart") }, { matches: [{ grpc: { method: "List" } }], ...ruled("list") },
      { matches: [{ grpc: { service: "shop\\.[A-Z]+", method: "Get.*", regex: true } }], ...ruled("regex") }, { matches: [{ grpc: { service: "shop.Orders" }, headers: { "x-beta": { exact: "yes" } } }], ...ruled("beta") },
      { matches: [{ headers: { "x-tenant": { regex: "t[0-9]+" } } }], ...ruled("tenant") },
    ] }] },
    exchanges: [
      call("/shop.Cart/Add"), call("/shop.Cart/Added"), call("/shop.Cart/add"), call("/shop.Cart/Remove"), call("/shop.Cart2/Add"), call("/shop.Orders/List"), call("/a.b.C/List"), call("/a.b.C/Lists"), call("/shop.ABC/GetAll"), call("/shop.Abc/GetAll"), call("/shopxABC/Get"),
      call("/shop.Orders/Make", { headers: { "x-beta": "yes" } }), call("/shop.Orders/Make", { headers: { "x-beta": "no" } }), call("/any.Thing/Do", { headers: { "x-tenant": "t12" } }), call("/any.Thing/Do", { headers: { "x-tenant": "t12x" } }), call("/any.Thing/Do"), call("/"), call("/shop.Cart"), call("/shop.Cart/"),
      call("/shop.Cart/Add?x=1"), call("/shop.Cart/A%64d"), call("//shop.Cart/Add"), call("/shop.Cart/Add/"),
      { ...call("/shop.Cart/Add", { name: "a GET without a content type" }), http2: { method: "GET", target: "/shop.Cart/Add", host: "web.example", headers: {}, body: null } },
    ],
  },
  {
    name: "GRPCRoute: filters and weights",
    service: { kind: "GRPCRoute", port: "grpc", servers: "http2", routes: [{ rules: [
      { matches: [{ grpc: { service: "a.Headers" } }], request: { set: { "x-set": "ours" }, add: { "x-add": "more" }, remove: ["x-remove"] }, response: { set: { "x-seen": "yes" }, remove: ["x-private"] } },
      { matches: [{ grpc: { service: "a.Mirror" } }], mirrors: ["shadow"] }, { matches: [{ grpc: { service: "a.Weights" } }], to: [{ server: "one", weight: 0 }, { server: "two", weight: 1 }] }, { matches: [{ grpc: { service: "a.Nobody" } }], to: [{ server: "one", weight: 0 }] },
    ] }] },
    exchanges: [
      call("/a.Headers/Call", { headers: { "x-set": "theirs", "x-add": "one", "x-remove": "gone", "x-answer": "x-private=secret; x-seen=no" } }), call("/a.Headers/Call", { headers: { "x-id": "gh1", "x-grpc-fail": "5" } }), call("/a.Mirror/Call", { arrivals: 2 }), call("/a.Mirror/Call", { headers: { "x-grpc-status": "13" }, arrivals: 2 }), call("/a.Weights/Call"),
    ],
  },
  {
    name: "statuses",
    service: { port: "grpc", servers: "http2", routes: [{ rules: [{}] }] },
    exchanges: [
      call("/a.B/C"), call("/a.B/C", { message: "", name: "an empty message" }), call("/a.B/C", { message: "x".repeat(100_000), name: "a large message" }), call("/a.B/C", { headers: { "content-type": "application/grpc+proto" } }), call("/a.B/C", { headers: { "content-type": "application/grpc+json" } }), call("/a.B/C", { headers: { "content-type": "application/grpcx" } }),
      ...[1, 3, 5, 7, 8, 13, 14, 16, 99].map((status) => call("/a.B/C", { headers: { "x-grpc-status": String(status) } })), ...[3, 14].map((status) => call("/a.B/C", { headers: { "x-id": `gs${status}`, "x-grpc-fail": `${status},${status},${status}` } })),
      ...[400, 401, 403, 404, 429, 500, 502, 503, 504].map((status) => call("/a.B/C", { headers: { "x-status": String(status) } })), call("/a.B/C", { headers: { "x-trailers": "x-more=1; x-bin-bin=AAE" } }), call("/a.B/C", { headers: { "x-bin-bin": "AAECAw" } }), call("/a.B/C", { headers: { "grpc-encoding": "gzip", "grpc-accept-encoding": "gzip,identity" } }),
      call("/a.B/C", { headers: { "x-id": "gd", "x-drop": "9" }, name: "a connection that dies before the answer", arrivals: 1 }), call("/a.B/C", { headers: { te: "" }, name: "without te" }), call("/a.B/C", { headers: { "user-agent": "grpc-go/1.80.0" } }),
    ],
  },
  {
    name: "no rule for the rest",
    service: { port: "grpc", servers: "http2", routes: [{ rules: [{ matches: [{ path: { prefix: "/known" } }] }, { matches: [{ path: { prefix: "/moved" } }], redirect: { host: "other.example" } }] }] },
    exchanges: [call("/known/C"), call("/a.B/C"), call("/a.B/C", { headers: { "content-type": "application/grpc+proto" } }), call("/moved/C"), call("/a.B/C", { headers: { "content-type": "application/grpc-web" } })],
  },
  {
    name: "VirtualService: faults",
    service: { kind: "VirtualService", port: "grpc", servers: "http2", routes: [{ rules: [
      { matches: [{ path: { prefix: "/http" } }], fault: { abort: 503 } }, { matches: [{ path: { prefix: "/teapot" } }], fault: { abort: 418 } }, { matches: [{ path: { prefix: "/grpc" } }], fault: { abortGrpc: "NOT_FOUND" } }, { matches: [{ path: { prefix: "/delayed" } }], fault: { delayMs: 50, abortGrpc: "UNAVAILABLE" } },
      ...[400, 401, 403, 404, 429, 500, 502, 504].map((status): Rule => ({ matches: [{ path: { exact: `/status/${status}` } }], fault: { abort: status } })), { matches: [{ path: { exact: "/answer/Made" } }], answer: { status: 404, body: "nothing" } }, {},
    ] }] },
    exchanges: [call("/http/C"), call("/teapot/C"), call("/grpc/C"), call("/delayed/C"), ...[400, 401, 403, 404, 429, 500, 502, 504].map((status) => call(`/status/${status}`)), call("/answer/Made"), call("/none/C"), ask("/grpc/C", { name: "a status of gRPC for a request that is none" })],
  },
  {
    name: "VirtualService: retries",
    service: { kind: "VirtualService", port: "grpc", servers: "http2", routes: [{ rules: [
      { matches: [{ path: { prefix: "/two" } }], retry: { attempts: 2, codes: [], on: ["unavailable", "cancelled"] } }, { matches: [{ path: { prefix: "/exhausted" } }], retry: { attempts: 1, codes: [], on: ["resource-exhausted", "deadline-exceeded", "internal"] } },
      { matches: [{ path: { prefix: "/http" } }], retry: { attempts: 1, codes: [503] } }, { retry: { attempts: 0, codes: [] } },
    ] }] },
    exchanges: [
      call("/two/C", { headers: { "x-id": "g1", "x-grpc-fail": "14" }, arrivals: 2 }), call("/two/C", { headers: { "x-id": "g2", "x-grpc-fail": "14,1" }, arrivals: 3 }), call("/two/C", { headers: { "x-id": "g3", "x-grpc-fail": "14,14,14" }, arrivals: 3 }), call("/two/C", { headers: { "x-id": "g4", "x-grpc-fail": "5" }, arrivals: 1 }),
      call("/two/C", { headers: { "x-id": "g5", "x-grpc-status": "14" }, name: "the status comes after a message", arrivals: 1 }), call("/exhausted/C", { headers: { "x-id": "g6", "x-grpc-fail": "8" }, arrivals: 2 }), call("/exhausted/C", { headers: { "x-id": "g7", "x-grpc-fail": "4" }, arrivals: 2 }), call("/exhausted/C", { headers: { "x-id": "g8", "x-grpc-fail": "13" }, arrivals: 2 }),
      call("/exhausted/C", { headers: { "x-id": "g9", "x-grpc-fail": "14" }, arrivals: 1 }), call("/http/C", { headers: { "x-id": "g10", "x-fail": "503" }, arrivals: 2 }), call("/http/C", { headers: { "x-id": "g11", "x-grpc-fail": "14" }, arrivals: 1 }), call("/none/C", { headers: { "x-id": "g12", "x-grpc-fail": "14" }, arrivals: 1 }),
    ],
  },
  {
    name: "VirtualService: time",
    service: { kind: "VirtualService", port: "grpc", servers: "http2", routes: [{ rules: [{ matches: [{ path: { prefix: "/short" } }], timeoutMs: 500 }, {}] }] },
    exchanges: [
      call("/short/C"), call("/short/C", { headers: { "x-delay": "1200" }, arrivals: 1 }), call("/short/C", { headers: { "x-delay": "1200", "grpc-timeout": "300m" }, arrivals: 1 }), call("/short/C", { headers: { "x-delay": "1200", "grpc-timeout": "9S" }, arrivals: 1 }), call("/long/C", { headers: { "x-delay": "1200", "grpc-timeout": "400m" }, arrivals: 1 }),
      call("/long/C", { headers: { "x-delay": "1200", "grpc-timeout": "400000u" }, arrivals: 1 }), call("/long/C", { headers: { "x-delay": "300", "grpc-timeout": "5S" } }), call("/long/C", { headers: { "x-delay": "300", "grpc-timeout": "0S" } }), call("/long/C", { headers: { "x-delay": "300", "grpc-timeout": "nonsense" } }), call("/long/C", { headers: { "x-delay": "300", "grpc-timeout": "1H" } }),
    ],
  },
  {
    name: "access",
    service: { port: "grpc", servers: "http2", routes: [{ rules: [{}] }], tokens: [{ issuer: ISSUER, audiences: ["web"] }], access: [{ action: "DENY", rules: [{ paths: ["/a.B/Secret"] }] }, { action: "ALLOW", rules: [{ paths: ["/a.B/*"] }, { paths: ["/token.A/*"], principals: ["*"] }] }] },
    exchanges: [call("/a.B/Open"), call("/a.B/Secret"), call("/c.D/E"), call("/token.A/B"), call("/token.A/B", { headers: { authorization: "Bearer {token good}" } }), call("/token.A/B", { headers: { authorization: "Bearer {token expired}" } }), call("/token.A/B", { headers: { authorization: "Bearer nonsense" } })],
  },
  {
    name: "gRPC-Web",
    service: { port: "grpc-web", servers: "http2", routes: [{ rules: [{ matches: [{ path: { prefix: "/fault" } }], response: { set: { "x-rule": "fault" } } }, { matches: [{ path: { prefix: "/a.B" } }] }] }] },
    exchanges: [
      ask("/a.B/C", { headers: web, body: grpcFrame("hello"), name: "binary" }), ask("/a.B/C", { headers: webText, body: base64(grpcFrame("hello")), name: "base64" }), ask("/a.B/C", { headers: { ...web, "content-type": "application/grpc-web+proto" }, body: grpcFrame("hello"), name: "binary, +proto" }),
      ask("/a.B/C", { headers: { ...webText, "content-type": "application/grpc-web-text+proto" }, body: base64(grpcFrame("hello")), name: "base64, +proto" }), ask("/a.B/C", { headers: { ...web, accept: "application/grpc-web-text" }, body: grpcFrame("hello"), name: "binary, base64 accepted" }),
      ask("/a.B/C", { headers: { ...web, "x-grpc-status": "5" }, body: grpcFrame("hello"), name: "a status" }), ask("/a.B/C", { headers: { ...web, "x-id": "gw1", "x-grpc-fail": "14" }, body: grpcFrame("hello"), name: "a status alone" }), ask("/a.B/C", { headers: { ...web, "x-trailers": "x-more=1" }, body: grpcFrame("hello"), name: "trailers" }), ask("/a.B/C", { headers: { ...web, "x-status": "503" }, body: grpcFrame("hello"), name: "a server's 503" }),
      ask("/unknown/C", { headers: web, body: grpcFrame("hello"), name: "no rule" }), ask("/a.B/C", { headers: { "content-type": "application/json" }, body: "{}", name: "something else" }), call("/a.B/C", { name: "gRPC itself" }), ask("/a.B/C", { headers: webText, body: "not*base64", name: "base64 that is none" }),
    ],
  },
];
