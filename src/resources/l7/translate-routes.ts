// HTTPRoute, GRPCRoute, TCPRoute and TLSRoute into routes of the model, with the status that each would get.

import type { HeaderPattern, PathPattern, RequestMatch, TextPattern } from "../../mesh/l7/match.ts";
import { ANY_REQUEST } from "../../mesh/l7/match.ts";
import { type HttpRule, INHERITED_TIMEOUTS, type RetryPolicy, type Route, type RouteBackend, type RouteRules, type SessionPersistence } from "../../mesh/l7/route.ts";
import { contentHash } from "../content-hash.ts";
import type { FieldPath } from "../diagnostic.ts";
import { gatewayDurationMs } from "../durations.ts";
import type { TcpRouteResource, TlsRouteResource } from "../kinds/connection-routes.ts";
import type { GrpcRouteMatch, GrpcRouteResource, GrpcRouteRule } from "../kinds/grpc-route.ts";
import type { HttpRouteMatch, HttpRouteResource, HttpRouteRule } from "../kinds/http-route.ts";
import { quoteRegex } from "../patterns.ts";
import type { BackendRef, ParentRef, SessionPersistenceSpec } from "../route-parts.ts";
import { type Placed, provenanceOf, type Report, type ResourceOf } from "../resource.ts";
import { createdMs } from "./age.ts";
import { translateFilters } from "./filters.ts";
import { withGuardedBackends } from "./guarded-backends.ts";
import { type AttachedParent, attachParents, resolveBackend } from "./references.ts";
import { type Condition, condition, RESOLVED, type ResourceStatus } from "./status.ts";
import type { View } from "./view.ts";

export interface TranslatedRoute {
  /** None when no parent took it. */
  readonly routes: readonly Route[];
  readonly attached: readonly AttachedParent[];
  readonly status: ResourceStatus;
}

const WEIGHT_DEFAULT = 1;
/** The Gateway API leaves them to the implementation; Envoy's. */
const RETRY_ATTEMPTS = 1;
const RETRY_BACKOFF_BASE_MS = 25;
const RETRY_BACKOFF_FACTOR = 10;

/** What a rule was made of, besides itself. */
interface RuleFindings {
  readonly faults: Condition[];
  readonly broken: string[];
}

type RouteResource = ResourceOf<"HTTPRoute" | "GRPCRoute" | "TCPRoute" | "TLSRoute", { readonly parentRefs?: readonly ParentRef[] | undefined }>;

export function translateHttpRoute(placed: Placed<HttpRouteResource>, view: View, report: Report): TranslatedRoute {
  const { resource } = placed;
  reportHostnames(resource.spec.hostnames, report);
  const findings: RuleFindings = { faults: [], broken: [] };
  const rules = (resource.spec.rules ?? [{}]).map((rule, index) => httpRule(rule, resource, index, findings, view, report));
  return finish(placed, { protocol: "http", rules, precedence: "gatewayApi" }, findings, view, report);
}

export function translateGrpcRoute(placed: Placed<GrpcRouteResource>, view: View, report: Report): TranslatedRoute {
  const { resource } = placed;
  reportHostnames(resource.spec.hostnames, report);
  const findings: RuleFindings = { faults: [], broken: [] };
  const rules = (resource.spec.rules ?? [{}]).map((rule, index) => grpcRule(rule, resource, index, findings, view, report));
  return finish(placed, { protocol: "grpc", rules, precedence: "gatewayApi" }, findings, view, report);
}

export function translateConnectionRoute(placed: Placed<TcpRouteResource | TlsRouteResource>, view: View, report: Report): TranslatedRoute {
  const { resource } = placed;
  const findings: RuleFindings = { faults: [], broken: [] };
  const sni = resource.kind === "TLSRoute" ? ((resource as TlsRouteResource).spec.hostnames ?? []) : [];
  const rules = resource.spec.rules.map(({ backendRefs }, index) => ({
    sni, backends: backends(backendRefs, resource.namespace, ["spec", "rules", index, "backendRefs"], findings, view, report), fieldPath: `spec.rules[${index}]`,
  }));
  return finish(placed, { protocol: resource.kind === "TLSRoute" ? "tls" : "tcp", rules }, findings, view, report);
}

