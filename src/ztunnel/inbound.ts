// The server end of HBONE: one tunnel accepted at port 15008 of a workload, and the CONNECT streams inside it.
// Order matters: the certificate, then the request, then the destination, then the policy, then the application, then 200.

import type { Socket, SocketHandler } from "bun";
import { formatSocketAddress, type IpAddress, isLoopback, parseIp } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { judgePeer } from "../identity/peer-identity.ts";
import type { Service, Workload } from "../mesh/records.ts";
import { cancelDeadline, type DeadlineHandle, type Expiring } from "../net/deadlines.ts";
import { localAddress } from "../net/original-destination.ts";
import { type NativeTlsSocket, peerChain, upgradeServer } from "../net/tls.ts";
import { authorise, type AuthorisationDecision, explainAuthorisation } from "../policy/authorise.ts";
import { type InboundDelivery, judgeInbound, serviceSaid } from "../policy/inbound.ts";
import { identityOf } from "../policy/waypoints.ts";
import { summariseAuthorisation } from "../telemetry/decision-record.ts";
import { type ConnectRequest, readConnect } from "../wire/hbone/connect.ts";
import { Http2Connection, type Http2Handler } from "../wire/http2/connection.ts";
import { ErrorCode, errorName, type Http2Error } from "../wire/http2/errors.ts";
import { encodeStaticBlock, type HeaderBlock, type HeaderList } from "../wire/http2/headers.ts";
import type { Http2Stream } from "../wire/http2/stream.ts";
import { encodeProxyV2 } from "../wire/proxy-protocol/v2.ts";
import type { ByteHolder } from "./byte-budget.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { DataPlaneContext } from "./context.ts";
import { Dialled, type DialOwner } from "./dialled.ts";
import type { PlainSocket, SocketError } from "./endpoint-socket.ts";
import type { Handshake } from "./handshakes.ts";
import { HeldBytes } from "./held-bytes.ts";
import type { LiveConnection, LiveConnectionDescription, LocalWorkload } from "./local-workloads.ts";
import type { TunnelStreamUser } from "./client-tunnel.ts";
import { StreamRelay } from "./relay.ts";
import type { ReportedConnection } from "./report.ts";
import type { ChainLink } from "./revocations.ts";
import { TunnelTransport } from "./transport.ts";

const STATUS_BLOCKS = new Map<number, HeaderBlock>([400, 401, 503].map((status) => [status, encodeStaticBlock([":status", String(status)])]));

type Phase = "waiting" | "tls" | "ready" | "draining" | "closed";

export class InboundTunnel implements Http2Handler, Expiring, LiveConnection, Handshake {
  readonly context: DataPlaneContext;
  readonly local: LocalWorkload;
  readonly openedMs: number;
  transport!: TunnelTransport;
  /** Set by the handshake, before any stream. */
  peerIdentity!: SpiffeId;
  peerIp!: IpAddress;
  peerPort = 0;
  localIp!: IpAddress;
  #chain: readonly ChainLink[] = [];
  #phase: Phase = "waiting";
  #socket: Socket<InboundTunnel> | NativeTlsSocket<InboundTunnel> | null = null;
  #deadline: DeadlineHandle | null = null;
  #pingSentMs = 0;
  #settingsSeen = false;
  /** Asked to drain before it was up: it comes up first, as its peer has connections waiting for it. */
  #drainWhenReady = false;

  readonly #closed: () => void;

  /** @param closed called once when the tunnel is gone. */
  constructor(context: DataPlaneContext, local: LocalWorkload, closed: () => void) {
    this.context = context;
    this.local = local;
    this.openedMs = context.nowMs();
    this.#closed = closed;
  }

  // 1. TCP accepted: hold it until our certificate is there, then shake hands.

