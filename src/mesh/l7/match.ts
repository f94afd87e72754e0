// What routes and L7 policies match on. Plain data: patterns are compiled by src/policy, once per configuration.

/** A longer regular expression is a mistake or an attack; Envoy's default limit is of the same order. */
export const REGEX_CHARS_MAX = 1024;
/**
 * Instructions of the compiled program: time for each character of the text grows with them. `a{1000}` alone has a thousand, and
 * `(a{1000}){1000}` is short to write and costs a million. One bound for who reads a pattern and for who runs it, so that none is taken
 * at the border and found broken behind it.
 */
export const REGEX_PROGRAM_MAX = 2000;

/** How one text is matched. `regex` is RE2 syntax, matches the whole text, and is bounded when it is read. */
export type TextPattern =
  | { readonly kind: "exact"; readonly value: string }
  | { readonly kind: "prefix"; readonly value: string }
  | { readonly kind: "suffix"; readonly value: string }
  | { readonly kind: "regex"; readonly value: string }
  /** There, whatever its value. */
  | { readonly kind: "present" };

/** Paths are matched in their normal form (src/wire/http), without the query. */
export type PathPattern =
  | { readonly kind: "exact"; readonly value: string }
  /** By whole segments: `/a` matches `/a` and `/a/b`, not `/ab`. A trailing slash is not kept. */
  | { readonly kind: "prefix"; readonly value: string }
  /** VirtualService's prefix: by characters. */
  | { readonly kind: "textPrefix"; readonly value: string }
  | { readonly kind: "regex"; readonly value: string };

export interface HeaderPattern {
  /** Lower case. */
  readonly name: string;
  readonly pattern: TextPattern;
  readonly invert: boolean;
}

export interface QueryPattern {
  /** Exactly as written in the query, after percent-decoding. */
  readonly name: string;
  readonly pattern: TextPattern;
}

/** One way to match a request. Fields are joined by AND; null and empty leave a field out. */
export interface RequestMatch {
  readonly path: PathPattern | null;
  /** Letters of the path are compared without case (VirtualService ignoreUriCase). */
  readonly pathIgnoresCase: boolean;
  readonly method: TextPattern | null;
  readonly headers: readonly HeaderPattern[];
  readonly query: readonly QueryPattern[];
  /** Host without port (VirtualService authority). */
  readonly authority: TextPattern | null;
  readonly scheme: TextPattern | null;
  /** Namespace of the caller; null for any. */
  readonly sourceNamespace: string | null;
  /** Labels the calling workload must have. */
  readonly sourceLabels: Readonly<Record<string, string>>;
}

export const ANY_REQUEST: RequestMatch = {
  path: null, pathIgnoresCase: false, method: null, headers: [], query: [], authority: null, scheme: null, sourceNamespace: null, sourceLabels: {},
};
