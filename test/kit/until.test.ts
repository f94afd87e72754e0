import { expect, test } from "bun:test";
import { until } from "./until.ts";

test("until gives what the probe found, and looks again while it finds nothing", async () => {
  const answers = [null, 0, false, "", undefined, "there"];
  expect(await until("it", 10_000, () => answers.shift())).toBe("there");
  expect(answers).toEqual([]);
});

test("until looks once more when the time is over, and then says what was waited for", async () => {
  let looks = 0;
  expect(await until("it", 0, () => ++looks === 1)).toBe(true);
  const slow = async () => {
    const endMs = performance.now() + 5;
    while (performance.now() < endMs) await Promise.resolve();
    return ++looks === 3;
  };
  expect(await until("a probe that takes longer than the time there is", 1, slow)).toBe(true);
  await expect(until("what does not come", 1, () => null)).rejects.toThrow(/^waited \d+ ms for what does not come$/);
  await expect(until(() => `what is still ${looks}`, 1, () => null)).rejects.toThrow(/^waited \d+ ms for what is still 3$/);
});
