// A waypoint from its settings: configuration directory, data threads, listeners, admin ports, and the order in which they start and end.

import { randomBytes } from "node:crypto";
import { namespacedName, type NamespacedName } from "../core/brand.ts";
import { formatSocketAddress } from "../core/ip.ts";
import { SESSION_KEY_BYTES_MIN } from "../identity/session-signer.ts";
import { errnoName } from "../net/libc.ts";
import { OWN_NAMESPACE } from "../net/namespace.ts";
import { listenTcp, listenTcpAnyAddress } from "../net/listen.ts";
import { formatDiagnostic } from "../resources/diagnostic.ts";
import { listenAdmin, startAdmin } from "../runtime/admin.ts";
import { HBONE_PORT } from "../policy/ports.ts";
import { dataPlaneConfig } from "../runtime/data-plane-config.ts";
import { ConfigDirectory, type ConfigState } from "../runtime/config-directory.ts";
import { DiagnosticLog } from "../runtime/diagnostic-log.ts";
import { InheritedSockets } from "../runtime/inherited-sockets.ts";
import { ProcessListeners } from "../runtime/process-listeners.ts";
import { processMetrics } from "../runtime/process-metrics.ts";
import { EXIT_FAILURE } from "../runtime/run-role.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { describeSettings, drainMs, type Settings, workerThreads } from "../runtime/settings.ts";
import { VERSION } from "../runtime/version.ts";
import { WorkerThreads } from "../runtime/worker-threads.ts";
import { Exposition } from "../telemetry/exposition.ts";
import { LogCredit } from "../telemetry/log-batch.ts";
import { DEFAULT_PATH_NORMALISATION } from "../wire/http/path.ts";
import { Certificates } from "./certificates.ts";
import type { FromWaypoint, PlainListener, ToWaypoint, WaypointConfig, WaypointSnapshot } from "./messages.ts";

/** In the compiled binary; see the ztunnel's. */
const COMPILED_WORKER = "/$bunfs/root/waypoint/data-thread.js";

const workerPath = (): string => (import.meta.path.startsWith("/$bunfs/") ? COMPILED_WORKER : new URL("./data-thread.ts", import.meta.url).href);

/** A data thread's own deadline comes first. */
const DRAIN_GRACE_MS = 2_000;

type Threads = WorkerThreads<ToWaypoint, FromWaypoint>;

export async function runWaypoint(settings: Settings, runtime: Runtime): Promise<number> {
  const { lifecycle, metrics } = runtime;
  const log = runtime.log.scope("waypoint");
  const configured = lifecycle.readiness.pending("configuration", "reading the configuration directory");
  const listening = lifecycle.readiness.pending("listeners", "starting");
  if (settings.config === null || settings.gateway === null) throw new Error("a waypoint needs --config and --gateway");
  if (settings.serve.length === 0 && settings.caAddress === null) log.warn("no port is served: --serve names none, and without --ca-address there are no tunnels");

  const ports = listenAdmin(
    { admin: settings.adminAddress, metrics: settings.metricsAddress, readiness: settings.readinessAddress }, new ProcessListeners(new InheritedSockets([], false)),
  );
  if (!ports.ok) return fail(runtime, ports.error);

  const credit = new LogCredit();
  let certificates: Certificates | null = null;
  const threads: Threads = new WorkerThreads<ToWaypoint, FromWaypoint>({
    count: workerThreads(settings.workers),
    path: workerPath(),
    received: (message) => {
      if (message.kind === "log") runtime.log.accessLines(message.lines, message.lineCount, () => credit.giveBack(message.lines.length));
      else if (message.kind === "warning") log.warn(message.message, { code: message.code });
      else if (message.kind === "needSvid") certificates?.need(message.spiffeId);
    },
    crashed: (error) => {
      log.error("a data thread ended unexpectedly", { error: error.stack ?? error.message });
      lifecycle.requestStop({ message: "a data thread ended", successorPid: null, exitStatus: EXIT_FAILURE });
    },
  });
  if (settings.caAddress !== null) {
    const opened = await Certificates.open(settings, runtime, threads);
    if (!opened.ok) return fail(runtime, opened.error);
    certificates = opened.value;
  }
  const ready = threads.gather("ready");
  threads.post({ kind: "configure", config: waypointConfig(settings), logCredit: credit.buffer });
  await ready;

  const diagnostics = new DiagnosticLog(runtime.log.scope("config"));
  const gateway = settings.gateway as NamespacedName;
  const apply = (state: ConfigState): void => {
    threads.post({ kind: "mesh", delta: state.delta, l7Delta: state.l7Delta });
    diagnostics.tell(state);
    if (!state.l7.waypoints.has(gateway)) log.warn(`the configuration has no Gateway ${gateway} of a waypoint class: only what holds for its namespace and the mesh applies`);
    metrics.cell("weft_configuration_changes_total", {}).value++;
    metrics.cell("weft_configuration_errors", {}).value = state.diagnostics.filter(({ severity }) => severity === "error").length;
  };
  const directory = await ConfigDirectory.open({
    directory: settings.config,
    stateDirectory: settings.state,
    translation: {
      node: settings.node, clusterId: settings.clusterId, clusterDomain: settings.clusterDomain, trustDomain: settings.trustDomain, network: settings.network,
      rootNamespace: settings.rootNamespace, serviceCidrs: settings.serviceCidrs,
    },
    onChange: apply,
  });
  apply(directory.state);
  configured();
  lifecycle.onReload(() => directory.reload());

  const failure = await listen(settings, threads);
  if (failure !== null) return fail(runtime, failure);
  listening();

  const exposition = new Exposition();
  const admin = await startAdmin(
    ports.value,
    {
      log: runtime.log, lifecycle, version: VERSION, exposition, processMetrics: processMetrics(),
      snapshots: async () => [metrics.snapshot(), ...((await snapshots(threads)) as WaypointSnapshot[]).map((snapshot) => snapshot.metrics)],
      ...(certificates === null ? {} : { renewCertificates: () => certificates!.renew() }),
      configDump: async () => ({
        gateway, version: VERSION, config: describeSettings(runtime.role, runtime.parsed), diagnostics: directory.state.diagnostics.map(formatDiagnostic),
        routes: [...directory.state.l7.routes.values()], trafficPolicies: Object.fromEntries(directory.state.l7.trafficPolicies), requestPolicies: [...directory.state.l7.requestPolicies.values()],
        waypoints: [...directory.state.l7.waypoints.values()], threads: await snapshots(threads),
      }),
    },
  );
  const reason = await lifecycle.stopped();
  const deadlineMs = drainMs(settings);
  log.info("draining", { reason: reason.message, deadline_ms: deadlineMs });
  await directory[Symbol.asyncDispose]();
  const drained = threads.gather("drained", deadlineMs + DRAIN_GRACE_MS);
  threads.post({ kind: "drain", deadlineMs });
  const forced = await lifecycle.within(deadlineMs + DRAIN_GRACE_MS, drained);
  log.info("drained", { closed_by_force: forced === null ? "unknown" : (forced as number[]).reduce((sum, count) => sum + count, 0) });
  threads.terminate();
  await certificates?.close();
  await admin.stop();
  return reason.exitStatus;
}

