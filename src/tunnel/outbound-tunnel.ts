// A tunnel over a TCP connection of its own, to a destination's port 15008: TCP, then TLS in place.

import type { Socket, SocketHandler } from "bun";
import { formatSocketAddress } from "../core/ip.ts";
import { cancelDeadline } from "../net/deadlines.ts";
import { dial } from "../net/dial.ts";
import { errnoName } from "../net/libc.ts";
import { type NativeTlsSocket, peerChain, serverChainError, type TlsContext, upgradeClient } from "../net/tls.ts";
import { type ChannelEnd, ClientTunnel, type TunnelOwner, type TunnelTarget } from "./client-tunnel.ts";
import { causes } from "./close-cause.ts";
import type { TunnelContext } from "./context.ts";
import type { SocketError } from "./endpoint-socket.ts";

type Step = "tcp" | "tls" | "done";
/** What a socket says of a peer that is gone without a word. */
const BROKEN_OFF: ReadonlySet<string | undefined> = new Set(["ECONNRESET", "EPIPE"]);

export class OutboundTunnel extends ClientTunnel {
  readonly #tls: TlsContext;
  #step: Step = "tcp";
  #socket: Socket<unknown> | NativeTlsSocket<OutboundTunnel> | null = null;

  constructor(context: TunnelContext, target: TunnelTarget, tls: TlsContext, owner: TunnelOwner) {
    super(context, target, owner);
    this.#tls = tls;
  }

  override open(): void {
    const { config, keepalive, deadlines, nowMs } = this.context;
    const fd = dial({ namespaceFd: this.target.namespaceFd, to: this.target.tunnelTo, mark: config.packetMark, transparentSource: null, keepalive });
    if (fd < 0) {
      this.destroy(causes.connectFailed(`${this.attempt("TCP connect")} failed: ${errnoName(fd)}`));
      return;
    }
    this.deadline = deadlines.connect.add(this, nowMs());
    Bun.connect({ fd, data: this, allowHalfOpen: true, socket: rawHandler } as unknown as Parameters<typeof Bun.connect<OutboundTunnel>>[0]).catch(() => {});
  }

  protected override attempt(what: string): string {
    return `${what} to ${formatSocketAddress(this.target.tunnelTo)}`;
  }

  protected override setupTimedOut(): void {
    const { connectTimeoutMs, tlsTimeoutMs } = this.context.config;
    if (this.#step === "tcp") this.destroy(causes.connectTimeout(`${this.attempt("TCP connect")}: no answer within ${connectTimeoutMs} ms; is a NetworkPolicy or firewall in the way of port ${this.target.tunnelTo.port}?`));
    else this.destroy(causes.tlsFailed(`${this.attempt("TLS handshake")}: not finished within ${tlsTimeoutMs} ms`));
  }

  protected override endChannel(how: ChannelEnd): void {
    if (how === "clean") this.#socket?.end();
    else if (how === "lost") this.#socket?.close();
    else this.#socket?.terminate();
  }

  protected override lingered(): void {
    this.#socket?.terminate();
  }

  // Socket events

  rawOpen(socket: Socket<OutboundTunnel>): void {
    this.#socket = socket as Socket<unknown>;
    if (this.closed) socket.terminate();
  }

  rawDrain(socket: Socket<OutboundTunnel>): void {
    if (this.#step !== "tcp" || this.closed) return;
    cancelDeadline(this.deadline);
    this.#step = "tls";
    this.deadline = this.context.deadlines.tls.add(this, this.context.nowMs());
    this.#socket = upgradeClient(socket as Socket<unknown>, this.#tls, tlsHandler, this);
  }

  rawClose(error: SocketError | null): void {
    if (this.#step === "tcp") this.destroy(causes.connectFailed(`${this.attempt("TCP connect")} failed: ${error?.code ?? "closed"}`));
  }

  handshake(socket: NativeTlsSocket<OutboundTunnel>, error: Error | null): void {
    if (this.#step !== "tls" || this.closed) return;
    this.#step = "done";
    const chainError = serverChainError(socket, error);
    if (chainError !== null) return this.destroy(causes.tlsFailed(`${this.attempt("TLS handshake")} failed: ${chainError}`));
    this.secured(peerChain(socket as NativeTlsSocket<unknown>), socket.alpnProtocol, socket);
  }

  tlsData(chunk: Uint8Array): void {
    this.received(chunk);
  }

  tlsDrain(): void {
    this.transport.onDrain();
  }

  tlsClose(error: SocketError | null): void {
    this.channelClosed(error?.code ?? "the peer closed the connection", error !== null && !BROKEN_OFF.has(error.code));
  }
}

/** Without `data`: after the upgrade it would be given a copy of the ciphertext. */
const rawHandler: SocketHandler<OutboundTunnel> = {
  open: (socket) => socket.data.rawOpen(socket),
  drain: (socket) => socket.data.rawDrain(socket),
  close: (socket, error) => socket.data.rawClose((error as SocketError | undefined) ?? null),
  error: () => {},
};

const tlsHandler: SocketHandler<OutboundTunnel> = {
  open: () => {},
  handshake: (socket, _ok, error) => socket.data.handshake(socket as unknown as NativeTlsSocket<OutboundTunnel>, error as Error | null),
  data: (socket, chunk) => socket.data.tlsData(chunk),
  drain: (socket) => socket.data.tlsDrain(),
  end: (socket) => socket.data.tlsClose(null),
  close: (socket, error) => socket.data.tlsClose((error as SocketError | undefined) ?? null),
  error: () => {},
};
