// The connections to one endpoint, and the requests that wait for one. HTTP/1.1: one request at a time each, the last used first, so that
// those beyond need go idle and close. HTTP/2: one connection for many requests, a further one when it is full.

import { type CircuitBreaker, type LimitRefusal, Permits } from "../../policy/upstream/circuit-breaker.ts";
import type { LimitSettings } from "../../policy/upstream/settings.ts";
import { traceIdOf } from "../../wire/trace/traceparent.ts";
import type { ChannelWithUser } from "../channel/channel.ts";
import type { ChannelOwner, ConnectFailure, PendingChannel } from "../channel/plain-channel.ts";
import type { PoolWaiter, UpstreamConnection, UpstreamConnectionOwner, UpstreamHost } from "./upstream.ts";
import { Http1Upstream } from "./upstream-http1.ts";
import { Http2Upstream } from "./upstream-http2.ts";

export type UpstreamVersion = UpstreamConnection["version"];

/** Makes a channel to the endpoint, to speak `version` over; a failure is told later, never before it returns. */
export type DialEndpoint = (owner: ChannelOwner, version: UpstreamVersion, traceparent: string | null, timeoutMs: number, nowMs: number) => PendingChannel;

/** How an endpoint is reached, for requests and for questions about its health alike. */
export interface EndpointWay {
  readonly host: UpstreamHost;
  /** For messages: `198.18.0.1:8080`. */
  readonly name: string;
  /** What requests are sent by, as HTTP/2 says it. */
  readonly scheme: "http" | "https";
  readonly dial: DialEndpoint;
  /** For a connection through a tunnel: what its other end is told, made of what whoever waits for it says. Null without a tunnel. */
  readonly traceparent: (ofWaiter: string | null) => string | null;
  /** What is spoken over a channel that was made for `version`, by what TLS agreed on. */
  readonly spoken: (version: UpstreamVersion, alpn: string | null) => UpstreamVersion;
  /** Neither a declaration nor TLS says that the server speaks HTTP/2. */
  readonly mayDeclineHttp2: () => boolean;
}

export interface EndpointPoolOptions extends EndpointWay {
  readonly breaker: CircuitBreaker;
  /** Those of the moment. */
  readonly limits: () => LimitSettings;
  /** Closes an idle connection to another endpoint of the same service, which takes up room. False when there is none. */
  readonly makeRoom: () => boolean;
  /** A connection was made, or could not be. */
  readonly told: (outcome: "opened" | "failed") => void;
}

export type Acquired =
  | { readonly kind: "connection"; readonly connection: UpstreamConnection }
  /** `waiter` is told. */
  | { readonly kind: "waiting" }
  | { readonly kind: "refused"; readonly refusal: LimitRefusal };

const WAITING: Acquired = Object.freeze({ kind: "waiting" });

export class EndpointPool {
  readonly #options: EndpointPoolOptions;
  readonly #http1: VersionPool;
  readonly #http2: VersionPool;
  /** The server was offered HTTP/2 and chose HTTP/1.1, or did not understand; until no connection is left. */
  #declinesHttp2 = false;

