// What one resource comes to at L7, apart from all others.

import { namespacedName, type NamespacedName } from "../../core/brand.ts";
import type { LoginPolicy, RequestAuthentication, RequestPolicy } from "../../mesh/l7/access.ts";
import type { Route } from "../../mesh/l7/route.ts";
import type { TelemetryPolicy } from "../../mesh/l7/telemetry.ts";
import type { Waypoint } from "../../mesh/l7/waypoint.ts";
import type { Resource } from "../kinds.ts";
import { type GatewayResource, WAYPOINT_CLASSES } from "../kinds/gateway.ts";
import type { MeshConfigResource } from "../kinds/mesh-config.ts";
import type { Placed, Report, ResourceOf } from "../resource.ts";
import { describePlaced } from "./age.ts";
import type { Contribution } from "./contribution.ts";
import type { AttachedRoute } from "./route-conflicts.ts";
import { ACCEPTED, type ResourceStatus } from "./status.ts";
import { translateLoginPolicy, translateRequestAuthentication, translateRequestPolicy, translateTokenIntrospection } from "./translate-access.ts";
import { translateDestinationRule } from "./translate-destination-rule.ts";
import { translateEgress } from "./translate-egress.ts";
import { translateConnectionRoute, translateGrpcRoute, translateHttpRoute, type TranslatedRoute } from "./translate-routes.ts";
import { translateDefaults, translateTelemetry } from "./translate-telemetry.ts";
import { type Claim, translateBackendTls, translateTrafficPolicy, translateXBackendTraffic, type TranslatedTraffic } from "./translate-traffic.ts";
import { type TranslatedVirtualService, translateVirtualService } from "./translate-virtual-service.ts";
import { translateWaypoint } from "./translate-waypoint.ts";
import type { View } from "./view.ts";

/** A record with a name of its own, in the table of its kind. */
export type NamedRecord =
  | { readonly table: "waypoints"; readonly record: Waypoint }
  | { readonly table: "requestPolicies"; readonly record: RequestPolicy }
  | { readonly table: "requestAuthentications"; readonly record: RequestAuthentication }
  | { readonly table: "loginPolicies"; readonly record: LoginPolicy }
  | { readonly table: "telemetry"; readonly record: TelemetryPolicy };

export interface TranslatedResource {
  readonly named: NamedRecord | null;
  readonly routes: readonly Route[];
  readonly attached: readonly AttachedRoute[];
  /** Subsets that destinations name: a DestinationRule must define each. */
  readonly subsets: TranslatedVirtualService["subsets"];
  readonly contributions: readonly Contribution[];
  readonly claims: readonly Claim[];
  /** Null for kinds that have none, and what is none of ours. */
  readonly status: ResourceStatus | null;
}

export const recordName = ({ record }: NamedRecord): NamespacedName => namespacedName(record.namespace, record.name);

const NOTHING: TranslatedResource = { named: null, routes: [], attached: [], subsets: [], contributions: [], claims: [], status: null };

/** Kinds that something of L7 is made of. */
export function isTranslated({ kind }: Resource): boolean {
  switch (kind) {
    case "HTTPRoute": case "GRPCRoute": case "TCPRoute": case "TLSRoute": case "VirtualService": case "DestinationRule": case "BackendTLSPolicy": case "XBackendTrafficPolicy": case "TrafficPolicy":
    case "AuthorizationPolicy": case "RequestAuthentication": case "TokenIntrospection": case "LoginPolicy": case "Telemetry": case "MeshConfig": case "Gateway": case "GatewayClass": case "ServiceEntry":
      return true;
    case "Namespace": case "Service": case "WorkloadEntry": case "PeerAuthentication": case "ReferenceGrant": case "ConfigMap": case "Secret":
      return false;
    default:
      return kind satisfies never;
  }
}

