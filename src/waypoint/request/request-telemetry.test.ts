// What is told of requests that really went through a waypoint's HTTP: context passed on, lines, spans and log records.

import { describe, expect, test } from "bun:test";
import { backend, path, requestPolicy, route, rule, when } from "../../../test/kit/http-records.ts";
import { provenance } from "../../../test/kit/mesh-records.ts";
import { until } from "../../../test/kit/until.ts";
import { trafficPolicy } from "../../../test/kit/upstreams.ts";
import { backend1, backend2, rawBackend, WaypointFixture } from "../../../test/kit/waypoint.ts";
import { namespacedName } from "../../core/brand.ts";
import type { OtlpCollector, TelemetryPolicy } from "../../mesh/l7/telemetry.ts";
import { RETRY_DEFAULT } from "../../policy/upstream/settings.ts";
import { Exposition } from "../../telemetry/exposition.ts";
import type { LogRecord, SpanRecord } from "../../telemetry/otlp-records.ts";

const collector: OtlpCollector = { name: "otel", protocol: "grpc", service: namespacedName("obs", "otel"), port: 4317, path: "", timeoutMs: 1000, headers: [] };
const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT = `00-${TRACE}-00f067aa0ba902b7-01`;

function telemetry(fields: Partial<TelemetryPolicy>): TelemetryPolicy {
  return { name: "t", namespace: "shop", targets: [{ kind: "namespace", namespace: "shop" }], tracing: null, accessLog: null, metrics: [], provenance: provenance("Telemetry", "shop", "t"), ...fields };
}

const traced = (sampling = 1): TelemetryPolicy => telemetry({ tracing: { disabled: false, collectors: [collector], sampling, tags: [] } });

const told = (waypoint: WaypointFixture): { spans: SpanRecord[]; logs: LogRecord[] } => {
  waypoint.telemetry.flush();
  return { spans: waypoint.batches.flatMap(({ spans }) => [...spans]), logs: waypoint.batches.flatMap(({ logs }) => [...logs]) };
};
const attributes = (record: SpanRecord | LogRecord): Record<string, unknown> => Object.fromEntries(record.attributes);
const lines = (waypoint: WaypointFixture): Record<string, unknown>[] => {
  waypoint.telemetry.flush();
  return waypoint.lines.trimEnd().split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
};

describe("request ids", () => {
  test("one is made, told to the server and to the log; a client's own is kept, a bad one is not", async () => {
    await using server = await backend1((request, response) => response.end(request.headers["x-request-id"] as string));
    await using waypoint = new WaypointFixture({ endpoints: [server], telemetry: { accessLog: "json" } });
    const made = await (await waypoint.fetch("/")).text();
    expect(made).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(await (await waypoint.fetch("/", { headers: { "x-request-id": "mine" } })).text()).toBe("mine");
    expect(await (await waypoint.fetch("/", { headers: { "x-request-id": "not one word" } })).text()).not.toContain("not");
    await waypoint.ended(3);
    expect(lines(waypoint).map((line) => line["request_id"])).toEqual([made, "mine", expect.stringMatching(/^[0-9a-f-]{36}$/)]);
  });
});

