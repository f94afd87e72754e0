// Directories in corpus/, each with what must come of it: expected.txt. With WEFT_UPDATE_CORPUS=1 it is written anew, to be read before it is committed.

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeL7 } from "./l7/test-kit.ts";
import { describeDiagnostic, describeMesh, evaluate } from "./test-kit.ts";

const corpus = join(import.meta.dir, "corpus");
const cases = readdirSync(corpus);

describe("corpus", () => {
  test("is not empty", () => expect(cases.length).toBeGreaterThanOrEqual(9));
  for (const name of cases) {
    test(name, () => {
      const directory = join(corpus, name);
      const files = readdirSync(directory).filter((file) => file !== "expected.txt");
      const evaluation = evaluate(Object.fromEntries(files.map((file) => [file, readFileSync(join(directory, file), "utf8")])));
      const actual = `${[...describeMesh(evaluation), ...describeL7(evaluation), "", ...evaluation.diagnostics.map(describeDiagnostic)].join("\n").trim()}\n`;
      if (process.env["WEFT_UPDATE_CORPUS"] === "1") writeFileSync(join(directory, "expected.txt"), actual);
      expect(actual).toBe(readFileSync(join(directory, "expected.txt"), "utf8"));
    });
  }
});
