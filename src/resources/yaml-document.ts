// YAML and JSON text into plain values that still know where each field stood. Strict: YAML 1.2 core schema, unique keys,
// no directives, no tags, few aliases, bounded depth. Knows no kinds.

import { Composer, isAlias, isMap, isNode, isPair, isScalar, isSeq, LineCounter, Parser, type CST, type Document, type Node, type YAMLMap } from "yaml";
import { type DiagnosticCode, type DocumentDiagnostic, type FieldPath, formatFieldPath, show } from "./diagnostic.ts";
import { ALIASES_MAX, DIAGNOSTICS_PER_DOCUMENT_MAX, DOCUMENT_CHARS_MAX, DOCUMENTS_MAX, NESTING_MAX } from "./limits.ts";

/** One document of a file: its text and the 1-based line it begins on. */
export interface DocumentText {
  readonly text: string;
  readonly line: number;
}

export interface Position {
  /** 1-based, counted from the start of the document. */
  readonly line: number;
  readonly column: number;
}

export interface ParsedDocument {
  /** `undefined` for a document without content; salvaged as far as possible when there are diagnostics. */
  readonly value: unknown;
  /** Non-empty: the document is broken. */
  readonly diagnostics: readonly DocumentDiagnostic[];
  /** Where the field, or the nearest thing around it, stands. `key` points at the key of a map entry, otherwise at its value. */
  locate(path: FieldPath, at?: "key" | "value"): Position;
}

/**
 * Splits a file at its document markers. Exact without parsing: YAML 1.2 forbids `---` and `...` at the start of a line inside
 * any scalar (section 9.1.2). Returns null when there are more than DOCUMENTS_MAX.
 */
export function splitDocuments(text: string): readonly DocumentText[] | null {
  const documents: DocumentText[] = [];
  const marker = /^(?:---|\.\.\.)(?=[ \t\r\n]|$)/gm;
  let start = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  let line = 1;
  const push = (end: number): boolean => {
    const chunk = text.slice(start, end);
    if (hasContent(chunk)) documents.push({ text: chunk, line });
    line += countNewlines(text, start, end);
    return documents.length <= DOCUMENTS_MAX;
  };
  for (let match = marker.exec(text); match !== null; match = marker.exec(text)) {
    if (!push(match.index)) return null;
    // `---` stays with its document, so that what follows it on its line keeps its column.
    start = match[0] === "---" ? match.index : match.index + 3;
  }
  return push(text.length) ? documents : null;
}

