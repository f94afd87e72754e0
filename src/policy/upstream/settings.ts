// What holds for one service, port and subset: its TrafficPolicy records merged field by field, the most specific first, with our
// defaults below. Compiled once per configuration; nothing here is looked at per request.

import type { Provenance } from "../../core/fault.ts";
import type { Fault } from "../../mesh/l7/fault.ts";
import type { RetryPolicy, RouteTimeouts, SessionPersistence } from "../../mesh/l7/route.ts";
import type {
  AdaptiveConcurrency, BackendTls, Balancing, ConnectionLimits, GlobalRateLimit, HealthCheck, Hedging, LocalityFailover, LocalRateLimit, OutlierDetection,
  RetryBudget, Subset, TrafficPolicy,
} from "../../mesh/l7/traffic-policy.ts";
import {
  ACTIVE_REQUESTS_MAX, ACTIVE_RETRIES_MAX, BACKEND_REQUEST_TIMEOUT_MS, BACKOFF_BASE_MS, BACKOFF_MAX_MS, BALANCING_DEFAULT, BASE_EJECTION_MS,
  BASE_EJECTION_UNCONFIGURED_MS, CONNECT_TIMEOUT_MS, CONNECTION_AGE_MAX_MS, CONNECTIONS_MAX, CONSECUTIVE_5XX, CONSECUTIVE_CONNECT_FAILURES,
  EJECTED_SHARE_MAX, EJECTION_MAX_MS, IDLE_TIMEOUT_MS, OUTLIER_INTERVAL_MS, PANIC_THRESHOLD, PENDING_REQUESTS_MAX, REQUEST_TIMEOUT_MS,
  REQUESTS_PER_CONNECTION_MAX, RETRIES_MIN, RETRY_ATTEMPTS, RETRY_ATTEMPTS_MAX, RETRY_BUDGET_FRACTION, RETRY_BUDGET_INTERVAL_MS, RETRY_GRPC_STATUSES,
  STREAM_IDLE_TIMEOUT_MS, UNLIMITED,
} from "./defaults.ts";

/** Limits in force; `UNLIMITED` where there is none. */
export type LimitSettings = { readonly [K in keyof ConnectionLimits]: NonNullable<ConnectionLimits[K]> };

/** Counts of 0 switch a detector off. */
export interface OutlierSettings {
  readonly consecutive5xx: number;
  readonly consecutiveGatewayErrors: number;
  readonly consecutiveConnectFailures: number;
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
  readonly sessionPersistence: SessionPersistence | null;
  readonly tls: BackendTls;
  readonly faults: readonly Fault[];
  /** Field name to the record that it came from; a field that is not here is our default. */
  readonly provenance: ReadonlyMap<string, Provenance>;
}

/** Which part of a service is asked for, and by whom. */
export interface SettingsScope {
  readonly port: number;
  /** Name of a subset; null for all endpoints. */
  readonly subset: string | null;
  readonly clientNamespace: string;
}

export const RETRY_DEFAULT: RetryPolicy = {
  attempts: RETRY_ATTEMPTS, statuses: [], grpcStatuses: RETRY_GRPC_STATUSES, onConnectFailure: true, onReset: false, onRefusedStream: true,
  nonIdempotent: false, perTryTimeoutMs: null, backoffBaseMs: BACKOFF_BASE_MS, backoffMaxMs: BACKOFF_MAX_MS,
};

const NO_TLS: BackendTls = { mode: "off" };

/**
 * Merges the records of one service for a scope. Records of other ports, subsets and clients are left out; of those that apply the more specific
 * wins field by field (client, then subset, then port), also inside `limits` and `outliers`. Equal ones: the first given.
 * @returns null when the scope names a subset that no record defines: requests to it have no endpoint.
 */
