// networking.istio.io DestinationRule: how requests to a host are balanced, limited and protected.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import { duration, positiveDuration } from "../durations.ts";
import type { FieldPath } from "../diagnostic.ts";
import { headerName, isWildcardHost, pathFault, percentOfHundred } from "../http-values.ts";
import { LIST_MAX } from "../limits.ts";
import { labelMap, port } from "../object-meta.ts";
import { defineKind, type Report, type ResourceOfKind } from "../resource.ts";

const COUNT_MAX = 2_147_483_647;
/** Slots of a hash ring or table: memory of every worker. Envoy's own bounds. */
const RING_SIZE_MAX = 8_388_608;
const MAGLEV_SIZE_MAX = 5_000_011;

const schemas = collectable(() => {
  const count = z.int().min(0).max(COUNT_MAX);
  const locality = z.string().regex(/^(\*|[A-Za-z0-9_.-]+(\/[A-Za-z0-9_.-]+){0,2}(\/\*)?)$/, { error: "expected REGION, REGION/ZONE or REGION/ZONE/SUBZONE; a last * stands for any" });
  const localityLbSetting = z.strictObject({
    enabled: z.boolean().nullish(),
    distribute: z.array(z.strictObject({ from: locality, to: z.record(locality, z.int().min(0).max(100)) })).max(LIST_MAX).optional(),
    failover: z.array(z.strictObject({ from: z.string().min(1).max(253), to: z.string().min(1).max(253) })).max(LIST_MAX).optional(),
    failoverPriority: z.array(z.string().min(1).max(317)).max(32).optional(),
  });
  const zoneAwareLbSetting = z.strictObject({ enabled: z.boolean().nullish(), failover: z.unknown().optional(), failoverPriority: z.unknown().optional(), minClusterSize: z.unknown().optional() });
  const consistentHash = z.strictObject({
    httpHeaderName: headerName.optional(),
    httpCookie: z.strictObject({ name: headerName, path: z.string().max(1024).optional(), ttl: duration.optional(), attributes: z.array(z.strictObject({ name: z.string(), value: z.string().optional() })).max(32).optional() }).optional(),
    useSourceIp: z.boolean().optional(), httpQueryParameterName: z.string().min(1).max(256).optional(),
    ringHash: z.strictObject({ minimumRingSize: z.int().min(0).max(RING_SIZE_MAX).optional() }).optional(), maglev: z.strictObject({ tableSize: z.int().min(0).max(MAGLEV_SIZE_MAX).optional() }).optional(),
    minimumRingSize: z.int().min(0).max(RING_SIZE_MAX).optional(),
  });
  const loadBalancer = z.strictObject({
    simple: z.enum(["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]).optional(),
    consistentHash: consistentHash.optional(), localityLbSetting: localityLbSetting.optional(), zoneAwareLbSetting: zoneAwareLbSetting.optional(),
    warmup: z.strictObject({ duration: positiveDuration, minimumPercent: percentOfHundred.nullish(), aggression: z.number().min(0).nullish() }).optional(),
    warmupDurationSecs: positiveDuration.optional(),
  });
  const connectionPool = z.strictObject({
    tcp: z.strictObject({
      maxConnections: count.optional(), connectTimeout: positiveDuration.optional(), maxConnectionDuration: positiveDuration.optional(), idleTimeout: duration.optional(),
      tcpKeepalive: z.strictObject({ probes: count.optional(), time: positiveDuration.optional(), interval: positiveDuration.optional() }).optional(),
    }).optional(),
    http: z.strictObject({
      http1MaxPendingRequests: count.optional(), http2MaxRequests: count.optional(), maxRequestsPerConnection: count.optional(), maxRetries: count.optional(), idleTimeout: positiveDuration.optional(),
      h2UpgradePolicy: z.enum(["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]).optional(), useClientProtocol: z.boolean().optional(), maxConcurrentStreams: count.optional(),
      http2KeepAlive: z.strictObject({ interval: positiveDuration.optional(), timeout: positiveDuration.optional() }).optional(),
    }).optional(),
  });
  const outlierDetection = z.strictObject({
    consecutiveErrors: count.optional(), splitExternalLocalOriginErrors: z.boolean().optional(), consecutiveLocalOriginFailures: count.nullish(), consecutiveGatewayErrors: count.nullish(), consecutive5xxErrors: count.nullish(),
    interval: positiveDuration.optional(), baseEjectionTime: positiveDuration.optional(), maxEjectionPercent: z.int().min(0).max(100).optional(), minHealthPercent: z.int().min(0).max(100).optional(),
    outlierDetectionHttpErrorCodes: z.array(z.int().min(100).max(599)).max(500).optional(),
  });
  const tls = z.strictObject({
    mode: z.enum(["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]).optional(), clientCertificate: z.string().optional(), privateKey: z.string().optional(), caCertificates: z.string().optional(), caCrl: z.string().optional(),
    credentialName: z.string().max(253).optional(), subjectAltNames: z.array(z.string().min(1).max(2048)).max(LIST_MAX).optional(), sni: z.string().max(253).optional(), insecureSkipVerify: z.boolean().nullish(),
  });
  const settings = {
    loadBalancer: loadBalancer.optional(), connectionPool: connectionPool.optional(), outlierDetection: outlierDetection.optional(), tls: tls.optional(),
  };
  const trafficPolicy = z.strictObject({
    ...settings,
    portLevelSettings: z.array(z.strictObject({ port: z.strictObject({ number: port }), ...settings })).max(4096).optional(),
    tunnel: z.strictObject({ protocol: z.string().optional(), targetHost: z.string(), targetPort: port }).optional(),
    proxyProtocol: z.strictObject({ version: z.enum(["V1", "V2"]).optional() }).optional(),
    retryBudget: z.strictObject({ percent: percentOfHundred.nullish(), minRetryConcurrency: count.optional(), budgetInterval: positiveDuration.optional() }).optional(),
  });
  const spec = z.strictObject({
    host: z.string().min(1).max(253).refine((text) => text === "*" || isWildcardHost(text), { error: "expected a host name, *.SUFFIX or *" }),
    trafficPolicy: trafficPolicy.optional(),
    subsets: z.array(z.strictObject({ name: z.string().regex(/^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$/, { error: "expected a name of letters, digits, -, _ and ." }), labels: labelMap.optional(), trafficPolicy: trafficPolicy.optional() })).max(LIST_MAX).optional(),
    exportTo: z.array(z.string().min(1).max(63)).max(LIST_MAX).optional(),
    workloadSelector: z.strictObject({ matchLabels: labelMap.optional() }).optional(),
  });
  return { settings, trafficPolicy, spec };
});

export const destinationRuleKind = defineKind({
  kind: "DestinationRule",
  group: "networking.istio.io",
  versions: ["v1", "v1beta1", "v1alpha3"],
  namespaced: true,
  spec: () => schemas().spec,
  check({ spec }, report) {
    checkPolicy(spec.trafficPolicy, ["spec", "trafficPolicy"], report);
    const names = new Set<string>();
    (spec.subsets ?? []).forEach((subset, index) => {
      const at = ["spec", "subsets", index];
      if (names.has(subset.name)) report("error", "conflict", [...at, "name"], `found the subset ${subset.name} twice`);
      names.add(subset.name);
      checkPolicy(subset.trafficPolicy, [...at, "trafficPolicy"], report);
    });
  },
});

export type DestinationRuleResource = ResourceOfKind<typeof destinationRuleKind>;
export type DestinationTrafficPolicy = z.output<ReturnType<typeof schemas>["trafficPolicy"]>;
export type DestinationSettings = Pick<DestinationTrafficPolicy, keyof ReturnType<typeof schemas>["settings"]>;

function checkPolicy(policy: DestinationTrafficPolicy | undefined, at: FieldPath, report: Report): void {
  if (policy === undefined) return;
  checkSettings(policy, at, report);
  const ports = new Set<number>();
  (policy.portLevelSettings ?? []).forEach((entry, index) => {
    const path = [...at, "portLevelSettings", index];
    if (ports.has(entry.port.number)) report("error", "conflict", [...path, "port", "number"], `found the port ${entry.port.number} twice`);
    ports.add(entry.port.number);
    checkSettings(entry, path, report);
  });
}

function checkSettings({ loadBalancer, tls }: DestinationSettings, at: FieldPath, report: Report): void {
  const hash = loadBalancer?.consistentHash;
  if (loadBalancer?.simple !== undefined && hash !== undefined) report("error", "conflict", [...at, "loadBalancer", "simple"], "found it beside consistentHash, expected one of them");
  if (hash !== undefined) {
    const keys = (["httpHeaderName", "httpCookie", "httpQueryParameterName"] as const).filter((field) => hash[field] !== undefined).length + (hash.useSourceIp ? 1 : 0);
    if (keys !== 1) report("error", keys === 0 ? "missing_field" : "conflict", [...at, "loadBalancer", "consistentHash"], `found ${keys} keys, expected one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName`);
    const cookiePath = hash.httpCookie?.path;
    if (cookiePath !== undefined && pathFault(cookiePath) !== null) report("error", "bad_value", [...at, "loadBalancer", "consistentHash", "httpCookie", "path"], pathFault(cookiePath)!);
    if (hash.ringHash !== undefined && hash.maglev !== undefined) report("error", "conflict", [...at, "loadBalancer", "consistentHash", "maglev"], "found it beside ringHash, expected one of them");
  }
  const locality = loadBalancer?.localityLbSetting;
  const ways = (["distribute", "failover", "failoverPriority"] as const).filter((field) => (locality?.[field]?.length ?? 0) > 0);
  if (ways.includes("distribute") && ways.length > 1) report("error", "conflict", [...at, "loadBalancer", "localityLbSetting"], `found ${ways.join(" and ")}, expected distribute alone or a way of failover`);
  (locality?.distribute ?? []).forEach(({ to }, index) => {
    const sum = Object.values(to).reduce((total, share) => total + share, 0);
    if (sum !== 100) report("error", "bad_value", [...at, "loadBalancer", "localityLbSetting", "distribute", index, "to"], `found weights that sum to ${sum}, expected 100`);
  });
  if (tls?.mode === "MUTUAL" && tls.credentialName === undefined && (tls.clientCertificate === undefined || tls.privateKey === undefined)) {
    report("error", "missing_field", [...at, "tls"], "found MUTUAL without credentialName, expected the name of a Secret with tls.crt and tls.key");
  }
}