/** Parses one document as cut by splitDocuments. Never throws. */
export function parseDocument(text: string): ParsedDocument {
  const lines = new LineCounter();
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(Math.max(0, Math.min(offset, text.length)));
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const broken = (code: DiagnosticCode, message: string, offset = 0): ParsedDocument => {
    const position = at(offset);
    return {
      value: undefined,
      diagnostics: [{ severity: "error", ...position, fieldPath: "", code, message }],
      locate: () => position,
    };
  };

  if (text.length > DOCUMENT_CHARS_MAX) {
    return broken("document_too_large", `found a document of ${text.length} characters, at most ${DOCUMENT_CHARS_MAX} are read; split it`);
  }
  const deep = nestingBeyondLimit(text);
  if (deep !== null) return broken("too_deep", `found more than ${NESTING_MAX} levels of nesting`, deep);

  let document: Document.Parsed;
  let open: Unclosed | null;
  try {
    const tokens = [...new Parser(lines.addNewLine).parse(text)];
    if (tokens.some((token) => token.type === "directive")) {
      return broken("yaml_directive", "found a YAML directive (a line beginning with %); write plain YAML 1.2");
    }
    const tooDeep = tokenBeyondDepth(tokens);
    if (tooDeep !== null) return broken("too_deep", `found more than ${NESTING_MAX} levels of nesting`, tooDeep);
    const documents = [...new Composer({ strict: true, uniqueKeys: false, schema: "core", version: "1.2", customTags: null, logLevel: "silent" })
      .compose(tokens, true, text.length)];
    if (documents.length > 1) return broken("yaml_syntax", "found a second document that is not separated by ---", documents[1]?.range?.[0] ?? 0);
    document = documents[0] as Document.Parsed;
    open = lastUnclosed(tokens);
  } catch (cause) {
    return broken("yaml_syntax", `not YAML: ${firstLine(cause)}`);
  }

  const diagnostics: DocumentDiagnostic[] = [];
  const report = (code: DiagnosticCode, message: string, offset: number, fieldPath = ""): void => {
    if (diagnostics.length < DIAGNOSTICS_PER_DOCUMENT_MAX) diagnostics.push({ severity: "error", ...at(offset), fieldPath, code, message });
  };
  const pathTo = (offset: number): string => formatFieldPath(pathAtOffset(document, offset));
  // What is wrong in one place is said once: the first fault explains those that follow from it.
  const faults = new Map(document.errors.toReversed().map((fault) => [fault.pos[0], fault]));
  if (open !== null) {
    // The parser notices where the text goes on without the other half, often a line later.
    report("yaml_syntax", `not YAML: found a ${open.opening} that no ${open.closing} closes`, open.offset, pathTo(open.offset));
    for (const [offset, fault] of faults) if (offset > open.offset && END_FAULTS.has(fault.code)) faults.delete(offset);
  }
  for (const [offset, fault] of [...faults].toReversed()) report("yaml_syntax", `not YAML: ${firstLine(fault)}`, offset, pathTo(offset));
  for (const warning of document.warnings) {
    report(warning.code === "TAG_RESOLVE_FAILED" ? "yaml_tag" : "yaml_syntax", firstLine(warning), warning.pos[0], pathTo(warning.pos[0]));
  }
  for (const node of nodesOf(document)) {
    if (isAlias(node)) continue;
    if (node.tag !== undefined && hasExplicitTag(text, node)) {
      report("yaml_tag", `found the tag ${node.tag}; values are written without tags`, node.range?.[0] ?? 0, pathTo(node.range?.[0] ?? 0));
    }
    if (!isMap(node)) continue;
    // The parser's own check compares each key with each other one.
    const seen = new Set<string>();
    for (const { key } of (node as YAMLMap.Parsed).items) {
      if (!isScalar(key) || key.value === null) report("yaml_syntax", "found a key that is not a string", key?.range?.[0] ?? node.range?.[0] ?? 0);
      else if (seen.has(String(key.value))) {
        report("duplicate_key", `found ${show(String(key.value))} again in the same map; each key once`, key.range[0], pathTo(key.range[0]));
      } else seen.add(String(key.value));
    }
  }

  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch (cause) {
    const unresolved = String(cause).includes("Unresolved alias");
    report(unresolved ? "yaml_syntax" : "too_many_aliases", unresolved ? `not YAML: ${firstLine(cause)}` : `found more aliases than ${ALIASES_MAX}; write the values out`, 0);
  }
  return { value: value === null ? undefined : value, diagnostics, locate: (path, what = "value") => at(offsetOf(document, path, what)) };
}

function hasContent(chunk: string): boolean {
  for (const line of chunk.split("\n")) {
    const bare = /^---(?:\s|$)/.test(line) ? line.slice(3).trim() : line.trim();
    if (bare !== "" && !bare.startsWith("#")) return true;
  }
  return false;
}

function countNewlines(text: string, start: number, end: number): number {
  let count = 0;
  for (let i = text.indexOf("\n", start); i >= 0 && i < end; i = text.indexOf("\n", i + 1)) count++;
  return count;
}

/** Offset of the bracket that opens one level too many, counting brackets alone: keeps a bomb away from the parser. Null when none does. */
function nestingBeyondLimit(text: string): number | null {
  // Generous, as brackets inside strings count too; the exact check follows on the tokens.
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x5b || c === 0x7b) {
      if (++depth > NESTING_MAX * 16) return i;
    } else if ((c === 0x5d || c === 0x7d) && depth > 0) depth--;
  }
  return null;
}

/** Walks tokens without recursion. Returns the offset of the first one nested too deeply. */
function tokenBeyondDepth(tokens: readonly CST.Token[]): number | null {
  const todo: { token: CST.Token; depth: number }[] = tokens.map((token) => ({ token, depth: 0 }));
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const { token, depth } = next;
    if (depth > NESTING_MAX) return "offset" in token ? token.offset : 0;
    if (token.type === "document") {
      if (token.value) todo.push({ token: token.value, depth });
    } else if (token.type === "block-map" || token.type === "block-seq" || token.type === "flow-collection") {
      for (const item of token.items) {
        if (item.key) todo.push({ token: item.key, depth: depth + 1 });
        if (item.value) todo.push({ token: item.value, depth: depth + 1 });
      }
    }
  }
  return null;
}

