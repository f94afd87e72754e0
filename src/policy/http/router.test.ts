import { describe, expect, test } from "bun:test";
import { processorMs } from "../../../test/kit/fair-time.ts";
import { header, is, param, path, regex, request, type RequestFields, route, type RouteFields, rule, to, WEB } from "../../../test/kit/http-records.ts";
import { formatProvenance } from "../../core/fault.ts";
import type { NamespacedName } from "../../core/brand.ts";
import { EMPTY_L7_DELTA } from "../../mesh/l7/delta.ts";
import { L7Store } from "../../mesh/l7/l7-store.ts";
import type { Route } from "../../mesh/l7/route.ts";
import { Router, routerOf } from "./router.ts";

const router = (...routes: readonly Route[]): Router => new Router(routes);
/** Name of the backend that a request reaches, or 404. */
function reached(r: Router, fields: RequestFields | string): string | number {
  const result = r.match(request(typeof fields === "string" ? { url: fields } : fields));
  if (result.kind !== "matched") return result.kind === "unmatched" ? 404 : "no routes";
  const target = result.rule.backends[0]!.target;
  return target.kind === "service" ? target.service.slice("shop/".length).split(".")[0]! : target.reason;
}
const table = (fields: RouteFields, cases: readonly (readonly [string, RequestFields, string | number])[]): void => {
  const r = router(route(fields));
  test.each(cases)("%s", (_, asked, expected) => expect(reached(r, asked)).toBe(expected));
};

describe("the Gateway API's conformance cases: paths and headers", () => {
  table({ rules: [to("v1", { path: path.prefix("/") }, { headers: [header("version", "one")] }), to("v2", { path: path.prefix("/v2") }, { headers: [header("version", "two")] })] }, [
    ["the root", { url: "/" }, "v1"],
    ["anything below it", { url: "/example" }, "v1"],
    ["a header of the first rule", { headers: { Version: "one" } }, "v1"],
    ["the longer prefix", { url: "/v2" }, "v2"],
    ["below the longer prefix", { url: "/v2/example" }, "v2"],
    ["a header wins over the root", { headers: { Version: "two" } }, "v2"],
    ["with a slash at the end", { url: "/v2/" }, "v2"],
    ["not a whole segment", { url: "/v2example" }, "v1"],
    ["the prefix further inside", { url: "/foo/v2/example" }, "v1"],
  ]);
});

describe("the Gateway API's conformance cases: headers", () => {
  table({
    rules: [
      to("v1", { headers: [header("version", "one")] }), to("v2", { headers: [header("version", "two")] }),
      to("v1", { headers: [header("version", "two"), header("color", "orange")] }),
      to("v1", { headers: [header("color", "blue")] }, { headers: [header("color", "green")] }), to("v2", { headers: [header("color", "red")] }, { headers: [header("color", "yellow")] }),
    ],
  }, [
    ["one", { headers: { Version: "one" } }, "v1"], ["two", { headers: { Version: "two" } }, "v2"], ["more headers win", { headers: { Version: "two", Color: "orange" } }, "v1"],
    ["equal counts: the earlier rule wins", { headers: { Version: "two", Color: "blue" } }, "v2"], ["half of a pair", { headers: { Color: "orange" } }, 404],
    ["another header", { headers: { "Some-Other-Header": "one" } }, 404], ["either value, the first", { headers: { Color: "blue" } }, "v1"], ["either value, the second", { headers: { Color: "green" } }, "v1"],
    ["the other rule's", { headers: { Color: "red" } }, "v2"], ["and its second", { headers: { Color: "yellow" } }, "v2"], ["neither", { headers: { Color: "purple" } }, 404],
  ]);
});

describe("the Gateway API's conformance cases: the order of paths", () => {
  table({
    rules: [
      to("v1", { path: path.exact("/match") }), to("v2", { path: path.exact("/match/exact") }), to("v3", { path: path.exact("/match/exact/one") }),
      to("v3", { path: path.prefix("/match/") }), to("v1", { path: path.prefix("/match/prefix/") }), to("v2", { path: path.prefix("/match/prefix/one") }),
    ],
  }, [
    ["the longest exact", { url: "/match/exact/one" }, "v3"], ["exact before prefix", { url: "/match/exact" }, "v2"], ["exact at the root of the prefixes", { url: "/match" }, "v1"],
    ["the longest prefix", { url: "/match/prefix/one/any" }, "v2"], ["the next one", { url: "/match/prefix/any" }, "v1"], ["the shortest", { url: "/match/any" }, "v3"],
  ]);
});

