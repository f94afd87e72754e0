// What a waypoint knows of L7: routes, traffic policies, access and telemetry, with the indexes that answer a request without a scan.
// One thread owns it and changes it only by `apply`. What a look-up returns stays the same object until something it was made of
// changes, so that it can key a cache of compiled forms.

import { namespacedName, type NamespacedName, type WorkloadUid } from "../../core/brand.ts";
import { compareText } from "../../core/compare-text.ts";
import type { AccessTarget, LoginPolicy, RequestAuthentication, RequestPolicy } from "./access.ts";
import type { L7Delta } from "./delta.ts";
import { type EffectiveTelemetry, mergeTelemetry } from "./merge-telemetry.ts";
import { mergeTrafficPolicies, policiesFor, type TrafficScope } from "./merge-traffic.ts";
import type { Route, RouteParent } from "./route.ts";
import { TargetIndex } from "./target-index.ts";
import type { TelemetryPolicy } from "./telemetry.ts";
import type { TrafficPolicy } from "./traffic-policy.ts";
import type { Waypoint } from "./waypoint.ts";

/** The routes that decide for one service, port and client namespace: of one protocol, all to be tried together. */
export interface RouteSet {
  /** Null without routes: the service is used as it is. */
  readonly protocol: Route["rules"]["protocol"] | null;
  /** Oldest first, then by `namespace/name`. */
  readonly routes: readonly Route[];
}

/** Who may send which request to a service. */
export interface AccessSet {
  /** Of every action; sorted by `namespace/name`, as the others are. */
  readonly policies: readonly RequestPolicy[];
  readonly authentications: readonly RequestAuthentication[];
  readonly logins: readonly LoginPolicy[];
}

/** What one delta touched, for judging open requests and connections again. */
export interface L7Change {
  readonly routesChanged: ReadonlySet<NamespacedName>;
  readonly trafficChanged: ReadonlySet<NamespacedName>;
  readonly accessChanged: boolean;
  readonly telemetryChanged: boolean;
  readonly waypointsChanged: boolean;
  readonly labelsChanged: boolean;
}

const NO_ROUTES: RouteSet = { protocol: null, routes: [] };
const NO_ACCESS: AccessSet = { policies: [], authentications: [], logins: [] };
const NO_TELEMETRY: EffectiveTelemetry = mergeTelemetry([]);

/** Of routes of several kinds on one port the first of these decides alone (Gateway API, mesh rules). */
const PRECEDENCE: readonly Route["rules"]["protocol"][] = ["grpc", "http", "tls", "tcp"];

interface Cached<T> {
  value: T;
  version: number;
}

interface RouteSlot {
  readonly routes: Map<string, Route>;
  version: number;
  /** Parents of consumer routes by client namespace; null until asked for again. */
  consumers: ReadonlyMap<string, readonly RouteParent[]> | null;
  readonly sets: Map<string, Cached<RouteSet>>;
}

interface TrafficSlot {
  policies: readonly TrafficPolicy[];
  version: number;
  readonly merged: Map<string, Cached<{ readonly sources: readonly TrafficPolicy[]; readonly policy: TrafficPolicy | null }>>;
}

export class L7Store {
  readonly #waypoints = new Map<NamespacedName, Waypoint>();
  readonly #routes = new Map<string, Route>();
  readonly #routeSlots = new Map<NamespacedName, RouteSlot>();
  readonly #traffic = new Map<NamespacedName, TrafficSlot>();
  readonly #policies = new TargetIndex<RequestPolicy>();
  readonly #authentications = new TargetIndex<RequestAuthentication>();
  readonly #logins = new TargetIndex<LoginPolicy>();
  readonly #telemetry = new TargetIndex<TelemetryPolicy>();
  readonly #accessSets = new Map<string, Cached<AccessSet>>();
  readonly #telemetrySets = new Map<string, Cached<EffectiveTelemetry>>();
  readonly #labels = new Map<WorkloadUid, Readonly<Record<string, string>>>();
  #accessVersion = 0;
  #telemetryVersion = 0;

