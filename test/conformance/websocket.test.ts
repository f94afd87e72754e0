// WebSocket through a waypoint, by the kinds of cases that Autobahn asks: what a real server says to each is the same with a waypoint
// between, over HTTP/1.1 and over HTTP/2, whole messages and pieces of them, broken ones too.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect as connect2, createServer as createServer2, type ClientHttp2Session, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, connect, type Socket } from "node:net";
import { unsealed } from "../kit/box.ts";
import { until } from "../kit/until.ts";
import { describeUnless } from "../kit/skip.ts";
import { NO_LIMITS, trafficPolicy } from "../kit/upstreams.ts";
import { WaypointFixture } from "../kit/waypoint.ts";
import { closeFrame, frame, OPCODE, transcript } from "../kit/websocket-frames.ts";

setDefaultTimeout(60_000);

const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
/** Of that key (RFC 6455, section 1.3). */
const ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const CASE_MS = 10_000;

interface WebSocketCase {
  readonly name: string;
  readonly send: readonly Buffer[];
  /** Bytes of one write; all at once without. */
  readonly pieces?: number;
}

const bye = closeFrame(1000);
const binary = (size: number): Buffer => Buffer.alloc(size, Buffer.from(Array.from({ length: 251 }, (_, i) => (i * 167 + 13) & 255)));
const ascii = (size: number): string => "0123456789abcdef".repeat(Math.ceil(size / 16)).slice(0, size);

const CASES: readonly WebSocketCase[] = [
  // Sizes, on both sides of each way to write a length.
  ...[0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, 1 << 20].flatMap((size) => [
    { name: `text of ${size} bytes`, send: [frame(OPCODE.text, ascii(size)), bye] }, { name: `binary of ${size} bytes`, send: [frame(OPCODE.binary, binary(size)), bye] },
  ]),
  { name: "binary of 8 MiB", send: [frame(OPCODE.binary, binary(8 << 20)), bye] }, { name: "binary of 64 KiB, in pieces of 997 bytes", send: [frame(OPCODE.binary, binary(65_536)), bye], pieces: 997 },
  { name: "text of 126 bytes, byte by byte", send: [frame(OPCODE.text, ascii(126)), bye], pieces: 1 }, { name: "a hundred messages at once", send: [...Array.from({ length: 100 }, (_, i) => frame(OPCODE.text, `message ${i}`)), bye] },
  // Control frames.
  { name: "ping, empty", send: [frame(OPCODE.ping), bye] }, { name: "ping with 125 bytes", send: [frame(OPCODE.ping, binary(125)), bye] }, { name: "ping with 126 bytes", send: [frame(OPCODE.ping, binary(126)), bye] },
  { name: "pong that nobody asked for", send: [frame(OPCODE.pong, "unasked"), frame(OPCODE.text, "after it"), bye] }, { name: "ten pings", send: [...Array.from({ length: 10 }, (_, i) => frame(OPCODE.ping, `${i}`)), bye] },
  { name: "ping in fragments", send: [frame(OPCODE.ping, "a", { fin: false }), frame(OPCODE.continuation, "b"), bye] },
  // Reserved bits and opcodes.
  ...[1, 2, 3, 4, 5, 6, 7].map((rsv) => ({ name: `reserved bits ${rsv}`, send: [frame(OPCODE.text, "x", { rsv }), bye] })), ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => ({ name: `opcode ${opcode}`, send: [frame(opcode, "x"), bye] })),
  { name: "no mask", send: [frame(OPCODE.text, "x", { mask: false }), bye] },
  // Fragments.
  { name: "text in two fragments", send: [frame(OPCODE.text, "one ", { fin: false }), frame(OPCODE.continuation, "two"), bye] }, { name: "a ping between fragments", send: [frame(OPCODE.text, "one ", { fin: false }), frame(OPCODE.ping, "!"), frame(OPCODE.continuation, "two"), bye] },
  { name: "text in fragments of a byte", send: [...Array.from("fragments", (char, i) => frame(i === 0 ? OPCODE.text : OPCODE.continuation, char, { fin: i === 8 })), bye] }, { name: "empty fragments", send: [frame(OPCODE.text, "", { fin: false }), frame(OPCODE.continuation, "", { fin: false }), frame(OPCODE.continuation), bye] },
  { name: "a continuation of nothing", send: [frame(OPCODE.continuation, "x"), bye] }, { name: "a new message within another", send: [frame(OPCODE.text, "x", { fin: false }), frame(OPCODE.text, "y"), bye] },
  // UTF-8.
  { name: "text beyond ASCII", send: [frame(OPCODE.text, "Hellö Wörld 𝄞 κόσμε"), bye] }, { name: "a character over two fragments", send: [frame(OPCODE.text, Buffer.from([0xe2, 0x82]), { fin: false }), frame(OPCODE.continuation, Buffer.from([0xac])), bye] },
  { name: "text that is no UTF-8", send: [frame(OPCODE.text, Buffer.from([0xce, 0xba, 0xff, 0xfe])), bye] }, { name: "a surrogate as UTF-8", send: [frame(OPCODE.text, Buffer.from([0xed, 0xa0, 0x80])), bye] },
  // Closing.
  { name: "close without a code", send: [closeFrame()] }, ...[1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999].map((code) => ({ name: `close with ${code}`, send: [closeFrame(code, "so long")] })),
  ...[0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999].map((code) => ({ name: `close with ${code}, which nobody may send`, send: [closeFrame(code)] })), { name: "close with one byte", send: [frame(OPCODE.close, "x")] },
  { name: "close with a reason of 123 bytes", send: [closeFrame(1000, ascii(123))] }, { name: "close with a reason that is too long", send: [closeFrame(1000, ascii(124))] }, { name: "text after close", send: [bye, frame(OPCODE.text, "late")] }, { name: "close twice", send: [bye, bye] },
];

