// Requests that wait for an external authoriser, through the whole of a waypoint's HTTP, between real sockets.

import { createHash } from "node:crypto";
import { connect } from "node:net";
import { describe, expect, test } from "bun:test";
import { connect as connect2 } from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { authorizerService, headerOption } from "../../../test/kit/decision-services.ts";
import { AUTHORIZER, backend, requestPolicy, route, rule, when } from "../../../test/kit/http-records.ts";
import { until } from "../../../test/kit/until.ts";
import { BackendAuthority, tlsBackend } from "../../../test/kit/tls-backends.ts";
import { trafficPolicy } from "../../../test/kit/upstreams.ts";
import { type Backend, backend1, rawBackend, WaypointFixture } from "../../../test/kit/waypoint.ts";
import { namespacedName } from "../../core/brand.ts";
import type { ExternalAuthorizer } from "../../mesh/l7/access.ts";
import { Authorization } from "../../wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts";
import { GATHERED_BYTES_MAX } from "../request/gather-budget.ts";

const AUTHZ = namespacedName("shop", "authz.shop.svc.cluster.local");
const GRPC: ExternalAuthorizer = { ...AUTHORIZER, service: AUTHZ, port: 80, timeoutMs: 2_000, includeRequestHeaders: ["*"] };
const HTTP: ExternalAuthorizer = { ...GRPC, protocol: "http", includeRequestHeaders: ["x-user"] };
const asks = (authorizer: ExternalAuthorizer) => ({ requestPolicies: [requestPolicy({ name: "ask", action: { kind: "custom", provider: "authz", authorizer }, rules: [{}] })] });
const OK = { status: { code: 0 }, httpResponse: { case: "okResponse" as const, value: {} } };
const echo = (): Promise<Backend> => backend1((request, response) => {
  let body = "";
  request.on("data", (chunk: Buffer) => (body += chunk.toString()));
  request.on("end", () => response.writeHead(200, { "x-from": "server" }).end(`${request.method} ${request.url} ${body}`));
});
const fixture = (server: Backend, authz: { readonly port: number }, authorizer: ExternalAuthorizer, more: object = {}): WaypointFixture =>
  new WaypointFixture({ endpoints: [server, { service: "authz", port: authz.port }], l7: { ...asks(authorizer), ...more } });

