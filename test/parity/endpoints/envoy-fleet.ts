// A scenario as Envoy reads it, with the defaults that Istio gives a waypoint's clusters and routes.

import { EJECTION_INTERVAL_MS, type FleetSpec, HEALTH_INTERVAL_MS, HEALTH_PATH, HEALTH_THRESHOLD, type HashKey } from "./description.ts";

export interface EnvoyFleet {
  readonly name: string;
  readonly port: number;
  readonly spec: FleetSpec;
  readonly addresses: readonly string[];
  readonly endpointPort: number;
}

const type = (name: string): string => `type.googleapis.com/${name}`;
const seconds = (ms: number): string => `${ms / 1000}s`;

/** @param adminPort on loopback. */
export function envoyFleets(fleets: readonly EnvoyFleet[], adminPort: number): object {
  return { admin: { address: { socket_address: { address: "127.0.0.1", port_value: adminPort } } }, static_resources: { listeners: fleets.map(listener), clusters: fleets.map(cluster) } };
}

function listener({ name, port, spec: { balancing } }: EnvoyFleet): object {
  const route = {
    match: { prefix: "/" },
    route: {
      cluster: name, timeout: "0s", ...(typeof balancing === "string" ? {} : { hash_policy: [hashPolicy(balancing.key)] }),
      retry_policy: {
        retry_on: "connect-failure,refused-stream,unavailable,cancelled", num_retries: 2, retry_host_predicate: [{ name: "envoy.retry_host_predicates.previous_hosts", typed_config: { "@type": type("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate") } }],
        host_selection_retry_max_attempts: 5,
      },
    },
  };
  const manager = {
    "@type": type("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"), stat_prefix: name, codec_type: "AUTO",
    http_filters: [{ name: "envoy.filters.http.router", typed_config: { "@type": type("envoy.extensions.filters.http.router.v3.Router"), suppress_envoy_headers: true } }],
    route_config: { name, virtual_hosts: [{ name: "all", domains: ["*"], routes: [route] }] },
  };
  return { name, address: { socket_address: { address: "127.0.0.1", port_value: port } }, filter_chains: [{ filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }] }] };
}

function hashPolicy(key: HashKey): object {
  if ("header" in key) return { header: { header_name: key.header } };
  if ("query" in key) return { query_parameter: { name: key.query } };
  if ("sourceIp" in key) return { connection_properties: { source_ip: true } };
  return { cookie: { name: key.cookie, path: "/", ...(key.ttlS === undefined ? {} : { ttl: `${key.ttlS}s` }) } };
}

const POLICIES = { "round robin": "ROUND_ROBIN", random: "RANDOM", "least request": "LEAST_REQUEST", ring: "RING_HASH", maglev: "MAGLEV" } as const;

function cluster({ name, spec: { balancing, healthCheck, ejection }, addresses, endpointPort }: EnvoyFleet): object {
  return {
    name, type: "STATIC", connect_timeout: "2s", lb_policy: POLICIES[typeof balancing === "string" ? balancing : balancing.table], ...(typeof balancing === "object" && balancing.table === "ring" ? { ring_hash_lb_config: { minimum_ring_size: 1024 } } : {}),
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: addresses.map((address) => ({ endpoint: { address: { socket_address: { address, port_value: endpointPort } } } })) }] },
    // Several changes within a second would reach the workers together, at its end: what is found would be a matter of time.
    common_lb_config: { update_merge_window: "0s", healthy_panic_threshold: { value: ejection?.panicPercent ?? 0 } },
    ...(healthCheck === undefined ? {} : { health_checks: [{
      timeout: seconds(HEALTH_INTERVAL_MS), interval: seconds(HEALTH_INTERVAL_MS), no_traffic_interval: seconds(HEALTH_INTERVAL_MS), unhealthy_threshold: HEALTH_THRESHOLD, healthy_threshold: HEALTH_THRESHOLD,
      ...(healthCheck === "http" ? { http_health_check: { path: HEALTH_PATH } } : { tcp_health_check: {} }),
    }] }),
    ...(ejection === undefined ? {} : { outlier_detection: outlierDetection(ejection) }),
  };
}

/** As Istio writes a DestinationRule's, and success rates as our TrafficPolicy has them. */
function outlierDetection({ errors, gatewayErrors, successRate, baseMs, largestPercent }: NonNullable<FleetSpec["ejection"]>): object {
  return {
    consecutive_5xx: errors, enforcing_consecutive_5xx: errors > 0 ? 100 : 0, ...(gatewayErrors === undefined ? {} : { consecutive_gateway_failure: gatewayErrors, enforcing_consecutive_gateway_failure: 100 }),
    interval: seconds(EJECTION_INTERVAL_MS), base_ejection_time: seconds(baseMs), max_ejection_percent: largestPercent,
    ...(successRate === undefined ? { enforcing_success_rate: 0 } : { enforcing_success_rate: 100, success_rate_minimum_hosts: successRate.hosts, success_rate_request_volume: successRate.requests, success_rate_stdev_factor: successRate.stdevs * 1000 }),
  };
}
