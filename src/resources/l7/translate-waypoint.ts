// Gateways of a waypoint class into waypoints of the model.

import { namespacedName } from "../../core/brand.ts";
import type { Waypoint } from "../../mesh/l7/waypoint.ts";
import { WAYPOINT_FOR } from "../annotations.ts";
import { type GatewayResource, WAYPOINT_USES } from "../kinds/gateway.ts";
import { type Placed, provenanceOf } from "../resource.ts";
import { serviceHostname } from "../waypoint-binding.ts";
import { ACCEPTED, condition, type ResourceStatus } from "./status.ts";
import type { View } from "./view.ts";

export interface TranslatedWaypoint {
  readonly waypoint: Waypoint;
  readonly status: ResourceStatus;
}

export function translateWaypoint(placed: Placed<GatewayResource>, view: View): TranslatedWaypoint {
  const { kind, namespace, name, labels, resourceVersion } = placed.resource;
  const service = namespacedName(namespace, serviceHostname(name, namespace, view.options.clusterDomain));
  return {
    waypoint: { name, namespace, service, serves: WAYPOINT_USES.find((use) => use === labels[WAYPOINT_FOR]) ?? "service", provenance: provenanceOf(placed) },
    status: { kind, namespace, name, resourceVersion, parents: [], conditions: [ACCEPTED, condition("Programmed", true, "Programmed")] },
  };
}
