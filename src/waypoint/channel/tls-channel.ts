// TLS with a server: in place on a socket of ours, or inside the bytes of another channel. From the handshake on it is a channel again.

import type { SocketHandler } from "bun";
import { Duplex } from "node:stream";
import { type BackendHandshake, connectBackendOverStream, type NativeTlsSocket, peerChain, serverChainError, type StreamTls, upgradeBackend } from "../../net/tls.ts";
import type { Channel, ChannelUser, ChannelWithUser } from "./channel.ts";
import type { PlainChannel } from "./plain-channel.ts";
import { SocketChannel } from "./socket-channel.ts";
import { ToldChannel } from "./told-channel.ts";

export interface HandshakeUser {
  /** @param chainError null when the chain verified. Sets the channel's user, or destroys the channel, before it returns. */
  secured(channel: ChannelWithUser, peer: { readonly chainDer: readonly Uint8Array[]; readonly chainError: string | null; readonly alpn: string | null }): void;
  /** Nothing follows. */
  handshakeFailed(seen: string): void;
}

/** A handshake under way; destroyed like the channel that it becomes. */
export type Securing = Pick<Channel, "destroy">;

type SocketError = { readonly code?: string; readonly message?: string } | null | undefined;

const CLOSED = "the server closed the connection";
/** Null when nothing was agreed on. */
const agreed = (alpn: string | false): string | null => (alpn === false || alpn === "" ? null : alpn);
const seenOf = (error: SocketError): string | null => (error == null ? null : error.message ?? error.code ?? String(error));

/** On the socket itself: no copy of a byte more than without TLS. */
export class TlsChannel extends SocketChannel {
  protected readonly socket: NativeTlsSocket<TlsChannel>;
  #handshake: HandshakeUser | null;
  #error: SocketError = null;

  constructor(plain: PlainChannel, handshake: BackendHandshake, user: HandshakeUser) {
    super();
    this.#handshake = user;
    this.socket = upgradeBackend(plain.release(), handshake, handler, this);
  }

  override destroy(): void {
    this.#handshake = null;
    super.destroy();
  }

  handshaken(error: SocketError): void {
    const user = this.#handshake;
    this.#handshake = null;
    if (user === null) return;
    const { alpnProtocol } = this.socket;
    const chainDer = peerChain(this.socket as NativeTlsSocket<unknown>);
    // Without a certificate there was no handshake to judge: what is told is how it broke off.
    if (chainDer.length === 0) {
      this.destroy();
      return user.handshakeFailed(seenOf(error) ?? "the server showed no certificate");
    }
    user.secured(this, { chainDer, chainError: serverChainError(this.socket as NativeTlsSocket<unknown>, error as Error | null), alpn: agreed(alpnProtocol) });
  }

  /** `close` follows, and may not say why. */
  failed(error: SocketError): void {
    this.#error = error;
  }

  closed(closeError: SocketError): void {
    const seen = seenOf(closeError ?? this.#error);
    const handshake = this.#handshake;
    this.#handshake = null;
    if (handshake !== null) handshake.handshakeFailed(seen ?? CLOSED);
    else this.tellClosed(seen);
  }
}

const handler: SocketHandler<TlsChannel> = {
  open: () => {},
  handshake: (socket, _ok, error) => socket.data.handshaken(error as SocketError),
  data: (socket, chunk) => socket.data.data(chunk),
  drain: (socket) => socket.data.drain(),
  end: (socket) => socket.data.ended(),
  close: (socket, error) => socket.data.closed(error as SocketError),
  error: (socket, error) => socket.data.failed(error as SocketError),
};

/** Inside a channel that is no socket, such as a stream of a tunnel. */
export class InnerTlsChannel extends ToldChannel implements Channel {
  readonly #carrier: ChannelBytes;
  readonly #secure: StreamTls;
  #handshake: HandshakeUser | null;
  #writable = true;

  constructor(channel: ChannelWithUser, handshake: BackendHandshake, user: HandshakeUser) {
    super();
    this.#handshake = user;
    this.#carrier = new ChannelBytes(channel);
    this.#secure = connectBackendOverStream(this.#carrier.duplex, handshake, {
      onSecure: (chainDer, alpn, chainError) => {
        const waiting = this.#handshake;
        this.#handshake = null;
        waiting?.secured(this, { chainDer, chainError, alpn: agreed(alpn) });
      },
      onData: (chunk) => this.user?.onBytes(chunk),
      onDrain: () => {
        this.#writable = true;
        this.user?.onWritable();
      },
      onEnd: () => this.tellEnd(),
      onClose: (error) => this.#closed(error),
    });
  }

  /** node:tls keeps what it is given, and then says whether it wants more. */
  write(bytes: Uint8Array): number {
    if (!this.#writable) return 0;
    this.#writable = this.#secure.write(bytes);
    return bytes.length;
  }

  pause(): void {
    this.#secure.pause();
  }

  resume(): void {
    this.#secure.resume();
  }

  end(): void {
    this.#secure.end();
  }

  close(): void {
    this.#secure.end();
  }

  destroy(): void {
    this.user = null;
    this.#handshake = null;
    this.#secure.destroy();
    this.#carrier.destroy();
  }

  #closed(error: Error | null): void {
    this.#carrier.destroy();
    const handshake = this.#handshake;
    this.#handshake = null;
    if (handshake !== null) handshake.handshakeFailed(error?.message ?? CLOSED);
    else this.tellClosed(error?.message ?? null);
  }
}

/** A channel as a Node stream, with its back-pressure both ways. */
class ChannelBytes implements ChannelUser {
  readonly duplex: Duplex;
  readonly #channel: ChannelWithUser;
  /** Written, and not yet taken. */
  #unsent: { bytes: Uint8Array; readonly done: (error?: Error) => void } | null = null;

  constructor(channel: ChannelWithUser) {
    this.#channel = channel;
    channel.user = this;
    this.duplex = new Duplex({
      allowHalfOpen: true,
      read: () => channel.resume(),
      write: (bytes: Uint8Array, _encoding, done) => {
        this.#unsent = { bytes, done };
        this.#send();
      },
      final: (done) => {
        channel.end();
        done();
      },
    });
    this.duplex.on("error", () => {}); // told by TLS, which reads from it
  }

  destroy(): void {
    this.#unsent = null;
    this.#channel.destroy();
    this.duplex.destroy();
  }

  onBytes(chunk: Uint8Array): void {
    if (!this.duplex.push(Buffer.from(chunk))) this.#channel.pause();
  }

  onWritable(): void {
    this.#send();
  }

  onPeerEnd(): void {
    this.duplex.push(null);
  }

  onChannelClosed(error: string | null): void {
    if (error === null) this.duplex.push(null);
    else this.duplex.destroy(new Error(error));
  }

  #send(): void {
    const unsent = this.#unsent;
    if (unsent === null) return;
    const taken = this.#channel.write(unsent.bytes);
    if (taken < 0) {
      this.#unsent = null;
      return unsent.done(new Error("the connection is gone"));
    }
    if (taken < unsent.bytes.length) {
      unsent.bytes = unsent.bytes.subarray(taken);
      return;
    }
    this.#unsent = null;
    unsent.done();
  }
}
