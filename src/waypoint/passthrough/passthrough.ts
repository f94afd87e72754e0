// A connection to a port that is not declared as HTTP:
//
//   naming ──▶ deciding ──▶ dialling ──▶ reached ──▶ relaying
//                  │            │           │
//                  ╰─ waiting ──┴───────────┴──▶ HTTP after all (http-plane.ts)
//
// The name that the client's TLS asks for is read only where a route or a policy depends on it. Else the server is reached at once, so
// that one that speaks first is not held back. On a port that declares nothing, a client that speaks first, and HTTP, is served as
// HTTP; where policies let only requests in, that is waited for.

import type { AccessSet } from "../../mesh/l7/l7-store.ts";
import type { Due } from "../../net/due-list.ts";
import { planConnection } from "../../policy/connection-route.ts";
import { asksForServerName, authorisePassthrough } from "../../policy/http/authorise-passthrough.ts";
import { CLIENT_HELLO_BYTES_MAX, readServerName } from "../../wire/tls/client-hello.ts";
import { ChannelRelay } from "../channel/channel-relay.ts";
import type { ChannelUser, ChannelWithUser } from "../channel/channel.ts";
import type { Client } from "../downstream/client.ts";
import { FLAG_INDEX } from "../../telemetry/connection-labels.ts";
import type { ConnectionCounters } from "../../telemetry/connection-metrics.ts";
import { detect } from "../downstream/detect.ts";
import { CLIENT_IDLE_MS } from "../downstream/downstream.ts";
import type { HttpPlane } from "../http-plane.ts";
import { PassthroughDial, type PassthroughDialUser } from "./passthrough-dial.ts";

/** What a client may send before its server is there; then it is not read until it is. A whole ClientHello fits, with the headers of its records. */
const EARLY_BYTES_MAX = CLIENT_HELLO_BYTES_MAX + 4096;
/** Envoy's and the Gateway API's reading of an idle TCP connection. */
const IDLE_MS = 60 * 60_000;
/** For a ClientHello; a client that sends none in that time asks for no name. Envoy's time for what it reads before it decides. */
const NAME_MS = 15_000;

type Phase = "naming" | "waiting" | "dialling" | "reached" | "relaying" | "over";

export class PassthroughConnection implements ChannelUser, PassthroughDialUser, Due {
  dueMs = Infinity;
  dueIndex = -1;
  readonly #plane: HttpPlane;
  readonly #channel: ChannelWithUser;
  readonly #client: Client;
  /** The client may turn out to speak HTTP. */
  #sniffs: boolean;
  readonly #startedMs: number;
  #phase: Phase = "naming";
  #sni: string | null = null;
  /** What it was judged by. */
  #access: AccessSet | null = null;
  #dial: PassthroughDial | null = null;
  /** Connected, while nobody has spoken. */
  #server: ChannelWithUser | null = null;
  #early: Uint8Array[] = [];
  #earlyBytes = 0;
  #ended = false;
  #paused = false;
  /** Why it may not go on as a connection. */
  #denied = "";
  #relay: ChannelRelay | null = null;
  /** Null before a server was reached. */
  #counters: ConnectionCounters | null = null;
  #countedToServer = 0;
  #countedToClient = 0;

  /** @param sniffs false for ports declared as TCP or TLS: nobody takes their bytes for HTTP. */
  constructor(plane: HttpPlane, channel: ChannelWithUser, client: Client, sniffs: boolean) {
    this.#plane = plane;
    this.#channel = channel;
    this.#client = client;
    this.#sniffs = sniffs;
    this.#startedMs = plane.nowMs();
    plane.passthroughs.add(this);
    plane.due.add(this);
    channel.user = this;
  }

