import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { endpoint, endpoints, UpstreamFixture } from "../../../test/kit/upstreams.ts";
import { uid } from "../../../test/kit/mesh-records.ts";
import type { LocalityFailover } from "../../mesh/l7/traffic-policy.ts";
import { BASE_EJECTION_UNCONFIGURED_MS, EJECTION_JITTER, PROBE_GRACE_MS, PROBE_MS } from "./defaults.ts";
import { Attempt } from "./attempt.ts";
import type { Outcome } from "./outcome.ts";
import type { OutlierSettings } from "./settings.ts";
import { groupShares } from "./shares.ts";
import { DEFAULT_SETTINGS } from "../../../test/kit/upstreams.ts";

const OUTLIERS: OutlierSettings = { ...DEFAULT_SETTINGS.outliers, consecutive5xx: 5, consecutiveGatewayErrors: 3, baseEjectionMs: 10_000 };
const withOutliers = (count: number, outliers: Partial<OutlierSettings> = {}, seed = 7): UpstreamFixture =>
  new UpstreamFixture(endpoints(count), { settings: { balancing: { kind: "roundRobin" }, outliers: { ...OUTLIERS, ...outliers } }, seed });
const times = (f: UpstreamFixture, name: string, outcome: Outcome, count: number): void => {
  for (let i = 0; i < count; i++) f.request(name, outcome);
};
/** After the longest that a first ejection may last. */
const FIRST_EJECTION_MS = 10_000 * (1 + EJECTION_JITTER);

