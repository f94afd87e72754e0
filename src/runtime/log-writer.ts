// The one place that writes log lines. One write at a time is under way, off this thread; what comes meanwhile waits in a bounded
// queue; what does not fit is dropped, and the log says so when it moves again. A reader that stopped reading stops nobody.

import { closeSync, openSync, write, writeSync } from "node:fs";
import { giveBackWhole } from "../core/spent-bytes.ts";

/** Bytes that may wait behind a stuck reader. */
export const QUEUE_BYTES_MAX = 8 * 1024 * 1024;
/** Small batches are copied together up to this many bytes, for one write; a slow disk does not hold the whole queue twice. */
const WRITE_BYTES_MAX = 256 * 1024;

export interface LogSink {
  /** Writes what it can of `bytes`; calls back with the number taken. Never blocks the caller. */
  write(bytes: Uint8Array, done: (error: Error | null, taken: number) => void): void;
}

export interface LogWriterOptions {
  readonly sink: LogSink;
  /** Makes the line that reports `count` dropped ones. */
  readonly droppedLine: (count: number) => string;
  readonly queueBytesMax?: number;
  /** Counts what is dropped, as it is dropped. */
  readonly onDropped?: (lineCount: number) => void;
}

interface Batch {
  readonly lines: Uint8Array;
  readonly lineCount: number;
  readonly taken: (() => void) | null;
}

export class LogWriter {
  readonly #options: LogWriterOptions;
  readonly #queueBytesMax: number;
  #queue: Batch[] = [];
  #queuedBytes = 0;
  #writing = false;
  #unreported = 0;
  #idle: (() => void)[] = [];
  readonly #encoder = new TextEncoder();
  /** Lines dropped since the start. */
  droppedCount = 0;
  /** Writes that failed since the start; their lines count as dropped. */
  failureCount = 0;

  constructor(options: LogWriterOptions) {
    this.#options = options;
    this.#queueBytesMax = options.queueBytesMax ?? QUEUE_BYTES_MAX;
  }

  /**
   * @param given whole lines, each with its newline. Bytes are the writer's from here on, with the buffer that they lie in.
   * @param taken called when they left the queue, written or not.
   */
  write(given: string | Uint8Array, lineCount: number, taken: (() => void) | null = null): void {
    const lines = typeof given === "string" ? this.#encoder.encode(given) : given;
    if (this.#queuedBytes + lines.length > this.#queueBytesMax) {
      this.#drop(lineCount);
      taken?.();
      giveBackWhole(lines);
      return;
    }
    if (this.#unreported > 0 && this.#queuedBytes + lines.length <= this.#queueBytesMax / 2) this.#reportDropped();
    this.#push({ lines, lineCount, taken });
    this.#pump();
  }

  /** Resolves when everything has been written, or `withinMs` has passed. */
  async flush(withinMs: number): Promise<void> {
    if (this.#unreported > 0) this.#reportDropped();
    this.#pump();
    if (!this.#writing && this.#queue.length === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, withinMs);
      this.#idle.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #reportDropped(): void {
    const lines = this.#encoder.encode(this.#options.droppedLine(this.#unreported));
    this.#unreported = 0;
    this.#push({ lines, lineCount: 1, taken: null });
  }

  #push(batch: Batch): void {
    this.#queue.push(batch);
    this.#queuedBytes += batch.lines.length;
  }

  #drop(lineCount: number): void {
    this.droppedCount += lineCount;
    this.#unreported += lineCount;
    this.#options.onDropped?.(lineCount);
  }

  #pump(): void {
    if (this.#writing) return;
    const batches = this.#takeBatches();
    if (batches.length === 0) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    let lineCount = 0;
    for (const batch of batches) {
      this.#queuedBytes -= batch.lines.length;
      lineCount += batch.lineCount;
      batch.taken?.();
    }
    this.#writing = true;
    const bytes = batches.length === 1 ? batches[0]!.lines : together(batches);
    this.#writeAll(bytes, bytes, lineCount);
  }

  /** What goes out in one write: the first that waits, and those behind it while they are small. */
  #takeBatches(): readonly Batch[] {
    let bytes = 0;
    let count = 0;
    for (const { lines } of this.#queue) {
      if (count > 0 && bytes + lines.length > WRITE_BYTES_MAX) break;
      bytes += lines.length;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  /** @param whole what `bytes` are the end of. */
  #writeAll(bytes: Uint8Array, whole: Uint8Array, lineCount: number): void {
    this.#options.sink.write(bytes, (error, taken) => {
      if (error !== null) {
        this.failureCount++;
        this.#drop(lineCount);
      } else if (taken < bytes.length) {
        this.#writeAll(bytes.subarray(taken), whole, lineCount);
        return;
      }
      giveBackWhole(whole);
      this.#writing = false;
      this.#pump();
    });
  }
}

/** In a buffer of its own. */
function together(batches: readonly Batch[]): Uint8Array {
  const bytes = new Uint8Array(batches.reduce((sum, { lines }) => sum + lines.length, 0));
  let at = 0;
  for (const { lines } of batches) {
    bytes.set(lines, at);
    at += lines.length;
  }
  return bytes;
}

/** Waits this long after a descriptor said that it takes nothing now. */
const RETRY_MS = 20;

/** A descriptor that may be a terminal, a pipe, a socket of the journal or a file: written to by the runtime's own pool. */
export function descriptorSink(fd: number): LogSink {
  return {
    write(bytes, done) {
      write(fd, bytes, 0, bytes.length, null, (error, taken) => {
        if (error !== null && (error as NodeJS.ErrnoException).code === "EAGAIN") setTimeout(() => done(null, 0), RETRY_MS);
        else done(error, taken);
      });
    },
  };
}

/** Appends to a file that only the owner and the group may read. Throws when it cannot be opened. */
export function fileSink(path: string): LogSink & { close(): void } {
  const fd = openSync(path, "a", 0o640);
  return { ...descriptorSink(fd), close: () => closeSync(fd) };
}

/** For the last words before the process ends, when nothing else can be waited for. */
export function writeLastWords(text: string): void {
  try {
    writeSync(2, text);
  } catch {
    // There is nobody left to tell.
  }
}
