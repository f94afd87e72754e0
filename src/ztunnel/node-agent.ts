// The main thread of a node: wires configuration, certificates and workloads to the data threads. Composition only; each
// part decides for itself.

import { namespacedName, type WorkloadUid } from "../core/brand.ts";
import { type Clock, type Random } from "../core/ports.ts";
import { err, ok, type Result } from "../core/result.ts";
import { type SpiffeId, spiffeId } from "../core/spiffe.ts";
import type { CertificateSource } from "../identity/certificate-source.ts";
import { createRequest } from "../identity/csr.ts";
import { SvidCache, type SvidStore } from "../identity/svid-cache.ts";
import { RETREAT_MS } from "../net/listener-retreat.ts";
import { systemTimers } from "../net/timers.ts";
import type { Svid } from "../identity/svid.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { MeshDelta, PortMapping, Service, Workload } from "../mesh/records.ts";
import type { MeshStore } from "../mesh/store.ts";
import type { ConnectionMetrics } from "../telemetry/connection-metrics.ts";
import type { LineBytes } from "../telemetry/log-batch.ts";
import { dnsCounters } from "./dns/dns-counters.ts";
import { ownResolvConfPaths, ResolverFiles } from "./dns/resolver-files.ts";
import { secureRandom } from "./dns/secure-random.ts";
import { WorkloadDns } from "./dns/workload-dns.ts";
import type { LocalWorkloadState } from "../runtime/config-dump.ts";
import type { LiveConnectionDescription } from "../tunnel/live-connection.ts";
import { DataThreads } from "./data-threads.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import { keepaliveOf } from "../tunnel/context.ts";
import { type InheritedSockets, type NamedSocket, socketName } from "../runtime/inherited-sockets.ts";
import type { Redirection } from "./redirection.ts";
import { type AttachFailure, LEAVE_MS, WorkloadAttacher } from "./workload-attacher.ts";

/**
 * How long a workload that joins waits for its certificate before its CNI agent is told that there is none yet, and asks again. More than a CA
 * of the cluster takes; others of the node wait behind it.
 */
export const CERTIFICATE_MS = 1_000;

export interface NodeAgentOptions {
  readonly dataPlane: DataPlaneConfig;
  /** One of each data thread. */
  readonly pulses: readonly SharedArrayBuffer[];
  /** Names this process in the redirection rules. */
  readonly owner: string;
  readonly dnsCapture: boolean;
  readonly redirection: Redirection;
  /** False: no IPv6 addresses are answered by DNS. */
  readonly ipv6: boolean;
  /** Counters of the main thread. */
  readonly metrics: ConnectionMetrics;
  /** Shared with the writer of the access log. */
  readonly logCredit: SharedArrayBuffer | null;
  /** The main thread's view of the mesh, which the data threads follow. */
  readonly store: MeshStore;
  /** Who applies changes to it: the source that they come from, before it tells of them, or the agent. */
  readonly storeFollows: "source" | "agent";
  readonly source: CertificateSource;
  readonly svidStore: SvidStore | null;
  /** Certificates of an earlier run, already checked. */
  readonly restored: readonly Svid[];
  readonly svidLifetimeMs: number;
  /** Sockets from before this process. */
  readonly inherited: InheritedSockets;
  readonly clock: Clock;
  readonly random: Random;
  readonly events: NodeAgentEvents;
}

/** Workloads that are not in the mesh, in words. */
export interface PendingWorkloads {
  /** Being attached for the first time: what keeps the node from being ready. */
  readonly first: readonly string[];
  /** Failed, with the reason, and tried again: nobody waits for them. */
  readonly failed: readonly string[];
}

export interface NodeAgentEvents {
  /** Access log lines, ready to be written. */
  accessLog(lines: LineBytes, lineCount: number): void;
  warning(code: string, message: string): void;
  info(code: string, message: string): void;
  debug(message: string, fields: Readonly<Record<string, string | number>>): void;
  /** A certificate was renewed or came in; its issuers may be new. */
  certificatePublished(): void;
  /** Identities of workloads here that have no certificate yet and may get one; told when that may have changed. */
  certificatesAwaited(identities: readonly SpiffeId[]): void;
  /** Which workloads are not attached has changed. */
  pendingChanged(pending: PendingWorkloads): void;
  /** Sockets of workloads that a service manager may keep, and names of those that are closed for good. */
  socketsOpened(sockets: readonly NamedSocket[]): void;
  socketsClosing(names: readonly string[]): void;
  /** A data thread died: the process must end, so that its supervisor starts it anew. */
  fatal(error: Error): void;
}

