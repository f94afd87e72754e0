// Regular expressions of routes and rewrites: RE2 syntax, linear time, always over the whole text. A pattern comes from an operator and
// the text from anyone, so an engine that backtracks is never given a pattern on which it could.

import type { RE2JS } from "re2js";
import { err, ok, type Result } from "../../core/result.ts";
import { REGEX_CHARS_MAX, REGEX_PROGRAM_MAX } from "../../mesh/l7/match.ts";
import { simpleRegex, type WholeMatch } from "./simple-regex.ts";

/** Compiles a pattern. The error says what is wrong with it, for the operator who wrote it. */
export function compileRegex(pattern: string): Result<WholeMatch, string> {
  const parsed = parseRegex(pattern);
  if (!parsed.ok) return parsed;
  const engine = parsed.value;
  const test = simpleRegex(pattern) ?? ((text: string) => engine.matches(text));
  const prefix = literalPrefix(pattern);
  return ok(prefix === "" ? test : (text) => text.startsWith(prefix) && test(text));
}

/** Replaces what the pattern matches, everywhere, by the substitution (`\1` for the first group, as RE2 writes it). */
export function compileRewrite(pattern: string, substitution: string): Result<(text: string) => string, string> {
  const parsed = parseRegex(pattern);
  if (!parsed.ok) return parsed;
  const template = readSubstitution(substitution);
  if (template === null) return err(`substitution ${JSON.stringify(substitution)}: a backslash is followed by a digit or by a backslash`);
  const groups = parsed.value.groupCount();
  const high = template.find((part) => typeof part === "number" && part > groups);
  if (high !== undefined) return err(`substitution ${JSON.stringify(substitution)} names group ${high}, the pattern has ${groups}`);
  return ok((text) => rewriteAll(parsed.value, template, text));
}

function parseRegex(pattern: string): Result<RE2JS, string> {
  if (pattern.length > REGEX_CHARS_MAX) return err(`the regular expression has ${pattern.length} characters, at most ${REGEX_CHARS_MAX} are allowed`);
  // Loaded with the first pattern: its tables take a megabyte in each thread, and most configurations have none.
  const { RE2JS: engines }: typeof import("re2js") = require("re2js");
  try {
    const engine = engines.compile(pattern);
    const size = engine.programSize();
    if (size <= REGEX_PROGRAM_MAX) return ok(engine);
    return err(`the regular expression compiles to ${size} steps, at most ${REGEX_PROGRAM_MAX} are allowed: shorten its counted repetitions`);
  } catch (error) {
    return err(`regular expression ${JSON.stringify(pattern)}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** What every match begins with, so that most texts never reach the engine; empty when that is not known. */
export function literalPrefix(pattern: string): string {
  if (pattern.includes("|")) return "";
  const body = pattern.startsWith("^") ? pattern.slice(1) : pattern;
  const plain = /^[A-Za-z0-9/_~:@%,;=&!' -]*/.exec(body)![0];
  const next = body[plain.length];
  // The last character belongs to an operator that may make it optional.
  return next === "?" || next === "*" || next === "{" ? plain.slice(0, -1) : plain;
}

/** Text and numbers of groups, in order. */
type Template = readonly (string | number)[];

function readSubstitution(substitution: string): Template | null {
  const parts: (string | number)[] = [];
  for (let i = 0; i < substitution.length; i++) {
    const c = substitution[i]!;
    if (c !== "\\") {
      parts.push(c);
      continue;
    }
    const next = substitution[++i];
    if (next === "\\") parts.push("\\");
    else if (next !== undefined && next >= "0" && next <= "9") parts.push(Number(next));
    else return null;
  }
  return parts;
}

function rewriteAll(engine: RE2JS, template: Template, text: string): string {
  const matcher = engine.matcher(text);
  let out = "";
  let from = 0;
  while (matcher.find()) {
    out += text.slice(from, matcher.start());
    for (const part of template) out += typeof part === "number" ? matcher.group(part) ?? "" : part;
    from = matcher.end();
  }
  return out + text.slice(from);
}
