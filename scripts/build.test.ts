// What the build makes: it runs, data threads start inside it, and neither its working directory nor its environment puts code into it.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unsealed } from "../test/kit/box.ts";
import { documents, entryYaml, namespaceYaml } from "../test/kit/mesh.ts";
import { until } from "../test/kit/until.ts";
import { MeshNetwork } from "../test/kit/network.ts";
import { firstReason, needsProgram, testUnless } from "../test/kit/skip.ts";

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

describe("the image", () => {
  const tree = join(folder, "image");
  const READINESS = "127.0.0.1:22521";
  const READY_MS = 30_000;
  /** What the agent's container has, and what `chroot` needs to begin it here. */
  const CAPABILITIES = "-all,+net_admin,+sys_admin,+net_raw,+sys_chroot";
  const MOUNTS = `
    set -e
    mount --bind "$1" "$1"
    mount --rbind /proc "$1/proc"
    mount --rbind /dev "$1/dev"
    for writable in tmp state; do mount -t tmpfs tmpfs "$1/$writable"; done
    mount -o remount,bind,ro "$1"
    if touch "$1/written" 2>/dev/null; then echo "the root can be written to"; exit 1; fi
    root=$1
    shift
    exec setpriv --no-new-privs --inh-caps=-all --bounding-set=${CAPABILITIES} chroot "$root" "$@"`;

  beforeAll(() => {
    const [, steps] = /^RUN ((?:.*\\\n)*.*)$/m.exec(readFileSync(join(import.meta.dir, "../deploy/Dockerfile"), "utf8")) ?? [];
    if (steps === undefined) throw new Error("deploy/Dockerfile has no RUN");
    const script = steps.replaceAll("\\\n", "\n").replaceAll("/root-of-image", tree).replaceAll(/(?<=\s)\/weft(?=\s)/g, weft).replaceAll(/\n\s*/g, " ");
    const made = Bun.spawnSync(["sh", "-ec", script], { stdout: "pipe", stderr: "pipe" });
    if (made.exitCode !== 0) throw new Error(`${script}: ${made.stderr.toString()}`);
    // Mount points, as whoever starts a container makes them.
    for (const name of ["proc", "dev", "state", "config"]) mkdirSync(join(tree, name));
    writeFileSync(join(tree, "config/shop.yaml"), namespaceYaml("shop", true));
  });

  test("has the program, its loader and its libraries, and nothing that could run beside it", () => {
    const files = [...new Bun.Glob("**/*").scanSync({ cwd: tree, onlyFiles: true })].filter((name) => !name.startsWith("config/"));
    expect(files).toContain("weft");
    expect(files.filter((name) => name !== "weft" && !/^(usr\/)?lib(64)?\/.*\.so/.test(name))).toEqual([]);
  });

  testUnless(firstReason(unsealed, needsProgram("setpriv")))("runs with a read-only root, the capabilities of the agent's container and no way to more", async () => {
    const log = join(folder, "image.log");
    const child = Bun.spawn(["unshare", "--mount", "sh", "-c", MOUNTS, "sh", tree, "/weft", "up", "--config", "/config", "--state", "/state", "--readiness-address", READINESS, "--node", "image"], { env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }, stdio: ["ignore", Bun.file(log), Bun.file(log)] });
    try {
      await until(() => `the program in the image to be ready: ${readFileSync(log, "utf8")}`, READY_MS, () => {
        if (child.exitCode !== null) throw new Error(`it ended with status ${child.exitCode}: ${readFileSync(log, "utf8")}`);
        return fetch(`http://${READINESS}/healthz/ready`).then((answer) => answer.ok, () => false);
      });
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      const allowed = BigInt(`0x${/^CapBnd:\s+([0-9a-f]+)$/m.exec(status)?.[1]}`);
      // CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_CHROOT, CAP_SYS_ADMIN.
      expect([...Array(64).keys()].filter((bit) => (allowed >> BigInt(bit)) & 1n)).toEqual([12, 13, 18, 21]);
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    } finally {
      child.kill("SIGTERM");
      await child.exited;
    }
  }, 60_000);
});
