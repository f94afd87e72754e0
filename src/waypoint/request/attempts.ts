// The attempts of one request: the first, those that follow a failure after a wait, and with hedging those that are made beside one that
// has not answered. Decides whether another one is made, and where; what a server answered goes by its user.

import type { RetryPolicy } from "../../mesh/l7/route.ts";
import { explainRefusal } from "../../policy/upstream/circuit-breaker.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import { decideHedge, type HedgeDecision } from "../../policy/upstream/hedging.ts";
import { type AttemptEnd, decideRetry } from "../../policy/upstream/retry.ts";
import type { FailedAttempt } from "../../telemetry/request-record.ts";
import type { Cluster } from "../upstream/cluster.ts";
import type { ClusterPlace } from "../upstream/cluster-place.ts";
import type { Affinity } from "./affinity.ts";
import { AttemptRace } from "./attempt-race.ts";
import type { ForwardTime } from "./forward-time.ts";
import { ownAnswer, type OwnAnswer } from "./own-answer.ts";
import type { RequestAccount } from "./request-account.ts";
import { type AttemptFailure, type AttemptRequest, type AttemptUser, ServerAttempt } from "./server-attempt.ts";

export interface AttemptsUser extends AttemptUser {
  /** No attempt can be made, and none is under way. */
  answerOwn(answer: OwnAnswer, detail: string): void;
  /** Nothing is left of the request's time. */
  timedOut(nowMs: number): void;
}

/** What they are made by. */
export interface AttemptTerms {
  readonly what: AttemptRequest;
  readonly account: RequestAccount;
  readonly place: ClusterPlace;
  readonly retry: RetryPolicy;
  readonly time: ForwardTime;
  readonly affinity: Affinity;
}

const NO_TRIED: readonly UpstreamEndpoint[] = Object.freeze([]);
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);
/** Kept connections that may turn out to be closed, one after the other, before a new one is made. */
const STALE_RETRIES_MAX = 1;

export class Attempts {
  readonly #user: AttemptsUser;
  readonly #terms: AttemptTerms;
  readonly #cluster: Cluster;
  readonly #isIdempotent: boolean;
  readonly #race = new AttemptRace();
  #tried: UpstreamEndpoint[] | null = null;
  #staleRetries = 0;
  #hedges = 0;
  /** When another attempt is made beside those under way. */
  #hedgeMs = Infinity;
  /** End of a wait before another attempt. */
  #wakeMs = Infinity;

  constructor(user: AttemptsUser, terms: AttemptTerms) {
    this.#user = user;
    this.#terms = terms;
    this.#cluster = terms.place.cluster;
    this.#isIdempotent = IDEMPOTENT.has(terms.account.head.method);
  }

  /** Begun last, or the one whose answer goes on. */
  get lead(): ServerAttempt | null {
    return this.#race.lead;
  }

  /** Several are under way. */
  get isContested(): boolean {
    return this.#race.isContested;
  }

  /** None is under way: a wait has to end before the next one. */
  get isWaiting(): boolean {
    return this.#wakeMs !== Infinity;
  }

  /** The request may be sent after the event in which it came. */
  get mayComeLater(): boolean {
    return this.lead?.phase === "connecting" || this.#terms.retry.attempts > 0 || this.#isIdempotent;
  }