describe("the Gateway API's conformance cases: methods", () => {
  table({
    rules: [
      to("v1", { method: is("POST") }), to("v2", { method: is("GET") }), to("v1", { path: path.prefix("/path1"), method: is("GET") }),
      to("v2", { headers: [header("version", "one")], method: is("PUT") }), to("v3", { path: path.prefix("/path2"), headers: [header("version", "two")], method: is("POST") }),
      to("v1", { path: path.prefix("/path3"), method: is("PATCH") }, { path: path.prefix("/path4"), headers: [header("version", "three")], method: is("DELETE") }),
      to("v1", { path: path.prefix("/path5") }), to("v2", { method: is("PATCH") }), to("v3", { headers: [header("version", "four")] }),
    ],
  }, [
    ["POST", { method: "POST" }, "v1"], ["GET", { method: "GET" }, "v2"], ["no rule has it", { method: "HEAD" }, 404], ["with a path", { url: "/path1", method: "GET" }, "v1"],
    ["with a header", { method: "PUT", headers: { version: "one" } }, "v2"], ["with both", { url: "/path2", method: "POST", headers: { version: "two" } }, "v3"],
    ["the first of two matches", { url: "/path3", method: "PATCH" }, "v1"], ["the second of two", { url: "/path4", method: "DELETE", headers: { version: "three" } }, "v1"],
    ["the method alone is not enough", { method: "PUT" }, 404], ["nor with the path", { url: "/path4", method: "DELETE" }, 404],
    ["a path wins over a method", { url: "/path5", method: "PATCH" }, "v1"], ["a method wins over a header", { method: "PATCH", headers: { version: "four" } }, "v2"],
  ]);
});

describe("the Gateway API's conformance cases: query parameters", () => {
  const whale = param("animal", "whale");
  table({
    rules: [
      to("v1", { query: [whale] }), to("v2", { query: [param("animal", "dolphin")] }), to("v3", { query: [param("animal", "dolphin"), param("color", "blue")] }, { query: [param("ANIMAL", "Whale")] }),
      to("v1", { path: path.prefix("/path1"), query: [whale] }), to("v2", { headers: [header("version", "one")], query: [whale] }),
      to("v3", { path: path.prefix("/path2"), headers: [header("version", "two")], query: [whale] }),
      to("v1", { path: path.prefix("/path3"), query: [param("animal", "shark")] }, { path: path.prefix("/path4"), headers: [header("version", "three")], query: [param("animal", "kraken")] }),
      to("v1", { path: path.prefix("/path5") }), to("v2", { query: [param("animal", "hydra")] }), to("v3", { headers: [header("version", "four")] }),
    ],
  }, [
    ["a value", { url: "/?animal=whale" }, "v1"], ["another", { url: "/?animal=dolphin" }, "v2"], ["more parameters win", { url: "/?animal=dolphin&color=blue" }, "v3"],
    ["names have case", { url: "/?ANIMAL=Whale" }, "v3"], ["others do not matter", { url: "/?animal=whale&otherparam=irrelevant" }, "v1"], ["half of a pair", { url: "/?animal=dolphin&color=yellow" }, "v2"],
    ["the other half", { url: "/?color=blue" }, 404], ["an unknown value", { url: "/?animal=dog" }, 404], ["a value that begins alike", { url: "/?animal=whaledolphin" }, 404], ["none", { url: "/" }, 404],
    ["with a path", { url: "/path1?animal=whale" }, "v1"], ["with a header", { url: "/?animal=whale", headers: { version: "one" } }, "v2"],
    ["with both", { url: "/path2?animal=whale", headers: { version: "two" } }, "v3"], ["the first of two matches", { url: "/path3?animal=shark" }, "v1"],
    ["the second", { url: "/path4?animal=kraken", headers: { version: "three" } }, "v1"], ["half of the first", { url: "/?animal=shark" }, 404], ["half of the second", { url: "/path4?animal=kraken" }, 404],
    ["a path wins over a parameter", { url: "/path5?animal=hydra" }, "v1"], ["a header wins over a parameter", { url: "/?animal=hydra", headers: { version: "four" } }, "v3"],
  ]);
});

