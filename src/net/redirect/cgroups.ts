// Finds control groups (v2) by path: nf_tables matches them by depth and inode number.

import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { CgroupMatch } from "./rules.ts";

export interface FoundCgroups {
  readonly matches: readonly CgroupMatch[];
  /** Those that do not exist now: nothing runs in them, so nothing is left out. */
  readonly missing: readonly string[];
}

export function findCgroups(paths: readonly string[]): FoundCgroups {
  if (paths.length === 0) return { matches: [], missing: [] };
  const root = unifiedRoot();
  const matches: CgroupMatch[] = [];
  const missing: string[] = [];
  for (const path of paths) {
    const parts = path.split("/").filter((part) => part !== "");
    const id = root === null || parts.length === 0 || parts.includes("..") ? null : inodeOf(join(root, ...parts));
    if (id === null) missing.push(path);
    else matches.push({ path, level: parts.length, id });
  }
  return { matches, missing };
}

/** Where the cgroup v2 hierarchy is mounted; null when it is not. */
export function unifiedRoot(): string | null {
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [before, after] = line.split(" - ");
    if (after?.startsWith("cgroup2 ") === true) return before?.split(" ")[4] ?? null;
  }
  return null;
}

function inodeOf(path: string): bigint | null {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found !== undefined && found.isDirectory() ? found.ino : null;
}
