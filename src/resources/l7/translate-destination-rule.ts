// DestinationRule into contributions to the traffic policies of the services that its host names.

import type { Balancing, BackendTls, ConnectionLimits, HashKey, LocalityFailover, OutlierDetection, RetryBudget, Subset } from "../../mesh/l7/traffic-policy.ts";
import type { FieldPath } from "../diagnostic.ts";
import { durationMs } from "../durations.ts";
import type { DestinationRuleResource, DestinationSettings, DestinationTrafficPolicy } from "../kinds/destination-rule.ts";
import { secretText } from "../kinds/config-map.ts";
import { COVERED_HOSTS_MAX } from "../limits.ts";
import type { Placed, Report } from "../resource.ts";
import { type Contribution, RANK_BESIDE, RANK_SERVICE, RANK_WIDE, type TrafficField, type TrafficFields } from "./contribution.ts";
import { reportUnbound } from "./references.ts";
import { clientNamespaces } from "./scope.ts";
import type { View } from "./view.ts";
import type { Host } from "./world.ts";

/** Envoy's defaults. */
const RING_SIZE_MIN = 1024;
const MAGLEV_SIZE = 65_537;
const BUDGET_FRACTION = 0.2;
const BUDGET_RETRIES_MIN = 3;

/** What rules that are meant for a proxy's container write for the machine's own authorities. */
const SYSTEM_ROOTS: ReadonlySet<string> = new Set(["system", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]);

/** How much an exact host ranks above the namespace's least specific wildcard. */
const RANK_EXACT = RANK_SERVICE - RANK_BESIDE;

interface Settings {
  readonly fields: Partial<TrafficFields>;
  readonly paths: Partial<Record<TrafficField, FieldPath>>;
}

export function translateDestinationRule(placed: Placed<DestinationRuleResource>, view: View, report: Report): readonly Contribution[] {
  const { resource } = placed;
  const { namespace, spec } = resource;
  if (spec.workloadSelector !== undefined) {
    report("error", "not_supported", ["spec", "workloadSelector"], "found a workloadSelector: a waypoint does not decide by the client's labels; nothing of this rule is applied. Put it beside the clients, in a namespace of their own");
    return [];
  }
  const hosts = view.ask((world) => world.hostsMatching(spec.host, namespace));
  if (hosts.length === 0) {
    report("warning", "unresolved_reference", ["spec", "host"], `found ${JSON.stringify(spec.host)}, which no Service or ServiceEntry is; nothing is applied`);
    return [];
  }
  if (hosts.length > COVERED_HOSTS_MAX) report("error", "not_attached", ["spec", "host"], `found ${hosts.length} services, at most ${COVERED_HOSTS_MAX} take one rule; the others are not covered by it`);
  if (!spec.host.startsWith("*")) reportUnbound(hosts[0]!, ["spec", "host"], "traffic", report);
  const scopes: { readonly port: number | null; readonly subset: Subset | null; readonly settings: Settings }[] = [];
  const add = (policy: DestinationTrafficPolicy | undefined, subset: Subset | null, at: FieldPath): void => {
    if (policy !== undefined || subset !== null) scopes.push({ port: null, subset, settings: policySettings(policy ?? {}, resource, at, view, report) });
    (policy?.portLevelSettings ?? []).forEach((entry, index) => {
      scopes.push({ port: entry.port.number, subset, settings: settings(entry, resource, [...at, "portLevelSettings", index], view, report) });
    });
  };
  add(spec.trafficPolicy, null, ["spec", "trafficPolicy"]);
  (spec.subsets ?? []).forEach(({ name, labels = {}, trafficPolicy }, index) => add(trafficPolicy, { name, labels }, ["spec", "subsets", index, "trafficPolicy"]));
  return hosts.slice(0, COVERED_HOSTS_MAX).flatMap((host) => contributions(host, resource, scopes, view));
}

