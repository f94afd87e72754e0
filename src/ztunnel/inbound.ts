// What a tunnel to a workload of this node is for: the CONNECT streams inside it.
// Order matters: the request, then the destination, then the policy, then the application, then 200.

import { formatSocketAddress, type IpAddress, isLoopback } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Service, Workload } from "../mesh/records.ts";
import { authorise, type AuthorisationDecision, explainAuthorisation } from "../policy/authorise.ts";
import { type InboundDelivery, judgeInbound, serviceSaid } from "../policy/inbound.ts";
import { identityOf } from "../policy/waypoints.ts";
import { type DecisionSummary, summariseAuthorisation } from "../telemetry/decision-record.ts";
import { type ConnectRequest, readConnect } from "../wire/hbone/connect.ts";
import { ByteRange } from "../wire/http/byte-range.ts";
import { ErrorCode } from "../wire/http2/errors.ts";
import { encodeStaticBlock, type HeaderBlock, type HeaderList } from "../wire/http2/headers.ts";
import type { Http2Stream } from "../wire/http2/stream.ts";
import { encodeProxyV2 } from "../wire/proxy-protocol/v2.ts";
import type { ByteHolder } from "../tunnel/byte-budget.ts";
import { type CloseCause, causes } from "../tunnel/close-cause.ts";
import type { DataPlaneContext } from "./context.ts";
import { Dialled, type DialOwner } from "../tunnel/dialled.ts";
import type { PlainSocket } from "../tunnel/endpoint-socket.ts";
import { HeldBytes } from "../tunnel/held-bytes.ts";
import type { LiveConnection, LiveConnectionDescription } from "../tunnel/live-connection.ts";
import type { LocalWorkload } from "./local-workloads.ts";
import { type RelayOwner, StreamRelay } from "../tunnel/relay.ts";
import type { DecisionSource, ReportedConnection } from "./report.ts";
import type { ServerStreamUser, ServerTunnel, TunnelPlace } from "../tunnel/server-tunnel.ts";

const STATUS_BLOCKS = new Map<number, HeaderBlock>([400, 401, 503].map((status) => [status, encodeStaticBlock([":status", String(status)])]));

/** Tunnels to one workload of this node. */
export class InboundPlace implements TunnelPlace {
  readonly local: LocalWorkload;
  readonly #context: DataPlaneContext;

  constructor(context: DataPlaneContext, local: LocalWorkload) {
    this.#context = context;
    this.local = local;
  }

  get connections(): Set<LiveConnection> {
    return this.local.connections;
  }

  identity(): SpiffeId | null {
    const workload = this.#context.store.workload(this.local.uid);
    return workload === undefined ? null : identityOf(workload);
  }

  explainNoIdentity(): string {
    return `the configuration does not know ${this.local.uid}; waited ${this.#context.config.workloadWaitMs} ms for it`;
  }

  open(tunnel: ServerTunnel, stream: Http2Stream): ServerStreamUser {
    return new InboundStream(this.#context, this.local, tunnel, stream);
  }

  refused(cause: CloseCause, peerIp: IpAddress): void {
    this.#context.reporter.refusedTunnel(cause, peerIp, this.#context.store.workload(this.local.uid) ?? null);
  }
}

/** One CONNECT: from the request to the relay. */
class InboundStream implements ServerStreamUser, DialOwner, LiveConnection, ByteHolder, RelayOwner, DecisionSource {
  readonly #context: DataPlaneContext;
  readonly #local: LocalWorkload;
  readonly #tunnel: ServerTunnel;
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
  #early: HeldBytes | null = null;
  readonly progressMs: number;
  #ended = false;
  #closed = false;

  constructor(context: DataPlaneContext, local: LocalWorkload, tunnel: ServerTunnel, stream: Http2Stream) {
    this.#context = context;
    this.#local = local;
    this.#tunnel = tunnel;
    this.#stream = stream;
    this.#openedMs = this.progressMs = context.nowMs();
  }

