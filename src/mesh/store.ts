// What this node knows of the mesh: workloads, services, endpoints, policies, and the indexes that answer a connection without a scan.
// One thread owns it and changes it only by `apply`, one delta at a time. Knows no clock, no socket and no source of configuration.

import { type NamespacedName, namespacedName, type WorkloadUid } from "../core/brand.ts";
import { CidrMap } from "../core/cidr-map.ts";
import { type Cidr, type IpAddress, ipFromBytes } from "../core/ip.ts";
import { Interner } from "./intern.ts";
import type { AuthorizationPolicy, MeshDelta, PortMapping, Service, Workload } from "./records.ts";

/** A workload in its role as a member of one service. */
export interface Endpoint {
  readonly workload: Workload;
  readonly ports: readonly PortMapping[];
}

/** The endpoints of one service. The object stays the same while the service lives; `version` moves with every change. */
export interface EndpointSet {
  readonly name: NamespacedName;
  readonly version: number;
  /** In no particular order. A live view: valid until the next `apply`. */
  readonly endpoints: readonly Endpoint[];
}

/** The policies that bind one workload. A new object whenever any of them changed, so that it can key a cache. */
export interface PolicySet {
  /** Dry-run policies are in here too: whoever evaluates tells them apart. Sorted by name. */
  readonly deny: readonly AuthorizationPolicy[];
  readonly allow: readonly AuthorizationPolicy[];
  /** Named by the workload and not delivered: until they are, nothing may be allowed. */
  readonly missing: readonly NamespacedName[];
}

/** What one delta touched, for judging live connections again. */
export interface StoreChange {
  /** Upserted or removed. */
  readonly workloadsChanged: ReadonlySet<WorkloadUid>;
  readonly policiesChanged: boolean;
  /** Upserted or removed, or with an endpoint that was. */
  readonly servicesChanged: ReadonlySet<NamespacedName>;
}

export interface StoreCounts {
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
  readonly endpoints: number;
  /** Services that endpoints name and that have not arrived. */
  readonly awaitedServices: number;
}

interface EndpointSlot {
  workload: Workload;
  ports: readonly PortMapping[];
  readonly owner: ServiceSlot;
  /** Position in owner.endpoints. */
  at: number;
}

interface ServiceSlot {
  readonly name: NamespacedName;
  /** Null while endpoints wait for their service. */
  service: Service | null;
  version: number;
  readonly endpoints: EndpointSlot[];
}

interface WorkloadSlot {
  workload: Workload;
  /** Order of first appearance: of two workloads with one address the younger is the living one. */
  readonly sequence: number;
  memberships: EndpointSlot[];
  policies: PolicySet | null;
  policiesEpoch: number;
}

interface NetworkIndex {
  readonly workloads: Map<IpAddress, WorkloadSlot | WorkloadSlot[]>;
  /** Each list best first but for the client's namespace. */
  readonly vips: Map<IpAddress, Service[]>;
  readonly cidrs: CidrMap<Service[]>;
}

interface NamespacePolicies {
  readonly policies: Map<NamespacedName, AuthorizationPolicy>;
  /** Policies of the namespace and of the mesh, for workloads that name none of their own. */
  shared: PolicySet | null;
  sharedEpoch: number;
}

const NO_ENDPOINTS: readonly Endpoint[] = [];
const NO_SERVICES: readonly Service[] = [];

export class MeshStore {
  readonly #interner = new Interner();
  readonly #keepsRecords: boolean;
  readonly #workloads = new Map<WorkloadUid, WorkloadSlot>();
  readonly #services = new Map<NamespacedName, ServiceSlot>();
  readonly #policies = new Map<NamespacedName, AuthorizationPolicy>();
  readonly #globalPolicies = new Map<NamespacedName, AuthorizationPolicy>();
  readonly #namespacePolicies = new Map<string, NamespacePolicies>();
  readonly #networks = new Map<string, NetworkIndex>();
  readonly #hostnames = new Map<string, Service[]>();
  #sequence = 0;
  #endpointCount = 0;
  #serviceCount = 0;
  #policiesEpoch = 1;

