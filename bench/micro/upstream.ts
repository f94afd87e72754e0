// What the decisions about upstreams cost, without sockets: nanoseconds per pick of each balancing at 3, 100 and 1 000 endpoints (the
// attempt begun, settled and ended with it), per retry decision, and per rate-limit decision. `bun bench/micro/upstream.ts`.
// Compare only runs of the same machine.

import { seededRandom } from "../../src/core/ports.ts";
import type { Balancing, LocalRateLimit } from "../../src/mesh/l7/traffic-policy.ts";
import { AdaptiveLimit, Admission } from "../../src/policy/upstream/adaptive-concurrency.ts";
import { Attempt } from "../../src/policy/upstream/attempt.ts";
import { hashText } from "../../src/policy/upstream/balancers/hash.ts";
import { CircuitBreaker, Permits } from "../../src/policy/upstream/circuit-breaker.ts";
import { LocalRateLimiter } from "../../src/policy/upstream/rate-limit/local.ts";
import { type AttemptEnd, decideRetry, type RetryRequest } from "../../src/policy/upstream/retry.ts";
import { RetryBudgetState } from "../../src/policy/upstream/retry-budget.ts";
import { NO_RETRY_AFTER } from "../../src/policy/upstream/retry-after.ts";
import { DEFAULT_SETTINGS, endpoints, requestFacts, UpstreamFixture } from "../../test/kit/upstreams.ts";

const ROUND_MS = 40;
const ROUNDS = 15;
const SIZES = [3, 100, 1_000];
const KEYS = 4_096;

/** Nanoseconds per call, the best of rounds: whatever else runs on the machine only adds. */
function nsPer(call: (i: number) => unknown): number {
  let i = 0;
  const rounds: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const started = performance.now();
    let calls = 0;
    do {
      for (let k = 0; k < 256; k++) if (call(i++) === undefined) throw new Error("nothing decided");
      calls += 256;
    } while (performance.now() - started < ROUND_MS);
    if (round > 0) rounds.push(((performance.now() - started) * 1e6) / calls);
  }
  return Math.min(...rounds);
}

function row(name: string, ...values: readonly string[]): void {
  console.log(name.padEnd(40) + values.map((value) => value.padStart(12)).join(""));
}
const ns = (value: number): string => `${value.toFixed(0)} ns`;

const hashes = Array.from({ length: KEYS }, (_, i) => hashText(`198.18.${i >> 8}.${i & 255}`));

function pickRow(name: string, balancing: Balancing, options: { readonly weighted?: boolean; readonly begin?: boolean } = {}): void {
  row(name, ...SIZES.map((size) => {
    const f = new UpstreamFixture(endpoints(size, (i) => ({ capacity: options.weighted === true ? (i % 5) + 1 : 1 })), { settings: { balancing } });
    f.upstream.maintain();
    const request = { nowMs: 0, hash: 0, tried: [], sticky: null, mayProbe: true };
    const attempt = new Attempt();
    return ns(nsPer((i) => {
      request.nowMs = i * 0.05;
      request.hash = hashes[i & (KEYS - 1)]!;
      const pick = f.upstream.pick(request);
      if (options.begin !== true) return pick;
      attempt.start(f.upstream, pick, request.nowMs);
      attempt.settle("success", request.nowMs + 1 + (i & 7));
      attempt.end(request.nowMs + 1 + (i & 7));
      return pick;
    }));
  }));
}

row("a pick among endpoints", ...SIZES.map(String));
pickRow("peak-EWMA", { kind: "peakEwma" });
pickRow("peak-EWMA, and the whole attempt", { kind: "peakEwma" }, { begin: true });
pickRow("peak-EWMA by weight, and the attempt", { kind: "peakEwma" }, { begin: true, weighted: true });
pickRow("least request", { kind: "leastRequest" });
pickRow("round robin", { kind: "roundRobin" });
pickRow("round robin by weight", { kind: "roundRobin" }, { weighted: true });
pickRow("random", { kind: "random" });
pickRow("random by weight", { kind: "random" }, { weighted: true });
pickRow("ring hash", { kind: "ringHash", key: { kind: "sourceIp" }, ringSizeMin: 1024 });
pickRow("Maglev", { kind: "maglev", key: { kind: "sourceIp" }, tableSize: 65_537 });