export function translateResource(placed: Placed<Resource>, view: View, report: Report): TranslatedResource {
  const { resource } = placed;
  const at = <R extends Resource>(_: R): Placed<R> => placed as Placed<R>;
  switch (resource.kind) {
    case "HTTPRoute": return ofRoute(placed, translateHttpRoute(at(resource), view, report));
    case "GRPCRoute": return ofRoute(placed, translateGrpcRoute(at(resource), view, report));
    case "TCPRoute":
    case "TLSRoute": return ofRoute(placed, translateConnectionRoute(at(resource), view, report));
    case "VirtualService": return ofVirtualService(placed, translateVirtualService(at(resource), view, report));
    case "DestinationRule": return { ...NOTHING, contributions: translateDestinationRule(at(resource), view, report) };
    case "BackendTLSPolicy": return ofTraffic(translateBackendTls(at(resource), view, report));
    case "XBackendTrafficPolicy": return ofTraffic(translateXBackendTraffic(at(resource), view, report));
    case "TrafficPolicy": return ofTraffic(translateTrafficPolicy(at(resource), view, report));
    case "AuthorizationPolicy": return ofNamed("requestPolicies", translateRequestPolicy(at(resource), view, report));
    case "RequestAuthentication": return ofNamed("requestAuthentications", translateRequestAuthentication(at(resource), view, report));
    case "TokenIntrospection": return ofNamed("requestAuthentications", translateTokenIntrospection(at(resource), view, report));
    case "LoginPolicy": return ofNamed("loginPolicies", translateLoginPolicy(at(resource), view, report));
    case "Telemetry": return ofNamed("telemetry", translateTelemetry(at(resource), view, report));
    case "MeshConfig": return isChosen(at(resource), view, report) ? ofNamed("telemetry", translateDefaults(at(resource), view, report)) : NOTHING;
    case "Gateway": return ofGateway(at(resource), view, report);
    case "GatewayClass": return WAYPOINT_CLASSES.includes(resource.name) ? { ...NOTHING, status: classStatus(resource) } : NOTHING;
    case "ServiceEntry": return resource.spec.resolution === "DYNAMIC_DNS" ? { ...NOTHING, contributions: translateEgress(at(resource), view, report) } : NOTHING;
    case "Namespace":
    case "Service":
    case "WorkloadEntry":
    case "PeerAuthentication":
    case "ReferenceGrant":
    case "ConfigMap":
    case "Secret": return NOTHING;
    default:
      return resource satisfies never;
  }
}

function ofRoute(placed: Placed<Resource>, { routes, attached, status }: TranslatedRoute): TranslatedResource {
  const [route] = routes;
  return {
    ...NOTHING, routes, status,
    attached: route === undefined ? [] : attached.flatMap(({ path, parents }) => parents.map(({ service, port, clientNamespace }) => ({ routeId: route.id, placed, rules: route.rules, service, port, clientNamespace, path }))),
  };
}

function ofVirtualService(placed: Placed<Resource>, { routes, subsets }: TranslatedVirtualService): TranslatedResource {
  const attached = routes.flatMap((route) => route.parents.map(({ service, port, clientNamespace }) => ({ routeId: route.id, placed, rules: route.rules, service, port, clientNamespace, path: ["spec", "hosts"] })));
  return { ...NOTHING, routes, attached, subsets };
}

const ofTraffic = ({ contributions, claims = [], status }: TranslatedTraffic): TranslatedResource => ({ ...NOTHING, contributions, claims, status });

function ofNamed<N extends NamedRecord>(table: N["table"], record: N["record"] | null): TranslatedResource {
  return record === null ? NOTHING : { ...NOTHING, named: { table, record } as NamedRecord };
}

function ofGateway(placed: Placed<GatewayResource>, view: View, report: Report): TranslatedResource {
  const { resource } = placed;
  if (view.ask((world) => world.waypointGateway(resource.namespace, resource.name)) !== resource) return NOTHING;
  const { waypoint, status } = translateWaypoint(placed, view, report);
  return { ...NOTHING, named: { table: "waypoints", record: waypoint }, status };
}

function isChosen(placed: Placed<MeshConfigResource>, view: View, report: Report): boolean {
  const chosen = view.ask((world) => world.meshConfig);
  if (chosen === placed) return true;
  const { rootNamespace } = view.options;
  const { namespace } = placed.resource;
  const message = namespace === rootNamespace && chosen !== null ? `not in force: ${describePlaced(chosen)} comes first` : `not in force: found it in ${namespace}, expected it in the root namespace ${rootNamespace}`;
  report("error", "conflict", ["metadata", namespace === rootNamespace ? "name" : "namespace"], message);
  return false;
}

function classStatus(resource: ResourceOf<string, unknown>): ResourceStatus {
  return { kind: resource.kind, namespace: "", name: resource.name, resourceVersion: resource.resourceVersion, parents: [], conditions: [ACCEPTED] };
}
