// A peer that keeps to no rule: raw TCP, TLS with whatever certificate and options, and HTTP/2 frames written byte by byte, from a place
// of a test network.
//
//   using raw = await RawPeer.open(rival, to);             raw.write(bytes); await raw.closed
//   using tls = TlsPeer.open(rival, to, { leaf, ... });    await tls.secured; await tls.closed
//   using peer = await HbonePeer.open(rival, to, leaf);    const id = peer.connect("198.18.2.10:8080"); await peer.status(id)
//
// `closed` resolves to how it ended: `end`, `close`, or the name of the error. Nothing here waits by time alone.

import net from "node:net";
import tls from "node:tls";
import type { SocketAddress } from "../../src/core/ip.ts";
import { dial } from "../../src/net/dial.ts";
import { errnoName } from "../../src/net/libc.ts";
import { listenTcpAnyAddress } from "../../src/net/listen.ts";
import { CLIENT_PREFACE, Flag, FRAME_HEADER_BYTES, FrameType, readUint31, readUint32, writeFrameHeader, writeUint32 } from "../../src/wire/http2/frames.ts";
import { headerValue } from "../../src/wire/http2/headers.ts";
import { HpackDecoder } from "../../src/wire/http2/hpack-decoder.ts";
import { encodeStateless } from "../../src/wire/http2/hpack-encoder.ts";
import { until } from "./mesh.ts";
import type { Place } from "./network.ts";

const ANSWER_MS = 10_000;

/** A TCP socket from inside a place, still connecting. */
function socketFrom(place: Place, to: SocketAddress): net.Socket {
  const fd = dial({ namespaceFd: place.namespaceFd, to, mark: 0, transparentSource: null, keepalive: null });
  if (fd < 0) throw new Error(`cannot dial ${to.ip} port ${to.port} from ${place.name}: ${errnoName(fd)}`);
  return net.connect({ fd, allowHalfOpen: true } as unknown as net.NetConnectOpts);
}

/** How a socket ended, once it has. */
function endOf(socket: net.Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.on("error", (error: Error & { code?: string }) => resolve(error.code ?? error.message));
    socket.on("end", () => resolve("end"));
    socket.on("close", () => resolve("close"));
  });
}

export class RawPeer implements Disposable {
  readonly #connected = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<string>();
  readonly closed = this.#ended.promise;
  #socket: Bun.Socket | null = null;
  #waiting: { bytes: Uint8Array; done: () => void }[] = [];
  received: Uint8Array = new Uint8Array(0);

  private constructor() {}

  /** Resolves when connected; rejects with the errno's name otherwise. */
  static async open(place: Place, to: SocketAddress): Promise<RawPeer> {
    const peer = new RawPeer();
    const fd = dial({ namespaceFd: place.namespaceFd, to, mark: 0, transparentSource: null, keepalive: null });
    if (fd < 0) throw new Error(errnoName(fd));
    const ended = (how: string): void => {
      peer.#connected.reject(new Error(how));
      peer.#ended.resolve(how);
    };
    const handlers: Bun.SocketHandler = {
      open: (socket) => void (peer.#socket = socket as unknown as Bun.Socket),
      drain: () => {
        peer.#connected.resolve();
        peer.#flush();
      },
      data: (_, bytes) => void (peer.received = Buffer.concat([peer.received, bytes])),
      end: () => peer.#ended.resolve("end"),
      close: (_, error) => ended((error as (Error & { code?: string }) | undefined)?.code ?? "close"),
      error: () => {},
    };
    void Bun.connect({ fd, allowHalfOpen: true, socket: handlers } as never).catch(() => {});
    await peer.#connected.promise;
    return peer;
  }

  /** Resolves when the kernel has it, or the connection has ended. */
  async write(bytes: Uint8Array | string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ bytes: Buffer.from(bytes as Uint8Array), done: resolve });
    this.#flush();
    await Promise.race([promise, this.closed]);
  }

  /** No more is read: the kernel's buffers fill, then the agent's. */
  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  /** FIN: our half ends. */
  shutdown(): void {
    this.#socket?.shutdown();
  }

  /** RST. */
  terminate(): void {
    this.#socket?.terminate();
  }

  #flush(): void {
    for (let next = this.#waiting[0]; next !== undefined && this.#socket !== null; next = this.#waiting[0]) {
      const taken = Math.max(0, this.#socket.write(next.bytes));
      if (taken < next.bytes.length) {
        next.bytes = next.bytes.subarray(taken);
        return;
      }
      this.#waiting.shift();
      next.done();
    }
  }

  [Symbol.dispose](): void {
    this.#socket?.terminate();
  }
}

/** An application that accepts every connection and reads none of them, until it is told to. */
export class StalledServer implements Disposable {
  readonly #listener: Bun.TCPSocketListener<undefined>;
  readonly #sockets = new Set<Bun.Socket>();
  readBytes = 0;

