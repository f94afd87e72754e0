import { afterEach, expect, test } from "bun:test";
import { until } from "../../test/kit/until.ts";
import type { IpAddress, SocketAddress } from "../core/ip.ts";
import { accept, close, getsockname } from "./libc.ts";
import { listenTcp } from "./listen.ts";
import { ListenerRetreat } from "./listener-retreat.ts";
import { decodeSockaddr } from "./socket-address.ts";

/** As many that by hash none of a few sockets goes without. */
const CONNECTIONS = 64;
const LOOPBACK = "127.0.0.1" as IpAddress;

const open = new Set<number>();
const clients = new Set<Bun.Socket>();
afterEach(() => {
  for (const client of clients) client.terminate();
  for (const fd of open) close(fd);
  clients.clear();
  open.clear();
});

function listener(port: number): number {
  const fd = listenTcp({ namespaceFd: null, at: { ip: LOOPBACK, port }, mark: 0, keepalive: null, shared: true });
  expect(fd).toBeGreaterThan(0);
  open.add(fd);
  return fd;
}

function group(count: number, port = 0): { fds: number[]; port: number } {
  const first = listener(port);
  const bytes = new Uint8Array(128);
  const at = decodeSockaddr(bytes, getsockname(first, bytes)) as SocketAddress;
  return { fds: [first, ...Array.from({ length: count - 1 }, () => listener(at.port))], port: at.port };
}

const closeAll = (fds: readonly number[]): void => fds.forEach((fd) => open.delete(fd) && close(fd));

async function connect(port: number): Promise<Bun.Socket> {
  const client = await Bun.connect({ hostname: LOOPBACK, port, socket: { data: () => {} } });
  clients.add(client);
  return client;
}

const connectMany = (port: number) => Promise.all(Array.from({ length: CONNECTIONS }, () => connect(port)));

/** Accepts everything that was queued; the numbers of each listener. */
const queued = (fds: readonly number[]): number[] => fds.map((listening) => {
  for (let count = 0; ; count++) {
    const fd = accept(listening);
    if (fd < 0) return count;
    close(fd);
  }
});

const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);

test("listeners that retreat are given nothing any more, and those that stay share all of it afterwards", async () => {
  const ours = group(2);
  const theirs = group(5, ours.port);
  await connectMany(ours.port);
  expect(sum(queued(ours.fds))).toBeGreaterThan(0);
  queued(theirs.fds);

  const retreat = ListenerRetreat.begin([{ fds: ours.fds, others: "last" }]);
  await connectMany(ours.port);
  expect(sum(queued(ours.fds))).toBe(0);
  expect(sum(queued(theirs.fds))).toBe(CONNECTIONS);

  retreat.seal();
  closeAll(ours.fds);
  await connectMany(ours.port);
  expect(sum(queued(theirs.fds))).toBe(CONNECTIONS);
  retreat.end();
  await connectMany(ours.port);
  expect(queued(theirs.fds).filter((count) => count === 0)).toEqual([]);
});

test("whoever came second and goes first leaves everything to the first", async () => {
  const theirs = group(2);
  const ours = group(3, theirs.port);
  const retreat = ListenerRetreat.begin([{ fds: ours.fds, others: "first" }]);
  await connectMany(ours.port);
  expect([sum(queued(ours.fds)), sum(queued(theirs.fds))]).toEqual([0, CONNECTIONS]);
  retreat.end();
});

/** Why no more than two may listen at once. */
test("of three the second is not where it was once the first has gone: the kernel puts the last one's sockets there", async () => {
  const first = group(2);
  const second = group(2, first.port);
  const third = group(2, first.port);
  ListenerRetreat.begin([{ fds: first.fds, others: "last" }]).end();
  closeAll(first.fds);
  const retreat = ListenerRetreat.begin([{ fds: second.fds, others: "last" }]);
  await connectMany(first.port);
  expect([sum(queued(second.fds)), sum(queued(third.fds))]).toEqual([CONNECTIONS, 0]);
  retreat.end();
});

test("with nobody beside them they go on until they are sealed", async () => {
  const { fds, port } = group(2);
  const retreat = ListenerRetreat.begin([{ fds, others: "last" }]);
  await connectMany(port);
  expect(sum(queued(fds))).toBe(CONNECTIONS);
  retreat.end();
});

test("a connection that meets a sealed listener is not reset: it comes to whoever listens when it tries again", async () => {
  const ours = group(1);
  const retreat = ListenerRetreat.begin([{ fds: ours.fds, others: "last" }]);
  retreat.seal();
  const connecting = connect(ours.port);
  closeAll(ours.fds);
  // Still in the group, by the retreat's own descriptor: the port answers nothing.
  expect(await Promise.race([connecting.then(() => "connected", String), new Promise((resolve) => setImmediate(() => resolve("waits")))])).toBe("waits");
  const theirs = group(1, ours.port);
  retreat.end();
  await connecting;
  await until("its connection", 5_000, () => sum(queued(theirs.fds)) === 1);
});