  accepted(socket: Socket<InboundTunnel>): void {
    this.#socket = socket;
    const peerIp = parseIp(socket.remoteAddress);
    const local = localAddress((socket as unknown as { fd: number }).fd);
    if (peerIp === null || local === null) return this.#close(causes.tlsFailed("the connection was gone before it was read"));
    this.peerIp = peerIp;
    this.peerPort = socket.remotePort;
    this.localIp = local.ip;
    const { admission, handshakes, reporter } = this.context;
    const refusal = admission.refusal((socket as unknown as { fd: number }).fd) !== null ? "full" : handshakes.begin(this, peerIp);
    if (refusal !== null) {
      reporter.handshakeRefused(refusal);
      return this.#close(causes.limit(`handshake from ${peerIp} not begun: ${refusal}`));
    }
    this.local.connections.add(this);
    this.#deadline = this.context.deadlines.tls.add(this, this.openedMs);
    this.#startTls(socket);
  }

  #startTls(socket: Socket<InboundTunnel>): void {
    const workload = this.context.store.workload(this.local.uid);
    if (workload === undefined) {
      socket.pause();
      return; // judgeAgain() comes back here when the workload is known
    }
    const identity = identityOf(workload);
    const tls = this.context.identities.tlsContext(identity, this.context.clock.wallMs());
    if (tls !== null) {
      this.#phase = "tls";
      this.#socket = upgradeServer(socket as Socket<unknown>, tls, tlsHandler, this);
      return;
    }
    socket.pause();
    this.context.identities.whenAvailable(identity, (available) => {
      if (this.#phase !== "waiting") return;
      if (!available) return this.#close(causes.certificateMissing(`no certificate for ${identity}`));
      this.#startTls(socket);
      socket.resume();
    });
  }

  handshake(socket: NativeTlsSocket<InboundTunnel>, ok: boolean, error: Error | null): void {
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
    this.#refuse(causes.tlsFailed(`TLS handshake from ${this.peerIp}: not finished within ${this.context.config.tlsTimeoutMs} ms`));
  }

  // 2. HTTP/2 events: each stream has its own object.

  onRequest(stream: Http2Stream, headers: HeaderList, endStream: boolean): void {
    const inbound = new InboundStream(this, stream);
    stream.user = inbound;
    inbound.request(headers, endStream);
  }

  onResponse(): void {}
  onInformational(): void {}

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
    if (this.#phase === "waiting" && this.#socket !== null && this.context.store.workload(this.local.uid) !== undefined) {
      const socket = this.#socket as Socket<InboundTunnel>;
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

  #refuse(cause: CloseCause): void {
    this.context.reporter.refusedTunnel(cause, this.peerIp, this.context.store.workload(this.local.uid) ?? null);
    this.#close(cause);
  }

