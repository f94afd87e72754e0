import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "bun:test";
import { StateLock } from "./state-lock.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-lock-"));
afterAll(() => rmSync(folder, { recursive: true }));

const taken = async (directory: string, role: string): Promise<StateLock> => {
  const lock = await StateLock.take(directory, role);
  if (!lock.ok) throw new Error(lock.error);
  return lock.value;
};

test("a second process is refused, and told who is there and what to do", async () => {
  const directory = join(folder, "made/when/missing");
  const lock = await taken(directory, "up");
  const second = await StateLock.take(directory, "up");
  expect(second).toMatchObject({ ok: false });
  if (!second.ok) for (const words of [directory, `process ${process.pid} up running`, "--handover", "--state"]) expect(second.error).toContain(words);
  expect(readFileSync(join(directory, "lock"), "utf8")).toBe(`${process.pid} up running\n`);
  lock.release();
  (await taken(directory, "ztunnel")).release();
});

test("a process that is ending is waited for", async () => {
  const lock = await taken(folder, "up");
  lock.ending();
  const waiting = taken(folder, "up");
  lock.release();
  (await waiting).release();
});

test("a lock that was handed over is held without a gap", async () => {
  const lock = await taken(folder, "up");
  const handed = StateLock.handedOver(lock.fd, "up");
  expect((await StateLock.take(folder, "up")).ok).toBe(false);
  handed.release();
});
