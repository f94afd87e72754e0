// The life of one request, from its head to the last byte of the answer:
//
//   deciding ──plan──▶ delayed ──▶ connecting ──▶ awaiting ──head──▶ responding ──▶ ended
//      │                              ▲    │           │  ╲──granted──▶ tunnel ──▶ ended
//      │                              └─ backoff ◀─────┘
//      └──────────── an answer of our own ──────────▶ responding
//
// One object, fixed fields, no promise unless a token has to be verified. It composes decisions and streams; each knows its own business.

import type { WorkloadUid } from "../core/brand.ts";
import type { Provenance } from "../core/fault.ts";
import type { Random } from "../core/ports.ts";
import { unreachable } from "../core/result.ts";
import type { Due, DueList } from "../net/due-list.ts";
import { authoriseRequest, explainAccess } from "../policy/http/authorise-request.ts";
import type { HeaderOperation } from "../policy/http/header-change.ts";
import { type LoginAnswer, type LoginContext, type LoginDecision, loginEndpoint, type LoginStep, requireLogin } from "../policy/http/login.ts";
import { withoutLoginCookies } from "../policy/http/login-cookies.ts";
import { authenticateSession } from "../policy/http/login-token.ts";
import { type ForwardPlan, type InjectedFault, planRequest, type RequestPlan } from "../policy/http/plan.ts";
import { type ReasonCode, reasonEntry } from "../policy/http/reason-codes.ts";
import { sessionHeader, type SessionSigner } from "../policy/http/session.ts";
import { isUntrusted } from "../policy/http/untrusted-headers.ts";
import {
  type AuthenticationDecision, decideAuthentication, findTokens, type FoundToken, headerOperations, strippedQuery, type TokenVerdict,
} from "../policy/http/tokens.ts";
import { Admission, explainShed } from "../policy/upstream/adaptive-concurrency.ts";
import { Attempt } from "../policy/upstream/attempt.ts";
import { hashOfRequest } from "../policy/upstream/balancers/hash-key.ts";
import { explainRefusal, Permits } from "../policy/upstream/circuit-breaker.ts";
import type { UpstreamEndpoint } from "../policy/upstream/endpoint.ts";
import { formatGrpcTimeout, parseGrpcTimeout } from "../policy/upstream/grpc-timeout.ts";
import { type Outcome, outcomeOfAnswer } from "../policy/upstream/outcome.ts";
import { type AttemptEnd, decideRetry } from "../policy/upstream/retry.ts";
import { NO_RETRY_AFTER, parseGrpcPushback, parseRetryAfter } from "../policy/upstream/retry-after.ts";
import { effectiveRetry, effectiveTimeouts, type TimeoutSettings } from "../policy/upstream/settings.ts";
import { rateLimitHeaders } from "../policy/upstream/rate-limit/headers.ts";
import { ViewFacts } from "../policy/upstream/view-facts.ts";
import { attemptTime, requestDeadline } from "../policy/upstream/timeouts.ts";
import { INHERITED_TIMEOUTS, type RetryPolicy } from "../mesh/l7/route.ts";
import type { Workload } from "../mesh/records.ts";
import type { HttpFields } from "../wire/http/fields.ts";
import type { HeaderList } from "../wire/http/header-list.ts";
import { headerValue } from "../wire/http/header-list.ts";
import type { HttpRequest, HttpResponse } from "../wire/http/message.ts";
import type { Client } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import type { Clusters } from "./clusters.ts";
import type { NewStream } from "./downstream.ts";
import type { EndpointPool, PoolWaiter, UpstreamVersion } from "./endpoint-pool.ts";
import { Mirror } from "./mirror.ts";
import type { EndedRequest, RequestObserver } from "./observer.ts";
import { outgoingOf, UpgradeBridge } from "./outgoing.ts";
import { ownAnswer, type OwnAnswer, renderAnswer } from "./own-answer.ts";
import { RequestBody } from "./request-body.ts";
import { RequestHead } from "./request-head.ts";
import { ResponseBody } from "./response-body.ts";
import { type ServiceView, type ServiceViews } from "./service-view.ts";
import type { DownstreamUser, HttpVersion, UpstreamFailure, UpstreamStream, UpstreamUser } from "./streams.ts";
import type { UpstreamConnection } from "./upstream.ts";

/** Verifies tokens; the answer may have to be fetched. */
export interface TokenChecker {
  verify(found: FoundToken): Promise<TokenVerdict>;
}

/** Answers what a login has to ask of its provider. */
export interface LoginChecker {
  context(): LoginContext;
  settle(step: LoginStep): Promise<LoginDecision>;
}

export interface RequestHost {
  readonly due: DueList;
  readonly nowMs: () => number;
  readonly wallMs: () => number;
  readonly random: Random;
  readonly views: ServiceViews;
  readonly clusters: Clusters;
  readonly tokens: TokenChecker;
  readonly logins: LoginChecker;
  readonly sessionSigner: SessionSigner | null;
  readonly observer: RequestObserver;
  /** All that are under way. */
  readonly requests: Set<ActiveRequest>;
}

type State = "deciding" | "delayed" | "connecting" | "awaiting" | "backoff" | "responding" | "tunnel" | "ended";

const NO_INJECTED: readonly InjectedFault[] = Object.freeze([]);
const NO_TRIED: readonly UpstreamEndpoint[] = Object.freeze([]);
const NO_OPERATIONS: readonly HeaderOperation[] = Object.freeze([]);
const NO_TRAILERS: HeaderList = [];
/** Of the names that isUntrusted may say yes to. */
const UNTRUSTED_INITIALS = "xtcf";
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);
/** Kept connections that may turn out to be closed, one after the other, before a new one is made. */
const STALE_RETRIES_MAX = 1;

