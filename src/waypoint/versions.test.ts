// Each version of HTTP to each: what streams, what comes before the answer and after it, and what a client gives up.

import { describe, expect, test } from "bun:test";
import { type ClientHttp2Session, connect as connect2, type IncomingHttpHeaders } from "node:http2";
import { until } from "../../test/kit/until.ts";
import { NO_LIMITS, trafficPolicy } from "../../test/kit/upstreams.ts";
import { type Backend, backend2, rawBackend, WaypointFixture } from "../../test/kit/waypoint.ts";

/** What a server is asked, by path, in either version. */
interface ServerSide {
  readonly backend: Backend;
  /** Requests that were cancelled. */
  readonly cancelled: () => number;
  /** Goes on with the events of /events. */
  readonly next: () => void;
}

const versions = ["HTTP/1.1", "HTTP/2"] as const;

/** HTTP/1.1 by hand: runtimes' servers send neither 103 nor trailers as they are told to. */
async function server1(): Promise<ServerSide> {
  let cancelled = 0;
  let next: () => void = () => {};
  const backend = await rawBackend((socket) => {
    let got = "";
    let answered = false;
    socket.on("close", () => void (answered || cancelled++));
    socket.on("data", (bytes) => {
      got += bytes.toString("latin1");
      const end = got.indexOf("\r\n\r\n");
      if (end < 0) return;
      const [, path] = /^\w+ (\S+)/.exec(got)!;
      const chunk = (text: string) => socket.write(`${text.length.toString(16)}\r\n${text}\r\n`);
      if (path === "/hints" && !answered) {
        answered = true;
        socket.write("HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
      } else if (path === "/events" && !answered) {
        answered = true;
        socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        chunk("data: 1\n\n");
        next = () => void (chunk("data: 2\n\n"), socket.write("0\r\n\r\n"));
      } else if (path === "/sum" && got.endsWith("0\r\nx-count: 3\r\n\r\n")) {
        answered = true;
        socket.write("HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n");
        chunk("summed");
        socket.write("0\r\nx-sum: 42\r\n\r\n");
      } else if (path === "/continue") {
        const body = got.slice(end + 4);
        if (body === "") socket.write("HTTP/1.1 100 Continue\r\n\r\n");
        else if (body.includes("now")) {
          answered = true;
          socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nread");
        }
      }
    });
  });
  return { backend, cancelled: () => cancelled, next: () => next() };
}

async function server2(): Promise<ServerSide> {
  let cancelled = 0;
  let next: () => void = () => {};
  const backend = await backend2((stream, headers) => {
    const path = headers[":path"];
    let trailers: IncomingHttpHeaders = {};
    stream.on("aborted", () => void cancelled++);
    stream.on("trailers", (got: IncomingHttpHeaders) => (trailers = got));
    if (path === "/hints") {
      stream.additionalHeaders({ ":status": 103, link: "</style.css>" });
      stream.respond({ ":status": 200 });
      stream.end("ok");
    } else if (path === "/events") {
      stream.respond({ ":status": 200, "content-type": "text/event-stream" });
      stream.write("data: 1\n\n");
      next = () => void stream.end("data: 2\n\n");
    } else if (path === "/sum") {
      stream.resume().on("end", () => {
        stream.respond({ ":status": trailers["x-count"] === "3" ? 200 : 500, trailer: "x-sum" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "42" }));
        stream.end("summed");
      });
    } else if (path === "/continue") {
      stream.additionalHeaders({ ":status": 100 });
      let body = "";
      stream.on("data", (chunk: Buffer) => (body += chunk.toString())).on("end", () => {
        stream.respond({ ":status": 200 });
        stream.end(body === "now" ? "read" : body);
      });
    }
  });
  return { backend, cancelled: () => cancelled, next: () => next() };
}

interface ClientSide {
  /** Everything heard so far, one thing a line: `103 link: </style.css>`, `200`, a body, `x-sum: 42`. */
  readonly heard: () => string;
  send(body: string, trailers?: Record<string, string>): void;
  cancel(): void;
}

