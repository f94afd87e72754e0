// The one way to skip a test: with its reason in its name, so that the runner can print it and count it.
//
//   const nft = needsProgram("nft");
//   testUnless(nft)("capture: survives a flush of foreign rules", () => { ... });
//
// On a machine without nft the report says `capture: ... [skipped: needs nft]`. The runner (test/run.ts) treats a skipped
// or todo test without `[skipped: reason]` in its own name or in a describe around it as a failure.

import { describe, test } from "bun:test";
import { existsSync } from "node:fs";

/** Why a test cannot run here; null when it can. */
export type SkipReason = string | null;

/** Finds the reason in the full name of a skipped test; null when it was skipped without one. */
export function skipReasonOf(fullName: string): string | null {
  return /\[skipped: ([^\]]+)\]/.exec(fullName)?.[1] ?? null;
}

export function needsProgram(program: string): SkipReason {
  return Bun.which(program) === null ? `needs ${program}` : null;
}

/** For a program that an environment variable names. */
export function needsBinary(variable: string): SkipReason {
  const binary = process.env[variable] ?? "";
  if (binary === "") return `${variable} is not set`;
  return existsSync(binary) ? null : `${variable} names no file: ${binary}`;
}

/** The first reason of several: `firstReason(needsProgram("wrk"), needsProgram("nginx"))`. */
export function firstReason(...reasons: readonly SkipReason[]): SkipReason {
  return reasons.find((reason) => reason !== null) ?? null;
}

type TestBody = () => void | Promise<unknown>;

/** `test`, or a skipped test that names the reason. */
export function testUnless(reason: SkipReason): (name: string, body: TestBody, timeoutMs?: number) => void {
  if (reason === null) return (name, body, timeoutMs) => test(name, body, timeoutMs);
  return (name, body) => test.skip(`${name} [skipped: ${reason}]`, body);
}

/** `describe`, or a skipped group that names the reason. */
export function describeUnless(reason: SkipReason): (name: string, body: () => void) => void {
  if (reason === null) return (name, body) => describe(name, body);
  return (name, body) => describe.skip(`${name} [skipped: ${reason}]`, body);
}
