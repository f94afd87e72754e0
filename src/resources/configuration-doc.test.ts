import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as annotations from "./annotations.ts";
import { KINDS } from "./kinds.ts";
import { describeDiagnostic, documents, evaluate } from "./test-kit.ts";

const doc = readFileSync(join(import.meta.dir, "../../docs/configuration.md"), "utf8");
const examples = [...doc.matchAll(/```yaml\n([\s\S]*?)```/g)].map((match) => match[1]!);

test("docs/configuration.md: its examples are a configuration without a single remark", () => {
  expect(examples.length).toBeGreaterThanOrEqual(5);
  const evaluation = evaluate(documents(...examples));
  expect(evaluation.diagnostics.map(describeDiagnostic)).toEqual([]);
  expect(evaluation.resourceCount).toBe(examples.join("").match(/^kind: /gm)!.length);
});

test("docs/configuration.md: names every label and annotation that we read", () => {
  const keys = Object.values(annotations).flat().filter((key) => key.includes("/") || key === "app" || key === "version");
  expect(keys.filter((key) => !doc.includes(`\`${key}\``))).toEqual([]);
});

test("docs/configuration.md: has a section for each kind", () => {
  for (const kind of KINDS) expect(doc).toContain(`## ${kind.kind} (\`${kind.group === "" ? "" : `${kind.group}/`}${kind.versions[0]}\``);
});
