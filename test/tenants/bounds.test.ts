// A tenant that writes as much as the API server takes: what the control plane keeps of it is bounded, and what it does for others goes on.

import { describe, expect } from "bun:test";
import { NAMESPACE_CHARS_MAX, NAMESPACE_OBJECTS_MAX } from "../../src/resources/cluster/namespace-allowance.ts";
import type { ClusterSet } from "../../src/resources/cluster/cluster-set.ts";
import { ENTRY_MEMBERSHIPS_PER_NAMESPACE_MAX, HOSTS_PER_NAMESPACE_MAX } from "../../src/resources/claims/claims.ts";
import { MEMBERSHIPS_MAX } from "../../src/resources/memberships.ts";
import { SELECTED_PER_NAMESPACE_MAX } from "../../src/resources/selected-entries.ts";
import { CONSUMER_ROUTES_PER_SERVICE_MAX, ROUTES_PER_SERVICE_MAX, TRAFFIC_RESOURCES_PER_SERVICE_MAX, WILDCARD_RULES_PER_NAMESPACE_MAX } from "../../src/resources/l7/bounds.ts";
import { item } from "../kit/bad-input.ts";
import { cluster, object, pod, put, saidOf, service, serviceEntry, TENANT, VAULT, VICTIM, wayOf, workloadEntry, workloadOf } from "./tenant-cluster.ts";

const policy = (at: string, name: string, spec: Readonly<Record<string, unknown>> = { action: "ALLOW", rules: [{ from: [{ source: { namespaces: [VICTIM] } }] }] }) => object("security.istio.io/v1", "AuthorizationPolicy", at, name, spec);
const rule = (i: number) => object("networking.istio.io/v1", "DestinationRule", TENANT, `r${i}`, { host: "nobody.example" });
const created = (i: number) => ({ creationTimestamp: new Date(Date.UTC(2026, 0, 1) + i * 1000).toISOString() });
const route = (at: string, i: number) => object("gateway.networking.k8s.io/v1", "HTTPRoute", at, `r${i}`, { parentRefs: [{ group: "", kind: "Service", namespace: VICTIM, name: "vault" }, { group: "", kind: "Service", namespace: at, name: "web" }], rules: [{ backendRefs: [{ name: "web", port: 80 }] }] }, created(i));
const removeRules = (set: ClusterSet, from: number, to: number): void => {
  for (let i = from; i < to; i++) set.remove("DestinationRule", TENANT, `r${i}`);
};