function client1(waypoint: WaypointFixture, method: string, path: string, headers: Record<string, string>): ClientSide {
  const hasBody = method === "POST";
  const lines = [`${method} ${path} HTTP/1.1`, "host: web", "te: trailers", "connection: te", ...(hasBody ? ["transfer-encoding: chunked"] : []), ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)];
  const client = waypoint.raw().send(`${lines.join("\r\n")}\r\n\r\n`);
  return {
    heard: () => client.received,
    send: (body, trailers = {}) => void client.send(`${body.length.toString(16)}\r\n${body}\r\n0\r\n${Object.entries(trailers).map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`),
    cancel: () => client.destroy(),
  };
}

function client2(session: ClientHttp2Session, method: string, path: string, headers: Record<string, string>): ClientSide {
  const stream = session.request({ ":method": method, ":path": path, ":authority": "web", te: "trailers", ...headers }, { endStream: method === "GET", waitForTrailers: method !== "GET" } as object);
  let heard = "";
  const tell = (got: IncomingHttpHeaders) => (heard += `${Object.entries(got).map(([name, value]) => `${name}: ${String(value)}`).join("\n")}\n`);
  let trailers: Record<string, string> = {};
  stream.on("headers", tell).on("response", tell).on("trailers", tell).on("data", (chunk: Buffer) => (heard += chunk.toString())).on("continue", () => (heard += ":status: 100\n")).on("error", () => {});
  stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  return {
    heard: () => heard,
    send: (body, more = {}) => {
      trailers = more;
      stream.end(body);
    },
    cancel: () => stream.close(8),
  };
}

for (const from of versions) {
  for (const to of versions) {
    describe(`${from} to ${to}`, () => {
      const run = (name: string, method: string, path: string, headers: Record<string, string>, body: (client: ClientSide, server: ServerSide, waypoint: WaypointFixture) => Promise<void>): void =>
        test(name, async () => {
          const server = await (to === "HTTP/2" ? server2() : server1());
          const limits = { ...NO_LIMITS, upgradeToHttp2: to === "HTTP/2" };
          const waypoint = new WaypointFixture({ endpoints: [server.backend], l7: { trafficPolicies: [{ service: trafficPolicy({}).service, policies: [trafficPolicy({ limits })] }] } });
          const session = from === "HTTP/2" ? connect2(waypoint.url) : null;
          const client = session === null ? client1(waypoint, method, path, headers) : client2(session, method, path, headers);
          try {
            await body(client, server, waypoint);
          } finally {
            client.cancel();
            session?.close();
            await waypoint[Symbol.asyncDispose]();
            await server.backend[Symbol.asyncDispose]();
          }
        });
      const hears = (client: ClientSide, what: RegExp): Promise<string> => until(`${String(what)} in ${JSON.stringify(client.heard())}`, 5_000, () => (what.test(client.heard()) ? client.heard() : null));

      run("server-sent events arrive one by one", "GET", "/events", {}, async (client, server) => {
        expect(await hears(client, /data: 1/)).not.toContain("data: 2");
        server.next();
        await hears(client, /data: 1[^]*data: 2/);
      });

      run("103 comes before the answer", "GET", "/hints", {}, async (client) => {
        expect(await hears(client, /ok/)).toMatch(/103[^]*link: <\/style.css>[^]*200[^]*ok/);
      });

      run("trailers go both ways", "POST", "/sum", {}, async (client) => {
        client.send("abc", { "x-count": "3" });
        expect(await hears(client, /x-sum: 42/)).toMatch(/200[^]*summed[^]*x-sum: 42/);
      });

      run("100 is the server's word, and the body waits for it", "POST", "/continue", { expect: "100-continue" }, async (client) => {
        await hears(client, /100/);
        client.send("now");
        expect(await hears(client, /read/)).toMatch(/100[^]*200[^]*read/);
      });

      run("a client that gives up is told to the server", "POST", "/never", {}, async (client, server, waypoint) => {
        await until("the request to be under way", 5_000, () => [...waypoint.plane.requests].some(({ state }) => state === "awaiting") || null);
        client.cancel();
        await until("the server to know", 5_000, () => server.cancelled() === 1 || null);
        expect(await waypoint.ended()).toMatchObject({ status: 0, flags: "DC" });
      });
    });
  }
}
