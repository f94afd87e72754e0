// A connection to a server that speaks HTTP/2, with prior knowledge: many requests at once.

import type { ByteRange } from "../../wire/http/byte-range.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import { requestToHttp2, responseFromHttp2 } from "../../wire/http/http2-message.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import { Http2Connection, type Http2Handler, type ResetBy } from "../../wire/http2/connection.ts";
import { ErrorCode, errorName, type Http2Error } from "../../wire/http2/errors.ts";
import { headerBlock } from "../../wire/http2/headers.ts";
import type { Http2Stream } from "../../wire/http2/stream.ts";
import type { EngineEnd } from "../channel/channel-writer.ts";
import type { UpstreamFailure, UpstreamStream, UpstreamUser } from "../channel/streams.ts";
import { PooledConnection } from "./pooled-connection.ts";
import type { PoolWaiter, UpstreamConnectionOptions } from "./upstream.ts";

const NO_TRAILERS: HeaderList = [];

export class Http2Upstream extends PooledConnection implements Http2Handler, EngineEnd {
  readonly version = "HTTP/2";
  readonly finished = false;
  readonly h2: Http2Connection;
  readonly #settingsWaiters: PoolWaiter[] = [];
  #fatal: Http2Error | null = null;

  constructor(options: UpstreamConnectionOptions) {
    const { host } = options;
    super(options);
    this.h2 = new Http2Connection({ role: "client", settings: host.http2Settings, limits: host.http2Limits, handler: this, nowMs: host.nowMs });
    this.begin(this.h2.output, this, this.openedMs + (options.findOutMs ?? options.idleTimeoutMs));
  }

  /** For the writer. */
  get closed(): boolean {
    return this.h2.drained;
  }

  get room(): number {
    if (this.isRetired || !this.h2.canRequest || this.#findsOut) return 0;
    return this.h2.remoteMaxConcurrentStreams - this.h2.activeStreams;
  }

  /** Whether HTTP/2 is spoken is not known yet. */
  get #findsOut(): boolean {
    return this.options.findOutMs !== null && !this.h2.remoteSettingsSeen;
  }

  get idle(): boolean {
    return this.h2.activeStreams === 0;
  }

  get takesExtendedConnect(): boolean | null {
    return this.h2.remoteSettingsSeen ? this.h2.remoteConnectProtocol : null;
  }

  request(request: HttpRequest, endStream: boolean, user: UpstreamUser): UpstreamStream | null {
    const isTunnel = request.upgrade !== null;
    const stream = this.h2.request(headerBlock(requestToHttp2(this.options.scheme === "https" ? overTls(request) : request, "http")), endStream && !isTunnel);
    if (stream === null) return null;
    this.requestsTotal++;
    this.dueMs = Infinity;
    const made = new Http2UpstreamStream(this, stream, user, isTunnel);
    stream.user = made;
    return made;
  }

  awaitSettings(waiter: PoolWaiter): void {
    this.#settingsWaiters.push(waiter);
  }

  forgetWaiter(waiter: PoolWaiter): void {
    const at = this.#settingsWaiters.indexOf(waiter);
    if (at >= 0) this.#settingsWaiters.splice(at, 1);
  }

  retire(): void {
    if (!this.retireOnce()) return;
    this.h2.goaway(ErrorCode.noError, "retired");
    this.settle();
  }

  // Channel

  onBytes(chunk: Uint8Array): void {
    this.h2.receive(chunk);
    this.settle();
  }

  onPeerEnd(): void {
    this.channel.close();
    this.end();
  }

  // Engine

  onRequest(): void {}

  onInformational(stream: Http2Stream, headers: HeaderList): void {
    userOf(stream)?.onInformational(responseFromHttp2(headers));
  }

  onResponse(stream: Http2Stream, headers: HeaderList, endStream: boolean): void {
    const made = stream.user as Http2UpstreamStream;
    const response = responseFromHttp2(headers);
    if (made.wantsTunnel && response.status >= 200 && response.status <= 299 && !endStream) made.user?.onTunnel(response);
    else made.user?.onResponse(response, endStream);
  }

  onData(stream: Http2Stream, body: ByteRange, endStream: boolean): void {
    if (body.length > 0) userOf(stream)?.onResponseBody(body.view());
    if (endStream) userOf(stream)?.onResponseEnd(NO_TRAILERS);
  }

  onTrailers(stream: Http2Stream, headers: HeaderList): void {
    userOf(stream)?.onResponseEnd(headers);
  }

  onSendable(stream: Http2Stream): void {
    userOf(stream)?.onUpstreamSendable();
  }

