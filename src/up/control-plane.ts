// `weft control`: the control plane of a Kubernetes cluster. Watches, xDS and the CA behind one port; the CA's keys are shared by all
// replicas through a Secret.

import { authorityOptions } from "../ca/authority-options.ts";
import { SharedAuthority } from "../ca/shared-authority.ts";
import { CaServer } from "../ca/server.ts";
import { logCaEvent } from "../ca/server-events.ts";
import { serverNames } from "../ca/server-names.ts";
import type { Api } from "../runtime/kubernetes/api.ts";
import { Secrets } from "../control/secrets.ts";
import type { WaypointEnvironment } from "../control/waypoint/waypoint-objects.ts";
import { ControlPlane } from "../control/control-plane.ts";
import { controlMetrics } from "../control/metrics.ts";
import { formatSocketAddress, parseIp } from "../core/ip.ts";
import { pause } from "../core/pause.ts";
import { unreachable } from "../core/result.ts";
import { systemTimers } from "../net/timers.ts";
import { listenAdmin, startAdmin } from "../runtime/admin.ts";
import { inClusterAccess } from "../runtime/kubernetes/access.ts";
import { KubernetesClient } from "../runtime/kubernetes/client.ts";
import { kubeconfigAccess } from "../runtime/kubernetes/kubeconfig.ts";
import { InheritedSockets } from "../runtime/inherited-sockets.ts";
import type { Logger } from "../runtime/logger.ts";
import { ProcessListeners } from "../runtime/process-listeners.ts";
import { processMetrics } from "../runtime/process-metrics.ts";
import type { RoleMain, Runtime } from "../runtime/runtime.ts";
import { describeSettings, drainMs, type Settings } from "../runtime/settings.ts";
import { hostPort } from "../runtime/setting-types.ts";
import { StateLock } from "../runtime/state-lock.ts";
import { VERSION } from "../runtime/version.ts";
import { Exposition } from "../telemetry/exposition.ts";
import { XdsServer, type XdsServerEvent } from "../xds/server.ts";

const NOTHING_ISSUED = { issued: 0, refused: {} };
const OPENING = "CA";
const OPEN_AGAIN_MS = 2_000;
/** After being asked to stop: new clients are sent here until the cluster's endpoints and every node's rules have changed. */
const STILL_SERVED_MS = 5_000;
const LISTEN_DEFAULT = { ip: parseIp("::")!, port: 15012 };
/** Names of the Services by which agents know a control plane: ours, and Istio's for agents that come from there. */
const SERVICES = ["weft-control", "istiod"] as const;

export const run: RoleMain = async (settings, runtime) => {
  const { log: allLog, lifecycle, clock, random } = runtime;
  const log = allLog.scope("control");
  lifecycle.readiness.set(OPENING, "opening");
  const access = settings.kubeconfig === null ? inClusterAccess(process.env) : kubeconfigAccess(settings.kubeconfig);
  if (!access.ok) throw new Error(`the way to the Kubernetes API: ${access.error}${settings.kubeconfig === null ? "; outside of a cluster give --kubeconfig" : ""}`);
  const api = new KubernetesClient(access.value);
  const lock = await StateLock.take(settings.state, "control");
  if (!lock.ok) throw new Error(lock.error);

  let server: CaServer | null = null;
  let shared: SharedAuthority | null = null;
  const listing = lifecycle.readiness.pending("cluster", "listing");
  const control = new ControlPlane({
    api, clock, random, timers: systemTimers, log,
    translation: {
      node: "", clusterId: settings.clusterId, clusterDomain: settings.clusterDomain, trustDomain: settings.trustDomain, network: settings.network, rootNamespace: settings.rootNamespace, remoteGatewayNamespaces: settings.remoteGatewayNamespaces, serviceCidrs: settings.serviceCidrs,
    },
    namespaces: settings.watchNamespaces, namespace: settings.podNamespace, replica: settings.podName, nodeAccounts: settings.nodeAccounts, audience: settings.tokenAudience,
    waypoints: waypointEnvironment(settings),
    trustBundle: () => shared!.authority.authority.trustBundlePem,
    // No reason to send clients elsewhere: every replica hears as little, and what was known is served on.
    onTrouble: (trouble) => lifecycle.readiness.remark("Kubernetes API", trouble),
    publish: (state, { sinceMs, evaluationMs, changes }) => {
      void xds.publish(state).then(() => {
        listing();
        log.debug("published", { state: xds.publishedState, changes, evaluationMs: Math.round(evaluationMs), sinceChangeMs: Math.round(clock.monotonicMs() - sinceMs) });
      });
    },
  });
  const replica = { name: settings.podName, version: VERSION, clusterId: settings.clusterId };
  const xds = new XdsServer({ replica, authenticate: control.callers, clock, random, timers: systemTimers, onEvent: (event) => tellXds(log, event) });
  const listeners = new ProcessListeners(new InheritedSockets([], false));
  const ports = listenAdmin({ admin: settings.adminAddress, metrics: settings.metricsAddress, readiness: settings.readinessAddress }, listeners);
  if (!ports.ok) throw new Error(ports.error);
  // Before anything is waited for: whoever asks is told what it is.
  const admin = await startAdmin(ports.value, {
    log: allLog, lifecycle, version: VERSION, exposition: new Exposition(),
    processMetrics: [...processMetrics(), ...controlMetrics(control, () => server?.counters ?? NOTHING_ISSUED, xds)],
    snapshots: async () => [runtime.metrics.snapshot()],
    configDump: async () => ({
      role: "control", config: describeSettings(runtime.role, runtime.parsed), version: VERSION, counts: control.source.set.counts, unsynced: control.source.unsynced,
      lease: { holder: control.lease.holder, holds: control.lease.holds }, publishedState: xds.publishedState, clients: xds.clients(), broken: [...control.source.set.broken()],
    }),
  });
  shared = await openAuthority(settings, runtime, api, log, () => {
    server?.renewServerCertificate();
    control.trustBundleChanged();
  });
  const { authority } = shared;
  const listen = settings.caListen ?? LISTEN_DEFAULT;
  const port = new CaServer({
    authority: authority.authority, tokens: control.callers, clock, timers: systemTimers, serverNames: serverNames(listen.ip, agentNames(settings)), record: authority.record, beside: xds, onEvent: (event) => logCaEvent(log, event),
  });
  server = port;
  // Not before it is served: a client that is let in and hears nothing does not go to another replica.
  const listener = listeners.listen("control", listen);
  if (!listener.ok) throw new Error(`the control plane ${listener.error}`);
  await port.listen({ fd: listener.value.fd });
  log.info("the control plane listens", { address: formatSocketAddress(listen), api: access.value.server });
  control.start();

  const reason = await lifecycle.stopped();
  lock.value.ending();
  // The Lease goes first: another replica writes while this one ends.
  await control.lease.stop();
  await pause(systemTimers, STILL_SERVED_MS, lifecycle.force);
  await control.stop();
  xds.close();
  await port.drain(drainMs(settings));
  shared.destroy();
  await admin.stop();
  return reason.exitStatus;
};

