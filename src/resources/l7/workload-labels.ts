// Which labels of which workloads are told to waypoints: those that some rule looks at.

import type { WorkloadUid } from "../../core/brand.ts";
import { ITEMS_PER_STEP, type Steps } from "../../core/steps.ts";
import type { Route } from "../../mesh/l7/route.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { WorkloadLabels } from "../../mesh/l7/workload-labels.ts";
import type { Resource } from "../kinds.ts";
import { entryLabels, workloadUid } from "../kinds/workload-entry.ts";
import type { Placed } from "../resource.ts";
import { endpointUids } from "../translate-service-entry.ts";

/** Told with each workload's record, which follows the node it runs on. */
const OF_PLACE = new Set(["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone", "topology.istio.io/network", "topology.istio.io/cluster", "kubernetes.io/hostname"]);

export function labelsLookedAt(routes: Iterable<Route>, policies: Iterable<readonly TrafficPolicy[]>): ReadonlySet<string> {
  const names = new Set<string>();
  for (const { rules } of routes) {
    if (!("precedence" in rules)) continue;
    for (const { matches, faults } of rules.rules) {
      for (const { sourceLabels } of [...matches, ...faults.flatMap((fault) => fault.matches)]) for (const label in sourceLabels) names.add(label);
    }
  }
  for (const { subset, locality, localRateLimits, globalRateLimits, faults } of [...policies].flat()) {
    for (const label in subset?.labels ?? {}) names.add(label);
    for (const priority of locality?.failoverPriority ?? []) names.add(priority.split("=", 1)[0]!);
    for (const { matches } of [...localRateLimits, ...globalRateLimits, ...faults]) for (const { sourceLabels } of matches) for (const label in sourceLabels) names.add(label);
  }
  for (const label of OF_PLACE) names.delete(label);
  return names;
}

/** Of WorkloadEntries and the endpoints of ServiceEntries. */
export function* labelledEntries(resources: Iterable<Placed<Resource>>, clusterId: string): Iterable<WorkloadLabels> {
  for (const { resource } of resources) {
    if (resource.kind === "WorkloadEntry") yield { uid: workloadUid(resource, clusterId), labels: entryLabels(resource) };
    else if (resource.kind === "ServiceEntry") for (const { uid, endpoint } of endpointUids(resource, clusterId)) yield { uid, labels: endpoint.labels ?? {} };
  }
}

/** @param before kept where nothing changed. */
export function* labelsTold(all: readonly Iterable<WorkloadLabels>[], names: ReadonlySet<string>, before: ReadonlyMap<WorkloadUid, WorkloadLabels>): Steps<ReadonlyMap<WorkloadUid, WorkloadLabels>> {
  if (names.size === 0) return before.size === 0 ? before : new Map();
  const told = new Map<WorkloadUid, WorkloadLabels>();
  for (const some of all) yield* tell(some, names, before, told);
  return told;
}

function* tell(all: Iterable<WorkloadLabels>, names: ReadonlySet<string>, before: ReadonlyMap<WorkloadUid, WorkloadLabels>, told: Map<WorkloadUid, WorkloadLabels>): Steps<void> {
  let looked = 0;
  for (const { uid, labels } of all) {
    if (++looked % ITEMS_PER_STEP === 0) yield;
    const wanted = Object.entries(labels).filter(([name]) => names.has(name)).sort(([a], [b]) => (a < b ? -1 : 1));
    if (wanted.length === 0) continue;
    const known = before.get(uid);
    const same = known !== undefined && Object.keys(known.labels).length === wanted.length && wanted.every(([name, value]) => known.labels[name] === value);
    told.set(uid, same ? known : { uid, labels: Object.fromEntries(wanted) });
  }
}
