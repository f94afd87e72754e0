import { describe, expect, test } from "bun:test";
import { namespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { AccessTarget, RequestPolicy } from "./access.ts";
import { EMPTY_L7_DELTA, type L7Delta } from "./delta.ts";
import { L7Store } from "./l7-store.ts";
import { emptyTrafficPolicy } from "./merge-traffic.ts";
import type { Route, RouteParent, RouteRules } from "./route.ts";
import type { TelemetryPolicy } from "./telemetry.ts";
import type { TrafficPolicy } from "./traffic-policy.ts";

const web = namespacedName("shop", "web.shop.svc.cluster.local");
const other = namespacedName("shop", "other.shop.svc.cluster.local");
const wp = namespacedName("shop", "wp");
const source: Provenance = { kind: "Test", namespace: "shop", name: "t", resourceVersion: "", fieldPath: "" };
const store = (delta: Partial<L7Delta>): L7Store => {
  const made = new L7Store();
  made.apply({ ...EMPTY_L7_DELTA, ...delta });
  return made;
};
const change = (at: L7Store, delta: Partial<L7Delta>) => at.apply({ ...EMPTY_L7_DELTA, ...delta });

const parent = (over: Partial<RouteParent> = {}): RouteParent => ({ service: web, port: null, clientNamespace: null, ...over });
const route = (name: string, over: { protocol?: Route["rules"]["protocol"]; precedence?: "gatewayApi" | "asWritten"; parents?: RouteParent[]; createdMs?: number } = {}): Route => {
  const { protocol = "http" } = over;
  const rules: RouteRules = protocol === "http" || protocol === "grpc" ? { protocol, rules: [], precedence: over.precedence ?? "gatewayApi" } : { protocol, rules: [] };
  return { id: `${protocol}/shop/${name}`, name, namespace: "shop", parents: over.parents ?? [parent()], rules, createdMs: over.createdMs ?? 0, provenance: source };
};
const names = (at: L7Store, port = 80, client: string | null = null): string => {
  const { protocol, routes } = at.routes(web, port, client);
  return `${protocol}: ${routes.map(({ name }) => name).join(" ")}`;
};

describe("routes", () => {
  test("none: the service is used as it is", () => expect(names(store({}))).toBe("null: "));
  test("of one kind all, oldest first, then by name", () => {
    expect(names(store({ routes: [route("c"), route("b"), route("a", { createdMs: 5 })] }))).toBe("http: b c a");
  });
  test("of several kinds gRPC before HTTP before TLS before TCP", () => {
    const all = store({ routes: [route("t", { protocol: "tcp" }), route("s", { protocol: "tls" }), route("h"), route("g", { protocol: "grpc" })] });
    expect(names(all)).toBe("grpc: g");
    change(all, { removedRoutes: ["grpc/shop/g"] });
    expect(names(all)).toBe("http: h");
    change(all, { removedRoutes: ["http/shop/h"] });
    expect(names(all)).toBe("tls: s");
    change(all, { removedRoutes: ["tls/shop/s"] });
    expect(names(all)).toBe("tcp: t");
  });
  test("a route of a port holds beside those of every port, at that port", () => {
    const both = store({ routes: [route("all"), route("one", { parents: [parent({ port: 80 })] })] });
    expect([names(both, 80), names(both, 81)]).toEqual(["http: all one", "http: all"]);
  });
  test("consumer routes replace the producer's, for clients of their namespace and their port alone", () => {
    const both = store({ routes: [route("producer"), route("consumer", { parents: [parent({ port: 80, clientNamespace: "team" })] })] });
    expect([names(both, 80, "team"), names(both, 81, "team"), names(both, 80, "shop"), names(both, 80, null)]).toEqual(["http: consumer", "http: producer", "http: producer", "http: producer"]);
  });
  test("a VirtualService gives way to routes of the Gateway API", () => {
    expect(names(store({ routes: [route("vs", { precedence: "asWritten" }), route("http")] }))).toBe("http: http");
  });
  test("a route that loses a parent leaves it", () => {
    const one = store({ routes: [route("a", { parents: [parent(), parent({ service: other })] })] });
    const told = change(one, { routes: [route("a", { parents: [parent({ service: other })] })] });
    expect(names(one)).toBe("null: ");
    expect([...told.routesChanged].sort()).toEqual([other, web]);
  });
  test("what is looked up stays the same object until something of it changes", () => {
    const at = store({ routes: [route("a"), route("b", { parents: [parent({ clientNamespace: "team" })] })] });
    const [all, team] = [at.routes(web, 80, "x"), at.routes(web, 80, "team")];
    expect(at.routes(web, 80, null)).toBe(all);
    change(at, { routes: [route("c", { parents: [parent({ service: other })] })] });
    change(at, { routes: [route("b", { parents: [parent({ clientNamespace: "team" })] })] });
    expect(at.routes(web, 80, "x")).toBe(all);
    expect(at.routes(web, 80, "team")).not.toBe(team);
  });
});

describe("traffic policies", () => {
  const traffic = (over: Partial<TrafficPolicy>): TrafficPolicy => ({ ...emptyTrafficPolicy(web), ...over });
  const with_ = (...policies: TrafficPolicy[]): L7Store => store({ trafficPolicies: [{ service: web, policies }] });
  const at = (from: L7Store, over: { port?: number; subset?: string; clientNamespace?: string } = {}): TrafficPolicy | null =>
    from.traffic(web, { port: over.port ?? null, subset: over.subset ?? null, clientNamespace: over.clientNamespace ?? null });
  const limits = { connectionsMax: null, pendingRequestsMax: null, activeRequestsMax: null, activeRetriesMax: null, requestsPerConnectionMax: null, connectTimeoutMs: null, idleTimeoutMs: null, connectionAgeMaxMs: null, upgradeToHttp2: null };

  test("nothing said is null", () => expect(at(store({}))).toBeNull());
  test("the more specific wins field by field: client, then subset, then port", () => {
    const from = with_(
      traffic({ slowStartMs: 1, balancing: { kind: "random" }, limits: { ...limits, connectionsMax: 1, activeRequestsMax: 1 } }), traffic({ port: 80, slowStartMs: 2, limits: { ...limits, activeRequestsMax: 2 } }),
      traffic({ subset: { name: "v1", labels: { version: "v1" } }, slowStartMs: 3 }), traffic({ clientNamespace: "team", slowStartMs: 4 }),
    );
    expect([at(from)?.slowStartMs, at(from, { port: 80 })?.slowStartMs, at(from, { port: 80, subset: "v1" })?.slowStartMs, at(from, { port: 80, subset: "v1", clientNamespace: "team" })?.slowStartMs]).toEqual([1, 2, 3, 4]);
    expect(at(from, { port: 80 })).toMatchObject({ balancing: { kind: "random" }, limits: { connectionsMax: 1, activeRequestsMax: 2 } });
    expect(at(from, { subset: "v1" })?.subset?.labels).toEqual({ version: "v1" });
  });
  test("a subset that nobody defined is told by its absence", () => expect(at(with_(traffic({ slowStartMs: 1 })), { subset: "v9" })?.subset).toBeNull());
  test("the same object until its sources change", () => {
    const [all, port] = [traffic({ slowStartMs: 1 }), traffic({ port: 80, slowStartMs: 2 })];
    const from = with_(all, port);
    const before = at(from, { port: 81 });
    change(from, { trafficPolicies: [{ service: web, policies: [all, { ...port, slowStartMs: 9 }] }] });
    expect(at(from, { port: 81 })).toBe(before);
    expect(at(from, { port: 80 })?.slowStartMs).toBe(9);
    expect([...change(from, { removedTrafficPolicies: [web] }).trafficChanged]).toEqual([web]);
    expect(at(from)).toBeNull();
  });
});

describe("access and telemetry", () => {
  const policy = (name: string, ...targets: AccessTarget[]): RequestPolicy => ({ name, namespace: "shop", targets, action: { kind: "deny" }, dryRun: false, rules: [], provenance: source });
  const found = (from: L7Store, service = web, waypoint = wp): string => from.access(service, waypoint).policies.map(({ name }) => name).join(" ");
  test("by service, by waypoint, by the waypoint's namespace and for the mesh; each once", () => {
    const from = store({ requestPolicies: [
      policy("service", { kind: "service", service: web }), policy("waypoint", { kind: "waypoint", gateway: wp }, { kind: "service", service: web }), policy("namespace", { kind: "namespace", namespace: "shop" }),
      policy("mesh", { kind: "namespace", namespace: "" }), policy("elsewhere", { kind: "service", service: other }, { kind: "namespace", namespace: "x" }),
    ] });
    expect(found(from)).toBe("mesh namespace service waypoint");
    expect(found(from, other)).toBe("elsewhere mesh namespace waypoint");
    expect(found(from, other, namespacedName("x", "wp"))).toBe("elsewhere mesh");
  });
  test("the same object until something of it changes; a removed policy is gone", () => {
    const from = store({ requestPolicies: [policy("a", { kind: "service", service: web })] });
    const before = from.access(web, wp);
    expect(change(from, { requestPolicies: [policy("b", { kind: "service", service: other })] }).accessChanged).toBe(true);
    expect(from.access(web, wp)).toBe(before);
    change(from, { removedRequestPolicies: [namespacedName("shop", "a")] });
    expect(found(from)).toBe("");
  });
  test("telemetry is merged from the mesh down to the service", () => {
    const telemetry = (name: string, target: AccessTarget, over: Partial<TelemetryPolicy>): TelemetryPolicy => ({ name, namespace: "shop", targets: [target], tracing: null, accessLog: null, metrics: [], provenance: source, ...over });
    const from = store({ telemetry: [
      telemetry("service", { kind: "service", service: web }, { tracing: { disabled: false, collectors: null, sampling: 0.5, tags: [] } }),
      telemetry("mesh", { kind: "namespace", namespace: "" }, { tracing: { disabled: true, collectors: [], sampling: 0.1, tags: [] }, accessLog: { disabled: true, sinks: null, conditions: [] } }),
    ] });
    expect(from.telemetry(web, wp)).toMatchObject({ tracing: { disabled: false, collectors: [], sampling: 0.5 }, accessLog: { disabled: true } });
    expect(from.telemetry(other, wp).tracing?.sampling).toBe(0.1);
    expect(from.telemetry(web, wp)).toBe(from.telemetry(web, wp));
  });
});