  /** Applies one delta as a unit: upserts first, removals last, so that a name in both ends up removed. */
  apply(delta: L7Delta): L7Change {
    const routesChanged = new Set<NamespacedName>();
    const trafficChanged = new Set<NamespacedName>();
    for (const waypoint of delta.waypoints) this.#waypoints.set(nameOf(waypoint), waypoint);
    for (const name of delta.removedWaypoints) this.#waypoints.delete(name);
    for (const route of delta.routes) this.#setRoute(route.id, route, routesChanged);
    for (const id of delta.removedRoutes) this.#setRoute(id, null, routesChanged);
    for (const { service, policies } of delta.trafficPolicies) this.#setTraffic(service, policies, trafficChanged);
    for (const service of delta.removedTrafficPolicies) this.#setTraffic(service, null, trafficChanged);
    const accessChanged = [
      this.#policies.update(delta.requestPolicies, delta.removedRequestPolicies), this.#authentications.update(delta.requestAuthentications, delta.removedRequestAuthentications),
      this.#logins.update(delta.loginPolicies, delta.removedLoginPolicies),
    ].includes(true);
    if (accessChanged) this.#accessVersion++;
    const telemetryChanged = this.#telemetry.update(delta.telemetry, delta.removedTelemetry);
    if (telemetryChanged) this.#telemetryVersion++;
    for (const { uid, labels } of delta.workloadLabels) this.#labels.set(uid, labels);
    for (const uid of delta.removedWorkloadLabels) this.#labels.delete(uid);
    return { labelsChanged: delta.workloadLabels.length + delta.removedWorkloadLabels.length > 0, routesChanged, trafficChanged, accessChanged, telemetryChanged, waypointsChanged: delta.waypoints.length + delta.removedWaypoints.length > 0 };
  }

  /** Those of its labels that some rule looks at; null without any. */
  labels(uid: WorkloadUid): Readonly<Record<string, string>> | null {
    return this.#labels.get(uid) ?? null;
  }

  /** By `namespace/name` of the Gateway. */
  waypoint(name: NamespacedName): Waypoint | null {
    return this.#waypoints.get(name) ?? null;
  }

  waypoints(): IterableIterator<Waypoint> {
    return this.#waypoints.values();
  }

  /** All of them, whichever service they are for. */
  authentications(): IterableIterator<RequestAuthentication> {
    return this.#authentications.values();
  }

  /** All of them, whichever service they are for. */
  logins(): IterableIterator<LoginPolicy> {
    return this.#logins.values();
  }

  /** @param clientNamespace null for a client whose namespace is not known: it has the producer's routes. */
  routes(service: NamespacedName, port: number, clientNamespace: string | null): RouteSet {
    const slot = this.#routeSlots.get(service);
    if (slot === undefined) return NO_ROUTES;
    slot.consumers ??= consumersOf(slot, service);
    const consumer = clientNamespace !== null && (slot.consumers.get(clientNamespace)?.some((parent) => covers(parent, port)) ?? false);
    const key = consumer ? `${port}/${clientNamespace}` : String(port);
    return cached(slot.sets, key, slot.version, (before) => {
      const chosen = chooseRoutes(slot, service, port, consumer ? clientNamespace : null);
      return before !== undefined && sameItems(before.routes, chosen.routes) ? before : chosen;
    });
  }

  /**
   * Everything that is said of one port, subset and client namespace of a service, merged; null when nothing is.
   * With a subset asked for, `subset` null in what comes back means that nobody defined it: its requests cannot be sent.
   */
  traffic(service: NamespacedName, scope: TrafficScope): TrafficPolicy | null {
    const slot = this.#traffic.get(service);
    if (slot === undefined) return null;
    const scoped = slot.policies.some((policy) => policy.clientNamespace !== null && policy.clientNamespace === scope.clientNamespace);
    const key = `${scope.port ?? ""}/${scope.subset ?? ""}/${scoped ? scope.clientNamespace : ""}`;
    return cached(slot.merged, key, slot.version, (before) => {
      const sources = policiesFor(slot.policies, scope);
      return before !== undefined && sameItems(before.sources, sources) ? before : { sources, policy: mergeTrafficPolicies(sources) };
    }).policy;
  }

  /** @param waypoint `namespace/name` of the Gateway that the service is behind. */
  access(service: NamespacedName, waypoint: NamespacedName): AccessSet {
    return cached(this.#accessSets, `${service} ${waypoint}`, this.#accessVersion, (before = NO_ACCESS) => {
      const [policies, authentications, logins] = [this.#policies.of(service, waypoint), this.#authentications.of(service, waypoint), this.#logins.of(service, waypoint)];
      const same = sameItems(before.policies, policies) && sameItems(before.authentications, authentications) && sameItems(before.logins, logins);
      return same ? before : { policies, authentications, logins };
    });
  }

