// One request and its answer through the whole of a waypoint's HTTP, between real sockets.

import { describe, expect, test } from "bun:test";
import { connect as connect2 } from "node:http2";
import { backend, jwtRule, path, requestMatch, requestPolicy, route, rule, to, WEB } from "../../test/kit/http-records.ts";
import { keySet, sign, testKey } from "../../test/kit/issuer.ts";
import { identity, provenance } from "../../test/kit/mesh-records.ts";
import { NO_LIMITS, trafficPolicy } from "../../test/kit/upstreams.ts";
import { backend1, backend2, rawBackend, WaypointFixture } from "../../test/kit/waypoint.ts";
import { until } from "../../test/kit/until.ts";
import { seededRandom, systemClock } from "../core/ports.ts";
import { err } from "../core/result.ts";
import { IntrospectionCache } from "../identity/jwt/introspection.ts";
import { JwksCache } from "../identity/jwt/jwks-cache.ts";
import { TokenVerifier } from "../identity/jwt/token-verifier.ts";
import { INHERITED_TIMEOUTS } from "../mesh/l7/route.ts";
import { RETRY_DEFAULT } from "../policy/upstream/settings.ts";

/** A time limit that is meant to run out, and not before the request is at its server: this process is both ends, and may be held up. */
const SHORT_MS = 300;

