// A client that speaks HTTP/2: the engine, its channel, its deadlines, and each request as a stream.

import { unreachable } from "../../core/result.ts";
import type { ByteRange } from "../../wire/http/byte-range.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import { requestFromHttp2, responseToHttp2 } from "../../wire/http/http2-message.ts";
import { LENGTH_UNKNOWN } from "../../wire/http/content-length.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import { Http2Connection, type Http2Handler, type ResetBy } from "../../wire/http2/connection.ts";
import { ErrorCode, errorName, type Http2Error } from "../../wire/http2/errors.ts";
import { headerBlock } from "../../wire/http2/headers.ts";
import type { Http2Stream } from "../../wire/http2/stream.ts";
import type { Channel } from "../channel/channel.ts";
import type { EngineEnd } from "../channel/channel-writer.ts";
import type { Client } from "./client.ts";
import { CLIENT_IDLE_MS, connectionEnded, type DownstreamConnection, type DownstreamHost, HEAD_MS, LINGER_MS, type NewStream, SETTINGS_MS, WRITE_IDLE_MS } from "./downstream.ts";
import { EngineConnection } from "../channel/engine-connection.ts";
import { REASON_HEADER } from "../../policy/http/reason-codes.ts";
import type { DownstreamUser, HttpVersion } from "../channel/streams.ts";

export class Http2Downstream extends EngineConnection implements Http2Handler, DownstreamConnection, EngineEnd {
  readonly client: Client;
  readonly h2: Http2Connection;
  /** For the writer: the client ends its half too, or runs out of time. Closed before, its unread bytes would reset what we said last. */
  readonly closed = false;
  readonly #host: DownstreamHost;
  #settingsSeen = false;
  #writtenBytes = 0;
  /** GOAWAY is sent. */
  #leaves = false;
  #lingers = false;

  constructor(host: DownstreamHost, client: Client, channel: Channel) {
    super(channel, host);
    this.#host = host;
    this.client = client;
    this.h2 = new Http2Connection({ role: "server", settings: host.http2Settings, limits: host.http2Limits, handler: this, nowMs: host.nowMs });
    this.begin(this.h2.output, this, host.nowMs() + SETTINGS_MS);
  }

  /** For the writer: nothing more is said. */
  get finished(): boolean {
    return this.h2.drained;
  }

