// What happens to a request once its rule is found, as one explicit object: forward it, answer it, or reset it. Faults, CORS, filters in
// order, the backend by weight or session. Pure but for the dice, which are given in; the shell does what the plan says and no more.

import type { Provenance } from "../../core/fault.ts";
import type { Random } from "../../core/ports.ts";
import type { ExternalAuthorizer } from "../../mesh/l7/access.ts";
import type { FaultAction } from "../../mesh/l7/fault.ts";
import type { BackendTarget, RetryPolicy, RouteTimeouts } from "../../mesh/l7/route.ts";
import type { CompiledBackend, CompiledFault, CompiledFilter, CompiledRule } from "./compiled-rule.ts";
import { decideCors } from "./cors.ts";
import type { HeaderOperation } from "./header-change.ts";
import type { MatchedPrefix, Target } from "./path-change.ts";
import { GRPC_STATUS, grpcStatusOf, type ReasonCode, reasonEntry } from "./reason-codes.ts";
import { redirectLocation } from "./redirect.ts";
import { isGrpc, type RequestView } from "./request.ts";
import type { MatchedRule, RouteResult } from "./router.ts";
import { readSession, type Session, type SessionScope, type SessionSigner } from "./session.ts";

export type ServiceTarget = Extract<BackendTarget, { kind: "service" }>;

export interface InjectedFault {
  readonly action: FaultAction;
  readonly provenance: Provenance;
}

/** What every plan says, whatever becomes of the request. */
interface Common {
  /** The match that decided; null when none did. */
  readonly provenance: Provenance | null;
  readonly ruleName: string | null;
  /** Faults put in on purpose, in order; marked wherever the request is recorded, and never counted against an endpoint. */
  readonly injected: readonly InjectedFault[];
  /** Sum of the injected delays; before anything else is done. */
  readonly delayMs: number;
  /** Asked in order before anything else of the plan is done; one that refuses ends the request (the rule's ExternalAuth filters). */
  readonly authorizers: readonly ExternalAuthorizer[];
  /** Done to the response, whoever made it. */
  readonly responseHeaders: readonly HeaderOperation[];
}

export interface ForwardPlan extends Common {
  readonly kind: "forward";
  /** Null: to the service that the request was for. */
  readonly backend: ServiceTarget | null;
  readonly backendProvenance: Provenance | null;
  /** The rule as a whole, whose timeouts and retries these are; null where none decided. */
  readonly rule: Provenance | null;
  readonly path: string;
  readonly query: string;
  /** The host to send, when a rule changes it. */
  readonly host: string | null;
  readonly requestHeaders: readonly HeaderOperation[];
  readonly mirrors: readonly ServiceTarget[];
  readonly timeouts: RouteTimeouts | null;
  readonly retry: RetryPolicy | null;
  readonly session: PlannedSession | null;
  /** Bytes of the answer per second; null for no limit. */
  readonly bytesPerSecond: number | null;
}

export interface PlannedSession {
  readonly scope: SessionScope;
  readonly backend: string;
  /** The endpoint to prefer is `current.endpoint`; null: choose one. Afterwards `sessionHeader` says what to tell the client. */
  readonly current: Session | null;
}

export interface RespondPlan extends Common {
  readonly kind: "respond";
  readonly code: ReasonCode;
  readonly status: number;
  /** For gRPC requests, which get status 200 and this one in `grpc-status`; null for others, and for answers that are no error. */
  readonly grpcStatus: number | null;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
  /** For the log, and for the person who reads it. */
  readonly detail: string;
}

export interface ResetPlan extends Common {
  readonly kind: "reset";
  readonly code: ReasonCode;
}

export type RequestPlan = ForwardPlan | RespondPlan | ResetPlan;

export interface PlanContext {
  readonly random: Random;
  /** The port of the service at which the request came in. */
  readonly listenerPort: number;
  readonly nowMs: number;
  /** Null: sessions are not kept. */
  readonly sessionSigner: SessionSigner | null;
  /** Faults of the service's traffic policy, after the rule's own. */
  readonly serviceFaults?: readonly CompiledFault[];
}