  /** @param records `kept` as they are given, by who holds them too and has interned them; else `copied`, which shares among them what it can. */
  constructor(records: "copied" | "kept" = "copied") {
    this.#keepsRecords = records === "kept";
  }

  /**
   * Applies one delta as a unit: upserts first, removals last, so that a name in both ends up removed. Costs what the delta holds.
   * Endpoints may come before their service; they are kept until it arrives.
   */
  apply(delta: MeshDelta): StoreChange {
    const workloadsChanged = new Set<WorkloadUid>();
    const servicesChanged = new Set<NamespacedName>();
    for (const service of delta.services) this.#upsertService(service, servicesChanged);
    for (const workload of delta.workloads) this.#upsertWorkload(workload, workloadsChanged, servicesChanged);
    for (const policy of delta.policies) this.#upsertPolicy(policy);
    let policiesChanged = delta.policies.length > 0;
    for (const uid of delta.removedWorkloads) this.#removeWorkload(uid, workloadsChanged, servicesChanged);
    for (const name of delta.removedServices) this.#removeService(name, servicesChanged);
    for (const name of delta.removedPolicies) policiesChanged = this.#removePolicy(name) || policiesChanged;
    if (policiesChanged) this.#policiesEpoch++;
    return { workloadsChanged, policiesChanged, servicesChanged };
  }

  workload(uid: WorkloadUid): Workload | undefined {
    return this.#workloads.get(uid)?.workload;
  }

  /** The workload that owns an address. Never one on its node's network. Of several: a pod, then one with HBONE, then the youngest. */
  workloadByAddress(network: string, ip: IpAddress): Workload | undefined {
    const found = this.#networks.get(network)?.workloads.get(ip);
    if (found === undefined) return undefined;
    return Array.isArray(found) ? found[0]!.workload : found.workload;
  }

  /** The service that owns a virtual address, as a client in `clientNamespace` sees it: exact addresses, then the longest CIDR. */
  serviceByAddress(network: string, ip: IpAddress, clientNamespace: string): Service | undefined {
    return this.serviceByVip(network, ip, clientNamespace) ?? this.serviceByCidr(network, ip, clientNamespace);
  }

  /**
   * Exact virtual addresses only. With `clientNamespace` null every service is visible. A pod's address is the pod's: a service that is
   * no Kubernetes service and names it has it for clients of its own namespace, and for others only where the pod is of that namespace.
   */
  serviceByVip(network: string, ip: IpAddress, clientNamespace: string | null): Service | undefined {
    const index = this.#networks.get(network);
    const candidates = index?.vips.get(ip);
    if (index === undefined || candidates === undefined) return undefined;
    const found = preferredService(candidates, clientNamespace);
    if (found === undefined || found.canonical || found.namespace === clientNamespace) return found;
    const owners = index.workloads.get(ip);
    const owner = (Array.isArray(owners) ? owners[0] : owners)?.workload;
    if (owner === undefined || !isPod(owner) || owner.namespace === found.namespace) return found;
    return candidates.find((service) => service.namespace === owner.namespace && (clientNamespace === null || service.visibility === "public"));
  }

  /** Virtual addresses given as a CIDR only; the longest prefix that has a visible service. */
  serviceByCidr(network: string, ip: IpAddress, clientNamespace: string): Service | undefined {
    const cidrs = this.#networks.get(network)?.cidrs;
    if (cidrs === undefined || cidrs.isEmpty) return undefined;
    return cidrs.find(ip, (candidates) => preferredService(candidates, clientNamespace));
  }

  service(name: NamespacedName): Service | undefined {
    return this.#services.get(name)?.service ?? undefined;
  }

  /** Every service with this hostname, canonical ones first; compared without regard to case. */
  servicesByHostname(hostname: string): readonly Service[] {
    return this.#hostnames.get(hostname.toLowerCase()) ?? NO_SERVICES;
  }

  /** Endpoints of a service, in no particular order; also those that wait for it. Valid until the next `apply`. */
  endpoints(name: NamespacedName): readonly Endpoint[] {
    return this.#services.get(name)?.endpoints ?? NO_ENDPOINTS;
  }

