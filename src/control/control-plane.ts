// What a replica of the control plane does with the cluster: it watches, publishes what it makes of it, and, while it holds the Lease,
// writes. The CA and the port are put beside it by whoever composes the role.

import type { Clock, Random } from "../core/ports.ts";
import type { Timers } from "../identity/svid-cache.ts";
import type { TranslationOptions } from "../resources/resource.ts";
import type { Logger } from "../runtime/logger.ts";
import type { PublishedState } from "../xds/serving.ts";
import type { Api } from "./api/api-client.ts";
import { Callers } from "./callers.ts";
import { DiagnosticTeller } from "./diagnostic-teller.ts";
import { Lease } from "./lease.ts";
import { ClusterSource, type EvaluationTiming } from "./source/cluster-source.ts";
import { ListWatch } from "./source/list-watch.ts";
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
  /** PEM of the roots, as they are now. */
  readonly trustBundle: () => string;
  readonly publish: (state: PublishedState, timing: EvaluationTiming) => void;
}

const LEASE_NAME = "weft-control";

export class ControlPlane {
  readonly source: ClusterSource;
  readonly callers: Callers;
  readonly lease: Lease;
  readonly queue: WriteQueue;
  readonly #bundles: TrustBundles;
  readonly #bundleWatch: ListWatch;
  readonly #teller: DiagnosticTeller;
  #evaluations = 0;

  constructor(options: ControlPlaneOptions) {
    const { api, clock, random, timers, log } = options;
    this.#teller = new DiagnosticTeller(log);
    this.source = new ClusterSource({
      api, clock, random, timers, log, options: options.translation, namespaces: options.namespaces,
      onObject: ({ kind, name, object }) => {
        if (kind === "Namespace") this.#bundles.setNamespace(name, object !== null && !isLeaving(object));
      },
      onEvaluated: (evaluation, timing) => {
        this.#evaluations++;
        this.#teller.tell(evaluation);
        options.publish({ mesh: evaluation.mesh, delta: evaluation.delta, l7: evaluation.l7, l7Delta: evaluation.l7Delta }, timing);
      },
    });
    this.callers = new Callers({ api, clock, audience: options.audience, trustDomain: options.translation.trustDomain, nodeAccounts: options.nodeAccounts, pods: () => this.source.set });
    this.queue = new WriteQueue({ clock, timers, log });
    this.#bundles = new TrustBundles({ api, queue: this.queue, bundle: options.trustBundle });
    this.#bundleWatch = new ListWatch({ types: [{ group: "", version: "v1", plural: "configmaps", kind: "ConfigMap", namespaced: true }], namespace: null, fieldSelector: `metadata.name=${BUNDLE_NAME}` }, {
      api, clock, random, timers, log,
      sink: { upsert: (object) => this.#bundles.setFound(namespaceOf(object), object), remove: (namespace) => this.#bundles.setFound(namespace, null), synced: () => this.#bundles.setSynced() },
    });
    this.lease = new Lease({ api, clock, random, timers, log, namespace: options.namespace, name: LEASE_NAME, identity: options.replica, onChange: (holds) => this.#bundles.setWriting(holds) });
  }

  /** States published so far. */
  get evaluations(): number {
    return this.#evaluations;
  }

  start(): void {
    this.source.start();
    this.#bundleWatch.start();
    this.lease.start();
  }

  /** The roots are others now. */
  trustBundleChanged(): void {
    this.#bundles.check();
  }

  async stop(): Promise<void> {
    this.queue.stop();
    await this.lease.stop();
    await Promise.all([this.source.stop(), this.#bundleWatch.stop()]);
  }
}

function metadataOf(object: Readonly<Record<string, unknown>>, field: string): unknown {
  const metadata: unknown = object["metadata"];
  return metadata !== null && typeof metadata === "object" ? Reflect.get(metadata, field) : undefined;
}

const isLeaving = (object: Readonly<Record<string, unknown>>): boolean => typeof metadataOf(object, "deletionTimestamp") === "string";

function namespaceOf(object: Readonly<Record<string, unknown>>): string {
  const namespace = metadataOf(object, "namespace");
  return typeof namespace === "string" ? namespace : "";
}
