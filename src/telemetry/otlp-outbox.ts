// Spans and log records on their way from a data thread: gathered by collector and handed on in batches, within a credit that the main
// thread gives back. What is made faster than it is taken is dropped and counted. Never waits.

import type { OtlpCollector } from "../mesh/l7/telemetry.ts";
import type { LogCredit } from "./log-batch.ts";
import type { LogRecord, OtlpBatch, SpanRecord } from "./otlp-records.ts";

/** Records of all collectors between two flushes. */
export const OUTBOX_RECORDS_MAX = 2_048;
/** Records handed on and not yet taken over by the exporter: some 8 MiB of them. */
export const OTLP_IN_FLIGHT_RECORDS_MAX = 8_192;

interface Pending {
  readonly spans: SpanRecord[];
  readonly logs: LogRecord[];
}

export interface OutboxCounts {
  made: number;
  dropped: number;
}

export class OtlpOutbox {
  readonly #post: (batches: readonly OtlpBatch[]) => void;
  readonly #credit: LogCredit | null;
  readonly #pending = new Map<OtlpCollector, Pending>();
  #count = 0;
  /** Cumulative. */
  readonly spans: OutboxCounts = { made: 0, dropped: 0 };
  readonly logs: OutboxCounts = { made: 0, dropped: 0 };

  /** @param credit of OTLP_IN_FLIGHT_RECORDS_MAX, shared with the exporter; null where both are one thread. */
  constructor(post: (batches: readonly OtlpBatch[]) => void, credit: LogCredit | null) {
    this.#post = post;
    this.#credit = credit;
  }

  /** False when a trace of so many spans has no room until the next flush: it is counted as dropped, and need not be made. */
  reserveSpans(count: number): boolean {
    this.spans.made += count;
    if (this.#count + count <= OUTBOX_RECORDS_MAX) return true;
    this.spans.dropped += count;
    return false;
  }

  addSpans(collector: OtlpCollector, spans: readonly SpanRecord[]): void {
    this.#of(collector).spans.push(...spans);
    this.#count += spans.length;
  }

  reserveLog(): boolean {
    this.logs.made++;
    if (this.#count < OUTBOX_RECORDS_MAX) return true;
    this.logs.dropped++;
    return false;
  }

  addLog(collector: OtlpCollector, log: LogRecord): void {
    this.#of(collector).logs.push(log);
    this.#count++;
  }

  flush(): void {
    if (this.#count === 0) return;
    const batches = [...this.#pending].map(([collector, { spans, logs }]) => ({ collector, spans, logs }));
    if (this.#credit !== null && !this.#credit.take(this.#count)) {
      for (const { spans, logs } of batches) {
        this.spans.dropped += spans.length;
        this.logs.dropped += logs.length;
      }
    } else {
      this.#post(batches);
    }
    this.#pending.clear();
    this.#count = 0;
  }

  #of(collector: OtlpCollector): Pending {
    let pending = this.#pending.get(collector);
    if (pending === undefined) this.#pending.set(collector, (pending = { spans: [], logs: [] }));
    return pending;
  }
}
