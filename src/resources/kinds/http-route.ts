// gateway.networking.k8s.io HTTPRoute, standard and experimental channel.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import { gatewayDuration, gatewayDurationMs } from "../durations.ts";
import type { FieldPath } from "../diagnostic.ts";
import { headerName, METHODS, pathFault } from "../http-values.ts";
import { regexFault } from "../patterns.ts";
import { checkFieldMatches, checkRoute, checkRuleParts, headerMatches, MATCH_FIELDS_MAX, matchType, routeSpec, ruleFields } from "../request-route-parts.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";
import { routeParts } from "../route-parts.ts";

const PATH_VALUE_CHARS_MAX = 1024;
const QUERY_VALUE_CHARS_MAX = 1024;

const spec = collectable(() => {
  const { httpBackendRef, httpFilter } = routeParts();
  const match = z.strictObject({
    path: z.strictObject({ type: z.enum(["Exact", "PathPrefix", "RegularExpression"]).optional(), value: z.string().max(PATH_VALUE_CHARS_MAX).optional() }).optional(),
    headers: headerMatches,
    queryParams: z.array(z.strictObject({ type: matchType, name: headerName, value: z.string().min(1).max(QUERY_VALUE_CHARS_MAX) })).max(MATCH_FIELDS_MAX).optional(),
    method: z.enum(METHODS).optional(),
  });
  const rule = z.strictObject({
    ...ruleFields(match, httpFilter, httpBackendRef),
    timeouts: z.strictObject({ request: gatewayDuration.optional(), backendRequest: gatewayDuration.optional() }).optional(),
    retry: z.strictObject({ codes: z.array(z.int().min(400).max(599)).max(200).optional(), attempts: z.int().min(1).max(100).optional(), backoff: gatewayDuration.optional() }).optional(),
  });
  return routeSpec(rule);
});

export const httpRouteKind = defineKind({
  kind: "HTTPRoute",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1beta1"],
  namespaced: true,
  spec,
  check: ({ spec }, report) => checkRoute(spec, report, checkRule),
});

export type HttpRouteResource = ResourceOfKind<typeof httpRouteKind>;
export type HttpRouteRule = NonNullable<HttpRouteResource["spec"]["rules"]>[number];
export type HttpRouteMatch = NonNullable<HttpRouteRule["matches"]>[number];

function checkRule(rule: HttpRouteRule, at: FieldPath, report: Report): void {
  const matches = rule.matches ?? [];
  matches.forEach((one, index) => checkMatch(one, [...at, "matches", index], report));
  // Without matches a rule has one: the prefix /.
  const prefixMatch = matches.length === 0 || (matches.length === 1 && (matches[0]?.path?.type ?? "PathPrefix") === "PathPrefix");
  checkRuleParts(rule, at, prefixMatch, report);
  if ((rule.filters ?? []).some(({ type }) => type === "RequestRedirect") && (rule.backendRefs ?? []).length > 0) {
    report("error", "conflict", [...at, "backendRefs"], "found backends beside a redirect, which would never be reached");
  }
  const { request, backendRequest } = rule.timeouts ?? {};
  if (request !== undefined && backendRequest !== undefined && gatewayDurationMs(request) > 0 && gatewayDurationMs(backendRequest) > gatewayDurationMs(request)) {
    report("error", "bad_value", [...at, "timeouts", "backendRequest"], `found ${backendRequest}, expected at most request, ${request}`);
  }
}

function checkMatch(match: HttpRouteMatch, at: FieldPath, report: Report): void {
  const { type = "PathPrefix", value = "/" } = match.path ?? {};
  const fault = type === "RegularExpression" ? regexFault(value) : pathFault(value);
  if (fault !== null) report("error", "bad_value", [...at, "path", "value"], `found ${JSON.stringify(value)}, ${fault}`);
  checkFieldMatches(match.headers, [...at, "headers"], true, report);
  checkFieldMatches(match.queryParams, [...at, "queryParams"], false, report);
}
