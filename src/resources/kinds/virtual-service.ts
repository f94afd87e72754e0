// networking.istio.io VirtualService: routes in the order they are written. Rules for gateways other than `mesh` are not ours.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import { ipBlock, isDnsSubdomain, labelMap, port } from "../object-meta.ts";
import { duration, durationMs, positiveDuration } from "../durations.ts";
import { type FieldPath, show } from "../diagnostic.ts";
import { parseGrpcStatus } from "../grpc-status.ts";
import { authority, changedHeaderName, headerName, headerValue, isAuthority, isHostHeader, isWildcardHost, pathText, percentOfHundred } from "../http-values.ts";
import { BACKENDS_MAX, HOSTS_PER_RESOURCE_MAX, LIST_MAX, MATCH_FIELDS_MAX, ROUTE_MATCHES_MAX } from "../limits.ts";
import { regex, stringMatch, stringMatchOrPresent } from "../patterns.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";
import { parseRetryOn } from "../retry-on.ts";

/** Rules of one resource: thousands stand in generated files; each request may have to try them. */
const RULES_MAX = 2048;
const BODY_CHARS_MAX = 64 * 1024;

const schemas = collectable(() => {
  const fields = <T extends z.ZodType>(value: T) => z.record(headerName, value).refine((map) => Object.keys(map).length <= MATCH_FIELDS_MAX, { error: `expected at most ${MATCH_FIELDS_MAX} entries` });
  const headerTexts = (name: typeof headerName) => z.record(name, headerValue).refine((map) => Object.keys(map).length <= MATCH_FIELDS_MAX, { error: `expected at most ${MATCH_FIELDS_MAX} entries` }).optional();
  const remove = z.array(changedHeaderName).max(MATCH_FIELDS_MAX).optional();
  const requestName = z.string().refine((name) => isHostHeader(name) || changedHeaderName.safeParse(name).success, { error: "expected a header name, and none of a header that frames the message" });
  const headers = z.strictObject({
    request: z.strictObject({ set: headerTexts(requestName), add: headerTexts(requestName), remove }).optional(),
    response: z.strictObject({ set: headerTexts(changedHeaderName), add: headerTexts(changedHeaderName), remove }).optional(),
  });
  const destination = z.strictObject({ host: z.string().min(1).max(253), subset: z.string().min(1).max(253).optional(), port: z.strictObject({ number: port }).optional() });
  const gateways = z.array(z.string().min(1).max(507)).max(LIST_MAX).optional();
  const percentage = z.strictObject({ value: percentOfHundred.optional() });
  const httpMatch = z.strictObject({
    name: z.string().max(253).optional(), uri: stringMatch.optional(), scheme: stringMatch.optional(), method: stringMatch.optional(), authority: stringMatch.optional(),
    headers: fields(stringMatchOrPresent).optional(), withoutHeaders: fields(stringMatchOrPresent).optional(),
    queryParams: z.record(z.string().min(1).max(256), stringMatchOrPresent).optional(),
    port: port.optional(), sourceLabels: labelMap.optional(), sourceNamespace: z.string().max(63).optional(), gateways, ignoreUriCase: z.boolean().optional(), statPrefix: z.string().optional(),
  });
  const corsPolicy = z.strictObject({
    allowOrigin: z.array(z.string().max(1024)).max(LIST_MAX).optional(), allowOrigins: z.array(stringMatch).max(LIST_MAX).optional(), allowMethods: z.array(z.string().min(1).max(64)).max(LIST_MAX).optional(),
    allowHeaders: z.array(headerName).max(LIST_MAX).optional(), exposeHeaders: z.array(headerName).max(LIST_MAX).optional(), maxAge: duration.optional(), allowCredentials: z.boolean().optional(),
    unmatchedPreflights: z.enum(["UNSPECIFIED", "FORWARD", "IGNORE"]).optional(),
  });
  const fault = z.strictObject({
    delay: z.strictObject({ percent: z.int().min(0).max(100).optional(), percentage: percentage.optional(), fixedDelay: positiveDuration.optional(), exponentialDelay: z.string().optional() }).optional(),
    abort: z.strictObject({ percentage: percentage.optional(), httpStatus: z.int().min(200).max(599).optional(), grpcStatus: z.string().optional(), http2Error: z.string().optional() }).optional(),
  });
  const httpRoute = z.strictObject({
    name: z.string().max(253).optional(),
    match: z.array(httpMatch).max(ROUTE_MATCHES_MAX).optional(),
    route: z.array(z.strictObject({ destination, weight: z.int().min(0).max(1_000_000).optional(), headers: headers.optional() })).max(BACKENDS_MAX).optional(),
    redirect: z.strictObject({
      uri: z.string().max(1024).optional(), prefixRewrite: z.string().max(1024).optional(), authority: z.string().max(253).optional(), port: port.optional(), derivePort: z.enum(["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"]).optional(),
      scheme: z.enum(["http", "https"]).optional(), redirectCode: z.literal([301, 302, 303, 307, 308]).optional(),
    }).optional(),
    directResponse: z.strictObject({ status: z.int().min(200).max(599), body: z.strictObject({ string: z.string().max(BODY_CHARS_MAX).optional(), bytes: z.string().max(BODY_CHARS_MAX).optional() }).optional() }).optional(),
    delegate: z.strictObject({ name: z.string().optional(), namespace: z.string().optional() }).optional(),
    rewrite: z.strictObject({ uri: z.string().max(1024).optional(), authority: authority.optional(), uriRegexRewrite: z.strictObject({ match: regex, rewrite: z.string().max(1024) }).optional() }).optional(),
    timeout: duration.optional(),
    retries: z.strictObject({
      attempts: z.int().min(0).max(100).optional(), perTryTimeout: duration.optional(), retryOn: z.string().max(1024).optional(), retryRemoteLocalities: z.boolean().optional(),
      retryIgnorePreviousHosts: z.boolean().optional(), backoff: positiveDuration.optional(),
    }).optional(),
    fault: fault.optional(),
    mirror: destination.optional(), mirrorPercent: z.int().min(0).max(100).nullish(), mirror_percent: z.int().min(0).max(100).nullish(), mirrorPercentage: percentage.optional(),
    mirrors: z.array(z.strictObject({ destination, percentage: percentage.optional() })).max(BACKENDS_MAX).optional(),
    corsPolicy: corsPolicy.optional(),
    headers: headers.optional(),
  });
  const l4Route = z.array(z.strictObject({ destination, weight: z.int().min(0).max(1_000_000).optional() })).max(BACKENDS_MAX).optional();
  const l4Match = { destinationSubnets: z.array(ipBlock).max(LIST_MAX).optional(), port: port.optional(), sourceLabels: labelMap.optional(), sourceNamespace: z.string().max(63).optional(), gateways };
  const tlsMatch = z.strictObject({ ...l4Match, sniHosts: z.array(z.string().refine(isWildcardHost, { error: "expected a host name in lower case, or *. and one" })).min(1).max(LIST_MAX) });
  const tcpMatch = z.strictObject({ ...l4Match, sourceSubnet: z.string().optional() });
  const spec = z.strictObject({
    hosts: z.array(z.string().min(1).max(253).refine((text) => text === "*" || isWildcardHost(text), { error: "expected a host name, *.SUFFIX or *" })).max(HOSTS_PER_RESOURCE_MAX).optional(),
    gateways,
    http: z.array(httpRoute).max(RULES_MAX).optional(),
    tls: z.array(z.strictObject({ match: z.array(tlsMatch).min(1).max(ROUTE_MATCHES_MAX), route: l4Route })).max(RULES_MAX).optional(),
    tcp: z.array(z.strictObject({ match: z.array(tcpMatch).max(ROUTE_MATCHES_MAX).optional(), route: l4Route })).max(RULES_MAX).optional(),
    exportTo: z.array(z.string().min(1).max(63)).max(LIST_MAX).optional(),
  });
  return { headers, destination, httpMatch, httpRoute, spec };
});
export type HeadersSpec = z.output<ReturnType<typeof schemas>["headers"]>;
export type DestinationSpec = z.output<ReturnType<typeof schemas>["destination"]>;
export type VirtualServiceMatch = z.output<ReturnType<typeof schemas>["httpMatch"]>;
export type VirtualServiceRoute = z.output<ReturnType<typeof schemas>["httpRoute"]>;

