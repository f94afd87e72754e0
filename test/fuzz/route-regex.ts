// Patterns that are taken away from the general engine mean what it says they mean, and none of them takes long on any text.

import { strictEqual as equal, ok as holds } from "node:assert/strict";
import { RE2JS } from "re2js";
import { simpleRegex } from "../../src/policy/http/simple-regex.ts";
import { Dice } from "./random-text.ts";

export const name = "route-regex";

const ATOMS = ["a", "b", "ab", "/", ".", "\\.", "\\d", "\\w", "[a-c]", "[^/]", "[^a]", "[0-9]", "[ab]", "[-a]", "[a-]", "(a|b)", "(?:ab|c)", "(a|ab)", "|", "^", "$", "\\-", "_", "1", "\\", "(", ")", "]", "[", "(?i)", "{2}", " ", "~"];
const REPEATS = ["", "", "", "*", "+", "?", "*?", "++"];
const TEXT = ["a", "b", "ab", "/", ".", "1", "c", "-", "\n", "_", "é", "\u{1f600}", "A", "\ud800", "\u2028", "\r", " ", "~", "|", "^", "$"];
/** A text of this length, run through a pattern that grows with its square, is seen. */
const LONG = 40_000;
const LONG_MS_MAX = 500;

export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  const dice = new Dice(seed);
  for (let i = 0; i < iterations; i++) {
    const pattern = dice.some(6, () => dice.of(ATOMS) + dice.of(REPEATS)).join("");
    let engine: RE2JS;
    try {
      engine = RE2JS.compile(pattern);
    } catch {
      continue;
    }
    const simple = simpleRegex(pattern);
    if (simple === null) continue;
    for (let k = 0; k < 4; k++) {
      const text = dice.join(TEXT, 8);
      equal(simple(text), engine.matches(text), `seed ${seed}, iteration ${i}: ${JSON.stringify(pattern)} on ${JSON.stringify(text)}`);
    }
    // With one repetition there is nothing to go back and forth between.
    if (pattern.replace(/[^*+]/g, "").length < 2) continue;
    const long = dice.of(["a", "ab", "a/", "1", "/"]).repeat(LONG) + dice.of(["", "x", "\n"]);
    // Time of this process: that others keep the machine busy is no fault of the pattern.
    const started = process.cpuUsage();
    simple(long);
    const ms = process.cpuUsage(started).user / 1000;
    holds(ms < LONG_MS_MAX, `seed ${seed}, iteration ${i}: ${JSON.stringify(pattern)} took ${ms} ms on ${long.length} characters`);
  }
  return { iterations };
}
