// Frames on their way in, from bytes in any cut: the preface, the nine bytes before each frame, and the payload as its owner wants it.
// A payload that is kept is put together only when it straddles chunks; a body passes through as places in the chunk it came in.

import { CLIENT_PREFACE, FRAME_HEADER_BYTES, readUint31 } from "./frames.ts";

export interface FrameReaderOwner {
  /** The header of a frame is read. Answers with one of `keep`, `skip`, `padding` and `body`, or with `stop`. */
  frameBegan(): void;
  /** What was kept of the frame lies in `bytes` from `start` to `end`. */
  frameEnded(bytes: Uint8Array, start: number, end: number): void;
  /** After `padding`: the length of what fills the frame up. Answers with `body`, or with `stop`. */
  paddingRead(padBytes: number): void;
  /** After `body`: a piece of it, from `start` to `end`. The last piece comes with `isLast` when no padding follows. */
  bodyRead(chunk: Uint8Array, start: number, end: number, isLast: boolean): void;
  /** A body of no bytes, or one with padding, is over. */
  bodyEnded(): void;
  prefaceFailed(): void;
}

const Parse = { preface: 0, header: 1, padLength: 2, body: 3, padding: 4, payload: 5, skip: 6 } as const;
type Parse = (typeof Parse)[keyof typeof Parse];

const NO_BYTES = new Uint8Array(0);

export class FrameReader {
  /** Of the frame under way. */
  length = 0;
  type = 0;
  flags = 0;
  streamId = 0;
  private readonly owner: FrameReaderOwner;
  private readonly nowMs: () => number;
  private parse: Parse;
  private stopped = false;
  private readonly header = new Uint8Array(CLIENT_PREFACE.length);
  private headerBytes = 0;
  /** Bytes of the frame still to come, and how many of them may be kept. */
  private left = 0;
  private payload: Buffer | null = null;
  private payloadBytes = 0;
  private payloadKeep = 0;
  private payloadMs = 0;
  private bodyLeft = 0;
  private padLeft = 0;

  constructor(owner: FrameReaderOwner, expectsPreface: boolean, nowMs: () => number) {
    this.owner = owner;
    this.nowMs = nowMs;
    this.parse = expectsPreface ? Parse.preface : Parse.header;
  }

  /** Bytes from the peer, in order, in any cut. Borrowed for the call. */
  receive(chunk: Uint8Array): void {
    let at = 0;
    const end = chunk.length;
    while (at < end && !this.stopped) {
      switch (this.parse) {
        case Parse.header:
          at = this.readHeader(chunk, at, end);
          break;
        case Parse.body:
          at = this.readBody(chunk, at, end);
          break;
        case Parse.payload:
          at = this.readPayload(chunk, at, end);
          break;
        case Parse.padLength:
          this.owner.paddingRead(chunk[at++]!);
          break;
        case Parse.padding:
          at = this.readPadding(at, end);
          break;
        case Parse.skip: {
          const skipped = Math.min(this.left, end - at);
          at += skipped;
          this.left -= skipped;
          if (this.left === 0) this.parse = Parse.header;
          break;
        }
        case Parse.preface:
          at = this.readPreface(chunk, at, end);
          break;
      }
    }
  }

  /** Since when a payload is kept that is not whole; Infinity when there is none. */
  get keepsSinceMs(): number {
    return this.payload === null ? Infinity : this.payloadMs;
  }

  /** Reads no more, not even the rest of the chunk. */
  stop(): void {
    this.stopped = true;
  }

  /** Keeps the first `bytes` of the payload for `frameEnded`, and drops the rest. */
  keep(bytes: number): void {
    this.payloadKeep = Math.min(bytes, this.length);
    if (this.length === 0) this.owner.frameEnded(NO_BYTES, 0, 0);
    else this.parse = Parse.payload;
  }

  /** Drops the payload. */
  skip(): void {
    this.parse = this.length === 0 ? Parse.header : Parse.skip;
  }

  /** The payload begins with the length of its padding. */
  padding(): void {
    this.parse = Parse.padLength;
  }

  /** The payload passes through: `bytes` of it for `bodyRead`, then `padBytes` for nobody. */
  body(bytes: number, padBytes: number): void {
    this.bodyLeft = bytes;
    this.padLeft = padBytes;
    if (bytes > 0) this.parse = Parse.body;
    else this.endBody();
  }

  private readPreface(chunk: Uint8Array, from: number, end: number): number {
    let at = from;
    while (at < end) {
      if (chunk[at++] !== CLIENT_PREFACE[this.headerBytes++]) {
        this.owner.prefaceFailed();
        return end;
      }
      if (this.headerBytes === CLIENT_PREFACE.length) {
        this.headerBytes = 0;
        this.parse = Parse.header;
        return at;
      }
    }
    return at;
  }

  private readHeader(chunk: Uint8Array, from: number, end: number): number {
    let header = chunk;
    let at = from;
    let next = from + FRAME_HEADER_BYTES;
    if (this.headerBytes > 0 || next > end) {
      const missing = FRAME_HEADER_BYTES - this.headerBytes;
      const taken = Math.min(missing, end - from);
      for (let i = 0; i < taken; i++) this.header[this.headerBytes++] = chunk[from + i]!;
      next = from + taken;
      if (taken < missing) return next;
      this.headerBytes = 0;
      header = this.header;
      at = 0;
    }
    const length = (header[at]! << 16) | (header[at + 1]! << 8) | header[at + 2]!;
    this.length = length;
    this.left = length;
    this.type = header[at + 3]!;
    this.flags = header[at + 4]!;
    this.streamId = readUint31(header, at + 5);
    this.owner.frameBegan();
    if (this.stopped) return end;
    if (this.parse === Parse.payload) {
      // The usual case: the whole frame lies in the chunk and is read in place.
      if (next + length <= end) {
        this.parse = Parse.header;
        this.owner.frameEnded(chunk, next, next + Math.min(length, this.payloadKeep));
        return next + length;
      }
      this.payloadBytes = 0;
      this.payloadMs = this.nowMs();
      this.payload = Buffer.allocUnsafe(this.payloadKeep);
    }
    return next;
  }

  private readPayload(chunk: Uint8Array, at: number, end: number): number {
    const taken = Math.min(this.left, end - at);
    const kept = Math.min(taken, this.payloadKeep - this.payloadBytes);
    if (kept > 0) this.payload!.set(chunk.subarray(at, at + kept), this.payloadBytes);
    this.payloadBytes += kept;
    this.left -= taken;
    if (this.left === 0) {
      this.parse = Parse.header;
      const payload = this.payload!;
      this.payload = null;
      this.owner.frameEnded(payload, 0, this.payloadBytes);
    }
    return at + taken;
  }

  private readBody(chunk: Uint8Array, at: number, end: number): number {
    const left = this.bodyLeft;
    const taken = end - at < left ? end - at : left;
    const stop = at + taken;
    this.bodyLeft = left - taken;
    const isLast = taken === left && this.padLeft === 0;
    if (isLast) this.parse = Parse.header;
    else if (taken === left) this.parse = Parse.padding;
    this.owner.bodyRead(chunk, at, stop, isLast);
    return stop;
  }

  private readPadding(at: number, end: number): number {
    const taken = Math.min(this.padLeft, end - at);
    this.padLeft -= taken;
    if (this.padLeft === 0) this.endBody();
    return at + taken;
  }

  private endBody(): void {
    if (this.padLeft > 0) {
      this.parse = Parse.padding;
      return;
    }
    this.parse = Parse.header;
    this.owner.bodyEnded();
  }
}
