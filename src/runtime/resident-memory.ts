// Gives back what only the start, or a load that is over, needed: garbage, and pages of files. A program of a hundred megabytes touches half of its pages while it starts and few of
// them afterwards; until something asks the kernel, all of them count as resident. Clean pages of files are dropped from this
// process alone: they stay in the page cache, and one that is needed again costs a minor fault.

// It is done in quiet moments only, so that no page is taken away from work under way; but for once after the start, when most of what is
// resident will not be asked for again: what a load needs of it is back within its first moments, for some thousand minor faults.

import { readFileSync } from "node:fs";
import { adviseUnneeded } from "../net/libc.ts";
import { SinglePageFaults } from "./single-page-faults.ts";

/** A mapping of a file whose resident pages are all clean. Addresses as numbers: user space ends below 2^53. */
export interface CleanMapping {
  readonly start: number;
  readonly bytes: number;
  readonly residentBytes: number;
}

/**
 * Mappings of files that can be dropped without losing anything: private, not writable, and without a single page of their own
 * (relocated data and copied pages show as `Anonymous`). Pure.
 * @param smaps text of /proc/PID/smaps
 */
export function cleanFileMappings(smaps: string): CleanMapping[] {
  const found: CleanMapping[] = [];
  let current: { start: number; end: number; eligible: boolean; residentKb: number; anonymousKb: number } | null = null;
  const settle = (): void => {
    if (current === null || !current.eligible || current.anonymousKb > 0 || current.residentKb === 0) return;
    found.push({ start: current.start, bytes: current.end - current.start, residentBytes: current.residentKb * 1024 });
  };
  for (const line of smaps.split("\n")) {
    const header = /^([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])[x-]([ps]) [0-9a-f]+ \S+ (\d+) +(\/.*)$/.exec(line);
    if (header !== null || /^[0-9a-f]+-[0-9a-f]+ /.test(line)) {
      settle();
      current = header === null ? null : {
        start: Number.parseInt(header[1]!, 16), end: Number.parseInt(header[2]!, 16),
        eligible: header[3] === "r" && header[4] === "-" && header[5] === "p" && header[6] !== "0",
        residentKb: 0, anonymousKb: 0,
      };
      continue;
    }
    if (current === null) continue;
    const field = /^(Rss|Anonymous): +(\d+) kB$/.exec(line);
    if (field?.[1] === "Rss") current.residentKb = Number(field[2]);
    else if (field !== null) current.anonymousKb = Number(field[2]);
  }
  settle();
  return found;
}

/**
 * Drops the clean pages of this process.
 * @param faults where it is given, of what is dropped only those pages come back that are needed, without their neighbours.
 * @returns bytes that were resident in what was dropped; 0 where /proc does not tell.
 */
export function releaseCleanPages(faults: SinglePageFaults | null): number {
  let smaps: string;
  try {
    smaps = readFileSync("/proc/self/smaps", "latin1");
  } catch {
    return 0;
  }
  let released = 0;
  for (const { start, bytes, residentBytes } of cleanFileMappings(smaps)) {
    faults?.cover(start, bytes);
    if (adviseUnneeded(start, bytes) === 0) released += residentBytes;
  }
  return released;
}

/** How often it is looked whether there is something to give back. */
export const TRIM_CHECK_MS = 5_000;
/** Fewer pages of files are not worth reading the list of mappings, which takes a millisecond or two. */
export const RELEASE_BYTES_MIN = 4 * 1024 * 1024;
/** Garbage may be behind such growth. Collecting costs tens of milliseconds, and code that the compiler must make again. */
export const COLLECT_BYTES_MIN = 8 * 1024 * 1024;
/** After so much work there is garbage even if nothing grew: what a load that is over has left takes no more room than it did itself. */
export const COLLECT_CPU_MS = 2_000;
/** Above this share of one processor over the last check the process is at work, and keeps what it has. */
export const TRIM_BUSY_SHARE = 0.05;

export interface MemoryUse {
  /** The process's own: heaps, stacks, pages of files that it has written to. */
  readonly anonymousBytes: number;
  readonly fileBytes: number;
  /** Processor time used so far, all threads. */
  readonly cpuMs: number;
}

/** What is worth doing: nothing; dropping pages of files; that after a collection. */
export type Trim = "nothing" | "pages" | "garbage";

/** Decides when to trim. Pure: what the process uses and the time come in. */
export class TrimPolicy {
  #last: { readonly cpuMs: number; readonly nowMs: number } | null = null;
  #collected: MemoryUse = { anonymousBytes: 0, fileBytes: 0, cpuMs: 0 };
  #releasedBytes = 0;

  /** Call once per check, and `trimmed` after doing what it asked for. */
  decide(use: MemoryUse, nowMs: number): Trim {
    const last = this.#last;
    this.#last = { cpuMs: use.cpuMs, nowMs };
    if (last === null || nowMs <= last.nowMs) return "nothing";
    if ((use.cpuMs - last.cpuMs) / (nowMs - last.nowMs) > TRIM_BUSY_SHARE) return "nothing";
    if (use.anonymousBytes - this.#collected.anonymousBytes >= COLLECT_BYTES_MIN || use.cpuMs - this.#collected.cpuMs >= COLLECT_CPU_MS) return "garbage";
    return use.fileBytes - this.#releasedBytes >= RELEASE_BYTES_MIN ? "pages" : "nothing";
  }

  trimmed(what: Trim, use: MemoryUse): void {
    this.#releasedBytes = use.fileBytes;
    if (what === "garbage") this.#collected = use;
  }
}

/** After the collectors have run, the allocator takes this long to give the pages back. */
const SETTLE_MS = 2_000;
/** From ready to the first release: what goes on after the announcement has been done, and its pages are those of the start still. */
export const AFTER_START_MS = 2_000;

/**
 * Trims in the background until the process ends. Keeps nothing alive.
 * @param collect asks the other threads to collect their garbage; this thread's is collected here.
 */
export function trimWhenIdle(nowMs: () => number, collect: () => void): void {
  const policy = new TrimPolicy();
  let faults: SinglePageFaults | null | undefined;
  const release = (what: Trim, before: MemoryUse): void => {
    // Not before: a start needs most pages, and is faster with their neighbours.
    if (faults === undefined) faults = SinglePageFaults.open();
    releaseCleanPages(faults);
    policy.trimmed(what, memoryUse() ?? before);
  };
  setTimeout(() => {
    const use = memoryUse();
    if (use !== null) release("pages", use);
  }, AFTER_START_MS).unref();
  setInterval(() => {
    const use = memoryUse();
    const what = use === null ? "nothing" : policy.decide(use, nowMs());
    if (use === null || what === "nothing") return;
    if (what === "pages") return release(what, use);
    collect();
    Bun.gc(true);
    setTimeout(() => release(what, use), SETTLE_MS).unref();
  }, TRIM_CHECK_MS).unref();
}

const PAGE_BYTES = 4096;

/** Null where /proc does not tell. */
function memoryUse(): MemoryUse | null {
  try {
    // /proc/self/statm: size, resident, shared (pages of files and of shared memory), in pages.
    const [, residentPages = NaN, filePages = NaN] = readFileSync("/proc/self/statm", "latin1").split(" ").map(Number);
    const { user, system } = process.cpuUsage();
    return { anonymousBytes: (residentPages - filePages) * PAGE_BYTES, fileBytes: filePages * PAGE_BYTES, cpuMs: (user + system) / 1000 };
  } catch {
    return null;
  }
}
