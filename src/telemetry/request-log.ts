// One line per request in our own form: as text Envoy's line as Istio sets it, then what Envoy cannot say; as JSON the same under Istio's
// names. Made by hand: it is the most expensive thing that is told of a request.

import { formatProvenance, type Provenance } from "../core/fault.ts";
import { formatSocketAddress, type SocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Workload } from "../mesh/records.ts";
import type { PeerDescription } from "./connection-labels.ts";
import { escaped, quoteJson, quoteText, RepeatedText, timestamp } from "./log-text.ts";
import { answerDetails, authorityOf, durationOf, elapsed, fieldShown, formatAttempt, formatFault, isError, type LogOptions, targetOf } from "./request-facts.ts";
import type { RequestRecord } from "./request-record.ts";

export const DEFAULT_REQUEST_FIELDS: readonly string[] = ["user-agent", "x-forwarded-for"];
export const DEFAULT_RESPONSE_FIELDS: readonly string[] = [];

export function formatRequestText(r: RequestRecord, endedWallMs: number, options: LogOptions): string {
  let line = `[${timestamp(endedWallMs - (r.endedMs - r.startedMs))}] "${said.method.escaped(r.method)} ${said.target.escaped(targetOf(r, options))} ${r.version}" ${r.status} ${r.flags} ${answerDetails(r)} - "-"`;
  line += ` ${r.requestBytes} ${r.responseBytes} ${durationOf(r)} ${elapsed(r.attemptStartedMs, r.answeredMs) ?? "-"}`;
  line += ` "${said.forwardedFor.escaped(fieldOf(r, "x-forwarded-for", options))}" "${said.userAgent.escaped(fieldOf(r, "user-agent", options))}" "${escaped(r.requestId)}" "${said.authority.escaped(authorityOf(r) ?? "-")}" "${r.upstreamAddress ?? "-"}" ${said.cluster.escaped(r.cluster ?? "-")} -`;
  line += ` ${r.destinationAddress === null ? "-" : formatSocketAddress(r.destinationAddress)} ${addressText(r.sourceAddress)} - ${quoted(r.ruleName ?? r.routeId)}`;
  line += endText("src", r.source, r.sourceIdentity, r.sourceDescription) + endText("dst", r.endpoint, r.endpointIdentity, null);
  if (r.code !== null) line += ` reason=${r.code}`;
  if (r.provenance !== null) line += ` rule=${ruleText(r.provenance)}`;
  if (r.detail !== "") line += ` detail=${quoteText(r.detail)}`;
  if (r.pathReceived !== null) line += ` path_received=${quoteText(r.pathReceived)}`;
  for (const fault of r.injected) line += ` fault=${quoteText(formatFault(fault))}`;
  if (r.attempts > 1) line += ` attempts=${r.attempts}`;
  for (const attempt of r.failedAttempts) line += ` tried=${quoteText(formatAttempt(attempt))}`;
  if (r.grpcStatus !== null) line += ` grpc_status=${r.grpcStatus}`;
  if (r.grpcMessage !== "") line += ` grpc_message=${quoteText(r.grpcMessage)}`;
  const firstByte = elapsed(r.startedMs, r.answeredMs);
  if (firstByte !== null) line += ` first_byte=${firstByte}ms`;
  if (r.traceId !== null) line += ` trace_id=${r.traceId}`;
  if (r.sourceTraceId !== null) line += ` src.trace_id=${r.sourceTraceId}`;
  if (r.endpointTraceId !== null) line += ` dst.trace_id=${r.endpointTraceId}`;
  return `${line}\n`;
}

