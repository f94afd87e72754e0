// Delays as a port: whoever waits is handed one, so that a test can move time. The system's own keep no process alive.

export interface Timers {
  /** Calls `run` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, run: () => void): () => void;
}

/** Longer delays wrap around in the runtime and would be due at once. */
const DELAY_MS_MAX = 2 ** 31 - 1;

export const systemTimers: Timers = {
  after(delayMs, run) {
    const timer = setTimeout(run, Math.min(delayMs, DELAY_MS_MAX));
    timer.unref();
    return () => clearTimeout(timer);
  },
};
