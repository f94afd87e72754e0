// The main thread's side of one waypoint: its data threads, its certificates and its listeners. What decides about it (a role of its own,
// or a node that has a waypoint among its workloads) hands in the configuration.

import type { CertificateSource } from "../identity/certificate-source.ts";
import { err, ok, type Result } from "../core/result.ts";
import { MeshStore } from "../mesh/store.ts";
import { type CertificateState, dumpCertificate } from "../runtime/config-dump.ts";
import type { ConfigState } from "../runtime/config-source.ts";
import type { NamedSocket } from "../runtime/inherited-sockets.ts";
import { DRAIN_GRACE_MS } from "../runtime/leave.ts";
import { EXIT_FAILURE } from "../runtime/run-role.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { type Settings, workerThreads } from "../runtime/settings.ts";
import { ThreadWatch } from "../runtime/thread-watch.ts";
import { workerPath, WorkerThreads } from "../runtime/worker-threads.ts";
import { LogCredit } from "../telemetry/log-batch.ts";
import { MetricSeries } from "../telemetry/metric-series.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { Certificates } from "./certificates.ts";
import { Collectors } from "./collectors.ts";
import { TelemetryProblems } from "./telemetry-problems.ts";
import { makeListeners, type SocketPlace } from "./waypoint-listeners.ts";
import type { EndpointNews } from "./request/observer.ts";
import type { FromWaypoint, ToWaypoint, WaypointConfig, WaypointSnapshot } from "./messages.ts";

/** Collectors get so long for the last records: within the grace, so that the end does not wait for one that is away. */
const LAST_EXPORT_MS = 1_000;

const isBad = ({ code }: EndpointNews): boolean => code === "endpoint_ejected" || code === "endpoint_unhealthy";

export interface WaypointAgentOptions {
  readonly config: WaypointConfig;
  readonly settings: Settings;
  readonly runtime: Runtime;
  /** Holds what is told of the mesh already, for its threads to follow; null where that has to be put into one. */
  readonly store: MeshStore | null;
  /** Null: no certificates, hence no tunnels. */
  readonly source: CertificateSource | null;
  /** Where certificates are kept over restarts; null keeps none. */
  readonly svidDirectory: string | null;
  /** Where a process has several: names this one's threads; null for the only one. */
  readonly instance: string | null;
  /** Told with the first configuration and when it changes, by each thread: whether the configuration has a record of it. */
  readonly recorded: (isRecorded: boolean) => void;
}

/** Without a CA: whoever waits for a certificate is told at once. */
const NO_SOURCE = "there is nothing to open a tunnel with: give --ca-address";

export class WaypointAgent {
  readonly #options: WaypointAgentOptions;
  readonly #store: MeshStore;
  readonly #threads: WorkerThreads<ToWaypoint, FromWaypoint>;
  readonly #certificates: Certificates | null;
  readonly #collectors: Collectors;
  readonly #watch: ThreadWatch;
  readonly #series = new MetricSeries();
  readonly #telemetryProblems: TelemetryProblems;
  #questions = 0;
  #sockets: readonly NamedSocket[] = [];

  private constructor(options: WaypointAgentOptions, threads: WorkerThreads<ToWaypoint, FromWaypoint>, certificates: Certificates | null, collectors: Collectors, watch: ThreadWatch) {
    this.#watch = watch;
    this.#options = options;
    this.#store = options.store ?? new MeshStore({ followed: true });
    this.#collectors = collectors;
    this.#telemetryProblems = new TelemetryProblems(options.config.telemetry.logOptions);
    this.#threads = threads;
    this.#certificates = certificates;
  }

  static async start(options: WaypointAgentOptions): Promise<Result<WaypointAgent, string>> {
    const { runtime, settings, source, config } = options;
    const log = runtime.log.scope("waypoint");
    const credit = new LogCredit();
    const collectors = new Collectors({
      gateway: config.gateway, node: settings.node, network: settings.network, clusterId: settings.clusterId, clock: runtime.clock, random: runtime.random, log,
    });
    const watch = new ThreadWatch({
      count: workerThreads(settings), nameOf: (i) => (options.instance === null ? `data-${i}` : `${options.instance} data-${i}`), clock: runtime.clock, log,
      watchdogMs: runtime.serviceManager.watchdogMs,
    });
    let certificates: Certificates | null = null;
    const threads = new WorkerThreads<ToWaypoint, FromWaypoint>({
      count: workerThreads(settings),
      path: workerPath("waypoint", new URL("./data-thread.ts", import.meta.url)),
      received: (message) => {
        if (message.kind === "log") {
          const { length } = message.lines;
          runtime.log.accessLines(message.lines, message.lineCount, () => credit.giveBack(length));
        }
        else if (message.kind === "otlp") collectors.take(message.batches);
        else if (message.kind === "warning") log.warn(message.message, { code: message.code });
        else if (message.kind === "endpoint") (isBad(message.news) ? log.warn : log.info).call(log, message.news.message, { code: message.news.code });
        else if (message.kind === "recorded") options.recorded(message.isRecorded);
        else if (message.kind === "needSvid") {
          if (source === null) threads.post({ kind: "svidFailed", spiffeId: message.spiffeId, message: NO_SOURCE });
          else certificates?.need(message.spiffeId);
        }
      },
      crashed: (error) => {
        log.error("a data thread ended unexpectedly", { error: error.stack ?? error.message });
        runtime.lifecycle.requestStop({ message: "a data thread of a waypoint ended", successorPid: null, exitStatus: EXIT_FAILURE });
      },
    });
    // Before the certificates: those of an earlier run are given to the threads at once.
    const ready = threads.gather("ready");
    threads.postEach((i) => ({ kind: "configure", config, credits: { lines: credit.buffer, otlp: collectors.credit.buffer }, pulse: watch.pulses[i]! }));
    if (source !== null) {
      const opened = Certificates.open({ settings, runtime, threads, source, directory: options.svidDirectory });
      if (!opened.ok) {
        threads.terminate();
        collectors.close();
        watch.stop();
        return err(opened.error);
      }
      certificates = opened.value;
    }
    await ready;
    return ok(new WaypointAgent(options, threads, certificates, collectors, watch));
  }

