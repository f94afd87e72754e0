// What resources of one namespace claim that is another's: addresses of pods, of Services and of older workloads, and names of Services.
// Whoever writes a ServiceEntry or a WorkloadEntry could otherwise take the traffic of the whole mesh. What is claimed so is left out of the
// resource before anything is made of it, so that every ztunnel, Istio's too, hears the same; the rest of the resource holds.
//
//   ServiceEntry   host below another's name             left out
//                  address of another's pod or Service   left out; a range that holds one, too
//                  host or address of an older one       for its own namespace alone
//                  endpoint at such an address           is an endpoint, and never found by its address
//   WorkloadEntry  such an address, or an older one's    the same

import { CidrMap } from "../../core/cidr-map.ts";
import type { Steps } from "../../core/steps.ts";
import { type Cidr, cidrContains, type IpAddress, ipFromBytes, parseCidr, parseIp } from "../../core/ip.ts";
import type { DiagnosticCode, FieldPath, Severity } from "../diagnostic.ts";
import type { Resource } from "../kinds.ts";
import { type ServiceResource, virtualAddresses } from "../kinds/service.ts";
import type { ServiceEntryResource } from "../kinds/service-entry.ts";
import { entryAddresses, type WorkloadEntryResource } from "../kinds/workload-entry.ts";
import { sortedByAge } from "../l7/age.ts";
import type { Placed, ResourceDiagnostic, TranslationOptions } from "../resource.ts";
import { hostFault, type HostOwners } from "./host-claims.ts";
import { ownedAddresses } from "./owned-ranges.ts";
import type { AddressOwner, PodAddresses } from "./pod-addresses.ts";

/** Different ranges that the ServiceEntries of one namespace may name: each is held against the namespace's own pods. */
const RANGES_PER_NAMESPACE_MAX = 1024;

/** Hosts of all ServiceEntries of one namespace: each is a service of the mesh, which every agent may hear of. */
export const HOSTS_PER_NAMESPACE_MAX = 10_000;
/** Hosts times endpoints of all of them: each is a membership in every agent. */
export const ENTRY_MEMBERSHIPS_PER_NAMESPACE_MAX = 100_000;
/** What is told of one resource: the first few explain the others. */
const TOLD_PER_RESOURCE_MAX = 8;

export const NO_CLAIMS: JudgedClaims = { copies: new Map(), hidden: new Set(), diagnostics: [] };
const ELSEWHERE = "which is the address of a pod or Service of another namespace";

/** The resources that claims are about, and those that they are held against. */
export interface ClaimedResources {
  readonly services: readonly Placed<ServiceResource>[];
  readonly serviceEntries: readonly PlacedEntry[];
  readonly workloadEntries: readonly Placed<WorkloadEntryResource>[];
  /** Names of all namespaces. */
  readonly namespaces: ReadonlySet<string>;
}

export interface JudgedClaims {
  /** Of resources that claimed too much, what stands for each without it: the same as before where the same is left out. */
  readonly copies: ReadonlyMap<Placed<Resource>, Placed<Resource>>;
  /** The ServiceEntries and WorkloadEntries whose workloads are never found by their addresses; copies where there are. */
  readonly hidden: ReadonlySet<Placed<Resource>>;
  readonly diagnostics: readonly ResourceDiagnostic[];
}

type Pods = Pick<PodAddresses<AddressOwner>, "isForeign"> & Iterable<readonly [ip: IpAddress, namespace: string]>;
type PlacedEntry = Placed<ServiceEntryResource>;

export class ClaimJudge {
  readonly #options: TranslationOptions;
  /** The last copy made of each resource, with what it leaves out. */
  readonly #copies = new WeakMap<PlacedEntry, { readonly key: string; readonly copy: PlacedEntry }>();
  #exact: ReadonlySet<IpAddress> = new Set();
  #ranges = new CidrMap<true>();

  constructor(options: TranslationOptions) {
    this.#options = options;
  }

  /** Whether a pod of this address, as it comes or goes, may change what was judged last. */
  concerns(ip: IpAddress): boolean {
    return this.#exact.has(ip) || this.#ranges.contains(ip);
  }

