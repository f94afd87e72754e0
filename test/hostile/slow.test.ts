// Clients of a waypoint that take their time, against every time limit it has: heads, bodies, answers and connections that come slowly or
// stop. The limits are minutes: the fixture's clock is hurried.

import type { ServerResponse } from "node:http";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect } from "bun:test";
import { CLIENT_IDLE_MS, HALF_CLOSED_MS, HEAD_MS, LINGER_MS, SETTINGS_MS, WRITE_IDLE_MS } from "../../src/waypoint/downstream/downstream.ts";
import { STREAM_IDLE_TIMEOUT_MS } from "../../src/policy/upstream/defaults.ts";
import { CLIENT_PREFACE, FrameType } from "../../src/wire/http2/frames.ts";
import { item } from "../kit/bad-input.ts";
import { frame, Http2Peer, settings } from "../kit/http2-peer.ts";
import { until } from "../kit/until.ts";
import { NO_LIMITS, trafficPolicy } from "../kit/upstreams.ts";
import { type Backend, backend1, WaypointFixture } from "../kit/waypoint.ts";

const LARGE = Buffer.alloc(8 * 1024 * 1024, "x");
let server: Backend;
let waypoint: WaypointFixture;
/** The answer of `/events`, and whether the server knows that nobody waits for it, or for that of `/held`. */
let events: ServerResponse;
let gone = false;

beforeAll(async () => {
  server = await backend1((request, response) => {
    request.resume();
    if (request.url === "/large") response.end(LARGE);
    else if (request.url === "/held" || request.url === "/events") {
      gone = false;
      response.on("close", () => void (gone = true));
      if (request.url === "/events") (events = response).write("first");
    }
    else if (request.url === "/early") response.writeHead(200).end("early");
    else request.on("end", () => response.end("read"));
  });
});
afterAll(async () => await server[Symbol.asyncDispose]());

beforeEach(() => {
  server.seen.splice(0);
  const limits = { ...NO_LIMITS, upgradeToHttp2: false };
  waypoint = new WaypointFixture({ endpoints: [server], l7: { trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ limits })] }] } });
});
afterEach(async () => {
  try {
    await nothingIsLeft();
  } finally {
    await waypoint[Symbol.asyncDispose]();
  }
});

/** No connection of a client is left, and nothing of one. */
async function nothingIsLeft(): Promise<void> {
  await until("every connection to end", 5_000, () => waypoint.plane.requests.size === 0 && !waypoint.plane.holdsClients || null);
  expect([waypoint.budget.heldBytes, waypoint.budget.holderCount]).toEqual([0, 0]);
}

const isThere = async (): Promise<void> => void (await until("the connection to be there", 5_000, () => waypoint.plane.holdsClients || null));
const request = (path: string, more: readonly string[] = []): string[] => [":method", "GET", ":scheme", "http", ":path", path, ":authority", "web", ...more];

describe("HTTP/1", () => {
  item("a connection on which nothing ever comes", async () => {
    const client = waypoint.raw();
    await isThere();
    await waypoint.later(CLIENT_IDLE_MS);
    expect(await client.closed()).toBe("");
  });

  item("a head that comes a byte at a time", async () => {
    const client = waypoint.raw().send("G");
    await until("the first byte to be read", 5_000, () => waypoint.plane.connections.size === 1 || null);
    // Each byte comes well within any limit for silence; the head as a whole does not.
    for (const byte of "ET / HTTP/1.1\r\n") {
      client.send(byte);
      await waypoint.later(HEAD_MS / 20);
    }
    expect(client.ended).toBe(false);
    await waypoint.later(HEAD_MS / 2);
    expect(await client.closed()).toMatch(/^HTTP\/1\.1 408 .*x-weft-reason: request_timeout_reading/s);
    expect(waypoint.malformed).toContain("timeout");
  });

  item("a first byte that could be the beginning of HTTP/2, and nothing after it", async () => {
    const client = waypoint.raw().send("P");
    await isThere();
    await waypoint.later(10);
    await waypoint.later(HEAD_MS);
    expect(await client.closed()).toBe("");
  });

  item("a body that stops", async () => {
    const client = waypoint.raw().send("POST /body HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nfirst");
    await until("the request to be at the server", 5_000, () => server.seen.some(({ url }) => url === "/body") || null);
    await waypoint.later(STREAM_IDLE_TIMEOUT_MS - 1_000);
    expect(client.received).toBe("");
    await waypoint.later(2_000);
    expect(await client.until("stream_idle_timeout")).toStartWith("HTTP/1.1 504 ");
    // The rest of the body is not waited for either.
    await waypoint.later(WRITE_IDLE_MS + LINGER_MS);
    await client.closed();
  });

  item("a body that was answered before it ended, and then stops", async () => {
    const client = waypoint.raw().send("POST /early HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nfirst");
    await client.until("early");
    await until("the request to end", 5_000, () => waypoint.plane.requests.size === 0 || null);
    await waypoint.later(CLIENT_IDLE_MS);
    await client.closed();
  });

  item("a client that ends its half, and has gone", async () => {
    for (const path of ["/held", "/events"]) {
      const client = waypoint.raw().send(`GET ${path} HTTP/1.1\r\nHost: web\r\n\r\n`);
      await until("the server to be asked", 5_000, () => server.seen.at(-1)?.url === path || null);
      if (path === "/events") await client.until("first");
      client.socket.end();
      await until("the end to be read", 5_000, () => waypoint.later(HALF_CLOSED_MS).then(() => gone));
      await nothingIsLeft();
      expect(waypoint.told.at(-1)).toMatchObject({ flags: "DC" });
    }
  });

  item("a client that ends its half, and waits: the answer goes on while it comes", async () => {
    const client = waypoint.raw().send("GET /events HTTP/1.1\r\nHost: web\r\n\r\n");
    await client.until("first");
    client.socket.end();
    for (let i = 0; i < 10; i++) {
      await waypoint.later(HALF_CLOSED_MS / 2);
      events.write(`event ${i}.`);
      await client.until(`event ${i}.`);
    }
    events.end("last");
    expect(await client.closed()).toEndWith("last\r\n0\r\n\r\n");
    expect(gone).toBe(true);
  });

  item("an answer that nobody reads", async () => {
    const client = waypoint.raw();
    client.socket.pause();
    client.send("GET /large HTTP/1.1\r\nHost: web\r\n\r\n");
    await until("some of it to be held", 5_000, () => waypoint.budget.heldBytes > 0 || null);
    expect(waypoint.budget.heldBytes).toBeLessThan(4 * 1024 * 1024);
    // What the kernel still takes counts as reading.
    await until("the request to be given up", 10_000, async () => {
      await waypoint.later(STREAM_IDLE_TIMEOUT_MS + 1_000);
      return waypoint.plane.requests.size === 0 || null;
    });
    expect(waypoint.told[0]).toMatchObject({ code: "stream_idle_timeout" });
    client.destroy();
  });
});

