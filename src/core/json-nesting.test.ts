import { expect, test } from "bun:test";
import { isNestedTooDeep, JSON_NESTING_MAX } from "./json-nesting.ts";

const nested = (levels: number): string => `${"[".repeat(levels)}${"]".repeat(levels)}`;

test("a text is nested too deep from one level beyond the most, closed or not", () => {
  expect([nested(JSON_NESTING_MAX), nested(JSON_NESTING_MAX + 1), "{\"a\":".repeat(JSON_NESTING_MAX + 1)].map(isNestedTooDeep)).toEqual([false, true, true]);
});

test("brackets side by side, and those in strings, are no levels", () => {
  expect(["[[],[]]".repeat(1_000), JSON.stringify("[".repeat(1_000)), JSON.stringify({ a: `"\\"${"{".repeat(1_000)}` })].map(isNestedTooDeep)).toEqual([false, false, false]);
});
