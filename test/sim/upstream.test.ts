// Many requests through a waypoint's decisions at servers that slow down, fail, refuse and restart, in simulated time. What must hold
// whatever happens; and that the default balancing is better than round robin where it claims to be. A failing seed is printed.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Random, seededRandom } from "../../src/core/ports.ts";
import { Attempt } from "../../src/policy/upstream/attempt.ts";
import type { UpstreamEndpoint } from "../../src/policy/upstream/endpoint.ts";
import type { Outcome } from "../../src/policy/upstream/outcome.ts";
import { type AttemptEnd, decideRetry } from "../../src/policy/upstream/retry.ts";
import { NO_RETRY_AFTER } from "../../src/policy/upstream/retry-after.ts";
import { RetryBudgetState } from "../../src/policy/upstream/retry-budget.ts";
import { RETRY_BUDGET_DEFAULT } from "../../src/policy/upstream/settings.ts";
import type { UpstreamSettings } from "../../src/policy/upstream/settings.ts";
import { EventQueue } from "../kit/event-queue.ts";
import { type ServerAnswer, type ServerModel, SimulatedServer } from "../kit/simulated-server.ts";
import { DEFAULT_SETTINGS, endpoint, endpoints, UpstreamFixture } from "../kit/upstreams.ts";

const SEEDS = [1, 2, 3];
/** A run is some hundred thousand requests, maybe on a machine that is busy with others. */
setDefaultTimeout(60_000);
const RETRYING: UpstreamSettings["retry"] = { ...DEFAULT_SETTINGS.retry, attempts: 3, statuses: [500, 503], onReset: true };
const OUTLIERS: UpstreamSettings["outliers"] = { ...DEFAULT_SETTINGS.outliers, consecutive5xx: 5, ejectedShareMax: 0.4 };

interface SimulationOptions {
  readonly seed: number;
  readonly servers: number;
  readonly requestsPerMs: number;
  readonly settings?: Partial<UpstreamSettings>;
  readonly model?: (i: number) => Partial<ServerModel>;
}

interface Totals {
  requests: number;
  attempts: number;
  failed: number;
  open: number;
  ejectedMax: number;
}

class Simulation {
  readonly events = new EventQueue();
  readonly random: Random;
  readonly fixture: UpstreamFixture;
  readonly servers = new Map<string, SimulatedServer>();
  readonly budget: RetryBudgetState;
  totals: Totals = { requests: 0, attempts: 0, failed: 0, open: 0, ejectedMax: 0 };
  latencies: number[] = [];
  ratePerMs: number;

  constructor(options: SimulationOptions) {
    this.random = seededRandom(options.seed);
    this.ratePerMs = options.requestsPerMs;
    this.fixture = new UpstreamFixture(endpoints(options.servers), { seed: options.seed * 7919, settings: { retry: RETRYING, outliers: OUTLIERS, ...options.settings } });
    this.budget = new RetryBudgetState(this.fixture.upstream.settings.retryBudget);
    for (let i = 0; i < options.servers; i++) this.addServer(`e${i}`, options.model?.(i) ?? {});
    this.#arrive();
    this.#tick();
  }

  addServer(name: string, model: Partial<ServerModel>): SimulatedServer {
    const server = new SimulatedServer(this.events, this.random, model);
    this.servers.set(name, server);
    return server;
  }

  server(name: string): SimulatedServer {
    return this.servers.get(name)!;
  }

  run(ms: number): void {
    this.events.runUntil(this.events.nowMs + ms);
  }

  /** Forgets what was counted, so that a phase can be judged alone. */
  restartCounts(): void {
    this.totals = { ...this.totals, requests: 0, attempts: 0, failed: 0, ejectedMax: 0 };
    this.latencies = [];
    for (const server of this.servers.values()) server.received = 0;
  }

  percentile(share: number): number {
    const sorted = this.latencies.sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
  }

