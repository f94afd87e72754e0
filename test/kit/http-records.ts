// Requests, routes and request policies for tests: whole records from the few fields that a test is about.

import type { NamespacedName } from "../../src/core/brand.ts";
import type { ConditionKey, ExternalAuthorizer, JwtRule, RequestPolicy, RequestPolicyAction, RequestPolicyMatch } from "../../src/mesh/l7/access.ts";
import { type HeaderPattern, ANY_REQUEST, type PathPattern, type QueryPattern, type RequestMatch, type TextPattern } from "../../src/mesh/l7/match.ts";
import { type HttpRule, INHERITED_TIMEOUTS, type Route, type RouteBackend, type RouteFilter, type RouteParent } from "../../src/mesh/l7/route.ts";
import type { StringMatch } from "../../src/mesh/records.ts";
import type { FieldLookup, RequestSource, RequestView } from "../../src/policy/http/request.ts";
import { ip, NO_FIELDS, provenance } from "./mesh-records.ts";

export const WEB = "shop/web.shop.svc.cluster.local" as NamespacedName;

/** Fields as an engine keeps them: by lower-case name, repeated ones in order. */
export class TestFields implements FieldLookup {
  readonly #fields: ReadonlyMap<string, readonly string[]>;

  constructor(fields: Readonly<Record<string, string | readonly string[]>>) {
    const map = new Map<string, readonly string[]>();
    for (const [name, value] of Object.entries(fields)) map.set(name.toLowerCase(), typeof value === "string" ? [value] : value);
    this.#fields = map;
  }

  value(name: string): string | undefined {
    return this.#fields.get(name)?.join(name === "cookie" ? "; " : ", ");
  }

  values(name: string): readonly string[] {
    return this.#fields.get(name) ?? [];
  }
}

export const STRANGER: RequestSource = { identity: null, namespace: "shop", labels: {}, ip: ip("198.18.0.9") };

export interface RequestFields {
  readonly method?: string;
  /** With or without a query. */
  readonly url?: string;
  readonly host?: string;
  readonly authorityPort?: number | null;
  readonly scheme?: "http" | "https";
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly source?: Partial<RequestSource>;
}

/** GET http://web/ unless told otherwise. */
export function request(fields: RequestFields = {}): RequestView {
  const url = fields.url ?? "/";
  const mark = url.indexOf("?");
  return {
    method: fields.method ?? "GET", path: mark < 0 ? url : url.slice(0, mark), query: mark < 0 ? "" : url.slice(mark), host: fields.host ?? "web",
    authorityPort: fields.authorityPort ?? null, scheme: fields.scheme ?? "http", fields: new TestFields(fields.headers ?? {}), source: { ...STRANGER, ...fields.source },
  };
}

export const is = (value: string): TextPattern => ({ kind: "exact", value });
export const regex = (value: string): TextPattern & PathPattern => ({ kind: "regex", value });
export const path = {
  exact: (value: string): PathPattern => ({ kind: "exact", value }),
  prefix: (value: string): PathPattern => ({ kind: "prefix", value }),
  text: (value: string): PathPattern => ({ kind: "textPrefix", value }),
};
export const header = (name: string, pattern: TextPattern | string, invert = false): HeaderPattern => ({ name, pattern: typeof pattern === "string" ? is(pattern) : pattern, invert });
export const param = (name: string, pattern: TextPattern | string): QueryPattern => ({ name, pattern: typeof pattern === "string" ? is(pattern) : pattern });
export const when = (fields: Partial<RequestMatch>): RequestMatch => ({ ...ANY_REQUEST, ...fields });

/** `shop/NAME.shop.svc.cluster.local:80`. */
export function backend(name: string, fields: { readonly weight?: number; readonly filters?: readonly RouteFilter[]; readonly subset?: string } = {}): RouteBackend {
  return {
    weight: fields.weight ?? 1, filters: fields.filters ?? [],
    target: { kind: "service", service: `shop/${name}.shop.svc.cluster.local` as NamespacedName, port: 80, subset: fields.subset ?? null },
  };
}
export const invalidBackend = (reason: string, weight = 1): RouteBackend => ({ weight, filters: [], target: { kind: "invalid", reason } });

