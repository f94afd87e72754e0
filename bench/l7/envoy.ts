// Envoy with the same features, the filters as Istio gives them to a waypoint; and Envoy as the client's end of the tunnels, for both peers.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Server } from "../lib/process.ts";
import { DENIED_HEADER, type Features, ISSUER, type Identity, type Materials, requestPath, routePath, SERVER_NAME, TRACE_PERCENT, TRACES_PATH } from "./features.ts";
import type { L7Process, Protocol } from "./peer.ts";
import { BACKEND, BACKEND_PORTS } from "./servers.ts";

const PORTS = { h1: 12_080, h2: 12_081, grpc: 12_082 } as const;
export const ENVOY_TUNNEL = { port: 15_009, authority: "198.18.250.10:81" } as const;
const INSIDE = "inside";
/** More than any load here: what is compared is work, not limits. */
const NO_LIMIT = 1_000_000;

const type = (name: string): string => `type.googleapis.com/envoy.${name}`;
const address = (at: string, port: number): object => ({ socket_address: { address: at, port_value: port } });
const MANAGER = type("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager");
const ROUTER = { name: "envoy.filters.http.router", typed_config: { "@type": type("extensions.filters.http.router.v3.Router") } };

export function startEnvoy(binary: string, features: Features, materials: Materials, name: string): L7Process {
  const { directory } = materials;
  const listeners = [
    ...(["h1", "h2", "grpc"] as const).map((kind) => ({ address: address("127.0.0.1", PORTS[kind]), filter_chains: [{ filters: [manager(kind, features, materials, name)] }] })),
    ...(features.mtls ? [tunnelEnd(materials), { name: INSIDE, internal_listener: {}, filter_chains: [{ filters: [manager("h2", features, materials, name)] }] }] : []),
  ];
  const clusters = [
    cluster("h1", BACKEND, BACKEND_PORTS.h1, {}),
    ...(["h2", "grpc"] as const).map((kind) => cluster(kind, BACKEND, features.mtls ? BACKEND_PORTS.tls : BACKEND_PORTS.h2, { ...HTTP2, ...(features.mtls ? { transport_socket: clientTls(materials, materials.waypoint, SERVER_NAME) } : {}) })),
    ...(features.mtls ? [{ name: INSIDE, load_assignment: assignment(INSIDE, { envoy_internal_address: { server_listener_name: INSIDE } }) }] : []),
  ];
  const config = { static_resources: { listeners, clusters }, bootstrap_extensions: [{ name: "envoy.bootstrap.internal_listener", typed_config: { "@type": type("extensions.bootstrap.internal_listener.v3.InternalListener") } }] };
  return { server: launch(binary, directory, `envoy-${name}`, config, 1), ports: PORTS, helpers: [] };
}

function launch(binary: string, directory: string, name: string, config: object, baseId: number): Server {
  const file = join(directory, `${name}.json`);
  writeFileSync(file, JSON.stringify(config));
  return new Server({ argv: [binary, "-c", file, "--concurrency", "1", "--log-level", "warn", "--disable-hot-restart", "--base-id", `${baseId}`], logFile: join(directory, `${name}.log`) });
}

const assignment = (name: string, at: object): object => ({ cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address: at } }] }] });

function cluster(name: string, at: string, port: number, more: object): object {
  const limits = { max_connections: NO_LIMIT, max_pending_requests: NO_LIMIT, max_requests: NO_LIMIT };
  return { name, type: "STATIC", connect_timeout: "5s", circuit_breakers: { thresholds: [limits] }, load_assignment: assignment(name, address(at, port)), ...more };
}

const HTTP2 = {
  typed_extension_protocol_options: { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": { "@type": type("extensions.upstreams.http.v3.HttpProtocolOptions"), explicit_http_config: { http2_protocol_options: {} } } },
} as const;

// ── Requests ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function manager(kind: Protocol, features: Features, materials: Materials, name: string): object {
  const paths = features.routes === 0 || kind !== "h2" ? ["/"] : Array.from({ length: features.routes }, (_, i) => routePath(i));
  const routes = paths.map((path) => ({ match: path === "/" ? { prefix: path } : { path_separated_prefix: path }, route: { cluster: kind, timeout: "0s" } }));
  const log = { name: "envoy.access_loggers.file", typed_config: { "@type": type("extensions.access_loggers.file.v3.FileAccessLog"), path: join(materials.directory, `envoy-${name}-access.log`) } };
  return {
    name: "envoy.filters.network.http_connection_manager",
    typed_config: {
      "@type": MANAGER, stat_prefix: kind, normalize_path: true, generate_request_id: features.log || features.trace,
      route_config: { virtual_hosts: [{ name: "web", domains: ["*"], routes }] },
      http_filters: [...(features.jwt ? [tokens(materials.jwks)] : []), ...(features.policy ? access(features) : []), ROUTER],
      ...(features.log ? { access_log: [log] } : {}),
      ...(features.trace ? { tracing: tracing() } : {}),
    },
  };
}

