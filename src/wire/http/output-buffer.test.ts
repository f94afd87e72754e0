import { expect, test } from "bun:test";
import { BufferPool } from "./output-buffer.ts";

test("buffer pool: lends again what came back, until it is cleared", () => {
  const pool = new BufferPool();
  const first = pool.acquire(20_000);
  pool.release(first);
  expect(pool.acquire(20_000)).toBe(first);
  pool.release(first);
  pool.clear();
  const second = pool.acquire(20_000);
  expect(second).not.toBe(first);
  pool.release(second);
  expect(pool.acquire(20_000)).toBe(second);
});

test("buffer pool: keeps no more than its limit, and frees the rest at once", () => {
  const pool = new BufferPool();
  const lent = Array.from({ length: 20 }, () => pool.acquire(1024 * 1024));
  for (const buffer of lent) pool.release(buffer);
  expect(lent.filter(({ length }) => length === 0)).toHaveLength(12);
  const again = new Set(Array.from({ length: 20 }, () => pool.acquire(1024 * 1024)));
  expect(lent.filter((buffer) => again.has(buffer))).toHaveLength(8);
});
