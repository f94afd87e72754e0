// Objects of a cluster, written by a user of one namespace who means no good: objects of every kind with parts replaced by whatever an API
// server might let through, and by what it would not. Whatever they are, they are read or found broken and nothing throws; the records can
// be told to agents; the records of another namespace stay as they are, and so does the way of its clients to its pods and services.

import { deepStrictEqual as same, strictEqual as equal } from "node:assert/strict";
import { parseSocketAddress } from "../../src/core/ip.ts";
import { seededRandom } from "../../src/core/ports.ts";
import { parseTrustDomain } from "../../src/core/spiffe.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { Balancer } from "../../src/policy/balance.ts";
import { chooseOutbound } from "../../src/policy/outbound.ts";
import { type ClusterKind, ClusterSet } from "../../src/resources/cluster/cluster-set.ts";
import type { TranslationOptions } from "../../src/resources/resource.ts";
import { encodePolicy, encodeService, encodeWorkload } from "../../src/xds/resource.ts";
import { Dice } from "./random-text.ts";

export const name = "cluster-objects";

type Json = Record<string, unknown>;

const OPTIONS: TranslationOptions = { node: "", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "", rootNamespace: "istio-system", serviceCidrs: [] };
const [VICTIM, TENANT] = ["bank", "aaa"];
/** Objects of the tenant before everything begins anew. */
const OBJECTS_PER_SET = 40;
/** One evaluation for so many changes. */
const CHANGES_PER_EVALUATION = 4;

const namespace = (at: string): Json => ({ apiVersion: "v1", kind: "Namespace", metadata: { name: at, labels: {} } });
const pod = (at: string, called: string, ip: string): Json => ({
  apiVersion: "v1", kind: "Pod", metadata: { name: called, namespace: at, uid: `uid-${at}-${called}`, labels: { app: called }, annotations: { "ambient.istio.io/redirection": "enabled" }, ownerReferences: [{ kind: "ReplicaSet", name: `${called}-1`, controller: true }] },
  spec: { nodeName: "node1", serviceAccountName: called, hostNetwork: false, containers: [{ name: "app", ports: [{ name: "http", containerPort: 8080, protocol: "TCP" }] }] },
  status: { phase: "Running", podIP: ip, podIPs: [{ ip }], conditions: [{ type: "Ready", status: "True" }] },
});
const of = (apiVersion: string, kind: string, spec: Json, at = TENANT, called = "x"): Json => ({ apiVersion, kind, metadata: { name: called, namespace: at, uid: "u", resourceVersion: "1", creationTimestamp: "2020-01-01T00:00:00Z", labels: { app: "x" }, annotations: {} }, spec });
const service = (at: string, called: string, clusterIP: string): Json => of("v1", "Service", { clusterIP, selector: { app: called }, ports: [{ name: "http", port: 80, targetPort: "http" }] }, at, called);

const BANK = [namespace(VICTIM), namespace(TENANT), namespace("istio-system"), pod(VICTIM, "vault", "198.18.1.1"), pod(VICTIM, "client", "198.18.1.2"), service(VICTIM, "vault", "198.19.0.1"),
  of("security.istio.io/v1", "AuthorizationPolicy", { selector: { matchLabels: { app: "vault" } }, action: "ALLOW", rules: [{ from: [{ source: { namespaces: [VICTIM] } }] }] }, VICTIM, "own")];

