// Byte strings by row number, in few large blocks: for thousands of small records that are seldom read. A row keeps its number until it is
// removed; numbers are used again. Blocks that are mostly past are emptied into the current one, so that what is past is at most as much again.

const BLOCK_BYTES = 64 * 1024;
const FIRST_ROWS = 64;
const NO_BLOCK = 0xffff_ffff;

interface Block {
  readonly bytes: Buffer;
  used: number;
  /** Of these, what rows still refer to. */
  live: number;
}

export class PackedRows {
  readonly #blocks: (Block | null)[] = [];
  readonly #freeBlocks: number[] = [];
  readonly #freeRows: number[] = [];
  #current = -1;
  #blockOf = new Uint32Array(FIRST_ROWS);
  #offset = new Uint32Array(FIRST_ROWS);
  #length = new Uint32Array(FIRST_ROWS);
  /** Rows ever in use are below this. */
  #end = 0;

  get size(): number {
    return this.#end - this.#freeRows.length;
  }

  /** @param bytes copied. */
  add(bytes: Uint8Array): number {
    const row = this.#freeRows.pop() ?? this.#end++;
    if (row >= this.#blockOf.length) this.#growRows();
    this.#place(row, bytes);
    return row;
  }

  replace(row: number, bytes: Uint8Array): void {
    const block = this.#blocks[this.#blockOf[row]!]!;
    const length = this.#length[row]!;
    if (bytes.length > length) {
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
    this.#blockOf[row] = NO_BLOCK;
    this.#freeRows.push(row);
  }

  /** Where a row's bytes are now: valid until the next change. */
  bytesOf(row: number): Buffer {
    return this.#blocks[this.#blockOf[row]!]!.bytes;
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

  #place(row: number, bytes: Uint8Array): void {
    const index = this.#roomFor(bytes.length);
    const block = this.#blocks[index]!;
    block.bytes.set(bytes, block.used);
    this.#blockOf[row] = index;
    this.#offset[row] = block.used;
    this.#length[row] = bytes.length;
    block.used += bytes.length;
    block.live += bytes.length;
  }

  #roomFor(bytes: number): number {
    const current = this.#blocks[this.#current];
    if (current !== null && current !== undefined && current.used + bytes <= current.bytes.length) return this.#current;
    const index = this.#freeBlocks.pop() ?? this.#blocks.length;
    this.#blocks[index] = { bytes: Buffer.from(new ArrayBuffer(Math.max(BLOCK_BYTES, bytes))), used: 0, live: 0 };
    const full = this.#current;
    this.#current = index;
    if (full >= 0) this.#tidy(full);
    return index;
  }

  #release(row: number): void {
    const index = this.#blockOf[row]!;
    this.#blocks[index]!.live -= this.#length[row]!;
    // Not a row of its block any more, while that is emptied.
    this.#blockOf[row] = NO_BLOCK;
    if (index !== this.#current) this.#tidy(index);
  }

  /** Empties a block that is full and half of it past. */
  #tidy(index: number): void {
    const block = this.#blocks[index];
    if (block === null || block === undefined || block.live * 2 > block.used) return;
    this.#blocks[index] = null;
    if (block.live > 0) for (let row = 0; row < this.#end; row++) if (this.#blockOf[row] === index) this.#place(row, block.bytes.subarray(this.#offset[row]!, this.#offset[row]! + this.#length[row]!));
    this.#freeBlocks.push(index);
  }

  #growRows(): void {
    const grown = (old: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> => {
      const larger = new Uint32Array(Math.ceil(old.length * 1.5));
      larger.set(old);
      return larger;
    };
    this.#blockOf = grown(this.#blockOf);
    this.#offset = grown(this.#offset);
    this.#length = grown(this.#length);
  }
}
