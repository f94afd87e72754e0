import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { namespacedName } from "../core/brand.ts";
import { sessionKey, sessionSecret } from "./session-key.ts";

const directory = mkdtempSync(join(tmpdir(), "weft-session-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const secretIn = (path: string | null, state = join(directory, "state")): string => {
  const found = sessionSecret(path, state);
  return found.ok ? Buffer.from(found.value).toString("hex") : found.error;
};
const file = (name: string, content: string): string => {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
};

test("a secret of our own is made once and kept where only the owner reads it", () => {
  const first = secretIn(null);
  expect(first).toMatch(/^[0-9a-f]{64}$/);
  expect(secretIn(null)).toBe(first);
  expect(statSync(join(directory, "state/secret")).mode & 0o777).toBe(0o600);
  expect(readFileSync(join(directory, "state/secret"), "utf8")).toBe(first);
  expect(secretIn(null, join(directory, "other"))).not.toBe(first);
});

test("what is kept and damaged is made anew, what others can read is refused", () => {
  const state = join(directory, "damaged");
  const first = secretIn(null, state);
  writeFileSync(join(state, "secret"), "x");
  expect(secretIn(null, state)).toMatch(/^[0-9a-f]{64}$/);
  expect(secretIn(null, state)).not.toBe(first);
  chmodSync(state, 0o755);
  expect(secretIn(null, state)).toContain("chmod 700");
});

test("a shared secret is the same wherever its file is, with or without a newline", () => {
  const text = "0123456789abcdef0123456789abcdef";
  expect(secretIn(file("a", text))).toBe(Buffer.from(text).toString("hex"));
  expect(secretIn(file("b", `${text}\n`))).toBe(secretIn(join(directory, "a")));
});

test("one that is short, absent or no secret is refused with a way out", () => {
  expect(secretIn(file("short", "0123456789abcdef0123456789abcde\n\n"))).toMatch(/has 31 characters, wanted 32 at least; make one with: openssl rand -hex 32/);
  expect(secretIn(join(directory, "absent"))).toMatch(/cannot be read: ENOENT.*openssl/);
  expect(secretIn(file("large", "x".repeat(70_000)))).toContain("at most 65536");
});

test("each Gateway has a key of its own: HKDF-SHA256 over the secret", () => {
  const secret = Buffer.alloc(32, 7);
  const key = (name: string): string => Buffer.from(sessionKey(secret, namespacedName("shop", name))).toString("hex");
  expect(key("a")).toHaveLength(64);
  expect(key("a")).toBe(key("a"));
  expect(key("a")).not.toBe(key("b"));
});
