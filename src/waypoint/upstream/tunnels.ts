// The tunnels of one data thread: those accepted at port 15008, and those opened to endpoints; with what they share and what counts them.

import type { SocketHandler } from "bun";
import type { Clock } from "../../core/ports.ts";
import { DescriptorLimit } from "../../net/descriptor-limit.ts";
import type { DataPlaneConfig } from "../../runtime/data-plane-config.ts";
import { ConnectionMetrics } from "../../telemetry/connection-metrics.ts";
import type { MetricsSnapshot } from "../../telemetry/metrics-snapshot.ts";
import { Admission } from "../../tunnel/admission.ts";
import { ByteBudget } from "../../tunnel/byte-budget.ts";
import { type CloseCause, causes } from "../../tunnel/close-cause.ts";
import { RefusalWarnings } from "../../tunnel/refusal-warnings.ts";
import { createDeadlines, http2Tuning, keepaliveOf, type TunnelContext, type TunnelDirection, type TunnelReporter } from "../../tunnel/context.ts";
import { HandshakeGate } from "../../tunnel/handshakes.ts";
import { IdentityTable } from "../../tunnel/identity-table.ts";
import { InnerTunnel } from "../../tunnel/inner-tunnel.ts";
import { OutboundTunnel } from "../../tunnel/outbound-tunnel.ts";
import { TunnelPool } from "../../tunnel/pool.ts";
import { Revocations } from "../../tunnel/revocations.ts";
import { ServerTunnel, serverTunnelHandler, type TunnelPlace } from "../../tunnel/server-tunnel.ts";
import type { SpiffeId } from "../../core/spiffe.ts";
import type { Listener } from "../channel/plain-channel.ts";

export class Tunnels {
  readonly context: TunnelContext;
  readonly #reporter = new TunnelCounters();
  readonly #accepted = new Set<ServerTunnel>();
  readonly #warnings: RefusalWarnings;

  /** @param needSvid tells the main thread that a certificate is wanted. */
  constructor(config: DataPlaneConfig, { clock }: { readonly clock: Clock }, needSvid: (id: SpiffeId) => void) {
    const nowMs = (): number => clock.monotonicMs();
    const reporter = this.#reporter;
    const budget = new ByteBudget(config.bufferBytesMax, {
      pressed: () => void reporter.metrics.cell("weft_buffer_pressure_total", {}).value++,
      relieved: () => this.#giveWindowsBack(),
      shedding: (why) => void reporter.metrics.cell("weft_buffer_shed_total", { why }).value++,
    });
    const base = {
      config, clock, nowMs, keepalive: keepaliveOf(config), http2: http2Tuning(config), deadlines: createDeadlines(config), budget,
      admission: new Admission(DescriptorLimit.ofProcess(), budget), handshakes: new HandshakeGate(nowMs), identities: new IdentityTable(needSvid), revocations: new Revocations(), reporter,
    };
    const context = base as typeof base & { pool: TunnelPool };
    context.pool = new TunnelPool(context, (target, tls, owner) => (target.through === null ? new OutboundTunnel(context, target, tls, owner) : new InnerTunnel(context, target, target.through, tls, owner)));
    this.context = context;
    this.#warnings = new RefusalWarnings(nowMs, this.#reporter.metrics.cell("weft_log_lines_dropped_total", { where: "warnings" }));
  }

  /** Adopts a listening descriptor. */
  listen(fd: number, place: TunnelPlace): Listener {
    const handler = serverTunnelHandler(() => {
      const tunnel = new ServerTunnel(this.context, place, () => this.#accepted.delete(tunnel));
      this.#accepted.add(tunnel);
      return tunnel;
    });
    const listener = Bun.listen<ServerTunnel>({
      fd, allowHalfOpen: true, socket: handler as SocketHandler<ServerTunnel>, data: undefined as unknown as ServerTunnel,
    } as unknown as Parameters<typeof Bun.listen<ServerTunnel>>[0]);
    return { stop: () => listener.stop(false) };
  }

  /** The configuration changed: tunnels that waited for our own record go on. */
  judgeAgain(): void {
    for (const tunnel of [...this.#accepted]) tunnel.judgeAgain();
  }

  checkRevoked(): void {
    for (const tunnel of [...this.#accepted]) tunnel.checkRevoked();
    for (const tunnel of this.context.pool.tunnels) tunnel.checkRevoked();
  }

  tickDeadlines(nowMs: number): void {
    for (const queue of Object.values(this.context.deadlines)) queue.tick(nowMs);
  }

  /** Once a second or so. */
  tick(nowMs: number): void {
    this.context.pool.tick(nowMs);
    for (const tunnel of [...this.#accepted]) tunnel.tick(nowMs);
    this.context.handshakes.tick();
    this.context.budget.tick(nowMs);
  }

  /** Whether one more line about a peer that was refused may be written. */
  mayWarn(): boolean {
    return this.#warnings.take();
  }

  /** A peer got no tunnel. */
  peerFailed(cause: CloseCause): void {
    this.#reporter.tunnelFailed("inbound", cause);
  }

  drain(): void {
    for (const tunnel of [...this.#accepted]) tunnel.drain();
  }

  destroy(): void {
    for (const tunnel of [...this.#accepted]) tunnel.destroy(causes.drained);
    this.context.pool.retireAll();
  }

  snapshot(): MetricsSnapshot {
    const { metrics } = this.#reporter;
    const { pool, handshakes, budget } = this.context;
    metrics.cell("weft_handshakes_under_way", {}).value = handshakes.underWay;
    metrics.cell("weft_buffered_bytes", {}).value = budget.heldBytes;
    for (const [direction, tunnels] of [["inbound", [...this.#accepted]], ["outbound", pool.tunnels]] as const) {
      metrics.cell("weft_tunnels_open", { direction }).value = tunnels.length;
      metrics.cell("weft_tunnel_streams_open", { direction }).value = tunnels.reduce((sum, { activeStreams }) => sum + activeStreams, 0);
    }
    return metrics.snapshot();
  }

  #giveWindowsBack(): void {
    for (const tunnel of this.#accepted) tunnel.giveWindowBack();
    for (const tunnel of this.context.pool.tunnels) tunnel.giveWindowBack();
  }
}

/** By the names that the ztunnel's tunnels have. */
class TunnelCounters implements TunnelReporter {
  readonly metrics = new ConnectionMetrics();

  poolRequest(outcome: "hit" | "opened" | "waited" | "refused"): void {
    this.metrics.cell("weft_pool_requests_total", { outcome }).value++;
  }

  tunnelOpened(direction: TunnelDirection): void {
    this.metrics.cell("weft_tunnels_opened_total", { direction }).value++;
  }

  tunnelClosed(direction: TunnelDirection): void {
    this.metrics.cell("weft_tunnels_closed_total", { direction }).value++;
  }

  tunnelFailed(direction: TunnelDirection, cause: CloseCause): void {
    this.metrics.cell("weft_tunnel_handshakes_failed_total", { direction, code: cause.code }).value++;
  }

  tunnelRetired(reason: Parameters<TunnelReporter["tunnelRetired"]>[0]): void {
    this.metrics.cell("weft_pool_tunnels_retired_total", { reason }).value++;
  }

  http2Fatal(counter: string): void {
    this.metrics.cell("weft_http2_fatal_total", { counter }).value++;
  }

  handshakeRefused(reason: Parameters<TunnelReporter["handshakeRefused"]>[0]): void {
    this.metrics.cell("weft_handshakes_refused_total", { reason }).value++;
  }

  sourceNotPreserved(): void {
    this.metrics.cell("weft_source_not_preserved_total", {}).value++;
  }
}
