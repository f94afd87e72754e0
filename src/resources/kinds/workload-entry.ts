// networking.istio.io WorkloadEntry: one workload, where it is, and, by our annotations, which node and namespace it lives in.

import { z } from "zod";
import { namespacedName, type NamespacedName, parseWorkloadUid, type WorkloadUid } from "../../core/brand.ts";
import { type Cidr, type IpAddress, isLoopback, parseCidr, parseIp, parsePort } from "../../core/ip.ts";
import type { CaptureExclusions, LocalWorkload, NetworkNamespace, UidRange } from "../../mesh/local-workload.ts";
import type { ApplicationTunnel, GatewayAddress, Locality, PortMapping, ServiceMembership, TunnelProtocol, WeightedWaypoint, Workload } from "../../mesh/records.ts";
import { collectable } from "../collectable.ts";
import {
  ADDRESSES, APP, BYPASS_INBOUND_CAPTURE, CANONICAL_NAME, CANONICAL_REVISION, DATAPLANE_MODE, DNS_CAPTURE, EXCLUDE_CGROUPS, EXCLUDE_INBOUND_PORTS,
  EXCLUDE_OUTBOUND_IP_RANGES, EXCLUDE_OUTBOUND_PORTS, EXCLUDE_UIDS, INBOUND_BINDING, NATIVE_TUNNEL, NETNS, NETNS_HOST, NODE, REDIRECTION, VERSION,
} from "../annotations.ts";
import { show } from "../diagnostic.ts";
import { dnsSubdomain, isDnsSubdomain, labelMap, type Labels, port } from "../object-meta.ts";
import { defineKind, type Placed, provenanceOf, type Report, type ResourceOfKind, type TranslationOptions } from "../resource.ts";
import { serviceHostname } from "../waypoint-binding.ts";
import { checkCanaryWeight, checkDataplaneMode, checkUseWaypoint } from "./namespace.ts";
import { type ServiceResource, tcpPorts } from "./service.ts";

const SERVICE_ACCOUNT_DEFAULT = "default";
const CAPACITY_DEFAULT = 1;
const CAPACITY_MAX = 0xffffffff;
const UID_MAX = 0xffffffff;
const PATH_CHARS_MAX = 4096;

const schemas = collectable(() => {
  const address = z.string().refine((text) => parseIp(text) !== null || isDnsSubdomain(text), {
    error: "expected an IPv4 or IPv6 address, or a DNS name (sockets such as unix:///path are not supported)",
  });
  /** `region`, `region/zone` or `region/zone/subzone`. */
  const locality = z.string().regex(/^[A-Za-z0-9_.-]+(\/[A-Za-z0-9_.-]+){0,2}$/, { error: "expected REGION, REGION/ZONE or REGION/ZONE/SUBZONE" });
  const spec = z.strictObject({
    address: address.optional(),
    ports: z.record(z.string().min(1).max(63), port).optional(),
    labels: labelMap.nullish(),
    network: z.string().regex(/^[A-Za-z0-9_.-]*$/, { error: "expected a network name: letters, digits, -, _ and ." }).max(253).optional(),
    locality: locality.or(z.literal("")).optional(),
    weight: z.int().min(1).max(CAPACITY_MAX).optional(),
    serviceAccount: dnsSubdomain.or(z.literal("")).optional(),
  });
  return { spec };
});

export const workloadEntryKind = defineKind({
  kind: "WorkloadEntry",
  group: "networking.istio.io",
  versions: ["v1", "v1beta1", "v1alpha3"],
  namespaced: true,
  spec: () => schemas().spec,
  check(entry, report) {
    checkDataplaneMode(entry.labels, ["metadata", "labels"], report);
    checkDataplaneMode(entry.spec.labels ?? {}, ["spec", "labels"], report);
    checkUseWaypoint(entry.labels, ["metadata", "labels"], report);
    checkCanaryWeight(entry.annotations, report);
    checkUseWaypoint(entry.spec.labels ?? {}, ["spec", "labels"], report);
    readEntryAnnotations(entry, report);
    if (entry.spec.address === undefined && entry.annotations[ADDRESSES] === undefined) {
      report("error", "missing_field", ["spec", "address"], "found no address, expected an IP address or a DNS name");
    }
  },
});

export type WorkloadEntryResource = ResourceOfKind<typeof workloadEntryKind>;

/** Labels of the entry and of its metadata, as Istio merges them: the metadata's win. */
export function entryLabels(entry: WorkloadEntryResource): Labels {
  const inner = entry.spec.labels;
  return inner === undefined || inner === null ? entry.labels : { ...inner, ...entry.labels };
}

