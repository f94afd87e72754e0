// BackendTLSPolicy, XBackendTrafficPolicy and TrafficPolicy into contributions to the traffic policies of their targets.

import { namespacedName, type NamespacedName } from "../../core/brand.ts";
import { ANY_REQUEST, type RequestMatch } from "../../mesh/l7/match.ts";
import type { Fault, FaultAction } from "../../mesh/l7/fault.ts";
import type { RetryPolicy } from "../../mesh/l7/route.ts";
import type { Balancing, BackendTls, CertificateName, GlobalRateLimit, HashKey, HealthCheck, LocalRateLimit, RateLimitKey } from "../../mesh/l7/traffic-policy.ts";
import type { FieldPath } from "../diagnostic.ts";
import { durationMs, gatewayDurationMs } from "../durations.ts";
import { httpStatusOfGrpc, parseGrpcStatus } from "../grpc-status.ts";
import type { BackendTlsPolicyResource } from "../kinds/backend-tls-policy.ts";
import type { DescriptorEntrySpec, LimitKeySpec, ServiceReferenceSpec, TrafficMatchSpec, TrafficPolicyResource } from "../kinds/traffic-policy.ts";
import type { XBackendTrafficPolicyResource } from "../kinds/x-backend-traffic-policy.ts";
import { textPattern } from "../patterns.ts";
import { parseRetryOn } from "../retry-on.ts";
import type { Placed, Report } from "../resource.ts";
import { type Contribution, RANK_SERVICE, RANK_UNREAD, RANK_WIDE, type TrafficField, type TrafficFields } from "./contribution.ts";
import { foreignRefusal } from "./guarded-backends.ts";
import { reportUnbound } from "./references.ts";
import { targetHosts } from "./targets.ts";
import { ACCEPTED, type Condition, condition, type ConditionReason, RESOLVED, type ResourceStatus } from "./status.ts";
import { persistence } from "./translate-routes.ts";
import type { View } from "./view.ts";
import type { Host } from "./world.ts";

/** What a policy of which one alone can hold is attached to. */
export interface Claim {
  readonly service: Contribution["service"];
  readonly port: number | null;
  /** Where that is said, e.g. `spec.targetRefs[0]`. */
  readonly path: FieldPath;
}

export interface TranslatedTraffic {
  readonly contributions: readonly Contribution[];
  readonly claims?: readonly Claim[];
  readonly status: ResourceStatus | null;
}

const WEFT_GROUP = "weft.dev";
/** Defaults of the specification. */
const BUDGET_PERCENT = 20;
const BUDGET_INTERVAL_MS = 10_000;
const RETRY_RATE_COUNT = 10;
const RETRY_RATE_INTERVAL_MS = 1000;

export function translateBackendTls(placed: Placed<BackendTlsPolicyResource>, view: View, report: Report): TranslatedTraffic {
  const { resource } = placed;
  const { kind, namespace, name, resourceVersion, spec } = resource;
  if (spec.targetRefs.length === 0) return { contributions: unreadTls(resource, view), status: null };
  const { tls, resolved } = validation(resource, view, report);
  const contributions: Contribution[] = [];
  const claims: Claim[] = [];
  const parents = spec.targetRefs.map((ref, index) => {
    const path = ["spec", "targetRefs", index];
    const refuse = (reason: ConditionReason, message: string) => {
      report("error", "unresolved_reference", path, `${message}; TLS is not originated there`);
      return { path, conditions: [condition("Accepted", false, reason, message), resolved] };
    };
    const hosts = targetHosts(ref, namespace, view);
    if (hosts.length === 0) return refuse("TargetNotFound", `found the ${ref.kind} ${namespace}/${ref.name}, which is not there`);
    const port = ref.sectionName === undefined ? undefined : hosts[0]!.ports.find((one) => one.name === ref.sectionName)?.number;
    if (ref.sectionName !== undefined && port === undefined) return refuse("TargetNotFound", `found the port name ${ref.sectionName}, expected one of ${hosts[0]!.ports.map((one) => one.name).join(", ")}`);
    reportUnbound(hosts[0]!, path, "traffic", report);
    for (const { service } of hosts) {
      contributions.push({ service, port: port ?? null, subset: null, clientNamespace: null, rank: RANK_SERVICE, fields: { tls }, paths: { tls: ["spec", "validation"] } });
      claims.push({ service, port: port ?? null, path });
    }
    return { path, conditions: [tls.mode === "broken" ? condition("Accepted", false, "NoValidCACertificate", tls.reason) : ACCEPTED, resolved] };
  });
  if (Object.keys(spec.options ?? {}).length > 0) report("warning", "not_supported", ["spec", "options"], "found options, none of which we know");
  return { contributions, claims, status: { kind, namespace, name, resourceVersion, parents, conditions: [] } };
}

