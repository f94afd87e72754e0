// Spans and log records from all data threads to the collectors they are meant for. Lives on the main thread. Each collector and signal
// has a queue with a bound and one call under way; a collector that is slow or away costs its own records and nothing else.

import type { Clock, Random } from "../core/ports.ts";
import type { OtlpCollector } from "../mesh/l7/telemetry.ts";
import type { MetricSeries } from "./metric-series.ts";
import type { OtlpBatch } from "./otlp-records.ts";
import type { OtlpPayload, OtlpSignal, OtlpTransport } from "./otlp-transport.ts";

/** Records that wait for one collector and signal: some 8 MiB. The newest are dropped. */
export const QUEUE_RECORDS_MAX = 8_192;
/** Records in one call: OpenTelemetry's own default for batches. */
export const CALL_RECORDS_MAX = 512;
/** Fewer than a call's worth wait so long for more. */
export const LINGER_MS = 1_000;
const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_MAX_MS = 30_000;
/** Records are given up when they could not be delivered for so long. */
export const GIVE_UP_MS = 120_000;
/** Collectors that were named at some time and are no more lose what they keep open after this. */
const COLLECTOR_IDLE_MS = 300_000;

export interface OtlpExporterOptions {
  readonly transportOf: (collector: OtlpCollector) => OtlpTransport;
  readonly series: MetricSeries;
  readonly clock: Clock;
  /** For the spread of waits. */
  readonly random: Random;
  /** Told of the first failure of a collector, and when it takes records again: for the role's log. */
  readonly onHealth: (collector: OtlpCollector, signal: OtlpSignal, failure: string | null) => void;
}

export class OtlpExporter {
  readonly #options: OtlpExporterOptions;
  /** By everything that is said of the collector: a changed one is another. */
  readonly #collectors = new Map<string, CollectorQueues>();

  constructor(options: OtlpExporterOptions) {
    this.#options = options;
  }

  /** @returns how many records were taken over or dropped: what the sender's credit gets back. */
  take(batches: readonly OtlpBatch[]): number {
    let count = 0;
    for (const { collector, spans, logs } of batches) {
      const queues = this.#of(collector);
      queues.traces.add(spans);
      queues.logs.add(logs);
      count += spans.length + logs.length;
    }
    return count;
  }

