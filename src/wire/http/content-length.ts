// Content-Length, read in one way only (RFC 9110, section 8.6): digits, nothing else. Signs, spaces, hex, lists and numbers that a
// double cannot hold exactly are no length.

/** The length is not known, does not bind the body, or is no number. */
export const LENGTH_UNKNOWN = -1;

/** 2^53 has 16 digits; 15 never lose precision. */
const CONTENT_LENGTH_DIGITS_MAX = 15;

export function parseContentLength(text: string): number {
  if (text.length === 0 || text.length > CONTENT_LENGTH_DIGITS_MAX) return LENGTH_UNKNOWN;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return LENGTH_UNKNOWN;
    value = value * 10 + digit;
  }
  return value;
}

/** The same of bytes `start` to `end`. */
export function parseContentLengthBytes(bytes: Uint8Array, start: number, end: number): number {
  if (start === end || end - start > CONTENT_LENGTH_DIGITS_MAX) return LENGTH_UNKNOWN;
  let value = 0;
  for (let at = start; at < end; at++) {
    const digit = bytes[at]! - 0x30;
    if (digit < 0 || digit > 9) return LENGTH_UNKNOWN;
    value = value * 10 + digit;
  }
  return value;
}
