// Things that several name at once: each is there while somebody names it.

export class Counted<V> {
  readonly #counts = new Map<string, { readonly value: V; count: number }>();
  /** Moves when something comes that was not there, or goes. */
  changes = 0;

  add(named: Iterable<readonly [key: string, value: V]>): void {
    for (const [key, value] of named) {
      const known = this.#counts.get(key);
      if (known !== undefined) known.count++;
      else {
        this.#counts.set(key, { value, count: 1 });
        this.changes++;
      }
    }
  }

  /** As many times as it was added. */
  remove(keys: Iterable<string>): void {
    for (const key of keys) {
      const known = this.#counts.get(key);
      if (known === undefined || --known.count > 0) continue;
      this.#counts.delete(key);
      this.changes++;
    }
  }

  get size(): number {
    return this.#counts.size;
  }

  *values(): IterableIterator<V> {
    for (const { value } of this.#counts.values()) yield value;
  }
}
