// What each waypoint is for (services, workloads, all or none), as its Gateway and the Service of its name say. One rule, for the records
// of the mesh and for L7 alike.

import { WAYPOINT_FOR } from "./annotations.ts";
import type { GatewayResource } from "./kinds/gateway.ts";
import type { ServiceResource } from "./kinds/service.ts";

/**
 * By `namespace/name`, where something is said; what a waypoint's Gateway says or does not say holds before what its Service does.
 * @param gateways of waypoints.
 */
export function waypointUses(services: readonly ServiceResource[], gateways: readonly GatewayResource[]): ReadonlyMap<string, string> {
  const uses = new Map<string, string>();
  for (const { namespace, name, labels } of services) if (labels[WAYPOINT_FOR] !== undefined) uses.set(`${namespace}/${name}`, labels[WAYPOINT_FOR]);
  for (const { namespace, name, labels } of gateways) {
    const use = labels[WAYPOINT_FOR];
    if (use === undefined) uses.delete(`${namespace}/${name}`);
    else uses.set(`${namespace}/${name}`, use);
  }
  return uses;
}

/** What the services of one namespace say, as a text: equal for equal answers. */
export const usesSaid = (services: readonly ServiceResource[]): string => services.flatMap(({ name, labels }) => (labels[WAYPOINT_FOR] === undefined ? [] : [`${name}=${labels[WAYPOINT_FOR]}`])).join(" ");
