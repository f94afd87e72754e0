import { afterAll, describe, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { OtlpCollector } from "../mesh/l7/telemetry.ts";
import { ExportLogsServiceRequestSchema } from "../wire/protobuf/opentelemetry/proto/collector/logs/v1/logs_service_pb.ts";
import { ExportTraceServiceRequestSchema, ExportTraceServiceResponseSchema } from "../wire/protobuf/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts";
import type { LogRecord, SpanRecord } from "./otlp-records.ts";
import { createTransport } from "./otlp-transport.ts";

const resource = { attributes: [["service.name", "waypoint.shop"]] as const, scopeName: "weft", scopeVersion: "1" };
const span: SpanRecord = {
  traceId: "4bf92f3577b34da6a3ce929d0e0e4736", spanId: "00f067aa0ba902b7", parentSpanId: "00f067aa0ba902b8", tracestate: "a=1", kind: "client", name: "GET web", startedWallMs: 1_767_323_045_006.25,
  endedWallMs: 1_767_323_045_106, attributes: [["text", "a\ud800"], ["whole", 3], ["below", -7], ["part", 0.5], ["yes", true], ["list", ["a", "b"]]], error: "refused",
};
const log: LogRecord = { wallMs: 1_767_323_045_006, severity: "error", body: "GET /", attributes: [["status", 503]], traceId: span.traceId, spanId: null };

interface Seen { readonly path: string; readonly headers: Headers; readonly body: Uint8Array }
const seen: Seen[] = [];
let answer: () => Response | Promise<Response> = () => new Response(new Uint8Array(0));
const server = Bun.serve({
  hostname: "127.0.0.1", port: 0,
  async fetch(request) {
    seen.push({ path: new URL(request.url).pathname, headers: request.headers, body: await request.bytes() });
    return answer();
  },
});
afterAll(() => server.stop(true));

const collector: OtlpCollector = { name: "c", protocol: "http", service: "obs/c" as OtlpCollector["service"], port: 4318, path: "", timeoutMs: 1000, headers: [["x-key", "k"]] };
const http = (over: Partial<OtlpCollector> = {}, port = server.port!) => createTransport({ ...collector, ...over }, resource, () => ({ host: "127.0.0.1", port }));
const never = new AbortController().signal;
const sendSpan = (transport = http()) => transport.send({ signal: "traces", records: [span] }, never);

describe("HTTP", () => {
  test("spans arrive whole: ids, times, parents, kinds and values", async () => {
    answer = () => new Response(new Uint8Array(0));
    expect(await sendSpan()).toEqual({ kind: "ok", partial: { rejected: 0, message: "" } });
    const { path, headers, body } = seen.pop()!;
    expect([path, headers.get("content-type"), headers.get("x-key")]).toEqual(["/v1/traces", "application/x-protobuf", "k"]);
    const message = fromBinary(ExportTraceServiceRequestSchema, body);
    expect(message.resourceSpans[0]!.resource!.attributes[0]).toMatchObject({ key: "service.name", value: { value: { case: "stringValue", value: "waypoint.shop" } } });
    expect(message.resourceSpans[0]!.scopeSpans[0]!.scope).toMatchObject({ name: "weft", version: "1" });
    const [arrived] = message.resourceSpans[0]!.scopeSpans[0]!.spans;
    expect(arrived).toMatchObject({
      traceId: Uint8Array.fromHex(span.traceId), spanId: Uint8Array.fromHex(span.spanId), parentSpanId: Uint8Array.fromHex(span.parentSpanId!), traceState: "a=1", kind: 3, name: "GET web",
      startTimeUnixNano: 1_767_323_045_006_250_000n, endTimeUnixNano: 1_767_323_045_106_000_000n, status: { code: 2, message: "refused" },
    });
    expect(arrived!.attributes.map(({ key, value }) => [key, value!.value.case])).toEqual([["text", "stringValue"], ["whole", "intValue"], ["below", "intValue"], ["part", "doubleValue"], ["yes", "boolValue"], ["list", "arrayValue"]]);
    expect(arrived!.attributes[0]!.value!.value.value).toBe("a\ufffd");
    expect(arrived!.attributes.slice(1, 5).map(({ value }) => value!.value.value)).toEqual([3n, -7n, 0.5, true]);
    // Nothing is in it that the messages do not know.
    expect(toBinary(ExportTraceServiceRequestSchema, message)).toEqual(new Uint8Array(body));
  });

  test("logs go to a path of their own, or to the one that is given", async () => {
    await http().send({ signal: "logs", records: [log] }, never);
    await http({ path: "/in" }).send({ signal: "logs", records: [log] }, never);
    expect(seen.map(({ path }) => path)).toEqual(["/v1/logs", "/in"]);
    const [arrived] = fromBinary(ExportLogsServiceRequestSchema, seen[0]!.body).resourceLogs[0]!.scopeLogs[0]!.logRecords;
    expect(arrived).toMatchObject({ severityNumber: 17, severityText: "ERROR", body: { value: { value: "GET /" } }, traceId: Uint8Array.fromHex(span.traceId), flags: 0 });
    seen.length = 0;
  });

  test("what was refused in part is told", async () => {
    answer = () => new Response(toBinary(ExportTraceServiceResponseSchema, create(ExportTraceServiceResponseSchema, { partialSuccess: { rejectedSpans: 1n, errorMessage: "too old" } })));
    expect(await sendSpan()).toEqual({ kind: "ok", partial: { rejected: 1, message: "too old" } });
  });

  test.each([[429, "retry"], [502, "retry"], [503, "retry"], [504, "retry"], [400, "refused"], [401, "refused"], [404, "refused"], [500, "refused"]] as const)("%i: %s", async (status, kind) => {
    answer = () => new Response("why", { status });
    expect(await sendSpan()).toMatchObject({ kind, message: `http://127.0.0.1:${server.port}/v1/traces answered ${status}` });
  });

  test("Retry-After is heard, within reason", async () => {
    answer = () => new Response("", { status: 503, headers: { "retry-after": "7" } });
    expect(await sendSpan()).toMatchObject({ kind: "retry", afterMs: 7000 });
    answer = () => new Response("", { status: 503, headers: { "retry-after": "999999" } });
    expect(await sendSpan()).toMatchObject({ afterMs: 300_000 });
    answer = () => new Response("", { status: 503, headers: { "retry-after": "Fri, 31 Dec 1999 23:59:59 GMT" } });
    expect(await sendSpan()).toMatchObject({ afterMs: null });
  });

  test("an answer that never ends, or is nonsense, is no more than an answer", async () => {
    answer = () => new Response(new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(16_384)) }));
    expect(await sendSpan()).toEqual({ kind: "ok", partial: { rejected: 0, message: "" } });
    answer = () => new Response(Uint8Array.from([0xff, 0xff]));
    expect(await sendSpan()).toEqual({ kind: "ok", partial: { rejected: 0, message: "" } });
  });

  test("nobody there, nobody known, and somebody who says nothing", async () => {
    expect(await sendSpan(http({}, 1))).toMatchObject({ kind: "retry", message: expect.stringContaining("http://127.0.0.1:1/v1/traces: ") });
    const nowhere = createTransport(collector, resource, () => null);
    expect(await sendSpan(nowhere)).toEqual({ kind: "retry", afterMs: null, message: "the collector c (obs/c:4318) has no address now" });
    const silence = Promise.withResolvers<Response>();
    answer = () => silence.promise;
    const end = new AbortController();
    const sent = http().send({ signal: "traces", records: [span] }, end.signal);
    end.abort();
    expect(await sent).toMatchObject({ kind: "retry" });
    silence.resolve(new Response(""));
  });

  test("a redirect is not followed: records go where the configuration says", async () => {
    answer = () => Response.redirect(`http://127.0.0.1:${server.port}/elsewhere`, 307);
    seen.length = 0;
    expect((await sendSpan()).kind).not.toBe("ok");
    expect(seen.map(({ path }) => path)).toEqual(["/v1/traces"]);
  });
});

test("gRPC without a server is tried again", async () => {
  const transport = createTransport({ ...collector, protocol: "grpc" }, resource, () => ({ host: "127.0.0.1", port: 1 }));
  expect(await sendSpan(transport)).toMatchObject({ kind: "retry", message: expect.stringContaining("http://127.0.0.1:1: Unavailable") });
  transport.close();
});
