// The HTTP/2 engine under hostile frames, and two engines talking to each other.
//
// Hostile: random frames, mostly well-formed enough to get deep. The same bytes go in whole, in random pieces and one at a time; what the
// handler hears and what the engine says must be the same, our own frames must be legal, windows and memory within bounds, every stream
// closed exactly once.
// Pair: random settings, cuts, consumption, resets; every byte arrives, every stream ends, no side finds fault with the other.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import {
  DEFAULT_LIMITS,
  encodeStaticBlock,
  ErrorCode,
  headerValue,
  Http2Connection,
  type Http2Handler,
  type Http2Limits,
  type Http2Stream,
  type LocalSettings,
} from "../../src/wire/http2/connection.ts";
import { CLIENT_PREFACE, Flag, FrameType, readUint31, writeFrameHeader, writeUint32 } from "../../src/wire/http2/frames.ts";
import { HpackDecoder } from "../../src/wire/http2/hpack-decoder.ts";
import { HpackEncoder } from "../../src/wire/http2/hpack-encoder.ts";
import { below, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { iterate } from "./iterate.ts";

export const name = "http2";

/** One pair costs some fifty hostile inputs. */
const PAIR_EVERY = 16;
/** A pair that takes more turns than this has stalled. */
const PAIR_TURNS_MAX = 200_000;
const HOSTILE_FRAMES_MAX = 24;

export const run = (fuzzRun: FuzzRun) => iterate(fuzzRun, (random, i) => {
  if (i % PAIR_EVERY === PAIR_EVERY - 1) pair(random);
  else hostile(random);
});

function must(held: boolean, what: string): void {
  if (!held) throw new Error(what);
}

// ── Hostile ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const RESPONSE = encodeStaticBlock([":status", "200", "x-a", "b"]);
const EARLY_HINTS = encodeStaticBlock([":status", "103"]);
const TRAILERS = encodeStaticBlock(["x-t", "1"]);
const REQUESTS = [
  encodeStaticBlock([":method", "CONNECT", ":authority", "198.18.0.1:80"]),
  encodeStaticBlock([":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"]),
  encodeStaticBlock([":method", "HEAD", ":scheme", "http", ":path", "/", ":authority", "a"]),
];
const BODY = Buffer.alloc(3000, "0123456789");

/** Tight enough that a few frames reach each limit. */
const TIGHT_LIMITS: Http2Limits = {
  ...DEFAULT_LIMITS,
  continuationFramesMax: 3,
  settingsEntriesMax: 4,
  informationalResponsesMax: 2,
  unconsumedBytesMax: 500,
  outputDataBytesMax: 2_000,
  outputBytesMax: 8_000,
  queuedControlFramesMax: 12,
  sendQuantumBytes: 300,
  recentResetsMax: 2,
  goawayDebugBytesMax: 16,
  prematureResets: { burst: 2, perSecond: 1 },
  peerResets: { burst: 5, perSecond: 1 },
  inducedResets: { burst: 3, perSecond: 1 },
  refusedStreams: { burst: 2, perSecond: 1 },
  settingsFrames: { burst: 4, perSecond: 1 },
  pings: { burst: 4, perSecond: 1 },
  emptyFrames: { burst: 3, perSecond: 1 },
  windowUpdates: { burst: 6, perSecond: 1 },
  priorities: { burst: 3, perSecond: 1 },
  unknownFrames: { burst: 3, perSecond: 1 },
  goaways: { burst: 2, perSecond: 1 },
};

interface Scenario {
  readonly role: "client" | "server";
  readonly settings: LocalSettings;
  readonly limits: Http2Limits;
  /** Client: requests made before any input. */
  readonly requests: number;
  readonly input: Uint8Array;
}

interface Outcome {
  readonly events: string;
  readonly output: Uint8Array;
  readonly counters: string;
}

function hostile(random: Random): void {
  const scenario: Scenario = {
    role: below(random, 3) === 0 ? "client" : "server",
    settings: {
      headerTableSizeBytes: pick(random, [0, 100, 4096, 8192]),
      maxConcurrentStreams: pick(random, [0, 1, 3, 100]),
      initialWindowBytes: pick(random, [0, 10, 300, 65_535, 100_000]),
      connectionWindowBytes: pick(random, [65_535, 70_000, 200_000]),
      maxFrameBytes: 16_384,
      maxHeaderListBytes: pick(random, [256, 1000, 16_384]),
      enableConnectProtocol: below(random, 2) === 0,
    },
    limits: below(random, 3) === 0 ? TIGHT_LIMITS : DEFAULT_LIMITS,
    requests: below(random, 4),
    input: EMPTY,
  };
  const full = { ...scenario, input: hostileInput(random, scenario.role) };
  const whole = play(full, () => full.input.length);
  const cutSeed = below(random, 1 << 30);
  const cuts = seededRandom(cutSeed);
  const pieces = play(full, () => 1 + below(cuts, 40));
  must(whole.events === pieces.events, `events differ when cut:\nwhole  ${whole.events}\npieces ${pieces.events}\ninput ${hexOf(full.input)}`);
  must(Buffer.compare(whole.output, pieces.output) === 0, `output differs when cut, input ${hexOf(full.input)}`);
  must(whole.counters === pieces.counters, `counters differ when cut: ${whole.counters} ${pieces.counters}`);
  if (full.input.length > 600 && below(random, 8) !== 0) return;
  const singles = play(full, () => 1);
  must(whole.events === singles.events && whole.counters === singles.counters, `events differ byte by byte, input ${hexOf(full.input)}`);
  must(Buffer.compare(whole.output, singles.output) === 0, `output differs byte by byte, input ${hexOf(full.input)}`);
}

const EMPTY = new Uint8Array(0);

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex").slice(0, 4000);
}