/** Sends a case over an open WebSocket and reads to the end. */
async function play(socket: { write(bytes: Buffer): unknown; on(event: "data", listener: (chunk: Buffer) => void): unknown; on(event: "close" | "end", listener: () => void): unknown }, { name, send, pieces }: WebSocketCase, early: Buffer): Promise<string[]> {
  const received: Buffer[] = [early];
  let ended = false;
  socket.on("data", (chunk) => void received.push(chunk));
  for (const event of ["end", "close"] as const) socket.on(event, () => void (ended = true));
  const bytes = Buffer.concat(send);
  for (let at = 0; at < bytes.length; at += pieces ?? bytes.length) socket.write(bytes.subarray(at, at + (pieces ?? bytes.length)));
  await until(`the end of "${name}" (${Buffer.concat(received).length} bytes came)`, CASE_MS, () => ended || null);
  return transcript(Buffer.concat(received));
}

async function overHttp1(port: number, one: WebSocketCase): Promise<string[]> {
  const socket: Socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.write(`GET /ws HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${KEY}\r\n\r\n`);
  let head = Buffer.alloc(0);
  const opened = Promise.withResolvers<void>();
  const read = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    if (head.includes("\r\n\r\n")) opened.resolve();
  };
  socket.on("data", read);
  await opened.promise;
  socket.off("data", read);
  const end = head.indexOf("\r\n\r\n");
  expect(head.subarray(0, end).toString()).toMatch(new RegExp(`^HTTP/1\\.1 101 [^]*sec-websocket-accept: ${ACCEPT.replace("+", "\\+")}`, "i"));
  try {
    return await play(socket, one, head.subarray(end + 4));
  } finally {
    socket.destroy();
  }
}

