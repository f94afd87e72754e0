import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { seededRandom } from "../../core/ports.ts";
import type { RetryPolicy } from "../../mesh/l7/route.ts";
import { RETRY_AFTER_MAX_MS } from "./defaults.ts";
import { formatGrpcTimeout, parseGrpcTimeout } from "./grpc-timeout.ts";
import { decideHedge, type HedgeRequest } from "./hedging.ts";
import { outcomeOfAnswer } from "./outcome.ts";
import { type AttemptEnd, backoffMs, decideRetry, type GiveUpReason, type RetryRequest } from "./retry.ts";
import { NO_RETRY_AFTER, parseGrpcPushback, parseRetryAfter, RETRY_NEVER_AGAIN } from "./retry-after.ts";
import { RetryBudgetState } from "./retry-budget.ts";
import { RETRY_DEFAULT } from "./settings.ts";
import { attemptTime, requestDeadline } from "./timeouts.ts";

const POLICY: RetryPolicy = { ...RETRY_DEFAULT, attempts: 3, statuses: [503, 429], onReset: true };
const REQUEST: RetryRequest = { policy: POLICY, attempts: 1, isIdempotent: true, isReplayable: true, answerBegun: false, isInjected: false, otherEndpoint: true, remainingMs: Infinity };
const half = { next: () => 0.5 };
const wide = (): RetryBudgetState => overTime(1, 10_000, 1000);
const answer = (status: number, grpcStatus: number | null = null, retryAfterMs = NO_RETRY_AFTER): AttemptEnd => ({ kind: "answer", status, grpcStatus, retryAfterMs });
const overTime = (fraction: number, intervalMs: number, retriesMin: number, retriesMinPerMs = intervalMs) => new RetryBudgetState({ kind: "overTime", fraction, intervalMs, retriesMin, retriesMinPerMs });
const decide = (end: AttemptEnd, request: Partial<RetryRequest> = {}, budget = wide()) => decideRetry(end, { ...REQUEST, ...request }, budget, 0, half);

describe("a retry", () => {
  test.each([
    [answer(503), "status"], [answer(200, 14), "grpcStatus"], [{ kind: "connectFailure", elsewhereOnly: false }, "connectFailure"], [{ kind: "connectFailure", elsewhereOnly: true }, "connectFailure"], [{ kind: "refused" }, "refused"], [{ kind: "reset" }, "reset"], [{ kind: "timeout" }, "timeout"],
  ] as const)("after %j: %s", (end, cause) => expect(decide(end)).toMatchObject({ retry: true, cause }));

  const refusals: readonly (readonly [string, AttemptEnd, Partial<RetryRequest>, GiveUpReason])[] = [
    ["a good answer", answer(200), {}, "notRetriable"],
    ["a status the policy does not name", answer(500), {}, "notRetriable"],
    ["gRPC success", answer(200, 0), { policy: { ...POLICY, grpcStatuses: [0] } }, "notRetriable"],
    ["a redirect, whatever the policy names", answer(302), { policy: { ...POLICY, statuses: [302, 200] } }, "notRetriable"],
    ["a reset, when only connect failures are named", { kind: "reset" }, { policy: RETRY_DEFAULT }, "notRetriable"],
    ["retries switched off", { kind: "connectFailure", elsewhereOnly: false }, { policy: { ...POLICY, attempts: 0 } }, "notRetriable"],
    ["an injected fault", answer(503), { isInjected: true }, "injectedFault"],
    ["bytes of an answer", { kind: "reset" }, { answerBegun: true }, "answerBegun"],
    ["the last attempt", answer(503), { attempts: 4 }, "attemptsExhausted"],
    ["a POST that may have been acted on", answer(503), { isIdempotent: false }, "notIdempotent"],
    ["an endpoint that will not take it, and no other", { kind: "connectFailure", elsewhereOnly: true }, { otherEndpoint: false }, "noOtherEndpoint"],
    ["a body that is gone", { kind: "refused" }, { isReplayable: false }, "bodyNotReplayable"],
    ["a gRPC pushback that forbids it", answer(200, 14, RETRY_NEVER_AGAIN), {}, "serverForbids"],
    ["a Retry-After beyond what we wait", answer(503, null, RETRY_AFTER_MAX_MS + 1), {}, "retryAfterTooLong"],
    ["a deadline that comes first", answer(503, null, 100), { remainingMs: 100 }, "noTimeLeft"],
  ];
  test.each(refusals)("not after %s", (_, end, request, reason) => expect(decide(end, request)).toEqual({ retry: false, reason }));

  test("of a POST when nothing was looked at, when the policy allows it, or by gRPC status", () => {
    for (const end of [{ kind: "connectFailure", elsewhereOnly: false }, { kind: "refused" }, answer(200, 14)] as const) expect(decide(end, { isIdempotent: false }).retry).toBe(true);
    expect(decide(answer(503), { isIdempotent: false, policy: { ...POLICY, nonIdempotent: true } }).retry).toBe(true);
  });

  test("waits as long as Retry-After says, and a jittered time more", () => {
    expect(decide(answer(503, null, 1000))).toEqual({ retry: true, cause: "status", delayMs: 1012.5 });
    expect(decide(answer(503))).toEqual({ retry: true, cause: "status", delayMs: 12.5 });
  });

  test("takes from the budget only when it is made", () => {
    const budget = overTime(0, 1000, 1);
    expect(decide(answer(503), { isReplayable: false }, budget).retry).toBe(false);
    expect(decide(answer(503), {}, budget).retry).toBe(true);
    expect(decide(answer(503), {}, budget)).toEqual({ retry: false, reason: "budgetExhausted" });
  });
});

