// Hedging through a waypoint: another endpoint is asked while the first is late, and one answer goes back.

import { expect, test } from "bun:test";
import type { IncomingMessage, ServerResponse } from "node:http";
import { until } from "../../../test/kit/until.ts";
import { trafficPolicy } from "../../../test/kit/upstreams.ts";
import { type Backend, backend1, WaypointFixture } from "../../../test/kit/waypoint.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import { RETRY_DEFAULT } from "../../policy/upstream/settings.ts";

const AFTER_MS = 60;
/** Longer than any machine takes. */
const IN_TIME_MS = 30_000;

const hedged = (fields: Partial<TrafficPolicy> = {}) =>
  ({ trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ balancing: { kind: "roundRobin" }, hedging: { afterMs: AFTER_MS, attemptsMax: 2 }, ...fields })] }] });

/** Two endpoints of one service: whichever is asked first behaves as `first`, the other as `second`. */
async function pair(first: (request: IncomingMessage, response: ServerResponse) => void, second: (request: IncomingMessage, response: ServerResponse) => void) {
  let asked = 0;
  const handler = (request: IncomingMessage, response: ServerResponse): void => (asked++ === 0 ? first : second)(request, response);
  const servers: [Backend, Backend] = [await backend1(handler), await backend1(handler)];
  return { servers, endpoints: servers.map(({ port }) => ({ port })), seen: () => servers.map(({ seen }) => seen.length).sort(), async [Symbol.asyncDispose]() {
    for (const server of servers) await server[Symbol.asyncDispose]();
  } };
}

const never = (): void => {};
const says = (text: string, status = 200) => (_request: IncomingMessage, response: ServerResponse): void => void response.writeHead(status).end(text);

test("hedging: another endpoint is asked when the first is late, and the first is cut", async () => {
  let cut = false;
  await using two = await pair((request) => void request.socket.once("close", () => (cut = true)), says("quick"));
  await using waypoint = new WaypointFixture({ endpoints: two.endpoints, l7: hedged() });
  expect(await (await waypoint.fetch("/")).text()).toBe("quick");
  expect(two.seen()).toEqual([1, 1]);
  await until("the late one to be cut", 5_000, () => cut || null);
  const told = await waypoint.ended();
  expect(told).toMatchObject({ status: 200, code: null, flags: "-", attempts: 2 });
  expect(told.detail).toMatch(/^127\.0\.0\.1:\d+ had not answered for \d+ ms: 127\.0\.0\.1:\d+ was asked too$/);
});

test("hedging: an answer in time asks nobody else", async () => {
  await using two = await pair(says("in time"), says("never asked"));
  await using waypoint = new WaypointFixture({ endpoints: two.endpoints, l7: hedged({ hedging: { afterMs: IN_TIME_MS, attemptsMax: 2 } }) });
  expect(await (await waypoint.fetch("/")).text()).toBe("in time");
  expect(await waypoint.ended()).toMatchObject({ attempts: 1 });
  expect(two.seen()).toEqual([0, 1]);
});

test("hedging: the first may still win, and is told as the one that answered", async () => {
  let answerFirst: () => void = never;
  await using two = await pair((_request, response) => (answerFirst = () => void response.end("after all")), () => answerFirst());
  await using waypoint = new WaypointFixture({ endpoints: two.endpoints, l7: hedged() });
  expect(await (await waypoint.fetch("/")).text()).toBe("after all");
  const told = await waypoint.ended();
  expect(told.attempts).toBe(2);
  expect(told.detail.startsWith(told.upstreamAddress!)).toBe(true);
});

test("hedging: a body goes whole to both", async () => {
  const bodies: string[] = [];
  const reads = (then: (response: ServerResponse) => void) => async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let body = "";
    for await (const chunk of request) body += chunk;
    bodies.push(body);
    then(response);
  };
  await using two = await pair(reads(never), reads((response) => void response.end("written")));
  await using waypoint = new WaypointFixture({ endpoints: two.endpoints, l7: hedged({ retry: { ...RETRY_DEFAULT, attempts: 0 } }) });
  expect(await (await waypoint.fetch("/", { method: "PUT", body: "the whole of it" })).text()).toBe("written");
  expect(bodies).toEqual(["the whole of it", "the whole of it"]);
});

test("hedging: a failure is not the answer while another attempt is under way", async () => {
  let failFirst: () => void = never;
  await using two = await pair((_request, response) => (failFirst = () => void response.writeHead(503).end()), async (_request, response) => {
    failFirst();
    // The 503 is there: its endpoint has no request left.
    await until("the first to have been dropped", 5_000, () => [...waypoint.plane.clusters].every(({ upstream }) => upstream.counts().activeRequests === 1) || null);
    response.end("well");
  });
  await using waypoint = new WaypointFixture({ endpoints: two.endpoints, l7: hedged() });
  const answer = await waypoint.fetch("/");
  expect([answer.status, await answer.text()]).toEqual([200, "well"]);
  expect((await waypoint.ended()).detail).toContain("answered 503");
});

test("hedging: when all have failed, the last failure is the answer", async () => {
  let failFirst: () => void = never;
  await using two = await pair((_request, response) => (failFirst = () => void response.writeHead(500).end("one")), (_request, response) => {
    response.writeHead(500).end("two");
    failFirst();
  });
  await using waypoint = new WaypointFixture({ endpoints: two.endpoints, l7: hedged() });
  expect((await waypoint.fetch("/")).status).toBe(500);
  expect(await waypoint.ended()).toMatchObject({ attempts: 2, code: null });
});

test("hedging: not for requests that must not be made twice", async () => {
  let answer: () => void = never;
  await using two = await pair((_request, response) => (answer = () => void response.end("once")), says("twice"));
  await using waypoint = new WaypointFixture({ endpoints: two.endpoints, l7: hedged() });
  const pending = waypoint.fetch("/", { method: "POST", body: "x" });
  await until("it to be under way", 5_000, () => two.servers.some(({ seen }) => seen.length > 0) || null);
  const startedMs = waypoint.plane.nowMs();
  await until("it to be late", 5_000, () => waypoint.plane.nowMs() - startedMs > 2 * AFTER_MS || null);
  answer();
  expect(await (await pending).text()).toBe("once");
  expect(await waypoint.ended()).toMatchObject({ attempts: 1 });
  expect(two.seen()).toEqual([0, 1]);
});
