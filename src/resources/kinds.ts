// The kinds a directory or a cluster may hold. A new kind is one file in kinds/ and one line here; the compiler then lists
// the places that must say what it means.

import { authorizationPolicyKind } from "./kinds/authorization-policy.ts";
import { backendTlsPolicyKind } from "./kinds/backend-tls-policy.ts";
import { configMapKind, secretKind } from "./kinds/config-map.ts";
import { tcpRouteKind, tlsRouteKind } from "./kinds/connection-routes.ts";
import { destinationRuleKind } from "./kinds/destination-rule.ts";
import { gatewayClassKind, gatewayKind } from "./kinds/gateway.ts";
import { grpcRouteKind } from "./kinds/grpc-route.ts";
import { httpRouteKind } from "./kinds/http-route.ts";
import { loginPolicyKind, tokenIntrospectionKind } from "./kinds/login-policy.ts";
import { meshConfigKind } from "./kinds/mesh-config.ts";
import { namespaceKind } from "./kinds/namespace.ts";
import { peerAuthenticationKind } from "./kinds/peer-authentication.ts";
import { referenceGrantKind } from "./kinds/reference-grant.ts";
import { requestAuthenticationKind } from "./kinds/request-authentication.ts";
import { serviceEntryKind } from "./kinds/service-entry.ts";
import { serviceKind } from "./kinds/service.ts";
import { telemetryKind } from "./kinds/telemetry.ts";
import { trafficPolicyKind } from "./kinds/traffic-policy.ts";
import { virtualServiceKind } from "./kinds/virtual-service.ts";
import { workloadEntryKind } from "./kinds/workload-entry.ts";
import { xBackendTrafficPolicyKind } from "./kinds/x-backend-traffic-policy.ts";
import type { ResourceOfKind } from "./resource.ts";
import { editDistanceWithin } from "./suggestion.ts";

export const KINDS = [
  namespaceKind, serviceKind, workloadEntryKind, serviceEntryKind, authorizationPolicyKind, peerAuthenticationKind, requestAuthenticationKind,
  gatewayClassKind, gatewayKind, httpRouteKind, grpcRouteKind, tcpRouteKind, tlsRouteKind, referenceGrantKind, backendTlsPolicyKind, xBackendTrafficPolicyKind,
  virtualServiceKind, destinationRuleKind, telemetryKind, trafficPolicyKind, loginPolicyKind, tokenIntrospectionKind, meshConfigKind, configMapKind, secretKind,
] as const;

export type Kind = (typeof KINDS)[number];
export type Resource = ResourceOfKind<Kind>;
export type KindName = Resource["kind"];

/** Known by name; nothing is applied from them, which is said. */
const NOT_YET: Readonly<Record<string, readonly string[]>> = {
  "": ["Pod", "Node", "ServiceAccount", "Endpoints"],
  "apps": ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"],
  "batch": ["Job", "CronJob"],
  "discovery.k8s.io": ["EndpointSlice"],
  "gateway.networking.k8s.io": ["UDPRoute", "ListenerSet"],
  "gateway.networking.x-k8s.io": ["XMesh", "XBackend", "XListenerSet"],
  "networking.istio.io": ["Gateway", "Sidecar", "WorkloadGroup", "EnvoyFilter", "ProxyConfig"],
};

export type KindLookup =
  | { readonly is: "kind"; readonly definition: Kind; readonly versionKnown: boolean }
  | { readonly is: "notYet" }
  | { readonly is: "unknown"; readonly expected: string };

/** Finds a kind by `apiVersion` (`v1`, `security.istio.io/v1`) and `kind`. */
export function lookUpKind(apiVersion: string, kind: string): KindLookup {
  const slash = apiVersion.indexOf("/");
  const group = slash < 0 ? "" : apiVersion.slice(0, slash);
  const version = slash < 0 ? apiVersion : apiVersion.slice(slash + 1);
  const definition = KINDS.find((known) => known.kind === kind && known.group === group);
  if (definition !== undefined) return { is: "kind", definition, versionKnown: (definition.versions as readonly string[]).includes(version) };
  if (Object.hasOwn(NOT_YET, group) && NOT_YET[group]!.includes(kind)) return { is: "notYet" };
  return { is: "unknown", expected: expectedFor(kind) };
}

function expectedFor(kind: string): string {
  const wanted = kind.toLowerCase();
  const near = KINDS.find((known) => known.kind === kind) ?? KINDS.find((known) => known.kind.toLowerCase() === wanted || editDistanceWithin(known.kind.toLowerCase(), wanted, 2));
  if (near !== undefined) return `did you mean ${near.kind} of ${apiVersions(near).join(", ")}?`;
  return `expected one of ${KINDS.map((known) => known.kind).join(", ")}`;
}

export const apiVersions = (kind: Kind): string[] => kind.versions.map((version) => (kind.group === "" ? version : `${kind.group}/${version}`));
