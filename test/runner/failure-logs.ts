// What the programs of a test file had logged when one of its tests failed: the last lines of each log before that moment, since a run whose
// output is cut is all that is left of a failure that came by chance. The moment is when `bun test` says `(fail)`.

import { closeSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Of each log. */
const LINES_SHOWN = 12;
/** Enough to see what a line says; an access log line of ours has some 600 characters. */
const LINE_CHARS_MAX = 700;
/** Read from a log's end to find its last lines. */
const TAIL_BYTES = 64 * 1024;
/** A log that was last written this long before belongs to a test that is over. */
const QUIET_MS_MAX = 60_000;

const FAILED = /^\(fail\) /m;

/** Bytes in each log then, of those that somebody still wrote. */
type Moment = ReadonlyMap<string, number>;

export class FailureLogs implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "weft-logs-"));
  /** Of the first failure: others may follow from it. */
  #moment: Moment | null = null;
  #unread = "";

  /** Takes the child's output as it comes, in pieces of any size. */
  hear(text: string): void {
    this.#unread += text;
    const end = this.#unread.lastIndexOf("\n") + 1;
    if (FAILED.test(this.#unread.slice(0, end))) this.look();
    this.#unread = this.#unread.slice(end);
  }

  /** Something has failed now. */
  look(): void {
    const found = readdirSync(this.folder).sort().map((name) => ({ name, stat: statSync(join(this.folder, name)) }));
    this.#moment ??= new Map(found.filter(({ stat }) => stat.isFile() && Date.now() - stat.mtimeMs < QUIET_MS_MAX).map(({ name, stat }) => [name, stat.size]));
  }

  /** The ends of the logs when the first test failed; empty where none did, or nothing was logged. */
  shown(): string {
    return [...(this.#moment ?? [])].map(([name, bytes]) => `${name} then ended with\n${this.#before(name, bytes).map((line) => `  ${line.slice(0, LINE_CHARS_MAX)}\n`).join("")}`).join("");
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  #before(name: string, bytes: number): readonly string[] {
    const buffer = Buffer.alloc(Math.min(bytes, TAIL_BYTES));
    const file = openSync(join(this.folder, name), "r");
    try {
      readSync(file, buffer, 0, buffer.length, bytes - buffer.length);
    } finally {
      closeSync(file);
    }
    return buffer.toString("utf8").split("\n").filter((line) => line !== "").slice(-LINES_SHOWN);
  }
}
