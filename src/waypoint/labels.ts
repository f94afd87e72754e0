// What a workload's record holds of its labels, by their usual names: for rules that look at the caller's.

import type { Workload } from "../mesh/records.ts";

const NONE: Readonly<Record<string, string>> = Object.freeze({});

export function labelsOf(workload: Workload | null): Readonly<Record<string, string>> {
  if (workload === null) return NONE;
  const { app, version, canonicalName, canonicalRevision } = workload;
  return { app, version, "service.istio.io/canonical-name": canonicalName, "service.istio.io/canonical-revision": canonicalRevision };
}