function tokens(jwks: string): object {
  const provider = { issuer: ISSUER, forward: true, local_jwks: { inline_string: jwks }, payload_in_metadata: "claims", clock_skew_seconds: 60, jwt_cache_config: { jwt_cache_size: 100 } };
  return { name: "envoy.filters.http.jwt_authn", typed_config: { "@type": type("extensions.filters.http.jwt_authn.v3.JwtAuthentication"), providers: { bench: provider }, rules: [{ match: { prefix: "/" }, requires: { provider_name: "bench" } }] } };
}

function access(features: Features): object[] {
  const filter = (action: string, policy: object): object => ({ name: `rbac-${action}`, typed_config: { "@type": type("extensions.filters.http.rbac.v3.RBAC"), rules: { action, policies: { rule: policy } } } });
  const header = (name: string, exact: string): object => ({ header: { name, string_match: { exact } } });
  const anyOf = (rules: readonly object[]): object => ({ or_rules: { rules } });
  const allowed = [anyOf([header(":method", "GET"), header(":method", "POST")]), anyOf([{ url_path: { path: { exact: requestPath(features) } } }, { url_path: { path: { prefix: "/other/" } } }])];
  return [
    filter("DENY", { permissions: [{ any: true }], principals: [header(DENIED_HEADER, "yes")] }),
    filter("ALLOW", { permissions: [{ and_rules: { rules: allowed } }], principals: [{ any: true }] }),
  ];
}

function tracing(): object {
  const service = { http_uri: { uri: `http://${BACKEND}:${BACKEND_PORTS.h1}${TRACES_PATH}`, cluster: "h1", timeout: "1s" } };
  return { random_sampling: { value: TRACE_PERCENT }, provider: { name: "envoy.tracers.opentelemetry", typed_config: { "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig", service_name: "bench", http_service: service } } };
}

// ── Tunnels ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const tlsContext = ({ root }: Materials, { chain, key }: Identity): object => ({
  tls_params: { tls_minimum_protocol_version: "TLSv1_3", tls_maximum_protocol_version: "TLSv1_3" }, alpn_protocols: ["h2"],
  tls_certificates: [{ certificate_chain: { filename: chain }, private_key: { filename: key } }], validation_context: { trusted_ca: { filename: root } },
});

function clientTls(materials: Materials, identity: Identity, sni: string | null): object {
  return { name: "envoy.transport_sockets.tls", typed_config: { "@type": type("extensions.transport_sockets.tls.v3.UpstreamTlsContext"), ...(sni === null ? {} : { sni }), common_tls_context: tlsContext(materials, identity) } };
}

function tunnelEnd(materials: Materials): object {
  const connect = { match: { connect_matcher: {} }, route: { cluster: INSIDE, timeout: "0s", upgrade_configs: [{ upgrade_type: "CONNECT", connect_config: {} }] } };
  const tunnels = {
    "@type": MANAGER, stat_prefix: "tunnels", generate_request_id: false, http2_protocol_options: { allow_connect: true }, upgrade_configs: [{ upgrade_type: "CONNECT" }],
    route_config: { virtual_hosts: [{ name: "tunnels", domains: ["*"], routes: [connect] }] }, http_filters: [ROUTER],
  };
  const tls = { "@type": type("extensions.transport_sockets.tls.v3.DownstreamTlsContext"), require_client_certificate: true, common_tls_context: tlsContext(materials, materials.waypoint) };
  return {
    address: address("127.0.0.1", ENVOY_TUNNEL.port),
    filter_chains: [{ filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: tunnels }], transport_socket: { name: "envoy.transport_sockets.tls", typed_config: tls } }],
  };
}

export interface TunnelTo {
  /** On loopback, for the load. */
  readonly listen: number;
  readonly port: number;
  readonly authority: string;
}

/** A process of its own that puts each connection at `listen` into a tunnel to `port`: what the client's ztunnel does. */
export function startTunnels(binary: string, materials: Materials, tunnels: readonly TunnelTo[]): Server {
  const listeners = tunnels.map(({ listen, port, authority }) => ({
    address: address("127.0.0.1", listen),
    filter_chains: [{ filters: [{ name: "envoy.filters.network.tcp_proxy", typed_config: { "@type": type("extensions.filters.network.tcp_proxy.v3.TcpProxy"), stat_prefix: "tunnel", cluster: `${port}`, tunneling_config: { hostname: authority } } }] }],
  }));
  const clusters = tunnels.map(({ port }) => cluster(`${port}`, "127.0.0.1", port, { ...HTTP2, transport_socket: clientTls(materials, materials.client, null) }));
  return launch(binary, materials.directory, "tunnels", { static_resources: { listeners, clusters } }, 2);
}
