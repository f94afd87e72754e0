// Long work in steps: whoever does it yields where it may be left for a while, and whoever asked for it decides whether anybody else has
// a turn in between. What is made is handed over at the end, whole. Pure.

export type Steps<T> = Generator<void, T>;

/** Items of a loop between two steps: some hundred microseconds of most work. */
export const ITEMS_PER_STEP = 64;

/** The same small work for each item. */
export function* eachInSteps<T>(items: Iterable<T>, work: (item: T) => void): Steps<void> {
  let done = 0;
  for (const item of items) {
    if (++done % ITEMS_PER_STEP === 0) yield;
    work(item);
  }
}

/** All of it without a pause. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

export interface Turns {
  /** Monotonic. */
  nowMs(): number;
  /** Resolves when everybody else has had a turn. */
  turn(): Promise<void>;
}

/**
 * All of it, no longer than `sliceMs` and a step at once.
 * @returns null when `signal` was aborted before the end: nothing is made then.
 */
export async function inTurns<T>(steps: Steps<T>, sliceMs: number, turns: Turns, signal: AbortSignal): Promise<{ readonly made: T } | null> {
  let sinceMs = turns.nowMs();
  while (!signal.aborted) {
    const step = steps.next();
    if (step.done === true) return { made: step.value };
    if (turns.nowMs() - sinceMs < sliceMs) continue;
    await turns.turn();
    sinceMs = turns.nowMs();
  }
  return null;
}
