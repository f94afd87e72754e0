// Active health checks between real sockets: who is asked, how, and what becomes of one that fails and heals.

import { describe, expect, test } from "bun:test";
import { WEB } from "../../../test/kit/http-records.ts";
import { until } from "../../../test/kit/until.ts";
import { BackendAuthority, tlsBackend } from "../../../test/kit/tls-backends.ts";
import { NO_LIMITS, trafficPolicy } from "../../../test/kit/upstreams.ts";
import { backend1, backend2, rawBackend, WaypointFixture } from "../../../test/kit/waypoint.ts";
import type { HealthCheck, TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import { HEALTH_PROBES_MAX } from "../../policy/upstream/defaults.ts";
import { RETRY_DEFAULT } from "../../policy/upstream/settings.ts";
import { ProbeGate } from "./health-checks.ts";

const HTTP = { kind: "http", path: "/healthz", host: null, statuses: [200], headers: [["x-probe", "1"]] } as const;
const check = (fields: Partial<HealthCheck> = {}): HealthCheck => ({ probe: HTTP, intervalMs: 120, timeoutMs: 2_000, healthyThreshold: 2, unhealthyThreshold: 2, port: null, ...fields });
const policies = (healthCheck: HealthCheck | null, fields: Partial<TrafficPolicy> = {}) => ({
  trafficPolicies: [{ service: WEB, policies: [trafficPolicy({ healthCheck, retry: { ...RETRY_DEFAULT, attempts: 0 }, balancing: { kind: "roundRobin" }, ...fields })] }],
});

const healths = (waypoint: WaypointFixture): string[] => [...waypoint.plane.clusters].flatMap(({ upstream }) => upstream.endpoints.map(({ health }) => health)).sort();
const settled = (waypoint: WaypointFixture, ...wanted: string[]): Promise<unknown> =>
  until(`healths of ${wanted.join()} (${waypoint.news.join("; ")})`, 5_000, () => (healths(waypoint).join() === wanted.join() ? true : null));
async function answers(waypoint: WaypointFixture, count = 12): Promise<string[]> {
  const seen = new Set<string>();
  for (let i = 0; i < count; i++) {
    const answer = await waypoint.fetch("/");
    seen.add(answer.headers.get("x-weft-reason") ?? (await answer.text()));
  }
  return [...seen].sort();
}
function counted(waypoint: WaypointFixture, result: "passed" | "failed"): number {
  const { keys, values } = waypoint.telemetry.snapshot([]).cells.find(({ name }) => name === "weft_upstream_health_checks_total")!;
  return values.reduce((sum, value, i) => sum + (keys[i]!.endsWith(result) ? value : 0), 0);
}

describe("HTTP health checks", () => {
  test("an endpoint that fails leaves, and comes back when it heals", async () => {
    let well = true;
    const probes: unknown[] = [];
    await using one = await backend1((request, response) => {
      if (request.url !== "/healthz") return void response.end("one");
      probes.push([request.headers["x-probe"], request.headers["user-agent"], request.headers.host]);
      response.writeHead(well ? 200 : 503).end();
    });
    await using two = await backend1((_request, response) => response.end("two"));
    await using waypoint = new WaypointFixture({ endpoints: [one, two], l7: policies(check()) });
    expect(await answers(waypoint)).toEqual(["one", "two"]);
    await settled(waypoint, "healthy", "healthy");
    well = false;
    await settled(waypoint, "healthy", "unhealthy");
    expect(await answers(waypoint)).toEqual(["two"]);
    expect(waypoint.news).toEqual([expect.stringMatching(/^endpoint_unhealthy shop\/web\.shop\.svc\.cluster\.local:80: the endpoint 127\.0\.0\.1:\d+ is unhealthy: failed 2 in a row: HTTP 503, wanted 200$/)]);
    well = true;
    await settled(waypoint, "healthy", "healthy");
    expect(await answers(waypoint)).toEqual(["one", "two"]);
    expect(waypoint.news[1]).toMatch(/^endpoint_healthy .* is healthy: passed 2 in a row$/);
    expect(probes[0]).toEqual(["1", "weft-health-check", "web.shop.svc.cluster.local"]);
    expect(counted(waypoint, "passed")).toBeGreaterThan(4);
    expect(counted(waypoint, "failed")).toBeGreaterThanOrEqual(2);
  });

  test("when all fail there is none, and the answer says why", async () => {
    await using one = await backend1((request, response) => response.writeHead(request.url === "/healthz" ? 500 : 200).end("one"));
    await using waypoint = new WaypointFixture({ endpoints: [one], l7: policies(check()) });
    await answers(waypoint, 1);
    await settled(waypoint, "unhealthy");
    expect(await answers(waypoint, 2)).toEqual(["no_healthy_endpoint"]);
    expect((await waypoint.ended(2)).detail).toContain("1 failed its health check");
  });

  test("silence, and a connection that is refused, fail", async () => {
    await using silent = await rawBackend(() => {});
    const gone = await backend1(() => {});
    await gone[Symbol.asyncDispose]();
    await using waypoint = new WaypointFixture({ endpoints: [silent, { port: gone.port }], l7: policies(check({ timeoutMs: 100 }), { limits: { ...NO_LIMITS, connectTimeoutMs: 200 } }) });
    void waypoint.fetch("/", { signal: AbortSignal.timeout(400) }).catch(() => {});
    await settled(waypoint, "unhealthy", "unhealthy");
    expect(waypoint.news.join("\n")).toMatch(/no answer in 100 ms/);
    expect(waypoint.news.join("\n")).toMatch(/ECONNREFUSED/);
  });

  test("another port and other statuses, when they are asked for", async () => {
    await using admin = await backend1((_request, response) => response.writeHead(204).end());
    await using one = await backend1((request, response) => response.writeHead(request.url === "/healthz" ? 500 : 200).end("one"));
    await using waypoint = new WaypointFixture({ endpoints: [one], l7: policies(check({ port: admin.port, probe: { ...HTTP, statuses: [200, 204] } })) });
    await answers(waypoint, 1);
    await settled(waypoint, "healthy");
    expect(one.seen.some(({ url }) => url === "/healthz")).toBe(false);
  });

  test("go over TLS where traffic does", async () => {
    const authority = new BackendAuthority();
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: ["api.example.com"] }), speaks: "both" }, (_request, response) => response.end("one"));
    const tls = { mode: "simple", sni: "api.example.com", subjectAltNames: [], caPem: authority.caPem, crlPem: null, certificate: null, gatewayCertificate: false, verify: true } as const;
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(check(), { tls }) });
    await answers(waypoint, 1);
    await settled(waypoint, "healthy");
    server.use(authority.leaf({ dns: ["other.example.com"] }));
    await settled(waypoint, "unhealthy");
    expect(waypoint.news[0]).toContain("its certificate is for other.example.com, wanted api.example.com");
  });

  test("end with the policy, and begin with it", async () => {
    await using one = await backend1((request, response) => response.writeHead(request.url === "/healthz" ? 500 : 200).end("one"));
    await using waypoint = new WaypointFixture({ endpoints: [one], l7: policies(null) });
    expect(await answers(waypoint, 1)).toEqual(["one"]);
    const before = waypoint.plane.due.size;
    waypoint.change(policies(check()));
    await settled(waypoint, "unhealthy");
    waypoint.change(policies(null));
    expect(await answers(waypoint, 1)).toEqual(["one"]);
    expect(healths(waypoint)).toEqual(["unchecked"]);
    expect(waypoint.plane.probes.underWay).toBe(0);
    expect(waypoint.plane.due.size).toBe(before);
  });
});

