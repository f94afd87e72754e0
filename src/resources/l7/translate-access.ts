// AuthorizationPolicy with targetRefs, RequestAuthentication, TokenIntrospection and LoginPolicy into what a waypoint enforces.
// What cannot be enforced as written denies.

import type { ConditionKey, ExternalAuthorizer, JwtRule, LoginPolicy, PathMatch, RequestAuthentication, RequestCondition, RequestPolicy, RequestPolicyAction, RequestPolicyMatch, RequestPolicyRule, TokenSource } from "../../mesh/l7/access.ts";
import type { StringMatch } from "../../mesh/records.ts";
import { DRY_RUN } from "../annotations.ts";
import type { FieldPath } from "../diagnostic.ts";
import { durationMs } from "../durations.ts";
import { type AuthorizationCondition, type AuthorizationPolicyResource, type AuthorizationRule, cidrs, conditionMatch, emptyMatch, isL4Condition, operationMatch, sourceMatch, stringMatches } from "../kinds/authorization-policy.ts";
import { secretText } from "../kinds/config-map.ts";
import type { LoginPolicyResource, TokenIntrospectionResource } from "../kinds/login-policy.ts";
import type { AuthorizerSpec } from "../kinds/mesh-config.ts";
import type { JwtRuleSpec, RequestAuthenticationResource } from "../kinds/request-authentication.ts";
import { type Placed, provenanceOf, type Report } from "../resource.ts";
import { targetsOf } from "../targets.ts";
import { accessTargets } from "./targets.ts";
import type { View } from "./view.ts";

/** Envoy's and Istio's defaults. */
const AUTHORIZER_TIMEOUT_MS = 600_000;
const AUTHORIZER_STATUS = 403;
const BODY_BYTES_MAX = 1024;
const JWKS_TIMEOUT_MS = 5000;
const CLOCK_SKEW_MS = 60_000;
const DEFAULT_SOURCES: readonly TokenSource[] = [{ kind: "header", name: "authorization", prefix: "Bearer " }, { kind: "query", name: "access_token" }];
const SPACE_DELIMITED = ["scope", "permission"];

const emptyRequestMatch: RequestPolicyMatch = {
  ...emptyMatch, requestPrincipals: [], notRequestPrincipals: [], remoteIps: [], notRemoteIps: [], hosts: [], notHosts: [], methods: [], notMethods: [], paths: [], notPaths: [], conditions: [],
};

/** Null for a policy without targetRefs: that one is for ztunnels. */
export function translateRequestPolicy(placed: Placed<AuthorizationPolicyResource>, view: View, report: Report): RequestPolicy | null {
  const { resource } = placed;
  const { spec } = resource;
  if (targetsOf(spec).length === 0) return null;
  return {
    name: resource.name, namespace: resource.namespace,
    targets: accessTargets(resource, "the policy is not enforced there", view, report),
    action: action(spec!.action ?? "ALLOW", spec!.provider?.name ?? "", view, report),
    dryRun: resource.annotations[DRY_RUN] === "true",
    rules: (spec!.rules ?? []).map((rule, index) => requestRule(rule ?? {}, resource.namespace, index)),
    provenance: provenanceOf(placed),
  };
}

function action(written: "ALLOW" | "DENY" | "AUDIT" | "CUSTOM", provider: string, view: View, report: Report): RequestPolicyAction {
  switch (written) {
    case "ALLOW": return { kind: "allow" };
    case "DENY": return { kind: "deny" };
    case "AUDIT": return { kind: "audit" };
    case "CUSTOM": return { kind: "custom", provider, authorizer: findAuthorizer(provider, view, report) };
  }
}

