import { describe, expect, test } from "bun:test";
import { seededRandom } from "../core/ports.ts";
import { mergeTelemetry } from "../mesh/l7/merge-telemetry.ts";
import type { AccessLogSettings, OtlpCollector, TelemetryPolicy, TracingSettings } from "../mesh/l7/telemetry.ts";
import { CircuitBreaker, Permits } from "../policy/upstream/circuit-breaker.ts";
import type { EndpointTransition } from "../policy/upstream/ejections.ts";
import { ListFields } from "../wire/http/fields.ts";
import { BATCH_LINES_MAX, LogCredit } from "./log-batch.ts";
import type { OtlpBatch, SpanRecord } from "./otlp-records.ts";
import { OTLP_IN_FLIGHT_RECORDS_MAX, OUTBOX_RECORDS_MAX } from "./otlp-outbox.ts";
import { KeptFields, keepFields, type RequestRecord } from "./request-record.ts";
import { RequestReporter } from "./request-reporter.ts";
import type { RoleTelemetry, ServiceTelemetry } from "./service-telemetry.ts";
import { nothingSaid, request, role, service, workload } from "./telemetry-fixtures.ts";

const WALL = 1_767_323_045_106;

function make(over: { role?: Partial<RoleTelemetry>; logCredit?: LogCredit; otlpCredit?: LogCredit } = {}) {
  const random = seededRandom(5);
  const lines: string[] = [];
  const batches: OtlpBatch[] = [];
  const reporter = new RequestReporter({
    role: { ...role, ...over.role }, clock: { monotonicMs: () => 0, wallMs: () => WALL }, random, fillRandom: (bytes) => bytes.forEach((_, i) => (bytes[i] = Math.floor(random.next() * 256))), newRequestId: () => crypto.randomUUID(),
    postLines: (bytes) => lines.push(...new TextDecoder().decode(bytes).split("\n").slice(0, -1)), postOtlp: (posted) => batches.push(...structuredClone([...posted])), logCredit: over.logCredit ?? null, otlpCredit: over.otlpCredit ?? null,
  });
  const cells = (name: string): Record<string, number> => {
    const family = reporter.snapshot().cells.find((each) => each.name === name);
    return Object.fromEntries((family?.keys ?? []).map((key, i) => [key.split("\x1f").join(" "), family!.values[i]!]));
  };
  return { reporter, lines, batches, cells };
}

function said(over: { accessLog?: Partial<AccessLogSettings>; tracing?: Partial<TracingSettings> }) {
  const policy: TelemetryPolicy = {
    name: "t", namespace: "shop", targets: [], metrics: [], provenance: { kind: "Telemetry", namespace: "shop", name: "t", resourceVersion: "1", fieldPath: "" },
    tracing: over.tracing === undefined ? null : { disabled: false, collectors: null, sampling: null, tags: [], ...over.tracing },
    accessLog: over.accessLog === undefined ? null : { disabled: false, sinks: null, conditions: [], ...over.accessLog },
  };
  return mergeTelemetry([policy]);
}

const collector = (name: string): OtlpCollector => ({ name, protocol: "http", service: "obs/otel.obs.svc.cluster.local" as OtlpCollector["service"], port: 4318, path: "", timeoutMs: 1000, headers: [] });

