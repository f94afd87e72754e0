import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "bun:test";
import { close, SOCK_DGRAM } from "../net/libc.ts";
import { closeAll, receiveWithDescriptors } from "../net/fd-passing.ts";
import { AF_UNIX, bind, SOCK_CLOEXEC, SOCK_NONBLOCK, socket } from "../net/libc.ts";
import { unixAddress } from "../net/unix-socket.ts";
import { EXECUTED_MARKER, GIVE_BACK_INTERVAL, judgeEnvironment, LAST_TIER, NEW_SHARE, TUNABLE } from "./exec-environment.ts";
import { Lifecycle, Readiness } from "./lifecycle.ts";
import { passedDescriptors, ServiceManager } from "./service-manager.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-life-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("readiness", () => {
  test("is reached when the last task ends, and lost again when a condition returns", () => {
    const readiness = new Readiness();
    const changes: boolean[] = [];
    const told: string[] = [];
    readiness.onChange((ready, before) => {
      if (ready !== before) changes.push(ready);
      else told.push(readiness.tasks.join("; "));
    });
    const first = readiness.pending("configuration");
    const second = readiness.pending("certificates", "the CA does not answer");
    expect(readiness.tasks).toEqual(["configuration", "certificates: the CA does not answer"]);
    first();
    first();
    expect(readiness.ready).toBe(false);
    second();
    readiness.set("data threads", "one has died");
    readiness.set("data threads", null);
    expect(changes).toEqual([false, true, false, true]);
    expect(told).toEqual(["configuration; certificates: the CA does not answer", "certificates: the CA does not answer"]);
    expect(() => [readiness.pending("x"), readiness.pending("x")]).toThrow("pending already");
  });
});

describe("stopping", () => {
  const reason = { message: "SIGTERM", successorPid: null, exitStatus: 0 };

  test("once drains, twice ends, and the first reason stays", async () => {
    const lifecycle = new Lifecycle();
    lifecycle.requestStop(reason);
    expect([lifecycle.stop.aborted, lifecycle.force.aborted]).toEqual([true, false]);
    lifecycle.requestStop({ ...reason, message: "SIGINT" });
    expect(lifecycle.force.aborted).toBe(true);
    expect((await lifecycle.stopped()).message).toBe("SIGTERM");
  });

  test("work that takes longer than the deadline is left", async () => {
    const lifecycle = new Lifecycle();
    expect(await lifecycle.within(60_000, Promise.resolve(3))).toBe(3);
    expect(await lifecycle.within(1, new Promise<number>(() => {}))).toBeNull();
    expect(lifecycle.force.aborted).toBe(true);
  });
});

describe("service manager", () => {
  function manager(): { path: string; fd: number; read: (fdsMax?: number) => { text: string; fds: readonly number[] } } {
    const path = join(folder, `notify-${Math.random()}`);
    const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    expect(bind(fd, unixAddress(path)!)).toBe(0);
    return {
      path, fd,
      read(fdsMax = 0) {
        const into = new Uint8Array(1024);
        const receipt = receiveWithDescriptors(fd, into, fdsMax);
        if (receipt.kind !== "received" || receipt.received.length < 0) throw new Error("nothing there");
        return { text: new TextDecoder().decode(into.subarray(0, receipt.received.length)), fds: receipt.received.fds };
      },
    };
  }

  test("is told of readiness, status, reload and the end", () => {
    const { path, fd, read } = manager();
    const service = new ServiceManager({ NOTIFY_SOCKET: path });
    service.ready();
    service.status("two\nlines");
    service.reloading();
    service.stopping();
    expect([read().text, read().text]).toEqual(["READY=1", "STATUS=two lines"]);
    expect(read().text).toMatch(/^RELOADING=1\nMONOTONIC_USEC=\d+$/);
    expect(read().text).toBe("STOPPING=1");
    close(fd);
  });

  test("keeps descriptors under a name", () => {
    const { path, fd, read } = manager();
    const file = openSync("/dev/null", "r");
    new ServiceManager({ NOTIFY_SOCKET: path }).storeDescriptors("listeners", [file, file]);
    const { text, fds } = read(4);
    expect(text).toBe("FDSTORE=1\nFDNAME=listeners\nFDPOLL=0");
    expect(fds).toHaveLength(2);
    closeAll([...fds, fd]);
    closeSync(file);
    expect(() => new ServiceManager({}).storeDescriptors("a:b", [])).toThrow("not a name");
  });

  test("a full queue loses nothing: the rest follows in order, descriptors that were closed meanwhile too", async () => {
    const { path, fd, read } = manager();
    const errors: string[] = [];
    const service = new ServiceManager({ NOTIFY_SOCKET: path }, (message) => errors.push(message));
    const count = Number(readFileSync("/proc/sys/net/unix/max_dgram_qlen", "utf8")) + 20;
    for (let i = 0; i < count; i++) {
      const file = openSync("/dev/null", "r");
      service.storeDescriptors(`listener-${i}`, [file]);
      closeSync(file);
    }
    let flushed = false;
    void service.flush(60_000).then(() => (flushed = true));
    for (let i = 0; i < count; ) {
      try {
        const { text, fds } = read(1);
        expect([text, fds.length]).toEqual([`FDSTORE=1\nFDNAME=listener-${i++}\nFDPOLL=0`, 1]);
        closeAll(fds);
      } catch (error) {
        if (!(error instanceof Error && error.message === "nothing there")) throw error;
        expect(flushed).toBe(false);
        await new Promise((resolve) => setImmediate(resolve)); // until what waits is sent
      }
    }
    expect(errors).toEqual([]);
    close(fd);
  });

  test("feeds the watchdog only of its own process", () => {
    const { path, fd, read } = manager();
    const service = new ServiceManager({ NOTIFY_SOCKET: path, WATCHDOG_USEC: "30000000", WATCHDOG_PID: String(process.pid) });
    expect(service.watchdogMs).toBe(30_000);
    service.startWatchdog(() => true);
    service.stopWatchdog();
    expect(read().text).toBe("WATCHDOG=1");
    expect(new ServiceManager({ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "1" }).watchdogMs).toBeNull();
    close(fd);
  });

  test("that is not there, or has gone, changes nothing", () => {
    new ServiceManager({}).ready();
    const errors: string[] = [];
    new ServiceManager({ NOTIFY_SOCKET: join(folder, "gone") }, (message) => errors.push(message)).ready();
    expect(errors[0]).toContain("ENOENT");
    expect(new ServiceManager({ NOTIFY_SOCKET: "relative" }).present).toBe(false);
  });

  test("passes descriptors to the process it names only", () => {
    const environment = { LISTEN_PID: "77", LISTEN_FDS: "2", LISTEN_FDNAMES: "a:b" };
    expect(passedDescriptors(environment, 77)).toEqual([{ fd: 3, name: "a" }, { fd: 4, name: "b" }]);
    expect(passedDescriptors(environment, 78)).toEqual([]);
    expect(passedDescriptors({ ...environment, LISTEN_FDS: "-1" }, 77)).toEqual([]);
  });
});

