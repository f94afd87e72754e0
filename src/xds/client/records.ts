// What a client was told, as records: takes one response in, keeps what it can, refuses the rest by name, and says what changed. The records
// of the mesh are put into its store. Pure.
//
// What is refused leaves its last good state in force. A policy that is refused and has none would leave its door open: a denial stands
// in its place until it can be read.

import { type NamespacedName, namespacedName, type WorkloadUid } from "../../core/brand.ts";
import type { Result } from "../../core/result.ts";
import { EMPTY_L7_DELTA, type L7Delta, type L7Snapshot } from "../../mesh/l7/delta.ts";
import { type AuthorizationPolicy, emptyDelta, type MeshDelta, type Service, type Workload } from "../../mesh/records.ts";
import type { MeshStore } from "../../mesh/store.ts";
import type { MeshSnapshot } from "../../resources/mesh-delta.ts";
import type { L7Codec, L7Kind, L7Records } from "../l7/kinds.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, readAddress, readAuthorization, type ReceivedResource } from "../resource.ts";
import type { L7Reader } from "./l7-reader.ts";
import { policyInPlaceOf } from "./stand-in.ts";

export interface Refusal {
  readonly name: string;
  readonly reason: string;
}

export interface Told {
  readonly delta: MeshDelta;
  readonly l7Delta: L7Delta;
  readonly refused: readonly Refusal[];
  /** What is to be kept for the next start: all that was taken, and what a denial stands in for. */
  readonly keep: readonly ReceivedResource[];
  readonly drop: readonly string[];
}

export interface Response {
  readonly typeUrl: string;
  readonly resources: readonly ReceivedResource[];
  readonly removed: readonly string[];
  /** The first of its type on a stream names everything that this client lacks: a stand-in that it does not name has nothing to stand in for. */
  readonly first: boolean;
}

/** Taken in at once where nobody wants to know what has changed: what they were read from is garbage before the next. */
const PART_RECORDS = 1_000;

