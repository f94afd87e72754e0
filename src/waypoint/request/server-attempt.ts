// One attempt of a request at one endpoint, from the pick to the last byte:
//
//   connecting ──▶ awaiting ──head──▶ answering ──▶ ended
//        │             │  ╲──granted──▶ tunnel ──▶ ended
//        └─────────────┴── failed ───────────────▶ ended
//
// It tells its user what happened; whether another one follows is not decided here.

import type { Random } from "../../core/ports.ts";
import { unreachable } from "../../core/result.ts";
import { Attempt } from "../../policy/upstream/attempt.ts";
import { explainRefusal, Permits } from "../../policy/upstream/circuit-breaker.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import { formatGrpcTimeout } from "../../policy/upstream/grpc-timeout.ts";
import type { Outcome } from "../../policy/upstream/outcome.ts";
import type { AttemptEnd } from "../../policy/upstream/retry.ts";
import { NO_RETRY_AFTER } from "../../policy/upstream/retry-after.ts";
import type { AttemptTime } from "../../policy/upstream/timeouts.ts";
import type { Pick } from "../../policy/upstream/pick.ts";
import type { ReasonCode } from "../../policy/http/reason-codes.ts";
import { type RequestTrace, traceOfConnection } from "../../telemetry/request-trace.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { Traceparent } from "../../wire/trace/traceparent.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import type { Cluster } from "../upstream/cluster.ts";
import type { EndpointPool, UpstreamVersion } from "../upstream/endpoint-pool.ts";
import { UpgradeBridge } from "./outgoing.ts";
import type { RequestBody } from "./request-body.ts";
import type { ConnectFailure } from "../channel/plain-channel.ts";
import type { BodySource, HttpVersion, UpstreamFailure, UpstreamStream, UpstreamUser } from "../channel/streams.ts";
import type { PoolWaiter, UpstreamConnection } from "../upstream/upstream.ts";

/** What is sent, the same for every attempt. */
export interface AttemptRequest {
  readonly request: HttpRequest;
  readonly body: RequestBody;
  readonly isGrpc: boolean;
  /** Of the client: upgrades are translated between versions. */
  readonly clientVersion: HttpVersion;
  readonly random: Random;
  /** Null: it belongs to none. */
  readonly trace: RequestTrace | null;
  /** Of the client's tunnel; null without one. */
  readonly clientTrace: Traceparent | null;
  readonly nowMs: () => number;
}

export interface AttemptFailure {
  /** What decides over another attempt; null: there is none, whatever the policy says. */
  readonly end: AttemptEnd | null;
  readonly code: ReasonCode;
  /** What was tried, with whom, and what was seen. */
  readonly message: string;
  /** A kept connection that the server had closed: says nothing of the server. */
  readonly isStale: boolean;
  /** Of the answer; null: the code's own. */
  readonly status: number | null;
}

export interface AttemptUser {
  attemptInformed(attempt: ServerAttempt, response: HttpResponse): void;
  /** A head: `take` or `discard` follows before this returns. */
  attemptAnswered(attempt: ServerAttempt, response: HttpResponse, endStream: boolean): void;
  attemptTunnelled(attempt: ServerAttempt, response: HttpResponse): void;
  attemptBody(attempt: ServerAttempt, bytes: Uint8Array): void;
  attemptEnded(attempt: ServerAttempt, trailers: HeaderList): void;
  /** No answer comes from it. Nothing follows. */
  attemptFailed(attempt: ServerAttempt, failure: AttemptFailure): void;
  /** Its answer had begun, and ends early. Nothing follows. */
  attemptBroke(attempt: ServerAttempt, code: ReasonCode, message: string): void;
  /** One of the above was told outside of the calls of its user. */
  rearm(): void;
}

type Phase = "connecting" | "awaiting" | "answering" | "tunnel" | "ended";

export class ServerAttempt implements UpstreamUser, PoolWaiter {
  readonly endpoint: UpstreamEndpoint;
  /** What is spoken; what was meant to be, before there is a connection. */
  version: UpstreamVersion;
  readonly startedMs: number;
  /** What the server is told as its parent; "" where it is told nothing. */
  readonly spanId: string;
  /** What the endpoint's proxy calls the connection; null before there is one, and without a tunnel. */
  connectionTraceId: string | null = null;
  /** When it takes too long; Infinity for never. */
  endsMs: number;
  /** Which limit that is. */
  readonly limit: Extract<AttemptTime, { kind: "time" }>["limit"];
  readonly #user: AttemptUser;
  readonly #what: AttemptRequest;
  readonly #cluster: Cluster;
  readonly #record = new Attempt();
  readonly #pool: EndpointPool;
  #phase: Phase = "connecting";
  #stream: UpstreamStream | null = null;
  #bridge: UpgradeBridge | null = null;
  /** Its SETTINGS are awaited. */
  #awaitedOn: UpstreamConnection | null = null;
  /** While it waits for a connection. */
  #waiting: Permits | null = null;

