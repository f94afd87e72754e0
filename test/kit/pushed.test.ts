import { expect, test } from "bun:test";
import { Pushed } from "./pushed.ts";

test("pushed values are read in their order, those from before the reader came first", async () => {
  const pushed = new Pushed([1, 2]);
  const reader = pushed[Symbol.asyncIterator]();
  pushed.push(3);
  expect([await reader.next(), await reader.next(), await reader.next()].map(({ value }) => value)).toEqual([1, 2, 3]);
});

test("a reader that waits is woken by each value, and by the end", async () => {
  const pushed = new Pushed<string>();
  const reader = pushed[Symbol.asyncIterator]();
  for (const value of ["a", "b"]) {
    const next = reader.next();
    pushed.push(value);
    expect(await next).toEqual({ value, done: false });
  }
  const last = reader.next();
  pushed.end();
  expect(await last).toEqual({ value: undefined, done: true });
});

test("the end comes after what was pushed before it", async () => {
  const pushed = new Pushed<number>();
  pushed.push(1);
  pushed.push(2);
  pushed.end();
  expect(await Array.fromAsync(pushed)).toEqual([1, 2]);
});