/** What a tenant may begin with; each is in order. */
const SEEDS: readonly Json[] = [
  pod(TENANT, "x", "198.18.2.1"), service(TENANT, "x", "198.19.0.2"), { ...namespace(TENANT) },
  { apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice", metadata: { name: "x", namespace: TENANT, labels: { "kubernetes.io/service-name": "x" } }, addressType: "IPv4", ports: [{ name: "http", port: 80, protocol: "TCP" }], endpoints: [{ addresses: ["198.18.1.1"], conditions: { ready: true }, targetRef: { kind: "Pod", namespace: VICTIM, name: "vault", uid: "uid-bank-vault" } }] },
  of("networking.istio.io/v1", "ServiceEntry", { hosts: ["x.example"], addresses: ["198.18.1.1"], ports: [{ number: 80, name: "http", protocol: "HTTP" }], resolution: "STATIC", endpoints: [{ address: "198.18.1.1", labels: { app: "x" }, ports: { http: 8080 } }], exportTo: ["*"] }),
  of("networking.istio.io/v1", "WorkloadEntry", { address: "198.18.1.1", labels: { app: "vault", "istio.io/dataplane-mode": "ambient" }, serviceAccount: "vault", network: "", weight: 1, ports: { http: 8080 } }),
  of("security.istio.io/v1", "AuthorizationPolicy", { selector: { matchLabels: { app: "vault" } }, action: "DENY", rules: [{ from: [{ source: { principals: ["*"] } }], to: [{ operation: { ports: ["80"], paths: ["/a*"] } }], when: [{ key: "source.ip", values: ["198.18.0.0/15"] }] }] }),
  of("security.istio.io/v1", "PeerAuthentication", { selector: { matchLabels: { app: "vault" } }, mtls: { mode: "STRICT" }, portLevelMtls: { 80: { mode: "DISABLE" } } }),
  of("gateway.networking.k8s.io/v1", "Gateway", { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] }),
  of("gateway.networking.k8s.io/v1", "HTTPRoute", { parentRefs: [{ group: "", kind: "Service", namespace: VICTIM, name: "vault", port: 80 }], rules: [{ matches: [{ path: { type: "RegularExpression", value: "/(a*)*b" }, headers: [{ name: "x", value: "y" }] }], backendRefs: [{ name: "x", port: 80, weight: 1 }], filters: [{ type: "RequestHeaderModifier", requestHeaderModifier: { set: [{ name: "x", value: "y" }] } }], timeouts: { request: "1s" } }] }),
  of("gateway.networking.k8s.io/v1", "GRPCRoute", { parentRefs: [{ group: "", kind: "Service", name: "x" }], rules: [{ matches: [{ method: { service: "a.B", method: "C" } }], backendRefs: [{ name: "vault", namespace: VICTIM, port: 80 }] }] }),
  of("networking.istio.io/v1", "VirtualService", { hosts: ["vault.bank.svc.cluster.local"], exportTo: ["*"], http: [{ match: [{ uri: { regex: "/a.*" } }], route: [{ destination: { host: "x", port: { number: 80 } }, weight: 100 }], retries: { attempts: 3, perTryTimeout: "1s" }, fault: { abort: { httpStatus: 500, percentage: { value: 50 } } } }] }),
  of("networking.istio.io/v1", "DestinationRule", { host: "vault.bank.svc.cluster.local", exportTo: ["*"], trafficPolicy: { loadBalancer: { simple: "RANDOM" }, tls: { mode: "DISABLE" }, connectionPool: { tcp: { maxConnections: 1 } } }, subsets: [{ name: "a", labels: { v: "1" } }] }),
  of("weft.dev/v1alpha1", "TrafficPolicy", { targetRefs: [{ group: "", kind: "Service", name: "vault", namespace: VICTIM }] }),
  of("telemetry.istio.io/v1", "Telemetry", { accessLogging: [{ disabled: true }] }),
  of("weft.dev/v1alpha1", "MeshConfig", { extensionProviders: [{ name: "a", envoyExtAuthzGrpc: { service: "x", port: 80 } }] }),
  of("security.istio.io/v1", "RequestAuthentication", { jwtRules: [{ issuer: "https://issuer.example", jwks: "{\"keys\":[]}" }] }),
];

const WORDS: readonly unknown[] = [
  null, undefined, "", "x", "*", "~", ".", "..", "constructor", "__proto__", "toString", "vault", VICTIM, `vault.${VICTIM}.svc.cluster.local`, "*.cluster.local", "198.18.1.1", "198.19.0.1", "0.0.0.0/0", "::/0", "::ffff:198.18.1.1", "127.0.0.1",
  "a".repeat(300), "a".repeat(64), "\u0000", "\u202e", "a\r\nb: c", "ä", "(a*)*", "[", "1s", "-1s", "99999999999h", 0, -1, 1.5, 80, 65_536, 2 ** 53, 1e308, Number.NaN, true, false, [], {}, [[]], [null], ["198.18.1.1"], { app: "vault" }, { __proto__x: 1 }, { constructor: "a" }, "istio-remote", "none", "ALLOW", "DENY", "CUSTOM", "STATIC", "DNS", "NONE",
];
const KEYS = ["app", "istio.io/use-waypoint", "istio.io/use-waypoint-namespace", "istio.io/dataplane-mode", "networking.istio.io/tunnel", "gateway.networking.k8s.io/gateway-name", "topology.istio.io/network", "constructor", "__proto__", "toString", "unknown", "selector", "namespace", "addresses", "targetRefs"];

