// What chance allows of a count, so that a test of shares can be strict without failing now and then.

/** Of tests that draw anew each time: one false alarm in a hundred million. */
const TAIL = 1e-8;

/**
 * The counts between which `draws` independent draws of `probability` stay but for `tail` of all cases, half of it on either side.
 * @returns both ends inclusive
 */
export function binomialBounds(draws: number, probability: number, tail = TAIL): readonly [min: number, max: number] {
  const terms = Array.from({ length: draws + 1 }, (_, k) => Math.exp(logChoose(draws, k) + times(k, Math.log(probability)) + times(draws - k, Math.log1p(-probability))));
  const end = (from: readonly number[]): number => {
    let sum = 0;
    return from.findIndex((term) => (sum += term) > tail / 2);
  };
  return [end(terms), draws - end(terms.toReversed())];
}

/** 0 × -∞ is 0 here: what cannot happen does not happen no times. */
const times = (count: number, log: number): number => (count === 0 ? 0 : count * log);

function logChoose(n: number, k: number): number {
  let sum = 0;
  for (let i = 1; i <= k; i++) sum += Math.log(n - k + i) - Math.log(i);
  return sum;
}
