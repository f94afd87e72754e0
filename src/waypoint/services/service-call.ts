// One question to a service and its whole answer, while a request waits for it: how authorisers and rate limit services are asked. Over the
// same clusters as traffic, hence balanced, ejected, limited and tunnelled like it; bounded in time, size and attempts.

import { nameHalf, type NamespacedName, namespaceHalf } from "../../core/brand.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { Workload } from "../../mesh/records.ts";
import type { Due, DueList } from "../../net/due-list.ts";
import { Attempt } from "../../policy/upstream/attempt.ts";
import { explainRefusal, Permits } from "../../policy/upstream/circuit-breaker.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import { type Outcome, outcomeOfAnswer } from "../../policy/upstream/outcome.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import type { Cluster } from "../upstream/cluster.ts";
import type { Clusters } from "../upstream/clusters.ts";
import type { EndpointPool, UpstreamVersion } from "../upstream/endpoint-pool.ts";
import type { RequestObserver } from "../request/observer.ts";
import type { UpstreamFailure, UpstreamStream, UpstreamUser } from "../channel/streams.ts";
import type { PoolWaiter, UpstreamConnection } from "../upstream/upstream.ts";

export interface CallHost {
  readonly due: DueList;
  readonly nowMs: () => number;
  readonly clusters: Clusters;
  /** This waypoint's own record: whoever asks. */
  readonly self: () => Workload;
  readonly observer: { readonly upstream: Pick<RequestObserver["upstream"], "serviceCall"> };
}

export interface ServiceQuestion {
  readonly service: NamespacedName;
  readonly port: number;
  /** Null: what the port is declared to speak, HTTP/1.1 where it is not. */
  readonly version: UpstreamVersion | null;
  /** Without a body of its own; `body` says it. Made anew for each attempt, with the time that is left. */
  readonly request: (leftMs: number) => HttpRequest;
  /** Empty for none. */
  readonly body: Uint8Array;
  /** For all attempts together. */
  readonly timeoutMs: number;
  /** Asking twice does no harm: a question whose connection broke before the answer was whole is asked again. Else only one that surely was not read. */
  readonly repeatable: boolean;
  readonly answerBytesMax: number;
  /** An answer with a longer body: none at all, or one with an empty body. */
  readonly longAnswer: "fails" | "isCut";
  /** Of an answer of gRPC, null where it has none; null: the answer is none of gRPC. */
  readonly grpcStatusOf: ((answer: ServiceAnswer) => number | null) | null;
}

export interface ServiceAnswer {
  readonly status: number;
  readonly headers: HeaderList;
  readonly body: Uint8Array;
  readonly trailers: HeaderList;
}

/** The first, and two over fresh connections or at other endpoints: whoever waits is a client's request. */
const ATTEMPTS_MAX = 3;
const NO_BODY = new Uint8Array(0);
const NO_TRAILERS: HeaderList = [];

export class ServiceCall implements UpstreamUser, PoolWaiter, Due {
  dueMs = Infinity;
  dueIndex = -1;
  readonly #host: CallHost;
  readonly #question: ServiceQuestion;
  readonly #done: (answer: Result<ServiceAnswer, string>) => void;
  readonly #deadlineMs: number;
  readonly #attempt = new Attempt();
  readonly #tried: UpstreamEndpoint[] = [];
  #attempts = 0;
  #cluster: Cluster | null = null;
  #permits: Permits | null = null;
  #version: UpstreamVersion = "HTTP/1.1";
  #pool: EndpointPool | null = null;
  #upstream: UpstreamStream | null = null;
  #unsent: Uint8Array = NO_BODY;
  #response: { readonly status: number; readonly headers: HeaderList } | null = null;
  #chunks: Uint8Array[] = [];
  #receivedBytes = 0;
  #over = false;

