// DER, the one canonical encoding of ASN.1 that certificates use (ITU-T X.690, clause 10). Reads and writes; no IO.
// Strict: definite minimal lengths, low tag numbers, minimal integers; what BER would allow is refused, so that whatever is
// accepted re-encodes to the same bytes. Knows nothing of certificates.

/** Thrown inside the readers of this folder and turned into a Result at their border; not an Error, so that no stack is taken. */
export class DerFault {
  readonly code: X509FaultCode;
  readonly message: string;
  constructor(code: X509FaultCode, message: string) {
    this.code = code;
    this.message = message;
  }
}

/** `malformed`: not DER, or not the structure. `too_large`: over a bound of ours. `unsupported`: well-formed, but a form we refuse. */
export type X509FaultCode = "malformed" | "too_large" | "unsupported";

export interface X509Fault {
  readonly code: X509FaultCode;
  readonly message: string;
}

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Context-specific tag `[n]`, constructed or not. */
export const contextTag = (n: number, constructed: boolean): number => (constructed ? 0xa0 : 0x80) | n;

/** Lengths of more than three octets (16 MiB) do not occur in what we read. */
const LENGTH_OCTETS_MAX = 3;

/** Bit of a tag that says that elements are inside. */
const CONSTRUCTED = 0x20;
/** Unread content that is nested deeper serves only to exhaust a stack. */
const NESTING_MAX = 16;

/** One element: `bytes` borrowed, `[start, end)` the whole, `[contentStart, end)` its content. */
export interface Element {
  readonly tag: number;
  readonly start: number;
  readonly contentStart: number;
  readonly end: number;
}

/** Walks the elements of one region of `bytes`, which stay borrowed. Every method throws DerFault on what is not DER. */
export class DerReader {
  readonly bytes: Uint8Array;
  readonly end: number;
  #at: number;

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.bytes = bytes;
    this.#at = start;
    this.end = end;
  }

  get atEnd(): boolean {
    return this.#at === this.end;
  }

  /** Tag of the next element, or -1 at the end. */
  peekTag(): number {
    return this.#at < this.end ? this.bytes[this.#at]! : -1;
  }

  /** Reads the next element, whatever it is. */
  any(what: string): Element {
    const start = this.#at;
    const bytes = this.bytes;
    if (this.end - start < 2) throw new DerFault("malformed", `${what} at byte ${start}: cut short`);
    const tag = bytes[start]!;
    if ((tag & 0x1f) === 0x1f) throw new DerFault("malformed", `${what} at byte ${start}: a tag of more than one octet`);
    let length = bytes[start + 1]!;
    let contentStart = start + 2;
    if (length >= 0x80) {
      const octets = length & 0x7f;
      if (octets === 0) throw new DerFault("malformed", `${what} at byte ${start}: indefinite length is BER, not DER`);
      if (octets > LENGTH_OCTETS_MAX) throw new DerFault("too_large", `${what} at byte ${start}: length of ${octets} octets`);
      if (this.end - contentStart < octets) throw new DerFault("malformed", `${what} at byte ${start}: cut short in its length`);
      length = 0;
      for (let i = 0; i < octets; i++) length = (length << 8) | bytes[contentStart + i]!;
      contentStart += octets;
      if (length < 0x80 || length >>> (8 * (octets - 1)) === 0) throw new DerFault("malformed", `${what} at byte ${start}: length not minimal`);
    }
    const end = contentStart + length;
    if (end > this.end) throw new DerFault("malformed", `${what} at byte ${start}: claims ${length} bytes, ${this.end - contentStart} are left`);
    this.#at = end;
    return { tag, start, contentStart, end };
  }

  /** Reads past the next element, whose content means nothing to us; it must be DER all the same. */
  unread(what: string): Element {
    const element = this.any(what);
    this.checkInside(element, what);
    return element;
  }

  /** Checks the lengths of everything inside a constructed element. */
  checkInside(element: Element, what: string, depth = 0): void {
    if ((element.tag & CONSTRUCTED) === 0) return;
    if (depth === NESTING_MAX) throw new DerFault("too_large", `${what}: nested more than ${NESTING_MAX} deep`);
    const inner = this.within(element);
    while (!inner.atEnd) inner.checkInside(inner.any(what), what, depth + 1);
  }

  element(tag: number, what: string): Element {
    const at = this.#at;
    const found = this.any(what);
    if (found.tag !== tag) throw new DerFault("malformed", `${what} at byte ${at}: tag 0x${found.tag.toString(16)}, wanted 0x${tag.toString(16)}`);
    return found;
  }

  /** A reader over the content of the next element, which must have `tag`. */
  inside(tag: number, what: string): DerReader {
    return this.within(this.element(tag, what));
  }

  within(element: Element): DerReader {
    return new DerReader(this.bytes, element.contentStart, element.end);
  }

  /** Ends a region: nothing may follow. */
  finish(what: string): void {
    if (this.#at !== this.end) throw new DerFault("malformed", `${what}: ${this.end - this.#at} bytes too many at byte ${this.#at}`);
  }

  content(element: Element): Uint8Array {
    return this.bytes.subarray(element.contentStart, element.end);
  }

  whole(element: Element): Uint8Array {
    return this.bytes.subarray(element.start, element.end);
  }

  boolean(what: string): boolean {
    const element = this.element(TAG.boolean, what);
    const value = this.bytes[element.contentStart];
    if (element.end - element.contentStart !== 1 || (value !== 0x00 && value !== 0xff)) throw new DerFault("malformed", `${what}: a boolean is 00 or ff`);
    return value === 0xff;
  }

  /** The content of an INTEGER, minimal two's complement; may be negative. */
  integer(what: string): Uint8Array {
    const element = this.element(TAG.integer, what);
    return minimalInteger(this.content(element), what);
  }

  /** A non-negative INTEGER below 2^31. */
  smallInteger(what: string): number {
    const content = this.integer(what);
    if (content[0]! >= 0x80) throw new DerFault("malformed", `${what}: negative`);
    if (content.length > 4) throw new DerFault("too_large", `${what}: more than 31 bits`);
    let value = 0;
    for (const octet of content) value = value * 256 + octet;
    return value;
  }

  /** Dotted text of an OBJECT IDENTIFIER. */
  oid(what: string): string {
    return readOid(this.content(this.element(TAG.oid, what)), what);
  }

  /** Content of a BIT STRING of whole octets, without the count of unused bits. */
  octetBits(what: string): Uint8Array {
    const content = this.content(this.element(TAG.bitString, what));
    if (content.length === 0 || content[0] !== 0) throw new DerFault("malformed", `${what}: a bit string of whole octets starts with 00`);
    return content.subarray(1);
  }

  octets(what: string): Uint8Array {
    return this.content(this.element(TAG.octetString, what));
  }
}

