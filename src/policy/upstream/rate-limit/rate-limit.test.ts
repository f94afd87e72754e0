import { describe, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { field, message, number } from "../../../../test/kit/protobuf-bytes.ts";
import { requestFacts } from "../../../../test/kit/upstreams.ts";
import { seededRandom } from "../../../core/ports.ts";
import { namespacedName } from "../../../core/brand.ts";
import type { GlobalRateLimit, LocalRateLimit, RateLimitKey } from "../../../mesh/l7/traffic-policy.ts";
import { RateLimitRequestSchema, RateLimitResponseSchema } from "../../../wire/protobuf/envoy/service/ratelimit/v3/rls_pb.ts";
import { ANSWER_HEADERS_MAX, RATE_LIMIT_KEYS_MAX } from "../defaults.ts";
import type { RequestFacts } from "../request-facts.ts";
import { judgeRateLimitResponse, rateLimitFailed, rateLimitRequest as plainRequest } from "./global.ts";
import { rateLimitHeaders } from "./headers.ts";
import { LocalRateLimiter } from "./local.ts";

const limitOf = (fields: Partial<LocalRateLimit>): LocalRateLimit => ({ name: "per-user", requests: 10, perMs: 1000, burst: 10, keys: [], matches: [], fieldPath: "", ...fields });
const limiter = (...limits: Partial<LocalRateLimit>[]): LocalRateLimiter<RequestFacts> => new LocalRateLimiter(limits.map(limitOf), () => () => true);
const from = (user: string): RequestFacts => requestFacts({ headers: { "x-user": user }, identity: `spiffe://td/ns/a/sa/${user}`, claims: { sub: user }, sourceIp: user, path: `/${user}` });
const USER: RateLimitKey = { kind: "header", name: "x-user" };
const count = (l: LocalRateLimiter<RequestFacts>, request: RequestFacts, tries: number, nowMs = 0): number => Array.from({ length: tries }, () => l.decide(request, nowMs).allowed).filter(Boolean).length;

describe("a local rate limit", () => {
  test("lets a burst through, then as many as come back", () => {
    const l = limiter({ requests: 10, perMs: 1000, burst: 5 });
    expect(count(l, from("a"), 20)).toBe(5);
    expect(count(l, from("a"), 20, 100)).toBe(1);
    expect(count(l, from("a"), 20, 350)).toBe(2);
    expect(count(l, from("a"), 20, 60_000)).toBe(5);
  });

  test("tells how many are left, when, and which limit it was", () => {
    const l = limiter({ requests: 10, perMs: 1000, burst: 5 });
    expect(l.decide(from("a"), 0)).toMatchObject({ allowed: true, limit: { name: "per-user" }, state: { remaining: 4, resetMs: 100, retryAfterMs: 0, quota: 5, windowMs: 500 } });
    count(l, from("a"), 4);
    expect(l.decide(from("a"), 30)).toMatchObject({ allowed: false, state: { remaining: 0, resetMs: 470, retryAfterMs: 70 } });
    expect(l.decide(from("a"), 100)).toMatchObject({ allowed: true, state: { remaining: 0 } });
  });

  test.each([["identity"], ["path"], ["sourceIp"], ["header"], ["claim"]] as const)("by %s counts each apart", (kind) => {
    const key: RateLimitKey = kind === "header" ? USER : kind === "claim" ? { kind, path: ["sub"] } : { kind };
    const l = limiter({ keys: [key], burst: 2 });
    expect([count(l, from("a"), 5), count(l, from("b"), 5), count(l, from("a"), 5)]).toEqual([2, 2, 0]);
  });

  test("by several keys counts each combination; values cannot be shifted between keys", () => {
    const l = limiter({ keys: [USER, { kind: "path" }], burst: 1 });
    const request = (user: string, path: string): RequestFacts => requestFacts({ headers: { "x-user": user }, path });
    expect([count(l, request("a", "/b"), 2), count(l, request("a", "/c"), 2), count(l, request("a/b", ""), 2)]).toEqual([1, 1, 1]);
  });

  test("leaving the key out does not leave the limit out", () => {
    const l = limiter({ keys: [USER], burst: 3 });
    expect(count(l, requestFacts({}), 10)).toBe(3);
  });

  test("of several limits takes from all or from none", () => {
    const l = limiter({ name: "all", burst: 100, requests: 1 }, { name: "user", keys: [USER], burst: 2, requests: 1 });
    expect(count(l, from("a"), 10)).toBe(2);
    expect(l.decide(from("a"), 0)).toMatchObject({ allowed: false, limit: { name: "user" } });
    // The eight refused ones took nothing from the limit for all.
    expect(l.decide(from("b"), 0).allowed).toBe(true);
    const rest = Array.from({ length: 200 }, (_, i) => l.decide(from(`u${i}`), 0).allowed).filter(Boolean).length;
    expect(rest).toBe(97);
  });

  test("applies only where it matches", () => {
    const l = new LocalRateLimiter([limitOf({ burst: 1, requests: 1 })], () => (request: RequestFacts) => request.path === "/a");
    expect([count(l, from("a"), 5), count(l, from("b"), 5)]).toEqual([1, 5]);
    expect(l.decide(from("b"), 0).limit).toBeNull();
  });

  test("remembers a bounded number of keys, and forgets who has the least to lose", () => {
    const l = limiter({ keys: [USER], burst: 10, requests: 1, perMs: 1000 });
    const random = seededRandom(1);
    // One that is at its limit, then a flood of new keys.
    expect(count(l, from("greedy"), 20)).toBe(10);
    for (let i = 0; i < RATE_LIMIT_KEYS_MAX * 1.5; i++) l.decide(from(`u${i}-${random.next()}`), 0);
    expect(l.bucketCount).toBe(RATE_LIMIT_KEYS_MAX);
    expect(count(l, from("greedy"), 5)).toBe(0);
  });

  test("holds no long keys", () => {
    const l = limiter({ keys: [USER], burst: 1 });
    const long = "x".repeat(100_000);
    expect([count(l, from(`${long}a`), 2), count(l, from(`${long}b`), 2), count(l, from(`${long}a`), 2)]).toEqual([1, 1, 0]);
  });

  test("never lets more through than rate and burst allow, and never fewer than a patient client is owed", () => {
    fc.assert(fc.property(fc.array(fc.nat(300), { minLength: 1, maxLength: 400 }), fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 50 }), (waits, burst, requests) => {
      const l = limiter({ requests, perMs: 1000, burst });
      let nowMs = 0;
      let tokens = burst;
      for (const waitMs of waits) {
        nowMs += waitMs;
        tokens = Math.min(burst, tokens + (waitMs * requests) / 1000);
        const { allowed, state } = l.decide(from("a"), nowMs);
        // A model that keeps a fraction of tokens: equal but for rounding at the very edge.
        if (tokens >= 1 + 1e-6) expect(allowed).toBe(true);
        if (tokens < 1 - 1e-6) expect(allowed).toBe(false);
        if (allowed) tokens -= 1;
        expect(Math.abs(state.remaining - Math.max(0, Math.floor(tokens + 1e-6)))).toBeLessThanOrEqual(1);
        if (!allowed) expect(Math.abs(state.retryAfterMs - ((1 - tokens) * 1000) / requests)).toBeLessThan(1e-3);
      }
    }));
  });
});