export const virtualServiceKind = defineKind({
  kind: "VirtualService",
  group: "networking.istio.io",
  versions: ["v1", "v1beta1", "v1alpha3"],
  namespaced: true,
  spec: () => schemas().spec,
  check({ spec }, report) {
    (spec.http ?? []).forEach((route, index) => checkRoute(route, ["spec", "http", index], report));
  },
});

export type VirtualServiceResource = ResourceOfKind<typeof virtualServiceKind>;

function checkRoute(route: VirtualServiceRoute, at: FieldPath, report: Report): void {
  const actions = (["route", "redirect", "directResponse", "delegate"] as const).filter((field) => route[field] !== undefined);
  if (actions.length !== 1) report("error", actions.length === 0 ? "missing_field" : "conflict", at, `found ${actions.length === 0 ? "none" : actions.join(" and ")}, expected exactly one of route, redirect, directResponse and delegate`);
  const { rewrite, retries, fault, redirect } = route;
  if (rewrite?.uri !== undefined && rewrite.uriRegexRewrite !== undefined) report("error", "conflict", [...at, "rewrite", "uriRegexRewrite"], "found it beside uri, expected one of them");
  for (const [text, path] of [[rewrite?.uri, [...at, "rewrite", "uri"]], [redirect?.uri, [...at, "redirect", "uri"]]] as const) {
    if (text === undefined) continue;
    const checked = pathText.safeParse(text);
    if (!checked.success) report("error", "bad_value", path, `found ${show(text)}, ${checked.error.issues[0]?.message ?? "expected a path"}`);
  }
  if (redirect?.authority !== undefined && !isDnsSubdomain(redirect.authority)) report("error", "bad_value", [...at, "redirect", "authority"], `found ${show(redirect.authority)}, expected a host name without port; give redirect.port`);
  if (redirect?.port !== undefined && redirect.derivePort !== undefined) report("error", "conflict", [...at, "redirect", "derivePort"], "found it beside port, expected one of them");
  if (redirect?.uri !== undefined && redirect.prefixRewrite !== undefined) report("error", "conflict", [...at, "redirect", "prefixRewrite"], "found it beside uri, expected one of them");
  const unknown = retries?.retryOn === undefined ? [] : parseRetryOn(retries.retryOn).unknown;
  if (unknown.length > 0) report("error", "bad_value", [...at, "retries", "retryOn"], `found ${unknown.map(show).join(", ")}, expected conditions such as 5xx, gateway-error, connect-failure, reset, unavailable, or status codes`);
  if (retries?.perTryTimeout !== undefined && route.timeout !== undefined && durationMs(route.timeout) > 0 && durationMs(retries.perTryTimeout) > durationMs(route.timeout)) {
    report("warning", "conflict", [...at, "retries", "perTryTimeout"], `found ${retries.perTryTimeout}, which is longer than the whole timeout ${route.timeout}`);
  }
  checkFault(fault, [...at, "fault"], report);
  checkHeaders(route.headers, [...at, "headers"], report);
  (route.route ?? []).forEach(({ headers }, index) => checkHeaders(headers, [...at, "route", index, "headers"], report));
}