function finish(placed: Placed<RouteResource>, rules: RouteRules, { faults, broken }: RuleFindings, view: View, report: Report): TranslatedRoute {
  const { resource } = placed;
  const { kind, namespace, name, resourceVersion, spec } = resource;
  const attached = attachParents(spec.parentRefs ?? [], { namespace, carries: rules.protocol === "http" || rules.protocol === "grpc" ? "requests" : "connections" }, view, report);
  const parents = attached.flatMap((one) => one.parents);
  if ((spec.parentRefs ?? []).length === 0) report("warning", "not_attached", ["spec"], "found no parentRefs: it is attached to nothing");
  const made: Route = { id: `${kind}/${namespace}/${name}`, name, namespace, parents, rules, createdMs: createdMs(resource), provenance: provenanceOf(placed) };
  const { route, fault } = withGuardedBackends(made, view, report);
  const allBroken = broken.length > 0 && broken.length === rules.rules.length;
  const conditions = (accepted: Condition): Condition[] => [
    accepted.status && allBroken ? condition("Accepted", false, "UnsupportedValue", broken[0]) : accepted,
    faults[0] ?? fault ?? RESOLVED,
    ...(broken.length > 0 && !allBroken ? [condition("PartiallyInvalid", true, "UnsupportedValue", broken.join("; "))] : []),
  ];
  return { routes: parents.length === 0 ? [] : [route], attached, status: { kind, namespace, name, resourceVersion, parents: attached.map(({ path, accepted }) => ({ path, conditions: conditions(accepted) })), conditions: [] } };
}

function reportHostnames(hostnames: readonly string[] | undefined, report: Report): void {
  if ((hostnames?.length ?? 0) > 0) report("info", "not_supported", ["spec", "hostnames"], "found hostnames; in a mesh requests are matched by the service they are sent to, whatever their host");
}

function httpRule(rule: HttpRouteRule, route: HttpRouteResource, index: number, findings: RuleFindings, view: View, report: Report): HttpRule {
  const at = ["spec", "rules", index];
  const { filters, broken, faults } = translateFilters(rule.filters ?? [], route.namespace, [...at, "filters"], view, report);
  findings.faults.push(...faults);
  if (broken !== null) findings.broken.push(broken);
  const { request, backendRequest } = rule.timeouts ?? {};
  return {
    name: rule.name ?? null,
    matches: (rule.matches?.length ? rule.matches : [{}]).map(httpMatch), matchPaths: null,
    filters,
    backends: backends(rule.backendRefs ?? [], route.namespace, [...at, "backendRefs"], findings, view, report),
    timeouts: { ...INHERITED_TIMEOUTS, requestMs: request === undefined ? null : gatewayDurationMs(request), backendRequestMs: backendRequest === undefined ? null : gatewayDurationMs(backendRequest) },
    retry: rule.retry === undefined ? null : retryPolicy(rule.retry),
    sessionPersistence: rule.sessionPersistence === undefined ? null : persistence(rule.sessionPersistence, `${route.kind}/${route.namespace}/${route.name}/${index}`),
    faults: [], broken, fieldPath: `spec.rules[${index}]`,
  };
}

function grpcRule(rule: GrpcRouteRule, route: GrpcRouteResource, index: number, findings: RuleFindings, view: View, report: Report): HttpRule {
  const at = ["spec", "rules", index];
  const { filters, broken, faults } = translateFilters(rule.filters ?? [], route.namespace, [...at, "filters"], view, report);
  findings.faults.push(...faults);
  if (broken !== null) findings.broken.push(broken);
  return {
    name: rule.name ?? null, matches: (rule.matches?.length ? rule.matches : [{}]).map(grpcMatch), matchPaths: null, filters,
    backends: backends(rule.backendRefs ?? [], route.namespace, [...at, "backendRefs"], findings, view, report),
    timeouts: INHERITED_TIMEOUTS, retry: null,
    sessionPersistence: rule.sessionPersistence === undefined ? null : persistence(rule.sessionPersistence, `${route.kind}/${route.namespace}/${route.name}/${index}`),
    faults: [], broken, fieldPath: `spec.rules[${index}]`,
  };
}

