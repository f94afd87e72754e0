// What one data thread tells of its requests. `finished` counts, logs and traces one: counting is a look-up by reference and a few
// additions, a line or a span is made only where it is wanted, and nothing waits.
//
//   begin:  telemetryOf(what the store says) ─▶ trace, request id, the fields to keep
//   end:    finished(record) ─▶ metrics ─▶ log lines ─▶ spans        flush, tick: now and then        snapshot: when a scraper asks

import type { Clock, Random } from "../core/ports.ts";
import type { EffectiveTelemetry } from "../mesh/l7/merge-telemetry.ts";
import type { Service } from "../mesh/records.ts";
import type { ReasonCode } from "../policy/http/reason-codes.ts";
import type { HttpFields } from "../wire/http/fields.ts";
import { type FillRandom, IdSource } from "../wire/trace/ids.ts";
import type { Histogram } from "./histogram.ts";
import { holds } from "./log-condition.ts";
import { LogBatch, type LogCredit, type PostLines } from "./log-batch.ts";
import { type Cell, MetricSeries } from "./metric-series.ts";
import type { MetricsSnapshot } from "./metrics-snapshot.ts";
import type { OtlpBatch } from "./otlp-records.ts";
import { OtlpOutbox } from "./otlp-outbox.ts";
import { isError } from "./request-facts.ts";
import { RequestMetrics } from "./request-metrics.ts";
import type { RequestRecord } from "./request-record.ts";
import { logRecordOf, spanCount, spansOf } from "./request-spans.ts";
import { readTrace, requestIdOf, type RequestTrace } from "./request-trace.ts";
import { type LogPlan, type RoleTelemetry, type ServiceTelemetry, TelemetryCompiler, type TracingPlan } from "./service-telemetry.ts";
import { UpstreamMetrics } from "./upstream-metrics.ts";

export interface RequestReporterOptions {
  readonly role: RoleTelemetry;
  readonly clock: Clock;
  /** For what is sampled; need not be secret. */
  readonly random: Random;
  /** For ids of traces and spans; unguessable where that can be had. */
  readonly fillRandom: FillRandom;
  /** A UUID, as fast as can be had: every request without an id gets one. */
  readonly newRequestId: () => string;
  readonly postLines: PostLines;
  readonly postOtlp: (batches: readonly OtlpBatch[]) => void;
  /** Shared with the writer of lines, and with the exporter (of OTLP_IN_FLIGHT_RECORDS_MAX); null where they are this thread. */
  readonly logCredit: LogCredit | null;
  readonly otlpCredit: LogCredit | null;
}

/** Cells of one service, looked up once. */
interface ServiceCells {
  readonly firstByteMs: Histogram;
  readonly upstreamMs: Histogram;
  readonly answers: Map<string, Cell>;
  readonly retries: Map<string, Cell>;
}

const NO_SERVICE: object = Object.freeze({});

export class RequestReporter {
  readonly ids: IdSource;
  readonly upstream: UpstreamMetrics;
  readonly #options: RequestReporterOptions;
  readonly #series = new MetricSeries();
  readonly #requests: RequestMetrics;
  readonly #compiler: TelemetryCompiler;
  readonly #lines: LogBatch;
  readonly #outbox: OtlpOutbox;
  readonly #services = new WeakMap<object, ServiceCells>();

