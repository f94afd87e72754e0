// The L7 configuration as a whole, and a change to it as one unit. Apart from the mesh's own: a ztunnel never sees or holds any of this.

import type { NamespacedName } from "../../core/brand.ts";
import type { LoginPolicy, RequestAuthentication, RequestPolicy } from "./access.ts";
import type { Route } from "./route.ts";
import type { TelemetryPolicy } from "./telemetry.ts";
import type { TrafficPolicy } from "./traffic-policy.ts";
import type { Waypoint } from "./waypoint.ts";

/** Keyed by `namespace/name`; routes by their id, traffic policies by their service. */
export interface L7Snapshot {
  readonly waypoints: ReadonlyMap<NamespacedName, Waypoint>;
  readonly routes: ReadonlyMap<string, Route>;
  readonly trafficPolicies: ReadonlyMap<NamespacedName, readonly TrafficPolicy[]>;
  readonly requestPolicies: ReadonlyMap<NamespacedName, RequestPolicy>;
  readonly requestAuthentications: ReadonlyMap<NamespacedName, RequestAuthentication>;
  readonly loginPolicies: ReadonlyMap<NamespacedName, LoginPolicy>;
  readonly telemetry: ReadonlyMap<NamespacedName, TelemetryPolicy>;
}

export const EMPTY_L7_SNAPSHOT: L7Snapshot = {
  waypoints: new Map(), routes: new Map(), trafficPolicies: new Map(), requestPolicies: new Map(), requestAuthentications: new Map(), loginPolicies: new Map(), telemetry: new Map(),
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
  readonly removedWaypoints: readonly NamespacedName[];
  readonly removedRoutes: readonly string[];
  readonly removedTrafficPolicies: readonly NamespacedName[];
  readonly removedRequestPolicies: readonly NamespacedName[];
  readonly removedRequestAuthentications: readonly NamespacedName[];
  readonly removedLoginPolicies: readonly NamespacedName[];
  readonly removedTelemetry: readonly NamespacedName[];
}

export const EMPTY_L7_DELTA: L7Delta = {
  waypoints: [], routes: [], trafficPolicies: [], requestPolicies: [], requestAuthentications: [], loginPolicies: [], telemetry: [],
  removedWaypoints: [], removedRoutes: [], removedTrafficPolicies: [], removedRequestPolicies: [], removedRequestAuthentications: [], removedLoginPolicies: [], removedTelemetry: [],
};
