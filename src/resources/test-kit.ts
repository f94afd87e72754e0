// For tests of this folder: a directory as texts, and results as short lines that can be read and compared.

import { formatSocketAddress, formatCidr, parseCidr } from "../core/ip.ts";
import { parseTrustDomain } from "../core/spiffe.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { AuthorizationPolicy, GatewayAddress, PolicyMatch, Service, StringMatch, WeightedWaypoint, Workload } from "../mesh/records.ts";
import type { Diagnostic } from "./diagnostic.ts";
import { type Evaluation, type FileReading, ResourceSet } from "./resource-set.ts";
import type { TranslationOptions } from "./resource.ts";

export const testOptions: TranslationOptions = {
  node: "node-a", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "",
  rootNamespace: "istio-system", serviceCidrs: [parseCidr("198.19.0.0/16")!, parseCidr("2001:db8:ffff::/112")!],
};

export const readingsOf = (texts: Readonly<Record<string, string>>): FileReading[] => Object.entries(texts).map(([path, text]) => ({ kind: "text", path, text }));

/** Evaluates one state of a directory with no history. */
export function evaluate(texts: Readonly<Record<string, string>> | string, options: Partial<TranslationOptions> = {}): Evaluation {
  return new ResourceSet({ ...testOptions, ...options }).update(readingsOf(typeof texts === "string" ? { "a.yaml": texts } : texts));
}

export const namespace = (name: string, labels = "{istio.io/dataplane-mode: ambient}"): string => `apiVersion: v1
kind: Namespace
metadata: {name: ${name}, labels: ${labels}}
`;

export const entry = (name: string, over: { namespace?: string; labels?: string; annotations?: string; spec?: string; address?: string } = {}): string => `apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ${name}, namespace: ${over.namespace ?? "shop"}, annotations: ${over.annotations ?? "{}"}}
spec: {address: "${over.address ?? "198.18.0.1"}", labels: ${over.labels ?? "{app: web}"}${over.spec === undefined ? "" : `, ${over.spec}`}}
`;

export const policy = (name: string, spec: string, over: { namespace?: string; annotations?: string } = {}): string => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ${name}, namespace: ${over.namespace ?? "shop"}, annotations: ${over.annotations ?? "{}"}}
spec: ${spec}
`;

export const peer = (name: string, spec: string, at = "shop", created = ""): string => `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ${name}, namespace: ${at}${created === "" ? "" : `, creationTimestamp: "${created}"`}}
spec: ${spec}
`;

export const documents = (...parts: readonly string[]): string => parts.join("---\n");

export const describeDiagnostic = (d: Diagnostic): string => `${d.file}:${d.line}:${d.column} ${d.severity} ${d.code} ${d.resource}${d.fieldPath === "" ? "" : ` ${d.fieldPath}`}: ${d.message}`;
export const errorsOf = (evaluation: Evaluation): string[] => evaluation.diagnostics.filter((d) => d.severity === "error").map(describeDiagnostic);
export const codesOf = (evaluation: Evaluation): string[] => evaluation.diagnostics.map((d) => `${d.severity} ${d.code} ${d.fieldPath}`);

/** Every record as a line or a few, in a stable order. */
export function describeMesh({ mesh, localWorkloads }: Pick<Evaluation, "mesh" | "localWorkloads">): string[] {
  return [
    ...[...mesh.services.values()].map(describeService).sort(),
    ...[...mesh.workloads.values()].map(describeWorkload).sort(),
    ...localWorkloads.map(describeLocal),
    ...[...mesh.policies.values()].sort((a, b) => (`${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1)).flatMap(describePolicy),
  ];
}

function describeService(s: Service): string {
  const { mode, scopes, allowUnhealthy } = s.loadBalancing;
  return [
    `service ${s.namespace}/${s.hostname}`, s.headless ? "headless" : `vip ${s.addresses.map(({ cidr }) => formatCidr(cidr)).join(" ")}`,
    `ports ${s.ports.map((p) => `${p.name}:${p.servicePort}->${p.targetPort}${p.appProtocol === "" ? "" : `(${p.appProtocol})`}`).join(" ")}`,
    `${mode}${scopes.length > 0 ? `[${scopes.join(" ")}]` : ""}${allowUnhealthy ? " allowUnhealthy" : ""}`, s.ipFamilies, ...waypoints(s.waypoints), `@${s.provenance.source}`,
  ].join(" | ");
}

