// Schemas of src/mesh/l7/traffic-policy.ts and telemetry.ts.

import { z } from "zod";
import { type AccessLogCondition, type AccessLogSettings, isLogAttribute, LOG_ATTRIBUTES, type LogAttribute, type LogFormat, type LogSink, type LogStep, type MetricsOverride, type OtlpCollector, type TelemetryPolicy, type TracingSettings } from "../../mesh/l7/telemetry.ts";
import type {
  AdaptiveConcurrency, BackendTls, Balancing, ConnectionLimits, GlobalRateLimit, HashKey, HealthCheck, Hedging, LocalityFailover, LocalRateLimit, OutlierDetection, RateLimitKey, RetryBudget, Subset,
  TrafficPolicy,
} from "../../mesh/l7/traffic-policy.ts";
import { accessTarget } from "./access.ts";
import { fault, requestMatch } from "./match.ts";
import { retryPolicy, routeTimeouts, sessionPersistence } from "./route.ts";
import { exactly, labels, later, list, name, nullable, number, pairs, port, provenance, share, text } from "./values.ts";

const hashKey = exactly<HashKey>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("header"), name: text }),
  z.strictObject({ kind: z.literal("cookie"), name: text, path: text, ttlMs: nullable(number) }),
  z.strictObject({ kind: z.literal("query"), name: text }),
  z.strictObject({ kind: z.literal("sourceIp") }),
]));

const balancing = exactly<Balancing>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.enum(["peakEwma", "leastRequest", "roundRobin", "random", "passthrough"]) }),
  z.strictObject({ kind: z.literal("ringHash"), key: hashKey, ringSizeMin: number }),
  z.strictObject({ kind: z.literal("maglev"), key: hashKey, tableSize: number }),
]));

const locality = exactly<LocalityFailover>()(z.strictObject({
  mode: z.enum(["off", "failover", "distribute"]), distribute: list(z.strictObject({ from: text, to: list(z.strictObject({ locality: text, weight: number })) })),
  failover: list(z.strictObject({ from: text, to: text })), failoverPriority: list(text),
}));

const limits = exactly<ConnectionLimits>()(z.strictObject({
  connectionsMax: nullable(number), pendingRequestsMax: nullable(number), activeRequestsMax: nullable(number), activeRetriesMax: nullable(number), requestsPerConnectionMax: nullable(number),
  connectTimeoutMs: nullable(number), idleTimeoutMs: nullable(number), connectionAgeMaxMs: nullable(number), upgradeToHttp2: nullable(z.boolean()),
}));

const outliers = exactly<OutlierDetection>()(z.strictObject({
  consecutive5xx: nullable(number), consecutiveGatewayErrors: nullable(number), consecutiveConnectFailures: nullable(number), splitConnectFailures: nullable(z.boolean()), errorStatuses: later(nullable(list(number)), null),
  successRate: nullable(z.strictObject({ requestsMin: number, hostsMin: number, stdevFactor: number })), intervalMs: nullable(number), baseEjectionMs: nullable(number), ejectionMaxMs: nullable(number),
  ejectedShareMax: nullable(number), panicThreshold: nullable(number),
}));

const healthCheck = exactly<HealthCheck>()(z.strictObject({
  probe: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("http"), path: text, host: nullable(text), statuses: list(number), headers: pairs }),
    z.strictObject({ kind: z.literal("grpc"), service: text }),
    z.strictObject({ kind: z.literal("tcp") }),
  ]),
  intervalMs: number, timeoutMs: number, healthyThreshold: number, unhealthyThreshold: number, port: nullable(port),
}));

const rateLimitKeys = [
  z.strictObject({ kind: z.literal("identity") }),
  z.strictObject({ kind: z.literal("header"), name: text }),
  z.strictObject({ kind: z.literal("path") }),
  z.strictObject({ kind: z.literal("claim"), path: list(text) }),
  z.strictObject({ kind: z.literal("sourceIp") }),
] as const;
const rateLimitKey = exactly<RateLimitKey>()(z.discriminatedUnion("kind", rateLimitKeys));

const localRateLimit = exactly<LocalRateLimit>()(z.strictObject({
  name: text, requests: number, perMs: number, burst: number, keys: list(rateLimitKey), matches: list(requestMatch), fieldPath: text,
}));

const globalRateLimit = exactly<GlobalRateLimit>()(z.strictObject({
  name: text, service: name, port, domain: text,
  descriptors: list(list(z.strictObject({ key: text, value: z.discriminatedUnion("kind", [...rateLimitKeys, z.strictObject({ kind: z.literal("literal"), text })]) }))),
  hits: number, hitsHeader: nullable(text), timeoutMs: number, onFailure: z.enum(["allow", "deny"]), matches: list(requestMatch), fieldPath: text,
}));

