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
import { awaitSuccessor } from "../runtime/give-place.ts";
import type { NamedSocket } from "../runtime/inherited-sockets.ts";
import { KeptSockets } from "../runtime/kept-sockets.ts";
import { dumpL7 } from "../runtime/l7-dump.ts";
import { leave } from "../runtime/leave.ts";
import { ProcessListeners } from "../runtime/process-listeners.ts";
import { LagProbe, processMetrics } from "../runtime/process-metrics.ts";
import { EXIT_FAILURE } from "../runtime/run-role.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { MeshStore } from "../mesh/store.ts";
import { openConfigSource } from "../runtime/open-config-source.ts";
import { describeSettings, type Settings } from "../runtime/settings.ts";
import { enterState } from "../runtime/succession.ts";
import { VERSION } from "../runtime/version.ts";
import { Exposition } from "../telemetry/exposition.ts";
import type { PathNormalisation } from "../wire/http/path.ts";
import type { WaypointConfig } from "./messages.ts";
import { explainUnrecorded } from "./self.ts";
import { WaypointAgent } from "./waypoint-agent.ts";

/** Of its own sockets, towards whoever comes after it: there is one waypoint to a state directory. */
const SOCKET_OWNER = "waypoint";

/** Istio's words for it (MeshConfig `pathNormalization`), but for the one that leaves paths as they came. */
const PATH_NORMALISATION = { BASE: "base", MERGE_SLASHES: "mergeSlashes", DECODE_AND_MERGE_SLASHES: "decodeAndMergeSlashes" } as const satisfies Record<Settings["pathNormalization"], PathNormalisation>;

