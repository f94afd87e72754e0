// What a cluster keeps when the configuration says something else of it, between real sockets.

import { describe, expect, test } from "bun:test";
import { backend, route, rule, WEB } from "../../../test/kit/http-records.ts";
import { ip, uid } from "../../../test/kit/mesh-records.ts";
import { until } from "../../../test/kit/until.ts";
import { BackendAuthority, tlsBackend } from "../../../test/kit/tls-backends.ts";
import { NO_LIMITS, trafficPolicy } from "../../../test/kit/upstreams.ts";
import { type Backend, backend1, WaypointFixture } from "../../../test/kit/waypoint.ts";
import { ANY_REQUEST } from "../../mesh/l7/match.ts";
import type { OutlierDetection, TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import { emptyDelta } from "../../mesh/records.ts";
import { RETRY_DEFAULT } from "../../policy/upstream/settings.ts";

const NO_RETRY = { ...RETRY_DEFAULT, attempts: 0 };
const OUTLIERS: OutlierDetection = { consecutive5xx: 2, consecutiveGatewayErrors: null, consecutiveConnectFailures: null, splitConnectFailures: null, errorStatuses: null, successRate: null, intervalMs: null, baseEjectionMs: 60_000, ejectionMaxMs: null, ejectedShareMax: 0.5, panicThreshold: null };
const policies = (...all: Partial<TrafficPolicy>[]) => ({ trafficPolicies: [{ service: WEB, policies: all.map((fields) => trafficPolicy(fields)) }] });
const socketsOf = (backend: Backend): Promise<number> => new Promise((resolve) => backend.server.getConnections((_error, count) => resolve(count)));

describe("a change of the configuration", () => {
  test("keeps ejections, latencies and connections", async () => {
    await using good = await backend1((_request, response) => response.end("good"));
    await using bad = await backend1((_request, response) => response.writeHead(500).end("bad"));
    await using waypoint = new WaypointFixture({ endpoints: [good, bad], l7: policies({ outliers: OUTLIERS, retry: NO_RETRY, balancing: { kind: "roundRobin" } }) });
    const ejected = (): number => [...waypoint.plane.clusters].reduce((sum, { upstream }) => sum + upstream.counts().ejected, 0);
    for (let i = 0; ejected() === 0 && i < 20; i++) await (await waypoint.fetch("/")).text();
    expect(ejected()).toBe(1);
    const [cluster] = [...waypoint.plane.clusters];
    const requestsToBad = bad.seen.length;
    waypoint.change(policies({ outliers: { ...OUTLIERS, consecutive5xx: 7 }, retry: NO_RETRY, balancing: { kind: "peakEwma" }, limits: { ...NO_LIMITS, activeRequestsMax: 100 } }));
    for (let i = 0; i < 10; i++) expect(await (await waypoint.fetch("/")).text()).toBe("good");
    expect([...waypoint.plane.clusters]).toEqual([cluster!]);
    expect(ejected()).toBe(1);
    expect(bad.seen.length).toBe(requestsToBad);
    expect(await socketsOf(good)).toBe(1);
    expect(cluster!.settings.outliers.consecutive5xx).toBe(7);
    // Two in a row do not eject any more, and the endpoint's own count has begun anew.
    expect(cluster!.upstream.endpoints.find(({ outlier }) => outlier.kind === "healthy")!.latencyMs).toBeGreaterThan(0);
  });

  test("of limits holds at once, also for what is under way", async () => {
    const held: (() => void)[] = [];
    await using server = await backend1((_request, response) => void held.push(() => response.end("ok")));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies({ limits: { ...NO_LIMITS, activeRequestsMax: 3 } }) });
    const answers = [1, 2, 3].map((i) => waypoint.fetch(`/${i}`));
    await until("three requests", 5_000, () => held.length === 3 || null);
    waypoint.change(policies({ limits: { ...NO_LIMITS, activeRequestsMax: 2 } }));
    expect((await waypoint.fetch("/over")).headers.get("x-weft-reason")).toBe("circuit_open");
    for (const answer of held.splice(0)) answer();
    for (const answer of answers) expect((await answer).status).toBe(200);
    const again = waypoint.fetch("/again");
    await until("the request", 5_000, () => held.length === 1 || null);
    held[0]!();
    expect((await again).status).toBe(200);
  });

  test("that comes while connections are made disturbs none of them", async () => {
    await using server = await backend1((_request, response) => response.end("ok"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies({ limits: { ...NO_LIMITS, connectionsMax: 1 } }) });
    // The second waits for the first one's connection, which closes with its answer: another has to be made, in between.
    const answers = [1, 2, 3].map((i) => waypoint.fetch(`/${i}`, { headers: { connection: "close" } }));
    for (let i = 0; i < 20; i++) {
      waypoint.change(policies({ limits: { ...NO_LIMITS, connectionsMax: 1, connectTimeoutMs: 1000 + i } }));
      await Promise.resolve();
    }
    for (const answer of answers) expect((await answer).status).toBe(200);
  });

  test("of health checks asks at once, before any other request", async () => {
    await using server = await backend1((_request, response) => response.end("ok"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies({}) });
    await (await waypoint.fetch("/")).text();
    waypoint.change(policies({ healthCheck: { probe: { kind: "tcp" }, intervalMs: 1000, timeoutMs: 500, healthyThreshold: 1, unhealthyThreshold: 1, port: null } }));
    await until("the first answer", 5_000, () => [...waypoint.plane.clusters][0]!.upstream.endpoints[0]!.health === "healthy" || null);
  });

  test("of TLS takes no old connection: the server has to prove itself anew", async () => {
    const authority = new BackendAuthority();
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: ["api.example.com"] }) }, (_request, response) => response.end("ok"));
    const tls = { mode: "simple", sni: "api.example.com", subjectAltNames: [], caPem: authority.caPem, crlPem: null, certificate: null, gatewayCertificate: false, verify: true } as const;
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies({ tls }) });
    expect((await waypoint.fetch("/")).status).toBe(200);
    waypoint.change(policies({ tls, limits: NO_LIMITS }));
    expect((await waypoint.fetch("/")).status).toBe(200);
    expect(server.connections).toBe(1);
    waypoint.change(policies({ tls: { ...tls, subjectAltNames: [{ type: "dns", value: "other.example.com" }] } }));
    expect((await waypoint.fetch("/")).headers.get("x-weft-reason")).toBe("tls_failed");
    waypoint.change(policies({ tls }));
    expect((await waypoint.fetch("/")).status).toBe(200);
  });

  test("that takes a policy away leaves the defaults; a subset that is gone has no endpoints", async () => {
    await using server = await backend1((_request, response) => response.end("ok"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies({ limits: { ...NO_LIMITS, activeRequestsMax: 1 } }) });
    await (await waypoint.fetch("/")).text();
    const [cluster] = [...waypoint.plane.clusters];
    waypoint.change({ removedTrafficPolicies: [WEB] });
    await (await waypoint.fetch("/")).text();
    expect([...waypoint.plane.clusters]).toEqual([cluster!]);
    expect(cluster!.settings.limits.activeRequestsMax).toBeGreaterThan(1);
  });

  test("of labels moves endpoints from one subset to the other", async () => {
    await using one = await backend1((_request, response) => response.end("one"));
    await using two = await backend1((_request, response) => response.end("two"));
    const track = (value: string): Partial<TrafficPolicy> => ({ subset: { name: value, labels: { track: value } } });
    const to = (subset: string) => rule({ matches: [{ ...ANY_REQUEST, path: { kind: "prefix", value: `/${subset}` } }], backends: [backend("web", { subset })] });
    const labelled = (...tracks: string[]) => ({ workloadLabels: tracks.map((value, i) => ({ uid: uid(`e${i}`), labels: { track: value } })) });
    await using waypoint = new WaypointFixture({ endpoints: [one, two], l7: { ...policies(track("stable"), track("canary")), ...labelled("stable", "canary"), routes: [route({ rules: [to("stable"), to("canary")] })] } });
    const ask = async (subset: string): Promise<string> => (await waypoint.fetch(`/${subset}`)).text();
    for (let i = 0; i < 4; i++) expect([await ask("stable"), await ask("canary")]).toEqual(["one", "two"]);
    waypoint.change(labelled("canary", "stable"));
    for (let i = 0; i < 4; i++) expect([await ask("stable"), await ask("canary")]).toEqual(["two", "one"]);
    waypoint.change({ removedWorkloadLabels: [uid("e0")] });
    expect((await waypoint.fetch("/canary")).headers.get("x-weft-reason")).toBe("no_endpoints");
  });
});

