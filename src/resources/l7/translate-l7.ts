// All resources in force into the L7 configuration. Each resource is translated by itself, and again only when it, or something that it
// asked about, changed; what several say of one service is put together again only when one of them changed:
//
//   what came and went ──▶ what is asked about (world) ──▶ who asked about that ──▶ their translations ──▶ services that they speak of ──▶ delta

import type { NamespacedName, WorkloadUid } from "../../core/brand.ts";
import { unreachable } from "../../core/result.ts";
import { atOnce, eachInSteps, type Steps } from "../../core/steps.ts";
import type { LoginPolicy, RequestAuthentication, RequestPolicy } from "../../mesh/l7/access.ts";
import { EMPTY_L7_DELTA, EMPTY_L7_SNAPSHOT, type L7Delta, type L7Snapshot } from "../../mesh/l7/delta.ts";
import type { Route } from "../../mesh/l7/route.ts";
import type { TelemetryPolicy } from "../../mesh/l7/telemetry.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { Waypoint } from "../../mesh/l7/waypoint.ts";
import type { WorkloadLabels } from "../../mesh/l7/workload-labels.ts";
import type { Resource } from "../kinds.ts";
import type { Labels } from "../object-meta.ts";
import { homeOf, sameItems } from "../namespace-resources.ts";
import { collectInto, identityKey, type Placed, type ResourceDiagnostic, type TranslationOptions } from "../resource.ts";
import { deepEqual, equalButSource } from "../mesh-delta.ts";
import { AttachedRoutes } from "./attached-routes.ts";
import { namesByWildcard, wildcardsBeyond } from "./bounds.ts";
import { Counted } from "./counted.ts";
import { Dependents } from "./dependents.ts";
import { isEmptyL7Delta, samePolicies, serviceOf } from "./l7-delta.ts";
import { L7Table } from "./l7-table.ts";
import { Members, type Outcome } from "./outcome.ts";
import { ServiceTraffic } from "./service-traffic.ts";
import type { ResourceStatus } from "./status.ts";
import { Statuses } from "./statuses.ts";
import { isTranslated, type NamedRecord, recordName, translateResource, type TranslatedResource } from "./translate-resource.ts";
import { look, partsOfSameAnswers, type Seen } from "./view.ts";
import { labelledEntries, labelsOfPolicies, labelsOfRoute, LabelsTold, type MovedLabels } from "./workload-labels.ts";
import { type TextReference, World } from "./world.ts";

export interface TranslatedL7 {
  readonly snapshot: L7Snapshot;
  /** From the snapshot before to this one. */
  readonly delta: L7Delta;
  /** The same list as before while nothing else is to be told. */
  readonly diagnostics: readonly ResourceDiagnostic[];
  /** What the status of each object would say; of kinds that have one. The same list as before while all say the same. */
  readonly statuses: readonly ResourceStatus[];
}

/** Workloads that no resource makes. */
export interface OtherWorkloads {
  readonly all: Iterable<WorkloadLabels>;
  /** Since the last time. */
  readonly moved: MovedLabels;
}

type Lists = ReadonlyMap<string, readonly Placed<Resource>[]>;

const NO_OTHERS: OtherWorkloads = { all: [], moved: new Map() };
const NO_RESOURCES: readonly Placed<Resource>[] = [];

const tables = () => ({
  waypoints: new L7Table<NamespacedName, Waypoint>(equalButSource),
  routes: new L7Table<string, Route>(equalButSource),
  trafficPolicies: new L7Table<NamespacedName, readonly TrafficPolicy[]>(samePolicies),
  requestPolicies: new L7Table<NamespacedName, RequestPolicy>(deepEqual),
  requestAuthentications: new L7Table<NamespacedName, RequestAuthentication>(deepEqual),
  loginPolicies: new L7Table<NamespacedName, LoginPolicy>(deepEqual),
  telemetry: new L7Table<NamespacedName, TelemetryPolicy>(deepEqual),
});

