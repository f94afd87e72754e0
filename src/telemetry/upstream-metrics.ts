// What is told of the services that requests are sent to, apart from the requests: connections, limits, health, ejections, rate limits.
// Events are counted as they happen; what stands somewhere already is read when a scraper asks.

import { type CircuitBreaker, LIMITED_RESOURCES } from "../policy/upstream/circuit-breaker.ts";
import type { EndpointTransition } from "../policy/upstream/ejections.ts";
import type { MetricSeries } from "./metric-series.ts";

export interface ClusterLabels {
  readonly destination_service_namespace: string;
  readonly destination_service_name: string;
  readonly port: string;
  /** "" for all endpoints. */
  readonly subset: string;
}

/** One service, port and subset, as it stands. */
export interface ClusterState {
  readonly labels: ClusterLabels;
  readonly breaker: CircuitBreaker;
  readonly endpoints: { readonly usable: number; readonly ejected: number; readonly unhealthy: number };
}

export type RateLimitOutcome = "allowed" | "refused" | "failed";
export type AuthorizerOutcome = "allowed" | "denied" | "failed";

export class UpstreamMetrics {
  readonly #series: MetricSeries;
  /** Refusals that are counted already, by the breaker that made them: a changed configuration brings a new one, which begins at 0. */
  readonly #refused = new WeakMap<CircuitBreaker, Float64Array>();

  constructor(series: MetricSeries) {
    this.#series = series;
  }

  connection(labels: ClusterLabels, outcome: "opened" | "failed"): void {
    this.#series.cell("weft_upstream_connections_total", { ...labels, outcome }).value++;
  }

  transition(labels: ClusterLabels, { kind, reason }: EndpointTransition): void {
    if (kind === "ejected") this.#series.cell("weft_upstream_ejections_total", { ...labels, reason }).value++;
    else this.#series.cell("weft_upstream_returns_total", labels).value++;
  }

  healthCheck(labels: ClusterLabels, result: "passed" | "failed"): void {
    this.#series.cell("weft_upstream_health_checks_total", { ...labels, result }).value++;
  }

  /** @param limit name of the rule, from the configuration. */
  rateLimit(service: { readonly namespace: string; readonly name: string }, limit: string, verdict: RateLimitOutcome): void {
    this.#series.cell("weft_rate_limit_decisions_total", { destination_service_namespace: service.namespace, destination_service_name: service.name, limit, verdict }).value++;
  }

  /** @param authorizer `namespace/host` of the service that was asked. */
  authorizer(service: { readonly namespace: string; readonly name: string }, authorizer: string, verdict: AuthorizerOutcome): void {
    this.#series.cell("weft_authorizer_decisions_total", { destination_service_namespace: service.namespace, destination_service_name: service.name, authorizer, verdict }).value++;
  }

  /** @param service that was asked. */
  serviceCall(service: { readonly namespace: string; readonly name: string }, outcome: "answered" | "failed", ms: number): void {
    this.#series.histogram("weft_service_call_milliseconds", { destination_service_namespace: service.namespace, destination_service_name: service.name, outcome }).observe(ms);
  }

  /** Before a snapshot, with everything there is: what is not among it is shown no more. */
  observe(clusters: Iterable<ClusterState>): void {
    this.#series.clear("weft_upstream_in_use");
    this.#series.clear("weft_upstream_endpoints");
    for (const { labels, breaker, endpoints } of clusters) {
      const refused = this.#refusedOf(breaker);
      LIMITED_RESOURCES.forEach((resource, i) => {
        this.#series.cell("weft_upstream_in_use", { ...labels, resource }).value += breaker.inUse(resource);
        const news = breaker.refused(resource) - refused[i]!;
        if (news > 0) this.#series.cell("weft_upstream_refusals_total", { ...labels, resource }).value += news;
        refused[i]! += news;
      });
      for (const health of ["usable", "ejected", "unhealthy"] as const) this.#series.cell("weft_upstream_endpoints", { ...labels, health }).value += endpoints[health];
    }
  }

  #refusedOf(breaker: CircuitBreaker): Float64Array {
    let counted = this.#refused.get(breaker);
    if (counted === undefined) this.#refused.set(breaker, (counted = new Float64Array(LIMITED_RESOURCES.length)));
    return counted;
  }
}