describe("HTTP/1.1 to HTTP/1.1", () => {
  test("passes a request and its answer, and keeps both connections", async () => {
    await using server = await backend1((request, response) => response.end(`hello ${request.url}`));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const client = waypoint.raw();
    client.send("GET /a?b=c HTTP/1.1\r\nHost: web\r\nX-Own: 1\r\n\r\n");
    await client.until("hello /a?b=c");
    client.send("GET /d HTTP/1.1\r\nHost: web\r\n\r\n");
    await client.until("hello /d");
    expect(server.seen.map(({ url }) => url)).toEqual(["/a?b=c", "/d"]);
    expect(server.seen[0]!.headers).toMatchObject({ host: "web", "x-own": "1" });
    expect(await waypoint.ended(2)).toMatchObject({ method: "GET", path: "/d", status: 200, code: null, flags: "-", attempts: 1, responseBytes: 8 });
    client.socket.end();
  });

  test("streams a large body both ways, whole", async () => {
    await using server = await backend1((request, response) => request.pipe(response));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const body = Buffer.alloc(20 * 1024 * 1024, "0123456789abcdef");
    const answer = await waypoint.fetch("/echo", { method: "POST", body });
    expect(Bun.hash(new Uint8Array(await answer.arrayBuffer()))).toBe(Bun.hash(body));
    expect(await waypoint.ended()).toMatchObject({ requestBytes: body.length, responseBytes: body.length });
  });

  test("a client that does not read holds the server back, and gets everything when it does", async () => {
    const total = 64 * 1024 * 1024;
    let sent = 0;
    await using server = await backend1((_request, response) => {
      const chunk = Buffer.alloc(256 * 1024, 120);
      const more = (): void => {
        while (sent < total) {
          sent += chunk.length;
          if (!response.write(chunk)) return void response.once("drain", more);
        }
        response.end();
      };
      more();
    });
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const client = waypoint.raw();
    client.keep = false;
    client.socket.pause();
    client.send("GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    let before = -1;
    await until("the server to be held back", 5_000, async () => {
      const stands = sent > 0 && sent === before;
      before = sent;
      await Bun.sleep(100);
      return stands || null;
    });
    expect(sent).toBeLessThan(total);
    client.socket.resume();
    await client.closed();
    expect(client.bytes).toBeGreaterThan(total);
    expect(await waypoint.ended()).toMatchObject({ responseBytes: total });
  });

  test("passes interim answers, Expect, chunked bodies and trailers", async () => {
    await using server = await rawBackend((socket) => {
      let got = "";
      socket.on("data", (chunk) => {
        got += chunk.toString("latin1");
        if (got.endsWith("\r\n\r\n") && got.includes("expect: 100-continue") && !got.includes("sum")) socket.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        if (got.includes("sum")) socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\nx-sum: 7\r\n\r\n");
      });
    });
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const client = waypoint.raw().send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nExpect: 100-continue\r\nTE: trailers\r\nConnection: te\r\n\r\n");
    await client.until("103 Early Hints");
    client.send("sum");
    expect(await client.until("x-sum: 7\r\n\r\n")).toMatch(/^HTTP\/1.1 100 .*103 Early Hints.*200 OK.*3\r\nxyz\r\n0\r\nx-sum: 7\r\n\r\n$/s);
    client.socket.end();
  });

  test("a WebSocket's bytes go both ways, and its end too", async () => {
    await using server = await backend1(() => {});
    server.server.on("upgrade", (_request: unknown, socket: import("node:net").Socket) => {
      socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nserver speaks");
      socket.on("data", (chunk) => socket.write(`echo ${chunk.toString()}`));
      socket.on("end", () => socket.end());
    });
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const client = waypoint.raw().send("GET /chat HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n");
    await client.until("server speaks");
    client.send("one");
    await client.until("echo one");
    client.socket.end();
    await client.closed();
    expect(await waypoint.ended()).toMatchObject({ status: 101, code: null });
  });

  test("a request that was refused as malformed says why, and is counted", async () => {
    await using waypoint = new WaypointFixture({ endpoints: [] });
    const client = waypoint.raw().send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    expect(await client.closed()).toMatch(/^HTTP\/1.1 400 .*x-weft-reason: bad_request/s);
    expect(waypoint.malformed).toEqual(["severalHosts"]);
  });
});

describe("HTTP/2", () => {
  const h2get = (session: import("node:http2").ClientHttp2Session, headers: Record<string, string>, body?: string) =>
    new Promise<{ status: number; headers: Record<string, unknown>; trailers: Record<string, unknown>; body: string }>((resolve, reject) => {
      const stream = session.request({ ":method": body === undefined ? "GET" : "POST", ":authority": "web", ...headers });
      let status = 0;
      let text = "";
      let got: Record<string, unknown> = {};
      let trailers: Record<string, unknown> = {};
      stream.on("response", (answer) => {
        status = Number(answer[":status"]);
        got = answer;
      });
      stream.on("trailers", (more) => (trailers = more));
      stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
      stream.on("end", () => resolve({ status, headers: got, trailers, body: text }));
      stream.on("error", reject);
      if (body === undefined) stream.end();
      else stream.end(body);
    });

  test("client to a server that speaks HTTP/2 too: bodies and trailers", async () => {
    await using server = await backend2((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.pipe(stream);
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc" });
    const session = connect2(waypoint.url);
    const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => h2get(session, { ":path": `/s/${i}`, "content-type": "application/grpc", te: "trailers" }, `body ${i}`)));
    expect(answers.map(({ body }) => body)).toEqual(Array.from({ length: 50 }, (_, i) => `body ${i}`));
    expect(answers[0]!.trailers["grpc-status"]).toBe("0");
    expect(await waypoint.ended(50)).toMatchObject({ status: 200, grpcStatus: 0 });
    session.close();
  });

  test("client to an HTTP/1.1 server, and the other way round", async () => {
    await using one = await backend1((request, response) => response.end(`one ${request.headers.host} ${request.url}`));
    await using two = await backend2((stream, headers) => {
      stream.respond({ ":status": 200 });
      stream.end(`two ${headers[":authority"]} ${headers[":path"]}`);
    });
    await using toTwo = new WaypointFixture({ endpoints: [two], portName: "http2" });
    expect(await (await toTwo.fetch("/x", { headers: { host: "web" } })).text()).toBe("two web /x");
    await using toOne = new WaypointFixture({ endpoints: [one], l7: { routes: [route({ rules: [to("web")] })] } });
    toOne.change({ trafficPolicies: [] });
    const session = connect2(toOne.url);
    // A port that is not declared as HTTP/2 is spoken to as the client speaks, and a server that does not understand is spoken to in HTTP/1.1.
    expect(await h2get(session, { ":path": "/" })).toMatchObject({ status: 200, body: "one web /" });
    session.close();
  });

  // Servers of HTTP/1.1 and what they make of the beginning of HTTP/2.
  const strangers: readonly (readonly [string, (socket: import("node:net").Socket) => void])[] = [
    ["says 400", (socket) => void socket.end("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")],
    ["says 505 and stays", (socket) => void socket.write("HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\n\r\n")],
    ["closes without a word", (socket) => void socket.end()],
    ["resets", (socket) => socket.resetAndDestroy()],
    ["waits for more", () => {}],
  ];
  for (const [name, meets] of strangers) {
    test(`a client of HTTP/2 and a server of HTTP/1.1 that ${name}: each request arrives once, none is sent to find out`, async () => {
      let begunInHttp2 = 0;
      const seen: string[] = [];
      await using server = await rawBackend((socket) => {
        let got = "";
        socket.on("data", (bytes) => {
          got += bytes.toString("latin1");
          if (got.startsWith("PRI * HTTP/2.0")) {
            if (got.length === bytes.length) begunInHttp2++;
            expect(got).not.toContain("secret");
            return meets(socket);
          }
          const request = /^POST (\S+) [^]*?\r\n\r\n(?:[0-9a-f]+\r\n)?secret(?:\r\n0\r\n\r\n)?$/.exec(got);
          if (request === null) return;
          got = "";
          seen.push(request[1]!);
          socket.write("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none");
        });
      });
      await using waypoint = new WaypointFixture({ endpoints: [server] });
      waypoint.change({ trafficPolicies: [{ service: WEB, policies: [trafficPolicy({ limits: { ...NO_LIMITS, connectTimeoutMs: 300 } })] }] });
      const session = connect2(waypoint.url);
      const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => h2get(session, { ":path": `/${i}` }, "secret")));
      expect(answers.map(({ status, body }) => `${status} ${body}`)).toEqual(Array.from({ length: 20 }, () => "200 one"));
      expect(seen.toSorted()).toEqual(Array.from({ length: 20 }, (_, i) => `/${i}`).toSorted());
      expect(await h2get(session, { ":path": "/later" }, "secret")).toMatchObject({ status: 200 });
      expect(begunInHttp2).toBe(1);
      session.close();
    });
  }

  test("a server on a port that declares nothing speaks HTTP/2: so do we, and a server of HTTP/1.1 that takes its place is noticed", async () => {
    const two = await backend2((stream, headers) => {
      stream.respond({ ":status": 200 });
      stream.end(`two ${headers[":path"]}`);
    });
    await using waypoint = new WaypointFixture({ endpoints: [two] });
    const session = connect2(waypoint.url);
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => h2get(session, { ":path": `/${i}` })));
    expect(answers.map(({ body }) => body)).toEqual(Array.from({ length: 20 }, (_, i) => `two /${i}`));
    await two[Symbol.asyncDispose]();
    await using _one = await backend1((request, response) => response.end(`one ${request.url}`), "127.0.0.1", two.port);
    expect(await until("HTTP/1.1 to be spoken", 5_000, async () => {
      const { status, body } = await h2get(session, { ":path": "/then" });
      return status === 200 ? body : null;
    })).toBe("one /then");
    session.close();
  });

  test("extended CONNECT to an HTTP/1.1 WebSocket server", async () => {
    await using server = await backend1(() => {});
    server.server.on("upgrade", (request: import("node:http").IncomingMessage, socket: import("node:net").Socket) => {
      const accept = new Bun.CryptoHasher("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ${accept}\r\n\r\n`);
      socket.on("data", (chunk) => socket.write(`echo ${chunk.toString()}`));
      socket.on("end", () => socket.end());
    });
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const session = connect2(waypoint.url);
    await new Promise((resolve) => session.once("remoteSettings", resolve));
    const stream = session.request({ ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/chat", ":authority": "web", "sec-websocket-version": "13" });
    let got = "";
    let status = 0;
    stream.on("response", (headers) => (status = Number(headers[":status"])));
    stream.on("data", (chunk: Buffer) => (got += chunk.toString()));
    stream.write("two");
    await until("the echo", 5_000, () => got === "echo two" || null);
    expect(status).toBe(200);
    stream.end();
    await until("the end", 5_000, () => stream.closed || null);
    session.close();
  });
});

describe("decisions", () => {
  test("routes, weights, header changes; what no rule matches gets 404 and the reason", async () => {
    await using v1 = await backend1((request, response) => response.setHeader("x-from", "v1").end(String(request.headers["x-added"])));
    await using v2 = await backend1((_request, response) => response.end("v2"));
    await using waypoint = new WaypointFixture({
      endpoints: [{ service: "v1", port: v1.port }, { service: "v2", port: v2.port }],
      l7: { routes: [route({ rules: [
        rule({ matches: [{ ...requestlessMatch, path: path.prefix("/v1") }], backends: [backend("v1")], filters: [
          { kind: "requestHeaders", change: { set: [["x-added", "yes"]], add: [], remove: [] } }, { kind: "responseHeaders", change: { set: [["x-seen", "too"]], add: [], remove: ["x-from"] } },
          { kind: "rewrite", hostname: "else.example", path: { kind: "prefix", value: "/new" } },
        ] }),
        to("v2", { path: path.exact("/v2") }),
      ] })] },
    });
    const first = await waypoint.fetch("/v1/a");
    expect([await first.text(), first.headers.get("x-seen"), first.headers.get("x-from")]).toEqual(["yes", "too", null]);
    expect(v1.seen[0]).toMatchObject({ url: "/new/a", headers: { host: "else.example" } });
    expect(await (await waypoint.fetch("/v2")).text()).toBe("v2");
    const none = await waypoint.fetch("/v3");
    expect([none.status, none.headers.get("x-weft-reason")]).toEqual([404, "route_not_found"]);
    expect(await waypoint.ended(3)).toMatchObject({ status: 404, code: "route_not_found", flags: "NR" });
  });

  test("access: denied by method and path, in force for the next request of an open connection", async () => {
    await using server = await backend1((_request, response) => response.end("in"));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const client = waypoint.raw().send("DELETE /admin HTTP/1.1\r\nHost: web\r\n\r\n");
    await client.until("in");
    waypoint.change({ requestPolicies: [requestPolicy({ name: "no-delete", action: "deny", rules: [requestMatch({ methods: [{ kind: "exact", value: "DELETE" }], paths: [{ kind: "prefix", value: "/admin" }] })] })] });
    client.send("DELETE /admin HTTP/1.1\r\nHost: web\r\n\r\n");
    await client.until("RBAC: access denied");
    expect(await waypoint.ended(2)).toMatchObject({ status: 403, code: "access_denied", provenance: "AuthorizationPolicy shop/no-delete spec.rules[0]" });
    client.send("GET /admin HTTP/1.1\r\nHost: web\r\n\r\n");
    expect(await waypoint.ended(3)).toMatchObject({ status: 200 });
    client.socket.end();
  });

  test("access: a preflight that its rule answers is let through to it, by whoever it comes; any other OPTIONS is judged", async () => {
    await using server = await backend1((_request, response) => response.end("in"));
    const cors = (unmatchedPreflight: "answer" | "forward") => route({ rules: [rule({ backends: [backend("web")], filters: [{
      kind: "cors", cors: { allowOrigins: [{ kind: "exact", value: "https://app.example" }], allowMethods: ["PUT"], allowHeaders: ["authorization"], exposeHeaders: [], maxAgeS: 5, allowCredentials: true, unmatchedPreflight },
    }] })] });
    const needsToken = requestPolicy({ name: "token", rules: [requestMatch({ requestPrincipals: [{ kind: "presence" }] })] });
    await using waypoint = new WaypointFixture({ endpoints: [{ service: "web", port: server.port }], l7: { routes: [cors("answer")], requestPolicies: [needsToken] } });
    const ask = async (method: string, origin: string, more: Record<string, string> = { "access-control-request-method": "PUT", "access-control-request-headers": "authorization" }) => {
      const answer = await waypoint.fetch("/", { method, headers: { origin, ...more } });
      return [answer.status, answer.headers.get("x-weft-reason"), answer.headers.get("access-control-allow-origin")];
    };
    expect(await ask("OPTIONS", "https://app.example")).toEqual([204, "cors_preflight", "https://app.example"]);
    expect(await ask("OPTIONS", "https://evil.example")).toEqual([204, "cors_preflight_denied", null]);
    // These would reach the server.
    expect(await ask("OPTIONS", "https://app.example", {})).toEqual([403, "access_not_allowed", "https://app.example"]);
    // The page must be able to read that it may not.
    expect(await ask("PUT", "https://app.example")).toEqual([403, "access_not_allowed", "https://app.example"]);
    expect(await ask("PUT", "https://evil.example")).toEqual([403, "access_not_allowed", null]);
    waypoint.change({ routes: [cors("forward")], requestPolicies: [needsToken] });
    expect(await ask("OPTIONS", "https://evil.example")).toEqual([403, "access_not_allowed", null]);
    expect(server.seen).toEqual([]);
  });

  test("faults: a delay, an abort, a reset, a bandwidth", async () => {
    await using server = await backend1((_request, response) => response.end(Buffer.alloc(30_000)));
    const faulty = (action: import("../mesh/l7/fault.ts").FaultAction) => ({ routes: [route({ rules: [rule({ backends: [backend("web")], faults: [{ action, fraction: 1, matches: [], fieldPath: "spec.http[0].fault" }] })] })] });
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: faulty({ kind: "delay", fixedMs: 80 }) });
    const started = performance.now();
    expect((await waypoint.fetch("/")).status).toBe(200);
    expect(performance.now() - started).toBeGreaterThan(75);
    waypoint.change(faulty({ kind: "abort", httpStatus: 418, grpcStatus: null }));
    const aborted = await waypoint.fetch("/");
    expect([aborted.status, aborted.headers.get("x-weft-reason")]).toEqual([418, "fault_abort"]);
    waypoint.change(faulty({ kind: "reset" }));
    expect(await waypoint.raw().send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").closed()).toBe("");
    waypoint.change(faulty({ kind: "bandwidth", bytesPerSecond: 100_000 }));
    const slow = performance.now();
    expect((await (await waypoint.fetch("/")).arrayBuffer()).byteLength).toBe(30_000);
    expect(performance.now() - slow).toBeGreaterThan(250);
    expect(waypoint.told.map(({ flags }) => flags)).toEqual(["DI", "FI", "FI", "-"]);
  });
});

