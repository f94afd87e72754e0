// The head of one HTTP/1 message as it lies in memory: where each name and value begins and ends, and strings cut only when somebody
// asks. Lines that nobody changed go out as the bytes that came in.
//
// The bytes are those of the chunk they came in: valid until the callback that was given the head returns, unless `keep` was called.

import { copyBytes } from "../http/copy-bytes.ts";
import { checkField, type HttpFields, linesOf, separatorOf } from "../http/fields.ts";
import type { HeaderList } from "../http/header-list.ts";
import { latin1Slice } from "../http/latin1.ts";
import type { OutputBuffer } from "../http/output-buffer.ts";
import { writeText } from "../http/text-output.ts";

/** Fields that the engine reads itself. `other` is all the rest. */
export const FieldKind = {
  other: 0, host: 1, contentLength: 2, transferEncoding: 3, connection: 4, keepAlive: 5, proxyConnection: 6, te: 7, upgrade: 8, expect: 9, http2Settings: 10,
} as const;

/** The ones with a kind are never shown, nor sent on: they end here, and the writer makes its own. */
const HIDDEN = 0x80;

const OFFSETS_PER_FIELD = 4;
const FIELDS_AT_FIRST = 24;

/** Upper to lower case, byte by byte. */
const LOWER = Uint8Array.from({ length: 256 }, (_, b) => (b >= 0x41 && b <= 0x5a ? b + 0x20 : b));

export class RawHead implements HttpFields {
  bytes: Uint8Array = new Uint8Array(0);
  count = 0;
  /** For each field: begin and end of its name, begin and end of its value without white space. Indexes into `bytes`. */
  offsets = new Uint32Array(FIELDS_AT_FIRST * OFFSETS_PER_FIELD);
  kinds = new Uint8Array(FIELDS_AT_FIRST);
  /** Where the start line began, and the first byte after the empty line. */
  start = 0;
  end = 0;
  /** Start line: method and target of a request. */
  methodEnd = 0;
  targetStart = 0;
  targetEnd = 0;
  /** 0 or 1: HTTP/1.x. */
  minor = 1;
  /** 0 in a request. */
  status = 0;
  private extra: HeaderList | null = null;
  private kept = false;

  clear(bytes: Uint8Array, start: number): void {
    this.bytes = bytes;
    this.start = start;
    this.count = 0;
    this.extra = null;
    this.kept = false;
  }

  /** Lets go of the bytes; the arrays stay for the next message. */
  release(): void {
    this.clear(NO_BYTES, 0);
  }

  /** Makes the fields outlive the callback: copies the head. Before anything waits (a look-up, an authorisation elsewhere). */
  keep(): void {
    if (this.kept) return;
    // Not `slice`: on a Buffer it is a view.
    this.moveTo(new Uint8Array(this.bytes.subarray(this.start, this.end)), this.end);
    this.kept = true;
  }

  /** The same bytes at another place: `bytes` begins with what began at `start`. `written` bounds the offsets set so far. */
  moveTo(bytes: Uint8Array, written: number): void {
    const by = this.start;
    for (let i = 0; i < this.count * OFFSETS_PER_FIELD; i++) this.offsets[i]! -= by;
    this.methodEnd -= by;
    this.targetStart -= by;
    this.targetEnd -= by;
    this.end = written - by;
    this.start = 0;
    this.bytes = bytes;
  }

  grow(): void {
    const offsets = new Uint32Array(this.offsets.length * 2);
    offsets.set(this.offsets);
    this.offsets = offsets;
    const kinds = new Uint8Array(this.kinds.length * 2);
    kinds.set(this.kinds);
    this.kinds = kinds;
  }

  method(): string {
    const { bytes, start, methodEnd } = this;
    // The two that are most of all requests, without making a string.
    if (methodEnd - start === 3 && bytes[start] === 0x47 && bytes[start + 1] === 0x45 && bytes[start + 2] === 0x54) return "GET";
    if (methodEnd - start === 4 && bytes[start] === 0x50 && bytes[start + 1] === 0x4f && bytes[start + 2] === 0x53 && bytes[start + 3] === 0x54) return "POST";
    return latin1Slice(bytes, start, methodEnd);
  }

  target(): string {
    return latin1Slice(this.bytes, this.targetStart, this.targetEnd);
  }

  /** In lower case. */
  nameAt(i: number): string {
    return latin1Slice(this.bytes, this.offsets[i * 4]!, this.offsets[i * 4 + 1]!).toLowerCase();
  }

  valueAt(i: number): string {
    return latin1Slice(this.bytes, this.offsets[i * 4 + 2]!, this.offsets[i * 4 + 3]!);
  }

  /** A tab stands before or after the value: white space to the RFC, part of the value to some readers. */
  hasTabAround(i: number): boolean {
    const { bytes, offsets } = this;
    for (let at = offsets[i * 4 + 1]! + 1; at < offsets[i * 4 + 2]!; at++) if (bytes[at] === 0x09) return true;
    for (let at = offsets[i * 4 + 3]!; bytes[at] === 0x20 || bytes[at] === 0x09; at++) if (bytes[at] === 0x09) return true;
    return false;
  }

  /** The value is exactly `text`. */
  valueIs(i: number, text: string): boolean {
    const { bytes, offsets } = this;
    const start = offsets[i * 4 + 2]!;
    if (offsets[i * 4 + 3]! - start !== text.length) return false;
    for (let j = 0; j < text.length; j++) if (bytes[start + j] !== text.charCodeAt(j)) return false;
    return true;
  }

  /** No longer shown, nor sent on. */
  hide(i: number): void {
    this.kinds[i]! |= HIDDEN;
  }