describe("more than a namespace may have", () => {
  item("fifty thousand objects of one namespace", async () => {
    const set = cluster();
    for (let i = 0; i < 50_000; i++) expect(set.upsert("DestinationRule", rule(i))).toBe(i < NAMESPACE_OBJECTS_MAX ? "kept" : i < NAMESPACE_OBJECTS_MAX + 100 ? "refused" : "unnoticed");
    const evaluation = set.evaluate();
    expect([set.counts.objects, set.counts.broken]).toEqual([NAMESPACE_OBJECTS_MAX + 4, 100]);
    expect(saidOf(evaluation, `DestinationRule aaa/r${NAMESPACE_OBJECTS_MAX}`).join()).toContain("has no room for it");
    expect(saidOf(evaluation, "Namespace aaa").join()).toContain(`holds ${NAMESPACE_OBJECTS_MAX} objects`);
    // The bank goes on, and has its own room.
    put(set, policy(VICTIM, "more"), service(VICTIM, "more", "198.19.0.33"));
    const after = set.evaluate();
    expect([wayOf("198.19.0.1:80", after), after.mesh.policies.has("bank/more" as never), after.mesh.services.has("bank/more.bank.svc.cluster.local" as never)]).toEqual([VAULT, true, true]);
    // Room again: what was not kept is kept when it is brought again.
    removeRules(set, 0, 1_000);
    expect(set.hasRoomAgain(TENANT)).toBe(false);
    removeRules(set, 1_000, 40_000);
    expect(set.hasRoomAgain(TENANT)).toBe(true);
    expect(set.upsert("DestinationRule", rule(49_999))).toBe("kept");
  }, 60_000);

  item("objects of a megabyte each", async () => {
    const set = cluster();
    const large = (i: number) => policy(TENANT, `p${i}`, { action: "ALLOW", rules: [{ from: [{ source: { principals: Array.from({ length: 10_000 }, (_, n) => `${i}-${n}-${"x".repeat(90)}`) } }] }] });
    let kept = 0;
    for (let i = 0; i < 80; i++) if (set.upsert("AuthorizationPolicy", large(i)) === "kept") kept++;
    expect(kept).toBeGreaterThan(50);
    expect(kept).toBeLessThanOrEqual(NAMESPACE_CHARS_MAX / 1_000_000);
    expect(saidOf(set.evaluate(), `AuthorizationPolicy aaa/p${kept}`).join()).toContain("until there is room what it may cover is denied");
    // One that grows keeps what it was.
    expect(set.upsert("AuthorizationPolicy", policy(TENANT, "small"))).toBe("kept");
    const grown = large(999);
    expect(set.upsert("AuthorizationPolicy", { ...grown, metadata: { name: "small", namespace: TENANT } })).toBe("refused");
    expect(saidOf(set.evaluate(), "AuthorizationPolicy aaa/small").join()).toContain("its last good version stays in force");
  }, 60_000);

  item("a policy for which there is no room", async () => {
    const set = cluster();
    for (let i = 0; i < NAMESPACE_OBJECTS_MAX; i++) set.upsert("DestinationRule", rule(i));
    set.upsert("AuthorizationPolicy", policy(TENANT, "late"));
    set.upsert("AuthorizationPolicy", policy(TENANT, "later"));
    const denied = (): string[] => [...set.evaluate().mesh.policies.values()].filter(({ namespace }) => namespace === TENANT).map(({ name, action }) => `${action} ${name}`);
    expect(denied()).toEqual(["deny namespace-full.weft.dev"]);
    set.remove("AuthorizationPolicy", TENANT, "late");
    expect(denied()).toEqual(["deny namespace-full.weft.dev"]);
    removeRules(set, 0, 5_000);
    expect(set.upsert("AuthorizationPolicy", policy(TENANT, "later"))).toBe("kept");
    expect(denied()).toEqual(["allow later"]);
  }, 60_000);
});