function contributions(host: Host, { namespace, spec, ...resource }: DestinationRuleResource, scopes: readonly { readonly port: number | null; readonly subset: Subset | null; readonly settings: Settings }[], view: View): Contribution[] {
  const { rootNamespace } = view.options;
  const exact = !spec.host.startsWith("*");
  const rank = (namespace === rootNamespace && host.namespace !== rootNamespace ? RANK_WIDE : RANK_BESIDE) + (exact ? RANK_EXACT : Math.min(spec.host.length, RANK_EXACT - 1));
  const clients = clientNamespaces({ namespace, spec, ...resource }, spec.exportTo, host.namespace, rootNamespace);
  return clients.flatMap((clientNamespace) => scopes.map(({ port, subset, settings: { fields, paths } }) => ({ service: host.service, port, subset, clientNamespace, rank, fields, paths })));
}

function policySettings(policy: DestinationTrafficPolicy, resource: DestinationRuleResource, at: FieldPath, view: View, report: Report): Settings {
  const { fields, paths } = settings(policy, resource, at, view, report);
  if (policy.retryBudget !== undefined) {
    const { percent, budgetInterval, minRetryConcurrency } = policy.retryBudget;
    const fraction = percent === undefined || percent === null ? BUDGET_FRACTION : percent / 100;
    const retriesMin = minRetryConcurrency ?? BUDGET_RETRIES_MIN;
    // Envoy counts what is under way, unless it is given an interval.
    const budget: RetryBudget = budgetInterval === undefined
      ? { kind: "underWay", fraction, retriesMin }
      : { kind: "overTime", fraction, intervalMs: durationMs(budgetInterval), retriesMin, retriesMinPerMs: durationMs(budgetInterval) };
    fields.retryBudget = budget;
    paths.retryBudget = [...at, "retryBudget"];
  }
  for (const field of ["tunnel", "proxyProtocol"] as const) {
    if (policy[field] === undefined) continue;
    report("error", "fail_closed", [...at, field], `found ${field}, which is not supported; requests to this host get 500 rather than go out without it`);
    fields.tls = { mode: "broken", reason: `${field} of the DestinationRule ${resource.namespace}/${resource.name} is not supported` };
    paths.tls = [...at, field];
  }
  return { fields, paths };
}

function settings({ loadBalancer, connectionPool, outlierDetection, tls }: DestinationSettings, resource: DestinationRuleResource, at: FieldPath, view: View, report: Report): { fields: { -readonly [K in TrafficField]?: TrafficFields[K] }; paths: { [K in TrafficField]?: FieldPath } } {
  const fields: { -readonly [K in TrafficField]?: TrafficFields[K] } = {};
  const paths: { [K in TrafficField]?: FieldPath } = {};
  const set = <K extends TrafficField>(field: K, value: TrafficFields[K] | null, ...path: (string | number)[]): void => {
    if (value === null) return;
    fields[field] = value;
    paths[field] = [...at, ...path];
  };
  if (loadBalancer !== undefined) {
    set("balancing", balancing(loadBalancer), "loadBalancer");
    set("locality", locality(loadBalancer.localityLbSetting), "loadBalancer", "localityLbSetting");
    const warmup = loadBalancer.warmup?.duration ?? loadBalancer.warmupDurationSecs;
    if (warmup !== undefined) set("slowStartMs", durationMs(warmup), "loadBalancer", loadBalancer.warmup === undefined ? "warmupDurationSecs" : "warmup");
    if (loadBalancer.warmup?.minimumPercent != null || loadBalancer.warmup?.aggression != null) report("info", "not_supported", [...at, "loadBalancer", "warmup"], "minimumPercent and aggression are not taken: the share grows evenly");
    if (loadBalancer.zoneAwareLbSetting !== undefined) report("info", "not_supported", [...at, "loadBalancer", "zoneAwareLbSetting"], "not taken: the default balancer prefers its own zone and spills over by load");
    if ((loadBalancer.consistentHash?.httpCookie?.attributes?.length ?? 0) > 0) report("info", "not_supported", [...at, "loadBalancer", "consistentHash", "httpCookie", "attributes"], "not taken: the cookie has the attributes that are safe");
  }
  if (connectionPool !== undefined) {
    set("limits", limits(connectionPool), "connectionPool");
    const { tcp, http } = connectionPool;
    if (http?.useClientProtocol !== undefined) report("info", "not_supported", [...at, "connectionPool", "http", "useClientProtocol"], "not taken: a server is spoken to in what its port declares, else in what the client speaks; h2UpgradePolicy changes that");
    for (const [value, path] of [[tcp?.tcpKeepalive, ["tcp", "tcpKeepalive"]], [http?.maxConcurrentStreams, ["http", "maxConcurrentStreams"]], [http?.http2KeepAlive, ["http", "http2KeepAlive"]]] as const) {
      if (value !== undefined) report("info", "not_supported", [...at, "connectionPool", ...path], "not taken: the tunnels between proxies have their own");
    }
  }
  if (outlierDetection !== undefined) set("outliers", outliers(outlierDetection), "outlierDetection");
  if (tls !== undefined) set("tls", backendTls(tls, resource, [...at, "tls"], view, report), "tls");
  return { fields, paths };
}

