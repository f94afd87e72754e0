// How much traffic each group of endpoints gets while some of its endpoints are out: levels overflow to the next one, weights give
// way in proportion, and below the panic threshold a group is used whole. Recomputed when usability changes.

import { OVERPROVISIONING_FACTOR } from "./defaults.ts";

/** Counts of one group; `weight` as planned. */
export interface GroupHealth {
  readonly members: number;
  readonly usable: number;
  readonly weight: number;
}

export interface GroupShares {
  /** Sum of the shares up to and with group i; the last one is 1. Empty when no group can take anything. */
  readonly cumulative: readonly number[];
  /** Groups below the panic threshold, of which all endpoints are used. */
  readonly panicking: readonly boolean[];
}

/**
 * @param panicThreshold 0 to 1: share of usable endpoints below which a group panics. Levels panic only when all of them together cannot
 *   take the whole traffic, so that a failing level overflows before it panics.
 */
export function groupShares(kind: "levels" | "weights", groups: readonly GroupHealth[], panicThreshold: number): GroupShares {
  const available = groups.map(({ members, usable }) => (members === 0 ? 0 : Math.min(1, (usable / members) * OVERPROVISIONING_FACTOR)));
  return kind === "levels" ? levelShares(groups, available, panicThreshold) : weightShares(groups, available, panicThreshold);
}

function levelShares(groups: readonly GroupHealth[], available: readonly number[], panicThreshold: number): GroupShares {
  const total = available.reduce((sum, part) => sum + part, 0);
  const panicking = groups.map((group) => total < 1 && isBelow(group, panicThreshold));
  if (total === 0) return { cumulative: panicking.some(Boolean) ? cumulate(groups.map((_, i) => (i === panicking.indexOf(true) ? 1 : 0))) : [], panicking };
  let rest = 1;
  const shares = available.map((part) => {
    const share = total >= 1 ? Math.min(rest, part) : part / total;
    rest -= share;
    return share;
  });
  return { cumulative: cumulate(shares), panicking };
}

function weightShares(groups: readonly GroupHealth[], available: readonly number[], panicThreshold: number): GroupShares {
  const panicking = groups.map((group) => isBelow(group, panicThreshold));
  const parts = groups.map(({ weight }, i) => weight * (panicking[i] ? 1 : available[i]!));
  const total = parts.reduce((sum, part) => sum + part, 0);
  return { cumulative: total === 0 ? [] : cumulate(parts.map((part) => part / total)), panicking };
}

function isBelow({ members, usable }: GroupHealth, threshold: number): boolean {
  return members > 0 && usable / members < threshold;
}

function cumulate(shares: readonly number[]): number[] {
  let sum = 0;
  const cumulative = shares.map((share) => (sum += share));
  // Rounding must not leave a gap at the end: the last group with a share takes the rest.
  for (let i = cumulative.length - 1; i >= 0; i--) {
    cumulative[i] = 1;
    if (shares[i]! > 0) break;
  }
  return cumulative;
}
