// Tunnels to share: finds one with room for a new stream, opens another where there is none, and lets go of those that are
// idle, old or bound to something that changed. One slow destination never holds up another: every key waits by itself.

import type { WorkloadUid } from "../core/brand.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { TlsContext } from "../net/tls.ts";
import type { ClientTunnel, RetireReason, TunnelOwner, TunnelTarget } from "./client-tunnel.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { TunnelContext } from "./context.ts";

/** Tunnels to one target at once; with 100 streams each more than one pair of workloads can use. Bounds what a connection storm opens. */
export const TUNNELS_PER_TARGET_MAX = 256;
/** A tunnel takes no new streams after this long, so that no handshake is trusted for ever. */
export const TUNNEL_AGE_MS_MAX = 60 * 60 * 1000;
/**
 * Each tunnel through a gateway ends at one endpoint, which the gateway chose. A connection with a tunnel of its own would be balanced
 * best and cost a handshake across networks each; so connections share this many, in turn, and each is soon replaced by a new choice.
 */
export const INNER_TUNNELS_SPREAD = 4;
export const INNER_TUNNEL_AGE_MS_MAX = 60 * 1000;

/** A connection that wants a stream. Exactly one of the two is called, unless it cancelled. */
export interface PoolWaiter {
  cancelled: boolean;
  tunnelAvailable(tunnel: ClientTunnel): void;
  /** @param beyondGateway the gateway is well; what failed lies behind it. */
  tunnelUnavailable(cause: CloseCause, beyondGateway: boolean): void;
}

interface PoolEntry {
  readonly target: TunnelTarget;
  readonly tunnels: ClientTunnel[];
  waiters: PoolWaiter[];
}

/** What the pool needs of its thread. */
export type PoolContext = Pick<TunnelContext, "config" | "identities" | "reporter">;
/** A tunnel that was not opened yet. */
export type MakeTunnel = (target: TunnelTarget, tls: TlsContext, owner: TunnelOwner) => ClientTunnel;

export class TunnelPool implements TunnelOwner {
  readonly #context: PoolContext;
  readonly #make: MakeTunnel;
  readonly #entries = new Map<string, PoolEntry>();

  constructor(context: PoolContext, make: MakeTunnel) {
    this.#context = context;
    this.#make = make;
  }

  /** Calls the waiter back, at once when a tunnel has room. */
  acquire(target: TunnelTarget, waiter: PoolWaiter): void {
    let entry = this.#entries.get(target.key);
    if (entry === undefined) {
      entry = { target, tunnels: [], waiters: [] };
      this.#entries.set(target.key, entry);
    }
    // Through a gateway, those who wait do so for a share of tunnels under way; whoever comes later takes what there is.
    const tunnel = entry.waiters.length === 0 || target.through !== null ? withRoom(entry) : undefined;
    if (tunnel !== undefined) {
      this.#context.reporter.poolRequest("hit");
      waiter.tunnelAvailable(tunnel);
      if (target.through !== null) this.#spread(entry, tunnel);
      return;
    }
    entry.waiters.push(waiter);
    this.#context.reporter.poolRequest(this.#openFor(entry));
  }

