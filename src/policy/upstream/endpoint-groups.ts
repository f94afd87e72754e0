// The endpoints of an upstream in the groups that traffic is spread over: by place (locality-plan.ts), each with its share (shares.ts) and
// its own balancing. `plan` when endpoints change, `arrange` when their usability does, `pick` for every request.

import type { Random } from "../../core/ports.ts";
import { unreachable } from "../../core/result.ts";
import type { Service, Workload } from "../../mesh/records.ts";
import { ConsistentHash } from "./balancers/hash-table.ts";
import { hashNumber } from "./balancers/hash.ts";
import type { LatencyBook } from "./balancers/latency.ts";
import { maglevBuilder } from "./balancers/maglev.ts";
import { NO_ENDPOINTS, type PickContext, type Picker } from "./balancers/picker.ts";
import { RandomChoice } from "./balancers/random.ts";
import { ringBuilder } from "./balancers/ring-hash.ts";
import { RoundRobin } from "./balancers/round-robin.ts";
import { TwoChoices } from "./balancers/two-choices.ts";
import type { UpstreamEndpoint } from "./endpoint.ts";
import type { LabelSource } from "./labels.ts";
import { planLocality } from "./locality-plan.ts";
import type { LentPick, Pick } from "./pick.ts";
import type { UpstreamSettings } from "./settings.ts";
import { groupShares } from "./shares.ts";

export interface EndpointGroupsOptions {
  readonly random: Random;
  readonly labels: LabelSource;
  readonly latency: LatencyBook;
  readonly pick: LentPick;
}

/** Between whom. */
export interface GroupPlace {
  readonly service: Service;
  readonly source: Workload;
}

interface EndpointGroup {
  readonly name: string;
  readonly weight: number;
  readonly members: readonly UpstreamEndpoint[];
  readonly picker: Picker;
  usable: number;
  panicking: boolean;
}

/** Mixed into a key's hash where it chooses the group, so that groups do not cut the ring into pieces. */
const GROUP_SEED = 0x67726f75;

export class EndpointGroups {
  readonly #options: EndpointGroupsOptions;
  #isHashed = false;
  #isEmpty = true;
  #planKind: "levels" | "weights" = "levels";
  #groups: readonly EndpointGroup[] = [];
  #cumulative: readonly number[] = [];
  #lastResort: readonly UpstreamEndpoint[] = NO_ENDPOINTS;

  constructor(options: EndpointGroupsOptions) {
    this.#options = options;
  }

  /** Sorts endpoints into groups. @param anew with fresh balancers; else a group that stays keeps its own. */
  plan(endpoints: readonly UpstreamEndpoint[], settings: UpstreamSettings, { service, source }: GroupPlace, anew: boolean): void {
    this.#isHashed = settings.balancing.kind === "ringHash" || settings.balancing.kind === "maglev";
    this.#isEmpty = endpoints.length === 0;
    const members = endpoints.map((member) => ({ workload: member.target.workload, member }));
    const plan = planLocality(members, { locality: settings.locality, service, source, labels: this.#options.labels });
    const former = new Map(anew ? [] : this.#groups.map((group) => [group.name, group]));
    this.#planKind = plan.kind;
    this.#groups = plan.groups.map(({ name, weight, members: own }) => ({
      name, weight, members: own.map(({ member }) => member), picker: former.get(name)?.picker ?? this.#newPicker(settings, plan.preferZone), usable: 0, panicking: false,
    }));
  }

  /** Sorts endpoints into those that may be picked and those that may not, and traffic onto groups. */
  arrange(endpoints: readonly UpstreamEndpoint[], panicThreshold: number): void {
    const anyProven = endpoints.some(({ health }) => health === "healthy");
    for (const endpoint of endpoints) {
      // One whose first check is still out waits while there are others that passed theirs.
      const isWell = endpoint.health === "unchecked" || endpoint.health === "healthy" || (endpoint.health === "unknown" && !anyProven);
      endpoint.usable = isWell && endpoint.outlier.kind === "healthy";
    }
    for (const group of this.#groups) group.usable = group.members.reduce((count, { usable }) => count + Number(usable), 0);
    const shares = groupShares(this.#planKind, this.#groups.map(({ members, usable, weight }) => ({ members: members.length, usable, weight })), panicThreshold);
    this.#cumulative = shares.cumulative;
    this.#groups.forEach((group, i) => {
      group.panicking = shares.panicking[i]!;
      if (group.panicking) for (const member of group.members) member.usable = true;
      const all = group.panicking || group.usable === group.members.length;
      group.picker.update(all ? group.members : group.members.filter(({ usable }) => usable), group.members);
    });
    this.#lastResort = this.#groups.flatMap(({ members }) => members.filter(({ usable, health }) => !usable && health !== "unhealthy"));
  }

  /** Work that was put off so that no request waits for it: hash tables. Returns true when there was some. */
  maintain(): boolean {
    let worked = false;
    for (const { picker } of this.#groups) worked = picker.maintain() || worked;
    return worked;
  }

  pick(request: PickContext): Pick {
    const cumulative = this.#cumulative;
    if (cumulative.length === 0) return this.#pickLastResort(request);
    const group = this.#groups[cumulative.length === 1 ? 0 : this.#groupIndex(request)]!;
    const endpoint = group.picker.pick(request);
    if (endpoint !== null) return this.#options.pick.of(endpoint, group.panicking ? "panic" : this.#isHashed ? "hashed" : "balanced");
    return this.#pickElsewhere(request, group);
  }

  #groupIndex(request: PickContext): number {
    const cumulative = this.#cumulative;
    // All to the first: the usual case with levels.
    if (cumulative[0] === 1) return 0;
    const at = this.#isHashed ? hashNumber(request.hash, GROUP_SEED) / 0x1_0000_0000 : this.#options.random.next();
    let i = 0;
    while (cumulative[i]! <= at) i++;
    return i;
  }

  #pickElsewhere(request: PickContext, not: EndpointGroup): Pick {
    const { pick } = this.#options;
    for (const group of this.#groups) {
      if (group === not) continue;
      const endpoint = group.picker.pick(request);
      if (endpoint !== null) return pick.of(endpoint, "otherGroup");
    }
    if (request.tried.length > 0) {
      const again = not.picker.pick({ nowMs: request.nowMs, hash: request.hash, tried: NO_ENDPOINTS });
      if (again !== null) return pick.of(again, "triedBefore");
    }
    return this.#pickLastResort(request);
  }

  #pickLastResort({ tried }: PickContext): Pick {
    const { pick, random } = this.#options;
    const fresh = this.#lastResort.filter((endpoint) => !tried.includes(endpoint));
    const from = fresh.length > 0 ? fresh : this.#lastResort;
    if (from.length > 0) return pick.of(from[Math.floor(random.next() * from.length)]!, "lastResort");
    return pick.of(null, this.#isEmpty ? "noEndpoints" : "noneHealthy");
  }

  #newPicker({ balancing, slowStartMs }: UpstreamSettings, preferZone: boolean): Picker {
    const { random, latency } = this.#options;
    switch (balancing.kind) {
      case "peakEwma": return new TwoChoices({ random, latency, slowStartMs, preferZone });
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
