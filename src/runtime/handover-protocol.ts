// How a running process gives its listening sockets to its successor. Without IO.
//
//   successor                      predecessor
//   hello {version, role}     -->
//                             <--  offer {count} then batches of {labels} with descriptors, or refuse {why}
//   ready                     -->  (has adopted all, and serves)
//                             <--  released (has stopped accepting, drains, and the name is free)
//                                  ... the connection stays open until the predecessor has ended
//
// Frames: u32 length (big-endian), then JSON. Anything unexpected ends the exchange, and the predecessor goes on as if nothing had
// been asked. Until `ready` it has given nothing up: what it sent were copies. A version that differs is refused: what a socket is for
// and who holds the redirection rules must be understood in the same way by both.

import { err, ok, type Result } from "../core/result.ts";

export const HANDOVER_VERSION = 1;
/** A batch of 200 names of 255 characters, each of up to 6 bytes in JSON, with room. */
export const FRAME_BYTES_MAX = 512 * 1024;
/** Below the kernel's limit of descriptors in one message. */
export const BATCH_MAX = 200;
/** Sockets of one node: 7 for each of 5 000 workloads, and those of a few more data threads. */
export const LISTENERS_MAX = 60_000;
const NAME_CHARS_MAX = 255;

/** Names one socket, so that the successor knows what it has. Several may carry one name. See inherited-sockets.ts. */
export interface SocketLabel {
  readonly name: string;
}

export type HandoverMessage =
  | { readonly kind: "hello"; readonly version: number; readonly role: string; readonly pid: number }
  | { readonly kind: "offer"; readonly count: number; readonly pid: number }
  | { readonly kind: "refuse"; readonly why: string }
  | { readonly kind: "batch"; readonly labels: readonly SocketLabel[] }
  | { readonly kind: "ready" }
  | { readonly kind: "released" };

const LENGTH_BYTES = 4;

export function encodeFrame(message: HandoverMessage): Uint8Array {
  const body = new TextEncoder().encode(JSON.stringify(message));
  if (body.length > FRAME_BYTES_MAX) throw new Error(`handover: a frame of ${body.length} bytes`);
  const frame = new Uint8Array(LENGTH_BYTES + body.length);
  new DataView(frame.buffer).setUint32(0, body.length);
  frame.set(body, LENGTH_BYTES);
  return frame;
}

/** Collects frames from pieces of any size. */
export class FrameReader {
  #bytes = new Uint8Array(0);

  /** @param chunk copied. @returns the messages that are complete now, or what is wrong: the exchange is over then. */
  push(chunk: Uint8Array): Result<HandoverMessage[], string> {
    const bytes = new Uint8Array(this.#bytes.length + chunk.length);
    bytes.set(this.#bytes);
    bytes.set(chunk, this.#bytes.length);
    const messages: HandoverMessage[] = [];
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const length = new DataView(bytes.buffer).getUint32(at);
      if (length === 0 || length > FRAME_BYTES_MAX) return err(`a frame of ${length} bytes`);
      if (bytes.length - at - LENGTH_BYTES < length) break;
      const message = parseMessage(bytes.subarray(at + LENGTH_BYTES, at + LENGTH_BYTES + length));
      if (!message.ok) return message;
      messages.push(message.value);
      at += LENGTH_BYTES + length;
    }
    this.#bytes = bytes.slice(at);
    return ok(messages);
  }
}

/** Strict: exactly the fields of its kind, each of its type and within its bounds. */
function parseMessage(bytes: Uint8Array): Result<HandoverMessage, string> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return err("a frame that is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return err("a frame that is not an object");
  const message = value as Record<string, unknown>;
  switch (message["kind"]) {
    case "hello":
      return checked(message, ["version", "role", "pid"], isCount(message["version"], 1_000_000) && isText(message["role"], 64) && isCount(message["pid"], 2 ** 31));
    case "offer":
      return checked(message, ["count", "pid"], isCount(message["count"], LISTENERS_MAX) && isCount(message["pid"], 2 ** 31));
    case "refuse":
      return checked(message, ["why"], isText(message["why"], 1024));
    case "batch":
      return checked(message, ["labels"], isLabels(message["labels"]));
    case "ready":
    case "released":
      return checked(message, [], true);
    default:
      return err(`a frame of an unknown kind`);
  }
}

function checked(message: Record<string, unknown>, fields: readonly string[], good: boolean): Result<HandoverMessage, string> {
  if (!good || Object.keys(message).length !== fields.length + 1 || !fields.every((field) => Object.hasOwn(message, field))) return err(`a malformed ${String(message["kind"])}`);
  return ok(message as unknown as HandoverMessage);
}

function isLabels(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 && value.length <= BATCH_MAX && value.every((label: unknown) => {
    if (typeof label !== "object" || label === null || Object.keys(label).length !== 1) return false;
    return isText((label as Record<string, unknown>)["name"], NAME_CHARS_MAX);
  });
}

const isText = (value: unknown, charsMax: number): boolean => typeof value === "string" && value.length <= charsMax;
const isCount = (value: unknown, max: number): boolean => typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max;

// The successor's side, step by step.

export type SuccessorState =
  | { readonly kind: "asked" }
  | { readonly kind: "receiving"; readonly expected: number; readonly received: number; readonly pid: number }
  | { readonly kind: "complete"; readonly pid: number }
  | { readonly kind: "released" }
  | { readonly kind: "failed"; readonly why: string };

/** @param fdCount descriptors that came with this message. */
export function stepSuccessor(state: SuccessorState, message: HandoverMessage, fdCount: number): SuccessorState {
  if (message.kind === "refuse") return { kind: "failed", why: `the running process refused: ${message.why}` };
  if (message.kind !== "batch" && fdCount > 0) return { kind: "failed", why: `descriptors came with ${message.kind}` };
  if (state.kind === "asked" && message.kind === "offer") {
    return message.count === 0 ? { kind: "complete", pid: message.pid } : { kind: "receiving", expected: message.count, received: 0, pid: message.pid };
  }
  if (state.kind === "receiving" && message.kind === "batch") {
    if (fdCount !== message.labels.length) return { kind: "failed", why: `${message.labels.length} labels came with ${fdCount} descriptors` };
    const received = state.received + fdCount;
    if (received > state.expected) return { kind: "failed", why: `${received} listeners came, ${state.expected} were offered` };
    return received === state.expected ? { kind: "complete", pid: state.pid } : { ...state, received };
  }
  if (state.kind === "complete" && message.kind === "released") return { kind: "released" };
  return { kind: "failed", why: `${message.kind} came while ${state.kind}` };
}

// The predecessor's side.

export type PredecessorState =
  | { readonly kind: "waiting" }
  | { readonly kind: "offered" }
  | { readonly kind: "handedOver" }
  | { readonly kind: "failed"; readonly why: string };

export function stepPredecessor(state: PredecessorState, message: HandoverMessage, fdCount: number, role: string): PredecessorState {
  if (fdCount > 0) return { kind: "failed", why: `descriptors came with ${message.kind}` };
  if (state.kind === "waiting" && message.kind === "hello") {
    if (message.version !== HANDOVER_VERSION) return { kind: "failed", why: `it speaks version ${message.version} of the handover, this process ${HANDOVER_VERSION}` };
    if (message.role !== role) return { kind: "failed", why: `it is a ${JSON.stringify(message.role.slice(0, 32))}, this process a ${role}; each role on a machine needs a --state of its own` };
    return { kind: "offered" };
  }
  if (state.kind === "offered" && message.kind === "ready") return { kind: "handedOver" };
  return { kind: "failed", why: `${message.kind} came while ${state.kind}` };
}
