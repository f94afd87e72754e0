// What the CNI agent has told of this node's workloads, as a state that is stepped by its messages. Pure but for the descriptors, which it
// names and whose end it decides.

import type { WorkloadUid } from "../../core/brand.ts";
import type { LocalWorkload } from "../../mesh/local-workload.ts";
import { NOTHING_EXCLUDED } from "../../net/redirect/options.ts";

/** What names a pod in the mesh. */
export interface PodName {
  readonly namespace: string;
  readonly name: string;
}

/** Whose network namespace it is, by device and inode: two descriptors of one namespace are the same workload. */
export interface NamespaceHandle {
  readonly fd: number;
  readonly identity: string;
}

interface Known {
  readonly namespace: NamespaceHandle;
  readonly local: LocalWorkload;
}

export class ZdsWorkloads {
  readonly #clusterId: string;
  /** By the CNI agent's uid, in order of arrival: of two with one name the younger is the living one. */
  readonly #known = new Map<string, Known>();
  /** Named since the connection was made; null once everything has been told. */
  #named: Set<string> | null = new Set();

  constructor(clusterId: string) {
    this.#clusterId = clusterId;
  }

  /** A new connection: everything will be told again. */
  begin(): void {
    this.#named = new Set();
  }

  get size(): number {
    return this.#known.size;
  }

  /** @returns the workload's uid in the mesh, and the descriptor to close: the new one where the namespace is known already, or the old one. */
  add(uid: string, pod: PodName, namespace: NamespaceHandle): { readonly workload: WorkloadUid; readonly close: number | null } {
    this.#named?.add(uid);
    const known = this.#known.get(uid);
    if (known !== undefined && known.namespace.identity === namespace.identity) return { workload: known.local.uid, close: namespace.fd };
    const local = localWorkload(this.#clusterId, pod, namespace);
    this.#known.delete(uid);
    this.#known.set(uid, { namespace, local });
    return { workload: local.uid, close: known?.namespace.fd ?? null };
  }

  /** Its namespace is not known to the CNI agent: it goes on here, if it is here. */
  keep(uid: string): void {
    this.#named?.add(uid);
  }

  /** @returns the descriptor to close, or null: nobody of that uid was here. */
  remove(uid: string): number | null {
    const known = this.#known.get(uid);
    this.#known.delete(uid);
    return known?.namespace.fd ?? null;
  }

  /** Everything was told: who was not named has gone. @returns the descriptors to close. */
  snapshot(): readonly number[] {
    const named = this.#named;
    this.#named = null;
    if (named === null) return [];
    return [...this.#known.keys()].filter((uid) => !named.has(uid)).map((uid) => this.remove(uid)).filter((fd) => fd !== null);
  }

  /** One for each name. */
  get localWorkloads(): readonly LocalWorkload[] {
    const byUid = new Map<WorkloadUid, LocalWorkload>();
    for (const { local } of this.#known.values()) byUid.set(local.uid, local);
    return [...byUid.values()];
  }

  /** Every descriptor that is held. */
  get descriptors(): readonly number[] {
    return [...this.#known.values()].map(({ namespace }) => namespace.fd);
  }
}

/** The uid is the mesh's, not the CNI agent's: pods are told by their name there. Names were checked by who read the message. */
function localWorkload(clusterId: string, { namespace, name }: PodName, { fd }: NamespaceHandle): LocalWorkload {
  return {
    uid: `${clusterId}//Pod/${namespace}/${name}` as WorkloadUid, namespace, name, networkNamespace: { kind: "path", path: `/proc/self/fd/${fd}` }, addresses: [], captured: true,
    inboundCapture: true, dnsCapture: null, exclusions: NOTHING_EXCLUDED, provenance: { kind: "Pod", namespace, name, resourceVersion: "", fieldPath: "" },
  };
}
