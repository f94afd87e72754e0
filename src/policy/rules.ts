// Authorisation rules in the form that answers a connection: compiled once, then found by principal, service account, namespace
// or port, so that thousands of rules cost what the few that could match cost. Pure; the meaning of a match is in `matchHolds`.

import type { Provenance } from "../core/fault.ts";
import { CidrMap } from "../core/cidr-map.ts";
import { type Cidr, cidrContains, type IpAddress } from "../core/ip.ts";
import type { AuthorizationPolicy, PolicyAction, PolicyMatch, PolicyRule, StringMatch } from "../mesh/records.ts";

export interface ConnectionFacts {
  /** The SPIFFE ID less its scheme, under each alias of its trust domain; empty without an identity. */
  readonly principals: readonly string[];
  readonly namespace: string | null;
  /** `namespace/name`. */
  readonly serviceAccount: string | null;
  readonly sourceIp: IpAddress;
  readonly destinationIp: IpAddress;
  readonly destinationPort: number;
}

export interface CompiledRules {
  readonly byPrincipal: ReadonlyMap<string, readonly CompiledRule[]>;
  readonly byServiceAccount: ReadonlyMap<string, readonly CompiledRule[]>;
  readonly byNamespace: ReadonlyMap<string, readonly CompiledRule[]>;
  readonly byPort: ReadonlyMap<number, readonly CompiledRule[]>;
  /** Rules that no single field selects. */
  readonly rest: readonly CompiledRule[];
}

interface CompiledRule {
  readonly clauses: readonly CompiledClause[];
  readonly provenance: Provenance;
}

/** Matches joined by OR; null for a clause without matches, which is true. */
type CompiledClause = readonly CompiledMatch[];

interface CompiledMatch {
  readonly source: PolicyMatch;
  readonly namespaces: StringSet | null;
  readonly notNamespaces: StringSet | null;
  readonly serviceAccounts: ReadonlySet<string> | null;
  readonly notServiceAccounts: ReadonlySet<string> | null;
  readonly principals: StringSet | null;
  readonly notPrincipals: StringSet | null;
  readonly sourceIps: IpSet | null;
  readonly notSourceIps: IpSet | null;
  readonly destinationIps: IpSet | null;
  readonly notDestinationIps: IpSet | null;
  readonly destinationPorts: ReadonlySet<number> | null;
  readonly notDestinationPorts: ReadonlySet<number> | null;
}

interface StringSet {
  readonly exact: ReadonlySet<string>;
  readonly prefixes: readonly string[];
  readonly suffixes: readonly string[];
  readonly presence: boolean;
}

interface IpSet {
  contains(ip: IpAddress): boolean;
}

/** Fewer CIDRs than this are compared one by one. */
const CIDR_MAP_FROM = 5;

/** Compiles the rules of policies that share one action. Their order decides which of several matching rules is named. */
export function compileRules(policies: readonly AuthorizationPolicy[]): CompiledRules {
  const rules = new RuleIndex();
  for (const policy of policies) for (const rule of compiledRulesOf(policy)) rules.add(rule);
  return rules;
}

/** A rule that matches, or null. The same input always names the same rule. */
export function findMatch(rules: CompiledRules, facts: ConnectionFacts): Provenance | null {
  for (const principal of facts.principals) {
    const found = firstOf(rules.byPrincipal.get(principal), facts);
    if (found !== null) return found;
  }
  return (facts.serviceAccount === null ? null : firstOf(rules.byServiceAccount.get(facts.serviceAccount), facts))
    ?? (facts.namespace === null ? null : firstOf(rules.byNamespace.get(facts.namespace), facts))
    ?? firstOf(rules.byPort.get(facts.destinationPort), facts)
    ?? firstOf(rules.rest, facts);
}

function firstOf(candidates: readonly CompiledRule[] | undefined, facts: ConnectionFacts): Provenance | null {
  if (candidates === undefined) return null;
  for (const rule of candidates) if (ruleHolds(rule, facts)) return rule.provenance;
  return null;
}

function ruleHolds(rule: CompiledRule, facts: ConnectionFacts): boolean {
  for (const clause of rule.clauses) if (!clauseHolds(clause, facts)) return false;
  return true;
}

function clauseHolds(clause: CompiledClause, facts: ConnectionFacts): boolean {
  for (const match of clause) if (matchHolds(match, facts)) return true;
  return false;
}