  *judge({ services, serviceEntries: entries, workloadEntries: workloads, namespaces }: ClaimedResources, pods: Pods): Steps<JudgedClaims> {
    this.#exact = new Set();
    this.#ranges = new CidrMap();
    if (entries.length === 0 && workloads.length === 0) return NO_CLAIMS;
    this.#remember(entries, workloads);
    yield;
    const facts = yield* this.#facts(services, entries, namespaces, pods);
    const diagnostics: ResourceDiagnostic[] = [];
    const copies = new Map<Placed<Resource>, PlacedEntry>();
    const older = new OlderEntries();
    for (const placed of sortedByAge(entries)) {
      const judged = this.#judgeEntry(placed, facts, older, diagnostics);
      if (judged !== placed) copies.set(placed, judged);
      yield;
    }
    const hidden = yield* hiddenWorkloads(workloads, entries, this.#options, facts, diagnostics);
    return { copies, hidden: new Set([...hidden].map((placed) => copies.get(placed) ?? placed)), diagnostics };
  }

  *#facts(services: readonly Placed<ServiceResource>[], entries: readonly PlacedEntry[], namespaces: ReadonlySet<string>, pods: Pods): Steps<Facts> {
    const vips = new Map<IpAddress, string>();
    for (const { resource } of services) for (const ip of virtualAddresses(resource.spec)) vips.set(ip, resource.namespace);
    const names = new Set(services.map(({ resource }) => `${resource.namespace}/${resource.name}`));
    yield;
    const hasRanges = entries.some(({ resource }) => (resource.spec.addresses ?? []).some((text) => !isSingle(parseCidr(text)!)));
    const owned = hasRanges ? yield* ownedAddresses(chain(pods, vips)) : null;
    const ranges = new Map<string, Map<string, boolean>>();
    const rooms = new Map<string, Room>();
    return {
      room: (namespace) => {
        const room = rooms.get(namespace) ?? { hosts: HOSTS_PER_NAMESPACE_MAX, memberships: ENTRY_MEMBERSHIPS_PER_NAMESPACE_MAX };
        rooms.set(namespace, room);
        return room;
      },
      isExempt: (namespace) => namespace === this.#options.rootNamespace,
      hosts: { clusterDomain: this.#options.clusterDomain, hasNamespace: (name) => namespaces.has(name), hasService: (namespace, name) => names.has(`${namespace}/${name}`) },
      isForeign: (ip, namespace) => pods.isForeign(ip, namespace) || (vips.has(ip) && vips.get(ip) !== namespace),
      rangeFault: (text, cidr, namespace) => {
        const known = ranges.get(namespace) ?? new Map<string, boolean>();
        ranges.set(namespace, known);
        if (!known.has(text) && known.size >= RANGES_PER_NAMESPACE_MAX) return `found more than ${RANGES_PER_NAMESPACE_MAX} different ranges in the ServiceEntries of this namespace`;
        const holds = known.get(text) ?? owned!.holdsForeign(cidr, namespace);
        known.set(text, holds);
        return holds ? `found the range ${text}, which holds addresses of pods or Services of other namespaces; name what is outside` : null;
      },
    };
  }

  /** The entry without what is not its own; itself when all is. */
  #judgeEntry(placed: PlacedEntry, facts: Facts, older: OlderEntries, diagnostics: ResourceDiagnostic[]): PlacedEntry {
    const { resource } = placed;
    const { namespace, spec } = resource;
    if (facts.isExempt(namespace)) {
      older.add(resource);
      return placed;
    }
    const report = (severity: Severity, code: DiagnosticCode, path: FieldPath, message: string): void => void diagnostics.push({ placed, severity, code, path, message });
    const left: FieldPath[] = [];
    const leaveOut = (path: FieldPath, message: string): false => {
      left.push(path);
      if (left.length <= TOLD_PER_RESOURCE_MAX) report("error", "conflict", path, `${message}: it is left out`);
      if (left.length === TOLD_PER_RESOURCE_MAX) report("error", "more_diagnostics", [], "there may be more of this kind; they are left out too");
      return false;
    };
    const room = facts.room(namespace);
    const hosts = spec.hosts.filter((host, i) => {
      const fault = hostFault(host, namespace, facts.hosts);
      return fault === null || leaveOut(["spec", "hosts", i], `found ${JSON.stringify(host)}: ${fault}`);
    }).filter((host) => {
      const memberships = Math.max(1, spec.endpoints?.length ?? 0);
      if (room.hosts < 1 || room.memberships < memberships) return leaveOut(["spec", "hosts", spec.hosts.indexOf(host)], `found ${JSON.stringify(host)} beyond the ${HOSTS_PER_NAMESPACE_MAX} hosts, or the ${ENTRY_MEMBERSHIPS_PER_NAMESPACE_MAX} endpoints of all hosts, that older ServiceEntries of this namespace have`);
      room.hosts--;
      room.memberships -= memberships;
      return true;
    });
    const addresses = spec.addresses?.filter((text, i) => {
      const fault = this.#addressFault(text, namespace, facts);
      return fault === null || leaveOut(["spec", "addresses", i], fault);
    });
    let narrowed = false;
    const taken = older.claimOf({ namespace, spec: { hosts, addresses: addresses ?? [], exportTo: spec.exportTo } });
    if (taken !== null) {
      narrowed = true;
      report("warning", "enforced_stricter", ["spec", "exportTo"], `found ${JSON.stringify(taken)}, which an older ServiceEntry of another namespace has too and exports: this one is for clients of namespace ${namespace} alone`);
    }
    if (left.length === 0 && !narrowed) {
      older.add(resource);
      return placed;
    }
    const key = JSON.stringify([left, narrowed]);
    const known = this.#copies.get(placed);
    if (known?.key === key) {
      older.add(known.copy.resource);
      return known.copy;
    }
    const copy: PlacedEntry = { ...placed, resource: { ...resource, spec: { ...spec, hosts, ...(addresses === undefined ? {} : { addresses }), ...(narrowed ? { exportTo: ["."] } : {}) } } };
    this.#copies.set(placed, { key, copy });
    older.add(copy.resource);
    return copy;
  }

