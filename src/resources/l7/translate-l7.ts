// All resources in force into the L7 configuration. Each resource is translated by itself and again only when it, or something that
// it asked about, changed; what several resources say of one service is merged, and merged again only when one of them changed.

import type { NamespacedName, WorkloadUid } from "../../core/brand.ts";
import { namespacedName } from "../../core/brand.ts";
import { atOnce, ITEMS_PER_STEP, type Steps } from "../../core/steps.ts";
import type { LoginPolicy, RequestAuthentication, RequestPolicy } from "../../mesh/l7/access.ts";
import type { L7Snapshot } from "../../mesh/l7/delta.ts";
import type { Route } from "../../mesh/l7/route.ts";
import type { TelemetryPolicy } from "../../mesh/l7/telemetry.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { Waypoint } from "../../mesh/l7/waypoint.ts";
import type { WorkloadLabels } from "../../mesh/l7/workload-labels.ts";
import { formatFieldPath } from "../diagnostic.ts";
import type { Resource } from "../kinds.ts";
import { WAYPOINT_CLASSES } from "../kinds/gateway.ts";
import { homeOf, sameItems } from "../namespace-resources.ts";
import { collectInto, type Placed, type ResourceDiagnostic, type ResourceOf, type TranslationOptions } from "../resource.ts";
import { describePlaced } from "./age.ts";
import { boundedContributions, boundRoutes, wildcardsBeyond } from "./bounds.ts";
import type { Contribution } from "./contribution.ts";
import { mergeContributions, type PlacedContribution } from "./merge-contributions.ts";
import { type AttachedRoute, findConflicts, type LostParent, lostClaims, type PlacedClaim } from "./route-conflicts.ts";
import { ACCEPTED, condition, type ResourceStatus } from "./status.ts";
import { translateLoginPolicy, translateRequestAuthentication, translateRequestPolicy, translateTokenIntrospection } from "./translate-access.ts";
import { translateDestinationRule } from "./translate-destination-rule.ts";
import { translateEgress } from "./translate-egress.ts";
import { translateConnectionRoute, translateGrpcRoute, translateHttpRoute, type TranslatedRoute } from "./translate-routes.ts";
import { translateDefaults, translateTelemetry } from "./translate-telemetry.ts";
import { translateBackendTls, translateTrafficPolicy, translateXBackendTraffic, type TranslatedTraffic } from "./translate-traffic.ts";
import { type TranslatedVirtualService, translateVirtualService } from "./translate-virtual-service.ts";
import { translateWaypoint } from "./translate-waypoint.ts";
import { type Remark, type Translated, Translations } from "./view.ts";
import { labelledEntries, labelsLookedAt, labelsTold } from "./workload-labels.ts";
import { isAskedAbout, type TextReference, World } from "./world.ts";

export interface TranslatedL7 {
  readonly snapshot: L7Snapshot;
  readonly diagnostics: readonly ResourceDiagnostic[];
  /** What the status of each object would say; of kinds that have one. */
  readonly statuses: readonly ResourceStatus[];
}

interface Merged {
  readonly members: readonly PlacedContribution[];
  readonly policies: readonly TrafficPolicy[];
  readonly diagnostics: readonly ResourceDiagnostic[];
}

/** What one pass over resources of one sort gathers. */
interface Pass {
  readonly waypoints: Map<NamespacedName, Waypoint>;
  readonly routes: Map<string, Route>;
  readonly requestPolicies: Map<NamespacedName, RequestPolicy>;
  readonly requestAuthentications: Map<NamespacedName, RequestAuthentication>;
  readonly loginPolicies: Map<NamespacedName, LoginPolicy>;
  readonly telemetry: Map<NamespacedName, TelemetryPolicy>;
  readonly contributions: Map<NamespacedName, PlacedContribution[]>;
  readonly attached: AttachedRoute[];
  readonly claims: PlacedClaim[];
  readonly subsets: { readonly placed: Placed<Resource>; readonly wanted: TranslatedVirtualService["subsets"][number] }[];
  readonly statuses: { readonly placed: Placed<ResourceOf<string, unknown>>; readonly status: ResourceStatus }[];
  readonly diagnostics: ResourceDiagnostic[];
  readonly references: Map<string, TextReference>;
}

