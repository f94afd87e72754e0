// A node from its settings: configuration, certificates, data threads, admin ports, and the order in which they start and
// end. What differs between `weft up` and `weft ztunnel` is where certificates come from.

import { err, ok, type Result } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { spiffeId } from "../core/spiffe.ts";
import { CrlWatch, knownIssuers } from "../identity/crl.ts";
import type { CertificateSource } from "../identity/certificate-source.ts";
import { openSvidStore } from "../identity/svid-store.ts";
import { systemTimers } from "../net/timers.ts";
import { listenAdmin, startAdmin } from "../runtime/admin.ts";
import type { ClusterView } from "../runtime/clusters-view.ts";
import type { ConfigState } from "../runtime/config-source.ts";
import { dataPlaneConfig } from "../runtime/data-plane-config.ts";
import { DiagnosticLog } from "../runtime/diagnostic-log.ts";
import { awaitSuccessor } from "../runtime/give-place.ts";
import type { InheritedSockets, NamedSocket } from "../runtime/inherited-sockets.ts";
import { KeptSockets } from "../runtime/kept-sockets.ts";
import { leave } from "../runtime/leave.ts";
import { ProcessListeners } from "../runtime/process-listeners.ts";
import { LagProbe, processMetrics } from "../runtime/process-metrics.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { openConfigSource } from "../runtime/open-config-source.ts";
import { type Settings, workerThreads } from "../runtime/settings.ts";
import { enterState } from "../runtime/succession.ts";
import { ThreadWatch } from "../runtime/thread-watch.ts";
import { VERSION } from "../runtime/version.ts";
import { formatDiagnostic } from "../resources/diagnostic.ts";
import { MeshStore } from "../mesh/store.ts";
import { LogCredit } from "../telemetry/log-batch.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { Exposition } from "../telemetry/exposition.ts";
import { tellChanges, tellingSource } from "./debug-words.ts";
import { NodeAgent } from "./node-agent.ts";
import { dumpNode, observeNode } from "./node-state.ts";
import { SETTLE_MS_MAX, settled, takePlace } from "./node-handover.ts";
import { noWorkloadHere } from "./other-nodes.ts";
import { OWN_RULES, RULES_OF_CNI } from "./redirection.ts";

/** Status for a supervisor: something this process cannot mend; starting it again may. */
const EXIT_FAILURE = 1;

export interface NodeParts {
  readonly source: CertificateSource;
  /** A revocation list that comes with the source, used unless the settings name one. */
  readonly crlPath: string | null;
  /** False while another process may write what the source keeps on disk. */
  readonly setWritable: (writable: boolean) => void;
  /** A successor has the source's port. Certificates for connections that are left are still to be had. */
  readonly handOver: () => Promise<void>;
  /** Called when the node no longer needs the source. */
  readonly close: () => Promise<void>;
  /** What else this process runs by the same configuration. Told of each state after the node; drained beside it. */
  readonly beside?: NodeCompanion;
}

export interface NodeCompanion {
  apply(state: ConfigState): void;
  snapshots(): Promise<readonly MetricsSnapshot[]>;
  /** What it shows beside the node's own in /config_dump; and the services that its requests go to, of each of its data threads. */
  dump(): Promise<Readonly<Record<string, unknown>>>;
  clusters(): Promise<readonly (readonly ClusterView[])[]>;
  /** False while one of its data threads does not answer. */
  allAlive(): boolean;
  collectGarbage(): void;
  /** Resolves when everything that a predecessor served there is served here too; with the reason when it cannot be. */
  settled(): Promise<Result<void, string>>;
  /** Its listeners, for a successor. From here on nothing of them changes, until `thaw` or `drain`. */
  offer(): readonly NamedSocket[];
  thaw(): void;
  /** A drain that is under way is to end earlier. */
  hurry(deadlineMs: number): void;
  drain(deadlineMs: number): Promise<void>;
}

