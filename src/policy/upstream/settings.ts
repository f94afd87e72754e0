// What holds for one service, port and subset: its merged TrafficPolicy (src/mesh/l7/merge-traffic.ts) with our defaults below it.
// Compiled once per configuration; nothing here is looked at per request.

import type { Provenance } from "../../core/fault.ts";
import type { Fault } from "../../mesh/l7/fault.ts";
import { INHERITED_TIMEOUTS, type RetryPolicy, type RouteTimeouts, type SessionPersistence } from "../../mesh/l7/route.ts";
import type {
  AdaptiveConcurrency, BackendTls, Balancing, ConnectionLimits, DynamicHosts, GlobalRateLimit, HealthCheck, Hedging, LocalityFailover, LocalRateLimit, OutlierDetection,
  RetryBudget, Subset, TrafficPolicy,
} from "../../mesh/l7/traffic-policy.ts";
import {
  ACTIVE_REQUESTS_MAX, ACTIVE_RETRIES_MAX, BACKEND_REQUEST_TIMEOUT_MS, BACKOFF_BASE_MS, BACKOFF_MAX_MS, BALANCING_DEFAULT, BASE_EJECTION_MS,
  BASE_EJECTION_UNCONFIGURED_MS, CONNECT_TIMEOUT_MS, CONNECTION_AGE_MAX_MS, CONNECTIONS_MAX, CONSECUTIVE_5XX, CONSECUTIVE_CONNECT_FAILURES,
  EJECTED_SHARE_MAX, EJECTION_MAX_MS, IDLE_TIMEOUT_MS, OUTLIER_INTERVAL_MS, PANIC_THRESHOLD, PENDING_REQUESTS_MAX, REQUEST_TIMEOUT_MS,
  REQUESTS_PER_CONNECTION_MAX, RETRIES_MIN, RETRIES_MIN_PER_MS, RETRY_ATTEMPTS, RETRY_ATTEMPTS_MAX, RETRY_BUDGET_FRACTION, RETRY_BUDGET_INTERVAL_MS, RETRY_GRPC_STATUSES,
  STREAM_IDLE_TIMEOUT_MS, UNLIMITED,
} from "./defaults.ts";

/** Limits in force; `UNLIMITED` where there is none. */
export type LimitSettings = { readonly [K in Exclude<keyof ConnectionLimits, "upgradeToHttp2">]: NonNullable<ConnectionLimits[K]> } & {
  /** Null: as the port is declared. */
  readonly upgradeToHttp2: boolean | null;
};

/** Counts of 0 switch a detector off. */
export interface OutlierSettings {
  readonly consecutive5xx: number;
  readonly consecutiveGatewayErrors: number;
  readonly consecutiveConnectFailures: number;
  readonly splitConnectFailures: boolean;
  /** Null: all from 500 on. */
  readonly errorStatuses: ReadonlySet<number> | null;
  readonly successRate: NonNullable<OutlierDetection["successRate"]> | null;
  readonly intervalMs: number;
  readonly baseEjectionMs: number;
  readonly ejectionMaxMs: number;
  readonly ejectedShareMax: number;
  readonly panicThreshold: number;
}

/** Milliseconds; 0 is no limit. */
export type TimeoutSettings = { readonly [K in keyof RouteTimeouts]: number };

