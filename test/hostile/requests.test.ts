// What clients of a waypoint do with HTTP/1 when each message is in order: too many of them, too large, in the smallest pieces, with bytes
// before their time, to ports of a proxy that this is not, and gone in the middle. Through a running waypoint, with a bound on its memory.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout } from "bun:test";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { item } from "../kit/bad-input.ts";
import { Http2Peer } from "../kit/http2-peer.ts";
import { until } from "../kit/until.ts";
import { RawClient } from "../kit/waypoint.ts";
import { ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const SERVER = "198.18.7.31";
const PORT = 8080;
const MALFORMED = "weft_request_malformed_total";
const ANSWERS = "weft_request_answers_total";
const WAIT_MS = 20_000;
/** What one hostile client may add to the waypoint's memory while it lasts. */
const GROWTH_BYTES_MAX = 64 * 1024 * 1024;
const LARGE = Buffer.alloc(4 * 1024 * 1024, "x");

let server: Server;
let waypoint: WaypointProcess;
/** Requests that the server was told of, and upgrades that it has not granted yet. */
const heard: IncomingMessage[] = [];
const asking: { readonly socket: Socket; early: string }[] = [];
let aborted = 0;
let bodyBytes = 0;

beforeAll(async () => {
  ownAddresses([SERVER]);
  server = createServer((request, response) => {
    heard.push(request);
    request.on("data", (bytes: Buffer) => void (bodyBytes += bytes.length));
    response.on("close", () => void (response.writableFinished || aborted++));
    if (request.url === "/early") response.end("early");
    else if (request.url === "/large") response.end(LARGE);
    else if (request.url !== "/held") request.on("end", () => response.end(request.url));
  });
  server.on("checkContinue", (_, response: ServerResponse) => response.end("early"));
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    if (request.url !== "/socket") return void socket.end("HTTP/1.1 501 Not Implemented\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    const one = { socket, early: head.toString() };
    socket.on("data", (bytes) => void (one.early += bytes.toString()));
    socket.on("error", () => {});
    asking.push(one);
  });
  await new Promise<void>((resolve) => server.listen(0, SERVER, resolve));
  waypoint = await WaypointProcess.start({
    yaml: { "shop.yaml": [WAYPOINT_YAML, serviceYaml("web", SERVER, (server.address() as AddressInfo).port)].join("\n---\n") },
    flags: ["--serve", `127.0.0.1:${PORT}=shop/web.shop.svc.cluster.local:80`, "--workers", "1"],
  });
  expect(await honest()).toBe("/honest");
}, 60_000);

afterAll(async () => {
  await waypoint?.[Symbol.asyncDispose]();
  server?.closeAllConnections();
  server?.close();
});

const honest = async (): Promise<string> => (await fetch(`http://127.0.0.1:${PORT}/honest`)).text();
const get = (path: string, fields = ""): string => `GET ${path} HTTP/1.1\r\nHost: web\r\n${fields}\r\n`;
const told = (path: string): boolean => heard.some(({ url }) => url === path);

/** Runs the body; then the waypoint's memory has not grown beyond its bound, and honest requests are answered. */
async function bounded(body: () => Promise<void>): Promise<void> {
  const before = waypoint.residentBytes();
  await body();
  expect(waypoint.residentBytes() - before).toBeLessThan(GROWTH_BYTES_MAX);
  expect(await honest()).toBe("/honest");
}

async function counted(name: string, labels: Readonly<Record<string, string>>, least: number, body: () => Promise<void>): Promise<void> {
  const before = await waypoint.metric(name, labels);
  await bounded(body);
  await until(`${name} ${JSON.stringify(labels)} to grow by ${least}`, WAIT_MS, async () => (await waypoint.metric(name, labels)) - before >= least);
}

