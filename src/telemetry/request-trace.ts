// Which trace a request belongs to, and whether its spans are reported: read from W3C trace context, else from B3; decided by who came
// before, else by rate; passed on in every form in which it came. Pure: ids come from an IdSource.
//
// A trace is begun only where tracing is set up. An unsampled context that nobody asked for would tell every application behind us,
// whose samplers follow their parents, to sample nothing.

import type { HttpFields } from "../wire/http/fields.ts";
import { B3_FIELDS, type B3Context, type B3Sampling, encodeB3Multi, encodeB3Single, fullTraceId, readB3 } from "../wire/trace/b3.ts";
import { fractionOf, type IdSource, isRequestId } from "../wire/trace/ids.ts";
import { decodeTraceparent, encodeTraceparent, type Traceparent } from "../wire/trace/traceparent.ts";
import { readTracestate } from "../wire/trace/tracestate.ts";

export interface TraceSettings {
  /** Share of the traces begun here that are reported, 0 to 1. Traces that others began keep what was decided. */
  readonly sampling: number;
}

export const REQUEST_ID_FIELD = "x-request-id";

/** The client's id when it is one visible word of sane length, else a new one, which takes its place among the fields. */
export function requestIdOf(fields: HttpFields, newRequestId: () => string): string {
  const given = fields.value(REQUEST_ID_FIELD);
  if (given !== undefined) {
    if (isRequestId(given)) return given;
    fields.remove(REQUEST_ID_FIELD);
  }
  const made = newRequestId();
  fields.appendOwn(REQUEST_ID_FIELD, made);
  return made;
}

export class RequestTrace {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** The caller's span; null when the trace begins here. */
  readonly parentSpanId: string | null;
  /** The request's own span: "" when it is not recorded. */
  readonly spanId: string;
  /** Recorded here, and to be recorded by whoever comes next. */
  readonly sampled: boolean;
  readonly tracestate: string | null;
  /** The span of the attempt begun last, and at the end of the one that answered: what its endpoint is told as its parent. */
  attemptSpanId = "";
  readonly #ids: IdSource;
  readonly #b3: B3Context | null;
  /** The trace began here, or what came has no decision yet: even an unsampled context has to be written. */
  readonly #mustWrite: boolean;

  constructor(fields: {
    readonly traceId: string; readonly parentSpanId: string | null; readonly spanId: string; readonly sampled: boolean; readonly tracestate: string | null;
    readonly b3: B3Context | null; readonly mustWrite: boolean;
  }, ids: IdSource) {
    this.#ids = ids;
    this.traceId = fields.traceId;
    this.parentSpanId = fields.parentSpanId;
    this.spanId = fields.spanId;
    this.sampled = fields.sampled;
    this.tracestate = fields.tracestate;
    this.#b3 = fields.b3;
    this.#mustWrite = fields.mustWrite;
  }

