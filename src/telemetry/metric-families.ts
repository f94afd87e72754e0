// Every metric there is: name, kind, labels, meaning. A test holds docs/metrics.md to this table, and the table to the sources.
// Istio's names where Istio has one, `weft_*` for ours. A family takes at most SERIES_MAX label combinations.

import { type Bounds, CONNECT_SECONDS, DNS_SECONDS, LIFETIME_SECONDS, REQUEST_MS, SIZE_BYTES } from "./histogram.ts";

/** Label combinations one family may have besides the connection families, which have their own limit. */
export const SERIES_MAX = 2000;

export interface Family {
  readonly type: "counter" | "gauge" | "histogram";
  readonly labels: readonly string[];
  readonly help: string;
  readonly bounds?: Bounds;
}

const counter = <const L extends readonly string[]>(labels: L, help: string) => ({ type: "counter", labels, help }) as const;
const gauge = <const L extends readonly string[]>(labels: L, help: string) => ({ type: "gauge", labels, help }) as const;
const histogram = <const L extends readonly string[]>(labels: L, bounds: Bounds, help: string) => ({ type: "histogram", labels, help, bounds }) as const;

/** Labels of the connection histograms: few, because each series has a dozen lines. */
const ROUTE = ["reporter", "path", "destination_service_namespace", "destination_service_name"] as const;
const SERVICE = ["destination_service_namespace", "destination_service_name"] as const;

/** Labels of what is known of a service and port as requests are sent to it; `subset` is empty for all of its endpoints. */
const CLUSTER = ["destination_service_namespace", "destination_service_name", "port", "subset"] as const;

