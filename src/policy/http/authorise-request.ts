// May this request reach this service? AuthorizationPolicy with all its fields, in Istio's order: CUSTOM, then DENY, then ALLOW; AUDIT and
// dry run decide nothing and are reported. Pure: where an external authorizer has to be asked the decision says whom, and goes on
// with the answer. Judges the caller that began the request, not the tunnel that brought it.

import { formatNoneMatched, formatProvenance, type Provenance } from "../../core/fault.ts";
import type { ExternalAuthorizer, RequestPolicy } from "../../mesh/l7/access.ts";
import type { AccessSet } from "../../mesh/l7/l7-store.ts";
import { type DryRunVerdict, rehearsePolicy } from "../dry-run.ts";
import { type CompiledRules, findMatch } from "../rules.ts";
import { policiesByUse } from "./policies-by-use.ts";
import type { ReasonCode } from "./reason-codes.ts";
import { type RequestFacts, requestRules } from "./request-rules.ts";

export type AccessReason =
  | "no allow policy"
  | "allowed by"
  | "denied by"
  | "no allow matched"
  /** A CUSTOM policy matches whose provider is not configured. */
  | "authorizer not configured"
  | "refused by authorizer"
  | "authorizer failed";

interface Verdict {
  readonly reason: AccessReason;
  /** The rule that decided, down to its field; null where none did. */
  readonly policy: Provenance | null;
  /** With "no allow matched": the policies that could have allowed it; else empty. */
  readonly unmatched: readonly Provenance[];
  /** Rules of AUDIT policies that match. */
  readonly audited: readonly Provenance[];
  readonly dryRun: readonly DryRunVerdict[];
}

export interface AccessAllowed extends Verdict {
  readonly kind: "allow";
}

export interface AccessDenied extends Verdict {
  readonly kind: "deny";
  readonly code: ReasonCode;
  /** HTTP status. */
  readonly status: number;
}

/** The external authorizer has to be asked; then the decision goes on with `answered`, by the policies that were in force when it began. */
export interface AccessAsk {
  readonly kind: "ask";
  readonly provider: string;
  readonly authorizer: ExternalAuthorizer;
  readonly policy: Provenance;
  answered(answer: AuthorizerAnswer): AccessDecision;
}

export type AuthorizerAnswer =
  | { readonly kind: "allowed" }
  /** `status` is the one that the authorizer chose; null: the usual one. */
  | { readonly kind: "denied"; readonly status: number | null }
  /** It did not answer, or not in its protocol. */
  | { readonly kind: "failed" };

export type AccessDecision = AccessAllowed | AccessDenied | AccessAsk;

type Rules = CompiledRules<RequestFacts>;

interface CompiledAccess {
  /** One for each provider, in the order of their first policy. */
  readonly custom: readonly { readonly provider: string; readonly authorizer: ExternalAuthorizer | null; readonly rules: Rules }[];
  readonly deny: Rules;
  readonly allow: Rules;
  /** The allow policies in force. */
  readonly allowing: readonly Provenance[];
  readonly audit: readonly Rules[];
  readonly dryRun: readonly { readonly policy: RequestPolicy; readonly rules: Rules }[];
}

const FORBIDDEN = 403;
const NONE_AUDITED: readonly Provenance[] = Object.freeze([]);
const NONE_UNMATCHED: readonly Provenance[] = Object.freeze([]);
const NO_DRY_RUN: readonly DryRunVerdict[] = Object.freeze([]);
const NO_POLICIES: AccessAllowed = Object.freeze({ kind: "allow", reason: "no allow policy", policy: null, unmatched: NONE_UNMATCHED, audited: NONE_AUDITED, dryRun: NO_DRY_RUN });

/** Compiled once for each set; the store hands out a new set when any policy in it changes. */
const compiledSets = new WeakMap<AccessSet, CompiledAccess>();

/** Judges one request. */
export function authoriseRequest(set: AccessSet, facts: RequestFacts): AccessDecision {
  return set.policies.length === 0 ? NO_POLICIES : new Judgement(compile(set), facts).from(0);
}

/** One line for a log or an operator. */
export function explainAccess(decision: AccessDecision): string {
  const named = decision.policy === null ? "" : ` ${formatProvenance(decision.policy)}`;
  if (decision.kind === "ask") return `asks ${decision.provider} for${named}`;
  switch (decision.reason) {
    case "allowed by":
    case "denied by": return `${decision.reason}${named}`;
    case "no allow policy": return "allowed: no allow policy applies";
    case "no allow matched": return formatNoneMatched(decision.unmatched);
    case "authorizer not configured": return `denied: the provider of${named} is not configured`;
    case "refused by authorizer": return `denied by the external authorizer of${named}`;
    case "authorizer failed": return `denied: the external authorizer of${named} failed`;
    default: return decision.reason satisfies never;
  }
}

class Judgement {
  readonly #access: CompiledAccess;
  readonly #facts: RequestFacts;

  constructor(access: CompiledAccess, facts: RequestFacts) {
    this.#access = access;
    this.#facts = facts;
  }

