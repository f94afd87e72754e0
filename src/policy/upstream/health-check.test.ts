import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { seededRandom } from "../../core/ports.ts";
import type { HealthCheck } from "../../mesh/l7/traffic-policy.ts";
import { HEALTH_EDGE_SHARE, HEALTH_FIRST_MS, HEALTH_JITTER } from "./defaults.ts";
import { type HealthEvent, type HealthState, startHealth, stepHealth } from "./health-check.ts";

const CHECK: HealthCheck = { probe: { kind: "tcp" }, intervalMs: 9_000, timeoutMs: 700, healthyThreshold: 2, unhealthyThreshold: 3, port: null };
const middle = { next: () => 0.5 };
const passed: HealthEvent = { kind: "passed" };
const failed: HealthEvent = { kind: "failed", why: "HTTP 503, wanted 200" };

function play(events: readonly HealthEvent[], nowMs = 0): { state: HealthState; changes: string[] } {
  let state = startHealth(0, CHECK, middle);
  const changes: string[] = [];
  for (const event of events) {
    const step = stepHealth(state, event, CHECK, nowMs, middle);
    state = step.state;
    for (const effect of step.effects) if (effect.kind === "changed") changes.push(`${effect.to}: ${effect.why}`);
  }
  return { state, changes };
}

describe("health checks", () => {
  test("a new endpoint is asked soon, not after a whole interval, and one at a time", () => {
    const state = startHealth(1000, CHECK, { next: () => 0.999 });
    expect(state.nextProbeMs).toBeLessThan(1000 + HEALTH_FIRST_MS);
    expect(stepHealth(state, { kind: "tick" }, CHECK, 1000, middle).effects).toEqual([]);
    const asked = stepHealth(state, { kind: "tick" }, CHECK, 1000 + HEALTH_FIRST_MS, middle);
    expect(asked.effects).toEqual([{ kind: "probe", timeoutMs: 700 }]);
    expect(stepHealth(asked.state, { kind: "tick" }, CHECK, 1e9, middle).effects).toEqual([]);
  });

  test("the first result decides at once; later ones need their number in a row", () => {
    expect(play([passed]).changes).toEqual(["healthy: first check: passed"]);
    expect(play([failed]).changes).toEqual(["unhealthy: first check: HTTP 503, wanted 200"]);
    expect(play([passed, failed, failed, passed, failed, failed]).changes.length).toBe(1);
    expect(play([passed, failed, failed, failed]).changes[1]).toBe("unhealthy: failed 3 in a row: HTTP 503, wanted 200");
    expect(play([failed, passed, failed, passed, passed]).changes[1]).toBe("healthy: passed 2 in a row");
  });

  test("an endpoint that says that it is leaving leaves at once", () => {
    expect(play([passed, { ...failed, isTerminal: true }]).state.health).toBe("unhealthy");
  });

  test("is asked sooner while it is about to change sides, and at jittered times", () => {
    expect(play([passed]).state.nextProbeMs).toBe(9000);
    expect(play([passed, failed]).state.nextProbeMs).toBe(9000 * HEALTH_EDGE_SHARE);
    expect(play([passed, failed, failed, failed]).state.nextProbeMs).toBe(9000);
    const random = seededRandom(4);
    const times = Array.from({ length: 1000 }, () => stepHealth(play([passed]).state, passed, CHECK, 0, random).state.nextProbeMs);
    expect([Math.min(...times) >= 9000 * (1 - HEALTH_JITTER), Math.max(...times) <= 9000 * (1 + HEALTH_JITTER), Math.max(...times) - Math.min(...times) > 1500]).toEqual([true, true, true]);
  });

  test("changes sides only after its number of results in a row, and always then", () => {
    fc.assert(fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 100 }), (results) => {
      let state = startHealth(0, CHECK, middle);
      let model: "unknown" | "healthy" | "unhealthy" = "unknown";
      let row = 0;
      results.forEach((good, i) => {
        const before = state.health;
        const { state: next, effects } = stepHealth(state, good ? passed : failed, CHECK, i, middle);
        state = next;
        row = i > 0 && results[i - 1] === good ? row + 1 : 1;
        if (model === "unknown" || (good && row >= 2) || (!good && row >= 3)) model = good ? "healthy" : "unhealthy";
        expect(state.health).toBe(model);
        expect(effects.length).toBe(before === model ? 0 : 1);
      });
    }));
  });
});
