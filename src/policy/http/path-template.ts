// Istio's path templates: `{*}` (or `{name}`) is one segment that is not empty, `{**}` any characters, slashes included. One `{**}` at
// most, so that a path is compared from both ends, in time that grows with its length alone.

import { err, ok, type Result } from "../../core/result.ts";
import { normalPathText } from "./path-text.ts";

/** Null stands for one segment of any text. */
type Segment = string | null;

export interface PathTemplate {
  readonly head: readonly Segment[];
  /** What comes after `{**}`; null when there is no such part. */
  readonly tail: readonly Segment[] | null;
}

const ONE = /^\{(?:\*|[A-Za-z_][A-Za-z0-9_]*)\}$/;
const ANY = "{**}";

/** The error says what is wrong with the template. */
export function parsePathTemplate(text: string): Result<PathTemplate, string> {
  if (!text.startsWith("/")) return err(`path template ${JSON.stringify(text)} does not begin with a slash`);
  const segments = text.split("/");
  const odd = segments.find((segment) => /[{}*]/.test(segment) && segment !== ANY && !ONE.test(segment));
  if (odd !== undefined) return err(`path template ${JSON.stringify(text)}: ${JSON.stringify(odd)} is neither text nor a whole {*}, {**} or {name}`);
  const at = segments.indexOf(ANY);
  if (at !== segments.lastIndexOf(ANY)) return err(`path template ${JSON.stringify(text)} has more than one {**}`);
  const compiled = segments.map((segment): Segment => (ONE.test(segment) ? null : segment === ANY ? segment : normalPathText(segment)));
  return ok(at < 0 ? { head: compiled, tail: null } : { head: compiled.slice(0, at), tail: compiled.slice(at + 1) });
}

export function matchesTemplate({ head, tail }: PathTemplate, path: string): boolean {
  const segments = path.split("/");
  if (tail === null) return segments.length === head.length && holds(head, segments, 0);
  // Between the two there is something, even if it is an empty segment: `/a/{**}/` does not match `/a/`.
  if (segments.length < head.length + tail.length + 1) return false;
  return holds(head, segments, 0) && holds(tail, segments, segments.length - tail.length);
}

function holds(wanted: readonly Segment[], segments: readonly string[], offset: number): boolean {
  for (let i = 0; i < wanted.length; i++) {
    const segment = segments[offset + i]!;
    const expected = wanted[i]!;
    if (expected === null ? segment === "" : expected !== segment) return false;
  }
  return true;
}