/** Feeds the input in pieces to an engine whose handler answers by stream number alone, then ends the transport. */
function play(scenario: Scenario, pieceBytes: () => number): Outcome {
  let events = "";
  let dataOf = -1;
  let fatals = 0;
  const open = new Set<number>();
  const closed = new Set<number>();
  const hear = (event: string): void => {
    events += `${event};`;
    dataOf = -1;
  };
  const known = (stream: Http2Stream): void => must(open.has(stream.id), `an event for stream ${stream.id}, which is not open`);
  let connection: Http2Connection | null = null;
  const handler: Http2Handler = {
    onRequest(stream, headers, endStream) {
      must(!open.has(stream.id) && !closed.has(stream.id), `stream ${stream.id} opened twice`);
      open.add(stream.id);
      hear(`request ${stream.id} ${headers.join(",")} ${endStream}`);
      answer(connection!, stream);
    },
    onResponse(stream, headers, endStream) {
      known(stream);
      hear(`response ${stream.id} ${headers.join(",")} ${endStream}`);
    },
    onInformational(stream) {
      known(stream);
      hear(`informational ${stream.id}`);
    },
    onData(stream, body, endStream) {
      known(stream);
      if (dataOf !== stream.id) hear(`data ${stream.id}`);
      events += Buffer.from(body.view()).toString("latin1");
      dataOf = stream.id;
      if (!endStream) return;
      hear(`end ${stream.id}`);
      // Consuming only here keeps our WINDOW_UPDATEs apart from how the input was cut.
      connection!.consumed(stream, stream.bufferedUnconsumedBytes);
      if (stream.id % 4 === 1) connection!.endStream(stream);
    },
    onTrailers(stream) {
      known(stream);
      hear(`trailers ${stream.id}`);
    },
    onSendable(stream) {
      known(stream);
      hear(`sendable ${stream.id}`);
      connection!.sendData(stream, BODY.subarray(0, 500), stream.id % 8 === 3);
    },
    onReset(stream, code, by) {
      known(stream);
      hear(`reset ${stream.id} ${code} ${by}`);
    },
    onClosed(stream) {
      known(stream);
      open.delete(stream.id);
      closed.add(stream.id);
      hear(`closed ${stream.id}`);
    },
    onSettings: () => hear("settings"),
    onGoaway: (last, code, debug) => hear(`goaway ${last} ${code} ${debug}`),
    onPong: () => hear("pong"),
    onFatal(error) {
      fatals++;
      hear(`fatal ${error.code} ${error.counter} ${error.message}`);
    },
    onOutput() {},
  };
  const engine = (connection = new Http2Connection({ role: scenario.role, settings: scenario.settings, limits: scenario.limits, handler, nowMs: () => 0 }));
  if (scenario.role === "client") {
    for (let i = 0; i < scenario.requests; i++) {
      const stream = engine.request(pickRequest(i), i % 2 === 1);
      if (stream !== null) open.add(stream.id);
    }
    engine.ping();
  } else if (scenario.requests === 3) {
    engine.goaway(0, "going");
  }
  const input = scenario.input;
  for (let at = 0; at < input.length; ) {
    const to = Math.min(input.length, at + pieceBytes());
    engine.receive(input.subarray(at, to));
    at = to;
    invariants(engine, scenario, open);
  }
  must(fatals === (engine.closed ? 1 : 0), `${fatals} fatal events on a connection that is ${engine.closed ? "closed" : "open"}`);
  const output = engine.output.peek().slice();
  judgeOutput(output, scenario);
  engine.receiveEnd();
  must(open.size === 0 && engine.activeStreams === 0, `${open.size} streams were never closed`);
  must(engine.unconsumedTotalBytes === 0, `${engine.unconsumedTotalBytes} unconsumed bytes after the end`);
  const c = engine.counters;
  must(c.streamsOpened === c.streamsClosed, `opened ${c.streamsOpened}, closed ${c.streamsClosed}`);
  return { events, output, counters: JSON.stringify(c) };
}

