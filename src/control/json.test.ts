import { expect, test } from "bun:test";
import { sameJson } from "./json.ts";

test("sameJson: whatever the order of fields, and nothing else", () => {
  expect(sameJson({ a: 1, b: [{ c: null }] }, { b: [{ c: null }], a: 1 })).toBe(true);
  for (const [a, b] of [[{ a: 1 }, { a: 1, b: 2 }], [[1, 2], [2, 1]], [{}, []], [null, {}], [undefined, []], ["1", 1]]) expect(sameJson(a, b)).toBe(false);
});
