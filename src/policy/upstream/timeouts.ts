// The arithmetic of time: one deadline for the request, retries and waits included, what of it an attempt may use, and who said so.

import type { Provenance } from "../../core/fault.ts";
import type { RetryPolicy, RouteTimeouts } from "../../mesh/l7/route.ts";
import { provenanceOfPart, type TimeoutSettings, type UpstreamSettings } from "./settings.ts";

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

export type TimeLimit = keyof RouteTimeouts | "perTryMs";

/** Who may say how long a request to a service takes, in the order of `effectiveTimeouts` and `effectiveRetry`. */
export interface TimeoutSources {
  /** The rule that decided; null without one. */
  readonly rule: Provenance | null;
  readonly timeouts: RouteTimeouts;
  readonly retry: RetryPolicy | null;
  /** Of the service that the client named; null where that is the backend. */
  readonly named: UpstreamSettings | null;
  readonly backend: UpstreamSettings;
}

/** Fields of a rule, of the Gateway API and of VirtualService. */
const RULE_FIELDS: Readonly<Record<TimeLimit, readonly [gatewayApi: string, virtualService: string]>> = {
  requestMs: ["timeouts.request", "timeout"], backendRequestMs: ["timeouts.backendRequest", "timeout"], perTryMs: ["retry", "retries.perTryTimeout"], streamIdleMs: ["timeouts", "timeout"],
};
const POLICY_FIELDS: Readonly<Record<keyof RouteTimeouts, string>> = { requestMs: "spec.timeouts.request", backendRequestMs: "spec.timeouts.backendRequest", streamIdleMs: "spec.timeouts.streamIdle" };

/** What made a limit so, down to its field. Null: nothing, it is our default. */
export function provenanceOfTimeout(limit: TimeLimit, { rule, timeouts, retry, named, backend }: TimeoutSources): Provenance | null {
  const ofRule = limit === "perTryMs" ? retry !== null : timeouts[limit] !== null;
  if (ofRule) return rule === null ? null : { ...rule, fieldPath: `${rule.fieldPath}.${RULE_FIELDS[limit][rule.kind === "VirtualService" ? 1 : 0]}` };
  if (limit === "perTryMs") return provenanceOfPart(backend, "retry", "perTryTimeout", "spec.retry.perTryTimeout");
  // What one attempt may take is said by the backend first, all else by the service that was named.
  const inOrder = limit === "backendRequestMs" ? [backend, named] : [named, backend];
  const settings = inOrder.find((each) => each !== null && each.said[limit] !== null) ?? null;
  return settings === null ? null : provenanceOfPart(settings, "timeouts", limit, POLICY_FIELDS[limit]);
}