  /** The endpoints with their version, for caches built over them. Undefined for a service that is not here. */
  endpointSet(name: NamespacedName): EndpointSet | undefined {
    const slot = this.#services.get(name);
    return slot === undefined || slot.service === null ? undefined : slot;
  }

  policy(name: NamespacedName): AuthorizationPolicy | undefined {
    return this.#policies.get(name);
  }

  /** The policies that bind `workload`: of the mesh, of its namespace, and those it names. */
  policiesFor(workload: Workload): PolicySet {
    if (workload.authorizationPolicies.length === 0) return this.#sharedPolicies(workload.namespace);
    const slot = this.#workloads.get(workload.uid);
    if (slot === undefined || slot.workload !== workload) return this.#collectPolicies(workload, null);
    if (slot.policies === null || slot.policiesEpoch !== this.#policiesEpoch) {
      slot.policies = this.#collectPolicies(workload, slot.policies);
      slot.policiesEpoch = this.#policiesEpoch;
    }
    return slot.policies;
  }

  counts(): StoreCounts {
    return {
      workloads: this.#workloads.size,
      services: this.#serviceCount,
      policies: this.#policies.size,
      endpoints: this.#endpointCount,
      awaitedServices: this.#services.size - this.#serviceCount,
    };
  }

  *workloads(): IterableIterator<Workload> {
    for (const slot of this.#workloads.values()) yield slot.workload;
  }

  *services(): IterableIterator<Service> {
    for (const slot of this.#services.values()) if (slot.service !== null) yield slot.service;
  }

  policies(): IterableIterator<AuthorizationPolicy> {
    return this.#policies.values();
  }

  // ---- workloads

  #upsertWorkload(given: Workload, workloadsChanged: Set<WorkloadUid>, servicesChanged: Set<NamespacedName>): void {
    const workload = this.#keepsRecords ? given : this.#interner.workload(given);
    const old = this.#workloads.get(workload.uid);
    if (old !== undefined) {
      this.#unindexAddresses(old);
      this.#leaveServices(old, servicesChanged);
    }
    const slot: WorkloadSlot = {
      workload, sequence: old?.sequence ?? this.#sequence++, memberships: [], policies: old?.policies ?? null, policiesEpoch: 0,
    };
    this.#workloads.set(workload.uid, slot);
    this.#indexAddresses(slot);
    for (const membership of workload.services) {
      const owner = this.#serviceSlot(membership.service);
      // A membership given twice is one endpoint: the first says the ports.
      if (slot.memberships.some((known) => known.owner === owner)) continue;
      const endpoint: EndpointSlot = { workload, ports: membership.ports, owner, at: owner.endpoints.length };
      owner.endpoints.push(endpoint);
      owner.version++;
      slot.memberships.push(endpoint);
      this.#endpointCount++;
      servicesChanged.add(owner.name);
    }
    workloadsChanged.add(workload.uid);
  }

  #removeWorkload(uid: WorkloadUid, workloadsChanged: Set<WorkloadUid>, servicesChanged: Set<NamespacedName>): void {
    const slot = this.#workloads.get(uid);
    if (slot === undefined) return;
    this.#workloads.delete(uid);
    this.#unindexAddresses(slot);
    this.#leaveServices(slot, servicesChanged);
    workloadsChanged.add(uid);
  }