export function workloadUid(entry: WorkloadEntryResource, clusterId: string): WorkloadUid {
  const uid = parseWorkloadUid(`${clusterId}/networking.istio.io/WorkloadEntry/${entry.namespace}/${entry.name}`);
  if (uid === null) throw new Error(`not a workload uid: cluster ${show(clusterId)}, entry ${entry.namespace}/${entry.name}`);
  return uid;
}

/** What the annotations of an entry say. */
export interface EntryAnnotations {
  readonly node: string;
  readonly networkNamespace: NetworkNamespace | null;
  readonly addresses: readonly IpAddress[];
  readonly redirected: boolean;
  readonly inboundCapture: boolean;
  readonly dnsCapture: boolean | null;
  readonly applicationTunnel: ApplicationTunnel | null;
  readonly exclusions: CaptureExclusions;
}

/** Reads and checks the annotations; a part that is wrong is reported and left out. */
function readEntryAnnotations(entry: WorkloadEntryResource, report: Report): EntryAnnotations {
  const { annotations } = entry;
  const bad = (key: string, expected: string): void => report("error", "bad_value", ["metadata", "annotations", key], `found ${show(annotations[key])}, expected ${expected}`);
  const list = <T>(key: string, expected: string, parse: (text: string) => T | null): T[] => {
    const text = annotations[key];
    if (text === undefined || text.trim() === "") return [];
    const items = text.split(",").map((part) => parse(part.trim()));
    if (items.includes(null)) bad(key, `a comma-separated list of ${expected}`);
    return items.filter((item): item is Awaited<T> & T => item !== null);
  };
  const flag = (key: string): boolean | null => {
    const text = annotations[key];
    if (text === undefined || text === "true" || text === "false") return text === undefined ? null : text === "true";
    bad(key, '"true" or "false"');
    return null;
  };

  const node = annotations[NODE] ?? "";
  if (annotations[NODE] !== undefined && !isDnsSubdomain(node)) bad(NODE, "the name of a node: an RFC 1123 name");
  const networkNamespace = parseNetworkNamespace(annotations[NETNS]);
  if (annotations[NETNS] !== undefined && networkNamespace === null) bad(NETNS, `an absolute path such as /run/netns/web without . or .. steps, or ${NETNS_HOST}`);
  if ((annotations[NODE] === undefined) !== (annotations[NETNS] === undefined)) {
    const [given, missing] = annotations[NODE] === undefined ? [NETNS, NODE] : [NODE, NETNS];
    report("error", "missing_field", ["metadata", "annotations", given], `found ${given} without ${missing}; a workload is captured in one namespace of one node, so both are needed`);
  }
  const addresses = list(ADDRESSES, "IP addresses", parseIp);
  if (networkNamespace !== null && addressesOf(entry, addresses).length === 0) {
    report("error", "missing_field", ["spec", "address"], "found no IP address; a workload that is captured needs one");
  }
  for (const ip of addressesOf(entry, addresses)) {
    if (isUnusable(ip)) report("error", "bad_value", ["spec", "address"], `found ${ip}, which names no one workload: a loopback, unspecified, multicast or broadcast address`);
  }
  const redirection = annotations[REDIRECTION];
  if (redirection !== undefined && !["enabled", "disabled", "pending"].includes(redirection)) bad(REDIRECTION, '"enabled" or "disabled"');

  const applicationTunnel = parseInboundBinding(annotations[INBOUND_BINDING]);
  if (annotations[INBOUND_BINDING] !== undefined && applicationTunnel === null) bad(INBOUND_BINDING, "PROXY, NONE, or one of them with a port: PROXY/15088");

  const exclusions: CaptureExclusions = {
    outboundPorts: list(EXCLUDE_OUTBOUND_PORTS, "ports 1..65535", parseExcludedPort),
    inboundPorts: list(EXCLUDE_INBOUND_PORTS, "ports 1..65535", parseExcludedPort),
    outboundCidrs: list(EXCLUDE_OUTBOUND_IP_RANGES, "IP addresses or CIDRs", parseCidr) as Cidr[],
    uids: list(EXCLUDE_UIDS, "user ids or ranges such as 1000-1999", parseUidRange),
    cgroups: list(EXCLUDE_CGROUPS, "cgroup paths such as system.slice/backup.service", parseCgroup),
  };
  return {
    node, networkNamespace, addresses, redirected: redirection === "enabled",
    inboundCapture: flag(BYPASS_INBOUND_CAPTURE) !== true, dnsCapture: flag(DNS_CAPTURE), applicationTunnel, exclusions,
  };
}