async function openAuthority(settings: Settings, runtime: Runtime, api: Api, log: Logger, onChange: () => void): Promise<SharedAuthority> {
  const open = () => SharedAuthority.open({ ...authorityOptions(settings, runtime.clock, log), onChange, secrets: new Secrets(api, settings.podNamespace) });
  // An API server that is away, or permissions that are still to come: whoever runs us sees it in the readiness, and nothing is lost.
  const { readiness, stop } = runtime.lifecycle;
  for (let told = ""; ; ) {
    const opened = await open();
    if (opened.ok) {
      readiness.set(OPENING, null);
      return opened.value;
    }
    if (opened.error !== told) log.error("the CA cannot be opened; trying again", { error: opened.error, everyMs: OPEN_AGAIN_MS });
    told = opened.error;
    readiness.set(OPENING, opened.error);
    await pause(systemTimers, OPEN_AGAIN_MS, stop);
    if (stop.aborted) throw new Error(`stopped before the CA could be opened: ${opened.error}`);
  }
}

function tellXds(log: Logger, event: XdsServerEvent): void {
  switch (event.kind) {
    case "connected":
      return log.info("client connected", { id: event.id, caller: event.caller, peer: event.peer });
    case "disconnected":
      return log.info("client gone", { id: event.id, reason: event.reason });
    case "refused":
      return log.warn("client refused", { id: event.id, reason: event.message });
    case "rejected":
      return log.warn("a client refused resources", { id: event.id, type: event.typeUrl, reason: event.message });
    case "fault":
      return log.error(event.message);
    default:
      return unreachable(event);
  }
}

function waypointEnvironment(settings: Settings): WaypointEnvironment | null {
  const { waypointImage: image, waypointPullPolicy: imagePullPolicy, controlAddress, podNamespace, tokenAudience: audience, trustDomain, clusterId, clusterDomain, network, rootNamespace } = settings;
  if (image === null) return null;
  const at = controlAddress ?? { host: `${SERVICES[0]}.${podNamespace}.svc`, port: LISTEN_DEFAULT.port };
  return { image, imagePullPolicy, controlAddress: hostPort.format(at), audience, trustDomain, clusterId, clusterDomain, network, rootNamespace };
}

/** The names by which agents may know this replica: its Services in every form that DNS resolves, and those that the settings add. */
function agentNames({ podNamespace, clusterDomain, serverNames: more }: Settings): string[] {
  return [...SERVICES.flatMap((service) => ["", ".svc", `.svc.${clusterDomain}`].map((suffix) => `${service}.${podNamespace}${suffix}`)), ...more];
}
