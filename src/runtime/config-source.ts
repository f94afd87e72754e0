// Where the configuration comes from: a directory of YAML, or a control plane. Whoever runs by it knows neither.

import type { L7Delta, L7Snapshot } from "../mesh/l7/delta.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { MeshDelta } from "../mesh/records.ts";
import type { Diagnostic } from "../resources/diagnostic.ts";
import type { ResourceStatus } from "../resources/l7/status.ts";
import type { MeshSnapshot } from "../resources/mesh-delta.ts";

export interface ConfigState {
  /** 1 for the first, then one more for each state that differs in anything below. */
  readonly version: number;
  readonly mesh: MeshSnapshot;
  /** From the state before to this one; of the first state, everything. */
  readonly delta: MeshDelta;
  /** What waypoints need, with its own delta. */
  readonly l7: L7Snapshot;
  readonly l7Delta: L7Delta;
  /** What the status of each object in force would say. */
  readonly statuses: readonly ResourceStatus[];
  readonly localWorkloads: readonly LocalWorkload[];
  readonly diagnostics: readonly Diagnostic[];
  readonly resourceCount: number;
}

export interface ConfigSource extends AsyncDisposable {
  /** The state in force. */
  readonly state: ConfigState;
  /** Looks again now, as SIGHUP asks for. */
  reload(): void;
  /** Goes on, and leaves the last good state on disk to another process. */
  stopStoring(): void;
  /** Resolves when the last good state of all that was told so far is on disk. */
  stored(): Promise<void>;
}
