// What the process itself tells: descriptors, memory, processor time, and how late this thread's timers are.

import { readdirSync, readFileSync } from "node:fs";
import type { GaugeSource } from "../telemetry/exposition.ts";
import type { MetricSeries } from "../telemetry/metric-series.ts";
import { setThreadLag } from "./thread-pulse.ts";

/** How often the lag of a thread is looked at. */
export const LAG_PROBE_MS = 500;

export function processMetrics(): GaugeSource[] {
  const startedS = Math.round((Date.now() - performance.now()) / 1000);
  return [
    { name: "process_open_fds", help: "Descriptors open now", type: "gauge", read: openDescriptors },
    { name: "process_max_fds", help: "Descriptors this process may have", type: "gauge", read: maxDescriptors },
    { name: "process_resident_memory_bytes", help: "Memory in use", type: "gauge", read: () => process.memoryUsage.rss() },
    { name: "process_cpu_seconds_total", help: "Processor time used", type: "counter", read: cpuSeconds },
    { name: "process_start_time_seconds", help: "Start of the process, Unix time", type: "gauge", read: () => startedS },
  ];
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Null where /proc is not there. */
function openDescriptors(): number | null {
  try {
    return readdirSync("/proc/self/fd").length - 1; // the listing itself needed one
  } catch {
    return null;
  }
}

function maxDescriptors(): number | null {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"));
    return soft === null ? null : Number(soft[1]);
  } catch {
    return null;
  }
}

/** How late a periodic timer of this thread fires: the time during which nothing else was served either. */
export class LagProbe {
  #expectedMs: number;
  #lastMs = 0;
  #maxMs = 0;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(clock: { readonly nowMs: () => number } = { nowMs: () => performance.now() }) {
    this.#expectedMs = clock.nowMs() + LAG_PROBE_MS;
    this.#timer = setInterval(() => this.#look(clock.nowMs()), LAG_PROBE_MS);
    this.#timer.unref();
  }

  #look(nowMs: number): void {
    this.#lastMs = Math.max(0, nowMs - this.#expectedMs);
    this.#maxMs = Math.max(this.#maxMs, this.#lastMs);
    this.#expectedMs = nowMs + LAG_PROBE_MS;
  }

  /** Before a snapshot: the last lag, and the largest since the last call. */
  tell(series: Pick<MetricSeries, "cell">): void {
    setThreadLag(series, "main", { lastS: this.#lastMs / 1000, maxS: this.#maxMs / 1000 });
    this.#maxMs = 0;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