export function mergeSettings(policies: readonly TrafficPolicy[], scope: SettingsScope): UpstreamSettings | null {
  const applicable = policies.filter((policy) => applies(policy, scope)).sort((a, b) => specificity(b) - specificity(a));
  const subset = applicable.find((policy) => policy.subset !== null)?.subset ?? null;
  if (scope.subset !== null && subset === null) return null;
  const merge = new Merge(applicable);
  const timeout = merge.parts("timeouts", (policy) => policy.timeouts);
  return {
    subset,
    balancing: merge.field("balancing") ?? { kind: BALANCING_DEFAULT },
    locality: merge.field("locality"),
    slowStartMs: merge.field("slowStartMs") ?? 0,
    limits: limitSettings(merge),
    outliers: outlierSettings(merge),
    healthCheck: merge.field("healthCheck"),
    localRateLimits: merge.list("localRateLimits", (policy) => policy.localRateLimits),
    globalRateLimits: merge.list("globalRateLimits", (policy) => policy.globalRateLimits),
    adaptiveConcurrency: merge.field("adaptiveConcurrency"),
    hedging: merge.field("hedging"),
    retry: boundedRetry(merge.field("retry") ?? RETRY_DEFAULT),
    retryBudget: merge.field("retryBudget") ?? { fraction: RETRY_BUDGET_FRACTION, intervalMs: RETRY_BUDGET_INTERVAL_MS, retriesMin: RETRIES_MIN },
    timeouts: {
      requestMs: timeout("requestMs") ?? REQUEST_TIMEOUT_MS,
      backendRequestMs: timeout("backendRequestMs") ?? BACKEND_REQUEST_TIMEOUT_MS,
      streamIdleMs: timeout("streamIdleMs") ?? STREAM_IDLE_TIMEOUT_MS,
    },
    sessionPersistence: merge.field("sessionPersistence"),
    tls: merge.field("tls") ?? NO_TLS,
    faults: merge.list("faults", (policy) => policy.faults),
    provenance: merge.provenance,
  };
}

/** A route's own retry policy goes before the service's. */
export function effectiveRetry(route: RetryPolicy | null, settings: UpstreamSettings): RetryPolicy {
  return route === null ? settings.retry : boundedRetry(route);
}

/** A route's own timeouts go before the service's, one by one. */
export function effectiveTimeouts(route: RouteTimeouts, settings: UpstreamSettings): TimeoutSettings {
  const { timeouts } = settings;
  if (route.requestMs === null && route.backendRequestMs === null && route.streamIdleMs === null) return timeouts;
  return {
    requestMs: route.requestMs ?? timeouts.requestMs,
    backendRequestMs: route.backendRequestMs ?? timeouts.backendRequestMs,
    streamIdleMs: route.streamIdleMs ?? timeouts.streamIdleMs,
  };
}

/** A session of the route goes before one of the service. */
export function effectivePersistence(route: SessionPersistence | null, settings: UpstreamSettings): SessionPersistence | null {
  return route ?? settings.sessionPersistence;
}

function applies(policy: TrafficPolicy, scope: SettingsScope): boolean {
  if (policy.port !== null && policy.port !== scope.port) return false;
  if (policy.subset !== null && policy.subset.name !== scope.subset) return false;
  return policy.clientNamespace === null || policy.clientNamespace === scope.clientNamespace;
}

function specificity(policy: TrafficPolicy): number {
  return (policy.clientNamespace === null ? 0 : 4) + (policy.subset === null ? 0 : 2) + (policy.port === null ? 0 : 1);
}

