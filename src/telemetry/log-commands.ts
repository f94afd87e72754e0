// Envoy's access log commands, as far as a waypoint has something to say, and `%WEFT(name)%` for what only we know. Each reads one value
// from the record: text, a number, or null, which prints as `-`.

import { formatProvenance } from "../core/fault.ts";
import { formatSocketAddress } from "../core/ip.ts";
import { timestamp } from "./log-text.ts";
import { answerDetails, authorityOf, durationOf, elapsed, fieldShown, formatAttempt, formatFault, type LogOptions, targetOf } from "./request-facts.ts";
import { REQUEST_ID_FIELD } from "./request-trace.ts";
import type { RequestRecord } from "./request-record.ts";

export type { LogOptions } from "./request-facts.ts";

export type Command = (record: RequestRecord, endedWallMs: number) => string | number | null;

export interface KnownCommand {
  readonly read: Command;
  /** What the record must keep for it, in lower case. */
  readonly requestFields?: readonly string[];
  readonly responseFields?: readonly string[];
}

const startedWallMs = (r: RequestRecord, endedWallMs: number): number => endedWallMs - (r.endedMs - r.startedMs);

const PLAIN: Readonly<Record<string, Command>> = {
  START_TIME: (r, wall) => timestamp(startedWallMs(r, wall)),
  PROTOCOL: (r) => r.version,
  RESPONSE_CODE: (r) => r.status,
  RESPONSE_CODE_DETAILS: answerDetails,
  CONNECTION_TERMINATION_DETAILS: () => null,
  RESPONSE_FLAGS: (r) => r.flags,
  BYTES_RECEIVED: (r) => r.requestBytes,
  BYTES_SENT: (r) => r.responseBytes,
  DURATION: durationOf,
  RESPONSE_DURATION: (r) => elapsed(r.startedMs, r.answeredMs),
  RESPONSE_TX_DURATION: (r) => elapsed(r.answeredMs, r.endedMs),
  ROUTE_NAME: (r) => r.ruleName ?? r.routeId,
  UPSTREAM_HOST: (r) => r.upstreamAddress,
  UPSTREAM_REMOTE_ADDRESS: (r) => r.upstreamAddress,
  UPSTREAM_CLUSTER: (r) => r.cluster,
  UPSTREAM_PROTOCOL: (r) => r.upstreamVersion,
  UPSTREAM_LOCAL_ADDRESS: () => null,
  UPSTREAM_TRANSPORT_FAILURE_REASON: (r) => (r.code === "connect_failed" || r.code === "tls_failed" || r.code === "tls_broken" || r.code === "endpoint_denied" ? r.detail : null),
  UPSTREAM_REQUEST_ATTEMPT_COUNT: (r) => r.attempts,
  UPSTREAM_PEER_URI_SAN: (r) => r.endpointIdentity,
  DOWNSTREAM_LOCAL_ADDRESS: (r) => (r.destinationAddress === null ? null : formatSocketAddress(r.destinationAddress)),
  DOWNSTREAM_LOCAL_PORT: (r) => r.destinationAddress?.port ?? null,
  DOWNSTREAM_REMOTE_ADDRESS: (r) => formatSocketAddress(r.sourceAddress),
  DOWNSTREAM_DIRECT_REMOTE_ADDRESS: (r) => formatSocketAddress(r.sourceAddress),
  DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT: (r) => r.sourceAddress.ip,
  DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT: (r) => r.sourceAddress.ip,
  DOWNSTREAM_PEER_URI_SAN: (r) => r.sourceIdentity,
  REQUESTED_SERVER_NAME: () => null,
  GRPC_STATUS_NUMBER: (r) => r.grpcStatus,
  TRACE_ID: (r) => r.traceId,
  SPAN_ID: (r) => r.trace?.spanId || null,
  STREAM_ID: (r) => r.requestId,
};

