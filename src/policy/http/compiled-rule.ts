// One rule, compiled once: its filters ready to be applied in order, its backends ready to be drawn, its faults with their matches.
// A part that cannot be compiled breaks the rule: what it would have done to a request is not left out in silence.

import { formatProvenance, type Provenance } from "../../core/fault.ts";
import type { ExternalAuthorizer } from "../../mesh/l7/access.ts";
import type { Fault } from "../../mesh/l7/fault.ts";
import type { BackendTarget, HttpRule, Mirror, Redirect, Route, RouteBackend, RouteFilter } from "../../mesh/l7/route.ts";
import { type CompiledCors, compileCors } from "./cors.ts";
import { compileHeaderChange, type HeaderOperation } from "./header-change.ts";
import { type CompiledPathChange, compilePathChange } from "./path-change.ts";
import { type RequestTest, wholeMatch } from "./request-match.ts";
import { sessionProblems } from "./session.ts";

export type CompiledFilter =
  | { readonly kind: "requestHeaders"; readonly operations: readonly HeaderOperation[]; readonly host: string | null }
  | { readonly kind: "responseHeaders"; readonly operations: readonly HeaderOperation[] }
  | { readonly kind: "redirect"; readonly redirect: Redirect; readonly path: CompiledPathChange | null }
  | { readonly kind: "rewrite"; readonly hostname: string | null; readonly path: CompiledPathChange | null }
  | { readonly kind: "mirror"; readonly mirror: Mirror }
  | { readonly kind: "cors"; readonly cors: CompiledCors }
  | { readonly kind: "externalAuth"; readonly authorizer: ExternalAuthorizer }
  | { readonly kind: "respond"; readonly status: number; readonly body: string };

export interface CompiledBackend {
  readonly target: BackendTarget;
  /** The same text for the same service, port and subset: the name of the backend in sessions. */
  readonly key: string;
  /** Sum of the weights up to and with this one. */
  readonly until: number;
  readonly filters: readonly CompiledFilter[];
  /** e.g. `HTTPRoute shop/web spec.rules[0].backendRefs[1]`. */
  readonly provenance: Provenance;
}

export interface CompiledFault {
  readonly fault: Fault;
  /** Joined by OR; null for all requests. */
  readonly applies: RequestTest | null;
  readonly provenance: Provenance;
}

export interface CompiledRule {
  readonly route: Route;
  readonly rule: HttpRule;
  readonly provenance: Provenance;
  /** Its provenance as text: what its sessions belong to. */
  readonly owner: string;
  /** Why the rule serves nothing; null when it is sound. */
  readonly broken: string | null;
  readonly problems: readonly string[];
  readonly filters: readonly CompiledFilter[];
  /** Of all filters that change answers, in order. */
  readonly responseHeaders: readonly HeaderOperation[];
  /** Null when no filter is of CORS. */
  readonly cors: CompiledCors | null;
  readonly backends: readonly CompiledBackend[];
  readonly totalWeight: number;
  readonly faults: readonly CompiledFault[];
}

/** @param matchProblems what is wrong with the rule's matches. */
export function compileRule(route: Route, rule: HttpRule, matchProblems: readonly string[]): CompiledRule {
  const problems = [...matchProblems];
  const provenance: Provenance = { ...route.provenance, fieldPath: rule.fieldPath };
  const filters = compileFilters(rule.filters, problems);
  let until = 0;
  const backends = rule.backends.map((backend, i): CompiledBackend => {
    if (!Number.isFinite(backend.weight) || backend.weight < 0) problems.push(`backend ${i}: the weight ${backend.weight} is not a number from 0`);
    until += backend.weight;
    return { target: backend.target, key: backendKey(backend), until, filters: compileFilters(backend.filters, problems), provenance: { ...provenance, fieldPath: `${rule.fieldPath}.${route.provenance.kind === "VirtualService" ? "route" : "backendRefs"}[${i}]` } };
  });
  const faults = rule.faults.map((fault) => compileFault(fault, route.provenance, problems));
  if (rule.sessionPersistence !== null) problems.push(...sessionProblems(rule.sessionPersistence));
  const cors = filters.find((filter) => filter.kind === "cors")?.cors ?? null;
  const broken = rule.broken ?? (problems.length > 0 ? problems.join("; ") : null);
  const responseHeaders = filters.flatMap((filter) => (filter.kind === "responseHeaders" ? filter.operations : []));
  return { route, rule, provenance, owner: formatProvenance(provenance), broken, problems, filters, responseHeaders, cors, backends, totalWeight: until, faults };
}

/** For rules and for traffic policies of a service alike. */
export function compileFault(fault: Fault, origin: Provenance, problems: string[]): CompiledFault {
  const tests = fault.matches.map(wholeMatch);
  for (const test of tests) problems.push(...test.problems.map((problem) => `${fault.fieldPath}: ${problem}`));
  const applies = tests.length === 0 ? null : (request: Parameters<RequestTest>[0]) => tests.some(({ test }) => test(request));
  return { fault, applies, provenance: { ...origin, fieldPath: fault.fieldPath } };
}

function backendKey({ target }: RouteBackend): string {
  return target.kind === "service" ? `${target.service}:${target.port}${target.subset === null ? "" : `|${target.subset}`}` : "";
}

function compileFilters(filters: readonly RouteFilter[], problems: string[]): CompiledFilter[] {
  return filters.map((filter) => compileFilter(filter, problems));
}

function compileFilter(filter: RouteFilter, problems: string[]): CompiledFilter {
  switch (filter.kind) {
    case "requestHeaders": {
      const { operations, host, problems: wrong } = compileHeaderChange(filter.change, "request");
      problems.push(...wrong);
      return { kind: "requestHeaders", operations, host };
    }
    case "responseHeaders": {
      const { operations, problems: wrong } = compileHeaderChange(filter.change, "response");
      problems.push(...wrong);
      return { kind: "responseHeaders", operations };
    }
    case "redirect": return { kind: "redirect", redirect: filter.redirect, path: compileChange(filter.redirect.path, problems) };
    case "rewrite": return { kind: "rewrite", hostname: filter.hostname, path: compileChange(filter.path, problems) };
    case "mirror": return { kind: "mirror", mirror: filter.mirror };
    case "cors": {
      const cors = compileCors(filter.cors);
      problems.push(...cors.problems);
      return { kind: "cors", cors };
    }
    case "externalAuth": return { kind: "externalAuth", authorizer: filter.authorizer };
    case "respond": return { kind: "respond", status: filter.status, body: filter.body };
    default: return filter satisfies never;
  }
}

function compileChange(change: Parameters<typeof compilePathChange>[0] | null, problems: string[]): CompiledPathChange | null {
  if (change === null) return null;
  const compiled = compilePathChange(change);
  if (compiled.ok) return compiled.value;
  problems.push(compiled.error);
  return null;
}