describe("the Gateway API's conformance cases: gRPC methods", () => {
  const echo = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho";
  describe("a service, a method, both", () => table({ kind: "GRPCRoute", rules: [to("method", { path: regex("/[^/]+/M") }), to("service", { path: path.text("/s.S/") }), to("both", { path: path.exact("/s.S/M") })] }, [
    ["both", { url: "/s.S/M" }, "both"], ["the service", { url: "/s.S/N" }, "service"], ["the method", { url: "/t.T/M" }, "method"], ["neither", { url: "/t.T/N" }, 404], ["a longer name", { url: "/s.SS/N" }, 404],
  ]));
  table({ kind: "GRPCRoute", rules: [to("v1", { path: path.exact(`${echo}/Echo`) }), to("v2", { path: path.exact(`${echo}/EchoTwo`) })] }, [
    ["the first", { url: `${echo}/Echo`, method: "POST" }, "v1"], ["the second", { url: `${echo}/EchoTwo`, method: "POST" }, "v2"], ["one that no rule names", { url: `${echo}/EchoThree`, method: "POST" }, 404],
  ]);
});

describe("the Gateway API's conformance cases: what a route is attached to", () => {
  const parent = (fields: Partial<Route["parents"][number]>): Route["parents"] => [{ service: WEB, port: null, clientNamespace: null, ...fields }];
  const storeOf = (...routes: readonly Route[]): L7Store => {
    const store = new L7Store();
    store.apply({ ...EMPTY_L7_DELTA, routes });
    return store;
  };
  const from = (store: L7Store, namespace: string | null, url = "/", port = 80) => reached(routerOf(store.routes(WEB, port, namespace)), { url, source: { namespace } });
  test("a route of one port leaves the others alone", () => {
    const store = storeOf(route({ parents: parent({ port: 80 }), rules: [to("v1")] }));
    expect([from(store, "shop"), from(store, "shop", "/", 8080)]).toEqual(["v1", "no routes"]);
  });
  test("another service's route is none of ours", () => expect(from(storeOf(route({ parents: parent({ service: "shop/else" as NamespacedName }), rules: [to("v1")] })), "shop")).toBe("no routes"));
  test("TLS and TCP routes say nothing of requests", () => expect(from(storeOf({ ...route({ rules: [] }), rules: { protocol: "tls", rules: [] } }), "shop")).toBe("no routes"));
  test("a consumer's routes are for its namespace, and take the place of the producer's", () => {
    const store = storeOf(
      route({ name: "producer", rules: [to("v1")] }), route({ name: "consumer", namespace: "front", parents: parent({ clientNamespace: "front" }), rules: [to("v2", { path: path.prefix("/v2") })] }),
    );
    expect([from(store, "front", "/v2"), from(store, "front"), from(store, "shop", "/v2"), from(store, null, "/v2")]).toEqual(["v2", 404, "v1", "v1"]);
  });
  test("a set is compiled once, and anew when it changes", () => {
    const store = storeOf(route({ rules: [to("v1")] }));
    const before = routerOf(store.routes(WEB, 80, null));
    expect(routerOf(store.routes(WEB, 80, "shop"))).toBe(before);
    store.apply({ ...EMPTY_L7_DELTA, routes: [route({ rules: [to("v2")] })] });
    expect(from(store, "shop")).toBe("v2");
  });
});

describe("ties", () => {
  const named = (name: string, backend: string, createdMs: number): Route => route({ name, createdMs, rules: [to(backend, { path: path.prefix("/a") })] });
  test("the older route wins", () => expect(reached(router(named("a", "young", 2), named("b", "old", 1)), "/a")).toBe("old"));
  test("then the name", () => expect(reached(router(named("b", "b", 1), named("a", "a", 1)), "/a")).toBe("a"));
  test("the namespace is part of the name", () => {
    const other = { ...named("a", "z", 1), namespace: "zoo" };
    expect(reached(router(other, named("b", "s", 1)), "/a")).toBe("s");
  });
  test("then the earlier rule, whatever order the routes come in", () => {
    const r = route({ rules: [to("first", { path: path.prefix("/a") }), to("second", { path: path.prefix("/a/") })] });
    expect(reached(router(r), "/a/b")).toBe("first");
  });
  test("the same answer for every order of routes", () => {
    const all = [named("c", "c", 2), named("a", "a", 2), named("b", "b", 1), named("d", "d", 3)];
    const answers = [all, [...all].reverse(), [all[2]!, all[0]!, all[3]!, all[1]!]].map((order) => reached(router(...order), "/a/x"));
    expect(answers).toEqual(["b", "b", "b"]);
  });
});

