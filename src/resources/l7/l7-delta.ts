// What changed between two states of the L7 configuration, as one delta that holds nothing else.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import { atOnce } from "../../core/steps.ts";
import type { L7Delta, L7Snapshot } from "../../mesh/l7/delta.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import { changed, deepEqual, equalButSource } from "../mesh-delta.ts";

/**
 * The delta that makes `next` of `previous`. Routes and traffic policies of which only the line moved in a file are no change: they
 * would all be compiled again for one line more at its top. Of the others the line is told, as explanations name it.
 */
export function diffL7(previous: L7Snapshot, next: L7Snapshot): L7Delta {
  const waypoints = atOnce(changed(previous.waypoints, next.waypoints, equalButSource));
  const routes = atOnce(changed(previous.routes, next.routes, equalButSource));
  const traffic = atOnce(changed(previous.trafficPolicies, next.trafficPolicies, samePolicies));
  const policies = atOnce(changed(previous.requestPolicies, next.requestPolicies, deepEqual));
  const authentications = atOnce(changed(previous.requestAuthentications, next.requestAuthentications, deepEqual));
  const logins = atOnce(changed(previous.loginPolicies, next.loginPolicies, deepEqual));
  const telemetry = atOnce(changed(previous.telemetry, next.telemetry, deepEqual));
  const labels = atOnce(changed(previous.workloadLabels, next.workloadLabels, deepEqual));
  return {
    waypoints: waypoints.upserted, routes: routes.upserted, requestPolicies: policies.upserted, requestAuthentications: authentications.upserted, loginPolicies: logins.upserted, telemetry: telemetry.upserted, workloadLabels: labels.upserted,
    trafficPolicies: traffic.upserted.map((entries) => ({ service: serviceOf(entries), policies: entries })),
    removedWaypoints: waypoints.removed, removedRoutes: routes.removed, removedTrafficPolicies: traffic.removed, removedRequestPolicies: policies.removed,
    removedRequestAuthentications: authentications.removed, removedLoginPolicies: logins.removed, removedTelemetry: telemetry.removed, removedWorkloadLabels: labels.removed,
  };
}

export function serviceOf(policies: readonly TrafficPolicy[]): NamespacedName {
  const [first] = policies;
  if (first === undefined) throw new Error("a service without traffic policies has no entry in the snapshot");
  return first.service;
}

export function isEmptyL7Delta(delta: L7Delta): boolean {
  return Object.values(delta).every((part: readonly unknown[]) => part.length === 0);
}

export function samePolicies(a: readonly TrafficPolicy[], b: readonly TrafficPolicy[]): boolean {
  return a.length === b.length && a.every((policy, i) => deepEqual(withoutSources(policy), withoutSources(b[i]!)));
}

function withoutSources(policy: TrafficPolicy): TrafficPolicy {
  const provenance: Record<string, Provenance> = {};
  for (const [field, from] of Object.entries(policy.provenance)) provenance[field] = { ...from, source: "" };
  return { ...policy, provenance };
}
