import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { sizeOf } from "./object-size.ts";

describe("the size of an object", () => {
  test("is never less than its JSON without quotes and escapes, whatever is in it", () => {
    const plain = fc.string({ unit: fc.constantFrom("a", "b", "1") });
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({ value: fc.oneof({ depthSize: "small" }, plain, fc.integer(), fc.boolean(), fc.constant(null), fc.array(tie("value")), fc.dictionary(plain, tie("value"))) }));
    fc.assert(fc.property(fc.dictionary(plain, value), (object) => sizeOf(object) >= JSON.stringify(object).replaceAll('"', "").length));
  });

  test("counts what JSON says in two characters", () => expect(sizeOf({ list: Array.from({ length: 1_000 }, () => ({})) })).toBeGreaterThan(16_000));

  test("of one that is very deep does not run out of stack", () => {
    let deep: Record<string, unknown> = {};
    for (let i = 0; i < 200_000; i++) deep = { a: [deep] };
    expect(sizeOf(deep)).toBeGreaterThan(200_000);
  });
});