  #close(cause: CloseCause): void {
    if (this.#phase === "closed") return;
    const wasUp = this.#phase === "ready" || this.#phase === "draining";
    this.#phase = "closed";
    cancelDeadline(this.#deadline);
    this.context.handshakes.ended(this, cause.code !== "drained" && cause.code !== "certificate_missing");
    this.local.connections.delete(this);
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

/** One CONNECT: from the request to the relay. */
class InboundStream implements TunnelStreamUser, DialOwner, LiveConnection, ByteHolder {
  readonly #tunnel: InboundTunnel;
  readonly #stream: Http2Stream;
  readonly #openedMs: number;
  #request: ConnectRequest | null = null;
  #destination!: Workload;
  #service: Service | null = null;
  #delivery: InboundDelivery | null = null;
  #decision: AuthorisationDecision | null = null;
  #report: ReportedConnection | null = null;
  #dialled: Dialled | null = null;
  #relay: StreamRelay | null = null;
  /** DATA that came before the 200: allowed by HTTP/2, sent by few. Bounded by the stream's window, and by the budget. */
  readonly #early: HeldBytes;
  readonly progressMs: number;
  #ended = false;
  #closed = false;

  constructor(tunnel: InboundTunnel, stream: Http2Stream) {
    this.#tunnel = tunnel;
    this.#stream = stream;
    this.#openedMs = this.progressMs = tunnel.context.nowMs();
    this.#early = new HeldBytes(tunnel.context.budget, this);
  }

  request(headers: HeaderList, endStream: boolean): void {
    const { context, local } = this.#tunnel;
    this.#ended = endStream;
    const destination = context.store.workload(local.uid);
    if (destination === undefined) return this.#reject(503, causes.workloadUnknown(`the configuration does not know ${local.uid}`));
    this.#destination = destination;

    const read = readConnect(headers);
    if (!read.ok) return this.#reject(400, causes.badRequest(read.error.reason));
    this.#request = read.value;
    if (context.budget.full) return this.#reject(503, causes.ourLimit(`the ${context.budget.limitBytes} bytes for slow readers are used up (--buffer-limit)`));

    const verdict = judgeInbound(context.store, destination, { authority: read.value.authority, localIp: this.#tunnel.localIp, peer: this.#tunnel.peerIdentity });
    if (verdict.kind === "reject") return this.#reject(verdict.status, causes.destinationRefused(verdict.reason));
    this.#delivery = verdict;
    this.#service = verdict.service ?? serviceSaid(context.store, destination, read.value.forwardedHost);

    const decision = authorise(context.store, destination, this.#facts(verdict), context.config.trustDomains);
    this.#decision = decision;
    context.reporter.authorised("destination", decision);
    if (!decision.allowed) return this.#reject(401, causes.policyDenied(explainAuthorisation(decision)));

    local.connections.add(this);
    this.#dialled = new Dialled(context, this, verdict.to);
    this.#dialled.start(local.sockets, isLoopback(verdict.to.ip) ? null : this.#tunnel.peerIp);
  }

  dialConnected(socket: PlainSocket): void {
    this.#dialled = null;
    const { context } = this.#tunnel;
    const transport = this.#tunnel.transport;
    const reported = this.#reported();
    reported.established(context.nowMs());
    transport.h2.respond(this.#stream, context.reporter.okBlock(this.#destination), false);
    const relay = new StreamRelay({
      transport,
      stream: this.#stream,
      socket,
      meter: reported.asServerSocket(),
      halfCloseIdle: context.deadlines.halfClose,
      nowMs: context.nowMs,
      budget: context.budget,
      onFinished: (cause) => this.#end(cause),
    });
    this.#relay = relay;
    this.#stream.user = relay;
    const header = this.#proxyHeader();
    if (header !== null) socket.write(header);
    relay.start([], false, false);
    while (!this.#early.empty) {
      const chunk = this.#early.first();
      relay.onStreamData(chunk, false);
      if (this.#closed) return;
      this.#early.take(chunk.length);
    }
    if (this.#ended) relay.onStreamEnd();
  }

  dialFailed(cause: CloseCause): void {
    this.#dialled = null;
    this.#reject(503, cause);
  }

  onResponse(): void {}

  onStreamData(chunk: Uint8Array, end: boolean): void {
    if (!this.#closed) this.#early.push(chunk);
    if (end) this.#ended = true;
  }

  onStreamEnd(): void {
    this.#ended = true;
  }

  onSendable(): void {}
  onStreamClosed(): void {}

  /** By whomever: a stream that the engine gives up for what its peer sent is over like any other. */
  onStreamReset(_code: number, _by: "peer" | "us" | "connection", cause: CloseCause): void {
    this.#end(cause);
  }

  judgeAgain(): void {
    const { context, local } = this.#tunnel;
    if (this.#closed || this.#delivery === null) return;
    const destination = context.store.workload(local.uid);
    if (destination === undefined || this.#request === null) return;
    const verdict = judgeInbound(context.store, destination, { authority: this.#request.authority, localIp: this.#tunnel.localIp, peer: this.#tunnel.peerIdentity });
    if (verdict.kind === "reject" && verdict.code === "waypoint_required") return this.destroy(causes.policyChanged(verdict.reason));
    const decision = authorise(context.store, destination, this.#facts(this.#delivery), context.config.trustDomains);
    this.#decision = decision;
    if (!decision.allowed) this.destroy(causes.policyChanged(explainAuthorisation(decision)));
  }

  destroy(cause: CloseCause): void {
    if (this.#relay !== null) this.#relay.destroy(cause, ErrorCode.connectError);
    else this.#reject(503, cause);
  }

  get heldBytes(): number {
    return this.#early.capacityBytes;
  }

  /** Its application has not been reached yet, and what came ahead takes too much room. */
  shed(): void {
    this.#reject(503, causes.limit(`${this.heldBytes} bytes came before the application was reached, and this thread's ${this.#tunnel.context.budget.limitBytes} bytes for slow readers ran short (--buffer-limit)`));
  }

  describe(): LiveConnectionDescription | null {
    if (this.#delivery === null) return null;
    return {
      direction: "inbound", source: formatSocketAddress({ ip: this.#tunnel.peerIp, port: this.#tunnel.peerPort }),
      destination: formatSocketAddress(this.#delivery.to), protocol: "HBONE", openedMs: this.#openedMs,
    };
  }

  #facts({ policyDestination }: InboundDelivery) {
    return { peer: this.#tunnel.peerIdentity, sourceIp: this.#tunnel.peerIp, destinationIp: policyDestination.ip, destinationPort: policyDestination.port };
  }

  #reject(status: number, cause: CloseCause): void {
    if (this.#closed) return;
    this.#end(cause);
    this.#dialled?.cancel();
    this.#tunnel.transport.h2.respond(this.#stream, STATUS_BLOCKS.get(status) ?? STATUS_BLOCKS.get(503)!, true);
    // The client may keep its half open for ever: it has its answer, so what it still sends is refused.
    this.#tunnel.transport.h2.reset(this.#stream, ErrorCode.noError);
  }

  #end(cause: CloseCause): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#early.clear();
    this.#dialled?.cancel();
    this.#tunnel.local.connections.delete(this);
    this.#reported().close(cause, this.#tunnel.context.nowMs());
  }

  #proxyHeader(): Uint8Array | null {
    const destination = this.#delivery!.proxyDestination;
    if (destination === null) return null;
    return encodeProxyV2({ source: { ip: this.#tunnel.peerIp, port: this.#tunnel.peerPort }, destination, sourceIdentity: this.#tunnel.peerIdentity });
  }

  /** Who is at the peer's address; null when that is a gateway's, as the sender is on another network: then its baggage tells. */
  #source(): Workload | null {
    const { config, store } = this.#tunnel.context;
    const from = this.#request?.forwardedNetwork ?? null;
    if (from !== null && from.toLowerCase() !== config.network.toLowerCase()) return null;
    return store.workloadByAddress(config.network, this.#tunnel.peerIp) ?? null;
  }

  #reported(): ReportedConnection {
    this.#report ??= this.#tunnel.context.reporter.open({
      reporter: "destination",
      source: this.#source(),
      destination: this.#destination ?? null,
      service: this.#service,
      nodeLocal: false,
      sourceIdentity: this.#tunnel.peerIdentity,
      destinationIdentity: this.#destination === undefined ? null : identityOf(this.#destination),
      sourceAddress: { ip: this.#tunnel.peerIp, port: this.#tunnel.peerPort },
      destinationAddress: this.#delivery?.to ?? null,
      hboneAddress: { ip: this.#tunnel.localIp, port: 15008 },
      openedMs: this.#openedMs,
      mutualTls: true,
      decision: () => (this.#decision === null ? null : summariseAuthorisation(this.#decision)),
      baggage: this.#request?.baggage ?? null,
      traceId: this.#request?.traceId ?? null,
    });
    return this.#report;
  }
}

/** For adoptListener-like use: the raw socket's callbacks before the upgrade. */
export function inboundListenerHandler(make: () => InboundTunnel): SocketHandler<InboundTunnel> {
  return {
    open(socket) {
      const tunnel = make();
      socket.data = tunnel;
      tunnel.accepted(socket);
    },
    data: () => {}, // after the upgrade: ciphertext, of no interest
    close: (socket, error) => socket.data.tlsClose((error as SocketError | undefined) ?? null),
    error: () => {},
  };
}

const tlsHandler: SocketHandler<InboundTunnel> = {
  open: () => {},
  handshake: (socket, ok, error) => socket.data.handshake(socket as unknown as NativeTlsSocket<InboundTunnel>, ok, error as Error | null),
  data: (socket, chunk) => socket.data.tlsData(chunk),
  drain: (socket) => socket.data.tlsDrain(),
  end: (socket) => socket.data.tlsClose(null),
  close: (socket, error) => socket.data.tlsClose((error as SocketError | undefined) ?? null),
  error: () => {},
};
