// A connection to a port that is not declared as HTTP. Its server is reached at once, so that one that speaks first is not held back;
// when the client speaks first, and HTTP, it is served as HTTP; anything else is passed through as it is.

import { Attempt } from "../policy/upstream/attempt.ts";
import { Permits } from "../policy/upstream/circuit-breaker.ts";
import { ChannelRelay } from "./channel-relay.ts";
import type { ChannelUser, ChannelWithUser } from "./channel.ts";
import type { Client } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import { detect } from "./detect.ts";
import type { HttpPlane } from "./http-plane.ts";
import type { ChannelOwner, PendingChannel } from "./plain-channel.ts";

/** What a client may send before its server is there; then it is not read until it is. */
const EARLY_BYTES_MAX = 64 * 1024;
/** Envoy's and the Gateway API's reading of an idle TCP connection. */
const IDLE_MS = 60 * 60_000;
/** What is inside is the client's affair. */
const NO_ALPN: readonly string[] = Object.freeze([]);

export class PassthroughConnection implements ChannelUser, ChannelOwner {
  readonly #plane: HttpPlane;
  readonly #channel: ChannelWithUser;
  readonly #client: Client;
  readonly #sniffs: boolean;
  readonly #startedMs: number;
  readonly #attempt = new Attempt();
  #permits: Permits | null = null;
  #pending: PendingChannel | null = null;
  /** Connected, while nobody has spoken. */
  #server: ChannelWithUser | null = null;
  #address: string | null = null;
  /** What the client sent is no HTTP. */
  #isOther = false;
  #early: Uint8Array[] = [];
  #earlyBytes = 0;
  #ended = false;
  #paused = false;
  #relay: ChannelRelay | null = null;
  #over = false;

  /** @param sniffs false for ports declared as TCP or TLS: nobody looks at the bytes. */
  constructor(plane: HttpPlane, channel: ChannelWithUser, client: Client, sniffs: boolean) {
    this.#plane = plane;
    this.#channel = channel;
    this.#client = client;
    this.#sniffs = sniffs;
    this.#startedMs = plane.nowMs();
    plane.passthroughs.add(this);
    channel.user = this;
  }

  start(): void {
    const { destination, source } = this.#client;
    const { access, service } = this.#plane.views.of(this.#client);
    if (service === null) return this.#refuse(`the configuration has no service ${destination.service}`);
    if (access.policies.length + access.authentications.length + access.logins.length > 0) {
      // Rules about requests cannot be kept where there are none: until the client turns out to speak HTTP nothing is let through.
      if (this.#sniffs) return;
      return this.#refuse("its policies speak of requests, and this port carries none");
    }
    const cluster = this.#plane.clusters.of({ ...destination, subset: null, clientNamespace: source.namespace });
    const nowMs = this.#plane.nowMs();
    if (cluster === null || !cluster.refresh(nowMs)) return this.#refuse(`the configuration has no service ${destination.service}`);
    this.#dial(cluster, nowMs);
  }

  #dial(cluster: Cluster, nowMs: number): void {
    const { upstream, settings, breaker } = cluster;
    if (cluster.tlsBroken !== null) return this.#refuse(cluster.tlsBroken);
    this.#permits = new Permits(breaker);
    if (this.#permits.acquire("connections") !== null) return this.#refuse(`${cluster.name} has as many connections as it may have`);
    const pick = upstream.pick({ nowMs, hash: 0, tried: [], sticky: null, mayProbe: false });
    if (pick.endpoint === null) return this.#refuse(cluster.explainNothing());
    const { target } = this.#attempt.start(upstream, pick, nowMs);
    this.#address = `${target.ip ?? target.workload.hostname}:${target.targetPort}`;
    this.#pending = cluster.dial(target, NO_ALPN, this, settings.limits.connectTimeoutMs, nowMs);
  }

  connected(channel: ChannelWithUser): void {
    this.#pending = null;
    this.#server = channel;
    this.#attempt.settle("success", this.#plane.nowMs());
    if (!this.#sniffs || this.#isOther || this.#ended) return this.#relayNow();
    // Whoever speaks first tells: the server, and it is no HTTP; or the client, and its bytes are looked at.
    channel.user = {
      onBytes: (chunk) => {
        this.#relayNow();
        channel.user?.onBytes(chunk);
      },
      onWritable: () => {},
      onPeerEnd: () => {
        this.#relayNow();
        channel.user?.onPeerEnd();
      },
      onChannelClosed: (error) => this.#refuse(`the server closed the connection${error === null ? "" : `: ${error}`}`),
    };
  }

  #relayNow(): void {
    const server = this.#server!;
    this.#server = null;
    this.#relay = new ChannelRelay({
      client: this.#channel, server, due: this.#plane.due, nowMs: this.#plane.nowMs, idleMs: IDLE_MS, finished: (error) => this.#finished(error),
    }, this.#early, this.#ended);
    this.#early = [];
  }

  connectFailed(message: string): void {
    this.#pending = null;
    this.#attempt.settle("connectFailure", this.#plane.nowMs());
    this.#refuse(message);
  }

  onBytes(chunk: Uint8Array): void {
    this.#early.push(new Uint8Array(chunk));
    this.#earlyBytes += chunk.length;
    if (this.#sniffs) {
      const bytes = this.#early.length === 1 ? this.#early[0]! : Buffer.concat(this.#early);
      const detected = detect(bytes, "unknown");
      if (detected === "HTTP/1" || detected === "HTTP/2") return this.#becomeHttp(detected, bytes);
      if (detected === "other") {
        this.#isOther = true;
        if (this.#server !== null) return this.#relayNow();
        if (this.#pending === null) return this.#refuse("its policies speak of requests, and what the client sent is none");
      }
    }
    if (this.#earlyBytes < EARLY_BYTES_MAX || this.#paused) return;
    this.#paused = true;
    this.#channel.pause();
  }

  onWritable(): void {}

  onPeerEnd(): void {
    this.#ended = true;
    if (this.#server !== null) this.#relayNow();
    else if (this.#pending === null) this.#refuse("the client ended without a word");
  }

  onChannelClosed(error: string | null): void {
    this.#finished(error ?? "the client closed the connection");
  }

  destroy(why: string): void {
    if (this.#relay !== null) this.#relay.destroy(why);
    else this.#refuse(why);
  }

  #becomeHttp(version: "HTTP/1" | "HTTP/2", bytes: Uint8Array): void {
    this.#release();
    this.#plane.open(version, this.#channel, this.#client).onBytes(bytes);
  }

  #refuse(why: string): void {
    this.#channel.destroy();
    this.#finished(why);
  }

  #finished(error: string | null): void {
    if (this.#over) return;
    const relay = this.#relay;
    this.#release();
    this.#plane.observer.passedThrough({
      client: this.#client, startedMs: this.#startedMs, endedMs: this.#plane.nowMs(), upstreamAddress: this.#address,
      requestBytes: relay?.toServerBytes ?? 0, responseBytes: relay?.toClientBytes ?? 0, error,
    });
  }

  #release(): void {
    if (this.#over) return;
    this.#over = true;
    this.#plane.passthroughs.delete(this);
    this.#pending?.cancel();
    this.#pending = null;
    this.#server?.destroy();
    this.#server = null;
    this.#attempt.settle("neutral", this.#plane.nowMs());
    this.#attempt.end(this.#plane.nowMs());
    this.#permits?.[Symbol.dispose]();
  }
}
