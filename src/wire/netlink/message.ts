// Netlink's own layer: message headers, attributes, acknowledgements. Knows no family of messages and no socket.
// Source: include/uapi/linux/netlink.h. Headers are in the host's byte order, which is little-endian wherever we run;
// attribute values are in whatever order their family says, so the writer offers both.
//
// Replies come from the kernel, yet every length is checked: a parser that trusts one reads another object's bytes.

import type { Fault } from "../../core/fault.ts";
import { RETRY_NEVER } from "../../core/fault.ts";
import { err, ok, type Result } from "../../core/result.ts";

export const NLM_F_REQUEST = 0x001;
export const NLM_F_ACK = 0x004;
export const NLM_F_DUMP_INTR = 0x010;
/** A dump: NLM_F_ROOT | NLM_F_MATCH. */
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
/** On an error message: the request is not echoed behind its header, and attributes follow. */
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;

export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;

export const MESSAGE_HEADER_BYTES = 16;
const ATTRIBUTE_HEADER_BYTES = 4;
const NLA_F_NESTED = 0x8000;
/** The two top bits of an attribute's type are flags (nested, network byte order). */
const NLA_TYPE_MASK = 0x3fff;
/** nla_len is 16 bits wide. */
const ATTRIBUTE_BYTES_MAX = 0xffff;
/** Text that the kernel adds to an error; longer is cut. */
const ERROR_TEXT_CHARS_MAX = 256;

export type MalformedNetlink = Fault<"netlink_malformed">;

export function malformedNetlink(what: string): { readonly ok: false; readonly error: MalformedNetlink } {
  return err({ code: "netlink_malformed", message: `malformed netlink reply: ${what}`, blame: "us", dies: "nothing", retry: RETRY_NEVER });
}

const align4 = (length: number): number => (length + 3) & ~3;

/** What a request carries in its header, given by whoever sends it. */
export interface Stamp {
  readonly flags: number;
  readonly sequence: number;
}

/** One message; `payload` is a view into the datagram it came in. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly portId: number;
  readonly payload: Uint8Array;
}

/**
 * Builds one or more messages behind one another in a single growing buffer.
 * `begin` and `end` bracket a message, `nest` an attribute that holds attributes. Sequences are given by the caller.
 */
export class NetlinkWriter {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  #messageAt = -1;