/** Cheap and selective fields first. A field without an identity to compare with fails, and its `not` twin holds. */
function matchHolds(m: CompiledMatch, f: ConnectionFacts): boolean {
  if (m.destinationPorts !== null && !m.destinationPorts.has(f.destinationPort)) return false;
  if (m.notDestinationPorts !== null && m.notDestinationPorts.has(f.destinationPort)) return false;
  if (m.principals !== null && !anyIn(m.principals, f.principals)) return false;
  if (m.notPrincipals !== null && anyIn(m.notPrincipals, f.principals)) return false;
  if (m.serviceAccounts !== null && !(f.serviceAccount !== null && m.serviceAccounts.has(f.serviceAccount))) return false;
  if (m.notServiceAccounts !== null && f.serviceAccount !== null && m.notServiceAccounts.has(f.serviceAccount)) return false;
  if (m.namespaces !== null && !(f.namespace !== null && isIn(m.namespaces, f.namespace))) return false;
  if (m.notNamespaces !== null && f.namespace !== null && isIn(m.notNamespaces, f.namespace)) return false;
  if (m.sourceIps !== null && !m.sourceIps.contains(f.sourceIp)) return false;
  if (m.notSourceIps !== null && m.notSourceIps.contains(f.sourceIp)) return false;
  if (m.destinationIps !== null && !m.destinationIps.contains(f.destinationIp)) return false;
  return m.notDestinationIps === null || !m.notDestinationIps.contains(f.destinationIp);
}

function anyIn(set: StringSet, values: readonly string[]): boolean {
  for (const value of values) if (isIn(set, value)) return true;
  return false;
}

function isIn(set: StringSet, value: string): boolean {
  if (set.presence && value !== "") return true;
  if (set.exact.has(value)) return true;
  for (const prefix of set.prefixes) if (value.startsWith(prefix)) return true;
  for (const suffix of set.suffixes) if (value.endsWith(suffix)) return true;
  return false;
}

// ---- compiling

/** One policy's rules, compiled once however many sets it is part of. */
const compiledPolicies = new WeakMap<AuthorizationPolicy, readonly CompiledRule[]>();

function compiledRulesOf(policy: AuthorizationPolicy): readonly CompiledRule[] {
  const known = compiledPolicies.get(policy);
  if (known !== undefined) return known;
  const compiled = policy.rules.map((rule) => compileRule(policy, rule)).filter((rule) => rule !== null);
  compiledPolicies.set(policy, compiled);
  return compiled;
}

/** Null for a rule that can never match. */
function compileRule(policy: AuthorizationPolicy, rule: PolicyRule): CompiledRule | null {
  const clauses: CompiledClause[] = [];
  for (const clause of rule.clauses) {
    if (clause.matches.length === 0) continue;
    const matches = clause.matches.filter((match) => !isEmpty(match) || emptyMatchHolds(policy.action)).map(compileMatch);
    if (matches.length === 0) return null;
    clauses.push(matches);
  }
  return { clauses, provenance: { ...policy.provenance, fieldPath: rule.fieldPath } };
}

/**
 * A match without any field stands for conditions this layer cannot see (only HTTP ones were given). Both ways it must not open
 * anything: a deny policy takes it as true, an allow policy as false.
 */
function emptyMatchHolds(action: PolicyAction): boolean {
  return action === "deny";
}

function isEmpty(match: PolicyMatch): boolean {
  return match.namespaces.length + match.notNamespaces.length + match.serviceAccounts.length + match.notServiceAccounts.length
    + match.principals.length + match.notPrincipals.length + match.sourceIps.length + match.notSourceIps.length
    + match.destinationIps.length + match.notDestinationIps.length + match.destinationPorts.length + match.notDestinationPorts.length === 0;
}

function compileMatch(match: PolicyMatch): CompiledMatch {
  return {
    source: match,
    namespaces: stringSet(match.namespaces),
    notNamespaces: stringSet(match.notNamespaces),
    serviceAccounts: serviceAccountSet(match.serviceAccounts),
    notServiceAccounts: serviceAccountSet(match.notServiceAccounts),
    principals: stringSet(match.principals),
    notPrincipals: stringSet(match.notPrincipals),
    sourceIps: ipSet(match.sourceIps),
    notSourceIps: ipSet(match.notSourceIps),
    destinationIps: ipSet(match.destinationIps),
    notDestinationIps: ipSet(match.notDestinationIps),
    destinationPorts: match.destinationPorts.length === 0 ? null : new Set(match.destinationPorts),
    notDestinationPorts: match.notDestinationPorts.length === 0 ? null : new Set(match.notDestinationPorts),
  };
}

