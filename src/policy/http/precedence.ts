// Which of several matches wins. For the Gateway API, in this order: exact path, longest prefix, regular expression, no path (or "/");
// a method; more headers; more query parameters; the older route; its name; the earlier rule. Where the specification leaves the
// place of regular expressions open, they stand before "/": behind it none would ever be reached.
// A VirtualService says itself: the first rule that matches wins. Its rules come after every one of the Gateway API.

import { compareText } from "../../core/compare-text.ts";
import type { RequestMatch } from "../../mesh/l7/match.ts";
import type { Route } from "../../mesh/l7/route.ts";
import { countedConditions, segmentPrefix } from "./request-match.ts";

/** One match of one rule of one route, by its place in them. */
export interface Candidate {
  readonly route: Route;
  readonly precedence: "gatewayApi" | "asWritten";
  readonly ruleIndex: number;
  readonly matchIndex: number;
  readonly match: RequestMatch;
}

/** Negative when `a` wins over `b`. Total: no two candidates of one set are equal. */
export function compareCandidates(a: Candidate, b: Candidate): number {
  if (a.precedence !== b.precedence) return a.precedence === "gatewayApi" ? -1 : 1;
  if (a.precedence === "gatewayApi") {
    const specific = compareSpecificity(a.match, b.match);
    if (specific !== 0) return specific;
  }
  return a.route.createdMs - b.route.createdMs
    || compareText(`${a.route.namespace}/${a.route.name}`, `${b.route.namespace}/${b.route.name}`)
    || compareText(a.route.id, b.route.id)
    || a.ruleIndex - b.ruleIndex
    || a.matchIndex - b.matchIndex;
}

function compareSpecificity(a: RequestMatch, b: RequestMatch): number {
  const ofA = countedConditions(a, "gatewayApi");
  const ofB = countedConditions(b, "gatewayApi");
  return pathRank(b) - pathRank(a)
    || pathLength(b) - pathLength(a)
    || (b.method === null ? 0 : 1) - (a.method === null ? 0 : 1)
    || ofB.headers.length - ofA.headers.length
    || ofB.query.length - ofA.query.length;
}

function pathRank({ path }: RequestMatch): number {
  if (path === null) return 0;
  switch (path.kind) {
    case "exact": return 3;
    case "prefix": return segmentPrefix(path.value) === "" ? 0 : 2;
    case "textPrefix": return segmentPrefix(path.value) === "" ? 0 : 2;
    case "regex": return 1;
    default: return path satisfies never;
  }
}

function pathLength({ path }: RequestMatch): number {
  if (path === null) return 0;
  return path.kind === "prefix" ? segmentPrefix(path.value).length : path.kind === "textPrefix" && segmentPrefix(path.value) === "" ? 0 : path.value.length;
}
