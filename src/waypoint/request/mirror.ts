// A copy of a request, sent beside it to another service. Nobody waits for its answer, which is dropped, and nothing that happens to it
// reaches the client.

import { ListFields } from "../../wire/http/fields.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import { Attempt } from "../../policy/upstream/attempt.ts";
import { Permits } from "../../policy/upstream/circuit-breaker.ts";
import { outcomeOfAnswer } from "../../policy/upstream/outcome.ts";
import { traceOfConnection } from "../../telemetry/request-trace.ts";
import type { Due } from "../../net/due-list.ts";
import type { Cluster } from "../upstream/cluster.ts";
import type { EndpointPool, UpstreamVersion } from "../upstream/endpoint-pool.ts";
import type { RequestHost } from "./request-host.ts";
import type { AttemptRequest } from "./server-attempt.ts";
import type { BodySource, UpstreamFailure, UpstreamStream, UpstreamUser } from "../channel/streams.ts";
import type { ByteHolder } from "../../tunnel/byte-budget.ts";
import { HeldCount } from "../channel/held-count.ts";
import { RequestBody } from "./request-body.ts";
import type { PoolWaiter, UpstreamConnection } from "../upstream/upstream.ts";

/** A mirror that is this far behind its original is dropped: the original does not wait for it. */
const MIRROR_BEHIND_BYTES_MAX = 1024 * 1024;
/** Whole life of a copy. */
const MIRROR_MS_MAX = 60_000;

export class Mirror implements UpstreamUser, PoolWaiter, Due, BodySource, ByteHolder {
  dueMs = Infinity;
  dueIndex = -1;
  readonly #host: RequestHost;
  readonly #cluster: Cluster;
  readonly #request: HttpRequest;
  readonly #version: UpstreamVersion;
  readonly #body: RequestBody;
  readonly #held: HeldCount;
  readonly #startedMs: number;
  readonly #trace: Pick<AttemptRequest, "trace" | "clientTrace">;
  readonly #attempt = new Attempt();
  readonly #permits: Permits;
  #pool: EndpointPool | null = null;
  #upstream: UpstreamStream | null = null;
  #takenBytes = 0;
  #ended = false;

  /** @param request copied: it outlives its original. */
  constructor(host: RequestHost, cluster: Cluster, request: HttpRequest, version: UpstreamVersion, trace: Pick<AttemptRequest, "trace" | "clientTrace">) {
    this.#host = host;
    this.#startedMs = host.nowMs();
    this.#cluster = cluster;
    const list: HeaderList = [];
    request.fields.appendTo(list);
    const fields = new ListFields(list);
    this.#trace = trace;
    trace.trace?.writeCopy(fields);
    const { method, target, contentLength, hasBody, acceptsTrailers } = request;
    this.#request = { method, target, fields, contentLength, hasBody, acceptsTrailers, expectsContinue: false, upgrade: null };
    this.#version = version;
    this.#held = new HeldCount(host.budget, this);
    this.#body = new RequestBody(this, this.#held);
    this.#body.forget();
    this.#permits = new Permits(cluster.breaker);
  }

  get heldBytes(): number {
    return this.#held.bytes;
  }

  get progressMs(): number {
    return this.#startedMs;
  }

  /** The original goes on. */
  shed(): void {
    this.abandon();
  }

  /** False when there is nowhere to send it, or no room. */
  start(): boolean {
    const { nowMs, due } = this.#host;
    const now = nowMs();
    if (this.#permits.acquire("activeRequests") !== null) return false;
    const pick = this.#cluster.upstream.pick({ nowMs: now, hash: 0, tried: [], sticky: null, mayProbe: false });
    if (pick.endpoint === null) {
      this.#permits[Symbol.dispose]();
      return false;
    }
    this.dueMs = now + MIRROR_MS_MAX;
    due.add(this);
    this.#pool = this.#cluster.poolOf(this.#attempt.start(this.#cluster.upstream, pick, now));
    const acquired = this.#pool.acquire(this.#version, this, false, now);
    if (acquired.kind === "connection") this.connectionReady(acquired.connection);
    else if (acquired.kind === "refused") this.#end();
    return !this.#ended;
  }

  body(bytes: Uint8Array): void {
    if (this.#ended) return;
    this.#body.receive(bytes);
    if (this.#body.receivedBytes - this.#takenBytes > MIRROR_BEHIND_BYTES_MAX) this.abandon();
  }

  bodyEnd(trailers: HeaderList): void {
    if (!this.#ended) this.#body.receiveEnd(trailers);
  }

  /** Its original ended early, or it is too slow. */
  abandon(): void {
    if (this.#ended) return;
    this.#upstream?.reset();
    this.#upstream = null;
    this.#end();
  }

  traceparent(): string | null {
    const { trace, clientTrace } = this.#trace;
    return traceOfConnection(trace, trace?.spanId ?? "", clientTrace);
  }

  connectionReady(connection: UpstreamConnection): void {
    const stream = connection.request(this.#request, !this.#request.hasBody, this);
    if (stream === null) return this.#end();
    this.#upstream = stream;
    if (this.#request.hasBody) this.#body.attach(stream);
  }

  connectionFailed(): void {
    this.#attempt.settle("connectFailure", this.#host.nowMs());
    this.#end();
  }

  onDue(): void {
    this.abandon();
  }

  // Answers are read and dropped, so that the connection can be used again.

  onInformational(): void {}

  onResponse(response: HttpResponse, endStream: boolean): void {
    this.#attempt.settle(outcomeOfAnswer(response.status, null, this.#cluster.settings.outliers.errorStatuses), this.#host.nowMs());
    if (endStream) this.#end();
  }

  onTunnel(): void {
    this.abandon();
  }

  onResponseBody(bytes: Uint8Array): void {
    this.#upstream?.consumed(bytes.length);
  }

  onResponseEnd(): void {
    this.#end();
  }

  onUpstreamSendable(): void {
    this.#body.flush();
  }

  onUpstreamFailed(failure: UpstreamFailure): void {
    this.#upstream = null;
    this.#attempt.settle(failure.kind === "stale" || failure.kind === "refused" ? "neutral" : "gatewayError", this.#host.nowMs());
    this.#end();
  }

  // The original is never held back for its copy.

  pause(): void {}
  resume(): void {}

  consumed(bytes: number): void {
    this.#takenBytes += bytes;
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#pool?.cancel(this);
    this.#body.detach();
    this.#attempt.end(this.#host.nowMs());
    this.#permits[Symbol.dispose]();
    this.#host.due.remove(this);
    this.#held.end();
    const upstream = this.#upstream;
    this.#upstream = null;
    upstream?.release();
  }
}
