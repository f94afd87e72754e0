// VirtualService into routes of the model. Rules keep their order. A rule that needs the port of the request (match.port, or a
// destination that leaves its port open) makes one route for each port.

import { ANY_REQUEST, type HeaderPattern, type RequestMatch, type TextPattern } from "../../mesh/l7/match.ts";
import type { Fault } from "../../mesh/l7/fault.ts";
import { type BackendTarget, type ConnectionRule, type Cors, type HttpRule, INHERITED_TIMEOUTS, type RetryPolicy, type Route, type RouteBackend, type RouteFilter, type RouteParent, type RouteRules } from "../../mesh/l7/route.ts";
import type { FieldPath } from "../diagnostic.ts";
import { durationMs } from "../durations.ts";
import { httpStatusOfGrpc, parseGrpcStatus } from "../grpc-status.ts";
import { COVERED_HOSTS_MAX } from "../limits.ts";
import type { DestinationSpec, HeadersSpec, VirtualServiceMatch, VirtualServiceResource, VirtualServiceRoute } from "../kinds/virtual-service.ts";
import { type StringMatchSpec, textPattern } from "../patterns.ts";
import { parseRetryOn } from "../retry-on.ts";
import { type Placed, provenanceOf, type Report } from "../resource.ts";
import { createdMs } from "./age.ts";
import { type WrittenRule, withDelegates } from "./delegates.ts";
import { type RuleWriters, withGuardedBackends } from "./guarded-backends.ts";
import { reportUnbound } from "./references.ts";
import { clientNamespaces } from "./scope.ts";
import type { View } from "./view.ts";
import type { Host } from "./world.ts";

export interface TranslatedVirtualService {
  readonly routes: readonly Route[];
  /** Subsets that destinations name: a DestinationRule must define each. */
  readonly subsets: readonly { readonly service: Host["service"]; readonly subset: string; readonly path: FieldPath }[];
}

const MESH_GATEWAY = "mesh";
/** Istio's defaults of `retries`. */
const RETRY_ATTEMPTS = 2;
const RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,503";
const RETRY_BACKOFF_BASE_MS = 25;
const RETRY_BACKOFF_FACTOR = 10;
const REDIRECT_STATUS = 301;
const NOTHING: TranslatedVirtualService = { routes: [], subsets: [] };

/** What is needed while one resource is translated for one port (null: for all alike). */
interface Context {
  readonly namespace: string;
  readonly port: number | null;
  readonly view: View;
  readonly report: Report;
  readonly subsets: { service: Host["service"]; subset: string; path: FieldPath }[];
  readonly writers: Map<HttpRule, RuleWriters>;
}

export function translateVirtualService(placed: Placed<VirtualServiceResource>, view: View, report: Report): TranslatedVirtualService {
  const { resource } = placed;
  const { namespace, spec } = resource;
  if (spec.gateways !== undefined && !spec.gateways.includes(MESH_GATEWAY)) {
    report("info", "not_supported", ["spec", "gateways"], "found only gateways: a rule for a mesh names the gateway mesh, or none");
    return NOTHING;
  }
  const hosts = hostsOf(resource, view, report);
  if (hosts.length === 0) return NOTHING;
  const http = withDelegates(resource, view, report);
  const subsets: Context["subsets"] = [];
  const silent: Report = () => {};
  const needed = needsPort(resource, http, view);
  const ports = needed ? [...new Set(hosts.flatMap((host) => host.ports.map(({ number }) => number)))].sort((a, b) => a - b) : [null];
  const routes = ports.flatMap((port, index): Route[] => {
    // What is wrong is wrong for every port, and said once.
    const context: Context = { namespace, port, view, report: index === 0 ? report : silent, subsets: index === 0 ? subsets : [], writers: new Map() };
    const sections = rulesOf(resource, http, context);
    return sections.map((rules) => ({
      id: `VirtualService/${namespace}/${resource.name}${port === null ? "" : `/${port}`}${rules.protocol === "http" ? "" : `/${rules.protocol}`}`,
      name: resource.name, namespace, parents: hosts.flatMap((host) => (takes(host, port, rules.protocol, sections) ? parentsOf(host, port, resource, view) : [])), rules, createdMs: createdMs(resource), provenance: provenanceOf(placed),
    })).filter(({ parents }) => parents.length > 0).map((route) => withGuardedBackends(route, view, context.report, context.writers).route);
  });
  return { routes, subsets };
}

