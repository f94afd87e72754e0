// Finds the rule of a request: all routes that decide for one service, port and client, compiled into one index that
// costs about the same for ten rules and for ten thousand. Says which match of which rule decided, and why nothing did.

import type { Provenance } from "../../core/fault.ts";
import type { RouteSet } from "../../mesh/l7/l7-store.ts";
import { ANY_REQUEST } from "../../mesh/l7/match.ts";
import type { Route } from "../../mesh/l7/route.ts";
import { compileRule, type CompiledRule } from "./compiled-rule.ts";
import { decideCors } from "./cors.ts";
import { PathIndex, type Ranked } from "./path-index.ts";
import { type Candidate, compareCandidates } from "./precedence.ts";
import type { HeaderOperation } from "./header-change.ts";
import type { MatchedPrefix } from "./path-change.ts";
import { normalPathPattern } from "./path-text.ts";
import { literalPrefix } from "./regex.ts";
import { compileConditions, compilePath, type RequestTest, segmentPrefix } from "./request-match.ts";
import type { RequestView } from "./request.ts";
import type { WholeMatch } from "./simple-regex.ts";

const NO_OPERATIONS: readonly HeaderOperation[] = Object.freeze([]);

/**
 * What the rule does to every answer, whoever gives it; a rule that is broken does nothing. To a page of another site a refusal that does
 * not name its origin is no answer at all.
 */
export function answerHeadersOf(result: RouteResult, request: RequestView): readonly HeaderOperation[] {
  if (result.kind !== "matched" || result.rule.broken !== null) return NO_OPERATIONS;
  const { cors, responseHeaders } = result.rule;
  const outcome = cors === null ? null : decideCors(cors, request);
  return outcome === null || outcome.kind === "preflight" ? responseHeaders : [...outcome.responseHeaders, ...responseHeaders];
}

export interface MatchedRule {
  readonly kind: "matched";
  readonly route: Route;
  readonly rule: CompiledRule;
  /** Null when the match was no prefix. */
  readonly prefix: MatchedPrefix | null;
  /** Down to the match: `HTTPRoute shop/web spec.rules[0].matches[1]`. */
  readonly provenance: Provenance;
}

export type RouteResult =
  | MatchedRule
  /** Routes are attached and none matches: 404. */
  | { readonly kind: "unmatched"; readonly routes: number }
  /** No route is attached for this caller: the request goes where it was going. */
  | { readonly kind: "noRoutes" };

/** A part of a route that could not be compiled; its rule answers 500. */
export interface RouteProblem {
  readonly provenance: Provenance;
  readonly message: string;
}

interface Entry extends Ranked {
  readonly result: MatchedRule;
}

/** Compiled once for each set; the store hands out a new set when any route in it changes. */
const compiledSets = new WeakMap<RouteSet, Router>();

/** @param set of HTTP or gRPC routes; of any other protocol none speaks of requests. */
export function routerOf(set: RouteSet): Router {
  let router = compiledSets.get(set);
  if (router === undefined) compiledSets.set(set, (router = new Router(set.routes)));
  return router;
}

export class Router {
  readonly #paths = new PathIndex<Entry>();
  /** When no rule matches. */
  readonly #otherwise: RouteResult;
  readonly problems: readonly RouteProblem[];
  /** Some rule changes the headers of answers. */
  readonly changesAnswers: boolean;

  /** @param routes all that decide together for one service, port and client; in any order. */
  constructor(routes: readonly Route[]) {
    const http = routes.filter(({ rules }) => rules.protocol === "http" || rules.protocol === "grpc");
    const problems: RouteProblem[] = [];
    const prepared = http.flatMap((route) => prepareRoute(route, problems)).sort((a, b) => compareCandidates(a.candidate, b.candidate));
    prepared.forEach(({ candidate, rule, pathBeginning, conditions, provenance }, rank) => {
      const { route, match } = candidate;
      this.#paths.add({ rank, match, pathBeginning, conditions, result: { kind: "matched", route, rule, prefix: prefixOf(candidate), provenance } });
    });
    this.#otherwise = Object.freeze(http.length === 0 ? { kind: "noRoutes" } : { kind: "unmatched", routes: http.length });
    this.problems = problems;
    this.changesAnswers = prepared.some(({ rule }) => rule.responseHeaders.length > 0 || rule.cors !== null);
  }

  match(request: RequestView): RouteResult {
    return this.#paths.find(request)?.result ?? this.#otherwise;
  }
}

interface Prepared {
  readonly candidate: Candidate;
  readonly rule: CompiledRule;
  readonly pathBeginning: string;
  readonly conditions: RequestTest | null;
  readonly provenance: Provenance;
}

function prepareRoute(route: Route, problems: RouteProblem[]): Prepared[] {
  const { rules } = route;
  if (rules.protocol !== "http" && rules.protocol !== "grpc") return [];
  const { precedence } = rules;
  return rules.rules.flatMap((rule, ruleIndex) => {
    const wrong: string[] = [];
    const matches = (rule.matches.length === 0 ? [ANY_REQUEST] : rule.matches).map((written, matchIndex) => {
      const match = { ...written, path: normalPathPattern(written.path) };
      const fieldPath = rule.matches.length === 0 ? rule.fieldPath : rule.matchPaths?.[matchIndex] ?? `${rule.fieldPath}.${route.provenance.kind === "VirtualService" ? "match" : "matches"}[${matchIndex}]`;
      const { conditions, problems: ofMatch } = compileConditions(match, precedence);
      const regex = match.path?.kind === "regex" ? compilePath(match.path, match.pathIgnoresCase) : null;
      const said = regex === null || regex.ok ? ofMatch : [...ofMatch, `path: ${regex.error}`];
      wrong.push(...said.map((message) => `${fieldPath}: ${message}`));
      // One that cannot be compiled is any path: its rule is broken.
      const sound = regex?.ok === true ? regex.value : null;
      return {
        candidate: { route, precedence, ruleIndex, matchIndex, match }, provenance: { ...route.provenance, fieldPath },
        pathBeginning: sound === null || match.path === null || match.pathIgnoresCase ? "" : literalPrefix(match.path.value), conditions: sound === null ? conditions : alsoPath(sound, conditions),
      };
    });
    const compiled = compileRule(route, rule, wrong);
    for (const message of compiled.problems) problems.push({ provenance: compiled.provenance, message });
    return matches.map((match) => ({ ...match, rule: compiled }));
  });
}

function alsoPath(path: WholeMatch, conditions: RequestTest | null): RequestTest {
  return conditions === null ? (request) => path(request.path) : (request) => path(request.path) && conditions(request);
}

/** Without a path there is the one that covers all: by segments in the Gateway API, "/" as text in a VirtualService. */
function prefixOf({ match: { path }, precedence }: Candidate): MatchedPrefix | null {
  if (path === null) return precedence === "gatewayApi" ? { text: "", wholeSegments: true } : { text: "/", wholeSegments: false };
  if (path.kind === "prefix") return { text: segmentPrefix(path.value), wholeSegments: true };
  return path.kind === "textPrefix" ? { text: path.value, wholeSegments: false } : null;
}
