// Waiting in tests for what nobody announces: a condition is looked at until it holds, at first often.

import { slowdown } from "./fair-time.ts";

const LOOK_FIRST_MS = 1;
const LOOK_MS_MAX = 20;
/** A wait catches what hangs; on a machine that is slower it takes so many times longer at most, lest a test's own limit ends it first. */
const SLOWDOWN_MAX = 4;
/** A wait that is on for so long is named once, in the output that a failed file shows: a test that reaches its own limit does not say where. */
const NAMED_MS = 5_000;

/**
 * Awaits a value that is neither null, undefined, false, 0 nor "". The last look begins after the time is over: one that began before and
 * took long, as a program that is started on a busy machine does, says nothing of how it is then. For the same reason the time is that of a
 * machine with nothing else to do. What has to be there within a time is `promised` (fair-time.ts).
 * @param what for the message of a wait that was in vain; a function is asked then, for what can be said only at the end.
 */
export async function until<T>(what: string | (() => string), timeoutMs: number, probe: () => T | Promise<T>): Promise<NonNullable<T>> {
  const startedMs = performance.now();
  let slower = 1;
  let isNamed = false;
  for (let lookMs = LOOK_FIRST_MS; ; lookMs = Math.min(2 * lookMs, LOOK_MS_MAX)) {
    const passedMs = performance.now() - startedMs;
    // The look at the machine costs time too: taken only where it matters.
    if (passedMs >= slower * timeoutMs) slower = Math.max(slower, Math.min(SLOWDOWN_MAX, slowdown()));
    const isLast = passedMs >= slower * timeoutMs;
    const value = await probe();
    if (value) return value;
    if (isLast) throw new Error(`waited ${Math.round(passedMs)} ms for ${typeof what === "string" ? what : what()}`);
    if (passedMs >= NAMED_MS && !isNamed) {
      isNamed = true;
      console.error(`${new Date().toISOString()} has waited ${Math.round(passedMs)} ms of ${timeoutMs} for ${typeof what === "string" ? what : "what it says at the end"}`);
    }
    await Bun.sleep(lookMs);
  }
}
