// Tells of everything that goes through one data thread: requests by the reporter, connections that were none with lines of their own.

import { mergeTelemetry } from "../mesh/l7/merge-telemetry.ts";
import { identityOf } from "../policy/waypoints.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { keepFields, type RequestRecord } from "../telemetry/request-record.ts";
import { RequestReporter, type RequestReporterOptions } from "../telemetry/request-reporter.ts";
import type { ServiceTelemetry } from "../telemetry/service-telemetry.ts";
import type { ClusterState, UpstreamMetrics } from "../telemetry/upstream-metrics.ts";
import { ListFields } from "../wire/http/fields.ts";
import type { Client } from "./client.ts";
import { malformedLine, passthroughLine } from "./connection-line.ts";
import type { EndedRequest, PassedThrough, RequestObserver } from "./observer.ts";

const NO_FIELDS = keepFields(new ListFields([]), []);

export type RequestTelemetryOptions = RequestReporterOptions;

export class RequestTelemetry implements RequestObserver {
  readonly #options: RequestTelemetryOptions;
  readonly #reporter: RequestReporter;
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

  ended(request: EndedRequest): void {
    this.#reporter.finished(this.#recordOf(request));
  }

  passedThrough(connection: PassedThrough): void {
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
  }

  snapshot(clusters: Iterable<ClusterState>): MetricsSnapshot {
    this.#reporter.upstream.observe(clusters);
    return this.#reporter.snapshot();
  }

  /** Conditions of Telemetry resources speak of answers, of which there is none: errors are told, others by the role's share. */
  #wantsLine({ view }: Client, failed: boolean): boolean {
    const { log } = view === null ? this.#unsaid : this.#reporter.telemetryOf(view.telemetry);
    if (log === null || !log.sinks.some(({ kind }) => kind === "standardOutput")) return false;
    return failed || log.cleanSample >= 1 || this.#options.random.next() < log.cleanSample;
  }

  #recordOf(r: EndedRequest): RequestRecord {
    const { client, head, view, endpoint } = r;
    return {
      telemetry: view === null ? this.#unsaid : this.#reporter.telemetryOf(view.telemetry),
      source: client.workload, sourceDescription: null, sourceIdentity: client.source.identity, sourceAddress: client.address, mutualTls: client.mutualTls,
      service: view?.service ?? null, destinationAddress: { ip: client.facts.destinationIp, port: client.facts.destinationPort },
      version: r.version, scheme: head.scheme, method: head.method, host: head.host, authorityPort: head.authorityPort, path: head.path, pathReceived: head.pathReceived, query: head.query, isGrpc: r.isGrpc,
      requestFields: NO_FIELDS, responseFields: null, requestId: "", trace: null,
      routeId: r.routeName, ruleName: null, provenance: r.provenance, injected: r.injected,
      status: r.status, grpcStatus: r.grpcStatus, grpcMessage: "", code: r.code, flags: r.flags, detail: r.detail,
      attempts: r.attempts, failedAttempts: [], cluster: r.cluster, endpoint, endpointIdentity: endpoint !== null && endpoint.tunnelProtocol === "HBONE" ? identityOf(endpoint) : null,
      upstreamAddress: r.upstreamAddress, upstreamVersion: r.upstreamVersion,
      startedMs: r.startedMs, attemptStartedMs: r.attemptStartedMs, answeredMs: r.answeredMs, endedMs: r.endedMs,
      requestBytes: r.requestBytes, responseBytes: r.responseBytes, requestMessages: 0, responseMessages: 0,
    };
  }
}
