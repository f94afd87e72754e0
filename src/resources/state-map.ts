// A map of many entries that is handed out state by state: what was handed out stays as it is, and the next state shares with it all but the
// shards in which something changed. A copy of the whole for each change of a pod was most of what the control plane threw away.

import { hashText } from "../mesh/packed/hash-index.ts";

/** Of ten thousand entries some forty in each; a change copies those. A power of two. */
const SHARDS = 256;

export class StateMap<K extends string, V> implements ReadonlyMap<K, V> {
  readonly #shards: readonly ReadonlyMap<K, V>[];
  readonly size: number;

  private constructor(shards: readonly ReadonlyMap<K, V>[]) {
    this.#shards = shards;
    this.size = shards.reduce((sum, shard) => sum + shard.size, 0);
  }

  static empty<K extends string, V>(): StateMap<K, V> {
    const nothing: ReadonlyMap<K, V> = new Map();
    return new StateMap(Array.from({ length: SHARDS }, () => nothing));
  }

  /** The next state; what is removed first may be there again. This one where nothing is to change. */
  with(upserted: Iterable<readonly [K, V]>, removed: Iterable<K>): StateMap<K, V> {
    const copies = new Map<number, Map<K, V>>();
    const shardOf = (key: K): Map<K, V> => {
      const index = indexOf(key);
      let copy = copies.get(index);
      if (copy === undefined) copies.set(index, (copy = new Map(this.#shards[index]!)));
      return copy;
    };
    for (const key of removed) shardOf(key).delete(key);
    for (const [key, value] of upserted) shardOf(key).set(key, value);
    return copies.size === 0 ? this : new StateMap(this.#shards.map((shard, index) => copies.get(index) ?? shard));
  }

  get(key: K): V | undefined {
    return this.#shards[indexOf(key)]!.get(key);
  }

  has(key: K): boolean {
    return this.#shards[indexOf(key)]!.has(key);
  }

  forEach(call: (value: V, key: K, map: ReadonlyMap<K, V>) => void): void {
    for (const [key, value] of this) call(value, key, this);
  }

  *entries(): MapIterator<[K, V]> {
    for (const shard of this.#shards) yield* shard.entries();
  }

  *keys(): MapIterator<K> {
    for (const shard of this.#shards) yield* shard.keys();
  }

  *values(): MapIterator<V> {
    for (const shard of this.#shards) yield* shard.values();
  }

  [Symbol.iterator](): MapIterator<[K, V]> {
    return this.entries();
  }
}

const indexOf = (key: string): number => hashText(key) & (SHARDS - 1);