function parseNetworkNamespace(text: string | undefined): NetworkNamespace | null {
  if (text === undefined) return null;
  if (text === NETNS_HOST) return { kind: "host" };
  return isPlainPath(text, true) ? { kind: "path", path: text } : null;
}

/** `PROTOCOL` or `PROTOCOL/PORT`. */
export function parseInboundBinding(text: string | undefined): ApplicationTunnel | null {
  const [, protocol, portText] = /^(PROXY|NONE)(?:\/([0-9]{1,5}))?$/.exec(text ?? "") ?? [];
  if (protocol !== "PROXY" && protocol !== "NONE") return null;
  const number = portText === undefined ? 0 : parseExcludedPort(portText);
  return number === null ? null : { protocol, port: number };
}

function parseExcludedPort(text: string): number | null {
  const number = parsePort(text);
  return number === 0 ? null : number;
}

function parseUidRange(text: string): UidRange | null {
  const match = /^(0|[1-9][0-9]{0,9})(?:-(0|[1-9][0-9]{0,9}))?$/.exec(text);
  if (match === null) return null;
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  return first <= last && last <= UID_MAX ? { first, last } : null;
}

function parseCgroup(text: string): string | null {
  const path = text.startsWith("/") ? text.slice(1) : text;
  return isPlainPath(path, false) ? path : null;
}

function isPlainPath(text: string, absolute: boolean): boolean {
  if (text.length === 0 || text.length > PATH_CHARS_MAX || text.startsWith("/") !== absolute || !/^[\x21-\x7e]+$/.test(text)) return false;
  return text.split("/").slice(absolute ? 1 : 0).every((step) => step !== "" && step !== "." && step !== "..");
}

function isUnusable(ip: IpAddress): boolean {
  if (isLoopback(ip) || ip === "::" || ip === "255.255.255.255") return true;
  if (ip.includes(":")) return ip.startsWith("ff");
  const first = Number(ip.slice(0, ip.indexOf(".")));
  return first === 0 || (first >= 224 && first < 240);
}

function addressesOf(entry: WorkloadEntryResource, further: readonly IpAddress[]): readonly IpAddress[] {
  const own = parseIp(entry.spec.address ?? "");
  return [...new Set(own === null ? further : [own, ...further])];
}

const addressesRead = new WeakMap<WorkloadEntryResource, readonly IpAddress[]>();

/** Every address of the entry, with those of its annotation. Read once for each resource. */
export function entryAddresses(entry: WorkloadEntryResource): readonly IpAddress[] {
  const known = addressesRead.get(entry);
  if (known !== undefined) return known;
  const further = entry.annotations[ADDRESSES] === undefined ? [] : readEntryAnnotations(entry, () => {}).addresses;
  const addresses = addressesOf(entry, further);
  addressesRead.set(entry, addresses);
  return addresses;
}

/** What the rest of the directory says about an entry. */
export interface EntrySurroundings {
  readonly options: TranslationOptions;
  readonly namespaceLabels: Labels;
  /** The way to each network that is not ours. */
  readonly gateways: ReadonlyMap<string, GatewayAddress>;
  readonly services: readonly ServiceResource[];
  /** Memberships in services that are no Kubernetes services. */
  readonly further: readonly ServiceMembership[];
  readonly policies: readonly NamespacedName[];
  readonly waypoints: readonly WeightedWaypoint[];
  /** Its address is somebody else's: it is never found by it. */
  readonly hidden: boolean;
}

export interface TranslatedEntry {
  readonly workload: Workload;
  /** Null for a workload of another node, or of none. */
  readonly local: LocalWorkload | null;
  /** Services that name a port this entry does not have. */
  readonly missingPorts: readonly { readonly service: string; readonly port: string }[];
}

