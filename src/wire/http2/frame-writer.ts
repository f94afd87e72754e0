// Frames on their way out: how each is laid out in the output, and how much of it a peer may leave unread. Knows neither streams nor windows.

import { OutputBuffer } from "../http/output-buffer.ts";
import { CLIENT_PREFACE, Flag, FRAME_HEADER_BYTES, FrameType, SettingId, writeFrameHeader, writeUint32 } from "./frames.ts";
import type { HeaderBlock } from "./headers.ts";
import { HpackEncoder } from "./hpack-encoder.ts";
import { FRAME_BYTES_MIN, type Http2Limits, type LocalSettings } from "./limits.ts";

/** Payloads fixed by the RFC, section 6. */
export const PING_BYTES = 8;
export const RST_STREAM_BYTES = 4;
export const WINDOW_UPDATE_FRAME_BYTES = 4;
export const SETTING_BYTES = 6;
export const GOAWAY_FIXED_BYTES = 8;

export interface FrameWriterOwner {
  /** The output went from empty to not empty. */
  outputBegan(): void;
  /** Some of the output was written to the transport. */
  outputConsumed(): void;
  /** The peer does not read: more waits for it than the limits allow. */
  outputOverflowed(message: string): void;
}

export class FrameWriter {
  readonly output: OutputBuffer;
  readonly encoder = new HpackEncoder();
  /** Of one frame's payload, at most: the peer's SETTINGS_MAX_FRAME_SIZE. */
  frameBytesMax = FRAME_BYTES_MIN;
  private readonly owner: FrameWriterOwner;
  private readonly limits: Http2Limits;
  private wasEmpty = false;
  // Control frames the peer may have left unread: of the last and of this stretch of output (see wroteControl)
  private controlFramesBefore = 0;
  private controlFramesNow = 0;
  private controlStretchEnd = 0;

  constructor(limits: Http2Limits, owner: FrameWriterOwner) {
    this.limits = limits;
    this.owner = owner;
    this.output = new OutputBuffer(() => this.consumed());
  }

  /** What each side says first: a client's preface, and SETTINGS. */
  greeting(settings: LocalSettings, isServer: boolean): void {
    const entries: number[] = [
      SettingId.headerTableSize, settings.headerTableSizeBytes,
      SettingId.maxConcurrentStreams, settings.maxConcurrentStreams,
      SettingId.initialWindowSize, settings.initialWindowBytes,
      SettingId.maxFrameSize, settings.maxFrameBytes,
      SettingId.maxHeaderListSize, settings.maxHeaderListBytes,
    ];
    if (!isServer) entries.push(SettingId.enablePush, 0);
    if (isServer && settings.enableConnectProtocol) entries.push(SettingId.enableConnectProtocol, 1);
    const preface = isServer ? 0 : CLIENT_PREFACE.length;
    const payload = (entries.length / 2) * SETTING_BYTES;
    let at = this.reserve(preface + FRAME_HEADER_BYTES + payload);
    const { bytes } = this.output;
    if (preface > 0) bytes.set(CLIENT_PREFACE, at);
    at += preface;
    writeFrameHeader(bytes, at, payload, FrameType.settings, 0, 0);
    at += FRAME_HEADER_BYTES;
    for (let i = 0; i < entries.length; i += 2, at += SETTING_BYTES) {
      const id = entries[i]!;
      bytes[at] = id >>> 8;
      bytes[at + 1] = id;
      writeUint32(bytes, at + 2, entries[i + 1]!);
    }
    this.wrote();
  }

  /** HEADERS, and CONTINUATION where one frame is too small. */
  headers(id: number, block: HeaderBlock, endStream: boolean): void {
    if (block.bytes !== null) return this.headerFrames(id, this.encoder.prepend(block.bytes), endStream);
    const length = this.encoder.encodeNext(block.fields);
    if (length > this.frameBytesMax) return this.headerFrames(id, this.encoder.encoded(length), endStream);
    const at = this.reserve(FRAME_HEADER_BYTES + length);
    const { bytes } = this.output;
    writeFrameHeader(bytes, at, length, FrameType.headers, Flag.endHeaders | (endStream ? Flag.endStream : 0), id);
    this.encoder.copyTo(bytes, at + FRAME_HEADER_BYTES);
    this.wrote();
  }

  private headerFrames(id: number, bytes: Uint8Array, endStream: boolean): void {
    const frameBytes = this.frameBytesMax;
    const frames = Math.max(1, Math.ceil(bytes.length / frameBytes));
    let at = this.reserve(bytes.length + frames * FRAME_HEADER_BYTES);
    const out = this.output.bytes;
    for (let frame = 0, from = 0; frame < frames; frame++, from += frameBytes) {
      const to = Math.min(bytes.length, from + frameBytes);
      const last = frame === frames - 1 ? Flag.endHeaders : 0;
      if (frame === 0) writeFrameHeader(out, at, to - from, FrameType.headers, last | (endStream ? Flag.endStream : 0), id);
      else writeFrameHeader(out, at, to - from, FrameType.continuation, last, id);
      at += FRAME_HEADER_BYTES;
      out.set(frames === 1 ? bytes : bytes.subarray(from, to), at);
      at += to - from;
    }
    this.wrote();
  }