describe("the log", () => {
  const of = (telemetry: ServiceTelemetry, over: Partial<RequestRecord> = {}) => request({ telemetry, ...over });

  test("is off unless asked for", () => {
    const { reporter, lines } = make();
    reporter.finished(of(reporter.telemetryOf(nothingSaid), { status: 500 }));
    reporter.flush();
    expect(lines).toEqual([]);
  });

  test("of the role: clean requests by share, others always", () => {
    const { reporter, lines } = make({ role: { accessLog: "text", accessLogSample: 0.1 } });
    const telemetry = reporter.telemetryOf(nothingSaid);
    for (let i = 0; i < 1000; i++) reporter.finished(of(telemetry));
    reporter.flush();
    expect(lines.length).toBeGreaterThan(70);
    expect(lines.length).toBeLessThan(130);
    lines.length = 0;
    for (const over of [{ status: 404 }, { status: 0, flags: "DC" }, { grpcStatus: 5 }, { flags: "UF" }]) reporter.finished(of(telemetry, over));
    reporter.flush();
    expect(lines).toHaveLength(4);
  });

  test("Telemetry resources switch it on and off, and give its form", () => {
    const { reporter, lines } = make();
    reporter.finished(of(reporter.telemetryOf(said({ accessLog: {} }))));
    reporter.finished(of(reporter.telemetryOf(said({ accessLog: { sinks: [{ kind: "standardOutput", format: { kind: "text", line: "%RESPONSE_CODE%" } }] } }))));
    reporter.flush();
    expect([lines[0]!.startsWith("[2026-"), lines[1]]).toEqual([true, "200"]);
    const loud = make({ role: { accessLog: "json" } });
    loud.reporter.finished(of(loud.reporter.telemetryOf(said({ accessLog: { disabled: true } }))));
    loud.reporter.flush();
    expect(loud.lines).toEqual([]);
  });

  test("its conditions all have to hold", () => {
    const { reporter, lines } = make();
    const telemetry = reporter.telemetryOf(said({ accessLog: { conditions: [{ kind: "status", compare: ">=", value: 400 }, { kind: "slowerThanMs", value: 1000 }] } }));
    for (const over of [{ status: 503 }, { endedMs: 9000 }, { status: 503, endedMs: 9000 }]) reporter.finished(of(telemetry, over));
    const half = reporter.telemetryOf(said({ accessLog: { conditions: [{ kind: "sample", fraction: 0.5 }] } }));
    reporter.flush();
    expect(lines).toHaveLength(1);
    for (let i = 0; i < 1000; i++) reporter.finished(of(half));
    reporter.flush();
    expect(lines.length).toBeGreaterThan(430);
    expect(lines.length).toBeLessThan(570);
  });

  test.each([[">=", 400, true], ["<=", 399, false], ["==", 400, true], ["!=", 400, false], [">", 400, false], ["<", 401, true]] as const)("status %s %i", (compare, value, logged) => {
    const { reporter, lines } = make();
    reporter.finished(of(reporter.telemetryOf(said({ accessLog: { conditions: [{ kind: "status", compare, value }] } })), { status: 400 }));
    reporter.flush();
    expect(lines.length === 1).toBe(logged);
  });

  test("with a writer that takes nothing a full batch is dropped and counted, and no more lines are made until the next flush", () => {
    const credit = new LogCredit(undefined, 10);
    const { reporter, lines, cells } = make({ role: { accessLog: "text" }, logCredit: credit });
    const telemetry = reporter.telemetryOf(nothingSaid);
    for (let i = 0; i < BATCH_LINES_MAX + 7; i++) reporter.finished(of(telemetry));
    expect([cells("weft_log_lines_total"), cells("weft_log_lines_dropped_total")]).toEqual([{ "": BATCH_LINES_MAX }, { data: BATCH_LINES_MAX + 7 }]);
    reporter.flush();
    reporter.finished(of(telemetry));
    expect([lines.length, cells("weft_log_lines_total")]).toEqual([0, { "": BATCH_LINES_MAX + 1 }]);
  });

  test("to a collector: a record with the facts as attributes", () => {
    const { reporter, batches } = make();
    reporter.finished(of(reporter.telemetryOf(said({ accessLog: { sinks: [{ kind: "otlp", collector: collector("logs") }] } })), { status: 503, code: "no_endpoints", flags: "UH", detail: "none" }));
    reporter.flush();
    expect(batches).toHaveLength(1);
    const [log] = batches[0]!.logs;
    expect(log).toMatchObject({ wallMs: WALL, severity: "error", body: "GET /cart?[redacted] HTTP/1.1 503", traceId: null });
    expect(Object.fromEntries(log!.attributes)).toMatchObject({ "http.response.status_code": 503, "weft.reason": "no_endpoints", response_flags: "UH", "weft.detail": "none", destination_service: service.hostname });
  });

  test("the same configuration is compiled once", () => {
    const { reporter } = make();
    const effective = said({ accessLog: {} });
    expect(reporter.telemetryOf(effective)).toBe(reporter.telemetryOf(effective));
    expect(reporter.telemetryOf(effective).requestFields).toEqual(["user-agent", "x-forwarded-for"]);
  });
});

