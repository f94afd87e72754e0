import { describe, expect, test } from "bun:test";
import type { ByteRange } from "../http/byte-range.ts";
import {
  DEFAULT_LIMITS,
  DEFAULT_SETTINGS,
  encodeStaticBlock,
  ErrorCode,
  type Http2Counters,
  Http2Connection,
  type Http2Handler,
  type Http2Limits,
  type Http2Stream,
  type LocalSettings,
} from "./connection.ts";
import { CLIENT_PREFACE, Flag, FrameType, readUint31, readUint32, SettingId, writeFrameHeader, writeUint32 } from "./frames.ts";
import { encodeStateless } from "./hpack-encoder.ts";

// ── A peer made of bytes ────────────────────────────────────────────────────────────────────────────────────────────────────

interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Uint8Array;
}

class Harness {
  readonly events: string[] = [];
  readonly streams = new Map<number, Http2Stream>();
  readonly connection: Http2Connection;
  nowMs = 0;
  onRequest: (stream: Http2Stream) => void = () => {};
  onSendable: (stream: Http2Stream) => void = () => {};
  private readonly received: Buffer[] = [];

  constructor(role: "client" | "server", settings: Partial<LocalSettings> = {}, limits: Partial<Http2Limits> = {}) {
    this.connection = new Http2Connection({
      role,
      settings: { ...DEFAULT_SETTINGS, ...settings },
      limits: { ...DEFAULT_LIMITS, ...limits },
      handler: this.handler(),
      nowMs: () => this.nowMs,
    });
  }

  /** With preface and SETTINGS exchanged, and the greeting taken from the output. */
  static ready(role: "client" | "server", settings: Partial<LocalSettings> = {}, limits: Partial<Http2Limits> = {}): Harness {
    const harness = new Harness(role, settings, limits);
    if (role === "server") harness.feed(CLIENT_PREFACE);
    harness.feed(frame(FrameType.settings, 0, 0), frame(FrameType.settings, Flag.ack, 0));
    harness.sent();
    harness.events.length = 0;
    return harness;
  }

  feed(...parts: Uint8Array[]): this {
    for (const part of parts) this.connection.receive(part);
    return this;
  }

  /** The frames said since the last call. */
  sent(): Frame[] {
    const output = this.connection.output;
    const bytes = output.peek().slice();
    output.consume(bytes.length);
    return parseFrames(bytes);
  }

  goaway(): { code: number; lastId: number; debug: string } | null {
    const found = this.sent().find((f) => f.type === FrameType.goaway);
    if (found === undefined) return null;
    return { lastId: readUint31(found.payload, 0), code: readUint32(found.payload, 4), debug: Buffer.from(found.payload.subarray(8)).toString("latin1") };
  }

  data(): string {
    return Buffer.concat(this.received).toString("latin1");
  }

  private handler(): Http2Handler {
    const say = (text: string): void => void this.events.push(text);
    return {
      onRequest: (stream, headers, endStream) => {
        this.streams.set(stream.id, stream);
        say(`request ${stream.id} ${headers.join(" ")}${endStream ? " END" : ""}`);
        this.onRequest(stream);
      },
      onResponse: (stream, headers, endStream) => say(`response ${stream.id} ${headers.join(" ")}${endStream ? " END" : ""}`),
      onInformational: (stream, headers) => say(`informational ${stream.id} ${headers.join(" ")}`),
      onData: (stream, body, endStream) => {
        this.received.push(Buffer.from(new Uint8Array(body.view())));
        say(`data ${stream.id} ${body.length}${endStream ? " END" : ""}`);
      },
      onTrailers: (stream, headers) => say(`trailers ${stream.id} ${headers.join(" ")}`),
      onSendable: (stream) => {
        say(`sendable ${stream.id}`);
        this.onSendable(stream);
      },
      onReset: (stream, code, by) => say(`reset ${stream.id} ${code} ${by}`),
      onClosed: (stream) => say(`closed ${stream.id}`),
      onSettings: () => say("settings"),
      onGoaway: (lastId, code, debug) => say(`goaway ${lastId} ${code} ${debug}`),
      onPong: () => say("pong"),
      onFatal: (error) => say(`fatal ${error.counter} ${error.blame}`),
      onOutput: () => {},
    };
  }
}

function parseFrames(bytes: Uint8Array): Frame[] {
  const frames: Frame[] = [];
  let at = Buffer.compare(bytes.subarray(0, 24), CLIENT_PREFACE) === 0 ? 24 : 0;
  while (at < bytes.length) {
    const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    frames.push({ type: bytes[at + 3]!, flags: bytes[at + 4]!, id: readUint31(bytes, at + 5), payload: bytes.slice(at + 9, at + 9 + length) });
    at += 9 + length;
  }
  expect(at).toBe(bytes.length);
  return frames;
}

function frame(type: number, flags: number, id: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(9 + payload.length);
  writeFrameHeader(bytes, 0, payload.length, type, flags, id);
  bytes.set(payload, 9);
  return bytes;
}

function u32(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  values.forEach((value, i) => writeUint32(bytes, i * 4, value));
  return bytes;
}

