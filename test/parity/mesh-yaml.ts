// A description as a waypoint reads it: Service, HTTPRoute, GRPCRoute or VirtualService, AuthorizationPolicy, RequestAuthentication.

import type { AccessPolicy, AuthorizerRule, HeaderChange, PathChange, RequestMatch, Rule, ServerName, ServerProtocol, ServiceSpec, TextMatch } from "./description.ts";
import { AUTHORIZER } from "./authorizer.ts";
import { SERVER_PORT, SERVERS } from "./servers.ts";

const NAMESPACE = "parity";
export const GATEWAY = `${NAMESPACE}/waypoint`;
export const hostOf = (name: string): string => `${name}.${NAMESPACE}.svc.cluster.local`;

/** As `--serve` names it. */
export const servedAs = (name: string): string => `${NAMESPACE}/${hostOf(name)}:80`;

export const metadata = (name: string): object => ({ name, namespace: NAMESPACE });

export const WAYPOINT_DOCUMENTS: readonly object[] = [
  { apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } },
  { apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: metadata("waypoint"), spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } },
];

/** What all cases share: the namespace, the gateway, the servers. */
export function commonDocuments(): object[] {
  const servers = (Object.keys(SERVERS) as ServerName[]).flatMap((name) => [
    { apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: metadata(name), spec: { address: SERVERS[name].address, labels: { app: name }, serviceAccount: name } },
    ...serverProtocols.flatMap((protocol) => service(serverService(name, protocol), name, protocol)),
  ]);
  return [
    ...WAYPOINT_DOCUMENTS,
    ...servers,
    { apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: metadata("authorizer"), spec: { address: AUTHORIZER.address, labels: { app: "authorizer" }, serviceAccount: "authorizer" } },
    ...authorizerProtocols.map((protocol) => ({
      apiVersion: "v1", kind: "Service", metadata: metadata(authorizerService(protocol)),
      spec: { clusterIP: `198.18.250.${nextAddress++}`, selector: { app: "authorizer" }, ports: [{ name: protocol, port: 80, targetPort: protocol === "http" ? AUTHORIZER.httpPort : AUTHORIZER.grpcPort }] },
    })),
  ];
}

const authorizerProtocols = ["http", "grpc"] as const;
const authorizerService = (protocol: AuthorizerRule["protocol"]): string => `authorizer-${protocol}`;

/** The authorisers of all services: a provider is of the mesh. */
export function meshDocument(services: readonly { readonly name: string; readonly spec: ServiceSpec }[]): object {
  const extensionProviders = services.flatMap(({ name, spec: { authorizer } }) => (authorizer === undefined ? [] : [provider(name, authorizer)]));
  return { apiVersion: "weft.dev/v1alpha1", kind: "MeshConfig", metadata: { name: "mesh", namespace: "istio-system" }, spec: { extensionProviders } };
}

function provider(name: string, { protocol, timeoutMs, failOpen, statusOnError, bodyBytes, partialBody, pathPrefix, shown, added, toServer, toClientOnDeny, toClientOnAllow }: AuthorizerRule): object {
  const common = {
    service: hostOf(authorizerService(protocol)), port: 80, timeout: timeoutMs === undefined ? undefined : `${timeoutMs}ms`, failOpen, statusOnError: statusOnError === undefined ? undefined : String(statusOnError),
    includeRequestBodyInCheck: bodyBytes === undefined ? undefined : { maxRequestBytes: bodyBytes, allowPartialMessage: partialBody },
  };
  if (protocol === "grpc") return { name, envoyExtAuthzGrpc: common };
  return { name, envoyExtAuthzHttp: { ...common, pathPrefix, includeRequestHeadersInCheck: shown, includeAdditionalHeadersInCheck: added, headersToUpstreamOnAllow: toServer, headersToDownstreamOnDeny: toClientOnDeny, headersToDownstreamOnAllow: toClientOnAllow } };
}

const serverProtocols = Object.keys(SERVER_PORT) as ServerProtocol[];
/** The Service of a server in one of its protocols. */
const serverService = (name: ServerName, protocol: ServerProtocol): string => `${name}-${protocol}`;

