// What a hostile HTTP/2 client does until the other side has had enough of it: blow after blow of frames, on a tunnel or on a port that
// serves requests. What is answered, and what is counted, is for each test to say.

import { CONTINUATION_FRAMES_MAX } from "../../src/wire/http2/limits.ts";
import { Flag, FrameType } from "../../src/wire/http2/frames.ts";
import { encodeStateless } from "../../src/wire/http2/hpack-encoder.ts";
import { data, frame, headers, type Http2Peer, reset, settings, uint32, windowUpdate } from "./http2-peer.ts";

export interface Attack {
  /** Sent once, before the blows. */
  readonly first?: readonly Uint8Array[];
  /** One blow; repeated until the other side has had enough. */
  readonly blow: (i: number) => readonly Uint8Array[];
  /** After so many blows it must have had enough, with what is earned meanwhile. */
  readonly most: number;
}

/** @param request the header list of one that is well-formed, may be left open, and is not answered to its end before that. */
export function http2Attacks(request: readonly string[]) {
  const stream = (i: number): number => 2 * i + 1;
  const begun = [headers(1, request)];
  const once = (...frames: readonly Uint8Array[]): Attack => ({ most: 1, blow: () => frames });
  return {
    rapidReset: { most: 20_000, blow: (i) => [headers(stream(i), request), reset(stream(i))] },
    malformedRequests: { most: 2_000, blow: (i) => [headers(stream(i), [...request, ":path", "/"])] },
    streamWindowOverflow: { most: 2_000, blow: (i) => [headers(stream(i), request), windowUpdate(stream(i), 0x7fff_ffff)] },
    windowUpdateOfZero: { most: 2_000, blow: (i) => [headers(stream(i), request), windowUpdate(stream(i), 0)] },
    dataAfterEnd: { most: 2_000, blow: (i) => [headers(stream(i), request, true), data(stream(i), "x")] },
    headersAfterEnd: { most: 2_000, blow: (i) => [headers(stream(i), request, true), headers(stream(i), ["a", "b"], true)] },
    priorityOfWrongLength: { most: 2_000, blow: (i) => [headers(stream(i), request), frame(FrameType.priority, 0, stream(i), new Uint8Array(4))] },
    continuationFlood: { most: CONTINUATION_FRAMES_MAX + 2, first: [frame(FrameType.headers, 0, 1, Uint8Array.of(0x82))], blow: () => [frame(FrameType.continuation, 0, 1, Uint8Array.of(0x82))] },
    endlessHeaderBlock: { most: 40, first: [frame(FrameType.headers, 0, 1, new Uint8Array(16_000).fill(0x82))], blow: () => [frame(FrameType.continuation, 0, 1, new Uint8Array(16_000).fill(0x82))] },
    pingFlood: { most: 20_000, blow: () => [frame(FrameType.ping, 0, 0, new Uint8Array(8))] },
    settingsFlood: { most: 2_000, blow: () => [settings()] },
    windowUpdateFlood: { most: 20_000, blow: () => [windowUpdate(0, 1)] },
    priorityFlood: { most: 20_000, blow: (i) => [frame(FrameType.priority, 0, stream(i), new Uint8Array(5))] },
    emptyDataFlood: { most: 20_000, first: begun, blow: () => [data(1, "")] },
    emptyContinuationFlood: { most: 2_000, first: [frame(FrameType.headers, 0, 1)], blow: () => [frame(FrameType.continuation, 0, 1)] },
    goawayFlood: { most: 200, blow: () => [frame(FrameType.goaway, 0, 0, uint32(0, 0))] },
    unknownFrameFlood: { most: 20_000, blow: () => [frame(0xee, 0, 0, new Uint8Array(100))] },
    endlessStreams: { most: 20_000, blow: (i) => [headers(stream(i), request)] },
    frameAboveMaximum: once(Buffer.from([0x20, 0, 0, FrameType.data, 0, 0, 0, 0, 1])),
    frameOfWrongSize: once(frame(FrameType.ping, 0, 0, new Uint8Array(7))),
    paddingAsLongAsFrame: { most: 1, first: begun, blow: () => [frame(FrameType.data, Flag.padded, 1, Uint8Array.of(10, 0, 0))] },
    evenStream: once(headers(2, request)),
    dataOnIdleStream: once(data(5, "x")),
    interleavedBlock: once(frame(FrameType.headers, 0, 1, encodeStateless(request)), frame(FrameType.ping, 0, 0, new Uint8Array(8))),
    connectionWindowOverflow: once(windowUpdate(0, 0x7fff_ffff)),
    initialWindowTooLarge: once(settings([4, 0x8000_0000])),
    hpackEndlessInteger: once(frame(FrameType.headers, Flag.endHeaders, 1, new Uint8Array(64).fill(0xff))),
    hpackUnknownIndex: once(frame(FrameType.headers, Flag.endHeaders, 1, Uint8Array.of(0xfe))),
    hpackTableTooLarge: once(frame(FrameType.headers, Flag.endHeaders, 1, Uint8Array.of(0x3f, 0xe1, 0xff, 0xff, 0x07))),
    hpackWrongPadding: once(frame(FrameType.headers, Flag.endHeaders, 1, Uint8Array.of(0x40, 0x81, 0x00, 0x81, 0x00))),
  } as const satisfies Readonly<Record<string, Attack>>;
}