  begin(type: number, flags: number, sequence: number): this {
    if (this.#messageAt >= 0) throw new Error("the message before this one was not ended");
    this.#messageAt = this.#length;
    this.#reserve(MESSAGE_HEADER_BYTES);
    this.#view.setUint16(this.#messageAt + 4, type, true);
    this.#view.setUint16(this.#messageAt + 6, flags, true);
    this.#view.setUint32(this.#messageAt + 8, sequence, true);
    return this;
  }

  end(): this {
    if (this.#messageAt < 0) throw new Error("no message to end");
    this.#view.setUint32(this.#messageAt, this.#length - this.#messageAt, true);
    this.#messageAt = -1;
    return this;
  }

  /** The family's own header, padded to four bytes. */
  header(bytes: Uint8Array): this {
    const at = this.#reserve(align4(bytes.length));
    this.#bytes.set(bytes, at);
    return this;
  }

  bytes(type: number, value: Uint8Array): this {
    if (value.length > ATTRIBUTE_BYTES_MAX - ATTRIBUTE_HEADER_BYTES) throw new Error(`attribute ${type} has ${value.length} bytes, the format ends at ${ATTRIBUTE_BYTES_MAX}`);
    const at = this.#attribute(type, value.length);
    this.#bytes.set(value, at);
    return this;
  }

  u8(type: number, value: number): this {
    const at = this.#attribute(type, 1); // may grow the buffer
    this.#view.setUint8(at, value);
    return this;
  }

  u32(type: number, value: number): this {
    const at = this.#attribute(type, 4);
    this.#view.setUint32(at, value, true);
    return this;
  }

  be16(type: number, value: number): this {
    const at = this.#attribute(type, 2);
    this.#view.setUint16(at, value, false);
    return this;
  }

  be32(type: number, value: number): this {
    const at = this.#attribute(type, 4);
    this.#view.setUint32(at, value >>> 0, false);
    return this;
  }

  be64(type: number, value: bigint): this {
    const at = this.#attribute(type, 8);
    this.#view.setBigUint64(at, value, false);
    return this;
  }

  /** NUL-terminated, as the kernel reads names. */
  text(type: number, value: string): this {
    if (value.includes("\0")) throw new Error(`attribute ${type} may not contain NUL`);
    return this.bytes(type, new TextEncoder().encode(`${value}\0`));
  }

  nest(type: number, body: () => void): this {
    const at = this.#reserve(ATTRIBUTE_HEADER_BYTES);
    body();
    const length = this.#length - at;
    if (length > ATTRIBUTE_BYTES_MAX) throw new Error(`nested attribute ${type} has ${length} bytes, the format ends at ${ATTRIBUTE_BYTES_MAX}`);
    this.#view.setUint16(at, length, true);
    this.#view.setUint16(at + 2, type | NLA_F_NESTED, true);
    return this;
  }

  /** Everything written so far; a view, valid until the next write. */
  finish(): Uint8Array {
    if (this.#messageAt >= 0) throw new Error("the last message was not ended");
    return this.#bytes.subarray(0, this.#length);
  }

  #attribute(type: number, valueBytes: number): number {
    const at = this.#reserve(align4(ATTRIBUTE_HEADER_BYTES + valueBytes));
    this.#view.setUint16(at, ATTRIBUTE_HEADER_BYTES + valueBytes, true);
    this.#view.setUint16(at + 2, type, true);
    return at + ATTRIBUTE_HEADER_BYTES;
  }

  /** Offset of `count` fresh zero bytes. */
  #reserve(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }
}

/** Splits a datagram into its messages. Any length that does not fit makes the whole datagram malformed. */
export function readMessages(datagram: Uint8Array): Result<NetlinkMessage[], MalformedNetlink> {
  const view = viewOf(datagram);
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (at < datagram.length) {
    const left = datagram.length - at;
    if (left < MESSAGE_HEADER_BYTES) return malformedNetlink(`${left} bytes left, a header has ${MESSAGE_HEADER_BYTES}`);
    const length = view.getUint32(at, true);
    if (length < MESSAGE_HEADER_BYTES || length > left) return malformedNetlink(`message of ${length} bytes with ${left} left`);
    messages.push({
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      sequence: view.getUint32(at + 8, true),
      portId: view.getUint32(at + 12, true),
      payload: datagram.subarray(at + MESSAGE_HEADER_BYTES, at + length),
    });
    at += align4(length);
  }
  return ok(messages);
}

export interface Attribute {
  readonly type: number;
  /** A view; without its header and padding. */
  readonly value: Uint8Array;
}

/** The attributes of one level, in order, repeats included. */
export function readAttributeList(bytes: Uint8Array): Result<Attribute[], MalformedNetlink> {
  const view = viewOf(bytes);
  const found: Attribute[] = [];
  let at = 0;
  while (at < bytes.length) {
    const left = bytes.length - at;
    if (left < ATTRIBUTE_HEADER_BYTES) return malformedNetlink(`${left} bytes after the last attribute`);
    const length = view.getUint16(at, true);
    if (length < ATTRIBUTE_HEADER_BYTES || length > left) return malformedNetlink(`attribute of ${length} bytes with ${left} left`);
    found.push({ type: view.getUint16(at + 2, true) & NLA_TYPE_MASK, value: bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length) });
    at += align4(length);
  }
  return ok(found);
}

/** Attributes by type, for levels where none may come twice. */
export class Attributes {
  readonly #values: ReadonlyMap<number, Uint8Array>;

  private constructor(values: ReadonlyMap<number, Uint8Array>) {
    this.#values = values;
  }

  static read(bytes: Uint8Array): Result<Attributes, MalformedNetlink> {
    const list = readAttributeList(bytes);
    if (!list.ok) return list;
    const values = new Map<number, Uint8Array>();
    for (const { type, value } of list.value) {
      if (values.has(type)) return malformedNetlink(`attribute ${type} comes twice`);
      values.set(type, value);
    }
    return ok(new Attributes(values));
  }