describe("rate limit headers", () => {
  test("are those of the IETF draft and of Envoy", () => {
    const list = rateLimitHeaders({ name: 'a"b', quota: 100, windowMs: 60_000, remaining: 42, resetMs: 34_100, retryAfterMs: 0 });
    expect(Object.fromEntries(Array.from({ length: list.length / 2 }, (_, i) => [list[2 * i], list[2 * i + 1]]))).toEqual({
      "ratelimit-policy": '"a\\"b";q=100;w=60', ratelimit: '"a\\"b";r=42;t=35', "x-ratelimit-limit": '100, 100;w=60;name="a\\"b"', "x-ratelimit-remaining": "42", "x-ratelimit-reset": "35",
    });
  });
  test("of a refusal say when to come back, at least a second from now, and are plain ASCII", () => {
    const list = rateLimitHeaders({ name: "ü\r\n", quota: 1, windowMs: 100, remaining: 0, resetMs: 100, retryAfterMs: 20 });
    expect(list.slice(-2)).toEqual(["retry-after", "1"]);
    expect(list.every((text) => /^[\x20-\x7e]+$/.test(text))).toBe(true);
  });
});

const GLOBAL: GlobalRateLimit = {
  name: "quota", service: namespacedName("infra", "ratelimit.infra"), port: 8081, domain: "shop", hits: 1, hitsHeader: null, timeoutMs: 20, onFailure: "allow", matches: [], fieldPath: "",
  descriptors: [[{ key: "kind", value: { kind: "literal", text: "api" } }, { key: "user", value: USER }], [{ key: "who", value: { kind: "identity" } }]],
};

const rateLimitRequest = (limit: GlobalRateLimit, facts: RequestFacts) => {
  const plain = plainRequest(limit, facts);
  return plain === null ? null : create(RateLimitRequestSchema, plain);
};

