import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { GRPC_STATUS, REASON_CODES, type ReasonCodeEntry } from "./reason-codes.ts";

const DOCUMENT = resolve(import.meta.dir, "../../../docs/response-codes.md");
const codes: readonly (readonly [string, ReasonCodeEntry])[] = Object.entries(REASON_CODES);

test("docs/response-codes.md has one row for each code, and says what the table says", () => {
  const wanted = codes.map(([code, { status, grpc, flag, meaning, action }]) =>
    `| \`${code}\` | ${status ?? "by the rule"} | ${grpc === null ? "" : `${GRPC_STATUS[grpc]} ${grpc}`} | ${flag} | ${meaning} | ${action} |`);
  const found = readFileSync(DOCUMENT, "utf8").split("\n").filter((line) => line.startsWith("| `"));
  expect(found, `write these rows into ${DOCUMENT}:\n${wanted.join("\n")}`).toEqual(wanted);
});

test.each(codes)("%s is complete", (code, entry) => {
  expect(code).toMatch(/^[a-z]+(_[a-z0-9]+)*$/);
  expect(entry.status === null || entry.status >= 200 && entry.status <= 599).toBe(true);
  expect(entry.status !== null && entry.status >= 400 && entry.grpc === null ? code : "").toBe(code === "upgrade_refused" ? code : "");
  expect(entry.meaning).toMatch(/^[A-Z].*\.$/);
  expect(entry.action).toMatch(/^[A-Z].*\.$/);
  expect(entry.meaning + entry.action).not.toContain("|");
});
