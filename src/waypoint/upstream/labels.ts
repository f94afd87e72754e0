// What is known of a workload's labels: what its record holds under their usual names, and those that some rule looks at.

import type { L7Store } from "../../mesh/l7/l7-store.ts";
import type { Workload } from "../../mesh/records.ts";

const NONE: Readonly<Record<string, string>> = Object.freeze({});

export function labelsOf(workload: Workload | null, l7: L7Store): Readonly<Record<string, string>> {
  if (workload === null) return NONE;
  const { app, version, canonicalName, canonicalRevision } = workload;
  return { app, version, "service.istio.io/canonical-name": canonicalName, "service.istio.io/canonical-revision": canonicalRevision, ...l7.labels(workload.uid) };
}
