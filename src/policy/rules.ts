// Authorisation rules in the form that answers a connection or a request: compiled once, then found by principal, service account,
// namespace or port, so that thousands of rules cost what the few that could match cost. Pure; the meaning of a match is in `matchHolds`.
// What a layer matches beyond the connection (HTTP) it brings along as one further test for each match.

import type { Provenance } from "../core/fault.ts";
import { CidrMap } from "../core/cidr-map.ts";
import { type Cidr, cidrContains, type IpAddress } from "../core/ip.ts";
import type { PolicyMatch, StringMatch } from "../mesh/records.ts";
import type { ConnectionFacts } from "./connection-facts.ts";

export interface CompiledRules<F extends ConnectionFacts> {
  readonly byPrincipal: ReadonlyMap<string, readonly CompiledRule<F>[]>;
  readonly byServiceAccount: ReadonlyMap<string, readonly CompiledRule<F>[]>;
  readonly byNamespace: ReadonlyMap<string, readonly CompiledRule<F>[]>;
  readonly byPort: ReadonlyMap<number, readonly CompiledRule<F>[]>;
  /** Rules that no single field selects. */
  readonly rest: readonly CompiledRule<F>[];
}

interface CompiledRule<F> {
  readonly clauses: readonly CompiledClause<F>[];
  readonly provenance: Provenance;
}

/** Matches joined by OR; null for a clause without matches, which is true. */
type CompiledClause<F> = readonly CompiledMatch<F>[];

/** What a match asks beyond the connection. */
export type FurtherTest<F> = (facts: F) => boolean;

/** The parts of a policy that are compiled; both layers' policies have them. */
export interface RulePolicy<M extends PolicyMatch> {
  readonly rules: readonly { readonly clauses: readonly { readonly matches: readonly M[] }[]; readonly fieldPath: string }[];
  readonly provenance: Provenance;
}

interface CompiledMatch<F> {
  readonly further: FurtherTest<F> | null;
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

export interface StringSet {
  readonly exact: ReadonlySet<string>;
  readonly prefixes: readonly string[];
  readonly suffixes: readonly string[];
  readonly presence: boolean;
}

export interface IpSet {
  contains(ip: IpAddress): boolean;
}

/** Fewer CIDRs than this are compared one by one. */
const CIDR_MAP_FROM = 5;

/** A rule that matches, or null. The same input always names the same rule. */
export function findMatch<F extends ConnectionFacts>(rules: CompiledRules<F>, facts: F): Provenance | null {
  for (const principal of facts.principals) {
    const found = firstOf(rules.byPrincipal.get(principal), facts);
    if (found !== null) return found;
  }
  return (facts.serviceAccount === null ? null : firstOf(rules.byServiceAccount.get(facts.serviceAccount), facts))
    ?? (facts.namespace === null ? null : firstOf(rules.byNamespace.get(facts.namespace), facts))
    ?? firstOf(rules.byPort.get(facts.destinationPort), facts)
    ?? firstOf(rules.rest, facts);
}

function firstOf<F extends ConnectionFacts>(candidates: readonly CompiledRule<F>[] | undefined, facts: F): Provenance | null {
  if (candidates === undefined) return null;
  for (const rule of candidates) if (ruleHolds(rule, facts)) return rule.provenance;
  return null;
}

function ruleHolds<F extends ConnectionFacts>(rule: CompiledRule<F>, facts: F): boolean {
  for (const clause of rule.clauses) if (!clauseHolds(clause, facts)) return false;
  return true;
}

function clauseHolds<F extends ConnectionFacts>(clause: CompiledClause<F>, facts: F): boolean {
  for (const match of clause) if (matchHolds(match, facts)) return true;
  return false;
}

/** Cheap and selective fields first. A field without an identity to compare with fails, and its `not` twin holds. */
function matchHolds<F extends ConnectionFacts>(m: CompiledMatch<F>, f: F): boolean {
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
  if (m.notDestinationIps !== null && m.notDestinationIps.contains(f.destinationIp)) return false;
  return m.further === null || m.further(f);
}

function anyIn(set: StringSet, values: readonly string[]): boolean {
  for (const value of values) if (isIn(set, value)) return true;
  return false;
}

/** True when the text is one of those meant. Presence means a text that is not empty. */
export function isIn(set: StringSet, value: string): boolean {
  if (set.presence && value !== "") return true;
  if (set.exact.has(value)) return true;
  for (const prefix of set.prefixes) if (value.startsWith(prefix)) return true;
  for (const suffix of set.suffixes) if (value.endsWith(suffix)) return true;
  return false;
}

// ---- compiling

/**
 * Compiles policies of one layer. `opens` says of a policy that a match of it lets somebody in: an allow policy. `further` makes the
 * test for what the layer matches beyond the connection; null when a match has nothing of it.
 */
export class RuleCompiler<P extends RulePolicy<M>, M extends PolicyMatch, F extends ConnectionFacts> {
  readonly #opens: (policy: P) => boolean;
  readonly #further: (match: M, opens: boolean) => FurtherTest<F> | null;
  /** One policy's rules, compiled once however many sets it is part of. */
  readonly #compiled = new WeakMap<P, readonly CompiledRule<F>[]>();