  private constructor(fd: number) {
    this.#listener = Bun.listen<undefined>({
      fd, allowHalfOpen: true,
      socket: {
        open: (socket: Bun.Socket) => {
          socket.pause();
          this.#sockets.add(socket);
        },
        data: (_: Bun.Socket, bytes: Uint8Array) => void (this.readBytes += bytes.length),
        end: (socket: Bun.Socket) => void socket.end(),
        close: (socket: Bun.Socket) => void this.#sockets.delete(socket),
        error: () => {},
      },
    } as never);
  }

  static listen(place: Place, port: number): StalledServer {
    const fd = listenTcpAnyAddress({ namespaceFd: place.namespaceFd, port, mark: 0, keepalive: null, shared: true });
    if (fd < 0) throw new Error(`cannot listen on port ${port} in ${place.name}: ${errnoName(fd)}`);
    return new StalledServer(fd);
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** Reads all there is from here on. */
  resume(): void {
    for (const socket of this.#sockets) socket.resume();
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.terminate();
    this.#listener.stop(true);
  }
}

export interface Leaf {
  /** Leaf first, then what leads to the root. */
  readonly certificatePem: string;
  readonly keyPem: string;
}

export interface TlsPeerOptions extends tls.ConnectionOptions {
  /** Null for none. */
  readonly leaf: Leaf | null;
}

export class TlsPeer implements Disposable {
  readonly socket: tls.TLSSocket;
  /** What it runs over: to end it without TLS's own goodbye. */
  readonly raw: net.Socket;
  /** True when our side of the handshake was done; the agent may refuse us after that. */
  readonly secured: Promise<boolean>;
  readonly closed: Promise<string>;
  received: Buffer = Buffer.alloc(0);
  onData: (chunk: Buffer) => void = (chunk) => void (this.received = Buffer.concat([this.received, chunk]));

  private constructor(raw: net.Socket, { leaf, ...options }: TlsPeerOptions) {
    this.raw = raw;
    this.socket = tls.connect({
      socket: raw, rejectUnauthorized: false, ALPNProtocols: ["h2"], minVersion: "TLSv1.3",
      ...(leaf === null ? {} : { cert: leaf.certificatePem, key: leaf.keyPem }),
      ...options,
    });
    this.closed = endOf(this.socket);
    this.secured = Promise.race([new Promise<boolean>((resolve) => this.socket.once("secureConnect", () => resolve(true))), this.closed.then(() => false)]);
    this.socket.on("data", (chunk: Buffer) => this.onData(chunk));
  }

  static open(place: Place, to: SocketAddress, options: TlsPeerOptions): TlsPeer {
    return new TlsPeer(socketFrom(place, to), options);
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

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

/** An HBONE client whose frames are all written by the test; it keeps what it hears. */
export class HbonePeer implements Disposable {
  readonly tls: TlsPeer;
  readonly frames: ReceivedFrame[] = [];
  readonly #decoder = new HpackDecoder(1 << 20);
  readonly #answers = new Map<number, readonly string[]>();
  #pending: Buffer = Buffer.alloc(0);
  #nextStreamId = 1;
  #pings = 0;
  /** What the agent lets us send, by its SETTINGS and WINDOW_UPDATEs; stream 0 is the connection. */
  readonly #windows = new Map<number, number>([[0, 65_535]]);
  #initialWindow = 65_535;

  private constructor(tlsPeer: TlsPeer) {
    this.tls = tlsPeer;
    tlsPeer.onData = (chunk) => this.#receive(chunk);
  }

  /** TLS, the preface and SETTINGS; resolves once the agent's SETTINGS are here. */
  static async open(place: Place, to: SocketAddress, leaf: Leaf): Promise<HbonePeer> {
    const peer = new HbonePeer(TlsPeer.open(place, to, { leaf }));
    if (!(await peer.tls.secured)) throw new Error(`TLS to ${to.ip} port ${to.port}: ${await peer.tls.closed}`);
    peer.write(CLIENT_PREFACE, settings());
    let ended: string | null = null;
    void peer.tls.closed.then((how) => (ended = how));
    await until("the agent's SETTINGS", ANSWER_MS, () => ended !== null || peer.frames.some(({ type }) => type === FrameType.settings));
    if (ended !== null) throw new Error(`the agent ended the tunnel: ${ended}`);
    peer.write(frame(FrameType.settings, Flag.ack, 0));
    return peer;
  }

  write(...frames: readonly Uint8Array[]): void {
    this.tls.socket.write(Buffer.concat(frames));
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
    void this.tls.closed.then(() => (ended = true));
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

  /** What the agent says when it gives the connection up. */
  async goaway(): Promise<string> {
    const found = await until("GOAWAY", ANSWER_MS, () => this.frames.findLast(({ type }) => type === FrameType.goaway));
    return `${readUint32(found.payload, 4)} ${found.payload.subarray(8).toString()}`;
  }

  answered(streamId: number): boolean {
    return this.#answers.has(streamId);
  }

  /** Resolves when a PING sent now comes back: the agent has read all that went before. */
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

  /** Sends as much DATA as the windows allow now. @returns the bytes sent. */
  fill(streamId: number, bytesMax: number, frameBytes = 16_384): number {
    let sent = 0;
    for (;;) {
      const size = Math.min(bytesMax - sent, frameBytes, this.windowOf(0), this.windowOf(streamId));
      if (size <= 0) return sent;
      this.write(data(streamId, new Uint8Array(size)));
      this.#windows.set(0, this.windowOf(0) - size);
      this.#windows.set(streamId, this.windowOf(streamId) - size);
      sent += size;
    }
  }

  windowOf(streamId: number): number {
    return this.#windows.get(streamId) ?? this.#initialWindow;
  }

  [Symbol.dispose](): void {
    this.tls[Symbol.dispose]();
  }

  #receive(chunk: Buffer): void {
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
      if (list !== null) this.#answers.set(streamId, list);
    } else if (type === FrameType.windowUpdate) {
      this.#windows.set(streamId, this.windowOf(streamId) + readUint31(payload, 0));
    } else if (type === FrameType.settings && (flags & Flag.ack) === 0) {
      for (let at = 0; at + 6 <= payload.length; at += 6) {
        if (payload.readUInt16BE(at) === 4) this.#initialWindow = payload.readUInt32BE(at + 2);
      }
    }
  }
}