export interface UpstreamSettings {
  readonly subset: Subset | null;
  readonly balancing: Balancing;
  /** Null: the service's own traffic distribution decides. */
  readonly locality: LocalityFailover | null;
  /** 0: none. */
  readonly slowStartMs: number;
  readonly limits: LimitSettings;
  readonly outliers: OutlierSettings;
  readonly healthCheck: HealthCheck | null;
  readonly localRateLimits: readonly LocalRateLimit[];
  readonly globalRateLimits: readonly GlobalRateLimit[];
  readonly adaptiveConcurrency: AdaptiveConcurrency | null;
  readonly hedging: Hedging | null;
  readonly retry: RetryPolicy;
  readonly retryBudget: RetryBudget;
  readonly timeouts: TimeoutSettings;
  /** The timeouts that a policy says, without our defaults. */
  readonly said: RouteTimeouts;
  readonly sessionPersistence: SessionPersistence | null;
  readonly tls: BackendTls;
  /** Requests say which host they are for; null: the configuration has the endpoints. */
  readonly dynamicHosts: DynamicHosts | null;
  readonly faults: readonly Fault[];
  /** Field name to the record that it came from; a field that is not here is our default. */
  readonly provenance: Readonly<Record<string, Provenance>>;
}

export const RETRY_DEFAULT: RetryPolicy = {
  attempts: RETRY_ATTEMPTS, statuses: [], grpcStatuses: RETRY_GRPC_STATUSES, onConnectFailure: true, onReset: false, onRefusedStream: true,
  nonIdempotent: false, perTryTimeoutMs: null, backoffBaseMs: BACKOFF_BASE_MS, backoffMaxMs: BACKOFF_MAX_MS,
};

export const RETRY_BUDGET_DEFAULT = { kind: "overTime", fraction: RETRY_BUDGET_FRACTION, intervalMs: RETRY_BUDGET_INTERVAL_MS, retriesMin: RETRIES_MIN, retriesMinPerMs: RETRIES_MIN_PER_MS } as const satisfies RetryBudget;
const NO_TLS: BackendTls = { mode: "off" };

/**
 * @param policy what the configuration says of the scope, merged; null when it says nothing
 * @param subset name of the subset that is asked for, null for all endpoints
 * @returns null when no record defines that subset: requests to it have no endpoint
 */
export function effectiveSettings(policy: TrafficPolicy | null, subset: string | null): UpstreamSettings | null {
  if (subset !== null && policy?.subset?.name !== subset) return null;
  return {
    subset: policy?.subset ?? null,
    balancing: policy?.balancing ?? { kind: BALANCING_DEFAULT },
    locality: policy?.locality ?? null,
    slowStartMs: policy?.slowStartMs ?? 0,
    limits: limitSettings(policy?.limits ?? null),
    outliers: outlierSettings(policy?.outliers ?? null),
    healthCheck: policy?.healthCheck ?? null,
    localRateLimits: policy?.localRateLimits ?? [],
    globalRateLimits: policy?.globalRateLimits ?? [],
    adaptiveConcurrency: policy?.adaptiveConcurrency ?? null,
    hedging: policy?.hedging ?? null,
    retry: boundedRetry(policy?.retry ?? RETRY_DEFAULT),
    retryBudget: policy?.retryBudget ?? RETRY_BUDGET_DEFAULT,
    timeouts: {
      requestMs: policy?.timeouts?.requestMs ?? REQUEST_TIMEOUT_MS,
      backendRequestMs: policy?.timeouts?.backendRequestMs ?? BACKEND_REQUEST_TIMEOUT_MS,
      streamIdleMs: policy?.timeouts?.streamIdleMs ?? STREAM_IDLE_TIMEOUT_MS,
    },
    said: policy?.timeouts ?? INHERITED_TIMEOUTS,
    sessionPersistence: policy?.sessionPersistence ?? null,
    tls: policy?.tls ?? NO_TLS,
    dynamicHosts: policy?.dynamicHosts ?? null,
    faults: policy?.faults ?? [],
    provenance: policy?.provenance ?? {},
  };
}

/** A route's own retry policy goes before the service's. */
export function effectiveRetry(route: RetryPolicy | null, settings: UpstreamSettings): RetryPolicy {
  return route === null ? settings.retry : boundedRetry(route);
}

/**
 * Of one request, timeout by timeout: the route's own, then that of the service that the client named, then the backend's. What one
 * attempt at the backend may take is said by the backend first.
 * @param named what the policies of that service say; null where it is the backend itself
 */
