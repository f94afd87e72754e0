// What every connection to a server has in common, whichever version of HTTP it speaks, and what it tells the pool that holds it.

import type { Due, DueList } from "../../net/due-list.ts";
import type { Http1Counters } from "../../wire/http1/counters.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import type { Http2Limits, LocalSettings } from "../../wire/http2/limits.ts";
import type { ByteBudget } from "../../tunnel/byte-budget.ts";
import type { Channel } from "../channel/channel.ts";
import type { ConnectFailure } from "../channel/plain-channel.ts";
import type { UpstreamStream, UpstreamUser } from "../channel/streams.ts";

export interface UpstreamHost {
  readonly due: DueList;
  readonly budget: ByteBudget;
  readonly nowMs: () => number;
  readonly http1Counters: Http1Counters;
  readonly http2Settings: LocalSettings;
  readonly http2Limits: Http2Limits;
}

export interface UpstreamConnectionOwner {
  /** It can take a request, or one more. */
  hasRoom(connection: UpstreamConnection, nowMs: number): void;
  /** Once: it takes no more requests; those under way go on. */
  retired(connection: UpstreamConnection): void;
  /** Before `gone`: it was to find out whether HTTP/2 is spoken, and it is not. No request was sent. */
  declined(connection: UpstreamConnection): void;
  /** Once, last. */
  gone(connection: UpstreamConnection): void;
}

/** A request that wants a connection, or to know more of the one it has. */
export interface PoolWaiter {
  /** For a connection that is made for it through a tunnel: what the other end is told. Null: it belongs to no trace. */
  traceparent(): string | null;
  connectionReady(connection: UpstreamConnection): void;
  connectionFailed(message: string, what: ConnectFailure): void;
}

export interface UpstreamConnection extends Due {
  readonly version: "HTTP/1.1" | "HTTP/2";
  /** Requests it could take now. */
  readonly room: number;
  /** No request is under way on it. */
  readonly idle: boolean;
  /** It has been used before: it may have been closed by the server without our knowing. */
  readonly used: boolean;
  /** Whether extended CONNECT can be used (RFC 8441); null while it is not known. */
  readonly takesExtendedConnect: boolean | null;
  /** While that is not known: `waiter` is told when it is, or when the connection ended before. */
  awaitSettings(waiter: PoolWaiter): void;
  /** The waiter is not told any more. */
  forgetWaiter(waiter: PoolWaiter): void;
  readonly requestsTotal: number;
  readonly openedMs: number;
  /** What the endpoint's proxy calls it; null without a tunnel. */
  readonly traceId: string | null;
  /**
   * Null when there was no room after all. Without `endStream` the body follows.
   * @param request as it goes out; its fields are read before this returns.
   */
  request(request: HttpRequest, endStream: boolean, user: UpstreamUser): UpstreamStream | null;
  /** No more requests; closes when the last one has ended. */
  retire(): void;
  destroy(): void;
}

export interface UpstreamConnectionOptions {
  readonly host: UpstreamHost;
  readonly owner: UpstreamConnectionOwner;
  readonly channel: Channel;
  /** For messages: `198.18.0.1:8080`. */
  readonly name: string;
  /** What requests are sent by, as HTTP/2 says it. */
  readonly scheme: "http" | "https";
  readonly idleTimeoutMs: number;
  readonly traceId: string | null;
  /** Of HTTP/2, that nobody has declared: no request is sent before the server has said, for so long at most, that it speaks it. Null: it does. */
  readonly findOutMs: number | null;
}