export class XdsRecords {
  readonly #store: MeshStore;
  readonly #reader: L7Reader | null;
  readonly #kindByType: ReadonlyMap<string, L7Kind>;
  readonly #l7: { readonly [K in L7Kind]: Map<string, L7Records[K]> } = {
    waypoints: new Map(), routes: new Map(), trafficPolicies: new Map(), requestPolicies: new Map(), requestAuthentications: new Map(), loginPolicies: new Map(), telemetry: new Map(), workloadLabels: new Map(),
  };
  /** Of L7 types, name to version: what was taken. Those of the mesh are in the provenance of its records. */
  readonly #versions = new Map<string, Map<string, string>>();
  /** By type: what a denial stands in for. The value is the name of the request policy that does, of L7 types. */
  readonly #standIns = new Map<string, Map<string, string>>();

  /**
   * @param reader of L7 records; null for a client that asks for none, which then refuses them.
   * @param store of the records of the mesh: empty at first, and changed by nobody else.
   */
  constructor(reader: L7Reader | null, store: MeshStore) {
    this.#store = store;
    this.#reader = reader;
    this.#kindByType = new Map(reader === null ? [] : (Object.keys(reader.codecs) as L7Kind[]).map((kind) => [reader.codecs[kind].typeUrl, kind]));
  }

  /** A live view: it moves with every response. */
  get mesh(): MeshSnapshot {
    return this.#store.records;
  }

  /** A live view: it moves with every response. Its names were checked when the records were read. */
  get l7(): L7Snapshot {
    return this.#l7 as unknown as L7Snapshot;
  }

  get count(): number {
    const { workloads, services, policies } = this.#store.counts();
    return workloads + services + policies + Object.values(this.#l7).reduce((sum, { size }) => sum + size, 0);
  }

  /** What is told to a server of what this client has. */
  versions(typeUrl: string): ReadonlyMap<string, string> {
    const { workloads, services, policies } = this.#store.records;
    const ofRecord = ([name, { provenance }]: readonly [string, Workload | Service | AuthorizationPolicy]): [string, string] => [name, provenance.resourceVersion];
    if (typeUrl === ADDRESS_TYPE) return new Map([...workloads.entries().map(ofRecord), ...services.entries().map(ofRecord)]);
    if (typeUrl === AUTHORIZATION_TYPE) return new Map(policies.entries().filter(([name]) => !this.#standsIn(AUTHORIZATION_TYPE, name)).map(ofRecord));
    return this.#versions.get(typeUrl) ?? new Map();
  }

  /** @param wanted false where nobody asks what has changed: then the delta may be empty whatever was taken. */
  take(response: Response, wanted = true): Told {
    const { typeUrl } = response;
    if (typeUrl === ADDRESS_TYPE) return this.#takeAddresses(response, wanted);
    if (typeUrl === AUTHORIZATION_TYPE) return this.#takePolicies(response);
    const kind = this.#kindByType.get(typeUrl);
    if (kind !== undefined && this.#reader !== null) return this.#takeL7(this.#reader, kind, response);
    return { ...NOTHING, refused: [{ name: typeUrl, reason: "nobody here asked for this type" }] };
  }

  #takeAddresses({ resources, removed }: Response, wanted: boolean): Told {
    const [workloads, services, refused] = [new Map<WorkloadUid, Workload>(), new Map<NamespacedName, Service>(), [] as Refusal[]];
    const keep: ReceivedResource[] = [];
    const apply = (removals: Partial<MeshDelta>): MeshDelta => {
      const delta = { ...emptyDelta, workloads: [...workloads.values()], services: [...services.values()], ...removals };
      this.#store.apply(delta);
      return delta;
    };
    for (const resource of resources) {
      const read = readAddress(resource);
      if (!read.ok) {
        refused.push({ name: resource.name, reason: read.error });
        continue;
      }
      if (read.value.kind === "workload") workloads.set(read.value.workload.uid, read.value.workload);
      else services.set(namespacedName(read.value.service.namespace, read.value.service.hostname), read.value.service);
      keep.push(resource);
      if (wanted || workloads.size + services.size < PART_RECORDS) continue;
      apply({});
      workloads.clear();
      services.clear();
    }
    const known = this.#store.records;
    const removedWorkloads = (removed as readonly WorkloadUid[]).filter((name) => known.workloads.has(name) || workloads.has(name));
    const removedServices = (removed as readonly NamespacedName[]).filter((name) => known.services.has(name) || services.has(name));
    return { l7Delta: EMPTY_L7_DELTA, refused, keep, drop: removed, delta: apply({ removedWorkloads, removedServices }) };
  }

  #takePolicies({ resources, removed, first }: Response): Told {
    const policies = new Map<NamespacedName, AuthorizationPolicy>();
    const refused: Refusal[] = [];
    const keep: ReceivedResource[] = [];
    const gone = new Set(removed);
    if (first) for (const name of this.#unnamedStandIns(AUTHORIZATION_TYPE, resources).keys()) gone.add(name);
    for (const resource of resources) {
      const read = readAuthorization(resource);
      const name = resource.name as NamespacedName;
      if (read.ok) {
        policies.set(name, read.value);
        this.#standIns.get(AUTHORIZATION_TYPE)?.delete(name);
        keep.push(resource);
        continue;
      }
      refused.push({ name, reason: read.error });
      if (this.#store.policy(name) !== undefined && !this.#standsIn(AUTHORIZATION_TYPE, name)) continue;
      const standIn = policyInPlaceOf(resource);
      if (standIn === null) continue;
      policies.set(name, standIn);
      this.#standIn(AUTHORIZATION_TYPE, name, name);
      keep.push(resource);
    }
    const removedPolicies: NamespacedName[] = [];
    for (const name of gone) {
      this.#forget(AUTHORIZATION_TYPE, name);
      if (!policies.has(name as NamespacedName) && this.#store.policy(name as NamespacedName) !== undefined) removedPolicies.push(name as NamespacedName);
    }
    const delta = { ...emptyDelta, policies: [...policies.values()], removedPolicies };
    this.#store.apply(delta);
    return { l7Delta: EMPTY_L7_DELTA, refused, keep, drop: [...gone], delta };
  }

  #takeL7(reader: L7Reader, kind: L7Kind, response: Response): Told {
    const { typeUrl, resources, first } = response;
    const refused: Refusal[] = [];
    const keep: ReceivedResource[] = [];
    const gone = new Set(response.removed);
    const upserts = this.#readL7(reader.codecs[kind], kind, resources, refused, keep);
    // Denials in the place of what guards requests are request policies themselves.
    const standIns = new Map<string, L7Records["requestPolicies"]>();
    const endedStandIns: string[] = [];
    if (kind === "requestPolicies" || kind === "loginPolicies") {
      if (first) for (const name of this.#unnamedStandIns(typeUrl, resources).keys()) gone.add(name);
      for (const resource of resources) {
        if (upserts.has(resource.name)) continue;
        if (this.#l7[kind].has(resource.name) && !this.#standsIn(typeUrl, resource.name)) continue;
        const standIn = reader.requestPolicyInPlaceOf(kind, resource);
        if (standIn === null) continue;
        const standInName = namespacedName(standIn.namespace, standIn.name);
        standIns.set(standInName, standIn);
        this.#standIn(typeUrl, resource.name, standInName);
        keep.push(resource);
      }
      for (const name of [...gone, ...upserts.keys()]) {
        const standInName = this.#standIns.get(typeUrl)?.get(name);
        if (standInName !== undefined && !(kind === "requestPolicies" && upserts.has(standInName))) endedStandIns.push(standInName);
      }
    }
    for (const name of upserts.keys()) this.#standIns.get(typeUrl)?.delete(name);
    for (const name of gone) this.#forget(typeUrl, name);
    const removed = [...gone].filter((name) => !upserts.has(name) && this.#l7[kind].delete(name));
    for (const name of endedStandIns) if (!standIns.has(name)) this.#l7.requestPolicies.delete(name);
    for (const [name, standIn] of standIns) this.#l7.requestPolicies.set(name, standIn);
    const own = l7DeltaOf(kind, upserts, removed);
    return {
      delta: emptyDelta, refused, keep, drop: [...gone],
      l7Delta: {
        ...own,
        requestPolicies: [...own.requestPolicies, ...standIns.values()],
        removedRequestPolicies: [...own.removedRequestPolicies, ...endedStandIns.filter((name) => !standIns.has(name) && !own.removedRequestPolicies.includes(name as NamespacedName)) as NamespacedName[]],
      },
    };
  }

  #readL7<K extends L7Kind>(codec: L7Codec<L7Records[K]>, kind: K, resources: readonly ReceivedResource[], refused: Refusal[], keep: ReceivedResource[]): ReadonlyMap<string, L7Records[K]> {
    const upserts = new Map<string, L7Records[K]>();
    for (const resource of resources) {
      const read: Result<L7Records[K], string> = codec.decode(resource);
      if (!read.ok) {
        refused.push({ name: resource.name, reason: read.error });
        continue;
      }
      upserts.set(resource.name, read.value);
      this.#l7[kind].set(resource.name, read.value);
      this.#versionsOf(codec.typeUrl).set(resource.name, resource.version);
      keep.push(resource);
    }
    return upserts;
  }

  #forget(typeUrl: string, name: string): void {
    this.#versions.get(typeUrl)?.delete(name);
    this.#standIns.get(typeUrl)?.delete(name);
  }

  #standsIn(typeUrl: string, name: string): boolean {
    return this.#standIns.get(typeUrl)?.has(name) ?? false;
  }

  #standIn(typeUrl: string, name: string, by: string): void {
    const known = this.#standIns.get(typeUrl);
    if (known === undefined) this.#standIns.set(typeUrl, new Map([[name, by]]));
    else known.set(name, by);
  }

  #unnamedStandIns(typeUrl: string, resources: readonly ReceivedResource[]): ReadonlyMap<string, string> {
    const unnamed = new Map(this.#standIns.get(typeUrl) ?? []);
    for (const { name } of resources) unnamed.delete(name);
    return unnamed;
  }

  #versionsOf(typeUrl: string): Map<string, string> {
    let versions = this.#versions.get(typeUrl);
    if (versions === undefined) this.#versions.set(typeUrl, (versions = new Map()));
    return versions;
  }
}

const NOTHING: Told = { delta: emptyDelta, l7Delta: EMPTY_L7_DELTA, refused: [], keep: [], drop: [] };

/** Names were checked when their records were read. */
function l7DeltaOf<K extends L7Kind>(kind: K, upserts: ReadonlyMap<string, L7Records[K]>, removedNames: readonly string[]): L7Delta {
  const removed = removedNames as readonly NamespacedName[];
  const parts: { readonly [P in L7Kind]: (records: ReadonlyMap<string, L7Records[P]>) => Partial<L7Delta> } = {
    waypoints: (records) => ({ waypoints: [...records.values()], removedWaypoints: removed }),
    routes: (records) => ({ routes: [...records.values()], removedRoutes: removed }),
    trafficPolicies: (records) => ({ trafficPolicies: [...records].map(([service, policies]) => ({ service: service as NamespacedName, policies })), removedTrafficPolicies: removed }),
    requestPolicies: (records) => ({ requestPolicies: [...records.values()], removedRequestPolicies: removed }),
    requestAuthentications: (records) => ({ requestAuthentications: [...records.values()], removedRequestAuthentications: removed }),
    loginPolicies: (records) => ({ loginPolicies: [...records.values()], removedLoginPolicies: removed }),
    telemetry: (records) => ({ telemetry: [...records.values()], removedTelemetry: removed }),
    workloadLabels: (records) => ({ workloadLabels: [...records.values()], removedWorkloadLabels: removedNames as readonly WorkloadUid[] }),
  };
  return { ...EMPTY_L7_DELTA, ...parts[kind](upserts) };
}