function pickRequest(i: number): (typeof REQUESTS)[number] {
  return REQUESTS[i % REQUESTS.length]!;
}

/** What a server does with a stream depends on its number only. */
function answer(connection: Http2Connection, stream: Http2Stream): void {
  const kind = (stream.id >>> 1) % 6;
  if (kind === 0) return;
  if (kind === 1) return connection.reset(stream, ErrorCode.cancel);
  if (kind === 2) connection.respond(stream, EARLY_HINTS, false);
  connection.respond(stream, RESPONSE, kind === 3);
  if (kind === 4) connection.sendData(stream, BODY, true);
  if (kind === 5) {
    connection.sendData(stream, BODY.subarray(0, 100), false);
    if (!stream.isTunnel && stream.waiting === 0) connection.sendTrailers(stream, TRAILERS);
  }
}

function invariants(engine: Http2Connection, scenario: Scenario, open: ReadonlySet<number>): void {
  must(engine.activeStreams === open.size, `${engine.activeStreams} streams in the engine, ${open.size} by its events`);
  must(scenario.role === "client" || engine.activeStreams <= scenario.settings.maxConcurrentStreams, `${engine.activeStreams} streams are open`);
  must(engine.connectionSendWindowBytes >= 0 && engine.connectionSendWindowBytes <= 0x7fffffff, `connection window ${engine.connectionSendWindowBytes}`);
  const limits = scenario.limits;
  must(engine.output.pendingBytes <= limits.outputBytesMax + 20_000, `${engine.output.pendingBytes} bytes of output`);
  must(engine.unconsumedTotalBytes >= 0, "unconsumed bytes below zero");
  must(engine.unconsumedTotalBytes <= limits.unconsumedBytesMax + scenario.settings.connectionWindowBytes, `${engine.unconsumedTotalBytes} unconsumed bytes`);
  for (const stream of engine.openStreams()) {
    must(stream.sendWindowBytes >= -0x7fffffff && stream.sendWindowBytes <= 0x7fffffff, `send window ${stream.sendWindowBytes}`);
    must(stream.receiveWindowBytes >= -65_535 && stream.receiveWindowBytes <= Math.max(65_535, scenario.settings.initialWindowBytes), `receive window ${stream.receiveWindowBytes}`);
    must(stream.unconsumedBytes >= 0, "a stream's unconsumed bytes below zero");
  }
}