  constructor(options: RequestReporterOptions) {
    this.#options = options;
    this.ids = new IdSource(options.fillRandom);
    this.upstream = new UpstreamMetrics(this.#series);
    this.#requests = new RequestMetrics({ onOverflow: (family) => void this.#series.cell("weft_metric_series_overflowed_total", { family }).value++ });
    this.#compiler = new TelemetryCompiler(options.role);
    this.#lines = new LogBatch(options.postLines, options.logCredit);
    this.#outbox = new OtlpOutbox(options.postOtlp, options.otlpCredit);
  }

  /** Keep it while the store gives the same object: a request holds on to the one it began with. */
  telemetryOf(effective: EffectiveTelemetry): ServiceTelemetry {
    return this.#compiler.of(effective);
  }

  /** From the head of a request, before anything changes it. `RequestTrace.writeAttempt` writes what each attempt is to carry. */
  trace(fields: HttpFields, telemetry: ServiceTelemetry): RequestTrace | null {
    // Nobody would be told of it: what came goes on untouched.
    if (telemetry.tracing === null && telemetry.log === null) return null;
    return readTrace(fields, telemetry.tracing, this.ids);
  }

  /** Of the request, and in its fields from now on. */
  requestId(fields: HttpFields): string {
    return requestIdOf(fields, this.#options.newRequestId);
  }

  /** Call once, when nothing more happens to the request. The record is read before this returns, and not kept. */
  finished(r: RequestRecord): void {
    this.#requests.add(r);
    this.#count(r);
    const { log, tracing } = r.telemetry;
    const spansWanted = tracing !== null && r.trace !== null && r.trace.sampled;
    if (log === null && !spansWanted) return;
    const endedWallMs = this.#options.clock.wallMs();
    if (log !== null && this.#wants(log, r)) this.#log(log, r, endedWallMs);
    if (spansWanted) this.#trace(tracing, r.trace, r, endedWallMs);
  }

  /** What a client sent was no request: it has no record, and is counted only. */
  malformed(code: string): void {
    this.#series.cell("weft_request_malformed_total", { code }).value++;
  }

  /** Of something that is no request, within the same limits. @param text with its newline. */
  line(text: string): void {
    if (this.#lines.reserve()) this.#lines.add(text);
  }

  flush(): void {
    this.#lines.flush();
    this.#outbox.flush();
  }

  /** Call about once a second. */
  tick(nowMs: number): void {
    const evicted = this.#requests.tick(nowMs);
    if (evicted > 0) this.#series.cell("weft_metric_series_evicted_total", {}).value += evicted;
    this.flush();
  }

  snapshot(): MetricsSnapshot {
    this.#series.cell("weft_metric_series", {}).value = this.#requests.size;
    this.#series.cell("weft_log_lines_total", {}).value = this.#lines.madeCount;
    this.#series.cell("weft_log_lines_dropped_total", { where: "data" }).value = this.#lines.droppedCount;
    for (const [signal, counts] of [["traces", this.#outbox.spans], ["logs", this.#outbox.logs]] as const) {
      this.#series.cell("weft_otlp_records_total", { signal }).value = counts.made;
      this.#series.cell("weft_otlp_records_dropped_total", { signal, where: "data" }).value = counts.dropped;
    }
    return {
      connectionKeys: [], connectionValues: new Float64Array(0), cells: this.#series.snapshotCells(), histograms: this.#series.snapshotHistograms(), requests: this.#requests.snapshot(),
    };
  }

  #count(r: RequestRecord): void {
    const cells = this.#cellsOf(r.service);
    if (r.answeredMs > 0) {
      cells.firstByteMs.observe(r.answeredMs - r.startedMs);
      if (r.attemptStartedMs > 0 && r.attempts > r.failedAttempts.length) cells.upstreamMs.observe(r.answeredMs - r.attemptStartedMs);
    }
    if (r.code !== null) this.#countAnswer(cells, r, r.code);
    if (r.attempts > 1) this.#countRetries(cells, r);
    for (const { action } of r.injected) this.#series.cell("weft_request_faults_total", { ...serviceLabels(r.service), action: action.kind }).value++;
  }

  #countAnswer({ answers }: ServiceCells, { service }: RequestRecord, reason: ReasonCode): void {
    this.#kept(answers, reason, () => this.#series.cell("weft_request_answers_total", { ...serviceLabels(service), reason })).value++;
  }

  #countRetries({ retries }: ServiceCells, { service, failedAttempts, attempts }: RequestRecord): void {
    for (const { reason, status, grpcStatus } of failedAttempts.slice(0, attempts - 1)) {
      const cause = reason ?? (grpcStatus !== null ? `grpc-${grpcStatus}` : status === 0 ? "slower" : String(status));
      this.#kept(retries, cause, () => this.#series.cell("weft_request_retries_total", { ...serviceLabels(service), cause })).value++;
    }
  }

  #wants({ conditions, cleanSample }: LogPlan, r: RequestRecord): boolean {
    for (const condition of conditions) if (!holds(condition, r, this.#options.random)) return false;
    return cleanSample >= 1 || isError(r) || cleanSample > 0 && this.#options.random.next() < cleanSample;
  }

  #log({ sinks }: LogPlan, r: RequestRecord, endedWallMs: number): void {
    for (const sink of sinks) {
      if (sink.kind === "standardOutput") {
        if (this.#lines.reserve()) this.#lines.add(sink.format.line(r, endedWallMs));
      } else if (this.#outbox.reserveLog()) {
        this.#outbox.addLog(sink.collector, logRecordOf(r, endedWallMs, this.#options.role.logOptions));
      }
    }
  }

  #trace(plan: TracingPlan, trace: RequestTrace, r: RequestRecord, endedWallMs: number): void {
    const { collectors } = plan;
    if (!this.#outbox.reserveSpans(spanCount(r) * collectors.length)) return;
    const spans = spansOf(r, trace, plan, endedWallMs, this.#options.role.logOptions);
    for (const collector of collectors) this.#outbox.addSpans(collector, spans);
  }

  #cellsOf(service: Service | null): ServiceCells {
    const key = service ?? NO_SERVICE;
    let cells = this.#services.get(key);
    if (cells === undefined) {
      const labels = serviceLabels(service);
      cells = {
        firstByteMs: this.#series.histogram("weft_request_first_byte_milliseconds", labels), upstreamMs: this.#series.histogram("weft_upstream_duration_milliseconds", labels),
        answers: new Map(), retries: new Map(),
      };
      this.#services.set(key, cells);
    }
    return cells;
  }

  /** Causes are codes and statuses: there are not many of them. */
  #kept(cells: Map<string, Cell>, key: string, look: () => Cell): Cell {
    let cell = cells.get(key);
    if (cell === undefined) cells.set(key, (cell = look()));
    return cell;
  }
}

function serviceLabels(service: Service | null): { readonly destination_service_namespace: string; readonly destination_service_name: string } {
  return { destination_service_namespace: service?.namespace ?? "unknown", destination_service_name: service?.name ?? "unknown" };
}
