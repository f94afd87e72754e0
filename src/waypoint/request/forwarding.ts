// A request on its way to servers, once the rules have said where to: the limits of the service, attempts and the waits between them, the
// deadline of it all, copies to mirrors, and the one answer that goes back.

import { formatProvenance, type Provenance } from "../../core/fault.ts";
import type { Random } from "../../core/ports.ts";
import { unreachable } from "../../core/result.ts";
import { INHERITED_TIMEOUTS, type RetryPolicy } from "../../mesh/l7/route.ts";
import type { ForwardPlan, PlannedSession } from "../../policy/http/plan.ts";
import type { ReasonCode } from "../../policy/http/reason-codes.ts";
import { readSession, sessionHeader } from "../../policy/http/session.ts";
import { type HashCookie, hashCookieText, hashOfRequest } from "../../policy/upstream/balancers/hash-key.ts";
import { explainRefusal } from "../../policy/upstream/circuit-breaker.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import { parseGrpcTimeout } from "../../policy/upstream/grpc-timeout.ts";
import { decideHedge, type HedgeDecision } from "../../policy/upstream/hedging.ts";
import { isFailure, type Outcome, outcomeOfAnswer } from "../../policy/upstream/outcome.ts";
import { type AttemptEnd, decideRetry } from "../../policy/upstream/retry.ts";
import { NO_RETRY_AFTER, parseGrpcPushback, parseRetryAfter } from "../../policy/upstream/retry-after.ts";
import { effectiveRetry, effectiveTimeouts, type TimeoutSettings } from "../../policy/upstream/settings.ts";
import { type AttemptTime, attemptTime, provenanceOfTimeout, requestDeadline, type TimeLimit } from "../../policy/upstream/timeouts.ts";
import { ViewFacts } from "../../policy/upstream/view-facts.ts";
import type { FailedAttempt } from "../../telemetry/request-record.ts";
import type { RequestTrace } from "../../telemetry/request-trace.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import { parseGrpcStatusField } from "../../wire/grpc/status.ts";
import type { Traceparent } from "../../wire/trace/traceparent.ts";
import { type HeaderList, headerValue } from "../../wire/http/header-list.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import { AttemptRace } from "./attempt-race.ts";
import type { ClientAnswer } from "./client-answer.ts";
import type { Cluster } from "../upstream/cluster.ts";
import type { ClusterPlace } from "../upstream/cluster-place.ts";
import { changeFields } from "./fields-change.ts";
import { type Mirror, startMirrors } from "./mirror.ts";
import { outgoingOf } from "./outgoing.ts";
import { ownAnswer, type OwnAnswer } from "./own-answer.ts";
import type { RequestAccount } from "./request-account.ts";
import type { RequestBody } from "./request-body.ts";
import type { RequestHost } from "./request-host.ts";
import { type AttemptFailure, type AttemptRequest, type AttemptUser, ServerAttempt } from "./server-attempt.ts";
import type { HttpVersion } from "../channel/streams.ts";

/** The request that is forwarded, as its forwarding may touch it. */
export interface ForwardingUser {
  readonly account: RequestAccount;
  readonly answer: ClientAnswer;
  readonly body: RequestBody;
  /** The head must outlive this call: it is sent later, or again. */
  keepHead(): void;
  /** Answers by ourselves, or, when an answer has begun, cuts it. */
  answerOwn(answer: OwnAnswer, detail: string): void;
  /** The answer that has begun cannot be completed. */
  cut(code: ReasonCode): void;
  /** Bytes moved. */
  touch(nowMs: number): void;
  /** Something happened outside of the calls of its user. */
  rearm(): void;
}

const NO_TRIED: readonly UpstreamEndpoint[] = Object.freeze([]);
const NO_TRAILERS: HeaderList = [];
const NO_MIRRORS: readonly Mirror[] = Object.freeze([]);
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);
/** Kept connections that may turn out to be closed, one after the other, before a new one is made. */
const STALE_RETRIES_MAX = 1;

