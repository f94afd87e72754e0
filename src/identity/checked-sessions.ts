// The HTTP/2 session of a gRPC channel, by the library's manager, and what that leaves to be done here: a connection that does not come is
// given up, and one that stands is asked whether it lives. The library has pings of its own, which are off: they go on after a session that
// was destroyed under an open stream, and then throw where nobody catches.

import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { Http2SessionManager } from "@connectrpc/connect-node";

export interface SessionTimes {
  readonly pingIntervalMs: number;
  /** A connection that has not answered a ping by then is dead. */
  readonly pingTimeoutMs: number;
}
const SESSION_TIMES: SessionTimes = { pingIntervalMs: 30_000, pingTimeoutMs: 10_000 };

type ManagerOptions = ConstructorParameters<typeof Http2SessionManager>[2];
type RequestArguments = Parameters<Http2SessionManager["request"]>;

export class CheckedSessions implements Pick<Http2SessionManager, "request"> {
  readonly #manager: Http2SessionManager;
  readonly #times: SessionTimes;
  readonly #checked = new WeakSet<ClientHttp2Session>();

  constructor(url: string, options: ManagerOptions, times: SessionTimes = SESSION_TIMES) {
    this.#manager = new Http2SessionManager(url, undefined, options);
    this.#times = times;
  }

  /** @returns null when there is a connection, else what was seen. One that has not come after so long is given up: the next is tried anew. */
  async connect(timeoutMs: number): Promise<string | null> {
    const late = Promise.withResolvers<"late">();
    const timer = setTimeout(() => late.resolve("late"), timeoutMs);
    try {
      const state = await Promise.race([this.#manager.connect(), late.promise]);
      if (state === "late") {
        this.#manager.abort();
        return `no connection within ${timeoutMs} ms`;
      }
      if (state !== "error") return null;
      const failure = this.#manager.error();
      return failure instanceof Error ? failure.message : String(failure ?? "the connection failed");
    } finally {
      clearTimeout(timer);
    }
  }

  async request(...[method, path, headers, options]: RequestArguments): Promise<ClientHttp2Stream> {
    const stream = await this.#manager.request(method, path, headers, options);
    if (stream.session !== undefined) this.#check(stream.session as ClientHttp2Session);
    return stream;
  }

  abort(): void {
    this.#manager.abort();
  }

  /** From its first request on, until it is closed. */
  #check(session: ClientHttp2Session): void {
    if (this.#checked.has(session)) return;
    this.#checked.add(session);
    const { pingIntervalMs, pingTimeoutMs } = this.#times;
    const interval = setInterval(() => {
      if (session.closed || session.destroyed) return clearInterval(interval);
      const dead = setTimeout(() => {
        clearInterval(interval);
        session.destroy(new Error(`no answer to a ping within ${pingTimeoutMs} ms`));
      }, pingTimeoutMs);
      dead.unref();
      session.ping(() => clearTimeout(dead));
    }, pingIntervalMs);
    interval.unref();
  }
}