describe("ejection", () => {
  test.each([["connectFailure", 3], ["gatewayError", 3], ["serverError", 5]] as const)("by %s takes %i in a row", (outcome, count) => {
    const f = withOutliers(4);
    times(f, "e0", outcome, count - 1);
    f.request("e0", "success");
    times(f, "e0", outcome, count - 1);
    expect(f.of("e0").outlier.kind).toBe("healthy");
    f.request("e0", outcome);
    expect(f.of("e0").outlier.kind).toBe("ejected");
    expect(f.tally(60)["e0"]).toBeUndefined();
    const reason = ({ connectFailure: "consecutiveConnectFailures", gatewayError: "consecutiveGatewayErrors", serverError: "consecutive5xx" } as const)[outcome];
    expect(f.upstream.takeTransitions()).toEqual([{ endpoint: f.of("e0"), kind: "ejected", reason }]);
  });

  test("counts 500 among gateway errors as none, and gateway errors among 5xx", () => {
    const f = withOutliers(4);
    for (const outcome of ["gatewayError", "gatewayError", "serverError", "gatewayError"] as const) f.request("e0", outcome);
    expect(f.of("e0").outlier.kind).toBe("healthy");
    f.request("e0", "gatewayError");
    expect(f.of("e0").outlier.reason).toBe("consecutive5xx");
  });

  test("injected faults, clients that go away and 429 never count", () => {
    const f = withOutliers(4);
    for (const outcome of ["neutral", "abandoned", "overloaded"] as const) times(f, "e0", outcome, 50);
    expect(f.of("e0").outlier).toMatchObject({ kind: "healthy", errors: 0, gatewayErrors: 0, connectFailures: 0 });
    times(f, "e0", "serverError", 4);
    times(f, "e0", "neutral", 3);
    f.request("e0", "serverError");
    expect(f.of("e0").outlier.kind).toBe("ejected");
  });

  test("by success rate: one far below its siblings", () => {
    const f = withOutliers(6, { consecutive5xx: 0, consecutiveGatewayErrors: 0, successRate: { requestsMin: 50, hostsMin: 5, stdevFactor: 1.9 } });
    f.upstream.tick(0);
    for (let i = 0; i < 100; i++) for (let e = 0; e < 6; e++) f.request(`e${e}`, (e === 2 && i % 2 === 0) || i % 50 === 0 ? "serverError" : "success");
    expect(f.upstream.counts().ejected).toBe(0);
    f.nowMs = 10_000;
    f.upstream.tick(f.nowMs);
    expect(f.upstream.endpoints.filter((e) => e.outlier.kind === "ejected").map((e) => e.target.workload.uid)).toEqual([uid("e2")]);
    expect(f.of("e2").outlier.reason).toBe("successRate");
  });

  test("by success rate needs requests and siblings enough", () => {
    const few = { requestsMin: 50, hostsMin: 5, stdevFactor: 1.9 };
    for (const [count, requests] of [[4, 100], [6, 49]] as const) {
      const f = withOutliers(count, { consecutive5xx: 0, consecutiveGatewayErrors: 0, successRate: few });
      f.upstream.tick(0);
      for (let i = 0; i < requests; i++) for (let e = 0; e < count; e++) f.request(`e${e}`, e === 0 ? "serverError" : "success");
      f.upstream.tick(10_000);
      expect(f.upstream.counts().ejected).toBe(0);
    }
  });

  test("takes out no more than its share, and never all", () => {
    const f = withOutliers(10, { ejectedShareMax: 0.3 });
    for (let i = 0; i < 10; i++) times(f, `e${i}`, "connectFailure", 10);
    expect(f.upstream.counts().ejected).toBe(3);
    // A quarter of nine is two.
    const nine = withOutliers(9, { ejectedShareMax: 0.25 });
    for (let i = 0; i < 9; i++) times(nine, `e${i}`, "connectFailure", 10);
    expect(nine.upstream.counts().ejected).toBe(2);
    const whole = withOutliers(4, { ejectedShareMax: 1 });
    for (let i = 0; i < 4; i++) times(whole, `e${i}`, "connectFailure", 10);
    expect(whole.upstream.counts().ejected).toBe(3);
    const one = withOutliers(1, { ejectedShareMax: 1 });
    times(one, "e0", "connectFailure", 50);
    expect(one.name()).toBe("e0");
  });

  test("one that had to wait for its share goes when there is room", () => {
    const f = withOutliers(4, { ejectedShareMax: 0.25 });
    times(f, "e0", "connectFailure", 3);
    times(f, "e1", "connectFailure", 5);
    expect(f.of("e1").outlier.kind).toBe("healthy");
    f.remove("e0");
    f.add(endpoint("e9"));
    f.request("e1", "connectFailure");
    expect(f.of("e1").outlier.kind).toBe("ejected");
  });

  test("ends by one request that succeeds", () => {
    const f = withOutliers(4);
    times(f, "e0", "connectFailure", 3);
    f.nowMs = FIRST_EJECTION_MS;
    expect(f.pick()).toMatchObject({ reason: "probe", endpoint: f.of("e0") });
    const probe = new Attempt();
    probe.start(f.upstream, { endpoint: f.of("e0"), reason: "probe" }, f.nowMs);
    // Nobody else goes there while the answer is out.
    expect(f.tally(40)["e0"]).toBeUndefined();
    probe.settle("success", f.nowMs + 3);
    probe.end(f.nowMs + 3);
    expect(f.tally(40)["e0"]).toBe(10);
    expect(f.upstream.counts().ejected).toBe(0);
    expect(f.upstream.takeTransitions().at(-1)).toMatchObject({ kind: "restored", reason: "probeSucceeded" });
  });

  test("a failed probe doubles the time, up to its bound", () => {
    const f = withOutliers(4, { ejectionMaxMs: 60_000 });
    times(f, "e0", "connectFailure", 3);
    const lengths: number[] = [];
    for (let i = 0; i < 5; i++) {
      const { untilMs } = f.of("e0").outlier;
      lengths.push((untilMs - f.nowMs) / 10_000);
      f.nowMs = untilMs;
      const probe = new Attempt();
      const pick = f.pick();
      expect(pick.reason).toBe("probe");
      probe.start(f.upstream, pick, f.nowMs);
      probe.settle("gatewayError", f.nowMs);
      probe.end(f.nowMs);
    }
    [1, 2, 4, 6, 6].forEach((factor, i) => {
      expect(lengths[i]!).toBeGreaterThanOrEqual(factor);
      expect(lengths[i]!).toBeLessThanOrEqual(factor * (1 + EJECTION_JITTER));
    });
  });

  test("former ejections make the next one longer, until it has been calm for long", () => {
    const f = withOutliers(4);
    f.upstream.tick(0);
    const out = (): number => {
      times(f, "e0", "connectFailure", 3);
      return f.of("e0").outlier.untilMs - f.nowMs;
    };
    const back = (): void => {
      f.nowMs = f.of("e0").outlier.untilMs;
      const probe = new Attempt();
      probe.start(f.upstream, f.pick(), f.nowMs);
      probe.settle("success", f.nowMs);
      probe.end(f.nowMs);
    };
    expect(out()).toBeLessThan(12_001);
    back();
    expect(out()).toBeGreaterThan(19_999);
    back();
    for (let i = 0; i < 14; i++) f.upstream.tick((f.nowMs += 10_000));
    expect(out()).toBeLessThan(12_001);
  });

  test("a probe of which nothing is heard is given up; one that says nothing is repeated at once", () => {
    const f = withOutliers(4);
    times(f, "e0", "connectFailure", 3);
    f.nowMs = FIRST_EJECTION_MS;
    expect(f.pick().reason).toBe("probe");
    f.nowMs += PROBE_MS - 1;
    expect(f.pick().reason).toBe("balanced");
    f.nowMs += 1;
    const again = f.pick();
    expect(again.reason).toBe("probe");
    const attempt = new Attempt();
    attempt.start(f.upstream, again, f.nowMs);
    attempt.end(f.nowMs);
    expect(f.pick().reason).toBe("probe");
  });

  test("is tried again by requests that may be repeated; by any once none came", () => {
    const f = withOutliers(4);
    times(f, "e0", "connectFailure", 3);
    f.nowMs = f.of("e0").outlier.untilMs;
    expect(f.pick({ mayProbe: false }).reason).toBe("balanced");
    f.nowMs += PROBE_GRACE_MS;
    expect(f.pick({ mayProbe: false }).reason).toBe("probe");
  });

  test("late answers of requests sent before change nothing", () => {
    const f = withOutliers(4);
    const late = new Attempt();
    late.start(f.upstream, { endpoint: f.of("e0"), reason: "balanced" }, 0);
    times(f, "e0", "connectFailure", 3);
    late.settle("success", 100);
    late.end(100);
    expect(f.of("e0").outlier.kind).toBe("ejected");
  });

  test("without configuration only refused connections eject", () => {
    const f = new UpstreamFixture(endpoints(4));
    times(f, "e0", "serverError", 50);
    times(f, "e0", "gatewayError", 50);
    expect(f.of("e0").outlier.kind).toBe("healthy");
    times(f, "e0", "connectFailure", 3);
    expect(f.of("e0").outlier.untilMs).toBeGreaterThanOrEqual(BASE_EJECTION_UNCONFIGURED_MS);
  });

  test("keeps its promises whatever happens", () => {
    const outcome = fc.constantFrom<Outcome>("success", "serverError", "gatewayError", "connectFailure", "overloaded", "abandoned", "neutral");
    const stepOf = fc.record({ outcome, waitMs: fc.nat(4_000), add: fc.boolean() });
    fc.assert(fc.property(fc.array(stepOf, { maxLength: 300 }), fc.integer({ min: 1, max: 12 }), fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(), (steps, count, share, seed) => {
      const f = withOutliers(count, { ejectedShareMax: share }, seed);
      for (const { outcome: next, waitMs } of steps) {
        f.nowMs += waitMs;
        f.upstream.tick(f.nowMs);
        const attempt = new Attempt();
        attempt.start(f.upstream, f.pick(), f.nowMs);
        attempt.settle(next, f.nowMs);
        attempt.end(f.nowMs);
        const counts = f.upstream.counts();
        expect(counts.ejected).toBe(f.upstream.endpoints.filter(({ outlier }) => outlier.kind !== "healthy").length);
        expect(counts.ejected).toBeLessThanOrEqual(Math.floor(count * share));
        expect(counts.ejected).toBeLessThan(Math.max(count, 1));
        expect(counts.activeRequests).toBe(0);
      }
      // Time heals everything that succeeds.
      for (let i = 0; i < 40 * count && f.upstream.counts().ejected > 0; i++) {
        f.nowMs += 400_000;
        const attempt = new Attempt();
        attempt.start(f.upstream, f.pick(), f.nowMs);
        attempt.settle("success", f.nowMs);
        attempt.end(f.nowMs);
      }
      expect(f.upstream.counts().ejected).toBe(0);
    }), { numRuns: 150 });
  });
});

