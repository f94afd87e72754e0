// What this node knows of the mesh: workloads, services, endpoints, policies, and the indexes that answer a connection without a scan.
// One thread owns it and changes it only by `apply`, one delta at a time. Knows no clock, no socket and no source of configuration.
//
// Records are kept packed (packed/): of a large mesh a node uses few. The indexes hold their row numbers.

import { type NamespacedName, namespacedName, type WorkloadUid } from "../core/brand.ts";
import { CidrMap } from "../core/cidr-map.ts";
import { compareText } from "../core/compare-text.ts";
import { type Cidr, type IpAddress, ipFromBytes } from "../core/ip.ts";
import { HashIndex, hashText } from "./packed/hash-index.ts";
import { PackWriter } from "./packed/bytes.ts";
import { EMPTY_PACKED_DELTA, type PackedDelta, type Removals } from "./packed/packed-delta.ts";
import { isNoNews, placesIn, type RowsNews } from "./packed/packed-rows.ts";
import { type FoundPolicy, type FoundService, type FoundWorkload, policyShape, type RecordShape, serviceShape, workloadShape } from "./packed/record-codecs.ts";
import { type Given, packEach, RecordTable, unpackEach } from "./packed/record-table.ts";
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

/** What one delta touched, for judging live connections again. A record that is upserted as it was is not touched. */
export interface StoreChange {
  /** Upserted or removed. */
  readonly workloadsChanged: ReadonlySet<WorkloadUid>;
  readonly policiesChanged: boolean;
  /** Upserted or removed, or with an endpoint that was. */
  readonly servicesChanged: ReadonlySet<NamespacedName>;
}

/** What a store tells those that follow it, in plain data: where its records are now, in memory that they share. */
export interface MeshNews {
  readonly workloads: RowsNews;
  /** Of each place of a workload: when it first appeared, as a number that rises. */
  readonly sequences: Uint32Array;
  readonly services: RowsNews;
  readonly policies: RowsNews;
}

export interface FollowedChange extends StoreChange {
  readonly workloadsRemoved: ReadonlySet<WorkloadUid>;
}

/** With the delta as it is packed: without the records that were here already. */
export interface AppliedDelta extends StoreChange {
  readonly packed: PackedDelta;
}

export interface StoreCounts {
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
  readonly endpoints: number;
  /** Services that endpoints name and that have not arrived. */
  readonly awaitedServices: number;
}

type WorkloadTable = RecordTable<WorkloadUid, Workload, FoundWorkload>;

/** A service's endpoints, by the rows of their workloads; unpacked when somebody asks, and kept up from then on. */
class ServiceEndpoints implements EndpointSet {
  readonly name: NamespacedName;
  readonly rows: number[] = [];
  version = 0;
  /** False while endpoints wait for their service. */
  delivered = false;
  /** In the order of `rows`; null until asked for. */
  view: Endpoint[] | null = null;
  readonly #workloads: WorkloadTable;

  constructor(name: NamespacedName, workloads: WorkloadTable) {
    this.name = name;
    this.#workloads = workloads;
  }

