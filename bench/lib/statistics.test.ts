import { expect, test } from "bun:test";
import { median, ratiosByRound, spreadOf } from "./statistics.ts";

test("median: middle of an odd count, mean of the middle two of an even one, null of none", () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([])).toBeNull();
});

test("spread: lowest and highest stand beside the median", () => {
  expect(spreadOf([3, 1, 2])).toEqual({ median: 2, lowest: 1, highest: 3 });
  expect(spreadOf([])).toBeNull();
});

test("ratios: only rounds in which both sides gave a value count", () => {
  const ours = new Map([[0, 10], [1, 20], [2, 30]]);
  const theirs = new Map([[0, 5], [2, 0], [3, 7]]);
  expect(ratiosByRound(ours, theirs)).toEqual([2]);
});