  /** Call about once a second: sends what lingers, forgets collectors in disuse. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const [key, queues] of this.#collectors) {
      queues.traces.pump(nowMs);
      queues.logs.pump(nowMs);
      if (nowMs - queues.usedMs < COLLECTOR_IDLE_MS || !queues.traces.empty || !queues.logs.empty) continue;
      queues.transport.close();
      this.#collectors.delete(key);
    }
  }

  /** Sends what there is, each call once, and ends; resolves at `signal` at the latest. */
  async drain(signal: AbortSignal): Promise<void> {
    await Promise.all([...this.#collectors.values()].flatMap(({ traces, logs }) => [traces.drain(signal), logs.drain(signal)]));
    for (const { transport } of this.#collectors.values()) transport.close();
    this.#collectors.clear();
  }

  #of(collector: OtlpCollector): CollectorQueues {
    const key = JSON.stringify(collector);
    let queues = this.#collectors.get(key);
    if (queues === undefined) {
      const transport = this.#options.transportOf(collector);
      queues = {
        transport, usedMs: 0, traces: new Queue(collector, transport, this.#options, (records) => ({ signal: "traces", records })),
        logs: new Queue(collector, transport, this.#options, (records) => ({ signal: "logs", records })),
      };
      this.#collectors.set(key, queues);
    }
    queues.usedMs = this.#options.clock.monotonicMs();
    return queues;
  }
}

interface CollectorQueues {
  readonly transport: OtlpTransport;
  usedMs: number;
  readonly traces: Queue<Extract<OtlpPayload, { signal: "traces" }>["records"][number]>;
  readonly logs: Queue<Extract<OtlpPayload, { signal: "logs" }>["records"][number]>;
}

class Queue<R> {
  readonly #collector: OtlpCollector;
  readonly #transport: OtlpTransport;
  readonly #options: OtlpExporterOptions;
  readonly #payload: (records: readonly R[]) => OtlpPayload;
  readonly #signal: OtlpSignal;
  #records: R[] = [];
  /** When the oldest of `#records` came. */
  #sinceMs = 0;
  #underWay: Promise<void> | null = null;
  #waitUntilMs = 0;
  #backoffMs = BACKOFF_FIRST_MS;
  #failing = false;

  constructor(collector: OtlpCollector, transport: OtlpTransport, options: OtlpExporterOptions, payload: (records: readonly R[]) => OtlpPayload) {
    this.#collector = collector;
    this.#transport = transport;
    this.#options = options;
    this.#payload = payload;
    this.#signal = payload([]).signal;
  }

  get empty(): boolean {
    return this.#records.length === 0 && this.#underWay === null;
  }

  add(records: readonly R[]): void {
    if (records.length === 0) return;
    const nowMs = this.#options.clock.monotonicMs();
    const room = QUEUE_RECORDS_MAX - this.#records.length;
    if (this.#records.length === 0) this.#sinceMs = nowMs;
    this.#records.push(...(records.length > room ? records.slice(0, room) : records));
    if (records.length > room) this.#dropped("queue", records.length - Math.max(room, 0));
    this.pump(nowMs);
  }

  pump(nowMs: number): void {
    if (this.#underWay !== null || this.#records.length === 0 || nowMs < this.#waitUntilMs) return;
    if (this.#records.length < CALL_RECORDS_MAX && nowMs - this.#sinceMs < LINGER_MS) return;
    this.#send();
  }

  async drain(signal: AbortSignal): Promise<void> {
    const ended = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
    while (!signal.aborted && !this.empty) {
      if (this.#underWay === null) this.#send();
      const before = this.#records.length;
      await Promise.race([this.#underWay, ended]);
      // It took none of them: there is no time to wait until it does.
      if (this.#records.length === before && this.#failing) break;
    }
    if (this.#records.length > 0) this.#dropped("queue", this.#records.length);
    this.#records = [];
  }

  #send(): void {
    const records = this.#records.slice(0, CALL_RECORDS_MAX);
    this.#underWay = this.#call(records).finally(() => {
      this.#underWay = null;
      // The next batch goes at once when it is full; the clock sends it otherwise.
      this.pump(this.#options.clock.monotonicMs());
    });
  }

  async #call(records: readonly R[]): Promise<void> {
    const outcome = await this.#transport.send(this.#payload(records), AbortSignal.timeout(this.#collector.timeoutMs));
    const nowMs = this.#options.clock.monotonicMs();
    switch (outcome.kind) {
      case "ok": {
        const { rejected, message } = outcome.partial;
        this.#exported(rejected > 0 ? "partial" : "ok");
        if (rejected > 0) this.#dropped("refused", Math.min(rejected, records.length));
        this.#healthy(rejected > 0 ? `${rejected} of ${records.length} records refused: ${message}` : null);
        return this.#done(records.length, nowMs);
      }
      case "refused":
        this.#exported("refused");
        this.#dropped("refused", records.length);
        this.#healthy(outcome.message);
        return this.#done(records.length, nowMs);
      case "retry":
        this.#exported("failed");
        this.#healthy(outcome.message);
        if (nowMs - this.#sinceMs >= GIVE_UP_MS) {
          this.#dropped("queue", records.length);
          this.#done(records.length, nowMs);
        }
        // Full jitter above a half, so that many waypoints do not come back in step.
        this.#waitUntilMs = nowMs + (outcome.afterMs ?? this.#backoffMs * (0.5 + this.#options.random.next() / 2));
        this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MAX_MS);
        return;
      default:
        return outcome satisfies never;
    }
  }

  #done(count: number, nowMs: number): void {
    this.#records.splice(0, count);
    this.#sinceMs = nowMs;
    this.#waitUntilMs = 0;
    this.#backoffMs = BACKOFF_FIRST_MS;
  }

  #healthy(failure: string | null): void {
    if (this.#failing === (failure !== null)) return;
    this.#failing = failure !== null;
    this.#options.onHealth(this.#collector, this.#signal, failure);
  }

  #exported(outcome: "ok" | "partial" | "failed" | "refused"): void {
    this.#options.series.cell("weft_otlp_exports_total", { collector: this.#collector.name, signal: this.#signal, outcome }).value++;
  }

  #dropped(where: "queue" | "refused", count: number): void {
    this.#options.series.cell("weft_otlp_records_dropped_total", { signal: this.#signal, where }).value += count;
  }
}
