// A connection to a server that speaks HTTP/1.1: one request at a time, and again while the server keeps it.

import type { HeaderList } from "../wire/http/header-list.ts";
import type { HttpRequest } from "../wire/http/message.ts";
import { type ClientExchange, Http1ClientConnection, type Http1ClientHandler, type IncomingResponse, outgoingRequest } from "../wire/http1/client-connection.ts";
import type { Http1Error } from "../wire/http1/errors.ts";
import type { Channel, ChannelUser } from "./channel.ts";
import { ChannelWriter } from "./channel-writer.ts";
import type { UpstreamStream, UpstreamUser } from "./streams.ts";
import { CLOSE_MS, type UpstreamConnection, type UpstreamConnectionOwner, type UpstreamHost } from "./upstream.ts";

export interface UpstreamConnectionOptions {
  readonly host: UpstreamHost;
  readonly owner: UpstreamConnectionOwner;
  readonly channel: Channel;
  /** For messages: `198.18.0.1:8080`. */
  readonly name: string;
  readonly idleTimeoutMs: number;
}

export class Http1Upstream implements Http1ClientHandler, ChannelUser, UpstreamConnection {
  dueMs = Infinity;
  dueIndex = -1;
  readonly version = "HTTP/1.1";
  readonly takesExtendedConnect = false;
  readonly openedMs: number;
  requestsTotal = 0;
  readonly engine: Http1ClientConnection;
  readonly writer: ChannelWriter;
  readonly #options: UpstreamConnectionOptions;
  #retired = false;
  #gone = false;
  /** Why the engine gave up, for the exchange that dies of it. */
  #fault: Http1Error | null = null;

  constructor(options: UpstreamConnectionOptions) {
    this.#options = options;
    const { host } = options;
    this.engine = new Http1ClientConnection({ handler: this, counters: host.http1Counters });
    this.writer = new ChannelWriter(options.channel, this.engine.output, this.engine);
    this.openedMs = host.nowMs();
    this.#idle(this.openedMs);
    host.due.add(this);
  }

  get room(): number {
    return !this.#retired && this.engine.reusable ? 1 : 0;
  }

  get used(): boolean {
    return this.requestsTotal > 0;
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

  retire(): void {
    if (!this.#retire()) return;
    this.engine.drain();
    this.settle();
  }

  destroy(): void {
    if (this.#gone) return;
    this.#options.channel.destroy();
    this.#end();
  }

  // Channel

  onBytes(chunk: Uint8Array): void {
    this.engine.receive(chunk);
    this.settle();
  }

  onWritable(): void {
    this.writer.drained();
  }

  onPeerEnd(): void {
    this.engine.receiveEnd();
    this.settle();
  }

  onChannelClosed(): void {
    this.#end();
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
    const { name } = this.#options;
    // `truncated` is the server's end of the connection, early; every other fault is one of the protocol.
    if (error !== null && error.code !== "truncated") user?.onUpstreamFailed({ kind: "protocol", message: `the answer of ${name} breaks HTTP/1.1: ${error.message}` });
    else if (stream.reused && !this.engine.answered) user?.onUpstreamFailed({ kind: "stale", message: `a kept connection to ${name} was closed by the server before it answered` });
    else user?.onUpstreamFailed({ kind: "reset", message: `the connection to ${name} ended ${this.engine.answered ? "in the middle of the answer" : "before an answer"}${error === null ? "" : `: ${error.message}`}` });
  }

  onClosed(exchange: ClientExchange): void {
    streamOf(exchange).user = null;
    if (!this.engine.reusable) return void this.#retire();
    this.#idle(this.#options.host.nowMs());
    if (!this.#retired) this.#options.owner.hasRoom(this);
  }

  onError(error: Http1Error): void {
    this.#fault = error;
  }

  onOutput(): void {
    this.writer.schedule();
  }

  onWantsInput(wanted: boolean): void {
    if (wanted) this.#options.channel.resume();
    else this.#options.channel.pause();
  }

  onFinished(): void {
    this.writer.schedule();
  }

  /** Idle too long, or too slow to go. */
  onDue(): void {
    if (this.engine.closed) this.destroy();
    else this.retire();
  }

  settle(): void {
    if (this.#gone || !this.engine.closed) return;
    this.#retire();
    // A fault, or an answer that nobody waits for: the server is not to think that it was read.
    if (this.#fault !== null) return this.destroy();
    this.writer.schedule();
    if (this.dueMs === Infinity || this.dueMs > this.#options.host.nowMs() + CLOSE_MS) this.#due(this.#options.host.nowMs() + CLOSE_MS);
  }

  #idle(nowMs: number): void {
    this.#due(nowMs + this.#options.idleTimeoutMs);
  }

  #due(atMs: number): void {
    this.dueMs = atMs;
    this.#options.host.due.sooner(this);
  }

  #retire(): boolean {
    if (this.#retired) return false;
    this.#retired = true;
    this.#options.owner.retired(this);
    return true;
  }

  #end(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#retire();
    this.writer.stop();
    this.#options.host.due.remove(this);
    this.engine.transportClosed();
    this.#options.owner.gone(this);
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
