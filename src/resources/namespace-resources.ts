// The resources of one namespace, those of which something becomes part of the mesh, by kind.

import { unreachable } from "../core/result.ts";
import type { Resource } from "./kinds.ts";
import type { AuthorizationPolicyResource } from "./kinds/authorization-policy.ts";
import type { GatewayResource } from "./kinds/gateway.ts";
import type { NamespaceResource } from "./kinds/namespace.ts";
import type { PeerAuthenticationResource } from "./kinds/peer-authentication.ts";
import type { ServiceResource } from "./kinds/service.ts";
import type { ServiceEntryResource } from "./kinds/service-entry.ts";
import type { WorkloadEntryResource } from "./kinds/workload-entry.ts";
import type { Placed } from "./resource.ts";

export interface NamespaceResources {
  readonly name: string;
  namespace: Placed<NamespaceResource> | null;
  readonly services: Placed<ServiceResource>[];
  readonly serviceEntries: Placed<ServiceEntryResource>[];
  readonly entries: Placed<WorkloadEntryResource>[];
  readonly policies: Placed<AuthorizationPolicyResource>[];
  readonly peers: Placed<PeerAuthenticationResource>[];
  readonly gateways: Placed<GatewayResource>[];
}

/** The namespace that a resource belongs to; of a Namespace itself. */
export const homeOf = ({ resource }: Placed<Resource>): string => (resource.kind === "Namespace" ? resource.name : resource.namespace);

/** @param placed all of the same home. Null when nothing of them is part of the mesh. */
export function groupOf(name: string, placed: readonly Placed<Resource>[]): NamespaceResources | null {
  const of: NamespaceResources = { name, namespace: null, services: [], serviceEntries: [], entries: [], policies: [], peers: [], gateways: [] };
  let empty = true;
  for (const one of placed) if (put(one, of)) empty = false;
  return empty ? null : of;
}

/** @returns whether something of it becomes part of the mesh. */
function put(placed: Placed<Resource>, of: NamespaceResources): boolean {
  const { resource } = placed;
  const at = <R extends Resource>(_: R): Placed<R> => placed as Placed<R>;
  switch (resource.kind) {
    case "Namespace":
      of.namespace = at(resource);
      return true;
    case "Service":
      of.services.push(at(resource));
      return true;
    case "WorkloadEntry":
      of.entries.push(at(resource));
      return true;
    case "AuthorizationPolicy":
      of.policies.push(at(resource));
      return true;
    case "PeerAuthentication":
      of.peers.push(at(resource));
      return true;
    case "ServiceEntry":
      of.serviceEntries.push(at(resource));
      return true;
    case "Gateway":
      of.gateways.push(at(resource));
      return true;
    // Of L7 alone.
    case "RequestAuthentication": case "GatewayClass": case "HTTPRoute": case "GRPCRoute": case "TCPRoute": case "TLSRoute": case "ReferenceGrant": case "BackendTLSPolicy": case "XBackendTrafficPolicy":
    case "VirtualService": case "DestinationRule": case "Telemetry": case "TrafficPolicy": case "LoginPolicy": case "TokenIntrospection": case "MeshConfig": case "ConfigMap": case "Secret":
      return false;
    default:
      return unreachable(resource);
  }
}

export const sameItems = (a: readonly unknown[] = [], b: readonly unknown[] = []): boolean => a.length === b.length && a.every((item, i) => item === b[i]);
