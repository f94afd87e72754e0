// What several resources say of the traffic to one service, as records of the model: one for each port, subset and client namespace.
// Of equal rank the older resource wins, which the younger is told.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import { emptyTrafficPolicy, fieldByField } from "../../mesh/l7/merge-traffic.ts";
import type { Subset, TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import { type FieldPath, formatFieldPath } from "../diagnostic.ts";
import { deepEqual } from "../mesh-delta.ts";
import { type Placed, provenanceOf, type ReportFor, type ResourceOf } from "../resource.ts";
import { byAge, describePlaced } from "./age.ts";
import { type Contribution, RANK_UNREAD, type TrafficField, type TrafficFields } from "./contribution.ts";

export interface PlacedContribution {
  readonly placed: Placed<ResourceOf<string, unknown>>;
  readonly contribution: Contribution;
}

/** Fields whose own fields are merged one by one. */
const NESTED: readonly TrafficField[] = ["limits", "outliers", "timeouts"];
/** Fields of which all hold together. */
const ADDED: readonly TrafficField[] = ["localRateLimits", "globalRateLimits", "faults"];

export function mergeContributions(service: NamespacedName, all: readonly PlacedContribution[], reportFor: ReportFor): TrafficPolicy[] {
  const subsets = definedSubsets(all, reportFor);
  const scopes = new Map<string, PlacedContribution[]>();
  for (const one of all) {
    const { port, subset, clientNamespace } = one.contribution;
    if (subset !== null && !subsets.has(subset.name)) continue;
    const key = `${clientNamespace ?? ""}/${subset?.name ?? ""}/${port ?? ""}`;
    const scope = scopes.get(key);
    if (scope === undefined) scopes.set(key, [one]);
    else scope.push(one);
  }
  // What could not be read may have meant any part of the service: it stands in each.
  const unread = all.filter(({ contribution }) => contribution.rank === RANK_UNREAD);
  return [...scopes].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, members]) => mergeScope(service, [...members, ...unread.filter((one) => !members.includes(one))], subsets, reportFor));
}

/** A subset is what a DestinationRule says it is; named by others alone it would stand for every endpoint. */
function definedSubsets(all: readonly PlacedContribution[], reportFor: ReportFor): Map<string, Subset> {
  const defined = new Map<string, { readonly subset: Subset; readonly by: PlacedContribution }>();
  const definitions = all.filter(({ placed, contribution }) => placed.resource.kind === "DestinationRule" && contribution.subset !== null && contribution.port === null).sort(strongerFirst);
  for (const by of definitions) {
    const subset = by.contribution.subset!;
    const known = defined.get(subset.name);
    if (known === undefined) defined.set(subset.name, { subset, by });
    else if (!deepEqual(known.subset.labels, subset.labels)) {
      reportFor(by.placed)("warning", "conflict", ["spec", "subsets"], `found other labels for the subset ${subset.name}, which ${describePlaced(known.by.placed)} defines and comes first: not in force`);
    }
  }
  for (const { placed, contribution } of all) {
    if (contribution.subset === null || defined.has(contribution.subset.name)) continue;
    reportFor(placed)("error", "unresolved_reference", ["spec", "subset"], `found the subset ${contribution.subset.name}, which no DestinationRule for ${contribution.service} defines; nothing is applied`);
  }
  return new Map([...defined].map(([name, { subset }]) => [name, subset]));
}

function strongerFirst(a: PlacedContribution, b: PlacedContribution): number {
  return b.contribution.rank - a.contribution.rank || byAge(a.placed, b.placed);
}

