// The endpoints of one service, port and subset, as this client sees them: which one takes the next request, what is remembered of
// how requests went, who is ejected and who is tried again. Reads no clock and opens nothing; the cold work (refresh, tick,
// maintain) is apart from what every request does (pick, and the calls of attempt.ts).

import { type IpAddress, isIpv6 } from "../../core/ip.ts";
import type { Random } from "../../core/ports.ts";
import { unreachable } from "../../core/result.ts";
import type { Service, Workload } from "../../mesh/records.ts";
import type { EndpointSet } from "../../mesh/store.ts";
import { type CandidateRequest, chooseAddress, judgeEndpoint, type NothingPicked, type Picked, whyNothing } from "../candidates.ts";
import { ConsistentHash } from "./balancers/hash-table.ts";
import { hashNumber } from "./balancers/hash.ts";
import { LatencyBook } from "./balancers/latency.ts";
import { maglevBuilder } from "./balancers/maglev.ts";
import { NO_ENDPOINTS, type PickContext, type Picker } from "./balancers/picker.ts";
import { RandomChoice } from "./balancers/random.ts";
import { ringBuilder } from "./balancers/ring-hash.ts";
import { RoundRobin } from "./balancers/round-robin.ts";
import { TwoChoices } from "./balancers/two-choices.ts";
import { PENALTY_MAX_MS, PENALTY_MS, PROBE_GRACE_MS } from "./defaults.ts";
import { UpstreamEndpoint } from "./endpoint.ts";
import { hasLabels, type LabelSource } from "./labels.ts";
import { planLocality } from "./locality-plan.ts";
import { beginProbe, eject, endInterval, endProbe, type EjectionReason, isSuccessRateOutlier, observe, restore, successRates } from "./outliers.ts";
import { isFailure, type Outcome } from "./outcome.ts";
import type { UpstreamSettings } from "./settings.ts";
import { groupShares } from "./shares.ts";

export interface UpstreamOptions {
  readonly settings: UpstreamSettings;
  readonly random: Random;
  readonly labels: LabelSource;
}

/** Who asks for which endpoints; as for connections. */
export interface RefreshRequest extends CandidateRequest {
  readonly endpoints: EndpointSet;
  /** Of endpoints that are known by a DNS name; null: whoever dials resolves it. */
  readonly names: NameSource | null;
}

/** Addresses of names, as far as they are known. */
export interface NameSource {
  /** Changes whenever an answer would be another one. */
  readonly version: number;
  addresses(hostname: string, nowMs: number): readonly IpAddress[];
}

export interface UpstreamPickRequest extends PickContext {
  /** Key of the endpoint of the request's session, or with `passthrough` that of its original destination; null for none. */
  readonly sticky: string | null;
  /** It may be repeated elsewhere should it fail: such requests are the ones that try ejected endpoints again. */
  readonly mayProbe: boolean;
}

export type PickReason =
  /** By the balancing of the group that the request fell to. */
  | "balanced"
  | "hashed"
  /** The endpoint of its session. */
  | "sticky"
  /** The one request that finds out whether an ejected endpoint is well again. */
  | "probe"
  /** From all endpoints of a group, since too few of them are usable. */
  | "panic"
  /** Those of its own group have been tried. */
  | "otherGroup"
  /** All have been tried: again. */
  | "triedBefore"
  /** All are ejected: one of them is a better answer than none. */
  | "lastResort"
  /** Without an endpoint: none can be dialled at all (`explainNoEndpoint`), */
  | "noEndpoints"
  /** none is left by health checks, */
  | "noneHealthy"
  /** or the original destination is not among them. */
  | "notThere";

/** Borrowed: valid until the next pick. */
export interface Pick {
  readonly endpoint: UpstreamEndpoint | null;
  readonly reason: PickReason;
}

