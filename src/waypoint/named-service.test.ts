// Policies of the service that the client named, where a rule sends its requests to others: what is said of requests goes by that service,
// whatever the backend is called, and the answer says which policy it was.

import { describe, expect, test } from "bun:test";
import { rateLimitService } from "../../test/kit/decision-services.ts";
import { backend, route, rule } from "../../test/kit/http-records.ts";
import { until } from "../../test/kit/until.ts";
import { trafficPolicy } from "../../test/kit/upstreams.ts";
import { type Backend, backend1, WaypointFixture } from "../../test/kit/waypoint.ts";
import { namespacedName } from "../core/brand.ts";
import type { Provenance } from "../core/fault.ts";
import { INHERITED_TIMEOUTS } from "../mesh/l7/route.ts";
import type { GlobalRateLimit, LocalRateLimit, TrafficPolicy } from "../mesh/l7/traffic-policy.ts";

/** A time limit that is meant to run out, and not before the request is at its server: this process is both ends, and may be held up. */
const SHORT_MS = 300;
const nameOf = (name: string) => namespacedName("shop", `${name}.shop.svc.cluster.local`);
const from = (name: string, fieldPath: string): Provenance => ({ kind: "TrafficPolicy", namespace: "shop", name, resourceVersion: "1", fieldPath });
const limitTo = (requests: number): LocalRateLimit => ({ name: "few", requests, perMs: 3_600_000, burst: requests, keys: [], matches: [], fieldPath: "spec.rateLimits.local[0]" });
const counted = (): GlobalRateLimit => ({
  name: "quota", service: nameOf("limits"), port: 80, domain: "shop", hits: 1, hitsHeader: null, timeoutMs: 2_000, onFailure: "deny", matches: [], fieldPath: "spec.rateLimits.global[0]",
  descriptors: [[{ key: "path", value: { kind: "path" } }]],
});

const answering = (): Promise<Backend> => backend1((_request, response) => void response.end("ok"));

interface Split {
  readonly server: Backend;
  readonly policies: Readonly<Record<string, Partial<TrafficPolicy>>>;
  readonly limits?: { readonly port: number };
  readonly requestMs?: number;
}

/** `web` sends half to `web-v1` and half to `web-v2`. */
function split({ server, policies, limits, requestMs }: Split): WaypointFixture {
  const timeouts = { ...INHERITED_TIMEOUTS, requestMs: requestMs ?? null };
  return new WaypointFixture({
    endpoints: [{ service: "web-v1", port: server.port }, { service: "web-v2", port: server.port }, ...(limits === undefined ? [] : [{ service: "limits", port: limits.port }])],
    l7: {
      routes: [route({ rules: [rule({ backends: [backend("web-v1"), backend("web-v2")], timeouts })] })],
      trafficPolicies: Object.entries(policies).map(([name, fields]) => ({ service: nameOf(name), policies: [{ ...trafficPolicy(fields), service: nameOf(name) }] })),
    },
  });
}

async function statuses(waypoint: WaypointFixture, count: number): Promise<number[]> {
  const seen: number[] = [];
  for (let i = 0; i < count; i++) seen.push((await waypoint.fetch("/")).status);
  return seen;
}