  request(headers: HeaderList, endStream: boolean): void {
    const context = this.#context;
    const local = this.#local;
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
    const context = this.#context;
    const transport = this.#tunnel.transport;
    const reported = this.#reported();
    reported.established(context.nowMs());
    transport.h2.respond(this.#stream, context.reporter.okBlock(this.#destination), false);
    const relay = new StreamRelay({
      transport,
      stream: this.#stream,
      socket,
      meter: reported.asServerSocket(),
      place: context,
      owner: this,
    });
    this.#relay = relay;
    this.#stream.user = relay;
    const header = this.#proxyHeader();
    if (header !== null) socket.write(header);
    relay.start([], false, false);
    const early = this.#early;
    while (early !== null && !early.empty) {
      const chunk = early.first();
      relay.onStreamData(new ByteRange().set(chunk, 0, chunk.length), false);
      if (this.#closed) return;
      early.take(chunk.length);
    }
    this.#early = null;
    if (this.#ended) relay.onStreamEnd();
  }

  dialFailed(cause: CloseCause): void {
    this.#dialled = null;
    this.#reject(503, cause);
  }

  onResponse(): void {}

  onStreamData(bytes: ByteRange, end: boolean): void {
    if (!this.#closed) (this.#early ??= new HeldBytes(this.#context.budget, this)).push(bytes.view());
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
    const context = this.#context;
    const local = this.#local;
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
    return this.#early?.capacityBytes ?? 0;
  }

  /** Its application has not been reached yet, and what came ahead takes too much room. */
  shed(): void {
    this.#reject(503, causes.limit(`${this.heldBytes} bytes came before the application was reached, and this thread's ${this.#context.budget.limitBytes} bytes for slow readers ran short (--buffer-limit)`));
  }

  describe(): LiveConnectionDescription | null {
    if (this.#delivery === null) return null;
    return {
      direction: "inbound", source: formatSocketAddress({ ip: this.#tunnel.peerIp, port: this.#tunnel.peerPort }),
      asked: this.#service?.hostname ?? null, reached: formatSocketAddress(this.#delivery.to), protocol: "HBONE", openedMs: this.#openedMs,
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
    this.#early?.clear();
    this.#dialled?.cancel();
    this.#local.connections.delete(this);
    this.#reported().close(cause, this.#context.nowMs());
  }

  #proxyHeader(): Uint8Array | null {
    const destination = this.#delivery!.proxyDestination;
    if (destination === null) return null;
    return encodeProxyV2({ source: { ip: this.#tunnel.peerIp, port: this.#tunnel.peerPort }, destination, sourceIdentity: this.#tunnel.peerIdentity });
  }

  /** Who is at the peer's address; null when that is a gateway's, as the sender is on another network: then its baggage tells. */
  #source(): Workload | null {
    const { config, store } = this.#context;
    const from = this.#request?.forwardedNetwork ?? null;
    if (from !== null && from.toLowerCase() !== config.network.toLowerCase()) return null;
    return store.workloadByAddress(config.network, this.#tunnel.peerIp) ?? null;
  }

  relayFinished(cause: CloseCause): void {
    this.#end(cause);
  }

  decisionSummary(): DecisionSummary | null {
    return this.#decision === null ? null : summariseAuthorisation(this.#decision);
  }

  #reported(): ReportedConnection {
    this.#report ??= this.#context.reporter.open({
      reporter: "destination",
      source: this.#source(),
      destination: this.#destination ?? null,
      service: this.#service,
      nodeLocal: false,
      sourceIdentity: this.#tunnel.peerIdentity,
      destinationIdentity: this.#destination === undefined ? null : identityOf(this.#destination),
      sourceAddress: this.#tunnel.peerAddress,
      destinationAddress: this.#delivery?.to ?? null,
      hboneAddress: this.#tunnel.localAddress,
      openedMs: this.#openedMs,
      mutualTls: true,
      decision: this,
      baggage: this.#request?.baggage ?? null,
      traceId: this.#request?.trace?.traceId ?? null,
    });
    return this.#report;
  }
}
