// Questions that go upstream. Equal questions share one flight, so that a forger cannot have many of them guessed at once
// (RFC 5452, section 5) and a resolver that asks us back only finds its own question. Nothing is cached: applications and
// resolvers do that already, and an answer of ours that is older than theirs would only hide a change.
//
//   question ─▶ flight: attempt 1 at the first resolver ── reply ──▶ every waiter, with its own id
//                 │ silence of attemptMs, an error, SERVFAIL, REFUSED, NOTIMP
//                 └▶ attempt 2 at the next resolver, the first one still open …
//               answerMs: SERVFAIL

import type { SocketAddress } from "../../core/ip.ts";
import type { Clock, Random } from "../../core/ports.ts";
import { HEADER_BYTES } from "../../wire/dns/message.ts";
import { ResponseCode } from "../../wire/dns/types.ts";
import { type Attempt, type AttemptOwner, TcpAttempt, UdpAttempt } from "./attempt.ts";
import type { DnsLimits } from "./limits.ts";
import type { DnsLabels, DnsMetrics } from "./metrics.ts";

/** Called once. Null: no resolver answered. The reply is the waiter's own copy, with its own id. */
export type Waiter = (reply: Uint8Array | null) => void;

export interface ForwarderOptions {
  readonly namespaceFd: number;
  readonly mark: number;
  /** In the order they are asked; asked anew for each question. */
  readonly upstreams: () => readonly SocketAddress[];
  /** Must be unpredictable: query ids are made of it. */
  readonly random: Random;
  readonly clock: Clock;
  readonly limits: DnsLimits;
  readonly metrics: DnsMetrics;
}

export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #flights = new Map<string, Flight>();

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** @param query whole, from the client; copied. Returns false when too much is under way: nothing was taken. */
  forward(query: Uint8Array, labels: DnsLabels, waiter: Waiter): boolean {
    const key = labels.protocol + Buffer.from(query.buffer, query.byteOffset + 2, query.length - 2).toString("latin1");
    const id = (query[0]! << 8) | query[1]!;
    const { limits, metrics } = this.#options;
    const known = this.#flights.get(key);
    if (known !== undefined) return known.join(id, waiter);
    if (this.#flights.size >= limits.flightsMax) return false;
    metrics.upstream(labels);
    const flight = new Flight(this.#options, new Uint8Array(query), labels, () => this.#flights.delete(key));
    flight.join(id, waiter);
    this.#flights.set(key, flight);
    flight.start();
    return true;
  }

  get underWay(): number {
    return this.#flights.size;
  }

  /** Ends every flight; the waiters are not called. */
  stop(): void {
    for (const flight of this.#flights.values()) flight.abandon();
    this.#flights.clear();
  }
}

class Flight implements AttemptOwner {
  readonly #options: ForwarderOptions;
  readonly #query: Uint8Array;
  readonly #labels: DnsLabels;
  readonly #upstreams: readonly SocketAddress[];
  readonly #left: () => void;
  readonly #startedMs: number;
  readonly #waiters: { readonly id: number; readonly waiter: Waiter }[] = [];
  readonly #attempts = new Set<Attempt>();
  #asked = 0;
  /** A reply that says a resolver could not: better than none. */
  #poorReply: Uint8Array | null = null;
  #deadline: ReturnType<typeof setTimeout> | null = null;
  #next: ReturnType<typeof setTimeout> | null = null;

  constructor(options: ForwarderOptions, query: Uint8Array, labels: DnsLabels, left: () => void) {
    this.#options = options;
    this.#query = query;
    this.#labels = labels;
    this.#left = left;
    this.#upstreams = options.upstreams();
    this.#startedMs = options.clock.monotonicMs();
  }

  join(id: number, waiter: Waiter): boolean {
    if (this.#waiters.length >= this.#options.limits.waitersMax) return false;
    this.#waiters.push({ id, waiter });
    return true;
  }

  start(): void {
    if (this.#upstreams.length === 0) return this.#finish(null);
    this.#deadline = setTimeout(() => this.#finish(this.#poorReply), this.#options.limits.answerMs);
    this.#ask();
  }

  abandon(): void {
    this.#stopTimers();
    for (const attempt of this.#attempts) attempt.cancel();
    this.#attempts.clear();
  }

  replied(attempt: Attempt, reply: Uint8Array, { rcode }: { readonly rcode: number }): void {
    this.#attempts.delete(attempt);
    const poor = rcode === ResponseCode.SERVFAIL || rcode === ResponseCode.REFUSED || rcode === ResponseCode.NOTIMP;
    if (!poor) return this.#finish(reply);
    this.#poorReply = reply;
    // A resolver that answers has nothing better to say when it is asked again.
    if (this.#asked < this.#upstreams.length) this.#ask();
    else if (this.#attempts.size === 0) this.#finish(reply);
  }

  failed(attempt: Attempt): void {
    this.#attempts.delete(attempt);
    if (this.#canAsk) this.#ask();
    else if (this.#attempts.size === 0) this.#finish(this.#poorReply);
  }

  badReply(reason: string): void {
    this.#options.metrics.badReply(reason);
  }

  get #canAsk(): boolean {
    return this.#asked < this.#options.limits.attemptsMax;
  }

  #ask(): void {
    const { namespaceFd, mark, limits, random } = this.#options;
    const to = this.#upstreams[this.#asked++ % this.#upstreams.length]!;
    const query = new Uint8Array(this.#query);
    const id = Math.floor(random.next() * 0x1_0000);
    query[0] = id >> 8;
    query[1] = id & 0xff;
    const options = { namespaceFd, to, mark, query, badRepliesMax: limits.badRepliesMax, owner: this };
    if (this.#next !== null) clearTimeout(this.#next);
    this.#next = this.#canAsk ? setTimeout(() => this.#ask(), limits.attemptMs) : null;
    try {
      this.#attempts.add(this.#labels.protocol === "udp" ? new UdpAttempt(options) : new TcpAttempt(options));
    } catch {
      // The namespace cannot be entered any more; asking again would not help.
      if (this.#attempts.size === 0) this.#finish(this.#poorReply);
    }
  }

  #finish(reply: Uint8Array | null): void {
    this.abandon();
    this.#left();
    const { metrics, clock } = this.#options;
    if (reply === null) metrics.upstreamFailure(this.#labels);
    else metrics.upstreamDuration(this.#labels, (clock.monotonicMs() - this.#startedMs) / 1000);
    for (const { id, waiter } of this.#waiters) waiter(reply === null ? null : withId(reply, id));
  }

  #stopTimers(): void {
    if (this.#deadline !== null) clearTimeout(this.#deadline);
    if (this.#next !== null) clearTimeout(this.#next);
    this.#deadline = this.#next = null;
  }
}

function withId(reply: Uint8Array, id: number): Uint8Array {
  const own = new Uint8Array(reply);
  own[0] = id >> 8;
  own[1] = id & 0xff;
  return own;
}

/** Turns "there is no such name" into "no such record": the name is ours. The AD bit vouched for the other. */
export function nameExists(reply: Uint8Array): void {
  if (reply.length >= HEADER_BYTES && (reply[3]! & 0x0f) === ResponseCode.NXDOMAIN) reply[3] = reply[3]! & 0xd0;
}