function limitSettings(merge: Merge): LimitSettings {
  const part = merge.parts("limits", (policy) => policy.limits);
  return {
    connectionsMax: part("connectionsMax") ?? CONNECTIONS_MAX,
    pendingRequestsMax: part("pendingRequestsMax") ?? PENDING_REQUESTS_MAX,
    activeRequestsMax: part("activeRequestsMax") ?? ACTIVE_REQUESTS_MAX,
    activeRetriesMax: part("activeRetriesMax") ?? ACTIVE_RETRIES_MAX,
    requestsPerConnectionMax: orUnlimited(part("requestsPerConnectionMax") ?? REQUESTS_PER_CONNECTION_MAX),
    connectTimeoutMs: part("connectTimeoutMs") ?? CONNECT_TIMEOUT_MS,
    idleTimeoutMs: orUnlimited(part("idleTimeoutMs") ?? IDLE_TIMEOUT_MS),
    connectionAgeMaxMs: orUnlimited(part("connectionAgeMaxMs") ?? CONNECTION_AGE_MAX_MS),
    upgradeToHttp2: part("upgradeToHttp2") ?? false,
  };
}

function outlierSettings(merge: Merge): OutlierSettings {
  const configured = merge.has("outliers");
  const part = merge.parts("outliers", (policy) => policy.outliers);
  return {
    consecutive5xx: part("consecutive5xx") ?? (configured ? CONSECUTIVE_5XX : 0),
    consecutiveGatewayErrors: part("consecutiveGatewayErrors") ?? 0,
    consecutiveConnectFailures: part("consecutiveConnectFailures") ?? CONSECUTIVE_CONNECT_FAILURES,
    successRate: part("successRate"),
    intervalMs: part("intervalMs") ?? OUTLIER_INTERVAL_MS,
    baseEjectionMs: part("baseEjectionMs") ?? (configured ? BASE_EJECTION_MS : BASE_EJECTION_UNCONFIGURED_MS),
    ejectionMaxMs: Math.max(part("ejectionMaxMs") ?? EJECTION_MAX_MS, part("baseEjectionMs") ?? 0),
    ejectedShareMax: part("ejectedShareMax") ?? EJECTED_SHARE_MAX,
    panicThreshold: part("panicThreshold") ?? PANIC_THRESHOLD,
  };
}

/** 0 switches a limit of time or use off. */
function orUnlimited(value: number): number {
  return value === 0 ? UNLIMITED : value;
}

function boundedRetry(retry: RetryPolicy): RetryPolicy {
  return retry.attempts <= RETRY_ATTEMPTS_MAX ? retry : { ...retry, attempts: RETRY_ATTEMPTS_MAX };
}

/** Reads fields out of records, the most specific first, and notes where each came from. */
class Merge {
  readonly provenance = new Map<string, Provenance>();
  readonly #policies: readonly TrafficPolicy[];

  constructor(policies: readonly TrafficPolicy[]) {
    this.#policies = policies;
  }

  has(name: "outliers"): boolean {
    return this.#policies.some((policy) => policy[name] !== null);
  }

  field<K extends Exclude<keyof TrafficPolicy, "provenance" | "service" | "localRateLimits" | "globalRateLimits" | "faults">>(name: K): TrafficPolicy[K] | null {
    const from = this.#policies.find((policy) => policy[name] !== null);
    if (from === undefined) return null;
    this.#note(name, name, from);
    return from[name];
  }

  /** Lists add up: a limit for the whole service holds for each of its ports too. */
  list<T>(name: string, read: (policy: TrafficPolicy) => readonly T[]): readonly T[] {
    const from = this.#policies.filter((policy) => read(policy).length > 0);
    for (const policy of from) this.#note(name, name, policy);
    return from.flatMap(read);
  }

  /** Reads parts of a nested record, each from the most specific one that says it. */
  parts<T extends object>(name: string, read: (policy: TrafficPolicy) => T | null): <K extends keyof T & string>(part: K) => NonNullable<T[K]> | null {
    return (part) => {
      for (const policy of this.#policies) {
        const value = read(policy)?.[part];
        if (value === null || value === undefined) continue;
        this.#note(`${name}.${part}`, name, policy);
        return value;
      }
      return null;
    };
  }

  #note(path: string, field: string, policy: TrafficPolicy): void {
    const from = policy.provenance[field];
    if (from !== undefined && !this.provenance.has(path)) this.provenance.set(path, from);
  }
}