function buildRow(name: string, balancing: Balancing): void {
  row(name, ...SIZES.map((size) => {
    const started = performance.now();
    const f = new UpstreamFixture(endpoints(size), { settings: { balancing } });
    const built = performance.now();
    f.upstream.maintain();
    return `${(performance.now() - built).toFixed(1)} of ${(performance.now() - started).toFixed(1)}`;
  }));
}
console.log();
row("a table in ms, of ms for all", ...SIZES.map(String));
buildRow("ring hash", { kind: "ringHash", key: { kind: "sourceIp" }, ringSizeMin: 1024 });
buildRow("Maglev", { kind: "maglev", key: { kind: "sourceIp" }, tableSize: 65_537 });

const random = seededRandom(1);
const budget = new RetryBudgetState({ kind: "overTime", fraction: 1, intervalMs: 10_000, retriesMin: 1e9, retriesMinPerMs: 10_000 });
const retryRequest: RetryRequest = { policy: { ...DEFAULT_SETTINGS.retry, statuses: [503] }, attempts: 1, isIdempotent: true, isReplayable: true, answerBegun: false, isInjected: false, otherEndpoint: true, remainingMs: 1e9 };
const good: AttemptEnd = { kind: "answer", status: 200, grpcStatus: null, retryAfterMs: NO_RETRY_AFTER };
const bad: AttemptEnd = { kind: "answer", status: 503, grpcStatus: null, retryAfterMs: NO_RETRY_AFTER };
console.log();
row("a decision", "");
row("no retry (a good answer)", ns(nsPer(() => decideRetry(good, retryRequest, budget, 0, random))));
row("a retry", ns(nsPer((i) => decideRetry(bad, retryRequest, budget, i * 0.05, random))));

const limit = (fields: Partial<LocalRateLimit>): LocalRateLimit => ({ name: "l", requests: 1e9, perMs: 1000, burst: 1e9, keys: [], matches: [], fieldPath: "", ...fields });
const requests = hashes.map((_, i) => requestFacts({ headers: { "x-user": `user-${i}` }, identity: `spiffe://cluster.local/ns/shop/sa/account-${i}` }));
function limitRow(name: string, ...limits: readonly LocalRateLimit[]): void {
  const limiter = new LocalRateLimiter(limits, () => () => true);
  row(name, ns(nsPer((i) => limiter.decide(requests[i & (KEYS - 1)]!, i * 0.05))));
}
limitRow("a rate limit", limit({}));
limitRow("a rate limit that refuses", limit({ requests: 1, burst: 1 }));
limitRow("a rate limit by identity (4 096 keys)", limit({ keys: [{ kind: "identity" }] }));
limitRow("three rate limits, two of them keyed", limit({}), limit({ keys: [{ kind: "identity" }] }), limit({ keys: [{ kind: "header", name: "x-user" }] }));
const flooded = new LocalRateLimiter([limit({ keys: [{ kind: "header", name: "x-user" }] })], () => () => true);
row("a rate limit under a flood of new keys", ns(nsPer((i) => flooded.decide({ ...requests[0]!, header: () => `flood-${i}` }, i * 0.05))));

const breaker = new CircuitBreaker(DEFAULT_SETTINGS.limits);
const permits = new Permits(breaker);
row("circuit breaking, taken and given back", ns(nsPer(() => {
  permits.acquire("activeRequests");
  permits.release("activeRequests");
  return permits;
})));
const adaptive = new AdaptiveLimit({ limitMin: 10, limitMax: 1000, priorityHeader: null, priorities: [] });
const admission = new Admission();
row("adaptive concurrency, in and out", ns(nsPer((i) => {
  admission.enter(adaptive, 0, i * 0.05);
  admission.leave("answered", i * 0.05 + 10);
  return admission;
})));
