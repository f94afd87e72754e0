// Bytes that one reader has not taken yet, copied together into blocks: a peer that sends a byte at a time costs us bytes, not objects.
// Counts what it really holds against the thread's budget.

import type { ByteBudget, ByteHolder } from "./byte-budget.ts";

/** The first block of a reader that falls behind; each further one is at least twice as large, up to BLOCK_BYTES_MAX. */
const BLOCK_BYTES_MIN = 4 * 1024;
const BLOCK_BYTES_MAX = 64 * 1024;

export class HeldBytes {
  readonly #budget: ByteBudget;
  readonly #owner: ByteHolder;
  readonly #blocks: Uint8Array[] = [];
  /** Where the unread bytes begin in the first block, and end in the last. */
  #start = 0;
  #end = 0;
  #capacity = 0;

  constructor(budget: ByteBudget, owner: ByteHolder) {
    this.#budget = budget;
    this.#owner = owner;
  }

  get empty(): boolean {
    return this.#blocks.length === 0;
  }

  /** What it holds in memory: its blocks, filled or not. */
  get capacityBytes(): number {
    return this.#capacity;
  }

  /** @param bytes copied. */
  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#blocks.length === 0) this.#budget.enter(this.#owner);
    const last = this.#blocks.at(-1);
    const fits = last === undefined ? 0 : Math.min(last.length - this.#end, bytes.length);
    if (fits > 0) {
      last!.set(fits === bytes.length ? bytes : bytes.subarray(0, fits), this.#end);
      this.#end += fits;
      if (fits === bytes.length) return;
    }
    const rest = fits === 0 ? bytes : bytes.subarray(fits);
    const size = Math.max(rest.length, Math.min(BLOCK_BYTES_MAX, Math.max(BLOCK_BYTES_MIN, this.#capacity)));
    const block = new Uint8Array(size);
    block.set(rest);
    if (this.#blocks.length === 0) this.#start = 0;
    this.#blocks.push(block);
    this.#end = rest.length;
    this.#capacity += size;
    this.#budget.change(size);
  }

  /** A view of the first bytes, valid until the next call; never empty while `empty` is false. */
  first(): Uint8Array {
    const block = this.#blocks[0]!;
    return block.subarray(this.#start, this.#blocks.length === 1 ? this.#end : block.length);
  }

  /** The reader took the first `count` bytes of `first()`. */
  take(count: number): void {
    const block = this.#blocks[0]!;
    this.#start += count;
    if (this.#start < (this.#blocks.length === 1 ? this.#end : block.length)) return;
    this.#blocks.shift();
    this.#start = 0;
    this.#release(block.length);
  }

  clear(): void {
    if (this.#blocks.length === 0) return;
    this.#blocks.length = 0;
    this.#release(this.#capacity);
  }

  #release(bytes: number): void {
    this.#capacity -= bytes;
    if (this.#blocks.length === 0) this.#budget.leave(this.#owner);
    this.#budget.change(-bytes);
  }
}
