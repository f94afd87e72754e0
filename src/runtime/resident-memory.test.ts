import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { cleanFileMappings, releaseCleanPages, TRIM_BYTES_MIN, TRIM_CHECK_MS, TrimPolicy } from "./resident-memory.ts";

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
    expect(releaseCleanPages()).toBeGreaterThan(1024 * 1024);
    expect(JSON.parse(JSON.stringify({ still: ["here"] }))).toEqual({ still: ["here"] });
  });
});

describe("when to trim", () => {
  const MB = 1024 * 1024;
  const at = (n: number): number => n * TRIM_CHECK_MS;

  test("not at the first look, then as soon as the process is quiet", () => {
    const policy = new TrimPolicy();
    expect(policy.wants({ residentBytes: 50 * MB, cpuMs: 900 }, at(1))).toBe(false);
    expect(policy.wants({ residentBytes: 50 * MB, cpuMs: 950 }, at(2))).toBe(true);
  });

  test("never while it works", () => {
    const policy = new TrimPolicy();
    policy.wants({ residentBytes: 50 * MB, cpuMs: 0 }, at(1));
    expect(policy.wants({ residentBytes: 50 * MB, cpuMs: TRIM_CHECK_MS }, at(2))).toBe(false);
    expect(policy.wants({ residentBytes: 50 * MB, cpuMs: TRIM_CHECK_MS + 10 }, at(3))).toBe(true);
  });

  test("again only when enough has come back", () => {
    const policy = new TrimPolicy();
    policy.wants({ residentBytes: 50 * MB, cpuMs: 0 }, at(1));
    expect(policy.wants({ residentBytes: 50 * MB, cpuMs: 0 }, at(2))).toBe(true);
    policy.trimmed({ residentBytes: 15 * MB, cpuMs: 0 });
    expect(policy.wants({ residentBytes: 15 * MB + TRIM_BYTES_MIN - 1, cpuMs: 0 }, at(3))).toBe(false);
    expect(policy.wants({ residentBytes: 15 * MB + TRIM_BYTES_MIN, cpuMs: 0 }, at(4))).toBe(true);
  });
});
