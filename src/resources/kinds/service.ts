// core/v1 Service: a name, virtual addresses and ports; its selector finds workload entries of its namespace.

import { z } from "zod";
import { type IpAddress, isIpv6, parseCidr, parseIp } from "../../core/ip.ts";
import type { IpFamilies, LoadBalancing, LoadBalancingScope, Service, ServicePort, WeightedWaypoint } from "../../mesh/records.ts";
import { TRAFFIC_DISTRIBUTION } from "../annotations.ts";
import { collectable } from "../collectable.ts";
import { show } from "../diagnostic.ts";
import { dnsLabel, isDnsLabel, labelMap, port } from "../object-meta.ts";
import { defineKind, type Placed, provenanceOf, type Report, type ResourceOfKind, type TranslationOptions } from "../resource.ts";
import { serviceHostname } from "../waypoint-binding.ts";
import { checkCanaryWeight, checkUseWaypoint } from "./namespace.ts";

const HEADLESS = "None";
/** An IANA service name: what a named port must be called. */
const PORT_NAME = /^(?=.{1,15}$)(?=.*[a-z])[a-z0-9]([a-z0-9]|-(?!-))*(?<!-)$/;
const TARGET_PORT = { error: "expected a port number 1..65535 or the name of a workload's port" };
const DISTRIBUTIONS = ["PreferClose", "PreferSameZone", "PreferSameNode"] as const;
type Distribution = (typeof DISTRIBUTIONS)[number];

const schemas = collectable(() => {
  const clusterIp = z.string().refine((text) => text === HEADLESS || text === "" || parseIp(text) !== null, { error: 'expected an IP address, or "None" for a headless service' });
  const targetPort = z.union([z.int(TARGET_PORT).min(1, TARGET_PORT).max(65535, TARGET_PORT), z.string().regex(PORT_NAME, TARGET_PORT)], TARGET_PORT);
  const servicePort = z.strictObject({
    name: dnsLabel.optional(),
    protocol: z.enum(["TCP", "UDP", "SCTP"]).optional(),
    appProtocol: z.string().max(253).optional(),
    port,
    targetPort: targetPort.optional(),
    nodePort: z.int().min(0).max(65535).optional(),
  });
  const unused = z.unknown().optional();
  const spec = z.strictObject({
    type: z.enum(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]).optional(),
    clusterIP: clusterIp.optional(),
    clusterIPs: z.array(clusterIp).max(2).optional(),
    ports: z.array(servicePort).max(1000).nullish(),
    selector: labelMap.nullish(),
    publishNotReadyAddresses: z.boolean().optional(),
    internalTrafficPolicy: z.enum(["Cluster", "Local"]).optional(),
    trafficDistribution: z.enum(DISTRIBUTIONS).optional(),
    ipFamilies: z.array(z.enum(["IPv4", "IPv6"])).max(2).optional(),
    ipFamilyPolicy: z.enum(["SingleStack", "PreferDualStack", "RequireDualStack"]).optional(),
    sessionAffinity: z.enum(["None", "ClientIP"]).optional(),
    externalName: z.string().optional(),
    loadBalancerSourceRanges: z.array(z.string()).nullish(),
    // About traffic from outside the cluster, which is not ours.
    sessionAffinityConfig: unused, externalIPs: unused, externalTrafficPolicy: unused, healthCheckNodePort: unused, loadBalancerIP: unused,
    loadBalancerClass: unused, allocateLoadBalancerNodePorts: unused,
  });
  return { spec };
});