function findAuthorizer(name: string, view: View, report: Report): ExternalAuthorizer | null {
  const at = ["spec", "provider", "name"];
  const denied = (message: string): null => {
    report("error", "fail_closed", at, `${message}; requests that the rules match are denied`);
    return null;
  };
  const provider = view.ask((world) => world.provider(name));
  const grpc = provider?.envoyExtAuthzGrpc;
  const spec: AuthorizerSpec | undefined = provider?.envoyExtAuthzHttp ?? grpc;
  if (provider === null) return denied(`found the provider ${JSON.stringify(name)}, which no MeshConfig of ${view.options.rootNamespace} names`);
  if (spec === undefined) return denied(`found the provider ${JSON.stringify(name)}, which is no external authorizer`);
  const host = providerHost(spec.service, view);
  const port = Number(spec.port);
  if (host === null || !host.ports.some(({ number }) => number === port)) return denied(`found the provider ${JSON.stringify(name)} at ${spec.service}:${spec.port}, which no Service or ServiceEntry has`);
  const lower = (names: readonly string[] | undefined): string[] => (names ?? []).map((text) => text.toLowerCase());
  const body = spec.includeRequestBodyInCheck;
  return {
    protocol: grpc === undefined ? "http" : "grpc", service: host.service, port, timeoutMs: spec.timeout === undefined ? AUTHORIZER_TIMEOUT_MS : durationMs(spec.timeout), onFailure: spec.failOpen === true ? "allow" : "deny",
    statusOnError: spec.statusOnError === undefined ? AUTHORIZER_STATUS : Number(spec.statusOnError), pathPrefix: spec.pathPrefix ?? "",
    includeRequestHeaders: grpc === undefined ? lower([...(spec.includeRequestHeadersInCheck ?? []), ...(spec.includeHeadersInCheck ?? [])]) : ["*"],
    includeBodyBytesMax: body === undefined ? 0 : (body.maxRequestBytes ?? BODY_BYTES_MAX), allowPartialBody: body?.allowPartialMessage ?? false,
    bodyAsBytes: body?.packAsBytes ?? false, changesRoute: spec.clearRouteCache ?? false,
    additionalHeaders: Object.entries(spec.includeAdditionalHeadersInCheck ?? {}).map(([header, value]) => [header.toLowerCase(), value]),
    headersUpstream: grpc === undefined ? lower(spec.headersToUpstreamOnAllow) : ["*"], headersDownstreamOnAllow: lower(spec.headersToDownstreamOnAllow),
    headersDownstream: grpc === undefined ? lower(spec.headersToDownstreamOnDeny ?? ["*"]) : ["*"],
  };
}

/** `NAMESPACE/HOST`, or a host as the root namespace sees it. */
export function providerHost(text: string, view: View) {
  const slash = text.indexOf("/");
  const [namespace, host] = slash < 0 ? [view.options.rootNamespace, text] : [text.slice(0, slash), text.slice(slash + 1)];
  return view.ask((world) => world.host(host, namespace));
}

function requestRule(rule: AuthorizationRule, namespace: string, index: number): RequestPolicyRule {
  const from = (rule.from ?? []).map(({ source }): RequestPolicyMatch => ({
    ...emptyRequestMatch, ...sourceMatch(source, namespace), requestPrincipals: stringMatches(source.requestPrincipals), notRequestPrincipals: stringMatches(source.notRequestPrincipals),
    remoteIps: cidrs(source.remoteIpBlocks), notRemoteIps: cidrs(source.notRemoteIpBlocks),
  }));
  const to = (rule.to ?? []).map(({ operation }): RequestPolicyMatch => ({
    ...emptyRequestMatch, ...operationMatch(operation), hosts: stringMatches(operation.hosts), notHosts: stringMatches(operation.notHosts), methods: stringMatches(operation.methods), notMethods: stringMatches(operation.notMethods),
    paths: pathMatches(operation.paths), notPaths: pathMatches(operation.notPaths),
  }));
  const clauses = [from, to, ...(rule.when ?? []).map((one) => [conditionRequestMatch(one)])].filter((matches) => matches.length > 0).map((matches) => ({ matches }));
  return { clauses, fieldPath: `spec.rules[${index}]` };
}

function conditionRequestMatch(condition: AuthorizationCondition): RequestPolicyMatch {
  const { key, values, notValues } = condition;
  if (isL4Condition(key)) return { ...emptyRequestMatch, ...conditionMatch(condition) };
  if (key === "remote.ip") return { ...emptyRequestMatch, remoteIps: cidrs(values), notRemoteIps: cidrs(notValues) };
  const entry: RequestCondition = { key: conditionKey(key), values: stringMatches(values), notValues: stringMatches(notValues) };
  return { ...emptyRequestMatch, conditions: [entry] };
}

function conditionKey(text: string): ConditionKey {
  const header = /^request\.headers\[(.+)\]$/.exec(text);
  if (header !== null) return { kind: "header", name: header[1]!.toLowerCase() };
  if (text.startsWith("request.auth.claims")) return { kind: "claim", path: [...text.matchAll(/\[([^\]]+)\]/g)].map((match) => match[1]!) };
  switch (text) {
    case "request.auth.principal": return { kind: "requestPrincipal" };
    case "request.auth.audiences": return { kind: "audiences" };
    case "request.auth.presenter": return { kind: "presenter" };
    case "connection.sni": return { kind: "sni" };
    default: return { kind: "unknown", text };
  }
}

