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
  | { readonly kind: "slowerThanMs"; readonly value: number };

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
