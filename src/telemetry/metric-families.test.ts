import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "bun:test";
import { CONTROL_METRICS } from "../control/metrics.ts";
import { CONNECTION_FAMILIES, FAMILIES, type Family } from "./metric-families.ts";
import { REQUEST_FAMILIES } from "./request-families.ts";

const ROOT = join(import.meta.dir, "../..");
const families: [string, Family][] = Object.entries(FAMILIES);

test("every family is documented with its kind, labels and meaning, and nothing else is", () => {
  const documented = new Map<string, string>();
  for (const line of readFileSync(join(ROOT, "docs/metrics.md"), "utf8").split("\n")) {
    const row = /^\| `([a-z0-9_]+)` \| (.*) \|$/.exec(line);
    if (row !== null) documented.set(row[1]!, row[2]!);
  }
  for (const [name, { type, labels, help }] of families) {
    expect([name, documented.get(name)]).toEqual([name, `${type} | ${labels.map((label) => `\`${label}\``).join(", ")} | ${help}`]);
    documented.delete(name);
  }
  for (const { name, help } of Object.values(CONNECTION_FAMILIES)) {
    expect([name, documented.get(name)]).toEqual([name, `counter | ${help}`]);
    documented.delete(name);
  }
  for (const [name, { type, help }] of Object.entries(REQUEST_FAMILIES)) {
    expect([name, documented.get(name)]).toEqual([name, `${type} | ${help}`]);
    documented.delete(name);
  }
  for (const [name, { type, help }] of Object.entries(CONTROL_METRICS)) {
    expect([name, documented.get(name)]).toEqual([name, `${type} | ${help}`]);
    documented.delete(name);
  }
  expect([...documented.keys()].filter((name) => !name.startsWith("process_"))).toEqual([]);
});

test("every family is counted somewhere", async () => {
  const glob = new Bun.Glob("src/**/*.ts");
  let sources = "";
  for await (const path of glob.scan(ROOT)) {
    if (!path.endsWith(".test.ts") && !path.endsWith("metric-families.ts")) sources += readFileSync(join(ROOT, path), "utf8");
  }
  expect(families.map(([name]) => name).filter((name) => !sources.includes(`"${name}"`))).toEqual([]);
});

test("names and labels are what Prometheus takes, counters end in _total, and no help has a quote that OpenMetrics would need escaped", () => {
  for (const [name, { type, labels, help }] of families) {
    expect(name).toMatch(/^[a-z][a-z0-9_]*$/);
    expect(name.endsWith("_total")).toBe(type === "counter");
    for (const label of labels) expect(label).toMatch(/^[a-z][a-z_]*$/);
    expect(help).not.toMatch(/["\\\n]/);
  }
});
