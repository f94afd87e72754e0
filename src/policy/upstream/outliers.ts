// Passive ejection of endpoints by what their answers say: failures in a row, by kind, and success rates far below those of their
// siblings. Counts are integers; time, randomness and the share that may be out come in. One good request brings an endpoint back.
//
//              a detector fires, share allows              time over, one request
//   healthy ───────────────────────────────────▶ ejected ─────────────────────▶ probing
//      ▲                                            ▲                            │  │
//      │                                            └───────── it failed ────────┘  │
//      └──────────────────────────────────────────────────── it succeeded ──────────┘

import type { Random } from "../../core/ports.ts";
import { ejectionMs } from "../ejection.ts";
import { EJECTION_FORGIVEN_INTERVALS, EJECTION_JITTER, PROBE_MS } from "./defaults.ts";
import { isFailure, type Outcome } from "./outcome.ts";
import type { OutlierSettings } from "./settings.ts";

export type EjectionReason = "consecutive5xx" | "consecutiveGatewayErrors" | "consecutiveConnectFailures" | "successRate" | "probeFailed";

/** What is counted for one endpoint. */
export class OutlierState {
  kind: "healthy" | "ejected" | "probing" = "healthy";
  /** Ejected: when a probe may be sent. Probing: when the probe is given up. */
  untilMs = 0;
  /** Former ejections in the same trouble; forgotten after a calm time. */
  ejections = 0;
  reason: EjectionReason | null = null;
  errors = 0;
  gatewayErrors = 0;
  connectFailures = 0;
  /** In this interval. */
  requests = 0;
  successes = 0;
  /** Intervals since the last failure or ejection, bounded. */
  calmIntervals = 0;
}

/**
 * Counts one outcome of an endpoint that is healthy. Returns the detector that fires, or null; it fires again at each further failure
 * until `eject` is called, so that an endpoint which had to wait for its share is not forgotten.
 */
export function observe(state: OutlierState, outcome: Outcome, settings: OutlierSettings): EjectionReason | null {
  if (outcome === "neutral" || outcome === "abandoned") return null;
  state.requests++;
  if (!isFailure(outcome)) {
    state.successes++;
    state.errors = state.gatewayErrors = state.connectFailures = 0;
    return null;
  }
  state.calmIntervals = 0;
  if (outcome !== "connectFailure" || !settings.splitConnectFailures) {
    state.errors++;
    if (outcome === "serverError") state.gatewayErrors = 0;
    else state.gatewayErrors++;
  }
  if (outcome === "connectFailure") state.connectFailures++;
  else state.connectFailures = 0;
  if (fires(state.connectFailures, settings.consecutiveConnectFailures)) return "consecutiveConnectFailures";
  if (fires(state.gatewayErrors, settings.consecutiveGatewayErrors)) return "consecutiveGatewayErrors";
  if (fires(state.errors, settings.consecutive5xx)) return "consecutive5xx";
  return null;
}

function fires(count: number, threshold: number): boolean {
  return threshold > 0 && count >= threshold;
}

export function eject(state: OutlierState, reason: EjectionReason, nowMs: number, random: Random, settings: OutlierSettings): void {
  state.kind = "ejected";
  state.reason = reason;
  state.untilMs = nowMs + ejectionMs(state.ejections, random, { baseEjectionMs: settings.baseEjectionMs, ejectionMaxMs: settings.ejectionMaxMs, jitter: EJECTION_JITTER });
  state.ejections++;
  clearCounts(state);
}

/** One request is about to be sent to an ejected endpoint whose time is over. */
export function beginProbe(state: OutlierState, nowMs: number): void {
  state.kind = "probing";
  state.untilMs = nowMs + PROBE_MS;
}

/** What the probe said. Returns true when the endpoint is back in service. */
export function endProbe(state: OutlierState, outcome: Outcome, nowMs: number, random: Random, settings: OutlierSettings): boolean {
  if (outcome === "neutral" || outcome === "abandoned" || outcome === "overloaded") {
    // It says nothing; the next request may find out.
    state.kind = "ejected";
    state.untilMs = nowMs;
    return false;
  }
  if (outcome === "success") {
    restore(state);
    return true;
  }
  eject(state, "probeFailed", nowMs, random, settings);
  return false;
}

/** Back in service, e.g. because a health check proves it well. Former ejections are remembered. */
export function restore(state: OutlierState): void {
  state.kind = "healthy";
  state.reason = null;
  state.untilMs = 0;
  clearCounts(state);
}

function clearCounts(state: OutlierState): void {
  state.errors = state.gatewayErrors = state.connectFailures = 0;
  state.requests = state.successes = 0;
  state.calmIntervals = 0;
}

/** Ends an interval: counts start afresh, and long calm forgives former ejections. */
export function endInterval(state: OutlierState): void {
  state.requests = state.successes = 0;
  if (state.kind !== "healthy" || state.ejections === 0) return;
  if (++state.calmIntervals < EJECTION_FORGIVEN_INTERVALS) return;
  state.calmIntervals = 0;
  state.ejections--;
}

export interface SuccessRates {
  /** Endpoints with enough requests in the interval to be judged. */
  readonly judged: number;
  readonly mean: number;
  readonly stdev: number;
  /** Rates below are outliers; -1 when too few endpoints could be judged. */
  readonly threshold: number;
}

/** The rate below which an endpoint is an outlier in this interval: mean less `stdevFactor` standard deviations. */
export function successRates(states: readonly OutlierState[], settings: OutlierSettings): SuccessRates {
  const { successRate } = settings;
  if (successRate === null) return { judged: 0, mean: 0, stdev: 0, threshold: -1 };
  let judged = 0;
  let sum = 0;
  let squares = 0;
  for (const state of states) {
    if (!isJudged(state, settings)) continue;
    const rate = state.successes / state.requests;
    judged++;
    sum += rate;
    squares += rate * rate;
  }
  if (judged === 0 || judged < successRate.hostsMin) return { judged, mean: judged === 0 ? 0 : sum / judged, stdev: 0, threshold: -1 };
  const mean = sum / judged;
  const stdev = Math.sqrt(Math.max(0, squares / judged - mean * mean));
  return { judged, mean, stdev, threshold: mean - successRate.stdevFactor * stdev };
}

/** True when `state` had enough requests, and its rate is below the threshold. */
export function isSuccessRateOutlier(state: OutlierState, rates: SuccessRates, settings: OutlierSettings): boolean {
  return rates.threshold >= 0 && isJudged(state, settings) && state.successes / state.requests < rates.threshold;
}

function isJudged(state: OutlierState, { successRate }: OutlierSettings): boolean {
  return successRate !== null && state.kind === "healthy" && state.requests > 0 && state.requests >= successRate.requestsMin;
}
