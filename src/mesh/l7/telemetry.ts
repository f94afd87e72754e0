// What is observed of requests: Telemetry resources, merged per workload (waypoint) at the border.

import type { Provenance } from "../../core/fault.ts";
import type { AccessTarget } from "./access.ts";

export interface TracingSettings {
  readonly disabled: boolean;
  /** 0 to 1; null: inherited. */
  readonly sampling: number | null;
  readonly tags: readonly { readonly name: string; readonly value: { readonly kind: "literal" | "header" | "environment"; readonly text: string; readonly fallback: string | null } }[];
}

export interface AccessLogSettings {
  readonly disabled: boolean;
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
