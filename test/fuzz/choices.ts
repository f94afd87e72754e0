// Choices from a fuzzer's random source.

import type { Random } from "../../src/core/ports.ts";

export const below = (random: Random, limit: number): number => Math.floor(random.next() * limit);
export const pick = <T>(random: Random, from: readonly T[]): T => from[below(random, from.length)]!;
export const bytes = (random: Random, length: number): Uint8Array => Uint8Array.from({ length }, () => below(random, 256));
