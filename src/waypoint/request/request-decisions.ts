// What is decided of a request before anything is sent: who it is (login, tokens), whether it may (access), and what the rules say
// (route, plan). Each step may answer instead of going on; some wait for a token to be verified or a provider to be asked.

import type { Provenance } from "../../core/fault.ts";
import { unreachable } from "../../core/result.ts";
import type { ExternalAuthorizer } from "../../mesh/l7/access.ts";
import type { CompiledFault } from "../../policy/http/compiled-rule.ts";
import { type AccessAsk, type AccessDecision, authoriseRequest, explainAccess } from "../../policy/http/authorise-request.ts";
import { type LoginAnswer, type LoginDecision, loginEndpoint, type LoginStep, requireLogin } from "../../policy/http/login.ts";
import { withoutLoginCookies } from "../../policy/http/login-cookies.ts";
import { authenticateSession } from "../../policy/http/login-token.ts";
import type { HeaderOperation } from "../../policy/http/header-change.ts";
import { answersPreflight, type ForwardPlan, planRequest, type RequestPlan } from "../../policy/http/plan.ts";
import { grpcStatusOf, type ReasonCode } from "../../policy/http/reason-codes.ts";
import { type AuthenticationDecision, decideAuthentication, findTokens, type FoundToken, headerOperations, strippedQuery, type TokenVerdict } from "../../policy/http/tokens.ts";
import { answerHeadersOf, type RouteResult } from "../../policy/http/router.ts";
import { untrustedTest } from "../../policy/http/untrusted-headers.ts";
import type { AuthorizationVerdict } from "../../policy/upstream/external-authorization.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import { pairsOf } from "./answer-headers.ts";
import { changeFields } from "./fields-change.ts";
import { ownAnswer, type OwnAnswer } from "./own-answer.ts";
import type { RequestAccount } from "./request-account.ts";
import { type AuthorizedRequest, type NotAsked, RequestAuthorizers } from "./request-authorizers.ts";
import type { RequestHost } from "./request-host.ts";
import type { ServiceView } from "../upstream/service-view.ts";

export interface DecisionUser extends AuthorizedRequest {
  /** False once it has ended: what a provider answers now comes too late. */
  readonly undecided: boolean;
  /** Decided: an answer of our own. */
  answerOwn(answer: OwnAnswer, detail: string): void;
  /** Decided: no answer at all, on purpose. */
  drop(code: ReasonCode, detail: string): void;
  /** Decided: to a server. */
  forward(plan: ForwardPlan): void;
  /** Calls `delayed` then. */
  delay(ms: number): void;
  /** For the answer, whoever gives it. */
  readonly answer: AuthorizedRequest["answer"] & { setCookies: readonly string[]; headerOperations: readonly HeaderOperation[] };
  /** Something happened outside of the events of the streams. */
  rearm(): void;
}

const NO_FAULTS: readonly CompiledFault[] = Object.freeze([]);
/** Of the names that untrustedTest may say yes to. */
const UNTRUSTED_INITIALS = "xtcf";

export class RequestDecisions {
  readonly #host: RequestHost;
  readonly #user: DecisionUser;
  readonly #account: RequestAccount;
  #delayedPlan: RequestPlan | null = null;
  #request: HttpRequest | null = null;
  #authorizers: RequestAuthorizers | null = null;
  /** The route of the request as it came, where authorisers that change it do not change that. */
  #routeBefore: RouteResult | null = null;
  /** Its rule has said what it does to answers. */
  #isPlanned = false;

  constructor(host: RequestHost, user: DecisionUser) {
    this.#host = host;
    this.#user = user;
    this.#account = user.account;
  }

  start(request: HttpRequest): void {
    this.#request = request;
    const account = this.#account;
    const { client, head } = account;
    if (head.method === "CONNECT" && request.upgrade === null) {
      return this.#user.answerOwn(ownAnswer("upgrade_refused"), "CONNECT without a protocol: this is no forward proxy");
    }
    const { view } = account;
    head.fields.removeWhere(UNTRUSTED_INITIALS, untrustedTest({ fromMesh: client.source.identity !== null, methodsMatter: view.methodsMatter }));
    if (view.service === null) {
      return this.#user.answerOwn(ownAnswer("service_unknown"), `the configuration has no service ${client.destination.service}`);
    }
    const endpoint = view.access.logins.length === 0 ? null : loginEndpoint(view.access.logins, head, this.#host.logins.context());
    if (endpoint !== null) this.#login(view, endpoint);
    else if (view.tokenRules.length > 0) this.#authenticate(view);
    else this.#withoutToken(view);
  }

  // Who it is

  #withoutToken(view: ServiceView): void {
    const { logins } = view.access;
    if (logins.length === 0) this.#authorise(view);
    else this.#login(view, requireLogin(logins, this.#account.head, this.#host.logins.context()));
  }

