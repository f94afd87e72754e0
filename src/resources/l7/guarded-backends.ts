// Services that a resource may not have requests brought to. Policies for a service are judged when a request is for that service; its
// endpoints trust the waypoint that judges them. What a resource of another namespace leads there through the same waypoint, from a service of
// its own, would be requests that nobody has judged by these policies: the owner of the service must have granted it (ReferenceGrant).

import { nameHalf, type NamespacedName, namespaceHalf } from "../../core/brand.ts";
import type { BackendTarget, ConnectionRule, HttpRule, Route, RouteBackend, RouteFilter, RouteRules } from "../../mesh/l7/route.ts";
import type { Report } from "../resource.ts";
import { GATEWAY_GROUP } from "../route-parts.ts";
import { type Condition, condition } from "./status.ts";
import type { View } from "./view.ts";
import type { Grantee } from "./world.ts";

const ISTIO_GROUP = "networking.istio.io";

/**
 * Why what `from` writes may not bring requests for the services `carried` to `service`; null when it may.
 * @param from who names the service, and must have been granted it.
 */
export function foreignRefusal(from: Grantee, carried: readonly NamespacedName[], service: NamespacedName, view: View): string | null {
  // Who writes in the root namespace runs the mesh.
  if (namespaceHalf(service) === from.namespace || from.namespace === view.options.rootNamespace) return null;
  const waypoint = view.ask((world) => world.sharedWaypoint(carried, service));
  if (waypoint === null || view.ask((world) => world.grantsService(from, service))) return null;
  return `found the backend ${nameHalf(service)} of namespace ${namespaceHalf(service)}, which the waypoint ${waypoint} guards by policies; requests for another service would pass them, so that a ReferenceGrant of that namespace must let a ${from.kind} of ${from.namespace} name it`;
}

/** In which namespace what an HTTP rule names was written, where that is not its route's. */
export interface RuleWriters {
  readonly backends: string;
  /** Of copies: a delegate takes them from its root where it has none of its own. */
  readonly mirrors: string;
}

export interface GuardedRoute {
  readonly route: Route;
  /** Null when it leads nowhere that it may not. */
  readonly fault: Condition | null;
}

/** The route, without the ways that it may not take: a backend answers 500 for its share, a copy is not made, a rule whose authoriser may not be asked is broken. */
export function withGuardedBackends(route: Route, view: View, report: Report, writers?: ReadonlyMap<HttpRule, RuleWriters>): GuardedRoute {
  let fault: Condition | null = null;
  const { kind } = route.provenance;
  const group = kind === "VirtualService" ? ISTIO_GROUP : GATEWAY_GROUP;
  const parents = [...new Set(route.parents.map(({ service }) => service))];
  const refused = new Map<string, string | null>();
  const refusalOf = (target: BackendTarget, namespace: string): string | null => {
    if (target.kind === "invalid") return null;
    const key = `${namespace} ${target.service}`;
    const known = refused.get(key);
    if (known !== undefined) return known;
    const message = foreignRefusal({ group, kind, namespace }, parents, target.service, view);
    refused.set(key, message);
    if (message !== null) {
      fault ??= condition("ResolvedRefs", false, "RefNotPermitted", message);
      report("error", "fail_closed", ["spec"], `${message}; its share of the requests gets 500`);
    }
    return message;
  };
  const refusalOfFilter = (filter: RouteFilter, writer: RuleWriters): string | null => {
    if (filter.kind === "mirror") return refusalOf(filter.mirror.target, writer.mirrors);
    return filter.kind === "externalAuth" ? refusalOf({ kind: "service", service: filter.authorizer.service, port: filter.authorizer.port, subset: null }, writer.backends) : null;
  };
  const filtersOf = (filters: readonly RouteFilter[], writer: RuleWriters): readonly RouteFilter[] => without(filters, (filter) => refusalOfFilter(filter, writer) !== null);
  /** A copy that is not made breaks nothing; a question that is not asked does. */
  const brokenBy = (filters: readonly RouteFilter[], writer: RuleWriters): string | null => filters.filter((filter) => filter.kind === "externalAuth").map((filter) => refusalOfFilter(filter, writer)).find((message) => message !== null) ?? null;
  const backendOf = (backend: RouteBackend, writer: RuleWriters): RouteBackend => {
    const reason = refusalOf(backend.target, writer.backends) ?? brokenBy(backend.filters, writer);
    const filters = filtersOf(backend.filters, writer);
    if (reason !== null) return { ...backend, target: { kind: "invalid", reason }, filters: [] };
    return filters === backend.filters ? backend : { ...backend, filters };
  };
  const own: RuleWriters = { backends: route.namespace, mirrors: route.namespace };
  const httpRule = (rule: HttpRule): HttpRule => {
    const writer = writers?.get(rule) ?? own;
    return { ...rule, filters: filtersOf(rule.filters, writer), backends: rule.backends.map((backend) => backendOf(backend, writer)), broken: rule.broken ?? brokenBy(rule.filters, writer) };
  };
  const connectionRule = (rule: ConnectionRule): ConnectionRule => ({ ...rule, backends: rule.backends.map((backend) => backendOf(backend, own)) });
  const rules: RouteRules = "precedence" in route.rules ? { ...route.rules, rules: route.rules.rules.map(httpRule) } : { ...route.rules, rules: route.rules.rules.map(connectionRule) };
  return fault === null ? { route, fault } : { route: { ...route, rules }, fault };
}

/** The same list where nothing is left out. */
function without<T>(items: readonly T[], isOut: (item: T) => boolean): readonly T[] {
  return items.some(isOut) ? items.filter((item) => !isOut(item)) : items;
}
