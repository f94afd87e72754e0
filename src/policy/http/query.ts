// Parameters of a query, read only when a rule asks for one: percent-decoded, the first of several, `+` left as it is (as Envoy does:
// turning it into a space is a habit of forms, not of URLs).

const PERCENT = /%[0-9A-Fa-f]{2}/;
const utf8 = new TextDecoder();

/**
 * The first value of the parameter `name`; undefined when there is none, empty for `?name` and `?name=`.
 * @param query with or without its question mark, one char per byte.
 */
export function queryValue(query: string, name: string): string | undefined {
  let at = query.charCodeAt(0) === 0x3f ? 1 : 0;
  while (at < query.length) {
    let end = query.indexOf("&", at);
    if (end < 0) end = query.length;
    const equals = query.indexOf("=", at);
    const nameEnd = equals < 0 || equals > end ? end : equals;
    if (isName(query, at, nameEnd, name)) return percentDecoded(query.slice(Math.min(nameEnd + 1, end), end));
    at = end + 1;
  }
  return undefined;
}

/** The query without any parameter of that name; empty when nothing is left. */
export function withoutQueryParameter(query: string, name: string): string {
  const raw = query.startsWith("?") ? query.slice(1) : query;
  const kept = raw.split("&").filter((part) => {
    const equals = part.indexOf("=");
    return !isName(part, 0, equals < 0 ? part.length : equals, name);
  });
  const rest = kept.join("&");
  return rest === "" ? "" : `?${rest}`;
}

/**
 * The query with parameters taken out and set, as an authoriser wants it: one that is set takes the place of all of its name, at the end.
 * @param query with its question mark, or empty. @param set names and values as text.
 */
export function changeQuery(query: string, set: readonly (readonly [name: string, value: string])[], remove: readonly string[]): string {
  let changed = query;
  for (const name of remove) changed = withoutQueryParameter(changed, name);
  for (const [name, value] of set) {
    changed = withoutQueryParameter(changed, name);
    changed += `${changed === "" ? "?" : "&"}${escaped(name)}=${escaped(value)}`;
  }
  return changed;
}

/** Everything but RFC 3986's unreserved characters as percent escapes of UTF-8; what is no text in Unicode becomes U+FFFD. */
function escaped(text: string): string {
  return encodeURIComponent(text.toWellFormed()).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function isName(query: string, from: number, to: number, name: string): boolean {
  if (to - from === name.length && query.startsWith(name, from)) return true;
  return to - from > name.length && percentDecoded(query.slice(from, to)) === name;
}

/** Bytes by their escapes, read as UTF-8. An escape that is none stands for itself. */
function percentDecoded(text: string): string {
  if (!PERCENT.test(text) && !/[\x80-\xff]/.test(text)) return text;
  const bytes = new Uint8Array(text.length);
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    const escape = text.charCodeAt(i) === 0x25 && PERCENT.test(text.slice(i, i + 3));
    bytes[length++] = escape ? parseInt(text.slice(i + 1, i + 3), 16) : text.charCodeAt(i);
    if (escape) i += 2;
  }
  return utf8.decode(bytes.subarray(0, length));
}
