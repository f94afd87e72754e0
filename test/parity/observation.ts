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
}

/** Of connections, of the clock, of one of the two. */
const ANSWER_IGNORED = /^(date|server|connection|keep-alive|transfer-encoding|content-length|x-weft-.*|x-envoy-.*|x-request-id|traceparent)$/;
const OWN_IGNORED = /^(content-type)$/;
const REQUEST_IGNORED = /^(connection|keep-alive|transfer-encoding|content-length|x-envoy-.*|x-request-id|x-forwarded-proto|traceparent|tracestate|x-id|x-fail|x-delay|x-drop|x-status|x-answer)$/;

export function observe(answers: readonly Answer[], arrivals: readonly Arrival[]): Observation {
  return {
    answers: answers.map(({ status, headers, body }) => {
      const own = !headers.some(([name]) => name === "x-server");
      const kept = headers.filter(([name]) => !ANSWER_IGNORED.test(name) && !(own && OWN_IGNORED.test(name)));
      return { status, headers: joined(kept), ...(own ? {} : { body }) };
    }),
    arrivals: arrivals.map((arrival) => ({ ...arrival, headers: joined(Object.entries(arrival.headers).filter(([name]) => !REQUEST_IGNORED.test(name))) }))
      .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
  };
}

function joined(pairs: readonly (readonly [string, string])[]): Record<string, string> {
  const byName = new Map<string, string>();
  for (const [name, value] of pairs) byName.set(name, byName.has(name) ? `${byName.get(name)}, ${value}` : value);
  return Object.fromEntries([...byName].sort(([a], [b]) => (a < b ? -1 : 1)));
}
