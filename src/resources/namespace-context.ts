// Everything that the workloads of one namespace depend on besides themselves, and what of the mesh is made of the namespace alone:
// services, policies, and what selects whom.

import { namespacedName, type NamespacedName } from "../core/brand.ts";
import { ITEMS_PER_STEP, type Steps } from "../core/steps.ts";
import type { AuthorizationPolicy, Service, WeightedWaypoint, Workload } from "../mesh/records.ts";
import type { Resource } from "./kinds.ts";
import { type AuthorizationPolicyResource, policySelector, translateAuthorizationPolicy } from "./kinds/authorization-policy.ts";
import { byAge, type ConvertedPeers, convertPeerAuthentications, oldest, type PeerAuthenticationResource, peerSelector } from "./kinds/peer-authentication.ts";
import { type ServiceResource, translateService } from "./kinds/service.ts";
import type { ServiceEntryResource } from "./kinds/service-entry.ts";
import { entryLabels, type TranslatedEntry, translateWorkloadEntry, type WorkloadEntryResource } from "./kinds/workload-entry.ts";
import { MEMBERSHIPS_MAX, ServiceSelection } from "./memberships.ts";
import type { NamespaceResources } from "./namespace-resources.ts";
import type { Labels } from "./object-meta.ts";
import type { RemoteNetworks } from "./remote-gateway.ts";
import { collectInto, type Placed, type Report, type ResourceDiagnostic, type ResourceOf, type TranslationOptions } from "./resource.ts";
import { reportSelectorsBeyond, type SelectorsBeyond } from "./selected-entries.ts";
import { SelectorIndex } from "./selector.ts";
import type { ServiceAddresses } from "./service-addresses.ts";
import { entryMemberships, translateServiceEntry } from "./translate-service-entry.ts";
import type { GatewayName, WaypointAdmission } from "./waypoint-admission.ts";
import { type Binding, boundWaypoint, type WaypointName, waypointRecord } from "./waypoint-binding.ts";

/** Hosts of ServiceEntries that one WorkloadEntry is an endpoint of, the first by the entries' names. */
const ENTRY_MEMBERSHIPS_MAX = 1_024;

const NO_WAYPOINTS: readonly WeightedWaypoint[] = [];

/** What a workload that is no resource, a pod, has to ask about its namespace. Another object whenever an answer may have changed. */
export interface NamespaceSurroundings {
  readonly labels: Labels;
  readonly gateways: RemoteNetworks["gateways"];
  /** Services that select a workload with these labels. */
  readonly selection: ServiceSelection;
  /** By name. */
  readonly serviceResources: ReadonlyMap<string, ServiceResource>;
  policiesFor(labels: Labels): readonly NamespacedName[];
  /** For traffic addressed to a workload itself: its waypoint takes that, or there is none. */
  workloadWaypoints(object: Binding & { readonly namespace: string }): readonly WeightedWaypoint[];
}

/** Everything the workloads of a namespace depend on besides themselves, with what was made of it. */
export interface NamespaceContext extends NamespaceSurroundings {
  /** Identity of all inputs; the context is used again while they are the same objects. */
  readonly inputs: readonly unknown[];
  readonly services: readonly Service[];
  /** Of WorkloadEntries: Services that have no room for more of these are not among them. */
  readonly entrySelection: ServiceSelection;
  readonly serviceEntryIndex: SelectorIndex<SelectingEntry>;
  /** Endpoints that ServiceEntries list themselves. */
  readonly workloads: readonly Workload[];
  readonly policies: readonly AuthorizationPolicy[];
  readonly hidden: ReadonlySet<Placed<Resource>>;
  readonly policyIndex: SelectorIndex<Placed<AuthorizationPolicyResource>>;
  readonly peers: ConvertedPeers;
  readonly entryWaypoint: (entry: WorkloadEntryResource, services: readonly ServiceResource[]) => readonly WeightedWaypoint[];
  readonly diagnostics: readonly ResourceDiagnostic[];
  readonly translated: Map<Placed<WorkloadEntryResource>, TranslatedMember>;
}

interface SelectingEntry {
  readonly placed: Placed<ServiceEntryResource>;
  /** How many of its hosts have what it selects. */
  readonly hosts: number;
}

/** A workload, and what selects it and has it not as an endpoint: it is one of so many already. */
export interface TranslatedMember extends TranslatedEntry {
  readonly servicesBeyond: readonly string[];
  readonly hostsBeyond: readonly NamespacedName[];
}

