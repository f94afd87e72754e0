// One compiled text pattern: the smallest step of every match on a method, a header, a query parameter, an authority or an origin.

import { err, ok, type Result } from "../../core/result.ts";
import type { TextPattern } from "../../mesh/l7/match.ts";
import { compileRegex } from "./regex.ts";
import { normalHostText } from "./request.ts";
import type { WholeMatch } from "./simple-regex.ts";
import { wireText } from "./wire-text.ts";

/** The error says what is wrong with the pattern. `present` is true of any text: whether there is one is the caller's to know. */
export function compileText(pattern: TextPattern): Result<WholeMatch, string> {
  switch (pattern.kind) {
    case "exact": {
      const { value } = pattern;
      return ok((text) => text === value);
    }
    case "prefix": {
      const { value } = pattern;
      return ok((text) => text.startsWith(value));
    }
    case "suffix": {
      const { value } = pattern;
      return ok((text) => text.endsWith(value));
    }
    case "regex": return compileRegex(pattern.value);
    case "present": return ok(() => true);
    default: {
      const unknown: never = pattern;
      return err(`unknown pattern ${JSON.stringify(unknown)}`);
    }
  }
}

/** A pattern as it meets header bytes: one char per byte, UTF-8 where it is more than ASCII. */
export function overBytes(pattern: TextPattern): TextPattern {
  return pattern.kind === "present" ? pattern : { ...pattern, value: wireText(pattern.value) };
}

/** For hosts, in their normal form where the pattern is a whole one. */
export function overHosts(pattern: TextPattern): TextPattern {
  if (pattern.kind === "present" || pattern.kind === "regex") return pattern;
  if (pattern.kind === "exact") return { kind: "exact", value: normalHostText(pattern.value) };
  return { ...pattern, value: pattern.value.toLowerCase() };
}
