// Channels to endpoints: through their node's ztunnel where they are in the mesh, as the waypoint itself; plainly where they are not.

import { formatSocketAddress, type IpAddress, type SocketAddress } from "../core/ip.ts";
import type { Random } from "../core/ports.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Workload } from "../mesh/records.ts";
import type { Due, DueList } from "../net/due-list.ts";
import type { Picked } from "../policy/candidates.ts";
import { HBONE_PORT } from "../policy/ports.ts";
import { identityOf } from "../policy/waypoints.ts";
import type { ClientTunnel, TunnelStreamUser, TunnelTarget } from "../tunnel/client-tunnel.ts";
import type { CloseCause } from "../tunnel/close-cause.ts";
import { connectRefusal } from "../tunnel/connect-refusal.ts";
import type { TunnelContext } from "../tunnel/context.ts";
import type { PoolWaiter } from "../tunnel/pool.ts";
import { connectFields } from "../wire/hbone/connect.ts";
import { ErrorCode } from "../wire/http2/errors.ts";
import { headerBlock, type HeaderList } from "../wire/http2/headers.ts";
import { type Http2Stream, StreamState } from "../wire/http2/stream.ts";
import type { ChannelOwner, PendingChannel } from "./plain-channel.ts";
import { StreamChannel } from "./stream-channel.ts";

export interface HboneDialOptions {
  readonly namespaceFd: number;
  readonly context: TunnelContext;
  readonly due: DueList;
  readonly random: Random;
  readonly self: Workload;
  readonly target: Picked;
  readonly ip: IpAddress;
  /** Identities that may answer besides the workload's own. */
  readonly subjectAltNames: readonly SpiffeId[];
  readonly serviceHost: string | null;
  readonly timeoutMs: number;
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
  readonly #tunnelTo: SocketAddress;
  #tunnel: ClientTunnel | null = null;
  #stream: Http2Stream | null = null;

  constructor(options: HboneDialOptions, owner: ChannelOwner, nowMs: number) {
    this.#options = options;
    this.#owner = owner;
    this.#tunnelTo = { ip: options.ip, port: HBONE_PORT };
    this.dueMs = nowMs + options.timeoutMs;
    options.due.add(this);
  }

  start(): void {
    if (this.cancelled) return;
    const { context, self } = this.#options;
    const identity = identityOf(self);
    context.identities.whenAvailable(identity, (available) => {
      if (this.cancelled) return;
      if (!available) return this.#fail(`the waypoint has no certificate for ${identity}`);
      context.pool.acquire(this.#target(identity), this);
    });
  }

  cancel(): void {
    if (!this.#settle()) return;
    if (this.#stream !== null && this.#stream.state !== StreamState.closed) this.#tunnel!.transport.h2.reset(this.#stream, ErrorCode.cancel);
  }

  tunnelAvailable(tunnel: ClientTunnel): void {
    const { self, ip, target, serviceHost, random, context } = this.#options;
    const own = self.addresses[0];
    const block = headerBlock(connectFields({
      authority: { kind: "address", address: { ip, port: target.targetPort } }, source: self, clusterId: context.config.clusterId,
      forwardedFor: { ip: own ?? ip, port: 0 }, forwardedHost: serviceHost, random,
    }));
    const stream = tunnel.openStream(block, this);
    if (stream === null) return this.#fail(`the tunnel to ${formatSocketAddress(this.#tunnelTo)} took no stream`);
    this.#tunnel = tunnel;
    this.#stream = stream;
  }

  tunnelUnavailable(cause: CloseCause): void {
    this.#fail(cause.message);
  }

  onResponse(status: number, _headers: HeaderList, ended: boolean): void {
    if (status !== 200 || ended) return this.#fail(connectRefusal(status, this.#tunnelTo, "destination").message);
    if (!this.#settle()) return;
    const channel = new StreamChannel(this.#tunnel!.transport, this.#stream!);
    this.#stream!.user = channel;
    this.#owner.connected(channel);
  }

  onStreamData(): void {}
  onStreamEnd(): void {}
  onSendable(): void {}

  onStreamReset(_code: number, _by: "peer" | "us" | "connection", cause: CloseCause): void {
    this.#fail(cause.message);
  }

  onStreamClosed(): void {
    this.#fail(`the tunnel to ${formatSocketAddress(this.#tunnelTo)} ended the stream before it was answered`);
  }

  onDue(): void {
    const stream = this.#stream;
    const tunnel = this.#tunnel;
    this.#fail(`no answer through ${formatSocketAddress(this.#tunnelTo)} within ${this.#options.timeoutMs} ms`);
    if (stream !== null && stream.state !== StreamState.closed) tunnel!.transport.h2.reset(stream, ErrorCode.cancel);
  }

  /** One pool for this waypoint: what makes a tunnel another one is who is at its other end. */
  #target(sourceIdentity: SpiffeId): TunnelTarget {
    const { target: { workload }, subjectAltNames } = this.#options;
    const own = identityOf(workload);
    const acceptedIdentities = subjectAltNames.includes(own) ? subjectAltNames : [own, ...subjectAltNames];
    const key = `${sourceIdentity}|${formatSocketAddress(this.#tunnelTo)}|${workload.uid}|${acceptedIdentities.join()}`;
    return { key, sourceIdentity, namespaceFd: this.#options.namespaceFd, tunnelTo: this.#tunnelTo, acceptedIdentities, destinationUid: workload.uid, through: null };
  }

  #settle(): boolean {
    if (this.cancelled) return false;
    this.cancelled = true;
    this.#options.due.remove(this);
    return true;
  }

  #fail(message: string): void {
    if (this.#settle()) this.#owner.connectFailed(message);
  }
}
