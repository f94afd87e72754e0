import { expect, test } from "bun:test";
import { cancelDeadline, DeadlineQueue } from "./deadlines.ts";

function recorder(log: string[], name: string) {
  return { onDeadline: () => void log.push(name) };
}

test("deadlines: fire in the order they were added, each once, at or after their time", () => {
  const log: string[] = [];
  const queue = new DeadlineQueue(100);
  queue.add(recorder(log, "a"), 0);
  queue.add(recorder(log, "b"), 50);
  queue.tick(99);
  expect(log).toEqual([]);
  queue.tick(100);
  expect(log).toEqual(["a"]);
  queue.tick(1000);
  queue.tick(2000);
  expect(log).toEqual(["a", "b"]);
});

test("deadlines: a cancelled one never fires and does not hold up those behind it", () => {
  const log: string[] = [];
  const queue = new DeadlineQueue(10);
  const first = queue.add(recorder(log, "first"), 0);
  queue.add(recorder(log, "second"), 0);
  cancelDeadline(first);
  cancelDeadline(first);
  queue.tick(10);
  expect(log).toEqual(["second"]);
});

test("deadlines: one that is added while others fire waits its own time", () => {
  const log: string[] = [];
  const queue = new DeadlineQueue(10);
  queue.add({ onDeadline: () => void queue.add(recorder(log, "inner"), 10) }, 0);
  queue.tick(10);
  expect(log).toEqual([]);
  queue.tick(20);
  expect(log).toEqual(["inner"]);
});

test("deadlines: expired entries leave nothing behind", () => {
  const queue = new DeadlineQueue(1);
  for (let i = 0; i < 10_000; i++) queue.add({ onDeadline: () => {} }, i);
  queue.tick(5_000);
  expect(queue.size).toBe(5_000);
  queue.tick(20_000);
  expect(queue.size).toBe(0);
});