describe("environment", () => {
  const machine = { platform: "linux", arch: "x64", glibc: true, compiled: true, computes: false };

  test("without the tunable the process executes itself once, keeping what the operator set", () => {
    const first = judgeEnvironment({ PATH: "/bin", GLIBC_TUNABLES: "glibc.malloc.arena_max=2" }, machine);
    if (first.kind !== "execute") throw new Error(first.kind);
    expect(first.environment).toEqual({ PATH: "/bin", GLIBC_TUNABLES: `glibc.malloc.arena_max=2:${TUNABLE}=0x10000000`, [LAST_TIER]: "0", [GIVE_BACK_INTERVAL]: "1000", [EXECUTED_MARKER]: "1" });
    expect(judgeEnvironment(first.environment, machine).kind).toBe("proceed");
  });

  test("a value of the operator's own stays, and other machines need none", () => {
    const own = { [LAST_TIER]: "1", [GIVE_BACK_INTERVAL]: "100" };
    const notCopying = { kind: "execute", environment: { [LAST_TIER]: "0", [GIVE_BACK_INTERVAL]: "1000", [EXECUTED_MARKER]: "1" } } as const;
    expect(judgeEnvironment({ GLIBC_TUNABLES: `${TUNABLE}=0x800`, ...own }, machine).kind).toBe("proceed");
    expect(judgeEnvironment({}, { ...machine, arch: "arm64" })).toEqual(notCopying);
    expect(judgeEnvironment({}, { ...machine, glibc: false })).toEqual(notCopying);
    expect(judgeEnvironment(own, { ...machine, arch: "arm64" }).kind).toBe("proceed");
    expect(judgeEnvironment({ [LAST_TIER]: "1" }, { ...machine, arch: "arm64" })).toMatchObject({ environment: { [LAST_TIER]: "1", [GIVE_BACK_INTERVAL]: "1000" } });
    expect(judgeEnvironment({}, { ...machine, platform: "darwin" }).kind).toBe("proceed");
    expect(judgeEnvironment({ [EXECUTED_MARKER]: "1" }, machine).kind).toBe("proceed");
  });

  test("a role that computes keeps the compiler's last tier and looks at its whole heap more often, unless the operator says otherwise", () => {
    const computing = { ...machine, glibc: false, computes: true };
    expect(judgeEnvironment({}, computing)).toEqual({ kind: "execute", environment: { [NEW_SHARE]: "0.45", [GIVE_BACK_INTERVAL]: "1000", [EXECUTED_MARKER]: "1" } });
    expect(judgeEnvironment({ [NEW_SHARE]: "0.3" }, computing)).toMatchObject({ environment: { [NEW_SHARE]: "0.3" } });
    expect(judgeEnvironment({ [LAST_TIER]: "0" }, computing)).toMatchObject({ environment: { [LAST_TIER]: "0" } });
  });

  test("the compiled binary takes no orders to load code", () => {
    for (const name of ["BUN_OPTIONS", "NODE_OPTIONS", "BUN_INSPECT"]) {
      expect(judgeEnvironment({ [name]: "--preload /tmp/x.ts", [EXECUTED_MARKER]: "1" }, machine)).toMatchObject({ kind: "refuse" });
      expect(judgeEnvironment({ [name]: "--preload /tmp/x.ts" }, { ...machine, compiled: false }).kind).toBe("execute");
    }
  });
});