function pathMatches(texts: readonly string[] | undefined): PathMatch[] {
  return (texts ?? []).flatMap((text): (PathMatch | StringMatch)[] => (text.includes("{") ? [{ kind: "template", value: text }] : stringMatches([text])));
}

export function translateRequestAuthentication(placed: Placed<RequestAuthenticationResource>, view: View, report: Report): RequestAuthentication | null {
  const { resource } = placed;
  const { spec } = resource;
  if (targetsOf(spec).length === 0) {
    report("warning", "not_enforced", ["spec"], "found no targetRefs: tokens are read by waypoints, which take it by targetRefs alone; name a Service or a Gateway");
    return null;
  }
  return {
    name: resource.name, namespace: resource.namespace, targets: accessTargets(resource, "tokens are not judged there", view, report),
    rules: (spec?.jwtRules ?? []).map((rule, index) => jwtRule(rule, `spec.jwtRules[${index}]`)), provenance: provenanceOf(placed),
  };
}

function jwtRule(rule: JwtRuleSpec, fieldPath: string): JwtRule {
  const url = rule.jwksUri ?? rule.jwks_uri;
  return {
    issuer: rule.issuer, audiences: rule.audiences ?? [], keys: rule.jwks !== undefined ? { kind: "inline", jwks: rule.jwks } : url !== undefined ? { kind: "url", url } : { kind: "discovery" },
    sources: tokenSources(rule), forwardOriginalToken: rule.forwardOriginalToken ?? false, payloadHeader: rule.outputPayloadToHeader?.toLowerCase() ?? null, claimsToHeaders: claimsToHeaders(rule.outputClaimToHeaders),
    spaceDelimitedClaims: [...new Set([...SPACE_DELIMITED, ...(rule.spaceDelimitedClaims ?? [])])], fetchTimeoutMs: rule.timeout === undefined ? JWKS_TIMEOUT_MS : durationMs(rule.timeout), clockSkewMs: CLOCK_SKEW_MS, fieldPath,
  };
}

function tokenSources({ fromHeaders = [], fromParams = [], fromCookies = [] }: Pick<JwtRuleSpec, "fromHeaders" | "fromParams" | "fromCookies">): readonly TokenSource[] {
  const sources: TokenSource[] = [
    ...fromHeaders.map(({ name, prefix }) => ({ kind: "header", name: name.toLowerCase(), prefix: prefix ?? "" }) as const),
    ...fromParams.map((name) => ({ kind: "query", name }) as const),
    ...fromCookies.map((name) => ({ kind: "cookie", name }) as const),
  ];
  return sources.length === 0 ? DEFAULT_SOURCES : sources;
}

const claimsToHeaders = (specs: readonly { readonly header: string; readonly claim: string }[] | undefined): JwtRule["claimsToHeaders"] => (specs ?? []).map(({ header, claim }) => ({ header: header.toLowerCase(), claim: claim.split(".") }));

/** Where a Secret's key is missing, its absence as a text for a person. */
interface FoundSecret {
  readonly text: string | null;
  readonly missing: string;
}

function findSecret(ref: { readonly name: string; readonly key?: string | undefined }, keyDefault: string, namespace: string, at: FieldPath, view: View, report: Report): FoundSecret {
  const secret = view.ask((world) => world.secret(namespace, ref.name));
  const key = ref.key ?? keyDefault;
  const text = secret === null ? undefined : secretText(secret, key)?.trim();
  if (text !== undefined && text !== "") return { text, missing: "" };
  const missing = `the Secret ${namespace}/${ref.name} ${secret === null ? "is not there" : `has no key ${JSON.stringify(key)}`}`;
  report("error", "fail_closed", at, `found a reference to one that cannot be had: ${missing}; what needs it is refused`);
  return { text: null, missing };
}