describe("traces", () => {
  test("where nobody is told nothing begins, and what came goes on as it came", async () => {
    await using server = await backend1((request, response) => response.end(JSON.stringify(request.headers)));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const seen = async (headers: Record<string, string>): Promise<Record<string, string>> => (await (await waypoint.fetch("/", { headers })).json()) as Record<string, string>;
    expect(await seen({})).not.toHaveProperty("traceparent");
    expect(await seen({ traceparent: TRACEPARENT, tracestate: "a=1", baggage: "k=v", b3: "0" })).toMatchObject({ traceparent: TRACEPARENT, tracestate: "a=1", baggage: "k=v", b3: "0" });
    expect(told(waypoint).spans).toEqual([]);
  });

  test("one is begun: the server is a child of the attempt, which is one of the request", async () => {
    await using server = await backend1((request, response) => response.end(request.headers["traceparent"] as string));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: { telemetry: [traced()] } });
    const [, traceId, parent, flags] = (await (await waypoint.fetch("/a?token=secret")).text()).split("-");
    await waypoint.ended();
    const { spans: [request, attempt, ...more] } = told(waypoint);
    expect(more).toEqual([]);
    expect([request!.kind, request!.traceId, request!.parentSpanId, flags]).toEqual(["server", traceId!, null, "01"]);
    expect([attempt!.kind, attempt!.traceId, attempt!.parentSpanId, attempt!.spanId]).toEqual(["client", traceId!, request!.spanId, parent!]);
    expect(attributes(request!)).toMatchObject({ "http.request.method": "GET", "url.path": "/a", "http.response.status_code": 200, "weft.retries": 0, response_flags: "-", upstream_cluster: "shop/web.shop.svc.cluster.local:80" });
    expect(JSON.stringify(told(waypoint))).not.toContain("secret");
    expect(attributes(attempt!)).toMatchObject({ upstream_address: `127.0.0.1:${server.port}`, "http.response.status_code": 200, "weft.attempt": 1 });
  });

  test("the client's is continued, by W3C and by B3, with baggage untouched; unsampled ones are told nobody", async () => {
    await using server = await backend1((request, response) => response.end(JSON.stringify(request.headers)));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: { telemetry: [traced(0)] } });
    const seen = async (headers: Record<string, string>): Promise<Record<string, string>> => (await (await waypoint.fetch("/", { headers })).json()) as Record<string, string>;
    const w3c = await seen({ traceparent: TRACEPARENT, tracestate: "a=1", baggage: "k=v" });
    expect(w3c["traceparent"]).toMatch(new RegExp(`^00-${TRACE}-(?!00f067aa0ba902b7)[0-9a-f]{16}-01$`));
    expect(w3c).toMatchObject({ tracestate: "a=1", baggage: "k=v" });
    const b3 = await seen({ "x-b3-traceid": TRACE, "x-b3-spanid": "00f067aa0ba902b7", "x-b3-sampled": "1" });
    expect(b3).toMatchObject({ "x-b3-traceid": TRACE, "x-b3-sampled": "1", "x-b3-parentspanid": expect.stringMatching(/^[0-9a-f]{16}$/) });
    expect(b3["x-b3-spanid"]).not.toBe("00f067aa0ba902b7");
    const unsampled = TRACEPARENT.replace(/01$/, "00");
    expect((await seen({ traceparent: unsampled }))["traceparent"]).toBe(unsampled);
    await waypoint.ended(3);
    const servers = told(waypoint).spans.filter(({ kind }) => kind === "server");
    expect(servers.map(({ traceId, parentSpanId }) => [traceId, parentSpanId])).toEqual([[TRACE, "00f067aa0ba902b7"], [TRACE, "00f067aa0ba902b7"]]);
  });

  test("each attempt has its span, and each server its own parent; retries, route, rule and fault are attributes", async () => {
    const parents: string[] = [];
    await using server = await backend1((request, response) => {
      parents.push((request.headers["traceparent"] as string).split("-")[2]!);
      response.statusCode = parents.length < 3 ? 503 : 200;
      response.end("x");
    });
    const routes = [route({ name: "web", rules: [rule({ name: "cart", matches: [when({ path: path.prefix("/cart") })], backends: [backend("web")], faults: [{ fraction: 1, matches: [], action: { kind: "delay", fixedMs: 5 }, fieldPath: "spec.rules[0].fault" }] })] })];
    const retry = { ...RETRY_DEFAULT, attempts: 3, statuses: [503], backoffBaseMs: 1, backoffMaxMs: 1 };
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: { routes, telemetry: [traced()], trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ retry })] }] } });
    expect((await waypoint.fetch("/cart/1")).status).toBe(200);
    await waypoint.ended();
    const { spans: [request, ...attempts] } = told(waypoint);
    expect(attempts.map(({ kind, parentSpanId }) => `${kind} ${parentSpanId}`)).toEqual(Array(3).fill(`client ${request!.spanId}`));
    expect(attempts.map(({ spanId }) => spanId)).toEqual(parents);
    expect(attempts.map((span) => [attributes(span)["http.response.status_code"], span.error !== null])).toEqual([[503, true], [503, true], [200, false]]);
    expect(attributes(request!)).toMatchObject({
      "weft.retries": 2, "weft.route": "HTTPRoute/shop/web", "weft.rule_name": "cart", "weft.rule": expect.stringContaining("HTTPRoute shop/web"), response_flags: "DI",
      "weft.fault": [expect.stringContaining("delay 5 ms by ")], "weft.tried": [expect.stringContaining("503"), expect.stringContaining("503")],
    });
  });

  test("an answer of our own is told with its reason, and without an attempt", async () => {
    await using waypoint = new WaypointFixture({ endpoints: [], l7: { telemetry: [traced()] } });
    expect((await waypoint.fetch("/")).status).toBe(503);
    await waypoint.ended();
    const { spans } = told(waypoint);
    expect(spans.map(({ kind }) => kind)).toEqual(["server"]);
    expect(attributes(spans[0]!)).toMatchObject({ "weft.reason": "no_endpoints", "http.response.status_code": 503, response_flags: "UH" });
    expect(spans[0]!.error).not.toBeNull();
  });

  test("a refusal names the policy that made it", async () => {
    await using waypoint = new WaypointFixture({ endpoints: [], l7: { telemetry: [traced()], requestPolicies: [requestPolicy({ name: "no-delete", action: "deny", rules: [{ methods: [{ kind: "exact", value: "DELETE" }] }] })] } });
    expect((await waypoint.fetch("/", { method: "DELETE" })).status).toBe(403);
    await waypoint.ended();
    const [span, ...more] = told(waypoint).spans;
    expect(more).toEqual([]);
    expect(attributes(span!)).toMatchObject({ "weft.reason": "access_denied", "weft.rule": "AuthorizationPolicy shop/no-delete spec.rules[0]", "http.response.status_code": 403 });
    // The client's mistake, not the server's.
    expect(span!.error).toBeNull();
  });

  test("of attempts side by side the slower one is told as given up, and is no error", async () => {
    let asked = 0;
    const handler = (_request: unknown, response: import("node:http").ServerResponse): void => void (asked++ > 0 && response.end("early"));
    await using one = await backend1(handler);
    await using two = await backend1(handler);
    const policy = trafficPolicy({ hedging: { afterMs: 20, attemptsMax: 2 }, balancing: { kind: "roundRobin" } });
    await using waypoint = new WaypointFixture({ endpoints: [one, two], l7: { telemetry: [traced()], trafficPolicies: [{ service: policy.service, policies: [policy] }] } });
    expect(await (await waypoint.fetch("/")).text()).toBe("early");
    await waypoint.ended();
    const attempts = told(waypoint).spans.filter(({ kind }) => kind === "client");
    expect(attempts.map((span) => [attributes(span)["weft.given_up"] === true, attributes(span)["http.response.status_code"], span.error])).toEqual([[true, undefined, null], [false, 200, null]]);
    expect(new Set(attempts.map((span) => attributes(span)["upstream_address"])).size).toBe(2);
    // Each server was told the span of its own attempt.
    const parents = [...one.seen, ...two.seen].map(({ headers }) => (headers["traceparent"] as string).split("-")[2]!);
    expect(new Set(parents)).toEqual(new Set(attempts.map(({ spanId }) => spanId)));
    const { cells } = waypoint.telemetry.snapshot([]);
    expect(cells.find(({ name }) => name === "weft_request_retries_total")).toMatchObject({ keys: [expect.stringContaining("slower")], values: [1] });
  });
});

