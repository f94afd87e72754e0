// The HTTP/2 connection (RFC 9113), client and server, without IO: bytes in by `receive`, bytes out through `output`, events to one
// handler. It knows no socket, no clock of its own and no meaning of the streams it carries.
//
// Frames are read by a FrameReader and laid out by a FrameWriter, which call back here; those methods are theirs and no caller's.
// What a peer sends never throws: a fatal fault queues GOAWAY, tells the handler once, and all later input is ignored.
// DATA passes through as ranges of the chunk it came in; other frames are put together only when they straddle chunks.
//
// Calls back into the handler happen inside `receive`, `receiveEnd`, `reset`, `goaway`, the sending calls, `output.consume`, and (only
// `onOutput`, for the greeting) the constructor. The handler may call anything on the connection from there, except `receive`.

import type { Blame } from "../../core/fault.ts";
import { Http2Counters } from "./counters.ts";
import { ErrorCode, type FatalCounter, type Http2Error } from "./errors.ts";
import { FloodGuards, FLOOD_COUNTERS, type FloodGuard } from "./flood-guards.ts";
import { FrameReader, type FrameReaderOwner } from "./frame-reader.ts";
import { Flag, FrameType, readUint31, readUint32, SettingId } from "./frames.ts";
import { FrameWriter, type FrameWriterOwner, GOAWAY_FIXED_BYTES, PING_BYTES, RST_STREAM_BYTES, SETTING_BYTES, WINDOW_UPDATE_FRAME_BYTES } from "./frame-writer.ts";
import {
  encodeStaticBlock,
  type HeaderBlock,
  headerBlock,
  type HeaderFacts,
  type HeaderList,
  LENGTH_UNKNOWN,
  newHeaderFacts,
  validateRequest,
  validateResponse,
  validateTrailers,
} from "./headers.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import {
  ASSUMED_CONCURRENT_STREAMS,
  assertLimits,
  DEFAULT_HEADER_TABLE_BYTES,
  DEFAULT_LIMITS,
  DEFAULT_WINDOW_BYTES,
  FRAME_BYTES_MAX,
  FRAME_BYTES_MIN,
  type Http2Limits,
  type LocalSettings,
  STREAM_ID_MAX,
  WINDOW_BYTES_MAX,
  WINDOW_UPDATE_BYTES,
  WINDOW_UPDATES_PER_DATA_FRAME,
} from "./limits.ts";
import { ByteRange } from "../http/byte-range.ts";
import type { OutputBuffer } from "../http/output-buffer.ts";
import { Http2Stream, StreamState, Waiting, WaitingQueue } from "./stream.ts";

export { Http2Counters } from "./counters.ts";
export { ErrorCode, errorName, type Http2Error } from "./errors.ts";
export { encodeStaticBlock, HeaderBlock, headerBlock, type HeaderList, headerValue, headerValues } from "./headers.ts";
export { DEFAULT_LIMITS, DEFAULT_SETTINGS, type Http2Limits, type LocalSettings } from "./limits.ts";
export type { OutputBuffer } from "../http/output-buffer.ts";
export { Http2Stream, StreamState } from "./stream.ts";

export type ResetBy = "peer" | "us" | "connection";

export interface Http2Handler {
  /** Server: a valid request. With `endStream` no body follows. */
  onRequest(stream: Http2Stream, headers: HeaderList, endStream: boolean): void;
  /** Client: the final response. */
  onResponse(stream: Http2Stream, headers: HeaderList, endStream: boolean): void;
  /** Client: a 1xx before it. */
  onInformational(stream: Http2Stream, headers: HeaderList): void;
  /** `body` lies in what `receive` was given: copy what must outlive the call. Return the credit with `consumed`. */
  onData(stream: Http2Stream, body: ByteRange, endStream: boolean): void;
  /** The last thing a stream says. */
  onTrailers(stream: Http2Stream, headers: HeaderList): void;
  /** After `sendData` took less than offered: go on. */
  onSendable(stream: Http2Stream): void;
  /** The stream died early: the peer's RST_STREAM, our own finding ("us"; not after a call of `reset`), or with the connection. */
  onReset(stream: Http2Stream, code: number, by: ResetBy): void;
  /** Exactly once for every stream that was announced or opened, and last. */
  onClosed(stream: Http2Stream): void;
  /** The peer's SETTINGS, the first and later ones, are in force. */
  onSettings(): void;
  /** The peer opens no new streams of ours; those above `lastStreamId` were reset with REFUSED_STREAM before: safe to repeat elsewhere. */
  onGoaway(lastStreamId: number, code: number, debug: string): void;
  onPong(): void;
  /** Once, before the streams are reset: so that whoever tears down knows the first cause. The GOAWAY is in `output`. */
  onFatal(error: Http2Error): void;
  /** `output` went from empty to not empty; for the first time inside the constructor. Schedule one flush per turn. */
  onOutput(): void;
}

export interface Http2Options {
  readonly role: "client" | "server";
  readonly settings: LocalSettings;
  readonly limits?: Http2Limits;
  readonly handler: Http2Handler;
  /** Monotonic. Asked only when a limit runs dry or a sender starts to wait. */
  readonly nowMs: () => number;
}

const NO_BYTES = new Uint8Array(0);
const REQUEST_TOO_LARGE = encodeStaticBlock([":status", "431", "content-length", "0"]);
/** First bytes of our PINGs: who asked. */
const PING_BY_CALLER = 0x75;
const PING_BY_GOAWAY = 0x67;
/** Fixed by the RFC, section 6.3. */
const PRIORITY_BYTES = 5;

export class Http2Connection implements FrameReaderOwner, FrameWriterOwner {
  readonly output: OutputBuffer;
  readonly counters = new Http2Counters();
  readonly role: "client" | "server";

  private readonly isServer: boolean;
  private readonly handler: Http2Handler;
  private readonly settings: LocalSettings;
  private readonly limits: Http2Limits;
  private readonly nowMs: () => number;
  private readonly streams = new Map<number, Http2Stream>();
  private readonly recentResets = new Set<number>();
  private readonly reader: FrameReader;
  private readonly writer: FrameWriter;
  private readonly guards: FloodGuards;
  private readonly decoder: HpackDecoder;
  private readonly facts: HeaderFacts = newHeaderFacts();

  /** DATA under way: its stream, or null where it is dropped. */
  private dataStream: Http2Stream | null = null;
  /** What the handler is given of it; empty between two calls. */
  private readonly body = new ByteRange();
  private sawSettings = false;

