// One compiled RequestMatch: all its conditions but the path's, which the router finds by its index, and faults and limits by `wholeMatch`.
// A condition that cannot be compiled is reported; the match then holds where its other conditions do, and the rule is broken.

import type { HeaderPattern, PathPattern, QueryPattern, RequestMatch } from "../../mesh/l7/match.ts";
import { allOf } from "./all-of.ts";
import { normalPathPattern } from "./path-text.ts";
import { queryValue } from "./query.ts";
import { fieldOf, type RequestView } from "./request.ts";
import { compileText, overBytes, overHosts } from "./text-pattern.ts";
import { compileRegex } from "./regex.ts";
import type { WholeMatch } from "./simple-regex.ts";

export type RequestTest = (request: RequestView) => boolean;

export interface CompiledMatch {
  /** Method, headers, query, authority, scheme and source; null when there is nothing to test. */
  readonly conditions: RequestTest | null;
  /** What could not be compiled, each with its field. */
  readonly problems: readonly string[];
}

/**
 * The headers and parameters that count. In the Gateway API the first of several entries with one name is the only one looked at.
 */
export function countedConditions(match: RequestMatch, precedence: "gatewayApi" | "asWritten"): Pick<RequestMatch, "headers" | "query"> {
  if (precedence === "asWritten") return match;
  return { headers: firstOfEachName(match.headers), query: firstOfEachName(match.query) };
}

function firstOfEachName<T extends { readonly name: string }>(entries: readonly T[]): readonly T[] {
  return entries.filter((entry, i) => entries.findIndex((other) => other.name === entry.name) === i);
}

export function compileConditions(match: RequestMatch, precedence: "gatewayApi" | "asWritten"): CompiledMatch {
  const problems: string[] = [];
  const tests: RequestTest[] = [];
  const { headers, query } = countedConditions(match, precedence);
  if (match.method !== null) {
    const method = compiled(compileText(match.method), "method", problems);
    if (method !== null) tests.push((request) => method(request.method));
  }
  if (match.sourceNamespace !== null) {
    const wanted = match.sourceNamespace;
    tests.push((request) => request.source.namespace === wanted);
  }
  for (const [label, value] of Object.entries(match.sourceLabels)) {
    tests.push((request) => Object.hasOwn(request.source.labels, label) && request.source.labels[label] === value);
  }
  if (match.scheme !== null) {
    const scheme = compiled(compileText(match.scheme), "scheme", problems);
    if (scheme !== null) tests.push((request) => scheme(request.scheme));
  }
  if (match.authority !== null) {
    const authority = compiled(compileText(overHosts(match.authority)), "authority", problems);
    if (authority !== null) tests.push((request) => authority(request.host));
  }
  for (const header of headers) tests.push(...headerTest(header, problems));
  for (const parameter of query) tests.push(...queryTest(parameter, problems));
  return { conditions: allOf(tests), problems };
}

/** The whole match in one test, path included: for what is not found through the router. */
export function wholeMatch(match: RequestMatch): { readonly test: RequestTest; readonly problems: readonly string[] } {
  const { conditions, problems } = compileConditions(match, "asWritten");
  const pattern = normalPathPattern(match.path);
  const path = pattern === null ? null : compilePath(pattern, match.pathIgnoresCase);
  const test = allOf([
    ...(path === null || !path.ok ? [] : [(request: RequestView) => path.value(request.path)]),
    ...(conditions === null ? [] : [conditions]),
  ]);
  return { test: test ?? everyRequest, problems: path === null || path.ok ? problems : [...problems, `path: ${path.error}`] };
}

/** A path against a pattern, one by one. */
export function compilePath(pattern: PathPattern, ignoresCase: boolean): ReturnType<typeof compileRegex> {
  if (pattern.kind === "regex") return compileRegex(ignoresCase ? `(?i)${pattern.value}` : pattern.value);
  const fold = (text: string): string => (ignoresCase ? text.toLowerCase() : text);
  const value = fold(pattern.kind === "prefix" ? segmentPrefix(pattern.value) : pattern.value);
  switch (pattern.kind) {
    case "exact": return { ok: true, value: (path) => fold(path) === value };
    case "textPrefix": return { ok: true, value: (path) => fold(path).startsWith(value) };
    case "prefix": return { ok: true, value: (path) => hasSegmentPrefix(fold(path), value) };
    default: return pattern satisfies never;
  }
}

/** A prefix without the slash at its end; empty for the root, which every path has. */
export function segmentPrefix(value: string): string {
  let end = value.length;
  while (end > 0 && value.charCodeAt(end - 1) === 0x2f) end--;
  return value.slice(0, end);
}

function hasSegmentPrefix(path: string, prefix: string): boolean {
  return prefix === "" || path.startsWith(prefix) && (path.length === prefix.length || path.charCodeAt(prefix.length) === 0x2f);
}

function headerTest(header: HeaderPattern, problems: string[]): RequestTest[] {
  const { name, invert } = header;
  const pattern = compiled(compileText(overBytes(header.pattern)), `header ${name}`, problems);
  if (pattern === null) return [];
  // An absent header matches nothing, so that its opposite holds.
  return [(request) => {
    const value = fieldOf(request, name);
    return (value !== undefined && pattern(value)) !== invert;
  }];
}

function queryTest(parameter: QueryPattern, problems: string[]): RequestTest[] {
  const { name } = parameter;
  const pattern = compiled(compileText(parameter.pattern), `query parameter ${name}`, problems);
  if (pattern === null) return [];
  return [(request) => {
    const value = queryValue(request.query, name);
    return value !== undefined && pattern(value);
  }];
}

type Compiled = ReturnType<typeof compileText>;

function compiled(result: Compiled, field: string, problems: string[]): WholeMatch | null {
  if (result.ok) return result.value;
  problems.push(`${field}: ${result.error}`);
  return null;
}

const everyRequest: RequestTest = () => true;
