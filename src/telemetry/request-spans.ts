// The spans of a request: one for the request itself, one for each attempt. Attributes are OpenTelemetry's where it has names, Istio's
// where its dashboards look, and `weft.*` for what a sampler at the tail wants to know: route, rule, retries, fault, policy, reason, flags.

import { formatProvenance } from "../core/fault.ts";
import { formatSocketAddress } from "../core/ip.ts";
import type { Workload } from "../mesh/records.ts";
import type { Attribute, LogRecord, SpanRecord } from "./otlp-records.ts";
import { answerDetails, authorityOf, elapsed, fieldShown, formatAttempt, formatFault, isError, type LogOptions, targetOf } from "./request-facts.ts";
import type { FailedAttempt, RequestRecord } from "./request-record.ts";
import type { RequestTrace } from "./request-trace.ts";
import { TAG_CHARS_MAX, type TracingPlan } from "./service-telemetry.ts";

/** Anything from outside is cut at this. */
const ATTRIBUTE_CHARS_MAX = 1024;
/** OpenTelemetry's list; others read `_OTHER`, so that nobody names spans for us. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"]);
/** gRPC statuses that are a server's own failure (OpenTelemetry, "gRPC"): UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. */
const GRPC_SERVER_ERRORS = new Set([2, 4, 12, 13, 14, 15]);
const SERVER_ERROR_STATUS = 500;
const CLIENT_ERROR_STATUS = 400;

/** How many spans the request has. */
export function spanCount(r: RequestRecord): number {
  return 1 + r.failedAttempts.length + (hasAnsweredAttempt(r) ? 1 : 0);
}

/** Of a request whose trace is sampled. */
export function spansOf(r: RequestRecord, trace: RequestTrace, plan: TracingPlan, endedWallMs: number, options: LogOptions): SpanRecord[] {
  const wall = (monotonicMs: number): number => endedWallMs - (r.endedMs - monotonicMs);
  const spans: SpanRecord[] = [serverSpan(r, trace, plan, wall, options)];
  for (const attempt of r.failedAttempts) if (attempt.spanId !== "") spans.push(failedSpan(r, attempt, trace, wall));
  if (hasAnsweredAttempt(r)) spans.push(answeredSpan(r, trace, wall));
  return spans;
}

/** The last attempt is described by the record itself, unless it failed too. */
function hasAnsweredAttempt(r: RequestRecord): boolean {
  return r.attempts > r.failedAttempts.length && r.trace?.attemptSpanId !== "";
}