  #addressFault(text: string, namespace: string, facts: Facts): string | null {
    const cidr = parseCidr(text)!;
    if (!isSingle(cidr)) return facts.rangeFault(text, cidr, namespace);
    const ip = ipFromBytes(cidr.bytes);
    if (this.#options.serviceCidrs.some((range) => cidrContains(range, ip))) return `found ${text}, which is among the addresses that the control plane gives out (--service-cidrs)`;
    return facts.isForeign(ip, namespace) ? `found ${text}, ${ELSEWHERE}` : null;
  }

  #remember(entries: readonly PlacedEntry[], workloads: readonly Placed<WorkloadEntryResource>[]): void {
    const exact = new Set<IpAddress>();
    for (const { resource: { spec } } of entries) {
      for (const text of spec.addresses ?? []) {
        const cidr = parseCidr(text)!;
        if (isSingle(cidr)) exact.add(ipFromBytes(cidr.bytes));
        else this.#ranges.set(cidr, true);
      }
      for (const { address = "" } of spec.endpoints ?? []) addIp(exact, address);
    }
    for (const { resource } of workloads) for (const ip of entryAddresses(resource)) exact.add(ip);
    this.#exact = exact;
  }
}

/** What is left of a namespace's share. */
interface Room {
  hosts: number;
  memberships: number;
}

interface Facts {
  readonly room: (namespace: string) => Room;
  /** The root namespace's writers are the mesh's operators. */
  readonly isExempt: (namespace: string) => boolean;
  readonly hosts: HostOwners;
  /** Whether the address is a pod's or Service's of another namespace. */
  readonly isForeign: (ip: IpAddress, namespace: string) => boolean;
  readonly rangeFault: (text: string, cidr: Cidr, namespace: string) => string | null;
}

/** Hosts and addresses of the entries that were judged before, which are older. */
class OlderEntries {
  /** The namespace of the oldest that exports it. */
  readonly #exported = new Map<string, string>();