  constructor({ opens, further }: { readonly opens: (policy: P) => boolean; readonly further: (match: M, opens: boolean) => FurtherTest<F> | null }) {
    this.#opens = opens;
    this.#further = further;
  }

  /** Compiles the rules of policies that share one action. Their order decides which of several matching rules is named. */
  compile(policies: readonly P[]): CompiledRules<F> {
    const rules = new RuleIndex<F>();
    for (const policy of policies) for (const rule of this.#rulesOf(policy)) rules.add(rule);
    return rules;
  }

  #rulesOf(policy: P): readonly CompiledRule<F>[] {
    let compiled = this.#compiled.get(policy);
    if (compiled === undefined) {
      compiled = policy.rules.map((rule) => this.#compileRule(policy, rule)).filter((rule) => rule !== null);
      this.#compiled.set(policy, compiled);
    }
    return compiled;
  }

  /** Null for a rule that can never match. */
  #compileRule(policy: P, rule: P["rules"][number]): CompiledRule<F> | null {
    const opens = this.#opens(policy);
    const clauses: CompiledClause<F>[] = [];
    for (const clause of rule.clauses) {
      if (clause.matches.length === 0) continue;
      const matches = clause.matches.map((match) => compileMatch(match, this.#further(match, opens), opens)).filter((match) => match !== null);
      if (matches.length === 0) return null;
      clauses.push(matches);
    }
    return { clauses, provenance: { ...policy.provenance, fieldPath: rule.fieldPath } };
  }
}

function isEmpty(match: PolicyMatch): boolean {
  return match.namespaces.length + match.notNamespaces.length + match.serviceAccounts.length + match.notServiceAccounts.length
    + match.principals.length + match.notPrincipals.length + match.sourceIps.length + match.notSourceIps.length
    + match.destinationIps.length + match.notDestinationIps.length + match.destinationPorts.length + match.notDestinationPorts.length === 0;
}

/**
 * A match without any field stands for conditions this layer cannot see (only HTTP ones were given). Both ways it must not open
 * anything: a policy that opens takes it as false (null), any other as true.
 */
function compileMatch<F>(match: PolicyMatch, further: FurtherTest<F> | null, opens: boolean): CompiledMatch<F> | null {
  if (opens && further === null && isEmpty(match)) return null;
  return {
    further,
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

export function stringSet(matches: readonly StringMatch[]): StringSet | null {
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

export function ipSet(cidrs: readonly Cidr[]): IpSet | null {
  if (cidrs.length === 0) return null;
  if (cidrs.length < CIDR_MAP_FROM) return { contains: (ip) => cidrs.some((cidr) => cidrContains(cidr, ip)) };
  const map = new CidrMap<true>();
  for (const cidr of cidrs) map.set(cidr, true);
  return map;
}

/** Files each rule under the values that one of its clauses requires. */
class RuleIndex<F extends ConnectionFacts> implements CompiledRules<F> {
  readonly byPrincipal = new Map<string, CompiledRule<F>[]>();
  readonly byServiceAccount = new Map<string, CompiledRule<F>[]>();
  readonly byNamespace = new Map<string, CompiledRule<F>[]>();
  readonly byPort = new Map<number, CompiledRule<F>[]>();
  readonly rest: CompiledRule<F>[] = [];

  add(rule: CompiledRule<F>): void {
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

  #file(selector: Selector, rule: CompiledRule<F>): void {
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
function selectorOf(match: CompiledMatch<never>): Selector | null {
  if (isExact(match.principals)) return { kind: "principal", values: match.principals.exact };
  if (match.serviceAccounts !== null) return { kind: "serviceAccount", values: match.serviceAccounts };
  if (isExact(match.namespaces)) return { kind: "namespace", values: match.namespaces.exact };
  if (match.destinationPorts !== null) return { kind: "port", values: match.destinationPorts };
  return null;
}

function isExact(set: StringSet | null): set is StringSet {
  return set !== null && !set.presence && set.prefixes.length === 0 && set.suffixes.length === 0;
}

function append<K, F>(index: Map<K, CompiledRule<F>[]>, key: K, rule: CompiledRule<F>): void {
  const list = index.get(key);
  if (list === undefined) index.set(key, [rule]);
  else if (!list.includes(rule)) list.push(rule);
}
