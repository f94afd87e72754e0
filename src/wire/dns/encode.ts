// Writes a DNS message. Owner names are compressed; names inside RDATA are not (allowed always, and demanded for SRV).

import { type DnsMessage, type Edns, HEADER_BYTES, MESSAGE_BYTES_MAX, type ResourceRecord } from "./message.ts";
import { endOfQuestion } from "./decode.ts";
import { encodeName, labelsOf } from "./name.ts";
import { RecordType } from "./types.ts";

/** Pointers have 14 bits. */
const POINTER_MAX = 0x3fff;

/**
 * A fresh message of at most `bytesMax` bytes. Records that do not fit are left out, whole and from the end; when answers or
 * authorities are missing the TC bit is set (RFC 2181, section 9). The OPT record always fits: it is counted first.
 * A name that has no wire form, or a limit without room for the question, throws: they are our own fault.
 */
export function encodeMessage(message: DnsMessage, bytesMax = MESSAGE_BYTES_MAX): Uint8Array<ArrayBuffer> {
  const opt = message.edns === null ? new Uint8Array(0) : encodeOpt(message.edns);
  const writer = new MessageWriter(Math.min(bytesMax, MESSAGE_BYTES_MAX) - opt.length);
  for (const question of message.questions) {
    writer.name(question.name);
    writer.u16(question.type);
    writer.u16(question.class);
  }
  if (writer.overflowed) throw new Error(`no room for the question in ${bytesMax} bytes`);
  const answers = writer.records(message.answers);
  const authorities = answers < message.answers.length ? 0 : writer.records(message.authorities);
  const complete = answers === message.answers.length && authorities === message.authorities.length;
  const additionals = complete ? writer.records(message.additionals) : 0;
  writer.bytes(opt);
  return writer.finish({
    id: message.id,
    flags: flagsOf(message, message.truncated || !complete),
    counts: [message.questions.length, answers, authorities, additionals + (message.edns === null ? 0 : 1)],
  });
}

/**
 * What is left of somebody else's reply that is too long for this client: its header with TC set, its question, and `edns`
 * where the client spoke EDNS. The client asks again over TCP.
 * @param reply one that `checkReply` found good.
 */
export function truncatedReply(reply: Uint8Array, edns: Edns | null): Uint8Array<ArrayBuffer> {
  const questionEnd = endOfQuestion(reply);
  const opt = edns === null ? new Uint8Array(0) : encodeOpt(edns);
  const short = new Uint8Array(questionEnd + opt.length);
  short.set(reply.subarray(0, questionEnd));
  short.set(opt, questionEnd);
  short[2] = short[2]! | 0x02;
  short.fill(0, 6, HEADER_BYTES);
  short[11] = edns === null ? 0 : 1;
  return short;
}

function flagsOf(message: DnsMessage, truncated: boolean): number {
  return (message.response ? 0x8000 : 0) | (message.opcode << 11) | (message.authoritative ? 0x0400 : 0) | (truncated ? 0x0200 : 0)
    | (message.recursionDesired ? 0x0100 : 0) | (message.recursionAvailable ? 0x0080 : 0) | (message.authenticData ? 0x0020 : 0)
    | (message.checkingDisabled ? 0x0010 : 0) | message.rcode;
}

function encodeOpt(edns: Edns): Uint8Array {
  const bytes = new Uint8Array(11 + edns.options.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(1, RecordType.OPT);
  view.setUint16(3, edns.udpBytes);
  view.setUint8(5, edns.extendedRcode);
  view.setUint8(6, edns.version);
  view.setUint8(7, edns.dnssecOk ? 0x80 : 0);
  view.setUint16(9, edns.options.length);
  bytes.set(edns.options, 11);
  return bytes;
}

class MessageWriter {
  readonly #max: number;
  #buffer = new Uint8Array(512);
  #length = HEADER_BYTES;
  /** Where each name suffix stands; exact text, so that case is kept. */
  readonly #suffixes = new Map<string, number>();
  overflowed: boolean;

  constructor(max: number) {
    this.#max = max;
    this.overflowed = HEADER_BYTES > max;
  }

  /** Writes whole records while they fit; returns how many did. */
  records(records: readonly ResourceRecord[]): number {
    let written = 0;
    for (const record of records) {
      const start = this.#length;
      this.name(record.name);
      this.u16(record.type);
      this.u16(record.class);
      this.u16(record.ttl >>> 16);
      this.u16(record.ttl & 0xffff);
      this.u16(record.rdata.length);
      this.bytes(record.rdata);
      if (this.#length > this.#max) {
        this.#length = start;
        // Suffixes first written in the record that was taken back are gone with it.
        for (const [suffix, at] of this.#suffixes) if (at >= start) this.#suffixes.delete(suffix);
        break;
      }
      written++;
    }
    return written;
  }

  name(text: string): void {
    const wire = encodeName(text);
    if (wire === null) throw new Error(`not a domain name: ${text}`);
    const labels = labelsOf(text);
    let wireAt = 0;
    for (let i = 0; i < labels.length; i++) {
      const suffix = i === 0 ? text : labels.slice(i).join(".");
      const known = this.#suffixes.get(suffix);
      if (known !== undefined) {
        this.u16(0xc000 | known);
        return;
      }
      if (this.#length <= POINTER_MAX) this.#suffixes.set(suffix, this.#length);
      const labelEnd = wireAt + 1 + wire[wireAt]!;
      this.bytes(wire.subarray(wireAt, labelEnd));
      wireAt = labelEnd;
    }
    this.bytes(wire.subarray(wireAt));
  }

  u16(value: number): void {
    this.#reserve(2);
    this.#buffer[this.#length++] = value >>> 8;
    this.#buffer[this.#length++] = value & 0xff;
    if (this.#length > this.#max) this.overflowed = true;
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
    if (this.#length > this.#max) this.overflowed = true;
  }

  finish({ id, flags, counts }: { id: number; flags: number; counts: readonly number[] }): Uint8Array<ArrayBuffer> {
    const message = this.#buffer.slice(0, this.#length);
    const view = new DataView(message.buffer);
    view.setUint16(0, id);
    view.setUint16(2, flags);
    counts.forEach((count, i) => view.setUint16(4 + 2 * i, count));
    return message;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(this.#buffer.length * 2, this.#length + more));
    grown.set(this.#buffer);
    this.#buffer = grown;
  }
}
