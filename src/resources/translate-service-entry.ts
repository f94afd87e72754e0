// ServiceEntry into services and workloads of the mesh: a service for each host, a workload for each endpoint, or for each host that
// is to be resolved by name.

import { namespacedName, parseWorkloadUid, type WorkloadUid } from "../core/brand.ts";
import { type IpAddress, parseCidr } from "../core/ip.ts";
import { parseSpiffeId } from "../core/spiffe.ts";
import type { PortMapping, Service, ServiceMembership, ServicePort, WeightedWaypoint, Workload } from "../mesh/records.ts";
import type { ServiceEntryEndpoint, ServiceEntryPort, ServiceEntryResource } from "./kinds/service-entry.ts";
import { type EntrySurroundings, translateWorkloadEntry, type WorkloadEntryResource } from "./kinds/workload-entry.ts";
import type { Labels } from "./object-meta.ts";
import { type Placed, provenanceOf, type Report, type TranslationOptions } from "./resource.ts";

export interface ServiceEntrySurroundings {
  readonly options: TranslationOptions;
  readonly waypoints: readonly WeightedWaypoint[];
  readonly namespaceLabels: Labels;
  /** The way to other networks. */
  readonly gateways: EntrySurroundings["gateways"];
  /** Chosen for hosts without address. */
  addressesOf(hostname: string): readonly IpAddress[];
  /** Policies that select a workload with these labels. */
  policiesFor(labels: Labels): Workload["authorizationPolicies"];
  /** An address of its endpoints is somebody else's: none is ever found by its own. */
  readonly hidden: boolean;
}

const tcpPorts = (spec: ServiceEntryResource["spec"]): readonly ServiceEntryPort[] => (spec.ports ?? []).filter(({ protocol }) => protocol?.toUpperCase() !== "UDP");

export function translateServiceEntry(placed: Placed<ServiceEntryResource>, surroundings: ServiceEntrySurroundings, report: Report): { readonly services: readonly Service[]; readonly workloads: readonly Workload[] } {
  const { resource } = placed;
  const { options, waypoints } = surroundings;
  const { namespace, spec } = resource;
  const resolution = spec.resolution ?? "NONE";
  const visibility = visibilityOf(resource, report);
  const services = spec.hosts.map((hostname): Service => {
    const given = (spec.addresses ?? []).map((text) => parseCidr(text)!);
    const cidrs = given.length > 0 ? given : surroundings.addressesOf(hostname).map((ip) => parseCidr(ip)!);
    return {
      name: resource.name, namespace, hostname, addresses: cidrs.map((cidr) => ({ network: options.network, cidr })), ports: tcpPorts(spec).map(servicePort),
      subjectAltNames: (spec.subjectAltNames ?? []).flatMap((text) => parseSpiffeId(text)?.id ?? []), waypoints,
      loadBalancing: { mode: resolution === "NONE" ? "passthrough" : "standard", scopes: [], allowUnhealthy: false },
      ipFamilies: "automatic", canonical: false, visibility, headless: false, provenance: provenanceOf(placed),
    };
  });
  return { services, workloads: workloads(placed, surroundings) };
}

function servicePort({ number, name, targetPort, protocol }: ServiceEntryPort): ServicePort {
  return { servicePort: number, targetPort: targetPort ?? number, name, appProtocol: (protocol ?? "").toLowerCase() };
}

/** What an entry says of visibility is public or its own namespace; anything between is told and made narrower. */
function visibilityOf({ namespace, spec }: ServiceEntryResource, report: Report): Service["visibility"] {
  const exportTo = spec.exportTo ?? [];
  if (exportTo.length === 0 || exportTo.includes("*")) return "public";
  if (exportTo.some((text) => text !== "." && text !== namespace)) {
    report("warning", "enforced_stricter", ["spec", "exportTo"], `found ${exportTo.join(", ")}, expected "*" or "."; it is seen in its own namespace alone`);
  }
  return "namespace";
}

/** The membership of a workload in every host of an entry. */
export function entryMemberships({ namespace, spec }: ServiceEntryResource, ownPorts: Readonly<Record<string, number>>): ServiceMembership[] {
  const ports = tcpPorts(spec).map(({ number, name, targetPort }): PortMapping => ({ servicePort: number, targetPort: (Object.hasOwn(ownPorts, name) ? ownPorts[name] : undefined) ?? targetPort ?? number }));
  return spec.hosts.map((hostname) => ({ service: namespacedName(namespace, hostname), ports }));
}

function workloads(placed: Placed<ServiceEntryResource>, surroundings: ServiceEntrySurroundings): Workload[] {
  const { spec } = placed.resource;
  const endpoints = spec.endpoints ?? [];
  if (endpoints.length > 0) return endpointUids(placed.resource, surroundings.options.clusterId).map(({ uid, endpoint }) => workload(placed, endpoint, uid, spec.hosts, surroundings));
  const byName = (spec.resolution === "DNS" || spec.resolution === "DNS_ROUND_ROBIN") && spec.workloadSelector === undefined;
  return byName ? spec.hosts.map((host) => workload(placed, { address: host }, uidOf(surroundings.options.clusterId, placed.resource.namespace, placed.resource.name, host), [host], surroundings)) : [];
}

function workload(placed: Placed<ServiceEntryResource>, endpoint: ServiceEntryEndpoint, uid: WorkloadUid, hosts: readonly string[], { options, namespaceLabels, gateways, policiesFor, hidden }: ServiceEntrySurroundings): Workload {
  const { resource } = placed;
  const { namespace, name, resourceVersion, creationTimestamp } = resource;
  const { weight, labels: endpointLabels, ...fields } = endpoint;
  const labels = endpointLabels ?? {};
  const entry: WorkloadEntryResource = {
    kind: "WorkloadEntry", namespace, name, labels: {}, annotations: {}, creationTimestamp, resourceVersion, spec: { ...fields, labels, ...(weight === undefined || weight === 0 ? {} : { weight }) },
  };
  const translated = translateWorkloadEntry({ ...placed, resource: entry }, { options, namespaceLabels, gateways, services: [], further: [], policies: policiesFor(labels), waypoints: [], hidden });
  const members = entryMemberships({ ...resource, spec: { ...resource.spec, hosts: [...hosts] } }, endpoint.ports ?? {});
  return { ...translated.workload, uid, services: members, provenance: provenanceOf(placed) };
}

/** The endpoints that an entry lists, with what each is called as a workload. */
export function endpointUids({ namespace, name, spec }: ServiceEntryResource, clusterId: string): { readonly uid: WorkloadUid; readonly endpoint: ServiceEntryEndpoint }[] {
  const seen = new Map<string, number>();
  return (spec.endpoints ?? []).map((endpoint) => {
    const address = endpoint.address ?? "";
    const times = (seen.get(address) ?? 0) + 1;
    seen.set(address, times);
    return { uid: uidOf(clusterId, namespace, name, times === 1 ? address : `${address}/${times}`), endpoint };
  });
}

function uidOf(clusterId: string, namespace: string, name: string, part: string): WorkloadUid {
  const uid = parseWorkloadUid(`${clusterId}/networking.istio.io/ServiceEntry/${namespace}/${name}/${part}`);
  if (uid === null) throw new Error(`not a workload uid: ServiceEntry ${namespace}/${name}, endpoint ${part}`);
  return uid;
}
