// The body of one message: how long it is and where it ends (RFC 9112, sections 6.3 and 7.1). Hands out views of the chunk it was given;
// sizes, extensions and trailers are read a byte at a time, so a straddling line costs no memory. Extensions are checked and dropped.

import { isForbiddenTrailer } from "../http/fields.ts";
import type { HeaderList } from "../http/header-list.ts";
import type { Http1Code } from "./errors.ts";
import { HeadOf, HeadParser, Parsed } from "./head-parser.ts";
import type { Http1Limits } from "./limits.ts";

export interface BodySink {
  /** A view of the chunk given to `decode`. Returns false to stop after it. */
  onBodyBytes(bytes: Uint8Array): boolean;
}

const State = { done: 0, length: 1, untilClose: 2, size: 3, extension: 4, sizeLf: 5, chunk: 6, chunkCr: 7, chunkLf: 8, trailers: 9, fault: 10 } as const;
type State = (typeof State)[keyof typeof State];

const NO_TRAILERS: HeaderList = [];
const CR = 0x0d;
const LF = 0x0a;
const SP = 0x20;
const HTAB = 0x09;
const SEMICOLON = 0x3b;

export class BodyDecoder {
  /** Bytes of this body so far, without framing. */
  receivedBytes = 0;
  chunks = 0;
  trailers: HeaderList = NO_TRAILERS;
  faultCode: Http1Code = "badChunk";
  faultMessage = "";

  private readonly limits: Http1Limits;
  private state: State = State.done;
  /** Of the body, or of the chunk under way. */
  private left = 0;
  private digits = 0;
  private extensionBytes = 0;
  private sawSpace = false;
  private trailerParser: HeadParser | null = null;

  constructor(limits: Http1Limits) {
    this.limits = limits;
  }

  beginNone(): void {
    this.begin(State.done);
  }

  beginLength(bytes: number): void {
    this.begin(bytes === 0 ? State.done : State.length);
    this.left = bytes;
  }

  beginChunked(): void {
    this.begin(State.size);
  }

  /** Response only: the end of the connection is the end of the body. */
  beginUntilClose(): void {
    this.begin(State.untilClose);
  }

  private begin(state: State): void {
    this.state = state;
    this.left = this.digits = this.extensionBytes = this.receivedBytes = this.chunks = 0;
    this.trailers = NO_TRAILERS;
  }

  get isDone(): boolean {
    return this.state === State.done;
  }

  get isFaulty(): boolean {
    return this.state === State.fault;
  }

  /** Bytes still to come where that is known and nothing else can follow: what it would cost to read the rest away. */
  get leftBytes(): number {
    return this.state === State.done ? 0 : this.state === State.length ? this.left : Number.POSITIVE_INFINITY;
  }

  /** The connection ended. False when that cut the body short. */
  endOfConnection(): boolean {
    if (this.state === State.untilClose) this.state = State.done;
    return this.state === State.done;
  }

  /** Returns the index of the first byte that it did not take: after the body's end, after the sink said stop, or `end`. Look at `isFaulty`. */
  decode(chunk: Uint8Array, from: number, end: number, sink: BodySink): number {
    let at = from;
    while (at < end) {
      switch (this.state) {
        case State.length:
        case State.chunk: {
          const taken = this.left < end - at ? this.left : end - at;
          this.left -= taken;
          this.receivedBytes += taken;
          const bytes = at === 0 && taken === chunk.length ? chunk : chunk.subarray(at, at + taken);
          at += taken;
          if (this.left === 0) this.state = this.state === State.length ? State.done : State.chunkCr;
          if (!sink.onBodyBytes(bytes)) return at;
          break;
        }
        case State.untilClose:
          this.receivedBytes += end - at;
          sink.onBodyBytes(chunk.subarray(at, end));
          return end;
        case State.size:
          at = this.readSize(chunk, at, end);
          break;
        case State.extension:
          at = this.skipExtension(chunk, at, end);
          break;
        case State.sizeLf:
          if (chunk[at++] !== LF) return this.fault(at, "badChunk", "a chunk size line with a CR and no LF");
          this.beginChunk();
          break;
        case State.chunkCr:
          if (chunk[at++] !== CR) return this.fault(at, "badChunk", "a chunk is longer than its size says");
          this.state = State.chunkLf;
          break;
        case State.chunkLf:
          if (chunk[at++] !== LF) return this.fault(at, "badChunk", "a chunk does not end in CRLF");
          this.left = this.digits = 0;
          this.state = State.size;
          break;
        case State.trailers:
          at = this.readTrailers(chunk, at, end);
          break;
        case State.done:
        case State.fault:
          return at;
      }
    }
    return at;
  }

