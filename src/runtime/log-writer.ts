// The one place that writes log lines. One write at a time is under way, off this thread; what comes meanwhile waits in a bounded
// queue; what does not fit is dropped, and the log says so when it moves again. A reader that stopped reading stops nobody.

import { closeSync, openSync, write, writeSync } from "node:fs";

/** Characters that may wait behind a stuck reader. */
export const QUEUE_CHARS_MAX = 8 * 1024 * 1024;
/** One write takes at most this many characters, so that a slow disk does not hold the whole queue twice. */
const WRITE_CHARS_MAX = 256 * 1024;

export interface LogSink {
  /** Writes what it can of `bytes`; calls back with the number taken. Never blocks the caller. */
  write(bytes: Uint8Array, done: (error: Error | null, taken: number) => void): void;
}

export interface LogWriterOptions {
  readonly sink: LogSink;
  /** Makes the line that reports `count` dropped ones. */
  readonly droppedLine: (count: number) => string;
  readonly queueCharsMax?: number;
  /** Counts what is dropped, as it is dropped. */
  readonly onDropped?: (lineCount: number) => void;
}

interface Batch {
  readonly lines: string;
  readonly taken: (() => void) | null;
}

export class LogWriter {
  readonly #options: LogWriterOptions;
  readonly #queueCharsMax: number;
  #queue: Batch[] = [];
  #queuedChars = 0;
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
    this.#queueCharsMax = options.queueCharsMax ?? QUEUE_CHARS_MAX;
  }

  /**
   * @param lines whole lines, each with its newline.
   * @param taken called when they left the queue, written or not.
   */
  write(lines: string, lineCount: number, taken: (() => void) | null = null): void {
    if (this.#queuedChars + lines.length > this.#queueCharsMax) {
      this.#drop(lineCount);
      taken?.();
      return;
    }
    if (this.#unreported > 0 && this.#queuedChars + lines.length <= this.#queueCharsMax / 2) this.#reportDropped();
    this.#push({ lines, taken });
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
    const line = this.#options.droppedLine(this.#unreported);
    this.#unreported = 0;
    this.#push({ lines: line, taken: null });
  }

  #push(batch: Batch): void {
    this.#queue.push(batch);
    this.#queuedChars += batch.lines.length;
  }

  #drop(lineCount: number): void {
    this.droppedCount += lineCount;
    this.#unreported += lineCount;
    this.#options.onDropped?.(lineCount);
  }

  #pump(): void {
    if (this.#writing) return;
    let text = "";
    let count = 0;
    for (const { lines, taken } of this.#queue) {
      if (count > 0 && text.length + lines.length > WRITE_CHARS_MAX) break;
      text += lines;
      count++;
      taken?.();
    }
    if (count === 0) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    this.#queue.splice(0, count);
    this.#queuedChars -= text.length;
    this.#writing = true;
    this.#writeAll(this.#encoder.encode(text), text);
  }

  #writeAll(bytes: Uint8Array, text: string): void {
    this.#options.sink.write(bytes, (error, taken) => {
      if (error !== null) {
        this.failureCount++;
        this.#drop(text.split("\n").length - 1);
      } else if (taken < bytes.length) {
        this.#writeAll(bytes.subarray(taken), text);
        return;
      }
      this.#writing = false;
      this.#pump();
    });
  }
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
