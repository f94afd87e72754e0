// The one record of a request: who, to whom, what was decided and why, how it went and how long it took. The data path fills it, as the
// object that it has for the request anyway; metrics, the access log and spans are made from it. Read while it is told, never kept.

import type { Provenance } from "../core/fault.ts";
import type { SocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Service, Workload } from "../mesh/records.ts";
import type { InjectedFault } from "../policy/http/plan.ts";
import type { ReasonCode } from "../policy/http/reason-codes.ts";
import type { FieldLookup } from "../policy/http/request.ts";
import type { PeerDescription } from "./connection-labels.ts";
import type { RequestTrace } from "./request-trace.ts";
import type { ServiceTelemetry } from "./service-telemetry.ts";

/** An attempt that gave no answer which was passed on. The one that did is described by the record itself. */
export interface FailedAttempt {
  /** `ip:port`. */
  readonly address: string;
  readonly endpoint: Workload | null;
  /** Monotonic. */
  readonly startedMs: number;
  readonly endedMs: number;
  /** 0 without an answer. */
  readonly status: number;
  readonly grpcStatus: number | null;
  /** Null: an answer that a retry policy did not take, or with status 0 an attempt that another one was faster than. */
  readonly reason: ReasonCode | null;
  /** What was seen, for a person. */
  readonly message: string;
  /** Of its span: `RequestTrace.attemptSpanId` while it lasted; "" when none is recorded. */
  readonly spanId: string;
}

export interface RequestRecord {
  /** What is told of requests to this service, as it stood when the request began. */
  readonly telemetry: ServiceTelemetry;

  // ---- The caller: the workload that began the request, not the tunnel that brought it
  readonly source: Workload | null;
  /** Stands in for a source that the store does not know. */
  readonly sourceDescription: PeerDescription | null;
  /** Proved by a certificate. */
  readonly sourceIdentity: SpiffeId | null;
  readonly sourceAddress: SocketAddress;
  readonly mutualTls: boolean;

  // ---- What for
  /** The service that the caller meant; null when it is not known. */
  readonly service: Service | null;
  /** Where the caller connected to; null when it is not known. */
  readonly destinationAddress: SocketAddress | null;
  /** `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`. */
  readonly version: string;
  readonly scheme: string;
  readonly method: string;
  /** Lower case, without port. */
  readonly host: string;
  readonly authorityPort: number | null;
  /** Normalised. */
  readonly path: string;
  /** As it came; null when that is the same. */
  readonly pathReceived: string | null;
  /** With its question mark; "" for none. */
  readonly query: string;
  readonly isGrpc: boolean;
  /** At least the fields that `telemetry.requestFields` names: see `keepFields`. */
  readonly requestFields: FieldLookup;
  /** At least the fields that `telemetry.responseFields` names; null when there was no answer, or nothing is named. */
  readonly responseFields: FieldLookup | null;
  readonly requestId: string;
  /** Null: the request is part of no trace. */
  readonly trace: RequestTrace | null;
  /** Its trace, else the one of the client's tunnel: by it the lines of all proxies on the way are found. Null without both. */
  readonly traceId: string | null;
  /** What the client's proxy calls the connection that the request came on; null where it is `traceId`, or without a tunnel. */
  readonly sourceTraceId: string | null;
  /** The same of the endpoint's proxy and the connection that the answer came on. */
  readonly endpointTraceId: string | null;

  // ---- What was decided
  /** Route as `Kind/namespace/name`, and the rule's name; null when none matched, or it has none. */
  readonly routeId: string | null;
  readonly ruleName: string | null;
  /** What decided: the match of a route, or the policy that refused. */
  readonly provenance: Provenance | null;
  readonly injected: readonly InjectedFault[];

  // ---- How it went
  /** 0 when the client got no answer. */
  readonly status: number;
  /** Null when it is no gRPC, or it never said. */
  readonly grpcStatus: number | null;
  /** Decoded; "" for none. */
  readonly grpcMessage: string;
  /** Of an answer that we made, or of what ended one early; null when the endpoint's own was passed on whole. */
  readonly code: ReasonCode | null;
  /** Envoy's response flags, joined by commas; "-" for none. */
  readonly flags: string;
  /** For a person; "" for nothing to say. */
  readonly detail: string;

  // ---- Attempts
  /** Started, the one that answered included. */
  readonly attempts: number;
  /** In order; empty in the usual case. */
  readonly failedAttempts: readonly FailedAttempt[];
  /** `namespace/host:port|subset` of the service that it was sent to. */
  readonly cluster: string | null;
  /** Of the last attempt; all null when nothing was sent. */
  readonly endpoint: Workload | null;
  readonly endpointIdentity: SpiffeId | null;
  readonly upstreamAddress: string | null;
  readonly upstreamVersion: string | null;

  // ---- Times, monotonic; 0 for what did not happen
  readonly startedMs: number;
  /** The last attempt was begun. */
  readonly attemptStartedMs: number;
  /** Head of the answer. */
  readonly answeredMs: number;
  readonly endedMs: number;

  // ---- Sizes: bodies, as they crossed the client's connection
  readonly requestBytes: number;
  readonly responseBytes: number;
  /** gRPC messages, counted by GrpcMessageCounter; 0 when they are not counted. */
  readonly requestMessages: number;
  readonly responseMessages: number;
}

/** The fields of one message that outlive it. Names that were not asked for read as absent. */
export class KeptFields implements FieldLookup {
  readonly #names: readonly string[];
  readonly #values: readonly (string | undefined)[];

  constructor(names: readonly string[], values: readonly (string | undefined)[]) {
    this.#names = names;
    this.#values = values;
  }

  value(name: string): string | undefined {
    const at = this.#names.indexOf(name);
    return at < 0 ? undefined : this.#values[at];
  }

  values(name: string): readonly string[] {
    const value = this.value(name);
    return value === undefined ? [] : [value];
  }
}

const NONE = new KeptFields([], []);

/** Copies out of a head that is about to go what will be told of it. */
export function keepFields(fields: FieldLookup, names: readonly string[]): FieldLookup {
  if (names.length === 0) return NONE;
  return new KeptFields(names, names.map((name) => fields.value(name)));
}