describe("a service whose requests go to others", () => {
  test("keeps its rate limit, all backends together, and the answer names the policy", async () => {
    await using server = await answering();
    await using waypoint = split({ server, policies: { web: { localRateLimits: [limitTo(5)], provenance: { "localRateLimits.few": from("web", "spec.rateLimits.local[0]") } } } });
    expect(await statuses(waypoint, 8)).toEqual([200, 200, 200, 200, 200, 429, 429, 429]);
    expect(await waypoint.ended(8)).toMatchObject({ code: "rate_limited", provenance: "TrafficPolicy shop/web spec.rateLimits.local[0]" });
    expect(waypoint.counted("weft_rate_limit_decisions_total")).toEqual({ "shop web few allowed": 5, "shop web few refused": 3 });
  });

  test("counts beside the backends' own limits, its own first", async () => {
    await using server = await answering();
    await using waypoint = split({ server, policies: {
      web: { localRateLimits: [limitTo(3)], provenance: { localRateLimits: from("web", "spec.rateLimits.local") } },
      "web-v1": { localRateLimits: [limitTo(1)], provenance: { localRateLimits: from("v1", "spec.rateLimits.local") } },
      "web-v2": { localRateLimits: [limitTo(1)], provenance: { localRateLimits: from("v2", "spec.rateLimits.local") } },
    } });
    await statuses(waypoint, 4);
    const [first, ...others] = waypoint.told;
    expect(first!.status).toBe(200);
    // One more than the backends let through together, then one more than the service does.
    expect(others.filter(({ provenance }) => /^TrafficPolicy shop\/v[12] spec.rateLimits.local\[0\]$/.test(provenance)).length).toBeGreaterThan(0);
    expect(others[2]).toMatchObject({ status: 429, provenance: "TrafficPolicy shop/web spec.rateLimits.local[0]" });
    const { "shop web few allowed": allowed, "shop web few refused": over } = waypoint.counted("weft_rate_limit_decisions_total");
    expect([allowed, over]).toEqual([3, 1]);
  });

  test("is asked about once where the backend's limit is the same question", async () => {
    await using server = await answering();
    await using limits = await rateLimitService(() => ({ overallCode: 1 }));
    await using waypoint = split({ server, limits, policies: { web: { globalRateLimits: [counted()] }, "web-v1": { globalRateLimits: [counted()] }, "web-v2": { globalRateLimits: [{ ...counted(), domain: "other" }] } } });
    expect(await statuses(waypoint, 8)).toEqual(Array(8).fill(200));
    const domains = limits.asked.map(({ domain }) => domain);
    expect(domains.filter((domain) => domain === "shop").length).toBe(8);
    expect(domains.filter((domain) => domain === "other").length).toBeGreaterThan(0);
  });

  test("keeps its request timeout, which the answer names, and says what was awaited", async () => {
    await using server = await backend1(() => {});
    await using waypoint = split({ server, policies: { web: { timeouts: { requestMs: SHORT_MS, backendRequestMs: null, streamIdleMs: null }, provenance: { "timeouts.requestMs": from("web", "spec.timeouts.request") } } } });
    expect(await statuses(waypoint, 1)).toEqual([504]);
    expect(await waypoint.ended()).toMatchObject({
      code: "request_timeout", provenance: "TrafficPolicy shop/web spec.timeouts.request", detail: `the request's ${SHORT_MS} ms were over while awaiting the answer of 127.0.0.1:${server.port}`,
    });
  });

  test("leaves the timeout to the route that has its own", async () => {
    await using server = await backend1(() => {});
    await using waypoint = split({ server, requestMs: SHORT_MS, policies: { web: { timeouts: { requestMs: 60_000, backendRequestMs: null, streamIdleMs: null }, provenance: { timeouts: from("web", "spec.timeouts") } } } });
    expect(await statuses(waypoint, 1)).toEqual([504]);
    const { detail, provenance } = await waypoint.ended();
    expect(detail).toStartWith(`the request's ${SHORT_MS} ms were over`);
    expect(provenance).toStartWith("HTTPRoute ");
  });

  test("keeps its adaptive concurrency", async () => {
    let release: () => void = () => {};
    await using server = await backend1((request, response) => void (request.url === "/slow" ? (release = () => response.end("ok")) : response.end("ok")));
    await using waypoint = split({ server, policies: { web: { adaptiveConcurrency: { limitMin: 1, limitMax: 1, priorityHeader: null, priorities: [] }, provenance: { adaptiveConcurrency: from("web", "spec.adaptiveConcurrency") } } } });
    const slow = waypoint.fetch("/slow");
    await until("the slow request to arrive", 5_000, () => server.seen.length === 1 || null);
    expect(await statuses(waypoint, 1)).toEqual([503]);
    expect(waypoint.told[0]).toMatchObject({ code: "concurrency_limited", provenance: "TrafficPolicy shop/web spec.adaptiveConcurrency" });
    release();
    expect((await slow).status).toBe(200);
    expect(await statuses(waypoint, 1)).toEqual([200]);
  });
});
