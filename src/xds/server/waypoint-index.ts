// Which L7 records hold at which waypoint. A waypoint is told of those of the services behind it, of the services that their routes and
// policies lead to, and of what is said of it or its namespace; never of anybody else's, as there are keys and secrets among them.

import { namespacedName, type NamespacedName, namespaceHalf } from "../../core/brand.ts";
import { ipFromBytes } from "../../core/ip.ts";
import { addTo, removeFrom } from "../../core/set-index.ts";
import { eachInSteps, type Steps } from "../../core/steps.ts";
import type { AccessTarget } from "../../mesh/l7/access.ts";
import type { L7Snapshot } from "../../mesh/l7/delta.ts";
import type { BackendTarget, Route, RouteFilter } from "../../mesh/l7/route.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { GatewayDestination, Service } from "../../mesh/records.ts";
import type { PublishedState } from "../serving.ts";

/** What holds at one waypoint, by kind; an L7Snapshot of its own. */
export type WaypointRecords = L7Snapshot;

export class WaypointIndex {
  /** What services are bound to, and the services. */
  readonly #bound = new Map<string, Set<NamespacedName>>();
  readonly #bindings = new Map<NamespacedName, readonly string[]>();
  readonly #routes = new Map<NamespacedName, Set<Route>>();
  readonly #routesById = new Map<string, Route>();
  /** Policies without the keys that one waypoint may not have: the same as long as they are the same. */
  readonly #keyless = new WeakMap<readonly TrafficPolicy[], Map<string, readonly TrafficPolicy[]>>();
  #version = 0;

  /** Moves with every change of what any waypoint is told. */
  get version(): number {
    return this.#version;
  }

