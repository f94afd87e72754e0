// What a waypoint tells, end to end: requests by curl, Telemetry and MeshConfig as YAML, a collector by OTLP over gRPC and HTTP, and where
// there is one a real OpenTelemetry collector.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { promised, slowdown } from "../kit/fair-time.ts";
import { until } from "../kit/until.ts";
import { type CollectedSpan, OtlpCollectorServer } from "../kit/otlp-collector.ts";
import { needsCollector, RealCollector } from "../kit/real-collector.ts";
import { describeUnless } from "../kit/skip.ts";
import { backend1, type Backend } from "../kit/waypoint.ts";
import { curl, ownAddresses, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const [SERVER, COLLECTOR] = ["198.18.7.1", "198.18.7.2"];
const URL_BASE = "http://127.0.0.1:8080";
const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
/** What a change may take to be in force, on a machine that is busy. */
const CHANGE_MS = 3_000;
/** A change is in force within a second; curl takes its time too. */
const CHANGE_MS_PROMISED = 1_500;

const entry = (name: string, address: string, ports: readonly { readonly name: string; readonly port: number; readonly targetPort: number }[]): string => `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: ${name}, namespace: shop }
spec: { address: ${address}, labels: { app: ${name} }, serviceAccount: ${name} }
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { clusterIP: 198.18.250.${address.slice(-1)}, selector: { app: ${name} }, ports: ${JSON.stringify(ports)} }
`;

const meshConfig = (grpcPort: number, httpPort: number): string => `
apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: { name: mesh, namespace: istio-system }
spec:
  extensionProviders:
  - { name: spans-grpc, opentelemetry: { service: otel.shop.svc.cluster.local, port: ${grpcPort}, grpc: { initialMetadata: [{ name: x-tenant, value: shop }] } } }
  - { name: spans-http, opentelemetry: { service: otel.shop.svc.cluster.local, port: ${httpPort}, http: { path: /v1/traces, headers: [{ name: x-tenant, value: shop }] } } }
  - { name: lines, envoyOtelAls: { service: otel.shop.svc.cluster.local, port: ${grpcPort} } }
  - { name: own, envoyFileAccessLog: { path: /dev/stdout, logFormat: { labels: { scope: access, code: "%RESPONSE_CODE%", trace: "%TRACE_ID%", strange: "%NO_SUCH_COMMAND%" } } } }
  defaultProviders: { tracing: [spans-grpc] }
`;

const telemetry = (spec: object): string => JSON.stringify({ apiVersion: "telemetry.istio.io/v1", kind: "Telemetry", metadata: { name: "shop", namespace: "shop" }, spec });

const services = (server: Backend, grpcPort: number, httpPort: number): string => [
  `${WAYPOINT_YAML}\n`, entry("web", SERVER, [{ name: "http", port: 80, targetPort: server.port }]),
  entry("otel", COLLECTOR, [{ name: "grpc-otlp", port: grpcPort, targetPort: grpcPort }, { name: "http-otlp", port: httpPort, targetPort: httpPort }]), meshConfig(grpcPort, httpPort),
].join("---");

const FLAGS = ["--workers", "2", "--trace-sampling", "0", "--serve", "127.0.0.1:8080=shop/web.shop.svc.cluster.local:80"];

const sampled = (span: number): string => `traceparent: 00-${TRACE}-${span.toString(16).padStart(16, "0")}-01`;

let server: Backend;

beforeAll(async () => {
  ownAddresses([SERVER, COLLECTOR]);
  server = await backend1((request, response) => {
    if (request.url === "/fails") response.statusCode = 503;
    if (request.url === "/slow") setTimeout(() => response.end("slow"), 500);
    else response.end(request.headers["traceparent"] ?? "none");
  }, SERVER);
});

afterAll(async () => server[Symbol.asyncDispose]());

describe("a waypoint and its collectors", () => {
  let collector: OtlpCollectorServer;
  let waypoint: WaypointProcess;
  const spansOf = (url: string): CollectedSpan[] => collector.spans.filter(({ kind, attributes }) => kind === "server" && attributes["url.path"] === url);

  beforeAll(async () => {
    collector = await OtlpCollectorServer.start(COLLECTOR, { http: 4318, grpc: 4317 });
    waypoint = await WaypointProcess.start({ yaml: { "shop.yaml": services(server, 4317, 4318) }, flags: FLAGS });
  });

  afterAll(async () => {
    await waypoint[Symbol.asyncDispose]();
    await collector[Symbol.asyncDispose]();
  });

  test("what a client sampled arrives by gRPC, with the provider's metadata; the server is told its parent", async () => {
    const parent = (await curl("-H", sampled(1), `${URL_BASE}/a?secret=1`)).split("-")[2];
    const [request] = await until("the span", 10_000, () => (spansOf("/a").length > 0 ? spansOf("/a") : null));
    const attempt = collector.spans.find(({ spanId }) => spanId === parent)!;
    expect([request!.traceId, request!.parentSpanId, attempt.parentSpanId, attempt.kind]).toEqual([TRACE, "0000000000000001", request!.spanId, "client"]);
    expect(request!.resource).toMatchObject({ "service.name": "waypoint.shop", "service.namespace": "shop" });
    expect(request!.name).toBe("GET web.shop.svc.cluster.local");
    expect(collector.calls.at(-1)).toMatchObject({ path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export", headers: { "x-tenant": "shop" } });
    expect(collector.spans.some(({ attributes }) => JSON.stringify(attributes).includes("secret"))).toBe(false);
  });

  test("nothing is reported of a trace that begins here while the share is 0, and the server is told so", async () => {
    expect(await curl(`${URL_BASE}/unsampled`)).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    await curl("-H", sampled(2), `${URL_BASE}/later`);
    await until("a later span", 10_000, () => spansOf("/later").length > 0);
    expect(spansOf("/unsampled")).toEqual([]);
  });

  test("a Telemetry is in force within a second: sampling, provider, tags, the form and the filter of the log", async () => {
    waypoint.write("telemetry.yaml", telemetry({
      tracing: [{ providers: [{ name: "spans-http" }], randomSamplingPercentage: 100, customTags: { team: { literal: { value: "cart" } }, agent: { header: { name: "user-agent" } } } }],
      accessLogging: [{ providers: [{ name: "own" }, { name: "lines" }], filter: { expression: "response.code >= 500" } }],
    }));
    await promised("a trace to begin", CHANGE_MS_PROMISED, async () => (await curl(`${URL_BASE}/begun`)).endsWith("-01"));
    await curl("-A", "test/1", `${URL_BASE}/fails`);
    const [request] = await until("the span", 10_000, () => (spansOf("/fails").length > 0 ? spansOf("/fails") : null));
    expect(request!.attributes).toMatchObject({ team: "cart", agent: "test/1", "http.response.status_code": 503 });
    expect(request!.error).not.toBeNull();
    expect(collector.calls.some(({ path, headers }) => path === "/v1/traces" && headers["x-tenant"] === "shop")).toBe(true);
    const log = await until("the record", 10_000, () => collector.logs.find(({ attributes }) => attributes["url.path"] === "/fails"));
    expect([log.severity, log.traceId, log.spanId]).toEqual(["ERROR", request!.traceId, request!.spanId]);
    expect(collector.logs.map(({ attributes }) => attributes["http.response.status_code"])).toEqual([503]);
    const line = await until("the line", 5_000, () => waypoint.lines.find(({ code }) => code === 503));
    expect(line).toEqual({ scope: "access", code: 503, trace: request!.traceId, strange: null });
    await until("the word about what is no command", 5_000, () => waypoint.log.includes("%NO_SUCH_COMMAND%, which is no command that is known here"));
    waypoint.remove("telemetry.yaml");
    await until("the end of it", CHANGE_MS, async () => (await curl(`${URL_BASE}/a`)).endsWith("-00"));
  });

  test("metrics are the sums of all threads, with labels taken away as a Telemetry asks", async () => {
    const before = await waypoint.metric("istio_requests_total");
    for (let i = 0; i < 40; i++) await curl(`${URL_BASE}/counted`);
    await until("40 requests to be counted", 5_000, async () => (await waypoint.metric("istio_requests_total")) === before + 40);
    const seen = (await waypoint.dump()) as { threads: { requests: number }[] };
    expect(seen.threads).toHaveLength(2);
    waypoint.write("telemetry.yaml", telemetry({ metrics: [{ overrides: [{ match: { metric: "REQUEST_COUNT" }, tagOverrides: { request_protocol: { operation: "REMOVE" } } }] }] }));
    await until("a series without the label", CHANGE_MS, async () => {
      await curl(`${URL_BASE}/counted`);
      const text = await (await fetch("http://127.0.0.1:15020/metrics")).text();
      return text.split("\n").some((line) => line.startsWith("istio_requests_total{") && !line.includes("request_protocol"));
    });
    waypoint.remove("telemetry.yaml");
  });

  test("a collector that is stuck, or away, holds up no request; what it missed comes when it is back", async () => {
    collector.mood = "away";
    await curl("-H", sampled(3), `${URL_BASE}/missed`);
    await until("a failed call", 10_000, async () => (await waypoint.metric("weft_otlp_exports_total", { outcome: "failed" })) > 0);
    await until("the word about it", 10_000, () => waypoint.log.includes("the collector spans-grpc does not take traces"));
    const startedMs = performance.now();
    for (let i = 0; i < 20; i++) expect(await curl("-H", sampled(4), `${URL_BASE}/b`)).toContain(TRACE);
    expect(performance.now() - startedMs).toBeLessThan(5_000 * slowdown());
    expect(spansOf("/missed")).toEqual([]);
    collector.mood = "well";
    await until("what it missed", 20_000, () => spansOf("/missed").length > 0);
    await until("the word about it", 5_000, () => waypoint.log.includes("the collector spans-grpc takes traces again"));
  });

  test("the last spans are sent before the process ends, and no collector holds up that end", async () => {
    const slow = curl("-H", sampled(5), `${URL_BASE}/slow`);
    await until("it to arrive", 5_000, () => server.seen.some(({ url }) => url === "/slow"));
    waypoint.process.kill("SIGTERM");
    expect(await slow).toBe("slow");
    expect(await waypoint.process.exited).toBe(0);
    expect(spansOf("/slow")).toHaveLength(1);
    waypoint.spawn();
    await waypoint.ready();
    collector.mood = "stuck";
    const before = collector.calls.length;
    await curl("-H", sampled(6), `${URL_BASE}/stuck`);
    await until("a call that hangs", 10_000, () => collector.calls.length > before);
    const startedMs = performance.now();
    waypoint.process.kill("SIGTERM");
    expect(await waypoint.process.exited).toBe(0);
    expect(performance.now() - startedMs).toBeLessThan(5_000 * slowdown());
  });
});

describeUnless(needsCollector)("with a real collector", () => {
  test("spans and log records of requests arrive as they were told", async () => {
    await using real = await RealCollector.start(COLLECTOR);
    await using waypoint = await WaypointProcess.start({ yaml: { "shop.yaml": services(server, real.grpcPort, real.httpPort) }, flags: FLAGS });
    waypoint.write("telemetry.yaml", telemetry({ tracing: [{ providers: [{ name: "spans-grpc" }, { name: "spans-http" }], randomSamplingPercentage: 100 }], accessLogging: [{ providers: [{ name: "lines" }] }] }));
    await until("a trace to begin", CHANGE_MS, async () => (await curl(`${URL_BASE}/begun`)).endsWith("-01"));
    const parent = (await curl(`${URL_BASE}/real`)).split("-")[2];
    // Once over gRPC, once over HTTP.
    const spans = await until("the spans", 15_000, () => {
      const found = real.spans.filter(({ spanId }) => spanId === parent);
      return found.length === 2 ? found : null;
    });
    const requests = real.spans.filter(({ spanId }) => spanId === spans[0]!.parentSpanId);
    expect(requests.map(({ kind, name }) => [kind, name])).toEqual(Array(2).fill([2, "GET web.shop.svc.cluster.local"]));
    const log = await until("the record", 15_000, () => real.logs.find(({ body }) => body.stringValue === "GET /real HTTP/1.1 200"));
    expect(log.traceId).toBe(spans[0]!.traceId);
  });
});