  add({ namespace, spec }: Pick<ServiceEntryResource, "namespace"> & { readonly spec: Pick<ServiceEntryResource["spec"], "hosts" | "addresses" | "exportTo"> }): void {
    if (!isExported(spec.exportTo, namespace)) return;
    for (const name of [...spec.hosts, ...(spec.addresses ?? [])]) if (!this.#exported.has(name)) this.#exported.set(name, namespace);
  }

  /** What of an entry that is exported an older one of another namespace has; null for nothing. */
  claimOf({ namespace, spec: { hosts, addresses, exportTo } }: { readonly namespace: string; readonly spec: { readonly hosts: readonly string[]; readonly addresses: readonly string[]; readonly exportTo: readonly string[] | undefined } }): string | null {
    if (!isExported(exportTo, namespace)) return null;
    return [...hosts, ...addresses].find((name) => (this.#exported.get(name) ?? namespace) !== namespace) ?? null;
  }
}

const isExported = (exportTo: readonly string[] | undefined, namespace: string): boolean => exportTo === undefined || exportTo.length === 0 || exportTo.some((text) => text !== "." && text !== "~" && text !== namespace);

/** Entries whose workloads stand at an address that is a pod's or Service's of others, or an older workload's. */
function* hiddenWorkloads(workloads: readonly Placed<WorkloadEntryResource>[], entries: readonly PlacedEntry[], options: TranslationOptions, facts: Facts, diagnostics: ResourceDiagnostic[]): Steps<Set<Placed<ServiceEntryResource | WorkloadEntryResource>>> {
  const hidden = new Set<Placed<ServiceEntryResource | WorkloadEntryResource>>();
  const first = new Map<string, { readonly namespace: string; workloadEntry: boolean }>();
  // One reason is enough: the whole entry is hidden.
  const hide = (placed: Placed<ServiceEntryResource | WorkloadEntryResource>, path: FieldPath, message: string): void => {
    if (hidden.has(placed)) return;
    hidden.add(placed);
    diagnostics.push({ placed, severity: "error", code: "conflict", path, message: `${message}: it is an endpoint of its services, and not found by its address` });
  };
  for (const placed of sortedByAge<WorkloadEntryResource | ServiceEntryResource>([...workloads, ...entries])) {
    yield;
    const { resource } = placed;
    const isWorkload = resource.kind === "WorkloadEntry";
    for (const { ip, network, path } of claimedBy(resource, options)) {
      if (!facts.isExempt(resource.namespace) && network === options.network && facts.isForeign(ip, resource.namespace)) {
        hide(placed, path, `found ${ip}, ${ELSEWHERE}`);
        continue;
      }
      const key = `${network}/${ip}`;
      const known = first.get(key);
      if (known === undefined) first.set(key, { namespace: resource.namespace, workloadEntry: isWorkload });
      else if (known.namespace !== resource.namespace || (isWorkload && known.workloadEntry)) hide(placed, path, `found ${ip}, which an older ${known.namespace === resource.namespace ? "WorkloadEntry" : "workload of another namespace"} has`);
      else if (isWorkload) known.workloadEntry = true;
    }
  }
  return hidden;
}

function* claimedBy(resource: ServiceEntryResource | WorkloadEntryResource, options: TranslationOptions): Iterable<{ readonly ip: IpAddress; readonly network: string; readonly path: FieldPath }> {
  if (resource.kind === "WorkloadEntry") {
    for (const ip of entryAddresses(resource)) yield { ip, network: resource.spec.network || options.network, path: ["spec", "address"] };
    return;
  }
  for (const [i, { address = "", network }] of (resource.spec.endpoints ?? []).entries()) {
    const ip = parseIp(address);
    if (ip !== null) yield { ip, network: network || options.network, path: ["spec", "endpoints", i, "address"] };
  }
}

const isSingle = (cidr: Cidr): boolean => cidr.prefixLength === cidr.bytes.length * 8;

function* chain<T>(...all: readonly Iterable<T>[]): Iterable<T> {
  for (const one of all) yield* one;
}

function addIp(into: Set<IpAddress>, text: string): void {
  const ip = parseIp(text);
  if (ip !== null) into.add(ip);
}
