// One line of the access log for what was no request: a connection that was passed through as it came, or bytes that never became a
// request. Made by hand, text or JSON. Values come from outside and are escaped.

import { formatSocketAddress } from "../../core/ip.ts";
import { quoteJson, quoteText, timestamp } from "../../telemetry/log-text.ts";
import type { Client } from "../downstream/client.ts";
import type { PassedThrough } from "../request/observer.ts";

/** Name, value, …; numbers are written as they are. */
type Fields = readonly (string | number)[];

/** @param wallMs of its end. Ends in a newline. */
export function passthroughLine(connection: PassedThrough, format: "text" | "json", wallMs: number): string {
  const { client, error, upstreamAddress } = connection;
  return line(format, wallMs, error === null ? "info" : "error", "connection complete", [
    ...clientFields(client), ...(upstreamAddress === null ? [] : ["upstream.addr", upstreamAddress]), "bytes.sent", connection.responseBytes, "bytes.received", connection.requestBytes,
    "duration_ms", milliseconds(connection.endedMs - connection.startedMs), ...(client.trace === null ? [] : ["trace_id", client.trace.traceId]), ...(error === null ? [] : ["error", error]),
  ]);
}

/** @param code of the engine that refused it. */
export function malformedLine(client: Client, code: string, message: string, format: "text" | "json", wallMs: number): string {
  return line(format, wallMs, "error", "no request", [...clientFields(client), "code", code, "error", message]);
}

function clientFields({ address, source, workload, destination }: Client): Fields {
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
