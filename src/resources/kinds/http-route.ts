// gateway.networking.k8s.io HTTPRoute, standard and experimental channel.

import { z } from "zod";
import { gatewayDuration, gatewayDurationMs } from "../durations.ts";
import type { FieldPath } from "../diagnostic.ts";
import { headerName, headerValue, METHODS, pathFault, wildcardHostname } from "../http-values.ts";
import { BACKENDS_MAX, ROUTE_MATCHES_MAX, ROUTE_RULES_MAX } from "../limits.ts";
import { dnsSubdomain } from "../object-meta.ts";
import { regexFault } from "../patterns.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";
import { checkFilters, checkParentRefs, checkRuleNames, checkSessionPersistence, FILTERS_MAX, httpBackendRef, httpFilter, parentRef, sessionPersistence } from "../route-parts.ts";

const FIELDS_MAX = 16;
const PATH_VALUE_CHARS_MAX = 1024;
const QUERY_VALUE_CHARS_MAX = 1024;
const matchType = z.enum(["Exact", "RegularExpression"]).optional();
const match = z.strictObject({
  path: z.strictObject({ type: z.enum(["Exact", "PathPrefix", "RegularExpression"]).optional(), value: z.string().max(PATH_VALUE_CHARS_MAX).optional() }).optional(),
  headers: z.array(z.strictObject({ type: matchType, name: headerName, value: headerValue.min(1) })).max(FIELDS_MAX).optional(),
  queryParams: z.array(z.strictObject({ type: matchType, name: headerName, value: z.string().min(1).max(QUERY_VALUE_CHARS_MAX) })).max(FIELDS_MAX).optional(),
  method: z.enum(METHODS).optional(),
});

const rule = z.strictObject({
  name: dnsSubdomain.optional(),
  matches: z.array(match).max(ROUTE_MATCHES_MAX).optional(),
  filters: z.array(httpFilter).max(FILTERS_MAX).optional(),
  backendRefs: z.array(httpBackendRef).max(BACKENDS_MAX).optional(),
  timeouts: z.strictObject({ request: gatewayDuration.optional(), backendRequest: gatewayDuration.optional() }).optional(),
  retry: z.strictObject({ codes: z.array(z.int().min(400).max(599)).max(200).optional(), attempts: z.int().min(1).max(100).optional(), backoff: gatewayDuration.optional() }).optional(),
  sessionPersistence: sessionPersistence.optional(),
});

const spec = z.strictObject({
  parentRefs: z.array(parentRef).max(32).optional(),
  hostnames: z.array(wildcardHostname).max(16).optional(),
  useDefaultGateways: z.enum(["All", "None"]).optional(),
  rules: z.array(rule).max(ROUTE_RULES_MAX).optional(),
});

export const httpRouteKind = defineKind({
  kind: "HTTPRoute",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1beta1"],
  namespaced: true,
  spec,
  check({ spec }, report) {
    checkParentRefs(spec.parentRefs ?? [], ["spec", "parentRefs"], report);
    checkRuleNames(spec.rules ?? [], ["spec", "rules"], report);
    (spec.rules ?? []).forEach((one, index) => checkRule(one, ["spec", "rules", index], report));
  },
});

export type HttpRouteResource = ResourceOfKind<typeof httpRouteKind>;
export type HttpRouteRule = NonNullable<HttpRouteResource["spec"]["rules"]>[number];
export type HttpRouteMatch = NonNullable<HttpRouteRule["matches"]>[number];

function checkRule(rule: HttpRouteRule, at: FieldPath, report: Report): void {
  const matches = rule.matches ?? [];
  matches.forEach((one, index) => checkMatch(one, [...at, "matches", index], report));
  // Without matches a rule has one: the prefix /.
  const prefixMatch = matches.length === 0 || (matches.length === 1 && (matches[0]?.path?.type ?? "PathPrefix") === "PathPrefix");
  checkFilters(rule.filters ?? [], [...at, "filters"], prefixMatch, report);
  (rule.backendRefs ?? []).forEach((backend, index) => checkFilters(backend.filters ?? [], [...at, "backendRefs", index, "filters"], prefixMatch, report));
  if ((rule.filters ?? []).some(({ type }) => type === "RequestRedirect") && (rule.backendRefs ?? []).length > 0) {
    report("error", "conflict", [...at, "backendRefs"], "found backends beside a redirect, which would never be reached");
  }
  checkSessionPersistence(rule.sessionPersistence, [...at, "sessionPersistence"], report);
  const { request, backendRequest } = rule.timeouts ?? {};
  if (request !== undefined && backendRequest !== undefined && gatewayDurationMs(request) > 0 && gatewayDurationMs(backendRequest) > gatewayDurationMs(request)) {
    report("error", "bad_value", [...at, "timeouts", "backendRequest"], `found ${backendRequest}, expected at most request, ${request}`);
  }
}

function checkMatch(match: HttpRouteMatch, at: FieldPath, report: Report): void {
  const { type = "PathPrefix", value = "/" } = match.path ?? {};
  const fault = type === "RegularExpression" ? regexFault(value) : pathFault(value);
  if (fault !== null) report("error", "bad_value", [...at, "path", "value"], `found ${JSON.stringify(value)}, ${fault}`);
  for (const field of ["headers", "queryParams"] as const) {
    const seen = new Set<string>();
    (match[field] ?? []).forEach(({ name, type: how, value: wanted }, index) => {
      const key = field === "headers" ? name.toLowerCase() : name;
      if (seen.has(key)) report("warning", "conflict", [...at, field, index, "name"], `found ${name} twice; only the first counts, as the specification has it`);
      seen.add(key);
      const wrong = how === "RegularExpression" ? regexFault(wanted) : null;
      if (wrong !== null) report("error", "bad_value", [...at, field, index, "value"], `found ${JSON.stringify(wanted)}, ${wrong}`);
    });
  }
}