  /** Goes on with the external authorizers from `next`. */
  from(next: number): AccessDecision {
    const { custom } = this.#access;
    for (let i = next; i < custom.length; i++) {
      const { provider, authorizer, rules } = custom[i]!;
      const policy = findMatch(rules, this.#facts);
      if (policy === null) continue;
      if (authorizer === null) return this.#deny("authorizer not configured", "access_policy_unenforceable", FORBIDDEN, policy);
      return { kind: "ask", provider, authorizer, policy, answered: (answer) => this.#goOn(answer, authorizer, policy, i + 1) };
    }
    return this.#enforce();
  }

  #goOn(answer: AuthorizerAnswer, authorizer: ExternalAuthorizer, policy: Provenance, next: number): AccessDecision {
    switch (answer.kind) {
      case "allowed": return this.from(next);
      case "denied": return this.#deny("refused by authorizer", "authorizer_denied", answer.status ?? FORBIDDEN, policy);
      case "failed":
        return authorizer.onFailure === "allow" ? this.from(next) : this.#deny("authorizer failed", "authorizer_failed", authorizer.statusOnError, policy);
      default: return answer satisfies never;
    }
  }

  #enforce(): AccessDecision {
    const { deny, allow, allowing } = this.#access;
    const denied = findMatch(deny, this.#facts);
    if (denied !== null) return this.#deny("denied by", "access_denied", FORBIDDEN, denied);
    if (allowing.length === 0) return this.#allow("no allow policy", null);
    const allowed = findMatch(allow, this.#facts);
    return allowed === null ? this.#deny("no allow matched", "access_not_allowed", FORBIDDEN, null, allowing) : this.#allow("allowed by", allowed);
  }

  #allow(reason: AccessReason, policy: Provenance | null): AccessAllowed {
    return { kind: "allow", reason, policy, unmatched: NONE_UNMATCHED, audited: this.#audited(), dryRun: this.#rehearse({ allowed: true, reason }) };
  }

  #deny(reason: AccessReason, code: ReasonCode, status: number, policy: Provenance | null, unmatched: readonly Provenance[] = NONE_UNMATCHED): AccessDenied {
    return { kind: "deny", reason, code, status, policy, unmatched, audited: this.#audited(), dryRun: this.#rehearse({ allowed: false, reason }) };
  }

  #audited(): readonly Provenance[] {
    if (this.#access.audit.length === 0) return NONE_AUDITED;
    return this.#access.audit.map((rules) => findMatch(rules, this.#facts)).filter((match) => match !== null);
  }

  #rehearse(decision: { readonly allowed: boolean; readonly reason: AccessReason }): readonly DryRunVerdict[] {
    if (this.#access.dryRun.length === 0) return NO_DRY_RUN;
    return this.#access.dryRun.map(({ policy, rules }) => rehearse(policy, findMatch(rules, this.#facts), decision)).filter((verdict) => verdict !== null);
  }
}

/** What an authorizer would say is not known before it is asked; one that cannot be asked would deny. */
function rehearse(policy: RequestPolicy, match: Provenance | null, decision: { readonly allowed: boolean; readonly reason: AccessReason }): DryRunVerdict | null {
  const { action, provenance } = policy;
  switch (action.kind) {
    case "allow":
    case "deny": return rehearsePolicy({ action: action.kind, provenance }, match, decision);
    case "audit": return null;
    case "custom": return match !== null && action.authorizer === null ? { policy: match, wouldAllow: false } : null;
    default: return action satisfies never;
  }
}

function compile(set: AccessSet): CompiledAccess {
  const known = compiledSets.get(set);
  if (known !== undefined) return known;
  const { custom, deny, allow, audit, dryRun } = policiesByUse(set.policies);
  const compiled: CompiledAccess = {
    custom: compileCustom(custom),
    deny: requestRules.compile(deny),
    allow: requestRules.compile(allow),
    allowing: allow.map(({ provenance }) => provenance),
    audit: audit.map((policy) => requestRules.compile([policy])),
    dryRun: dryRun.map((policy) => ({ policy, rules: requestRules.compile([policy]) })),
  };
  compiledSets.set(set, compiled);
  return compiled;
}

function compileCustom(policies: readonly RequestPolicy[]): CompiledAccess["custom"] {
  const byProvider = new Map<string, { authorizer: ExternalAuthorizer | null; readonly policies: RequestPolicy[] }>();
  for (const policy of policies) {
    if (policy.action.kind !== "custom") continue;
    const { provider, authorizer } = policy.action;
    const known = byProvider.get(provider);
    if (known === undefined) byProvider.set(provider, { authorizer, policies: [policy] });
    else {
      known.policies.push(policy);
      // Two readings of one provider: the one that cannot be asked counts.
      if (authorizer === null) known.authorizer = null;
    }
  }
  return [...byProvider].map(([provider, { authorizer, policies: own }]) => ({ provider, authorizer, rules: requestRules.compile(own) }));
}
