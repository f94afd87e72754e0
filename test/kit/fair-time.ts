// Time as it would be on a machine with nothing else to do. Tests hold promises of seconds on machines that run other things too: what a
// computation costs is told in processor time, and a promise about the world is stretched by what the machine is slower now, measured, and by
// nothing else. On an idle machine both are the clock's own.

import { readFileSync } from "node:fs";

/** So much processor time is used up to see how long that takes. Longer than a turn of the scheduler, so that others come in between. */
const SAMPLE_MS = 20;
const LOOK_MS = 20;
/** A machine that is slower than this is stuck; a promise is not stretched further. */
const SLOWDOWN_MAX = 30;

/** What a computation costs this process, in milliseconds of processor time, its collector's included. */
export function processorMs(compute: () => void): number {
  const before = process.cpuUsage();
  compute();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Nanoseconds that this thread ran, and that it waited for a processor while it could have run. */
function turns(): readonly [ran: number, waited: number] {
  const [ran, waited] = readFileSync("/proc/thread-self/schedstat", "latin1").split(" ");
  return [Number(ran), Number(waited)];
}

/**
 * Lets everybody have turns until `done` has.
 * @returns the longest that this thread ran without one, in milliseconds of its own processor time.
 */
export async function longestTurnMs(done: Promise<unknown>): Promise<number> {
  let going = true;
  void done.finally(() => (going = false)).catch(() => {});
  let longestNs = 0;
  for (let [before] = turns(); going; ) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    const [ran] = turns();
    longestNs = Math.max(longestNs, ran - before);
    before = ran;
  }
  await done;
  return longestNs / 1e6;
}

/** How many times longer work takes now than with a processor of one's own: 1 on an idle machine. Uses up some 20 ms of processor time. */
export function slowdown(): number {
  const [ranBefore, waitedBefore] = turns();
  for (;;) {
    const [ran, waited] = turns();
    const ranNs = ran - ranBefore;
    if (ranNs >= SAMPLE_MS * 1e6) return Math.min(SLOWDOWN_MAX, 1 + (waited - waitedBefore) / ranNs);
  }
}

/**
 * Awaits what is promised within a time: fails when no look that began by then saw it, or by then times what the machine is slower.
 * @returns how long it took, in milliseconds.
 */
export async function promised(what: string | (() => string), promisedMs: number, probe: () => boolean | Promise<boolean>): Promise<number> {
  const startedMs = performance.now();
  const passedMs = (): number => performance.now() - startedMs;
  let slower = 1;
  for (;;) {
    const beganMs = passedMs();
    // The look costs time too: taken only where it matters.
    if (beganMs > slower * promisedMs) slower = Math.max(slower, slowdown());
    if (beganMs > slower * promisedMs) {
      throw new Error(`${typeof what === "string" ? what : what()}: not within ${promisedMs} ms, nor after ${Math.round(beganMs)} ms on a machine that is ${slower.toFixed(1)} times slower than an idle one`);
    }
    if (await probe()) return passedMs();
    await Bun.sleep(LOOK_MS);
  }
}
