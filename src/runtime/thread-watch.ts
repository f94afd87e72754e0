// Whether data threads are alive, and how late they are: for the watchdog, the log and the metrics.

import type { Clock } from "../core/ports.ts";
import type { Logger } from "./logger.ts";
import { LAG_PROBE_MS } from "./process-metrics.ts";
import { hungMs, newPulse, PulseWatch, setThreadLag } from "./thread-pulse.ts";
import type { MetricSeries } from "../telemetry/metric-series.ts";

export interface ThreadWatchOptions {
  readonly count: number;
  /** In metrics and the log. */
  readonly nameOf: (thread: number) => string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Null without a watchdog. */
  readonly watchdogMs: number | null;
}

export class ThreadWatch {
  /** One of each thread, which beats it. */
  readonly pulses: readonly SharedArrayBuffer[];
  readonly #options: ThreadWatchOptions;
  readonly #watch: PulseWatch;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(options: ThreadWatchOptions) {
    const { count, nameOf, clock, log, watchdogMs } = options;
    this.#options = options;
    this.pulses = Array.from({ length: count }, newPulse);
    this.#watch = new PulseWatch({
      pulses: this.pulses, nowMs: () => clock.monotonicMs(), hungMs: hungMs(watchdogMs),
      onHung: (thread, silentMs) => log.error("a data thread does not answer: its connections stand still; the watchdog, where there is one, ends this process", { thread: nameOf(thread), silent_ms: Math.round(silentMs) }),
      onAlive: (thread, silentMs) => log.warn("a data thread answers again", { thread: nameOf(thread), silent_ms: Math.round(silentMs) }),
    });
    this.#timer = setInterval(() => this.#watch.look(), LAG_PROBE_MS);
    this.#timer.unref();
  }

  get allAlive(): boolean {
    return this.#watch.allAlive;
  }

  /** Before a snapshot. */
  observe(series: Pick<MetricSeries, "cell">): void {
    for (const [i, lag] of this.#watch.take().entries()) {
      setThreadLag(series, this.#options.nameOf(i), lag);
    }
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