describe("when servers fail", () => {
  test("no connection: another endpoint is tried, and nothing is left of the first", async () => {
    await using server = await backend1((_request, response) => response.end("alive"));
    await using closed = await rawBackend(() => {});
    const dead = { port: closed.port };
    await closed[Symbol.asyncDispose]();
    await using waypoint = new WaypointFixture({ endpoints: [dead, { port: server.port }] });
    for (let i = 0; i < 10; i++) expect(await (await waypoint.fetch("/")).text()).toBe("alive");
    expect(waypoint.told.some(({ attempts }) => attempts === 2)).toBe(true);
  });

  test("nobody listens at all: 503 with the reason and what was tried", async () => {
    await using closed = await rawBackend(() => {});
    const dead = { port: closed.port };
    await closed[Symbol.asyncDispose]();
    await using waypoint = new WaypointFixture({ endpoints: [dead] });
    const answer = await waypoint.fetch("/");
    expect([answer.status, answer.headers.get("x-weft-reason")]).toEqual([503, "connect_failed"]);
    expect((await waypoint.ended()).detail).toContain(`TCP connect to 127.0.0.1:${dead.port} failed: ECONNREFUSED`);
  });

  test("a kept connection that the server closed: the request goes again over a new one", async () => {
    let connections = 0;
    await using server = await rawBackend((socket) => {
      connections++;
      let requests = 0;
      socket.on("data", () => {
        // Closes without a word when it is asked for the second time.
        if (++requests === 1) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        else socket.end();
      });
    });
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    for (let i = 0; i < 3; i++) expect(await (await waypoint.fetch("/")).text()).toBe("ok");
    expect(connections).toBe(3);
    expect(await waypoint.ended(3)).toMatchObject({ attempts: 2, code: null });
  });

  test("a POST is not sent twice", async () => {
    let posts = 0;
    await using server = await rawBackend((socket) => socket.on("data", () => {
      posts++;
      socket.destroy();
    }));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const answer = await waypoint.fetch("/", { method: "POST", body: "x" });
    expect([answer.status, answer.headers.get("x-weft-reason"), posts]).toEqual([503, "upstream_reset", 1]);
  });

  test("retries by status send the same body again, and stop at the number that is allowed", async () => {
    let asked = 0;
    const bodies: string[] = [];
    await using server = await backend1(async (request, response) => {
      let body = "";
      for await (const chunk of request) body += chunk;
      bodies.push(body);
      response.writeHead(++asked % 3 === 0 ? 200 : 503).end("x");
    });
    const retry = { ...RETRY_DEFAULT, attempts: 2, statuses: [503], nonIdempotent: true };
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: { routes: [route({ rules: [rule({ backends: [backend("web")], retry })] })] } });
    expect((await waypoint.fetch("/", { method: "POST", body: "again" })).status).toBe(200);
    expect(bodies).toEqual(["again", "again", "again"]);
    waypoint.change({ routes: [route({ rules: [rule({ backends: [backend("web")], retry: { ...retry, attempts: 1 } })] })] });
    expect((await waypoint.fetch("/", { method: "POST", body: "once more" })).status).toBe(503);
    expect(await waypoint.ended(2)).toMatchObject({ attempts: 2, status: 503, code: null });
  });

  test("an answer cut in the middle is cut for the client too, and nobody takes it for whole", async () => {
    await using server = await rawBackend((socket) => socket.on("data", () => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf");
      setTimeout(() => socket.destroy(), 20);
    }));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const client = waypoint.raw().send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    await client.until("half");
    await client.closed();
    expect(await waypoint.ended()).toMatchObject({ status: 200, code: "upstream_reset", flags: "UC", responseBytes: 4 });
  });

  test("an answer that breaks HTTP is 502", async () => {
    await using server = await rawBackend((socket) => socket.on("data", () => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!")));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    expect((await waypoint.fetch("/")).headers.get("x-weft-reason")).toBe("upstream_protocol");
  });

  test("timeouts: of the request, and of one attempt with another after it", async () => {
    let asked = 0;
    await using server = await backend1((_request, response) => void (++asked === 3 ? response.end("third") : null));
    const waiting = (timeouts: object, retry: object | null) => ({ routes: [route({ rules: [rule({ backends: [backend("web")], timeouts: { ...INHERITED_TIMEOUTS, ...timeouts }, retry: retry === null ? null : { ...RETRY_DEFAULT, ...retry } })] })] });
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: waiting({ requestMs: SHORT_MS }, null) });
    const late = await waypoint.fetch("/");
    expect([late.status, late.headers.get("x-weft-reason")]).toEqual([504, "request_timeout"]);
    waypoint.change(waiting({}, { onReset: true, perTryTimeoutMs: SHORT_MS }));
    expect(await (await waypoint.fetch("/")).text()).toBe("third");
    expect(await waypoint.ended(2)).toMatchObject({ attempts: 2, status: 200 });
  });

  test("the timeout that was too short is named: the whole request's, one attempt's, the route's or a policy's", async () => {
    await using server = await backend1(() => {});
    const at = `127.0.0.1:${server.port}`;
    const ms = (fields: object) => ({ ...INHERITED_TIMEOUTS, ...fields });
    const routed = (fields: object, kind: "HTTPRoute" | "VirtualService" = "HTTPRoute") => ({ routes: [route({ kind, rules: [rule({ backends: [backend("web")], ...fields })] })] });
    const retried = { ...RETRY_DEFAULT, attempts: 1, perTryTimeoutMs: SHORT_MS, onReset: true };
    const policy = { ...trafficPolicy({}), service: WEB, provenance: { timeouts: provenance("TrafficPolicy", "shop", "web"), retry: provenance("TrafficPolicy", "shop", "web") } };
    const cases: readonly (readonly [what: string, config: object, code: string, rule: string, detail: string])[] = [
      ["a route's request", routed({ timeouts: ms({ requestMs: SHORT_MS }) }), "request_timeout", "HTTPRoute shop/route spec.rules[0].timeouts.request", `the request's ${SHORT_MS} ms were over while awaiting the answer of ${at}`],
      ["a VirtualService's", routed({ timeouts: ms({ requestMs: SHORT_MS }) }, "VirtualService"), "request_timeout", "VirtualService shop/route spec.http[0].timeout", `the request's ${SHORT_MS} ms were over while awaiting the answer of ${at}`],
      ["a route's backend request", routed({ timeouts: ms({ backendRequestMs: SHORT_MS }) }), "per_try_timeout", "HTTPRoute shop/route spec.rules[0].timeouts.backendRequest", `attempt 1 at ${at}: no answer within the ${SHORT_MS} ms of its backend request timeout (HTTPRoute shop/route spec.rules[0].timeouts.backendRequest)`],
      ["a VirtualService's try", routed({ retry: retried }, "VirtualService"), "per_try_timeout", "VirtualService shop/route spec.http[0].retries.perTryTimeout", `attempt 2 at ${at}: no answer within the ${SHORT_MS} ms of its per-try timeout (VirtualService shop/route spec.http[0].retries.perTryTimeout)`],
      ["a policy's backend request", { trafficPolicies: [{ service: WEB, policies: [{ ...policy, timeouts: ms({ backendRequestMs: SHORT_MS }) }] }] }, "per_try_timeout", "TrafficPolicy shop/web spec.timeouts.backendRequest", `attempt 1 at ${at}: no answer within the ${SHORT_MS} ms of its backend request timeout (TrafficPolicy shop/web spec.timeouts.backendRequest)`],
      ["a policy's try", { trafficPolicies: [{ service: WEB, policies: [{ ...policy, retry: retried }] }] }, "per_try_timeout", "TrafficPolicy shop/web spec.retry.perTryTimeout", `attempt 2 at ${at}: no answer within the ${SHORT_MS} ms of its per-try timeout (TrafficPolicy shop/web spec.retry.perTryTimeout)`],
    ];
    for (const [what, l7, code, ruleName, detail] of cases) {
      await using waypoint = new WaypointFixture({ endpoints: [server], l7 });
      const answer = await waypoint.fetch("/");
      const record = await waypoint.ended();
      expect({ what, status: answer.status, code: record.code, rule: record.provenance, detail: record.detail.split("; ").at(-1) }).toEqual({ what, status: 504, code, rule: ruleName, detail });
    }
  });

  test("gRPC learns it in gRPC's own way", async () => {
    await using waypoint = new WaypointFixture({ endpoints: [], portName: "grpc" });
    const answer = await waypoint.fetch("/s/m", { method: "POST", body: "x", headers: { "content-type": "application/grpc" } });
    expect([answer.status, answer.headers.get("grpc-status"), answer.headers.get("x-weft-reason")]).toEqual([200, "14", "no_endpoints"]);
  });
});

