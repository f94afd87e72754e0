// HPACK, writing side. Chooses per field between a reference, a literal that enters the table and one that does not.

import { isName, isValue } from "../http/field-bytes.ts";
import { DynamicTable, ENTRY_OVERHEAD_BYTES, STATIC_COUNT, STATIC_FIELD_INDEX, STATIC_NAME_INDEX } from "./hpack-table.ts";
import { huffmanEncode, huffmanEncodedBytes } from "./huffman.ts";
import { latin1Write } from "../http/latin1.ts";
import { DEFAULT_HEADER_TABLE_BYTES } from "./limits.ts";

/** Secrets: marked so that no hop ever puts them into a table (RFC 7541, section 7.1.3). */
const NEVER_INDEXED: ReadonlySet<string> = new Set(["authorization", "proxy-authorization", "cookie", "set-cookie"]);
/** Values that differ each time would only push useful entries out. */
const NOT_INDEXED: ReadonlySet<string> = new Set([
  ":path", "age", "content-length", "content-range", "date", "etag", "expires", "forwarded", "grpc-timeout", "if-match", "if-modified-since",
  "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location", "range", "traceparent", "tracestate", "x-b3-spanid",
  "x-b3-traceid", "x-envoy-attempt-count", "x-forwarded-for", "x-request-id",
]);
/** Our own table needs no more: what repeats in a mesh fits, and every byte is held at both ends. */
const ENCODER_TABLE_BYTES_MAX = DEFAULT_HEADER_TABLE_BYTES;
/** Fields of a block whose like is expected in the next one at the same place: heads of requests and responses have about a dozen. */
const EXPECTED_FIELDS_MAX = 24;
/** Up to so many bytes a loop is faster than making a view for the runtime's copy. */
const LOOPED_BYTES_MAX = 128;
/** A value that would push out more than a quarter of the table is sent as it is. */
const INDEXED_SHARE = 4;

/** Where blocks are put together before they are cut into frames. Grown on demand, shared by all encoders of the thread. */
let scratch = new Uint8Array(8192);

/** Encodes without any table but the static one: the bytes are the same on every connection and may be kept. */
export function encodeStateless(fields: readonly string[]): Uint8Array {
  checkFields(fields);
  const writer = new BlockWriter();
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!;
    const value = fields[i + 1]!;
    const index = STATIC_FIELD_INDEX.get(name)?.get(value);
    if (index !== undefined) writer.integer(0x80, 0x7f, index);
    else writer.literal(NEVER_INDEXED.has(name) ? 0x10 : 0x00, 0x0f, STATIC_NAME_INDEX.get(name) ?? 0, name, value, false);
  }
  return scratch.slice(0, writer.at);
}

/** What stood at one place of the last block, and how it was written. */
interface Expected {
  name: string;
  /** Only where it is in a table. */
  value: string;
  /** In the static table; 0 where it is not. */
  index: number;
  /** In the dynamic table; -1 where it is not. */
  serial: number;
}

export class HpackEncoder {
  private readonly table = new DynamicTable(DEFAULT_HEADER_TABLE_BYTES);
  /** name → value → serial, and name → serial of its newest entry. Made with the first indexed field: many tunnels never have one. */
  private fields: Map<string, Map<string, number>> | null = null;
  private readonly newest = new Map<string, number>();
  private readonly writer = new BlockWriter();
  /** The heads that one connection carries are much alike: what repeats at its place needs neither a check nor a look-up. */
  private readonly expected: Expected[] = [];
  /** Smallest and last table size set since the last block; -1 when none is due. */
  private smallestDue = -1;
  private lastDue = -1;
  private readonly onEvict = (name: string, value: string, serial: number): void => this.forget(name, value, serial);