const adaptiveConcurrency = exactly<AdaptiveConcurrency>()(z.strictObject({ limitMin: number, limitMax: number, priorityHeader: nullable(text), priorities: list(text) }));
const hedging = exactly<Hedging>()(z.strictObject({ afterMs: number, attemptsMax: number }));
const retryBudget = exactly<RetryBudget>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("overTime"), fraction: share, intervalMs: number, retriesMin: number, retriesMinPerMs: number }),
  z.strictObject({ kind: z.literal("underWay"), fraction: share, retriesMin: number }),
]));

const tls = exactly<BackendTls>()(z.discriminatedUnion("mode", [
  z.strictObject({ mode: z.literal("off") }),
  z.strictObject({ mode: z.literal("mesh") }),
  z.strictObject({
    mode: z.enum(["simple", "mutual"]), sni: nullable(text), subjectAltNames: list(z.strictObject({ type: z.enum(["any", "dns", "uri"]), value: text })), caPem: nullable(text), crlPem: later(nullable(text), null),
    certificate: nullable(z.strictObject({ certificatePem: text, keyPem: text })), gatewayCertificate: later(z.boolean(), false), verify: z.boolean(),
  }),
  z.strictObject({ mode: z.literal("broken"), reason: text }),
]));

const subset = exactly<Subset>()(z.strictObject({ name: text, labels }));

const trafficPolicy = exactly<TrafficPolicy>()(z.strictObject({
  service: name, port: nullable(port), subset: nullable(subset), clientNamespace: nullable(text), balancing: nullable(balancing), locality: nullable(locality), slowStartMs: nullable(number),
  limits: nullable(limits), outliers: nullable(outliers), healthCheck: nullable(healthCheck), localRateLimits: list(localRateLimit), globalRateLimits: list(globalRateLimit),
  adaptiveConcurrency: nullable(adaptiveConcurrency), hedging: nullable(hedging), retry: nullable(retryPolicy), retryBudget: nullable(retryBudget), timeouts: nullable(routeTimeouts),
  sessionPersistence: nullable(sessionPersistence), tls: nullable(tls), dynamicHosts: later(nullable(z.strictObject({ allowPrivate: z.boolean() })), null), faults: list(fault), provenance: z.record(text, provenance).readonly(),
}));

/** All those of one service. */
export const trafficPolicies = exactly<readonly TrafficPolicy[]>()(list(trafficPolicy));

const collector = exactly<OtlpCollector>()(z.strictObject({ name: text, protocol: z.enum(["grpc", "http"]), service: name, port, path: text, timeoutMs: number, headers: pairs }));

const logFormat = exactly<LogFormat>()(z.discriminatedUnion("kind", [z.strictObject({ kind: z.literal("text"), line: text }), z.strictObject({ kind: z.literal("json"), fields: pairs })]));

const sink = exactly<LogSink>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("standardOutput"), format: nullable(logFormat) }),
  z.strictObject({ kind: z.literal("otlp"), collector }),
]));

const tracing = exactly<TracingSettings>()(z.strictObject({
  disabled: z.boolean(), collectors: nullable(list(collector)), sampling: nullable(share),
  tags: list(z.strictObject({ name: text, value: z.strictObject({ kind: z.enum(["literal", "header", "environment"]), text, fallback: nullable(text) }) })),
}));

const compare = z.enum([">=", "<=", "==", "!=", ">", "<"]);
const logAttributes: readonly LogAttribute[] = Object.keys(LOG_ATTRIBUTES).filter(isLogAttribute);
const logStep = exactly<LogStep>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("literal"), value: z.union([text, number, z.boolean()]) }),
  z.strictObject({ kind: z.literal("attribute"), name: z.enum(logAttributes) }),
  z.strictObject({ kind: z.literal("field"), side: z.enum(["request", "response"]), name: text }),
  z.strictObject({ kind: z.literal("random") }),
  z.strictObject({ kind: z.enum(["present", "not", "and", "or"]) }),
  z.strictObject({ kind: z.literal("compare"), compare }),
  z.strictObject({ kind: z.literal("text"), test: z.enum(["startsWith", "endsWith", "contains"]) }),
]));
const logCondition = exactly<AccessLogCondition>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("status"), compare, value: number }),
  z.strictObject({ kind: z.literal("sample"), fraction: share }),
  z.strictObject({ kind: z.literal("slowerThanMs"), value: number }),
  z.strictObject({ kind: z.literal("expression"), steps: list(logStep) }),
]));

const accessLog = exactly<AccessLogSettings>()(z.strictObject({ disabled: z.boolean(), sinks: nullable(list(sink)), conditions: list(logCondition) }));
const metricsOverride = exactly<MetricsOverride>()(z.strictObject({ metric: nullable(text), disabled: z.boolean(), removeTags: list(text), setTags: pairs }));

export const telemetryPolicy = exactly<TelemetryPolicy>()(z.strictObject({
  name: text, namespace: text, targets: list(accessTarget), tracing: nullable(tracing), accessLog: nullable(accessLog), metrics: list(metricsOverride), provenance,
}));
