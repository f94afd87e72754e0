// The endpoints of one service, port and subset, as this client sees them. Puts together which there are (endpoint-list.ts), how traffic is
// spread over them (endpoint-groups.ts), who is ejected (ejections.ts), and what is remembered of how requests went. Reads no clock and opens
// nothing; the cold work (refresh, tick, maintain) is apart from what every request does (pick, and the calls of attempt.ts).

import type { Random } from "../../core/ports.ts";
import { type NothingPicked, whyNothing } from "../candidates.ts";
import { LatencyBook } from "./balancers/latency.ts";
import { PENALTY_MAX_MS, PENALTY_MS, PROBE_GRACE_MS } from "./defaults.ts";
import { Ejections, type EndpointTransition, type JudgedOutcome } from "./ejections.ts";
import type { UpstreamEndpoint } from "./endpoint.ts";
import { EndpointGroups } from "./endpoint-groups.ts";
import { EndpointList, type RefreshRequest } from "./endpoint-list.ts";
import type { LabelSource } from "./labels.ts";
import { isFailure } from "./outcome.ts";
import { LentPick, type Pick, type UpstreamPickRequest } from "./pick.ts";
import type { UpstreamSettings } from "./settings.ts";

export interface UpstreamOptions {
  readonly settings: UpstreamSettings;
  readonly random: Random;
  readonly labels: LabelSource;
}

export interface UpstreamCounts {
  readonly endpoints: number;
  /** May be picked in the ordinary way. */
  readonly usable: number;
  /** Ejected or probed. */
  readonly ejected: number;
  /** Failed their health check. */
  readonly unhealthy: number;
  readonly activeRequests: number;
}

/** How an attempt went. */
export interface SettledAttempt extends JudgedOutcome {
  /** Since it began. */
  readonly latencyMs: number;
  /** What the answer asked for; -1 for nothing. */
  readonly retryAfterMs: number;
}

export class Upstream {
  readonly latency = new LatencyBook();
  readonly #list: EndpointList;
  readonly #groups: EndpointGroups;
  readonly #ejections: Ejections;
  readonly #pick = new LentPick();
  #settings: UpstreamSettings;
  #isPassthrough: boolean;
  /** Usability has changed since the groups were last arranged. */
  #isDirty = true;
  /** Settings are newer than the groups. */
  #isReconfigured = false;
  #intervalEndsMs = -Infinity;

  constructor({ settings, random, labels }: UpstreamOptions) {
    this.#settings = settings;
    this.#isPassthrough = settings.balancing.kind === "passthrough";
    this.#list = new EndpointList(labels);
    this.#groups = new EndpointGroups({ random, labels, latency: this.latency, pick: this.#pick });
    this.#ejections = new Ejections(random);
  }

  get settings(): UpstreamSettings {
    return this.#settings;
  }

  get endpoints(): readonly UpstreamEndpoint[] {
    return this.#list.members;
  }

  /** DNS names that its endpoints are known by. */
  get hostnames(): readonly string[] {
    return this.#list.hostnames;
  }

  endpoint(key: string): UpstreamEndpoint | undefined {
    return this.#list.find(key);
  }

  // ---- cold: what the control plane says

