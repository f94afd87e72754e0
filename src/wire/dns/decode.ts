// Reads a DNS message strictly: every count is honoured, every length fits, nothing is left over. Never throws, never loops;
// the work is bounded by the message's 65,535 bytes.

import { err, ok, type Result } from "../../core/result.ts";
import { type DnsMessage, type Edns, HEADER_BYTES, MESSAGE_BYTES_MAX, type Question, type ResourceRecord } from "./message.ts";
import { encodeName, readName, skipName } from "./name.ts";
import { type RdataPart, RecordClass, rdataParts, RecordType } from "./types.ts";

/**
 * @param bytes one message, without the length prefix of TCP; borrowed, not kept.
 * @returns the message, or what is wrong with it (the sender's fault).
 */
export function decodeMessage(bytes: Uint8Array): Result<DnsMessage, string> {
  const reader = new MessageReader(bytes);
  const message = reader.message();
  return message === null ? err(reader.fault) : ok(message);
}

/** Header fields that can be trusted to be there in any 12 bytes; null for less. */
export function readHeaderOnly(bytes: Uint8Array): { readonly id: number; readonly response: boolean; readonly opcode: number } | null {
  if (bytes.length < HEADER_BYTES) return null;
  return { id: (bytes[0]! << 8) | bytes[1]!, response: (bytes[2]! & 0x80) !== 0, opcode: (bytes[2]! >> 3) & 0xf };
}

export type ReplyCheck =
  | { readonly kind: "good"; readonly truncated: boolean; readonly rcode: number }
  /** Not an answer to this query: a forgery, a late one, or garbage. Goes on waiting. */
  | { readonly kind: "ignore"; readonly reason: "short" | "id" | "question" | "malformed" };

/**
 * Judges what came back for `query`, without reading names or data that we only pass on: same id, a response, the same opcode
 * and the same question (RFC 5452, section 9.1), and records that fill the message as their lengths say.
 * A server that cannot read our question may leave it out (FORMERR, NOTIMP).
 */
export function checkReply(query: Uint8Array, reply: Uint8Array): ReplyCheck {
  if (reply.length < HEADER_BYTES) return { kind: "ignore", reason: "short" };
  if (reply[0] !== query[0] || reply[1] !== query[1]) return { kind: "ignore", reason: "id" };
  if ((reply[2]! & 0xf8) !== (0x80 | (query[2]! & 0x78))) return { kind: "ignore", reason: "malformed" };
  const rcode = reply[3]! & 0xf;
  const truncated = (reply[2]! & 0x02) !== 0;
  const questions = u16(reply, 4);
  if (questions === 0 && reply.length === HEADER_BYTES && (rcode === 1 || rcode === 4)) return { kind: "good", truncated: false, rcode };
  const questionEnd = endOfQuestion(query);
  if (questions !== 1 || questionEnd < 0 || !sameQuestion(query, reply, questionEnd)) return { kind: "ignore", reason: "question" };
  // A truncated message may end anywhere; all it is good for is its TC bit.
  if (!truncated && !recordsFill(reply, questionEnd)) return { kind: "ignore", reason: "malformed" };
  return { kind: "good", truncated, rcode };
}

/** Offset after the single question of a query that was decoded before; -1 when there is none. */
export function endOfQuestion(bytes: Uint8Array): number {
  const end = skipName(bytes, HEADER_BYTES);
  return end < 0 || end + 4 > bytes.length ? -1 : end + 4;
}

function sameQuestion(query: Uint8Array, reply: Uint8Array, end: number): boolean {
  if (reply.length < end) return false;
  for (let i = HEADER_BYTES; i < end; i++) if (query[i] !== reply[i] && lower(query[i]!) !== lower(reply[i]!)) return false;
  return true;
}

const lower = (byte: number): number => (byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte);

function recordsFill(bytes: Uint8Array, start: number): boolean {
  let at = start;
  for (let left = u16(bytes, 6) + u16(bytes, 8) + u16(bytes, 10); left > 0; left--) {
    const fixed = skipName(bytes, at);
    if (fixed < 0 || fixed + 10 > bytes.length) return false;
    at = fixed + 10 + u16(bytes, fixed + 8);
    if (at > bytes.length) return false;
  }
  return true;
}

const u16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;

class MessageReader {
  fault = "";
  readonly #bytes: Uint8Array;
  #at = HEADER_BYTES;
  #edns: Edns | null = null;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  message(): DnsMessage | null {
    const bytes = this.#bytes;
    if (bytes.length < HEADER_BYTES) return this.#fail("shorter than a header");
    if (bytes.length > MESSAGE_BYTES_MAX) return this.#fail("longer than a message can be");
    const questions = this.#questions(u16(bytes, 4));
    const answers = questions && this.#records(u16(bytes, 6), "answer");
    const authorities = answers && this.#records(u16(bytes, 8), "authority");
    const additionals = authorities && this.#records(u16(bytes, 10), "additional");
    if (!questions || !answers || !authorities || !additionals) return null;
    if (this.#at !== bytes.length) return this.#fail("bytes after the last record");
    const [high, low] = [bytes[2]!, bytes[3]!];
    return {
      id: u16(bytes, 0),
      response: (high & 0x80) !== 0,
      opcode: (high >> 3) & 0xf,
      authoritative: (high & 0x04) !== 0,
      truncated: (high & 0x02) !== 0,
      recursionDesired: (high & 0x01) !== 0,
      recursionAvailable: (low & 0x80) !== 0,
      authenticData: (low & 0x20) !== 0,
      checkingDisabled: (low & 0x10) !== 0,
      rcode: low & 0xf,
      questions, answers, authorities, additionals,
      edns: this.#edns,
    };
  }

