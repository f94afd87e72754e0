import { describe, expect, test } from "bun:test";
import { namespacedName, parseWorkloadUid } from "./brand.ts";
import { formatProvenance } from "./fault.ts";
import { seededRandom, systemClock, systemRandom } from "./ports.ts";
import { err, ok, unreachable } from "./result.ts";
import { parseSpiffeId, parseTrustDomain, SPIFFE_ID_BYTES_MAX, spiffeId, type TrustDomain } from "./spiffe.ts";

describe("SPIFFE IDs", () => {
  test("are read part by part", () => {
    expect(parseSpiffeId("spiffe://cluster.local/ns/shop/sa/web")).toEqual({
      id: "spiffe://cluster.local/ns/shop/sa/web", trustDomain: "cluster.local", namespace: "shop", serviceAccount: "web",
    } as ReturnType<typeof parseSpiffeId>);
  });

  test("what is built reads back", () => {
    const id = spiffeId("td.example" as TrustDomain, "a-b", "c.d_e");
    expect(parseSpiffeId(id)?.id).toBe(id);
  });

  test.each([
    "", "spiffe://", "spiffe:///ns/a/sa/b", "SPIFFE://td/ns/a/sa/b", "spiffe://TD/ns/a/sa/b", "spiffe://td/ns/a/sa", "spiffe://td/ns/a/sa/", "spiffe://td/ns//sa/b", "spiffe://td/ns/a/sa/b/",
    "spiffe://td/ns/a/sa/b/c", "spiffe://td/NS/a/sa/b", "spiffe://td/ns/../sa/b", "spiffe://td/ns/./sa/b", "spiffe://td/ns/a%2f/sa/b", "spiffe://td/ns/a/sa/b?q", "spiffe://td/ns/a/sa/b#f",
    "spiffe://td:80/ns/a/sa/b", "spiffe://u@td/ns/a/sa/b", " spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/b\0", "spiffe://td/ns/a/sa/b\n", "spiffe://té/ns/a/sa/b", "https://td/ns/a/sa/b",
    `spiffe://td/ns/a/sa/${"b".repeat(SPIFFE_ID_BYTES_MAX)}`, `spiffe://${"t".repeat(256)}/ns/a/sa/b`,
  ])("%p is refused", (text) => expect(parseSpiffeId(text)).toBeNull());

  test("building one from parts that were never checked throws", () => {
    expect(() => spiffeId("td" as TrustDomain, "a/b", "c")).toThrow("not a SPIFFE ID");
  });

  test("a trust domain is lower-case letters, digits, dot, dash and underscore", () => {
    expect(parseTrustDomain("a-1.b_c")).toBe("a-1.b_c" as TrustDomain);
    for (const text of ["", "A", "a/b", "a b", "a:1", "a".repeat(256)]) expect(parseTrustDomain(text)).toBeNull();
  });
});

describe("names", () => {
  test("a workload uid is printable ASCII without blanks, and bounded", () => {
    expect(parseWorkloadUid("Kubernetes//Pod/shop/web-1")).not.toBeNull();
    for (const text of ["", "a b", "a\n", "ü", "a".repeat(1025)]) expect(parseWorkloadUid(text)).toBeNull();
  });
  test("a namespaced name joins its halves", () => expect<string>(namespacedName("shop", "web")).toBe("shop/web"));
});

describe("provenance", () => {
  const p = { kind: "AuthorizationPolicy", namespace: "shop", name: "deny", resourceVersion: "1", fieldPath: "spec.rules[0]" };
  test("prints kind, name and field", () => expect(formatProvenance(p)).toBe("AuthorizationPolicy shop/deny spec.rules[0]"));
  test("leaves out what is empty", () => expect(formatProvenance({ ...p, namespace: "", fieldPath: "" })).toBe("AuthorizationPolicy deny"));
});

describe("ports", () => {
  test("seeded randomness repeats, stays in [0, 1) and is spread evenly", () => {
    const a = seededRandom(7);
    const b = seededRandom(7);
    const buckets = new Array<number>(10).fill(0);
    for (let i = 0; i < 100_000; i++) {
      const x = a.next();
      expect(b.next()).toBe(x);
      buckets[Math.floor(x * 10)]!++;
    }
    for (const count of buckets) expect(Math.abs(count - 10_000)).toBeLessThan(500);
    expect(seededRandom(8).next()).not.toBe(seededRandom(7).next());
  });

  test("the system's clock goes forward and its dice stay in range", () => {
    const before = systemClock.monotonicMs();
    expect(systemClock.monotonicMs()).toBeGreaterThanOrEqual(before);
    expect(systemClock.wallMs()).toBeGreaterThan(1_600_000_000_000);
    const x = systemRandom.next();
    expect(x >= 0 && x < 1).toBe(true);
  });
});

describe("results", () => {
  test("carry a value or an error", () => {
    expect(ok(1)).toEqual({ ok: true, value: 1 });
    expect(err("no")).toEqual({ ok: false, error: "no" });
  });
  test("an impossible member throws with what it was", () => expect(() => unreachable({ kind: "new" } as never)).toThrow('{"kind":"new"}'));
});
