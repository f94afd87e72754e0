// The delta form of AggregatedDiscoveryService, for ztunnels (ours and Istio's) and for our waypoints. One stream a client:
//
//   who calls (token or certificate) → who it says it is → may it be that → requests in, responses out as the client takes them
//
// The library pulls one response after the other as the connection takes them, and each is made when it is pulled (session.ts): a client
// that does not read has one response in flight and no queue. The other form of ADS serves one type alone, for who looks after the mesh
// (sync-status.ts).

import { Code, ConnectError, type ConnectRouter, type ContextValues, createContextKey, createContextValues, type HandlerContext } from "@connectrpc/connect";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Clock, Random } from "../core/ports.ts";
import { atOnce, inTurns, type Steps } from "../core/steps.ts";
import { parseSpiffeId, type SpiffeId } from "../core/spiffe.ts";
import type { Timers } from "../net/timers.ts";
import { AggregatedDiscoveryService, type DeltaDiscoveryRequest, type DeltaDiscoveryResponseSchema, type DiscoveryRequest, type DiscoveryResponseSchema } from "../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { readNode } from "./node-message.ts";
import type { Authenticator, ClientStatus, ClientView, PublishedState, XdsCaller, XdsServing } from "./serving.ts";
import { ClientConnection } from "./server/client-connection.ts";
import { SendBudget } from "./server/send-budget.ts";
import { type Outgoing, Session, type SessionFault } from "./server/session.ts";
import { type ReplicaFacts, SYNC_TYPE, syncStatus } from "./server/sync-status.ts";
import { REMOVED_MAX, World } from "./server/world.ts";

/**
 * One request. The first for a type names everything that the client has: at a million names of 150 bytes, with their versions, this is
 * not reached. Only who has shown who it is may send one.
 */
export const REQUEST_BYTES_MAX = 256 * 1024 * 1024;
/** Records and removals of a state that is published without a pause: some milliseconds in which nobody else is served. */
const PUBLISHED_AT_ONCE_MAX = 250;
/** Of a larger one, without a pause. */
const SLICE_MS = 10;
/** Responses made and not on the wire yet, over all clients: the first responses to several nodes of a large mesh. */
export const SENDING_BYTES_MAX = 256 * 1024 * 1024;
/** A client that takes nothing for this long while others wait is ended: it comes back with what it has. */
export const STALLED_MS = 60_000;
/** A stream is ended after this, so that its token is looked at again and clients spread over the replicas. Istiod has the same. */
export const STREAM_AGE_MS = 30 * 60_000;
/** Up to this share is added by chance, so that clients that came together do not come back together. */
const STREAM_AGE_JITTER = 0.2;
export const CLIENTS_MAX = 10_000;
const STALLED_LOOK_MS = 5_000;
/** A client says who it is at once. */
export const FIRST_REQUEST_MS = 10_000;
/** A question about the clients is one name. */
const STATUS_REQUEST_BYTES_MAX = 64 * 1024;
/** Who asks about the clients has the answer and goes; each answer is as large as there are clients. */
export const STATUS_STREAMS_MAX = 16;
const STATUS_STREAM_MS = 60_000;
/** HTTP/2's error code CANCEL. */
const RST_CANCEL = 8;

export interface XdsServerOptions {
  readonly replica: ReplicaFacts;
  readonly authenticate: Authenticator;
  readonly clock: Clock;
  readonly random: Random;
  readonly timers: Timers;
  readonly onEvent: (event: XdsServerEvent) => void;
  /** SENDING_BYTES_MAX unless given. */
  readonly sendingBytesMax?: number;
}

export type XdsServerEvent =
  | { readonly kind: "connected"; readonly id: string; readonly caller: string; readonly peer: string }
  | { readonly kind: "disconnected"; readonly id: string; readonly reason: string }
  | { readonly kind: "refused"; readonly id: string; readonly message: string }
  | { readonly kind: "rejected"; readonly id: string; readonly typeUrl: string; readonly message: string }
  /** A fault of ours: a record that cannot be sent. */
  | { readonly kind: "fault"; readonly message: string };

export interface XdsServerCounters {
  streams: number;
  refused: number;
  responses: number;
  resources: number;
  removals: number;
  bytes: number;
  /** Responses that a client refused in part or whole. */
  rejected: number;
  /** Clients ended because they took nothing. */
  stalled: number;
}

interface PeerFacts {
  readonly peer: string;
  readonly certificateId: SpiffeId | null;
  /** Ends the stream under way, whatever its state. */
  readonly cut: () => void;
}
const PEER = createContextKey<PeerFacts>({ peer: "", certificateId: null, cut: () => {} });

