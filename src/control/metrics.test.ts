import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CONTROL_METRICS } from "./metrics.ts";

test("docs/metrics.md has every metric of a control plane, in our words", () => {
  const doc = readFileSync(join(import.meta.dir, "../../docs/metrics.md"), "utf8");
  const missing = Object.entries(CONTROL_METRICS).filter(([name, { type, help }]) => !doc.includes(`| \`${name}\` | ${type} | ${help} |`));
  expect(missing).toEqual([]);
});