const OURS: Readonly<Record<string, Command>> = {
  reason: (r) => r.code,
  detail: (r) => r.detail || null,
  rule: (r) => (r.provenance === null ? null : formatProvenance(r.provenance)),
  rule_source: (r) => r.provenance?.source ?? null,
  route: (r) => r.routeId,
  fault: (r) => (r.injected.length === 0 ? null : r.injected.map(formatFault).join("; ")),
  attempts: (r) => r.attempts,
  tried: (r) => (r.failedAttempts.length === 0 ? null : r.failedAttempts.map(formatAttempt).join("; ")),
  path_received: (r) => r.pathReceived,
  source_workload: (r) => r.source?.workloadName ?? r.sourceDescription?.workloadName ?? null,
  source_namespace: (r) => r.source?.namespace ?? r.sourceDescription?.namespace ?? null,
  source_identity: (r) => r.sourceIdentity,
  destination_service: (r) => r.service?.hostname ?? null,
  destination_workload: (r) => r.endpoint?.workloadName ?? null,
  destination_namespace: (r) => r.endpoint?.namespace ?? null,
  destination_identity: (r) => r.endpointIdentity,
  grpc_message: (r) => r.grpcMessage || null,
  upstream_duration: (r) => elapsed(r.attemptStartedMs, r.answeredMs),
};

const GRPC_NAMES = [
  "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange",
  "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
] as const;

/** Every command there is; docs/telemetry.md is held to it. */
export const COMMAND_NAMES: readonly string[] = ["REQ", "RESP", "GRPC_STATUS", ...Object.keys(PLAIN)];
export const WEFT_NAMES: readonly string[] = Object.keys(OURS);

/** Null for a command, or an argument, that is not known. */
export function commandOf(name: string, argument: string, options: LogOptions): KnownCommand | null {
  switch (name) {
    case "REQ": return requestField(argument, options);
    case "RESP": return responseField(argument, options);
    case "GRPC_STATUS":
      if (argument === "NUMBER") return { read: PLAIN["GRPC_STATUS_NUMBER"]! };
      return { read: (r) => (r.grpcStatus === null ? null : GRPC_NAMES[r.grpcStatus] ?? String(r.grpcStatus)) };
    case "WEFT": {
      const read = Object.hasOwn(OURS, argument) ? OURS[argument]! : null;
      return read === null ? null : { read };
    }
    case "START_TIME": return argument === "" ? { read: PLAIN["START_TIME"]! } : startTime(argument);
    default: return argument === "" && Object.hasOwn(PLAIN, name) ? { read: PLAIN[name]! } : null;
  }
}

/** The forms of time that are numbers; other strftime forms are not known here. */
function startTime(format: string): KnownCommand | null {
  switch (format) {
    case "%s": return { read: (r, wall) => Math.floor(startedWallMs(r, wall) / 1000) };
    case "%3f": return { read: (r, wall) => Math.floor(startedWallMs(r, wall)) % 1000 };
    case "%s%3f": return { read: (r, wall) => Math.floor(startedWallMs(r, wall)) };
    default: return null;
  }
}

/** `NAME` or `NAME?OTHER`: the other one where the first is absent. */
function namesOf(argument: string): string[] | null {
  const names = argument.toLowerCase().split("?");
  return names.length > 2 || names.some((name) => !/^:?[a-z0-9!#$%&'*+.^_`|~-]+$/.test(name)) ? null : names;
}

function requestField(argument: string, options: LogOptions): KnownCommand | null {
  const names = namesOf(argument);
  if (names === null) return null;
  const reads = names.map((name): Command => {
    switch (name) {
      case ":method": return (r) => r.method;
      case ":authority":
      case "host": return authorityOf;
      case ":scheme": return (r) => r.scheme;
      case ":path": return (r) => targetOf(r, options);
      // Set by Envoy when it rewrites the path; the record's is the one before rewriting.
      case "x-envoy-original-path": return () => null;
      case REQUEST_ID_FIELD: return (r) => r.requestId;
      default: return (r) => fieldShown(name, r.requestFields.value(name), options);
    }
  });
  return { read: firstOf(reads), requestFields: names.filter((name) => !name.startsWith(":") && name !== "host" && name !== REQUEST_ID_FIELD) };
}

function responseField(argument: string, options: LogOptions): KnownCommand | null {
  const names = namesOf(argument);
  if (names === null) return null;
  const reads = names.map((name): Command => {
    switch (name) {
      case ":status": return (r) => r.status;
      case "x-envoy-upstream-service-time": return (r) => elapsed(r.attemptStartedMs, r.answeredMs);
      default: return (r) => fieldShown(name, r.responseFields?.value(name), options);
    }
  });
  return { read: firstOf(reads), responseFields: names.filter((name) => !name.startsWith(":") && name !== "x-envoy-upstream-service-time") };
}

function firstOf(reads: readonly Command[]): Command {
  const [first, second] = reads;
  return second === undefined ? first! : (r, wall) => first!(r, wall) ?? second(r, wall);
}
