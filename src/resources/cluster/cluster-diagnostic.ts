// What is to be told about the objects of a cluster, in words for whoever wrote them. Pure.

import { USE_WAYPOINT } from "../annotations.ts";
import { type DiagnosticCode, formatFieldPath, type Severity } from "../diagnostic.ts";
import type { Pod } from "../kinds/pod.ts";
import { leftOut } from "../memberships.ts";
import { describeIdentity, type ResourceDiagnostic, type ResourceIdentity } from "../resource.ts";
import { howToAllow } from "../waypoint-status.ts";
import { NAMESPACE_CHARS_MAX, NAMESPACE_OBJECTS_MAX, type NamespaceUse } from "./namespace-allowance.ts";

/** Something to be told about an object of the cluster. */
export interface ClusterDiagnostic {
  readonly severity: Severity;
  readonly code: DiagnosticCode;
  /** `AuthorizationPolicy shop/deny-all`. */
  readonly resource: string;
  readonly fieldPath: string;
  readonly message: string;
}

/** Services of one namespace, beyond what its pods may be endpoints of, that are told one by one. */
const BEYOND_TOLD_MAX = 100;

interface RefusedPod {
  readonly pod: Pod;
  /** `namespace/name` of the waypoint that does not take it. */
  readonly refusedBy: string | null;
}

export function describe({ placed, severity, code, path, message }: ResourceDiagnostic): ClusterDiagnostic {
  return { severity, code, resource: describeIdentity(placed.resource), fieldPath: formatFieldPath(path), message };
}

/** Why an object is not kept. */
export const fullness = (namespace: string): string => `namespace ${namespace} has no room for it: it has ${NAMESPACE_OBJECTS_MAX} objects, or ${NAMESPACE_CHARS_MAX / 1024 / 1024} MiB of them`;

export function describeFull([namespace, { objects, chars, refused }]: readonly [string, NamespaceUse]): ClusterDiagnostic {
  return {
    severity: "error", code: "too_many_documents", resource: describeIdentity({ kind: "Namespace", namespace: "", name: namespace }), fieldPath: "",
    message: `holds ${objects} objects of ${Math.ceil(chars / 1024 / 1024)} MiB, of ${NAMESPACE_OBJECTS_MAX} and ${NAMESPACE_CHARS_MAX / 1024 / 1024} MiB that one may have; ${refused} or more are not read. A ResourceQuota refuses them where they are written`,
  };
}

/** A slice that lists names: kube-proxy leaves such ones alone too. */
export function describeNames(slice: ResourceIdentity): ClusterDiagnostic {
  return { severity: "warning", code: "not_supported", resource: describeIdentity(slice), fieldPath: "addressType", message: "found FQDN, expected IPv4 or IPv6: its endpoints are not used; a ServiceEntry with resolution DNS sends to names" };
}

/** Its waypoint does not take it. */
export function describeRefused({ pod: { namespace, name, labels }, refusedBy }: RefusedPod): ClusterDiagnostic {
  const fieldPath = labels[USE_WAYPOINT] === undefined ? "" : formatFieldPath(["metadata", "labels", USE_WAYPOINT]);
  const [at = "", waypoint = ""] = (refusedBy ?? "").split("/");
  return { severity: "error", code: "fail_closed", resource: describeIdentity({ kind: "Pod", namespace, name }), fieldPath, message: `${howToAllow({ namespace: at, name: waypoint }, namespace)}; what is sent to the pod itself is refused` };
}

/** Told of the Services, each with the first pod that it lacks: pods of one Deployment lack the same. */
export function describeBeyond(beyond: ReadonlyMap<{ readonly pod: Pod }, readonly string[]>): ClusterDiagnostic[] {
  const told = new Map<string, ClusterDiagnostic>();
  const toldOf = new Map<string, number>();
  const seen = new Set<readonly string[]>();
  for (const [{ pod: { namespace, name } }, services] of beyond) {
    if (seen.has(services)) continue;
    seen.add(services);
    for (const service of services) {
      const count = toldOf.get(namespace) ?? 0;
      if (count >= BEYOND_TOLD_MAX) break;
      const resource = describeIdentity({ kind: "Service", namespace, name: service });
      if (told.has(resource)) continue;
      toldOf.set(namespace, count + 1);
      told.set(resource, { severity: "error", code: "too_many_memberships", resource, fieldPath: "spec.selector", message: leftOut(describeIdentity({ kind: "Pod", namespace, name }), resource) });
    }
  }
  return [...told.values()];
}