/** In the place of one that could never be read: nobody knows which services it protects, so that nothing goes to those of its namespace. */
function unreadTls({ namespace, name }: BackendTlsPolicyResource, view: View): Contribution[] {
  const tls: BackendTls = { mode: "broken", reason: `the BackendTLSPolicy ${namespace}/${name} cannot be read` };
  return view.ask((world) => world.hostsIn(namespace)).map(({ service }) => ({ service, port: null, subset: null, clientNamespace: null, rank: RANK_UNREAD, fields: { tls }, paths: { tls: [] } }));
}

function validation({ namespace, spec }: BackendTlsPolicyResource, view: View, report: Report): { readonly tls: BackendTls; readonly resolved: Condition } {
  const { hostname, caCertificateRefs = [], wellKnownCACertificates, subjectAltNames = [] } = spec.validation;
  const at = ["spec", "validation"];
  const broken = (path: FieldPath, reason: ConditionReason, message: string) => {
    report("error", "fail_closed", path, `${message}; requests to its targets get 500`);
    return { tls: { mode: "broken", reason: message } as const, resolved: condition("ResolvedRefs", false, reason, message) };
  };
  if (wellKnownCACertificates !== undefined && wellKnownCACertificates !== "System") return broken([...at, "wellKnownCACertificates"], "Invalid", `found ${wellKnownCACertificates}, expected System`);
  const pems: string[] = [];
  for (const [index, ref] of caCertificateRefs.entries()) {
    const path = [...at, "caCertificateRefs", index];
    if (ref.kind !== "ConfigMap" || ref.group !== "") return broken(path, "InvalidKind", `found the kind ${ref.kind} of group ${JSON.stringify(ref.group)}, expected a ConfigMap of group ""`);
    const pem = view.ask((world) => world.configMap(namespace, ref.name))?.spec.data?.["ca.crt"];
    if (pem === undefined || !pem.includes("-----BEGIN CERTIFICATE-----")) return broken(path, "InvalidCACertificateRef", `found the ConfigMap ${namespace}/${ref.name}, which has no PEM certificate as ca.crt`);
    pems.push(pem);
  }
  // The host name is what the certificate must show, unless other names are listed.
  const others = subjectAltNames.map((name): CertificateName => (name.hostname !== undefined ? { type: "dns", value: name.hostname } : { type: "uri", value: name.uri! }));
  const wanted: readonly CertificateName[] = others.length > 0 ? others : [{ type: "dns", value: hostname }];
  return { tls: { mode: "simple", sni: hostname, subjectAltNames: wanted, caPem: pems.length === 0 ? null : pems.join("\n"), crlPem: null, certificate: null, gatewayCertificate: true, verify: true }, resolved: RESOLVED };
}

export function translateXBackendTraffic(placed: Placed<XBackendTrafficPolicyResource>, view: View, report: Report): TranslatedTraffic {
  const { resource } = placed;
  const { kind, namespace, name, resourceVersion, spec } = resource;
  const fields: { -readonly [K in TrafficField]?: TrafficFields[K] } = {};
  const paths: { [K in TrafficField]?: FieldPath } = {};
  if (spec.retryConstraint !== undefined) {
    const { budget, minRetryRate } = spec.retryConstraint;
    const intervalMs = budget?.interval === undefined ? BUDGET_INTERVAL_MS : gatewayDurationMs(budget.interval);
    const rateMs = minRetryRate?.interval === undefined ? RETRY_RATE_INTERVAL_MS : gatewayDurationMs(minRetryRate.interval);
    fields.retryBudget = { kind: "overTime", fraction: (budget?.percent ?? BUDGET_PERCENT) / 100, intervalMs, retriesMin: minRetryRate?.count ?? RETRY_RATE_COUNT, retriesMinPerMs: rateMs };
    paths.retryBudget = ["spec", "retryConstraint"];
  }
  if (spec.sessionPersistence !== undefined) {
    fields.sessionPersistence = persistence(spec.sessionPersistence, `${kind}/${namespace}/${name}`);
    paths.sessionPersistence = ["spec", "sessionPersistence"];
  }
  const contributions: Contribution[] = [];
  const parents = spec.targetRefs.map((ref, index) => {
    const path = ["spec", "targetRefs", index];
    const hosts = targetHosts(ref, namespace, view);
    for (const host of hosts) contributions.push({ service: host.service, port: null, subset: null, clientNamespace: null, rank: RANK_SERVICE, fields, paths });
    if (hosts.length > 0) {
      reportUnbound(hosts[0]!, path, "traffic", report);
      return { path, conditions: [ACCEPTED] };
    }
    const message = `found the ${ref.kind} ${namespace}/${ref.name}, which is not there`;
    report("error", "unresolved_reference", path, `${message}; nothing is applied there`);
    return { path, conditions: [condition("Accepted", false, "TargetNotFound", message)] };
  });
  return { contributions, status: { kind, namespace, name, resourceVersion, parents, conditions: [] } };
}

