// Keeps one copy of what many records repeat: namespaces, node names, localities, port lists. At 100 000 workloads this is most
// of their memory. The tables are bounded: past the bound they start afresh, which costs memory, never correctness.

import type { IpAddress } from "../core/ip.ts";
import type {
  ApplicationTunnel, GatewayAddress, Locality, PortMapping, ServiceMembership, WeightedWaypoint, Workload,
} from "./records.ts";
import type { NamespacedName } from "../core/brand.ts";
import type { Provenance } from "../core/fault.ts";

/** Distinct values kept per table: namespaces, services, nodes and deployments of the largest mesh we plan for. */
const INTERNED_MAX = 65_536;
const NONE: readonly never[] = Object.freeze([]);

export class Interner {
  readonly #strings = new Map<string, string>();
  readonly #shapes = new Map<string, unknown>();

  /** The first copy seen of an equal string. */
  string<T extends string>(text: T): T {
    const found = this.#strings.get(text);
    if (found !== undefined) return found as T;
    if (this.#strings.size >= INTERNED_MAX) this.#strings.clear();
    this.#strings.set(text, text);
    return text;
  }

  /** The first copy seen of an equal plain value; `value` must not hold anything JSON cannot say. */
  shape<T>(value: T): T {
    const key = JSON.stringify(value);
    const found = this.#shapes.get(key);
    if (found !== undefined) return found as T;
    if (this.#shapes.size >= INTERNED_MAX) this.#shapes.clear();
    this.#shapes.set(key, value);
    return value;
  }

  /** A copy of `w`, equal to it, that shares every part it can with the workloads before it. */
  workload(w: Workload): Workload {
    return {
      uid: w.uid,
      name: w.name,
      namespace: this.string(w.namespace),
      clusterId: this.string(w.clusterId),
      trustDomain: this.string(w.trustDomain),
      serviceAccount: this.string(w.serviceAccount),
      network: this.string(w.network),
      node: this.string(w.node),
      addresses: w.addresses.length === 0 ? (NONE as readonly IpAddress[]) : w.addresses,
      hostname: this.string(w.hostname),
      tunnelProtocol: w.tunnelProtocol === "HBONE" ? "HBONE" : "TCP",
      nativeTunnel: w.nativeTunnel,
      hostNetwork: w.hostNetwork,
      canonicalName: this.string(w.canonicalName),
      canonicalRevision: this.string(w.canonicalRevision),
      workloadType: this.string(w.workloadType),
      workloadName: this.string(w.workloadName),
      app: this.string(w.app),
      version: this.string(w.version),
      locality: this.shape<Locality>(w.locality),
      status: w.status === "healthy" ? "healthy" : "unhealthy",
      capacity: w.capacity,
      services: this.#list<ServiceMembership>(w.services),
      authorizationPolicies: this.#list<NamespacedName>(w.authorizationPolicies),
      waypoints: this.#list<WeightedWaypoint>(w.waypoints),
      networkGateway: w.networkGateway === null ? null : this.shape<GatewayAddress>(w.networkGateway),
      applicationTunnel: w.applicationTunnel === null ? null : this.shape<ApplicationTunnel>(w.applicationTunnel),
      provenance: this.#provenance(w),
    };
  }

  ports(ports: readonly PortMapping[]): readonly PortMapping[] {
    return this.#list<PortMapping>(ports);
  }

  #list<T>(list: readonly T[]): readonly T[] {
    return list.length === 0 ? NONE : this.shape(list);
  }

  #provenance(w: Workload): Provenance {
    const p = w.provenance;
    const interned = {
      kind: this.string(p.kind),
      namespace: this.string(p.namespace),
      name: p.name === w.name ? w.name : p.name,
      resourceVersion: p.resourceVersion,
      fieldPath: this.string(p.fieldPath),
    };
    return p.source === undefined ? interned : { ...interned, source: p.source };
  }
}
