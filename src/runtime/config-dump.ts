// /config_dump in the shape that `istioctl ztunnel-config` reads: camelCase keys, protocol HBONE or TCP, certificates as base64 of
// PEM. Pure. Private keys are not even among the inputs.

import { unreachable } from "../core/result.ts";
import { formatCidr } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type {
  AuthorizationPolicy, GatewayAddress, PolicyMatch, PortMapping, Service, StringMatch, WeightedWaypoint, Workload,
} from "../mesh/records.ts";
import { readCertificates } from "../identity/chain.ts";

/** A certificate held for an identity: never with its key. */
export interface CertificateState {
  readonly spiffeId: SpiffeId;
  /** Why there is none; null while the first one is fetched. */
  readonly failure: string | null;
  readonly certificate: { readonly certificateChainPem: string; readonly trustBundlePem: string } | null;
}

export interface DumpedConnection {
  readonly direction: "inbound" | "outbound";
  readonly source: string;
  readonly asked: string | null;
  readonly reached: string;
  readonly protocol: string;
}

export interface LocalWorkloadState {
  readonly uid: string;
  readonly workload: Workload | null;
  readonly state: string;
  readonly connections: readonly DumpedConnection[];
}

export interface DumpSources {
  readonly workloads: () => Iterable<Workload>;
  readonly services: () => Iterable<Service>;
  readonly policies: () => Iterable<AuthorizationPolicy>;
  readonly endpoints: (service: Service) => Iterable<{ readonly workload: Workload; readonly ports: readonly PortMapping[] }>;
  readonly certificates: () => Iterable<CertificateState>;
  /** Asked of the data threads. */
  readonly localWorkloads: () => Promise<readonly LocalWorkloadState[]>;
  /** Settings with their origins. */
  readonly config: () => unknown;
  readonly version: string;
  /** What else a role has to tell, by key. */
  readonly more?: () => Readonly<Record<string, unknown>> | Promise<Readonly<Record<string, unknown>>>;
}

export async function configDump(sources: DumpSources): Promise<Record<string, unknown>> {
  const locals = await sources.localWorkloads();
  return {
    ...(await sources.more?.()),
    workloads: [...sources.workloads()].map(dumpWorkload),
    services: [...sources.services()].map((service) => dumpService(service, sources.endpoints(service))),
    policies: [...sources.policies()].map(dumpPolicy),
    certificates: [...sources.certificates()].map(dumpCertificate),
    workloadState: Object.fromEntries(locals.map((local) => [local.uid, dumpLocal(local)])),
    config: sources.config(),
    version: sources.version,
  };
}

function dumpWorkload(workload: Workload): Record<string, unknown> {
  return {
    uid: workload.uid,
    workloadIps: workload.addresses,
    ...waypointOf(workload.waypoints),
    ...(workload.networkGateway === null ? {} : { networkGateway: dumpGateway(workload.networkGateway) }),
    protocol: workload.tunnelProtocol,
    name: workload.name,
    namespace: workload.namespace,
    serviceAccount: workload.serviceAccount,
    workloadName: workload.workloadName,
    workloadType: workload.workloadType,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    clusterId: workload.clusterId,
    trustDomain: workload.trustDomain,
    locality: { region: workload.locality.region, zone: workload.locality.zone, subzone: workload.locality.subzone },
    node: workload.node,
    network: workload.network,
    status: workload.status === "healthy" ? "Healthy" : "Unhealthy",
    hostname: workload.hostname,
    capacity: workload.capacity,
    ...(workload.applicationTunnel === null ? {} : { applicationTunnel: { protocol: workload.applicationTunnel.protocol, port: workload.applicationTunnel.port } }),
    authorizationPolicies: workload.authorizationPolicies,
    services: workload.services.map(({ service }) => service),
  };
}

