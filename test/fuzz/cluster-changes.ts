// A cluster that changes at random, object by object, and is evaluated piece by piece: each state is what a fresh evaluation of the same
// objects comes to, and the deltas make the states.

import { holdAgainstFresh } from "../kit/cluster-changes.ts";

export const name = "cluster-changes";

/** Of one cluster, before another begins with nothing. */
const ROUNDS = 50;

/** An iteration is a round: some changes, and an evaluation of them. */
export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  for (let done = 0; done < iterations; done += ROUNDS) holdAgainstFresh({ seed: seed * 1_000 + done, rounds: Math.min(ROUNDS, iterations - done) });
  return { iterations };
}