function waypointConfig(settings: Settings): WaypointConfig {
  return {
    gateway: settings.gateway as NamespacedName, network: settings.network, pathNormalisation: DEFAULT_PATH_NORMALISATION, packetMark: 0, tunnels: { ...dataPlaneConfig(settings), packetMark: 0 },
    accessLog: settings.accessLog === "off" ? "off" : settings.logFormat, accessLogSample: settings.accessLogSample,
    // Made anew with each start: sessions that were given out before are not recognised, and begin again.
    sessionKey: new Uint8Array(randomBytes(SESSION_KEY_BYTES_MIN)),
  };
}

/** Each thread gets listeners of its own (SO_REUSEPORT). Null, or what failed. */
async function listen(settings: Settings, threads: Threads): Promise<string | null> {
  const perThread: PlainListener[][] = [];
  const hboneFds: number[] = [];
  for (let i = 0; i < threads.count; i++) {
    const listeners: PlainListener[] = [];
    if (settings.caAddress !== null) {
      const fd = listenTcpAnyAddress({ namespaceFd: OWN_NAMESPACE, port: HBONE_PORT, mark: 0, keepalive: null, shared: threads.count > 1 });
      if (fd < 0) return `cannot listen on port ${HBONE_PORT}: ${errnoName(fd)}`;
      hboneFds.push(fd);
    }
    for (const { at, namespace, hostname, port } of settings.serve) {
      const fd = listenTcp({ namespaceFd: OWN_NAMESPACE, at, mark: 0, keepalive: null, shared: threads.count > 1 });
      if (fd < 0) return `cannot listen on ${formatSocketAddress(at)} for ${namespace}/${hostname}:${port}: ${errnoName(fd)}`;
      listeners.push({ fd, destination: { service: namespacedName(namespace, hostname), port } });
    }
    perThread.push(listeners);
  }
  const listening = threads.gather("listen");
  threads.postEach((i) => ({ kind: "listen", listeners: perThread[i]!, hboneFd: hboneFds[i] ?? -1 }));
  return (await listening).length === threads.count ? null : "a data thread did not take its listeners";
}

let questions = 0;

function snapshots(threads: Threads): Promise<unknown[]> {
  const question = `snapshot ${++questions}`;
  const answers = threads.gather(question);
  threads.post({ kind: "snapshot", question });
  return answers;
}

function fail(runtime: Runtime, message: string): number {
  runtime.log.scope("waypoint").error(message);
  return EXIT_FAILURE;
}