describe("health checks", () => {
  const healthCheck = { probe: { kind: "tcp" }, intervalMs: 5000, timeoutMs: 1000, healthyThreshold: 1, unhealthyThreshold: 2, port: null } as const;
  const f = (count: number): UpstreamFixture => new UpstreamFixture(endpoints(count), { settings: { healthCheck, balancing: { kind: "roundRobin" } } });

  test("until the first result everyone serves; then those that are not proved wait", () => {
    const g = f(3);
    expect(Object.keys(g.tally(30)).length).toBe(3);
    g.upstream.setHealth(g.of("e1"), "healthy", 0);
    expect(g.tally(30)).toEqual({ e1: 30 });
    g.upstream.setHealth(g.of("e0"), "healthy", 0);
    g.upstream.setHealth(g.of("e2"), "unhealthy", 0);
    expect(Object.keys(g.tally(30)).sort()).toEqual(["e0", "e1"]);
  });

  test("an endpoint that fails leaves, one that heals comes back, and when all fail there is none", () => {
    const g = f(2);
    for (const e of g.upstream.endpoints) g.upstream.setHealth(e, "unhealthy", 0);
    expect(g.pick()).toMatchObject({ endpoint: null, reason: "noneHealthy" });
    g.upstream.setHealth(g.of("e0"), "healthy", 0);
    expect(g.name()).toBe("e0");
  });

  test("a check that connects ends an ejection for refused connections, and no other", () => {
    const g = new UpstreamFixture(endpoints(6), { settings: { healthCheck, outliers: OUTLIERS } });
    times(g, "e0", "connectFailure", 3);
    times(g, "e1", "serverError", 5);
    for (const e of g.upstream.endpoints) g.upstream.setHealth(e, "healthy", 0);
    expect([g.of("e0").outlier.kind, g.of("e1").outlier.kind]).toEqual(["healthy", "ejected"]);
  });
});

