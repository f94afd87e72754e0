// What there is to be told, in the state published last: encoded once, and shared by all clients.

import type { NamespacedName, WorkloadUid } from "../../core/brand.ts";
import { parseIp } from "../../core/ip.ts";
import { EMPTY_L7_SNAPSHOT, type L7Snapshot } from "../../mesh/l7/delta.ts";
import type { MeshDelta } from "../../mesh/records.ts";
import { MeshStore } from "../../mesh/store.ts";
import { emptySnapshot, type MeshSnapshot } from "../../resources/mesh-delta.ts";
import { L7_CODECS, type L7Codec, type L7Kind } from "../l7/kinds.ts";
import { encodePolicy, encodeService, encodeWorkload, type EncodedResource, renamed } from "../resource.ts";
import type { PublishedState } from "../serving.ts";
import { ChangeTable } from "./change-table.ts";
import { WaypointIndex, type WaypointRecords } from "./waypoint-index.ts";

/** Removals remembered for clients that have not been told; a client further behind than this begins a new stream, with what it has. */
export const REMOVED_MAX = 100_000;

/** Records encoded in one step of `prepare`: some milliseconds. */
const PREPARED_AT_ONCE = 250;

/** What one waypoint is told of each kind. */
export type WaypointResources = { readonly [K in L7Kind]: ReadonlyMap<string, EncodedResource> };

/** What is found by address, by membership and by node. */
interface NameIndex {
  readonly store: MeshStore;
  readonly nodeOf: Map<WorkloadUid, string>;
  readonly byNode: Map<string, Set<WorkloadUid>>;
}

export class World {
  readonly addresses = new ChangeTable();
  readonly policies = new ChangeTable();
  readonly #waypoints = new WaypointIndex();
  /** Keyed by the record: records are never changed, so an encoding holds for as long as its record. */
  readonly #encoded = new WeakMap<object, EncodedResource>();
  /** Encoded ahead of the state that they are published with. */
  readonly #prepared = new Map<object, EncodedResource>();
  readonly #waypointViews = new Map<NamespacedName, { readonly version: number; readonly resources: WaypointResources }>();
  readonly #onFault: (message: string) => void;
  #mesh: MeshSnapshot = emptySnapshot;
  #l7: L7Snapshot = EMPTY_L7_SNAPSHOT;
  /** Only where somebody asks by name. */
  #names: NameIndex | null = null;
  #state = 0;

  constructor(onFault: (message: string) => void) {
    this.#onFault = onFault;
  }

  /** Number of the state published last. */
  get state(): number {
    return this.#state;
  }

  /** Encodes what a state brings, before it is published, some records at each step: publishing it takes a moment then, however much it is. */
  *prepare({ delta }: PublishedState): IterableIterator<void> {
    yield* this.#prepareAll(delta.services, encodeService);
    yield* this.#prepareAll(delta.workloads, encodeWorkload);
    yield* this.#prepareAll(delta.policies, encodePolicy);
  }

