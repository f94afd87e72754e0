// Channels through a tunnel: CONNECT to an endpoint, over the pooled tunnel that ends with it or, on another network, through the gateway
// there. What comes back is a channel like any other.

import { formatSocketAddress, type SocketAddress } from "../../core/ip.ts";
import type { Random } from "../../core/ports.ts";
import type { SpiffeId } from "../../core/spiffe.ts";
import type { Workload } from "../../mesh/records.ts";
import type { Due, DueList } from "../../net/due-list.ts";
import { identityOf } from "../../policy/waypoints.ts";
import type { ClientTunnel, TunnelStreamUser, TunnelTarget } from "../../tunnel/client-tunnel.ts";
import type { CloseCause } from "../../tunnel/close-cause.ts";
import { connectRefusal } from "../../tunnel/connect-refusal.ts";
import type { TunnelContext } from "../../tunnel/context.ts";
import type { PoolWaiter } from "../../tunnel/pool.ts";
import { type Authority, formatAuthority } from "../../wire/hbone/authority.ts";
import { connectFields, type ConnectOptions } from "../../wire/hbone/connect.ts";
import { randomTraceparent } from "../../wire/trace/traceparent.ts";
import { ErrorCode } from "../../wire/http2/errors.ts";
import { headerBlock, type HeaderList } from "../../wire/http2/headers.ts";
import { type Http2Stream, StreamState } from "../../wire/http2/stream.ts";
import type { ChannelOwner, ConnectFailure, PendingChannel } from "../channel/plain-channel.ts";
import { StreamChannel } from "../channel/stream-channel.ts";

/** Where a tunnel leads. */
export interface TunnelWay {
  readonly tunnelTo: SocketAddress;
  readonly authority: Authority;
  readonly acceptedIdentities: readonly SpiffeId[];
  /** The workload at `tunnelTo`. */
  readonly workload: Workload;
  /** The CONNECT inside the one to a gateway; null where there is no gateway. */
  readonly inner: { readonly authority: Authority; readonly acceptedIdentities: readonly SpiffeId[] } | null;
}

export interface HboneDialOptions {
  readonly namespaceFd: number;
  readonly context: TunnelContext;
  readonly due: DueList;
  readonly random: Random;
  readonly self: Workload;
  readonly way: TunnelWay;
  /** Host name of the service that is meant; null for a workload by itself. */
  readonly serviceHost: string | null;
  /** Null: a trace of its own. */
  readonly traceparent: string | null;
  readonly timeoutMs: number;
  /** Who chose between several places for the tunnel to end: whether this one can be reached. */
  readonly told?: (reached: boolean) => void;
}

/** Fails through `owner`, always after it returned. */
export function dialHbone(options: HboneDialOptions, owner: ChannelOwner, nowMs: number): PendingChannel {
  const dial = new HboneDial(options, owner, nowMs);
  // The pool may know at once; whoever asked is not told before it has what it asked for.
  queueMicrotask(() => dial.start());
  return dial;
}

class HboneDial implements PendingChannel, PoolWaiter, TunnelStreamUser, Due {
  cancelled = false;
  dueMs: number;
  dueIndex = -1;
  readonly #options: HboneDialOptions;
  readonly #owner: ChannelOwner;
  #tunnel: ClientTunnel | null = null;
  #stream: Http2Stream | null = null;

  constructor(options: HboneDialOptions, owner: ChannelOwner, nowMs: number) {
    this.#options = options;
    this.#owner = owner;
    this.dueMs = nowMs + options.timeoutMs;
    options.due.add(this);
  }

