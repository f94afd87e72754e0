// One data thread's whole state: what it was told, what it listens on, and the ticking of its periodic work. Talks to the main thread by
// messages only, so it runs in a Worker, in the main thread, or in a test.

import type { Clock, Random } from "../core/ports.ts";
import { parseIp, type SocketAddress } from "../core/ip.ts";
import { hmacSigner } from "../identity/session-signer.ts";
import { httpFetch } from "../identity/jwt/http-fetch.ts";
import type { L7Delta } from "../mesh/l7/delta.ts";
import { L7Store } from "../mesh/l7/l7-store.ts";
import type { Workload } from "../mesh/records.ts";
import { MeshStore } from "../mesh/store.ts";
import { connectionFacts } from "../policy/connection-facts.ts";
import { Pulse } from "../runtime/thread-pulse.ts";
import type { ThreadAnswer } from "../runtime/worker-threads.ts";
import { LogCredit } from "../telemetry/log-batch.ts";
import { OTLP_IN_FLIGHT_RECORDS_MAX } from "../telemetry/otlp-outbox.ts";
import { causes } from "../tunnel/close-cause.ts";
import type { Listener } from "../tunnel/endpoint-socket.ts";
import { NameResolver } from "../tunnel/name-resolver.ts";
import { ThreadTunnels } from "../tunnel/thread-tunnels.ts";
import type { Client, Destination } from "./downstream/client.ts";
import { clusterView } from "./upstream/cluster-view.ts";
import { HttpPlane } from "./http-plane.ts";
import type { FromWaypoint, TelemetryCredits, ToWaypoint, WaypointConfig, WaypointSnapshot } from "./messages.ts";
import { loadIfNeeded } from "./services/message-loader.ts";
import { meshFetch } from "./services/mesh-fetch.ts";
import { MeshDialer } from "./upstream/mesh-dialer.ts";
import { IdentityChecks } from "./services/identity-checks.ts";
import { labelsOf } from "./upstream/labels.ts";
import { listenOn, type PlainChannel } from "./channel/plain-channel.ts";
import { RequestTelemetry } from "./request/request-telemetry.ts";
import { recordedWaypoint, unrecordedWaypoint } from "./self.ts";
import { TunnelCounters } from "./upstream/tunnel-counters.ts";
import { WaypointPlace } from "./waypoint-place.ts";
import { clearBufferPool } from "../wire/http/output-buffer.ts";

/** How often lines are handed on, and a drain is looked at. */
const TICK_MS = 100;
/** How often clusters do their periodic work. */
const CLUSTER_TICK_MS = 1_000;

/** With the main thread; null where both are one. */
export interface SharedMemory {
  readonly credits: TelemetryCredits | null;
  readonly pulse: SharedArrayBuffer | null;
}

export class WaypointDataPlane {
  readonly #config: WaypointConfig;
  readonly #post: (message: FromWaypoint | ThreadAnswer) => void;
  readonly #store = new MeshStore();
  readonly #l7 = new L7Store();
  readonly #plane: HttpPlane;
  readonly #telemetry: RequestTelemetry;
  readonly #listeners: Listener[] = [];
  readonly #identities: IdentityChecks;
  readonly #tunnels: ThreadTunnels;
  readonly #tunnelCounters: TunnelCounters;
  readonly #place: WaypointPlace;
  readonly #names: NameResolver;
  readonly #nowMs: () => number;
  #recorded: Workload | null = null;
  #toldOfItself = false;
  readonly #unrecorded: Workload;
  #lastClusterTickMs = 0;
  #drainUntilMs = Infinity;
  #drained = false;
  readonly #pulse: Pulse | null;

