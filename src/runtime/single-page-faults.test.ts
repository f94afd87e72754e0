import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ptr } from "bun:ffi";
import { testUnless } from "../../test/kit/skip.ts";
import { adviseUnneeded } from "../net/libc.ts";
import { SinglePageFaults } from "./single-page-faults.ts";

/** Too small for a huge page. */
const FILE_BYTES = 1024 * 1024;
const PLACES = [1, 400 * 1024 + 1, 900 * 1024 + 1];

/** Maps a file that is in the page cache, reads a byte in each of three places, and tells how many pages of it are resident then. */
function pagesAfterThreeReads(faults: SinglePageFaults | null): number {
  const folder = mkdtempSync(join(tmpdir(), "weft-faults-"));
  try {
    const path = join(folder, "mapped");
    writeFileSync(path, new Uint8Array(FILE_BYTES).fill(7));
    const bytes = Bun.mmap(path, { shared: false });
    faults?.cover(Number(ptr(bytes)), FILE_BYTES);
    // Mapped with all its pages: they are dropped, and stay in the page cache.
    expect(adviseUnneeded(Number(ptr(bytes)), FILE_BYTES)).toBe(0);
    for (const place of PLACES) expect(bytes[place]).toBe(7);
    const [, mapping = ""] = readFileSync("/proc/self/smaps", "latin1").split(`${path}\n`);
    return kilobytes(mapping, "Rss") / kilobytes(mapping, "KernelPageSize");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const kilobytes = (mapping: string, field: string): number => Number(new RegExp(`^${field}: +(\\d+) kB$`, "m").exec(mapping)?.[1]);

const probe = SinglePageFaults.open();
probe?.close();

testUnless(probe === null ? "needs userfaultfd of Linux 6.7 or later, not forbidden by a filter" : null)("a fault brings in its page and no neighbours", () => {
  const faults = SinglePageFaults.open()!;
  expect(pagesAfterThreeReads(faults)).toBe(PLACES.length);
  faults.close();
});

test("without it, the kernel decides, and the bytes are the same", () => {
  expect(pagesAfterThreeReads(null)).toBeGreaterThanOrEqual(PLACES.length);
});
