// Byte strings by row number, in few large blocks: for thousands of small records that are seldom read. A row keeps its number until it is
// removed; numbers are used again. Blocks that are mostly past are emptied into the current one, so that what is past is at most as much again.
//
// Rows can be followed by other threads: then the blocks are memory that all of them see, and no byte that a row was ever told to be at is
// written again. What a follower is told is where rows are now; it reads the same bytes, and forgets a block when nothing is in it.

const BLOCK_BYTES = 64 * 1024;
const FIRST_ROWS = 64;
const NO_BLOCK = 0xffff_ffff;
/** Numbers that say where a row is: its own, its block's, the offset there, the length. */
const PLACE_NUMBERS = 4;

interface Block {
  readonly bytes: Buffer;
  used: number;
  /** Of these, what rows still refer to. */
  live: number;
}

/** What has changed of rows since their followers were last told, in plain data. */
export interface RowsNews {
  readonly blocks: readonly { readonly id: number; readonly bytes: SharedArrayBuffer }[];
  /** Nothing is in them any more. */
  readonly emptied: readonly number[];
  /** PLACE_NUMBERS of each row that is new, changed, or elsewhere. */
  readonly placed: Uint32Array;
  readonly removed: readonly number[];
}

interface Telling {
  readonly touched: Set<number>;
  readonly blocks: Map<number, SharedArrayBuffer>;
  emptied: number[];
}

export class PackedRows {
  readonly #blocks = new Map<number, Block>();
  readonly #freeRows: number[] = [];
  #current = -1;
  #nextBlock = 0;
  #blockOf = new Uint32Array(FIRST_ROWS).fill(NO_BLOCK);
  #offset = new Uint32Array(FIRST_ROWS);
  #length = new Uint32Array(FIRST_ROWS);
  /** Rows ever in use are below this. */
  #end = 0;
  #size = 0;
  readonly #telling: Telling | null;

  /** @param followed by other threads. */
  constructor(followed = false) {
    this.#telling = followed ? { touched: new Set(), blocks: new Map(), emptied: [] } : null;
  }

  get size(): number {
    return this.#size;
  }

  has(row: number): boolean {
    return row < this.#end && this.#blockOf[row] !== NO_BLOCK;
  }

  /** @param bytes copied. */
  add(bytes: Uint8Array): number {
    const row = this.#freeRows.pop() ?? this.#end;
    this.#use(row);
    this.#place(row, bytes);
    return row;
  }