export const rule = (fields: Partial<HttpRule>): Omit<HttpRule, "fieldPath"> => ({
  name: null, matches: [], matchPaths: null, filters: [], backends: [], timeouts: INHERITED_TIMEOUTS, retry: null, sessionPersistence: null, faults: [], broken: null, ...fields,
});

export interface RouteFields {
  readonly name?: string;
  readonly namespace?: string;
  readonly kind?: "HTTPRoute" | "GRPCRoute" | "VirtualService";
  readonly parents?: readonly RouteParent[];
  readonly rules: readonly Omit<HttpRule, "fieldPath">[];
  readonly createdMs?: number;
}

/** An HTTPRoute `shop/route` of the service WEB. */
export function route(fields: RouteFields): Route {
  const { name = "route", namespace = "shop", kind = "HTTPRoute" } = fields;
  return {
    id: `${kind}/${namespace}/${name}`, name, namespace, parents: fields.parents ?? [{ service: WEB, port: null, clientNamespace: null }], createdMs: fields.createdMs ?? 0,
    provenance: provenance(kind, namespace, name),
    rules: {
      protocol: kind === "GRPCRoute" ? "grpc" : "http", precedence: kind === "VirtualService" ? "asWritten" : "gatewayApi",
      rules: fields.rules.map((each, i) => ({ ...each, fieldPath: `${kind === "VirtualService" ? "spec.http" : "spec.rules"}[${i}]` })),
    },
  };
}

/** A rule of one match that goes to one backend. */
export const to = (name: string, ...matches: readonly Partial<RequestMatch>[]): Omit<HttpRule, "fieldPath"> => rule({ matches: matches.map(when), backends: [backend(name)] });

// ---- access

export const NO_REQUEST_FIELDS: RequestPolicyMatch = {
  ...NO_FIELDS, requestPrincipals: [], notRequestPrincipals: [], remoteIps: [], notRemoteIps: [], hosts: [], notHosts: [], methods: [], notMethods: [], paths: [], notPaths: [], conditions: [],
};
export const requestMatch = (fields: Partial<RequestPolicyMatch>): RequestPolicyMatch => ({ ...NO_REQUEST_FIELDS, ...fields });

export function condition(key: ConditionKey, values: readonly StringMatch[], notValues: readonly StringMatch[] = []): Partial<RequestPolicyMatch> {
  return { conditions: [{ key, values, notValues }] };
}

/** An AuthorizationPolicy `shop/NAME` of the service WEB, one rule for each match. */
export function requestPolicy(
  fields: Partial<Omit<RequestPolicy, "action" | "rules">> & { readonly name: string; readonly action?: RequestPolicyAction | "allow" | "deny" | "audit"; readonly rules?: readonly Partial<RequestPolicyMatch>[] },
): RequestPolicy {
  const { action = "allow", rules = [], ...rest } = fields;
  const namespace = fields.namespace ?? "shop";
  return {
    namespace, targets: [{ kind: "service", service: WEB }], action: typeof action === "string" ? { kind: action } : action, dryRun: false,
    provenance: provenance("AuthorizationPolicy", namespace, fields.name),
    rules: rules.map((match, i) => ({ clauses: [{ matches: [requestMatch(match)] }], fieldPath: `spec.rules[${i}]` })), ...rest,
  };
}

export const AUTHORIZER: ExternalAuthorizer = {
  protocol: "grpc", service: WEB, port: 9000, timeoutMs: 100, onFailure: "deny", statusOnError: 403, pathPrefix: "", includeRequestHeaders: [], includeBodyBytesMax: 0, allowPartialBody: false, bodyAsBytes: false, changesRoute: false,
  additionalHeaders: [], headersUpstream: [], headersDownstreamOnAllow: [], headersDownstream: [],
};

/** Tokens of https://issuer.example, in the Authorization header. */
export const jwtRule = (fields: Partial<JwtRule> = {}): JwtRule => ({
  issuer: "https://issuer.example", audiences: [], keys: { kind: "inline", jwks: "{}" }, sources: [], forwardOriginalToken: false, payloadHeader: null, claimsToHeaders: [],
  spaceDelimitedClaims: ["scope", "permission"], fetchTimeoutMs: 1000, clockSkewMs: 60_000, fieldPath: "spec.jwtRules[0]", ...fields,
});
