// Holds docs/bad-input.md to the tests it names. That every hostile test has its row is checked where it is declared (test/kit/bad-input.ts).

import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CONTROL_METRICS } from "../../src/control/metrics.ts";
import { CONNECTION_FAMILIES, FAMILIES } from "../../src/telemetry/metric-families.ts";
import { REQUEST_FAMILY_NAMES } from "../../src/telemetry/request-families.ts";
import { badInputRows } from "../kit/bad-input.ts";

const ROOT = join(import.meta.dir, "../..");
const rows = badInputRows();

describe("the table of bad input", () => {
  test("is read: every line that looks like a row is one", () => {
    const lines = readFileSync(join(ROOT, "docs/bad-input.md"), "utf8").split("\n").filter((line) => line.startsWith("| ") && !line.startsWith("| item |"));
    expect(rows.length).toBe(lines.length);
    expect(rows.length).toBeGreaterThan(100);
  });

  test("names tests that are there", () => {
    const texts = new Map<string, string>();
    const missing = rows.filter(({ file, name }) => {
      if (!texts.has(file)) texts.set(file, existsSync(join(ROOT, file)) ? readFileSync(join(ROOT, file), "utf8") : "");
      return !texts.get(file)!.includes(name);
    });
    expect(missing.map(({ file, name }) => `${file}: ${name}`)).toEqual([]);
  });

  test("names metrics that are there", () => {
    const known = new Set<string>([...Object.keys(FAMILIES), ...Object.values(CONNECTION_FAMILIES).map(({ name }) => name), ...REQUEST_FAMILY_NAMES, ...Object.keys(CONTROL_METRICS)]);
    const named = rows.flatMap(({ counter }) => [...counter.matchAll(/\b(weft|istio)_[a-z0-9_]+/g)].map(([name]) => name));
    expect(named.length).toBeGreaterThan(20);
    expect([...new Set(named)].filter((name) => !known.has(name))).toEqual([]);
  });

  test("has each test once", () => {
    const keys = rows.map(({ file, name }) => `${file}: ${name}`);
    expect(keys.filter((key, i) => keys.indexOf(key) !== i)).toEqual([]);
  });
});
