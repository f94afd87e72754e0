// Pods, the nodes that they run on, and slices of endpoints that somebody lists by hand; and the workloads made of them, each again only when
// it, its node, a slice that names it or what its namespace shares has changed.

import type { WorkloadUid } from "../../core/brand.ts";
import type { IpAddress } from "../../core/ip.ts";
import { addTo, removeFrom } from "../../core/set-index.ts";
import { ITEMS_PER_STEP, type Steps } from "../../core/steps.ts";
import type { WorkloadLabels } from "../../mesh/l7/workload-labels.ts";
import type { Workload } from "../../mesh/records.ts";
import { PodAddresses } from "../claims/pod-addresses.ts";
import type { EndpointSlice } from "../kinds/endpoint-slice.ts";
import type { Node } from "../kinds/node.ts";
import type { Pod } from "../kinds/pod.ts";
import { deepEqual } from "../mesh-delta.ts";
import type { NamespaceSurroundings } from "../namespace-context.ts";
import type { Labels } from "../object-meta.ts";
import type { TranslationOptions } from "../resource.ts";
import { refusedWaypoint } from "../waypoint-binding.ts";
import { type ClusterDiagnostic, describeBeyond, describeRefused } from "./cluster-diagnostic.ts";
import { NO_PEER, translateListedEndpoint, type TranslatedPod, translatePod } from "./translate-pod.ts";

interface PodEntry {
  pod: Pod;
  workload: Workload | null;
  /** `namespace/name` of the waypoint that does not take it; null when there is none such. */
  refusedBy: string | null;
}

export interface PodTableParts {
  readonly options: TranslationOptions;
  /** What the pods of a namespace share; null while it is not known. */
  readonly surroundings: (namespace: string) => NamespaceSurroundings | null;
  /** Addresses are somebody's now, or nobody's any more. */
  readonly onAddresses: (addresses: readonly IpAddress[]) => void;
  /** Something else is to be told of pods. */
  readonly onTold: () => void;
}

/** What became of workloads since the last time. */
export interface MovedWorkloads {
  readonly upserted: readonly Workload[];
  readonly removed: ReadonlySet<WorkloadUid>;
}

const NOTHING: readonly string[] = [];

export class PodTable {
  readonly #parts: PodTableParts;
  readonly #nodes = new Map<string, Node>();
  readonly #pods = new Map<string, PodEntry>();
  readonly #byNamespace = new Map<string, Set<PodEntry>>();
  readonly #byNode = new Map<string, Set<PodEntry>>();
  readonly #byUid = new Map<string, PodEntry>();
  readonly #slices = new Map<string, EndpointSlice>();
  readonly #slicesByPod = new Map<string, Set<EndpointSlice>>();
  readonly #slicesByNamespace = new Map<string, Set<EndpointSlice>>();
  /** Workloads made of each slice. */
  readonly #listed = new Map<string, readonly Workload[]>();
  /** Whose pods have which address. */
  readonly addresses = new PodAddresses<Pod>();
  /** Their waypoint does not take them. */
  readonly #refused = new Set<PodEntry>();
  /** Services that select a pod and have it not for an endpoint: it is one of so many already. */
  readonly #beyond = new Map<PodEntry, readonly string[]>();
  /** What was looked at last. */
  readonly #surroundings = new Map<string, NamespaceSurroundings | null>();
  readonly #dirtyPods = new Set<PodEntry>();
  readonly #dirtySlices = new Set<string>();
  readonly #removed = new Set<WorkloadUid>();

  constructor(parts: PodTableParts) {
    this.#parts = parts;
  }

