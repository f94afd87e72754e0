import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { cookieCrypto } from "./cookie-crypto.ts";

const [A, B] = ["ab".repeat(32), "cd".repeat(64)];

describe("cookies under lock and key", () => {
  test("what is sealed opens, for its purpose, under any key of the list", () => {
    fc.assert(fc.property(fc.string({ unit: "binary", minLength: 1 }), fc.string(), (text, purpose) => {
      const sealed = cookieCrypto([A]).seal(text, purpose);
      expect(sealed).toMatch(/^[\w-]+$/);
      // Lone surrogates have no UTF-8.
      const kept = Buffer.from(text).toString();
      expect([cookieCrypto([A]), cookieCrypto([B, A])].map((crypto) => crypto.open(sealed, purpose))).toEqual([kept, kept]);
      expect(cookieCrypto([A]).open(sealed, `${purpose}.`)).toBeNull();
      expect(cookieCrypto([B]).open(sealed, purpose)).toBeNull();
    }));
  });
  test("every single bit counts", () => {
    const crypto = cookieCrypto([A]);
    const bytes = Buffer.from(crypto.seal("session", "p"), "base64url");
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      expect(crypto.open(bytes.toString("base64url"), "p")).toBeNull();
      bytes[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(crypto.open(bytes.toString("base64url"), "p")).toBe("session");
  });
  test.each(["", "A", "AAAA", "A".repeat(37), "A".repeat(38), "A".repeat(10_000), "=", "a b", "é", "%41", "..."])("%s is no text of ours", (sealed) => expect(cookieCrypto([A]).open(sealed, "p")).toBeNull());
  test("a shorter tag is none", () => {
    const sealed = cookieCrypto([A]).seal("session", "p");
    for (let length = 1; length < sealed.length; length++) expect(cookieCrypto([A]).open(sealed.slice(0, length), "p")).toBeNull();
  });
  test("the same text is never sealed to the same", () => expect(new Set(Array.from({ length: 100 }, () => cookieCrypto([A]).seal("x", "p"))).size).toBe(100));
  test("secrets have 256 bits", () => {
    const secrets = Array.from({ length: 100 }, () => Buffer.from(cookieCrypto([A]).secret(), "base64url"));
    expect([new Set(secrets.map((secret) => secret.toString("hex"))).size, secrets[0]!.length]).toEqual([100, 32]);
  });
  test("the challenge of RFC 7636, appendix B", () => expect(cookieCrypto([A]).sha256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")).toBe("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));
  test("without a key there is none", () => expect(() => cookieCrypto([])).toThrow("without cookie keys"));
});
