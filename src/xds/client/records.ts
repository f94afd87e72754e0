// What a client was told, as records: takes one response in while it comes, keeps what it can, refuses the rest by name, and says what
// changed. The records of the mesh are put into its store when the response is whole; until then they wait packed. Pure.
//
// What is refused leaves its last good state in force. A policy that is refused and has none would leave its door open: a denial stands
// in its place until it can be read.

import { type NamespacedName, namespacedName, type WorkloadUid } from "../../core/brand.ts";
import type { Result } from "../../core/result.ts";
import { EMPTY_L7_DELTA, type L7Delta, type L7Snapshot } from "../../mesh/l7/delta.ts";
import { EMPTY_PACKED_DELTA, type PackedDelta, unpackedDelta } from "../../mesh/packed/packed-delta.ts";
import { serviceShape, workloadShape } from "../../mesh/packed/record-codecs.ts";
import { PackedPiecesWriter } from "../../mesh/packed/record-table.ts";
import { type AuthorizationPolicy, emptyDelta, type MeshDelta, type Service, type Workload } from "../../mesh/records.ts";
import type { MeshStore, PackedPieces } from "../../mesh/store.ts";
import type { MeshSnapshot } from "../../resources/mesh-delta.ts";
import type { L7Codec, L7Kind, L7Records } from "../l7/kinds.ts";
import { packPlainWorkload } from "../mesh/plain-workload.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, readAddress, readAuthorization, type ReceivedResource } from "../resource.ts";
import type { L7Reader } from "./l7-reader.ts";
import { LogFrames } from "./log-frames.ts";
import { policyInPlaceOf } from "./stand-in.ts";

export interface Refusal {
  readonly name: string;
  readonly reason: string;
}

export interface Told {
  /** What has changed of the mesh. Unpacked whenever it is looked at. */
  readonly delta: MeshDelta;
  readonly packed: PackedDelta;
  readonly l7Delta: L7Delta;
  readonly refused: readonly Refusal[];
  /** What is to be kept for the next start: all that was taken, what a denial stands in for, and what is gone. */
  readonly frames: LogFrames;
}

export interface Response extends ResponseEnd {
  readonly resources: readonly ReceivedResource[];
}

/** A response but for its resources. */
export interface ResponseEnd {
  readonly typeUrl: string;
  readonly removed: readonly string[];
  /** The first of its type on a stream names everything that this client lacks: a stand-in that it does not name has nothing to stand in for. */
  readonly first: boolean;
}