  // A header block under way
  private blockStreamId = 0;
  private blockMs = 0;
  private blockEndStream = false;
  private blockSelfDependent = false;
  private blockFrames = 0;
  private block: Buffer | null = null;
  private blockBytes = 0;
  private readonly blockBytesMax: number;

  // The peer's settings
  private peerInitialWindowBytes = DEFAULT_WINDOW_BYTES;
  private peerMaxStreams = ASSUMED_CONCURRENT_STREAMS;
  private peerConnectProtocol = false;

  // Ours
  private settingsAcked = false;
  private initialReceiveWindowBytes: number;

  // Windows of the connection
  private sendWindowBytes = DEFAULT_WINDOW_BYTES;
  private receiveWindowBytes = DEFAULT_WINDOW_BYTES;
  private unconsumedBytes = 0;
  private readonly queue = new WaitingQueue();
  private serving = false;

  // Stream numbers and ends
  private nextStreamId: number;
  private lastPeerStreamId = 0;
  private dead = false;
  private goawaySent = false;
  private goawayLastId = STREAM_ID_MAX;
  private goawayPinging = false;
  private goawayDebug = "";
  private peerGoawayLastId = STREAM_ID_MAX;
  private peerGoaway = false;
  private pinging = false;

  constructor(options: Http2Options) {
    const limits = options.limits ?? DEFAULT_LIMITS;
    assertLimits(options.settings, limits);
    this.role = options.role;
    this.isServer = options.role === "server";
    this.handler = options.handler;
    this.settings = options.settings;
    this.limits = limits;
    this.nowMs = options.nowMs;
    this.decoder = new HpackDecoder(options.settings.maxHeaderListBytes);
    this.decoder.setLimit(Math.max(DEFAULT_HEADER_TABLE_BYTES, options.settings.headerTableSizeBytes));
    this.blockBytesMax = options.settings.maxHeaderListBytes * limits.encodedHeaderBlockRatioMax;
    this.initialReceiveWindowBytes = Math.max(DEFAULT_WINDOW_BYTES, options.settings.initialWindowBytes);
    this.nextStreamId = this.isServer ? 2 : 1;
    this.guards = new FloodGuards(limits, options.nowMs);
    this.reader = new FrameReader(this, this.isServer, options.nowMs);
    this.writer = new FrameWriter(limits, this);
    this.output = this.writer.output;
    this.greet();
  }

  // ── What callers ask ──────────────────────────────────────────────────────────────────────────────────────────────────────

  get activeStreams(): number {
    return this.streams.size;
  }

  /** Since when the peer has been sending a header block or a control frame that is kept until it is whole; Infinity when it is not. */
  get partSinceMs(): number {
    return this.blockStreamId === 0 ? this.reader.keepsSinceMs : this.blockMs;
  }

  /** What the peer allows us to have open; the RFC's recommended least until it has said so. */
  get remoteMaxConcurrentStreams(): number {
    return this.peerMaxStreams;
  }

  /** The peer takes extended CONNECT (RFC 8441). */
  get remoteConnectProtocol(): boolean {
    return this.peerConnectProtocol;
  }

  get remoteSettingsSeen(): boolean {
    return this.sawSettings;
  }

  get canRequest(): boolean {
    return (
      !this.dead &&
      !this.isServer &&
      !this.goawaySent &&
      !this.peerGoaway &&
      this.streams.size < this.peerMaxStreams &&
      this.nextStreamId <= STREAM_ID_MAX &&
      this.output.pendingBytes < this.limits.outputBytesMax / 2
    );
  }

  /** Nothing more will be said or heard: a fatal fault, or the transport ended. */
  get closed(): boolean {
    return this.dead;
  }

  /** A GOAWAY went or came, and the last stream is gone: the transport may be closed once `output` is empty. */
  get drained(): boolean {
    return this.dead || ((this.goawaySent || this.peerGoaway) && !this.goawayPinging && this.streams.size === 0);
  }

  get connectionSendWindowBytes(): number {
    return this.sendWindowBytes;
  }

  /** Bytes given to `onData` and not consumed, over all streams. */
  get unconsumedTotalBytes(): number {
    return this.unconsumedBytes;
  }

  /** Since when the longest-waiting sender waits, or null: a zero-window stall seen from outside. Walks all streams. */
  oldestWaitSinceMs(): number | null {
    let oldest: number | null = null;
    for (const stream of this.streams.values()) {
      if (stream.waiting === Waiting.nothing) continue;
      if (oldest === null || stream.waitingSinceMs < oldest) oldest = stream.waitingSinceMs;
    }
    return oldest;
  }

  /** Every open stream, for shutdown and introspection. */
  openStreams(): IterableIterator<Http2Stream> {
    return this.streams.values();
  }

  // ── Sending ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** See `headerBlock`. */
  encode(fields: readonly string[]): HeaderBlock {
    return headerBlock(fields);
  }

  /** Client: opens a stream. Null when none may be opened now: the peer's maximum, GOAWAY, numbers used up, output full, closed. */
  request(block: HeaderBlock, endStream: boolean): Http2Stream | null {
    if (!this.canRequest) return null;
    const id = this.nextStreamId;
    const state = endStream ? StreamState.halfClosedLocal : StreamState.open;
    const stream = new Http2Stream(id, state, this.peerInitialWindowBytes, this.initialReceiveWindowBytes, block.isConnect, block.isHead);
    this.nextStreamId = id + 2;
    this.writer.headers(id, block, endStream);
    if (this.dead) return null;
    this.streams.set(id, stream);
    this.counters.streamsOpened++;
    return stream;
  }

  /** Server: a 1xx or the final response. Does nothing on a stream that can no longer send. */
  respond(stream: Http2Stream, block: HeaderBlock, endStream: boolean): void {
    if (this.dead || !stream.canSend) return;
    if (!this.isServer || stream.hasFinalResponse) throw new Error("http2: respond on a client or after the final response");
    if (block.status < 200) {
      if (endStream || block.status === 0) throw new Error("http2: a response needs a :status, and 1xx cannot end it");
      this.writer.headers(stream.id, block, false);
      return;
    }
    stream.hasFinalResponse = true;
    if (stream.isConnect && block.status < 300) stream.isTunnel = true;
    this.writer.headers(stream.id, block, endStream);
    if (endStream) this.endLocal(stream);
  }

