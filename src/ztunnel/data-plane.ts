// One data thread's whole state: what it was told, what it has attached, and the ticking of its deadlines.
// Talks to the main thread by messages only, so it runs in a Worker, in the main thread, or in a test.

import type { WorkloadUid } from "../core/brand.ts";
import { type Clock, type Random } from "../core/ports.ts";
import { clearBufferPool } from "../wire/http/output-buffer.ts";
import { MeshStore, type StoreChange } from "../mesh/store.ts";
import { SocketReserve } from "../net/socket-reserve.ts";
import { Balancer } from "../policy/balance.ts";
import { type CloseCause, causes } from "../tunnel/close-cause.ts";
import type { DataPlaneContext } from "./context.ts";
import { adoptListener, closeFd, type Listener } from "../tunnel/endpoint-socket.ts";
import { InboundPlace } from "./inbound.ts";
import { InboundPlaintext } from "./inbound-plaintext.ts";
import type { LiveConnection, LiveConnectionDescription } from "../tunnel/live-connection.ts";
import { type LocalWorkload, LocalWorkloads } from "./local-workloads.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import { Pulse } from "../runtime/thread-pulse.ts";
import type { ThreadAnswer } from "../runtime/worker-threads.ts";
import type { FromData, ToData, WorkloadListeners } from "./messages.ts";
import { OutboundConnection } from "./outbound.ts";
import { NameResolver } from "../tunnel/name-resolver.ts";
import { ThreadTunnels } from "../tunnel/thread-tunnels.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { Reporter } from "./report.ts";
import { Stakes } from "./stakes.ts";

/** How often deadlines are looked at: their precision. */
const DEADLINE_TICK_MS = 100;
/** How often tunnels are looked at for keep-alive, idleness and age. */
const TUNNEL_TICK_MS = 1000;

/** Memory that the main thread looks at too. */
export interface SharedMemory {
  readonly logCredit?: SharedArrayBuffer | null;
  readonly pulse?: SharedArrayBuffer | null;
}