function hostsOf({ namespace, spec }: VirtualServiceResource, view: View, report: Report): Host[] {
  const found = new Map<string, Host>();
  (spec.hosts ?? []).forEach((text, index) => {
    const hosts = view.ask((world) => world.hostsMatching(text, namespace));
    if (hosts.length === 0) report("warning", "unresolved_reference", ["spec", "hosts", index], `found ${JSON.stringify(text)}, which no Service or ServiceEntry is; nothing is routed by it there`);
    for (const host of hosts) {
      if (host.headless) report("info", "not_attached", ["spec", "hosts", index], `${host.hostname} is headless: its clients connect to its endpoints and by-pass every route`);
      else if (found.size < COVERED_HOSTS_MAX) {
        found.set(host.service, host);
        if (!text.startsWith("*")) reportUnbound(host, ["spec", "hosts", index], "routes", report);
      } else report("error", "not_attached", ["spec", "hosts", index], `found more than ${COVERED_HOSTS_MAX} services; the others are not routed by it`);
    }
  });
  return [...found.values()];
}

/** Beside the service it holds for the clients that it is exported to; elsewhere for clients of its own namespace alone, so that nobody takes over another's host. */
function parentsOf(host: Host, port: number | null, resource: VirtualServiceResource, view: View): RouteParent[] {
  const clients = clientNamespaces(resource, resource.spec.exportTo, host.namespace, view.options.rootNamespace);
  return clients.map((clientNamespace) => ({ service: host.service, port, clientNamespace }));
}

/** Of a resource with rules for several protocols each port takes those of its own; where it declares none, the first of them. */
function takes(host: Host, port: number | null, protocol: RouteRules["protocol"], sections: readonly RouteRules[]): boolean {
  if (port === null) return true;
  const own = host.ports.find(({ number }) => number === port);
  if (own === undefined) return false;
  return sections.length === 1 || protocol === (sections.find((rules) => rules.protocol === own.protocol) ?? sections[0]!).protocol;
}

function needsPort({ namespace, spec }: VirtualServiceResource, rules: readonly WrittenRule[], view: View): boolean {
  if ([spec.http, spec.tls, spec.tcp].filter((section) => (section?.length ?? 0) > 0).length > 1) return true;
  const open = (destination: DestinationSpec, from: string): boolean => destination.port === undefined && (view.ask((world) => world.host(destination.host, from))?.ports.length ?? 0) > 1;
  const http = rules.some(({ rule, namespace: from, mirrorNamespace }) => (rule.match ?? []).some(({ port }) => port !== undefined)
    || (rule.route ?? []).some(({ destination }) => open(destination, from))
    || [...(rule.mirrors ?? []), ...(rule.mirror === undefined ? [] : [{ destination: rule.mirror }])].some(({ destination }) => open(destination, mirrorNamespace)));
  return http || [...(spec.tls ?? []), ...(spec.tcp ?? [])].some((rule) => (rule.match ?? []).some(({ port }) => port !== undefined) || (rule.route ?? []).some(({ destination }) => open(destination, namespace)));
}

function rulesOf({ spec }: VirtualServiceResource, written: readonly WrittenRule[], context: Context): RouteRules[] {
  const http = written.flatMap((rule) => httpRule(rule, context) ?? []);
  const tls = (spec.tls ?? []).flatMap((rule, index) => connectionRule(rule, ["spec", "tls", index], context) ?? []);
  const tcp = (spec.tcp ?? []).flatMap((rule, index) => connectionRule(rule, ["spec", "tcp", index], context) ?? []);
  return [
    ...(http.length > 0 ? [{ protocol: "http", rules: http, precedence: "asWritten" } as const] : []),
    ...(tls.length > 0 ? [{ protocol: "tls", rules: tls } as const] : []),
    ...(tcp.length > 0 ? [{ protocol: "tcp", rules: tcp } as const] : []),
  ];
}

/** Matches that can hold here; null when the rule has matches and none of them can. */
function matchesHere<T extends PortMatch>(matches: readonly T[] | undefined, port: number | null): readonly T[] | null {
  const here = (matches ?? []).filter((match) => holdsHere(match, port));
  return here.length === 0 && (matches?.length ?? 0) > 0 ? null : here;
}

interface PortMatch {
  readonly port?: number | undefined;
  readonly gateways?: readonly string[] | undefined;
}

function holdsHere(match: PortMatch, port: number | null): boolean {
  return (match.port === undefined || match.port === port) && (match.gateways === undefined || match.gateways.includes(MESH_GATEWAY));
}

