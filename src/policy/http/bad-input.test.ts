// Bad input to routing and policy, each with the answer that it has to get. Paths and hosts come through the normaliser as they do
// in a waypoint; what has more cases than fit here (patterns, tokens, headers) has them beside its own file.

import { describe, expect, test } from "bun:test";
import { processorMs } from "../../../test/kit/fair-time.ts";
import { backend, header, invalidBackend, param, path, regex, request, requestPolicy, route, rule, to } from "../../../test/kit/http-records.ts";
import { exact, ip, prefix } from "../../../test/kit/mesh-records.ts";
import type { RequestPolicy } from "../../mesh/l7/access.ts";
import type { Route } from "../../mesh/l7/route.ts";
import { ListFields } from "../../wire/http/fields.ts";
import { parseHost } from "../../wire/http/host.ts";
import type { PathNormalisation } from "../../wire/http/path.ts";
import { readPath } from "../../wire/http/request-target.ts";
import { authoriseRequest } from "./authorise-request.ts";
import { planRequest } from "./plan.ts";
import type { RequestView } from "./request.ts";
import { Router } from "./router.ts";
import { isUntrusted, looksAtMethods } from "./untrusted-headers.ts";

/** The request as a waypoint would see it; null when the normaliser refuses it (400). */
function arrive(target: string, { how = "base", host = "web", method = "GET" }: { readonly how?: PathNormalisation; readonly host?: string; readonly method?: string } = {}): RequestView | null {
  const read = readPath(target, how);
  const named = parseHost(host);
  return read.ok && named.ok ? { ...request({ method, host: named.value.name }), fields: new ListFields(["accept", "*/*"]), path: read.value.path, query: read.value.query } : null;
}
const allows = (policies: readonly RequestPolicy[], asked: RequestView): boolean =>
  authoriseRequest({ policies, authentications: [], logins: [] }, {
    principals: [], namespace: null, serviceAccount: null, sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: 80, request: asked, remoteIp: ip("198.18.0.9"), sni: null, token: null,
  }).kind === "allow";
const backendOf = (routes: readonly Route[], asked: RequestView): string => {
  const plan = planRequest(asked, new Router(routes).match(asked), { random: { next: () => 0 }, listenerPort: 80, nowMs: 0, sessionSigner: null });
  return plan.kind === "forward" ? `${plan.backend?.service.split("/")[1]!.split(".")[0]} ${plan.path}` : plan.kind === "respond" ? `${plan.status} ${plan.code}` : plan.kind;
};

