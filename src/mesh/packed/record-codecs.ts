// How workloads, services and policies are packed: first what they are named and found by, which a table of them reads without the rest.

import { namespacedName, type NamespacedName, type WorkloadUid } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { Cidr, IpAddress } from "../../core/ip.ts";
import type { SpiffeId, TrustDomain } from "../../core/spiffe.ts";
import type {
  ApplicationTunnel, AuthorizationPolicy, GatewayAddress, GatewayDestination, LoadBalancing, Locality, PolicyClause, PolicyMatch, PolicyRule, PortMapping, Service, ServiceAccountMatch, ServiceAddress,
  ServiceMembership, ServicePort, StringMatch, WeightedWaypoint, Workload,
} from "../records.ts";
import type { PackReader, PackWriter } from "./bytes.ts";
import { bytes, type Codec, type Fields, flag, list, nullable, oneOf, struct, text, uint, variants } from "./codec.ts";

/** A source that is not known is left out, as in the record. */
const provenance: Codec<Provenance> = {
  write: (to: PackWriter, { kind, namespace, name, resourceVersion, fieldPath, source }) => {
    to.text(kind);
    to.text(namespace);
    to.text(name);
    to.text(resourceVersion);
    to.text(fieldPath);
    optionalText.write(to, source ?? null);
  },
  read: (from: PackReader) => {
    const known = { kind: from.text(), namespace: from.text(), name: from.text(), resourceVersion: from.text(), fieldPath: from.text() };
    const source = optionalText.read(from);
    return source === null ? known : { ...known, source };
  },
};
const optionalText = nullable(text());

const name = text<NamespacedName>();
const locality = struct<Locality>({ region: text(), zone: text(), subzone: text() });
const ports = list(struct<PortMapping>({ servicePort: uint, targetPort: uint }));
const cidr: Codec<Cidr> = {
  write: (to: PackWriter, value) => {
    bytes.write(to, value.bytes);
    to.uint(value.prefixLength);
  },
  read: (from: PackReader) => {
    const address = bytes.read(from);
    return { family: address.length === 4 ? 4 : 6, bytes: address, prefixLength: from.uint() };
  },
};

const gateway = struct<GatewayAddress>({
  destination: variants<GatewayDestination>({
    hostname: struct({ kind: oneOf("hostname"), service: name }), address: struct({ kind: oneOf("address"), network: text(), ip: text<IpAddress>() }),
    workload: struct({ kind: oneOf("workload"), uid: text<WorkloadUid>() }),
  }),
  hboneMtlsPort: uint,
});
const waypoints = list(struct<WeightedWaypoint>({ gateway, weight: uint }));

/** How records of one kind are packed. */
export interface RecordShape<K extends string, T extends I, I> {
  readonly whole: Codec<T>;
  /** What they are found by: how each begins. */
  readonly found: Codec<I>;
  readonly keyOf: (record: I) => K;
  /** The key alone, of what stands at the very beginning. */
  readonly readKey: (from: PackReader) => K;
}

export type FoundWorkload = Pick<Workload, "uid" | "network" | "addresses" | "hostNetwork" | "services">;
export type FoundService = Pick<Service, "namespace" | "hostname" | "addresses">;
export type FoundPolicy = Pick<AuthorizationPolicy, "namespace" | "name" | "scope">;

/** A namespace and a name, one after the other. */
const readNamespacedName = (from: PackReader): NamespacedName => namespacedName(from.text(), from.text());

const foundWorkload: Fields<FoundWorkload> = { uid: text<WorkloadUid>(), network: text(), addresses: list(text<IpAddress>()), hostNetwork: flag, services: list(struct<ServiceMembership>({ service: name, ports })) };

/** In the order in which they are numbered. */
export const WORKLOAD_TYPES = ["pod", "deployment", "job", "cronjob"] as const;

export const workloadShape: RecordShape<WorkloadUid, Workload, FoundWorkload> = {
  found: struct(foundWorkload),
  whole: struct<Workload>({
    ...foundWorkload,
    name: text(), namespace: text(), clusterId: text(), trustDomain: text<TrustDomain>(), serviceAccount: text(), node: text(),
    hostname: text(), tunnelProtocol: oneOf("TCP", "HBONE"), nativeTunnel: flag, canonicalName: text(), canonicalRevision: text(),
    workloadType: oneOf(...WORKLOAD_TYPES), workloadName: text(), app: text(), version: text(), locality, status: oneOf("healthy", "unhealthy"), capacity: uint,
    authorizationPolicies: list(name), waypoints, networkGateway: nullable(gateway),
    applicationTunnel: nullable(struct<ApplicationTunnel>({ protocol: oneOf("NONE", "PROXY"), port: uint })), provenance,
  }),
  keyOf: ({ uid }) => uid,
  readKey: (from) => text<WorkloadUid>().read(from),
};

const foundService: Fields<FoundService> = { namespace: text(), hostname: text(), addresses: list(struct<ServiceAddress>({ network: text(), cidr })) };

export const serviceShape: RecordShape<NamespacedName, Service, FoundService> = {
  found: struct(foundService),
  whole: struct<Service>({
    ...foundService,
    name: text(),
    ports: list(struct<ServicePort>({ servicePort: uint, targetPort: uint, name: text(), appProtocol: text() })), subjectAltNames: list(text<SpiffeId>()), waypoints,
    loadBalancing: struct<LoadBalancing>({
      mode: oneOf("standard", "strict", "failover", "passthrough"), scopes: list(oneOf("region", "zone", "subzone", "node", "cluster", "network")), allowUnhealthy: flag,
    }),
    ipFamilies: oneOf("automatic", "ipv4", "ipv6", "dual"), canonical: flag, visibility: oneOf("public", "namespace"), headless: flag, provenance,
  }),
  keyOf: ({ namespace, hostname }) => namespacedName(namespace, hostname),
  readKey: readNamespacedName,
};

const strings = list(variants<StringMatch>({
  exact: struct({ kind: oneOf("exact"), value: text() }), prefix: struct({ kind: oneOf("prefix"), value: text() }), suffix: struct({ kind: oneOf("suffix"), value: text() }),
  presence: struct({ kind: oneOf("presence") }),
}));
const accounts = list(struct<ServiceAccountMatch>({ namespace: text(), serviceAccount: text() }));
const cidrs = list(cidr);
const numbers = list(uint);

const match = struct<PolicyMatch>({
  namespaces: strings, notNamespaces: strings, serviceAccounts: accounts, notServiceAccounts: accounts, principals: strings, notPrincipals: strings, sourceIps: cidrs, notSourceIps: cidrs,
  destinationIps: cidrs, notDestinationIps: cidrs, destinationPorts: numbers, notDestinationPorts: numbers,
});

const foundPolicy: Fields<FoundPolicy> = { namespace: text(), name: text(), scope: oneOf("global", "namespace", "workload") };

export const policyShape: RecordShape<NamespacedName, AuthorizationPolicy, FoundPolicy> = {
  found: struct(foundPolicy),
  whole: struct<AuthorizationPolicy>({
    ...foundPolicy,
    action: oneOf("allow", "deny"), dryRun: flag, rules: list(struct<PolicyRule>({ clauses: list(struct<PolicyClause>({ matches: list(match) })), fieldPath: text() })), provenance,
  }),
  keyOf: ({ namespace, name: own }) => namespacedName(namespace, own),
  readKey: readNamespacedName,
};
