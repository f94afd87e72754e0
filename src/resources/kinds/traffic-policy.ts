// weft.dev TrafficPolicy: for what no other kind can say about the requests to a service (and, in one place, for what several of them
// say): balancing, limits, health checks, rate limits, concurrency, hedging, retries, timeouts, faults.

import { z } from "zod";
import { admits, type AdmissionRule, boundedRecord, exactlyOneOf, NAMED_ITEMS } from "../admission.ts";
import { collectable } from "../collectable.ts";
import { duration, durationMs, positiveDuration } from "../durations.ts";
import type { FieldPath } from "../diagnostic.ts";
import { GRPC_STATUSES, parseGrpcStatus } from "../grpc-status.ts";
import { headerName, headerValue, hostname, httpStatus, METHODS, pathText, percentOfHundred, TOKEN } from "../http-values.ts";
import { dnsLabel, LABEL_KEY, labelValue, port, qualifiedKey } from "../object-meta.ts";
import { stringMatchOrPresent } from "../patterns.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";
import { parseRetryOn, RETRY_ON_RULE } from "../retry-on.ts";
import { ownTargetRefs } from "../targets.ts";

const COUNT_MAX = 2_147_483_647;
const ATTEMPTS_MAX = 10;
/** Each is looked at for each request that another has let through. */
const LIMITS_MAX = 32;
const MATCHES_MAX = 16;
const FIELDS_MAX = 16;
const KEYS_MAX = 8;
/** Of one request; more than any limit would let through. */
const HITS_MAX = 1_000_000;

