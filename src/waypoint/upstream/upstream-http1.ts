// A connection to a server that speaks HTTP/1.1: one request at a time, and again while the server keeps it.

import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import { type ClientExchange, Http1ClientConnection, type Http1ClientHandler, type IncomingResponse, outgoingRequest } from "../../wire/http1/client-connection.ts";
import type { Http1Error } from "../../wire/http1/errors.ts";
import type { UpstreamStream, UpstreamUser } from "../channel/streams.ts";
import { PooledConnection } from "./pooled-connection.ts";
import type { PoolWaiter, UpstreamConnectionOptions } from "./upstream.ts";

export class Http1Upstream extends PooledConnection implements Http1ClientHandler {
  readonly version = "HTTP/1.1";
  readonly takesExtendedConnect = false;
  readonly engine: Http1ClientConnection;
  /** Why the engine gave up, for the exchange that dies of it. */
  #fault: Http1Error | null = null;

  constructor(options: UpstreamConnectionOptions) {
    super(options);
    this.engine = new Http1ClientConnection({ handler: this, counters: options.host.http1Counters });
    this.begin(this.engine.output, this.engine, this.openedMs + options.idleTimeoutMs);
  }

  get room(): number {
    return !this.isRetired && this.engine.reusable ? 1 : 0;
  }

  get idle(): boolean {
    return this.engine.reusable;
  }

  request(request: HttpRequest, endStream: boolean, user: UpstreamUser): UpstreamStream | null {
    const reused = this.used;
    const exchange = this.engine.request(outgoingRequest(request), endStream);
    if (exchange === null) return null;
    this.requestsTotal++;
    this.dueMs = Infinity;
    const stream = new Http1UpstreamStream(this, exchange, user, reused);
    exchange.user = stream;
    return stream;
  }

  /** There is nothing to wait for. */
  awaitSettings(waiter: PoolWaiter): void {
    waiter.connectionReady(this);
  }

  forgetWaiter(): void {}

  retire(): void {
    if (!this.retireOnce()) return;
    this.engine.drain();
    this.settle();
  }

  // Channel

  onBytes(chunk: Uint8Array): void {
    this.engine.receive(chunk);
    this.settle();
  }

  onPeerEnd(): void {
    this.engine.receiveEnd();
    this.settle();
  }

  // Engine

  onInformational(exchange: ClientExchange, response: IncomingResponse): void {
    streamOf(exchange).user?.onInformational(response);
  }

  onResponse(exchange: ClientExchange, response: IncomingResponse, endStream: boolean): void {
    if (exchange.isTunnel) streamOf(exchange).user?.onTunnel(response);
    else streamOf(exchange).user?.onResponse(response, endStream);
  }

  onBody(exchange: ClientExchange, bytes: Uint8Array): void {
    streamOf(exchange).user?.onResponseBody(bytes);
  }

  onResponseEnd(exchange: ClientExchange, trailers: HeaderList): void {
    streamOf(exchange).user?.onResponseEnd(trailers);
  }

  onSendable(exchange: ClientExchange): void {
    streamOf(exchange).user?.onUpstreamSendable();
  }

  onAborted(exchange: ClientExchange, error: Http1Error | null): void {
    const stream = streamOf(exchange);
    const { user } = stream;
    stream.user = null;
    const { name } = this.options;
    // `truncated` is the server's end of the connection, early; every other fault is one of the protocol.
    if (error !== null && error.code !== "truncated") user?.onUpstreamFailed({ kind: "protocol", message: `the answer of ${name} breaks HTTP/1.1: ${error.message}` });
    else if (stream.reused && !this.engine.answered) user?.onUpstreamFailed({ kind: "stale", message: `a kept connection to ${name} was closed by the server before it answered` });
    else user?.onUpstreamFailed({ kind: "reset", message: `the connection to ${name} ended ${this.engine.answered ? "in the middle of the answer" : "before an answer"}${this.channelError !== null ? ` (${this.channelError})` : error === null ? "" : `: ${error.message}`}` });
  }

  onClosed(exchange: ClientExchange): void {
    streamOf(exchange).user = null;
    if (!this.engine.reusable) return void this.retireOnce();
    const nowMs = this.options.host.nowMs();
    this.idleFrom(nowMs);
    if (!this.isRetired) this.options.owner.hasRoom(this, nowMs);
  }

  onError(error: Http1Error): void {
    this.#fault = error;
  }

  /** Idle too long, or too slow to go. */
  onDue(): void {
    if (this.engine.closed) this.destroy();
    else this.retire();
  }

  settle(): void {
    if (this.isGone || !this.engine.closed) return;
    this.retireOnce();
    // A fault, or an answer that nobody waits for: the server is not to think that it was read.
    if (this.#fault !== null) return this.destroy();
    this.closeSoon();
  }

  protected override onGone(): void {
    this.retireOnce();
    this.engine.transportClosed();
    this.options.owner.gone(this);
  }
}

const streamOf = (exchange: ClientExchange): Http1UpstreamStream => exchange.user as Http1UpstreamStream;

class Http1UpstreamStream implements UpstreamStream {
  user: UpstreamUser | null;
  readonly reused: boolean;
  readonly #connection: Http1Upstream;
  readonly #exchange: ClientExchange;

  constructor(connection: Http1Upstream, exchange: ClientExchange, user: UpstreamUser, reused: boolean) {
    this.#connection = connection;
    this.#exchange = exchange;
    this.user = user;
    this.reused = reused;
  }

  send(bytes: Uint8Array): number {
    return this.#connection.engine.sendBody(this.#exchange, bytes);
  }

  end(trailers: HeaderList): void {
    this.#connection.engine.endBody(this.#exchange, trailers);
    this.#connection.settle();
  }

  /** The engine sees for itself whether the connection can be kept. */
  release(): void {
    this.user = null;
  }

  /** The connection goes with it: HTTP/1 has no other way to take a request back. */
  reset(): void {
    this.user = null;
    if (this.#exchange.isClosed) return;
    this.#connection.engine.abort(this.#exchange);
    this.#connection.destroy();
  }

  pause(): void {
    this.#connection.engine.pause();
  }

  resume(): void {
    this.#connection.engine.resume();
    this.#connection.settle();
  }

  consumed(): void {}
}
