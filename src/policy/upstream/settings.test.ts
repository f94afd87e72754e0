import { describe, expect, test } from "bun:test";
import { provenance } from "../../../test/kit/mesh-records.ts";
import { NO_LIMITS, trafficPolicy } from "../../../test/kit/upstreams.ts";
import { mergeTrafficPolicies, policiesFor, type TrafficScope } from "../../mesh/l7/merge-traffic.ts";
import { INHERITED_TIMEOUTS } from "../../mesh/l7/route.ts";
import type { LocalRateLimit, OutlierDetection } from "../../mesh/l7/traffic-policy.ts";
import {
  ACTIVE_REQUESTS_MAX, BASE_EJECTION_MS, BASE_EJECTION_UNCONFIGURED_MS, CONNECTIONS_MAX, CONSECUTIVE_5XX, RETRY_ATTEMPTS, RETRY_ATTEMPTS_MAX, STREAM_IDLE_TIMEOUT_MS, UNLIMITED,
} from "./defaults.ts";
import { effectiveRetry, effectiveSettings, effectiveTimeouts, RETRY_DEFAULT, type UpstreamSettings } from "./settings.ts";

const NO_OUTLIERS: OutlierDetection = {
  consecutive5xx: null, consecutiveGatewayErrors: null, consecutiveConnectFailures: null, splitConnectFailures: null, errorStatuses: null, successRate: null, intervalMs: null, baseEjectionMs: null, ejectionMaxMs: null,
  ejectedShareMax: null, panicThreshold: null,
};
const v1 = { name: "v1", labels: { version: "v1" } };
const limit = (name: string): LocalRateLimit => ({ name, requests: 1, perMs: 1, burst: 1, keys: [], matches: [], fieldPath: "" });

function merge(policies: Parameters<typeof trafficPolicy>[0][], scope: Partial<TrafficScope> = {}): UpstreamSettings {
  const whole = { port: 80, subset: null, clientNamespace: "shop", ...scope };
  const settings = effectiveSettings(mergeTrafficPolicies(policiesFor(policies.map(trafficPolicy), whole)), whole.subset);
  if (settings === null) throw new Error("no settings");
  return settings;
}

