// All resources in force into the mesh's records. Namespace by namespace; a workload is translated again only when its own
// entry changed or something of its namespace (or the root namespace) that it depends on.

import { namespacedName, type NamespacedName, type WorkloadUid } from "../core/brand.ts";
import { unreachable } from "../core/result.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { AuthorizationPolicy, Service, WeightedWaypoint, Workload } from "../mesh/records.ts";
import { NETNS, USE_WAYPOINT, USE_WAYPOINT_CANARY, WAYPOINT_FOR } from "./annotations.ts";
import type { DiagnosticCode, FieldPath, Severity } from "./diagnostic.ts";
import type { Resource } from "./kinds.ts";
import { type AuthorizationPolicyResource, policySelector, translateAuthorizationPolicy } from "./kinds/authorization-policy.ts";
import { type GatewayResource, isWaypoint } from "./kinds/gateway.ts";
import type { NamespaceResource } from "./kinds/namespace.ts";
import { type ConvertedPeers, byAge, convertPeerAuthentications, oldest, type PeerAuthenticationResource, peerSelector } from "./kinds/peer-authentication.ts";
import { type ServiceResource, translateService } from "./kinds/service.ts";
import type { ServiceEntryResource } from "./kinds/service-entry.ts";
import { entryLabels, type TranslatedEntry, translateWorkloadEntry, type WorkloadEntryResource } from "./kinds/workload-entry.ts";
import type { MeshSnapshot } from "./mesh-delta.ts";
import { MEMBERSHIPS_MAX, ServiceSelection } from "./memberships.ts";
import type { Labels } from "./object-meta.ts";
import { translateRemoteGateways, type RemoteNetworks } from "./remote-gateway.ts";
import { describeIdentity, type Placed, type Report, type ReportFor, type ResourceOf, sourceOf, type TranslationOptions } from "./resource.ts";
import { SelectorIndex } from "./selector.ts";
import { assignServiceAddresses, type ServiceAddresses } from "./service-addresses.ts";
import { entryMemberships, translateServiceEntry } from "./translate-service-entry.ts";
import { type GatewayName, WaypointAdmission } from "./waypoint-admission.ts";
import { type Binding, boundWaypoint, serviceHostname, type WaypointName, waypointRecord } from "./waypoint-binding.ts";
import { bindingOf, howToAllow, type WaypointBinding } from "./waypoint-status.ts";
import type { WaypointServices } from "./waypoint-services.ts";

/** A diagnostic of a resource in force, before its field is located in the file. */
export interface ResourceDiagnostic {
  readonly placed: Placed<ResourceOf<string, unknown>>;
  readonly severity: Severity;
  readonly code: DiagnosticCode;
  readonly path: FieldPath;
  readonly message: string;
}

export interface TranslatedMesh {
  readonly mesh: MeshSnapshot;
  /** Workloads of this node, by uid. */
  readonly localWorkloads: readonly LocalWorkload[];
  /** Of every Service and ServiceEntry that asks for a waypoint, by what it is called (`Service shop/web`). */
  readonly bindings: ReadonlyMap<string, WaypointBinding>;
  readonly diagnostics: readonly ResourceDiagnostic[];
}

