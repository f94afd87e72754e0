// Where a plan sends a request, and its place within the limits on the way. What is said of requests to a service (rates, the concurrency
// that it takes at present) goes by the service that the client named and by the backend, in this order; what is said of connections and
// endpoints (requests and retries at once) by the backend alone. Asked for once, given back once.

import type { Provenance } from "../../core/fault.ts";
import type { GlobalRateLimit } from "../../mesh/l7/traffic-policy.ts";
import { Admission, explainShed } from "../../policy/upstream/adaptive-concurrency.ts";
import { explainRefusal, type LimitRefusal, Permits } from "../../policy/upstream/circuit-breaker.ts";
import { rateLimitHeaders, type RateLimitState } from "../../policy/upstream/rate-limit/headers.ts";
import { provenanceOfPart } from "../../policy/upstream/settings.ts";
import { ViewFacts } from "../../policy/upstream/view-facts.ts";
import { headerPairs } from "../../wire/http/header-list.ts";
import { parseHost } from "../../wire/http/host.ts";
import type { ForwardPlan } from "../../policy/http/plan.ts";
import type { Cluster } from "./cluster.ts";
import type { Clusters } from "./clusters.ts";
import type { ReasonCode } from "../../policy/http/reason-codes.ts";
import type { RequestObserver } from "../request/observer.ts";
import { ownAnswer, type OwnAnswer } from "../request/own-answer.ts";
import type { RequestAccount } from "../request/request-account.ts";
import type { RequestHead } from "../request/request-head.ts";

export interface PlaceHost {
  readonly clusters: Clusters;
  readonly observer: RateLimitObserver;
}

interface RateLimitObserver {
  readonly upstream: Pick<RequestObserver["upstream"], "rateLimit">;
}

/** @param cluster of the service that has the limit. */
export function tellRateLimit({ upstream }: RateLimitObserver, cluster: Cluster, limit: string, verdict: "allowed" | "refused" | "failed"): void {
  const { destination_service_namespace: namespace, destination_service_name: name } = cluster.labels;
  upstream.rateLimit({ namespace, name }, limit, verdict);
}

export interface PlaceRefusal {
  readonly answer: OwnAnswer;
  /** For the log. */
  readonly detail: string;
  /** The policy that refuses; null: whatever led here. */
  readonly provenance: Provenance | null;
}

/** A limit that a service counts, and whose policy has it. */
export interface OwnedLimit {
  readonly limit: GlobalRateLimit;
  readonly owner: Cluster;
}

export type FoundPlace = { readonly kind: "place"; readonly place: ClusterPlace } | ({ readonly kind: "refused" } & PlaceRefusal);

/**
 * Within the rates that are counted here; `enter` does the rest once those that are counted elsewhere were asked about.
 * @param plan without a backend: to the service that the client meant; with a host: it is that one's, where hosts are told by the request.
 */
export function findPlace({ clusters, observer }: PlaceHost, { backend, host }: Pick<ForwardPlan, "backend" | "host">, account: RequestAccount, nowMs: number): FoundPlace {
  const { client: { destination, source }, head } = account;
  const target = backend ?? { ...destination, subset: null };
  let cluster = clusters.of({ service: target.service, port: target.port, subset: target.subset, clientNamespace: source.namespace });
  if (cluster === null) return refused("no_endpoints", `no DestinationRule defines the subset ${target.subset} of ${target.service}`);
  if (cluster.settings.dynamicHosts !== null) {
    account.servedBy = cluster;
    const found = clusters.hostUnder(cluster, host === null ? head.host : hostName(host), nowMs);
    if (found.kind !== "cluster") return refused(found.kind === "exhausted" ? "hosts_exhausted" : "host_not_covered", found.why);
    cluster = found.cluster;
  }
  account.servedBy = cluster;
  if (!cluster.refresh(nowMs)) return refused("service_unknown", `the configuration has no service ${target.service}`);
  const named = account.named ?? cluster;
  const broken = named.broken ?? cluster.broken;
  if (broken !== null) return refused("rule_broken", broken);
  if (cluster.tlsBroken !== null) return refused("tls_broken", cluster.tlsBroken);
  const place = new ClusterPlace(cluster, named);
  const refusal = place.rate(head, nowMs, observer);
  return refusal === null ? { kind: "place", place } : { kind: "refused", ...refusal };
}

/** Of a host as a rule writes it; one that is none is under no wildcard. */
function hostName(text: string): string {
  const parsed = parseHost(text);
  return parsed.ok ? parsed.value.name : text;
}

function refused(code: ReasonCode, detail: string): FoundPlace {
  return { kind: "refused", answer: ownAnswer(code), detail, provenance: null };
}

const NO_HEADERS: readonly string[] = Object.freeze([]);
const NO_LIMITS: readonly OwnedLimit[] = Object.freeze([]);

export class ClusterPlace {
  /** For the answer, of the limit that is nearest to refusing: name, value, …. */
  rateHeaders: readonly string[] = NO_HEADERS;
  /** The backend. */
  readonly cluster: Cluster;
  /** Of the service that the client named: often the backend itself. */
  readonly named: Cluster;
  readonly #permits: Permits;
  #admissions: Admission[] | null = null;
  #remaining = Infinity;

  constructor(cluster: Cluster, named: Cluster) {
    this.cluster = cluster;
    this.named = named;
    this.#permits = new Permits(cluster.breaker);
  }

