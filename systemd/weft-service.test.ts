// The unit file: systemd accepts it, its ExecStart line is one that this version of the program understands, and run with the unit's
// capabilities and nothing more it captures workloads, carries traffic, tells the service manager, and ends when it is told to; restarted,
// it finds its sockets again.

import { expect, test } from "bun:test";
import { existsSync, fstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { closeAll, DESCRIPTORS_PER_MESSAGE_MAX, receiveWithDescriptors } from "../src/net/fd-passing.ts";
import { AF_UNIX, bind, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket } from "../src/net/libc.ts";
import { unixAddress } from "../src/net/unix-socket.ts";
import { parseSettings } from "../src/runtime/settings.ts";
import { unsealed } from "../test/kit/box.ts";
import { ask, documents, entryYaml, namespaceYaml, serve } from "../test/kit/mesh.ts";
import { until } from "../test/kit/until.ts";
import { MeshNetwork } from "../test/kit/network.ts";
import { freezeThread } from "../test/kit/thread.ts";
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

/** A service manager's end of NOTIFY_SOCKET, and its store of descriptors. */
class FakeManager {
  readonly path: string;
  readonly #fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  readonly #messages: string[] = [];
  readonly #store: { readonly name: string; readonly fd: number }[] = [];

  constructor(path: string) {
    this.path = path;
    const bound = bind(this.#fd, unixAddress(path)!);
    if (bound < 0) throw new Error(`bind: ${bound}`);
  }

  /** Everything said so far, without the descriptors' messages. */
  get messages(): readonly string[] {
    const into = new Uint8Array(4096);
    for (;;) {
      const receipt = receiveWithDescriptors(this.#fd, into, DESCRIPTORS_PER_MESSAGE_MAX);
      if (receipt.kind !== "received") throw new Error(receipt.message);
      if (receipt.received.length < 0) return this.#messages;
      this.#take(new TextDecoder().decode(into.subarray(0, receipt.received.length)), receipt.received.fds);
    }
  }

  /** As LISTEN_FDS passes them. */
  get stored(): readonly { readonly name: string; readonly fd: number }[] {
    void this.messages;
    return this.#store;
  }

  #take(text: string, fds: readonly number[]): void {
    const name = /^FDNAME=(.*)$/m.exec(text)?.[1] ?? "";
    if (text.startsWith("FDSTORE=1")) {
      // As systemd does: what it has already is not kept twice.
      for (const fd of fds) {
        if (this.#store.some((kept) => kept.name === name && fstatSync(kept.fd).ino === fstatSync(fd).ino)) closeAll([fd]);
        else this.#store.push({ name, fd });
      }
      return;
    }
    expect(fds).toEqual([]);
    if (!text.startsWith("FDSTOREREMOVE=1")) return void this.#messages.push(text);
    for (let i = this.#store.length - 1; i >= 0; i--) if (this.#store[i]!.name === name) closeAll([this.#store.splice(i, 1)[0]!.fd]);
  }

  close(): void {
    closeAll([this.#fd, ...this.#store.map(({ fd }) => fd)]);
  }
}

const unitTest = testUnless(firstReason(unsealed, needsProgram("setpriv")));

/** A machine with two captured workloads on which the unit is started as systemd would. */
class Machine implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "weft-unit-"));
  readonly manager = new FakeManager(join(this.folder, "notify"));
  readonly #network = MeshNetwork.create();
  readonly machine = this.#network.node("machine");
  readonly client = this.machine.workload("client");
  readonly web = this.machine.workload("web");
  readonly #logPath = join(this.folder, "log");
  readonly #strays: number[] = [];

  async prepare(): Promise<void> {
    await serve(this.web, "http", 8080, "web");
    mkdirSync(join(this.folder, "config"));
    writeFileSync(join(this.folder, "config/shop.yaml"), documents(namespaceYaml("shop", true), entryYaml(this.client), entryYaml(this.web)));
  }

  get log(): string {
    return existsSync(this.#logPath) ? readFileSync(this.#logPath, "utf8") : "";
  }

  /** Starts the unit with what the manager has stored, and waits until it is ready. */
  async start(): Promise<Bun.Subprocess> {
    const [, ...line] = execStart();
    const args = line.map((word) => word.replace("/etc/weft/config", join(this.folder, "config")).replace("/var/lib/weft", join(this.folder, "state")));
    const bounding = unitValues("CapabilityBoundingSet")[0]!.split(" ").map((name) => name.replace(/^CAP_/, "+").toLowerCase());
    const environment = Object.fromEntries(unitValues("Environment").map((text) => [text.slice(0, text.indexOf("=")), text.slice(text.indexOf("=") + 1)]));
    const { stored } = this.manager;
    const listen = stored.length === 0 ? {} : { LISTEN_FDS: String(stored.length), LISTEN_FDNAMES: stored.map(({ name }) => name).join(":") };
    const before = this.manager.messages.length;
    const child = Bun.spawn([
      "nsenter", `--net=${this.machine.namespacePath}`, "--", "sh", "-c", 'LISTEN_PID=$$ exec "$@"', "unit",
      "setpriv", `--bounding-set=-all,${bounding.join(",")}`, "--inh-caps=-all", "--no-new-privs", "--", process.execPath, SOURCES, ...args, "--log-file", this.#logPath,
    ], {
      stdio: ["ignore", "inherit", "inherit", ...stored.map(({ fd }) => fd)],
      env: { ...process.env, ...environment, ...listen, NOTIFY_SOCKET: this.manager.path, WATCHDOG_USEC: "400000", NODE_NAME: "machine", ENABLE_ORIG_SRC: "true" },
    });
    this.endsWithIt(child.pid);
    await until("READY=1", 20_000, () => {
      if (child.exitCode !== null) throw new Error(`it ended with status ${child.exitCode}:\n${this.log}`);
      return this.manager.messages.slice(before).includes("READY=1");
    });
    return child;
  }

  get(): Promise<string> {
    return ask(this.client, "get", `http://${this.web.ipv4}:8080/`);
  }

  /** A process that nobody else would end. */
  endsWithIt(pid: number): void {
    this.#strays.push(pid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.#strays) if (existsSync(`/proc/${pid}`)) process.kill(pid, "SIGKILL");
    await this.#network[Symbol.asyncDispose]();
    this.manager.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

unitTest("the unit: its ExecStart line, run as the unit runs it, carries traffic with the unit's capabilities alone", async () => {
  await using unit = new Machine();
  await unit.prepare();
  const { manager } = unit;
  const child = await unit.start();
  await until("both workloads to be captured", 10_000, () => /\/shop\/web is in the mesh/.test(unit.log) && /\/shop\/client is in the mesh/.test(unit.log));
  const capabilities = /^CapEff:\s+([0-9a-f]+)$/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))![1]!;
  expect(BigInt(`0x${capabilities}`)).toBe((1n << 21n) | (1n << 12n)); // CAP_SYS_ADMIN, CAP_NET_ADMIN

  expect(await unit.get()).toStartWith("200");
  await until("its line in the access log", 5_000, () => /connection complete.*dst\.workload="web"/.test(unit.log));
  const fed = manager.messages.filter((message) => message === "WATCHDOG=1").length;
  await until("the watchdog to be fed again", 5_000, () => manager.messages.filter((message) => message === "WATCHDOG=1").length > fed);

  const reloads = unit.log.length;
  child.kill("SIGHUP"); // ExecReload
  await until("a reload to leave it running", 5_000, () => unit.log.length >= reloads && child.exitCode === null);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  expect(manager.messages).toContain("STOPPING=1");
  expect(manager.messages.indexOf("READY=1")).toBeLessThan(manager.messages.indexOf("STOPPING=1"));
}, 60_000);

unitTest("the unit: restarted, stopped or killed, it finds its sockets again, and what connected meanwhile is served", async () => {
  await using unit = new Machine();
  await unit.prepare();
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const child = await unit.start();
    expect(unit.manager.stored.map(({ name }) => name.split(".").at(-1))).toEqual(expect.arrayContaining(["outbound", "inbound-plaintext", "inbound-hbone", "dns-udp4", "admin", "readiness"]));
    child.kill(signal);
    await child.exited;
    const stored = unit.manager.stored.length;
    // Nobody serves now: the kernel takes the connections, and they wait.
    const asked = [unit.get(), unit.get(), ask(unit.machine, "get", "http://127.0.0.1:15021/healthz/ready")];
    await until("three connections to wait in the queues", 5_000, () => waiting(unit) >= 3);
    const again = await unit.start();
    for (const answer of asked) expect(await answer).toStartWith("200");
    again.kill("SIGTERM");
    expect(await again.exited).toBe(0);
    // The very same ones: none was let go, none made anew.
    expect(unit.manager.stored.length).toBe(stored);
  }
}, 60_000);

unitTest("the unit: on SIGUSR2 another process is the service, without an end in between", async () => {
  await using unit = new Machine();
  await unit.prepare();
  const child = await unit.start();
  const before = unit.manager.messages.length;
  child.kill("SIGUSR2");
  const main = await until("MAINPID", 20_000, () => unit.manager.messages.find((message) => message.startsWith("MAINPID="))).catch((error: Error) => {
    throw new Error(`${error.message}; the log:\n${unit.log}`);
  });
  await until("READY=1 of the new main process", 5_000, () => unit.manager.messages.lastIndexOf("READY=1") > unit.manager.messages.indexOf(main));
  const successor = Number(main.slice("MAINPID=".length));
  unit.endsWithIt(successor);
  expect(successor).not.toBe(child.pid);
  expect(await child.exited).toBe(0);
  expect(await unit.get()).toStartWith("200");
  const fed = unit.manager.messages.filter((message) => message === "WATCHDOG=1").length;
  await until("the watchdog to be fed by it", 5_000, () => unit.manager.messages.filter((message) => message === "WATCHDOG=1").length > fed);
  expect(unit.manager.messages.slice(before)).not.toContain("STOPPING=1");
  process.kill(successor, "SIGTERM");
  await until("its end", 10_000, () => unit.manager.messages.includes("STOPPING=1") && !existsSync(`/proc/${successor}/exe`));
}, 60_000);

unitTest("the unit: the watchdog is not fed while a data thread hangs", async () => {
  await using unit = new Machine();
  await unit.prepare();
  const child = await unit.start();
  const fed = (): number => unit.manager.messages.filter((message) => message === "WATCHDOG=1").length;
  {
    using _frozen = freezeThread(child.pid, "Worker");
    await until("the thread to be missed", 5_000, () => /a data thread does not answer.*thread="data-0"/.test(unit.log));
    const before = fed();
    // It takes two seconds, ten times the period of the watchdog: the thread does not say what it counts.
    const metrics = await ask(unit.machine, "get", "http://127.0.0.1:15020/metrics");
    expect(Number(/^weft_thread_lag_seconds\{thread="data-0"\} (\S+)$/m.exec(metrics)?.[1])).toBeGreaterThan(1);
    expect(Number(/^weft_thread_lag_seconds\{thread="main"\} (\S+)$/m.exec(metrics)?.[1])).toBeLessThan(1);
    expect(fed()).toBe(before);
  }
  const before = fed();
  await until("the watchdog to be fed again", 5_000, () => fed() > before && /a data thread answers again/.test(unit.log));
  expect(await unit.get()).toStartWith("200");
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
}, 60_000);

/** Connections that are established and have not been accepted, at our ports in the client's namespace and on the machine. */
function waiting({ client, machine }: Machine): number {
  return [client, machine].reduce((sum, place) => sum + Number(Bun.spawnSync(["nsenter", `--net=${place.namespacePath}`, "ss", "-Hltn", "sport = :15001 or sport = :15021"]).stdout.toString()
    .split("\n").reduce((queued, line) => queued + Number(line.trim().split(/\s+/)[1] ?? 0), 0)), 0);
}