describe("paths: the same form for routes, policies and the backend", () => {
  const deny = requestPolicy({ name: "d", action: "deny", rules: [{ paths: [exact("/admin"), prefix("/admin/")] }] });
  const routes = [route({ rules: [to("admin", { path: path.prefix("/admin") }), to("rest")] })];
  /** What happens to a target: refused, denied, or where it goes with which path. */
  const fate = (target: string, how: PathNormalisation = "base"): string => {
    const asked = arrive(target, { how });
    return asked === null ? "400" : allows([deny], asked) ? backendOf(routes, asked) : "403";
  };
  test.each([
    ["/admin", "403"], ["/%61dmin", "403"], ["/x/../admin", "403"], ["/x/%2e%2e/admin", "403"], ["/x/%2E./admin/y", "403"], ["/./admin", "403"], ["/admin/.", "403"], ["\\admin", "400"], ["/x\\..\\admin", "403"], ["/%2e/admin", "403"],
    ["/admin%2Fx", "rest /admin%2Fx"], ["/admin%2fx", "rest /admin%2Fx"], ["/admin%5Cx", "rest /admin%5Cx"], ["/admin%5cx", "rest /admin%5Cx"], ["//admin", "rest //admin"], ["/Admin", "rest /Admin"], ["/admin;x=1", "rest /admin;x=1"], ["/admin/;x", "403"],
    ["/admin%3Fx", "rest /admin%3Fx"], ["/admin?x", "403"], ["/admin#x", "400"], ["/admin%00", "400"], ["/admin%zz", "400"], ["/admin%", "400"], ["/admin%252Fx", "rest /admin%252Fx"], ["/%c0%ae%c0%ae/admin", "400"], ["/%e0%80%afadmin", "400"], ["/%f0%80%80%af", "400"],
    ["/x/..;/admin", "403"], ["/x/y/..;a=b/..;/admin", "403"], ["/admin\u0001", "400"], ["/admin x", "400"], ["admin", "400"], ["", "400"],
  ])("%j: %s", (target, expected) => expect(fate(target)).toBe(expected));
  test.each([["//admin", "403"], ["/x//..//admin", "rest /x/admin"], ["/admin//x", "403"]])("with slashes merged, %j: %s", (target, expected) => expect(fate(target, "mergeSlashes")).toBe(expected));
  test.each([["/admin%2Fx", "403"], ["/x%2f..%2fadmin", "403"], ["/x%5c..%5Cadmin", "403"], ["/admin%252Fx", "rest /admin%252Fx"]])("with slashes decoded, %j: %s", (target, expected) => expect(fate(target, "decodeAndMergeSlashes")).toBe(expected));

  test.each(["/caf%c3%a9", "/café", "/caf%C3%A9", "/ca%66é"])("a rule written as %j means the path that arrives as /caf%%C3%%A9", (written) => {
    const asked = arrive("/caf%c3%a9")!;
    expect(allows([requestPolicy({ name: "d", action: "deny", rules: [{ paths: [exact(written)] }] })], asked)).toBe(false);
    expect(allows([requestPolicy({ name: "d", action: "deny", rules: [{ paths: [{ kind: "template", value: written }] }] })], asked)).toBe(false);
    expect(backendOf([route({ rules: [to("v1", { path: path.exact(written) })] })], asked)).toBe("v1 /caf%C3%A9");
  });
  test("also where a prefix is replaced", () => {
    const rewriting = rule({ matches: [to("x", { path: path.prefix("/ca%66é") }).matches[0]!], filters: [{ kind: "rewrite", hostname: null, path: { kind: "prefix", value: "/x" } }], backends: [backend("v1")] });
    expect(backendOf([route({ rules: [rewriting] })], arrive("/caf%c3%a9/y")!)).toBe("v1 /x/y");
  });
  test("dots in a rule are text", () => {
    const asked = arrive("/.env")!;
    expect(allows([requestPolicy({ name: "d", action: "deny", rules: [{ paths: [prefix("/.")] }] })], asked)).toBe(false);
    expect(allows([requestPolicy({ name: "d", action: "deny", rules: [{ paths: [prefix("/./")] }] })], arrive("/x")!)).toBe(true);
  });
});

describe("hosts: one form", () => {
  const deny = requestPolicy({ name: "d", action: "deny", rules: [{ hosts: [exact("Internal.Example")] }] });
  test.each([["internal.example", false], ["INTERNAL.example", false], ["internal.example.", false], ["internal.example:8080", false], ["x.internal.example", true]] as const)("%s", (host, allowed) => expect(allows([deny], arrive("/", { host })!)).toBe(allowed));
  test.each([["internal.example.", "internal.example"], ["[2001:DB8::1]", "[2001:db8::1]"], ["[2001:db8::1]:8080", "[2001:db8::1]:8080"]])("a rule for %s means requests for %s", (written, host) => {
    const asked = { ...arrive("/", { host })!, authorityPort: 8080 };
    expect(allows([requestPolicy({ name: "d", action: "deny", rules: [{ hosts: [exact(written)] }] })], asked)).toBe(false);
    if (!written.endsWith("8080")) expect(backendOf([route({ kind: "VirtualService", rules: [to("v1", { authority: { kind: "exact", value: written } })] })], asked)).toBe("v1 /");
  });
  test.each(["internal.example@evil", "internal.example:", "internal.example:0", "[::1%25eth0]", "010.0.0.1", ""])("%j is refused", (host) => expect(arrive("/", { host })).toBeNull());
});

