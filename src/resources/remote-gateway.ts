// A Gateway of class `istio-remote`: what stands before another network. It becomes a workload at the address by which it is reached
// from here, and the way to every workload of that network, whoever asks: so only namespaces that the operator trusts with it may have one.

import { parseWorkloadUid, type WorkloadUid } from "../core/brand.ts";
import { type IpAddress, parseIp } from "../core/ip.ts";
import { parseTrustDomain } from "../core/spiffe.ts";
import type { GatewayAddress, Workload } from "../mesh/records.ts";
import { GATEWAY_SERVICE_ACCOUNT, GATEWAY_TRUST_DOMAIN, NETWORK } from "./annotations.ts";
import { show } from "./diagnostic.ts";
import { isDnsSubdomain } from "./object-meta.ts";
import { type Placed, provenanceOf, type Report, type ReportFor, type ResourceOf, sourceOf, type TranslationOptions } from "./resource.ts";

export const REMOTE_CLASSES: readonly string[] = ["istio-remote", "weft-remote"];
const HBONE = "HBONE";
const NETWORK_NAME = /^[A-Za-z0-9_.-]{1,253}$/;

/** The part of a Gateway that is looked at. */
export type RemoteGateway = ResourceOf<"Gateway", {
  readonly gatewayClassName: string;
  readonly listeners: readonly { readonly protocol: string; readonly port: number }[];
  readonly addresses?: readonly { readonly value?: string | undefined }[] | undefined;
}>;

export function isRemoteGateway(gateway: RemoteGateway): boolean {
  return REMOTE_CLASSES.includes(gateway.spec.gatewayClassName);
}

export function checkRemoteGateway(gateway: RemoteGateway, report: Report): void {
  const { addresses = [], listeners } = gateway.spec;
  const network = gateway.labels[NETWORK];
  if (network === undefined) report("error", "missing_field", ["metadata", "labels", NETWORK], "found nothing, expected the name of the network that this gateway leads to");
  else if (!NETWORK_NAME.test(network)) report("error", "bad_value", ["metadata", "labels", NETWORK], `found ${show(network)}, expected the name of a network`);
  if (addresses.length === 0) report("error", "missing_field", ["spec", "addresses"], "found none, expected the address by which the gateway is reached from here");
  for (const [index, { value = "" }] of addresses.entries()) {
    if (parseIp(value) === null && !isDnsSubdomain(value)) report("error", "bad_value", ["spec", "addresses", index, "value"], `found ${show(value)}, expected an IP address or a DNS name`);
  }
  if (!listeners.some(({ protocol }) => protocol === HBONE)) {
    report("error", "missing_field", ["spec", "listeners"], `found no listener with protocol ${HBONE}, expected one with the port on which the gateway takes it (usually 15008)`);
  }
  const account = gateway.annotations[GATEWAY_SERVICE_ACCOUNT];
  if (account !== undefined && !isDnsSubdomain(account)) report("error", "bad_value", ["metadata", "annotations", GATEWAY_SERVICE_ACCOUNT], `found ${show(account)}, expected the name of a service account`);
  const domain = gateway.annotations[GATEWAY_TRUST_DOMAIN];
  if (domain !== undefined && parseTrustDomain(domain) === null) report("error", "bad_value", ["metadata", "annotations", GATEWAY_TRUST_DOMAIN], `found ${show(domain)}, expected a trust domain`);
}

/** What remote gateways come to: the way to each network, and the gateways as workloads. */
export interface RemoteNetworks {
  readonly gateways: ReadonlyMap<string, GatewayAddress>;
  readonly workloads: readonly Workload[];
}

/**
 * One gateway a network: one of the root namespace before those of other allowed namespaces; of these the oldest, then the first by
 * namespace and name. The others are told that they are not used, and those of any other namespace that they may not be.
 */