describe("when clients go", () => {
  test("the server learns it: its request is cancelled", async () => {
    let cancelled = false;
    await using server = await backend1((request) => void request.on("close", () => (cancelled = true)));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const client = waypoint.raw().send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    await until("the request to arrive", 5_000, () => server.seen.length === 1 || null);
    client.destroy();
    await until("the server to be told", 5_000, () => cancelled || null);
    expect(await waypoint.ended()).toMatchObject({ status: 0, flags: "DC" });
  });

  test("in every phase: half a head, half a body, waiting, half an answer", async () => {
    await using server = await backend1((request, response) => {
      if (request.url === "/wait") return;
      if (request.url === "/half") return void response.write("half");
      request.on("end", () => response.end("ok")).resume();
    });
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    waypoint.raw().send("GET / HT").destroy();
    const body = waypoint.raw().send("POST /body HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhalf");
    const waiting = waypoint.raw().send("GET /wait HTTP/1.1\r\nHost: web\r\n\r\n");
    const half = waypoint.raw().send("GET /half HTTP/1.1\r\nHost: web\r\n\r\n");
    await half.until("half");
    await until("all to arrive", 5_000, () => server.seen.length === 3 || null);
    for (const client of [body, waiting, half]) client.destroy();
    await waypoint.ended(3);
    expect(waypoint.told.map(({ flags }) => flags)).toEqual(["DC", "DC", "DC"]);
  });

  test("pipelined requests are answered in order", async () => {
    await using server = await backend1((request, response) => setTimeout(() => response.end(`<${request.url}>`), request.url === "/1" ? 30 : 0));
    await using waypoint = new WaypointFixture({ endpoints: [server] });
    const client = waypoint.raw().send([1, 2, 3].map((i) => `GET /${i} HTTP/1.1\r\nHost: web\r\n\r\n`).join(""));
    const all = await client.until("</3>");
    expect([...all.matchAll(/<\/\d>/g)].map(([text]) => text)).toEqual(["</1>", "</2>", "</3>"]);
    client.socket.end();
  });
});