let nextAddress = 1;
/** A Service whose endpoint is the server `app`, and that it is spoken to in one protocol, whatever the client speaks, as Envoy's clusters are. */
function service(name: string, app: ServerName, protocol: ServerProtocol, { port: portName = "http", limits = {} }: Pick<ServiceSpec, "port" | "limits"> = {}): object[] {
  const spec = { clusterIP: `198.18.250.${nextAddress++}`, selector: { app }, ports: [{ name: portName, port: 80, targetPort: SERVER_PORT[protocol] }] };
  const http = { h2UpgradePolicy: protocol === "http1" ? "DO_NOT_UPGRADE" : "UPGRADE", http2MaxRequests: limits.requests, http1MaxPendingRequests: limits.pending };
  const rule = { host: hostOf(name), trafficPolicy: { connectionPool: { http, tcp: limits.connections === undefined ? undefined : { maxConnections: limits.connections } } } };
  return [
    { apiVersion: "v1", kind: "Service", metadata: { ...metadata(name), labels: { "istio.io/use-waypoint": "waypoint" } }, spec },
    { apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: metadata(name), spec: rule },
  ];
}

/** @param name of the case's own service, whose endpoint is the server `one`. @param jwks of every issuer. */
export function caseDocuments(name: string, spec: ServiceSpec, jwks: string): object[] {
  const parent = { group: "", kind: "Service", name };
  const { kind = "HTTPRoute", servers = "http1" } = spec;
  // Limits are those of the service that a rule sends to.
  const backendOf = (server: ServerName): string => (spec.limits !== undefined && server === "one" ? name : serverService(server, servers));
  const routes = kind === "VirtualService" ? [virtualService(name, spec, servers)] : spec.routes.map(({ hostnames, rules }, i) => ({
    apiVersion: "gateway.networking.k8s.io/v1", kind, metadata: metadata(`${name}-${i}`),
    spec: { parentRefs: [parent], ...(hostnames === undefined ? {} : { hostnames }), rules: rules.map((rule) => gatewayRule(rule, kind, backendOf)) },
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
  const asked = spec.authorizer === undefined ? [] : [{
    apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: metadata(`${name}-asked`), spec: { targetRefs: [parent], action: "CUSTOM", provider: { name }, rules: [{}] },
  }];
  const rate = spec.rate === undefined ? [] : [{
    apiVersion: "weft.dev/v1alpha1", kind: "TrafficPolicy", metadata: metadata(name), spec: { targetRefs: [parent], rateLimits: { local: [{ name: "rate", requests: spec.rate.requests, per: `${spec.rate.perMs}ms` }] } },
  }];
  return [...service(name, "one", servers, spec), ...routes, ...access, ...tokens, ...asked, ...rate];
}

// ── HTTPRoute and GRPCRoute ──────────────────────────────────────────────────────────────────────────────────────────────────

function gatewayRule({ matches, to, redirect, rewrite, request, response, mirrors, cors, timeoutMs, retry }: Rule, kind: "HTTPRoute" | "GRPCRoute", backendOf: (server: ServerName) => string): object {
  const backend = (server: ServerName): object => ({ name: backendOf(server), port: 80 });
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
    matches: matches?.map(kind === "GRPCRoute" ? grpcRouteMatch : httpRouteMatch), filters,
    backendRefs: redirect !== undefined ? undefined : (to ?? [{ server: "one" as const }]).map(({ server, weight, request: own }) => ({
      ...backend(server), weight, filters: own === undefined ? undefined : [{ type: "RequestHeaderModifier", requestHeaderModifier: modifier(own) }],
    })),
    timeouts: timeoutMs === undefined ? undefined : { request: `${timeoutMs}ms` },
    retry: retry === undefined ? undefined : { attempts: retry.attempts, codes: retry.codes, backoff: "10ms" },
  };
}

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

function grpcRouteMatch({ grpc, headers = {} }: RequestMatch): object {
  return {
    method: grpc === undefined ? undefined : { type: grpc.regex === true ? "RegularExpression" : "Exact", service: grpc.service, method: grpc.method },
    headers: Object.entries(headers).map(([name, text]) => ({ name, ...("exact" in text ? { type: "Exact", value: text.exact } : { type: "RegularExpression", value: text.regex }) })),
  };
}

// ── VirtualService ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function virtualService(name: string, { routes }: ServiceSpec, protocol: ServerProtocol): object {
  const spec = { hosts: [hostOf(name)], http: routes.flatMap(({ rules }) => rules.map((rule) => virtualServiceRule(rule, protocol))) };
  return { apiVersion: "networking.istio.io/v1", kind: "VirtualService", metadata: metadata(name), spec };
}

function virtualServiceRule({ matches, to, redirect, rewrite, request, response, mirrors, cors, timeoutMs, retry, fault, answer }: Rule, protocol: ServerProtocol): object {
  const destination = (server: ServerName): object => ({ host: hostOf(serverService(server, protocol)), port: { number: 80 } });
  const always = { percentage: { value: 100 } };
  const route = redirect !== undefined || answer !== undefined ? undefined : (to ?? [{ server: "one" as const }]).map(({ server, weight, request: own }) => ({
    destination: destination(server), weight, headers: own === undefined ? undefined : { request: own },
  }));
  return {
    match: matches?.map(({ path, host, method, headers, query }) => ({ uri: path, authority: host, method: method === undefined ? undefined : { exact: method }, headers, queryParams: query })),
    route,
    redirect: redirect === undefined ? undefined : { scheme: redirect.scheme, authority: redirect.host, port: redirect.port, redirectCode: redirect.status, ...virtualPath("uri", redirect.path) },
    directResponse: answer === undefined ? undefined : { status: answer.status, body: { string: answer.body } },
    rewrite: rewrite === undefined ? undefined : { authority: rewrite.host, ...(rewrite.path !== undefined && "prefix" in rewrite.path ? { uri: rewrite.path.prefix } : {}) },
    headers: request === undefined && response === undefined ? undefined : { request, response },
    mirrors: mirrors?.map((server) => ({ destination: destination(server) })),
    corsPolicy: cors === undefined ? undefined : {
      allowOrigins: cors.origins.map((exact) => ({ exact })), allowMethods: cors.methods, allowHeaders: cors.headers, exposeHeaders: cors.expose, allowCredentials: cors.credentials,
      maxAge: cors.maxAgeS === undefined ? undefined : `${cors.maxAgeS}s`,
    },
    timeout: timeoutMs === undefined ? undefined : `${timeoutMs}ms`,
    retries: retry === undefined ? undefined : { attempts: retry.attempts, retryOn: [...(retry.on ?? []), ...retry.codes].join(","), ...(retry.perTryMs === undefined ? {} : { perTryTimeout: `${retry.perTryMs}ms` }) },
    fault: fault === undefined ? undefined : {
      abort: fault.abort !== undefined ? { ...always, httpStatus: fault.abort } : fault.abortGrpc !== undefined ? { ...always, grpcStatus: fault.abortGrpc } : undefined,
      delay: fault.delayMs === undefined ? undefined : { ...always, fixedDelay: `${fault.delayMs}ms` },
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
    rules: rules.map(({ methods, notMethods, paths, notPaths, hosts, notHosts, headers = {}, notHeaders = {}, principals, notPrincipals, audiences, claims = {} }) => {
      const operation = { methods, notMethods, paths, notPaths, hosts, notHosts };
      const when = [
        ...(audiences === undefined ? [] : [{ key: "request.auth.audiences", values: audiences }]), ...Object.entries(notHeaders).map(([name, notValues]) => ({ key: `request.headers[${name}]`, notValues })),
        ...Object.entries(headers).map(([name, values]) => ({ key: `request.headers[${name}]`, values })), ...Object.entries(claims).map(([name, values]) => ({ key: `request.auth.claims[${name}]`, values })),
      ];
      return {
        from: principals === undefined && notPrincipals === undefined ? undefined : [{ source: { requestPrincipals: principals, notRequestPrincipals: notPrincipals } }],
        to: Object.values(operation).every((value) => value === undefined) ? undefined : [{ operation }],
        when: when.length === 0 ? undefined : when,
      };
    }),
  };
}