function httpRule(written: WrittenRule, from: Context): HttpRule | null {
  const { rule, at, fieldPath, matchPaths, namespace, mirrorNamespace, broken: why, inside } = written;
  const report: Report = inside === null ? from.report : (severity, code, _path, message) => from.report(severity, code, at, `${inside}: ${message}`);
  const context: Context = { ...from, namespace, report };
  const matches = matchesHere(rule.match, context.port);
  if (matches === null) return null;
  const backends = (rule.route ?? []).map(({ destination, weight, headers }, i): RouteBackend => ({
    weight: weight ?? (rule.route!.length === 1 ? 1 : 0), target: target(destination, [...at, "route", i, "destination"], context), filters: headerFilters(headers),
  }));
  const single = backends.length === 1 && backends[0]!.weight === 0 ? [{ ...backends[0]!, weight: 1 }] : backends;
  let broken = why;
  if (broken === null && backends.length > 1 && backends.every(({ weight }) => weight === 0)) {
    broken = "all its weights are 0";
    report("error", "fail_closed", [...at, "route"], "found weights that are all 0; requests that this rule matches get 500");
  }
  const { retries } = rule;
  if (retries?.retryRemoteLocalities !== undefined || retries?.retryIgnorePreviousHosts !== undefined) {
    report("info", "not_supported", [...at, "retries"], "where a retry goes is not chosen by retryRemoteLocalities and retryIgnorePreviousHosts: it goes to another endpoint when there is one");
  }
  const made: HttpRule = {
    name: rule.name ?? null, matches: matches.map(requestMatch), matchPaths: placesHere(rule, matchPaths, fieldPath, context.port), filters: filters(rule, at, { ...context, namespace: mirrorNamespace }), backends: single,
    timeouts: rule.timeout === undefined ? INHERITED_TIMEOUTS : { ...INHERITED_TIMEOUTS, requestMs: durationMs(rule.timeout) },
    retry: retries === undefined ? null : retryPolicy(retries, [...at, "retries", "retryOn"], report),
    sessionPersistence: null, faults: faults(rule.fault, `${fieldPath}.fault`), broken, fieldPath,
  };
  from.writers.set(made, { backends: namespace, mirrors: mirrorNamespace });
  return made;
}

/** Null where all of its own matches are left, in their order. */
function placesHere({ match }: VirtualServiceRoute, paths: readonly string[], fieldPath: string, port: number | null): readonly string[] | null {
  const here = paths.filter((_, index) => holdsHere(match![index]!, port));
  return here.every((path, index) => path === `${fieldPath}.match[${index}]`) ? null : here;
}

function requestMatch(match: VirtualServiceMatch): RequestMatch {
  const { uri } = match;
  const optional = (spec: StringMatchSpec | undefined): TextPattern | null => (spec === undefined ? null : textPattern(spec));
  const headers = (specs: Readonly<Record<string, StringMatchSpec>> | undefined, invert: boolean): HeaderPattern[] =>
    Object.entries(specs ?? {}).map(([name, spec]) => ({ name: name.toLowerCase(), pattern: textPattern(spec), invert }));
  return {
    ...ANY_REQUEST,
    path: uri === undefined ? null : uri.exact !== undefined ? { kind: "exact", value: uri.exact } : uri.regex !== undefined ? { kind: "regex", value: uri.regex } : { kind: "textPrefix", value: uri.prefix ?? "" },
    pathIgnoresCase: (match.ignoreUriCase ?? false) && uri?.regex === undefined,
    method: optional(match.method), authority: optional(match.authority), scheme: optional(match.scheme),
    headers: [...headers(match.headers, false), ...headers(match.withoutHeaders, true)],
    query: Object.entries(match.queryParams ?? {}).map(([name, spec]) => ({ name, pattern: textPattern(spec) })),
    sourceNamespace: match.sourceNamespace === undefined || match.sourceNamespace === "" ? null : match.sourceNamespace,
    sourceLabels: match.sourceLabels ?? {},
  };
}

