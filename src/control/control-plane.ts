// What a replica of the control plane does with the cluster: it watches, publishes what it makes of it, and, while it holds the Lease,
// writes. The CA and the port are put beside it by whoever composes the role.

import type { Clock, Random } from "../core/ports.ts";
import type { Timers } from "../net/timers.ts";
import { virtualAddresses } from "../resources/kinds/service.ts";
import { isEmptyL7Delta } from "../resources/l7/l7-delta.ts";
import { isEmptyDelta } from "../resources/mesh-delta.ts";
import { headOf, metadataText } from "../resources/object-head.ts";
import type { TranslationOptions } from "../resources/resource.ts";
import type { Logger } from "../runtime/logger.ts";
import type { PublishedState } from "../xds/serving.ts";
import type { Api } from "../runtime/kubernetes/api.ts";
import { Callers } from "./callers.ts";
import { DiagnosticTeller } from "./diagnostic-teller.ts";
import { Lease } from "./lease.ts";
import { ClusterSource, type EvaluationTiming } from "./source/cluster-source.ts";
import { ListWatch } from "../runtime/kubernetes/list-watch.ts";
import { MANAGED_BY, MANAGED_KEYS, MANAGED_LABEL, MANAGED_TYPES, type WaypointEnvironment } from "./waypoint/waypoint-objects.ts";
import { WaypointManager } from "./waypoint/waypoint-manager.ts";
import { StatusWriter } from "./writer/status-writer.ts";
import { MeshObject, X_MESH } from "./writer/x-mesh.ts";
import { BUNDLE_NAME, TrustBundles } from "./writer/trust-bundles.ts";
import { WriteQueue } from "./writer/write-queue.ts";

export interface ControlPlaneOptions {
  readonly api: Api;
  readonly clock: Clock;
  readonly random: Random;
  readonly timers: Timers;
  readonly log: Logger;
  readonly translation: TranslationOptions;
  readonly namespaces: readonly string[];
  /** Its own. */
  readonly namespace: string;
  readonly replica: string;
  readonly nodeAccounts: readonly string[];
  readonly audience: string;
  /** Of the waypoints it runs; null runs none. */
  readonly waypoints: WaypointEnvironment | null;
  /** PEM of the roots, as they are now. */
  readonly trustBundle: () => string;
  readonly publish: (state: PublishedState, timing: EvaluationTiming) => void;
  /** What of the cluster cannot be followed now, in words; null when everything is heard of again. */
  readonly onTrouble: (trouble: string | null) => void;
}

const LEASE_NAME = "weft-control";

export class ControlPlane {
  readonly source: ClusterSource;
  readonly callers: Callers;
  readonly lease: Lease;
  readonly queue: WriteQueue;
  readonly #bundles: TrustBundles;
  readonly #statuses: StatusWriter;
  readonly #waypoints: WaypointManager;
  readonly #mesh: MeshObject;
  /** Of objects that are written here, beside those that are configuration. */
  readonly #ownWatches: readonly ListWatch[];
  readonly #teller: DiagnosticTeller;
  #evaluations = 0;