export interface UpstreamCounts {
  readonly endpoints: number;
  /** May be picked in the ordinary way. */
  readonly usable: number;
  /** Ejected or probed. */
  readonly ejected: number;
  /** Failed their health check. */
  readonly unhealthy: number;
  readonly activeRequests: number;
}

/** What happened to one endpoint, for logs and metrics. */
export interface EndpointTransition {
  readonly endpoint: UpstreamEndpoint;
  readonly kind: "ejected" | "restored";
  readonly reason: EjectionReason | "probeSucceeded" | "healthCheck";
}

interface EndpointGroup {
  readonly name: string;
  readonly weight: number;
  readonly members: readonly UpstreamEndpoint[];
  readonly picker: Picker;
  usable: number;
  panicking: boolean;
}

interface MutablePick {
  endpoint: UpstreamEndpoint | null;
  reason: PickReason;
}

const NO_ADDRESSES: readonly IpAddress[] = Object.freeze([]);
const NO_NAMES: readonly string[] = Object.freeze([]);

/** Mixed into a key's hash where it chooses the group, so that groups do not cut the ring into pieces. */
const GROUP_SEED = 0x67726f75;

export class Upstream {
  readonly latency = new LatencyBook();
  readonly #random: Random;
  readonly #labels: LabelSource;
  #settings: UpstreamSettings;
  #isHashed = false;
  #isPassthrough = false;
  readonly #pick: MutablePick = { endpoint: null, reason: "noEndpoints" };
  readonly #byKey = new Map<string, UpstreamEndpoint>();
  #members: readonly UpstreamEndpoint[] = NO_ENDPOINTS;
  #hostnames: readonly string[] = NO_NAMES;
  #planKind: "levels" | "weights" = "levels";
  #groups: readonly EndpointGroup[] = [];
  #cumulative: readonly number[] = [];
  #lastResort: readonly UpstreamEndpoint[] = NO_ENDPOINTS;
  /** Ejected or probed. */
  #ejected: UpstreamEndpoint[] = [];
  /** When the first of them is due; Infinity without any. */
  #nextProbeMs = Infinity;
  /** Usability has changed since the groups were last arranged. */
  #isDirty = true;
  /** Settings are newer than the groups. */
  #isReconfigured = false;
  #builtOf: { readonly version: number; readonly namesVersion: number; readonly service: Service; readonly source: Workload; readonly endpoints: EndpointSet } | null = null;
  #intervalEndsMs = -Infinity;
  #transitions: EndpointTransition[] = [];

  constructor(options: UpstreamOptions) {
    this.#settings = options.settings;
    this.#random = options.random;
    this.#labels = options.labels;
    this.#noteBalancing();
  }

  get settings(): UpstreamSettings {
    return this.#settings;
  }

  get endpoints(): readonly UpstreamEndpoint[] {
    return this.#members;
  }

  /** DNS names that its endpoints are known by. */
  get hostnames(): readonly string[] {
    return this.#hostnames;
  }

  endpoint(key: string): UpstreamEndpoint | undefined {
    return this.#byKey.get(key);
  }

  // ---- cold: what the control plane says