function target(destination: DestinationSpec, at: FieldPath, { namespace, port: requestPort, view, report, subsets }: Context): BackendTarget {
  const invalid = (path: FieldPath, message: string): BackendTarget => {
    report("error", "unresolved_reference", path, `${message}; its share of the requests gets 500`);
    return { kind: "invalid", reason: message };
  };
  const host = view.ask((world) => world.host(destination.host, namespace));
  if (host === null) return invalid([...at, "host"], `found the host ${destination.host}, which no Service or ServiceEntry is`);
  const known = (number: number): boolean => host.ports.some((one) => one.number === number);
  const port = destination.port?.number ?? (host.ports.length === 1 ? host.ports[0]!.number : requestPort);
  if (port === null || !known(port)) {
    return invalid(destination.port === undefined ? at : [...at, "port", "number"], `found ${port === null ? "no port" : `the port ${port}`} for ${host.hostname}, which has ${host.ports.map(({ number }) => number).join(", ") || "none"}`);
  }
  if (destination.subset !== undefined) subsets.push({ service: host.service, subset: destination.subset, path: [...at, "subset"] });
  return { kind: "service", service: host.service, port, subset: destination.subset ?? null };
}

function headerFilters(headers: HeadersSpec | undefined): RouteFilter[] {
  const change = (operations: NonNullable<HeadersSpec["request"]>) => ({
    set: headerTexts(operations.set), add: headerTexts(operations.add), remove: (operations.remove ?? []).map((name) => name.toLowerCase()),
  });
  return [
    ...(headers?.request === undefined ? [] : [{ kind: "requestHeaders", change: change(headers.request) } as const]),
    ...(headers?.response === undefined ? [] : [{ kind: "responseHeaders", change: change(headers.response) } as const]),
  ];
}

/** With `%%` for a percent sign, as Istio hands them to Envoy. */
const headerTexts = (map: Readonly<Record<string, string>> | undefined): (readonly [string, string])[] => Object.entries(map ?? {}).map(([name, value]) => [name.toLowerCase(), value.replaceAll("%%", "%")]);

/** In the order in which they take effect. */
function filters(rule: VirtualServiceRoute, at: FieldPath, context: Context): RouteFilter[] {
  const all: RouteFilter[] = [];
  const { redirect, rewrite, directResponse } = rule;
  if (rule.corsPolicy !== undefined) all.push({ kind: "cors", cors: cors(rule.corsPolicy) });
  all.push(...headerFilters(rule.headers));
  if (redirect !== undefined) {
    const { uri, prefixRewrite, authority = null, scheme = null, derivePort, redirectCode = REDIRECT_STATUS } = redirect;
    if (derivePort === "FROM_REQUEST_PORT" && scheme !== null) context.report("warning", "not_supported", [...at, "redirect", "derivePort"], "found FROM_REQUEST_PORT beside a scheme; the port of the scheme is used");
    const port = redirect.port ?? (derivePort === "FROM_PROTOCOL_DEFAULT" && scheme !== null ? (scheme === "https" ? 443 : 80) : null);
    const path = uri !== undefined ? ({ kind: "full", value: uri } as const) : prefixRewrite !== undefined ? ({ kind: "prefix", value: prefixRewrite } as const) : null;
    all.push({ kind: "redirect", redirect: { scheme, hostname: authority, path, port, status: redirectCode } });
  }
  if (rewrite !== undefined) {
    const { uri, uriRegexRewrite, authority = null } = rewrite;
    const path = uri !== undefined ? ({ kind: "prefix", value: uri } as const) : uriRegexRewrite !== undefined ? ({ kind: "regex", pattern: uriRegexRewrite.match, substitution: uriRegexRewrite.rewrite } as const) : null;
    all.push({ kind: "rewrite", hostname: authority, path });
  }
  const mirrors = [
    ...(rule.mirror === undefined ? [] : [{ destination: rule.mirror, percentage: rule.mirrorPercentage ?? { value: rule.mirrorPercent ?? rule.mirror_percent ?? 100 }, path: [...at, "mirror"] }]),
    ...(rule.mirrors ?? []).map((mirror, index) => ({ ...mirror, path: [...at, "mirrors", index, "destination"] })),
  ];
  for (const { destination, percentage, path } of mirrors) {
    const to = target(destination, path, context);
    if (to.kind === "service") all.push({ kind: "mirror", mirror: { target: to, fraction: percentage === undefined ? 1 : (percentage.value ?? 0) / 100 } });
  }
  if (directResponse !== undefined) {
    const { string, bytes } = directResponse.body ?? {};
    all.push({ kind: "respond", status: directResponse.status, body: string ?? (bytes === undefined ? "" : Buffer.from(bytes, "base64").toString("utf8")) });
  }
  return all;
}