describe("back-off", () => {
  test("doubles up to its bound", () => {
    const bounds = [1, 2, 3, 4, 5, 6, 1000].map((attempts) => backoffMs(attempts, POLICY, { next: () => 1 }));
    expect(bounds).toEqual([25, 50, 100, 200, 250, 250, 250]);
  });
  test("is spread over all of it", () => {
    const random = seededRandom(9);
    const times = Array.from({ length: 10_000 }, () => backoffMs(3, POLICY, random));
    expect(Math.abs(times.reduce((a, b) => a + b) / 10_000 - 50)).toBeLessThan(2);
    expect([Math.min(...times) < 1, Math.max(...times) > 99, Math.max(...times) < 100]).toEqual([true, true, true]);
  });
});

describe("the retry budget", () => {
  test("is a share of the requests of the interval, and a few in any case", () => {
    const budget = overTime(0.2, 10_000, 3);
    expect([1, 2, 3, 4].map(() => budget.tryRetry(0))).toEqual([true, true, true, false]);
    for (let i = 0; i < 50; i++) budget.request(100);
    expect(budget.counts(100)).toEqual({ requests: 50, retries: 3, allowed: 10 });
    expect(Array.from({ length: 10 }, () => budget.tryRetry(100)).filter(Boolean).length).toBe(7);
  });

  test("counts the few over an interval of their own: a rate is not a lump for the whole interval", () => {
    const budget = overTime(0, 10_000, 2, 1000);
    expect([1, 2, 3].map(() => budget.tryRetry(0))).toEqual([true, true, false]);
    expect(budget.tryRetry(900)).toBe(false);
    expect([1, 2, 3].map(() => budget.tryRetry(1100))).toEqual([true, true, false]);
    expect(budget.counts(1100).retries).toBe(4);
  });

  test("or is a share of what is under way", () => {
    let [requests, retries] = [0, 0];
    const budget = new RetryBudgetState({ kind: "underWay", fraction: 0.2, retriesMin: 1 }, { requests: () => requests, retries: () => retries });
    expect(budget.tryRetry(0)).toBe(true);
    retries = 1;
    expect(budget.tryRetry(0)).toBe(false);
    requests = 10;
    expect(budget.tryRetry(0)).toBe(true);
    retries = 2;
    expect(budget.tryRetry(0)).toBe(false);
  });

  test("forgets what is older than its interval", () => {
    const budget = overTime(0.5, 1000, 0);
    for (let i = 0; i < 10; i++) budget.request(0);
    expect(budget.counts(999)).toMatchObject({ requests: 10 });
    expect(budget.counts(1100)).toEqual({ requests: 0, retries: 0, allowed: 0 });
    expect(budget.tryRetry(5000)).toBe(false);
    budget.request(50_000);
    expect(budget.counts(50_000)).toMatchObject({ requests: 1 });
  });

  test("is not exceeded by any retry that it grants, whatever comes when", () => {
    const event = fc.record({ waitMs: fc.nat(400), requests: fc.nat(30), retries: fc.nat(30) });
    fc.assert(fc.property(fc.array(event, { maxLength: 200 }), (events) => {
      const budget = overTime(0.2, 1000, 2);
      const made: number[] = [];
      const asked: number[] = [];
      let nowMs = 0;
      for (const { waitMs, requests, retries } of events) {
        nowMs += waitMs;
        for (let i = 0; i < requests; i++) {
          budget.request(nowMs);
          asked.push(nowMs);
        }
        for (let i = 0; i < retries; i++) {
          if (!budget.tryRetry(nowMs)) continue;
          made.push(nowMs);
          // The window moves in steps of a tenth, so what it sees is at most 1 000 ms, at least 900.
          const recent = made.filter((at) => at > nowMs - 900).length;
          const known = asked.filter((at) => at > nowMs - 1000).length;
          expect(recent).toBeLessThanOrEqual(Math.max(2, known * 0.2));
        }
      }
    }), { numRuns: 200 });
  });
});

