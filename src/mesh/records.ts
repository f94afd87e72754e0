// The mesh's internal model. Everything outside (YAML kinds, xDS messages) is translated into these records at the border;
// nothing past it knows which kind a rule came from, except through `provenance`.
// Records are plain data, so that they cross thread borders by structured clone.

import type { NamespacedName, WorkloadUid } from "../core/brand.ts";
import type { Provenance } from "../core/fault.ts";
import type { Cidr, IpAddress } from "../core/ip.ts";
import type { SpiffeId, TrustDomain } from "../core/spiffe.ts";

/** How a workload is reached: HBONE by a mutual TLS tunnel to its port 15008, TCP plainly. */
export type TunnelProtocol = "TCP" | "HBONE";
export type WorkloadStatus = "healthy" | "unhealthy";

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

/** Where a gateway or waypoint is found: by service hostname, by address, or as one workload. */
export type GatewayDestination =
  | { readonly kind: "hostname"; readonly service: NamespacedName }
  | { readonly kind: "address"; readonly network: string; readonly ip: IpAddress }
  | { readonly kind: "workload"; readonly uid: WorkloadUid };

export interface GatewayAddress {
  readonly destination: GatewayDestination;
  readonly hboneMtlsPort: number;
}

/** One alternative of a weighted waypoint pair (canary). A single waypoint is one entry; weights may not all be 0. */
export interface WeightedWaypoint {
  readonly gateway: GatewayAddress;
  readonly weight: number;
}

export interface ApplicationTunnel {
  readonly protocol: "NONE" | "PROXY";
  /** Port to deliver to instead of the requested one; 0 keeps it. */
  readonly port: number;
}

/** Ports of one service on one endpoint: service port to the port the workload listens on. */
export interface PortMapping {
  readonly servicePort: number;
  readonly targetPort: number;
}

/** Membership of a workload in a service. */
export interface ServiceMembership {
  readonly service: NamespacedName;
  readonly ports: readonly PortMapping[];
}

export interface Workload {
  readonly uid: WorkloadUid;
  readonly name: string;
  readonly namespace: string;
  readonly clusterId: string;
  readonly trustDomain: TrustDomain;
  readonly serviceAccount: string;
  readonly network: string;
  /** Name of the node it runs on; "" when unknown. */
  readonly node: string;
  readonly addresses: readonly IpAddress[];
  /** DNS name resolved on demand when there is no address; "" for none. */
  readonly hostname: string;
  readonly tunnelProtocol: TunnelProtocol;
  /** True when the workload ends HBONE itself (it answers on 15008 without a node proxy). */
  readonly nativeTunnel: boolean;
  /** Shares the address of its node: never found by address. */
  readonly hostNetwork: boolean;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  /** `pod`, `deployment`, `job`, `cronjob`; names the baggage key together with workloadName. */
  readonly workloadType: "pod" | "deployment" | "job" | "cronjob";
  readonly workloadName: string;
  /** app.kubernetes.io/name or `app` label; "" when absent. */
  readonly app: string;
  readonly version: string;
  readonly locality: Locality;
  readonly status: WorkloadStatus;
  /** Relative weight among endpoints; 1 by default. */
  readonly capacity: number;
  readonly services: readonly ServiceMembership[];
  /** Selector-scoped policies bound to this workload, in addition to namespace-wide and mesh-wide ones. */
  readonly authorizationPolicies: readonly NamespacedName[];
  /** Waypoints for traffic addressed to the workload itself; empty for none. */
  readonly waypoints: readonly WeightedWaypoint[];
  readonly networkGateway: GatewayAddress | null;
  readonly applicationTunnel: ApplicationTunnel | null;
  readonly provenance: Provenance;
}

export type LoadBalancingScope = "region" | "zone" | "subzone" | "node" | "cluster" | "network";
export type LoadBalancingMode = "standard" | "strict" | "failover" | "passthrough";
export type IpFamilies = "automatic" | "ipv4" | "ipv6" | "dual";

export interface LoadBalancing {
  readonly mode: LoadBalancingMode;
  /** Most important first; a standard service has none. */
  readonly scopes: readonly LoadBalancingScope[];
  /** publishNotReadyAddresses: unhealthy endpoints are used too. */
  readonly allowUnhealthy: boolean;
}

export interface ServicePort {
  readonly servicePort: number;
  /** Used when the endpoint's own mapping lacks the port; 0 when only endpoints know. */
  readonly targetPort: number;
  readonly name: string;
  readonly appProtocol: string;
}

/** A virtual address of a service: one address, or a CIDR (ServiceEntry). */
export interface ServiceAddress {
  readonly network: string;
  readonly cidr: Cidr;
}

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly ServiceAddress[];
  readonly ports: readonly ServicePort[];
  /** Identities acceptable for endpoints besides the workload's own. */
  readonly subjectAltNames: readonly SpiffeId[];
  readonly waypoints: readonly WeightedWaypoint[];
  readonly loadBalancing: LoadBalancing;
  readonly ipFamilies: IpFamilies;
  /** True for Kubernetes services: preferred when several services share an address or a hostname. */
  readonly canonical: boolean;
  /** `namespace` hides the service from clients of other namespaces. */
  readonly visibility: "public" | "namespace";
  readonly headless: boolean;
  readonly provenance: Provenance;
}

export type StringMatch =
  | { readonly kind: "exact"; readonly value: string }
  | { readonly kind: "prefix"; readonly value: string }
  | { readonly kind: "suffix"; readonly value: string }
  | { readonly kind: "presence" };

/** Names a service account; the trust domain is not looked at. */
export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/**
 * One match. Fields are joined by AND, values inside a field by OR; an empty list leaves the field out.
 * `not*` fields must match none of their values. Without an identity a field about identity fails, and its `not` twin holds.
 * A match without any field is false in an allow policy and true in a deny policy, so that a lost condition opens nothing.
 */
export interface PolicyMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
  /** Compared with the SPIFFE ID less its `spiffe://`. */
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly sourceIps: readonly Cidr[];
  readonly notSourceIps: readonly Cidr[];
  readonly destinationIps: readonly Cidr[];
  readonly notDestinationIps: readonly Cidr[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
}

/** Matches inside a clause are joined by OR. A clause without matches is true. */
export interface PolicyClause {
  readonly matches: readonly PolicyMatch[];
}

/** Clauses are joined by AND. */
export interface PolicyRule {
  readonly clauses: readonly PolicyClause[];
  /** e.g. `spec.rules[0]`: where this rule stands in its resource. */
  readonly fieldPath: string;
}

export type PolicyScope = "global" | "namespace" | "workload";
export type PolicyAction = "allow" | "deny";

/** Rules are joined by OR; a policy without rules matches nothing. */
export interface AuthorizationPolicy {
  readonly name: string;
  readonly namespace: string;
  readonly scope: PolicyScope;
  readonly action: PolicyAction;
  /** Decides nothing; what it would have decided is reported. */
  readonly dryRun: boolean;
  readonly rules: readonly PolicyRule[];
  readonly provenance: Provenance;
}

/** A change to the mesh as one unit: applied whole, between two events of the data plane. Removals name what was upserted before. */
export interface MeshDelta {
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly AuthorizationPolicy[];
  readonly removedWorkloads: readonly WorkloadUid[];
  readonly removedServices: readonly NamespacedName[];
  readonly removedPolicies: readonly NamespacedName[];
}

export const emptyDelta: MeshDelta = {
  workloads: [], services: [], policies: [], removedWorkloads: [], removedServices: [], removedPolicies: [],
};
