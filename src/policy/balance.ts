// Which endpoint of a service a connection goes to: the best-ranked by locality and traffic distribution, of those two chosen at
// random by weight, of the two the one with fewer connections. Remembers connections and refusals; knows no clock and no socket.

import type { WorkloadUid } from "../core/brand.ts";
import type { Random } from "../core/ports.ts";
import type { Service, Workload } from "../mesh/records.ts";
import type { EndpointSet } from "../mesh/store.ts";
import { type CandidateRequest, judgeEndpoint, type NothingPicked, type Picked, whyNothing } from "./candidates.ts";
import { EJECTION_LIMITS, type EjectionEvent, type EjectionLimits, type EjectionState, HEALTHY, isEligible, step } from "./ejection.ts";
import { rankOf } from "./locality.ts";

/** `leastConnections`: two random choices by weight, fewer connections win. `random`: one choice by weight. */
export type BalancingAlgorithm = "leastConnections" | "random";

export interface BalancerOptions {
  readonly random: Random;
  readonly algorithm?: BalancingAlgorithm;
  readonly ejection?: EjectionLimits;
}

export interface PickRequest extends CandidateRequest {
  readonly endpoints: EndpointSet;
  readonly exclude: ReadonlySet<WorkloadUid>;
  readonly nowMs: number;
}

export type PickResult = { readonly ok: true; readonly value: Picked } | { readonly ok: false; readonly error: NothingPicked };

/** Endpoints of equal rank. `cumulative` is null when all weigh the same. */
interface RankGroup {
  readonly candidates: readonly Picked[];
  readonly cumulative: Float64Array | null;
}

interface Ranking {
  readonly version: number;
  readonly service: Service;
  /** By source locality, then by port, family and fallback. */
  readonly bySource: Map<string, Map<number, readonly RankGroup[]>>;
}

interface EndpointRecord {
  /** Connections open. */
  active: number;
  ejection: EjectionState;
  /** Where it was last picked from; its share of ejected endpoints is kept there. */
  from: EndpointSet | null;
}

/** Random choices before the whole group is looked through for one that is neither excluded nor ejected. */
const SAMPLES_MAX = 8;

export class Balancer {
  readonly #random: Random;
  readonly #algorithm: BalancingAlgorithm;
  readonly #limits: EjectionLimits;
  readonly #records = new Map<WorkloadUid, EndpointRecord>();
  readonly #rankings = new WeakMap<EndpointSet, Ranking>();
  readonly #sourceKeys = new WeakMap<Workload, string>();
  readonly #ejectedIn = new WeakMap<EndpointSet, number>();
  #ejected = 0;

  constructor(options: BalancerOptions) {
    this.#random = options.random;
    this.#algorithm = options.algorithm ?? "leastConnections";
    this.#limits = options.ejection ?? EJECTION_LIMITS;
  }

  /** A number in [0, 1), for choices made beside that of an endpoint (weighted waypoints). */
  random(): number {
    return this.#random.next();
  }

  /** Endpoints that are ejected or probed at present. */
  get ejectedCount(): number {
    return this.#ejected;
  }

  /** Chooses an endpoint, or says why there is none. Does not scan: the ranking is kept until the service or its endpoints change. */
  pick(request: PickRequest): PickResult {
    const groups = this.#groups(request);
    for (const group of groups) {
      const chosen = this.#choose(group, request);
      if (chosen !== null) return this.#picked(chosen, request);
    }
    // Every endpoint is ejected: one of them is a better answer than none.
    for (const group of groups) {
      const allowed = group.candidates.filter((candidate) => !request.exclude.has(candidate.workload.uid));
      if (allowed.length > 0) return this.#picked(allowed[Math.floor(this.#random.next() * allowed.length)]!, request);
    }
    return { ok: false, error: whyNothing(request) };
  }

  /** A connection to it is up; every one is later `closed`. */
  connected(uid: WorkloadUid, nowMs: number): void {
    const record = this.#record(uid);
    record.active++;
    this.#step(record, { kind: "connected" }, nowMs);
  }

  closed(uid: WorkloadUid): void {
    const record = this.#records.get(uid);
    if (record === undefined || record.active === 0) return;
    record.active--;
    this.#forget(uid, record);
  }

  /** It could not be connected to: refused, timed out, or its agent answered 503. Not for denials or faults of our own. */
  failed(uid: WorkloadUid, nowMs: number): void {
    const record = this.#record(uid);
    const { from } = record;
    const mayEject = from !== null && (this.#ejectedIn.get(from) ?? 0) + 1 <= Math.floor(from.endpoints.length * this.#limits.ejectedShareMax);
    this.#step(record, { kind: "refused", mayEject }, nowMs);
  }

  /** The control plane said something new of it, or removed it: what was observed before no longer counts. */
  workloadChanged(uid: WorkloadUid): void {
    const record = this.#records.get(uid);
    if (record === undefined) return;
    this.#moveTo(record, HEALTHY);
    this.#forget(uid, record);
  }

  activeConnections(uid: WorkloadUid): number {
    return this.#records.get(uid)?.active ?? 0;
  }

  ejection(uid: WorkloadUid): EjectionState {
    return this.#records.get(uid)?.ejection ?? HEALTHY;
  }

  #picked(value: Picked, request: PickRequest): PickResult {
    const record = this.#record(value.workload.uid);
    if (record.from !== request.endpoints) {
      // Its share of ejected endpoints moves with it.
      if (record.ejection.kind !== "healthy") {
        this.#countEjected(record.from, -1);
        this.#countEjected(request.endpoints, 1);
      }
      record.from = request.endpoints;
    }
    this.#step(record, { kind: "picked" }, request.nowMs);
    return { ok: true, value };
  }