describe("the access log", () => {
  test("shows the path as it came, chosen fields of both heads, and gRPC's own end", async () => {
    await using server = await backend2((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc", "x-version": "7" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "5", "grpc-message": "no%20such%20pet" }));
      stream.pipe(stream);
    });
    const fields = ["path=%WEFT(path_received)%", "code=%GRPC_STATUS%", "message=%WEFT(grpc_message)%", "agent=%REQ(USER-AGENT)%", "version=%RESP(X-VERSION)%", "up=%UPSTREAM_HOST%"];
    const format = { kind: "text" as const, line: fields.join(" ") };
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc", l7: { telemetry: [telemetry({ accessLog: { disabled: false, sinks: [{ kind: "standardOutput", format }], conditions: [] } })] } });
    const body = new Uint8Array([0, 0, 0, 0, 1, 65, 0, 0, 0, 0, 0]);
    const answer = await waypoint.fetch("/a/../Svc/%4dethod", { method: "POST", body, headers: { "content-type": "application/grpc", "user-agent": "test/1", te: "trailers" } });
    await answer.arrayBuffer();
    await waypoint.ended();
    waypoint.telemetry.flush();
    // The client resolves dots by itself: an escape is what is left of what it was given.
    expect(waypoint.lines).toBe(`path=/Svc/%4dethod code=NotFound message=no such pet agent=test/1 version=7 up=127.0.0.1:${server.port}\n`);
    const sample = waypoint.telemetry.snapshot([]).requests!;
    expect([...sample.values].slice(0, 1)).toEqual([1]);
  });

  test("conditions and sinks of a Telemetry resource hold for the next request", async () => {
    await using server = await backend1((request, response) => {
      response.statusCode = Number(request.url!.slice(1));
      response.end();
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], telemetry: { accessLog: "json" } });
    await waypoint.fetch("/200");
    await waypoint.ended(1);
    waypoint.change({ telemetry: [telemetry({ accessLog: { disabled: false, sinks: [{ kind: "standardOutput", format: null }, { kind: "otlp", collector }], conditions: [{ kind: "status", compare: ">=", value: 500 }] } })] });
    for (const status of [200, 404, 500]) await waypoint.fetch(`/${status}`);
    await waypoint.ended(4);
    expect(lines(waypoint).map((line) => line["response_code"])).toEqual([200, 500]);
    const { logs } = told(waypoint);
    expect(logs.map((log) => [log.body, log.severity])).toEqual([["GET /500 HTTP/1.1 500", "error"]]);
    waypoint.change({ telemetry: [telemetry({ accessLog: { disabled: true, sinks: null, conditions: [] } })] });
    await waypoint.fetch("/500");
    await waypoint.ended(5);
    expect(lines(waypoint)).toHaveLength(2);
  });

  test("what never became a request has a line, and its bytes cannot forge another", async () => {
    await using waypoint = new WaypointFixture({ endpoints: [], telemetry: { accessLog: "json" } });
    const client = waypoint.raw().send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    await client.closed();
    await until("the line", 2_000, () => waypoint.malformed.length > 0 || null);
    expect(lines(waypoint)).toEqual([expect.objectContaining({ message: "no request", code: "severalHosts", "dst.service": "shop/web.shop.svc.cluster.local" })]);
  });
});

