// What an attempt says about the endpoint that it went to. Faults that we injected and requests that clients gave up say nothing.

/**
 * `gatewayError`: 502, 503, 504, or no answer at all once connected. `serverError`: any other 5xx. `overloaded`: 429.
 * `abandoned`: the client went away, or a hedged sibling won; it says how long nothing came, and no more.
 * `neutral`: nothing can be concluded: an injected fault, a limit of our own.
 */
export type Outcome = "success" | "serverError" | "gatewayError" | "connectFailure" | "overloaded" | "abandoned" | "neutral";

/** HTTP statuses that gRPC's own stand for, by gRPC status (google.rpc.Code), as Envoy maps them for outlier detection. */
const HTTP_OF_GRPC: readonly number[] = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];

/**
 * Of an answer that arrived.
 * @param httpStatus as received
 * @param grpcStatus value of grpc-status when it is known, else null; unknown codes count as UNKNOWN
 * @param errorStatuses those that count as errors, of gRPC the statuses that it stands for; null: all from 500 on
 */
export function outcomeOfAnswer(httpStatus: number, grpcStatus: number | null, errorStatuses: ReadonlySet<number> | null): Outcome {
  const status = grpcStatus === null || httpStatus !== 200 ? httpStatus : HTTP_OF_GRPC[grpcStatus] ?? 500;
  const isError = errorStatuses === null ? status >= 500 : errorStatuses.has(status);
  if (!isError) return status === 429 ? "overloaded" : "success";
  return status === 502 || status === 503 || status === 504 ? "gatewayError" : "serverError";
}

/** True for outcomes that an endpoint is to blame for. */
export function isFailure(outcome: Outcome): boolean {
  return outcome === "serverError" || outcome === "gatewayError" || outcome === "connectFailure";
}
