import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as annotations from "./annotations.ts";
import { z } from "zod";
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

/** What every kind may have, or what is not looked at. */
const SHARED = ["Shared by routes", "Shared by policies", "AuthorizationPolicy at a waypoint", "Several policies for one service"];

test("docs/configuration.md: names every field of every kind", () => {
  const sections = new Map(doc.split(/^## /m).slice(1).map((text) => [text.slice(0, text.search(/ \(`|\n/)), text]));
  const shared = SHARED.map((title) => sections.get(title) ?? "").join("\n");
  for (const kind of KINDS) {
    const words = new Set(`${sections.get(kind.kind)}\n${shared}`.match(/[A-Za-z_][A-Za-z0-9_]*/g));
    expect({ kind: kind.kind, missing: fieldNames(kind.spec()).filter((name) => !words.has(name)) }).toEqual({ kind: kind.kind, missing: [] });
  }
});

/** Names of all fields below a schema, but of those that are not looked at. */
function fieldNames(schema: z.core.$ZodType, names = new Set<string>()): string[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable) fieldNames(schema.unwrap(), names);
  else if (schema instanceof z.ZodArray) fieldNames(schema.element, names);
  else if (schema instanceof z.ZodRecord) fieldNames(schema.valueType, names);
  else if (schema instanceof z.ZodObject) {
    for (const [name, field] of Object.entries(schema.shape)) {
      if (field instanceof z.ZodOptional && field.unwrap() instanceof z.ZodUnknown) continue;
      names.add(name);
      fieldNames(field as z.core.$ZodType, names);
    }
  }
  return [...names];
}