/** Our own frames, read by the letter: whole, in size, HPACK in step, nothing but housekeeping on a stream that we ended or reset. */
function judgeOutput(output: Uint8Array, scenario: Scenario): void {
  let at = 0;
  if (scenario.role === "client") {
    must(Buffer.compare(output.subarray(0, 24), CLIENT_PREFACE) === 0, "no client preface");
    at = 24;
  }
  const decoder = new HpackDecoder(1 << 20);
  decoder.setLimit(1 << 20);
  const ended = new Set<number>();
  const reset = new Set<number>();
  for (let frame = 0; at < output.length; frame++) {
    const length = (output[at]! << 16) | (output[at + 1]! << 8) | output[at + 2]!;
    const type = output[at + 3]!;
    const flags = output[at + 4]!;
    const id = readUint31(output, at + 5);
    const from = at + 9;
    at = from + length;
    must(at <= output.length, "our output ends inside a frame");
    must(frame > 0 || type === FrameType.settings, "our first frame is not SETTINGS");
    must(!reset.has(id) || type === FrameType.rstStream, `frame of type ${type} on stream ${id} after our RST_STREAM`);
    if (type === FrameType.headers || type === FrameType.data) {
      must(!ended.has(id), `frame of type ${type} on stream ${id} after our END_STREAM`);
      if ((flags & Flag.endStream) !== 0) ended.add(id);
    }
    if (type === FrameType.headers) {
      must((flags & Flag.endHeaders) !== 0, "our header block does not end");
      must(decoder.decode(output, from, at) !== null && decoder.malformed === "", `our header block is wrong: ${decoder.error}`);
    }
    if (type === FrameType.windowUpdate) must(readUint31(output, from) > 0, "our WINDOW_UPDATE is 0");
    if (type === FrameType.rstStream) reset.add(id);
  }
}

// ── Making hostile input ────────────────────────────────────────────────────────────────────────────────────────────────────

class InputWriter {
  private readonly parts: Uint8Array[] = [];

  raw(bytes: Uint8Array): void {
    this.parts.push(bytes);
  }

  frame(type: number, flags: number, streamId: number, payload: Uint8Array): void {
    const bytes = new Uint8Array(9 + payload.length);
    writeFrameHeader(bytes, 0, payload.length, type, flags, streamId);
    bytes.set(payload, 9);
    this.parts.push(bytes);
  }

  bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.parts));
  }
}

function hostileInput(random: Random, role: "client" | "server"): Uint8Array {
  const out = new InputWriter();
  if (role === "server" && below(random, 50) !== 0) out.raw(CLIENT_PREFACE);
  if (below(random, 50) !== 0) out.frame(FrameType.settings, 0, 0, below(random, 2) === 0 ? EMPTY : settingsPayload(random));
  const encoder = new HpackEncoder();
  const state = { nextId: 1, encoder };
  const frames = below(random, HOSTILE_FRAMES_MAX);
  for (let i = 0; i < frames; i++) hostileFrame(random, role, out, state);
  const bytes = out.bytes();
  if (below(random, 6) === 0 && bytes.length > 0) for (let n = 1 + below(random, 3); n > 0; n--) bytes[below(random, bytes.length)] = below(random, 256);
  return below(random, 6) === 0 ? bytes.subarray(0, below(random, bytes.length + 1)) : bytes;
}

function hostileFrame(random: Random, role: "client" | "server", out: InputWriter, state: { nextId: number; readonly encoder: HpackEncoder }): void {
  const old = 1 + 2 * below(random, Math.max(1, (state.nextId + 1) >>> 1));
  const id = below(random, 30) === 0 ? below(random, 8) : old;
  switch (below(random, 16)) {
    case 0:
    case 1:
    case 2:
    case 3: {
      if (role === "client") return headersFrame(random, role, out, id, state.encoder);
      const fresh = state.nextId;
      state.nextId += 2;
      return headersFrame(random, role, out, fresh, state.encoder);
    }
    case 4:
      return headersFrame(random, role, out, id, state.encoder);
    case 5:
    case 6:
    case 7:
    case 8:
      return dataFrame(random, out, id);
    case 9:
      return out.frame(FrameType.windowUpdate, 0, below(random, 2) === 0 ? 0 : id, uint32(pick(random, [0, 1, 100, 65_535, 0x7fff_0000, 0x7fff_ffff, 0xffff_ffff])));
    case 10:
      return out.frame(FrameType.rstStream, 0, id, uint32(below(random, 16)));
    case 11:
      return below(random, 3) === 0 ? out.frame(FrameType.settings, Flag.ack, 0, EMPTY) : out.frame(FrameType.settings, 0, 0, settingsPayload(random));
    case 12:
      return out.frame(FrameType.ping, below(random, 2), 0, pick(random, [Buffer.from("u\0\0\0\0\0\0\0"), Buffer.from("g\0\0\0\0\0\0\0"), Buffer.from("12345678")]));
    case 13:
      return below(random, 3) === 0 ? out.frame(FrameType.goaway, 0, 0, goawayPayload(random)) : out.frame(FrameType.priority, 0, id, priorityPayload(random));
    case 14:
      return out.frame(pick(random, [0x0a, 0x10, 0x42, 0xff, FrameType.continuation, FrameType.pushPromise]), below(random, 256), below(random, 2) * id, randomBytes(random, 30));
    default:
      return out.frame(below(random, 12), below(random, 256), below(random, 2) * id, randomBytes(random, 20));
  }
}

