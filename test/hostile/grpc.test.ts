// The gRPC part of the list of bodies in docs/bad-input.md through a running waypoint: a proxy reads of a call its path, its timeout, how
// many messages there are and how it ended. What lies about any of it is the server's, or the client's, to refuse: it is passed on as it
// came, costs no memory, and forges no line of the log.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout } from "bun:test";
import type { ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { Flag, FrameType } from "../../src/wire/http2/frames.ts";
import { item } from "../kit/bad-input.ts";
import { data, frame, headers, Http2Peer } from "../kit/http2-peer.ts";
import { headerValue } from "../../src/wire/http2/headers.ts";
import { until } from "../kit/until.ts";
import { type Backend, backend2 } from "../kit/waypoint.ts";
import { ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const SERVER = "198.18.7.41";
const PORT = 8080;
const WAIT_MS = 20_000;
/** What one hostile call may add to the waypoint's memory while it lasts: windows in both directions, and garbage. */
const GROWTH_BYTES_MAX = 96 * 1024 * 1024;
const REQUESTS = "istio_requests_total";
const MESSAGES = "istio_request_messages_total";

interface Received {
  readonly path: string;
  bytes: number;
  head: Buffer;
  ended: boolean;
}
type End = (stream: ServerHttp2Stream) => void;

let server: Backend;
let waypoint: WaypointProcess;
/** Of the server. */
const sockets = new Set<Socket>();
/** By path: how a call ends whose request has come whole. Others end well. */
const ends = new Map<string, End>();
/** Of the call that came last. */
let received: Received = { path: "", bytes: 0, head: Buffer.alloc(0), ended: false };

const trailers = (stream: ServerHttp2Stream, fields: Readonly<Record<string, string>>): void => {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(fields));
  stream.end(Buffer.from([0, 0, 0, 0, 1, 7]));
};

beforeAll(async () => {
  ownAddresses([SERVER]);
  server = await backend2((stream, fields) => {
    const mine: Received = (received = { path: String(fields[":path"]), bytes: 0, head: Buffer.alloc(0), ended: false });
    stream.on("data", (chunk: Buffer) => {
      mine.bytes += chunk.length;
      if (mine.head.length < 64) mine.head = Buffer.concat([mine.head, chunk.subarray(0, 64)]);
    });
    stream.on("end", () => {
      mine.ended = true;
      if (stream.destroyed) return;
      (ends.get(mine.path) ?? ((of) => trailers(of, { "grpc-status": "0" })))(stream);
    });
  }, SERVER);
  server.server.on("connection", (socket: Socket) => sockets.add(socket));
  waypoint = await WaypointProcess.start({
    yaml: { "shop.yaml": [WAYPOINT_YAML, serviceYaml("web", SERVER, server.port).replace('"name":"http"', '"name":"grpc"')].join("\n---\n") },
    flags: ["--serve", `127.0.0.1:${PORT}=shop/web.shop.svc.cluster.local:80`, "--workers", "1"],
  });
  expect(await call("/a.B/First", message(1))).toBe("200 grpc 0");
}, 60_000);

afterAll(async () => {
  await waypoint?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

const request = (path: string, more: readonly string[] = []): string[] => [":method", "POST", ":scheme", "http", ":path", path, ":authority", "web", "content-type", "application/grpc", "te", "trailers", ...more];
const prefix = (flags: number, length: number): Buffer => Buffer.from([flags, ...[24, 16, 8, 0].map((shift) => (length >>> shift) & 255)]);
const message = (bytes: number): Buffer => Buffer.concat([prefix(0, bytes), Buffer.alloc(bytes, 7)]);

/** How a call ended for its client: the status of HTTP, and gRPC's where it was told. */
async function outcomeOf(peer: Http2Peer, id: number): Promise<string> {
  await until("the call to end", WAIT_MS, () => peer.hasEnded(id) || peer.resetCode(id) !== null || peer.goawayCode !== null);
  const head = await peer.answer(id);
  // Trailers, where there are any, are the last list that came.
  const grpc = head === null ? undefined : headerValue(head, "grpc-status");
  const status = headerValue(peer.firstAnswer(id) ?? [], ":status") ?? "no status";
  return `${status} ${!peer.hasEnded(id) && peer.resetCode(id) !== null ? `reset ${peer.resetCode(id)}` : grpc === undefined ? "no grpc" : `grpc ${grpc}`}`;
}

async function call(path: string, body: Uint8Array, more: readonly string[] = []): Promise<string> {
  using peer = await Http2Peer.plain(PORT);
  peer.write(headers(1, request(path, more)), data(1, body, true));
  return await outcomeOf(peer, 1);
}

/** Runs the body; the metric has grown by exactly that much, and the waypoint's memory stays within its bound. */
async function counts(messages: number, body: () => Promise<void>): Promise<void> {
  const [before, bytesBefore] = [await waypoint.metric(MESSAGES), waypoint.residentBytes()];
  await body();
  expect(waypoint.residentBytes() - bytesBefore).toBeLessThan(GROWTH_BYTES_MAX);
  await until(`${messages} messages to be counted`, WAIT_MS, async () => (await waypoint.metric(MESSAGES)) - before >= messages);
  expect((await waypoint.metric(MESSAGES)) - before).toBe(messages);
  expect(await call("/a.B/Honest", Buffer.alloc(0))).toBe("200 grpc 0");
}

describe("messages", () => {
  item("a message of four gigabytes, of which little comes", () => counts(1, async () => {
    expect(await call("/a.B/Long", Buffer.concat([prefix(0, 0xffff_ffff), Buffer.alloc(100)]))).toBe("200 grpc 0");
    expect(received).toMatchObject({ path: "/a.B/Long", bytes: 105, ended: true });
  }));

  item("a message that is cut off within its prefix", () => counts(1, async () => {
    expect(await call("/a.B/Cut", Buffer.concat([message(3), Buffer.from([0, 0, 0])]))).toBe("200 grpc 0");
    expect(received).toMatchObject({ bytes: 11, ended: true });
  }));

  item("flags that say compressed, or nothing that is known", () => counts(3, async () => {
    const body = Buffer.concat([prefix(1, 4), Buffer.from("text"), prefix(0x7f, 1), Buffer.from("x"), prefix(0, 0)]);
    expect(await call("/a.B/Flags", body, ["grpc-encoding", "no-such"])).toBe("200 grpc 0");
    expect(received.head).toEqual(body);
  }));

  item("prefixes that are split over frames, and many messages in one", () => counts(40, async () => {
    using peer = await Http2Peer.plain(PORT);
    peer.write(headers(1, request("/a.B/Split")));
    const body = Buffer.concat(Array.from({ length: 20 }, (_, i) => message(i)));
    for (const byte of body) peer.write(data(1, Uint8Array.of(byte)));
    peer.write(data(1, body, true));
    expect(await outcomeOf(peer, 1)).toBe("200 grpc 0");
    expect(received.bytes).toBe(2 * body.length);
  }));

  item("a million messages in one stream", () => counts(1_000_000, async () => {
    using peer = await Http2Peer.plain(PORT);
    const id = peer.request(request("/a.B/Many"));
    const all = Buffer.alloc(5 * 1_000_000);
    for (let sent = 0; sent < all.length; ) {
      sent += peer.fill(id, all.length - sent);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    peer.write(data(id, "", true));
    expect(await outcomeOf(peer, id)).toBe("200 grpc 0");
    expect(received.bytes).toBe(all.length);
  }));

  item("one message of 200 megabytes", () => counts(1, async () => {
    using peer = await Http2Peer.plain(PORT);
    const id = peer.request(request("/a.B/Huge"));
    const bytes = 200 * 1024 * 1024;
    peer.send(id, prefix(0, bytes));
    for (let sent = 5; sent < bytes + 5; ) {
      sent += peer.fill(id, bytes + 5 - sent);
      await new Promise((resolve) => setImmediate(resolve));
    }
    peer.write(data(id, "", true));
    expect(await outcomeOf(peer, id)).toBe("200 grpc 0");
    expect(received.bytes).toBe(bytes + 5);
  }));
});

describe("what a call says of itself", () => {
  item("timeouts that are none, that overflow, or are over already", async () => {
    for (const text of ["", "S", "1", "-1S", "+1S", "1.5S", "1x", "1 S", "999999999S", "99999999999999999999H", "1S, 2S", "0x1S", "٣S"]) {
      // What is no timeout is none: the call has the time that the service has.
      const encoded = Buffer.from(text).toString("latin1");
      expect(`${text}: ${await call("/a.B/Time", message(1), ["grpc-timeout", encoded])}`).toBe(`${text}: 200 grpc 0`);
    }
    expect(await call("/a.B/Time", message(1), ["grpc-timeout", "99999999H"])).toBe("200 grpc 0");
    ends.set("/a.B/Never", () => {});
    const before = await waypoint.metric(REQUESTS, { grpc_response_status: "4" });
    for (const text of ["0S", "1n", "00000000u", "1m"]) expect(`${text}: ${await call("/a.B/Never", message(1), ["grpc-timeout", text])}`).toBe(`${text}: 200 grpc 4`);
    await until("four to be counted", WAIT_MS, async () => (await waypoint.metric(REQUESTS, { grpc_response_status: "4" })) - before >= 4);
  });

  item("paths that are no method, and a body that is none of gRPC's", async () => {
    for (const path of ["/", "/a", "//", "/a.B/", "/a.B/C/D", "/%61.B/C", `/${"a".repeat(10_000)}/B`]) expect(await call(path, message(1))).toBe("200 grpc 0");
    expect(await call("/a.B/Text", Buffer.from("GET / HTTP/1.1\r\n\r\n"))).toBe("200 grpc 0");
    expect(await call("/a.B/Nothing", Buffer.alloc(0))).toBe("200 grpc 0");
  });
});

describe("how a call ends", () => {
  const ending = async (name: string, end: End): Promise<string> => {
    ends.set(`/a.B/${name}`, end);
    return await call(`/a.B/${name}`, message(1));
  };
  const lineOf = async (path: string): Promise<Record<string, unknown>> => await until(`the line of ${path}`, WAIT_MS, () => waypoint.lines.find((line) => line["path"] === path));

  item("statuses that are none, that are missing, or that are said twice", async () => {
    for (const [i, status] of ["99", "17", "-1", "00", "1e1", "abc", "", "4294967296"].entries()) {
      await ending(`Status${i}`, (stream) => trailers(stream, { "grpc-status": status }));
      // What is no status of gRPC is UNKNOWN to whoever counts; the client sees what was said.
      expect((await lineOf(`/a.B/Status${i}`))["grpc_status"]).toBe(2);
    }
    expect(await ending("NoStatus", (stream) => trailers(stream, { other: "x" }))).toBe("200 no grpc");
    expect(await ending("NoTrailers", (stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.end(message(1));
    })).toBe("200 no grpc");
    expect(await ending("InHead", (stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "5" }, { endStream: true });
    })).toBe("200 grpc 5");
    expect(await ending("Gone", (stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.write(message(1), () => sockets.forEach((socket) => socket.destroy()));
    // Cut, or never begun: not whole in any case.
    })).toMatch(/^200 (reset \d+|grpc 14)$/);
    const labels = new Set([...(await (await fetch("http://127.0.0.1:15020/metrics")).text()).matchAll(/grpc_response_status="([^"]*)"/g)].map(([, label]) => label));
    for (const label of labels) expect(label).toMatch(/^([0-9]|1[0-6])?$/);
  });

  item("a status message that is no UTF-8, has line breaks in escapes, or is endless", async () => {
    for (const [i, text] of ["%ff%fe%c3%28", "%0d%0a{\"level\":\"error\",\"scope\":\"access\",\"path\":\"/forged\"}%0a", "%", "%zz%4", "%00%1b[31m", "%41".repeat(5_000)].entries()) {
      expect(await ending(`Message${i}`, (stream) => trailers(stream, { "grpc-status": "13", "grpc-message": text }))).toBe("200 grpc 13");
      const line = await lineOf(`/a.B/Message${i}`);
      expect(line["grpc_status"]).toBe(13);
      expect(String(line["grpc_message"]).length).toBeLessThanOrEqual(1_024);
    }
    expect(waypoint.lines.some((line) => line["path"] === "/forged")).toBe(false);
  });

  item("trailers with fields that may not stand there, and larger than their limit", async () => {
    using peer = await Http2Peer.plain(PORT);
    // A client's own, in a request: pseudo fields among them break HTTP, too large ones are refused.
    peer.write(headers(1, request("/a.B/Trailers")), data(1, message(1)), headers(1, [":path", "/other", "x", "y"], true));
    expect(await outcomeOf(peer, 1)).toBe("no status reset 1");
    using other = await Http2Peer.plain(PORT);
    other.write(headers(1, request("/a.B/Trailers")), data(1, message(1)), frame(FrameType.headers, Flag.endHeaders | Flag.endStream, 1, Buffer.concat(Array.from({ length: 20 }, (_, i) => Buffer.concat([Buffer.from([0, 1, 0x61 + i, 0x7f, 0xa1, 0x1e]), Buffer.alloc(4_000, 0x62)])))));
    expect(await outcomeOf(other, 1)).toMatch(/^no status reset \d+$/);
    expect(await call("/a.B/Honest", message(1))).toBe("200 grpc 0");
  });
});
