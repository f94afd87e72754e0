// What stands in the place of a policy that cannot be read and has no state before it: a denial of all that it may have been about.

import { z } from "zod";
import { namespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { AccessTarget, RequestPolicy } from "../../mesh/l7/access.ts";
import type { AuthorizationPolicy, PolicyScope } from "../../mesh/records.ts";
import { AuthorizationSchema } from "../../wire/protobuf/istio/security/authorization_pb.ts";
import { RecordSchema } from "../../wire/protobuf/weft/l7/v1/l7_pb.ts";
import { accessTarget } from "../l7/access.ts";
import { list } from "../l7/values.ts";
import { decode, type ReceivedResource } from "../resource.ts";

const SCOPES: readonly (PolicyScope | undefined)[] = ["global", "namespace", "workload"];

/** Null for a policy that would decide nothing, or that workloads name: while it is missing they deny by themselves. */
export function policyInPlaceOf({ name, value, version }: ReceivedResource): AuthorizationPolicy | null {
  const { namespace, rest } = splitName(name);
  // What is not named as policies are could not be taken away again.
  if (namespacedName(namespace, rest) !== name) return null;
  const message = decode(AuthorizationSchema, value);
  if (message.ok && message.value.dryRun) return null;
  const scope = message.ok ? (SCOPES[message.value.scope] ?? "namespace") : "namespace";
  if (scope === "workload") return null;
  return {
    name: rest, namespace, scope, action: "deny", dryRun: false, rules: [{ clauses: [], fieldPath: "" }], provenance: provenance("AuthorizationPolicy", namespace, rest, version),
  };
}

/** A record without its conditions, and the policies it may have had, is still known by its targets; without them it is about its namespace. */
export function requestPolicyInPlaceOf(kind: "requestPolicies" | "loginPolicies", { name, value, version }: ReceivedResource): RequestPolicy | null {
  const { namespace, rest } = splitName(name);
  if (namespacedName(namespace, rest) !== name) return null;
  return {
    name: kind === "requestPolicies" ? rest : `${rest}-login-refused`, namespace, targets: targetsOf(value) ?? [{ kind: "namespace", namespace }], action: { kind: "deny" }, dryRun: false,
    rules: [{ clauses: [], fieldPath: "" }], provenance: provenance(kind === "requestPolicies" ? "AuthorizationPolicy" : "LoginPolicy", namespace, rest, version),
  };
}

const ANY_TARGETS = z.object({ targets: list(accessTarget) });

function targetsOf(value: Uint8Array): readonly AccessTarget[] | null {
  const record = decode(RecordSchema, value);
  if (!record.ok) return null;
  try {
    const read = z.safeDecode(ANY_TARGETS, JSON.parse(record.value.json));
    return read.success && read.data.targets.length > 0 ? read.data.targets : null;
  } catch {
    return null; // It is not JSON: what it is about is not known.
  }
}

function splitName(name: string): { readonly namespace: string; readonly rest: string } {
  const slash = name.indexOf("/");
  return { namespace: name.slice(0, Math.max(0, slash)), rest: name.slice(slash + 1) };
}

const provenance = (kind: string, namespace: string, name: string, version: string): Provenance => ({ kind, namespace, name, resourceVersion: version, fieldPath: "" });