export function translateWorkloadEntry(placed: Placed<WorkloadEntryResource>, surroundings: EntrySurroundings): TranslatedEntry {
  const entry = placed.resource;
  const { options } = surroundings;
  const labels = entryLabels(entry);
  const annotated = readEntryAnnotations(entry, () => {});
  const uid = workloadUid(entry, options.clusterId);
  const addresses = addressesOf(entry, annotated.addresses);
  const provenance = provenanceOf(placed);
  const network = entry.spec.network || options.network;
  const nativeTunnel = labels[NATIVE_TUNNEL] === "http";
  const captured = annotated.networkNamespace !== null && !nativeTunnel && isAmbient(labels, surroundings.namespaceLabels);
  const missingPorts: { service: string; port: string }[] = [];
  const workload: Workload = {
    uid,
    name: entry.name,
    namespace: entry.namespace,
    clusterId: options.clusterId,
    trustDomain: options.trustDomain,
    serviceAccount: entry.spec.serviceAccount || SERVICE_ACCOUNT_DEFAULT,
    network,
    node: annotated.node,
    addresses,
    hostname: addresses.length > 0 ? "" : (entry.spec.address ?? ""),
    tunnelProtocol: tunnelProtocol({ captured, nativeTunnel, annotated, labels }),
    nativeTunnel,
    // What a workload on its node's network has in common with it: no ztunnel, Istio's neither, finds it by its address.
    hostNetwork: surroundings.hidden,
    ...labelledNames(labels, entry.name),
    locality: parseLocality(entry.spec.locality ?? ""),
    status: "healthy",
    capacity: entry.spec.weight ?? CAPACITY_DEFAULT,
    services: [...surroundings.services.map((service) => membership(entry, service, options, missingPorts)), ...surroundings.further],
    authorizationPolicies: surroundings.policies,
    waypoints: surroundings.waypoints,
    networkGateway: network === options.network ? null : (surroundings.gateways.get(network) ?? null),
    applicationTunnel: annotated.applicationTunnel,
    provenance,
  };
  const local: LocalWorkload | null = annotated.networkNamespace === null || annotated.node !== options.node ? null : {
    uid, namespace: entry.namespace, name: entry.name, networkNamespace: annotated.networkNamespace, addresses, captured,
    inboundCapture: annotated.inboundCapture, dnsCapture: annotated.dnsCapture, exclusions: annotated.exclusions, provenance,
  };
  return { workload, local, missingPorts };
}

function isAmbient(labels: Labels, namespaceLabels: Labels): boolean {
  return (labels[DATAPLANE_MODE] ?? namespaceLabels[DATAPLANE_MODE]) === "ambient";
}

/**
 * HBONE needs somebody at the other end: a node proxy that captures it (ours, by annotation), one that says it does
 * (`redirection`, or its own opt-in label), or the workload itself. A namespace's label alone does not put a proxy
 * in front of a machine that lives on no node.
 */
function tunnelProtocol(entry: { captured: boolean; nativeTunnel: boolean; annotated: EntryAnnotations; labels: Labels }): TunnelProtocol {
  if (entry.captured || entry.nativeTunnel) return "HBONE";
  if (entry.labels[DATAPLANE_MODE] === "none") return "TCP";
  return entry.annotated.redirected || entry.labels[DATAPLANE_MODE] === "ambient" ? "HBONE" : "TCP";
}

function membership(entry: WorkloadEntryResource, service: ServiceResource, options: TranslationOptions, missing: { service: string; port: string }[]): ServiceMembership {
  const ports: PortMapping[] = [];
  for (const { port, targetPort } of tcpPorts(service.spec)) {
    const target = targetPort ?? port;
    const number = typeof target === "number" ? target : ownPort(entry, target);
    if (number === undefined) missing.push({ service: `${service.namespace}/${service.name}`, port: String(target) });
    else ports.push({ servicePort: port, targetPort: number });
  }
  return { service: namespacedName(service.namespace, serviceHostname(service.name, service.namespace, options.clusterDomain)), ports };
}

function ownPort(entry: WorkloadEntryResource, name: string): number | undefined {
  return entry.spec.ports !== undefined && Object.hasOwn(entry.spec.ports, name) ? entry.spec.ports[name] : undefined;
}

function parseLocality(text: string): Locality {
  const [region = "", zone = "", subzone = ""] = text.split("/");
  return { region, zone, subzone };
}

/** How a workload is called in metrics and logs: by its labels, else by the name of what made it. */
export function labelledNames(labels: Labels, workloadName: string): Pick<Workload, "canonicalName" | "canonicalRevision" | "workloadType" | "workloadName" | "app" | "version"> {
  return {
    canonicalName: firstLabel(labels, CANONICAL_NAME) ?? workloadName, canonicalRevision: firstLabel(labels, CANONICAL_REVISION) ?? "latest",
    workloadType: "pod", workloadName, app: firstLabel(labels, APP) ?? "", version: firstLabel(labels, VERSION) ?? "",
  };
}

function firstLabel(labels: Labels, keys: readonly string[]): string | undefined {
  for (const key of keys) if (Object.hasOwn(labels, key) && labels[key] !== "") return labels[key];
  return undefined;
}
