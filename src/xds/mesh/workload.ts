// A workload as a message of istio.workload, both ways.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { parseWorkloadUid, type WorkloadUid } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import { ipToBytes } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { parseTrustDomain, type TrustDomain } from "../../core/spiffe.ts";
import type { ServiceMembership, Workload } from "../../mesh/records.ts";
import { type Workload as WorkloadMessage, WorkloadSchema } from "../../wire/protobuf/istio/workload/workload_pb.ts";
import { WorkloadExtensionSchema } from "../../wire/protobuf/weft/mesh/v1/extensions_pb.ts";
import { findExtension, originOf, packExtension, provenanceOf } from "./extension.ts";
import { isPlainWaypoint, mainWaypoint, readGateway, readWaypoints, writeGateway, writeWeighted } from "./gateway.ts";
import { Reading } from "./reading.ts";

/** What an empty field means: istiod leaves these values out. */
export const DEFAULTS = { trustDomain: "cluster.local" as TrustDomain, serviceAccount: "default", clusterId: "Kubernetes" } as const;
/** By number on the wire. */
export const WORKLOAD_TYPES = ["deployment", "cronjob", "pod", "job"] as const;

export function writeWorkload(w: Workload): WorkloadMessage {
  const main = mainWaypoint(w.waypoints);
  const extension = extensionOf(w);
  return create(WorkloadSchema, {
    uid: w.uid, name: w.name, namespace: w.namespace, addresses: w.addresses.map(ipToBytes), hostname: w.hostname, network: w.network,
    tunnelProtocol: w.tunnelProtocol === "HBONE" ? 1 : 0,
    trustDomain: w.trustDomain === DEFAULTS.trustDomain ? "" : w.trustDomain,
    serviceAccount: w.serviceAccount === DEFAULTS.serviceAccount ? "" : w.serviceAccount,
    clusterId: w.clusterId === DEFAULTS.clusterId ? "" : w.clusterId,
    ...(main === null ? {} : { waypoint: writeGateway(main) }),
    ...(w.networkGateway === null ? {} : { networkGateway: writeGateway(w.networkGateway) }),
    node: w.node, canonicalName: w.canonicalName, canonicalRevision: w.canonicalRevision, workloadType: WORKLOAD_TYPES.indexOf(w.workloadType), workloadName: w.workloadName,
    nativeTunnel: w.nativeTunnel,
    ...(w.applicationTunnel === null ? {} : { applicationTunnel: { protocol: w.applicationTunnel.protocol === "PROXY" ? 1 : 0, port: w.applicationTunnel.port } }),
    services: writeMemberships(w.services),
    authorizationPolicies: [...w.authorizationPolicies],
    status: w.status === "healthy" ? 0 : 1,
    ...(w.locality.region === "" && w.locality.zone === "" && w.locality.subzone === "" ? {} : { locality: { ...w.locality } }),
    networkMode: w.hostNetwork ? 1 : 0,
    ...(w.capacity === 1 ? {} : { capacity: w.capacity }),
    extensions: extension === null ? [] : [packExtension(WorkloadExtensionSchema, extension)],
  });
}

/** In the order of their names, so that equal workloads are equal bytes. Of a service named twice the first membership counts. */
function writeMemberships(services: readonly ServiceMembership[]): Record<string, { ports: { servicePort: number; targetPort: number }[] }> {
  const byName = new Map<string, ServiceMembership>();
  for (const membership of services) if (!byName.has(membership.service)) byName.set(membership.service, membership);
  return Object.fromEntries([...byName].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, { ports }]) => [name, { ports: ports.map((port) => ({ ...port })) }]));
}

function extensionOf(w: Workload): MessageInitShape<typeof WorkloadExtensionSchema> | null {
  const implied = impliedProvenance(w.uid, w.namespace, w.name);
  const { kind, namespace, name, fieldPath } = w.provenance;
  const usualOrigin = kind === implied.kind && namespace === implied.namespace && name === implied.name && fieldPath === implied.fieldPath;
  if (w.app === w.canonicalName && w.version === w.canonicalRevision && isPlainWaypoint(w.waypoints) && usualOrigin) return null;
  return {
    ...(w.app === w.canonicalName ? {} : { app: w.app }),
    ...(w.version === w.canonicalRevision ? {} : { version: w.version }),
    waypoints: isPlainWaypoint(w.waypoints) ? [] : writeWeighted(w.waypoints),
    ...(usualOrigin ? {} : { origin: originOf(w.provenance) }),
  };
}

