// `weft cni`: the agent as a process. It apart from the ztunnel, because they are two things to whoever runs them: this one has rights in
// the API and on the node's disk and holds no traffic, it may be replaced at any time; the other has neither and holds every connection.
// Between them is ZDS, so that either works with Istio's other half.

import { InheritedSockets } from "../runtime/inherited-sockets.ts";
import { listenAdmin, startAdmin } from "../runtime/admin.ts";
import { inClusterAccess } from "../runtime/kubernetes/access.ts";
import { KubernetesClient } from "../runtime/kubernetes/client.ts";
import { ProcessListeners } from "../runtime/process-listeners.ts";
import { processMetrics } from "../runtime/process-metrics.ts";
import type { RoleMain } from "../runtime/runtime.ts";
import { describeSettings, drainMs, type Settings } from "../runtime/settings.ts";
import { VERSION } from "../runtime/version.ts";
import type { Logger } from "../runtime/logger.ts";
import { Exposition } from "../telemetry/exposition.ts";
import { Agent } from "./agent.ts";
import { PLUGIN_TYPE } from "./conflist.ts";
import { Installer } from "./installer.ts";
import { listenForPlugins } from "./plugin-socket.ts";

export const run: RoleMain = async (settings, runtime) => {
  const { lifecycle, clock, random, metrics } = runtime;
  const log = runtime.log.scope("cni");
  const access = inClusterAccess(process.env);
  if (!access.ok) throw new Error(`weft cni runs in a pod of the node it serves: ${access.error}`);
  const client = new KubernetesClient(access.value);
  const listeners = new ProcessListeners(new InheritedSockets([], false));
  const ports = listenAdmin({ admin: settings.adminAddress, metrics: settings.metricsAddress, readiness: settings.readinessAddress }, listeners);
  if (!ports.ok) throw new Error(ports.error);
  const podsRead = lifecycle.readiness.pending("pods", "reading the pods of this node");
  lifecycle.readiness.set("plugin", settings.cniBinDirectory === null ? null : "not installed yet");
  lifecycle.readiness.remark("ztunnel", "none has come yet");

  const agent = new Agent({
    client,
    node: settings.node,
    zdsSocket: settings.zdsSocket,
    excludedNamespaces: settings.excludedNamespaces,
    capture: { dnsCapture: settings.dnsCapture, packetMark: settings.packetMark, probeAddresses: settings.probes === "off" ? [] : settings.probeAddresses },
    probeSource: settings.probes === "source",
    log,
    clock,
    random,
    drainMs: drainMs(settings),
    onFailing: (what) => lifecycle.readiness.remark("pods", what),
    onZtunnels: (connected) => lifecycle.readiness.remark("ztunnel", connected === 0 ? "none is connected: no pod can join the mesh" : null),
  });
  const admin = await startAdmin(ports.value, {
    log: runtime.log,
    lifecycle,
    version: VERSION,
    exposition: new Exposition(),
    processMetrics: processMetrics(),
    snapshots: async () => {
      metrics.cell("weft_cni_pods_in_mesh", {}).value = agent.insideCount;
      metrics.cell("weft_cni_ztunnels", {}).value = agent.ztunnels;
      metrics.cell("istio_build", { component: "cni", tag: VERSION }).value = 1;
      return [metrics.snapshot()];
    },
    configDump: async () => ({ role: "cni", pods: agent.pods, config: describeSettings(runtime.role, runtime.parsed), version: VERSION }),
  });
  const installer = await untilStopped(lifecycle.stop, agent.start().then(() => serve(settings, agent, log, lifecycle.readiness)));
  podsRead();

  const reason = await lifecycle.stopped();
  installer?.plugins.close();
  if (await meshIsLeaving(settings, client, log)) {
    log.info("the mesh is being removed from this node");
    const troubles = installer?.files?.remove() ?? [];
    for (const trouble of troubles) log.error("the plugin was not removed", { error: trouble });
    await agent.uninstall();
  } else {
    installer?.files?.stop();
    agent.stop();
  }
  await admin.stop();
  return reason.exitStatus;
};

interface Served {
  readonly plugins: { close(): void };
  readonly files: Installer | null;
}

/** The plugin can be answered; then it is installed. */
function serve(settings: Settings, agent: Agent, log: Logger, readiness: { set(name: string, why: string | null): void }): Served {
  const plugins = listenForPlugins(settings.cniSocket, (request, fd) => agent.handle(request, fd), (why) => log.warn("a call of the plugin came to nothing", { error: why }));
  if (!plugins.ok) throw new Error(plugins.error);
  if (settings.cniBinDirectory === null) return { plugins: plugins.value, files: null };
  let told = "";
  const files = new Installer({
    program: process.execPath,
    binDirectory: settings.cniBinDirectory,
    configDirectory: settings.cniConfigDirectory,
    entry: { type: PLUGIN_TYPE, socket: settings.cniSocket, excludedNamespaces: settings.excludedNamespaces },
    onState: (state) => {
      readiness.set("plugin", state.kind === "waiting" ? state.why : null);
      if (state.kind === "installed" && state.changed) log.info("the plugin is in the node's list", { file: state.file });
      else if (state.kind === "waiting" && state.why !== told) log.warn("the plugin is not installed", { error: state.why });
      told = state.kind === "waiting" ? state.why : "";
    },
  });
  const started = files.start();
  if (!started.ok) throw new Error(started.error);
  return { plugins: plugins.value, files };
}

/** Null when the process was asked to end first. */
async function untilStopped<T>(stop: AbortSignal, work: Promise<T>): Promise<T | null> {
  return await Promise.race([work, new Promise<null>((resolve) => stop.addEventListener("abort", () => resolve(null), { once: true }))]);
}

/**
 * Whether we end because the mesh is taken off, and not because another agent comes: our DaemonSet is gone or going, or the rights that came
 * with it are. An API that cannot be asked says nothing, and nothing is removed.
 */
async function meshIsLeaving({ daemonSet }: Settings, client: KubernetesClient, log: Logger): Promise<boolean> {
  if (daemonSet === null) return false;
  const [namespace, name] = daemonSet.split("/");
  const answer = await client.get(`/apis/apps/v1/namespaces/${namespace}/daemonsets/${name}`);
  if (!answer.ok) {
    const { status, message } = answer.error;
    if (status === 401 || status === 403 || status === 404) return true;
    log.warn("whether the mesh is being removed is not known: everything stays", { error: message });
    return false;
  }
  const { metadata } = Object(answer.value) as { readonly metadata?: { readonly deletionTimestamp?: unknown } };
  return metadata?.deletionTimestamp !== undefined;
}
