// B3, in its one header (`b3`) and in several (`x-b3-*`): what Zipkin's libraries send. Read strictly, written in the form that it came
// in. Trace ids of 64 bits are kept as they are; `fullTraceId` gives the 128 bits that everyone else speaks of.

/** `defer`: whoever comes next decides. `debug`: sampled, and asked for by a person. */
export type B3Sampling = "deny" | "accept" | "debug" | "defer";

export interface B3Ids {
  /** 16 or 32 lower-case hexadecimal digits, not all zero. */
  readonly traceId: string;
  /** 16 lower-case hexadecimal digits, not all zero. */
  readonly spanId: string;
}

export interface B3Context {
  readonly form: "single" | "multi";
  /** Null: only the decision about sampling was sent. */
  readonly ids: B3Ids | null;
  readonly sampling: B3Sampling;
}

/** How fields are asked for; all values of a name as one. */
export interface FieldSource {
  value(name: string): string | undefined;
}

export const B3_FIELDS = ["b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"] as const;

const SINGLE = /^([0-9a-f]{16}(?:[0-9a-f]{16})?)-([0-9a-f]{16})(?:-([01d])(?:-([0-9a-f]{16}))?)?$/;
const TRACE_ID = /^[0-9a-f]{16}(?:[0-9a-f]{16})?$/;
const SPAN_ID = /^[0-9a-f]{16}$/;
const ZERO = /^0+$/;

/** Null when there is none, or it is malformed in any part. The single header decides when both forms are there. */
export function readB3(fields: FieldSource): B3Context | null {
  const single = fields.value("b3");
  return single === undefined ? readMulti(fields) : readSingle(single);
}

function readSingle(text: string): B3Context | null {
  if (text === "0" || text === "1" || text === "d") return { form: "single", ids: null, sampling: samplingOf(text) };
  const match = SINGLE.exec(text);
  if (match === null) return null;
  return withIds("single", match[1]!, match[2]!, samplingOf(match[3]));
}

function readMulti(fields: FieldSource): B3Context | null {
  const traceId = fields.value("x-b3-traceid");
  const spanId = fields.value("x-b3-spanid");
  const sampled = fields.value("x-b3-sampled");
  const flags = fields.value("x-b3-flags");
  if (flags !== undefined && flags !== "0" && flags !== "1") return null;
  // `true` and `false` are what early libraries sent.
  if (sampled !== undefined && !/^(?:0|1|true|false)$/.test(sampled)) return null;
  const sampling: B3Sampling = flags === "1" ? "debug" : sampled === undefined ? "defer" : sampled === "1" || sampled === "true" ? "accept" : "deny";
  if (traceId === undefined && spanId === undefined) return sampling === "defer" ? null : { form: "multi", ids: null, sampling };
  if (traceId === undefined || spanId === undefined || !TRACE_ID.test(traceId) || !SPAN_ID.test(spanId)) return null;
  return withIds("multi", traceId, spanId, sampling);
}

function withIds(form: B3Context["form"], traceId: string, spanId: string, sampling: B3Sampling): B3Context | null {
  return ZERO.test(traceId) || ZERO.test(spanId) ? null : { form, ids: { traceId, spanId }, sampling };
}

function samplingOf(text: string | undefined): B3Sampling {
  switch (text) {
    case "0": return "deny";
    case "1": return "accept";
    case "d": return "debug";
    default: return "defer";
  }
}

/** 32 digits, as W3C and OTLP want them. */
export function fullTraceId(traceId: string): string {
  return traceId.length === 32 ? traceId : traceId.padStart(32, "0");
}

export interface B3Span {
  readonly traceId: string;
  readonly spanId: string;
  /** Null for the first span of a trace. */
  readonly parentSpanId: string | null;
  readonly sampling: B3Sampling;
}

export function encodeB3Single({ traceId, spanId, parentSpanId, sampling }: B3Span): string {
  const ids = `${traceId}-${spanId}`;
  if (sampling === "defer") return ids;
  const decided = `${ids}-${sampling === "debug" ? "d" : sampling === "accept" ? "1" : "0"}`;
  return parentSpanId === null ? decided : `${decided}-${parentSpanId}`;
}

/** name, value, … */
export function encodeB3Multi({ traceId, spanId, parentSpanId, sampling }: B3Span): string[] {
  const list = ["x-b3-traceid", traceId, "x-b3-spanid", spanId];
  if (parentSpanId !== null) list.push("x-b3-parentspanid", parentSpanId);
  if (sampling === "debug") list.push("x-b3-flags", "1");
  else if (sampling !== "defer") list.push("x-b3-sampled", sampling === "accept" ? "1" : "0");
  return list;
}
