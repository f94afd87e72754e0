// Spans and log records as OTLP messages. Brings the protobuf library into memory: import it only where something is exported.

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  type ExportLogsServiceRequest, ExportLogsServiceRequestSchema, ExportLogsServiceResponseSchema,
} from "../wire/protobuf/opentelemetry/proto/collector/logs/v1/logs_service_pb.ts";
import {
  type ExportTraceServiceRequest, ExportTraceServiceRequestSchema, ExportTraceServiceResponseSchema,
} from "../wire/protobuf/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts";
import type { AnyValueSchema, KeyValueSchema } from "../wire/protobuf/opentelemetry/proto/common/v1/common_pb.ts";
import type { LogRecordSchema } from "../wire/protobuf/opentelemetry/proto/logs/v1/logs_pb.ts";
import type { SpanSchema } from "../wire/protobuf/opentelemetry/proto/trace/v1/trace_pb.ts";
import type { Attribute, AttributeValue, LogRecord, SpanRecord } from "./otlp-records.ts";

/** Who tells: the same for everything that a process exports. */
export interface OtlpResource {
  /** `service.name` and whatever else describes this process. */
  readonly attributes: readonly Attribute[];
  readonly scopeName: string;
  readonly scopeVersion: string;
}

/** What a collector refused of what it took otherwise. */
export interface PartialSuccess {
  readonly rejected: number;
  readonly message: string;
}

const SPAN_KIND = { server: 2, client: 3 } as const;
const STATUS_ERROR = 2;
const SEVERITY = { info: 9, error: 17 } as const;
const SAMPLED = 1;
const NOT_HEX = new Uint8Array(0);

export function traceRequest(resource: OtlpResource, spans: readonly SpanRecord[]): ExportTraceServiceRequest {
  return create(ExportTraceServiceRequestSchema, {
    resourceSpans: [{ resource: { attributes: resource.attributes.map(keyValue) }, scopeSpans: [{ scope: scopeOf(resource), spans: spans.map(spanMessage) }] }],
  });
}

export function logsRequest(resource: OtlpResource, logs: readonly LogRecord[]): ExportLogsServiceRequest {
  return create(ExportLogsServiceRequestSchema, {
    resourceLogs: [{ resource: { attributes: resource.attributes.map(keyValue) }, scopeLogs: [{ scope: scopeOf(resource), logRecords: logs.map(logMessage) }] }],
  });
}

export function encodeTraceRequest(request: ExportTraceServiceRequest): Uint8Array<ArrayBuffer> {
  return toBinary(ExportTraceServiceRequestSchema, request);
}

export function encodeLogsRequest(request: ExportLogsServiceRequest): Uint8Array<ArrayBuffer> {
  return toBinary(ExportLogsServiceRequestSchema, request);
}

/** Throws on what is no such message. */
export function decodeTraceResponse(bytes: Uint8Array): PartialSuccess {
  const { partialSuccess } = fromBinary(ExportTraceServiceResponseSchema, bytes);
  return { rejected: Number(partialSuccess?.rejectedSpans ?? 0n), message: partialSuccess?.errorMessage ?? "" };
}

/** Throws on what is no such message. */
export function decodeLogsResponse(bytes: Uint8Array): PartialSuccess {
  const { partialSuccess } = fromBinary(ExportLogsServiceResponseSchema, bytes);
  return { rejected: Number(partialSuccess?.rejectedLogRecords ?? 0n), message: partialSuccess?.errorMessage ?? "" };
}

const scopeOf = ({ scopeName, scopeVersion }: OtlpResource) => ({ name: scopeName, version: scopeVersion });

function spanMessage(span: SpanRecord): MessageInitShape<typeof SpanSchema> {
  return {
    traceId: hexBytes(span.traceId), spanId: hexBytes(span.spanId), parentSpanId: span.parentSpanId === null ? NOT_HEX : hexBytes(span.parentSpanId),
    traceState: span.tracestate ?? "", name: span.name, kind: SPAN_KIND[span.kind], startTimeUnixNano: nanoseconds(span.startedWallMs), endTimeUnixNano: nanoseconds(span.endedWallMs),
    attributes: span.attributes.map(keyValue), flags: SAMPLED, ...(span.error === null ? {} : { status: { code: STATUS_ERROR, message: span.error } }),
  };
}

function logMessage(log: LogRecord): MessageInitShape<typeof LogRecordSchema> {
  const time = nanoseconds(log.wallMs);
  return {
    timeUnixNano: time, observedTimeUnixNano: time, severityNumber: SEVERITY[log.severity], severityText: log.severity.toUpperCase(), body: anyValue(log.body),
    attributes: log.attributes.map(keyValue), traceId: log.traceId === null ? NOT_HEX : hexBytes(log.traceId), spanId: log.spanId === null ? NOT_HEX : hexBytes(log.spanId),
    flags: log.spanId === null ? 0 : SAMPLED,
  };
}

function keyValue([key, value]: Attribute): MessageInitShape<typeof KeyValueSchema> {
  return { key, value: anyValue(value) };
}

function anyValue(value: AttributeValue): MessageInitShape<typeof AnyValueSchema> {
  switch (typeof value) {
    case "string": return { value: { case: "stringValue", value: value.toWellFormed() } };
    case "boolean": return { value: { case: "boolValue", value } };
    case "number": return { value: Number.isSafeInteger(value) ? { case: "intValue", value: BigInt(value) } : { case: "doubleValue", value } };
    default: return { value: { case: "arrayValue", value: { values: value.map(anyValue) } } };
  }
}

/** To a microsecond: what clocks give here is no finer. */
function nanoseconds(wallMs: number): bigint {
  return BigInt(Math.round(wallMs * 1000)) * 1000n;
}

function hexBytes(hex: string): Uint8Array {
  return Uint8Array.fromHex(hex);
}
