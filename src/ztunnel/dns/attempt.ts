// One question to one upstream resolver, by UDP or TCP, from a marked socket inside the workload's namespace. Tells its owner
// once how it ended, unless it is cancelled first.

import { isIpv6, type SocketAddress } from "../../core/ip.ts";
import { dial } from "../../net/dial.ts";
import {
  AF_INET, AF_INET6, close, connect, errnoName, MSG_NOSIGNAL, send, setIntOption, SO_MARK, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket, SOL_SOCKET,
} from "../../net/libc.ts";
import { inNamespace } from "../../net/namespace.ts";
import { encodeSockaddr } from "../../net/socket-address.ts";
import { checkReply } from "../../wire/dns/decode.ts";
import { adoptSocket, type PlainEnd, type PlainSocket, type SocketError } from "../../tunnel/endpoint-socket.ts";
import { frame, FrameReader } from "./tcp-frames.ts";

export interface AttemptOptions {
  readonly namespaceFd: number;
  readonly to: SocketAddress;
  readonly mark: number;
  /** The question with the id of this attempt; kept until the end. */
  readonly query: Uint8Array;
  readonly badRepliesMax: number;
  readonly owner: AttemptOwner;
}

export interface AttemptOwner {
  /** @param reply checked against the question; ours to keep. */
  replied(attempt: Attempt, reply: Uint8Array, seen: { readonly truncated: boolean; readonly rcode: number }): void;
  /** `reason` is an errno name or a short text. */
  failed(attempt: Attempt, reason: string): void;
  badReply(reason: string): void;
}

export interface Attempt {
  /** Frees the socket; the owner is told nothing more. */
  cancel(): void;
}

interface UdpSocket {
  close(): void;
}

/** A connected socket: the kernel drops what does not come from the resolver's address and port. */
export class UdpAttempt implements Attempt {
  readonly #options: AttemptOptions;
  #socket: UdpSocket | null = null;
  #bad = 0;
  #ended = false;

  constructor(options: AttemptOptions) {
    this.#options = options;
    const fd = this.#connected();
    if (fd < 0) {
      queueMicrotask(() => this.#fail(errnoName(fd)));
      return;
    }
    const sent = send(fd, options.query, MSG_NOSIGNAL);
    if (sent < 0) {
      close(fd);
      queueMicrotask(() => this.#fail(errnoName(sent)));
      return;
    }
    const handlers = {
      data: (_socket: unknown, chunk: Uint8Array) => this.#received(chunk),
      // An ICMP error: nobody listens there, or the way is barred.
      error: (error: SocketError) => this.#fail(error.code ?? error.message),
    };
    Bun.udpSocket({ fd, socket: handlers } as unknown as Parameters<typeof Bun.udpSocket>[0]).then(
      (socket) => {
        if (this.#ended) socket.close();
        else this.#socket = socket;
      },
      (error: Error) => {
        close(fd);
        this.#fail(error.message);
      },
    );
  }

  cancel(): void {
    this.#ended = true;
    this.#socket?.close();
    this.#socket = null;
  }

  #connected(): number {
    const { namespaceFd, to, mark } = this.#options;
    const address = encodeSockaddr(to);
    const family = isIpv6(to.ip) ? AF_INET6 : AF_INET;
    return inNamespace(namespaceFd, () => {
      const fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (fd < 0) return fd;
      // Without the mark the question would be redirected to ourselves.
      const marked = mark === 0 ? 0 : setIntOption(fd, SOL_SOCKET, SO_MARK, mark);
      const failed = marked < 0 ? marked : connect(fd, address);
      if (failed < 0) {
        close(fd);
        return failed;
      }
      return fd;
    });
  }

  /** @param chunk a Buffer of the runtime's, used again: `slice` would not copy it. */
  #received(chunk: Uint8Array): void {
    if (this.#ended) return;
    const check = checkReply(this.#options.query, chunk);
    if (check.kind === "good") {
      this.cancel();
      this.#options.owner.replied(this, new Uint8Array(chunk), check);
      return;
    }
    this.#options.owner.badReply(check.reason);
    if (++this.#bad >= this.#options.badRepliesMax) this.#fail("only replies to other questions");
  }

  #fail(reason: string): void {
    if (this.#ended) return;
    this.cancel();
    this.#options.owner.failed(this, reason);
  }
}

const NO_KEEPALIVE = { idleS: 0, intervalS: 0, probes: 0 };

/** A connection for one question. The caller's deadline covers connecting too. */
export class TcpAttempt implements Attempt, PlainEnd {
  readonly #options: AttemptOptions;
  readonly #reader = new FrameReader();
  #socket: PlainSocket | null = null;
  #unsent: Uint8Array;
  #ended = false;

  constructor(options: AttemptOptions) {
    this.#options = options;
    this.#unsent = frame(options.query);
    const fd = dial({ namespaceFd: options.namespaceFd, to: options.to, mark: options.mark, transparentSource: null, keepalive: NO_KEEPALIVE });
    if (fd < 0) queueMicrotask(() => this.#fail(errnoName(fd)));
    else adoptSocket(fd, this);
  }

  cancel(): void {
    this.#ended = true;
    this.#socket?.close();
    this.#socket = null;
  }

  onOpen(socket: PlainSocket): void {
    if (this.#ended) socket.close();
    else this.#socket = socket;
  }

  onDrain(): void {
    if (this.#socket === null || this.#unsent.length === 0) return;
    const written = this.#socket.write(this.#unsent);
    this.#unsent = this.#unsent.subarray(Math.max(0, written));
  }

  onData(chunk: Uint8Array): void {
    if (this.#ended) return;
    this.#reader.push(chunk);
    const reply = this.#reader.next();
    if (reply === null) return;
    const check = checkReply(this.#options.query, reply);
    if (check.kind === "ignore") {
      this.#options.owner.badReply(check.reason);
      this.#fail(`reply does not fit: ${check.reason}`);
      return;
    }
    this.cancel();
    this.#options.owner.replied(this, new Uint8Array(reply), check);
  }

  onEnd(): void {
    this.#fail("closed without a reply");
  }

  onClose(error: SocketError | null): void {
    this.#fail(error?.code ?? "closed without a reply");
  }

  #fail(reason: string): void {
    if (this.#ended) return;
    this.cancel();
    this.#options.owner.failed(this, reason);
  }
}