  get counts(): { readonly pods: number; readonly nodes: number; readonly slices: number } {
    return { pods: this.#pods.size, nodes: this.#nodes.size, slices: this.#slices.size };
  }

  byUid(uid: string): Pod | null {
    return this.#byUid.get(uid)?.pod ?? null;
  }

  *onNode(node: string): Iterable<Pod> {
    for (const { pod } of this.#byNode.get(node) ?? []) yield pod;
  }

  *diagnostics(): Iterable<ClusterDiagnostic> {
    for (const entry of this.#refused) yield describeRefused(entry);
    yield* describeBeyond(this.#beyond);
  }

  /** Of every pod that is a workload. */
  *labels(): Iterable<WorkloadLabels> {
    for (const { pod, workload } of this.#pods.values()) if (workload !== null) yield { uid: workload.uid, labels: pod.labels };
  }

  /** Something is to be translated again. */
  get isMoved(): boolean {
    return this.#dirtyPods.size > 0 || this.#dirtySlices.size > 0 || this.#removed.size > 0;
  }

  setPod(pod: Pod): void {
    const key = nameKey(pod);
    let entry = this.#pods.get(key);
    if (entry === undefined) {
      entry = { pod, workload: null, refusedBy: null };
      this.#pods.set(key, entry);
    } else {
      if (deepEqual(entry.pod, pod)) return;
      this.#unindex(entry);
      entry.pod = pod;
    }
    addTo(this.#byNamespace, pod.namespace, entry);
    const owned = ownedAddresses(pod);
    this.addresses.add(pod, owned);
    this.#parts.onAddresses(owned);
    if (pod.node !== "") addTo(this.#byNode, pod.node, entry);
    this.#byUid.set(pod.uid, entry);
    this.#dirtyPods.add(entry);
  }

  removePod(key: string): void {
    const entry = this.#pods.get(key);
    if (entry === undefined) return;
    this.#pods.delete(key);
    this.#unindex(entry);
    this.#dirtyPods.delete(entry);
    this.#noteRefused(entry, null);
    this.#noteBeyond(entry, NOTHING);
    if (entry.workload !== null) this.#removed.add(entry.workload.uid);
  }

  /** @param node null for one that is gone. */
  setNode(name: string, node: Node | null): void {
    const before = this.#nodes.get(name);
    if (node === null) this.#nodes.delete(name);
    else this.#nodes.set(name, node);
    if (deepEqual(before?.locality, node?.locality)) return;
    for (const entry of this.#byNode.get(name) ?? []) this.#dirtyPods.add(entry);
  }

  setSlice(slice: EndpointSlice): void {
    const key = nameKey(slice);
    this.removeSlice(key);
    this.#slices.set(key, slice);
    addTo(this.#slicesByNamespace, slice.namespace, slice);
    for (const uid of slice.pods) {
      addTo(this.#slicesByPod, uid, slice);
      this.#touchPod(uid);
    }
  }

  removeSlice(key: string): void {
    this.#dirtySlices.add(key);
    const slice = this.#slices.get(key);
    if (slice === undefined) return;
    this.#slices.delete(key);
    removeFrom(this.#slicesByNamespace, slice.namespace, slice);
    for (const uid of slice.pods) {
      removeFrom(this.#slicesByPod, uid, slice);
      this.#touchPod(uid);
    }
  }

  /** Looks for namespaces of which something shared is not what it was: their pods and slices are translated again. */
  *followNamespaces(): Steps<void> {
    for (const namespace of new Set([...this.#byNamespace.keys(), ...this.#slicesByNamespace.keys()])) {
      const now = this.#parts.surroundings(namespace);
      if (this.#surroundings.get(namespace) === now) continue;
      yield;
      this.#surroundings.set(namespace, now);
      for (const entry of this.#byNamespace.get(namespace) ?? []) this.#dirtyPods.add(entry);
      for (const slice of this.#slicesByNamespace.get(namespace) ?? []) this.#dirtySlices.add(nameKey(slice));
    }
    yield;
    for (const namespace of this.#surroundings.keys()) if (!this.#byNamespace.has(namespace) && !this.#slicesByNamespace.has(namespace)) this.#surroundings.delete(namespace);
  }

  /** @param onLabels told of each pod that was looked at; null for one that is no workload any more. */
  *translate(onLabels: (uid: WorkloadUid, labels: Labels | null) => void): Steps<MovedWorkloads> {
    const upserted: Workload[] = [];
    const removed = new Set(this.#removed);
    for (const uid of this.#removed) onLabels(uid, null);
    let looked = 0;
    for (const entry of this.#dirtyPods) {
      if (++looked % ITEMS_PER_STEP === 0) yield;
      const before = entry.workload;
      const { workload, beyond } = this.#translatePod(entry.pod);
      entry.workload = workload;
      this.#noteRefused(entry, refusedWaypoint(workload?.waypoints ?? []));
      this.#noteBeyond(entry, beyond);
      if (workload === null) {
        if (before === null) continue;
        removed.add(before.uid);
        onLabels(before.uid, null);
        continue;
      }
      onLabels(workload.uid, entry.pod.labels);
      if (before !== null && deepEqual(before, workload)) entry.workload = before;
      else upserted.push(workload);
    }
    for (const key of this.#dirtySlices) {
      this.#translateSlice(key, upserted, removed);
      yield;
    }
    this.#dirtyPods.clear();
    this.#dirtySlices.clear();
    this.#removed.clear();
    for (const { uid } of upserted) removed.delete(uid);
    return { upserted, removed };
  }

  /** No peer too while its namespace is not known: which policies hold there is not known either. */
  #translatePod(pod: Pod): TranslatedPod {
    const namespace = this.#parts.surroundings(pod.namespace);
    if (namespace === null) return NO_PEER;
    this.#surroundings.set(pod.namespace, namespace);
    return translatePod(pod, { options: this.#parts.options, namespace, locality: this.#nodes.get(pod.node)?.locality ?? null, slices: [...(this.#slicesByPod.get(pod.uid) ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1)) });
  }

  #translateSlice(key: string, upserted: Workload[], removed: Set<WorkloadUid>): void {
    const slice = this.#slices.get(key);
    const namespace = slice === undefined ? null : this.#parts.surroundings(slice.namespace);
    if (slice !== undefined && namespace !== null) this.#surroundings.set(slice.namespace, namespace);
    const service = slice === undefined ? undefined : namespace?.serviceResources.get(slice.service);
    // A service with a selector has the pods that it selects; slices under its name are somebody else's business.
    const made = slice === undefined || service === undefined || Object.keys(service.spec.selector ?? {}).length > 0 ? [] : slice.endpoints.map((endpoint) => translateListedEndpoint(slice, endpoint, service, this.#parts.options));
    const before = new Map((this.#listed.get(key) ?? []).map((workload) => [workload.uid, workload]));
    for (const workload of made) {
      const known = before.get(workload.uid);
      if (known === undefined || !deepEqual(known, workload)) upserted.push(workload);
      before.delete(workload.uid);
    }
    for (const uid of before.keys()) removed.add(uid);
    if (made.length > 0) this.#listed.set(key, made);
    else this.#listed.delete(key);
  }

  /** A pod has no condition of ours: the log tells of it. */
  #noteRefused(entry: PodEntry, waypoint: string | null): void {
    if (entry.refusedBy === waypoint) return;
    entry.refusedBy = waypoint;
    if (waypoint === null) this.#refused.delete(entry);
    else this.#refused.add(entry);
    this.#parts.onTold();
  }

  #noteBeyond(entry: PodEntry, services: readonly string[]): void {
    if ((this.#beyond.get(entry) ?? NOTHING) === services || (services.length === 0 && !this.#beyond.has(entry))) return;
    if (services.length === 0) this.#beyond.delete(entry);
    else this.#beyond.set(entry, services);
    this.#parts.onTold();
  }

  #unindex(entry: PodEntry): void {
    const { pod } = entry;
    removeFrom(this.#byNamespace, pod.namespace, entry);
    const owned = ownedAddresses(pod);
    this.addresses.remove(pod, owned);
    this.#parts.onAddresses(owned);
    removeFrom(this.#byNode, pod.node, entry);
    if (this.#byUid.get(pod.uid) === entry) this.#byUid.delete(pod.uid);
  }

  #touchPod(uid: string): void {
    const entry = this.#byUid.get(uid);
    if (entry !== undefined) this.#dirtyPods.add(entry);
  }
}

/** A pod on its node's network has the node's address, and one that has ended none. */
const ownedAddresses = ({ hostNetwork, phase, addresses }: Pod): readonly IpAddress[] => (hostNetwork || phase === "ended" ? [] : addresses);

export const nameKey = ({ namespace, name }: { readonly namespace: string; readonly name: string }): string => `${namespace}/${name}`;
