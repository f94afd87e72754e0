// An HTTP/2 client that keeps to no rule, and the frames that it writes: byte by byte, whatever they are. What it speaks through is given to
// it: TLS of a tunnel, or a plain socket.
//
//   using peer = await Http2Peer.plain(port);              const id = peer.request([":method", "GET", ...]); await peer.status(id)

import net from "node:net";
import { CLIENT_PREFACE, Flag, FRAME_HEADER_BYTES, FrameType, readUint31, readUint32, writeFrameHeader, writeUint32 } from "../../src/wire/http2/frames.ts";
import { headerValue } from "../../src/wire/http2/headers.ts";
import { HpackDecoder } from "../../src/wire/http2/hpack-decoder.ts";
import { encodeStateless } from "../../src/wire/http2/hpack-encoder.ts";
import { until } from "./until.ts";

const ANSWER_MS = 10_000;

export interface ReceivedFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, streamId: number, payload: Uint8Array | string = ""): Buffer {
  const body = Buffer.from(payload as Uint8Array);
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + body.length);
  writeFrameHeader(bytes, 0, body.length, type, flags, streamId);
  bytes.set(body, FRAME_HEADER_BYTES);
  return bytes;
}

export function uint32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => writeUint32(bytes, 4 * i, value));
  return bytes;
}

/** Pairs of identifier and value. */
export const settings = (...pairs: readonly (readonly [number, number])[]): Buffer =>
  frame(FrameType.settings, 0, 0, Buffer.concat(pairs.map(([id, value]) => Buffer.from([id >> 8, id & 0xff, ...uint32(value)]))));

export const headers = (streamId: number, fields: readonly string[], endStream = false): Buffer =>
  frame(FrameType.headers, Flag.endHeaders | (endStream ? Flag.endStream : 0), streamId, encodeStateless(fields));

export const data = (streamId: number, bytes: Uint8Array | string, endStream = false): Buffer => frame(FrameType.data, endStream ? Flag.endStream : 0, streamId, bytes);
export const reset = (streamId: number, code = 8): Buffer => frame(FrameType.rstStream, 0, streamId, uint32(code));
export const windowUpdate = (streamId: number, increment: number): Buffer => frame(FrameType.windowUpdate, 0, streamId, uint32(increment));

/** What an HTTP/2 peer speaks through. */
export interface Wire {
  write(bytes: Uint8Array): void;
  readonly closed: Promise<string>;
  destroy(): void;
}

/** An HTTP/2 client whose frames are all written by the test; it keeps what it hears. */
export class Http2Peer implements Disposable {
  readonly closed: Promise<string>;
  readonly #wire: Wire;
  readonly frames: ReceivedFrame[] = [];
  readonly #decoder = new HpackDecoder(1 << 20);
  readonly #answers = new Map<number, readonly string[]>();
  readonly #firstAnswers = new Map<number, readonly string[]>();
  #pending: Buffer = Buffer.alloc(0);
  #nextStreamId = 1;
  #pings = 0;
  /** What the other side lets us send, by its SETTINGS and WINDOW_UPDATEs; stream 0 is the connection. */
  readonly #windows = new Map<number, number>([[0, 65_535]]);
  #initialWindow = 65_535;

  constructor(wire: Wire) {
    this.#wire = wire;
    this.closed = wire.closed;
  }

  /** Without TLS, on loopback; resolves when the other side's SETTINGS are here. */
  static async plain(port: number): Promise<Http2Peer> {
    const socket = net.connect(port, "127.0.0.1");
    const closed = new Promise<string>((resolve) => {
      socket.on("error", (error: Error & { code?: string }) => resolve(error.code ?? error.message));
      socket.on("close", () => resolve("close"));
    });
    const peer = new Http2Peer({ write: (bytes) => void socket.write(bytes), closed, destroy: () => socket.destroy() });
    socket.on("data", (chunk: Buffer) => peer.received(chunk));
    await peer.greet();
    return peer;
  }

  /** The preface and SETTINGS; resolves once the other side's SETTINGS are here. */
  async greet(): Promise<void> {
    this.write(CLIENT_PREFACE, settings());
    let ended: string | null = null;
    void this.closed.then((how) => (ended = how));
    await until("the other side's SETTINGS", ANSWER_MS, () => ended !== null || this.frames.some(({ type }) => type === FrameType.settings));
    if (ended !== null) throw new Error(`the connection ended: ${ended}`);
    this.write(frame(FrameType.settings, Flag.ack, 0));
  }

  write(...frames: readonly Uint8Array[]): void {
    this.#wire.write(Buffer.concat(frames));
  }

  /** Opens a stream with a CONNECT, and further fields if given. @returns its number. */
  connect(authority: string, more: readonly string[] = []): number {
    return this.request([":method", "CONNECT", ":authority", authority, ...more]);
  }

  request(fields: readonly string[], endStream = false): number {
    const id = this.#nextStreamId;
    this.#nextStreamId += 2;
    this.#windows.set(id, this.#initialWindow);
    this.write(headers(id, fields, endStream));
    return id;
  }

