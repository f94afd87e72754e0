import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TEST_DOMAIN, WEB } from "../../test/kit/certificates.ts";
import { spiffeId } from "../core/spiffe.ts";
import { newToken, parseTokens, TOKEN_CHARS_MAX, TokenFile } from "./tokens.ts";

const one = newToken();
const two = newToken();
const text = (...tokens: readonly object[]): string => JSON.stringify({ tokens });

describe("a token file", () => {
  const valid = { name: "node-a", sha256: one.sha256, namespaces: ["shop"] };
  const refused: readonly (readonly [string, string, string])[] = [
    ["no JSON", "tokens:", "JSON"],
    ["an unknown field", text({ ...valid, admin: true }), "admin"],
    ["the token itself in place of its hash", text({ ...valid, sha256: one.token }), "SHA-256"],
    ["an identity that is not a SPIFFE ID", text({ ...valid, identities: ["web"] }), "spiffe://"],
    ["a name twice", text(valid, { ...valid, sha256: two.sha256 }), "node-a twice"],
    ["a token twice", text(valid, { ...valid, name: "node-b" }), "belongs to another name"],
    ["a line break in a name", text({ ...valid, name: "a\nb" }), "printable"],
    ["no list", "{}", "tokens"],
  ];
  for (const [what, content, message] of refused) {
    test(`with ${what} is refused`, () => {
      const parsed = parseTokens(content);
      expect(parsed.ok ? "read" : parsed.error).toContain(message);
    });
  }

  test("gives each token its identities and namespaces, and nothing to any other", () => {
    const parsed = parseTokens(text(valid, { name: "api", sha256: two.sha256, identities: ["spiffe://cluster.local/ns/billing/sa/api"] }));
    if (!parsed.ok) throw new Error(parsed.error);
    const node = parsed.value.verify(one.token)!;
    const api = parsed.value.verify(two.token)!;
    const other = spiffeId(TEST_DOMAIN, "billing", "api");
    expect([node.name, node.mayHave(WEB), node.mayHave(other)]).toEqual(["node-a", true, false]);
    expect([api.name, api.mayHave(WEB), api.mayHave(other)]).toEqual(["api", false, true]);
    for (const token of ["", one.token.slice(1), `${one.token} `, one.sha256, "x".repeat(TOKEN_CHARS_MAX + 1)]) expect(parsed.value.verify(token)).toBeNull();
  });

  test("a token without identities or namespaces may have nothing", () => {
    const parsed = parseTokens(text({ name: "idle", sha256: one.sha256 }));
    expect(parsed.ok && parsed.value.verify(one.token)?.mayHave(WEB)).toBe(false);
  });

  test("new tokens are 256 random bits", () => {
    expect(one.token).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(one.token).not.toBe(two.token);
  });
});

describe("the file on disk", () => {
  let folder = "";
  let path = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "weft-tokens-"));
    path = join(folder, "tokens.json");
    writeFileSync(path, text({ name: "node-a", sha256: one.sha256, namespaces: "all" }), { mode: 0o600 });
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test("is followed; a broken change is reported once and changes nothing", () => {
    const warnings: string[] = [];
    const opened = TokenFile.open(path, (message) => warnings.push(message));
    if (!opened.ok) throw new Error(opened.error);
    expect(opened.value.verify(one.token)?.name).toBe("node-a");
    writeFileSync(path, text({ name: "node-b", sha256: two.sha256, namespaces: "all" }));
    expect(opened.value.verify(one.token)).toBeNull();
    expect(opened.value.verify(two.token)?.name).toBe("node-b");
    writeFileSync(path, "{");
    expect(opened.value.verify(two.token)?.name).toBe("node-b");
    expect(opened.value.verify(two.token)?.name).toBe("node-b");
    expect(warnings).toHaveLength(1);
    rmSync(path);
    expect(opened.value.verify(two.token)?.name).toBe("node-b");
    expect(warnings).toHaveLength(2);
    writeFileSync(path, text({ name: "node-c", sha256: one.sha256, namespaces: "all" }), { mode: 0o600 });
    expect(opened.value.verify(one.token)?.name).toBe("node-c");
  });

  test("is refused when others could write it", () => {
    chmodSync(path, 0o622);
    const opened = TokenFile.open(path, () => {});
    expect(opened.ok ? "opened" : opened.error).toContain("others could write it");
  });
});
