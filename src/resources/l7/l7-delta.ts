// What changed between two states of the L7 configuration, as one delta that holds nothing else.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import { atOnce, type Steps } from "../../core/steps.ts";
import type { L7Delta, L7Snapshot } from "../../mesh/l7/delta.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import { changed, deepEqual, equalButSource } from "../mesh-delta.ts";

/**
 * The delta that makes `next` of `previous`. Routes and traffic policies of which only the line moved in a file are no change: they
 * would all be compiled again for one line more at its top. Of the others the line is told, as explanations name it.
 */
export function diffL7(previous: L7Snapshot, next: L7Snapshot): L7Delta {
  return atOnce(diffL7Steps(previous, next));
}

export function* diffL7Steps(previous: L7Snapshot, next: L7Snapshot): Steps<L7Delta> {
  const waypoints = yield* changed(previous.waypoints, next.waypoints, equalButSource);
  const routes = yield* changed(previous.routes, next.routes, equalButSource);
  const traffic = yield* changed(previous.trafficPolicies, next.trafficPolicies, samePolicies);
  const policies = yield* changed(previous.requestPolicies, next.requestPolicies, deepEqual);
  const authentications = yield* changed(previous.requestAuthentications, next.requestAuthentications, deepEqual);
  const logins = yield* changed(previous.loginPolicies, next.loginPolicies, deepEqual);
  const telemetry = yield* changed(previous.telemetry, next.telemetry, deepEqual);
  const labels = yield* changed(previous.workloadLabels, next.workloadLabels, deepEqual);
  return {
    waypoints: waypoints.upserted, routes: routes.upserted, requestPolicies: policies.upserted, requestAuthentications: authentications.upserted, loginPolicies: logins.upserted, telemetry: telemetry.upserted, workloadLabels: labels.upserted,
    trafficPolicies: traffic.upserted.map((entries) => ({ service: serviceOf(entries), policies: entries })),
    removedWaypoints: waypoints.removed, removedRoutes: routes.removed, removedTrafficPolicies: traffic.removed, removedRequestPolicies: policies.removed,
    removedRequestAuthentications: authentications.removed, removedLoginPolicies: logins.removed, removedTelemetry: telemetry.removed, removedWorkloadLabels: labels.removed,
  };
}

function serviceOf(policies: readonly TrafficPolicy[]): NamespacedName {
  const [first] = policies;
  if (first === undefined) throw new Error("a service without traffic policies has no entry in the snapshot");
  return first.service;
}

export function isEmptyL7Delta(delta: L7Delta): boolean {
  return Object.values(delta).every((part: readonly unknown[]) => part.length === 0);
}

function samePolicies(a: readonly TrafficPolicy[], b: readonly TrafficPolicy[]): boolean {
  return a.length === b.length && a.every((policy, i) => deepEqual(withoutSources(policy), withoutSources(b[i]!)));
}

function withoutSources(policy: TrafficPolicy): TrafficPolicy {
  const provenance: Record<string, Provenance> = {};
  for (const [field, from] of Object.entries(policy.provenance)) provenance[field] = { ...from, source: "" };
  return { ...policy, provenance };
}
