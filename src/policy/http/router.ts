// Finds the rule of a request: all HTTPRoutes, GRPCRoutes and VirtualServices of one service and port, compiled into one index that
// costs about the same for ten rules and for ten thousand. Says which match of which rule decided, and why nothing did.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import { ANY_REQUEST } from "../../mesh/l7/match.ts";
import type { Route, RouteParent } from "../../mesh/l7/route.ts";
import { compileRule, type CompiledRule } from "./compiled-rule.ts";
import { PathIndex, type Ranked } from "./path-index.ts";
import { type Candidate, compareCandidates } from "./precedence.ts";
import type { MatchedPrefix } from "./path-change.ts";
import { compileConditions, compilePath, type RequestTest, segmentPrefix } from "./request-match.ts";
import type { RequestView } from "./request.ts";
import type { WholeMatch } from "./simple-regex.ts";

export interface RouterScope {
  readonly service: NamespacedName;
  readonly port: number;
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

export class Router {
  readonly #producer: RouteIndex | null;
  /** Namespaces with routes of their own, which take the place of the producer's. */
  readonly #consumers: ReadonlyMap<string, RouteIndex>;
  readonly problems: readonly RouteProblem[];

  /** @param routes any routes; those that attach to the scope are used. */
  constructor(routes: readonly Route[], scope: RouterScope) {
    const problems: RouteProblem[] = [];
    const attached = routes.flatMap((route) => route.parents.filter((parent) => covers(parent, scope)).map((parent) => ({ route, parent })));
    const of = (namespace: string | null): readonly Route[] =>
      [...new Set(attached.filter(({ parent }) => parent.clientNamespace === namespace).map(({ route }) => route))];
    const namespaces = new Set(attached.map(({ parent }) => parent.clientNamespace).filter((namespace) => namespace !== null));
    this.#producer = RouteIndex.of(of(null), problems);
    const consumers = new Map<string, RouteIndex>();
    for (const namespace of namespaces) {
      const index = RouteIndex.of(of(namespace), problems);
      if (index !== null) consumers.set(namespace, index);
    }
    this.#consumers = consumers;
    this.problems = problems;
  }

  match(request: RequestView): RouteResult {
    const { namespace } = request.source;
    const own = namespace === null || this.#consumers.size === 0 ? undefined : this.#consumers.get(namespace);
    const index = own ?? this.#producer;
    return index === null ? NO_ROUTES : index.match(request);
  }
}

const NO_ROUTES: RouteResult = Object.freeze({ kind: "noRoutes" });

function covers(parent: RouteParent, scope: RouterScope): boolean {
  return parent.service === scope.service && (parent.port === null || parent.port === scope.port);
}

class RouteIndex {
  readonly #paths = new PathIndex<Entry>();
  readonly #unmatched: RouteResult;

  /** Null when no route speaks of HTTP. */
  static of(routes: readonly Route[], problems: RouteProblem[]): RouteIndex | null {
    const http = routes.filter(({ rules }) => rules.protocol === "http" || rules.protocol === "grpc");
    return http.length === 0 ? null : new RouteIndex(http, problems);
  }

  private constructor(routes: readonly Route[], problems: RouteProblem[]) {
    this.#unmatched = Object.freeze({ kind: "unmatched", routes: routes.length });
    const prepared = routes.flatMap((route) => prepareRoute(route, problems)).sort((a, b) => compareCandidates(a.candidate, b.candidate));
    prepared.forEach(({ candidate, rule, pathRegex, conditions, provenance }, rank) => {
      const { route, match } = candidate;
      this.#paths.add({ rank, match, pathRegex, conditions, result: { kind: "matched", route, rule, prefix: prefixOf(candidate), provenance } });
    });
  }

  match(request: RequestView): RouteResult {
    return this.#paths.find(request)?.result ?? this.#unmatched;
  }
}

interface Prepared {
  readonly candidate: Candidate;
  readonly rule: CompiledRule;
  readonly pathRegex: WholeMatch | null;
  readonly conditions: RequestTest | null;
  readonly provenance: Provenance;
}

function prepareRoute(route: Route, problems: RouteProblem[]): Prepared[] {
  const { rules } = route;
  if (rules.protocol !== "http" && rules.protocol !== "grpc") return [];
  const { precedence } = rules;
  return rules.rules.flatMap((rule, ruleIndex) => {
    const wrong: string[] = [];
    const matches = (rule.matches.length === 0 ? [ANY_REQUEST] : rule.matches).map((match, matchIndex) => {
      const fieldPath = rule.matches.length === 0 ? rule.fieldPath : `${rule.fieldPath}.matches[${matchIndex}]`;
      const { conditions, problems: ofMatch } = compileConditions(match, precedence);
      const path = match.path?.kind === "regex" ? compilePath(match.path, match.pathIgnoresCase) : null;
      const said = path === null || path.ok ? ofMatch : [...ofMatch, `path: ${path.error}`];
      wrong.push(...said.map((message) => `${fieldPath}: ${message}`));
      return { candidate: { route, precedence, ruleIndex, matchIndex, match }, pathRegex: path?.ok === true ? path.value : null, conditions, provenance: { ...route.provenance, fieldPath } };
    });
    const compiled = compileRule(route, rule, wrong);
    for (const message of compiled.problems) problems.push({ provenance: compiled.provenance, message });
    return matches.map((match) => ({ ...match, rule: compiled }));
  });
}

/** Without a path there is the one that covers all: by segments in the Gateway API, "/" as text in a VirtualService. */
function prefixOf({ match: { path }, precedence }: Candidate): MatchedPrefix | null {
  if (path === null) return precedence === "gatewayApi" ? { text: "", wholeSegments: true } : { text: "/", wholeSegments: false };
  if (path.kind === "prefix") return { text: segmentPrefix(path.value), wholeSegments: true };
  return path.kind === "textPrefix" ? { text: path.value, wholeSegments: false } : null;
}
