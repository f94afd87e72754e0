// A description as a waypoint reads it: Service, HTTPRoute or VirtualService, AuthorizationPolicy, RequestAuthentication.

import type { AccessPolicy, HeaderChange, PathChange, RequestMatch, Rule, ServerName, ServiceSpec, TextMatch } from "./description.ts";
import { SERVERS } from "./servers.ts";

const NAMESPACE = "parity";
export const GATEWAY = `${NAMESPACE}/waypoint`;
const hostOf = (name: string): string => `${name}.${NAMESPACE}.svc.cluster.local`;

/** As `--serve` names it. */
export const servedAs = (name: string): string => `${NAMESPACE}/${hostOf(name)}:80`;

const metadata = (name: string): object => ({ name, namespace: NAMESPACE });

/** What all cases share: the namespace, the gateway, the servers. */
export function commonDocuments(): object[] {
  const servers = Object.entries(SERVERS).flatMap(([name, { address, port }]) => [
    { apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: metadata(name), spec: { address, labels: { app: name }, serviceAccount: name } },
    serviceDocument(name, name, port), http1Servers(name),
  ]);
  return [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } },
    { apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: metadata("waypoint"), spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } },
    ...servers,
  ];
}

/** As Envoy's clusters speak it, whatever the client speaks. */
function http1Servers(name: string): object {
  const spec = { host: hostOf(name), trafficPolicy: { connectionPool: { http: { h2UpgradePolicy: "DO_NOT_UPGRADE" } } } };
  return { apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: metadata(name), spec };
}

let nextAddress = 1;
function serviceDocument(name: string, app: string, targetPort: number): object {
  const spec = { clusterIP: `198.18.250.${nextAddress++}`, selector: { app }, ports: [{ name: "http", port: 80, targetPort }] };
  return { apiVersion: "v1", kind: "Service", metadata: { ...metadata(name), labels: { "istio.io/use-waypoint": "waypoint" } }, spec };
}

/** @param name of the case's own service, whose endpoint is the server `one`. @param jwks of every issuer. */
export function caseDocuments(name: string, spec: ServiceSpec, jwks: string): object[] {
  const parent = { group: "", kind: "Service", name };
  const routes = spec.kind === "VirtualService" ? [virtualService(name, spec)] : spec.routes.map(({ hostnames, rules }, i) => ({
    apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: metadata(`${name}-${i}`),
    spec: { parentRefs: [parent], ...(hostnames === undefined ? {} : { hostnames }), rules: rules.map(httpRouteRule) },
  }));
  const access = (spec.access ?? []).map((policy, i) => ({
    apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: metadata(`${name}-${i}`), spec: { targetRefs: [parent], ...authorization(policy) },
  }));
  const tokens = spec.tokens === undefined ? [] : [{
    apiVersion: "security.istio.io/v1", kind: "RequestAuthentication", metadata: metadata(name),
    spec: {
      targetRefs: [parent],
      jwtRules: spec.tokens.map(({ issuer, audiences, forward, claimHeaders, header, query }) => ({
        issuer, jwks, ...(audiences === undefined ? {} : { audiences }), ...(forward === undefined ? {} : { forwardOriginalToken: forward }),
        ...(claimHeaders === undefined ? {} : { outputClaimToHeaders: Object.entries(claimHeaders).map(([key, claim]) => ({ header: key, claim })) }),
        ...(header === undefined ? {} : { fromHeaders: [header] }), ...(query === undefined ? {} : { fromParams: [query] }),
      })),
    },
  }];
  return [serviceDocument(name, "one", SERVERS.one.port), http1Servers(name), ...routes, ...access, ...tokens];
}

// ── HTTPRoute ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

function httpRouteRule({ matches, to, redirect, rewrite, request, response, mirrors, cors, timeoutMs, retry }: Rule): object {
  const filters: object[] = [];
  if (request !== undefined) filters.push({ type: "RequestHeaderModifier", requestHeaderModifier: modifier(request) });
  if (response !== undefined) filters.push({ type: "ResponseHeaderModifier", responseHeaderModifier: modifier(response) });
  for (const server of mirrors ?? []) filters.push({ type: "RequestMirror", requestMirror: { backendRef: backend(server) } });
  if (redirect !== undefined) {
    const { scheme, host, port, path, status = 302 } = redirect;
    filters.push({ type: "RequestRedirect", requestRedirect: { scheme, hostname: host, port, path: pathModifier(path), statusCode: status } });
  }
  if (rewrite !== undefined) filters.push({ type: "URLRewrite", urlRewrite: { hostname: rewrite.host, path: pathModifier(rewrite.path) } });
  if (cors !== undefined) {
    const { origins, methods, headers, expose, credentials, maxAgeS } = cors;
    filters.push({ type: "CORS", cors: { allowOrigins: origins, allowMethods: methods, allowHeaders: headers, exposeHeaders: expose, allowCredentials: credentials, maxAge: maxAgeS } });
  }
  return {
    matches: matches?.map(httpRouteMatch), filters,
    backendRefs: redirect !== undefined ? undefined : (to ?? [{ server: "one" as const }]).map(({ server, weight, request: own }) => ({
      ...backend(server), weight, filters: own === undefined ? undefined : [{ type: "RequestHeaderModifier", requestHeaderModifier: modifier(own) }],
    })),
    timeouts: timeoutMs === undefined ? undefined : { request: `${timeoutMs}ms` },
    retry: retry === undefined ? undefined : { attempts: retry.attempts, codes: retry.codes, backoff: "10ms" },
  };
}

