// A description as Envoy reads it: a listener for each case, with the filters and defaults that Istio gives a waypoint. The order of an
// HTTPRoute's matches is worked out here, apart from the router it is compared with.

import { type AccessPolicy, GRPC_STATUS, type HeaderChange, type PathChange, type RequestMatch, type Rule, type ServerName, type ServerProtocol, type ServiceSpec, type TextMatch, type TokenRule } from "./description.ts";
import { authorizerClusters, authorizerFilter } from "./envoy-authorizer.ts";
import { SERVER_PORT, SERVERS } from "./servers.ts";

export interface EnvoyCase {
  readonly name: string;
  readonly port: number;
  readonly spec: ServiceSpec;
}

const type = (name: string): string => `type.googleapis.com/${name}`;
const ALWAYS = { numerator: 100, denominator: "HUNDRED" };
const TOKENS = "envoy.filters.http.jwt_authn";

export function envoyConfig(cases: readonly EnvoyCase[], jwks: string): object {
  return {
    static_resources: {
      listeners: cases.map((one) => listener(one, jwks)),
      clusters: [
        ...(Object.keys(SERVERS) as ServerName[]).flatMap((name) => (Object.keys(SERVER_PORT) as ServerProtocol[]).map((protocol) => cluster(clusterName(name, protocol), name, protocol))),
        ...cases.flatMap(({ name, spec: { servers = "http1", limits } }) => (limits === undefined ? [] : [{ ...cluster(name, "one", servers), circuit_breakers: breakers(limits) }])), ...authorizerClusters(),
      ],
    },
  };
}

const clusterName = (server: ServerName, protocol: ServerProtocol): string => `${server}-${protocol}`;
/** Of `one`, in a cluster of the service's own. */
function breakers({ requests, pending, connections }: NonNullable<ServiceSpec["limits"]>): object {
  return { thresholds: [{ max_requests: requests, max_pending_requests: pending, max_connections: connections }] };
}

function cluster(name: string, server: ServerName, protocol: ServerProtocol): object {
  const options = { "@type": type("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"), explicit_http_config: protocol === "http1" ? { http_protocol_options: {} } : { http2_protocol_options: { allow_connect: true } } };
  return {
    name, type: "STATIC", connect_timeout: "2s", typed_extension_protocol_options: { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options },
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: SERVERS[server].address, port_value: SERVER_PORT[protocol] } } } }] }] },
  };
}

function listener({ name, port, spec }: EnvoyCase, jwks: string): object {
  const filters = [
    ...(spec.tokens === undefined ? [] : [{ name: TOKENS, typed_config: authentication(spec.tokens, jwks) }]),
    ...(spec.authorizer === undefined ? [] : [authorizerFilter(spec.authorizer)]),
    ...[...(spec.access ?? [])].sort((a, b) => (a.action === b.action ? 0 : a.action === "DENY" ? -1 : 1)).map((policy, i) => ({ name: `rbac-${i}`, typed_config: rbac(policy, spec.access!) })),
    ...(spec.port === "grpc-web" ? [{ name: "envoy.filters.http.grpc_web", typed_config: { "@type": type("envoy.extensions.filters.http.grpc_web.v3.GrpcWeb") } }] : []),
    ...(spec.rate === undefined ? [] : [{ name: "envoy.filters.http.local_ratelimit", typed_config: rateLimit(spec.rate) }]),
    { name: "envoy.filters.http.fault", typed_config: { "@type": type("envoy.extensions.filters.http.fault.v3.HTTPFault") } },
    { name: "envoy.filters.http.cors", typed_config: { "@type": type("envoy.extensions.filters.http.cors.v3.Cors") } },
    { name: "envoy.filters.http.router", typed_config: { "@type": type("envoy.extensions.filters.http.router.v3.Router"), suppress_envoy_headers: true } },
  ];
  const { normalization = "BASE" } = spec;
  const manager = {
    "@type": type("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
    stat_prefix: name, codec_type: "AUTO", server_header_transformation: "PASS_THROUGH", normalize_path: true,
    merge_slashes: normalization !== "BASE", path_with_escaped_slashes_action: normalization === "DECODE_AND_MERGE_SLASHES" ? "UNESCAPE_AND_FORWARD" : "KEEP_UNCHANGED",
    http_protocol_options: { accept_http_10: true }, http2_protocol_options: { allow_connect: true }, http_filters: filters, upgrade_configs: [{ upgrade_type: "websocket" }],
    route_config: { name, ignore_port_in_host_matching: true, virtual_hosts: virtualHosts(spec, name) },
  };
  return {
    name, address: { socket_address: { address: "127.0.0.1", port_value: port } },
    filter_chains: [{ filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }] }],
  };
}

