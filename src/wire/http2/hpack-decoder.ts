// HPACK, reading side (RFC 7541). One per connection and direction; a failed block ends the connection, as the table is lost.

import { isNameBytes, isValueBytes } from "../http/field-bytes.ts";
import type { HeaderList } from "./headers.ts";
import { DynamicTable, ENTRY_OVERHEAD_BYTES, STATIC_COUNT, STATIC_NAMES, STATIC_VALUES } from "./hpack-table.ts";
import { huffmanDecode, huffmanDecodedBytesMax } from "./huffman.ts";
import { latin1Slice } from "../http/latin1.ts";
import { DEFAULT_HEADER_TABLE_BYTES } from "./limits.ts";

/** Marks of a field whose bytes HTTP/2 forbids. HPACK itself does not care: the field still enters the table. */
const BAD_NAME = 1;
const BAD_VALUE = 2;
/** An integer takes at most this many continuation bytes: 28 bits, far above every limit. Longer is refused, leading zeros too. */
const INTEGER_SHIFT_MAX = 21;
/** An encoder announces at most the smallest and the final size between two blocks (RFC 7541, section 4.2). */
const SIZE_UPDATES_MAX = 2;

/**
 * Encoded bytes of a value that is remembered until the next such one: a client's token or cookie, which may enter no table and comes with
 * each of its requests. A shorter one is decoded faster than compared, longer ones are not worth their memory on each connection.
 */
const REPEATED_BYTES_MIN = 64;
const REPEATED_BYTES_MAX = 4096;

/**
 * A block that left the table alone is remembered whole: many servers write the same head with each answer, field by field. Longer ones are
 * not worth their memory on each connection, and one whose blocks differ so many times in a row is left in peace.
 */
const SAME_BLOCK_BYTES_MAX = 256;
const SAME_BLOCK_MISSES_MAX = 8;

/** Huffman strings land here before they become JavaScript strings. Grown on demand, shared by all decoders of the thread. */
let scratch = Buffer.allocUnsafeSlow(4096);

export class HpackDecoder {
  /** Why `decode` returned null. */
  error = "";
  /** After `decode`: the list was larger than allowed and is cut short; the table is in step all the same. */
  listTooLarge = false;
  /** After `decode`: what HTTP/2 forbids in the bytes of a name or value, or the empty string. */
  malformed = "";
  /** After `decode`: decoded size, also of what was cut. */
  listBytes = 0;

  private readonly table = new DynamicTable(DEFAULT_HEADER_TABLE_BYTES);
  private readonly listBytesMax: number;
  /** What the peer may set the table to. */
  private limitBytes = DEFAULT_HEADER_TABLE_BYTES;
  /** We lowered the limit below the table's size: the next block must begin with an update (RFC 7541, section 4.2). */
  private updateDue = false;
  private bytes: Uint8Array = scratch;
  private at = 0;
  private end = 0;
  private marks = 0;
  private stringMark = 0;
  /** The last long value that was Huffman coded: its bytes, and what they stand for. */
  private repeated: Buffer | null = null;
  private repeatedBytes = 0;
  private repeatedText = "";
  private repeatedMark = 0;

  /** The last block, what it stands for, and the table that this holds with; no bytes: none. */
  private block: Uint8Array | null = null;
  private blockBytes = 0;
  private blockList: readonly string[] = [];
  private blockListBytes = 0;
  private blockSerial = 0;
  private blockCount = 0;
  private blockTableBytesMax = 0;
  private blockMissesLeft = SAME_BLOCK_MISSES_MAX;

  constructor(listBytesMax: number) {
    this.listBytesMax = listBytesMax;
  }

  /** Bytes held by the dynamic table. */
  get tableBytes(): number {
    return this.table.sizeBytes;
  }

  /** Call when our SETTINGS_HEADER_TABLE_SIZE is in force: raising takes effect when sent, lowering when acknowledged. */
  setLimit(limitBytes: number): void {
    this.block = null;
    this.limitBytes = limitBytes;
    this.updateDue = this.table.maxBytes > limitBytes;
  }

