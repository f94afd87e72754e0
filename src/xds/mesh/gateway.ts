// Gateways and waypoints on the wire. A destination that is one workload has no form of its own there: it travels as a host name without
// a namespace, which others look for in vain, and so refuse what should go through it.

import { parseWorkloadUid } from "../../core/brand.ts";
import { ipToBytes } from "../../core/ip.ts";
import type { GatewayAddress, GatewayDestination, WeightedWaypoint } from "../../mesh/records.ts";
import type * as wire from "../../wire/protobuf/istio/workload/workload_pb.ts";
import type { Reading } from "./reading.ts";

const HBONE_PORT = 15008;
/** Larger weights serve nobody, and their sum must stay exact. */
const WEIGHT_MAX = 1_000_000;

type GatewayFields = { destination: { case: "hostname"; value: { namespace: string; hostname: string } } | { case: "address"; value: { network: string; address: Uint8Array } }; hboneMtlsPort: number };

export function writeGateway({ destination, hboneMtlsPort }: GatewayAddress): GatewayFields {
  switch (destination.kind) {
    case "hostname": {
      const slash = destination.service.indexOf("/");
      return { destination: { case: "hostname", value: { namespace: destination.service.slice(0, slash), hostname: destination.service.slice(slash + 1) } }, hboneMtlsPort };
    }
    case "address":
      return { destination: { case: "address", value: { network: destination.network, address: ipToBytes(destination.ip) } }, hboneMtlsPort };
    case "workload":
      return { destination: { case: "hostname", value: { namespace: "", hostname: destination.uid } }, hboneMtlsPort };
  }
}

export function readGateway(field: string, gateway: wire.GatewayAddress, reading: Reading): GatewayAddress {
  return { destination: readDestination(field, gateway, reading), hboneMtlsPort: reading.port(`${field}.hbone_mtls_port`, gateway.hboneMtlsPort, 0) || HBONE_PORT };
}

function readDestination(field: string, { destination }: wire.GatewayAddress, reading: Reading): GatewayDestination {
  switch (destination.case) {
    case "hostname": {
      const { namespace, hostname } = destination.value;
      const uid = namespace === "" && hostname.includes("/") ? parseWorkloadUid(hostname) : null;
      if (uid !== null) return { kind: "workload", uid };
      return { kind: "hostname", service: reading.namespacedName(`${field}.hostname`, `${namespace}/${hostname}`) };
    }
    case "address":
      return { kind: "address", network: destination.value.network, ip: reading.address(`${field}.address`, destination.value.address) };
    case undefined:
      reading.problem(field, "it has no destination, wanted a host name or an address");
      return { kind: "hostname", service: reading.namespacedName(field, "unknown/unknown") };
  }
}

/** True where the one standard field says it all. */
export const isPlainWaypoint = (waypoints: readonly WeightedWaypoint[]): boolean => waypoints.length === 0 || (waypoints.length === 1 && waypoints[0]!.weight === 1);

/** For whoever knows one waypoint only: the one that gets most. */
export function mainWaypoint(waypoints: readonly WeightedWaypoint[]): GatewayAddress | null {
  let main: WeightedWaypoint | null = null;
  for (const waypoint of waypoints) if (main === null || waypoint.weight > main.weight) main = waypoint;
  return main?.gateway ?? null;
}

export const writeWeighted = (waypoints: readonly WeightedWaypoint[]): { destination: GatewayFields; weight: number }[] =>
  waypoints.map(({ gateway, weight }) => ({ destination: writeGateway(gateway), weight }));

/** Several, where their weights say anything; else the single one. */
export function readWaypoints(single: wire.GatewayAddress | undefined, weighted: readonly wire.WeightedWaypoint[], reading: Reading): readonly WeightedWaypoint[] {
  const several = weighted.map(({ destination, weight }, i): WeightedWaypoint | null => {
    const field = `weighted_waypoints[${i}]`;
    if (weight > WEIGHT_MAX) reading.problem(`${field}.weight`, `found ${weight}, wanted at most ${WEIGHT_MAX}`);
    if (destination === undefined) reading.problem(`${field}.destination`, "it is missing");
    return destination === undefined ? null : { gateway: readGateway(`${field}.destination`, destination, reading), weight };
  }).filter((one) => one !== null);
  if (several.some(({ weight }) => weight > 0)) return several;
  return single === undefined ? [] : [{ gateway: readGateway("waypoint", single, reading), weight: 1 }];
}
