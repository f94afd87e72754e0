// The head of a request or response, or the trailers of a body, byte by byte (RFC 9112, sections 2 to 5 and 7.1.2). One class table look-up
// per byte is both the scan and the check. Stops anywhere and goes on with the next chunk, so no byte is looked at twice; a head within
// one chunk is never copied.
//
// Stricter than the RFC: lines end in CRLF only, no folding, no white space before the colon, no control bytes, methods in upper case.

import type { Http1Code } from "./errors.ts";
import type { Http1Limits } from "./limits.ts";
import { FieldKind, RawHead } from "./raw-head.ts";

/** What a head begins with. */
export const HeadOf = { request: 0, response: 1, trailers: 2 } as const;
export type HeadOf = (typeof HeadOf)[keyof typeof HeadOf];

export const Parsed = { needMore: 0, complete: 1, fault: 2 } as const;
export type Parsed = (typeof Parsed)[keyof typeof Parsed];

const State = {
  leading: 0, leadingLf: 1, method: 2, target: 3, version: 4, statusLine: 5, reason: 6, lineLf: 7, fieldStart: 8, name: 9, space: 10, value: 11, lastLf: 12,
} as const;
type State = (typeof State)[keyof typeof State];

const CR = 0x0d;
const LF = 0x0a;
const SP = 0x20;
const HTAB = 0x09;
const COLON = 0x3a;

const TOKEN = 1;
const VALUE = 2;
const TARGET = 4;
const METHOD = 8;
const CLASS = buildClasses();

/** "HTTP/1.x" and the two bytes after it. */
const VERSION_BYTES = 8;
/** "HTTP/1.x nnn" and the byte after it, which is a space or the line's end. */
const STATUS_LINE_BYTES = 13;
/** RFC 9112, section 2.2: a server may skip an empty line before a request; one is what old clients send after a body. */
const LEADING_LINES_MAX = 1;
const CARRY_BYTES_AT_FIRST = 1024;

