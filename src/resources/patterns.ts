// Regular expressions and the string matches built of them, as YAML writes them. A regex is RE2 syntax, so that matching it takes
// linear time; its length and the size of what it compiles to are bounded, as every request may have to run it.

import { z } from "zod";
import { admits, atMostOneOf, exactlyOneOf } from "./admission.ts";
import { REGEX_CHARS_MAX, REGEX_PROGRAM_MAX, type TextPattern } from "../mesh/l7/match.ts";

export const PATTERN_CHARS_MAX = 4096;
/** Checked texts that are remembered: the same few regexes stand in many routes. */
const CHECKED_MAX = 4096;

const checked = new Map<string, string | null>();

/** What is wrong with a regex; null when it is sound. */
export function regexFault(text: string): string | null {
  const known = checked.get(text);
  if (known !== undefined) return known;
  const fault = check(text);
  if (checked.size >= CHECKED_MAX) checked.clear();
  checked.set(text, fault);
  return fault;
}

function check(text: string): string | null {
  if (text.length > REGEX_CHARS_MAX) return `expected a regex of at most ${REGEX_CHARS_MAX} characters`;
  // Loaded with the first regex: its tables take a megabyte, and most configurations have none.
  const { RE2JS }: typeof import("re2js") = require("re2js");
  try {
    const size = RE2JS.compile(text).programSize();
    return size > REGEX_PROGRAM_MAX ? `expected a regex that compiles to at most ${REGEX_PROGRAM_MAX} instructions, found ${size}; repeat less` : null;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.replace(/^error parsing regexp: /, "") : String(cause);
    return `expected a regex in RE2 syntax (no look-around, no back-references): ${reason}`;
  }
}

export const regex = z.string().superRefine((text, context) => {
  const fault = text === "" ? "expected a regex, found an empty one" : regexFault(text);
  if (fault !== null) context.addIssue({ code: "custom", message: fault });
  // Where it is no regex at all the rule fails with what the parser says. How large it compiles is for us to tell.
}).meta({ minLength: 1, maxLength: REGEX_CHARS_MAX, ...admits({ rule: "''.matches(self) in [true, false]", message: "expected a regex in RE2 syntax" }) });

/** Istio's StringMatch. */
const alternatives = { exact: z.string().max(PATTERN_CHARS_MAX).optional(), prefix: z.string().max(PATTERN_CHARS_MAX).optional(), regex: regex.optional() };
export const stringMatch = exactlyOneOf(z.strictObject(alternatives), ["exact", "prefix", "regex"]);
/** Of a header or query parameter, where `{}` and an empty prefix ask only that it be there. */
export const stringMatchOrPresent = atMostOneOf(z.strictObject(alternatives), ["exact", "prefix", "regex"]);
export type StringMatchSpec = z.output<typeof stringMatchOrPresent>;

export function textPattern(match: StringMatchSpec): TextPattern {
  if (match.exact !== undefined) return { kind: "exact", value: match.exact };
  if (match.regex !== undefined) return { kind: "regex", value: match.regex };
  return match.prefix === undefined || match.prefix === "" ? { kind: "present" } : { kind: "prefix", value: match.prefix };
}

/** Text as a regex that matches exactly it. */
export const quoteRegex = (text: string): string => text.replace(/[\\.+*?()|[\]{}^$]/g, "\\$&");