  /**
   * Queues as much of `chunk` as the windows and the output buffer take, as DATA frames; copies. END_STREAM is set only when all
   * was taken. When it returns less than `chunk.length`, keep the rest and offer it again in `onSendable`.
   * On a stream that can no longer send: 0, and no `onSendable` follows.
   */
  sendData(stream: Http2Stream, chunk: Uint8Array, endStream: boolean): number {
    if (this.dead || !stream.canSend) return 0;
    if (this.isServer && !stream.hasFinalResponse) throw new Error("http2: data before the response");
    const length = chunk.length;
    if (length === 0) {
      if (endStream) this.endStream(stream);
      return 0;
    }
    const take = this.sendable(stream, length);
    if (take > 0) this.writeData(stream, chunk, take, endStream && take === length);
    if (take < length) this.wait(stream);
    else if (endStream) this.endLocal(stream);
    return take;
  }

  /** Ends our half with trailers. All data must have been taken before. */
  sendTrailers(stream: Http2Stream, block: HeaderBlock): void {
    if (this.dead || !stream.canSend) return;
    if (stream.isTunnel) throw new Error("http2: a CONNECT tunnel has no trailers");
    this.writer.headers(stream.id, block, true);
    this.endLocal(stream);
  }

  /** Ends our half without more bytes. */
  endStream(stream: Http2Stream): void {
    if (this.dead || !stream.canSend) return;
    this.counters.dataFramesSent++;
    this.writer.data(stream.id, NO_BYTES, 0, true);
    this.endLocal(stream);
  }

  /** The application took `bytes` that `onData` gave it: the peer may send as many more. Nothing on a closed stream. */
  consumed(stream: Http2Stream, bytes: number): void {
    if (this.dead || stream.state === StreamState.closed) return;
    if (bytes < 0 || bytes > stream.unconsumedBytes) throw new RangeError(`http2: consumed ${bytes} of ${stream.unconsumedBytes} bytes on stream ${stream.id}`);
    stream.unconsumedBytes -= bytes;
    this.unconsumedBytes -= bytes;
    this.creditStream(stream);
    this.creditConnection();
  }

  /** `unconsumedBytesMax` was raised: gives the connection's window back if it was held back. */
  creditAgain(): void {
    if (!this.dead) this.creditConnection();
  }

  /** Ends the stream at once. `onClosed` follows, `onReset` does not: the caller knows. */
  reset(stream: Http2Stream, code: number): void {
    if (this.dead || stream.state === StreamState.closed) return;
    this.writeReset(stream.id, code);
    this.close(stream);
  }

  /** One PING; `onPong` answers. A second one while the first is out is not sent. */
  ping(): void {
    if (this.dead || this.pinging) return;
    this.pinging = true;
    this.writer.ping(PING_BY_CALLER);
  }

  /**
   * No new streams. Code 0 is graceful: open streams go on; a server first announces, asks for a PING and then names the last stream,
   * so that requests already on the way are still served. Any other code ends the connection here and now.
   */
  goaway(code: number, debug: string): void {
    if (this.dead) return;
    if (code !== ErrorCode.noError) {
      this.fatal(code, "localErrors", debug, "us");
      return;
    }
    if (this.goawaySent) return;
    this.goawaySent = true;
    this.goawayDebug = debug;
    if (this.isServer) {
      this.writer.goaway(STREAM_ID_MAX, code, debug);
      this.goawayPinging = true;
      this.writer.ping(PING_BY_GOAWAY);
    } else {
      this.goawayLastId = 0;
      this.writer.goaway(0, code, debug);
    }
  }

  // ── Receiving ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Bytes from the peer, in order, in any cut. Borrowed for the call. */
  receive(chunk: Uint8Array): void {
    this.reader.receive(chunk);
  }

  /** The transport ended. Every open stream is reset and closed; the connection says no more. */
  receiveEnd(): void {
    if (this.dead) return;
    this.die();
    this.closeAll(ErrorCode.cancel);
  }

  prefaceFailed(): void {
    this.fatal(ErrorCode.protocolError, "badPreface", "the client preface is not that of HTTP/2", "peer");
  }

  /** Judges a frame by its header alone and chooses how its payload is read. */
  frameBegan(): void {
    const { length, type, flags, streamId } = this.reader;
    if (length > this.settings.maxFrameBytes) {
      return this.fatal(ErrorCode.frameSizeError, "frameSizeErrors", `a frame of ${length} bytes; at most ${this.settings.maxFrameBytes} were announced`, "peer");
    }
    if (!this.sawSettings && (type !== FrameType.settings || (flags & Flag.ack) !== 0)) {
      const [counter, what] = this.isServer ? (["protocolErrors", "client"] as const) : (["badPreface", "server"] as const);
      return this.fatal(ErrorCode.protocolError, counter, `the ${what}'s first frame is not SETTINGS`, "peer");
    }
    if (this.blockStreamId !== 0 && (type !== FrameType.continuation || streamId !== this.blockStreamId)) {
      return this.protocolError("a frame between HEADERS and its CONTINUATION");
    }
    switch (type) {
      case FrameType.data:
        return this.beginData();
      case FrameType.headers:
        return this.beginHeaders();
      case FrameType.continuation:
        return this.beginContinuation();
      case FrameType.windowUpdate:
        return this.beginFixed(WINDOW_UPDATE_FRAME_BYTES, "WINDOW_UPDATE");
      case FrameType.rstStream:
        if (streamId === 0) return this.protocolError("RST_STREAM on stream 0");
        return this.beginFixed(RST_STREAM_BYTES, "RST_STREAM");
      case FrameType.ping:
        if (streamId !== 0) return this.protocolError("PING on a stream");
        return this.beginFixed(PING_BYTES, "PING");
      case FrameType.priority:
        return this.beginPriority();
      case FrameType.settings:
        return this.beginSettings();
      case FrameType.goaway:
        if (streamId !== 0) return this.protocolError("GOAWAY on a stream");
        if (length < GOAWAY_FIXED_BYTES) return this.frameSizeError("GOAWAY");
        return this.reader.keep(GOAWAY_FIXED_BYTES + this.limits.goawayDebugBytesMax);
      case FrameType.pushPromise:
        return this.protocolError("PUSH_PROMISE, which was not allowed");
      default:
        this.counters.unknownFrames++;
        if (!this.allow("unknownFrames", "frames of unknown types")) return;
        this.reader.skip();
    }
  }

  private beginFixed(bytes: number, name: string): void {
    if (this.reader.length !== bytes) return this.frameSizeError(name);
    this.reader.keep(bytes);
  }

