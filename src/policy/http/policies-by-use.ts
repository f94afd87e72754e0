// The policies of a set by what they do: those in dry run decide nothing, whatever their action.

import type { RequestPolicy, RequestPolicyAction } from "../../mesh/l7/access.ts";

export type PolicyUse = RequestPolicyAction["kind"] | "dryRun";

/** Each list in the order of `policies`. */
export function policiesByUse(policies: readonly RequestPolicy[]): Readonly<Record<PolicyUse, readonly RequestPolicy[]>> {
  const sorted: Record<PolicyUse, RequestPolicy[]> = { custom: [], deny: [], allow: [], audit: [], dryRun: [] };
  for (const policy of policies) sorted[policy.dryRun ? "dryRun" : policy.action.kind].push(policy);
  return sorted;
}
