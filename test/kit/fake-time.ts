// Clocks and timers that a test moves: what is due runs in its order, and all that follows of it before the next.

import type { Clock } from "../../src/core/ports.ts";
import type { Timers } from "../../src/net/timers.ts";

export class FakeTime implements Clock, Timers {
  /** What the wall clock is ahead of the monotonic one. */
  wallOffsetMs: number;
  #nowMs = 0;
  readonly #timers = new Set<{ readonly atMs: number; readonly run: () => void }>();

  constructor(startMs = 0) {
    this.wallOffsetMs = startMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs + this.wallOffsetMs;
  }

  after(delayMs: number, run: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, run };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  /** Timers that are set. */
  get pending(): number {
    return this.#timers.size;
  }

  async pass(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      await settled();
      const [next] = [...this.#timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs);
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.run();
    }
    this.#nowMs = untilMs;
  }
}

/** All that needs no time has happened. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
