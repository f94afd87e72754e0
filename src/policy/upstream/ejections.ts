// The endpoints of an upstream that are out of service because of how requests went: who is ejected, within the share that may be, who is
// due for a probe, and what is to be told of it. What one outcome does to one endpoint is in outliers.ts.

import type { Random } from "../../core/ports.ts";
import type { PickContext } from "./balancers/picker.ts";
import type { UpstreamEndpoint } from "./endpoint.ts";
import { beginProbe, eject, endInterval, endProbe, type EjectionReason, isSuccessRateOutlier, observe, restore, successRates } from "./outliers.ts";
import type { Outcome } from "./outcome.ts";
import type { OutlierSettings } from "./settings.ts";

/** What happened to one endpoint, for logs and metrics. */
export interface EndpointTransition {
  readonly endpoint: UpstreamEndpoint;
  readonly kind: "ejected" | "restored";
  readonly reason: EjectionReason | "probeSucceeded" | "healthCheck";
}

export interface JudgedOutcome {
  readonly outcome: Outcome;
  /** Of the one request that was sent to find out. */
  readonly isProbe: boolean;
}

/** Methods that say so return true when another set of endpoints is in service now. */
export class Ejections {
  readonly #random: Random;
  /** Ejected or probed. */
  #out: UpstreamEndpoint[] = [];
  #nextProbeMs = Infinity;
  #transitions: EndpointTransition[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  /** Ejected or probed. */
  get count(): number {
    return this.#out.length;
  }

  /** When the first of them is due; Infinity without any. */
  get nextProbeMs(): number {
    return this.#nextProbeMs;
  }

  /** Ejections and returns since the last call. */
  takeTransitions(): readonly EndpointTransition[] {
    const taken = this.#transitions;
    if (taken.length > 0) this.#transitions = [];
    return taken;
  }

  /** One outcome of an endpoint. True: see above. @param members all of the upstream, of which only a share may be out. */
  judge(endpoint: UpstreamEndpoint, { outcome, isProbe }: JudgedOutcome, members: readonly UpstreamEndpoint[], settings: OutlierSettings, nowMs: number): boolean {
    const { outlier } = endpoint;
    if (outlier.kind === "healthy") {
      const reason = observe(outlier, outcome, settings);
      return reason !== null && this.#eject(endpoint, reason, members, settings, nowMs);
    }
    // Outcomes of requests that were sent before the ejection say nothing new.
    if (outlier.kind !== "probing" || !isProbe) return false;
    if (endProbe(outlier, outcome, nowMs, this.#random, settings)) {
      this.#restored(endpoint, "probeSucceeded", nowMs);
      return true;
    }
    this.#noteNextProbe();
    return false;
  }

  /** One whose time is over, which the request tries again; null for none. */
  probe({ nowMs, tried }: PickContext): UpstreamEndpoint | null {
    for (const endpoint of this.#out) {
      if (nowMs < endpoint.outlier.untilMs || endpoint.health === "unhealthy" || tried.includes(endpoint)) continue;
      beginProbe(endpoint.outlier, nowMs);
      this.#noteNextProbe();
      return endpoint;
    }
    return null;
  }

  /** A health check succeeds again. */
  checkSucceeded(endpoint: UpstreamEndpoint, nowMs: number): void {
    // It accepts connections again, which is what it was ejected for. Of its answers to requests a health check proves nothing.
    if (endpoint.outlier.kind === "healthy" || endpoint.outlier.reason !== "consecutiveConnectFailures") return;
    restore(endpoint.outlier);
    this.#restored(endpoint, "healthCheck", nowMs);
  }

  /** It is no endpoint any more. */
  forget(endpoint: UpstreamEndpoint): void {
    if (endpoint.outlier.kind === "healthy") return;
    this.#leave(endpoint);
  }

  /** An interval is over: judges by what was counted in it, and counts afresh. True: see above. */
  endInterval(members: readonly UpstreamEndpoint[], settings: OutlierSettings, nowMs: number): boolean {
    let changed = false;
    if (settings.successRate !== null) {
      const rates = successRates(members.map(({ outlier }) => outlier), settings);
      for (const member of members) {
        if (isSuccessRateOutlier(member.outlier, rates, settings)) changed = this.#eject(member, "successRate", members, settings, nowMs) || changed;
      }
    }
    for (const { outlier } of members) endInterval(outlier);
    return changed;
  }

  /** False: too many are out already. */
  #eject(endpoint: UpstreamEndpoint, reason: EjectionReason, { length: total }: readonly UpstreamEndpoint[], settings: OutlierSettings, nowMs: number): boolean {
    const count = this.#out.length + 1;
    if (count > Math.floor(total * settings.ejectedShareMax) || count >= total) return false;
    eject(endpoint.outlier, reason, nowMs, this.#random, settings);
    this.#out.push(endpoint);
    this.#transitions.push({ endpoint, kind: "ejected", reason });
    this.#noteNextProbe();
    return true;
  }

  #restored(endpoint: UpstreamEndpoint, reason: "probeSucceeded" | "healthCheck", nowMs: number): void {
    endpoint.sinceMs = nowMs;
    this.#transitions.push({ endpoint, kind: "restored", reason });
    this.#leave(endpoint);
  }

  #leave(endpoint: UpstreamEndpoint): void {
    this.#out = this.#out.filter((other) => other !== endpoint);
    this.#noteNextProbe();
  }

  #noteNextProbe(): void {
    let next = Infinity;
    for (const { outlier } of this.#out) if (outlier.untilMs < next) next = outlier.untilMs;
    this.#nextProbeMs = next;
  }
}
