// The buckets of one rate limit by key, in places of one array that grows up to a bound. Past it a new key takes the place of one that
// loses little by being forgotten. Every step costs the same however many keys there are, also under a flood of new ones.

import { RATE_LIMIT_EVICTION_LOOKS, RATE_LIMIT_KEYS_MAX } from "../defaults.ts";

const PLACES_INITIAL = 64;

export class Buckets {
  readonly #placeOf = new Map<string, number>();
  readonly #keys: string[] = [];
  /** By place: when the bucket is full again ("theoretical arrival time"); in the past for a full one. */
  #fullAtMs = new Float64Array(PLACES_INITIAL);
  /** Where the search for one to forget goes on. */
  #hand = 0;

  get count(): number {
    return this.#keys.length;
  }

  /** Place of the bucket of a key: a full one for a key that is new. */
  placeOf(key: string): number {
    const found = this.#placeOf.get(key);
    if (found !== undefined) return found;
    const place = this.#keys.length < RATE_LIMIT_KEYS_MAX ? this.#keys.length : this.#forgetOne();
    if (place === this.#fullAtMs.length) this.#grow();
    this.#keys[place] = key;
    this.#fullAtMs[place] = -Infinity;
    this.#placeOf.set(key, place);
    return place;
  }

  fullAtMs(place: number): number {
    return this.#fullAtMs[place]!;
  }

  setFullAtMs(place: number, fullAtMs: number): void {
    this.#fullAtMs[place] = fullAtMs;
  }

  /** Of the next few places the one whose bucket is nearest to full: its owner gains the fewest tokens. */
  #forgetOne(): number {
    const count = this.#keys.length;
    let least = this.#hand;
    for (let i = 1; i < RATE_LIMIT_EVICTION_LOOKS; i++) {
      const place = (this.#hand + i) % count;
      if (this.#fullAtMs[place]! < this.#fullAtMs[least]!) least = place;
    }
    this.#hand = (this.#hand + RATE_LIMIT_EVICTION_LOOKS) % count;
    this.#placeOf.delete(this.#keys[least]!);
    return least;
  }

  #grow(): void {
    const larger = new Float64Array(this.#fullAtMs.length * 2);
    larger.set(this.#fullAtMs);
    this.#fullAtMs = larger;
  }
}
