// Paths in rules are written by people, paths of requests are in their normal form (src/wire/http): a rule for `/caf%c3%a9` or `/café`
// means the path that arrives as `/caf%C3%A9`. A rule that missed it for its spelling could be walked around.

import type { PathPattern } from "../../mesh/l7/match.ts";
import { normalisePath } from "../../wire/http/path.ts";
import { wireText } from "./wire-text.ts";

/** Escaped or not. Where they stand in a pattern they are text: removing them would change what the pattern says. */
const DOT_SEGMENT = /(?:^|\/)(?:\.|%2e){1,2}(?:\/|$)/i;

/** A path, or a part of one, spelled as requests spell it. What has no normal form is left as it is, and meets nothing. */
export function normalPathText(text: string): string {
  const bytes = wireText(text);
  if (DOT_SEGMENT.test(bytes)) return text;
  const slash = bytes.startsWith("/") ? "" : "/";
  const normal = normalisePath(slash + bytes, "base");
  return normal.ok ? normal.value.slice(slash.length) : text;
}

/** Regular expressions are left alone: they are written for the normal form. */
export function normalPathPattern<P extends PathPattern | null>(pattern: P): P | PathPattern {
  return pattern === null || pattern.kind === "regex" ? pattern : { kind: pattern.kind, value: normalPathText(pattern.value) };
}