/** Defaults of our own kind; each is said in docs/configuration.md. */
const DEFAULTS = {
  ringSizeMin: 1024, maglevTableSize: 65_537, healthIntervalMs: 10_000, healthTimeoutMs: 1000, healthyThreshold: 2, unhealthyThreshold: 3, rateLimitTimeoutMs: 20, concurrencyMin: 1, concurrencyMax: 1000, hedgeAttempts: 2,
  retryAttempts: 2, retryOn: "connect-failure,refused-stream,unavailable,503", backoffBaseMs: 25, backoffMaxMs: 250, budgetFraction: 0.2, budgetIntervalMs: 10_000, budgetRetriesMin: 10,
} as const;

export function translateTrafficPolicy(placed: Placed<TrafficPolicyResource>, view: View, report: Report): TranslatedTraffic {
  const { resource } = placed;
  const { namespace, spec } = resource;
  const { fields, paths } = ownFields(resource, view, report);
  const contributions: Contribution[] = [];
  spec.targetRefs.forEach((ref, index) => {
    const path = ["spec", "targetRefs", index];
    if (ref.namespace !== undefined && ref.namespace !== namespace) {
      report("error", "unresolved_reference", [...path, "namespace"], `found ${ref.namespace}, expected a target of its own namespace, ${namespace}`);
      return;
    }
    const whole = ref.kind === "Gateway";
    const hosts = hostsBehind(ref, namespace, view);
    if (hosts.length === 0) {
      report(whole ? "warning" : "error", "unresolved_reference", path, whole ? `found the waypoint ${namespace}/${ref.name}, to which no service is bound` : `found the ${ref.kind} ${namespace}/${ref.name}, which is not there; expected a Service, a ServiceEntry or a waypoint's Gateway`);
    }
    if (!whole && hosts.length > 0) reportUnbound(hosts[0]!, path, "traffic", report);
    for (const host of hosts) {
      if (spec.port !== undefined && !host.ports.some(({ number }) => number === spec.port)) {
        if (!whole) report("error", "unresolved_reference", ["spec", "port"], `found the port ${spec.port}, which ${host.hostname} does not have`);
        continue;
      }
      // The labels of a subset are said by the DestinationRule; here it is only named.
      const subset = spec.subset === undefined ? null : { name: spec.subset, labels: {} };
      contributions.push({ service: host.service, port: spec.port ?? null, subset, clientNamespace: null, rank: whole ? RANK_WIDE : RANK_SERVICE, fields, paths });
    }
  });
  return { contributions, status: null };
}

type TargetRefSpec = TrafficPolicyResource["spec"]["targetRefs"][number];

function hostsBehind(ref: TargetRefSpec, namespace: string, view: View): readonly Host[] {
  return ref.kind === "Gateway" ? view.ask((world) => world.behind(namespacedName(namespace, ref.name))) : targetHosts(ref, namespace, view);
}

/** All whose requests it is about. */
function hostsOf({ namespace, spec }: TrafficPolicyResource, view: View): NamespacedName[] {
  const own = spec.targetRefs.filter((ref) => ref.namespace === undefined || ref.namespace === namespace);
  return [...new Set(own.flatMap((ref) => hostsBehind(ref, namespace, view).map(({ service }) => service)))];
}

