import { expect, test } from "bun:test";
import { seededRandom } from "../../src/core/ports.ts";
import { binomialBounds } from "./binomial.ts";

test("binomialBounds: the ends of tables of the binomial distribution", () => {
  // 20 draws of a half: 5 or fewer in 2.07 % of cases, 4 or fewer in 0.59 %.
  expect(binomialBounds(20, 0.5, 0.04)).toEqual([5, 15]);
  expect(binomialBounds(20, 0.5, 0.042)).toEqual([6, 14]);
  expect(binomialBounds(10, 0, 0.01)).toEqual([0, 0]);
  expect(binomialBounds(10, 1, 0.01)).toEqual([10, 10]);
});

test("binomialBounds: chance leaves them as often as it says", () => {
  const random = seededRandom(11);
  const [min, max] = binomialBounds(100, 0.1, 0.05);
  let outside = 0;
  for (let round = 0; round < 2000; round++) {
    let count = 0;
    for (let i = 0; i < 100; i++) count += Number(random.next() < 0.1);
    outside += Number(count < min || count > max);
  }
  expect(outside).toBeGreaterThan(10);
  expect(outside).toBeLessThan(110);
});
