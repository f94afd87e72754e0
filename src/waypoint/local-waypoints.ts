// The waypoints among a node's own workloads: one for each Gateway of a waypoint class that has an instance here, in the namespace of its
// own that the WorkloadEntry names. They come and go with the configuration.

import type { NamespacedName } from "../core/brand.ts";
import type { CertificateSource } from "../identity/certificate-source.ts";
import { EMPTY_L7_DELTA } from "../mesh/l7/delta.ts";
import { emptyDelta } from "../mesh/records.ts";
import { errnoName } from "../net/libc.ts";
import { err, ok, type Result } from "../core/result.ts";
import { closeNamespace, namespaceIdentity, openNamespace } from "../net/namespace.ts";
import type { ClusterView } from "../runtime/clusters-view.ts";
import type { ConfigState } from "../runtime/config-source.ts";
import { type InheritedSockets, type NamedSocket, workloadOwner } from "../runtime/inherited-sockets.ts";
import type { KeptSockets } from "../runtime/kept-sockets.ts";
import { dumpL7 } from "../runtime/l7-dump.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { drainMs, type Settings } from "../runtime/settings.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { type Instance, instanceProblems, instancesOf } from "./instances.ts";
import { waypointConfig } from "./run-waypoint.ts";
import { WaypointAgent } from "./waypoint-agent.ts";
import { hasListeners, type SocketPlace } from "./waypoint-listeners.ts";

interface Running {
  /** Null while it starts: then it gets the whole of the latest state. */
  agent: WaypointAgent | null;
  /** It has its listeners: whoever stops it drains and closes it; before that, whoever starts it. */
  serving: boolean;
  stopped: boolean;
}

export interface LocalWaypointsOptions {
  readonly settings: Settings;
  readonly runtime: Runtime;
  readonly source: CertificateSource;
  /** Listeners from before this process. */
  readonly inherited: InheritedSockets;
  /** Who keeps listeners over a restart. */
  readonly kept: Pick<KeptSockets, "keep" | "letGo">;
}

export class LocalWaypoints {
  readonly #options: LocalWaypointsOptions;
  readonly #log: Logger;
  readonly #running = new Map<string, Running>();
  /** Their requests go on, judged by what the configuration says meanwhile. */
  readonly #draining = new Set<WaypointAgent>();
  readonly #starting = new Set<Promise<void>>();
  #latest: ConfigState | null = null;
  /** By waypoint, as told. */
  #problems: ReadonlyMap<NamespacedName, string> = new Map();
  /** Between offer and outcome of a handover nothing comes or goes. */
  #frozen = false;
  #ended = false;
  /** Why one whose listeners are a predecessor's could not be started; null when none failed. */
  #lost: string | null = null;

  constructor(options: LocalWaypointsOptions) {
    this.#options = options;
    this.#log = options.runtime.log.scope("waypoint");
  }