  /** The first `take` bytes of `chunk`, copied. @returns how many frames they needed. */
  data(id: number, chunk: Uint8Array, take: number, endStream: boolean): number {
    const frameBytes = this.frameBytesMax;
    const frames = take <= frameBytes ? 1 : Math.ceil(take / frameBytes);
    let at = this.reserve(take + frames * FRAME_HEADER_BYTES);
    const out = this.output.bytes;
    if (frames === 1) {
      writeFrameHeader(out, at, take, FrameType.data, endStream ? Flag.endStream : 0, id);
      if (take > 0) out.set(take === chunk.length ? chunk : chunk.subarray(0, take), at + FRAME_HEADER_BYTES);
    } else {
      for (let from = 0; from < take; from += frameBytes) {
        const to = Math.min(take, from + frameBytes);
        writeFrameHeader(out, at, to - from, FrameType.data, endStream && to === take ? Flag.endStream : 0, id);
        out.set(chunk.subarray(from, to), at + FRAME_HEADER_BYTES);
        at += FRAME_HEADER_BYTES + (to - from);
      }
    }
    this.wrote();
    return frames;
  }

  windowUpdate(id: number, credit: number): void {
    const at = this.reserve(FRAME_HEADER_BYTES + WINDOW_UPDATE_FRAME_BYTES);
    writeFrameHeader(this.output.bytes, at, WINDOW_UPDATE_FRAME_BYTES, FrameType.windowUpdate, 0, id);
    writeUint32(this.output.bytes, at + FRAME_HEADER_BYTES, credit);
    this.wrote();
  }

  rstStream(id: number, code: number): void {
    const at = this.reserve(FRAME_HEADER_BYTES + RST_STREAM_BYTES);
    writeFrameHeader(this.output.bytes, at, RST_STREAM_BYTES, FrameType.rstStream, 0, id);
    writeUint32(this.output.bytes, at + FRAME_HEADER_BYTES, code);
    this.wroteControl();
  }

  settingsAck(): void {
    const at = this.reserve(FRAME_HEADER_BYTES);
    writeFrameHeader(this.output.bytes, at, 0, FrameType.settings, Flag.ack, 0);
    this.wroteControl();
  }

  /** @param mark the first byte of its payload, by which its answer is known. */
  ping(mark: number): void {
    const at = this.reserve(FRAME_HEADER_BYTES + PING_BYTES);
    writeFrameHeader(this.output.bytes, at, PING_BYTES, FrameType.ping, 0, 0);
    this.output.bytes.fill(0, at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + PING_BYTES);
    this.output.bytes[at + FRAME_HEADER_BYTES] = mark;
    this.wrote();
  }

  /** @param bytes with the payload of the PING that is answered, from `from` on. */
  pingAck(bytes: Uint8Array, from: number): void {
    const at = this.reserve(FRAME_HEADER_BYTES + PING_BYTES);
    writeFrameHeader(this.output.bytes, at, PING_BYTES, FrameType.ping, Flag.ack, 0);
    for (let i = 0; i < PING_BYTES; i++) this.output.bytes[at + FRAME_HEADER_BYTES + i] = bytes[from + i]!;
    this.wroteControl();
  }

  goaway(lastId: number, code: number, debug: string): void {
    const text = Buffer.from(debug.slice(0, this.limits.goawayDebugBytesMax), "latin1");
    const at = this.reserve(FRAME_HEADER_BYTES + GOAWAY_FIXED_BYTES + text.length);
    const { bytes } = this.output;
    writeFrameHeader(bytes, at, GOAWAY_FIXED_BYTES + text.length, FrameType.goaway, 0, 0);
    writeUint32(bytes, at + FRAME_HEADER_BYTES, lastId);
    writeUint32(bytes, at + FRAME_HEADER_BYTES + 4, code);
    bytes.set(text, at + FRAME_HEADER_BYTES + GOAWAY_FIXED_BYTES);
    this.wrote();
  }

  /** Room in `output`. Every `reserve` is followed by one `wrote` when the bytes are in place. */
  private reserve(bytes: number): number {
    if (this.output.pendingBytes === 0) this.wasEmpty = true;
    return this.output.reserve(bytes);
  }

  private wrote(): void {
    if (this.wasEmpty) {
      this.wasEmpty = false;
      this.owner.outputBegan();
    }
    if (this.output.pendingBytes > this.limits.outputBytesMax) {
      this.owner.outputOverflowed(`more than ${this.limits.outputBytesMax} bytes wait for a peer that does not read`);
    }
  }

  /**
   * Answers that the peer causes and may leave unread. They are counted in stretches of output: once everything that was queued when
   * a stretch began has been written, its count is forgotten. So the count is never too low, and a peer that reads never runs it up.
   */
  private wroteControl(): void {
    this.controlFramesNow++;
    const unread = this.controlFramesBefore + this.controlFramesNow;
    this.wrote();
    if (unread > this.limits.queuedControlFramesMax) {
      this.owner.outputOverflowed(`more than ${this.limits.queuedControlFramesMax} control frames wait for a peer that does not read`);
    }
  }

  private consumed(): void {
    if (this.output.consumedTotal >= this.controlStretchEnd) {
      this.controlFramesBefore = this.controlFramesNow;
      this.controlFramesNow = 0;
      this.controlStretchEnd = this.output.appendedTotal;
    }
    this.owner.outputConsumed();
  }
}
