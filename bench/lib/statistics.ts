// Medians and spread over rounds. A ratio is taken inside one round, where both sides met the same machine; the machine's
// mood between rounds cancels out of it.

/** Middle value; the mean of the two middle ones for an even count; null for none. */
export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

export interface Spread {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

export function spreadOf(values: readonly number[]): Spread | null {
  const middle = median(values);
  return middle === null ? null : { median: middle, lowest: Math.min(...values), highest: Math.max(...values) };
}

/** Ours to theirs, round by round; rounds where either is missing or theirs is zero are left out. */
export function ratiosByRound(ours: ReadonlyMap<number, number>, theirs: ReadonlyMap<number, number>): number[] {
  const ratios: number[] = [];
  for (const [round, value] of ours) {
    const other = theirs.get(round);
    if (other !== undefined && other !== 0) ratios.push(value / other);
  }
  return ratios;
}