export function translateTokenIntrospection(placed: Placed<TokenIntrospectionResource>, view: View, report: Report): RequestAuthentication {
  const { resource } = placed;
  const { namespace, name, spec } = resource;
  const secret = findSecret(spec.clientSecretRef, "clientSecret", namespace, ["spec", "clientSecretRef"], view, report);
  const rule: JwtRule = {
    issuer: spec.issuer, audiences: spec.audiences ?? [], keys: secret.text === null ? { kind: "unavailable", reason: secret.missing } : { kind: "introspection", url: spec.url, clientId: spec.clientId, clientSecret: secret.text },
    sources: tokenSources({ fromHeaders: spec.fromHeaders, fromCookies: spec.fromCookies }), forwardOriginalToken: spec.forwardOriginalToken ?? false, payloadHeader: null, claimsToHeaders: claimsToHeaders(spec.outputClaimToHeaders),
    spaceDelimitedClaims: SPACE_DELIMITED, fetchTimeoutMs: spec.timeout === undefined ? JWKS_TIMEOUT_MS : durationMs(spec.timeout), clockSkewMs: CLOCK_SKEW_MS, fieldPath: "spec",
  };
  // The colon keeps its name apart from every RequestAuthentication's.
  return { name: `introspection:${name}`, namespace, targets: accessTargets(resource, "tokens are not judged there", view, report), rules: [rule], provenance: provenanceOf(placed) };
}

const LOGIN_DEFAULTS = { scopes: ["openid"], callbackPath: "/.weft/login/callback", logoutPath: "/.weft/login/logout", cookieName: "weft-login", sessionMs: 8 * 3_600_000 } as const;
const KEY = /^([0-9a-fA-F]{2}){32,}$/;

export function translateLoginPolicy(placed: Placed<LoginPolicyResource>, view: View, report: Report): LoginPolicy {
  const { resource } = placed;
  const { namespace, name, spec } = resource;
  if (spec.targetRefs.length === 0) return unreadLogin(placed, view);
  const secret = findSecret(spec.clientSecretRef, "clientSecret", namespace, ["spec", "clientSecretRef"], view, report);
  const keys = findSecret(spec.cookie.keysRef, "keys", namespace, ["spec", "cookie", "keysRef"], view, report);
  const cookieKeys = (keys.text ?? "").split(/[\s,]+/).filter((key) => key !== "");
  const weak = keys.text !== null && (cookieKeys.length === 0 || !cookieKeys.every((key) => KEY.test(key)));
  if (weak) report("error", "fail_closed", ["spec", "cookie", "keysRef"], "found a key that is not at least 32 bytes in hexadecimal digits; every request that the policy covers gets 500");
  const reasons = [secret.missing, keys.missing, weak ? "a cookie key is not at least 32 bytes in hexadecimal digits" : ""].filter((reason) => reason !== "");
  return {
    name, namespace, targets: accessTargets(resource, "nobody has to log in there", view, report), issuer: spec.issuer, clientId: spec.clientId, clientSecret: secret.text ?? "",
    scopes: spec.scopes === undefined ? LOGIN_DEFAULTS.scopes : [...new Set(["openid", ...spec.scopes])], userInfo: spec.userInfo === true, callbackPath: spec.callbackPath ?? LOGIN_DEFAULTS.callbackPath, logoutPath: spec.logoutPath ?? LOGIN_DEFAULTS.logoutPath,
    cookieName: spec.cookie.name ?? LOGIN_DEFAULTS.cookieName, cookieKeys: weak ? [] : cookieKeys, sessionMs: spec.cookie.lifetime === undefined ? LOGIN_DEFAULTS.sessionMs : durationMs(spec.cookie.lifetime),
    broken: reasons.length === 0 ? null : reasons.join("; "), provenance: provenanceOf(placed),
  };
}


/** In the place of one that could never be read: nobody knows which services it covers, so that nothing of its namespace is served. */
function unreadLogin(placed: Placed<LoginPolicyResource>, view: View): LoginPolicy {
  const { namespace, name } = placed.resource;
  return {
    name, namespace, targets: view.ask((world) => world.hostsIn(namespace)).map(({ service }) => ({ kind: "service", service })), issuer: "", clientId: "", clientSecret: "", scopes: [], userInfo: false, callbackPath: LOGIN_DEFAULTS.callbackPath,
    logoutPath: LOGIN_DEFAULTS.logoutPath, cookieName: LOGIN_DEFAULTS.cookieName, cookieKeys: [], sessionMs: LOGIN_DEFAULTS.sessionMs, broken: `the LoginPolicy ${namespace}/${name} cannot be read`, provenance: provenanceOf(placed),
  };
}
