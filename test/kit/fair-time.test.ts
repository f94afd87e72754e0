import { expect, test } from "bun:test";
import { processorMs, promised, slowdown } from "./fair-time.ts";

const spin = (ms: number): void => {
  const { user } = process.cpuUsage();
  while (process.cpuUsage().user - user < ms * 1000);
};

test("processor time is what a computation uses, and not what it waits", () => {
  expect(processorMs(() => spin(100))).toBeGreaterThan(95);
  expect(processorMs(() => Bun.sleepSync(300))).toBeLessThan(150);
});

test("a promise that is kept says how long that took; one that is broken fails, whatever the machine does", async () => {
  expect(await promised("at once", 1_000, () => true)).toBeLessThan(30_000);
  let looks = 0;
  expect(await promised("at the third look", 5_000, () => ++looks === 3)).toBeGreaterThan(0);
  await expect(promised("never", 10, () => false)).rejects.toThrow(/never: not within 10 ms, nor after \d+ ms on a machine that is [\d.]+ times slower/);
  const startedMs = performance.now();
  await expect(promised(() => "far too late", 1, () => performance.now() - startedMs > 500)).rejects.toThrow(/far too late: not within 1 ms/);
});

test("a machine with more to do than processors is told as slower", async () => {
  const busy = Array.from({ length: 4 * navigator.hardwareConcurrency }, () => Bun.spawn(["sh", "-c", "while :; do :; done"], { stdout: "ignore", stderr: "ignore" }));
  try {
    let most = 1;
    for (let i = 0; i < 20 && most <= 1.5; i++) most = Math.max(most, slowdown());
    expect(most).toBeGreaterThan(1.5);
  } finally {
    for (const each of busy) each.kill("SIGKILL");
    await Promise.all(busy.map(({ exited }) => exited));
  }
});