test("an endpoint that is known by a name has all its addresses, and its name is asked for as long as the cluster lives", async () => {
  await using one = await backend1((_request, response) => response.end("one"), "0.0.0.0");
  const asked: number[] = [];
  const names = { version: 1, found: [ip("127.0.0.1"), ip("127.0.0.2")], addresses: (hostname: string, nowMs: number) => (asked.push(nowMs), expect(hostname).toBe("api.example.com"), names.found) };
  await using waypoint = new WaypointFixture({ endpoints: [one], names, l7: policies({ retry: NO_RETRY }) });
  const known = waypoint.store.workload(uid("e0"))!;
  waypoint.store.apply({ ...emptyDelta, workloads: [{ ...known, addresses: [], hostname: "api.example.com" }] });
  expect(await (await waypoint.fetch("/")).text()).toBe("one");
  const [cluster] = [...waypoint.plane.clusters];
  const keys = (): string[] => cluster!.upstream.endpoints.map(({ key }) => key);
  expect(keys()).toEqual([`${uid("e0")}@127.0.0.1`, `${uid("e0")}@127.0.0.2`]);
  const before = asked.length;
  for (let i = 0; i < 3; i++) waypoint.plane.tick();
  expect(asked.length).toBe(before + 3);
  names.found = [ip("127.0.0.1")];
  names.version++;
  waypoint.plane.tick();
  expect(keys()).toEqual([`${uid("e0")}@127.0.0.1`]);
});

test("of an endpoint with addresses of both families the one is used of which the waypoint's own first address is", async () => {
  const both = [ip("127.0.0.1"), ip("::1")];
  for (const [host, own, byName] of [["::1", "2001:db8::9", [`${uid("e0")}@::1`]], ["127.0.0.1", "198.18.0.9", [`${uid("e0")}@127.0.0.1`]]] as const) {
    await using server = await backend1((_request, response) => response.end("ok"), host);
    const names = { version: 1, addresses: () => both };
    await using waypoint = new WaypointFixture({ endpoints: [server], names, addresses: [ip(own), ...both], l7: policies({ retry: NO_RETRY }) });
    const known = waypoint.store.workload(uid("e0"))!;
    waypoint.store.apply({ ...emptyDelta, workloads: [{ ...known, addresses: both }] });
    expect(await (await waypoint.fetch("/")).text()).toBe("ok");
    waypoint.store.apply({ ...emptyDelta, workloads: [{ ...known, addresses: [], hostname: "api.example.com" }] });
    expect(await (await waypoint.fetch("/")).text()).toBe("ok");
    const [cluster] = [...waypoint.plane.clusters];
    expect(cluster!.upstream.endpoints.map(({ key }) => key)).toEqual([...byName]);
  }
});
