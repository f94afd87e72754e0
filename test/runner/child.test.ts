// A child that does not end by itself, and one that leaves processes elsewhere: neither holds up a run.

import { describe, expect, test } from "bun:test";
import { runChild } from "./child.ts";

const run = (script: string, limitSeconds: number) => runChild(["sh", "-c", script], { limitSeconds });

describe("a child", () => {
  test("that ends has its output and its status", async () => {
    expect(await run("echo out; echo err >&2; exit 3", 5)).toMatchObject({ exitCode: 3, timedOut: false, output: expect.stringContaining("err") });
  });

  test("beyond its limit is asked to end before it is made to", async () => {
    const result = await run("trap 'echo tidied; exit 7' TERM; echo begun; while :; do sleep 0.05; done", 0.5);
    expect(result).toMatchObject({ timedOut: true, exitCode: 7, output: expect.stringContaining("tidied") });
  });

  test("whose processes in another group still hold its pipes is done when it has ended", async () => {
    const result = await run("setsid sleep 30 & echo $!; sleep 0.5; exit 0", 20);
    expect(result).toMatchObject({ timedOut: false, exitCode: 0 });
    expect(result.seconds).toBeGreaterThan(2);
    expect(result.seconds).toBeLessThan(15);
    process.kill(Number(result.output.trim()), "SIGKILL");
  });
});
