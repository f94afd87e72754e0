// Where a captured connection goes: from its original destination to plain TCP, a tunnel (to the endpoint, a waypoint or a network
// gateway), or a refusal. Pure: the store, the balancer's memory and the time are inputs. What cannot be resolved is refused.

import type { WorkloadUid } from "../core/brand.ts";
import { formatProvenance, type Provenance } from "../core/fault.ts";
import { formatSocketAddress, type IpAddress, isIpv6, isLoopback, parseIp, type SocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { GatewayAddress, Service, WeightedWaypoint, Workload } from "../mesh/records.ts";
import type { EndpointSet, MeshStore } from "../mesh/store.ts";
import { type Authority, formatAuthority } from "../wire/hbone/authority.ts";
import type { Balancer, PickRequest } from "./balance.ts";
import { chooseAddress, type NothingPicked, type Picked, primaryFamily } from "./candidates.ts";
import { HBONE_PORT, OWN_PORTS } from "./ports.ts";
import { identityOf, isWaypointInstance, nameOf, resolveGateway, sampleWaypoint } from "./waypoints.ts";

/** How the destination was found; printed by `explainOutbound`. */
export type OutboundReason =
  | "unknown destination"
  | "loopback"
  | "service endpoint"
  | "service passthrough"
  | "workload"
  | "service waypoint"
  | "workload waypoint"
  | "endpoint on another network"
  | "waypoint on another network";

export type RefusalCode =
  | "own_port"
  | "port_not_in_service"
  | "no_endpoints"
  | "no_healthy_endpoint"
  | "no_endpoint_in_scope"
  | "no_endpoint_of_family"
  | "endpoints_exhausted"
  | "unknown_waypoint"
  | "no_healthy_waypoint"
  | "unknown_gateway"
  | "no_healthy_gateway"
  | "no_network_gateway"
  | "no_address";

/** The second CONNECT, made inside the first one, end to end with the far workload. */
export interface InnerTunnelDecision {
  readonly authority: Authority;
  readonly acceptedIdentities: readonly SpiffeId[];
}

export interface PassthroughDecision {
  readonly kind: "passthrough";
  readonly reason: OutboundReason;
  readonly to: SocketAddress;
  readonly service: Service | null;
}

export interface PlainDecision {
  readonly kind: "plain";
  readonly reason: OutboundReason;
  readonly to: SocketAddress;
  readonly destination: Workload;
  readonly service: Service | null;
  readonly servicePort: number;
}

/** The workload to dial is known by a DNS name only: resolve it (preferring `family`), then call `withAddress`. */
export interface ResolveDecision {
  readonly kind: "resolve";
  readonly reason: OutboundReason;
  readonly hostname: string;
  readonly family: 4 | 6;
  /** Port to dial: the application's for an endpoint, that of HBONE for a waypoint or gateway. */
  readonly port: number;
  readonly destination: Workload;
  readonly service: Service | null;
  readonly servicePort: number;
  /** Set for a waypoint or gateway; an endpoint's follow from its address. */
  readonly tunnel: Pick<TunnelDecision, "role" | "authority" | "acceptedIdentities" | "inner"> | null;
}

export interface TunnelDecision {
  readonly kind: "tunnel";
  readonly reason: OutboundReason;
  /** Who ends the tunnel: the destination itself, a waypoint before it, or the gateway to its network (then `inner` is set). */
  readonly role: "endpoint" | "waypoint" | "gateway";
  readonly tunnelTo: SocketAddress;
  readonly authority: Authority;
  /** The peer must prove one of these. */
  readonly acceptedIdentities: readonly SpiffeId[];
  /** The workload at `tunnelTo`: the one to report to the balancer, and to exclude from another try. */
  readonly destination: Workload;
  readonly service: Service | null;
  readonly servicePort: number;
  readonly inner: InnerTunnelDecision | null;
}

export interface OutboundRefusal {
  readonly kind: "refuse";
  readonly code: RefusalCode;
  /** For a person. */
  readonly reason: string;
  /** The resource that made the destination what it is; null for an address that none describes. */
  readonly provenance: Provenance | null;
}

export type OutboundDecision = PassthroughDecision | PlainDecision | ResolveDecision | TunnelDecision | OutboundRefusal;

export interface OutboundOptions {
  /** Workloads that were tried for this connection and could not be reached. */
  readonly exclude?: ReadonlySet<WorkloadUid>;
}

const NOBODY: ReadonlySet<WorkloadUid> = new Set();
const UNSPECIFIED = parseIp("0.0.0.0")!;

/** What every step below needs. */
interface Attempt {
  readonly store: MeshStore;
  readonly balancer: Balancer;
  readonly source: Workload;
  readonly dst: SocketAddress;
  readonly family: 4 | 6;
  readonly nowMs: number;
  readonly exclude: ReadonlySet<WorkloadUid>;
}

/**
 * Chooses the path of one connection from `source` to `dst`, its original destination. An exact service address comes first, then
 * the workload at that address, then a service whose CIDR covers it.
 */
export function chooseOutbound(
  store: MeshStore, balancer: Balancer, source: Workload, dst: SocketAddress, nowMs: number, options: OutboundOptions = {},
): OutboundDecision {
  if (dst.port === 0 || (OWN_PORTS.has(dst.port) && (isLoopback(dst.ip) || source.addresses.includes(dst.ip)))) {
    return refuse("own_port", `${formatSocketAddress(dst)} is a port of the mesh itself; a connection to it would come back here`, null);
  }
  if (isLoopback(dst.ip)) return { kind: "passthrough", reason: "loopback", to: dst, service: null };
  const attempt: Attempt = { store, balancer, source, dst, family: isIpv6(dst.ip) ? 6 : 4, nowMs, exclude: options.exclude ?? NOBODY };
  const vip = store.serviceByVip(source.network, dst.ip, source.namespace);
  if (vip !== undefined) return toService(attempt, vip);
  const workload = store.workloadByAddress(source.network, dst.ip);
  if (workload !== undefined) return toWorkload(attempt, workload, null);
  const range = store.serviceByCidr(source.network, dst.ip, source.namespace);
  if (range !== undefined) return toService(attempt, range);
  return { kind: "passthrough", reason: "unknown destination", to: dst, service: null };
}

/** The decision of `resolve`, once the name has an address. */
export function withAddress(decision: ResolveDecision, ip: IpAddress): PlainDecision | TunnelDecision {
  const { destination, service, servicePort, port, reason, tunnel } = decision;
  if (tunnel !== null) return { kind: "tunnel", reason, tunnelTo: { ip, port }, destination, service, servicePort, ...tunnel };
  return direct({ reason, ip, port, destination, service, servicePort });
}

/** One line: what was chosen and why. */
export function explainOutbound(decision: OutboundDecision): string {
  switch (decision.kind) {
    case "refuse":
      return decision.provenance === null ? `refused: ${decision.reason}` : `refused: ${decision.reason} (${formatProvenance(decision.provenance)})`;
    case "passthrough":
      return `passed through to ${formatSocketAddress(decision.to)}: ${decision.reason}${because(decision.service?.provenance)}`;
    case "plain":
      return `plain TCP to ${formatSocketAddress(decision.to)}: ${decision.reason}${because((decision.service ?? decision.destination).provenance)}`;
    case "resolve":
      return `to ${decision.hostname}:${decision.port}, by name: ${decision.reason}${because((decision.service ?? decision.destination).provenance)}`;
    case "tunnel":
      return `HBONE to the ${decision.role} ${decision.destination.uid} at ${formatSocketAddress(decision.tunnelTo)} for ${formatAuthority(decision.authority)}: `
        + `${decision.reason}${because((decision.service ?? decision.destination).provenance)}`;
    default:
      return decision satisfies never;
  }
}

/** The same for a destination on this node: it is reached without the tunnel that would lead to it from elsewhere. */
export function explainOnThisNode({ destination, authority, service, reason }: TunnelDecision): string {
  return `same node, no tunnel: to ${destination.uid} for ${formatAuthority(authority)}: ${reason}${because((service ?? destination).provenance)}`;
}

function because(provenance: Provenance | undefined): string {
  return provenance === undefined ? "" : ` (${formatProvenance(provenance)})`;
}

// ---- services

function toService(attempt: Attempt, service: Service): OutboundDecision {
  const { source, dst, store } = attempt;
  const passthrough = service.loadBalancing.mode === "passthrough";
  if (!passthrough && service.ports.length > 0 && !service.ports.some((port) => port.servicePort === dst.port)) {
    return refuse("port_not_in_service", `${service.hostname} has no port ${dst.port}; it has ${portList(service)}`, service.provenance);
  }
  if (service.waypoints.length > 0 && !isWaypointInstance(store, service.waypoints, source)) {
    return toWaypoint(attempt, service.waypoints, { service, destination: null, reason: "service waypoint", provenance: service.provenance });
  }
  if (passthrough) {
    const workload = store.workloadByAddress(source.network, dst.ip);
    if (workload !== undefined) return toWorkload(attempt, workload, service);
    return { kind: "passthrough", reason: "service passthrough", to: dst, service };
  }
  const picked = pick(attempt, service, { servicePort: dst.port, portFallback: null, anyNetwork: false });
  if (!picked.ok) return refuseEndpoints(service, dst.port, picked.error);
  const { workload, ip, targetPort } = picked.value;
  if (workload.network !== source.network) {
    return toFarEndpoint(attempt, service, workload);
  }
  if (ip === null) {
    return { kind: "resolve", reason: "service endpoint", hostname: workload.hostname, family: attempt.family, port: targetPort, destination: workload, service, servicePort: dst.port, tunnel: null };
  }
  return direct({ reason: "service endpoint", ip, port: targetPort, destination: workload, service, servicePort: dst.port });
}

function pick(attempt: Attempt, service: Service, how: Pick<PickRequest, "servicePort" | "portFallback" | "anyNetwork">) {
  const endpoints = attempt.store.endpointSet(nameOf(service));
  if (endpoints === undefined) throw new Error(`the store found service ${nameOf(service)} by address and not by name`);
  const { source, family, exclude, nowMs } = attempt;
  return attempt.balancer.pick({ service, endpoints, source, family, exclude, nowMs, ...how });
}

function refuseEndpoints(service: Service, port: number, nothing: NothingPicked): OutboundRefusal {
  const { code, what } = explainNothing(nothing, port);
  return refuse(code, `${service.hostname}:${port} has no endpoint to go to: ${what}`, service.provenance);
}

function explainNothing(n: NothingPicked, port: number): { code: RefusalCode; what: string } {
  if (n.endpoints === 0) return { code: "no_endpoints", what: "none has been delivered" };
  const parts = [
    n.excluded > 0 ? `${n.excluded} tried without success` : "",
    n.unhealthy > 0 ? `${n.unhealthy} not healthy` : "",
    n.withoutPort > 0 ? `${n.withoutPort} without port ${port}` : "",
    n.elsewhere > 0 ? `${n.elsewhere} outside the scope that traffic is kept in` : "",
    n.unreachable > 0 ? `${n.unreachable} on another network without a gateway to it or without HBONE` : "",
    n.withoutAddress > 0 ? `${n.withoutAddress} without an address of the right family` : "",
  ];
  const what = `of ${n.endpoints}, ${parts.filter((part) => part !== "").join(", ")}`;
  if (n.excluded > 0) return { code: "endpoints_exhausted", what };
  if (n.elsewhere > 0) return { code: "no_endpoint_in_scope", what };
  if (n.unhealthy > 0) return { code: "no_healthy_endpoint", what };
  if (n.unreachable > 0) return { code: "no_network_gateway", what };
  if (n.withoutAddress > 0) return { code: "no_endpoint_of_family", what };
  return { code: "port_not_in_service", what };
}

// ---- workloads

function toWorkload(attempt: Attempt, destination: Workload, service: Service | null): OutboundDecision {
  const { source, dst, store } = attempt;
  if (destination.waypoints.length > 0 && !isWaypointInstance(store, destination.waypoints, source)) {
    return toWaypoint(attempt, destination.waypoints, { service, destination, reason: "workload waypoint", provenance: destination.provenance });
  }
  return direct({ reason: service === null ? "workload" : "service passthrough", ip: dst.ip, port: dst.port, destination, service, servicePort: dst.port });
}

interface DirectTarget {
  readonly reason: OutboundReason;
  readonly ip: IpAddress;
  readonly port: number;
  readonly destination: Workload;
  readonly service: Service | null;
  readonly servicePort: number;
}

function direct({ reason, ip, port, destination, service, servicePort }: DirectTarget): PlainDecision | TunnelDecision {
  const to = { ip, port };
  if (destination.tunnelProtocol === "TCP") return { kind: "plain", reason, to, destination, service, servicePort };
  return {
    kind: "tunnel", reason, role: "endpoint", tunnelTo: { ip, port: HBONE_PORT }, authority: { kind: "address", address: to },
    acceptedIdentities: acceptedIdentities(destination, service), destination, service, servicePort, inner: null,
  };
}

/** Who may answer for a workload: itself, and whom its service names. */
export function acceptedIdentities(workload: Workload, service: Service | null): readonly SpiffeId[] {
  const own = identityOf(workload);
  if (service === null || service.subjectAltNames.length === 0) return [own];
  return service.subjectAltNames.includes(own) ? service.subjectAltNames : [own, ...service.subjectAltNames];
}

// ---- waypoints

interface WaypointCase {
  /** What was addressed; one of the two. */
  readonly service: Service | null;
  readonly destination: Workload | null;
  readonly reason: OutboundReason;
  readonly provenance: Provenance;
}

/** The waypoint is told the original destination; it decides the rest. */
function toWaypoint(attempt: Attempt, waypoints: readonly WeightedWaypoint[], of: WaypointCase): OutboundDecision {
  const { source, dst, balancer } = attempt;
  const gateway = sampleWaypoint(waypoints, () => balancer.random());
  const found = findInstance(attempt, gateway, { anyNetwork: false });
  if (!found.ok) return refuseInstance(found.error, "waypoint", gateway, of.provenance);
  const { picked, service: waypointService } = found;
  const { workload } = picked;
  if (workload.network !== source.network) {
    if (of.service === null) {
      return refuse("no_network_gateway", `the waypoint ${workload.uid} is on network ${workload.network}, where only services can be reached, not addresses of workloads`, of.provenance);
    }
    return throughGateway(attempt, {
      service: of.service, reason: "waypoint on another network", gateway: workload.networkGateway!, far: workload,
      acceptedIdentities: acceptedIdentities(workload, waypointService),
    });
  }
  return tunnelToInstance(attempt, found.picked, {
    reason: of.reason, service: of.service,
    tunnel: { role: "waypoint", authority: { kind: "address", address: dst }, acceptedIdentities: acceptedIdentities(workload, waypointService), inner: null },
  });
}

interface InstanceCase {
  readonly reason: OutboundReason;
  readonly service: Service | null;
  readonly tunnel: Pick<TunnelDecision, "role" | "authority" | "acceptedIdentities" | "inner">;
}

function tunnelToInstance(attempt: Attempt, { workload, ip, targetPort }: Picked, { reason, service, tunnel }: InstanceCase): OutboundDecision {
  const servicePort = attempt.dst.port;
  if (ip !== null) return { kind: "tunnel", reason, tunnelTo: { ip, port: targetPort }, destination: workload, service, servicePort, ...tunnel };
  if (workload.hostname === "") return refuse("no_address", `the ${tunnel.role} ${workload.uid} has no address`, workload.provenance);
  return { kind: "resolve", reason, hostname: workload.hostname, family: attempt.family, port: targetPort, destination: workload, service, servicePort, tunnel };
}

type FoundInstance =
  | { readonly ok: true; readonly picked: Picked; readonly service: Service | null }
  | { readonly ok: false; readonly error: "unknown" | NothingPicked };

/** An instance of a waypoint or gateway, and its port for HBONE. */
function findInstance(attempt: Attempt, gateway: GatewayAddress, { anyNetwork }: { readonly anyNetwork: boolean }): FoundInstance {
  const { store, source, family, exclude } = attempt;
  const found = resolveGateway(store, gateway.destination);
  switch (found.kind) {
    case "unknown":
      return { ok: false, error: "unknown" };
    case "workload": {
      const { workload } = found;
      const ip = gateway.destination.kind === "address" ? gateway.destination.ip : chooseAddress(workload.addresses, "automatic", family);
      if (exclude.has(workload.uid)) {
        return { ok: false, error: { endpoints: 1, unhealthy: 0, withoutPort: 0, withoutAddress: 0, unreachable: 0, elsewhere: 0, excluded: 1 } };
      }
      if (!anyNetwork && workload.network !== source.network && workload.networkGateway === null) {
        return { ok: false, error: { endpoints: 1, unhealthy: 0, withoutPort: 0, withoutAddress: 0, unreachable: 1, elsewhere: 0, excluded: 0 } };
      }
      return { ok: true, picked: { workload, ip, targetPort: gateway.hboneMtlsPort }, service: null };
    }
    case "service": {
      const picked = pick(attempt, found.service, { servicePort: gateway.hboneMtlsPort, portFallback: gateway.hboneMtlsPort, anyNetwork });
      return picked.ok ? { ok: true, picked: picked.value, service: found.service } : { ok: false, error: picked.error };
    }
    default:
      return found satisfies never;
  }
}

function refuseInstance(error: "unknown" | NothingPicked, what: "waypoint" | "gateway", gateway: GatewayAddress, provenance: Provenance): OutboundRefusal {
  const name = gatewayName(gateway);
  if (error === "unknown") {
    return refuse(`unknown_${what}`, `the ${what} ${name} is not known; traffic that needs it may not go around it`, provenance);
  }
  const { code, what: why } = explainNothing(error, gateway.hboneMtlsPort);
  const kept = code === "endpoints_exhausted" || code === "no_network_gateway" ? code : (`no_healthy_${what}` as const);
  return refuse(kept, `the ${what} ${name} has no endpoint to go to: ${why}`, provenance);
}

function gatewayName({ destination, hboneMtlsPort }: GatewayAddress): string {
  switch (destination.kind) {
    case "hostname": return `${destination.service}:${hboneMtlsPort}`;
    case "address": return `${destination.network}/${formatSocketAddress({ ip: destination.ip, port: hboneMtlsPort })}`;
    case "workload": return `${destination.uid}, port ${hboneMtlsPort},`;
    default: return destination satisfies never;
  }
}

// ---- other networks

interface GatewayCase {
  readonly service: Service;
  readonly reason: OutboundReason;
  readonly gateway: GatewayAddress;
  /** The endpoint or waypoint behind the gateway. */
  readonly far: Workload;
  readonly acceptedIdentities: readonly SpiffeId[];
}

/** By endpoint set, until it changes: the identities of its endpoints on each network. */
const identitiesByNetwork = new WeakMap<EndpointSet, { readonly version: number; readonly byNetwork: Map<string, readonly SpiffeId[]> }>();

/** Without names of the service's own: which endpoint the gateway chooses is not ours to say, so it may be any of that network. */
function identitiesOnNetwork(endpoints: EndpointSet, network: string): readonly SpiffeId[] {
  let known = identitiesByNetwork.get(endpoints);
  if (known === undefined || known.version !== endpoints.version) identitiesByNetwork.set(endpoints, (known = { version: endpoints.version, byNetwork: new Map() }));
  let identities = known.byNetwork.get(network);
  if (identities === undefined) {
    identities = [...new Set(endpoints.endpoints.filter(({ workload }) => workload.network === network).map(({ workload }) => identityOf(workload)))].sort();
    known.byNetwork.set(network, identities);
  }
  return identities;
}

/** Double HBONE: both CONNECTs name the service, as addresses of one network mean nothing on another. */
function throughGateway(attempt: Attempt, of: GatewayCase): OutboundDecision {
  // A gateway stands on the far network and is reached at an address of ours.
  const found = findInstance(attempt, of.gateway, { anyNetwork: true });
  if (!found.ok) return refuseInstance(found.error, "gateway", of.gateway, of.far.provenance);
  const authority: Authority = { kind: "hostname", hostname: of.service.hostname, port: attempt.dst.port };
  return tunnelToInstance(attempt, found.picked, {
    reason: of.reason, service: of.service,
    tunnel: {
      role: "gateway", authority, acceptedIdentities: acceptedIdentities(found.picked.workload, found.service),
      inner: { authority, acceptedIdentities: of.acceptedIdentities },
    },
  });
}

export interface FarEndpoint {
  readonly service: Service;
  readonly servicePort: number;
  /** An endpoint of the service on another network, with a gateway. Which endpoint behind the gateway answers is the gateway's choice. */
  readonly far: Workload;
  readonly nowMs: number;
}

/** The way to an endpoint on another network, for those who chose it themselves: as a connection to its service would go there. */
export function chooseGateway(store: MeshStore, balancer: Balancer, source: Workload, { service, servicePort, far, nowMs }: FarEndpoint): OutboundDecision {
  const anyAddress = source.addresses[0] ?? UNSPECIFIED;
  const attempt: Attempt = { store, balancer, source, dst: { ip: anyAddress, port: servicePort }, family: primaryFamily(source), nowMs, exclude: NOBODY };
  return toFarEndpoint(attempt, service, far);
}

function toFarEndpoint(attempt: Attempt, service: Service, far: Workload): OutboundDecision {
  if (far.networkGateway === null) return refuse("no_network_gateway", `${far.uid} is on the network ${far.network}, to which no gateway is known`, far.provenance);
  return throughGateway(attempt, {
    service, reason: "endpoint on another network", gateway: far.networkGateway, far,
    acceptedIdentities: service.subjectAltNames.length > 0 ? service.subjectAltNames : identitiesOnNetwork(attempt.store.endpointSet(nameOf(service))!, far.network),
  });
}

function portList(service: Service): string {
  const shown = service.ports.slice(0, 8).map((port) => port.servicePort).join(", ");
  return service.ports.length > 8 ? `${shown} and ${service.ports.length - 8} more` : shown;
}

function refuse(code: RefusalCode, reason: string, provenance: Provenance | null): OutboundRefusal {
  return { kind: "refuse", code, reason, provenance };
}