function minimalInteger(content: Uint8Array, what: string): Uint8Array {
  const first = content[0];
  if (first === undefined) throw new DerFault("malformed", `${what}: empty integer`);
  const second = content[1];
  if (second !== undefined && ((first === 0x00 && second < 0x80) || (first === 0xff && second >= 0x80))) {
    throw new DerFault("malformed", `${what}: integer not minimal`);
  }
  return content;
}

/** RFC 5280 needs no longer OIDs; Microsoft's have some 20 octets. */
const OID_OCTETS_MAX = 64;

function readOid(content: Uint8Array, what: string): string {
  if (content.length === 0 || content.length > OID_OCTETS_MAX) throw new DerFault("malformed", `${what}: object identifier of ${content.length} octets`);
  if (content[content.length - 1]! >= 0x80) throw new DerFault("malformed", `${what}: object identifier cut short`);
  let text = "";
  let arc = 0;
  let fresh = true;
  for (const octet of content) {
    if (fresh && octet === 0x80) throw new DerFault("malformed", `${what}: object identifier not minimal`);
    if (arc > Number.MAX_SAFE_INTEGER / 128 - 1) throw new DerFault("too_large", `${what}: an arc of more than 53 bits`);
    arc = arc * 128 + (octet & 0x7f);
    fresh = octet < 0x80;
    if (!fresh) continue;
    if (text === "") {
      const root = Math.min(2, Math.floor(arc / 40));
      text = `${root}.${arc - root * 40}`;
    } else {
      text += `.${arc}`;
    }
    arc = 0;
  }
  return text;
}

// Writing. Everything returns a fresh array; for the few certificates a node makes, clarity beats a shared buffer.

