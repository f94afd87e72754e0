// Requests that stay with the endpoint they were given: by the session of a service, and by a cookie that is hashed.

import { describe, expect, test } from "bun:test";
import { backend as backendOf, route, rule, WEB } from "../../../test/kit/http-records.ts";
import { trafficPolicy } from "../../../test/kit/upstreams.ts";
import { backend1, WaypointFixture } from "../../../test/kit/waypoint.ts";
import type { SessionPersistence } from "../../mesh/l7/route.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";

const COOKIE: SessionPersistence = { kind: "cookie", name: "shop", path: null, absoluteTimeoutMs: null, idleTimeoutMs: null };
const policies = (fields: Partial<TrafficPolicy>) => ({ trafficPolicies: [{ service: WEB, policies: [trafficPolicy(fields)] }] });

async function shop(body: (waypoint: (fields: Parameters<typeof policies>[0], more?: object) => WaypointFixture) => Promise<void>): Promise<void> {
  await using one = await backend1((_request, response) => response.end("one"));
  await using two = await backend1((_request, response) => response.end("two"));
  await using three = await backend1((_request, response) => response.end("three"));
  const made: WaypointFixture[] = [];
  try {
    await body((fields, more = {}) => {
      const waypoint = new WaypointFixture({ endpoints: [one, two, three], l7: { ...policies({ balancing: { kind: "roundRobin" }, ...fields }), ...more } });
      made.push(waypoint);
      return waypoint;
    });
  } finally {
    for (const waypoint of made) await waypoint[Symbol.asyncDispose]();
  }
}

async function ask(waypoint: WaypointFixture, headers: Record<string, string> = {}): Promise<{ who: string; cookie: string | null; header: string | null }> {
  const answer = await waypoint.fetch("/", { headers });
  return { who: await answer.text(), cookie: answer.headers.get("set-cookie"), header: answer.headers.get("x-session") };
}

describe("sessions of a service", () => {
  test("by cookie: the first answer names it, the next requests stay", async () => {
    await shop(async (make) => {
      const waypoint = make({ sessionPersistence: COOKIE });
      const first = await ask(waypoint);
      expect(first.cookie).toMatch(/^shop=1\.[^;]+; Path=\/; HttpOnly; SameSite=Lax$/);
      const cookie = first.cookie!.split(";")[0]!;
      for (let i = 0; i < 9; i++) expect(await ask(waypoint, { cookie })).toEqual({ who: first.who, cookie: null, header: null });
      // Others go round.
      expect(new Set([(await ask(waypoint)).who, (await ask(waypoint)).who, (await ask(waypoint)).who]).size).toBe(3);
    });
  });

  test("by header, and not by one that was made up or belongs to another service", async () => {
    await shop(async (make) => {
      const waypoint = make({ sessionPersistence: { ...COOKIE, kind: "header", name: "x-session" } });
      const first = await ask(waypoint);
      for (let i = 0; i < 6; i++) expect((await ask(waypoint, { "x-session": first.header! })).who).toBe(first.who);
      const forged = first.header!.replace(/.$/, (last) => (last === "a" ? "b" : "a"));
      expect((await ask(waypoint, { "x-session": forged })).header).not.toBeNull();
    });
  });

  test("an endpoint that is gone is replaced, and the client is told", async () => {
    await shop(async (make) => {
      const waypoint = make({ sessionPersistence: COOKIE });
      const first = await ask(waypoint);
      const cookie = first.cookie!.split(";")[0]!;
      const [cluster] = [...waypoint.plane.clusters];
      const gone = cluster!.upstream.endpoints.find(({ active, latencyMs }) => active === 0 && latencyMs > 0)!;
      waypoint.store.apply({ workloads: [], services: [], policies: [], removedWorkloads: [gone.target.workload.uid], removedServices: [], removedPolicies: [] });
      const next = await ask(waypoint, { cookie });
      expect(next.who).not.toBe(first.who);
      const renewed = next.cookie!.split(";")[0]!;
      for (let i = 0; i < 4; i++) expect((await ask(waypoint, { cookie: renewed })).who).toBe(next.who);
    });
  });

  test("a rule's own session goes before the service's", async () => {
    await shop(async (make) => {
      const own = rule({ backends: [backendOf("web")], sessionPersistence: { ...COOKIE, name: "rule" } });
      const waypoint = make({ sessionPersistence: COOKIE }, { routes: [route({ rules: [own] })] });
      expect((await ask(waypoint)).cookie).toMatch(/^rule=/);
    });
  });
});

describe("consistent hash by cookie", () => {
  const hashed = (ttlMs: number | null): Partial<TrafficPolicy> => ({ balancing: { kind: "ringHash", key: { kind: "cookie", name: "user", path: "/", ttlMs }, ringSizeMin: 1024 } });

  test("with a lifetime it is made for those who have none, who stay from then on", async () => {
    await shop(async (make) => {
      const waypoint = make(hashed(60_000));
      const first = await ask(waypoint);
      expect(first.cookie).toMatch(/^user=[0-9a-f]{32}; Path=\/; Max-Age=60; HttpOnly$/);
      const cookie = first.cookie!.split(";")[0]!;
      for (let i = 0; i < 6; i++) expect(await ask(waypoint, { cookie })).toEqual({ who: first.who, cookie: null, header: null });
    });
  });

  test("a lifetime of nothing is that of the browser", async () => {
    await shop(async (make) => {
      expect((await ask(make(hashed(0)))).cookie).toMatch(/^user=[0-9a-f]{32}; Path=\/; HttpOnly$/);
    });
  });

  test("without a lifetime none is made, and the client's own is hashed", async () => {
    await shop(async (make) => {
      const waypoint = make(hashed(null));
      expect((await ask(waypoint)).cookie).toBeNull();
      const { who } = await ask(waypoint, { cookie: "user=ann" });
      for (let i = 0; i < 6; i++) expect((await ask(waypoint, { cookie: "user=ann" })).who).toBe(who);
    });
  });
});