  get dueMs(): number {
    return Math.min(this.#wakeMs, this.#hedgeMs, this.#race.endsMs);
  }

  // ── What is due ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** True when a wait was over. */
  onWake(nowMs: number): boolean {
    if (nowMs < this.#wakeMs) return false;
    this.#wakeMs = Infinity;
    this.#cluster.refresh(nowMs);
    this.next(false, nowMs);
    return true;
  }

  /** One that takes too long; null for none. */
  late(nowMs: number): ServerAttempt | null {
    return this.#race.late(nowMs);
  }

  /** True when another server was to be asked beside. */
  onHedge(nowMs: number): boolean {
    if (nowMs < this.#hedgeMs) return false;
    this.#hedge(nowMs);
    return true;
  }

  // ── The next one ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** After a `refresh` of the cluster. @param fresh over a connection made for it. */
  next(fresh: boolean, nowMs: number): void {
    const { affinity, what, retry, time } = this.#terms;
    const cluster = this.#cluster;
    const left = time.ofAttempt(nowMs);
    if (left.kind === "expired") return this.#user.timedOut(nowMs);
    const pick = cluster.upstream.pick({
      nowMs, hash: affinity.hash, tried: this.#tried ?? NO_TRIED, sticky: affinity.endpoint, mayProbe: this.#isIdempotent && retry.attempts > 0,
    });
    if (pick.endpoint === null) {
      return this.#user.answerOwn(ownAnswer(pick.reason === "noneHealthy" ? "no_healthy_endpoint" : "no_endpoints"), cluster.explainNothing());
    }
    this.#enter(new ServerAttempt(this.#user, what, cluster, pick, left, nowMs)).start(fresh);
    if (cluster.settings.hedging !== null) this.#planHedge(nowMs);
  }

  #enter(attempt: ServerAttempt): ServerAttempt {
    this.#race.enter(attempt);
    this.#terms.account.attempts++;
    this.tell(attempt);
    return attempt;
  }

  /** It is the one to be told of. */
  tell(attempt: ServerAttempt): void {
    const { account } = this.#terms;
    account.attemptStartedMs = attempt.startedMs;
    account.endpoint = attempt.endpoint.target.workload;
    account.upstreamAddress = attempt.address;
    account.upstreamVersion = attempt.version;
  }

  // ── After a failure ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** True: the request goes on, by others that are under way or by one more. */
  goOn(attempt: ServerAttempt, { end, isStale }: AttemptFailure): boolean {
    return this.leave(attempt) || (isStale && this.#tryAgainFresh()) || (end !== null && this.retry(attempt, end));
  }

  /** As many were made as the policy allows, and more than one. */
  get areExhausted(): boolean {
    const { account: { attempts }, retry } = this.#terms;
    return attempts > 1 && attempts > retry.attempts;
  }

  /** It counts no more. True: others are still under way. */
  leave(attempt: ServerAttempt): boolean {
    const goesOn = this.#race.leave(attempt);
    if (goesOn) (this.#tried ??= []).push(attempt.endpoint);
    else this.#hedgeMs = Infinity;
    return goesOn;
  }

  /**
   * A kept connection that the server closed just then says nothing of the server, and nothing of the request was answered: requests that
   * may be sent twice go again at once, over a new connection, whatever the retry policy says (RFC 9110, section 9.2.2).
   */
  #tryAgainFresh(): boolean {
    const { nowMs: clock, body } = this.#terms.what;
    if (this.#staleRetries >= STALE_RETRIES_MAX || !this.#isIdempotent || !body.replayable) return false;
    this.#staleRetries++;
    const nowMs = clock();
    this.#cluster.refresh(nowMs);
    this.next(true, nowMs);
    return true;
  }

  /** True: another one follows, after a wait. */
  retry(attempt: ServerAttempt, end: AttemptEnd): boolean {
    const { what, account, place, retry: policy, time } = this.#terms;
    const nowMs = what.nowMs();
    const decision = decideRetry(end, {
      policy, attempts: account.attempts - this.#staleRetries - this.#hedges, isIdempotent: this.#isIdempotent, isReplayable: what.body.replayable,
      answerBegun: false, isInjected: false, otherEndpoint: this.#cluster.upstream.endpoints.some((other) => other !== attempt.endpoint && this.#tried?.includes(other) !== true), remainingMs: time.deadlineMs - nowMs,
    }, this.#cluster.budget, nowMs, what.random);
    if (!decision.retry) return false;
    const refusal = place.retry();
    if (refusal !== null) {
      account.note(explainRefusal(refusal));
      return false;
    }
    (this.#tried ??= []).push(attempt.endpoint);
    this.#wakeMs = nowMs + decision.delayMs;
    return true;
  }

  /** For the record: one that gave no answer which goes on. */
  failed({ address, endpoint, startedMs, spanId }: ServerAttempt, seen: Partial<Pick<FailedAttempt, "reason" | "message" | "status" | "grpcStatus">>): void {
    const { account, what } = this.#terms;
    account.failed({ address, endpoint: endpoint.target.workload, startedMs, endedMs: what.nowMs(), status: 0, grpcStatus: null, reason: null, message: "", spanId, ...seen });
  }

  // ── Beside those under way ────────────────────────────────────────────────────────────────────────────────────────────────

  /** Asks when another attempt is worth its while. */
  #planHedge(nowMs: number): void {
    const decision = this.#decideHedge(nowMs);
    this.#hedgeMs = decision.kind === "wait" ? decision.untilMs : Infinity;
  }

  #decideHedge(nowMs: number): HedgeDecision {
    const { what: { request, body }, account, time } = this.#terms;
    const { lead } = this.#race;
    return decideHedge({
      hedging: this.#cluster.settings.hedging, isIdempotent: this.#isIdempotent && request.upgrade === null, isReplayable: !request.hasBody || body.replayable,
      isAnswered: lead === null, attempts: account.attempts, usableEndpoints: this.#cluster.upstream.endpoints.length, lastAttemptMs: lead?.startedMs ?? nowMs, deadlineMs: time.deadlineMs,
    }, this.#cluster.budget, nowMs);
  }

  /** One more attempt, elsewhere. What stands in its way leaves those under way as they are. */
  #hedge(nowMs: number): void {
    this.#hedgeMs = Infinity;
    const { what, account, place, affinity: { hash }, time } = this.#terms;
    const first = this.#race.lead;
    const cluster = this.#cluster;
    const body = what.request.hasBody ? what.body.duplicate() : what.body;
    if (first === null || body === null || this.#decideHedge(nowMs).kind !== "now") return;
    const left = time.ofAttempt(nowMs);
    if (left.kind === "expired" || place.retry() !== null) return;
    const tried = [...(this.#tried ?? []), ...this.#race.endpoints];
    const pick = cluster.upstream.pick({ nowMs, hash, tried, sticky: null, mayProbe: false });
    if (pick.endpoint === null || tried.includes(pick.endpoint)) return;
    const { isGrpc, clientVersion, random, request, trace, clientTrace, nowMs: clock } = what;
    const hedge = new ServerAttempt(this.#user, { request, body, isGrpc, clientVersion, random, trace, clientTrace, nowMs: clock }, cluster, pick, left, nowMs);
    this.#hedges++;
    account.note(`${first.address} had not answered for ${Math.round(nowMs - first.startedMs)} ms: ${hedge.address} was asked too`);
    this.#enter(hedge).start(false);
    if (this.#race.lead === hedge) this.#planHedge(nowMs);
  }

  // ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The answer of one goes on; the others are not waited for. */
  win(attempt: ServerAttempt): void {
    attempt.take();
    this.#hedgeMs = Infinity;
    if (!this.#race.isContested) return;
    const others = this.#race.win(attempt);
    this.tell(attempt);
    for (const other of others) {
      this.failed(other, { message: "another one answered before it" });
      other.cancel();
    }
  }

  /** All are given up, and no other follows. */
  cancel(): void {
    this.#wakeMs = this.#hedgeMs = Infinity;
    this.#race.cancel();
  }
}
