// Which waypoint stands before a workload or a service, where it is, and whether a caller is it. Pure look-ups in the store.

import { type NamespacedName, namespacedName } from "../core/brand.ts";
import { type SpiffeId, spiffeId } from "../core/spiffe.ts";
import type { GatewayAddress, GatewayDestination, Service, WeightedWaypoint, Workload } from "../mesh/records.ts";
import type { Endpoint, MeshStore } from "../mesh/store.ts";

/** Records never change, so an identity is built once for each: building one costs more than the rest of a decision. */
const identities = new WeakMap<Workload, SpiffeId>();

/** The X.509 identity a workload proves. */
export function identityOf(workload: Workload): SpiffeId {
  let id = identities.get(workload);
  if (id === undefined) identities.set(workload, (id = spiffeId(workload.trustDomain, workload.namespace, workload.serviceAccount)));
  return id;
}

export function nameOf(service: Service): NamespacedName {
  return namespacedName(service.namespace, service.hostname);
}

/** What a gateway's destination names: a service to balance over, one workload, or nothing known. */
export type ResolvedGateway =
  | { readonly kind: "service"; readonly service: Service }
  | { readonly kind: "workload"; readonly workload: Workload }
  | { readonly kind: "unknown" };

/** A binding says which service: its visibility, which is about clients that look for an address, does not matter. */
export function resolveGateway(store: MeshStore, destination: GatewayDestination): ResolvedGateway {
  if (destination.kind === "hostname") {
    const service = store.service(destination.service);
    return service === undefined ? { kind: "unknown" } : { kind: "service", service };
  }
  const workload = destination.kind === "workload" ? store.workload(destination.uid) : store.workloadByAddress(destination.network, destination.ip);
  if (workload !== undefined) return { kind: "workload", workload };
  if (destination.kind === "workload") return { kind: "unknown" };
  const service = store.serviceByVip(destination.network, destination.ip, null);
  return service === undefined ? { kind: "unknown" } : { kind: "service", service };
}

/** One alternative by weight; with all weights 0, which the records rule out, the first. */
export function sampleWaypoint(waypoints: readonly WeightedWaypoint[], random: () => number): GatewayAddress {
  const first = waypoints[0]!;
  if (waypoints.length === 1) return first.gateway;
  const total = waypoints.reduce((sum, waypoint) => sum + waypoint.weight, 0);
  let at = random() * total;
  for (const { gateway, weight } of waypoints) {
    at -= weight;
    if (at < 0) return gateway;
  }
  return first.gateway;
}

/** True when `workload` is an instance of one of these waypoints. */
export function isWaypointInstance(store: MeshStore, waypoints: readonly WeightedWaypoint[], workload: Workload): boolean {
  return waypoints.some(({ gateway }) => isInstance(store, gateway.destination, workload));
}

function isInstance(store: MeshStore, destination: GatewayDestination, workload: Workload): boolean {
  if (destination.kind === "hostname") return isMember(workload, destination.service);
  const found = resolveGateway(store, destination);
  switch (found.kind) {
    case "workload": return found.workload.uid === workload.uid;
    case "service": return isMember(workload, nameOf(found.service));
    case "unknown": return false;
    default: return found satisfies never;
  }
}

function isMember(workload: Workload, service: NamespacedName): boolean {
  return workload.services.some((membership) => membership.service === service);
}

/** The endpoint that `workload` is of `service`, as far as its ports are concerned; null when it is none. */
export function membershipOf(workload: Workload, service: NamespacedName): Endpoint | null {
  const membership = workload.services.find((m) => m.service === service);
  return membership === undefined ? null : { workload, ports: membership.ports };
}

/**
 * True when a peer with this identity is one of these waypoints. Judged by identity alone: a waypoint on another network reaches us
 * through a gateway, so its address says nothing.
 */
export function isWaypointIdentity(store: MeshStore, waypoints: readonly WeightedWaypoint[], peer: SpiffeId): boolean {
  return waypoints.some(({ gateway }) => {
    const found = resolveGateway(store, gateway.destination);
    switch (found.kind) {
      case "workload": return identityOf(found.workload) === peer;
      case "service": return serviceHasIdentity(store, found.service, peer);
      case "unknown": return false;
      default: return found satisfies never;
    }
  });
}

function serviceHasIdentity(store: MeshStore, service: Service, peer: SpiffeId): boolean {
  if (service.subjectAltNames.includes(peer)) return true;
  return store.endpoints(nameOf(service)).some(({ workload }) => identityOf(workload) === peer);
}
