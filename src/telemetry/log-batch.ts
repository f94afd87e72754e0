// Log lines on their way from a data thread to the writer: gathered as bytes and handed on in batches; when they are made faster than they
// are taken, they are dropped and counted. Never waits. The bytes change hands, nothing is copied: as strings, lines of some megabytes a
// second were as much garbage on either side.

import { giveBackWhole } from "../core/spent-bytes.ts";

/** Lines handed on together: a batch that is full does not wait for its flush, of which there are ten a second. */
export const BATCH_LINES_MAX = 2_000;
/** Bytes handed on and not yet taken by the writer. */
export const IN_FLIGHT_BYTES_MAX = 4 * 1024 * 1024;
/** Room that a batch begins with at least: a few lines. */
const BATCH_BYTES_MIN = 4 * 1024;
/** A unit of a string is at most so many bytes of UTF-8. */
const BYTES_A_UNIT_MAX = 3;
const NO_ROOM = Buffer.alloc(0);

/** Whole lines in a buffer that holds nothing else, and is the taker's from then on. */
export type LineBytes = Uint8Array<ArrayBuffer>;

export type PostLines = (lines: LineBytes, lineCount: number) => void;

export class LogBatch {
  readonly #post: PostLines;
  readonly #credit: LogCredit | null;
  #bytes: Buffer<ArrayBuffer> = NO_ROOM;
  #used = 0;
  /** What the batch before took: the next one will take as much. */
  #roomBytes = BATCH_BYTES_MIN;
  #lineCount = 0;
  /** The writer had no room for a batch that was full: until the next flush nothing is made for it. */
  #refused = false;
  /** Lines made, and lines dropped for want of room. Cumulative. */
  madeCount = 0;
  droppedCount = 0;

  /** @param credit shared with the writer, which gives back what it took; null where both are one thread. */
  constructor(post: PostLines, credit: LogCredit | null) {
    this.#post = post;
    this.#credit = credit;
  }

  /** False when there is no room until the next flush, and one line is counted as dropped: ask before making it. */
  reserve(): boolean {
    if (this.#lineCount === BATCH_LINES_MAX) this.#refused = !this.#handOn();
    if (!this.#refused) return true;
    this.droppedCount++;
    return false;
  }

  /** @param line with its newline. */
  add(line: string): void {
    this.madeCount++;
    this.#lineCount++;
    const most = this.#used + line.length * BYTES_A_UNIT_MAX;
    if (most > this.#bytes.length) this.#grow(most);
    this.#used += this.#bytes.write(line, this.#used);
  }

  flush(): void {
    this.#refused = false;
    if (this.#lineCount > 0) this.#handOn();
  }

  /** False when the writer has no room: the lines are gone, and counted. */
  #handOn(): boolean {
    const lines = new Uint8Array(this.#bytes.buffer, 0, this.#used);
    const taken = this.#credit === null || this.#credit.take(lines.length);
    this.#roomBytes = Math.max(BATCH_BYTES_MIN, lines.length);
    if (taken) this.#post(lines, this.#lineCount);
    else {
      this.droppedCount += this.#lineCount;
      giveBackWhole(lines);
    }
    this.#bytes = NO_ROOM;
    this.#used = 0;
    this.#lineCount = 0;
    return taken;
  }

  #grow(atLeastBytes: number): void {
    const old = this.#bytes;
    // Not pooled: the whole buffer goes to the writer.
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(atLeastBytes, old.length * 2, this.#roomBytes));
    this.#bytes.set(old.subarray(0, this.#used));
    if (old !== NO_ROOM) giveBackWhole(old);
  }
}

/** What is under way between data threads and the one that takes it: one shared number, so that neither waits for the other. */
export class LogCredit {
  readonly #inFlight: Int32Array;
  readonly #max: number;

  /** @param max in whatever is counted; bytes by default. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(4), max = IN_FLIGHT_BYTES_MAX) {
    this.#inFlight = new Int32Array(buffer);
    this.#max = max;
  }

  get buffer(): SharedArrayBuffer {
    return this.#inFlight.buffer as SharedArrayBuffer;
  }

  /** False when too much is under way already. */
  take(amount: number): boolean {
    if (Atomics.load(this.#inFlight, 0) + amount > this.#max) return false;
    Atomics.add(this.#inFlight, 0, amount);
    return true;
  }

  giveBack(amount: number): void {
    Atomics.sub(this.#inFlight, 0, amount);
  }
}