  apply({ mesh, delta, l7Delta }: Pick<ConfigState, "mesh" | "delta" | "l7Delta">): void {
    this.#collectors.apply(mesh);
    const log = this.#options.runtime.log.scope("waypoint");
    for (const problem of this.#telemetryProblems.of(l7Delta.telemetry)) log.warn(problem, { code: "log_format" });
    if (this.#options.store === null) this.#store.apply(delta);
    this.#threads.post({ kind: "mesh", news: this.#store.news(), l7Delta });
  }

  get namespaceFd(): number {
    return this.#options.config.namespaceFd;
  }

  /** Its sockets, for whoever comes after this process; empty before `listen`. */
  get sockets(): readonly NamedSocket[] {
    return this.#sockets;
  }

  /** Each thread gets listeners of its own. @returns null, or what failed. */
  async listen(served: Settings["serve"], place: SocketPlace): Promise<string | null> {
    const made = makeListeners({ namespaceFd: this.#options.config.namespaceFd, threads: this.#threads.count, tunnels: this.#certificates !== null, served }, place);
    if (!made.ok) return made.error;
    const { threads, sockets } = made.value;
    this.#sockets = sockets;
    const listening = this.#threads.gather("listen");
    this.#threads.postEach((i) => ({ kind: "listen", listeners: threads[i]!.plain, hboneFds: threads[i]!.hboneFds }));
    return (await listening).length === this.#threads.count ? null : "a data thread did not take its listeners";
  }

  async snapshots(): Promise<readonly WaypointSnapshot[]> {
    const question = `snapshot ${++this.#questions}`;
    const answers = this.#threads.gather(question);
    this.#threads.post({ kind: "snapshot", question });
    return (await answers) as WaypointSnapshot[];
  }

  get certificates(): readonly CertificateState[] {
    return this.#certificates?.states() ?? [];
  }

  /** What its threads have at the moment, and its certificates without their keys. */
  async dump(): Promise<Readonly<Record<string, unknown>>> {
    return { certificates: this.certificates.map(dumpCertificate), threads: (await this.snapshots()).map(({ metrics: _, ...state }) => state) };
  }

  /** False while one of its data threads does not answer. */
  get allAlive(): boolean {
    return this.#watch.allAlive;
  }

  /** Nothing goes on: its threads give memory back. */
  collectGarbage(): void {
    this.#threads.post({ kind: "collectGarbage" });
  }

  /** Of all its threads, and of what leaves it for collectors. */
  async metrics(): Promise<readonly MetricsSnapshot[]> {
    this.#watch.observe(this.#series);
    const own = { connectionKeys: [], connectionValues: new Float64Array(0), cells: this.#series.snapshotCells(), histograms: [] };
    return [own, this.#collectors.snapshot(), ...(await this.snapshots()).flatMap(({ metrics }) => metrics)];
  }

  /** Asks for every certificate anew; how many. */
  renewCertificates(): number {
    return this.#certificates?.renew() ?? 0;
  }

  /** A drain that is under way is to end earlier. */
  hurry(deadlineMs: number): void {
    this.#threads.post({ kind: "drain", deadlineMs });
  }

  /** Resolves with what was closed by force, when every thread has drained. */
  async drain(deadlineMs: number): Promise<number> {
    const drained = this.#threads.gather("drained", deadlineMs + DRAIN_GRACE_MS);
    this.#threads.post({ kind: "drain", deadlineMs });
    const forced = ((await drained) as number[]).reduce((sum, count) => sum + count, 0);
    // What the threads told last has come before they said that they are done.
    await this.#collectors.drain(AbortSignal.timeout(LAST_EXPORT_MS));
    return forced;
  }

  close(): void {
    this.#threads.terminate();
    this.#collectors.close();
    this.#watch.stop();
    this.#certificates?.close();
  }
}
