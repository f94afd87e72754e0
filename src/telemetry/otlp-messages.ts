// Spans and log records as OTLP messages, written with the protobuf library's writer: making message objects first costs four times as
// much, and at a high share of traces this is what the main thread does most. Tests read it back with the generated messages.

import { create, fromBinary, type UnknownField } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  type ExportLogsServiceRequest, ExportLogsServiceRequestSchema, type ExportLogsServiceResponse, ExportLogsServiceResponseSchema,
} from "../wire/protobuf/opentelemetry/proto/collector/logs/v1/logs_service_pb.ts";
import {
  type ExportTraceServiceRequest, ExportTraceServiceRequestSchema, type ExportTraceServiceResponse, ExportTraceServiceResponseSchema,
} from "../wire/protobuf/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts";
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
/** `resource_spans` and `resource_logs`: the one field of either request. */
const RESOURCE_FIELD = 1;

// Field numbers are those of src/wire/protobuf/opentelemetry.

/** Of an ExportTraceServiceRequest. */
export function encodeTraceRequest(resource: OtlpResource, spans: readonly SpanRecord[]): Uint8Array<ArrayBuffer> {
  return new BinaryWriter().tag(RESOURCE_FIELD, WireType.LengthDelimited).bytes(resourceSpans(resource, spans)).finish();
}

/** Of an ExportLogsServiceRequest. */
export function encodeLogsRequest(resource: OtlpResource, logs: readonly LogRecord[]): Uint8Array<ArrayBuffer> {
  return new BinaryWriter().tag(RESOURCE_FIELD, WireType.LengthDelimited).bytes(resourceLogs(resource, logs)).finish();
}

/** For a client that wants a message: its one field is given in bytes, as one that nobody has looked into yet. */
export function traceRequest(resource: OtlpResource, spans: readonly SpanRecord[]): ExportTraceServiceRequest {
  const request = create(ExportTraceServiceRequestSchema);
  request.$unknown = [unread(resourceSpans(resource, spans))];
  return request;
}

export function logsRequest(resource: OtlpResource, logs: readonly LogRecord[]): ExportLogsServiceRequest {
  const request = create(ExportLogsServiceRequestSchema);
  request.$unknown = [unread(resourceLogs(resource, logs))];
  return request;
}

export function tracePartial({ partialSuccess }: ExportTraceServiceResponse): PartialSuccess {
  return { rejected: Number(partialSuccess?.rejectedSpans ?? 0n), message: partialSuccess?.errorMessage ?? "" };
}

export function logsPartial({ partialSuccess }: ExportLogsServiceResponse): PartialSuccess {
  return { rejected: Number(partialSuccess?.rejectedLogRecords ?? 0n), message: partialSuccess?.errorMessage ?? "" };
}

/** Throws on what is no such message. */
export function decodeTraceResponse(bytes: Uint8Array): PartialSuccess {
  return tracePartial(fromBinary(ExportTraceServiceResponseSchema, bytes));
}

/** Throws on what is no such message. */
export function decodeLogsResponse(bytes: Uint8Array): PartialSuccess {
  return logsPartial(fromBinary(ExportLogsServiceResponseSchema, bytes));
}

function unread(payload: Uint8Array): UnknownField {
  return { no: RESOURCE_FIELD, wireType: WireType.LengthDelimited, data: new BinaryWriter().bytes(payload).finish() };
}

function resourceSpans(resource: OtlpResource, spans: readonly SpanRecord[]): Uint8Array {
  return ofResource(resource, spans, writeSpan);
}

function resourceLogs(resource: OtlpResource, logs: readonly LogRecord[]): Uint8Array {
  return ofResource(resource, logs, writeLog);
}