const NO_OPERATIONS: readonly HeaderOperation[] = Object.freeze([]);
const NO_FAULTS: readonly InjectedFault[] = Object.freeze([]);
const NO_AUTHORIZERS: readonly ExternalAuthorizer[] = Object.freeze([]);
const NO_MIRRORS: readonly ServiceTarget[] = Object.freeze([]);

/** Decides. Call it once for each request: it throws the dice. */
export function planRequest(request: RequestView, result: RouteResult, context: PlanContext): RequestPlan {
  switch (result.kind) {
    case "matched": return new Planner(request, result, context).plan();
    case "noRoutes": return planWithoutRoutes(request, context);
    case "unmatched":
      return respond(request, UNROUTED, "route_not_found", {
        detail: `none of the ${result.routes} routes of the service matches ${request.method} ${request.path}`,
      });
    default: return result satisfies never;
  }
}

/** A CORS preflight that ends at its rule, whatever else the rule does. */
export function answersPreflight({ broken, cors }: CompiledRule, request: RequestView): boolean {
  return broken === null && cors !== null && decideCors(cors, request).kind === "preflight";
}

const UNROUTED: Common = Object.freeze({ provenance: null, ruleName: null, injected: NO_FAULTS, delayMs: 0, authorizers: NO_AUTHORIZERS, responseHeaders: NO_OPERATIONS });

function planWithoutRoutes(request: RequestView, context: PlanContext): RequestPlan {
  const faults = drawFaults(request, [], context);
  const common: Common = { ...UNROUTED, injected: faults.injected, delayMs: faults.delayMs };
  return endedByFault(request, common, faults) ?? {
    ...common, kind: "forward", backend: null, backendProvenance: null, rule: null, path: request.path, query: request.query, host: null, requestHeaders: NO_OPERATIONS,
    mirrors: NO_MIRRORS, timeouts: null, retry: null, session: null, bytesPerSecond: faults.bytesPerSecond,
  };
}

/** One request on its way through the filters of its rule and backend. */
class Planner {
  readonly #request: RequestView;
  readonly #rule: CompiledRule;
  readonly #provenance: Provenance;
  readonly #prefix: MatchedPrefix | null;
  readonly #context: PlanContext;
  #target: Target;
  #host: string | null = null;
  #requestHeaders: readonly HeaderOperation[] = NO_OPERATIONS;
  #responseHeaders: readonly HeaderOperation[] = NO_OPERATIONS;
  #mirrors: readonly ServiceTarget[] = NO_MIRRORS;
  #authorizers: readonly ExternalAuthorizer[] = NO_AUTHORIZERS;
  #faults: DrawnFaults = NOTHING_DRAWN;

  constructor(request: RequestView, { rule, provenance, prefix }: MatchedRule, context: PlanContext) {
    this.#request = request;
    this.#rule = rule;
    this.#provenance = provenance;
    this.#prefix = prefix;
    this.#context = context;
    this.#target = request;
  }

