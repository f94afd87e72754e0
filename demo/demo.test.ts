// `npm run demo -- --stay` as a person meets it: the printed way into the box works, and Ctrl-C leaves nothing behind.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unsealed } from "../test/kit/box.ts";
import { until } from "../test/kit/until.ts";
import { describeUnless } from "../test/kit/skip.ts";

/** The demo itself takes five seconds on an idle machine. */
const LIMIT_MS = 60_000;

describeUnless(unsealed)("the demo that stays", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-demo-test-"));
  const leftovers = (): string[] => readdirSync(folder);
  let printed = "";
  let demo: Bun.Subprocess<"ignore", "pipe", "inherit">;

  beforeAll(() => {
    // As started on a machine: without what says that we are in a box, it makes one of its own.
    const { WEFT_TEST_OUTSIDE_NETNS: _netns, WEFT_TEST_OUTSIDE_USERNS: _userns, ...env } = process.env;
    demo = Bun.spawn([process.execPath, join(import.meta.dir, "demo.ts"), "--stay"], { stdin: "ignore", stdout: "pipe", stderr: "inherit", env: { ...env, TMPDIR: folder }, detached: true });
    void (async () => {
      for await (const chunk of demo.stdout) printed += Buffer.from(chunk).toString();
    })();
  });

  afterAll(async () => {
    demo.kill("SIGTERM");
    await demo.exited;
    rmSync(folder, { recursive: true, force: true });
  });

  test("its first command leads into the box, where front can ask web", async () => {
    await until("the demo to stay", LIMIT_MS, () => {
      if (demo.exitCode !== null) throw new Error(`the demo ended with status ${demo.exitCode}:\n${printed}`);
      return printed.includes("the agents' logs");
    });
    const [enter, ask] = [/^ +(nsenter -t .*) bash$/m, /^ +(nsenter --net=\S+ curl \S+)/m].map((pattern) => pattern.exec(printed)?.[1] ?? "");
    expect(enter).not.toBe("");
    const seen = Bun.spawnSync([...enter!.split(" "), "sh", "-c", ask!.replace("curl", "curl -s")]);
    expect(`${seen.stderr}${seen.stdout}`).toStartWith("the-secret-of-the-shop");
  }, LIMIT_MS + 5_000);

  test("Ctrl-C ends it and takes the folder with the CA's key away", async () => {
    const [mesh] = leftovers().filter((name) => name.startsWith("weft-mesh-"));
    expect(existsSync(join(folder, mesh!, "state-east/ca"))).toBe(true);
    // What a terminal does to every process of the group: SIGINT, and SIGHUP when an impatient person closes it.
    process.kill(-demo.pid, "SIGINT");
    process.kill(-demo.pid, "SIGHUP");
    expect(await demo.exited).toBe(0);
    expect(leftovers()).toEqual([]);
  }, LIMIT_MS);
});