export class XdsServer implements XdsServing {
  readonly counters: XdsServerCounters = { streams: 0, refused: 0, responses: 0, resources: 0, removals: 0, bytes: 0, rejected: 0, stalled: 0 };
  readonly #options: XdsServerOptions;
  readonly #world: World;
  readonly #connections = new Set<ClientConnection>();
  readonly #budget: SendBudget;
  /** Of what was handed over last; null when all of it is done. */
  #publishing: Promise<void> | null = null;
  readonly #ending = new AbortController();
  #statusStreams = 0;
  #cancelLook: (() => void) | null = null;

  constructor(options: XdsServerOptions) {
    this.#options = options;
    this.#budget = new SendBudget(options.sendingBytesMax ?? SENDING_BYTES_MAX);
    this.#world = new World((message) => options.onEvent({ kind: "fault", message }), (steps) => void this.#afterPublishing(() => this.#makeReady(steps)));
  }

  readonly routes = (router: ConnectRouter): void => {
    const { deltaAggregatedResources, streamAggregatedResources } = AggregatedDiscoveryService.method;
    router.rpc(deltaAggregatedResources, (requests, context) => this.#stream(requests, context), { readMaxBytes: REQUEST_BYTES_MAX, acceptCompression: [] });
    router.rpc(streamAggregatedResources, (requests, context) => this.#statusStream(requests, context), { readMaxBytes: STATUS_REQUEST_BYTES_MAX, acceptCompression: [] });
  };

  readonly contextValues = (request: { readonly socket: object; readonly stream?: object }): ContextValues => createContextValues().set(PEER, peerFacts(request));

  get publishedState(): number {
    return this.#world.state;
  }

  /** Bytes of responses that are being sent now. */
  get sendingBytes(): number {
    return this.#budget.usedBytes;
  }

  /** Resolves when it is what clients are told: at once for a small change, else when what else there is to do has had its turns. In their order. */
  async publish(state: PublishedState): Promise<void> {
    if (this.#publishing === null && sizeOf(state) <= PUBLISHED_AT_ONCE_MAX) {
      this.#world.publish(state);
      return atOnce(this.#published());
    }
    await this.#afterPublishing(async () => {
      if ((await this.#inTurns(this.#world.publishing(state))) !== null) await this.#inTurns(this.#published());
    });
  }

  /** One after the other, as they came: what is published meanwhile waits. */
  async #afterPublishing(run: () => Promise<void>): Promise<void> {
    const done = (this.#publishing ?? Promise.resolve()).then(run);
    this.#publishing = done;
    await done;
    if (this.#publishing === done) this.#publishing = null;
  }

  async #makeReady(steps: Steps<void>): Promise<void> {
    await this.#inTurns(steps);
    for (const connection of this.#connections) connection.wake();
  }

  #inTurns(steps: Steps<void>): Promise<{ readonly made: void } | null> {
    const { clock } = this.#options;
    return inTurns(steps, SLICE_MS, { nowMs: () => clock.monotonicMs(), turn: () => new Promise((resolve) => setImmediate(resolve)) }, this.#ending.signal);
  }

  /** Everybody may hear of it, and what everybody has been told is forgotten. */
  *#published(): Steps<void> {
    for (const connection of this.#connections) connection.wake();
    yield* this.#forgetRemovals();
  }

  clients(): ClientStatus[] {
    return [...this.#connections].map(({ status }) => status);
  }

  close(): void {
    this.#ending.abort();
    for (const connection of this.#connections) connection.end(new ConnectError("this replica ends; others serve", Code.Unavailable));
  }

  async *#stream(requests: AsyncIterable<DeltaDiscoveryRequest>, context: HandlerContext): AsyncGenerator<MessageInitShape<typeof DeltaDiscoveryResponseSchema>> {
    const incoming = requests[Symbol.asyncIterator]();
    const caller = await this.#authenticate(context);
    const first = await this.#firstOf(incoming, context);
    if (first.done === true) return;
    const connection = this.#admit(first.value, caller, context);
    try {
      this.#take(connection, first.value);
      void this.#readAll(incoming, connection);
      for (;;) {
        if (connection.ended) {
          if (connection.error !== null) throw connection.error;
          return;
        }
        const outgoing = connection.session.next();
        if (outgoing === null) {
          await connection.news();
          continue;
        }
        connection.sending(await this.#room(outgoing.bytes), this.#options.clock.monotonicMs());
        this.#count(outgoing);
        // Comes back when the connection has taken it.
        yield outgoing.message;
        connection.sent();
      }
    } finally {
      connection.end(null);
    }
  }

  async *#statusStream(requests: AsyncIterable<DiscoveryRequest>, context: HandlerContext): AsyncGenerator<MessageInitShape<typeof DiscoveryResponseSchema>> {
    const { timers } = this.#options;
    const caller = await this.#authenticate(context);
    const refusal = caller.statusRefusal();
    if (refusal !== null) throw this.#refuse(caller.name, Code.PermissionDenied, refusal);
    if (this.#statusStreams >= STATUS_STREAMS_MAX) throw this.#refuse(caller.name, Code.ResourceExhausted, `${STATUS_STREAMS_MAX} ask for the clients' status already; ask again`);
    this.#statusStreams++;
    const cancel = timers.after(STATUS_STREAM_MS, context.values.get(PEER).cut);
    try {
      const incoming = requests[Symbol.asyncIterator]();
      const sent = new Set<string>();
      for (let next = await this.#firstOf(incoming, context); next.done !== true; next = await incoming.next()) {
        const { typeUrl, responseNonce } = next.value;
        if (typeUrl !== SYNC_TYPE) throw this.#refuse(caller.name, Code.InvalidArgument, `in this form of ADS ${SYNC_TYPE} alone is served, asked was ${JSON.stringify(typeUrl.slice(0, 200))}; agents use the delta form`);
        if (sent.has(responseNonce)) continue;
        const nonce = String(sent.size + 1);
        sent.add(nonce);
        yield syncStatus(this.clients(), this.#options.replica, nonce);
      }
    } finally {
      cancel();
      this.#statusStreams--;
    }
  }

  /** Who says nothing is cut off: streams that are open and idle may not fill the port. */
  async #firstOf<T>(incoming: AsyncIterator<T>, context: HandlerContext): Promise<IteratorResult<T>> {
    const cancel = this.#options.timers.after(FIRST_REQUEST_MS, context.values.get(PEER).cut);
    try {
      return await incoming.next();
    } finally {
      cancel();
    }
  }

  /** Room to send in. While there is none, whoever takes nothing gives way. */
  async #room(bytes: number): Promise<Disposable> {
    const permit = this.#budget.take(bytes);
    if (this.#budget.waitingCount === 0) return await permit;
    this.#endStalled();
    this.#cancelLook ??= this.#options.timers.after(STALLED_LOOK_MS, () => this.#lookForStalled());
    return await permit;
  }

  #lookForStalled(): void {
    this.#cancelLook = null;
    this.#endStalled();
    if (this.#budget.waitingCount > 0) this.#cancelLook = this.#options.timers.after(STALLED_LOOK_MS, () => this.#lookForStalled());
  }

  #count({ message, bytes }: Outgoing): void {
    this.counters.responses++;
    this.counters.resources += message.resources?.length ?? 0;
    this.counters.removals += message.removedResources?.length ?? 0;
    this.counters.bytes += bytes;
  }

  async #authenticate(context: HandlerContext): Promise<XdsCaller> {
    const { certificateId, peer } = context.values.get(PEER);
    const header = context.requestHeader.get("authorization");
    const bearerToken = header === null ? null : (/^Bearer ([\x21-\x7e]+)$/i.exec(header)?.[1] ?? null);
    const credentials = { bearerToken, certificateId, clusterId: context.requestHeader.get("clusterid") ?? "" };
    const authenticated = await this.#options.authenticate.authenticate(credentials).catch((cause: unknown) => {
      throw this.#refuse(peer, Code.Unavailable, `the credentials could not be checked, try again: ${cause instanceof Error ? cause.message : String(cause)}`);
    });
    if (!authenticated.ok) throw this.#refuse(peer, Code.Unauthenticated, authenticated.error);
    return authenticated.value;
  }

  #admit(request: DeltaDiscoveryRequest, caller: XdsCaller, context: HandlerContext): ClientConnection {
    const { peer, cut } = context.values.get(PEER);
    const node = readNode(request.node);
    if (!node.ok) throw this.#refuse(caller.name, Code.InvalidArgument, node.error);
    const identity = node.value;
    const refusal = caller.refusal(identity.view);
    if (refusal !== null) throw this.#refuse(identity.id, Code.PermissionDenied, refusal);
    if (this.#ending.signal.aborted || this.#connections.size >= CLIENTS_MAX) throw this.#refuse(identity.id, Code.Unavailable, this.#ending.signal.aborted ? "this replica ends; others serve" : `${CLIENTS_MAX} clients are served already`);
    const { clock, random, timers, onEvent } = this.#options;
    const cancelAge = timers.after(STREAM_AGE_MS * (1 + random.next() * STREAM_AGE_JITTER), () => connection.end(null));
    const connection: ClientConnection = new ClientConnection({
      identity, caller, peer, connectedMs: clock.wallMs(), session: new Session(this.#world, identity.view, () => clock.wallMs()),
      onEnd: (error) => {
        cancelAge();
        this.#connections.delete(connection);
        this.#forgetView(identity.view);
        if (error?.code === Code.ResourceExhausted) cut();
        onEvent({ kind: "disconnected", id: identity.id, reason: error?.rawMessage ?? "the stream ended" });
      },
    });
    // Also when a response is in flight that will never be taken.
    context.signal.addEventListener("abort", () => connection.end(null), { once: true });
    this.#connections.add(connection);
    this.counters.streams++;
    onEvent({ kind: "connected", id: identity.id, caller: caller.name, peer });
    return connection;
  }

  async #readAll(incoming: AsyncIterator<DeltaDiscoveryRequest>, connection: ClientConnection): Promise<void> {
    try {
      for (let next = await incoming.next(); next.done !== true; next = await incoming.next()) this.#take(connection, next.value);
      connection.end(null);
    } catch (cause) {
      connection.end(ConnectError.from(cause));
    }
  }

  #take(connection: ClientConnection, request: DeltaDiscoveryRequest): void {
    const { session, identity } = connection;
    if (request.errorDetail !== undefined) {
      this.counters.rejected++;
      this.#options.onEvent({ kind: "rejected", id: identity.id, typeUrl: request.typeUrl, message: request.errorDetail.message });
    }
    const fault = session.request(request);
    if (fault !== null) connection.end(new ConnectError(fault.message, STATUS[fault.code]));
    connection.wake();
  }

  #refuse(id: string, code: Code, message: string): ConnectError {
    this.counters.refused++;
    this.#options.onEvent({ kind: "refused", id, message });
    return new ConnectError(message, code);
  }

