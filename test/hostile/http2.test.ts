// The HTTP/2 list of docs/bad-input.md on the HBONE port of a running agent, over real TLS: each flood ends in a GOAWAY that says why, moves
// its counter, and costs the agent neither its memory nor its other tunnels. The engine's own tests hold the exact limits.

import { afterAll, beforeAll, expect } from "bun:test";
import { CLIENT_PREFACE, Flag, FrameType } from "../../src/wire/http2/frames.ts";
import { encodeStateless } from "../../src/wire/http2/hpack-encoder.ts";
import { item } from "../kit/bad-input.ts";
import { unsealed } from "../kit/box.ts";
import { StalledServer, TlsPeer } from "../kit/hostile-peer.ts";
import { type AttackKind, http2Attacks, strike } from "../kit/http2-attacks.ts";
import { data, frame, headers, settings, windowUpdate } from "../kit/http2-peer.ts";
import { until } from "../kit/until.ts";
import { Siege } from "../kit/siege.ts";
import { ECHO_PORT, HTTP_PORT } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

const FATAL = "weft_http2_fatal_total";
const ENHANCE_YOUR_CALM = 11;
const PROTOCOL_ERROR = 1;
const FLOW_CONTROL_ERROR = 3;
const FRAME_SIZE_ERROR = 6;
const COMPRESSION_ERROR = 9;
/** What one hostile tunnel may add to the agent's memory while it lasts. */
const GROWTH_BYTES_MAX = 48 * 1024 * 1024;

