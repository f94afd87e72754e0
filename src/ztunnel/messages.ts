// What crosses between the main thread (configuration, certificates, admin) and a data thread (user bytes).
// Plain data only. The data thread never waits for an answer to keep existing connections moving.

import type { WorkloadUid } from "../core/brand.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { SvidPriority } from "../identity/svid.ts";
import type { MeshNews } from "../mesh/store.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import type { LineBytes } from "../telemetry/log-batch.ts";
import type { IdentityNews } from "../tunnel/thread-tunnels.ts";

/**
 * Listening descriptors of one workload for one data thread, made by the main thread in the workload's namespace. One each, and more
 * where a predecessor with more data threads had more.
 */
export interface WorkloadListeners {
  readonly outboundFds: readonly number[];
  readonly inboundPlaintextFds: readonly number[];
  readonly inboundHboneFds: readonly number[];
}

export type ToData =
  | { readonly kind: "configure"; readonly config: DataPlaneConfig; readonly logCredit: SharedArrayBuffer | null; readonly pulse: SharedArrayBuffer | null }
  | { readonly kind: "mesh"; readonly news: MeshNews }
  | IdentityNews
  | { readonly kind: "attach"; readonly question: string; readonly uid: WorkloadUid; readonly namespaceFd: number; readonly listeners: WorkloadListeners }
  /** `gone`: the workload has left, its connections end now. `released`: it left the mesh, what is open goes on until it ends. */
  | { readonly kind: "detach"; readonly uid: WorkloadUid; readonly mode: "gone" | "released" }
  | { readonly kind: "snapshot"; readonly question: string; readonly what: "metrics" | "connections" }
  /** The process is quiet: give back what the load that is over has left. */
  | { readonly kind: "collectGarbage" }
  | { readonly kind: "drain"; readonly deadlineMs: number };

/** Beside answers: to `configure` ("ready"), `attach` (null, or why not), `snapshot`, and `drain` ("closed": the listeners are; "drained": connections closed by force). */
export type FromData =
  | { readonly kind: "needSvid"; readonly spiffeId: SpiffeId; readonly priority: SvidPriority }
  /** The last connection of a detached workload has ended here. */
  | { readonly kind: "released"; readonly uid: WorkloadUid; readonly namespaceFd: number }
  | { readonly kind: "log"; readonly lines: LineBytes; readonly lineCount: number }
  | { readonly kind: "warning"; readonly code: string; readonly message: string; readonly peer: string };
