// The answer to one request as its client gets it, whoever gives it: its head with what our rules add, its body at the client's pace, an
// answer of our own. Knows nothing of servers but where bytes come from.

import type { HeaderOperation } from "../../policy/http/header-change.ts";
import type { AnswerHeader } from "../../policy/upstream/service-answer.ts";
import type { ReasonCode } from "../../policy/http/reason-codes.ts";
import { RULE_HEADER, ruleText } from "../../policy/http/rule-header.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HttpResponse } from "../../wire/http/message.ts";
import { applyAnswerHeaders, NO_ANSWER_HEADERS } from "./answer-headers.ts";
import type { NewStream } from "../downstream/downstream.ts";
import { changeFields, NO_OPERATIONS } from "./fields-change.ts";
import type { HeldCount } from "../channel/held-count.ts";
import { type OwnAnswer, renderAnswer } from "./own-answer.ts";
import type { RequestAccount } from "./request-account.ts";
import { ResponseBody } from "./response-body.ts";
import type { BodySource } from "../channel/streams.ts";

const NO_COOKIES: readonly string[] = Object.freeze([]);
const NO_TRAILERS: HeaderList = [];

export class ClientAnswer {
  /** `set-cookie` values of a session that was renewed. */
  setCookies: readonly string[] = NO_COOKIES;
  /** What the rules do to every answer. */
  headerOperations: readonly HeaderOperation[] = NO_OPERATIONS;
  /** What authorisers and rate limit services want on it, after the rules. */
  serviceHeaders: readonly AnswerHeader[] = NO_ANSWER_HEADERS;
  /** The client may know which rule answers it, by name. */
  tellsRule = false;
  readonly #held: HeldCount;
  readonly #stream: NewStream;
  readonly #account: RequestAccount;
  #body: ResponseBody | null = null;
  #begun = false;

  constructor(stream: NewStream, account: RequestAccount, held: HeldCount) {
    this.#held = held;
    this.#stream = stream;
    this.#account = account;
  }

  /** The client has its head: it can only be cut. */
  get begun(): boolean {
    return this.#begun;
  }

  get sentBytes(): number {
    return this.#body?.sentBytes ?? 0;
  }

  /** The whole went to the client's connection. */
  get finished(): boolean {
    return this.#body !== null && this.#body.finished;
  }

  /** When to call `flush` because a fault holds the answer back; Infinity for never. */
  get paceDueMs(): number {
    return this.#body?.paceDueMs ?? Infinity;
  }

  inform({ status, fields }: HttpResponse): void {
    this.#stream.inform(status, fields);
  }

  /**
   * A server's answer, after `begin`.
   * @param source null when nothing of it follows
   */
  respond(response: HttpResponse, endStream: boolean, source: BodySource | null, bytesPerSecond: number | null, nowMs: number): void {
    this.#account.answered(response.fields);
    this.#body = new ResponseBody(this.#stream, source, bytesPerSecond, this.#held, nowMs);
    this.#stream.respond(response, endStream);
  }

  /** What rules and a login do to the head of an answer. */
  decorate(fields: HttpFields): void {
    // Also what a waypoint behind us has told us, who are of the mesh.
    if (!this.tellsRule) fields.remove(RULE_HEADER);
    changeFields(fields, this.headerOperations);
    if (this.serviceHeaders.length > 0) applyAnswerHeaders(fields, this.serviceHeaders);
    for (const cookie of this.setCookies) fields.append("set-cookie", cookie);
  }

  /** The server granted the protocol that the request asked for; after `begin`. */
  openTunnel(response: HttpResponse, source: BodySource, bytesPerSecond: number | null, nowMs: number): void {
    this.#account.answered(response.fields);
    this.#body = new ResponseBody(this.#stream, source, bytesPerSecond, this.#held, nowMs);
    this.#stream.openTunnel(response);
  }

  /** Before anything of it is said, so that its end can come from within saying it. */
  begin(status: number, nowMs: number): void {
    this.#begun = true;
    this.#account.status = status;
    this.#account.answeredMs = nowMs;
  }

  /** By ourselves, whole. */
  giveOwn(answer: OwnAnswer, nowMs: number): void {
    const account = this.#account;
    const { head } = account;
    const contentType = account.isGrpc ? (head.fields.value("content-type") ?? "application/grpc").split(";")[0]!.trim() : null;
    const { response, body, grpcStatus } = renderAnswer(answer, contentType, this.tellsRule ? ruleText(account.provenance, account.unmatched) : null);
    account.blame(answer.code);
    account.grpcStatus = grpcStatus;
    this.begin(response.status, nowMs);
    this.decorate(response.fields);
    account.answered(response.fields);
    const endStream = body.length === 0 || head.method === "HEAD";
    const responseBody = (this.#body = new ResponseBody(this.#stream, null, null, this.#held, nowMs));
    this.#stream.respond(response, endStream);
    if (endStream) return;
    responseBody.receive(body);
    responseBody.receiveEnd(NO_TRAILERS, nowMs);
  }

  receive(bytes: Uint8Array): void {
    this.#body?.receive(bytes);
  }

  receiveEnd(trailers: HeaderList, nowMs: number): void {
    this.#body?.receiveEnd(trailers, nowMs);
  }

  /** The client takes more. */
  flush(nowMs: number): void {
    this.#body?.flush(nowMs);
  }

  /** Ends it so that nobody takes it for whole; also one that has not begun. */
  cut(code: ReasonCode): void {
    this.#account.blame(code);
    this.#stream.reset();
  }
}
