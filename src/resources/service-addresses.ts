// Virtual addresses for services that name none: a function of the names and ages alone, so that every node and every start chooses
// the same. A service keeps its address while others come and go, unless one that comes before it, by name, wants the same place; a
// host of a ServiceEntry unless an older one does.

import { compareText } from "../core/compare-text.ts";
import { type Cidr, cidrContains, type IpAddress, ipFromBytes } from "../core/ip.ts";
import { USE_WAYPOINT } from "./annotations.ts";
import { hash64 } from "./content-hash.ts";
import { isHeadless, type ServiceResource, virtualAddresses, wantedFamilies } from "./kinds/service.ts";
import { entryHosts, type ServiceEntryResource } from "./kinds/service-entry.ts";
import { createdMs } from "./l7/age.ts";
import { type Placed, type ReportFor, type ResourceOf, sourceOf } from "./resource.ts";
import type { WaypointServices } from "./waypoint-services.ts";

/** Of services by their resource; of the hosts of ServiceEntries that name no address by `NAMESPACE/HOST`. */
export type ServiceAddresses = ReadonlyMap<ServiceResource | string, readonly IpAddress[]>;

/** Places in one range. IPv4 leaves out the first and the last address, IPv6 the first. */
interface Range {
  readonly cidr: Cidr;
  readonly family: 4 | 6;
  readonly size: number;
  free: number;
}

const NONE_MADE = { isMade: () => false, givesAddresses: true };

/** Clients of either family are to be led to the mesh. */
const BOTH_FAMILIES = [4, 6] as const;

/**
 * @param entries their hosts choose after all services, so that no service's address depends on them.
 * @param waypoints which services a waypoint's Gateway brings, rather than anybody having written them.
 */
export function assignServiceAddresses(services: readonly Placed<ServiceResource>[], cidrs: readonly Cidr[], reportFor: ReportFor, entries: readonly Placed<ServiceEntryResource>[] = [], waypoints: Pick<WaypointServices, "isMade" | "givesAddresses"> = NONE_MADE): ServiceAddresses {
  const plain = entries.length === 0 ? givenOnly(services) : null;
  if (plain !== null) return plain;
  const taken = new Map<IpAddress, Placed<ResourceOf<string, unknown>>>();
  const result = new Map<ServiceResource | string, readonly IpAddress[]>();
  const ranges = cidrs.map(toRange);
  const inOrder = services.map((placed) => ({ placed, name: nameOf(placed) })).sort((a, b) => compareText(a.name, b.name));
  const choosing: Placed<ServiceResource>[] = [];
  for (const { placed } of inOrder) {
    const { spec } = placed.resource;
    const given = virtualAddresses(spec);
    if (given.length === 0 && !isHeadless(spec)) choosing.push(placed);
    result.set(placed.resource, given);
    for (const ip of given) {
      const owner = taken.get(ip);
      if (owner === undefined) {
        taken.set(ip, placed);
        for (const range of ranges) if (cidrContains(range.cidr, ip)) range.free--;
      } else {
        reportFor(placed)("warning", "conflict", ["spec", "clusterIP"], `found ${ip}, which ${owner.resource.kind} ${nameOf(owner)} (${sourceOf(owner)}) has too; clients of neither namespace reach ${nameOf(owner)}`);
      }
    }
  }
  for (const placed of choosing) result.set(placed.resource, choose({ placed, name: nameOf(placed), wanted: wantedFamilies(placed.resource.spec), without: withoutAddress(placed.resource, waypoints.isMade(placed)) }, waypoints.givesAddresses ? ranges : [], taken, reportFor));
  // Whoever writes an entry must not move the address of another's host, which clients know: the older one keeps it.
  const hosts = entries.flatMap((placed) => entryHosts(placed.resource).filter(({ choosesAddress }) => choosesAddress).map(({ hostname }) => ({ placed, name: `${placed.resource.namespace}/${hostname}`, wanted: BOTH_FAMILIES, without: OF_ENTRY, ms: createdMs(placed.resource) })));
  for (const claim of hosts.sort((a, b) => a.ms - b.ms || compareText(a.name, b.name))) {
    // One name in two entries of a namespace is one host.
    if (!result.has(claim.name)) result.set(claim.name, choose(claim, ranges, taken, reportFor));
  }
  return result;
}

