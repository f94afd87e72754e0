// The life of one request, from its head to the last byte of the answer:
//
//   deciding ──▶ delayed ──▶ forwarding (forwarding.ts) ──▶ answering ──▶ ended
//      ╰─────────────┴── an answer of our own ─────────────────╯
//
// It ties the client's stream to who decides (request-decisions.ts), who forwards, and the answer (client-answer.ts), and keeps their time.

import type { Due } from "../../net/due-list.ts";
import type { ForwardPlan } from "../../policy/http/plan.ts";
import type { ReasonCode } from "../../policy/http/reason-codes.ts";
import { tellsRule } from "../../policy/http/rule-header.ts";
import { STREAM_IDLE_TIMEOUT_MS } from "../../policy/upstream/defaults.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { Client } from "../downstream/client.ts";
import { ClientAnswer } from "./client-answer.ts";
import { type ClusterPlace, findPlace, type OwnedLimit, type PlaceRefusal } from "../upstream/cluster-place.ts";
import type { NewStream } from "../downstream/downstream.ts";
import { Forwarding, type ForwardingUser } from "./forwarding.ts";
import { GlobalLimits } from "../services/global-limits.ts";
import { ownAnswer, type OwnAnswer } from "./own-answer.ts";
import { RequestAccount } from "./request-account.ts";
import { RequestBody } from "./request-body.ts";
import { type DecisionUser, RequestDecisions } from "./request-decisions.ts";
import { RequestHead } from "./request-head.ts";
import type { RequestHost, RunningRequest } from "./request-host.ts";
import type { ByteHolder } from "../../tunnel/byte-budget.ts";
import { HeldCount } from "../channel/held-count.ts";
import type { DownstreamUser } from "../channel/streams.ts";

type Phase = "deciding" | "delayed" | "forwarding" | "answering" | "ended";

export class ActiveRequest implements DownstreamUser, DecisionUser, ForwardingUser, Due, ByteHolder, RunningRequest {
  dueMs = Infinity;
  dueIndex = -1;
  readonly account: RequestAccount;
  readonly answer: ClientAnswer;
  readonly body: RequestBody;
  readonly #host: RequestHost;
  readonly #stream: NewStream;
  /** Of both bodies. */
  readonly #held: HeldCount;
  readonly #decisions: RequestDecisions;
  #phase: Phase = "deciding";
  /** Rate limits that are being asked about. */
  #limits: GlobalLimits | null = null;
  #forwarding: Forwarding | null = null;
  #lastActivityMs: number;
  /** Of a delay, or a held back answer. */
  #wakeMs = Infinity;

  constructor(host: RequestHost, stream: NewStream, client: Client) {
    this.#host = host;
    this.#stream = stream;
    this.#lastActivityMs = host.nowMs();
    this.account = new RequestAccount(client, host.views.of(client), new RequestHead(stream.request, client), stream.version, this.#lastActivityMs);
    this.#held = new HeldCount(host.budget, this);
    this.answer = new ClientAnswer(stream, this.account, this.#held);
    this.body = new RequestBody(stream, this.#held);
    this.#decisions = new RequestDecisions(host, this);
  }

  get state(): string {
    return this.#phase === "forwarding" ? this.#forwarding!.phase : this.#phase;
  }

  start(): void {
    this.#host.requests.add(this);
    this.#host.due.add(this);
    this.account.begin(this.#host.observer);
    const { client, head } = this.account;
    this.answer.tellsRule = tellsRule(this.#host.ruleTelling, client.source.identity !== null, head.fields);
    const { budget } = this.#host;
    if (budget.tight) this.answerOwn(ownAnswer("overloaded"), `${budget.heldBytes} of ${budget.limitBytes} bytes are held for slow readers (--buffer-limit)`);
    else this.#decisions.start(this.#stream.request);
    this.rearm();
  }

  // ── What it holds ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  get heldBytes(): number {
    return this.#held.bytes;
  }

  get progressMs(): number {
    return this.#lastActivityMs;
  }

  shed(): void {
    this.answerOwn(ownAnswer("overloaded"), `${this.#held.bytes} bytes of it were held for a slow reader, and the limit for all is reached (--buffer-limit)`);
    this.rearm();
    // Whatever it still holds goes with the connection.
    if (this.#held.bytes > 0) this.destroy();
  }

  // ── What was decided ──────────────────────────────────────────────────────────────────────────────────────────────────────

  get undecided(): boolean {
    return this.#phase === "deciding";
  }

  keepHead(): void {
    this.#stream.keepHead();
  }

  delay(ms: number): void {
    this.#phase = "delayed";
    this.#wakeMs = this.account.startedMs + ms;
  }

  drop(code: ReasonCode, detail: string): void {
    this.account.note(detail);
    this.answer.cut(code);
    this.#end();
  }

  forward(plan: ForwardPlan): void {
    const nowMs = this.#host.nowMs();
    const found = findPlace(this.#host, plan, this.account, nowMs);
    if (found.kind === "refused") return this.#refuse(found);
    const { place } = found;
    const { globalLimits } = place;
    if (globalLimits.length === 0) this.#enter(plan, place, nowMs);
    else this.#askLimits(globalLimits, plan, place);
  }

  #askLimits(globalLimits: readonly OwnedLimit[], plan: ForwardPlan, place: ClusterPlace): void {
    this.keepHead();
    this.#limits = new GlobalLimits(this.#host, this, globalLimits, (outcome) => {
      this.#limits = null;
      if (outcome.kind === "refused") this.answerOwn(outcome.answer, outcome.detail);
      else {
        place.counted(outcome.state);
        const answeredMs = this.#host.nowMs();
        place.cluster.refresh(answeredMs);
        this.#enter(plan, place, answeredMs);
      }
      this.rearm();
    });
    this.#limits.start();
  }

  #enter(plan: ForwardPlan, place: ClusterPlace, nowMs: number): void {
    const refusal = place.enter(this.account.head, nowMs);
    if (refusal !== null) {
      place.leave(false, nowMs);
      return this.#refuse(refusal);
    }
    this.#phase = "forwarding";
    this.#forwarding = new Forwarding(this.#host, this, plan, place, this.#stream.request, nowMs);
    this.#forwarding.start(nowMs);
  }

  #refuse({ answer, detail, provenance }: PlaceRefusal): void {
    if (provenance !== null) this.account.provenance = provenance;
    this.answerOwn(answer, detail);
  }

  // ── The answer ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  answerOwn(answer: OwnAnswer, detail: string): void {
    this.account.note(detail);
    if (this.answer.begun) return this.cut(answer.code);
    this.#stopAsking();
    this.#forwarding?.giveUp(answer.code);
    this.body.forget();
    this.#phase = "answering";
    this.#wakeMs = Infinity;
    this.#lastActivityMs = this.#host.nowMs();
    this.answer.giveOwn(answer, this.#lastActivityMs);
  }

  cut(code: ReasonCode): void {
    this.answer.cut(code);
    this.#end();
  }

  touch(nowMs: number): void {
    this.#lastActivityMs = nowMs;
  }

  // ── The client ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  onRequestBody(bytes: Uint8Array): void {
    this.#lastActivityMs = this.#host.nowMs();
    this.account.receivedMessages?.push(bytes);
    this.#forwarding?.onRequestBody(bytes);
    this.body.receive(bytes);
  }