  drain(): void {
    this.#leave("draining");
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

  onRequest(stream: Http2Stream, headers: HeaderList, endStream: boolean): void {
    const read = requestFromHttp2(headers, { endStream, pathNormalisation: this.#host.pathNormalisation });
    if (!read.ok) {
      this.#host.malformed(this.client, read.error.code, read.error.message);
      this.h2.respond(stream, headerBlock([":status", "400", "content-length", "0", REASON_HEADER, "bad_request"]), true);
      if (stream.canReceive) this.h2.reset(stream, ErrorCode.noError);
      return;
    }
    const made = new Http2DownstreamStream(this, stream, read.value);
    stream.user = made;
    this.#host.serve(made, this.client);
  }

  onResponse(): void {}
  onInformational(): void {}

  onData(stream: Http2Stream, body: ByteRange, endStream: boolean): void {
    if (body.length > 0) userOf(stream)?.onRequestBody(body.view());
    if (endStream) userOf(stream)?.onRequestEnd(NO_TRAILERS);
  }

  onTrailers(stream: Http2Stream, headers: HeaderList): void {
    userOf(stream)?.onRequestEnd(headers);
  }

  onSendable(stream: Http2Stream): void {
    userOf(stream)?.onDownstreamSendable();
  }

  onReset(stream: Http2Stream, code: number, by: ResetBy): void {
    leave(stream)?.onDownstreamAborted(this.#abortedBy(by, code));
  }

  #abortedBy(by: ResetBy, code: number): string {
    switch (by) {
      case "peer": return `the client reset the stream (${errorName(code)})`;
      case "us": return `the client's stream broke HTTP/2 (${errorName(code)})`;
      case "connection": return connectionEnded(this.channelError, "the client's connection ended");
      default: return unreachable(by);
    }
  }

  onClosed(stream: Http2Stream): void {
    leave(stream)?.onDownstreamClosed();
    // Not inside the engine's own loop: it may be about to say more.
    if (this.h2.activeStreams === 0) this.onFinished();
  }

  onSettings(): void {
    this.#settingsSeen = true;
  }

  onGoaway(): void {}
  onPong(): void {}

  onFatal(error: Http2Error): void {
    // What we end ourselves is told where it is ended.
    if (error.counter !== "localErrors") this.#host.malformed(this.client, error.counter, error.message);
    this.onFinished();
  }

  onDue(nowMs: number): void {
    const { h2 } = this;
    if (h2.drained) {
      if (h2.output.pendingBytes === 0 || h2.output.consumedTotal === this.#writtenBytes) return this.destroy();
    } else if (!this.#settingsSeen) {
      this.#host.malformed(this.client, "settingsTimeout", `no SETTINGS came within ${SETTINGS_MS} ms`);
      h2.goaway(ErrorCode.settingsTimeout, "no SETTINGS came in time");
    } else if (nowMs >= h2.partSinceMs + HEAD_MS) {
      this.#host.malformed(this.client, "headerTimeout", `a header block or control frame was not whole after ${HEAD_MS} ms`);
      h2.goaway(ErrorCode.enhanceYourCalm, "a header block or control frame did not come in time");
    } else if (h2.activeStreams === 0) {
      // Told already, and the PING that goes with GOAWAY is not answered: there may be nobody.
      if (this.#leaves) return this.destroy();
      this.#leave("idle");
    }
    this.settle(nowMs);
  }

  settle(nowMs: number = this.#host.nowMs()): void {
    if (this.isGone) return;
    const { h2 } = this;
    if (h2.drained) {
      this.onFinished();
      this.#writtenBytes = h2.output.consumedTotal;
      if (h2.output.pendingBytes > 0) return this.dueAt(nowMs + WRITE_IDLE_MS);
      this.#linger(nowMs);
    } else if (this.#leaves && h2.activeStreams === 0) {
      this.#linger(nowMs);
    } else if (this.#settingsSeen) {
      this.#lingers = false;
      this.dueAt(Math.min(h2.activeStreams === 0 ? nowMs + CLIENT_IDLE_MS : Infinity, h2.partSinceMs + HEAD_MS));
    }
  }

  /** Once: what a client goes on sending wins it no time. */
  #linger(nowMs: number): void {
    if (!this.#lingers) this.dueAt(nowMs + LINGER_MS);
    this.#lingers = true;
  }

  #leave(why: string): void {
    this.h2.goaway(ErrorCode.noError, why);
    this.#leaves = true;
  }

  protected override onGone(): void {
    this.h2.receiveEnd();
    this.#host.connectionClosed(this);
  }
}

const NO_TRAILERS: HeaderList = [];

const userOf = (stream: Http2Stream): DownstreamUser | null => (stream.user as Http2DownstreamStream | null)?.user ?? null;

/** The user, for its last event. */
function leave(stream: Http2Stream): DownstreamUser | null {
  const made = stream.user as Http2DownstreamStream | null;
  if (made === null) return null;
  const { user } = made;
  made.user = null;
  return user;
}

class Http2DownstreamStream implements NewStream {
  user: DownstreamUser | null = null;
  readonly version: HttpVersion = "HTTP/2";
  readonly request: HttpRequest;
  readonly #connection: Http2Downstream;
  readonly #stream: Http2Stream;

  constructor(connection: Http2Downstream, stream: Http2Stream, request: HttpRequest) {
    this.#connection = connection;
    this.#stream = stream;
    this.request = request;
  }

  keepHead(): void {}

  inform(status: number, fields: HttpFields): void {
    if (!this.#stream.canSend) return;
    this.#connection.h2.respond(this.#stream, headerBlock(responseToHttp2({ status, fields, contentLength: LENGTH_UNKNOWN })), false);
  }

  respond(response: HttpResponse, endStream: boolean): void {
    this.#connection.h2.respond(this.#stream, headerBlock(responseToHttp2(response)), endStream);
    if (endStream) this.#stopUpload();
  }

  openTunnel({ fields }: HttpResponse): void {
    this.#connection.h2.respond(this.#stream, headerBlock(responseToHttp2({ status: 200, fields, contentLength: LENGTH_UNKNOWN })), false);
  }

  send(bytes: Uint8Array): number {
    return this.#connection.h2.sendData(this.#stream, bytes, false);
  }

  end(trailers: HeaderList): void {
    const { h2 } = this.#connection;
    const isTunnel = this.#stream.isTunnel;
    if (trailers.length > 0 && !isTunnel) h2.sendTrailers(this.#stream, headerBlock(trailers));
    else h2.endStream(this.#stream);
    if (!isTunnel) this.#stopUpload();
    this.#connection.settle();
  }

  reset(): void {
    this.user = null;
    this.#connection.h2.reset(this.#stream, ErrorCode.internalError);
    this.#connection.settle();
  }

  pause(): void {}
  resume(): void {}

  consumed(bytes: number): void {
    this.#connection.h2.consumed(this.#stream, bytes);
  }

  /** Answered before the request had ended: the client need not send the rest (RFC 9113, section 8.1). */
  #stopUpload(): void {
    if (this.#stream.canReceive) this.#connection.h2.reset(this.#stream, ErrorCode.noError);
  }
}
