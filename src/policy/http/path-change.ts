// What a rewrite or a redirect makes of a path. The result always begins with a slash and can stand in a request line.

import { err, ok, type Result } from "../../core/result.ts";
import type { PathChange } from "../../mesh/l7/route.ts";
import { compileRewrite } from "./regex.ts";

/** The part of the path that a match covered. */
export interface MatchedPrefix {
  /** By segments: without a slash at its end, empty for all paths. */
  readonly text: string;
  /** Gateway API: by whole segments. VirtualService: by characters. */
  readonly wholeSegments: boolean;
}

export interface Target {
  readonly path: string;
  /** With its question mark; empty for none. */
  readonly query: string;
}

/** @param prefix null when the match was no prefix: the whole path is then what it covered. */
export type CompiledPathChange = (target: Target, prefix: MatchedPrefix | null) => Target;

export function compilePathChange(change: PathChange): Result<CompiledPathChange, string> {
  switch (change.kind) {
    case "full": {
      const full = change.value;
      return ok((target) => withPath(full, target));
    }
    case "prefix": {
      const replacement = change.value;
      return ok((target, prefix) => withPath(prefix === null ? replacement : replacePrefix(target.path, prefix, replacement), target));
    }
    case "regex": {
      const rewrite = compileRewrite(change.pattern, change.substitution);
      if (!rewrite.ok) return rewrite;
      return ok((target) => withPath(rewrite.value(target.path), target));
    }
    default: {
      const unknown: never = change;
      return err(`unknown path change ${JSON.stringify(unknown)}`);
    }
  }
}

function replacePrefix(path: string, prefix: MatchedPrefix, replacement: string): string {
  const rest = path.slice(prefix.text.length);
  // By segments the rest is empty or begins with a slash, which the replacement must not bring a second time.
  return prefix.wholeSegments ? replacement.replace(/\/+$/, "") + rest : replacement + rest;
}

/** A query in the new path takes its place before the request's own. */
function withPath(written: string, { query }: Target): Target {
  const text = written.replace(/[^\x21\x22\x24-\x7e]/gu, escaped);
  const mark = text.indexOf("?");
  const path = mark < 0 ? text : text.slice(0, mark);
  const added = mark < 0 ? "" : text.slice(mark + 1);
  const own = query.startsWith("?") ? query.slice(1) : query;
  const joined = added === "" ? own : own === "" ? added : `${added}&${own}`;
  return { path: path.startsWith("/") ? path : `/${path}`, query: joined === "" ? "" : `?${joined}` };
}

/** White space, controls, a fragment, and what is not ASCII: it would end the request line, or change what it says. */
function escaped(c: string): string {
  return c.charCodeAt(0) > 0x7f ? encodeURIComponent(c.isWellFormed() ? c : "\ufffd") : `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
}
