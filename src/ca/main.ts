// `weft ca`: the CA by itself, for nodes elsewhere.

import { listenAdmin, startAdmin } from "../runtime/admin.ts";
import { InheritedSockets } from "../runtime/inherited-sockets.ts";
import { ProcessListeners } from "../runtime/process-listeners.ts";
import { processMetrics } from "../runtime/process-metrics.ts";
import type { RoleMain } from "../runtime/runtime.ts";
import { describeSettings } from "../runtime/settings.ts";
import { StateLock } from "../runtime/state-lock.ts";
import { VERSION } from "../runtime/version.ts";
import { Exposition } from "../telemetry/exposition.ts";
import { startCa } from "./start-ca.ts";

/** Istio's port for this service. */
const CA_LISTEN_DEFAULT = { ip: "::", port: 15012 } as const;

export const run: RoleMain = async (settings, runtime) => {
  const opening = runtime.lifecycle.readiness.pending("CA", "opening");
  const caListen = settings.caListen ?? (CA_LISTEN_DEFAULT as unknown as NonNullable<typeof settings.caListen>);
  const lock = await StateLock.take(settings.state, "ca");
  if (!lock.ok) throw new Error(lock.error);
  const listeners = new ProcessListeners(new InheritedSockets([], false));
  const ca = await startCa({ ...settings, caListen }, runtime, listeners);
  opening();
  const ports = listenAdmin({ admin: settings.adminAddress, metrics: settings.metricsAddress, readiness: settings.readinessAddress }, listeners);
  if (!ports.ok) {
    await ca.close();
    throw new Error(ports.error);
  }
  const admin = await startAdmin(
    ports.value,
    {
      log: runtime.log,
      lifecycle: runtime.lifecycle,
      version: VERSION,
      exposition: new Exposition(),
      processMetrics: processMetrics(),
      snapshots: async () => [runtime.metrics.snapshot()],
      configDump: async () => ({ role: "ca", config: describeSettings(runtime.role, runtime.parsed), version: VERSION }),
    },
  );
  const reason = await runtime.lifecycle.stopped();
  lock.value.ending();
  await ca.close();
  await admin.stop();
  return reason.exitStatus;
};
