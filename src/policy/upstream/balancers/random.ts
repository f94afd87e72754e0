// Random choice by weight.

import type { Random } from "../../../core/ports.ts";
import { SAMPLES_MAX } from "../defaults.ts";
import type { UpstreamEndpoint } from "../endpoint.ts";
import type { PickContext, Picker } from "./picker.ts";
import { slowStartShare } from "./slow-start.ts";
import { WeightedList } from "./weighted-list.ts";

export class RandomChoice implements Picker {
  readonly #random: Random;
  readonly #slowStartMs: number;
  readonly #list = new WeightedList();

  constructor(options: { readonly random: Random; readonly slowStartMs: number }) {
    this.#random = options.random;
    this.#slowStartMs = options.slowStartMs;
  }

  update(usable: readonly UpstreamEndpoint[]): void {
    this.#list.fill(usable);
  }

  pick({ nowMs, tried }: PickContext): UpstreamEndpoint | null {
    let chosen = this.#list.sample(this.#random, tried);
    if (this.#slowStartMs === 0) return chosen;
    // One that is starting is kept with the share it has reached; the table keeps whole weights.
    for (let i = 0; i < SAMPLES_MAX && chosen !== null; i++) {
      const share = slowStartShare(chosen, nowMs, this.#slowStartMs);
      if (share === 1 || this.#random.next() < share) return chosen;
      chosen = this.#list.sample(this.#random, tried);
    }
    return chosen;
  }

  maintain(): boolean {
    return false;
  }
}
