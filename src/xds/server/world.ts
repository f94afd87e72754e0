// What there is to be told, in the state published last: encoded once, and shared by all clients.

import type { NamespacedName, WorkloadUid } from "../../core/brand.ts";
import { parseIp } from "../../core/ip.ts";
import { addTo, removeFrom } from "../../core/set-index.ts";
import { EMPTY_L7_SNAPSHOT, type L7Snapshot } from "../../mesh/l7/delta.ts";
import { emptyDelta, type MeshDelta } from "../../mesh/records.ts";
import { MeshStore } from "../../mesh/store.ts";
import { atOnce, eachInSteps, ITEMS_PER_STEP, type Steps } from "../../core/steps.ts";
import { emptySnapshot, type MeshSnapshot } from "../../resources/mesh-delta.ts";
import { L7_CODECS, type L7Codec, type L7Kind } from "../l7/kinds.ts";
import { encodePolicy, encodeService, encodeWorkload, type EncodedResource, renamed } from "../resource.ts";
import type { PublishedState } from "../serving.ts";
import { ChangeTable } from "./change-table.ts";
import { WaypointIndex, type WaypointRecords } from "./waypoint-index.ts";

/** Removals remembered for clients that have not been told; a client further behind than this begins a new stream, with what it has. */
export const REMOVED_MAX = 100_000;

/** Records encoded in one step: some hundred microseconds. */
const ENCODED_PER_STEP = 16;

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
  readonly #waypointViews = new Map<NamespacedName, { readonly version: number; readonly resources: WaypointResources }>();
  readonly #onFault: (message: string) => void;
  #mesh: MeshSnapshot = emptySnapshot;
  #l7: L7Snapshot = EMPTY_L7_SNAPSHOT;
  /** Only where somebody asks by name; null until it is made. */
  #names: NameIndex | null = null;
  #namesWanted = false;
  readonly #makeReady: (steps: Steps<void>) => void;
  #state = 0;
  #isWhole = true;

  /**
   * @param makeReady does the steps of what somebody waits for, not while a state is being published, and lets everybody ask again. At once,
   * unless given.
   */
  constructor(onFault: (message: string) => void, makeReady: (steps: Steps<void>) => void = atOnce) {
    this.#onFault = onFault;
    this.#makeReady = makeReady;
  }

  /** Number of the state published last. */
  get state(): number {
    return this.#state;
  }

  /** False while a state is put in the place of the one before: nobody is to begin looking at it. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  publish(published: PublishedState): void {
    atOnce(this.publishing(published));
  }

  /**
   * Makes a state what clients are told. First all of it is encoded, while the one before is still told; then it takes its place, and is
   * not whole until that has ended. Begun, it is to be ended, or the world to be left.
   */
  *publishing(published: PublishedState): Steps<void> {
    const { delta } = published;
    const services = yield* this.#encodeRecords(delta.services, encodeService);
    const workloads = yield* this.#encodeRecords(delta.workloads, encodeWorkload);
    const policies = yield* this.#encodeRecords(delta.policies, encodePolicy);
    const state = this.#state + 1;
    this.#isWhole = false;
    yield* eachInSteps([...services, ...workloads], (resource) => this.addresses.set(resource, state));
    yield* eachInSteps(policies, (resource) => this.policies.set(resource, state));
    yield* eachInSteps(delta.removedWorkloads, (name) => this.addresses.remove(name, state));
    yield* eachInSteps(delta.removedServices, (name) => this.addresses.remove(name, state));
    yield* eachInSteps(delta.removedPolicies, (name) => this.policies.remove(name, state));
    yield* this.#waypoints.update(published);
    if (this.#names !== null) yield* index(this.#names, delta);
    this.#mesh = published.mesh;
    this.#l7 = published.l7;
    this.#state = state;
    this.#isWhole = true;
  }

  *#encodeRecords<T extends object>(records: readonly T[], encode: (record: T) => EncodedResource): Steps<readonly EncodedResource[]> {
    const encoded: EncodedResource[] = [];
    for (const [index, record] of records.entries()) {
      if (index % ENCODED_PER_STEP === ENCODED_PER_STEP - 1) yield;
      try {
        encoded.push(encode(record));
      } catch (cause) {
        // A record that no message can hold is a fault of ours; the others are told all the same.
        this.#onFault(`a record cannot be sent, what was sent of it before stays: ${cause instanceof Error ? cause.message : String(cause)}; ${JSON.stringify(record).slice(0, 500)}`);
      }
    }
    return encoded;
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

  /** Whether `resolveAddress` and `addressesOfNode` can be asked. If not, that is made ready. */
  get canBeAskedByName(): boolean {
    if (this.#names === null && !this.#namesWanted) {
      this.#namesWanted = true;
      this.#makeReady(this.#makeNames());
    }
    return this.#names !== null;
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
    if (this.#names === null) throw new Error("asked by name before that was made ready");
    return this.#names;
  }

  *#makeNames(): Steps<void> {
    const { workloads, services } = this.#mesh;
    const names: NameIndex = { store: new MeshStore(), nodeOf: new Map(), byNode: new Map() };
    yield* index(names, { ...emptyDelta, workloads: [...workloads.values()], services: [...services.values()] });
    this.#names = names;
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

/** One after the other they make the same as the whole, each soon done. */
function* partsOf(delta: MeshDelta): Iterable<MeshDelta> {
  const longest = Math.max(...Object.values(delta).map((part: readonly unknown[]) => part.length));
  for (let at = 0; at < longest; at += ITEMS_PER_STEP) {
    const part = <T>(items: readonly T[]): readonly T[] => items.slice(at, at + ITEMS_PER_STEP);
    yield {
      workloads: part(delta.workloads), services: part(delta.services), policies: part(delta.policies),
      removedWorkloads: part(delta.removedWorkloads), removedServices: part(delta.removedServices), removedPolicies: part(delta.removedPolicies),
    };
  }
}

function* index({ store, nodeOf, byNode }: NameIndex, delta: MeshDelta): Steps<void> {
  for (const part of partsOf(delta)) {
    store.apply(part);
    yield;
  }
  const leave = (uid: WorkloadUid): void => {
    const node = nodeOf.get(uid);
    if (node === undefined) return;
    removeFrom(byNode, node, uid);
    nodeOf.delete(uid);
  };
  yield* eachInSteps(delta.workloads, ({ uid, node }) => {
    leave(uid);
    nodeOf.set(uid, node);
    addTo(byNode, node, uid);
  });
  yield* eachInSteps(delta.removedWorkloads, leave);
}