  #forgetView(view: ClientView): void {
    if (view.kind !== "waypoint") return;
    for (const { identity } of this.#connections) if (identity.view.kind === "waypoint" && identity.view.gateway === view.gateway) return;
    this.#world.forgetWaypoint(view.gateway);
  }

  /** Others wait for room: who has taken nothing for long gives way. */
  #endStalled(): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const connection of this.#connections) {
      if (connection.sendingSinceMs === null || nowMs - connection.sendingSinceMs < STALLED_MS) continue;
      this.counters.stalled++;
      connection.end(new ConnectError(`nothing was taken for ${STALLED_MS} ms while others wait`, Code.ResourceExhausted));
    }
  }

  *#forgetRemovals(): Steps<void> {
    const tables = [this.#world.addresses, this.#world.policies];
    if (tables.every(({ removedCount }) => removedCount === 0)) return;
    let told = this.#world.state;
    const behind: ClientConnection[] = [];
    for (const connection of this.#connections) {
      const state = connection.session.removalsToldState;
      if (state < this.#world.state) behind.push(connection);
      told = Math.min(told, state);
    }
    if (tables.some(({ removedCount }) => removedCount > REMOVED_MAX)) {
      for (const connection of behind) connection.end(new ConnectError("too far behind to be told what is gone; begin again with what you have", Code.ResourceExhausted));
      told = this.#world.state;
    }
    for (const table of tables) yield* table.forgetRemoved(told);
  }
}

