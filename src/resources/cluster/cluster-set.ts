// The state of a cluster's configuration: which objects there are, what of them is in force, and the records made of it. Objects come
// and go one by one; an evaluation costs what has changed since the one before. Pure: values in, records and diagnostics out.
//
// What objects of one namespace share (services, policies, labels) is translated by the same code as a directory's files; each pod is
// translated by itself, again only when it, its node, a slice that names it or what its namespace shares has changed.
//
// An evaluation may be left and gone on with. What comes meanwhile is read, and waits until it has ended: each state is of one moment.

import type { WorkloadUid } from "../../core/brand.ts";
import { atOnce, type Steps } from "../../core/steps.ts";
import { EMPTY_L7_SNAPSHOT, type L7Delta, type L7Snapshot } from "../../mesh/l7/delta.ts";
import { emptyDelta, type MeshDelta, type Workload } from "../../mesh/records.ts";
import { checkObject, identityOf } from "../check-object.ts";
import { ClaimJudge, type JudgedClaims, NO_CLAIMS } from "../claims/claims.ts";
import { formatFieldPath } from "../diagnostic.ts";
import type { EvaluatedState } from "../evaluated-state.ts";
import { KINDS, type Kind, type KindName, type Resource } from "../kinds.ts";
import { readEndpointSlice } from "../kinds/endpoint-slice.ts";
import { readNode } from "../kinds/node.ts";
import { type Pod, readPod } from "../kinds/pod.ts";
import type { ResourceStatus } from "../l7/status.ts";
import { L7Translator } from "../l7/translate-l7.ts";
import type { TextReference } from "../l7/world.ts";
import { emptySnapshot, isEmptyDelta, type MeshSnapshot } from "../mesh-delta.ts";
import { headOf } from "../object-head.ts";
import type { Labels } from "../object-meta.ts";
import { describeIdentity, IN_CLUSTER, type Placed, type ResourceDiagnostic, type ResourceIdentity, type TranslationOptions } from "../resource.ts";
import { denyingStandIn } from "../stand-in.ts";
import { StateMap } from "../state-map.ts";
import { MeshTranslator } from "../translate-mesh.ts";
import { WaypointServices } from "../waypoint-services.ts";
import type { WaypointBinding } from "../waypoint-status.ts";
import { type BrokenObject, BrokenObjects } from "./broken-objects.ts";
import { type ClusterDiagnostic, describe, describeFull, describeNames } from "./cluster-diagnostic.ts";
import { EntryTable } from "./entry-table.ts";
import { NamespaceAllowance } from "./namespace-allowance.ts";
import { sizeOf } from "./object-size.ts";
import { nameKey, PodTable } from "./pod-table.ts";
import { withoutUnknownFields } from "./unknown-fields.ts";

export type ClusterKind = KindName | "Pod" | "Node" | "EndpointSlice";

export interface ClusterEvaluation extends EvaluatedState {
  /** What the status of each object in force would say. The same list as before when nothing of L7 was touched. */
  readonly statuses: readonly ResourceStatus[];
  readonly broken: ReadonlyMap<string, BrokenObject>;
  /** Of every Service and ServiceEntry that asks for a waypoint (`Service shop/web`): whether it has it. The same map as before when nothing of the mesh was touched. */
  readonly bindings: ReadonlyMap<string, WaypointBinding>;
  /** The same list as before when nothing else is to be told. */
  readonly diagnostics: readonly ClusterDiagnostic[];
}

/** What became of an object: `refused` when its namespace has no room for it, `unnoticed` when there are so many of these that not even its status says so. */
export type Taken = "kept" | "refused" | "unnoticed";

/** Name of what stands in for policies that were not kept; no object of a tenant's has it. */
const FULL_STAND_IN = "namespace-full.weft.dev";
const EVERYTHING = { text: "", line: 1 };
const KINDS_BY_NAME: ReadonlyMap<string, Kind> = new Map(KINDS.map((kind) => [kind.kind, kind]));
/** What claims are about, and what they are held against. */
const CLAIMED: ReadonlySet<ClusterKind> = new Set<ClusterKind>(["Service", "ServiceEntry", "WorkloadEntry", "Namespace"]);

export class ClusterSet {
  readonly #options: TranslationOptions;
  readonly #waypointServices = new WaypointServices(false);
  readonly #translator: MeshTranslator;
  readonly #l7Translator: L7Translator;

