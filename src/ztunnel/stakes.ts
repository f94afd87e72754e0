// Whose live connections a change of the mesh may decide otherwise, so that of ten thousand none is judged again for a pod elsewhere. Errs on
// the side of judging. What decides over a connection that lives: the record of the workload that it came to, the policies that bind it, and,
// where it or one of its services has a waypoint, who that is now.

import type { WorkloadUid } from "../core/brand.ts";
import type { Workload } from "../mesh/records.ts";
import type { MeshStore, PolicySet, StoreChange } from "../mesh/store.ts";

export class Stakes {
  readonly #store: MeshStore;
  /** The policies by which its connections were last judged, by workload of this node. */
  readonly #judgedBy = new Map<WorkloadUid, PolicySet>();

  constructor(store: MeshStore) {
    this.#store = store;
  }

  /** Asked after each change, of each workload with connections here: what it says is remembered as done. */
  concerns(uid: WorkloadUid, { workloadsChanged, servicesChanged }: StoreChange): boolean {
    const workload = this.#store.workload(uid);
    // Connections may wait for it, and those that do not are few.
    if (workload === undefined) return true;
    const policies = this.#store.policiesFor(workload);
    const sameRules = this.#judgedBy.get(uid) === policies;
    this.#judgedBy.set(uid, policies);
    return !sameRules || workloadsChanged.has(uid) || workload.services.some(({ service }) => servicesChanged.has(service)) || this.#behindWaypoint(workload);
  }

  forget(uid: WorkloadUid): void {
    this.#judgedBy.delete(uid);
  }

  #behindWaypoint({ waypoints, services }: Workload): boolean {
    return waypoints.length > 0 || services.some(({ service }) => (this.#store.service(service)?.waypoints.length ?? 0) > 0);
  }
}