  apply(state: ConfigState): void {
    this.#latest = state;
    for (const { agent } of this.#running.values()) agent?.apply(state);
    for (const agent of this.#draining) agent.apply(state);
    this.#tellProblems(instanceProblems(state));
    this.#reconcile();
  }

  /** Once each, until it is another one. */
  #tellProblems(problems: ReadonlyMap<NamespacedName, string>): void {
    for (const [gateway, problem] of problems) if (this.#problems.get(gateway) !== problem) this.#log.warn(problem, { code: "unknown_waypoint" });
    this.#problems = problems;
  }

  #reconcile(): void {
    if (this.#latest === null || this.#frozen || this.#ended) return;
    const wanted = new Map(instancesOf(this.#latest).map((instance) => [`${instance.gateway} as ${instance.workload.uid}`, instance]));
    for (const [name, running] of this.#running) if (!wanted.has(name)) void this.#stop(name, running, drainMs(this.#options.settings));
    for (const [name, instance] of wanted) if (!this.#running.has(name)) this.#begin(name, instance);
  }

  // Handover

  /** Resolves when those that the configuration names are up, or failed for a reason of their own; an error: a predecessor's listeners are lost. */
  async settled(): Promise<Result<void, string>> {
    while (this.#starting.size > 0) await Promise.all(this.#starting);
    return this.#lost === null ? ok(undefined) : err(this.#lost);
  }

  /** Listeners of all that serve. From here on none comes or goes, until `thaw` or `drain`. */
  offer(): NamedSocket[] {
    this.#frozen = true;
    return [...this.#running.values()].flatMap(({ agent, serving }) => (serving ? agent!.sockets : []));
  }

  /** The successor did not come up: what changed meanwhile is made up for. */
  thaw(): void {
    this.#frozen = false;
    this.#reconcile();
  }

  /** A drain that is under way is to end earlier. */
  hurry(deadlineMs: number): void {
    for (const agent of this.#draining) agent.hurry(deadlineMs);
  }

  get allAlive(): boolean {
    return [...this.#agents()].every(({ allAlive }) => allAlive);
  }

  collectGarbage(): void {
    for (const agent of this.#agents()) agent.collectGarbage();
  }

  *#agents(): Iterable<WaypointAgent> {
    for (const { agent } of this.#running.values()) if (agent !== null) yield agent;
    yield* this.#draining;
  }

  async snapshots(): Promise<readonly MetricsSnapshot[]> {
    return (await Promise.all([...this.#running.values()].map(({ agent }) => agent?.metrics() ?? []))).flat();
  }

  /** The L7 configuration, and what each waypoint's threads have at the moment. */
  async dump(): Promise<Readonly<Record<string, unknown>>> {
    const waypoints = await Promise.all([...this.#running].map(async ([name, { agent }]) => [name, agent === null ? "starting" : await agent.dump()] as const));
    return { ...(this.#latest === null ? {} : dumpL7(this.#latest.l7)), waypointState: Object.fromEntries(waypoints) };
  }

  async clusters(): Promise<readonly (readonly ClusterView[])[]> {
    return (await Promise.all([...this.#running.values()].map(({ agent }) => agent?.snapshots() ?? []))).flat().map(({ clusters }) => clusters);
  }

  /** All of them end; requests under way may go on for `deadlineMs`. */
  async drain(deadlineMs: number): Promise<void> {
    this.#ended = true;
    await Promise.all([...this.#running].map(([name, running]) => this.#stop(name, running, deadlineMs)));
  }

  #begin(name: string, instance: Instance): void {
    const starting = this.#start(name, instance).finally(() => this.#starting.delete(starting));
    this.#starting.add(starting);
  }

  async #start(name: string, { gateway, workload }: Instance): Promise<void> {
    const { inherited, kept } = this.#options;
    const running: Running = { agent: null, serving: false, stopped: false };
    this.#running.set(name, running);
    const failed = (why: string): void => {
      this.#running.delete(name);
      this.#log.error(`the waypoint ${name} could not be started: ${why}; it is tried again with the next change of the configuration`);
    };
    if (workload.networkNamespace.kind !== "path") return failed("it has no network namespace of its own, and port 15008 of the host's is the node's");
    const { path } = workload.networkNamespace;
    const namespaceFd = openNamespace(path);
    if (namespaceFd < 0) return failed(`its namespace ${path} cannot be opened: ${errnoName(namespaceFd)}`);
    const place = { owner: workloadOwner(workload.uid, namespaceIdentity(namespaceFd)), inherited };
    const hadListeners = hasListeners(place);
    const up = await this.#tryStart(running, gateway, namespaceFd, place);
    if (!up.ok) {
      closeNamespace(namespaceFd);
      if (hadListeners) this.#lost = `the waypoint ${name} could not be started: ${up.error}`;
      return failed(up.error);
    }
    if (running.stopped) {
      up.value.close();
      closeNamespace(namespaceFd);
      return;
    }
    running.serving = true;
    kept.keep(up.value.sockets);
    this.#log.info(`the waypoint ${name} serves`, { namespace: path });
  }

  async #tryStart(running: Running, gateway: NamespacedName, namespaceFd: number, place: SocketPlace): Promise<Result<WaypointAgent, string>> {
    const { settings, runtime, source } = this.#options;
    const config = waypointConfig(settings, gateway, namespaceFd);
    if (!config.ok) return config;
    const started = await WaypointAgent.start({ config: config.value, settings, runtime, source, store: null, svidDirectory: null, instance: gateway, recorded: () => {} });
    if (!started.ok) return started;
    const agent = started.value;
    agent.apply(wholeOf(this.#latest!));
    running.agent = agent;
    const failure = running.stopped ? null : await agent.listen([], place);
    if (failure === null) return started;
    agent.close();
    return err(failure);
  }

  async #stop(name: string, running: Running, deadlineMs: number): Promise<void> {
    this.#running.delete(name);
    running.stopped = true;
    const { agent } = running;
    if (agent === null || !running.serving) return;
    this.#draining.add(agent);
    // A successor has copies; without one they are of no use to anybody.
    if (!this.#ended) this.#options.kept.letGo(agent.sockets.map(({ name: socket }) => socket));
    await agent.drain(deadlineMs);
    this.#draining.delete(agent);
    agent.close();
    closeNamespace(agent.namespaceFd);
    this.#log.info(`the waypoint ${name} has ended`);
  }
}

/** A state as the change from nothing. */
function wholeOf({ mesh, l7 }: ConfigState): Pick<ConfigState, "mesh" | "delta" | "l7Delta"> {
  return {
    mesh,
    delta: { ...emptyDelta, workloads: [...mesh.workloads.values()], services: [...mesh.services.values()], policies: [...mesh.policies.values()] },
    l7Delta: {
      ...EMPTY_L7_DELTA, waypoints: [...l7.waypoints.values()], routes: [...l7.routes.values()], trafficPolicies: [...l7.trafficPolicies].map(([service, policies]) => ({ service, policies })),
      requestPolicies: [...l7.requestPolicies.values()], requestAuthentications: [...l7.requestAuthentications.values()], loginPolicies: [...l7.loginPolicies.values()], telemetry: [...l7.telemetry.values()], workloadLabels: [...l7.workloadLabels.values()],
    },
  };
}