// ── Routes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function rateLimit({ requests, perMs }: NonNullable<ServiceSpec["rate"]>): object {
  return {
    "@type": type("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"), stat_prefix: "rate", filter_enabled: { default_value: ALWAYS }, filter_enforced: { default_value: ALWAYS }, enable_x_ratelimit_headers: "DRAFT_VERSION_03",
    token_bucket: { max_tokens: requests, tokens_per_fill: requests, fill_interval: seconds(perMs) },
  };
}

function virtualHosts({ kind = "HTTPRoute", routes, servers = "http1", limits }: ServiceSpec, service: string): object[] {
  const pairs = routes.flatMap(({ rules }) => rules.flatMap((rule) => (rule.matches ?? [{}]).map((match) => ({ match, rule }))));
  const ordered = kind !== "VirtualService" ? pairs.map((pair, at) => ({ ...pair, at })).sort((a, b) => precedence(b.match, a.match) || a.at - b.at) : pairs;
  return [{ name: "all", domains: ["*"], routes: ordered.map(({ match, rule }) => route(match, rule, kind, (server) => (server === "one" && limits !== undefined ? service : clusterName(server, servers)))) }];
}

/** Positive when `a` goes first (Gateway API, HTTPRouteRule.matches). */
function precedence(a: RequestMatch, b: RequestMatch): number {
  const rank = ({ path, grpc }: RequestMatch): number => (grpc !== undefined ? (grpc.regex === true ? 2 : 3) : path === undefined ? 1 : "exact" in path ? 3 : "prefix" in path ? 1 : 2);
  const length = ({ path, grpc }: RequestMatch): number => (grpc !== undefined ? 1000 * (grpc.service ?? "").length + (grpc.method ?? "").length : path === undefined ? 1 : "prefix" in path ? path.prefix.length : "exact" in path ? path.exact.length : 0);
  const count = (map: object | undefined): number => Object.keys(map ?? {}).length;
  return rank(a) - rank(b) || length(a) - length(b) || Number(a.method !== undefined) - Number(b.method !== undefined) || count(a.headers) - count(b.headers) || count(a.query) - count(b.query);
}

const text = (match: TextMatch): object => ("exact" in match ? { exact: match.exact } : { safe_regex: { regex: match.regex } });

/** A service alone is a prefix, a method alone an expression. */
function grpcPath({ service, method, regex }: NonNullable<RequestMatch["grpc"]>): object {
  if (regex === undefined && service !== undefined) return method === undefined ? { prefix: `/${service}/` } : { path: `/${service}/${method}` };
  const quoted = (text: string): string => (regex === true ? text : text.replaceAll(".", "\\."));
  return { safe_regex: { regex: `/${service === undefined ? "[^/]+" : quoted(service)}/${method === undefined ? "[^/]+" : quoted(method)}` } };
}

