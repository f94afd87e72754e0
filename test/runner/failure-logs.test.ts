// What is shown of logs when a test has failed: their last lines from before that, whatever was written since.

import { appendFileSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "bun:test";
import { FailureLogs } from "./failure-logs.ts";

const lines = (from: number, to: number): string => Array.from({ length: to - from }, (_, i) => `line ${from + i}\n`).join("");

describe("logs of a test file", () => {
  test("are shown as they were when the first test failed, however its output is cut up", () => {
    using logs = new FailureLogs();
    appendFileSync(join(logs.folder, "east.log"), lines(0, 100));
    for (const piece of ["(pass) one\n(fa", "il) two\n", "(pass) three\n"]) logs.hear(piece);
    appendFileSync(join(logs.folder, "east.log"), lines(100, 200));
    logs.hear("(fail) four\n");
    expect(logs.shown().split("\n").slice(0, 2)).toEqual(["east.log then ended with", "  line 88"]);
    expect(logs.shown()).toEndWith("  line 99\n");
  });

  test("are not shown where every test passed, or a word of a test's own looks like a failure", () => {
    using logs = new FailureLogs();
    appendFileSync(join(logs.folder, "east.log"), lines(0, 1));
    logs.hear("(pass) one says (fail) \n");
    expect(logs.shown()).toBe("");
  });

  test("are left out where nobody has written for long", () => {
    using logs = new FailureLogs();
    for (const name of ["old.log", "new.log"]) appendFileSync(join(logs.folder, name), `of ${name}\n`);
    utimesSync(join(logs.folder, "old.log"), 1, 1);
    logs.look();
    expect(logs.shown()).toBe("new.log then ended with\n  of new.log\n");
  });
});
