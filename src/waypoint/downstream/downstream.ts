// What every connection from a client has in common, whichever version of HTTP it speaks, and what it needs from its surroundings.

import type { Due, DueList } from "../../net/due-list.ts";
import type { Http1Counters } from "../../wire/http1/counters.ts";
import type { PathNormalisation } from "../../wire/http/path.ts";
import type { Http2Limits, LocalSettings } from "../../wire/http2/limits.ts";
import type { ByteBudget } from "../../tunnel/byte-budget.ts";
import type { Client } from "./client.ts";
import type { DownstreamStream, DownstreamUser } from "../channel/streams.ts";

/** A stream as its connection hands it out: who takes the request sets `user` before anything else. */
export interface NewStream extends DownstreamStream {
  user: DownstreamUser | null;
}

export interface DownstreamHost {
  readonly due: DueList;
  readonly budget: ByteBudget;
  readonly nowMs: () => number;
  readonly pathNormalisation: PathNormalisation;
  readonly http1Counters: Http1Counters;
  readonly http2Settings: LocalSettings;
  readonly http2Limits: Http2Limits;
  serve(stream: NewStream, client: Client): void;
  /** Something came that never became a request. */
  malformed(client: Client, code: string, message: string): void;
  /** Once for each connection, last. */
  connectionClosed(connection: DownstreamConnection): void;
}

export interface DownstreamConnection extends Due {
  readonly client: Client;
  /** No new requests; what is under way goes on. Closes when the last one has ended. */
  drain(): void;
  /** Ends everything now. */
  destroy(): void;
}

/** What became of a request whose connection is gone. @param error of the channel, which says more than that it is. */
export function connectionEnded(error: string | null, otherwise: string): string {
  return error === null ? otherwise : `the connection with the client ended: ${error}`;
}

/** A connection without a request: browsers keep theirs for minutes, Envoy for an hour. */
export const CLIENT_IDLE_MS = 600_000;
/** The same while we drain: the next request of a client that was just answered is on its way, and is answered with `connection: close`. */
export const DRAIN_IDLE_MS = 1_000;
/** The head of a request, from its first byte: slow links need seconds, slowloris has all day. */
export const HEAD_MS = 60_000;
/** A client that takes none of what is left to be written. */
export const WRITE_IDLE_MS = 60_000;
/** After our last word, for the client's own end, so that it reads what we said before it meets a reset. */
export const LINGER_MS = 5_000;
/** The rest of a body that was answered before it had ended: it is on its way, or never comes. */
export const REST_MS = 60_000;
/**
 * A client that has ended its half after a whole request, and takes nothing since. Its FIN does not tell whether it waits or has gone, and most
 * have gone: browsers and programs that cancel a request. Those that wait have so long to the next byte of the answer.
 */
export const HALF_CLOSED_MS = 5_000;
/** The client's first SETTINGS. */
export const SETTINGS_MS = 10_000;
