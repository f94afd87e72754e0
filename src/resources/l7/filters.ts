// Filters of the Gateway API's routes into those of the model. A filter that cannot be had breaks its rule: requests that it would
// have handled get 500, as the specification asks, rather than pass without it.

import { nameHalf } from "../../core/brand.ts";
import type { ExternalAuthorizer } from "../../mesh/l7/access.ts";
import type { TextPattern } from "../../mesh/l7/match.ts";
import type { Cors, HeaderChange, PathChange, RouteFilter } from "../../mesh/l7/route.ts";
import type { FieldPath } from "../diagnostic.ts";
import { quoteRegex } from "../patterns.ts";
import type { CorsSpec, HeaderModifier, HttpFilter, PathModifier } from "../route-parts.ts";
import type { Report } from "../resource.ts";
import { resolveBackend } from "./references.ts";
import { condition, type Condition } from "./status.ts";
import type { View } from "./view.ts";

/** An authorizer that a filter names says nothing of time; this is Envoy's own default. */
const AUTHORIZER_TIMEOUT_MS = 200;
const AUTHORIZER_BODY_BYTES = 1024;
const CORS_MAX_AGE_S = 5;
const REDIRECT_STATUS = 302;

export interface TranslatedFilters {
  readonly filters: readonly RouteFilter[];
  /** Why the rule cannot be enforced; null when it can. */
  readonly broken: string | null;
  readonly faults: readonly Condition[];
}

export function translateFilters(specs: readonly HttpFilter[], namespace: string, at: FieldPath, view: View, report: Report): TranslatedFilters {
  const filters: RouteFilter[] = [];
  const faults: Condition[] = [];
  let broken: string | null = null;
  specs.forEach((filter, index) => {
    const path = [...at, index];
    if (filter.requestHeaderModifier !== undefined) filters.push({ kind: "requestHeaders", change: headerChange(filter.requestHeaderModifier) });
    if (filter.responseHeaderModifier !== undefined) filters.push({ kind: "responseHeaders", change: headerChange(filter.responseHeaderModifier) });
    if (filter.requestRedirect !== undefined) {
      const { scheme = null, hostname = null, path: change, port = null, statusCode = REDIRECT_STATUS } = filter.requestRedirect;
      filters.push({ kind: "redirect", redirect: { scheme, hostname, path: pathChange(change), port, status: statusCode } });
    }
    if (filter.urlRewrite !== undefined) filters.push({ kind: "rewrite", hostname: filter.urlRewrite.hostname ?? null, path: pathChange(filter.urlRewrite.path) });
    if (filter.cors !== undefined) filters.push({ kind: "cors", cors: translateCors(filter.cors) });
    if (filter.requestMirror !== undefined) {
      const { backendRef, percent, fraction } = filter.requestMirror;
      const { target, fault } = resolveBackend(backendRef, namespace, [...path, "requestMirror", "backendRef"], view, report);
      if (fault !== null) faults.push(fault);
      // A copy that has nowhere to go is not sent; the request itself is not touched.
      else filters.push({ kind: "mirror", mirror: { target, fraction: fraction === undefined ? (percent ?? 100) / 100 : fraction.numerator / (fraction.denominator ?? 100) } });
    }
    if (filter.externalAuth !== undefined) {
      const { target, fault } = resolveBackend(filter.externalAuth.backendRef, namespace, [...path, "externalAuth", "backendRef"], view, report);
      if (fault !== null) faults.push(fault);
      if (target.kind === "invalid") broken = `the external authorizer is not there: ${target.reason}`;
      else if (target.kind === "service" && nameHalf(target.service).startsWith("*")) {
        broken = `${nameHalf(target.service)} stands for many hosts, and an authorizer is one`;
        faults.push(condition("ResolvedRefs", false, "UnsupportedProtocol", broken));
        report("error", "fail_closed", [...path, "externalAuth", "backendRef"], `found ${broken}; requests that this rule matches get 500. Give the authorizer a ServiceEntry of its own`);
      }
      else filters.push({ kind: "externalAuth", authorizer: authorizer(filter.externalAuth, target) });
    }
    if (filter.extensionRef !== undefined) {
      const { group, kind, name } = filter.extensionRef;
      broken = `the filter ${kind} ${name} of group ${JSON.stringify(group)} is not known`;
      report("error", "fail_closed", [...path, "extensionRef"], `found a reference to ${kind} ${name} of group ${JSON.stringify(group)}, which is no filter we know; requests that this rule matches get 500`);
    }
  });
  return { filters, broken, faults };
}

export function headerChange({ set = [], add = [], remove = [] }: HeaderModifier): HeaderChange {
  const pairs = (entries: readonly { readonly name: string; readonly value: string }[]): (readonly [string, string])[] => entries.map(({ name, value }) => [name.toLowerCase(), value]);
  return { set: pairs(set), add: pairs(add), remove: remove.map((name) => name.toLowerCase()) };
}

function pathChange(path: PathModifier | undefined): PathChange | null {
  if (path === undefined) return null;
  return path.type === "ReplaceFullPath" ? { kind: "full", value: path.replaceFullPath! } : { kind: "prefix", value: path.replacePrefixMatch! };
}

function translateCors(spec: CorsSpec): Cors {
  return {
    allowOrigins: (spec.allowOrigins ?? []).map(originPattern), allowMethods: spec.allowMethods ?? [], allowHeaders: spec.allowHeaders ?? [], exposeHeaders: spec.exposeHeaders ?? [],
    allowCredentials: spec.allowCredentials ?? false, maxAgeS: spec.maxAge ?? CORS_MAX_AGE_S, unmatchedPreflight: "answer",
  };
}

/** A star stands for any labels to its left: `https://*.shop.example` covers `https://a.b.shop.example`. */
function originPattern(origin: string): TextPattern {
  if (origin === "*") return { kind: "present" };
  return origin.includes("*") ? { kind: "regex", value: origin.split("*").map(quoteRegex).join("[^:/]+") } : { kind: "exact", value: origin };
}

function authorizer(spec: NonNullable<HttpFilter["externalAuth"]>, { service, port }: { readonly service: ExternalAuthorizer["service"]; readonly port: number }): ExternalAuthorizer {
  const lower = (names: readonly string[] | undefined): string[] => (names ?? []).map((name) => name.toLowerCase());
  return {
    protocol: spec.protocol === "GRPC" ? "grpc" : "http", service, port, timeoutMs: AUTHORIZER_TIMEOUT_MS, onFailure: "deny", statusOnError: 403, pathPrefix: spec.http?.path ?? "",
    // Without a list gRPC gets every header, HTTP only those it cannot do without.
    includeRequestHeaders: spec.protocol === "GRPC" ? (spec.grpc?.allowedHeaders === undefined ? ["*"] : lower(spec.grpc.allowedHeaders)) : ["authorization", "cookie", ...lower(spec.http?.allowedHeaders)],
    includeBodyBytesMax: spec.forwardBody === undefined ? 0 : (spec.forwardBody.maxSize ?? AUTHORIZER_BODY_BYTES), allowPartialBody: true, bodyAsBytes: false, changesRoute: false, additionalHeaders: [],
    headersUpstream: spec.protocol === "GRPC" ? ["*"] : lower(spec.http?.allowedResponseHeaders), headersDownstreamOnAllow: [], headersDownstream: ["*"],
  };
}
