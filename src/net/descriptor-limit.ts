// How many descriptors this process may have, and how near an fd says that we are to it: the kernel hands out the lowest free number, so
// a high number means that nearly all below it are taken. Costs nothing to ask, whoever holds them.

import { readFileSync } from "node:fs";

/** Kept free of user connections: log, admin and metrics ports, the CA, DNS, new workloads' listeners, and the dials of those let in. */
const RESERVE_SHARE = 0.1;
const RESERVE_MIN = 64;
const RESERVE_MAX = 1024;

export class DescriptorLimit {
  readonly limit: number;
  /** From this number on no connection is let in. */
  readonly acceptBelow: number;
  /** From this number on nothing is dialled for one that was let in. */
  readonly dialBelow: number;

  constructor(limit: number) {
    this.limit = limit;
    const reserve = Math.min(RESERVE_MAX, Math.max(RESERVE_MIN, Math.floor(limit * RESERVE_SHARE)));
    this.acceptBelow = limit - reserve;
    this.dialBelow = limit - Math.floor(reserve / 2);
  }

  /** The soft limit of this process; no limit where the kernel says `unlimited` or nothing. */
  static ofProcess(limitsText: string = readFileSync("/proc/self/limits", "utf8")): DescriptorLimit {
    const soft = /^Max open files\s+(\d+)/m.exec(limitsText)?.[1];
    return new DescriptorLimit(soft === undefined ? Number.MAX_SAFE_INTEGER : Number(soft));
  }
}
