// What tests of a control plane share: a log that nobody reads, and time that they move.

import type { Timers } from "../net/timers.ts";
import { parseLogFilter } from "../runtime/log-filter.ts";
import { descriptorSink, LogWriter } from "../runtime/log-writer.ts";
import { Log, type Logger } from "../runtime/logger.ts";

export function quietLogger(): Logger {
  const filter = parseLogFilter("off");
  if (!filter.ok) throw new Error(filter.error);
  const writer = new LogWriter({ sink: descriptorSink(2), onDropped: () => {}, droppedLine: () => "" });
  return new Log({ writer, clock: { monotonicMs: () => 0, wallMs: () => 0 }, format: "text", filter: filter.value }).scope("test");
}

/** Time that a test moves: what is due runs in its order, and all that follows of it at once before the next. */
export class Time implements Timers {
  nowMs = 0;
  #due: { readonly atMs: number; readonly run: () => void }[] = [];

  after(delayMs: number, run: () => void): () => void {
    const entry = { atMs: this.nowMs + delayMs, run };
    this.#due.push(entry);
    return () => void (this.#due = this.#due.filter((one) => one !== entry));
  }

  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    for (;;) {
      await settle();
      const next = this.#due.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.#due = this.#due.filter((one) => one !== next);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
    }
    this.nowMs = untilMs;
    await settle();
  }
}

/** All that needs no time has happened. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}
