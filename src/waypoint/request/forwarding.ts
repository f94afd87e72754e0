// A request on its way to servers, once the rules have said where to: its attempts (attempts.ts) within its time (forward-time.ts), copies to
// mirrors, and the one answer that goes back.

import type { Random } from "../../core/ports.ts";
import { formatProvenance } from "../../core/fault.ts";
import { unreachable } from "../../core/result.ts";
import type { ForwardPlan } from "../../policy/http/plan.ts";
import type { ReasonCode } from "../../policy/http/reason-codes.ts";
import { isFailure, type Outcome, outcomeOfAnswer } from "../../policy/upstream/outcome.ts";
import type { AttemptEnd } from "../../policy/upstream/retry.ts";
import { NO_RETRY_AFTER, parseGrpcPushback, parseRetryAfter } from "../../policy/upstream/retry-after.ts";
import { effectiveRetry } from "../../policy/upstream/settings.ts";
import type { TimeLimit } from "../../policy/upstream/timeouts.ts";
import type { RequestTrace } from "../../telemetry/request-trace.ts";
import { parseGrpcStatusField } from "../../wire/grpc/status.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import { type HeaderList, headerValue } from "../../wire/http/header-list.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import type { Traceparent } from "../../wire/trace/traceparent.ts";
import type { HttpVersion } from "../channel/streams.ts";
import type { Cluster } from "../upstream/cluster.ts";
import type { ClusterPlace } from "../upstream/cluster-place.ts";
import { type Affinity, affinityOf } from "./affinity.ts";
import { Attempts, type AttemptsUser } from "./attempts.ts";
import type { ClientAnswer } from "./client-answer.ts";
import { changeFields } from "./fields-change.ts";
import { ForwardTime } from "./forward-time.ts";
import { type Mirrors, startMirrors } from "./mirrors.ts";
import { outgoingOf } from "./outgoing.ts";
import { ownAnswer, type OwnAnswer } from "./own-answer.ts";
import type { RequestAccount } from "./request-account.ts";
import type { RequestBody } from "./request-body.ts";
import type { RequestHost } from "./request-host.ts";
import type { AttemptFailure, AttemptRequest, ServerAttempt } from "./server-attempt.ts";

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

const NO_TRAILERS: HeaderList = [];

/** `seeking`: there is no answer yet. */
type Phase = "seeking" | "responding" | "tunnel" | "over";
/** While there is no answer yet, what its attempts do. */
type ShownPhase = Exclude<Phase, "seeking"> | "connecting" | "awaiting" | "backoff";

export class Forwarding implements AttemptsUser, AttemptRequest {
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
  readonly #time: ForwardTime;
  readonly #affinity: Affinity;
  readonly #attempts: Attempts;
  #phase: Phase = "seeking";
  #mirrors: Mirrors | null = null;
  /** The answer of a call that is gRPC has begun, and neither a message nor its status has come. */
  #owesStatus = false;

  /** @param received as the client sent it; its fields are changed as the plan says. */
  constructor(host: RequestHost, user: ForwardingUser, plan: ForwardPlan, place: ClusterPlace, received: HttpRequest, nowMs: number) {
    const { account, body } = user;
    const { head } = account;
    const { cluster } = place;
    this.#host = host;
    this.#user = user;
    this.#account = account;
    this.#plan = plan;
    this.#place = place;
    this.#cluster = cluster;
    this.body = body;
    this.isGrpc = account.isGrpc;
    this.trace = account.trace;
    this.clientTrace = account.client.trace;
    this.clientVersion = account.version;
    this.random = host.random;
    this.nowMs = host.nowMs;
    cluster.budget.request(nowMs);
    changeFields(head.fields, plan.requestHeaders);
    this.request = outgoingOf(received, {
      path: plan.path, query: head.query === received.target.query ? plan.query : head.query, host: plan.host, serviceHost: cluster.host,
    });
    const retry = effectiveRetry(plan.retry, cluster.settings);
    if (retry.attempts === 0 && cluster.settings.hedging === null) body.forget();
    this.#time = new ForwardTime(plan, place, account, retry, nowMs);
    this.#affinity = affinityOf(plan, cluster, head, host);
    this.#attempts = new Attempts(this, { what: this, account, place, retry, time: this.#time, affinity: this.#affinity });
  }

