// Tests of docs/bad-input.md: each is a row of its table, by its name. A test that the table does not know fails where it is declared; that
// the table names no test that is not there is checked by test/hostile/table.test.ts.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "bun:test";
import { type SkipReason, testUnless } from "./skip.ts";

const DOCUMENT = join(import.meta.dir, "../../docs/bad-input.md");

export interface BadInputRow {
  readonly item: string;
  readonly answer: string;
  readonly counter: string;
  readonly file: string;
  /** Text that occurs in the file: a test's name, or the part of it that is written there. */
  readonly name: string;
}

/** Rows of every table of the document: `| item | answer | counter | `file`: name |`. */
export function badInputRows(): BadInputRow[] {
  const rows: BadInputRow[] = [];
  for (const line of readFileSync(DOCUMENT, "utf8").split("\n")) {
    const cells = /^\| (.+?) \| (.+?) \| (.+?) \| `([^`]+)`: (.+) \|$/.exec(line);
    if (cells !== null) rows.push({ item: cells[1]!, answer: cells[2]!, counter: cells[3]!, file: cells[4]!, name: cells[5]! });
  }
  return rows;
}

const known: ReadonlySet<string> = new Set(badInputRows().map(({ name }) => name));

/** A test that is a row of the table. */
export function item(name: string, body: () => Promise<unknown>, timeoutMs = 20_000, skip: SkipReason = null): void {
  if (!known.has(name)) {
    test(name, () => {
      throw new Error(`docs/bad-input.md has no row whose last cell is "\`FILE\`: ${name}"`);
    });
    return;
  }
  testUnless(skip)(name, async () => void (await body()), timeoutMs);
}