  replace(row: number, bytes: Uint8Array): void {
    const block = this.#blocks.get(this.#blockOf[row]!)!;
    const length = this.#length[row]!;
    if (bytes.length > length || this.#telling !== null) {
      this.#release(row);
      this.#place(row, bytes);
      return;
    }
    block.bytes.set(bytes, this.#offset[row]!);
    block.live -= length - bytes.length;
    this.#length[row] = bytes.length;
  }

  remove(row: number): void {
    this.#release(row);
    this.#telling?.touched.add(row);
    this.#freeRows.push(row);
    this.#size--;
  }

  /** Where a row's bytes are now: valid until the next change. */
  bytesOf(row: number): Buffer {
    return this.#blocks.get(this.#blockOf[row]!)!.bytes;
  }

  offsetOf(row: number): number {
    return this.#offset[row]!;
  }

  lengthOf(row: number): number {
    return this.#length[row]!;
  }

  *rows(): IterableIterator<number> {
    for (let row = 0; row < this.#end; row++) if (this.#blockOf[row] !== NO_BLOCK) yield row;
  }

  // ---- followed

  /** For all followers: what has changed since the last time. */
  news(): RowsNews {
    const telling = this.#telling;
    if (telling === null) throw new Error("rows that nobody follows have no news");
    const touched = [...telling.touched];
    const here = touched.filter((row) => this.has(row));
    const placed = new Uint32Array(here.length * PLACE_NUMBERS);
    here.forEach((row, i) => placed.set([row, this.#blockOf[row]!, this.#offset[row]!, this.#length[row]!], i * PLACE_NUMBERS));
    const news = { blocks: Array.from(telling.blocks, ([id, bytes]) => ({ id, bytes })), emptied: telling.emptied, placed, removed: touched.filter((row) => !this.has(row)) };
    telling.touched.clear();
    telling.blocks.clear();
    telling.emptied = [];
    return news;
  }

  // ---- following

  /** Blocks that news are in, before any row is put there. */
  beginFollowing({ blocks }: RowsNews): void {
    for (const { id, bytes } of blocks) this.#blocks.set(id, { bytes: Buffer.from(bytes), used: 0, live: 0 });
  }

  /** A row as its owner has it, there already or not. */
  follow({ row, block, offset, length }: RowPlace): void {
    if (!this.has(row)) this.#use(row);
    this.#blockOf[row] = block;
    this.#offset[row] = offset;
    this.#length[row] = length;
  }

  /** Where news say that a row is. */
  bytesAt({ block, offset, length }: RowPlace): Buffer {
    return this.#blocks.get(block)!.bytes.subarray(offset, offset + length);
  }

  followRemoval(row: number): void {
    if (!this.has(row)) return;
    this.#blockOf[row] = NO_BLOCK;
    this.#size--;
  }

  /** Every row of the news is where it belongs. */
  endFollowing({ emptied }: RowsNews): void {
    for (const id of emptied) this.#blocks.delete(id);
  }

  #use(row: number): void {
    if (row >= this.#blockOf.length) this.#growRows(row + 1);
    this.#end = Math.max(this.#end, row + 1);
    this.#size++;
  }

  #place(row: number, bytes: Uint8Array): void {
    const id = this.#roomFor(bytes.length);
    const block = this.#blocks.get(id)!;
    block.bytes.set(bytes, block.used);
    this.#blockOf[row] = id;
    this.#offset[row] = block.used;
    this.#length[row] = bytes.length;
    block.used += bytes.length;
    block.live += bytes.length;
    this.#telling?.touched.add(row);
  }

  #roomFor(bytes: number): number {
    // What is tidied goes into the new block, and may leave too little room there.
    for (;;) {
      const current = this.#blocks.get(this.#current);
      if (current !== undefined && current.used + bytes <= current.bytes.length) return this.#current;
      const id = this.#nextBlock++;
      this.#blocks.set(id, { bytes: this.#newBlock(id, Math.max(BLOCK_BYTES, bytes)), used: 0, live: 0 });
      const full = this.#current;
      this.#current = id;
      this.#tidy(full);
    }
  }

  #newBlock(id: number, bytes: number): Buffer {
    if (this.#telling === null) return Buffer.from(new ArrayBuffer(bytes));
    const shared = new SharedArrayBuffer(bytes);
    this.#telling.blocks.set(id, shared);
    return Buffer.from(shared);
  }

  #release(row: number): void {
    const id = this.#blockOf[row]!;
    this.#blocks.get(id)!.live -= this.#length[row]!;
    // Not a row of its block any more, while that is emptied.
    this.#blockOf[row] = NO_BLOCK;
    if (id !== this.#current) this.#tidy(id);
  }

  /** Empties a block that is full and half of it past. */
  #tidy(id: number): void {
    const block = this.#blocks.get(id);
    if (block === undefined || block.live * 2 > block.used) return;
    if (block.live > 0) for (let row = 0; row < this.#end; row++) if (this.#blockOf[row] === id) this.#place(row, block.bytes.subarray(this.#offset[row]!, this.#offset[row]! + this.#length[row]!));
    this.#blocks.delete(id);
    // One that no follower was told of needs no mention.
    if (this.#telling !== null && !this.#telling.blocks.delete(id)) this.#telling.emptied.push(id);
  }

  #growRows(rows: number): void {
    const grown = (old: Uint32Array<ArrayBuffer>, empty: number): Uint32Array<ArrayBuffer> => {
      const larger = new Uint32Array(Math.max(rows, Math.ceil(old.length * 1.5))).fill(empty, old.length);
      larger.set(old);
      return larger;
    };
    this.#blockOf = grown(this.#blockOf, NO_BLOCK);
    this.#offset = grown(this.#offset, 0);
    this.#length = grown(this.#length, 0);
  }
}

export interface RowPlace {
  /** Among the places of its news. */
  readonly index: number;
  readonly row: number;
  readonly block: number;
  readonly offset: number;
  readonly length: number;
}

/** Each row that news say the place of. */
export function* placesIn({ placed }: RowsNews): IterableIterator<RowPlace> {
  for (let at = 0; at < placed.length; at += PLACE_NUMBERS) yield { index: at / PLACE_NUMBERS, row: placed[at]!, block: placed[at + 1]!, offset: placed[at + 2]!, length: placed[at + 3]! };
}

export const isNoNews = ({ placed, removed, blocks, emptied }: RowsNews): boolean => placed.length + removed.length + blocks.length + emptied.length === 0;
