// Waiting that ends early when nobody wants its end any more.

/** Resolves after `ms`, or when `signal` is aborted, and leaves neither timer nor listener behind. */
export function pause(timers: { after(delayMs: number, run: () => void): () => void }, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      cancel();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const cancel = timers.after(ms, done);
    signal.addEventListener("abort", done);
  });
}