  /**
   * New settings for the same service, port and subset. What is known of endpoints stays: latencies, counts, who is ejected. Takes
   * effect with the next `refresh`.
   */
  reconfigure(settings: UpstreamSettings): void {
    const hadCheck = this.#settings.healthCheck !== null;
    this.#settings = settings;
    this.#isPassthrough = settings.balancing.kind === "passthrough";
    this.#isReconfigured = true;
    if (hadCheck === (settings.healthCheck !== null)) return;
    for (const member of this.#list.members) member.health = settings.healthCheck === null ? "unchecked" : "unknown";
  }

  /** Labels of endpoints have changed. Takes effect with the next `refresh`. */
  relabelled(): void {
    this.#isReconfigured = true;
  }

  /**
   * Takes over the present endpoints; does nothing when service, source and endpoints are those of the last call. What was observed
   * of endpoints that stay is kept. Returns true when something changed.
   */
  refresh(request: RefreshRequest, nowMs: number): boolean {
    const list = this.#list;
    if (!this.#isReconfigured && list.isMadeOf(request)) return false;
    for (const gone of list.refresh(request, this.#settings, nowMs)) this.#ejections.forget(gone);
    this.#groups.plan(list.members, this.#settings, request, this.#isReconfigured);
    this.#isReconfigured = false;
    this.#isDirty = true;
    return true;
  }

  /** The result of an active health check, once it is decided (health-check.ts). */
  setHealth(endpoint: UpstreamEndpoint, health: "healthy" | "unhealthy", nowMs: number): void {
    if (endpoint.gone || endpoint.health === health) return;
    if (endpoint.health === "unhealthy") endpoint.sinceMs = nowMs;
    endpoint.health = health;
    if (health === "healthy") this.#ejections.checkSucceeded(endpoint, nowMs);
    this.#isDirty = true;
  }

  /** Ends an interval of outlier detection when it is over. Returns when to call again. */
  tick(nowMs: number): number {
    if (nowMs < this.#intervalEndsMs) return this.#intervalEndsMs;
    const { outliers } = this.#settings;
    if (this.#intervalEndsMs !== -Infinity && this.#ejections.endInterval(this.#list.members, outliers, nowMs)) this.#isDirty = true;
    return (this.#intervalEndsMs = nowMs + outliers.intervalMs);
  }

  /** Work that was put off so that no request waits for it: hash tables. Returns true when there was some. */
  maintain(): boolean {
    this.#arrange();
    return this.#groups.maintain();
  }

  /** Ejections and returns since the last call. */
  takeTransitions(): readonly EndpointTransition[] {
    return this.#ejections.takeTransitions();
  }

  counts(): UpstreamCounts {
    this.#arrange();
    let usable = 0;
    let unhealthy = 0;
    let activeRequests = 0;
    for (const { health, active, usable: isUsable } of this.#list.members) {
      if (isUsable) usable++;
      if (health === "unhealthy") unhealthy++;
      activeRequests += active;
    }
    return { endpoints: this.#list.members.length, usable, ejected: this.#ejections.count, unhealthy, activeRequests };
  }

  /** Why nothing can be dialled, counted over all endpoints of the service; for messages. */
  explainNoEndpoint(request: RefreshRequest): NothingPicked {
    return whyNothing(request);
  }

  // ---- hot: which endpoint

  /** Chooses an endpoint, or says why there is none. */
  pick(request: UpstreamPickRequest): Pick {
    this.#arrange();
    if (request.sticky !== null) {
      const own = this.#list.find(request.sticky);
      // A client that named the endpoint itself gets that one or none.
      if (own !== undefined && (own.usable || this.#isPassthrough) && !request.tried.includes(own)) return this.#pick.of(own, "sticky");
    }
    if (this.#isPassthrough) return this.#pick.of(null, "notThere");
    const { nextProbeMs } = this.#ejections;
    if (request.nowMs >= (request.mayProbe ? nextProbeMs : nextProbeMs + PROBE_GRACE_MS)) {
      const due = this.#ejections.probe(request);
      if (due !== null) return this.#pick.of(due, "probe");
    }
    return this.#groups.pick(request);
  }

  #arrange(): void {
    if (!this.#isDirty) return;
    this.#isDirty = false;
    this.#groups.arrange(this.#list.members, this.#settings.outliers.panicThreshold);
  }

  // ---- hot: what attempts report (attempt.ts)

  begin(endpoint: UpstreamEndpoint, nowMs: number): void {
    if (endpoint.awaiting === 0) endpoint.silentSinceMs = nowMs;
    endpoint.active++;
    endpoint.awaiting++;
  }

  /** The head of an answer came, or the attempt failed without one. */
  settle(endpoint: UpstreamEndpoint, settled: SettledAttempt, nowMs: number): void {
    endpoint.awaiting--;
    endpoint.silentSinceMs = nowMs;
    const { outcome, latencyMs, retryAfterMs } = settled;
    if (outcome === "abandoned") this.latency.observeSilence(endpoint, latencyMs, nowMs);
    else if (outcome !== "neutral") this.latency.observe(endpoint, latencyMs, isFailure(outcome) || outcome === "overloaded", nowMs);
    if (outcome === "overloaded" || retryAfterMs >= 0) {
      endpoint.avoidUntilMs = Math.max(endpoint.avoidUntilMs, nowMs + Math.min(retryAfterMs >= 0 ? retryAfterMs : PENALTY_MS, PENALTY_MAX_MS));
    }
    if (endpoint.gone) return;
    if (this.#ejections.judge(endpoint, settled, this.#list.members, this.#settings.outliers, nowMs)) this.#isDirty = true;
  }

  end(endpoint: UpstreamEndpoint): void {
    endpoint.active--;
  }
}
