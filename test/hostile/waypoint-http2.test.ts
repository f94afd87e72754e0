// The HTTP/2 list of docs/bad-input.md on a port of a running waypoint that serves requests: each flood ends in a GOAWAY that says why, moves
// its counter, and costs the waypoint neither its memory nor its other clients; and the server behind it hears no more than it must.

import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { Readable } from "node:stream";
import { Flag, FrameType } from "../../src/wire/http2/frames.ts";
import { encodeStateless } from "../../src/wire/http2/hpack-encoder.ts";
import { PREMATURE_RESETS } from "../../src/wire/http2/limits.ts";
import { item } from "../kit/bad-input.ts";
import { ATTACK_ENDS, type AttackKind, http2Attacks, strike } from "../kit/http2-attacks.ts";
import { data, frame, headers, Http2Peer, reset, settings, windowUpdate } from "../kit/http2-peer.ts";
import { until } from "../kit/until.ts";
import { type Backend, backend2 } from "../kit/waypoint.ts";
import { ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const SERVER = "198.18.7.21";
const PORT = 8080;
const MALFORMED = "weft_request_malformed_total";
const FLOW_CONTROL_ERROR = 3;
/** What one hostile client may add to the waypoint's memory while it lasts. */
const GROWTH_BYTES_MAX = 64 * 1024 * 1024;
const COUNTED_MS = 10_000;
const LARGE_PIECES = 64;

/** Four megabytes, made as they are taken. */
function* large(): Generator<Buffer> {
  for (let i = 0; i < LARGE_PIECES; i++) yield Buffer.alloc(64 * 1024, "x");
}

let server: Backend;
let waypoint: WaypointProcess;
let cancelled = 0;

beforeAll(async () => {
  ownAddresses([SERVER]);
  server = await backend2((stream, fields) => {
    stream.on("close", () => void (stream.rstCode === 0 || cancelled++));
    const path = String(fields[":path"]);
    if (path === "/held") return;
    stream.respond({ ":status": 200 });
    if (path === "/large") Readable.from(large()).pipe(stream);
    else if (path === "/echo") stream.pipe(stream);
    else stream.resume().end(path);
  }, SERVER);
  waypoint = await WaypointProcess.start({
    yaml: { "shop.yaml": [WAYPOINT_YAML, serviceYaml("web", SERVER, server.port).replace('"name":"http"', '"name":"http2"')].join("\n---\n") },
    flags: ["--serve", `127.0.0.1:${PORT}=shop/web.shop.svc.cluster.local:80`, "--workers", "1"],
  });
  expect(await honest()).toBe("/honest");
}, 60_000);

afterAll(async () => {
  await waypoint?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

const honest = async (): Promise<string> => (await fetch(`http://127.0.0.1:${PORT}/honest`)).text();
const request = (path: string, method = "POST"): string[] => [":method", method, ":scheme", "http", ":path", path, ":authority", "web"];

/** Runs the body and awaits that the counter has moved, and that the memory has not grown beyond its bound. */
async function counted(labels: Readonly<Record<string, string>>, body: () => Promise<void>): Promise<void> {
  const [before, bytesBefore] = [await waypoint.metric(MALFORMED, labels), waypoint.residentBytes()];
  await body();
  await until(`${MALFORMED} ${JSON.stringify(labels)} to move`, COUNTED_MS, async () => (await waypoint.metric(MALFORMED, labels)) > before);
  expect(waypoint.residentBytes() - bytesBefore).toBeLessThan(GROWTH_BYTES_MAX);
  expect(await honest()).toBe("/honest");
}

const attacks: readonly (readonly [name: string, kind: AttackKind])[] = [
  ["rapid reset", "rapidReset"],
  ["made to reset by malformed requests", "malformedRequests"],
  ["made to reset by window overflow", "streamWindowOverflow"],
  ["made to reset by WINDOW_UPDATE of 0", "windowUpdateOfZero"],
  ["made to reset by DATA after the end", "dataAfterEnd"],
  ["made to reset by HEADERS after the end", "headersAfterEnd"],
  ["made to reset by PRIORITY of a wrong length", "priorityOfWrongLength"],
  ["CONTINUATION without end", "continuationFlood"],
  ["header block without end", "endlessHeaderBlock"],
  ["PING flood", "pingFlood"],
  ["SETTINGS flood", "settingsFlood"],
  ["WINDOW_UPDATE flood", "windowUpdateFlood"],
  ["PRIORITY flood", "priorityFlood"],
  ["empty DATA flood", "emptyDataFlood"],
  ["empty CONTINUATION flood", "emptyContinuationFlood"],
  ["GOAWAY flood", "goawayFlood"],
  ["flood of unknown frames", "unknownFrameFlood"],
  ["streams above the maximum without end", "endlessStreams"],
  ["frame above the maximum size", "frameAboveMaximum"],
  ["frame of a wrong fixed size", "frameOfWrongSize"],
  ["padding as long as the frame", "paddingAsLongAsFrame"],
  ["stream number that is even", "evenStream"],
  ["DATA on an idle stream", "dataOnIdleStream"],
  ["frame between HEADERS and CONTINUATION", "interleavedBlock"],
  ["window of the connection overflows", "connectionWindowOverflow"],
  ["initial window beyond 2^31-1", "initialWindowTooLarge"],
  ["HPACK integer that does not end", "hpackEndlessInteger"],
  ["HPACK index that is not there", "hpackUnknownIndex"],
  ["HPACK table larger than announced", "hpackTableTooLarge"],
  ["HPACK Huffman code with wrong padding", "hpackWrongPadding"],
];

for (const [name, kind] of attacks) {
  const [goaway, code] = ATTACK_ENDS[kind];
  item(name, () => counted(code === "" ? {} : { code }, async () => {
    using peer = await Http2Peer.plain(PORT);
    await strike(peer, http2Attacks(request("/held"))[kind]);
    expect(await peer.goaway()).toStartWith(`${goaway} `);
    await peer.closed;
  }));
}

item("rapid reset, as the server sees it", async () => {
  const [seen, ended] = [server.seen.length, cancelled];
  {
    using peer = await Http2Peer.plain(PORT);
    await strike(peer, http2Attacks(request("/held")).rapidReset);
    await peer.closed;
  }
  // What was reset in the same read was never sent on; what was, is cancelled.
  await until("everything to be cancelled", COUNTED_MS, () => cancelled - ended === server.seen.length - seen);
  expect(server.seen.length - seen).toBeLessThan(2 * PREMATURE_RESETS.burst);
});

item("header list beyond the limit once it is decoded", async () => {
  using peer = await Http2Peer.plain(PORT);
  // One entry of the dynamic table, referred to over and over: 100 bytes on the wire, 400 KB decoded.
  const bomb = Buffer.concat([encodeStateless(request("/held")), Buffer.from([0x40, 1, 0x61, 0x7f, 0xa1, 0x1e]), Buffer.alloc(4_000, 0x62), Buffer.alloc(100, 0xbe)]);
  peer.write(frame(FrameType.headers, Flag.endHeaders, 1, bomb));
  expect(await peer.status(1)).toBe("431");
  peer.write(headers(3, request("/after", "GET"), true));
  expect(await peer.status(3)).toBe("200");
});

item("eight thousand cookie crumbs", async () => {
  using peer = await Http2Peer.plain(PORT);
  peer.write(frame(FrameType.headers, Flag.endHeaders, 1, Buffer.concat([encodeStateless(request("/held")), ...Array.from({ length: 8_000 }, () => Buffer.from([0x60, 1, 0x61]))])));
  expect(await peer.status(1)).toBe("431");
  peer.write(headers(3, request("/after", "GET"), true));
  expect(await peer.status(3)).toBe("200");
});

item("bytes beyond a stream's window", async () => {
  using peer = await Http2Peer.plain(PORT);
  peer.write(headers(1, request("/held")), ...Array.from({ length: 6 * 64 }, () => data(1, new Uint8Array(16_384))));
  await until("the stream to be reset", COUNTED_MS, () => peer.resetCode(1) !== null);
  expect([peer.resetCode(1), peer.goawayCode]).toEqual([FLOW_CONTROL_ERROR, null]);
});

item("window shut for ever: the server is held back, not the waypoint's memory", async () => {
  const before = waypoint.residentBytes();
  using peer = await Http2Peer.plain(PORT);
  peer.write(settings([4, 0]));
  await peer.ping();
  const ids = Array.from({ length: 100 }, () => peer.request(request("/large", "GET"), true));
  for (const id of ids) expect(await peer.status(id)).toBe("200");
  await until("bytes to wait", COUNTED_MS, async () => (await waypoint.metric("weft_buffered_bytes")) > 0);
  expect(await honest()).toBe("/honest");
  // One window of each at most, and one of the connections to the server: not the 400 MB that were asked for.
  expect(waypoint.residentBytes() - before).toBeLessThan(100 * 1024 * 1024 + GROWTH_BYTES_MAX);
  expect(ids.map((id) => peer.bodyOf(id))).toEqual(ids.map(() => ""));
  peer[Symbol.dispose]();
  await until("nothing to wait", COUNTED_MS, async () => (await waypoint.metric("weft_buffered_bytes")) === 0);
});

item("window of one byte", async () => {
  using peer = await Http2Peer.plain(PORT);
  peer.write(settings([4, 1]));
  await peer.ping();
  peer.write(headers(1, request("/echo")), data(1, "tiny windows", true));
  expect(await peer.status(1)).toBe("200");
  for (let i = 1; i <= 12; i++) {
    await until(`byte ${i}`, COUNTED_MS, () => peer.bodyOf(1).length === i);
    peer.write(windowUpdate(1, 1));
  }
  await until("the end", COUNTED_MS, () => peer.hasEnded(1));
  expect(peer.bodyOf(1)).toBe("tiny windows");
});

item("initial window that is changed in mid-stream", async () => {
  using peer = await Http2Peer.plain(PORT);
  peer.write(settings([4, 5]));
  await peer.ping();
  peer.write(headers(1, request("/echo")), data(1, "0123456789", true));
  await until("five bytes", COUNTED_MS, () => peer.bodyOf(1) === "01234");
  // Below zero, and back: six more bytes than before may come.
  peer.write(settings([4, 0]), settings([4, 8]));
  await until("three more", COUNTED_MS, () => peer.bodyOf(1) === "01234567");
  peer.write(windowUpdate(1, 2));
  await until("the end", COUNTED_MS, () => peer.hasEnded(1));
  expect(peer.bodyOf(1)).toBe("0123456789");
});

item("frames in pieces of one byte", async () => {
  using peer = await Http2Peer.plain(PORT);
  for (const byte of Buffer.concat([headers(1, request("/echo")), data(1, "slowly", true)])) {
    peer.write(Uint8Array.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until("the echo", COUNTED_MS, () => peer.hasEnded(1));
  expect(peer.bodyOf(1)).toBe("slowly");
});

item("a client that goes away in the middle of an answer", async () => {
  const ended = cancelled;
  for (const leave of ["reset", "connection"] as const) {
    using peer = await Http2Peer.plain(PORT);
    peer.write(headers(1, request("/large", "GET"), true));
    await until("some of the answer", COUNTED_MS, () => peer.bodyOf(1).length > 0);
    if (leave === "reset") peer.write(reset(1));
    else peer[Symbol.dispose]();
    await until("the server to be told", COUNTED_MS, () => cancelled > ended + (leave === "reset" ? 0 : 1));
  }
  await until("nothing to wait", COUNTED_MS, async () => (await waypoint.metric("weft_buffered_bytes")) === 0);
  expect(await honest()).toBe("/honest");
});

item("nothing is left of the floods", async () => {
  await until("no request and no byte to be left", COUNTED_MS, async () => (await waypoint.metric("weft_upstream_in_use", { resource: "activeRequests" })) + (await waypoint.metric("weft_buffered_bytes")) === 0);
  expect(await honest()).toBe("/honest");
  expect(waypoint.process.exitCode).toBeNull();
});