export function translateRemoteGateways(placed: readonly Placed<RemoteGateway>[], options: TranslationOptions, reportFor: ReportFor): RemoteNetworks {
  const gateways = new Map<string, GatewayAddress>();
  const workloads: Workload[] = [];
  const owners = new Map<string, Placed<RemoteGateway>>();
  for (const one of placed.filter(({ resource }) => isRemoteGateway(resource)).sort((a, b) => rank(a, options) - rank(b, options) || (nameOf(a) < nameOf(b) ? -1 : 1))) {
    const network = one.resource.labels[NETWORK]!;
    // A directory that several networks share holds the gateway to our own as well: that one is for the others.
    if (network === options.network) continue;
    if (!mayLead(one.resource.namespace, options)) {
      reportFor(one)("error", "not_allowed", ["metadata", "namespace"], `found namespace ${one.resource.namespace}, expected ${[options.rootNamespace, ...(options.remoteGatewayNamespaces ?? [])].join(", ")}: the whole mesh would go to network ${network} through it. It is not used; put it there, or name its namespace in --remote-gateway-namespaces`);
      continue;
    }
    const owner = owners.get(network);
    if (owner !== undefined) {
      reportFor(one)("warning", "conflict", ["metadata", "labels", NETWORK], `found network ${network}, to which Gateway ${nameOf(owner)} (${sourceOf(owner)}) leads already; that one is used`);
      continue;
    }
    owners.set(network, one);
    const workload = toWorkload(one, network, options);
    workloads.push(workload);
    gateways.set(network, {
      destination: { kind: "workload", uid: workload.uid },
      hboneMtlsPort: one.resource.spec.listeners.find(({ protocol }) => protocol === HBONE)!.port,
    });
  }
  return { gateways, workloads };
}

const mayLead = (namespace: string, { rootNamespace, remoteGatewayNamespaces = [] }: TranslationOptions): boolean => namespace === rootNamespace || remoteGatewayNamespaces.includes(namespace);

/** 0 for the root namespace's own; of the others the time of creation, last those that have none. */
function rank({ resource }: Placed<RemoteGateway>, { rootNamespace }: TranslationOptions): number {
  if (resource.namespace === rootNamespace) return 0;
  const createdMs = Date.parse(resource.creationTimestamp);
  return Number.isNaN(createdMs) ? Number.MAX_SAFE_INTEGER : Math.max(1, createdMs);
}

const nameOf = ({ resource }: Placed<RemoteGateway>): string => `${resource.namespace}/${resource.name}`;

function toWorkload(placed: Placed<RemoteGateway>, network: string, options: TranslationOptions): Workload {
  const { name, namespace, annotations, spec: { gatewayClassName, addresses = [] } } = placed.resource;
  const ips = addresses.map(({ value }) => parseIp(value ?? "")).filter((ip): ip is IpAddress => ip !== null);
  return {
    uid: gatewayUid(namespace, name, options.clusterId),
    name, namespace, clusterId: options.clusterId,
    trustDomain: parseTrustDomain(annotations[GATEWAY_TRUST_DOMAIN] ?? "") ?? options.trustDomain,
    serviceAccount: annotations[GATEWAY_SERVICE_ACCOUNT] ?? `${name}-${gatewayClassName}`,
    network, node: "", addresses: ips, hostname: ips.length > 0 ? "" : (addresses[0]?.value ?? ""),
    tunnelProtocol: "HBONE", nativeTunnel: true, hostNetwork: false,
    canonicalName: name, canonicalRevision: "latest", workloadType: "deployment", workloadName: name, app: "", version: "",
    locality: { region: "", zone: "", subzone: "" }, status: "healthy", capacity: 1, services: [], authorizationPolicies: [], waypoints: [],
    networkGateway: null, applicationTunnel: null, provenance: provenanceOf(placed),
  };
}

function gatewayUid(namespace: string, name: string, clusterId: string): WorkloadUid {
  const uid = parseWorkloadUid(`${clusterId}/gateway.networking.k8s.io/Gateway/${namespace}/${name}`);
  if (uid === null) throw new Error(`not a workload uid: cluster ${show(clusterId)}, Gateway ${namespace}/${name}`);
  return uid;
}
