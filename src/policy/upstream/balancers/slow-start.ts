// Slow start: a new endpoint begins with a small share of its weight, which grows to the whole in a straight line, so that caches
// fill and code warms up before the full load comes.

import { SLOW_START_SHARE_MIN } from "../defaults.ts";
import type { UpstreamEndpoint } from "../endpoint.ts";

/** Share of its weight that an endpoint is given now: from SLOW_START_SHARE_MIN to 1. */
export function slowStartShare(endpoint: UpstreamEndpoint, nowMs: number, slowStartMs: number): number {
  const ageMs = nowMs - endpoint.sinceMs;
  return ageMs >= slowStartMs ? 1 : Math.max(SLOW_START_SHARE_MIN, ageMs / slowStartMs);
}