describe("HTTP/2", () => {
  item("a preface and no SETTINGS", async () => {
    const client = waypoint.raw();
    client.socket.write(CLIENT_PREFACE);
    await until("the preface to be read", 5_000, () => waypoint.plane.connections.size === 1 || null);
    await waypoint.later(SETTINGS_MS);
    await until("SETTINGS_TIMEOUT", 5_000, () => client.received.includes("no SETTINGS came in time") || null);
    await waypoint.later(LINGER_MS);
    await client.closed();
    expect(waypoint.malformed).toEqual(["settingsTimeout"]);
  });

  item("a header block that never ends, beside a request that takes long", async () => {
    using peer = await Http2Peer.plain(waypoint.port);
    peer.request([":method", "POST", ...request("/long").slice(2)]);
    await until("the request to be at the server", 5_000, () => server.seen.some(({ url }) => url === "/long") || null);
    peer.write(frame(FrameType.headers, 0, 3, Uint8Array.of(0x82)));
    // When it is read cannot be seen: a PING may not stand there.
    await until("the connection to be given up", 10_000, async () => {
      await waypoint.later(HEAD_MS);
      return peer.goawayCode !== null || null;
    });
    expect(await peer.goaway()).toBe("11 a header block or control frame did not come in time");
    expect(waypoint.malformed).toEqual(["headerTimeout"]);
    await waypoint.later(LINGER_MS);
    await peer.closed;
  });

  item("an answer for which there is never a window", async () => {
    using peer = await Http2Peer.plain(waypoint.port);
    peer.write(settings([4, 0]));
    await peer.ping();
    const ids = Array.from({ length: 20 }, () => peer.request(request("/large"), true));
    for (const id of ids) expect(await peer.status(id)).toBe("200");
    await until("every stream to be reset", 10_000, async () => {
      await waypoint.later(STREAM_IDLE_TIMEOUT_MS + 1_000);
      return ids.every((id) => peer.resetCode(id) !== null) || null;
    });
    await waypoint.later(CLIENT_IDLE_MS);
    expect(await peer.goaway()).toBe("0 idle");
    // The PING that goes with it is never answered.
    await waypoint.later(LINGER_MS);
    await peer.closed;
  });

  item("an answer of our own for which there is never a window", async () => {
    using peer = await Http2Peer.plain(waypoint.port);
    peer.write(settings([4, 0]));
    await peer.ping();
    const ids = Array.from({ length: 50 }, () => peer.request([":method", "CONNECT", ":authority", "web:80"]));
    for (const id of ids) expect(await peer.status(id)).toBe("403");
    await waypoint.later(STREAM_IDLE_TIMEOUT_MS + 1_000);
    await until("every stream to be reset", 5_000, () => ids.every((id) => peer.resetCode(id) !== null) || null);
    expect(waypoint.told.map(({ code, flags }) => `${code} ${flags}`)).toEqual(ids.map(() => "upgrade_refused SI"));
  });
});