type Phase = "connecting" | "awaiting" | "backoff" | "responding" | "tunnel" | "over";

export class Forwarding implements AttemptUser, AttemptRequest {
  readonly isGrpc: boolean;
  readonly clientVersion: HttpVersion;
  readonly random: Random;
  readonly nowMs: () => number;
  readonly body: RequestBody;
  readonly request: HttpRequest;
  readonly trace: RequestTrace | null;
  readonly clientTrace: Traceparent | null;
  readonly #host: RequestHost;
  readonly #user: ForwardingUser;
  readonly #account: RequestAccount;
  readonly #plan: ForwardPlan;
  readonly #place: ClusterPlace;
  readonly #cluster: Cluster;
  readonly #retry: RetryPolicy;
  readonly #timeouts: TimeoutSettings;
  #phase: Phase = "connecting";
  #deadlineMs: number;
  /** The client's own grpc-timeout, where it is the shorter one. */
  readonly #clientMs: number | null;
  #mirrors = NO_MIRRORS;
  #hash = 0;
  #cookie: HashCookie | null = null;
  readonly #session: PlannedSession | null;
  /** The answer of a call that is gRPC has begun, and neither a message nor its status has come. */
  #owesStatus = false;
  readonly #race = new AttemptRace();
  #hedges = 0;
  /** When another attempt is made beside those under way. */
  #hedgeMs = Infinity;
  #tried: UpstreamEndpoint[] | null = null;
  #staleRetries = 0;
  /** End of a wait before another attempt. */
  #wakeMs = Infinity;