/** Resources of one sort, which have to do with each other and with no other sort; and what came of each. */
interface Sort {
  readonly list: readonly Placed<Resource>[];
  readonly results: readonly (Translated<unknown> | null)[];
  readonly pass: Pass;
}

const SORTS = ["routes", "traffic", "access"] as const;
type SortName = (typeof SORTS)[number];

const SORT_OF: Readonly<Record<Resource["kind"], SortName | null>> = {
  HTTPRoute: "routes", GRPCRoute: "routes", TCPRoute: "routes", TLSRoute: "routes", VirtualService: "routes",
  DestinationRule: "traffic", BackendTLSPolicy: "traffic", XBackendTrafficPolicy: "traffic", TrafficPolicy: "traffic", ServiceEntry: "traffic",
  AuthorizationPolicy: "access", RequestAuthentication: "access", TokenIntrospection: "access", LoginPolicy: "access", Telemetry: "access", MeshConfig: "access", Gateway: "access", GatewayClass: "access",
  Namespace: null, Service: null, WorkloadEntry: null, PeerAuthentication: null, ReferenceGrant: null, ConfigMap: null, Secret: null,
};

/** Rules with a wildcard that are not looked at. */
interface Beyond {
  readonly list: readonly Placed<Resource>[];
  readonly beyond: ReadonlySet<Placed<ResourceOf<string, unknown>>>;
  readonly diagnostics: readonly ResourceDiagnostic[];
}

interface HeldRoutes {
  readonly sort: Sort;
  readonly routes: ReadonlyMap<string, Route>;
  readonly lost: readonly LostParent[];
  readonly diagnostics: readonly ResourceDiagnostic[];
}

interface HeldTraffic {
  readonly sort: Sort;
  readonly policies: ReadonlyMap<NamespacedName, readonly TrafficPolicy[]>;
  readonly lost: readonly LostParent[];
  readonly diagnostics: readonly ResourceDiagnostic[];
}

export class L7Translator {
  readonly #options: TranslationOptions;
  readonly #world: World;
  readonly #httpRoutes = new Translations(translateHttpRoute);
  readonly #grpcRoutes = new Translations(translateGrpcRoute);
  readonly #connectionRoutes = new Translations(translateConnectionRoute);
  readonly #virtualServices = new Translations(translateVirtualService);
  readonly #destinationRules = new Translations(translateDestinationRule);
  readonly #egress = new Translations(translateEgress);
  readonly #backendTls = new Translations(translateBackendTls);
  readonly #xTraffic = new Translations(translateXBackendTraffic);
  readonly #trafficPolicies = new Translations(translateTrafficPolicy);
  readonly #requestPolicies = new Translations(translateRequestPolicy);
  readonly #authentications = new Translations(translateRequestAuthentication);
  readonly #introspections = new Translations(translateTokenIntrospection);
  readonly #logins = new Translations(translateLoginPolicy);
  readonly #telemetry = new Translations(translateTelemetry);
  readonly #defaults = new Translations(translateDefaults);
  readonly #waypoints = new Translations(translateWaypoint);
  readonly #sorts = new Map<SortName, Sort>();
  #beyond: Beyond | null = null;
  #routes: HeldRoutes | null = null;
  #traffic: HeldTraffic | null = null;
  #labelNames: ReadonlySet<string> = new Set();
  #labels: ReadonlyMap<WorkloadUid, WorkloadLabels> = new Map();
  #merged = new Map<NamespacedName, Merged>();

  constructor(options: TranslationOptions) {
    this.#options = options;
    this.#world = new World(options);
  }