  constructor(options: ControlPlaneOptions) {
    const { api, clock, random, timers, log } = options;
    this.#teller = new DiagnosticTeller(log);
    this.source = new ClusterSource({
      api, clock, random, timers, log, options: options.translation, namespaces: options.namespaces, onTrouble: options.onTrouble,
      onObject: (event) => {
        const { kind, name, object } = event;
        if (kind === "Namespace") this.#bundles.setNamespace(name, object !== null && !isLeaving(object));
        this.#statuses.onObject(event);
        this.#waypoints.onObject(event);
      },
      onEvaluated: (evaluation, timing) => {
        const { mesh, delta, l7, l7Delta } = evaluation;
        // A status that was written, a label that means nothing: nobody need hear of it.
        if (this.#evaluations === 0 || !isEmptyDelta(delta) || !isEmptyL7Delta(l7Delta)) {
          this.#evaluations++;
          options.publish({ mesh, delta, l7, l7Delta }, timing);
        }
        this.#teller.tell(evaluation);
        this.#statuses.onEvaluated(evaluation);
        this.#waypoints.setSynced();
      },
    });
    this.callers = new Callers({ api, clock, audience: options.audience, namespace: options.namespace, trustDomain: options.translation.trustDomain, nodeAccounts: options.nodeAccounts, pods: () => this.source.set });
    this.queue = new WriteQueue({ clock, timers, log });
    this.#bundles = new TrustBundles({ api, queue: this.queue, bundle: options.trustBundle });
    this.#statuses = new StatusWriter({
      api, clock, timers, queue: this.queue, clusterDomain: options.translation.clusterDomain,
      addressesOf: (namespace, name) => {
        const service = this.source.set.resource({ kind: "Service", namespace, name });
        return service?.kind === "Service" && (service.spec.clusterIP ?? "") !== "" ? virtualAddresses(service.spec) : null;
      },
    });
    this.#waypoints = new WaypointManager({ api, queue: this.queue, timers, log, environment: options.waypoints });
    this.#mesh = new MeshObject({ api, queue: this.queue, now: () => new Date(clock.wallMs()).toISOString().replace(/\.\d{3}Z$/, "Z") });
    this.#ownWatches = [this.#watchBundles(options), this.#watchMesh(options), ...this.#watchWaypointObjects(options)];
    this.lease = new Lease({
      api, clock, random, timers, log, namespace: options.namespace, name: LEASE_NAME, identity: options.replica,
      onChange: (holds) => {
        this.#bundles.setWriting(holds);
        this.#statuses.setWriting(holds);
        this.#waypoints.setWriting(holds);
        this.#mesh.setWriting(holds);
      },
    });
  }

  #watchBundles({ api, clock, random, timers, log }: ControlPlaneOptions): ListWatch {
    return new ListWatch({ types: [{ group: "", version: "v1", plural: "configmaps", kind: "ConfigMap", namespaced: true }], namespace: null, fieldSelector: `metadata.name=${BUNDLE_NAME}` }, {
      api, clock, random, timers, log,
      sink: { upsert: (object) => this.#bundles.setFound(headOf(object).namespace, object), remove: (namespace) => this.#bundles.setFound(namespace, null), synced: () => this.#bundles.setSynced() },
    });
  }

  #watchMesh({ api, clock, random, timers, log }: ControlPlaneOptions): ListWatch {
    return new ListWatch({ types: [X_MESH], namespace: null }, {
      api, clock, random, timers, log, sink: { upsert: (object) => this.#mesh.setFound(headOf(object).name, object), remove: (_, name) => this.#mesh.setFound(name, null), synced: () => this.#mesh.setSynced() },
    });
  }

  /** Services come with the configuration. */
  #watchWaypointObjects({ api, clock, random, timers, log, waypoints }: ControlPlaneOptions): ListWatch[] {
    if (waypoints === null) return [];
    return MANAGED_KEYS.filter((key) => key !== "service").map((key) => new ListWatch({ types: [MANAGED_TYPES[key]], namespace: null, labelSelector: `${MANAGED_LABEL}=${MANAGED_BY}` }, {
      api, clock, random, timers, log,
      sink: {
        upsert: (object) => this.#waypoints.onManaged(key, headOf(object).namespace, headOf(object).name, object),
        remove: (namespace, name) => this.#waypoints.onManaged(key, namespace, name, null),
        synced: () => {},
      },
    }));
  }

  /** States published so far. */
  get evaluations(): number {
    return this.#evaluations;
  }

  start(): void {
    this.source.start();
    for (const watch of this.#ownWatches) watch.start();
    this.lease.start();
  }

  /** The roots are others now. */
  trustBundleChanged(): void {
    this.#bundles.check();
  }

  async stop(): Promise<void> {
    this.queue.stop();
    this.#waypoints.stop();
    this.#statuses.stop();
    await this.lease.stop();
    await Promise.all([this.source.stop(), ...this.#ownWatches.map((watch) => watch.stop())]);
  }
}

const isLeaving = (object: Readonly<Record<string, unknown>>): boolean => metadataText(object, "deletionTimestamp") !== "";