/** Envoy's formatter would fill these in; `%%` is its way to write a percent sign. */
const COMMAND = /%[A-Z][A-Z0-9_]*(?:\([^)]*\))?(?::[0-9]+)?%/;

function checkHeaders(headers: HeadersSpec | undefined, at: FieldPath, report: Report): void {
  for (const side of ["request", "response"] as const) {
    for (const operation of ["set", "add"] as const) {
      for (const [name, value] of Object.entries(headers?.[side]?.[operation] ?? {})) {
        const path = [...at, side, operation, name];
        const command = COMMAND.exec(value.replaceAll("%%", ""))?.[0];
        if (side === "request" && isHostHeader(name) && !isAuthority(value)) report("error", "bad_value", path, `found ${show(value)}, expected a host name in lower case, with or without a port`);
        else if (command !== undefined) report("warning", "not_supported", path, `found ${command}, which Envoy would replace; here it is sent as it stands`);
      }
    }
  }
}

function checkFault(fault: VirtualServiceRoute["fault"], at: FieldPath, report: Report): void {
  const { delay, abort } = fault ?? {};
  if (delay !== undefined && delay.fixedDelay === undefined) {
    report("error", delay.exponentialDelay === undefined ? "missing_field" : "not_supported", [...at, "delay"], "found no fixedDelay, which is the only delay there is");
  }
  if (abort === undefined) return;
  const given = (["httpStatus", "grpcStatus", "http2Error"] as const).filter((field) => abort[field] !== undefined);
  if (given.length !== 1) report("error", given.length === 0 ? "missing_field" : "conflict", [...at, "abort"], `found ${given.length === 0 ? "none" : given.join(" and ")}, expected one of httpStatus and grpcStatus`);
  if (abort.http2Error !== undefined) report("error", "not_supported", [...at, "abort", "http2Error"], "found http2Error; a TrafficPolicy injects resets");
  if (abort.grpcStatus !== undefined && parseGrpcStatus(abort.grpcStatus) === null) report("error", "bad_value", [...at, "abort", "grpcStatus"], `found ${show(abort.grpcStatus)}, expected the name of a gRPC status, e.g. UNAVAILABLE, or 0 to 16`);
}
