// Memory under load: what slow readers make a waypoint hold is bounded, the largest go first, what can be refused is refused with a reason,
// and afterwards everything is as before.

import { expect, test } from "bun:test";
import { connect as connect2 } from "node:http2";
import { until } from "../../../test/kit/mesh.ts";
import { backend1, type RawClient, rawBackend, WaypointFixture } from "../../../test/kit/waypoint.ts";

const MIB = 1 << 20;
const LIMIT_BYTES = 8 * MIB;
const GET = "GET /large HTTP/1.1\r\nHost: web\r\n\r\n";

const large = (_request: unknown, response: import("node:http").ServerResponse): void => void response.end(Buffer.alloc(16 * MIB, 120));

function lazy(waypoint: WaypointFixture, count: number, send: string): RawClient[] {
  return Array.from({ length: count }, () => {
    const client = waypoint.raw();
    client.keep = false;
    client.socket.pause();
    return client.send(send);
  });
}

test("overload: readers that do not read cost no more than the limit, and those who read are served", async () => {
  let largest = 0;
  await using server = await backend1((request, response) => (request.url === "/large" ? large(request, response) : response.end("small")));
  await using waypoint = new WaypointFixture({ endpoints: [server], bufferBytesMax: LIMIT_BYTES });
  const clients = lazy(waypoint, 24, GET);
  await until("some of them to be ended", 10_000, () => {
    largest = Math.max(largest, waypoint.budget.heldBytes);
    return waypoint.shed.length > 4 || null;
  });
  // One turn of reading from all servers may go beyond the limit before the turn ends.
  expect(largest).toBeLessThan(LIMIT_BYTES + 24 * MIB);
  await until("what is held to be below the limit", 5_000, () => waypoint.budget.heldBytes <= LIMIT_BYTES || null);
  expect(waypoint.told.every(({ flags }) => flags === "DC")).toBe(true);
  for (const client of clients) client.destroy();
  await until("nothing to be held", 5_000, () => waypoint.budget.heldBytes === 0 || null);
  expect(await (await waypoint.fetch("/small")).text()).toBe("small");
}, 30_000);

test("overload: new requests are refused with the reason while little room is left, over HTTP/1.1 and HTTP/2", async () => {
  await using server = await backend1((request, response) => (request.url === "/large" ? large(request, response) : response.end("small")));
  await using waypoint = new WaypointFixture({ endpoints: [server], bufferBytesMax: LIMIT_BYTES });
  const clients = lazy(waypoint, 16, GET);
  let before = -1;
  // Until all buffers of the kernel on the way are full too.
  await until("little room to be left, and nothing to move", 10_000, async () => {
    const stands = waypoint.budget.heldBytes === before;
    before = waypoint.budget.heldBytes;
    await Bun.sleep(100);
    return (waypoint.budget.tight && stands) || null;
  });
  const refused = await waypoint.fetch("/small");
  expect([refused.status, refused.headers.get("x-weft-reason")]).toEqual([503, "overloaded"]);
  const session = connect2(waypoint.url);
  const status = await new Promise<unknown>((resolve) => session.request({ ":path": "/small", ":authority": "web" }).once("response", (headers) => resolve(headers[":status"])).resume());
  expect(status).toBe(503);
  session.close();
  const told = waypoint.told.filter(({ path }) => path === "/small");
  expect(told[0]).toMatchObject({ code: "overloaded", flags: "OM", attempts: 0 });
  expect(told[0]!.detail).toMatch(/^\d+ of 8388608 bytes are held for slow readers \(--buffer-limit\)$/);
  for (const client of clients) client.destroy();
  await until("nothing to be held", 5_000, () => waypoint.budget.heldBytes === 0 || null);
  expect(await (await waypoint.fetch("/small")).text()).toBe("small");
}, 30_000);

test("overload: uploads to a server that does not read are given up with 503, the largest first", async () => {
  const sockets: import("node:net").Socket[] = [];
  await using server = await rawBackend((socket) => {
    socket.pause();
    sockets.push(socket);
  });
  await using waypoint = new WaypointFixture({ endpoints: [server], bufferBytesMax: 4 * MIB });
  const clients = Array.from({ length: 16 }, () => {
    const client = waypoint.raw().send(`POST / HTTP/1.1\r\nHost: web\r\nContent-Length: ${16 * MIB}\r\n\r\n`);
    client.socket.write(Buffer.alloc(16 * MIB));
    return client;
  });
  await until("some of them to be ended", 10_000, () => waypoint.shed.length > 0 || null);
  await until("one to be told why", 10_000, () => clients.find(({ received }) => /^HTTP\/1\.1 503 [^]*x-weft-reason: (overloaded|upstream_reset|connect_failed)/.test(received)) ?? null);
  await until("what is held to be below the limit", 5_000, () => waypoint.budget.heldBytes <= 4 * MIB || null);
  for (const client of clients) client.destroy();
}, 30_000);
