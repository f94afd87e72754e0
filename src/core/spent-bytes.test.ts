import { expect, test } from "bun:test";
import { giveBack, giveBackWhole, GIVEN_BACK_BYTES_MIN } from "./spent-bytes.ts";

test("spent bytes: a large chunk is freed, and every view of it is empty", () => {
  const chunk = Buffer.alloc(GIVEN_BACK_BYTES_MIN, 1);
  const view = chunk.subarray(10);
  giveBack(chunk);
  expect(chunk.length).toBe(0);
  expect(view.length).toBe(0);
});

test("spent bytes: a small chunk stays, and so does a view of what others may read", () => {
  const small = new Uint8Array(GIVEN_BACK_BYTES_MIN - 1);
  giveBack(small);
  expect(small.length).toBe(GIVEN_BACK_BYTES_MIN - 1);
  const whole = new Uint8Array(GIVEN_BACK_BYTES_MIN * 4);
  giveBack(whole.subarray(0, GIVEN_BACK_BYTES_MIN * 2));
  expect(whole.length).toBe(GIVEN_BACK_BYTES_MIN * 4);
});

test("spent bytes: whoever owns the buffer frees all of it by any view", () => {
  const whole = new Uint8Array(GIVEN_BACK_BYTES_MIN);
  giveBackWhole(whole.subarray(GIVEN_BACK_BYTES_MIN));
  expect(whole.length).toBe(0);
});