describe("spans", () => {
  const traced = (tracing: Partial<TracingSettings> = {}) => said({ tracing: { collectors: [collector("c")], sampling: 1, ...tracing } });

  /** Begins and ends a request as the data path does. */
  function run(made: ReturnType<typeof make>, telemetry: ServiceTelemetry, over: Partial<RequestRecord> = {}, fields = ListFields.of(["user-agent", "curl/8", "x-tenant", "acme"])): SpanRecord[] {
    const { reporter, batches } = made;
    const trace = reporter.trace(fields, telemetry);
    trace?.writeAttempt(fields, trace.attemptId());
    reporter.finished(request({ telemetry, trace, requestFields: keepFields(fields, telemetry.requestFields), ...over }));
    reporter.flush();
    return batches.splice(0).flatMap(({ spans }) => [...spans]);
  }

  test("one for the request and one for its attempt, as parent and child, at the times of both", () => {
    const made = make();
    const [server, client] = run(made, made.reporter.telemetryOf(traced()), {}, ListFields.of(["traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate", "a=1"]));
    expect(server).toMatchObject({ kind: "server", traceId: "4bf92f3577b34da6a3ce929d0e0e4736", parentSpanId: "00f067aa0ba902b7", tracestate: "a=1", name: "GET web.shop.svc.cluster.local", startedWallMs: WALL - 100, endedWallMs: WALL, error: null });
    expect(client).toMatchObject({ kind: "client", traceId: server!.traceId, parentSpanId: server!.spanId, startedWallMs: WALL - 90, endedWallMs: WALL, error: null });
    expect(Object.fromEntries(server!.attributes)).toMatchObject({
      "http.request.method": "GET", "url.path": "/cart", "http.response.status_code": 200, "client.address": "198.18.0.1", "guid:x-request-id": "r-1", "weft.route": "HTTPRoute/shop/web", "weft.rule_name": "cart",
      "weft.rule": "HTTPRoute shop/web spec.rules[0].matches[0]", "weft.retries": 0, response_flags: "-", source_workload: "client", destination_workload: "web",
    });
    expect(JSON.stringify([server, client])).not.toContain("secret");
  });

  test("what failed, was tried again, was injected or refused stands in attributes a sampler can see", () => {
    const made = make();
    const provenance = { kind: "VirtualService", namespace: "shop", name: "chaos", resourceVersion: "1", fieldPath: "spec.http[0].fault" };
    const spans = run(made, made.reporter.telemetryOf(traced()), {
      status: 503, code: "connect_failed", flags: "UF", detail: "refused", attempts: 2, injected: [{ action: { kind: "delay", fixedMs: 5 }, provenance }],
      failedAttempts: [1, 2].map((n) => ({ address: `198.18.0.${n}:80`, endpoint: workload("web"), startedMs: 1010, endedMs: 1020, status: 0, grpcStatus: null, reason: "connect_failed" as const, message: "refused", spanId: `000000000000000${n}` })),
    });
    expect(spans.map(({ kind, error }) => [kind, error])).toEqual([["server", "refused"], ["client", "refused"], ["client", "refused"]]);
    expect(Object.fromEntries(spans[0]!.attributes)).toMatchObject({
      "weft.reason": "connect_failed", "weft.retries": 1, "weft.fault": ["delay 5 ms by VirtualService shop/chaos spec.http[0].fault"], response_flags: "UF",
      "weft.tried": ["198.18.0.1:80 connect_failed after 10 ms: refused", "198.18.0.2:80 connect_failed after 10 ms: refused"],
    });
    expect(spans.slice(1).map(({ spanId, attributes }) => [spanId, Object.fromEntries(attributes)["weft.attempt"]])).toEqual([["0000000000000001", 1], ["0000000000000002", 2]]);
  });

  test("a client's mistake is no error of the server's span, a server's is", () => {
    const made = make();
    const telemetry = made.reporter.telemetryOf(traced());
    const errors = (over: Partial<RequestRecord>) => run(made, telemetry, over).map(({ error }) => error !== null);
    expect(errors({ status: 404 })).toEqual([false, true]);
    expect(errors({ status: 500 })).toEqual([true, true]);
    expect(errors({ isGrpc: true, grpcStatus: 5 })).toEqual([false, true]);
    expect(errors({ isGrpc: true, grpcStatus: 14 })).toEqual([true, true]);
    expect(errors({ attempts: 0, status: 403, code: "access_denied" })).toEqual([false]);
  });

  test("tags: fixed, from a field, from the environment", () => {
    const made = make({ role: { environment: (name) => (name === "REGION" ? "north" : undefined) } });
    const telemetry = made.reporter.telemetryOf(traced({ tags: [
      { name: "team", value: { kind: "literal", text: "cart", fallback: null } }, { name: "tenant", value: { kind: "header", text: "x-tenant", fallback: null } }, { name: "tier", value: { kind: "header", text: "x-tier", fallback: "free" } },
      { name: "region", value: { kind: "environment", text: "REGION", fallback: null } }, { name: "zone", value: { kind: "environment", text: "ZONE", fallback: "z" } }, { name: "none", value: { kind: "header", text: "x-none", fallback: null } },
    ] }));
    const attributes = Object.fromEntries(run(made, telemetry)[0]!.attributes);
    expect(attributes).toMatchObject({ team: "cart", tenant: "acme", tier: "free", region: "north", zone: "z" });
    expect(attributes["none"]).toBeUndefined();
  });

  test("a method of the client's own invention names no span", () => {
    const made = make();
    const [server] = run(made, made.reporter.telemetryOf(traced()), { method: "X1234" });
    expect(server!.name).toBe("HTTP web.shop.svc.cluster.local");
    expect(Object.fromEntries(server!.attributes)).toMatchObject({ "http.request.method": "_OTHER", "http.request.method_original": "X1234" });
  });

  test("each collector gets its own; unsampled and disabled get none", () => {
    const made = make();
    expect(run(made, made.reporter.telemetryOf(traced({ collectors: [collector("a"), collector("b")] })))).toHaveLength(4);
    expect(run(made, made.reporter.telemetryOf(traced({ sampling: 0 })))).toEqual([]);
    expect(run(made, made.reporter.telemetryOf(traced({ disabled: true })))).toEqual([]);
    expect(run(made, made.reporter.telemetryOf(traced({ collectors: [] })))).toEqual([]);
  });

  test("more than fits between two flushes is dropped and counted; so is what the main thread does not take", () => {
    const credit = new LogCredit(undefined, OTLP_IN_FLIGHT_RECORDS_MAX);
    const made = make({ otlpCredit: credit });
    const telemetry = made.reporter.telemetryOf(traced());
    const fields = ListFields.of([]);
    const trace = made.reporter.trace(fields, telemetry)!;
    trace.writeAttempt(fields, trace.attemptId());
    const one = request({ telemetry, trace });
    for (let i = 0; i < OUTBOX_RECORDS_MAX; i++) made.reporter.finished(one);
    made.reporter.flush();
    expect(made.batches.flatMap(({ spans }) => spans)).toHaveLength(OUTBOX_RECORDS_MAX);
    expect(made.cells("weft_otlp_records_dropped_total")).toEqual({ "traces data": OUTBOX_RECORDS_MAX, "logs data": 0 });
    expect(credit.take(OTLP_IN_FLIGHT_RECORDS_MAX - OUTBOX_RECORDS_MAX)).toBe(true);
    made.reporter.finished(one);
    made.reporter.flush();
    expect(made.cells("weft_otlp_records_dropped_total")["traces data"]).toBe(OUTBOX_RECORDS_MAX + 2);
  });
});