  get endpoints(): readonly Endpoint[] {
    return (this.view ??= this.rows.map((row) => endpointOf(this.#workloads.at(row), this.name)));
  }

  join(row: number): void {
    this.rows.push(row);
    this.view?.push(endpointOf(this.#workloads.at(row), this.name));
    this.version++;
  }

  /** The last one takes its place. */
  leave(row: number): void {
    const at = this.rows.indexOf(row);
    const last = this.rows.pop()!;
    const lastEndpoint = this.view?.pop();
    if (at < this.rows.length) {
      this.rows[at] = last;
      if (this.view !== null) this.view[at] = lastEndpoint!;
    }
    this.version++;
  }
}

/** A membership given twice is one endpoint: the first says the ports. */
const endpointOf = (workload: Workload, name: NamespacedName): Endpoint => ({ workload, ports: workload.services.find(({ service }) => service === name)!.ports });

/** The policies of a workload that names some, as they were found for one epoch. */
interface BoundPolicies {
  readonly namespace: string;
  readonly names: readonly NamespacedName[];
  readonly epoch: number;
  readonly set: PolicySet;
}

interface NamespacePolicies {
  readonly names: Set<NamespacedName>;
  /** Policies of the namespace and of the mesh, for workloads that name none of their own. */
  shared: PolicySet | null;
  sharedEpoch: number;
}

const NO_ENDPOINTS: readonly Endpoint[] = [];
const NO_SERVICES: readonly Service[] = [];
/** Lists of services found by address or name that are kept until a service changes. */
const FOUND_MAX = 1_024;

export class MeshStore {
  readonly #workloads: WorkloadTable;
  readonly #services: RecordTable<NamespacedName, Service, FoundService>;
  readonly #policies: RecordTable<NamespacedName, AuthorizationPolicy, FoundPolicy>;
  readonly #endpoints = new Map<NamespacedName, ServiceEndpoints>();
  /** Workloads by network and address. */
  readonly #owners = new HashIndex();
  /** By row, the order of first appearance: of two workloads with one address the younger is the living one. */
  readonly #sequences: number[] = [];
  #sequence = 0;
  #endpointCount = 0;
  /** Services by network and exact address, by host name, and by range in each network. */
  readonly #vips = new HashIndex();
  readonly #hostnames = new HashIndex();
  readonly #cidrs = new Map<string, CidrMap<Service[]>>();
  /** What was found in these two, best first but for the client's namespace. */
  readonly #foundVips = new Map<string, readonly Service[]>();
  readonly #foundHostnames = new Map<string, readonly Service[]>();
  readonly #globalPolicies = new Set<NamespacedName>();
  readonly #namespacePolicies = new Map<string, NamespacePolicies>();
  readonly #boundPolicies = new Map<WorkloadUid, BoundPolicies>();
  #policiesEpoch = 1;
  #changes = 0;

  /** @param followed by stores of other threads: see `news`. */
  constructor({ followed = false }: { readonly followed?: boolean } = {}) {
    this.#workloads = new RecordTable(workloadShape, followed);
    this.#services = new RecordTable(serviceShape, followed);
    this.#policies = new RecordTable(policyShape, followed);
  }

  /**
   * Applies one delta as a unit: upserts first, removals last, so that a name in both ends up removed. Costs what the delta holds.
   * Endpoints may come before their service; they are kept until it arrives.
   */
  apply(delta: MeshDelta): AppliedDelta {
    return this.#applyNew({ workloads: packEach(workloadShape, delta.workloads), services: packEach(serviceShape, delta.services), policies: packEach(policyShape, delta.policies) }, delta);
  }

  /**
   * The same of records that are packed, in pieces; borrowed.
   * @param wanted false where nobody asks for the delta as it was applied: then it is empty.
   */
  applyPieces({ workloads, services }: PackedPieces, removals: Removals, wanted: boolean): AppliedDelta {
    const upserts = { workloads: unpackPieces(workloadShape, workloads), services: unpackPieces(serviceShape, services), policies: [] };
    return wanted ? this.#applyNew(upserts, removals) : { ...this.#apply(upserts, removals, null), packed: EMPTY_PACKED_DELTA };
  }

  /** For every follower: what has changed since the last time; null for nothing. They apply all of it as a unit. */
  news(): MeshNews | null {
    const workloads = this.#workloads.news();
    const sequences = Uint32Array.from(placesIn(workloads), ({ row }) => this.#sequences[row]!);
    const news = { workloads, sequences, services: this.#services.news(), policies: this.#policies.news() };
    return isNoNews(news.workloads) && isNoNews(news.services) && isNoNews(news.policies) ? null : news;
  }

  /** Comes to what the store has whose news these are. Costs what has changed. Whoever follows is changed by nothing else. */
  follow({ workloads, sequences, services, policies }: MeshNews): FollowedChange {
    const workloadsChanged = new Set<WorkloadUid>();
    const servicesChanged = new Set<NamespacedName>();
    const workloadsRemoved = new Set<WorkloadUid>();
    let policiesChanged = false;
    this.#workloads.beginFollowing(workloads);
    this.#services.beginFollowing(services);
    this.#policies.beginFollowing(policies);
    // Removals first: a row may have another record by now, and a record another row.
    for (const row of this.#workloads.goneBy(workloads)) workloadsRemoved.add(this.#removeWorkloadAt(row, true, workloadsChanged, servicesChanged));
    for (const row of this.#services.goneBy(services)) this.#removeServiceAt(row, true, servicesChanged);
    for (const row of this.#policies.goneBy(policies)) {
      this.#removePolicyAt(row, true);
      policiesChanged = true;
    }
    for (const service of this.#services.given(services)) this.#putService(service.found, this.#services.rowAt(service.place), servicesChanged, (remember) => this.#services.follow(service, remember));
    for (const workload of this.#workloads.given(workloads)) {
      this.#putWorkload(workload.found, this.#workloads.rowAt(workload.place), { workloadsChanged, servicesChanged }, (remember) => this.#workloads.follow(workload, remember));
    }
    for (const { row, index } of placesIn(workloads)) this.#sequences[row] = sequences[index]!;
    for (const policy of this.#policies.given(policies)) {
      this.#putPolicy(policy.found, this.#policies.rowAt(policy.place), (remember) => this.#policies.follow(policy, remember));
      policiesChanged = true;
    }
    this.#workloads.endFollowing(workloads);
    this.#services.endFollowing(services);
    this.#policies.endFollowing(policies);
    if (policiesChanged) this.#policiesEpoch++;
    this.#changes++;
    return { workloadsChanged, policiesChanged, servicesChanged, workloadsRemoved };
  }

  #applyNew(upserts: Upserts, removals: Removals): AppliedDelta {
    const news = { workloads: new PackWriter(), services: new PackWriter(), policies: new PackWriter() };
    const change = this.#apply(upserts, removals, news);
    const { removedWorkloads, removedServices, removedPolicies } = removals;
    return { ...change, packed: { workloads: news.workloads.own(), services: news.services.own(), policies: news.policies.own(), removedWorkloads, removedServices, removedPolicies } };
  }

  /** @param news what was not here as it is, packed. */
  #apply({ workloads, services, policies }: Upserts, { removedWorkloads, removedServices, removedPolicies }: Removals, news: { readonly [K in keyof Upserts]: PackWriter } | null): StoreChange {
    const workloadsChanged = new Set<WorkloadUid>();
    const servicesChanged = new Set<NamespacedName>();
    let policiesChanged = false;
    for (const service of services) if (this.#upsertService(service, servicesChanged)) news?.services.bytes(service.packed);
    for (const workload of workloads) if (this.#upsertWorkload(workload, { workloadsChanged, servicesChanged })) news?.workloads.bytes(workload.packed);
    for (const policy of policies) {
      if (!this.#upsertPolicy(policy)) continue;
      news?.policies.bytes(policy.packed);
      policiesChanged = true;
    }
    for (const uid of removedWorkloads) this.#removeWorkload(uid, workloadsChanged, servicesChanged);
    for (const name of removedServices) this.#removeService(name, servicesChanged);
    for (const name of removedPolicies) policiesChanged = this.#removePolicy(name) || policiesChanged;
    if (policiesChanged) this.#policiesEpoch++;
    this.#changes++;
    return { workloadsChanged, policiesChanged, servicesChanged };
  }

  /** How often it was changed: what was looked up holds while this stays. */
  get changes(): number {
    return this.#changes;
  }

  /** Every record, by name. A live view: it moves with every `apply`. */
  get records(): { readonly workloads: ReadonlyMap<WorkloadUid, Workload>; readonly services: ReadonlyMap<NamespacedName, Service>; readonly policies: ReadonlyMap<NamespacedName, AuthorizationPolicy> } {
    return { workloads: this.#workloads, services: this.#services, policies: this.#policies };
  }

  workload(uid: WorkloadUid): Workload | undefined {
    return this.#workloads.get(uid);
  }

  /** The workload that owns an address. Never one on its node's network. Of several: a pod, then one with HBONE, then the youngest. */
  workloadByAddress(network: string, ip: IpAddress): Workload | undefined {
    let best = -1;
    this.#owners.find(addressHash(network, ip), (row) => {
      const { network: ofNetwork, addresses } = this.#workloads.at(row);
      if (ofNetwork === network && addresses.includes(ip) && (best < 0 || this.#compareOwners(row, best) < 0)) best = row;
      return false;
    });
    return best < 0 ? undefined : this.#workloads.at(best);
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
    const candidates = this.#servicesAt(network, ip);
    const found = preferredService(candidates, clientNamespace);
    if (found === undefined || found.canonical || found.namespace === clientNamespace) return found;
    const owner = this.workloadByAddress(network, ip);
    if (owner === undefined || !isPod(owner) || owner.namespace === found.namespace) return found;
    return candidates.find((service) => service.namespace === owner.namespace && (clientNamespace === null || service.visibility === "public"));
  }

  /** Virtual addresses given as a CIDR only; the longest prefix that has a visible service. */
  serviceByCidr(network: string, ip: IpAddress, clientNamespace: string): Service | undefined {
    return this.#cidrs.get(network)?.find(ip, (candidates) => preferredService(candidates, clientNamespace));
  }

  service(name: NamespacedName): Service | undefined {
    return this.#services.get(name);
  }

  /** Every service with this hostname, canonical ones first; compared without regard to case. */
  servicesByHostname(hostname: string): readonly Service[] {
    const wanted = hostname.toLowerCase();
    return this.#foundIn(this.#hostnames, hashText(wanted), this.#foundHostnames, wanted, (service) => service.hostname.toLowerCase() === wanted);
  }

  /** Endpoints of a service, in no particular order; also those that wait for it. Valid until the next `apply`. */
  endpoints(name: NamespacedName): readonly Endpoint[] {
    return this.#endpoints.get(name)?.endpoints ?? NO_ENDPOINTS;
  }

  /** The endpoints with their version, for caches built over them. Undefined for a service that is not here. */
  endpointSet(name: NamespacedName): EndpointSet | undefined {
    const found = this.#endpoints.get(name);
    return found?.delivered === true ? found : undefined;
  }

  policy(name: NamespacedName): AuthorizationPolicy | undefined {
    return this.#policies.get(name);
  }

  /** The policies that bind `workload`: of the mesh, of its namespace, and those it names. */
  policiesFor(workload: Workload): PolicySet {
    const { uid, namespace, authorizationPolicies: names } = workload;
    if (names.length === 0) return this.#sharedPolicies(namespace);
    const known = this.#boundPolicies.get(uid) ?? null;
    if (known !== null && known.epoch === this.#policiesEpoch && known.namespace === namespace && sameList(known.names, names)) return known.set;
    const set = this.#collectPolicies(workload, known?.set ?? null);
    if (this.#workloads.has(uid)) this.#boundPolicies.set(uid, { namespace, names, epoch: this.#policiesEpoch, set });
    return set;
  }

  counts(): StoreCounts {
    return {
      workloads: this.#workloads.size,
      services: this.#services.size,
      policies: this.#policies.size,
      endpoints: this.#endpointCount,
      awaitedServices: this.#endpoints.size - this.#services.size,
    };
  }

  workloads(): IterableIterator<Workload> {
    return this.#workloads.values();
  }

  services(): IterableIterator<Service> {
    return this.#services.values();
  }

  policies(): IterableIterator<AuthorizationPolicy> {
    return this.#policies.values();
  }

  // ---- workloads

  /** @returns false where it is here as it is. */
  #upsertWorkload(workload: Given<Workload, FoundWorkload>, changed: ChangedSets): boolean {
    const before = this.#workloads.row(workload.found.uid);
    if (before >= 0 && this.#workloads.holds(before, workload.packed)) return false;
    this.#putWorkload(workload.found, before, changed, (remember) => this.#workloads.put(workload, before, remember));
    return true;
  }

  /** @param put puts it into its row, and returns that. */
  #putWorkload(found: FoundWorkload, before: number, { workloadsChanged, servicesChanged }: ChangedSets, put: (remember: boolean) => number): void {
    let inUse = false;
    if (before >= 0) {
      inUse = this.#workloads.remembers(before);
      const old = this.#workloads.foundBy(before);
      this.#unindexAddresses(before, old);
      this.#leaveServices(before, old, servicesChanged);
    }
    const memberships = membershipsOf(found).map((name) => this.#endpointsOf(name));
    inUse ||= memberships.some(({ view }) => view !== null);
    const row = put(inUse);
    if (before < 0) this.#sequences[row] = this.#sequence++;
    this.#indexAddresses(row, found);
    for (const of of memberships) {
      of.join(row);
      this.#endpointCount++;
      servicesChanged.add(of.name);
    }
    workloadsChanged.add(found.uid);
  }

  #removeWorkload(uid: WorkloadUid, workloadsChanged: Set<WorkloadUid>, servicesChanged: Set<NamespacedName>): void {
    const row = this.#workloads.row(uid);
    if (row >= 0) this.#removeWorkloadAt(row, false, workloadsChanged, servicesChanged);
  }

  #removeWorkloadAt(row: number, follows: boolean, workloadsChanged: Set<WorkloadUid>, servicesChanged: Set<NamespacedName>): WorkloadUid {
    const old = this.#workloads.foundBy(row);
    this.#unindexAddresses(row, old);
    this.#leaveServices(row, old, servicesChanged);
    this.#workloads.remove(row, follows);
    this.#boundPolicies.delete(old.uid);
    workloadsChanged.add(old.uid);
    return old.uid;
  }

  #leaveServices(row: number, workload: FoundWorkload, servicesChanged: Set<NamespacedName>): void {
    for (const name of membershipsOf(workload)) {
      const of = this.#endpoints.get(name)!;
      of.leave(row);
      this.#endpointCount--;
      servicesChanged.add(of.name);
      this.#forgetEmpty(of);
    }
  }

  #indexAddresses(row: number, { network, addresses, hostNetwork }: FoundWorkload): void {
    if (hostNetwork) return;
    for (const ip of new Set(addresses)) this.#owners.add(addressHash(network, ip), row);
  }

  #unindexAddresses(row: number, { network, addresses, hostNetwork }: FoundWorkload): void {
    if (hostNetwork) return;
    for (const ip of new Set(addresses)) this.#owners.remove(addressHash(network, ip), row);
  }

  /** Best owner of an address first. */
  #compareOwners(a: number, b: number): number {
    const [first, second] = [this.#workloads.at(a), this.#workloads.at(b)];
    return Number(isPod(second)) - Number(isPod(first))
      || Number(second.tunnelProtocol === "HBONE") - Number(first.tunnelProtocol === "HBONE")
      || this.#sequences[b]! - this.#sequences[a]!;
  }

  // ---- services

  #endpointsOf(name: NamespacedName): ServiceEndpoints {
    const found = this.#endpoints.get(name);
    if (found !== undefined) return found;
    const created = new ServiceEndpoints(name, this.#workloads);
    this.#endpoints.set(name, created);
    return created;
  }

  /** @returns false where it is here as it is. */
  #upsertService(service: Given<Service, FoundService>, changed: Set<NamespacedName>): boolean {
    const before = this.#services.row(serviceShape.keyOf(service.found));
    if (before >= 0 && this.#services.holds(before, service.packed)) return false;
    this.#putService(service.found, before, changed, (remember) => this.#services.put(service, before, remember));
    return true;
  }

  #putService(found: FoundService, before: number, changed: Set<NamespacedName>, put: (remember: boolean) => number): void {
    if (before >= 0) this.#unindexService(before);
    const of = this.#endpointsOf(serviceShape.keyOf(found));
    const row = put(before >= 0 && this.#services.remembers(before));
    this.#indexService(row, found);
    of.delivered = true;
    of.version++;
    changed.add(of.name);
  }

  #removeService(name: NamespacedName, changed: Set<NamespacedName>): void {
    const row = this.#services.row(name);
    if (row >= 0) this.#removeServiceAt(row, false, changed);
  }

  #removeServiceAt(row: number, follows: boolean, changed: Set<NamespacedName>): void {
    const name = serviceShape.keyOf(this.#services.foundBy(row));
    this.#unindexService(row);
    this.#services.remove(row, follows);
    const of = this.#endpoints.get(name)!;
    of.delivered = false;
    of.version++;
    changed.add(name);
    this.#forgetEmpty(of);
  }

  #forgetEmpty(of: ServiceEndpoints): void {
    if (!of.delivered && of.rows.length === 0) this.#endpoints.delete(of.name);
  }

  #indexService(row: number, service: FoundService): void {
    this.#forgetFound();
    this.#hostnames.add(hashText(service.hostname.toLowerCase()), row);
    for (const key of vipsOf(service)) this.#vips.add(hashText(key), row);
    for (const { network, cidr } of service.addresses) {
      if (isHostRoute(cidr)) continue;
      const cidrs = this.#cidrs.get(network) ?? new CidrMap<Service[]>();
      this.#cidrs.set(network, cidrs);
      cidrs.set(cidr, [...othersThan(service, cidrs.get(cidr)), this.#services.at(row)].sort(compareServices));
    }
  }

  #unindexService(row: number): void {
    const service = this.#services.foundBy(row);
    this.#forgetFound();
    this.#hostnames.remove(hashText(service.hostname.toLowerCase()), row);
    for (const key of vipsOf(service)) this.#vips.remove(hashText(key), row);
    for (const { network, cidr } of service.addresses) {
      const cidrs = isHostRoute(cidr) ? undefined : this.#cidrs.get(network);
      if (cidrs === undefined) continue;
      const rest = othersThan(service, cidrs.get(cidr));
      if (rest.length === 0) cidrs.delete(cidr);
      else cidrs.set(cidr, rest);
      if (cidrs.isEmpty) this.#cidrs.delete(network);
    }
  }

  #servicesAt(network: string, ip: IpAddress): readonly Service[] {
    const wanted = addressKey(network, ip);
    return this.#foundIn(this.#vips, hashText(wanted), this.#foundVips, wanted, (service) => vipsOf(service).has(wanted));
  }

  #foundIn(index: HashIndex, hash: number, known: Map<string, readonly Service[]>, key: string, matches: (service: Service) => boolean): readonly Service[] {
    const before = known.get(key);
    if (before !== undefined) return before;
    const found: Service[] = [];
    index.find(hash, (row) => {
      const service = this.#services.at(row);
      if (matches(service)) found.push(service);
      return false;
    });
    if (found.length === 0) return NO_SERVICES;
    if (known.size >= FOUND_MAX) known.clear();
    known.set(key, found.sort(compareServices));
    return found;
  }

  #forgetFound(): void {
    this.#foundVips.clear();
    this.#foundHostnames.clear();
  }

  // ---- policies

  /** @returns false where it is here as it is. */
  #upsertPolicy(policy: Given<AuthorizationPolicy, FoundPolicy>): boolean {
    const before = this.#policies.row(policyShape.keyOf(policy.found));
    if (before >= 0 && this.#policies.holds(before, policy.packed)) return false;
    this.#putPolicy(policy.found, before, (remember) => this.#policies.put(policy, before, remember));
    return true;
  }

  #putPolicy(found: FoundPolicy, before: number, put: (remember: boolean) => number): void {
    const name = policyShape.keyOf(found);
    if (before >= 0) this.#unindexPolicy(name, found.namespace);
    put(before >= 0 && this.#policies.remembers(before));
    if (found.scope === "global") this.#globalPolicies.add(name);
    else if (found.scope === "namespace") this.#policiesOf(found.namespace).names.add(name);
  }

  #removePolicy(name: NamespacedName): boolean {
    const row = this.#policies.row(name);
    if (row >= 0) this.#removePolicyAt(row, false);
    return row >= 0;
  }

  #removePolicyAt(row: number, follows: boolean): void {
    const found = this.#policies.foundBy(row);
    this.#unindexPolicy(policyShape.keyOf(found), found.namespace);
    this.#policies.remove(row, follows);
  }

  #unindexPolicy(name: NamespacedName, namespace: string): void {
    this.#globalPolicies.delete(name);
    this.#namespacePolicies.get(namespace)?.names.delete(name);
  }

  #policiesOf(namespace: string): NamespacePolicies {
    const found = this.#namespacePolicies.get(namespace);
    if (found !== undefined) return found;
    const created: NamespacePolicies = { names: new Set(), shared: null, sharedEpoch: 0 };
    this.#namespacePolicies.set(namespace, created);
    return created;
  }