  private beginPriority(): void {
    if (this.reader.streamId === 0) return this.protocolError("PRIORITY on stream 0");
    this.counters.prioritiesReceived++;
    if (!this.allow("priorities", "PRIORITY frames")) return;
    if (this.reader.length !== PRIORITY_BYTES) {
      const stream = this.streams.get(this.reader.streamId);
      if (stream === undefined) return this.frameSizeError("PRIORITY");
      this.streamError(stream, ErrorCode.frameSizeError);
      if (this.dead) return;
      return this.reader.skip();
    }
    this.reader.keep(PRIORITY_BYTES);
  }

  private beginSettings(): void {
    if (this.reader.streamId !== 0) return this.protocolError("SETTINGS on a stream");
    const isAck = (this.reader.flags & Flag.ack) !== 0;
    if (isAck ? this.reader.length !== 0 : this.reader.length % SETTING_BYTES !== 0) return this.frameSizeError("SETTINGS");
    if (!isAck) {
      this.counters.settingsReceived++;
      const entries = this.reader.length / SETTING_BYTES;
      if (entries > this.limits.settingsEntriesMax) {
        return this.fatal(ErrorCode.enhanceYourCalm, "settingsFloods", `${entries} settings in one frame; at most ${this.limits.settingsEntriesMax} are read`, "peer");
      }
      if (!this.allow("settingsFrames", "SETTINGS frames")) return;
    }
    this.reader.keep(this.reader.length);
  }

  frameEnded(bytes: Uint8Array, start: number, end: number): void {
    switch (this.reader.type) {
      case FrameType.headers:
        return this.endHeaders(bytes, start, end);
      case FrameType.continuation:
        return this.appendBlock(bytes, start, end);
      case FrameType.windowUpdate:
        return this.onWindowUpdate(readUint31(bytes, start));
      case FrameType.rstStream:
        return this.onRstStream(readUint32(bytes, start));
      case FrameType.ping:
        return this.onPing(bytes, start);
      case FrameType.priority:
        if (readUint31(bytes, start) === this.reader.streamId) this.onSelfDependency();
        return;
      case FrameType.settings:
        return this.onSettings(bytes, start, end);
      case FrameType.goaway:
        return this.onGoaway(bytes, start, end);
      default:
        return;
    }
  }

