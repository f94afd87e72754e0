// Active health checks of one cluster: every endpoint is asked in its own time, at most so many at once in this thread. What they say is
// the upstream's to act on.

import type { Random } from "../../core/ports.ts";
import type { HealthCheck } from "../../mesh/l7/traffic-policy.ts";
import type { Due, DueList } from "../../net/due-list.ts";
import { HEALTH_PROBES_MAX, HEALTH_WAIT_MS } from "../../policy/upstream/defaults.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import { type HealthEvent, type HealthState, startHealth, stepHealth } from "../../policy/upstream/health-check.ts";
import type { HealthProbe, ProbeDone } from "./health-probe.ts";

/** How many probes of a thread are under way: a thousand endpoints that fall silent must not hold a thousand connections. */
export class ProbeGate {
  #underWay = 0;

  get underWay(): number {
    return this.#underWay;
  }

  enter(): boolean {
    if (this.#underWay >= HEALTH_PROBES_MAX) return false;
    this.#underWay++;
    return true;
  }

  leave(): void {
    this.#underWay--;
  }
}

export interface HealthChecksOptions {
  readonly check: HealthCheck;
  readonly due: DueList;
  readonly nowMs: () => number;
  readonly random: Random;
  readonly gate: ProbeGate;
  readonly probe: (endpoint: UpstreamEndpoint, done: ProbeDone) => HealthProbe;
  /** One answer. */
  readonly answered: (passed: boolean) => void;
  /** An endpoint has changed sides. */
  readonly changed: (endpoint: UpstreamEndpoint, to: "healthy" | "unhealthy", why: string) => void;
}

export class HealthChecks {
  readonly #options: HealthChecksOptions;
  readonly #checks = new Map<UpstreamEndpoint, EndpointCheck>();

  constructor(options: HealthChecksOptions) {
    this.#options = options;
  }

  /** The endpoints of the moment: new ones are asked soon, those that are gone no more. */
  sync(endpoints: readonly UpstreamEndpoint[]): void {
    for (const [endpoint, check] of this.#checks) {
      if (!endpoint.gone) continue;
      check.stop();
      this.#checks.delete(endpoint);
    }
    for (const endpoint of endpoints) if (!this.#checks.has(endpoint)) this.#checks.set(endpoint, new EndpointCheck(this.#options, endpoint));
  }

  /** What the last failure of an endpoint was; "" without one. */
  lastFailure(endpoint: UpstreamEndpoint): string {
    return this.#checks.get(endpoint)?.lastFailure ?? "";
  }

  stop(): void {
    for (const check of this.#checks.values()) check.stop();
    this.#checks.clear();
  }
}

class EndpointCheck implements Due {
  dueMs: number;
  dueIndex = -1;
  readonly #options: HealthChecksOptions;
  readonly #endpoint: UpstreamEndpoint;
  #state: HealthState;
  #probe: HealthProbe | null = null;

  constructor(options: HealthChecksOptions, endpoint: UpstreamEndpoint) {
    this.#options = options;
    this.#endpoint = endpoint;
    this.#state = startHealth(options.nowMs(), options.check, options.random);
    this.dueMs = this.#state.nextProbeMs;
    options.due.add(this);
  }

  get lastFailure(): string {
    return this.#state.lastFailure;
  }

  stop(): void {
    this.#options.due.remove(this);
    if (this.#probe === null) return;
    this.#probe.cancel();
    this.#options.gate.leave();
  }

  onDue(nowMs: number): void {
    const { gate } = this.#options;
    if (this.#probe !== null) return;
    if (gate.enter()) return this.#step({ kind: "tick" }, nowMs);
    this.#dueAt(nowMs + HEALTH_WAIT_MS);
  }

  #ask(): void {
    const { probe, gate, nowMs, answered } = this.#options;
    this.#probe = probe(this.#endpoint, (why) => {
      this.#probe = null;
      gate.leave();
      answered(why === null);
      this.#step(why === null ? { kind: "passed" } : { kind: "failed", why }, nowMs());
    });
  }

  #step(event: HealthEvent, nowMs: number): void {
    const { check, random, changed } = this.#options;
    const { state, effects } = stepHealth(this.#state, event, check, nowMs, random);
    this.#state = state;
    for (const effect of effects) {
      if (effect.kind === "probe") this.#ask();
      else changed(this.#endpoint, effect.to, effect.why);
    }
    if (state.nextProbeMs !== Infinity) this.#dueAt(state.nextProbeMs);
  }

  #dueAt(atMs: number): void {
    this.dueMs = atMs;
    this.#options.due.sooner(this);
  }
}