  /**
   * Decodes one whole header block. Strings are one char per byte (latin1).
   * @param bytes borrowed; `[start, end)` is the block.
   * @returns the list, cut at the limit; or null with `error` set: the peer's fault, COMPRESSION_ERROR, the connection dies.
   */
  decode(bytes: Uint8Array, start: number, end: number): HeaderList | null {
    this.bytes = bytes;
    this.at = start;
    this.end = end;
    this.error = "";
    this.listTooLarge = false;
    this.malformed = "";
    this.listBytes = 0;
    this.marks = 0;
    if (this.isSameBlock(bytes, start, end)) {
      this.bytes = scratch;
      this.listBytes = this.blockListBytes;
      return this.blockList.slice();
    }
    const list: string[] = [];
    const { nextSerial, count } = this.table;
    const held = this.decodeFields(list);
    this.bytes = scratch;
    if (!held) return null;
    if (this.marks !== 0) this.malformed = (this.marks & BAD_NAME) !== 0 ? "a field name with forbidden bytes" : "a field value with forbidden bytes";
    else if (!this.listTooLarge && nextSerial === this.table.nextSerial && count === this.table.count) this.rememberBlock(bytes, start, end, list);
    return list;
  }

  /** The same bytes mean and do the same while no entry came into the table, none left it, and what it may hold is the same. */
  private isSameBlock(bytes: Uint8Array, start: number, end: number): boolean {
    const { block, blockBytes, table } = this;
    if (block === null || blockBytes !== end - start) return false;
    if (this.blockSerial !== table.nextSerial || this.blockCount !== table.count || this.blockTableBytesMax !== table.maxBytes) return false;
    for (let i = 0; i < blockBytes; i++) {
      if (block[i] !== bytes[start + i]) return false;
    }
    this.blockMissesLeft = SAME_BLOCK_MISSES_MAX;
    return true;
  }

  private rememberBlock(bytes: Uint8Array, start: number, end: number, list: readonly string[]): void {
    const length = end - start;
    if (length === 0 || length > SAME_BLOCK_BYTES_MAX || this.blockMissesLeft === 0) return;
    if (--this.blockMissesLeft === 0) {
      this.block = null;
      this.blockList = [];
      return;
    }
    if (this.block === null || this.block.length < length) this.block = new Uint8Array(length);
    for (let i = 0; i < length; i++) this.block[i] = bytes[start + i]!;
    this.blockBytes = length;
    this.blockList = list.slice();
    this.blockListBytes = this.listBytes;
    this.blockSerial = this.table.nextSerial;
    this.blockCount = this.table.count;
    this.blockTableBytesMax = this.table.maxBytes;
  }

  private decodeFields(list: string[]): boolean {
    let sizeUpdates = 0;
    let fields = 0;
    while (this.at < this.end) {
      const first = this.bytes[this.at]!;
      if (first >= 0x80) {
        const index = this.readInteger(0x7f);
        if (index < 0) return false;
        if (!this.emitIndexed(list, index)) return false;
      } else if (first >= 0x40) {
        if (!this.readLiteral(list, 0x3f, true)) return false;
      } else if (first >= 0x20) {
        if (fields > 0) return this.fail("table size update after a field");
        if (++sizeUpdates > SIZE_UPDATES_MAX) return this.fail("more than two table size updates in a row");
        const size = this.readInteger(0x1f);
        if (size < 0) return false;
        if (size > this.limitBytes) return this.fail(`table size update to ${size}, allowed are ${this.limitBytes}`);
        this.table.resize(size);
        this.updateDue = false;
        continue;
      } else if (!this.readLiteral(list, 0x0f, false)) {
        return false;
      }
      fields++;
      if (this.updateDue) return this.fail("no table size update after our limit was lowered");
    }
    return true;
  }

  private emitIndexed(list: string[], index: number): boolean {
    if (index <= STATIC_COUNT) {
      if (index === 0) return this.fail("index 0");
      this.emit(list, STATIC_NAMES[index]!, STATIC_VALUES[index]!);
      return true;
    }
    const age = index - STATIC_COUNT - 1;
    if (age >= this.table.count) return this.fail(`index ${index} is not in the table`);
    this.marks |= this.table.markAt(age);
    this.emit(list, this.table.nameAt(age), this.table.valueAt(age));
    return true;
  }