  start(): void {
    const { access, service, routes } = this.#plane.views.of(this.#client);
    if (service === null) return this.#refuse(`the configuration has no service ${this.#client.destination.service}`);
    if (routes.protocol === "tcp" || routes.protocol === "tls") this.#sniffs = false;
    if (routes.protocol !== "tls" && !asksForServerName(access) && !this.#namesItsHost) return this.#decide();
    this.#wait(NAME_MS);
  }

  /** The service stands for every host under a wildcard: the name that its TLS asks for is where it goes. */
  get #namesItsHost(): boolean {
    const { destination, source } = this.#client;
    return this.#plane.clusters.of({ ...destination, subset: null, clientNamespace: source.namespace })?.settings.dynamicHosts != null;
  }

  // ── Decisions ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #decide(): void {
    const plane = this.#plane;
    const client = this.#client;
    const { access, routes } = plane.views.of(client);
    this.#access = access;
    const verdict = authorisePassthrough(access, { ...client.facts, remoteIp: client.facts.sourceIp, sni: this.#sni });
    if (verdict.kind === "deny") return this.#deny(verdict.why);
    this.#denied = "";
    const plan = planConnection(routes, this.#sni, plane.random);
    if (plan.kind === "refuse") return this.#refuse(plan.why);
    const target = plan.kind === "forward" ? plan.target : { ...client.destination, subset: null };
    let cluster = plane.clusters.of({ service: target.service, port: target.port, subset: target.subset, clientNamespace: client.source.namespace });
    if (cluster === null) return this.#refuse(`no DestinationRule defines the subset ${target.subset} of ${target.service}`);
    if (cluster.settings.dynamicHosts !== null) {
      const found = plane.clusters.hostUnder(cluster, this.#sni?.toLowerCase() ?? "", plane.nowMs());
      if (found.kind !== "cluster") return this.#refuse(found.why);
      cluster = found.cluster;
    }
    if (!cluster.refresh(plane.nowMs())) return this.#refuse(`the configuration has no service ${target.service}`);
    if (cluster.broken !== null) return this.#refuse(cluster.broken);
    this.#phase = "dialling";
    this.#wait(Infinity);
    this.#dial = new PassthroughDial(cluster, this, plane, client);
    this.#dial.start();
  }

  /** Rules about requests cannot be kept where there are none: until the client turns out to speak HTTP nothing is let through. */
  #deny(why: string): void {
    this.#denied = why;
    if (!this.#sniffs) return this.#refuse(why);
    this.#phase = "waiting";
    this.#wait(CLIENT_IDLE_MS);
  }

  /** The configuration changed: what no policy lets through any more is cut, what one does now goes on. */
  judgeAgain(): void {
    if (this.#access === null || this.#phase === "over") return;
    // A service that is gone takes no connection with it: only policies do.
    const { access } = this.#plane.views.of(this.#client);
    if (access === this.#access) return;
    if (this.#phase === "waiting") return this.#decide();
    this.#access = access;
    const verdict = authorisePassthrough(access, { ...this.#client.facts, remoteIp: this.#client.facts.sourceIp, sni: this.#sni });
    if (verdict.kind === "deny") this.destroy(`${verdict.why}, as the policies are now`);
  }

  // ── The server ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  serverReached(channel: ChannelWithUser): void {
    this.#server = channel;
    this.#phase = "reached";
    if (!this.#sniffs || this.#ended) return this.#relayNow();
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

  serverUnreachable(why: string): void {
    this.#refuse(why);
  }

  #relayNow(): void {
    const server = this.#server!;
    this.#server = null;
    this.#phase = "relaying";
    this.#wait(this.#dial!.ageMaxMs);
    this.#counters = this.#plane.observer.passing(this.#client, this.#dial!.endpoint!);
    this.#relay = new ChannelRelay({
      client: this.#channel, server, due: this.#plane.due, nowMs: this.#plane.nowMs, idleMs: this.#dial!.idleMs ?? IDLE_MS, finished: (error) => this.#finished(error),
    }, this.#early, this.#ended);
    this.#early = [];
  }

  /** What has gone through since it was last asked is added to what is counted. */
  count(): void {
    const counters = this.#counters;
    if (counters === null || this.#relay === null) return;
    const { toServerBytes, toClientBytes } = this.#relay;
    counters.receivedBytes += toServerBytes - this.#countedToServer;
    counters.sentBytes += toClientBytes - this.#countedToClient;
    this.#countedToServer = toServerBytes;
    this.#countedToClient = toClientBytes;
  }

  // ── The client ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  onBytes(chunk: Uint8Array): void {
    this.#early.push(new Uint8Array(chunk));
    this.#earlyBytes += chunk.length;
    if (this.#phase === "naming" && !this.#readName()) return;
    if (this.#sniffs && !this.#lookForHttp()) return;
    if (this.#paused || this.#phase === "relaying" || this.#phase === "over" || this.#earlyBytes < EARLY_BYTES_MAX) return;
    this.#paused = true;
    this.#channel.pause();
  }

  onWritable(): void {}

  onPeerEnd(): void {
    this.#ended = true;
    if (this.#phase === "naming") this.#decide();
    if (this.#server !== null) this.#relayNow();
    else if (this.#phase === "waiting") this.#refuse("the client ended without a request");
  }

  onChannelClosed(error: string | null): void {
    this.#finished(error ?? "the client closed the connection");
  }

  onDue(): void {
    if (this.#phase === "naming") this.#decide();
    else if (this.#phase === "waiting") this.#refuse(`${this.#denied}, and the client sent no request within ${CLIENT_IDLE_MS} ms`);
    else if (this.#phase === "relaying") this.destroy(`it was ${this.#dial!.ageMaxMs} ms old, which is the limit (connectionAgeMaxMs)`);
  }

  destroy(why: string): void {
    if (this.#relay !== null) this.#relay.destroy(why);
    else this.#refuse(why);
  }

  /** False while more is needed, or when it ended. */
  #readName(): boolean {
    const read = readServerName(this.#earlyTogether());
    if (read.kind === "incomplete" && this.#earlyBytes < EARLY_BYTES_MAX) return false;
    if (read.kind === "clientHello") {
      this.#sni = read.name;
      this.#sniffs = false;
    }
    this.#decide();
    return this.#phase !== "over";
  }

  /** False once it went on as HTTP, or ended. */
  #lookForHttp(): boolean {
    const bytes = this.#earlyTogether();
    const detected = detect(bytes, "unknown");
    if (detected === null) return true;
    if (detected !== "other") {
      this.#release();
      this.#plane.open(detected, this.#channel, this.#client).onBytes(bytes);
      return false;
    }
    this.#sniffs = false;
    if (this.#phase === "waiting") {
      this.#refuse(`${this.#denied}, and what the client sent is no request`);
      return false;
    }
    if (this.#server !== null) this.#relayNow();
    return true;
  }

  #earlyTogether(): Uint8Array {
    if (this.#early.length > 1) this.#early = [new Uint8Array(Buffer.concat(this.#early))];
    return this.#early[0]!;
  }

  // ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #wait(ms: number): void {
    this.dueMs = ms === Infinity ? Infinity : this.#plane.nowMs() + ms;
    this.#plane.due.sooner(this);
  }

  #refuse(why: string): void {
    if (this.#phase === "over") return;
    this.#channel.destroy();
    this.#finished(why);
  }

  #finished(error: string | null): void {
    if (this.#phase === "over") return;
    const relay = this.#relay;
    const address = this.#dial?.address ?? null;
    this.count();
    if (this.#counters !== null) {
      this.#counters.open--;
      this.#counters.closed[FLAG_INDEX["-"]]!++;
    }
    this.#release();
    this.#plane.observer.passedThrough({
      client: this.#client, startedMs: this.#startedMs, endedMs: this.#plane.nowMs(), upstreamAddress: address,
      requestBytes: relay?.toServerBytes ?? 0, responseBytes: relay?.toClientBytes ?? 0, error,
      refused: this.#counters !== null ? null : this.#denied !== "" ? "denied" : "unreachable",
    });
  }

  #release(): void {
    this.#phase = "over";
    this.#plane.passthroughs.delete(this);
    this.#plane.due.remove(this);
    this.#server?.destroy();
    this.#server = null;
    this.#dial?.end();
  }
}
