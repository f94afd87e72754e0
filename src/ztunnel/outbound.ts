// One connection that an application of this node opened and the kernel redirected to port 15001: from its original
// destination to the path it takes. Reads from top to bottom; bytes are moved by the relays.

import type { WorkloadUid } from "../core/brand.ts";
import { formatSocketAddress, type IpAddress, isLoopback, type OrigDst, type SocketAddress } from "../core/ip.ts";
import { unreachable } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Service, Workload } from "../mesh/records.ts";
import { cancelDeadline, type DeadlineHandle, type Expiring } from "../net/deadlines.ts";
import type { SocketReserve } from "../net/socket-reserve.ts";
import { originalDestination, remoteAddress } from "../net/original-destination.ts";
import { authorise, type AuthorisationDecision, explainAuthorisation } from "../policy/authorise.ts";
import { judgeInbound } from "../policy/inbound.ts";
import { chooseOutbound, explainOnThisNode, explainOutbound, type OutboundDecision, type ResolveDecision, type TunnelDecision, withAddress } from "../policy/outbound.ts";
import { identityOf } from "../policy/waypoints.ts";
import { type DecisionSummary, summariseAuthorisation } from "../telemetry/decision-record.ts";
import { type Authority, formatAuthority } from "../wire/hbone/authority.ts";
import { connectFields, type ConnectOptions } from "../wire/hbone/connect.ts";
import { randomTraceparent, traceIdOf } from "../wire/trace/traceparent.ts";
import { ErrorCode } from "../wire/http2/errors.ts";
import { headerBlock, type HeaderList } from "../wire/http2/headers.ts";
import type { Http2Stream } from "../wire/http2/stream.ts";
import { encodeProxyV2 } from "../wire/proxy-protocol/v2.ts";
import type { ClientTunnel, TunnelStreamUser, TunnelTarget } from "../tunnel/client-tunnel.ts";
import { type CloseCause, causes } from "../tunnel/close-cause.ts";
import { connectRefusal } from "../tunnel/connect-refusal.ts";
import type { DataPlaneContext } from "./context.ts";
import { Dialled, type DialOwner } from "../tunnel/dialled.ts";
import { EarlyBytes } from "../tunnel/early-bytes.ts";
import type { PlainEnd, PlainSocket, SocketError } from "../tunnel/endpoint-socket.ts";
import type { LiveConnection, LiveConnectionDescription } from "../tunnel/live-connection.ts";
import type { LocalWorkload } from "./local-workloads.ts";
import { PlainRelay } from "../tunnel/plain-relay.ts";
import type { PoolWaiter } from "../tunnel/pool.ts";
import { type RelayOwner, StreamRelay } from "../tunnel/relay.ts";
import type { DecisionSource, ReportedConnection } from "./report.ts";

/** Endpoints tried for one connection while nothing has been sent. */
export const ATTEMPTS_MAX = 3;
/**
 * A refused port 15008 means that the destination's agent is being restarted or has not taken the workload in yet, not that the
 * application is down: the connection waits for it, this often (every CONNECT_RETRY_MS), before the application hears of it.
 */
export const CONNECT_RETRIES_MAX = 15;
/**
 * The same where the tunnel was lost, or was no longer to be used, before CONNECT was answered, or broke off while it was being made:
 * nothing of the application's was sent. Fewer, as a peer that refuses our certificate may look like that.
 */
export const LOST_TUNNEL_RETRIES_MAX = 3;

/** A client that was gone before it could be asked for its address. */
const NO_PEER: SocketAddress = { ip: "0.0.0.0" as IpAddress, port: 0 };

