// The tunnels of one data thread, a ztunnel's or a waypoint's: those that it accepted and those that it opened, with what all of them share.

import type { SocketHandler } from "bun";
import type { Clock } from "../core/ports.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Svid } from "../identity/svid.ts";
import { DescriptorLimit } from "../net/descriptor-limit.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import type { ConnectionMetrics } from "../telemetry/connection-metrics.ts";
import { Admission } from "./admission.ts";
import { ByteBudget } from "./byte-budget.ts";
import type { CloseCause } from "./close-cause.ts";
import { createDeadlines, http2Tuning, keepaliveOf, type TunnelContext, type TunnelReporter } from "./context.ts";
import { type Listener, takeQueued } from "./endpoint-socket.ts";
import { HandshakeGate } from "./handshakes.ts";
import { IdentityTable } from "./identity-table.ts";
import { InnerTunnel } from "./inner-tunnel.ts";
import { OutboundTunnel } from "./outbound-tunnel.ts";
import { TunnelPool } from "./pool.ts";
import { Revocations } from "./revocations.ts";
import { ServerTunnel, serverTunnelHandler, type TunnelPlace } from "./server-tunnel.ts";

/** What the main thread tells a data thread of certificates. Plain data. */
export type IdentityNews =
  | { readonly kind: "svid"; readonly svid: Svid }
  | { readonly kind: "svidFailed"; readonly spiffeId: SpiffeId; readonly message: string }
  | { readonly kind: "svidDropped"; readonly spiffeId: SpiffeId }
  /** Lower-case hex serial numbers revoked by each issuer, keyed by the issuer's DER name in hex. */
  | { readonly kind: "revoked"; readonly serialsByIssuer: ReadonlyMap<string, ReadonlySet<string>> };

export interface TunnelGauges {
  readonly inbound: { readonly tunnels: number; readonly streams: number };
  readonly outbound: { readonly tunnels: number; readonly streams: number };
  /** Under way. */
  readonly handshakes: number;
  readonly bufferedBytes: number;
}

export function setTunnelGauges(metrics: Pick<ConnectionMetrics, "cell">, gauges: TunnelGauges): void {
  metrics.cell("weft_handshakes_under_way", {}).value = gauges.handshakes;
  metrics.cell("weft_buffered_bytes", {}).value = gauges.bufferedBytes;
  for (const direction of ["inbound", "outbound"] as const) {
    metrics.cell("weft_tunnels_open", { direction }).value = gauges[direction].tunnels;
    metrics.cell("weft_tunnel_streams_open", { direction }).value = gauges[direction].streams;
  }
}

export interface ThreadTunnelsOptions {
  readonly config: DataPlaneConfig;
  readonly clock: Clock;
  readonly reporter: TunnelReporter;
  /** Tells the main thread that a certificate is wanted. */
  readonly needSvid: (id: SpiffeId) => void;
}

export class ThreadTunnels {
  readonly context: TunnelContext;
  readonly #accepted = new Set<ServerTunnel>();

  constructor({ config, clock, reporter, needSvid }: ThreadTunnelsOptions) {
    const nowMs = (): number => clock.monotonicMs();
    const budget = new ByteBudget(config.bufferBytesMax, {
      pressed: () => reporter.bufferPressed(),
      relieved: () => this.#giveWindowsBack(),
      shedding: (why) => reporter.bufferShed(why),
    });
    const base = {
      config, clock, nowMs, keepalive: keepaliveOf(config), http2: http2Tuning(config), deadlines: createDeadlines(config), budget,
      admission: new Admission(DescriptorLimit.ofProcess(), budget), handshakes: new HandshakeGate(nowMs), identities: new IdentityTable(needSvid), revocations: new Revocations(), reporter,
    };
    const context = base as typeof base & { pool: TunnelPool };
    context.pool = new TunnelPool(context, (target, tls, owner) => (target.through === null ? new OutboundTunnel(context, target, tls, owner) : new InnerTunnel(context, target, target.through, tls, owner)));
    this.context = context;
  }

  get accepted(): ReadonlySet<ServerTunnel> {
    return this.#accepted;
  }

  /** Adopts a listening descriptor. When it stops, connections that the kernel has made for it are served too. */
  listen(fd: number, place: TunnelPlace): Listener {
    const handler = serverTunnelHandler(() => {
      const tunnel = new ServerTunnel(this.context, place, () => this.#accepted.delete(tunnel));
      this.#accepted.add(tunnel);
      return tunnel;
    });
    const listener = Bun.listen<ServerTunnel>({
      fd, allowHalfOpen: true, socket: handler as SocketHandler<ServerTunnel>, data: undefined as unknown as ServerTunnel,
    } as unknown as Parameters<typeof Bun.listen<ServerTunnel>>[0]);
    return {
      stop() {
        const queued = takeQueued(fd);
        listener.stop(false); // at once: what comes in between is reset
        for (const taken of queued) {
          Bun.connect<ServerTunnel>({ fd: taken, allowHalfOpen: true, socket: handler } as unknown as Parameters<typeof Bun.connect<ServerTunnel>>[0]).catch(() => {});
        }
      },
    };
  }

  take(news: IdentityNews): void {
    const { identities, pool, revocations } = this.context;
    switch (news.kind) {
      case "svid":
        if (identities.put(news.svid)) pool.retireSource(news.svid.spiffeId);
        return;
      case "svidFailed":
        return identities.failed(news.spiffeId, news.message);
      case "svidDropped":
        return identities.drop(news.spiffeId);
      case "revoked":
        revocations.replace(news.serialsByIssuer);
        for (const tunnel of [...this.#accepted]) tunnel.checkRevoked();
        for (const tunnel of pool.tunnels) tunnel.checkRevoked();
        return;
      default:
        news satisfies never;
    }
  }

  tickDeadlines(nowMs: number): void {
    for (const queue of Object.values(this.context.deadlines)) queue.tick(nowMs);
  }

  /** Once a second or so: keep-alive, idleness and age. */
  tick(nowMs: number): void {
    this.context.pool.tick(nowMs);
    for (const tunnel of [...this.#accepted]) tunnel.tick(nowMs);
    this.context.handshakes.tick();
    this.context.budget.tick(nowMs);
  }

  /** How many there are, and what they hold. */
  gauges(): TunnelGauges {
    const { pool, handshakes, budget } = this.context;
    const of = (tunnels: readonly { readonly activeStreams: number }[]) => ({ tunnels: tunnels.length, streams: tunnels.reduce((sum, { activeStreams }) => sum + activeStreams, 0) });
    return { inbound: of([...this.#accepted]), outbound: of(pool.tunnels), handshakes: handshakes.underWay, bufferedBytes: budget.heldBytes };
  }

  /** Peers are told that accepted tunnels take no more. */
  drain(): void {
    for (const tunnel of [...this.#accepted]) tunnel.drain();
  }

  /** Every accepted tunnel ends now, opened ones when they are idle. */
  destroy(cause: CloseCause): void {
    for (const tunnel of [...this.#accepted]) tunnel.destroy(cause);
    this.context.pool.retireAll();
  }

  /** The pressure is over: connections whose windows were held back may not have a reader who would ask. */
  #giveWindowsBack(): void {
    for (const tunnel of this.#accepted) tunnel.giveWindowBack();
    for (const tunnel of this.context.pool.tunnels) tunnel.giveWindowBack();
  }
}
