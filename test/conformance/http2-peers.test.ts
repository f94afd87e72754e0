// The engine against HTTP/2 that others wrote, over real sockets: curl, nghttp and h2load (nghttp2), Node's http2 and Bun's, as clients
// of our server and as servers of our client.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { DEFAULT_SETTINGS, encodeStaticBlock, Http2Connection, type Http2Stream } from "../../src/wire/http2/connection.ts";
import { firstReason, needsProgram, testUnless } from "../kit/skip.ts";
import { echoHandler, FIXED_BODY } from "./echo-responder.ts";
import { connectHttp2, type Http2TestServer, listenHttp2, type TestHandler } from "./http2-socket.ts";

const TIMEOUT_MS = 60_000;

let server: Http2TestServer;
beforeAll(() => {
  server = listenHttp2({ settings: { ...DEFAULT_SETTINGS, enableConnectProtocol: true } }, echoHandler);
});
afterAll(() => server.stop());

async function output(argv: readonly string[], stdin: Uint8Array = new Uint8Array(0)): Promise<{ text: Buffer; code: number; errors: string }> {
  const child = Bun.spawn([...argv], { stdin, stdout: "pipe", stderr: "pipe" });
  const [bytes, errors, code] = await Promise.all([new Response(child.stdout).arrayBuffer(), new Response(child.stderr).text(), child.exited]);
  return { text: Buffer.from(bytes), code, errors };
}

const url = (path: string): string => `http://127.0.0.1:${server.port}${path}`;

function lastConnectionIsSound(): void {
  const counters = server.connections.at(-1)!.counters;
  expect(counters).toMatchObject({ protocolErrors: 0, flowControlErrors: 0, compressionErrors: 0, malformedMessages: 0, inducedResets: 0 });
  expect(counters.streamsOpened).toBe(counters.streamsClosed);
}

describe("http2 server, foreign clients", () => {
  testUnless(needsProgram("curl"))("curl: a body down, 8 MB up and back", async () => {
    const get = await output(["curl", "-sS", "--http2-prior-knowledge", url("/")]);
    expect(get.text.equals(Buffer.from(FIXED_BODY))).toBe(true);
    const body = Buffer.alloc(8_000_000, "0123456789abcdefg");
    const post = await output(["curl", "-sS", "--http2-prior-knowledge", "--data-binary", "@-", url("/echo")], body);
    expect(post.text.equals(body)).toBe(true);
    lastConnectionIsSound();
  }, TIMEOUT_MS);

  testUnless(needsProgram("nghttp"))("nghttp: its dependency tree of PRIORITY frames changes nothing", async () => {
    const result = await output(["nghttp", "-v", "--no-verify-peer", url("/a"), url("/b")]);
    expect(result.code).toBe(0);
    expect(result.text.toString()).toContain(":status: 200");
    lastConnectionIsSound();
  }, TIMEOUT_MS);

  testUnless(needsProgram("h2load"))("h2load: 20 000 requests on 4 connections, 50 at a time, none lost", async () => {
    const result = await output(["h2load", "-n", "20000", "-c", "4", "-m", "50", url("/")]);
    expect(result.text.toString()).toContain("20000 succeeded, 0 failed, 0 errored, 0 timeout");
    lastConnectionIsSound();
  }, TIMEOUT_MS);

  const clientScript = join(import.meta.dir, "node-http2-client.mjs");
  for (const runtime of ["node", "bun"] as const) {
    const program = runtime === "bun" ? process.execPath : "node";
    testUnless(runtime === "node" ? needsProgram("node") : null)(`${runtime}'s http2 client: bodies, a tunnel, trailers, 500 streams`, async () => {
      const result = await output([program, clientScript, String(server.port)]);
      const said = JSON.parse(result.text.toString()) as Record<string, unknown>;
      expect(said).toEqual({ getBytes: FIXED_BODY.length, getStatus: 200, echoed: 8, tunnelled: true, trailers: { "x-echo": "done" }, many: 500 });
      lastConnectionIsSound();
    }, TIMEOUT_MS);
  }
});

// ── Our client ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What one request heard, and what it still has to say. */
class Call {
  readonly heard: string[] = [];
  readonly received: Uint8Array[] = [];
  unsent: Uint8Array;
  readonly done: Promise<void>;
  private finish: () => void = () => {};

  constructor(body: Uint8Array) {
    this.unsent = body;
    this.done = new Promise((resolve) => (this.finish = resolve));
  }

  send(connection: Http2Connection, stream: Http2Stream): void {
    if (this.unsent.length === 0) return;
    this.unsent = this.unsent.subarray(connection.sendData(stream, this.unsent, true));
  }

  closed(): void {
    this.finish();
  }
}