  #arrive(): void {
    this.events.after(-Math.log(1 - this.random.next()) / this.ratePerMs, () => {
      this.#arrive();
      this.totals.requests++;
      this.totals.open++;
      this.budget.request(this.events.nowMs);
      this.#attempt(this.events.nowMs, []);
    });
  }

  #tick(): void {
    const due = this.fixture.upstream.tick(this.events.nowMs);
    this.events.at(Math.max(due, this.events.nowMs + 1), () => this.#tick());
  }

  #attempt(startedMs: number, tried: readonly UpstreamEndpoint[]): void {
    this.fixture.nowMs = this.events.nowMs;
    const attempt = new Attempt();
    const at = attempt.start(this.fixture.upstream, this.fixture.pick({ tried, mayProbe: true }), this.events.nowMs);
    this.totals.attempts++;
    const counts = this.fixture.upstream.counts();
    this.totals.ejectedMax = Math.max(this.totals.ejectedMax, counts.ejected / counts.endpoints);
    this.server(at.target.workload.uid).request((answer) => {
      attempt.settle(OUTCOMES[answer], this.events.nowMs);
      attempt.end(this.events.nowMs);
      this.#answered(answer, startedMs, [...tried, at]);
    });
  }

  #answered(answer: ServerAnswer, startedMs: number, tried: readonly UpstreamEndpoint[]): void {
    const nowMs = this.events.nowMs;
    const decision = decideRetry(ENDS[answer], {
      policy: this.fixture.upstream.settings.retry, attempts: tried.length, isIdempotent: true, isReplayable: true, answerBegun: false, isInjected: false, otherEndpoint: true, remainingMs: Infinity,
    }, this.budget, nowMs, this.random);
    if (decision.retry) {
      this.events.after(decision.delayMs, () => this.#attempt(startedMs, tried));
      return;
    }
    this.totals.open--;
    this.latencies.push(nowMs - startedMs);
    if (answer !== "ok") this.totals.failed++;
  }
}

const OUTCOMES: Readonly<Record<ServerAnswer, Outcome>> = { ok: "success", error: "serverError", overloaded: "gatewayError", refused: "connectFailure" };
const ENDS: Readonly<Record<ServerAnswer, AttemptEnd>> = {
  ok: { kind: "answer", status: 200, grpcStatus: null, retryAfterMs: NO_RETRY_AFTER }, error: { kind: "answer", status: 500, grpcStatus: null, retryAfterMs: NO_RETRY_AFTER },
  overloaded: { kind: "answer", status: 503, grpcStatus: null, retryAfterMs: NO_RETRY_AFTER }, refused: { kind: "connectFailure", elsewhereOnly: false },
};