  get tunnels(): ClientTunnel[] {
    return [...this.#entries.values()].flatMap((entry) => entry.tunnels);
  }

  /** Once a second or so: keep-alive, idle and age limits. */
  tick(nowMs: number): void {
    for (const entry of this.#entries.values()) {
      for (const tunnel of [...entry.tunnels]) {
        tunnel.tick(nowMs);
        const idle = tunnel.ready && tunnel.activeStreams === 0 && nowMs - tunnel.idleSinceMs > this.#context.config.poolIdleMs;
        if (idle) tunnel.retire("idle");
        else if (tunnel.ready && nowMs - tunnel.openedMs > (entry.target.through === null ? TUNNEL_AGE_MS_MAX : INNER_TUNNEL_AGE_MS_MAX)) tunnel.retire("age");
      }
    }
  }

  /** The workload is gone or is another one now: no new streams, and those that live are checked at once. */
  retireDestination(uid: WorkloadUid): void {
    const itsOwn = (tunnel: ClientTunnel): boolean => tunnel.target.destinationUid === uid;
    // One that is being made is not what its waiters want any more: they choose again.
    for (const tunnel of this.tunnels) if (itsOwn(tunnel) && tunnel.connecting) tunnel.destroy(causes.workloadGone);
    this.#retireWhere("destination_changed", itsOwn);
  }

  /** Our certificate was renewed: new streams get a tunnel made with it; live ones go on undisturbed. */
  retireSource(identity: SpiffeId): void {
    this.#retireWhere("certificate_renewed", (tunnel) => tunnel.target.sourceIdentity === identity);
  }

  retireNamespace(namespaceFd: number): void {
    this.#retireWhere("workload_left", (tunnel) => tunnel.target.namespaceFd === namespaceFd);
  }

  retireAll(): void {
    this.#retireWhere("drain", () => true);
  }

  tunnelReady(tunnel: ClientTunnel): void {
    this.#serve(tunnel);
  }

  tunnelHasRoom(tunnel: ClientTunnel): void {
    this.#serve(tunnel);
  }

  tunnelClosed(tunnel: ClientTunnel, cause: CloseCause): void {
    const entry = this.#entries.get(tunnel.target.key);
    if (entry === undefined) return;
    const index = entry.tunnels.indexOf(tunnel);
    if (index >= 0) entry.tunnels.splice(index, 1);
    if (entry.waiters.length > 0 && !entry.tunnels.some((other) => other.connecting || other.ready)) {
      const failed = entry.waiters;
      entry.waiters = [];
      const why = cause.code === "clean" ? causes.tunnelLost("the tunnel closed before it could be used") : cause;
      for (const waiter of failed) if (!waiter.cancelled) waiter.tunnelUnavailable(why, tunnel.beyondGateway);
    } else {
      // Its share is the others' now.
      for (const other of [...entry.tunnels]) if (other.ready) this.#serve(other);
    }
    if (entry.tunnels.length === 0 && entry.waiters.length === 0) this.#entries.delete(tunnel.target.key);
  }

  #serve(tunnel: ClientTunnel): void {
    const entry = this.#entries.get(tunnel.target.key);
    if (entry === undefined || entry.waiters.length === 0) return;
    const connecting = entry.tunnels.filter((other) => other.connecting).length;
    const share = entry.target.through === null ? Number.POSITIVE_INFINITY : Math.ceil(entry.waiters.length / (1 + connecting));
    // One at a time: a callback may end the tunnel, and then the rest of the queue is dealt with there.
    for (let served = 0; served < share && tunnel.room > 0; served++) {
      const waiter = entry.waiters.shift();
      if (waiter === undefined) return;
      if (!waiter.cancelled) waiter.tunnelAvailable(tunnel);
    }
    if (entry.waiters.length > 0 && (entry.target.through === null || connecting === 0)) this.#openFor(entry);
  }

  /** Opens one more tunnel when those under way cannot take everybody who waits, and says what it did. */
  #openFor(entry: PoolEntry): "opened" | "waited" | "refused" {
    const connecting = entry.tunnels.filter((tunnel) => tunnel.connecting).length;
    const enough = entry.target.through === null ? connecting * this.#context.config.poolStreamsMax >= entry.waiters.length : connecting >= Math.min(INNER_TUNNELS_SPREAD, entry.waiters.length);
    if (enough || entry.tunnels.length >= TUNNELS_PER_TARGET_MAX) return "waited";
    if (!this.#open(entry)) {
      const waiters = entry.waiters;
      entry.waiters = [];
      const cause = causes.certificateMissing(`no certificate for ${entry.target.sourceIdentity} yet`);
      for (const waiter of waiters) if (!waiter.cancelled) waiter.tunnelUnavailable(cause, false);
      return "refused";
    }
    return "opened";
  }

  /** False without a certificate to open it with. */
  #open({ target, tunnels }: PoolEntry): boolean {
    const tls = this.#context.identities.tlsContext(target.sourceIdentity);
    if (tls === null) return false;
    const tunnel = this.#make(target, tls, this);
    tunnels.push(tunnel);
    tunnel.open();
    return true;
  }

  /** The next connection gets another endpoint behind the gateway: the tunnel just used goes to the end, and while there are few one is opened. */
  #spread(entry: PoolEntry, used: ClientTunnel): void {
    const at = entry.tunnels.indexOf(used);
    if (at < 0) return; // it ended while it was used, and so perhaps did the entry
    entry.tunnels.splice(at, 1);
    entry.tunnels.push(used);
    if (entry.tunnels.filter((tunnel) => tunnel.ready || tunnel.connecting).length < INNER_TUNNELS_SPREAD) this.#open(entry);
  }

  #retireWhere(reason: RetireReason, matches: (tunnel: ClientTunnel) => boolean): void {
    for (const tunnel of this.tunnels) {
      if (!matches(tunnel)) continue;
      if (!tunnel.connecting) tunnel.ping();
      tunnel.retire(reason);
    }
  }
}

/** The first with room, so that few tunnels carry much; through a gateway the one with the fewest streams, so that many endpoints do. */
function withRoom({ target, tunnels }: PoolEntry): ClientTunnel | undefined {
  if (target.through === null) return tunnels.find((tunnel) => tunnel.room > 0);
  let best: ClientTunnel | undefined;
  for (const tunnel of tunnels) if (tunnel.room > 0 && (best === undefined || tunnel.activeStreams < best.activeStreams)) best = tunnel;
  return best;
}
