// Envoy as a waypoint, in the shape that istiod gives it: a listener that ends HBONE tunnels, one inside for what came through them, and one
// that opens tunnels to endpoints. Without the filters that only Istio's own build of Envoy has (telemetry, metadata of peers). ENVOY_BIN
// names its program.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HBONE_PORT, type PeerSvid } from "../kit/hbone-peer.ts";
import { ask } from "../kit/mesh.ts";
import type { Place, Workload } from "../kit/network.ts";
import { needsBinary, type SkipReason } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

export const needsEnvoy: SkipReason = needsBinary("ENVOY_BIN");

const ADMIN_PORT = 15000;
const READY_MS = 20_000;
/** As Istio has them: streams of one tunnel, and how often a peer is asked whether it is there. */
const STREAMS_MAX = 100;
const KEEPALIVE = { interval: "10s", timeout: "20s" };
const ORIGINAL_DESTINATION = "envoy.filters.listener.original_dst";

const type = (name: string): string => `type.googleapis.com/${name}`;
const LISTENER_FILTERS = [{ name: ORIGINAL_DESTINATION, typed_config: { "@type": type("envoy.extensions.filters.listener.original_dst.v3.OriginalDst") } }];
const H2 = { "@type": type("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"), explicit_http_config: { http2_protocol_options: { allow_connect: true } } };
const ROUTER = { name: "envoy.filters.http.router", typed_config: { "@type": type("envoy.extensions.filters.http.router.v3.Router") } };

export interface EnvoyWaypointOptions {
  readonly place: Workload;
  readonly directory: string;
  readonly svid: PeerSvid;
  /** Identity of the endpoint, which Envoy insists on. */
  readonly endpoint: { readonly place: Workload; readonly identity: string };
  /** From the service's port to the endpoint's; `http` are read as requests, the others passed on. */
  readonly ports: readonly { readonly port: number; readonly targetPort: number; readonly http: boolean }[];
  /** After this a tunnel gets GOAWAY, and its streams go on. */
  readonly tunnelAge: string;
}

export class EnvoyWaypoint implements AsyncDisposable {
  readonly #options: EnvoyWaypointOptions;
  readonly #config: string;
  #process: Bun.Subprocess | null = null;