async function overHttp2(session: ClientHttp2Session, one: WebSocketCase): Promise<string[]> {
  const stream = session.request({ ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/ws", ":authority": "web", "sec-websocket-version": "13" });
  stream.on("error", () => {});
  const status = await new Promise<number>((resolve) => stream.once("response", (headers) => resolve(Number(headers[":status"]))));
  expect(status).toBe(200);
  try {
    return await play(stream as unknown as Socket, one, Buffer.alloc(0));
  } finally {
    stream.close();
  }
}

describeUnless(unsealed)("WebSocket", () => {
  let server: Bun.Server<undefined>;
  let waypoint: WaypointFixture;
  let session: ClientHttp2Session;

  beforeAll(async () => {
    server = Bun.serve({
      hostname: "127.0.0.1", port: 0,
      fetch: (request, self) => (self.upgrade(request) ? undefined : new Response("a WebSocket was expected", { status: 426 })),
      websocket: { maxPayloadLength: 16 << 20, perMessageDeflate: false, message: (socket, message) => void socket.send(message) },
    });
    waypoint = new WaypointFixture({ endpoints: [{ port: server.port! }] });
    session = connect2(waypoint.url);
    await new Promise((resolve) => session.once("remoteSettings", resolve));
  });

  afterAll(async () => {
    session.close();
    await waypoint[Symbol.asyncDispose]();
    await server.stop(true);
  });

  describe("a real server says the same", () => {
    for (const one of CASES) {
      test(one.name, async () => {
        const direct = await overHttp1(server.port!, one);
        expect(await overHttp1(waypoint.port, one)).toEqual(direct);
        expect(await overHttp2(session, one)).toEqual(direct);
      });
    }
  });

  test("the runtime's own client, compression asked for", async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${waypoint.port}/ws`);
    socket.binaryType = "nodebuffer";
    const heard: (string | number)[] = [];
    const closed = new Promise<void>((resolve) => socket.addEventListener("close", ({ code }) => {
      heard.push(code);
      resolve();
    }));
    socket.addEventListener("message", ({ data }) => {
      heard.push(typeof data === "string" ? data : (data as Buffer).length);
      if (heard.length === 2) socket.close(3001, "enough");
    });
    await new Promise((resolve) => socket.addEventListener("open", resolve));
    socket.send("text");
    socket.send(Buffer.alloc(300_000, 7));
    await closed;
    expect(heard).toEqual(["text", 300_000, 3001]);
  });

  test("a server that refuses: its answer comes, and the connection goes on", async () => {
    const answers = await fetch(`${waypoint.url}/ws`);
    expect([answers.status, await answers.text()]).toEqual([426, "a WebSocket was expected"]);
  });
});

describeUnless(unsealed)("WebSocket to a server of HTTP/2 (extended CONNECT)", () => {
  test("a client of HTTP/1.1 gets the proof that its key asks for, and bytes go both ways", async () => {
    const seen: Record<string, unknown>[] = [];
    const server = createServer2({ settings: { enableConnectProtocol: true } });
    server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      seen.push(headers);
      stream.on("error", () => {});
      stream.respond({ ":status": 200 });
      stream.pipe(stream);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const limits = { ...NO_LIMITS, upgradeToHttp2: true };
    const waypoint = new WaypointFixture({ endpoints: [{ port: (server.address() as AddressInfo).port }], l7: { trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ limits })] }] } });
    try {
      const client = waypoint.raw().send(`GET /ws HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${KEY}\r\n\r\n`);
      expect(await client.until("\r\n\r\n")).toMatch(new RegExp(`^HTTP/1\\.1 101 [^]*sec-websocket-accept: ${ACCEPT.replace("+", "\\+")}\r\n`, "i"));
      client.send("there and back");
      await client.until("there and back");
      expect(seen[0]).toMatchObject({ ":method": "CONNECT", ":protocol": "websocket", ":path": "/ws", "sec-websocket-version": "13" });
      expect(seen[0]!["sec-websocket-key"]).toBeUndefined();
      client.socket.end();
      await client.closed();
    } finally {
      await waypoint[Symbol.asyncDispose]();
      server.close();
    }
  });
});
