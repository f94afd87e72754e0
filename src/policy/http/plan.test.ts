import { describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { AUTHORIZER, backend, header, invalidBackend, path, regex, request, type RequestFields, route, rule, to, when } from "../../../test/kit/http-records.ts";
import { formatProvenance } from "../../core/fault.ts";
import { type Random, seededRandom } from "../../core/ports.ts";
import type { Fault, FaultAction } from "../../mesh/l7/fault.ts";
import type { RequestMatch } from "../../mesh/l7/match.ts";
import type { Cors, HttpRule, PathChange, Redirect, RouteFilter } from "../../mesh/l7/route.ts";
import { type ForwardPlan, type PlanContext, planRequest, type RequestPlan, type RespondPlan } from "./plan.ts";
import { Router } from "./router.ts";
import { sessionHeader, type SessionSigner } from "./session.ts";

const never: Random = { next: () => 0.999999 };
const signer: SessionSigner = { sign: (text) => createHmac("sha256", "k").update(text).digest("base64url") };
const CONTEXT: PlanContext = { random: never, listenerPort: 80, nowMs: 1_000_000, sessionSigner: signer };

function plan(rules: readonly Omit<HttpRule, "fieldPath">[], asked: RequestFields = {}, context: Partial<PlanContext> = {}, kind: "HTTPRoute" | "VirtualService" = "HTTPRoute"): RequestPlan {
  const view = request(asked);
  return planRequest(view, new Router([route({ kind, rules })]).match(view), { ...CONTEXT, ...context });
}
function forwarded(p: RequestPlan): ForwardPlan {
  if (p.kind !== "forward") throw new Error(`not forwarded: ${JSON.stringify(p)}`);
  return p;
}
function answered(p: RequestPlan): RespondPlan {
  if (p.kind !== "respond") throw new Error(`not answered: ${JSON.stringify(p)}`);
  return p;
}
const nameOf = (p: RequestPlan): string => forwarded(p).backend?.service.split("/")[1]!.split(".")[0] ?? "as asked";

describe("redirects", () => {
  const redirect = (fields: Partial<Redirect>, match: Partial<RequestMatch> = {}): Omit<HttpRule, "fieldPath"> =>
    rule({ matches: [when(match)], filters: [{ kind: "redirect", redirect: { scheme: null, hostname: null, path: null, port: null, status: 302, ...fields } }] });
  const location = (fields: Partial<Redirect>, asked: RequestFields & { readonly listenerPort?: number }, match: Partial<RequestMatch> = {}): string =>
    answered(plan([redirect(fields, match)], asked, { listenerPort: asked.listenerPort ?? 80 })).headers[0]![1];

  test.each([
    ["a host", { hostname: "example.org" }, {}, "http://example.org/x"], ["nothing but the status", {}, {}, "http://web/x"],
    ["port 80 is not written", { hostname: "example.org", port: 80 }, {}, "http://example.org/x"], ["another port is", { hostname: "example.org", port: 8080 }, {}, "http://example.org:8080/x"],
    ["a scheme brings its own port", { scheme: "https", hostname: "example.org" }, {}, "https://example.org/x"], ["https with 443", { scheme: "https", port: 443, hostname: "example.org" }, {}, "https://example.org/x"],
    ["https with 8443", { scheme: "https", port: 8443, hostname: "example.org" }, {}, "https://example.org:8443/x"],
    ["the listener's port is kept", { hostname: "example.org" }, { listenerPort: 8080 }, "http://example.org:8080/x"], ["port 80 away from 8080", { hostname: "example.org", port: 80 }, { listenerPort: 8080 }, "http://example.org/x"],
    ["a scheme away from 8080", { scheme: "https", hostname: "example.org" }, { listenerPort: 8080 }, "https://example.org/x"],
    ["on https", { hostname: "example.org" }, { scheme: "https", listenerPort: 443 }, "https://example.org/x"], ["on https, 443", { hostname: "example.org", port: 443 }, { scheme: "https", listenerPort: 443 }, "https://example.org/x"],
    ["on https, 8443", { hostname: "example.org", port: 8443 }, { scheme: "https", listenerPort: 443 }, "https://example.org:8443/x"], ["down to http", { scheme: "http", hostname: "example.org" }, { scheme: "https", listenerPort: 443 }, "http://example.org/x"],
    ["http with 80", { scheme: "http", port: 80, hostname: "example.org" }, { scheme: "https", listenerPort: 443 }, "http://example.org/x"], ["http with 8080", { scheme: "http", port: 8080, hostname: "example.org" }, { scheme: "https", listenerPort: 443 }, "http://example.org:8080/x"],
    ["https on the port of http is written", { scheme: "https", port: 80 }, {}, "https://web:80/x"],
    ["the query stays", {}, { url: "/x?a=1&b" }, "http://web/x?a=1&b"], ["an IPv6 host gets its brackets", {}, { host: "2001:db8::1", listenerPort: 8080 }, "http://[2001:db8::1]:8080/x"],
    ["a port in the request's authority is not the listener's", {}, { authorityPort: 9999 }, "http://web/x"], ["without a host a path", {}, { host: "" }, "/x"],
    ["which is not taken for a host", {}, { host: "", url: "//evil.example/x" }, "/evil.example/x"],
  ] as const)("%s", (_, fields, asked, expected) => expect(location(fields, { url: "/x", ...asked })).toBe(expected));

  test.each([301, 302, 303, 307, 308] as const)("status %d", (status) => {
    const p = answered(plan([redirect({ status })]));
    expect([p.status, p.code, p.grpcStatus]).toEqual([status, "redirect", null]);
  });
  test.each([
    ["a prefix", { kind: "prefix", value: "/replacement-prefix" }, "/original-prefix", "/original-prefix/lemon", "/replacement-prefix/lemon"],
    ["the full path", { kind: "full", value: "/full-path-replacement" }, "/full", "/full/path/original", "/full-path-replacement"],
  ] as const)("path: %s", (_, change, prefix, url, expected) => expect(location({ path: change }, { url }, { path: path.prefix(prefix) })).toBe(`http://web${expected}`));
  test("response headers of the rule come with it, whatever their place", () => {
    const filters: RouteFilter[] = [{ kind: "redirect", redirect: { scheme: "https", hostname: null, path: null, port: null, status: 301 } }, { kind: "responseHeaders", change: { set: [["X-A", "1"]], add: [], remove: [] } }];
    expect(answered(plan([rule({ filters })])).responseHeaders).toEqual([{ kind: "set", name: "x-a", value: "1" }]);
  });
});

describe("paths", () => {
  const rewritten = (change: PathChange, url: string, match: Partial<RequestMatch> = {}, kind: "HTTPRoute" | "VirtualService" = "HTTPRoute"): string => {
    const p = forwarded(plan([rule({ matches: [when(match)], filters: [{ kind: "rewrite", hostname: null, path: change }], backends: [backend("v1")] })], { url }, {}, kind));
    return p.path + p.query;
  };
  test.each([
    ["/foo/bar", "/foo", "/xyz", "/xyz/bar"], ["/foo/bar", "/foo", "/xyz/", "/xyz/bar"], ["/foo/bar", "/foo/", "/xyz", "/xyz/bar"], ["/foo/bar", "/foo/", "/xyz/", "/xyz/bar"], ["/foo", "/foo", "/xyz", "/xyz"],
    ["/foo/", "/foo", "/xyz", "/xyz/"], ["/foo/bar", "/foo", "", "/bar"], ["/foo/", "/foo", "", "/"], ["/foo", "/foo", "", "/"], ["/foo/", "/foo", "/", "/"], ["/foo", "/foo", "/", "/"],
    ["/prefix/one/two", "/prefix/one", "/one", "/one/two"], ["/strip-prefix/three", "/strip-prefix", "/", "/three"], ["/any", "/", "/new", "/new/any"], ["/", "/", "/new", "/new/"], ["/a?q=1", "/a", "/b", "/b?q=1"],
  ])("%s, prefix %s becomes %s: %s", (url, prefix, value, expected) => expect(rewritten({ kind: "prefix", value }, url, { path: path.prefix(prefix) })).toBe(expected));
  test.each([
    ["the full path", { kind: "full", value: "/one" }, "/full/one/two?x=1", "/one?x=1"], ["an empty one is the root", { kind: "full", value: "" }, "/a", "/"], ["without a slash it gets one", { kind: "full", value: "one" }, "/a", "/one"],
    ["a query of its own comes first", { kind: "full", value: "/one?a=1" }, "/x?b=2", "/one?a=1&b=2"], ["a prefix without a path in the match", { kind: "prefix", value: "/new" }, "/a/b", "/new/a/b"],
    ["a regular expression", { kind: "regex", pattern: "^/service/([^/]+)(/.*)$", substitution: "\\2/instance/\\1" }, "/service/foo/v1?q", "/v1/instance/foo?q"],
    ["what cannot stand in a request line is escaped", { kind: "full", value: "/a b\r\nx: é#f" }, "/", "/a%20b%0D%0Ax:%20%C3%A9%23f"],
  ] as const)("%s", (_, change, url, expected) => expect(rewritten(change, url)).toBe(expected));
  test("VirtualService replaces text, and with an exact match all of it", () => {
    expect(rewritten({ kind: "prefix", value: "/x" }, "/foobar", { path: path.text("/foo") }, "VirtualService")).toBe("/xbar");
    expect(rewritten({ kind: "prefix", value: "/x/" }, "/foobar", {}, "VirtualService")).toBe("/x/foobar");
    expect(rewritten({ kind: "prefix", value: "/x" }, "/foo", { path: path.exact("/foo") }, "VirtualService")).toBe("/x");
    expect(rewritten({ kind: "prefix", value: "/x" }, "/foo", { path: regex("/f.*") }, "VirtualService")).toBe("/x");
  });
  test("an expression that cannot be used breaks the rule", () => {
    const p = answered(plan([rule({ filters: [{ kind: "rewrite", hostname: null, path: { kind: "regex", pattern: "(", substitution: "" } }], backends: [backend("v1")] })]));
    expect([p.code, p.status]).toEqual(["rule_broken", 500]);
    expect(p.detail).toContain("missing");
  });
});

describe("hosts and headers", () => {
  test("a rewritten host is sent", () => expect(forwarded(plan([rule({ filters: [{ kind: "rewrite", hostname: "one.example.org", path: null }], backends: [backend("v1")] })])).host).toBe("one.example.org"));
  test("changes are operations in order: the rule's, then the backend's", () => {
    const change = (n: string): RouteFilter => ({ kind: "requestHeaders", change: { set: [["X-Set", n]], add: [["X-Add", n]], remove: ["X-Remove"] } });
    const p = forwarded(plan([rule({ filters: [change("rule")], backends: [backend("v1", { filters: [change("backend")] })] })]));
    const of = (n: string) => [{ kind: "set", name: "x-set", value: n }, { kind: "append", name: "x-add", value: n }, { kind: "remove", name: "x-remove" }];
    expect(p.requestHeaders as unknown).toEqual([...of("rule"), ...of("backend")]);
  });
  test("a value that is more than ASCII goes out as UTF-8", () => {
    const p = forwarded(plan([rule({ filters: [{ kind: "requestHeaders", change: { set: [["x", "é—"]], add: [], remove: [] } }], backends: [backend("v1")] })]));
    expect(p.requestHeaders).toEqual([{ kind: "set", name: "x", value: "\u00c3\u00a9\u00e2\u0080\u0094" }]);
  });
  test("setting Host changes the host", () => {
    const p = forwarded(plan([rule({ filters: [{ kind: "requestHeaders", change: { set: [["Host", "x.example"]], add: [], remove: [] } }], backends: [backend("v1")] })]));
    expect([p.host, p.requestHeaders]).toEqual(["x.example", []]);
  });
  test.each([
    ["Content-Length", "1"], ["transfer-encoding", "chunked"], ["Connection", "close"], [":path", "/x"], ["x y", "1"], ["x", "a\r\nb: c"], ["x", "a\u0000"], ["x", " a"], ["", "1"],
  ])("a rule that would write %j: %j is broken", (name, value) => {
    const p = answered(plan([rule({ filters: [{ kind: "requestHeaders", change: { set: [[name, value]], add: [], remove: [] } }], backends: [backend("v1")] })]));
    expect(p.code).toBe("rule_broken");
  });
});

describe("backends", () => {
  const weights = (...list: readonly number[]) => rule({ backends: list.map((weight, i) => backend(`v${i}`, { weight })) });
  const share = (r: Omit<HttpRule, "fieldPath">, count = 20_000): Record<string, number> => {
    const random = seededRandom(7);
    const counts: Record<string, number> = {};
    for (let i = 0; i < count; i++) {
      const p = plan([r], {}, { random });
      const name = p.kind === "forward" ? nameOf(p) : p.kind === "respond" ? p.code : p.kind;
      counts[name] = (counts[name] ?? 0) + 1;
    }
    return counts;
  };
  test("by weight", () => {
    const got = share(weights(70, 30, 0));
    expect(Object.keys(got).sort()).toEqual(["v0", "v1"]);
    expect(Math.abs(got["v0"]! / 20_000 - 0.7)).toBeLessThan(0.02);
  });
  test("an invalid reference fails its share", () => {
    const got = share(rule({ backends: [backend("ok", { weight: 3 }), invalidBackend("no Service shop/gone", 1)] }));
    expect(Math.abs(got["backend_invalid"]! / 20_000 - 0.25)).toBeLessThan(0.02);
  });
  test("an invalid one of weight 0 fails nobody", () => expect(share(rule({ backends: [invalidBackend("gone", 0), backend("ok")] }), 500)).toEqual({ ok: 500 }));
  test.each([
    ["only an invalid one", rule({ backends: [invalidBackend("no Service shop/gone")] }), "backend_invalid", 500, "no Service shop/gone"], ["none", rule({}), "no_backend", 500, "no backend"],
    ["all weights 0", weights(0, 0), "weights_all_zero", 500, "all 2 backends"], ["a single one of weight 0", weights(0), "weights_all_zero", 500, "weight 0"], ["a weight that is none", weights(-1, 2), "rule_broken", 500, "-1"],
    ["a rule out of service", { ...weights(1), broken: "filter of unknown kind" }, "rule_broken", 500, "filter of unknown kind"],
  ] as const)("%s", (_, r, code, status, detail) => {
    const p = answered(plan([r]));
    expect([p.code, p.status]).toEqual([code, status]);
    expect(p.detail).toContain(detail);
  });
  test("the invalid reference is named", () => expect(formatProvenance(answered(plan([rule({ backends: [invalidBackend("gone")] })])).provenance!)).toBe("HTTPRoute shop/route spec.rules[0].backendRefs[0]"));
  test("a backend may redirect its share", () => {
    const r = rule({ backends: [backend("v1", { filters: [{ kind: "redirect", redirect: { scheme: "https", hostname: null, path: null, port: null, status: 301 } }] })] });
    expect(answered(plan([r])).headers).toEqual([["location", "https://web/"]]);
  });
  test("no route matches: 404; none attached: as asked", () => {
    expect([answered(plan([to("v1", { path: path.exact("/x") })])).status, nameOf(planRequest(request(), { kind: "noRoutes" }, CONTEXT))]).toEqual([404, "as asked"]);
  });
  test("what the rule says of time and retries goes along", () => {
    const timeouts = { requestMs: 1, backendRequestMs: 2, streamIdleMs: 0 };
    expect(forwarded(plan([{ ...weights(1), timeouts }])).timeouts).toEqual(timeouts);
  });
});

test("a direct answer", () => {
  const p = answered(plan([rule({ filters: [{ kind: "respond", status: 418, body: "teapot" }], backends: [backend("v1")] })]));
  expect([p.code, p.status, p.body]).toEqual(["direct_response", 418, "teapot"]);
});

test("a gRPC request is answered in gRPC's way", () => {
  const grpc = { headers: { "content-type": "application/grpc+proto" }, method: "POST" };
  const statuses = [plan([to("v1", { path: path.exact("/x") })], grpc), plan([rule({})], grpc), plan([rule({})])].map((p) => answered(p).grpcStatus);
  expect(statuses).toEqual([12, 14, null]);
});

test("an external authorizer stands before what comes after it, a redirect too, and not before what ended earlier", () => {
  const asked = { kind: "externalAuth", authorizer: AUTHORIZER } as const;
  const respond = { kind: "respond", status: 200, body: "" } as const;
  const plans = [[asked], [asked, respond], [respond, asked]].map((filters) => plan([rule({ filters, backends: [backend("v1")] })]).authorizers.length);
  expect(plans).toEqual([1, 1, 0]);
});

describe("mirrors", () => {
  const mirror = (name: string, fraction: number): RouteFilter => ({ kind: "mirror", mirror: { target: backend(name).target, fraction } });
  const mirrored = (filters: readonly RouteFilter[], context: Partial<PlanContext> = {}): string[] => forwarded(plan([rule({ filters, backends: [backend("v1")] })], {}, context)).mirrors.map(({ service }) => service.split("/")[1]!.split(".")[0]!);
  test("several at once, always and never", () => expect(mirrored([mirror("a", 1), mirror("b", 0), mirror("c", 1)])).toEqual(["a", "c"]));
  test("a share", () => {
    const random = seededRandom(3);
    const hits = Array.from({ length: 10_000 }, () => mirrored([mirror("a", 0.25)], { random }).length).reduce((a, b) => a + b);
    expect(Math.abs(hits / 10_000 - 0.25)).toBeLessThan(0.02);
  });
  test("an invalid one is left out, the request goes on", () => expect(mirrored([{ kind: "mirror", mirror: { target: { kind: "invalid", reason: "gone" }, fraction: 1 } }])).toEqual([]));
});

describe("faults", () => {
  const fault = (action: FaultAction, fraction = 1, matches: Fault["matches"] = []): Fault => ({ action, fraction, matches, fieldPath: "spec.http[0].fault" });
  const withFaults = (...faults: readonly Fault[]) => [{ ...to("v1"), faults }];
  const DELAY = { kind: "delay", fixedMs: 250 } as const;
  const ABORT = { kind: "abort", httpStatus: 503, grpcStatus: null } as const;
  test("a delay, marked", () => {
    const p = forwarded(plan(withFaults(fault(DELAY))));
    expect([p.delayMs, p.injected.map(({ action, provenance }) => [action.kind, formatProvenance(provenance)])]).toEqual([250, [["delay", "HTTPRoute shop/route spec.http[0].fault"]]]);
  });
  test("delays add up, then an abort ends it; nothing after that is drawn", () => {
    const p = answered(plan(withFaults(fault(DELAY), fault(DELAY), fault(ABORT), fault({ kind: "reset" }))));
    expect([p.code, p.status, p.delayMs, p.injected.length]).toEqual(["fault_abort", 503, 500, 3]);
  });
  test("a reset", () => expect(plan(withFaults(fault({ kind: "reset" }))).kind).toBe("reset"));
  test("the narrowest bandwidth counts", () => expect(forwarded(plan(withFaults(fault({ kind: "bandwidth", bytesPerSecond: 9 }), fault({ kind: "bandwidth", bytesPerSecond: 5 })))).bytesPerSecond).toBe(5));
  test("an abort of a gRPC request says its own status", () => {
    const grpc = { headers: { "content-type": "application/grpc" } };
    expect(answered(plan(withFaults(fault({ kind: "abort", httpStatus: 200, grpcStatus: 8 })), grpc)).grpcStatus).toBe(8);
    expect(answered(plan(withFaults(fault(ABORT)), grpc)).grpcStatus).toBe(14);
  });
  test("only where it matches", () => {
    const only = fault(ABORT, 1, [when({ headers: [header("x-test", "1")] }), when({ path: path.text("/slow") })]);
    expect([plan(withFaults(only)).kind, plan(withFaults(only), { headers: { "x-test": "1" } }).kind, plan(withFaults(only), { url: "/slower" }).kind]).toEqual(["forward", "respond", "respond"]);
  });
  test("by share", () => {
    const random = seededRandom(5);
    const rules = withFaults(fault(ABORT, 0.1));
    const hits = Array.from({ length: 10_000 }, () => plan(rules, {}, { random }).kind === "respond").filter(Boolean).length;
    expect(Math.abs(hits / 10_000 - 0.1)).toBeLessThan(0.02);
  });
  test("never with share 0", () => expect(plan(withFaults(fault(ABORT, 0)), {}, { random: { next: () => 0 } }).kind).toBe("forward"));
});

describe("CORS: the Gateway API's conformance cases", () => {
  const CORS: Cors = { allowOrigins: [], allowMethods: [], allowHeaders: [], exposeHeaders: [], allowCredentials: false, maxAgeS: null, unmatchedPreflight: "answer" };
  const one: Cors = {
    ...CORS, allowOrigins: [{ kind: "exact", value: "https://www.foo.com" }, { kind: "exact", value: "https://*.bar.com" }], allowMethods: ["GET", "OPTIONS"], allowHeaders: ["x-header-1", "x-header-2"],
    exposeHeaders: ["x-header-3", "x-header-4"], allowCredentials: true, maxAgeS: 3600,
  };
  const methods: Cors = { ...CORS, allowOrigins: [{ kind: "exact", value: "https://www.foo.com" }], allowMethods: ["*"] };
  const anyOrigin: Cors = { ...CORS, allowOrigins: [{ kind: "exact", value: "*" }], allowMethods: ["PUT"] };
  const everything: Cors = { ...CORS, allowOrigins: [{ kind: "present" }], allowMethods: ["*"], allowHeaders: ["*"], exposeHeaders: ["*"], allowCredentials: true };
  const ask = (cors: Cors, asked: RequestFields): RequestPlan => plan([rule({ filters: [{ kind: "cors", cors }], backends: [backend("v1")] })], asked);
  const preflight = (origin: string, method = "GET", headers?: string): RequestFields => ({
    method: "OPTIONS", headers: { Origin: origin, "access-control-request-method": method, ...(headers === undefined ? {} : { "access-control-request-headers": headers }) },
  });
  /** The header that the browser sees in the end. */
  const seen = (p: RequestPlan): Record<string, string> => {
    const out: Record<string, string> = { "access-control-allow-origin": "the backend's own" };
    for (const op of p.responseHeaders) {
      if (op.kind === "remove") delete out[op.name];
      else out[op.name] = op.kind === "append" && out[op.name] !== undefined ? `${out[op.name]}, ${op.value}` : op.value;
    }
    return out;
  };
  test("a preflight of an allowed origin", () => {
    const p = ask(one, preflight("https://www.foo.com", "GET", "x-header-1, x-header-2"));
    expect([answered(p).code, answered(p).status]).toEqual(["cors_preflight", 204]);
    expect(seen(p)).toEqual({
      "access-control-allow-origin": "https://www.foo.com", "access-control-allow-methods": "GET, OPTIONS", "access-control-allow-headers": "x-header-1, x-header-2",
      "access-control-expose-headers": "x-header-3, x-header-4", "access-control-max-age": "3600", "access-control-allow-credentials": "true", vary: "Origin",
    });
  });
  test.each([
    ["https://www.bar.com", true], ["https://xpto.www.bar.com", true], ["https://bar.com", false], ["https://.bar.com", false], ["http://www.bar.com", false], ["https://www.bar.com.evil.example", false], ["https://evil.example/.bar.com", false], ["https://foobar.com", false], ["null", false],
    ["https://www.foo.com:8443", false], ["HTTPS://WWW.FOO.COM", true],
  ])("origin %s", (origin, allowed) => {
    const pre = ask(one, preflight(origin));
    expect(answered(pre).code).toBe(allowed ? "cors_preflight" : "cors_preflight_denied");
    expect([answered(pre).status, pre.responseHeaders.some(({ name }) => name === "access-control-allow-origin")]).toEqual([204, allowed]);
    const actual = ask(one, { headers: { origin } });
    expect([actual.kind, seen(actual)["access-control-allow-origin"]]).toEqual(["forward", allowed ? origin : undefined] as never);
  });
  test("a wildcard for methods echoes the one asked for; no credentials, no header of them", () => {
    const got = seen(ask(methods, preflight("https://www.foo.com", "POST")));
    expect([got["access-control-allow-methods"], got["access-control-allow-credentials"], got["vary"]]).toEqual(["POST", undefined, "Origin, Access-Control-Request-Method"]);
  });
  test("a wildcard for origins without credentials is a star, and varies with nothing", () => {
    for (const origin of ["https://foobar.com", "https://foobar.com:12345"]) {
      expect(seen(ask(anyOrigin, preflight(origin, "PUT")))).toEqual({ "access-control-allow-origin": "*", "access-control-allow-methods": "PUT" });
      expect(seen(ask(anyOrigin, { method: "PUT", headers: { origin } }))).toEqual({ "access-control-allow-origin": "*" });
    }
  });
  test("with credentials nothing is a star", () => {
    const got = seen(ask(everything, preflight("https://other.foo.com", "PUT", "x-header-1, x-header-2")));
    expect(got).toEqual({
      "access-control-allow-origin": "https://other.foo.com", "access-control-allow-methods": "PUT", "access-control-allow-headers": "x-header-1, x-header-2", "access-control-allow-credentials": "true",
      vary: "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    });
  });
  test("without requested headers a wildcard for headers says nothing", () => expect(seen(ask(everything, preflight("https://o.example", "PUT")))["access-control-allow-headers"]).toBeUndefined());
  test.each(["x\r\ny: z", "a b", "x, ", "\u0000"])("what is no list of tokens is not echoed: %j", (headers) => expect(seen(ask(everything, preflight("https://o.example", "PUT", headers)))["access-control-allow-headers"]).toBeUndefined());
  test.each([["allowMethods", "GET\r\nx: y"], ["allowHeaders", "a b"], ["exposeHeaders", ""]])("%s with %j breaks the rule", (field, name) => expect(answered(ask({ ...one, [field]: [name] }, {})).code).toBe("rule_broken"));
  test("a preflight may be passed on when its origin is not allowed", () => expect(ask({ ...one, unmatchedPreflight: "forward" }, preflight("https://else.example")).kind).toBe("forward"));
  test("OPTIONS without a requested method is an ordinary request", () => expect(ask(one, { method: "OPTIONS", headers: { origin: "https://www.foo.com" } }).kind).toBe("forward"));
  test("two origins are not allowed", () => expect(answered(ask(anyOrigin, { method: "OPTIONS", headers: { origin: ["https://a.example", "https://b.example"], "access-control-request-method": "PUT" } })).code).toBe("cors_preflight_denied"));
  test("no origin: caches are told, the backend's own words are taken out", () => expect(seen(ask(one, {}))).toEqual({ vary: "Origin" }));
});

describe("sessions", () => {
  const persistence = { kind: "cookie", name: "sid", path: null, absoluteTimeoutMs: null, idleTimeoutMs: null } as const;
  const rules = (fields: Partial<HttpRule["sessionPersistence"] & object> = {}, weights: readonly [number, number] = [1, 1]) =>
    [{ ...rule({ backends: [backend("v1", { weight: weights[0] }), backend("v2", { weight: weights[1] })] }), sessionPersistence: { ...persistence, ...fields } }];
  /** The text that a client is given by a first request at `nowMs`, as name and value of a header. */
  const given = (r = rules(), nowMs = 1_000_000, secure = false) => {
    const { session } = forwarded(plan(r, {}, { nowMs }));
    return sessionHeader(session!.scope, { backend: session!.backend, endpoint: "Kubernetes//Pod/shop/v2-1", current: session!.current, nowMs, secure })!;
  };
  const cookie = (set: string): string => set.split(";")[0]!;
  test("the attributes of a session cookie", () => expect(given().value).toMatch(/^sid=[\w.-]+; Path=\/; HttpOnly; SameSite=Lax$/));
  test.each([[{ name: "a b" }], [{ name: "" }], [{ name: "x\r\ny" }], [{ path: "/; Domain=example" }], [{ path: "/\r\nx: y" }]])("%j breaks the rule", (fields) => expect(answered(plan(rules(fields))).code).toBe("rule_broken"));
  test("a path of its own", () => expect(given(rules({ path: "/shop" })).value).toContain("; Path=/shop;"));
  test("secure, and with a lifetime", () => expect(given(rules({ absoluteTimeoutMs: 60_000 }), 0, true).value).toMatch(/; Path=\/; Max-Age=60; HttpOnly; SameSite=Lax; Secure$/));
  test("the client comes back to its backend and endpoint, even at weight 0", () => {
    const p = forwarded(plan(rules({}, [1, 0]), { headers: { cookie: `a=b; ${cookie(given().value)}; c=d` } }));
    expect([nameOf(p), p.session!.current?.endpoint]).toEqual(["v2", "Kubernetes//Pod/shop/v2-1"]);
    expect(sessionHeader(p.session!.scope, { backend: p.session!.backend, endpoint: "Kubernetes//Pod/shop/v2-1", current: p.session!.current, nowMs: 1_000_001, secure: false })).toBeNull();
  });
  test("another endpoint is told anew, from the first start", () => {
    const p = forwarded(plan(rules({ absoluteTimeoutMs: 60_000 }), { headers: { cookie: cookie(given(rules({ absoluteTimeoutMs: 60_000 }), 0).value) } }, { nowMs: 10_000 }));
    const again = sessionHeader(p.session!.scope, { backend: p.session!.backend, endpoint: "another", current: p.session!.current, nowMs: 10_000, secure: false });
    expect(again?.value).toContain("Max-Age=60");
  });
  test("by header", () => {
    const r = rules({ kind: "header", name: "X-Session" });
    const set = given(r);
    expect(set.name).toBe("x-session");
    expect(nameOf(plan(r, { headers: { "x-session": set.value } }))).toBe("v2");
  });
  test.each([
    ["absolute", { absoluteTimeoutMs: 1000 }, 999, 1000], ["idle", { idleTimeoutMs: 1000 }, 999, 1000],
  ] as const)("%s time", (_, fields, alive, over) => {
    const set = cookie(given(rules(fields), 0).value);
    const at = (nowMs: number) => forwarded(plan(rules(fields), { headers: { cookie: set } }, { nowMs })).session!.current !== null;
    expect([at(alive), at(over)]).toEqual([true, false]);
  });
  test("an idle time is renewed by use, and the start stays", () => {
    const r = rules({ idleTimeoutMs: 1000 });
    const p = forwarded(plan(r, { headers: { cookie: cookie(given(r, 0).value) } }, { nowMs: 900 }));
    const renewed = sessionHeader(p.session!.scope, { backend: p.session!.backend, endpoint: p.session!.current!.endpoint, current: p.session!.current, nowMs: 900, secure: false })!;
    const later = forwarded(plan(r, { headers: { cookie: cookie(renewed.value) } }, { nowMs: 1800 }));
    expect([later.session!.current?.startedMs, later.session!.current?.lastUsedMs]).toEqual([0, 900]);
  });
  test("nothing that was changed, signed with another key, or made for another rule is taken", () => {
    const text = cookie(given().value).slice("sid=".length);
    const accepted = (value: string, context: Partial<PlanContext> = {}) => forwarded(plan(rules(), { headers: { cookie: `sid=${value}` } }, context)).session!.current !== null;
    expect(accepted(text)).toBe(true);
    for (let i = 0; i < text.length; i++) expect([i, accepted(text.slice(0, i) + (text[i] === "A" ? "B" : "A") + text.slice(i + 1))]).toEqual([i, false]);
    for (const bad of ["", ".", "..", "1..", text.slice(0, -1), `${text}.x`, "x".repeat(5000), "1.@@.@@"]) expect(accepted(bad)).toBe(false);
    expect(accepted(text, { sessionSigner: { sign: (t) => createHmac("sha256", "other").update(t).digest("base64url") } })).toBe(false);
    const other = plan([to("v1", { path: path.exact("/other") }), rules()[0]!], { headers: { cookie: `sid=${text}` } });
    expect(forwarded(other).session!.current).toBeNull();
  });
  test("a backend that the rule has no more is chosen anew", () => {
    const text = cookie(given().value);
    const p = forwarded(plan([{ ...rule({ backends: [backend("v3")] }), sessionPersistence: persistence }], { headers: { cookie: text } }));
    expect(nameOf(p)).toBe("v3");
  });
});