  constructor(options: EnvoyWaypointOptions) {
    this.#options = options;
    this.#config = join(options.directory, "envoy.json");
    writeFileSync(this.#config, JSON.stringify(configuration(options)), { mode: 0o600 });
  }

  async start(): Promise<void> {
    const { place, directory } = this.#options;
    const log = join(directory, "envoy.log");
    const started = place.exec(["sh", "-c", 'exec "$0" -c "$1" --concurrency 1 --use-dynamic-base-id --disable-hot-restart -l warning >"$2" 2>&1', process.env["ENVOY_BIN"]!, this.#config, log], { stdout: "ignore", stderr: "inherit" });
    this.#process = started;
    await until(() => `Envoy to be ready:\n${readFileSync(log, "utf8").slice(-3000)}`, READY_MS, async () => {
      if (started.exitCode !== null) throw new Error(`Envoy ended with status ${started.exitCode}:\n${readFileSync(log, "utf8").slice(-3000)}`);
      return (await ask(place as Place, "get", `http://127.0.0.1:${ADMIN_PORT}/ready`)).startsWith("200");
    });
  }

  /** The sum of a counter of its own. */
  async counter(name: string): Promise<number> {
    const answer = await ask(this.#options.place as Place, "get", `http://127.0.0.1:${ADMIN_PORT}/stats?filter=^${name}$`);
    return Number(/: (\d+)/.exec(answer)?.[1] ?? 0);
  }

  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.exited;
    this.#process = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

function configuration({ svid, endpoint, ports, tunnelAge }: EnvoyWaypointOptions): object {
  const tls = (more: object = {}) => ({
    tls_params: { tls_minimum_protocol_version: "TLSv1_3", tls_maximum_protocol_version: "TLSv1_3" }, alpn_protocols: ["h2"],
    tls_certificates: [{ certificate_chain: { inline_string: svid.cert }, private_key: { inline_string: svid.key } }], validation_context: { trusted_ca: { inline_string: svid.ca }, ...more },
  });
  const inside = (name: string) => ({ name, internal_listener: {}, listener_filters: LISTENER_FILTERS });
  const tcpProxy = (cluster: string, more: object = {}) => ({ name: "tcp", typed_config: { "@type": type("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"), stat_prefix: cluster, cluster, ...more } });
  const manager = (prefix: string, more: object) => ({ name: "http", typed_config: { "@type": type("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"), stat_prefix: prefix, stream_idle_timeout: "0s", ...more } });
  const routes = (route: object) => ({ route_config: { virtual_hosts: [{ name: "all", domains: ["*"], routes: [route] }] } });
  const connectTerminate = {
    name: "connect_terminate", address: { socket_address: { address: "0.0.0.0", port_value: HBONE_PORT } },
    filter_chains: [{
      transport_socket: { name: "tls", typed_config: { "@type": type("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"), require_client_certificate: true, common_tls_context: tls() } },
      filters: [manager("connect_terminate", {
        http2_protocol_options: { allow_connect: true, max_concurrent_streams: STREAMS_MAX, connection_keepalive: KEEPALIVE }, upgrade_configs: [{ upgrade_type: "CONNECT" }], common_http_protocol_options: { max_connection_duration: tunnelAge },
        http_filters: [
          {
            name: "connect_authority",
            typed_config: {
              "@type": type("envoy.extensions.filters.http.set_filter_state.v3.Config"),
              on_request_headers: [{ object_key: `${ORIGINAL_DESTINATION}.local_ip`, format_string: { text_format_source: { inline_string: "%REQ(:AUTHORITY)%" } }, shared_with_upstream: "ONCE" }],
            },
          },
          ROUTER,
        ],
        ...routes({ match: { connect_matcher: {} }, route: { cluster: "main_internal", upgrade_configs: [{ upgrade_type: "CONNECT", connect_config: {} }] } }),
      })],
    }],
  };
  const mainInternal = {
    ...inside("main_internal"),
    filter_chains: ports.map(({ port, http }) => ({
      filter_chain_match: { destination_port: port },
      filters: [http
        ? manager("inbound", { http_filters: [ROUTER], upgrade_configs: [{ upgrade_type: "websocket" }], ...routes({ match: { prefix: "/" }, route: { cluster: `service-${port}`, timeout: "0s" }, response_headers_to_add: [{ header: { key: "x-served-by", value: "envoy" } }] }) })
        : tcpProxy(`service-${port}`)],
    })),
  };
  const connectOriginate = { ...inside("connect_originate"), filter_chains: [{ filters: [tcpProxy("connect_originate", { tunneling_config: { hostname: "%DOWNSTREAM_LOCAL_ADDRESS%" } })] }] };
  const internalTransport = (metadata: readonly object[]) => ({
    name: "internal_upstream",
    typed_config: {
      "@type": type("envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"), passthrough_metadata: metadata,
      transport_socket: { name: "raw_buffer", typed_config: { "@type": type("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer") } },
    },
  });
  const internalAddress = (listener: string, id: string) => ({ address: { envoy_internal_address: { server_listener_name: listener, endpoint_id: id } } });
  return {
    admin: { address: { socket_address: { address: "127.0.0.1", port_value: ADMIN_PORT } } },
    bootstrap_extensions: [{ name: "envoy.bootstrap.internal_listener", typed_config: { "@type": type("envoy.extensions.bootstrap.internal_listener.v3.InternalListener") } }],
    static_resources: {
      listeners: [connectTerminate, mainInternal, connectOriginate],
      clusters: [
        { name: "main_internal", type: "STATIC", load_assignment: { cluster_name: "main_internal", endpoints: [{ lb_endpoints: [{ endpoint: internalAddress("main_internal", "main") }] }] }, transport_socket: internalTransport([]) },
        ...ports.map(({ port, targetPort }) => ({
          name: `service-${port}`, type: "STATIC", transport_socket: internalTransport([{ kind: { host: {} }, name: ORIGINAL_DESTINATION }]),
          load_assignment: {
            cluster_name: `service-${port}`,
            endpoints: [{ lb_endpoints: [{ endpoint: internalAddress("connect_originate", `${endpoint.place.ipv4}:${targetPort}`), metadata: { filter_metadata: { [ORIGINAL_DESTINATION]: { local: `${endpoint.place.ipv4}:${targetPort}` } } } }] }],
          },
        })),
        {
          name: "connect_originate", type: "ORIGINAL_DST", lb_policy: "CLUSTER_PROVIDED", original_dst_lb_config: { upstream_port_override: HBONE_PORT },
          typed_extension_protocol_options: { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": H2 },
          transport_socket: {
            name: "tls",
            typed_config: { "@type": type("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"), common_tls_context: tls({ match_typed_subject_alt_names: [{ san_type: "URI", matcher: { exact: endpoint.identity } }] }) },
          },
        },
      ],
    },
  };
}