function ownFields(resource: TrafficPolicyResource, view: View, report: Report): { fields: Partial<TrafficFields>; paths: Partial<Record<TrafficField, FieldPath>> } {
  const { spec } = resource;
  const fields: { -readonly [K in TrafficField]?: TrafficFields[K] } = {};
  const paths: { [K in TrafficField]?: FieldPath } = {};
  const set = <K extends TrafficField>(field: K, value: TrafficFields[K] | null, ...path: string[]): void => {
    if (value === null) return;
    fields[field] = value;
    paths[field] = ["spec", ...path];
  };
  const ms = (text: string | undefined): number | null => (text === undefined ? null : durationMs(text));
  const share = (percent: number | undefined): number | null => (percent === undefined ? null : percent / 100);
  const { limits, outlierDetection: outliers, adaptiveConcurrency: concurrency, hedging, retryBudget: budget, timeouts } = spec;
  if (spec.balancing !== undefined) set("balancing", balancing(spec.balancing), "balancing");
  set("slowStartMs", ms(spec.slowStart), "slowStart");
  if (limits !== undefined) {
    set("limits", {
      connectionsMax: limits.connections ?? null, pendingRequestsMax: limits.pendingRequests ?? null, activeRequestsMax: limits.activeRequests ?? null, activeRetriesMax: limits.activeRetries ?? null,
      requestsPerConnectionMax: limits.requestsPerConnection ?? null, connectTimeoutMs: ms(limits.connectTimeout), idleTimeoutMs: ms(limits.idleTimeout), connectionAgeMaxMs: ms(limits.connectionAge), upgradeToHttp2: limits.upgradeToHttp2 ?? null,
    }, "limits");
  }
  if (outliers !== undefined) {
    const rate = outliers.successRate;
    set("outliers", {
      consecutive5xx: outliers.consecutive5xx ?? null, consecutiveGatewayErrors: outliers.consecutiveGatewayErrors ?? null, consecutiveConnectFailures: outliers.consecutiveConnectFailures ?? null, splitConnectFailures: null, errorStatuses: outliers.httpErrorCodes ?? null,
      // Envoy's defaults.
      successRate: rate === undefined ? null : { requestsMin: rate.minimumRequests ?? 100, hostsMin: rate.minimumHosts ?? 5, stdevFactor: rate.stdevFactor ?? 1.9 },
      intervalMs: ms(outliers.interval), baseEjectionMs: ms(outliers.baseEjectionTime), ejectionMaxMs: ms(outliers.maxEjectionTime), ejectedShareMax: share(outliers.maxEjectionPercent), panicThreshold: share(outliers.panicThresholdPercent),
    }, "outlierDetection");
  }
  if (spec.healthCheck !== undefined) set("healthCheck", healthCheck(spec.healthCheck), "healthCheck");
  const local = (spec.rateLimits?.local ?? []).map((limit, index): LocalRateLimit => ({
    name: limit.name, requests: limit.requests, perMs: durationMs(limit.per), burst: limit.burst ?? limit.requests, keys: (limit.keys ?? []).map(rateLimitKey), matches: (limit.matches ?? []).map(requestMatch), fieldPath: `spec.rateLimits.local[${index}]`,
  }));
  if (local.length > 0) set("localRateLimits", local, "rateLimits", "local");
  const global = spec.rateLimits?.global ?? [];
  if (global.length > 0) {
    const carried = hostsOf(resource, view);
    set("globalRateLimits", global.map((limit, index) => globalLimit(limit, index, resource, carried, view, report)), "rateLimits", "global");
  }
  if (concurrency !== undefined) {
    set("adaptiveConcurrency", {
      limitMin: concurrency.minimum ?? Math.min(DEFAULTS.concurrencyMin, concurrency.maximum ?? Infinity), limitMax: concurrency.maximum ?? Math.max(DEFAULTS.concurrencyMax, concurrency.minimum ?? 0), priorityHeader: concurrency.priorityHeader?.toLowerCase() ?? null, priorities: concurrency.priorities ?? [],
    }, "adaptiveConcurrency");
  }
  if (hedging !== undefined) set("hedging", { afterMs: durationMs(hedging.after), attemptsMax: hedging.maxAttempts ?? DEFAULTS.hedgeAttempts }, "hedging");
  if (spec.retry !== undefined) set("retry", retryPolicy(spec.retry, report), "retry");
  if (budget !== undefined) {
    const intervalMs = ms(budget.interval) ?? DEFAULTS.budgetIntervalMs;
    set("retryBudget", { kind: "overTime", fraction: share(budget.percent) ?? DEFAULTS.budgetFraction, intervalMs, retriesMin: budget.minimumRetries ?? DEFAULTS.budgetRetriesMin, retriesMinPerMs: intervalMs }, "retryBudget");
  }
  if (timeouts !== undefined) set("timeouts", { requestMs: ms(timeouts.request), backendRequestMs: ms(timeouts.backendRequest), streamIdleMs: ms(timeouts.streamIdle) }, "timeouts");
  if ((spec.faults?.length ?? 0) > 0) set("faults", spec.faults!.map((fault, index): Fault => ({ action: faultAction(fault), fraction: share(fault.percent) ?? 1, matches: (fault.matches ?? []).map(requestMatch), fieldPath: `spec.faults[${index}]` })), "faults");
  return { fields, paths };
}