  get phase(): ShownPhase {
    if (this.#phase !== "seeking") return this.#phase;
    if (this.#attempts.isWaiting) return "backoff";
    return this.#attempts.lead?.phase === "awaiting" ? "awaiting" : "connecting";
  }

  /** A stream on which no byte moves for so long is given up; 0: never. */
  get streamIdleMs(): number {
    return this.#time.timeouts.streamIdleMs;
  }

  get dueMs(): number {
    return Math.min(this.#time.deadlineMs, this.#attempts.dueMs);
  }

  /** In the event in which its place was found, or looked at again. */
  start(nowMs: number): void {
    this.#mirrors = startMirrors(this.#host, this, this.#plan.mirrors, this.#account);
    this.#attempts.next(false, nowMs);
    if (this.#phase !== "over" && this.#attempts.mayComeLater) this.#user.keepHead();
  }

  /** True when something was due. */
  onDue(nowMs: number): boolean {
    if (nowMs >= this.#time.deadlineMs) {
      this.timedOut(nowMs);
      return true;
    }
    if (this.#attempts.onWake(nowMs)) return true;
    const late = this.#attempts.late(nowMs);
    if (late === null) return this.#attempts.onHedge(nowMs);
    this.#attemptTimedOut(late, nowMs);
    return true;
  }

  onRequestBody(bytes: Uint8Array): void {
    this.#mirrors?.body(bytes);
  }

  onRequestEnd(trailers: HeaderList): void {
    this.#mirrors?.bodyEnd(trailers);
  }

  /** An answer of our own is given: whatever is under way towards servers is given up. */
  giveUp(code: ReasonCode): void {
    // The client gets ours: whatever this one was about to say.
    const { lead } = this.#attempts;
    if (lead !== null) this.#attempts.failed(lead, { reason: code });
    this.#abandon();
  }

  #abandon(): void {
    this.#phase = "over";
    this.#time.lift();
    this.#attempts.cancel();
  }

  /** The request has ended. */
  end(nowMs: number): void {
    this.#abandon();
    this.#place.leave(this.#account.code === null && this.#account.answeredMs > 0, nowMs);
    if (this.request.hasBody && !this.body.ended) this.#mirrors?.abandon();
  }

  // ── No answer ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

  answerOwn(answer: OwnAnswer, detail: string): void {
    this.#user.answerOwn(answer, detail);
  }

  attemptFailed(attempt: ServerAttempt, failure: AttemptFailure): void {
    const { code, message, status } = failure;
    this.#attempts.failed(attempt, { reason: code, message });
    this.#account.note(message);
    if (this.#attempts.goOn(attempt, failure)) return;
    if (this.#attempts.areExhausted) this.#account.flag("URX");
    if (code === "per_try_timeout") this.#blameTimeout(limitOf(attempt));
    this.#user.answerOwn(ownAnswer(code, { status }), "");
  }

  attemptBroke(attempt: ServerAttempt, code: ReasonCode, message: string): void {
    // Too late for another answer: the client must not take the part for the whole.
    this.#attempts.leave(attempt);
    this.#account.note(message);
    this.#user.cut(code);
  }

  // ── The answer ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  attemptInformed(_attempt: ServerAttempt, response: HttpResponse): void {
    // Of several it is not known yet whose answer follows.
    if (!this.#attempts.isContested) this.#user.answer.inform(response);
  }

  attemptAnswered(attempt: ServerAttempt, response: HttpResponse, endStream: boolean): void {
    const account = this.#account;
    account.upstreamVersion = attempt.version;
    account.connectionTraceId = attempt.connectionTraceId;
    const nowMs = this.nowMs();
    const { status, fields } = response;
    const grpcStatus = this.isGrpc && endStream ? parseGrpcStatusField(fields.value("grpc-status")) : null;
    const retryAfterMs = this.#retryAfterOf(status, fields);
    const outcome = this.#outcomeOf(status, grpcStatus);
    // Of gRPC the status is yet to come; a message before it says that the call was served.
    this.#owesStatus = this.isGrpc && !endStream && status === 200;
    if (!this.#owesStatus) attempt.settle(outcome, nowMs, Math.max(NO_RETRY_AFTER, retryAfterMs));
    if (this.#isPassedOver(attempt, outcome, { kind: "answer", status, grpcStatus, retryAfterMs })) {
      // An answer that is whole leaves its connection as it was; the rest of another is not waited for.
      attempt.discard(endStream);
      return this.#user.rearm();
    }
    this.#attempts.win(attempt);
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

  /** True: the answer of another attempt is waited for, and this one's dropped. */
  #isPassedOver(attempt: ServerAttempt, outcome: Outcome, end: Extract<AttemptEnd, { kind: "answer" }>): boolean {
    const { status, grpcStatus } = end;
    const attempts = this.#attempts;
    if (attempts.isContested) {
      if (!isFailure(outcome) && outcome !== "overloaded") return false;
    } else {
      const mayRetry = (grpcStatus !== null && grpcStatus !== 0) || status >= 400;
      if (!mayRetry || !attempts.retry(attempt, end)) return false;
    }
    attempts.failed(attempt, { status, grpcStatus });
    this.#account.note(`${attempt.address} answered ${grpcStatus === null ? status : `grpc-status ${grpcStatus}`}`);
    attempts.leave(attempt);
    return true;
  }

  #outcomeOf(status: number, grpcStatus: number | null): Outcome {
    return outcomeOfAnswer(status, grpcStatus, this.#cluster.settings.outliers.errorStatuses);
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
    this.#affinity.tell(fields, attempt.endpoint.key, this.#account.head, this.#host.wallMs);
  }

  attemptTunnelled(attempt: ServerAttempt, response: HttpResponse): void {
    const nowMs = this.nowMs();
    const { answer } = this.#user;
    this.#phase = "tunnel";
    this.#time.lift();
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
      if (this.#owesStatus) this.#served(attempt, this.#outcomeOf(200, grpcStatus), nowMs);
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

  rearm(): void {
    this.#user.rearm();
  }

  /** Nothing more is wanted from the server. */
  #release(attempt: ServerAttempt, nowMs: number): void {
    this.#attempts.leave(attempt);
    attempt.release(nowMs);
  }

  // ── Time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  timedOut(nowMs: number): void {
    const { lead } = this.#attempts;
    if (lead?.phase === "awaiting") lead.settle("gatewayError", nowMs);
    this.#place.timedOut(nowMs);
    if (!this.#time.isClients) this.#blameTimeout("requestMs");
    this.#user.answerOwn(ownAnswer("request_timeout"), `the request's ${this.#time.text} were over while ${this.#doing}`);
  }

  /** No byte has moved for longer than `streamIdleMs`. */
  idle(): void {
    this.#blameTimeout("streamIdleMs");
    this.#user.answerOwn(ownAnswer("stream_idle_timeout"), `no byte moved for ${this.streamIdleMs} ms while ${this.#doing}`);
  }

  #attemptTimedOut(attempt: ServerAttempt, nowMs: number): void {
    if (attempt.limit === "request") return this.timedOut(nowMs);
    const limit = limitOf(attempt);
    const source = this.#time.sourceOf(limit);
    attempt.timeOut(`attempt ${this.#account.attempts} at ${attempt.address}: no answer within the ${this.#time.attemptMs(limit)} ms of its ${limit === "perTryMs" ? "per-try" : "backend request"} timeout${source === null ? "" : ` (${formatProvenance(source)})`}`);
  }

  #blameTimeout(limit: TimeLimit): void {
    this.#account.provenance = this.#time.sourceOf(limit) ?? this.#account.provenance;
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
}

/** Of one whose own time is over. */
function limitOf({ limit }: ServerAttempt): "perTryMs" | "backendRequestMs" {
  return limit === "perTry" ? "perTryMs" : "backendRequestMs";
}
