// core/v1 Namespace: opts its workloads in and binds a waypoint, by labels. Nothing of it becomes a record.

import { z } from "zod";
import { DATAPLANE_MODE, DATAPLANE_MODES, USE_WAYPOINT, USE_WAYPOINT_CANARY, USE_WAYPOINT_CANARY_NAMESPACE, USE_WAYPOINT_NAMESPACE, WAYPOINT_CANARY_WEIGHT } from "../annotations.ts";
import { collectable } from "../collectable.ts";
import { show } from "../diagnostic.ts";
import { isDnsLabel, isDnsSubdomain, type Labels } from "../object-meta.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";
import { parseCanaryWeight } from "../waypoint-binding.ts";

const spec = collectable(() => z.strictObject({ finalizers: z.unknown().optional() }).nullish());

export const namespaceKind = defineKind({
  kind: "Namespace",
  group: "",
  versions: ["v1"],
  namespaced: false,
  spec,
  check(resource, report) {
    if (!isDnsLabel(resource.name)) report("error", "bad_name", ["metadata", "name"], `found ${show(resource.name)}, expected an RFC 1123 label: at most 63 of a-z, 0-9 and -`);
    checkDataplaneMode(resource.labels, ["metadata", "labels"], report);
    checkUseWaypoint(resource.labels, ["metadata", "labels"], report);
    checkCanaryWeight(resource.annotations, report);
  },
});

export type NamespaceResource = ResourceOfKind<typeof namespaceKind>;

/** A misspelt mode would leave traffic in plain text: it breaks the resource. */
export function checkDataplaneMode(labels: Labels, at: readonly (string | number)[], report: Report): void {
  const mode = labels[DATAPLANE_MODE];
  if (mode !== undefined && !(DATAPLANE_MODES as readonly string[]).includes(mode)) {
    report("error", "bad_value", [...at, DATAPLANE_MODE], `found ${show(mode)}, expected ${DATAPLANE_MODES.join(" or ")}`);
  }
}

export function checkUseWaypoint(labels: Labels, at: readonly (string | number)[], report: Report): void {
  const name = labels[USE_WAYPOINT];
  if (name !== undefined && !isDnsSubdomain(name)) report("error", "bad_value", [...at, USE_WAYPOINT], `found ${show(name)}, expected the name of a waypoint, or none`);
  const canary = labels[USE_WAYPOINT_CANARY];
  if (canary !== undefined && !isDnsSubdomain(canary)) report("error", "bad_value", [...at, USE_WAYPOINT_CANARY], `found ${show(canary)}, expected the name of a waypoint`);
  if (canary !== undefined && name === undefined) report("error", "missing_field", [...at, USE_WAYPOINT_CANARY], `found a canary without ${USE_WAYPOINT}, beside which it takes a share`);
  const canaryNamespace = labels[USE_WAYPOINT_CANARY_NAMESPACE];
  if (canaryNamespace !== undefined && !isDnsLabel(canaryNamespace)) report("error", "bad_value", [...at, USE_WAYPOINT_CANARY_NAMESPACE], `found ${show(canaryNamespace)}, expected the name of a namespace`);
  const namespace = labels[USE_WAYPOINT_NAMESPACE];
  if (namespace !== undefined && !isDnsLabel(namespace)) report("error", "bad_value", [...at, USE_WAYPOINT_NAMESPACE], `found ${show(namespace)}, expected the name of a namespace`);
}

export function checkCanaryWeight(annotations: Labels, report: Report): void {
  const text = annotations[WAYPOINT_CANARY_WEIGHT];
  if (parseCanaryWeight(text) === null) report("error", "bad_value", ["metadata", "annotations", WAYPOINT_CANARY_WEIGHT], `found ${show(text)}, expected a whole number from 0 to 100`);
}