describe("headers that a client may not bring", () => {
  const OUTSIDE = { fromMesh: false, methodsMatter: false };
  test.each(["x-forwarded-for", "x-forwarded-proto", "x-forwarded-client-cert", "x-envoy-internal", "x-envoy-original-path", "x-envoy-upstream-rq-timeout-ms", "x-original-url", "x-rewrite-url", "x-real-ip", "forwarded", "x-weft-reason", "true-client-ip"])("%s from outside is taken out", (name) =>
    expect(isUntrusted(name, OUTSIDE)).toBe(true));
  test.each([["x-weft-session", true], ["x-forwarded-client-cert", true], ["x-forwarded-for", false], ["x-envoy-attempt-count", false]])("%s from a workload of the mesh: %p", (name, gone) => expect(isUntrusted(name, { ...OUTSIDE, fromMesh: true })).toBe(gone));
  test.each(["accept", "authorization", "x-request-id", "x-forwardedness", "traceparent", "cookie"])("%s stays", (name) => expect(isUntrusted(name, OUTSIDE)).toBe(false));
  test("a method by another name is taken out where rules look at methods", () => {
    const byMethod = requestPolicy({ name: "m", action: "deny", rules: [{ methods: [exact("DELETE")] }] });
    const policies = (...list: readonly RequestPolicy[]) => ({ policies: list, authentications: [], logins: [] });
    expect([looksAtMethods(policies(byMethod)), looksAtMethods(policies({ ...byMethod, dryRun: true })), looksAtMethods(policies(requestPolicy({ name: "p", rules: [{ paths: [exact("/")] }] })))]).toEqual([true, false, false]);
    for (const name of ["x-http-method-override", "x-method-override", "x-http-method"]) expect([isUntrusted(name, { ...OUTSIDE, methodsMatter: true }), isUntrusted(name, OUTSIDE)]).toEqual([true, false]);
  });
});

describe("routes that make no sense are answered, not guessed", () => {
  const asked = arrive("/")!;
  test.each([
    ["a backend that does not exist", [route({ rules: [rule({ backends: [invalidBackend("Service shop/gone does not exist")] })] })], "500 backend_invalid"], ["weights that are all zero", [route({ rules: [rule({ backends: [backend("a", { weight: 0 })] })] })], "500 weights_all_zero"],
    ["no backend at all", [route({ rules: [rule({})] })], "500 no_backend"], ["no rule at all", [route({ rules: [] })], "404 route_not_found"], ["a filter that is not known", [route({ rules: [rule({ broken: "filter Foo", backends: [backend("a")] })] })], "500 rule_broken"],
    ["a pattern that cannot be read", [route({ rules: [to("a", { headers: [header("x", regex("("))] })] })], "500 rule_broken"], ["two routes that say the same: the older", [route({ name: "b", createdMs: 1, rules: [to("old")] }), route({ name: "a", createdMs: 2, rules: [to("new")] })], "old /"],
  ] as const)("%s", (_, routes, expected) => expect(backendOf(routes, asked)).toBe(expected));
  test("a rule with nothing to match means all", () => expect(backendOf([route({ rules: [to("all")] })], arrive("*", { method: "OPTIONS" }) ?? { ...asked, path: "*" })).toBe("all *"));
});

describe("no input takes long", () => {
  const within = (ms: number, act: () => void): void => expect(processorMs(act)).toBeLessThan(ms);
  test("a query of 60 000 parameters", () => {
    const asked = { ...request(), query: `?${"a=1&".repeat(20_000)}${"%61%62=1&".repeat(10_000)}` };
    const r = new Router([route({ rules: [to("x", { query: [param("zz", "1")] })] })]);
    within(2000, () => expect(r.match(asked).kind).toBe("unmatched"));
  });
  test("10 000 values of one header, against rules that look at each", () => {
    const asked = request({ headers: { "x-role": Array.from({ length: 10_000 }, (_, i) => `r${i},s${i}`) } });
    within(2000, () => expect(allows([requestPolicy({ name: "d", action: "deny", rules: [{ conditions: [{ key: { kind: "header", name: "x-role" }, values: [exact("nobody"), prefix("zz")], notValues: [] }] }] })], asked)).toBe(true));
  });
  test("10 000 cookies of one name", () => {
    const asked = request({ headers: { cookie: Array.from({ length: 10_000 }, () => "sid=1.x.y").join("; ") } });
    const sticky = [route({ rules: [rule({ backends: [backend("a")], sessionPersistence: { kind: "cookie", name: "sid", path: null, absoluteTimeoutMs: null, idleTimeoutMs: null } })] })];
    const signer = { sign: () => "z" };
    within(2000, () => expect(planRequest(asked, new Router(sticky).match(asked), { random: { next: () => 0 }, listenerPort: 80, nowMs: 0, sessionSigner: signer }).kind).toBe("forward"));
  });
});
