// The workloads of this node as its CNI agent tells them (ZDS): a ztunnel under Istio's CNI or ours. Their rules are the CNI agent's.

import type { Runtime } from "../runtime/runtime.ts";
import type { Settings } from "../runtime/settings.ts";
import { systemTimers } from "../net/timers.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { NodeAgent } from "./node-agent.ts";
import { ZdsClient } from "./zds/zds-client.ts";

export interface FollowCniOptions {
  readonly settings: Settings;
  readonly runtime: Runtime;
  readonly agent: NodeAgent;
  readonly setLocalWorkloads: (workloads: readonly LocalWorkload[]) => void;
}

/** Name of the task that keeps the node from being ready. */
const TASK = "workloads of this node";

export function followCni({ settings, runtime, agent, setLocalWorkloads }: FollowCniOptions): Pick<ZdsClient, "disconnect" | "close"> {
  const { lifecycle, random } = runtime;
  const log = runtime.log.scope("ztunnel.cni");
  lifecycle.readiness.set(TASK, `waiting for the CNI agent at ${settings.zdsSocket}`);
  const client = new ZdsClient({
    path: settings.zdsSocket,
    clusterId: settings.clusterId,
    setLocalWorkloads,
    attachment: (uid) => agent.attachment(uid),
    certificate: (uid) => agent.certificateMissing(uid),
    random,
    timers: systemTimers,
    onEvent: (event) => {
      switch (event.kind) {
        case "connected":
          lifecycle.readiness.remark("CNI agent", null);
          return log.info("connected to the CNI agent", { path: settings.zdsSocket });
        case "disconnected":
          lifecycle.readiness.remark("CNI agent", event.reason);
          return log.warn(`no connection to the CNI agent: ${event.reason}; the workloads that are here are served`, { retry_ms: event.retryMs });
        case "snapshot":
          lifecycle.readiness.set(TASK, null);
          return log.info("every workload of this node is known", { workloads: event.workloads });
        case "added":
          return log.debug("a workload of this node", { uid: event.uid, failure: event.failure });
        case "removed":
          return log.debug("a workload has left this node, or the mesh", { uid: event.uid });
        case "refused":
          return log.warn(`the CNI agent said what was not understood: ${event.reason}`);
      }
    },
  });
  client.start();
  return client;
}