  #leaveServices(slot: WorkloadSlot, servicesChanged: Set<NamespacedName>): void {
    for (const endpoint of slot.memberships) {
      const { owner } = endpoint;
      const last = owner.endpoints.pop()!;
      if (last !== endpoint) {
        owner.endpoints[endpoint.at] = last;
        last.at = endpoint.at;
      }
      owner.version++;
      this.#endpointCount--;
      servicesChanged.add(owner.name);
      this.#forgetEmpty(owner);
    }
    slot.memberships = [];
  }

  #indexAddresses(slot: WorkloadSlot): void {
    if (slot.workload.hostNetwork) return;
    const index = this.#network(slot.workload.network).workloads;
    for (const ip of slot.workload.addresses) {
      const found = index.get(ip);
      if (found === undefined) index.set(ip, slot);
      else if (Array.isArray(found)) {
        if (!found.includes(slot)) found.push(slot);
        found.sort(compareOwners);
      } else if (found !== slot) index.set(ip, [found, slot].sort(compareOwners));
    }
  }

  #unindexAddresses(slot: WorkloadSlot): void {
    const { network, addresses, hostNetwork } = slot.workload;
    if (hostNetwork) return;
    const index = this.#network(network).workloads;
    for (const ip of addresses) {
      const found = index.get(ip);
      if (found === slot) index.delete(ip);
      else if (Array.isArray(found)) {
        const rest = found.filter((other) => other !== slot);
        if (rest.length === 1) index.set(ip, rest[0]!);
        else index.set(ip, rest);
      }
    }
    this.#forgetNetwork(network);
  }

  // ---- services

  #serviceSlot(name: NamespacedName): ServiceSlot {
    const found = this.#services.get(name);
    if (found !== undefined) return found;
    const slot: ServiceSlot = { name: this.#interner.string(name), service: null, version: 0, endpoints: [] };
    this.#services.set(slot.name, slot);
    return slot;
  }

  #upsertService(service: Service, changed: Set<NamespacedName>): void {
    const slot = this.#serviceSlot(namespacedName(service.namespace, service.hostname));
    if (slot.service === null) this.#serviceCount++;
    else this.#unindexService(slot.service);
    slot.service = service;
    slot.version++;
    this.#indexService(service);
    changed.add(slot.name);
  }

  #removeService(name: NamespacedName, changed: Set<NamespacedName>): void {
    const slot = this.#services.get(name);
    if (slot === undefined || slot.service === null) return;
    this.#unindexService(slot.service);
    slot.service = null;
    slot.version++;
    this.#serviceCount--;
    changed.add(name);
    this.#forgetEmpty(slot);
  }

  #forgetEmpty(slot: ServiceSlot): void {
    if (slot.service === null && slot.endpoints.length === 0) this.#services.delete(slot.name);
  }

  #indexService(service: Service): void {
    const hostname = service.hostname.toLowerCase();
    this.#hostnames.set(hostname, withService(this.#hostnames.get(hostname), service));
    for (const { network, cidr } of service.addresses) {
      const index = this.#network(network);
      if (isHostRoute(cidr)) {
        const ip = ipFromBytes(cidr.bytes);
        index.vips.set(ip, withService(index.vips.get(ip), service));
      } else {
        index.cidrs.set(cidr, withService(index.cidrs.get(cidr), service));
      }
    }
  }

  #unindexService(service: Service): void {
    const hostname = service.hostname.toLowerCase();
    const named = withoutService(this.#hostnames.get(hostname), service);
    if (named === null) this.#hostnames.delete(hostname);
    else this.#hostnames.set(hostname, named);
    for (const { network, cidr } of service.addresses) {
      const index = this.#network(network);
      if (isHostRoute(cidr)) {
        const ip = ipFromBytes(cidr.bytes);
        const rest = withoutService(index.vips.get(ip), service);
        if (rest === null) index.vips.delete(ip);
        else index.vips.set(ip, rest);
      } else {
        const rest = withoutService(index.cidrs.get(cidr), service);
        if (rest === null) index.cidrs.delete(cidr);
        else index.cidrs.set(cidr, rest);
      }
      this.#forgetNetwork(network);
    }
  }

  #network(network: string): NetworkIndex {
    const found = this.#networks.get(network);
    if (found !== undefined) return found;
    const index: NetworkIndex = { workloads: new Map(), vips: new Map(), cidrs: new CidrMap() };
    this.#networks.set(network, index);
    return index;
  }

  #forgetNetwork(network: string): void {
    const index = this.#networks.get(network);
    if (index !== undefined && index.workloads.size === 0 && index.vips.size === 0 && index.cidrs.isEmpty) this.#networks.delete(network);
  }

  // ---- policies

  #upsertPolicy(policy: AuthorizationPolicy): void {
    const name = namespacedName(policy.namespace, policy.name);
    this.#removePolicy(name);
    this.#policies.set(name, policy);
    if (policy.scope === "global") this.#globalPolicies.set(name, policy);
    else if (policy.scope === "namespace") this.#policiesOf(policy.namespace).policies.set(name, policy);
  }

  #removePolicy(name: NamespacedName): boolean {
    const old = this.#policies.get(name);
    if (old === undefined) return false;
    this.#policies.delete(name);
    this.#globalPolicies.delete(name);
    this.#namespacePolicies.get(old.namespace)?.policies.delete(name);
    return true;
  }

  #policiesOf(namespace: string): NamespacePolicies {
    const found = this.#namespacePolicies.get(namespace);
    if (found !== undefined) return found;
    const created: NamespacePolicies = { policies: new Map(), shared: null, sharedEpoch: 0 };
    this.#namespacePolicies.set(namespace, created);
    return created;
  }

  #sharedPolicies(namespace: string): PolicySet {
    const of = this.#policiesOf(namespace);
    if (of.shared === null || of.sharedEpoch !== this.#policiesEpoch) {
      of.shared = keepIfSame(of.shared, policySet([...this.#globalPolicies.values(), ...of.policies.values()], []));
      of.sharedEpoch = this.#policiesEpoch;
    }
    return of.shared;
  }

  #collectPolicies(workload: Workload, previous: PolicySet | null): PolicySet {
    const shared = this.#sharedPolicies(workload.namespace);
    const policies = new Set([...shared.deny, ...shared.allow]);
    const missing: NamespacedName[] = [];
    for (const name of workload.authorizationPolicies) {
      const policy = this.#policies.get(name);
      if (policy === undefined) missing.push(name);
      else policies.add(policy);
    }
    return keepIfSame(previous, policySet([...policies], missing));
  }
}

