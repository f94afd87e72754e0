// The one normaliser of paths: what it returns is matched, authorised, logged and sent upstream. RFC 3986, sections 2.1, 3.3, 5.2.4
// and 6.2.2, with the choices of Istio's `pathNormalization`. Pure; knows no query and no host.
//
// Its result consists of "/" and RFC 3986 pchar only, has no dot segment (with or without parameters), and is its own normal form.

import { err, ok, type Result } from "../../core/result.ts";

/**
 * `none`: as it came. `base`: unreserved characters decoded, escapes in upper case, dot segments gone, backslash becomes slash,
 * %2F and %5C stay. `mergeSlashes`: then runs of slashes become one. `decodeAndMergeSlashes`: %2F and %5C count as slashes, first of all.
 */
export type PathNormalisation = "none" | "base" | "mergeSlashes" | "decodeAndMergeSlashes";

/** Istio's own default. */
export const DEFAULT_PATH_NORMALISATION: PathNormalisation = "base";

const UNRESERVED = 1;
const PCHAR = 2;
const CLASS = buildClasses();
const HEX_UPPER = "0123456789ABCDEF";

const SLASH = 0x2f;
const BACKSLASH = 0x5c;
const PERCENT = 0x25;
const DOT = 0x2e;
const QUESTION = 0x3f;
const HASH = 0x23;

function buildClasses(): Uint8Array {
  const table = new Uint8Array(256);
  for (const c of "-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") table[c.charCodeAt(0)] = UNRESERVED | PCHAR;
  for (const c of "!$&'()*+,;=:@/") table[c.charCodeAt(0)] = PCHAR;
  return table;
}

/**
 * @param path begins with a slash, has no query; one char per byte.
 * @returns the path in its one form, or why it has none (the peer's fault, 400): an escape that is not two hex digits, %00, a control
 *   byte, a fragment, UTF-8 in a longer form than needed (some decoders read a dot or a slash into it).
 */
export function normalisePath(path: string, how: PathNormalisation): Result<string, string> {
  if (path.charCodeAt(0) !== SLASH) return err("the path does not begin with a slash");
  if (how === "none" || isNormal(path, how !== "base")) return ok(path);
  const decoded = decode(path, how === "decodeAndMergeSlashes");
  if (!decoded.ok) return decoded;
  const flat = removeDotSegments(decoded.value);
  return ok(how === "base" ? flat : flat.replace(/\/\/+/g, "/"));
}

/** The usual case, without building anything: nothing to decode, no dot segment, no run of slashes where they are merged. */
function isNormal(path: string, merging: boolean): boolean {
  let segmentStart = true;
  for (let i = 1; i < path.length; i++) {
    const c = path.charCodeAt(i);
    if (c > 0xff || (CLASS[c]! & PCHAR) === 0) return false;
    if (c === SLASH) {
      if (segmentStart && merging) return false;
      segmentStart = true;
    } else {
      // Not only "." and "..": ".well-known" takes the slow way too, which is right and still cheap.
      if (segmentStart && c === DOT) return false;
      segmentStart = false;
    }
  }
  return true;
}

function decode(path: string, slashes: boolean): Result<string, string> {
  let out = "";
  let previous = 0;
  for (let i = 0; i < path.length; i++) {
    let byte = path.charCodeAt(i);
    if (byte > 0xff) return err("the path has a character that is no byte");
    let escaped = false;
    if (byte === PERCENT) {
      byte = hexPair(path, i + 1);
      if (byte < 0) return err("the path has a % that two hex digits do not follow");
      if (byte === 0) return err("the path has %00");
      i += 2;
      escaped = true;
    } else if (byte <= 0x20 || byte === 0x7f || byte === QUESTION || byte === HASH) {
      return err(byte === HASH ? "the path has a fragment" : "the path has a byte that no path may have");
    }
    if (isOverlong(previous, byte)) return err("the path has UTF-8 in a longer form than needed");
    previous = byte;
    if (!escaped) {
      if (byte === BACKSLASH) out += "/";
      else if ((CLASS[byte]! & PCHAR) !== 0) out += path[i]!;
      else out += escape(byte);
    } else if ((CLASS[byte]! & UNRESERVED) !== 0) {
      out += String.fromCharCode(byte);
    } else if (slashes && (byte === SLASH || byte === BACKSLASH)) {
      out += "/";
    } else {
      out += escape(byte);
    }
  }
  return ok(out);
}

function escape(byte: number): string {
  return `%${HEX_UPPER[byte >> 4]!}${HEX_UPPER[byte & 15]!}`;
}

/** RFC 3629: C0 and C1 begin no character; E0 wants A0 and F0 wants 90 at least. */
function isOverlong(lead: number, next: number): boolean {
  if (next < 0x80 || next > 0xbf) return false;
  return lead === 0xc0 || lead === 0xc1 || (lead === 0xe0 && next < 0xa0) || (lead === 0xf0 && next < 0x90);
}

function hexPair(text: string, at: number): number {
  if (at + 1 >= text.length) return -1;
  const high = hexDigit(text.charCodeAt(at));
  const low = hexDigit(text.charCodeAt(at + 1));
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const letter = code | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

/**
 * RFC 3986, section 5.2.4; empty segments count as segments. `..` at the root stays at the root. A dot segment with parameters (`..;a=b`)
 * is one too: servers that drop parameters before they resolve dots would leave the path that was authorised. Envoy sees it the same way.
 */
function removeDotSegments(path: string): string {
  const kept: string[] = [];
  const segments = path.split("/");
  for (let i = 1; i < segments.length; i++) {
    const segment = segments[i]!;
    const isLast = i === segments.length - 1;
    if (segment === "." || segment.startsWith(".;")) {
      if (isLast) kept.push("");
    } else if (segment === ".." || segment.startsWith("..;")) {
      kept.pop();
      if (isLast) kept.push("");
    } else {
      kept.push(segment);
    }
  }
  return `/${kept.join("/")}`;
}
