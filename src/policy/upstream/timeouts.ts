// The arithmetic of time: one deadline for the request, retries and waits included, and what of it an attempt may use.

import type { TimeoutSettings } from "./settings.ts";

/**
 * When the whole request is over; Infinity for never. The client's own grpc-timeout can only make it earlier.
 * @param grpcTimeoutMs null without one
 */
export function requestDeadline(timeouts: TimeoutSettings, grpcTimeoutMs: number | null, nowMs: number): number {
  const configuredMs = timeouts.requestMs === 0 ? Infinity : timeouts.requestMs;
  return nowMs + Math.min(configuredMs, grpcTimeoutMs ?? Infinity);
}

export type AttemptTime =
  /** `limit`: which of them ends the attempt. `ms` is Infinity without any. */
  | { readonly kind: "time"; readonly ms: number; readonly limit: "request" | "perTry" | "backendRequest" | "none" }
  /** Nothing is left: no attempt can be made. */
  | { readonly kind: "expired" };

/** Time that an attempt which begins now may take: the least of what is left, the per-try timeout and the backend's. */
export function attemptTime(times: { readonly deadlineMs: number; readonly perTryTimeoutMs: number | null; readonly backendRequestMs: number }, nowMs: number): AttemptTime {
  const leftMs = times.deadlineMs - nowMs;
  if (leftMs <= 0) return { kind: "expired" };
  const perTryMs = times.perTryTimeoutMs === null || times.perTryTimeoutMs === 0 ? Infinity : times.perTryTimeoutMs;
  const backendMs = times.backendRequestMs === 0 ? Infinity : times.backendRequestMs;
  const ms = Math.min(leftMs, perTryMs, backendMs);
  if (ms === Infinity) return { kind: "time", ms, limit: "none" };
  return { kind: "time", ms, limit: ms === leftMs ? "request" : ms === perTryMs ? "perTry" : "backendRequest" };
}