function balancing({ type, hash, minimumRingSize, tableSize }: NonNullable<TrafficPolicyResource["spec"]["balancing"]>): Balancing {
  switch (type) {
    case "PeakEwma": return { kind: "peakEwma" };
    case "LeastRequest": return { kind: "leastRequest" };
    case "RoundRobin": return { kind: "roundRobin" };
    case "Random": return { kind: "random" };
    case "RingHash": return { kind: "ringHash", key: hashKey(hash!), ringSizeMin: minimumRingSize ?? DEFAULTS.ringSizeMin };
    case "Maglev": return { kind: "maglev", key: hashKey(hash!), tableSize: tableSize ?? DEFAULTS.maglevTableSize };
  }
}

function hashKey({ header, cookie, query }: NonNullable<NonNullable<TrafficPolicyResource["spec"]["balancing"]>["hash"]>): HashKey {
  if (header !== undefined) return { kind: "header", name: header.toLowerCase() };
  if (cookie !== undefined) return { kind: "cookie", name: cookie.name, path: cookie.path ?? "/", ttlMs: cookie.ttl === undefined ? null : durationMs(cookie.ttl) };
  return query === undefined ? { kind: "sourceIp" } : { kind: "query", name: query };
}

function healthCheck(spec: NonNullable<TrafficPolicyResource["spec"]["healthCheck"]>): HealthCheck {
  const { http, grpc } = spec;
  const probe: HealthCheck["probe"] = http !== undefined
    ? { kind: "http", path: http.path ?? "/", host: http.host ?? null, statuses: http.statuses ?? [200], headers: Object.entries(http.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]) }
    : grpc !== undefined ? { kind: "grpc", service: grpc.service ?? "" } : { kind: "tcp" };
  const intervalMs = spec.interval === undefined ? DEFAULTS.healthIntervalMs : durationMs(spec.interval);
  return {
    probe, intervalMs, timeoutMs: spec.timeout === undefined ? Math.min(DEFAULTS.healthTimeoutMs, intervalMs) : durationMs(spec.timeout), healthyThreshold: spec.healthyThreshold ?? DEFAULTS.healthyThreshold,
    unhealthyThreshold: spec.unhealthyThreshold ?? DEFAULTS.unhealthyThreshold, port: spec.port ?? null,
  };
}

function rateLimitKey({ header, claim, path, sourceIp }: Omit<LimitKeySpec, "identity">): RateLimitKey {
  if (header !== undefined) return { kind: "header", name: header.toLowerCase() };
  if (claim !== undefined) return { kind: "claim", path: claim.split(".") };
  if (path !== undefined) return { kind: "path" };
  return sourceIp === undefined ? { kind: "identity" } : { kind: "sourceIp" };
}

type GlobalLimitSpec = NonNullable<NonNullable<TrafficPolicyResource["spec"]["rateLimits"]>["global"]>[number];

/** A limit whose counting service is not there, or may not be asked, is one that cannot be asked: its onFailure decides, as for one that does not answer. */
function globalLimit(limit: GlobalLimitSpec, index: number, { kind, namespace }: TrafficPolicyResource, carried: readonly NamespacedName[], view: View, report: Report): GlobalRateLimit {
  const at = ["spec", "rateLimits", "global", index, "service"];
  const host = findService(limit.service, namespace, view);
  const found = host !== null && host.ports.some(({ number }) => number === limit.service.port);
  const onFailure = limit.onFailure === "Deny" ? "deny" : "allow";
  const described = limit.service.host ?? `${limit.service.namespace ?? namespace}/${limit.service.name}`;
  if (!found) report("error", "unresolved_reference", at, `found ${described}:${limit.service.port}, which ${described.startsWith("*") ? "stands for many hosts, and the service that counts is one" : "no Service or ServiceEntry has"}; requests are ${onFailure === "deny" ? "denied" : "not limited"} until it is there`);
  if (host === null) {
    // Named all the same, so that what onFailure says holds.
    const named = namespacedName(limit.service.namespace ?? namespace, limit.service.host ?? `${limit.service.name}.${limit.service.namespace ?? namespace}.svc.${view.options.clusterDomain}`);
    return globalRecord(limit, index, named, onFailure);
  }
  const refusal = foreignRefusal({ group: WEFT_GROUP, kind, namespace }, carried, host.service, view);
  if (refusal === null) return globalRecord(limit, index, host.service, onFailure);
  report("error", "fail_closed", at, `${refusal}; it is not asked, and requests are ${onFailure === "deny" ? "denied" : "not limited"}`);
  // One of its own namespace with that name is nobody.
  return globalRecord(limit, index, namespacedName(namespace, host.hostname), onFailure);
}

