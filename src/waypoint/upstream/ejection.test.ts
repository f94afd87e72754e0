// Every field of outlier detection and of circuit breaking, in effect on requests between real sockets.

import { describe, expect, test } from "bun:test";
import { connect as connect2, type ServerHttp2Session } from "node:http2";
import { WEB } from "../../../test/kit/http-records.ts";
import { until } from "../../../test/kit/until.ts";
import { NO_LIMITS, trafficPolicy } from "../../../test/kit/upstreams.ts";
import { type Backend, backend1, backend2, rawBackend, WaypointFixture } from "../../../test/kit/waypoint.ts";
import type { ConnectionLimits, OutlierDetection, TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import { RETRY_DEFAULT } from "../../policy/upstream/settings.ts";

const QUIET: OutlierDetection = {
  consecutive5xx: 0, consecutiveGatewayErrors: 0, consecutiveConnectFailures: 0, splitConnectFailures: null, errorStatuses: null, successRate: null, intervalMs: null, baseEjectionMs: 60_000, ejectionMaxMs: null, ejectedShareMax: 1, panicThreshold: null,
};
const NO_RETRY = { ...RETRY_DEFAULT, attempts: 0 };
const policies = (fields: Partial<TrafficPolicy>) => ({ trafficPolicies: [{ service: WEB, policies: [trafficPolicy({ retry: NO_RETRY, balancing: { kind: "roundRobin" }, ...fields })] }] });

/** A server whose next answers the test sets. */
class Moody implements AsyncDisposable {
  status = 200;
  readonly #backend: Backend;

  private constructor(backend: Backend) {
    this.#backend = backend;
  }

  static async start(): Promise<Moody> {
    let self: Moody;
    const backend = await backend1((_request, response) => response.writeHead(self.status).end("x"));
    return (self = new Moody(backend));
  }

  get port(): number {
    return this.#backend.port;
  }

  get requests(): number {
    return this.#backend.seen.length;
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#backend[Symbol.asyncDispose]();
  }
}

const endpoints = (waypoint: WaypointFixture): readonly UpstreamEndpoint[] => [...waypoint.plane.clusters].flatMap(({ upstream }) => upstream.endpoints);
const at = (waypoint: WaypointFixture, { port }: { readonly port: number }): UpstreamEndpoint => endpoints(waypoint).find(({ target }) => target.targetPort === port)!;
const ejected = (waypoint: WaypointFixture): number => endpoints(waypoint).filter(({ outlier }) => outlier.kind !== "healthy").length;
async function ask(waypoint: WaypointFixture, count: number): Promise<number[]> {
  const statuses: number[] = [];
  for (let i = 0; i < count; i++) {
    const answer = await waypoint.fetch("/");
    await answer.text();
    statuses.push(answer.status);
  }
  return statuses;
}
/** An ejection lasts a minute or more: longer than it takes to see it, on any machine. */
const untilItMayReturn = (waypoint: WaypointFixture, server: { readonly port: number }): Promise<void> => waypoint.later(at(waypoint, server).outlier.untilMs - waypoint.plane.nowMs() + 1);
async function trio(body: (servers: readonly [Moody, Moody, Moody], make: (fields: Partial<OutlierDetection>) => WaypointFixture) => Promise<void>): Promise<void> {
  await using one = await Moody.start();
  await using two = await Moody.start();
  await using three = await Moody.start();
  const made: WaypointFixture[] = [];
  try {
    await body([one, two, three], (fields) => {
      const waypoint = new WaypointFixture({ endpoints: [one, two, three], l7: policies({ outliers: { ...QUIET, ...fields } }) });
      made.push(waypoint);
      return waypoint;
    });
  } finally {
    for (const waypoint of made) await waypoint[Symbol.asyncDispose]();
  }
}

describe("an endpoint is ejected", () => {
  test("by 5xx in a row, and returns by one request that succeeds", async () => {
    await trio(async ([one], make) => {
      const waypoint = make({ consecutive5xx: 2 });
      one.status = 500;
      await ask(waypoint, 6);
      expect(ejected(waypoint)).toBe(1);
      const { requests } = one;
      expect(await ask(waypoint, 9)).toEqual(Array(9).fill(200));
      expect(one.requests).toBe(requests);
      waypoint.plane.tick();
      expect(waypoint.news[0]).toMatch(/^endpoint_ejected .* is out of service: consecutive5xx$/);
      one.status = 200;
      await untilItMayReturn(waypoint, one);
      await until("it to return", 3_000, async () => {
        await ask(waypoint, 1);
        return ejected(waypoint) === 0;
      });
      waypoint.plane.tick();
      expect(waypoint.news[1]).toMatch(/^endpoint_restored .* is back in service: probeSucceeded$/);
      await ask(waypoint, 6);
      expect(one.requests).toBeGreaterThan(requests + 1);
    });
  });

  test("for longer each time, up to the longest", async () => {
    await trio(async ([one], make) => {
      const waypoint = make({ consecutive5xx: 1, ejectionMaxMs: 150_000 });
      one.status = 500;
      await until("the first ejection", 3_000, async () => (await ask(waypoint, 1), ejected(waypoint) === 1));
      const { outlier } = at(waypoint, one);
      const lengths: number[] = [];
      for (let wanted = 1; wanted <= 3; wanted++) {
        await until(`ejection ${wanted}`, 5_000, async () => (outlier.ejections === wanted && outlier.kind === "ejected" ? true : (await ask(waypoint, 1), null)));
        lengths.push(outlier.untilMs - waypoint.plane.nowMs());
        await untilItMayReturn(waypoint, one);
      }
      expect(lengths[1]!).toBeGreaterThan(lengths[0]!);
      expect(lengths[2]!).toBeLessThanOrEqual(150_000 * 1.2);
    });
  });

  test("by gateway errors in a row: 502, 503, 504, and not 500", async () => {
    await trio(async ([one], make) => {
      const waypoint = make({ consecutiveGatewayErrors: 2 });
      one.status = 500;
      await ask(waypoint, 9);
      expect(ejected(waypoint)).toBe(0);
      one.status = 504;
      await ask(waypoint, 6);
      expect(at(waypoint, one).outlier).toMatchObject({ kind: "ejected", reason: "consecutiveGatewayErrors" });
    });
  });

  test("by the statuses that are named as errors, and by no other", async () => {
    await trio(async ([one, two], make) => {
      const waypoint = make({ consecutive5xx: 2, errorStatuses: [404] });
      two.status = 500;
      await ask(waypoint, 9);
      expect(ejected(waypoint)).toBe(0);
      one.status = 404;
      await ask(waypoint, 9);
      expect([at(waypoint, one).outlier, at(waypoint, two).outlier.kind]).toEqual([expect.objectContaining({ kind: "ejected", reason: "consecutive5xx" }), "healthy"]);
    });
  });

  test("by connections that cannot be made", async () => {
    await trio(async ([one], make) => {
      const waypoint = make({ consecutiveConnectFailures: 2 });
      await one[Symbol.asyncDispose]();
      await ask(waypoint, 6);
      expect(at(waypoint, one).outlier).toMatchObject({ kind: "ejected", reason: "consecutiveConnectFailures" });
    });
  });

  test("by failed connections as by gateway errors, unless the two are told apart", async () => {
    for (const [split, kind] of [[null, "ejected"], [true, "healthy"]] as const) {
      await trio(async ([one], make) => {
        const waypoint = make({ consecutiveGatewayErrors: 2, splitConnectFailures: split });
        await one[Symbol.asyncDispose]();
        await ask(waypoint, 9);
        expect(at(waypoint, one).outlier.kind).toBe(kind);
      });
    }
  });

  test("by its success rate, at the end of an interval", async () => {
    await trio(async ([one], make) => {
      const waypoint = make({ successRate: { requestsMin: 5, hostsMin: 3, stdevFactor: 1 }, intervalMs: 50 });
      waypoint.plane.tick();
      one.status = 500;
      await ask(waypoint, 30);
      waypoint.plane.tick();
      await until("the end of the interval", 3_000, async () => (await ask(waypoint, 30), waypoint.plane.tick(), ejected(waypoint) === 1));
      expect(at(waypoint, one).outlier.reason).toBe("successRate");
    });
  });

  test("but no more than the largest share at once", async () => {
    await trio(async (servers, make) => {
      const waypoint = make({ consecutive5xx: 1, ejectedShareMax: 0.34 });
      for (const server of servers) server.status = 503;
      await ask(waypoint, 12);
      expect(ejected(waypoint)).toBe(1);
    });
  });

  test("and below the panic threshold all are used", async () => {
    await trio(async ([one, two], make) => {
      const waypoint = make({ consecutive5xx: 1, ejectedShareMax: 0.7, panicThreshold: 0.5 });
      one.status = two.status = 503;
      await ask(waypoint, 12);
      expect(ejected(waypoint)).toBe(2);
      const before = one.requests + two.requests;
      await ask(waypoint, 12);
      expect(one.requests + two.requests).toBeGreaterThan(before + 4);
    });
  });
});

describe("circuit breaking", () => {
  const held: (() => void)[] = [];
  const holding = (): Promise<Backend> => backend1((_request, response) => void held.push(() => response.end("ok")));
  const release = (): void => {
    for (const answer of held.splice(0)) answer();
  };
  const limited = (endpointsOf: readonly Backend[], limits: Partial<ConnectionLimits>, fields: Partial<TrafficPolicy> = {}): WaypointFixture =>
    new WaypointFixture({ endpoints: endpointsOf, l7: policies({ limits: { ...NO_LIMITS, ...limits }, ...fields }) });
  const reasonOf = (answer: Response): string | null => answer.headers.get("x-weft-reason");

  test("requests under way: one more is refused at once, and says which limit", async () => {
    await using server = await holding();
    await using waypoint = limited([server], { activeRequestsMax: 2 });
    const two = [waypoint.fetch("/1"), waypoint.fetch("/2")];
    await until("two requests", 3_000, () => held.length === 2 || null);
    expect(reasonOf(await waypoint.fetch("/3"))).toBe("circuit_open");
    expect((await waypoint.ended()).detail).toContain("2 requests under way, which is the limit (activeRequestsMax)");
    release();
    for (const answer of two) expect((await answer).status).toBe(200);
  });

  test("connections: requests wait for one, as many as may; the next is refused", async () => {
    await using server = await holding();
    await using waypoint = limited([server], { connectionsMax: 1, pendingRequestsMax: 1 });
    const first = waypoint.fetch("/1");
    await until("the first", 3_000, () => held.length === 1 || null);
    const second = waypoint.fetch("/2");
    await until("the second to wait", 3_000, () => [...waypoint.plane.clusters].some(({ pools }) => [...pools].some(({ pool }) => pool.waiting === 1)) || null);
    expect(reasonOf(await waypoint.fetch("/3"))).toBe("circuit_open");
    expect((await waypoint.ended()).detail).toContain("pendingRequestsMax");
    release();
    expect((await first).status).toBe(200);
    await until("the second", 3_000, () => held.length === 1 || null);
    release();
    expect((await second).status).toBe(200);
    expect(await new Promise((resolve) => server.server.getConnections((_error, count) => resolve(count)))).toBe(1);
  });

  test("connections to one endpoint that are idle make room for another's", async () => {
    await using one = await backend1((_request, response) => response.end("one"));
    await using two = await backend1((_request, response) => response.end("two"));
    await using waypoint = limited([one, two], { connectionsMax: 1 });
    const seen: string[] = [];
    for (let i = 0; i < 6; i++) seen.push(await (await waypoint.fetch("/")).text());
    expect(seen.sort()).toEqual(["one", "one", "one", "two", "two", "two"]);
  });

  test("retries under way", async () => {
    await using server = await backend1((_request, response) => response.writeHead(503).end());
    await using waypoint = limited([server], { activeRetriesMax: 1 }, { retry: { ...RETRY_DEFAULT, attempts: 3, statuses: [503], backoffBaseMs: 400, backoffMaxMs: 400 } });
    await Promise.all(Array.from({ length: 4 }, () => waypoint.fetch("/")));
    const attempts = waypoint.told.map((told) => told.attempts).sort();
    expect(attempts.filter((count) => count > 1).length).toBe(1);
    expect(waypoint.told.some(({ detail }) => detail.includes("activeRetriesMax"))).toBe(true);
  });

  test("requests on one connection, its age and its idle time", async () => {
    const count = async (limits: Partial<ConnectionLimits>, requests: number, between?: (waypoint: WaypointFixture) => Promise<unknown>): Promise<number> => {
      let connections = 0;
      await using server = await backend1((_request, response) => response.end("ok"));
      server.server.on("connection", () => connections++);
      await using waypoint = limited([server], limits);
      for (let i = 0; i < requests; i++) {
        await ask(waypoint, 1);
        await between?.(waypoint);
      }
      return connections;
    };
    expect(await count({}, 6)).toBe(1);
    expect(await count({ requestsPerConnectionMax: 2 }, 6)).toBe(3);
    const open = (waypoint: WaypointFixture): number => [...waypoint.plane.clusters].reduce((sum, { pools }) => sum + [...pools].reduce((all, { pool }) => all + pool.connections, 0), 0);
    expect(await count({ idleTimeoutMs: 50 }, 3, (waypoint) => until("the idle connection to close", 3_000, () => open(waypoint) === 0 || null))).toBe(3);
    expect(await count({ connectionAgeMaxMs: 30 }, 2, (waypoint) => {
      const untilMs = waypoint.plane.nowMs() + 31;
      return until("the connection to be old", 3_000, () => waypoint.plane.nowMs() >= untilMs || null);
    })).toBe(2);
  });

  test("requests on one HTTP/2 connection", async () => {
    let sessions = 0;
    await using server = await backend2((stream) => {
      stream.respond({ ":status": 200 });
      stream.end("ok");
    });
    server.server.on("session", () => sessions++);
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "http2", l7: policies({ limits: { ...NO_LIMITS, requestsPerConnectionMax: 2 } }) });
    await ask(waypoint, 6);
    expect(sessions).toBe(3);
  });

  test("the time without a request, on an HTTP/2 connection whose server goes on sending SETTINGS", async () => {
    await using server = await backend2((stream) => {
      stream.respond({ ":status": 200 });
      stream.end("ok");
    });
    const goaways: number[] = [];
    server.server.on("session", (session: ServerHttp2Session) => {
      const timer = setInterval(() => session.settings({ maxConcurrentStreams: 100 }), 20);
      session.on("goaway", (code) => void goaways.push(code)).on("close", () => clearInterval(timer));
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "http2", l7: policies({ limits: { ...NO_LIMITS, idleTimeoutMs: 100 } }) });
    await ask(waypoint, 1);
    await until("the idle connection to close", 1_500, () => goaways.length > 0);
    expect(goaways).toEqual([0]);
  });

  test("the time for a connection, its TLS included", async () => {
    await using silent = await rawBackend(() => {});
    await using waypoint = limited([silent], { connectTimeoutMs: 100 }, { tls: { mode: "simple", sni: "x", subjectAltNames: [], caPem: null, crlPem: null, certificate: null, gatewayCertificate: false, verify: false } });
    const startedMs = waypoint.plane.nowMs();
    expect(reasonOf(await waypoint.fetch("/"))).toBe("tls_failed");
    expect(waypoint.plane.nowMs() - startedMs).toBeLessThan(2_000);
  });

  test("h2UpgradePolicy: servers are asked by HTTP/2, whatever the client speaks", async () => {
    await using server = await backend2((stream) => {
      stream.respond({ ":status": 200 });
      stream.end("two");
    });
    await using waypoint = limited([server], { upgradeToHttp2: true });
    expect(await (await waypoint.fetch("/")).text()).toBe("two");
    const session = connect2(waypoint.url);
    session.close();
  });
});
