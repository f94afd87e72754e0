import { expect, test } from "bun:test";
import { collectable } from "./collectable.ts";

test("a collectable value: made when it is asked for, kept while it is held, made again after it was collected", async () => {
  let made = 0;
  const value = collectable(() => ({ number: ++made, ballast: new Uint8Array(1 << 20) }));
  expect(made).toBe(0);
  const held = value();
  expect(value()).toBe(held);
  const collected = collectable(() => ({ number: ++made, ballast: new Uint8Array(1 << 20) }));
  const numbers = new Set([collected().number]);
  // A reference lives until the end of its turn at least; the collector decides the rest.
  for (let turn = 0; turn < 100 && numbers.size < 2; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
    Bun.gc(true);
    numbers.add(collected().number);
  }
  expect(numbers.size).toBe(2);
  expect(value()).toBe(held);
});
