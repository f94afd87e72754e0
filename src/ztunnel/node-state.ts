// What a node shows of itself: the gauges of its main thread, and /config_dump.

import { configDump } from "../runtime/config-dump.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { describeSettings } from "../runtime/settings.ts";
import { VERSION } from "../runtime/version.ts";
import type { MetricSeries } from "../telemetry/metric-series.ts";
import type { NodeAgent } from "./node-agent.ts";

/** Before a snapshot. */
export function observeNode(agent: NodeAgent, metrics: Pick<MetricSeries, "cell">, wallMs: number): void {
  const { certificates } = agent;
  const { fetches, fetchFailures } = agent.svids.counters;
  metrics.cell("weft_certificates_held", {}).value = certificates.length;
  if (certificates.length > 0) metrics.cell("weft_certificate_expiry_seconds", {}).value = (Math.min(...certificates.map(({ notAfterMs }) => notAfterMs)) - wallMs) / 1000;
  metrics.cell("weft_certificate_fetches_total", { outcome: "ok" }).value = fetches - fetchFailures;
  metrics.cell("weft_certificate_fetches_total", { outcome: "failed" }).value = fetchFailures;
  metrics.cell("workload_manager_active_proxy_count", {}).value = agent.attachedCount;
  metrics.cell("workload_manager_pending_proxy_count", {}).value = agent.pendingCount;
  metrics.cell("istio_build", { component: "ztunnel", tag: VERSION }).value = 1;
}

/** @param more what else the process has to show, beside the node's own. */
export function dumpNode(agent: NodeAgent, { role, parsed }: Runtime, more: () => Promise<Readonly<Record<string, unknown>>>): ReturnType<typeof configDump> {
  const { store, svids } = agent;
  return configDump({
    workloads: () => store.workloads(), services: () => store.services(), policies: () => store.policies(), endpoints: (service) => agent.endpointsOf(service),
    certificates: () => svids.list().map(({ spiffeId, failure, certificate }) => ({ spiffeId, failure, certificate })),
    localWorkloads: () => agent.localState(), config: () => describeSettings(role, parsed), version: VERSION, more,
  });
}
