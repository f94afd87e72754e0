// Finds, among the matches of many rules, the one of the lowest rank that holds for a request. By exact path, by the configured lengths
// of prefixes, and inside one path by a header or authority that must have one value; regular expressions are tried in turn, those only
// whose first characters are the path's.
// Bounded by the configuration, never by the length of a request's path.

import type { PathPattern, RequestMatch } from "../../mesh/l7/match.ts";
import { segmentPrefix, type RequestTest } from "./request-match.ts";
import { fieldOf, normalHostText, type RequestView } from "./request.ts";

/** What is filed: `rank` decides between two that hold, the lower one wins. Filed in the order of rank. */
export interface Ranked {
  readonly rank: number;
  readonly match: RequestMatch;
  /** What the path begins with in every request that matches, where no table can say more: that of a regular expression. */
  readonly pathBeginning: string;
  /** All that is not said by a path in a table. */
  readonly conditions: RequestTest | null;
}

/** Lists shorter than this are faster to go through than to look up. */
const BUCKET_INDEX_FROM = 8;

const SLASH = 0x2f;

export class PathIndex<T extends Ranked> {
  readonly #caseSensitive = new PathTables<T>();
  readonly #ignoringCase = new PathTables<T>();
  readonly #anyPath = new Bucket<T>();

  /** To be called in the order of rank. */
  add(entry: T): void {
    const { path, pathIgnoresCase } = entry.match;
    if (entry.pathBeginning !== "") this.#caseSensitive.add(entry, { kind: "textPrefix", value: entry.pathBeginning }, entry.pathBeginning);
    else if (path === null || path.kind === "regex" || path.kind === "prefix" && segmentPrefix(path.value) === "") this.#anyPath.add(entry);
    else if (pathIgnoresCase) this.#ignoringCase.add(entry, path, path.value.toLowerCase());
    else this.#caseSensitive.add(entry, path, path.value);
  }

  find(request: RequestView): T | null {
    const { path } = request;
    let best = this.#caseSensitive.find(path, request, null);
    if (!this.#ignoringCase.isEmpty) best = this.#ignoringCase.find(path.toLowerCase(), request, best);
    return this.#anyPath.find(request, best);
  }
}

type TablePath = Exclude<PathPattern, { kind: "regex" }>;

class PathTables<T extends Ranked> {
  readonly #exact = new Map<string, Bucket<T>>();
  readonly #segments = new PrefixTable<T>();
  readonly #characters = new PrefixTable<T>();
  isEmpty = true;

  add(entry: T, { kind }: TablePath, value: string): void {
    this.isEmpty = false;
    switch (kind) {
      case "exact": bucketOf(this.#exact, value).add(entry); break;
      case "prefix": this.#segments.add(segmentPrefix(value), entry); break;
      case "textPrefix": this.#characters.add(value, entry); break;
      default: kind satisfies never;
    }
  }

  find(path: string, request: RequestView, best: T | null): T | null {
    const exact = this.#exact.get(path);
    if (exact !== undefined) best = exact.find(request, best);
    best = this.#segments.find(path, request, best, true);
    return this.#characters.find(path, request, best, false);
  }
}

/** Prefixes by length: a path is cut once for each length in use, at whole segments only where that is asked for. */
class PrefixTable<T extends Ranked> {
  readonly #byPrefix = new Map<string, Bucket<T>>();
  /** Longest first. */
  readonly #lengths: { readonly length: number; /** Lowest rank under this length. */ rank: number }[] = [];

  add(prefix: string, entry: T): void {
    bucketOf(this.#byPrefix, prefix).add(entry);
    const known = this.#lengths.find(({ length }) => length === prefix.length);
    if (known !== undefined) known.rank = Math.min(known.rank, entry.rank);
    else {
      this.#lengths.push({ length: prefix.length, rank: entry.rank });
      this.#lengths.sort((a, b) => b.length - a.length);
    }
  }

  find(path: string, request: RequestView, best: T | null, wholeSegments: boolean): T | null {
    for (const { length, rank } of this.#lengths) {
      if (length > path.length || best !== null && rank > best.rank) continue;
      if (wholeSegments && length < path.length && path.charCodeAt(length) !== SLASH) continue;
      const bucket = this.#byPrefix.get(path.slice(0, length));
      if (bucket !== undefined) best = bucket.find(request, best);
    }
    return best;
  }
}

function bucketOf<T extends Ranked>(map: Map<string, Bucket<T>>, key: string): Bucket<T> {
  let bucket = map.get(key);
  if (bucket === undefined) map.set(key, (bucket = new Bucket<T>()));
  return bucket;
}

/** The entries of one path. Many of them are told apart by one condition that has to equal a text. */
class Bucket<T extends Ranked> {
  /** In the order of rank. */
  readonly #all: T[] = [];
  #filed: Filed<T> | null = null;

  add(entry: T): void {
    this.#all.push(entry);
    if (this.#all.length < BUCKET_INDEX_FROM) return;
    if (this.#filed !== null) this.#filed.add(entry);
    else {
      this.#filed = new Filed<T>();
      for (const each of this.#all) this.#filed.add(each);
    }
  }

  /** The better of `best` and the first entry here that holds. */
  find(request: RequestView, best: T | null): T | null {
    return this.#filed === null ? firstHolding(this.#all, request, best) : this.#filed.find(request, best);
  }
}

class Filed<T extends Ranked> {
  readonly #byField = new Map<string, Map<string, T[]>>();
  readonly #rest: T[] = [];

  add(entry: T): void {
    const key = fieldThatDecides(entry.match);
    if (key === null) {
      this.#rest.push(entry);
      return;
    }
    let values = this.#byField.get(key.name);
    if (values === undefined) this.#byField.set(key.name, (values = new Map()));
    const list = values.get(key.value);
    if (list === undefined) values.set(key.value, [entry]);
    else list.push(entry);
  }

  find(request: RequestView, best: T | null): T | null {
    for (const [name, values] of this.#byField) {
      const value = name === AUTHORITY ? request.host : fieldOf(request, name);
      const list = value === undefined ? undefined : values.get(value);
      if (list !== undefined) best = firstHolding(list, request, best);
    }
    return firstHolding(this.#rest, request, best);
  }
}

/** Not a field name, so that it meets no header. */
const AUTHORITY = "(authority)";

/** Only ASCII, which is the same in the configuration and on the wire. */
const ASCII = /^[\x00-\x7f]*$/;

function fieldThatDecides(match: RequestMatch): { readonly name: string; readonly value: string } | null {
  // Only the first header of a name may count, and the first of all is one of those.
  const header = match.headers[0];
  if (header !== undefined && !header.invert && header.pattern.kind === "exact" && ASCII.test(header.pattern.value)) {
    return { name: header.name, value: header.pattern.value };
  }
  return match.authority?.kind === "exact" ? { name: AUTHORITY, value: normalHostText(match.authority.value) } : null;
}

function firstHolding<T extends Ranked>(list: readonly T[], request: RequestView, best: T | null): T | null {
  for (const entry of list) {
    if (best !== null && entry.rank > best.rank) return best;
    if (entry.conditions === null || entry.conditions(request)) return entry;
  }
  return best;
}
