// The unit file: systemd accepts it, and its ExecStart line is one that this version of the program understands.

import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseSettings } from "../src/runtime/settings.ts";
import { needsProgram, testUnless } from "../test/kit/skip.ts";

const UNIT = join(import.meta.dir, "weft.service");

function execStart(): string[] {
  const line = readFileSync(UNIT, "utf8").split("\n").find((text) => text.startsWith("ExecStart="));
  return line!.slice("ExecStart=".length).split(" ");
}

test("the unit: its ExecStart line is understood, flag by flag", () => {
  const [program, role, ...args] = execStart();
  expect(program).toBe("/usr/bin/weft");
  expect(role).toBe("up");
  const parsed = parseSettings("up", args, {});
  expect(parsed.ok).toBe(true);
  if (parsed.ok) expect(parsed.value.settings).toMatchObject({ config: "/etc/weft/config", state: "/var/lib/weft" });
});

testUnless(needsProgram("systemd-analyze"))("the unit: systemd-analyze verify has nothing to say", () => {
  // The program is installed nowhere in a test: one that exists stands in for it.
  const folder = mkdtempSync(join(tmpdir(), "weft-unit-"));
  try {
    const copy = join(folder, "weft.service");
    writeFileSync(copy, readFileSync(UNIT, "utf8").replace("/usr/bin/weft", "/bin/true"));
    const verified = Bun.spawnSync(["systemd-analyze", "verify", copy], { stderr: "pipe", stdout: "pipe" });
    expect(verified.stderr.toString() + verified.stdout.toString()).toBe("");
    expect(verified.exitCode).toBe(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
