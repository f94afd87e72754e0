// How many retries a service can bear: a share of its requests, and a few whatever the share. One budget for each service and port keeps a
// failing backend from being asked several times as often as when it was well.

import type { RetryBudget } from "../../mesh/l7/traffic-policy.ts";

/** Steps in which an interval moves on. */
const BUCKETS = 10;

export interface BudgetCounts {
  readonly requests: number;
  readonly retries: number;
  /** Retries that may be made with as many requests, by their share alone. */
  readonly allowed: number;
}

/** What is under way at the moment. */
export interface UnderWay {
  requests(): number;
  retries(): number;
}

const NOTHING: UnderWay = { requests: () => 0, retries: () => 0 };

export class RetryBudgetState {
  readonly #underWay: UnderWay;
  #budget: RetryBudget;
  #requests = new SlidingCount(1);
  #retries = new SlidingCount(1);
  /** Retries, over the interval of those that are allowed whatever the share. */
  #recent = new SlidingCount(1);

  constructor(budget: RetryBudget, underWay: UnderWay = NOTHING) {
    this.#underWay = underWay;
    this.#budget = budget;
    this.reconfigure(budget);
  }

  /** What was counted is kept, unless it was counted over another interval. */
  reconfigure(budget: RetryBudget): void {
    this.#budget = budget;
    if (budget.kind === "underWay") return;
    this.#requests = this.#requests.over(budget.intervalMs);
    this.#retries = this.#retries.over(budget.intervalMs);
    this.#recent = this.#recent.over(budget.retriesMinPerMs);
  }

  /** A request comes in; its retries are not counted here. */
  request(nowMs: number): void {
    this.#requests.add(nowMs);
  }

  /** Takes one retry out of the budget; false when there is none. */
  tryRetry(nowMs: number): boolean {
    const { retries, allowed } = this.counts(nowMs);
    const { retriesMin } = this.#budget;
    const least = this.#budget.kind === "underWay" ? retries < retriesMin : this.#recent.count(nowMs) < retriesMin;
    if (!least && retries + 1 > allowed) return false;
    this.#retries.add(nowMs);
    this.#recent.add(nowMs);
    return true;
  }

  counts(nowMs: number): BudgetCounts {
    const over = this.#budget.kind === "underWay";
    const requests = over ? this.#underWay.requests() : this.#requests.count(nowMs);
    return { requests, retries: over ? this.#underWay.retries() : this.#retries.count(nowMs), allowed: Math.floor(requests * this.#budget.fraction) };
  }
}

/** How often something happened in the last interval, to a tenth of it. */
class SlidingCount {
  readonly #intervalMs: number;
  readonly #bucketMs: number;
  readonly #buckets = new Int32Array(BUCKETS);
  #sum = 0;
  #at = 0;
  #bucketEndsMs = -Infinity;

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
    this.#bucketMs = Math.max(1, intervalMs / BUCKETS);
  }

  /** Itself, or an empty one over another interval. */
  over(intervalMs: number): SlidingCount {
    return intervalMs === this.#intervalMs ? this : new SlidingCount(intervalMs);
  }

  add(nowMs: number): void {
    if (nowMs >= this.#bucketEndsMs) this.#advance(nowMs);
    this.#buckets[this.#at]!++;
    this.#sum++;
  }

  count(nowMs: number): number {
    if (nowMs >= this.#bucketEndsMs) this.#advance(nowMs);
    return this.#sum;
  }

  #advance(nowMs: number): void {
    const steps = this.#bucketEndsMs === -Infinity ? BUCKETS : Math.min(BUCKETS, Math.floor((nowMs - this.#bucketEndsMs) / this.#bucketMs) + 1);
    for (let i = 0; i < steps; i++) {
      this.#at = this.#at + 1 === BUCKETS ? 0 : this.#at + 1;
      this.#sum -= this.#buckets[this.#at]!;
      this.#buckets[this.#at] = 0;
    }
    this.#bucketEndsMs = steps === BUCKETS ? nowMs + this.#bucketMs : this.#bucketEndsMs + steps * this.#bucketMs;
  }
}
