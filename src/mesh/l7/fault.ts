// Injected faults: what is done to a share of the requests, on purpose.

import type { RequestMatch } from "./match.ts";

export type FaultAction =
  | { readonly kind: "delay"; readonly fixedMs: number }
  /** HTTP status, or for gRPC requests a gRPC status. */
  | { readonly kind: "abort"; readonly httpStatus: number; readonly grpcStatus: number | null }
  /** The connection, or the stream, is reset. */
  | { readonly kind: "reset" }
  /** Bytes of the answer per second. */
  | { readonly kind: "bandwidth"; readonly bytesPerSecond: number };

export interface Fault {
  readonly action: FaultAction;
  /** 0 to 1. */
  readonly fraction: number;
  /** Further restriction to requests; empty for all that the rule or policy covers. */
  readonly matches: readonly RequestMatch[];
  readonly fieldPath: string;
}