function routeMatch({ path = { prefix: "/" }, host, method, headers = {}, query = {}, grpc }: RequestMatch, kind: string): object {
  const where = grpc !== undefined ? grpcPath(grpc) : "exact" in path ? { path: path.exact } : "regex" in path ? { safe_regex: { regex: path.regex } }
    : kind === "HTTPRoute" && path.prefix !== "/" ? { path_separated_prefix: path.prefix.replace(/\/$/, "") } : { prefix: path.prefix };
  return {
    ...where,
    headers: [...(host === undefined ? [] : [{ name: ":authority", string_match: "prefix" in host ? host : text(host) }]), ...(method === undefined ? [] : [{ name: ":method", string_match: { exact: method } }]), ...Object.entries(headers).map(([name, match]) => ({ name, string_match: text(match) }))],
    query_parameters: Object.entries(query).map(([name, match]) => ({ name, string_match: text(match) })),
  };
}

function route(match: RequestMatch, rule: Rule, kind: string, clusterOf: (server: ServerName) => string): object {
  const { redirect, answer, request, response, cors, fault } = rule;
  const perFilter: Record<string, object> = {};
  if (cors !== undefined) {
    const { origins, methods, headers, expose, credentials, maxAgeS } = cors;
    perFilter["envoy.filters.http.cors"] = {
      "@type": type("envoy.extensions.filters.http.cors.v3.CorsPolicy"), filter_enabled: { default_value: ALWAYS },
      allow_origin_string_match: origins.map((origin) => (origin === "*" ? { safe_regex: { regex: ".*" } } : origin.includes("*") ? { safe_regex: { regex: origin.replaceAll(".", "\\.").replace("*", ".*") } } : { exact: origin })),
      allow_methods: methods?.join(","), allow_headers: headers?.join(","), expose_headers: expose?.join(","), allow_credentials: credentials, max_age: maxAgeS === undefined ? undefined : `${maxAgeS}`,
    };
  }
  if (fault !== undefined) {
    perFilter["envoy.filters.http.fault"] = {
      "@type": type("envoy.extensions.filters.http.fault.v3.HTTPFault"),
      abort: fault.abort !== undefined ? { http_status: fault.abort, percentage: ALWAYS } : fault.abortGrpc !== undefined ? { grpc_status: GRPC_STATUS[fault.abortGrpc], percentage: ALWAYS } : undefined,
      delay: fault.delayMs === undefined ? undefined : { fixed_delay: seconds(fault.delayMs), percentage: ALWAYS },
    };
  }
  const action = answer !== undefined ? { direct_response: { status: answer.status, body: { inline_string: answer.body } } }
    : redirect !== undefined ? { redirect: redirectAction(redirect, match, kind) } : { route: routeAction(match, rule, kind, clusterOf) };
  return { match: routeMatch(match, kind), ...action, ...headerChanges(request, response), typed_per_filter_config: perFilter };
}

function headerChanges(request: HeaderChange | undefined, response: HeaderChange | undefined): object {
  const added = ({ set = {}, add = {} }: HeaderChange) => [
    ...Object.entries(set).map(([key, value]) => ({ header: { key, value }, append_action: "OVERWRITE_IF_EXISTS_OR_ADD" })),
    ...Object.entries(add).map(([key, value]) => ({ header: { key, value }, append_action: "APPEND_IF_EXISTS_OR_ADD" })),
  ];
  return {
    ...(request === undefined ? {} : { request_headers_to_add: added(request), request_headers_to_remove: request.remove }),
    ...(response === undefined ? {} : { response_headers_to_add: added(response), response_headers_to_remove: response.remove }),
  };
}

/** Istio's of a route that says nothing. */
const DEFAULT_RETRY: NonNullable<Rule["retry"]> = { attempts: 2, codes: [], on: ["unavailable", "cancelled"] };
const seconds = (ms: number): string => `${ms / 1000}s`;