function headersFrame(random: Random, role: "client" | "server", out: InputWriter, id: number, encoder: HpackEncoder): void {
  const fields = hostileFields(random, role);
  // Our own encoder refuses what may not stand in a field: that is laid out by hand.
  let block: Uint8Array = fields.some((text) => /[A-Z\r\n]/.test(text)) ? literals(fields) : encoder.encode(fields).slice();
  if (below(random, 60) === 0) block = randomBytes(random, 20);
  let flags = below(random, 2) === 0 ? Flag.endStream : 0;
  const parts: Uint8Array[] = [];
  if (below(random, 8) === 0) {
    flags |= Flag.padded;
    parts.push(Uint8Array.of(below(random, 40) === 0 ? 255 : 5));
  }
  if (below(random, 8) === 0) {
    flags |= Flag.priority;
    parts.push(uint32(below(random, 20) === 0 ? id : 0), Uint8Array.of(16));
  }
  const cut = below(random, 4) === 0 ? below(random, block.length + 1) : block.length;
  if (cut === block.length) flags |= Flag.endHeaders;
  parts.push(block.subarray(0, cut));
  if ((flags & Flag.padded) !== 0) parts.push(new Uint8Array(5));
  out.frame(FrameType.headers, flags, id, Buffer.concat(parts));
  if (cut === block.length) return;
  const middle = cut + below(random, block.length - cut + 1);
  if (below(random, 2) === 0) out.frame(FrameType.continuation, 0, id, block.subarray(cut, middle));
  else return out.frame(FrameType.continuation, Flag.endHeaders, id, block.subarray(cut));
  out.frame(FrameType.continuation, Flag.endHeaders, id, block.subarray(middle));
}

function hostileFields(random: Random, role: "client" | "server"): string[] {
  const fields =
    below(random, 10) === 0
      ? []
      : role === "client"
        ? [":status", pick(random, ["200", "200", "200", "204", "304", "100", "103", "101", "20", "999", ""])]
        : below(random, 2) === 0
          ? [":method", "CONNECT", ":authority", `198.18.0.${below(random, 9)}:80`]
          : [":method", pick(random, ["GET", "POST", "HEAD", "CONNECT", "g t"]), ":scheme", "http", ":path", pick(random, ["/", "/", "*", "", "x", "/#f"]), ":authority", "a:1"];
  for (let n = below(random, 4); n > 0; n--) {
    const [field, value] = pick(random, [
      ["x-a", "1"],
      ["baggage", `k=${below(random, 100)}`],
      ["content-length", String(below(random, 4) * 5)],
      ["cookie", "a=b"],
      ["connection", "close"],
      ["te", "trailers"],
      ["te", "gzip"],
      ["host", "a:1"],
      ["X-A", "1"],
      ["x-a", "a\r\nb"],
      [":path", "/"],
      [":protocol", "websocket"],
      ["x-long", "v".repeat(below(random, 400))],
    ] as const);
    fields.push(field, value);
  }
  return fields;
}

/** HPACK without tables, Huffman codes and checks: each field a literal of its own (RFC 7541, section 6.2.2). */
function literals(fields: readonly string[]): Uint8Array {
  const text = (of: string): Uint8Array => {
    const bytes = Buffer.from(of, "latin1");
    if (bytes.length < 127) return Buffer.concat([Uint8Array.of(bytes.length), bytes]);
    const rest = bytes.length - 127;
    return Buffer.concat([rest < 128 ? Uint8Array.of(127, rest) : Uint8Array.of(127, 128 | (rest & 127), rest >> 7), bytes]);
  };
  return Buffer.concat(Array.from({ length: fields.length / 2 }, (_, i) => Buffer.concat([Uint8Array.of(0), text(fields[2 * i]!), text(fields[2 * i + 1]!)])));
}

