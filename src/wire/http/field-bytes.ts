// Which bytes may stand in a field name or value (RFC 9113, section 8.2.1, read strictly: every control is refused, not only CR, LF and NUL).

const NAME = 1;
const VALUE = 2;
const PATH = 4;
const AUTHORITY = 8;

const CLASS = buildClasses();

function buildClasses(): Uint8Array {
  const table = new Uint8Array(256);
  for (const c of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") mark(table, c, NAME);
  for (let b = 0x20; b < 0x100; b++) if (b !== 0x7f) table[b]! |= VALUE;
  table[0x09]! |= VALUE;
  for (let b = 0x21; b < 0x100; b++) if (b !== 0x7f && b !== 0x23) table[b]! |= PATH;
  for (const c of "-._~!$&'()*+,;=:[]%0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") mark(table, c, AUTHORITY);
  return table;
}

function mark(table: Uint8Array, char: string, bit: number): void {
  table[char.charCodeAt(0)]! |= bit;
}

/** Lower-case token; a leading colon is taken for a pseudo header, whose name is checked against the known ones elsewhere. */
export function isNameBytes(bytes: Uint8Array, start: number, end: number): boolean {
  if (start === end) return false;
  let at = bytes[start] === 0x3a ? start + 1 : start;
  if (at === end) return false;
  for (; at < end; at++) if ((CLASS[bytes[at]!]! & NAME) === 0) return false;
  return true;
}

/** No control bytes but HTAB inside, no white space at either end. */
export function isValueBytes(bytes: Uint8Array, start: number, end: number): boolean {
  if (start === end) return true;
  for (let at = start; at < end; at++) if ((CLASS[bytes[at]!]! & VALUE) === 0) return false;
  return bytes[start]! > 0x20 && bytes[end - 1]! > 0x20;
}

export function isName(text: string): boolean {
  let at = text.charCodeAt(0) === 0x3a ? 1 : 0;
  if (at === text.length) return false;
  for (; at < text.length; at++) if (classOf(text, at, NAME) === 0) return false;
  return true;
}

/** Values of this length and more are tokens and cookies, which come again with each request of a client. */
const LONG_VALUE_CHARS = 128;
const KEPT_VALUE_CHARS_MAX = 4096;
const GOOD_VALUES = 32;
/** Some that were found good, by length and last character: to compare one costs a fraction of looking at its characters. */
const goodValues: string[] = new Array<string>(GOOD_VALUES).fill("");

export function isValue(text: string): boolean {
  if (text.length < LONG_VALUE_CHARS) return hasGoodBytes(text);
  const slot = (text.length + text.charCodeAt(text.length - 1)) % GOOD_VALUES;
  if (goodValues[slot] === text) return true;
  const good = hasGoodBytes(text);
  if (good && text.length <= KEPT_VALUE_CHARS_MAX) goodValues[slot] = text;
  return good;
}

function hasGoodBytes(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (classOf(text, at, VALUE) === 0) return false;
  return text.length === 0 || (text.charCodeAt(0) > 0x20 && text.charCodeAt(text.length - 1) > 0x20);
}

/** A method or another plain token; upper case allowed. */
export function isToken(text: string): boolean {
  if (text.length === 0) return false;
  for (let at = 0; at < text.length; at++) {
    const c = text.charCodeAt(at);
    if (classOf(text, at, NAME) === 0 && !(c >= 0x41 && c <= 0x5a)) return false;
  }
  return true;
}

/** No space, no `#` (a fragment never travels), no control. */
export function isPath(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (classOf(text, at, PATH) === 0) return false;
  return text.length > 0;
}

/** host[:port] without userinfo; what it names is for the caller to parse. */
export function isAuthority(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (classOf(text, at, AUTHORITY) === 0) return false;
  return text.length > 0;
}

function classOf(text: string, at: number, bit: number): number {
  const c = text.charCodeAt(at);
  return c > 0xff ? 0 : CLASS[c]! & bit;
}