function balancing({ simple, consistentHash }: NonNullable<DestinationSettings["loadBalancer"]>): Balancing | null {
  if (consistentHash !== undefined) {
    const { httpHeaderName, httpCookie, httpQueryParameterName, ringHash, maglev, minimumRingSize } = consistentHash;
    const key: HashKey = httpHeaderName !== undefined ? { kind: "header", name: httpHeaderName.toLowerCase() }
      : httpCookie !== undefined ? { kind: "cookie", name: httpCookie.name, path: httpCookie.path ?? "/", ttlMs: httpCookie.ttl === undefined ? null : durationMs(httpCookie.ttl) }
      : httpQueryParameterName !== undefined ? { kind: "query", name: httpQueryParameterName } : { kind: "sourceIp" };
    if (maglev !== undefined) return { kind: "maglev", key, tableSize: maglev.tableSize || MAGLEV_SIZE };
    return { kind: "ringHash", key, ringSizeMin: ringHash?.minimumRingSize || minimumRingSize || RING_SIZE_MIN };
  }
  switch (simple) {
    case "ROUND_ROBIN": return { kind: "roundRobin" };
    case "RANDOM": return { kind: "random" };
    case "PASSTHROUGH": return { kind: "passthrough" };
    case "LEAST_CONN":
    case "LEAST_REQUEST": return { kind: "leastRequest" };
    case "UNSPECIFIED":
    case undefined: return null;
  }
}

function locality(spec: NonNullable<DestinationSettings["loadBalancer"]>["localityLbSetting"]): LocalityFailover | null {
  if (spec === undefined) return null;
  const distribute = (spec.distribute ?? []).map(({ from, to }) => ({ from, to: Object.entries(to).map(([where, weight]) => ({ locality: where, weight })) }));
  const mode = spec.enabled === false ? "off" : distribute.length > 0 ? "distribute" : "failover";
  return { mode, distribute, failover: (spec.failover ?? []).map(({ from, to }) => ({ from, to })), failoverPriority: spec.failoverPriority ?? [] };
}

function limits({ tcp, http }: NonNullable<DestinationSettings["connectionPool"]>): ConnectionLimits {
  const positive = (value: number | undefined): number | null => (value === undefined || value === 0 ? null : value);
  const ms = (text: string | undefined): number | null => (text === undefined ? null : durationMs(text));
  return {
    connectionsMax: positive(tcp?.maxConnections), pendingRequestsMax: positive(http?.http1MaxPendingRequests), activeRequestsMax: positive(http?.http2MaxRequests), activeRetriesMax: positive(http?.maxRetries),
    requestsPerConnectionMax: positive(http?.maxRequestsPerConnection), connectTimeoutMs: ms(tcp?.connectTimeout), idleTimeoutMs: ms(http?.idleTimeout ?? tcp?.idleTimeout), connectionAgeMaxMs: ms(tcp?.maxConnectionDuration),
    upgradeToHttp2: http?.h2UpgradePolicy === undefined || http.h2UpgradePolicy === "DEFAULT" ? null : http.h2UpgradePolicy === "UPGRADE",
  };
}

