// What HTTPRoute and GRPCRoute share beyond the parts of every route: the frame of the kind and of its rules, matches of headers, and
// what holds across a rule's filters and backends.

import { z } from "zod";
import type { FieldPath } from "./diagnostic.ts";
import { headerName, headerValue, wildcardHostname } from "./http-values.ts";
import { BACKENDS_MAX, ROUTE_MATCHES_MAX, ROUTE_RULES_MAX } from "./limits.ts";
import { dnsSubdomain } from "./object-meta.ts";
import { regexFault } from "./patterns.ts";
import type { Report } from "./resource.ts";
import {
  checkFilters, checkParentRefs, checkRuleNames, checkSessionPersistence, FILTERS_MAX, type HttpFilter, type ParentRef, routeParts, type SessionPersistenceSpec,
} from "./route-parts.ts";

export const MATCH_FIELDS_MAX = 16;
export const matchType = z.enum(["Exact", "RegularExpression"]).optional();
export const headerMatches = z.array(z.strictObject({ type: matchType, name: headerName, value: headerValue.min(1) })).max(MATCH_FIELDS_MAX).optional();

/** Fields of a rule; a kind adds its own. */
export function ruleFields<Match extends z.ZodType, Filter extends z.ZodType, Backend extends z.ZodType>(match: Match, filter: Filter, backend: Backend) {
  return {
    name: dnsSubdomain.optional(),
    matches: z.array(match).max(ROUTE_MATCHES_MAX).optional(),
    filters: z.array(filter).max(FILTERS_MAX).optional(),
    backendRefs: z.array(backend).max(BACKENDS_MAX).optional(),
    sessionPersistence: routeParts().sessionPersistence.optional(),
  };
}

export function routeSpec<Rule extends z.ZodType>(rule: Rule) {
  return z.strictObject({
    parentRefs: z.array(routeParts().parentRef).max(32).optional(),
    hostnames: z.array(wildcardHostname).max(16).optional(),
    useDefaultGateways: z.enum(["All", "None"]).optional(),
    rules: z.array(rule).max(ROUTE_RULES_MAX).optional(),
  });
}

interface RuleSpec {
  readonly name?: string | undefined;
  readonly filters?: readonly HttpFilter[] | undefined;
  readonly backendRefs?: readonly { readonly filters?: readonly HttpFilter[] | undefined }[] | undefined;
  readonly sessionPersistence?: SessionPersistenceSpec | undefined;
}

/** @param checkRule what the kind itself has to say of each rule. */
export function checkRoute<Rule extends RuleSpec>(
  spec: { readonly parentRefs?: readonly ParentRef[] | undefined; readonly rules?: readonly Rule[] | undefined }, report: Report, checkRule: (rule: Rule, at: FieldPath, report: Report) => void,
): void {
  const rules = spec.rules ?? [];
  checkParentRefs(spec.parentRefs ?? [], ["spec", "parentRefs"], report);
  checkRuleNames(rules, ["spec", "rules"], report);
  rules.forEach((rule, index) => checkRule(rule, ["spec", "rules", index], report));
}

/** @param prefixMatch exactly one match is by path prefix. */
export function checkRuleParts(rule: RuleSpec, at: FieldPath, prefixMatch: boolean, report: Report): void {
  checkFilters(rule.filters ?? [], [...at, "filters"], prefixMatch, report);
  (rule.backendRefs ?? []).forEach((backend, index) => checkFilters(backend.filters ?? [], [...at, "backendRefs", index, "filters"], prefixMatch, report));
  checkSessionPersistence(rule.sessionPersistence, [...at, "sessionPersistence"], report);
}

/** Matches of headers or query parameters. @param fold names that differ in case alone are the same. */
export function checkFieldMatches(matches: z.output<typeof headerMatches>, at: FieldPath, fold: boolean, report: Report): void {
  const seen = new Set<string>();
  (matches ?? []).forEach(({ name, type, value }, index) => {
    const key = fold ? name.toLowerCase() : name;
    if (seen.has(key)) report("warning", "conflict", [...at, index, "name"], `found ${name} twice; only the first counts, as the specification has it`);
    seen.add(key);
    const fault = type === "RegularExpression" ? regexFault(value) : null;
    if (fault !== null) report("error", "bad_value", [...at, index, "value"], `found ${JSON.stringify(value)}, ${fault}`);
  });
}
