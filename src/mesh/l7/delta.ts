// The L7 configuration as a whole, and a change to it as one unit. Apart from the mesh's own: a ztunnel never sees or holds any of this.

import type { NamespacedName, WorkloadUid } from "../../core/brand.ts";
import type { LoginPolicy, RequestAuthentication, RequestPolicy } from "./access.ts";
import type { Route } from "./route.ts";
import type { TelemetryPolicy } from "./telemetry.ts";
import type { TrafficPolicy } from "./traffic-policy.ts";
import type { Waypoint } from "./waypoint.ts";
import type { WorkloadLabels } from "./workload-labels.ts";

/** Keyed by `namespace/name`; routes by their id, traffic policies by their service. */
export interface L7Snapshot {
  readonly waypoints: ReadonlyMap<NamespacedName, Waypoint>;
  readonly routes: ReadonlyMap<string, Route>;
  readonly trafficPolicies: ReadonlyMap<NamespacedName, readonly TrafficPolicy[]>;
  readonly requestPolicies: ReadonlyMap<NamespacedName, RequestPolicy>;
  readonly requestAuthentications: ReadonlyMap<NamespacedName, RequestAuthentication>;
  readonly loginPolicies: ReadonlyMap<NamespacedName, LoginPolicy>;
  readonly telemetry: ReadonlyMap<NamespacedName, TelemetryPolicy>;
  readonly workloadLabels: ReadonlyMap<WorkloadUid, WorkloadLabels>;
}

export const EMPTY_L7_SNAPSHOT: L7Snapshot = {
  waypoints: new Map(), routes: new Map(), trafficPolicies: new Map(), requestPolicies: new Map(), requestAuthentications: new Map(), loginPolicies: new Map(), telemetry: new Map(), workloadLabels: new Map(),
};

/** Upserts replace by name; a list of traffic policies replaces all those of its service. */
export interface L7Delta {
  readonly waypoints: readonly Waypoint[];
  readonly routes: readonly Route[];
  readonly trafficPolicies: readonly { readonly service: NamespacedName; readonly policies: readonly TrafficPolicy[] }[];
  readonly requestPolicies: readonly RequestPolicy[];
  readonly requestAuthentications: readonly RequestAuthentication[];
  readonly loginPolicies: readonly LoginPolicy[];
  readonly telemetry: readonly TelemetryPolicy[];
  readonly workloadLabels: readonly WorkloadLabels[];
  readonly removedWaypoints: readonly NamespacedName[];
  readonly removedRoutes: readonly string[];
  readonly removedTrafficPolicies: readonly NamespacedName[];
  readonly removedRequestPolicies: readonly NamespacedName[];
  readonly removedRequestAuthentications: readonly NamespacedName[];
  readonly removedLoginPolicies: readonly NamespacedName[];
  readonly removedTelemetry: readonly NamespacedName[];
  readonly removedWorkloadLabels: readonly WorkloadUid[];
}

export const EMPTY_L7_DELTA: L7Delta = {
  waypoints: [], routes: [], trafficPolicies: [], requestPolicies: [], requestAuthentications: [], loginPolicies: [], telemetry: [], workloadLabels: [],
  removedWaypoints: [], removedRoutes: [], removedTrafficPolicies: [], removedRequestPolicies: [], removedRequestAuthentications: [], removedLoginPolicies: [], removedTelemetry: [], removedWorkloadLabels: [],
};
