// gateway.networking.k8s.io GRPCRoute.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import type { FieldPath } from "../diagnostic.ts";
import { regexFault } from "../patterns.ts";
import { checkFieldMatches, checkRoute, checkRuleParts, headerMatches, matchType, routeSpec, ruleFields } from "../request-route-parts.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";
import { routeParts } from "../route-parts.ts";

const NAME_CHARS_MAX = 1024;
const spec = collectable(() => {
  const { grpcBackendRef, grpcFilter } = routeParts();
  const match = z.strictObject({
    method: z.strictObject({ type: matchType, service: z.string().min(1).max(NAME_CHARS_MAX).optional(), method: z.string().min(1).max(NAME_CHARS_MAX).optional() })
      .refine(({ service, method }) => service !== undefined || method !== undefined, { error: "expected a service, a method or both" }).optional(),
    headers: headerMatches,
  });
  return routeSpec(z.strictObject(ruleFields(match, grpcFilter, grpcBackendRef)));
});

export const grpcRouteKind = defineKind({
  kind: "GRPCRoute",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1alpha2"],
  namespaced: true,
  spec,
  check: ({ spec }, report) => checkRoute(spec, report, checkRule),
});

export type GrpcRouteResource = ResourceOfKind<typeof grpcRouteKind>;
export type GrpcRouteRule = NonNullable<GrpcRouteResource["spec"]["rules"]>[number];
export type GrpcRouteMatch = NonNullable<GrpcRouteRule["matches"]>[number];

/** What a gRPC path's two parts may be made of, when they are compared as they are. */
const SERVICE = /^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$/;
const METHOD = /^[A-Za-z0-9_]+$/;

function checkRule(rule: GrpcRouteRule, at: FieldPath, report: Report): void {
  (rule.matches ?? []).forEach((one, index) => checkMatch(one, [...at, "matches", index], report));
  checkRuleParts(rule, at, false, report);
}

function checkMatch({ method: wanted, headers }: GrpcRouteMatch, at: FieldPath, report: Report): void {
  for (const [field, shape] of [["service", SERVICE], ["method", METHOD]] as const) {
    const value = wanted?.[field];
    if (value === undefined) continue;
    const fault = wanted?.type === "RegularExpression" ? regexFault(value) : shape.test(value) ? null : `expected the name of a gRPC ${field}`;
    if (fault !== null) report("error", "bad_value", [...at, "method", field], `found ${JSON.stringify(value)}, ${fault}`);
  }
  checkFieldMatches(headers, [...at, "headers"], true, report);
}