function routeAction(match: RequestMatch, { to = [{ server: "one" }], rewrite, mirrors, timeoutMs, retry = DEFAULT_RETRY }: Rule, kind: string, clusterOf: (server: ServerName) => string): object {
  const total = to.reduce((sum, { weight = 1 }) => sum + weight, 0);
  return {
    weighted_clusters: { clusters: to.map(({ server, weight = 1, request }) => ({ name: clusterOf(server), weight: total === 0 ? 1 : weight, ...headerChanges(request, undefined) })) },
    timeout: seconds(timeoutMs ?? 0), max_grpc_timeout: seconds(timeoutMs ?? 0),
    ...(rewrite?.host === undefined ? {} : { host_rewrite_literal: rewrite.host }),
    ...pathRewrite(rewrite?.path, match, kind),
    request_mirror_policies: mirrors?.map((server) => ({ cluster: clusterOf(server), disable_shadow_host_suffix_append: true })),
    retry_policy: {
      retry_on: ["retriable-status-codes", "connect-failure", "refused-stream", ...(retry.on ?? [])].join(","), retriable_status_codes: retry.codes, num_retries: retry.attempts, retry_back_off: { base_interval: "0.01s" },
      per_try_timeout: retry.perTryMs === undefined ? undefined : seconds(retry.perTryMs),
    },
  };
}

function pathRewrite(path: PathChange | undefined, match: RequestMatch, kind: string): object {
  if (path === undefined) return {};
  if ("full" in path) return { regex_rewrite: { pattern: { regex: "^/.*$" }, substitution: path.full } };
  const matched = match.path !== undefined && "prefix" in match.path ? match.path.prefix : "/";
  // By whole segments, joined by one slash: what Envoy's own prefix_rewrite does by characters.
  if (kind === "HTTPRoute" && (path.prefix === "/" || path.prefix === "")) return { regex_rewrite: { pattern: { regex: `^${matched}(/?)(.*)` }, substitution: "/\\2" } };
  return { prefix_rewrite: path.prefix };
}

