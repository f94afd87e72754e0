// A waypoint from its settings: configuration, data threads, listeners, admin ports, and the order in which they start and end.

import { namespacedName, type NamespacedName } from "../core/brand.ts";
import { sessionKey, sessionSecret } from "../identity/session-key.ts";
import { ok, type Result } from "../core/result.ts";
import type { PortMapping, Workload } from "../mesh/records.ts";
import { OWN_NAMESPACE } from "../net/namespace.ts";
import { formatDiagnostic } from "../resources/diagnostic.ts";
import { listenAdmin, startAdmin } from "../runtime/admin.ts";
import { configDump } from "../runtime/config-dump.ts";
import { dataPlaneConfig } from "../runtime/data-plane-config.ts";
import type { ConfigState } from "../runtime/config-source.ts";
import { DiagnosticLog } from "../runtime/diagnostic-log.ts";
import { InheritedSockets } from "../runtime/inherited-sockets.ts";
import { dumpL7 } from "../runtime/l7-dump.ts";
import { ProcessListeners } from "../runtime/process-listeners.ts";
import { processMetrics } from "../runtime/process-metrics.ts";
import { EXIT_FAILURE } from "../runtime/run-role.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { openConfigSource } from "../runtime/open-config-source.ts";
import { describeSettings, drainMs, type Settings } from "../runtime/settings.ts";
import { VERSION } from "../runtime/version.ts";
import { Exposition } from "../telemetry/exposition.ts";
import { DEFAULT_PATH_NORMALISATION } from "../wire/http/path.ts";
import type { WaypointConfig } from "./messages.ts";
import { DRAIN_GRACE_MS, WaypointAgent } from "./waypoint-agent.ts";

export async function runWaypoint(settings: Settings, runtime: Runtime): Promise<number> {
  const { lifecycle, metrics } = runtime;
  const log = runtime.log.scope("waypoint");
  const configured = lifecycle.readiness.pending("configuration", settings.xdsAddress === null ? "reading the configuration directory" : "waiting for the control plane");
  const listening = lifecycle.readiness.pending("listeners", "starting");
  if (settings.gateway === null) throw new Error("a waypoint needs --gateway");
  if (settings.serve.length === 0 && settings.caAddress === null) log.warn("no port is served: --serve names none, and without --ca-address there are no tunnels");

  const ports = listenAdmin(
    { admin: settings.adminAddress, metrics: settings.metricsAddress, readiness: settings.readinessAddress }, new ProcessListeners(new InheritedSockets([], false)),
  );
  if (!ports.ok) return fail(runtime, ports.error);

  const source = settings.caAddress === null ? null : (await import("../runtime/grpc-certificates.ts")).grpcCertificates(settings);
  const gateway = settings.gateway as NamespacedName;
  const config = waypointConfig(settings, gateway, OWN_NAMESPACE);
  if (!config.ok) return fail(runtime, config.error);
  const started = await WaypointAgent.start({ config: config.value, settings, runtime, source, svidDirectory: `${settings.state}/svids` });
  if (!started.ok) return fail(runtime, started.error);
  const agent = started.value;

  const diagnostics = new DiagnosticLog(runtime.log.scope("config"));
  const apply = (state: ConfigState): void => {
    agent.apply(state);
    diagnostics.tell(state);
    if (!state.l7.waypoints.has(gateway)) log.warn(`the configuration has no Gateway ${gateway} of a waypoint class: only what holds for its namespace and the mesh applies`);
    metrics.cell("weft_configuration_changes_total", {}).value++;
    metrics.cell("weft_configuration_errors", {}).value = state.diagnostics.filter(({ severity }) => severity === "error").length;
  };
  const opened = await openConfigSource({ settings, runtime, client: "waypoint", onChange: apply, environment: process.env });
  if (opened === null) {
    const { message, exitStatus } = await lifecycle.stopped();
    log.info("stopped before there was a configuration", { reason: message });
    agent.close();
    source?.destroy();
    return exitStatus;
  }
  const configuration = opened.source;
  apply(configuration.state);
  configured();
  lifecycle.onReload(() => configuration.reload());

  const failure = await agent.listen(settings.serve);
  if (failure !== null) return fail(runtime, failure);
  listening();

  const exposition = new Exposition();
  const admin = await startAdmin(
    ports.value,
    {
      log: runtime.log, lifecycle, version: VERSION, exposition, processMetrics: processMetrics(),
      snapshots: async () => [metrics.snapshot(), ...(await agent.metrics())],
      ...(source === null ? {} : { renewCertificates: () => agent.renewCertificates() }),
      clusters: async () => (await agent.snapshots()).map(({ clusters }) => clusters),
      configDump: () => {
        const { mesh: { workloads, services, policies }, l7, diagnostics: found } = configuration.state;
        const members = membersByService(workloads.values());
        return configDump({
          workloads: () => workloads.values(), services: () => services.values(), policies: () => policies.values(), endpoints: ({ namespace, hostname }) => members.get(namespacedName(namespace, hostname)) ?? [],
          certificates: () => agent.certificates, localWorkloads: () => Promise.resolve([]), config: () => describeSettings(runtime.role, runtime.parsed), version: VERSION,
          more: async () => ({ gateway, diagnostics: found.map(formatDiagnostic), ...dumpL7(l7), threads: (await agent.dump())["threads"] }),
        });
      },
    },
  );
  const reason = await lifecycle.stopped();
  const deadlineMs = drainMs(settings);
  log.info("draining", { reason: reason.message, deadline_ms: deadlineMs });
  await configuration[Symbol.asyncDispose]();
  const forced = await lifecycle.within(deadlineMs + DRAIN_GRACE_MS, agent.drain(deadlineMs));
  log.info("drained", { closed_by_force: forced ?? "unknown" });
  agent.close();
  source?.destroy();
  await admin.stop();
  return reason.exitStatus;
}

/**
 * @param namespaceFd where it listens and dials from.
 * @returns an error when there is no key for its sessions.
 */
export function waypointConfig(settings: Settings, gateway: NamespacedName, namespaceFd: number): Result<WaypointConfig, string> {
  const secret = sessionSecret(settings.sessionKey, `${settings.state}/session`);
  if (!secret.ok) return secret;
  return ok({
    gateway, namespaceFd, network: settings.network, pathNormalisation: DEFAULT_PATH_NORMALISATION, packetMark: 0, tunnels: { ...dataPlaneConfig(settings), packetMark: 0 },
    telemetry: {
      accessLog: settings.accessLog === "off" ? "off" : settings.logFormat, accessLogSample: settings.accessLogSample, logOptions: { query: settings.accessLogQuery },
      collectors: [], sampling: settings.traceSampling,
    },
    sessionKey: sessionKey(secret.value, gateway),
  });
}

interface Member {
  readonly workload: Workload;
  readonly ports: readonly PortMapping[];
}

function membersByService(workloads: Iterable<Workload>): Map<NamespacedName, Member[]> {
  const members = new Map<NamespacedName, Member[]>();
  for (const workload of workloads) {
    for (const { service, ports } of workload.services) {
      const known = members.get(service);
      if (known === undefined) members.set(service, [{ workload, ports }]);
      else known.push({ workload, ports });
    }
  }
  return members;
}

function fail(runtime: Runtime, message: string): number {
  runtime.log.scope("waypoint").error(message);
  return EXIT_FAILURE;
}