  plan(): RequestPlan {
    const rule = this.#rule;
    if (rule.broken !== null) return this.#respond("rule_broken", { detail: rule.broken });
    if (rule.cors !== null) {
      const outcome = decideCors(rule.cors, this.#request);
      this.#responseHeaders = outcome.responseHeaders;
      if (outcome.kind === "preflight") {
        return this.#respond(outcome.allowed ? "cors_preflight" : "cors_preflight_denied", {
          detail: outcome.allowed ? "preflight allowed" : `origin ${this.#request.fields.value("origin") ?? ""} is not allowed`,
        });
      }
    }
    this.#responseHeaders = joined(this.#responseHeaders, rule.responseHeaders);
    if (rule.faults.length > 0 || (this.#context.serviceFaults?.length ?? 0) > 0) {
      this.#faults = drawFaults(this.#request, rule.faults, this.#context);
      const ended = endedByFault(this.#request, this.#common(), this.#faults);
      if (ended !== null) return ended;
    }
    return this.#applyFilters(rule.filters) ?? this.#toBackend();
  }

  #toBackend(): RequestPlan {
    const { rule, backends } = this.#rule;
    if (backends.length === 0) return this.#respond("no_backend", { detail: "the rule has no backend" });
    const scope = this.#sessionScope();
    const current = scope === null ? null : readSession(this.#request.fields, scope, this.#context.nowMs);
    const drawn = (current === null ? null : this.#backendOf(current)) ?? this.#draw();
    if (drawn === null) return this.#respond("weights_all_zero", { detail: `all ${backends.length} backends of the rule have weight 0` });
    const { target } = drawn;
    if (target.kind === "invalid") return this.#respond("backend_invalid", { detail: target.reason, provenance: drawn.provenance });
    for (const filter of drawn.filters) if (filter.kind === "responseHeaders") this.#responseHeaders = joined(this.#responseHeaders, filter.operations);
    const answered = this.#applyFilters(drawn.filters);
    if (answered !== null) return answered;
    // Each field by name: a spread costs more than all of them on the way that every request takes.
    return {
      provenance: this.#provenance, ruleName: rule.name, injected: this.#faults.injected, delayMs: this.#faults.delayMs, authorizers: this.#authorizers, responseHeaders: this.#responseHeaders,
      kind: "forward", backend: target, backendProvenance: drawn.provenance, rule: this.#rule.provenance, path: this.#target.path, query: this.#target.query,
      host: this.#host, requestHeaders: this.#requestHeaders, mirrors: this.#mirrors, timeouts: rule.timeouts, retry: rule.retry,
      session: scope === null ? null : { scope, backend: drawn.key, current }, bytesPerSecond: this.#faults.bytesPerSecond,
    };
  }

  #backendOf(session: Session): CompiledBackend | null {
    return this.#rule.backends.find(({ key }) => key === session.backend) ?? null;
  }

  /** By weight; null when all are 0. */
  #draw(): CompiledBackend | null {
    const { backends, totalWeight } = this.#rule;
    if (totalWeight === 0) return null;
    return backends.length === 1 ? backends[0]! : this.#drawOf(backends, totalWeight);
  }

  #drawOf(backends: readonly CompiledBackend[], totalWeight: number): CompiledBackend | null {
    const point = this.#context.random.next() * totalWeight;
    return backends.find((backend) => point < backend.until) ?? null;
  }

  #sessionScope(): SessionScope | null {
    const persistence = this.#rule.rule.sessionPersistence;
    const signer = this.#context.sessionSigner;
    return persistence === null || signer === null ? null : { persistence, owner: this.#rule.owner, signer };
  }

  /** In order; the answer of the first filter that gives one. */
  #applyFilters(filters: readonly CompiledFilter[]): RequestPlan | null {
    for (const filter of filters) {
      const answered = this.#applyFilter(filter);
      if (answered !== null) return answered;
    }
    return null;
  }

  #applyFilter(filter: CompiledFilter): RequestPlan | null {
    switch (filter.kind) {
      case "requestHeaders":
        this.#requestHeaders = joined(this.#requestHeaders, filter.operations);
        this.#host = filter.host ?? this.#host;
        return null;
      case "rewrite":
        this.#host = filter.hostname ?? this.#host;
        if (filter.path !== null) this.#target = filter.path(this.#target, this.#prefix);
        return null;
      case "mirror": {
        const { target, fraction } = filter.mirror;
        // A copy is extra: that it has nowhere to go is no reason to fail the request.
        if (target.kind === "service" && happens(fraction, this.#context.random)) this.#mirrors = [...this.#mirrors, target];
        return null;
      }
      case "externalAuth":
        this.#authorizers = [...this.#authorizers, filter.authorizer];
        return null;
      case "redirect": {
        const location = redirectLocation(filter.redirect, filter.path, this.#request, { prefix: this.#prefix, listenerPort: this.#context.listenerPort });
        return this.#respond("redirect", { status: filter.redirect.status, headers: [["location", location]], detail: `redirected to ${location}` });
      }
      case "respond":
        return this.#respond("direct_response", { status: filter.status, body: filter.body, detail: `the rule answers ${filter.status}` });
      case "responseHeaders":
      case "cors":
        return null;
      default: return filter satisfies never;
    }
  }

  #common(): Common {
    return {
      provenance: this.#provenance, ruleName: this.#rule.rule.name, injected: this.#faults.injected, delayMs: this.#faults.delayMs, authorizers: this.#authorizers,
      responseHeaders: this.#responseHeaders,
    };
  }

  #respond(code: ReasonCode, answer: Answer): RespondPlan {
    return respond(this.#request, this.#common(), code, answer);
  }
}