describe("timeouts", () => {
  const timeouts = { requestMs: 1000, backendRequestMs: 0, streamIdleMs: 0 };
  test("the client's own grpc-timeout can only shorten the deadline", () => {
    expect([requestDeadline(timeouts, null, 50), requestDeadline(timeouts, 300, 50), requestDeadline(timeouts, 3000, 50)]).toEqual([1050, 350, 1050]);
    expect([requestDeadline({ ...timeouts, requestMs: 0 }, null, 50), requestDeadline({ ...timeouts, requestMs: 0 }, 7, 50)]).toEqual([Infinity, 57]);
  });
  test("an attempt has the least of what is left, its own and the backend's", () => {
    expect(attemptTime({ deadlineMs: 1000, perTryTimeoutMs: 300, backendRequestMs: 500 }, 0)).toEqual({ kind: "time", ms: 300, limit: "perTry" });
    expect(attemptTime({ deadlineMs: 1000, perTryTimeoutMs: null, backendRequestMs: 500 }, 0)).toEqual({ kind: "time", ms: 500, limit: "backendRequest" });
    expect(attemptTime({ deadlineMs: 1000, perTryTimeoutMs: 300, backendRequestMs: 500 }, 900)).toEqual({ kind: "time", ms: 100, limit: "request" });
    expect(attemptTime({ deadlineMs: Infinity, perTryTimeoutMs: 0, backendRequestMs: 0 }, 900)).toEqual({ kind: "time", ms: Infinity, limit: "none" });
    expect(attemptTime({ deadlineMs: 900, perTryTimeoutMs: 0, backendRequestMs: 0 }, 900)).toEqual({ kind: "expired" });
  });
});

describe("grpc-timeout", () => {
  test.each([["1H", 3_600_000], ["2M", 120_000], ["3S", 3000], ["4m", 4], ["5u", 0.005], ["0m", 0], ["99999999m", 99_999_999]] as const)("%s is %d ms", (text, ms) => expect(parseGrpcTimeout(text)).toBeCloseTo(ms, 9));
  test.each(["", "m", "1", "1 m", " 1m", "1m ", "-1m", "+1m", "1.5S", "123456789m", "1ms", "1x", "1M\n", "0x1m", "1e3m"])("%j is none", (text) => expect(parseGrpcTimeout(text)).toBeNull());
  test("never adds time, and loses little", () => {
    fc.assert(fc.property(fc.double({ min: 0, max: 1e15, noNaN: true }), (ms) => {
      const text = formatGrpcTimeout(ms);
      expect(text).toMatch(/^[0-9]{1,8}[HMSmu]$/);
      const back = parseGrpcTimeout(text)!;
      expect(back).toBeLessThanOrEqual(ms * (1 + 1e-12));
      if (ms < 1e11) expect(ms - back).toBeLessThanOrEqual(Math.max(0.001, ms * 1e-3));
    }));
    expect([formatGrpcTimeout(Infinity), formatGrpcTimeout(1500), formatGrpcTimeout(-3)]).toEqual(["99999999H", "1500000u", "0u"]);
  });
});