/** What is the same for every namespace. */
export interface MeshContext {
  readonly rootPolicies: readonly Placed<AuthorizationPolicyResource>[];
  readonly meshPeer: Placed<PeerAuthenticationResource> | null;
  readonly networks: RemoteNetworks;
  /** What a waypoint is for, by `namespace/name` of its service. */
  waypointFor(waypoint: GatewayName): string;
  readonly admission: WaypointAdmission;
  /** What every waypoint is for, as one text. */
  readonly waypointUses: string;
}

export interface ContextParts {
  readonly namespace: NamespaceResources;
  readonly mesh: MeshContext;
  /** Entries whose workloads are never found by their addresses. */
  readonly hidden: ReadonlySet<Placed<Resource>>;
  readonly addresses: ServiceAddresses;
  readonly beyond: SelectorsBeyond;
  readonly inputs: readonly unknown[];
  readonly labels: Labels;
  readonly waypointFor: string;
  readonly options: TranslationOptions;
}

export function* buildContext({ namespace, mesh, hidden, addresses, beyond, inputs, labels, waypointFor, options }: ContextParts): Steps<NamespaceContext> {
  const diagnostics: ResourceDiagnostic[] = [];
  const reportFor = collectInto(diagnostics);
  const isRoot = namespace.name === options.rootNamespace;
  const binding: Binding = { labels, annotations: namespace.namespace?.resource.annotations };

  const selection = new ServiceSelection(namespace.services);
  const entrySelection = beyond.size === 0 ? selection : new ServiceSelection(namespace.services.filter((placed) => !beyond.has(placed)));
  reportSelectorsBeyond(beyond, reportFor);
  const serviceWaypoints = (object: ResourceOf<string, unknown>): readonly WeightedWaypoint[] => {
    const found = serviceWaypoint(object, binding, mesh);
    return found?.takes === true ? waypointRecord(found.bound, options.clusterDomain) : [];
  };
  const services: Service[] = [];
  for (const placed of namespace.services) {
    services.push(translateService(placed, { options, addresses: addresses.get(placed.resource) ?? [], waypoints: serviceWaypoints(placed.resource) }));
    if (services.length % ITEMS_PER_STEP === 0) yield;
  }

  const policyIndex = new SelectorIndex<Placed<AuthorizationPolicyResource>>();
  const policies: AuthorizationPolicy[] = [];
  for (const placed of namespace.policies) {
    const policy = translateAuthorizationPolicy(placed, options, reportFor(placed));
    if (policy === null) continue;
    policies.push(policy);
    if (policies.length % ITEMS_PER_STEP === 0) yield;
    const selector = policySelector(placed.resource);
    if (selector !== null && !isRoot) policyIndex.add(selector, placed);
  }
  for (const placed of mesh.rootPolicies) {
    // What it says is reported with the root namespace; here only whether it is for us.
    if (translateAuthorizationPolicy(placed, options, () => {}) !== null) policyIndex.add(policySelector(placed.resource)!, placed);
  }

  const whole = namespace.peers.filter(({ resource }) => peerSelector(resource) === null);
  const namespacePeer = oldest(whole, reportFor);
  const peers = convertPeerAuthentications({
    mesh: mesh.meshPeer,
    namespace: isRoot ? null : namespacePeer,
    selecting: namespace.peers.filter(({ resource }) => peerSelector(resource) !== null).sort(byAge),
  });

  // By the labels as they are kept: those of one Deployment's pods are one object, and their list is one.
  const policiesFound = new WeakMap<Labels, readonly NamespacedName[]>();
  const policiesFor = (selected: Labels): readonly NamespacedName[] => {
    const known = policiesFound.get(selected);
    if (known !== undefined) return known;
    const found = selectingPolicies(selected, policyIndex, peers);
    policiesFound.set(selected, found);
    return found;
  };
  const serviceEntryIndex = new SelectorIndex<SelectingEntry>();
  const workloads: Workload[] = [];
  for (const placed of namespace.serviceEntries) {
    const selector = placed.resource.spec.workloadSelector?.labels ?? {};
    const hosts = beyond.get(placed)?.hosts ?? placed.resource.spec.hosts.length;
    if (Object.keys(selector).length > 0 && hosts > 0) serviceEntryIndex.add(selector, { placed, hosts });
    const translated = translateServiceEntry(placed, {
      options, waypoints: serviceWaypoints(placed.resource), namespaceLabels: labels, gateways: mesh.networks.gateways, addressesOf: (hostname) => addresses.get(`${placed.resource.namespace}/${hostname}`) ?? [], policiesFor,
      hidden: hidden.has(placed),
    }, reportFor(placed));
    for (const service of translated.services) services.push(service);
    for (const workload of translated.workloads) workloads.push(workload);
    yield;
  }

  const entryWaypoint = (entry: WorkloadEntryResource, members: readonly ServiceResource[]): readonly WeightedWaypoint[] => {
    const bound = boundWaypoint({ namespace: entry.namespace, labels: entryLabels(entry), annotations: entry.annotations }, binding, mesh.admission);
    if (bound === null || members.some((service) => [bound, bound.canary].some((one) => one?.namespace === service.namespace && one.name === service.name))) return [];
    return bound.from === "object" || waypointFor === "workload" || waypointFor === "all" ? waypointRecord(bound, options.clusterDomain) : [];
  };
  const waypointRecords = new Map<string, readonly WeightedWaypoint[]>();
  const workloadWaypoints = (object: Binding & { readonly namespace: string }): readonly WeightedWaypoint[] => {
    const bound = boundWaypoint(object, binding, mesh.admission);
    if (bound === null || !["workload", "all"].includes(mesh.waypointFor(bound))) return NO_WAYPOINTS;
    const key = JSON.stringify(bound);
    const known = waypointRecords.get(key);
    if (known !== undefined) return known;
    const record = waypointRecord(bound, options.clusterDomain);
    waypointRecords.set(key, record);
    return record;
  };
  const serviceResources = new Map(namespace.services.map(({ resource }) => [resource.name, resource]));
  return { policiesFor, workloadWaypoints, serviceResources, inputs, labels, gateways: mesh.networks.gateways, services, hidden, selection, entrySelection, serviceEntryIndex, workloads, policies: [...policies, ...peers.policies], policyIndex, peers, entryWaypoint, diagnostics, translated: new Map() };
}

