// The router against its definition: every match of every rule tried one by one with plain comparisons, and the best of those that hold
// by the order that the Gateway API and Istio write down. Routes and requests come from a small world in which they meet often.

import { strictEqual as equal } from "node:assert/strict";
import { ANY_REQUEST, type HeaderPattern, type PathPattern, type QueryPattern, type RequestMatch, type TextPattern } from "../../src/mesh/l7/match.ts";
import type { Route } from "../../src/mesh/l7/route.ts";
import type { RequestView } from "../../src/policy/http/request.ts";
import { Router } from "../../src/policy/http/router.ts";
import { backend, request, route, rule } from "../kit/http-records.ts";
import { Dice } from "./random-text.ts";

export const name = "routes";

/** Requests tried on one set of routes before the next is made. */
const REQUESTS_PER_SET = 100;

const SEGMENTS = ["/a", "/b", "/ab", "/A", "/", "/a.b", "/1"];
const VALUES = ["", "a", "b", "ab", "A", "1", "a,b", "a, b"];
const NAMES = ["x", "y", "cookie"];
const METHODS = ["GET", "POST", "get"];
const HOSTS = ["web", "API.example", "api.example"];
/** As RE2 writes them, and as a RegExp that means the same for these texts. */
const REGEXES = ["/a.*", ".*b", "/(a|b)", "/[a-z]+/?", "a|b", "(?:a|ab)", ".+", ".*", "[^/]*", "(a*)*b?", "/a/[0-9]+", "\\w+", "a?b?"];

export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  const dice = new Dice(seed);
  let routes: readonly Route[] = [];
  let router = new Router([]);
  for (let i = 0; i < iterations; i++) {
    if (i % REQUESTS_PER_SET === 0) {
      routes = dice.some(dice.chance(0.2) ? 30 : 5, () => randomRoute(dice));
      // One name for one route.
      routes = [...new Map(routes.map((each) => [each.id, each])).values()];
      router = new Router(routes);
    }
    const asked = randomRequest(dice);
    const found = router.match(asked);
    const got = found.kind === "matched" ? `${found.route.id} ${found.provenance.fieldPath}` : found.kind;
    equal(got, expected(routes, asked), `seed ${seed}, iteration ${i}: ${asked.method} ${asked.path}${asked.query} of ${JSON.stringify(routes.map(({ id, rules }) => [id, rules]))}`);
  }
  return { iterations };
}

// ---- the definition

function expected(routes: readonly Route[], asked: RequestView): string {
  if (routes.length === 0) return "noRoutes";
  let best: { readonly order: readonly (number | string)[]; readonly name: string } | null = null;
  for (const each of routes) {
    const { rules } = each;
    if (rules.protocol !== "http" && rules.protocol !== "grpc") continue;
    for (const [r, one] of rules.rules.entries()) {
      const matches = one.matches.length === 0 ? [ANY_REQUEST] : one.matches;
      for (const [m, match] of matches.entries()) {
        const counted = rules.precedence === "gatewayApi" ? { ...match, headers: firsts(match.headers), query: firsts(match.query) } : match;
        if (!holds(counted, asked)) continue;
        const specific = rules.precedence === "gatewayApi" ? [0, ...pathOrder(counted.path), counted.method === null ? 1 : 0, -counted.headers.length, -counted.query.length] : [1, 0, 0, 0, 0, 0];
        const order = [...specific, each.createdMs, `${each.namespace}/${each.name}`, each.id, r, m];
        if (best === null || less(order, best.order)) best = { order, name: `${each.id} ${one.fieldPath}${one.matches.length === 0 ? "" : `.${rules.precedence === "gatewayApi" ? "matches" : "match"}[${m}]`}` };
      }
    }
  }
  return best?.name ?? "unmatched";
}

const firsts = <T extends { readonly name: string }>(list: readonly T[]): readonly T[] => [...new Map([...list].reverse().map((each) => [each.name, each])).values()];

/** Exact, prefix by length, regular expression by length, everything. */
function pathOrder(path: PathPattern | null): readonly [number, number] {
  if (path === null) return [3, 0];
  const bare = path.kind === "prefix" ? path.value.replace(/\/+$/, "") : path.value;
  if (path.kind === "exact") return [0, -bare.length];
  if (path.kind === "regex") return [2, -bare.length];
  return bare.replace(/\/+$/, "") === "" ? [3, 0] : [1, -bare.length];
}

function less(a: readonly (number | string)[], b: readonly (number | string)[]): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i]! < b[i]!;
  return false;
}

