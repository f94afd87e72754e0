// Cross-origin requests, by the Fetch standard: preflights are answered here, and actual requests get their response headers. Where a
// rule has a CORS filter it alone decides: what the backend says of origins is taken out.

import type { TextPattern } from "../../mesh/l7/match.ts";
import type { Cors } from "../../mesh/l7/route.ts";
import { isToken } from "../../wire/http/field-bytes.ts";
import type { HeaderOperation } from "./header-change.ts";
import type { RequestView } from "./request.ts";
import type { WholeMatch } from "./simple-regex.ts";
import { compileText } from "./text-pattern.ts";

export interface CompiledCors {
  readonly cors: Cors;
  readonly allows: WholeMatch;
  /** Every origin gets the same answer, so that caches need not tell them apart. */
  readonly sameForAll: boolean;
  readonly problems: readonly string[];
}

export type CorsOutcome =
  /** Not cross-origin, or a preflight that is passed on. */
  | { readonly kind: "pass"; readonly responseHeaders: readonly HeaderOperation[] }
  | { readonly kind: "preflight"; readonly allowed: boolean; readonly responseHeaders: readonly HeaderOperation[] };

const RESPONSE_NAMES = [
  "access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers",
  "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age",
];
const REMOVE_ALL: readonly HeaderOperation[] = RESPONSE_NAMES.map((name) => ({ kind: "remove", name }));

/** Longer lists of requested headers are not sent back. */
const ECHO_CHARS_MAX = 4096;

export function compileCors(cors: Cors): CompiledCors {
  const problems: string[] = [];
  const tests: WholeMatch[] = [];
  for (const pattern of cors.allowOrigins) {
    const test = originTest(pattern);
    if (typeof test === "string") problems.push(`origin: ${test}`);
    else tests.push(test);
  }
  for (const name of [...cors.allowMethods, ...cors.allowHeaders, ...cors.exposeHeaders]) if (!isToken(name)) problems.push(`${JSON.stringify(name)} is no name of a method or header`);
  const any = cors.allowOrigins.some(isAnyOrigin);
  return { cors, allows: any ? () => true : (origin) => tests.some((test) => test(origin)), sameForAll: any && !cors.allowCredentials, problems };
}

export function decideCors(compiled: CompiledCors, request: RequestView): CorsOutcome {
  const { cors, sameForAll } = compiled;
  const vary: readonly HeaderOperation[] = sameForAll ? [] : [{ kind: "append", name: "vary", value: "Origin" }];
  const origins = request.fields.values("origin");
  const [origin] = origins;
  if (origin === undefined) return { kind: "pass", responseHeaders: [...REMOVE_ALL, ...vary] };
  const requestedMethod = request.fields.value("access-control-request-method");
  const isPreflight = request.method === "OPTIONS" && requestedMethod !== undefined;
  // Two origins are no browser's doing.
  const allowed = origins.length === 1 && compiled.allows(origin.toLowerCase());
  if (!allowed) {
    if (isPreflight && cors.unmatchedPreflight === "answer") return { kind: "preflight", allowed: false, responseHeaders: vary };
    return { kind: "pass", responseHeaders: isPreflight ? [] : [...REMOVE_ALL, ...vary] };
  }
  const answer: HeaderOperation[] = [{ kind: "set", name: "access-control-allow-origin", value: sameForAll ? "*" : origin }];
  if (cors.allowCredentials) answer.push({ kind: "set", name: "access-control-allow-credentials", value: "true" });
  const exposed = cors.exposeHeaders.filter((name) => name !== "*" || !cors.allowCredentials);
  if (exposed.length > 0) answer.push({ kind: "set", name: "access-control-expose-headers", value: exposed.join(", ") });
  if (!isPreflight) return { kind: "pass", responseHeaders: [...REMOVE_ALL, ...answer, ...vary] };
  const varyAll: HeaderOperation[] = [...vary];
  const list = (name: string, allow: readonly string[], requested: { readonly header: string; readonly value: string | undefined }): void => {
    if (!allow.includes("*")) {
      if (allow.length > 0) answer.push({ kind: "set", name, value: allow.join(", ") });
      return;
    }
    if (requested.value === undefined || requested.value.length > ECHO_CHARS_MAX || !requested.value.split(",").every((part) => isToken(part.trim()))) return;
    answer.push({ kind: "set", name, value: requested.value });
    varyAll.push({ kind: "append", name: "vary", value: requested.header });
  };
  list("access-control-allow-methods", cors.allowMethods, { header: "Access-Control-Request-Method", value: requestedMethod });
  list("access-control-allow-headers", cors.allowHeaders, { header: "Access-Control-Request-Headers", value: request.fields.value("access-control-request-headers") });
  if (cors.maxAgeS !== null) answer.push({ kind: "set", name: "access-control-max-age", value: String(cors.maxAgeS) });
  return { kind: "preflight", allowed: true, responseHeaders: [...answer, ...varyAll] };
}

const isAnyOrigin = (pattern: TextPattern): boolean => pattern.kind === "present" || pattern.kind === "exact" && pattern.value === "*";

/** `https://*.example.com` is any name below that domain, however deep, and not the domain itself. */
function originTest(pattern: TextPattern): WholeMatch | string {
  if (pattern.kind === "exact" && pattern.value.includes("://*.")) {
    const [scheme, domain] = pattern.value.toLowerCase().split("*", 2);
    if (scheme === undefined || domain === undefined || domain.includes("*")) return `${JSON.stringify(pattern.value)} may have one wildcard`;
    return (origin) => origin.startsWith(scheme) && origin.endsWith(domain) && origin.length > scheme.length + domain.length
      && !origin.slice(scheme.length, -domain.length).includes("/");
  }
  const test = compileText(pattern.kind === "present" || pattern.kind === "regex" ? pattern : { ...pattern, value: pattern.value.toLowerCase() });
  return test.ok ? test.value : test.error;
}
