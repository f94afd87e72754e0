// HTTP of one data thread: connections from clients come in as channels, requests go out over clusters. Composition only: it knows no
// listener, no tunnel and no source of configuration.

import type { NamespacedName } from "../core/brand.ts";
import type { Clock, Random } from "../core/ports.ts";
import type { L7Store } from "../mesh/l7/l7-store.ts";
import type { Workload } from "../mesh/records.ts";
import type { MeshStore } from "../mesh/store.ts";
import { type Due, DueList } from "../net/due-list.ts";
import { egressRefusal } from "../policy/egress-address.ts";
import type { RuleTelling } from "../policy/http/rule-header.ts";
import type { SessionSigner } from "../policy/http/session.ts";
import type { LabelSource } from "../policy/upstream/labels.ts";
import type { NameSource } from "../policy/upstream/endpoint-list.ts";
import { Http1Counters } from "../wire/http1/counters.ts";
import type { PathNormalisation } from "../wire/http/path.ts";
import { DEFAULT_LIMITS, DEFAULT_SETTINGS, type LocalSettings } from "../wire/http2/limits.ts";
import type { ChannelUser, ChannelWithUser } from "./channel/channel.ts";
import type { Client } from "./downstream/client.ts";
import { BackendTlsContexts } from "./upstream/backend-tls.ts";
import type { ClusterContext, EndpointDialer } from "./upstream/cluster.ts";
import { Clusters } from "./upstream/clusters.ts";
import { detect } from "./downstream/detect.ts";
import { CLIENT_IDLE_MS, DRAIN_IDLE_MS, type DownstreamConnection, type DownstreamHost, HEAD_MS, type NewStream } from "./downstream/downstream.ts";
import { Http1Downstream } from "./downstream/downstream-http1.ts";
import { Http2Downstream } from "./downstream/downstream-http2.ts";
import { declaredProtocol } from "./downstream/declared-protocol.ts";
import type { ByteBudget } from "../tunnel/byte-budget.ts";
import { GatherBudget } from "./request/gather-budget.ts";
import { withoutGrpcWeb } from "./downstream/grpc-web.ts";
import { PassthroughConnection } from "./passthrough/passthrough.ts";
import type { RequestObserver } from "./request/observer.ts";
import { ActiveRequest } from "./request/request.ts";
import type { LoginChecker, RequestHost, RunningRequest, TokenChecker } from "./request/request-host.ts";
import { ServiceDirectory } from "./services/service-directory.ts";
import { ProbeGate } from "./upstream/health-checks.ts";
import { ServiceViews } from "./upstream/service-view.ts";
import type { UpstreamHost } from "./upstream/upstream.ts";

/** What its requests and clusters are given is named where they name it. */
export interface HttpPlaneOptions
  extends Pick<RequestHost, "self" | "tokens" | "logins" | "sessionSigner" | "ruleTelling" | "observer" | "budget" | "random">, Pick<ClusterContext, "dialer" | "labels" | "names">, Pick<DownstreamHost, "pathNormalisation"> {
  readonly store: MeshStore;
  readonly l7: L7Store;
  /** `namespace/name` of the Gateway that this process is. */
  readonly waypoint: NamespacedName;
  /** Its own: where workloads are found by address. */
  readonly network: string;
  readonly clock: Clock;
}

/** Requests that one client connection may have under way: what gRPC channels open before they open a second connection. */
const CLIENT_STREAMS_MAX = 1000;
/** Of one request or answer: at most so much waits in memory for a slow other side. A tunnel around it has windows of its own. */
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 16 * STREAM_WINDOW_BYTES;
/** Small enough that streams take turns, large enough that headers of frames cost nothing. */
const FRAME_BYTES = 256 * 1024;

