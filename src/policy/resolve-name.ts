// Which DNS questions of a workload the mesh answers, and with what. Pure. Only what the mesh owns is answered: addresses of
// services that the client may see, and SRV records of Kubernetes services. Everything else is the upstream resolver's.
//
//   question   web.shop                        asked by a workload of namespace "pay", cluster domain cluster.local
//     as it is      web.shop                                    a service of exactly this hostname?
//     expanded      web.shop.pay.svc.cluster.local              the search domains, as the client's resolver would try them
//                   web.shop.svc.cluster.local                  found: answered under the name asked for
//     searched      (api.example.pay.svc.cluster.local)         ends in a search domain: what would the client try next?
//                    api.example                                found: CNAME, which saves the client the other tries
//     wildcards     *.shop                                      answered under the name asked for

import { namespacedName } from "../core/brand.ts";
import { type IpAddress, ipFromBytes, isIpv6 } from "../core/ip.ts";
import type { Random } from "../core/ports.ts";
import type { Service, Workload } from "../mesh/records.ts";
import { type Endpoint, type MeshStore, preferredService } from "../mesh/store.ts";
import { addressRecord, cnameRecord, type Question, type ResourceRecord, srvRecord } from "../wire/dns/message.ts";
import { encodeName, labelsOf, LABEL_BYTES_MAX, lowerName } from "../wire/dns/name.ts";
import { RecordClass, RecordType } from "../wire/dns/types.ts";

/** Seconds a client may keep an answer: how long it may go on using an address that left. */
export const ANSWER_TTL_S = 30;
/** Names of more labels are complete: `pod.service.namespace.svc` is the longest that a search domain completes. */
export const EXPANDED_LABELS_MAX = 4;
/** Records in one answer; of a larger headless service a random choice. 1000 IPv6 addresses are 28 kB, within one TCP message. */
export const ANSWER_RECORDS_MAX = 1000;
/** All targets of one answer are equal: the client spreads its load by weight (RFC 2782). */
const SRV_WEIGHT = 100;

/** The client, and what its resolver would do. */
export interface NameClient {
  readonly namespace: string;
  readonly network: string;
  /** In lower case, in the order its resolver tries them. */
  readonly searchDomains: readonly string[];
}

export interface NameScope {
  readonly store: MeshStore;
  readonly client: NameClient;
  /** e.g. `cluster.local`, in lower case. */
  readonly clusterDomain: string;
  /** False: no IPv6 addresses are given out. */
  readonly ipv6: boolean;
  readonly random: Random;
}

export type NameAnswer =
  | {
      readonly kind: "answer";
      /** In order: the CNAME first, if there is one. */
      readonly records: readonly ResourceRecord[];
      /** Addresses of SRV targets. */
      readonly additionals: readonly ResourceRecord[];
      /** Name that the addresses stand under. */
      readonly ownerName: string;
      /** Target of the CNAME, when the name asked for is an alias. */
      readonly cname: string | null;
      readonly service: Service;
    }
  /** The name is ours and has no such record: NOERROR without an answer. */
  | { readonly kind: "nodata"; readonly service: Service }
  /**
   * The upstream resolver's to answer. With `known` the name is ours and only the type is not: an NXDOMAIN from upstream would
   * deny the whole name (RFC 8020), so it must reach the client as NOERROR.
   */
  | { readonly kind: "forward"; readonly known: boolean };

const FORWARD: NameAnswer = { kind: "forward", known: false };
const FORWARD_KNOWN: NameAnswer = { kind: "forward", known: true };

/** The search domains of a pod whose resolv.conf cannot be read: what Kubernetes writes by default. */
export function assumedSearchDomains(namespace: string, clusterDomain: string): string[] {
  return [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain];
}

/**
 * @param ownSearch the search domains of the client's own resolv.conf; null when it cannot be read. A list that says nothing of
 *   the cluster (a virtual machine's, a pod with the node's settings) is tried first, and completed by the assumed one.
 */
export function nameClient(workload: Workload, clusterDomain: string, ownSearch: readonly string[] | null): NameClient {
  const own = ownSearch ?? [];
  const ofCluster = own.some((domain) => domain === clusterDomain || domain.endsWith(`.${clusterDomain}`));
  const searchDomains = ofCluster ? own : [...own, ...assumedSearchDomains(workload.namespace, clusterDomain)];
  return { namespace: workload.namespace, network: workload.network, searchDomains };
}