  #login(view: ServiceView, step: LoginStep): void {
    if (step.kind !== "ask") return this.#loginDecided(view, step);
    this.#wait(this.#host.logins.settle(step), (decision) => this.#loginDecided(view, decision), (error) => {
      this.#answer(ownAnswer("login_unavailable"), `the login could not be decided: ${String(error)}`);
    });
  }

  #loginDecided(view: ServiceView, decision: LoginDecision): void {
    switch (decision.kind) {
      case "answer":
        return this.#answerLogin(decision);
      case "preflight":
        return this.#isPreflightOfRule(view) ? this.#route(view) : this.#answerLogin(decision.otherwise);
      case "pass":
        this.#user.answer.setCookies = decision.cookies;
        return this.#authenticated(view, authenticateSession(view.tokenRules, view.access.logins[0]!, decision.session));
      default:
        return unreachable(decision);
    }
  }

  #answerLogin({ code, status, headers, body, detail, provenance }: LoginAnswer): void {
    this.#account.provenance = provenance;
    this.#answer(ownAnswer(code, { status, headers, body }), detail);
  }

  #authenticate(view: ServiceView): void {
    const found = findTokens(view.tokenRules, this.#account.head);
    if ("kind" in found) return this.#rejected(found);
    if (found.length === 0) {
      if (view.access.logins.length > 0) return this.#withoutToken(view);
      return this.#authenticated(view, decideAuthentication(view.tokenRules, found, []));
    }
    const recalled = this.#recall(found);
    if (recalled !== null) return this.#authenticated(view, decideAuthentication(view.tokenRules, found, recalled));
    this.#verify(view, found);
  }

  /** Null when one of them has to be verified. */
  #recall(found: readonly FoundToken[]): readonly TokenVerdict[] | null {
    const verdicts: TokenVerdict[] = [];
    for (const token of found) {
      const verdict = this.#host.tokens.recall(token);
      if (verdict === null) return null;
      verdicts.push(verdict);
    }
    return verdicts;
  }

  #verify(view: ServiceView, found: readonly FoundToken[]): void {
    const verdicts = Promise.all(found.map((token) => this.#host.tokens.verify(token)));
    this.#wait(verdicts, (known) => this.#authenticated(view, decideAuthentication(view.tokenRules, found, known)), (error) => {
      this.#answer(ownAnswer("token_keys_unavailable"), `the token could not be verified: ${String(error)}`);
    });
  }

  #wait<T>(promise: Promise<T>, done: (value: T) => void, failed: (error: unknown) => void): void {
    const user = this.#user;
    user.keepHead();
    promise.then(
      (value) => {
        if (!user.undecided) return;
        done(value);
        user.rearm();
      },
      (error: unknown) => {
        if (!user.undecided) return;
        failed(error);
        user.rearm();
      },
    );
  }

  #rejected(decision: Extract<AuthenticationDecision, { kind: "rejected" }>): void {
    this.#account.provenance = decision.provenance;
    this.#answer(ownAnswer(decision.code, { status: decision.status, headers: decision.headers }), decision.detail);
  }

  #authenticated(view: ServiceView, decision: AuthenticationDecision): void {
    if (decision.kind === "rejected") return this.#rejected(decision);
    const { head } = this.#account;
    if (decision.kind === "authenticated") head.token = decision.token;
    // Policies, authorisers and routes see what the server will: claims in their headers, and no token that is not passed on.
    changeFields(head.fields, headerOperations(decision.changes, head.fields));
    head.query = strippedQuery(head.query, decision.changes);
    this.#authorise(view);
  }

  // Whether it may

  #authorise(view: ServiceView): void {
    if (this.#isPreflightOfRule(view)) return this.#route(view);
    this.#accessDecided(view, authoriseRequest(view.access, this.#account.head), null);
  }

  /** By the Fetch standard a browser's preflight says nothing of who asks, so policies could only refuse it. The rule answers it, no server sees it. */
  #isPreflightOfRule({ router }: ServiceView): boolean {
    const { head } = this.#account;
    if (head.method !== "OPTIONS") return false;
    const result = router.match(head);
    return result.kind === "matched" && answersPreflight(result.rule, head);
  }

  /** @param verdict of the authoriser that was asked last. */
  #accessDecided(view: ServiceView, decision: AccessDecision, verdict: AuthorizationVerdict | null): void {
    const account = this.#account;
    const { head } = account;
    switch (decision.kind) {
      case "allow":
        for (const login of view.access.logins) changeFields(head.fields, withoutLoginCookies(login, head.fields));
        return this.#route(view);
      case "deny":
        account.provenance = decision.policy;
        account.unmatched = decision.unmatched;
        if (verdict?.kind === "denied" && (decision.code === "authorizer_denied" || decision.code === "authorizer_failed")) return this.#refusedBy(verdict, explainAccess(decision));
        return this.#answer(ownAnswer(decision.code, { status: decision.status, body: "RBAC: access denied" }), explainAccess(decision));
      case "ask":
        return this.#askAccess(view, decision);
      default:
        return unreachable(decision);
    }
  }

  #askAccess(view: ServiceView, { authorizer, policy, answered }: AccessAsk): void {
    if (authorizer.changesRoute) this.#routeBefore = null;
    else this.#routeBefore ??= view.router.match(this.#account.head);
    this.#ask(authorizer, policy, (verdict) => {
      const answer = verdict.failure !== "" ? { kind: "failed" as const } : verdict.kind === "denied" ? { kind: "denied" as const, status: verdict.status } : { kind: "allowed" as const };
      this.#accessDecided(view, answered(answer), verdict);
    });
  }

  #ask(authorizer: ExternalAuthorizer, policy: Provenance | null, done: (verdict: AuthorizationVerdict) => void): void {
    const user = this.#user;
    const authorizers = (this.#authorizers ??= new RequestAuthorizers(this.#host, user, this.#request!));
    authorizers.ask(authorizer, (verdict: AuthorizationVerdict | NotAsked) => {
      if (!user.undecided) return;
      if (verdict.kind === "notAsked") {
        this.#account.provenance = policy;
        this.#answer(ownAnswer(verdict.code), verdict.detail);
      } else done(verdict);
      user.rearm();
    });
  }

  #refusedBy({ status, headers, body, failure }: Extract<AuthorizationVerdict, { kind: "denied" }>, detail: string): void {
    const code = failure === "" ? "authorizer_denied" : "authorizer_failed";
    this.#answer(ownAnswer(code, { status, grpcStatus: grpcStatusOf(status), headers: pairsOf(headers), body: failure === "" ? body : null }), failure === "" ? detail : `${detail}: ${failure}`);
  }

  /** The request has ended, or is answered: nobody is asked any more. */
  cancel(): void {
    this.#authorizers?.cancel();
  }

  // What the rules say

  /** What the rule does to answers holds for this one, even if the request is refused before its rule is looked at. */
  #answer(answer: OwnAnswer, detail: string): void {
    const { view: { router }, head } = this.#account;
    if (!this.#isPlanned && router.changesAnswers) this.#user.answer.headerOperations = answerHeadersOf(this.#routeBefore ?? router.match(head), head);
    this.#user.answerOwn(answer, detail);
  }

  #route(view: ServiceView): void {
    const host = this.#host;
    const account = this.#account;
    const { head, client: { destination, source } } = account;
    const result = this.#routeBefore ?? view.router.match(head);
    if (result.kind === "matched") {
      account.routeId = result.route.id;
      account.ruleName = result.rule.rule.name;
    }
    // What its policies say of requests goes by the service that the client named; one that has no such policy costs nothing here.
    const own = host.clusters.of({ service: destination.service, port: destination.port, subset: null, clientNamespace: source.namespace });
    account.named = own;
    const plan = planRequest(head, result, {
      random: host.random, listenerPort: destination.port, nowMs: host.wallMs(), sessionSigner: host.sessionSigner, serviceFaults: own?.faults ?? NO_FAULTS,
    });
    this.#isPlanned = true;
    account.provenance = plan.provenance;
    account.injected = plan.injected;
    this.#user.answer.headerOperations = plan.responseHeaders;
    if (plan.injected.some(({ action }) => action.kind === "delay")) account.flag("DI");
    this.#askOfPlan(plan, 0);
  }

  /** The rule's own authorisers, one after the other. */
  #askOfPlan(plan: RequestPlan, next: number): void {
    const authorizer = plan.authorizers[next];
    if (authorizer === undefined) this.#authorised(plan);
    else this.#askOne(authorizer, plan, next);
  }

  #askOne(authorizer: ExternalAuthorizer, plan: RequestPlan, next: number): void {
    this.#ask(authorizer, plan.provenance, (verdict) => {
      if (verdict.kind === "denied") this.#refusedBy(verdict, `refused by the authoriser ${authorizer.service}`);
      else this.#askOfPlan(plan, next + 1);
    });
  }

  #authorised(plan: RequestPlan): void {
    if (plan.delayMs === 0) return this.#carryOut(plan);
    this.#delayedPlan = plan;
    this.#user.keepHead();
    this.#user.delay(plan.delayMs);
  }

  /** The delay that a fault put in is over. */
  delayed(): void {
    const plan = this.#delayedPlan!;
    this.#delayedPlan = null;
    this.#carryOut(plan);
  }

  #carryOut(plan: RequestPlan): void {
    switch (plan.kind) {
      case "respond": {
        const { code, status, grpcStatus, headers, body, detail } = plan;
        return this.#answer(ownAnswer(code, { status, grpcStatus, headers, body: body === "" ? null : body }), detail);
      }
      case "reset":
        return this.#user.drop(plan.code, "reset on purpose");
      case "forward":
        return this.#user.forward(plan);
      default:
        return unreachable(plan);
    }
  }
}