  /** The answer's header list, once there is one; null when the stream, or the connection, ended without. */
  async answer(streamId: number): Promise<readonly string[] | null> {
    let ended = false;
    void this.closed.then(() => (ended = true));
    await until(`an answer on stream ${streamId}`, ANSWER_MS, () => this.#answers.has(streamId) || ended || this.resetCode(streamId) !== null || this.goawayCode !== null);
    return this.#answers.get(streamId) ?? null;
  }

  /** `200`, `400`, ...; `reset CODE` or `goaway CODE` or `closed` where there was no answer. */
  async status(streamId: number): Promise<string> {
    const list = await this.answer(streamId);
    if (list !== null) return headerValue(list, ":status") ?? "no status";
    const code = this.resetCode(streamId);
    return code !== null ? `reset ${code}` : this.goawayCode !== null ? `goaway ${this.goawayCode}` : "closed";
  }

  /** Code of the RST_STREAM that came for this stream. */
  resetCode(streamId: number): number | null {
    const found = this.frames.find((each) => each.type === FrameType.rstStream && each.streamId === streamId);
    return found === undefined ? null : readUint32(found.payload, 0);
  }

  get goawayCode(): number | null {
    const found = this.frames.findLast(({ type }) => type === FrameType.goaway);
    return found === undefined ? null : readUint32(found.payload, 4);
  }

  /** What the other side says when it gives the connection up. */
  async goaway(): Promise<string> {
    const found = await until("GOAWAY", ANSWER_MS, () => this.frames.findLast(({ type }) => type === FrameType.goaway));
    return `${readUint32(found.payload, 4)} ${found.payload.subarray(8).toString()}`;
  }

  /** The head of an answer that may have trailers. */
  firstAnswer(streamId: number): readonly string[] | null {
    return this.#firstAnswers.get(streamId) ?? null;
  }

  answered(streamId: number): boolean {
    return this.#answers.has(streamId);
  }

  /** Resolves when a PING sent now comes back: all that went before was read. */
  async ping(): Promise<void> {
    const payload = Buffer.from(`ping${String(++this.#pings).padStart(4, "0")}`);
    this.write(frame(FrameType.ping, 0, 0, payload));
    await until("the PING's answer", ANSWER_MS, () => this.frames.some(({ type, flags, payload: echoed }) => type === FrameType.ping && (flags & Flag.ack) !== 0 && payload.equals(echoed)));
  }

  bodyOf(streamId: number): string {
    return Buffer.concat(this.frames.filter((each) => each.type === FrameType.data && each.streamId === streamId).map(({ payload }) => payload)).toString();
  }

  /** True once END_STREAM came. */
  hasEnded(streamId: number): boolean {
    return this.frames.some((each) => each.streamId === streamId && (each.type === FrameType.data || each.type === FrameType.headers) && (each.flags & Flag.endStream) !== 0);
  }

  /** DATA that the windows are asked to bear. */
  send(streamId: number, bytes: Uint8Array): void {
    this.write(data(streamId, bytes));
    this.#windows.set(0, this.windowOf(0) - bytes.length);
    this.#windows.set(streamId, this.windowOf(streamId) - bytes.length);
  }

  /** Sends as much DATA as the windows allow now. @returns the bytes sent. */
  fill(streamId: number, bytesMax: number, frameBytes = 16_384): number {
    let sent = 0;
    for (;;) {
      const size = Math.min(bytesMax - sent, frameBytes, this.windowOf(0), this.windowOf(streamId));
      if (size <= 0) return sent;
      this.send(streamId, new Uint8Array(size));
      sent += size;
    }
  }

  windowOf(streamId: number): number {
    return this.#windows.get(streamId) ?? this.#initialWindow;
  }

  [Symbol.dispose](): void {
    this.#wire.destroy();
  }

  /** What came through the wire. */
  received(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    while (this.#pending.length >= FRAME_HEADER_BYTES) {
      const length = this.#pending.readUIntBE(0, 3);
      if (this.#pending.length < FRAME_HEADER_BYTES + length) return;
      const received: ReceivedFrame = {
        type: this.#pending[3]!, flags: this.#pending[4]!, streamId: readUint31(this.#pending, 5), payload: Buffer.from(this.#pending.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length)),
      };
      this.#pending = this.#pending.subarray(FRAME_HEADER_BYTES + length);
      this.frames.push(received);
      this.#note(received);
    }
  }

  #note({ type, flags, streamId, payload }: ReceivedFrame): void {
    if (type === FrameType.headers) {
      const list = this.#decoder.decode(payload, 0, payload.length);
      // 1xx announces an answer, and is none.
      if (list === null || headerValue(list, ":status")?.startsWith("1") === true) return;
      this.#answers.set(streamId, list);
      if (!this.#firstAnswers.has(streamId)) this.#firstAnswers.set(streamId, list);
    } else if (type === FrameType.windowUpdate) {
      this.#windows.set(streamId, this.windowOf(streamId) + readUint31(payload, 0));
    } else if (type === FrameType.settings && (flags & Flag.ack) === 0) {
      for (let at = 0; at + 6 <= payload.length; at += 6) {
        if (payload.readUInt16BE(at) === 4) this.#initialWindow = payload.readUInt32BE(at + 2);
      }
    }
  }
}
