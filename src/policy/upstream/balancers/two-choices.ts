// Two choices at random, the better one wins: peak-EWMA (expected latency times requests under way) and least request (requests
// under way alone). With a preference for the client's zone, an endpoint elsewhere must be better by a factor.

import type { Random } from "../../../core/ports.ts";
import { PENALTY_FACTOR, ZONE_PREFERENCE_FACTOR } from "../defaults.ts";
import type { UpstreamEndpoint } from "../endpoint.ts";
import type { LatencyBook } from "./latency.ts";
import type { PickContext, Picker } from "./picker.ts";
import { slowStartShare } from "./slow-start.ts";
import { WeightedList } from "./weighted-list.ts";

export interface TwoChoicesOptions {
  readonly random: Random;
  /** Null: requests under way alone count. */
  readonly latency: LatencyBook | null;
  readonly slowStartMs: number;
  readonly preferZone: boolean;
}

export class TwoChoices implements Picker {
  readonly #random: Random;
  readonly #latency: LatencyBook | null;
  readonly #slowStartMs: number;
  readonly #preferZone: boolean;
  /** All, or with a preference those of the client's zone. */
  readonly #near = new WeightedList();
  readonly #far = new WeightedList();

  constructor(options: TwoChoicesOptions) {
    this.#random = options.random;
    this.#latency = options.latency;
    this.#slowStartMs = options.slowStartMs;
    this.#preferZone = options.preferZone;
  }

  update(usable: readonly UpstreamEndpoint[]): void {
    const near = this.#preferZone ? usable.filter((endpoint) => endpoint.near) : usable;
    const split = near.length > 0 && near.length < usable.length;
    this.#near.fill(split ? near : usable);
    this.#far.fill(split ? usable.filter((endpoint) => !endpoint.near) : []);
  }

  pick(context: PickContext): UpstreamEndpoint | null {
    const near = this.#better(this.#near, context);
    if (this.#far.size === 0) return near;
    if (near === null) return this.#better(this.#far, context);
    const far = this.#far.sample(this.#random, context.tried);
    return far !== null && this.#cost(far, context.nowMs) * ZONE_PREFERENCE_FACTOR < this.#cost(near, context.nowMs) ? far : near;
  }

  maintain(): boolean {
    return false;
  }

  #better(list: WeightedList, { nowMs, tried }: PickContext): UpstreamEndpoint | null {
    const first = list.sample(this.#random, tried);
    if (first === null || list.size === 1) return first;
    const second = list.sampleOther(this.#random, first, tried);
    return second === null || this.#cost(first, nowMs) <= this.#cost(second, nowMs) ? first : second;
  }

  #cost(endpoint: UpstreamEndpoint, nowMs: number): number {
    let cost: number;
    if (this.#latency !== null) cost = this.#latency.cost(endpoint, nowMs);
    else {
      cost = (endpoint.active + 1) / endpoint.weight;
      if (nowMs < endpoint.avoidUntilMs) cost *= PENALTY_FACTOR;
    }
    return this.#slowStartMs === 0 ? cost : cost / slowStartShare(endpoint, nowMs, this.#slowStartMs);
  }
}