function mergeScope(service: NamespacedName, members: readonly PlacedContribution[], subsets: ReadonlyMap<string, Subset>, reportFor: ReportFor): TrafficPolicy {
  const { port, subset, clientNamespace } = members[0]!.contribution;
  const merged: { -readonly [K in keyof TrafficPolicy]: TrafficPolicy[K] } = { ...emptyTrafficPolicy(service), port, subset: subset === null ? null : subsets.get(subset.name)!, clientNamespace };
  const provenance: Record<string, Provenance> = {};
  const owners = new Map<TrafficField, PlacedContribution>();
  for (const member of [...members].sort(strongerFirst)) {
    const { fields, paths } = member.contribution;
    for (const [part, path] of partsOf(fields)) provenance[part] ??= provenanceOf(member.placed, path);
    for (const field of Object.keys(fields) as TrafficField[]) {
      const path = paths[field] ?? [];
      const owner = owners.get(field);
      if (owner === undefined) {
        owners.set(field, member);
        provenance[field] = provenanceOf(member.placed, formatFieldPath(path));
        assign(merged, field, fields);
      } else if (ADDED.includes(field)) append(merged, field, fields);
      else overlay(merged, field, member, owner, path, reportFor);
    }
  }
  return { ...merged, provenance };
}

/** What several policies may have a share in, each part by its name and its path: `localRateLimits.per-caller`, `timeouts.requestMs`. */
function* partsOf({ localRateLimits = [], globalRateLimits = [], timeouts = null }: Partial<TrafficFields>): Iterable<readonly [part: string, fieldPath: string]> {
  for (const { name, fieldPath } of localRateLimits) yield [`localRateLimits.${name}`, fieldPath];
  for (const { name, fieldPath } of globalRateLimits) yield [`globalRateLimits.${name}`, fieldPath];
  if (timeouts === null) return;
  if (timeouts.requestMs !== null) yield ["timeouts.requestMs", "spec.timeouts.request"];
  if (timeouts.backendRequestMs !== null) yield ["timeouts.backendRequestMs", "spec.timeouts.backendRequest"];
  if (timeouts.streamIdleMs !== null) yield ["timeouts.streamIdleMs", "spec.timeouts.streamIdle"];
}

type Mutable = { -readonly [K in keyof TrafficPolicy]: TrafficPolicy[K] };

function assign<K extends TrafficField>(merged: Mutable, field: K, fields: Partial<TrafficFields>): void {
  const value = fields[field];
  if (value !== undefined) (merged as Pick<TrafficFields, K>)[field] = value;
}

function append(merged: Mutable, field: TrafficField, fields: Partial<TrafficFields>): void {
  if (field === "localRateLimits") merged.localRateLimits = [...merged.localRateLimits, ...(fields.localRateLimits ?? [])];
  if (field === "globalRateLimits") merged.globalRateLimits = [...merged.globalRateLimits, ...(fields.globalRateLimits ?? [])];
  if (field === "faults") merged.faults = [...merged.faults, ...(fields.faults ?? [])];
}

/** The loser's value fills what the winner left open, in fields that have fields; what it says otherwise is not in force. */
function overlay(merged: Mutable, field: TrafficField, loser: PlacedContribution, winner: PlacedContribution, path: FieldPath, reportFor: ReportFor): void {
  const { fields, rank } = loser.contribution;
  const conflicting: string[] = [];
  if (NESTED.includes(field)) {
    const [above, below] = [merged[field], fields[field]] as readonly [Readonly<Record<string, unknown>> | null, Readonly<Record<string, unknown>> | null];
    for (const key in below ?? {}) if (above !== null && above[key] !== null && below![key] !== null && !deepEqual(above[key], below![key])) conflicting.push(`${field}.${key}`);
    if (field === "limits") merged.limits = fieldByField(fields.limits ?? null, merged.limits);
    if (field === "outliers") merged.outliers = fieldByField(fields.outliers ?? null, merged.outliers);
    if (field === "timeouts") merged.timeouts = fieldByField(fields.timeouts ?? null, merged.timeouts);
  } else if (!deepEqual(merged[field], fields[field])) conflicting.push(field);
  if (conflicting.length === 0 || rank !== winner.contribution.rank) return;
  const { placed } = winner;
  reportFor(loser.placed)("warning", "conflict", path, `not in force (${conflicting.join(", ")}): ${describePlaced(placed)} says otherwise for the same requests and comes first`);
}
