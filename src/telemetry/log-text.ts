// How values stand in a log line, whatever the line is about. Everything that came from outside is escaped, so that no name can forge
// a line or a field, in text and in JSON alike.

/** A longer value is cut: it came from outside. */
export const VALUE_CHARS_MAX = 1024;

export function quoteText(text: string): string {
  return `"${escaped(text)}"`;
}

/** Escaped alike: what `escaped` makes is valid inside a JSON string too. */
export function quoteJson(text: string): string {
  return `"${escaped(text)}"`;
}

/** Quotes, backslashes, control characters, line separators and lone surrogates cannot leave the string they stand in. */
export function escaped(text: string): string {
  const short = text.length > VALUE_CHARS_MAX ? `${text.slice(0, VALUE_CHARS_MAX)}...` : text;
  return UNSAFE.test(short) ? short.replace(UNSAFE_ALL, escapeUnit) : short;
}

/** For one place of a line, whose value is often the one of the line before: that one is not looked at again. */
export class RepeatedText {
  #raw = "";
  #escaped = "";

  escaped(text: string): string {
    if (text !== this.#raw) {
      this.#escaped = escaped(text);
      this.#raw = text;
    }
    return this.#escaped;
  }
}

const UNSAFE = /[^\x20\x21\x23-\x5b\x5d-\x7e]/;
const UNSAFE_ALL = /[^\x20\x21\x23-\x5b\x5d-\x7e]/g;

function escapeUnit(unit: string): string {
  if (unit === '"' || unit === "\\") return `\\${unit}`;
  if (unit === "\n") return "\\n";
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

let stampMs = Number.NaN;
let stamp = "";

/** Many lines end in the same millisecond; formatting the date costs more than the rest of the line. */
export function timestamp(wallMs: number): string {
  const ms = Math.floor(wallMs);
  if (ms !== stampMs) {
    stampMs = ms;
    stamp = new Date(ms).toISOString();
  }
  return stamp;
}
