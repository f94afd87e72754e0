// What stands in the place of a policy that cannot be read: a lost rule opens nothing.

import type { Resource } from "./kinds.ts";
import type { ResourceIdentity } from "./resource.ts";

/**
 * In the place of a policy that could never be read, one that denies all it may cover: its namespace, or the whole mesh for one
 * of the root namespace. Other kinds have none: what is not read is not there.
 */
export function denyingStandIn(identity: ResourceIdentity): Resource | null {
  const common = { namespace: identity.namespace, name: identity.name, labels: {}, annotations: {}, creationTimestamp: "", resourceVersion: "unread" };
  switch (identity.kind) {
    case "AuthorizationPolicy":
      return { ...common, kind: "AuthorizationPolicy", spec: { action: "DENY", rules: [{}] } };
    case "PeerAuthentication":
      return { ...common, kind: "PeerAuthentication", spec: { mtls: { mode: "STRICT" } } };
    case "LoginPolicy":
      return { ...common, kind: "LoginPolicy", spec: { targetRefs: [], issuer: "", clientId: "", clientSecretRef: { name: "" }, cookie: { keysRef: { name: "" } } } };
    case "BackendTLSPolicy":
      return { ...common, kind: "BackendTLSPolicy", spec: { targetRefs: [], validation: { hostname: "" } } };
    default:
      return null;
  }
}