  constructor(user: AttemptUser, what: AttemptRequest, cluster: Cluster, pick: Pick, time: Extract<AttemptTime, { kind: "time" }>, nowMs: number) {
    this.#user = user;
    this.#what = what;
    this.#cluster = cluster;
    this.startedMs = nowMs;
    this.spanId = what.trace?.attemptId() ?? "";
    this.endsMs = nowMs + time.ms;
    this.limit = time.limit;
    this.endpoint = this.#record.start(cluster.upstream, pick, nowMs);
    this.version = upstreamVersion(cluster, what.clientVersion, what.request);
    this.#pool = cluster.poolOf(this.endpoint);
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** `198.18.0.1:8080`. */
  get address(): string {
    return this.#pool.name;
  }

  /** Where the bytes of the answer come from; null once it has ended. */
  get source(): BodySource | null {
    return this.#stream;
  }

  /** @param fresh over a connection made for it. */
  start(fresh: boolean): void {
    const acquired = this.#pool.acquire(this.version, this, fresh, this.startedMs);
    switch (acquired.kind) {
      case "connection":
        return this.#send(acquired.connection);
      case "refused":
        return this.#fail("neutral", null, "circuit_open", `${this.#cluster.name}: ${explainRefusal(acquired.refusal)}`);
      case "waiting": {
        this.#waiting = new Permits(this.#cluster.breaker);
        const refusal = this.#waiting.acquire("pendingRequests");
        if (refusal !== null) this.#fail("neutral", null, "circuit_open", `${this.#cluster.name}: ${explainRefusal(refusal)}`);
        return;
      }
      default:
        return unreachable(acquired);
    }
  }

  traceparent(): string | null {
    return traceOfConnection(this.#what.trace, this.spanId, this.#what.clientTrace);
  }

  connectionReady(connection: UpstreamConnection): void {
    this.#send(connection);
    this.#user.rearm();
  }

  connectionFailed(message: string, what: ConnectFailure): void {
    // A denial is no sign of ill health, and the endpoints of a service have their policies in common: nobody is asked again.
    if (what === "forbidden") this.#fail("neutral", null, "address_refused", message);
    else if (what === "denied") this.#fail("neutral", null, "endpoint_denied", message);
    else this.#fail("connectFailure", { kind: "connectFailure", elsewhereOnly: what === "refused" }, what === "tls" ? "tls_failed" : "connect_failed", message);
    this.#user.rearm();
  }

  #send(connection: UpstreamConnection): void {
    this.#stopWaiting();
    this.version = connection.version;
    this.connectionTraceId = connection.traceId;
    this.#awaitedOn = null;
    if (this.#what.request.upgrade !== null && connection.takesExtendedConnect === null) {
      // A new connection: the server has not said yet what it takes (RFC 8441, section 3).
      this.#awaitedOn = connection;
      return connection.awaitSettings(this);
    }
    const { body, isGrpc, trace, nowMs } = this.#what;
    const request = this.#translated(connection);
    if (request === null) return;
    if (isGrpc && this.endsMs !== Infinity) request.fields.set("grpc-timeout", formatGrpcTimeout(Math.max(this.endsMs - nowMs(), 1)));
    trace?.writeAttempt(request.fields, this.spanId);
    this.#phase = "awaiting";
    const endStream = !request.hasBody;
    const stream = connection.request(request, endStream, this);
    if (stream === null) {
      // It filled up, or ended, between being found and being used.
      return this.#fail("neutral", { kind: "refused" }, "upstream_reset", `the connection to ${this.address} took no request`);
    }
    this.#stream = stream;
    if (!endStream) body.attach(stream);
  }

  /** The request in the form that the connection has for an upgrade; null: failed. */
  #translated(connection: UpstreamConnection): HttpRequest | null {
    const { request, clientVersion, random } = this.#what;
    if (request.upgrade === null) return request;
    if (connection.version === "HTTP/2" && connection.takesExtendedConnect !== true) {
      this.#fail("neutral", null, "upgrade_refused", `${this.address} speaks HTTP/2 without extended CONNECT, and its port is declared as HTTP/2`, 502);
      return null;
    }
    if ((clientVersion === "HTTP/2" ? "HTTP/2" : "HTTP/1.1") === connection.version) return request;
    this.#bridge = new UpgradeBridge();
    return connection.version === "HTTP/2" ? this.#bridge.toHttp2(request) : this.#bridge.toHttp1(request, random);
  }

  // What its user does with it

  /** The head of its answer says how it went. */
  settle(outcome: Outcome, nowMs: number, retryAfterMs = NO_RETRY_AFTER): void {
    this.#record.settle(outcome, nowMs, retryAfterMs);
  }

  /** Its answer is the one that goes on to the client. */
  take(): void {
    this.#phase = "answering";
    this.endsMs = Infinity;
  }

