import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { EventQueue } from "../../../test/kit/event-queue.ts";
import { SimulatedServer } from "../../../test/kit/simulated-server.ts";
import { seededRandom } from "../../core/ports.ts";
import { Admission, AdaptiveLimit, explainShed } from "./adaptive-concurrency.ts";
import { CONCURRENCY_INITIAL, LOWEST_PRIORITY_SHARE } from "./defaults.ts";

/** A run is some hundred thousand requests, maybe on a machine that is busy with others. */
setDefaultTimeout(60_000);

const SETTINGS = { limitMin: 2, limitMax: 1000, priorityHeader: null, priorities: [] };

/** An open stream of requests at a server, each admitted by the limit or shed. */
class Load {
  readonly events = new EventQueue();
  readonly random = seededRandom(5);
  readonly server: SimulatedServer;
  readonly limit: AdaptiveLimit;
  shed: number[] = [0, 0, 0];
  offered: number[] = [0, 0, 0];
  latencies: number[] = [];
  ratePerMs: number;
  readonly #classes: number;

  constructor(workers: number, serviceMs: number, ratePerMs: number, classes = 1) {
    this.server = new SimulatedServer(this.events, this.random, { workers, serviceMs });
    this.limit = new AdaptiveLimit({ ...SETTINGS, priorities: ["gold", "silver", "batch"].slice(0, classes === 1 ? 0 : classes) });
    this.ratePerMs = ratePerMs;
    this.#classes = classes;
    this.#arrive();
  }

  /** Runs on, and returns requests served per ms, mean limit and mean latency in that time. */
  run(ms: number): { readonly servedPerMs: number; readonly limit: number; readonly latencyMs: number } {
    const before = this.server.served;
    this.latencies = [];
    this.shed = [0, 0, 0];
    this.offered = [0, 0, 0];
    let sum = 0;
    const until = this.events.nowMs + ms;
    for (let i = 0; i < 100; i++) {
      this.events.runUntil(until - ms + (ms * (i + 1)) / 100);
      sum += this.limit.limit;
    }
    return { servedPerMs: (this.server.served - before) / ms, limit: sum / 100, latencyMs: this.latencies.reduce((a, b) => a + b, 0) / Math.max(1, this.latencies.length) };
  }

  #arrive(): void {
    this.events.after(-Math.log(1 - this.random.next()) / this.ratePerMs, () => {
      this.#arrive();
      const priority = Math.floor(this.random.next() * this.#classes);
      this.offered[priority]!++;
      const admission = new Admission();
      if (admission.enter(this.limit, priority, this.events.nowMs) !== null) {
        this.shed[priority]!++;
        return;
      }
      const started = this.events.nowMs;
      this.server.request(() => {
        this.latencies.push(this.events.nowMs - started);
        admission.leave("answered", this.events.nowMs);
      });
    });
  }
}

describe("adaptive concurrency", () => {
  test.each([[4, 10], [40, 10], [200, 25]])("finds the capacity of a server with %i workers: nearly all of its throughput, a short queue", (workers, serviceMs) => {
    const capacity = workers / serviceMs;
    const load = new Load(workers, serviceMs, capacity * 2);
    load.run(20_000);
    const { servedPerMs, limit, latencyMs } = load.run(30_000);
    expect(servedPerMs / capacity).toBeGreaterThan(0.9);
    expect(limit).toBeGreaterThan(workers * 0.9);
    expect(limit).toBeLessThan(workers * 2.2 + 4);
    expect(latencyMs).toBeLessThan(serviceMs * 2.5);
  });

  test("without it the same load waits a thousand times as long", () => {
    const load = new Load(4, 10, 0.8);
    Object.assign(load.limit, { enter: () => null });
    load.run(60_000);
    expect(load.run(10_000).latencyMs).toBeGreaterThan(1000);
  });

  test("falls when the server loses workers, and comes back when it has them again", () => {
    const load = new Load(64, 10, 12);
    load.run(20_000);
    load.server.model.workers = 8;
    load.run(5_000);
    const small = load.run(10_000);
    expect(small.limit).toBeLessThan(30);
    expect(small.servedPerMs / 0.8).toBeGreaterThan(0.9);
    load.server.model.workers = 64;
    load.run(20_000);
    expect(load.run(10_000).servedPerMs / 6.4).toBeGreaterThan(0.9);
  });

  test("comes back when all answers have become slower for good: the base is measured again", () => {
    const load = new Load(40, 10, 8);
    load.run(20_000);
    load.server.model.serviceMs = 40;
    load.run(60_000);
    const { servedPerMs, limit } = load.run(20_000);
    expect(servedPerMs / 1).toBeGreaterThan(0.9);
    expect(limit).toBeGreaterThan(36);
  });

  test("does not grow on a service that is idle", () => {
    const load = new Load(40, 10, 0.2);
    load.run(30_000);
    expect(load.limit.limit).toBeLessThanOrEqual(CONCURRENCY_INITIAL);
    expect(load.shed[0]).toBe(0);
  });

  test("sheds the lowest class first", () => {
    const load = new Load(40, 10, 8, 3);
    load.run(20_000);
    load.run(20_000);
    const shares = load.shed.map((shed, i) => shed / load.offered[i]!);
    expect(shares[2]!).toBeGreaterThan(shares[1]! + 0.1);
    expect(shares[1]!).toBeGreaterThan(shares[0]! + 0.1);
    expect(shares[0]!).toBeLessThan(0.15);
  });

  test("timed-out requests lower it; ignored ones say nothing; never below its least", () => {
    const limit = new AdaptiveLimit(SETTINGS);
    const cycle = (end: "answered" | "timedOut" | "ignored", latencyMs: number, from: number): number => {
      let nowMs = from;
      for (let i = 0; i < 60; i++) {
        const admission = new Admission();
        expect(admission.enter(limit, 0, nowMs)).toBeNull();
        nowMs += latencyMs;
        admission.leave(end, nowMs);
        admission.leave("timedOut", nowMs);
      }
      return nowMs;
    };
    let now = cycle("answered", 10, 0);
    const before = limit.limit;
    now = cycle("ignored", 10, now);
    expect(limit.limit).toBe(before);
    now = cycle("timedOut", 10, now);
    expect(limit.limit).toBeLessThan(before);
    for (let i = 0; i < 40; i++) now = cycle("timedOut", 10, now);
    expect([limit.limit, limit.inFlight]).toEqual([SETTINGS.limitMin, 0]);
  });

  test("one place per request; a class by its header", () => {
    const limit = new AdaptiveLimit({ ...SETTINGS, limitMin: 4, limitMax: 4, priorities: ["gold", "batch"] });
    expect([limit.classOf("gold"), limit.classOf("batch"), limit.classOf("odd"), limit.classOf(null)]).toEqual([0, 1, 1, 1]);
    const held = Array.from({ length: 4 * LOWEST_PRIORITY_SHARE }, () => new Admission());
    for (const admission of held) expect(admission.enter(limit, 1, 0)).toBeNull();
    const refusal = new Admission().enter(limit, 1, 0)!;
    expect(explainShed(refusal)).toBe('2 requests under way, which is what the service takes at present (for priority "batch")');
    expect(new Admission().enter(limit, 0, 0)).toBeNull();
    expect(() => held[0]!.enter(limit, 0, 0)).toThrow("twice");
  });
});