  #fail(reason: string): null {
    if (this.fault === "") this.fault = reason;
    return null;
  }

  /** The lists grow with what is really there, never with what the counts promise. */
  #questions(count: number): Question[] | null {
    const questions: Question[] = [];
    for (let i = 0; i < count; i++) {
      const name = this.#name();
      if (name === null) return null;
      if (this.#at + 4 > this.#bytes.length) return this.#fail("truncated question");
      questions.push({ name, type: u16(this.#bytes, this.#at), class: u16(this.#bytes, this.#at + 2) });
      this.#at += 4;
    }
    return questions;
  }

  #records(count: number, section: "answer" | "authority" | "additional"): ResourceRecord[] | null {
    const records: ResourceRecord[] = [];
    for (let i = 0; i < count; i++) {
      const name = this.#name();
      if (name === null) return null;
      const at = this.#at;
      if (at + 10 > this.#bytes.length) return this.#fail("truncated record");
      const type = u16(this.#bytes, at);
      const recordClass = u16(this.#bytes, at + 2);
      const start = at + 10;
      const end = start + u16(this.#bytes, at + 8);
      if (end > this.#bytes.length) return this.#fail("data of a record runs past the message");
      this.#at = end;
      if (type === RecordType.OPT) {
        if (!this.#opt(section, name, at, start, end)) return null;
        continue;
      }
      const rdata = this.#rdata(type, recordClass, start, end);
      if (rdata === null) return null;
      const ttl = u16(this.#bytes, at + 4) * 0x1_0000 + u16(this.#bytes, at + 6);
      records.push({ name, type, class: recordClass, ttl: ttl > 0x7fff_ffff ? 0 : ttl, rdata });
    }
    return records;
  }

  #name(): string | null {
    const read = readName(this.#bytes, this.#at);
    if (read === null) return this.#fail("malformed name");
    this.#at = read.next;
    return read.text;
  }

  #opt(section: string, name: string, at: number, start: number, end: number): boolean {
    const bytes = this.#bytes;
    if (section !== "additional" || name !== "" || this.#edns !== null) return this.#fail("OPT out of place") !== null;
    for (let option = start; option < end; ) {
      if (option + 4 > end) return this.#fail("truncated EDNS option") !== null;
      option += 4 + u16(bytes, option + 2);
      if (option > end) return this.#fail("EDNS option runs past its record") !== null;
    }
    this.#edns = {
      udpBytes: u16(bytes, at + 2), extendedRcode: bytes[at + 4]!, version: bytes[at + 5]!, dnssecOk: (bytes[at + 6]! & 0x80) !== 0,
      options: copyOf(bytes, start, end),
    };
    return true;
  }

  /** A copy, with the names in it uncompressed. Empty data is taken as it is: updates and prerequisites have it. */
  #rdata(type: number, recordClass: number, start: number, end: number): Uint8Array | null {
    const bytes = this.#bytes;
    if (recordClass === RecordClass.IN && end > start) {
      if (type === RecordType.A && end - start !== 4) return this.#fail("an A record that is not 4 bytes");
      if (type === RecordType.AAAA && end - start !== 16) return this.#fail("an AAAA record that is not 16 bytes");
    }
    const parts = rdataParts.get(type);
    return parts === undefined || end === start ? copyOf(bytes, start, end) : this.#expanded(parts, start, end);
  }

  #expanded(parts: readonly RdataPart[], start: number, end: number): Uint8Array | null {
    const bytes = this.#bytes;
    const pieces: Uint8Array[] = [];
    let at = start;
    for (const part of parts) {
      let next: number;
      if (part === "name") {
        const read = readName(bytes, at);
        const encoded = read === null ? null : encodeName(read.text);
        if (read === null || encoded === null || read.next > end) return this.#fail("malformed name in a record");
        pieces.push(encoded);
        at = read.next;
        continue;
      }
      if (part === "rest") next = end;
      else if (part === "text") next = at + 1 + (bytes[at] ?? 0);
      else next = at + part;
      if (next > end || (part === "text" && at >= end)) return this.#fail("truncated data of a record");
      pieces.push(bytes.subarray(at, next));
      at = next;
    }
    if (at !== end) return this.#fail("data of a record is longer than its type allows");
    return concat(pieces);
  }
}

/** Not `slice`: of a Buffer, which sockets hand out, that is a view. */
function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return new Uint8Array(bytes.subarray(start, end));
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
