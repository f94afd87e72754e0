// Which labels of which workloads are told to waypoints: those that some rule looks at.

import type { WorkloadUid } from "../../core/brand.ts";
import { eachInSteps, type Steps } from "../../core/steps.ts";
import type { Route } from "../../mesh/l7/route.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { WorkloadLabels } from "../../mesh/l7/workload-labels.ts";
import type { Resource } from "../kinds.ts";
import { entryLabels, workloadUid } from "../kinds/workload-entry.ts";
import { deepEqual } from "../mesh-delta.ts";
import type { Labels } from "../object-meta.ts";
import type { Placed } from "../resource.ts";
import { endpointUids } from "../translate-service-entry.ts";
import { Counted } from "./counted.ts";
import { L7Table, type TakenTable } from "./l7-table.ts";

/** Told with each workload's record, which follows the node it runs on. */
const OF_PLACE = new Set(["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone", "topology.istio.io/network", "topology.istio.io/cluster", "kubernetes.io/hostname"]);
const NONE: readonly string[] = [];

export function* labelsOfRoute({ rules }: Route): Iterable<string> {
  if (!("precedence" in rules)) return;
  for (const { matches, faults } of rules.rules) {
    for (const { sourceLabels } of matches) yield* Object.keys(sourceLabels);
    for (const fault of faults) for (const { sourceLabels } of fault.matches) yield* Object.keys(sourceLabels);
  }
}

export function* labelsOfPolicies(policies: readonly TrafficPolicy[]): Iterable<string> {
  for (const { subset, locality, localRateLimits, globalRateLimits, faults } of policies) {
    yield* Object.keys(subset?.labels ?? {});
    for (const priority of locality?.failoverPriority ?? []) yield priority.split("=", 1)[0]!;
    for (const { matches } of [...localRateLimits, ...globalRateLimits, ...faults]) for (const { sourceLabels } of matches) yield* Object.keys(sourceLabels);
  }
}

/** Of WorkloadEntries and the endpoints of ServiceEntries. */
export function* labelledEntries(resources: Iterable<Placed<Resource>>, clusterId: string): Iterable<WorkloadLabels> {
  for (const { resource } of resources) {
    if (resource.kind === "WorkloadEntry") yield { uid: workloadUid(resource, clusterId), labels: entryLabels(resource) };
    else if (resource.kind === "ServiceEntry") for (const { uid, endpoint } of endpointUids(resource, clusterId)) yield { uid, labels: endpoint.labels ?? {} };
  }
}

/** Labels of each workload that is another now; null of one that is gone. */
export type MovedLabels = ReadonlyMap<WorkloadUid, Labels | null>;

export class LabelsTold {
  readonly #names = new Counted<string>();
  /** By who looks at them. */
  readonly #lookedAt = new Map<string, readonly string[]>();
  readonly #table = new L7Table<WorkloadUid, WorkloadLabels>(deepEqual);
  /** Of `#names`, when labels were told last. */
  #namesToldOf = 0;

  /** Some rule looks at labels: what workloads there are matters. */
  get looksAtLabels(): boolean {
    return this.#names.size > 0;
  }

  /** Other labels are looked at than when they were told. */
  get isBehind(): boolean {
    return this.#names.changes !== this.#namesToldOf;
  }

  /** In the place of what the same rules looked at before. */
  lookAt(source: string, labels: Iterable<string>): void {
    const before = this.#lookedAt.get(source) ?? NONE;
    const after = [...new Set(labels)].filter((name) => !OF_PLACE.has(name));
    if (before.length === 0 && after.length === 0) return;
    this.#names.add(after.map((name) => [name, name] as const));
    this.#names.remove(before);
    if (after.length === 0) this.#lookedAt.delete(source);
    else this.#lookedAt.set(source, after);
  }

  /**
   * @param all every workload, looked at where other labels are looked at than before.
   * @param moved since labels were told last; looked at otherwise.
   */
  *take(all: Iterable<WorkloadLabels>, moved: MovedLabels): Steps<TakenTable<WorkloadUid, WorkloadLabels>> {
    if (this.isBehind) yield* this.#tellAll(all);
    else if (this.looksAtLabels) yield* this.#tellMoved(moved);
    return this.#table.take();
  }

  *#tellAll(all: Iterable<WorkloadLabels>): Steps<void> {
    const names = new Set(this.#names.values());
    const left = new Set(this.#table.keys());
    if (names.size > 0) {
      yield* eachInSteps(all, ({ uid, labels }) => {
        if (this.#tell(uid, labels, names)) left.delete(uid);
      });
    }
    for (const uid of left) this.#table.set(uid, null);
    this.#namesToldOf = this.#names.changes;
  }

  *#tellMoved(moved: MovedLabels): Steps<void> {
    const names = new Set(this.#names.values());
    yield* eachInSteps(moved, ([uid, labels]) => void this.#tell(uid, labels ?? {}, names));
  }

  /** @returns whether there is something to tell of it. */
  #tell(uid: WorkloadUid, labels: Labels, names: ReadonlySet<string>): boolean {
    const wanted = Object.entries(labels).filter(([name]) => names.has(name)).sort(([a], [b]) => (a < b ? -1 : 1));
    if (wanted.length === 0) {
      this.#table.set(uid, null);
      return false;
    }
    const told = Object.fromEntries(wanted);
    const known = this.#table.get(uid);
    if (known === undefined || !deepEqual(known.labels, told)) this.#table.set(uid, { uid, labels: told });
    return true;
  }
}