function outliers(spec: NonNullable<DestinationSettings["outlierDetection"]>): OutlierDetection {
  const ms = (text: string | undefined): number | null => (text === undefined ? null : durationMs(text));
  const share = (percent: number | undefined): number | null => (percent === undefined ? null : percent / 100);
  return {
    consecutive5xx: spec.consecutive5xxErrors ?? null, consecutiveGatewayErrors: spec.consecutiveGatewayErrors ?? spec.consecutiveErrors ?? null, consecutiveConnectFailures: spec.consecutiveLocalOriginFailures ?? null, splitConnectFailures: spec.splitExternalLocalOriginErrors ?? null,
    errorStatuses: (spec.outlierDetectionHttpErrorCodes?.length ?? 0) > 0 ? spec.outlierDetectionHttpErrorCodes! : null, successRate: null,
    intervalMs: ms(spec.interval), baseEjectionMs: ms(spec.baseEjectionTime), ejectionMaxMs: null, ejectedShareMax: share(spec.maxEjectionPercent), panicThreshold: share(spec.minHealthPercent),
  };
}

/** TLS to the application itself, inside the mesh's own. What cannot be had breaks it: nothing goes out less protected than asked for. */
function backendTls(spec: NonNullable<DestinationSettings["tls"]>, { namespace }: DestinationRuleResource, at: FieldPath, view: View, report: Report): BackendTls {
  const mode = spec.mode ?? "DISABLE";
  if (mode === "DISABLE") return { mode: "off" };
  if (mode === "ISTIO_MUTUAL") return { mode: "mesh" };
  const broken = (field: string, reason: string): BackendTls => {
    report("error", "fail_closed", [...at, field], `${reason}; requests to this host get 500`);
    return { mode: "broken", reason };
  };
  if (spec.insecureSkipVerify === true) report("warning", "not_enforced", [...at, "insecureSkipVerify"], "found true: whoever answers is believed, and may be anyone; give credentialName with the ca.crt of the server instead");
  for (const field of ["caCertificates", "caCrl", "clientCertificate", "privateKey"] as const) {
    if (field === "caCertificates" && SYSTEM_ROOTS.has(spec[field] ?? "")) continue;
    // Istio leaves the others out beside a Secret; a list of what was revoked is not left out in silence.
    if (spec[field] !== undefined && (spec.credentialName === undefined || field === "caCrl")) return broken(field, `found ${field}, a file of the proxy; give credentialName, a Secret of ${namespace}${field === "caCrl" ? " with ca.crl" : ""}`);
  }
  const subjectAltNames = (spec.subjectAltNames ?? []).map((value) => ({ type: "any", value }) as const);
  const common = { sni: spec.sni ?? null, subjectAltNames, gatewayCertificate: false, verify: spec.insecureSkipVerify !== true };
  if (spec.credentialName === undefined) return { mode: "simple", ...common, caPem: null, crlPem: null, certificate: null };
  const secret = view.ask((world) => world.secret(namespace, spec.credentialName!));
  if (secret === null) return broken("credentialName", `found the Secret ${namespace}/${spec.credentialName}, which is not there`);
  const text = (...keys: readonly string[]): string | null => keys.map((key) => secretText(secret, key)).find((value) => value !== undefined) ?? null;
  const [caPem, crlPem, certificatePem, keyPem] = [text("ca.crt", "cacert"), text("ca.crl", "crl"), text("tls.crt", "cert"), text("tls.key", "key")];
  if (crlPem !== null && caPem === null) return broken("credentialName", `found the Secret ${namespace}/${spec.credentialName} with ca.crl and no ca.crt, whose authorities must have signed it`);
  if (mode === "SIMPLE") return { mode: "simple", ...common, caPem, crlPem, certificate: null };
  if (certificatePem === null || keyPem === null) return broken("credentialName", `found the Secret ${namespace}/${spec.credentialName} without tls.crt and tls.key, which MUTUAL needs`);
  return { mode: "mutual", ...common, caPem, crlPem, certificate: { certificatePem, keyPem } };
}