function backends(refs: readonly BackendRef[], namespace: string, at: FieldPath, findings: RuleFindings, view: View, report: Report): RouteBackend[] {
  return refs.map((ref, index): RouteBackend => {
    const { target, fault } = resolveBackend(ref, namespace, [...at, index], view, report);
    const translated = translateFilters(ref.filters ?? [], namespace, [...at, index, "filters"], view, report);
    for (const one of [fault, ...translated.faults]) if (one !== null) findings.faults.push(one);
    const weight = ref.weight ?? WEIGHT_DEFAULT;
    return translated.broken === null ? { weight, target, filters: translated.filters } : { weight, target: { kind: "invalid", reason: translated.broken }, filters: [] };
  });
}

function httpMatch({ path, headers = [], queryParams = [], method }: HttpRouteMatch): RequestMatch {
  return {
    ...ANY_REQUEST,
    path: pathPattern(path?.type ?? "PathPrefix", path?.value ?? "/"),
    method: method === undefined ? null : { kind: "exact", value: method },
    headers: headerPatterns(headers),
    query: firstOfEach(queryParams, (name) => name).map(({ name, type, value }) => ({ name, pattern: text(type, value) })),
  };
}

function pathPattern(type: "Exact" | "PathPrefix" | "RegularExpression", value: string): PathPattern {
  switch (type) {
    case "Exact": return { kind: "exact", value };
    case "PathPrefix": return { kind: "prefix", value };
    case "RegularExpression": return { kind: "regex", value };
  }
}

const text = (type: "Exact" | "RegularExpression" | undefined, value: string): TextPattern => ({ kind: type === "RegularExpression" ? "regex" : "exact", value });

interface NamedMatch {
  readonly name: string;
  readonly type?: "Exact" | "RegularExpression" | undefined;
  readonly value: string;
}

const headerPatterns = (headers: readonly NamedMatch[]): HeaderPattern[] =>
  firstOfEach(headers, (name) => name.toLowerCase()).map(({ name, type, value }) => ({ name: name.toLowerCase(), pattern: text(type, value), invert: false }));

/** Of several entries with one name the first counts alone, as the specification has it. */
function firstOfEach(entries: readonly NamedMatch[], keyOf: (name: string) => string): NamedMatch[] {
  const seen = new Set<string>();
  return entries.filter(({ name }) => !seen.has(keyOf(name)) && seen.add(keyOf(name)));
}

function grpcMatch({ method: wanted, headers = [] }: GrpcRouteMatch): RequestMatch {
  return { ...ANY_REQUEST, path: wanted === undefined ? null : grpcPath(wanted), headers: headerPatterns(headers) };
}

function grpcPath({ type, service, method }: NonNullable<GrpcRouteMatch["method"]>): PathPattern {
  if (type === "RegularExpression") return { kind: "regex", value: `/(?:${service ?? "[^/]+"})/(?:${method ?? "[^/]+"})` };
  if (service === undefined) return { kind: "regex", value: `/[^/]+/${quoteRegex(method!)}` };
  return method === undefined ? { kind: "textPrefix", value: `/${service}/` } : { kind: "exact", value: `/${service}/${method}` };
}

/** Codes, and whatever broke before an answer came. Whoever asks for retries has them for every method. */
function retryPolicy({ codes = [], attempts = RETRY_ATTEMPTS, backoff }: NonNullable<HttpRouteRule["retry"]>): RetryPolicy {
  const base = Math.max(1, backoff === undefined ? RETRY_BACKOFF_BASE_MS : gatewayDurationMs(backoff));
  return {
    attempts, statuses: [...new Set(codes)].sort((a, b) => a - b), grpcStatuses: [], onConnectFailure: true, onReset: true, onRefusedStream: true, nonIdempotent: true, perTryTimeoutMs: null,
    backoffBaseMs: base, backoffMaxMs: base * RETRY_BACKOFF_FACTOR,
  };
}

/** @param owner names the rule or policy: without a name of its own the cookie gets one that no other rule has. */
export function persistence(spec: SessionPersistenceSpec, owner: string): SessionPersistence {
  const isHeader = spec.type === "Header";
  return {
    kind: isHeader ? "header" : "cookie",
    name: (isHeader ? spec.header?.name.toLowerCase() : spec.cookie?.name) ?? spec.sessionName ?? `weft-session-${contentHash(owner).slice(0, 8)}`,
    path: isHeader ? null : (spec.cookie?.path ?? null),
    absoluteTimeoutMs: spec.absoluteTimeout === undefined ? null : gatewayDurationMs(spec.absoluteTimeout),
    idleTimeoutMs: spec.idleTimeout === undefined ? null : gatewayDurationMs(spec.idleTimeout),
  };
}
