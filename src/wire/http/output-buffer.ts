// What a connection has to say, gathered for one write. Buffers are lent by a pool while there is something in them,
// so that ten thousand idle tunnels hold none.

import { giveBackWhole } from "../../core/spent-bytes.ts";

/** Room for the head and the body of most answers; thousands of connections that answer in one turn hold one each. */
const SMALLEST_BYTES = 4 * 1024;
const LARGEST_POOLED_BYTES = 4 * 1024 * 1024;
/** Free bytes the pool keeps: a few bulk buffers and many small ones. What comes back beyond it is freed. */
const POOL_FREE_BYTES_MAX = 8 * 1024 * 1024;
/** The first frame's payload starts at a multiple of 64: glibc's memmove is ten times slower a few bytes off (fast-path notes). */
const PAYLOAD_ALIGN_BYTES = 64;
const FRAME_HEADER_BYTES = 9;
const FIRST_OFFSET = PAYLOAD_ALIGN_BYTES - FRAME_HEADER_BYTES;
const EMPTY = new Uint8Array(0);

/** Lends buffers in powers of two. One per thread is enough; nothing in it belongs to a connection. */
export class BufferPool {
  private readonly free = new Map<number, Uint8Array[]>();
  private freeBytes = 0;

  acquire(atLeastBytes: number): Uint8Array {
    let size = SMALLEST_BYTES;
    while (size < atLeastBytes) size *= 2;
    const kept = this.free.get(size)?.pop();
    // Not a Buffer: its `slice` is a view, and whoever copies what `peek` lends must get a copy.
    if (kept === undefined) return new Uint8Array(Buffer.allocUnsafeSlow(size).buffer);
    this.freeBytes -= size;
    return kept;
  }

  release(buffer: Uint8Array): void {
    const size = buffer.length;
    if (size < SMALLEST_BYTES) return;
    if (size > LARGEST_POOLED_BYTES || this.freeBytes + size > POOL_FREE_BYTES_MAX) return giveBackWhole(buffer);
    let list = this.free.get(size);
    if (list === undefined) this.free.set(size, (list = []));
    list.push(buffer);
    this.freeBytes += size;
  }

  /** Lets the free buffers go to the collector. */
  clear(): void {
    this.free.clear();
    this.freeBytes = 0;
  }
}

const sharedPool = new BufferPool();

/** For a quiet moment: the buffers that this thread keeps for the next load. */
export function clearBufferPool(): void {
  sharedPool.clear();
}

export class OutputBuffer {
  /** Bytes ever queued and ever taken: positions in the stream, for limits on what the peer leaves unread. */
  appendedTotal = 0;
  consumedTotal = 0;
  /** Written by the owner between `reserve` and the next call; offsets are the ones `reserve` returned. */
  bytes: Uint8Array = EMPTY;
  private start = 0;
  private end = 0;
  private readonly pool: BufferPool;
  private readonly onConsumed: () => void;

  constructor(onConsumed: () => void, pool: BufferPool = sharedPool) {
    this.onConsumed = onConsumed;
    this.pool = pool;
  }

  /** Where in `bytes` what is pending begins: `peek` without its view, and borrowed like it. */
  get pendingOffset(): number {
    return this.start;
  }

  get pendingBytes(): number {
    return this.end - this.start;
  }

  /**
   * All that is pending, in one piece. Borrowed: valid until the next call of any kind on the connection, and no longer than
   * `consume`. Give it to a write that copies or sends at once; a write that keeps it needs a copy.
   */
  peek(): Uint8Array {
    return this.bytes.subarray(this.start, this.end);
  }

  /** Drops the first `n` bytes: they were written. May call back into `handler.onSendable`, which may append more. */
  consume(n: number): void {
    if (n < 0 || n > this.end - this.start) throw new RangeError(`output: consumed ${n} of ${this.end - this.start} pending bytes`);
    this.start += n;
    this.consumedTotal += n;
    if (this.start === this.end && this.bytes !== EMPTY) {
      this.pool.release(this.bytes);
      this.bytes = EMPTY;
      this.start = this.end = 0;
    }
    this.onConsumed();
  }

  /** Makes room for `n` bytes and counts them as pending. Returns the offset in `bytes` where they must now be written. */
  reserve(n: number): number {
    const at = this.end;
    if (at + n > this.bytes.length) return this.reserveMore(n);
    this.end = at + n;
    this.appendedTotal += n;
    return at;
  }

  private reserveMore(n: number): number {
    const pending = this.end - this.start;
    const old = this.bytes;
    const need = FIRST_OFFSET + pending + n;
    if (need <= old.length && this.start >= pending) {
      old.copyWithin(FIRST_OFFSET, this.start, this.end);
    } else {
      const bytes = this.pool.acquire(old.length === 0 ? need : Math.max(need, old.length * 2));
      bytes.set(old.subarray(this.start, this.end), FIRST_OFFSET);
      this.bytes = bytes;
      if (old !== EMPTY) this.pool.release(old);
    }
    this.start = FIRST_OFFSET;
    this.end = FIRST_OFFSET + pending + n;
    this.appendedTotal += n;
    return FIRST_OFFSET + pending;
  }
}