  onReset(stream: Http2Stream, code: number, by: ResetBy): void {
    const made = stream.user as Http2UpstreamStream;
    const { user } = made;
    made.user = null;
    user?.onUpstreamFailed(this.#failureOf(code, by));
  }

  onClosed(stream: Http2Stream): void {
    const made = stream.user as Http2UpstreamStream | null;
    if (made !== null) made.user = null;
    if (this.isGone) return;
    const nowMs = this.options.host.nowMs();
    if (this.h2.activeStreams === 0) {
      this.idleFrom(nowMs);
      if (this.h2.drained) this.onFinished();
    }
    if (this.room > 0) this.options.owner.hasRoom(this, nowMs);
  }

  onSettings(): void {
    for (const waiter of this.#settingsWaiters.splice(0)) waiter.connectionReady(this);
    // HTTP/2 is spoken: it idles like any other connection from its opening on, however often SETTINGS come.
    if (this.requestsTotal === 0 && !this.isRetired) this.idleFrom(this.openedMs);
    if (this.room > 0) this.options.owner.hasRoom(this, this.options.host.nowMs());
  }

  onGoaway(): void {
    this.retireOnce();
  }

  onPong(): void {}

  onFatal(error: Http2Error): void {
    this.#fatal = error;
    this.retireOnce();
    this.onFinished();
  }

  onDue(): void {
    if (this.h2.drained || this.#findsOut) this.destroy();
    else if (this.h2.activeStreams === 0) this.retire();
  }

  settle(): void {
    if (this.isGone || !this.h2.drained) return;
    this.retireOnce();
    this.closeSoon();
  }

  #failureOf(code: number, by: ResetBy): UpstreamFailure {
    const { name } = this.options;
    if (this.#fatal !== null) return { kind: "protocol", message: `HTTP/2 with ${name} failed: ${this.#fatal.message}` };
    if (code === ErrorCode.refusedStream) return { kind: "refused", message: `${name} did not take the request (REFUSED_STREAM)` };
    if (by === "us") return { kind: "protocol", message: `the answer of ${name} breaks HTTP/2 (${errorName(code)})` };
    if (by === "peer") return { kind: "reset", message: `${name} reset the stream (${errorName(code)})` };
    return { kind: "reset", message: `the connection to ${name} ended${this.channelError === null ? "" : ` (${this.channelError})`}` };
  }

  protected override onGone(): void {
    this.retireOnce();
    if (this.#findsOut) this.options.owner.declined(this);
    for (const waiter of this.#settingsWaiters.splice(0)) waiter.connectionFailed(`the connection to ${this.options.name} ended before its SETTINGS came`, "connect");
    this.h2.receiveEnd();
    this.options.owner.gone(this);
  }
}

/** Servers compare the scheme with what they are reached by; the client's way to us was another. */
function overTls({ method, target, fields, contentLength, hasBody, acceptsTrailers, expectsContinue, upgrade }: HttpRequest): HttpRequest {
  return { method, target: { ...target, scheme: "https" }, fields, contentLength, hasBody, acceptsTrailers, expectsContinue, upgrade };
}

const userOf = (stream: Http2Stream): UpstreamUser | null => (stream.user as Http2UpstreamStream | null)?.user ?? null;

class Http2UpstreamStream implements UpstreamStream {
  user: UpstreamUser | null;
  readonly wantsTunnel: boolean;
  readonly #connection: Http2Upstream;
  readonly #stream: Http2Stream;

  constructor(connection: Http2Upstream, stream: Http2Stream, user: UpstreamUser, wantsTunnel: boolean) {
    this.#connection = connection;
    this.#stream = stream;
    this.user = user;
    this.wantsTunnel = wantsTunnel;
  }

  send(bytes: Uint8Array): number {
    return this.#connection.h2.sendData(this.#stream, bytes, false);
  }

  end(trailers: HeaderList): void {
    const { h2 } = this.#connection;
    if (trailers.length > 0 && !this.#stream.isTunnel) h2.sendTrailers(this.#stream, headerBlock(trailers));
    else h2.endStream(this.#stream);
  }

  release(): void {
    this.user = null;
    if (this.#stream.canSend) this.#connection.h2.reset(this.#stream, ErrorCode.noError);
  }

  reset(): void {
    this.user = null;
    this.#connection.h2.reset(this.#stream, ErrorCode.cancel);
    this.#connection.settle();
  }

  pause(): void {}
  resume(): void {}

  consumed(bytes: number): void {
    this.#connection.h2.consumed(this.#stream, bytes);
  }
}
