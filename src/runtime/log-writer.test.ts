import { closeSync } from "node:fs";
import { describe, expect, test } from "bun:test";
import { Log } from "./logger.ts";
import { formatLine } from "./logger.ts";
import { descriptorSink, type LogSink, LogWriter } from "./log-writer.ts";
import { parseLogFilter } from "./log-filter.ts";

/** A reader that takes what and when the test says. */
class ManualSink implements LogSink {
  written = "";
  pending: { bytes: Uint8Array; done: (error: Error | null, taken: number) => void } | null = null;

  write(bytes: Uint8Array, done: (error: Error | null, taken: number) => void): void {
    if (this.pending !== null) throw new Error("two writes at once");
    this.pending = { bytes, done };
  }

  take(count = Number.POSITIVE_INFINITY): void {
    const { bytes, done } = this.pending!;
    this.pending = null;
    const taken = Math.min(count, bytes.length);
    this.written += new TextDecoder().decode(bytes.subarray(0, taken));
    done(null, taken);
  }

  fail(): void {
    const { done } = this.pending!;
    this.pending = null;
    done(new Error("ENOSPC"), 0);
  }
}

const make = (queueBytesMax = 100) => {
  const sink = new ManualSink();
  return { sink, writer: new LogWriter({ sink, queueBytesMax, droppedLine: (count) => `[${count} lines dropped]\n` }) };
};

describe("writing", () => {
  test("one write is under way at a time, and what came meanwhile goes out together", () => {
    const { sink, writer } = make();
    writer.write("a\n", 1);
    writer.write("b\n", 1);
    writer.write("c\n", 1);
    sink.take();
    expect(sink.written).toBe("a\n");
    sink.take();
    expect(sink.written).toBe("a\nb\nc\n");
    expect(sink.pending).toBeNull();
  });

  test("a short write goes on where it stopped", () => {
    const { sink, writer } = make();
    writer.write("hello\n", 1);
    sink.take(2);
    sink.take(0);
    sink.take();
    expect(sink.written).toBe("hello\n");
  });

  test("a reader that takes nothing costs lines, not memory, and the log says how many when it recovers", () => {
    const { sink, writer } = make(40);
    writer.write("first\n", 1);
    for (let i = 0; i < 1000; i++) writer.write("123456789\n", 1);
    expect(writer.droppedCount).toBe(996);
    sink.take();
    sink.take();
    writer.write("after\n", 1);
    sink.take();
    while (sink.pending !== null) sink.take();
    expect(sink.written).toBe(`first\n${"123456789\n".repeat(4)}[996 lines dropped]\nafter\n`);
  });

  test("credit is given back for dropped lines too", () => {
    const { writer } = make(10);
    let given = 0;
    for (let i = 0; i < 5; i++) writer.write("123456789\n", 1, () => given++);
    expect(given).toBe(4); // one is under way, one waits, three were dropped
  });

  test("bytes of another thread are written as they are, and freed when they are written or dropped", () => {
    const { sink, writer } = make(70_000);
    const bytes = (): Uint8Array => new Uint8Array(new ArrayBuffer(50_000), 0, 40_000).fill(0x61);
    const [first, second, dropped] = [bytes(), bytes(), bytes()];
    writer.write(first, 1);
    writer.write(second, 1);
    writer.write(dropped, 1);
    expect([first.length, second.length, dropped.length]).toEqual([40_000, 40_000, 0]);
    sink.take(10);
    expect(first.length).toBe(40_000);
    sink.take();
    sink.take();
    expect([sink.written.length, first.length, second.length, writer.droppedCount]).toEqual([80_000, 0, 0, 1]);
  });

  test("a failed write counts its lines and the next one is tried", () => {
    const { sink, writer } = make();
    writer.write("a\nb\n", 2);
    sink.fail();
    expect([writer.droppedCount, writer.failureCount]).toEqual([2, 1]);
    writer.write("c\n", 1);
    while (sink.pending !== null) sink.take();
    expect(sink.written).toBe("[2 lines dropped]\nc\n");
  });

  test("flush waits for the last line, but not for ever", async () => {
    const { sink, writer } = make();
    writer.write("a\n", 1);
    const flushed = writer.flush(60_000);
    sink.take();
    await flushed;
    writer.write("b\n", 1);
    await writer.flush(1);
    expect(sink.pending).not.toBeNull();
  });

  test("a real pipe is written to", async () => {
    const child = Bun.spawn(["cat"], { stdin: "pipe", stdout: "pipe" });
    const reader = new Response(child.stdout).text();
    const writer = new LogWriter({ sink: { write: (bytes, done) => { child.stdin.write(bytes); child.stdin.flush(); done(null, bytes.length); } }, droppedLine: String });
    writer.write("through\n", 1);
    await writer.flush(1000);
    child.stdin.end();
    expect(await reader).toBe("through\n");
  });

  test("a descriptor that is closed is a failure, not a crash", async () => {
    const fd = (await import("node:fs")).openSync("/dev/null", "w");
    closeSync(fd);
    const writer = new LogWriter({ sink: descriptorSink(fd), droppedLine: String });
    writer.write("lost\n", 1);
    await writer.flush(5000);
    expect(writer.failureCount).toBe(1);
  });
});

describe("the process's log", () => {
  const filterOf = (text: string) => {
    const parsed = parseLogFilter(text);
    if (!parsed.ok) throw new Error(parsed.error);
    return parsed.value;
  };

  test("is filtered by scope and level, and the filter can be changed and put back", () => {
    const { sink, writer } = make(10_000);
    const log = new Log({ writer, clock: { monotonicMs: () => 0, wallMs: () => 0 }, format: "text", filter: filterOf("warn,ca=debug") });
    log.scope("ca").debug("one");
    log.scope("ztunnel").info("two");
    expect(log.changeFilter("nonsense=loud")).toContain("not a level");
    expect(log.changeFilter("info,access=off")).toBeNull();
    log.scope("ztunnel").info("three");
    log.accessLines("access line\n", 1);
    log.changeFilter("", "initial");
    log.scope("ztunnel").info("four");
    while (sink.pending !== null) sink.take();
    expect(sink.written.match(/one|two|three|four|access line/g)).toEqual(["one", "three"]);
  });

  test("lines cannot be forged", () => {
    const fields = { path: 'a" level="x\ny', ok: true, count: 3, none: null, absent: undefined };
    expect(formatLine("text", 0, "info", "ca", "bad\nnews", fields)).toBe('1970-01-01T00:00:00.000Z\tinfo\tca\tbad\\nnews path="a\\" level=\\"x\\ny" ok=true count=3 none=null\n');
    expect(JSON.parse(formatLine("json", 0, "info", "ca", "bad\nnews", fields))).toEqual({
      level: "info", time: "1970-01-01T00:00:00.000Z", scope: "ca", message: "bad\nnews", path: fields.path, ok: true, count: 3, none: null,
    });
  });
});
