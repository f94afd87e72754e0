// Active health checks of one endpoint: when it is asked, and when what it says changes its side. Time, jitter and results come in;
// the next state and what to do go out. Asking itself, by HTTP, gRPC or TCP, is not known here.

import type { Random } from "../../core/ports.ts";
import type { HealthCheck } from "../../mesh/l7/traffic-policy.ts";
import { HEALTH_EDGE_SHARE, HEALTH_FIRST_MS, HEALTH_INTERVAL_MIN_MS, HEALTH_JITTER } from "./defaults.ts";

export interface HealthState {
  readonly health: "unknown" | "healthy" | "unhealthy";
  /** Results in a row that speak against `health`. */
  readonly against: number;
  /** When it is asked next; Infinity while an answer is awaited. */
  readonly nextProbeMs: number;
  /** What the last failure was; "" before one. For the admin pages. */
  readonly lastFailure: string;
}

export type HealthEvent =
  /** Time has passed. */
  | { readonly kind: "tick" }
  | { readonly kind: "passed" }
  /** `why` for a person: `HTTP 503, wanted 200`, `no answer in 1000 ms`. `isTerminal`: the endpoint itself says that it is leaving. */
  | { readonly kind: "failed"; readonly why: string; readonly isTerminal?: boolean };

export type HealthEffect =
  | { readonly kind: "probe"; readonly timeoutMs: number }
  | { readonly kind: "changed"; readonly to: "healthy" | "unhealthy"; readonly why: string };

export interface HealthStep {
  readonly state: HealthState;
  readonly effects: readonly HealthEffect[];
}

const NO_EFFECTS: readonly HealthEffect[] = [];

/** A new endpoint: asked soon, at a time that differs from that of its siblings. */
export function startHealth(nowMs: number, check: HealthCheck, random: Random): HealthState {
  return { health: "unknown", against: 0, nextProbeMs: nowMs + Math.min(HEALTH_FIRST_MS, check.intervalMs) * random.next(), lastFailure: "" };
}

/** The state after `event`. Results that were not asked for are taken like others: the endpoint said so. */
export function stepHealth(state: HealthState, event: HealthEvent, check: HealthCheck, nowMs: number, random: Random): HealthStep {
  switch (event.kind) {
    case "tick":
      if (nowMs < state.nextProbeMs) return { state, effects: NO_EFFECTS };
      return { state: { ...state, nextProbeMs: Infinity }, effects: [{ kind: "probe", timeoutMs: check.timeoutMs }] };
    case "passed":
      return judged(state, "healthy", { threshold: check.healthyThreshold, why: "" }, check, nowMs, random);
    case "failed":
      return judged(state, "unhealthy", { threshold: event.isTerminal === true ? 1 : check.unhealthyThreshold, why: event.why }, check, nowMs, random);
    default:
      return event satisfies never;
  }
}

function judged(
  state: HealthState, says: "healthy" | "unhealthy", result: { readonly threshold: number; readonly why: string }, check: HealthCheck, nowMs: number, random: Random,
): HealthStep {
  const lastFailure = says === "unhealthy" ? result.why : state.lastFailure;
  if (state.health === says) return { state: { health: says, against: 0, nextProbeMs: nowMs + intervalMs(check, false, random), lastFailure }, effects: NO_EFFECTS };
  // The first result decides at once which side an endpoint starts on.
  const against = state.health === "unknown" ? result.threshold : state.against + 1;
  if (against < result.threshold) return { state: { health: state.health, against, nextProbeMs: nowMs + intervalMs(check, true, random), lastFailure }, effects: NO_EFFECTS };
  const why = says === "healthy" ? `passed ${against} in a row` : `failed ${against} in a row: ${result.why}`;
  return {
    state: { health: says, against: 0, nextProbeMs: nowMs + intervalMs(check, false, random), lastFailure },
    effects: [{ kind: "changed", to: says, why: state.health === "unknown" ? `first check: ${result.why === "" ? "passed" : result.why}` : why }],
  };
}

/** `atEdge`: about to change sides, which should not take several whole intervals. */
function intervalMs(check: HealthCheck, atEdge: boolean, random: Random): number {
  const intervalMs = Math.max(check.intervalMs * (atEdge ? HEALTH_EDGE_SHARE : 1), HEALTH_INTERVAL_MIN_MS);
  return intervalMs * (1 + HEALTH_JITTER * (2 * random.next() - 1));
}