test("limits: a request beyond those allowed is refused at once", async () => {
  await using server = await backend1(() => {});
  const policy = trafficPolicy({ limits: { ...NO_LIMITS, activeRequestsMax: 1 } });
  await using waypoint = new WaypointFixture({ endpoints: [server], l7: { trafficPolicies: [{ service: policy.service, policies: [policy] }] } });
  const first = waypoint.raw().send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
  await until("the first to arrive", 5_000, () => server.seen.length === 1 || null);
  const second = await waypoint.fetch("/");
  expect([second.status, second.headers.get("x-weft-reason")]).toEqual([503, "circuit_open"]);
  first.destroy();
});

test("adaptive concurrency: past what the service takes, the lowest priority is refused first", async () => {
  const waiting: (() => void)[] = [];
  await using server = await backend1((_request, response) => void waiting.push(() => response.end("done")));
  const adaptiveConcurrency = { limitMin: 1, limitMax: 2, priorityHeader: "x-priority", priorities: ["high", "low"] };
  await using waypoint = new WaypointFixture({ endpoints: [server], l7: { trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ adaptiveConcurrency })] }] } });
  const ask = (priority: string): Promise<Response> => waypoint.fetch("/", { headers: { "x-priority": priority } });
  const first = ask("low");
  await until("the first to arrive", 5_000, () => waiting.length === 1 || null);
  const refused = await ask("low");
  expect([refused.status, refused.headers.get("x-weft-reason")]).toEqual([503, "concurrency_limited"]);
  const second = ask("high");
  await until("the second to arrive", 5_000, () => waiting.length === 2 || null);
  expect((await ask("high")).status).toBe(503);
  for (const answer of waiting.splice(0)) answer();
  expect([await (await first).text(), await (await second).text()]).toEqual(["done", "done"]);
  const again = ask("low");
  await until("room again", 5_000, () => waiting.length === 1 || null);
  waiting[0]!();
  expect((await again).status).toBe(200);
  expect(waypoint.told.find(({ code }) => code === "concurrency_limited")).toMatchObject({ flags: "UO", attempts: 0 });
});

