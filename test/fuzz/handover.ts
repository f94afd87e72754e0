// What a process tells its successor: frames cut anywhere, mutated, and out of turn.
//   - nothing throws; a message that was sent is read as it was, however it was cut
//   - a refusal is final, and no state of either side is left for a better one after it failed
//   - no more listeners are counted than were offered

import type { Random } from "../../src/core/ports.ts";
import {
  encodeFrame, FRAME_BYTES_MAX, FrameReader, HANDOVER_VERSION, type HandoverMessage, LISTENERS_MAX, type PredecessorState, stepPredecessor, stepSuccessor, type SuccessorState,
} from "../../src/runtime/handover-protocol.ts";
import { below, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { takeTurns } from "./iterate.ts";

export const name = "handover";

export const run = (fuzzRun: FuzzRun) => takeTurns(fuzzRun, [sentIsReadBack, anythingIsSurvived, anyOrderIsSurvived]);

const text = (random: Random, charsMax: number): string => Array.from({ length: below(random, charsMax) }, () => pick(random, ["a", "/", '"', "\\", "é", "\u2028", "0", "\n", "💡"])).join("");

function message(random: Random): HandoverMessage {
  switch (below(random, 6)) {
    case 0: return { kind: "hello", version: pick(random, [HANDOVER_VERSION, HANDOVER_VERSION, 0, 99]), role: pick(random, ["up", "up", "ztunnel", text(random, 20)]), pid: below(random, 2 ** 31) };
    case 1: return { kind: "offer", count: pick(random, [0, 1, 2, 5, LISTENERS_MAX]), pid: below(random, 2 ** 31) };
    case 2: return { kind: "refuse", why: text(random, 100) };
    case 3: return { kind: "batch", labels: Array.from({ length: 1 + below(random, 4) }, () => ({ name: text(random, 100) })) };
    case 4: return { kind: "ready" };
    default: return { kind: "released" };
  }
}

/** Reads a stream in pieces; null once it was refused. */
function readInPieces(random: Random, stream: Uint8Array): HandoverMessage[] | null {
  const reader = new FrameReader();
  const seen: HandoverMessage[] = [];
  for (let at = 0; at < stream.length; ) {
    const size = Math.min(stream.length - at, 1 + below(random, random.next() < 0.5 ? 3 : 200));
    const read = reader.push(stream.subarray(at, at + size));
    if (!read.ok) {
      if (read.error === "" || read.error.length > 300) throw new Error(`refused with ${JSON.stringify(read.error)}`);
      return null;
    }
    seen.push(...read.value);
    at += size;
  }
  return seen;
}

function sentIsReadBack(random: Random): void {
  const sent = Array.from({ length: 1 + below(random, 5) }, () => message(random));
  const seen = readInPieces(random, Buffer.concat(sent.map((each) => encodeFrame(each))));
  if (!Bun.deepEquals(seen, sent)) throw new Error(`read back as ${Bun.inspect(seen)}, sent ${Bun.inspect(sent)}`);
}

function anythingIsSurvived(random: Random): void {
  const stream = new Uint8Array(Buffer.concat([encodeFrame(message(random)), encodeFrame(message(random))]));
  for (let i = 1 + below(random, 4); i > 0; i--) stream[below(random, stream.length)] = pick(random, [0, 0x22, 0x2c, 0x5b, 0x7b, 0x80, 0xff, below(random, 256)]);
  for (const each of readInPieces(random, stream) ?? []) {
    if (encodeFrame(each).length > FRAME_BYTES_MAX + 4) throw new Error("a message larger than a frame");
    if (each.kind === "offer" && each.count > LISTENERS_MAX) throw new Error(`${each.count} listeners offered`);
  }
}

function anyOrderIsSurvived(random: Random): void {
  let successor: SuccessorState = { kind: "asked" };
  let predecessor: PredecessorState = { kind: "waiting" };
  for (let i = 0; i < 12; i++) {
    const next = message(random);
    const fdCount = next.kind === "batch" && random.next() < 0.8 ? next.labels.length : below(random, 3) === 0 ? below(random, 5) : 0;
    const before = successor;
    successor = stepSuccessor(before, next, fdCount);
    if (before.kind === "failed" && successor.kind !== "failed") throw new Error(`the successor went from failed to ${successor.kind}`);
    if (successor.kind === "receiving" && successor.received >= successor.expected) throw new Error("still receiving with all received");
    if (before.kind === "asked" && successor.kind === "complete" && (next.kind !== "offer" || next.count !== 0)) throw new Error("complete with nothing received");
    const waited = predecessor;
    predecessor = stepPredecessor(waited, next, fdCount, "up");
    if (waited.kind === "failed" && predecessor.kind !== "failed") throw new Error(`the predecessor went from failed to ${predecessor.kind}`);
    if (predecessor.kind === "handedOver" && (waited.kind !== "offered" || next.kind !== "ready" || fdCount > 0)) throw new Error(`handed over from ${waited.kind} by ${next.kind}`);
    if (predecessor.kind === "offered" && waited.kind !== "waiting") throw new Error(`offered from ${waited.kind}`);
  }
}