/** @param version of the resource. The error says what is wrong with it, every problem. */
export function readWorkload(message: WorkloadMessage, version: string): Result<Workload, string> {
  const reading = new Reading();
  const extension = findExtension(WorkloadExtensionSchema, message.extensions, reading);
  const uid = parseWorkloadUid(message.uid);
  if (uid === null) reading.problem("uid", `found ${JSON.stringify(message.uid.slice(0, 100))}, wanted printable characters without spaces`);
  const trustDomain = message.trustDomain === "" ? DEFAULTS.trustDomain : parseTrustDomain(message.trustDomain);
  if (trustDomain === null) reading.problem("trust_domain", `found ${JSON.stringify(message.trustDomain.slice(0, 100))}, wanted a trust domain`);
  if (message.name === "") reading.problem("name", "it is missing");
  const workload: Workload = {
    uid: uid ?? ("" as WorkloadUid),
    name: message.name,
    namespace: reading.segment("namespace", message.namespace),
    clusterId: message.clusterId === "" ? DEFAULTS.clusterId : message.clusterId,
    trustDomain: trustDomain ?? DEFAULTS.trustDomain,
    serviceAccount: reading.segment("service_account", message.serviceAccount === "" ? DEFAULTS.serviceAccount : message.serviceAccount),
    network: message.network,
    node: message.node,
    addresses: message.addresses.map((bytes, i) => reading.address(`addresses[${i}]`, bytes)),
    hostname: message.hostname,
    tunnelProtocol: reading.enumeration("tunnel_protocol", message.tunnelProtocol, ["TCP", "HBONE"]),
    nativeTunnel: message.nativeTunnel,
    hostNetwork: reading.enumeration("network_mode", message.networkMode, ["standard", "host"]) === "host",
    canonicalName: message.canonicalName,
    canonicalRevision: message.canonicalRevision,
    workloadType: reading.enumeration("workload_type", message.workloadType, WORKLOAD_TYPES),
    workloadName: message.workloadName,
    app: extension?.app ?? message.canonicalName,
    version: extension?.version ?? message.canonicalRevision,
    locality: { region: message.locality?.region ?? "", zone: message.locality?.zone ?? "", subzone: message.locality?.subzone ?? "" },
    status: reading.enumeration("status", message.status, ["healthy", "unhealthy"]),
    capacity: message.capacity ?? 1,
    services: Object.entries(message.services).map(([name, { ports }]): ServiceMembership => ({
      service: reading.namespacedName("services", name),
      ports: ports.map(({ servicePort, targetPort }) => ({ servicePort: reading.port(`services[${name}].service_port`, servicePort, 1), targetPort: reading.port(`services[${name}].target_port`, targetPort, 0) })),
    })),
    authorizationPolicies: message.authorizationPolicies.map((name, i) => reading.namespacedName(`authorization_policies[${i}]`, name)),
    waypoints: readWaypoints(message.waypoint, extension?.waypoints ?? [], reading),
    networkGateway: message.networkGateway === undefined ? null : readGateway("network_gateway", message.networkGateway, reading),
    applicationTunnel: message.applicationTunnel === undefined ? null : {
      protocol: reading.enumeration("application_tunnel.protocol", message.applicationTunnel.protocol, ["NONE", "PROXY"]),
      port: reading.port("application_tunnel.port", message.applicationTunnel.port, 0),
    },
    provenance: provenanceOf(extension?.origin, impliedProvenance(message.uid, message.namespace, message.name), version),
  };
  return reading.problems === null ? ok(workload) : err(reading.problems);
}

/** A uid reads CLUSTER/GROUP/KIND/NAMESPACE/NAME, and after that what tells endpoints of one object apart. */
function impliedProvenance(uid: string, namespace: string, name: string): Omit<Provenance, "resourceVersion"> {
  const [, , kind, ofNamespace, ofName] = uid.split("/");
  return { kind: kind === undefined || kind === "" ? "Workload" : kind, namespace: ofNamespace ?? namespace, name: ofName ?? name, fieldPath: "" };
}