function holds(match: RequestMatch, asked: RequestView): boolean {
  return (match.path === null || pathHolds(match.path, asked.path, match.pathIgnoresCase)) && textHolds(match.method, asked.method) && textHolds(match.scheme, asked.scheme)
    && (match.authority === null || textHolds(match.authority.kind === "exact" ? { kind: "exact", value: match.authority.value.toLowerCase() } : match.authority, asked.host))
    && (match.sourceNamespace === null || match.sourceNamespace === asked.source.namespace)
    && Object.entries(match.sourceLabels).every(([label, value]) => asked.source.labels[label] === value)
    && match.headers.every(({ name: header, pattern, invert }) => {
      const value = asked.fields.value(header);
      return (value !== undefined && textHolds(pattern, value)) !== invert;
    })
    && match.query.every(({ name: parameter, pattern }) => {
      const pair = asked.query.slice(1).split("&").map((text) => text.split("=", 2)).find(([key]) => asked.query !== "" && key === parameter);
      return pair !== undefined && textHolds(pattern, pair[1] ?? "");
    });
}

function pathHolds(pattern: PathPattern, path: string, ignoresCase: boolean): boolean {
  if (pattern.kind === "regex") return new RegExp(`^(?:${pattern.value})$`, ignoresCase ? "i" : "").test(path);
  const [p, v] = ignoresCase ? [path.toLowerCase(), pattern.value.toLowerCase()] : [path, pattern.value];
  if (pattern.kind === "exact") return p === v;
  if (pattern.kind === "textPrefix") return p.startsWith(v);
  const bare = v.replace(/\/+$/, "");
  return p === bare || p.startsWith(`${bare}/`) || bare === "";
}

function textHolds(pattern: TextPattern | null, text: string): boolean {
  if (pattern === null || pattern.kind === "present") return true;
  switch (pattern.kind) {
    case "exact": return text === pattern.value;
    case "prefix": return text.startsWith(pattern.value);
    case "suffix": return text.endsWith(pattern.value);
    case "regex": return new RegExp(`^(?:${pattern.value})$`).test(text);
    default: return pattern satisfies never;
  }
}

// ---- a small world

const randomPath = (dice: Dice): string => dice.join(SEGMENTS, 3) || "/";
const randomText = (dice: Dice): TextPattern => dice.of<() => TextPattern>([
  () => ({ kind: "exact", value: dice.of(VALUES) }), () => ({ kind: "exact", value: dice.of(VALUES) }), () => ({ kind: "prefix", value: dice.of(VALUES) }), () => ({ kind: "suffix", value: dice.of(VALUES) }),
  () => ({ kind: "regex", value: dice.of(REGEXES) }), () => ({ kind: "present" }),
])();

function randomPathPattern(dice: Dice): PathPattern {
  const kind = dice.of(["exact", "prefix", "prefix", "textPrefix", "regex"] as const);
  return { kind, value: kind === "regex" ? dice.of(REGEXES) : randomPath(dice) };
}

function randomMatch(dice: Dice): RequestMatch {
  return {
    path: dice.chance(0.7) ? randomPathPattern(dice) : null, pathIgnoresCase: dice.chance(0.1), method: dice.chance(0.2) ? { kind: "exact", value: dice.of(METHODS) } : null,
    headers: dice.chance(0.4) ? dice.some(3, (): HeaderPattern => ({ name: dice.of(NAMES), pattern: randomText(dice), invert: dice.chance(0.2) })) : [],
    query: dice.chance(0.2) ? dice.some(2, (): QueryPattern => ({ name: dice.of(NAMES), pattern: randomText(dice) })) : [],
    authority: dice.chance(0.1) ? { kind: "exact", value: dice.of(HOSTS) } : null, scheme: dice.chance(0.05) ? { kind: "exact", value: "https" } : null,
    sourceNamespace: dice.chance(0.1) ? dice.of(["shop", "bank"]) : null, sourceLabels: dice.chance(0.1) ? { app: dice.of(["a", "b"]) } : {},
  };
}

function randomRoute(dice: Dice): Route {
  return route({
    name: dice.of(["r1", "r2", "r3", "r4", "r5", "r6", "r7"]), namespace: dice.of(["shop", "bank"]), kind: dice.of(["HTTPRoute", "HTTPRoute", "GRPCRoute", "VirtualService"]), createdMs: dice.below(3),
    rules: dice.some(dice.chance(0.1) ? 20 : 3, () => rule({ matches: dice.some(3, () => randomMatch(dice)), backends: [backend("b")] })),
  });
}

function randomRequest(dice: Dice): RequestView {
  const query = dice.some(2, () => `${dice.of(["x", "y", "z"])}${dice.chance(0.9) ? `=${dice.of(["", "a", "b", "ab"])}` : ""}`).join("&");
  return request({
    method: dice.of(METHODS), url: dice.chance(0.02) ? dice.of(["*", ""]) : `${randomPath(dice)}${query === "" ? "" : `?${query}`}`, host: dice.of(["web", "api.example"]), scheme: dice.chance(0.1) ? "https" : "http",
    headers: Object.fromEntries(dice.some(3, () => [dice.of(NAMES), dice.chance(0.2) ? [dice.of(VALUES), dice.of(VALUES)] : dice.of(VALUES)] as const)),
    source: { namespace: dice.of(["shop", "bank", null]), labels: dice.chance(0.5) ? { app: dice.of(["a", "b"]) } : {} },
  });
}
