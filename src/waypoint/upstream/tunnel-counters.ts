// What a waypoint counts of its tunnels, by the names that a ztunnel's have.

import { ConnectionMetrics } from "../../telemetry/connection-metrics.ts";
import type { MetricsSnapshot } from "../../telemetry/metrics-snapshot.ts";
import type { CloseCause } from "../../tunnel/close-cause.ts";
import type { TunnelDirection, TunnelReporter } from "../../tunnel/context.ts";
import { RefusalWarnings } from "../../tunnel/refusal-warnings.ts";
import { setTunnelGauges, type TunnelGauges } from "../../tunnel/thread-tunnels.ts";

export class TunnelCounters implements TunnelReporter {
  readonly #metrics = new ConnectionMetrics();
  readonly #warnings: RefusalWarnings;

  constructor(nowMs: () => number) {
    this.#warnings = new RefusalWarnings(nowMs, this.#metrics.cell("weft_log_lines_dropped_total", { where: "warnings" }));
  }

  snapshot(gauges: TunnelGauges): MetricsSnapshot {
    setTunnelGauges(this.#metrics, gauges);
    return this.#metrics.snapshot();
  }

  /** Whether one more line about a peer that was refused may be written. */
  mayWarn(): boolean {
    return this.#warnings.take();
  }

  poolRequest(outcome: "hit" | "opened" | "waited" | "refused"): void {
    this.#metrics.cell("weft_pool_requests_total", { outcome }).value++;
  }

  tunnelOpened(direction: TunnelDirection): void {
    this.#metrics.cell("weft_tunnels_opened_total", { direction }).value++;
  }

  tunnelClosed(direction: TunnelDirection): void {
    this.#metrics.cell("weft_tunnels_closed_total", { direction }).value++;
  }

  tunnelFailed(direction: TunnelDirection, cause: CloseCause): void {
    this.#metrics.cell("weft_tunnel_handshakes_failed_total", { direction, code: cause.code }).value++;
  }

  tunnelRetired(reason: Parameters<TunnelReporter["tunnelRetired"]>[0]): void {
    this.#metrics.cell("weft_pool_tunnels_retired_total", { reason }).value++;
  }

  http2Fatal(counter: string): void {
    this.#metrics.cell("weft_http2_fatal_total", { counter }).value++;
  }

  handshakeRefused(reason: Parameters<TunnelReporter["handshakeRefused"]>[0]): void {
    this.#metrics.cell("weft_handshakes_refused_total", { reason }).value++;
  }

  bufferPressed(): void {
    this.#metrics.cell("weft_buffer_pressure_total", {}).value++;
  }

  bufferShed(why: "limit" | "stalled"): void {
    this.#metrics.cell("weft_buffer_shed_total", { why }).value++;
  }

  sourceNotPreserved(): void {
    this.#metrics.cell("weft_source_not_preserved_total", {}).value++;
  }
}