export class OutboundConnection implements PlainEnd, PoolWaiter, TunnelStreamUser, DialOwner, Expiring, LiveConnection, RelayOwner, DecisionSource {
  cancelled = false;
  readonly #context: DataPlaneContext;
  readonly #local: LocalWorkload;
  readonly #openedMs: number;
  #socket!: PlainSocket;
  #origDst!: OrigDst;
  #source: Workload | null = null;
  #sourceIp: IpAddress | null = null;
  #peer: SocketAddress = NO_PEER;
  #early: EarlyBytes | null;
  #tried: Set<WorkloadUid> | null = null;
  #attempts = 0;
  /** Why the last attempt failed: the cause to tell when no other endpoint is left. */
  #lastFailure: { readonly cause: CloseCause; readonly decision: OutboundDecision; readonly sameNode: boolean } | null = null;
  #retries = 0;
  #retryWaits = false;
  #decision: OutboundDecision | null = null;
  /** Its destination was found by this, and the other family has not been tried. */
  #byName: ResolveDecision | null = null;
  #report: ReportedConnection | null = null;
  /** What is under way; exactly one, replaced as the connection advances. */
  #dialled: Dialled | null = null;
  #stream: Http2Stream | null = null;
  #tunnel: ClientTunnel | null = null;
  #relay: StreamRelay | PlainRelay | null = null;
  /** The destination lives here and was, or was to be, reached without a tunnel. Outlives `#nodeLocal`, the destination's side of it. */
  #sameNode = false;
  #nodeLocal: ReportedConnection | null = null;
  #nodeLocalDestination: LocalWorkload | null = null;
  #authorised: AuthorisationDecision | null = null;
  #proxyHeader: Uint8Array | null = null;
  /** What the other end of the tunnel is told; null without a tunnel. */
  #traceparent: string | null = null;
  #deadline: DeadlineHandle | null = null;
  #closed = false;

  constructor(context: DataPlaneContext, local: LocalWorkload) {
    this.#context = context;
    this.#local = local;
    this.#openedMs = context.nowMs();
    this.#early = new EarlyBytes(context.budget);
  }

  // 1. Accepted: where was it going, and from whom?

  onOpen(socket: PlainSocket): void {
    this.#socket = socket;
    const { fd } = socket as unknown as { fd: number };
    const origDst = originalDestination(fd);
    const peer = remoteAddress(fd);
    this.#peer = peer ?? NO_PEER;
    this.#sourceIp = peer?.ip ?? null;
    this.#local.connections.add(this);
    const full = this.#context.admission.refusal(fd);
    if (full !== null) return this.#close(causes.ourLimit(full));
    if (origDst === null) return this.#close(causes.originalDestinationUnknown);
    this.#origDst = origDst;
    this.#resolveSource();
  }