export const serviceKind = defineKind({
  kind: "Service",
  group: "",
  versions: ["v1"],
  namespaced: true,
  spec: () => schemas().spec,
  check(service, report) {
    if (!isDnsLabel(service.name)) report("error", "bad_name", ["metadata", "name"], `found ${show(service.name)}, expected an RFC 1123 label: at most 63 of a-z, 0-9 and -`);
    checkUseWaypoint(service.labels, ["metadata", "labels"], report);
    checkCanaryWeight(service.annotations, report);
    if (service.spec.type === "ExternalName") {
      report("error", "not_supported", ["spec", "type"],
        "found ExternalName: it is an alias in DNS that carries no identity, so there is no peer to authenticate; list the endpoints as WorkloadEntry instead");
    }
    checkAddresses(service, report);
    checkPorts(service, report);
    if (service.spec.sessionAffinity === "ClientIP") report("warning", "not_supported", ["spec", "sessionAffinity"], "found ClientIP: not supported; connections are balanced one by one");
    if ((service.spec.loadBalancerSourceRanges?.length ?? 0) > 0) {
      report("warning", "not_enforced", ["spec", "loadBalancerSourceRanges"], "not enforced: the mesh sees no load balancer; use an AuthorizationPolicy with ipBlocks");
    }
  },
});

export type ServiceResource = ResourceOfKind<typeof serviceKind>;

function checkAddresses({ spec }: ServiceResource, report: Report): void {
  const addresses = spec.clusterIPs ?? [];
  if (spec.clusterIP !== undefined && addresses.length > 0 && addresses[0] !== spec.clusterIP) {
    report("error", "conflict", ["spec", "clusterIPs", 0], `found ${show(addresses[0])}, expected the same as clusterIP, ${show(spec.clusterIP)}`);
  }
  if (addresses.includes(HEADLESS) && addresses.length > 1) report("error", "conflict", ["spec", "clusterIPs"], 'found "None" beside an address; a headless service has none');
  const families = virtualAddresses(spec).map(isIpv6);
  if (families.length === 2 && families[0] === families[1]) report("error", "conflict", ["spec", "clusterIPs"], "found two addresses of one family, expected one IPv4 and one IPv6");
  if (spec.ipFamilies !== undefined && spec.ipFamilies.length === 2 && spec.ipFamilies[0] === spec.ipFamilies[1]) {
    report("error", "conflict", ["spec", "ipFamilies", 1], `found ${spec.ipFamilies[1]} twice`);
  }
  families.forEach((v6, index) => {
    const family = v6 ? "IPv6" : "IPv4";
    if (spec.ipFamilies !== undefined && spec.ipFamilies.length > 0 && !spec.ipFamilies.includes(family)) {
      report("error", "conflict", spec.clusterIPs === undefined ? ["spec", "clusterIP"] : ["spec", "clusterIPs", index], `found an ${family} address, but ipFamilies does not list ${family}`);
    }
  });
}

function checkPorts({ spec }: ServiceResource, report: Report): void {
  const ports = spec.ports ?? [];
  if (ports.length === 0 && !isHeadless(spec)) report("error", "missing_field", ["spec", "ports"], "found no port, expected at least one (only a headless service may have none)");
  const numbers = new Set<string>();
  const names = new Set<string>();
  ports.forEach((entry, index) => {
    const number = `${entry.protocol ?? "TCP"}/${entry.port}`;
    if (numbers.has(number)) report("error", "conflict", ["spec", "ports", index, "port"], `found ${number} twice in this service`);
    numbers.add(number);
    if (entry.name === undefined && ports.length > 1) report("error", "missing_field", ["spec", "ports", index, "name"], "found no name; a service with several ports names each");
    if (entry.name !== undefined && names.has(entry.name)) report("error", "conflict", ["spec", "ports", index, "name"], `found ${show(entry.name)} twice in this service`);
    if (entry.name !== undefined) names.add(entry.name);
    if ((entry.protocol ?? "TCP") !== "TCP") report("info", "not_supported", ["spec", "ports", index, "protocol"], `found ${entry.protocol}: the mesh carries TCP; this port is left to the network`);
  });
}

export const isHeadless = (spec: ServiceResource["spec"]): boolean => spec.clusterIP === HEADLESS || (spec.clusterIPs?.includes(HEADLESS) ?? false);

const addressesRead = new WeakMap<ServiceResource["spec"], readonly IpAddress[]>();

