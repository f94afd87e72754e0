// How many retries a service can bear: a share of the requests of the last interval, and a few whatever the share. One budget for each
// service and port keeps a failing backend from being asked several times as often as when it was well.

import type { RetryBudget } from "../../mesh/l7/traffic-policy.ts";

/** Steps in which the interval moves on. */
const BUCKETS = 10;

export interface BudgetCounts {
  /** Over the last interval. */
  readonly requests: number;
  readonly retries: number;
  /** Retries that may be made in an interval with as many requests. */
  readonly allowed: number;
}

export class RetryBudgetState {
  #fraction = 0;
  #retriesMin = 0;
  #bucketMs = 0;
  readonly #requests = new Int32Array(BUCKETS);
  readonly #retries = new Int32Array(BUCKETS);
  #requestsSum = 0;
  #retriesSum = 0;
  #at = 0;
  #bucketEndsMs = -Infinity;

  constructor(budget: RetryBudget) {
    this.reconfigure(budget);
  }

  /** What was counted is kept, unless it was counted over another interval. */
  reconfigure({ fraction, retriesMin, intervalMs }: RetryBudget): void {
    this.#fraction = fraction;
    this.#retriesMin = retriesMin;
    const bucketMs = Math.max(1, intervalMs / BUCKETS);
    if (bucketMs !== this.#bucketMs) this.#bucketEndsMs = -Infinity;
    this.#bucketMs = bucketMs;
  }

  /** A request comes in; its retries are not counted here. */
  request(nowMs: number): void {
    if (nowMs >= this.#bucketEndsMs) this.#advance(nowMs);
    this.#requests[this.#at]!++;
    this.#requestsSum++;
  }

  /** Takes one retry out of the budget; false when there is none. */
  tryRetry(nowMs: number): boolean {
    if (nowMs >= this.#bucketEndsMs) this.#advance(nowMs);
    if (this.#retriesSum + 1 > this.#allowed()) return false;
    this.#retries[this.#at]!++;
    this.#retriesSum++;
    return true;
  }

  counts(nowMs: number): BudgetCounts {
    if (nowMs >= this.#bucketEndsMs) this.#advance(nowMs);
    return { requests: this.#requestsSum, retries: this.#retriesSum, allowed: Math.floor(this.#allowed()) };
  }

  #allowed(): number {
    return Math.max(this.#retriesMin, this.#requestsSum * this.#fraction);
  }

  #advance(nowMs: number): void {
    const steps = this.#bucketEndsMs === -Infinity ? BUCKETS : Math.min(BUCKETS, Math.floor((nowMs - this.#bucketEndsMs) / this.#bucketMs) + 1);
    for (let i = 0; i < steps; i++) {
      this.#at = this.#at + 1 === BUCKETS ? 0 : this.#at + 1;
      this.#requestsSum -= this.#requests[this.#at]!;
      this.#retriesSum -= this.#retries[this.#at]!;
      this.#requests[this.#at] = this.#retries[this.#at] = 0;
    }
    this.#bucketEndsMs = steps === BUCKETS ? nowMs + this.#bucketMs : this.#bucketEndsMs + steps * this.#bucketMs;
  }
}
