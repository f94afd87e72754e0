// Which waypoint an object is bound to: its own label first, then its namespace's. A canary beside it takes a share. A waypoint that does
// not take the object's namespace is no waypoint of it: what asked for one goes nowhere, rather than around it.

import { type NamespacedName, namespacedName } from "../core/brand.ts";
import type { WeightedWaypoint } from "../mesh/records.ts";
import { USE_WAYPOINT, USE_WAYPOINT_CANARY, USE_WAYPOINT_CANARY_NAMESPACE, USE_WAYPOINT_NAMESPACE, WAYPOINT_CANARY_WEIGHT } from "./annotations.ts";
import { HBONE_PORT } from "./kinds/gateway.ts";
import type { Labels } from "./object-meta.ts";
import type { GatewayName, WaypointAdmission } from "./waypoint-admission.ts";

const OPT_OUT = "none";
const WHOLE = 100;

export interface WaypointName {
  readonly namespace: string;
  readonly name: string;
  /** Whose label said so. */
  readonly from: "object" | "namespace";
  /** A second one, with its share of a hundred. It is told everything that the first is, with a share of 0 too. */
  readonly canary: { readonly namespace: string; readonly name: string; readonly weight: number } | null;
  /** The waypoint takes objects of this namespace. */
  readonly allowed: boolean;
  /** A canary that does not, and has no share. */
  readonly refusedCanary: GatewayName | null;
}

/** An object, or a namespace, that may bind waypoints. */
export interface Binding {
  readonly labels: Labels;
  readonly annotations?: Labels | undefined;
}

/** @param admission which waypoints take whom. */
export function boundWaypoint(object: Binding & { readonly namespace: string }, namespace: Binding, admission: Pick<WaypointAdmission, "allows">): WaypointName | null {
  for (const [{ labels, annotations = {} }, from] of [[object, "object"], [namespace, "namespace"]] as const) {
    const name = labels[USE_WAYPOINT];
    if (name === undefined) continue;
    if (name === OPT_OUT) return null;
    const waypoint: GatewayName = { namespace: labels[USE_WAYPOINT_NAMESPACE] ?? object.namespace, name };
    const canaryName = labels[USE_WAYPOINT_CANARY];
    const canary = canaryName === undefined ? null : { namespace: labels[USE_WAYPOINT_CANARY_NAMESPACE] ?? object.namespace, name: canaryName, weight: parseCanaryWeight(annotations[WAYPOINT_CANARY_WEIGHT]) ?? 0 };
    const takesCanary = canary === null || admission.allows(canary, object.namespace);
    return { ...waypoint, from, canary: takesCanary ? canary : null, refusedCanary: takesCanary ? null : canary, allowed: admission.allows(waypoint, object.namespace) };
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
    return { gateway: { destination: { kind: "hostname", service }, hboneMtlsPort: HBONE_PORT }, weight };
  };
  const { canary } = waypoint;
  if (!waypoint.allowed) return [{ gateway: { destination: { kind: "hostname", service: refusedName(waypoint) }, hboneMtlsPort: HBONE_PORT }, weight: 1 }];
  return canary === null ? [one(waypoint, 1)] : [one(waypoint, WHOLE - canary.weight), one(canary, canary.weight)];
}

/**
 * In the place of a waypoint that does not take an object: nothing has that name (RFC 2606), so that every ztunnel, Istio's too, finds no
 * way. Whoever could claim it writes into the waypoint's own namespace, and could let the object in as well.
 */
const refusedName = ({ namespace, name }: GatewayName): NamespacedName => namespacedName(namespace, `${name}${REFUSED}`);
const REFUSED = ".not-allowed.invalid";

/** Of a record: the waypoint that did not take it; null when it took it, or none was asked for. */
export function refusedWaypoint(waypoints: readonly WeightedWaypoint[]): string | null {
  const destination = waypoints[0]?.gateway.destination;
  return destination?.kind === "hostname" && destination.service.endsWith(REFUSED) ? destination.service.slice(0, -REFUSED.length) : null;
}

/** `namespace/name` of the Gateways that an object is bound to. */
export function waypointNames({ namespace, name, canary, allowed }: WaypointName): readonly NamespacedName[] {
  if (!allowed) return [];
  return canary === null ? [namespacedName(namespace, name)] : [namespacedName(namespace, name), namespacedName(canary.namespace, canary.name)];
}