  #record(uid: WorkloadUid): EndpointRecord {
    const found = this.#records.get(uid);
    if (found !== undefined) return found;
    const record: EndpointRecord = { active: 0, ejection: HEALTHY, from: null };
    this.#records.set(uid, record);
    return record;
  }

  #forget(uid: WorkloadUid, record: EndpointRecord): void {
    if (record.active === 0 && record.ejection === HEALTHY) this.#records.delete(uid);
  }

  #step(record: EndpointRecord, event: EjectionEvent, nowMs: number): void {
    this.#moveTo(record, step(record.ejection, event, nowMs, this.#random, this.#limits));
  }

  #moveTo(record: EndpointRecord, next: EjectionState): void {
    const change = Number(next.kind !== "healthy") - Number(record.ejection.kind !== "healthy");
    record.ejection = next;
    this.#ejected += change;
    this.#countEjected(record.from, change);
  }

  #countEjected(set: EndpointSet | null, change: number): void {
    if (set !== null && change !== 0) this.#ejectedIn.set(set, (this.#ejectedIn.get(set) ?? 0) + change);
  }

  // ---- choosing within a rank

  #choose(group: RankGroup, request: PickRequest): Picked | null {
    const first = this.#sampleUsable(group, request, null);
    if (first === null || this.#algorithm === "random" || group.candidates.length === 1) return first;
    const second = this.#sampleUsable(group, request, first);
    return second === null || this.#load(first) <= this.#load(second) ? first : second;
  }

  /** Connections per unit of weight, the new one included. */
  #load(candidate: Picked): number {
    return (this.activeConnections(candidate.workload.uid) + 1) / candidate.workload.capacity;
  }

  #sampleUsable(group: RankGroup, request: PickRequest, other: Picked | null): Picked | null {
    const { candidates } = group;
    for (let i = 0; i < SAMPLES_MAX; i++) {
      const candidate = candidates[this.#sampleIndex(group)]!;
      if (candidate !== other && this.#isUsable(candidate, request)) return candidate;
    }
    // Mostly unusable, or few: start anywhere, so that none is preferred by its place.
    const start = this.#sampleIndex(group);
    for (let i = 0; i < candidates.length; i++) {
      const candidate = candidates[(start + i) % candidates.length]!;
      if (candidate !== other && this.#isUsable(candidate, request)) return candidate;
    }
    return null;
  }

  #sampleIndex(group: RankGroup): number {
    const { candidates, cumulative } = group;
    if (cumulative === null) return Math.floor(this.#random.next() * candidates.length);
    const at = this.#random.next() * cumulative[cumulative.length - 1]!;
    let low = 0;
    let high = cumulative.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cumulative[middle]! > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #isUsable(candidate: Picked, request: PickRequest): boolean {
    const { uid } = candidate.workload;
    if (request.exclude.size > 0 && request.exclude.has(uid)) return false;
    if (this.#ejected === 0) return true;
    const record = this.#records.get(uid);
    return record === undefined || isEligible(record.ejection, request.nowMs);
  }

  // ---- ranking

  #groups(request: PickRequest): readonly RankGroup[] {
    const { endpoints, service, source } = request;
    let ranking = this.#rankings.get(endpoints);
    if (ranking === undefined || ranking.version !== endpoints.version || ranking.service !== service) {
      ranking = { version: endpoints.version, service, bySource: new Map() };
      this.#rankings.set(endpoints, ranking);
    }
    const sourceKey = this.#sourceKey(source);
    let byPort = ranking.bySource.get(sourceKey);
    if (byPort === undefined) ranking.bySource.set(sourceKey, (byPort = new Map()));
    const portKey = (request.servicePort * 65_537 + (request.portFallback === null ? 65_536 : request.portFallback)) * 4 + (request.family === 6 ? 2 : 0) + (request.anyNetwork ? 1 : 0);
    let groups = byPort.get(portKey);
    if (groups === undefined) byPort.set(portKey, (groups = rankEndpoints(request)));
    return groups;
  }

  #sourceKey(source: Workload): string {
    let key = this.#sourceKeys.get(source);
    if (key === undefined) {
      const { region, zone, subzone } = source.locality;
      key = JSON.stringify([source.network, source.clusterId, source.node, region, zone, subzone]);
      this.#sourceKeys.set(source, key);
    }
    return key;
  }
}

function rankEndpoints(request: PickRequest): readonly RankGroup[] {
  const byRank = new Map<number, Picked[]>();
  for (const endpoint of request.endpoints.endpoints) {
    const candidate = judgeEndpoint(endpoint, request);
    if (typeof candidate === "string") continue;
    const rank = rankOf(request.service.loadBalancing, request.source, endpoint.workload);
    const group = byRank.get(rank);
    if (group === undefined) byRank.set(rank, [candidate]);
    else group.push(candidate);
  }
  return [...byRank.entries()].sort((a, b) => b[0] - a[0]).map(([, candidates]) => rankGroup(candidates));
}

function rankGroup(candidates: Picked[]): RankGroup {
  // The order of endpoints depends on the history of changes; a choice must not.
  candidates.sort((a, b) => (a.workload.uid < b.workload.uid ? -1 : 1));
  const capacity = candidates[0]!.workload.capacity;
  if (candidates.every((candidate) => candidate.workload.capacity === capacity)) return { candidates, cumulative: null };
  const cumulative = new Float64Array(candidates.length);
  let sum = 0;
  candidates.forEach((candidate, i) => {
    cumulative[i] = sum += candidate.workload.capacity;
  });
  return { candidates, cumulative };
}