const schemas = collectable(() => {
  const count = z.int().min(0).max(COUNT_MAX);
  const some = z.int().min(1).max(COUNT_MAX);
  const hashKey = exactlyOneOf(z.strictObject({
    header: headerName.optional(), query: z.string().min(1).max(256).optional(), sourceIp: z.strictObject({}).optional(),
    cookie: z.strictObject({ name: headerName, path: pathText.optional(), ttl: duration.optional() }).optional(),
  }), ["header", "cookie", "query", "sourceIp"]);
  const balancing = z.strictObject({
    type: z.enum(["PeakEwma", "LeastRequest", "RoundRobin", "Random", "RingHash", "Maglev"]), hash: hashKey.optional(), minimumRingSize: z.int().min(1).max(8_388_608).optional(), tableSize: z.int().min(1).max(5_000_011).optional(),
  }).meta(admits(
    { rule: "self.type in ['RingHash', 'Maglev'] ? has(self.hash) : !has(self.hash)", message: "expected a hash with RingHash and Maglev, and with no other type" },
    { rule: "!has(self.minimumRingSize) || self.type == 'RingHash'", message: "found minimumRingSize beside another type than RingHash" },
    { rule: "!has(self.tableSize) || self.type == 'Maglev'", message: "found tableSize beside another type than Maglev" },
  ));
  const fields = boundedRecord(headerName, stringMatchOrPresent, { max: FIELDS_MAX, keys: TOKEN, message: "expected names of headers" });
  const query = boundedRecord(z.string().min(1).max(256), stringMatchOrPresent, { max: FIELDS_MAX, keys: /^.{1,256}$/, message: "expected names of at most 256 characters" });
  const labels = boundedRecord(qualifiedKey, labelValue, { max: FIELDS_MAX, keys: LABEL_KEY, message: "expected names of labels" });
  const path = exactlyOneOf(z.strictObject({ exact: pathText.optional(), prefix: pathText.optional(), regex: stringMatchOrPresent.shape.regex }), ["exact", "prefix", "regex"]);
  /** Which requests are meant. Fields are joined by AND. */
  const match = z.strictObject({ path: path.optional(), method: z.enum(METHODS).optional(), headers: fields.optional(), queryParams: query.optional(), sourceNamespace: dnsLabel.optional(), sourceLabels: labels.optional() });
  const matches = z.array(match).max(MATCHES_MAX).optional();
  const limitKey = exactlyOneOf(z.strictObject({ identity: z.strictObject({}).optional(), path: z.strictObject({}).optional(), sourceIp: z.strictObject({}).optional(), header: headerName.optional(), claim: z.string().min(1).max(1024).optional() }),
    ["identity", "header", "path", "claim", "sourceIp"]);
  const descriptorEntry = exactlyOneOf(z.strictObject({
    key: z.string().min(1).max(256), identity: z.strictObject({}).optional(), path: z.strictObject({}).optional(), sourceIp: z.strictObject({}).optional(), header: headerName.optional(), claim: z.string().min(1).max(1024).optional(), value: z.string().max(1024).optional(),
  }), ["identity", "header", "path", "claim", "sourceIp", "value"]);
  /** A service of the mesh: by name and namespace, or by host. */
  const serviceReference = z.strictObject({ name: dnsLabel.optional(), namespace: dnsLabel.optional(), host: z.string().max(253).optional(), port }).refine(({ name, host }) => (name === undefined) !== (host === undefined), { error: "expected name (with namespace) or host" })
    .meta(admits({ rule: "has(self.name) != has(self.host)", message: "expected name (with namespace) or host" }));
  const retry = z.strictObject({
    attempts: z.int().min(0).max(ATTEMPTS_MAX).optional(), retryOn: z.string().max(512).meta(admits({ rule: RETRY_ON_RULE, message: "expected conditions such as 5xx, gateway-error, connect-failure, reset, unavailable, or status codes" })).optional(), nonIdempotent: z.boolean().optional(), perTryTimeout: duration.optional(), backoff: z.strictObject({ base: positiveDuration.optional(), max: positiveDuration.optional() }).meta(admits(atMostRule("base", "max"))).optional(),
  });
  const spec = z.strictObject({
    targetRefs: ownTargetRefs,
    port: port.optional(),
    subset: z.string().min(1).max(253).optional(),
    balancing: balancing.optional(),
    slowStart: positiveDuration.optional(),
    limits: z.strictObject({
      connections: some.optional(), pendingRequests: count.optional(), activeRequests: some.optional(), activeRetries: count.optional(), requestsPerConnection: some.optional(),
      connectTimeout: positiveDuration.optional(), idleTimeout: duration.optional(), connectionAge: positiveDuration.optional(), upgradeToHttp2: z.boolean().optional(),
    }).optional(),
    outlierDetection: z.strictObject({
      consecutive5xx: count.optional(), consecutiveGatewayErrors: count.optional(), consecutiveConnectFailures: count.optional(), httpErrorCodes: z.array(httpStatus).min(1).max(500).optional(),
      successRate: z.strictObject({ minimumRequests: some.optional(), minimumHosts: some.optional(), stdevFactor: z.number().min(0.1).max(100).optional() }).optional(),
      interval: positiveDuration.optional(), baseEjectionTime: positiveDuration.optional(), maxEjectionTime: positiveDuration.optional(), maxEjectionPercent: percentOfHundred.optional(), panicThresholdPercent: percentOfHundred.optional(),
    }).optional(),
    healthCheck: exactlyOneOf(z.strictObject({
      http: z.strictObject({ path: pathText.optional(), host: hostname.optional(), statuses: z.array(httpStatus).min(1).max(100).optional(), headers: boundedRecord(headerName, headerValue, { max: FIELDS_MAX, keys: TOKEN, message: "expected names of headers" }).optional() }).optional(),
      grpc: z.strictObject({ service: z.string().max(1024).optional() }).optional(), tcp: z.strictObject({}).optional(),
      interval: positiveDuration.optional(), timeout: positiveDuration.optional(), healthyThreshold: z.int().min(1).max(100).optional(), unhealthyThreshold: z.int().min(1).max(100).optional(), port: port.optional(),
    }), ["http", "grpc", "tcp"], [atMostRule("timeout", "interval")]).optional(),
    rateLimits: z.strictObject({
      local: z.array(z.strictObject({ name: dnsLabel, requests: some, per: positiveDuration, burst: some.optional(), keys: z.array(limitKey).max(KEYS_MAX).optional(), matches })).max(LIMITS_MAX).meta(NAMED_ITEMS).optional(),
      global: z.array(z.strictObject({
        name: dnsLabel, service: serviceReference, domain: z.string().min(1).max(256), descriptors: z.array(z.array(descriptorEntry).min(1).max(KEYS_MAX)).min(1).max(LIMITS_MAX), timeout: positiveDuration.optional(),
        hits: z.int().min(1).max(HITS_MAX).optional(), hitsHeader: headerName.optional(), onFailure: z.enum(["Allow", "Deny"]).optional(), matches,
      })).max(LIMITS_MAX).meta(NAMED_ITEMS).optional(),
    }).optional(),
    adaptiveConcurrency: z.strictObject({ minimum: some.optional(), maximum: some.optional(), priorityHeader: headerName.optional(), priorities: z.array(z.string().min(1).max(256)).max(16).optional() }).meta(admits(
      { rule: "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum", message: "expected minimum at most maximum" },
      { rule: "!has(self.priorities) || has(self.priorityHeader)", message: "found priorities without priorityHeader; a request names its priority in a header" },
    )).optional(),
    hedging: z.strictObject({ after: positiveDuration, maxAttempts: z.int().min(2).max(ATTEMPTS_MAX).optional() }).optional(),
    retry: retry.optional(),
    retryBudget: z.strictObject({ percent: percentOfHundred.optional(), interval: positiveDuration.optional(), minimumRetries: count.optional() }).optional(),
    timeouts: z.strictObject({ request: duration.optional(), backendRequest: duration.optional(), streamIdle: duration.optional() }).meta(admits(atMostRule("backendRequest", "request"))).optional(),
    faults: z.array(exactlyOneOf(z.strictObject({
      percent: percentOfHundred.optional(), delay: positiveDuration.optional(), abort: exactlyOneOf(z.strictObject({ httpStatus: httpStatus.optional(), grpcStatus: z.string().max(64).meta({ enum: GRPC_STATUSES }).optional() }), ["httpStatus", "grpcStatus"]).optional(),
      reset: z.strictObject({}).optional(), bandwidth: z.strictObject({ bytesPerSecond: some }).optional(), matches,
    }), ["delay", "abort", "reset", "bandwidth"])).max(LIMITS_MAX).optional(),
  });
  return { match, limitKey, descriptorEntry, serviceReference, spec };
});
export type TrafficMatchSpec = z.output<ReturnType<typeof schemas>["match"]>;
export type LimitKeySpec = z.output<ReturnType<typeof schemas>["limitKey"]>;
export type DescriptorEntrySpec = z.output<ReturnType<typeof schemas>["descriptorEntry"]>;
export type ServiceReferenceSpec = z.output<ReturnType<typeof schemas>["serviceReference"]>;