function redirectAction(redirect: NonNullable<Rule["redirect"]>, match: RequestMatch, kind: string): object {
  const { scheme, host, port, path, status = kind === "HTTPRoute" ? 302 : 301 } = redirect;
  const code = { 301: "MOVED_PERMANENTLY", 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT", 308: "PERMANENT_REDIRECT" }[status];
  const matched = match.path !== undefined && "prefix" in match.path ? match.path.prefix : "/";
  const where = path === undefined ? {} : "full" in path ? { path_redirect: path.full }
    : path.prefix === "/" ? { regex_rewrite: { pattern: { regex: `^${matched}(/?)(.*)` }, substitution: "/\\2" } } : { prefix_rewrite: path.prefix };
  return { scheme_redirect: scheme, host_redirect: host, port_redirect: port, response_code: code, ...where };
}

// ── Access ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** As an AuthorizationPolicy writes texts. */
function pattern(written: string): object {
  if (written === "*") return { safe_regex: { regex: ".+" } };
  if (written.endsWith("*")) return { prefix: written.slice(0, -1) };
  return written.startsWith("*") ? { suffix: written.slice(1) } : { exact: written };
}

const anyOf = (rules: readonly object[]): object => ({ or_rules: { rules } });
const header = (name: string, written: string): object => ({ header: { name, string_match: pattern(written) } });
const path = (written: string): object => ({ url_path: { path: pattern(written) } });

/** Several ALLOW policies are one filter: any of them may allow. */
function rbac(policy: AccessPolicy, all: readonly AccessPolicy[]): object {
  const same = policy.action === "ALLOW" ? all.filter(({ action }) => action === "ALLOW") : [policy];
  const rules = same.flatMap((one) => one.rules);
  return {
    "@type": type("envoy.extensions.filters.http.rbac.v3.RBAC"),
    rules: { action: policy.action, policies: Object.fromEntries(rules.map((rule, i) => [`rule-${i}`, accessRule(rule)])) },
  };
}

function accessRule({ methods, notMethods, paths, notPaths, hosts, notHosts, headers = {}, notHeaders = {}, principals, notPrincipals, audiences, claims = {} }: AccessPolicy["rules"][number]): object {
  const permissions: object[] = [];
  if (methods !== undefined) permissions.push(anyOf(methods.map((method) => header(":method", method))));
  if (notMethods !== undefined) permissions.push({ not_rule: anyOf(notMethods.map((method) => header(":method", method))) });
  if (paths !== undefined) permissions.push(anyOf(paths.map(path)));
  if (notPaths !== undefined) permissions.push({ not_rule: anyOf(notPaths.map(path)) });
  const authority = (host: string): object => ({ header: { name: ":authority", string_match: { ...pattern(host), ignore_case: true } } });
  if (hosts !== undefined) permissions.push(anyOf(hosts.map(authority)));
  if (notHosts !== undefined) permissions.push({ not_rule: anyOf(notHosts.map(authority)) });
  const principal: object[] = [];
  const claim = (keys: readonly string[], value: object): object => ({ metadata: { filter: TOKENS, path: keys.map((key) => ({ key })), value } });
  for (const [name, values] of Object.entries(headers)) principal.push({ or_ids: { ids: values.map((value) => header(name, value)) } });
  for (const [name, values] of Object.entries(notHeaders)) principal.push({ not_id: { or_ids: { ids: values.map((value) => header(name, value)) } } });
  const anyPrincipal = (written: readonly string[]): object => ({ or_ids: { ids: written.map((one) => {
    const [issuer, subject] = one === "*" ? ["*", "*"] : [one.slice(0, one.lastIndexOf("/")), one.slice(one.lastIndexOf("/") + 1)];
    return { and_ids: { ids: [claim(["claims", "iss"], { string_match: pattern(issuer!) }), claim(["claims", "sub"], { string_match: pattern(subject!) })] } };
  }) } });
  if (principals !== undefined) principal.push(anyPrincipal(principals));
  if (notPrincipals !== undefined) principal.push({ not_id: anyPrincipal(notPrincipals) });
  if (audiences !== undefined) principal.push({ or_ids: { ids: audiences.flatMap((one) => [claim(["claims", "aud"], { string_match: pattern(one) }), claim(["claims", "aud"], { list_match: { one_of: { string_match: pattern(one) } } })]) } });
  for (const [name, values] of Object.entries(claims)) {
    // `a][b` is b inside of a.
    const keys = ["claims", ...name.split("][")];
    principal.push({ or_ids: { ids: values.flatMap((value) => [
      claim(keys, { string_match: pattern(value) }), claim(keys, { list_match: { one_of: { string_match: pattern(value) } } }),
    ]) } });
  }
  return { permissions: [permissions.length === 0 ? { any: true } : { and_rules: { rules: permissions } }], principals: [principal.length === 0 ? { any: true } : { and_ids: { ids: principal } }] };
}

function authentication(tokens: readonly TokenRule[], jwks: string): object {
  const providers = Object.fromEntries(tokens.map(({ issuer, audiences, forward, claimHeaders, header: from, query }, i) => [`issuer-${i}`, {
    issuer, audiences, forward: forward ?? false, local_jwks: { inline_string: jwks }, payload_in_metadata: "claims", clock_skew_seconds: 60, clear_route_cache: true,
    claim_to_headers: claimHeaders === undefined ? undefined : Object.entries(claimHeaders).map(([name, claim]) => ({ header_name: name, claim_name: claim })),
    from_headers: from === undefined ? undefined : [{ name: from.name, value_prefix: from.prefix ?? "" }], from_params: query === undefined ? undefined : [query],
  }]));
  const requirements = [...Object.keys(providers).map((name) => ({ provider_name: name })), { allow_missing: {} }];
  return { "@type": type("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"), providers, rules: [{ match: { prefix: "/" }, requires: { requires_any: { requirements } } }] };
}