function dataFrame(random: Random, out: InputWriter, id: number): void {
  const length = pick(random, [0, 0, 1, 5, 10, 15, 100, 400]);
  const body = new Uint8Array(length).fill(0x61 + below(random, 26));
  const flags = below(random, 4) === 0 ? Flag.endStream : 0;
  if (below(random, 4) !== 0) return out.frame(FrameType.data, flags, id, body);
  const padding = below(random, 30);
  const declared = below(random, 30) === 0 ? 255 : padding;
  out.frame(FrameType.data, flags | Flag.padded, id, Buffer.concat([Uint8Array.of(declared), body, new Uint8Array(padding)]));
}

function settingsPayload(random: Random): Uint8Array {
  const entries = below(random, 6);
  const bytes = new Uint8Array(entries * 6);
  for (let i = 0; i < entries; i++) {
    const id = 1 + below(random, 9);
    bytes[i * 6 + 1] = id;
    const usual = [4096, 0, below(random, 10), pick(random, [0, 20, 1000, 65_535, 0x7fff_ffff]), 16_384 + below(random, 100), 1000, 7, below(random, 2), 0][id - 1]!;
    writeUint32(bytes, i * 6 + 2, below(random, 40) === 0 ? Math.floor(random.next() * 0x1_0000_0000) : usual);
  }
  return bytes;
}

function goawayPayload(random: Random): Uint8Array {
  return Buffer.concat([uint32(pick(random, [0, 1, 3, 0x7fff_ffff])), uint32(below(random, 16)), randomBytes(random, 40)]);
}

function priorityPayload(random: Random): Uint8Array {
  return Buffer.concat([uint32(below(random, 8)), randomBytes(random, 1), EMPTY]).subarray(0, below(random, 20) === 0 ? 4 : 5);
}

function randomBytes(random: Random, lengthMax: number): Uint8Array {
  const bytes = new Uint8Array(below(random, lengthMax + 1));
  for (let i = 0; i < bytes.length; i++) bytes[i] = below(random, 256);
  return bytes;
}

function uint32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  writeUint32(bytes, 0, value);
  return bytes;
}

// ── Pair ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** One half of one stream as its application sees it. Bytes are numbered, so a wrong one is known by its place. */
class Half {
  sent = 0;
  received = 0;
  unconsumed = 0;
  peerEnded = false;
  ended = false;
  closed = false;
  wasReset = false;
  blocked = false;
  readonly total: number;
  readonly streamId: number;
  stream: Http2Stream | null = null;

  constructor(streamId: number, total: number) {
    this.streamId = streamId;
    this.total = total;
  }
}

function byteAt(streamId: number, fromServer: boolean, position: number): number {
  return (streamId * 31 + position * 7 + (position >>> 8) + (fromServer ? 99 : 0)) & 0xff;
}

/** Windows of a few bytes make a frame per byte: such pairs carry little, the others carry enough to fill large windows. */
interface Grain {
  readonly initialWindowBytes: readonly number[];
  readonly outputDataBytesMax: readonly number[];
  readonly sendQuantumBytes: readonly number[];
  readonly totalBytesMax: number;
}
const FINE: Grain = { initialWindowBytes: [1, 7, 100], outputDataBytesMax: [1, 60, 500], sendQuantumBytes: [1, 50, 1_000], totalBytesMax: 300 };
const COARSE: Grain = { initialWindowBytes: [5_000, 65_535, 200_000], outputDataBytesMax: [20_000, 1 << 20], sendQuantumBytes: [3_000, 256 * 1024], totalBytesMax: 60_000 };

class Side {
  readonly halves = new Map<number, Half>();
  readonly connection: Http2Connection;
  /** Bytes on the wire towards the other side. */
  readonly wire: Uint8Array[] = [];
  fatal = "";
  pongs = 0;
  private readonly isServer: boolean;
  private readonly grain: Grain;