  /** Some rule looks at labels of workloads: what workloads there are matters. */
  get looksAtLabels(): boolean {
    return this.#labelNames.size > 0;
  }

  /** @param others workloads that no resource here makes. */
  translate(resources: readonly Placed<Resource>[], others: Iterable<WorkloadLabels> = []): TranslatedL7 {
    return atOnce(this.steps(resources, others));
  }

  *steps(resources: readonly Placed<Resource>[], others: Iterable<WorkloadLabels>): Steps<TranslatedL7> {
    const { homes, lists } = yield* partition(resources);
    yield* this.#world.update(homes);
    const beyond = this.#wildcardsBeyond(lists);
    const sorts: Sort[] = [];
    for (const name of SORTS) sorts.push(yield* this.#translateSort(name, lists[name], beyond.beyond));
    const [ofRoutes, ofTraffic, ofAccess] = sorts as [Sort, Sort, Sort];
    const [routesBefore, trafficBefore] = [this.#routes, this.#traffic];
    const routes = yield* this.#holdRoutes(ofRoutes);
    const traffic = yield* this.#holdTraffic(ofTraffic);
    const missing: ResourceDiagnostic[] = [];
    reportMissingSubsets(ofRoutes.pass, traffic.policies, missing);
    yield;
    if (routes !== routesBefore || traffic !== trafficBefore) this.#labelNames = labelsLookedAt(routes.routes.values(), traffic.policies.values());
    yield;
    this.#labels = yield* labelsTold([labelledEntries(resources, this.#options.clusterId), others], this.#labelNames, this.#labels);
    const { waypoints, requestPolicies, requestAuthentications, loginPolicies, telemetry } = ofAccess.pass;
    return {
      snapshot: { waypoints, routes: routes.routes, trafficPolicies: traffic.policies, requestPolicies, requestAuthentications, loginPolicies, telemetry, workloadLabels: this.#labels },
      diagnostics: [...beyond.diagnostics, ...sorts.flatMap(({ pass }) => pass.diagnostics), ...routes.diagnostics, ...traffic.diagnostics, ...missing],
      statuses: withConflicts(sorts.flatMap(({ pass }) => pass.statuses), [...routes.lost, ...traffic.lost]),
    };
  }

  /** Secrets and ConfigMaps that the resources translated last name. */
  get references(): Iterable<TextReference> {
    return new Map([...this.#sorts.values()].flatMap(({ pass }) => [...pass.references])).values();
  }

  #wildcardsBeyond({ routes, traffic }: Lists): Beyond {
    const list = [...routes, ...traffic];
    if (this.#beyond !== null && sameItems(this.#beyond.list, list)) return this.#beyond;
    const diagnostics: ResourceDiagnostic[] = [];
    return (this.#beyond = { list, beyond: wildcardsBeyond(list, this.#options.rootNamespace, collectInto(diagnostics)), diagnostics });
  }

  *#translateSort(name: SortName, list: readonly Placed<Resource>[], beyond: ReadonlySet<Placed<ResourceOf<string, unknown>>>): Steps<Sort> {
    const before = this.#sorts.get(name);
    const results: (Translated<unknown> | null)[] = [];
    const pass: Pass = {
      waypoints: new Map(), routes: new Map(), requestPolicies: new Map(), requestAuthentications: new Map(), loginPolicies: new Map(), telemetry: new Map(), contributions: new Map(),
      attached: [], claims: [], subsets: [], statuses: [], diagnostics: [], references: new Map(),
    };
    for (const placed of list) {
      yield;
      results.push(beyond.has(placed) ? null : this.#translateOne(placed, pass));
    }
    if (before !== undefined && sameItems(before.list, list) && sameItems(before.results, results)) return before;
    const sort: Sort = { list, results, pass };
    this.#sorts.set(name, sort);
    return sort;
  }

  *#holdRoutes(sort: Sort): Steps<HeldRoutes> {
    if (this.#routes?.sort === sort) return this.#routes;
    const diagnostics: ResourceDiagnostic[] = [];
    const bounded = boundRoutes(sort.pass.attached, sort.pass.routes, collectInto(diagnostics));
    yield;
    const conflicts = findConflicts(bounded.attached, collectInto(diagnostics));
    return (this.#routes = { sort, routes: sort.pass.routes, lost: [...bounded.lost, ...conflicts], diagnostics });
  }

  *#holdTraffic(sort: Sort): Steps<HeldTraffic> {
    if (this.#traffic?.sort === sort) return this.#traffic;
    const diagnostics: ResourceDiagnostic[] = [];
    const policies = yield* this.#mergeTraffic(sort.pass.contributions, diagnostics);
    return (this.#traffic = { sort, policies, lost: lostClaims(sort.pass.claims), diagnostics });
  }

  /** Translations of single resources done so far. */
  get translationCount(): number {
    return [
      this.#httpRoutes, this.#grpcRoutes, this.#connectionRoutes, this.#virtualServices, this.#destinationRules, this.#egress, this.#backendTls, this.#xTraffic, this.#trafficPolicies, this.#requestPolicies, this.#authentications,
      this.#introspections, this.#logins, this.#telemetry, this.#defaults, this.#waypoints,
    ].reduce((sum, { count }) => sum + count, 0);
  }

  /** @returns what came of it, the same as before while nothing that it asked about is another; null for what is none of ours. */
  #translateOne(placed: Placed<Resource>, pass: Pass): Translated<unknown> | null {
    const { resource } = placed;
    const world = this.#world;
    const at = <R extends Resource>(_: R): Placed<R> => placed as Placed<R>;
    const noted = <T>(translated: Translated<T>, add: (value: T) => void): Translated<T> => {
      for (const remark of translated.remarks) pass.diagnostics.push({ placed, ...remark });
      for (const [key, reference] of translated.references) pass.references.set(key, reference);
      add(translated.value);
      return translated;
    };
    const route = (value: TranslatedRoute): void => addRoute(placed, value, pass);
    const traffic = (value: TranslatedTraffic): void => addTraffic(placed, value, pass);
    const contributions = (value: readonly Contribution[]): void => addContributions(placed, value, pass);
    switch (resource.kind) {
      case "HTTPRoute": return noted(this.#httpRoutes.of(at(resource), world), route);
      case "GRPCRoute": return noted(this.#grpcRoutes.of(at(resource), world), route);
      case "TCPRoute":
      case "TLSRoute": return noted(this.#connectionRoutes.of(at(resource), world), route);
      case "VirtualService": return noted(this.#virtualServices.of(at(resource), world), (value) => addVirtualService(placed, value, pass));
      case "DestinationRule": return noted(this.#destinationRules.of(at(resource), world), contributions);
      case "BackendTLSPolicy": return noted(this.#backendTls.of(at(resource), world), traffic);
      case "XBackendTrafficPolicy": return noted(this.#xTraffic.of(at(resource), world), traffic);
      case "TrafficPolicy": return noted(this.#trafficPolicies.of(at(resource), world), traffic);
      case "AuthorizationPolicy": return noted(this.#requestPolicies.of(at(resource), world), (value) => addNamed(pass.requestPolicies, value));
      case "RequestAuthentication": return noted(this.#authentications.of(at(resource), world), (value) => addNamed(pass.requestAuthentications, value));
      case "TokenIntrospection": return noted(this.#introspections.of(at(resource), world), (value) => addNamed(pass.requestAuthentications, value));
      case "LoginPolicy": return noted(this.#logins.of(at(resource), world), (value) => addNamed(pass.loginPolicies, value));
      case "Telemetry": return noted(this.#telemetry.of(at(resource), world), (value) => addNamed(pass.telemetry, value));
      case "MeshConfig":
        if (world.meshConfig === placed) return noted(this.#defaults.of(at(resource), world), (value) => addNamed(pass.telemetry, value));
        return noted({ value: null, remarks: [otherMeshConfig(placed, world)], references: NO_REFERENCES }, () => {});
      case "Gateway":
        if (world.waypointGateway(resource.namespace, resource.name) !== resource) return null;
        return noted(this.#waypoints.of(at(resource), world), (value) => addWaypoint(placed, value, pass));
      case "GatewayClass":
        if (WAYPOINT_CLASSES.includes(resource.name)) pass.statuses.push({ placed, status: classStatus(resource) });
        return null;
      case "ServiceEntry": return resource.spec.resolution === "DYNAMIC_DNS" ? noted(this.#egress.of(at(resource), world), contributions) : null;
      case "Namespace":
      case "Service":
      case "WorkloadEntry":
      case "PeerAuthentication":
      case "ReferenceGrant":
      case "ConfigMap":
      case "Secret": return null;
      default:
        return resource satisfies never;
    }
  }

  *#mergeTraffic(contributions: Pass["contributions"], diagnostics: ResourceDiagnostic[]): Steps<Map<NamespacedName, readonly TrafficPolicy[]>> {
    const merged = new Map<NamespacedName, Merged>();
    const policies = new Map<NamespacedName, readonly TrafficPolicy[]>();
    for (const [service, members] of contributions) {
      yield;
      const before = this.#merged.get(service);
      const same = before !== undefined && before.members.length === members.length && before.members.every(({ placed, contribution }, i) => placed === members[i]!.placed && contribution === members[i]!.contribution);
      const entry = same ? before : mergeService(service, members);
      merged.set(service, entry);
      diagnostics.push(...entry.diagnostics);
      if (entry.policies.length > 0) policies.set(service, entry.policies);
    }
    this.#merged = merged;
    return policies;
  }
}

const NO_REFERENCES: ReadonlyMap<string, TextReference> = new Map();

const classStatuses = new WeakMap<ResourceOf<string, unknown>, ResourceStatus>();

function classStatus(resource: ResourceOf<string, unknown>): ResourceStatus {
  const known = classStatuses.get(resource);
  if (known !== undefined) return known;
  const status: ResourceStatus = { kind: resource.kind, namespace: "", name: resource.name, resourceVersion: resource.resourceVersion, parents: [], conditions: [ACCEPTED] };
  classStatuses.set(resource, status);
  return status;
}

type Lists = Readonly<Record<SortName, readonly Placed<Resource>[]>>;

/** @returns of each namespace what others may ask about, and the lists of each sort. */
function* partition(resources: readonly Placed<Resource>[]): Steps<{ readonly homes: ReadonlyMap<string, readonly Placed<Resource>[]>; readonly lists: Lists }> {
  const homes = new Map<string, Placed<Resource>[]>();
  const lists: Record<SortName, Placed<Resource>[]> = { routes: [], traffic: [], access: [] };
  for (const [index, placed] of resources.entries()) {
    if (index % ITEMS_PER_STEP === 0) yield;
    const sort = SORT_OF[placed.resource.kind];
    if (sort !== null) lists[sort].push(placed);
    if (!isAskedAbout(placed)) continue;
    const home = homeOf(placed);
    const list = homes.get(home);
    if (list === undefined) homes.set(home, [placed]);
    else list.push(placed);
  }
  return { homes, lists };
}

function mergeService(service: NamespacedName, members: readonly PlacedContribution[]): Merged {
  const diagnostics: ResourceDiagnostic[] = [];
  return { members, policies: mergeContributions(service, boundedContributions(members, collectInto(diagnostics)), collectInto(diagnostics)), diagnostics };
}

function addNamed<T extends { readonly namespace: string; readonly name: string }>(map: Map<NamespacedName, T>, record: T | null): void {
  if (record !== null) map.set(namespacedName(record.namespace, record.name), record);
}

function addRoute(placed: Placed<Resource>, { routes, attached, status }: TranslatedRoute, pass: Pass): void {
  const [route] = routes;
  if (route !== undefined) {
    pass.routes.set(route.id, route);
    for (const { path, parents } of attached) for (const { service, port, clientNamespace } of parents) pass.attached.push({ routeId: route.id, placed, rules: route.rules, service, port, clientNamespace, path });
  }
  pass.statuses.push({ placed, status });
}

function addVirtualService(placed: Placed<Resource>, { routes, subsets }: TranslatedVirtualService, pass: Pass): void {
  for (const route of routes) {
    pass.routes.set(route.id, route);
    for (const { service, port, clientNamespace } of route.parents) pass.attached.push({ routeId: route.id, placed, rules: route.rules, service, port, clientNamespace, path: ["spec", "hosts"] });
  }
  for (const wanted of subsets) pass.subsets.push({ placed, wanted });
}

function addContributions(placed: Placed<Resource>, contributions: readonly Contribution[], pass: Pass): void {
  for (const contribution of contributions) {
    const members = pass.contributions.get(contribution.service);
    if (members === undefined) pass.contributions.set(contribution.service, [{ placed, contribution }]);
    else members.push({ placed, contribution });
  }
}

function addTraffic(placed: Placed<Resource>, { contributions, claims = [], status }: TranslatedTraffic, pass: Pass): void {
  for (const claim of claims) pass.claims.push({ placed, claim });
  addContributions(placed, contributions, pass);
  if (status !== null) pass.statuses.push({ placed, status });
}

function addWaypoint(placed: Placed<Resource>, { waypoint, status }: ReturnType<typeof translateWaypoint>, pass: Pass): void {
  pass.waypoints.set(namespacedName(waypoint.namespace, waypoint.name), waypoint);
  pass.statuses.push({ placed, status });
}

function otherMeshConfig(placed: Placed<Resource>, world: World): Remark {
  const { rootNamespace } = world.options;
  const message = placed.resource.namespace === rootNamespace ? `not in force: ${describePlaced(world.meshConfig!)} comes first` : `not in force: found it in ${placed.resource.namespace}, expected it in the root namespace ${rootNamespace}`;
  return { severity: "error", code: "conflict", path: ["metadata", placed.resource.namespace === rootNamespace ? "name" : "namespace"], message };
}

function reportMissingSubsets({ subsets }: Pass, policies: ReadonlyMap<NamespacedName, readonly TrafficPolicy[]>, diagnostics: ResourceDiagnostic[]): void {
  for (const { placed, wanted: { service, subset, path } } of subsets) {
    if (policies.get(service)?.some((policy) => policy.subset?.name === subset)) continue;
    diagnostics.push({ placed, severity: "error", code: "unresolved_reference", path, message: `found the subset ${JSON.stringify(subset)}, which no DestinationRule for ${service} defines; its share of the requests gets 503` });
  }
}

/** The statuses with what the other routes take from each. */
function withConflicts(statuses: Pass["statuses"], lost: readonly LostParent[]): ResourceStatus[] {
  const byPlace = new Map<string, LostParent>();
  for (const one of lost) byPlace.set(placeKey(one.placed, formatFieldPath(one.path)), one);
  if (byPlace.size === 0) return statuses.map(({ status }) => status);
  const losers = new Set(lost.map(({ placed }) => placed));
  return statuses.map(({ placed, status }) => (!losers.has(placed) ? status : {
    ...status,
    parents: status.parents.map((parent) => {
      const conflict = byPlace.get(placeKey(placed, formatFieldPath(parent.path)));
      if (conflict === undefined) return parent;
      return { ...parent, conditions: parent.conditions.map((one) => (one.type === "Accepted" ? condition("Accepted", false, "Conflicted", conflict.message) : one)) };
    }),
  }));
}

const placeKey = ({ resource }: Placed<ResourceOf<string, unknown>>, path: string): string => `${resource.kind}/${resource.namespace}/${resource.name} ${path}`;
