// h2spec, a client that asks a server every requirement of RFC 9113 and RFC 7541.
//
// The program: $H2SPEC_BIN, or `h2spec` on the PATH or in Go's bin folder. `go build ./cmd/h2spec` in a clone of
// github.com/summerwind/h2spec makes it.

import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { SkipReason } from "../kit/skip.ts";

export const CASES_TIMEOUT_MS = 120_000;
const CASES_MIN = 140;
/** A case waits so long for an answer that it wants: none does where all is well, so it may be long for a busy machine. */
const CASE_S = 10;
/** What the program prints last: `147 tests, 147 passed, 0 skipped, 0 failed`. */
const VERDICT = /(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed/;

const program = findH2spec();
export const needsH2spec: SkipReason = program === null ? "needs h2spec" : null;

export interface Verdict {
  readonly total: number;
  readonly failed: number;
  readonly skipped: number;
  /** What it says of those that failed. */
  readonly failures: string;
}

/** @param expected names of the cases that fail, and no other; none is skipped. @throws with what the program says. */
export function expectAll({ total, failed, skipped, failures }: Verdict, expected: readonly string[] = []): void {
  if (failed !== expected.length || !expected.every((name) => failures.includes(name))) throw new Error(failures);
  if (skipped > 0 || total < CASES_MIN) throw new Error(`${total} cases, wanted at least ${CASES_MIN}; ${skipped} of them were skipped`);
}

/** Runs all cases, the strict ones too, against 127.0.0.1. */
export async function runH2spec(port: number, options: readonly string[] = []): Promise<Verdict> {
  const child = Bun.spawn([program!, "-h", "127.0.0.1", "-p", String(port), "--strict", "--timeout", String(CASE_S), ...options], { stdout: "pipe", stderr: "pipe" });
  const [output] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  const verdict = VERDICT.exec(output);
  if (verdict === null) throw new Error(`h2spec gave no verdict:\n${output}`);
  return { failures: output.slice(output.indexOf("Failures:")), total: Number(verdict[1]), failed: Number(verdict[4]), skipped: Number(verdict[3]) };
}

function findH2spec(): string | null {
  const named = process.env["H2SPEC_BIN"];
  if (named !== undefined && existsSync(named)) return named;
  const onPath = Bun.which("h2spec");
  if (onPath !== null) return onPath;
  const inGo = join(process.env["GOPATH"] ?? join(homedir(), "go"), "bin", "h2spec");
  return existsSync(inGo) ? inGo : null;
}