  /** Of the span of another attempt, which `writeAttempt` gives to its endpoint; "" where nothing is to be written. */
  attemptId(): string {
    // What came unsampled goes on untouched. Unrecorded spans have no ids of their own: one suffices to carry the decision.
    if (!this.sampled && !this.#mustWrite) return "";
    if (this.sampled || this.attemptSpanId === "") this.attemptSpanId = this.#ids.spanId();
    return this.attemptSpanId;
  }

  /** The context for the endpoint of an attempt. @param spanId from `attemptId`. */
  writeAttempt(fields: HttpFields, spanId: string): void {
    if (spanId !== "") this.#write(fields, spanId);
  }

  /** The context for a copy of the request, of which nothing is told: whoever gets it is a child of the request itself. */
  writeCopy(fields: HttpFields): void {
    if (this.sampled) this.#write(fields, this.spanId);
    else if (this.#mustWrite) this.#write(fields, this.#ids.spanId());
  }

  /** See `traceOfConnection`. */
  ofConnection(spanId: string): string {
    return encodeTraceparent({ traceId: this.traceId, parentId: spanId || this.parentSpanId || this.#ids.spanId(), sampled: this.sampled });
  }

  #write(fields: HttpFields, spanId: string): void {
    fields.remove("traceparent");
    fields.appendOwn("traceparent", encodeTraceparent({ traceId: this.traceId, parentId: spanId, sampled: this.sampled }));
    if (this.tracestate === null) fields.remove("tracestate");
    else fields.set("tracestate", this.tracestate);
    if (this.#b3 !== null) this.#writeB3(fields, this.#b3, spanId);
  }

  #writeB3(fields: HttpFields, b3: B3Context, spanId: string): void {
    const sampling: B3Sampling = !this.sampled ? "deny" : b3.sampling === "debug" ? "debug" : "accept";
    const parentSpanId = this.spanId === "" ? this.parentSpanId : this.spanId;
    const span = { traceId: b3.ids?.traceId ?? this.traceId, spanId, parentSpanId, sampling };
    for (const name of B3_FIELDS) fields.remove(name);
    if (b3.form === "single") {
      fields.set("b3", encodeB3Single(span));
      return;
    }
    const list = encodeB3Multi(span);
    for (let i = 0; i < list.length; i += 2) fields.set(list[i]!, list[i + 1]!);
  }
}

/**
 * `traceparent` for the tunnel in which a connection is made for an attempt of a request, so that the lines of all proxies on the way have one
 * id: the request's own trace, else the one of the tunnel that the client came through. Null without both.
 */
export function traceOfConnection(trace: RequestTrace | null, spanId: string, client: Traceparent | null): string | null {
  return trace !== null ? trace.ofConnection(spanId) : client === null ? null : encodeTraceparent(client);
}

/**
 * The trace of a request, from its head; changes nothing. Null: it is part of none, and none begins here.
 * @param settings null where spans are not reported: a context that came is known to the log and passed on untouched.
 */
export function readTrace(fields: HttpFields, settings: TraceSettings | null, ids: IdSource): RequestTrace | null {
  const traceparent = fields.value("traceparent");
  const w3c = traceparent === undefined ? null : decodeTraceparent(traceparent);
  const b3 = readB3(fields);
  if (w3c !== null) return continueW3c(fields, w3c, b3, settings, ids);
  if (b3 !== null && b3.ids !== null) return continueB3(b3, settings, ids);
  return settings === null ? null : begin(b3, settings, ids);
}

function continueW3c(fields: HttpFields, w3c: Traceparent, b3: B3Context | null, settings: TraceSettings | null, ids: IdSource): RequestTrace {
  const sampled = w3c.sampled && settings !== null;
  // B3 headers that speak of another trace are somebody else's: they go on as they came.
  const sameTrace = b3 !== null && (b3.ids === null || fullTraceId(b3.ids.traceId) === w3c.traceId);
  return new RequestTrace({
    traceId: w3c.traceId, parentSpanId: w3c.parentId, spanId: sampled ? ids.spanId() : "", sampled, tracestate: sampled ? readTracestate(fields.values("tracestate")) : null,
    b3: sampled && sameTrace ? b3 : null, mustWrite: false,
  }, ids);
}

function continueB3(b3: B3Context, settings: TraceSettings | null, ids: IdSource): RequestTrace {
  const traceId = fullTraceId(b3.ids!.traceId);
  const sampled = settings !== null && decide(b3.sampling, traceId, settings);
  return new RequestTrace({
    traceId, parentSpanId: b3.ids!.spanId, spanId: sampled ? ids.spanId() : "", sampled, tracestate: null, b3, mustWrite: settings !== null && b3.sampling === "defer",
  }, ids);
}

function begin(b3: B3Context | null, settings: TraceSettings, ids: IdSource): RequestTrace {
  const traceId = ids.traceId();
  const sampled = decide(b3?.sampling ?? "defer", traceId, settings);
  return new RequestTrace({ traceId, parentSpanId: null, spanId: sampled ? ids.spanId() : "", sampled, tracestate: null, b3, mustWrite: true }, ids);
}

function decide(sampling: B3Sampling, traceId: string, settings: TraceSettings): boolean {
  switch (sampling) {
    case "accept":
    case "debug": return true;
    case "deny": return false;
    case "defer": return fractionOf(traceId) < settings.sampling;
    default: return sampling satisfies never;
  }
}
