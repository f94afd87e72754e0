// Log lines on their way from a data thread to the writer: gathered and handed on in batches, as bytes that change hands without a copy;
// when they are made faster than they are taken, they are dropped and counted. Never waits. As strings, lines of some megabytes a second
// were copied, and garbage, three times over on the writer's side.

import { giveBackWhole } from "../core/spent-bytes.ts";

/** Lines handed on together: a batch that is full does not wait for its flush, of which there are ten a second. */
export const BATCH_LINES_MAX = 2_000;
/** Bytes handed on and not yet taken by the writer. */
export const IN_FLIGHT_BYTES_MAX = 4 * 1024 * 1024;

/** Whole lines in a buffer that holds nothing else, and is the taker's from then on. */
export type LineBytes = Uint8Array<ArrayBuffer>;

export type PostLines = (lines: LineBytes, lineCount: number) => void;

export class LogBatch {
  readonly #post: PostLines;
  readonly #credit: LogCredit | null;
  readonly #encoder = new TextEncoder();
  #lines = "";
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
    // One string, made bytes once: writing each line where it belongs takes twice the time.
    this.#lines += line;
  }

  flush(): void {
    this.#refused = false;
    if (this.#lineCount > 0) this.#handOn();
  }

  /** False when the writer has no room: the lines are gone, and counted. */
  #handOn(): boolean {
    const lines = this.#encoder.encode(this.#lines);
    const taken = this.#credit === null || this.#credit.take(lines.length);
    if (taken) this.#post(lines, this.#lineCount);
    else {
      this.droppedCount += this.#lineCount;
      giveBackWhole(lines);
    }
    this.#lines = "";
    this.#lineCount = 0;
    return taken;
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
