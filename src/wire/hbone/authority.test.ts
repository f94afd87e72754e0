import { describe, expect, test } from "bun:test";
import vectors from "../../../test/vectors/hbone/authority.json";
import { formatSocketAddress } from "../../core/ip.ts";
import { AUTHORITY_CHARS_MAX, formatAuthority, HOSTNAME_CHARS_MAX, parseAuthority, parseHostname } from "./authority.ts";

describe("authority", () => {
  test("there are vectors", () => {
    expect(vectors.accepted.length).toBeGreaterThan(5);
    expect(vectors.refused.length).toBeGreaterThan(20);
  });

  for (const vector of vectors.accepted) {
    test(`accepts ${vector.text}`, () => {
      const parsed = parseAuthority(vector.text);
      if (!parsed.ok) throw new Error(parsed.error);
      expect(formatAuthority(parsed.value)).toBe(vector.formatted);
      if (parsed.value.kind === "address") {
        expect(parsed.value.address.ip as string).toBe(vector.ip!);
        expect(formatSocketAddress(parsed.value.address)).toBe(vector.formatted);
      } else {
        expect(parsed.value).toEqual({ kind: "hostname", hostname: vector.hostname!, port: vector.port });
      }
      expect(parseAuthority(vector.formatted)).toEqual(parsed);
    });
  }

  for (const vector of vectors.refused) {
    test(`refuses ${JSON.stringify(vector.text)}: ${vector.why}`, () => {
      const parsed = parseAuthority(vector.text);
      expect(parsed.ok).toBe(false);
      if (!parsed.ok) expect(parsed.error).toStartWith("authority ");
    });
  }

  test("a hostname may have 253 characters, and no more", () => {
    const longest = `${"a".repeat(61)}.`.repeat(4) + "b".repeat(HOSTNAME_CHARS_MAX - 4 * 62);
    expect(longest.length).toBe(HOSTNAME_CHARS_MAX);
    expect(parseHostname(longest)).toBe(longest);
    expect(parseHostname(`${longest}b`)).toBeNull();
    expect(parseAuthority(`${longest}:65535`).ok).toBe(true);
  });

  test("a giant is refused by its length alone", () => {
    const parsed = parseAuthority("a".repeat(1_000_000));
    expect(parsed).toEqual({ ok: false, error: `authority has 1000000 characters, at most ${AUTHORITY_CHARS_MAX} are allowed` });
  });
});
