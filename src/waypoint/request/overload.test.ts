// Memory under load: what slow readers make a waypoint hold is bounded, the largest go first, what can be refused is refused with a reason,
// and afterwards everything is as before.

import { expect, test } from "bun:test";
import { connect as connect2 } from "node:http2";
import { until } from "../../../test/kit/until.ts";
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

const refusal = async (response: Response): Promise<Response | null> => (await response.text(), response.status === 503 ? response : null);

test("overload: readers that do not read cost no more than the limit, and those who read are served", async () => {
  let largest = 0;
  await using server = await backend1((request, response) => (request.url === "/large" ? large(request, response) : response.end("small")));
  await using waypoint = new WaypointFixture({ endpoints: [server], bufferBytesMax: LIMIT_BYTES });
  const clients = lazy(waypoint, 24, GET);
  await until("some of them to be ended", 20_000, () => {
    largest = Math.max(largest, waypoint.budget.heldBytes);
    return waypoint.shed.length > 4 || null;
  });
  // One turn of reading from all servers may go beyond the limit before the turn ends.
  expect(largest).toBeLessThan(LIMIT_BYTES + 24 * MIB);
  await until("what is held to be below the limit", 20_000, () => waypoint.budget.heldBytes <= LIMIT_BYTES || null);
  // What was cut says why, whether it was held by the request or by its connection.
  expect(waypoint.told.length).toBeGreaterThan(4);
  for (const { flags, code, detail } of waypoint.told) {
    expect([flags, code]).toEqual(flags === "OM" ? ["OM", "overloaded"] : ["DC", null]);
    expect(detail).toMatch(/^(?:\d+ bytes of it were held for a slow reader, and the limit for all|the connection with the client ended: \d+ bytes were not taken, and the limit for all connections) is reached \(--buffer-limit\)$/);
  }
  for (const client of clients) client.destroy();
  await until("nothing to be held", 20_000, () => waypoint.budget.heldBytes === 0 || null);
  expect(await (await waypoint.fetch("/small")).text()).toBe("small");
}, 60_000);

test("overload: new requests are refused with the reason while little room is left, over HTTP/1.1 and HTTP/2", async () => {
  await using server = await backend1((request, response) => (request.url === "/large" ? large(request, response) : response.end("small")));
  await using waypoint = new WaypointFixture({ endpoints: [server], bufferBytesMax: LIMIT_BYTES });
  const clients = lazy(waypoint, 16, GET);
  // Buffers of the kernel still fill behind them: now and then one takes some and there is room for a moment.
  const refused = await until("a request over HTTP/1.1 to be refused", 20_000, async () => refusal(await waypoint.fetch("/small")));
  expect(refused.headers.get("x-weft-reason")).toBe("overloaded");
  const session = connect2(waypoint.url);
  await until("a request over HTTP/2 to be refused", 20_000, async () => {
    const { promise, resolve } = Promise.withResolvers<unknown>();
    session.request({ ":path": "/small", ":authority": "web" }).once("response", (headers) => resolve(headers[":status"])).resume();
    return (await promise) === 503 || null;
  });
  session.close();
  const told = waypoint.told.filter(({ status }) => status === 503);
  expect(told.map(({ path, code, flags, attempts }) => [path, code, flags, attempts])).toEqual(told.map(() => ["/small", "overloaded", "OM", 0]));
  expect(told.length).toBe(2);
  expect(told[0]!.detail).toMatch(/^\d+ of 8388608 bytes are held for slow readers \(--buffer-limit\)$/);
  for (const client of clients) client.destroy();
  await until("nothing to be held", 20_000, () => waypoint.budget.heldBytes === 0 || null);
  expect(await (await waypoint.fetch("/small")).text()).toBe("small");
}, 60_000);

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
  await until("some of them to be ended", 20_000, () => waypoint.shed.length > 0 || null);
  await until("one to be told why", 20_000, () => clients.find(({ received }) => /^HTTP\/1\.1 503 [^]*x-weft-reason: (overloaded|upstream_reset|connect_failed)/.test(received)) ?? null);
  await until("what is held to be below the limit", 20_000, () => waypoint.budget.heldBytes <= 4 * MIB || null);
  for (const client of clients) client.destroy();
}, 60_000);