describe("counters of our own", () => {
  test("answers by reason, retries by cause, faults by kind, what was no request", () => {
    const { reporter, cells } = make();
    const provenance = { kind: "VirtualService", namespace: "shop", name: "chaos", resourceVersion: "1", fieldPath: "" };
    const failed = { address: "a", endpoint: null, startedMs: 0, endedMs: 1, message: "", spanId: "" };
    reporter.finished(request({ code: "no_endpoints", status: 503 }));
    reporter.finished(request({ code: "access_denied", status: 403, service: null }));
    reporter.finished(request({ attempts: 4, failedAttempts: [{ ...failed, status: 0, grpcStatus: null, reason: "upstream_reset" }, { ...failed, status: 503, grpcStatus: null, reason: null }, { ...failed, status: 200, grpcStatus: 14, reason: null }] }));
    // Its last attempt failed too: that was not tried again.
    reporter.finished(request({ attempts: 2, code: "upstream_reset", failedAttempts: [{ ...failed, status: 0, grpcStatus: null, reason: "upstream_reset" }, { ...failed, status: 0, grpcStatus: null, reason: "upstream_reset" }] }));
    reporter.finished(request({ injected: [{ action: { kind: "delay", fixedMs: 1 }, provenance }, { action: { kind: "reset" }, provenance }] }));
    reporter.malformed("badTarget");
    expect(cells("weft_request_answers_total")).toEqual({ "shop web no_endpoints": 1, "unknown unknown access_denied": 1, "shop web upstream_reset": 1 });
    expect(cells("weft_request_retries_total")).toEqual({ "shop web upstream_reset": 2, "shop web 503": 1, "shop web grpc-14": 1 });
    expect(cells("weft_request_faults_total")).toEqual({ "shop web delay": 1, "shop web reset": 1 });
    expect(cells("weft_request_malformed_total")).toEqual({ badTarget: 1 });
  });

  test("the endpoint's own time is that of the attempt that answered", () => {
    const { reporter } = make();
    reporter.finished(request());
    reporter.finished(request({ attempts: 0, attemptStartedMs: 0, code: "access_denied" }));
    const failed = { address: "a", endpoint: null, startedMs: 1010, endedMs: 1039, status: 0, grpcStatus: null, reason: "upstream_reset", message: "", spanId: "" } as const;
    reporter.finished(request({ code: "upstream_reset", failedAttempts: [failed] }));
    const sums = Object.fromEntries(reporter.snapshot().histograms.map(({ name, values }) => [name, [values[0]!.slice(0, -1).reduce((a, b) => a + b, 0), values[0]!.at(-1)]]));
    expect(sums).toEqual({ weft_request_first_byte_milliseconds: [3, 120], weft_upstream_duration_milliseconds: [1, 30] });
  });
});

