// A scenario as a waypoint reads it: Service, WorkloadEntries, DestinationRule, and TrafficPolicy for what that cannot say.

import { EJECTION_INTERVAL_MS, type FleetSpec, HEALTH_INTERVAL_MS, HEALTH_PATH, HEALTH_THRESHOLD, type HashKey } from "./description.ts";
import { hostOf, metadata, WAYPOINT_DOCUMENTS } from "../mesh-yaml.ts";

const sizeLabel = (endpoints: number): string => `of-${endpoints}`;

/** @param addresses of the endpoints; a service has as many of the first as it wants. @param sizes that services have. */
export function commonDocuments(addresses: readonly string[], sizes: readonly number[]): object[] {
  return [
    ...WAYPOINT_DOCUMENTS,
    ...addresses.map((address, i) => ({
      apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: metadata(`endpoint-${i}`),
      spec: { address, labels: Object.fromEntries(sizes.filter((size) => i < size).map((size) => [sizeLabel(size), "yes"])), serviceAccount: "endpoint" },
    })),
  ];
}

const SIMPLE = { "round robin": "ROUND_ROBIN", random: "RANDOM", "least request": "LEAST_REQUEST" } as const;

export function fleetDocuments(name: string, clusterIP: string, { endpoints, balancing, healthCheck, ejection }: FleetSpec, endpointPort: number): object[] {
  const loadBalancer = typeof balancing === "string" ? { simple: SIMPLE[balancing] } : { consistentHash: { ...hashKey(balancing.key), ...(balancing.table === "ring" ? { ringHash: { minimumRingSize: 1024 } } : { maglev: {} }) } };
  const outlierDetection = ejection === undefined ? undefined : {
    consecutive5xxErrors: ejection.errors, consecutiveGatewayErrors: ejection.gatewayErrors, interval: `${EJECTION_INTERVAL_MS}ms`, baseEjectionTime: `${ejection.baseMs}ms`, maxEjectionPercent: ejection.largestPercent, minHealthPercent: ejection.panicPercent,
  };
  const successRate = ejection?.successRate;
  const own = {
    ...(healthCheck === undefined ? {} : { healthCheck: {
      ...(healthCheck === "http" ? { http: { path: HEALTH_PATH } } : { tcp: {} }), interval: `${HEALTH_INTERVAL_MS}ms`, timeout: `${HEALTH_INTERVAL_MS}ms`, healthyThreshold: HEALTH_THRESHOLD, unhealthyThreshold: HEALTH_THRESHOLD,
    } }),
    ...(ejection === undefined || successRate === undefined ? {} : { outlierDetection: {
      consecutive5xx: ejection.errors, successRate: { minimumRequests: successRate.requests, minimumHosts: successRate.hosts, stdevFactor: successRate.stdevs }, interval: `${EJECTION_INTERVAL_MS}ms`, baseEjectionTime: `${ejection.baseMs}ms`, maxEjectionPercent: ejection.largestPercent,
    } }),
  };
  return [
    {
      apiVersion: "v1", kind: "Service", metadata: { ...metadata(name), labels: { "istio.io/use-waypoint": "waypoint" } },
      spec: { clusterIP, selector: { [sizeLabel(endpoints)]: "yes" }, ports: [{ name: "http", port: 80, targetPort: endpointPort }] },
    },
    { apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: metadata(name), spec: { host: hostOf(name), trafficPolicy: { loadBalancer, ...(successRate === undefined ? { outlierDetection } : {}) } } },
    ...(Object.keys(own).length === 0 ? [] : [{ apiVersion: "weft.dev/v1alpha1", kind: "TrafficPolicy", metadata: metadata(name), spec: { targetRefs: [{ group: "", kind: "Service", name }], ...own } }]),
  ];
}

function hashKey(key: HashKey): object {
  if ("header" in key) return { httpHeaderName: key.header };
  if ("query" in key) return { httpQueryParameterName: key.query };
  if ("sourceIp" in key) return { useSourceIp: true };
  return { httpCookie: { name: key.cookie, path: "/", ...(key.ttlS === undefined ? {} : { ttl: `${key.ttlS}s` }) } };
}
