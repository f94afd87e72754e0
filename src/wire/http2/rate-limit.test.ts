import { expect, test } from "bun:test";
import { TokenBucket } from "./rate-limit.ts";

test("rate limit: the burst at once, then what each second earns, never more than the burst", () => {
  let nowMs = 1_000;
  let asked = 0;
  const clock = (): number => {
    asked++;
    return nowMs;
  };
  const bucket = new TokenBucket({ burst: 5, perSecond: 2 }, clock, nowMs);
  const takeAll = (): number => {
    let taken = 0;
    while (bucket.take()) taken++;
    return taken;
  };
  for (let i = 0; i < 5; i++) expect(bucket.take()).toBe(true);
  expect(asked).toBe(0); // a healthy connection never asks for the time
  expect(bucket.take()).toBe(false);
  nowMs += 1_000;
  expect(takeAll()).toBe(2);
  nowMs += 250;
  expect(takeAll()).toBe(0);
  nowMs += 250;
  expect(takeAll()).toBe(1); // quarters of a token are not lost
  nowMs += 1_000_000;
  expect(takeAll()).toBe(5);
  bucket.earn(3);
  expect(takeAll()).toBe(3);
  bucket.earn(1_000);
  expect(takeAll()).toBe(5);
});