  has(type: number): boolean {
    return this.#values.has(type);
  }

  bytes(type: number): Uint8Array | null {
    return this.#values.get(type) ?? null;
  }

  /** Null when absent or of another size; callers take both as "not what we asked about". */
  u8(type: number): number | null {
    const value = this.#values.get(type);
    return value?.length === 1 ? value[0]! : null;
  }

  u32(type: number): number | null {
    const value = this.#values.get(type);
    return value?.length === 4 ? viewOf(value).getUint32(0, true) : null;
  }

  be32(type: number): number | null {
    const value = this.#values.get(type);
    return value?.length === 4 ? viewOf(value).getUint32(0, false) : null;
  }

  be64(type: number): bigint | null {
    const value = this.#values.get(type);
    return value?.length === 8 ? viewOf(value).getBigUint64(0, false) : null;
  }

  /** NUL-terminated text, without the NUL; null when absent, unterminated, or not UTF-8. */
  text(type: number): string | null {
    const value = this.#values.get(type);
    return value === undefined ? null : readText(value);
  }

  /** A nested level; null when absent or malformed. */
  nested(type: number): Attributes | null {
    const value = this.#values.get(type);
    if (value === undefined) return null;
    const read = Attributes.read(value);
    return read.ok ? read.value : null;
  }
}

/** NUL-terminated UTF-8 that fills `bytes`; null for anything else. */
export function readText(bytes: Uint8Array): string | null {
  const end = bytes.indexOf(0);
  if (end < 0 || end !== bytes.length - 1) return null;
  try {
    return strictText.decode(bytes.subarray(0, end));
  } catch {
    return null;
  }
}

const strictText = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenientText = new TextDecoder();

/** What an NLMSG_ERROR says. `errno` is positive; 0 is an acknowledgement. */
export interface NetlinkAnswer {
  readonly errno: number;
  /** Sequence of the request that is answered. */
  readonly sequence: number;
  /** The kernel's own words, empty when it gave none. */
  readonly text: string;
  /** Byte in the request that it objects to; null when it named none. */
  readonly offset: number | null;
}

const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;

/** Reads the payload of an NLMSG_ERROR. */
export function readAnswer(message: NetlinkMessage): Result<NetlinkAnswer, MalformedNetlink> {
  const { payload, flags } = message;
  if (payload.length < 4 + MESSAGE_HEADER_BYTES) return malformedNetlink(`error message of ${payload.length} bytes`);
  const view = viewOf(payload);
  const code = view.getInt32(0, true);
  if (code > 0 || code < -4095) return malformedNetlink(`error code ${code}`);
  const sequence = view.getUint32(4 + 8, true);
  const answer = { errno: code === 0 ? 0 : -code, sequence, text: "", offset: null };
  if ((flags & NLM_F_ACK_TLVS) === 0) return ok(answer);
  const echoed = (flags & NLM_F_CAPPED) !== 0 || code === 0 ? MESSAGE_HEADER_BYTES : view.getUint32(4, true);
  const attributesAt = 4 + align4(echoed);
  if (echoed < MESSAGE_HEADER_BYTES || attributesAt > payload.length) return malformedNetlink(`error message echoes ${echoed} bytes of ${payload.length}`);
  const attributes = Attributes.read(payload.subarray(attributesAt));
  if (!attributes.ok) return attributes;
  const text = attributes.value.bytes(NLMSGERR_ATTR_MSG);
  return ok({ ...answer, text: text === null ? "" : readErrorText(text), offset: attributes.value.u32(NLMSGERR_ATTR_OFFS) });
}

/** For people only: control characters and bad UTF-8 are replaced, the rest is cut. */
function readErrorText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const text = lenientText.decode(end < 0 ? bytes : bytes.subarray(0, end));
  return text.slice(0, ERROR_TEXT_CHARS_MAX).replace(/[\u0000-\u001f\u007f]/g, " ");
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