export const FAMILIES = {
  istio_tcp_sockets_open: gauge(["reporter"], "Connections open now, by the end that reports them"),
  istio_crl_policy_rejections_total: counter(["reporter"], "Handshakes refused because a certificate of the chain is revoked"),
  istio_dns_requests_total: counter(["request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"], "DNS requests received"),
  istio_dns_upstream_requests_total: counter(["request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"], "DNS requests forwarded to a resolver"),
  istio_dns_upstream_failures_total: counter(["request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"], "Forwarded DNS requests that no resolver answered"),
  istio_dns_upstream_request_duration_seconds: histogram(["request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"], DNS_SECONDS, "Time a forwarded DNS request took"),
  weft_dns_refused_total: counter(["reason"], "DNS questions that were not taken, by reason"),
  weft_dns_bad_replies_total: counter([], "Replies of resolvers that answered no question of ours"),
  istio_xds_connection_terminations_total: counter(["reason"], "Connections to the control plane that ended: ConnectionError (it was not reached), Error (the stream failed), Complete (it ended in order)"),
  istio_xds_message_total: counter(["url"], "Responses of the control plane, by type of resource"),
  istio_xds_message_bytes_total: counter(["url"], "Bytes of resources in responses of the control plane, by type of resource"),
  weft_xds_refused_total: counter(["url"], "Resources of the control plane that were refused, by type"),
  istio_build: gauge(["component", "tag"], "Always 1; the labels tell what runs"),
  workload_manager_active_proxy_count: gauge([], "Workloads of this node whose traffic is captured"),
  workload_manager_pending_proxy_count: gauge([], "Workloads of this node that wait to be captured"),

  weft_connect_duration_seconds: histogram(ROUTE, CONNECT_SECONDS, "Time from the accepted connection to a usable path"),
  weft_connection_bytes: histogram([...ROUTE, "direction"], SIZE_BYTES, "Bytes of one connection, by direction, at its end"),
  weft_connection_duration_seconds: histogram(ROUTE, LIFETIME_SECONDS, "Life of one connection"),
  weft_connections_closed_total: counter(["reporter", "code", "blame"], "Connections ended, by cause and by who caused it"),
  weft_node_local_connections_total: counter(["reporter"], "Connections carried inside this node without a tunnel"),
  weft_source_not_preserved_total: counter([], "Connections to an application for which the client's address could not be kept"),
  weft_endpoint_retries_total: counter([], "Connections moved to another endpoint, or tried again, before anything was sent"),
  weft_endpoints_ejected: gauge([], "Endpoints out of balancing now"),
  weft_policy_decisions_total: counter(["reporter", "verdict", "reason"], "Authorisation decisions by verdict and reason"),
  weft_policy_dry_run_total: counter(["would"], "What dry-run policies would have decided"),
  weft_tunnels_open: gauge(["direction"], "HBONE tunnels open now"),
  weft_tunnels_opened_total: counter(["direction"], "HBONE tunnels that came to be: TLS done, the first SETTINGS of the other side in"),
  weft_tunnels_closed_total: counter(["direction"], "HBONE tunnels that came to be and ended"),
  weft_tunnel_handshakes_failed_total: counter(["direction", "code"], "HBONE tunnels that did not come to be, by cause"),
  weft_handshakes_under_way: gauge([], "TLS handshakes of peers that have begun and not ended"),
  weft_handshakes_refused_total: counter(["reason"], "Peers turned away before the end of their handshake: too many from one source, too many in all, too many failures, given up for another source, or no room"),
  weft_buffered_bytes: gauge([], "Bytes held now for readers that are slow"),
  weft_buffer_pressure_total: counter([], "Times that half of the room for slow readers was used up, and windows were held back"),
  weft_buffer_shed_total: counter(["why"], "Connections ended because bytes waited for their reader: at the limit, or stalled under pressure"),
  weft_tunnel_streams_open: gauge(["direction"], "CONNECT streams open now"),
  weft_pool_requests_total: counter(["outcome"], "Streams asked of the pool: hit (a tunnel had room), opened (one was opened), waited (one was under way), refused (no certificate)"),
  weft_pool_tunnels_retired_total: counter(["reason"], "Pooled tunnels that take no new streams: idle, age, goaway, destination_changed, certificate_renewed, workload_left, drain"),
  weft_http2_fatal_total: counter(["counter"], "HTTP/2 connections given up, by the limit or rule that the peer broke"),
  weft_request_answers_total: counter([...SERVICE, "reason"], "Requests that the waypoint answered by itself, or whose answer ended early, by reason code"),
  weft_request_malformed_total: counter(["code"], "What came from clients and never became a request"),
  weft_request_retries_total: counter([...SERVICE, "cause"], "Attempts after the first, by what became of the one before: a reason code, or the status that a retry policy did not take"),
  weft_request_faults_total: counter([...SERVICE, "action"], "Faults injected on purpose: delay, abort, reset, bandwidth"),
  weft_request_first_byte_milliseconds: histogram(SERVICE, REQUEST_MS, "From the first byte of a request to the head of its answer"),
  weft_upstream_duration_milliseconds: histogram(SERVICE, REQUEST_MS, "From sending a request to an endpoint to the head of the answer, of the attempt that answered"),
  weft_upstream_connections_total: counter([...CLUSTER, "outcome"], "Connections to endpoints that were begun: opened or failed"),
  weft_upstream_in_use: gauge([...CLUSTER, "resource"], "What circuit breaking counts, now: connections, pendingRequests, activeRequests, activeRetries"),
  weft_upstream_refusals_total: counter([...CLUSTER, "resource"], "Refused by circuit breaking, by the resource whose limit was reached"),
  weft_upstream_endpoints: gauge([...CLUSTER, "health"], "Endpoints by health: usable, ejected, unhealthy (by active checks)"),
  weft_upstream_health_checks_total: counter([...CLUSTER, "result"], "Answers to active health checks: passed, failed"),
  weft_upstream_ejections_total: counter([...CLUSTER, "reason"], "Endpoints taken out of balancing, by what took them out"),
  weft_upstream_returns_total: counter(CLUSTER, "Endpoints brought back into balancing"),
  weft_rate_limit_decisions_total: counter([...SERVICE, "limit", "verdict"], "Rate limit decisions: allowed, refused, failed (the service that counts did not answer)"),
  weft_authorizer_decisions_total: counter([...SERVICE, "authorizer", "verdict"], "Answers of external authorizers to requests for the service: allowed, denied, failed (it did not answer, or not usably)"),
  weft_service_call_milliseconds: histogram([...SERVICE, "outcome"], REQUEST_MS, "Questions to authorizers, rate limit services and issuers, by the service that was asked; outcome: answered, failed"),
  weft_otlp_records_total: counter(["signal"], "Spans and log records made for collectors"),
  weft_otlp_records_dropped_total: counter(["signal", "where"], "Spans and log records dropped: data (made faster than taken), queue (the collector is slow or away), refused (it answered so)"),
  weft_otlp_exports_total: counter(["collector", "signal", "outcome"], "Calls of collectors: ok, partial (some records refused), failed, refused"),
  weft_log_lines_total: counter([], "Access log lines made"),
  weft_log_lines_dropped_total: counter(["where"], "Log lines dropped because they were made faster than they could be written"),
  weft_metric_series_overflowed_total: counter(["family"], "Look-ups answered with the overflow series because the limit of label sets was reached"),
  weft_metric_series_evicted_total: counter([], "Label sets dropped after long disuse"),
  weft_metric_series: gauge([], "Label sets of connections and requests kept now"),
  weft_thread_lag_seconds: gauge(["thread"], "How late the last timer of the thread was"),
  weft_thread_lag_max_seconds: gauge(["thread"], "How late the latest timer of the thread was since the last scrape"),
  weft_certificates_held: gauge([], "Workload certificates held"),
  weft_cni_pods_in_mesh: gauge([], "Pods of this node in the mesh"),
  weft_cni_ztunnels: gauge([], "Ztunnels connected to the CNI agent"),
  weft_certificate_fetches_total: counter(["outcome"], "Certificates asked of the CA"),
  weft_certificate_expiry_seconds: gauge([], "Seconds until the first certificate held expires"),
  weft_configuration_errors: gauge([], "Errors in the configuration now"),
  weft_configuration_changes_total: counter([], "Changes of the configuration applied"),
} as const satisfies Record<string, Family>;

/** Every thread sees the same things for itself: the largest number counts, not the sum. */
export const SEEN_BY_EACH: ReadonlySet<string> = new Set(["weft_upstream_endpoints"] satisfies FamilyName[]);

export type FamilyName = keyof typeof FAMILIES;
type NamesOfType<T extends Family["type"]> = { [N in FamilyName]: (typeof FAMILIES)[N]["type"] extends T ? N : never }[FamilyName];
export type HistogramName = NamesOfType<"histogram">;
export type CellName = NamesOfType<"counter" | "gauge">;
export type LabelsOf<N extends FamilyName> = Readonly<Record<(typeof FAMILIES)[N]["labels"][number], string>>;

/** The five families whose 27 labels come from ConnectionLabels. */
export const CONNECTION_FAMILIES = {
  opened: { name: "istio_tcp_connections_opened_total", help: "The total number of TCP connections opened" },
  closed: { name: "istio_tcp_connections_closed_total", help: "The total number of TCP connections closed" },
  failed: { name: "istio_tcp_connections_failed_total", help: "The total number of TCP connections that failed to establish (unstable)" },
  sentBytes: { name: "istio_tcp_sent_bytes_total", help: "The size of total bytes sent during response in case of a TCP connection" },
  receivedBytes: { name: "istio_tcp_received_bytes_total", help: "The size of total bytes received during request in case of a TCP connection" },
} as const;