describe("a global rate limit", () => {
  test("asks with its descriptors, in Envoy's message", () => {
    const request = rateLimitRequest(GLOBAL, from("a"))!;
    const entry = (key: string, value: string): number[] => field(1, message(field(1, key), field(2, value)));
    expect(toBinary(RateLimitRequestSchema, request)).toEqual(message(
      field(1, "shop"), field(2, [...entry("kind", "api"), ...entry("user", "a")]), field(2, entry("who", "spiffe://td/ns/a/sa/a")),
    ));
  });

  test("counts as many hits as it says, or as the request's header says where that is a number", () => {
    const hits = (limit: Partial<GlobalRateLimit>, cost?: string): number => rateLimitRequest({ ...GLOBAL, ...limit }, requestFacts({ headers: { "x-user": "a", ...(cost === undefined ? {} : { "x-cost": cost }) } }))!.hitsAddend;
    expect([hits({ hits: 5 }), hits({ hitsHeader: "x-cost" }, "7"), hits({ hits: 3, hitsHeader: "x-cost" })]).toEqual([5, 7, 3]);
    expect(["0", "-1", "1e9", "", "07", "7, 7", "99999999"].map((cost) => hits({ hits: 3, hitsHeader: "x-cost" }, cost))).toEqual([3, 3, 3, 3, 3, 3, 3]);
    expect(hits({ hitsHeader: "x-cost" }, "9999999")).toBe(1_000_000);
  });

  test("leaves out a descriptor that the request cannot fill, and does not ask without any", () => {
    expect(rateLimitRequest(GLOBAL, requestFacts({ headers: { "x-user": "a" } }))!.descriptors.length).toBe(1);
    expect(rateLimitRequest(GLOBAL, requestFacts({}))).toBeNull();
  });

  const answer = (...fields: readonly number[][]) => judgeRateLimitResponse(GLOBAL, fromBinary(RateLimitResponseSchema, message(...fields)));
  const status = (code: number, perUnit: number, unit: number, left: number): number[] => field(2, message(number(1, code), field(2, message(number(1, perUnit), number(2, unit), field(3, "gold"))), number(3, left), field(4, message(number(1, 7)))));

  test("within the limit goes on, with the headers that the service adds", () => {
    expect(answer(number(1, 1), status(1, 100, 2, 30), status(1, 10, 1, 9), field(3, message(field(1, "X-Left"), field(2, "9"))), field(4, message(field(1, "x-tier"), field(3, [0xc3, 0xa4]))))).toMatchObject({
      allowed: true, reason: "withinLimit", responseHeaders: [{ action: "append", name: "x-left", value: "9" }], requestHeaders: [{ action: "append", name: "x-tier", value: "Ã¤" }],
      state: { name: "gold", quota: 10, windowMs: 1000, remaining: 9, resetMs: 7000 },
    });
  });

  test("over the limit is 429 with the service's body, and names the limit", () => {
    const verdict = answer(number(1, 2), status(1, 100, 2, 1), status(2, 10, 4, 0), field(5, "slow down"));
    expect(verdict).toMatchObject({ allowed: false, reason: "overLimit", status: 429, state: { windowMs: 86_400_000, remaining: 0, retryAfterMs: 7000 }, message: "over the rate limit quota (gold)" });
    expect(new TextDecoder().decode(verdict.body)).toBe("slow down");
  });

  test.each([
    ["no code", []], ["an unknown code", [number(1, 9)]],
    ["a header with a line break", [number(1, 1), field(3, message(field(1, "x"), field(2, "a\r\nb: c")))]],
    ["a header name that is none", [number(1, 1), field(4, message(field(1, "x y"), field(2, "a")))]],
    ["too many headers", [number(1, 1), ...Array.from({ length: ANSWER_HEADERS_MAX + 1 }, () => field(3, message(field(1, "x"), field(2, "a"))))]],
  ] as const)("an answer with %s counts as none", (_, fields) => {
    expect(answer(...fields.map((f) => [...f]))).toMatchObject({ allowed: true, reason: "serviceFailed" });
    expect(judgeRateLimitResponse({ ...GLOBAL, onFailure: "deny" }, fromBinary(RateLimitResponseSchema, message(...fields)))).toMatchObject({ allowed: false, reason: "serviceFailed", status: 500 });
  });

  test("never sets the host, framing or pseudo headers", () => {
    const verdict = answer(number(1, 1), ...["Host", ":path", "content-length", "transfer-encoding", "x-fine"].map((name) => field(4, message(field(1, name), field(2, "1")))));
    expect(verdict.requestHeaders.map(({ name }) => name)).toEqual(["x-fine"]);
  });

  test("without an answer is decided by the policy, and says what was asked", () => {
    expect(rateLimitFailed(GLOBAL, "no answer in 20 ms").message).toBe("rate limit quota: asked infra/ratelimit.infra port 8081: no answer in 20 ms; let through (onFailure: allow)");
    expect(rateLimitFailed({ ...GLOBAL, onFailure: "deny" }, "x")).toMatchObject({ allowed: false, status: 500 });
  });
});
