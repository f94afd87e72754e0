// What the resources of one namespace may come to together: each is small, and a wildcard, or thousands for one service, would make work
// and memory for everybody who has to do with the service. The oldest hold; the others are told that they do not. Pure.

import type { NamespacedName } from "../../core/brand.ts";
import type { Route } from "../../mesh/l7/route.ts";
import type { Resource } from "../kinds.ts";
import type { Placed, ReportFor, ResourceOf } from "../resource.ts";
import { sortedByAge } from "./age.ts";
import type { PlacedContribution } from "./merge-contributions.ts";
import type { AttachedRoute, LostParent } from "./route-conflicts.ts";

/** Route resources for one service, from whoever it belongs to: each request may have to be held against all of their rules. */
export const ROUTES_PER_SERVICE_MAX = 2_000;
/** From one other namespace, for its own clients: they are kept by a waypoint that is not theirs. */
export const CONSUMER_ROUTES_PER_SERVICE_MAX = 64;
/** Resources that say something of the traffic to one service, for the same clients. */
export const TRAFFIC_RESOURCES_PER_SERVICE_MAX = 128;
/** VirtualServices and DestinationRules of one namespace that name services by a wildcard: each is a rule for every service of the mesh. */
export const WILDCARD_RULES_PER_NAMESPACE_MAX = 64;

type AnyPlaced = Placed<ResourceOf<string, unknown>>;

const isWildcard = (host: string): boolean => host.startsWith("*");

/** Those that are not to be looked at. */
export function wildcardsBeyond(resources: readonly Placed<Resource>[], rootNamespace: string, reportFor: ReportFor): ReadonlySet<AnyPlaced> {
  const byNamespace = new Map<string, AnyPlaced[]>();
  for (const placed of resources) {
    const { resource } = placed;
    const covers = resource.kind === "VirtualService" ? (resource.spec.hosts ?? []).some(isWildcard) : resource.kind === "DestinationRule" && isWildcard(resource.spec.host);
    if (!covers || resource.namespace === rootNamespace) continue;
    const list = byNamespace.get(resource.namespace);
    if (list === undefined) byNamespace.set(resource.namespace, [placed]);
    else list.push(placed);
  }
  const beyond = new Set<AnyPlaced>();
  for (const list of byNamespace.values()) {
    if (list.length <= WILDCARD_RULES_PER_NAMESPACE_MAX) continue;
    for (const placed of sortedByAge(list).slice(WILDCARD_RULES_PER_NAMESPACE_MAX)) {
      beyond.add(placed);
      reportFor(placed)("error", "not_attached", ["spec"], `not in force: the ${WILDCARD_RULES_PER_NAMESPACE_MAX} oldest rules of namespace ${placed.resource.namespace} with a wildcard for a host are; name the services`);
    }
  }
  return beyond;
}

/** The contributions that hold; of each set of clients the oldest resources. */
export function boundedContributions(all: readonly PlacedContribution[], reportFor: ReportFor): readonly PlacedContribution[] {
  if (all.length <= TRAFFIC_RESOURCES_PER_SERVICE_MAX) return all;
  const lost = beyondEach(all.map(({ placed, contribution }) => ({ placed, scope: contribution.clientNamespace ?? "" })), () => TRAFFIC_RESOURCES_PER_SERVICE_MAX);
  if (lost.size === 0) return all;
  const told = new Set<AnyPlaced>();
  return all.filter(({ placed, contribution }) => {
    if (lost.get(contribution.clientNamespace ?? "")?.has(placed) !== true) return true;
    if (!told.has(placed)) reportFor(placed)("error", "not_attached", ["spec"], `not in force for ${contribution.service}: the ${TRAFFIC_RESOURCES_PER_SERVICE_MAX} oldest resources that speak of it are`);
    told.add(placed);
    return false;
  });
}

export interface BoundedRoutes {
  readonly attached: readonly AttachedRoute[];
  readonly lost: readonly LostParent[];
}

/** Takes routes beyond the bound from their parents, in `routes` too. */
export function boundRoutes(all: readonly AttachedRoute[], routes: Map<string, Route>, reportFor: ReportFor): BoundedRoutes {
  if (all.length <= CONSUMER_ROUTES_PER_SERVICE_MAX) return { attached: all, lost: [] };
  const maxOf = (scope: string): number => (scope.endsWith(" ") ? ROUTES_PER_SERVICE_MAX : CONSUMER_ROUTES_PER_SERVICE_MAX);
  const beyond = beyondEach(all.map(({ placed, service, clientNamespace }) => ({ placed, scope: scopeOf(service, clientNamespace) })), maxOf);
  if (beyond.size === 0) return { attached: all, lost: [] };
  const lost: LostParent[] = [];
  const losing = new Map<string, Set<string>>();
  const attached = all.filter(({ placed, routeId, service, clientNamespace, path }) => {
    const scope = scopeOf(service, clientNamespace);
    if (beyond.get(scope)?.has(placed) !== true) return true;
    const message = `${maxOf(scope)} older routes hold for ${service} and ${clientNamespace === null ? "every client" : `clients of namespace ${clientNamespace}`}, which is as many as there may be`;
    const scopes = losing.get(routeId);
    if (scopes === undefined) {
      losing.set(routeId, new Set([scope]));
      reportFor(placed)("error", "not_attached", path, `not in force: ${message}`);
    } else scopes.add(scope);
    lost.push({ placed, path, message });
    return false;
  });
  for (const [id, scopes] of losing) {
    const route = routes.get(id);
    const parents = route?.parents.filter(({ service, clientNamespace }) => !scopes.has(scopeOf(service, clientNamespace))) ?? [];
    if (route === undefined || parents.length === 0) routes.delete(id);
    else routes.set(id, { ...route, parents });
  }
  return { attached, lost };
}

const scopeOf = (service: NamespacedName, clientNamespace: string | null): string => `${service} ${clientNamespace ?? ""}`;

/** By scope, the resources beyond its bound, oldest first. */
function beyondEach(all: readonly { readonly placed: AnyPlaced; readonly scope: string }[], maxOf: (scope: string) => number): Map<string, ReadonlySet<AnyPlaced>> {
  const scopes = new Map<string, Set<AnyPlaced>>();
  for (const { placed, scope } of all) {
    const members = scopes.get(scope);
    if (members === undefined) scopes.set(scope, new Set([placed]));
    else members.add(placed);
  }
  const beyond = new Map<string, ReadonlySet<AnyPlaced>>();
  for (const [scope, members] of scopes) if (members.size > maxOf(scope)) beyond.set(scope, new Set(sortedByAge([...members]).slice(maxOf(scope))));
  return beyond;
}
