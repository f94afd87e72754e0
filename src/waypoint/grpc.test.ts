// gRPC and gRPC-Web through the whole of a waypoint's HTTP, between real sockets, with a client and servers that we did not write.

import { describe, expect, test } from "bun:test";
import { connect as connect2 } from "node:http2";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { authorizerService } from "../../test/kit/decision-services.ts";
import { backend, requestPolicy, route, rule } from "../../test/kit/http-records.ts";
import { trafficPolicy } from "../../test/kit/upstreams.ts";
import { until } from "../../test/kit/until.ts";
import { backend2, WaypointFixture } from "../../test/kit/waypoint.ts";
import { Authorization } from "../wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts";

const OK = { status: { code: 0 } };
const message = (...bytes: number[]): Buffer => Buffer.from([0, 0, 0, 0, bytes.length, ...bytes]);

describe("gRPC-Web on a port that is declared so", () => {
  const webClient = (waypoint: WaypointFixture, httpVersion: "1.1" | "2") => createClient(Authorization, createGrpcWebTransport({ baseUrl: waypoint.url, httpVersion }));

  test.each(["1.1", "2"] as const)("over HTTP/%s is gRPC to the server, and its answers and errors come back", async (httpVersion) => {
    await using server = await authorizerService(({ attributes }) => {
      if (attributes?.contextExtensions["fail"] !== undefined) throw new ConnectError("no such cart", Code.NotFound);
      return OK;
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc-web" });
    const client = webClient(waypoint, httpVersion);
    expect((await client.check({ attributes: { contextExtensions: { big: "x".repeat(300_000) } } })).status?.code).toBe(0);
    const error = await client.check({ attributes: { contextExtensions: { fail: "" } } }).then(() => null, (reason: unknown) => ConnectError.from(reason));
    expect([error?.code, error?.rawMessage]).toEqual([Code.NotFound, "no such cart"]);
    expect(server.metadata.map((headers) => headers.get("content-type"))).toEqual(["application/grpc+proto", "application/grpc+proto"]);
    expect(await waypoint.ended(2)).toMatchObject({ status: 200, grpcStatus: 5 });
  });

  test("an answer of our own is one that its client understands", async () => {
    await using server = await authorizerService(() => OK);
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc-web", l7: { requestPolicies: [requestPolicy({ name: "nobody", action: "deny", rules: [{}] })] } });
    const error = await webClient(waypoint, "1.1").check({}).then(() => null, (reason: unknown) => ConnectError.from(reason));
    expect([error?.code, error?.rawMessage, error?.metadata.get("x-weft-reason")]).toEqual([Code.PermissionDenied, "RBAC: access denied", "access_denied"]);
    expect(server.asked.length).toBe(0);
  });

  test("in base64 streams both ways: each message when it is there, trailers last", async () => {
    let push: () => void = () => {};
    const got: number[] = [];
    await using server = await backend2((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "x-sum": "7" }));
      stream.on("data", (chunk: Buffer) => got.push(...chunk));
      stream.write(message(1, 2));
      push = () => void stream.end(message(3));
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc-web" });
    const question = message(9, 8, 7).toString("base64");
    const client = waypoint.raw().send(`POST /a.B/C HTTP/1.1\r\nHost: web\r\nContent-Type: application/grpc-web-text\r\nX-Grpc-Web: 1\r\nContent-Length: ${question.length}\r\n\r\n${question}`);
    const first = message(1, 2).toString("base64");
    await client.until(first);
    expect(client.received).toContain("content-type: application/grpc-web-text+proto");
    push();
    await client.until("0\r\n\r\n");
    const trailers = Buffer.concat([Buffer.from([0x80, 0, 0, 0, 26]), Buffer.from("grpc-status: 0\r\nx-sum: 7\r\n")]);
    const body = client.received.slice(client.received.indexOf("\r\n\r\n") + 4).replace(/[0-9a-f]+\r\n([^\r]*)\r\n/g, "$1");
    const decoded = Buffer.concat([...body.matchAll(/[A-Za-z0-9+/]+=*/g)].map(([part]) => Buffer.from(part, "base64")));
    expect([...decoded]).toEqual([...message(1, 2), ...message(3), ...trailers]);
    expect(got).toEqual([...message(9, 8, 7)]);
    expect(server.seen[0]!.headers).toMatchObject({ "content-type": "application/grpc", te: "trailers" });
    client.socket.end();
  });

  test("a large body in base64 is whole, to a client that reads slowly", async () => {
    const big = Buffer.alloc(3_000_000, 5);
    await using server = await backend2((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.pipe(stream);
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc-web" });
    const session = connect2(waypoint.url);
    const stream = session.request({ ":method": "POST", ":path": "/a.B/C", "content-type": "application/grpc-web-text+proto" });
    let text = "";
    stream.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
    const whole = new Promise((resolve, reject) => stream.on("end", resolve).on("error", reject));
    stream.end(big.toString("base64"));
    await whole;
    session.close();
    const parts = [...text.matchAll(/[A-Za-z0-9+/]+=*/g)].map(([part]) => Buffer.from(part, "base64"));
    const body = Buffer.concat(parts);
    expect(Bun.hash(body.subarray(0, big.length))).toBe(Bun.hash(big));
    expect(body.subarray(big.length).toString("latin1")).toBe("\x80\0\0\0\x10grpc-status: 0\r\n");
  });

  test.each([["what is no base64", "AAAA!"], ["base64 that is cut short", "AAAAA"]])("%s is 400", async (_, body) => {
    await using server = await backend2((stream) => void stream.resume());
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc-web" });
    const client = waypoint.raw().send(`POST /a.B/C HTTP/1.1\r\nHost: web\r\nContent-Type: application/grpc-web-text\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    const answer = await client.until("x-weft-reason: bad_request");
    expect(answer).toStartWith("HTTP/1.1 400");
    expect(answer).toContain("content-type: application/grpc-web-text+proto\r\ngrpc-status: 13\r\ngrpc-message: ");
    expect((await waypoint.ended()).detail).toContain("gRPC-Web body cannot be read");
    client.destroy();
  });

  test("is left as it is where the port says only grpc", async () => {
    await using server = await backend2((stream, headers) => {
      stream.respond({ ":status": 200, "content-type": String(headers["content-type"]) });
      stream.end();
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc" });
    expect((await waypoint.fetch("/a.B/C", { method: "POST", headers: { "content-type": "application/grpc-web+proto" } })).headers.get("content-type")).toBe("application/grpc-web+proto");
  });
});

describe("gRPC", () => {
  const grpcClient = (waypoint: WaypointFixture) => createClient(Authorization, createGrpcTransport({ baseUrl: waypoint.url }));

  test("a client's deadline reaches the server, shortened by what has passed, and ends the call", async () => {
    const timeouts: string[] = [];
    await using server = await backend2((_, headers) => void timeouts.push(String(headers["grpc-timeout"])));
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc" });
    const headers = await waypoint.grpc(message(), { "grpc-timeout": "300m" });
    expect(headers).toMatchObject({ ":status": 200, "grpc-status": "4" });
    expect(timeouts[0]).toMatch(/^\d+u$/);
    expect(Number(timeouts[0]!.slice(0, -1))).toBeLessThanOrEqual(300_000);
    expect(await waypoint.ended()).toMatchObject({ code: "request_timeout", grpcStatus: 4 });
  });

  test("a call is retried by the status that the policy names, when the server answers with nothing else", async () => {
    let calls = 0;
    await using server = await backend2((stream) => {
      if (++calls < 3) return stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "14" }, { endStream: true });
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(message());
    });
    const retry = { attempts: 3, statuses: [], grpcStatuses: [14], onConnectFailure: true, onReset: true, onRefusedStream: true, nonIdempotent: true, perTryTimeoutMs: null, backoffBaseMs: 1, backoffMaxMs: 2 };
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc", l7: { routes: [route({ kind: "GRPCRoute", rules: [rule({ retry, backends: [backend("web")] })] })] } });
    expect((await grpcClient(waypoint).check({})).status).toBeUndefined();
    expect(await waypoint.ended()).toMatchObject({ attempts: 3, grpcStatus: 0 });
  });

  test("a server is ejected for statuses in trailers too; a call that was served with a message first is none of its failures", async () => {
    const served: string[] = [];
    const serving = (name: string, first: Buffer | null, status: string) => backend2((stream) => {
      served.push(name);
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": status }));
      if (first === null) stream.end();
      else stream.end(first);
    });
    await using failing = await serving("failing", null, "13");
    await using partial = await serving("partial", message(1), "13");
    const outliers = {
      consecutive5xx: 2, consecutiveGatewayErrors: 0, consecutiveConnectFailures: 0, splitConnectFailures: null, errorStatuses: null, successRate: null, intervalMs: null, baseEjectionMs: 60_000, ejectionMaxMs: null, ejectedShareMax: 1, panicThreshold: null,
    };
    const policy = trafficPolicy({ outliers, balancing: { kind: "roundRobin" } });
    await using waypoint = new WaypointFixture({ endpoints: [failing, partial], portName: "grpc", l7: { trafficPolicies: [{ service: policy.service, policies: [policy] }] } });
    for (let i = 0; i < 12; i++) await grpcClient(waypoint).check({}).catch(() => {});
    expect(served.filter((name) => name === "failing").length).toBe(2);
    expect(served.slice(-6)).toEqual(new Array(6).fill("partial"));
  });

  test("streams go both ways at once, and half-close reaches the server", async () => {
    await using server = await backend2((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.on("data", (chunk: Buffer) => stream.write(chunk));
      stream.on("end", () => stream.end(message(0xee)));
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc" });
    const session = connect2(waypoint.url);
    const stream = session.request({ ":method": "POST", ":path": "/a.B/C", "content-type": "application/grpc", te: "trailers" });
    let got = Buffer.alloc(0);
    let trailers: Record<string, unknown> = {};
    stream.on("data", (chunk: Buffer) => (got = Buffer.concat([got, chunk])));
    stream.on("trailers", (more) => (trailers = more));
    for (let i = 1; i <= 5; i++) {
      stream.write(message(i));
      await until(`message ${i} to come back`, 5_000, () => got.length === i * 6 || null);
    }
    stream.end();
    await until("the trailers", 5_000, () => trailers["grpc-status"] ?? null);
    expect(got.at(-1)).toBe(0xee);
    session.close();
  });

  test("a server that is gone is UNAVAILABLE, and says why", async () => {
    const gone = await authorizerService(() => OK);
    await gone.stop();
    await using waypoint = new WaypointFixture({ endpoints: [gone], portName: "grpc" });
    const error = await grpcClient(waypoint).check({}).then(() => null, (reason: unknown) => ConnectError.from(reason));
    expect([error?.code, error?.metadata.get("x-weft-reason")]).toEqual([Code.Unavailable, "connect_failed"]);
  });
});
