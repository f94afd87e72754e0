import { expect, test } from "bun:test";
import { pause } from "./pause.ts";

/** One timer that a test lets end. */
function timer() {
  const state = { set: 0, cancelled: 0, end: () => {} };
  return { state, timers: { after: (_: number, run: () => void) => ((state.set++, state.end = run), () => void state.cancelled++) } };
}

/** A signal that counts who listens. */
function counted() {
  const abort = new AbortController();
  const { signal } = abort;
  const listening = { count: 0 };
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = (...args: Parameters<typeof add>) => (listening.count++, add(...args));
  signal.removeEventListener = (...args: Parameters<typeof remove>) => (listening.count--, remove(...args));
  return { abort, signal, listening };
}

test("pause: ends with its time, or with the signal, and leaves nothing behind", async () => {
  for (const how of ["time", "signal"] as const) {
    const { state, timers } = timer();
    const { abort, signal, listening } = counted();
    const paused = pause(timers, 1_000, signal);
    expect([state.set, state.cancelled, listening.count]).toEqual([1, 0, 1]);
    if (how === "time") state.end();
    else abort.abort();
    await paused;
    expect([state.cancelled, listening.count]).toEqual([1, 0]);
  }
});

test("pause: does not begin when the signal is aborted already", async () => {
  const { state, timers } = timer();
  await pause(timers, 1_000, AbortSignal.abort());
  expect(state.set).toBe(0);
});
