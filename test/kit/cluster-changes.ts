// A small cluster that changes at random, one object of any kind after the other, with few names, so that they have to do with each other;
// and what an evaluation of it comes to, in a form in which two can be compared. For tests and fuzzers of what is evaluated piece by piece.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import { parseTrustDomain } from "../../src/core/spiffe.ts";
import type { L7Snapshot } from "../../src/mesh/l7/delta.ts";
import { type ClusterEvaluation, type ClusterKind, ClusterSet } from "../../src/resources/cluster/cluster-set.ts";
import { deepEqual, type MeshSnapshot } from "../../src/resources/mesh-delta.ts";
import type { TranslationOptions } from "../../src/resources/resource.ts";

type Json = Readonly<Record<string, unknown>>;

export const CLUSTER_OPTIONS: TranslationOptions = { node: "", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "", rootNamespace: "istio-system", serviceCidrs: [] };
const NAMESPACES = ["shop", "bank", "istio-system"];

function object(apiVersion: string, kind: string, namespace: string, name: string, spec: Json, labels: Json = {}): Json {
  return { apiVersion, kind, metadata: { name, namespace, labels, creationTimestamp: "2026-01-01T00:00:00Z" }, spec };
}

/** One object of any kind, with few names, so that they have to do with each other. */
export function anything(random: Random): Json {
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random.next() * items.length)]!;
  const [at, name] = [pick(NAMESPACES), pick(["a", "b", "c"])];
  const waypoint = (): Json => pick<Json>([{}, {}, { "istio.io/use-waypoint": "wp" }, { "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": pick(NAMESPACES) }, { "istio.io/use-waypoint": "none" }]);
  const host = (): string => pick([`${pick(["a", "b"])}.${pick(NAMESPACES)}.svc.cluster.local`, "x.example", "a", "*.example", "*.svc.cluster.local"]);
  const backends = [{ name: pick(["a", "b"]), port: 80, ...pick<Json>([{}, { namespace: pick(NAMESPACES) }]) }];
  const selector = (): Json => pick<Json>([{}, { selector: { matchLabels: { app: pick(["a", "b"]) } } }]);
  const target = (): Json => pick<Json>([{ group: "", kind: "Service", name: pick(["a", "b"]) }, { group: "gateway.networking.k8s.io", kind: "Gateway", name: "wp" }]);
  const address = `198.18.${1 + NAMESPACES.indexOf(at)}.${name.charCodeAt(0)}`;
  return pick<() => Json>([
    () => ({ apiVersion: "v1", kind: "Namespace", metadata: { name: at, labels: pick<Json>([waypoint(), { tier: "gold" }]) } }),
    () => object("v1", "Service", at, pick(["a", "b", "wp"]), { clusterIP: pick(["None", `198.19.${NAMESPACES.indexOf(at)}.${name.charCodeAt(0)}`]), selector: { app: name }, ports: [{ name: "http", port: pick([80, 81]) }] }, pick<Json>([waypoint(), { "istio.io/waypoint-for": pick(["all", "workload"]) }])),
    () => object("networking.istio.io/v1", "ServiceEntry", at, name, { hosts: [pick(["x.example", "y.example", "*.example"])], addresses: pick([[], [address], ["198.18.0.0/15"]]), ports: [{ number: 80, name: "http", protocol: "HTTP" }], resolution: "NONE", exportTo: pick([["*"], ["."]]) }, waypoint()),
    () => object("networking.istio.io/v1", "WorkloadEntry", at, name, { address: pick([address, "198.18.1.97"]), labels: { app: name } }),
    () => object("gateway.networking.k8s.io/v1", "Gateway", at, "wp", { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE", allowedRoutes: { namespaces: pick<Json>([{ from: "All" }, { from: "Same" }, { from: "Selector", selector: { matchLabels: { tier: "gold" } } }]) } }] }, pick<Json>([{}, { "istio.io/waypoint-for": pick(["all", "workload"]) }])),
    () => object("gateway.networking.k8s.io/v1", "HTTPRoute", at, name, { parentRefs: [{ group: "", kind: "Service", name: "a", ...pick<Json>([{}, { namespace: pick(NAMESPACES) }]) }], rules: [{ backendRefs: backends }] }),
    () => object("networking.istio.io/v1", "VirtualService", at, name, pick<Json>([{ hosts: [host()], http: [{ route: [{ destination: { host: host().replace("*.", "a."), subset: "v1" } }] }] }, { http: [{ route: [{ destination: { host: "a" } }] }] }, { hosts: ["a"], http: [{ delegate: { name: "b", namespace: pick(NAMESPACES) } }] }])),
    () => object("networking.istio.io/v1", "DestinationRule", at, name, { host: host(), ...pick<Json>([{ subsets: [{ name: "v1", labels: { track: "canary" } }] }, { trafficPolicy: { tls: { mode: "SIMPLE", credentialName: pick(["s", "t"]) } } }]) }),
    () => ({ apiVersion: "v1", kind: "Secret", metadata: { name: pick(["s", "t"]), namespace: at }, data: { "ca.crt": "YQ==" } }),
    () => object("security.istio.io/v1", "AuthorizationPolicy", at, name, { ...selector(), action: pick(["ALLOW", "DENY"]), rules: [{}] }),
    () => object("security.istio.io/v1", "AuthorizationPolicy", at, `${name}-at`, { targetRefs: [pick<Json>([{ group: "", kind: "Service", name: "a" }, { group: "gateway.networking.k8s.io", kind: "Gateway", name: "wp" }])], action: "DENY", rules: [{}] }),
    () => object("security.istio.io/v1", "PeerAuthentication", at, name, { ...selector(), mtls: { mode: pick(["STRICT", "PERMISSIVE"]) } }),
    () => ({ apiVersion: "weft.dev/v1alpha1", kind: "MeshConfig", metadata: { name, namespace: at }, spec: { extensionProviders: [{ name: "check", envoyExtAuthzGrpc: { service: host().replace("*.", "a."), port: 80 } }] } }),
    () => object("networking.istio.io/v1", "ServiceEntry", at, name, { hosts: ["*.wide.example"], ports: [{ number: 443, name: "tls", protocol: "TLS" }], resolution: "DYNAMIC_DNS" }, waypoint()),
    () => object("gateway.networking.k8s.io/v1", pick(["GRPCRoute", "TCPRoute"]), at, name, { parentRefs: [{ group: "", kind: "Service", name: pick(["a", "b"]), ...pick<Json>([{}, { port: 80 }]) }], rules: [{ backendRefs: backends }] }),
    () => object("weft.dev/v1alpha1", "TrafficPolicy", at, name, { targetRefs: [target()], ...pick<Json>([{ timeouts: { request: pick(["1s", "2s"]) } }, { subset: "v1", balancing: { type: "Random" } }, { rateLimits: { local: [{ name: pick(["x", "y"]), requests: 1, per: "1s" }] } }]) }),
    () => object("gateway.networking.k8s.io/v1", "BackendTLSPolicy", at, name, { targetRefs: [{ group: "", kind: "Service", name: pick(["a", "b"]) }], validation: { hostname: "a.example", wellKnownCACertificates: "System" } }),
    () => object("security.istio.io/v1", "RequestAuthentication", at, name, { targetRefs: [target()], jwtRules: [{ issuer: pick(["https://one.example", "https://two.example"]) }] }),
    () => object("security.istio.io/v1", "AuthorizationPolicy", at, `${name}-ask`, { targetRefs: [target()], action: "CUSTOM", provider: { name: "check" }, rules: [{}] }),
    () => object("telemetry.istio.io/v1", "Telemetry", at, name, pick<Json>([{ accessLogging: [{ disabled: true }] }, { targetRefs: [target()], accessLogging: [{ disabled: pick([true, false]) }] }])),
    () => ({ apiVersion: "gateway.networking.k8s.io/v1", kind: "ReferenceGrant", metadata: { name, namespace: at }, spec: { from: [{ group: "gateway.networking.k8s.io", kind: pick(["HTTPRoute", "Gateway"]), namespace: pick(NAMESPACES) }], to: [{ group: "", kind: pick(["Service", "Secret"]) }] } }),
    () => ({ apiVersion: "gateway.networking.k8s.io/v1", kind: "GatewayClass", metadata: { name: pick(["weft-waypoint", "istio-waypoint", "other"]) }, spec: { controllerName: "weft.dev/waypoint" } }),
    () => ({ apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice", metadata: { name, namespace: at, labels: { "kubernetes.io/service-name": pick(["a", "b"]) } }, addressType: "IPv4", ports: [{ name: "http", port: 8080, protocol: "TCP" }], endpoints: [{ addresses: [address], conditions: { ready: true } }] }),
    () => ({ apiVersion: "v1", kind: "Node", metadata: { name: pick(["node1", "node2"]), labels: { "topology.kubernetes.io/zone": pick(["z1", "z2"]) } } }),
    () => ({
      apiVersion: "v1", kind: "Pod", metadata: { name, namespace: at, uid: `${at}-${name}`, labels: { app: name, track: pick(["canary", "stable"]), ...waypoint() } },
      spec: { nodeName: "node1", serviceAccountName: name, containers: [] }, status: { phase: "Running", podIP: address, podIPs: [{ ip: address }], conditions: [] },
    }),
  ])();
}

const headOf = (object: Json): { readonly kind: ClusterKind; readonly namespace: string; readonly name: string } => {
  const { name, namespace = "" } = object["metadata"] as { readonly name: string; readonly namespace?: string };
  return { kind: object["kind"] as ClusterKind, namespace, name };
};

interface Change {
  readonly object: Json;
  readonly removed: boolean;
}

export function apply(set: ClusterSet, { object: one, removed }: Change): void {
  const { kind, namespace, name } = headOf(one);
  if (removed) set.remove(kind, namespace, name);
  else set.upsert(kind, one);
}

/** What an evaluation comes to, whatever came first. */
function comesTo({ mesh, l7, statuses, diagnostics, bindings, broken }: ClusterEvaluation): string[] {
  const lines = (part: string, all: Iterable<unknown>): string[] => [...all].map((one) => `${part} ${JSON.stringify(one)}`);
  return [...Object.entries({ ...mesh, ...l7 }).flatMap(([part, all]) => lines(part, all)), ...lines("status", statuses), ...lines("diagnostic", diagnostics), ...lines("binding", bindings), ...lines("broken", broken)].sort();
}

/** The states that the deltas alone make. */
class Follower {
  readonly #maps = new Map<string, Map<string, unknown>>();

  follow({ delta, l7Delta }: ClusterEvaluation): void {
    const put = (part: string, key: string, value: unknown): void => void this.#of(part).set(key, value);
    for (const one of delta.workloads) put("workloads", one.uid, one);
    for (const one of delta.services) put("services", `${one.namespace}/${one.hostname}`, one);
    for (const one of delta.policies) put("policies", `${one.namespace}/${one.name}`, one);
    for (const one of l7Delta.routes) put("routes", one.id, one);
    for (const { service, policies } of l7Delta.trafficPolicies) put("trafficPolicies", service, policies);
    for (const one of l7Delta.requestPolicies) put("requestPolicies", `${one.namespace}/${one.name}`, one);
    for (const one of l7Delta.workloadLabels) put("workloadLabels", one.uid, one);
    for (const [part, removed] of [["workloads", delta.removedWorkloads], ["services", delta.removedServices], ["policies", delta.removedPolicies], ["routes", l7Delta.removedRoutes], ["trafficPolicies", l7Delta.removedTrafficPolicies], ["requestPolicies", l7Delta.removedRequestPolicies], ["workloadLabels", l7Delta.removedWorkloadLabels]] as const) {
      for (const key of removed) if (!this.#of(part).delete(key)) throw new Error(`${part} ${key} was removed and never there`);
    }
  }

  differs(mesh: MeshSnapshot, l7: L7Snapshot): string[] {
    return Object.entries({ ...mesh, ...l7 }).filter(([part, wanted]) => this.#maps.has(part) && !deepEqual(this.#of(part), wanted)).map(([part]) => part);
  }

  #of(part: string): Map<string, unknown> {
    const known = this.#maps.get(part) ?? new Map<string, unknown>();
    this.#maps.set(part, known);
    return known;
  }
}

function freshOf(objects: Iterable<Json>): ClusterEvaluation {
  const set = new ClusterSet(CLUSTER_OPTIONS);
  for (const one of objects) apply(set, { object: one, removed: false });
  return set.evaluate();
}

/** Changes of one round, at most. */
const CHANGES_MAX = 6;
const REMOVED_SHARE = 0.4;
const ASKED_SHARE = 0.3;
/** Of the steps of an evaluation, those in which something else is written. */
const WRITTEN_SHARE = 0.02;

/**
 * Rounds of changes, each evaluated a step at a time while others write, and held against a fresh evaluation of the moment in which it began;
 * the deltas are held against the states. Throws what differs.
 */
export function holdAgainstFresh({ seed, rounds }: { readonly seed: number; readonly rounds: number }): void {
  const random = seededRandom(seed);
  const set = new ClusterSet(CLUSTER_OPTIONS);
  const objects = new Map<string, Json>();
  const follower = new Follower();
  const change = (): void => {
    const one = anything(random);
    const { kind, namespace, name } = headOf(one);
    const key = `${kind}/${namespace}/${name}`;
    const removed = objects.has(key) && random.next() < REMOVED_SHARE;
    if (removed) objects.delete(key);
    else objects.set(key, one);
    apply(set, { object: one, removed });
  };
  for (let round = 0; round < rounds; round++) {
    for (let i = Math.floor(random.next() * CHANGES_MAX); i >= 0; i--) change();
    if (random.next() < ASKED_SHARE) set.references();
    const wanted = comesTo(freshOf(objects.values()));
    const steps = set.evaluationSteps();
    let step = steps.next();
    for (; step.done !== true; step = steps.next()) if (random.next() < WRITTEN_SHARE) change();
    follower.follow(step.value);
    const ours = comesTo(step.value);
    const [more, less] = [without(ours, wanted), without(wanted, ours)];
    const differing = follower.differs(step.value.mesh, step.value.l7);
    if (more.length + less.length + differing.length > 0) throw new Error(`seed ${seed}, round ${round}: ${JSON.stringify({ more, less, deltasDiffer: differing })}`);
  }
}

const without = (lines: readonly string[], others: readonly string[]): string[] => {
  const known = new Set(others);
  return lines.filter((line) => !known.has(line));
};
