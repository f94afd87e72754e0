// The DNS proxy's counts as the metrics people know: istio_dns_* with the workload's canonical service.

import type { Workload } from "../../mesh/records.ts";
import type { ConnectionMetrics } from "../../telemetry/connection-metrics.ts";
import type { DnsLabels, DnsMetrics } from "./metrics.ts";

/** @param workload asked at each count: its record may change. */
export function dnsCounters(metrics: ConnectionMetrics, workload: () => Workload | null): DnsMetrics {
  const labels = ({ queryType, protocol }: DnsLabels) => {
    const source = workload();
    return {
      request_query_type: queryType, request_protocol: protocol,
      source_canonical_service: source?.canonicalName ?? "unknown", source_canonical_revision: source?.canonicalRevision ?? "unknown",
    };
  };
  return {
    request: (of) => void metrics.cell("istio_dns_requests_total", labels(of)).value++,
    upstream: (of) => void metrics.cell("istio_dns_upstream_requests_total", labels(of)).value++,
    upstreamFailure: (of) => void metrics.cell("istio_dns_upstream_failures_total", labels(of)).value++,
    upstreamDuration: (of, seconds) => metrics.histogram("istio_dns_upstream_request_duration_seconds", labels(of)).observe(seconds),
    refused: (reason) => void metrics.cell("weft_dns_refused_total", { reason }).value++,
    badReply: () => void metrics.cell("weft_dns_bad_replies_total", {}).value++,
  };
}