export class NodeAgent {
  readonly #options: NodeAgentOptions;
  readonly #threads: DataThreads;
  readonly #svids: SvidCache;
  readonly #attacher: WorkloadAttacher;
  /** The main thread's view: for DNS, the admin port, and the identities of local workloads. */
  readonly store: MeshStore;
  readonly #identities = new Map<WorkloadUid, SpiffeId>();
  readonly #dns = new Map<WorkloadUid, WorkloadDns>();
  /** Who wants to know what becomes of an attachment. */
  readonly #attachmentWaiters = new Map<WorkloadUid, ((failure: AttachFailure | null) => void)[]>();
  /** Resolves when an identity is told, or a certificate has come or failed. */
  #certificateNews = Promise.withResolvers<void>();
  /** What the CA was asked for last did not come, for this reason. */
  #certificateFailure: string | null = null;
  #draining = false;
  #socketsShared = true;

  private constructor(options: NodeAgentOptions, threads: DataThreads) {
    this.#options = options;
    this.#threads = threads;
    this.store = options.store;
    this.#svids = new SvidCache({
      source: options.source,
      store: options.svidStore,
      clock: options.clock,
      random: options.random,
      timers: systemTimers,
      lifetimeMs: options.svidLifetimeMs,
      createRequest,
      onPublish: (svid) => {
        threads.post({ kind: "svid", svid });
        options.events.debug("a certificate is in use", { identity: svid.spiffeId, serial: svid.serial, until: new Date(svid.notAfterMs).toISOString() });
        this.#certificatesChanged(null);
        options.events.certificatePublished();
        options.events.certificatesAwaited(this.#svids.awaited);
      },
      onDrop: (id) => {
        threads.post({ kind: "svidDropped", spiffeId: id });
        options.events.debug("a certificate is dropped", { identity: id });
      },
      onUnavailable: (id, message) => threads.post({ kind: "svidFailed", spiffeId: id, message }),
      onFailed: (_id, message) => {
        this.#certificatesChanged(message);
        options.events.warning("certificate_failed", message);
        options.events.certificatesAwaited(this.#svids.awaited);
      },
      onWarning: options.events.warning,
    });
    this.#attacher = new WorkloadAttacher({
      threads,
      packetMark: options.dataPlane.packetMark,
      owner: options.owner,
      dnsCapture: options.dnsCapture,
      redirection: options.redirection,
      keepalive: keepaliveOf(options.dataPlane),
      inherited: options.inherited,
      nowMs: () => options.clock.monotonicMs(),
      hooks: {
        started: (workload, namespaceFd, owner) => this.#startDns(workload, namespaceFd, owner),
        draining: (uid) => this.#dns.get(uid)?.drain(this.#socketsShared),
        opened: options.events.socketsOpened,
        closing: options.events.socketsClosing,
        stopped: (uid) => this.#stopDns(uid),
        left: (uid) => options.events.info("workload_left", `${uid} is out of the mesh`),
        note: (uid, note) => options.events.info("workload_note", `${uid}: ${note}`),
        step: (uid, step) => options.events.debug(step, { workload: uid }),
        report: (uid, failure) => this.#attachReported(uid, failure),
      },
    });
  }

  static async start(options: NodeAgentOptions): Promise<NodeAgent> {
    // The events need the agent, which needs the threads: the cell closes the circle.
    let agent: NodeAgent | null = null;
    const threads = await DataThreads.start({
      pulses: options.pulses,
      config: options.dataPlane,
      logCredit: options.logCredit,
      events: {
        needSvid: ({ spiffeId: id, priority }) => agent?.need(id, priority),
        released: ({ uid, namespaceFd }) => agent?.releasedByThread(uid, namespaceFd),
        log: ({ lines, lineCount }) => options.events.accessLog(lines, lineCount),
        warning: ({ code, message }) => options.events.warning(code, message),
        crashed: options.events.fatal,
      },
    });
    agent = new NodeAgent(options, threads);
    agent.#svids.restore(options.restored);
    return agent;
  }

  /** DNS of one workload, in its namespace, where it is captured. */
  async #startDns(workload: LocalWorkload, namespaceFd: number, owner: string): Promise<Result<readonly NamedSocket[], string>> {
    const { clock, dnsCapture, dataPlane, metrics, ipv6, inherited } = this.#options;
    if (!(workload.dnsCapture ?? dnsCapture)) return ok([]);
    this.#stopDns(workload.uid);
    const record = () => this.store.workload(workload.uid) ?? null;
    const files = new ResolverFiles({ own: ownResolvConfPaths(workload.networkNamespace), clock });
    const dns = new WorkloadDns({
      namespaceFd, workload: record, store: this.store, clusterDomain: dataPlane.clusterDomain, resolver: () => files.current(),
      mark: dataPlane.packetMark, ipv6, random: secureRandom, clock, metrics: dnsCounters(metrics, record),
      inherited: (role) => inherited.take(socketName(owner, role)),
    });
    const started = await dns.start();
    if (!started.ok) return err(started.error.message);
    this.#dns.set(workload.uid, dns);
    return ok(dns.sockets.map(({ role, fd }) => ({ name: socketName(owner, role), fd })));
  }

  #stopDns(uid: WorkloadUid): void {
    this.#dns.get(uid)?.stop();
    this.#dns.delete(uid);
  }

  need(id: SpiffeId, priority: "realtime" | "warmup" | "background"): void {
    // A data thread may only ask for identities that live here: what it asks for follows from its own attachments.
    this.#svids.need(id, priority);
  }

  releasedByThread(uid: WorkloadUid, namespaceFd: number): void {
    this.#attacher.releasedByThread(uid, namespaceFd);
    this.#dropIdentities();
  }

  /** Applies one change of the configuration: decisions first, captures second. */
  apply(change: { readonly delta: MeshDelta; readonly localWorkloads: readonly LocalWorkload[] }): void {
    if (this.#options.storeFollows === "agent") this.store.apply(change.delta);
    const news = this.store.news();
    if (news !== null) this.#threads.post({ kind: "mesh", news });
    if (this.#draining) return; // connections that are left are judged by the new rules; who joins or leaves is the successor's
    const captured = change.localWorkloads.filter((workload) => workload.captured);
    this.#wantIdentities(captured);
    this.#certificatesChanged(this.#certificateFailure);
    this.#options.events.certificatesAwaited(this.#svids.awaited);
    this.#attacher.want(captured, (uid) => this.store.workload(uid) !== undefined);
    this.#dropIdentities();
    this.#options.events.pendingChanged(this.pending);
  }

  get pending(): PendingWorkloads {
    const pending = this.#attacher.pending;
    return {
      first: pending.flatMap(({ uid, failure }) => (failure === null ? [`workload ${uid} is being attached`] : [])),
      failed: pending.flatMap(({ uid, failure }) => (failure === null ? [] : [`workload ${uid}: ${failure.step}: ${failure.message}`])),
    };
  }

  get pendingCount(): number {
    return this.#attacher.pending.length;
  }

  get attachedCount(): number {
    return this.#attacher.attachedCount;
  }

  /** What becomes of a captured workload: null when its listeners stand, else why they do not; then it is tried again. At once when it is known. */
  attachment(uid: WorkloadUid): Promise<AttachFailure | null> {
    const outcome = this.#attacher.outcome(uid);
    if (outcome !== undefined) return Promise.resolve(outcome);
    const { promise, resolve } = Promise.withResolvers<AttachFailure | null>();
    const waiting = this.#attachmentWaiters.get(uid);
    if (waiting === undefined) this.#attachmentWaiters.set(uid, [resolve]);
    else waiting.push(resolve);
    return promise;
  }

  /** Null when the workload's certificate is here; else why it is not, after CERTIFICATE_MS, and at once while the CA fails. */
  async certificateMissing(uid: WorkloadUid): Promise<string | null> {
    const { clock } = this.#options;
    for (const deadlineMs = clock.monotonicMs() + CERTIFICATE_MS; ; ) {
      const id = this.#identities.get(uid);
      if (id !== undefined && this.#svids.get(id) !== null) return null;
      const leftMs = deadlineMs - clock.monotonicMs();
      if (id !== undefined && this.#certificateFailure !== null) return this.#certificateFailure;
      if (leftMs <= 0) return id === undefined ? "the control plane has not told of it yet" : `the CA has not answered about ${id} yet`;
      const late = Promise.withResolvers<void>();
      const cancel = systemTimers.after(leftMs, late.resolve);
      await Promise.race([this.#certificateNews.promise, late.promise]);
      cancel();
    }
  }

  #certificatesChanged(failure: string | null): void {
    this.#certificateFailure = failure;
    this.#certificateNews.resolve();
    this.#certificateNews = Promise.withResolvers();
  }

  endpointsOf(service: Service): { readonly workload: Workload; readonly ports: readonly PortMapping[] }[] {
    const name = namespacedName(service.namespace, service.hostname);
    return this.store.endpoints(name).map(({ workload }) => ({ workload, ports: workload.services.find((membership) => membership.service === name)?.ports ?? [] }));
  }

  /** Workloads of this node with their live connections, asked of the data threads. */
  async localState(): Promise<LocalWorkloadState[]> {
    const answers = (await this.#threads.snapshot("connections")) as { uid: WorkloadUid; connections: LiveConnectionDescription[] }[][];
    const connections = new Map<WorkloadUid, LiveConnectionDescription[]>();
    for (const { uid, connections: live } of answers.flat()) connections.set(uid, [...(connections.get(uid) ?? []), ...live]);
    return this.#attacher.states.map(({ uid, state }) => ({ uid, workload: this.store.workload(uid) ?? null, state, connections: connections.get(uid) ?? [] }));
  }

  /** Those that it has. */
  get certificates(): readonly Omit<Svid, "privateKeyPem">[] {
    return this.#svids.list().flatMap(({ certificate }) => (certificate === null ? [] : [certificate]));
  }

  /** Asks for every certificate anew; how many. */
  renewCertificates(): number {
    const held = this.certificates;
    for (const { spiffeId: id } of held) this.#svids.renew(id);
    return held.length;
  }

  get svids(): SvidCache {
    return this.#svids;
  }

  get threads(): DataThreads {
    return this.#threads;
  }

  revoked(serialsByIssuer: ReadonlyMap<string, ReadonlySet<string>>): void {
    this.#threads.post({ kind: "revoked", serialsByIssuer });
  }

  // Handover, see WorkloadAttacher.

  /** Every socket of every workload in the mesh. */
  offer(): NamedSocket[] {
    return [...this.#attacher.offer().values()].flat();
  }

  thaw(): void {
    this.#attacher.thaw();
  }

  get unsettled(): string | null {
    return this.#attacher.unsettled;
  }

  claimRules(): void {
    this.#attacher.claimRules();
  }

  predecessorEnded(): void {
    this.#attacher.predecessorEnded();
  }

  /** A drain that is under way is to end earlier. */
  hurry(deadlineMs: number): void {
    this.#threads.post({ kind: "drain", deadlineMs });
  }

  /**
   * Ends the node's work: listeners close, peers are told, connections may end by themselves for `deadlineMs`.
   * @param leaveMesh true: rules are taken away, and traffic flows as if there was no mesh. False: they stay, for a successor, for the
   * next start, or to keep traffic from flowing unguarded.
   * @param socketsShared false: whoever comes next has listening sockets of its own beside ours.
   * @returns the number of connections closed by force.
   */
  async drain(deadlineMs: number, leaveMesh: boolean, socketsShared = true): Promise<number> {
    this.#draining = true;
    this.#socketsShared = socketsShared;
    this.#attacher.stop(leaveMesh);
    // Whoever comes beside us then is not beside sockets that go.
    if (socketsShared || leaveMesh) this.#attacher.releasePlaces();
    // Connections redirected before the rules went may still be in their handshake.
    if (leaveMesh && this.#attacher.attachedCount > 0) await Bun.sleep(Math.min(LEAVE_MS, deadlineMs / 2));
    const forced = socketsShared || leaveMesh ? await this.#threads.drain(deadlineMs) : await this.#drainBesideSuccessor(deadlineMs);
    this.#attacher.finish(leaveMesh);
    this.#svids.destroy();
    this.#threads.terminate();
    return forced;
  }

  /** Its listeners are in one group with ours for each port: new connections are its own before ours close, which would reset some. */
  async #drainBesideSuccessor(deadlineMs: number): Promise<number> {
    const retreatMs = this.#attacher.attachedCount > 0 ? Math.min(RETREAT_MS, deadlineMs / 2) : 0;
    const retreat = this.#attacher.retreat();
    await Bun.sleep(retreatMs);
    retreat.seal();
    for (const dns of this.#dns.values()) dns.stopListening();
    return this.#threads.drain(deadlineMs - retreatMs, () => {
      retreat.end();
      this.#attacher.releasePlaces();
    });
  }

  #wantIdentities(captured: readonly LocalWorkload[]): void {
    const wanted = new Map<WorkloadUid, SpiffeId>();
    for (const { uid } of captured) {
      const workload = this.store.workload(uid);
      if (workload !== undefined) wanted.set(uid, spiffeId(workload.trustDomain, workload.namespace, workload.serviceAccount));
    }
    // New ones first: an identity that only changes hands is not dropped in between.
    for (const [uid, id] of wanted) {
      const before = this.#identities.get(uid);
      if (before === id) continue;
      this.#svids.workloadAdded(id);
      if (before !== undefined) this.#svids.workloadRemoved(before);
      this.#identities.set(uid, id);
    }
  }

  /** A workload that has left needs its identity for as long as connections of its stay are open, or being made. */
  #dropIdentities(): void {
    for (const [uid, id] of this.#identities) {
      if (this.#attacher.holds(uid)) continue;
      this.#identities.delete(uid);
      this.#svids.workloadRemoved(id);
    }
  }

  #attachReported(uid: WorkloadUid, failure: AttachFailure | null): void {
    const waiting = this.#attachmentWaiters.get(uid) ?? [];
    this.#attachmentWaiters.delete(uid);
    for (const tell of waiting) tell(failure);
    this.#options.events.pendingChanged(this.pending);
    if (failure === null) this.#options.events.info("workload_attached", `${uid} is in the mesh`);
    else this.#options.events.warning("workload_not_attached", `${uid} could not be put into the mesh (${failure.step}): ${failure.message}; it is tried again, other workloads are not affected`);
  }
}