const callHandler =
  (settingsSeen: () => void): TestHandler =>
  (connection) => {
    const call = (stream: Http2Stream): Call => stream.user as Call;
    return {
      onRequest() {},
      onResponse: (stream, headers, endStream) => void call(stream).heard.push(`response ${headers[1]}${endStream ? " END" : ""}`),
      onInformational: (stream, headers) => void call(stream).heard.push(`informational ${headers[1]}`),
      onData: (stream, body) => {
        call(stream).received.push(new Uint8Array(body.view()));
        connection().consumed(stream, body.length);
      },
      onTrailers: (stream, headers) => void call(stream).heard.push(`trailers ${headers.join(" ")}`),
      onSendable: (stream) => call(stream).send(connection(), stream),
      onReset: (stream, code, by) => void call(stream).heard.push(`reset ${code} ${by}`),
      onClosed: (stream) => call(stream).closed(),
      onSettings: settingsSeen,
      onGoaway() {},
      onPong() {},
      onFatal(error) {
        throw new Error(`${error.counter}: ${error.message}`);
      },
    };
  };

describe("http2 client, foreign servers", () => {
  const serverScript = join(import.meta.dir, "node-http2-server.mjs");
  for (const runtime of ["node", "bun"] as const) {
    const program = runtime === "bun" ? process.execPath : "node";
    const missing = runtime === "node" ? needsProgram("node") : null;
    testUnless(firstReason(missing))(`${runtime}'s http2 server: tunnels, bodies, trailers, resets`, async () => {
      const child = Bun.spawn([program, serverScript], { stdout: "pipe", stderr: "inherit" });
      try {
        const reader = child.stdout.getReader();
        const port = Number(Buffer.from((await reader.read()).value!).toString());
        let seen: () => void = () => {};
        const settings = new Promise<void>((resolve) => (seen = resolve));
        const connection = await connectHttp2(port, { settings: DEFAULT_SETTINGS }, callHandler(() => seen()));
        await settings;
        expect(connection.remoteMaxConcurrentStreams).toBe(50);
        const start = (fields: readonly string[], body: Uint8Array, keepOpen = false): Call => {
          const call = new Call(body);
          const stream = connection.request(connection.encode(fields), body.length === 0 && !keepOpen)!;
          stream.user = call;
          call.send(connection, stream);
          return call;
        };
        const path = (method: string, to: string): string[] => [":method", method, ":scheme", "http", ":path", to, ":authority", "a"];
        const body = new Uint8Array(2_000_000).map((_, i) => (i * 31 + (i >>> 9)) & 0xff);
        const tunnels = Array.from({ length: 5 }, () => start([":method", "CONNECT", ":authority", "198.18.0.1:80"], body));
        const post = start(path("POST", "/echo"), body);
        await Promise.all([...tunnels, post].map((call) => call.done));
        for (const call of [...tunnels, post]) {
          expect(call.heard[0]).toBe("response 200");
          expect(Buffer.concat(call.received).equals(Buffer.from(body))).toBe(true);
        }
        const trailers = start(path("GET", "/trailers"), new Uint8Array(0));
        await trailers.done;
        expect(trailers.heard).toEqual(["response 200", "trailers grpc-status 0"]);
        const hints = start(path("GET", "/hints"), new Uint8Array(0));
        await hints.done;
        expect(hints.heard.slice(0, 2)).toEqual(["informational 103", "response 200"]);
        const broken = start([":method", "CONNECT", ":authority", "reset.test:1"], new Uint8Array(0), true);
        await broken.done;
        expect(broken.heard.at(-1)).toBe("reset 8 peer");
        const many = Array.from({ length: 50 }, (_, i) => start(path("POST", `/${i}`), Buffer.from(`body ${i}`)));
        await Promise.all(many.map((call) => call.done));
        many.forEach((call, i) => expect(Buffer.concat(call.received).toString()).toBe(`body ${i}`));
        expect(connection.activeStreams).toBe(0);
        connection.goaway(0, "done");
      } finally {
        child.kill();
        await child.exited;
      }
    }, TIMEOUT_MS);
  }

  test("our own server", async () => {
    const connection = await connectHttp2(server.port, { settings: DEFAULT_SETTINGS }, callHandler(() => {}));
    const call = new Call(new Uint8Array(5_000_000).fill(7));
    const stream = connection.request(encodeStaticBlock([":method", "CONNECT", ":authority", "198.18.0.1:80"]), false)!;
    stream.user = call;
    call.send(connection, stream);
    await call.done;
    expect(Buffer.concat(call.received).length).toBe(5_000_000);
    connection.goaway(0, "done");
    lastConnectionIsSound();
  });
});
