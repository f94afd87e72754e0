// One attempt of a request at one endpoint, from the pick to its end: the handle that its counts hang on. Whatever happens, each step
// counts once, and disposing of it gives back what is still held.

import type { UpstreamEndpoint } from "./endpoint.ts";
import type { Outcome } from "./outcome.ts";
import type { Pick } from "./pick.ts";
import type { Upstream } from "./upstream.ts";

/** May be used again once it has ended; a request that retries one after the other needs a single one. */
export class Attempt {
  #upstream: Upstream | null = null;
  #endpoint: UpstreamEndpoint | null = null;
  #isSettled = true;
  #startedMs = 0;
  readonly #settled: { outcome: Outcome; latencyMs: number; retryAfterMs: number; isProbe: boolean } = { outcome: "neutral", latencyMs: 0, retryAfterMs: -1, isProbe: false };

  /** Null before it starts and after it has ended. */
  get endpoint(): UpstreamEndpoint | null {
    return this.#endpoint;
  }

  /** Starts at what was picked. Throws when it is still under way, or nothing was picked: both are broken callers. */
  start(upstream: Upstream, pick: Pick, nowMs: number): UpstreamEndpoint {
    const { endpoint } = pick;
    if (this.#endpoint !== null) throw new Error("an attempt that is under way was started again");
    if (endpoint === null) throw new Error(`an attempt was started without an endpoint (${pick.reason})`);
    this.#upstream = upstream;
    this.#endpoint = endpoint;
    this.#isSettled = false;
    this.#startedMs = nowMs;
    this.#settled.isProbe = pick.reason === "probe";
    upstream.begin(endpoint, nowMs);
    return endpoint;
  }

  /**
   * The head of an answer came, or it is clear that none will. Only the first call counts.
   * @param retryAfterMs of a 429 or 503 answer; -1 for none
   */
  settle(outcome: Outcome, nowMs: number, retryAfterMs = -1): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const settled = this.#settled;
    settled.outcome = outcome;
    settled.latencyMs = nowMs - this.#startedMs;
    settled.retryAfterMs = retryAfterMs;
    this.#upstream!.settle(this.#endpoint!, settled, nowMs);
  }

  /** The last byte is through, or the attempt was cut. One that was never settled was abandoned. */
  end(nowMs: number): void {
    if (this.#endpoint === null) return;
    this.settle("abandoned", nowMs);
    this.#upstream!.end(this.#endpoint);
    this.#upstream = this.#endpoint = null;
  }
}
