// Random choices for fuzzers, all from one seed.

import { type Random, seededRandom } from "../../src/core/ports.ts";

export class Dice {
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  below(n: number): number {
    return Math.floor(this.#random.next() * n);
  }

  chance(p: number): boolean {
    return this.#random.next() < p;
  }

  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  some<T>(max: number, make: () => T): T[] {
    return Array.from({ length: this.below(max + 1) }, make);
  }

  join(parts: readonly string[], max: number): string {
    return this.some(max, () => this.of(parts)).join("");
  }

  /** A character changed, put in or taken out, a few times. */
  mutate(text: string, alphabet: readonly string[]): string {
    let out = text;
    for (let n = 1 + this.below(3); n > 0; n--) {
      const at = this.below(out.length + 1);
      const kind = this.below(4);
      if (kind === 0) out = out.slice(0, at) + this.of(alphabet) + out.slice(at + 1);
      else if (kind === 1) out = out.slice(0, at) + this.of(alphabet) + out.slice(at);
      else if (kind === 2) out = out.slice(0, at) + out.slice(at + 1 + this.below(3));
      else out = out.slice(0, at) + out.slice(at, at + 1 + this.below(8)) + out.slice(at);
    }
    return out;
  }
}
