// What happened on one connection, or on many that share the object. Plain numbers, read by the metrics; the names are stable.

import type { Http1Code } from "./errors.ts";

export class Http1Counters {
  requests = 0;
  responses = 0;
  informationalResponses = 0;
  tunnels = 0;
  bodyBytesReceived = 0;
  bodyBytesSent = 0;
  chunksReceived = 0;
  trailersReceived = 0;
  /** Requests behind the one being answered, that waited in memory. */
  pipelinedRequests = 0;
  /** Connections ended because a peer sent more of them than may wait. */
  pipelineOverflows = 0;
  /** Answered before the request had ended. */
  earlyResponses = 0;
  /** A sender had to wait for the socket. */
  stalledOnOutput = 0;
  /** Faults by code: what the peer sent, or what we did ourselves (localError). */
  readonly faults = new Map<Http1Code, number>();

  fault(code: Http1Code): void {
    this.faults.set(code, (this.faults.get(code) ?? 0) + 1);
  }
}