const BOTH: LocalSettings = { ...DEFAULT_SETTINGS, initialWindowBytes: STREAM_WINDOW_BYTES, connectionWindowBytes: CONNECTION_WINDOW_BYTES, maxFrameBytes: FRAME_BYTES };
const SERVER_SETTINGS: LocalSettings = { ...BOTH, maxConcurrentStreams: CLIENT_STREAMS_MAX, enableConnectProtocol: true };

export class HttpPlane implements DownstreamHost, RequestHost, ClusterContext {
  readonly due: DueList;
  readonly nowMs: () => number;
  readonly wallMs: () => number;
  readonly directory: ServiceDirectory;
  readonly random: Random;
  readonly labels: LabelSource;
  readonly dialer: EndpointDialer;
  readonly tlsContexts = new BackendTlsContexts();
  readonly probes = new ProbeGate();
  readonly names: NameSource | null;
  readonly clientCertificate: ClusterContext["clientCertificate"];
  readonly egressRefusal: ClusterContext["egressRefusal"];
  readonly self: () => Workload;
  readonly tokens: TokenChecker;
  readonly logins: LoginChecker;
  readonly sessionSigner: SessionSigner | null;
  readonly ruleTelling: RuleTelling;
  readonly observer: RequestObserver;
  /** What requests and connections may hold for slow readers, all together. */
  readonly budget: ByteBudget;
  readonly pathNormalisation: PathNormalisation;
  readonly http1Counters = new Http1Counters();
  readonly http2Settings = SERVER_SETTINGS;
  readonly http2Limits = DEFAULT_LIMITS;
  /** Of connections to servers. */
  readonly host: UpstreamHost;
  readonly views: ServiceViews;
  readonly clusters: Clusters;
  readonly gathering = new GatherBudget();
  readonly requests = new Set<RunningRequest>();
  readonly connections = new Set<DownstreamConnection>();
  readonly passthroughs = new Set<PassthroughConnection>();
  readonly #detecting = new Set<Detecting>();
  #draining = false;

  constructor(options: HttpPlaneOptions) {
    const { clock } = options;
    this.nowMs = () => clock.monotonicMs();
    this.wallMs = () => clock.wallMs();
    this.due = new DueList(this.nowMs);
    this.random = options.random;
    this.labels = options.labels;
    this.dialer = options.dialer;
    this.names = options.names;
    this.clientCertificate = () => options.l7.waypoint(options.waypoint)?.clientCertificate ?? null;
    this.egressRefusal = (ip, allowPrivate) => egressRefusal(options, ip, allowPrivate);
    this.self = options.self;
    this.tokens = options.tokens;
    this.logins = options.logins;
    this.sessionSigner = options.sessionSigner;
    this.ruleTelling = options.ruleTelling;
    this.observer = options.observer;
    this.budget = options.budget;
    this.pathNormalisation = options.pathNormalisation;
    this.host = { due: this.due, budget: options.budget, nowMs: this.nowMs, http1Counters: new Http1Counters(), http2Settings: BOTH, http2Limits: DEFAULT_LIMITS };
    this.directory = new ServiceDirectory(options.store, options.network);
    this.views = new ServiceViews(this.directory, options.l7, options.waypoint, (effective) => options.observer.telemetryOf(effective));
    this.clusters = new Clusters(this, options.l7);
  }

  /** A client, for the port that its destination names. Sets the channel's user before it returns. */
  accept(channel: ChannelWithUser, client: Client): void {
    const { service } = this.views.of(client);
    const declared = service === null ? "http" : declaredProtocol(service, client.destination.port);
    if (declared === "http") this.#acceptHttp(channel, client);
    else new PassthroughConnection(this, channel, client, declared === "unknown").start();
  }

  #acceptHttp(channel: ChannelWithUser, client: Client): void {
    const detecting = new Detecting(this, channel, client, (left) => this.#detecting.delete(left));
    this.#detecting.add(detecting);
    channel.user = detecting;
    this.due.add(detecting);
  }

