// A cluster with a bank, and a tenant of another namespace who may write whatever the API takes there. Objects as an API server hands them
// over, through the same code as a cluster's, to the store that decides where connections go.

import { expect } from "bun:test";
import { parseSocketAddress } from "../../src/core/ip.ts";
import { seededRandom } from "../../src/core/ports.ts";
import { parseTrustDomain } from "../../src/core/spiffe.ts";
import type { Service, Workload } from "../../src/mesh/records.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { Balancer } from "../../src/policy/balance.ts";
import { chooseOutbound } from "../../src/policy/outbound.ts";
import { type ClusterEvaluation, type ClusterKind, ClusterSet } from "../../src/resources/cluster/cluster-set.ts";
import type { TranslationOptions } from "../../src/resources/resource.ts";

export type Json = Readonly<Record<string, unknown>>;

export const OPTIONS: TranslationOptions = { node: "", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "", rootNamespace: "istio-system", serviceCidrs: [] };
/** The namespace that is attacked, from a namespace that sorts before it and is older. */
export const [VICTIM, TENANT] = ["bank", "aaa"];
const [VICTIM_CREATED, TENANT_CREATED] = ["2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z"];

export const object = (apiVersion: string, kind: string, namespace: string, name: string, spec: Json, metadata: Json = {}): Json =>
  ({ apiVersion, kind, metadata: { name, namespace, creationTimestamp: namespace === TENANT ? TENANT_CREATED : VICTIM_CREATED, ...metadata }, spec });
export const namespace = (name: string, labels: Json = {}): Json => ({ apiVersion: "v1", kind: "Namespace", metadata: { name, labels } });
export const pod = (at: string, name: string, ip: string, more: { readonly labels?: Json; readonly ports?: readonly Json[]; readonly spec?: Json } = {}): Json => ({
  apiVersion: "v1", kind: "Pod", metadata: { name, namespace: at, uid: `uid-${at}-${name}`, labels: more.labels ?? { app: name }, annotations: { "ambient.istio.io/redirection": "enabled" } },
  spec: { nodeName: "node1", serviceAccountName: name, containers: [{ name: "app", ports: more.ports ?? [] }], ...more.spec }, status: { phase: "Running", podIP: ip, podIPs: [{ ip }], conditions: [{ type: "Ready", status: "True" }] },
});
export const service = (at: string, name: string, clusterIP: string, spec: Json = {}, metadata: Json = {}): Json => object("v1", "Service", at, name, { clusterIP, selector: { app: name }, ports: [{ name: "tcp", port: 80, targetPort: 8080 }], ...spec }, metadata);
export const serviceEntry = (name: string, spec: Json, at = TENANT, metadata: Json = {}): Json => object("networking.istio.io/v1", "ServiceEntry", at, name, { ports: [{ number: 80, name: "tcp", protocol: "TCP" }], resolution: "STATIC", endpoints: [{ address: "198.18.6.6" }], ...spec }, metadata);
export const workloadEntry = (at: string, name: string, address: string, spec: Json = {}, metadata: Json = {}): Json => object("networking.istio.io/v1", "WorkloadEntry", at, name, { address, labels: { app: name, "istio.io/dataplane-mode": "ambient" }, serviceAccount: name, ...spec }, metadata);
export const gateway = (at: string, name: string, { labels = {}, listener = {}, ...spec }: { readonly labels?: Json; readonly listener?: Json; readonly [field: string]: unknown } = {}): Json =>
  object("gateway.networking.k8s.io/v1", "Gateway", at, name, { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE", ...listener }], ...spec }, { labels });

/** The bank: a pod behind a service, and a client of theirs. */
export const BANK: readonly Json[] = [namespace(VICTIM), namespace(TENANT), namespace("istio-system"), pod(VICTIM, "vault", "198.18.1.1"), pod(VICTIM, "client", "198.18.1.2"), service(VICTIM, "vault", "198.19.0.1")];

/** In this order, or in the other one. */
export function put(set: ClusterSet, ...objects: readonly Json[]): void {
  for (const one of objects) set.upsert(one["kind"] as ClusterKind, one);
}

export function cluster(...objects: readonly Json[]): ClusterSet {
  const set = new ClusterSet(OPTIONS);
  put(set, ...BANK, ...objects);
  return set;
}

/** Where a client of the bank comes to; in the order in which the records were made, and in the other one. */
export function wayOf(to: string, { mesh }: ClusterEvaluation, from = "bank/client"): string {
  const ways = [false, true].map((reversed) => {
    const store = new MeshStore();
    const workloads = [...mesh.workloads.values()];
    store.apply({ services: [...mesh.services.values()], workloads: reversed ? workloads.reverse() : workloads, policies: [...mesh.policies.values()], removedServices: [], removedWorkloads: [], removedPolicies: [] });
    const client = [...store.workloads()].find((one) => `${one.namespace}/${one.name}` === from)!;
    const decision = chooseOutbound(store, new Balancer({ random: seededRandom(1) }), client, parseSocketAddress(to)!, 0);
    return decision.kind === "tunnel" ? `tunnel to ${decision.destination.namespace}/${decision.destination.name} at ${decision.tunnelTo.ip}` : decision.kind === "plain" ? `plain to ${decision.destination.namespace}/${decision.destination.name}` : decision.kind === "refuse" ? `refused: ${decision.code}` : decision.kind;
  });
  expect(ways[1]).toBe(ways[0]!);
  return ways[0]!;
}

export const VAULT = "tunnel to bank/vault at 198.18.1.1";

export const serviceOf = ({ mesh }: ClusterEvaluation, name: string): Service | undefined => mesh.services.get(name as never);
export const workloadOf = ({ mesh }: ClusterEvaluation, at: string, name: string): Workload | undefined => [...mesh.workloads.values()].find((one) => one.namespace === at && one.name === name);
/** What is told of an object, e.g. `ServiceEntry aaa/grab`. */
export const saidOf = ({ diagnostics }: ClusterEvaluation, resource: string): string[] => diagnostics.filter((one) => one.resource === resource).map(({ severity, fieldPath, message }) => `${severity} ${fieldPath}: ${message}`);
