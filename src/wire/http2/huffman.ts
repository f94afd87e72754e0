// The Huffman code of RFC 7541, appendix B. The code is canonical, so its lengths are all there is to know; codes and tables are made at load.

const EOS = 256;
const CODE_BITS_MAX = 30;
/** Bits of the first look-up: every symbol that occurs in ordinary headers has a code of at most 10 bits; 1024 entries stay in L1. */
const FAST_BITS = 10;

// prettier-ignore
const LENGTHS = Uint8Array.of(
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
);

const CODES = new Uint32Array(257);
/** By the next FAST_BITS bits: symbol * 16 + length, or 0 when the code is longer. */
const FAST = new Uint16Array(1 << FAST_BITS);
/** By length: the first code, how many there are, and where their symbols start in SORTED. */
const FIRST_CODE = new Uint32Array(CODE_BITS_MAX + 1);
const COUNT = new Uint16Array(CODE_BITS_MAX + 1);
const OFFSET = new Uint16Array(CODE_BITS_MAX + 1);
const SORTED = new Uint16Array(257);

buildTables();

function buildTables(): void {
  let code = 0;
  let rank = 0;
  for (let bits = 1; bits <= CODE_BITS_MAX; bits++) {
    code *= 2;
    FIRST_CODE[bits] = code;
    OFFSET[bits] = rank;
    for (let symbol = 0; symbol <= EOS; symbol++) {
      if (LENGTHS[symbol] !== bits) continue;
      CODES[symbol] = code;
      SORTED[rank++] = symbol;
      if (bits <= FAST_BITS) FAST.fill(symbol * 16 + bits, code << (FAST_BITS - bits), (code + 1) << (FAST_BITS - bits));
      code++;
    }
    COUNT[bits] = rank - OFFSET[bits]!;
  }
}

/** Most bytes that `encodedBytes` of Huffman code can stand for (the shortest code has 5 bits). */
export function huffmanDecodedBytesMax(encodedBytes: number): number {
  return Math.floor((encodedBytes * 8) / 5);
}

/**
 * Decodes `bytes[start, end)` into `out` from offset 0. `out` must hold `huffmanDecodedBytesMax(end - start)`.
 * @returns bytes written, or -1: EOS inside the string, or padding that is longer than 7 bits or not all ones (RFC 7541, section 5.2).
 */
export function huffmanDecode(bytes: Uint8Array, start: number, end: number, out: Uint8Array): number {
  let at = start;
  let written = 0;
  let acc = 0; // the low `bits` bits are unread input
  let bits = 0;
  for (;;) {
    while (bits <= 22 && at < end) {
      acc = ((acc & 0x3f_ffff) << 8) | bytes[at++]!;
      bits += 8;
    }
    let entry: number;
    if (bits >= FAST_BITS) {
      entry = FAST[(acc >>> (bits - FAST_BITS)) & ((1 << FAST_BITS) - 1)]!;
    } else {
      const rest = acc & ((1 << bits) - 1);
      const ones = (1 << bits) - 1;
      if (bits < 8 && rest === ones) return written;
      // What is missing counts as ones, as padding would be; a code that needs more than the real bits is an error below.
      entry = FAST[((rest << (FAST_BITS - bits)) | ((1 << (FAST_BITS - bits)) - 1)) & ((1 << FAST_BITS) - 1)]!;
    }
    const length = entry & 15;
    if (length !== 0) {
      if (length > bits) return -1;
      bits -= length;
      out[written++] = entry >>> 4;
      continue;
    }
    // A long code: rare (controls, non-ASCII, a few signs). Walk the lengths from the byte position again.
    const bitAt = at * 8 - bits;
    const symbol = longSymbol(bytes, bitAt, end * 8);
    if (symbol < 0) return -1;
    out[written++] = symbol;
    const next = bitAt + LENGTHS[symbol]!;
    at = (next + 7) >>> 3;
    bits = at * 8 - next;
    acc = bits === 0 ? 0 : bytes[at - 1]! & ((1 << bits) - 1);
  }
}

/** The symbol whose code starts at bit `bitAt`, or -1 for EOS or when the input ends inside the code. */
function longSymbol(bytes: Uint8Array, bitAt: number, bitEnd: number): number {
  let code = 0;
  for (let length = 1; length <= CODE_BITS_MAX; length++, bitAt++) {
    if (bitAt >= bitEnd) return -1;
    code = code * 2 + ((bytes[bitAt >>> 3]! >>> (7 - (bitAt & 7))) & 1);
    const rank = code - FIRST_CODE[length]!;
    if (rank >= 0 && rank < COUNT[length]!) {
      const symbol = SORTED[OFFSET[length]! + rank]!;
      return symbol === EOS ? -1 : symbol;
    }
  }
  return -1;
}

/** Bytes that `text` (one char per byte) takes when Huffman coded. */
export function huffmanEncodedBytes(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += LENGTHS[text.charCodeAt(i) & 0xff]!;
  return (bits + 7) >>> 3;
}

/** Writes `text` (one char per byte) Huffman coded at `out[at]`; the caller made room. Returns the offset behind it. */
export function huffmanEncode(text: string, out: Uint8Array, at: number): number {
  let acc = 0;
  let bits = 0;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i) & 0xff;
    let length = LENGTHS[symbol]!;
    let code = CODES[symbol]!;
    if (length > 16) {
      // Two steps, so that the accumulator (at most 7 bits kept) stays inside 31 bits.
      const low = length - 16;
      acc = (acc << 16) | (code >>> low);
      bits += 16;
      while (bits >= 8) out[at++] = acc >>> (bits -= 8);
      acc &= 0xff;
      code &= (1 << low) - 1;
      length = low;
    }
    acc = (acc << length) | code;
    bits += length;
    while (bits >= 8) out[at++] = acc >>> (bits -= 8);
    acc &= 0xff;
  }
  if (bits > 0) out[at++] = ((acc << (8 - bits)) | ((1 << (8 - bits)) - 1)) & 0xff;
  return at;
}
