// gateway.networking.k8s.io GRPCRoute.

import { z } from "zod";
import type { FieldPath } from "../diagnostic.ts";
import { headerName, wildcardHostname } from "../http-values.ts";
import { BACKENDS_MAX, ROUTE_MATCHES_MAX, ROUTE_RULES_MAX } from "../limits.ts";
import { dnsSubdomain } from "../object-meta.ts";
import { regexFault } from "../patterns.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";
import { checkFilters, checkParentRefs, checkRuleNames, checkSessionPersistence, FILTERS_MAX, grpcBackendRef, grpcFilter, parentRef, sessionPersistence } from "../route-parts.ts";

const NAME_CHARS_MAX = 1024;
const matchType = z.enum(["Exact", "RegularExpression"]).optional();
const match = z.strictObject({
  method: z.strictObject({ type: matchType, service: z.string().min(1).max(NAME_CHARS_MAX).optional(), method: z.string().min(1).max(NAME_CHARS_MAX).optional() })
    .refine(({ service, method }) => service !== undefined || method !== undefined, { error: "expected a service, a method or both" }).optional(),
  headers: z.array(z.strictObject({ type: matchType, name: headerName, value: z.string().min(1).max(4096) })).max(16).optional(),
});

const rule = z.strictObject({
  name: dnsSubdomain.optional(),
  matches: z.array(match).max(ROUTE_MATCHES_MAX).optional(),
  filters: z.array(grpcFilter).max(FILTERS_MAX).optional(),
  backendRefs: z.array(grpcBackendRef).max(BACKENDS_MAX).optional(),
  sessionPersistence: sessionPersistence.optional(),
});

const spec = z.strictObject({
  parentRefs: z.array(parentRef).max(32).optional(),
  hostnames: z.array(wildcardHostname).max(16).optional(),
  useDefaultGateways: z.enum(["All", "None"]).optional(),
  rules: z.array(rule).max(ROUTE_RULES_MAX).optional(),
});

export const grpcRouteKind = defineKind({
  kind: "GRPCRoute",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1alpha2"],
  namespaced: true,
  spec,
  check({ spec }, report) {
    checkParentRefs(spec.parentRefs ?? [], ["spec", "parentRefs"], report);
    checkRuleNames(spec.rules ?? [], ["spec", "rules"], report);
    (spec.rules ?? []).forEach((one, index) => checkRule(one, ["spec", "rules", index], report));
  },
});

export type GrpcRouteResource = ResourceOfKind<typeof grpcRouteKind>;
export type GrpcRouteRule = NonNullable<GrpcRouteResource["spec"]["rules"]>[number];
export type GrpcRouteMatch = NonNullable<GrpcRouteRule["matches"]>[number];

/** What a gRPC path's two parts may be made of, when they are compared as they are. */
const SERVICE = /^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$/;
const METHOD = /^[A-Za-z0-9_]+$/;

function checkRule(rule: GrpcRouteRule, at: FieldPath, report: Report): void {
  (rule.matches ?? []).forEach((one, index) => checkMatch(one, [...at, "matches", index], report));
  checkFilters(rule.filters ?? [], [...at, "filters"], false, report);
  (rule.backendRefs ?? []).forEach((backend, index) => checkFilters(backend.filters ?? [], [...at, "backendRefs", index, "filters"], false, report));
  checkSessionPersistence(rule.sessionPersistence, [...at, "sessionPersistence"], report);
}

function checkMatch({ method: wanted, headers }: GrpcRouteMatch, at: FieldPath, report: Report): void {
  for (const [field, shape] of [["service", SERVICE], ["method", METHOD]] as const) {
    const value = wanted?.[field];
    if (value === undefined) continue;
    const fault = wanted?.type === "RegularExpression" ? regexFault(value) : shape.test(value) ? null : `expected the name of a gRPC ${field}`;
    if (fault !== null) report("error", "bad_value", [...at, "method", field], `found ${JSON.stringify(value)}, ${fault}`);
  }
  (headers ?? []).forEach(({ type, value }, index) => {
    const fault = type === "RegularExpression" ? regexFault(value) : null;
    if (fault !== null) report("error", "bad_value", [...at, "headers", index, "value"], `found ${JSON.stringify(value)}, ${fault}`);
  });
}
