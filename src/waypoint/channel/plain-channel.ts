// Channels over plain TCP: accepted by a listener, or dialled.

import type { Socket, SocketHandler } from "bun";
import { formatSocketAddress, type SocketAddress } from "../../core/ip.ts";
import type { Due, DueList } from "../../net/due-list.ts";
import { connectFrom, type Keepalive, kindFor } from "../../net/dial.ts";
import { close as closeFd, errnoName } from "../../net/libc.ts";
import { inNamespace } from "../../net/namespace.ts";
import { openTcpSocket } from "../../net/socket-reserve.ts";
import { type Listener, takeQueued } from "../../tunnel/endpoint-socket.ts";
import type { ChannelWithUser } from "./channel.ts";
import { SocketChannel } from "./socket-channel.ts";

type PlainSocket = Socket<SocketOwner>;

/** Who gets one socket's events. */
interface SocketOwner {
  opened(socket: PlainSocket): void;
  data(chunk: Uint8Array): void;
  drain(): void;
  ended(): void;
  closed(error: string | null): void;
}

const dispatch: SocketHandler<SocketOwner> = {
  open: (socket) => socket.data.opened(socket),
  data: (socket, chunk) => socket.data.data(chunk),
  drain: (socket) => socket.data.drain(),
  end: (socket) => socket.data.ended(),
  close: (socket, error) => socket.data.closed(error === undefined || error === null ? null : ((error as { code?: string }).code ?? String(error))),
  error: () => {}, // `close` follows and carries the same error
};

export class PlainChannel extends SocketChannel implements SocketOwner {
  protected readonly socket: PlainSocket;

  constructor(socket: PlainSocket) {
    super();
    this.socket = socket;
  }

  /** Hands the socket over, for TLS in place. Nothing of this channel may be used any more. */
  release(): Socket<unknown> {
    const socket = this.socket;
    this.user = null;
    socket.data = RELEASED;
    return socket as unknown as Socket<unknown>;
  }

  get remote(): SocketAddress {
    return { ip: this.socket.remoteAddress as SocketAddress["ip"], port: this.socket.remotePort };
  }

  get local(): SocketAddress {
    return { ip: this.socket.localAddress as SocketAddress["ip"], port: this.socket.localPort };
  }

  opened(): void {}

  closed(error: string | null): void {
    this.tellClosed(error);
  }
}

/** Of a socket that is another's: what the runtime still tells of it here is ciphertext. */
const RELEASED: SocketOwner = { opened: () => {}, data: () => {}, drain: () => {}, ended: () => {}, closed: () => {} };

/** Before the channel is there, on an accepted socket. */
class Accepting implements SocketOwner {
  readonly #accepted: (channel: PlainChannel) => void;
  readonly #welcome: (fd: number) => boolean;

  constructor(accepted: (channel: PlainChannel) => void, welcome: (fd: number) => boolean) {
    this.#accepted = accepted;
    this.#welcome = welcome;
  }