  constructor(random: Random, isServer: boolean, grain: Grain) {
    this.isServer = isServer;
    this.grain = grain;
    const settings: LocalSettings = {
      headerTableSizeBytes: pick(random, [0, 64, 4096, 16_384]),
      maxConcurrentStreams: pick(random, [1, 2, 5, 100]),
      initialWindowBytes: pick(random, grain.initialWindowBytes),
      connectionWindowBytes: pick(random, [65_535, 80_000, 300_000]),
      maxFrameBytes: pick(random, [16_384, 20_000, 100_000]),
      maxHeaderListBytes: 4096,
      enableConnectProtocol: false,
    };
    const limits: Http2Limits = {
      ...DEFAULT_LIMITS,
      outputDataBytesMax: pick(random, grain.outputDataBytesMax),
      unconsumedBytesMax: pick(random, [0, 1_000, 1 << 20]),
      sendQuantumBytes: pick(random, grain.sendQuantumBytes),
      windowUpdates: { burst: 1_000_000, perSecond: 1 },
    };
    this.connection = new Http2Connection({ role: isServer ? "server" : "client", settings, limits, handler: this.handler(random), nowMs: () => 0 });
  }

  private handler(random: Random): Http2Handler {
    const half = (stream: Http2Stream): Half => {
      const found = this.halves.get(stream.id);
      if (found === undefined || found.closed) throw new Error(`an event for stream ${stream.id}, unknown or closed`);
      return found;
    };
    return {
      onRequest: (stream, headers, endStream) => {
        const made = new Half(stream.id, this.randomTotal(random));
        made.stream = stream;
        this.halves.set(stream.id, made);
        must(headerValue(headers, "x-id") === String(stream.id), "the request's fields differ");
        made.peerEnded = endStream;
        this.connection.respond(stream, this.connection.encode([":status", "200", "x-id", String(stream.id), "server", "weft"]), false);
        this.send(made);
      },
      onResponse: (stream, headers) => must(headerValue(headers, "x-id") === String(half(stream).streamId), "the response's fields differ"),
      onInformational() {},
      onData: (stream, body, endStream) => {
        const chunk = body.view();
        const to = half(stream);
        must(!to.peerEnded, `data after the end on stream ${stream.id}`);
        for (let i = 0; i < chunk.length; i++) if (chunk[i] !== byteAt(stream.id, !this.isServer, to.received + i)) throw new Error(`wrong byte ${to.received + i} on stream ${stream.id}`);
        to.received += chunk.length;
        to.unconsumed += chunk.length;
        to.peerEnded = endStream;
        if (chunk.length % 3 === 0) this.consume(to, to.unconsumed);
      },
      onTrailers: (stream, headers) => {
        must(headerValue(headers, "x-t") === "1", "the trailers differ");
        half(stream).peerEnded = true;
      },
      onSendable: (stream) => {
        const from = half(stream);
        from.blocked = false;
        this.send(from);
      },
      onReset: (stream) => void (half(stream).wasReset = true),
      onClosed: (stream) => void (half(stream).closed = true),
      onSettings() {},
      onGoaway() {},
      onPong: () => void this.pongs++,
      onFatal: (error) => void (this.fatal = `${error.counter}: ${error.message}`),
      onOutput() {},
    };
  }

  open(random: Random): void {
    const connection = this.connection;
    const id = 1 + 2 * this.halves.size;
    const stream = connection.request(connection.encode([":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a", "x-id", String(id)]), false);
    if (stream === null) return;
    must(stream.id === id, "a stream number was skipped");
    const made = new Half(id, this.randomTotal(random));
    made.stream = stream;
    this.halves.set(id, made);
    this.send(made);
  }

  send(from: Half): void {
    while (!from.closed && !from.ended && !from.blocked) {
      const left = from.total - from.sent;
      const withTrailers = from.streamId % 3 === 0;
      if (left === 0) {
        from.ended = true;
        if (withTrailers) this.connection.sendTrailers(from.stream!, this.connection.encode(["x-t", "1"]));
        else this.connection.endStream(from.stream!);
        return;
      }
      const chunk = new Uint8Array(Math.min(left, 9_000));
      for (let i = 0; i < chunk.length; i++) chunk[i] = byteAt(from.streamId, this.isServer, from.sent + i);
      const last = !withTrailers && chunk.length === left;
      // `sendData` may close the stream and tell so before it returns.
      const taken = this.connection.sendData(from.stream!, chunk, last);
      from.sent += taken;
      if (taken < chunk.length) from.blocked = true;
      else if (last) from.ended = true;
    }
  }