  /** Hides every field of that name; false when there is none. */
  hideNamed(name: string): boolean {
    let found = false;
    for (let i = this.find(name, 0); i >= 0; i = this.find(name, i + 1)) {
      this.kinds[i]! |= HIDDEN;
      found = true;
    }
    return found;
  }

  /** Index of the next field of that name (lower case) that is shown, from `from` on; -1 without one. */
  private find(name: string, from: number): number {
    const { offsets, bytes, kinds } = this;
    const length = name.length;
    next: for (let i = from; i < this.count; i++) {
      const at = offsets[i * 4]!;
      if (offsets[i * 4 + 1]! - at !== length || (kinds[i]! & HIDDEN) !== 0) continue;
      for (let j = 0; j < length; j++) if (LOWER[bytes[at + j]!]! !== name.charCodeAt(j)) continue next;
      return i;
    }
    return -1;
  }

  // ── HttpFields ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  has(name: string): boolean {
    return this.find(name, 0) >= 0 || (this.extra !== null && this.extra.some((text, i) => (i & 1) === 0 && text === name));
  }

  value(name: string): string | undefined {
    let found: string | undefined;
    for (let i = this.find(name, 0); i >= 0; i = this.find(name, i + 1)) found = found === undefined ? this.valueAt(i) : found + separatorOf(name) + this.valueAt(i);
    const { extra } = this;
    if (extra !== null) for (let i = 0; i < extra.length; i += 2) if (extra[i] === name) found = found === undefined ? extra[i + 1] : found + separatorOf(name) + extra[i + 1]!;
    return found;
  }

  values(name: string): string[] {
    const found: string[] = [];
    for (let i = this.find(name, 0); i >= 0; i = this.find(name, i + 1)) found.push(this.valueAt(i));
    const { extra } = this;
    if (extra !== null) for (let i = 0; i < extra.length; i += 2) if (extra[i] === name) found.push(extra[i + 1]!);
    return found;
  }

  remove(name: string): void {
    this.hideNamed(name);
    if (this.extra === null) return;
    const kept: HeaderList = [];
    for (let i = 0; i < this.extra.length; i += 2) if (this.extra[i] !== name) kept.push(this.extra[i]!, this.extra[i + 1]!);
    this.extra = kept;
  }

  removeWhere(initials: string, test: (name: string) => boolean): void {
    const { kinds, offsets, bytes } = this;
    for (let i = 0; i < this.count; i++) {
      if ((kinds[i]! & HIDDEN) !== 0 || !initials.includes(String.fromCharCode(LOWER[bytes[offsets[i * 4]!]!]!)) || !test(this.nameAt(i))) continue;
      kinds[i]! |= HIDDEN;
    }
    const { extra } = this;
    if (extra === null) return;
    for (let i = extra.length - 2; i >= 0; i -= 2) if (initials.includes(extra[i]![0]!) && test(extra[i]!)) extra.splice(i, 2);
  }

  append(name: string, value: string): void {
    checkField(name, value);
    (this.extra ??= []).push(name, value);
  }

  appendOwn(name: string, value: string): void {
    (this.extra ??= []).push(name, value);
  }

  set(name: string, value: string): void {
    checkField(name, value);
    this.remove(name);
    (this.extra ??= []).push(name, value);
  }

  appendTo(list: HeaderList): void {
    let cookieAt = -1;
    for (let i = 0; i < this.count; i++) {
      if ((this.kinds[i]! & HIDDEN) !== 0) continue;
      const name = this.nameAt(i);
      // Several cookie fields are as wrong in HTTP/1 as crumbs are right in HTTP/2; one line is what everybody reads alike.
      if (name === "cookie" && cookieAt >= 0) {
        list[cookieAt] += `; ${this.valueAt(i)}`;
        continue;
      }
      list.push(name, this.valueAt(i));
      if (name === "cookie") cookieAt = list.length - 1;
    }
    if (this.extra !== null) for (const text of this.extra) list.push(text);
  }

  /** Runs of lines that are written as we would write them (one space, no trailing white space) are copied whole. */
  writeLines(output: OutputBuffer): void {
    const { offsets, bytes, kinds, count } = this;
    let runStart = -1;
    let runEnd = -1;
    for (let i = 0; i < count; i++) {
      const nameStart = offsets[i * 4]!;
      const nameEnd = offsets[i * 4 + 1]!;
      const valueStart = offsets[i * 4 + 2]!;
      const valueEnd = offsets[i * 4 + 3]!;
      if ((kinds[i]! & HIDDEN) === 0) {
        if (valueStart === nameEnd + 2 && bytes[nameEnd + 1] === 0x20 && bytes[valueEnd] === 0x0d) {
          if (runEnd !== nameStart) {
            if (runStart >= 0) copyRange(output, bytes, runStart, runEnd);
            runStart = nameStart;
          }
          runEnd = valueEnd + 2;
        } else {
          if (runStart >= 0) copyRange(output, bytes, runStart, runEnd);
          runStart = runEnd = -1;
          writeText(output, `${latin1Slice(bytes, nameStart, nameEnd)}: ${latin1Slice(bytes, valueStart, valueEnd)}\r\n`);
        }
      }
    }
    if (runStart >= 0) copyRange(output, bytes, runStart, runEnd);
    if (this.extra !== null && this.extra.length > 0) writeText(output, linesOf(this.extra));
  }
}

const NO_BYTES = new Uint8Array(0);

function copyRange(output: OutputBuffer, bytes: Uint8Array, start: number, end: number): void {
  const at = output.reserve(end - start);
  copyBytes(bytes, start, end, output.bytes, at);
}