test("mirrors get a copy, body and all, and nothing of theirs comes back", async () => {
  const copies: string[] = [];
  await using server = await backend1((_request, response) => response.end("real"));
  await using mirror = await backend1(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    copies.push(`${request.method} ${request.url} ${body}`);
    response.writeHead(500).end("mirrored");
  });
  const filter = { kind: "mirror" as const, mirror: { target: backend("mirror").target, fraction: 1 } };
  await using waypoint = new WaypointFixture({ endpoints: [server, { service: "mirror", port: mirror.port }], l7: { routes: [route({ rules: [rule({ backends: [backend("web")], filters: [filter] })] })] } });
  expect(await (await waypoint.fetch("/x", { method: "POST", body: "payload" })).text()).toBe("real");
  await until("the copy", 5_000, () => copies.length === 1 || null);
  expect(copies).toEqual(["POST /x payload"]);
});

const requestlessMatch = { path: null, pathIgnoresCase: false, method: null, headers: [], query: [], authority: null, scheme: null, sourceNamespace: null, sourceLabels: {} };

test("local rate limits: counted, told in headers, refused with 429 and when to come back", async () => {
  await using server = await backend1((_request, response) => response.end("ok"));
  const limit = { name: "two", requests: 2, perMs: 60_000, burst: 2, keys: [{ kind: "header" as const, name: "x-user" }], matches: [], fieldPath: "spec.rateLimits[0]" };
  await using waypoint = new WaypointFixture({ endpoints: [server], l7: { trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ localRateLimits: [limit] })] }] } });
  const as = (user: string): Promise<Response> => waypoint.fetch("/", { headers: { "x-user": user } });
  expect((await as("a")).headers.get("x-ratelimit-remaining")).toBe("1");
  expect((await as("a")).status).toBe(200);
  const refused = await as("a");
  expect([refused.status, refused.headers.get("x-weft-reason")]).toEqual([429, "rate_limited"]);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(1);
  expect((await as("b")).status).toBe(200);
});