function dumpService(service: Service, endpoints: Iterable<{ readonly workload: Workload; readonly ports: readonly PortMapping[] }>): Record<string, unknown> {
  const resource = `${service.namespace}/${service.hostname}`;
  const { mode, scopes, allowUnhealthy } = service.loadBalancing;
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.addresses.map(({ network, cidr }) => `${network}/${formatCidr(cidr).replace(cidr.prefixLength === cidr.bytes.length * 8 ? /\/\d+$/ : /$^/, "")}`),
    ports: Object.fromEntries(service.ports.map(({ servicePort, targetPort }) => [servicePort, targetPort])),
    loadBalancer: { mode: capitalise(mode), routingPreferences: scopes.map(capitalise), healthPolicy: allowUnhealthy ? "AllowAll" : "OnlyHealthy" },
    ...waypointOf(service.waypoints),
    endpoints: Object.fromEntries([...endpoints].map(({ workload, ports }) => [workload.uid, {
      workloadUid: workload.uid, service: resource, address: workload.addresses[0] ?? "",
      port: Object.fromEntries(ports.map(({ servicePort, targetPort }) => [servicePort, targetPort])), status: workload.status === "healthy" ? "Healthy" : "Unhealthy",
    }])),
    subjectAltNames: service.subjectAltNames,
    ipFamilies: { automatic: "", ipv4: "IPv4", ipv6: "IPv6", dual: "Dual" }[service.ipFamilies],
  };
}

function dumpPolicy(policy: AuthorizationPolicy): Record<string, unknown> {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: { global: "Global", namespace: "Namespace", workload: "WorkloadSelector" }[policy.scope],
    action: policy.action === "allow" ? "Allow" : "Deny",
    dryRun: policy.dryRun,
    rules: policy.rules.map((rule) => rule.clauses.map((clause) => clause.matches.map(dumpMatch))),
  };
}

function dumpMatch(match: PolicyMatch): Record<string, unknown> {
  const all = {
    namespaces: match.namespaces.map(dumpString),
    notNamespaces: match.notNamespaces.map(dumpString),
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
    principals: match.principals.map(dumpString),
    notPrincipals: match.notPrincipals.map(dumpString),
    sourceIps: match.sourceIps.map(formatCidr),
    notSourceIps: match.notSourceIps.map(formatCidr),
    destinationIps: match.destinationIps.map(formatCidr),
    notDestinationIps: match.notDestinationIps.map(formatCidr),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
  };
  return Object.fromEntries(Object.entries(all).filter(([, values]) => values.length > 0));
}

function dumpString(match: StringMatch): Record<string, unknown> {
  return match.kind === "presence" ? { Presence: {} } : { [capitalise(match.kind)]: match.value };
}

export function dumpCertificate({ spiffeId, failure, certificate }: CertificateState): Record<string, unknown> {
  if (certificate === null) return { identity: spiffeId, state: failure === null ? "Initializing" : `Unavailable: ${failure}`, certChain: [], rootCerts: [] };
  return { identity: spiffeId, state: "Available", certChain: dumpChain(certificate.certificateChainPem), rootCerts: dumpChain(certificate.trustBundlePem) };
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----\n?/g;

/** Only certificate blocks are copied, whatever else the text may hold. */
function dumpChain(pem: string): Record<string, unknown>[] {
  return (pem.match(PEM_CERTIFICATE) ?? []).flatMap((block) => {
    const read = readCertificates(block);
    if (!read.ok || read.value[0] === undefined) return [];
    const { serialHex, notBeforeMs, notAfterMs } = read.value[0];
    return [{
      pem: Buffer.from(block).toString("base64"), serialNumber: BigInt(`0x${serialHex}`).toString(), validFrom: rfc3339(notBeforeMs), expirationTime: rfc3339(notAfterMs),
    }];
  });
}

function dumpLocal({ workload, state, connections }: LocalWorkloadState): Record<string, unknown> {
  const of = (direction: DumpedConnection["direction"]) => connections.filter((each) => each.direction === direction)
    .map(({ source, asked, reached, protocol }) => ({ src: source, ...(asked === null ? {} : { originalDst: asked }), actualDst: reached, protocol }));
  return {
    state,
    connections: { inbound: of("inbound"), outbound: of("outbound") },
    info: {
      name: workload?.name ?? "", namespace: workload?.namespace ?? "", trustDomain: workload?.trustDomain ?? "", serviceAccount: workload?.serviceAccount ?? "",
    },
  };
}

/** The first alternative; istioctl shows one. */
function waypointOf(waypoints: readonly WeightedWaypoint[]): Record<string, unknown> {
  const first = waypoints[0];
  return first === undefined ? {} : { waypoint: dumpGateway(first.gateway) };
}

function dumpGateway({ destination, hboneMtlsPort }: GatewayAddress): Record<string, unknown> {
  switch (destination.kind) {
    case "hostname": return { destination: destination.service, hboneMtlsPort };
    case "address": return { destination: `${destination.network}/${destination.ip}`, hboneMtlsPort };
    case "workload": return { destination: destination.uid, hboneMtlsPort };
    default: return unreachable(destination);
  }
}

function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function rfc3339(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d{3}Z$/, "Z");
}

