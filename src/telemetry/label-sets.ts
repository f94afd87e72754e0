// Counters by label set, bounded: what does not fit goes to one overflow set and is counted, and a set in disuse is dropped. Shared by the
// metrics of connections and of requests, which differ in what they count.

import type { Workload } from "../mesh/records.ts";

/** Disuse is measured in steps of this. */
const GENERATION_MS = 60_000;
/** A label set in disuse is dropped when it was not looked up for this long. */
export const LABEL_SET_IDLE_MS = 3_600_000;

/** What all label sets have, whatever they count. */
export interface LabelSet {
  readonly key: string;
  /** Users now: a set with any is not dropped. */
  readonly open: number;
  /** Minute of the last look-up. */
  generation: number;
  /** It is shown no more; whoever kept it must look up again. */
  evicted: boolean;
}

export interface LabelSetsOptions<C extends LabelSet> {
  readonly max: number;
  readonly idleMs: number;
  readonly make: (key: string) => C;
  /** A look-up was answered with the overflow set. */
  readonly onOverflow: () => void;
}

export class LabelSets<C extends LabelSet> {
  readonly #options: LabelSetsOptions<C>;
  readonly #idleGenerations: number;
  readonly #sets = new Map<string, C>();
  #generation = 0;

  constructor(options: LabelSetsOptions<C>) {
    this.#options = options;
    this.#idleGenerations = Math.ceil(options.idleMs / GENERATION_MS);
  }

  get size(): number {
    return this.#sets.size;
  }

  values(): IterableIterator<C> {
    return this.#sets.values();
  }

  /** @param overflowKey of the set that is given when there is no room for a new one. */
  get(key: string, overflowKey: string): C {
    let set = this.#sets.get(key);
    if (set === undefined && this.#sets.size >= this.#options.max) {
      this.#options.onOverflow();
      key = overflowKey;
      set = this.#sets.get(key);
    }
    if (set === undefined) this.#sets.set(key, (set = this.#options.make(key)));
    set.generation = this.#generation;
    return set;
  }

  /** A set that the caller kept is used again; false when it is gone, and has to be looked up. */
  touch(set: C): boolean {
    if (set.evicted) return false;
    set.generation = this.#generation;
    return true;
  }

  /** Call about once a minute or more often. Returns how many sets were dropped. */
  tick(nowMs: number): number {
    const generation = Math.floor(nowMs / GENERATION_MS);
    if (generation === this.#generation) return 0;
    this.#generation = generation;
    let evicted = 0;
    for (const [key, set] of this.#sets) {
      if (set.open > 0) {
        set.generation = generation;
      } else if (generation - set.generation > this.#idleGenerations) {
        set.evicted = true;
        this.#sets.delete(key);
        evicted++;
      }
    }
    return evicted;
  }
}

/** Stands for an end that is not known. */
const NOBODY: object = Object.freeze({});

/** One value for each pair of workload records. Records are immutable, so the same two objects always have the same labels. */
export class ByPair<V> {
  readonly #bySource = new WeakMap<object, WeakMap<object, V>>();
  readonly #make: () => V;

  constructor(make: () => V) {
    this.#make = make;
  }

  of(source: Workload | null, destination: Workload | null): V {
    let byDestination = this.#bySource.get(source ?? NOBODY);
    if (byDestination === undefined) this.#bySource.set(source ?? NOBODY, (byDestination = new WeakMap()));
    let value = byDestination.get(destination ?? NOBODY);
    if (value === undefined) byDestination.set(destination ?? NOBODY, (value = this.#make()));
    return value;
  }
}

/** Identities of unknown sources come from outside: one pair may not gather them without end. */
export const VARIANTS_MAX = 64;
