// The file of a running program is replaced, as an installation does it, and the program starts its successor.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, copyFileSync, linkSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../../test/kit/until.ts";

setDefaultTimeout(30_000);

/** Says who it is; of the first, each line that it reads starts a successor, or says why none. */
const SCRIPT = `
import { startSuccessor } from ${JSON.stringify(join(import.meta.dir, "replace.ts"))};
if (process.env["SUCCESSOR"] === "yes") {
  console.log("successor");
} else {
  process.env["SUCCESSOR"] = "yes";
  console.log("first");
  for await (const _ of console) {
    const started = startSuccessor();
    console.log(started.ok ? "started" : started.error);
  }
}
`;

function place(path: string): void {
  try {
    linkSync(process.execPath, path);
  } catch {
    copyFileSync(process.execPath, path);
    chmodSync(path, 0o755);
  }
}

describe("a successor", () => {
  let directory: string;
  let program: string;
  let child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  let said = "";

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "weft-replace-"));
    program = join(directory, "program");
    place(program);
    const script = join(directory, "script.ts");
    writeFileSync(script, SCRIPT);
    const { SUCCESSOR: _, ...env } = process.env;
    child = Bun.spawn([program, script], { stdin: "pipe", stdout: "pipe", stderr: "inherit", env });
    said = "";
    const decoder = new TextDecoder();
    void (async () => {
      for await (const bytes of child.stdout) said += decoder.decode(bytes);
    })();
    await says("first");
  });
  afterEach(async () => {
    child.kill();
    await child.exited;
    rmSync(directory, { recursive: true, force: true });
  });

  const says = (text: string): Promise<unknown> => until(() => `${JSON.stringify(text)} to be said, and not ${JSON.stringify(said)}`, 20_000, () => said.includes(text));
  const replace = (): void => {
    child.stdin.write("replace\n");
    void child.stdin.flush();
  };

  test("is of the file that was put in the place of ours", async () => {
    rmSync(program);
    place(program);
    replace();
    await says("successor");
  });

  test("is of the file that has our name, not of ours under another name", async () => {
    renameSync(program, join(directory, "old"));
    writeFileSync(program, "#!/bin/sh\necho the new one\n", { mode: 0o755 });
    replace();
    await says("the new one");
    expect(said).not.toContain("successor");
  });

  test("that cannot be started is told, and we go on", async () => {
    rmSync(program);
    replace();
    await says(`${program} cannot be started`);
    place(program);
    replace();
    await says("successor");
  });
});