describe("regular expressions", () => {
  const r = router(route({ rules: [to("exact", { path: path.exact("/a/1") }), to("prefix", { path: path.prefix("/a/2") }), to("regex", { path: regex("/a/[0-9]+") }), to("all")] }));
  test.each([["/a/1", "exact"], ["/a/2", "prefix"], ["/a/3", "regex"], ["/a/3/x", "all"], ["/x/a/3", "all"]])("%s", (url, expected) => expect(reached(r, url)).toBe(expected));
  test("one that would drive a backtracking engine mad is done in no time", () => {
    const mad = router(route({ rules: [to("mad", { path: regex("/(a+)+b"), headers: [header("x", regex("(x|x)*y"))] }), to("else")] }));
    expect(processorMs(() => expect(reached(mad, { url: `/${"a".repeat(5000)}`, headers: { x: "x".repeat(5000) } })).toBe("else"))).toBeLessThan(1000);
  });
  test.each([["(", "missing"], ["a".repeat(2000), "at most 1024"], ["(?:a{1000}){3}", "repeat"], ["a{900}b{900}c{900}", "at most 2000"]])("a pattern that cannot be used breaks its rule: %s", (bad, why) => {
    const broken = router(route({ rules: [to("bad", { path: regex(bad), method: is("GET") }), to("other", { path: path.prefix("/other") })] }));
    expect(broken.problems).toHaveLength(1);
    expect(broken.problems[0]!.message).toContain(why);
    const got = broken.match(request({ url: "/secret" }));
    expect(got.kind === "matched" ? got.rule.broken : got.kind).toContain(why);
    expect(reached(broken, "/other")).toBe("other");
    expect(reached(broken, { url: "/x", method: "PUT" })).toBe(404);
  });
});

describe("headers", () => {
  const one = (pattern: ReturnType<typeof header>, headers: RequestFields["headers"] = {}): boolean => reached(router(route({ rules: [to("yes", { headers: [pattern] })] })), { headers }) === "yes";
  test.each([
    ["repeated values count as one text", header("x", "a, b"), { x: ["a", "b"] }, true],
    ["so that neither is hidden behind the other", header("x", "a"), { x: ["a", "b"] }, false],
    ["names have no case", header("x-a", "1"), { "X-A": "1" }, true], ["values have", header("x", "a"), { x: "A" }, false],
    ["there, and empty", header("x", ""), { x: "" }, true], ["empty is not absent", header("x", ""), {}, false],
    ["present", header("x", { kind: "present" }), { x: "" }, true], ["present, and absent", header("x", { kind: "present" }), {}, false],
    ["absent, as asked", header("x", { kind: "present" }, true), {}, true], ["a prefix", header("x", { kind: "prefix", value: "ab" }), { x: "abc" }, true],
    ["a suffix", header("x", { kind: "suffix", value: "bc" }), { x: "abc" }, true], ["a regular expression covers the whole", header("x", regex("b")), { x: "abc" }, false],
    ["the opposite of an absent one holds", header("x", "a", true), {}, true], ["the opposite of one that is there", header("x", "a", true), { x: "a" }, false],
    ["more than ASCII, as its bytes", header("x", "é"), { x: "\u00c3\u00a9" }, true], ["the host is no field, and matched all the same", header("host", "web"), {}, true],
    ["cookies are joined in their own way", header("cookie", regex(".*; b=2")), { cookie: ["a=1", "b=2"] }, true],
  ] as const)("%s", (_, pattern, headers, expected) => expect(one(pattern, headers)).toBe(expected));

  test("of several entries with one name the Gateway API counts the first, VirtualService all", () => {
    const twice = to("yes", { headers: [header("x", "a"), header("x", "b")] });
    expect(reached(router(route({ rules: [twice] })), { headers: { x: "a" } })).toBe("yes");
    expect(reached(router(route({ kind: "VirtualService", rules: [twice] })), { headers: { x: "a" } })).toBe(404);
    const between = to("range", { headers: [header("x", { kind: "prefix", value: "a" }), header("x", "ab", true)] });
    expect(reached(router(route({ kind: "VirtualService", rules: [between] })), { headers: { x: "ac" } })).toBe("range");
    expect(reached(router(route({ kind: "VirtualService", rules: [between] })), { headers: { x: "ab" } })).toBe(404);
  });
});

