import { existsSync, mkdtempSync, openSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "bun:test";
import { closeAll, sendWithDescriptors } from "../net/fd-passing.ts";
import { accept, SOCK_STREAM } from "../net/libc.ts";
import { connectUnix, listenUnix } from "../net/unix-socket.ts";
import { HandoverServer, takeOver } from "./handover.ts";
import type { NamedSocket } from "./inherited-sockets.ts";
import { encodeFrame, FRAME_BYTES_MAX, FrameReader, type HandoverMessage, stepPredecessor, stepSuccessor } from "./handover-protocol.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-handover-"));
afterAll(() => rmSync(folder, { recursive: true }));
let sockets = 0;
const newPath = (): string => join(folder, `h${sockets++}.sock`);
const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

describe("protocol", () => {
  const messages: HandoverMessage[] = [
    { kind: "hello", version: 1, role: "up", pid: 7 }, { kind: "offer", count: 2, pid: 8 }, { kind: "refuse", why: "no" },
    { kind: "batch", labels: [{ name: "w1.outbound" }] }, { kind: "ready" }, { kind: "released" },
  ];

  test("frames come out as they went in, however they are cut", () => {
    const bytes = Buffer.concat(messages.map(encodeFrame));
    for (const size of [1, 3, 7, bytes.length]) {
      const reader = new FrameReader();
      const out: HandoverMessage[] = [];
      for (let at = 0; at < bytes.length; at += size) {
        const read = reader.push(bytes.subarray(at, at + size));
        if (!read.ok) throw new Error(read.error);
        out.push(...read.value);
      }
      expect(out).toEqual(messages);
    }
  });

  test.each([
    "[]", "null", "7", "{", '{"kind":"other"}', '{"kind":"ready","more":1}', '{"kind":"hello","version":1,"role":"up"}', '{"kind":"hello","version":"1","role":"up","pid":1}',
    '{"kind":"offer","count":-1,"pid":1}', '{"kind":"offer","count":60001,"pid":1}', '{"kind":"batch","labels":[]}', '{"kind":"batch","labels":[{"name":7}]}',
    '{"kind":"batch","labels":[{"name":"a","fd":3}]}', `{"kind":"batch","labels":[{"name":"${"x".repeat(256)}"}]}`, '{"kind":"__proto__"}', `{"kind":"refuse","why":"${"x".repeat(2000)}"}`,
  ])("%s is refused", (body) => {
    const bytes = new TextEncoder().encode(body);
    const frame = new Uint8Array(4 + bytes.length);
    new DataView(frame.buffer).setUint32(0, bytes.length);
    frame.set(bytes, 4);
    expect(new FrameReader().push(frame).ok).toBe(false);
  });

  test("a length without end is refused before its bytes are waited for", () => {
    const header = new Uint8Array(4);
    for (const length of [0, FRAME_BYTES_MAX + 1, 0xffff_ffff]) {
      new DataView(header.buffer).setUint32(0, length);
      expect(new FrameReader().push(header).ok).toBe(false);
    }
  });

  test("the successor takes exactly what was offered", () => {
    const label = { name: "a.x" };
    const batch: HandoverMessage = { kind: "batch", labels: [label, label] };
    const offered = stepSuccessor({ kind: "asked" }, { kind: "offer", count: 3, pid: 1 }, 0);
    const some = stepSuccessor(offered, batch, 2);
    expect(some).toMatchObject({ kind: "receiving", received: 2 });
    expect(stepSuccessor(some, batch, 2).kind).toBe("failed");
    expect(stepSuccessor(offered, batch, 1).kind).toBe("failed");
    expect(stepSuccessor(offered, { kind: "released" }, 0).kind).toBe("failed");
    expect(stepSuccessor(stepSuccessor(some, { kind: "batch", labels: [label] }, 1), { kind: "released" }, 0).kind).toBe("released");
    expect(stepSuccessor({ kind: "asked" }, { kind: "refuse", why: "busy" }, 0)).toMatchObject({ kind: "failed", why: "the running process refused: busy" });
  });

  test("the predecessor gives nothing up before it is asked by its own kind and told that all is well", () => {
    const hello: HandoverMessage = { kind: "hello", version: 1, role: "up", pid: 1 };
    expect(stepPredecessor({ kind: "waiting" }, { kind: "ready" }, 0, "up").kind).toBe("failed");
    expect(stepPredecessor({ kind: "waiting" }, { ...hello, version: 2 }, 0, "up")).toMatchObject({ kind: "failed" });
    expect(stepPredecessor({ kind: "waiting" }, hello, 0, "ca").kind).toBe("failed");
    expect(stepPredecessor({ kind: "waiting" }, hello, 1, "up").kind).toBe("failed");
    expect(stepPredecessor(stepPredecessor({ kind: "waiting" }, hello, 0, "up"), { kind: "ready" }, 0, "up").kind).toBe("handedOver");
  });
});

