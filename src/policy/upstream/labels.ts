// Labels of an endpoint, for subsets and failover priorities. What the record of a workload says itself is read from there, under the
// names that Kubernetes and Istio give it; for all others whoever holds the resources is asked.

import type { Workload } from "../../mesh/records.ts";

/** Value of a label that the record does not hold; undefined without one. */
export type LabelSource = (workload: Workload, label: string) => string | undefined;

export const NO_LABELS: LabelSource = () => undefined;

export function labelOf(workload: Workload, label: string, source: LabelSource): string | undefined {
  const given = source(workload, label);
  if (given !== undefined) return given;
  const known = knownLabel(workload, label);
  return known === "" ? undefined : known;
}

function knownLabel(workload: Workload, label: string): string {
  switch (label) {
    case "topology.kubernetes.io/region": return workload.locality.region;
    case "topology.kubernetes.io/zone": return workload.locality.zone;
    case "topology.istio.io/subzone": return workload.locality.subzone;
    case "topology.istio.io/network": return workload.network;
    case "topology.istio.io/cluster": return workload.clusterId;
    case "kubernetes.io/hostname": return workload.node;
    case "app":
    case "app.kubernetes.io/name": return workload.app;
    case "version":
    case "app.kubernetes.io/version": return workload.version;
    case "service.istio.io/canonical-name": return workload.canonicalName;
    case "service.istio.io/canonical-revision": return workload.canonicalRevision;
    default: return "";
  }
}

/** True when the workload has every label, with its value. */
export function hasLabels(workload: Workload, labels: Readonly<Record<string, string>>, source: LabelSource): boolean {
  for (const label in labels) if (labelOf(workload, label, source) !== labels[label]) return false;
  return true;
}
