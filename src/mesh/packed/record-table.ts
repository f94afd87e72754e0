// Records by name, kept packed: of a large mesh a node ever uses few. One that is asked for is unpacked, and remembered for a while, so that
// whoever asks again gets the same object. Reads as a Map.

import { PackReader, PackWriter } from "./bytes.ts";
import type { Codec } from "./codec.ts";
import { HashIndex, hashText } from "./hash-index.ts";
import { PackedRows } from "./packed-rows.ts";

/** Unpacked records that are remembered, some KiB each at most: more than one node's connections go to at a time. */
const REMEMBERED_MAX = 1_024;

/** Of all tables: a record is unpacked in one go. */
const reader = new PackReader();
const writer = new PackWriter();

export class RecordTable<K extends string, T> implements ReadonlyMap<K, T> {
  readonly #codec: Codec<T>;
  readonly #keyOf: (record: T) => K;
  readonly #rows = new PackedRows();
  readonly #index = new HashIndex();
  /** By row, oldest first. */
  readonly #remembered = new Map<number, T>();

  constructor(codec: Codec<T>, keyOf: (record: T) => K) {
    this.#codec = codec;
    this.#keyOf = keyOf;
  }

  get size(): number {
    return this.#rows.size;
  }

  /** The number under which a record is kept until it is removed; -1 for one that is not here. */
  row(key: K): number {
    return this.#index.find(hashText(key), (row) => this.#keyOf(this.peek(row)) === key);
  }

  has(key: K): boolean {
    return this.row(key) >= 0;
  }

  get(key: K): T | undefined {
    const row = this.row(key);
    return row < 0 ? undefined : this.at(row);
  }

  /** The record of a row, remembered. */
  at(row: number): T {
    const known = this.#remembered.get(row);
    if (known !== undefined) return known;
    const record = this.#unpack(row);
    this.#remember(row, record);
    return record;
  }

  /** The same for one look: nobody is to hold the object. */
  peek(row: number): T {
    return this.#remembered.get(row) ?? this.#unpack(row);
  }

  remembers(row: number): boolean {
    return this.#remembered.has(row);
  }

  /**
   * Puts a record in, or in the place of the one of its name.
   * @param row of that one, else -1. @param packed the record's bytes, where they are known; copied.
   * @returns its row.
   */
  put(record: T, row: number, remember: boolean, packed: Uint8Array = this.#pack(record)): number {
    if (row < 0) {
      row = this.#rows.add(packed);
      this.#index.add(hashText(this.#keyOf(record)), row);
    } else this.#rows.replace(row, packed);
    if (remember) this.#remember(row, record);
    else this.#remembered.delete(row);
    return row;
  }

  remove(row: number): void {
    this.#index.remove(hashText(this.#keyOf(this.peek(row))), row);
    this.#remembered.delete(row);
    this.#rows.remove(row);
  }

  /** Every record as it is packed, `recordsMax` of them in each part: see `unpackAll`. */
  *parts(recordsMax: number): IterableIterator<Uint8Array> {
    let part: Uint8Array[] = [];
    for (const row of this.#rows.rows()) {
      const offset = this.#rows.offsetOf(row);
      part.push(this.#rows.bytesOf(row).subarray(offset, offset + this.#rows.lengthOf(row)));
      if (part.length < recordsMax) continue;
      yield concatenated(part);
      part = [];
    }
    if (part.length > 0) yield concatenated(part);
  }

  *keys(): MapIterator<K> {
    for (const row of this.#rows.rows()) yield this.#keyOf(this.peek(row));
  }

  *values(): MapIterator<T> {
    for (const row of this.#rows.rows()) yield this.peek(row);
  }

  *entries(): MapIterator<[K, T]> {
    for (const record of this.values()) yield [this.#keyOf(record), record];
  }

  [Symbol.iterator](): MapIterator<[K, T]> {
    return this.entries();
  }

  forEach(callback: (value: T, key: K, map: ReadonlyMap<K, T>) => void): void {
    for (const [key, value] of this) callback(value, key, this);
  }

  #unpack(row: number): T {
    return this.#codec.read(reader.from(this.#rows.bytesOf(row), this.#rows.offsetOf(row)));
  }

  #pack(record: T): Uint8Array {
    this.#codec.write(writer, record);
    return writer.take();
  }

  #remember(row: number, record: T): void {
    if (!this.#remembered.has(row) && this.#remembered.size >= REMEMBERED_MAX) for (const oldest of this.#remembered.keys()) {
      this.#remembered.delete(oldest);
      break;
    }
    this.#remembered.set(row, record);
  }
}

/** Records as they are packed, one after the other, in bytes of their own. */
export function packAll<T>(codec: Codec<T>, records: readonly T[]): Uint8Array {
  for (const record of records) codec.write(writer, record);
  return new Uint8Array(writer.take());
}

/** What `packAll` or `parts` packed: each record with its own bytes, a view. */
export function* unpackAll<T>(codec: Codec<T>, packed: Uint8Array): IterableIterator<readonly [record: T, packed: Uint8Array]> {
  const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length);
  const own = new PackReader().from(bytes, 0);
  while (own.at < bytes.length) {
    const start = own.at;
    const record = codec.read(own);
    yield [record, bytes.subarray(start, own.at)];
  }
}

function concatenated(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