/** As it is in most clusters: every service has an address that is no other's, or wants none. Null where something is to be chosen or told. */
function givenOnly(services: readonly Placed<ServiceResource>[]): ServiceAddresses | null {
  const taken = new Set<IpAddress>();
  const result = new Map<ServiceResource, readonly IpAddress[]>();
  for (const { resource } of services) {
    const given = virtualAddresses(resource.spec);
    if (given.length === 0 && !isHeadless(resource.spec)) return null;
    for (const ip of given) {
      if (taken.has(ip)) return null;
      taken.add(ip);
    }
    result.set(resource, given);
  }
  return result;
}

interface Claim {
  readonly placed: Placed<ResourceOf<string, unknown>>;
  readonly name: string;
  readonly wanted: readonly (4 | 6)[] | null;
  /** What is told where there is no address to give. */
  readonly without: Without;
}

interface Without {
  readonly severity: "warning" | "info";
  readonly message: string;
}

const NO_ADDRESS = "has no virtual address (no service CIDR of its family is configured)";
/** Nobody names it by an address: the waypoint is reached at its instances. */
const OF_GATEWAY: Without = { severity: "info", message: `${NO_ADDRESS}; its waypoint is reached all the same. For one, give the Gateway spec.addresses` };
const OF_ENTRY: Without = { severity: "info", message: `${NO_ADDRESS}: clients reach its hosts by whatever address their names have. For one of the mesh's own, give spec.addresses or --service-cidrs` };
const OF_BACKEND: Without = { severity: "info", message: `${NO_ADDRESS}: routes can send requests to it, clients cannot name it. For them, give spec.clusterIP or --service-cidrs` };
const OF_BOUND: Without = { severity: "warning", message: `${NO_ADDRESS}, so that no client can name it, though it is bound to a waypoint; give spec.clusterIP or --service-cidrs` };

/** A service that names its own waypoint is there to be called; any other may be a backend and no more. */
function withoutAddress({ labels }: ServiceResource, isMade: boolean): Without {
  if (isMade) return OF_GATEWAY;
  const waypoint = labels[USE_WAYPOINT];
  return waypoint === undefined || waypoint === "none" ? OF_BACKEND : OF_BOUND;
}

function choose({ placed, name, wanted, without }: Claim, ranges: readonly Range[], taken: Map<IpAddress, Placed<ResourceOf<string, unknown>>>, reportFor: ReportFor): IpAddress[] {
  const eligible = wanted === null ? ranges.slice(0, 1) : ranges.filter((range) => wanted.includes(range.family));
  const chosen: IpAddress[] = [];
  for (const range of eligible) {
    const ip = firstFree(name, range, taken);
    if (ip === null) {
      reportFor(placed)("error", "conflict", ["metadata", "name"], "found no free virtual address; give a clusterIP or a larger service CIDR");
      continue;
    }
    taken.set(ip, placed);
    range.free--;
    chosen.push(ip);
  }
  if (eligible.length === 0) {
    reportFor(placed)(without.severity, "no_address", ["metadata", "name"], without.message);
  }
  return chosen;
}

function firstFree(name: string, range: Range, taken: ReadonlyMap<IpAddress, unknown>): IpAddress | null {
  if (range.free <= 0) return null;
  const [start, spread] = hash64(name);
  // An odd step visits every place of a power of two.
  const step = (spread | 1) >>> 0;
  let place = start % range.size;
  for (let tried = 0; tried < range.size; tried++) {
    const ip = addressAt(range, place);
    if (ip !== null && !taken.has(ip)) return ip;
    place = (place + step) % range.size;
  }
  return null;
}

function toRange(cidr: Cidr): Range {
  const hostBits = cidr.bytes.length * 8 - cidr.prefixLength;
  const size = 2 ** Math.min(32, hostBits);
  const reserved = size <= 2 ? 0 : cidr.family === 4 ? 2 : 1;
  return { cidr, family: cidr.family, size, free: size - reserved };
}

function addressAt(range: Range, place: number): IpAddress | null {
  const reserved = range.size > 2 && (place === 0 || (range.family === 4 && place === range.size - 1));
  if (reserved) return null;
  const bytes = range.cidr.bytes.slice();
  for (let i = 0, rest = place; i < 4; i++) {
    const at = bytes.length - 1 - i;
    bytes[at] = bytes[at]! | (rest & 0xff);
    rest = Math.floor(rest / 256);
  }
  return ipFromBytes(bytes);
}

const nameOf = (placed: Placed<ResourceOf<string, unknown>>): string => `${placed.resource.namespace}/${placed.resource.name}`;