describe("too much", () => {
  item("ten thousand requests in one connection, and no answer is read", () => bounded(async () => {
    const seen = heard.length;
    const client = new RawClient(PORT);
    client.socket.pause();
    client.send(Array.from({ length: 10_000 }, (_, i) => get(`/piped/${i}`)).join(""));
    await until("some to be answered", WAIT_MS, () => heard.length > seen);
    expect(await honest()).toBe("/honest");
    client.socket.resume();
    // In order, whole, and none is lost in the middle: the last one that is answered says that it is.
    const answers = (await client.closed()).split("HTTP/1.1 ").slice(1);
    const paths = answers.map((answer) => answer.slice(answer.indexOf("\r\n\r\n") + 4));
    expect(paths).toEqual(paths.map((_, i) => `/piped/${i}`));
    expect(answers.filter((answer) => answer.includes("connection: close")).length).toBe(1);
    expect(answers.at(-1)).toContain("connection: close");
    expect(heard.filter(({ url }) => url?.startsWith("/piped/")).length).toBe(answers.length);
  }));

  item("a million chunks of one byte", () => bounded(async () => {
    const before = bodyBytes;
    const client = new RawClient(PORT).send("POST /chunks HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (let i = 0; i < 100; i++) client.send("1\r\nx\r\n".repeat(10_000));
    client.send("0\r\n\r\n");
    await until("the answer", 40_000, () => client.received.includes("/chunks"));
    expect(client.received).toStartWith("HTTP/1.1 200 ");
    expect(bodyBytes - before).toBe(1_000_000);
    client.destroy();
  }));

  item("heads beyond their limits", () => counted(MALFORMED, {}, 5, async () => {
    for (const [head, status] of [
      [get("/much", Array.from({ length: 10_000 }, (_, i) => `x-${i}: y\r\n`).join("")), 431], [get("/much", `x: ${"y".repeat(100_000)}\r\n`), 431], [get(`/much${"x".repeat(100_000)}`), 414],
      [get("/much", Array.from({ length: 100 }, (_, i) => `x-${i}: ${"y".repeat(1_000)}\r\n`).join("")), 431], [`${"G".repeat(100_000)} /much HTTP/1.1\r\nHost: web\r\n\r\n`, 501],
    ] as const) {
      const answer = await new RawClient(PORT).send(head).closed();
      expect(answer).toStartWith(`HTTP/1.1 ${status} `);
      expect(answer.split("HTTP/1.1 ").length).toBe(2);
    }
    expect(heard.some(({ url }) => url?.startsWith("/much"))).toBe(false);
  }));
});

describe("out of turn", () => {
  item("an expectation of 100 without a body, of something else, and with a body that never comes", () => bounded(async () => {
    const client = new RawClient(PORT).send(get("/expect", "Expect: 100-continue\r\n"));
    expect(await client.until("/expect")).not.toContain("100 Continue");
    client.send(get("/again", "Connection: close\r\n"));
    expect(await client.closed()).toContain("/again");
    expect(await new RawClient(PORT).send(get("/else", "Expect: 200-ok\r\nConnection: close\r\n")).closed()).toStartWith("HTTP/1.1 417 ");
    // Answered without the body: what comes next could be the body or a request, so nothing of it is read.
    const other = new RawClient(PORT).send("POST /early HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    expect(await other.until("early")).not.toContain("100 Continue");
    other.send(`hello${get("/after-refusal")}`);
    await other.closed();
    expect(told("/after-refusal")).toBe(false);
  }));

  item("an answer before its request has ended, and a request behind it", () => bounded(async () => {
    const client = new RawClient(PORT).send("POST /early HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\n01234");
    await client.until("early");
    client.send(`56789${get("/behind", "Connection: close\r\n")}`);
    expect((await client.closed()).split("HTTP/1.1 200 ").length).toBe(3);
    expect(told("/behind")).toBe(true);
  }));

  item("bytes behind an Upgrade that is not granted yet", () => bounded(async () => {
    const client = new RawClient(PORT).send(`${get("/socket", "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")}too early`);
    const one = await until("the server to be asked", WAIT_MS, () => asking.at(-1));
    expect(await honest()).toBe("/honest");
    expect(one.early).toBe("");
    one.socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nwelcome");
    await client.until("welcome");
    await until("the bytes to be passed on", WAIT_MS, () => one.early === "too early");
    // Half-closed by the client; the server still speaks, and then ends too.
    client.socket.end();
    const ended = new Promise<void>((resolve) => one.socket.once("end", resolve));
    one.socket.write("still here");
    await client.until("still here");
    await ended;
    one.socket.end();
    await client.closed();
  }));
});

describe("as if this were a proxy of theirs", () => {
  item("CONNECT in every form", () => counted(ANSWERS, { reason: "upgrade_refused" }, 3, async () => {
    const seen = heard.length;
    for (const [request, status, reason] of [
      ["CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n", 403, "upgrade_refused"], ["CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n", 403, "upgrade_refused"],
      [`CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n${get("/early-data")}`, 403, "upgrade_refused"],
      ["CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\nContent-Length: 5\r\n\r\nhello", 400, "bad_request"], ["CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"],
      ...["/path", "http://web/", "web", "web:", "web:0", "web:99999", "u@web:80", "*", ":80", "[::1", "web:80/x", "web:80?x", "web:80#x"].map((target): [string, number, string] => [`CONNECT ${target} HTTP/1.1\r\nHost: web:80\r\n\r\n`, 400, "bad_request"]),
    ] as const) {
      const client = new RawClient(PORT).send(request);
      // Sent for the tunnel that the client takes to be granted: it may come at any time.
      if (status === 403) await client.until(reason);
      const answer = await client.send(get("/early-data")).closed();
      if (!answer.startsWith(`HTTP/1.1 ${status} `) || !answer.includes(`x-weft-reason: ${reason}`) || answer.split("HTTP/1.1 ").length !== 2) expect({ request, answer }).toEqual({ request, answer: `${status} ${reason}` });
    }
    expect(heard.slice(seen).map(({ url }) => url)).toEqual([]);
  }));

  item("CONNECT in every form, by HTTP/2", () => bounded(async () => {
    const connect = [":method", "CONNECT", ":authority", "web:80"];
    const forms: readonly (readonly [readonly string[], RegExp])[] = [
      [connect, /^403$/], [[...connect, ":path", "/"], /^reset 1$/], [[...connect, ":scheme", "http"], /^reset 1$/], [[":method", "CONNECT"], /^reset 1$/], [[":method", "CONNECT", ":authority", ""], /^(reset 1|400)$/],
      [[...connect, ":protocol", "connect-udp", ":scheme", "http", ":path", "/"], /^501$/], [[...connect, ":protocol", "websocket"], /^(400|reset 1)$/], [[":method", "GET", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "web"], /^(400|reset 1)$/],
      [[":method", "CONNECT", ":authority", "u@web:80"], /^(400|reset 1)$/], [[":method", "CONNECT", ":authority", "web"], /^(400|reset 1)$/],
    ];
    const seen = heard.length;
    for (const [fields, wanted] of forms) {
      using peer = await Http2Peer.plain(PORT);
      const status = await peer.status(peer.request(fields));
      if (!wanted.test(status)) expect({ fields, status }).toEqual({ fields, status: String(wanted) });
    }
    expect(heard.slice(seen).map(({ url }) => url)).toEqual([]);
  }));
});

describe("gone in the middle", () => {
  item("a client that resets, or ends, in every state of a request", () => bounded(async () => {
    const states: readonly (readonly [request: string, isThere: () => boolean])[] = [
      ["", () => true], ["GET /ha", () => true], ["POST /half HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nhalf", () => told("/half")],
      ["POST /halfchunk HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", () => told("/halfchunk")], [get("/held"), () => told("/held")],
    ];
    for (const leave of ["reset", "end"] as const) {
      for (const [request, isThere] of states) {
        const client = new RawClient(PORT).send(request);
        await until("the request to be there", WAIT_MS, isThere);
        if (leave === "reset") client.destroy();
        else client.socket.end();
        // Half a request that ends is none: the connection is over at once. A whole one may still be answered.
        if (leave === "end" && !request.startsWith("GET /held")) await client.closed();
        else client.destroy();
      }
      heard.splice(0);
    }
    const before = aborted;
    const client = new RawClient(PORT).send(get("/large"));
    await client.until("xxxx");
    client.destroy();
    await until("the server to be told", WAIT_MS, () => aborted > before);
    await until("nothing to be left", WAIT_MS, async () => (await waypoint.metric("weft_upstream_in_use", { resource: "activeRequests" })) + (await waypoint.metric("weft_buffered_bytes")) === 0);
  }));
});