  opened(socket: PlainSocket): void {
    if (!this.#welcome((socket as unknown as { fd: number }).fd)) return void socket.terminate();
    const channel = new PlainChannel(socket);
    socket.data = channel;
    this.#accepted(channel);
  }

  data(): void {}
  drain(): void {}
  ended(): void {}
  closed(): void {}
}

/**
 * Adopts a listening descriptor. `accepted` sets the channel's user before it returns.
 * @param welcome false for a socket that is closed again at once: there is no room for it.
 */
export function listenOn(fd: number, accepted: (channel: PlainChannel) => void, welcome: (fd: number) => boolean = () => true): Listener {
  const accepting = new Accepting(accepted, welcome);
  const listener = Bun.listen<SocketOwner>({
    fd, allowHalfOpen: true, data: accepting,
    // The runtime gives sockets of an adopted listener no data of their own.
    socket: { ...dispatch, open: (socket: PlainSocket) => accepting.opened(socket) },
  } as unknown as Parameters<typeof Bun.listen<SocketOwner>>[0]);
  return {
    stop() {
      for (const queued of takeQueued(fd)) adopt(queued, accepting).catch(() => closeFd(queued));
      listener.stop(false);
    },
  };
}

/** A connected or connecting descriptor. The promise settles with what the callbacks already told. */
function adopt(fd: number, owner: SocketOwner): Promise<unknown> {
  return Bun.connect({ fd, data: owner, allowHalfOpen: true, socket: dispatch } as unknown as Parameters<typeof Bun.connect<SocketOwner>>[0]);
}

/**
 * Which step failed: the way to the server, or TLS with it. Or the endpoint's node answered, and will not answer otherwise: `denied` by a
 * policy, which says nothing of the endpoint's health; `refused`, because the endpoint is not there or is somebody else.
 */
export type ConnectFailure = "connect" | "tls" | "denied" | "refused" | "forbidden";

export interface ChannelOwner {
  /** Sets the channel's user before it returns. @param alpn what TLS agreed on; null without TLS, or when it agreed on nothing. */
  connected(channel: ChannelWithUser, alpn: string | null): void;
  /** @param message what was tried and what was seen. */
  connectFailed(message: string, what: ConnectFailure): void;
}

export interface PendingChannel {
  /** Nobody wants it any more: no further event. */
  cancel(): void;
}

export interface PlainDialOptions {
  readonly namespaceFd: number;
  readonly to: SocketAddress;
  readonly mark: number;
  readonly keepalive: Keepalive | null;
  readonly timeoutMs: number;
}

/** Fails through `owner`, always after it returned. */
export function dialPlain(options: PlainDialOptions, owner: ChannelOwner, due: DueList, nowMs: number): PendingChannel {
  const destination = { to: options.to, transparentSource: null, keepalive: options.keepalive };
  const fd = connectFrom(inNamespace(options.namespaceFd, () => openTcpSocket(kindFor(destination), options.mark)), destination);
  const dialling = new Dialling(options, owner, due);
  if (fd < 0) dialling.failLater(errnoName(fd));
  else dialling.start(fd, nowMs);
  return dialling;
}

class Dialling implements SocketOwner, PendingChannel, Due {
  dueMs = Infinity;
  dueIndex = -1;
  readonly #options: PlainDialOptions;
  readonly #owner: ChannelOwner;
  readonly #due: DueList;
  #socket: PlainSocket | null = null;
  #settled = false;

  constructor(options: PlainDialOptions, owner: ChannelOwner, due: DueList) {
    this.#options = options;
    this.#owner = owner;
    this.#due = due;
  }

  start(fd: number, nowMs: number): void {
    this.dueMs = nowMs + this.#options.timeoutMs;
    this.#due.add(this);
    adopt(fd, this).catch(() => {
      if (this.#socket === null) closeFd(fd);
      this.#fail("the descriptor could not be adopted");
    });
  }

  failLater(seen: string): void {
    queueMicrotask(() => this.#fail(seen));
  }

  cancel(): void {
    if (!this.#settle()) return;
    this.#socket?.terminate();
  }

  opened(socket: PlainSocket): void {
    this.#socket = socket;
    if (this.#settled) socket.terminate();
  }

  /** The first one means that it is connected. */
  drain(): void {
    const socket = this.#socket;
    if (socket === null || !this.#settle()) return;
    const channel = new PlainChannel(socket);
    socket.data = channel;
    this.#owner.connected(channel, null);
  }

  /** A server that speaks first may be read in the same turn in which the socket became connected. */
  data(chunk: Uint8Array): void {
    this.drain();
    if (this.#socket !== null && this.#socket.data !== this) this.#socket.data.data(chunk);
  }

  ended(): void {
    this.drain();
    if (this.#socket !== null && this.#socket.data !== this) this.#socket.data.ended();
  }

  closed(error: string | null): void {
    this.#fail(error ?? "closed at once");
  }

  onDue(): void {
    const socket = this.#socket;
    this.#fail(`no answer within ${this.#options.timeoutMs} ms`);
    socket?.terminate();
  }

  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    this.#due.remove(this);
    return true;
  }

  #fail(seen: string): void {
    if (this.#settle()) this.#owner.connectFailed(`TCP connect to ${formatSocketAddress(this.#options.to)} failed: ${seen}`, "connect");
  }
}