describe("gRPC health checks", () => {
  test("by the standard service: SERVING passes, anything else does not", async () => {
    let serving = 1;
    let grpcStatus = "0";
    const asked: string[] = [];
    await using server = await backend2((stream, headers) => {
      if (headers[":path"] !== "/grpc.health.v1.Health/Check") {
        stream.respond({ ":status": 200 });
        return void stream.end("one");
      }
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => {
        asked.push(Buffer.concat(chunks).subarray(7).toString());
        stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": grpcStatus }));
        stream.end(grpcStatus === "0" ? Buffer.from([0, 0, 0, 0, 2, 8, serving]) : undefined);
      });
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "grpc", l7: policies(check({ probe: { kind: "grpc", service: "shop.Cart" } })) });
    await answers(waypoint, 1);
    await settled(waypoint, "healthy");
    expect(asked[0]).toBe("shop.Cart");
    serving = 2;
    await settled(waypoint, "unhealthy");
    expect(waypoint.news[0]).toContain("failed 2 in a row: NOT_SERVING, wanted SERVING");
    serving = 1;
    await settled(waypoint, "healthy");
    grpcStatus = "12";
    await settled(waypoint, "unhealthy");
    expect(waypoint.news[2]).toContain("it has no grpc.health.v1.Health service (gRPC status 12)");
  });
});

describe("TCP health checks", () => {
  test("a connection that can be made is enough", async () => {
    const one = await backend1((_request, response) => response.end("one"));
    await using waypoint = new WaypointFixture({ endpoints: [one], l7: policies(check({ probe: { kind: "tcp" } })) });
    await answers(waypoint, 1);
    await settled(waypoint, "healthy");
    expect(one.seen.length).toBe(1);
    await one[Symbol.asyncDispose]();
    await settled(waypoint, "unhealthy");
  });
});

test("no more probes are under way at once than a thread has places", () => {
  const gate = new ProbeGate();
  for (let i = 0; i < HEALTH_PROBES_MAX; i++) expect(gate.enter()).toBe(true);
  expect(gate.enter()).toBe(false);
  gate.leave();
  expect(gate.enter()).toBe(true);
});
