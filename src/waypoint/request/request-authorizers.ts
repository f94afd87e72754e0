// One request before its external authorisers: its body as far as they are to have it, the question, and what an answer that allows does to
// it. Whom to ask, and what follows from an answer, is decided elsewhere (request-decisions.ts).

import { nameHalf } from "../../core/brand.ts";
import type { ExternalAuthorizer } from "../../mesh/l7/access.ts";
import type { Due } from "../../net/due-list.ts";
import { changeQuery } from "../../policy/http/query.ts";
import type { ReasonCode } from "../../policy/http/reason-codes.ts";
import { identityOf } from "../../policy/waypoints.ts";
import { type AuthorizationVerdict, type CheckFacts, mayAsk } from "../../policy/upstream/external-authorization.ts";
import { ListFields } from "../../wire/http/fields.ts";
import { LENGTH_UNKNOWN } from "../../wire/http/content-length.ts";
import { type HeaderList, headerPairs } from "../../wire/http/header-list.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import { applyAnswerHeaders } from "./answer-headers.ts";
import { askAuthorizer } from "../services/authorizer-call.ts";
import type { ClientAnswer } from "./client-answer.ts";
import type { GatherBudget } from "./gather-budget.ts";
import type { RequestObserver } from "./observer.ts";
import type { RequestAccount } from "./request-account.ts";
import type { RequestBody } from "./request-body.ts";
import type { PendingAnswer } from "../services/message-loader.ts";
import type { CallHost } from "../services/service-call.ts";
import { traceMetadata } from "./trace-metadata.ts";

export interface AuthorizersHost extends CallHost {
  readonly wallMs: () => number;
  readonly gathering: GatherBudget;
  readonly observer: { readonly upstream: Pick<RequestObserver["upstream"], "serviceCall" | "authorizer"> };
}

export interface AuthorizedRequest {
  readonly account: RequestAccount;
  readonly body: RequestBody;
  readonly answer: Pick<ClientAnswer, "inform" | "serviceHeaders">;
  /** The head must outlive this call: something is waited for. */
  keepHead(): void;
}

/** What came of a question that could not be put, by the code to answer with. */
export interface NotAsked {
  readonly kind: "notAsked";
  readonly code: ReasonCode;
  /** For a person. */
  readonly detail: string;
}

/** A client that sends what an authoriser is to see of its body: as long as one may take for its head. */
const BODY_MS = 60_000;
const CONTINUE = 100;

export class RequestAuthorizers implements Due {
  dueMs = Infinity;
  dueIndex = -1;
  readonly #host: AuthorizersHost;
  readonly #user: AuthorizedRequest;
  readonly #request: HttpRequest;
  #call: PendingAnswer | null = null;
  #late: (() => void) | null = null;
  #over = false;
  #heldBytes = 0;

  /** @param request as received. */
  constructor(host: AuthorizersHost, user: AuthorizedRequest, request: HttpRequest) {
    this.#host = host;
    this.#user = user;
    this.#request = request;
  }

