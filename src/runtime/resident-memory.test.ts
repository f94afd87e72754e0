import { describe, expect, jest, test } from "bun:test";
import { readFileSync } from "node:fs";
import { AFTER_START_MS, cleanFileMappings, COLLECT_BYTES_MIN, COLLECT_CPU_MS, RELEASE_BYTES_MIN, releaseCleanPages, TRIM_CHECK_MS, TrimPolicy, trimWhenIdle } from "./resident-memory.ts";

const mapping = (header: string, rssKb: number, anonymousKb: number) =>
  `${header}\nSize:               ${rssKb + 100} kB\nRss:                ${rssKb} kB\nPss:                ${rssKb} kB\nAnonymous:          ${anonymousKb} kB\nVmFlags: rd ex mr mw me\n`;

describe("clean mappings", () => {
  test("code and constants of a file, without a page of their own", () => {
    const smaps = mapping("00400000-00500000 r-xp 00001000 08:01 77                         /usr/bin/weft", 900, 0) + mapping("00500000-00600000 r--p 00101000 08:01 77                         /usr/bin/weft", 64, 0);
    expect(cleanFileMappings(smaps)).toEqual([
      { start: 0x400000, bytes: 0x100000, residentBytes: 900 * 1024 },
      { start: 0x500000, bytes: 0x100000, residentBytes: 64 * 1024 },
    ]);
  });

  for (const [what, text] of [
    ["writable", mapping("00600000-00700000 rw-p 00200000 08:01 77                         /usr/bin/weft", 64, 0)],
    ["with relocated pages", mapping("00700000-00800000 r--p 00300000 08:01 77                         /usr/bin/weft", 64, 4)],
    ["of no file", mapping("7f0000000000-7f0000100000 r-xp 00000000 00:00 0 ", 64, 0)],
    ["shared", mapping("00800000-00900000 r--s 00000000 08:01 78                         /var/cache/x", 64, 0)],
    ["the kernel's own", mapping("7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]", 8, 0)],
    ["not resident", mapping("00900000-00a00000 r-xp 00001000 08:01 77                         /usr/bin/weft", 0, 0)],
  ] as const) {
    test(`left alone: ${what}`, () => expect(cleanFileMappings(text)).toEqual([]));
  }

  test("of this very process: they are given back, and it goes on", () => {
    const before = cleanFileMappings(readFileSync("/proc/self/smaps", "latin1"));
    expect(before.length).toBeGreaterThan(0);
    expect(releaseCleanPages(null)).toBeGreaterThan(1024 * 1024);
    expect(JSON.parse(JSON.stringify({ still: ["here"] }))).toEqual({ still: ["here"] });
  });
});

describe("when to trim", () => {
  const MB = 1024 * 1024;
  const use = (anonymousBytes: number, fileBytes: number, cpuMs = 0) => ({ anonymousBytes, fileBytes, cpuMs });
  const at = (n: number): number => n * TRIM_CHECK_MS;
  /** One that has given back all it could at 20 MB of its own and 10 MB of files. */
  const trimmed = (): TrimPolicy => {
    const policy = new TrimPolicy();
    policy.decide(use(30 * MB, 50 * MB), at(1));
    policy.decide(use(30 * MB, 50 * MB), at(2));
    policy.trimmed("garbage", use(20 * MB, 10 * MB));
    return policy;
  };

  test("not at the first look, then as soon as the process is quiet", () => {
    const policy = new TrimPolicy();
    expect(policy.decide(use(30 * MB, 50 * MB, 900), at(1))).toBe("nothing");
    expect(policy.decide(use(30 * MB, 50 * MB, 950), at(2))).toBe("garbage");
  });

  test("never while it works", () => {
    const policy = new TrimPolicy();
    policy.decide(use(30 * MB, 50 * MB), at(1));
    expect(policy.decide(use(30 * MB, 50 * MB, TRIM_CHECK_MS), at(2))).toBe("nothing");
    expect(policy.decide(use(30 * MB, 50 * MB, TRIM_CHECK_MS + 10), at(3))).toBe("garbage");
  });

  test("pages of files alone when only they have come back, and only when they are enough", () => {
    const policy = trimmed();
    expect(policy.decide(use(20 * MB, 10 * MB + RELEASE_BYTES_MIN - 1), at(3))).toBe("nothing");
    expect(policy.decide(use(20 * MB, 10 * MB + RELEASE_BYTES_MIN), at(4))).toBe("pages");
    policy.trimmed("pages", use(20 * MB, 12 * MB));
    expect(policy.decide(use(20 * MB, 12 * MB), at(5))).toBe("nothing");
  });

  test("garbage when the process itself has grown, or has worked since", () => {
    const grown = trimmed();
    expect(grown.decide(use(20 * MB + COLLECT_BYTES_MIN - 1, 10 * MB), at(3))).toBe("nothing");
    expect(grown.decide(use(20 * MB + COLLECT_BYTES_MIN, 10 * MB), at(4))).toBe("garbage");
    const worked = trimmed();
    worked.decide(use(20 * MB, 10 * MB, COLLECT_CPU_MS), at(3));
    expect(worked.decide(use(20 * MB, 10 * MB, COLLECT_CPU_MS), at(4))).toBe("garbage");
    worked.trimmed("garbage", use(20 * MB, 10 * MB, COLLECT_CPU_MS + 50));
    expect(worked.decide(use(20 * MB, 10 * MB, COLLECT_CPU_MS + 60), at(5))).toBe("nothing");
  });
});

test("what only the start needed is given back soon after it, whatever the process is doing", () => {
  const fileBytes = (): number => cleanFileMappings(readFileSync("/proc/self/smaps", "latin1")).reduce((sum, { residentBytes }) => sum + residentBytes, 0);
  jest.useFakeTimers();
  try {
    let collected = 0;
    trimWhenIdle(() => performance.now(), () => void collected++);
    const before = fileBytes();
    jest.advanceTimersByTime(AFTER_START_MS - 1);
    expect(fileBytes()).toBeGreaterThan(before / 2);
    jest.advanceTimersByTime(1);
    expect(fileBytes()).toBeLessThan(before / 2);
    expect(collected).toBe(0);
  } finally {
    jest.useRealTimers();
  }
});