  onRequestEnd(trailers: HeaderList): void {
    this.#forwarding?.onRequestEnd(trailers);
    this.body.receiveEnd(trailers);
  }

  onDownstreamSendable(): void {
    this.#lastActivityMs = this.#host.nowMs();
    this.answer.flush(this.#lastActivityMs);
  }

  onDownstreamAborted(why: string): void {
    if (this.#phase === "ended") return;
    this.account.flag("DC");
    this.account.note(why);
    this.#end();
  }

  onDownstreamClosed(): void {
    this.#end();
  }

  // ── Time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  onDue(nowMs: number): void {
    if (this.#phase === "ended") return;
    if (nowMs >= this.#wakeMs) {
      this.#wakeMs = Infinity;
      if (this.#phase === "delayed") {
        this.#phase = "deciding";
        this.#decisions.delayed();
      } else this.answer.flush(nowMs);
    } else if (this.#forwarding?.onDue(nowMs) !== true && nowMs >= this.#idleDueMs) {
      if (this.#forwarding !== null) this.#forwarding.idle();
      else this.answerOwn(ownAnswer("stream_idle_timeout"), `the client took nothing of the answer for ${STREAM_IDLE_TIMEOUT_MS} ms`);
    }
    this.rearm();
  }

  rearm(): void {
    if (this.#phase === "ended") return;
    const { paceDueMs } = this.answer;
    if (paceDueMs !== Infinity) this.#wakeMs = paceDueMs;
    this.dueMs = Math.min(this.#wakeMs, this.#forwarding?.dueMs ?? Infinity, this.#idleDueMs);
    this.#host.due.sooner(this);
  }

  get #idleDueMs(): number {
    // Before there is an answer of ours, whoever is waited for has a limit of its own.
    const idleMs = this.#forwarding?.streamIdleMs ?? (this.answer.begun ? STREAM_IDLE_TIMEOUT_MS : 0);
    return idleMs === 0 ? Infinity : this.#lastActivityMs + idleMs;
  }

  // ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  destroy(): void {
    if (this.#phase === "ended") return;
    this.answerOwn(ownAnswer("draining"), "the waypoint is stopping");
    if ((this.#phase as Phase) === "ended") return;
    this.#stream.reset();
    this.#end();
  }

  #stopAsking(): void {
    this.#decisions.cancel();
    this.#limits?.cancel();
    this.#limits = null;
  }

  #end(): void {
    if (this.#phase === "ended") return;
    const nowMs = this.#host.nowMs();
    this.#phase = "ended";
    const { account } = this;
    account.endedMs = nowMs;
    account.requestBytes = this.body.receivedBytes;
    account.responseBytes = this.answer.sentBytes;
    this.#stopAsking();
    this.body.detach();
    this.#forwarding?.end(nowMs);
    this.#held.end();
    this.#host.due.remove(this);
    this.#host.requests.delete(this);
    this.#host.observer.ended(account);
  }
}