/** What an intake has of a response. */
interface Taken {
  readonly frames: LogFrames;
  readonly refused: Refusal[];
}

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

  /** A response that is there. */
  take({ resources, ...end }: Response): Told {
    const intake = this.begin();
    for (const resource of resources) intake.add(resource);
    return intake.end(end);
  }

  /**
   * A response that is coming. One at a time; one that is not ended has changed nothing.
   * @param wanted false where nobody asks what has changed: then the delta may be empty whatever was taken.
   */
  begin(wanted = true): ResponseIntake {
    return new ResponseIntake({
      addresses: (end, taken, upserts) => this.#takeAddresses(end, taken, upserts, wanted),
      others: (response, taken) => this.#takeOthers(response, taken),
    });
  }

  #takeOthers(response: Response, taken: Taken): Told {
    const { typeUrl } = response;
    if (typeUrl === AUTHORIZATION_TYPE) return this.#takePolicies(response, taken);
    const kind = this.#kindByType.get(typeUrl);
    if (kind !== undefined && this.#reader !== null) return this.#takeL7(this.#reader, kind, response, taken);
    taken.refused.push({ name: typeUrl, reason: "nobody here asked for this type" });
    return { ...NOTHING, ...taken };
  }

  #takeAddresses({ removed }: ResponseEnd, { frames, refused }: Taken, upserts: PackedPieces, wanted: boolean): Told {
    // A name does not say of which kind it is.
    const change = this.#store.applyPieces(upserts, { removedWorkloads: removed as readonly WorkloadUid[], removedServices: removed as readonly NamespacedName[], removedPolicies: [] }, wanted);
    for (const name of removed) frames.drop(ADDRESS_TYPE, name);
    const packed = {
      ...change.packed, removedWorkloads: change.packed.removedWorkloads.filter((name) => change.workloadsChanged.has(name)), removedServices: change.packed.removedServices.filter((name) => change.servicesChanged.has(name)),
    };
    return { l7Delta: EMPTY_L7_DELTA, refused, frames, delta: unpackedDelta(packed), packed };
  }

  #takePolicies({ resources, removed, first }: Response, { frames, refused }: Taken): Told {
    const policies = new Map<NamespacedName, AuthorizationPolicy>();
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
    const { packed } = this.#store.apply({ ...emptyDelta, policies: [...policies.values()], removedPolicies });
    frames.change(AUTHORIZATION_TYPE, keep, gone);
    return { l7Delta: EMPTY_L7_DELTA, refused, frames, delta: unpackedDelta(packed), packed };
  }

  #takeL7(reader: L7Reader, kind: L7Kind, response: Response, { frames, refused }: Taken): Told {
    const { typeUrl, resources, first } = response;
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
    frames.change(typeUrl, keep, gone);
    return {
      ...NOTHING, refused, frames,
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

const NO_PIECES: PackedPieces = { workloads: [], services: [] };
const NOTHING = { delta: emptyDelta, packed: EMPTY_PACKED_DELTA, l7Delta: EMPTY_L7_DELTA };

interface IntakeEnds {
  readonly addresses: (end: ResponseEnd, taken: Taken, upserts: PackedPieces) => Told;
  readonly others: (response: Response, taken: Taken) => Told;
}

/** Takes the resources of one response as they come. Of addresses, of which there are the most, it keeps what the store will hold and nothing else. */
export class ResponseIntake {
  readonly #ends: IntakeEnds;
  readonly #workloads = new PackedPiecesWriter(workloadShape);
  readonly #services = new PackedPiecesWriter(serviceShape);
  readonly #others: ReceivedResource[] = [];
  readonly #frames = new LogFrames();
  readonly #refused: Refusal[] = [];
  /** Of the resources; "" before the first. */
  #typeUrl = "";
  #count = 0;

  constructor(ends: IntakeEnds) {
    this.#ends = ends;
  }

  /** @param resource of the same type as those before it; its value is borrowed. */
  add(resource: ReceivedResource): void {
    this.#typeUrl = resource.typeUrl;
    this.#count++;
    if (resource.typeUrl === ADDRESS_TYPE) this.#addAddress(resource);
    else this.#others.push({ ...resource, value: new Uint8Array(resource.value) });
  }

  /** The response is whole, and comes into force. */
  end(end: ResponseEnd): Told {
    const asSaid = this.#count === 0 || this.#typeUrl === end.typeUrl;
    const taken = asSaid ? { frames: this.#frames, refused: this.#refused } : { frames: new LogFrames(), refused: [{ name: `${this.#count} resources`, reason: `their content is of type ${this.#typeUrl}, the response is of type ${end.typeUrl}` }] };
    if (end.typeUrl !== ADDRESS_TYPE) return this.#ends.others({ ...end, resources: asSaid ? this.#others : [] }, taken);
    return this.#ends.addresses(end, taken, asSaid ? { workloads: this.#workloads.pieces(), services: this.#services.pieces() } : NO_PIECES);
  }

  #addAddress(resource: ReceivedResource): void {
    if (this.#workloads.addBy(resource, packPlainWorkload)) return this.#frames.keep(resource);
    const read = readAddress(resource);
    if (!read.ok) {
      this.#refused.push({ name: resource.name, reason: read.error });
      return;
    }
    if (read.value.kind === "workload") this.#workloads.add(read.value.workload);
    else this.#services.add(read.value.service);
    this.#frames.keep(resource);
  }
}

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