test("headers that only the mesh may write do not come in from outside; from a mesh peer proxies' headers do", async () => {
  await using server = await backend1((request, response) => response.end(JSON.stringify(request.headers)));
  const sent = { "X-Weft-Reason": "forged", "x-envoy-original-path": "/admin", "X-Forwarded-Client-Cert": "forged", "x-kept": "1" };
  await using outside = new WaypointFixture({ endpoints: [server] });
  const seen = (await (await outside.fetch("/", { headers: sent })).json()) as Record<string, string>;
  expect(Object.keys(seen).filter((name) => name.startsWith("x-"))).toEqual(["x-kept", "x-request-id"]);
  await using inside = new WaypointFixture({ endpoints: [server], source: { identity: identity("shop", "front") } });
  const trusted = (await (await inside.fetch("/", { headers: sent })).json()) as Record<string, string>;
  expect(Object.keys(trusted).filter((name) => name.startsWith("x-")).sort()).toEqual(["x-envoy-original-path", "x-kept", "x-request-id"]);
});

describe("ports that are not declared as HTTP", () => {
  const greeter = () => rawBackend((socket) => {
    socket.write("220 server speaks first\r\n");
    socket.on("data", (chunk) => socket.write(`you said ${chunk.toString()}`));
    socket.on("end", () => socket.end());
  });

  test("a server that speaks first is heard at once, and both ends end in order", async () => {
    await using server = await greeter();
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "" });
    const client = waypoint.raw();
    await client.until("220 server speaks first");
    client.send("\x00 no http");
    await client.until("you said \x00 no http");
    client.socket.end();
    await client.closed();
    await until("the record", 5_000, () => waypoint.passed.length === 1 || null);
    expect(waypoint.passed).toEqual([{ error: null, requestBytes: 9, responseBytes: 43 }]);
  });

  test("a client that speaks HTTP is served as HTTP", async () => {
    await using server = await backend1((_request, response) => response.end("as http"));
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "", l7: { routes: [route({ rules: [to("web", { path: path.exact("/there") })] })] } });
    expect(await (await waypoint.fetch("/there")).text()).toBe("as http");
    expect((await waypoint.fetch("/elsewhere")).status).toBe(404);
    const session = connect2(waypoint.url);
    const stream = session.request({ ":path": "/elsewhere", ":authority": "web" });
    expect(await new Promise((resolve) => stream.on("response", (headers) => resolve(Number(headers[":status"]))))).toBe(404);
    stream.resume();
    session.close();
  });

  test("with policies about requests nothing but requests gets through", async () => {
    await using server = await greeter();
    const policies = { requestPolicies: [requestPolicy({ name: "get-only", rules: [requestMatch({ methods: [{ kind: "exact", value: "GET" }] })] })] };
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "", l7: policies });
    expect(await waypoint.raw().send("\x00 no http").closed()).toBe("");
    await using declared = new WaypointFixture({ endpoints: [server], portName: "tcp-db", l7: policies });
    expect(await declared.raw().closed()).toBe("");
    expect(declared.passed[0]!.error).toContain("shop/get-only; what rules ask of requests no connection has");
  });
});