  get tableBytes(): number {
    return this.table.sizeBytes;
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE. Takes effect at once here; the next block tells the peer. */
  setLimit(peerLimitBytes: number): void {
    const size = Math.min(peerLimitBytes, ENCODER_TABLE_BYTES_MAX);
    if (size === this.table.maxBytes && this.lastDue === -1) return;
    this.smallestDue = this.smallestDue === -1 ? size : Math.min(this.smallestDue, size);
    this.lastDue = size;
    this.table.resize(size, this.onEvict);
  }

  /** As `encodeNext`. Returns a view valid until the next call. */
  encode(fields: readonly string[]): Uint8Array {
    return this.encoded(this.encodeNext(fields));
  }

  /** A view of the last block, valid until the next one. */
  encoded(length: number): Uint8Array {
    return scratch.subarray(0, length);
  }

  /** Encodes the block that is sent next: order matters. Throws on forbidden bytes, with the table as it was. Returns its length, for `copyTo`. */
  encodeNext(fields: readonly string[]): number {
    const { expected, writer } = this;
    // All of them first: a block that stops half way would leave the table out of step.
    for (let i = 0, place = 0; i < fields.length; i += 2, place++) {
      const known = expected[place];
      if (known === undefined || known.name !== fields[i]) checkName(fields[i]!);
      else if (known.value === fields[i + 1] && (known.index > 0 || known.serial >= 0)) continue;
      checkValue(fields[i]!, fields[i + 1]);
    }
    this.begin();
    for (let i = 0, place = 0; i < fields.length; i += 2, place++) {
      const known = expected[place];
      if (known !== undefined && known.name === fields[i] && known.value === fields[i + 1]) {
        if (known.index > 0) {
          writer.integer(0x80, 0x7f, known.index);
          continue;
        }
        if (known.serial >= 0 && this.table.nextSerial - known.serial <= this.table.count) {
          writer.integer(0x80, 0x7f, this.indexOf(known.serial));
          continue;
        }
      }
      this.field(fields[i]!, fields[i + 1]!, place);
    }
    return writer.at;
  }

  /** Copies the block of the last `encodeNext` to `to`, where it begins at `at`. */
  copyTo(to: Uint8Array, at: number): void {
    const { at: length } = this.writer;
    if (length > LOOPED_BYTES_MAX) to.set(scratch.subarray(0, length), at);
    else for (let i = 0; i < length; i++) to[at + i] = scratch[i]!;
  }

  /** A block made by `encodeStateless`, behind a table size update when one is due. */
  prepend(block: Uint8Array): Uint8Array {
    if (this.lastDue === -1) return block;
    this.begin();
    this.writer.raw(block);
    return scratch.subarray(0, this.writer.at);
  }

  private begin(): void {
    this.writer.at = 0;
    if (this.lastDue === -1) return;
    if (this.smallestDue < this.lastDue) this.writer.integer(0x20, 0x1f, this.smallestDue);
    this.writer.integer(0x20, 0x1f, this.lastDue);
    this.smallestDue = this.lastDue = -1;
  }

  private field(name: string, value: string, place: number): void {
    const writer = this.writer;
    const whole = STATIC_FIELD_INDEX.get(name)?.get(value);
    if (whole !== undefined) {
      this.expect(place, name, value, whole, -1);
      return writer.integer(0x80, 0x7f, whole);
    }
    const serial = this.fields?.get(name)?.get(value);
    if (serial !== undefined) {
      this.expect(place, name, value, 0, serial);
      return writer.integer(0x80, 0x7f, this.indexOf(serial));
    }
    const nameIndex = this.nameIndex(name);
    const entryBytes = name.length + value.length + ENTRY_OVERHEAD_BYTES;
    const isSecret = NEVER_INDEXED.has(name);
    if (isSecret || NOT_INDEXED.has(name) || entryBytes > this.table.maxBytes / INDEXED_SHARE) {
      // Its value is not kept: it would be held as long as the connection.
      this.expect(place, name, "", 0, -1);
      return writer.literal(isSecret ? 0x10 : 0x00, 0x0f, nameIndex, name, value, false);
    }
    writer.literal(0x40, 0x3f, nameIndex, name, value, true);
    this.expect(place, name, value, 0, this.remember(name, value, entryBytes));
  }

  private expect(place: number, name: string, value: string, index: number, serial: number): void {
    const known = this.expected[place];
    if (known === undefined) {
      if (place < EXPECTED_FIELDS_MAX) this.expected.push({ name, value, index, serial });
      return;
    }
    known.name = name;
    known.value = value;
    known.index = index;
    known.serial = serial;
  }

  private nameIndex(name: string): number {
    const fixed = STATIC_NAME_INDEX.get(name);
    if (fixed !== undefined) return fixed;
    const serial = this.newest.get(name);
    return serial === undefined ? 0 : this.indexOf(serial);
  }

  private indexOf(serial: number): number {
    return STATIC_COUNT + this.table.nextSerial - serial;
  }

  private remember(name: string, value: string, entryBytes: number): number {
    this.table.makeRoom(entryBytes, this.onEvict);
    const serial = this.table.nextSerial;
    this.table.add(name, value, 0);
    this.fields ??= new Map();
    let values = this.fields.get(name);
    if (values === undefined) this.fields.set(name, (values = new Map()));
    values.set(value, serial);
    this.newest.set(name, serial);
    return serial;
  }

  private forget(name: string, value: string, serial: number): void {
    const values = this.fields?.get(name);
    if (values !== undefined && values.get(value) === serial) {
      values.delete(value);
      if (values.size === 0) this.fields!.delete(name);
    }
    if (this.newest.get(name) === serial) this.newest.delete(name);
  }
}

/** Our own callers hand over fields that were parsed or built by us: a bad byte here would smuggle, so it never leaves. */
export function checkFields(fields: readonly string[]): void {
  for (let i = 0; i < fields.length; i += 2) {
    checkName(fields[i]!);
    checkValue(fields[i]!, fields[i + 1]);
  }
}

function checkName(name: string): void {
  if (!isName(name)) throw new TypeError(`http2: not a field name: ${JSON.stringify(name.slice(0, 64))}`);
}

function checkValue(name: string, value: string | undefined): void {
  if (value === undefined || !isValue(value)) throw new TypeError(`http2: value of ${name} has forbidden bytes`);
}

class BlockWriter {
  at = 0;

