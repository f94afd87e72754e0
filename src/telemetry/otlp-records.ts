// Spans and log records as plain data: made on a data thread, carried to the main one, encoded there for a collector.

import type { OtlpCollector } from "../mesh/l7/telemetry.ts";

export type AttributeValue = string | number | boolean | readonly string[];
export type Attribute = readonly [name: string, value: AttributeValue];

export interface SpanRecord {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits. */
  readonly spanId: string;
  readonly parentSpanId: string | null;
  readonly tracestate: string | null;
  readonly kind: "server" | "client";
  readonly name: string;
  /** Milliseconds since the Unix epoch, with a fraction. */
  readonly startedWallMs: number;
  readonly endedWallMs: number;
  readonly attributes: readonly Attribute[];
  /** What went wrong; null for nothing. */
  readonly error: string | null;
}

export interface LogRecord {
  readonly wallMs: number;
  readonly severity: "info" | "error";
  readonly body: string;
  readonly attributes: readonly Attribute[];
  readonly traceId: string | null;
  readonly spanId: string | null;
}

/** What crosses from a data thread, for one collector. */
export interface OtlpBatch {
  readonly collector: OtlpCollector;
  readonly spans: readonly SpanRecord[];
  readonly logs: readonly LogRecord[];
}
