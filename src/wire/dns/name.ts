// Domain names: wire form, with compression (RFC 1035, sections 3.1 and 4.1.4), to and from text. Pure, and bounded whatever the
// pointers say.
//
// In text a name has no trailing dot; the root is "". A dot or backslash inside a label is escaped by a backslash, a byte that
// is not printable ASCII as \DDD (RFC 4343, section 2.1), so that text and wire form stand for each other exactly.

/** RFC 1035 section 2.3.4, the octet of the root included. */
export const NAME_BYTES_MAX = 255;
export const LABEL_BYTES_MAX = 63;

export interface NameRead {
  readonly text: string;
  /** Offset after the name where it stands: after the first pointer, or after the root. */
  readonly next: number;
}

/**
 * Reads the name at `start`; null when it is malformed: past the end, longer than NAME_BYTES_MAX, a reserved label type, or a
 * pointer that does not point strictly before the labels it continues. Pointers can therefore never loop.
 * @param bytes the whole message.
 */
export function readName(bytes: Uint8Array, start: number): NameRead | null {
  let text = "";
  let octets = 1;
  let at = start;
  let next = -1;
  let pointersBelow = start;
  for (;;) {
    const length = bytes[at];
    if (length === undefined) return null;
    if (length === 0) return { text, next: next < 0 ? at + 1 : next };
    if (length > LABEL_BYTES_MAX) {
      const low = bytes[at + 1];
      if (length < 0xc0 || low === undefined) return null;
      const target = ((length & 0x3f) << 8) | low;
      if (target >= pointersBelow) return null;
      if (next < 0) next = at + 2;
      at = pointersBelow = target;
      continue;
    }
    octets += 1 + length;
    const end = at + 1 + length;
    if (octets > NAME_BYTES_MAX || end >= bytes.length) return null;
    if (text !== "") text += ".";
    for (let i = at + 1; i < end; i++) text += charOf(bytes[i]!);
    at = end;
  }
}

/** The offset after the name at `start`, or -1 when the part that stands there is malformed. Follows no pointer. */
export function skipName(bytes: Uint8Array, start: number): number {
  let at = start;
  for (;;) {
    const length = bytes[at];
    if (length === undefined || at - start >= NAME_BYTES_MAX) return -1;
    if (length === 0) return at + 1;
    if (length >= 0xc0) return at + 2 <= bytes.length ? at + 2 : -1;
    if (length > LABEL_BYTES_MAX) return -1;
    at += 1 + length;
  }
}

/** A fresh uncompressed wire form; null for an empty or too long label, a name that is too long, or a bad escape. */
export function encodeName(text: string): Uint8Array | null {
  const bytes = new Uint8Array(NAME_BYTES_MAX);
  if (text === "") return bytes.slice(0, 1);
  let labelAt = 0;
  let at = 1;
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if (code === DOT) {
      if (!closeLabel(bytes, labelAt, at)) return null;
      labelAt = at++;
      continue;
    }
    if (code === BACKSLASH) {
      const digits = /^[0-9]{3}/.exec(text.slice(i + 1, i + 4));
      code = digits === null ? text.charCodeAt(i + 1) : Number(digits[0]);
      i += digits === null ? 1 : 3;
    }
    // Also ends names past the limit; the comparison is false for the NaN after a backslash at the end.
    if (!(code <= 0xff) || at >= NAME_BYTES_MAX) return null;
    bytes[at++] = code;
  }
  if (!closeLabel(bytes, labelAt, at) || at >= NAME_BYTES_MAX) return null;
  return bytes.slice(0, at + 1);
}

/** Names compare without regard to ASCII case (RFC 4343): letters in lower case; an escape has none. */
export function lowerName(text: string): string {
  return text.toLowerCase();
}

/** Labels of a name in text, escapes kept; none for the root. */
export function labelsOf(text: string): string[] {
  if (text === "") return [];
  if (!text.includes("\\")) return text.split(".");
  const labels: string[] = [];
  let label = "";
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    if (char === ".") {
      labels.push(label);
      label = "";
    } else {
      label += char;
      if (char === "\\") label += text[++i] ?? "";
    }
  }
  labels.push(label);
  return labels;
}

const DOT = 0x2e;
const BACKSLASH = 0x5c;

function closeLabel(bytes: Uint8Array, labelAt: number, end: number): boolean {
  const length = end - labelAt - 1;
  if (length < 1 || length > LABEL_BYTES_MAX) return false;
  bytes[labelAt] = length;
  return true;
}

function charOf(byte: number): string {
  if (byte === DOT) return "\\.";
  if (byte === BACKSLASH) return "\\\\";
  if (byte > 0x20 && byte < 0x7f) return String.fromCharCode(byte);
  return `\\${String(byte).padStart(3, "0")}`;
}
