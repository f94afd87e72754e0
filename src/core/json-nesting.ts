// How deep a JSON text is nested, seen before it is parsed. A parser recurses for each level: a text of a hundred KB of brackets takes it
// seconds, and what it makes of that can no longer be written: the stack ends.

/** Levels that any document of ours, or of a peer that means well, may have; configurations and tokens have some ten. */
export const JSON_NESTING_MAX = 100;

/** True for a text with more open brackets at one place than JSON_NESTING_MAX. Brackets in strings do not count. */
export function isNestedTooDeep(text: string): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (inString) {
      if (code === 0x5c) i++;
      else if (code === 0x22) inString = false;
    } else if (code === 0x22) inString = true;
    else if (code === 0x5b || code === 0x7b) {
      if (++depth > JSON_NESTING_MAX) return true;
    } else if (code === 0x5d || code === 0x7d) depth--;
  }
  return false;
}