describe("query parameters", () => {
  const one = (pattern: ReturnType<typeof param>, url: string): boolean => reached(router(route({ rules: [to("yes", { query: [pattern] })] })), url) === "yes";
  test.each([
    ["the first of several", param("a", "1"), "/?a=1&a=2", true], ["not the second", param("a", "2"), "/?a=1&a=2", false], ["percent-decoded value", param("a", "x y/é"), "/?a=x%20y%2f%C3%A9", true],
    ["percent-decoded name", param("a b", "1"), "/?a%20b=1", true], ["plus stays", param("a", "x+y"), "/?a=x+y", true], ["no value", param("a", ""), "/?a", true], ["empty value", param("a", ""), "/?b=1&a=&c", true],
    ["present", param("a", { kind: "present" }), "/?x&a", true], ["absent", param("a", { kind: "present" }), "/?ab=1&b=a", false], ["an equals sign in the value", param("a", "b=c"), "/?a=b=c", true],
    ["an escape that is none", param("a", "%zz%"), "/?a=%zz%", true], ["broken UTF-8 is no match for text", param("a", "\u00ff"), "/?a=%ff", false], ["regular expression", param("a", regex("[0-9]+")), "/?a=42", true],
    ["semicolons divide nothing", param("b", "2"), "/?a=1;b=2", false], ["an empty name", param("", "1"), "/?=1", true],
  ] as const)("%s", (_, pattern, url, expected) => expect(one(pattern, url)).toBe(expected));
});

describe("VirtualService", () => {
  const vs = (rules: RouteFields["rules"], fields: Partial<RouteFields> = {}): Route => route({ kind: "VirtualService", rules, ...fields });
  test("the first rule wins, however general", () => expect(reached(router(vs([to("first", { path: path.text("/") }), to("second", { path: path.exact("/a") })])), "/a")).toBe("first"));
  test("prefixes are text", () => {
    const r = router(vs([to("ab", { path: path.text("/a") })]));
    expect([reached(r, "/ab"), reached(r, "/a"), reached(r, "/b")]).toEqual(["ab", "ab", 404]);
  });
  test("case is ignored when asked for, in every kind of path", () => {
    const r = router(vs([
      to("exact", { path: path.exact("/Exact"), pathIgnoresCase: true }), to("text", { path: path.text("/Pre"), pathIgnoresCase: true }), to("prefix", { path: path.prefix("/Seg"), pathIgnoresCase: true }),
      to("regex", { path: regex("/re[a-z]+"), pathIgnoresCase: true }), to("sensitive", { path: path.exact("/S") }),
    ]));
    expect(["/eXACT", "/PREFIX", "/sEG/x", "/REX", "/S", "/s"].map((url) => reached(r, url))).toEqual(["exact", "text", "prefix", "regex", "sensitive", 404]);
  });
  test("authority, scheme, source namespace and labels", () => {
    const r = router(vs([
      to("host", { authority: is("API.example") }), to("https", { scheme: is("https") }), to("bank", { sourceNamespace: "bank" }), to("canary", { sourceLabels: { app: "web", track: "canary" } }),
    ]));
    const got = ([{ host: "api.example", authorityPort: 8080 }, { scheme: "https" }, { source: { namespace: "bank" } }, { source: { labels: { app: "web", track: "canary", x: "y" } } }, { source: { labels: { app: "web" } } }, {}] as const)
      .map((asked) => reached(r, asked));
    expect(got).toEqual(["host", "https", "bank", "canary", 404, 404]);
  });
  test("comes after the Gateway API's routes", () => {
    const r = router(vs([to("vs", { path: path.exact("/a") })], { createdMs: 0 }), route({ createdMs: 9, rules: [to("gateway", { path: path.prefix("/a") })] }));
    expect([reached(r, "/a"), reached(r, "/b")]).toEqual(["gateway", 404]);
  });
});