  constructor(config: WaypointConfig, world: { readonly clock: Clock; readonly random: Random }, post: (message: FromWaypoint | ThreadAnswer) => void, { credits, pulse }: SharedMemory) {
    const { clock, random } = world;
    this.#config = config;
    this.#post = post;
    this.#nowMs = () => clock.monotonicMs();
    this.#unrecorded = unrecordedWaypoint(config.gateway, config.network);
    this.#tunnelCounters = new TunnelCounters(this.#nowMs);
    this.#tunnels = new ThreadTunnels({ config: config.tunnels, clock, reporter: this.#tunnelCounters, needSvid: (spiffeId) => post({ kind: "needSvid", spiffeId }) });
    this.#place = new WaypointPlace({
      store: this.#store, l7: this.#l7, gateway: config.gateway, network: config.network, trustDomains: config.tunnels.trustDomains, self: () => this.#recorded,
      accept: (channel, client) => this.#plane.accept(channel, client),
      refused: (code, message) => void (this.#tunnelCounters.mayWarn() && post({ kind: "warning", code, message })),
      failed: (cause) => this.#tunnelCounters.tunnelFailed("inbound", cause),
    });
    this.#telemetry = new RequestTelemetry({
      role: { ...config.telemetry, environment: (name) => process.env[name] }, clock, random, fillRandom: (bytes) => void crypto.getRandomValues(bytes), newRequestId: () => crypto.randomUUID(),
      postLines: (lines, lineCount) => post({ kind: "log", lines, lineCount }), logCredit: credits === null ? null : new LogCredit(credits.lines),
      postNews: (news) => post({ kind: "endpoint", news }),
      postOtlp: (batches) => post({ kind: "otlp", batches }), otlpCredit: credits === null ? null : new LogCredit(credits.otlp, OTLP_IN_FLIGHT_RECORDS_MAX),
    });
    this.#identities = new IdentityChecks({ fetch: meshFetch(httpFetch({ remoteOnly: config.remoteIssuersOnly }), this.#store, () => this.#plane), clock, random });
    this.#names = new NameResolver({ random, nowMs: this.#nowMs });
    const dialer = new MeshDialer({ config, store: this.#store, tunnels: this.#tunnels.context, names: this.#names, random, due: () => this.#plane.due, self: () => this.#recorded });
    this.#plane = new HttpPlane({
      store: this.#store, l7: this.#l7, waypoint: config.gateway, network: config.network, self: () => this.#self, labels: (workload, label) => this.#l7.labels(workload.uid)?.[label], clock, random, pathNormalisation: config.pathNormalisation,
      tokens: this.#identities.tokens, logins: this.#identities.logins,
      sessionSigner: hmacSigner(config.sessionKey), ruleTelling: config.ruleTelling, observer: this.#telemetry,
      dialer, names: this.#names, budget: this.#tunnels.context.budget,
    });
    this.#pulse = pulse === null ? null : new Pulse(pulse, TICK_MS);
    // Ends with its thread.
    setInterval(() => this.#tick(), TICK_MS);
  }

  receive(message: ToWaypoint): void {
    switch (message.kind) {
      case "configure":
        return; // the first message builds this object
      case "mesh":
        if (message.news !== null) for (const uid of this.#store.follow(message.news).workloadsRemoved) this.#tunnels.context.pool.retireDestination(uid);
        loadIfNeeded(message.l7Delta);
        this.#applyL7(message.l7Delta);
        this.#recognise(recordedWaypoint(this.#store, this.#l7, this.#config.gateway));
        this.#plane.changed();
        // Tunnels that waited for our own record go on.
        for (const tunnel of [...this.#tunnels.accepted]) tunnel.judgeAgain();
        return;
      case "svid":
      case "svidFailed":
      case "svidDropped":
      case "revoked":
        return this.#tunnels.take(message);
      case "listen":
        for (const fd of message.hboneFds) this.#listeners.push(this.#tunnels.listen(fd, this.#place));
        for (const { fd, destination } of message.listeners) this.#listeners.push(this.#listen(fd, destination));
        return this.#post({ kind: "answer", question: "listen", value: null });
      case "snapshot":
        // Lines of what is counted are on their way before the numbers are.
        this.#telemetry.flush();
        return this.#post({ kind: "answer", question: message.question, value: this.snapshot() });
      case "collectGarbage":
        clearBufferPool();
        return Bun.gc(true);
      case "drain":
        return this.#drain(message.deadlineMs);
      default:
        message satisfies never;
    }
  }

  #applyL7(delta: L7Delta): void {
    const { accessChanged, labelsChanged } = this.#l7.apply(delta);
    if (accessChanged) this.#identities.retain(this.#l7);
    if (labelsChanged) this.#plane.clusters.relabelled();
  }

  snapshot(): WaypointSnapshot {
    const { connections, requests, passthroughs, clusters } = this.#plane;
    return {
      metrics: [this.#tunnelCounters.snapshot(this.#tunnels.gauges()), this.#telemetry.snapshot([...clusters].map((cluster) => cluster.state()))], connections: connections.size, requests: requests.size, passedThrough: passthroughs.size,
      clusters: [...clusters].map(clusterView),
    };
  }

  #recognise(record: Workload | null): void {
    const isNews = (record === null) !== (this.#recorded === null) || !this.#toldOfItself;
    this.#recorded = record;
    this.#toldOfItself = true;
    if (isNews) this.#post({ kind: "recorded", isRecorded: record !== null });
  }

  get #self(): Workload {
    return this.#recorded ?? this.#unrecorded;
  }

  /** Whoever comes without a tunnel has proved nothing: its address tells the workload for routes, and no identity for policies. */
  #listen(fd: number, destination: Client["destination"]): Listener {
    const { admission, reporter } = this.#tunnels.context;
    return listenOn(fd, (channel) => this.#plane.accept(channel, this.#plainClient(channel, destination)), (accepted) => {
      const isWelcome = admission.refusal(accepted) === null;
      if (!isWelcome) reporter.handshakeRefused("full");
      return isWelcome;
    });
  }

  #plainClient(channel: PlainChannel, destination: Destination): Client {
    const { remote, local } = channel;
    const address = normal(remote);
    const workload = this.#store.workloadByAddress(this.#config.network, address.ip) ?? null;
    return {
      source: { identity: null, namespace: workload?.namespace ?? null, labels: labelsOf(workload, this.#l7), ip: address.ip },
      workload, address, destination, sni: null, mutualTls: false, trace: null, view: null,
      facts: connectionFacts({ peer: null, sourceIp: address.ip, destinationIp: normal(local).ip, destinationPort: destination.port }, null),
    };
  }

  #tick(): void {
    const nowMs = this.#nowMs();
    // Also when all is drained: other threads may not be, and this one is alive.
    this.#pulse?.beat(nowMs);
    if (this.#drained) return;
    this.#telemetry.flush();
    this.#tunnels.tickDeadlines(nowMs);
    if (nowMs - this.#lastClusterTickMs >= CLUSTER_TICK_MS) {
      this.#lastClusterTickMs = nowMs;
      this.#names.tick(nowMs);
      this.#plane.tick();
      this.#tunnels.tick(nowMs);
      this.#telemetry.tick(nowMs);
      this.#identities.tick();
    }
    if (this.#drainUntilMs !== Infinity) this.#finishDrain(nowMs);
  }

  /** Listeners close at once, clients are told, requests may end by themselves until the deadline. */
  #drain(deadlineMs: number): void {
    const untilMs = this.#nowMs() + deadlineMs;
    if (this.#drained) return;
    if (this.#drainUntilMs !== Infinity) {
      this.#drainUntilMs = Math.min(this.#drainUntilMs, untilMs);
      return;
    }
    this.#drainUntilMs = untilMs;
    for (const listener of this.#listeners.splice(0)) listener.stop();
    this.#plane.drain();
    this.#tunnels.drain();
    this.#finishDrain(this.#nowMs());
  }

  #finishDrain(nowMs: number): void {
    const { requests, passthroughs } = this.#plane;
    const left = requests.size + passthroughs.size;
    if (this.#plane.holdsClients && nowMs < this.#drainUntilMs) return;
    this.#drained = true;
    this.#drainUntilMs = Infinity;
    this.#plane.destroy();
    this.#identities.destroy();
    this.#tunnels.destroy(causes.drained);
    this.#telemetry.flush();
    this.#post({ kind: "answer", question: "drained", value: left });
  }
}

/** Sockets that take both families show IPv4 peers as mapped addresses. */
function normal({ ip, port }: SocketAddress): SocketAddress {
  return { ip: parseIp(ip) ?? ip, port };
}
