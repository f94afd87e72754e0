// What every connection to a server does, in both versions of HTTP: it counts its requests, is retired once, and is given a short time to
// close when it has ended. What it can take, and what the engine says, is the business of its kinds.

import type { HttpRequest } from "../../wire/http/message.ts";
import { EngineConnection } from "../channel/engine-connection.ts";
import type { UpstreamStream, UpstreamUser } from "../channel/streams.ts";
import type { PoolWaiter, UpstreamConnection, UpstreamConnectionOptions } from "./upstream.ts";

/** A connection that has ended its requests waits this long for its last bytes to be written. */
const CLOSE_MS = 5_000;

export abstract class PooledConnection extends EngineConnection implements UpstreamConnection {
  abstract readonly version: UpstreamConnection["version"];
  readonly openedMs: number;
  readonly traceId: string | null;
  requestsTotal = 0;
  protected readonly options: UpstreamConnectionOptions;
  #isRetired = false;

  constructor(options: UpstreamConnectionOptions) {
    super(options.channel, options.host);
    this.options = options;
    this.traceId = options.traceId;
    this.openedMs = this.progressMs;
  }

  get used(): boolean {
    return this.requestsTotal > 0;
  }

  protected get isRetired(): boolean {
    return this.#isRetired;
  }

  abstract get room(): number;
  abstract get idle(): boolean;
  abstract readonly takesExtendedConnect: boolean | null;
  abstract awaitSettings(waiter: PoolWaiter): void;
  abstract forgetWaiter(waiter: PoolWaiter): void;
  abstract request(request: HttpRequest, endStream: boolean, user: UpstreamUser): UpstreamStream | null;
  abstract retire(): void;

  /** False when it was already. */
  protected retireOnce(): boolean {
    if (this.#isRetired) return false;
    this.#isRetired = true;
    this.options.owner.retired(this);
    return true;
  }

  /** It has no request: when it is closed for that. */
  protected idleFrom(nowMs: number): void {
    this.dueAt(nowMs + this.options.idleTimeoutMs);
  }

  /** The engine has ended. */
  protected closeSoon(): void {
    this.onFinished();
    const atMs = this.options.host.nowMs() + CLOSE_MS;
    if (this.dueMs > atMs) this.dueAt(atMs);
  }
}
