import { describe, expect, test } from "bun:test";
import { header, path, regex, request, when } from "../../../test/kit/http-records.ts";
import { identity, ip } from "../../../test/kit/mesh-records.ts";
import type { LocalRateLimit } from "../../mesh/l7/traffic-policy.ts";
import { LocalRateLimiter } from "./rate-limit/local.ts";
import { compileMatches, ViewFacts } from "./view-facts.ts";

describe("a request's facts", () => {
  const view = request({
    url: "/a?q=x%20y&q=z", headers: { "x-user": ["a", "b"], cookie: ["c=1; d=2", "d=3"] }, source: { identity: identity("shop", "web"), ip: ip("198.18.0.4") },
  });
  test("are read where the engine keeps them", () => {
    const facts = new ViewFacts(view, { sub: "u1", roles: ["r1", "r2"], org: { id: 7 } });
    expect([facts.path, facts.header("x-user"), facts.cookie("d"), facts.query("q"), facts.sourceIp, facts.identity]).toEqual(["/a", "a, b", "2", "x y", "198.18.0.4", "spiffe://cluster.local/ns/shop/sa/web"]);
    expect([facts.claim(["sub"]), facts.claim(["roles"]), facts.claim(["org", "id"]), facts.claim(["constructor"])]).toEqual(["u1", "r1,r2", "7", null]);
  });
  test("that are not there are null, and nothing stays from the request before", () => {
    const facts = new ViewFacts(view, { sub: "u1" });
    facts.take(request({}), null);
    expect([facts.header("x-user"), facts.cookie("d"), facts.query("q"), facts.identity, facts.claim(["sub"])]).toEqual([null, null, null, null, null]);
  });
});

describe("matches of a limit", () => {
  const limit = (matches: LocalRateLimit["matches"]): LocalRateLimit => ({ name: "l", requests: 1, perMs: 1000, burst: 1, keys: [], matches, fieldPath: "" });
  const allowed = (matches: LocalRateLimit["matches"], url: string): boolean[] => {
    const limiter = new LocalRateLimiter([limit(matches)], ({ matches: own }) => compileMatches(own).applies);
    const facts = new ViewFacts(request({ url, headers: { "x-a": "1" } }), null);
    return [limiter.decide(facts, 0).allowed, limiter.decide(facts, 0).allowed];
  };
  test("are joined by OR; none is every request", () => {
    expect(allowed([], "/x")).toEqual([true, false]);
    const either = [when({ path: path.prefix("/api") }), when({ path: path.exact("/b"), headers: [header("x-a", "1")] })];
    expect([allowed(either, "/api/1"), allowed(either, "/b"), allowed(either, "/c")]).toEqual([[true, false], [true, false], [true, true]]);
  });
  test("a condition that cannot be compiled is told, and limits more rather than less", () => {
    const broken = compileMatches([when({ path: regex("(") })]);
    expect(broken.problems.length).toBe(1);
    expect(broken.applies(new ViewFacts(request({ url: "/any" }), null))).toBe(true);
  });
});
