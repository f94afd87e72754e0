// All resources in force into the L7 configuration. Each resource is translated by itself and again only when it, or something that
// it asked about, changed; what several resources say of one service is merged, and merged again only when one of them changed.

import type { NamespacedName, WorkloadUid } from "../../core/brand.ts";
import { namespacedName } from "../../core/brand.ts";
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
import type { Placed, ReportFor, ResourceOf, TranslationOptions } from "../resource.ts";
import type { ResourceDiagnostic } from "../translate-mesh.ts";
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
import { type Translated, Translations } from "./view.ts";
import { labelledEntries, labelsLookedAt, labelsTold } from "./workload-labels.ts";
import { HostCache, isAskedAbout, World, type TextReference } from "./world.ts";

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

/** What one pass over the resources gathers. */
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
}

export class L7Translator {
  readonly #options: TranslationOptions;
  readonly #hosts = new HostCache();
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
  #labelNames: ReadonlySet<string> = new Set();
  #labels: ReadonlyMap<WorkloadUid, WorkloadLabels> = new Map();
  #merged = new Map<NamespacedName, Merged>();
  #world: { readonly resources: readonly Placed<Resource>[]; readonly world: World } | null = null;

  constructor(options: TranslationOptions) {
    this.#options = options;
  }

  /** Some rule looks at labels of workloads: what workloads there are matters. */
  get looksAtLabels(): boolean {
    return this.#labelNames.size > 0;
  }