describe("services that requests go to", () => {
  const labels = { destination_service_namespace: "shop", destination_service_name: "web", port: "80", subset: "" };
  const limits = { connectionsMax: 1, pendingRequestsMax: 1, activeRequestsMax: 1, activeRetriesMax: 1 } as unknown as ConstructorParameters<typeof CircuitBreaker>[0];
  const endpoints = { usable: 2, ejected: 1, unhealthy: 0 };

  test("what is in use and refused is read at a scrape, and refusals never go back", () => {
    const { reporter, cells } = make();
    let breaker = new CircuitBreaker(limits);
    const permits = new Permits(breaker);
    permits.acquire("activeRequests");
    new Permits(breaker).acquire("activeRequests");
    reporter.upstream.observe([{ labels, breaker, endpoints }]);
    reporter.upstream.observe([{ labels, breaker, endpoints }]);
    expect(cells("weft_upstream_in_use")["shop web 80  activeRequests"]).toBe(1);
    expect(cells("weft_upstream_refusals_total")).toEqual({ "shop web 80  activeRequests": 1 });
    expect(cells("weft_upstream_endpoints")).toEqual({ "shop web 80  usable": 2, "shop web 80  ejected": 1, "shop web 80  unhealthy": 0 });
    breaker = new CircuitBreaker(limits);
    new Permits(breaker).acquire("activeRetries");
    new Permits(breaker).acquire("activeRetries");
    reporter.upstream.observe([{ labels, breaker, endpoints }]);
    expect(cells("weft_upstream_refusals_total")).toEqual({ "shop web 80  activeRequests": 1, "shop web 80  activeRetries": 1 });
    reporter.upstream.observe([]);
    expect(cells("weft_upstream_endpoints")).toEqual({});
  });

  test("events are counted as they happen", () => {
    const { reporter, cells } = make();
    const endpoint = {} as unknown as EndpointTransition["endpoint"];
    reporter.upstream.transition(labels, { endpoint, kind: "ejected", reason: "healthCheck" });
    reporter.upstream.transition(labels, { endpoint, kind: "restored", reason: "probeSucceeded" });
    reporter.upstream.connection(labels, "failed");
    reporter.upstream.rateLimit({ namespace: "shop", name: "web" }, "per-user", "refused");
    expect(cells("weft_upstream_ejections_total")).toEqual({ "shop web 80  healthCheck": 1 });
    expect(cells("weft_upstream_returns_total")).toEqual({ "shop web 80 ": 1 });
    expect(cells("weft_upstream_connections_total")).toEqual({ "shop web 80  failed": 1 });
    expect(cells("weft_rate_limit_decisions_total")).toEqual({ "shop web per-user refused": 1 });
  });
});

test("kept fields are those that were asked for", () => {
  const kept = keepFields(ListFields.of(["a", "1", "b", "2", "a", "3"]), ["a", "c"]);
  expect([kept.value("a"), kept.value("b"), kept.value("c"), kept.values("a"), kept.values("c")]).toEqual(["1, 3", undefined, undefined, ["1, 3"], []]);
  expect(keepFields(ListFields.of(["a", "1"]), [])).toBeInstanceOf(KeptFields);
});