describe.each(SEEDS)("seed %i", (seed) => {
  test("peak-EWMA has a far better p99 than round robin when one server is slow, and uses the slow one little", () => {
    const measure = (kind: "peakEwma" | "roundRobin" | "leastRequest") => {
      const s = new Simulation({ seed, servers: 8, requestsPerMs: 2, settings: { balancing: { kind } }, model: (i) => ({ workers: 8, serviceMs: i === 3 ? 100 : 10 }) });
      s.run(10_000);
      s.restartCounts();
      s.run(20_000);
      return { p50: s.percentile(0.5), p99: s.percentile(0.99), slowShare: s.server("e3").received / s.totals.attempts };
    };
    const ewma = measure("peakEwma");
    const robin = measure("roundRobin");
    const least = measure("leastRequest");
    expect(ewma.p99).toBeLessThan(robin.p99 / 3);
    expect(ewma.p99).toBeLessThan(least.p99 / 1.5);
    expect(ewma.p50).toBeLessThan(robin.p50 * 1.2);
    expect(ewma.slowShare).toBeLessThan(0.03);
    expect(robin.slowShare).toBeGreaterThan(0.12);
  });

  test.each(["peakEwma", "leastRequest", "roundRobin", "random"] as const)("%s: no server is starved, none gets much more than its share", (kind) => {
    const s = new Simulation({ seed, servers: 10, requestsPerMs: 4, settings: { balancing: { kind } } });
    s.run(20_000);
    for (const server of s.servers.values()) {
      const share = server.received / s.totals.attempts;
      expect(share).toBeGreaterThan(0.05);
      expect(share).toBeLessThan(0.2);
    }
  });

  test("servers that fail, refuse, slow down and restart: ejected share and retries stay within limits, and all come back", () => {
    const s = new Simulation({ seed, servers: 10, requestsPerMs: 2, model: () => ({ queueMax: 200 }) });
    const chaos = seededRandom(seed + 1000);
    for (let round = 0; round < 60; round++) {
      const { model } = s.server(`e${Math.floor(chaos.next() * 10)}`);
      const what = chaos.next();
      if (what < 0.25) model.isDown = true;
      else if (what < 0.5) model.errorRate = chaos.next();
      else if (what < 0.7) model.serviceMs = 10 + chaos.next() * 200;
      else Object.assign(model, { isDown: false, errorRate: 0, serviceMs: 10 });
      s.run(500 + chaos.next() * 2000);
    }
    expect(s.totals.ejectedMax).toBeLessThanOrEqual(OUTLIERS.ejectedShareMax);
    expect(s.totals.ejectedMax).toBeGreaterThan(0);
    const { fraction, intervalMs, retriesMin } = RETRY_BUDGET_DEFAULT;
    const retries = s.totals.attempts - s.totals.requests;
    expect(retries).toBeGreaterThan(0);
    expect(retries).toBeLessThanOrEqual(s.totals.requests * fraction * 1.1 + retriesMin * (s.events.nowMs / intervalMs));
    for (const server of s.servers.values()) Object.assign(server.model, { isDown: false, errorRate: 0, serviceMs: 10 });
    // Long enough for the longest ejection to end, and for what was seen to fade.
    s.ratePerMs = 0.1;
    s.run(400_000);
    s.ratePerMs = 2;
    s.run(10_000);
    s.restartCounts();
    s.run(10_000);
    expect([s.fixture.upstream.counts().ejected, s.totals.failed]).toEqual([0, 0]);
    for (const server of s.servers.values()) expect(server.received / s.totals.attempts).toBeGreaterThan(0.05);
    // Nothing leaks: what is under way is what is open, and no more.
    s.ratePerMs = 1e-9;
    s.run(5_000);
    expect([s.totals.open, s.fixture.upstream.counts().activeRequests]).toEqual([0, 0]);
    expect(s.fixture.upstream.endpoints.every(({ active, awaiting }) => active === 0 && awaiting === 0)).toBe(true);
  });

  test("when everything fails, retries add no more than the budget: there is no storm", () => {
    const s = new Simulation({ seed, servers: 5, requestsPerMs: 5, model: () => ({ errorRate: 1 }), settings: { outliers: { ...OUTLIERS, consecutive5xx: 0 } } });
    s.run(10_000);
    s.restartCounts();
    s.run(30_000);
    expect(s.totals.attempts / s.totals.requests).toBeLessThan(1.22);
    expect(s.totals.attempts / s.totals.requests).toBeGreaterThan(1.15);
  });

  test("a server that refuses is out within milliseconds, and clients notice nothing", () => {
    const s = new Simulation({ seed, servers: 6, requestsPerMs: 2 });
    s.run(5_000);
    s.restartCounts();
    s.server("e2").model.isDown = true;
    s.run(5_000);
    expect(s.totals.failed).toBe(0);
    // Three to be sure of, and those that were on their way.
    expect(s.server("e2").received).toBeLessThan(12);
  });

  test("a server that answers fast with errors is not the favourite", () => {
    // The other five can take 2 requests per ms.
    const s = new Simulation({ seed, servers: 6, requestsPerMs: 1.2, settings: { outliers: { ...OUTLIERS, consecutive5xx: 0 } }, model: (i) => (i === 0 ? { serviceMs: 0.2, errorRate: 1 } : { serviceMs: 20 }) });
    s.run(5_000);
    s.restartCounts();
    s.run(10_000);
    expect(s.server("e0").received / s.totals.attempts).toBeLessThan(0.05);
  });

  test("a new server takes part at once, and is not flooded", () => {
    const s = new Simulation({ seed, servers: 5, requestsPerMs: 3 });
    s.run(10_000);
    s.restartCounts();
    s.addServer("new", {});
    s.fixture.nowMs = s.events.nowMs;
    s.fixture.add(endpoint("new"));
    s.run(500);
    const early = s.server("new").received / s.totals.attempts;
    expect(early).toBeGreaterThan(0.05);
    expect(early).toBeLessThan(0.4);
  });

  test("the same seed gives the same run", () => {
    const trace = (): readonly number[] => {
      const s = new Simulation({ seed, servers: 4, requestsPerMs: 1, model: (i) => ({ errorRate: i / 10 }) });
      s.run(3_000);
      return [s.totals.attempts, s.totals.failed, ...s.latencies];
    };
    expect(trace()).toEqual(trace());
  });
});
