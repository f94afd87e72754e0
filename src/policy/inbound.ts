// What arrived at a workload's ports 15008 and 15006: is it for this workload, and where inside it does it go? Pure. Authorisation
// comes after, with the addresses this decision names. Statuses are those a CONNECT is answered with.

import type { Provenance } from "../core/fault.ts";
import { formatSocketAddress, type IpAddress, ipFromBytes, isIpv6, type SocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Service, WeightedWaypoint, Workload } from "../mesh/records.ts";
import type { MeshStore } from "../mesh/store.ts";
import { type Authority, formatAuthority } from "../wire/hbone/authority.ts";
import { targetPortOf } from "./candidates.ts";
import { isForbiddenPort, isNeverRemote } from "./ports.ts";
import { isWaypointIdentity, isWaypointInstance, membershipOf, nameOf } from "./waypoints.ts";

export interface InboundRequest {
  readonly authority: Authority;
  /** The address of ours that the tunnel was made to. */
  readonly localIp: IpAddress;
  /** Identity the peer proved; without it, whatever requires a waypoint is refused. */
  readonly peer?: SpiffeId | null;
}

export interface InboundOptions {
  /** False lets traffic around a workload's waypoint, as other implementations do. */
  readonly requireWaypoint?: boolean;
  /** False delivers application tunnels to the workload's address instead of loopback. */
  readonly applicationTunnelToLoopback?: boolean;
}

export type InboundRejectCode =
  | "forbidden_address"
  | "own_port"
  | "not_this_workload"
  | "unknown_hostname"
  | "port_not_in_service"
  | "waypoint_required";

export interface InboundReject {
  readonly kind: "reject";
  readonly status: 400 | 401 | 503;
  readonly code: InboundRejectCode;
  /** For a person. */
  readonly reason: string;
  readonly provenance: Provenance | null;
}

export interface InboundDelivery {
  readonly kind: "deliver";
  /** Where the application is dialled. */
  readonly to: SocketAddress;
  /** What policy judges: the workload's address and the application's port, also where `to` is loopback. */
  readonly policyDestination: SocketAddress;
  /** Set when a PROXY protocol v2 header comes first: the destination it names. */
  readonly proxyDestination: SocketAddress | null;
  /** Addressed by hostname, or by an address of this service. */
  readonly service: Service | null;
}

export type InboundDecision = InboundDelivery | InboundReject;

/** Judges the authority of a CONNECT that arrived at `destination`. Anything that is not its own is refused. */
export function judgeInbound(store: MeshStore, destination: Workload, request: InboundRequest, options: InboundOptions = {}): InboundDecision {
  const { authority } = request;
  const port = authority.kind === "address" ? authority.address.port : authority.port;
  if (isForbiddenPort(port)) {
    return reject(503, "own_port", `port ${port} of authority ${formatAuthority(authority)} is ${port === 0 ? "no port" : "the mesh's own; a connection to it would come back here"}`);
  }
  return authority.kind === "address"
    ? judgeAddress(store, destination, authority.address, request, options)
    : judgeHostname(store, destination, authority, request, options);
}

/** Judges a plain TCP connection that was redirected to port 15006; `to` is its original destination. It has no identity. */
export function judgePlaintext(store: MeshStore, destination: Workload, to: SocketAddress, options: InboundOptions = {}): InboundDecision {
  if (isForbiddenPort(to.port)) return reject(503, "own_port", `port ${to.port} is the mesh's own; a connection to it would come back here`);
  const around = aroundWaypoint(store, destination, { waypoints: destination.waypoints, of: destination.uid, provenance: destination.provenance }, null, options);
  if (around !== null) return around;
  return { kind: "deliver", to, policyDestination: to, proxyDestination: null, service: null };
}

/**
 * The service that a peer says was addressed (`forwarded: host=`), when `destination` really is an endpoint of it: for telemetry alone.
 * Its own namespace's comes first, as with authorities.
 */
export function serviceSaid(store: MeshStore, destination: Workload, hostname: string | null): Service | null {
  return hostname === null ? null : (backedBy(store.servicesByHostname(hostname), destination) ?? null);
}

function backedBy(services: readonly Service[], destination: Workload): Service | undefined {
  return services.find((service) => service.namespace === destination.namespace && membershipOf(destination, nameOf(service)) !== null)
    ?? services.find((service) => membershipOf(destination, nameOf(service)) !== null);
}

// ---- by address

function judgeAddress(store: MeshStore, destination: Workload, address: SocketAddress, request: InboundRequest, options: InboundOptions): InboundDecision {
  const own = address.ip === request.localIp || destination.addresses.includes(address.ip);
  // Checked after ownership: a workload may well be reached at a link-local address of its own.
  if (own) {
    const around = aroundWaypoint(store, destination, { waypoints: destination.waypoints, of: destination.uid, provenance: destination.provenance }, request.peer ?? null, options);
    return around ?? deliver(destination, { ip: address.ip, port: address.port }, address, null, options);
  }
  if (isNeverRemote(address.ip)) {
    return reject(400, "forbidden_address", `${formatSocketAddress(address)} is loopback, link-local, a metadata server or multicast: no peer may have us dial it`);
  }
  const local = { ip: request.localIp, port: address.port };
  const service = store.serviceByVip(destination.network, address.ip, destination.namespace) ?? null;
  if (destination.applicationTunnel !== null) return deliver(destination, local, address, service, options);
  if (isWaypointFor(store, destination, address.ip, service)) return deliver(destination, local, address, service, options);
  return reject(400, "not_this_workload",
    `authority ${formatSocketAddress(address)} came to ${request.localIp}, which is ${destination.uid}: neither its address nor one it is the waypoint of`, destination.provenance);
}