function globalRecord(limit: GlobalLimitSpec, index: number, service: GlobalRateLimit["service"], onFailure: "allow" | "deny"): GlobalRateLimit {
  const value = (entry: DescriptorEntrySpec): GlobalRateLimit["descriptors"][number][number]["value"] => (entry.value === undefined ? rateLimitKey(entry) : { kind: "literal", text: entry.value });
  return {
    name: limit.name, service, port: limit.service.port, domain: limit.domain, descriptors: limit.descriptors.map((entries) => entries.map((entry) => ({ key: entry.key, value: value(entry) }))),
    hits: limit.hits ?? 1, hitsHeader: limit.hitsHeader?.toLowerCase() ?? null,
    timeoutMs: limit.timeout === undefined ? DEFAULTS.rateLimitTimeoutMs : durationMs(limit.timeout), onFailure, matches: (limit.matches ?? []).map(requestMatch), fieldPath: `spec.rateLimits.global[${index}]`,
  };
}

function findService({ name, namespace, host }: ServiceReferenceSpec, own: string, view: View): Host | null {
  if (host?.startsWith("*") === true) return null;
  return host === undefined ? view.ask((world) => world.service(namespace ?? own, name!)) : view.ask((world) => world.host(host, own));
}

function retryPolicy(spec: NonNullable<TrafficPolicyResource["spec"]["retry"]>, report: Report): RetryPolicy {
  const { conditions, unsupported } = parseRetryOn(spec.retryOn ?? DEFAULTS.retryOn);
  if (unsupported.length > 0) report("warning", "not_supported", ["spec", "retry", "retryOn"], `found ${unsupported.join(", ")}, which is not supported and never holds`);
  const base = spec.backoff?.base === undefined ? DEFAULTS.backoffBaseMs : durationMs(spec.backoff.base);
  const perTry = spec.perTryTimeout === undefined ? 0 : durationMs(spec.perTryTimeout);
  return {
    ...conditions, attempts: spec.attempts ?? DEFAULTS.retryAttempts, nonIdempotent: spec.nonIdempotent ?? false, perTryTimeoutMs: perTry === 0 ? null : perTry, backoffBaseMs: base,
    backoffMaxMs: spec.backoff?.max === undefined ? Math.max(DEFAULTS.backoffMaxMs, base) : Math.max(base, durationMs(spec.backoff.max)),
  };
}

function faultAction({ delay, abort, bandwidth }: NonNullable<TrafficPolicyResource["spec"]["faults"]>[number]): FaultAction {
  if (delay !== undefined) return { kind: "delay", fixedMs: durationMs(delay) };
  if (bandwidth !== undefined) return { kind: "bandwidth", bytesPerSecond: bandwidth.bytesPerSecond };
  if (abort === undefined) return { kind: "reset" };
  const grpcStatus = abort.grpcStatus === undefined ? null : parseGrpcStatus(abort.grpcStatus);
  return { kind: "abort", httpStatus: abort.httpStatus ?? httpStatusOfGrpc(grpcStatus ?? 14), grpcStatus };
}

function requestMatch({ path, method, headers = {}, queryParams = {}, sourceNamespace, sourceLabels }: TrafficMatchSpec): RequestMatch {
  return {
    ...ANY_REQUEST,
    path: path === undefined ? null : path.exact !== undefined ? { kind: "exact", value: path.exact } : path.prefix !== undefined ? { kind: "prefix", value: path.prefix } : { kind: "regex", value: path.regex! },
    method: method === undefined ? null : { kind: "exact", value: method },
    headers: Object.entries(headers).map(([name, spec]) => ({ name: name.toLowerCase(), pattern: textPattern(spec), invert: false })),
    query: Object.entries(queryParams).map(([name, spec]) => ({ name, pattern: textPattern(spec) })),
    sourceNamespace: sourceNamespace ?? null, sourceLabels: sourceLabels ?? {},
  };
}
