// What logs and spans say of a request in words of their own: derived from the record, one function a fact. Values are not escaped here.

import { formatProvenance } from "../core/fault.ts";
import type { InjectedFault } from "../policy/http/plan.ts";
import { authorityText } from "../policy/http/request.ts";
import type { FailedAttempt, RequestRecord } from "./request-record.ts";

export interface LogOptions {
  /** Queries carry tokens, addresses and search words: `redacted` shows only that there was one. */
  readonly query: "redacted" | "full";
}

const REDACTED_QUERY = "?[redacted]";
const REDACTED = "[redacted]";
/** Whoever reads the log could act as the caller. */
const CREDENTIALS = new Set(["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-forwarded-client-cert"]);
const ERROR_STATUS = 400;

/** Worth an error level: the client got no whole answer, or was told that something is wrong. */
export function isError(r: RequestRecord): boolean {
  return r.status === 0 || r.status >= ERROR_STATUS || r.grpcStatus !== null && r.grpcStatus !== 0 || r.flags !== "-" && r.flags !== "DI";
}

export function authorityOf(r: RequestRecord): string | null {
  return r.host === "" ? null : authorityText(r.host, r.authorityPort);
}

function queryOf(query: string, options: LogOptions): string {
  return query === "" || options.query === "full" ? query : REDACTED_QUERY;
}

/** Normalised, with what may be shown of the query. */
export function targetOf(r: RequestRecord, options: LogOptions): string {
  return r.path + queryOf(r.query, options);
}

export function fieldShown(name: string, value: string | undefined, options: LogOptions): string | null {
  if (value === undefined) return null;
  if (CREDENTIALS.has(name)) return REDACTED;
  const query = name === "referer" && options.query === "redacted" ? value.indexOf("?") : -1;
  return query < 0 ? value : value.slice(0, query) + REDACTED_QUERY;
}

/** Whole milliseconds from `fromMs` to `toMs`, both monotonic; null when either did not happen. */
export function elapsed(fromMs: number, toMs: number): number | null {
  return fromMs === 0 || toMs === 0 ? null : Math.round(toMs - fromMs);
}

export function durationOf(r: RequestRecord): number {
  return Math.round(r.endedMs - r.startedMs);
}

export function formatFault({ action, provenance }: InjectedFault): string {
  const by = formatProvenance(provenance);
  switch (action.kind) {
    case "delay": return `delay ${action.fixedMs} ms by ${by}`;
    case "abort": return `abort with ${action.grpcStatus === null ? action.httpStatus : `grpc-status ${action.grpcStatus}`} by ${by}`;
    case "reset": return `reset by ${by}`;
    case "bandwidth": return `${action.bytesPerSecond} bytes/s by ${by}`;
    default: return action satisfies never;
  }
}

export function formatAttempt({ address, startedMs, endedMs, status, grpcStatus, reason, message }: FailedAttempt): string {
  const seen = reason ?? (grpcStatus !== null ? `grpc-status ${grpcStatus}` : status === 0 ? "given up" : String(status));
  return `${address} ${seen} after ${Math.round(endedMs - startedMs)} ms${message === "" ? "" : `: ${message}`}`;
}

/** As Envoy's RESPONSE_CODE_DETAILS: who made the answer, and why. */
export function answerDetails(r: RequestRecord): string {
  return r.code ?? (r.status === 0 ? "no_answer" : "via_upstream");
}