describe("panic", () => {
  test("below the threshold all endpoints are used; above it only the usable ones", () => {
    const healthCheck = { probe: { kind: "tcp" }, intervalMs: 5000, timeoutMs: 1000, healthyThreshold: 1, unhealthyThreshold: 2, port: null } as const;
    const g = new UpstreamFixture(endpoints(10), { settings: { healthCheck, balancing: { kind: "roundRobin" }, outliers: { ...OUTLIERS, panicThreshold: 0.5 } } });
    g.upstream.endpoints.forEach((e, i) => g.upstream.setHealth(e, i < 5 ? "healthy" : "unhealthy", 0));
    expect(Object.keys(g.tally(100)).length).toBe(5);
    g.upstream.setHealth(g.of("e4"), "unhealthy", 0);
    expect(g.pick().reason).toBe("panic");
    expect(Object.keys(g.tally(100)).length).toBe(10);
  });

  test("without a threshold, when all are ejected one of them is tried rather than none", () => {
    const g = withOutliers(2);
    times(g, "e0", "connectFailure", 3);
    g.remove("e1");
    expect(g.pick()).toMatchObject({ reason: "lastResort", endpoint: g.of("e0") });
  });
});

describe("locality", () => {
  const at = (region: string, zone: string, subzone = "") => ({ locality: { region, zone, subzone } });
  const source = endpoint("client", at("r1", "z1", "s1"));
  const places = [endpoint("same", at("r1", "z1", "s1")), endpoint("zone", at("r1", "z1", "s2")), endpoint("region", at("r1", "z2")), endpoint("friend", at("r2", "z1")), endpoint("far", at("r3", "z1"))];
  const failover: LocalityFailover = { mode: "failover", distribute: [], failover: [{ from: "r1", to: "r2" }], failoverPriority: [] };
  const f = (locality: LocalityFailover | null): UpstreamFixture =>
    new UpstreamFixture(places, { source, settings: { locality, balancing: { kind: "roundRobin" }, outliers: { ...OUTLIERS, ejectedShareMax: 1 } } });

  test("failover goes outwards as health falls: subzone, zone, region, the named region, all others", () => {
    const g = f(failover);
    for (const name of ["same", "zone", "region", "friend"]) {
      expect(g.tally(20)).toEqual({ [name]: 20 });
      times(g, name, "connectFailure", 3);
    }
    expect(g.tally(20)).toEqual({ far: 20 });
  });

  test("failover by labels of topology and of the workload", () => {
    const g = new UpstreamFixture([endpoint("v1", { ...at("r2", "z9"), version: "v1" }), endpoint("v2", { ...at("r1", "z1"), version: "v2" })], {
      source, settings: { locality: { ...failover, failoverPriority: ["version=v2", "topology.kubernetes.io/region"] } },
    });
    expect(g.tally(20)).toEqual({ v2: 20 });
    const h = new UpstreamFixture([endpoint("a", at("r2", "z9")), endpoint("b", at("r1", "z9"))], {
      source, settings: { locality: { ...failover, failoverPriority: ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"] } },
    });
    expect(h.tally(20)).toEqual({ b: 20 });
  });

  test("a level that is partly out passes on what it cannot take", () => {
    const near = endpoints(10, () => at("r1", "z1", "s1"));
    const away = Array.from({ length: 10 }, (_, i) => endpoint(`x${i}`, at("r1", "z2")));
    const g = new UpstreamFixture([...near, ...away], { source, settings: { locality: failover, outliers: { ...OUTLIERS, ejectedShareMax: 1 } } });
    for (let i = 0; i < 5; i++) times(g, `e${i}`, "connectFailure", 3);
    const counts = g.tally(20_000);
    const passed = Object.entries(counts).filter(([name]) => name.startsWith("x")).reduce((sum, [, n]) => sum + n, 0) / 20_000;
    // 5 of 10 usable times 1.4 is 0.7.
    expect(Math.abs(passed - 0.3)).toBeLessThan(0.02);
  });

  test("a level that fails overflows before it panics; all panic when they cannot take the traffic together", () => {
    const g = new UpstreamFixture([...endpoints(5, () => at("r1", "z1", "s1")), ...Array.from({ length: 5 }, (_, i) => endpoint(`x${i}`, at("r1", "z2")))], {
      source, settings: { locality: failover, outliers: { ...OUTLIERS, ejectedShareMax: 1, panicThreshold: 0.5 } },
    });
    for (let i = 0; i < 4; i++) times(g, `e${i}`, "connectFailure", 3);
    const counts = g.tally(2000);
    expect(Object.keys(counts).filter((name) => name.startsWith("e"))).toEqual(["e4"]);
    expect(g.pick().reason).toBe("balanced");
    for (let i = 0; i < 4; i++) times(g, `x${i}`, "connectFailure", 3);
    expect(g.pick().reason).toBe("panic");
    expect(Object.keys(g.tally(2000)).length).toBe(10);
  });

  test("distribute gives each place its share, and the share of a broken one to the others", () => {
    const distribute: LocalityFailover = { mode: "distribute", failover: [], failoverPriority: [], distribute: [{ from: "r1/z1/*", to: [{ locality: "r1/z1/*", weight: 70 }, { locality: "r1/z2/*", weight: 20 }, { locality: "r2/*", weight: 10 }] }] };
    const g = f(distribute);
    const counts = g.tally(20_000);
    expect([(counts["same"]! + counts["zone"]!) / 20_000, counts["region"]! / 20_000, counts["friend"]! / 20_000].map((share) => Math.round(share * 50) / 50)).toEqual([0.7, 0.2, 0.1]);
    expect(counts["far"]).toBeUndefined();
    times(g, "region", "connectFailure", 3);
    const after = g.tally(20_000);
    expect(after["region"]).toBeUndefined();
    expect(Math.abs(after["friend"]! / 20_000 - 10 / 80)).toBeLessThan(0.01);
  });

  test("off: every place alike", () => {
    expect(Object.values(f({ ...failover, mode: "off" }).tally(500))).toEqual([100, 100, 100, 100, 100]);
  });

  test("without a policy the service's own traffic distribution holds", () => {
    const g = new UpstreamFixture(places, { source, service: { loadBalancing: { mode: "failover", scopes: ["region", "zone"], allowUnhealthy: false } } });
    expect(Object.keys(g.tally(100)).sort()).toEqual(["same", "zone"]);
  });

  test("a retry that has tried all of its level goes to the next", () => {
    const g = f(failover);
    expect(g.pick({ tried: [g.of("same")] })).toMatchObject({ reason: "otherGroup", endpoint: g.of("zone") });
  });

  test("shares of levels and weights add up", () => {
    const health = fc.record({ members: fc.integer({ min: 1, max: 20 }), usable: fc.integer({ min: 0, max: 20 }), weight: fc.integer({ min: 1, max: 100 }) }).map((h) => ({ ...h, usable: Math.min(h.usable, h.members) }));
    fc.assert(fc.property(fc.constantFrom("levels" as const, "weights" as const), fc.array(health, { minLength: 1, maxLength: 6 }), fc.double({ min: 0, max: 1, noNaN: true }), (kind, groups, threshold) => {
      const { cumulative, panicking } = groupShares(kind, groups, threshold);
      const anyUsable = groups.some(({ usable }) => usable > 0);
      if (cumulative.length === 0) expect(anyUsable || panicking.includes(true)).toBe(false);
      else {
        expect(cumulative.at(-1)).toBe(1);
        cumulative.forEach((sum, i) => {
          const share = sum - (cumulative[i - 1] ?? 0);
          expect(share).toBeGreaterThanOrEqual(-1e-12);
          // Nobody gets traffic without an endpoint to take it.
          if (share > 1e-9) expect(groups[i]!.usable > 0 || panicking[i]!).toBe(true);
        });
      }
    }));
  });
});

describe("subsets and sessions", () => {
  test("a subset has only the endpoints with its labels", () => {
    const subset = { name: "v2", labels: { version: "v2", tier: "gold" } };
    const g = new UpstreamFixture([endpoint("a", { version: "v2" }), endpoint("b", { version: "v1" }), endpoint("c", { version: "v2" })], {
      settings: { subset }, labels: (w, label) => (label === "tier" ? (w.name === "c" ? "silver" : "gold") : undefined),
    });
    expect(g.tally(20)).toEqual({ a: 20 });
  });

  test("a session keeps its endpoint while that may be used, and finds another after", () => {
    const g = withOutliers(5);
    expect(g.tally(20, () => ({ sticky: uid("e3") }))).toEqual({ e3: 20 });
    expect(g.pick({ sticky: uid("e3") }).reason).toBe("sticky");
    times(g, "e3", "connectFailure", 3);
    expect(g.tally(20, () => ({ sticky: uid("e3") }))["e3"]).toBeUndefined();
    expect(g.name({ sticky: uid("gone") })).toMatch(/^e/);
    expect(g.name({ sticky: uid("e1"), tried: [g.of("e1")] })).not.toBe("e1");
  });

  test("passthrough takes the original destination and no other", () => {
    const g = new UpstreamFixture(endpoints(3), { settings: { balancing: { kind: "passthrough" } } });
    expect(g.name({ sticky: uid("e1") })).toBe("e1");
    times(g, "e1", "connectFailure", 3);
    expect(g.name({ sticky: uid("e1") })).toBe("e1");
    expect(g.pick({ sticky: uid("gone") })).toMatchObject({ endpoint: null, reason: "notThere" });
  });
});

describe("endpoints come and go", () => {
  test("what was observed of those that stay is kept", () => {
    const g = withOutliers(4);
    times(g, "e0", "connectFailure", 3);
    g.request("e1", "success", 77);
    expect(g.refresh()).toBe(false);
    g.add(endpoint("e1", { capacity: 3 }), endpoint("new"));
    expect([g.of("e0").outlier.kind, g.of("e1").latencyMs, g.of("e1").weight]).toEqual(["ejected", 77, 3]);
    g.remove("e0");
    expect(g.upstream.counts()).toMatchObject({ ejected: 0, endpoints: 4 });
  });

  test("requests under way at one that left still end", () => {
    const g = withOutliers(2);
    const attempt = new Attempt();
    const gone = attempt.start(g.upstream, g.pick(), 0);
    g.remove(gone.target.workload.uid);
    attempt.settle("connectFailure", 5);
    attempt.end(5);
    expect([gone.active, gone.awaiting, g.upstream.counts().activeRequests]).toEqual([0, 0, 0]);
  });

  test("failures at one that left take nobody's place among the ejected", () => {
    const g = withOutliers(4);
    const e0 = g.of("e0");
    const late = Array.from({ length: 5 }, () => new Attempt());
    for (const attempt of late) attempt.start(g.upstream, { endpoint: e0, reason: "balanced" }, 0);
    g.remove("e0");
    for (const attempt of late) attempt.settle("connectFailure", 5);
    expect([g.upstream.counts().ejected, g.upstream.takeTransitions()]).toEqual([0, []]);
  });

  test("new settings keep what is known of endpoints", () => {
    const g = withOutliers(4);
    times(g, "e0", "connectFailure", 3);
    g.request("e1", "success", 77);
    g.upstream.reconfigure({ ...g.upstream.settings, balancing: { kind: "ringHash", key: { kind: "sourceIp" }, ringSizeMin: 1024 }, subset: { name: "s", labels: { version: "v1" } } });
    expect(g.refresh()).toBe(true);
    expect([g.of("e0").outlier.kind, g.of("e1").latencyMs, g.pick({ hash: 5 }).reason, g.name({ hash: 5 }) === g.name({ hash: 5 })]).toEqual(["ejected", 77, "hashed", true]);
    g.upstream.reconfigure({ ...g.upstream.settings, subset: { name: "s", labels: { version: "v2" } } });
    g.refresh();
    expect(g.pick()).toMatchObject({ endpoint: null, reason: "noEndpoints" });
  });

  test("none at all is told apart", () => {
    const g = withOutliers(0);
    expect(g.pick()).toMatchObject({ endpoint: null, reason: "noEndpoints" });
  });
});

describe("attempts", () => {
  test("count once, whatever is called how often", () => {
    const g = withOutliers(2);
    const attempt = new Attempt();
    const at = attempt.start(g.upstream, g.pick(), 0);
    attempt.settle("connectFailure", 1);
    attempt.settle("connectFailure", 2);
    attempt.settle("connectFailure", 3);
    attempt.end(4);
    attempt.end(5);
    attempt.settle("success", 6);
    expect([at.active, at.awaiting, at.outlier.connectFailures]).toEqual([0, 0, 1]);
    attempt.start(g.upstream, g.pick(), 7);
    expect(() => attempt.start(g.upstream, g.pick(), 8)).toThrow("under way");
  });
});