export function formatRequestJson(r: RequestRecord, endedWallMs: number, options: LogOptions): string {
  const field = (name: string): string => jsonOrNull(fieldShown(name, r.requestFields.value(name), options));
  let line = `{"level":"${isError(r) ? "error" : "info"}","scope":"access","start_time":"${timestamp(endedWallMs - (r.endedMs - r.startedMs))}"`;
  line += `,"method":${quoteJson(r.method)},"path":${quoteJson(targetOf(r, options))},"protocol":"${r.version}","response_code":${r.status},"response_flags":"${r.flags}"`;
  line += `,"response_code_details":"${answerDetails(r)}","bytes_received":${r.requestBytes},"bytes_sent":${r.responseBytes},"duration":${durationOf(r)}`;
  line += `,"upstream_service_time":${elapsed(r.attemptStartedMs, r.answeredMs)},"first_byte":${elapsed(r.startedMs, r.answeredMs)}`;
  line += `,"x_forwarded_for":${field("x-forwarded-for")},"user_agent":${field("user-agent")},"request_id":${quoteJson(r.requestId)},"authority":${jsonOrNull(authorityOf(r))}`;
  line += `,"upstream_host":${jsonOrNull(r.upstreamAddress)},"upstream_cluster":${jsonOrNull(r.cluster)},"downstream_remote_address":"${addressText(r.sourceAddress)}"`;
  line += `,"downstream_local_address":${r.destinationAddress === null ? "null" : `"${formatSocketAddress(r.destinationAddress)}"`},"route_name":${jsonOrNull(r.ruleName ?? r.routeId)}`;
  line += endJson("src", r.source, r.sourceIdentity, r.sourceDescription) + endJson("dst", r.endpoint, r.endpointIdentity, null);
  if (r.code !== null) line += `,"reason":"${r.code}"`;
  if (r.provenance !== null) line += `,"rule":${ruleText(r.provenance)}`;
  if (r.detail !== "") line += `,"detail":${quoteJson(r.detail)}`;
  if (r.pathReceived !== null) line += `,"path_received":${quoteJson(r.pathReceived)}`;
  if (r.injected.length > 0) line += `,"faults":[${r.injected.map((fault) => quoteJson(formatFault(fault))).join(",")}]`;
  line += `,"attempts":${r.attempts}`;
  if (r.failedAttempts.length > 0) line += `,"tried":[${r.failedAttempts.map((attempt) => quoteJson(formatAttempt(attempt))).join(",")}]`;
  if (r.grpcStatus !== null) line += `,"grpc_status":${r.grpcStatus}`;
  if (r.grpcMessage !== "") line += `,"grpc_message":${quoteJson(r.grpcMessage)}`;
  if (r.traceId !== null) line += `,"trace_id":"${r.traceId}"`;
  if (r.sourceTraceId !== null) line += `,"src.trace_id":"${r.sourceTraceId}"`;
  if (r.endpointTraceId !== null) line += `,"dst.trace_id":"${r.endpointTraceId}"`;
  return `${line}}\n`;
}

/** Places of the text line whose value is often the one of the line before. */
const said = { method: new RepeatedText(), target: new RepeatedText(), forwardedFor: new RepeatedText(), userAgent: new RepeatedText(), authority: new RepeatedText(), cluster: new RepeatedText(), route: new RepeatedText() };

const fieldOf = (r: RequestRecord, name: string, options: LogOptions): string => fieldShown(name, r.requestFields.value(name), options) ?? "-";

/** A client's address is one object as long as its connection. */
const addresses = new WeakMap<SocketAddress, string>();

function addressText(address: SocketAddress): string {
  let text = addresses.get(address);
  if (text === undefined) addresses.set(address, (text = formatSocketAddress(address)));
  return text;
}

const quoted = (text: string | null): string => (text === null ? "-" : `"${said.route.escaped(text)}"`);
const jsonOrNull = (text: string | null): string => (text === null ? "null" : quoteJson(text));

/** Rules stay the same objects until the configuration changes. Text and JSON quote alike. */
const rules = new WeakMap<Provenance, string>();

function ruleText(provenance: Provenance): string {
  let text = rules.get(provenance);
  if (text === undefined) rules.set(provenance, (text = quoteText(formatProvenance(provenance))));
  return text;
}

/** Records are immutable: their part of the line is made once. */
const texts = { src: new WeakMap<Workload, string>(), dst: new WeakMap<Workload, string>() };
const jsons = { src: new WeakMap<Workload, string>(), dst: new WeakMap<Workload, string>() };

function endText(side: "src" | "dst", workload: Workload | null, identity: SpiffeId | null, peer: PeerDescription | null): string {
  let text = "";
  if (workload !== null) {
    const kept = texts[side].get(workload);
    text = kept ?? ` ${side}.workload=${quoteText(workload.name)} ${side}.namespace=${quoteText(workload.namespace)}`;
    if (kept === undefined) texts[side].set(workload, text);
  } else if (peer !== null) {
    text = ` ${side}.workload=${quoteText(peer.workloadName)} ${side}.namespace=${quoteText(peer.namespace)}`;
  }
  return identity === null ? text : `${text} ${side}.identity="${identity}"`;
}

function endJson(side: "src" | "dst", workload: Workload | null, identity: SpiffeId | null, peer: PeerDescription | null): string {
  let text = "";
  if (workload !== null) {
    const kept = jsons[side].get(workload);
    text = kept ?? `,"${side}.workload":${quoteJson(workload.name)},"${side}.namespace":${quoteJson(workload.namespace)}`;
    if (kept === undefined) jsons[side].set(workload, text);
  } else if (peer !== null) {
    text = `,"${side}.workload":${quoteJson(peer.workloadName)},"${side}.namespace":${quoteJson(peer.namespace)}`;
  }
  return identity === null ? text : `${text},"${side}.identity":"${identity}"`;
}