interface NamespaceResources {
  readonly name: string;
  namespace: Placed<NamespaceResource> | null;
  readonly services: Placed<ServiceResource>[];
  readonly serviceEntries: Placed<ServiceEntryResource>[];
  readonly entries: Placed<WorkloadEntryResource>[];
  readonly policies: Placed<AuthorizationPolicyResource>[];
  readonly peers: Placed<PeerAuthenticationResource>[];
  readonly gateways: Placed<GatewayResource>[];
}

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
interface NamespaceContext extends NamespaceSurroundings {
  /** Identity of all inputs; the context is used again while they are the same objects. */
  readonly inputs: readonly unknown[];
  readonly services: readonly Service[];
  readonly serviceEntryIndex: SelectorIndex<Placed<ServiceEntryResource>>;
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

/** A workload, and what selects it and has it not as an endpoint: it is one of so many already. */
interface TranslatedMember extends TranslatedEntry {
  readonly servicesBeyond: readonly string[];
  readonly hostsBeyond: readonly NamespacedName[];
}

/** What is the same for every namespace. */
interface MeshContext {
  readonly rootPolicies: readonly Placed<AuthorizationPolicyResource>[];
  readonly meshPeer: Placed<PeerAuthenticationResource> | null;
  readonly networks: RemoteNetworks;
  readonly hidden: ReadonlySet<Placed<Resource>>;
  /** What a waypoint is for, by `namespace/name` of its service. */
  waypointFor(waypoint: GatewayName): string;
  readonly admission: WaypointAdmission;
  /** What every waypoint is for, as one text. */
  readonly waypointUses: string;
}

/** Hosts of ServiceEntries that one WorkloadEntry is an endpoint of, the first by the entries' names. */
const ENTRY_MEMBERSHIPS_MAX = 1_024;
const NOTHING_HIDDEN: ReadonlySet<Placed<Resource>> = new Set();

/** Translates states of the directory one after the other, reusing what did not change. The result depends on the last state alone. */
export class MeshTranslator {
  readonly #options: TranslationOptions;
  readonly #waypointServices: WaypointServices;
  readonly #members: "entries" | "entriesAndPods";
  #contexts = new Map<string, NamespaceContext>();
  #last: { readonly resources: readonly Placed<Resource>[]; readonly hidden: ReadonlySet<Placed<Resource>>; readonly result: TranslatedMesh } | null = null;

  /**
   * @param waypointServices which services were made for a waypoint, so that nobody is told of what they lack.
   * @param members where there are pods too, a selector that no entry satisfies is nothing to be told of.
   */
  constructor(options: TranslationOptions, waypointServices: WaypointServices, members: "entries" | "entriesAndPods" = "entries") {
    this.#options = options;
    this.#waypointServices = waypointServices;
    this.#members = members;
  }

  /** As of the last translation; null for a namespace of which there is nothing. */
  surroundings(namespace: string): NamespaceSurroundings | null {
    return this.#contexts.get(namespace) ?? null;
  }

