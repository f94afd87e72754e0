// What is observed of requests: Telemetry resources, merged per workload (waypoint) at the border.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { AccessTarget } from "./access.ts";

/** Where spans or log lines are sent by OTLP. */
export interface OtlpCollector {
  readonly name: string;
  readonly protocol: "grpc" | "http";
  readonly service: NamespacedName;
  readonly port: number;
  /** HTTP only. */
  readonly path: string;
  readonly timeoutMs: number;
  readonly headers: readonly (readonly [name: string, value: string])[];
}

export type LogSink =
  /** Standard output; null: the form that the role is set to. */
  | { readonly kind: "standardOutput"; readonly format: LogFormat | null }
  | { readonly kind: "otlp"; readonly collector: OtlpCollector };

/** Either a line with %COMMANDS% as in Envoy, or fields of a JSON object, each such a line. */
export type LogFormat =
  | { readonly kind: "text"; readonly line: string }
  | { readonly kind: "json"; readonly fields: readonly (readonly [name: string, line: string])[] };

export interface TracingSettings {
  /** Spans are not reported; the context is passed on all the same. */
  readonly disabled: boolean;
  /** Null: inherited. */
  readonly collectors: readonly OtlpCollector[] | null;
  /** 0 to 1; null: inherited. */
  readonly sampling: number | null;
  readonly tags: readonly { readonly name: string; readonly value: { readonly kind: "literal" | "header" | "environment"; readonly text: string; readonly fallback: string | null } }[];
}

export interface AccessLogSettings {
  readonly disabled: boolean;
  /** Null: inherited. */
  readonly sinks: readonly LogSink[] | null;
  /** A line is written when every condition holds; empty for always. */
  readonly conditions: readonly AccessLogCondition[];
}

export type AccessLogCondition =
  | { readonly kind: "status"; readonly compare: ">=" | "<=" | "==" | "!=" | ">" | "<"; readonly value: number }
  | { readonly kind: "sample"; readonly fraction: number }
  | { readonly kind: "slowerThanMs"; readonly value: number }
  /** Any other expression: its steps in postfix order, over a stack. The last one leaves whether a line is written. */
  | { readonly kind: "expression"; readonly steps: readonly LogStep[] };

/** What expressions may ask of a request, by Envoy's names; times in milliseconds. `weft.reason` is our reason code. */
export const LOG_ATTRIBUTES = {
  "request.method": "text", "request.path": "text", "request.url_path": "text", "request.query": "text", "request.host": "text", "request.scheme": "text", "request.protocol": "text", "request.id": "text",
  "request.useragent": "text", "request.referer": "text", "request.size": "number", "request.duration": "time",
  "response.code": "number", "response.code_details": "text", "response.grpc_status": "number", "response.size": "number", "response.duration": "time", "response.total_duration": "time",
  "connection.mtls": "truth", "source.address": "text", "source.port": "number", "destination.address": "text", "destination.port": "number", "upstream.address": "text",
  "xds.route_name": "text", "xds.cluster_name": "text", "weft.reason": "text",
} as const;
export type LogAttribute = keyof typeof LOG_ATTRIBUTES;
export const isLogAttribute = (name: string): name is LogAttribute => Object.hasOwn(LOG_ATTRIBUTES, name);

export type LogStep =
  | { readonly kind: "literal"; readonly value: string | number | boolean }
  | { readonly kind: "attribute"; readonly name: LogAttribute }
  /** @property name in lower case. */
  | { readonly kind: "field"; readonly side: "request" | "response"; readonly name: string }
  /** A number from 0 to 1, another one each time. */
  | { readonly kind: "random" }
  | { readonly kind: "present" | "not" | "and" | "or" }
  | { readonly kind: "compare"; readonly compare: ">=" | "<=" | "==" | "!=" | ">" | "<" }
  | { readonly kind: "text"; readonly test: "startsWith" | "endsWith" | "contains" };

export interface MetricsOverride {
  /** Metric name, or null for all. */
  readonly metric: string | null;
  readonly disabled: boolean;
  readonly removeTags: readonly string[];
  /** Labels set to a fixed text. */
  readonly setTags: readonly (readonly [name: string, text: string])[];
}

export interface TelemetryPolicy {
  readonly name: string;
  readonly namespace: string;
  readonly targets: readonly AccessTarget[];
  readonly tracing: TracingSettings | null;
  readonly accessLog: AccessLogSettings | null;
  readonly metrics: readonly MetricsOverride[];
  readonly provenance: Provenance;
}