interface Answer {
  readonly detail: string;
  readonly status?: number;
  readonly grpcStatus?: number | null;
  readonly headers?: RespondPlan["headers"];
  readonly body?: string;
  /** A closer place than the match, where there is one. */
  readonly provenance?: Provenance;
}

function respond(request: RequestView, common: Common, code: ReasonCode, answer: Answer): RespondPlan {
  const entry = reasonEntry(code);
  const status = answer.status ?? entry.status ?? 500;
  const named = answer.grpcStatus ?? (entry.grpc === null ? (status >= 400 ? grpcStatusOf(status) : null) : GRPC_STATUS[entry.grpc]);
  return {
    ...common, provenance: answer.provenance ?? common.provenance, kind: "respond", code, status, grpcStatus: isGrpc(request) ? named : null,
    headers: answer.headers ?? [], body: answer.body ?? "", detail: answer.detail,
  };
}

function joined(a: readonly HeaderOperation[], b: readonly HeaderOperation[]): readonly HeaderOperation[] {
  return a.length === 0 ? b : b.length === 0 ? a : [...a, ...b];
}

/** True for a share of the calls. 0 and less never, 1 and more always. */
function happens(fraction: number, random: Random): boolean {
  return fraction >= 1 || fraction > 0 && random.next() < fraction;
}

// ---- faults

interface DrawnFaults {
  readonly injected: readonly InjectedFault[];
  readonly delayMs: number;
  readonly bytesPerSecond: number | null;
  /** What ends the request; the first one drawn. */
  readonly end: Extract<FaultAction, { kind: "abort" | "reset" }> | null;
}

const NOTHING_DRAWN: DrawnFaults = Object.freeze({ injected: NO_FAULTS, delayMs: 0, bytesPerSecond: null, end: null });

function drawFaults(request: RequestView, ofRule: readonly CompiledFault[], { random, serviceFaults = [] }: PlanContext): DrawnFaults {
  if (ofRule.length === 0 && serviceFaults.length === 0) return NOTHING_DRAWN;
  const injected: InjectedFault[] = [];
  let delayMs = 0;
  let bytesPerSecond: number | null = null;
  for (const { fault, applies, provenance } of [...ofRule, ...serviceFaults]) {
    if (applies !== null && !applies(request) || !happens(fault.fraction, random)) continue;
    const { action } = fault;
    injected.push({ action, provenance });
    switch (action.kind) {
      case "delay": delayMs += action.fixedMs; break;
      case "bandwidth": bytesPerSecond = Math.min(bytesPerSecond ?? Infinity, action.bytesPerSecond); break;
      case "abort":
      case "reset": return { injected, delayMs, bytesPerSecond, end: action };
      default: action satisfies never;
    }
  }
  return { injected, delayMs, bytesPerSecond, end: null };
}

function endedByFault(request: RequestView, common: Common, { end, injected }: DrawnFaults): RespondPlan | ResetPlan | null {
  if (end === null) return null;
  const at = injected[injected.length - 1]!.provenance;
  if (end.kind === "reset") return { ...common, provenance: at, kind: "reset", code: "fault_reset" };
  return respond(request, common, "fault_abort", { status: end.httpStatus, grpcStatus: end.grpcStatus, body: "fault filter abort", provenance: at, detail: "aborted on purpose" });
}
