// What a policy in dry run would have changed, from what was decided without it.

import type { Provenance } from "../core/fault.ts";

export interface DryRunVerdict {
  readonly policy: Provenance;
  /** What the decision would be, were this policy enforced too. */
  readonly wouldAllow: boolean;
}

/** The part of a decision that a dry run looks at. */
export interface Rehearsed {
  readonly allowed: boolean;
  readonly reason: string;
}

/**
 * @param match the rule of the policy that matches; null when none does.
 * @returns null when the policy would not have mattered.
 */
export function rehearsePolicy(
  policy: { readonly action: "allow" | "deny"; readonly provenance: Provenance }, match: Provenance | null, decision: Rehearsed,
): DryRunVerdict | null {
  if (policy.action === "deny") return match === null ? null : { policy: match, wouldAllow: false };
  // One more allow policy that matches overrules only the lack of a match.
  if (match !== null) return { policy: match, wouldAllow: decision.allowed || decision.reason === "no allow matched" };
  return decision.reason === "no allow policy" ? { policy: policy.provenance, wouldAllow: false } : null;
}