describe("Retry-After", () => {
  const wallMs = Date.parse("Fri, 31 Dec 1999 23:59:00 GMT");
  test.each([
    ["120", 120_000], [" 0 ", 0], ["Fri, 31 Dec 1999 23:59:59 GMT", 59_000], ["Fri, 31 Dec 1999 23:58:59 GMT", 0], ["99999999999", Infinity],
    ["-1", NO_RETRY_AFTER], ["1.5", NO_RETRY_AFTER], ["", NO_RETRY_AFTER], ["soon", NO_RETRY_AFTER], ["1999-12-31", NO_RETRY_AFTER], ["Fri, 31 Foo 1999 23:59:59 GMT", NO_RETRY_AFTER], ["10, 20", NO_RETRY_AFTER],
  ] as const)("%j is %d ms", (text, ms) => expect(parseRetryAfter(text, wallMs)).toBe(ms));
  test("gRPC's pushback: a number, or never", () => expect(["250", "-1", "x", ""].map(parseGrpcPushback)).toEqual([250, RETRY_NEVER_AGAIN, RETRY_NEVER_AGAIN, RETRY_NEVER_AGAIN]));
});

describe("hedging", () => {
  const HEDGE: HedgeRequest = { hedging: { afterMs: 50, attemptsMax: 3 }, isIdempotent: true, isReplayable: true, isAnswered: false, attempts: 1, usableEndpoints: 5, lastAttemptMs: 1000, deadlineMs: Infinity };
  const decision = (request: Partial<HedgeRequest>, nowMs: number, budget = wide()) => decideHedge({ ...HEDGE, ...request }, budget, nowMs);
  test("comes when the answer is late, and not before", () => {
    expect(decision({}, 1049)).toEqual({ kind: "wait", untilMs: 1050 });
    expect(decision({}, 1050)).toEqual({ kind: "now" });
  });
  test.each([
    ["off", { hedging: null }], ["notIdempotent", { isIdempotent: false }], ["bodyNotReplayable", { isReplayable: false }], ["answered", { isAnswered: true }],
    ["attemptsExhausted", { attempts: 3 }], ["noOtherEndpoint", { usableEndpoints: 1 }], ["noTimeLeft", { deadlineMs: 1050 }],
  ] as const)("never: %s", (reason, request) => expect(decision(request, 1060)).toEqual({ kind: "never", reason }));
  test("never beyond the retry budget", () => expect(decision({}, 1060, overTime(0, 1000, 0))).toEqual({ kind: "never", reason: "budgetExhausted" }));
});

describe("what an answer says of the endpoint", () => {
  test.each([
    [200, null, "success"], [404, null, "success"], [429, null, "overloaded"], [500, null, "serverError"], [501, null, "serverError"], [502, null, "gatewayError"], [503, null, "gatewayError"], [504, null, "gatewayError"],
    [200, 0, "success"], [200, 5, "success"], [200, 8, "overloaded"], [200, 13, "serverError"], [200, 14, "gatewayError"], [200, 4, "gatewayError"], [200, 1, "success"], [200, 99, "serverError"], [503, 0, "gatewayError"],
  ] as const)("%i with gRPC status %p: %s", (status, grpc, outcome) => expect(outcomeOfAnswer(status, grpc, null)).toBe(outcome));
  test.each([
    [404, null, "serverError"], [429, null, "serverError"], [503, null, "gatewayError"], [500, null, "success"], [200, 5, "serverError"], [200, 13, "success"], [200, 14, "gatewayError"], [200, 0, "success"],
  ] as const)("where 404, 429 and 503 are named as errors: %i with gRPC status %p: %s", (status, grpc, outcome) => expect(outcomeOfAnswer(status, grpc, new Set([404, 429, 503]))).toBe(outcome));
});
