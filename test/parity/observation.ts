// What is compared of an exchange: what the client read and what the servers were sent, without what is different each time, and without
// what a proxy says of itself.

import type { Answer } from "./raw-client.ts";
import type { Arrival } from "./servers.ts";

export interface Observation {
  readonly answers: readonly ObservedAnswer[];
  /** By server; copies come in any order. */
  readonly arrivals: readonly Arrival[];
}

export interface ObservedAnswer {
  /** 0: the connection ended without one, or none came in time. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Of a server's answer. The proxies' own words are their own. */
  readonly body?: string;
  /** Where there are any: in order, and those after the body. */
  readonly interim?: readonly number[];
  readonly trailers?: Readonly<Record<string, string>>;
}

/** Of connections, of the clock, of one of the two. */
const ANSWER_IGNORED = /^(date|server|connection|keep-alive|transfer-encoding|content-length|x-weft-.*|x-envoy-.*|x-request-id|traceparent)$/;
const OWN_IGNORED = /^(content-type|grpc-message)$/;
const REQUEST_IGNORED = /^(connection|keep-alive|transfer-encoding|content-length|x-envoy-.*|x-request-id|x-forwarded-proto|traceparent|tracestate|x-id|x-fail|x-delay|x-drop|x-status|x-answer|x-trailers|x-interim|x-grpc-status|x-grpc-fail)$/;

export function observe(answers: readonly Answer[], arrivals: readonly Arrival[]): Observation {
  return {
    answers: answers.map(({ status, headers, body, interim, trailers }) => {
      const own = !headers.some(([name]) => name === "x-server");
      const kept = headers.filter(([name, value]) => !ANSWER_IGNORED.test(name) && !(own && OWN_IGNORED.test(name) && !value.startsWith("application/grpc")));
      return { status, headers: joined(kept), ...(own ? {} : { body }), ...(interim.length === 0 ? {} : { interim }), ...(trailers.length === 0 ? {} : { trailers: joined(trailers) }) };
    }),
    arrivals: arrivals.map((arrival) => ({ ...arrival, headers: joined(Object.entries(arrival.headers).filter(([name]) => !REQUEST_IGNORED.test(name))) }))
      .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
  };
}

/** Milliseconds that a call may take, in steps of this. */
const TIME_STEP_MS = 100;
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

/** Key of a WebSocket of the corpus; others are made by a proxy, anew each time. */
export const WEBSOCKET_KEY = "dGhlIHNhbXBsZSBub25jZQ==";

/** Without what is different each time: what time is left, to what the proxy itself took of it; random keys. */
function steady(name: string, value: string): string {
  if (name === "sec-websocket-key" && value !== WEBSOCKET_KEY) return "made by the proxy";
  if (/^(x-ratelimit-reset|retry-after)$/.test(name)) return "later";
  if (name === "ratelimit") return value.replace(/;t=\d+/, ";t=later");
  const time = name === "grpc-timeout" ? /^(\d+)([HMSmun])$/.exec(value) : null;
  return time === null ? value : `${Math.ceil((Number(time[1]) * UNIT_MS[time[2]!]!) / TIME_STEP_MS) * TIME_STEP_MS}m`;
}

function joined(pairs: readonly (readonly [string, string])[]): Record<string, string> {
  const byName = new Map<string, string>();
  for (const [name, value] of pairs) byName.set(name, byName.has(name) ? `${byName.get(name)}, ${value}` : steady(name, value));
  return Object.fromEntries([...byName].sort(([a], [b]) => (a < b ? -1 : 1)));
}
