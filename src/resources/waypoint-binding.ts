// Which waypoint an object is bound to: its own label first, then its namespace's.

import { namespacedName } from "../core/brand.ts";
import type { WeightedWaypoint } from "../mesh/records.ts";
import { USE_WAYPOINT, USE_WAYPOINT_NAMESPACE } from "./annotations.ts";
import type { Labels } from "./object-meta.ts";

/** Where waypoints listen for HBONE. */
const WAYPOINT_HBONE_PORT = 15008;
const OPT_OUT = "none";

export interface WaypointName {
  readonly namespace: string;
  readonly name: string;
  /** Whose label said so. */
  readonly from: "object" | "namespace";
}

export function boundWaypoint(object: { readonly namespace: string; readonly labels: Labels }, namespaceLabels: Labels): WaypointName | null {
  for (const [labels, from] of [[object.labels, "object"], [namespaceLabels, "namespace"]] as const) {
    const name = labels[USE_WAYPOINT];
    if (name === undefined) continue;
    return name === OPT_OUT ? null : { namespace: labels[USE_WAYPOINT_NAMESPACE] ?? object.namespace, name, from };
  }
  return null;
}

export function serviceHostname(name: string, namespace: string, clusterDomain: string): string {
  return `${name}.${namespace}.svc.${clusterDomain}`;
}

/** A waypoint is reached by the service of its name. */
export function waypointRecord(waypoint: WaypointName, clusterDomain: string): readonly WeightedWaypoint[] {
  const service = namespacedName(waypoint.namespace, serviceHostname(waypoint.name, waypoint.namespace, clusterDomain));
  return [{ gateway: { destination: { kind: "hostname", service }, hboneMtlsPort: WAYPOINT_HBONE_PORT }, weight: 1 }];
}