/** Null for a service that asks for no waypoint, or is one itself. A waypoint for workloads alone takes no services that are bound by their namespace's label. */
export function serviceWaypoint(object: ResourceOf<string, unknown>, namespace: Binding, mesh: MeshContext): { readonly bound: WaypointName; readonly takes: boolean } | null {
  const bound = boundWaypoint(object, namespace, mesh.admission);
  if (bound === null || [bound, bound.canary].some((one) => one?.namespace === object.namespace && one.name === object.name)) return null;
  return { bound, takes: bound.from === "object" || ["service", "all"].includes(mesh.waypointFor(bound)) };
}

export function translateEntry(placed: Placed<WorkloadEntryResource>, context: NamespaceContext, options: TranslationOptions): TranslatedMember {
  const known = context.translated.get(placed);
  if (known !== undefined) return known;
  const labels = entryLabels(placed.resource);
  const { held: services, beyond } = context.entrySelection.of(labels);
  const hosts = context.serviceEntryIndex.selecting(labels).sort((a, b) => (a.placed.resource.name < b.placed.resource.name ? -1 : 1)).flatMap((one) => entryMemberships(one.placed.resource, placed.resource.spec.ports ?? {}).slice(0, one.hosts));
  const made = translateWorkloadEntry(placed, {
    options, namespaceLabels: context.labels, gateways: context.gateways, services, further: hosts.slice(0, ENTRY_MEMBERSHIPS_MAX), policies: selectingPolicies(labels, context.policyIndex, context.peers), waypoints: context.entryWaypoint(placed.resource, services), hidden: context.hidden.has(placed),
  });
  const translated: TranslatedMember = { ...made, servicesBeyond: beyond, hostsBeyond: hosts.slice(ENTRY_MEMBERSHIPS_MAX).map(({ service }) => service) };
  context.translated.set(placed, translated);
  return translated;
}

export function reportBeyond({ resource }: Placed<WorkloadEntryResource>, { servicesBeyond, hostsBeyond }: TranslatedMember, report: Report): void {
  const at = resource.spec.labels === undefined || resource.spec.labels === null ? ["metadata", "labels"] : ["spec", "labels"];
  if (servicesBeyond.length > 0) report("error", "too_many_memberships", at, `${MEMBERSHIPS_MAX} Services select it, the first by name, which is as many as one workload may have: it is no endpoint of ${servicesBeyond.length} more (${servicesBeyond[0]!}), and nothing is sent to it for those`);
  if (hostsBeyond.length > 0) report("error", "too_many_memberships", at, `it is an endpoint of ${ENTRY_MEMBERSHIPS_MAX} hosts of ServiceEntries, the first by their names, which is as many as one workload may have, and none of ${hostsBeyond.length} more (${hostsBeyond[0]!}): nothing is sent to it for those`);
}

function selectingPolicies(labels: Labels, index: SelectorIndex<Placed<AuthorizationPolicyResource>>, peers: ConvertedPeers): readonly NamespacedName[] {
  const policies = index.selecting(labels).map(({ resource }) => namespacedName(resource.namespace, resource.name));
  const peer = peers.attached(labels);
  if (peer !== null) policies.push(peer);
  return policies.sort();
}