function serverSpan(r: RequestRecord, trace: RequestTrace, plan: TracingPlan, wall: (ms: number) => number, options: LogOptions): SpanRecord {
  const { service } = r;
  const attributes: Attribute[] = [
    ...methodOf(r), ["url.scheme", r.scheme], ["url.path", cut(r.path)], ["network.protocol.name", "http"], ["network.protocol.version", r.version.slice("HTTP/".length)],
    ["client.address", r.sourceAddress.ip], ["client.port", r.sourceAddress.port], ["http.request.body.size", r.requestBytes], ["http.response.body.size", r.responseBytes],
    ["guid:x-request-id", r.requestId], ["component", "proxy"], ["response_flags", r.flags], ["weft.retries", Math.max(0, r.attempts - 1)],
  ];
  const add = (name: string, value: string | number | null | undefined): void => {
    if (value !== null && value !== undefined && value !== "") attributes.push([name, typeof value === "string" ? cut(value) : value]);
  };
  add("server.address", r.host);
  add("server.port", r.authorityPort);
  if (r.query !== "" && options.query === "full") add("url.query", r.query.slice(1));
  add("user_agent.original", r.requestFields.value("user-agent"));
  if (r.status > 0) add("http.response.status_code", r.status);
  if (r.isGrpc) add("rpc.system", "grpc");
  add("rpc.grpc.status_code", r.grpcStatus);
  add("weft.grpc_message", r.grpcMessage);
  add("destination_service", service?.hostname);
  endAttributes("source", r.source, r.sourceIdentity, attributes);
  endAttributes("destination", r.endpoint, r.endpointIdentity, attributes);
  add("upstream_cluster", r.cluster);
  add("weft.route", r.routeId);
  add("weft.rule_name", r.ruleName);
  add("weft.rule", r.provenance === null ? null : formatProvenance(r.provenance));
  add("weft.reason", r.code);
  add("weft.detail", r.detail);
  add("weft.first_byte_ms", elapsed(r.startedMs, r.answeredMs));
  if (r.injected.length > 0) attributes.push(["weft.fault", r.injected.map(formatFault)]);
  if (r.failedAttempts.length > 0) attributes.push(["weft.tried", r.failedAttempts.map((attempt) => cut(formatAttempt(attempt)))]);
  for (const tag of plan.fixedTags) attributes.push(tag);
  for (const { name, field, fallback } of plan.headerTags) add(name, (fieldShown(field, r.requestFields.value(field), options) ?? fallback)?.slice(0, TAG_CHARS_MAX));
  return {
    traceId: trace.traceId, spanId: trace.spanId, parentSpanId: trace.parentSpanId, tracestate: trace.tracestate, kind: "server", name: nameOf(r),
    startedWallMs: wall(r.startedMs), endedWallMs: wall(r.endedMs), attributes, error: serverError(r),
  };
}

function answeredSpan(r: RequestRecord, trace: RequestTrace, wall: (ms: number) => number): SpanRecord {
  const attributes = attemptAttributes(r, r.upstreamAddress, r.endpoint, r.attempts);
  if (r.answeredMs > 0) attributes.push(["http.response.status_code", r.status]);
  if (r.grpcStatus !== null) attributes.push(["rpc.grpc.status_code", r.grpcStatus]);
  const failed = r.status === 0 || r.status >= CLIENT_ERROR_STATUS || r.code !== null || r.grpcStatus !== null && r.grpcStatus !== 0;
  return {
    traceId: trace.traceId, spanId: trace.attemptSpanId, parentSpanId: trace.spanId, tracestate: trace.tracestate, kind: "client", name: nameOf(r),
    startedWallMs: wall(r.attemptStartedMs), endedWallMs: wall(r.endedMs), attributes, error: failed ? cut(r.detail) || answerDetails(r) : null,
  };
}

function failedSpan(r: RequestRecord, attempt: FailedAttempt, trace: RequestTrace, wall: (ms: number) => number): SpanRecord {
  const attributes = attemptAttributes(r, attempt.address, attempt.endpoint, r.failedAttempts.indexOf(attempt) + 1);
  if (attempt.status > 0) attributes.push(["http.response.status_code", attempt.status]);
  if (attempt.grpcStatus !== null) attributes.push(["rpc.grpc.status_code", attempt.grpcStatus]);
  if (attempt.reason !== null) attributes.push(["weft.reason", attempt.reason]);
  const wasBeaten = attempt.reason === null && attempt.status === 0;
  if (wasBeaten) attributes.push(["weft.given_up", true]);
  return {
    traceId: trace.traceId, spanId: attempt.spanId, parentSpanId: trace.spanId, tracestate: trace.tracestate, kind: "client", name: nameOf(r),
    startedWallMs: wall(attempt.startedMs), endedWallMs: wall(attempt.endedMs), attributes, error: wasBeaten ? null : cut(attempt.message) || attempt.reason || "not taken by the retry policy",
  };
}

function attemptAttributes(r: RequestRecord, address: string | null, endpoint: Workload | null, attempt: number): Attribute[] {
  const attributes: Attribute[] = [...methodOf(r), ["weft.attempt", attempt]];
  if (attempt > 1) attributes.push(["http.request.resend_count", attempt - 1]);
  if (address !== null) attributes.push(["upstream_address", address]);
  if (r.cluster !== null) attributes.push(["upstream_cluster", r.cluster]);
  if (r.upstreamVersion !== null) attributes.push(["network.protocol.version", r.upstreamVersion.slice("HTTP/".length)]);
  endAttributes("destination", endpoint, null, attributes);
  return attributes;
}

