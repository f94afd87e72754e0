// Passive ejection: an endpoint that refuses connections several times in a row is left out for a while, longer each time, and
// comes back by one probe. Time, outcomes and randomness come in; the next state goes out.
//
//              refused × consecutiveFailures              picked, time over
//   healthy ───────────────────────────────▶ ejected ─────────────────────▶ probing
//      ▲  ▲                                     ▲                            │  │
//      │  └──── connected ─────────────────┐    └──────────── refused ───────┘  │
//      └───────────────────────────────────┴───────────────── connected ────────┘

import type { Random } from "../core/ports.ts";

export type EjectionState =
  | { readonly kind: "healthy"; readonly failures: number }
  | { readonly kind: "ejected"; readonly untilMs: number; readonly ejections: number }
  /** One connection is out to see. Should nobody ever report how it went, another may try at `untilMs`. */
  | { readonly kind: "probing"; readonly untilMs: number; readonly ejections: number };

export type EjectionEvent =
  /** A connection is about to be made to it. */
  | { readonly kind: "picked" }
  | { readonly kind: "connected" }
  /** `mayEject` is false while too many of its siblings are out already. */
  | { readonly kind: "refused"; readonly mayEject: boolean };

export interface EjectionLimits {
  readonly consecutiveFailures: number;
  /** Length of the first ejection; each one after a failed probe is twice as long as the last. */
  readonly baseEjectionMs: number;
  readonly ejectionMaxMs: number;
  /** Adds up to this share to each ejection, so that endpoints ejected together do not return together. */
  readonly jitter: number;
  /** Largest share of one service's endpoints that may be out at a time; the rest is better than nothing. */
  readonly ejectedShareMax: number;
  /** How long a probe may stay unreported. */
  readonly probeMs: number;
}

/** Three in a row are no accident; 10 s is a restart, 5 min the longest a recovered endpoint goes unnoticed. */
export const EJECTION_LIMITS: EjectionLimits = {
  consecutiveFailures: 3,
  baseEjectionMs: 10_000,
  ejectionMaxMs: 300_000,
  jitter: 0.2,
  ejectedShareMax: 0.5,
  probeMs: 15_000,
};

export const HEALTHY: EjectionState = Object.freeze({ kind: "healthy", failures: 0 });

/** True when a connection may be sent there now. */
export function isEligible(state: EjectionState, nowMs: number): boolean {
  return state.kind === "healthy" || nowMs >= state.untilMs;
}

/** The state after `event`. Returns `state` itself when nothing changes. */
export function step(state: EjectionState, event: EjectionEvent, nowMs: number, random: Random, limits: EjectionLimits = EJECTION_LIMITS): EjectionState {
  switch (event.kind) {
    case "picked":
      if (state.kind === "healthy" || nowMs < state.untilMs) return state;
      return { kind: "probing", untilMs: nowMs + limits.probeMs, ejections: state.ejections };
    case "connected":
      // Also while ejected: a connection begun before the ejection went through, which is proof enough.
      return HEALTHY;
    case "refused":
      return refused(state, event.mayEject, nowMs, random, limits);
    default:
      return event satisfies never;
  }
}

function refused(state: EjectionState, mayEject: boolean, nowMs: number, random: Random, limits: EjectionLimits): EjectionState {
  switch (state.kind) {
    case "healthy": {
      const failures = state.failures + 1;
      if (failures < limits.consecutiveFailures || !mayEject) return { kind: "healthy", failures: Math.min(failures, limits.consecutiveFailures) };
      return { kind: "ejected", untilMs: nowMs + ejectionMs(0, random, limits), ejections: 1 };
    }
    case "probing":
      return { kind: "ejected", untilMs: nowMs + ejectionMs(state.ejections, random, limits), ejections: state.ejections + 1 };
    case "ejected":
      // The late failure of a connection begun before: it says nothing new.
      return state;
    default:
      return state satisfies never;
  }
}

/** Length of an ejection after `previousEjections` of them: doubled each time, bounded, with jitter on top. */
export function ejectionMs(previousEjections: number, random: Random, limits: Pick<EjectionLimits, "baseEjectionMs" | "ejectionMaxMs" | "jitter">): number {
  const exponent = Math.min(previousEjections, 30);
  return Math.min(limits.baseEjectionMs * 2 ** exponent, limits.ejectionMaxMs) * (1 + limits.jitter * random.next());
}
