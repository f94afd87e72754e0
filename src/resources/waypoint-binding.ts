// Which waypoint an object is bound to: its own label first, then its namespace's. A canary beside it takes a share.

import { type NamespacedName, namespacedName } from "../core/brand.ts";
import type { WeightedWaypoint } from "../mesh/records.ts";
import { USE_WAYPOINT, USE_WAYPOINT_CANARY, USE_WAYPOINT_CANARY_NAMESPACE, USE_WAYPOINT_NAMESPACE, WAYPOINT_CANARY_WEIGHT } from "./annotations.ts";
import type { Labels } from "./object-meta.ts";

/** Where waypoints listen for HBONE. */
const WAYPOINT_HBONE_PORT = 15008;
const OPT_OUT = "none";
const WHOLE = 100;

export interface WaypointName {
  readonly namespace: string;
  readonly name: string;
  /** Whose label said so. */
  readonly from: "object" | "namespace";
  /** A second one, with its share of a hundred. It is told everything that the first is, with a share of 0 too. */
  readonly canary: { readonly namespace: string; readonly name: string; readonly weight: number } | null;
}

/** An object, or a namespace, that may bind waypoints. */
export interface Binding {
  readonly labels: Labels;
  readonly annotations?: Labels | undefined;
}

export function boundWaypoint(object: Binding & { readonly namespace: string }, namespace: Binding): WaypointName | null {
  for (const [{ labels, annotations = {} }, from] of [[object, "object"], [namespace, "namespace"]] as const) {
    const name = labels[USE_WAYPOINT];
    if (name === undefined) continue;
    if (name === OPT_OUT) return null;
    const canary = labels[USE_WAYPOINT_CANARY];
    return {
      namespace: labels[USE_WAYPOINT_NAMESPACE] ?? object.namespace, name, from,
      canary: canary === undefined ? null : { namespace: labels[USE_WAYPOINT_CANARY_NAMESPACE] ?? object.namespace, name: canary, weight: parseCanaryWeight(annotations[WAYPOINT_CANARY_WEIGHT]) ?? 0 },
    };
  }
  return null;
}

/** Null for a text that is no whole number from 0 to 100; a canary without a weight has none. */
export function parseCanaryWeight(text: string | undefined): number | null {
  return text === undefined ? 0 : /^(100|[1-9]?[0-9])$/.test(text) ? Number(text) : null;
}

export function serviceHostname(name: string, namespace: string, clusterDomain: string): string {
  return `${name}.${namespace}.svc.${clusterDomain}`;
}

/** A waypoint is reached by the service of its name. */
export function waypointRecord(waypoint: WaypointName, clusterDomain: string): readonly WeightedWaypoint[] {
  const one = ({ namespace, name }: { readonly namespace: string; readonly name: string }, weight: number): WeightedWaypoint => {
    const service = namespacedName(namespace, serviceHostname(name, namespace, clusterDomain));
    return { gateway: { destination: { kind: "hostname", service }, hboneMtlsPort: WAYPOINT_HBONE_PORT }, weight };
  };
  const { canary } = waypoint;
  return canary === null ? [one(waypoint, 1)] : [one(waypoint, WHOLE - canary.weight), one(canary, canary.weight)];
}

/** `namespace/name` of the Gateways that an object is bound to. */
export function waypointNames({ namespace, name, canary }: WaypointName): readonly NamespacedName[] {
  return canary === null ? [namespacedName(namespace, name)] : [namespacedName(namespace, name), namespacedName(canary.namespace, canary.name)];
}
