// Token buckets that read the clock only when they run dry, so that a healthy connection never asks for the time.

import type { RateLimit } from "./limits.ts";

export class TokenBucket {
  private tokens: number;
  private filledAtMs: number;
  private readonly limit: RateLimit;
  private readonly nowMs: () => number;

  constructor(limit: RateLimit, nowMs: () => number, startMs: number) {
    this.limit = limit;
    this.nowMs = nowMs;
    this.tokens = limit.burst;
    this.filledAtMs = startMs;
  }

  /** Takes one token. False: the limit is exceeded. */
  take(): boolean {
    if (this.tokens >= 1) {
      this.tokens -= 1;
      return true;
    }
    const now = this.nowMs();
    const earned = ((now - this.filledAtMs) / 1000) * this.limit.perSecond;
    if (earned > 0) {
      this.filledAtMs = now;
      this.tokens = Math.min(this.limit.burst, this.tokens + earned);
    }
    if (this.tokens < 1) return false;
    this.tokens -= 1;
    return true;
  }

  /** Adds tokens that the peer earned by something we did; capped at the burst. */
  earn(tokens: number): void {
    const sum = this.tokens + tokens;
    this.tokens = sum > this.limit.burst ? this.limit.burst : sum;
  }
}