function endAttributes(side: "source" | "destination", workload: Workload | null, identity: string | null, into: Attribute[]): void {
  if (workload !== null) into.push([`${side}_workload`, workload.workloadName], [`${side}_workload_namespace`, workload.namespace], [`${side}_canonical_service`, workload.canonicalName]);
  if (identity !== null) into.push([`${side}_principal`, identity]);
}

function methodOf(r: RequestRecord): Attribute[] {
  return METHODS.has(r.method) ? [["http.request.method", r.method]] : [["http.request.method", "_OTHER"], ["http.request.method_original", cut(r.method)]];
}

/** Few of them: a service and a method, not whatever path a client thinks of. */
function nameOf(r: RequestRecord): string {
  const method = METHODS.has(r.method) ? r.method : "HTTP";
  return r.service === null ? method : `${method} ${r.service.hostname}`;
}

function serverError(r: RequestRecord): string | null {
  const failed = r.status === 0 || r.status >= SERVER_ERROR_STATUS || r.grpcStatus !== null && GRPC_SERVER_ERRORS.has(r.grpcStatus);
  return failed ? cut(r.detail) || answerDetails(r) : null;
}

function cut(text: string): string {
  return text.length > ATTRIBUTE_CHARS_MAX ? text.slice(0, ATTRIBUTE_CHARS_MAX) : text;
}

/** The request as a log record: the short line as its body, the facts as attributes. */
export function logRecordOf(r: RequestRecord, endedWallMs: number, options: LogOptions): LogRecord {
  const attributes: Attribute[] = [
    ["http.request.method", cut(r.method)], ["url.path", cut(r.path)], ["http.response.status_code", r.status], ["response_flags", r.flags], ["response_code_details", answerDetails(r)],
    ["bytes_received", r.requestBytes], ["bytes_sent", r.responseBytes], ["duration", Math.round(r.endedMs - r.startedMs)], ["request_id", r.requestId],
    ["downstream_remote_address", formatSocketAddress(r.sourceAddress)], ["weft.attempts", r.attempts],
  ];
  const add = (name: string, value: string | number | null | undefined): void => {
    if (value !== null && value !== undefined && value !== "") attributes.push([name, typeof value === "string" ? cut(value) : value]);
  };
  add("authority", authorityOf(r));
  add("user_agent.original", r.requestFields.value("user-agent"));
  add("upstream_host", r.upstreamAddress);
  add("upstream_cluster", r.cluster);
  add("upstream_service_time", elapsed(r.attemptStartedMs, r.answeredMs));
  add("destination_service", r.service?.hostname);
  endAttributes("source", r.source, r.sourceIdentity, attributes);
  endAttributes("destination", r.endpoint, r.endpointIdentity, attributes);
  add("rpc.grpc.status_code", r.grpcStatus);
  add("weft.reason", r.code);
  add("weft.rule", r.provenance === null ? null : formatProvenance(r.provenance));
  add("weft.detail", r.detail);
  if (r.injected.length > 0) attributes.push(["weft.fault", r.injected.map(formatFault)]);
  if (r.failedAttempts.length > 0) attributes.push(["weft.tried", r.failedAttempts.map((attempt) => cut(formatAttempt(attempt)))]);
  return {
    wallMs: endedWallMs, severity: isError(r) ? "error" : "info", body: cut(`${r.method} ${targetOf(r, options)} ${r.version} ${r.status}`), attributes,
    traceId: r.trace?.traceId ?? null, spanId: r.trace === null || r.trace.spanId === "" ? null : r.trace.spanId,
  };
}
