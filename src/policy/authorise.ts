// May this connection reach this workload? A pure function of the store and four facts about the connection, so that a live
// connection is judged again simply by calling it again. Reads no HTTP; a policy it cannot see denies.

import type { NamespacedName } from "../core/brand.ts";
import { formatNoneMatched, formatProvenance, type Provenance } from "../core/fault.ts";
import type { AuthorizationPolicy, PolicyMatch, Workload } from "../mesh/records.ts";
import type { MeshStore, PolicySet } from "../mesh/store.ts";
import { type AuthorisationSubject, type ConnectionFacts, connectionFacts, type TrustDomainAliases } from "./connection-facts.ts";
import { type DryRunVerdict, rehearsePolicy } from "./dry-run.ts";
import { type CompiledRules, findMatch, RuleCompiler } from "./rules.ts";

export type AuthorisationReason =
  /** Nothing binds the workload. */
  | "no allow policy"
  | "allowed by"
  | "denied by"
  /** There are allow policies, and none matches. */
  | "no allow matched"
  /** The workload names a policy that is not here: denied until it arrives. */
  | "policy not delivered";

export interface AuthorisationDecision {
  readonly allowed: boolean;
  readonly reason: AuthorisationReason;
  /** The rule that decided, down to its field; null where none did. */
  readonly policy: Provenance | null;
  /** With "no allow matched": the policies that could have allowed it; else empty. */
  readonly unmatched: readonly Provenance[];
  /** With "policy not delivered": which. */
  readonly missing: readonly NamespacedName[];
  /** Only dry-run policies that matched or would have changed the outcome. */
  readonly dryRun: readonly DryRunVerdict[];
}

interface CompiledSet {
  readonly deny: CompiledRules<ConnectionFacts>;
  readonly allow: CompiledRules<ConnectionFacts>;
  /** The decision where allow policies are in force and none matches; null where there are none. */
  readonly noAllowMatched: AuthorisationDecision | null;
  readonly dryRun: readonly { readonly policy: AuthorizationPolicy; readonly rules: CompiledRules<ConnectionFacts> }[];
}

const NO_DRY_RUN: readonly DryRunVerdict[] = Object.freeze([]);
const NONE_UNMATCHED: readonly Provenance[] = Object.freeze([]);
const NONE_MISSING: readonly NamespacedName[] = Object.freeze([]);
const NO_ALLOW_POLICY: AuthorisationDecision = Object.freeze({
  allowed: true, reason: "no allow policy", policy: null, unmatched: NONE_UNMATCHED, missing: NONE_MISSING, dryRun: NO_DRY_RUN,
});

/** HTTP is not looked at here. */
const rules = new RuleCompiler<AuthorizationPolicy, PolicyMatch, ConnectionFacts>({ opens: ({ action }) => action === "allow", further: () => null });

/** Compiled once for each policy set; the store hands out a new set when any policy in it changes. */
const compiledSets = new WeakMap<PolicySet, CompiledSet>();

/**
 * Judges one connection: a matching deny policy, or one not delivered, refuses; without allow policies everything else passes;
 * with them one has to match. Dry-run policies decide nothing.
 */
export function authorise(
  store: MeshStore, destination: Workload, subject: AuthorisationSubject, trustDomains: TrustDomainAliases | null = null,
): AuthorisationDecision {
  const policies = store.policiesFor(destination);
  if (policies.deny.length === 0 && policies.allow.length === 0 && policies.missing.length === 0) return NO_ALLOW_POLICY;
  const compiled = compile(policies);
  const facts = connectionFacts(subject, trustDomains);
  const decision = enforce(policies, compiled, facts);
  if (compiled.dryRun.length === 0) return decision;
  const dryRun = rehearse(compiled, facts, decision);
  return dryRun.length === 0 ? decision : { ...decision, dryRun };
}

/** One line for a log or an operator: `denied by AuthorizationPolicy shop/no-frontend spec.rules[0]`. */
export function explainAuthorisation(decision: AuthorisationDecision): string {
  switch (decision.reason) {
    case "allowed by":
    case "denied by":
      return decision.policy === null ? decision.reason : `${decision.reason} ${formatProvenance(decision.policy)}`;
    case "policy not delivered":
      return `denied: the workload is bound to ${decision.missing.join(", ")}, which has not been delivered`;
    case "no allow policy":
      return "allowed: no allow policy applies";
    case "no allow matched":
      return formatNoneMatched(decision.unmatched);
    default:
      return decision.reason satisfies never;
  }
}

function enforce(policies: PolicySet, compiled: CompiledSet, facts: ConnectionFacts): AuthorisationDecision {
  const denied = findMatch(compiled.deny, facts);
  if (denied !== null) return { allowed: false, reason: "denied by", policy: denied, unmatched: NONE_UNMATCHED, missing: NONE_MISSING, dryRun: NO_DRY_RUN };
  if (policies.missing.length > 0) {
    return { allowed: false, reason: "policy not delivered", policy: null, unmatched: NONE_UNMATCHED, missing: policies.missing, dryRun: NO_DRY_RUN };
  }
  if (compiled.noAllowMatched === null) return NO_ALLOW_POLICY;
  const allowed = findMatch(compiled.allow, facts);
  if (allowed === null) return compiled.noAllowMatched;
  return { allowed: true, reason: "allowed by", policy: allowed, unmatched: NONE_UNMATCHED, missing: NONE_MISSING, dryRun: NO_DRY_RUN };
}

function rehearse(compiled: CompiledSet, facts: ConnectionFacts, decision: AuthorisationDecision): DryRunVerdict[] {
  const verdicts: DryRunVerdict[] = [];
  for (const { policy, rules } of compiled.dryRun) {
    const verdict = rehearsePolicy(policy, findMatch(rules, facts), decision);
    if (verdict !== null) verdicts.push(verdict);
  }
  return verdicts;
}

function compile(policies: PolicySet): CompiledSet {
  const known = compiledSets.get(policies);
  if (known !== undefined) return known;
  const enforcedAllow = policies.allow.filter((p) => !p.dryRun);
  const compiled: CompiledSet = {
    deny: rules.compile(policies.deny.filter((p) => !p.dryRun)),
    allow: rules.compile(enforcedAllow),
    noAllowMatched: enforcedAllow.length === 0 ? null : Object.freeze({
      allowed: false, reason: "no allow matched", policy: null, unmatched: enforcedAllow.map(({ provenance }) => provenance), missing: NONE_MISSING, dryRun: NO_DRY_RUN,
    }),
    dryRun: [...policies.deny, ...policies.allow].filter((p) => p.dryRun).map((policy) => ({ policy, rules: rules.compile([policy]) })),
  };
  compiledSets.set(policies, compiled);
  return compiled;
}