  constructor(options: EndpointPoolOptions) {
    this.#options = options;
    this.#http1 = new VersionPool(options, "HTTP/1.1", () => {});
    this.#http2 = new VersionPool(options, "HTTP/2", (instead) => {
      this.#declinesHttp2 = true;
      this.#http1.takeOver(instead, this.#http2.giveWaiters());
    });
  }

  get name(): string {
    return this.#options.name;
  }

  /** @param fresh no connection that was used before: the server may have closed it. */
  acquire(version: UpstreamVersion, waiter: PoolWaiter, fresh: boolean, nowMs: number): Acquired {
    if (this.#declinesHttp2 && this.#http1.connections === 0) this.#declinesHttp2 = false;
    return (version === "HTTP/2" && !this.#declinesHttp2 ? this.#http2 : this.#http1).acquire(waiter, fresh, nowMs);
  }

  /** The waiter is not told any more. */
  cancel(waiter: PoolWaiter): void {
    this.#http1.cancel(waiter);
    this.#http2.cancel(waiter);
  }

  /** No new requests over what is open now: the endpoint is gone, or has moved. */
  retire(): void {
    this.#http1.retire();
    this.#http2.retire();
  }

  destroy(): void {
    // Those who wait to know whether HTTP/2 is spoken come over to HTTP/1.1.
    this.#http2.destroy();
    this.#http1.destroy();
  }

  /** Closes one connection that nobody uses. False when there is none. */
  closeIdle(): boolean {
    return this.#http1.closeIdle() || this.#http2.closeIdle();
  }

  get connections(): number {
    return this.#http1.connections + this.#http2.connections;
  }

  get waiting(): number {
    return this.#http1.waiting + this.#http2.waiting;
  }
}

class VersionPool implements UpstreamConnectionOwner {
  readonly #options: EndpointPoolOptions;
  readonly #version: UpstreamVersion;
  /** Connections that may have room, the one to use first at the end. HTTP/1.1: idle ones only. */
  readonly #open: UpstreamConnection[] = [];
  /** All that still exist, retired ones too, with the permit of each. */
  readonly #permits = new Map<UpstreamConnection, Permits>();
  readonly #dialling = new Set<Dial>();
  /** The server speaks the other version, over this channel, or over one that is to be made. */
  readonly #otherVersion: (instead: Dialled | null) => void;
  #waiters: PoolWaiter[] = [];
  /** A server of HTTP/2 has said so by its SETTINGS: later connections need not wait for them. */
  #confirmed = false;
  /** Over these it has not said so yet: nobody needs another one. */
  readonly #findingOut = new Set<UpstreamConnection>();
  #retired = false;

  constructor(options: EndpointPoolOptions, version: UpstreamVersion, otherVersion: (instead: Dialled | null) => void) {
    this.#options = options;
    this.#version = version;
    this.#otherVersion = otherVersion;
  }

  get connections(): number {
    return this.#permits.size + this.#dialling.size;
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  acquire(waiter: PoolWaiter, fresh: boolean, nowMs: number): Acquired {
    const connection = fresh ? null : this.#take(nowMs);
    if (connection !== null) return { kind: "connection", connection };
    const refusal = this.#dialIfNeeded(waiter);
    // At the limit a request waits for a connection that is there; without any there is nothing to wait for.
    if (refusal !== null && this.connections === 0) return { kind: "refused", refusal };
    this.#waiters.push(waiter);
    return WAITING;
  }

  cancel(waiter: PoolWaiter): void {
    const at = this.#waiters.indexOf(waiter);
    if (at >= 0) this.#waiters.splice(at, 1);
  }

  retire(): void {
    this.#retired = true;
    for (const connection of [...this.#permits.keys()]) connection.retire();
  }

  destroy(): void {
    for (const dial of [...this.#dialling]) dial.cancel();
    this.#dialling.clear();
    for (const connection of [...this.#permits.keys()]) connection.destroy();
    this.#failAll("the service is gone", "connect");
  }

  closeIdle(): boolean {
    const idle = this.#open.find((connection) => connection.idle);
    if (idle === undefined) return false;
    idle.destroy();
    return true;
  }

  giveWaiters(): PoolWaiter[] {
    return this.#waiters.splice(0);
  }

  /** Those who waited for the other version, and a channel that was made for it, if there is one. */
  takeOver(instead: Dialled | null, waiters: readonly PoolWaiter[]): void {
    this.#waiters.push(...waiters);
    if (instead !== null) this.#opened(instead);
    else this.#dialForWaiters();
  }

  // Connections

  hasRoom(connection: UpstreamConnection, nowMs: number): void {
    if (this.#isSpent(connection, nowMs)) return connection.retire();
    const isFound = this.#findingOut.delete(connection);
    if (isFound) this.#confirmed = true;
    while (this.#waiters.length > 0 && connection.room > 0) this.#waiters.shift()!.connectionReady(connection);
    if (isFound && this.#waiters.length > 0) this.#dialIfNeeded(null);
    // Made for those who waited, after the pool was let go: nobody else comes.
    if (this.#retired && this.#waiters.length === 0) return connection.retire();
    if (connection.room === 0) return;
    // One of HTTP/1.1 that tells of room was in use, hence off the list.
    if (this.#version === "HTTP/1.1" || !this.#open.includes(connection)) this.#open.push(connection);
  }

  retired(connection: UpstreamConnection): void {
    const at = this.#open.indexOf(connection);
    if (at >= 0) this.#open.splice(at, 1);
  }

  declined(connection: UpstreamConnection): void {
    this.#giveBack(connection);
    this.#otherVersion(null);
  }

  gone(connection: UpstreamConnection): void {
    this.#giveBack(connection);
    this.#dialForWaiters();
  }

  #giveBack(connection: UpstreamConnection): void {
    this.#permits.get(connection)?.[Symbol.dispose]();
    this.#permits.delete(connection);
    this.#findingOut.delete(connection);
    // Another server may stand there now.
    if (connection.takesExtendedConnect === null) this.#confirmed = false;
  }

  #dialForWaiters(): void {
    if (this.#waiters.length === 0) return;
    const refusal = this.#dialIfNeeded(null);
    if (refusal !== null && this.connections === 0) this.#failAll("no connection may be opened", "connect");
  }

  dialled(dial: Dial, channel: ChannelWithUser, alpn: string | null): void {
    this.#dialling.delete(dial);
    this.#options.told("opened");
    if (this.#options.spoken(this.#version, alpn) === this.#version) this.#opened({ channel, dial });
    else this.#otherVersion({ channel, dial });
  }

  #opened({ channel, dial: { permits, traceparent } }: Dialled): void {
    const { host, limits, name, scheme, mayDeclineHttp2 } = this.#options;
    const findOutMs = this.#version === "HTTP/2" && !this.#confirmed && mayDeclineHttp2() ? limits().connectTimeoutMs : null;
    const options = { findOutMs, host, owner: this, channel, name, scheme, idleTimeoutMs: limits().idleTimeoutMs, traceId: traceparent === null ? null : traceIdOf(traceparent) };
    const connection = this.#version === "HTTP/2" ? new Http2Upstream(options) : new Http1Upstream(options);
    channel.user = connection;
    this.#permits.set(connection, permits);
    if (findOutMs !== null) {
      this.#findingOut.add(connection);
      return;
    }
    this.hasRoom(connection, connection.openedMs);
    if (this.#waiters.length > 0) this.#dialIfNeeded(null);
  }

  /** Those that waited for this connection fail: of HTTP/1.1 the oldest, of HTTP/2 all. */
  dialFailed(dial: Dial, message: string, what: ConnectFailure): void {
    this.#dialling.delete(dial);
    this.#options.told("failed");
    dial.permits[Symbol.dispose]();
    if (this.#version === "HTTP/2") this.#failAll(message, what);
    else this.#waiters.shift()?.connectionFailed(message, what);
  }

  #take(nowMs: number): UpstreamConnection | null {
    for (;;) {
      const connection = this.#open[this.#open.length - 1];
      if (connection === undefined) return null;
      if (this.#isSpent(connection, nowMs)) {
        connection.retire();
        if (this.#open[this.#open.length - 1] === connection) this.#open.pop();
        continue;
      }
      // An HTTP/1.1 connection is off the list while it is in use; one of HTTP/2 when it is full.
      if (connection.room <= 1) this.#open.pop();
      if (connection.room > 0) return connection;
    }
  }

  #isSpent(connection: UpstreamConnection, nowMs: number): boolean {
    const { requestsPerConnectionMax, connectionAgeMaxMs } = this.#options.limits();
    return connection.requestsTotal >= requestsPerConnectionMax || nowMs - connection.openedMs >= connectionAgeMaxMs;
  }

  /** @param comes is about to be added to the waiters. */
  #dialIfNeeded(comes: PoolWaiter | null): LimitRefusal | null {
    const wanted = this.#version === "HTTP/2" ? 1 : this.#waiters.length + (comes === null ? 0 : 1);
    while (this.#dialling.size + this.#findingOut.size < wanted) {
      const permits = new Permits(this.#options.breaker);
      let refusal = permits.acquire("connections");
      // Of a service at its limit, a connection that nobody uses gives way to one that somebody waits for.
      if (refusal !== null && this.connections === 0 && this.#options.makeRoom()) refusal = permits.acquire("connections");
      if (refusal !== null) return refusal;
      const waiter = this.#waiters[this.#dialling.size] ?? comes;
      const dial = new Dial(this, permits, this.#options.traceparent(waiter?.traceparent() ?? null));
      this.#dialling.add(dial);
      dial.start(this.#options, this.#version);
    }
    return null;
  }

  #failAll(message: string, what: ConnectFailure): void {
    for (const waiter of this.giveWaiters()) waiter.connectionFailed(message, what);
  }
}

interface Dialled {
  readonly channel: ChannelWithUser;
  readonly dial: Dial;
}

class Dial implements ChannelOwner {
  readonly permits: Permits;
  readonly traceparent: string | null;
  readonly #pool: VersionPool;
  #pending: PendingChannel | null = null;

  constructor(pool: VersionPool, permits: Permits, traceparent: string | null) {
    this.#pool = pool;
    this.permits = permits;
    this.traceparent = traceparent;
  }

  start({ dial, host, limits }: EndpointPoolOptions, version: UpstreamVersion): void {
    this.#pending = dial(this, version, this.traceparent, limits().connectTimeoutMs, host.nowMs());
  }

  cancel(): void {
    this.#pending?.cancel();
    this.permits[Symbol.dispose]();
  }

  connected(channel: ChannelWithUser, alpn: string | null): void {
    this.#pool.dialled(this, channel, alpn);
  }

  connectFailed(message: string, what: ConnectFailure): void {
    this.#pool.dialFailed(this, message, what);
  }
}
