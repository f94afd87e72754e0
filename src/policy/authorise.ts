// May this connection reach this workload? A pure function of the store and four facts about the connection, so that a live
// connection is judged again simply by calling it again. Reads no HTTP; a policy it cannot see denies.

import type { NamespacedName } from "../core/brand.ts";
import { formatProvenance, type Provenance } from "../core/fault.ts";
import { formatSocketAddress, type IpAddress } from "../core/ip.ts";
import { parseSpiffeId, type SpiffeId, type TrustDomain } from "../core/spiffe.ts";
import type { AuthorizationPolicy, Workload } from "../mesh/records.ts";
import type { MeshStore, PolicySet } from "../mesh/store.ts";
import { type CompiledRules, type ConnectionFacts, compileRules, findMatch } from "./rules.ts";

/** What is known of a connection when it is judged. */
export interface AuthorisationSubject {
  /** Identity the peer proved; null on plain TCP. */
  readonly peer: SpiffeId | null;
  readonly sourceIp: IpAddress;
  readonly destinationIp: IpAddress;
  /** The application's port, never the tunnel's. */
  readonly destinationPort: number;
}

/** Trust domains that name the same identities. A principal in one of them is compared under each. */
export interface TrustDomainAliases {
  readonly own: TrustDomain;
  readonly aliases: readonly TrustDomain[];
}

export type AuthorisationReason =
  /** Nothing binds the workload. */
  | "no allow policy"
  | "allowed by"
  | "denied by"
  /** There are allow policies, and none matches. */
  | "no allow matched"
  /** The workload names a policy that is not here: denied until it arrives. */
  | "policy not delivered";

export interface DryRunVerdict {
  readonly policy: Provenance;
  /** What the decision would be, were this policy enforced too. */
  readonly wouldAllow: boolean;
}

export interface AuthorisationDecision {
  readonly allowed: boolean;
  readonly reason: AuthorisationReason;
  /** The rule that decided, down to its field; null where none did. */
  readonly policy: Provenance | null;
  /** With "policy not delivered": which. */
  readonly missing: readonly NamespacedName[];
  /** Only dry-run policies that matched or would have changed the outcome. */
  readonly dryRun: readonly DryRunVerdict[];
}

interface CompiledSet {
  readonly deny: CompiledRules;
  readonly allow: CompiledRules;
  readonly hasAllow: boolean;
  readonly dryRun: readonly { readonly policy: AuthorizationPolicy; readonly rules: CompiledRules }[];
}

const NO_DRY_RUN: readonly DryRunVerdict[] = Object.freeze([]);
const NONE_MISSING: readonly NamespacedName[] = Object.freeze([]);
const NO_ALLOW_POLICY: AuthorisationDecision = Object.freeze({
  allowed: true, reason: "no allow policy", policy: null, missing: NONE_MISSING, dryRun: NO_DRY_RUN,
});
const NO_ALLOW_MATCHED: AuthorisationDecision = Object.freeze({
  allowed: false, reason: "no allow matched", policy: null, missing: NONE_MISSING, dryRun: NO_DRY_RUN,
});

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
      return "denied: there are allow policies and none matches";
    default:
      return decision.reason satisfies never;
  }
}

/** The subject in words: `spiffe://td/ns/a/sa/b at 198.18.0.1 to 198.18.0.2:80`. */
export function formatSubject(subject: AuthorisationSubject): string {
  const to = formatSocketAddress({ ip: subject.destinationIp, port: subject.destinationPort });
  return `${subject.peer ?? "an unauthenticated peer"} at ${subject.sourceIp} to ${to}`;
}

function enforce(policies: PolicySet, compiled: CompiledSet, facts: ConnectionFacts): AuthorisationDecision {
  const denied = findMatch(compiled.deny, facts);
  if (denied !== null) return { allowed: false, reason: "denied by", policy: denied, missing: NONE_MISSING, dryRun: NO_DRY_RUN };
  if (policies.missing.length > 0) {
    return { allowed: false, reason: "policy not delivered", policy: null, missing: policies.missing, dryRun: NO_DRY_RUN };
  }
  if (!compiled.hasAllow) return NO_ALLOW_POLICY;
  const allowed = findMatch(compiled.allow, facts);
  if (allowed === null) return NO_ALLOW_MATCHED;
  return { allowed: true, reason: "allowed by", policy: allowed, missing: NONE_MISSING, dryRun: NO_DRY_RUN };
}

function rehearse(compiled: CompiledSet, facts: ConnectionFacts, decision: AuthorisationDecision): DryRunVerdict[] {
  const verdicts: DryRunVerdict[] = [];
  for (const { policy, rules } of compiled.dryRun) {
    const match = findMatch(rules, facts);
    if (policy.action === "deny") {
      if (match !== null) verdicts.push({ policy: match, wouldAllow: false });
    } else if (match !== null) {
      // One more allow policy that matches overrules only the lack of a match.
      verdicts.push({ policy: match, wouldAllow: decision.allowed || decision.reason === "no allow matched" });
    } else if (decision.reason === "no allow policy") {
      verdicts.push({ policy: policy.provenance, wouldAllow: false });
    }
  }
  return verdicts;
}

function compile(policies: PolicySet): CompiledSet {
  const known = compiledSets.get(policies);
  if (known !== undefined) return known;
  const enforcedAllow = policies.allow.filter((p) => !p.dryRun);
  const compiled: CompiledSet = {
    deny: compileRules(policies.deny.filter((p) => !p.dryRun)),
    allow: compileRules(enforcedAllow),
    hasAllow: enforcedAllow.length > 0,
    dryRun: [...policies.deny, ...policies.allow].filter((p) => p.dryRun).map((policy) => ({ policy, rules: compileRules([policy]) })),
  };
  compiledSets.set(policies, compiled);
  return compiled;
}

function connectionFacts(subject: AuthorisationSubject, trustDomains: TrustDomainAliases | null): ConnectionFacts {
  const { sourceIp, destinationIp, destinationPort } = subject;
  const parts = subject.peer === null ? null : parseSpiffeId(subject.peer);
  if (parts === null) return { principals: NO_PRINCIPALS, namespace: null, serviceAccount: null, sourceIp, destinationIp, destinationPort };
  return {
    principals: principalsOf(parts.id, parts.trustDomain, trustDomains),
    namespace: parts.namespace,
    serviceAccount: `${parts.namespace}/${parts.serviceAccount}`,
    sourceIp, destinationIp, destinationPort,
  };
}

const NO_PRINCIPALS: readonly string[] = Object.freeze([]);

function principalsOf(id: SpiffeId, domain: TrustDomain, trustDomains: TrustDomainAliases | null): readonly string[] {
  const principal = id.slice("spiffe://".length);
  if (trustDomains === null || trustDomains.aliases.length === 0) return [principal];
  const domains = [trustDomains.own, ...trustDomains.aliases];
  if (!domains.includes(domain)) return [principal];
  const rest = principal.slice(domain.length);
  return [...new Set([principal, ...domains.map((other) => other + rest)])];
}