export class ActiveRequest implements DownstreamUser, UpstreamUser, PoolWaiter, Due, EndedRequest {
  dueMs = Infinity;
  dueIndex = -1;
  readonly client: Client;
  readonly head: RequestHead;
  readonly startedMs: number;
  readonly isGrpc: boolean;
  readonly #host: RequestHost;
  readonly #stream: NewStream;
  #state: State = "deciding";
  #lastActivityMs: number;

  // What was decided
  #plan: ForwardPlan | null = null;
  #responseHeaders: readonly HeaderOperation[] = NO_OPERATIONS;
  #cluster: Cluster | null = null;
  #retry: RetryPolicy | null = null;
  #timeouts: TimeoutSettings | null = null;
  #outgoing: HttpRequest;
  #bridge: UpgradeBridge | null = null;
  #mirrors: Mirror[] | null = null;
  /** `set-cookie` values of a session that was renewed. */
  #loginCookies: readonly string[] = NO_TRAILERS;
  /** Of a CORS preflight to a service with a login: the answer unless a rule has one. */
  #unlessPreflight: LoginAnswer | null = null;
  #hash = 0;
  /** Of the limit that is nearest to refusing: name, value, …. */
  #rateHeaders: readonly string[] = NO_TRAILERS;
  #cookie: { readonly name: string; readonly value: string; readonly path: string; readonly ttlMs: number } | null = null;

  // The attempt under way
  #attempt: Attempt | null = null;
  #endpoint: UpstreamEndpoint | null = null;
  #pool: EndpointPool | null = null;
  #version: UpstreamVersion = "HTTP/1.1";
  #upstream: UpstreamStream | null = null;
  #tried: UpstreamEndpoint[] | null = null;
  #staleRetries = 0;
  #permits: Permits | null = null;
  #admission: Admission | null = null;

  // Bodies
  readonly #requestBody: RequestBody;
  #requestEnded: boolean;
  #responseBody: ResponseBody | null = null;

  // Time
  #deadlineMs = Infinity;
  #attemptEndsMs = Infinity;
  #attemptLimit: "perTry" | "backendRequest" | "request" | "none" = "none";
  /** Of a delay, a wait before another attempt, or a held back answer. */
  #wakeMs = Infinity;

  // What is told at the end
  view: ServiceView | null = null;
  attemptStartedMs = 0;
  answeredMs = 0;
  endedMs = 0;
  status = 0;
  grpcStatus: number | null = null;
  code: ReasonCode | null = null;
  detail = "";
  provenance: Provenance | null = null;
  routeName: string | null = null;
  attempts = 0;
  injected: readonly InjectedFault[] = NO_INJECTED;
  #flags = "";

  constructor(host: RequestHost, stream: NewStream, client: Client) {
    this.#host = host;
    this.#stream = stream;
    this.client = client;
    const { request } = stream;
    this.#outgoing = request;
    this.head = new RequestHead(request, client);
    this.isGrpc = (request.fields.value("content-type") ?? "").startsWith("application/grpc");
    this.startedMs = this.#lastActivityMs = host.nowMs();
    this.#requestEnded = !request.hasBody;
    this.#requestBody = new RequestBody(stream);
  }

  get version(): HttpVersion {
    return this.#stream.version;
  }

  get requestBytes(): number {
    return this.#requestBody.receivedBytes;
  }

  get responseBytes(): number {
    return this.#responseBody?.sentBytes ?? 0;
  }

  get flags(): string {
    return this.#flags === "" ? "-" : this.#flags;
  }

  get cluster(): string | null {
    return this.#cluster?.name ?? null;
  }

  get upstreamAddress(): string | null {
    return this.#pool?.name ?? null;
  }

  get upstreamVersion(): string | null {
    return this.#pool === null ? null : this.#version;
  }

  get endpoint(): Workload | null {
    return this.#endpoint?.target.workload ?? null;
  }

  /** For introspection. */
  get state(): string {
    return this.#state;
  }

  // ── Decisions ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

  start(): void {
    this.#host.requests.add(this);
    this.#host.due.add(this);
    if (this.head.method === "CONNECT" && this.#outgoing.upgrade === null) {
      this.#answer(ownAnswer("upgrade_refused"), "CONNECT without a protocol: this is no forward proxy");
      return;
    }
    const view = (this.view = this.#host.views.of(this.client));
    const trust = { fromMesh: this.client.source.identity !== null, methodsMatter: view.methodsMatter };
    this.head.fields.removeWhere(UNTRUSTED_INITIALS, (name) => isUntrusted(name, trust));
    if (view.service === null) {
      this.#answer(ownAnswer("service_unknown"), `the configuration has no service ${this.client.destination.service}`);
    } else {
      const endpoint = view.access.logins.length === 0 ? null : loginEndpoint(view.access.logins, this.head, this.#host.logins.context());
      if (endpoint !== null) this.#login(view, endpoint);
      else if (view.tokenRules.length > 0) this.#authenticate(view);
      else this.#withoutToken(view);
    }
    this.#arm();
  }

  #withoutToken(view: ServiceView): void {
    const { logins } = view.access;
    if (logins.length === 0) this.#authorise(view);
    else this.#login(view, requireLogin(logins, this.head, this.#host.logins.context()));
  }

  #login(view: ServiceView, step: LoginStep): void {
    if (step.kind !== "ask") return this.#loginDecided(view, step);
    this.#stream.keepHead();
    this.#host.logins.settle(step).then(
      (decision) => {
        if (this.#state !== "deciding") return;
        this.#loginDecided(view, decision);
        this.#arm();
      },
      (error: unknown) => {
        if (this.#state !== "deciding") return;
        this.#answer(ownAnswer("login_unavailable"), `the login could not be decided: ${String(error)}`);
        this.#arm();
      },
    );
  }

  #loginDecided(view: ServiceView, decision: LoginDecision): void {
    switch (decision.kind) {
      case "answer":
        return this.#answerLogin(decision);
      case "preflight":
        this.#unlessPreflight = decision.otherwise;
        return this.#authorise(view);
      case "pass":
        this.#loginCookies = decision.cookies;
        return this.#authenticated(view, authenticateSession(view.tokenRules, view.access.logins[0]!, decision.session));
      default:
        return unreachable(decision);
    }
  }