  /**
   * New settings for the same service, port and subset. What is known of endpoints stays: latencies, counts, who is ejected. Takes
   * effect with the next `refresh`.
   */
  reconfigure(settings: UpstreamSettings): void {
    const hadCheck = this.#settings.healthCheck !== null;
    this.#settings = settings;
    this.#isReconfigured = true;
    this.#noteBalancing();
    if (hadCheck === (settings.healthCheck !== null)) return;
    for (const member of this.#members) member.health = settings.healthCheck === null ? "unchecked" : "unknown";
  }

  /** Labels of endpoints have changed. Takes effect with the next `refresh`. */
  relabelled(): void {
    this.#isReconfigured = true;
  }

  /**
   * Takes over the present endpoints; does nothing when service, source and endpoints are those of the last call. What was observed
   * of endpoints that stay is kept. Returns true when something changed.
   */
  refresh(request: RefreshRequest, nowMs: number): boolean {
    const { endpoints, service, source } = request;
    const built = this.#builtOf;
    const namesVersion = request.names?.version ?? 0;
    if (built !== null && !this.#isReconfigured && built.version === endpoints.version && built.namesVersion === namesVersion && built.endpoints === endpoints && built.service === service && built.source === source) return false;
    const left = new Set(this.#members);
    const members: UpstreamEndpoint[] = [];
    const hostnames = new Set<string>();
    for (const candidate of endpoints.endpoints) {
      const { workload } = candidate;
      if (this.#settings.subset !== null && !hasLabels(workload, this.#settings.subset.labels, this.#labels)) continue;
      const target = judgeEndpoint(candidate, request);
      if (typeof target === "string") continue;
      if (target.ip === null && workload.hostname !== "") hostnames.add(workload.hostname);
      for (const [key, at] of placesOf(target, request, nowMs)) {
        let member = this.#byKey.get(key);
        if (member === undefined) {
          member = new UpstreamEndpoint(key, at, built === null ? -Infinity : nowMs);
          if (this.#settings.healthCheck !== null) member.health = "unknown";
          this.#byKey.set(key, member);
        } else {
          member.target = at;
          member.weight = workload.capacity;
          left.delete(member);
        }
        member.near = source.locality.zone === "" || (workload.locality.zone === source.locality.zone && workload.locality.region === source.locality.region);
        members.push(member);
      }
    }
    for (const gone of left) this.#remove(gone);
    // The order of endpoints depends on the history of changes; a choice must not.
    members.sort((a, b) => (a.key < b.key ? -1 : 1));
    this.#members = members;
    this.#hostnames = hostnames.size === 0 ? NO_NAMES : [...hostnames];
    if (this.#isReconfigured) this.#groups = [];
    this.#isReconfigured = false;
    this.#plan(service, source);
    this.#builtOf = { version: endpoints.version, namesVersion, service, source, endpoints };
    this.#isDirty = true;
    return true;
  }

  /** The result of an active health check, once it is decided (health-check.ts). */
  setHealth(endpoint: UpstreamEndpoint, health: "healthy" | "unhealthy", nowMs: number): void {
    if (endpoint.gone || endpoint.health === health) return;
    if (endpoint.health === "unhealthy") endpoint.sinceMs = nowMs;
    endpoint.health = health;
    // It accepts connections again, which is what it was ejected for. Of its answers to requests a health check proves nothing.
    if (health === "healthy" && endpoint.outlier.kind !== "healthy" && endpoint.outlier.reason === "consecutiveConnectFailures") {
      restore(endpoint.outlier);
      this.#restored(endpoint, "healthCheck", nowMs);
    }
    this.#isDirty = true;
  }

  /** Ends an interval of outlier detection when it is over. Returns when to call again. */
  tick(nowMs: number): number {
    if (nowMs < this.#intervalEndsMs) return this.#intervalEndsMs;
    if (this.#intervalEndsMs !== -Infinity) this.#endInterval(nowMs);
    return (this.#intervalEndsMs = nowMs + this.#settings.outliers.intervalMs);
  }

  /** Work that was put off so that no request waits for it: hash tables. Returns true when there was some. */
  maintain(): boolean {
    if (this.#isDirty) this.#arrange();
    let worked = false;
    for (const { picker } of this.#groups) worked = picker.maintain() || worked;
    return worked;
  }

  /** Ejections and returns since the last call. */
  takeTransitions(): readonly EndpointTransition[] {
    const taken = this.#transitions;
    if (taken.length > 0) this.#transitions = [];
    return taken;
  }

  counts(): UpstreamCounts {
    if (this.#isDirty) this.#arrange();
    let usable = 0;
    let unhealthy = 0;
    let activeRequests = 0;
    for (const { health, active, usable: isUsable } of this.#members) {
      if (isUsable) usable++;
      if (health === "unhealthy") unhealthy++;
      activeRequests += active;
    }
    return { endpoints: this.#members.length, usable, ejected: this.#ejected.length, unhealthy, activeRequests };
  }

  // ---- hot: which endpoint

  /** Chooses an endpoint, or says why there is none. */
  pick(request: UpstreamPickRequest): Pick {
    if (this.#isDirty) this.#arrange();
    if (request.sticky !== null) {
      const own = this.#byKey.get(request.sticky);
      // A client that named the endpoint itself gets that one or none.
      if (own !== undefined && (own.usable || this.#isPassthrough) && !request.tried.includes(own)) return this.#picked(own, "sticky");
    }
    if (this.#isPassthrough) return this.#picked(null, "notThere");
    if (request.nowMs >= (request.mayProbe ? this.#nextProbeMs : this.#nextProbeMs + PROBE_GRACE_MS)) {
      const due = this.#dueProbe(request);
      if (due !== null) {
        beginProbe(due.outlier, request.nowMs);
        this.#noteNextProbe();
        return this.#picked(due, "probe");
      }
    }
    const cumulative = this.#cumulative;
    if (cumulative.length === 0) return this.#pickLastResort(request);
    const at = cumulative.length === 1 ? 0 : this.#groupIndex(request);
    const group = this.#groups[at]!;
    const endpoint = group.picker.pick(request);
    if (endpoint !== null) return this.#picked(endpoint, group.panicking ? "panic" : this.#isHashed ? "hashed" : "balanced");
    return this.#pickElsewhere(request, group);
  }

  /** Why nothing can be dialled, counted over all endpoints of the service; for messages. */
  explainNoEndpoint(request: RefreshRequest): NothingPicked {
    return whyNothing(request);
  }

  // ---- hot: what attempts report (attempt.ts)

  begin(endpoint: UpstreamEndpoint, nowMs: number): void {
    if (endpoint.awaiting === 0) endpoint.silentSinceMs = nowMs;
    endpoint.active++;
    endpoint.awaiting++;
  }

  /**
   * The head of an answer came, or the attempt failed without one.
   * @param latencyMs since the attempt began
   * @param retryAfterMs what the answer asked for; -1 for nothing
   */
  settle(endpoint: UpstreamEndpoint, settled: { readonly outcome: Outcome; readonly latencyMs: number; readonly retryAfterMs: number; readonly isProbe: boolean }, nowMs: number): void {
    endpoint.awaiting--;
    endpoint.silentSinceMs = nowMs;
    const { outcome, latencyMs, retryAfterMs } = settled;
    if (outcome === "abandoned") this.latency.observeSilence(endpoint, latencyMs, nowMs);
    else if (outcome !== "neutral") this.latency.observe(endpoint, latencyMs, isFailure(outcome) || outcome === "overloaded", nowMs);
    if (outcome === "overloaded" || retryAfterMs >= 0) {
      endpoint.avoidUntilMs = Math.max(endpoint.avoidUntilMs, nowMs + Math.min(retryAfterMs >= 0 ? retryAfterMs : PENALTY_MS, PENALTY_MAX_MS));
    }
    if (!endpoint.gone) this.#judge(endpoint, outcome, settled.isProbe, nowMs);
  }

  end(endpoint: UpstreamEndpoint): void {
    endpoint.active--;
  }

  // ---- choosing

  #picked(endpoint: UpstreamEndpoint | null, reason: PickReason): Pick {
    const pick = this.#pick;
    pick.endpoint = endpoint;
    pick.reason = reason;
    return pick;
  }

  #groupIndex(request: PickContext): number {
    const cumulative = this.#cumulative;
    // All to the first: the usual case with levels.
    if (cumulative[0] === 1) return 0;
    const at = this.#isHashed ? hashNumber(request.hash, GROUP_SEED) / 0x1_0000_0000 : this.#random.next();
    let i = 0;
    while (cumulative[i]! <= at) i++;
    return i;
  }

  #pickElsewhere(request: UpstreamPickRequest, not: EndpointGroup): Pick {
    for (const group of this.#groups) {
      if (group === not) continue;
      const endpoint = group.picker.pick(request);
      if (endpoint !== null) return this.#picked(endpoint, "otherGroup");
    }
    if (request.tried.length > 0) {
      const again = not.picker.pick({ nowMs: request.nowMs, hash: request.hash, tried: NO_ENDPOINTS });
      if (again !== null) return this.#picked(again, "triedBefore");
    }
    return this.#pickLastResort(request);
  }

  #pickLastResort({ tried }: PickContext): Pick {
    const fresh = this.#lastResort.filter((endpoint) => !tried.includes(endpoint));
    const from = fresh.length > 0 ? fresh : this.#lastResort;
    if (from.length > 0) return this.#picked(from[Math.floor(this.#random.next() * from.length)]!, "lastResort");
    return this.#picked(null, this.#members.length === 0 ? "noEndpoints" : "noneHealthy");
  }

  #dueProbe({ nowMs, tried }: PickContext): UpstreamEndpoint | null {
    for (const endpoint of this.#ejected) {
      if (nowMs >= endpoint.outlier.untilMs && endpoint.health !== "unhealthy" && !tried.includes(endpoint)) return endpoint;
    }
    return null;
  }

  // ---- ejecting

  #judge(endpoint: UpstreamEndpoint, outcome: Outcome, isProbe: boolean, nowMs: number): void {
    const { outlier } = endpoint;
    const settings = this.#settings.outliers;
    if (outlier.kind === "healthy") {
      const reason = observe(outlier, outcome, settings);
      if (reason !== null) this.#eject(endpoint, reason, nowMs);
      return;
    }
    // Outcomes of requests that were sent before the ejection say nothing new.
    if (outlier.kind !== "probing" || !isProbe) return;
    if (endProbe(outlier, outcome, nowMs, this.#random, settings)) this.#restored(endpoint, "probeSucceeded", nowMs);
    else this.#noteNextProbe();
  }

  /** Ejects unless too many are out already. */
  #eject(endpoint: UpstreamEndpoint, reason: EjectionReason, nowMs: number): void {
    const { ejectedShareMax } = this.#settings.outliers;
    const total = this.#members.length;
    if (this.#ejected.length + 1 > Math.floor(total * ejectedShareMax) || this.#ejected.length + 1 >= total) return;
    eject(endpoint.outlier, reason, nowMs, this.#random, this.#settings.outliers);
    this.#ejected.push(endpoint);
    this.#transitions.push({ endpoint, kind: "ejected", reason });
    this.#noteNextProbe();
    this.#isDirty = true;
  }

  #restored(endpoint: UpstreamEndpoint, reason: "probeSucceeded" | "healthCheck", nowMs: number): void {
    endpoint.sinceMs = nowMs;
    this.#ejected = this.#ejected.filter((other) => other !== endpoint);
    this.#transitions.push({ endpoint, kind: "restored", reason });
    this.#noteNextProbe();
    this.#isDirty = true;
  }

  #remove(endpoint: UpstreamEndpoint): void {
    this.#byKey.delete(endpoint.key);
    endpoint.gone = true;
    endpoint.usable = false;
    if (endpoint.outlier.kind === "healthy") return;
    this.#ejected = this.#ejected.filter((other) => other !== endpoint);
    this.#noteNextProbe();
  }

  #noteNextProbe(): void {
    let next = Infinity;
    for (const { outlier } of this.#ejected) if (outlier.untilMs < next) next = outlier.untilMs;
    this.#nextProbeMs = next;
  }

  #endInterval(nowMs: number): void {
    const { outliers } = this.#settings;
    if (outliers.successRate !== null) {
      const rates = successRates(this.#members.map(({ outlier }) => outlier), outliers);
      for (const member of this.#members) if (isSuccessRateOutlier(member.outlier, rates, outliers)) this.#eject(member, "successRate", nowMs);
    }
    for (const { outlier } of this.#members) endInterval(outlier);
  }

  // ---- arranging

  #noteBalancing(): void {
    const { kind } = this.#settings.balancing;
    this.#isHashed = kind === "ringHash" || kind === "maglev";
    this.#isPassthrough = kind === "passthrough";
  }

  #plan(service: Service, source: Workload): void {
    const members = this.#members.map((member) => ({ workload: member.target.workload, member }));
    const plan = planLocality(members, { locality: this.#settings.locality, service, source, labels: this.#labels });
    const former = new Map(this.#groups.map((group) => [group.name, group]));
    this.#planKind = plan.kind;
    this.#groups = plan.groups.map(({ name, weight, members: own }) => ({
      name, weight, members: own.map(({ member }) => member), picker: former.get(name)?.picker ?? this.#newPicker(plan.preferZone), usable: 0, panicking: false,
    }));
  }

  /** Sorts members into those that may be picked and those that may not, and traffic onto groups. */
  #arrange(): void {
    this.#isDirty = false;
    const anyProven = this.#members.some(({ health }) => health === "healthy");
    for (const member of this.#members) {
      // One whose first check is still out waits while there are others that passed theirs.
      const isWell = member.health === "unchecked" || member.health === "healthy" || (member.health === "unknown" && !anyProven);
      member.usable = isWell && member.outlier.kind === "healthy";
    }
    for (const group of this.#groups) group.usable = group.members.reduce((count, { usable }) => count + Number(usable), 0);
    const shares = groupShares(this.#planKind, this.#groups.map(({ members, usable, weight }) => ({ members: members.length, usable, weight })), this.#settings.outliers.panicThreshold);
    this.#cumulative = shares.cumulative;
    this.#groups.forEach((group, i) => {
      group.panicking = shares.panicking[i]!;
      if (group.panicking) for (const member of group.members) member.usable = true;
      const all = group.panicking || group.usable === group.members.length;
      group.picker.update(all ? group.members : group.members.filter(({ usable }) => usable), group.members);
    });
    this.#lastResort = this.#groups.flatMap(({ members }) => members.filter(({ usable, health }) => !usable && health !== "unhealthy"));
  }

  #newPicker(preferZone: boolean): Picker {
    const { balancing, slowStartMs } = this.#settings;
    const random = this.#random;
    switch (balancing.kind) {
      case "peakEwma": return new TwoChoices({ random, latency: this.latency, slowStartMs, preferZone });
      case "leastRequest": return new TwoChoices({ random, latency: null, slowStartMs, preferZone: false });
      case "roundRobin": return new RoundRobin({ random, slowStartMs });
      // Passthrough picks by the original destination; its groups are never asked.
      case "random":
      case "passthrough": return new RandomChoice({ random, slowStartMs });
      case "ringHash": return new ConsistentHash(ringBuilder(balancing.ringSizeMin));
      case "maglev": return new ConsistentHash(maglevBuilder(balancing.tableSize));
      default: return unreachable(balancing);
    }
  }
}

/** Where an endpoint is: one place, or of a name all that it stands for. */
function placesOf(target: Picked, { names, service, family }: RefreshRequest, nowMs: number): readonly (readonly [key: string, at: Picked])[] {
  const { workload } = target;
  const found = target.ip === null && names !== null && workload.hostname !== "" ? names.addresses(workload.hostname, nowMs) : NO_ADDRESSES;
  // Both families are not used side by side: where one has no way out, half of all requests would fail.
  const first = chooseAddress(found, service.ipFamilies, family);
  if (first === null) return [[workload.uid, target]];
  return found.filter((ip) => isIpv6(ip) === isIpv6(first)).map((ip) => [`${workload.uid}@${ip}`, { ...target, ip }]);
}