function buildClasses(): Uint8Array {
  const table = new Uint8Array(256);
  for (const c of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") table[c.charCodeAt(0)]! |= TOKEN;
  for (const c of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") table[c.charCodeAt(0)]! |= METHOD;
  for (let b = 0x20; b < 0x100; b++) if (b !== 0x7f) table[b]! |= VALUE;
  table[HTAB]! |= VALUE;
  for (let b = 0x21; b < 0x100; b++) if (b !== 0x7f && b !== 0x23) table[b]! |= TARGET;
  return table;
}

/** Candidates by length of the name; few lengths have one, and the first letter decides nearly always. */
const KNOWN_BY_LENGTH: readonly (readonly KnownName[])[] = knownByLength();

interface KnownName {
  readonly bytes: Uint8Array;
  readonly kind: number;
}

function knownByLength(): KnownName[][] {
  const names: readonly (readonly [string, number])[] = [
    ["host", FieldKind.host], ["content-length", FieldKind.contentLength], ["transfer-encoding", FieldKind.transferEncoding],
    ["connection", FieldKind.connection], ["keep-alive", FieldKind.keepAlive], ["proxy-connection", FieldKind.proxyConnection],
    ["te", FieldKind.te], ["upgrade", FieldKind.upgrade], ["expect", FieldKind.expect], ["http2-settings", FieldKind.http2Settings],
  ];
  const table: KnownName[][] = Array.from({ length: 18 }, () => []);
  for (const [name, kind] of names) table[name.length]!.push({ bytes: Buffer.from(name), kind });
  return table;
}

function kindOf(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  if (length >= KNOWN_BY_LENGTH.length) return FieldKind.other;
  const candidates = KNOWN_BY_LENGTH[length]!;
  next: for (let i = 0; i < candidates.length; i++) {
    const known = candidates[i]!;
    // Names are tokens by now, and among the bytes of these names only letters meet another token under `| 0x20`.
    for (let j = 0; j < length; j++) if ((bytes[start + j]! | 0x20) !== known.bytes[j]) continue next;
    return known.kind;
  }
  return FieldKind.other;
}

export class HeadParser {
  readonly head = new RawHead();
  /** After `complete`: the first index of the chunk that is not the head's. */
  next = 0;
  /** After `fault`. */
  faultCode: Http1Code = "badStartLine";
  faultMessage = "";

  private readonly limits: Http1Limits;
  private of: HeadOf = HeadOf.request;
  private state: State = State.leading;
  private leadingLines = 0;
  private lineStart = 0;
  private nameStart = 0;
  private nameEnd = 0;
  private valueStart = 0;
  private at = 0;
  private bytesMax = 0;
  private fieldsMax = 0;
  /** Bytes of a head that straddles chunks, and how many there are; -1: nothing carried. */
  private carry: Uint8Array | null = null;
  private carryBytes = -1;
  private begun = false;

  constructor(limits: Http1Limits) {
    this.limits = limits;
  }

  /** Ready for the next head. */
  reset(of: HeadOf): void {
    this.of = of;
    this.state = of === HeadOf.request ? State.leading : of === HeadOf.response ? State.statusLine : State.fieldStart;
    this.leadingLines = 0;
    this.bytesMax = of === HeadOf.trailers ? this.limits.trailerBytesMax : this.limits.headBytesMax;
    this.fieldsMax = of === HeadOf.trailers ? this.limits.trailersMax : this.limits.fieldsMax;
    this.carry = null;
    this.carryBytes = -1;
    this.begun = false;
    this.head.release();
  }

  /** Some bytes of the head were seen, and it is not complete. */
  get isUnderWay(): boolean {
    return this.begun;
  }

  /** @param chunk borrowed; the head refers to it unless it straddles. Continue a straddling head with the next bytes of the stream. */
  parse(chunk: Uint8Array, from: number, end: number): Parsed {
    if (this.carryBytes >= 0) return this.parseCarried(chunk, from, end);
    if (!this.begun) {
      this.begun = true;
      this.head.clear(chunk, from);
      this.at = this.lineStart = from;
    }
    const stop = end - from > this.bytesMax ? from + this.bytesMax : end;
    const parsed = this.run(chunk, stop);
    if (parsed === Parsed.complete) {
      this.next = this.head.end;
      this.begun = false;
      return parsed;
    }
    if (parsed === Parsed.fault) return parsed;
    if (stop < end) return this.fault(this.tooLarge(), "the head is too large");
    this.carryFrom(chunk, from, end);
    return Parsed.needMore;
  }

  private carryFrom(chunk: Uint8Array, from: number, end: number): void {
    const bytes = end - from;
    const carry = new Uint8Array(Math.max(CARRY_BYTES_AT_FIRST, 2 * bytes));
    carry.set(chunk.subarray(from, end));
    // Leading empty lines lie before the head's start, which `moveTo` makes zero: keep them in front.
    const skipped = this.head.start - from;
    if (skipped > 0) carry.copyWithin(0, skipped, bytes);
    const by = from + skipped;
    this.head.moveTo(carry, end);
    this.at -= by;
    this.lineStart -= by;
    this.nameStart -= by;
    this.nameEnd -= by;
    this.valueStart -= by;
    this.carry = carry;
    this.carryBytes = bytes - skipped;
  }

  private parseCarried(chunk: Uint8Array, from: number, end: number): Parsed {
    const before = this.carryBytes;
    const room = this.bytesMax - before;
    const taken = end - from > room ? room : end - from;
    if (before + taken > this.carry!.length) {
      const larger = new Uint8Array(Math.min(this.bytesMax, 2 * (before + taken)));
      larger.set(this.carry!.subarray(0, before));
      this.carry = larger;
      this.head.bytes = larger;
    }
    this.carry!.set(chunk.subarray(from, from + taken), before);
    this.carryBytes = before + taken;
    const parsed = this.run(this.carry!, this.carryBytes);
    if (parsed === Parsed.complete) {
      this.next = from + this.head.end - before;
      this.begun = false;
    } else if (parsed === Parsed.needMore && taken < end - from) {
      return this.fault(this.tooLarge(), "the head is too large");
    }
    return parsed;
  }

  /** While the start line is still under way it is to blame. */
  private tooLarge(): Http1Code {
    if (this.of === HeadOf.trailers) return "trailersTooLarge";
    return this.state <= State.target ? "targetTooLong" : "headTooLarge";
  }

  private fault(code: Http1Code, message: string): Parsed {
    this.faultCode = code;
    this.faultMessage = message;
    return Parsed.fault;
  }

  /** From `this.at` to `end`. Local copies of what the loop needs; written back when it stops for want of bytes. */
  private run(bytes: Uint8Array, end: number): Parsed {
    const head = this.head;
    let at = this.at;
    let state: State = this.state;
    for (;;) {
      if (at >= end) return this.pause(state, at);
      switch (state) {
        case State.value: {
          while (at < end && (CLASS[bytes[at]!]! & VALUE) !== 0) at++;
          if (at === end) return this.pause(state, at);
          if (bytes[at] !== CR) return this.faultInValue(bytes[at]!);
          if (at - this.lineStart > this.limits.fieldLineBytesMax) return this.fault("headTooLarge", "a field line is too long");
          let valueEnd = at;
          while (valueEnd > this.valueStart && (bytes[valueEnd - 1] === SP || bytes[valueEnd - 1] === HTAB)) valueEnd--;
          const i = head.count;
          if (i === this.fieldsMax) return this.fault(this.of === HeadOf.trailers ? "trailersTooLarge" : "tooManyFields", `more than ${this.fieldsMax} fields`);
          if (i === head.kinds.length) head.grow();
          const offsets = head.offsets;
          offsets[i * 4] = this.nameStart;
          offsets[i * 4 + 1] = this.nameEnd;
          offsets[i * 4 + 2] = this.valueStart;
          offsets[i * 4 + 3] = valueEnd;
          head.kinds[i] = kindOf(bytes, this.nameStart, this.nameEnd);
          head.count = i + 1;
          at++;
          state = State.lineLf;
          break;
        }
        case State.lineLf:
          if (bytes[at] !== LF) return this.fault("bareLineEnd", "a CR without its LF");
          this.lineStart = ++at;
          state = State.fieldStart;
          break;
        case State.fieldStart: {
          const byte = bytes[at]!;
          if (byte === CR) {
            at++;
            state = State.lastLf;
            break;
          }
          if (byte === SP || byte === HTAB) return this.fault("foldedField", "a field line begins with white space: folded, or slipped in before the first");
          if (byte === LF) return this.fault("bareLineEnd", "a line ends in LF without CR");
          this.nameStart = at;
          state = State.name;
          break;
        }
        case State.name: {
          while (at < end && (CLASS[bytes[at]!]! & TOKEN) !== 0) at++;
          if (at === end) return this.pause(state, at);
          if (bytes[at] !== COLON) return this.faultInName(bytes[at]!);
          if (at === this.nameStart) return this.fault("badFieldName", "a field without a name");
          this.nameEnd = at++;
          state = State.space;
          break;
        }
        case State.space:
          while (at < end && (bytes[at] === SP || bytes[at] === HTAB)) at++;
          if (at === end) return this.pause(state, at);
          this.valueStart = at;
          state = State.value;
          break;
        case State.lastLf:
          if (bytes[at] !== LF) return this.fault("bareLineEnd", "a CR without its LF");
          head.end = at + 1;
          return Parsed.complete;
        case State.leading:
          if (bytes[at] === CR) {
            if (++this.leadingLines > LEADING_LINES_MAX) return this.fault("badStartLine", "empty lines in place of a request");
            at++;
            state = State.leadingLf;
            break;
          }
          head.start = this.lineStart = at;
          state = State.method;
          break;
        case State.leadingLf:
          if (bytes[at] !== LF) return this.fault("bareLineEnd", "a CR without its LF");
          at++;
          state = State.leading;
          break;
        case State.method: {
          const limit = head.start + this.limits.methodBytesMax;
          while (at < end && (CLASS[bytes[at]!]! & METHOD) !== 0) at++;
          if (at > limit) return this.fault("methodTooLong", `the method has more than ${this.limits.methodBytesMax} bytes`);
          if (at === end) return this.pause(state, at);
          if (bytes[at] !== SP || at === head.start) return this.fault("badMethod", "the request does not begin with a method in upper case and a space");
          head.methodEnd = at++;
          head.targetStart = at;
          state = State.target;
          break;
        }
        case State.target: {
          while (at < end && (CLASS[bytes[at]!]! & TARGET) !== 0) at++;
          if (at - head.start > this.limits.startLineBytesMax) return this.fault("targetTooLong", `the request line has more than ${this.limits.startLineBytesMax} bytes`);
          if (at === end) return this.pause(state, at);
          if (bytes[at] !== SP || at === head.targetStart) return this.fault("badTarget", "the target has a byte that no target may have, or no version follows");
          head.targetEnd = at++;
          state = State.version;
          break;
        }
        case State.version: {
          const fault = this.checkVersion(bytes, at, end);
          if (fault !== "") return this.fault(fault, "the version is neither HTTP/1.0 nor HTTP/1.1");
          if (end - at <= VERSION_BYTES) return this.pause(state, at);
          at += VERSION_BYTES;
          head.minor = bytes[at - 1]! - 0x30;
          head.status = 0;
          if (bytes[at] !== CR) return this.fault(bytes[at] === LF ? "bareLineEnd" : "badStartLine", "the request line does not end in CRLF after its version");
          at++;
          state = State.lineLf;
          break;
        }
        case State.statusLine: {
          const fault = this.checkVersion(bytes, at, end);
          if (fault !== "") return this.fault(fault, "the response begins with neither HTTP/1.0 nor HTTP/1.1");
          if (end - at < STATUS_LINE_BYTES) return this.pause(state, at);
          const status = statusAt(bytes, at + VERSION_BYTES);
          if (status < 0) return this.fault("badStatus", "the status is not three digits from 100 to 599");
          head.minor = bytes[at + VERSION_BYTES - 1]! - 0x30;
          head.status = status;
          head.methodEnd = head.targetStart = head.targetEnd = at;
          at += STATUS_LINE_BYTES - 1;
          if (bytes[at] !== SP && bytes[at] !== CR) return this.fault("badStatus", "the status is not three digits from 100 to 599");
          state = State.reason;
          break;
        }
        case State.reason:
          while (at < end && (CLASS[bytes[at]!]! & VALUE) !== 0) at++;
          if (at - head.start > this.limits.startLineBytesMax) return this.fault("headTooLarge", `the status line has more than ${this.limits.startLineBytesMax} bytes`);
          if (at === end) return this.pause(state, at);
          if (bytes[at] !== CR) return this.fault(bytes[at] === LF ? "bareLineEnd" : "badStartLine", "the status line does not end in CRLF");
          at++;
          state = State.lineLf;
          break;
      }
    }
  }

  private pause(state: State, at: number): Parsed {
    this.state = state;
    this.at = at;
    return Parsed.needMore;
  }

  private faultInValue(byte: number): Parsed {
    if (byte === LF) return this.fault("bareLineEnd", "a line ends in LF without CR");
    return this.fault("badFieldValue", "a field value has a control byte");
  }

  private faultInName(byte: number): Parsed {
    if (byte === SP || byte === HTAB) return this.fault("badFieldName", "white space in a field name or before its colon");
    if (byte === LF || byte === CR) return this.fault(byte === LF ? "bareLineEnd" : "badFieldName", "a line without a colon");
    return this.fault("badFieldName", "a field name has a byte that no token may have");
  }

  /** As much of "HTTP/1.x" as there is. Another number is another version; anything else is no HTTP. */
  private checkVersion(bytes: Uint8Array, at: number, end: number): "" | Http1Code {
    const length = end - at < VERSION_BYTES ? end - at : VERSION_BYTES;
    for (let i = 0; i < length; i++) {
      const byte = bytes[at + i]!;
      if (i < 5) {
        if (byte !== VERSION[i]) return "badStartLine";
      } else if (i === 6) {
        if (byte !== 0x2e) return "badStartLine";
      } else {
        if (byte < 0x30 || byte > 0x39) return "badStartLine";
        if (byte !== 0x31 && !(i === 7 && byte === 0x30)) return "badVersion";
      }
    }
    return "";
  }
}

const VERSION = Buffer.from("HTTP/");

/** " nnn" at `at`; -1 when it is not. */
function statusAt(bytes: Uint8Array, at: number): number {
  if (bytes[at] !== SP) return -1;
  const hundreds = bytes[at + 1]! - 0x30;
  const tens = bytes[at + 2]! - 0x30;
  const ones = bytes[at + 3]! - 0x30;
  if (hundreds < 1 || hundreds > 5 || tens < 0 || tens > 9 || ones < 0 || ones > 9) return -1;
  return hundreds * 100 + tens * 10 + ones;
}
