// Counts requests by Istio's names and labels; the lines of the access log are another observer's.

import type { Clock, Random } from "../core/ports.ts";
import { mergeTelemetry } from "../mesh/l7/merge-telemetry.ts";
import { identityOf } from "../policy/waypoints.ts";
import { keepFields, type RequestRecord } from "../telemetry/request-record.ts";
import { RequestReporter } from "../telemetry/request-reporter.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { ListFields } from "../wire/http/fields.ts";
import type { Client } from "./client.ts";
import type { EndedRequest, PassedThrough, RequestObserver } from "./observer.ts";

const NO_FIELDS = keepFields(new ListFields([]), []);
const UNSAID = mergeTelemetry([]);

export class RequestMetricsObserver implements RequestObserver {
  readonly #reporter: RequestReporter;
  readonly #next: RequestObserver;

  /** @param next is told everything too. */
  constructor(world: { readonly clock: Clock; readonly random: Random }, next: RequestObserver) {
    this.#next = next;
    this.#reporter = new RequestReporter({
      role: { accessLog: "off", accessLogSample: 0, logOptions: { query: "redacted" }, collectors: [], sampling: 0, environment: () => undefined },
      ...world, fillRandom: (bytes) => void crypto.getRandomValues(bytes), postLines: () => {}, postOtlp: () => {}, logCredit: null, otlpCredit: null,
    });
  }

  ended(request: EndedRequest): void {
    this.#reporter.finished(this.#recordOf(request));
    this.#next.ended(request);
  }

  malformed(client: Client, code: string, message: string): void {
    this.#reporter.malformed(code);
    this.#next.malformed(client, code, message);
  }

  passedThrough(connection: PassedThrough): void {
    this.#next.passedThrough(connection);
  }

  tick(nowMs: number): void {
    this.#reporter.tick(nowMs);
  }

  snapshot(): MetricsSnapshot {
    return this.#reporter.snapshot();
  }

  #recordOf(r: EndedRequest): RequestRecord {
    const { client, head, view, endpoint } = r;
    const { metrics } = this.#reporter.telemetryOf(view?.telemetry ?? UNSAID);
    return {
      // Counted only: lines and spans are not made here.
      telemetry: { tracing: null, log: null, metrics, requestFields: [], responseFields: [], problems: [] },
      source: client.workload, sourceDescription: null, sourceIdentity: client.source.identity, sourceAddress: client.address, mutualTls: client.mutualTls,
      service: view?.service ?? null, destinationAddress: { ip: client.facts.destinationIp, port: client.facts.destinationPort },
      version: r.version, scheme: head.scheme, method: head.method, host: head.host, authorityPort: head.authorityPort, path: head.path, pathReceived: null, query: head.query, isGrpc: r.isGrpc,
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