describe("by gRPC", () => {
  test("is told of the request, and the request goes on as it says", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => ({
      status: { code: 0 },
      httpResponse: { case: "okResponse", value: {
        headers: [headerOption("x-user", "anna"), headerOption("x-list", "two", true)], headersToRemove: ["x-secret"], responseHeadersToAdd: [headerOption("x-decided", "yes")],
        queryParametersToSet: [{ key: "tenant", value: "a b" }], queryParametersToRemove: ["token"],
      } },
    }));
    await using waypoint = fixture(server, authz, GRPC);
    const answer = await waypoint.fetch("/cart?token=1&q=2", { headers: { "x-user": "forged", "x-list": "one", "x-secret": "s", traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" } });
    expect([answer.status, answer.headers.get("x-decided"), answer.headers.get("x-from"), await answer.text()]).toEqual([200, "yes", "server", "GET /cart?q=2&tenant=a%20b "]);
    expect(server.seen[0]!.headers).toMatchObject({ "x-user": "anna", "x-list": "one, two" });
    expect(server.seen[0]!.headers["x-secret"]).toBeUndefined();
    const { attributes } = authz.asked[0]!;
    expect(attributes!.request!.http).toMatchObject({ method: "GET", path: "/cart?token=1&q=2", query: "token=1&q=2", protocol: "HTTP/1.1", scheme: "http", headers: { "x-user": "forged", ":path": "/cart?token=1&q=2" } });
    expect(attributes!.source!.address!.address.value).toMatchObject({ address: "127.0.0.1" });
    expect(authz.metadata[0]!.get("traceparent")).toContain("0af7651916cd43dd8448eb211c80319c");
    expect(await waypoint.ended()).toMatchObject({ status: 200, code: null });
  });

  test("refuses with its own status, headers and body", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => ({
      status: { code: 7 }, httpResponse: { case: "deniedResponse", value: { status: { code: 401 }, headers: [headerOption("www-authenticate", "Basic"), headerOption("content-type", "application/json")], body: '{"no":1}' } },
    }));
    await using waypoint = fixture(server, authz, GRPC);
    const answer = await waypoint.fetch("/");
    expect([answer.status, answer.headers.get("www-authenticate"), answer.headers.get("content-type"), answer.headers.get("x-weft-reason"), await answer.text()])
      .toEqual([401, "Basic", "application/json", "authorizer_denied", '{"no":1}']);
    expect(server.seen).toEqual([]);
    expect(await waypoint.ended()).toMatchObject({ status: 401, code: "authorizer_denied", flags: "UAEX", provenance: "AuthorizationPolicy shop/ask spec.rules[0]" });
  });

  test("a gRPC client is refused by gRPC's status", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => ({ status: { code: 7 }, httpResponse: { case: "deniedResponse", value: { body: "not you" } } }));
    await using waypoint = fixture(server, authz, GRPC);
    const headers = await waypoint.grpc();
    expect(headers).toMatchObject({ ":status": 200, "content-type": "application/grpc", "grpc-status": "7", "grpc-message": "not you" });
  });

  test("a gRPC client is told what the authoriser's status stands for", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => ({ status: { code: 7 }, httpResponse: { case: "deniedResponse", value: { status: { code: 401 }, body: "who are you" } } }));
    await using waypoint = fixture(server, authz, GRPC);
    expect(await waypoint.grpc()).toMatchObject({ ":status": 200, "grpc-status": "16", "grpc-message": "who are you" });
  });

  test("gets the body up to its limit, and the server all of it", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => OK);
    await using waypoint = fixture(server, authz, { ...GRPC, includeBodyBytesMax: 8, allowPartialBody: true });
    expect(await (await waypoint.fetch("/", { method: "POST", body: "short" })).text()).toBe("POST / short");
    const body = "0123456789".repeat(300_000);
    expect(await (await waypoint.fetch("/", { method: "POST", body })).text()).toBe(`POST / ${body}`);
    expect(authz.asked.map(({ attributes }) => [attributes!.request!.http!.body, attributes!.request!.http!.headers["x-envoy-auth-partial-body"]])).toEqual([["short", "false"], ["01234567", "true"]]);
  });

  test("and all bodies that are held together have a bound", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => OK);
    await using waypoint = fixture(server, authz, { ...GRPC, includeBodyBytesMax: 1024 * 1024, allowPartialBody: true });
    const slow = waypoint.raw().send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    await until("its body to be waited for", 5_000, () => waypoint.plane.gathering.heldBytes === 1024 * 1024 || null);
    waypoint.plane.gathering.take(GATHERED_BYTES_MAX - 2 * 1024 * 1024);
    expect((await waypoint.fetch("/", { method: "POST", body: "b".repeat(1_000_000) })).status).toBe(200);
    waypoint.plane.gathering.take(1024 * 1024);
    const refused = await waypoint.fetch("/", { method: "POST", body: "b" });
    expect([refused.status, refused.headers.get("x-weft-reason")]).toEqual([503, "overloaded"]);
    waypoint.plane.gathering.giveBack(GATHERED_BYTES_MAX - 1024 * 1024);
    slow.destroy();
    await until("its room to be given back", 5_000, () => waypoint.plane.gathering.heldBytes === 0 || null);
    expect(waypoint.counted("weft_authorizer_decisions_total")).toEqual({ [`shop web ${AUTHZ} allowed`]: 1 });
  });

  test("a body that is longer than it may see is 413, told or not", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => OK);
    await using waypoint = fixture(server, authz, { ...GRPC, includeBodyBytesMax: 8 });
    expect((await waypoint.fetch("/", { method: "POST", body: "123456789" })).headers.get("x-weft-reason")).toBe("body_too_large");
    const client = waypoint.raw().send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n67890\r\n");
    expect(await client.until("x-weft-reason")).toStartWith("HTTP/1.1 413");
    client.destroy();
    expect([authz.asked.length, server.seen.length]).toEqual([0, 0]);
  });

  test("a client that waits for 100 is told to send what the authoriser is to see", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => OK);
    await using waypoint = fixture(server, authz, { ...GRPC, includeBodyBytesMax: 8 });
    const client = waypoint.raw().send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    await client.until("100 Continue");
    client.send("abc");
    await client.until("POST / abc");
    expect(authz.asked[0]!.attributes!.request!.http!.body).toBe("abc");
    client.socket.end();
  });

  test.each(["1.1", "2"] as const)("a WebSocket over HTTP/%s is asked about, and nothing of what follows is waited for", async (version) => {
    await using server = await backend1(() => {});
    server.server.on("upgrade", (request: { headers: Record<string, string> }, socket: import("node:net").Socket) => {
      const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ${accept}\r\n\r\nserver speaks`);
      socket.on("data", (chunk) => socket.end(`echo ${chunk.toString()}`));
    });
    await using authz = await authorizerService(() => OK);
    await using waypoint = fixture(server, authz, { ...GRPC, includeBodyBytesMax: 64, allowPartialBody: true });
    if (version === "1.1") {
      const client = waypoint.raw().send("GET /chat HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n");
      await client.until("server speaks");
      client.send("one");
      await client.until("echo one");
      client.socket.end();
    } else {
      const session = connect2(waypoint.url);
      await new Promise((resolve) => session.on("remoteSettings", resolve));
      const stream = session.request({ ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/chat", ":authority": "web", "sec-websocket-version": "13" });
      let got = "";
      stream.on("data", (chunk: Buffer) => (got += chunk.toString()));
      await until("the server to speak", 5_000, () => got.includes("server speaks") || null);
      stream.write("one");
      await until("the echo", 5_000, () => got.includes("echo one") || null);
      stream.end();
      session.close();
    }
    expect(authz.asked[0]!.attributes!.request!.http).toMatchObject({ method: "GET", path: "/chat", body: "" });
  });

  test("is asked over one kept connection, and over a new one when that was closed", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => OK);
    await using waypoint = fixture(server, authz, GRPC);
    for (let i = 0; i < 5; i++) expect((await waypoint.fetch("/")).status).toBe(200);
    expect(authz.connections()).toBe(1);
    authz.cut("goaway");
    expect((await waypoint.fetch("/")).status).toBe(200);
    authz.cut("reset");
    expect((await waypoint.fetch("/")).status).toBe(200);
    expect(authz.asked.length).toBe(7);
  });

  test("that ends its connection and takes none of the questions on it is asked again over a new one, by all that waited", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => OK);
    let connections = 0;
    await using front = await rawBackend((socket) => {
      if (++connections > 1) {
        const behind = connect(authz.port, "127.0.0.1");
        behind.on("error", () => socket.destroy());
        socket.on("close", () => behind.destroy());
        return void socket.pipe(behind).pipe(socket);
      }
      // SETTINGS; and, once questions have come, GOAWAY: none of them was looked at.
      socket.write(Uint8Array.of(0, 0, 0, 4, 0, 0, 0, 0, 0));
      let bytes = 0;
      socket.on("data", (chunk) => {
        bytes += chunk.length;
        if (bytes > 1_000) socket.end(Uint8Array.of(0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
      });
    });
    await using waypoint = fixture(server, front, GRPC);
    const answers = await Promise.all(Array.from({ length: 10 }, () => waypoint.fetch("/")));
    expect(answers.map(({ status }) => status)).toEqual(new Array(10).fill(200));
    expect(authz.asked.length).toBe(10);
  });

  test("refuses access by what it made of the request: DENY and ALLOW look at its headers, not the client's", async () => {
    await using server = await echo();
    await using authz = await authorizerService(({ attributes }) => ({ status: { code: 0 }, httpResponse: { case: "okResponse", value: { headers: [headerOption("x-role", attributes!.request!.http!.headers["x-user"] === "anna" ? "admin" : "none")] } } }));
    const admins = requestPolicy({ name: "admins", rules: [{ conditions: [{ key: { kind: "header", name: "x-role" }, values: [{ kind: "exact", value: "admin" }], notValues: [] }] }] });
    await using waypoint = fixture(server, authz, GRPC, { requestPolicies: [...asks(GRPC).requestPolicies, admins] });
    expect((await waypoint.fetch("/", { headers: { "x-user": "anna" } })).status).toBe(200);
    const forged = await waypoint.fetch("/", { headers: { "x-user": "bert", "x-role": "admin" } });
    expect([forged.status, forged.headers.get("x-weft-reason")]).toEqual([403, "access_not_allowed"]);
  });

  test.each([[false, "web"], [true, "beta"]] as const)("changes the route only where it may: %p", async (changesRoute, expected) => {
    await using web = await backend1((_, response) => response.end("web"));
    await using beta = await backend1((_, response) => response.end("beta"));
    await using authz = await authorizerService(() => ({ status: { code: 0 }, httpResponse: { case: "okResponse", value: { headers: [headerOption("x-group", "beta")] } } }));
    const routes = [route({ rules: [
      rule({ matches: [when({ headers: [{ name: "x-group", pattern: { kind: "exact", value: "beta" }, invert: false }] })], backends: [backend("beta")] }), rule({ backends: [backend("web")] }),
    ] })];
    await using waypoint = new WaypointFixture({
      endpoints: [web, { service: "beta", port: beta.port }, { service: "authz", port: authz.port }], l7: { ...asks({ ...GRPC, changesRoute }), routes },
    });
    expect(await (await waypoint.fetch("/")).text()).toBe(expected);
  });

  test("of a rule (ExternalAuth) is asked for that rule alone", async () => {
    await using server = await echo();
    await using authz = await authorizerService(() => ({ status: { code: 7 }, httpResponse: { case: "deniedResponse", value: {} } }));
    const guarded = rule({ matches: [when({ path: { kind: "prefix", value: "/admin" } })], filters: [{ kind: "externalAuth", authorizer: GRPC }], backends: [backend("web")] });
    await using waypoint = new WaypointFixture({ endpoints: [server, { service: "authz", port: authz.port }], l7: { routes: [route({ rules: [guarded, rule({ backends: [backend("web")] })] })] } });
    expect((await waypoint.fetch("/open")).status).toBe(200);
    expect((await waypoint.fetch("/admin")).status).toBe(403);
    expect(await waypoint.ended(2)).toMatchObject({ code: "authorizer_denied", provenance: "HTTPRoute shop/route spec.rules[0].matches[0]" });
    expect(authz.asked.length).toBe(1);
  });
});

test.each([["both", 200], ["HTTP/1.1", 403]] as const)("an authoriser by TLS that speaks %s", async (speaks, expected) => {
  const authority = new BackendAuthority();
  const adapter = connectNodeAdapter({ routes: (router) => void router.service(Authorization, { check: () => OK }) });
  await using server = await echo();
  await using authz = await tlsBackend({ leaf: authority.leaf({ dns: ["authz.example.com"] }), ...(speaks === "both" ? { speaks } : {}) }, adapter);
  const policy = { ...trafficPolicy({ tls: { mode: "simple", sni: "authz.example.com", subjectAltNames: [], caPem: authority.caPem, crlPem: null, certificate: null, gatewayCertificate: false, verify: true } }), service: AUTHZ };
  await using waypoint = fixture(server, authz, GRPC, { trafficPolicies: [{ service: AUTHZ, policies: [policy] }] });
  expect([(await waypoint.fetch("/")).status, (await waypoint.fetch("/")).status]).toEqual([expected, expected]);
  if (expected === 403) expect((await waypoint.ended(2)).detail).toContain("speaks HTTP/1.1, wanted HTTP/2");
  else expect(authz.connections).toBe(1);
});

describe("an authoriser that fails", () => {
  const failing: [string, Parameters<typeof authorizerService>[0], RegExp][] = [
    ["does not answer", () => new Promise(() => {}), /no answer from 127\.0\.0\.1:\d+ within 300 ms/],
    ["answers with a gRPC error", () => {
      throw new ConnectError("down for the day", Code.Unavailable);
    }, /gRPC status 14 \(UNAVAILABLE\) "down for the day"/],
    ["answers with nothing", () => ({}), /empty message/],
    ["wants a header that cannot be sent", () => ({ status: { code: 0 }, httpResponse: { case: "okResponse", value: { headers: [headerOption("x y", "1")] } } }), /which is no name/],
  ];
  test.each(failing)("because it %s denies, or lets through where the provider says so", async (_, answer, why) => {
    await using server = await echo();
    await using authz = await authorizerService(answer);
    const authorizer = { ...GRPC, timeoutMs: 300, statusOnError: 503 };
    await using waypoint = fixture(server, authz, authorizer);
    const denied = await waypoint.fetch("/");
    expect([denied.status, denied.headers.get("x-weft-reason"), server.seen.length]).toEqual([503, "authorizer_failed", 0]);
    const told = await waypoint.ended();
    expect(told.detail).toMatch(why);
    expect(told.flags).toBe("UAEX");
    waypoint.change(asks({ ...authorizer, onFailure: "allow" }));
    expect((await waypoint.fetch("/")).status).toBe(200);
    expect((await waypoint.ended(2)).detail).toMatch(/let through \(onFailure: allow\)/);
    expect(waypoint.counted("weft_authorizer_decisions_total")).toEqual({ [`shop web ${AUTHZ} failed`]: 2 });
  });

  test("because nobody is there denies and says what was tried", async () => {
    await using server = await echo();
    const gone = await authorizerService(() => OK);
    await gone.stop();
    await using waypoint = fixture(server, gone, GRPC);
    expect((await waypoint.fetch("/")).status).toBe(403);
    expect((await waypoint.ended()).detail).toContain(`asked authoriser ${AUTHZ} port 80 (grpc)`);
  });

  test("because it speaks another protocol denies", async () => {
    await using server = await echo();
    await using other = await rawBackend((socket) => socket.end("220 smtp\r\n"));
    await using waypoint = fixture(server, other, GRPC);
    expect((await waypoint.fetch("/")).status).toBe(403);
    expect((await waypoint.ended()).code).toBe("authorizer_failed");
  });

  test("a client that goes away takes its question with it", async () => {
    await using server = await echo();
    let asked = 0;
    await using authz = await authorizerService(() => {
      asked++;
      return new Promise(() => {});
    });
    await using waypoint = fixture(server, authz, { ...GRPC, timeoutMs: 60_000 });
    const client = waypoint.raw().send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    await until("the question", 5_000, () => asked > 0 || null);
    client.destroy();
    expect(await waypoint.ended()).toMatchObject({ status: 0, flags: "DC" });
  });
});

describe("by HTTP", () => {
  test("200 lets through with the headers that are named", async () => {
    await using server = await echo();
    await using authz = await backend1((_, response) => response.writeHead(200, { "x-auth-user": "anna", "x-other": "1", "x-tell": "client", "x-envoy-auth-headers-to-remove": "x-secret, authorization" }).end("ignored"));
    await using waypoint = fixture(server, authz, { ...HTTP, pathPrefix: "/check", headersUpstream: ["x-auth-*"], headersDownstreamOnAllow: ["x-tell"], additionalHeaders: [["x-mesh", "weft"]] });
    const answer = await waypoint.fetch("/cart?a=b", { method: "PUT", body: "hello", headers: { host: "shop.example", "x-user": "anna", "x-other": "2", "x-secret": "s", authorization: "Bearer t" } });
    expect([answer.status, answer.headers.get("x-tell"), await answer.text()]).toEqual([200, "client", "PUT /cart?a=b hello"]);
    expect(authz.seen[0]).toMatchObject({ method: "PUT", url: "/check/cart?a=b", headers: { host: "shop.example", "x-user": "anna", authorization: "Bearer t", "x-mesh": "weft" } });
    expect(authz.seen[0]!.headers["x-other"]).toBeUndefined();
    expect(server.seen[0]!.headers).toMatchObject({ "x-auth-user": "anna", "x-other": "2" });
    expect([server.seen[0]!.headers["x-secret"], server.seen[0]!.headers.authorization]).toEqual([undefined, undefined]);
  });

  test("anything below 500 refuses as it is; 500 and above is a failure", async () => {
    await using server = await echo();
    let status = 302;
    await using authz = await backend1((_, response) => response.writeHead(status, { location: "https://login.example/", "set-cookie": ["a=1", "b=2"], "x-inside": "1" }).end("go there"));
    await using waypoint = fixture(server, authz, HTTP);
    const answer = await waypoint.fetch("/");
    expect([answer.status, answer.headers.get("location"), answer.headers.getSetCookie(), answer.headers.get("x-inside"), await answer.text()]).toEqual([302, "https://login.example/", ["a=1", "b=2"], null, "go there"]);
    status = 500;
    expect((await waypoint.fetch("/")).headers.get("x-weft-reason")).toBe("authorizer_failed");
    expect(server.seen).toEqual([]);
  });

  test("sees the body up to its limit", async () => {
    await using server = await echo();
    const bodies: string[] = [];
    await using authz = await backend1((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString()));
      request.on("end", () => {
        bodies.push(`${body} ${request.headers["content-length"]} ${request.headers["x-envoy-auth-partial-body"]}`);
        response.end();
      });
    });
    await using waypoint = fixture(server, authz, { ...HTTP, includeBodyBytesMax: 4, allowPartialBody: true });
    expect(await (await waypoint.fetch("/", { method: "POST", body: "abcdef" })).text()).toBe("POST / abcdef");
    expect(bodies).toEqual(["abcd 4 true"]);
  });
});