/** Addresses the file gives; none for a headless service or one whose addresses we choose. Read once for each resource. */
export function virtualAddresses(spec: ServiceResource["spec"]): readonly IpAddress[] {
  const known = addressesRead.get(spec);
  if (known !== undefined) return known;
  const listed = spec.clusterIPs !== undefined && spec.clusterIPs.length > 0 ? spec.clusterIPs : [spec.clusterIP ?? ""];
  const addresses = listed.flatMap((text) => parseIp(text) ?? []);
  addressesRead.set(spec, addresses);
  return addresses;
}

/** Families in which a service without addresses wants one. `null` leaves it to the configured CIDRs: the first of them. */
export function wantedFamilies(spec: ServiceResource["spec"]): readonly (4 | 6)[] | null {
  const listed = (spec.ipFamilies ?? []).map((family) => (family === "IPv4" ? 4 : 6) as 4 | 6);
  if (spec.ipFamilyPolicy === "PreferDualStack" || spec.ipFamilyPolicy === "RequireDualStack") return [...new Set<4 | 6>([...listed, 4, 6])];
  return listed.length > 0 ? listed : null;
}

export interface ServiceSurroundings {
  readonly options: TranslationOptions;
  readonly addresses: readonly IpAddress[];
  readonly waypoints: readonly WeightedWaypoint[];
}

export function translateService(placed: Placed<ServiceResource>, { options, addresses, waypoints }: ServiceSurroundings): Service {
  const service = placed.resource;
  const { spec } = service;
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: serviceHostname(service.name, service.namespace, options.clusterDomain),
    addresses: addresses.map((ip) => ({ network: options.network, cidr: parseCidr(ip)! })),
    ports: tcpPorts(spec).map(toServicePort),
    subjectAltNames: [],
    waypoints,
    loadBalancing: loadBalancing(service),
    ipFamilies: ipFamilies(spec),
    canonical: true,
    visibility: "public",
    headless: isHeadless(spec),
    provenance: provenanceOf(placed),
  };
}

export type PortEntry = NonNullable<ServiceResource["spec"]["ports"]>[number];

export const tcpPorts = (spec: ServiceResource["spec"]): readonly PortEntry[] => (spec.ports ?? []).filter((entry) => (entry.protocol ?? "TCP") === "TCP");

function toServicePort(entry: PortEntry): ServicePort {
  const target = entry.targetPort ?? entry.port;
  // A named target is known to the endpoints alone.
  return { servicePort: entry.port, targetPort: typeof target === "number" ? target : 0, name: entry.name ?? "", appProtocol: entry.appProtocol ?? "" };
}

const CLOSE: readonly LoadBalancingScope[] = ["network", "region", "zone"];
const SAME_NODE: readonly LoadBalancingScope[] = ["network", "region", "zone", "subzone", "node"];

function loadBalancing(service: ServiceResource): LoadBalancing {
  const { spec } = service;
  const allowUnhealthy = spec.publishNotReadyAddresses ?? false;
  if (spec.internalTrafficPolicy === "Local") return { mode: "strict", scopes: ["node"], allowUnhealthy };
  switch (spec.trafficDistribution ?? distributionAnnotation(service.annotations[TRAFFIC_DISTRIBUTION])) {
    case "PreferClose":
    case "PreferSameZone":
      return { mode: "failover", scopes: CLOSE, allowUnhealthy };
    case "PreferSameNode":
      return { mode: "failover", scopes: SAME_NODE, allowUnhealthy };
    case undefined:
      return { mode: "standard", scopes: [], allowUnhealthy };
  }
}

const distributionAnnotation = (text: string | undefined): Distribution | undefined => DISTRIBUTIONS.find((name) => name.toLowerCase() === text?.toLowerCase());

function ipFamilies(spec: ServiceResource["spec"]): IpFamilies {
  const families = spec.ipFamilies ?? [];
  if (families.length === 2) return "dual";
  if (families.length === 0) return "automatic";
  return families[0] === "IPv4" ? "ipv4" : "ipv6";
}