export type AttackKind = keyof ReturnType<typeof http2Attacks>;

const [PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR, ENHANCE_YOUR_CALM] = [1, 3, 6, 9, 11];

/** What a port that serves requests ends each with. The code of the counter is empty where either of two limits may be met first. */
export const ATTACK_ENDS: Readonly<Record<AttackKind, readonly [goaway: number, code: string]>> = {
  rapidReset: [ENHANCE_YOUR_CALM, "resetFloods"],
  malformedRequests: [ENHANCE_YOUR_CALM, "inducedResetFloods"],
  streamWindowOverflow: [ENHANCE_YOUR_CALM, "inducedResetFloods"],
  windowUpdateOfZero: [ENHANCE_YOUR_CALM, "inducedResetFloods"],
  dataAfterEnd: [ENHANCE_YOUR_CALM, "inducedResetFloods"],
  headersAfterEnd: [ENHANCE_YOUR_CALM, "inducedResetFloods"],
  priorityOfWrongLength: [ENHANCE_YOUR_CALM, "inducedResetFloods"],
  continuationFlood: [ENHANCE_YOUR_CALM, "continuationFloods"],
  endlessHeaderBlock: [ENHANCE_YOUR_CALM, "headerBlockTooLarge"],
  pingFlood: [ENHANCE_YOUR_CALM, ""],
  settingsFlood: [ENHANCE_YOUR_CALM, "settingsFloods"],
  windowUpdateFlood: [ENHANCE_YOUR_CALM, "windowUpdateFloods"],
  priorityFlood: [ENHANCE_YOUR_CALM, "priorityFloods"],
  emptyDataFlood: [ENHANCE_YOUR_CALM, "emptyFrameFloods"],
  emptyContinuationFlood: [ENHANCE_YOUR_CALM, "continuationFloods"],
  goawayFlood: [ENHANCE_YOUR_CALM, "goawayFloods"],
  unknownFrameFlood: [ENHANCE_YOUR_CALM, "unknownFrameFloods"],
  endlessStreams: [ENHANCE_YOUR_CALM, ""],
  frameAboveMaximum: [FRAME_SIZE_ERROR, "frameSizeErrors"],
  frameOfWrongSize: [FRAME_SIZE_ERROR, "frameSizeErrors"],
  paddingAsLongAsFrame: [PROTOCOL_ERROR, "protocolErrors"],
  evenStream: [PROTOCOL_ERROR, "protocolErrors"],
  dataOnIdleStream: [PROTOCOL_ERROR, "protocolErrors"],
  interleavedBlock: [PROTOCOL_ERROR, "protocolErrors"],
  connectionWindowOverflow: [FLOW_CONTROL_ERROR, "flowControlErrors"],
  initialWindowTooLarge: [FLOW_CONTROL_ERROR, "flowControlErrors"],
  hpackEndlessInteger: [COMPRESSION_ERROR, "compressionErrors"],
  hpackUnknownIndex: [COMPRESSION_ERROR, "compressionErrors"],
  hpackTableTooLarge: [COMPRESSION_ERROR, "compressionErrors"],
  hpackWrongPadding: [COMPRESSION_ERROR, "compressionErrors"],
};

/** Strikes until the connection is given up, or as often as is agreed to be enough. */
export async function strike(peer: Http2Peer, { first, blow, most }: Attack): Promise<void> {
  if (first !== undefined) peer.write(...first);
  for (let i = 0; i < most && peer.goawayCode === null; ) {
    const batch = Array.from({ length: Math.min(200, most - i) }, () => blow(i++)).flat();
    peer.write(...batch);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
