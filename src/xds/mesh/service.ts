// A service as a message of istio.workload, both ways.

import { create } from "@bufbuild/protobuf";
import { ipFromBytes, ipToBytes } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { parseSpiffeId } from "../../core/spiffe.ts";
import type { IpFamilies, LoadBalancingMode, LoadBalancingScope, Service, ServiceAddress, ServicePort } from "../../mesh/records.ts";
import { type Service as ServiceMessage, ServiceSchema } from "../../wire/protobuf/istio/workload/workload_pb.ts";
import { ServiceExtensionSchema } from "../../wire/protobuf/weft/mesh/v1/extensions_pb.ts";
import { findExtension, originOf, packExtension, provenanceOf } from "./extension.ts";
import { isPlainWaypoint, mainWaypoint, readWaypoints, writeGateway, writeWeighted } from "./gateway.ts";
import { Reading } from "./reading.ts";

const FAMILIES: readonly [IpFamilies, ...IpFamilies[]] = ["automatic", "ipv4", "ipv6", "dual"];
const MODES: readonly [LoadBalancingMode, ...LoadBalancingMode[]] = ["standard", "strict", "failover", "passthrough"];
const SCOPES: readonly ["unspecified", ...LoadBalancingScope[]] = ["unspecified", "region", "zone", "subzone", "node", "cluster", "network"];
/** By their number on the wire, as Kubernetes' appProtocol has them. */
const APP_PROTOCOLS = ["", "http", "http2", "grpc", "tcp", "tls"] as const;

export function writeService(s: Service): ServiceMessage {
  const main = mainWaypoint(s.waypoints);
  const { mode, scopes, allowUnhealthy } = s.loadBalancing;
  return create(ServiceSchema, {
    name: s.name, namespace: s.namespace, hostname: s.hostname,
    addresses: s.addresses.map(writeAddress),
    ports: s.ports.map(({ servicePort, targetPort, name, appProtocol }) => ({ servicePort, targetPort, appProtocol: protocolNumber(appProtocol, name) })),
    subjectAltNames: [...s.subjectAltNames],
    ...(main === null ? {} : { waypoint: writeGateway(main) }),
    weightedWaypoints: isPlainWaypoint(s.waypoints) ? [] : writeWeighted(s.waypoints),
    ...(mode === "standard" && scopes.length === 0 && !allowUnhealthy ? {} : {
      loadBalancing: { mode: MODES.indexOf(mode), routingPreference: scopes.map((scope) => SCOPES.indexOf(scope)), healthPolicy: allowUnhealthy ? 1 : 0 },
    }),
    ipFamilies: FAMILIES.indexOf(s.ipFamilies),
    canonical: s.canonical,
    visibility: s.visibility === "namespace" ? 1 : 0,
    extensions: [packExtension(ServiceExtensionSchema, {
      ports: s.ports.map(({ name, appProtocol }) => ({ name, appProtocol })), headless: s.headless, origin: originOf(s.provenance),
    })],
  });
}

function writeAddress({ network, cidr }: ServiceAddress): { network: string; address: Uint8Array; length?: number } {
  const single = cidr.prefixLength === cidr.bytes.length * 8;
  return { network, address: single ? ipToBytes(ipFromBytes(cidr.bytes)) : cidr.bytes, ...(single ? {} : { length: cidr.prefixLength }) };
}

/** For whoever does not read our extension. Unknown is 0: it is then looked at the bytes. */
function protocolNumber(appProtocol: string, portName: string): number {
  const name = (appProtocol === "" ? portName.split("-")[0]! : appProtocol).toLowerCase();
  if (name === "https") return 5;
  if (name === "kubernetes.io/h2c") return 2;
  if (name === "grpc-web") return 1;
  return name === "" ? 0 : Math.max(0, APP_PROTOCOLS.findIndex((known) => known === name));
}

/** @param version of the resource. The error says what is wrong with it, every problem. */
export function readService(message: ServiceMessage, version: string): Result<Service, string> {
  const reading = new Reading();
  const extension = findExtension(ServiceExtensionSchema, message.extensions, reading);
  if (message.hostname === "" || message.hostname.includes("/")) reading.problem("hostname", `found ${JSON.stringify(message.hostname.slice(0, 300))}, wanted a host name`);
  const balancing = message.loadBalancing;
  const service: Service = {
    name: message.name,
    namespace: reading.segment("namespace", message.namespace),
    hostname: message.hostname,
    addresses: message.addresses.map(({ network, address, length }, i): ServiceAddress => ({ network, cidr: reading.cidr(`addresses[${i}]`, address, length ?? null) })),
    ports: message.ports.map(({ servicePort, targetPort, appProtocol }, i): ServicePort => ({
      servicePort: reading.port(`ports[${i}].service_port`, servicePort, 1),
      targetPort: reading.port(`ports[${i}].target_port`, targetPort, 0),
      name: extension?.ports[i]?.name ?? "",
      // A protocol that is not known is looked at the bytes, as none is.
      appProtocol: extension?.ports[i]?.appProtocol ?? APP_PROTOCOLS[appProtocol] ?? "",
    })),
    subjectAltNames: message.subjectAltNames.map((text, i) => {
      const id = parseSpiffeId(text);
      if (id === null) reading.problem(`subject_alt_names[${i}]`, `found ${JSON.stringify(text.slice(0, 300))}, wanted spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`);
      return id?.id;
    }).filter((id) => id !== undefined),
    waypoints: readWaypoints(message.waypoint, message.weightedWaypoints, reading),
    loadBalancing: {
      mode: reading.enumeration("load_balancing.mode", balancing?.mode ?? 0, MODES),
      scopes: (balancing?.routingPreference ?? []).map((scope, i) => readScope(`load_balancing.routing_preference[${i}]`, scope, reading)),
      allowUnhealthy: reading.enumeration("load_balancing.health_policy", balancing?.healthPolicy ?? 0, ["onlyHealthy", "all"]) === "all",
    },
    ipFamilies: reading.enumeration("ip_families", message.ipFamilies, FAMILIES),
    canonical: message.canonical,
    // A value that is not known is public, as in the reference.
    visibility: message.visibility === 1 ? "namespace" : "public",
    headless: extension?.headless ?? (message.canonical && message.addresses.length === 0),
    provenance: provenanceOf(extension?.origin, { kind: message.canonical ? "Service" : "ServiceEntry", namespace: message.namespace, name: message.name, fieldPath: "" }, version),
  };
  return reading.problems === null ? ok(service) : err(reading.problems);
}

function readScope(field: string, value: number, reading: Reading): LoadBalancingScope {
  const scope = reading.enumeration(field, value, SCOPES);
  if (scope !== "unspecified") return scope;
  if (value === 0) reading.problem(field, "found 0 (unspecified), wanted a scope");
  return "network";
}
