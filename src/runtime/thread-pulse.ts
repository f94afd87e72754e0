// Whether a data thread is alive, seen from outside: it counts its ticks in shared memory, and the main thread looks whether the count
// goes on. No message is needed, so a thread that hangs is noticed, and one that is merely busy says how late it is.

import type { MetricSeries } from "../telemetry/metric-series.ts";

const BEATS = 0;
const LAG_MS = 1;
const LAG_MAX_MS = 2;
const SLOTS = 3;

export const newPulse = (): SharedArrayBuffer => new SharedArrayBuffer(SLOTS * Int32Array.BYTES_PER_ELEMENT);

/** In the thread: called by a timer of `periodMs`. */
export class Pulse {
  readonly #slots: Int32Array;
  readonly #periodMs: number;
  #expectedMs: number | null = null;

  constructor(shared: SharedArrayBuffer, periodMs: number) {
    this.#slots = new Int32Array(shared);
    this.#periodMs = periodMs;
  }

  beat(nowMs: number): void {
    const lagMs = this.#expectedMs === null ? 0 : Math.max(0, Math.round(nowMs - this.#expectedMs));
    this.#expectedMs = nowMs + this.#periodMs;
    Atomics.store(this.#slots, LAG_MS, lagMs);
    if (lagMs > Atomics.load(this.#slots, LAG_MAX_MS)) Atomics.store(this.#slots, LAG_MAX_MS, lagMs);
    Atomics.add(this.#slots, BEATS, 1);
  }
}

const HUNG_MS = 10_000;
const HUNG_MS_MIN = 1_000;

/** Silence of a data thread after which it counts as hung: long for any work it has, and well within the watchdog's time, if there is one. */
export function hungMs(watchdogMs: number | null): number {
  return watchdogMs === null ? HUNG_MS : Math.max(HUNG_MS_MIN, Math.min(HUNG_MS, watchdogMs / 2));
}

export interface ThreadLag {
  readonly lastS: number;
  readonly maxS: number;
}

export function setThreadLag(series: Pick<MetricSeries, "cell">, thread: string, { lastS, maxS }: ThreadLag): void {
  series.cell("weft_thread_lag_seconds", { thread }).value = lastS;
  series.cell("weft_thread_lag_max_seconds", { thread }).value = maxS;
}

export interface PulseWatchOptions {
  readonly pulses: readonly SharedArrayBuffer[];
  readonly nowMs: () => number;
  /** Silence after which a thread counts as hung. */
  readonly hungMs: number;
  readonly onHung: (thread: number, silentMs: number) => void;
  readonly onAlive: (thread: number, silentMs: number) => void;
}

interface Watched {
  readonly slots: Int32Array;
  beats: number;
  /** When the count was last seen to have moved. */
  movedMs: number;
  hung: boolean;
  maxMs: number;
}

/** In the main thread. */
export class PulseWatch {
  readonly #options: PulseWatchOptions;
  readonly #threads: readonly Watched[];

  constructor(options: PulseWatchOptions) {
    this.#options = options;
    const movedMs = options.nowMs();
    this.#threads = options.pulses.map((pulse) => ({ slots: new Int32Array(pulse), beats: 0, movedMs, hung: false, maxMs: 0 }));
  }

  /** Call it about twice a second. */
  look(): void {
    const { nowMs, hungMs, onHung, onAlive } = this.#options;
    const now = nowMs();
    this.#threads.forEach((thread, i) => {
      const silentMs = now - thread.movedMs;
      const beats = Atomics.load(thread.slots, BEATS);
      if (beats !== thread.beats) {
        thread.beats = beats;
        thread.movedMs = now;
        if (thread.hung) onAlive(i, silentMs);
        thread.hung = false;
        return;
      }
      thread.maxMs = Math.max(thread.maxMs, silentMs);
      if (silentMs < hungMs || thread.hung) return;
      thread.hung = true;
      onHung(i, silentMs);
    });
  }

  get allAlive(): boolean {
    return this.#threads.every(({ hung }) => !hung);
  }

  /** How late each thread is now, and was at most since the last call. */
  take(): ThreadLag[] {
    const now = this.#options.nowMs();
    return this.#threads.map((thread) => {
      const silentMs = Atomics.load(thread.slots, BEATS) === thread.beats ? now - thread.movedMs : 0;
      // A look is half a second apart from the next: silence below that says nothing, what the thread measured does.
      const lastMs = thread.hung ? silentMs : Atomics.load(thread.slots, LAG_MS);
      const maxMs = Math.max(lastMs, thread.hung ? thread.maxMs : 0, Atomics.exchange(thread.slots, LAG_MAX_MS, 0));
      thread.maxMs = 0;
      return { lastS: lastMs / 1000, maxS: maxMs / 1000 };
    });
  }
}
