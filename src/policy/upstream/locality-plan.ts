// Splits the endpoints of an upstream into groups by place: levels that are used one after the other as health falls (failover), or
// localities with weights (distribute). Done when endpoints change, not per request.

import type { LocalityFailover } from "../../mesh/l7/traffic-policy.ts";
import type { Locality, Service, Workload } from "../../mesh/records.ts";
import { rankOf } from "../locality.ts";
import { labelOf, type LabelSource } from "./labels.ts";

export interface PlannedGroup<T> {
  /** For explanations: `level 0`, `region/zone/*`. */
  readonly name: string;
  /** Of all groups of a plan by weights; 1 in a plan by levels. */
  readonly weight: number;
  readonly members: T[];
}

export interface LocalityPlan<T> {
  /** `levels`: the first group takes all it can, what it cannot goes to the next. `weights`: each takes its share. */
  readonly kind: "levels" | "weights";
  readonly groups: readonly PlannedGroup<T>[];
  /** Endpoints of other zones are used only when they are better by a factor. */
  readonly preferZone: boolean;
}

export interface PlanOptions {
  readonly locality: LocalityFailover | null;
  readonly service: Service;
  readonly source: Workload;
  readonly labels: LabelSource;
}

export function planLocality<T extends { readonly workload: Workload }>(members: readonly T[], options: PlanOptions): LocalityPlan<T> {
  const { locality, service, source } = options;
  if (locality === null) {
    const { mode } = service.loadBalancing;
    return {
      kind: "levels",
      groups: byLevel(members, (member) => -rankOf(service.loadBalancing, source, member.workload)),
      preferZone: mode === "standard" && source.locality.zone !== "",
    };
  }
  switch (locality.mode) {
    case "off":
      return { kind: "levels", groups: byLevel(members, () => 0), preferZone: false };
    case "failover":
      return { kind: "levels", groups: byLevel(members, (member) => failoverLevel(locality, source, member.workload, options.labels)), preferZone: false };
    case "distribute": {
      const rule = locality.distribute.find(({ from }) => matchesPattern(source.locality, from));
      if (rule === undefined) return { kind: "levels", groups: byLevel(members, () => 0), preferZone: false };
      return { kind: "weights", groups: byWeight(members, rule.to), preferZone: false };
    }
    default:
      return locality.mode satisfies never;
  }
}

/** Groups in rising order of a number, renumbered from 0 without gaps. */
function byLevel<T>(members: readonly T[], levelOf: (member: T) => number): PlannedGroup<T>[] {
  const levels = new Map<number, T[]>();
  for (const member of members) {
    const level = levelOf(member);
    const group = levels.get(level);
    if (group === undefined) levels.set(level, [member]);
    else group.push(member);
  }
  return [...levels].sort((a, b) => a[0] - b[0]).map(([, group], i) => ({ name: `level ${i}`, weight: 1, members: group }));
}

/** Each endpoint goes to the longest pattern that matches it; endpoints of none get nothing. */
function byWeight<T extends { readonly workload: Workload }>(members: readonly T[], to: readonly { readonly locality: string; readonly weight: number }[]): PlannedGroup<T>[] {
  const groups = to.filter(({ weight }) => weight > 0).map(({ locality, weight }) => ({ name: locality, weight, members: [] as T[] }));
  const longestFirst = [...groups].sort((a, b) => b.name.replace(/\/?\*$/, "").length - a.name.replace(/\/?\*$/, "").length);
  for (const member of members) longestFirst.find(({ name }) => matchesPattern(member.workload.locality, name))?.members.push(member);
  return groups.filter(({ members: own }) => own.length > 0);
}

/** `region/zone/subzone`, whose tail may be left out or be `*`. */
function matchesPattern(locality: Locality, pattern: string): boolean {
  const parts = pattern.split("/");
  const names = [locality.region, locality.zone, locality.subzone];
  return parts.every((part, i) => part === "*" || part === names[i]);
}

/**
 * Lower is nearer. With priorities: the labels counted from the last that are no longer equal; the first unequal one ends the count.
 * Else region, zone, subzone as Istio counts them, and regions named as a region's failover before all others.
 */
function failoverLevel(locality: LocalityFailover, source: Workload, endpoint: Workload, labels: LabelSource): number {
  const { failoverPriority } = locality;
  if (failoverPriority.length > 0) {
    let equal = 0;
    while (equal < failoverPriority.length && sharesLabel(failoverPriority[equal]!, source, endpoint, labels)) equal++;
    return failoverPriority.length - equal;
  }
  const [here, there] = [source.locality, endpoint.locality];
  if (here.region === "" || here.region !== there.region) {
    return locality.failover.some(({ from, to }) => from === here.region && to === there.region) ? 3 : 4;
  }
  if (here.zone === "" || here.zone !== there.zone) return 2;
  return here.subzone === there.subzone ? 0 : 1;
}

/** `label`: both have the same value. `label=value`: the endpoint has that value. */
function sharesLabel(priority: string, source: Workload, endpoint: Workload, labels: LabelSource): boolean {
  const at = priority.indexOf("=");
  if (at >= 0) return labelOf(endpoint, priority.slice(0, at), labels) === priority.slice(at + 1);
  const value = labelOf(source, priority, labels);
  return value !== undefined && value === labelOf(endpoint, priority, labels);
}
