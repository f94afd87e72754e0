// Records by name, kept packed: of a large mesh a node ever uses few. One that is asked for is unpacked, and remembered for a while, so that
// whoever asks again gets the same object. Reads as a Map.

import { PackReader, PackWriter } from "./bytes.ts";
import { HashIndex, hashText } from "./hash-index.ts";
import { PackedRows, placesIn, type RowPlace, type RowsNews } from "./packed-rows.ts";
import type { RecordShape } from "./record-codecs.ts";

/** Unpacked records that are remembered, some KiB each at most: more than one node's connections go to at a time. */
const REMEMBERED_MAX = 1_024;

/** Of what waits packed. */
const PIECE_BYTES = 60 * 1024;

/** Of all tables: a record is unpacked in one go. */
const reader = new PackReader();
const writer = new PackWriter();

/** A record that is to be put into a table, packed. */
export interface Given<T, I> {
  readonly found: I;
  /** A view: valid until the next one is asked for. */
  readonly packed: Uint8Array;
  /** Made, where it has to be, while `packed` is valid. */
  readonly record: () => T;
}

/** One that is where its owner put it. */
export interface Placed<T, I> extends Given<T, I> {
  readonly place: RowPlace;
}

export class RecordTable<K extends string, T extends I, I> implements ReadonlyMap<K, T> {
  readonly #shape: RecordShape<K, T, I>;
  readonly #rows: PackedRows;
  readonly #index = new HashIndex();
  /** By row, oldest first. */
  readonly #remembered = new Map<number, T>();

  /** @param followed by tables of other threads. */
  constructor(shape: RecordShape<K, T, I>, followed = false) {
    this.#shape = shape;
    this.#rows = new PackedRows(followed);
  }

  get size(): number {
    return this.#rows.size;
  }

