// Against HTTP/2 servers of the runtime's own: one that ends under an open stream, one that no longer answers, one that never came.

import { afterEach, expect, test } from "bun:test";
import * as http2 from "node:http2";
import * as net from "node:net";
import { until } from "../../test/kit/until.ts";
import { CheckedSessions, type SessionTimes } from "./checked-sessions.ts";

const WAIT_MS = 10_000;
const TIMES: SessionTimes = { pingIntervalMs: 20, pingTimeoutMs: 1_000 };
const closers: (() => void)[] = [];

afterEach(() => {
  for (const close of closers.splice(0).reverse()) close();
});

async function listening(server: net.Server): Promise<number> {
  const ready = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", () => ready.resolve());
  await ready.promise;
  closers.push(() => void server.close());
  return (server.address() as net.AddressInfo).port;
}

/** Between us and the server: what goes through may be stopped without a word, as when a machine is gone. */
async function through(port: number): Promise<{ readonly port: number; readonly silence: () => void; readonly sockets: Set<net.Socket> }> {
  const sockets = new Set<net.Socket>();
  const middle = await listening(net.createServer((client) => {
    const server = net.connect(port, "127.0.0.1");
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => sockets.delete(socket));
    }
    client.pipe(server);
    server.pipe(client);
  }));
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
  });
  return {
    port: middle, sockets,
    silence: () => {
      for (const socket of sockets) socket.unpipe();
      for (const socket of sockets) socket.pause();
    },
  };
}

async function server(): Promise<{ readonly port: number; readonly sessions: Set<http2.ServerHttp2Session> }> {
  const sessions = new Set<http2.ServerHttp2Session>();
  const answering = http2.createServer();
  answering.on("session", (session) => sessions.add(session));
  answering.on("stream", (stream: http2.ServerHttp2Stream) => {
    stream.on("error", () => {});
    stream.respond({ ":status": 200 });
    stream.write("begun");
  });
  const port = await listening(answering as unknown as net.Server);
  closers.push(() => {
    for (const session of sessions) session.destroy();
  });
  return { port, sessions };
}

async function open(sessions: CheckedSessions): Promise<{ readonly stream: http2.ClientHttp2Stream; readonly session: http2.ClientHttp2Session; readonly closed: () => boolean }> {
  const stream = await sessions.request("POST", "/", {}, {});
  let closed = false;
  stream.on("error", () => {});
  stream.on("close", () => void (closed = true));
  const begun = Promise.withResolvers<void>();
  stream.once("data", () => begun.resolve());
  await begun.promise;
  return { stream, session: stream.session as http2.ClientHttp2Session, closed: () => closed };
}

/** What nobody caught until the connection had time to be asked several times. */
async function uncaughtBy(act: () => Promise<void> | void): Promise<string[]> {
  const uncaught: string[] = [];
  const note = (cause: Error): void => void uncaught.push(cause.message);
  process.on("uncaughtException", note);
  try {
    await act();
    const begun = performance.now();
    await until("several pings' time", WAIT_MS, () => performance.now() - begun > 10 * TIMES.pingIntervalMs);
  } finally {
    process.off("uncaughtException", note);
  }
  return uncaught;
}

test("a server that ends under an open stream is nobody's exception; the next request has a new connection", async () => {
  const { port, sessions: there } = await server();
  const sessions = new CheckedSessions(`http://127.0.0.1:${port}`, undefined, TIMES);
  closers.push(() => sessions.abort());
  const first = await open(sessions);
  expect(await uncaughtBy(async () => {
    for (const session of there) session.destroy();
    await until("the stream's end", WAIT_MS, first.closed);
  })).toEqual([]);
  expect((await open(sessions)).session).not.toBe(first.session);
});

test("ended by us under an open stream: no exception either", async () => {
  const sessions = new CheckedSessions(`http://127.0.0.1:${(await server()).port}`, undefined, TIMES);
  const { closed } = await open(sessions);
  expect(await uncaughtBy(async () => {
    sessions.abort();
    await until("the stream's end", WAIT_MS, closed);
  })).toEqual([]);
});

test("one that answers is left as it is; one that no longer answers is given up", async () => {
  const way = await through((await server()).port);
  const sessions = new CheckedSessions(`http://127.0.0.1:${way.port}`, undefined, TIMES);
  closers.push(() => sessions.abort());
  const { closed } = await open(sessions);
  expect(await uncaughtBy(() => {})).toEqual([]);
  expect(closed()).toBeFalse();
  way.silence();
  await until("the stream's end", WAIT_MS, closed);
});

test("a connection that does not come is given up, and the next attempt is another one", async () => {
  // Takes the connection and says nothing: HTTP/2 never begins.
  const taken: net.Socket[] = [];
  const port = await listening(net.createServer((socket) => void taken.push(socket)));
  const sessions = new CheckedSessions(`https://127.0.0.1:${port}`, { rejectUnauthorized: false }, TIMES);
  closers.push(() => sessions.abort(), () => taken.forEach((socket) => socket.destroy()));
  expect(await sessions.connect(500)).toBe("no connection within 500 ms");
  expect(await sessions.connect(500)).toBe("no connection within 500 ms");
  expect(taken.length).toBe(2);
});
