// One map of the L7 configuration, which changes key by key and is handed out whole: what was handed out stays as it is, and costs a copy
// only when something in it is another.

export interface TakenTable<K, V> {
  readonly map: ReadonlyMap<K, V>;
  /** What of it is news since it was handed out before. */
  readonly upserted: readonly V[];
  readonly removed: readonly K[];
}

export class L7Table<K extends string, V> {
  readonly #equal: (a: V, b: V) => boolean;
  #handedOut: ReadonlyMap<K, V> = new Map();
  /** What is another now; null for what is gone. */
  readonly #pending = new Map<K, V | null>();

  /** @param equal of which nobody need be told. */
  constructor(equal: (a: V, b: V) => boolean) {
    this.#equal = equal;
  }

  /** As it is now, handed out or not. */
  get(key: K): V | undefined {
    const pending = this.#pending.get(key);
    return pending === undefined ? this.#handedOut.get(key) : (pending ?? undefined);
  }

  /** @param value null takes it away. */
  set(key: K, value: V | null): void {
    if ((this.#handedOut.get(key) ?? null) === value) this.#pending.delete(key);
    else this.#pending.set(key, value);
  }

  /** Names of what is there now. */
  *keys(): Iterable<K> {
    for (const key of this.#handedOut.keys()) if (this.#pending.get(key) !== null) yield key;
    for (const [key, value] of this.#pending) if (value !== null && !this.#handedOut.has(key)) yield key;
  }

  take(): TakenTable<K, V> {
    const upserted: V[] = [];
    const removed: K[] = [];
    if (this.#pending.size === 0) return { map: this.#handedOut, upserted, removed };
    const next = new Map(this.#handedOut);
    for (const [key, value] of this.#pending) {
      const before = next.get(key);
      if (value === null) {
        next.delete(key);
        removed.push(key);
      } else {
        next.set(key, value);
        if (before === undefined || !this.#equal(before, value)) upserted.push(value);
      }
    }
    this.#pending.clear();
    this.#handedOut = next;
    return { map: next, upserted, removed };
  }
}
