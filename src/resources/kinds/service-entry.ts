// networking.istio.io ServiceEntry: a service that no Kubernetes Service describes, inside the mesh or out of it.

import { z } from "zod";
import { parseCidr, parseIp } from "../../core/ip.ts";
import { parseSpiffeId } from "../../core/spiffe.ts";
import { collectable } from "../collectable.ts";
import { show } from "../diagnostic.ts";
import { EGRESS_PRIVATE_ADDRESSES } from "../annotations.ts";
import { isWildcardHost } from "../http-values.ts";
import { HOSTS_PER_RESOURCE_MAX, LIST_MAX } from "../limits.ts";
import { dnsSubdomain, ipBlock, isDnsSubdomain, labelMap, port } from "../object-meta.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";
import { checkCanaryWeight, checkUseWaypoint } from "./namespace.ts";

/** In which every request, or connection, says which host it is for. */
const NAMING_PROTOCOLS = ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS"];
const PROTOCOLS = ["HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS", "HTTP_PROXY", "MYSQL", "REDIS", "UDP"];

const schemas = collectable(() => {
  const endpointAddress = z.string().refine((text) => parseIp(text) !== null || isDnsSubdomain(text), { error: "expected an IPv4 or IPv6 address, or a DNS name (sockets such as unix:///path are not supported)" });
  const endpoint = z.strictObject({
    address: endpointAddress.optional(), ports: z.record(z.string().min(1).max(63), port).optional(), labels: labelMap.nullish(), network: z.string().regex(/^[A-Za-z0-9_.-]*$/, { error: "expected a network name" }).max(253).optional(),
    locality: z.string().regex(/^([A-Za-z0-9_.-]+(\/[A-Za-z0-9_.-]+){0,2})?$/, { error: "expected REGION, REGION/ZONE or REGION/ZONE/SUBZONE" }).optional(), weight: z.int().min(0).max(0xffffffff).optional(), serviceAccount: dnsSubdomain.or(z.literal("")).optional(),
  });
  const entryPort = z.strictObject({
    number: port, name: z.string().min(1).max(256), targetPort: port.optional(),
    protocol: z.string().max(256).refine((text) => PROTOCOLS.includes(text.toUpperCase()), { error: `expected one of ${PROTOCOLS.join(", ")}` }).optional(),
  });
  const spec = z.strictObject({
    hosts: z.array(z.string().refine((text) => isWildcardHost(text), { error: "expected a host name in lower case, or *. and one" })).min(1).max(HOSTS_PER_RESOURCE_MAX),
    addresses: z.array(ipBlock).max(256).optional(),
    ports: z.array(entryPort).max(256).optional(),
    location: z.enum(["MESH_EXTERNAL", "MESH_INTERNAL"]).optional(),
    resolution: z.enum(["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]).optional(),
    endpoints: z.array(endpoint).max(4096).optional(),
    workloadSelector: z.strictObject({ labels: labelMap.optional() }).optional(),
    exportTo: z.array(z.string().min(1).max(63)).max(LIST_MAX).optional(),
    subjectAltNames: z.array(z.string().min(1).max(2048)).max(LIST_MAX).optional(),
  });
  return { endpoint, entryPort, spec };
});
export type ServiceEntryEndpoint = z.output<ReturnType<typeof schemas>["endpoint"]>;
export type ServiceEntryPort = z.output<ReturnType<typeof schemas>["entryPort"]>;

export const serviceEntryKind = defineKind({
  kind: "ServiceEntry",
  group: "networking.istio.io",
  versions: ["v1", "v1beta1", "v1alpha3"],
  namespaced: true,
  spec: () => schemas().spec,
  check(entry, report) {
    const { spec } = entry;
    const resolution = spec.resolution ?? "NONE";
    checkUseWaypoint(entry.labels, ["metadata", "labels"], report);
    checkCanaryWeight(entry.annotations, report);
    const hasEndpoints = (spec.endpoints?.length ?? 0) > 0;
    if (hasEndpoints && spec.workloadSelector !== undefined) report("error", "conflict", ["spec", "workloadSelector"], "found it beside endpoints, expected one of them");
    if (resolution === "NONE" && (hasEndpoints || spec.workloadSelector !== undefined)) report("error", "conflict", ["spec", hasEndpoints ? "endpoints" : "workloadSelector"], "found it with resolution NONE, which sends to the address that was asked for");
    if (resolution === "DYNAMIC_DNS") checkDynamic(entry, report);
    const allowed = entry.annotations[EGRESS_PRIVATE_ADDRESSES];
    if (allowed !== undefined && allowed !== "true" && allowed !== "false") report("error", "bad_value", ["metadata", "annotations", EGRESS_PRIVATE_ADDRESSES], `found ${show(allowed)}, expected "true" or "false"`);
    if (allowed !== undefined && resolution !== "DYNAMIC_DNS") report("warning", "not_enforced", ["metadata", "annotations", EGRESS_PRIVATE_ADDRESSES], `found it with resolution ${resolution}, where it means nothing`);
    if ((spec.ports?.length ?? 0) === 0) report("error", "missing_field", ["spec", "ports"], "found no port, expected at least one");
    const isDns = resolution === "DNS" || resolution === "DNS_ROUND_ROBIN";
    spec.hosts.forEach((host, index) => {
      if (isDns && host.startsWith("*") && !hasEndpoints) report("error", "conflict", ["spec", "hosts", index], `found the wildcard ${show(host)} with resolution ${resolution} and no endpoints: no name to resolve`);
      if (spec.hosts.indexOf(host) !== index) report("error", "conflict", ["spec", "hosts", index], `found ${show(host)} twice`);
    });
    (spec.addresses ?? []).forEach((text, index) => {
      const cidr = parseCidr(text)!;
      if (isDns && cidr.prefixLength !== cidr.bytes.length * 8) report("error", "conflict", ["spec", "addresses", index], `found the range ${show(text)} with resolution ${resolution}, expected single addresses`);
    });
    (spec.endpoints ?? []).forEach(({ address = "" }, index) => {
      const at = ["spec", "endpoints", index, "address"];
      if (address === "") report("error", "missing_field", at, "found no address, expected an IP address or a DNS name");
      else if (resolution === "STATIC" && parseIp(address) === null) report("error", "conflict", at, `found the name ${show(address)} with resolution STATIC, expected an IP address`);
    });
    const [numbers, names] = [new Set<number>(), new Set<string>()];
    (spec.ports ?? []).forEach((one, index) => {
      if (numbers.has(one.number)) report("error", "conflict", ["spec", "ports", index, "number"], `found the port ${one.number} twice`);
      if (names.has(one.name)) report("error", "conflict", ["spec", "ports", index, "name"], `found the port name ${show(one.name)} twice`);
      numbers.add(one.number);
      names.add(one.name);
      if (one.protocol?.toUpperCase() === "UDP") report("info", "not_supported", ["spec", "ports", index, "protocol"], "found UDP: the mesh carries TCP; this port is left to the network");
    });
    (spec.subjectAltNames ?? []).forEach((name, index) => {
      if (parseSpiffeId(name) === null) report("warning", "not_enforced", ["spec", "subjectAltNames", index], `found ${show(name)}: identities of the mesh are SPIFFE IDs; this name is not accepted from any endpoint`);
    });
  },
});

/** The names come with the requests: what they are asked of has to say one, and may be no other than the waypoint's to resolve. */
function checkDynamic({ spec }: { readonly spec: z.output<ReturnType<typeof schemas>["spec"]> }, report: Report): void {
  spec.hosts.forEach((host, index) => {
    if (!host.startsWith("*.")) report("error", "conflict", ["spec", "hosts", index], `found ${show(host)} with resolution DYNAMIC_DNS, expected a wildcard such as *.example.com; a host that is named has resolution DNS`);
  });
  for (const field of ["endpoints", "workloadSelector"] as const) {
    if (spec[field] !== undefined) report("error", "conflict", ["spec", field], "found it with resolution DYNAMIC_DNS, which goes where the name of the request leads");
  }
  (spec.ports ?? []).forEach(({ protocol = "" }, index) => {
    if (!NAMING_PROTOCOLS.includes(protocol.toUpperCase())) report("error", "conflict", ["spec", "ports", index, "protocol"], `found ${protocol === "" ? "none" : protocol} with resolution DYNAMIC_DNS, expected one whose clients say a name: ${NAMING_PROTOCOLS.join(", ")}`);
  });
}

export type ServiceEntryResource = ResourceOfKind<typeof serviceEntryKind>;

export interface EntryHost {
  readonly hostname: string;
  /** It has no address of its own and needs one, so that its traffic can be told from that of others. */
  readonly choosesAddress: boolean;
}

export function entryHosts({ spec }: ServiceEntryResource): EntryHost[] {
  const chooses = (spec.addresses?.length ?? 0) === 0 && (spec.resolution ?? "NONE") !== "NONE";
  return spec.hosts.map((hostname) => ({ hostname, choosesAddress: chooses && (spec.resolution === "DYNAMIC_DNS" || !hostname.startsWith("*")) }));
}
