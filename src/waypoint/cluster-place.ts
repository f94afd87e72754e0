// Where a plan sends a request, and its place within the limits of that cluster: rates, requests and retries at once, the concurrency that
// the service takes at present. Asked for once, given back once.

import { Admission, explainShed } from "../policy/upstream/adaptive-concurrency.ts";
import { explainRefusal, type LimitRefusal, Permits } from "../policy/upstream/circuit-breaker.ts";
import { rateLimitHeaders, type RateLimitState } from "../policy/upstream/rate-limit/headers.ts";
import { ViewFacts } from "../policy/upstream/view-facts.ts";
import type { ServiceTarget } from "../policy/http/plan.ts";
import type { Cluster } from "./cluster.ts";
import type { Clusters } from "./clusters.ts";
import type { ReasonCode } from "../policy/http/reason-codes.ts";
import type { RequestObserver } from "./observer.ts";
import { ownAnswer, type OwnAnswer } from "./own-answer.ts";
import type { RequestAccount } from "./request-account.ts";
import type { RequestHead } from "./request-head.ts";

export interface PlaceHost {
  readonly clusters: Clusters;
  readonly observer: RateLimitObserver;
}

interface RateLimitObserver {
  readonly upstream: Pick<RequestObserver["upstream"], "rateLimit">;
}

/** @param cluster of the service that has the limit. */
export function tellRateLimit({ upstream }: RateLimitObserver, cluster: Cluster | null, limit: string, verdict: "allowed" | "refused" | "failed"): void {
  if (cluster === null) return;
  const { destination_service_namespace: namespace, destination_service_name: name } = cluster.labels;
  upstream.rateLimit({ namespace, name }, limit, verdict);
}

export interface PlaceRefusal {
  readonly answer: OwnAnswer;
  /** For the log. */
  readonly detail: string;
}

export type FoundPlace = { readonly kind: "place"; readonly place: ClusterPlace } | ({ readonly kind: "refused" } & PlaceRefusal);

/**
 * Within the rates that are counted here; `enter` does the rest once those that are counted elsewhere were asked about.
 * @param backend null: the service that the client meant.
 */
export function findPlace({ clusters, observer }: PlaceHost, backend: ServiceTarget | null, account: RequestAccount, nowMs: number): FoundPlace {
  const { client: { destination, source }, head } = account;
  const target = backend ?? { ...destination, subset: null };
  const cluster = clusters.of({ service: target.service, port: target.port, subset: target.subset, clientNamespace: source.namespace });
  if (cluster === null) return refused("no_endpoints", `no DestinationRule defines the subset ${target.subset} of ${target.service}`);
  account.servedBy = cluster;
  if (!cluster.refresh(nowMs)) return refused("service_unknown", `the configuration has no service ${target.service}`);
  if (cluster.broken !== null) return refused("rule_broken", cluster.broken);
  if (cluster.tlsBroken !== null) return refused("tls_broken", cluster.tlsBroken);
  const place = new ClusterPlace(cluster);
  const refusal = place.rate(head, nowMs, observer);
  return refusal === null ? { kind: "place", place } : { kind: "refused", ...refusal };
}

function refused(code: ReasonCode, detail: string): FoundPlace {
  return { kind: "refused", answer: ownAnswer(code), detail };
}

const NO_HEADERS: readonly string[] = Object.freeze([]);

export class ClusterPlace {
  /** For the answer, of the limit that is nearest to refusing: name, value, …. */
  rateHeaders: readonly string[] = NO_HEADERS;
  readonly cluster: Cluster;
  readonly #permits: Permits;
  #admission: Admission | null = null;
  #remaining = Infinity;

  constructor(cluster: Cluster) {
    this.cluster = cluster;
    this.#permits = new Permits(cluster.breaker);
  }

  /** Null when the request may go on. */
  enter(head: RequestHead, nowMs: number): PlaceRefusal | null {
    return this.#circuit() ?? this.#admit(head, nowMs);
  }

  /** What the services that count have told; null for nothing. */
  counted(state: RateLimitState | null): void {
    if (state !== null && state.remaining < this.#remaining) this.rateHeaders = rateLimitHeaders(state);
  }

  /** Takes the place of a retry, if it has none yet. Null when it may be made. */
  retry(): LimitRefusal | null {
    return this.#permits.holds("activeRetries") ? null : this.#permits.acquire("activeRetries");
  }

  /** The request's time is over; how long it took tells how busy the service is. */
  timedOut(nowMs: number): void {
    this.#admission?.leave("timedOut", nowMs);
  }

  /** @param answered by the service, so that its latency counts. */
  leave(answered: boolean, nowMs: number): void {
    this.#permits[Symbol.dispose]();
    this.#admission?.leave(answered ? "answered" : "ignored", nowMs);
  }

  /** Null when it is within the rates that are counted here. */
  rate(head: RequestHead, nowMs: number, observer: RateLimitObserver): PlaceRefusal | null {
    const { rateLimiter } = this.cluster;
    if (rateLimiter === null) return null;
    const verdict = rateLimiter.decide(new ViewFacts(head, head.token?.payload ?? null), nowMs);
    if (verdict.limit === null) return null;
    tellRateLimit(observer, this.cluster, verdict.limit.name, verdict.allowed ? "allowed" : "refused");
    const headers = rateLimitHeaders(verdict.state);
    if (verdict.allowed) {
      this.rateHeaders = headers;
      this.#remaining = verdict.state.remaining;
      return null;
    }
    const pairs: [string, string][] = [];
    for (let i = 0; i < headers.length; i += 2) pairs.push([headers[i]!, headers[i + 1]!]);
    const { quota, windowMs } = verdict.state;
    return { answer: ownAnswer("rate_limited", { headers: pairs }), detail: `${verdict.limit.name}: ${quota} in ${Math.round(windowMs)} ms are used up` };
  }

  #circuit(): PlaceRefusal | null {
    const refusal = this.#permits.acquire("activeRequests");
    return refusal === null ? null : { answer: ownAnswer("circuit_open"), detail: `${this.cluster.name}: ${explainRefusal(refusal)}` };
  }

  #admit(head: RequestHead, nowMs: number): PlaceRefusal | null {
    const { adaptive, settings: { adaptiveConcurrency } } = this.cluster;
    if (adaptive === null) return null;
    const header = adaptiveConcurrency!.priorityHeader;
    this.#admission = new Admission();
    const shed = this.#admission.enter(adaptive, adaptive.classOf(header === null ? null : head.fields.value(header) ?? null), nowMs);
    return shed === null ? null : { answer: ownAnswer("concurrency_limited"), detail: `${this.cluster.name}: ${explainShed(shed)}` };
  }
}
