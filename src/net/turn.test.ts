import { expect, test } from "bun:test";
import { scheduleEndOfTurn } from "./turn.ts";

test("end of turn: runs after the microtasks of the turn, once for each call, in order", async () => {
  const log: string[] = [];
  const done = new Promise<void>((resolve) => {
    scheduleEndOfTurn({ endOfTurn: () => void log.push("first") });
    scheduleEndOfTurn({ endOfTurn: () => (log.push("second"), resolve()) });
    queueMicrotask(() => log.push("microtask"));
    log.push("now");
  });
  await done;
  expect(log).toEqual(["now", "microtask", "first", "second"]);
});

test("end of turn: what is scheduled while the end runs waits for the next one", async () => {
  const log: string[] = [];
  await new Promise<void>((resolve) => {
    scheduleEndOfTurn({
      endOfTurn: () => {
        log.push("outer");
        scheduleEndOfTurn({ endOfTurn: () => (log.push("inner"), resolve()) });
        log.push("outer ends");
      },
    });
  });
  expect(log).toEqual(["outer", "outer ends", "inner"]);
});
