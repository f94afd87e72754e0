// What is to be kept of a response, as frames of the log (resource-log.ts), in few large pieces: made while the response comes, so that nothing of
// it has to be held until the disk has it.

import { crc32 } from "node:zlib";
import type { ReceivedResource } from "../resource.ts";

export const FRAME_HEADER_BYTES = 8;
/** A piece is begun with so much room, or what its first frame needs. */
const PIECE_BYTES = 256 * 1024;
/** StoredChange's fields, all of them but the flag of length-delimited bytes: their tags. */
const TAGS = { typeUrl: 0x0a, name: 0x12, version: 0x1a, value: 0x22, removed: 0x28 } as const;
/** Two numbers of a tag and a length each, at their longest. */
const FIELD_HEAD_BYTES = 6;
const NO_VALUE = new Uint8Array(0);

/** The content of a StoredChange. */
export interface StoredContent {
  readonly typeUrl: string;
  readonly name: string;
  readonly version: string;
  readonly value: Uint8Array;
  readonly removed: boolean;
}

export class LogFrames {
  readonly #pieces: Uint8Array[] = [];
  #piece: Buffer = Buffer.alloc(0);
  #at = 0;
  count = 0;

  /** @param resource its value is copied. */
  keep({ typeUrl, name, version, value }: ReceivedResource): void {
    this.add({ typeUrl, name, version, value, removed: false });
  }

  drop(typeUrl: string, name: string): void {
    this.add({ typeUrl, name, version: "", value: NO_VALUE, removed: true });
  }

  /** What is gone, and then what is kept: a name in both stays. */
  change(typeUrl: string, keep: readonly ReceivedResource[], gone: Iterable<string>): void {
    for (const name of gone) this.drop(typeUrl, name);
    for (const { name, version, value } of keep) this.add({ typeUrl, name, version, value, removed: false });
  }

  /** That of a type nothing is there: even an empty state is one that was told. */
  nothing(typeUrl: string): void {
    this.add({ typeUrl, name: "", version: "", value: NO_VALUE, removed: false });
  }

  add({ typeUrl, name, version, value, removed }: StoredContent): void {
    this.#room(FRAME_HEADER_BYTES + 3 * (typeUrl.length + name.length + version.length) + value.length + 5 * FIELD_HEAD_BYTES);
    const start = this.#at;
    this.#at += FRAME_HEADER_BYTES;
    this.#text(TAGS.typeUrl, typeUrl);
    this.#text(TAGS.name, name);
    this.#text(TAGS.version, version);
    if (value.length > 0) {
      this.#piece[this.#at++] = TAGS.value;
      this.#length(value.length);
      this.#piece.set(value, this.#at);
      this.#at += value.length;
    }
    if (removed) {
      this.#piece[this.#at++] = TAGS.removed;
      this.#piece[this.#at++] = 1;
    }
    const content = start + FRAME_HEADER_BYTES;
    this.#piece.writeUInt32LE(this.#at - content, start);
    this.#piece.writeUInt32LE(crc32(this.#piece.subarray(content, this.#at)), start + 4);
    this.count++;
  }

  /** All that was added, in its order. */
  pieces(): readonly Uint8Array[] {
    return this.#at === 0 ? this.#pieces : [...this.#pieces, this.#piece.subarray(0, this.#at)];
  }

  #text(tag: number, text: string): void {
    if (text === "") return;
    this.#piece[this.#at++] = tag;
    const bytes = Buffer.byteLength(text);
    this.#length(bytes);
    this.#at += this.#piece.write(text, this.#at, "utf8");
  }

  #length(length: number): void {
    for (; length > 0x7f; length >>>= 7) this.#piece[this.#at++] = (length & 0x7f) | 0x80;
    this.#piece[this.#at++] = length;
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#piece.length) return;
    // Of few changes there are many, each with frames of its own.
    const first = this.#pieces.length === 0 && this.#at === 0;
    if (this.#at > 0) this.#pieces.push(this.#piece.subarray(0, this.#at));
    this.#piece = Buffer.allocUnsafeSlow(Math.max(bytes, first ? 0 : PIECE_BYTES));
    this.#at = 0;
  }
}
