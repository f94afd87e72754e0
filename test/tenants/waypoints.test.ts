// Waypoints of another namespace, asked for by labels: a waypoint works for those alone that its Gateway takes, and nothing goes around one
// that was asked for.

import { describe, expect } from "bun:test";
import { namespacedName } from "../../src/core/brand.ts";
import { atOnce } from "../../src/core/steps.ts";
import type { ClusterEvaluation } from "../../src/resources/cluster/cluster-set.ts";
import { WaypointIndex } from "../../src/xds/server/waypoint-index.ts";
import { item } from "../kit/bad-input.ts";
import { cluster, gateway, type Json, namespace, object, pod, put, saidOf, service, serviceEntry, serviceOf, TENANT, VICTIM, wayOf, workloadOf } from "./tenant-cluster.ts";

const USES = { "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": VICTIM };
/** A waypoint of the bank with one instance, which is for everything. */
const waypoint = (listener: Json = {}): Json[] => [
  gateway(VICTIM, "wp", { labels: { "istio.io/waypoint-for": "all" }, listener }),
  service(VICTIM, "wp", "198.19.0.99", { selector: { "gateway.networking.k8s.io/gateway-name": "wp" }, ports: [{ name: "mesh", port: 15008 }] }),
  pod(VICTIM, "wp-1", "198.18.1.99", { labels: { "gateway.networking.k8s.io/gateway-name": "wp", "networking.istio.io/tunnel": "http" } }),
];
const tenantWeb = (labels: Json): Json[] => [service(TENANT, "web", "198.19.0.6", {}, { labels }), pod(TENANT, "web", "198.18.6.6", { labels: { app: "web", ...labels } })];
const allowedRoutes = (namespaces: Json): Json => ({ allowedRoutes: { namespaces } });

const THROUGH = "tunnel to bank/wp-1 at 198.18.1.99";
const REFUSED = "refused: unknown_waypoint";

/** What the bank's waypoint is told of. */
function toldOf(evaluation: ClusterEvaluation): string[] {
  const index = new WaypointIndex();
  atOnce(index.update({ delta: { ...evaluation.delta, services: [...evaluation.mesh.services.values()] }, l7Delta: evaluation.l7Delta }));
  const records = index.recordsOf(namespacedName(VICTIM, "wp"), evaluation.l7, (name) => evaluation.mesh.services.get(name));
  return [...records.routes.keys(), ...records.requestPolicies.keys()];
}

