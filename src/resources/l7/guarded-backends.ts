// Backends that a route may not lead to. Policies for a service are judged when a request is for that service; its endpoints trust the
// waypoint that judges them. A route of another namespace that leads there from a service of its own, through the same waypoint, would bring
// requests that nobody has judged by these policies: the owner of the service must have granted it (ReferenceGrant).

import { nameHalf, namespaceHalf } from "../../core/brand.ts";
import type { BackendTarget, ConnectionRule, HttpRule, Route, RouteBackend, RouteFilter, RouteRules } from "../../mesh/l7/route.ts";
import type { Report } from "../resource.ts";
import { GATEWAY_GROUP } from "../route-parts.ts";
import { type Condition, condition } from "./status.ts";
import type { View } from "./view.ts";

const ISTIO_GROUP = "networking.istio.io";

export interface GuardedRoute {
  readonly route: Route;
  /** Null when it leads nowhere that it may not. */
  readonly fault: Condition | null;
}

/** The route, without the ways that it may not take: a backend answers 500 for its share, a copy is not made, a rule whose authoriser may not be asked is broken. */
export function withGuardedBackends(route: Route, view: View, report: Report): GuardedRoute {
  let fault: Condition | null = null;
  const from = { group: route.provenance.kind === "VirtualService" ? ISTIO_GROUP : GATEWAY_GROUP, kind: route.provenance.kind, namespace: route.namespace };
  const parents = [...new Set(route.parents.map(({ service }) => service))];
  const refused = new Map<string, string | null>();
  const refusalOf = (target: BackendTarget): string | null => {
    // Who writes in the root namespace runs the mesh.
    if (target.kind === "invalid" || namespaceHalf(target.service) === route.namespace || route.namespace === view.options.rootNamespace) return null;
    const known = refused.get(target.service);
    if (known !== undefined) return known;
    const { service } = target;
    const waypoint = view.ask((world) => world.sharedWaypoint(parents, service));
    const granted = waypoint === null || view.ask((world) => world.grantsService(from, service));
    const message = granted ? null : `found the backend ${nameHalf(service)} of namespace ${namespaceHalf(service)}, which the waypoint ${waypoint} guards by its policies; requests for another service would pass them, so that a ReferenceGrant of that namespace must let a ${from.kind} of ${from.namespace} name it`;
    refused.set(service, message);
    if (message !== null) {
      fault ??= condition("ResolvedRefs", false, "RefNotPermitted", message);
      report("error", "fail_closed", ["spec"], `${message}; its share of the requests gets 500`);
    }
    return message;
  };
  const refusalOfFilter = (filter: RouteFilter): string | null => {
    if (filter.kind === "mirror") return refusalOf(filter.mirror.target);
    return filter.kind === "externalAuth" ? refusalOf({ kind: "service", service: filter.authorizer.service, port: filter.authorizer.port, subset: null }) : null;
  };
  const filtersOf = (filters: readonly RouteFilter[]): readonly RouteFilter[] => without(filters, (filter) => refusalOfFilter(filter) !== null);
  /** A copy that is not made breaks nothing; a question that is not asked does. */
  const brokenBy = (filters: readonly RouteFilter[]): string | null => filters.filter(({ kind }) => kind === "externalAuth").map(refusalOfFilter).find((message) => message !== null) ?? null;
  const backendOf = (backend: RouteBackend): RouteBackend => {
    const reason = refusalOf(backend.target) ?? brokenBy(backend.filters);
    const filters = filtersOf(backend.filters);
    if (reason !== null) return { ...backend, target: { kind: "invalid", reason }, filters: [] };
    return filters === backend.filters ? backend : { ...backend, filters };
  };
  const httpRule = (rule: HttpRule): HttpRule => ({ ...rule, filters: filtersOf(rule.filters), backends: rule.backends.map(backendOf), broken: rule.broken ?? brokenBy(rule.filters) });
  const connectionRule = (rule: ConnectionRule): ConnectionRule => ({ ...rule, backends: rule.backends.map(backendOf) });
  const rules: RouteRules = "precedence" in route.rules ? { ...route.rules, rules: route.rules.rules.map(httpRule) } : { ...route.rules, rules: route.rules.rules.map(connectionRule) };
  return fault === null ? { route, fault } : { route: { ...route, rules }, fault };
}

/** The same list where nothing is left out. */
function without<T>(items: readonly T[], isOut: (item: T) => boolean): readonly T[] {
  return items.some(isOut) ? items.filter((item) => !isOut(item)) : items;
}
