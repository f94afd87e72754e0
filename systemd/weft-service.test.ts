// The unit file: systemd accepts it, its ExecStart line is one that this version of the program understands, and run with the unit's
// capabilities and nothing more it captures workloads, carries traffic, tells the service manager, and ends when it is told to.

import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { closeAll, receiveWithDescriptors } from "../src/net/fd-passing.ts";
import { AF_UNIX, bind, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket } from "../src/net/libc.ts";
import { unixAddress } from "../src/net/unix-socket.ts";
import { parseSettings } from "../src/runtime/settings.ts";
import { unsealed } from "../test/kit/box.ts";
import { ask, documents, entryYaml, namespaceYaml, serve, until } from "../test/kit/mesh.ts";
import { MeshNetwork } from "../test/kit/network.ts";
import { firstReason, needsProgram, testUnless } from "../test/kit/skip.ts";

const UNIT = join(import.meta.dir, "weft.service");
const SOURCES = join(import.meta.dir, "../src/main.ts");
/** systemd's own score: 10 is unprotected. A change that raises it is worth a thought. */
const EXPOSURE_MAX = 3;

/** The values of a key, in order. */
function unitValues(key: string): string[] {
  return readFileSync(UNIT, "utf8").split("\n").filter((line) => line.startsWith(`${key}=`)).map((line) => line.slice(key.length + 1));
}

function execStart(): string[] {
  return unitValues("ExecStart")[0]!.split(" ");
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

testUnless(needsProgram("systemd-analyze"))("the unit: is no more exposed than it has to be", () => {
  const analysed = Bun.spawnSync(["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT], { stderr: "pipe", stdout: "pipe" });
  const score = /Overall exposure level for weft.service: ([0-9.]+)/.exec(analysed.stdout.toString())?.[1];
  expect(Number(score)).toBeLessThanOrEqual(EXPOSURE_MAX);
});

/** A service manager's end of NOTIFY_SOCKET. */
class FakeManager {
  readonly path: string;
  readonly #fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  readonly messages: string[] = [];

  constructor(path: string) {
    this.path = path;
    const bound = bind(this.#fd, unixAddress(path)!);
    if (bound < 0) throw new Error(`bind: ${bound}`);
  }

  poll(): readonly string[] {
    const into = new Uint8Array(4096);
    for (;;) {
      const receipt = receiveWithDescriptors(this.#fd, into, 0);
      if (receipt.kind !== "received" || receipt.received.length < 0) return this.messages;
      this.messages.push(new TextDecoder().decode(into.subarray(0, receipt.received.length)));
    }
  }

  close(): void {
    closeAll([this.#fd]);
  }
}

testUnless(firstReason(unsealed, needsProgram("setpriv")))("the unit: its ExecStart line, run as the unit runs it, carries traffic with the unit's capabilities alone", async () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-unit-"));
  const manager = new FakeManager(join(folder, "notify"));
  const network = MeshNetwork.create();
  try {
    const machine = network.node("machine");
    const [client, web] = [machine.workload("client"), machine.workload("web")];
    await serve(web, "http", 8080, "web");
    mkdirSync(join(folder, "config"));
    writeFileSync(join(folder, "config/shop.yaml"), documents(namespaceYaml("shop", true), entryYaml(client), entryYaml(web)));

    const [, ...line] = execStart();
    const args = line.map((word) => word.replace("/etc/weft/config", join(folder, "config")).replace("/var/lib/weft", join(folder, "state")));
    const bounding = unitValues("CapabilityBoundingSet")[0]!.split(" ").map((name) => name.replace(/^CAP_/, "+").toLowerCase());
    const environment = Object.fromEntries(unitValues("Environment").map((text) => [text.slice(0, text.indexOf("=")), text.slice(text.indexOf("=") + 1)]));
    const logPath = join(folder, "log");
    const child = machine.exec(
      ["setpriv", `--bounding-set=-all,${bounding.join(",")}`, "--inh-caps=-all", "--no-new-privs", "--", process.execPath, SOURCES, ...args, "--log-file", logPath],
      { stdout: "inherit", stderr: "inherit", env: { ...environment, NOTIFY_SOCKET: manager.path, WATCHDOG_USEC: "400000", NODE_NAME: "machine", ENABLE_ORIG_SRC: "true" } },
    );
    let status: number | null = null;
    void child.exited.then((code) => (status = code));
    const log = (): string => readFileSync(logPath, "utf8");
    await until("READY=1", 20_000, () => {
      if (status !== null) throw new Error(`it ended with status ${status}:\n${log()}`);
      return manager.poll().includes("READY=1");
    });
    await until("both workloads to be captured", 10_000, () => /\/shop\/web is in the mesh/.test(log()) && /\/shop\/client is in the mesh/.test(log()));
    const capabilities = /^CapEff:\s+([0-9a-f]+)$/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))![1]!;
    expect(BigInt(`0x${capabilities}`)).toBe((1n << 21n) | (1n << 12n)); // CAP_SYS_ADMIN, CAP_NET_ADMIN

    expect(await ask(client, "get", `http://${web.ipv4}:8080/`)).toStartWith("200");
    await until("its line in the access log", 5_000, () => /connection complete.*dst\.workload="web"/.test(log()));
    const fed = manager.poll().filter((message) => message === "WATCHDOG=1").length;
    await until("the watchdog to be fed again", 5_000, () => manager.poll().filter((message) => message === "WATCHDOG=1").length > fed);

    const reloads = log().length;
    child.kill("SIGHUP"); // ExecReload
    await until("a reload to leave it running", 5_000, () => log().length >= reloads && status === null);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(manager.poll()).toContain("STOPPING=1");
    expect(manager.messages.indexOf("READY=1")).toBeLessThan(manager.messages.indexOf("STOPPING=1"));
  } finally {
    await network[Symbol.asyncDispose]();
    manager.close();
    rmSync(folder, { recursive: true, force: true });
  }
}, 60_000);