export function resolveName(scope: NameScope, question: Question): NameAnswer {
  if (question.class !== RecordClass.IN || question.name === "") return FORWARD;
  if (question.type === RecordType.SRV) return answerSrv(scope, question.name);
  const found = findName(scope, lowerName(question.name));
  if (found === null) return FORWARD;
  if (question.type !== RecordType.A && question.type !== RecordType.AAAA) return FORWARD_KNOWN;
  const addresses = addressesOf(scope, found);
  if (addresses.length === 0 && !isClusterName(scope, found.service.hostname)) return FORWARD;
  const wanted = addresses.filter((ip) => isIpv6(ip) === (question.type === RecordType.AAAA) && familyServed(scope, found.service, ip));
  if (wanted.length === 0) return { kind: "nodata", service: found.service };
  const ownerName = found.alias ?? question.name;
  const records = shuffled(wanted, scope.random).slice(0, ANSWER_RECORDS_MAX).map((ip) => addressRecord(ownerName, ip, ANSWER_TTL_S));
  if (found.alias !== null) records.unshift(cnameRecord(question.name, found.alias, ANSWER_TTL_S));
  return { kind: "answer", records, additionals: [], ownerName, cname: found.alias, service: found.service };
}

// Names

/** What a name stands for: a service, or one endpoint of a headless one. */
interface FoundName {
  readonly service: Service;
  readonly endpoint: Endpoint | null;
  /** Complete name, when the client should know that it asked for an alias of it. */
  readonly alias: string | null;
}

/** @param name in lower case. */
function findName(scope: NameScope, name: string): FoundName | null {
  const { searchDomains } = scope.client;
  const itself = exactName(scope, name, null) ?? expandedName(scope, name, searchDomains, false);
  if (itself !== null) return itself;
  const stems = stemsOf(name, searchDomains);
  for (const { stem, domainsLeft } of stems) {
    const found = expandedName(scope, stem, domainsLeft, true) ?? exactName(scope, stem, stem);
    if (found !== null) return found;
  }
  return wildcardName(scope, name) ?? firstOf(stems, ({ stem }) => wildcardName(scope, stem));
}

/** The name completed by each of the search domains in turn. */
function expandedName(scope: NameScope, name: string, domains: readonly string[], aliased: boolean): FoundName | null {
  if (labelsOf(name).length > EXPANDED_LABELS_MAX) return null;
  return firstOf(domains, (domain) => {
    const complete = `${name}.${domain}`;
    return exactName(scope, complete, aliased ? complete : null);
  });
}

/** A name that the client's resolver completed already: what it completed, and the search domains it has yet to try. */
function stemsOf(name: string, searchDomains: readonly string[]): { stem: string; domainsLeft: readonly string[] }[] {
  return searchDomains.flatMap((domain, i) =>
    name.endsWith(`.${domain}`) ? [{ stem: name.slice(0, -domain.length - 1), domainsLeft: searchDomains.slice(i + 1) }] : [],
  );
}

function exactName(scope: NameScope, name: string, alias: string | null): FoundName | null {
  if (alias !== null && encodeName(alias) === null) return null;
  const service = visibleService(scope, name);
  if (service !== undefined) return { service, endpoint: null, alias };
  const dot = name.indexOf(".");
  const headless = dot < 0 ? undefined : visibleService(scope, name.slice(dot + 1));
  if (headless === undefined || !headless.headless) return null;
  const endpoint = endpointsOf(scope, headless).find((candidate) => endpointHasName(candidate, name.slice(0, dot)));
  return endpoint === undefined ? null : { service: headless, endpoint, alias };
}

/** `*.shop.example` for `a.b.shop.example`: the longest suffix that a visible service claims. */
function wildcardName(scope: NameScope, name: string): FoundName | null {
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
    const service = visibleService(scope, `*${name.slice(dot)}`);
    if (service !== undefined) return { service, endpoint: null, alias: null };
  }
  return null;
}

function visibleService(scope: NameScope, hostname: string): Service | undefined {
  return preferredService(scope.store.servicesByHostname(hostname), scope.client.namespace);
}

/** Kubernetes' own names; every other hostname is somebody's name in the real DNS too. */
function isClusterName(scope: NameScope, hostname: string): boolean {
  return lowerName(hostname).endsWith(`.svc.${scope.clusterDomain}`);
}

// Addresses

/** Those the client can reach: on its own network. Of both families, whatever is served. */
function addressesOf(scope: NameScope, { service, endpoint }: FoundName): IpAddress[] {
  const addresses = endpoint !== null
    ? endpoint.workload.addresses
    : service.headless
      ? endpointsOf(scope, service).flatMap((member) => member.workload.addresses)
      : virtualAddresses(service, scope.client.network);
  return [...new Set(addresses)];
}

/** A CIDR is no address to give out. */
function virtualAddresses(service: Service, network: string): IpAddress[] {
  return service.addresses
    .filter((address) => address.network === network && address.cidr.prefixLength === address.cidr.bytes.length * 8)
    .map(({ cidr }) => ipFromBytes(cidr.bytes));
}

function familyServed(scope: NameScope, service: Service, ip: IpAddress): boolean {
  return isIpv6(ip) ? scope.ipv6 && service.ipFamilies !== "ipv4" : service.ipFamilies !== "ipv6";
}