function cors(spec: NonNullable<VirtualServiceRoute["corsPolicy"]>): Cors {
  const origin = (text: string): TextPattern => (text === "*" ? { kind: "present" } : { kind: "exact", value: text });
  return {
    allowOrigins: [...(spec.allowOrigins ?? []).map((match) => (match.exact === "*" ? origin("*") : textPattern(match))), ...(spec.allowOrigin ?? []).map(origin)],
    allowMethods: spec.allowMethods ?? [], allowHeaders: spec.allowHeaders ?? [], exposeHeaders: spec.exposeHeaders ?? [], allowCredentials: spec.allowCredentials ?? false,
    maxAgeS: spec.maxAge === undefined ? null : Math.floor(durationMs(spec.maxAge) / 1000), unmatchedPreflight: spec.unmatchedPreflights === "IGNORE" ? "answer" : "forward",
  };
}

function retryPolicy(spec: NonNullable<VirtualServiceRoute["retries"]>, at: FieldPath, report: Report): RetryPolicy {
  const { conditions, unsupported } = parseRetryOn(spec.retryOn === undefined || spec.retryOn === "" ? RETRY_ON : spec.retryOn);
  if (unsupported.length > 0) report("warning", "not_supported", at, `found ${unsupported.join(", ")}, which is not supported and never holds`);
  const base = spec.backoff === undefined ? RETRY_BACKOFF_BASE_MS : durationMs(spec.backoff);
  const perTry = spec.perTryTimeout === undefined ? 0 : durationMs(spec.perTryTimeout);
  return { ...conditions, attempts: spec.attempts ?? RETRY_ATTEMPTS, nonIdempotent: true, perTryTimeoutMs: perTry === 0 ? null : perTry, backoffBaseMs: base, backoffMaxMs: base * RETRY_BACKOFF_FACTOR };
}

function faults(spec: VirtualServiceRoute["fault"], fieldPath: string): Fault[] {
  const all: Fault[] = [];
  const { delay, abort } = spec ?? {};
  const share = (percentage: { readonly value?: number | undefined } | undefined, percent?: number): number => (percentage !== undefined ? (percentage.value ?? 0) : (percent ?? 100)) / 100;
  if (delay?.fixedDelay !== undefined) all.push({ action: { kind: "delay", fixedMs: durationMs(delay.fixedDelay) }, fraction: share(delay.percentage, delay.percent), matches: [], fieldPath: `${fieldPath}.delay` });
  if (abort !== undefined) {
    const grpcStatus = abort.grpcStatus === undefined ? null : parseGrpcStatus(abort.grpcStatus);
    const httpStatus = abort.httpStatus ?? httpStatusOfGrpc(grpcStatus ?? 14);
    all.push({ action: { kind: "abort", httpStatus, grpcStatus }, fraction: share(abort.percentage), matches: [], fieldPath: `${fieldPath}.abort` });
  }
  return all;
}

interface ConnectionSpec {
  readonly match?: readonly { readonly port?: number | undefined; readonly gateways?: readonly string[] | undefined; readonly sniHosts?: readonly string[] }[] | undefined;
  readonly route?: readonly { readonly destination: DestinationSpec; readonly weight?: number | undefined }[] | undefined;
}

const CONNECTION_FIELDS = ["destinationSubnets", "sourceLabels", "sourceNamespace", "sourceSubnet"] as const;

function connectionRule(rule: ConnectionSpec, at: readonly (string | number)[], context: Context): ConnectionRule | null {
  const matches = matchesHere(rule.match, context.port);
  if (matches === null) return null;
  const restricted = matches.some((match) => CONNECTION_FIELDS.some((field) => field in match));
  if (restricted) context.report("error", "fail_closed", [...at, "match"], `found ${CONNECTION_FIELDS.join(", ")} or some of them, which are not supported for connections; those that this rule may match are refused`);
  const routes = rule.route ?? [];
  const backends = routes.map(({ destination, weight }, index): RouteBackend => ({ weight: weight ?? (routes.length === 1 ? 1 : 0), target: target(destination, [...at, "route", index, "destination"], context), filters: [] }));
  const refused: RouteBackend = { weight: 1, target: { kind: "invalid", reason: "its match cannot be judged" }, filters: [] };
  const fieldPath = `spec.${at[1]}[${at[2]}]`;
  return { sni: matches.flatMap((match) => match.sniHosts ?? []), backends: restricted ? [refused] : backends, fieldPath };
}
