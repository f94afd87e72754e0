// Tunnels to share: finds one with room for a new stream, opens another where there is none, and lets go of those that are
// idle, old or bound to something that changed. One slow destination never holds up another: every key waits by itself.

import type { WorkloadUid } from "../core/brand.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { DataPlaneContext } from "./context.ts";
import { OutboundTunnel, type RetireReason, type TunnelOwner, type TunnelTarget } from "./outbound-tunnel.ts";

/** Tunnels to one target at once; with 100 streams each more than one pair of workloads can use. Bounds what a connection storm opens. */
export const TUNNELS_PER_TARGET_MAX = 256;
/** A tunnel takes no new streams after this long, so that no handshake is trusted for ever. */
export const TUNNEL_AGE_MS_MAX = 60 * 60 * 1000;

/** A connection that wants a stream. Exactly one of the two is called, unless it cancelled. */
export interface PoolWaiter {
  cancelled: boolean;
  tunnelAvailable(tunnel: OutboundTunnel): void;
  tunnelUnavailable(cause: CloseCause): void;
}

interface PoolEntry {
  readonly target: TunnelTarget;
  readonly tunnels: OutboundTunnel[];
  waiters: PoolWaiter[];
}

export class TunnelPool implements TunnelOwner {
  readonly #context: DataPlaneContext;
  readonly #entries = new Map<string, PoolEntry>();

  constructor(context: DataPlaneContext) {
    this.#context = context;
  }

  /** Calls the waiter back, at once when a tunnel has room. */
  acquire(target: TunnelTarget, waiter: PoolWaiter): void {
    let entry = this.#entries.get(target.key);
    if (entry === undefined) {
      entry = { target, tunnels: [], waiters: [] };
      this.#entries.set(target.key, entry);
    }
    const tunnel = entry.waiters.length === 0 ? withRoom(entry) : undefined;
    if (tunnel !== undefined) {
      this.#context.reporter.poolRequest("hit");
      waiter.tunnelAvailable(tunnel);
      return;
    }
    entry.waiters.push(waiter);
    this.#context.reporter.poolRequest(this.#openFor(entry));
  }

  get tunnels(): OutboundTunnel[] {
    return [...this.#entries.values()].flatMap((entry) => entry.tunnels);
  }

  /** Once a second or so: keep-alive, idle and age limits. */
  tick(nowMs: number): void {
    for (const entry of this.#entries.values()) {
      for (const tunnel of [...entry.tunnels]) {
        tunnel.tick(nowMs);
        const idle = tunnel.ready && tunnel.activeStreams === 0 && nowMs - tunnel.idleSinceMs > this.#context.config.poolIdleMs;
        if (idle) tunnel.retire("idle");
        else if (tunnel.ready && nowMs - tunnel.openedMs > TUNNEL_AGE_MS_MAX) tunnel.retire("age");
      }
    }
  }

  /** The workload is gone or is another one now: no new streams, and those that live are checked at once. */
  retireDestination(uid: WorkloadUid): void {
    this.#retireWhere("destination_changed", (tunnel) => tunnel.target.destinationUid === uid);
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

  tunnelReady(tunnel: OutboundTunnel): void {
    this.#serve(tunnel);
  }

  tunnelHasRoom(tunnel: OutboundTunnel): void {
    this.#serve(tunnel);
  }

  tunnelClosed(tunnel: OutboundTunnel, cause: CloseCause): void {
    const entry = this.#entries.get(tunnel.target.key);
    if (entry === undefined) return;
    const index = entry.tunnels.indexOf(tunnel);
    if (index >= 0) entry.tunnels.splice(index, 1);
    if (entry.waiters.length > 0 && !entry.tunnels.some((other) => other.connecting || other.ready)) {
      const failed = entry.waiters;
      entry.waiters = [];
      const why = cause.code === "clean" ? causes.tunnelLost("the tunnel closed before it could be used") : cause;
      for (const waiter of failed) if (!waiter.cancelled) waiter.tunnelUnavailable(why);
    }
    if (entry.tunnels.length === 0 && entry.waiters.length === 0) this.#entries.delete(tunnel.target.key);
  }

  #serve(tunnel: OutboundTunnel): void {
    const entry = this.#entries.get(tunnel.target.key);
    if (entry === undefined || entry.waiters.length === 0) return;
    // One at a time: a callback may end the tunnel, and then the rest of the queue is dealt with there.
    while (tunnel.room > 0) {
      const waiter = entry.waiters.shift();
      if (waiter === undefined) return;
      if (!waiter.cancelled) waiter.tunnelAvailable(tunnel);
    }
    if (entry.waiters.length > 0) this.#openFor(entry);
  }

  /** Opens one more tunnel when those under way cannot take everybody who waits, and says what it did. */
  #openFor(entry: PoolEntry): "opened" | "waited" | "refused" {
    const connecting = entry.tunnels.filter((tunnel) => tunnel.connecting).length;
    if (connecting * this.#context.config.poolStreamsMax >= entry.waiters.length || entry.tunnels.length >= TUNNELS_PER_TARGET_MAX) return "waited";
    const tls = this.#context.identities.tlsContext(entry.target.sourceIdentity);
    if (tls === null) {
      const waiters = entry.waiters;
      entry.waiters = [];
      const cause = causes.certificateMissing(`no certificate for ${entry.target.sourceIdentity} yet`);
      for (const waiter of waiters) if (!waiter.cancelled) waiter.tunnelUnavailable(cause);
      return "refused";
    }
    const tunnel = new OutboundTunnel(this.#context, entry.target, tls, this);
    entry.tunnels.push(tunnel);
    tunnel.open();
    return "opened";
  }

  #retireWhere(reason: RetireReason, matches: (tunnel: OutboundTunnel) => boolean): void {
    for (const tunnel of this.tunnels) {
      if (!matches(tunnel)) continue;
      tunnel.ping();
      tunnel.retire(reason);
    }
  }
}

function withRoom(entry: PoolEntry): OutboundTunnel | undefined {
  return entry.tunnels.find((tunnel) => tunnel.room > 0);
}