const GET = [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"];
const POST = [":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"];
const CONNECT = [":method", "CONNECT", ":authority", "198.18.0.1:80"];
const OK = encodeStaticBlock([":status", "200"]);

function headers(id: number, fields: readonly string[], endStream = false): Uint8Array {
  return frame(FrameType.headers, Flag.endHeaders | (endStream ? Flag.endStream : 0), id, blockOf(fields));
}

/** Fields as a peer without our own checks would encode them. */
function blockOf(fields: readonly string[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let i = 0; i < fields.length; i += 2) {
    const [name, value] = [fields[i]!, fields[i + 1]!];
    parts.push(Uint8Array.of(0), literal(name), literal(value));
  }
  return Buffer.concat(parts);
}

function literal(text: string): Uint8Array {
  const bytes = Buffer.from(text, "latin1");
  if (bytes.length < 127) return Buffer.concat([Uint8Array.of(bytes.length), bytes]);
  const rest = bytes.length - 127;
  return Buffer.concat([Uint8Array.of(127, (rest & 127) | 128, (rest >>> 7) & 127), bytes]);
}

const data = (id: number, body: Uint8Array | string, endStream = false): Uint8Array => frame(FrameType.data, endStream ? Flag.endStream : 0, id, Buffer.from(body));
const reset = (id: number, code: number = ErrorCode.cancel): Uint8Array => frame(FrameType.rstStream, 0, id, u32(code));
const windowUpdate = (id: number, increment: number): Uint8Array => frame(FrameType.windowUpdate, 0, id, u32(increment));
const setting = (id: number, value: number): Uint8Array => frame(FrameType.settings, 0, 0, Buffer.concat([Uint8Array.of(0, id), u32(value)]));

// ── Preface and settings ────────────────────────────────────────────────────────────────────────────────────────────────────

describe("http2: greeting", () => {
  test("a client says preface, SETTINGS and the connection's window at once", () => {
    const client = new Harness("client");
    const bytes = client.connection.output.peek();
    expect(Buffer.from(bytes.subarray(0, 24)).toString("latin1")).toBe("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    const [settings, update] = client.sent();
    expect(settings!.type).toBe(FrameType.settings);
    expect(update).toMatchObject({ type: FrameType.windowUpdate, id: 0 });
    expect(readUint31(update!.payload, 0)).toBe(16 * 1024 * 1024 - 65_535);
  });

  test("SETTINGS are acknowledged and told", () => {
    const server = new Harness("server");
    server.sent();
    server.feed(CLIENT_PREFACE, setting(SettingId.maxConcurrentStreams, 7));
    expect(server.events).toEqual(["settings"]);
    expect(server.sent()).toMatchObject([{ type: FrameType.settings, flags: Flag.ack }]);
    expect(server.connection.remoteMaxConcurrentStreams).toBe(7);
  });

  test("a client that opens with HTTP/1.1 is refused", () => {
    const server = new Harness("server");
    server.feed(Buffer.from("GET / HTTP/1.1\r\n\r\n"));
    expect(server.events).toEqual(["fatal badPreface peer"]);
    expect(server.connection.closed).toBe(true);
    server.feed(CLIENT_PREFACE);
    expect(server.events).toHaveLength(1);
  });

  test("the first frame must be SETTINGS, and no acknowledgement", () => {
    for (const first of [headers(1, GET, true), frame(FrameType.settings, Flag.ack, 0), frame(FrameType.ping, 0, 0, new Uint8Array(8))]) {
      expect(new Harness("server").feed(CLIENT_PREFACE, first).events).toEqual(["fatal protocolErrors peer"]);
      expect(new Harness("client").feed(first).events).toEqual(["fatal badPreface peer"]);
    }
  });

  const refusedSettings: [string, Uint8Array, keyof Http2Counters][] = [
    ["ENABLE_PUSH of 2", setting(SettingId.enablePush, 2), "protocolErrors"],
    ["an initial window above 2^31-1", setting(SettingId.initialWindowSize, 0x8000_0000), "flowControlErrors"],
    ["a maximum frame size below 16384", setting(SettingId.maxFrameSize, 16_383), "protocolErrors"],
    ["a maximum frame size above 2^24-1", setting(SettingId.maxFrameSize, 0x100_0000), "protocolErrors"],
    ["ENABLE_CONNECT_PROTOCOL of 2", setting(SettingId.enableConnectProtocol, 2), "protocolErrors"],
    ["a length that is not a multiple of six", frame(FrameType.settings, 0, 0, new Uint8Array(5)), "frameSizeErrors"],
    ["an acknowledgement with content", frame(FrameType.settings, Flag.ack, 0, new Uint8Array(6)), "frameSizeErrors"],
    ["SETTINGS on a stream", frame(FrameType.settings, 0, 1), "protocolErrors"],
    ["more entries than anybody needs", frame(FrameType.settings, 0, 0, new Uint8Array(65 * 6)), "settingsFloods"],
  ];
  test.each(refusedSettings)("SETTINGS refused: %s", (_, bytes, counter) => {
    const server = Harness.ready("server").feed(bytes);
    expect(server.events).toEqual([`fatal ${counter} peer`]);
    expect(server.connection.counters[counter]).toBe(1);
  });

  test("extended CONNECT, once offered, is not taken back", () => {
    const client = Harness.ready("client").feed(setting(SettingId.enableConnectProtocol, 1));
    expect(client.connection.remoteConnectProtocol).toBe(true);
    expect(client.feed(setting(SettingId.enableConnectProtocol, 0)).events.at(-1)).toBe("fatal protocolErrors peer");
  });

  test("a smaller header table binds once it is acknowledged", () => {
    const block = Buffer.concat([Uint8Array.of(0x82, 0x86, 0x84), Uint8Array.of(0x41, 1, 0x61)]); // GET http / with an indexed :authority
    const request = (id: number): Uint8Array => frame(FrameType.headers, Flag.endHeaders | Flag.endStream, id, block);
    const server = new Harness("server", { headerTableSizeBytes: 100 }).feed(CLIENT_PREFACE, frame(FrameType.settings, 0, 0), request(1));
    expect(server.events.at(-1)).toStartWith("request 1");
    server.feed(frame(FrameType.settings, Flag.ack, 0), request(3));
    expect(server.events).toContain("fatal compressionErrors peer");
  });

  test("a server that would push is refused", () => {
    expect(Harness.ready("client").feed(setting(SettingId.enablePush, 1)).events).toEqual(["fatal protocolErrors peer"]);
    expect(Harness.ready("client").feed(frame(FrameType.pushPromise, Flag.endHeaders, 1, u32(2))).events).toEqual(["fatal protocolErrors peer"]);
  });
});

// ── Streams ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

describe("http2: streams", () => {
  test("a CONNECT tunnel: both ends close in either order, closed once", () => {
    const server = Harness.ready("server");
    server.onRequest = (stream) => server.connection.respond(stream, OK, false);
    server.feed(headers(1, CONNECT), data(1, "hello"), data(1, "", true));
    const stream = server.streams.get(1)!;
    expect(server.events).toEqual(["request 1 :method CONNECT :authority 198.18.0.1:80", "data 1 5", "data 1 0 END"]);
    expect(stream.canSend).toBe(true);
    expect(server.connection.sendData(stream, Buffer.from("bye"), true)).toBe(3);
    expect(server.events.at(-1)).toBe("closed 1");
    server.feed(headers(3, CONNECT));
    server.connection.endStream(server.streams.get(3)!);
    server.feed(data(3, "late", true));
    expect(server.events.slice(-3)).toEqual(["request 3 :method CONNECT :authority 198.18.0.1:80", "data 3 4 END", "closed 3"]);
    expect(server.connection.activeStreams).toBe(0);
  });

  test("DATA passes as a range of the chunk it came in, and is let go of after the call", () => {
    const server = Harness.ready("server");
    const chunk = new Uint8Array(data(1, "abcdef"));
    let given: ByteRange | null = null;
    let seen: unknown = null;
    const plain = new Http2Connection({ role: "server", settings: DEFAULT_SETTINGS, nowMs: () => 0, handler: Object.assign(Object.create(null), handlerOf(server), { onData: (_: Http2Stream, body: ByteRange) => {
      given = body;
      seen = [body.bytes === chunk, body.start, body.end, Buffer.from(body.view()).toString()];
    } }) });
    plain.receive(CLIENT_PREFACE);
    plain.receive(frame(FrameType.settings, 0, 0));
    plain.receive(headers(1, CONNECT));
    plain.receive(chunk);
    expect(seen).toEqual([true, 9, 15, "abcdef"]);
    expect(given!).toHaveLength(0);
  });

  test("frames cut anywhere, one byte at a time, mean the same", () => {
    const server = Harness.ready("server");
    const all = Buffer.concat([headers(1, POST), data(1, "ab"), frame(FrameType.data, Flag.padded | Flag.endStream, 1, Buffer.from("\x03cd\0\0\0"))]);
    for (const byte of all) server.feed(Uint8Array.of(byte));
    expect(server.data()).toBe("abcd");
    expect(server.events.at(-1)).toBe("data 1 0 END");
  });

  test("trailers end the stream and are told", () => {
    const server = Harness.ready("server");
    server.feed(headers(1, POST), data(1, "x"), headers(1, ["grpc-status", "0"], true));
    expect(server.events.slice(1)).toEqual(["data 1 1", "trailers 1 grpc-status 0"]);
    expect(server.streams.get(1)!.canReceive).toBe(false);
  });

  test("informational responses come before the final one; the flood of them ends the stream", () => {
    const client = Harness.ready("client");
    const stream = client.connection.request(encodeStaticBlock(GET), true)!;
    client.feed(headers(1, [":status", "103", "link", "x"]), headers(1, [":status", "200"]), data(1, "ok", true));
    expect(client.events).toEqual(["informational 1 :status 103 link x", "response 1 :status 200", "data 1 2 END", "closed 1"]);
    expect(stream.state).toBe(4);
    client.connection.request(encodeStaticBlock(GET), true);
    for (let i = 0; i < 33; i++) client.feed(headers(3, [":status", "103"]));
    expect(client.events.slice(-2)).toEqual([`reset 3 ${ErrorCode.enhanceYourCalm} us`, "closed 3"]);
  });

  test("stream numbers: even ones, idle ones and those already used", () => {
    expect(Harness.ready("server").feed(headers(2, GET)).events).toEqual(["fatal protocolErrors peer"]);
    expect(Harness.ready("server").feed(data(1, "x")).events).toEqual(["fatal protocolErrors peer"]);
    expect(Harness.ready("server").feed(reset(1)).events).toEqual(["fatal protocolErrors peer"]);
    expect(Harness.ready("server").feed(windowUpdate(1, 1)).events).toEqual(["fatal protocolErrors peer"]);
    const server = Harness.ready("server").feed(headers(5, GET, true), headers(3, GET, true));
    expect(server.events.slice(1, 2)).toEqual(["fatal closedStreamErrors peer"]);
  });

  test("above the maximum: refused, counted, safe to repeat", () => {
    const server = Harness.ready("server", { maxConcurrentStreams: 2 });
    server.feed(headers(1, GET), headers(3, GET), headers(5, GET));
    expect(server.events).toHaveLength(2);
    const [rst] = server.sent();
    expect(rst).toMatchObject({ type: FrameType.rstStream, id: 5 });
    expect(readUint32(rst!.payload, 0)).toBe(ErrorCode.refusedStream);
    expect(server.connection.counters.refusedStreams).toBe(1);
    server.feed(data(5, "late"), reset(1), headers(7, GET));
    expect(server.events.slice(2)).toEqual([`reset 1 8 peer`, "closed 1", expect.stringContaining("request 7")]);
  });

  test("a client opens no more than the peer allows", () => {
    const client = Harness.ready("client");
    client.feed(setting(SettingId.maxConcurrentStreams, 1));
    expect(client.connection.request(OK, true)).not.toBeNull();
    expect(client.connection.canRequest).toBe(false);
    expect(client.connection.request(OK, true)).toBeNull();
  });

  test("frames after our reset are dropped in silence, their credit returned", () => {
    const server = Harness.ready("server", { connectionWindowBytes: 65_535 });
    server.feed(headers(1, POST));
    server.connection.reset(server.streams.get(1)!, ErrorCode.cancel);
    expect(server.events.slice(1)).toEqual(["closed 1"]);
    server.sent();
    server.feed(data(1, new Uint8Array(16_384)), data(1, new Uint8Array(16_384)), data(1, "x"), headers(1, ["x", "y"], true), windowUpdate(1, 5), reset(1));
    expect(server.connection.counters.lateFrames).toBe(4);
    expect(server.sent()).toMatchObject([{ type: FrameType.windowUpdate, id: 0 }]);
    expect(server.connection.closed).toBe(false);
  });

  test("DATA after END_STREAM resets the stream", () => {
    const server = Harness.ready("server").feed(headers(1, POST, true), data(1, "x"));
    expect(server.events.slice(1)).toEqual([`reset 1 ${ErrorCode.streamClosed} us`, "closed 1"]);
  });

  test("the transport's end resets and closes every stream", () => {
    const server = Harness.ready("server").feed(headers(1, POST), headers(3, POST));
    server.connection.receiveEnd();
    expect(server.events.slice(2)).toEqual(["reset 1 8 connection", "closed 1", "reset 3 8 connection", "closed 3"]);
    expect(server.connection.closed).toBe(true);
  });

  test("a dynamic-table block and a static one share a connection, the table stays in step", () => {
    const client = Harness.ready("client");
    const server = Harness.ready("server");
    for (let i = 0; i < 3; i++) {
      client.connection.request(client.connection.encode([...CONNECT, "baggage", "k8s.namespace.name=shop"]), false);
      client.connection.request(encodeStaticBlock(CONNECT), false);
    }
    server.feed(client.connection.output.peek());
    expect(server.events).toHaveLength(6);
    expect(server.events[4]).toBe("request 9 :method CONNECT :authority 198.18.0.1:80 baggage k8s.namespace.name=shop");
  });

  test("a block larger than the peer's frames goes out with CONTINUATION", () => {
    const client = Harness.ready("client");
    const fields = [...GET, "x-long", "v".repeat(40_000)];
    client.connection.request(encodeStaticBlock(fields), true);
    const server = Harness.ready("server", { maxFrameBytes: 16_384 });
    const bytes = client.connection.output.peek().slice();
    expect(client.sent().map((f) => f.type)).toEqual([FrameType.headers, FrameType.continuation, FrameType.continuation]);
    server.feed(bytes);
    expect(server.events[0]).toEndWith("vvv END");
  });
});

function handlerOf(harness: Harness): Http2Handler {
  return (harness.connection as unknown as { handler: Http2Handler }).handler;
}

// ── Messages ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

describe("http2: malformed requests reset the stream and never reach the handler", () => {
  const malformed: [string, string[]][] = [
    ["no :method", [":scheme", "http", ":path", "/", ":authority", "a"]],
    ["two :path", [...GET, ":path", "/x"]],
    ["an unknown pseudo header", [...GET, ":x", "y"]],
    ["a response's pseudo header", [...GET, ":status", "200"]],
    ["a pseudo header behind a field", [":method", "GET", ":scheme", "http", ":path", "/", "x", "y", ":authority", "a"]],
    ["an upper-case name", [...GET, "X-A", "1"]],
    ["an empty name", [...GET, "", "1"]],
    ["a space in a name", [...GET, "x a", "1"]],
    ["CR LF in a value", [...GET, "x", "a\r\nhost: b"]],
    ["NUL in a value", [...GET, "x", "a\0b"]],
    ["a value with space at its end", [...GET, "x", "a "]],
    ["connection", [...GET, "connection", "close"]],
    ["keep-alive", [...GET, "keep-alive", "1"]],
    ["proxy-connection", [...GET, "proxy-connection", "close"]],
    ["transfer-encoding", [...GET, "transfer-encoding", "chunked"]],
    ["upgrade", [...GET, "upgrade", "websocket"]],
    ["te other than trailers", [...GET, "te", "gzip"]],
    ["an empty :path", [":method", "GET", ":scheme", "http", ":path", ""]],
    ["a :path without a slash", [":method", "GET", ":scheme", "http", ":path", "x"]],
    ["a :path of * that is not OPTIONS", [":method", "GET", ":scheme", "http", ":path", "*"]],
    ["a fragment in :path", [":method", "GET", ":scheme", "http", ":path", "/a#b"]],
    ["an upper-case :scheme", [":method", "GET", ":scheme", "HTTP", ":path", "/"]],
    ["userinfo in :authority", [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "u@a"]],
    ["host that differs from :authority", [...GET, "host", "b"]],
    ["two host fields", [...GET, "host", "a", "host", "a"]],
    ["two content-length fields", [...GET, "content-length", "0", "content-length", "0"]],
    ["a content-length with a sign", [...GET, "content-length", "+1"]],
    ["a content-length list", [...GET, "content-length", "1, 1"]],
    ["a content-length of 2^64", [...GET, "content-length", "18446744073709551616"]],
    ["content-length without a body", [...GET, "content-length", "5"]],
    ["CONNECT with :path", [...CONNECT, ":path", "/"]],
    ["CONNECT without :authority", [":method", "CONNECT"]],
    [":protocol that was not offered", [":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a"]],
    [":protocol without CONNECT", [...GET, ":protocol", "websocket"]],
  ];
  test.each(malformed)("%s", (_, fields) => {
    const server = Harness.ready("server").feed(headers(1, fields, true));
    expect(server.events).toEqual([]);
    const [rst] = server.sent();
    expect(rst).toMatchObject({ type: FrameType.rstStream, id: 1 });
    expect(readUint32(rst!.payload, 0)).toBe(ErrorCode.protocolError);
    expect(server.connection.counters.malformedMessages).toBe(1);
    server.feed(headers(3, GET, true));
    expect(server.events).toHaveLength(1);
  });

  test("but these are well-formed", () => {
    const server = Harness.ready("server", { enableConnectProtocol: true });
    const good = [
      [":method", "OPTIONS", ":scheme", "https", ":path", "*", ":authority", "a"],
      [...GET, "te", "trailers", "host", "A"],
      [...GET, "x", "", "y", "caf\u00e9"],
      [":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/chat", ":authority", "a:443"],
      [":method", "GET", ":scheme", "http", ":path", "/", "host", "[2001:db8::1]:80"],
    ];
    good.forEach((fields, i) => server.feed(headers(1 + 2 * i, fields, true)));
    expect(server.events).toHaveLength(good.length);
  });

  test("DATA beyond or short of content-length resets the stream before it is told as whole", () => {
    const server = Harness.ready("server");
    server.feed(headers(1, [...POST, "content-length", "3"]), data(1, "ab"), data(1, "cd"));
    server.feed(headers(3, [...POST, "content-length", "3"]), data(3, "ab", true));
    server.feed(headers(5, [...POST, "content-length", "3"]), data(5, "ab"), headers(5, ["x", "y"], true));
    expect(server.events.filter((e) => /END|trailers/.test(e))).toEqual([]);
    expect(server.events.filter((e) => e.startsWith("reset"))).toEqual(["reset 1 1 us", "reset 3 1 us", "reset 5 1 us"]);
  });

  test("trailers with pseudo headers, trailers that do not end, HEADERS inside a tunnel", () => {
    const server = Harness.ready("server");
    server.onRequest = (stream) => server.connection.respond(stream, OK, false);
    server.feed(headers(1, POST), headers(1, [":path", "/"], true));
    server.feed(headers(3, POST), headers(3, ["x", "y"]));
    server.feed(headers(5, CONNECT), headers(5, ["x", "y"], true));
    expect(server.events.filter((e) => e.startsWith("reset"))).toEqual(["reset 1 1 us", "reset 3 1 us", "reset 5 1 us"]);
  });

  const badResponses: [string, string[]][] = [
    ["no :status", ["x", "y"]],
    ["101", [":status", "101"]],
    ["a status of two digits", [":status", "20"]],
    ["two :status", [":status", "200", ":status", "200"]],
    ["a request's pseudo header", [":status", "200", ":path", "/"]],
    ["connection", [":status", "200", "connection", "close"]],
  ];
  test.each(badResponses)("response: %s", (_, fields) => {
    const client = Harness.ready("client");
    client.connection.request(encodeStaticBlock(GET), true);
    client.feed(headers(1, fields));
    expect(client.events).toEqual(["reset 1 1 us", "closed 1"]);
  });

  test("a response to HEAD keeps its content-length and has no body", () => {
    const client = Harness.ready("client");
    const head = encodeStaticBlock([":method", "HEAD", ":scheme", "http", ":path", "/", ":authority", "a"]);
    client.connection.request(head, true);
    client.feed(headers(1, [":status", "200", "content-length", "500"], true));
    client.connection.request(head, true);
    client.feed(headers(3, [":status", "200", "content-length", "500"]), data(3, "x", true));
    expect(client.events).toEqual(["response 1 :status 200 content-length 500 END", "closed 1", "response 3 :status 200 content-length 500", "reset 3 1 us", "closed 3"]);
  });

  test("DATA before the response resets the stream", () => {
    const client = Harness.ready("client");
    client.connection.request(encodeStaticBlock(GET), true);
    expect(client.feed(data(1, "x")).events).toEqual(["reset 1 1 us", "closed 1"]);
  });

  test("a header list above the limit: 431 for a request, reset for trailers, and the connection lives", () => {
    const server = Harness.ready("server", { maxHeaderListBytes: 1000 });
    const crumbs: string[] = [];
    for (let i = 0; i < 30; i++) crumbs.push("cookie", "a=b");
    server.feed(headers(1, [...GET, ...crumbs], true), headers(3, POST), headers(3, crumbs, true), headers(5, GET, true));
    expect(server.events.map((e) => e.split(" ").slice(0, 2).join(" "))).toEqual(["request 3", "reset 3", "closed 3", "request 5"]);
    const [answer, rst] = server.sent();
    expect(answer).toMatchObject({ type: FrameType.headers, id: 1, flags: Flag.endHeaders | Flag.endStream });
    expect(rst).toMatchObject({ type: FrameType.rstStream, id: 1 });
    expect(server.connection.counters.headerListsTooLarge).toBe(2);
  });
});

// ── Windows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

describe("http2: flow control", () => {
  const responding = (settings: Partial<LocalSettings> = {}, limits: Partial<Http2Limits> = {}): Harness => {
    const server = Harness.ready("server", settings, limits);
    server.onRequest = (stream) => server.connection.respond(stream, OK, false);
    return server;
  };

  test("sends what the stream's window takes, tells the caller, goes on after WINDOW_UPDATE", () => {
    const server = responding().feed(headers(1, CONNECT));
    const stream = server.streams.get(1)!;
    expect(server.connection.sendData(stream, new Uint8Array(70_000), true)).toBe(65_535);
    expect(server.connection.counters.stalledOnStreamWindow).toBe(1);
    expect(server.connection.oldestWaitSinceMs()).toBe(0);
    server.sent();
    server.feed(windowUpdate(1, 10_000));
    expect(server.events.at(-1)).toStartWith("request"); // the connection's window is still closed
    server.feed(windowUpdate(0, 10_000));
    expect(server.events.at(-1)).toBe("sendable 1");
    expect(server.connection.oldestWaitSinceMs()).toBeNull();
    expect(server.connection.sendData(stream, new Uint8Array(4465), true)).toBe(4465);
    expect(server.sent()).toMatchObject([{ type: FrameType.data, flags: Flag.endStream }]);
  });

  test("END_STREAM goes with the last byte only", () => {
    const server = responding().feed(setting(SettingId.initialWindowSize, 4), headers(1, CONNECT));
    const stream = server.streams.get(1)!;
    server.sent();
    expect(server.connection.sendData(stream, Buffer.from("abcdef"), true)).toBe(4);
    expect(server.sent()).toMatchObject([{ type: FrameType.data, flags: 0 }]);
    server.feed(windowUpdate(1, 2));
    expect(server.connection.sendData(stream, Buffer.from("ef"), true)).toBe(2);
    expect(server.sent()).toMatchObject([{ type: FrameType.data, flags: Flag.endStream }]);
  });

  test("waiting streams are served longest first, a quantum each", () => {
    const server = responding({}, { sendQuantumBytes: 1000 });
    server.feed(setting(SettingId.initialWindowSize, 1_000_000), headers(1, CONNECT), headers(3, CONNECT), headers(5, CONNECT));
    const send = (stream: Http2Stream): number => server.connection.sendData(stream, new Uint8Array(500_000), false);
    for (const stream of server.streams.values()) send(stream);
    server.onSendable = (stream) => void send(stream);
    server.events.length = 0;
    server.sent();
    server.feed(windowUpdate(0, 6_000));
    expect(server.events).toEqual(["sendable 1", "sendable 3", "sendable 5", "sendable 1", "sendable 3", "sendable 5"]);
    expect(server.sent().map((f) => f.payload.length)).toEqual([1000, 1000, 1000, 1000, 1000, 1000]);
  });

  test("a full output buffer holds senders back until it was written", () => {
    const server = responding({}, { outputDataBytesMax: 10_000 }).feed(headers(1, CONNECT));
    const stream = server.streams.get(1)!;
    server.sent();
    expect(server.connection.sendData(stream, new Uint8Array(30_000), false)).toBe(10_000);
    expect(server.connection.sendData(stream, new Uint8Array(20_000), false)).toBe(0);
    expect(server.connection.counters.stalledOnOutput).toBe(1);
    server.events.length = 0;
    server.connection.output.consume(5_000);
    expect(server.events).toEqual([]);
    server.connection.output.consume(100);
    expect(server.events).toEqual(["sendable 1"]);
  });

  test("frames are cut to the peer's maximum size", () => {
    const server = responding().feed(headers(1, CONNECT));
    server.sent();
    server.connection.sendData(server.streams.get(1)!, new Uint8Array(40_000), false);
    expect(server.sent().map((f) => f.payload.length)).toEqual([16_384, 16_384, 7_232]);
    server.feed(setting(SettingId.maxFrameSize, 1 << 20), windowUpdate(0, 100_000), windowUpdate(1, 100_000));
    server.sent();
    server.connection.sendData(server.streams.get(1)!, new Uint8Array(40_000), false);
    expect(server.sent().map((f) => f.payload.length)).toEqual([40_000]);
  });

  test("a lowered initial window goes below zero and must be earned back", () => {
    const server = responding().feed(headers(1, CONNECT));
    const stream = server.streams.get(1)!;
    server.connection.sendData(stream, new Uint8Array(1_000), false);
    server.feed(setting(SettingId.initialWindowSize, 500));
    expect(stream.sendWindowBytes).toBe(-500);
    expect(server.connection.sendData(stream, Buffer.from("x"), false)).toBe(0);
    server.feed(windowUpdate(1, 500));
    expect(server.events.at(-1)).not.toBe("sendable 1");
    server.feed(windowUpdate(1, 1));
    expect(server.events.at(-1)).toBe("sendable 1");
  });

  test("a raised initial window lets waiting streams go on", () => {
    const server = responding().feed(setting(SettingId.initialWindowSize, 10), headers(1, CONNECT));
    expect(server.connection.sendData(server.streams.get(1)!, new Uint8Array(20), false)).toBe(10);
    server.feed(setting(SettingId.initialWindowSize, 15));
    expect(server.events.slice(-2)).toEqual(["settings", "sendable 1"]);
    expect(server.connection.sendData(server.streams.get(1)!, new Uint8Array(10), false)).toBe(5);
  });

  test("a shell that writes from within onSendable is not called again from there", () => {
    const server = responding({}, { outputDataBytesMax: 1_000, sendQuantumBytes: 1_000 });
    server.feed(setting(SettingId.initialWindowSize, 1_000_000), windowUpdate(0, 1_000_000));
    for (let id = 1; id < 200; id += 2) server.feed(headers(id, CONNECT));
    server.sent();
    for (const stream of server.streams.values()) server.connection.sendData(stream, new Uint8Array(2_000), false);
    let depth = 0;
    let served = 0;
    server.onSendable = (stream) => {
      served++;
      expect(++depth).toBe(1);
      server.connection.sendData(stream, new Uint8Array(1_000), false);
      server.connection.output.consume(server.connection.output.pendingBytes);
      depth--;
    };
    server.connection.output.consume(server.connection.output.pendingBytes);
    expect(served).toBe(100);
  });

  test("overflows: a stream's window resets it, the connection's and SETTINGS' end the connection", () => {
    const one = responding().feed(headers(1, CONNECT), windowUpdate(1, 0x7fff_ffff));
    expect(one.events.at(-2)).toBe(`reset 1 ${ErrorCode.flowControlError} us`);
    expect(responding().feed(windowUpdate(0, 0x7fff_ffff)).events).toEqual(["fatal flowControlErrors peer"]);
    const three = responding().feed(headers(1, CONNECT), windowUpdate(1, 0x7fff_0000), setting(SettingId.initialWindowSize, 0x7fff_ffff));
    expect(three.events).toContain("fatal flowControlErrors peer");
  });

  test("WINDOW_UPDATE of 0: stream error on a stream, fatal on the connection", () => {
    expect(responding().feed(headers(1, CONNECT), windowUpdate(1, 0)).events.at(-2)).toBe("reset 1 1 us");
    expect(responding().feed(windowUpdate(0, 0)).events).toEqual(["fatal protocolErrors peer"]);
  });

  test("a peer that ignores the stream's window is reset, the connection's window is fatal", () => {
    const one = responding({ initialWindowBytes: 10 }).feed(headers(1, CONNECT), data(1, "0123456789a"));
    expect(one.events.slice(1)).toEqual([`reset 1 ${ErrorCode.flowControlError} us`, "closed 1"]);
    const two = responding({ connectionWindowBytes: 65_535, maxFrameBytes: 100_000 }).feed(headers(1, CONNECT), data(1, new Uint8Array(65_536)));
    expect(two.events).toContain("fatal flowControlErrors peer");
  });

  test("credit returns at half a window, padding included", () => {
    const server = responding({ initialWindowBytes: 1000, connectionWindowBytes: 65_535 }).feed(headers(1, CONNECT));
    const stream = server.streams.get(1)!;
    server.sent();
    server.feed(data(1, new Uint8Array(499)));
    server.connection.consumed(stream, 499);
    expect(server.sent()).toEqual([]);
    server.feed(frame(FrameType.data, Flag.padded, 1, Uint8Array.of(0)));
    expect(server.sent()).toMatchObject([{ type: FrameType.windowUpdate, id: 1 }]);
    expect(stream.receiveWindowBytes).toBe(1000);
    expect(() => server.connection.consumed(stream, 1)).toThrow(RangeError);
  });

  test("the connection's credit makes its window whole and no larger; an ended stream gets none", () => {
    const server = responding({ initialWindowBytes: 65_535, connectionWindowBytes: 65_535, maxFrameBytes: 40_000 }).feed(headers(1, CONNECT));
    server.sent();
    server.feed(data(1, new Uint8Array(33_000), true));
    server.connection.consumed(server.streams.get(1)!, 33_000);
    const said = server.sent();
    expect(said).toMatchObject([{ type: FrameType.windowUpdate, id: 0 }]);
    expect(readUint31(said[0]!.payload, 0)).toBe(33_000);
  });

  test("a stream whose reader stopped does not stall its siblings, and memory stays bounded", () => {
    const server = responding({ initialWindowBytes: 65_535, connectionWindowBytes: 131_070 }, { unconsumedBytesMax: 200_000 });
    for (const id of [1, 3, 5, 7, 9]) server.feed(headers(id, CONNECT));
    let window = 131_070;
    const credit = (): void => {
      for (const f of server.sent()) if (f.type === FrameType.windowUpdate && f.id === 0) window += readUint31(f.payload, 0);
    };
    credit();
    let sent = 0;
    for (const id of [1, 3, 5, 7]) {
      for (let left = 65_535; left > 0; ) {
        const size = Math.min(left, window, 16_000);
        if (size === 0) break;
        server.feed(data(id, new Uint8Array(size)));
        left -= size;
        window -= size;
        sent += size;
        credit();
      }
    }
    // Four readers stopped, all their windows full: with classic accounting two would have closed the connection's window.
    expect(sent).toBe(4 * 65_535);
    expect(window).toBeGreaterThan(0);
    expect(server.connection.unconsumedTotalBytes).toBeLessThanOrEqual(200_000 + 131_070);
    const flowing = server.streams.get(9)!;
    for (let i = 0; i < 100; i++) {
      expect(window).toBeGreaterThanOrEqual(1000);
      server.feed(data(9, new Uint8Array(1000)));
      window -= 1000;
      server.connection.consumed(flowing, 1000);
      credit();
    }
    expect(server.connection.counters.receiveBudgetExhausted).toBeGreaterThan(0);
  });

  test("our own smaller window binds from the acknowledgement on", () => {
    const server = new Harness("server", { initialWindowBytes: 10 }).feed(CLIENT_PREFACE, frame(FrameType.settings, 0, 0), headers(1, CONNECT), data(1, new Uint8Array(100)));
    expect(server.events.at(-1)).toBe("data 1 100");
    const stream = server.streams.get(1)!;
    server.connection.consumed(stream, 100);
    server.sent();
    server.feed(frame(FrameType.settings, Flag.ack, 0));
    expect(stream.receiveWindowBytes).toBe(10);
    expect(server.sent()).toMatchObject([{ type: FrameType.windowUpdate, id: 1 }]);
  });
});

// ── Limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

describe("http2: floods end the connection with a reason", () => {
  interface Flood {
    readonly counter: keyof Http2Counters;
    readonly text: string;
    readonly setUp?: (server: Harness) => void;
    readonly one: (i: number) => Uint8Array[];
    readonly within: number;
    /** The peer reads our answers; otherwise the output fills first. */
    readonly reads?: boolean;
  }
  const floods: [string, Flood][] = [
    ["rapid reset", { counter: "resetFloods", text: "reset before they were answered", one: (i) => [headers(2 * i + 1, GET), reset(2 * i + 1)], within: 1_001 }],
    ["made you reset by malformed requests", { counter: "inducedResetFloods", text: "stream errors", one: (i) => [headers(2 * i + 1, [...GET, "connection", "x"], true)], within: 101 }],
    ["made you reset by window overflow", { counter: "inducedResetFloods", text: "stream errors", one: (i) => [headers(2 * i + 1, GET), windowUpdate(2 * i + 1, 0x7fff_ffff)], within: 101 }],
    ["made you reset by WINDOW_UPDATE of 0", { counter: "inducedResetFloods", text: "stream errors", one: (i) => [headers(2 * i + 1, GET), windowUpdate(2 * i + 1, 0)], within: 101 }],
    ["made you reset by DATA after the end", { counter: "inducedResetFloods", text: "stream errors", one: (i) => [headers(2 * i + 1, GET, true), data(2 * i + 1, "x")], within: 101 }],
    ["made you reset by HEADERS after the end", { counter: "inducedResetFloods", text: "stream errors", one: (i) => [headers(2 * i + 1, GET, true), headers(2 * i + 1, GET, true)], within: 101 }],
    ["made you reset by bad PRIORITY length", { counter: "inducedResetFloods", text: "stream errors", one: (i) => [headers(2 * i + 1, GET), frame(FrameType.priority, 0, 2 * i + 1, new Uint8Array(4))], within: 101 }],
    ["made you reset by content-length", { counter: "inducedResetFloods", text: "stream errors", one: (i) => [headers(2 * i + 1, [...POST, "content-length", "1"]), data(2 * i + 1, "xx")], within: 101 }],
    ["header lists too large", { counter: "inducedResetFloods", text: "stream errors", one: (i) => [headers(2 * i + 1, [...GET, "x", "v".repeat(1_100)], true)], within: 101 }],
    ["streams above the maximum", { counter: "refusedStreamFloods", text: "above the maximum", setUp: (s) => void s.feed(headers(1, GET)), one: (i) => [headers(2 * i + 3, GET)], within: 2_002 }],
    ["SETTINGS", { counter: "settingsFloods", text: "SETTINGS", one: () => [frame(FrameType.settings, 0, 0)], within: 101 }],
    ["SETTINGS acknowledgements", { counter: "settingsFloods", text: "nobody asked", one: () => [frame(FrameType.settings, Flag.ack, 0)], within: 101 }],
    ["PING", { counter: "pingFloods", text: "PING", one: () => [frame(FrameType.ping, 0, 0, new Uint8Array(8))], within: 1_001, reads: true }],
    ["PING that is answered but not read", { counter: "outputOverflows", text: "does not read", one: () => [frame(FrameType.ping, 0, 0, new Uint8Array(8))], within: 1_001, reads: false }],
    ["PING acknowledgements", { counter: "pingFloods", text: "nobody asked", one: () => [frame(FrameType.ping, Flag.ack, 0, new Uint8Array(8))], within: 1_001 }],
    ["empty DATA", { counter: "emptyFrameFloods", text: "without content", setUp: (s) => void s.feed(headers(1, POST)), one: () => [data(1, "")], within: 1_001 }],
    ["DATA of padding only", { counter: "emptyFrameFloods", text: "without content", setUp: (s) => void s.feed(headers(1, POST)), one: () => [frame(FrameType.data, Flag.padded, 1, Uint8Array.of(1, 0))], within: 1_001 }],
    ["WINDOW_UPDATE", { counter: "windowUpdateFloods", text: "WINDOW_UPDATE", one: () => [windowUpdate(0, 1)], within: 2_001 }],
    ["PRIORITY", { counter: "priorityFloods", text: "PRIORITY", one: (i) => [frame(FrameType.priority, 0, 2 * i + 1, new Uint8Array(5))], within: 1_001 }],
    ["unknown frames", { counter: "unknownFrameFloods", text: "unknown types", one: () => [frame(0xee, 0, 0, new Uint8Array(3))], within: 1_001 }],
    ["GOAWAY", { counter: "goawayFloods", text: "GOAWAY", one: () => [frame(FrameType.goaway, 0, 0, u32(0, 0))], within: 11 }],
    ["resets of closed streams", { counter: "resetFloods", text: "RST_STREAM", setUp: (s) => void s.feed(headers(1, GET), reset(1)), one: () => [reset(1)], within: 20_000 }],
    ["CONTINUATION", { counter: "continuationFloods", text: "CONTINUATION", setUp: (s) => void s.feed(frame(FrameType.headers, 0, 1, Uint8Array.of(0x82))), one: () => [frame(FrameType.continuation, 0, 1, Uint8Array.of(0x82))], within: 33 }],
    ["a header block without end", { counter: "headerBlockTooLarge", text: "header block", setUp: (s) => void s.feed(frame(FrameType.headers, 0, 1)), one: () => [frame(FrameType.continuation, 0, 1, new Uint8Array(900).fill(0x82))], within: 3 }],
  ];
  test.each(floods)("%s", (_, flood) => {
    const settings: Partial<LocalSettings> = { maxHeaderListBytes: 1000, maxConcurrentStreams: flood.counter === "refusedStreamFloods" ? 1 : 100_000 };
    const server = Harness.ready("server", settings);
    flood.setUp?.(server);
    const frames: Frame[] = [];
    for (let i = 0; i < flood.within && !server.connection.closed; i++) {
      server.feed(...flood.one(i));
      if (flood.reads !== false) frames.push(...server.sent());
    }
    expect(server.connection.closed).toBe(true);
    expect(server.connection.counters[flood.counter]).toBe(1);
    expect(server.events.filter((e) => e.startsWith("fatal"))).toEqual([`fatal ${flood.counter} peer`]);
    frames.push(...server.sent());
    const goaway = frames.find((f) => f.type === FrameType.goaway)!;
    expect(readUint32(goaway.payload, 4)).toBe(ErrorCode.enhanceYourCalm);
    expect(Buffer.from(goaway.payload.subarray(8)).toString()).toContain(flood.text);
    expect(server.connection.activeStreams).toBe(0);
    const opened = server.events.filter((e) => e.startsWith("request")).length;
    expect(server.events.filter((e) => e.startsWith("closed")).length).toBe(opened);
  });

  test("a slow trickle of the same is not a flood", () => {
    const server = Harness.ready("server");
    for (let i = 0; i < 3_000; i++) {
      server.nowMs += 10;
      server.feed(headers(2 * i + 1, GET), reset(2 * i + 1), frame(FrameType.ping, 0, 0, new Uint8Array(8)));
      server.sent();
    }
    expect(server.connection.closed).toBe(false);
  });

  test("WINDOW_UPDATEs that our own DATA earned are free", () => {
    const server = Harness.ready("server", {}, { windowUpdates: { burst: 10, perSecond: 1 } });
    server.onRequest = (stream) => server.connection.respond(stream, OK, false);
    server.feed(headers(1, CONNECT));
    for (let i = 0; i < 1_000; i++) {
      server.connection.sendData(server.streams.get(1)!, Buffer.from("x"), false);
      server.sent();
      server.feed(windowUpdate(0, 1), windowUpdate(1, 1));
    }
    expect(server.connection.closed).toBe(false);
  });

  test("requests answered but never read end at the output's limit", () => {
    const server = Harness.ready("server", {}, { outputBytesMax: 100_000, outputDataBytesMax: 50_000 });
    const large = encodeStaticBlock([":status", "200", "x", "v".repeat(1_000)]);
    server.onRequest = (stream) => server.connection.respond(stream, large, true);
    let i = 0;
    for (; i < 1_000 && !server.connection.closed; i++) server.feed(headers(2 * i + 1, GET, true));
    expect(i).toBeLessThan(110);
    expect(server.connection.counters.outputOverflows).toBe(1);
    expect(server.connection.output.pendingBytes).toBeLessThan(102_000);
  });

  test("a frame above the announced size, HPACK damage and wrong sizes are fatal", () => {
    const over = frame(FrameType.data, 0, 1, new Uint8Array(0));
    over.set([0xff, 0xff, 0xff], 0);
    expect(Harness.ready("server").feed(over).events).toEqual(["fatal frameSizeErrors peer"]);
    expect(Harness.ready("server").feed(frame(FrameType.headers, Flag.endHeaders, 1, Uint8Array.of(0x80))).events).toEqual(["fatal compressionErrors peer"]);
    expect(Harness.ready("server").feed(frame(FrameType.ping, 0, 0, new Uint8Array(7))).events).toEqual(["fatal frameSizeErrors peer"]);
    expect(Harness.ready("server").feed(frame(FrameType.windowUpdate, 0, 0, new Uint8Array(3))).events).toEqual(["fatal frameSizeErrors peer"]);
    expect(Harness.ready("server").feed(frame(FrameType.goaway, 0, 0, new Uint8Array(7))).events).toEqual(["fatal frameSizeErrors peer"]);
  });

  test("padding as long as the frame is fatal", () => {
    const server = Harness.ready("server").feed(headers(1, POST), frame(FrameType.data, Flag.padded, 1, Uint8Array.of(3, 0, 0)));
    expect(server.events).toContain("fatal protocolErrors peer");
    const other = Harness.ready("server").feed(frame(FrameType.headers, Flag.padded | Flag.endHeaders, 1, Uint8Array.of(2, 0)));
    expect(other.events).toEqual(["fatal protocolErrors peer"]);
  });

  test("a frame between HEADERS and CONTINUATION, CONTINUATION alone", () => {
    const server = Harness.ready("server").feed(frame(FrameType.headers, 0, 1, Uint8Array.of(0x82)), frame(FrameType.ping, 0, 0, new Uint8Array(8)));
    expect(server.events).toEqual(["fatal protocolErrors peer"]);
    expect(Harness.ready("server").feed(frame(FrameType.continuation, 0, 1)).events).toEqual(["fatal protocolErrors peer"]);
  });

  test("settings and limits that contradict each other are our own fault", () => {
    expect(() => new Harness("server", { maxFrameBytes: 100 })).toThrow(RangeError);
    expect(() => new Harness("server", {}, { outputBytesMax: 1 })).toThrow(RangeError);
  });
});

// ── PING, GOAWAY, memory ────────────────────────────────────────────────────────────────────────────────────────────────────

describe("http2: ping and goaway", () => {
  test("a PING is echoed; ours is told once, a second is not sent meanwhile", () => {
    const server = Harness.ready("server").feed(frame(FrameType.ping, 0, 0, Buffer.from("12345678")));
    const [pong] = server.sent();
    expect(pong).toMatchObject({ type: FrameType.ping, flags: Flag.ack });
    expect(Buffer.from(pong!.payload).toString()).toBe("12345678");
    server.connection.ping();
    server.connection.ping();
    const pings = server.sent();
    expect(pings).toHaveLength(1);
    server.feed(frame(FrameType.ping, Flag.ack, 0, pings[0]!.payload), frame(FrameType.ping, Flag.ack, 0, pings[0]!.payload));
    expect(server.events).toEqual(["pong"]);
  });

  test("a server leaves in two steps and serves what was on its way", () => {
    const server = Harness.ready("server").feed(headers(1, GET));
    server.connection.goaway(0, "draining");
    const [first, ping] = server.sent();
    expect(readUint31(first!.payload, 0)).toBe(0x7fff_ffff);
    server.feed(headers(3, GET, true));
    expect(server.events.at(-1)).toContain("request 3");
    server.feed(frame(FrameType.ping, Flag.ack, 0, ping!.payload));
    const [second] = server.sent();
    expect(readUint31(second!.payload, 0)).toBe(3);
    server.feed(headers(5, GET, true));
    expect(server.sent()).toMatchObject([{ type: FrameType.rstStream, id: 5 }]);
    expect(server.connection.drained).toBe(false);
    for (const stream of server.streams.values()) server.connection.respond(stream, OK, true);
    server.feed(data(1, "", true));
    expect(server.connection.drained).toBe(true);
  });

  test("a client's streams above the last one are reset as safe to repeat, before it hears of the GOAWAY", () => {
    const client = Harness.ready("client");
    for (let i = 0; i < 3; i++) client.connection.request(encodeStaticBlock(GET), true);
    client.feed(frame(FrameType.goaway, 0, 0, Buffer.concat([u32(3, 0), Buffer.from("bye\n")])));
    expect(client.events).toEqual([`reset 5 ${ErrorCode.refusedStream} connection`, "closed 5", "goaway 3 0 bye?"]);
    expect(client.connection.canRequest).toBe(false);
    client.feed(headers(1, [":status", "200"], true), headers(3, [":status", "200"], true));
    expect(client.connection.drained).toBe(true);
  });

  test("a GOAWAY that raises the last stream is refused", () => {
    const client = Harness.ready("client").feed(frame(FrameType.goaway, 0, 0, u32(3, 0)), frame(FrameType.goaway, 0, 0, u32(5, 0)));
    expect(client.events.at(-1)).toBe("fatal protocolErrors peer");
  });

  test("an error code of ours ends everything, the first cause told first", () => {
    const server = Harness.ready("server").feed(headers(1, GET));
    server.connection.goaway(ErrorCode.internalError, "certificate revoked");
    expect(server.events.slice(1)).toEqual(["fatal localErrors us", "reset 1 2 connection", "closed 1"]);
    expect(server.goaway()).toEqual({ lastId: 1, code: 2, debug: "certificate revoked" });
  });

  test("GOAWAY debug text is bounded and printable", () => {
    const client = Harness.ready("client").feed(frame(FrameType.goaway, 0, 0, Buffer.concat([u32(0, 11), Buffer.alloc(100_000, 0x1b)])));
    expect(client.events[0]!.length).toBeLessThan(600);
    expect(client.events[0]).toMatch(/^goaway 0 11 \?+$/);
  });
});

describe("http2: memory", () => {
  test("an idle connection holds no output buffer", () => {
    const server = Harness.ready("server");
    expect(server.connection.output.bytes.length).toBe(0);
    server.connection.ping();
    expect(server.connection.output.bytes.length).toBe(4 * 1024);
    server.sent();
    expect(server.connection.output.bytes.length).toBe(0);
  });

  test("output grows for one large write and its first payload is aligned", () => {
    const server = Harness.ready("server").feed(setting(SettingId.maxFrameSize, 1 << 20), setting(SettingId.initialWindowSize, 1 << 22), windowUpdate(0, 1 << 22));
    server.onRequest = (stream) => server.connection.respond(stream, OK, false);
    server.feed(headers(1, CONNECT));
    server.sent();
    server.connection.sendData(server.streams.get(1)!, new Uint8Array(600_000).fill(7), false);
    const view = server.connection.output.peek();
    expect(view.length).toBe(600_009);
    expect((view.byteOffset + 9) % 64).toBe(0);
  });

  test("bytes survive growth and compaction in any order of writes and consumption", () => {
    const server = Harness.ready("server");
    server.onRequest = (stream) => server.connection.respond(stream, OK, false);
    server.feed(setting(SettingId.initialWindowSize, 1 << 24), windowUpdate(0, 1 << 24), headers(1, CONNECT));
    server.sent();
    const parts: Uint8Array[] = [];
    let position = 0;
    for (let i = 0; i < 400; i++) {
      const chunk = new Uint8Array(1 + ((i * 7919) % 9_000)).map((_, k) => (position + k) & 0xff);
      position += server.connection.sendData(server.streams.get(1)!, chunk, false);
      if (i % 3 === 0) continue;
      const take = Math.min(server.connection.output.pendingBytes, (i * 104_729) % 17_000);
      parts.push(server.connection.output.peek().slice(0, take));
      server.connection.output.consume(take);
    }
    parts.push(server.connection.output.peek().slice());
    const payload = Buffer.concat(parseFrames(Buffer.concat(parts)).map((f) => f.payload));
    expect(payload.length).toBe(position);
    expect(payload.every((byte, k) => byte === (k & 0xff))).toBe(true);
  });
});

test("http2: encodeStateless and the connection's encoder agree on what they mean", () => {
  const server = Harness.ready("server");
  server.feed(frame(FrameType.headers, Flag.endHeaders | Flag.endStream, 1, encodeStateless(GET)));
  expect(server.events).toEqual([`request 1 ${GET.join(" ")} END`]);
});
