// One line of the access log for each request, made by hand: text or JSON. Values come from outside and are escaped.

import { formatProvenance } from "../core/fault.ts";
import { formatSocketAddress } from "../core/ip.ts";
import { authorityText } from "../policy/http/request.ts";
import { quoteJson, quoteText, timestamp } from "../telemetry/log-text.ts";
import type { EndedRequest, PassedThrough } from "./observer.ts";

/** Name, value, …; numbers are written as they are. */
type Fields = readonly (string | number)[];

/** @param wallMs of its end. Ends in a newline. */
export function requestLine(request: EndedRequest, format: "text" | "json", wallMs: number): string {
  const failed = request.code !== null || request.status >= 500;
  return line(format, wallMs, failed ? "error" : "info", "request complete", fieldsOf(request));
}

export function passthroughLine(connection: PassedThrough, format: "text" | "json", wallMs: number): string {
  const { client, error, upstreamAddress } = connection;
  return line(format, wallMs, error === null ? "info" : "error", "connection complete", [
    ...clientFields(client), ...(upstreamAddress === null ? [] : ["upstream.addr", upstreamAddress]), "bytes.sent", connection.responseBytes, "bytes.received", connection.requestBytes,
    "duration_ms", milliseconds(connection.endedMs - connection.startedMs), ...(error === null ? [] : ["error", error]),
  ]);
}

function fieldsOf(request: EndedRequest): Fields {
  const { head, client, code, provenance, grpcStatus } = request;
  const fields: (string | number)[] = [
    "method", head.method, "path", head.path, "authority", head.host === "" ? "" : authorityText(head.host, head.authorityPort), "protocol", request.version, "status", request.status, "flags", request.flags, "attempts", request.attempts,
    ...clientFields(client), "bytes.sent", request.responseBytes, "bytes.received", request.requestBytes, "duration_ms", milliseconds(request.endedMs - request.startedMs),
  ];
  if (request.answeredMs > 0) fields.push("answered_ms", milliseconds(request.answeredMs - request.startedMs));
  if (code !== null) fields.push("reason", code);
  if (request.isGrpc && grpcStatus !== null) fields.push("grpc_status", grpcStatus);
  if (request.routeName !== null) fields.push("route", request.routeName);
  if (provenance !== null) fields.push("rule", formatProvenance(provenance));
  if (request.cluster !== null) fields.push("upstream.cluster", request.cluster);
  if (request.upstreamAddress !== null) fields.push("upstream.addr", request.upstreamAddress, "upstream.protocol", request.upstreamVersion ?? "");
  for (const { action, provenance: from } of request.injected) fields.push("fault", `${action.kind} by ${formatProvenance(from)}`);
  if (request.detail !== "") fields.push("detail", request.detail);
  return fields;
}

function clientFields({ address, source, workload, destination }: EndedRequest["client"]): Fields {
  const fields: (string | number)[] = ["src.addr", formatSocketAddress(address)];
  if (workload !== null) fields.push("src.workload", workload.name, "src.namespace", workload.namespace);
  if (source.identity !== null) fields.push("src.identity", source.identity);
  fields.push("dst.service", destination.service, "dst.port", destination.port);
  return fields;
}

function line(format: "text" | "json", wallMs: number, level: "info" | "error", message: string, fields: Fields): string {
  let out = format === "json" ? `{"level":"${level}","time":"${timestamp(wallMs)}","scope":"access","message":"${message}"` : `${timestamp(wallMs)}\t${level}\taccess\t${message}`;
  for (let i = 0; i < fields.length; i += 2) {
    const value = fields[i + 1]!;
    if (format === "json") out += `,"${fields[i]!}":${typeof value === "number" ? value : quoteJson(value)}`;
    else out += `${i === 0 ? "\t" : " "}${fields[i]!}=${typeof value === "number" ? value : quoteText(value)}`;
  }
  return format === "json" ? `${out}}\n` : `${out}\n`;
}

const milliseconds = (ms: number): number => Math.round(ms * 100) / 100;