const backend = (server: ServerName): { name: string; port: number } => ({ name: server, port: 80 });

function modifier({ set, add, remove }: HeaderChange): object {
  const pairs = (map: Readonly<Record<string, string>> | undefined) => (map === undefined ? undefined : Object.entries(map).map(([name, value]) => ({ name, value })));
  return { set: pairs(set), add: pairs(add), remove };
}

function pathModifier(path: PathChange | undefined): object | undefined {
  if (path === undefined) return undefined;
  return "full" in path ? { type: "ReplaceFullPath", replaceFullPath: path.full } : { type: "ReplacePrefixMatch", replacePrefixMatch: path.prefix };
}

function httpRouteMatch({ path, method, headers, query }: RequestMatch): object {
  const typed = (text: TextMatch): object => ("exact" in text ? { type: "Exact", value: text.exact } : { type: "RegularExpression", value: text.regex });
  const named = (map: Readonly<Record<string, TextMatch>> | undefined) => (map === undefined ? undefined : Object.entries(map).map(([name, text]) => ({ name, ...typed(text) })));
  return { path: path === undefined ? undefined : "prefix" in path ? { type: "PathPrefix", value: path.prefix } : typed(path), method, headers: named(headers), queryParams: named(query) };
}

// ── VirtualService ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function virtualService(name: string, { routes }: ServiceSpec): object {
  const spec = { hosts: [hostOf(name)], http: routes.flatMap(({ rules }) => rules.map(virtualServiceRule)) };
  return { apiVersion: "networking.istio.io/v1", kind: "VirtualService", metadata: metadata(name), spec };
}

function virtualServiceRule({ matches, to, redirect, rewrite, request, response, mirrors, cors, timeoutMs, retry, fault, answer }: Rule): object {
  const always = { percentage: { value: 100 } };
  const route = redirect !== undefined || answer !== undefined ? undefined : (to ?? [{ server: "one" as const }]).map(({ server, weight, request: own }) => ({
    destination: { host: hostOf(server), port: { number: 80 } }, weight, headers: own === undefined ? undefined : { request: own },
  }));
  return {
    match: matches?.map(({ path, host, method, headers, query }) => ({ uri: path, authority: host, method: method === undefined ? undefined : { exact: method }, headers, queryParams: query })),
    route,
    redirect: redirect === undefined ? undefined : { scheme: redirect.scheme, authority: redirect.host, port: redirect.port, redirectCode: redirect.status, ...virtualPath("uri", redirect.path) },
    directResponse: answer === undefined ? undefined : { status: answer.status, body: { string: answer.body } },
    rewrite: rewrite === undefined ? undefined : { authority: rewrite.host, ...(rewrite.path !== undefined && "prefix" in rewrite.path ? { uri: rewrite.path.prefix } : {}) },
    headers: request === undefined && response === undefined ? undefined : { request, response },
    mirrors: mirrors?.map((server) => ({ destination: { host: hostOf(server), port: { number: 80 } } })),
    corsPolicy: cors === undefined ? undefined : {
      allowOrigins: cors.origins.map((exact) => ({ exact })), allowMethods: cors.methods, allowHeaders: cors.headers, exposeHeaders: cors.expose, allowCredentials: cors.credentials,
      maxAge: cors.maxAgeS === undefined ? undefined : `${cors.maxAgeS}s`,
    },
    timeout: timeoutMs === undefined ? undefined : `${timeoutMs}ms`,
    retries: retry === undefined ? undefined : { attempts: retry.attempts, retryOn: [...(retry.on ?? []), ...retry.codes].join(","), ...(retry.perTryMs === undefined ? {} : { perTryTimeout: `${retry.perTryMs}ms` }) },
    fault: fault === undefined ? undefined : {
      abort: fault.abort === undefined ? undefined : { ...always, httpStatus: fault.abort }, delay: fault.delayMs === undefined ? undefined : { ...always, fixedDelay: `${fault.delayMs}ms` },
    },
  };
}

function virtualPath(field: "uri", path: PathChange | undefined): object {
  if (path === undefined) return {};
  return "full" in path ? { [field]: path.full } : { prefixRewrite: path.prefix };
}

// ── Access ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function authorization({ action, rules }: AccessPolicy): object {
  return {
    action,
    rules: rules.map(({ methods, notMethods, paths, notPaths, hosts, headers = {}, principals, claims = {} }) => {
      const operation = { methods, notMethods, paths, notPaths, hosts };
      const when = [
        ...Object.entries(headers).map(([name, values]) => ({ key: `request.headers[${name}]`, values })), ...Object.entries(claims).map(([name, values]) => ({ key: `request.auth.claims[${name}]`, values })),
      ];
      return {
        from: principals === undefined ? undefined : [{ source: { requestPrincipals: principals } }],
        to: Object.values(operation).every((value) => value === undefined) ? undefined : [{ operation }],
        when: when.length === 0 ? undefined : when,
      };
    }),
  };
}