  private readLiteral(list: string[], prefixMask: number, indexed: boolean): boolean {
    const index = this.readInteger(prefixMask);
    if (index < 0) return false;
    let name: string;
    let mark = 0;
    if (index === 0) {
      const text = this.readString(true);
      if (text === null) return false;
      name = text;
      mark = this.stringMark;
    } else if (index <= STATIC_COUNT) {
      name = STATIC_NAMES[index]!;
    } else {
      const age = index - STATIC_COUNT - 1;
      if (age >= this.table.count) return this.fail(`index ${index} is not in the table`);
      name = this.table.nameAt(age);
      mark = this.table.markAt(age) & BAD_NAME;
    }
    const value = this.readString(false);
    if (value === null) return false;
    mark |= this.stringMark;
    this.marks |= mark;
    if (indexed && this.table.makeRoom(name.length + value.length + ENTRY_OVERHEAD_BYTES)) this.table.add(name, value, mark);
    this.emit(list, name, value);
    return true;
  }

  private emit(list: string[], name: string, value: string): void {
    this.listBytes += name.length + value.length + ENTRY_OVERHEAD_BYTES;
    if (this.listBytes > this.listBytesMax) this.listTooLarge = true;
    else list.push(name, value);
  }

  /** Reads an integer with a prefix of the given mask (RFC 7541, section 5.1). Returns -1 with `error` set. */
  private readInteger(prefixMask: number): number {
    const bytes = this.bytes;
    let value = bytes[this.at++]! & prefixMask;
    if (value < prefixMask) return value;
    let shift = 0;
    for (;;) {
      if (this.at >= this.end) return this.failInteger("the block ends inside an integer");
      const b = bytes[this.at++]!;
      value += (b & 0x7f) << shift;
      if (b < 0x80) return value;
      shift += 7;
      if (shift > INTEGER_SHIFT_MAX) return this.failInteger("an integer of more than 28 bits");
    }
  }

  private readString(isName: boolean): string | null {
    if (this.at >= this.end) return this.failString("the block ends before a string");
    const huffman = this.bytes[this.at]! >= 0x80;
    const length = this.readInteger(0x7f);
    if (length < 0) return null;
    const start = this.at;
    const end = start + length;
    if (end > this.end) return this.failString("a string is longer than its block");
    this.at = end;
    if (!huffman) {
      this.stringMark = isName ? (isNameBytes(this.bytes, start, end) ? 0 : BAD_NAME) : isValueBytes(this.bytes, start, end) ? 0 : BAD_VALUE;
      return latin1Slice(this.bytes, start, end);
    }
    const mayRepeat = !isName && length >= REPEATED_BYTES_MIN && length <= REPEATED_BYTES_MAX;
    if (mayRepeat && length === this.repeatedBytes && this.repeated!.compare(this.bytes, start, end, 0, length) === 0) {
      this.stringMark = this.repeatedMark;
      return this.repeatedText;
    }
    const bytesMax = huffmanDecodedBytesMax(length);
    if (bytesMax > scratch.length) scratch = Buffer.allocUnsafeSlow(bytesMax * 2);
    const decoded = huffmanDecode(this.bytes, start, end, scratch);
    if (decoded < 0) return this.failString("bad Huffman code or padding");
    this.stringMark = isName ? (isNameBytes(scratch, 0, decoded) ? 0 : BAD_NAME) : isValueBytes(scratch, 0, decoded) ? 0 : BAD_VALUE;
    const text = latin1Slice(scratch, 0, decoded);
    if (mayRepeat) this.remember(start, length, text);
    return text;
  }

  private remember(start: number, length: number, text: string): void {
    if (this.repeated === null || this.repeated.length < length) this.repeated = Buffer.allocUnsafeSlow(length);
    this.repeated.set(this.bytes.subarray(start, start + length));
    this.repeatedBytes = length;
    this.repeatedText = text;
    this.repeatedMark = this.stringMark;
  }

  private fail(why: string): false {
    this.error = why;
    return false;
  }

  private failInteger(why: string): number {
    this.error = why;
    return -1;
  }

  private failString(why: string): null {
    this.error = why;
    return null;
  }
}
