// Requests that a rate limit service counts, through the whole of a waypoint's HTTP, between real sockets.

import { describe, expect, test } from "bun:test";
import { rateLimitService } from "../../../test/kit/decision-services.ts";
import { when } from "../../../test/kit/http-records.ts";
import { until } from "../../../test/kit/until.ts";
import { trafficPolicy } from "../../../test/kit/upstreams.ts";
import { type Backend, backend1, WaypointFixture } from "../../../test/kit/waypoint.ts";
import { namespacedName } from "../../core/brand.ts";
import type { GlobalRateLimit, LocalRateLimit } from "../../mesh/l7/traffic-policy.ts";
import type { RateLimitRequest } from "../../wire/protobuf/envoy/service/ratelimit/v3/rls_pb.ts";

const LIMIT: GlobalRateLimit = {
  name: "quota", service: namespacedName("shop", "limits.shop.svc.cluster.local"), port: 80, domain: "shop", hits: 1, hitsHeader: null, timeoutMs: 2_000, onFailure: "deny", matches: [], fieldPath: "spec.rateLimits.global[0]",
  descriptors: [[{ key: "user", value: { kind: "header", name: "x-user" } }], [{ key: "path", value: { kind: "path" } }]],
};
const OK = 1;
const OVER = 2;
const MINUTE = 2;

const echo = (): Promise<Backend> => backend1((request, response) => {
  let body = "";
  request.on("data", (chunk: Buffer) => (body += chunk.toString()));
  request.on("end", () => response.end(`hello ${body}`));
});
const fixture = (server: Backend, limits: { readonly port: number }, globalRateLimits: readonly GlobalRateLimit[], localRateLimits: readonly LocalRateLimit[] = []): WaypointFixture => {
  const policy = trafficPolicy({ globalRateLimits, localRateLimits });
  return new WaypointFixture({ endpoints: [server, { service: "limits", port: limits.port }], l7: { trafficPolicies: [{ service: policy.service, policies: [policy] }] } });
};

describe("a request that a service counts", () => {
  test("goes on within its limit: descriptors asked, headers added both ways, the body whole", async () => {
    await using server = await echo();
    await using limits = await rateLimitService(() => ({
      overallCode: OK, statuses: [{ code: OK, currentLimit: { name: "per-user", requestsPerUnit: 10, unit: MINUTE }, limitRemaining: 7, durationUntilReset: { seconds: 30n } }],
      responseHeadersToAdd: [{ key: "x-tier", value: "gold" }], requestHeadersToAdd: [{ key: "x-counted", value: "yes" }],
    }));
    await using waypoint = fixture(server, limits, [LIMIT]);
    const answer = await waypoint.fetch("/cart?q=1", { method: "POST", body: "b".repeat(500_000), headers: { "x-user": "anna", "x-request-id": "r-1" } });
    expect([answer.status, answer.headers.get("x-tier"), answer.headers.get("ratelimit"), answer.headers.get("x-ratelimit-remaining"), (await answer.text()).length]).toEqual([200, "gold", '"per-user";r=7;t=30', "7", 500_006]);
    expect(server.seen[0]!.headers["x-counted"]).toBe("yes");
    expect(limits.asked[0]).toMatchObject({ domain: "shop", descriptors: [{ entries: [{ key: "user", value: "anna" }] }, { entries: [{ key: "path", value: "/cart" }] }] });
    expect(limits.metadata[0]!.get("x-request-id")).toBe("r-1");
  });

  test("is 429 over its limit, with the service's words and when to come back", async () => {
    await using server = await echo();
    let left = 2;
    await using limits = await rateLimitService(() => (left-- > 0 ? { overallCode: OK } : {
      overallCode: OVER, statuses: [{ code: OVER, currentLimit: { requestsPerUnit: 2, unit: MINUTE }, durationUntilReset: { seconds: 12n } }], rawBody: Buffer.from("slow down"), responseHeadersToAdd: [{ key: "retry-after", value: "99" }],
    }));
    await using waypoint = fixture(server, limits, [LIMIT]);
    expect([(await waypoint.fetch("/")).status, (await waypoint.fetch("/")).status]).toEqual([200, 200]);
    const answer = await waypoint.fetch("/");
    expect([answer.status, answer.headers.get("x-weft-reason"), answer.headers.get("retry-after"), answer.headers.get("x-ratelimit-limit"), await answer.text()])
      .toEqual([429, "rate_limited", "99", '2, 2;w=60;name="global"', "slow down"]);
    expect(await waypoint.ended(3)).toMatchObject({ code: "rate_limited", flags: "RL", attempts: 0, detail: "over the rate limit quota" });
    expect(server.seen.length).toBe(2);
    expect(waypoint.counted("weft_rate_limit_decisions_total")).toEqual({ "shop web quota allowed": 2, "shop web quota refused": 1 });
  });

  test("of gRPC is told by gRPC's status", async () => {
    await using server = await echo();
    await using limits = await rateLimitService(() => ({ overallCode: OVER }));
    await using waypoint = fixture(server, limits, [LIMIT]);
    const headers = await waypoint.grpc();
    expect(headers).toMatchObject({ ":status": 200, "grpc-status": "8" });
  });

  test("is not asked about where no descriptor or match holds; of several limits the first that refuses decides", async () => {
    await using server = await echo();
    await using limits = await rateLimitService((request: RateLimitRequest) => ({ overallCode: request.domain === "strict" ? OVER : OK }));
    const user: GlobalRateLimit = { ...LIMIT, descriptors: [[{ key: "user", value: { kind: "header", name: "x-user" } }]] };
    const strict: GlobalRateLimit = { ...user, name: "strict", domain: "strict", matches: [when({ path: { kind: "prefix", value: "/strict" } })] };
    const last: GlobalRateLimit = { ...user, name: "last", domain: "last" };
    await using waypoint = fixture(server, limits, [user, strict, last]);
    expect((await waypoint.fetch("/strict")).status).toBe(200);
    expect(limits.asked.length).toBe(0);
    const headers = { "x-user": "anna" };
    expect((await waypoint.fetch("/a", { headers })).status).toBe(200);
    expect((await waypoint.fetch("/strict", { headers })).status).toBe(429);
    expect(limits.asked.map(({ domain }) => domain)).toEqual(["shop", "last", "shop", "strict"]);
  });

  test("that a local limit refuses is not counted elsewhere", async () => {
    await using server = await echo();
    await using limits = await rateLimitService(() => ({ overallCode: OK }));
    await using waypoint = fixture(server, limits, [LIMIT], [{ name: "burst", requests: 1, perMs: 60_000, burst: 1, keys: [], matches: [], fieldPath: "" }]);
    expect([(await waypoint.fetch("/")).status, (await waypoint.fetch("/")).status, limits.asked.length]).toEqual([200, 429, 1]);
    expect(waypoint.counted("weft_rate_limit_decisions_total")).toEqual({ "shop web burst allowed": 1, "shop web burst refused": 1, "shop web quota allowed": 1 });
  });
});

