// Processor time and memory of process trees, from /proc.

import { readdirSync, readFileSync } from "node:fs";

/** USER_HZ: the unit of utime and stime in /proc/PID/stat, 100 on every Linux architecture we run on. */
const TICKS_PER_SECOND = 100;

/** Memory is read once it has stood still for this long: allocators and collectors give back what a load has left with a delay of seconds. */
export const SETTLE_MS = 25_000;

/** `pids` and every process below them. */
export function withDescendants(pids: readonly number[]): number[] {
  const childrenOf = new Map<number, number[]>();
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const parent = parentOf(Number(entry));
    if (parent !== null) childrenOf.set(parent, [...(childrenOf.get(parent) ?? []), Number(entry)]);
  }
  const found: number[] = [];
  const queue = [...pids];
  for (let pid = queue.pop(); pid !== undefined; pid = queue.pop()) {
    found.push(pid);
    queue.push(...(childrenOf.get(pid) ?? []));
  }
  return found;
}

/**
 * User and system time of all threads, ended ones included, in seconds. The kernel scales the two so that their sum is
 * the scheduler's exact run time; reading rounds each down to 10 ms, so a window should hold a second of it.
 */
export function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const fields = statFields(pid);
    if (fields !== null) ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

export interface Memory {
  /** Resident, pages shared with others counted whole. */
  readonly rssBytes: number;
  /** Resident, shared pages divided among those that share them. */
  readonly pssBytes: number;
  /** Private to the process and backed by no file: what the process itself has allocated. */
  readonly anonymousBytes: number;
}

/** Sum over the processes. Throws when one of them is gone: half a sum would flatter. */
export function memoryOf(pids: readonly number[]): Memory {
  let [rssBytes, pssBytes, anonymousBytes] = [0, 0, 0];
  for (const pid of pids) {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    rssBytes += kilobytes(rollup, "Rss") * 1024;
    pssBytes += kilobytes(rollup, "Pss") * 1024;
    anonymousBytes += kilobytes(rollup, "Anonymous") * 1024;
  }
  return { rssBytes, pssBytes, anonymousBytes };
}

/** The most that was ever resident, summed over the processes, in bytes. */
export function peakOf(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + kilobytes(readFileSync(`/proc/${pid}/status`, "utf8"), "VmHWM") * 1024, 0);
}

function kilobytes(rollup: string, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(rollup);
  if (match === null) throw new Error(`/proc has no ${field}`);
  return Number(match[1]);
}

function parentOf(pid: number): number | null {
  const fields = statFields(pid);
  return fields === null ? null : Number(fields[1]);
}

/** The fields after the command name, which may hold blanks and brackets; [0] is the state, [1] the parent. */
function statFields(pid: number): string[] | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch {
    return null;
  }
}
