// What is told of requests when they have ended: to logs, metrics and tests. Read while it is told, not kept.

import type { Provenance } from "../core/fault.ts";
import type { Workload } from "../mesh/records.ts";
import type { InjectedFault } from "../policy/http/plan.ts";
import type { ReasonCode } from "../policy/http/reason-codes.ts";
import type { Client } from "./client.ts";
import type { RequestHead } from "./request-head.ts";
import type { ServiceView } from "./service-view.ts";
import type { HttpVersion } from "./streams.ts";

export interface EndedRequest {
  readonly client: Client;
  /** The configuration by which it was decided; null when nothing was. */
  readonly view: ServiceView | null;
  readonly head: RequestHead;
  readonly version: HttpVersion;
  /** Monotonic. */
  readonly startedMs: number;
  /** Of the head of the answer; 0 when none came. */
  readonly answeredMs: number;
  readonly endedMs: number;
  /** 0 when the client got no answer. */
  readonly status: number;
  readonly grpcStatus: number | null;
  readonly isGrpc: boolean;
  readonly requestBytes: number;
  readonly responseBytes: number;
  /** Of an answer that we made, or of what ended an answer early; null when all went its way. */
  readonly code: ReasonCode | null;
  /** Envoy's response flags, joined by commas; "-" for none. */
  readonly flags: string;
  /** For a person: what was decided or what went wrong; "" for nothing to say. */
  readonly detail: string;
  /** What decided: the match, or the policy. */
  readonly provenance: Provenance | null;
  readonly routeName: string | null;
  readonly cluster: string | null;
  /** Of the last attempt; null when nothing was sent. */
  readonly endpoint: Workload | null;
  readonly upstreamAddress: string | null;
  readonly upstreamVersion: string | null;
  /** The last attempt was begun; 0 for none. */
  readonly attemptStartedMs: number;
  readonly attempts: number;
  readonly injected: readonly InjectedFault[];
}

/** A connection that was no HTTP. */
export interface PassedThrough {
  readonly client: Client;
  readonly startedMs: number;
  readonly endedMs: number;
  readonly upstreamAddress: string | null;
  readonly requestBytes: number;
  readonly responseBytes: number;
  /** Null for a usual end. */
  readonly error: string | null;
}

export interface RequestObserver {
  passedThrough(connection: PassedThrough): void;
  ended(request: EndedRequest): void;
  /** Something that never became a request; answered or dropped by the engine. */
  malformed(client: Client, code: string, message: string): void;
}
