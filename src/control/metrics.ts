// What a control plane tells of itself beside what every process does.

import type { GaugeSource } from "../telemetry/exposition.ts";
import type { ClientStatus } from "../xds/serving.ts";
import type { ControlPlane } from "./control-plane.ts";

interface CaCounters {
  readonly issued: number;
  readonly refused: Readonly<Partial<Record<string, number>>>;
}

interface XdsCounters {
  readonly counters: { readonly streams: number; readonly refused: number; readonly responses: number; readonly resources: number; readonly removals: number; readonly bytes: number; readonly rejected: number; readonly stalled: number };
  readonly sendingBytes: number;
  clients(): readonly ClientStatus[];
}

export function controlMetrics(control: ControlPlane, ca: CaCounters, xds: XdsCounters): GaugeSource[] {
  const gauge = (name: string, help: string, read: () => number): GaugeSource => ({ name, help, type: "gauge", read });
  const counter = (name: string, help: string, read: () => number): GaugeSource => ({ name, help, type: "counter", read });
  return [
    gauge("weft_control_objects", "Objects of the cluster in force, pods and nodes aside", () => control.source.set.counts.objects),
    gauge("weft_control_pods", "Pods known", () => control.source.set.counts.pods),
    gauge("weft_control_broken_objects", "Objects that are not in force as they stand", () => control.source.set.counts.broken),
    gauge("weft_control_leader", "1 while this replica writes", () => (control.lease.holds ? 1 : 0)),
    counter("weft_control_evaluations_total", "States made of the cluster", () => control.evaluations),
    counter("weft_control_lists_total", "Lists of the Kubernetes API that were completed", () => control.source.counters.lists),
    counter("weft_control_watches_gone_total", "Watches that the API server could not go on with", () => control.source.counters.gone),
    counter("weft_control_api_failures_total", "Lists and watches that failed", () => control.source.counters.failures),
    counter("weft_control_drift_total", "Objects that a comparison with the API server found to differ", () => control.source.counters.drifted),
    gauge("weft_control_writes_waiting", "Writes to the Kubernetes API that wait or are under way", () => control.queue.length),
    counter("weft_control_writes_total", "Writes to the Kubernetes API that were taken", () => control.queue.counters.written),
    counter("weft_control_writes_failed_total", "Writes to the Kubernetes API that failed", () => control.queue.counters.failed),
    counter("weft_control_token_reviews_total", "Tokens that the API server was asked about", () => control.callers.counters.reviews),
    counter("weft_control_tokens_refused_total", "Tokens that were refused", () => control.callers.counters.refused),
    gauge("weft_xds_clients", "Clients of xDS connected now", () => xds.clients().length),
    gauge("weft_xds_sending_bytes", "Bytes of responses made and not on the wire yet", () => xds.sendingBytes),
    counter("weft_xds_streams_total", "xDS streams taken", () => xds.counters.streams),
    counter("weft_xds_streams_refused_total", "xDS streams refused", () => xds.counters.refused),
    counter("weft_xds_responses_total", "xDS responses sent", () => xds.counters.responses),
    counter("weft_xds_resources_total", "Resources in xDS responses", () => xds.counters.resources),
    counter("weft_xds_removals_total", "Removals in xDS responses", () => xds.counters.removals),
    counter("weft_xds_sent_bytes_total", "Bytes of xDS responses", () => xds.counters.bytes),
    counter("weft_xds_rejected_total", "xDS responses that a client refused in part or whole", () => xds.counters.rejected),
    counter("weft_xds_stalled_total", "xDS clients ended because they took nothing", () => xds.counters.stalled),
    counter("weft_ca_issued_total", "Certificates issued", () => ca.issued),
    counter("weft_ca_refused_total", "Certificate requests refused", () => Object.values(ca.refused).reduce<number>((sum, count) => sum + (count ?? 0), 0)),
  ];
}
