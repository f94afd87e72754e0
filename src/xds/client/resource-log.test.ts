// What is kept on disk: read back as it was, whatever a crash left.

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seededRandom } from "../../core/ports.ts";
import type { ReceivedResource } from "../resource.ts";
import { LogFrames } from "./log-frames.ts";
import { type LoggedState, ResourceLog } from "./resource-log.ts";

const root = mkdtempSync(join(tmpdir(), "weft-xds-log-"));
afterAll(() => rmSync(root, { recursive: true }));
let count = 0;
const place = (): string => mkdtempSync(join(root, `${count++}-`));
const file = (directory: string): string => join(directory, "xds/resources.log");

const resource = (name: string, version: string, bytes = 4): ReceivedResource => ({ name, version, typeUrl: "t", value: new Uint8Array(bytes).fill(7) });
const framesOf = (typeUrl: string, keep: readonly ReceivedResource[], gone: readonly string[] = []): LogFrames => {
  const frames = new LogFrames();
  frames.change(typeUrl, keep, gone);
  if (frames.count === 0) frames.nothing(typeUrl);
  return frames;
};
/** In force at most in these tests. */
const LIVE = 10;

const brief = (state: LoggedState): Record<string, string[]> | null =>
  state.types === null ? null : Object.fromEntries([...state.types].map(([typeUrl, resources]) => [typeUrl, resources.map(({ name, version, value }) => `${name}@${version}:${value.length}`).sort()]));

describe("the log", () => {
  test("knows nothing where nothing was kept, and an empty state where one was told", async () => {
    const directory = place();
    const { log, state } = await ResourceLog.open(directory);
    expect(brief(state)).toBeNull();
    await log.append([framesOf("t", [])], LIVE);
    expect(brief((await ResourceLog.open(directory)).state)).toEqual({ t: [] });
  });

  test("comes back with the last of each name, over restarts", async () => {
    const directory = place();
    const { log } = await ResourceLog.open(directory);
    await log.append([framesOf("t", [resource("a", "1"), resource("b", "1")])], LIVE);
    await log.append([framesOf("u", [resource("a", "9")])], LIVE);
    const again = (await ResourceLog.open(directory)).log;
    await again.append([framesOf("t", [resource("a", "2", 0)], ["b", "never"])], LIVE);
    expect(brief((await ResourceLog.open(directory)).state)).toEqual({ t: ["a@2:0"], u: ["a@9:4"] });
  });

  test("is the owner's alone", async () => {
    const directory = place();
    const { log } = await ResourceLog.open(directory);
    await log.append([framesOf("t", [resource("a", "1")])], LIVE);
    expect([statSync(join(directory, "xds")).mode & 0o777, statSync(file(directory)).mode & 0o777]).toEqual([0o700, 0o600]);
  });

  test("cut off anywhere is what was whole, and can be added to", async () => {
    const directory = place();
    const { log } = await ResourceLog.open(directory);
    const ends: number[] = [];
    for (let i = 0; i < 5; i++) {
      await log.append([framesOf("t", [resource(`r${i}`, "1")])], LIVE);
      ends.push(statSync(file(directory)).size);
    }
    const whole = readFileSync(file(directory));
    for (let cut = 0; cut < whole.length; cut++) {
      writeFileSync(file(directory), whole.subarray(0, cut));
      const opened = await ResourceLog.open(directory);
      const sound = ends.filter((end) => end <= cut).length;
      expect(opened.state.types?.get("t")?.length ?? 0, `cut at ${cut}`).toBe(sound);
      expect(opened.state.fault === null, `cut at ${cut}`).toBe(cut === 0 || cut === 8 || ends.includes(cut));
      await opened.log.append([framesOf("t", [resource("more", "1")])], LIVE);
      expect((await ResourceLog.open(directory)).state.types?.get("t")?.length, `cut at ${cut}`).toBe(sound + 1);
    }
  });

  test("that does not fit is left out whole, and what comes later is kept", async () => {
    const directory = place();
    if (Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=64k", "none", directory]).exitCode !== 0) return; // Outside the box nobody may mount.
    try {
      const { log } = await ResourceLog.open(directory);
      await log.append([framesOf("t", [resource("a", "1")])], LIVE);
      await expect(log.append([framesOf("t", [resource("large", "1", 256 * 1024)])], LIVE)).rejects.toThrow("ENOSPC");
      await log.append([framesOf("t", [resource("b", "1")])], LIVE);
      expect(brief((await ResourceLog.open(directory)).state)).toEqual({ t: ["a@1:4", "b@1:4"] });
    } finally {
      Bun.spawnSync(["umount", directory]);
    }
  });

  test("with zeros at its end is what was whole", async () => {
    const directory = place();
    const { log } = await ResourceLog.open(directory);
    await log.append([framesOf("t", [resource("a", "1")])], LIVE);
    writeFileSync(file(directory), Buffer.concat([readFileSync(file(directory)), Buffer.alloc(64)]));
    const { state } = await ResourceLog.open(directory);
    expect([brief(state), state.fault !== null]).toEqual([{ t: ["a@1:4"] }, true]);
  });

  test("with any byte changed has no wrong content", async () => {
    const directory = place();
    const { log } = await ResourceLog.open(directory);
    for (let i = 0; i < 5; i++) await log.append([framesOf("t", [resource(`r${i}`, "1")])], LIVE);
    const whole = readFileSync(file(directory));
    const random = seededRandom(5);
    for (let run = 0; run < 300; run++) {
      const damaged = Buffer.from(whole);
      const at = Math.floor(random.next() * damaged.length);
      damaged[at] = damaged[at]! ^ (1 + Math.floor(random.next() * 255));
      writeFileSync(file(directory), damaged);
      const { state } = await ResourceLog.open(directory);
      for (const { name, version, value } of state.types?.get("t") ?? []) expect([/^r[0-4]$/.test(name), version, value.length], `byte ${at}`).toEqual([true, "1", 4]);
      expect(state.fault, `byte ${at}`).not.toBeNull();
    }
  });

  test("is written anew when most of it is past", async () => {
    const directory = place();
    const { log } = await ResourceLog.open(directory);
    for (let i = 0; i < 60; i++) await log.append([framesOf("t", [resource("big", String(i), 64 * 1024)])], 2);
    await log.append([framesOf("t", [resource("small", "1")])], 2);
    expect(statSync(file(directory)).size).toBeLessThan(1.2 * 1024 * 1024);
    expect(brief((await ResourceLog.open(directory)).state)).toEqual({ t: ["big@59:65536", "small@1:4"] });
  });
});
