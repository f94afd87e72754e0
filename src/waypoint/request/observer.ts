// What the HTTP plane tells of requests, and what it has to know for that while they go on: which trace they belong to, what is to be kept
// of their heads. Records are read while they are told, not kept.

import type { EffectiveTelemetry } from "../../mesh/l7/merge-telemetry.ts";
import type { Workload } from "../../mesh/records.ts";
import type { ConnectionCounters } from "../../telemetry/connection-metrics.ts";
import type { RequestRecord } from "../../telemetry/request-record.ts";
import type { RequestTrace } from "../../telemetry/request-trace.ts";
import type { ServiceTelemetry } from "../../telemetry/service-telemetry.ts";
import type { UpstreamMetrics } from "../../telemetry/upstream-metrics.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import type { Client } from "../downstream/client.ts";

/** A connection that was no HTTP. */
export interface PassedThrough {
  readonly client: Client;
  readonly startedMs: number;
  readonly endedMs: number;
  readonly upstreamAddress: string | null;
  readonly requestBytes: number;
  readonly responseBytes: number;
  /** Null for a usual end. */
  readonly error: string | null;
  /** Why it never came to a server: it was not allowed, or there was no way; null when one was reached. */
  readonly refused: "denied" | "unreachable" | null;
}

export interface EndpointNews {
  readonly code: "endpoint_ejected" | "endpoint_restored" | "endpoint_unhealthy" | "endpoint_healthy";
  readonly message: string;
}

export interface RequestObserver {
  /** What happens to endpoints, connections to them, and limits. */
  readonly upstream: Pick<UpstreamMetrics, "connection" | "transition" | "healthCheck" | "rateLimit" | "authorizer" | "serviceCall">;
  /** Something about an endpoint that an operator wants to read; in full sentences. */
  endpointNews(news: EndpointNews): void;
  /** The same object as long as the configuration gives the same. */
  telemetryOf(effective: EffectiveTelemetry): ServiceTelemetry;
  /** Of a request, from its head as it came; null when it is part of none, or nobody would be told. */
  trace(fields: HttpFields, telemetry: ServiceTelemetry): RequestTrace | null;
  /** The id that the client gave the request, or one that is made for it. */
  requestId(fields: HttpFields): string;
  ended(request: RequestRecord): void;
  /** A server is reached: what the connection adds to. `passedThrough` follows at its end. */
  passing(client: Client, endpoint: Workload): ConnectionCounters;
  passedThrough(connection: PassedThrough): void;
  /** Something that never became a request; answered or dropped by the engine. */
  malformed(client: Client, code: string, message: string): void;
}