/** Records and removals for ztunnels. */
const sizeOf = ({ delta }: PublishedState): number => Object.values(delta).reduce((sum, part: readonly unknown[]) => sum + part.length, 0);

const STATUS: Readonly<Record<SessionFault["code"], Code>> = { unknown_type: Code.InvalidArgument, too_many_names: Code.ResourceExhausted, not_for_nodes: Code.PermissionDenied };

/** Of a TLS socket with a client certificate that its server has verified, and any other socket. */
function peerFacts({ socket, stream }: { readonly socket: object; readonly stream?: object }): PeerFacts {
  const peer = "remoteAddress" in socket && "remotePort" in socket ? `${String(socket.remoteAddress)} ${String(socket.remotePort)}` : "";
  const cut = (): void => {
    if (stream !== undefined && "close" in stream && typeof stream.close === "function") stream.close(RST_CANCEL);
  };
  if (!("authorized" in socket) || socket.authorized !== true || !("getPeerCertificate" in socket) || typeof socket.getPeerCertificate !== "function") return { peer, cut, certificateId: null };
  const certificate: unknown = socket.getPeerCertificate();
  const names = typeof certificate === "object" && certificate !== null && "subjectaltname" in certificate ? String(certificate.subjectaltname) : "";
  return { peer, cut, certificateId: names.startsWith("URI:") ? (parseSpiffeId(names.slice("URI:".length))?.id ?? null) : null };
}
