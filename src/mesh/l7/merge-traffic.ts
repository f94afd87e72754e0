// Several traffic policies that hold for the same requests, as one: the more specific wins field by field. Inside limits, ejection
// and timeouts each value is a field of its own; rate limits and faults add up. Defaults are not known here.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { TrafficPolicy } from "./traffic-policy.ts";

/** What part of a service's traffic is asked about. */
export interface TrafficScope {
  readonly port: number | null;
  readonly subset: string | null;
  readonly clientNamespace: string | null;
}

export function emptyTrafficPolicy(service: NamespacedName): TrafficPolicy {
  return {
    service, port: null, subset: null, clientNamespace: null, balancing: null, locality: null, slowStartMs: null, limits: null, outliers: null, healthCheck: null,
    localRateLimits: [], globalRateLimits: [], adaptiveConcurrency: null, hedging: null, retry: null, retryBudget: null, timeouts: null, sessionPersistence: null,
    tls: null, dynamicHosts: null, faults: [], provenance: {},
  };
}

/** Policies that hold for `scope`, the least specific first: by client namespace, then by subset, then by port. */
export function policiesFor(policies: readonly TrafficPolicy[], scope: TrafficScope): TrafficPolicy[] {
  return policies
    .filter((p) => (p.port === null || p.port === scope.port) && (p.subset === null || p.subset.name === scope.subset) && (p.clientNamespace === null || p.clientNamespace === scope.clientNamespace))
    .sort((a, b) => specificity(a) - specificity(b));
}

const specificity = (p: TrafficPolicy): number => (p.clientNamespace === null ? 0 : 4) + (p.subset === null ? 0 : 2) + (p.port === null ? 0 : 1);

/** @param policies the least specific first; of one service. */
export function mergeTrafficPolicies(policies: readonly TrafficPolicy[]): TrafficPolicy | null {
  const [first, ...others] = policies;
  return first === undefined ? null : others.reduce(overlay, first);
}

function overlay(below: TrafficPolicy, above: TrafficPolicy): TrafficPolicy {
  return {
    service: below.service,
    port: above.port ?? below.port,
    subset: above.subset ?? below.subset,
    clientNamespace: above.clientNamespace ?? below.clientNamespace,
    balancing: above.balancing ?? below.balancing,
    locality: above.locality ?? below.locality,
    slowStartMs: above.slowStartMs ?? below.slowStartMs,
    limits: fieldByField(below.limits, above.limits),
    outliers: fieldByField(below.outliers, above.outliers),
    healthCheck: above.healthCheck ?? below.healthCheck,
    localRateLimits: [...below.localRateLimits, ...above.localRateLimits],
    globalRateLimits: [...below.globalRateLimits, ...above.globalRateLimits],
    adaptiveConcurrency: above.adaptiveConcurrency ?? below.adaptiveConcurrency,
    hedging: above.hedging ?? below.hedging,
    retry: above.retry ?? below.retry,
    retryBudget: above.retryBudget ?? below.retryBudget,
    timeouts: fieldByField(below.timeouts, above.timeouts),
    sessionPersistence: above.sessionPersistence ?? below.sessionPersistence,
    tls: above.tls ?? below.tls,
    dynamicHosts: above.dynamicHosts ?? below.dynamicHosts,
    faults: [...below.faults, ...above.faults],
    provenance: mergeProvenance(below.provenance, above.provenance),
  };
}

/** The record whose null fields are filled from the one below. */
export function fieldByField<T extends object>(below: T | null, above: T | null): T | null {
  if (below === null || above === null) return above ?? below;
  const merged = { ...below };
  for (const key in above) if (above[key] !== null) merged[key] = above[key];
  return merged;
}

function mergeProvenance(below: Readonly<Record<string, Provenance>>, above: Readonly<Record<string, Provenance>>): Readonly<Record<string, Provenance>> {
  return { ...below, ...above };
}