/** Every node of the document, in the order of the text, without recursion. */
function* nodesOf(document: Document.Parsed): Generator<Node> {
  const todo: unknown[] = [document.contents];
  while (todo.length > 0) {
    const node = todo.pop();
    if (!isNode(node)) continue;
    yield node;
    if (isMap(node)) for (const { key, value } of node.items.toReversed()) todo.push(value, key);
    else if (isSeq(node)) for (const item of node.items.toReversed()) todo.push(item);
  }
}

/** A bracket or a quote without its other half. */
interface Unclosed {
  readonly offset: number;
  readonly opening: string;
  readonly closing: string;
}

/** How the parser says that something does not end. */
const END_FAULTS: ReadonlySet<string> = new Set(["BAD_INDENT", "MISSING_CHAR"]);

/** The last one of the document: what was opened before it may be closed by what follows once this one is. Without recursion. */
function lastUnclosed(tokens: readonly CST.Token[]): Unclosed | null {
  let last: Unclosed | null = null;
  const todo: CST.Token[] = [...tokens];
  for (let token = todo.pop(); token !== undefined; token = todo.pop()) {
    const found = unclosed(token);
    if (found !== null && (last === null || found.offset > last.offset)) last = found;
    if (token.type === "document") {
      if (token.value) todo.push(token.value);
    } else if (token.type === "block-map" || token.type === "block-seq" || token.type === "flow-collection") {
      for (const { key, value } of token.items) {
        if (key) todo.push(key);
        if (value) todo.push(value);
      }
    }
  }
  return last;
}

function unclosed(token: CST.Token): Unclosed | null {
  switch (token.type) {
    case "flow-collection": {
      const { offset, source: opening } = token.start;
      const closing = opening === "{" ? "}" : "]";
      return token.end.some((end) => "source" in end && end.source === closing) ? null : { offset, opening, closing };
    }
    case "double-quoted-scalar":
    case "single-quoted-scalar": {
      const quote = token.source[0]!;
      return token.source.length > 1 && token.source.endsWith(quote) ? null : { offset: token.offset, opening: quote, closing: quote };
    }
    default:
      return null;
  }
}

function hasExplicitTag(text: string, node: Node): boolean {
  // Core-schema nodes carry no tag of their own unless one was written.
  const start = node.range?.[0] ?? 0;
  const line = text.slice(Math.max(0, text.lastIndexOf("\n", start - 1) + 1), start + 1);
  return line.includes("!");
}

function offsetOf(document: Document.Parsed, path: FieldPath, what: "key" | "value"): number {
  let node: unknown = document.contents;
  let best = document.contents?.range?.[0] ?? document.range[0];
  for (let i = 0; i < path.length; i++) {
    const step = path[i]!;
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = node.items.find((item) => isPair(item) && (isScalar(item.key) ? String(item.key.value) : String(item.key)) === String(step));
      if (pair === undefined) return best;
      const key = (pair.key as Node).range?.[0];
      const value = (pair.value as Node | null)?.range?.[0];
      best = (what === "key" && i === path.length - 1 ? key : (value ?? key)) ?? best;
      node = pair.value;
    } else if (isSeq(node)) {
      const item = node.items[Number(step)] as Node | undefined;
      if (item === undefined) return best;
      best = item.range?.[0] ?? best;
      node = item;
    } else return best;
  }
  return best;
}

/** The field whose text covers `offset`, as far as it can be told. */
function pathAtOffset(document: Document.Parsed, offset: number): (string | number)[] {
  const path: (string | number)[] = [];
  const covers = (range: readonly number[] | null | undefined): boolean => range !== null && range !== undefined && range[0]! <= offset && offset <= range[2]!;
  let node: unknown = document.contents;
  for (;;) {
    if (isMap(node)) {
      const inside = node.items.findLast((pair) => covers((pair.key as Node | null)?.range) || covers((pair.value as Node | null)?.range));
      if (inside === undefined || !isScalar(inside.key)) return path;
      path.push(String(inside.key.value));
      if (covers((inside.key as Node).range) && !covers((inside.value as Node | null)?.range)) return path;
      node = inside.value;
    } else if (isSeq(node)) {
      const index = node.items.findLastIndex((item) => covers((item as Node | null)?.range));
      if (index < 0) return path;
      path.push(index);
      node = node.items[index];
    } else return path;
  }
}

function firstLine(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause);
  return (text.split("\n")[0] ?? "").slice(0, 200);
}
