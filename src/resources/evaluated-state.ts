// What is made of all resources in force, wherever they come from, and whoever is told of it.

import type { L7Delta, L7Snapshot } from "../mesh/l7/delta.ts";
import type { MeshDelta } from "../mesh/records.ts";
import type { MeshSnapshot } from "./mesh-delta.ts";

export interface EvaluatedState {
  readonly mesh: MeshSnapshot;
  /** From the state before to this one; of the first, everything. */
  readonly delta: MeshDelta;
  /** What waypoints need, with its own delta. */
  readonly l7: L7Snapshot;
  readonly l7Delta: L7Delta;
}
