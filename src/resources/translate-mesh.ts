// All resources in force into the mesh's records, namespace by namespace. What a change costs is what is in the namespaces that it is in:
// the others are looked at again only when something changed that holds for all of them (waypoints and whom they take, namespaces, what
// the root namespace says, the ways to other networks). A workload is translated again only when its own entry changed, or something of
// its namespace that it depends on.

import type { NamespacedName, WorkloadUid } from "../core/brand.ts";
import { namespacedName } from "../core/brand.ts";
import { atOnce, ITEMS_PER_STEP, type Steps } from "../core/steps.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import { type AuthorizationPolicy, emptyDelta, type MeshDelta, type Service, type Workload } from "../mesh/records.ts";
import type { Resource } from "./kinds.ts";
import { policySelector } from "./kinds/authorization-policy.ts";
import { isWaypoint } from "./kinds/gateway.ts";
import { oldest, peerSelector } from "./kinds/peer-authentication.ts";
import type { WorkloadEntryResource } from "./kinds/workload-entry.ts";
import { MeshAssembly, type Records, type Replaced } from "./mesh-assembly.ts";
import { emptySnapshot, type MeshSnapshot } from "./mesh-delta.ts";
import { oneForEachNamespace, reportRootUnselected, reportUnselected } from "./mesh-reports.ts";
import { bindingsOf, type NamespaceBindings } from "./namespace-bindings.ts";
import { buildContext, type MeshContext, type NamespaceContext, type NamespaceSurroundings, reportBeyond, translateEntry } from "./namespace-context.ts";
import { groupOf, homeOf, type NamespaceResources, sameItems } from "./namespace-resources.ts";
import { translateRemoteGateways } from "./remote-gateway.ts";
import { collectInto, type Placed, type ResourceDiagnostic, type TranslationOptions } from "./resource.ts";
import { selectorsBeyond, type SelectorsBeyond } from "./selected-entries.ts";
import { assignServiceAddresses, type ServiceAddresses } from "./service-addresses.ts";
import { WaypointAdmission } from "./waypoint-admission.ts";
import { boundWaypoint } from "./waypoint-binding.ts";
import type { WaypointBinding } from "./waypoint-status.ts";
import type { WaypointServices } from "./waypoint-services.ts";
import { usesSaid, waypointUses } from "./waypoint-uses.ts";

export interface TranslatedMesh {
  readonly mesh: MeshSnapshot;
  /** From the translation before to this one. */
  readonly delta: MeshDelta;
  /** Workloads of this node, by uid. */
  readonly localWorkloads: readonly LocalWorkload[];
  /** Of every Service and ServiceEntry that asks for a waypoint, by what it is called (`Service shop/web`). */
  readonly bindings: ReadonlyMap<string, WaypointBinding>;
  readonly diagnostics: readonly ResourceDiagnostic[];
}

/** What was made of one namespace. */
interface NamespaceParts {
  readonly context: NamespaceContext;
  readonly entries: readonly Placed<WorkloadEntryResource>[];
  readonly records: Records;
  readonly local: readonly { readonly workload: LocalWorkload; readonly placed: Placed<WorkloadEntryResource> }[];
  readonly diagnostics: readonly ResourceDiagnostic[];
}

/** What is made for all namespaces together. */
interface Common {
  readonly mesh: MeshContext;
  readonly gateways: Records;
  readonly diagnostics: readonly ResourceDiagnostic[];
}

interface Changes {
  readonly namespaces: Set<string>;
  /** A Service or a host came, went or changed. */
  addresses: boolean;
  /** Something that holds for every namespace may have changed. */
  common: boolean;
  /** `namespace/name` of Services that came or went. */
  readonly services: Set<string>;
}

const NOTHING_HIDDEN: ReadonlySet<Placed<Resource>> = new Set();
const NOTHING: TranslatedMesh = { mesh: emptySnapshot, delta: emptyDelta, localWorkloads: [], bindings: new Map(), diagnostics: [] };