  #sharedPolicies(namespace: string): PolicySet {
    const of = this.#policiesOf(namespace);
    if (of.shared === null || of.sharedEpoch !== this.#policiesEpoch) {
      of.shared = keepIfSame(of.shared, policySet([...this.#globalPolicies, ...of.names].map((name) => this.#policies.get(name)!), []));
      of.sharedEpoch = this.#policiesEpoch;
    }
    return of.shared;
  }

  #collectPolicies(workload: Workload, previous: PolicySet | null): PolicySet {
    const shared = this.#sharedPolicies(workload.namespace);
    const policies = new Map([...shared.deny, ...shared.allow].map((policy) => [namespacedName(policy.namespace, policy.name), policy]));
    const missing: NamespacedName[] = [];
    for (const name of workload.authorizationPolicies) {
      const policy = policies.get(name) ?? this.#policies.get(name);
      if (policy === undefined) missing.push(name);
      else policies.set(name, policy);
    }
    return keepIfSame(previous, policySet([...policies.values()], missing));
  }
}

interface ChangedSets {
  readonly workloadsChanged: Set<WorkloadUid>;
  readonly servicesChanged: Set<NamespacedName>;
}

/** As a PackedDelta's, each kind in several. */
export interface PackedPieces {
  readonly workloads: readonly Uint8Array[];
  readonly services: readonly Uint8Array[];
}

interface Upserts {
  readonly workloads: Iterable<Given<Workload, FoundWorkload>>;
  readonly services: Iterable<Given<Service, FoundService>>;
  readonly policies: Iterable<Given<AuthorizationPolicy, FoundPolicy>>;
}

function* unpackPieces<K extends string, T extends I, I>(shape: RecordShape<K, T, I>, pieces: readonly Uint8Array[]): IterableIterator<Given<T, I>> {
  for (const piece of pieces) yield* unpackEach(shape, piece);
}

const addressKey = (network: string, ip: IpAddress): string => `${network}/${ip}`;
const addressHash = (network: string, ip: IpAddress): number => hashText(ip, hashText(network));

/** What its exact addresses are found by. */
const vipsOf = ({ addresses }: FoundService): Set<string> => new Set(addresses.filter(({ cidr }) => isHostRoute(cidr)).map(({ network, cidr }) => addressKey(network, ipFromBytes(cidr.bytes))));

/** Each service once. */
const membershipsOf = ({ services }: FoundWorkload): readonly NamespacedName[] => services.length === 1 ? [services[0]!.service] : [...new Set(services.map(({ service }) => service))];

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

/** Without the one of the same name. */
function othersThan(service: FoundService, list: readonly Service[] = NO_SERVICES): Service[] {
  return list.filter(({ namespace, hostname }) => namespace !== service.namespace || hostname !== service.hostname);
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
