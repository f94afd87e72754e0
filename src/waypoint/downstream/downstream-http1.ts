// A client that speaks HTTP/1: the engine, its channel, its deadlines, and the request under way as a stream.

import { LENGTH_UNKNOWN } from "../../wire/http/content-length.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HttpResponse } from "../../wire/http/message.ts";
import type { Http1Error } from "../../wire/http1/errors.ts";
import { Http1ServerConnection, type Http1ServerHandler, type ServerExchange } from "../../wire/http1/server-connection.ts";
import type { Channel } from "../channel/channel.ts";
import type { Client } from "./client.ts";
import { CLIENT_IDLE_MS, connectionEnded, DRAIN_IDLE_MS, type DownstreamConnection, type DownstreamHost, HALF_CLOSED_MS, HEAD_MS, LINGER_MS, type NewStream, REST_MS, WRITE_IDLE_MS } from "./downstream.ts";
import { EngineConnection } from "../channel/engine-connection.ts";
import { REASON_HEADER } from "../../policy/http/reason-codes.ts";
import { reasonOfHttp1 } from "../request/own-answer.ts";
import type { DownstreamUser, HttpVersion } from "../channel/streams.ts";

export class Http1Downstream extends EngineConnection implements Http1ServerHandler, DownstreamConnection {
  readonly client: Client;
  readonly engine: Http1ServerConnection;
  readonly #host: DownstreamHost;
  /** Bytes written when the deadline of a slow reader was set. */
  #writtenBytes = 0;
  #draining = false;
  #clientEnded = false;

  constructor(host: DownstreamHost, client: Client, channel: Channel) {
    super(channel, host);
    this.#host = host;
    this.client = client;
    this.engine = new Http1ServerConnection({
      handler: this, counters: host.http1Counters, pathNormalisation: host.pathNormalisation,
      errorFields: (error) => [REASON_HEADER, reasonOfHttp1(error.code)],
    });
    this.begin(this.engine.output, this.engine, host.nowMs() + CLIENT_IDLE_MS);
  }

  drain(): void {
    this.#draining = true;
    this.engine.drain("afterNext");
    this.settle();
  }

  // Channel

  onBytes(chunk: Uint8Array): void {
    this.engine.receive(chunk);
    this.settle();
  }

  onPeerEnd(): void {
    this.#clientEnded = true;
    this.engine.receiveEnd();
    this.settle();
  }

  // Engine

  onRequest(exchange: ServerExchange): void {
    const stream = new Http1DownstreamStream(this, exchange);
    exchange.user = stream;
    this.#host.serve(stream, this.client);
  }

  onBody(exchange: ServerExchange, bytes: Uint8Array): void {
    streamOf(exchange).user?.onRequestBody(bytes);
  }

  onRequestEnd(exchange: ServerExchange, trailers: HeaderList): void {
    streamOf(exchange).user?.onRequestEnd(trailers);
  }

  onSendable(exchange: ServerExchange): void {
    streamOf(exchange).user?.onDownstreamSendable();
  }

  onAborted(exchange: ServerExchange, error: Http1Error | null): void {
    streamOf(exchange).leave()?.onDownstreamAborted(error === null ? connectionEnded(this.channelError, "the client closed the connection") : `the client's request broke HTTP: ${error.message}`);
  }

  onClosed(exchange: ServerExchange): void {
    streamOf(exchange).leave()?.onDownstreamClosed();
  }

  onError(error: Http1Error): void {
    this.#host.malformed(this.client, error.code, error.message);
  }

  onDue(nowMs: number): void {
    const { engine } = this;
    switch (engine.phase) {
      case "idle":
      case "head":
        engine.timeOut();
        break;
      case "finishing":
      case "closed":
        if (engine.output.pendingBytes === 0 || engine.output.consumedTotal === this.#writtenBytes) return this.destroy();
        break;
      case "body":
        // A request under way has deadlines of its own.
        if (engine.exchange === null) engine.timeOut();
        break;
      case "response":
        if (engine.output.consumedTotal === this.#writtenBytes) return this.destroy();
        break;
      default:
    }
    this.settle(nowMs);
  }

  /** After whatever may have changed the phase. */
  settle(nowMs: number = this.#host.nowMs()): void {
    if (this.isGone) return;
    const { engine } = this;
    if (engine.needsReset) return this.destroy();
    if (engine.closed) this.onFinished();
    const { phase } = engine;
    if (phase === "idle" && this.#draining) this.dueAt(nowMs + DRAIN_IDLE_MS);
    else if (phase === "idle") this.dueMs = nowMs + CLIENT_IDLE_MS;
    else if (phase === "head") this.dueAt(Math.min(this.dueMs, nowMs + HEAD_MS));
    else if (phase === "finishing" || phase === "closed") {
      this.#writtenBytes = engine.output.consumedTotal;
      this.dueAt(nowMs + (engine.output.pendingBytes > 0 ? WRITE_IDLE_MS : LINGER_MS));
    } else if (phase === "body" && engine.exchange === null) this.dueAt(Math.min(this.dueMs, nowMs + REST_MS));
    else if (phase === "response" && this.#clientEnded) {
      if (this.dueMs !== Infinity) return;
      this.#writtenBytes = engine.output.consumedTotal;
      this.dueAt(nowMs + HALF_CLOSED_MS);
    } else this.dueMs = Infinity;
  }

  protected override onGone(): void {
    this.engine.transportClosed();
    this.#host.connectionClosed(this);
  }
}

const streamOf = (exchange: ServerExchange): Http1DownstreamStream => exchange.user as Http1DownstreamStream;

class Http1DownstreamStream implements NewStream {
  user: DownstreamUser | null = null;
  readonly request: ServerExchange;
  readonly #connection: Http1Downstream;

  constructor(connection: Http1Downstream, exchange: ServerExchange) {
    this.#connection = connection;
    this.request = exchange;
  }

  get version(): HttpVersion {
    return this.request.minor === 0 ? "HTTP/1.0" : "HTTP/1.1";
  }

  /** The user, for its last event. */
  leave(): DownstreamUser | null {
    const { user } = this;
    this.user = null;
    return user;
  }

  keepHead(): void {
    this.request.fields.keep();
  }

  inform(status: number, fields: HttpFields): void {
    this.#connection.engine.inform(this.request, status, fields);
  }

  respond(response: HttpResponse, endStream: boolean): void {
    this.#connection.engine.respond(this.request, response, endStream);
    if (endStream) this.#connection.settle();
  }

  openTunnel({ fields }: HttpResponse): void {
    this.#connection.engine.respond(this.request, { status: 101, fields, contentLength: LENGTH_UNKNOWN }, false);
  }

  send(bytes: Uint8Array): number {
    return this.#connection.engine.sendBody(this.request, bytes);
  }

  end(trailers: HeaderList): void {
    this.#connection.engine.endBody(this.request, trailers);
    this.#connection.settle();
  }

  reset(): void {
    this.user = null;
    const { engine } = this.#connection;
    // Before a response there is nothing that could be taken for whole; the connection ends all the same.
    engine.abort(this.request);
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