  telemetry(service: NamespacedName, waypoint: NamespacedName): EffectiveTelemetry {
    return cached(this.#telemetrySets, `${service} ${waypoint}`, this.#telemetryVersion, (before = NO_TELEMETRY) => {
      const sources = this.#telemetry.of(service, waypoint, moreSpecific);
      return sameItems(before.sources, sources) ? before : mergeTelemetry(sources);
    });
  }

  /** Forgets what was looked up for a service that is gone; what the configuration says of it stays. */
  forget(service: NamespacedName): void {
    this.#routeSlots.get(service)?.sets.clear();
    this.#traffic.get(service)?.merged.clear();
    for (const sets of [this.#accessSets, this.#telemetrySets]) for (const key of sets.keys()) if (key.startsWith(`${service} `)) sets.delete(key);
  }

  #setRoute(id: string, route: Route | null, changed: Set<NamespacedName>): void {
    const before = this.#routes.get(id);
    for (const { service } of before?.parents ?? []) {
      const slot = this.#routeSlots.get(service);
      if (slot === undefined) continue;
      slot.routes.delete(id);
      slot.version++;
      slot.consumers = null;
      changed.add(service);
      if (slot.routes.size === 0) this.#routeSlots.delete(service);
    }
    if (route === null) {
      this.#routes.delete(id);
      return;
    }
    this.#routes.set(id, route);
    for (const { service } of route.parents) {
      let slot = this.#routeSlots.get(service);
      if (slot === undefined) this.#routeSlots.set(service, (slot = { routes: new Map(), version: 0, consumers: null, sets: new Map() }));
      slot.routes.set(id, route);
      slot.version++;
      slot.consumers = null;
      changed.add(service);
    }
  }

  #setTraffic(service: NamespacedName, policies: readonly TrafficPolicy[] | null, changed: Set<NamespacedName>): void {
    const slot = this.#traffic.get(service);
    if (policies === null || policies.length === 0) {
      if (this.#traffic.delete(service)) changed.add(service);
      return;
    }
    changed.add(service);
    if (slot === undefined) this.#traffic.set(service, { policies, version: 0, merged: new Map() });
    else {
      slot.policies = policies;
      slot.version++;
    }
  }
}

const nameOf = (record: { readonly namespace: string; readonly name: string }): NamespacedName => namespacedName(record.namespace, record.name);

function cached<T>(cache: Map<string, Cached<T>>, key: string, version: number, make: (before: T | undefined) => T): T {
  const entry = cache.get(key);
  if (entry !== undefined && entry.version === version) return entry.value;
  const value = make(entry?.value);
  if (entry === undefined) cache.set(key, { value, version });
  else {
    entry.value = value;
    entry.version = version;
  }
  return value;
}

const sameItems = (a: readonly unknown[], b: readonly unknown[]): boolean => a.length === b.length && a.every((item, i) => item === b[i]);

const covers = (parent: RouteParent, port: number): boolean => parent.port === null || parent.port === port;

function consumersOf(slot: RouteSlot, service: NamespacedName): Map<string, RouteParent[]> {
  const consumers = new Map<string, RouteParent[]>();
  for (const { parents } of slot.routes.values()) {
    for (const parent of parents) {
      if (parent.service !== service || parent.clientNamespace === null) continue;
      const known = consumers.get(parent.clientNamespace);
      if (known === undefined) consumers.set(parent.clientNamespace, [parent]);
      else known.push(parent);
    }
  }
  return consumers;
}

function chooseRoutes(slot: RouteSlot, service: NamespacedName, port: number, clientNamespace: string | null): RouteSet {
  const attached = [...slot.routes.values()].filter(({ parents }) => parents.some((parent) => parent.service === service && parent.clientNamespace === clientNamespace && covers(parent, port)));
  const protocol = PRECEDENCE.find((one) => attached.some(({ rules }) => rules.protocol === one));
  if (protocol === undefined) return NO_ROUTES;
  const routes = attached.filter(({ rules }) => rules.protocol === protocol).sort(olderRoute);
  // A VirtualService beside routes of the Gateway API does not hold: the two orders of matching cannot be mixed.
  const standard = routes.filter(({ rules }) => "precedence" in rules && rules.precedence === "gatewayApi");
  return { protocol, routes: standard.length > 0 ? standard : routes };
}

function olderRoute(a: Route, b: Route): number {
  return a.createdMs - b.createdMs || compareText(nameOf(a), nameOf(b)) || compareText(a.id, b.id);
}

/** Telemetry of the mesh first, then of a namespace, of a waypoint, of a service. */
function moreSpecific(a: AccessTarget, b: AccessTarget): number {
  return rank(a) - rank(b);
}

function rank(target: AccessTarget): number {
  switch (target.kind) {
    case "namespace": return target.namespace === "" ? 0 : 1;
    case "waypoint": return 2;
    case "service": return 3;
  }
}
