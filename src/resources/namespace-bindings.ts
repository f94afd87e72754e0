// Which waypoints the objects of one namespace ask for, whether they have them, and what is to be told of those that they do not have.

import { USE_WAYPOINT, USE_WAYPOINT_CANARY } from "./annotations.ts";
import type { FieldPath } from "./diagnostic.ts";
import { type MeshContext, serviceWaypoint } from "./namespace-context.ts";
import type { NamespaceResources } from "./namespace-resources.ts";
import type { Labels } from "./object-meta.ts";
import { collectInto, describeIdentity, type Placed, type ResourceDiagnostic, type ResourceOf } from "./resource.ts";
import type { GatewayName } from "./waypoint-admission.ts";
import { type Binding, boundWaypoint } from "./waypoint-binding.ts";
import { bindingOf, howToAllow, type WaypointBinding } from "./waypoint-status.ts";

export interface NamespaceBindings {
  /** Of every Service and ServiceEntry that asks for a waypoint, by what it is called (`Service shop/web`). */
  readonly bindings: ReadonlyMap<string, WaypointBinding>;
  /** `namespace/name` of the waypoints that something here asks for: what is said holds as long as none of these comes or goes. */
  readonly asked: ReadonlySet<string>;
  readonly diagnostics: readonly ResourceDiagnostic[];
}

/** @param services `namespace/name` of every Service there is. */
export function bindingsOf(resources: NamespaceResources, mesh: MeshContext, services: ReadonlySet<string>): NamespaceBindings {
  const bindings = new Map<string, WaypointBinding>();
  const asked = new Set<string>();
  const diagnostics: ResourceDiagnostic[] = [];
  collectBindings(resources, mesh, bindings, asked);
  reportMissing(resources, mesh, services, asked, diagnostics);
  return { bindings, asked, diagnostics };
}

const nameOf = ({ namespace, name }: GatewayName): string => `${namespace}/${name}`;

function collectBindings({ name, namespace, services, serviceEntries }: NamespaceResources, mesh: MeshContext, into: Map<string, WaypointBinding>, asked: Set<string>): void {
  const binding: Binding = { labels: namespace?.resource.labels ?? {}, annotations: namespace?.resource.annotations };
  for (const { resource } of [...services, ...serviceEntries]) {
    if (resource.labels[USE_WAYPOINT] === undefined && binding.labels[USE_WAYPOINT] === undefined) continue;
    const found = serviceWaypoint(resource, binding, mesh);
    if (found === null) continue;
    asked.add(nameOf(found.bound));
    into.set(describeIdentity(resource), bindingOf(found.bound, name, found.takes, mesh.admission));
  }
}

function reportMissing({ name, namespace, services: own, serviceEntries, entries }: NamespaceResources, { admission }: MeshContext, services: ReadonlySet<string>, asked: Set<string>, diagnostics: ResourceDiagnostic[]): void {
  const reportFor = collectInto(diagnostics);
  const check = (placed: Placed<ResourceOf<string, unknown>>, labels: Labels, at: FieldPath): void => {
    if (labels[USE_WAYPOINT] === undefined) return;
    const bound = boundWaypoint({ namespace: name, labels }, { labels: {} }, admission);
    if (bound === null) return;
    for (const one of [bound, bound.canary, bound.refusedCanary]) if (one !== null) asked.add(nameOf(one));
    for (const one of [bound.allowed ? null : bound, bound.refusedCanary]) {
      if (one !== null && admission.has(one)) reportFor(placed)("error", "fail_closed", [...at, one === bound ? USE_WAYPOINT : USE_WAYPOINT_CANARY], `${howToAllow(one, name)}; ${one === bound ? "traffic that needs it is refused" : `all goes through ${bound.namespace}/${bound.name}`}`);
    }
    for (const one of [bound, bound.canary, bound.refusedCanary]) {
      if (one === null || services.has(nameOf(one))) continue;
      reportFor(placed)("warning", "missing_waypoint", [...at, one === bound ? USE_WAYPOINT : USE_WAYPOINT_CANARY], `found the waypoint ${one.namespace}/${one.name}, which no Service is; traffic that needs it is refused until it is there`);
    }
  };
  if (namespace !== null) check(namespace, namespace.resource.labels, ["metadata", "labels"]);
  for (const placed of [...own, ...serviceEntries]) check(placed, placed.resource.labels, ["metadata", "labels"]);
  for (const placed of entries) {
    check(placed, placed.resource.labels, ["metadata", "labels"]);
    check(placed, placed.resource.spec.labels ?? {}, ["spec", "labels"]);
  }
}
