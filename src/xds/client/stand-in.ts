// What stands in the place of a policy that cannot be read and has no state before it: a denial of all that it may have been about.

import { namespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { AuthorizationPolicy, PolicyScope } from "../../mesh/records.ts";
import { decode } from "../../wire/protobuf/decode.ts";
import { AuthorizationSchema } from "../../wire/protobuf/istio/security/authorization_pb.ts";
import type { ReceivedResource } from "../resource.ts";

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

export function splitName(name: string): { readonly namespace: string; readonly rest: string } {
  const slash = name.indexOf("/");
  return { namespace: name.slice(0, Math.max(0, slash)), rest: name.slice(slash + 1) };
}

export const provenance = (kind: string, namespace: string, name: string, version: string): Provenance => ({ kind, namespace, name, resourceVersion: version, fieldPath: "" });