/** True when traffic to this address is to pass through `destination` first. */
function isWaypointFor(store: MeshStore, destination: Workload, ip: IpAddress, service: Service | null): boolean {
  if (service !== null) return isWaypointInstance(store, service.waypoints, destination);
  const addressed = store.workloadByAddress(destination.network, ip);
  if (addressed !== undefined) return isWaypointInstance(store, addressed.waypoints, destination);
  const range = store.serviceByCidr(destination.network, ip, destination.namespace);
  return range !== undefined && isWaypointInstance(store, range.waypoints, destination);
}

// ---- by hostname

function judgeHostname(
  store: MeshStore, destination: Workload, { hostname, port }: { readonly hostname: string; readonly port: number }, request: InboundRequest, options: InboundOptions,
): InboundDecision {
  const services = store.servicesByHostname(hostname);
  const backed = backedBy(services, destination);
  if (backed === undefined) {
    const fronted = services.find((service) => isWaypointInstance(store, service.waypoints, destination));
    if (fronted !== undefined) {
      const vip = addressOf(fronted, destination.network) ?? request.localIp;
      return deliver(destination, { ip: request.localIp, port }, { ip: vip, port }, fronted, options);
    }
    const why = services.length === 0 ? "no service has this hostname" : `${destination.uid} is no endpoint of it`;
    return reject(503, "unknown_hostname", `authority ${hostname}:${port}: ${why}`, services[0]?.provenance ?? null);
  }
  // The service was addressed: if it has a waypoint, only that one comes to the endpoints.
  const around = aroundWaypoint(store, destination, { waypoints: backed.waypoints, of: backed.hostname, provenance: backed.provenance }, request.peer ?? null, options);
  if (around !== null) return around;
  const targetPort = targetPortOf(membershipOf(destination, nameOf(backed))!, backed, port) ?? (destination.applicationTunnel === null ? null : port);
  if (targetPort === null) {
    return reject(503, "port_not_in_service", `${hostname} has no port ${port} that ${destination.uid} serves`, backed.provenance);
  }
  if (isForbiddenPort(targetPort)) return reject(503, "own_port", `${hostname}:${port} leads to port ${targetPort}, the mesh's own`, backed.provenance);
  const vip = addressOf(backed, destination.network) ?? request.localIp;
  return deliver(destination, { ip: request.localIp, port: targetPort }, { ip: vip, port }, backed, options);
}

/** The virtual address that stands for a service: of this network first, IPv4 first. */
function addressOf(service: Service, network: string): IpAddress | null {
  const ranked = service.addresses
    .filter(({ cidr }) => cidr.prefixLength === cidr.bytes.length * 8)
    .map(({ network: of, cidr }) => ({ rank: (of === network ? 0 : 2) + (cidr.family === 4 ? 0 : 1), cidr }))
    .sort((a, b) => a.rank - b.rank);
  const best = ranked[0];
  return best === undefined ? null : ipFromBytes(best.cidr.bytes);
}

// ---- shared

interface WaypointBinding {
  readonly waypoints: readonly WeightedWaypoint[];
  /** Name of what is bound, for the message. */
  readonly of: string;
  readonly provenance: Provenance;
}

/**
 * A refusal when something bound to a waypoint is reached by anyone else. The workload's own waypoint guards its address and its
 * plain ports; a service's guards the service's name. A pod addressed directly is not its service addressed.
 */
function aroundWaypoint(
  store: MeshStore, destination: Workload, { waypoints, of, provenance }: WaypointBinding, peer: SpiffeId | null, { requireWaypoint = true }: InboundOptions,
): InboundReject | null {
  if (!requireWaypoint || waypoints.length === 0) return null;
  // A waypoint may itself lie in the namespace that it guards.
  if (isWaypointInstance(store, waypoints, destination)) return null;
  if (peer !== null && isWaypointIdentity(store, waypoints, peer)) return null;
  return reject(401, "waypoint_required", `${of} is reached through its waypoint only, and ${peer ?? "a peer without identity"} is not it`, provenance);
}

function deliver(
  destination: Workload, local: SocketAddress, requested: SocketAddress, service: Service | null, { applicationTunnelToLoopback = true }: InboundOptions,
): InboundDecision {
  const tunnel = destination.applicationTunnel;
  if (tunnel === null) return { kind: "deliver", to: local, policyDestination: local, proxyDestination: null, service };
  const port = tunnel.port === 0 ? local.port : tunnel.port;
  if (isForbiddenPort(port)) return reject(503, "own_port", `the application tunnel of ${destination.uid} leads to port ${port}, the mesh's own`, destination.provenance);
  const ip = applicationTunnelToLoopback ? ((isIpv6(local.ip) ? "::1" : "127.0.0.1") as IpAddress) : local.ip;
  return { kind: "deliver", to: { ip, port }, policyDestination: local, proxyDestination: tunnel.protocol === "PROXY" ? requested : null, service };
}

function reject(status: InboundReject["status"], code: InboundRejectCode, reason: string, provenance: Provenance | null = null): InboundReject {
  return { kind: "reject", status, code, reason, provenance };
}