  consume(to: Half, bytes: number): void {
    if (to.closed || bytes === 0) return;
    to.unconsumed -= bytes;
    this.connection.consumed(to.stream!, bytes);
  }

  /** Takes some of the output onto the wire. */
  write(bytes: number): boolean {
    const output = this.connection.output;
    const taken = Math.min(bytes, output.pendingBytes);
    if (taken === 0) return false;
    this.wire.push(output.peek().slice(0, taken));
    output.consume(taken);
    return true;
  }

  private randomTotal(random: Random): number {
    const max = this.grain.totalBytesMax;
    return pick(random, [0, 1, 10, below(random, max / 30), below(random, max / 5), below(random, max)]);
  }

  get quiet(): boolean {
    return this.wire.length === 0 && this.connection.output.pendingBytes === 0;
  }
}

function pair(random: Random): void {
  const grain = below(random, 2) === 0 ? FINE : COARSE;
  const client = new Side(random, false, grain);
  const server = new Side(random, true, grain);
  const streams = 1 + below(random, 6);
  const resets = below(random, 3) === 0;
  let opened = 0;
  for (let turn = 0; turn < 400; turn++) {
    const side = below(random, 2) === 0 ? client : server;
    switch (below(random, 8)) {
      case 0:
        if (opened < streams) {
          opened++;
          client.open(random);
        }
        break;
      case 1:
        for (const half of side.halves.values()) side.consume(half, below(random, half.unconsumed + 1));
        break;
      case 2:
        if (resets && below(random, 10) === 0) for (const half of side.halves.values()) if (below(random, 3) === 0 && !half.closed) reset(side, half);
        break;
      case 3:
        if (below(random, 30) === 0) side.connection.ping();
        break;
      case 4:
      case 5:
        side.write(1 + below(random, below(random, 3) === 0 ? 20 : 30_000));
        break;
      default:
        deliver(random, side, side === client ? server : client);
    }
    check(client, server);
  }
  if (below(random, 2) === 0) (below(random, 2) === 0 ? client : server).connection.goaway(0, "done");
  settle(random, client, server);
  for (const side of [client, server]) {
    for (const half of side.halves.values()) must(half.closed, `stream ${half.streamId} never closed: ${JSON.stringify({ ...half, stream: null })}`);
    must(side.connection.activeStreams === 0 && side.connection.unconsumedTotalBytes === 0, "something is left over");
  }
  for (const [id, half] of client.halves) {
    const other = server.halves.get(id);
    if (half.wasReset || other === undefined || other.wasReset) continue;
    must(half.received === other.total && other.received === half.total, `stream ${id}: ${half.received} of ${other.total}, ${other.received} of ${half.total}`);
  }
}

function reset(side: Side, half: Half): void {
  half.wasReset = true;
  side.connection.reset(half.stream!, ErrorCode.cancel);
}

function deliver(random: Random, from: Side, to: Side): void {
  const piece = from.wire.shift();
  if (piece === undefined) return;
  const size = pick(random, [1, 9, 1 + below(random, 5_000), piece.length, piece.length, piece.length]);
  if (piece.length / size > 300) return to.connection.receive(piece);
  for (let at = 0; at < piece.length; at += size) to.connection.receive(piece.subarray(at, Math.min(piece.length, at + size)));
}

function check(client: Side, server: Side): void {
  must(client.fatal === "" && server.fatal === "", `one engine found fault with the other: client ${client.fatal}; server ${server.fatal}`);
}

/** Everything is consumed and delivered until nothing moves any more. */
function settle(random: Random, client: Side, server: Side): void {
  for (let turn = 0; turn < PAIR_TURNS_MAX; turn++) {
    let moved = false;
    for (const [side, other] of [
      [client, server],
      [server, client],
    ] as const) {
      while (side.write(Number.MAX_SAFE_INTEGER)) moved = true;
      while (side.wire.length > 0) {
        deliver(random, side, other);
        moved = true;
      }
      for (const half of side.halves.values()) {
        if (half.unconsumed > 0 && !half.closed) {
          side.consume(half, half.unconsumed);
          moved = true;
        }
      }
    }
    check(client, server);
    if (!moved && client.quiet && server.quiet) return;
  }
  throw new Error("the pair does not come to rest");
}