  /** @param done once, never before this returned; not after `cancel`. An error is for a person: what was tried and what was seen. */
  constructor(host: CallHost, question: ServiceQuestion, done: (answer: Result<ServiceAnswer, string>) => void) {
    this.#host = host;
    this.#question = question;
    this.#done = done;
    const nowMs = host.nowMs();
    this.#deadlineMs = this.dueMs = nowMs + question.timeoutMs;
    host.due.add(this);
    // Much can fail at once; whoever asks is not told before it has what it asked for.
    queueMicrotask(() => this.#start());
  }

  /** Nobody wants the answer any more. */
  cancel(): void {
    if (this.#over) return;
    const upstream = this.#upstream;
    this.#end("abandoned");
    upstream?.reset();
  }

  onDue(): void {
    const upstream = this.#upstream;
    const where = this.#pool === null ? "" : ` from ${this.#pool.name}`;
    this.#fail(`no answer${where} within ${this.#question.timeoutMs} ms`, "gatewayError");
    upstream?.reset();
  }

  #start(): void {
    if (this.#over) return;
    const { clusters, nowMs, self } = this.#host;
    const { service, port } = this.#question;
    const cluster = clusters.of({ service, port, subset: null, clientNamespace: self().namespace });
    if (cluster === null || !cluster.refresh(nowMs())) return this.#fail("the configuration has no such service", "neutral");
    if (cluster.broken !== null) return this.#fail(cluster.broken, "neutral");
    if (cluster.tlsBroken !== null) return this.#fail(cluster.tlsBroken, "neutral");
    this.#cluster = cluster;
    this.#version = this.#question.version ?? (cluster.protocol === "HTTP/2" ? "HTTP/2" : "HTTP/1.1");
    this.#permits = new Permits(cluster.breaker);
    const refusal = this.#permits.acquire("activeRequests");
    if (refusal !== null) return this.#fail(explainRefusal(refusal), "neutral");
    this.#try(false);
  }

  #try(fresh: boolean): void {
    const cluster = this.#cluster!;
    const nowMs = this.#host.nowMs();
    cluster.refresh(nowMs);
    const pick = cluster.upstream.pick({ nowMs, hash: 0, tried: this.#tried, sticky: null, mayProbe: this.#question.repeatable });
    if (pick.endpoint === null) return this.#fail(cluster.explainNothing(), "neutral");
    this.#attempts++;
    const endpoint = this.#attempt.start(cluster.upstream, pick, nowMs);
    this.#pool = cluster.poolOf(endpoint);
    const acquired = this.#pool.acquire(this.#version, this, fresh, nowMs);
    if (acquired.kind === "connection") return this.#send(acquired.connection);
    if (acquired.kind === "refused") return this.#fail(explainRefusal(acquired.refusal), "neutral");
    const refusal = this.#permits!.acquire("pendingRequests");
    if (refusal !== null) this.#fail(explainRefusal(refusal), "neutral");
  }

  /** It is no hop of the request, and its tunnel has a trace of its own. */
  traceparent(): null {
    return null;
  }

  connectionReady(connection: UpstreamConnection): void {
    this.#permits!.release("pendingRequests");
    this.#send(connection);
  }

  connectionFailed(message: string): void {
    this.#permits!.release("pendingRequests");
    this.#failed("connectFailure", message, true, false);
  }

  #send(connection: UpstreamConnection): void {
    const { body, request, version } = this.#question;
    // With TLS the server chose what is spoken.
    if (version !== null && connection.version !== version) {
      connection.retire();
      return this.#fail(`${this.#pool!.name} speaks ${connection.version}, wanted ${version}`, "gatewayError");
    }
    const stream = connection.request(request(this.#deadlineMs - this.#host.nowMs()), body.length === 0, this);
    if (stream === null) return this.#failed("neutral", `the connection to ${this.#pool!.name} took no request`, true, true);
    this.#upstream = stream;
    if (body.length === 0) return;
    this.#unsent = body;
    this.onUpstreamSendable();
  }

  onUpstreamSendable(): void {
    const upstream = this.#upstream;
    if (upstream === null || this.#unsent.length === 0) return;
    this.#unsent = this.#unsent.subarray(upstream.send(this.#unsent));
    if (this.#unsent.length === 0) upstream.end(NO_TRAILERS);
  }

  onInformational(): void {}

  onResponse({ status, fields }: HttpResponse, endStream: boolean): void {
    const headers: HeaderList = [];
    fields.appendTo(headers);
    this.#response = { status, headers };
    if (endStream) this.onResponseEnd(NO_TRAILERS);
  }

  onTunnel(): void {
    const upstream = this.#upstream;
    this.#fail(`${this.#pool!.name} changed the protocol, which was not asked for`, "gatewayError");
    upstream?.reset();
  }

  onResponseBody(bytes: Uint8Array): void {
    const upstream = this.#upstream;
    if (upstream === null) return;
    this.#receivedBytes += bytes.length;
    if (this.#receivedBytes <= this.#question.answerBytesMax) {
      this.#chunks.push(new Uint8Array(bytes));
      return upstream.consumed(bytes.length);
    }
    this.#chunks = [];
    if (this.#question.longAnswer === "fails") this.#fail(`${this.#pool!.name} answers with more than ${this.#question.answerBytesMax} bytes`, "gatewayError");
    else this.#answered(NO_TRAILERS);
    upstream.reset();
  }

  onResponseEnd(trailers: HeaderList): void {
    const upstream = this.#upstream;
    this.#answered(trailers);
    upstream?.release();
  }

  onUpstreamFailed({ kind, message }: UpstreamFailure): void {
    this.#upstream = null;
    const unread = kind === "connect" || kind === "refused" || kind === "stale";
    const outcome: Outcome = kind === "connect" ? "connectFailure" : kind === "refused" || kind === "stale" ? "neutral" : "gatewayError";
    // Also when an answer had begun: half of one is none.
    this.#failed(outcome, message, unread || this.#question.repeatable, kind === "stale" || kind === "reset");
  }

  /** @param again it may be asked again. @param sameEndpoint the endpoint is not to blame: a connection was. */
  #failed(outcome: Outcome, message: string, again: boolean, sameEndpoint: boolean): void {
    if (this.#over) return;
    const nowMs = this.#host.nowMs();
    if (!again || this.#attempts >= ATTEMPTS_MAX) return this.#fail(message, outcome);
    if (!sameEndpoint) this.#tried.push(this.#attempt.endpoint!);
    this.#attempt.settle(outcome, nowMs);
    this.#attempt.end(nowMs);
    this.#upstream = null;
    this.#response = null;
    this.#chunks = [];
    this.#receivedBytes = 0;
    // Where a connection was the trouble, over a new one: others that are kept may be about to end as well.
    this.#try(outcome !== "connectFailure");
  }

  #answered(trailers: HeaderList): void {
    const { status, headers } = this.#response!;
    const body = this.#chunks.length === 1 ? this.#chunks[0]! : this.#chunks.length === 0 ? NO_BODY : new Uint8Array(Buffer.concat(this.#chunks));
    const answer: ServiceAnswer = { status, headers, body, trailers };
    this.#end(outcomeOfAnswer(status, this.#question.grpcStatusOf?.(answer) ?? null, this.#cluster!.settings.outliers.errorStatuses));
    this.#tell("answered");
    this.#done(ok(answer));
  }

  #fail(message: string, outcome: Outcome): void {
    if (this.#over) return;
    this.#end(outcome);
    this.#tell("failed");
    this.#done(err(message));
  }

  #tell(outcome: "answered" | "failed"): void {
    const { observer, nowMs } = this.#host;
    const { service } = this.#question;
    const labels = this.#cluster?.labels;
    const asked = { namespace: namespaceHalf(service), name: labels?.destination_service_name ?? nameHalf(service) };
    observer.upstream.serviceCall(asked, outcome, nowMs() - (this.#deadlineMs - this.#question.timeoutMs));
  }

  #end(outcome: Outcome): void {
    this.#over = true;
    this.#host.due.remove(this);
    this.#pool?.cancel(this);
    this.#upstream = null;
    const nowMs = this.#host.nowMs();
    this.#attempt.settle(outcome, nowMs);
    this.#attempt.end(nowMs);
    this.#permits?.[Symbol.dispose]();
  }
}
