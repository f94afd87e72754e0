// Weighted round robin, smooth: each endpoint is due again 1 / weight after its last turn, and the one due first is next (earliest
// deadline first, a binary heap). Starts at random phases, so that many waypoints do not begin with the same endpoint.

import type { Random } from "../../../core/ports.ts";
import type { UpstreamEndpoint } from "../endpoint.ts";
import { NO_ENDPOINTS, type PickContext, type Picker } from "./picker.ts";
import { slowStartShare } from "./slow-start.ts";

export class RoundRobin implements Picker {
  readonly #random: Random;
  readonly #slowStartMs: number;
  #endpoints: readonly UpstreamEndpoint[] = NO_ENDPOINTS;
  /** When endpoint i is due, in turns of an endpoint of weight 1. */
  #due = new Float64Array(0);
  /** Indexes of endpoints; the one due first is at 0. */
  #heap = new Int32Array(0);

  constructor(options: { readonly random: Random; readonly slowStartMs: number }) {
    this.#random = options.random;
    this.#slowStartMs = options.slowStartMs;
  }

  update(usable: readonly UpstreamEndpoint[]): void {
    const due = new Float64Array(usable.length);
    const before = new Map(this.#endpoints.map((endpoint, i) => [endpoint, this.#due[i]!]));
    const now = this.#heap.length === 0 ? 0 : this.#due[this.#heap[0]!]!;
    // Who was there keeps its turn; who is new gets one at random within its own period.
    usable.forEach((endpoint, i) => {
      due[i] = before.get(endpoint) ?? now + this.#random.next() / endpoint.weight;
    });
    this.#endpoints = usable;
    this.#due = due;
    this.#heap = Int32Array.from(usable.keys()).sort((a, b) => due[a]! - due[b]!);
  }

  pick({ nowMs, tried }: PickContext): UpstreamEndpoint | null {
    const heap = this.#heap;
    if (heap.length === 0) return null;
    if (tried.length === 0) return this.#advance(0, nowMs);
    // Endpoints that were tried lose no turn: they are looked past, not moved.
    let best = -1;
    for (let i = 0; i < heap.length; i++) {
      const at = heap[i]!;
      if (!tried.includes(this.#endpoints[at]!) && (best < 0 || this.#due[at]! < this.#due[heap[best]!]!)) best = i;
    }
    if (best < 0) return null;
    return this.#advance(best, nowMs);
  }

  maintain(): boolean {
    return false;
  }

  /** Takes the endpoint at a place of the heap, and lets it be due again a period later. */
  #advance(place: number, nowMs: number): UpstreamEndpoint {
    const at = this.#heap[place]!;
    const endpoint = this.#endpoints[at]!;
    const weight = this.#slowStartMs === 0 ? endpoint.weight : endpoint.weight * slowStartShare(endpoint, nowMs, this.#slowStartMs);
    this.#due[at] = this.#due[at]! + 1 / weight;
    this.#sink(place);
    return endpoint;
  }

  #sink(start: number): void {
    const heap = this.#heap;
    const due = this.#due;
    const moved = heap[start]!;
    let place = start;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && due[heap[child + 1]!]! < due[heap[child]!]!) child++;
      if (due[heap[child]!]! >= due[moved]!) break;
      heap[place] = heap[child]!;
      place = child;
    }
    heap[place] = moved;
  }
}
