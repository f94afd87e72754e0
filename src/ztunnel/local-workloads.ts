// Workloads attached to this data thread: their namespace, their listeners, and the connections that belong to them.

import type { WorkloadUid } from "../core/brand.ts";
import type { SocketReserve } from "../net/socket-reserve.ts";
import type { LiveConnection } from "../tunnel/live-connection.ts";

export interface LocalWorkload {
  readonly uid: WorkloadUid;
  readonly namespaceFd: number;
  /** Where connections dialled from its namespace get their sockets. */
  readonly sockets: SocketReserve;
  readonly connections: Set<LiveConnection>;
  /** No new connections are accepted; those that live may go on. */
  stopAccepting(): void;
}

export class LocalWorkloads {
  readonly #byUid = new Map<WorkloadUid, LocalWorkload>();

  get(uid: WorkloadUid): LocalWorkload | undefined {
    return this.#byUid.get(uid);
  }

  add(workload: LocalWorkload): void {
    this.#byUid.set(workload.uid, workload);
  }

  delete(uid: WorkloadUid): void {
    this.#byUid.delete(uid);
  }

  [Symbol.iterator](): IterableIterator<LocalWorkload> {
    return this.#byUid.values();
  }
}
