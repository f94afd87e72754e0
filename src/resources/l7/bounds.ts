// What the resources of one namespace may come to together: each is small, and a wildcard, or thousands for one service, would make work
// and memory for everybody who has to do with the service. The oldest hold; the others are told that they do not. Pure.

import type { NamespacedName } from "../../core/brand.ts";
import { addTo } from "../../core/set-index.ts";
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

const NONE: ReadonlySet<Placed<Resource>> = new Set();
const isWildcard = (host: string): boolean => host.startsWith("*");

export const namesByWildcard = ({ resource }: Placed<Resource>): boolean => (resource.kind === "VirtualService" ? (resource.spec.hosts ?? []).some(isWildcard) : resource.kind === "DestinationRule" && isWildcard(resource.spec.host));

/** Those that are not to be looked at. @param rules all of one namespace that name services by a wildcard. */
export function wildcardsBeyond(rules: readonly Placed<Resource>[], reportFor: ReportFor): ReadonlySet<Placed<Resource>> {
  if (rules.length <= WILDCARD_RULES_PER_NAMESPACE_MAX) return NONE;
  const beyond = new Set(sortedByAge(rules).slice(WILDCARD_RULES_PER_NAMESPACE_MAX));
  for (const placed of beyond) {
    reportFor(placed)("error", "not_attached", ["spec"], `not in force: the ${WILDCARD_RULES_PER_NAMESPACE_MAX} oldest rules of namespace ${placed.resource.namespace} with a wildcard for a host are; name the services`);
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

/** A route that is one too many for some clients of a service. */
export interface RouteBeyond extends LostParent {
  readonly routeId: string;
  readonly service: NamespacedName;
  readonly clientNamespace: string | null;
}

export interface BoundedRoutes {
  readonly attached: readonly AttachedRoute[];
  readonly beyond: readonly RouteBeyond[];
}

/** @param all that is attached to one service. */
export function boundRoutes(all: readonly AttachedRoute[]): BoundedRoutes {
  if (all.length <= CONSUMER_ROUTES_PER_SERVICE_MAX) return { attached: all, beyond: [] };
  const maxOf = (scope: string): number => (scope === "" ? ROUTES_PER_SERVICE_MAX : CONSUMER_ROUTES_PER_SERVICE_MAX);
  const lost = beyondEach(all.map(({ placed, clientNamespace }) => ({ placed, scope: clientNamespace ?? "" })), maxOf);
  if (lost.size === 0) return { attached: all, beyond: [] };
  const beyond: RouteBeyond[] = [];
  const attached = all.filter(({ placed, routeId, service, clientNamespace, path }) => {
    if (lost.get(clientNamespace ?? "")?.has(placed) !== true) return true;
    const message = `${maxOf(clientNamespace ?? "")} older routes hold for ${service} and ${clientNamespace === null ? "every client" : `clients of namespace ${clientNamespace}`}, which is as many as there may be`;
    beyond.push({ placed, path, message, routeId, service, clientNamespace });
    return false;
  });
  return { attached, beyond };
}

/** By scope, the resources beyond its bound, oldest first. */
function beyondEach(all: readonly { readonly placed: AnyPlaced; readonly scope: string }[], maxOf: (scope: string) => number): Map<string, ReadonlySet<AnyPlaced>> {
  const scopes = new Map<string, Set<AnyPlaced>>();
  for (const { placed, scope } of all) addTo(scopes, scope, placed);
  const beyond = new Map<string, ReadonlySet<AnyPlaced>>();
  for (const [scope, members] of scopes) if (members.size > maxOf(scope)) beyond.set(scope, new Set(sortedByAge([...members]).slice(maxOf(scope))));
  return beyond;
}
