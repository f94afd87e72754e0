// The program inside the compiled binary, bytecode and all, lies in a section that the linker marks as writable though nobody writes
// to it. Made read-only it is what it should be, constants of a file: a stray write cannot change the program, and pages that only the
// start needed can be dropped like those of any other file (resident-memory.ts).

import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { protectReadOnly } from "../net/libc.ts";

/** Where Bun puts what it compiles in. */
const SECTION = ".bun";
const PAGE_BYTES = 4096;
/** Offsets and sizes of 64-bit ELF, little-endian: the header, a program header, a section header. */
const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const SECTION_HEADER_BYTES = 64;
const PT_LOAD = 1;
/** A binary has a few dozen sections; a table beyond this is not one. */
const HEADERS_MAX = 1024;
const NAMES_BYTES_MAX = 64 * 1024;

/** Reads `bytes` bytes of the file at `offset`; fewer where it ends. */
export type ReadAt = (offset: number, bytes: number) => Uint8Array;

export interface LoadedSection {
  /** As linked: where it is in memory once the bias is added. */
  readonly address: number;
  readonly bytes: number;
  /** Linked address of the file's first byte. */
  readonly imageAddress: number;
}

/** Finds a section by name in a 64-bit little-endian ELF file. @returns null for any other file, and when it has none. Pure but for `readAt`. */
export function elfSection(readAt: ReadAt, name: string): LoadedSection | null {
  const header = view(readAt(0, HEADER_BYTES));
  if (header === null || header.byteLength < HEADER_BYTES || header.getUint32(0) !== 0x7f454c46 || header.getUint16(4) !== 0x0201) return null;
  const imageAddress = firstSegment(readAt, Number(header.getBigUint64(32, true)), header.getUint16(56, true));
  const count = header.getUint16(60, true);
  const namesIndex = header.getUint16(62, true);
  if (imageAddress === null || header.getUint16(58, true) !== SECTION_HEADER_BYTES || count > HEADERS_MAX || namesIndex >= count) return null;
  const table = view(readAt(Number(header.getBigUint64(40, true)), count * SECTION_HEADER_BYTES));
  if (table === null || table.byteLength < count * SECTION_HEADER_BYTES) return null;
  const field = (index: number, at: number): number => Number(table.getBigUint64(index * SECTION_HEADER_BYTES + at, true));
  const namesBytes = field(namesIndex, 32);
  if (namesBytes > NAMES_BYTES_MAX) return null;
  const names = Buffer.from(readAt(field(namesIndex, 24), namesBytes)).toString("latin1");
  for (let index = 0; index < count; index++) {
    const start = table.getUint32(index * SECTION_HEADER_BYTES, true);
    if (names.slice(start, names.indexOf("\0", start)) !== name) continue;
    return { address: field(index, 16), bytes: field(index, 32), imageAddress };
  }
  return null;
}

/** Linked address of the segment that holds the file's first byte. */
function firstSegment(readAt: ReadAt, offset: number, count: number): number | null {
  if (count > HEADERS_MAX) return null;
  const table = view(readAt(offset, count * PROGRAM_HEADER_BYTES));
  if (table === null || table.byteLength < count * PROGRAM_HEADER_BYTES) return null;
  for (let at = 0; at < table.byteLength; at += PROGRAM_HEADER_BYTES) {
    if (table.getUint32(at, true) === PT_LOAD && table.getBigUint64(at + 8, true) === 0n) return Number(table.getBigUint64(at + 16, true));
  }
  return null;
}

const view = (bytes: Uint8Array): DataView | null => (bytes.length === 0 ? null : new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));

/** Makes the compiled program's pages read-only. @returns the number of bytes; 0 when run from source, or where /proc does not tell. */
export function sealEmbeddedProgram(): number {
  try {
    const section = ownSection();
    if (section === null) return 0;
    const first = Math.ceil(section.start / PAGE_BYTES) * PAGE_BYTES;
    const bytes = Math.floor(section.end / PAGE_BYTES) * PAGE_BYTES - first;
    return bytes > 0 && protectReadOnly(first, bytes) === 0 ? bytes : 0;
  } catch {
    // Memory that stays as it was harms nobody.
    return 0;
  }
}

function ownSection(): { readonly start: number; readonly end: number } | null {
  const fd = openSync("/proc/self/exe", "r");
  try {
    const section = elfSection((offset, bytes) => {
      const buffer = new Uint8Array(bytes);
      return buffer.subarray(0, readSync(fd, buffer, 0, bytes, offset));
    }, SECTION);
    // The first mapping is that of the program's own first bytes.
    const loaded = /^([0-9a-f]+)-\S+ \S+ 0+ \S+ [1-9]/.exec(readFileSync("/proc/self/maps", "latin1"));
    if (section === null || loaded === null) return null;
    const start = section.address - section.imageAddress + Number.parseInt(loaded[1]!, 16);
    return { start, end: start + section.bytes };
  } finally {
    closeSync(fd);
  }
}
