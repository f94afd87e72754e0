// What a request's telemetry costs, without sockets: nanoseconds to begin it (trace, request id, kept fields) and to tell of it when it has
// ended, with metrics only, with a log line of each form, with spans at 1 and 100 percent; and a span's encoding, which is the main
// thread's. `bun bench/micro/telemetry.ts`. Compare only runs of the same machine.

import { seededRandom, systemClock } from "../../src/core/ports.ts";
import { mergeTelemetry } from "../../src/mesh/l7/merge-telemetry.ts";
import type { AccessLogSettings, OtlpCollector, TracingSettings } from "../../src/mesh/l7/telemetry.ts";
import { encodeTraceRequest } from "../../src/telemetry/otlp-messages.ts";
import type { SpanRecord } from "../../src/telemetry/otlp-records.ts";
import { keepFields, type RequestRecord } from "../../src/telemetry/request-record.ts";
import { RequestReporter } from "../../src/telemetry/request-reporter.ts";
import type { RoleTelemetry } from "../../src/telemetry/service-telemetry.ts";
import { identity, request, role, service, workload } from "../../src/telemetry/telemetry-fixtures.ts";
import { ListFields } from "../../src/wire/http/fields.ts";

const ROUND_MS = 60;
const ROUNDS = 9;
const FLUSH_EVERY = 512;
const WARM_UP_BATCHES = 60;
const SOURCES = 20;
const SERVICES = 10;

/** Nanoseconds per call, the best of rounds: whatever else runs on the machine only adds. */
function nsPer(call: (i: number) => void): string {
  const rounds: number[] = [];
  let i = 0;
  for (let round = 0; round <= ROUNDS; round++) {
    const started = performance.now();
    let calls = 0;
    do {
      for (let k = 0; k < FLUSH_EVERY; k++) call(i++);
      calls += FLUSH_EVERY;
    } while (performance.now() - started < ROUND_MS);
    if (round > 0) rounds.push(((performance.now() - started) * 1e6) / calls);
  }
  return `${Math.min(...rounds).toFixed(0)} ns`;
}
const row = (name: string, cell: string): void => console.log(name.padEnd(64) + cell.padStart(12));

const collector: OtlpCollector = { name: "c", protocol: "grpc", service: "obs/c" as OtlpCollector["service"], port: 4317, path: "", timeoutMs: 1000, headers: [] };
let posted = 0;
let spans: readonly SpanRecord[] = [];

function reporterOf(over: Partial<RoleTelemetry> = {}): RequestReporter {
  return new RequestReporter({
    role: { ...role, ...over }, clock: systemClock, random: seededRandom(1), fillRandom: (bytes) => void crypto.getRandomValues(bytes), newRequestId: () => crypto.randomUUID(), logCredit: null, otlpCredit: null,
    postLines: (text) => void (posted += text.length),
    postOtlp: (batches) => {
      for (const batch of batches) if (batch.spans.length > 0) spans = batch.spans;
    },
  });
}

function effective(over: { readonly accessLog?: Partial<AccessLogSettings>; readonly tracing?: Partial<TracingSettings> } = {}) {
  return mergeTelemetry([{
    name: "t", namespace: "shop", targets: [], metrics: [], provenance: { kind: "Telemetry", namespace: "shop", name: "t", resourceVersion: "1", fieldPath: "" },
    tracing: over.tracing === undefined ? null : { disabled: false, collectors: [collector], sampling: 1, tags: [], ...over.tracing },
    accessLog: over.accessLog === undefined ? null : { disabled: false, sinks: null, conditions: [], ...over.accessLog },
  }]);
}

const sources = Array.from({ length: SOURCES }, (_, i) => workload(`client-${i}`));
const services = Array.from({ length: SERVICES }, (_, i) => ({ service: { ...service, name: `web-${i}`, hostname: `web-${i}.shop.svc.cluster.local` }, endpoint: workload(`web-${i}`) }));

/** One of each caller and service, as the data path's objects would be. */
function recordsOf(reporter: RequestReporter, said: ReturnType<typeof effective>): RequestRecord[] {
  const telemetry = reporter.telemetryOf(said);
  return Array.from({ length: SOURCES * SERVICES }, (_, i) => {
    const fields = ListFields.of(["user-agent", "bench/1"]);
    const trace = reporter.trace(fields, telemetry);
    trace?.writeAttempt(fields, trace.attemptId());
    return request({ telemetry, trace, source: sources[i % SOURCES]!, sourceIdentity: identity(`client-${i % SOURCES}`), ...services[i % SERVICES]!, requestFields: keepFields(fields, telemetry.requestFields) });
  });
}

function finished(name: string, over: Partial<RoleTelemetry> = {}, said = effective()): void {
  const reporter = reporterOf(over);
  const records = recordsOf(reporter, said);
  row(name, nsPer((i) => {
    reporter.finished(records[i % records.length]!);
    if (i % FLUSH_EVERY === 0) reporter.flush();
  }));
}

function begun(name: string, list: readonly string[], said = effective()): void {
  const reporter = reporterOf();
  const telemetry = reporter.telemetryOf(said);
  const fields = ListFields.of(list);
  let id = "";
  row(name, nsPer(() => {
    id = reporter.requestId(fields);
    reporter.trace(fields, telemetry);
    keepFields(fields, telemetry.requestFields);
  }));
  if (id === "") throw new Error("no request id");
}

const BROWSER = ["user-agent", "bench/1", "accept", "*/*", "accept-language", "en", "cookie", "a=b"];
const W3C = ["traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"];
begun("begin, nothing configured, id made", BROWSER);
begun("begin, nothing configured, id and unsampled context came", [...BROWSER, ...W3C, "x-request-id", "0f5b1f0e-1"]);
begun("begin, log on, tracing at 1 %, a trace begun", BROWSER, effective({ accessLog: {}, tracing: { sampling: 0.01 } }));
finished("end, metrics only");
finished("end, metrics and text log", { accessLog: "text" });
finished("end, metrics and JSON log", { accessLog: "json" });
finished("end, metrics and a short format", {}, effective({ accessLog: { sinks: [{ kind: "standardOutput", format: { kind: "text", line: "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %DURATION%" } }] } }));
finished("end, metrics and text log of 1 % of clean requests", { accessLog: "text", accessLogSample: 0.01 });
{
  const reporter = reporterOf();
  const unsampled = recordsOf(reporter, effective({ tracing: { sampling: 0 } }));
  const sampled = recordsOf(reporter, effective({ tracing: { sampling: 1 } }));
  row("end, metrics and spans of 1 %", nsPer((i) => {
    reporter.finished((i % 100 === 0 ? sampled : unsampled)[i % unsampled.length]!);
    if (i % FLUSH_EVERY === 0) reporter.flush();
  }));
}
finished("end, metrics and spans of all (two each)", {}, effective({ tracing: {} }));
{
  const resource = { attributes: [["service.name", "waypoint"]] as const, scopeName: "weft", scopeVersion: "1" };
  const batch = spans.slice(0, FLUSH_EVERY);
  let bytes = 0;
  // It takes the compiler a while to see through the writer.
  for (let i = 0; i < WARM_UP_BATCHES; i++) encodeTraceRequest(resource, batch);
  const perBatch = nsPer((i) => {
    if (i % batch.length === 0) bytes = encodeTraceRequest(resource, batch).length;
  });
  row(`main thread: encode one span of ${Math.round(bytes / batch.length)} bytes`, perBatch);
}
if (posted === 0) throw new Error("no line was made");