describe("more than one service, workload or namespace may have to do with", () => {
  item("thousands of a tenant's routes for another namespace's Service", async () => {
    const count = 2_100;
    const set = cluster(service(TENANT, "web", "198.19.0.6"), ...Array.from({ length: count }, (_, i) => route(TENANT, count - 1 - i)));
    const evaluation = set.evaluate();
    const parents = [...evaluation.l7.routes.values()].flatMap((one) => one.parents);
    const of = (namespace: string): number => parents.filter(({ service: to }) => to.startsWith(`${namespace}/`)).length;
    expect([of(VICTIM), of(TENANT)]).toEqual([CONSUMER_ROUTES_PER_SERVICE_MAX, ROUTES_PER_SERVICE_MAX]);
    // The oldest hold, and the others know.
    expect(evaluation.l7.routes.get("HTTPRoute/aaa/r0")?.parents.length).toBe(2);
    expect(evaluation.l7.routes.get("HTTPRoute/aaa/r64")?.parents.map(({ service: to }) => String(to))).toEqual(["aaa/web.aaa.svc.cluster.local"]);
    expect(evaluation.l7.routes.get("HTTPRoute/aaa/r2050")).toBeUndefined();
    const status = evaluation.statuses.find(({ name }) => name === "r64")!;
    expect(status.parents.map(({ conditions }) => conditions.find(({ type }) => type === "Accepted")?.status)).toEqual([false, true]);
    expect(saidOf(evaluation, "HTTPRoute aaa/r64").join()).toContain("64 older routes hold for bank/vault.bank.svc.cluster.local");
    // The bank's own take no part in it.
    put(set, service(VICTIM, "web", "198.19.0.7"), route(VICTIM, 9_999));
    expect(set.evaluate().l7.routes.get("HTTPRoute/bank/r9999")?.parents.length).toBe(2);
  }, 60_000);

  item("thousands of rules with a wildcard, and for one Service", async () => {
    const kinds = (i: number) => [
      object("networking.istio.io/v1", "VirtualService", TENANT, `v${i}`, { hosts: ["*.svc.cluster.local"], http: [{ route: [{ destination: { host: "web" } }] }] }, created(i)),
      object("networking.istio.io/v1", "DestinationRule", TENANT, `d${i}`, { host: "vault.bank.svc.cluster.local", subsets: [{ name: `s${i}`, labels: { a: "b" } }] }, created(i)),
    ];
    const evaluation = cluster(service(TENANT, "web", "198.19.0.6"), ...Array.from({ length: 1_000 }, (_, i) => kinds(i)).flat()).evaluate();
    expect(evaluation.l7.routes.size).toBe(WILDCARD_RULES_PER_NAMESPACE_MAX);
    expect(evaluation.l7.trafficPolicies.get("bank/vault.bank.svc.cluster.local" as never)!.length).toBeLessThanOrEqual(TRAFFIC_RESOURCES_PER_SERVICE_MAX);
    expect([saidOf(evaluation, "VirtualService aaa/v0").join(), saidOf(evaluation, "VirtualService aaa/v999").join()]).toEqual([expect.not.stringContaining("oldest"), expect.stringContaining("oldest rules of namespace aaa")]);
    expect(saidOf(evaluation, "DestinationRule aaa/d999").join()).toContain("not in force for bank/vault.bank.svc.cluster.local");
  }, 60_000);

  item("hosts and endpoints of ServiceEntries without end", async () => {
    const hosts = (i: number) => Array.from({ length: 1_000 }, (_, k) => `h${k}.x${i}.example`);
    const entry = (i: number, more: Readonly<Record<string, unknown>> = {}) => serviceEntry(`e${String(i).padStart(3, "0")}`, { hosts: hosts(i), addresses: [`203.0.113.${i}`], ...more }, TENANT, created(i));
    const made = ({ mesh }: { readonly mesh: { readonly services: ReadonlyMap<unknown, { readonly namespace: string }> } }) => [...mesh.services.values()].filter(({ namespace }) => namespace === TENANT).length;
    const many = cluster(...Array.from({ length: 12 }, (_, i) => entry(i))).evaluate();
    expect([made(many), saidOf(many, "ServiceEntry aaa/e000"), saidOf(many, "ServiceEntry aaa/e011").length]).toEqual([HOSTS_PER_NAMESPACE_MAX, [], 9]);
    const wide = cluster(entry(0, { endpoints: Array.from({ length: 4_000 }, (_, k) => ({ address: `198.18.${100 + (k >> 8)}.${k & 255}` })) })).evaluate();
    expect(made(wide)).toBe(ENTRY_MEMBERSHIPS_PER_NAMESPACE_MAX / 4_000);
    // Endpoints by a selector: of as many hosts as one workload may be.
    const labels = { app: "many", "istio.io/dataplane-mode": "ambient" };
    const selected = cluster(workloadEntry(TENANT, "old", "198.18.6.7", { labels }), ...[0, 1].map((i) => entry(i, { endpoints: undefined, workloadSelector: { labels: { app: "many" } } }))).evaluate();
    expect(workloadOf(selected, TENANT, "old")!.services.length).toBe(1_024);
    expect(saidOf(selected, "WorkloadEntry aaa/old")).toEqual([expect.stringContaining("none of 976 more (aaa/h24.x1.example): nothing is sent to it")]);
    // One object alone may not name more than the API takes of it.
    expect(saidOf(cluster(serviceEntry("x", { hosts: Array.from({ length: 10_000 }, (_, k) => `h${k}.example`) })).evaluate(), "ServiceEntry aaa/x").join()).toContain("1024");
  }, 60_000);

  item("thousands of Services with one selector", async () => {
    const called = (i: number): string => `s${String(i).padStart(4, "0")}`;
    const addressOf = (i: number): string => `198.19.${10 + (i >> 8)}.${i & 255}`;
    const set = cluster(pod(TENANT, "web", "198.18.6.6"), workloadEntry(TENANT, "old", "198.18.6.7", { labels: { app: "web", "istio.io/dataplane-mode": "ambient" } }), ...Array.from({ length: 2_000 }, (_, i) => service(TENANT, called(i), addressOf(i), { selector: { app: "web" } })));
    const evaluation = set.evaluate();
    for (const name of ["web", "old"]) expect(workloadOf(evaluation, TENANT, name)!.services.length).toBe(MEMBERSHIPS_MAX);
    // Who is left out knows, and what is sent to it goes nowhere rather than on in plain text.
    expect(saidOf(evaluation, `Service aaa/${called(MEMBERSHIPS_MAX - 1)}`)).toEqual([]);
    expect(saidOf(evaluation, `Service aaa/${called(MEMBERSHIPS_MAX)}`)).toEqual([expect.stringMatching(/^error spec\.selector: Pod aaa\/web is an endpoint of 256 Services .*: it is none of Service aaa\/s0256/)]);
    expect(saidOf(evaluation, "WorkloadEntry aaa/old")).toEqual([expect.stringContaining("no endpoint of 1744 more (s0256)")]);
    expect([wayOf(`${addressOf(255)}:80`, evaluation), wayOf(`${addressOf(256)}:80`, evaluation)]).toEqual([expect.stringContaining("tunnel to aaa/"), "refused: no_endpoints"]);
    // With room again they have it, and nothing is said.
    for (let i = 0; i < 1_744; i++) set.remove("Service", TENANT, called(i));
    const after = set.evaluate();
    expect([saidOf(after, `Service aaa/${called(1_999)}`), saidOf(after, "WorkloadEntry aaa/old"), wayOf(`${addressOf(1_999)}:80`, after)]).toEqual([[], [], expect.stringContaining("tunnel to aaa/")]);
  }, 60_000);

  item("a thousand Services and ServiceEntries that each select a thousand WorkloadEntries", async () => {
    const [count, entries] = [1_000, 1_000];
    const labels = { app: "many", "istio.io/dataplane-mode": "ambient" };
    const vip = (i: number): string => `203.0.${113 + (i >> 8)}.${i & 255}`;
    const selectingEntry = (i: number) => serviceEntry(`e${String(i).padStart(4, "0")}`, { hosts: [`h${i}.example`], addresses: [vip(i)], endpoints: undefined, workloadSelector: { labels: { app: "many" } } }, TENANT, created(i));
    const selectingService = (i: number) => service(TENANT, `s${i}`, `198.19.${10 + (i >> 8)}.${i & 255}`, { selector: { app: "many" } }, created(2 * i));
    const all = [...Array.from({ length: entries }, (_, i) => workloadEntry(TENANT, `w${i}`, `198.18.${20 + (i >> 8)}.${i & 255}`, { labels })), ...Array.from({ length: count }, (_, i) => [selectingEntry(i), selectingService(i)]).flat()];
    const set = cluster(pod(TENANT, "web", "198.18.6.6", { labels: { app: "many" } }), ...all);
    const evaluation = set.evaluate();
    const memberships = (): number => [...set.evaluate().mesh.workloads.values()].filter(({ namespace, provenance }) => namespace === TENANT && provenance.kind === "WorkloadEntry").reduce((sum, one) => sum + one.services.length, 0);
    expect(memberships()).toBe(SELECTED_PER_NAMESPACE_MAX);
    // The oldest hold, whichever of both they are: two of three are ServiceEntries.
    expect([saidOf(evaluation, "ServiceEntry aaa/e0066"), saidOf(evaluation, "Service aaa/s32")]).toEqual([[], []]);
    expect([saidOf(evaluation, "ServiceEntry aaa/e0067").join(), saidOf(evaluation, "Service aaa/s33").join()]).toEqual([expect.stringMatching(/^error spec\.workloadSelector: it selects up to 1000 WorkloadEntries, .* none of them is its endpoint/), expect.stringContaining("error spec.selector: it selects up to 1000 WorkloadEntries")]);
    // What is sent to the others goes nowhere rather than on in plain text; a Service keeps its pods.
    expect([wayOf(`${vip(0)}:80`, evaluation, "aaa/web"), wayOf(`${vip(999)}:80`, evaluation, "aaa/web"), wayOf("198.19.10.100:80", evaluation, "aaa/web")]).toEqual([expect.stringContaining("tunnel to aaa/w"), "refused: no_endpoints", expect.stringContaining("aaa/web")]);
    // The bank has its own room.
    put(set, workloadEntry(VICTIM, "old", "198.18.1.9", { labels: { app: "vault", "istio.io/dataplane-mode": "ambient" } }));
    expect(workloadOf(set.evaluate(), VICTIM, "old")!.services.map(({ service: to }) => String(to))).toEqual(["bank/vault.bank.svc.cluster.local"]);
    // With room again the others have what they select.
    for (let i = 0; i < 950; i++) set.remove("WorkloadEntry", TENANT, `w${i}`);
    const after = set.evaluate();
    expect([memberships(), saidOf(after, "ServiceEntry aaa/e0999"), wayOf(`${vip(999)}:80`, after, "aaa/web")]).toEqual([50 * (count + MEMBERSHIPS_MAX), [], expect.stringContaining("tunnel to aaa/w")]);
  }, 60_000);

  item("thousands of selectors that agree in one label of thousands of WorkloadEntries, and select none", async () => {
    const count = 3_000;
    const half = (i: number): Readonly<Record<string, string>> => ({ "istio.io/dataplane-mode": "ambient", ...(i % 2 === 0 ? { a: "x" } : { b: "x" }) });
    const objects = Array.from({ length: count }, (_, i) => [workloadEntry(TENANT, `w${i}`, `198.18.${20 + (i >> 8)}.${i & 255}`, { labels: half(i) }), service(TENANT, `s${i}`, `198.19.${10 + (i >> 8)}.${i & 255}`, { selector: { a: "x", b: "x" } }, created(i))]).flat();
    const evaluation = cluster(...objects).evaluate();
    expect([saidOf(evaluation, "Service aaa/s600"), saidOf(evaluation, "Service aaa/s700").join()]).toEqual([[], expect.stringContaining("the 1000000 looks that it takes to find them")]);
  }, 60_000);

  item("thousands of policies that select one workload", async () => {
    const set = cluster(pod(TENANT, "web", "198.18.6.6"));
    for (let i = 0; i < 2_500; i++) set.upsert("AuthorizationPolicy", object("security.istio.io/v1", "AuthorizationPolicy", TENANT, `p${i}`, { selector: { matchLabels: { app: "web" } }, action: "ALLOW", rules: [{}] }));
    const evaluation = set.evaluate();
    expect(workloadOf(evaluation, TENANT, "web")!.authorizationPolicies.length).toBe(2_000);
    // What is not among them might have denied.
    expect(evaluation.mesh.policies.get("aaa/namespace-full.weft.dev" as never)).toMatchObject({ action: "deny", scope: "namespace" });
  }, 60_000);

  item("thousands of policies for one Service, of which one may hold", async () => {
    const claim = (i: number) => object("gateway.networking.k8s.io/v1", "BackendTLSPolicy", TENANT, `x${i}`, { targetRefs: [{ group: "", kind: "Service", name: "web" }], validation: { hostname: "web.example", wellKnownCACertificates: "System" } }, created(i));
    const set = cluster(service(TENANT, "web", "198.19.0.6"), ...Array.from({ length: 5_000 }, (_, i) => claim(i)));
    const evaluation = set.evaluate();
    const accepted = evaluation.statuses.filter(({ kind, parents }) => kind === "BackendTLSPolicy" && parents[0]!.conditions.some(({ type, status }) => type === "Accepted" && status)).map(({ name }) => name);
    expect(accepted).toEqual(["x0"]);
  }, 60_000);
});
