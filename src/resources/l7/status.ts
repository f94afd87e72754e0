// What the status of a resource would say, in the terms of the Gateway API: conditions with their reasons. A control plane writes
// them into the object; a directory has the same as diagnostics.

import type { FieldPath } from "../diagnostic.ts";
import type { ResourceIdentity } from "../resource.ts";

export type ConditionType = "Accepted" | "ResolvedRefs" | "PartiallyInvalid" | "Programmed";
export type ConditionReason =
  | "Accepted" | "NoMatchingParent" | "NotAllowedByListeners" | "UnsupportedValue" | "IncompatibleFilters" | "Pending" | "Conflicted" | "TargetNotFound" | "Invalid" | "NoValidCACertificate"
  | "ResolvedRefs" | "RefNotPermitted" | "InvalidKind" | "BackendNotFound" | "UnsupportedProtocol" | "InvalidCACertificateRef" | "InvalidClientCertificateRef" | "Programmed" | "AddressNotAssigned";

export interface Condition {
  readonly type: ConditionType;
  readonly status: boolean;
  readonly reason: ConditionReason;
  /** For a person; "" when all is well. */
  readonly message: string;
}

/** Conditions towards one parent (routes) or ancestor (policies). */
export interface ParentStatus {
  /** Where the reference stands, e.g. `spec.parentRefs[0]`. */
  readonly path: FieldPath;
  readonly conditions: readonly Condition[];
}

export interface ResourceStatus extends ResourceIdentity {
  readonly resourceVersion: string;
  readonly parents: readonly ParentStatus[];
  /** Of the object as a whole: Gateway, GatewayClass. */
  readonly conditions: readonly Condition[];
}

export const condition = (type: ConditionType, status: boolean, reason: ConditionReason, message = ""): Condition => ({ type, status, reason, message });
export const ACCEPTED = condition("Accepted", true, "Accepted");
export const RESOLVED = condition("ResolvedRefs", true, "ResolvedRefs");
