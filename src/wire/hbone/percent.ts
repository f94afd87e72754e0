// Percent-encoding (RFC 3986, section 2.1) over header text, which holds one byte per char.

/** The bytes that `text` stands for; null for a `%` that two hexadecimal digits do not follow, and for a char that is not a byte. */
export function percentDecode(text: string): Uint8Array | null {
  const bytes = new Uint8Array(text.length);
  let end = 0;
  for (let i = 0; i < text.length; i++) {
    let byte = text.charCodeAt(i);
    if (byte > 0xff) return null;
    if (byte === PERCENT) {
      const high = hexDigit(text.charCodeAt(i + 1));
      const low = hexDigit(text.charCodeAt(i + 2));
      if (high < 0 || low < 0) return null;
      byte = (high << 4) | low;
      i += 2;
    }
    bytes[end++] = byte;
  }
  return bytes.subarray(0, end);
}

const PERCENT = 0x25;

/** -1 for what is no digit, the NaN past the end of a text included. */
function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}