  *#prepareAll<T extends object>(records: readonly T[], encode: (record: T) => EncodedResource): IterableIterator<void> {
    for (const [index, record] of records.entries()) {
      if (index % PREPARED_AT_ONCE === 0) yield;
      try {
        this.#prepared.set(record, encode(record));
      } catch {
        // It is told of when it is published.
      }
    }
  }

  publish(published: PublishedState): void {
    const state = ++this.#state;
    const { delta } = published;
    for (const service of delta.services) this.#set(this.addresses, service, encodeService, state);
    for (const workload of delta.workloads) this.#set(this.addresses, workload, encodeWorkload, state);
    for (const policy of delta.policies) this.#set(this.policies, policy, encodePolicy, state);
    for (const name of [...delta.removedWorkloads, ...delta.removedServices]) this.addresses.remove(name, state);
    for (const name of delta.removedPolicies) this.policies.remove(name, state);
    this.#prepared.clear();
    this.#waypoints.update(published);
    this.#index(delta);
    this.#mesh = published.mesh;
    this.#l7 = published.l7;
  }

  /** Moves when what waypoints are told may have changed. */
  get waypointVersion(): number {
    return this.#waypoints.version;
  }

  waypointResources(gateway: NamespacedName): WaypointResources {
    const known = this.#waypointViews.get(gateway);
    if (known !== undefined && known.version === this.#waypoints.version) return known.resources;
    const records = this.#waypoints.recordsOf(gateway, this.#l7, (name) => this.#mesh.services.get(name));
    const resources: WaypointResources = {
      waypoints: this.#encodeAll("waypoints", records), routes: this.#encodeAll("routes", records), trafficPolicies: this.#encodeAll("trafficPolicies", records),
      requestPolicies: this.#encodeAll("requestPolicies", records), requestAuthentications: this.#encodeAll("requestAuthentications", records),
      loginPolicies: this.#encodeAll("loginPolicies", records), telemetry: this.#encodeAll("telemetry", records), workloadLabels: this.#encodeAll("workloadLabels", records),
    };
    this.#waypointViews.set(gateway, { version: this.#waypoints.version, resources });
    return resources;
  }

  /** The last client of this waypoint is gone. */
  forgetWaypoint(gateway: NamespacedName): void {
    this.#waypointViews.delete(gateway);
  }

  /**
   * What a client means that asks for an address by `network/ip`, `namespace/hostname` or a uid: a workload, or a service with its
   * endpoints. What was asked for under another name than its own comes under that name too, by which the client knows it is answered.
   * Empty when there is no such thing.
   */
  resolveAddress(key: string): readonly EncodedResource[] {
    const { store } = this.#indexed();
    const direct = this.addresses.get(key);
    if (direct !== undefined) {
      const service = this.#mesh.services.get(key as NamespacedName);
      return service === undefined ? [direct] : [direct, ...this.#endpoints(key as NamespacedName)];
    }
    const slash = key.lastIndexOf("/");
    const ip = slash < 0 ? null : parseIp(key.slice(slash + 1));
    if (ip === null) return [];
    const network = key.slice(0, slash);
    const workload = store.workloadByAddress(network, ip);
    if (workload !== undefined) return this.#alias(key, [workload.uid]);
    const service = store.serviceByVip(network, ip, null);
    if (service === undefined) return [];
    const name = `${service.namespace}/${service.hostname}` as NamespacedName;
    return [...this.#alias(key, [name]), ...this.#endpoints(name)];
  }

  /** Workloads of one node: its ztunnel needs them whether it asks or not. */
  addressesOfNode(node: string): EncodedResource[] {
    return [...(this.#indexed().byNode.get(node) ?? [])].map((uid) => this.addresses.get(uid)).filter((resource) => resource !== undefined);
  }

  #endpoints(service: NamespacedName): EncodedResource[] {
    return this.#indexed().store.endpoints(service).map(({ workload }) => this.addresses.get(workload.uid)).filter((resource) => resource !== undefined);
  }

  #alias(key: string, names: readonly (WorkloadUid | NamespacedName)[]): EncodedResource[] {
    return names.flatMap((name) => {
      const resource = this.addresses.get(name);
      return resource === undefined ? [] : [resource, renamed(resource, key)];
    });
  }

  #indexed(): NameIndex {
    if (this.#names !== null) return this.#names;
    const { workloads, services } = this.#mesh;
    this.#names = { store: new MeshStore(), nodeOf: new Map(), byNode: new Map() };
    this.#index({ workloads: [...workloads.values()], services: [...services.values()], policies: [], removedWorkloads: [], removedServices: [], removedPolicies: [] });
    return this.#names;
  }

  #index(delta: MeshDelta): void {
    if (this.#names === null) return;
    const { store, nodeOf, byNode } = this.#names;
    store.apply(delta);
    const leave = (uid: WorkloadUid): void => {
      const node = nodeOf.get(uid);
      if (node === undefined) return;
      const there = byNode.get(node);
      there?.delete(uid);
      if (there?.size === 0) byNode.delete(node);
      nodeOf.delete(uid);
    };
    for (const { uid, node } of delta.workloads) {
      leave(uid);
      nodeOf.set(uid, node);
      const there = byNode.get(node);
      if (there === undefined) byNode.set(node, new Set([uid]));
      else there.add(uid);
    }
    for (const uid of delta.removedWorkloads) leave(uid);
  }

  #set<T extends object>(table: ChangeTable, record: T, encode: (record: T) => EncodedResource, state: number): void {
    try {
      table.set(this.#prepared.get(record) ?? encode(record), state);
    } catch (cause) {
      // A record that no message can hold is a fault of ours; the others are told all the same.
      this.#onFault(`a record cannot be sent, what was sent of it before stays: ${cause instanceof Error ? cause.message : String(cause)}; ${JSON.stringify(record).slice(0, 500)}`);
    }
  }

  #encodeAll<K extends L7Kind>(kind: K, records: WaypointRecords): ReadonlyMap<string, EncodedResource> {
    const all = new Map<string, EncodedResource>();
    const codec: L7Codec<never> = L7_CODECS[kind] as L7Codec<never>;
    for (const [name, record] of records[kind] as ReadonlyMap<string, never>) {
      const resource = this.#encode(codec, name, record);
      if (resource !== null) all.set(name, resource);
    }
    return all;
  }

  #encode<T extends object>(codec: L7Codec<T>, name: string, record: T): EncodedResource | null {
    const known = this.#encoded.get(record);
    if (known !== undefined) return known;
    const encoded = codec.encode(name, record);
    if (!encoded.ok) {
      this.#onFault(`a record cannot be sent: ${encoded.error}`);
      return null;
    }
    this.#encoded.set(record, encoded.value);
    return encoded.value;
  }
}
