// The client end of one HBONE tunnel, whatever carries it: the peer's identity, HTTP/2, CONNECT streams, keep-alive and the end.
// A tunnel belongs to one pair of identities and one pair of workloads, never to an address alone.

import type { WorkloadUid } from "../core/brand.ts";
import { formatSocketAddress, type SocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { judgePeer } from "../identity/peer-identity.ts";
import { cancelDeadline, type DeadlineHandle, type Expiring } from "../net/deadlines.ts";
import type { ByteRange } from "../wire/http/byte-range.ts";
import { Http2Connection, type Http2Handler } from "../wire/http2/connection.ts";
import { ErrorCode, errorName, type Http2Error } from "../wire/http2/errors.ts";
import { type HeaderBlock, type HeaderList, headerValue } from "../wire/http2/headers.ts";
import type { Http2Stream } from "../wire/http2/stream.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { TunnelContext } from "./context.ts";
import type { ChainLink } from "./revocations.ts";
import { type TransportSocket, TunnelTransport } from "./transport.ts";

/** What a tunnel is for; two connections share a tunnel only when all of it is equal. */
export interface TunnelTarget {
  /** All fields below joined: the pool's key. */
  readonly key: string;
  readonly sourceIdentity: SpiffeId;
  readonly namespaceFd: number;
  readonly tunnelTo: SocketAddress;
  readonly acceptedIdentities: readonly SpiffeId[];
  readonly destinationUid: WorkloadUid | null;
  /** Set for a tunnel inside a CONNECT stream of another one, which ends at a network gateway. */
  readonly through: TunnelThrough | null;
}

export interface TunnelThrough {
  readonly gateway: TunnelTarget;
  /** The CONNECT to the gateway; made when a tunnel is opened. */
  readonly connectBlock: () => HeaderBlock;
}

/** One CONNECT stream's owner. */
export interface TunnelStreamUser {
  /** The answer to CONNECT; `status` 0 when it was not a number. */
  onResponse(status: number, headers: HeaderList, ended: boolean): void;
  /** @param bytes borrowed for the call. */
  onStreamData(bytes: ByteRange, end: boolean): void;
  onStreamEnd(): void;
  onStreamReset(code: number, by: "peer" | "us" | "connection", cause: CloseCause): void;
  onSendable(): void;
  onStreamClosed(): void;
}

/** Told to the pool. */
export interface TunnelOwner {
  tunnelReady(tunnel: ClientTunnel): void;
  /** A stream ended or the peer allowed more: there may be room. */
  tunnelHasRoom(tunnel: ClientTunnel): void;
  /** Before it was ready: `cause` says why. After: it is gone. Once. */
  tunnelClosed(tunnel: ClientTunnel, cause: CloseCause): void;
}

/** Why a pooled tunnel takes no new streams: a label of `weft_pool_tunnels_retired_total`. */
export type RetireReason = "idle" | "age" | "goaway" | "destination_changed" | "certificate_renewed" | "workload_left" | "drain" | "destination_refused";

/** How what carries the tunnel is to end: in order, at once, or as never having been up. */
export type ChannelEnd = "clean" | "lost" | "failed";

/** Streams we open before the peer's SETTINGS have said how many it takes: RFC 9113 recommends that a peer allows no fewer. */
const STREAMS_BEFORE_SETTINGS = 100;

type Phase = "setup" | "ready" | "retiring" | "closed";

export abstract class ClientTunnel implements Http2Handler, Expiring {
  readonly target: TunnelTarget;
  readonly openedMs: number;
  /** Identity the peer proved; set before the tunnel is ready. */
  peerIdentity: SpiffeId | null = null;
  idleSinceMs: number;
  readonly transport: TunnelTransport;
  protected readonly context: TunnelContext;
  /** Of the step under way. */
  protected deadline: DeadlineHandle | null = null;
  readonly #owner: TunnelOwner;
  #chain: readonly ChainLink[] = [];
  #phase: Phase = "setup";
  #settingsSeen = false;
  #retireWhenReady: RetireReason | null = null;
  #pingSentMs = 0;
  #lost: CloseCause = causes.tunnelLost("closed");

  constructor(context: TunnelContext, target: TunnelTarget, owner: TunnelOwner) {
    this.context = context;
    this.target = target;
    this.#owner = owner;
    this.openedMs = this.idleSinceMs = context.nowMs();
    const h2 = new Http2Connection({ role: "client", settings: context.http2.client, limits: context.budget.http2Limits, handler: this, nowMs: context.nowMs });
    this.transport = new TunnelTransport(h2, this.openedMs);
  }

  /** Starts it. A failure to start is reported like any other, through the owner. */
  abstract open(): void;

  /** For messages: `HTTP/2 PING to 198.18.0.1:15008`. */
  protected abstract attempt(what: string): string;

  /** A deadline of the steps before TLS was done has passed. */
  protected abstract setupTimedOut(): void;

  /** The tunnel is over; what carries it ends now. After `clean`, `lingered` is called when the peer does not end its side. */
  protected abstract endChannel(how: ChannelEnd): void;

  protected lingered(): void {}

  get ready(): boolean {
    return this.#phase === "ready";
  }

  get connecting(): boolean {
    return this.#phase === "setup";
  }

  get closed(): boolean {
    return this.#phase === "closed";
  }

  /** True when a failure from now on is that of what lies behind a gateway, not the gateway's. */
  get beyondGateway(): boolean {
    return false;
  }

  /** Streams that may still be opened now. */
  get room(): number {
    if (this.#phase !== "ready" || !this.transport.h2.canRequest) return 0;
    const peerMax = this.#settingsSeen ? this.transport.h2.remoteMaxConcurrentStreams : STREAMS_BEFORE_SETTINGS;
    return Math.max(0, Math.min(this.context.config.poolStreamsMax, peerMax) - this.transport.h2.activeStreams);
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

  /** No new streams from here on; closes when the last one ends. One that is being made serves those who wait for it first. */
  retire(reason: RetireReason): void {
    if (this.#phase === "closed" || this.#phase === "retiring") return;
    if (this.#phase !== "ready") {
      this.#retireWhenReady ??= reason;
      return;
    }
    this.context.reporter.tunnelRetired(reason);
    this.#phase = "retiring";
    this.transport.h2.goaway(ErrorCode.noError, "retired");
    this.#closeWhenEmpty();
  }

  /** Idempotent; the first cause is the one told. */
  destroy(cause: CloseCause): void {
    if (this.#phase === "closed") return;
    const wasUp = this.#phase !== "setup";
    this.#phase = "closed";
    this.#lost = cause;
    cancelDeadline(this.deadline);
    const { reporter, deadlines, nowMs } = this.context;
    if (cause.code === "clean") {
      this.transport.flush();
      this.deadline = deadlines.linger.add(this, nowMs());
    }
    this.transport.h2.receiveEnd();
    this.transport.detach();
    this.endChannel(cause.code === "clean" ? "clean" : wasUp ? "lost" : "failed");
    if (this.#settingsSeen) reporter.tunnelClosed("outbound");
    else if (cause.code !== "clean") reporter.tunnelFailed("outbound", cause);
    this.#owner.tunnelClosed(this, cause);
  }

  /** A revocation list has changed. */
  checkRevoked(): void {
    const revoked = this.context.revocations.find(this.#chain);
    if (revoked !== null) this.destroy(causes.certificateRevoked(`tunnel to ${formatSocketAddress(this.target.tunnelTo)} ended: ${revoked}`));
  }

  /** Keep-alive by PING: sent when nothing came for a while, and the tunnel is lost when no answer comes. */
  tick(nowMs: number): void {
    if (this.#phase !== "ready" && this.#phase !== "retiring") return;
    if (this.#pingSentMs > 0) {
      if (nowMs - this.#pingSentMs > this.context.http2.pingAnswerMs) {
        this.destroy(causes.tunnelLost(`${this.attempt("HTTP/2 PING")} was not answered within ${this.context.http2.pingAnswerMs} ms`));
      }
    } else if (nowMs - this.transport.lastReceivedMs > this.context.http2.pingIdleMs) {
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
    this.#pingSentMs = this.context.nowMs();
    this.transport.h2.ping();
  }

  onDeadline(): void {
    this.deadline = null;
    if (this.#phase === "closed") this.lingered();
    else if (this.#phase === "setup") this.setupTimedOut();
    else this.destroy(causes.http2Failed(`${this.attempt("HTTP/2")}: TLS succeeded, but no SETTINGS came within ${this.context.config.http2TimeoutMs} ms`));
  }

  // Events of what carries it

  /** The chain verified; who the peer is, is judged here. Starts HTTP/2, or ends the tunnel. */
  protected secured(chainDer: readonly Uint8Array[], alpn: string | false, socket: TransportSocket): void {
    cancelDeadline(this.deadline);
    if (alpn !== "h2") return this.destroy(causes.tlsFailed(`${this.attempt("TLS handshake")}: the peer chose ALPN ${alpn || "none"}, wanted h2`));
    const judged = judgePeer(chainDer, { role: "server", anyOf: this.target.acceptedIdentities }, this.context.clock.wallMs());
    if (!judged.ok) return this.destroy(causes.identityRefused(`${this.attempt("HBONE connect")} refused: ${judged.error.message}`));
    const revoked = this.context.revocations.find(judged.value.chain);
    if (revoked !== null) return this.destroy(causes.certificateRevoked(`${this.attempt("HBONE connect")} refused: ${revoked}`));
    this.peerIdentity = judged.value.id;
    this.#chain = judged.value.chain;
    this.#phase = "ready";
    this.deadline = this.context.deadlines.http2.add(this, this.context.nowMs());
    this.transport.attach(socket);
    this.#owner.tunnelReady(this);
    if (this.#retireWhenReady !== null) this.retire(this.#retireWhenReady);
  }

  protected received(chunk: Uint8Array): void {
    if (this.#phase !== "closed") this.transport.receive(chunk, this.context.nowMs());
  }

  /**
   * What carries it has ended.
   * @param seen how, in a few words.
   * @param said the peer said why, so that it would say the same again.
   */
  protected channelClosed(seen: string, said: boolean): void {
    if (this.#phase === "closed") return cancelDeadline(this.deadline);
    if (this.#phase === "setup") {
      const message = `${this.attempt("TLS handshake")} failed: ${seen}`;
      return this.destroy(said ? causes.tlsFailed(message) : causes.tlsBrokeOff(message));
    }
    if (!this.#settingsSeen) {
      const message = `${this.attempt("HTTP/2")}: TLS succeeded, but before any SETTINGS came: ${seen}; did it refuse our certificate?`;
      return this.destroy(said ? causes.http2Failed(message) : causes.http2BrokeOff(message));
    }
    this.destroy(causes.tunnelLost(`${this.attempt("connection")}: ${seen}`));
  }

  // HTTP/2 events

  onRequest(): void {}
  onInformational(): void {}

  onResponse(stream: Http2Stream, headers: HeaderList, endStream: boolean): void {
    const status = headerValue(headers, ":status") ?? "";
    (stream.user as TunnelStreamUser).onResponse(/^[0-9]{3}$/.test(status) ? Number(status) : 0, headers, endStream);
  }

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
    const cause = by === "connection" ? this.#lost : causes.streamReset(code, errorName(code), by);
    (stream.user as TunnelStreamUser).onStreamReset(code, by, cause);
  }

  onClosed(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser | undefined)?.onStreamClosed();
    if (this.#phase === "closed") return;
    if (this.transport.h2.activeStreams === 0) this.idleSinceMs = this.context.nowMs();
    if (this.#phase === "retiring") this.#closeWhenEmpty();
    else this.#owner.tunnelHasRoom(this);
  }

  onSettings(): void {
    if (!this.#settingsSeen) {
      this.#settingsSeen = true;
      cancelDeadline(this.deadline);
      this.context.reporter.tunnelOpened("outbound");
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
    this.context.reporter.http2Fatal(error.counter);
    this.transport.flush();
    this.destroy(causes.tunnelLost(`${this.attempt("HTTP/2")}: ${error.message}`));
  }

  onOutput(): void {
    this.transport?.schedule();
  }

  #closeWhenEmpty(): void {
    if (this.transport.h2.activeStreams === 0) this.destroy(causes.clean);
  }
}