  /** The number under which a record is kept until it is removed; -1 for one that is not here. */
  row(key: K): number {
    return this.#index.find(hashText(key), (row) => this.#shape.readKey(this.#readerAt(row)) === key);
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

  /** What the record of a row is found by, without the rest of it. */
  foundBy(row: number): I {
    return this.#remembered.get(row) ?? this.#shape.found.read(this.#readerAt(row));
  }

  remembers(row: number): boolean {
    return this.#remembered.has(row);
  }

  /** True when the record of a row is packed as these bytes. */
  holds(row: number, packed: Uint8Array): boolean {
    const length = this.#rows.lengthOf(row);
    const offset = this.#rows.offsetOf(row);
    return length === packed.length && this.#rows.bytesOf(row).compare(packed, 0, length, offset, offset + length) === 0;
  }

  /**
   * Puts a record in, or in the place of the one of its name.
   * @param row of that one, else -1.
   * @returns its row.
   */
  put(given: Given<T, I>, row: number, remember: boolean): number {
    if (row < 0) {
      row = this.#rows.add(given.packed);
      this.#index.add(hashText(this.#shape.keyOf(given.found)), row);
    } else this.#rows.replace(row, given.packed);
    if (remember) this.#remember(row, given.record());
    else this.#remembered.delete(row);
    return row;
  }

  /** @param follows the owner, who alone uses the row again. */
  remove(row: number, follows = false): void {
    this.#index.remove(hashText(this.#shape.readKey(this.#readerAt(row))), row);
    this.#remembered.delete(row);
    if (follows) this.#rows.followRemoval(row);
    else this.#rows.remove(row);
  }

  /** See PackedRows. */
  news(): RowsNews {
    return this.#rows.news();
  }

  beginFollowing(news: RowsNews): void {
    this.#rows.beginFollowing(news);
  }

  /** What stands at each place that news name, for `follow` to put there. Records that are as they were, and elsewhere, are put there at once. */
  *given(news: RowsNews): IterableIterator<Placed<T, I>> {
    const { found, whole } = this.#shape;
    for (const place of placesIn(news)) {
      const packed = this.#rows.bytesAt(place);
      if (this.#rows.has(place.row) && this.holds(place.row, packed)) this.#rows.follow(place);
      else yield { place, packed, found: found.read(reader.from(packed, 0)), record: () => whole.read(reader.from(packed, 0)) };
    }
  }

  /** As `put`, at the place that its owner has it. */
  follow({ place, found, record }: Placed<T, I>, remember: boolean): number {
    const { row } = place;
    if (!this.#rows.has(row)) this.#index.add(hashText(this.#shape.keyOf(found)), row);
    this.#rows.follow(place);
    if (remember) this.#remember(row, record());
    else this.#remembered.delete(row);
    return row;
  }

  /** Where the record of a place is now: its row, or -1. */
  rowAt({ row }: RowPlace): number {
    return this.#rows.has(row) ? row : -1;
  }

  /** Rows whose record is gone by these news: removed, or in another's place. */
  *goneBy(news: RowsNews): IterableIterator<number> {
    const { readKey } = this.#shape;
    for (const row of news.removed) if (this.#rows.has(row)) yield row;
    for (const place of placesIn(news)) if (this.#rows.has(place.row) && readKey(this.#readerAt(place.row)) !== readKey(reader.from(this.#rows.bytesAt(place), 0))) yield place.row;
  }

  endFollowing(news: RowsNews): void {
    this.#rows.endFollowing(news);
  }

  *keys(): MapIterator<K> {
    for (const row of this.#rows.rows()) yield this.#shape.readKey(this.#readerAt(row));
  }

  *values(): MapIterator<T> {
    for (const row of this.#rows.rows()) yield this.peek(row);
  }

  *entries(): MapIterator<[K, T]> {
    for (const record of this.values()) yield [this.#shape.keyOf(record), record];
  }

  [Symbol.iterator](): MapIterator<[K, T]> {
    return this.entries();
  }

  forEach(callback: (value: T, key: K, map: ReadonlyMap<K, T>) => void): void {
    for (const [key, value] of this) callback(value, key, this);
  }

  #unpack(row: number): T {
    return this.#shape.whole.read(this.#readerAt(row));
  }

  #readerAt(row: number): PackReader {
    return reader.from(this.#rows.bytesOf(row), this.#rows.offsetOf(row));
  }

  #remember(row: number, record: T): void {
    if (!this.#remembered.has(row) && this.#remembered.size >= REMEMBERED_MAX) for (const oldest of this.#remembered.keys()) {
      this.#remembered.delete(oldest);
      break;
    }
    this.#remembered.set(row, record);
  }
}

/** One after the other, each packed when its turn comes. */
export function* packEach<T extends I, I>({ whole }: RecordShape<string, T, I>, records: readonly T[]): IterableIterator<Given<T, I>> {
  for (const record of records) {
    whole.write(writer, record);
    yield { found: record, packed: writer.take(), record: () => record };
  }
}

/** Records that come one by one, packed in pieces that each are soon garbage, or few. */
export class PackedPiecesWriter<K extends string, T extends I, I> {
  readonly #shape: RecordShape<K, T, I>;
  readonly #pieces: Uint8Array[] = [];
  readonly #piece = new PackWriter();

  constructor(shape: RecordShape<K, T, I>) {
    this.#shape = shape;
  }

  add(record: T): void {
    this.#shape.whole.write(writer, record);
    this.#addPacked(writer.take());
  }

  /** @param pack writes one record, or nothing and returns false: then there is none to be added. */
  addBy<V>(value: V, pack: (value: V, to: PackWriter) => boolean): boolean {
    if (!pack(value, writer)) return false;
    this.#addPacked(writer.take());
    return true;
  }

  #addPacked(record: Uint8Array): void {
    this.#piece.bytes(record);
    if (this.#piece.length >= PIECE_BYTES) this.#pieces.push(this.#piece.own());
  }

  /** All that was added, each piece as `unpackEach` takes it. */
  pieces(): readonly Uint8Array[] {
    if (this.#piece.length > 0) this.#pieces.push(this.#piece.own());
    return this.#pieces;
  }
}

/** What a store has packed of a delta, or `parts` of a table. */
export function* unpackEach<T extends I, I>({ found, whole }: RecordShape<string, T, I>, packed: Uint8Array): IterableIterator<Given<T, I>> {
  const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length);
  const all = new PackReader().from(bytes, 0);
  while (all.at < bytes.length) {
    const length = all.uint();
    const start = all.at;
    all.at += length;
    yield { found: found.read(reader.from(bytes, start)), packed: bytes.subarray(start, all.at), record: () => whole.read(reader.from(bytes, start)) };
  }
}
