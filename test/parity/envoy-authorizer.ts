// External authorisation as Istio configures Envoy for a provider of MeshConfig.

import { AUTHORIZER } from "./authorizer.ts";
import type { AuthorizerRule } from "./description.ts";

const type = (name: string): string => `type.googleapis.com/${name}`;
const clusterName = (protocol: AuthorizerRule["protocol"]): string => `authorizer-${protocol}`;
/** Istio's, where a provider says nothing. */
const TIMEOUT_MS = 600_000;

export function authorizerClusters(): object[] {
  return (["http", "grpc"] as const).map((protocol) => ({
    name: clusterName(protocol), type: "STATIC", connect_timeout: "2s",
    ...(protocol === "http" ? {} : { typed_extension_protocol_options: { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": { "@type": type("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"), explicit_http_config: { http2_protocol_options: {} } } } }),
    load_assignment: { cluster_name: clusterName(protocol), endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: AUTHORIZER.address, port_value: protocol === "http" ? AUTHORIZER.httpPort : AUTHORIZER.grpcPort } } } }] }] },
  }));
}

export function authorizerFilter(rule: AuthorizerRule): object {
  const { protocol, timeoutMs = TIMEOUT_MS, failOpen = false, statusOnError = 403, bodyBytes, partialBody = false, shown } = rule;
  const timeout = `${timeoutMs / 1000}s`;
  const service = protocol === "grpc" ? { grpc_service: { envoy_grpc: { cluster_name: clusterName(protocol), authority: "authorizer-grpc.parity.svc.cluster.local" }, timeout } } : { http_service: httpService(rule, timeout) };
  return {
    name: "envoy.filters.http.ext_authz",
    typed_config: {
      "@type": type("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"), transport_api_version: "V3", failure_mode_allow: failOpen, status_on_error: { code: statusOnError }, allowed_headers: exactly(shown),
      ...(bodyBytes === undefined ? {} : { with_request_body: { max_request_bytes: bodyBytes, allow_partial_message: partialBody } }), ...service,
    },
  };
}

const exactly = (names: readonly string[] | undefined): object | undefined => (names === undefined ? undefined : { patterns: names.map((exact) => ({ exact, ignore_case: true })) });

function httpService({ protocol, pathPrefix, added = {}, toServer, toClientOnDeny, toClientOnAllow }: AuthorizerRule, timeout: string): object {
  return {
    server_uri: { uri: "http://authorizer-http.parity.svc.cluster.local", cluster: clusterName(protocol), timeout }, path_prefix: pathPrefix,
    authorization_request: { headers_to_add: Object.entries(added).map(([key, value]) => ({ key, value })) },
    authorization_response: { allowed_upstream_headers: exactly(toServer), allowed_client_headers: exactly(toClientOnDeny), allowed_client_headers_on_success: exactly(toClientOnAllow) },
  };
}
