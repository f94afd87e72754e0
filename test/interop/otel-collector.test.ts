// Spans and log records through a real OpenTelemetry collector, over gRPC and over HTTP, as it passes them on: what it could not read it
// would not. Runs where OTELCOL_BIN names a collector with the otlp receiver and the otlp_http exporter.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { seededRandom, systemClock } from "../../src/core/ports.ts";
import { mergeTelemetry } from "../../src/mesh/l7/merge-telemetry.ts";
import type { OtlpCollector } from "../../src/mesh/l7/telemetry.ts";
import { MetricSeries } from "../../src/telemetry/metric-series.ts";
import { OtlpExporter } from "../../src/telemetry/otlp-exporter.ts";
import { createTransport } from "../../src/telemetry/otlp-transport.ts";
import { RequestReporter } from "../../src/telemetry/request-reporter.ts";
import { keepFields } from "../../src/telemetry/request-record.ts";
import { request, role } from "../../src/telemetry/telemetry-fixtures.ts";
import { ListFields } from "../../src/wire/http/fields.ts";
import { unsealed } from "../kit/box.ts";
import { needsCollector, RealCollector } from "../kit/real-collector.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";

setDefaultTimeout(60_000);

const REQUESTS = 700;

describeUnless(firstReason(unsealed, needsCollector))("a real collector", () => {
  let collector: RealCollector;
  beforeAll(async () => void (collector = await RealCollector.start()));
  afterAll(async () => await collector?.[Symbol.asyncDispose]());

  test.each(["grpc", "http"] as const)("over %s: every span and log record arrives as it was made", async (protocol) => {
    collector.clear();
    const port = protocol === "grpc" ? collector.grpcPort : collector.httpPort;
    const at: OtlpCollector = { name: protocol, protocol, service: "obs/otel" as OtlpCollector["service"], port, path: "", timeoutMs: 10_000, headers: [["x-scope-orgid", "acme"]] };
    const failures: string[] = [];
    const series = new MetricSeries();
    const exporter = new OtlpExporter({
      series, clock: systemClock, random: seededRandom(1), onHealth: (_, signal, failure) => failures.push(`${signal} ${failure}`),
      transportOf: (each) => createTransport(each, { attributes: [["service.name", `waypoint-${protocol}.shop`]], scopeName: "weft", scopeVersion: "0" }, () => ({ host: "127.0.0.1", port })),
    });
    const reporter = new RequestReporter({
      role, clock: systemClock, random: seededRandom(2), fillRandom: (bytes) => void crypto.getRandomValues(bytes), newRequestId: () => crypto.randomUUID(), postLines: () => {}, postOtlp: (batches) => void exporter.take(structuredClone(batches)),
      logCredit: null, otlpCredit: null,
    });
    const telemetry = reporter.telemetryOf(mergeTelemetry([{
      name: "t", namespace: "shop", targets: [], metrics: [], provenance: { kind: "Telemetry", namespace: "shop", name: "t", resourceVersion: "1", fieldPath: "" },
      tracing: { disabled: false, collectors: [at], sampling: 1, tags: [{ name: "team", value: { kind: "literal", text: "cart", fallback: null } }] },
      accessLog: { disabled: false, sinks: [{ kind: "otlp", collector: at }], conditions: [] },
    }]));
    const sent = new Map<string, string>();
    for (let i = 0; i < REQUESTS; i++) {
      const fields = ListFields.of(i % 2 === 0 ? [] : ["traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate", "a=1"]);
      const trace = reporter.trace(fields, telemetry)!;
      trace.writeAttempt(fields, trace.attemptId());
      sent.set(trace.spanId, trace.traceId);
      const failed = i % 10 === 0;
      reporter.finished(request({
        telemetry, trace, requestFields: keepFields(fields, telemetry.requestFields), requestId: `r-${i}`,
        ...(failed ? { status: 503, code: "upstream_reset" as const, flags: "UC", detail: "caf\u00e9 closed" } : {}),
      }));
      // As the data path does now and then: an outbox holds a bounded number.
      if (i % 100 === 99) reporter.flush();
    }
    reporter.flush();
    await exporter.drain(AbortSignal.timeout(30_000));
    const { spans, logs, services } = collector;
    expect(failures).toEqual([]);
    expect([spans.length, logs.length]).toEqual([2 * REQUESTS, REQUESTS]);
    expect(new Set(services)).toEqual(new Set([`waypoint-${protocol}.shop`]));
    const servers = spans.filter(({ kind }) => kind === 2);
    expect(new Map(servers.map(({ spanId, traceId }) => [spanId, traceId]))).toEqual(sent);
    for (const child of spans.filter(({ kind }) => kind === 3)) expect(sent.get(child.parentSpanId)).toBe(child.traceId);
    for (const { startTimeUnixNano, endTimeUnixNano } of servers) expect(Number(BigInt(endTimeUnixNano) - BigInt(startTimeUnixNano)) / 1e6).toBeCloseTo(100, 1);
    const continued = servers.filter(({ parentSpanId }) => parentSpanId === "00f067aa0ba902b7");
    expect([continued.length, continued[0]!.traceState]).toEqual([REQUESTS / 2, "a=1"]);
    const broken = servers.filter(({ status }) => status.code === 2);
    expect([broken.length, broken[0]!.status.message]).toEqual([REQUESTS / 10, "caf\u00e9 closed"]);
    const attributes = Object.fromEntries(broken[0]!.attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue]));
    expect(attributes).toMatchObject({ team: "cart", "weft.reason": "upstream_reset", "http.response.status_code": "503", response_flags: "UC" });
    expect(logs.filter(({ severityText }) => severityText === "ERROR")).toHaveLength(REQUESTS / 10);
    expect(logs[0]!.traceId).toMatch(/^[0-9a-f]{32}$/);
    expect(logs.map(({ body }) => body.stringValue)).toContain("GET /cart?[redacted] HTTP/1.1 200");
    expect(series.snapshotCells().find(({ name }) => name === "weft_otlp_records_dropped_total")).toBeUndefined();
  });
});
