// Latency of endpoints as a decaying average that jumps at peaks: up at once, down slowly. An endpoint that owes an answer is known
// to be slow before it answers, and one that fails fast is not taken for a fast one: what counts is the time to an answer that is one.

import {
  FAILURE_WEIGHT, LATENCY_DECAY_MS, LATENCY_FLOOR_MS, LATENCY_INITIAL_MS, PENALTY_FACTOR, SILENCE_FACTOR_MAX,
} from "../defaults.ts";
import type { UpstreamEndpoint } from "../endpoint.ts";

/** One observation raises the estimate to this multiple at most: a single pause of a collector is not a trend, three slow answers are. */
const PEAK_RISE_MAX = 4;
/** Weight of one answer in the mean over all endpoints. */
const MEAN_SHARE = 1 / 64;

/** Latencies of all endpoints of one upstream. */
export class LatencyBook {
  /** Mean over the answers of all endpoints: what is expected of one that is not known. */
  meanMs = LATENCY_INITIAL_MS;
  #observed = false;

  /** An answer arrived (its head), or the attempt failed. */
  observe(endpoint: UpstreamEndpoint, latencyMs: number, failed: boolean, nowMs: number): void {
    if (!failed) this.#observeMean(latencyMs);
    const ageMs = nowMs - endpoint.observedMs;
    if (failed || endpoint.failureShare > 0) {
      const before = endpoint.failureShare * Math.exp(-ageMs / LATENCY_DECAY_MS);
      endpoint.failureShare = before + (Number(failed) - before) * FAILURE_WEIGHT;
    }
    // How fast it fails says nothing of how fast it would answer.
    const seenMs = failed ? Math.max(latencyMs, this.meanMs) : latencyMs;
    const before = endpoint.latencyMs;
    if (before === 0) endpoint.latencyMs = Math.max(seenMs, LATENCY_FLOOR_MS);
    else if (seenMs >= before) endpoint.latencyMs = Math.min(seenMs, before * PEAK_RISE_MAX);
    else endpoint.latencyMs = Math.max(seenMs + (before - seenMs) * Math.exp(-ageMs / LATENCY_DECAY_MS), LATENCY_FLOOR_MS);
    endpoint.observedMs = nowMs;
  }

  /** No answer came in this time, and none is awaited any more: slow at least so much. */
  observeSilence(endpoint: UpstreamEndpoint, silentMs: number, nowMs: number): void {
    if (silentMs > (endpoint.latencyMs === 0 ? this.meanMs : endpoint.latencyMs)) this.observe(endpoint, silentMs, false, nowMs);
  }

  /** What a further request would cost there: expected latency times the requests that would share the endpoint, by weight. */
  cost(endpoint: UpstreamEndpoint, nowMs: number): number {
    const { meanMs } = this;
    let latencyMs = endpoint.latencyMs;
    if (latencyMs === 0) latencyMs = meanMs;
    else if (endpoint.awaiting === 0) {
      // Nothing new for a while: what was seen fades towards what is seen of the others.
      const ageMs = nowMs - endpoint.observedMs;
      if (ageMs > LATENCY_DECAY_MS / 16) latencyMs = meanMs + (latencyMs - meanMs) * Math.exp(-ageMs / LATENCY_DECAY_MS);
    }
    if (latencyMs < LATENCY_FLOOR_MS) latencyMs = LATENCY_FLOOR_MS;
    if (endpoint.awaiting > 0) {
      const silentMs = nowMs - endpoint.silentSinceMs;
      if (silentMs > latencyMs) latencyMs = Math.min(silentMs, latencyMs * SILENCE_FACTOR_MAX);
    }
    let cost = (latencyMs * (endpoint.active + 1)) / endpoint.weight;
    if (endpoint.failureShare > 0) {
      const failureShare = endpoint.failureShare * Math.exp((endpoint.observedMs - nowMs) / LATENCY_DECAY_MS);
      cost /= Math.max(1 - failureShare, 1 / PENALTY_FACTOR);
    }
    return nowMs < endpoint.avoidUntilMs ? cost * PENALTY_FACTOR : cost;
  }

  #observeMean(latencyMs: number): void {
    this.meanMs = this.#observed ? this.meanMs + (latencyMs - this.meanMs) * MEAN_SHARE : latencyMs;
    this.#observed = true;
  }
}