  integer(pattern: number, prefixMask: number, value: number): void {
    ensure(this.at + 8);
    if (value < prefixMask) {
      scratch[this.at++] = pattern | value;
      return;
    }
    scratch[this.at++] = pattern | prefixMask;
    let rest = value - prefixMask;
    while (rest >= 0x80) {
      scratch[this.at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    scratch[this.at++] = rest;
  }

  literal(pattern: number, prefixMask: number, nameIndex: number, name: string, value: string, huffman: boolean): void {
    this.integer(pattern, prefixMask, nameIndex);
    if (nameIndex === 0) this.string(name, huffman);
    this.string(value, huffman);
  }

  /** Plain unless the entry enters the table: what is sent once is worth no coding, what is kept is coded once. */
  private string(text: string, huffman: boolean): void {
    if (huffman) {
      const coded = huffmanEncodedBytes(text);
      if (coded < text.length) {
        this.integer(0x80, 0x7f, coded);
        ensure(this.at + coded);
        this.at = huffmanEncode(text, scratch, this.at);
        return;
      }
    }
    this.integer(0x00, 0x7f, text.length);
    ensure(this.at + text.length);
    latin1Write(scratch, text, this.at);
    this.at += text.length;
  }

  raw(bytes: Uint8Array): void {
    ensure(this.at + bytes.length);
    scratch.set(bytes, this.at);
    this.at += bytes.length;
  }
}

function ensure(bytes: number): void {
  if (bytes <= scratch.length) return;
  const grown = new Uint8Array(Math.max(bytes, scratch.length * 2));
  grown.set(scratch);
  scratch = grown;
}
