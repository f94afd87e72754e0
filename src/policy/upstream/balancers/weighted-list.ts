// Random choice by weight in constant time (Vose's alias method): one draw chooses a column, its fraction chooses between the
// column's own endpoint and its alias. Equal weights need no table.

import type { Random } from "../../../core/ports.ts";
import { SAMPLES_MAX } from "../defaults.ts";
import type { UpstreamEndpoint } from "../endpoint.ts";
import { NO_ENDPOINTS } from "./picker.ts";

export class WeightedList {
  #endpoints: readonly UpstreamEndpoint[] = NO_ENDPOINTS;
  /** Share of column i that is its own; null when all weigh the same. */
  #own: Float64Array | null = null;
  #alias: Int32Array | null = null;

  get size(): number {
    return this.#endpoints.length;
  }

  fill(endpoints: readonly UpstreamEndpoint[]): void {
    this.#endpoints = endpoints;
    const weight = endpoints[0]?.weight;
    if (endpoints.every((endpoint) => endpoint.weight === weight)) this.#own = this.#alias = null;
    else this.#buildAliases(endpoints);
  }

  /** By weight, none of `tried`; null when there is no other. */
  sample(random: Random, tried: readonly UpstreamEndpoint[]): UpstreamEndpoint | null {
    const endpoints = this.#endpoints;
    if (endpoints.length === 0) return null;
    if (tried.length === 0) return endpoints[this.#index(random)]!;
    for (let i = 0; i < SAMPLES_MAX; i++) {
      const endpoint = endpoints[this.#index(random)]!;
      if (!tried.includes(endpoint)) return endpoint;
    }
    return this.#scan(random, tried, null);
  }

  /** As `sample`, and not `first` either. */
  sampleOther(random: Random, first: UpstreamEndpoint, tried: readonly UpstreamEndpoint[]): UpstreamEndpoint | null {
    const endpoints = this.#endpoints;
    if (endpoints.length === 2 && tried.length === 0) return endpoints[0] === first ? endpoints[1]! : endpoints[0]!;
    for (let i = 0; i < SAMPLES_MAX; i++) {
      const endpoint = endpoints[this.#index(random)]!;
      if (endpoint !== first && (tried.length === 0 || !tried.includes(endpoint))) return endpoint;
    }
    return this.#scan(random, tried, first);
  }

  /** From anywhere on, so that none is preferred by its place. */
  #scan(random: Random, tried: readonly UpstreamEndpoint[], first: UpstreamEndpoint | null): UpstreamEndpoint | null {
    const endpoints = this.#endpoints;
    const start = Math.floor(random.next() * endpoints.length);
    for (let i = 0; i < endpoints.length; i++) {
      const endpoint = endpoints[(start + i) % endpoints.length]!;
      if (endpoint !== first && !tried.includes(endpoint)) return endpoint;
    }
    return null;
  }

  #index(random: Random): number {
    const at = random.next() * this.#endpoints.length;
    const column = Math.floor(at);
    const own = this.#own;
    return own === null || at - column < own[column]! ? column : this.#alias![column]!;
  }

  #buildAliases(endpoints: readonly UpstreamEndpoint[]): void {
    const count = endpoints.length;
    const own = new Float64Array(count);
    const alias = new Int32Array(count);
    let sum = 0;
    for (const endpoint of endpoints) sum += endpoint.weight;
    const small: number[] = [];
    const large: number[] = [];
    endpoints.forEach((endpoint, i) => {
      own[i] = (endpoint.weight * count) / sum;
      (own[i]! < 1 ? small : large).push(i);
    });
    while (small.length > 0 && large.length > 0) {
      const less = small.pop()!;
      const more = large[large.length - 1]!;
      alias[less] = more;
      own[more] = own[more]! + own[less]! - 1;
      if (own[more]! < 1) small.push(large.pop()!);
    }
    // What rounding left over is whole.
    for (const i of small) own[i] = 1;
    for (const i of large) own[i] = 1;
    this.#own = own;
    this.#alias = alias;
  }
}