  readonly #entries = new EntryTable();
  readonly #broken = new BrokenObjects();
  /** As of the last evaluation. */
  #brokenNow: ReadonlyMap<string, BrokenObject> = new Map();
  readonly #allowance = new NamespaceAllowance();
  readonly #pods: PodTable;
  readonly #claims: ClaimJudge;
  #judged: JudgedClaims = NO_CLAIMS;

  /** What came while something is evaluated; null while nothing is. */
  #held: (() => void)[] | null = null;
  /** `namespace/name` of pods that went, of these. */
  readonly #leaving = new Set<string>();
  #claimsDirty = true;
  /** Of each namespace all resources in force, with those made for them. */
  readonly #lists = new Map<string, readonly Placed<Resource>[]>();
  /** Namespaces whose list the translators have not seen. */
  readonly #unseen = new Set<string>();
  readonly #unseenByL7 = new Set<string>();
  /** Of pods, since labels were told last; null of one that is gone. Where some rule looks at labels. */
  readonly #labelsMoved = new Map<WorkloadUid, Labels | null>();

  /** Who is hidden has not been told to the translator. */
  #hiddenMoved = false;

  /** What the translator made, without pods. */
  #shared: MeshSnapshot = emptySnapshot;
  #bindings: ReadonlyMap<string, WaypointBinding> = new Map();
  #sharedDiagnostics: readonly ResourceDiagnostic[] = [];
  #workloads = StateMap.empty<WorkloadUid, Workload>();
  #mesh: MeshSnapshot = emptySnapshot;
  #l7: L7Snapshot = EMPTY_L7_SNAPSHOT;
  #statuses: readonly ResourceStatus[] = [];
  #l7Diagnostics: readonly ResourceDiagnostic[] = [];
  /** Of all of these; null when one has changed since. */
  #diagnostics: readonly ClusterDiagnostic[] | null = null;