  // ── DATA ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  private beginData(): void {
    const length = this.reader.length;
    const id = this.reader.streamId;
    if (id === 0) return this.protocolError("DATA on stream 0");
    this.counters.dataFramesReceived++;
    if (length > this.receiveWindowBytes) {
      return this.fatal(ErrorCode.flowControlError, "flowControlErrors", `DATA of ${length} bytes; the connection's window had ${this.receiveWindowBytes}`, "peer");
    }
    this.receiveWindowBytes -= length;
    this.dataStream = this.judgeData(id, length);
    if (this.dead) return;
    if ((this.reader.flags & Flag.padded) !== 0) {
      if (length === 0) return this.frameSizeError("padded DATA");
      return this.reader.padding();
    }
    this.startBody(length, 0);
  }

  /** The stream that takes this DATA, or null when it must be dropped; a stream error is then already out. */
  private judgeData(id: number, length: number): Http2Stream | null {
    const stream = this.streams.get(id);
    if (stream === undefined) {
      this.onLateFrame(id, "DATA");
      return null;
    }
    if (!stream.canReceive) {
      this.counters.closedStreamErrors++;
      this.streamError(stream, ErrorCode.streamClosed);
      return null;
    }
    if (!this.isServer && !stream.hasFinalResponse) {
      this.malformed(stream);
      return null;
    }
    if (length > stream.receiveWindowBytes) {
      this.counters.flowControlErrors++;
      this.streamError(stream, ErrorCode.flowControlError);
      return null;
    }
    stream.receiveWindowBytes -= length;
    return stream;
  }

  paddingRead(padLength: number): void {
    const body = this.reader.length - 1 - padLength;
    if (body < 0) return this.protocolError(`padding of ${padLength} bytes in a frame of ${this.reader.length}`);
    this.startBody(body, padLength);
  }

  private startBody(body: number, padding: number): void {
    const endStream = (this.reader.flags & Flag.endStream) !== 0;
    if (body === 0 && !endStream) {
      this.counters.emptyFrames++;
      if (!this.allow("emptyFrames", "frames without content")) return;
    }
    const stream = this.dataStream;
    if (stream !== null) {
      stream.receivedBodyBytes += body;
      const declared = stream.contentLength;
      if (declared !== LENGTH_UNKNOWN && (stream.receivedBodyBytes > declared || (endStream && stream.receivedBodyBytes !== declared))) {
        this.malformed(stream);
        if (this.dead) return;
        this.dataStream = null;
      } else {
        stream.unconsumedBytes += body;
        this.unconsumedBytes += body;
        // Padding and its length byte are nobody's to consume.
        if ((this.reader.flags & Flag.padded) !== 0) this.creditStream(stream);
      }
    }
    this.creditConnection();
    this.reader.body(body, padding);
  }

  bodyRead(chunk: Uint8Array, start: number, end: number, isLast: boolean): void {
    const stream = this.dataStream;
    if (stream === null || stream.state === StreamState.closed) return;
    this.counters.dataBytesReceived += end - start;
    this.body.set(chunk, start, end);
    if (isLast && (this.reader.flags & Flag.endStream) !== 0) this.deliverLast(stream);
    else this.handler.onData(stream, this.body, false);
    this.body.clear();
  }

  /** The frame ended without bytes to go with its END_STREAM. */
  bodyEnded(): void {
    const stream = this.dataStream;
    if (stream !== null && stream.state !== StreamState.closed && (this.reader.flags & Flag.endStream) !== 0) this.deliverLast(stream);
  }

  /** With what `body` has. */
  private deliverLast(stream: Http2Stream): void {
    const wasLocalEnded = this.endRemote(stream);
    this.handler.onData(stream, this.body, true);
    if (wasLocalEnded && stream.state !== StreamState.closed) this.close(stream);
  }

  // ── HEADERS and CONTINUATION ──────────────────────────────────────────────────────────────────────────────────────────────

  private beginHeaders(): void {
    const id = this.reader.streamId;
    if (id === 0) return this.protocolError("HEADERS on stream 0");
    if (this.reader.length > this.blockBytesMax + 256 + PRIORITY_BYTES + 1) return this.blockTooLarge(this.reader.length);
    this.reader.keep(this.reader.length);
  }

  private beginContinuation(): void {
    if (this.blockStreamId === 0) return this.protocolError("CONTINUATION without HEADERS");
    this.blockFrames++;
    if (this.blockFrames > this.limits.continuationFramesMax) {
      return this.fatal(ErrorCode.enhanceYourCalm, "continuationFloods", `more than ${this.limits.continuationFramesMax} CONTINUATION frames for one header block`, "peer");
    }
    if (this.reader.length === 0 && (this.reader.flags & Flag.endHeaders) === 0) {
      this.counters.emptyFrames++;
      if (!this.allow("emptyFrames", "frames without content")) return;
    }
    if (this.blockBytes + this.reader.length > this.blockBytesMax) return this.blockTooLarge(this.blockBytes + this.reader.length);
    this.reader.keep(this.reader.length);
  }

  private blockTooLarge(bytes: number): void {
    const message = `a header block of ${bytes} bytes or more; at most ${this.blockBytesMax} are read, for lists of ${this.settings.maxHeaderListBytes}`;
    this.fatal(ErrorCode.enhanceYourCalm, "headerBlockTooLarge", message, "peer");
  }

  private endHeaders(bytes: Uint8Array, from: number, to: number): void {
    const flags = this.reader.flags;
    let start = from;
    let end = to;
    if ((flags & Flag.padded) !== 0) {
      if (start >= end) return this.frameSizeError("padded HEADERS");
      const padding = bytes[start++]!;
      if (padding > end - start) return this.protocolError(`padding of ${padding} bytes in a HEADERS frame of ${to - from}`);
      end -= padding;
    }
    this.blockSelfDependent = false;
    if ((flags & Flag.priority) !== 0) {
      if (end - start < PRIORITY_BYTES) return this.frameSizeError("HEADERS with priority");
      this.blockSelfDependent = readUint31(bytes, start) === this.reader.streamId;
      start += PRIORITY_BYTES;
    }
    this.blockStreamId = this.reader.streamId;
    this.blockEndStream = (flags & Flag.endStream) !== 0;
    this.blockFrames = 0;
    this.blockBytes = 0;
    if (end - start > this.blockBytesMax) return this.blockTooLarge(end - start);
    if ((flags & Flag.endHeaders) !== 0) return this.onBlock(bytes, start, end);
    this.blockMs = this.nowMs();
    if (end === start) {
      this.counters.emptyFrames++;
      if (!this.allow("emptyFrames", "frames without content")) return;
    }
    this.appendBlock(bytes, start, end);
  }

  /** Keeps a fragment; with END_HEADERS the block is whole. */
  private appendBlock(bytes: Uint8Array, start: number, end: number): void {
    const need = this.blockBytes + (end - start);
    if (this.block === null || this.block.length < need) {
      const grown = Buffer.allocUnsafe(Math.min(this.blockBytesMax, Math.max(1024, need * 2)));
      if (this.block !== null) grown.set(this.block.subarray(0, this.blockBytes));
      this.block = grown;
    }
    this.block.set(bytes.subarray(start, end), this.blockBytes);
    this.blockBytes = need;
    if ((this.reader.flags & Flag.endHeaders) === 0) return;
    const block = this.block;
    this.block = null;
    this.onBlock(block, 0, need);
  }

  /** A whole header block. It is always decoded, whatever becomes of its stream: the table must stay in step. */
  private onBlock(bytes: Uint8Array, start: number, end: number): void {
    const id = this.blockStreamId;
    this.blockStreamId = 0;
    this.blockBytes = 0;
    const list = this.decoder.decode(bytes, start, end);
    if (list === null) return this.fatal(ErrorCode.compressionError, "compressionErrors", `HPACK: ${this.decoder.error}`, "peer");
    const stream = this.streams.get(id);
    if (stream !== undefined) {
      if (!stream.canReceive) {
        this.counters.closedStreamErrors++;
        return this.streamError(stream, ErrorCode.streamClosed);
      }
      if (this.blockSelfDependent) return this.streamError(stream, ErrorCode.protocolError);
      if (this.decoder.listTooLarge) return this.listTooLarge(stream);
      if (this.isServer || stream.hasFinalResponse) return this.onTrailers(stream, list);
      return this.onResponse(stream, list);
    }
    if (this.isServer && (id & 1) === 1 && id > this.lastPeerStreamId) return this.onNewStream(id, list);
    if (this.isServer && (id & 1) === 0) return this.protocolError(`HEADERS on stream ${id}, which a client cannot open`);
    this.onLateFrame(id, "HEADERS");
  }

  private onNewStream(id: number, list: HeaderList): void {
    this.lastPeerStreamId = id;
    if (id > this.goawayLastId || this.streams.size >= this.settings.maxConcurrentStreams) {
      this.counters.refusedStreams++;
      if (!this.allow("refusedStreams", `streams above the maximum of ${this.settings.maxConcurrentStreams}`)) return;
      this.writeReset(id, ErrorCode.refusedStream);
      return;
    }
    if (this.decoder.listTooLarge) {
      this.counters.headerListsTooLarge++;
      if (!this.countInducedReset()) return;
      this.writer.headers(id, REQUEST_TOO_LARGE, true);
      this.writeReset(id, ErrorCode.noError);
      return;
    }
    let fault = this.blockSelfDependent ? "a stream that depends on itself" : this.decoder.malformed;
    if (fault === "") fault = validateRequest(list, this.settings.enableConnectProtocol, this.facts);
    if (fault === "" && this.blockEndStream && this.facts.contentLength > 0) fault = "content-length without a body";
    if (fault !== "") {
      this.counters.malformedMessages++;
      if (this.countInducedReset()) this.writeReset(id, ErrorCode.protocolError);
      return;
    }
    const state = this.blockEndStream ? StreamState.halfClosedRemote : StreamState.open;
    const stream = new Http2Stream(id, state, this.peerInitialWindowBytes, this.initialReceiveWindowBytes, this.facts.isConnect, this.facts.isHead);
    stream.contentLength = this.facts.contentLength;
    this.streams.set(id, stream);
    this.counters.streamsOpened++;
    this.handler.onRequest(stream, list, this.blockEndStream);
  }

  private onResponse(stream: Http2Stream, list: HeaderList): void {
    const endStream = this.blockEndStream;
    const facts = this.facts;
    let fault = this.decoder.malformed;
    if (fault === "") fault = validateResponse(list, facts);
    if (fault === "" && facts.status < 200 && endStream) fault = "an informational response that ends the stream";
    if (fault !== "") return this.malformed(stream);
    if (facts.status < 200) {
      if (++stream.informationalCount > this.limits.informationalResponsesMax) return this.streamError(stream, ErrorCode.enhanceYourCalm);
      return this.handler.onInformational(stream, list);
    }
    stream.hasFinalResponse = true;
    if (stream.isConnect && facts.status < 300) stream.isTunnel = true;
    else if (stream.isHead || facts.status === 204 || facts.status === 304) stream.contentLength = 0;
    else stream.contentLength = facts.contentLength;
    if (endStream && stream.contentLength > 0) return this.malformed(stream);
    if (!endStream) return this.handler.onResponse(stream, list, false);
    const wasLocalEnded = this.endRemote(stream);
    this.handler.onResponse(stream, list, true);
    if (wasLocalEnded && stream.state !== StreamState.closed) this.close(stream);
  }

  private onTrailers(stream: Http2Stream, list: HeaderList): void {
    let fault = this.decoder.malformed;
    if (fault === "" && stream.isTunnel) fault = "HEADERS inside a CONNECT tunnel";
    if (fault === "" && !this.blockEndStream) fault = "HEADERS after the first that do not end the stream";
    if (fault === "") fault = validateTrailers(list, this.facts);
    if (fault === "" && stream.contentLength !== LENGTH_UNKNOWN && stream.receivedBodyBytes !== stream.contentLength) fault = "content-length differs from the body";
    if (fault !== "") return this.malformed(stream);
    const wasLocalEnded = this.endRemote(stream);
    this.handler.onTrailers(stream, list);
    if (wasLocalEnded && stream.state !== StreamState.closed) this.close(stream);
  }

  /** Their half ended. True: ours had too, and the stream closes once the handler was told. */
  private endRemote(stream: Http2Stream): boolean {
    if (stream.state === StreamState.halfClosedLocal) return true;
    stream.state = StreamState.halfClosedRemote;
    return false;
  }

  private listTooLarge(stream: Http2Stream): void {
    this.counters.headerListsTooLarge++;
    this.streamError(stream, ErrorCode.enhanceYourCalm);
  }

  // ── Other frames ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  private onWindowUpdate(increment: number): void {
    this.counters.windowUpdatesReceived++;
    if (!this.allow("windowUpdates", "WINDOW_UPDATE frames that no DATA had earned")) return;
    const id = this.reader.streamId;
    if (id === 0) {
      if (increment === 0) return this.protocolError("WINDOW_UPDATE of 0 on the connection");
      if (this.sendWindowBytes + increment > WINDOW_BYTES_MAX) {
        return this.fatal(ErrorCode.flowControlError, "flowControlErrors", "WINDOW_UPDATE raises the connection's window above 2^31-1", "peer");
      }
      this.sendWindowBytes += increment;
      return this.serve();
    }
    const stream = this.streams.get(id);
    if (stream === undefined) {
      // Allowed for a while after a stream closed (RFC 9113, section 5.1), never before it began.
      if (this.isIdle(id)) this.protocolError(`WINDOW_UPDATE on stream ${id}, which is idle`);
      return;
    }
    if (increment === 0) return this.streamError(stream, ErrorCode.protocolError);
    if (stream.sendWindowBytes + increment > WINDOW_BYTES_MAX) {
      this.counters.flowControlErrors++;
      return this.streamError(stream, ErrorCode.flowControlError);
    }
    stream.sendWindowBytes += increment;
    this.streamWindowOpened(stream);
    this.serve();
  }

  private onRstStream(code: number): void {
    const id = this.reader.streamId;
    const stream = this.streams.get(id);
    if (stream === undefined) {
      if (this.isIdle(id)) return this.protocolError(`RST_STREAM on stream ${id}, which is idle`);
      this.allow("peerResets", "RST_STREAM frames");
      return;
    }
    this.counters.resetsReceived++;
    if (!this.allow("peerResets", "RST_STREAM frames")) return;
    if (this.isServer && !stream.hasFinalResponse) {
      this.counters.prematureResets++;
      if (!this.allow("prematureResets", "streams reset before they were answered")) return;
    }
    this.closeReset(stream, code, "peer");
  }

  private onPing(bytes: Uint8Array, at: number): void {
    if ((this.reader.flags & Flag.ack) !== 0) return this.onPingAck(bytes[at]!);
    this.counters.pingsReceived++;
    if (!this.allow("pings", "PING frames")) return;
    this.writer.pingAck(bytes, at);
  }

  private onPingAck(asker: number): void {
    if (asker === PING_BY_CALLER && this.pinging) {
      this.pinging = false;
      return this.handler.onPong();
    }
    if (asker === PING_BY_GOAWAY && this.goawayPinging) {
      this.goawayPinging = false;
      this.goawayLastId = this.lastPeerStreamId;
      return this.writer.goaway(this.goawayLastId, ErrorCode.noError, this.goawayDebug);
    }
    this.allow("pings", "PING acknowledgements that nobody asked for");
  }

  private onSelfDependency(): void {
    const stream = this.streams.get(this.reader.streamId);
    if (stream !== undefined) return this.streamError(stream, ErrorCode.protocolError);
    // RST_STREAM must not be sent for an idle stream, so there the whole connection answers; what was closed stays closed.
    if (this.isIdle(this.reader.streamId)) this.protocolError(`stream ${this.reader.streamId} depends on itself`);
  }

  private onSettings(bytes: Uint8Array, start: number, end: number): void {
    if ((this.reader.flags & Flag.ack) !== 0) return this.onSettingsAck();
    // No word about streams in the first SETTINGS means no limit; what the callers want then decides.
    if (!this.sawSettings) this.peerMaxStreams = WINDOW_BYTES_MAX;
    this.sawSettings = true;
    for (let at = start; at < end; at += SETTING_BYTES) {
      this.applySetting((bytes[at]! << 8) | bytes[at + 1]!, readUint32(bytes, at + 2));
      if (this.dead) return;
    }
    this.writer.settingsAck();
    if (this.dead) return;
    this.handler.onSettings();
    this.serve();
  }

  private applySetting(id: number, value: number): void {
    switch (id) {
      case SettingId.headerTableSize:
        this.writer.encoder.setLimit(value);
        return;
      case SettingId.enablePush:
        if (value > 1 || (value === 1 && !this.isServer)) this.protocolError(`SETTINGS_ENABLE_PUSH of ${value}`);
        return;
      case SettingId.maxConcurrentStreams:
        this.peerMaxStreams = value;
        return;
      case SettingId.initialWindowSize:
        return this.applyInitialWindow(value);
      case SettingId.maxFrameSize:
        if (value < FRAME_BYTES_MIN || value > FRAME_BYTES_MAX) return this.protocolError(`SETTINGS_MAX_FRAME_SIZE of ${value}`);
        this.writer.frameBytesMax = value;
        return;
      case SettingId.maxHeaderListSize:
        return; // advice, which nobody here asks for
      case SettingId.enableConnectProtocol:
        if (value > 1 || (value === 0 && this.peerConnectProtocol)) return this.protocolError(`SETTINGS_ENABLE_CONNECT_PROTOCOL of ${value}`);
        this.peerConnectProtocol = value === 1;
        return;
      case SettingId.noRfc7540Priorities:
        if (value > 1) this.protocolError(`SETTINGS_NO_RFC7540_PRIORITIES of ${value}`);
        return;
      default:
        return;
    }
  }

  /** Moves every open stream's window by the difference; it may go below zero (RFC 9113, section 6.9.2). */
  private applyInitialWindow(value: number): void {
    if (value > WINDOW_BYTES_MAX) return this.fatal(ErrorCode.flowControlError, "flowControlErrors", `SETTINGS_INITIAL_WINDOW_SIZE of ${value}`, "peer");
    const difference = value - this.peerInitialWindowBytes;
    this.peerInitialWindowBytes = value;
    if (difference === 0) return;
    for (const stream of this.streams.values()) {
      stream.sendWindowBytes += difference;
      if (stream.sendWindowBytes > WINDOW_BYTES_MAX) {
        return this.fatal(ErrorCode.flowControlError, "flowControlErrors", `SETTINGS_INITIAL_WINDOW_SIZE of ${value} raises a window above 2^31-1`, "peer");
      }
      if (difference > 0) this.streamWindowOpened(stream);
    }
  }

  private onSettingsAck(): void {
    if (this.settingsAcked) {
      this.allow("settingsFrames", "SETTINGS acknowledgements that nobody asked for");
      return;
    }
    this.settingsAcked = true;
    this.decoder.setLimit(this.settings.headerTableSizeBytes);
    const difference = this.settings.initialWindowBytes - this.initialReceiveWindowBytes;
    this.initialReceiveWindowBytes = this.settings.initialWindowBytes;
    if (difference === 0) return;
    for (const stream of this.streams.values()) {
      stream.receiveWindowBytes += difference;
      // What was consumed under the larger window may now be due, and no later byte would ask for it.
      this.creditStream(stream);
    }
  }

  private onGoaway(bytes: Uint8Array, start: number, end: number): void {
    this.counters.goawaysReceived++;
    if (!this.allow("goaways", "GOAWAY frames")) return;
    const lastId = readUint31(bytes, start);
    const code = readUint32(bytes, start + 4);
    if (lastId > this.peerGoawayLastId) return this.protocolError(`GOAWAY raises the last stream from ${this.peerGoawayLastId} to ${lastId}`);
    this.peerGoaway = true;
    this.peerGoawayLastId = lastId;
    const debug = printableText(bytes, start + GOAWAY_FIXED_BYTES, end);
    if (!this.isServer) {
      for (const stream of this.streams.values()) if (stream.id > lastId) this.closeReset(stream, ErrorCode.refusedStream, "connection");
    }
    if (!this.dead) this.handler.onGoaway(lastId, code, debug);
  }

  /** A frame for a stream without an object: idle, or closed and forgotten. */
  private onLateFrame(id: number, type: "DATA" | "HEADERS"): void {
    if (this.isIdle(id)) return this.protocolError(`${type} on stream ${id}, which is idle`);
    if (this.recentResets.has(id)) {
      this.counters.lateFrames++;
      return;
    }
    this.counters.closedStreamErrors++;
    if (type === "HEADERS") return this.fatal(ErrorCode.streamClosed, "closedStreamErrors", `HEADERS on stream ${id}, which is closed`, "peer");
    if (this.countInducedReset()) this.writeReset(id, ErrorCode.streamClosed);
  }

  private isIdle(id: number): boolean {
    const isOurs = (id & 1) === (this.isServer ? 0 : 1);
    return isOurs ? id >= this.nextStreamId : this.isServer ? id > this.lastPeerStreamId : true;
  }

  // ── Windows ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Gives the stream's credit back once half of the window is free. Padding needs no consumer. */
  private creditStream(stream: Http2Stream): void {
    if (!stream.canReceive) return;
    const credit = this.initialReceiveWindowBytes - stream.receiveWindowBytes - stream.unconsumedBytes;
    if (credit * 2 < this.initialReceiveWindowBytes || credit <= 0) return;
    stream.receiveWindowBytes += credit;
    this.writer.windowUpdate(stream.id, credit);
  }

  /**
   * The connection's credit is given back on receipt, not on consumption, as long as all streams together hold no more than
   * `unconsumedBytesMax`. So a stream whose reader stopped holds its own window and nothing of its siblings'. Above that the
   * excess is held back: what a peer can make us keep is `unconsumedBytesMax` + the connection's window, and it takes
   * (that sum / stream window) = 20 stopped readers, with the defaults, before others wait. They are seen in `bufferedUnconsumedBytes`.
   */
  private creditConnection(): void {
    const windowBytes = this.settings.connectionWindowBytes;
    let credit = windowBytes - this.receiveWindowBytes;
    if (credit * 2 < windowBytes) return;
    const excess = this.unconsumedBytes - this.limits.unconsumedBytesMax;
    if (excess > 0) {
      credit -= excess;
      if (credit * 2 < windowBytes) {
        this.counters.receiveBudgetExhausted++;
        return;
      }
    }
    this.receiveWindowBytes += credit;
    this.writer.windowUpdate(0, credit);
  }

  private sendable(stream: Http2Stream, wanted: number): number {
    let take = wanted;
    if (stream.sendWindowBytes < take) take = stream.sendWindowBytes;
    if (this.sendWindowBytes < take) take = this.sendWindowBytes;
    const roomBytes = this.limits.outputDataBytesMax;
    if (this.output.pendingBytes >= roomBytes) return 0;
    if (roomBytes < take) take = roomBytes;
    if (this.queue.size > 0 && this.limits.sendQuantumBytes < take) take = this.limits.sendQuantumBytes;
    return take > 0 ? take : 0;
  }

  private wait(stream: Http2Stream): void {
    if (stream.waiting !== Waiting.nothing || stream.state === StreamState.closed) return;
    stream.waitingSinceMs = this.nowMs();
    if (stream.sendWindowBytes <= 0) {
      stream.waiting = Waiting.streamWindow;
      this.counters.stalledOnStreamWindow++;
      return;
    }
    stream.waiting = Waiting.connection;
    this.queue.push(stream);
    if (this.sendWindowBytes <= 0) this.counters.stalledOnConnectionWindow++;
    else this.counters.stalledOnOutput++;
  }

  private streamWindowOpened(stream: Http2Stream): void {
    if (stream.waiting !== Waiting.streamWindow || stream.sendWindowBytes <= 0) return;
    stream.waiting = Waiting.connection;
    this.queue.push(stream);
  }

  private stopWaiting(stream: Http2Stream): void {
    if (stream.waiting === Waiting.connection) this.queue.remove(stream);
    stream.waiting = Waiting.nothing;
  }

  /**
   * Lets waiting streams go on, longest waiting first, each for at most one quantum while others wait. Ends: every turn sends
   * something, or its stream leaves the queue.
   */
  private serve(): void {
    if (this.serving) return;
    this.serving = true;
    while (!this.dead && this.queue.size > 0 && this.sendWindowBytes > 0 && this.output.pendingBytes < this.limits.outputDataBytesMax) {
      const stream = this.queue.shift()!;
      stream.waiting = Waiting.nothing;
      if (stream.sendWindowBytes <= 0) stream.waiting = Waiting.streamWindow;
      else this.handler.onSendable(stream);
    }
    this.serving = false;
  }

  outputConsumed(): void {
    if (this.queue.size > 0 && this.output.pendingBytes * 2 < this.limits.outputDataBytesMax) this.serve();
  }

  // ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  private greet(): void {
    this.writer.greeting(this.settings, this.isServer);
    const credit = this.settings.connectionWindowBytes - DEFAULT_WINDOW_BYTES;
    if (credit <= 0) return;
    this.receiveWindowBytes += credit;
    this.writer.windowUpdate(0, credit);
  }

  outputBegan(): void {
    this.handler.onOutput();
  }

  outputOverflowed(message: string): void {
    this.fatal(ErrorCode.enhanceYourCalm, "outputOverflows", message, "peer");
  }

  private writeData(stream: Http2Stream, chunk: Uint8Array, take: number, endStream: boolean): void {
    stream.sendWindowBytes -= take;
    this.sendWindowBytes -= take;
    this.counters.dataBytesSent += take;
    const frames = this.writer.data(stream.id, chunk, take, endStream);
    this.counters.dataFramesSent += frames;
    this.guards.earn("windowUpdates", frames * WINDOW_UPDATES_PER_DATA_FRAME + take / WINDOW_UPDATE_BYTES);
  }

  private writeReset(id: number, code: number): void {
    this.counters.resetsSent++;
    this.recentResets.add(id);
    if (this.recentResets.size > this.limits.recentResetsMax) {
      for (const oldest of this.recentResets) {
        this.recentResets.delete(oldest);
        break;
      }
    }
    this.writer.rstStream(id, code);
  }

  // ── Ends ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  private endLocal(stream: Http2Stream): void {
    if (stream.state === StreamState.open) {
      stream.state = StreamState.halfClosedLocal;
      this.stopWaiting(stream);
    } else if (stream.state === StreamState.halfClosedRemote) {
      this.close(stream);
    }
  }

  private close(stream: Http2Stream): void {
    this.detach(stream);
    this.handler.onClosed(stream);
  }

  private closeReset(stream: Http2Stream, code: number, by: ResetBy): void {
    this.detach(stream);
    this.handler.onReset(stream, code, by);
    this.handler.onClosed(stream);
  }

  /** The stream is over for the engine: out of the map and the queue, its credit returned to the connection. */
  private detach(stream: Http2Stream): void {
    this.stopWaiting(stream);
    stream.state = StreamState.closed;
    this.streams.delete(stream.id);
    this.counters.streamsClosed++;
    if (stream.unconsumedBytes === 0) return;
    this.unconsumedBytes -= stream.unconsumedBytes;
    stream.unconsumedBytes = 0;
    if (!this.dead) this.creditConnection();
  }

  private die(): void {
    this.dead = true;
    this.reader.stop();
  }

  private closeAll(code: number): void {
    for (const stream of this.streams.values()) this.closeReset(stream, code, "connection");
  }

  /** A stream error (RFC 9113, section 5.4.2): the peer's fault, one stream's end, and counted, as making us reset is an attack of its own. */
  private streamError(stream: Http2Stream, code: number): void {
    if (!this.countInducedReset()) return;
    this.writeReset(stream.id, code);
    if (stream.state !== StreamState.closed) this.closeReset(stream, code, "us");
  }

  private malformed(stream: Http2Stream): void {
    this.counters.malformedMessages++;
    this.streamError(stream, ErrorCode.protocolError);
  }

  private countInducedReset(): boolean {
    this.counters.inducedResets++;
    return this.allow("inducedResets", "stream errors");
  }

  private protocolError(what: string): void {
    this.fatal(ErrorCode.protocolError, "protocolErrors", what, "peer");
  }

  private frameSizeError(frame: string): void {
    this.fatal(ErrorCode.frameSizeError, "frameSizeErrors", `${frame} of ${this.reader.length} bytes`, "peer");
  }

  /** False: it happened too often, and the connection is over. */
  private allow(guard: FloodGuard, what: string): boolean {
    if (this.guards.take(guard)) return true;
    this.fatal(ErrorCode.enhanceYourCalm, FLOOD_COUNTERS[guard], `too many ${what}: more than ${this.limits[guard].perSecond} a second for too long`, "peer");
    return false;
  }

  private fatal(code: number, counter: FatalCounter, message: string, blame: Blame): void {
    if (this.dead) return;
    this.die();
    this.counters[counter]++;
    this.writer.goaway(this.lastPeerStreamId, code, message);
    this.handler.onFatal({ code, counter, message, blame });
    this.closeAll(code);
  }
}

/** A peer's words for our logs: printable ASCII, everything else a question mark. */
function printableText(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let at = start; at < end; at++) {
    const b = bytes[at]!;
    text += b >= 0x20 && b < 0x7f ? String.fromCharCode(b) : "?";
  }
  return text;
}