  /** @param done once, maybe before this returns; not after `cancel`. */
  ask(authorizer: ExternalAuthorizer, done: (verdict: AuthorizationVerdict | NotAsked) => void): void {
    this.#user.keepHead();
    const { includeBodyBytesMax } = authorizer;
    const { hasBody, contentLength, expectsContinue, upgrade } = this.#request;
    // What follows a request for another protocol is that protocol's.
    if (includeBodyBytesMax === 0 || !hasBody || upgrade !== null) return this.#ask(authorizer, null, done);
    const tooLong = (): void => done({ kind: "notAsked", code: "body_too_large", detail: `the body is longer than the ${includeBodyBytesMax} bytes that the authoriser ${authorizer.service} is sent` });
    if (contentLength > includeBodyBytesMax && !authorizer.allowPartialBody) return tooLong();
    const { body, answer } = this.#user;
    if (!this.#reserve(contentLength === LENGTH_UNKNOWN ? includeBodyBytesMax : Math.min(contentLength, includeBodyBytesMax))) {
      return done({ kind: "notAsked", code: "overloaded", detail: `${this.#host.gathering.heldBytes} bytes of bodies are held for authorisers, which leaves no room for this one` });
    }
    if (expectsContinue && body.receivedBytes === 0) answer.inform({ status: CONTINUE, fields: new ListFields([]), contentLength: LENGTH_UNKNOWN });
    this.#waitFor(() => done({ kind: "notAsked", code: "request_timeout_reading", detail: `${body.receivedBytes} bytes of the body came within ${BODY_MS} ms, which the authoriser ${authorizer.service} is to see` }));
    body.gather(includeBodyBytesMax, () => {
      this.#stopWaiting();
      if (this.#over) return;
      const seen = body.peek(includeBodyBytesMax);
      if (mayAsk(authorizer, seen)) this.#ask(authorizer, seen, done);
      else tooLong();
    });
  }

  cancel(): void {
    this.#over = true;
    this.#reserve(0);
    this.#stopWaiting();
    this.#call?.cancel();
    this.#call = null;
  }

  onDue(): void {
    const late = this.#late;
    this.#stopWaiting();
    late?.();
  }

  #ask(authorizer: ExternalAuthorizer, body: CheckFacts["body"], done: (verdict: AuthorizationVerdict) => void): void {
    this.#call = askAuthorizer(this.#host, authorizer, this.#facts(body), traceMetadata(this.#request.fields, this.#user.account.trace), (verdict) => {
      this.#call = null;
      this.#reserve(0);
      this.#tell(authorizer, verdict);
      if (verdict.kind === "allowed") this.#apply(verdict);
      done(verdict);
    });
  }

  /** Room for so many bytes instead of what was held before. */
  #reserve(bytes: number): boolean {
    const { gathering } = this.#host;
    gathering.giveBack(this.#heldBytes);
    this.#heldBytes = gathering.take(bytes) ? bytes : 0;
    return this.#heldBytes === bytes;
  }

  #tell({ service }: ExternalAuthorizer, { kind, failure }: AuthorizationVerdict): void {
    const asker = this.#user.account.view.service;
    this.#host.observer.upstream.authorizer({ namespace: asker?.namespace ?? "", name: asker?.name ?? "" }, service, failure !== "" ? "failed" : kind);
  }

  /** What is decided about it from here on is decided of the request as the authoriser wants it. */
  #apply(verdict: Extract<AuthorizationVerdict, { kind: "allowed" }>): void {
    const { account, answer } = this.#user;
    const { fields } = account.head;
    for (const name of verdict.removeHeaders) fields.remove(name);
    applyAnswerHeaders(fields, verdict.requestHeaders);
    if (verdict.setQuery.length + verdict.removeQuery.length > 0) account.head.query = changeQuery(account.head.query, verdict.setQuery, verdict.removeQuery);
    if (verdict.responseHeaders.length > 0) answer.serviceHeaders = [...answer.serviceHeaders, ...verdict.responseHeaders];
    account.note(verdict.failure);
  }

  #facts(body: CheckFacts["body"]): CheckFacts {
    const { head, client, version } = this.#user.account;
    const { destinationIp, destinationPort } = client.facts;
    const { fields, contentLength, upgrade, target } = this.#request;
    const headers: HeaderList = [];
    fields.appendTo(headers);
    const service = client.destination.service;
    return {
      id: fields.value("x-request-id") ?? "", method: upgrade !== null && head.method === "CONNECT" ? "GET" : head.method, path: head.path + head.query, host: target.host?.text ?? "", scheme: head.scheme,
      protocol: version, headers: headerPairs(headers), sizeBytes: contentLength, body,
      source: { ip: client.address.ip, port: client.address.port, principal: client.source.identity ?? "", service: "" },
      destination: { ip: destinationIp, port: destinationPort, principal: client.mutualTls ? identityOf(this.#host.self()) : "", service: nameHalf(service) }, sni: client.sni ?? "", wallMs: this.#host.wallMs(),
    };
  }

  #waitFor(late: () => void): void {
    this.#late = late;
    this.dueMs = this.#host.nowMs() + BODY_MS;
    this.#host.due.add(this);
  }

  #stopWaiting(): void {
    this.#late = null;
    this.#host.due.remove(this);
  }
}