describe("a rate limit service that fails", () => {
  test.each([["does not answer", () => new Promise<never>(() => {}), "no answer from 127.0.0.1:"], ["answers with no code", () => ({}), "it answered with code 0"]] as const)("because it %s refuses or lets through, as the limit says", async (_, answer, why) => {
    await using server = await echo();
    await using limits = await rateLimitService(answer);
    await using waypoint = fixture(server, limits, [{ ...LIMIT, timeoutMs: 200 }]);
    const refused = await waypoint.fetch("/");
    expect([refused.status, refused.headers.get("x-weft-reason"), server.seen.length]).toEqual([500, "rate_limit_failed", 0]);
    const told = await waypoint.ended();
    expect(told).toMatchObject({ flags: "RLSE" });
    expect(told.detail).toContain(why);
    const policy = trafficPolicy({ globalRateLimits: [{ ...LIMIT, timeoutMs: 200, onFailure: "allow" }] });
    waypoint.change({ trafficPolicies: [{ service: policy.service, policies: [policy] }] });
    expect((await waypoint.fetch("/")).status).toBe(200);
    expect((await waypoint.ended(2)).detail).toContain("let through (onFailure: allow)");
  });

  test("is never asked twice about one request that it may have counted", async () => {
    await using server = await echo();
    await using limits = await rateLimitService(() => new Promise<never>(() => {}));
    await using waypoint = fixture(server, limits, [LIMIT]);
    const answer = waypoint.fetch("/");
    await until("the question", 5_000, () => limits.asked.length > 0 || null);
    limits.cut("reset");
    expect((await answer).headers.get("x-weft-reason")).toBe("rate_limit_failed");
    expect(limits.asked.length).toBe(1);
  });

  test("a client that goes away takes its question with it", async () => {
    await using server = await echo();
    await using limits = await rateLimitService(() => new Promise<never>(() => {}));
    await using waypoint = fixture(server, limits, [{ ...LIMIT, timeoutMs: 60_000 }]);
    const client = waypoint.raw().send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    await until("the question", 5_000, () => limits.asked.length > 0 || null);
    client.destroy();
    expect(await waypoint.ended()).toMatchObject({ status: 0, flags: "DC" });
  });
});