function stringSet(matches: readonly StringMatch[]): StringSet | null {
  if (matches.length === 0) return null;
  const exact = new Set<string>();
  const prefixes: string[] = [];
  const suffixes: string[] = [];
  let presence = false;
  for (const match of matches) {
    switch (match.kind) {
      case "exact": exact.add(match.value); break;
      case "prefix": prefixes.push(match.value); break;
      case "suffix": suffixes.push(match.value); break;
      case "presence": presence = true; break;
      default: match satisfies never;
    }
  }
  return { exact, prefixes, suffixes, presence };
}

function serviceAccountSet(matches: PolicyMatch["serviceAccounts"]): ReadonlySet<string> | null {
  return matches.length === 0 ? null : new Set(matches.map((m) => `${m.namespace}/${m.serviceAccount}`));
}

function ipSet(cidrs: readonly Cidr[]): IpSet | null {
  if (cidrs.length === 0) return null;
  if (cidrs.length < CIDR_MAP_FROM) return { contains: (ip) => cidrs.some((cidr) => cidrContains(cidr, ip)) };
  const map = new CidrMap<true>();
  for (const cidr of cidrs) map.set(cidr, true);
  return map;
}

/** Files each rule under the values that one of its clauses requires. */
class RuleIndex implements CompiledRules {
  readonly byPrincipal = new Map<string, CompiledRule[]>();
  readonly byServiceAccount = new Map<string, CompiledRule[]>();
  readonly byNamespace = new Map<string, CompiledRule[]>();
  readonly byPort = new Map<number, CompiledRule[]>();
  readonly rest: CompiledRule[] = [];

  add(rule: CompiledRule): void {
    let best: readonly Selector[] | null = null;
    for (const clause of rule.clauses) {
      const selectors = clause.map(selectorOf);
      // A rule holds only if every clause does, so any one clause may select it: identity narrows more than a port does.
      if (selectors.every((s) => s !== null) && (best === null || rank(selectors) < rank(best))) best = selectors;
    }
    if (best === null) {
      this.rest.push(rule);
      return;
    }
    for (const selector of best) this.#file(selector, rule);
  }

  #file(selector: Selector, rule: CompiledRule): void {
    switch (selector.kind) {
      case "principal": for (const value of selector.values) append(this.byPrincipal, value, rule); break;
      case "serviceAccount": for (const value of selector.values) append(this.byServiceAccount, value, rule); break;
      case "namespace": for (const value of selector.values) append(this.byNamespace, value, rule); break;
      case "port": for (const value of selector.values) append(this.byPort, value, rule); break;
      default: selector satisfies never;
    }
  }
}

type Selector =
  | { readonly kind: "principal"; readonly values: ReadonlySet<string> }
  | { readonly kind: "serviceAccount"; readonly values: ReadonlySet<string> }
  | { readonly kind: "namespace"; readonly values: ReadonlySet<string> }
  | { readonly kind: "port"; readonly values: ReadonlySet<number> };

const SELECTIVITY = { principal: 0, serviceAccount: 1, namespace: 2, port: 3 } as const;

function rank(selectors: readonly (Selector | null)[]): number {
  return Math.max(...selectors.map((s) => (s === null ? 4 : SELECTIVITY[s.kind])));
}

/** The narrowest field that lists its values exactly; null when none does. */
function selectorOf(match: CompiledMatch): Selector | null {
  if (isExact(match.principals)) return { kind: "principal", values: match.principals.exact };
  if (match.serviceAccounts !== null) return { kind: "serviceAccount", values: match.serviceAccounts };
  if (isExact(match.namespaces)) return { kind: "namespace", values: match.namespaces.exact };
  if (match.destinationPorts !== null) return { kind: "port", values: match.destinationPorts };
  return null;
}

function isExact(set: StringSet | null): set is StringSet {
  return set !== null && !set.presence && set.prefixes.length === 0 && set.suffixes.length === 0;
}

function append<K>(index: Map<K, CompiledRule[]>, key: K, rule: CompiledRule): void {
  const list = index.get(key);
  if (list === undefined) index.set(key, [rule]);
  else if (!list.includes(rule)) list.push(rule);
}