  /** @param received as the client sent it; its fields are changed as the plan says. */
  constructor(host: RequestHost, user: ForwardingUser, plan: ForwardPlan, place: ClusterPlace, received: HttpRequest, nowMs: number) {
    const { account, body } = user;
    const { head } = account;
    this.#host = host;
    this.#user = user;
    this.#account = account;
    this.#plan = plan;
    this.#place = place;
    this.body = body;
    this.isGrpc = account.isGrpc;
    this.trace = account.trace;
    this.clientTrace = account.client.trace;
    this.clientVersion = account.version;
    this.random = host.random;
    this.nowMs = host.nowMs;
    const { cluster } = place;
    this.#cluster = cluster;
    cluster.budget.request(nowMs);
    changeFields(head.fields, plan.requestHeaders);
    this.#timeouts = effectiveTimeouts(plan.timeouts ?? INHERITED_TIMEOUTS, place.namedApart?.settings.said ?? null, cluster.settings);
    this.#retry = effectiveRetry(plan.retry, cluster.settings);
    const grpcTimeout = this.isGrpc ? head.fields.value("grpc-timeout") : undefined;
    const clientMs = grpcTimeout === undefined ? null : parseGrpcTimeout(grpcTimeout);
    this.#deadlineMs = requestDeadline(this.#timeouts, clientMs, nowMs);
    this.#clientMs = clientMs !== null && (this.#timeouts.requestMs === 0 || clientMs < this.#timeouts.requestMs) ? clientMs : null;
    this.request = outgoingOf(received, {
      path: plan.path, query: head.query === received.target.query ? plan.query : head.query, host: plan.host, serviceHost: cluster.host,
    });
    if (this.#retry.attempts === 0 && cluster.settings.hedging === null) body.forget();
    this.#session = plan.session ?? this.#serviceSession(host);
    this.#balance();
  }

  get phase(): Phase {
    const phase = this.#race.lead?.phase;
    return this.#phase === "connecting" && phase === "awaiting" ? phase : this.#phase;
  }

  /** A stream on which no byte moves for so long is given up; 0: never. */
  get streamIdleMs(): number {
    return this.#timeouts.streamIdleMs;
  }

  get dueMs(): number {
    return Math.min(this.#wakeMs, this.#hedgeMs, this.#deadlineMs, this.#race.endsMs);
  }

  /** In the event in which its place was found, or looked at again. */
  start(nowMs: number): void {
    this.#mirrors = startMirrors(this.#host, this, this.#plan.mirrors, this.#account);
    if (this.#mirrors.length > 0) this.#mirrorReceived();
    this.#try(false, nowMs);
    // Whatever waits now, or may be sent again later, needs the head after this call.
    if (this.#phase !== "over" && (this.#race.lead?.phase === "connecting" || this.#retry.attempts > 0 || this.#isIdempotent)) this.#user.keepHead();
  }

  /** True when something was due. */
  onDue(nowMs: number): boolean {
    if (nowMs >= this.#wakeMs) {
      this.#wakeMs = Infinity;
      this.#cluster.refresh(nowMs);
      this.#try(false, nowMs);
    } else if (nowMs >= this.#deadlineMs) {
      this.#timedOut(nowMs);
    } else {
      const late = this.#race.late(nowMs);
      if (late !== null) this.#attemptTimedOut(late, nowMs);
      else if (nowMs >= this.#hedgeMs) this.#hedge(nowMs);
      else return false;
    }
    return true;
  }

  onRequestBody(bytes: Uint8Array): void {
    for (const mirror of this.#mirrors) mirror.body(bytes);
  }

  /** What came of the body while others were asked. */
  #mirrorReceived(): void {
    const { bytes } = this.body.peek(Infinity);
    if (bytes.length > 0) this.onRequestBody(bytes);
    if (this.request.hasBody && this.body.ended) this.onRequestEnd(this.body.trailers);
  }

  onRequestEnd(trailers: HeaderList): void {
    for (const mirror of this.#mirrors) mirror.bodyEnd(trailers);
  }

  /** An answer of our own is given: whatever is under way towards servers is given up. */
  giveUp(code: ReasonCode): void {
    // The client gets ours: whatever this one was about to say.
    const { lead } = this.#race;
    if (lead !== null) this.#failed(lead, { reason: code });
    this.#abandon();
  }

  #abandon(): void {
    this.#phase = "over";
    this.#wakeMs = this.#deadlineMs = this.#hedgeMs = Infinity;
    this.#race.cancel();
  }

  /** The request has ended. */
  end(nowMs: number): void {
    this.#abandon();
    this.#place.leave(this.#account.code === null && this.#account.answeredMs > 0, nowMs);
    if (this.request.hasBody && !this.body.ended) for (const mirror of this.#mirrors) mirror.abandon();
  }

  /** A session that the service itself asks for, where the rule has none: by endpoint, whichever rule led here. */
  #serviceSession({ sessionSigner: signer, wallMs }: RequestHost): PlannedSession | null {
    const { name, settings: { sessionPersistence: persistence, provenance } } = this.#cluster;
    if (persistence === null || signer === null) return null;
    const from = provenance["sessionPersistence"];
    const scope = { persistence, owner: `${name} ${from === undefined ? "" : `${from.kind}/${from.namespace}/${from.name}`}`, signer };
    return { scope, backend: name, current: readSession(this.#account.head.fields, scope, wallMs()) };
  }

  #balance(): void {
    const { balancing } = this.#cluster.settings;
    if (balancing.kind !== "ringHash" && balancing.kind !== "maglev") return;
    const { head } = this.#account;
    const hashed = hashOfRequest(balancing.key, new ViewFacts(head, head.token?.payload ?? null), this.random);
    this.#hash = hashed.hash;
    if (hashed.kind === "newCookie") this.#cookie = hashed.cookie;
  }

  // ── Attempts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** After a `refresh` of the cluster. @param fresh over a connection made for it. */
  #try(fresh: boolean, nowMs: number): void {
    const account = this.#account;
    const cluster = this.#cluster;
    const time = this.#attemptTime(nowMs);
    if (time.kind === "expired") return this.#timedOut(nowMs);
    const pick = cluster.upstream.pick({
      nowMs, hash: this.#hash, tried: this.#tried ?? NO_TRIED, sticky: this.#session?.current?.endpoint ?? null,
      mayProbe: this.#isIdempotent && this.#retry.attempts > 0,
    });
    if (pick.endpoint === null) {
      return this.#user.answerOwn(ownAnswer(pick.reason === "noneHealthy" ? "no_healthy_endpoint" : "no_endpoints"), cluster.explainNothing());
    }
    const attempt = new ServerAttempt(this, this, cluster, pick, time, nowMs);
    this.#race.enter(attempt);
    account.attempts++;
    this.#tell(attempt);
    this.#phase = "connecting";
    attempt.start(fresh);
    if (cluster.settings.hedging !== null) this.#planHedge(nowMs);
  }

  #attemptTime(nowMs: number): AttemptTime {
    return attemptTime({ deadlineMs: this.#deadlineMs, perTryTimeoutMs: this.#retry.perTryTimeoutMs, backendRequestMs: this.#timeouts.backendRequestMs }, nowMs);
  }

  #tell(attempt: ServerAttempt): void {
    const account = this.#account;
    account.attemptStartedMs = attempt.startedMs;
    account.endpoint = attempt.endpoint.target.workload;
    account.upstreamAddress = attempt.address;
    account.upstreamVersion = attempt.version;
  }

  get #isIdempotent(): boolean {
    return IDEMPOTENT.has(this.#account.head.method);
  }

  /** Out of the race. True: others are still in it. */
  #leave(attempt: ServerAttempt): boolean {
    const goesOn = this.#race.leave(attempt);
    if (goesOn) (this.#tried ??= []).push(attempt.endpoint);
    else this.#hedgeMs = Infinity;
    return goesOn;
  }

  attemptFailed(attempt: ServerAttempt, { end, code, message, isStale, status }: AttemptFailure): void {
    this.#failed(attempt, { reason: code, message });
    this.#account.note(message);
    if (this.#leave(attempt)) return;
    if (isStale && this.#tryAgainFresh()) return;
    if (end !== null && this.#retryAfter(attempt, end)) return;
    const { attempts } = this.#account;
    if (attempts > 1 && attempts > this.#retry.attempts) this.#account.flag("URX");
    if (code === "per_try_timeout") this.#blameTimeout(limitOf(attempt));
    this.#user.answerOwn(ownAnswer(code, { status }), "");
  }

  /**
   * A kept connection that the server closed just then says nothing of the server, and nothing of the request was answered: requests that
   * may be sent twice go again at once, over a new connection, whatever the retry policy says (RFC 9110, section 9.2.2).
   */
  #tryAgainFresh(): boolean {
    if (this.#staleRetries >= STALE_RETRIES_MAX || !this.#isIdempotent || !this.body.replayable) return false;
    this.#staleRetries++;
    const nowMs = this.nowMs();
    this.#cluster.refresh(nowMs);
    this.#try(true, nowMs);
    return true;
  }

  #failed({ address, endpoint, startedMs, spanId }: ServerAttempt, seen: Partial<Pick<FailedAttempt, "reason" | "message" | "status" | "grpcStatus">>): void {
    this.#account.failed({ address, endpoint: endpoint.target.workload, startedMs, endedMs: this.nowMs(), status: 0, grpcStatus: null, reason: null, message: "", spanId, ...seen });
  }

  /** True: another attempt follows. */
  #retryAfter(attempt: ServerAttempt, end: AttemptEnd): boolean {
    const nowMs = this.nowMs();
    const decision = decideRetry(end, {
      policy: this.#retry, attempts: this.#account.attempts - this.#staleRetries - this.#hedges, isIdempotent: this.#isIdempotent, isReplayable: this.body.replayable,
      answerBegun: false, isInjected: false, otherEndpoint: this.#cluster.upstream.endpoints.some((other) => other !== attempt.endpoint && this.#tried?.includes(other) !== true), remainingMs: this.#deadlineMs - nowMs,
    }, this.#cluster.budget, nowMs, this.random);
    if (!decision.retry) return false;
    const refusal = this.#place.retry();
    if (refusal !== null) {
      this.#account.note(explainRefusal(refusal));
      return false;
    }
    (this.#tried ??= []).push(attempt.endpoint);
    this.#phase = "backoff";
    this.#wakeMs = nowMs + decision.delayMs;
    return true;
  }

  // ── Hedging ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Asks when another attempt is worth its while. */
  #planHedge(nowMs: number): void {
    const decision = this.#decideHedge(nowMs);
    this.#hedgeMs = decision.kind === "wait" ? decision.untilMs : Infinity;
  }

  #decideHedge(nowMs: number): HedgeDecision {
    const { request, body } = this;
    const attempt = this.#race.lead;
    return decideHedge({
      hedging: this.#cluster.settings.hedging, isIdempotent: this.#isIdempotent && request.upgrade === null, isReplayable: !request.hasBody || body.replayable,
      isAnswered: attempt === null || this.#phase !== "connecting", attempts: this.#account.attempts, usableEndpoints: this.#cluster.upstream.endpoints.length,
      lastAttemptMs: attempt?.startedMs ?? nowMs, deadlineMs: this.#deadlineMs,
    }, this.#cluster.budget, nowMs);
  }

  /** One more attempt, elsewhere, beside those under way. What stands in its way leaves these as they are. */
  #hedge(nowMs: number): void {
    this.#hedgeMs = Infinity;
    const first = this.#race.lead;
    const cluster = this.#cluster;
    const body = this.request.hasBody ? this.body.duplicate() : this.body;
    if (first === null || body === null || this.#decideHedge(nowMs).kind !== "now") return;
    const time = this.#attemptTime(nowMs);
    if (time.kind === "expired" || this.#place.retry() !== null) return;
    const tried = [...(this.#tried ?? []), ...this.#race.endpoints];
    const pick = cluster.upstream.pick({ nowMs, hash: this.#hash, tried, sticky: null, mayProbe: false });
    if (pick.endpoint === null || tried.includes(pick.endpoint)) return;
    const { isGrpc, clientVersion, random, request, trace, clientTrace } = this;
    const hedge = new ServerAttempt(this, { request, body, isGrpc, clientVersion, random, trace, clientTrace, nowMs: this.nowMs }, cluster, pick, time, nowMs);
    this.#race.enter(hedge);
    this.#account.attempts++;
    this.#hedges++;
    this.#account.note(`${first.address} had not answered for ${Math.round(nowMs - first.startedMs)} ms: ${hedge.address} was asked too`);
    this.#tell(hedge);
    hedge.start(false);
    if (this.#race.lead === hedge) this.#planHedge(nowMs);
  }

  // ── The answer ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  attemptInformed(_attempt: ServerAttempt, response: HttpResponse): void {
    // Of several it is not known yet whose answer follows.
    if (!this.#race.isContested) this.#user.answer.inform(response);
  }

  attemptAnswered(attempt: ServerAttempt, response: HttpResponse, endStream: boolean): void {
    const account = this.#account;
    account.upstreamVersion = attempt.version;
    account.connectionTraceId = attempt.connectionTraceId;
    const nowMs = this.nowMs();
    const { status, fields } = response;
    const grpcStatus = this.isGrpc && endStream ? parseGrpcStatusField(fields.value("grpc-status")) : null;
    const retryAfterMs = this.#retryAfterOf(status, fields);
    const mayRetry = (grpcStatus !== null && grpcStatus !== 0) || status >= 400;
    const outcome = outcomeOfAnswer(status, grpcStatus, this.#cluster.settings.outliers.errorStatuses);
    // Of gRPC the status is yet to come; a message before it says that the call was served.
    this.#owesStatus = this.isGrpc && !endStream && status === 200;
    if (!this.#owesStatus) attempt.settle(outcome, nowMs, Math.max(NO_RETRY_AFTER, retryAfterMs));
    const failed = isFailure(outcome) || outcome === "overloaded";
    const { isContested } = this.#race;
    if ((failed && isContested) || (mayRetry && !isContested && this.#retryAfter(attempt, { kind: "answer", status, grpcStatus, retryAfterMs }))) {
      this.#failed(attempt, { status, grpcStatus });
      account.note(`${attempt.address} answered ${grpcStatus === null ? status : `grpc-status ${grpcStatus}`}`);
      this.#leave(attempt);
      // An answer that is whole leaves its connection as it was; the rest of another is not waited for.
      attempt.discard(endStream);
      return this.#user.rearm();
    }
    this.#win(attempt);
    if (this.trace !== null) this.trace.attemptSpanId = attempt.spanId;
    this.#phase = "responding";
    this.body.forget();
    const { answer } = this.#user;
    answer.begin(status, nowMs);
    if (grpcStatus !== null) account.grpcEnded(grpcStatus, fields.value("grpc-message") ?? null);
    answer.decorate(fields);
    this.#addOwnFields(fields, attempt);
    const source = endStream ? null : attempt.source;
    if (endStream) this.#release(attempt, nowMs);
    answer.respond(response, endStream, source, this.#plan.bytesPerSecond, nowMs);
  }

  /** Its answer goes on; the others are not waited for. */
  #win(attempt: ServerAttempt): void {
    attempt.take();
    this.#hedgeMs = Infinity;
    if (!this.#race.isContested) return;
    const others = this.#race.win(attempt);
    this.#tell(attempt);
    for (const other of others) this.#drop(other);
  }

  /** Another was faster. */
  #drop(attempt: ServerAttempt): void {
    this.#failed(attempt, { message: "another one answered before it" });
    attempt.cancel();
  }

  attemptTunnelled(attempt: ServerAttempt, response: HttpResponse): void {
    const nowMs = this.nowMs();
    const { answer } = this.#user;
    this.#phase = "tunnel";
    this.#deadlineMs = Infinity;
    this.body.forget();
    answer.begin(this.clientVersion === "HTTP/2" ? 200 : 101, nowMs);
    answer.decorate(response.fields);
    answer.openTunnel(response, attempt.source!, this.#plan.bytesPerSecond, nowMs);
  }

  attemptBody(attempt: ServerAttempt, bytes: Uint8Array): void {
    const nowMs = this.nowMs();
    if (this.#owesStatus) this.#served(attempt, "success", nowMs);
    this.#user.touch(nowMs);
    this.#account.sentMessages?.push(bytes);
    this.#user.answer.receive(bytes);
    if (this.#plan.bytesPerSecond !== null) this.#user.rearm();
  }

  attemptEnded(attempt: ServerAttempt, trailers: HeaderList): void {
    const { answer } = this.#user;
    const nowMs = this.nowMs();
    if (this.isGrpc) {
      const grpcStatus = parseGrpcStatusField(headerValue(trailers, "grpc-status"));
      if (this.#owesStatus) this.#served(attempt, outcomeOfAnswer(200, grpcStatus, this.#cluster.settings.outliers.errorStatuses), nowMs);
      if (trailers.length > 0) this.#account.grpcEnded(grpcStatus, headerValue(trailers, "grpc-message") ?? null);
    }
    if (!answer.begun) return;
    if (this.#phase === "tunnel") {
      answer.receiveEnd(NO_TRAILERS, nowMs);
      return this.#user.rearm();
    }
    // Not our own calls into its engine any more: it goes on by itself with the next request.
    this.#release(attempt, nowMs);
    answer.receiveEnd(trailers, nowMs);
    if (!answer.finished) this.#user.rearm();
  }

  #served(attempt: ServerAttempt, outcome: Outcome, nowMs: number): void {
    this.#owesStatus = false;
    attempt.settle(outcome, nowMs);
  }

  attemptBroke(attempt: ServerAttempt, code: ReasonCode, message: string): void {
    // Too late for another answer: the client must not take the part for the whole.
    this.#race.leave(attempt);
    this.#account.note(message);
    this.#user.cut(code);
  }

  rearm(): void {
    this.#user.rearm();
  }

  /** Nothing more is wanted from the server. */
  #release(attempt: ServerAttempt, nowMs: number): void {
    this.#race.leave(attempt);
    attempt.release(nowMs);
  }

  #retryAfterOf(status: number, fields: HttpFields): number {
    const pushback = this.isGrpc ? fields.value("grpc-retry-pushback-ms") : undefined;
    if (pushback !== undefined) return parseGrpcPushback(pushback);
    if (status !== 429 && status !== 503) return NO_RETRY_AFTER;
    const text = fields.value("retry-after");
    return text === undefined ? NO_RETRY_AFTER : parseRetryAfter(text, this.#host.wallMs());
  }

  #addOwnFields(fields: HttpFields, attempt: ServerAttempt): void {
    const { rateHeaders } = this.#place;
    for (let i = 0; i < rateHeaders.length; i += 2) fields.set(rateHeaders[i]!, rateHeaders[i + 1]!);
    const session = this.#session;
    if (session !== null) {
      const header = sessionHeader(session.scope, {
        backend: session.backend, endpoint: attempt.endpoint.key, current: session.current, nowMs: this.#host.wallMs(), secure: this.#account.head.scheme === "https",
      });
      if (header !== null) fields.append(header.name, header.value);
    }
    const cookie = this.#cookie;
    if (cookie !== null) fields.append("set-cookie", hashCookieText(cookie, this.#account.head.scheme === "https"));
  }

  // ── Time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #timedOut(nowMs: number): void {
    const { lead } = this.#race;
    if (lead?.phase === "awaiting") lead.settle("gatewayError", nowMs);
    this.#place.timedOut(nowMs);
    const clientMs = this.#clientMs;
    if (clientMs === null) this.#blameTimeout("requestMs");
    const time = clientMs === null ? `${this.#timeouts.requestMs} ms` : `${clientMs} ms (the client's grpc-timeout)`;
    this.#user.answerOwn(ownAnswer("request_timeout"), `the request's ${time} were over while ${this.#doing}`);
  }

  /** No byte has moved for longer than `streamIdleMs`. */
  idle(): void {
    this.#blameTimeout("streamIdleMs");
    this.#user.answerOwn(ownAnswer("stream_idle_timeout"), `no byte moved for ${this.streamIdleMs} ms while ${this.#doing}`);
  }

  #blameTimeout(limit: TimeLimit): void {
    this.#account.provenance = this.#sourceOf(limit) ?? this.#account.provenance;
  }

  /** Null: it is a default. */
  #sourceOf(limit: TimeLimit): Provenance | null {
    const { cluster, namedApart } = this.#place;
    const { rule, timeouts, retry } = this.#plan;
    return provenanceOfTimeout(limit, { rule, timeouts: timeouts ?? INHERITED_TIMEOUTS, retry, named: namedApart?.settings ?? null, backend: cluster.settings });
  }

  /** What goes on, to be read after "while". */
  get #doing(): string {
    const { phase } = this;
    const server = this.#account.upstreamAddress ?? this.#cluster.name;
    switch (phase) {
      case "connecting": return `connecting to ${server}`;
      case "awaiting": return `awaiting the answer of ${server}`;
      case "backoff": return `waiting to try again after ${server}`;
      case "responding": return `${server} was answering`;
      case "tunnel": return `a tunnel to ${server} was open`;
      case "over": return "it was already answered";
      default: return unreachable(phase);
    }
  }

  #attemptTimedOut(attempt: ServerAttempt, nowMs: number): void {
    if (attempt.limit === "request") return this.#timedOut(nowMs);
    const perTry = attempt.limit === "perTry";
    const source = this.#sourceOf(limitOf(attempt));
    const ms = perTry ? this.#retry.perTryTimeoutMs : this.#timeouts.backendRequestMs;
    attempt.timeOut(`attempt ${this.#account.attempts} at ${attempt.address}: no answer within the ${ms} ms of its ${perTry ? "per-try" : "backend request"} timeout${source === null ? "" : ` (${formatProvenance(source)})`}`);
  }
}

/** Of one whose own time is over. */
function limitOf({ limit }: ServerAttempt): "perTryMs" | "backendRequestMs" {
  return limit === "perTry" ? "perTryMs" : "backendRequestMs";
}
