// Records for the tests of this folder.

import type { WorkloadUid } from "../core/brand.ts";
import type { IpAddress } from "../core/ip.ts";
import type { SpiffeId, TrustDomain } from "../core/spiffe.ts";
import type { Service, Workload } from "../mesh/records.ts";
import type { ConnectionLabels } from "./connection-labels.ts";
import type { DecisionRecord } from "./decision-record.ts";

const provenance = { kind: "WorkloadEntry", namespace: "shop", name: "web", resourceVersion: "1", fieldPath: "" };

export function workload(name: string, over: Partial<Workload> = {}): Workload {
  return {
    uid: `Kubernetes//Pod/shop/${name}` as WorkloadUid, name, namespace: "shop", clusterId: "Kubernetes", trustDomain: "cluster.local" as TrustDomain,
    serviceAccount: name, network: "", node: "n1", addresses: ["198.18.0.1" as IpAddress], hostname: "", tunnelProtocol: "HBONE", nativeTunnel: false,
    hostNetwork: false, canonicalName: name, canonicalRevision: "latest", workloadType: "deployment", workloadName: name, app: "", version: "",
    locality: { region: "r1", zone: "z1", subzone: "" }, status: "healthy", capacity: 1, services: [], authorizationPolicies: [], waypoints: [],
    networkGateway: null, applicationTunnel: null, provenance, ...over,
  };
}

export const service = {
  name: "web", namespace: "shop", hostname: "web.shop.svc.cluster.local", provenance,
} as unknown as Service;

export const identity = (name: string): SpiffeId => `spiffe://cluster.local/ns/shop/sa/${name}` as SpiffeId;

export function labels(over: Partial<ConnectionLabels> = {}): ConnectionLabels {
  return {
    reporter: "source", source: workload("client"), destination: workload("web"), service, sourceIdentity: identity("client"),
    destinationIdentity: identity("web"), mutualTls: true, ...over,
  };
}

export function record(over: Partial<DecisionRecord> = {}): DecisionRecord {
  return {
    ...labels(), sourceAddress: { ip: "198.18.0.1" as IpAddress, port: 40000 }, destinationAddress: { ip: "198.18.0.2" as IpAddress, port: 80 },
    hboneAddress: { ip: "198.18.0.2" as IpAddress, port: 15008 }, nodeLocal: false,
    decision: { verdict: "allow", reason: "allowed: no allow policy applies", policy: null }, closedMs: Date.UTC(2026, 0, 2, 3, 4, 5, 6),
    durationMs: 12.4, connectMs: 1.2, sentBytes: 10, receivedBytes: 20, close: { code: "clean", blame: "none", message: "", flags: "-" }, ...over,
  };
}