  /** @param others workloads that no resource here makes. */
  translate(resources: readonly Placed<Resource>[], others: Iterable<WorkloadLabels> = []): TranslatedL7 {
    const world = this.#worldOf(resources.filter(isAskedAbout));
    const pass: Pass = {
      waypoints: new Map(), routes: new Map(), requestPolicies: new Map(), requestAuthentications: new Map(), loginPolicies: new Map(), telemetry: new Map(), contributions: new Map(),
      attached: [], claims: [], subsets: [], statuses: [], diagnostics: [],
    };
    const beyond = wildcardsBeyond(resources, this.#options.rootNamespace, reportInto(pass.diagnostics));
    for (const placed of resources) if (!beyond.has(placed)) this.#translateOne(placed, world, pass);
    const bounded = boundRoutes(pass.attached, pass.routes, reportInto(pass.diagnostics));
    const trafficPolicies = this.#mergeTraffic(pass);
    reportMissingSubsets(pass, trafficPolicies);
    const lost = [...bounded.lost, ...findConflicts(bounded.attached, reportInto(pass.diagnostics)), ...lostClaims(pass.claims)];
    this.#labelNames = labelsLookedAt(pass.routes.values(), trafficPolicies.values());
    this.#labels = labelsTold([...labelledEntries(resources, this.#options.clusterId), ...others], this.#labelNames, this.#labels);
    const workloadLabels = this.#labels;
    const { waypoints, routes, requestPolicies, requestAuthentications, loginPolicies, telemetry } = pass;
    return { snapshot: { waypoints, routes, trafficPolicies, requestPolicies, requestAuthentications, loginPolicies, telemetry, workloadLabels }, diagnostics: pass.diagnostics, statuses: withConflicts(pass.statuses, lost) };
  }

  /** Secrets and ConfigMaps that the resources translated last name. */
  get references(): Iterable<TextReference> {
    return this.#world?.world.asked.values() ?? [];
  }

  #worldOf(resources: readonly Placed<Resource>[]): World {
    const before = this.#world;
    if (before !== null && before.resources.length === resources.length && before.resources.every((placed, i) => placed === resources[i])) return before.world;
    const world = new World(resources, this.#hosts, this.#options);
    this.#world = { resources, world };
    return world;
  }

  /** Translations of single resources done so far. */
  get translationCount(): number {
    return [
      this.#httpRoutes, this.#grpcRoutes, this.#connectionRoutes, this.#virtualServices, this.#destinationRules, this.#egress, this.#backendTls, this.#xTraffic, this.#trafficPolicies, this.#requestPolicies, this.#authentications,
      this.#introspections, this.#logins, this.#telemetry, this.#defaults, this.#waypoints,
    ].reduce((sum, { count }) => sum + count, 0);
  }

  #translateOne(placed: Placed<Resource>, world: World, pass: Pass): void {
    const { resource } = placed;
    const at = <R extends Resource>(_: R): Placed<R> => placed as Placed<R>;
    const noted = <T>({ value, remarks }: Translated<T>): T => {
      for (const remark of remarks) pass.diagnostics.push({ placed, ...remark });
      return value;
    };
    switch (resource.kind) {
      case "HTTPRoute":
        addRoute(placed, noted(this.#httpRoutes.of(at(resource), world)), pass);
        break;
      case "GRPCRoute":
        addRoute(placed, noted(this.#grpcRoutes.of(at(resource), world)), pass);
        break;
      case "TCPRoute":
      case "TLSRoute":
        addRoute(placed, noted(this.#connectionRoutes.of(at(resource), world)), pass);
        break;
      case "VirtualService":
        addVirtualService(placed, noted(this.#virtualServices.of(at(resource), world)), pass);
        break;
      case "DestinationRule":
        addContributions(placed, noted(this.#destinationRules.of(at(resource), world)), pass);
        break;
      case "BackendTLSPolicy":
        addTraffic(placed, noted(this.#backendTls.of(at(resource), world)), pass);
        break;
      case "XBackendTrafficPolicy":
        addTraffic(placed, noted(this.#xTraffic.of(at(resource), world)), pass);
        break;
      case "TrafficPolicy":
        addTraffic(placed, noted(this.#trafficPolicies.of(at(resource), world)), pass);
        break;
      case "AuthorizationPolicy":
        addNamed(pass.requestPolicies, noted(this.#requestPolicies.of(at(resource), world)));
        break;
      case "RequestAuthentication":
        addNamed(pass.requestAuthentications, noted(this.#authentications.of(at(resource), world)));
        break;
      case "TokenIntrospection":
        addNamed(pass.requestAuthentications, noted(this.#introspections.of(at(resource), world)));
        break;
      case "LoginPolicy":
        addNamed(pass.loginPolicies, noted(this.#logins.of(at(resource), world)));
        break;
      case "Telemetry":
        addNamed(pass.telemetry, noted(this.#telemetry.of(at(resource), world)));
        break;
      case "MeshConfig":
        if (world.meshConfig === placed) addNamed(pass.telemetry, noted(this.#defaults.of(at(resource), world)));
        else pass.diagnostics.push({ placed, ...otherMeshConfig(placed, world) });
        break;
      case "Gateway":
        if (world.waypointGateway(resource.namespace, resource.name) !== resource) break;
        addWaypoint(placed, noted(this.#waypoints.of(at(resource), world)), pass);
        break;
      case "GatewayClass":
        if (WAYPOINT_CLASSES.includes(resource.name)) pass.statuses.push({ placed, status: { kind: resource.kind, namespace: "", name: resource.name, resourceVersion: resource.resourceVersion, parents: [], conditions: [ACCEPTED] } });
        break;
      case "ServiceEntry":
        if (resource.spec.resolution === "DYNAMIC_DNS") addContributions(placed, noted(this.#egress.of(at(resource), world)), pass);
        break;
      case "Namespace":
      case "Service":
      case "WorkloadEntry":
      case "PeerAuthentication":
      case "ReferenceGrant":
      case "ConfigMap":
      case "Secret":
        break;
      default:
        resource satisfies never;
    }
  }

  #mergeTraffic({ contributions, diagnostics }: Pass): Map<NamespacedName, readonly TrafficPolicy[]> {
    const merged = new Map<NamespacedName, Merged>();
    const policies = new Map<NamespacedName, readonly TrafficPolicy[]>();
    for (const [service, members] of contributions) {
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

const reportInto = (diagnostics: ResourceDiagnostic[]): ReportFor => (placed) => (severity, code, path, message) => diagnostics.push({ placed, severity, code, path, message });

function mergeService(service: NamespacedName, members: readonly PlacedContribution[]): Merged {
  const diagnostics: ResourceDiagnostic[] = [];
  return { members, policies: mergeContributions(service, boundedContributions(members, reportInto(diagnostics)), reportInto(diagnostics)), diagnostics };
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

function otherMeshConfig(placed: Placed<Resource>, world: World): Omit<ResourceDiagnostic, "placed"> {
  const { rootNamespace } = world.options;
  const message = placed.resource.namespace === rootNamespace ? `not in force: ${describePlaced(world.meshConfig!)} comes first` : `not in force: found it in ${placed.resource.namespace}, expected it in the root namespace ${rootNamespace}`;
  return { severity: "error", code: "conflict", path: ["metadata", placed.resource.namespace === rootNamespace ? "name" : "namespace"], message };
}

function reportMissingSubsets({ subsets, diagnostics }: Pass, policies: ReadonlyMap<NamespacedName, readonly TrafficPolicy[]>): void {
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
  return statuses.map(({ placed, status }) => ({
    ...status,
    parents: status.parents.map((parent) => {
      const conflict = byPlace.get(placeKey(placed, formatFieldPath(parent.path)));
      if (conflict === undefined) return parent;
      return { ...parent, conditions: parent.conditions.map((one) => (one.type === "Accepted" ? condition("Accepted", false, "Conflicted", conflict.message) : one)) };
    }),
  }));
}

const placeKey = ({ resource }: Placed<ResourceOf<string, unknown>>, path: string): string => `${resource.kind}/${resource.namespace}/${resource.name} ${path}`;