export async function runWaypoint(settings: Settings, runtime: Runtime): Promise<number> {
  const { lifecycle, metrics, serviceManager } = runtime;
  const log = runtime.log.scope("waypoint");
  const configured = lifecycle.readiness.pending("configuration", settings.xdsAddress === null ? "reading the configuration directory" : "waiting for the control plane");
  const listening = lifecycle.readiness.pending("listeners", "starting");
  if (settings.gateway === null) throw new Error("a waypoint needs --gateway");
  if (settings.caAddress === null) {
    log.warn(settings.serve.length === 0 ? "no port is served: --serve names none, and without --ca-address there are no tunnels"
      : "no certificate to open a tunnel with: without --ca-address requests to workloads in the mesh are answered 503; those outside of it are reached", { code: "no_certificate" });
  }

  // First of all: from here on nobody else writes to the state directory, or whoever does is about to leave it to us.
  const entered = await enterState({ state: settings.state, role: runtime.role, handover: settings.handover, environment: process.env });
  if (!entered.ok) return fail(runtime, entered.error);
  const { lock, inherited, takeover } = entered.value;
  const inPlace = lifecycle.readiness.pending("place", takeover === null ? "starting" : `process ${takeover.predecessorPid} has it still`);
  const processListeners = new ProcessListeners(inherited);
  const ports = listenAdmin({ admin: settings.adminAddress, metrics: settings.metricsAddress, readiness: settings.readinessAddress }, processListeners);
  if (!ports.ok) return fail(runtime, ports.error);

  const source = settings.caAddress === null ? null : (await import("../runtime/grpc-certificates.ts")).grpcCertificates(settings);
  const gateway = settings.gateway as NamespacedName;
  const config = waypointConfig(settings, gateway, OWN_NAMESPACE);
  if (!config.ok) return fail(runtime, config.error);
  const unrecorded = new UnrecordedNotice(runtime, gateway, settings);
  const store = settings.xdsAddress === null ? null : new MeshStore({ followed: true });
  const started = await WaypointAgent.start({
    config: config.value, settings, runtime, source, store, svidDirectory: `${settings.state}/svids`, instance: null, recorded: (isRecorded) => unrecorded.tell(isRecorded),
  });
  if (!started.ok) return fail(runtime, started.error);
  const agent = started.value;

  const diagnostics = new DiagnosticLog(runtime.log.scope("config"), settings.xdsAddress === null ? "info" : "debug");
  const apply = (state: ConfigState): void => {
    agent.apply(state);
    diagnostics.tell(state);
    if (!state.l7.waypoints.has(gateway)) log.warn(`the configuration has no Gateway ${gateway} of a waypoint class: ${settings.xdsAddress === null ? "only what holds for its namespace and the mesh applies" : "nothing goes through it. Is there one, and is this control plane `weft control`? Istio's tells its waypoints what Envoy reads, and ours nothing"}`);
    metrics.cell("weft_configuration_changes_total", {}).value++;
    metrics.cell("weft_configuration_errors", {}).value = state.diagnostics.filter(({ severity }) => severity === "error").length;
  };
  const opened = await openConfigSource({ settings, runtime, client: "waypoint", store: store ?? new MeshStore(), onChange: apply, environment: process.env });
  if (opened === null) {
    const { message, exitStatus } = await lifecycle.stopped();
    log.info("stopped before there was a configuration", { reason: message });
    takeover?.abandon();
    agent.close();
    source?.destroy();
    return exitStatus;
  }
  const configuration = opened.source;
  apply(configuration.state);
  configured();
  lifecycle.onReload(() => configuration.reload());

  const failure = await agent.listen(settings.serve, { owner: SOCKET_OWNER, inherited });
  if (failure !== null) return fail(runtime, failure);
  listening();
  const kept = new KeptSockets(serviceManager);
  kept.letGo(inherited.closeRest());
  let predecessorEnded: Promise<void> = Promise.resolve();
  if (takeover !== null) {
    const taken = await takeover.ready();
    if (!taken.ok) {
      takeover.abandon();
      return fail(runtime, `the running process (${takeover.predecessorPid}) keeps its place: ${taken.error}`);
    }
    log.info("took the place of the running process, which ends when its requests have", { predecessor: takeover.predecessorPid });
    if (taken.value === "released") predecessorEnded = takeover.ended().then(() => log.info("the predecessor has ended", { predecessor: takeover.predecessorPid }));
  }
  const offer = (): readonly NamedSocket[] => [...agent.sockets, ...processListeners.sockets];
  kept.keep(offer());
  const successors = settings.handover
    ? awaitSuccessor({ state: settings.state, role: runtime.role, lifecycle, log, lockFd: lock.fd, offer, thaw: () => {}, setWritable: () => {} })
    : null;
  inPlace();

  runtime.healthy = () => agent.allAlive;
  runtime.collectGarbage = () => agent.collectGarbage();
  const lag = new LagProbe();
  const exposition = new Exposition();
  const admin = await startAdmin(
    ports.value,
    {
      log: runtime.log, lifecycle, version: VERSION, exposition, processMetrics: processMetrics(),
      snapshots: async () => {
        lag.tell(metrics);
        metrics.cell("istio_build", { component: "waypoint", tag: VERSION }).value = 1;
        return [metrics.snapshot(), ...(await agent.metrics())];
      },
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
  await leave(reason, {
    settings, lifecycle, log, configuration, lock, admin, successors, predecessorEnded,
    hurry: (deadlineMs) => agent.hurry(deadlineMs),
    drain: (deadlineMs) => agent.drain(deadlineMs),
    close: () => {
      agent.close();
      source?.destroy();
    },
  });
  lag.stop();
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
    gateway, namespaceFd, network: settings.network, pathNormalisation: PATH_NORMALISATION[settings.pathNormalization], remoteIssuersOnly: settings.xdsAddress !== null, packetMark: 0, tunnels: { ...dataPlaneConfig(settings), packetMark: 0 },
    telemetry: {
      accessLog: settings.accessLog === "off" ? "off" : settings.logFormat, accessLogSample: settings.accessLogSample, logOptions: { query: settings.accessLogQuery },
      collectors: [], sampling: settings.traceSampling,
    },
    ruleTelling: settings.ruleHeader, sessionKey: sessionKey(secret.value, gateway),
  });
}

/** A waypoint that the configuration does not know has no identity: it answers no tunnel and opens none. */
class UnrecordedNotice {
  readonly #runtime: Runtime;
  readonly #gateway: NamespacedName;
  readonly #settings: Settings;
  #isRecorded: boolean | null = null;

  constructor(runtime: Runtime, gateway: NamespacedName, settings: Settings) {
    this.#runtime = runtime;
    this.#gateway = gateway;
    this.#settings = settings;
  }

  tell(isRecorded: boolean): void {
    // Without a CA it has no tunnels whatever the configuration says, which is told already.
    if (this.#settings.caAddress === null || this.#isRecorded === isRecorded) return;
    const { lifecycle: { readiness }, log } = this.#runtime;
    const isNews = this.#isRecorded !== null || !isRecorded;
    this.#isRecorded = isRecorded;
    const why = isRecorded ? null : explainUnrecorded(this.#gateway);
    // Who is served at a port of its own is served without an identity too.
    if (this.#settings.serve.length === 0) readiness.set("identity", why);
    else readiness.remark("identity", why);
    if (why !== null) log.scope("waypoint").warn(`no tunnel is answered or opened: ${why}`, { code: "unknown_waypoint" });
    else if (isNews) log.scope("waypoint").info("the configuration has a record of this waypoint: tunnels are answered");
  }
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