  #answerLogin({ code, status, headers, body, detail, provenance }: LoginAnswer): void {
    this.provenance = provenance;
    this.#answer(ownAnswer(code, { status, headers, body }), detail);
  }

  #authenticate(view: ServiceView): void {
    const found = findTokens(view.tokenRules, this.head);
    if ("kind" in found) return this.#rejected(found);
    if (found.length === 0) {
      if (view.access.logins.length > 0) return this.#withoutToken(view);
      return this.#authenticated(view, decideAuthentication(view.tokenRules, found, []));
    }
    this.#stream.keepHead();
    Promise.all(found.map((token) => this.#host.tokens.verify(token))).then(
      (verdicts) => {
        if (this.#state !== "deciding") return;
        this.#authenticated(view, decideAuthentication(view.tokenRules, found, verdicts));
        this.#arm();
      },
      (error: unknown) => {
        if (this.#state !== "deciding") return;
        this.#answer(ownAnswer("token_keys_unavailable"), `the token could not be verified: ${String(error)}`);
        this.#arm();
      },
    );
  }

  #rejected(decision: Extract<AuthenticationDecision, { kind: "rejected" }>): void {
    this.provenance = decision.provenance;
    this.#answer(ownAnswer(decision.code, { status: decision.status, headers: decision.headers }), decision.detail);
  }

  #authenticated(view: ServiceView, decision: AuthenticationDecision): void {
    if (decision.kind === "rejected") return this.#rejected(decision);
    const { head } = this;
    if (decision.kind === "authenticated") head.token = decision.token;
    // Access is decided on what the client sent; the backend sees what the rules say.
    const operations = headerOperations(decision.changes, head.fields);
    const query = strippedQuery(head.query, decision.changes);
    this.#authorise(view, () => {
      change(head.fields, operations);
      head.query = query;
    });
  }

  #authorise(view: ServiceView, allowed?: () => void): void {
    const decision = authoriseRequest(view.access, this.head);
    switch (decision.kind) {
      case "allow":
        allowed?.();
        for (const login of view.access.logins) change(this.head.fields, withoutLoginCookies(login, this.head.fields));
        return this.#route(view);
      case "deny":
        this.provenance = decision.policy;
        return this.#answer(ownAnswer(decision.code, { status: decision.status, body: "RBAC: access denied" }), explainAccess(decision));
      case "ask":
        // Nobody is there to ask: what cannot be enforced denies.
        this.provenance = decision.policy;
        return this.#answer(ownAnswer("access_policy_unenforceable"), `${explainAccess(decision)}, and external authorizers are not asked in this version`);
      default:
        return unreachable(decision);
    }
  }

  #route(view: ServiceView): void {
    const { host, nowMs } = { host: this.#host, nowMs: this.startedMs };
    const { head } = this;
    const { destination, source } = this.client;
    const result = view.router.match(head);
    if (result.kind === "matched") this.routeName = result.route.id;
    // Faults of the service that the client meant; one that has no such policy costs nothing here.
    const own = host.clusters.of({ ...destination, subset: null, clientNamespace: source.namespace });
    const plan = planRequest(head, result, {
      random: host.random, listenerPort: destination.port, nowMs: host.wallMs(), sessionSigner: host.sessionSigner,
      ...(own !== null && own.faults.length > 0 ? { serviceFaults: own.faults } : {}),
    });
    this.provenance = plan.provenance;
    this.injected = plan.injected;
    this.#responseHeaders = plan.responseHeaders;
    if (plan.injected.some(({ action }) => action.kind === "delay")) this.#flag("DI");
    if (plan.authorizers.length > 0) return this.#answer(ownAnswer("access_policy_unenforceable"), "the rule asks an external authorizer, which this version cannot do");
    if (plan.delayMs > 0) {
      this.#stream.keepHead();
      this.#state = "delayed";
      this.#wakeMs = nowMs + plan.delayMs;
      this.#delayedPlan = plan;
      return;
    }
    this.#carryOut(plan);
  }

  #delayedPlan: RequestPlan | null = null;

  #carryOut(plan: RequestPlan): void {
    if (this.#unlessPreflight !== null && !(plan.kind === "respond" && (plan.code === "cors_preflight" || plan.code === "cors_preflight_denied"))) return this.#answerLogin(this.#unlessPreflight);
    switch (plan.kind) {
      case "respond":
        return this.#answer(ownAnswer(plan.code, { status: plan.status, grpcStatus: plan.grpcStatus, headers: plan.headers, body: plan.body === "" ? null : plan.body }), plan.detail);
      case "reset":
        this.code = plan.code;
        this.#flag(reasonEntry(plan.code).flag);
        this.detail = "reset on purpose";
        this.#stream.reset();
        return this.#end();
      case "forward":
        return this.#forward(plan);
      default:
        return unreachable(plan);
    }
  }

  // ── Forwarding ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #forward(plan: ForwardPlan): void {
    const host = this.#host;
    const { head } = this;
    const { destination, source } = this.client;
    const nowMs = host.nowMs();
    this.#plan = plan;
    const target = plan.backend ?? { ...destination, subset: null };
    const cluster = host.clusters.of({ service: target.service, port: target.port, subset: target.subset, clientNamespace: source.namespace });
    if (cluster === null) return this.#answer(ownAnswer("no_endpoints"), `no DestinationRule defines the subset ${target.subset} of ${target.service}`);
    this.#cluster = cluster;
    if (!cluster.refresh(nowMs)) return this.#answer(ownAnswer("service_unknown"), `the configuration has no service ${target.service}`);
    const { settings } = cluster;
    if (cluster.broken !== null) return this.#answer(ownAnswer("rule_broken"), cluster.broken);
    if (settings.tls.mode !== "off") {
      return this.#answer(ownAnswer("tls_broken"), settings.tls.mode === "broken" ? settings.tls.reason : "TLS towards backends is not there in this version; nothing is sent without it");
    }
    if (!this.#withinRate(cluster, nowMs)) return;
    if (!this.#admit(cluster, nowMs)) return;
    cluster.budget.request(nowMs);
    change(head.fields, plan.requestHeaders);
    this.#timeouts = effectiveTimeouts(plan.timeouts ?? INHERITED_TIMEOUTS, settings);
    this.#retry = effectiveRetry(plan.retry, settings);
    const grpcTimeout = this.isGrpc ? head.fields.value("grpc-timeout") : undefined;
    this.#deadlineMs = requestDeadline(this.#timeouts, grpcTimeout === undefined ? null : parseGrpcTimeout(grpcTimeout), nowMs);
    this.#outgoing = outgoingOf(this.#stream.request, { path: plan.path, query: head.query === this.#stream.request.target.query ? plan.query : head.query, host: plan.host, serviceHost: this.#serviceHost(target.service) });
    if (this.#retry.attempts === 0) this.#requestBody.forget();
    this.#balance(cluster);
    if (plan.mirrors.length > 0) this.#startMirrors(plan);
    this.#try(false);
    // Whatever waits now, or is sent again later, needs the head after this call.
    if (this.#state !== "ended" && (this.#upstream === null || this.#retry.attempts > 0)) this.#stream.keepHead();
  }

  /** Within the rate limits of the service, or answered. */
  #withinRate(cluster: Cluster, nowMs: number): boolean {
    const { globalRateLimits } = cluster.settings;
    if (globalRateLimits.length > 0) {
      this.#answer(ownAnswer("rate_limit_failed"), `${globalRateLimits[0]!.name} is counted by a service, which this version does not ask`);
      return false;
    }
    if (cluster.rateLimiter === null) return true;
    const verdict = cluster.rateLimiter.decide(new ViewFacts(this.head, this.head.token?.payload ?? null), nowMs);
    if (verdict.limit === null) return true;
    const headers = rateLimitHeaders(verdict.state);
    if (verdict.allowed) {
      this.#rateHeaders = headers;
      return true;
    }
    const pairs: [string, string][] = [];
    for (let i = 0; i < headers.length; i += 2) pairs.push([headers[i]!, headers[i + 1]!]);
    this.#answer(ownAnswer("rate_limited", { headers: pairs }), `${verdict.limit.name}: ${verdict.state.quota} in ${Math.round(verdict.state.windowMs)} ms are used up`);
    return false;
  }

  #serviceHost(service: string): string {
    return service.slice(service.indexOf("/") + 1);
  }

  /** Within the limits of the service, or answered. */
  #admit(cluster: Cluster, nowMs: number): boolean {
    this.#permits = new Permits(cluster.breaker);
    const refusal = this.#permits.acquire("activeRequests");
    if (refusal !== null) {
      this.#answer(ownAnswer("circuit_open"), `${cluster.name}: ${explainRefusal(refusal)}`);
      return false;
    }
    if (cluster.adaptive === null) return true;
    const { adaptive, settings: { adaptiveConcurrency } } = cluster;
    const header = adaptiveConcurrency!.priorityHeader;
    this.#admission = new Admission();
    const shed = this.#admission.enter(adaptive, adaptive.classOf(header === null ? null : this.head.fields.value(header) ?? null), nowMs);
    if (shed === null) return true;
    this.#answer(ownAnswer("concurrency_limited"), `${cluster.name}: ${explainShed(shed)}`);
    return false;
  }

  #balance(cluster: Cluster): void {
    const { balancing } = cluster.settings;
    if (balancing.kind !== "ringHash" && balancing.kind !== "maglev") return;
    const hashed = hashOfRequest(balancing.key, new ViewFacts(this.head, this.head.token?.payload ?? null), this.#host.random);
    this.#hash = hashed.hash;
    if (hashed.kind === "newCookie") this.#cookie = hashed.cookie;
  }

  #startMirrors(plan: ForwardPlan): void {
    const host = this.#host;
    const mirrors: Mirror[] = [];
    for (const target of plan.mirrors) {
      const cluster = host.clusters.of({ service: target.service, port: target.port, subset: target.subset, clientNamespace: this.client.source.namespace });
      if (cluster === null || !cluster.refresh(host.nowMs())) continue;
      const mirror = new Mirror(host, cluster, this.#outgoing, this.#upstreamVersion(cluster));
      if (mirror.start()) mirrors.push(mirror);
    }
    if (mirrors.length > 0) this.#mirrors = mirrors;
  }

  #upstreamVersion(cluster: Cluster): UpstreamVersion {
    switch (cluster.protocol) {
      case "HTTP/2": return "HTTP/2";
      case "HTTP/1.1": return "HTTP/1.1";
      // A server whose port does not say otherwise takes an upgrade the way it was invented.
      case "asClient": return this.version === "HTTP/2" && this.#outgoing.upgrade === null ? "HTTP/2" : "HTTP/1.1";
      default: return unreachable(cluster.protocol);
    }
  }

  /** @param fresh over a connection made for it. */
  #try(fresh: boolean): void {
    const host = this.#host;
    const cluster = this.#cluster!;
    const nowMs = host.nowMs();
    const time = attemptTime({ deadlineMs: this.#deadlineMs, perTryTimeoutMs: this.#retry!.perTryTimeoutMs, backendRequestMs: this.#timeouts!.backendRequestMs }, nowMs);
    if (time.kind === "expired") return this.#timedOut();
    cluster.refresh(nowMs);
    const session = this.#plan!.session;
    const pick = cluster.upstream.pick({
      nowMs, hash: this.#hash, tried: this.#tried ?? NO_TRIED, sticky: (session?.current?.endpoint ?? null) as WorkloadUid | null,
      mayProbe: IDEMPOTENT.has(this.head.method) && this.#retry!.attempts > 0,
    });
    if (pick.endpoint === null) {
      const code: ReasonCode = pick.reason === "noneHealthy" ? "no_healthy_endpoint" : "no_endpoints";
      return this.#answer(ownAnswer(code), cluster.explainNothing());
    }
    this.attempts++;
    this.attemptStartedMs = nowMs;
    this.#attempt ??= new Attempt();
    this.#endpoint = this.#attempt.start(cluster.upstream, pick, nowMs);
    this.#attemptEndsMs = nowMs + time.ms;
    this.#attemptLimit = time.limit;
    this.#version = this.#upstreamVersion(cluster);
    const pool = (this.#pool = cluster.poolOf(this.#endpoint));
    const acquired = pool.acquire(this.#version, this, fresh);
    switch (acquired.kind) {
      case "connection":
        return this.#send(acquired.connection);
      case "refused":
        return this.#attemptFailed("neutral", null, { code: "circuit_open", message: `${cluster.name}: ${explainRefusal(acquired.refusal)}` });
      case "waiting": {
        this.#state = "connecting";
        const refusal = this.#permits!.acquire("pendingRequests");
        if (refusal === null) return;
        pool.cancel(this.#version, this);
        return this.#attemptFailed("neutral", null, { code: "circuit_open", message: `${cluster.name}: ${explainRefusal(refusal)}` });
      }
      default:
        return unreachable(acquired);
    }
  }

  connectionReady(connection: UpstreamConnection): void {
    this.#permits!.release("pendingRequests");
    this.#send(connection);
    this.#arm();
  }

  connectionFailed(message: string): void {
    this.#permits!.release("pendingRequests");
    this.#attemptFailed("connectFailure", { kind: "connectFailure" }, { code: "connect_failed", message });
    this.#arm();
  }

  #send(connection: UpstreamConnection): void {
    const outgoing = this.#upgraded(connection);
    if (outgoing === null) return;
    if (this.isGrpc && this.#attemptEndsMs !== Infinity) {
      const leftMs = this.#attemptEndsMs - this.#host.nowMs();
      outgoing.fields.set("grpc-timeout", formatGrpcTimeout(Math.max(leftMs, 1)));
    }
    this.#state = "awaiting";
    const endStream = !outgoing.hasBody;
    const stream = connection.request(outgoing, endStream, this);
    if (stream === null) {
      // It filled up, or ended, between being found and being used.
      this.#attemptFailed("neutral", { kind: "refused" }, { code: "upstream_reset", message: `the connection to ${this.upstreamAddress} took no request` });
      return;
    }
    this.#upstream = stream;
    if (!endStream) this.#requestBody.attach(stream);
  }

  /** The request in the form that the connection has for an upgrade; null: answered. */
  #upgraded(connection: UpstreamConnection): HttpRequest | null {
    const outgoing = this.#outgoing;
    if (outgoing.upgrade === null) return outgoing;
    const from = this.version === "HTTP/2" ? "HTTP/2" : "HTTP/1.1";
    if (connection.version === "HTTP/2" && connection.takesExtendedConnect !== true) {
      this.#attempt?.settle("neutral", this.#host.nowMs());
      this.#answer(ownAnswer("upgrade_refused", { status: 502 }), `${this.upstreamAddress} speaks HTTP/2 without extended CONNECT, and its port is declared as HTTP/2`);
      return null;
    }
    if (from === connection.version) return outgoing;
    this.#bridge = new UpgradeBridge();
    return connection.version === "HTTP/2" ? this.#bridge.toHttp2(outgoing) : this.#bridge.toHttp1(outgoing, this.#host.random);
  }

  // ── The end of an attempt ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** @param end null: it is not made again. */
  #attemptFailed(outcome: Outcome, end: AttemptEnd | null, why: { readonly code: ReasonCode; readonly message: string }): void {
    const nowMs = this.#host.nowMs();
    this.#endAttempt(outcome, nowMs, NO_RETRY_AFTER);
    this.#note(why.message);
    if (end !== null && this.#retryAfter(end, nowMs)) return;
    const exhausted = this.attempts > 1 && this.attempts > this.#retry!.attempts;
    if (exhausted) this.#flag("URX");
    this.#answer(ownAnswer(why.code), "");
  }

  #endAttempt(outcome: Outcome, nowMs: number, retryAfterMs: number): void {
    this.#attempt?.settle(outcome, nowMs, retryAfterMs);
    this.#attempt?.end(nowMs);
    this.#upstream = null;
    this.#requestBody.detach();
    this.#attemptEndsMs = Infinity;
  }

  /** True: another attempt follows. */
  #retryAfter(end: AttemptEnd, nowMs: number): boolean {
    const cluster = this.#cluster!;
    const decision = decideRetry(end, {
      policy: this.#retry!, attempts: this.attempts - this.#staleRetries, isIdempotent: IDEMPOTENT.has(this.head.method), isReplayable: this.#requestBody.replayable,
      answerBegun: false, isInjected: false, remainingMs: this.#deadlineMs - nowMs,
    }, cluster.budget, nowMs, this.#host.random);
    if (!decision.retry) return false;
    if (!this.#permits!.holds("activeRetries")) {
      const refusal = this.#permits!.acquire("activeRetries");
      if (refusal !== null) {
        this.#note(explainRefusal(refusal));
        return false;
      }
    }
    (this.#tried ??= []).push(this.#endpoint!);
    this.#state = "backoff";
    this.#wakeMs = nowMs + decision.delayMs;
    return true;
  }

  onUpstreamFailed(failure: UpstreamFailure): void {
    if (this.#state === "ended") return;
    if (this.#state !== "awaiting") {
      // Too late for another answer: the client must not take the part for the whole.
      this.#upstream = null;
      this.#attempt?.end(this.#host.nowMs());
      this.#note(failure.message);
      this.#cut(failure.kind === "protocol" ? "upstream_protocol" : "upstream_reset");
      return;
    }
    switch (failure.kind) {
      case "stale":
        if (this.#tryAgainFresh(failure.message)) break;
        this.#attemptFailed("neutral", { kind: "reset" }, { code: "upstream_reset", message: failure.message });
        break;
      case "connect":
        this.#attemptFailed("connectFailure", { kind: "connectFailure" }, { code: "connect_failed", message: failure.message });
        break;
      case "refused":
        this.#attemptFailed("neutral", { kind: "refused" }, { code: "upstream_reset", message: failure.message });
        break;
      case "reset":
        this.#attemptFailed("gatewayError", { kind: "reset" }, { code: "upstream_reset", message: failure.message });
        break;
      case "protocol":
        this.#attemptFailed("gatewayError", { kind: "reset" }, { code: "upstream_protocol", message: failure.message });
        break;
      default:
        unreachable(failure.kind);
    }
    this.#arm();
  }

  /**
   * A kept connection that the server closed just then says nothing of the server, and nothing of the request was answered: requests that
   * may be sent twice go again at once, over a new connection, whatever the retry policy says (RFC 9110, section 9.2.2).
   */
  #tryAgainFresh(message: string): boolean {
    if (this.#staleRetries >= STALE_RETRIES_MAX || !IDEMPOTENT.has(this.head.method) || !this.#requestBody.replayable) return false;
    this.#staleRetries++;
    this.#endAttempt("neutral", this.#host.nowMs(), NO_RETRY_AFTER);
    this.#note(message);
    this.#try(true);
    return true;
  }

  // ── The answer ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  onInformational(response: HttpResponse): void {
    if (this.#state === "awaiting") this.#stream.inform(response.status, response.fields);
  }

  onResponse(response: HttpResponse, endStream: boolean): void {
    if (this.#state !== "awaiting") return;
    const nowMs = this.#host.nowMs();
    const { status, fields } = response;
    const grpcStatus = this.isGrpc && endStream ? numberOrNull(fields.value("grpc-status")) : null;
    const retryAfterMs = this.#retryAfterOf(status, fields);
    const mayRetry = (grpcStatus !== null && grpcStatus !== 0) || status >= 400;
    this.#attempt!.settle(outcomeOfAnswer(status, grpcStatus), nowMs, Math.max(NO_RETRY_AFTER, retryAfterMs));
    if (mayRetry && this.#retryAfter({ kind: "answer", status, grpcStatus, retryAfterMs }, nowMs)) {
      this.#note(`${this.upstreamAddress} answered ${grpcStatus === null ? status : `grpc-status ${grpcStatus}`}`);
      // An answer that is whole leaves its connection as it was; the rest of another is not waited for.
      if (endStream) this.#upstream!.release();
      else this.#upstream!.reset();
      this.#attempt!.end(nowMs);
      this.#upstream = null;
      this.#requestBody.detach();
      this.#attemptEndsMs = Infinity;
      this.#arm();
      return;
    }
    this.#begin(status, nowMs);
    this.grpcStatus = grpcStatus;
    change(fields, this.#responseHeaders);
    this.#addOwnHeaders(fields);
    this.#responseBody = new ResponseBody(this.#stream, this.#upstream, this.#plan!.bytesPerSecond, nowMs);
    if (endStream) this.#releaseUpstream();
    this.#stream.respond(response, endStream);
  }

  onTunnel(response: HttpResponse): void {
    if (this.#state !== "awaiting") return;
    const nowMs = this.#host.nowMs();
    this.#attempt!.settle("success", nowMs);
    if (this.#bridge !== null) {
      if (this.version === "HTTP/2" ? !this.#bridge.granted1to2(response) : false) {
        this.#upstream!.reset();
        this.#upstream = null;
        return this.#answer(ownAnswer("upstream_protocol"), `${this.upstreamAddress} granted the WebSocket without the proof that it understood the request`);
      }
      if (this.version !== "HTTP/2") this.#bridge.granted2to1(response);
    }
    this.#begin(this.version === "HTTP/2" ? 200 : 101, nowMs);
    this.#state = "tunnel";
    // Tunnels last; what bounds requests would cut them.
    this.#deadlineMs = this.#attemptEndsMs = Infinity;
    change(response.fields, this.#responseHeaders);
    this.#addLoginCookies(response.fields);
    this.#responseBody = new ResponseBody(this.#stream, this.#upstream, this.#plan!.bytesPerSecond, nowMs);
    this.#stream.openTunnel(response);
    this.#requestBody.attach(this.#upstream!);
    this.#arm();
  }

  onResponseBody(bytes: Uint8Array): void {
    this.#lastActivityMs = this.#host.nowMs();
    this.#responseBody?.receive(bytes);
    if (this.#plan?.bytesPerSecond != null) this.#arm();
  }

  onResponseEnd(trailers: HeaderList): void {
    if (this.isGrpc && trailers.length > 0) this.grpcStatus = numberOrNull(headerValue(trailers, "grpc-status")) ?? this.grpcStatus;
    const body = this.#responseBody;
    if (body === null) return;
    if (this.#state === "tunnel") {
      body.receiveEnd(NO_TRAILERS, this.#host.nowMs());
      return this.#arm();
    }
    // Not our own calls into its engine any more: it goes on by itself with the next request.
    this.#releaseUpstream();
    body.receiveEnd(trailers, this.#host.nowMs());
    if (!body.finished) this.#arm();
  }

  onUpstreamSendable(): void {
    this.#requestBody.flush();
  }

  #begin(status: number, nowMs: number): void {
    this.#state = "responding";
    this.status = status;
    this.answeredMs = nowMs;
    this.#attemptEndsMs = Infinity;
    this.#requestBody.forget();
  }

  /** Nothing more is wanted from the server. */
  #releaseUpstream(): void {
    const upstream = this.#upstream;
    if (upstream === null) return;
    this.#upstream = null;
    this.#requestBody.detach();
    this.#attempt?.end(this.#host.nowMs());
    // HTTP/2's connection takes the rest of the stream back once its engine has returned.
    upstream.release();
  }

  #retryAfterOf(status: number, fields: HttpFields): number {
    const pushback = this.isGrpc ? fields.value("grpc-retry-pushback-ms") : undefined;
    if (pushback !== undefined) return parseGrpcPushback(pushback);
    if (status !== 429 && status !== 503) return NO_RETRY_AFTER;
    const text = fields.value("retry-after");
    return text === undefined ? NO_RETRY_AFTER : parseRetryAfter(text, this.#host.wallMs());
  }

  #addLoginCookies(fields: HttpFields): void {
    for (const cookie of this.#loginCookies) fields.append("set-cookie", cookie);
  }

  #addOwnHeaders(fields: HttpFields): void {
    this.#addLoginCookies(fields);
    for (let i = 0; i < this.#rateHeaders.length; i += 2) fields.set(this.#rateHeaders[i]!, this.#rateHeaders[i + 1]!);
    const session = this.#plan!.session;
    if (session !== null) {
      const header = sessionHeader(session.scope, {
        backend: session.backend, endpoint: this.#endpoint!.target.workload.uid, current: session.current, nowMs: this.#host.wallMs(), secure: this.head.scheme === "https",
      });
      if (header !== null) fields.append(header.name, header.value);
    }
    const cookie = this.#cookie;
    if (cookie !== null) fields.append("set-cookie", `${cookie.name}=${cookie.value}; Path=${cookie.path}; Max-Age=${Math.ceil(cookie.ttlMs / 1000)}; HttpOnly`);
  }

  /** Answers by ourselves, or, when an answer has begun, cuts it. */
  #answer(answer: OwnAnswer, detail: string): void {
    if (this.#state === "responding" || this.#state === "tunnel") {
      if (detail !== "") this.#note(detail);
      return this.#cut(answer.code);
    }
    const nowMs = this.#host.nowMs();
    this.#leaveServer(nowMs);
    const contentType = this.isGrpc ? (this.head.fields.value("content-type") ?? "application/grpc").split(";")[0]!.trim() : null;
    const { response, body, grpcStatus } = renderAnswer(answer, contentType);
    this.code = answer.code;
    this.#flag(reasonEntry(answer.code).flag);
    if (detail !== "") this.#note(detail);
    this.#begin(response.status, nowMs);
    this.grpcStatus = grpcStatus;
    this.#deadlineMs = Infinity;
    change(response.fields, this.#responseHeaders);
    this.#addLoginCookies(response.fields);
    this.#wakeMs = Infinity;
    const endStream = body.length === 0 || this.head.method === "HEAD";
    const responseBody = (this.#responseBody = new ResponseBody(this.#stream, null, null, nowMs));
    this.#stream.respond(response, endStream);
    if (endStream) return;
    responseBody.receive(body);
    responseBody.receiveEnd(NO_TRAILERS, nowMs);
  }

  /** Ends an answer that has begun so that nobody takes it for whole. */
  #cut(code: ReasonCode): void {
    this.code ??= code;
    this.#flag(reasonEntry(code).flag);
    this.#stream.reset();
    this.#end();
  }

  /** Whatever is under way towards a server is given up. */
  #leaveServer(nowMs: number): void {
    if (this.#state === "connecting") this.#pool?.cancel(this.#version, this);
    const upstream = this.#upstream;
    this.#upstream = null;
    this.#requestBody.detach();
    this.#attempt?.end(nowMs);
    upstream?.reset();
  }

  // ── The client ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  onRequestBody(bytes: Uint8Array): void {
    this.#lastActivityMs = this.#host.nowMs();
    if (this.#mirrors !== null) for (const mirror of this.#mirrors) mirror.body(bytes);
    this.#requestBody.receive(bytes);
  }

  onRequestEnd(trailers: HeaderList): void {
    this.#requestEnded = true;
    if (this.#mirrors !== null) for (const mirror of this.#mirrors) mirror.bodyEnd(trailers);
    this.#requestBody.receiveEnd(trailers);
  }

  onDownstreamSendable(): void {
    this.#lastActivityMs = this.#host.nowMs();
    this.#responseBody?.flush(this.#lastActivityMs);
  }

  onDownstreamAborted(why: string): void {
    if (this.#state === "ended") return;
    this.#flag("DC");
    this.#note(why);
    this.#end();
  }

  onDownstreamClosed(): void {
    this.#end();
  }

  // ── Time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  onDue(nowMs: number): void {
    if (this.#state === "ended") return;
    if (nowMs >= this.#wakeMs) {
      this.#wakeMs = Infinity;
      this.#wake(nowMs);
    } else if (nowMs >= this.#deadlineMs) {
      this.#timedOut();
    } else if (nowMs >= this.#attemptEndsMs) {
      this.#attemptTimedOut();
    } else if (nowMs >= this.#idleDueMs) {
      this.#answer(ownAnswer("stream_idle_timeout"), `no byte moved for ${this.#timeouts!.streamIdleMs} ms while ${this.#state}`);
    }
    this.#arm();
  }

  #wake(nowMs: number): void {
    switch (this.#state) {
      case "delayed": {
        const plan = this.#delayedPlan!;
        this.#delayedPlan = null;
        this.#state = "deciding";
        return this.#carryOut(plan);
      }
      case "backoff":
        return this.#try(false);
      case "responding":
      case "tunnel":
        return this.#responseBody?.flush(nowMs);
      default:
    }
  }

  #timedOut(): void {
    if (this.#state === "awaiting") this.#attempt?.settle("gatewayError", this.#host.nowMs());
    this.#admission?.leave("timedOut", this.#host.nowMs());
    this.#answer(ownAnswer("request_timeout"), `the request's ${Math.round(this.#deadlineMs - this.startedMs)} ms were over while ${this.#state}`);
  }

  #attemptTimedOut(): void {
    const limit = this.#attemptLimit;
    if (limit === "request") return this.#timedOut();
    const upstream = this.#upstream;
    if (this.#state === "connecting") {
      this.#pool?.cancel(this.#version, this);
      this.#permits!.release("pendingRequests");
    }
    const message = `attempt ${this.attempts} at ${this.upstreamAddress} took longer than its ${limit === "perTry" ? "per-try" : "backend request"} timeout`;
    this.#attemptFailed("gatewayError", { kind: "timeout" }, { code: "per_try_timeout", message });
    upstream?.reset();
  }

  get #idleDueMs(): number {
    const idleMs = this.#timeouts?.streamIdleMs ?? 0;
    return idleMs === 0 ? Infinity : this.#lastActivityMs + idleMs;
  }

  #arm(): void {
    if (this.#state === "ended") return;
    const paceMs = this.#responseBody?.paceDueMs ?? Infinity;
    if (paceMs !== Infinity) this.#wakeMs = paceMs;
    this.dueMs = Math.min(this.#wakeMs, this.#deadlineMs, this.#attemptEndsMs, this.#idleDueMs);
    this.#host.due.sooner(this);
  }

  // ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Ends it from outside: the process stops. */
  destroy(): void {
    if (this.#state === "ended") return;
    this.#answer(ownAnswer("draining"), "the waypoint is stopping");
    if ((this.#state as State) === "ended") return;
    this.#stream.reset();
    this.#end();
  }

  #end(): void {
    if (this.#state === "ended") return;
    const nowMs = this.#host.nowMs();
    this.#leaveServer(nowMs);
    this.#state = "ended";
    this.endedMs = nowMs;
    this.#host.due.remove(this);
    this.#host.requests.delete(this);
    this.#permits?.[Symbol.dispose]();
    this.#admission?.leave(this.code === null && this.answeredMs > 0 ? "answered" : "ignored", nowMs);
    if (this.#mirrors !== null && !this.#requestEnded) for (const mirror of this.#mirrors) mirror.abandon();
    this.#host.observer.ended(this);
  }

  #flag(flag: string): void {
    if (flag !== "") this.#flags += this.#flags === "" ? flag : `,${flag}`;
  }

  #note(text: string): void {
    this.detail += this.detail === "" ? text : `; ${text}`;
  }
}

function change(fields: HttpFields, operations: readonly HeaderOperation[]): void {
  for (const operation of operations) {
    switch (operation.kind) {
      case "set": fields.set(operation.name, operation.value); break;
      case "append": fields.append(operation.name, operation.value); break;
      case "remove": fields.remove(operation.name); break;
      default: operation satisfies never;
    }
  }
}

function numberOrNull(text: string | undefined): number | null {
  return text !== undefined && /^[0-9]{1,3}$/.test(text) ? Number(text) : null;
}