describeUnless(unsealed)("hostile HTTP/2", () => {
  let siege: Siege;
  beforeAll(async () => void (siege = await Siege.open()), 60_000);
  afterAll(async () => await siege?.[Symbol.asyncDispose]());

  const connectTo = (port: number): string[] => [":method", "CONNECT", ":authority", `198.18.1.10:${port}`];

  /** The counter is empty where either of two limits may be met first: by the number of streams, or by our resets left unread. */
  const attacks: readonly (readonly [name: string, kind: AttackKind, code: number, counter: string])[] = [
    ["rapid reset", "rapidReset", ENHANCE_YOUR_CALM, "resetFloods"],
    ["made to reset by malformed requests", "malformedRequests", ENHANCE_YOUR_CALM, "inducedResetFloods"],
    ["made to reset by window overflow", "streamWindowOverflow", ENHANCE_YOUR_CALM, "inducedResetFloods"],
    ["made to reset by WINDOW_UPDATE of 0", "windowUpdateOfZero", ENHANCE_YOUR_CALM, "inducedResetFloods"],
    ["made to reset by DATA after the end", "dataAfterEnd", ENHANCE_YOUR_CALM, "inducedResetFloods"],
    ["made to reset by HEADERS after the end", "headersAfterEnd", ENHANCE_YOUR_CALM, "inducedResetFloods"],
    ["made to reset by PRIORITY of a wrong length", "priorityOfWrongLength", ENHANCE_YOUR_CALM, "inducedResetFloods"],
    ["CONTINUATION without end", "continuationFlood", ENHANCE_YOUR_CALM, "continuationFloods"],
    ["header block without end", "endlessHeaderBlock", ENHANCE_YOUR_CALM, "headerBlockTooLarge"],
    ["PING flood", "pingFlood", ENHANCE_YOUR_CALM, ""],
    ["SETTINGS flood", "settingsFlood", ENHANCE_YOUR_CALM, "settingsFloods"],
    ["WINDOW_UPDATE flood", "windowUpdateFlood", ENHANCE_YOUR_CALM, "windowUpdateFloods"],
    ["PRIORITY flood", "priorityFlood", ENHANCE_YOUR_CALM, "priorityFloods"],
    ["empty DATA flood", "emptyDataFlood", ENHANCE_YOUR_CALM, "emptyFrameFloods"],
    ["empty CONTINUATION flood", "emptyContinuationFlood", ENHANCE_YOUR_CALM, "continuationFloods"],
    ["GOAWAY flood", "goawayFlood", ENHANCE_YOUR_CALM, "goawayFloods"],
    ["flood of unknown frames", "unknownFrameFlood", ENHANCE_YOUR_CALM, "unknownFrameFloods"],
    ["streams above the maximum without end", "endlessStreams", ENHANCE_YOUR_CALM, ""],
    ["frame above the maximum size", "frameAboveMaximum", FRAME_SIZE_ERROR, "frameSizeErrors"],
    ["frame of a wrong fixed size", "frameOfWrongSize", FRAME_SIZE_ERROR, "frameSizeErrors"],
    ["padding as long as the frame", "paddingAsLongAsFrame", PROTOCOL_ERROR, "protocolErrors"],
    ["stream number that is even", "evenStream", PROTOCOL_ERROR, "protocolErrors"],
    ["DATA on an idle stream", "dataOnIdleStream", PROTOCOL_ERROR, "protocolErrors"],
    ["frame between HEADERS and CONTINUATION", "interleavedBlock", PROTOCOL_ERROR, "protocolErrors"],
    ["window of the connection overflows", "connectionWindowOverflow", FLOW_CONTROL_ERROR, "flowControlErrors"],
    ["initial window beyond 2^31-1", "initialWindowTooLarge", FLOW_CONTROL_ERROR, "flowControlErrors"],
    ["HPACK integer that does not end", "hpackEndlessInteger", COMPRESSION_ERROR, "compressionErrors"],
    ["HPACK index that is not there", "hpackUnknownIndex", COMPRESSION_ERROR, "compressionErrors"],
    ["HPACK table larger than announced", "hpackTableTooLarge", COMPRESSION_ERROR, "compressionErrors"],
    ["HPACK Huffman code with wrong padding", "hpackWrongPadding", COMPRESSION_ERROR, "compressionErrors"],
  ];

  for (const [name, kind, code, counter] of attacks) {
    item(name, async () => {
      const before = siege.agent.residentBytes();
      using peer = await siege.tunnel();
      await siege.counted(FATAL, counter === "" ? {} : { counter }, 1, async () => {
        await strike(peer, http2Attacks(connectTo(ECHO_PORT))[kind]);
        expect(await peer.goaway()).toStartWith(`${code} `);
      });
      await peer.closed;
      expect(siege.agent.residentBytes() - before).toBeLessThan(GROWTH_BYTES_MAX);
      expect(await siege.lives()).toBe(true);
    });
  }

  item("HTTP/1.1 inside TLS", async () => {
    await siege.counted(FATAL, { counter: "badPreface" }, 1, async () => {
      using peer = TlsPeer.open(siege.rival, siege.hbone, { leaf: siege.leaf() });
      await peer.secured;
      peer.socket.write("GET / HTTP/1.1\r\nhost: far\r\n\r\n");
      await peer.closed;
    });
  });

  item("first frame that is not SETTINGS", async () => {
    await siege.counted(FATAL, { counter: "protocolErrors" }, 1, async () => {
      using peer = TlsPeer.open(siege.rival, siege.hbone, { leaf: siege.leaf() });
      await peer.secured;
      peer.socket.write(Buffer.concat([CLIENT_PREFACE, frame(FrameType.ping, 0, 0, new Uint8Array(8))]));
      await peer.closed;
    });
  });

  item("header list beyond the limit once it is decoded", async () => {
    using peer = await siege.tunnel();
    // One entry of the dynamic table, referred to over and over: 100 bytes on the wire, 400 KB decoded.
    const bomb = Buffer.concat([encodeStateless(connectTo(ECHO_PORT)), Buffer.from([0x40, 1, 0x61, 0x7f, 0xa1, 0x1e]), Buffer.alloc(4_000, 0x62), Buffer.alloc(100, 0xbe)]);
    peer.write(frame(FrameType.headers, Flag.endHeaders, 1, bomb));
    expect(await peer.status(1)).toBe("431");
    expect(peer.goawayCode).toBeNull();
    peer.write(headers(3, connectTo(HTTP_PORT)));
    expect(await peer.status(3)).toBe("200");
  });

  item("eight thousand cookie crumbs", async () => {
    using peer = await siege.tunnel();
    peer.write(headers(1, connectTo(ECHO_PORT)).subarray(0, 0), frame(FrameType.headers, Flag.endHeaders, 1, Buffer.concat([encodeStateless(connectTo(ECHO_PORT)), ...Array.from({ length: 8_000 }, () => Buffer.from([0x60, 1, 0x61]))])));
    expect(await peer.status(1)).toBe("431");
    peer.write(headers(3, connectTo(HTTP_PORT)));
    expect(await peer.status(3)).toBe("200");
  });

  item("bytes beyond a stream's window", async () => {
    using _stalled = StalledServer.listen(siege.far, 8_700);
    using peer = await siege.tunnel();
    const id = peer.connect(`198.18.1.10:8700`);
    expect(await peer.status(id)).toBe("200");
    // 12 MiB at once: a window of 4, what the kernel keeps for an application that does not read, and too much.
    peer.write(...Array.from({ length: 12 * 64 }, () => data(id, new Uint8Array(16_384))));
    await until("the stream to be reset", 5_000, () => peer.resetCode(id) !== null);
    expect(peer.resetCode(id)).toBe(FLOW_CONTROL_ERROR);
    expect(peer.goawayCode).toBeNull();
  });

  item("window shut for ever: the application is held back, not the agent's memory", async () => {
    const before = siege.agent.residentBytes();
    using peer = await siege.tunnel();
    peer.write(settings([4, 0]));
    await peer.ping();
    const ids = Array.from({ length: 20 }, () => peer.connect(`198.18.1.10:${HTTP_PORT}`));
    for (const id of ids) {
      expect(await peer.status(id)).toBe("200");
      peer.write(data(id, "GET /bytes/20000000 HTTP/1.1\r\nhost: far\r\n\r\n"));
    }
    await until("bytes to wait", 5_000, async () => (await siege.metric("weft_buffered_bytes")) > 0);
    expect(await siege.lives()).toBe(true);
    expect(await siege.metric("weft_buffered_bytes")).toBeLessThan(20 * 600_000);
    expect(siege.agent.residentBytes() - before).toBeLessThan(GROWTH_BYTES_MAX);
    expect(ids.map((id) => peer.bodyOf(id))).toEqual(ids.map(() => ""));
  });

  item("window of one byte", async () => {
    using peer = await siege.tunnel();
    peer.write(settings([4, 1]));
    await peer.ping();
    const id = peer.connect(`198.18.1.10:${ECHO_PORT}`);
    expect(await peer.status(id)).toBe("200");
    peer.write(data(id, "tiny windows"));
    for (let i = 1; i <= 12; i++) {
      await until(`byte ${i}`, 5_000, () => peer.bodyOf(id).length === i);
      peer.write(windowUpdate(id, 1));
    }
    expect(peer.bodyOf(id)).toBe("tiny windows");
  });

  item("frames in pieces of one byte", async () => {
    using peer = await siege.tunnel();
    for (const byte of headers(1, connectTo(ECHO_PORT))) peer.write(Uint8Array.of(byte));
    expect(await peer.status(1)).toBe("200");
    for (const byte of data(1, "slowly")) {
      peer.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until("the echo", 5_000, () => peer.bodyOf(1) === "slowly");
  });

  item("answers that nobody reads", async () => {
    const before = siege.agent.residentBytes();
    using peer = await siege.tunnel();
    peer.tls.raw.pause();
    let ended = false;
    void peer.tls.closed.then(() => (ended = true));
    await siege.counted(FATAL, {}, 1, async () => {
      for (let i = 0; i < 400 && !ended; i++) {
        peer.write(...Array.from({ length: 500 }, () => frame(FrameType.ping, 0, 0, new Uint8Array(8))));
        await new Promise((resolve) => setImmediate(resolve));
        peer.tls.raw.pause();
      }
    });
    expect(siege.agent.residentBytes() - before).toBeLessThan(GROWTH_BYTES_MAX);
    expect(await siege.lives()).toBe(true);
  });

  item("nothing is left of the floods", async () => {
    const left = async () => ({
      tunnels: await siege.metric("weft_tunnels_open", { direction: "inbound" }), streams: await siege.metric("weft_tunnel_streams_open", { direction: "inbound" }),
      sockets: await siege.metric("istio_tcp_sockets_open", { reporter: "destination" }), buffered: await siege.metric("weft_buffered_bytes"),
    });
    const nothing = { tunnels: 0, streams: 0, sockets: 0, buffered: 0 };
    await until("all to be gone", 3_000, async () => Bun.deepEquals(await left(), nothing)).catch(() => {});
    expect(await left()).toEqual(nothing);
  });
});