describe("a tenant cannot use another namespace's waypoint", () => {
  item("a Service, pod and namespace that ask for another namespace's waypoint", async () => {
    const route = object("gateway.networking.k8s.io/v1", "HTTPRoute", TENANT, "web", { parentRefs: [{ group: "", kind: "Service", name: "web" }], rules: [{ backendRefs: [{ name: "web", port: 80 }] }] });
    const policy = object("security.istio.io/v1", "AuthorizationPolicy", TENANT, "web", { targetRefs: [{ group: "", kind: "Service", name: "web" }], action: "ALLOW", rules: [{}] });
    for (const labelled of [[...tenantWeb(USES)], [namespace(TENANT, USES), ...tenantWeb({})]]) {
      const evaluation = cluster(...waypoint(), ...labelled, route, policy).evaluate();
      expect([wayOf("198.19.0.6:80", evaluation), wayOf("198.18.6.6:80", evaluation)]).toEqual([REFUSED, REFUSED]);
      expect(evaluation.bindings.get("Service aaa/web")).toMatchObject({ bound: false, reason: "AttachmentDenied", message: expect.stringContaining("allowedRoutes") });
      expect(toldOf(evaluation)).toEqual([]);
      expect(evaluation.diagnostics.filter(({ code }) => code === "fail_closed").map(({ resource }) => resource)).toContain(labelled.length === 2 ? "Service aaa/web" : "Namespace aaa");
      expect(saidOf(evaluation, "Pod aaa/web").join()).toContain("Gateway bank/wp takes no objects of namespace aaa");
    }
    // The same, let in by the waypoint's owner.
    const let_in = cluster(...waypoint(allowedRoutes({ from: "All" })), ...tenantWeb(USES), route, policy).evaluate();
    expect([wayOf("198.19.0.6:80", let_in), wayOf("198.18.6.6:80", let_in)]).toEqual([THROUGH, THROUGH]);
    expect(let_in.bindings.get("Service aaa/web")).toEqual({ bound: true, reason: "WaypointAccepted", message: "Successfully attached to waypoint bank/wp" });
    expect(toldOf(let_in)).toEqual(["HTTPRoute/aaa/web", "aaa/web"]);
    expect(saidOf(let_in, "Pod aaa/web")).toEqual([]);
  });

  item("a namespace that loses the label by which a waypoint took it", async () => {
    const set = cluster(...waypoint(allowedRoutes({ from: "Selector", selector: { matchLabels: { team: "bank" } } })), namespace(TENANT, { team: "bank" }), ...tenantWeb(USES));
    expect([wayOf("198.19.0.6:80", set.evaluate()), wayOf("198.18.6.6:80", set.evaluate())]).toEqual([THROUGH, THROUGH]);
    put(set, namespace(TENANT));
    const without = set.evaluate();
    expect([wayOf("198.19.0.6:80", without), wayOf("198.18.6.6:80", without)]).toEqual([REFUSED, REFUSED]);
    expect(without.bindings.get("Service aaa/web")?.reason).toBe("AttachmentDenied");
    // And the waypoint that lets nobody in any more.
    put(set, namespace(TENANT, { team: "bank" }));
    expect(wayOf("198.19.0.6:80", set.evaluate())).toBe(THROUGH);
    put(set, waypoint(allowedRoutes({ from: "Same" }))[0]!);
    expect([wayOf("198.19.0.6:80", set.evaluate()), wayOf("198.18.6.6:80", set.evaluate())]).toEqual([REFUSED, REFUSED]);
  });

  item("a canary label that names another namespace's waypoint", async () => {
    const labels = { "istio.io/use-waypoint": "own", "istio.io/use-waypoint-canary": "wp", "istio.io/use-waypoint-canary-namespace": VICTIM };
    const own = [gateway(TENANT, "own"), service(TENANT, "own", "198.19.0.7", { selector: { "gateway.networking.k8s.io/gateway-name": "own" }, ports: [{ name: "mesh", port: 15008 }] })];
    const evaluation = cluster(...waypoint(), ...own, service(TENANT, "web", "198.19.0.6", {}, { labels, annotations: { "istio.io/use-waypoint-canary-weight": "100" } })).evaluate();
    expect(serviceOf(evaluation, "aaa/web.aaa.svc.cluster.local")!.waypoints.map(({ gateway: { destination }, weight }) => [destination.kind === "hostname" ? String(destination.service) : "", weight])).toEqual([["aaa/own.aaa.svc.cluster.local", 1]]);
    expect(evaluation.bindings.get("Service aaa/web")).toMatchObject({ bound: false, reason: "AttachmentDenied" });
    expect(saidOf(evaluation, "Service aaa/web").join()).toContain("all goes through aaa/own");
  });

  item("labels that name another namespace's Service, which is no waypoint", async () => {
    const labels = { "istio.io/use-waypoint": "vault", "istio.io/use-waypoint-namespace": VICTIM };
    const evaluation = cluster(...tenantWeb(labels), serviceEntry("out", { hosts: ["out.example"], addresses: ["198.51.100.9"] }, TENANT, { labels })).evaluate();
    expect([wayOf("198.19.0.6:80", evaluation), wayOf("198.51.100.9:80", evaluation)]).toEqual([REFUSED, REFUSED]);
    expect([evaluation.bindings.get("Service aaa/web")?.reason, evaluation.bindings.get("ServiceEntry aaa/out")?.reason]).toEqual(["AttachmentDenied", "AttachmentDenied"]);
    expect(workloadOf(evaluation, VICTIM, "vault")!.services.length).toBe(1);
  });

  item("a route through a shared waypoint past the policies of another namespace", async () => {
    const toVault = { backendRefs: [{ name: "vault", namespace: VICTIM, port: 80 }] };
    const own = [service(TENANT, "web", "198.19.0.6", {}, { labels: USES }), pod(TENANT, "web", "198.18.6.6")];
    const shared = [...waypoint(allowedRoutes({ from: "All" })), service(VICTIM, "vault", "198.19.0.1", {}, { labels: { "istio.io/use-waypoint": "wp" } }), service(VICTIM, "vault-pods", "198.19.0.2", { selector: { app: "vault" } }), ...own];
    const parent = { group: "", kind: "Service", name: "web" };
    const routeOf = (rule: Json, parentRefs: readonly Json[] = [parent]): Json => object("gateway.networking.k8s.io/v1", "HTTPRoute", TENANT, "out", { parentRefs, rules: [rule] });
    const tenantRules = (evaluation: ClusterEvaluation): string => JSON.stringify([...evaluation.l7.routes.values()].map(({ rules }) => rules));
    const mirror = { filters: [{ type: "RequestMirror", requestMirror: { backendRef: toVault.backendRefs[0] } }], backendRefs: [{ name: "web", port: 80 }] };
    const authorizer = { filters: [{ type: "ExternalAuth", externalAuth: { protocol: "HTTP", backendRef: toVault.backendRefs[0] } }], backendRefs: [{ name: "web", port: 80 }] };
    const virtualService = object("networking.istio.io/v1", "VirtualService", TENANT, "out", { hosts: ["web"], http: [{ route: [{ destination: { host: `vault.${VICTIM}.svc.cluster.local` } }] }] });
    const attacks = [routeOf(toVault), routeOf(toVault, [parent, { ...parent, name: "vault", namespace: VICTIM }]), routeOf(mirror), routeOf(authorizer), virtualService,
      object("gateway.networking.k8s.io/v1", "TCPRoute", TENANT, "out", { parentRefs: [parent], rules: [toVault] }),
      // The same pods by a service that nothing guards: they trust the waypoint.
      routeOf({ backendRefs: [{ name: "vault-pods", namespace: VICTIM, port: 80 }] })];
    for (const attack of attacks) {
      const evaluation = cluster(...shared, attack).evaluate();
      expect(evaluation.l7.routes.size, JSON.stringify(attack)).toBe(1);
      expect(tenantRules(evaluation), JSON.stringify(attack)).not.toMatch(/"(target|authorizer)":\{[^}]*"service":"bank\/vault/);
      expect(saidOf(evaluation, `${attack["kind"]} aaa/out`).join()).toContain("ReferenceGrant");
    }
    const status = cluster(...shared, attacks[0]!).evaluate().statuses.find(({ kind }) => kind === "HTTPRoute");
    expect(status?.parents[0]?.conditions.find(({ type }) => type === "ResolvedRefs")).toMatchObject({ status: false, reason: "RefNotPermitted" });
    // Granted, and taken back; a consumer's route for the service itself needs nothing.
    const granted = object("gateway.networking.k8s.io/v1", "ReferenceGrant", VICTIM, "tenant", { from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace: TENANT }], to: [{ group: "", kind: "Service", name: "vault" }] });
    const set = cluster(...shared, attacks[0]!, granted);
    expect(tenantRules(set.evaluate())).toContain('"service":"bank/vault');
    set.remove("ReferenceGrant", VICTIM, "tenant");
    expect(tenantRules(set.evaluate())).not.toContain('"service":"bank/vault');
    expect(tenantRules(cluster(...shared, routeOf(toVault, [{ ...parent, name: "vault", namespace: VICTIM }])).evaluate())).toContain('"service":"bank/vault');
    // A waypoint of the tenant's own is nobody that the other's endpoints trust: they judge it by themselves.
    const ownWaypoint = [gateway(TENANT, "own"), service(TENANT, "own", "198.19.0.7", { selector: { "gateway.networking.k8s.io/gateway-name": "own" }, ports: [{ name: "mesh", port: 15008 }] }), service(TENANT, "web", "198.19.0.6", {}, { labels: { "istio.io/use-waypoint": "own" } })];
    expect(tenantRules(cluster(...shared, ...ownWaypoint, attacks[0]!).evaluate())).toContain('"service":"bank/vault');
  });

  item("a rate limit that another namespace's service behind the same waypoint is to count", async () => {
    const shared = [...waypoint(allowedRoutes({ from: "All" })), service(VICTIM, "vault", "198.19.0.1", {}, { labels: { "istio.io/use-waypoint": "wp" } }), ...tenantWeb(USES)];
    const limit = (counter: Json, onFailure = "Deny"): Json => object("weft.dev/v1alpha1", "TrafficPolicy", TENANT, "limit", { targetRefs: [{ group: "", kind: "Service", name: "web" }], rateLimits: { global: [{ name: "a", service: { port: 80, ...counter }, domain: "shop", descriptors: [[{ key: "path", path: {} }]], onFailure }] } });
    const counters = ({ l7 }: ClusterEvaluation): string[] => (l7.trafficPolicies.get(namespacedName(TENANT, "web.aaa.svc.cluster.local")) ?? []).flatMap(({ globalRateLimits }) => globalRateLimits.map(({ service: of, onFailure }) => `${of} ${onFailure}`));
    const nobody = "aaa/vault.bank.svc.cluster.local deny";
    for (const counter of [{ name: "vault", namespace: VICTIM }, { host: `vault.${VICTIM}.svc.cluster.local` }]) {
      const evaluation = cluster(...shared, limit(counter)).evaluate();
      expect(counters(evaluation)).toEqual([nobody]);
      expect(evaluation.mesh.services.has(namespacedName(TENANT, "vault.bank.svc.cluster.local"))).toBe(false);
      expect(saidOf(evaluation, "TrafficPolicy aaa/limit").join()).toContain("ReferenceGrant of that namespace must let a TrafficPolicy of aaa name it; it is not asked, and requests are denied");
    }
    const granted = object("gateway.networking.k8s.io/v1", "ReferenceGrant", VICTIM, "tenant", { from: [{ group: "weft.dev", kind: "TrafficPolicy", namespace: TENANT }], to: [{ group: "", kind: "Service", name: "vault" }] });
    const set = cluster(...shared, limit({ name: "vault", namespace: VICTIM }), granted);
    expect(counters(set.evaluate())).toEqual(["bank/vault.bank.svc.cluster.local deny"]);
    set.remove("ReferenceGrant", VICTIM, "tenant");
    expect(counters(set.evaluate())).toEqual([nobody]);
    // A service that counts for everybody, behind no waypoint that carries the tenant's requests, needs nothing.
    const limiter = [namespace("platform"), service("platform", "limiter", "198.19.0.50")];
    expect(counters(cluster(...shared, ...limiter, limit({ name: "limiter", namespace: "platform" }, "Allow")).evaluate())).toEqual(["platform/limiter.platform.svc.cluster.local allow"]);
  });

  item("rules that another namespace delegates to a tenant", async () => {
    const behind = { labels: { "istio.io/use-waypoint": "wp" } };
    const bank = [...waypoint(), service(VICTIM, "vault", "198.19.0.1", {}, behind), service(VICTIM, "audit", "198.19.0.3", {}, behind), service(VICTIM, "web", "198.19.0.4", {}, behind), service(TENANT, "own", "198.19.0.6")];
    const root = (at: string): Json => object("networking.istio.io/v1", "VirtualService", at, "root", { hosts: [`web.${VICTIM}.svc.cluster.local`], http: [{ match: [{ uri: { prefix: "/aaa" } }], delegate: { name: "leaf", namespace: TENANT }, mirror: { host: `audit.${VICTIM}.svc.cluster.local` } }] });
    const leaf = (host: string, more: Json = {}): Json => object("networking.istio.io/v1", "VirtualService", TENANT, "leaf", { http: [{ route: [{ destination: { host } }], ...more }] });
    const ways = (evaluation: ClusterEvaluation): string[] => [...JSON.stringify([...evaluation.l7.routes.values()].map(({ rules }) => rules)).matchAll(/"target":\{"kind":"service","service":"([^"]+)"/g)].map(([, to]) => to!).sort();
    for (const at of [VICTIM, "istio-system"]) {
      const attacked = cluster(...bank, root(at), leaf(`vault.${VICTIM}.svc.cluster.local`)).evaluate();
      expect(ways(attacked)).toEqual(["bank/audit.bank.svc.cluster.local"]);
      expect(saidOf(attacked, `VirtualService ${at}/root`).join()).toContain("must let a VirtualService of aaa name it");
      const copied = cluster(...bank, root(at), leaf("own", { mirror: { host: `vault.${VICTIM}.svc.cluster.local` } })).evaluate();
      expect(ways(copied)).toEqual(["aaa/own.aaa.svc.cluster.local"]);
      // What it is there for: to its own services, with what the root says beside it; and to the service that the requests are for.
      const meant = cluster(...bank, root(at), leaf("own")).evaluate();
      expect(ways(meant)).toEqual(["aaa/own.aaa.svc.cluster.local", "bank/audit.bank.svc.cluster.local"]);
      expect(ways(cluster(...bank, root(at), leaf(`web.${VICTIM}.svc.cluster.local`)).evaluate())).toEqual(["bank/audit.bank.svc.cluster.local", "bank/web.bank.svc.cluster.local"]);
    }
  });

  item("a host that another namespace keeps to itself, named as of that namespace", async () => {
    const own = [gateway(TENANT, "own"), service(TENANT, "own", "198.19.0.7", { selector: { "gateway.networking.k8s.io/gateway-name": "own" }, ports: [{ name: "mesh", port: 15008 }] }), service(TENANT, "web", "198.19.0.6", {}, { labels: { "istio.io/use-waypoint": "own" } })];
    const route = object("gateway.networking.k8s.io/v1", "HTTPRoute", TENANT, "out", { parentRefs: [{ group: "", kind: "Service", name: "web" }], rules: [{ backendRefs: [{ group: "networking.istio.io", kind: "Hostname", name: "partner.example", namespace: VICTIM, port: 80 }] }] });
    const partner = (exportTo: readonly string[]): Json => serviceEntry("partner", { hosts: ["partner.example"], exportTo, resolution: "DNS", endpoints: [] }, VICTIM);
    const targets = (evaluation: ClusterEvaluation): string => JSON.stringify([...evaluation.l7.routes.values()].map(({ rules }) => rules));
    expect(targets(cluster(...own, route, partner(["."])).evaluate())).not.toContain("bank/partner.example");
    expect(targets(cluster(...own, route, partner([".", TENANT])).evaluate())).toContain("bank/partner.example");
  });

  item("a Gateway of the name of another namespace's waypoint", async () => {
    const bank = [...waypoint(), service(VICTIM, "shop", "198.19.0.8", {}, { labels: { "istio.io/use-waypoint": "wp" } })];
    const evaluation = cluster(...bank, gateway(TENANT, "wp", { labels: { "istio.io/waypoint-for": "none" }, listener: allowedRoutes({ from: "All" }) }), pod(TENANT, "wp-1", "198.18.6.7", { labels: { "gateway.networking.k8s.io/gateway-name": "wp", "networking.istio.io/tunnel": "http" } })).evaluate();
    expect(wayOf("198.19.0.8:80", evaluation)).toBe(THROUGH);
    expect(workloadOf(evaluation, TENANT, "wp-1")!.services.map(({ service: of }) => String(of))).toEqual(["aaa/wp.aaa.svc.cluster.local"]);
  });
});