  /** @param hidden entries whose workloads are never found by their addresses. */
  translate(all: readonly Placed<Resource>[], hidden: ReadonlySet<Placed<Resource>> = NOTHING_HIDDEN): TranslatedMesh {
    const resources = all.filter(isOfMesh);
    if (this.#last !== null && sameItems(this.#last.resources, resources) && this.#last.hidden.size === hidden.size && [...hidden].every((placed) => this.#last!.hidden.has(placed))) return this.#last.result;
    const result = this.#translateAll(resources, hidden);
    this.#last = { resources, hidden, result };
    return result;
  }

  #translateAll(resources: readonly Placed<Resource>[], hidden: ReadonlySet<Placed<Resource>>): TranslatedMesh {
    const byNamespace = group(resources);
    const diagnostics: ResourceDiagnostic[] = [];
    const reportFor = collectInto(diagnostics);
    const allServices = [...byNamespace.values()].flatMap((namespace) => namespace.services);
    const allServiceEntries = [...byNamespace.values()].flatMap((namespace) => namespace.serviceEntries);
    const addresses = assignServiceAddresses(allServices, this.#options.serviceCidrs, reportFor, allServiceEntries, (placed) => this.#waypointServices.isMade(placed));
    const gateways = [...byNamespace.values()].flatMap((namespace) => namespace.gateways);
    const mesh = this.#meshContext(byNamespace, allServices, translateRemoteGateways(gateways, this.#options, reportFor), hidden);
    reportMissingWaypoints(byNamespace, allServices, mesh.admission, reportFor);

    const workloads = new Map<WorkloadUid, Workload>(mesh.networks.workloads.map((gateway) => [gateway.uid, gateway]));
    const services = new Map<NamespacedName, Service>();
    const policies = new Map<NamespacedName, AuthorizationPolicy>();
    const bindings = new Map<string, WaypointBinding>();
    const local: { workload: LocalWorkload; placed: Placed<WorkloadEntryResource> }[] = [];
    const contexts = new Map<string, NamespaceContext>();
    for (const namespace of byNamespace.values()) {
      const context = this.#namespaceContext(namespace, mesh, addresses);
      contexts.set(namespace.name, context);
      diagnostics.push(...context.diagnostics);
      collectBindings(namespace, mesh, bindings);
      for (const service of context.services) services.set(namespacedName(service.namespace, service.hostname), service);
      for (const workload of context.workloads) workloads.set(workload.uid, workload);
      for (const policy of context.policies) policies.set(namespacedName(policy.namespace, policy.name), policy);
      const selected = new Set<string>();
      for (const placed of namespace.entries) {
        const translated = translateEntry(placed, context, this.#options);
        workloads.set(translated.workload.uid, translated.workload);
        if (translated.local !== null) local.push({ workload: translated.local, placed });
        for (const { service } of translated.workload.services) selected.add(service);
        for (const policy of translated.workload.authorizationPolicies) selected.add(policy);
        reportBeyond(placed, translated, reportFor(placed));
        for (const { service, port } of translated.missingPorts) {
          reportFor(placed)("warning", "missing_port", ["spec", "ports"], `Service ${service} wants a port named ${JSON.stringify(port)}, which this entry does not have; it is no endpoint for that port`);
        }
      }
      if (this.#members === "entriesAndPods") continue;
      const written = namespace.services.filter((placed) => !this.#waypointServices.isMade(placed));
      reportUnselected({ ...namespace, services: written }, selected, mesh, this.#options, reportFor);
    }
    this.#contexts = contexts;
    if (this.#members === "entries") reportRootUnselected(mesh, workloads, reportFor);
    return { mesh: { workloads, services, policies }, localWorkloads: oneForEachNamespace(local, reportFor), bindings, diagnostics };
  }

  #meshContext(byNamespace: ReadonlyMap<string, NamespaceResources>, services: readonly Placed<ServiceResource>[], networks: RemoteNetworks, hidden: ReadonlySet<Placed<Resource>>): MeshContext {
    const root = byNamespace.get(this.#options.rootNamespace);
    const waypoints = [...byNamespace.values()].flatMap(({ gateways }) => gateways.filter(({ resource }) => isWaypoint(resource)));
    // What a waypoint's Gateway says holds before what its service says.
    const labels = new Map([...services, ...waypoints].map(({ resource }) => [`${resource.namespace}/${resource.name}`, resource.labels]));
    return {
      admission: new WaypointAdmission([...services, ...[...byNamespace.values()].flatMap(({ namespace, gateways }) => [...(namespace === null ? [] : [namespace]), ...gateways])]),
      rootPolicies: (root?.policies ?? []).filter(({ resource }) => policySelector(resource) !== null),
      // Which of several holds is reported once, with the root namespace's own context.
      meshPeer: oldest((root?.peers ?? []).filter(({ resource }) => peerSelector(resource) === null), () => () => {}),
      networks, hidden,
      waypointFor: ({ namespace, name }) => labels.get(`${namespace}/${name}`)?.[WAYPOINT_FOR] ?? "service",
      waypointUses: [...labels].flatMap(([name, of]) => (of[WAYPOINT_FOR] === undefined ? [] : [`${name}=${of[WAYPOINT_FOR]}`])).sort().join(" "),
    };
  }

  #namespaceContext(namespace: NamespaceResources, mesh: MeshContext, addresses: ServiceAddresses): NamespaceContext {
    const labels = namespace.namespace?.resource.labels ?? {};
    const bound = boundWaypoint({ namespace: namespace.name, labels: {} }, { labels }, mesh.admission);
    const waypointFor = bound === null ? "" : mesh.waypointFor(bound);
    const inputs: unknown[] = [
      namespace.namespace, waypointFor, mesh.admission.keyFor(namespace.name), mesh.meshPeer, "services", ...namespace.services, "addresses", ...namespace.services.map(({ resource }) => (addresses.get(resource) ?? []).join()),
      "serviceEntries", ...namespace.serviceEntries, "hosts", ...namespace.serviceEntries.flatMap(({ resource }) => resource.spec.hosts.map((host) => (addresses.get(`${resource.namespace}/${host}`) ?? []).join())),
      "hidden", ...[...namespace.entries, ...namespace.serviceEntries].filter((placed) => mesh.hidden.has(placed)), "policies", ...namespace.policies, "root", ...mesh.rootPolicies, "peers", ...namespace.peers, "networks", JSON.stringify([...mesh.networks.gateways]),
      ...(this.#members === "entriesAndPods" ? [mesh.waypointUses] : []),
    ];
    const previous = this.#contexts.get(namespace.name);
    if (previous !== undefined && sameItems(previous.inputs, inputs)) {
      dropUnused(previous.translated, namespace.entries);
      return previous;
    }
    return buildContext({ namespace, mesh, addresses, inputs, labels, waypointFor, options: this.#options });
  }
}

interface ContextParts {
  readonly namespace: NamespaceResources;
  readonly mesh: MeshContext;
  readonly addresses: ServiceAddresses;
  readonly inputs: readonly unknown[];
  readonly labels: Labels;
  readonly waypointFor: string;
  readonly options: TranslationOptions;
}

function buildContext({ namespace, mesh, addresses, inputs, labels, waypointFor, options }: ContextParts): NamespaceContext {
  const diagnostics: ResourceDiagnostic[] = [];
  const reportFor = collectInto(diagnostics);
  const isRoot = namespace.name === options.rootNamespace;
  const binding: Binding = { labels, annotations: namespace.namespace?.resource.annotations };

  const selection = new ServiceSelection(namespace.services);
  const serviceWaypoints = (object: ResourceOf<string, unknown>): readonly WeightedWaypoint[] => {
    const found = serviceWaypoint(object, binding, mesh);
    return found?.takes === true ? waypointRecord(found.bound, options.clusterDomain) : [];
  };
  const services = namespace.services.map((placed) => translateService(placed, { options, addresses: addresses.get(placed.resource) ?? [], waypoints: serviceWaypoints(placed.resource) }));

  const policyIndex = new SelectorIndex<Placed<AuthorizationPolicyResource>>();
  const policies: AuthorizationPolicy[] = [];
  for (const placed of namespace.policies) {
    const policy = translateAuthorizationPolicy(placed, options, reportFor(placed));
    if (policy === null) continue;
    policies.push(policy);
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

  const policiesFor = (selected: Labels): readonly NamespacedName[] => selectingPolicies(selected, policyIndex, peers);
  const serviceEntryIndex = new SelectorIndex<Placed<ServiceEntryResource>>();
  const workloads: Workload[] = [];
  for (const placed of namespace.serviceEntries) {
    const selector = placed.resource.spec.workloadSelector?.labels ?? {};
    if (Object.keys(selector).length > 0) serviceEntryIndex.add(selector, placed);
    const translated = translateServiceEntry(placed, {
      options, waypoints: serviceWaypoints(placed.resource), namespaceLabels: labels, gateways: mesh.networks.gateways, addressesOf: (hostname) => addresses.get(`${placed.resource.namespace}/${hostname}`) ?? [], policiesFor,
      hidden: mesh.hidden.has(placed),
    }, reportFor(placed));
    services.push(...translated.services);
    workloads.push(...translated.workloads);
  }

  const entryWaypoint = (entry: WorkloadEntryResource, members: readonly ServiceResource[]): readonly WeightedWaypoint[] => {
    const bound = boundWaypoint({ namespace: entry.namespace, labels: entryLabels(entry), annotations: entry.annotations }, binding, mesh.admission);
    if (bound === null || members.some((service) => [bound, bound.canary].some((one) => one?.namespace === service.namespace && one.name === service.name))) return [];
    return bound.from === "object" || waypointFor === "workload" || waypointFor === "all" ? waypointRecord(bound, options.clusterDomain) : [];
  };
  const workloadWaypoints = (object: Binding & { readonly namespace: string }): readonly WeightedWaypoint[] => {
    const bound = boundWaypoint(object, binding, mesh.admission);
    return bound !== null && ["workload", "all"].includes(mesh.waypointFor(bound)) ? waypointRecord(bound, options.clusterDomain) : [];
  };
  const serviceResources = new Map(namespace.services.map(({ resource }) => [resource.name, resource]));
  return { policiesFor, workloadWaypoints, serviceResources, inputs, labels, gateways: mesh.networks.gateways, services, hidden: mesh.hidden, selection, serviceEntryIndex, workloads, policies: [...policies, ...peers.policies], policyIndex, peers, entryWaypoint, diagnostics, translated: new Map() };
}

/** Null for a service that asks for no waypoint, or is one itself. A waypoint for workloads alone takes no services that are bound by their namespace's label. */
function serviceWaypoint(object: ResourceOf<string, unknown>, namespace: Binding, mesh: MeshContext): { readonly bound: WaypointName; readonly takes: boolean } | null {
  const bound = boundWaypoint(object, namespace, mesh.admission);
  if (bound === null || [bound, bound.canary].some((one) => one?.namespace === object.namespace && one.name === object.name)) return null;
  return { bound, takes: bound.from === "object" || ["service", "all"].includes(mesh.waypointFor(bound)) };
}

function collectBindings({ name, namespace, services, serviceEntries }: NamespaceResources, mesh: MeshContext, into: Map<string, WaypointBinding>): void {
  const binding: Binding = { labels: namespace?.resource.labels ?? {}, annotations: namespace?.resource.annotations };
  for (const { resource } of [...services, ...serviceEntries]) {
    if (resource.labels[USE_WAYPOINT] === undefined && binding.labels[USE_WAYPOINT] === undefined) continue;
    const found = serviceWaypoint(resource, binding, mesh);
    if (found !== null) into.set(describeIdentity(resource), bindingOf(found.bound, name, found.takes, mesh.admission));
  }
}

function translateEntry(placed: Placed<WorkloadEntryResource>, context: NamespaceContext, options: TranslationOptions): TranslatedMember {
  const known = context.translated.get(placed);
  if (known !== undefined) return known;
  const labels = entryLabels(placed.resource);
  const { held: services, beyond } = context.selection.of(labels);
  const hosts = context.serviceEntryIndex.selecting(labels).sort((a, b) => (a.resource.name < b.resource.name ? -1 : 1)).flatMap(({ resource }) => entryMemberships(resource, placed.resource.spec.ports ?? {}));
  const made = translateWorkloadEntry(placed, {
    options, namespaceLabels: context.labels, gateways: context.gateways, services, further: hosts.slice(0, ENTRY_MEMBERSHIPS_MAX), policies: selectingPolicies(labels, context.policyIndex, context.peers), waypoints: context.entryWaypoint(placed.resource, services), hidden: context.hidden.has(placed),
  });
  const translated: TranslatedMember = { ...made, servicesBeyond: beyond, hostsBeyond: hosts.slice(ENTRY_MEMBERSHIPS_MAX).map(({ service }) => service) };
  context.translated.set(placed, translated);
  return translated;
}

function reportBeyond({ resource }: Placed<WorkloadEntryResource>, { servicesBeyond, hostsBeyond }: TranslatedMember, report: Report): void {
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

/** Kinds of which something becomes part of the mesh; the others are of L7 alone. */
const OF_MESH: ReadonlySet<Resource["kind"]> = new Set(["Namespace", "Service", "WorkloadEntry", "AuthorizationPolicy", "PeerAuthentication", "ServiceEntry", "Gateway"]);

const isOfMesh = ({ resource }: Placed<Resource>): boolean => OF_MESH.has(resource.kind);

function group(resources: Iterable<Placed<Resource>>): Map<string, NamespaceResources> {
  const byNamespace = new Map<string, NamespaceResources>();
  const of = (name: string): NamespaceResources => {
    let found = byNamespace.get(name);
    if (found === undefined) {
      found = { name, namespace: null, services: [], serviceEntries: [], entries: [], policies: [], peers: [], gateways: [] };
      byNamespace.set(name, found);
    }
    return found;
  };
  for (const placed of resources) {
    const { resource } = placed;
    switch (resource.kind) {
      case "Namespace":
        of(resource.name).namespace = placed as Placed<NamespaceResource>;
        break;
      case "Service":
        of(resource.namespace).services.push(placed as Placed<ServiceResource>);
        break;
      case "WorkloadEntry":
        of(resource.namespace).entries.push(placed as Placed<WorkloadEntryResource>);
        break;
      case "AuthorizationPolicy":
        of(resource.namespace).policies.push(placed as Placed<AuthorizationPolicyResource>);
        break;
      case "PeerAuthentication":
        of(resource.namespace).peers.push(placed as Placed<PeerAuthenticationResource>);
        break;
      case "ServiceEntry":
        of(resource.namespace).serviceEntries.push(placed as Placed<ServiceEntryResource>);
        break;
      case "Gateway":
        of(resource.namespace).gateways.push(placed as Placed<GatewayResource>);
        break;
      // Of L7 alone.
      case "RequestAuthentication": case "GatewayClass": case "HTTPRoute": case "GRPCRoute": case "TCPRoute": case "TLSRoute": case "ReferenceGrant": case "BackendTLSPolicy": case "XBackendTrafficPolicy":
      case "VirtualService": case "DestinationRule": case "Telemetry": case "TrafficPolicy": case "LoginPolicy": case "TokenIntrospection": case "MeshConfig": case "ConfigMap": case "Secret":
        break;
      default:
        unreachable(resource);
    }
  }
  return byNamespace;
}

const collectInto = (diagnostics: ResourceDiagnostic[]): ReportFor => (placed) => (severity, code, path, message) => diagnostics.push({ placed, severity, code, path, message });

function reportUnselected(namespace: NamespaceResources, selected: ReadonlySet<string>, mesh: MeshContext, options: TranslationOptions, reportFor: ReportFor): void {
  for (const placed of namespace.services) {
    const { name, namespace: at, spec } = placed.resource;
    if (Object.keys(spec.selector ?? {}).length === 0) {
      reportFor(placed)("warning", "selects_nothing", ["spec"], "has no selector, so it has no endpoints; endpoints are the WorkloadEntries that a selector finds");
    } else if (!selected.has(namespacedName(at, serviceHostname(name, at, options.clusterDomain)))) {
      reportFor(placed)("warning", "selects_nothing", ["spec", "selector"], `selects no WorkloadEntry of namespace ${at}: the service has no endpoints`);
    }
  }
  for (const placed of namespace.policies) {
    const { name, namespace: at, spec } = placed.resource;
    if (policySelector(placed.resource) === null || spec?.action === "AUDIT" || mesh.rootPolicies.includes(placed)) continue;
    if (!selected.has(namespacedName(at, name))) reportFor(placed)("warning", "selects_nothing", ["spec", "selector"], `selects no WorkloadEntry of namespace ${at}: nothing is protected by it`);
  }
  for (const placed of namespace.peers) {
    const selector = peerSelector(placed.resource);
    if (selector === null) continue;
    const index = new SelectorIndex<true>();
    index.add(selector, true);
    if (!namespace.entries.some(({ resource }) => index.selecting(entryLabels(resource)).length > 0)) {
      reportFor(placed)("warning", "selects_nothing", ["spec", "selector"], `selects no WorkloadEntry of namespace ${placed.resource.namespace}`);
    }
  }
}

function reportRootUnselected(mesh: MeshContext, workloads: ReadonlyMap<WorkloadUid, Workload>, reportFor: ReportFor): void {
  if (mesh.rootPolicies.length === 0) return;
  const selected = new Set<string>();
  for (const workload of workloads.values()) for (const policy of workload.authorizationPolicies) selected.add(policy);
  for (const placed of mesh.rootPolicies) {
    const { namespace, name, spec } = placed.resource;
    if (spec?.action !== "AUDIT" && !selected.has(namespacedName(namespace, name))) {
      reportFor(placed)("warning", "selects_nothing", ["spec", "selector"], "selects no WorkloadEntry of any namespace: nothing is protected by it");
    }
  }
}

/**
 * In order of uid. Traffic of a namespace that two entries claim could be told to neither: the first has it, the other is reported
 * and not captured; as its record still asks for a tunnel, nobody reaches it in plain text.
 */
function oneForEachNamespace(local: readonly { readonly workload: LocalWorkload; readonly placed: Placed<WorkloadEntryResource> }[], reportFor: ReportFor): LocalWorkload[] {
  const owners = new Map<string, Placed<WorkloadEntryResource>>();
  const kept: LocalWorkload[] = [];
  for (const { workload, placed } of [...local].sort((a, b) => (a.workload.uid < b.workload.uid ? -1 : 1))) {
    const key = workload.networkNamespace.kind === "host" ? "host" : workload.networkNamespace.path;
    const owner = owners.get(key);
    if (owner === undefined) {
      owners.set(key, placed);
      kept.push(workload);
    } else {
      reportFor(placed)("error", "conflict", ["metadata", "annotations", NETNS],
        `found the network namespace ${key}, which WorkloadEntry ${owner.resource.namespace}/${owner.resource.name} (${sourceOf(owner)}) has too; one workload each, this one is not captured`);
    }
  }
  return kept;
}

function reportMissingWaypoints(byNamespace: ReadonlyMap<string, NamespaceResources>, services: readonly Placed<ServiceResource>[], admission: WaypointAdmission, reportFor: ReportFor): void {
  const names = new Set(services.map(({ resource }) => `${resource.namespace}/${resource.name}`));
  const check = (placed: Placed<ResourceOf<string, unknown>>, namespace: string, labels: Labels, at: FieldPath): void => {
    if (labels[USE_WAYPOINT] === undefined) return;
    const bound = boundWaypoint({ namespace, labels }, { labels: {} }, admission);
    for (const one of bound === null ? [] : [bound.allowed ? null : bound, bound.refusedCanary]) {
      if (one !== null && admission.has(one)) reportFor(placed)("error", "fail_closed", [...at, one === bound ? USE_WAYPOINT : USE_WAYPOINT_CANARY], `${howToAllow(one, namespace)}; ${one === bound ? "traffic that needs it is refused" : `all goes through ${bound!.namespace}/${bound!.name}`}`);
    }
    for (const one of bound === null ? [] : [bound, bound.canary, bound.refusedCanary]) {
      if (one === null || names.has(`${one.namespace}/${one.name}`)) continue;
      reportFor(placed)("warning", "missing_waypoint", [...at, one === bound ? USE_WAYPOINT : USE_WAYPOINT_CANARY], `found the waypoint ${one.namespace}/${one.name}, which no Service is; traffic that needs it is refused until it is there`);
    }
  };
  for (const { name, namespace, services: own, serviceEntries, entries } of byNamespace.values()) {
    if (namespace !== null) check(namespace, name, namespace.resource.labels, ["metadata", "labels"]);
    for (const placed of [...own, ...serviceEntries]) check(placed, name, placed.resource.labels, ["metadata", "labels"]);
    for (const placed of entries) {
      check(placed, name, placed.resource.labels, ["metadata", "labels"]);
      check(placed, name, placed.resource.spec.labels ?? {}, ["spec", "labels"]);
    }
  }
}

function dropUnused(translated: Map<Placed<WorkloadEntryResource>, TranslatedMember>, entries: readonly Placed<WorkloadEntryResource>[]): void {
  if (translated.size <= entries.length) return;
  const used = new Set(entries);
  for (const placed of translated.keys()) if (!used.has(placed)) translated.delete(placed);
}

const sameItems = (a: readonly unknown[], b: readonly unknown[]): boolean => a.length === b.length && a.every((item, i) => item === b[i]);