/** Endpoints on the client's network that take traffic. */
function endpointsOf(scope: NameScope, service: Service): Endpoint[] {
  return scope.store.endpoints(namespacedName(service.namespace, service.hostname))
    .filter(({ workload }) => workload.network === scope.client.network && (workload.status === "healthy" || service.loadBalancing.allowUnhealthy));
}

function endpointHasName({ workload }: Endpoint, label: string): boolean {
  return lowerName(workload.name) === label || workload.addresses.some((ip) => dashed(ip) === label);
}

/** The first label of an endpoint's own name: the workload's name where it can be a label, else its address with dashes. */
function endpointLabel({ workload }: Endpoint): string | null {
  if (/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(workload.name) && workload.name.length <= LABEL_BYTES_MAX) return workload.name;
  const [ip] = workload.addresses;
  return ip === undefined ? null : dashed(ip);
}

/** As Kubernetes writes it: `198-18-0-1`, `2001-db8--1`. */
function dashed(ip: IpAddress): string {
  return ip.replace(/[.:]/g, "-");
}

// SRV

/** `_port._tcp.service` for a named port, `service` alone for all of its ports. Only under the cluster's own domain. */
function answerSrv(scope: NameScope, asked: string): NameAnswer {
  const labels = labelsOf(lowerName(asked));
  const named = labels.length > 2 && labels[0]!.startsWith("_") && labels[1]!.startsWith("_");
  const found = findName(scope, labels.slice(named ? 2 : 0).join("."));
  if (found === null) return FORWARD;
  const { service } = found;
  // The mesh knows the TCP ports only; those of UDP are the cluster's resolver's.
  const foreign = !isClusterName(scope, service.hostname) || found.endpoint !== null || service.hostname.startsWith("*") || (named && labels[1] !== "_tcp");
  if (foreign) return named ? FORWARD : FORWARD_KNOWN;
  const ports = service.ports.filter((port) => !named || `_${lowerName(port.name)}` === labels[0]);
  if (ports.length === 0) return FORWARD;
  const targets = shuffled(ports.flatMap((port) => targetsOf(scope, found, port)), scope.random).slice(0, ANSWER_RECORDS_MAX);
  if (targets.length === 0) return { kind: "nodata", service };
  const cname = found.alias === null ? null : [...labels.slice(0, named ? 2 : 0), found.alias].join(".");
  if (cname !== null && encodeName(cname) === null) return FORWARD;
  const ownerName = cname ?? asked;
  const records = targets.map(({ name, port }) => srvRecord(ownerName, { priority: 0, weight: SRV_WEIGHT, port, target: name }, ANSWER_TTL_S));
  if (cname !== null) records.unshift(cnameRecord(asked, cname, ANSWER_TTL_S));
  const seen = new Set<string>();
  const additionals = targets.flatMap(({ name, addresses }) => {
    if (seen.has(name)) return [];
    seen.add(name);
    return addresses.map((ip) => addressRecord(name, ip, ANSWER_TTL_S));
  });
  return { kind: "answer", records, additionals, ownerName, cname, service };
}

interface SrvTarget {
  readonly name: string;
  readonly port: number;
  readonly addresses: readonly IpAddress[];
}

function targetsOf(scope: NameScope, found: FoundName, port: Service["ports"][number]): SrvTarget[] {
  const { service } = found;
  const hostname = lowerName(service.hostname);
  const target = (name: string, targetPort: number, addresses: readonly IpAddress[]): SrvTarget[] => {
    const served = addresses.filter((ip) => familyServed(scope, service, ip));
    return served.length === 0 || encodeName(name) === null ? [] : [{ name, port: targetPort, addresses: served }];
  };
  if (!service.headless) return target(hostname, port.servicePort, addressesOf(scope, found));
  return endpointsOf(scope, service).flatMap((endpoint) => {
    const label = endpointLabel(endpoint);
    return label === null ? [] : target(`${label}.${hostname}`, targetPortOf(endpoint, port), endpoint.workload.addresses);
  });
}

/** The port the endpoint listens on: a headless service has nobody who would translate. */
function targetPortOf(endpoint: Endpoint, port: Service["ports"][number]): number {
  const mapped = endpoint.ports.find((mapping) => mapping.servicePort === port.servicePort);
  return mapped?.targetPort || port.targetPort || port.servicePort;
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const mixed = [...items];
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = Math.floor(random.next() * (i + 1));
    [mixed[i], mixed[j]] = [mixed[j]!, mixed[i]!];
  }
  return mixed;
}

function firstOf<T, R>(items: readonly T[], find: (item: T) => R | null): R | null {
  for (const item of items) {
    const found = find(item);
    if (found !== null) return found;
  }
  return null;
}
