// A change to the L7 configuration as one unit. Apart from MeshDelta: a ztunnel never sees or holds any of this.

import type { NamespacedName } from "../../core/brand.ts";
import type { LoginPolicy, RequestAuthentication, RequestPolicy } from "./access.ts";
import type { Route } from "./route.ts";
import type { TelemetryPolicy } from "./telemetry.ts";
import type { TrafficPolicy } from "./traffic-policy.ts";

/** Upserts replace by name; a list of traffic policies replaces all those of its service. */
export interface L7Delta {
  readonly routes: readonly Route[];
  readonly trafficPolicies: readonly { readonly service: NamespacedName; readonly policies: readonly TrafficPolicy[] }[];
  readonly requestPolicies: readonly RequestPolicy[];
  readonly requestAuthentications: readonly RequestAuthentication[];
  readonly loginPolicies: readonly LoginPolicy[];
  readonly telemetry: readonly TelemetryPolicy[];
  readonly removedRoutes: readonly string[];
  readonly removedTrafficPolicies: readonly NamespacedName[];
  readonly removedRequestPolicies: readonly NamespacedName[];
  readonly removedRequestAuthentications: readonly NamespacedName[];
  readonly removedLoginPolicies: readonly NamespacedName[];
  readonly removedTelemetry: readonly NamespacedName[];
}

export const EMPTY_L7_DELTA: L7Delta = {
  routes: [], trafficPolicies: [], requestPolicies: [], requestAuthentications: [], loginPolicies: [], telemetry: [],
  removedRoutes: [], removedTrafficPolicies: [], removedRequestPolicies: [], removedRequestAuthentications: [], removedLoginPolicies: [], removedTelemetry: [],
};
