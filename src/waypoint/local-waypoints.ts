// The waypoints among a node's own workloads: one for each Gateway of a waypoint class that has an instance here, in the namespace of its
// own that the WorkloadEntry names. They come and go with the configuration.

import type { NamespacedName } from "../core/brand.ts";
import type { CertificateSource } from "../identity/certificate-source.ts";
import { EMPTY_L7_DELTA } from "../mesh/l7/delta.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import { emptyDelta } from "../mesh/records.ts";
import { errnoName } from "../net/libc.ts";
import { closeNamespace, openNamespace } from "../net/namespace.ts";
import type { ClusterView } from "../runtime/clusters-view.ts";
import type { ConfigState } from "../runtime/config-source.ts";
import { dumpL7 } from "../runtime/l7-dump.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Settings } from "../runtime/settings.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { waypointConfig } from "./run-waypoint.ts";
import { WaypointAgent } from "./waypoint-agent.ts";

interface Instance {
  readonly gateway: NamespacedName;
  readonly workload: LocalWorkload;
}

interface Running {
  /** Null while it starts: then it gets the whole of the latest state. */
  agent: WaypointAgent | null;
  stopped: boolean;
}

export class LocalWaypoints {
  readonly #settings: Settings;
  readonly #runtime: Runtime;
  readonly #source: CertificateSource;
  readonly #log: Logger;
  readonly #running = new Map<string, Running>();
  #latest: ConfigState | null = null;

  constructor(settings: Settings, runtime: Runtime, source: CertificateSource) {
    this.#settings = settings;
    this.#runtime = runtime;
    this.#source = source;
    this.#log = runtime.log.scope("waypoint");
  }

  apply(state: ConfigState): void {
    this.#latest = state;
    for (const { agent } of this.#running.values()) agent?.apply(state);
    const wanted = new Map(instancesOf(state).map((instance) => [`${instance.gateway} as ${instance.workload.uid}`, instance]));
    for (const [name, running] of this.#running) if (!wanted.has(name)) void this.#stop(name, running, 0);
    for (const [name, instance] of wanted) if (!this.#running.has(name)) void this.#start(name, instance);
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
    await Promise.all([...this.#running].map(([name, running]) => this.#stop(name, running, deadlineMs)));
  }

  async #start(name: string, { gateway, workload }: Instance): Promise<void> {
    const running: Running = { agent: null, stopped: false };
    this.#running.set(name, running);
    const failed = (why: string): void => {
      this.#running.delete(name);
      this.#log.error(`the waypoint ${name} could not be started: ${why}; it is tried again with the next change of the configuration`);
    };
    if (workload.networkNamespace.kind !== "path") return failed("it has no network namespace of its own, and port 15008 of the host's is the node's");
    const { path } = workload.networkNamespace;
    const namespaceFd = openNamespace(path);
    if (namespaceFd < 0) return failed(`its namespace ${path} cannot be opened: ${errnoName(namespaceFd)}`);
    const config = waypointConfig(this.#settings, gateway, namespaceFd);
    if (!config.ok) {
      closeNamespace(namespaceFd);
      return failed(config.error);
    }
    const started = await WaypointAgent.start({
      config: config.value, settings: this.#settings, runtime: this.#runtime, source: this.#source, svidDirectory: null,
    });
    if (!started.ok) {
      closeNamespace(namespaceFd);
      return failed(started.error);
    }
    const agent = started.value;
    if (running.stopped) return agent.close();
    agent.apply(wholeOf(this.#latest!));
    running.agent = agent;
    const failure = await agent.listen([]);
    if (failure !== null) {
      agent.close();
      closeNamespace(namespaceFd);
      return failed(failure);
    }
    this.#log.info(`the waypoint ${name} serves`, { namespace: path });
  }

  async #stop(name: string, running: Running, deadlineMs: number): Promise<void> {
    this.#running.delete(name);
    running.stopped = true;
    if (running.agent === null) return;
    await running.agent.drain(deadlineMs);
    running.agent.close();
    this.#log.info(`the waypoint ${name} has ended`);
  }
}

/** Who ends tunnels by itself, and is an instance of a waypoint. */
function instancesOf({ l7, mesh, localWorkloads }: ConfigState): Instance[] {
  return [...l7.waypoints.values()].flatMap((waypoint) => localWorkloads
    .filter(({ uid, captured }) => !captured && mesh.workloads.get(uid)?.nativeTunnel === true && mesh.workloads.get(uid)!.services.some(({ service }) => service === waypoint.service))
    .map((workload) => ({ gateway: `${waypoint.namespace}/${waypoint.name}` as NamespacedName, workload })));
}

/** A state as the change from nothing. */
function wholeOf({ mesh, l7 }: ConfigState): Pick<ConfigState, "mesh" | "delta" | "l7Delta"> {
  return {
    mesh,
    delta: { ...emptyDelta, workloads: [...mesh.workloads.values()], services: [...mesh.services.values()], policies: [...mesh.policies.values()] },
    l7Delta: {
      ...EMPTY_L7_DELTA, waypoints: [...l7.waypoints.values()], routes: [...l7.routes.values()], trafficPolicies: [...l7.trafficPolicies].map(([service, policies]) => ({ service, policies })),
      requestPolicies: [...l7.requestPolicies.values()], requestAuthentications: [...l7.requestAuthentications.values()], loginPolicies: [...l7.loginPolicies.values()], telemetry: [...l7.telemetry.values()],
    },
  };
}