/** Translates states one after the other, reusing what did not change. The result depends on the last state alone. */
export class MeshTranslator {
  readonly #options: TranslationOptions;
  readonly #waypointServices: WaypointServices;
  readonly #members: "entries" | "entriesAndPods";
  readonly #groups = new Map<string, NamespaceResources>();
  readonly #parts = new Map<string, NamespaceParts>();
  readonly #bindings = new Map<string, NamespaceBindings>();
  readonly #serviceNames = new Set<string>();
  readonly #assembly = new MeshAssembly();
  #hidden = NOTHING_HIDDEN;
  #addresses: ServiceAddresses = new Map();
  #addressDiagnostics: readonly ResourceDiagnostic[] = [];
  #common: Common | null = null;
  #result = NOTHING;
  /** Of the last translation of everything. */
  #lists: ReadonlyMap<string, readonly Placed<Resource>[]> = new Map();

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
    return this.#parts.get(namespace)?.context ?? null;
  }

  /** All resources there are. */
  translate(all: readonly Placed<Resource>[]): TranslatedMesh {
    const lists = Map.groupBy(all, homeOf);
    const touched = new Map<string, readonly Placed<Resource>[]>(lists);
    for (const name of this.#lists.keys()) if (!lists.has(name)) touched.set(name, []);
    this.#lists = lists;
    return atOnce(this.update(touched));
  }

  /**
   * @param touched of every namespace in which a resource came, went or changed since the last time, all that is in it now.
   * @param hidden entries whose workloads are never found by their addresses.
   */
  *update(touched: ReadonlyMap<string, readonly Placed<Resource>[]>, hidden: ReadonlySet<Placed<Resource>> = NOTHING_HIDDEN): Steps<TranslatedMesh> {
    const changes = yield* this.#regroup(touched);
    for (const placed of differing(this.#hidden, hidden)) changes.namespaces.add(placed.resource.namespace);
    this.#hidden = hidden;
    if (changes.namespaces.size === 0 && this.#common !== null) return (this.#result = { ...this.#result, delta: emptyDelta });
    yield;
    if (changes.addresses || this.#common === null) this.#assignAddresses();
    yield;
    const replaced: Replaced[] = [];
    if (changes.common || this.#common === null) this.#makeCommon(replaced);
    yield;
    yield* this.#makeParts(changes, replaced);
    yield* this.#makeBindings(changes);
    const delta = yield* this.#assembly.replace(replaced);
    yield;
    return (this.#result = this.#gather(delta));
  }

  *#regroup(touched: ReadonlyMap<string, readonly Placed<Resource>[]>): Steps<Changes> {
    const changes: Changes = { namespaces: new Set(), addresses: false, common: false, services: new Set() };
    for (const [name, list] of touched) {
      yield;
      const before = this.#groups.get(name);
      const after = groupOf(name, list) ?? undefined;
      const differs = (kind: Exclude<keyof NamespaceResources, "name" | "namespace">): boolean => !sameItems(before?.[kind], after?.[kind]);
      const [services, entries, gateways] = [differs("services"), differs("serviceEntries"), differs("gateways")];
      const namespace = before?.namespace !== after?.namespace;
      const policies = differs("policies") || differs("peers");
      // A group without anything is not nothing: it is what a namespace is known by.
      if (!services && !entries && !gateways && !namespace && !policies && !differs("entries") && (before === undefined) === (after === undefined)) continue;
      changes.namespaces.add(name);
      if (services || entries) changes.addresses = true;
      if (gateways || namespace || (policies && name === this.#options.rootNamespace)) changes.common = true;
      if (services) this.#serviceChanged(before, after, changes);
      if (after === undefined) this.#groups.delete(name);
      else this.#groups.set(name, after);
    }
    return changes;
  }

  #serviceChanged(before: NamespaceResources | undefined, after: NamespaceResources | undefined, changes: Changes): void {
    const names = new Set(after?.services.map(({ resource }) => `${resource.namespace}/${resource.name}`));
    for (const { resource } of before?.services ?? []) {
      const name = `${resource.namespace}/${resource.name}`;
      if (names.has(name) || !this.#serviceNames.delete(name)) continue;
      changes.services.add(name);
    }
    for (const name of names) {
      if (this.#serviceNames.has(name)) continue;
      this.#serviceNames.add(name);
      changes.services.add(name);
    }
    if (usesSaid(resourcesOf(before?.services)) !== usesSaid(resourcesOf(after?.services))) changes.common = true;
  }

  #assignAddresses(): void {
    const diagnostics: ResourceDiagnostic[] = [];
    const groups = [...this.#groups.values()];
    this.#addresses = assignServiceAddresses(groups.flatMap(({ services }) => services), this.#options.serviceCidrs, collectInto(diagnostics), groups.flatMap(({ serviceEntries }) => serviceEntries), this.#waypointServices);
    this.#addressDiagnostics = diagnostics;
  }

  #makeCommon(replaced: Replaced[]): void {
    const diagnostics: ResourceDiagnostic[] = [];
    const groups = [...this.#groups.values()];
    const root = this.#groups.get(this.#options.rootNamespace);
    const gateways = groups.flatMap((group) => group.gateways);
    const networks = translateRemoteGateways(gateways, this.#options, collectInto(diagnostics));
    const uses = waypointUses(groups.flatMap(({ services }) => resourcesOf(services)), resourcesOf(gateways).filter(isWaypoint));
    const mesh: MeshContext = {
      admission: new WaypointAdmission([...groups.flatMap(({ namespace }) => (namespace === null ? [] : [namespace])), ...gateways], this.#serviceNames),
      rootPolicies: (root?.policies ?? []).filter(({ resource }) => policySelector(resource) !== null),
      // Which of several holds is reported once, with the root namespace's own context.
      meshPeer: oldest((root?.peers ?? []).filter(({ resource }) => peerSelector(resource) === null), () => () => {}),
      networks,
      waypointFor: ({ namespace, name }) => uses.get(`${namespace}/${name}`) ?? "service",
      waypointUses: [...uses].map(([name, use]) => `${name}=${use}`).sort().join(" "),
    };
    const records: Records = { ...emptySnapshot, workloads: new Map(networks.workloads.map((gateway) => [gateway.uid, gateway])) };
    replaced.push({ before: this.#common?.gateways, after: records });
    this.#common = { mesh, gateways: records, diagnostics };
  }

  *#makeParts(changes: Changes, replaced: Replaced[]): Steps<void> {
    // Where addresses are given out, one service may have another's.
    const all = changes.common || this.#result === NOTHING || (changes.addresses && this.#options.serviceCidrs.length > 0);
    for (const name of all ? new Set([...this.#groups.keys(), ...changes.namespaces]) : changes.namespaces) {
      const group = this.#groups.get(name);
      const before = this.#parts.get(name);
      if (group === undefined) {
        this.#parts.delete(name);
        if (before !== undefined) replaced.push({ before: before.records, after: undefined });
        continue;
      }
      const context = yield* this.#contextOf(group, before?.context ?? null);
      if (before !== undefined && before.context === context && sameItems(before.entries, group.entries)) continue;
      const parts = yield* this.#partsOf(group, context);
      this.#parts.set(name, parts);
      replaced.push({ before: before?.records, after: parts.records });
    }
  }

  *#contextOf(group: NamespaceResources, previous: NamespaceContext | null): Steps<NamespaceContext> {
    const { mesh } = this.#common!;
    const labels = group.namespace?.resource.labels ?? {};
    const bound = boundWaypoint({ namespace: group.name, labels: {} }, { labels }, mesh.admission);
    const waypointFor = bound === null ? "" : mesh.waypointFor(bound);
    // Whoever writes a directory runs the mesh, and so does whoever writes in the root namespace.
    const beyond: SelectorsBeyond = this.#members === "entries" || group.name === this.#options.rootNamespace ? new Map() : yield* selectorsBeyond(group);
    const inputs: unknown[] = [
      "beyond", ...[...beyond].flatMap(([placed, { selected, hosts }]) => [placed, selected, hosts]), group.namespace, waypointFor, mesh.admission.keyFor(group.name), mesh.meshPeer, "services", ...group.services, "addresses", ...group.services.map(({ resource }) => (this.#addresses.get(resource) ?? []).join()),
      "serviceEntries", ...group.serviceEntries, "hosts", ...group.serviceEntries.flatMap(({ resource }) => resource.spec.hosts.map((host) => (this.#addresses.get(`${resource.namespace}/${host}`) ?? []).join())),
      "hidden", ...[...group.entries, ...group.serviceEntries].filter((placed) => this.#hidden.has(placed)), "policies", ...group.policies, "root", ...mesh.rootPolicies, "peers", ...group.peers, "networks", JSON.stringify([...mesh.networks.gateways]),
      ...(this.#members === "entriesAndPods" ? [mesh.waypointUses] : []),
    ];
    yield;
    if (previous !== null && sameItems(previous.inputs, inputs)) {
      dropUnused(previous.translated, group.entries);
      return previous;
    }
    return yield* buildContext({ namespace: group, mesh, hidden: this.#hidden, addresses: this.#addresses, beyond, inputs, labels, waypointFor, options: this.#options });
  }

  *#partsOf(group: NamespaceResources, context: NamespaceContext): Steps<NamespaceParts> {
    const diagnostics: ResourceDiagnostic[] = [];
    const reportFor = collectInto(diagnostics);
    const services = new Map<NamespacedName, Service>(context.services.map((service) => [namespacedName(service.namespace, service.hostname), service]));
    const workloads = new Map<WorkloadUid, Workload>(context.workloads.map((workload) => [workload.uid, workload]));
    // What the mesh's PeerAuthentication comes to is the same in each of them, and the root namespace's own.
    const own = context.policies.filter(({ namespace }) => namespace === group.name);
    const policies = new Map<NamespacedName, AuthorizationPolicy>(own.map((policy) => [namespacedName(policy.namespace, policy.name), policy]));
    const local: { workload: LocalWorkload; placed: Placed<WorkloadEntryResource> }[] = [];
    const selected = new Set<string>();
    for (const [index, placed] of group.entries.entries()) {
      if (index % ITEMS_PER_STEP === 0) yield;
      const translated = translateEntry(placed, context, this.#options);
      workloads.set(translated.workload.uid, translated.workload);
      if (translated.local !== null) local.push({ workload: translated.local, placed });
      reportBeyond(placed, translated, reportFor(placed));
      for (const { service, port } of translated.missingPorts) {
        reportFor(placed)("warning", "missing_port", ["spec", "ports"], `Service ${service} wants a port named ${JSON.stringify(port)}, which this entry does not have; it is no endpoint for that port`);
      }
      if (this.#members === "entriesAndPods") continue;
      for (const { service } of translated.workload.services) selected.add(service);
      for (const policy of translated.workload.authorizationPolicies) selected.add(policy);
    }
    if (this.#members === "entries") {
      const written = group.services.filter((placed) => !this.#waypointServices.isMade(placed));
      reportUnselected({ ...group, services: written }, selected, this.#common!.mesh, this.#options, reportFor);
    }
    return { context, entries: group.entries, records: { services, workloads, policies }, local, diagnostics };
  }

  *#makeBindings(changes: Changes): Steps<void> {
    const { mesh } = this.#common!;
    for (const [name, { asked }] of this.#bindings) {
      if (!this.#groups.has(name)) this.#bindings.delete(name);
      else if (changes.common || [...changes.services].some((service) => asked.has(service))) changes.namespaces.add(name);
    }
    for (const name of this.#result === NOTHING ? this.#groups.keys() : changes.namespaces) {
      const group = this.#groups.get(name);
      if (group === undefined) continue;
      yield;
      this.#bindings.set(name, bindingsOf(group, mesh, this.#serviceNames));
    }
  }

  #gather(delta: MeshDelta): TranslatedMesh {
    const diagnostics: ResourceDiagnostic[] = [...this.#addressDiagnostics, ...this.#common!.diagnostics];
    const reportFor = collectInto(diagnostics);
    const bindings = new Map<string, WaypointBinding>();
    for (const part of this.#bindings.values()) {
      for (const one of part.diagnostics) diagnostics.push(one);
      for (const [resource, binding] of part.bindings) bindings.set(resource, binding);
    }
    const local: NamespaceParts["local"][number][] = [];
    for (const part of this.#parts.values()) {
      for (const one of part.context.diagnostics) diagnostics.push(one);
      for (const one of part.diagnostics) diagnostics.push(one);
      for (const one of part.local) local.push(one);
    }
    const mesh = this.#assembly.snapshot;
    if (this.#members === "entries") reportRootUnselected(this.#common!.mesh, mesh.workloads, reportFor);
    return { mesh, delta, localWorkloads: oneForEachNamespace(local, reportFor), bindings, diagnostics };
  }
}

const resourcesOf = <R>(placed: readonly Placed<R>[] = []): readonly R[] => placed.map(({ resource }) => resource);

function* differing<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): Iterable<T> {
  for (const item of a) if (!b.has(item)) yield item;
  for (const item of b) if (!a.has(item)) yield item;
}

function dropUnused(translated: NamespaceContext["translated"], entries: readonly Placed<WorkloadEntryResource>[]): void {
  if (translated.size <= entries.length) return;
  const used = new Set(entries);
  for (const placed of translated.keys()) if (!used.has(placed)) translated.delete(placed);
}