/** Translates states one after the other, reusing what did not change. The result depends on the last state alone. */
export class L7Translator {
  readonly #options: TranslationOptions;
  readonly #world: World;
  /** Of each namespace what was looked at last. */
  readonly #lists = new Map<string, readonly Placed<Resource>[]>();
  readonly #seen = new Map<Placed<Resource>, Seen<TranslatedResource>>();
  readonly #dependents = new Dependents<Placed<Resource>>();
  /** By namespace, rules with a wildcard that are too many. */
  readonly #beyond = new Map<string, ReadonlySet<Placed<unknown>>>();
  readonly #references = new Counted<TextReference>();
  /** By service, who names a subset of it. */
  readonly #wanted = new Members<NamespacedName, Placed<Resource>, Placed<Resource>>();
  readonly #wantersMoved = new Set<Placed<Resource>>();
  readonly #labels = new LabelsTold();
  /** Of entries, since labels were told last. */
  readonly #entriesMoved = new Map<WorkloadUid, Labels | null>();
  readonly #statuses = new Statuses();
  readonly #said = new Map<string, readonly ResourceDiagnostic[]>();
  /** Of all of these; null when one has changed since. */
  #diagnostics: readonly ResourceDiagnostic[] | null = null;
  readonly #tables = tables();
  readonly #routes: AttachedRoutes;
  readonly #traffic: ServiceTraffic;
  #translated: TranslatedL7 = { snapshot: EMPTY_L7_SNAPSHOT, delta: EMPTY_L7_DELTA, diagnostics: [], statuses: [] };
  /** Something came, went or changed since that was taken. */
  #moved = false;
  /** Translations of single resources done so far: what a test of reuse counts. */
  translationCount = 0;
  /** Resources that asked their questions anew so far. */
  lookCount = 0;

