// One request as its two ends see it, whatever version of HTTP each of them speaks. Bodies flow with back-pressure: what a `send` did
// not take is kept by the caller and offered again, and what was taken over is told to where it came from.

import type { HttpFields } from "../../wire/http/fields.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";

/** A body, or a tunnel's half, on its way in. */
export interface BodySource {
  /** No more for now. HTTP/1 stops at once; HTTP/2 sends on until its window is used up. */
  pause(): void;
  resume(): void;
  /** These bytes need no room any more. */
  consumed(bytes: number): void;
}

/** A body, or a tunnel's half, on its way out. */
export interface BodySink {
  /** Bytes taken (copied); keep the others until it is sendable again. 0 also when it is over, and then nothing follows. */
  send(bytes: Uint8Array): number;
  /** After all bytes were taken. */
  end(trailers: HeaderList): void;
}

export type HttpVersion = "HTTP/1.0" | "HTTP/1.1" | "HTTP/2";

/** At the client's end. */
export interface DownstreamStream extends BodySource, BodySink {
  readonly version: HttpVersion;
  /** Its fields are valid until `onRequest` has returned, unless `keepHead` was called. */
  readonly request: HttpRequest;
  keepHead(): void;
  /** 1xx but 101. */
  inform(status: number, fields: HttpFields): void;
  respond(response: HttpResponse, endStream: boolean): void;
  /** Grants the protocol that the request asked for: bytes both ways from here on. */
  openTunnel(response: HttpResponse): void;
  /** The response cannot be completed, or none is given: the client must notice. No event follows. */
  reset(): void;
}

export interface DownstreamUser {
  /** @param bytes borrowed. */
  onRequestBody(bytes: Uint8Array): void;
  onRequestEnd(trailers: HeaderList): void;
  onDownstreamSendable(): void;
  /** The client gave up or is gone. @param why for the log. Nothing follows. */
  onDownstreamAborted(why: string): void;
  /** Answered completely, and the request ended or is dropped. Nothing follows. */
  onDownstreamClosed(): void;
}

/** At the server's end. */
export interface UpstreamStream extends BodySource, BodySink {
  /** The answer is complete; what is left of the request need not be sent. No event follows. */
  release(): void;
  /** Nobody wants the answer any more. No event follows. */
  reset(): void;
}

export interface UpstreamUser {
  onInformational(response: HttpResponse): void;
  /** Its fields are valid until this returns. */
  onResponse(response: HttpResponse, endStream: boolean): void;
  /** The server granted the protocol that was asked for. */
  onTunnel(response: HttpResponse): void;
  /** @param bytes borrowed. */
  onResponseBody(bytes: Uint8Array): void;
  onResponseEnd(trailers: HeaderList): void;
  onUpstreamSendable(): void;
  /** It died early. Nothing follows. */
  onUpstreamFailed(failure: UpstreamFailure): void;
}

export interface UpstreamFailure {
  /**
   * `connect`: no connection. `refused`: the server says that it did not look at the request. `stale`: a kept connection turned out to be
   * closed, without a byte of an answer. `reset`: ended early. `protocol`: what came breaks HTTP.
   */
  readonly kind: "connect" | "refused" | "stale" | "reset" | "protocol";
  /** What was tried, with whom, and what was seen. */
  readonly message: string;
}