test("tokens: a good one becomes the principal and is not passed on, a bad one is refused, a body that waits for the verdict is whole", async () => {
  const key = await testKey("k1");
  const clock = systemClock;
  const fetchNothing = async () => err("no network in this test");
  const tokens = new TokenVerifier({ keys: new JwksCache({ fetch: fetchNothing, clock, random: seededRandom(1) }), introspection: new IntrospectionCache({ fetch: fetchNothing, clock }), clock });
  const nowS = Math.floor(clock.wallMs() / 1000);
  await using server = await backend1(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    response.end(JSON.stringify({ authorization: request.headers.authorization ?? null, subject: request.headers["x-subject"] ?? null, body }));
  });
  const rules = [jwtRule({ keys: { kind: "inline", jwks: keySet(key) }, claimsToHeaders: [{ header: "x-subject", claim: ["sub"] }] })];
  const authentication = { name: "jwt", namespace: "shop", targets: [{ kind: "service" as const, service: WEB }], rules, provenance: provenance("RequestAuthentication", "shop", "jwt") };
  const needed = requestPolicy({ name: "token", rules: [requestMatch({ requestPrincipals: [{ kind: "presence" }] })] });
  await using waypoint = new WaypointFixture({ endpoints: [server], tokens, l7: { requestAuthentications: [authentication], requestPolicies: [needed] } });
  const ask = (token: string | null) => waypoint.fetch("/", { method: "POST", body: "the body", headers: token === null ? {} : { authorization: `Bearer ${token}`, "x-subject": "forged" } });
  const good = await ask(await sign(key, { iat: nowS, exp: nowS + 600 }));
  expect(await good.json()).toEqual({ authorization: null, subject: "bob", body: "the body" });
  const expired = await ask(await sign(key, { iat: nowS - 7200, exp: nowS - 3600 }));
  expect([expired.status, expired.headers.get("x-weft-reason")]).toEqual([401, "token_expired"]);
  const none = await ask(null);
  expect([none.status, none.headers.get("x-weft-reason")]).toEqual([403, "access_not_allowed"]);
});