export function effectiveTimeouts(route: RouteTimeouts, named: RouteTimeouts | null, { timeouts, said }: UpstreamSettings): TimeoutSettings {
  if (named === null && route.requestMs === null && route.backendRequestMs === null && route.streamIdleMs === null) return timeouts;
  return {
    requestMs: route.requestMs ?? named?.requestMs ?? timeouts.requestMs,
    backendRequestMs: route.backendRequestMs ?? said.backendRequestMs ?? named?.backendRequestMs ?? timeouts.backendRequestMs,
    streamIdleMs: route.streamIdleMs ?? named?.streamIdleMs ?? timeouts.streamIdleMs,
  };
}

/**
 * Which policy made a part of a field so (`localRateLimits` and the limit's name; `timeouts` and its field), down to `fieldPath`.
 * Null: none, it is our default.
 */
export function provenanceOfPart({ provenance }: UpstreamSettings, field: string, part: string, fieldPath: string): Provenance | null {
  const origin = provenance[`${field}.${part}`] ?? provenance[field];
  return origin === undefined ? null : { ...origin, fieldPath };
}

function limitSettings(limits: ConnectionLimits | null): LimitSettings {
  return {
    connectionsMax: limits?.connectionsMax ?? CONNECTIONS_MAX,
    pendingRequestsMax: limits?.pendingRequestsMax ?? PENDING_REQUESTS_MAX,
    activeRequestsMax: limits?.activeRequestsMax ?? ACTIVE_REQUESTS_MAX,
    activeRetriesMax: limits?.activeRetriesMax ?? ACTIVE_RETRIES_MAX,
    requestsPerConnectionMax: orUnlimited(limits?.requestsPerConnectionMax ?? REQUESTS_PER_CONNECTION_MAX),
    connectTimeoutMs: limits?.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    idleTimeoutMs: orUnlimited(limits?.idleTimeoutMs ?? IDLE_TIMEOUT_MS),
    connectionAgeMaxMs: orUnlimited(limits?.connectionAgeMaxMs ?? CONNECTION_AGE_MAX_MS),
    upgradeToHttp2: limits?.upgradeToHttp2 ?? null,
  };
}

function outlierSettings(outliers: OutlierDetection | null): OutlierSettings {
  const baseEjectionMs = outliers === null ? BASE_EJECTION_UNCONFIGURED_MS : outliers.baseEjectionMs ?? BASE_EJECTION_MS;
  return {
    consecutive5xx: outliers === null ? 0 : outliers.consecutive5xx ?? CONSECUTIVE_5XX,
    consecutiveGatewayErrors: outliers?.consecutiveGatewayErrors ?? 0,
    consecutiveConnectFailures: outliers?.consecutiveConnectFailures ?? CONSECUTIVE_CONNECT_FAILURES,
    splitConnectFailures: outliers?.splitConnectFailures ?? false,
    errorStatuses: outliers === null || outliers.errorStatuses === null ? null : new Set(outliers.errorStatuses),
    successRate: outliers?.successRate ?? null,
    intervalMs: outliers?.intervalMs ?? OUTLIER_INTERVAL_MS,
    baseEjectionMs,
    ejectionMaxMs: Math.max(outliers?.ejectionMaxMs ?? EJECTION_MAX_MS, baseEjectionMs),
    ejectedShareMax: outliers?.ejectedShareMax ?? EJECTED_SHARE_MAX,
    panicThreshold: outliers?.panicThreshold ?? PANIC_THRESHOLD,
  };
}

/** 0 switches a limit of time or use off. */
function orUnlimited(value: number): number {
  return value === 0 ? UNLIMITED : value;
}

function boundedRetry(retry: RetryPolicy): RetryPolicy {
  return retry.attempts <= RETRY_ATTEMPTS_MAX ? retry : { ...retry, attempts: RETRY_ATTEMPTS_MAX };
}
