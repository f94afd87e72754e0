// The `tracestate` header (W3C Trace Context, section 3.3): what other tracers remember beside the trace. We add nothing of ours; it is
// checked, joined and passed on, or dropped as a whole, as the specification asks of what cannot be read.

/** Section 3.3.1.1. */
export const TRACESTATE_MEMBERS_MAX = 32;
/** Section 3.3.1.5 asks for 512 at least. More than four times that serves nobody. */
export const TRACESTATE_CHARS_MAX = 2048;

const KEY = /^(?:[a-z0-9][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})$/;
/** Printable but for the comma and the equals sign, and no space at the end. */
const VALUE = /^[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/;

/**
 * @param values of every field of that name, in order.
 * @returns the members in one line, or null when there is none or one of them is wrong: too many, too long, a bad key or value, a key
 *   that comes twice.
 */
export function readTracestate(values: readonly string[]): string | null {
  if (values.length === 0) return null;
  const text = values.length === 1 ? values[0]! : values.join(",");
  if (text.length > TRACESTATE_CHARS_MAX) return null;
  const seen = new Set<string>();
  let line = "";
  for (const part of text.split(",")) {
    const member = part.replace(/^[ \t]+|[ \t]+$/g, "");
    if (member === "") continue;
    const equals = member.indexOf("=");
    const key = member.slice(0, Math.max(equals, 0));
    if (!KEY.test(key) || !VALUE.test(member.slice(equals + 1)) || seen.has(key) || seen.size === TRACESTATE_MEMBERS_MAX) return null;
    seen.add(key);
    line += line === "" ? member : `,${member}`;
  }
  return line === "" ? null : line;
}
