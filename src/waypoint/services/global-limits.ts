// The rate limits of one request that services count: asked one after the other, until one refuses or all have let it through.

import type { GlobalRateLimit } from "../../mesh/l7/traffic-policy.ts";
import type { GlobalRateLimitVerdict } from "../../policy/upstream/rate-limit/global.ts";
import { rateLimitHeaders, type RateLimitState } from "../../policy/upstream/rate-limit/headers.ts";
import { type CompiledMatches, compileMatches, ViewFacts } from "../../policy/upstream/view-facts.ts";
import { provenanceOfPart } from "../../policy/upstream/settings.ts";
import { headerPairs } from "../../wire/http/header-list.ts";
import { applyAnswerHeaders, pairsOf } from "../request/answer-headers.ts";
import type { ClientAnswer } from "../request/client-answer.ts";
import { type OwnedLimit, tellRateLimit } from "../upstream/cluster-place.ts";
import type { RequestObserver } from "../request/observer.ts";
import { ownAnswer, type OwnAnswer } from "../request/own-answer.ts";
import { askRateLimit } from "./rate-limit-call.ts";
import type { RequestAccount } from "../request/request-account.ts";
import type { PendingAnswer } from "./message-loader.ts";
import type { CallHost } from "./service-call.ts";
import { traceMetadata } from "../request/trace-metadata.ts";

export interface LimitsHost extends CallHost {
  readonly observer: { readonly upstream: Pick<RequestObserver["upstream"], "serviceCall" | "rateLimit"> };
}

export interface LimitedRequest {
  readonly account: RequestAccount;
  readonly answer: Pick<ClientAnswer, "serviceHeaders">;
}

export type LimitsOutcome =
  /** `state`: of the limit that is nearest to refusing, as its service tells; null when none does. */
  | { readonly kind: "within"; readonly state: RateLimitState | null }
  | { readonly kind: "refused"; readonly answer: OwnAnswer; /** For the log. */ readonly detail: string };

/** Compiled once for each limit; its record is a new one when the configuration says something else. */
const compiled = new WeakMap<GlobalRateLimit, CompiledMatches>();

export class GlobalLimits {
  readonly #host: LimitsHost;
  readonly #user: LimitedRequest;
  readonly #limits: readonly OwnedLimit[];
  readonly #done: (outcome: LimitsOutcome) => void;
  #next = 0;
  #call: PendingAnswer | null = null;
  #state: RateLimitState | null = null;

  /** @param done once, maybe before `start` returns; not after `cancel`. */
  constructor(host: LimitsHost, user: LimitedRequest, limits: readonly OwnedLimit[], done: (outcome: LimitsOutcome) => void) {
    this.#host = host;
    this.#user = user;
    this.#limits = limits;
    this.#done = done;
  }

  start(): void {
    const { head } = this.#user.account;
    const facts = new ViewFacts(head, head.token?.payload ?? null);
    while (this.#next < this.#limits.length) {
      const owned = this.#limits[this.#next++]!;
      const { limit } = owned;
      if (!matchesOf(limit).applies(facts)) continue;
      this.#call = askRateLimit(this.#host, limit, facts, traceMetadata(head.fields, this.#user.account.trace), (verdict) => this.#answered(owned, verdict));
      if (this.#call !== null) return;
    }
    this.#done({ kind: "within", state: this.#state });
  }

  cancel(): void {
    this.#call?.cancel();
    this.#call = null;
  }

  #answered({ limit, owner }: OwnedLimit, verdict: GlobalRateLimitVerdict): void {
    this.#call = null;
    const { account, answer } = this.#user;
    tellRateLimit(this.#host.observer, owner, limit.name, verdict.reason === "serviceFailed" ? "failed" : verdict.allowed ? "allowed" : "refused");
    if (!verdict.allowed) {
      const pairs = pairsOf(verdict.responseHeaders);
      const own = verdict.state === null ? [] : headerPairs(rateLimitHeaders(verdict.state));
      for (const pair of own) if (!pairs.some(([name]) => name === pair[0])) pairs.push(pair);
      const failed = verdict.reason === "serviceFailed";
      account.provenance = provenanceOfPart(owner.settings, "globalRateLimits", limit.name, limit.fieldPath) ?? account.provenance;
      this.#done({
        kind: "refused", detail: verdict.message,
        answer: ownAnswer(failed ? "rate_limit_failed" : "rate_limited", { status: verdict.status, headers: pairs, body: verdict.body.length === 0 ? null : verdict.body }),
      });
      return;
    }
    account.note(verdict.message);
    applyAnswerHeaders(account.head.fields, verdict.requestHeaders);
    if (verdict.responseHeaders.length > 0) answer.serviceHeaders = [...answer.serviceHeaders, ...verdict.responseHeaders];
    if (verdict.state !== null && (this.#state === null || verdict.state.remaining < this.#state.remaining)) this.#state = verdict.state;
    this.start();
  }
}

function matchesOf(limit: GlobalRateLimit): CompiledMatches {
  let known = compiled.get(limit);
  if (known === undefined) compiled.set(limit, (known = compileMatches(limit.matches)));
  return known;
}