  /** Its answer is not wanted. @param whole nothing of it follows, so that the connection stays as it was. */
  discard(whole: boolean): void {
    const stream = this.#end();
    if (whole) stream?.release();
    else stream?.reset();
  }

  /** Nothing more is wanted from the server: the answer is complete. */
  release(nowMs: number): void {
    // HTTP/2's connection takes the rest of the stream back once its engine has returned.
    this.#end(nowMs)?.release();
  }

  /** Given up. Nothing is told of it any more. */
  cancel(): void {
    this.#end()?.reset();
  }

  /** Its own time is over. */
  timeOut(message: string): void {
    const stream = this.#stream;
    this.#stream = null;
    stream?.reset();
    this.#fail("gatewayError", { kind: "timeout" }, "per_try_timeout", message);
  }

  // What the server does

  onInformational(response: HttpResponse): void {
    if (this.#phase === "awaiting") this.#user.attemptInformed(this, response);
  }

  onResponse(response: HttpResponse, endStream: boolean): void {
    if (this.#phase === "awaiting") this.#user.attemptAnswered(this, response, endStream);
  }

  onTunnel(response: HttpResponse): void {
    if (this.#phase !== "awaiting") return;
    this.settle("success", this.#what.nowMs());
    const toHttp2 = this.#what.clientVersion === "HTTP/2";
    if (this.#bridge !== null) {
      if (toHttp2 && !this.#bridge.granted1to2(response)) {
        const stream = this.#stream;
        this.#stream = null;
        stream?.reset();
        return this.#fail("success", null, "upstream_protocol", `${this.address} granted the WebSocket without the proof that it understood the request`);
      }
      if (!toHttp2) this.#bridge.granted2to1(response);
    }
    this.#phase = "tunnel";
    // Tunnels last; what bounds requests would cut them.
    this.endsMs = Infinity;
    this.#user.attemptTunnelled(this, response);
    if (this.#stream !== null) this.#what.body.attach(this.#stream);
    this.#user.rearm();
  }

  onResponseBody(bytes: Uint8Array): void {
    this.#user.attemptBody(this, bytes);
  }

  onResponseEnd(trailers: HeaderList): void {
    this.#user.attemptEnded(this, trailers);
  }

  onUpstreamSendable(): void {
    this.#what.body.flush();
  }

  onUpstreamFailed({ kind, message }: UpstreamFailure): void {
    switch (this.#phase) {
      case "ended":
        return;
      case "answering":
      case "tunnel":
        // Of a gRPC call that had said nothing yet.
        this.settle("gatewayError", this.#what.nowMs());
        this.#end();
        return this.#user.attemptBroke(this, kind === "protocol" ? "upstream_protocol" : "upstream_reset", message);
      default:
    }
    switch (kind) {
      case "stale": this.#fail("neutral", { kind: "reset" }, "upstream_reset", message, null, true); break;
      case "connect": this.#fail("connectFailure", { kind: "connectFailure", elsewhereOnly: false }, "connect_failed", message); break;
      case "refused": this.#fail("neutral", { kind: "refused" }, "upstream_reset", message); break;
      case "reset": this.#fail("gatewayError", { kind: "reset" }, "upstream_reset", message); break;
      case "protocol": this.#fail("gatewayError", { kind: "reset" }, "upstream_protocol", message); break;
      default: unreachable(kind);
    }
    this.#user.rearm();
  }

  #fail(outcome: Outcome, end: AttemptEnd | null, code: ReasonCode, message: string, status: number | null = null, isStale = false): void {
    const nowMs = this.#what.nowMs();
    this.#record.settle(outcome, nowMs);
    this.#end(nowMs);
    this.#user.attemptFailed(this, { end, code, message, isStale, status });
  }

  /** Gives back what is held. The stream, for its last word. */
  #end(nowMs: number = this.#what.nowMs()): UpstreamStream | null {
    const stream = this.#stream;
    if (this.#phase === "ended") return null;
    if (this.#phase === "connecting") this.#pool.cancel(this);
    this.#awaitedOn?.forgetWaiter(this);
    this.#awaitedOn = null;
    this.#phase = "ended";
    this.#stream = null;
    this.endsMs = Infinity;
    this.#stopWaiting();
    this.#what.body.detach();
    this.#record.end(nowMs);
    return stream;
  }

  #stopWaiting(): void {
    this.#waiting?.[Symbol.dispose]();
    this.#waiting = null;
  }
}

export function upstreamVersion({ protocol }: Cluster, clientVersion: HttpVersion, request: HttpRequest): UpstreamVersion {
  switch (protocol) {
    case "HTTP/2": return "HTTP/2";
    case "HTTP/1.1": return "HTTP/1.1";
    // A server whose port does not say otherwise takes an upgrade the way it was invented.
    case "asClient": return clientVersion === "HTTP/2" && request.upgrade === null ? "HTTP/2" : "HTTP/1.1";
    default: return unreachable(protocol);
  }
}