  #resolveSource(): void {
    const source = this.#context.store.workload(this.#local.uid);
    if (source === undefined) {
      if (this.#deadline === null) {
        this.#deadline = this.#context.deadlines.workload.add(this, this.#context.nowMs());
      }
      return;
    }
    this.#cancelDeadline();
    this.#source = source;
    this.#attempt();
  }

  // 2. Decide, and take the first step of the path.

  #attempt(): void {
    const source = this.#source!;
    const { store, balancer } = this.#context;
    const decision = chooseOutbound(store, balancer, source, this.#origDst, this.#context.nowMs(), this.#tried === null ? {} : { exclude: this.#tried });
    this.#take(decision);
  }

  #take(decision: OutboundDecision): void {
    this.#decision = decision;
    this.#sameNode = false;
    switch (decision.kind) {
      case "refuse":
        if (decision.code === "endpoints_exhausted" && this.#lastFailure !== null) {
          this.#decision = this.#lastFailure.decision;
          this.#sameNode = this.#lastFailure.sameNode;
          return this.#giveUp(this.#lastFailure.cause);
        }
        return this.#close(causes.noEndpoint(explainOutbound(decision)));
      case "passthrough":
      case "plain":
        return this.#dial(decision.to, null);
      case "resolve":
        return this.#context.names.resolve(decision.hostname, decision.family, this.#context.nowMs(), (ip) => {
          if (this.#closed) return;
          if (ip === null) return this.#failed(causes.connectFailed(`the name ${decision.hostname} of ${decision.destination.uid} has no address`), true);
          const resolved = withAddress(decision, ip);
          if (resolved.kind === "plain") this.#byName = decision;
          this.#take(resolved);
        });
      case "tunnel": {
        const { config, locals } = this.#context;
        const here = decision.role === "endpoint" && config.sameNode === "plain" ? locals.get(decision.destination.uid) : undefined;
        if (here !== undefined) return this.#connectOnThisNode(decision, here);
        return this.#connectByTunnel(decision);
      }
      default:
        return unreachable(decision);
    }
  }

  // 3a. Plain: dial from the workload's own namespace.

  #dial(to: SocketAddress, transparentSource: IpAddress | null, sockets: SocketReserve = this.#local.sockets): void {
    this.#dialled = new Dialled(this.#context, this, to);
    this.#dialled.start(sockets, transparentSource);
  }

  dialConnected(socket: PlainSocket): void {
    this.#dialled = null;
    this.#connected();
    const early = this.#takeEarly();
    if (this.#proxyHeader !== null) early.chunks.unshift(this.#proxyHeader);
    const relay = new PlainRelay({
      client: this.#socket,
      server: socket,
      meter: this.#nodeLocal === null ? this.#reported() : this.#reported().joined(this.#nodeLocal),
      halfCloseIdle: this.#context.deadlines.halfClose,
      nowMs: this.#context.nowMs,
      budget: this.#context.budget,
      onFinished: (cause) => this.relayFinished(cause),
    });
    this.#relay = relay;
    relay.start(early.chunks, early.ended, early.paused);
  }

  dialFailed(cause: CloseCause): void {
    this.#dialled = null;
    // The client was led here by an address of ours, so it could not find out itself that its host is not reached by one family.
    const [named, tried] = [this.#byName, this.#decision];
    this.#byName = null;
    const other = named === null || tried?.kind !== "plain" ? null : this.#context.names.ofOtherFamily(named.hostname, tried.to.ip);
    if (other !== null) return this.#take(withAddress(named!, other));
    this.#failed(cause, true);
  }

  // 3b. A workload of this node: the same judgement as at port 15008, without TLS to ourselves.

  #connectOnThisNode(decision: TunnelDecision, destination: LocalWorkload): void {
    const source = this.#source!;
    this.#sameNode = true;
    const judged = this.#judgeNodeLocal(decision, decision.destination);
    if (judged.kind === "reject") return this.#failed(causes.destinationRefused(judged.reason), judged.status === 503);
    this.#authorised = judged.authorised;
    this.#context.reporter.authorised("destination", judged.authorised);
    this.#nodeLocal = this.#context.reporter.open({
      reporter: "destination", source, destination: decision.destination, service: decision.service, nodeLocal: true,
      sourceIdentity: identityOf(source), destinationIdentity: identityOf(decision.destination), sourceAddress: this.#peerAddress(),
      destinationAddress: judged.to, hboneAddress: null, openedMs: this.#openedMs, mutualTls: false,
      decision: { decisionSummary: () => (this.#authorised === null ? null : summariseAuthorisation(this.#authorised)) },
    });
    if (!judged.authorised.allowed) return this.#failed(causes.policyDenied(explainAuthorisation(judged.authorised)), false);
    this.#nodeLocalDestination = destination;
    destination.connections.add(this);
    this.#proxyHeader = judged.proxyHeader;
    this.#dial(judged.to, isLoopback(judged.to.ip) ? null : this.#sourceIp, destination.sockets);
  }

  /** What port 15008 of the destination would say to this source: the same two decisions, from the same store. */
  #judgeNodeLocal(decision: TunnelDecision, destination: Workload) {
    const peer = identityOf(this.#source!);
    const { store, config } = this.#context;
    const verdict = judgeInbound(store, destination, { authority: decision.authority, localIp: decision.tunnelTo.ip, peer });
    if (verdict.kind === "reject") return verdict;
    const { policyDestination, proxyDestination, to } = verdict;
    const authorised = authorise(store, destination, {
      peer, sourceIp: this.#sourceIp ?? this.#origDst.ip, destinationIp: policyDestination.ip, destinationPort: policyDestination.port,
    }, config.trustDomains);
    const proxyHeader = proxyDestination === null ? null : encodeProxyV2({ source: this.#peerAddress(), destination: proxyDestination, sourceIdentity: peer });
    return { kind: "judged" as const, to, authorised, proxyHeader };
  }

  // 3c. A tunnel: certificate, pool, CONNECT, 200.

  #connectByTunnel(decision: TunnelDecision): void {
    const identity = identityOf(this.#source!);
    this.#context.identities.whenAvailable(identity, (available) => {
      if (this.#closed) return;
      if (!available) return this.#failed(causes.certificateMissing(`no certificate for ${identity}: the CA did not issue one; see the agent's log`), false);
      this.#context.pool.acquire(this.#targetOf(decision, identity), this);
    });
  }

  /** Through a gateway it is the inner tunnel that is wanted; how to come by the outer one is part of what it is. */
  #targetOf(decision: TunnelDecision, sourceIdentity: SpiffeId): TunnelTarget {
    const target = targetOf(decision, sourceIdentity, this.#local);
    if (decision.inner === null) return target;
    const { acceptedIdentities, authority } = decision.inner;
    const key = `${target.key}|${formatAuthority(authority)}|${acceptedIdentities.join()}`;
    // Kept with the tunnel, which outlives this connection.
    const toGateway = this.#connectOptions(decision, decision.authority);
    return { ...target, key, acceptedIdentities, through: { gateway: target, connectBlock: () => headerBlock(connectFields(toGateway)) } };
  }

  tunnelAvailable(tunnel: ClientTunnel): void {
    if (this.#closed) return;
    const decision = this.#decision as TunnelDecision;
    const options = decision.inner === null
      ? this.#connectOptions(decision, decision.authority)
      : { ...this.#connectOptions(decision, decision.inner.authority), network: this.#context.config.network };
    const stream = tunnel.openStream(headerBlock(connectFields(options)), this);
    if (stream === null) return this.#failed(causes.tunnelLost("no stream could be opened"), true);
    this.#stream = stream;
    this.#tunnel = tunnel;
    this.#deadline = this.#context.deadlines.response.add(this, this.#context.nowMs());
  }

  tunnelUnavailable(cause: CloseCause, beyondGateway: boolean): void {
    if (!this.#closed) this.#failed(cause, true, beyondGateway);
  }

  #connectOptions(decision: TunnelDecision, authority: Authority): ConnectOptions {
    const { config, random } = this.#context;
    return { authority, source: this.#source!, clusterId: config.clusterId, forwardedFor: this.#peerAddress(), forwardedHost: decision.service?.hostname ?? null, traceparent: (this.#traceparent ??= randomTraceparent(random)) };
  }

  onResponse(status: number, _headers: HeaderList, ended: boolean): void {
    if (this.#closed || this.#relay !== null) return;
    this.#cancelDeadline();
    const tunnel = this.#tunnel!;
    const stream = this.#stream!;
    if (status !== 200) {
      this.#dropStream();
      // The tunnel ends at one endpoint of the service, which cannot serve now: the gateway may choose another for a new one.
      if (status === 503 && tunnel.beyondGateway) tunnel.retire("destination_refused");
      return this.#failed(connectRefusal(status, tunnel.target.tunnelTo, "destination"), status === 503, tunnel.beyondGateway);
    }
    this.#connected();
    const early = this.#takeEarly();
    const relay = new StreamRelay({
      transport: tunnel.transport,
      stream,
      socket: this.#socket,
      meter: this.#reported().asClientSocket(),
      place: this.#context,
      owner: this,
    });
    this.#relay = relay;
    stream.user = relay;
    relay.start(early.chunks, early.ended, early.paused);
    if (ended) relay.onStreamEnd();
  }

  // While CONNECT waits for its answer the stream can only fail.

  onStreamData(): void {}
  onStreamEnd(): void {}
  onSendable(): void {}
  onStreamClosed(): void {}

  onStreamReset(code: number, _by: "peer" | "us" | "connection", cause: CloseCause): void {
    if (this.#closed) return;
    cancelDeadline(this.#deadline);
    this.#dropStream();
    this.#failed(code === ErrorCode.refusedStream ? causes.tunnelLost("the other end was no longer taking streams") : cause, true, this.#tunnel?.beyondGateway);
  }

  // The application's socket before the path is ready.

  onDrain(): void {}

  onData(chunk: Uint8Array): void {
    this.#early?.add(this.#socket, chunk);
  }

  onEnd(): void {
    if (this.#early !== null) this.#early.ended = true;
  }

  onClose(error: SocketError | null): void {
    if (this.#relay === null) this.#close(error === null ? causes.socketClosedEarly : causes.socketReset(error.code ?? error.message));
  }

  onDeadline(): void {
    this.#deadline = null;
    if (this.#retryWaits) {
      this.#retryWaits = false;
      return this.#attempt();
    }
    if (this.#source === null) {
      this.#close(causes.workloadUnknown(`the configuration does not know ${this.#local.uid}; waited ${this.#context.config.workloadWaitMs} ms for it`));
      return;
    }
    const waited = this.#context.config.connectResponseTimeoutMs;
    this.#dropStream();
    this.#failed(causes.connectTimeout(`CONNECT through ${formatSocketAddress(this.#tunnel!.target.tunnelTo)}: no answer within ${waited} ms`), true, this.#tunnel!.beyondGateway);
  }

  // Ends

  /**
   * Another endpoint is tried when this one failed before anything was sent; otherwise the application's socket is reset.
   * What failed behind a gateway is not the gateway's fault: the same one is asked again, and chooses again.
   */
  #failed(cause: CloseCause, mayRetry: boolean, beyondGateway = false): void {
    const decision = this.#decision;
    const endpoint = decision !== null && (decision.kind === "tunnel" || decision.kind === "plain") ? decision.destination : null;
    if (endpoint !== null && mayRetry && !beyondGateway) this.#context.balancer.failed(endpoint.uid, this.#context.nowMs());
    this.#tried ??= new Set();
    const service = decision !== null && "service" in decision ? decision.service : null;
    if (mayRetry && endpoint !== null && service !== null && !this.#tried.has(endpoint.uid) && this.#attempts + 1 < ATTEMPTS_MAX) {
      this.#attempts++;
      if (!beyondGateway) this.#tried.add(endpoint.uid);
      this.#lastFailure = { cause, decision: decision!, sameNode: this.#sameNode };
      this.#context.reporter.endpointRetried();
      this.#leaveNodeLocal(cause);
      this.#attempt();
      return;
    }
    if (mayRetry) this.#giveUp(cause);
    else this.#close(cause);
  }

  /** Nobody else to try: waits for the destination's agent where its absence is the cause, else the cause is told. */
  #giveUp(cause: CloseCause): void {
    // On this node it was the application itself that was dialled: its refusal is an answer.
    const byTunnel = this.#decision?.kind === "tunnel" && !this.#sameNode;
    if (byTunnel && this.#retries < retriesMax(cause)) {
      this.#retries++;
      this.#retryWaits = true;
      this.#tried = null;
      this.#attempts = 0;
      this.#leaveNodeLocal(cause);
      this.#deadline = this.#context.deadlines.connectRetry.add(this, this.#context.nowMs());
      return;
    }
    this.#close(cause);
  }

  /** Up: the balancer learns it, and the report's clock for the time to a usable path stops. */
  #connected(): void {
    this.#tried = null;
    const decision = this.#decision!;
    if ((decision.kind === "tunnel" || decision.kind === "plain") && decision.destination !== null) {
      this.#context.balancer.connected(decision.destination.uid, this.#context.nowMs());
    }
    this.#reported().established(this.#context.nowMs());
    this.#nodeLocal?.established(this.#context.nowMs());
  }

  relayFinished(cause: CloseCause): void {
    const decision = this.#decision!;
    if ((decision.kind === "tunnel" || decision.kind === "plain") && decision.destination !== null) this.#context.balancer.closed(decision.destination.uid);
    this.#end(cause);
  }

  #close(cause: CloseCause): void {
    if (this.#closed) return;
    this.#end(cause);
    this.#dialled?.cancel();
    this.#dropStream();
    this.#socket.terminate();
  }

  #end(cause: CloseCause): void {
    this.#closed = true;
    this.cancelled = true;
    this.#early?.release();
    this.#early = null;
    cancelDeadline(this.#deadline);
    this.#local.connections.delete(this);
    this.#leaveNodeLocal(cause);
    this.#reported().close(cause, this.#context.nowMs());
  }

  #leaveNodeLocal(cause: CloseCause): void {
    this.#nodeLocalDestination?.connections.delete(this);
    this.#nodeLocalDestination = null;
    this.#nodeLocal?.close(cause, this.#context.nowMs());
    this.#nodeLocal = null;
  }

  /** Its handle is let go, too: a connection may live for hours after its last deadline. */
  #cancelDeadline(): void {
    cancelDeadline(this.#deadline);
    this.#deadline = null;
  }

  /** Gives up the CONNECT that is under way, if any. Safe to call from its own reset. */
  #dropStream(): void {
    const stream = this.#stream;
    this.#stream = null;
    if (stream !== null) this.#tunnel!.transport.h2.reset(stream, ErrorCode.cancel);
  }

  #takeEarly(): EarlyBytes {
    const early = this.#early ?? new EarlyBytes(this.#context.budget);
    early.release();
    this.#early = null;
    return early;
  }

  #peerAddress(): SocketAddress {
    return this.#peer;
  }

  /** Made when the outcome is known, so that its labels name the destination that was really used. */
  #reported(): ReportedConnection {
    if (this.#report !== null) return this.#report;
    const decision = this.#decision;
    const destination: Workload | null = decision !== null && "destination" in decision ? decision.destination : null;
    const service: Service | null = decision !== null && "service" in decision ? decision.service : null;
    const tunnelled = decision?.kind === "tunnel" && !this.#sameNode;
    this.#report = this.#context.reporter.open({
      reporter: "source", source: this.#source, destination, service,
      nodeLocal: this.#sameNode,
      sourceIdentity: this.#source === null ? null : identityOf(this.#source),
      destinationIdentity: this.#tunnel?.peerIdentity ?? (this.#sameNode && destination !== null ? identityOf(destination) : null),
      sourceAddress: this.#peerAddress(),
      destinationAddress: this.#origDst ?? null,
      hboneAddress: tunnelled ? decision.tunnelTo : null,
      openedMs: this.#openedMs,
      mutualTls: tunnelled,
      decision: this,
      traceId: tunnelled && this.#traceparent !== null ? traceIdOf(this.#traceparent) : null,
    });
    return this.#report;
  }

  decisionSummary(): DecisionSummary | null {
    const decision = this.#decision;
    if (decision === null) return null;
    if (decision.kind === "tunnel" && this.#sameNode) return { verdict: "same-node", reason: explainOnThisNode(decision), policies: [] };
    const policies = decision.kind === "refuse" && decision.provenance !== null ? [decision.provenance] : [];
    return { verdict: decision.kind, reason: explainOutbound(decision), policies };
  }

  // LiveConnection

  /** Outbound connections waiting for their workload go on; node-local ones are judged like inbound ones. */
  judgeAgain(): void {
    if (this.#closed) return;
    if (this.#source === null) return this.#resolveSource();
    if (this.#nodeLocal === null) return;
    const decision = this.#decision as TunnelDecision;
    const destination = this.#context.store.workload(decision.destination.uid);
    if (destination === undefined) return;
    const judged = this.#judgeNodeLocal(decision, destination);
    if (judged.kind === "reject") return; // the address is another's now; what was let in under the old one goes on
    this.#authorised = judged.authorised;
    if (!judged.authorised.allowed) this.destroy(causes.policyChanged(explainAuthorisation(judged.authorised)));
  }

  destroy(cause: CloseCause): void {
    if (this.#relay !== null) this.#relay.destroy(cause);
    else this.#close(cause);
  }

  /** Where our own connection goes: a tunnel's end, or the application. */
  #reached(): SocketAddress {
    const decision = this.#decision;
    if (decision?.kind === "passthrough" || decision?.kind === "plain") return decision.to;
    if (decision?.kind !== "tunnel") return this.#origDst;
    if (!this.#sameNode) return decision.tunnelTo;
    return decision.authority.kind === "address" ? decision.authority.address : this.#origDst;
  }

  describe(): LiveConnectionDescription | null {
    if (this.#source === null || this.#relay === null) return null;
    return {
      direction: "outbound", source: formatSocketAddress(this.#peerAddress()), asked: formatSocketAddress(this.#origDst), reached: formatSocketAddress(this.#reached()),
      protocol: this.#stream !== null ? "HBONE" : "TCP", openedMs: this.#openedMs,
    };
  }
}

function retriesMax({ code, brokeOff }: CloseCause): number {
  if (code === "connect_failed") return CONNECT_RETRIES_MAX;
  return code === "tunnel_lost" || code === "workload_gone" || brokeOff === true ? LOST_TUNNEL_RETRIES_MAX : 0;
}

function targetOf(decision: TunnelDecision, sourceIdentity: SpiffeId, local: LocalWorkload): TunnelTarget {
  const destinationUid = decision.destination.uid;
  const key = `${sourceIdentity}|${local.uid}|${decision.tunnelTo.ip}:${decision.tunnelTo.port}|${destinationUid}|${decision.acceptedIdentities.join()}`;
  return { key, sourceIdentity, namespaceFd: local.namespaceFd, tunnelTo: decision.tunnelTo, acceptedIdentities: decision.acceptedIdentities, destinationUid, through: null };
}