  start(): void {
    if (this.cancelled) return;
    const { context, self } = this.#options;
    const identity = identityOf(self);
    context.identities.whenAvailable(identity, (available) => {
      if (this.cancelled) return;
      if (!available) return this.#fail(`the waypoint has ${context.identities.explain(identity)}`);
      context.pool.acquire(this.#target(identity), this);
    });
  }

  cancel(): void {
    if (!this.#settle()) return;
    if (this.#stream !== null && this.#stream.state !== StreamState.closed) this.#tunnel!.transport.h2.reset(this.#stream, ErrorCode.cancel);
  }

  tunnelAvailable(tunnel: ClientTunnel): void {
    const { way: { authority, inner }, context } = this.#options;
    const options = inner === null ? this.#connectOptions(authority, this.#options.traceparent) : { ...this.#connectOptions(inner.authority, this.#options.traceparent), network: context.config.network };
    this.#options.told?.(true);
    const stream = tunnel.openStream(headerBlock(connectFields(options)), this);
    if (stream === null) return this.#fail(`the tunnel to ${this.#place} took no stream`);
    this.#tunnel = tunnel;
    this.#stream = stream;
  }

  tunnelUnavailable(cause: CloseCause, beyondGateway: boolean): void {
    if (!beyondGateway) this.#options.told?.(false);
    this.#fail(cause.message, cause.code === "identity_refused" || cause.code === "certificate_revoked" ? "refused" : "connect");
  }

  onResponse(status: number, _headers: HeaderList, ended: boolean): void {
    if (status !== 200 || ended) {
      // The tunnel ends at one endpoint, which cannot serve now: the gateway may choose another for a new one.
      if (status === 503 && this.#tunnel!.beyondGateway) this.#tunnel!.retire("destination_refused");
      const { code, message } = connectRefusal(status, this.#options.way.tunnelTo, "destination");
      return this.#fail(message, code === "policy_denied" ? "denied" : status === 400 ? "refused" : "connect");
    }
    if (!this.#settle()) return;
    const channel = new StreamChannel(this.#tunnel!.transport, this.#stream!);
    this.#stream!.user = channel;
    this.#owner.connected(channel, null);
  }

  onStreamData(): void {}
  onStreamEnd(): void {}
  onSendable(): void {}

  onStreamReset(_code: number, _by: "peer" | "us" | "connection", cause: CloseCause): void {
    this.#fail(cause.message);
  }

  onStreamClosed(): void {
    this.#fail(`the tunnel to ${this.#place} ended the stream before it was answered`);
  }

  onDue(): void {
    const stream = this.#stream;
    const tunnel = this.#tunnel;
    this.#fail(`no answer through ${this.#place} within ${this.#options.timeoutMs} ms`);
    if (stream !== null && stream.state !== StreamState.closed) tunnel!.transport.h2.reset(stream, ErrorCode.cancel);
  }

  get #place(): string {
    return formatSocketAddress(this.#options.way.tunnelTo);
  }

  /** One pool for this waypoint: what makes a tunnel another one is who is at its other end. */
  #target(sourceIdentity: SpiffeId): TunnelTarget {
    const { namespaceFd, way: { tunnelTo, acceptedIdentities, workload: { uid }, authority, inner } } = this.#options;
    const key = `${sourceIdentity}|${formatSocketAddress(tunnelTo)}|${uid}|${acceptedIdentities.join()}`;
    const target: TunnelTarget = { key, sourceIdentity, namespaceFd, tunnelTo, acceptedIdentities, destinationUid: uid, through: null };
    if (inner === null) return target;
    // Kept with the tunnel, which outlives this channel.
    const toGateway = this.#connectOptions(authority, null);
    return {
      ...target, key: `${key}|${formatAuthority(inner.authority)}|${inner.acceptedIdentities.join()}`, acceptedIdentities: inner.acceptedIdentities,
      through: { gateway: target, connectBlock: () => headerBlock(connectFields(toGateway)) },
    };
  }

  #connectOptions(authority: Authority, traceparent: string | null): ConnectOptions {
    const { self, way, serviceHost, random, context } = this.#options;
    return { authority, source: self, clusterId: context.config.clusterId, forwardedFor: { ip: self.addresses[0] ?? way.tunnelTo.ip, port: 0 }, forwardedHost: serviceHost, traceparent: traceparent ?? randomTraceparent(random) };
  }

  #settle(): boolean {
    if (this.cancelled) return false;
    this.cancelled = true;
    this.#options.due.remove(this);
    return true;
  }

  #fail(message: string, what: ConnectFailure = "connect"): void {
    if (this.#settle()) this.#owner.connectFailed(message, what);
  }
}
