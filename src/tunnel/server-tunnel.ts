// The server end of HBONE: one tunnel accepted at port 15008, from the certificate to the last of its streams. What a CONNECT is for, and
// whether it may have it, is for the place where it was accepted.

import type { Socket, SocketHandler } from "bun";
import { type IpAddress, parseIp, type SocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { judgePeer } from "../identity/peer-identity.ts";
import { cancelDeadline, type DeadlineHandle, type DeadlineQueue, type Expiring } from "../net/deadlines.ts";
import { localAddress } from "../net/original-destination.ts";
import { type NativeTlsSocket, peerChain, upgradeServer } from "../net/tls.ts";
import { HBONE_PORT } from "../policy/ports.ts";
import type { ByteRange } from "../wire/http/byte-range.ts";
import { Http2Connection, type Http2Handler } from "../wire/http2/connection.ts";
import { ErrorCode, errorName, type Http2Error } from "../wire/http2/errors.ts";
import type { HeaderList } from "../wire/http2/headers.ts";
import type { Http2Stream } from "../wire/http2/stream.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { TunnelContext } from "./context.ts";
import type { SocketError } from "./endpoint-socket.ts";
import type { Handshake } from "./handshakes.ts";
import type { LiveConnection, LiveConnectionDescription } from "./live-connection.ts";
import type { TunnelStreamUser } from "./client-tunnel.ts";
import type { ChainLink } from "./revocations.ts";
import { TunnelTransport } from "./transport.ts";

/** One CONNECT that a peer has opened. */
export interface ServerStreamUser extends TunnelStreamUser {
  request(headers: HeaderList, endStream: boolean): void;
}

/** Where tunnels are accepted: whose identity is shown, and what their streams are for. */
export interface TunnelPlace {
  /** Null while the configuration does not tell; asked again by `judgeAgain`. */
  identity(): SpiffeId | null;
  /** Why there is none, and what would give it one: for a person. */
  explainNoIdentity(): string;
  /** The tunnels that live, and what its streams add. */
  readonly connections: Set<LiveConnection>;
  open(tunnel: ServerTunnel, stream: Http2Stream): ServerStreamUser;
  /** A peer that got no tunnel. */
  refused(cause: CloseCause, peerIp: IpAddress): void;
}

/** TLS's own word for it, before any handshake: a fatal alert of one record (RFC 8446, section 6.2). */
const ALERT_INTERNAL_ERROR = Uint8Array.of(21, 3, 3, 0, 2, 2, 80);

type Phase = "waiting" | "tls" | "ready" | "draining" | "closed";

export class ServerTunnel implements Http2Handler, Expiring, LiveConnection, Handshake {
  readonly context: TunnelContext;
  readonly place: TunnelPlace;
  readonly openedMs: number;
  transport!: TunnelTransport;
  /** Set by the handshake, before any stream. */
  peerIdentity!: SpiffeId;
  peerIp!: IpAddress;
  peerPort = 0;
  localIp!: IpAddress;
  /** The two ends of the tunnel: what all its streams are reported with. */
  peerAddress!: SocketAddress;
  localAddress!: SocketAddress;
  #chain: readonly ChainLink[] = [];
  #phase: Phase = "waiting";
  #socket: Socket<ServerTunnel> | NativeTlsSocket<ServerTunnel> | null = null;
  #deadline: DeadlineHandle | null = null;
  #pingSentMs = 0;
  #settingsSeen = false;
  /** Asked to drain before it was up: it comes up first, as its peer has connections waiting for it. */
  #drainWhenReady = false;

  readonly #closed: () => void;

  /** @param closed called once when the tunnel is gone. */
  constructor(context: TunnelContext, place: TunnelPlace, closed: () => void) {
    this.context = context;
    this.place = place;
    this.openedMs = context.nowMs();
    this.#closed = closed;
  }

  // 1. TCP accepted: hold it until our certificate is there, then shake hands.

  accepted(socket: Socket<ServerTunnel>): void {
    this.#socket = socket;
    const peerIp = parseIp(socket.remoteAddress);
    const local = localAddress((socket as unknown as { fd: number }).fd);
    if (peerIp === null || local === null) return this.#close(causes.tlsFailed("the connection was gone before it was read"));
    this.peerIp = peerIp;
    this.peerPort = socket.remotePort;
    this.localIp = local.ip;
    this.peerAddress = { ip: peerIp, port: this.peerPort };
    this.localAddress = { ip: local.ip, port: HBONE_PORT };
    const { admission, handshakes, reporter } = this.context;
    const refusal = admission.refusal((socket as unknown as { fd: number }).fd) !== null ? "full" : handshakes.begin(this, peerIp);
    if (refusal !== null) {
      reporter.handshakeRefused(refusal);
      return this.#close(causes.limit(`handshake from ${peerIp} not begun: ${refusal}`));
    }
    this.place.connections.add(this);
    this.#deadline = this.context.deadlines.tls.add(this, this.openedMs);
    this.#startTls(socket);
  }

  #startTls(socket: Socket<ServerTunnel>): void {
    const identity = this.place.identity();
    if (identity === null) {
      socket.pause();
      // judgeAgain() comes back here when the workload is known. Whoever shakes hands waits no longer than we would.
      return this.#await(this.context.deadlines.workload);
    }
    const tls = this.context.identities.tlsContext(identity, this.context.clock.wallMs());
    if (tls !== null) {
      this.#phase = "tls";
      this.#socket = upgradeServer(socket as Socket<unknown>, tls, tlsHandler, this);
      return;
    }
    socket.pause();
    this.context.identities.whenAvailable(identity, (available) => {
      if (this.#phase !== "waiting") return;
      if (!available) return this.#refuseUnproved();
      this.#startTls(socket);
      socket.resume();
    });
  }

  handshake(socket: NativeTlsSocket<ServerTunnel>, ok: boolean, error: Error | null): void {
    if (this.#phase !== "tls") return;
    cancelDeadline(this.#deadline);
    if (!ok || !socket.authorized) {
      const seen = (error as SocketError | null)?.code ?? error?.message ?? "no verified certificate";
      return this.#refuse(causes.tlsFailed(`TLS handshake from ${this.peerIp} failed: ${seen}`));
    }
    if (socket.alpnProtocol !== "h2") return this.#refuse(causes.tlsFailed(`TLS handshake from ${this.peerIp}: ALPN is ${socket.alpnProtocol || "absent"}, wanted h2`));
    const judged = judgePeer(peerChain(socket as NativeTlsSocket<unknown>), { role: "client", trustDomains: this.context.config.trustDomains }, this.context.clock.wallMs());
    if (!judged.ok) return this.#refuse(causes.identityRefused(`HBONE from ${this.peerIp} refused: ${judged.error.message}`));
    const revoked = this.context.revocations.find(judged.value.chain);
    if (revoked !== null) return this.#refuse(causes.certificateRevoked(`HBONE from ${this.peerIp} refused: ${revoked}`));
    this.peerIdentity = judged.value.id;
    this.#chain = judged.value.chain;
    this.#phase = "ready";
    this.context.handshakes.ended(this, false);
    const h2 = new Http2Connection({ role: "server", settings: this.context.http2.server, limits: this.context.budget.http2Limits, handler: this, nowMs: this.context.nowMs });
    this.transport = new TunnelTransport(h2, this.context.nowMs());
    this.#deadline = this.context.deadlines.http2.add(this, this.context.nowMs());
    this.transport.attach(socket);
    if (this.#drainWhenReady) this.drain();
  }

  tlsData(chunk: Uint8Array): void {
    if (this.#phase === "ready" || this.#phase === "draining") this.transport.receive(chunk, this.context.nowMs());
  }

  tlsDrain(): void {
    if (this.#phase === "ready" || this.#phase === "draining") this.transport.onDrain();
  }

  tlsClose(error: SocketError | null): void {
    if (this.#phase === "closed") return cancelDeadline(this.#deadline);
    const seen = error?.code ?? "the peer closed the connection";
    if (this.#phase === "tls" || this.#phase === "waiting") this.#refuse(causes.tlsFailed(`TLS handshake from ${this.peerIp} failed: ${seen}`));
    else if (!this.#settingsSeen) this.#refuse(causes.http2Failed(`HTTP/2 from ${this.peerIp}: TLS succeeded, but before any SETTINGS came: ${seen}; did it refuse our certificate?`));
    else this.#close(causes.tunnelLost(`tunnel from ${this.peerIp}: ${seen}`));
  }

  onDeadline(): void {
    this.#deadline = null;
    if (this.#phase === "closed") return void this.#socket?.terminate();
    if (this.#phase === "ready" || this.#phase === "draining") {
      return this.#refuse(causes.http2Failed(`HTTP/2 from ${this.peerIp}: TLS succeeded, but no SETTINGS came within ${this.context.config.http2TimeoutMs} ms`));
    }
    if (this.#phase === "waiting") return this.#refuseUnproved();
    this.#refuse(causes.tlsFailed(`TLS handshake from ${this.peerIp}: not finished within ${this.context.config.tlsTimeoutMs} ms`));
  }

  // 2. HTTP/2 events: each stream has its own object.

  onRequest(stream: Http2Stream, headers: HeaderList, endStream: boolean): void {
    const user = this.place.open(this, stream);
    stream.user = user;
    user.request(headers, endStream);
  }

  onResponse(): void {}
  onInformational(): void {}

  onData(stream: Http2Stream, body: ByteRange, endStream: boolean): void {
    (stream.user as TunnelStreamUser).onStreamData(body, endStream);
  }

  onTrailers(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser).onStreamEnd();
  }

  onSendable(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser).onSendable();
  }

  onReset(stream: Http2Stream, code: number, by: "peer" | "us" | "connection"): void {
    const cause = by === "connection" ? causes.tunnelLost(`tunnel from ${this.peerIp} ended`) : causes.streamReset(code, errorName(code), by);
    (stream.user as TunnelStreamUser | undefined)?.onStreamReset(code, by, cause);
  }

  onClosed(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser | undefined)?.onStreamClosed();
    this.#closeWhenDrained();
  }

  onSettings(): void {
    if (this.#settingsSeen) return;
    this.#settingsSeen = true;
    cancelDeadline(this.#deadline);
    this.context.reporter.tunnelOpened("inbound");
  }

  onGoaway(): void {}

  onPong(): void {
    this.#pingSentMs = 0;
  }

  /** Not before the second GOAWAY: CONNECTs that were on the way when the first one left are still served. */
  #closeWhenDrained(): void {
    if (this.#phase === "draining" && this.transport.h2.drained) this.#close(causes.clean);
  }

  onFatal(error: Http2Error): void {
    this.context.reporter.http2Fatal(error.counter);
    this.transport.flush();
    this.#close(causes.tunnelLost(`HTTP/2 from ${this.peerIp}: ${error.message}`));
  }

  onOutput(): void {
    this.transport?.schedule();
  }

  // 3. Life of the tunnel

  get activeStreams(): number {
    return this.#phase === "ready" || this.#phase === "draining" ? this.transport.h2.activeStreams : 0;
  }

  /** See ByteBudget: the pressure is over. */
  giveWindowBack(): void {
    if (this.#phase === "ready" || this.#phase === "draining") this.transport.h2.creditAgain();
  }

  /** Its place went to a source with fewer handshakes under way. */
  evict(): void {
    this.context.reporter.handshakeRefused("evicted");
    this.#close(causes.limit(`handshake from ${this.peerIp} given up: others wait, and this source has the most under way`));
  }

  /** Keep-alive, as on the client's side. */
  tick(nowMs: number): void {
    if (this.#phase !== "ready" && this.#phase !== "draining") return;
    this.#closeWhenDrained();
    const { pingIdleMs, pingAnswerMs } = this.context.http2;
    if (this.#pingSentMs > 0) {
      if (nowMs - this.#pingSentMs > pingAnswerMs) this.#close(causes.tunnelLost(`HTTP/2 PING to ${this.peerIp} was not answered within ${pingAnswerMs} ms`));
    } else if (nowMs - this.transport.lastReceivedMs > pingIdleMs) {
      this.#pingSentMs = nowMs;
      this.transport.h2.ping();
    }
  }

  /** GOAWAY: the peer opens a new tunnel for new connections; those in this one go on. */
  drain(): void {
    if (this.#phase === "waiting" || this.#phase === "tls") this.#drainWhenReady = true;
    if (this.#phase !== "ready") return;
    this.#phase = "draining";
    this.transport.h2.goaway(ErrorCode.noError, "draining");
    this.transport.flush();
    this.#closeWhenDrained();
  }

  judgeAgain(): void {
    if (this.#phase === "waiting" && this.#socket !== null && this.place.identity() !== null) {
      const socket = this.#socket as Socket<ServerTunnel>;
      this.#await(this.context.deadlines.tls);
      this.#startTls(socket);
      if ((this.#phase as Phase) === "tls") socket.resume();
    }
  }

  /** A revocation list has changed. */
  checkRevoked(): void {
    const revoked = this.context.revocations.find(this.#chain);
    if (revoked !== null) this.destroy(causes.certificateRevoked(`tunnel from ${this.peerIp} ended: ${revoked}`));
  }

  destroy(cause: CloseCause): void {
    this.#close(cause);
  }

  describe(): LiveConnectionDescription | null {
    return null; // its streams are the connections
  }

  #await(deadline: DeadlineQueue): void {
    cancelDeadline(this.#deadline);
    this.#deadline = deadline.add(this, this.context.nowMs());
  }

  /** Nothing to show who we are: the peer is told at once, rather than left to its own time limit. */
  #refuseUnproved(): void {
    const identity = this.place.identity();
    const why = identity === null ? this.place.explainNoIdentity() : this.context.identities.explain(identity);
    (this.#socket as Socket<ServerTunnel>).write(ALERT_INTERNAL_ERROR);
    this.#refuse(causes.certificateMissing(`TLS handshake from ${this.peerIp} not begun: ${why}`));
  }

  #refuse(cause: CloseCause): void {
    this.place.refused(cause, this.peerIp);
    this.#close(cause);
  }

  #close(cause: CloseCause): void {
    if (this.#phase === "closed") return;
    const wasUp = this.#phase === "ready" || this.#phase === "draining";
    this.#phase = "closed";
    cancelDeadline(this.#deadline);
    this.context.handshakes.ended(this, cause.code !== "drained" && cause.code !== "certificate_missing");
    this.place.connections.delete(this);
    this.#closed();
    if (wasUp) {
      if (cause.code === "clean" || cause.code === "drained") this.transport.flush();
      this.transport.h2.receiveEnd();
      this.transport.detach();
    }
    if (!wasUp || !this.#settingsSeen) return void this.#socket?.close();
    this.context.reporter.tunnelClosed("inbound");
    // Our last words are read before the descriptor goes; a peer that never ends does not keep it.
    this.#socket?.end();
    this.#deadline = this.context.deadlines.linger.add(this, this.context.nowMs());
  }
}

/**
 * For adoptListener-like use: the raw socket's callbacks before the upgrade. Without `data`: after it, that would be given a copy of the
 * ciphertext. The runtime asks for one of `data` and `drain`.
 */
export function serverTunnelHandler(make: () => ServerTunnel): SocketHandler<ServerTunnel> {
  return {
    open(socket) {
      const tunnel = make();
      socket.data = tunnel;
      tunnel.accepted(socket);
    },
    drain: () => {},
    close: (socket, error) => socket.data.tlsClose((error as SocketError | undefined) ?? null),
    error: () => {},
  };
}

const tlsHandler: SocketHandler<ServerTunnel> = {
  open: () => {},
  handshake: (socket, ok, error) => socket.data.handshake(socket as unknown as NativeTlsSocket<ServerTunnel>, ok, error as Error | null),
  data: (socket, chunk) => socket.data.tlsData(chunk),
  drain: (socket) => socket.data.tlsDrain(),
  end: (socket) => socket.data.tlsClose(null),
  close: (socket, error) => socket.data.tlsClose((error as SocketError | undefined) ?? null),
  error: () => {},
};
