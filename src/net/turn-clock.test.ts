import { expect, test } from "bun:test";
import { scheduleEndOfTurn } from "./turn.ts";
import { TurnClock } from "./turn-clock.ts";

test("the time is read once in a turn, its end included, and anew in the next one", async () => {
  let reads = 0;
  const clock = new TurnClock({ monotonicMs: () => ++reads, wallMs: () => 1_000 + ++reads });
  expect([clock.monotonicMs(), clock.monotonicMs()]).toEqual([1, 1]);
  const atTheEnd = await new Promise<number>((resolve) => scheduleEndOfTurn({ endOfTurn: () => resolve(clock.monotonicMs()) }));
  expect(atTheEnd).toBe(1);
  // Whoever waited for the promise runs in the next turn, or behind the end of this one.
  expect([clock.monotonicMs(), clock.monotonicMs()]).toEqual([2, 2]);
  expect([clock.wallMs(), clock.wallMs()]).toEqual([1_003, 1_004]);
});