describe("within one process", () => {
  function server(over: { offer?: () => readonly NamedSocket[] | null; exchangeMs?: number; readyMs?: number } = {}) {
    const path = newPath();
    const events: string[] = [];
    const changed: (() => void)[] = [];
    const note = (text: string): void => {
      events.push(text);
      for (const resolve of changed.splice(0)) resolve();
    };
    const listening = HandoverServer.listen({
      path, role: "up", offer: over.offer ?? (() => []), onHandedOver: (pid) => note(`handed over to ${pid}`), onFailed: note,
      ...(over.exchangeMs === undefined ? {} : { exchangeMs: over.exchangeMs }), ...(over.readyMs === undefined ? {} : { readyMs: over.readyMs }),
    });
    if (!listening.ok) throw new Error(listening.error);
    return { path, events, handover: listening.value, event: () => new Promise<void>((resolve) => changed.push(resolve)) };
  }

  test("nobody there is no error", async () => {
    expect(await takeOver({ path: newPath(), role: "up" })).toEqual({ ok: true, value: null });
    const stale = server();
    stale.handover.end(false);
    expect(existsSync(stale.path)).toBe(true);
    expect(await takeOver({ path: stale.path, role: "up" })).toEqual({ ok: true, value: null });
  });

  test("a refusal says why", async () => {
    const busy = server({ offer: () => null });
    expect(await takeOver({ path: busy.path, role: "up" })).toMatchObject({ ok: false, error: { kind: "refused", message: "the running process refused: this process has nothing to hand over now" } });
    expect(await takeOver({ path: busy.path, role: "ca" })).toMatchObject({ ok: false, error: { kind: "refused", message: expect.stringContaining("this process a up; each role on a machine needs a --state of its own") } });
    expect(await takeOver({ path: busy.path, role: "up", version: 2 })).toMatchObject({
      ok: false, error: { kind: "refused", message: expect.stringContaining("it speaks version 2 of the handover, this process 1"), predecessorPid: process.pid },
    });
    busy.handover.end(true);
  });

  test("a successor that abandons, is silent, or talks nonsense leaves no descriptor and the predecessor serving", async () => {
    const file = openSync("/dev/null", "r");
    const target = server({ offer: () => [{ name: "w.outbound", fd: file }], exchangeMs: 1_000, readyMs: 1_000 });
    const before = openDescriptors();
    const first = await takeOver({ path: target.path, role: "up" });
    if (!first.ok || first.value === null) throw new Error("not taken");
    let event = target.event();
    first.value.abandon();
    closeAll(first.value.sockets.map(({ fd }) => fd));
    await event;
    for (const bytes of [new Uint8Array(0), new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"), encodeFrame({ kind: "hello", version: 1, role: "up", pid: 1 })]) {
      const client = connectUnix(target.path, SOCK_STREAM);
      if ("error" in client) throw new Error(client.error);
      event = target.event();
      if (bytes.length > 0) sendWithDescriptors(client.fd, bytes, []);
      await event;
      closeAll([client.fd]);
    }
    expect(target.events).toHaveLength(4);
    expect(target.events.map((each) => each.replace(/^process \d+: /, ""))).toEqual([
      "the other process ended", "the other process said nothing in time", "not understood: a frame of 1195725856 bytes", "the other process said nothing in time",
    ]);
    const last = await takeOver({ path: target.path, role: "up" });
    if (!last.ok || last.value === null) throw new Error("not taken");
    event = target.event();
    expect(await last.value.ready()).toEqual({ ok: true, value: "released" });
    expect(target.events.at(-1)).toBe(`handed over to ${process.pid}`);
    closeAll(last.value.sockets.map(({ fd }) => fd));
    // The two stay connected until the predecessor has ended; its own listener is closed already.
    let ended = false;
    const end = last.value.ended().then(() => (ended = true));
    await Bun.sleep(0);
    expect(ended).toBe(false);
    target.handover.end(false);
    await end;
    // One fewer: the server's own listener was open before.
    expect(openDescriptors()).toBe(before - 1);
    closeAll([file]);
  });

  test("a predecessor that ends while it is asked is nobody", async () => {
    const path = newPath();
    const listener = listenUnix(path, SOCK_STREAM, 1);
    if ("error" in listener) throw new Error(listener.error);
    const asked = takeOver({ path, role: "up" });
    closeAll([accept(listener.fd), listener.fd]);
    expect(await asked).toEqual({ ok: true, value: null });
  });

  test("a predecessor that ends before it has heard that the successor is ready is as good as one that left", async () => {
    const path = newPath();
    const listener = listenUnix(path, SOCK_STREAM, 1);
    if ("error" in listener) throw new Error(listener.error);
    const asked = takeOver({ path, role: "up" });
    const fd = accept(listener.fd);
    sendWithDescriptors(fd, encodeFrame({ kind: "offer", count: 0, pid: 7 }), []);
    const taken = await asked;
    if (!taken.ok || taken.value === null) throw new Error("not taken");
    closeAll([fd, listener.fd]);
    expect(await taken.value.ready()).toEqual({ ok: true, value: "gone" });
  });

  test("a predecessor that offers and says no more costs the successor its patience, not its descriptors", async () => {
    const path = newPath();
    const listener = listenUnix(path, SOCK_STREAM, 1);
    if ("error" in listener) throw new Error(listener.error);
    const before = openDescriptors();
    expect(await takeOver({ path, role: "up", exchangeMs: 50 })).toMatchObject({ ok: false, error: { kind: "silent", message: "the other process said nothing in time", predecessorPid: process.pid } });
    expect(openDescriptors()).toBe(before);
    closeAll([listener.fd]);
  });
});

describe("between two processes", () => {
  class Child {
    readonly process;
    readonly #lines: string[] = [];
    #wake: (() => void) | null = null;

    constructor(mode: string, path: string, port: number) {
      this.process = Bun.spawn([process.execPath, join(import.meta.dir, "handover-fixture.ts"), mode, path, String(port)], { stdout: "pipe", stderr: "inherit" });
      void this.#read();
    }

    async #read(): Promise<void> {
      let text = "";
      for await (const chunk of this.process.stdout.pipeThrough(new TextDecoderStream() as never) as unknown as AsyncIterable<string>) {
        text += chunk;
        const lines = text.split("\n");
        text = lines.pop()!;
        this.#lines.push(...lines);
        this.#wake?.();
      }
    }

    async line(): Promise<string> {
      while (this.#lines.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
      return this.#lines.shift()!;
    }

    async end(): Promise<void> {
      this.process.kill();
      await this.process.exited;
    }
  }

  /** What the server says that answers a new connection. */
  const ask = (port: number): Promise<string> => new Promise((resolve, reject) => {
    let text = "";
    Bun.connect({
      hostname: "127.0.0.1", port,
      socket: { data: (_s, chunk) => void (text += new TextDecoder().decode(chunk)), close: () => resolve(text), connectError: (_s, error) => reject(error), error: (_s, error) => reject(error) },
    }).catch(reject);
  });

  test("the new one serves, no connection is refused meanwhile, and a successor that is killed half-way changes nothing", async () => {
    const path = newPath();
    const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = probe;
    probe.stop(true);
    const old = new Child("old", path, port);
    expect(await old.line()).toBe("listening");
    expect(await ask(port)).toBe("old");

    const dying = new Child("dies", path, port);
    expect(await dying.line()).toBe("received 450 w449.outbound");
    expect(await old.line()).toContain("the other process ended");
    expect(await ask(port)).toBe("old");

    const answers = new Set<string>();
    let asking = true;
    const asked = (async () => {
      while (asking) answers.add(await ask(port));
    })();
    const successor = new Child("new", path, port);
    expect(await successor.line()).toBe("received 450 w449.outbound");
    expect(await old.line()).toBe("handed over");
    expect(await successor.line()).toBe("released");
    await old.end();
    asking = false;
    await asked;
    expect([...answers].every((answer) => answer === "old" || answer === "new")).toBe(true);
    expect(await ask(port)).toBe("new");
    await successor.end();
    await dying.process.exited;
  }, 30_000);
});
