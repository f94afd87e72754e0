// Waiting in tests for what nobody announces: a condition is looked at until it holds, at first often.

const LOOK_FIRST_MS = 1;
const LOOK_MS_MAX = 20;

/**
 * Awaits a value that is neither null, undefined, false, 0 nor "". The last look begins after the time is over: one that began before and
 * took long, as a program that is started on a busy machine does, says nothing of how it is then.
 * @param what for the message of a wait that was in vain; a function is asked then, for what can be said only at the end.
 */
export async function until<T>(what: string | (() => string), timeoutMs: number, probe: () => T | Promise<T>): Promise<NonNullable<T>> {
  const endMs = performance.now() + timeoutMs;
  for (let lookMs = LOOK_FIRST_MS; ; lookMs = Math.min(2 * lookMs, LOOK_MS_MAX)) {
    const isLast = performance.now() >= endMs;
    const value = await probe();
    if (value) return value;
    if (isLast) throw new Error(`waited ${timeoutMs} ms for ${typeof what === "string" ? what : what()}`);
    await Bun.sleep(lookMs);
  }
}
