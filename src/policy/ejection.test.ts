import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { seededRandom } from "../core/ports.ts";
import { EJECTION_LIMITS, type EjectionEvent, type EjectionState, HEALTHY, isEligible, step } from "./ejection.ts";

const still = { next: () => 0 };
const refused: EjectionEvent = { kind: "refused", mayEject: true };
const connected: EjectionEvent = { kind: "connected" };
const picked: EjectionEvent = { kind: "picked" };
const { baseEjectionMs, ejectionMaxMs, probeMs, jitter, consecutiveFailures } = EJECTION_LIMITS;

function play(state: EjectionState, events: readonly EjectionEvent[], nowMs = 0): EjectionState {
  return events.reduce((s, event) => step(s, event, nowMs, still), state);
}

describe("ejection", () => {
  test("takes several failures in a row", () => {
    expect(play(HEALTHY, [refused, refused])).toEqual({ kind: "healthy", failures: 2 });
    expect(play(HEALTHY, [refused, refused, connected, refused, refused])).toEqual({ kind: "healthy", failures: 2 });
    expect(play(HEALTHY, [refused, refused, refused])).toEqual({ kind: "ejected", untilMs: baseEjectionMs, ejections: 1 });
  });

  test("waits while too many siblings are out, and then needs one more failure", () => {
    const waiting = play(HEALTHY, [refused, refused, { kind: "refused", mayEject: false }, { kind: "refused", mayEject: false }]);
    expect(waiting.kind).toBe("healthy");
    expect(play(waiting, [refused]).kind).toBe("ejected");
  });

  test("is over for one probe at a time", () => {
    const out = play(HEALTHY, [refused, refused, refused]);
    expect([isEligible(out, baseEjectionMs - 1), isEligible(out, baseEjectionMs)]).toEqual([false, true]);
    expect(play(out, [picked], baseEjectionMs - 1)).toBe(out);
    const probing = play(out, [picked], baseEjectionMs);
    expect(probing).toEqual({ kind: "probing", untilMs: baseEjectionMs + probeMs, ejections: 1 });
    expect(isEligible(probing, baseEjectionMs + 1)).toBe(false);
    // A probe of which nothing is ever heard does not keep it out for ever.
    expect(isEligible(probing, baseEjectionMs + probeMs)).toBe(true);
  });

  test("returns an endpoint after one good probe", () => {
    expect(play(play(play(HEALTHY, [refused, refused, refused]), [picked], baseEjectionMs), [connected])).toBe(HEALTHY);
  });

  test("doubles after each failed probe, up to its bound", () => {
    let state = play(HEALTHY, [refused, refused, refused]);
    const lengths: number[] = [];
    for (let i = 0; i < 8; i++) {
      const nowMs = state.kind === "healthy" ? 0 : state.untilMs;
      state = play(state, [picked, refused], nowMs);
      lengths.push(state.kind === "ejected" ? state.untilMs - nowMs : -1);
    }
    expect(lengths).toEqual([2, 4, 8, 16, 30, 30, 30, 30].map((factor) => factor * baseEjectionMs));
  });

  test("is not prolonged by late failures, and ended by a late success", () => {
    const out = play(HEALTHY, [refused, refused, refused]);
    expect(play(out, [refused, refused], 5000)).toBe(out);
    expect(play(out, [connected], 5000)).toBe(HEALTHY);
  });

  test("keeps its promises whatever happens", () => {
    const anyEvent = fc.record({ event: fc.constantFrom(picked, connected, refused, { kind: "refused", mayEject: false } as const), waitMs: fc.nat(ejectionMaxMs) });
    fc.assert(fc.property(fc.array(anyEvent, { maxLength: 60 }), fc.nat(), (events, seed) => {
      const random = seededRandom(seed);
      let state: EjectionState = HEALTHY;
      let nowMs = 0;
      let inARow = 0;
      for (const { event, waitMs } of events) {
        nowMs += waitMs;
        const before = state;
        state = step(state, event, nowMs, random);
        inARow = event.kind === "refused" ? inARow + 1 : event.kind === "connected" ? 0 : inARow;
        if (event.kind === "connected") expect(state).toEqual(HEALTHY);
        if (before.kind === "healthy" && state.kind === "ejected") expect(inARow).toBeGreaterThanOrEqual(consecutiveFailures);
        if (state.kind !== "healthy") expect(state.untilMs - nowMs).toBeLessThanOrEqual(ejectionMaxMs * (1 + jitter));
        if (state.kind === "probing" && before.kind === "ejected") expect(nowMs).toBeGreaterThanOrEqual(before.untilMs);
      }
    }));
  });
});