/** The resource, and its one scope with the records. The same numbers for spans and for logs. */
function ofResource<R>({ attributes, scopeName, scopeVersion }: OtlpResource, records: readonly R[], write: (writer: BinaryWriter, record: R) => void): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).fork();
  for (const attribute of attributes) writeAttribute(writer, 1, attribute);
  writer.join();
  writer.tag(2, WireType.LengthDelimited).fork();
  writer.tag(1, WireType.LengthDelimited).fork();
  writer.tag(1, WireType.LengthDelimited).string(scopeName).tag(2, WireType.LengthDelimited).string(scopeVersion).join();
  for (const record of records) {
    writer.tag(2, WireType.LengthDelimited).fork();
    write(writer, record);
    writer.join();
  }
  return writer.join().finish();
}

function writeSpan(writer: BinaryWriter, span: SpanRecord): void {
  writer.tag(1, WireType.LengthDelimited).bytes(Uint8Array.fromHex(span.traceId)).tag(2, WireType.LengthDelimited).bytes(Uint8Array.fromHex(span.spanId));
  if (span.tracestate !== null) writer.tag(3, WireType.LengthDelimited).string(span.tracestate);
  if (span.parentSpanId !== null) writer.tag(4, WireType.LengthDelimited).bytes(Uint8Array.fromHex(span.parentSpanId));
  writer.tag(5, WireType.LengthDelimited).string(span.name.toWellFormed()).tag(6, WireType.Varint).uint32(SPAN_KIND[span.kind]);
  writer.tag(7, WireType.Bit64).fixed64(nanoseconds(span.startedWallMs)).tag(8, WireType.Bit64).fixed64(nanoseconds(span.endedWallMs));
  for (const attribute of span.attributes) writeAttribute(writer, 9, attribute);
  if (span.error !== null) {
    writer.tag(15, WireType.LengthDelimited).fork();
    writer.tag(2, WireType.LengthDelimited).string(span.error.toWellFormed()).tag(3, WireType.Varint).uint32(STATUS_ERROR).join();
  }
  writer.tag(16, WireType.Bit32).fixed32(SAMPLED);
}

function writeLog(writer: BinaryWriter, log: LogRecord): void {
  const time = nanoseconds(log.wallMs);
  writer.tag(1, WireType.Bit64).fixed64(time).tag(2, WireType.Varint).uint32(SEVERITY[log.severity]).tag(3, WireType.LengthDelimited).string(log.severity.toUpperCase());
  writer.tag(5, WireType.LengthDelimited).fork();
  writeValue(writer, log.body);
  writer.join();
  for (const attribute of log.attributes) writeAttribute(writer, 6, attribute);
  if (log.spanId !== null) writer.tag(8, WireType.Bit32).fixed32(SAMPLED);
  if (log.traceId !== null) writer.tag(9, WireType.LengthDelimited).bytes(Uint8Array.fromHex(log.traceId));
  if (log.spanId !== null) writer.tag(10, WireType.LengthDelimited).bytes(Uint8Array.fromHex(log.spanId));
  writer.tag(11, WireType.Bit64).fixed64(time);
}

function writeAttribute(writer: BinaryWriter, field: number, [key, value]: Attribute): void {
  writer.tag(field, WireType.LengthDelimited).fork();
  writer.tag(1, WireType.LengthDelimited).string(key.toWellFormed()).tag(2, WireType.LengthDelimited).fork();
  writeValue(writer, value);
  writer.join().join();
}

function writeValue(writer: BinaryWriter, value: AttributeValue): void {
  switch (typeof value) {
    case "string":
      writer.tag(1, WireType.LengthDelimited).string(value.toWellFormed());
      return;
    case "boolean":
      writer.tag(2, WireType.Varint).bool(value);
      return;
    case "number":
      if (Number.isSafeInteger(value)) writer.tag(3, WireType.Varint).int64(value);
      else writer.tag(4, WireType.Bit64).double(value);
      return;
    default:
      writer.tag(5, WireType.LengthDelimited).fork();
      for (const each of value) {
        writer.tag(1, WireType.LengthDelimited).fork();
        writeValue(writer, each);
        writer.join();
      }
      writer.join();
  }
}

/** To a microsecond: what clocks give here is no finer. */
function nanoseconds(wallMs: number): bigint {
  return BigInt(Math.round(wallMs * 1000)) * 1000n;
}