  /** Half of it is nothing to look at. */
  *update({ delta, l7Delta }: Pick<PublishedState, "delta" | "l7Delta">): Steps<void> {
    if (Object.values(l7Delta).some((part: readonly unknown[]) => part.length > 0)) this.#version++;
    yield* eachInSteps(delta.services, ({ namespace, hostname, waypoints }) => this.#bind(namespacedName(namespace, hostname), waypoints.map(({ gateway }) => keyOf(gateway.destination))));
    yield* eachInSteps(delta.removedServices, (name) => this.#bind(name, []));
    yield* eachInSteps(l7Delta.routes, (route) => this.#setRoute(route.id, route));
    for (const id of l7Delta.removedRoutes) this.#setRoute(id, null);
  }

  /** @param service looks a service up in the same state. */
  recordsOf(gateway: NamespacedName, l7: L7Snapshot, service: (name: NamespacedName) => Service | undefined): WaypointRecords {
    const waypoint = l7.waypoints.get(gateway);
    const behind = new Set<NamespacedName>();
    for (const key of waypoint === undefined ? [] : keysOf(waypoint.service, service(waypoint.service))) for (const name of this.#bound.get(key) ?? []) behind.add(name);
    const routes = new Map<string, Route>();
    for (const name of behind) for (const route of this.#routes.get(name) ?? []) routes.set(route.id, route);
    const namespace = namespaceHalf(gateway);
    const holds = (target: AccessTarget): boolean => {
      switch (target.kind) {
        case "service": return behind.has(target.service);
        case "waypoint": return target.gateway === gateway;
        case "namespace": return target.namespace === "" || target.namespace === namespace;
      }
    };
    const targeted = <K, T extends { readonly targets: readonly AccessTarget[] }>(all: ReadonlyMap<K, T>): Map<K, T> => new Map([...all].filter(([, { targets }]) => targets.some(holds)));
    const requestPolicies = targeted(l7.requestPolicies);
    const telemetry = targeted(l7.telemetry);
    const reached = new Set(behind);
    for (const route of routes.values()) for (const name of servicesOfRoute(route)) reached.add(name);
    for (const { action } of requestPolicies.values()) if (action.kind === "custom" && action.authorizer !== null) reached.add(action.authorizer.service);
    for (const { tracing, accessLog } of telemetry.values()) {
      for (const { service: collector } of tracing?.collectors ?? []) reached.add(collector);
      for (const sink of accessLog?.sinks ?? []) if (sink.kind === "otlp") reached.add(sink.collector.service);
    }
    const trafficPolicies = new Map<NamespacedName, readonly TrafficPolicy[]>();
    // A set that grows while it is walked: a rate limit of one service leads to the service that counts.
    for (const name of reached) {
      const policies = l7.trafficPolicies.get(name);
      if (policies === undefined) continue;
      trafficPolicies.set(name, this.#withoutForeignKeys(policies, namespace, behind.has(name)));
      for (const { globalRateLimits } of policies) for (const { service: counter } of globalRateLimits) reached.add(counter);
    }
    return {
      waypoints: new Map(waypoint === undefined ? [] : [[gateway, waypoint]]), routes, trafficPolicies, requestPolicies,
      requestAuthentications: targeted(l7.requestAuthentications), loginPolicies: targeted(l7.loginPolicies), telemetry,
      // Of callers as of endpoints: nobody knows who will come.
      workloadLabels: l7.workloadLabels,
    };
  }

  /**
   * A key goes to waypoints of its own namespace, and to the one that the service's owner has bound the service to. Any other would have it
   * for naming the service in a route: who answers there instead of the service must not have it.
   */
  #withoutForeignKeys(policies: readonly TrafficPolicy[], waypointNamespace: string, behind: boolean): readonly TrafficPolicy[] {
    const isForeign = ({ service, tls, provenance }: TrafficPolicy): boolean => {
      if (tls === null || tls.mode !== "mutual") return false;
      const owner = provenance["tls"]?.namespace ?? "";
      return owner !== waypointNamespace && !(behind && owner === namespaceHalf(service));
    };
    if (!policies.some(isForeign)) return policies;
    const key = `${waypointNamespace} ${behind}`;
    const made = this.#keyless.get(policies) ?? new Map<string, readonly TrafficPolicy[]>();
    this.#keyless.set(policies, made);
    const known = made.get(key);
    if (known !== undefined) return known;
    const keyless = policies.map((policy): TrafficPolicy => (isForeign(policy) ? { ...policy, tls: { mode: "broken", reason: `the key for ${policy.service} is of namespace ${policy.provenance["tls"]?.namespace ?? ""}, and is not given to a waypoint of namespace ${waypointNamespace}; bind the service to a waypoint of its own` } } : policy));
    made.set(key, keyless);
    return keyless;
  }

  #bind(service: NamespacedName, keys: readonly string[]): void {
    const before = this.#bindings.get(service) ?? [];
    if (before.length === keys.length && before.every((key, i) => key === keys[i])) return;
    for (const key of before) removeFrom(this.#bound, key, service);
    for (const key of keys) addTo(this.#bound, key, service);
    if (keys.length === 0) this.#bindings.delete(service);
    else this.#bindings.set(service, keys);
    this.#version++;
  }

  #setRoute(id: string, route: Route | null): void {
    const before = this.#routesById.get(id);
    for (const { service } of before?.parents ?? []) removeFrom(this.#routes, service, before!);
    if (route === null) {
      this.#routesById.delete(id);
      return;
    }
    this.#routesById.set(id, route);
    for (const { service } of route.parents) addTo(this.#routes, service, route);
  }
}

function keyOf(destination: GatewayDestination): string {
  switch (destination.kind) {
    case "hostname": return `service ${destination.service}`;
    case "address": return `address ${destination.network}/${destination.ip}`;
    case "workload": return `workload ${destination.uid}`;
  }
}

/** Everything by which the service of a waypoint may be named in a binding. */
function keysOf(name: NamespacedName, service: Service | undefined): string[] {
  return [`service ${name}`, ...(service?.addresses ?? []).map(({ network, cidr }) => `address ${network}/${ipFromBytes(cidr.bytes)}`)];
}

function servicesOfRoute({ rules }: Route): NamespacedName[] {
  const targets: BackendTarget[] = [];
  const services: NamespacedName[] = [];
  const take = (filters: readonly RouteFilter[]): void => {
    for (const filter of filters) {
      if (filter.kind === "mirror") targets.push(filter.mirror.target);
      if (filter.kind === "externalAuth") services.push(filter.authorizer.service);
    }
  };
  for (const rule of rules.rules) {
    if ("filters" in rule) take(rule.filters);
    for (const backend of rule.backends) {
      targets.push(backend.target);
      take(backend.filters);
    }
  }
  for (const target of targets) if (target.kind === "service") services.push(target.service);
  return services;
}