/** Listeners from before this process, and who keeps them for after it. */
export interface NodeSockets {
  readonly inherited: InheritedSockets;
  readonly kept: KeptSockets;
}

/**
 * Runs the node until it is asked to stop, and drains it.
 * @param makeSource is given the identities of this node's own workloads, for a CA in the same process.
 */
export async function runNode(settings: Settings, runtime: Runtime, makeSource: (isLocal: (id: SpiffeId) => boolean, listeners: ProcessListeners, sockets: NodeSockets) => Promise<NodeParts>): Promise<number> {
  const { lifecycle, clock, random, metrics, serviceManager } = runtime;
  const log = runtime.log.scope("ztunnel");
  const configLog = runtime.log.scope("config");
  const told = settings.xdsAddress !== null;
  const configured = lifecycle.readiness.pending("configuration", told ? "waiting for the control plane" : "reading the configuration directory");
  const threadsReady = lifecycle.readiness.pending("data threads", "starting");

  // First of all: from here on nobody else writes to the state directory, or whoever does is about to leave it to us.
  const entered = await enterState({ state: settings.state, role: runtime.role, handover: settings.handover, environment: process.env });
  if (!entered.ok) return fail(runtime, entered.error);
  const { lock, inherited, takeover } = entered.value;
  const listeners = new ProcessListeners(inherited);
  const inPlace = lifecycle.readiness.pending("place", takeover === null ? "starting" : `process ${takeover.predecessorPid} has it still`);
  const ports = listenAdmin({ admin: settings.adminAddress, metrics: settings.metricsAddress, readiness: settings.readinessAddress }, listeners);
  if (!ports.ok) return fail(runtime, ports.error);
  const kept = new KeptSockets(serviceManager);

  const svidStore = openSvidStore(`${settings.state}/svids`);
  if (!svidStore.ok) return fail(runtime, svidStore.error);
  const restored = svidStore.value.load(clock.wallMs());
  for (const ignored of restored.ignored) log.warn("a stored certificate was passed over", { reason: ignored });

  const localIdentities = new Set<SpiffeId>();
  const parts = await makeSource((id) => localIdentities.has(id), listeners, { inherited, kept });

  const threadWatch = new ThreadWatch({ count: workerThreads(settings), nameOf: (i) => `data-${i}`, clock, log, watchdogMs: serviceManager.watchdogMs });
  const credit = new LogCredit();
  const store = new MeshStore({ followed: true });
  let crl: CrlWatch | null = null;
  let hasBeenReady = false;
  lifecycle.readiness.onChange((ready) => (hasBeenReady ||= ready));
  let pendingChanged = Promise.withResolvers<void>();
  const agent = await NodeAgent.start({
    dataPlane: dataPlaneConfig(settings),
    pulses: threadWatch.pulses,
    owner: `weft-${process.pid}`,
    inherited,
    dnsCapture: settings.dnsCapture,
    redirection: told ? RULES_OF_CNI : OWN_RULES,
    store,
    storeFollows: told ? "source" : "agent",
    ipv6: settings.ipv6,
    metrics,
    logCredit: credit.buffer,
    source: tellingSource(parts.source, log, clock),
    svidStore: svidStore.value,
    restored: restored.svids,
    svidLifetimeMs: settings.certificateLifetimeMs,
    clock,
    random,
    events: {
      accessLog: (lines, lineCount) => {
        const { length } = lines;
        runtime.log.accessLines(lines, lineCount, () => credit.giveBack(length));
      },
      warning: (code, message) => log.warn(message, { code }),
      info: (code, message) => log.info(message, { code }),
      debug: (message, fields) => log.debug(message, fields),
      certificatePublished: () => crl?.reload(),
      certificatesAwaited: (identities) => {
        // Whoever waits for us to be ready ends the agent before us: what it carries must find certificates here. Later ones are no reason.
        if (told && !hasBeenReady) lifecycle.readiness.set("certificates", identities.length === 0 ? null : `waiting for the CA's answer about ${summarise(identities)}`);
      },
      pendingChanged: ({ first, failed }) => {
        // One workload that cannot be attached is its own trouble: it must not have the others' agent started anew.
        lifecycle.readiness.remark("workloads", failed.length === 0 ? null : `not in the mesh, tried again: ${summarise(failed)}`);
        lifecycle.readiness.set("workloads", first.length === 0 ? null : summarise(first));
        pendingChanged.resolve();
        pendingChanged = Promise.withResolvers();
      },
      socketsOpened: (sockets) => kept.keep(sockets),
      socketsClosing: (names) => kept.letGo(names),
      fatal: (error) => {
        log.error("a data thread ended unexpectedly", { error: error.stack ?? error.message });
        lifecycle.requestStop({ message: "a data thread ended unexpectedly", successorPid: null, exitStatus: EXIT_FAILURE });
        lifecycle.forceStop();
      },
    },
  });
  threadsReady();

  const diagnosticLog = new DiagnosticLog(configLog, told ? "debug" : "info");
  let toldMisplaced: string | null = null;
  const apply = (state: ConfigState) => {
    for (const { uid } of state.localWorkloads) {
      const workload = state.mesh.workloads.get(uid);
      if (workload !== undefined) localIdentities.add(spiffeId(workload.trustDomain, workload.namespace, workload.serviceAccount));
    }
    agent.apply(state);
    parts.beside?.apply(state);
    tellChanges(configLog, state.version, state.delta);
    const { localWorkloads } = state;
    diagnosticLog.tell(state, { node: settings.node, local_workloads: localWorkloads.length, captured: localWorkloads.filter(({ captured }) => captured).length });
    // Told by a CNI agent, a node without workloads is an ordinary one.
    const misplaced = told ? null : noWorkloadHere(settings.node, state.localWorkloads.length, state.mesh.workloads.values());
    if (misplaced !== null && misplaced !== toldMisplaced) configLog.warn(misplaced);
    toldMisplaced = misplaced;
    metrics.cell("weft_configuration_changes_total", {}).value++;
    metrics.cell("weft_configuration_errors", {}).value = state.diagnostics.filter(({ severity }) => severity === "error").length;
  };

  const opened = await openConfigSource({ settings, runtime, client: "node", store, onChange: apply, environment: process.env });
  if (opened === null) {
    const { message, exitStatus } = await lifecycle.stopped();
    log.info("stopped before there was a configuration", { reason: message });
    takeover?.abandon();
    await agent.drain(0, false);
    await parts.close();
    return exitStatus;
  }
  const configuration = opened.source;
  apply(configuration.state);
  configured();
  // What it speaks brings in the protobuf library: a tenth of the memory of a node without it.
  const cni = opened.setLocalWorkloads === null ? null : (await import("./follow-cni.ts")).followCni({ settings, runtime, agent, setLocalWorkloads: opened.setLocalWorkloads });
  lifecycle.onReload(() => configuration.reload());

  const crlPath = settings.crl ?? parts.crlPath;
  crl = crlPath === null ? null : new CrlWatch({
    path: crlPath,
    issuers: () => knownIssuers(agent.certificates),
    wallMs: () => clock.wallMs(),
    timers: systemTimers,
    onRevoked: (serials) => agent.revoked(serials),
    onWarning: (code, message) => (agent.certificates.length === 0 ? undefined : log.warn(message, { code })),
  });

  const lag = new LagProbe();
  runtime.healthy = () => threadWatch.allAlive && (parts.beside?.allAlive() ?? true);
  runtime.collectGarbage = () => {
    agent.threads.post({ kind: "collectGarbage" });
    parts.beside?.collectGarbage();
  };
  const exposition = new Exposition();
  const up = Promise.all([settled(agent, () => pendingChanged.promise), besideSettled(parts.beside)]).then(([own, beside]) => (own.ok ? beside : own));
  // What nobody took by then nobody will: it belongs to workloads that have gone.
  const trimmed = up.then(() => kept.letGo(inherited.closeRest()));
  let predecessorEnded: Promise<void> = Promise.resolve();
  if (takeover !== null) {
    const served = await up;
    await trimmed;
    const place = served.ok ? await takePlace(takeover, agent, log) : served;
    if (place.ok) predecessorEnded = place.value.ended;
    if (!place.ok) {
      takeover.abandon();
      return fail(runtime, `the running process (${takeover.predecessorPid}) keeps its place: ${place.error}`);
    }
  }
  kept.keep(listeners.sockets);
  const successors = settings.handover
    ? awaitSuccessor({
        state: settings.state, role: runtime.role, lifecycle, log, lockFd: lock.fd, setWritable: parts.setWritable,
        offer: () => [...agent.offer(), ...(parts.beside?.offer() ?? []), ...listeners.sockets],
        thaw: () => {
          agent.thaw();
          parts.beside?.thaw();
        },
      })
    : null;
  inPlace();

  const admin = await startAdmin(
    ports.value,
    {
      log: runtime.log,
      lifecycle,
      version: VERSION,
      exposition,
      processMetrics: processMetrics(),
      renewCertificates: () => agent.renewCertificates(),
      snapshots: async () => {
        observeNode(agent, metrics, clock.wallMs());
        lag.tell(metrics);
        threadWatch.observe(metrics);
        return [metrics.snapshot(), ...((await agent.threads.snapshot("metrics")) as MetricsSnapshot[]), ...((await parts.beside?.snapshots()) ?? [])];
      },
      ...(parts.beside === undefined ? {} : { clusters: () => parts.beside!.clusters() }),
      configDump: () => dumpNode(agent, runtime, async () => ({ diagnostics: configuration.state.diagnostics.map(formatDiagnostic), ...(await parts.beside?.dump()) })),
    },
  );
  const reason = await lifecycle.stopped();
  cni?.disconnect();
  const replaced = reason.successorPid !== null;
  const releases = !replaced && settings.onStop === "release";
  // Their rules stay, and lead to ports that nobody listens on.
  const cutOff = replaced || releases ? 0 : agent.attachedCount;
  await leave(reason, {
    settings, lifecycle, log, configuration, lock, admin, successors, predecessorEnded,
    handOver: () => parts.handOver(),
    hurry: (deadlineMs) => {
      agent.hurry(deadlineMs);
      parts.beside?.hurry(deadlineMs);
    },
    drain: async (deadlineMs) => (await Promise.all([agent.drain(deadlineMs, releases, replaced || !told), parts.beside?.drain(deadlineMs)]))[0],
    // The revocation list, too, judges what is left while a successor serves.
    judged: () => crl?.close(),
    close: () => {
      if (cutOff > 0) log.warn(`${cutOff} ${cutOff === 1 ? "workload stays" : "workloads stay"} cut off until the next start (--on-stop hold)`);
      cni?.close();
      return parts.close();
    },
  });
  lag.stop();
  threadWatch.stop();
  return reason.exitStatus;
}

async function besideSettled(beside: NodeCompanion | undefined): Promise<Result<void, string>> {
  if (beside === undefined) return ok(undefined);
  const late = Promise.withResolvers<Result<void, string>>();
  const timer = setTimeout(() => late.resolve(err(`the waypoints of this node were not ready after ${SETTLE_MS_MAX} ms`)), SETTLE_MS_MAX);
  try {
    return await Promise.race([beside.settled(), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function fail(runtime: Runtime, message: string): number {
  runtime.log.scope("ztunnel").error(message);
  return EXIT_FAILURE;
}

/** Few enough for a status line. */
function summarise(pending: readonly string[]): string {
  const shown = pending.slice(0, 3).join("; ");
  return pending.length > 3 ? `${shown}; and ${pending.length - 3} more` : shown;
}