export const trafficPolicyKind = defineKind({
  kind: "TrafficPolicy",
  group: "weft.dev",
  versions: ["v1alpha1"],
  namespaced: true,
  spec: () => schemas().spec,
  check({ spec }, report) {
    const { balancing, healthCheck, adaptiveConcurrency, retry, faults, rateLimits } = spec;
    const hashes = balancing?.type === "RingHash" || balancing?.type === "Maglev";
    if (hashes && balancing.hash === undefined) report("error", "missing_field", ["spec", "balancing", "hash"], `found no hash, which ${balancing.type} needs`);
    for (const [field, type] of [["hash", null], ["minimumRingSize", "RingHash"], ["tableSize", "Maglev"]] as const) {
      if (balancing?.[field] !== undefined && (type === null ? !hashes : balancing.type !== type)) report("error", "conflict", ["spec", "balancing", field], `found ${field} beside type ${balancing.type}`);
    }
    atMost(healthCheck?.timeout, healthCheck?.interval, ["spec", "healthCheck", "timeout"], "interval", report);
    atMost(retry?.backoff?.base, retry?.backoff?.max, ["spec", "retry", "backoff", "base"], "max", report);
    atMost(spec.timeouts?.backendRequest, spec.timeouts?.request, ["spec", "timeouts", "backendRequest"], "request", report);
    const { minimum = 1, maximum = COUNT_MAX } = adaptiveConcurrency ?? {};
    if (minimum > maximum) report("error", "bad_value", ["spec", "adaptiveConcurrency", "minimum"], `found ${minimum}, expected at most maximum, ${maximum}`);
    if (adaptiveConcurrency?.priorities !== undefined && adaptiveConcurrency.priorityHeader === undefined) report("error", "missing_field", ["spec", "adaptiveConcurrency", "priorityHeader"], "found none; a request names its priority in a header");
    const unknown = retry?.retryOn === undefined ? [] : parseRetryOn(retry.retryOn).unknown;
    if (unknown.length > 0) report("error", "bad_value", ["spec", "retry", "retryOn"], `found ${unknown.map((text) => JSON.stringify(text)).join(", ")}, expected conditions such as 5xx, gateway-error, connect-failure, reset, unavailable, or status codes`);
    (faults ?? []).forEach(({ abort }, index) => {
      if (abort?.grpcStatus !== undefined && parseGrpcStatus(abort.grpcStatus) === null) report("error", "bad_value", ["spec", "faults", index, "abort", "grpcStatus"], "expected the name of a gRPC status, e.g. UNAVAILABLE, or 0 to 16");
    });
    for (const where of ["local", "global"] as const) {
      const names = new Set<string>();
      (rateLimits?.[where] ?? []).forEach(({ name }, index) => {
        if (names.has(name)) report("error", "conflict", ["spec", "rateLimits", where, index, "name"], `found the name ${name} twice`);
        names.add(name);
      });
    }
  },
});

export type TrafficPolicyResource = ResourceOfKind<typeof trafficPolicyKind>;

/** The same for an API server; a larger one of 0 is none. */
function atMostRule(smaller: string, larger: string): AdmissionRule {
  return { rule: `!has(self.${smaller}) || !has(self.${larger}) || duration(self.${larger}) == duration('0s') || duration(self.${smaller}) <= duration(self.${larger})`, message: `expected ${smaller} at most ${larger}` };
}

function atMost(smaller: string | undefined, larger: string | undefined, at: FieldPath, name: string, report: Report): void {
  if (smaller === undefined || larger === undefined || durationMs(larger) === 0) return;
  if (durationMs(smaller) > durationMs(larger)) report("error", "bad_value", at, `found ${smaller}, expected at most ${name}, ${larger}`);
}
