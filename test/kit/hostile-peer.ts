// A peer that keeps to no rule: raw TCP, TLS with whatever certificate and options, and HTTP/2 frames written byte by byte (http2-peer.ts),
// from a place of a test network.
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
import { Http2Peer } from "./http2-peer.ts";
import type { Place } from "./network.ts";

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

/** An HBONE client: HTTP/2 in TLS. */
export class HbonePeer extends Http2Peer {
  readonly tls: TlsPeer;

  private constructor(tlsPeer: TlsPeer) {
    super({ write: (bytes) => void tlsPeer.socket.write(bytes), closed: tlsPeer.closed, destroy: () => tlsPeer[Symbol.dispose]() });
    this.tls = tlsPeer;
    tlsPeer.onData = (chunk) => this.received(chunk);
  }

  /** TLS, the preface and SETTINGS; resolves once the agent's SETTINGS are here. */
  static async open(place: Place, to: SocketAddress, leaf: Leaf): Promise<HbonePeer> {
    const peer = new HbonePeer(TlsPeer.open(place, to, { leaf }));
    if (!(await peer.tls.secured)) throw new Error(`TLS to ${to.ip} port ${to.port}: ${await peer.tls.closed}`);
    await peer.greet();
    return peer;
  }
}
