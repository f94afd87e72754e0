// The loop of a fuzzer: one random source from its seed, and failures that say where it stood.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import type { FuzzRun } from "./fuzz.ts";

/** Calls `tryOne` with the number of each iteration, from 0; what it throws is thrown on with seed and iteration. */
export function iterate({ seed, iterations }: FuzzRun, tryOne: (random: Random, iteration: number) => void): { readonly iterations: number } {
  const random = seededRandom(seed);
  for (let i = 0; i < iterations; i++) {
    try {
      tryOne(random, i);
    } catch (cause) {
      throw new Error(`seed ${seed}, iteration ${i}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }
  return { iterations };
}

/** The same with properties that take turns. */
export const takeTurns = (run: FuzzRun, properties: readonly ((random: Random) => void)[]): { readonly iterations: number } =>
  iterate(run, (random, i) => properties[i % properties.length]!(random));