  constructor(options: TranslationOptions) {
    this.#options = options;
    this.#world = new World(options);
    const outcome: Outcome = {
      route: (id, route) => {
        this.#tables.routes.set(id, route);
        this.#labels.lookAt(`route ${id}`, route === null ? [] : labelsOfRoute(route));
      },
      policies: (service, policies) => {
        this.#tables.trafficPolicies.set(service, policies);
        this.#labels.lookAt(`traffic of ${service}`, labelsOfPolicies(policies ?? []));
        for (const wanter of this.#wanted.of(service)) this.#wantersMoved.add(wanter);
      },
      lost: (source, lost) => this.#statuses.setLost(source, lost),
      said: (source, diagnostics) => this.#say(source, diagnostics),
    };
    this.#routes = new AttachedRoutes(outcome);
    this.#traffic = new ServiceTraffic(outcome);
  }

  /** Some rule looks at labels of workloads: what workloads there are matters. */
  get looksAtLabels(): boolean {
    return this.#labels.looksAtLabels;
  }

  /** Secrets and ConfigMaps that the resources looked at last name. */
  get references(): Iterable<TextReference> {
    return this.#references.values();
  }

  /** All resources there are. */
  translate(all: readonly Placed<Resource>[]): TranslatedL7 {
    const touched = new Map<string, readonly Placed<Resource>[]>(Map.groupBy(all, homeOf));
    for (const name of this.#lists.keys()) if (!touched.has(name)) touched.set(name, NO_RESOURCES);
    atOnce(this.update(touched));
    return atOnce(this.take(NO_OTHERS));
  }

  /** @param touched of every namespace in which a resource came, went or changed since the last time, all that is in it now. */
  *update(touched: Lists): Steps<void> {
    const toLookAt = new Set<Placed<Resource>>();
    for (const [home, list] of touched) yield* this.#replace(home, list, toLookAt);
    for (const placed of this.#dependents.of(yield* this.#world.update(touched))) toLookAt.add(placed);
    for (const placed of toLookAt) {
      yield;
      this.#lookAt(placed);
    }
    yield* this.#routes.settle();
    yield* this.#traffic.settle();
    yield* eachInSteps(this.#wantersMoved, (placed) => this.#reportMissingSubsets(placed));
    this.#wantersMoved.clear();
  }

  /** What holds now, and how it came from what was taken before. */
  *take(others: OtherWorkloads): Steps<TranslatedL7> {
    const labelsMoved = this.#labels.isBehind || (this.looksAtLabels && (others.moved.size > 0 || this.#entriesMoved.size > 0));
    if (!this.#moved && !labelsMoved) return (this.#translated = { ...this.#translated, delta: EMPTY_L7_DELTA });
    const labels = yield* this.#labels.take(chain(this.#entries(), others.all), new Map([...this.#entriesMoved, ...others.moved]));
    this.#entriesMoved.clear();
    this.#moved = false;
    yield;
    const { waypoints, routes, trafficPolicies, requestPolicies, requestAuthentications, loginPolicies, telemetry } = this.#tables;
    const [w, r, t, p, a, l, m] = [waypoints.take(), routes.take(), trafficPolicies.take(), requestPolicies.take(), requestAuthentications.take(), loginPolicies.take(), telemetry.take()];
    const delta: L7Delta = {
      waypoints: w.upserted, routes: r.upserted, requestPolicies: p.upserted, requestAuthentications: a.upserted, loginPolicies: l.upserted, telemetry: m.upserted, workloadLabels: labels.upserted,
      trafficPolicies: t.upserted.map((policies) => ({ service: serviceOf(policies), policies })),
      removedWaypoints: w.removed, removedRoutes: r.removed, removedTrafficPolicies: t.removed, removedRequestPolicies: p.removed, removedRequestAuthentications: a.removed, removedLoginPolicies: l.removed,
      removedTelemetry: m.removed, removedWorkloadLabels: labels.removed,
    };
    this.#diagnostics ??= [...this.#said.values()].flat();
    return (this.#translated = {
      snapshot: { waypoints: w.map, routes: r.map, trafficPolicies: t.map, requestPolicies: p.map, requestAuthentications: a.map, loginPolicies: l.map, telemetry: m.map, workloadLabels: labels.map },
      delta: isEmptyL7Delta(delta) ? EMPTY_L7_DELTA : delta, diagnostics: this.#diagnostics, statuses: this.#statuses.list,
    });
  }

  /** What was in a namespace goes as far as it is not there any more; what came is to be looked at. */
  *#replace(home: string, list: readonly Placed<Resource>[], toLookAt: Set<Placed<Resource>>): Steps<void> {
    const before = this.#lists.get(home) ?? NO_RESOURCES;
    if (sameItems(before, list)) return;
    const now = new Set(list);
    const gone = before.filter((placed) => !now.has(placed));
    const known = new Set(before);
    const came = list.filter((placed) => !known.has(placed));
    if (list.length === 0) this.#lists.delete(home);
    else this.#lists.set(home, list);
    yield;
    if (this.looksAtLabels) {
      for (const { uid } of labelledEntries(gone, this.#options.clusterId)) this.#entriesMoved.set(uid, null);
      for (const { uid, labels } of labelledEntries(came, this.#options.clusterId)) this.#entriesMoved.set(uid, labels);
    }
    const beyondBefore = this.#beyond.get(home);
    const beyond = this.#wildcardsBeyond(home, list);
    yield* eachInSteps([...gone, ...beyond], (placed) => this.#forget(placed));
    for (const placed of came) if (isTranslated(placed.resource) && !beyond.has(placed)) toLookAt.add(placed);
    for (const placed of list) if (beyondBefore?.has(placed) === true && !beyond.has(placed)) toLookAt.add(placed);
  }

  #wildcardsBeyond(home: string, list: readonly Placed<Resource>[]): ReadonlySet<Placed<Resource>> {
    const diagnostics: ResourceDiagnostic[] = [];
    const beyond = wildcardsBeyond(home === this.#options.rootNamespace ? NO_RESOURCES : list.filter(namesByWildcard), collectInto(diagnostics));
    if (beyond.size === 0) this.#beyond.delete(home);
    else this.#beyond.set(home, beyond);
    this.#say(`wildcards of ${home}`, diagnostics);
    return beyond;
  }

  #lookAt(placed: Placed<Resource>): void {
    this.lookCount++;
    const before = this.#seen.get(placed);
    const parts = before === undefined ? null : partsOfSameAnswers(before, this.#world);
    if (parts !== null) {
      this.#dependents.set(placed, parts);
      return;
    }
    const seen = look(this.#world, (view, report) => translateResource(placed, view, report));
    this.translationCount++;
    if (before !== undefined) this.#withdraw(placed, before);
    this.#seen.set(placed, seen);
    this.#dependents.set(placed, seen.parts);
    this.#bring(placed, seen);
  }

  #forget(placed: Placed<Resource>): void {
    const before = this.#seen.get(placed);
    if (before === undefined) return;
    this.#withdraw(placed, before);
    this.#seen.delete(placed);
    this.#dependents.delete(placed);
    this.#wantersMoved.delete(placed);
  }

  #bring(placed: Placed<Resource>, { value, remarks, references }: Seen<TranslatedResource>): void {
    this.#moved = true;
    this.#say(`resource ${identityKey(placed.resource)}`, remarks.map((remark) => ({ placed, ...remark })));
    this.#references.add(references);
    if (value.named !== null) this.#setNamed(value.named, true);
    this.#routes.add(placed, value.routes, value.attached);
    this.#traffic.add(placed, value.contributions, value.claims);
    for (const { service } of value.subsets) this.#wanted.add(service, placed, placed);
    if (value.subsets.length > 0) this.#wantersMoved.add(placed);
    this.#statuses.set(placed, value.status);
  }

  #withdraw(placed: Placed<Resource>, { value, references }: Seen<TranslatedResource>): void {
    this.#moved = true;
    const identity = identityKey(placed.resource);
    for (const source of [`resource ${identity}`, `subsets of ${identity}`]) this.#say(source, []);
    this.#references.remove(references.keys());
    if (value.named !== null) this.#setNamed(value.named, false);
    this.#routes.remove(placed, value.routes, value.attached);
    this.#traffic.remove(placed, value.contributions, value.claims);
    for (const { service } of value.subsets) this.#wanted.remove(service, placed);
    this.#statuses.set(placed, null);
  }

  #setNamed(named: NamedRecord, isThere: boolean): void {
    const name = recordName(named);
    switch (named.table) {
      case "waypoints": return this.#tables.waypoints.set(name, isThere ? named.record : null);
      case "requestPolicies": return this.#tables.requestPolicies.set(name, isThere ? named.record : null);
      case "requestAuthentications": return this.#tables.requestAuthentications.set(name, isThere ? named.record : null);
      case "loginPolicies": return this.#tables.loginPolicies.set(name, isThere ? named.record : null);
      case "telemetry": return this.#tables.telemetry.set(name, isThere ? named.record : null);
      default: return unreachable(named);
    }
  }

  #reportMissingSubsets(placed: Placed<Resource>): void {
    const diagnostics: ResourceDiagnostic[] = [];
    for (const { service, subset, path } of this.#seen.get(placed)?.value.subsets ?? []) {
      if (this.#tables.trafficPolicies.get(service)?.some((policy) => policy.subset?.name === subset) === true) continue;
      diagnostics.push({ placed, severity: "error", code: "unresolved_reference", path, message: `found the subset ${JSON.stringify(subset)}, which no DestinationRule for ${service} defines; its share of the requests gets 503` });
    }
    this.#say(`subsets of ${identityKey(placed.resource)}`, diagnostics);
  }

  #say(source: string, diagnostics: readonly ResourceDiagnostic[]): void {
    if (diagnostics.length === 0 && !this.#said.has(source)) return;
    this.#moved = true;
    this.#diagnostics = null;
    if (diagnostics.length === 0) this.#said.delete(source);
    else this.#said.set(source, diagnostics);
  }

  *#entries(): Iterable<WorkloadLabels> {
    for (const list of this.#lists.values()) yield* labelledEntries(list, this.#options.clusterId);
  }
}

function* chain<T>(...all: readonly Iterable<T>[]): Iterable<T> {
  for (const some of all) yield* some;
}