function describeWorkload(w: Workload): string {
  const { region, zone, subzone } = w.locality;
  return [
    `workload ${w.uid}`, `${w.tunnelProtocol}${w.nativeTunnel ? " native" : ""}`, [...w.addresses, w.hostname].filter((text) => text !== "").join(" "),
    `sa ${w.serviceAccount}`, `node ${w.node}`, `net ${JSON.stringify(w.network)}`, `canonical ${w.canonicalName}/${w.canonicalRevision}`, `locality ${region}/${zone}/${subzone}`, `capacity ${w.capacity}`,
    ...w.services.map((m) => `in ${m.service} ${m.ports.map((p) => `${p.servicePort}->${p.targetPort}`).join(" ")}`),
    ...(w.networkGateway === null ? [] : [`through ${describeGateway(w.networkGateway)}`]),
    ...(w.applicationTunnel === null ? [] : [`binding ${w.applicationTunnel.protocol}/${w.applicationTunnel.port}`]),
    `policies ${w.authorizationPolicies.join(" ")}`, ...waypoints(w.waypoints), `@${w.provenance.source}`,
  ].join(" | ");
}

function describeLocal(l: LocalWorkload): string {
  const { outboundPorts, inboundPorts, outboundCidrs, uids, cgroups } = l.exclusions;
  return [
    `local ${l.namespace}/${l.name}`, l.networkNamespace.kind === "host" ? "host" : l.networkNamespace.path, l.captured ? "captured" : "left alone",
    `inbound ${l.inboundCapture}`, `dns ${l.dnsCapture}`,
    `exclude out ${outboundPorts.join(" ")} in ${inboundPorts.join(" ")} to ${outboundCidrs.map(formatCidr).join(" ")} uids ${uids.map((r) => `${r.first}-${r.last}`).join(" ")} cgroups ${cgroups.join(" ")}`,
  ].join(" | ");
}

export function describePolicy(p: AuthorizationPolicy): string[] {
  return [
    `policy ${p.namespace}/${p.name} ${p.scope} ${p.action}${p.dryRun ? " dryRun" : ""} @${p.provenance.kind} ${p.provenance.source}`,
    ...p.rules.map((rule) => `  ${rule.fieldPath}: ${rule.clauses.length === 0 ? "always" : rule.clauses.map((clause) => clause.matches.map(describeMatch).join(" or ")).join(" AND ")}`),
  ];
}

const text = (m: StringMatch): string => (m.kind === "presence" ? "*" : m.kind === "prefix" ? `${m.value}*` : m.kind === "suffix" ? `*${m.value}` : m.value);

function describeMatch(m: PolicyMatch): string {
  const part = <T>(field: string, values: readonly T[], show: (value: T) => string): string[] => (values.length === 0 ? [] : [`${field}=${values.map(show).join(",")}`]);
  const account = (a: { namespace: string; serviceAccount: string }): string => `${a.namespace}/${a.serviceAccount}`;
  return `{${[
    ...part("namespaces", m.namespaces, text), ...part("notNamespaces", m.notNamespaces, text), ...part("serviceAccounts", m.serviceAccounts, account),
    ...part("notServiceAccounts", m.notServiceAccounts, account), ...part("principals", m.principals, text), ...part("notPrincipals", m.notPrincipals, text),
    ...part("sourceIps", m.sourceIps, formatCidr), ...part("notSourceIps", m.notSourceIps, formatCidr), ...part("destinationIps", m.destinationIps, formatCidr),
    ...part("notDestinationIps", m.notDestinationIps, formatCidr), ...part("destinationPorts", m.destinationPorts, String), ...part("notDestinationPorts", m.notDestinationPorts, String),
  ].join(" ")}}`;
}

function waypoints(all: readonly WeightedWaypoint[]): string[] {
  return all.map(({ gateway, weight }) => `waypoint ${describeGateway(gateway)} weight ${weight}`);
}

function describeGateway({ destination, hboneMtlsPort }: GatewayAddress): string {
  switch (destination.kind) {
    case "hostname": return `${destination.service}:${hboneMtlsPort}`;
    case "address": return formatSocketAddress({ ip: destination.ip, port: hboneMtlsPort });
    case "workload": return `${destination.uid}:${hboneMtlsPort}`;
    default: return destination satisfies never;
  }
}
