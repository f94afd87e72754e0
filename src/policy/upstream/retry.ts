// Whether an attempt that ended is made again, when, and why not. The answer to most requests is no, by the first test; the conditions
// are those of the policy, the bounds are ours: never after bytes of an answer, never past the deadline, never beyond the budget.

import type { Random } from "../../core/ports.ts";
import type { RetryPolicy } from "../../mesh/l7/route.ts";
import { RETRY_AFTER_MAX_MS } from "./defaults.ts";
import { NO_RETRY_AFTER, RETRY_NEVER_AGAIN } from "./retry-after.ts";
import type { RetryBudgetState } from "./retry-budget.ts";

/** How an attempt ended. */
export type AttemptEnd =
  /** `grpcStatus` null when it is not gRPC or not known yet; `retryAfterMs` as in retry-after.ts. */
  | { readonly kind: "answer"; readonly status: number; readonly grpcStatus: number | null; readonly retryAfterMs: number }
  /** No connection could be made: nothing was sent. `elsewhereOnly`: this endpoint would answer the same again. */
  | { readonly kind: "connectFailure"; readonly elsewhereOnly: boolean }
  /** The peer says that it has not looked at the request. */
  | { readonly kind: "refused" }
  /** Reset or closed before an answer; the peer may have acted on the request. */
  | { readonly kind: "reset" }
  /** The attempt's own timeout; the request's has not passed. */
  | { readonly kind: "timeout" };

export interface RetryRequest {
  readonly policy: RetryPolicy;
  /** Attempts made, the one that ended included; at least 1. */
  readonly attempts: number;
  /** GET, HEAD, OPTIONS, TRACE, PUT, DELETE. */
  readonly isIdempotent: boolean;
  /** All of the body is at hand, or it has none. */
  readonly isReplayable: boolean;
  /** Something of the answer has gone to the client. */
  readonly answerBegun: boolean;
  /** An endpoint is left that was not tried. */
  readonly otherEndpoint: boolean;
  /** The end was injected by a fault policy. */
  readonly isInjected: boolean;
  /** Infinity without a deadline. */
  readonly remainingMs: number;
}

export type RetryCause = "status" | "grpcStatus" | "connectFailure" | "refused" | "reset" | "timeout";

export type GiveUpReason =
  /** The answer is one, or the policy does not name its kind. */
  | "notRetriable"
  | "injectedFault"
  | "answerBegun"
  | "attemptsExhausted"
  | "notIdempotent"
  /** The endpoint will not take it, and there is no other. */
  | "noOtherEndpoint"
  | "bodyNotReplayable"
  /** The server asked not to be called again, */
  | "serverForbids"
  /** or later than we keep a request for. */
  | "retryAfterTooLong"
  | "noTimeLeft"
  | "budgetExhausted";

export type RetryDecision =
  | { readonly retry: true; readonly cause: RetryCause; readonly delayMs: number }
  | { readonly retry: false; readonly reason: GiveUpReason };

const giveUp = (reason: GiveUpReason): RetryDecision => Object.freeze({ retry: false, reason });
const NOT_RETRIABLE = giveUp("notRetriable");
const INJECTED_FAULT = giveUp("injectedFault");
const ANSWER_BEGUN = giveUp("answerBegun");
const ATTEMPTS_EXHAUSTED = giveUp("attemptsExhausted");
const NOT_IDEMPOTENT = giveUp("notIdempotent");
const NO_OTHER_ENDPOINT = giveUp("noOtherEndpoint");
const BODY_NOT_REPLAYABLE = giveUp("bodyNotReplayable");
const SERVER_FORBIDS = giveUp("serverForbids");
const RETRY_AFTER_TOO_LONG = giveUp("retryAfterTooLong");
const NO_TIME_LEFT = giveUp("noTimeLeft");
const BUDGET_EXHAUSTED = giveUp("budgetExhausted");

/** Decides, and takes a retry out of the budget when the answer is yes. */
export function decideRetry(end: AttemptEnd, request: RetryRequest, budget: RetryBudgetState, nowMs: number, random: Random): RetryDecision {
  const { policy } = request;
  const cause = causeOf(end, policy);
  if (cause === null || policy.attempts === 0) return NOT_RETRIABLE;
  if (request.isInjected) return INJECTED_FAULT;
  if (request.answerBegun) return ANSWER_BEGUN;
  if (request.attempts > policy.attempts) return ATTEMPTS_EXHAUSTED;
  if (!isSafe(cause, request)) return NOT_IDEMPOTENT;
  if (end.kind === "connectFailure" && end.elsewhereOnly && !request.otherEndpoint) return NO_OTHER_ENDPOINT;
  if (!request.isReplayable) return BODY_NOT_REPLAYABLE;
  const askedMs = end.kind === "answer" ? end.retryAfterMs : NO_RETRY_AFTER;
  if (askedMs === RETRY_NEVER_AGAIN) return SERVER_FORBIDS;
  if (askedMs > RETRY_AFTER_MAX_MS) return RETRY_AFTER_TOO_LONG;
  const delayMs = Math.max(0, askedMs) + backoffMs(request.attempts, policy, random);
  if (delayMs >= request.remainingMs) return NO_TIME_LEFT;
  if (!budget.tryRetry(nowMs)) return BUDGET_EXHAUSTED;
  return { retry: true, cause, delayMs };
}

/** The condition of the policy that the end meets; null for none. */
function causeOf(end: AttemptEnd, policy: RetryPolicy): RetryCause | null {
  switch (end.kind) {
    case "answer":
      if (end.grpcStatus !== null && end.grpcStatus !== 0 && policy.grpcStatuses.includes(end.grpcStatus)) return "grpcStatus";
      return end.status >= 400 && policy.statuses.includes(end.status) ? "status" : null;
    case "connectFailure": return policy.onConnectFailure ? "connectFailure" : null;
    case "refused": return policy.onRefusedStream ? "refused" : null;
    case "reset": return policy.onReset ? "reset" : null;
    // What a proxy between would have answered with 504.
    case "timeout": return policy.onReset || policy.statuses.includes(504) ? "timeout" : null;
    default: return end satisfies never;
  }
}

/** What was not looked at can be sent again; so can what the client calls idempotent. gRPC has POST only: there the status named decides. */
function isSafe(cause: RetryCause, request: RetryRequest): boolean {
  return request.isIdempotent || request.policy.nonIdempotent || cause === "connectFailure" || cause === "refused" || cause === "grpcStatus";
}

/** Full jitter over a doubling bound: any time between 0 and the bound, so that clients which failed together do not return together. */
export function backoffMs(attempts: number, policy: RetryPolicy, random: Random): number {
  const boundMs = Math.min(policy.backoffBaseMs * 2 ** Math.min(attempts - 1, 30), policy.backoffMaxMs);
  return boundMs * random.next();
}