  /** The first bytes have told. */
  open(version: "HTTP/1" | "HTTP/2", channel: ChannelWithUser, client: Client): ChannelUser {
    const connection = version === "HTTP/2" ? new Http2Downstream(this, client, channel) : new Http1Downstream(this, client, channel);
    channel.user = connection;
    this.connections.add(connection);
    if (this.#draining) connection.drain();
    return connection;
  }

  serve(received: NewStream, client: Client): void {
    const stream = this.views.of(client).takesGrpcWeb ? withoutGrpcWeb(received) : received;
    const request = new ActiveRequest(this, stream, client);
    stream.user = request;
    request.start();
  }

  malformed(client: Client, code: string, message: string): void {
    this.observer.malformed(client, code, message);
  }

  connectionClosed(connection: DownstreamConnection): void {
    this.connections.delete(connection);
  }

  /** The stores were changed. Requests under way keep what was decided; the next one on the same connection is judged anew. */
  changed(): void {
    this.views.changed();
    this.clusters.changed();
    for (const connection of [...this.passthroughs]) connection.judgeAgain();
  }

  tick(): void {
    this.clusters.tick(this.nowMs());
    for (const connection of this.passthroughs) connection.count();
  }

  /**
   * Clients are told to go elsewhere; requests under way may end by themselves. Whoever has connected and not yet asked is still heard:
   * its request is on its way.
   */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    for (const connection of [...this.connections]) connection.drain();
    for (const detecting of [...this.#detecting]) detecting.drain();
  }

  /** Somebody is connected. */
  get holdsClients(): boolean {
    return this.connections.size + this.passthroughs.size + this.#detecting.size > 0;
  }

  /** Everything ends now. */
  destroy(): void {
    this.drain();
    for (const request of [...this.requests]) request.destroy();
    for (const connection of [...this.connections]) connection.destroy();
    for (const detecting of [...this.#detecting]) detecting.destroy();
    for (const connection of [...this.passthroughs]) connection.destroy("the waypoint is stopping");
    this.clusters.destroy();
    this.due.close();
  }
}

/** A connection whose first bytes are awaited. */
class Detecting implements ChannelUser, Due {
  dueMs: number;
  dueIndex = -1;
  readonly #plane: HttpPlane;
  readonly #channel: ChannelWithUser;
  readonly #client: Client;
  readonly #left: (self: Detecting) => void;
  #bytes: Uint8Array | null = null;

  constructor(plane: HttpPlane, channel: ChannelWithUser, client: Client, left: (self: Detecting) => void) {
    this.#plane = plane;
    this.#channel = channel;
    this.#client = client;
    this.#left = left;
    this.dueMs = plane.nowMs() + CLIENT_IDLE_MS;
  }

  onBytes(chunk: Uint8Array): void {
    const bytes = this.#bytes === null ? chunk : Buffer.concat([this.#bytes, chunk]);
    const detected = detect(bytes, "HTTP");
    if (detected === null) {
      if (this.#bytes === null) this.#dueIn(HEAD_MS);
      this.#bytes = new Uint8Array(bytes);
      return;
    }
    this.#leave();
    this.#plane.open(detected === "HTTP/2" ? "HTTP/2" : "HTTP/1", this.#channel, this.#client).onBytes(bytes);
  }

  onWritable(): void {}

  onPeerEnd(): void {
    this.destroy();
  }

  onChannelClosed(): void {
    this.#leave();
  }

  onDue(): void {
    this.destroy();
  }

  drain(): void {
    this.#dueIn(DRAIN_IDLE_MS);
  }

  destroy(): void {
    this.#leave();
    this.#channel.destroy();
  }

  #dueIn(ms: number): void {
    this.dueMs = Math.min(this.dueMs, this.#plane.nowMs() + ms);
    this.#plane.due.sooner(this);
  }

  #leave(): void {
    this.#plane.due.remove(this);
    this.#left(this);
  }
}
