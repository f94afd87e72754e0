// Rate limits counted in this process: token buckets in the form of GCRA, one number for each bucket. A bucket that is full again is
// the same as none, so that forgetting it loses nothing; how many are remembered is bounded.

import type { LocalRateLimit } from "../../../mesh/l7/traffic-policy.ts";
import type { RequestFacts } from "../request-facts.ts";
import { Buckets } from "./buckets.ts";
import type { RateLimitState } from "./headers.ts";
import { bucketKey } from "./keys.ts";

/** Sums of fractions of a millisecond are not exact: a token that is due is not refused for a rounding error. */
const ROUNDING_MS = 1e-6;
const NOT_APPLIED = -1;

/** Borrowed: valid until the next decision. */
export interface LocalRateLimitVerdict {
  readonly allowed: boolean;
  /** The limit that refuses, or the one that is nearest to refusing; null when none applies. */
  readonly limit: LocalRateLimit | null;
  /** Of `limit`. */
  readonly state: RateLimitState;
}

/** Whether a limit applies to a request at all: its `matches`, compiled by whoever compiles routes. */
export type AppliesTo<R> = (request: R) => boolean;

/** The local limits of one service and port. */
export class LocalRateLimiter<R extends RequestFacts> {
  readonly #limits: readonly CompiledLimit<R>[];
  /** Buckets of the decision at hand, by limit; NOT_APPLIED where the limit does not apply. */
  readonly #touched: Int32Array;
  readonly #state: { -readonly [K in keyof RateLimitState]: RateLimitState[K] } = { name: "", quota: 0, windowMs: 0, remaining: 0, resetMs: 0, retryAfterMs: 0 };
  readonly #verdict: { allowed: boolean; limit: LocalRateLimit | null; state: RateLimitState } = { allowed: true, limit: null, state: this.#state };

  constructor(limits: readonly LocalRateLimit[], compileMatches: (limit: LocalRateLimit) => AppliesTo<R>) {
    this.#limits = limits.map((limit) => new CompiledLimit(limit, compileMatches(limit)));
    this.#touched = new Int32Array(limits.length);
  }

  /** Takes a token from every limit that applies, or from none when one of them refuses. */
  decide(request: R, nowMs: number): LocalRateLimitVerdict {
    const limits = this.#limits;
    let refusing: CompiledLimit<R> | null = null;
    let refusingAt = -1;
    for (let i = 0; i < limits.length; i++) {
      const limit = limits[i]!;
      const bucket = limit.applies(request) ? limit.bucketOf(request) : NOT_APPLIED;
      this.#touched[i] = bucket;
      if (bucket === NOT_APPLIED || limit.hasToken(bucket, nowMs)) continue;
      // Of several, the one that keeps the client waiting longest.
      if (refusing === null || limit.waitMs(bucket, nowMs) > refusing.waitMs(this.#touched[refusingAt]!, nowMs)) {
        refusing = limit;
        refusingAt = i;
      }
    }
    return refusing === null ? this.#allow(nowMs) : this.#tell(false, refusing, this.#touched[refusingAt]!, nowMs);
  }

  /** Buckets remembered, over all limits. */
  get bucketCount(): number {
    return this.#limits.reduce((sum, limit) => sum + limit.bucketCount, 0);
  }

  #allow(nowMs: number): LocalRateLimitVerdict {
    let nearest: CompiledLimit<R> | null = null;
    let nearestAt = -1;
    for (let i = 0; i < this.#limits.length; i++) {
      const bucket = this.#touched[i]!;
      if (bucket === NOT_APPLIED) continue;
      const limit = this.#limits[i]!;
      limit.take(bucket, nowMs);
      if (nearest === null || limit.remaining(bucket, nowMs) < nearest.remaining(this.#touched[nearestAt]!, nowMs)) {
        nearest = limit;
        nearestAt = i;
      }
    }
    if (nearest !== null) return this.#tell(true, nearest, this.#touched[nearestAt]!, nowMs);
    this.#verdict.allowed = true;
    this.#verdict.limit = null;
    return this.#verdict;
  }

  #tell(allowed: boolean, limit: CompiledLimit<R>, bucket: number, nowMs: number): LocalRateLimitVerdict {
    const state = this.#state;
    state.name = limit.limit.name;
    state.quota = limit.capacity;
    state.windowMs = limit.windowMs;
    state.remaining = limit.remaining(bucket, nowMs);
    state.resetMs = Math.max(0, limit.fullAtMs(bucket) - nowMs);
    state.retryAfterMs = allowed ? 0 : limit.waitMs(bucket, nowMs);
    this.#verdict.allowed = allowed;
    this.#verdict.limit = limit.limit;
    return this.#verdict;
  }
}

class CompiledLimit<R extends RequestFacts> {
  readonly limit: LocalRateLimit;
  readonly applies: AppliesTo<R>;
  /** Tokens in a full bucket. */
  readonly capacity: number;
  /** Time in which an empty bucket fills. */
  readonly windowMs: number;
  readonly #perTokenMs: number;
  readonly #buckets = new Buckets();
  /** The one bucket of a limit without keys; negative with keys. */
  readonly #shared: number;

  constructor(limit: LocalRateLimit, applies: AppliesTo<R>) {
    this.limit = limit;
    this.applies = applies;
    this.capacity = Math.max(1, Math.floor(limit.burst));
    this.#perTokenMs = limit.perMs / limit.requests;
    this.windowMs = this.capacity * this.#perTokenMs;
    this.#shared = limit.keys.length === 0 ? this.#buckets.placeOf("") : -1;
  }

  get bucketCount(): number {
    return this.#buckets.count;
  }

  bucketOf(request: R): number {
    return this.#shared >= 0 ? this.#shared : this.#buckets.placeOf(bucketKey(this.limit.keys, request));
  }

  fullAtMs(bucket: number): number {
    return this.#buckets.fullAtMs(bucket);
  }

  hasToken(bucket: number, nowMs: number): boolean {
    return this.fullAtMs(bucket) - nowMs <= this.windowMs - this.#perTokenMs + ROUNDING_MS;
  }

  take(bucket: number, nowMs: number): void {
    this.#buckets.setFullAtMs(bucket, Math.max(this.fullAtMs(bucket), nowMs) + this.#perTokenMs);
  }

  remaining(bucket: number, nowMs: number): number {
    const missingMs = Math.max(0, this.fullAtMs(bucket) - nowMs);
    return Math.max(0, Math.floor((this.windowMs - missingMs) / this.#perTokenMs + ROUNDING_MS));
  }

  waitMs(bucket: number, nowMs: number): number {
    return Math.max(0, this.fullAtMs(bucket) - nowMs - (this.windowMs - this.#perTokenMs));
  }
}