export class DataPlane {
  readonly #context: DataPlaneContext;
  readonly #post: (message: FromData | ThreadAnswer) => void;
  readonly #tunnels: ThreadTunnels;
  readonly #released = new Set<LocalWorkload>();
  readonly #stakes: Stakes;
  #draining: { untilMs: number } | null = null;
  #lastTunnelTickMs = 0;
  readonly #pulse: Pulse | null;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(config: DataPlaneConfig, world: { clock: Clock; random: Random }, post: (message: FromData | ThreadAnswer) => void, shared: SharedMemory = {}) {
    this.#post = post;
    const store = new MeshStore();
    this.#stakes = new Stakes(store);
    const nowMs = (): number => world.clock.monotonicMs();
    const reporter = new Reporter(config, world, post, shared.logCredit ?? null);
    this.#tunnels = new ThreadTunnels({ config, clock: world.clock, reporter, needSvid: (spiffeId) => post({ kind: "needSvid", spiffeId, priority: "realtime" }) });
    this.#context = {
      ...this.#tunnels.context,
      random: world.random,
      store,
      balancer: new Balancer({ random: world.random }),
      locals: new LocalWorkloads(),
      reporter,
      names: new NameResolver({ random: world.random, nowMs }),
    };
    this.#pulse = shared.pulse == null ? null : new Pulse(shared.pulse, DEADLINE_TICK_MS);
    this.#timer = setInterval(() => this.#tick(), DEADLINE_TICK_MS);
  }

  receive(message: ToData): void {
    const { store, pool, locals } = this.#context;
    switch (message.kind) {
      case "configure":
        return; // the first message builds this object
      case "mesh": {
        const change = store.follow(message.news);
        for (const uid of change.workloadsRemoved) pool.retireDestination(uid);
        for (const uid of change.workloadsChanged) this.#context.balancer.workloadChanged(uid);
        this.#judgeAgain(change);
        return;
      }
      case "svid":
      case "svidFailed":
      case "svidDropped":
      case "revoked":
        return this.#tunnels.take(message);
      case "attach":
        return this.#answer(message.question, this.#attach(message.uid, message.namespaceFd, message.listeners));
      case "detach": {
        const local = locals.get(message.uid);
        if (local !== undefined) this.#detach(local, message.mode);
        return;
      }
      case "snapshot":
        return this.#answer(message.question, message.what === "metrics" ? this.#metrics() : this.#connections());
      case "collectGarbage":
        clearBufferPool();
        return Bun.gc(true);
      case "drain":
        return this.#drain(message.deadlineMs);
    }
  }

  /** For tests and shutdown: stops the clockwork; sockets are closed by drain. */
  dispose(): void {
    clearInterval(this.#timer);
  }

  #answer(question: string, value: unknown): void {
    this.#post({ kind: "answer", question, value });
  }

  /** @returns null, or why a listener could not be had. */
  #attach(uid: WorkloadUid, namespaceFd: number, listeners: WorkloadListeners): string | null {
    const { locals } = this.#context;
    const before = locals.get(uid);
    if (before !== undefined) this.#detach(before, "released");
    const adopted: Listener[] = [];
    const connections = new Set<LiveConnection>();
    const local: LocalWorkload = {
      uid,
      namespaceFd,
      sockets: new SocketReserve(namespaceFd, this.#context.config.packetMark),
      connections,
      stopAccepting: () => {
        for (const listener of adopted.splice(0)) listener.stop();
      },
    };
    try {
      for (const fd of listeners.outboundFds) adopted.push(adoptListener(fd, () => new OutboundConnection(this.#context, local)));
      for (const fd of listeners.inboundPlaintextFds) adopted.push(adoptListener(fd, () => new InboundPlaintext(this.#context, local)));
      for (const fd of listeners.inboundHboneFds) adopted.push(this.#tunnels.listen(fd, new InboundPlace(this.#context, local)));
    } catch (error) {
      local.stopAccepting();
      return `a listener could not be adopted: ${error instanceof Error ? error.message : String(error)}`;
    }
    locals.add(local);
    return null;
  }

  #detach(local: LocalWorkload, mode: "gone" | "released"): void {
    local.stopAccepting();
    this.#context.locals.delete(local.uid);
    this.#context.pool.retireNamespace(local.namespaceFd);
    if (mode === "gone") this.#destroyAll([...local.connections], causes.workloadGone);
    for (const tunnel of [...this.#tunnels.accepted]) if (tunnel.place.connections === local.connections) tunnel.drain();
    this.#released.add(local);
    this.#closeReleased();
  }

  /** The namespace of a released workload is needed until its last connection has ended. */
  #closeReleased(): void {
    for (const local of this.#released) {
      if (local.connections.size > 0) continue;
      this.#released.delete(local);
      if (this.#context.locals.get(local.uid) === undefined) this.#stakes.forget(local.uid);
      local.sockets.close();
      closeFd(local.namespaceFd);
      this.#post({ kind: "released", uid: local.uid, namespaceFd: local.namespaceFd });
    }
  }

  #judgeAgain(change: StoreChange): void {
    // All are asked first: a workload may be here twice, attached anew while what it had goes on.
    const locals = this.#everyLocal();
    const concerned = new Set<WorkloadUid>();
    for (const uid of new Set(locals.map((local) => local.uid))) if (this.#stakes.concerns(uid, change)) concerned.add(uid);
    for (const local of locals) if (concerned.has(local.uid)) for (const connection of [...local.connections]) connection.judgeAgain();
  }

  #everyLocal(): LocalWorkload[] {
    return [...this.#context.locals, ...this.#released];
  }

  #tick(): void {
    const nowMs = this.#context.nowMs();
    this.#pulse?.beat(nowMs);
    this.#tunnels.tickDeadlines(nowMs);
    this.#context.reporter.tick(nowMs);
    if (nowMs - this.#lastTunnelTickMs >= TUNNEL_TICK_MS) {
      this.#lastTunnelTickMs = nowMs;
      this.#tunnels.tick(nowMs);
      for (const local of this.#everyLocal()) local.sockets.tick(nowMs);
      this.#closeReleased();
    }
    if (this.#draining !== null) this.#finishDrain(nowMs);
  }

  /** Listeners close at once, peers are told by GOAWAY, connections may end by themselves until the deadline. Asked again: an earlier one counts. */
  #drain(deadlineMs: number): void {
    const untilMs = this.#context.nowMs() + deadlineMs;
    if (this.#draining !== null) {
      this.#draining.untilMs = Math.min(this.#draining.untilMs, untilMs);
      return this.#answer("closed", null);
    }
    this.#draining = { untilMs };
    for (const local of this.#context.locals) local.stopAccepting();
    this.#answer("closed", null);
    this.#tunnels.drain();
    this.#context.pool.retireAll();
    this.#finishDrain(this.#context.nowMs());
  }

  #finishDrain(nowMs: number): void {
    const live = this.#everyLocal().flatMap((local) => [...local.connections]);
    if (live.length > 0 && nowMs < this.#draining!.untilMs) return;
    this.#destroyAll(live, causes.drained);
    this.#draining = null;
    this.#context.reporter.flush();
    this.#answer("drained", live.length);
  }

  #destroyAll(connections: readonly LiveConnection[], cause: CloseCause): void {
    for (const connection of connections) connection.destroy(cause);
  }

  #connections(): { uid: WorkloadUid; connections: LiveConnectionDescription[] }[] {
    return [...this.#context.locals].map((local) => ({
      uid: local.uid,
      connections: [...local.connections].map((connection) => connection.describe()).filter((description) => description !== null),
    }));
  }

  #metrics(): MetricsSnapshot {
    const { reporter, balancer } = this.#context;
    return reporter.snapshot(this.#tunnels.gauges(), balancer.ejectedCount);
  }
}