test("metrics: attempts that failed are counted by their cause, requests by the answer that the client got", async () => {
  let calls = 0;
  await using server = await backend1((_request, response) => {
    response.statusCode = ++calls < 2 ? 503 : 200;
    response.end();
  });
  const retry = { ...RETRY_DEFAULT, attempts: 2, statuses: [503], backoffBaseMs: 1, backoffMaxMs: 1 };
  await using waypoint = new WaypointFixture({ endpoints: [server], l7: { trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ retry })] }] } });
  expect((await waypoint.fetch("/")).status).toBe(200);
  await waypoint.ended();
  const { cells } = waypoint.telemetry.snapshot([]);
  expect(cells.find(({ name }) => name === "weft_request_retries_total")).toMatchObject({ keys: [expect.stringContaining("503")], values: [1] });
});

describe("connections that are no HTTP", () => {
  /** Each series as `FIELD value`: opened, sent and received bytes, closed, failed by flag. */
  const counted = async (waypoint: WaypointFixture): Promise<Record<string, number>> => {
    const { body } = await new Exposition().render([waypoint.telemetry.snapshot([])], [], "prometheus");
    return Object.fromEntries(body.split("\n").flatMap((line) => {
      const match = /^istio_tcp_(\w+?)(?:_total)?\{.*reporter="waypoint".*response_flags="([^"]*)".* (\d+)$|^istio_tcp_(\w+?)(?:_total)?\{.*response_flags="([^"]*)".*reporter="waypoint".* (\d+)$/.exec(line);
      return match === null ? [] : [[`${match[1] ?? match[4]} ${match[2] ?? match[5]}`, Number(match[3] ?? match[6])]];
    }));
  };

  test("are counted while they last, and at their end", async () => {
    await using server = await rawBackend((socket) => {
      socket.write("hello");
      socket.on("data", (chunk) => socket.write(chunk));
      socket.on("end", () => socket.end());
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "tcp" });
    const client = waypoint.raw();
    await client.until("hello");
    client.send("0123456789");
    await client.until("0123456789");
    waypoint.plane.tick();
    expect(await counted(waypoint)).toMatchObject({ "connections_opened -": 1, "sent_bytes -": 15, "received_bytes -": 10, "connections_closed -": 0 });
    client.socket.end();
    await client.closed();
    await until("its end", 5_000, () => waypoint.passed.length === 1 || null);
    expect(await counted(waypoint)).toMatchObject({ "connections_opened -": 1, "sent_bytes -": 15, "received_bytes -": 10, "connections_closed -": 1 });
  });

  test("that never came to a server are told by what stood in the way", async () => {
    await using waypoint = new WaypointFixture({ endpoints: [], portName: "tcp" });
    await waypoint.raw().closed();
    await until("its end", 5_000, () => waypoint.passed.length === 1 || null);
    waypoint.change({ requestPolicies: [requestPolicy({ name: "nobody", action: "deny", rules: [{}] })] });
    await waypoint.raw().closed();
    await until("its end", 5_000, () => waypoint.passed.length === 2 || null);
    expect(await counted(waypoint)).toMatchObject({ "connections_failed CONNECT": 1, "connections_failed DENY": 1 });
  });
});
