// What the pure core may ask of the world. The simulator and the tests bring their own.

export interface Clock {
  /** Milliseconds since an arbitrary start; never goes back. For durations and deadlines. */
  monotonicMs(): number;
  /** Milliseconds since the Unix epoch. For certificate validity and log stamps only. */
  wallMs(): number;
}

export interface Random {
  /** A number in [0, 1). */
  next(): number;
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
};

export const systemRandom: Random = { next: () => Math.random() };

/** Deterministic generator (mulberry32) for tests and simulation: the same seed gives the same run. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return {
    next() {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    },
  };
}
