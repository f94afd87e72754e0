// What the build makes: it runs, data threads start inside it, and neither its working directory nor its environment puts code into it.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unsealed } from "../test/kit/box.ts";
import { documents, entryYaml, namespaceYaml } from "../test/kit/mesh.ts";
import { until } from "../test/kit/until.ts";
import { MeshNetwork } from "../test/kit/network.ts";
import { testUnless } from "../test/kit/skip.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-build-"));
const weft = join(folder, "weft");
const native = process.arch === "arm64" ? "arm64" : "x64";

const WRITABLE_BYTES_MAX = 4 * 1024 * 1024;

beforeAll(() => {
  const built = Bun.spawnSync([process.execPath, join(import.meta.dir, "build.ts"), native, "--outdir", folder], { stdout: "pipe", stderr: "pipe" });
  if (built.exitCode !== 0) throw new Error(built.stderr.toString());
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = (args: readonly string[], environment: Readonly<Record<string, string>> = {}, cwd = folder) => {
  const child = Bun.spawnSync([weft, ...args], { env: environment, cwd, stdout: "pipe", stderr: "pipe" });
  return { status: child.exitCode, out: child.stdout.toString(), complaint: child.stderr.toString() };
};

test("it says what it is", () => {
  expect(run(["version"])).toMatchObject({ status: 0, out: expect.stringMatching(/^weft \d+\.\d+\.\d+ \(commit [0-9a-f]{12}|unknown/) });
});

describe("code from outside", () => {
  const hostile = join(folder, "hostile");
  const witness = join(folder, "ran");

  beforeAll(() => {
    mkdirSync(hostile);
    writeFileSync(join(hostile, "preload.ts"), `require("node:fs").writeFileSync(${JSON.stringify(witness)}, "");`);
    writeFileSync(join(hostile, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
    writeFileSync(join(hostile, ".env"), "XDS_ADDRESS=from-dotenv:15012\n");
  });

  test("a bunfig.toml and a .env in the working directory change nothing", () => {
    expect(run(["up"], {}, hostile).complaint).not.toContain("XDS_ADDRESS");
    expect(run(["version"], {}, hostile).status).toBe(0);
    expect(existsSync(witness)).toBe(false);
  });

  test("variables by which the runtime loads code are refused", () => {
    for (const name of ["BUN_OPTIONS", "NODE_OPTIONS"]) {
      expect(run(["version"], { [name]: "--smol" })).toMatchObject({ status: 64, complaint: expect.stringContaining(`${name} set`) });
    }
  });
});

testUnless(unsealed)("it captures a workload on a data thread of its own, having executed itself once under the same pid", async () => {
  const network = MeshNetwork.create();
  try {
    const machine = network.node("machine");
    const web = machine.workload("web");
    mkdirSync(join(folder, "config"));
    writeFileSync(join(folder, "config/shop.yaml"), documents(namespaceYaml("shop", true), entryYaml(web)));
    const logPath = join(folder, "log");
    const child = machine.exec([weft, "up", "--config", join(folder, "config"), "--state", join(folder, "state"), "--node", "machine", "--log-file", logPath], { stdout: "inherit", stderr: "inherit" });
    let status: number | null = null;
    void child.exited.then((code) => (status = code));
    await until("the workload to be captured", 20_000, () => {
      if (status !== null) throw new Error(`it ended with status ${status}`);
      return existsSync(logPath) && /\/shop\/web is in the mesh/.test(readFileSync(logPath, "utf8"));
    });
    const environment = readFileSync(`/proc/${child.pid}/environ`, "latin1").split("\0");
    if (process.arch === "x64" && existsSync("/lib64/ld-linux-x86-64.so.2")) {
      expect(environment).toContain("WEFT_EXECUTED=1");
      expect(environment.find((each) => each.startsWith("GLIBC_TUNABLES="))).toContain("glibc.cpu.x86_rep_movsb_threshold=0x10000000");
    }
    expect(readFileSync(`/proc/${child.pid}/cmdline`, "utf8").split("\0").slice(0, 2)).toEqual([weft, "up"]);
    // The compiled program is the largest part of the data, some ten megabytes; what is left writable is the runtime's own.
    const writable = [...readFileSync(`/proc/${child.pid}/maps`, "latin1").matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw-p .*\/weft$/gm)];
    expect(writable.length).toBeGreaterThan(0);
    const large = writable.filter(([, start, end]) => Number.parseInt(end!, 16) - Number.parseInt(start!, 16) > WRITABLE_BYTES_MAX);
    expect(large.map(([mapping]) => mapping)).toEqual([]);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  } finally {
    await network[Symbol.asyncDispose]();
  }
}, 60_000);