describe("settings", () => {
  test("without a policy are the defaults", () => {
    const settings = merge([]);
    expect(settings.balancing).toEqual({ kind: "peakEwma" });
    expect(settings.retry).toEqual(RETRY_DEFAULT);
    expect(settings.retry.attempts).toBe(RETRY_ATTEMPTS);
    expect(settings.limits.activeRequestsMax).toBe(ACTIVE_REQUESTS_MAX);
    expect(settings.outliers).toMatchObject({ consecutive5xx: 0, consecutiveGatewayErrors: 0, consecutiveConnectFailures: 3, baseEjectionMs: BASE_EJECTION_UNCONFIGURED_MS });
    expect(settings.provenance).toEqual({});
  });

  test("the more specific record wins field by field: client, then subset, then port", () => {
    const records = [
      { balancing: { kind: "random" }, slowStartMs: 1, limits: { ...NO_LIMITS, connectionsMax: 1, pendingRequestsMax: 1, activeRequestsMax: 1 } },
      { port: 80, slowStartMs: 2, limits: { ...NO_LIMITS, connectionsMax: 2 } },
      { port: 90, slowStartMs: 3 },
      { subset: v1, limits: { ...NO_LIMITS, pendingRequestsMax: 3 } },
      { clientNamespace: "bank", slowStartMs: 9 },
    ] as const;
    for (const order of [records, [...records].reverse()]) {
      const settings = merge([...order], { subset: "v1" });
      expect(settings.balancing).toEqual({ kind: "random" });
      expect(settings.slowStartMs).toBe(2);
      expect([settings.limits.connectionsMax, settings.limits.pendingRequestsMax, settings.limits.activeRequestsMax]).toEqual([2, 3, 1]);
      expect(settings.subset).toEqual(v1);
    }
    expect(merge([...records]).limits.pendingRequestsMax).toBe(1);
    expect(merge([...records], { port: 90 }).slowStartMs).toBe(3);
    expect(merge([...records], { clientNamespace: "bank" }).slowStartMs).toBe(9);
  });

  test("tell where each field came from", () => {
    const from = provenance("DestinationRule", "shop", "web");
    const settings = merge([{ slowStartMs: 5, limits: { ...NO_LIMITS, connectionsMax: 2 }, provenance: { slowStartMs: from, limits: from } }]);
    expect(settings.provenance).toEqual({ slowStartMs: from, limits: from });
  });

  test("a subset that nobody defines is none", () => {
    expect([effectiveSettings(null, "v9"), effectiveSettings(trafficPolicy({}), "v9"), effectiveSettings(trafficPolicy({ subset: v1 }), "v9")]).toEqual([null, null, null]);
    expect(effectiveSettings(trafficPolicy({ subset: v1 }), "v1")?.subset).toEqual(v1);
  });

  test("configured outlier detection has Istio's thresholds where it says nothing; 0 switches one off", () => {
    expect(merge([{ outliers: NO_OUTLIERS }]).outliers).toMatchObject({ consecutive5xx: CONSECUTIVE_5XX, baseEjectionMs: BASE_EJECTION_MS });
    expect(merge([{ outliers: { ...NO_OUTLIERS, consecutive5xx: 0, consecutiveConnectFailures: 0 } }]).outliers).toMatchObject({ consecutive5xx: 0, consecutiveConnectFailures: 0 });
    expect(merge([{ outliers: { ...NO_OUTLIERS, baseEjectionMs: 900_000 } }]).outliers.ejectionMaxMs).toBe(900_000);
  });

  test("0 switches limits of time and use off, and refuses where it counts what is open", () => {
    const { limits } = merge([{ limits: { ...NO_LIMITS, idleTimeoutMs: 0, requestsPerConnectionMax: 0, pendingRequestsMax: 0 } }]);
    expect([limits.idleTimeoutMs, limits.requestsPerConnectionMax, limits.pendingRequestsMax, limits.connectionsMax]).toEqual([UNLIMITED, UNLIMITED, 0, CONNECTIONS_MAX]);
  });

  test("rate limits of the service and of its port add up", () => {
    expect(merge([{ localRateLimits: [limit("a")] }, { port: 80, localRateLimits: [limit("b")] }, { port: 90, localRateLimits: [limit("c")] }]).localRateLimits.map(({ name }) => name)).toEqual(["a", "b"]);
  });

  test("a route's own retries and timeouts go first, within bounds", () => {
    const settings = merge([{ timeouts: { requestMs: 1000, backendRequestMs: null, streamIdleMs: null } }]);
    expect(effectiveTimeouts(INHERITED_TIMEOUTS, null, settings)).toEqual({ requestMs: 1000, backendRequestMs: 0, streamIdleMs: STREAM_IDLE_TIMEOUT_MS });
    expect(effectiveTimeouts({ requestMs: 0, backendRequestMs: 7, streamIdleMs: null }, null, settings)).toEqual({ requestMs: 0, backendRequestMs: 7, streamIdleMs: STREAM_IDLE_TIMEOUT_MS });
    const named = { requestMs: 300, backendRequestMs: 40, streamIdleMs: null };
    expect(effectiveTimeouts(INHERITED_TIMEOUTS, named, settings)).toEqual({ requestMs: 300, backendRequestMs: 40, streamIdleMs: STREAM_IDLE_TIMEOUT_MS });
    expect(effectiveTimeouts({ ...INHERITED_TIMEOUTS, requestMs: 5 }, named, settings).requestMs).toBe(5);
    const ofBackend = merge([{ timeouts: { requestMs: null, backendRequestMs: 60, streamIdleMs: null } }]);
    expect(effectiveTimeouts(INHERITED_TIMEOUTS, named, ofBackend).backendRequestMs).toBe(60);
    expect(effectiveRetry(null, settings)).toBe(settings.retry);
    expect(effectiveRetry({ ...RETRY_DEFAULT, attempts: 1000 }, settings).attempts).toBe(RETRY_ATTEMPTS_MAX);
  });
});
