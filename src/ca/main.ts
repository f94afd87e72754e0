// `weft ca`: the CA by itself, for nodes elsewhere.

import { startAdmin } from "../runtime/admin.ts";
import { processMetrics } from "../runtime/process-metrics.ts";
import type { RoleMain } from "../runtime/runtime.ts";
import { describeSettings } from "../runtime/settings.ts";
import { VERSION } from "../runtime/version.ts";
import { Exposition } from "../telemetry/exposition.ts";
import { startCa } from "./start-ca.ts";

/** Istio's port for this service. */
const CA_LISTEN_DEFAULT = { ip: "::", port: 15012 } as const;

export const run: RoleMain = async (settings, runtime) => {
  const opening = runtime.lifecycle.readiness.pending("CA", "opening");
  const caListen = settings.caListen ?? (CA_LISTEN_DEFAULT as unknown as NonNullable<typeof settings.caListen>);
  const ca = await startCa({ ...settings, caListen }, runtime);
  opening();
  const admin = startAdmin(
    { admin: settings.adminAddress, metrics: settings.metricsAddress, readiness: settings.readinessAddress },
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
  if (!admin.ok) {
    await ca.close();
    throw new Error(admin.error);
  }
  const reason = await runtime.lifecycle.stopped();
  await ca.close();
  await admin.value.stop();
  return reason.exitStatus;
};