describe("many rules", () => {
  test("the index finds what the definition says when one path has many rules told apart by a header or authority", () => {
    const tenants = Array.from({ length: 40 }, (_, i) => to(`t${i}`, { path: path.prefix("/"), headers: [header(i % 2 === 0 ? "x-tenant" : "x-user", `t${i}`)] }));
    const r = router(route({ rules: [...tenants, to("rest")] }));
    expect([reached(r, { headers: { "x-tenant": "t38" } }), reached(r, { headers: { "x-user": "t39" } }), reached(r, { headers: { "x-tenant": "t39" } }), reached(r, { headers: { "x-tenant": "t38", "x-user": "t3" } })])
      .toEqual(["t38", "t39", "rest", "t3"]);
    const hosts = router(route({ kind: "VirtualService", rules: Array.from({ length: 30 }, (_, i) => to(`h${i}`, { authority: is(`H${i}.example`) })) }));
    expect([reached(hosts, { host: "h29.example" }), reached(hosts, { host: "x.example" })]).toEqual(["h29", 404]);
  });

  test.each([
    ["exact paths", (i: number) => ({ path: path.exact(`/api/v1/resource-${i}`) })], ["prefixes", (i: number) => ({ path: path.prefix(`/api/v1/resource-${i}`) })], ["text prefixes", (i: number) => ({ path: path.text(`/api/v1/resource-${i}/`) })],
    ["headers", (i: number) => ({ headers: [header("x-tenant", `resource-${i}`)] })],
  ] as const)("10 000 told apart by %s cost little more than 10", (_, match) => {
    const time = (count: number): number => {
      const r = router(route({ kind: "VirtualService", rules: Array.from({ length: count }, (__, i) => to(`b${i}`, match(i))) }));
      const asked = request({ url: `/api/v1/resource-${count - 1}/`.replace(/\/$/, _ === "text prefixes" ? "/" : ""), headers: { "x-tenant": `resource-${count - 1}` } });
      let best = Infinity;
      for (let round = 0; round < 10; round++) {
        best = Math.min(best, processorMs(() => {
          for (let i = 0; i < 2000; i++) if (r.match(asked).kind !== "matched") throw new Error("not matched");
        }));
      }
      return best;
    };
    time(10);
    expect(time(10_000) / time(10)).toBeLessThan(10);
  });

  test("a path of many slashes costs what the configured prefixes cost", () => {
    const r = router(route({ rules: Array.from({ length: 100 }, (_, i) => to("p", { path: path.prefix(`/${"x".repeat(i + 1)}`) })) }));
    const asked = request({ url: "/".repeat(60_000) });
    expect(processorMs(() => {
      for (let i = 0; i < 100; i++) expect(r.match(asked).kind).toBe("unmatched");
    })).toBeLessThan(500);
  });
});

test("no match at all means every request", () => {
  const r = router(route({ rules: [rule({ backends: to("all").backends })] }));
  expect(["/", "*", "", "/any/where"].map((url) => reached(r, url))).toEqual(["all", "all", "all", "all"]);
});

test("the match that decided is named", () => {
  const r = router(route({ rules: [to("a", { path: path.exact("/x") }, { path: path.exact("/a") }), rule({ matches: [] })] }));
  const name = (url: string): string => {
    const found = r.match(request({ url }));
    return found.kind === "matched" ? formatProvenance(found.provenance) : found.kind;
  };
  expect([name("/a"), name("/else")]).toEqual(["HTTPRoute shop/route spec.rules[0].matches[1]", "HTTPRoute shop/route spec.rules[1]"]);
});

test("of a VirtualService by the names of its fields", () => {
  const one = route({ rules: [to("a", { path: path.exact("/a") })] });
  const r = router({ ...one, provenance: { ...one.provenance, kind: "VirtualService" } });
  const found = r.match(request({ url: "/a" }));
  if (found.kind !== "matched") return expect.unreachable();
  expect([found.provenance, found.rule.backends[0]!.provenance].map(({ fieldPath }) => fieldPath)).toEqual(["spec.rules[0].match[0]", "spec.rules[0].route[0]"]);
});

test("a rule that is out of service keeps its place", () => {
  const r = router(route({ rules: [{ ...to("bad", { path: path.prefix("/a") }), broken: "no such filter" }, to("all")] }));
  const found = r.match(request({ url: "/a/b" }));
  expect(found.kind === "matched" ? found.rule.broken : found.kind).toBe("no such filter");
});