export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  const dice = new Dice(seed);
  let set = fresh();
  let store = new MeshStore();
  const [bankBefore, waysBefore] = observe(set, store);
  for (let i = 0; i < iterations; i++) {
    if (i % OBJECTS_PER_SET === OBJECTS_PER_SET - 1) {
      set = fresh();
      store = new MeshStore();
      observe(set, store);
    }
    const written = hostile(dice);
    const what = (): string => `seed ${seed}, iteration ${i}: ${JSON.stringify(written)}`;
    try {
      set.upsert(written["kind"] as ClusterKind, written);
      if (i % CHANGES_PER_EVALUATION !== 0) continue;
      const [bank, ways] = observe(set, store);
      same(bank, bankBefore, what());
      equal(ways, waysBefore, what());
    } catch (cause) {
      throw new Error(`${cause instanceof Error ? cause.message.slice(0, 2_000) : String(cause)}; ${what()}`, { cause });
    }
  }
  return { iterations };
}

function fresh(): ClusterSet {
  const set = new ClusterSet(OPTIONS);
  for (const one of BANK) set.upsert(one["kind"] as ClusterKind, one);
  return set;
}

/** The records of the bank, and where its client comes to; everything that has changed is encoded on the way. */
function observe(set: ClusterSet, store: MeshStore): [bank: unknown, ways: string] {
  [...set.references()];
  const { mesh, delta } = set.evaluate();
  for (const workload of delta.workloads) encodeWorkload(workload);
  for (const service of delta.services) encodeService(service);
  for (const policy of delta.policies) encodePolicy(policy);
  store.apply(delta);
  const own = <T extends { readonly namespace: string }>(records: ReadonlyMap<unknown, T>): T[] => [...records.values()].filter((one) => one.namespace === VICTIM);
  const workloads = own(mesh.workloads);
  const client = workloads.find((one) => one.name === "client")!;
  const ways = ["198.18.1.1:80", "198.19.0.1:80"].map((to) => {
    const decision = chooseOutbound(store, new Balancer({ random: seededRandom(1) }), client, parseSocketAddress(to)!, 0);
    return decision.kind === "tunnel" ? `${decision.destination.uid} at ${decision.tunnelTo.ip} as ${decision.acceptedIdentities.join()}` : decision.kind;
  });
  return [{ workloads, services: own(mesh.services), policies: own(mesh.policies), global: [...mesh.policies.values()].filter(({ scope }) => scope === "global") }, ways.join("; ")];
}

/** An object of the tenant with some of its parts replaced; it stays in its namespace, as an API server sees to. */
function hostile(dice: Dice): Json {
  const made = structuredClone(dice.of(SEEDS));
  for (let left = dice.below(4); left > 0; left--) mutate(dice, made);
  const before = made["metadata"];
  const metadata: Json = before !== null && typeof before === "object" && !Array.isArray(before) ? (before as Json) : {};
  made["metadata"] = metadata;
  if (made["kind"] === "Namespace") metadata["name"] = TENANT;
  else metadata["namespace"] = TENANT;
  // The API server writes these: what a tenant says of them is not heard.
  if (typeof metadata["name"] !== "string") metadata["name"] = `n${dice.below(5)}`;
  metadata["resourceVersion"] = String(dice.below(1_000_000));
  const spec = made["spec"];
  if (made["kind"] === "Service" && spec !== null && typeof spec === "object") Object.assign(spec, { clusterIP: dice.of(["198.19.0.2", "None"]), clusterIPs: undefined });
  if (made["kind"] === "Pod") made["status"] = { phase: "Running", podIP: "198.18.2.1", podIPs: [{ ip: "198.18.2.1" }], conditions: [] };
  if (made["kind"] === "Pod") metadata["uid"] = `uid-${String(metadata["name"])}`;
  return made;
}

function mutate(dice: Dice, object: Json): void {
  let at: Json = object;
  for (;;) {
    const keys = Object.keys(at).filter((key) => !(at === object && (key === "kind" || key === "apiVersion")));
    const key = dice.chance(0.15) || keys.length === 0 ? dice.of(KEYS) : dice.of(keys);
    const child = at[key];
    if (child !== null && typeof child === "object" && Object.keys(child).length > 0 && dice.chance(0.85)) at = child as Json;
    else {
      // Not an assignment: that would set the prototype.
      Object.defineProperty(at, key, { value: structuredClone(dice.of(WORDS)), enumerable: true, configurable: true, writable: true });
      return;
    }
  }
}
