// The way of a connection that is passed through to a server: which endpoint, and another one while none has answered. Nothing of the
// client has been sent before one is reached, so that trying again is safe.

import { Attempt } from "../../policy/upstream/attempt.ts";
import { hashText } from "../../policy/upstream/balancers/hash.ts";
import { explainRefusal, Permits } from "../../policy/upstream/circuit-breaker.ts";
import { UNLIMITED } from "../../policy/upstream/defaults.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import type { Workload } from "../../mesh/records.ts";
import type { Random } from "../../core/ports.ts";
import { encodeTraceparent } from "../../wire/trace/traceparent.ts";
import type { ChannelWithUser } from "../channel/channel.ts";
import type { Cluster, DialWishes } from "../upstream/cluster.ts";
import type { Client } from "../downstream/client.ts";
import { endpointAddress } from "../upstream/endpoint-address.ts";
import type { ChannelOwner, PendingChannel } from "../channel/plain-channel.ts";

export interface PassthroughDialUser {
  serverReached(channel: ChannelWithUser): void;
  /** @param why for a person: of every attempt. */
  serverUnreachable(why: string): void;
}

/** A client waits as long as all of them together take. Envoy: 1. */
const ATTEMPTS_MAX = 3;
/** What is inside is the client's affair. */
const NO_ALPN: readonly string[] = Object.freeze([]);

export class PassthroughDial implements ChannelOwner {
  /** Of the last attempt; null before the first. */
  address: string | null = null;
  readonly #cluster: Cluster;
  readonly #user: PassthroughDialUser;
  readonly #nowMs: () => number;
  readonly #wishes: DialWishes;
  /** Of the client's address: what a consistent hash can be taken of where there is no request. */
  readonly #hash: number;
  readonly #attempt = new Attempt();
  readonly #permits: Permits;
  readonly #tried: UpstreamEndpoint[] = [];
  #pending: PendingChannel | null = null;
  #why = "";

  constructor(cluster: Cluster, user: PassthroughDialUser, { nowMs, random }: { readonly nowMs: () => number; readonly random: Random }, { facts, trace }: Client) {
    this.#cluster = cluster;
    this.#user = user;
    this.#nowMs = nowMs;
    this.#wishes = { alpn: NO_ALPN, meshAlpn: NO_ALPN, traceparent: trace === null ? null : encodeTraceparent(trace) };
    this.#permits = new Permits(cluster.breaker);
    const { balancing } = cluster.settings;
    const keyed = (balancing.kind === "ringHash" || balancing.kind === "maglev") && balancing.key.kind === "sourceIp";
    this.#hash = keyed ? hashText(facts.sourceIp) : Math.floor(random.next() * 0x1_0000_0000);
  }

  /** May tell its user before it returns. */
  start(): void {
    if (this.#cluster.tlsBroken !== null) return this.#user.serverUnreachable(this.#cluster.tlsBroken);
    const refusal = this.#permits.acquire("connections");
    if (refusal !== null) return this.#user.serverUnreachable(`${this.#cluster.name}: ${explainRefusal(refusal)}`);
    this.#try();
  }

  /** What the service's policy allows a connection without a byte; null where it says nothing. */
  get idleMs(): number | null {
    const idleMs = this.#cluster.policy?.limits?.idleTimeoutMs ?? null;
    return idleMs === 0 ? Infinity : idleMs;
  }

  /** How long one may be at all; Infinity for as long as it likes. */
  get ageMaxMs(): number {
    const { connectionAgeMaxMs } = this.#cluster.settings.limits;
    return connectionAgeMaxMs === UNLIMITED ? Infinity : connectionAgeMaxMs;
  }

  /** The one that was reached; null before. */
  get endpoint(): Workload | null {
    return this.#attempt.endpoint?.target.workload ?? null;
  }

  /** The connection has ended, or is given up. */
  end(): void {
    this.#pending?.cancel();
    this.#pending = null;
    const nowMs = this.#nowMs();
    this.#attempt.settle("neutral", nowMs);
    this.#attempt.end(nowMs);
    this.#permits[Symbol.dispose]();
  }

  connected(channel: ChannelWithUser): void {
    this.#pending = null;
    this.#attempt.settle("success", this.#nowMs());
    this.#user.serverReached(channel);
  }

  connectFailed(message: string): void {
    this.#pending = null;
    this.#why += this.#why === "" ? message : `; ${message}`;
    const nowMs = this.#nowMs();
    this.#tried.push(this.#attempt.endpoint!);
    this.#attempt.settle("connectFailure", nowMs);
    this.#attempt.end(nowMs);
    if (this.#tried.length < ATTEMPTS_MAX) this.#try();
    else this.#user.serverUnreachable(this.#why);
  }

  #try(): void {
    const cluster = this.#cluster;
    const nowMs = this.#nowMs();
    cluster.refresh(nowMs);
    const pick = cluster.upstream.pick({ nowMs, hash: this.#hash, tried: this.#tried, sticky: null, mayProbe: true });
    // With nobody else to try the same one may be picked: that it refused a moment ago says enough.
    if (pick.endpoint === null || this.#tried.includes(pick.endpoint)) return this.#user.serverUnreachable(this.#why === "" ? cluster.explainNothing() : this.#why);
    const { target } = this.#attempt.start(cluster.upstream, pick, nowMs);
    this.address = endpointAddress(target);
    this.#pending = cluster.dial(target, this.#wishes, this, cluster.settings.limits.connectTimeoutMs, nowMs);
  }
}