  /** Null when the request may go on. */
  enter(head: RequestHead, nowMs: number): PlaceRefusal | null {
    const { cluster, named } = this;
    const refusal = this.#circuit();
    if (refusal !== null) return refusal;
    if (named.adaptive !== null) {
      const shed = this.#admit(named, head, nowMs);
      if (shed !== null) return shed;
    }
    // A subset has the limit of its service: that one has let it in.
    if (cluster.adaptive === null || cluster === named || (this.#sameService && cluster.settings.adaptiveConcurrency === named.settings.adaptiveConcurrency)) return null;
    return this.#admit(cluster, head, nowMs);
  }

  /** What the services that count have told; null for nothing. */
  counted(state: RateLimitState | null): void {
    if (state !== null && state.remaining < this.#remaining) this.#nearest(state);
  }

  /** Takes the place of a retry, if it has none yet. Null when it may be made. */
  retry(): LimitRefusal | null {
    return this.#permits.holds("activeRetries") ? null : this.#permits.acquire("activeRetries");
  }

  /** The request's time is over; how long it took tells how busy the service is. */
  timedOut(nowMs: number): void {
    if (this.#admissions !== null) for (const admission of this.#admissions) admission.leave("timedOut", nowMs);
  }

  /** @param answered by the service, so that its latency counts. */
  leave(answered: boolean, nowMs: number): void {
    this.#permits[Symbol.dispose]();
    if (this.#admissions !== null) for (const admission of this.#admissions) admission.leave(answered ? "answered" : "ignored", nowMs);
  }

  /** Null when it is within the rates that are counted here. */
  rate(head: RequestHead, nowMs: number, observer: RateLimitObserver): PlaceRefusal | null {
    const { cluster, named } = this;
    if (named.rateLimiter !== null) {
      const refusal = this.#rate(named, head, nowMs, observer);
      if (refusal !== null) return refusal;
    }
    return cluster.rateLimiter === null || cluster === named || !this.#hasLimitsOfItsOwn ? null : this.#rate(cluster, head, nowMs, observer);
  }

  /** Those of the named service first; what would be the same question is asked once. */
  get globalLimits(): readonly OwnedLimit[] {
    const { cluster, named } = this;
    const ofNamed = named.settings.globalRateLimits;
    const ofBackend = cluster === named ? [] : cluster.settings.globalRateLimits;
    if (ofNamed.length + ofBackend.length === 0) return NO_LIMITS;
    const limits: OwnedLimit[] = ofNamed.map((limit) => ({ limit, owner: named }));
    for (const limit of ofBackend) if (!ofNamed.some((other) => other === limit || questionOf(other) === questionOf(limit))) limits.push({ limit, owner: cluster });
    return limits;
  }

  /** What policies say of the named service, where the backend's record does not already have it: null for the same service and port. */
  get namedApart(): Cluster | null {
    return this.#sameService && this.cluster.target.port === this.named.target.port ? null : this.named;
  }

  get #sameService(): boolean {
    return this.cluster.owner === this.named.owner;
  }

  /** A subset has the limits of its service, which have counted it already. */
  get #hasLimitsOfItsOwn(): boolean {
    const known = this.named.settings.localRateLimits;
    return !this.#sameService || this.cluster.settings.localRateLimits.some((limit) => !known.includes(limit));
  }

  #nearest(state: RateLimitState): void {
    this.rateHeaders = rateLimitHeaders(state);
    this.#remaining = state.remaining;
  }

  #rate(owner: Cluster, head: RequestHead, nowMs: number, observer: RateLimitObserver): PlaceRefusal | null {
    const verdict = owner.rateLimiter!.decide(new ViewFacts(head, head.token?.payload ?? null), nowMs);
    const { limit } = verdict;
    if (limit === null) return null;
    tellRateLimit(observer, owner, limit.name, verdict.allowed ? "allowed" : "refused");
    if (verdict.allowed) {
      if (verdict.state.remaining < this.#remaining) this.#nearest(verdict.state);
      return null;
    }
    const { quota, windowMs } = verdict.state;
    return {
      answer: ownAnswer("rate_limited", { headers: headerPairs(rateLimitHeaders(verdict.state)) }), detail: `${limit.name}: ${quota} in ${Math.round(windowMs)} ms are used up`,
      provenance: provenanceOfPart(owner.settings, "localRateLimits", limit.name, limit.fieldPath),
    };
  }

  #circuit(): PlaceRefusal | null {
    const refusal = this.#permits.acquire("activeRequests");
    return refusal === null ? null : { answer: ownAnswer("circuit_open"), detail: `${this.cluster.name}: ${explainRefusal(refusal)}`, provenance: this.cluster.settings.provenance["limits"] ?? null };
  }

  #admit(owner: Cluster, head: RequestHead, nowMs: number): PlaceRefusal | null {
    const { settings } = owner;
    const adaptive = owner.adaptive!;
    const header = settings.adaptiveConcurrency!.priorityHeader;
    const admission = new Admission();
    (this.#admissions ??= []).push(admission);
    const shed = admission.enter(adaptive, adaptive.classOf(header === null ? null : head.fields.value(header) ?? null), nowMs);
    return shed === null ? null : { answer: ownAnswer("concurrency_limited"), detail: `${owner.name}: ${explainShed(shed)}`, provenance: settings.provenance["adaptiveConcurrency"] ?? null };
  }
}

/** What a service is asked by a limit, as text; made once for each. */
const questions = new WeakMap<GlobalRateLimit, string>();

function questionOf(limit: GlobalRateLimit): string {
  let text = questions.get(limit);
  if (text === undefined) {
    const { service, port, domain, descriptors, hits, hitsHeader, matches } = limit;
    questions.set(limit, (text = JSON.stringify([service, port, domain, descriptors, hits, hitsHeader, matches])));
  }
  return text;
}