export function encode(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const header = length < 0x80 ? [tag, length]
    : length < 0x100 ? [tag, 0x81, length]
    : length < 0x10000 ? [tag, 0x82, length >> 8, length & 0xff]
    : [tag, 0x83, length >> 16, (length >> 8) & 0xff, length & 0xff];
  if (length >= 0x1000000) throw new Error(`DER element of ${length} bytes`);
  const out = new Uint8Array(header.length + length);
  out.set(header);
  let at = header.length;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export const sequence = (...parts: readonly Uint8Array[]): Uint8Array => encode(TAG.sequence, ...parts);
export const octetString = (content: Uint8Array): Uint8Array => encode(TAG.octetString, content);
export const bitString = (content: Uint8Array): Uint8Array => encode(TAG.bitString, Uint8Array.of(0), content);
export const derTrue: Uint8Array = Uint8Array.of(TAG.boolean, 1, 0xff);

/** A non-negative INTEGER from its big-endian magnitude. */
export function unsignedInteger(magnitude: Uint8Array): Uint8Array {
  let start = 0;
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++;
  const digits = magnitude.length === 0 ? Uint8Array.of(0) : magnitude.subarray(start);
  return digits[0]! >= 0x80 ? encode(TAG.integer, Uint8Array.of(0), digits) : encode(TAG.integer, digits);
}

/** A BIT STRING of named bits (KeyUsage): bit 0 is the highest; trailing zero bits are left out, as DER wants. */
export function namedBits(bits: number): Uint8Array {
  const octets: number[] = [];
  for (let i = 0; i < 16; i++) if (bits & (1 << i)) octets[i >> 3] = (octets[i >> 3] ?? 0) | (0x80 >> (i & 7));
  if (octets.length === 0) return encode(TAG.bitString, Uint8Array.of(0));
  const content = Uint8Array.from(octets, (octet) => octet ?? 0);
  let unused = 0;
  while (!(content[content.length - 1]! & (1 << unused))) unused++;
  return encode(TAG.bitString, Uint8Array.of(unused), content);
}

export function encodeOid(dotted: string): Uint8Array {
  const arcs = dotted.split(".").map(Number);
  const [root = 0, second = 0, ...rest] = arcs;
  const octets: number[] = [];
  for (const arc of [root * 40 + second, ...rest]) {
    const digits = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) digits.unshift((left % 128) | 0x80);
    octets.push(...digits);
  }
  return encode(TAG.oid, Uint8Array.from(octets));
}

/** UTCTime up to 2049, GeneralizedTime after, as RFC 5280 section 4.1.2.5 wants; whole seconds. */
export function encodeTime(ms: number): Uint8Array {
  const digits = new Date(ms).toISOString().replace(/\.\d+Z$/, "").replace(/[-:T]/g, "");
  const utc = Number(digits.slice(0, 4)) < 2050;
  return encode(utc ? TAG.utcTime : TAG.generalizedTime, asciiBytes(`${utc ? digits.slice(2) : digits}Z`));
}

/** Reads the next element of `reader` as a Time; only the forms that encodeTime writes. Milliseconds since the epoch. */
export function readTime(reader: DerReader, what: string): number {
  const element = reader.any(what);
  const text = asciiText(reader.content(element));
  const utc = element.tag === TAG.utcTime;
  if (!utc && element.tag !== TAG.generalizedTime) throw new DerFault("malformed", `${what}: not a time`);
  if (text === null || !(utc ? /^\d{12}Z$/ : /^\d{14}Z$/).test(text)) throw new DerFault("malformed", `${what}: a time is written YYMMDDhhmmssZ or YYYYMMDDhhmmssZ`);
  const full = utc ? `${Number(text.slice(0, 2)) < 50 ? "20" : "19"}${text}` : text;
  const field = (at: number, length: number): number => Number(full.slice(at, at + length));
  const year = field(0, 4);
  const ms = Date.UTC(year, field(4, 2) - 1, field(6, 2), field(8, 2), field(10, 2), field(12, 2));
  if (year < 1950) throw new DerFault("malformed", `${what}: year ${year}`);
  if (!utc && year < 2050) throw new DerFault("malformed", `${what}: years before 2050 are written as UTCTime`);
  if (new Date(ms).toISOString().replace(/\.\d+Z$/, "").replace(/[-:T]/g, "") !== full.slice(0, 14)) throw new DerFault("malformed", `${what}: no such time`);
  return ms;
}

/** Text of bytes that are all 7-bit; null otherwise. */
export function asciiText(bytes: Uint8Array): string | null {
  let text = "";
  for (const octet of bytes) {
    if (octet >= 0x80) return null;
    text += String.fromCharCode(octet);
  }
  return text;
}

export function asciiBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 0x80) throw new Error(`not ASCII: ${text}`);
    bytes[i] = code;
  }
  return bytes;
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
