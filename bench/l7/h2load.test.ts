import { expect, test } from "bun:test";
import { summary } from "./h2load.ts";

/** One request every 2 ms from `startUs`; the i-th takes i us. */
const log = (count: number, startUs = 5_000_000, status = 200): string => Array.from({ length: count }, (_, i) => `${startUs + i * 2_000}\t${status}\t${i}`).join("\n") + "\n";

const run = { seconds: 1, leadS: 0.25, wantedPerSecond: null } as const;

test("h2load: what begins with the connections is left out of rate and percentiles, and counted", () => {
  // 250 ms are 125 requests; those from the 125th on take 125 to 624 us.
  expect(summary(log(625), run)).toEqual({ requests: 625, perSecond: 500, p50Us: 375, p99Us: 620, p999Us: 624 });
});

test("h2load: a failed request, a rate that was not kept and silence are failures of the run", () => {
  expect(() => summary(`${log(500)}6000000\t503\t9\n`, run)).toThrow("1 failures in 501 requests, the first with status 503");
  expect(() => summary(log(625), { ...run, wantedPerSecond: 600 })).toThrow("the load was to be 600 requests/s and was 500");
  expect(summary(log(625), { ...run, wantedPerSecond: 550 }).perSecond).toBe(500);
  expect(() => summary("", run)).toThrow("no answer at all");
});
