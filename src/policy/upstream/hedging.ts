// Hedging: when the answer to an idempotent request is late, another endpoint is asked the same, and the first answer wins. Hedges
// come out of the retry budget, so that slowness does not turn into load.

import type { Hedging } from "../../mesh/l7/traffic-policy.ts";
import { HEDGE_ATTEMPTS_MAX } from "./defaults.ts";
import type { RetryBudgetState } from "./retry-budget.ts";

export interface HedgeRequest {
  readonly hedging: Hedging | null;
  readonly isIdempotent: boolean;
  readonly isReplayable: boolean;
  /** Head of an answer came. */
  readonly isAnswered: boolean;
  /** Attempts begun, retries included. */
  readonly attempts: number;
  /** Endpoints that could be asked; a hedge goes to another one. */
  readonly usableEndpoints: number;
  readonly lastAttemptMs: number;
  readonly deadlineMs: number;
}

export type NoHedgeReason = "off" | "notIdempotent" | "bodyNotReplayable" | "answered" | "attemptsExhausted" | "noOtherEndpoint" | "noTimeLeft" | "budgetExhausted";

export type HedgeDecision =
  | { readonly kind: "now" }
  /** Ask again then. */
  | { readonly kind: "wait"; readonly untilMs: number }
  | { readonly kind: "never"; readonly reason: NoHedgeReason };

const NOW: HedgeDecision = Object.freeze({ kind: "now" });
const never = (reason: NoHedgeReason): HedgeDecision => Object.freeze({ kind: "never", reason });
const OFF = never("off");
const NOT_IDEMPOTENT = never("notIdempotent");
const BODY_NOT_REPLAYABLE = never("bodyNotReplayable");
const ANSWERED = never("answered");
const ATTEMPTS_EXHAUSTED = never("attemptsExhausted");
const NO_OTHER_ENDPOINT = never("noOtherEndpoint");
const NO_TIME_LEFT = never("noTimeLeft");
const BUDGET_EXHAUSTED = never("budgetExhausted");

/** Decides, and takes one retry out of the budget when the answer is `now`. */
export function decideHedge(request: HedgeRequest, budget: RetryBudgetState, nowMs: number): HedgeDecision {
  const { hedging } = request;
  if (hedging === null) return OFF;
  if (!request.isIdempotent) return NOT_IDEMPOTENT;
  if (!request.isReplayable) return BODY_NOT_REPLAYABLE;
  if (request.isAnswered) return ANSWERED;
  if (request.attempts >= Math.min(hedging.attemptsMax, HEDGE_ATTEMPTS_MAX)) return ATTEMPTS_EXHAUSTED;
  if (request.usableEndpoints <= request.attempts) return NO_OTHER_ENDPOINT;
  const atMs = request.lastAttemptMs + hedging.afterMs;
  if (atMs >= request.deadlineMs) return NO_TIME_LEFT;
  if (nowMs < atMs) return { kind: "wait", untilMs: atMs };
  return budget.tryRetry(nowMs) ? NOW : BUDGET_EXHAUSTED;
}