  constructor(options: TranslationOptions) {
    this.#options = options;
    this.#claims = new ClaimJudge(options);
    this.#translator = new MeshTranslator(options, this.#waypointServices, "entriesAndPods");
    this.#l7Translator = new L7Translator(options);
    this.#pods = new PodTable({
      options, surroundings: (namespace) => this.#translator.surroundings(namespace),
      // Somebody may claim what is a pod's now, or is so no more.
      onAddresses: (addresses) => void (addresses.some((ip) => this.#claims.concerns(ip)) && (this.#claimsDirty = true)),
      onTold: () => void (this.#diagnostics = null),
    });
  }

  get counts(): { readonly objects: number; readonly pods: number; readonly nodes: number; readonly slices: number; readonly broken: number } {
    return { objects: this.#entries.size, ...this.#pods.counts, broken: this.#broken.size };
  }

  /** A pod as it is now; for who may ask for whose certificate. */
  podByUid(uid: string): Pod | null {
    const pod = this.#pods.byUid(uid);
    return pod === null || this.#leaving.has(nameKey(pod)) ? null : pod;
  }

  /** Whether a pod that has not ended runs on the node under this service account. */
  runsOn(node: string, namespace: string, serviceAccount: string): boolean {
    for (const pod of this.#pods.onNode(node)) if (pod.namespace === namespace && pod.serviceAccount === serviceAccount && pod.phase !== "ended" && !this.#leaving.has(nameKey(pod))) return true;
    return false;
  }

  /** The resource in force; null for none. */
  resource(identity: ResourceIdentity): Resource | null {
    const entry = this.#entries.get(identity);
    return entry === undefined || entry.standIn ? null : entry.placed.resource;
  }

  broken(): IterableIterator<BrokenObject> {
    return this.#broken.values();
  }

  /** Takes an object as the API has it. Never throws: what cannot be read is remembered as broken. */
  upsert(kind: ClusterKind, value: Readonly<Record<string, unknown>>): Taken {
    const { namespace, name } = headOf(value);
    if (this.#isBounded(kind, namespace) && !this.#allowance.take(namespace, kind, name, sizeOf(value))) return this.#refuse({ kind, namespace, name });
    const take = this.#read(kind, value);
    this.#whenIdle(() => {
      this.#setStandIn(kind, namespace);
      take();
    });
    return "kept";
  }

  /** Reads it at once: what waits is no larger than what is kept. */
  #read(kind: ClusterKind, value: Readonly<Record<string, unknown>>): () => void {
    switch (kind) {
      case "Pod": return this.#readOne(kind, value, readPod(value), (pod) => this.#pods.setPod(pod));
      case "Node": return this.#readOne(kind, value, readNode(value), (node) => this.#pods.setNode(node.name, node));
      case "EndpointSlice": {
        const identity = { kind, ...headOf(value) };
        return this.#readOne(kind, value, readEndpointSlice(value), (slice) => {
          if (slice === null) this.#pods.removeSlice(nameKey(identity));
          else this.#pods.setSlice(slice);
          if (slice?.ofNames === true) this.#setBroken(identity, [describeNames(identity)]);
        });
      }
      default: return this.#readResource(KINDS_BY_NAME.get(kind)!, value);
    }
  }

  #whenIdle(change: () => void): void {
    if (this.#held === null) change();
    else this.#held.push(change);
  }

  /** Objects of the namespace were not kept, and would be if they were brought again. */
  hasRoomAgain(namespace: string): boolean {
    return this.#allowance.hasRoomAgain(namespace);
  }

  remove(kind: ClusterKind, namespace: string, name: string): void {
    const bounded = this.#isBounded(kind, namespace);
    if (bounded) this.#allowance.release(namespace, kind, name);
    // Whatever waits: it has no certificate from now on.
    if (kind === "Pod" && this.#held !== null) this.#leaving.add(`${namespace}/${name}`);
    this.#whenIdle(() => {
      const identity = { kind, namespace, name };
      this.#setBroken(identity, null);
      if (bounded) this.#setStandIn(kind, namespace);
      switch (kind) {
        case "Pod": return this.#pods.removePod(`${namespace}/${name}`);
        case "Node": return this.#pods.setNode(name, null);
        case "EndpointSlice": return this.#pods.removeSlice(`${namespace}/${name}`);
        default:
          if (this.#entries.delete(identity)) this.#touch(kind);
      }
    });
  }

  /** Secrets and ConfigMaps that the objects name as they are now. Tells nothing of what has changed: that is for `evaluate`. */
  references(): Iterable<TextReference> {
    return atOnce(this.referenceSteps());
  }

  referenceSteps(): Steps<Iterable<TextReference>> {
    return this.#whole(this.#findReferences());
  }

  /** What holds now, and how it came from what held at the last call. */
  evaluate(): ClusterEvaluation {
    return atOnce(this.evaluationSteps());
  }

  /** The same, in steps that take less than a millisecond each but for what one object alone needs. Begun, it is to be ended, or the set to be left. */
  evaluationSteps(): Steps<ClusterEvaluation> {
    return this.#whole(this.#evaluate());
  }

  *#whole<T>(steps: Steps<T>): Steps<T> {
    if (this.#held !== null) throw new Error("the cluster is being evaluated already");
    const held: (() => void)[] = [];
    this.#held = held;
    try {
      return yield* steps;
    } finally {
      this.#held = null;
      this.#leaving.clear();
      for (const change of held) change();
    }
  }

  *#findReferences(): Steps<Iterable<TextReference>> {
    yield* this.#updateL7();
    return this.#l7Translator.references;
  }

  *#evaluate(): Steps<ClusterEvaluation> {
    const delta = yield* this.#evaluateMesh();
    const l7Delta = yield* this.#evaluateL7();
    if (this.#diagnostics === null) {
      this.#diagnostics = [...[...this.#broken.values()].flatMap(({ diagnostics }) => diagnostics), ...[...this.#judged.diagnostics, ...this.#sharedDiagnostics, ...this.#l7Diagnostics].map(describe), ...this.#pods.diagnostics(), ...[...this.#allowance.full()].map(describeFull)];
      this.#brokenNow = this.#broken.copy();
    }
    return { mesh: this.#mesh, delta, l7: this.#l7, l7Delta, statuses: this.#statuses, broken: this.#brokenNow, bindings: this.#bindings, diagnostics: this.#diagnostics };
  }

  /** Brings the lists up to date. */
  *#list(): Steps<void> {
    const touched = new Set(this.#entries.takeTouched());
    if (this.#claimsDirty) {
      const before = this.#judged;
      this.#judged = yield* this.#claims.judge({
        services: this.#entries.ofKind("Service"), serviceEntries: this.#entries.ofKind("ServiceEntry"), workloadEntries: this.#entries.ofKind("WorkloadEntry"), namespaces: new Set(this.#entries.ofKind("Namespace").map(({ resource }) => resource.name)),
      }, this.#pods.addresses);
      this.#claimsDirty = false;
      this.#diagnostics = null;
      for (const [placed, copy] of this.#judged.copies) if (before.copies.get(placed) !== copy) touched.add(placed.resource.namespace);
      for (const placed of before.copies.keys()) if (!this.#judged.copies.has(placed)) touched.add(placed.resource.namespace);
      // Who is hidden is no part of the lists, and the translator finds the difference.
      if (before.hidden.size > 0 || this.#judged.hidden.size > 0) this.#hiddenMoved = true;
    }
    const { copies } = this.#judged;
    for (const home of touched) {
      yield;
      this.#unseen.add(home);
      this.#unseenByL7.add(home);
      const all = this.#entries.at(home);
      if (all.length === 0) this.#lists.delete(home);
      else this.#lists.set(home, this.#waypointServices.complete(copies.size === 0 ? all : all.map((placed) => copies.get(placed) ?? placed)));
    }
  }

  *#updateL7(): Steps<void> {
    yield* this.#list();
    if (this.#unseenByL7.size === 0) return;
    yield* this.#l7Translator.update(this.#listsOf(this.#unseenByL7));
    this.#unseenByL7.clear();
  }

  #listsOf(homes: Iterable<string>): Map<string, readonly Placed<Resource>[]> {
    return new Map([...homes].map((home) => [home, this.#lists.get(home) ?? []]));
  }

  *#translateShared(): Steps<MeshDelta> {
    yield* this.#list();
    if (this.#unseen.size === 0 && !this.#hiddenMoved) return emptyDelta;
    const translated = yield* this.#translator.update(this.#listsOf(this.#unseen), this.#judged.hidden);
    this.#unseen.clear();
    this.#hiddenMoved = false;
    if (translated.diagnostics !== this.#sharedDiagnostics) this.#diagnostics = null;
    this.#sharedDiagnostics = translated.diagnostics;
    this.#bindings = translated.bindings;
    this.#shared = translated.mesh;
    yield* this.#pods.followNamespaces();
    return translated.delta;
  }

  *#evaluateMesh(): Steps<MeshDelta> {
    const shared = yield* this.#translateShared();
    if (isEmptyDelta(shared) && !this.#pods.isMoved) return emptyDelta;
    const { looksAtLabels } = this.#l7Translator;
    const { upserted, removed } = yield* this.#pods.translate((uid, labels) => void (looksAtLabels && this.#labelsMoved.set(uid, labels)));
    const delta: MeshDelta = { ...shared, workloads: [...shared.workloads, ...upserted], removedWorkloads: [...shared.removedWorkloads, ...removed] };
    this.#workloads = this.#workloads.with(delta.workloads.map((workload) => [workload.uid, workload]), delta.removedWorkloads);
    this.#mesh = { workloads: this.#workloads, services: this.#shared.services, policies: this.#shared.policies };
    return delta;
  }

  *#evaluateL7(): Steps<L7Delta> {
    yield* this.#updateL7();
    const { snapshot, delta, statuses, diagnostics } = yield* this.#l7Translator.take({ all: this.#pods.labels(), moved: this.#labelsMoved });
    this.#labelsMoved.clear();
    this.#l7 = snapshot;
    this.#statuses = statuses;
    if (diagnostics !== this.#l7Diagnostics) this.#diagnostics = null;
    this.#l7Diagnostics = diagnostics;
    return delta;
  }

  #readOne<T>(kind: ClusterKind, value: Readonly<Record<string, unknown>>, read: { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: string }, set: (value: T) => void): () => void {
    const identity = { kind, ...headOf(value) };
    if (read.ok) {
      return () => {
        this.#setBroken(identity, null);
        set(read.value);
      };
    }
    // As it was stays, and who reads the log learns that it is not as it is.
    const diagnostics: readonly ClusterDiagnostic[] = [{ severity: "error", code: "bad_value", resource: describeIdentity(identity), fieldPath: "", message: read.error.replaceAll("\n", "; ") }];
    return () => this.#setBroken(identity, diagnostics);
  }

  #readResource(definition: Kind, value: Readonly<Record<string, unknown>>): () => void {
    const identity = identityOf(value, definition);
    if (identity === null) return () => {};
    // In DNS alone: nobody stands behind it whom one could authenticate.
    if (isAlias(value)) return () => this.#removeResource(identity, definition);
    let { resource, faults } = checkObject(value, definition);
    const known = resource === null ? withoutUnknownFields(value, definition) : null;
    if (known !== null) ({ resource, faults } = checkObject(known, definition));
    const diagnostics = faults.filter(({ severity }) => severity !== "info")
      .map(({ severity, code, path, message }): ClusterDiagnostic => ({ severity, code, resource: describeIdentity(identity), fieldPath: formatFieldPath(path), message }));
    return () => (resource === null ? this.#setUnreadable(identity, definition, diagnostics) : this.#setResource(identity, resource, definition, diagnostics));
  }

  #removeResource(identity: ResourceIdentity, definition: Kind): void {
    this.#setBroken(identity, null);
    if (this.#entries.delete(identity)) this.#touch(definition.kind);
  }

  #setResource(identity: ResourceIdentity, resource: Resource, definition: Kind, diagnostics: readonly ClusterDiagnostic[]): void {
    this.#setBroken(identity, diagnostics.length === 0 ? null : diagnostics);
    const before = this.#entries.get(identity);
    // The same object as before keeps all that was made of it.
    if (before !== undefined && !before.standIn && before.placed.resource.resourceVersion === resource.resourceVersion && before.placed.resource.creationTimestamp === resource.creationTimestamp) return;
    this.#entries.set(identity, { placed: placeOf(resource), standIn: false });
    this.#touch(definition.kind);
  }

  #setUnreadable(identity: ResourceIdentity, definition: Kind, diagnostics: readonly ClusterDiagnostic[]): void {
    const before = this.#entries.get(identity);
    const standIn = before === undefined ? denyingStandIn(identity) : null;
    const outcome = before !== undefined ? (before.standIn ? "" : "; its last good version stays in force") : standIn === null ? "; nothing of it is in force" : "; until it can be read what it may cover is denied";
    this.#setBroken(identity, diagnostics.map((one, index) => (index === 0 ? { ...one, message: one.message + outcome } : one)));
    if (standIn === null) return;
    this.#entries.set(identity, { placed: placeOf(standIn), standIn: true });
    this.#touch(definition.kind);
  }

  /** The root namespace's writers run the mesh; nodes bound the number of pods. */
  #isBounded(kind: ClusterKind, namespace: string): boolean {
    return kind !== "Pod" && namespace !== "" && namespace !== this.#options.rootNamespace;
  }

  /** As it was stays; of one that was not, nothing is there. */
  #refuse(identity: ResourceIdentity & { readonly kind: ClusterKind }): Taken {
    const { kind, namespace } = identity;
    const noticed = this.#broken.noticeRefused(identity);
    this.#whenIdle(() => {
      this.#diagnostics = null;
      this.#setStandIn(kind, namespace);
      if (!noticed) return;
      const outcome = this.#entries.has(identity) ? "its last good version stays in force" : denyingStandIn(identity) === null ? "nothing of it is in force" : "until there is room what it may cover is denied";
      this.#broken.setRefused(identity, outcome);
    });
    return noticed ? "refused" : "unnoticed";
  }

  /** One for all policies of a kind that were not kept. */
  #setStandIn(kind: ClusterKind, namespace: string): void {
    const identity = { kind, namespace, name: FULL_STAND_IN };
    const standIn = denyingStandIn(identity);
    if (standIn === null) return;
    const lacks = this.#allowance.lacks(namespace, kind);
    if (lacks === this.#entries.has(identity)) return;
    if (lacks) this.#entries.set(identity, { placed: placeOf(standIn), standIn: true });
    else this.#entries.delete(identity);
    this.#touch(kind);
  }

  #setBroken(identity: ResourceIdentity, diagnostics: readonly ClusterDiagnostic[] | null): void {
    if (diagnostics !== null) this.#broken.set({ identity, diagnostics });
    else if (!this.#broken.delete(identity)) return;
    this.#diagnostics = null;
  }

  #touch(kind: ClusterKind): void {
    if (CLAIMED.has(kind)) this.#claimsDirty = true;
  }
}

function placeOf(resource: Resource): Placed<Resource> {
  return { resource, file: IN_CLUSTER, line: 0, document: EVERYTHING, path: [] };
}

function isAlias(value: Readonly<Record<string, unknown>>): boolean {
  const spec = value["spec"];
  return value["kind"] === "Service" && spec !== null && typeof spec === "object" && "type" in spec && spec.type === "ExternalName";
}
