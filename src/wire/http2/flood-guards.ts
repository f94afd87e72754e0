// How often a peer may do what costs us more than it: one token bucket for each such thing, made when it first happens. So a connection
// of which nothing is wrong has two of them and not eleven.

import type { FatalCounter } from "./errors.ts";
import type { Http2Limits, RateLimit } from "./limits.ts";
import { TokenBucket } from "./rate-limit.ts";

type RateLimits = { readonly [K in keyof Http2Limits as Http2Limits[K] extends RateLimit ? K : never]: Http2Limits[K] };
export type FloodGuard = keyof RateLimits;

/** The counter of the connection's end by each. */
export const FLOOD_COUNTERS: { readonly [K in FloodGuard]: FatalCounter } = {
  prematureResets: "resetFloods",
  peerResets: "resetFloods",
  inducedResets: "inducedResetFloods",
  refusedStreams: "refusedStreamFloods",
  settingsFrames: "settingsFloods",
  pings: "pingFloods",
  emptyFrames: "emptyFrameFloods",
  windowUpdates: "windowUpdateFloods",
  priorities: "priorityFloods",
  unknownFrames: "unknownFrameFloods",
  goaways: "goawayFloods",
};

export class FloodGuards {
  private readonly limits: RateLimits;
  private readonly nowMs: () => number;
  private readonly buckets: { [K in FloodGuard]?: TokenBucket } = {};

  /** @param nowMs monotonic; asked when a bucket is made and when one runs dry. */
  constructor(limits: RateLimits, nowMs: () => number) {
    this.limits = limits;
    this.nowMs = nowMs;
  }

  /** False: it happened too often. */
  take(guard: FloodGuard): boolean {
    return (this.buckets[guard] ??= new TokenBucket(this.limits[guard], this.nowMs, this.nowMs())).take();
  }

  /** The peer earned that it may happen `tokens` times more, up to the burst: which is where a bucket begins. */
  earn(guard: FloodGuard, tokens: number): void {
    this.buckets[guard]?.earn(tokens);
  }
}
