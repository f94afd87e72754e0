// Tells of everything that goes through one data thread: requests by the reporter, connections that were none with lines of their own.

import { type EffectiveTelemetry, mergeTelemetry } from "../../mesh/l7/merge-telemetry.ts";
import type { Workload } from "../../mesh/records.ts";
import { type ConnectionLabels, FLAG_INDEX } from "../../telemetry/connection-labels.ts";
import { type ConnectionCounters, ConnectionMetrics } from "../../telemetry/connection-metrics.ts";
import type { MetricsSnapshot } from "../../telemetry/metrics-snapshot.ts";
import type { RequestRecord } from "../../telemetry/request-record.ts";
import { RequestReporter, type RequestReporterOptions } from "../../telemetry/request-reporter.ts";
import type { RequestTrace } from "../../telemetry/request-trace.ts";
import type { ServiceTelemetry } from "../../telemetry/service-telemetry.ts";
import type { ClusterState, UpstreamMetrics } from "../../telemetry/upstream-metrics.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import type { Client } from "../downstream/client.ts";
import { malformedLine, passthroughLine } from "../passthrough/connection-line.ts";
import type { EndpointNews, PassedThrough, RequestObserver } from "./observer.ts";
import { endpointIdentity } from "../upstream/endpoint-identity.ts";

export interface RequestTelemetryOptions extends RequestReporterOptions {
  readonly postNews: (news: EndpointNews) => void;
}

export class RequestTelemetry implements RequestObserver {
  readonly #options: RequestTelemetryOptions;
  readonly #reporter: RequestReporter;
  /** Of connections that are no HTTP. */
  readonly #connections = new ConnectionMetrics();
  readonly #form: "text" | "json";
  /** Where no service is known. */
  readonly #unsaid: ServiceTelemetry;

  constructor(options: RequestTelemetryOptions) {
    this.#options = options;
    this.#reporter = new RequestReporter(options);
    this.#form = options.role.accessLog === "json" ? "json" : "text";
    this.#unsaid = this.#reporter.telemetryOf(mergeTelemetry([]));
  }

  get upstream(): UpstreamMetrics {
    return this.#reporter.upstream;
  }

  endpointNews(news: EndpointNews): void {
    this.#options.postNews(news);
  }

  telemetryOf(effective: EffectiveTelemetry): ServiceTelemetry {
    return this.#reporter.telemetryOf(effective);
  }

  trace(fields: HttpFields, telemetry: ServiceTelemetry): RequestTrace | null {
    return this.#reporter.trace(fields, telemetry);
  }

  requestId(fields: HttpFields): string {
    return this.#reporter.requestId(fields);
  }

  ended(request: RequestRecord): void {
    this.#reporter.finished(request);
  }

  passing(client: Client, endpoint: Workload): ConnectionCounters {
    const counters = this.#connections.labelSet(labelsOf(client, endpoint));
    counters.opened++;
    counters.open++;
    return counters;
  }

  passedThrough(connection: PassedThrough): void {
    if (connection.refused !== null) this.#connections.labelSet(labelsOf(connection.client, null)).failed[FLAG_INDEX[connection.refused === "denied" ? "DENY" : "CONNECT"]]!++;
    if (this.#wantsLine(connection.client, connection.error !== null)) this.#reporter.line(passthroughLine(connection, this.#form, this.#options.clock.wallMs()));
  }

  malformed(client: Client, code: string, message: string): void {
    this.#reporter.malformed(code);
    if (this.#wantsLine(client, true)) this.#reporter.line(malformedLine(client, code, message, this.#form, this.#options.clock.wallMs()));
  }

  /** Ten times a second or so. */
  flush(): void {
    this.#reporter.flush();
  }

  tick(nowMs: number): void {
    this.#reporter.tick(nowMs);
    this.#connections.tick(nowMs);
  }

  snapshot(clusters: Iterable<ClusterState>): MetricsSnapshot {
    this.#reporter.upstream.observe(clusters);
    const { connectionKeys, connectionValues } = this.#connections.snapshot();
    return { ...this.#reporter.snapshot(), connectionKeys, connectionValues };
  }

  /** Conditions of Telemetry resources speak of answers, of which there is none: errors are told, others by the role's share. */
  #wantsLine({ view }: Client, failed: boolean): boolean {
    const { log } = view?.telemetry ?? this.#unsaid;
    if (log === null || !log.sinks.some(({ kind }) => kind === "standardOutput")) return false;
    return failed || log.cleanSample >= 1 || this.#options.random.next() < log.cleanSample;
  }
}

function labelsOf({ workload, source, mutualTls, view }: Client, endpoint: Workload | null): ConnectionLabels {
  return {
    reporter: "waypoint", source: workload, destination: endpoint, service: view?.service ?? null, sourceIdentity: source.identity, destinationIdentity: endpointIdentity(endpoint), mutualTls,
  };
}