/** Best owner of an address first. */
function compareOwners(a: WorkloadSlot, b: WorkloadSlot): number {
  return Number(isPod(b.workload)) - Number(isPod(a.workload))
    || Number(b.workload.tunnelProtocol === "HBONE") - Number(a.workload.tunnelProtocol === "HBONE")
    || b.sequence - a.sequence;
}

/** Uids of pods read `CLUSTER//Pod/NAMESPACE/NAME`: group (empty), kind. */
function isPod(workload: Workload): boolean {
  return workload.uid.includes("//Pod/");
}

function isHostRoute(cidr: Cidr): boolean {
  return cidr.prefixLength === cidr.bytes.length * 8;
}

/** Of services that share an address or a hostname: visible ones only, the client's own namespace, then canonical, then by name. */
export function preferredService(candidates: readonly Service[], clientNamespace: string | null): Service | undefined {
  if (clientNamespace === null) return candidates[0];
  let best: Service | undefined;
  for (const service of candidates) {
    if (service.namespace === clientNamespace) return service;
    if (best === undefined && service.visibility === "public") best = service;
  }
  return best;
}

function compareServices(a: Service, b: Service): number {
  return Number(b.canonical) - Number(a.canonical) || compareText(a.namespace, b.namespace) || compareText(a.hostname, b.hostname);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function withService(list: readonly Service[] | undefined, service: Service): Service[] {
  if (list === undefined) return [service];
  return list.includes(service) ? [...list] : [...list, service].sort(compareServices);
}

function withoutService(list: readonly Service[] | undefined, service: Service): Service[] | null {
  const rest = (list ?? []).filter((other) => other !== service);
  return rest.length === 0 ? null : rest;
}

function policySet(policies: AuthorizationPolicy[], missing: NamespacedName[]): PolicySet {
  policies.sort((a, b) => compareText(a.namespace, b.namespace) || compareText(a.name, b.name));
  return { deny: policies.filter((p) => p.action === "deny"), allow: policies.filter((p) => p.action === "allow"), missing: missing.sort(compareText) };
}

function keepIfSame(previous: PolicySet | null, next: PolicySet): PolicySet {
  const same = previous !== null && sameList(previous.deny, next.deny) && sameList(previous.allow, next.allow) && sameList(previous.missing, next.missing);
  return same ? previous : next;
}

function sameList<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