  private fault(at: number, code: Http1Code, message: string): number {
    this.state = State.fault;
    this.faultCode = code;
    this.faultMessage = message;
    return at;
  }

  private readSize(chunk: Uint8Array, from: number, end: number): number {
    let at = from;
    for (; at < end; at++) {
      const byte = chunk[at]!;
      const digit = hexDigit(byte);
      if (digit < 0) return this.endSize(byte, at + 1);
      if (++this.digits > this.limits.chunkSizeDigitsMax) return this.fault(at, "badChunk", `a chunk size has more than ${this.limits.chunkSizeDigitsMax} digits`);
      this.left = this.left * 16 + digit;
      if (this.left > Number.MAX_SAFE_INTEGER) return this.fault(at, "chunkTooLarge", "a chunk size is above 2^53");
    }
    return at;
  }

  private endSize(byte: number, at: number): number {
    if (this.digits === 0) return this.fault(at, "badChunk", "a chunk without a hexadecimal size");
    if (byte === CR) this.state = State.sizeLf;
    else if (byte === SEMICOLON || byte === SP || byte === HTAB) {
      this.state = State.extension;
      this.sawSpace = byte !== SEMICOLON;
      this.extensionBytes++;
    } else return this.fault(at, "badChunk", byte === LF ? "a chunk size line ends in LF without CR" : "a chunk size has a byte that is no hexadecimal digit");
    return at;
  }

  private skipExtension(chunk: Uint8Array, from: number, end: number): number {
    let at = from;
    for (; at < end; at++) {
      const byte = chunk[at]!;
      if (byte === CR) {
        // White space belongs before an extension; alone it is what some parsers take into the size and others do not.
        if (this.sawSpace) return this.fault(at, "badChunk", "white space after a chunk size");
        this.state = State.sizeLf;
        return at + 1;
      }
      if ((byte < SP && byte !== HTAB) || byte === 0x7f) return this.fault(at, "badChunk", "a control byte in a chunk extension");
      if (this.sawSpace && byte !== SP && byte !== HTAB) {
        if (byte !== SEMICOLON) return this.fault(at, "badChunk", "white space in a chunk size");
        this.sawSpace = false;
      }
      if (++this.extensionBytes > this.limits.chunkExtensionBytesMax) return this.fault(at, "chunkExtensionFlood", `more than ${this.limits.chunkExtensionBytesMax} bytes of chunk extensions`);
    }
    return at;
  }

  private beginChunk(): void {
    if (this.left > 0) {
      this.chunks++;
      this.state = State.chunk;
      return;
    }
    this.state = State.trailers;
    this.trailerParser ??= new HeadParser(this.limits);
    this.trailerParser.reset(HeadOf.trailers);
  }

  private readTrailers(chunk: Uint8Array, from: number, end: number): number {
    const parser = this.trailerParser!;
    const parsed = parser.parse(chunk, from, end);
    if (parsed === Parsed.needMore) return end;
    if (parsed === Parsed.fault) return this.fault(end, parser.faultCode, `in the trailers, ${parser.faultMessage}`);
    const { head } = parser;
    if (head.count > 0) {
      const list: HeaderList = [];
      for (let i = 0; i < head.count; i++) {
        const name = head.nameAt(i);
        if (isForbiddenTrailer(name)) return this.fault(end, "badTrailer", `${name} may not stand in trailers`);
        list.push(name, head.valueAt(i));
      }
      this.trailers = list;
    }
    const next = parser.next;
    head.release();
    this.trailerParser = null;
    this.state = State.done;
    return next;
  }
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}
