// The client end of one HBONE tunnel: TCP, TLS and HTTP/2 to a destination's port 15008, then CONNECT streams.
// A tunnel belongs to one pair of identities and one pair of workloads, never to an address alone.

import type { Socket, SocketHandler } from "bun";
import type { WorkloadUid } from "../core/brand.ts";
import { formatSocketAddress, type SocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { judgePeer } from "../identity/peer-identity.ts";
import { cancelDeadline, type DeadlineHandle, type Expiring } from "../net/deadlines.ts";
import { dial } from "../net/dial.ts";
import { errnoName } from "../net/libc.ts";
import { type NativeTlsSocket, peerChain, serverChainError, type TlsContext, upgradeClient } from "../net/tls.ts";
import { type Http2Handler, Http2Connection } from "../wire/http2/connection.ts";
import { ErrorCode, errorName, type Http2Error } from "../wire/http2/errors.ts";
import { type HeaderBlock, type HeaderList, headerValue } from "../wire/http2/headers.ts";
import type { Http2Stream } from "../wire/http2/stream.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { DataPlaneContext } from "./context.ts";
import type { SocketError } from "./endpoint-socket.ts";
import type { ChainLink } from "./revocations.ts";
import { TunnelTransport } from "./transport.ts";

/** What a tunnel is for; two connections share a tunnel only when all of it is equal. */
export interface TunnelTarget {
  /** All fields below joined: the pool's key. */
  readonly key: string;
  readonly sourceIdentity: SpiffeId;
  readonly namespaceFd: number;
  readonly tunnelTo: SocketAddress;
  readonly acceptedIdentities: readonly SpiffeId[];
  readonly destinationUid: WorkloadUid | null;
}

/** One CONNECT stream's owner. */
export interface TunnelStreamUser {
  /** The answer to CONNECT; `status` 0 when it was not a number. */
  onResponse(status: number, headers: HeaderList, ended: boolean): void;
  onStreamData(chunk: Uint8Array, end: boolean): void;
  onStreamEnd(): void;
  onStreamReset(code: number, by: "peer" | "us" | "connection", cause: CloseCause): void;
  onSendable(): void;
  onStreamClosed(): void;
}

/** Told to the pool. */
export interface TunnelOwner {
  tunnelReady(tunnel: OutboundTunnel): void;
  /** A stream ended or the peer allowed more: there may be room. */
  tunnelHasRoom(tunnel: OutboundTunnel): void;
  /** Before it was ready: `cause` says why. After: it is gone. Once. */
  tunnelClosed(tunnel: OutboundTunnel, cause: CloseCause): void;
}

/** Why a pooled tunnel takes no new streams: a label of `weft_pool_tunnels_retired_total`. */
export type RetireReason = "idle" | "age" | "goaway" | "destination_changed" | "certificate_renewed" | "workload_left" | "drain";

/** Streams we open before the peer's SETTINGS have said how many it takes: RFC 9113 recommends that a peer allows no fewer. */
const STREAMS_BEFORE_SETTINGS = 100;

type Phase = "tcp" | "tls" | "ready" | "retiring" | "closed";

export class OutboundTunnel implements Http2Handler, Expiring {
  readonly target: TunnelTarget;
  readonly openedMs: number;
  /** Identity the peer proved; set before the tunnel is ready. */
  peerIdentity: SpiffeId | null = null;
  #chain: readonly ChainLink[] = [];
  idleSinceMs: number;
  readonly #context: DataPlaneContext;
  readonly #owner: TunnelOwner;
  readonly #tls: TlsContext;
  readonly transport: TunnelTransport;
  #phase: Phase = "tcp";
  #socket: Socket<unknown> | NativeTlsSocket<OutboundTunnel> | null = null;
  #deadline: DeadlineHandle | null = null;
  #settingsSeen = false;
  #pingSentMs = 0;

  constructor(context: DataPlaneContext, target: TunnelTarget, tls: TlsContext, owner: TunnelOwner) {
    this.#context = context;
    this.target = target;
    this.#tls = tls;
    this.#owner = owner;
    this.openedMs = this.idleSinceMs = context.clock.monotonicMs();
    const h2 = new Http2Connection({ role: "client", settings: context.http2.client, limits: context.budget.http2Limits, handler: this, nowMs: context.nowMs });
    this.transport = new TunnelTransport(h2, this.openedMs);
  }

  /** Starts the TCP connection. A failure to start is reported like any other, through the owner. */
  open(): void {
    const fd = dial({
      namespaceFd: this.target.namespaceFd,
      to: this.target.tunnelTo,
      mark: this.#context.config.packetMark,
      transparentSource: null,
      keepalive: this.#context.keepalive,
    });
    if (fd < 0) {
      this.#close(causes.connectFailed(`${this.#attempt("TCP connect")} failed: ${errnoName(fd)}`));
      return;
    }
    this.#deadline = this.#context.deadlines.connect.add(this, this.#context.clock.monotonicMs());
    Bun.connect({ fd, data: this, allowHalfOpen: true, socket: rawHandler } as unknown as Parameters<typeof Bun.connect<OutboundTunnel>>[0]).catch(() => {});
  }

  get ready(): boolean {
    return this.#phase === "ready";
  }

  get connecting(): boolean {
    return this.#phase === "tcp" || this.#phase === "tls";
  }

  /** Streams that may still be opened now. */
  get room(): number {
    if (this.#phase !== "ready" || !this.transport.h2.canRequest) return 0;
    const peerMax = this.#settingsSeen ? this.transport.h2.remoteMaxConcurrentStreams : STREAMS_BEFORE_SETTINGS;
    return Math.max(0, Math.min(this.#context.config.poolStreamsMax, peerMax) - this.transport.h2.activeStreams);
  }

  get activeStreams(): number {
    return this.transport.h2.activeStreams;
  }

  /** Opens a CONNECT stream; null when there is no room after all. */
  openStream(block: HeaderBlock, user: TunnelStreamUser): Http2Stream | null {
    if (this.room === 0) return null;
    const stream = this.transport.h2.request(block, false);
    if (stream !== null) stream.user = user;
    return stream;
  }

  /** No new streams from here on; closes when the last one ends. */
  retire(reason: RetireReason): void {
    if (this.#phase === "closed" || this.#phase === "retiring") return;
    if (this.#phase !== "ready") {
      this.destroy(causes.workloadGone);
      return;
    }
    this.#context.reporter.tunnelRetired(reason);
    this.#phase = "retiring";
    this.transport.h2.goaway(ErrorCode.noError, "retired");
    this.#closeWhenEmpty();
  }

  destroy(cause: CloseCause): void {
    this.#close(cause);
  }

  /** A revocation list has changed. */
  checkRevoked(): void {
    const revoked = this.#context.revocations.find(this.#chain);
    if (revoked !== null) this.#close(causes.certificateRevoked(`tunnel to ${formatSocketAddress(this.target.tunnelTo)} ended: ${revoked}`));
  }

  /** Keep-alive by PING: sent when nothing came for a while, and the tunnel is lost when no answer comes. */
  tick(nowMs: number): void {
    if (this.#phase !== "ready" && this.#phase !== "retiring") return;
    if (this.#pingSentMs > 0) {
      if (nowMs - this.#pingSentMs > this.#context.http2.pingAnswerMs) {
        this.#close(causes.tunnelLost(`${this.#attempt("HTTP/2 PING")} was not answered within ${this.#context.http2.pingAnswerMs} ms`));
      }
    } else if (nowMs - this.transport.lastReceivedMs > this.#context.http2.pingIdleMs) {
      this.ping();
    }
  }

  /** See ByteBudget: the pressure is over. */
  giveWindowBack(): void {
    this.transport.h2.creditAgain();
  }

  /** Asks now whether the peer is still there. */
  ping(): void {
    if (this.#pingSentMs > 0 || this.#phase === "closed") return;
    this.#pingSentMs = this.#context.clock.monotonicMs();
    this.transport.h2.ping();
  }

  onDeadline(): void {
    this.#deadline = null;
    if (this.#phase === "closed") return void this.#socket?.terminate();
    const { connectTimeoutMs, tlsTimeoutMs, http2TimeoutMs } = this.#context.config;
    if (this.#phase === "tcp") this.#close(causes.connectTimeout(`${this.#attempt("TCP connect")}: no answer within ${connectTimeoutMs} ms; is a NetworkPolicy or firewall in the way of port ${this.target.tunnelTo.port}?`));
    else if (this.#phase === "tls") this.#close(causes.tlsFailed(`${this.#attempt("TLS handshake")}: not finished within ${tlsTimeoutMs} ms`));
    else this.#close(causes.http2Failed(`${this.#attempt("HTTP/2")}: TLS succeeded, but no SETTINGS came within ${http2TimeoutMs} ms`));
  }

  // Socket events

  rawOpen(socket: Socket<OutboundTunnel>): void {
    this.#socket = socket as Socket<unknown>;
  }

  rawDrain(socket: Socket<OutboundTunnel>): void {
    if (this.#phase !== "tcp") return;
    cancelDeadline(this.#deadline);
    this.#phase = "tls";
    this.#deadline = this.#context.deadlines.tls.add(this, this.#context.clock.monotonicMs());
    this.#socket = upgradeClient(socket as Socket<unknown>, this.#tls, tlsHandler, this);
  }

  rawClose(error: SocketError | null): void {
    if (this.#phase === "tcp") this.#close(causes.connectFailed(`${this.#attempt("TCP connect")} failed: ${error?.code ?? "closed"}`));
  }

  handshake(socket: NativeTlsSocket<OutboundTunnel>, error: Error | null): void {
    if (this.#phase !== "tls") return;
    cancelDeadline(this.#deadline);
    const chainError = serverChainError(socket, error);
    if (chainError !== null) return this.#close(causes.tlsFailed(`${this.#attempt("TLS handshake")} failed: ${chainError}`));
    if (socket.alpnProtocol !== "h2") return this.#close(causes.tlsFailed(`${this.#attempt("TLS handshake")}: the peer chose ALPN ${socket.alpnProtocol || "none"}, wanted h2`));
    const judged = judgePeer(peerChain(socket as NativeTlsSocket<unknown>), { role: "server", anyOf: this.target.acceptedIdentities }, this.#context.clock.wallMs());
    if (!judged.ok) return this.#close(causes.identityRefused(`${this.#attempt("HBONE connect")} refused: ${judged.error.message}`));
    const revoked = this.#context.revocations.find(judged.value.chain);
    if (revoked !== null) return this.#close(causes.certificateRevoked(`${this.#attempt("HBONE connect")} refused: ${revoked}`));
    this.peerIdentity = judged.value.id;
    this.#chain = judged.value.chain;
    this.#phase = "ready";
    this.#deadline = this.#context.deadlines.http2.add(this, this.#context.nowMs());
    this.transport.attach(socket);
    this.#owner.tunnelReady(this);
  }

  tlsData(chunk: Uint8Array): void {
    if (this.#phase === "closed") return;
    this.transport.receive(chunk, this.#context.nowMs());
  }

  tlsDrain(): void {
    this.transport.onDrain();
  }

  tlsClose(error: SocketError | null): void {
    if (this.#phase === "closed") return cancelDeadline(this.#deadline);
    const seen = error?.code ?? "the peer closed the connection";
    if (this.#phase === "tls") this.#close(causes.tlsFailed(`${this.#attempt("TLS handshake")} failed: ${seen}`));
    else if (!this.#settingsSeen) this.#close(causes.http2Failed(`${this.#attempt("HTTP/2")}: TLS succeeded, but before any SETTINGS came: ${seen}; did it refuse our certificate?`));
    else this.#close(causes.tunnelLost(`connection to ${formatSocketAddress(this.target.tunnelTo)}: ${seen}`));
  }

  // HTTP/2 events

  onRequest(): void {}
  onInformational(): void {}

  onResponse(stream: Http2Stream, headers: HeaderList, endStream: boolean): void {
    const status = headerValue(headers, ":status") ?? "";
    (stream.user as TunnelStreamUser).onResponse(/^[0-9]{3}$/.test(status) ? Number(status) : 0, headers, endStream);
  }

  onData(stream: Http2Stream, chunk: Uint8Array, endStream: boolean): void {
    (stream.user as TunnelStreamUser).onStreamData(chunk, endStream);
  }

  onTrailers(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser).onStreamEnd();
  }

  onSendable(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser).onSendable();
  }

  onReset(stream: Http2Stream, code: number, by: "peer" | "us" | "connection"): void {
    const cause = by === "connection" ? this.#lost : causes.streamReset(code, errorName(code));
    (stream.user as TunnelStreamUser).onStreamReset(code, by, cause);
  }

  onClosed(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser | undefined)?.onStreamClosed();
    if (this.#phase === "closed") return;
    if (this.transport.h2.activeStreams === 0) this.idleSinceMs = this.#context.clock.monotonicMs();
    if (this.#phase === "retiring") this.#closeWhenEmpty();
    else this.#owner.tunnelHasRoom(this);
  }

  onSettings(): void {
    if (!this.#settingsSeen) {
      this.#settingsSeen = true;
      cancelDeadline(this.#deadline);
      this.#context.reporter.tunnelOpened("outbound");
    }
    this.#owner.tunnelHasRoom(this);
  }

  onGoaway(): void {
    this.retire("goaway");
  }

  onPong(): void {
    this.#pingSentMs = 0;
  }

  onFatal(error: Http2Error): void {
    this.#context.reporter.http2Fatal(error.counter);
    this.transport.flush();
    this.#close(causes.tunnelLost(`HTTP/2 with ${formatSocketAddress(this.target.tunnelTo)}: ${error.message}`));
  }

  onOutput(): void {
    this.transport?.schedule();
  }

  #lost: CloseCause = causes.tunnelLost("closed");

  #attempt(what: string): string {
    return `${what} to ${formatSocketAddress(this.target.tunnelTo)}`;
  }

  #closeWhenEmpty(): void {
    if (this.transport.h2.activeStreams === 0) this.#close(causes.clean);
  }

  #close(cause: CloseCause): void {
    if (this.#phase === "closed") return;
    const wasUp = this.#phase === "ready" || this.#phase === "retiring";
    this.#phase = "closed";
    this.#lost = cause;
    cancelDeadline(this.#deadline);
    if (cause.code === "clean") this.transport.flush();
    this.transport.h2.receiveEnd();
    this.transport.detach();
    if (cause.code === "clean") {
      this.#socket?.end();
      this.#deadline = this.#context.deadlines.linger.add(this, this.#context.nowMs());
    } else if (wasUp) this.#socket?.close();
    else this.#socket?.terminate();
    if (this.#settingsSeen) this.#context.reporter.tunnelClosed("outbound");
    else if (cause.code !== "clean") this.#context.reporter.tunnelFailed("outbound", cause);
    this.#owner.tunnelClosed(this, cause);
  }
}

const rawHandler: SocketHandler<OutboundTunnel> = {
  open: (socket) => socket.data.rawOpen(socket),
  drain: (socket) => socket.data.rawDrain(socket),
  data: () => {}, // after the upgrade: ciphertext, of no interest
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
