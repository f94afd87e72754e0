// Which routes hold where: of each service those that are attached to it, held against each other. A route that comes, goes or changes
// costs what is attached to its services.

import type { NamespacedName } from "../../core/brand.ts";
import { eachInSteps, type Steps } from "../../core/steps.ts";
import type { Route } from "../../mesh/l7/route.ts";
import { collectInto, type Placed, type ResourceDiagnostic, type ResourceOf } from "../resource.ts";
import { boundRoutes, type RouteBeyond } from "./bounds.ts";
import { Members, type Outcome } from "./outcome.ts";
import { type AttachedRoute, findConflicts } from "./route-conflicts.ts";

type AnyPlaced = Placed<ResourceOf<string, unknown>>;

interface HeldRoute {
  readonly route: Route;
  /** By service, where it is one too many. */
  readonly beyond: Map<NamespacedName, readonly RouteBeyond[]>;
}

export class AttachedRoutes {
  readonly #outcome: Outcome;
  readonly #attached = new Members<NamespacedName, AnyPlaced, AttachedRoute>();
  readonly #routes = new Map<string, HeldRoute>();
  /** What was one too many for each service. */
  readonly #beyond = new Map<NamespacedName, readonly RouteBeyond[]>();
  readonly #movedServices = new Set<NamespacedName>();
  readonly #movedRoutes = new Set<string>();

  constructor(outcome: Outcome) {
    this.#outcome = outcome;
  }

  add(placed: AnyPlaced, routes: readonly Route[], attached: readonly AttachedRoute[]): void {
    for (const route of routes) {
      this.#routes.set(route.id, { route, beyond: new Map() });
      this.#movedRoutes.add(route.id);
    }
    for (const one of attached) {
      this.#attached.add(one.service, placed, one);
      this.#movedServices.add(one.service);
    }
  }

  remove(placed: AnyPlaced, routes: readonly Route[], attached: readonly AttachedRoute[]): void {
    for (const { id } of routes) {
      this.#routes.delete(id);
      this.#movedRoutes.add(id);
    }
    for (const { service } of attached) {
      this.#attached.remove(service, placed);
      this.#movedServices.add(service);
    }
  }

  /** Brings everything up to date that has to do with what was added and removed. */
  *settle(): Steps<void> {
    for (const service of this.#movedServices) {
      yield;
      this.#settleService(service);
    }
    this.#movedServices.clear();
    yield* eachInSteps(this.#movedRoutes, (id) => this.#settleRoute(id));
    this.#movedRoutes.clear();
  }

  #settleService(service: NamespacedName): void {
    const { attached, beyond } = boundRoutes(this.#attached.of(service));
    const diagnostics: ResourceDiagnostic[] = [];
    const conflicts = findConflicts(attached, collectInto(diagnostics));
    this.#outcome.lost(`routes of ${service}`, [...beyond, ...conflicts]);
    this.#outcome.said(`routes of ${service}`, diagnostics);
    for (const { routeId } of this.#beyond.get(service) ?? []) this.#noteBeyond(routeId, service, []);
    for (const [routeId, scopes] of Map.groupBy(beyond, (one) => one.routeId)) this.#noteBeyond(routeId, service, scopes);
    if (beyond.length === 0) this.#beyond.delete(service);
    else this.#beyond.set(service, beyond);
  }

  #noteBeyond(routeId: string, service: NamespacedName, scopes: readonly RouteBeyond[]): void {
    this.#movedRoutes.add(routeId);
    const held = this.#routes.get(routeId);
    if (scopes.length === 0) held?.beyond.delete(service);
    else held?.beyond.set(service, scopes);
  }

  #settleRoute(id: string): void {
    const held = this.#routes.get(id);
    const beyond = [...(held?.beyond ?? [])].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, scopes]) => scopes);
    const [first] = beyond;
    const diagnostics: ResourceDiagnostic[] = [];
    // Of a route that is one too many for thousands of services the first is told.
    if (first !== undefined) collectInto(diagnostics)(first.placed)("error", "not_attached", first.path, `not in force: ${first.message}`);
    this.#outcome.said(`bound of ${id}`, diagnostics);
    this.#outcome.route(id, held === undefined ? null : first === undefined ? held.route : without(held.route, beyond));
  }
}

function without(route: Route, beyond: readonly RouteBeyond[]): Route | null {
  const parents = route.parents.filter((parent) => !beyond.some(({ service, clientNamespace }) => service === parent.service && clientNamespace === parent.clientNamespace));
  return parents.length === 0 ? null : { ...route, parents };
}
