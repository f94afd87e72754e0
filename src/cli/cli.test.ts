import { join } from "node:path";
import { describe, expect, test } from "bun:test";
import { entries, type Role } from "../runtime/settings.ts";
import { ROLES } from "../runtime/settings-table.ts";
import { overview, roleHelp, unknownVerb, VERBS } from "./help.ts";

const MAIN = join(import.meta.dir, "../main.ts");

function weft(args: readonly string[], environment: Readonly<Record<string, string>> = {}): { status: number | null; out: string; complaint: string } {
  const run = Bun.spawnSync([process.execPath, MAIN, ...args], { env: { PATH: process.env["PATH"] ?? "", ...environment }, stdout: "pipe", stderr: "pipe" });
  return { status: run.exitCode, out: run.stdout.toString(), complaint: run.stderr.toString() };
}

describe("help", () => {
  test("the overview names every verb", () => {
    for (const verb of VERBS) expect(overview()).toMatch(new RegExp(`^  ${verb} `, "m"));
    expect(unknownVerb("ztunel")).toContain("did you mean ztunnel?");
  });

  test.each(ROLES)("%s: shows every setting of the role with its variables and default, and none of another", (role: Role) => {
    const text = roleHelp(role);
    for (const [, spec] of entries()) {
      const shown = new RegExp(`^  --(\\[no-\\])?${spec.flag}\\b(?!-)`, "m").test(text);
      expect([spec.flag, shown]).toEqual([spec.flag, spec.roles.includes(role)]);
      if (shown) for (const variable of spec.variables) expect(text).toContain(`$${variable}`);
    }
    expect(text).toContain("Examples:");
    expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(132);
  });
});

test.each(ROLES)("help of %s: no variable is offered and also without effect", (role: Role) => {
  const text = roleHelp(role);
  const without = /without effect here are reported at the start: ([^.]*)\./.exec(text)?.[1]?.split(/,\s+/) ?? [];
  expect(without.filter((name) => new RegExp(`\\$${name}\\b`).test(text))).toEqual([]);
});

describe("the command", () => {
  test("version and help are answers, no verb at all is a question", () => {
    expect(weft(["version"])).toMatchObject({ status: 0, out: expect.stringMatching(/^weft \d+\.\d+\.\d+ \(commit /) });
    expect(weft(["--help"])).toMatchObject({ status: 0, out: overview() });
    expect(weft(["help", "ca"])).toMatchObject({ status: 0, out: roleHelp("ca") });
    expect(weft(["up", "--help"])).toMatchObject({ status: 0, out: roleHelp("up") });
    expect(weft([])).toMatchObject({ status: 64, out: overview() });
  });

  test("what is not understood ends with status 64, so that a supervisor does not try it for ever, and says what was", () => {
    expect(weft(["upp"])).toMatchObject({ status: 64, complaint: expect.stringContaining("did you mean up?") });
    const bad = weft(["up", "--conifg", "x", "--workers", "many"], { XDS_ADDRESS: "istiod:15012" });
    expect(bad.status).toBe(64);
    expect(bad.complaint.split("\n").filter((line) => line.startsWith("weft up: "))).toHaveLength(4);
    expect(bad.complaint).toContain("did you mean --config?");
    expect(weft(["constructor"]).status).toBe(64);
  });

  test("what cannot be done ends with status 1, with words and without a stack", () => {
    const failed = weft(["ca", "--state", "/proc/nowhere", "--ca-tokens", "/nowhere"]);
    expect(failed.status).toBe(1);
    expect(failed.complaint).toContain("/proc/nowhere");
    expect(failed.complaint).not.toContain(".ts:");
    expect(weft(["ca", "--ca-tokens", "x", "--log-file", "/nowhere/log"])).toMatchObject({ status: 1, complaint: expect.stringContaining("cannot open the log file /nowhere/log") });
  });
});
