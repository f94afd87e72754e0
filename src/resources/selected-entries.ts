// How many WorkloadEntries the selectors of one namespace may make endpoints of together: a thousand Services or hosts that each select a
// thousand entries are a million memberships in every agent of the mesh, made of two thousand small objects. The oldest have theirs; the
// others have none of the entries, so that nothing is sent to these for them, and whoever wrote them is told. Pure.

import type { Steps } from "../core/steps.ts";
import type { ServiceResource } from "./kinds/service.ts";
import type { ServiceEntryResource } from "./kinds/service-entry.ts";
import { entryLabels, type WorkloadEntryResource } from "./kinds/workload-entry.ts";
import { sortedByAge } from "./l7/age.ts";
import type { Labels } from "./object-meta.ts";
import type { Placed, ReportFor } from "./resource.ts";
import { selects } from "./selector.ts";

/** Endpoints of all Services and hosts of a namespace that are WorkloadEntries, and endpoints that ServiceEntries list: ten for each of as many hosts as a namespace may have. */
export const SELECTED_PER_NAMESPACE_MAX = 100_000;
/** Labels that are looked at to find them: selectors that agree in one label of many entries, and in no other, find nothing and cost as much. */
const LOOKS_PER_NAMESPACE_MAX = 1_000_000;

export type Selecting = Placed<ServiceResource> | Placed<ServiceEntryResource>;

/** Of selectors that have not all that they select: how many of their hosts have it. */
export type SelectorsBeyond = ReadonlyMap<Selecting, { readonly selected: number; readonly hosts: number }>;

const NOTHING: SelectorsBeyond = new Map();

const hostsOf = ({ resource }: Selecting): number => (resource.kind === "Service" ? 1 : resource.spec.hosts.length);
const selectorOf = ({ resource }: Selecting): Labels => (resource.kind === "Service" ? (resource.spec.selector ?? {}) : (resource.spec.workloadSelector?.labels ?? {}));
const isSelecting = (placed: Selecting): boolean => Object.keys(selectorOf(placed)).length > 0;

interface Selectable {
  readonly services: readonly Placed<ServiceResource>[];
  readonly serviceEntries: readonly Placed<ServiceEntryResource>[];
  readonly entries: readonly Placed<WorkloadEntryResource>[];
}

export function* selectorsBeyond({ services, serviceEntries, entries }: Selectable): Steps<SelectorsBeyond> {
  if (entries.length === 0) return NOTHING;
  const selecting: readonly Selecting[] = [...services.filter(isSelecting), ...serviceEntries.filter(isSelecting)];
  let room = SELECTED_PER_NAMESPACE_MAX;
  for (const { resource } of serviceEntries) room -= resource.spec.hosts.length * (resource.spec.endpoints?.length ?? 0);
  // In most namespaces that is all there is to see.
  if (selecting.reduce((sum, placed) => sum + hostsOf(placed), 0) * entries.length <= room) return NOTHING;
  yield;
  const byPair = labelsByPair(entries);
  const beyond = new Map<Selecting, { readonly selected: number; readonly hosts: number }>();
  let looks = LOOKS_PER_NAMESPACE_MAX;
  for (const placed of sortedByAge<ServiceResource | ServiceEntryResource>([...selecting]) as readonly Selecting[]) {
    yield;
    const selector = selectorOf(placed);
    const candidates = Object.entries(selector).map(([key, value]) => byPair.get(`${key}=${value}`) ?? []).reduce((fewest, some) => (some.length < fewest.length ? some : fewest));
    const selected = looks < candidates.length ? candidates.length : candidates.filter((labels) => selects(selector, labels)).length;
    const hosts = looks < candidates.length ? 0 : selected === 0 ? hostsOf(placed) : Math.min(hostsOf(placed), Math.floor(Math.max(0, room) / selected));
    looks -= Math.min(looks, candidates.length);
    room -= hosts * selected;
    if (hosts < hostsOf(placed)) beyond.set(placed, { selected, hosts });
  }
  return beyond.size === 0 ? NOTHING : beyond;
}

function labelsByPair(entries: readonly Placed<WorkloadEntryResource>[]): ReadonlyMap<string, readonly Labels[]> {
  const byPair = new Map<string, Labels[]>();
  for (const { resource } of entries) {
    const labels = entryLabels(resource);
    for (const key in labels) {
      const pair = `${key}=${labels[key]}`;
      const known = byPair.get(pair);
      if (known === undefined) byPair.set(pair, [labels]);
      else known.push(labels);
    }
  }
  return byPair;
}

export function reportSelectorsBeyond(beyond: SelectorsBeyond, reportFor: ReportFor): void {
  for (const [placed, { selected, hosts }] of beyond) {
    const { kind, namespace } = placed.resource;
    const has = hosts === 0 ? "none of them is its endpoint" : `they are endpoints of its first ${hosts} hosts alone`;
    reportFor(placed)("error", "too_many_memberships", ["spec", kind === "Service" ? "selector" : "workloadSelector"],
      `it selects up to ${selected} WorkloadEntries, and older Services and ServiceEntries of namespace ${namespace} have the ${SELECTED_PER_NAMESPACE_MAX} endpoints that all of them may have, or the ${LOOKS_PER_NAMESPACE_MAX} looks that it takes to find them: ${has}, and nothing is sent to them otherwise`);
  }
}
