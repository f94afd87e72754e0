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

/** docs/metrics.md has the same table. */
export const CONTROL_METRICS = {
  weft_control_objects: { type: "gauge", help: "Objects of the cluster in force, pods and nodes aside" },
  weft_control_pods: { type: "gauge", help: "Pods known" },
  weft_control_broken_objects: { type: "gauge", help: "Objects that are not in force as they stand" },
  weft_control_leader: { type: "gauge", help: "1 while this replica writes" },
  weft_control_evaluations_total: { type: "counter", help: "States made of the cluster" },
  weft_control_lists_total: { type: "counter", help: "Lists of the Kubernetes API that were completed" },
  weft_control_watches_gone_total: { type: "counter", help: "Watches that the API server could not go on with" },
  weft_control_api_failures_total: { type: "counter", help: "Lists and watches that failed" },
  weft_control_lists_unfollowed: { type: "gauge", help: "Lists of the Kubernetes API that are not followed now; what they said last is in force" },
  weft_control_drift_total: { type: "counter", help: "Objects that a comparison with the API server found to differ" },
  weft_control_writes_waiting: { type: "gauge", help: "Writes to the Kubernetes API that wait or are under way" },
  weft_control_writes_total: { type: "counter", help: "Writes to the Kubernetes API that were taken" },
  weft_control_writes_failed_total: { type: "counter", help: "Writes to the Kubernetes API that failed" },
  weft_control_token_reviews_total: { type: "counter", help: "Tokens that the API server was asked about" },
  weft_control_tokens_refused_total: { type: "counter", help: "Tokens that were refused" },
  weft_xds_clients: { type: "gauge", help: "Clients of xDS connected now" },
  weft_xds_sending_bytes: { type: "gauge", help: "Bytes of responses made and not on the wire yet" },
  weft_xds_streams_total: { type: "counter", help: "xDS streams taken" },
  weft_xds_streams_refused_total: { type: "counter", help: "xDS streams refused" },
  weft_xds_responses_total: { type: "counter", help: "xDS responses sent" },
  weft_xds_resources_total: { type: "counter", help: "Resources in xDS responses" },
  weft_xds_removals_total: { type: "counter", help: "Removals in xDS responses" },
  weft_xds_sent_bytes_total: { type: "counter", help: "Bytes of xDS responses" },
  weft_xds_rejected_total: { type: "counter", help: "xDS responses that a client refused in part or whole" },
  weft_xds_stalled_total: { type: "counter", help: "xDS clients ended because they took nothing" },
  weft_ca_issued_total: { type: "counter", help: "Certificates issued" },
  weft_ca_refused_total: { type: "counter", help: "Certificate requests refused" },
} as const satisfies Readonly<Record<string, Pick<GaugeSource, "type" | "help">>>;

/** @param ca of now: the CA is opened later than it is asked about */
export function controlMetrics(control: ControlPlane, ca: () => CaCounters, xds: XdsCounters): GaugeSource[] {
  const reads = {
    weft_control_objects: () => control.source.set.counts.objects,
    weft_control_pods: () => control.source.set.counts.pods,
    weft_control_broken_objects: () => control.source.set.counts.broken,
    weft_control_leader: () => (control.lease.holds ? 1 : 0),
    weft_control_evaluations_total: () => control.evaluations,
    weft_control_lists_total: () => control.source.counters.lists,
    weft_control_watches_gone_total: () => control.source.counters.gone,
    weft_control_api_failures_total: () => control.source.counters.failures,
    weft_control_lists_unfollowed: () => control.source.unfollowed,
    weft_control_drift_total: () => control.source.counters.drifted,
    weft_control_writes_waiting: () => control.queue.length,
    weft_control_writes_total: () => control.queue.counters.written,
    weft_control_writes_failed_total: () => control.queue.counters.failed,
    weft_control_token_reviews_total: () => control.callers.counters.reviews,
    weft_control_tokens_refused_total: () => control.callers.counters.refused,
    weft_xds_clients: () => xds.clients().length,
    weft_xds_sending_bytes: () => xds.sendingBytes,
    weft_xds_streams_total: () => xds.counters.streams,
    weft_xds_streams_refused_total: () => xds.counters.refused,
    weft_xds_responses_total: () => xds.counters.responses,
    weft_xds_resources_total: () => xds.counters.resources,
    weft_xds_removals_total: () => xds.counters.removals,
    weft_xds_sent_bytes_total: () => xds.counters.bytes,
    weft_xds_rejected_total: () => xds.counters.rejected,
    weft_xds_stalled_total: () => xds.counters.stalled,
    weft_ca_issued_total: () => ca().issued,
    weft_ca_refused_total: () => Object.values(ca().refused).reduce<number>((sum, count) => sum + (count ?? 0), 0),
  } satisfies Readonly<Record<keyof typeof CONTROL_METRICS, () => number>>;
  const table = new Map<string, Pick<GaugeSource, "type" | "help">>(Object.entries(CONTROL_METRICS));
  return Object.entries(reads).map(([name, read]) => ({ name, ...table.get(name)!, read }));
}
