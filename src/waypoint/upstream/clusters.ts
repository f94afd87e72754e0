// All clusters of one data thread, made when a request first needs them and kept while their services are there.

import type { L7Store } from "../../mesh/l7/l7-store.ts";
import { effectiveSettings } from "../../policy/upstream/settings.ts";
import { Cluster, type ClusterContext, type ClusterTarget } from "./cluster.ts";

export class Clusters {
  readonly #context: ClusterContext;
  readonly #l7: L7Store;
  /** Several of one name where clients of some namespaces have a policy of their own. */
  readonly #live = new Map<string, Cluster[]>();
  /** Those of what is gone, until their last request has ended. */
  readonly #retired = new Set<Cluster>();
  /** What was asked for last, and found: a request asks twice, and the next one often the same. */
  #last: { readonly target: ClusterTarget; readonly cluster: Cluster } | null = null;

  constructor(context: ClusterContext, l7: L7Store) {
    this.#context = context;
    this.#l7 = l7;
  }

  /** Null when the subset is not defined: requests to it have no endpoint. */
  of(target: ClusterTarget): Cluster | null {
    const { service, port, subset, clientNamespace } = target;
    const last = this.#last;
    if (last !== null && last.target.service === service && last.target.port === port && last.target.subset === subset && last.target.clientNamespace === clientNamespace) return last.cluster;
    const cluster = this.#find(target);
    this.#last = cluster === null ? null : { target, cluster };
    return cluster;
  }

  #find(target: ClusterTarget): Cluster | null {
    const { service, port, subset, clientNamespace } = target;
    const policy = this.#l7.traffic(service, { port, subset, clientNamespace });
    const key = `${service}:${port}|${subset ?? ""}`;
    const known = this.#live.get(key)?.find((cluster) => cluster.policy === policy);
    if (known !== undefined) return known;
    const settings = effectiveSettings(policy, subset);
    if (settings === null) return null;
    const cluster = new Cluster(this.#context, target, policy, settings);
    const list = this.#live.get(key);
    if (list === undefined) this.#live.set(key, [cluster]);
    else list.push(cluster);
    return cluster;
  }

  /** The stores were changed: each cluster goes on with what the configuration says now; those of what is gone are let go. */
  changed(): void {
    this.#last = null;
    for (const [key, list] of this.#live) {
      const kept: Cluster[] = [];
      for (const cluster of list) {
        // Two of them may have come to the same: one will do.
        if (this.#followConfiguration(cluster) && !kept.some(({ policy }) => policy === cluster.policy)) kept.push(cluster);
        else {
          cluster.retire();
          this.#retired.add(cluster);
        }
      }
      if (kept.length === 0) this.#live.delete(key);
      else this.#live.set(key, kept);
    }
  }

  /** What workloads are called by subsets and priorities has changed. */
  relabelled(): void {
    for (const { upstream } of this) upstream.relabelled();
  }

  tick(nowMs: number): void {
    for (const cluster of this) cluster.tick(nowMs);
    for (const cluster of this.#retired) if (cluster.empty) this.#retired.delete(cluster);
  }

  /** Of requests that have ended: closes what idles. */
  retire(): void {
    this.#last = null;
    for (const cluster of this) cluster.retire();
  }

  destroy(): void {
    this.#last = null;
    for (const cluster of this) cluster.destroy();
    for (const cluster of this.#retired) cluster.destroy();
    this.#live.clear();
    this.#retired.clear();
  }

  *[Symbol.iterator](): IterableIterator<Cluster> {
    for (const list of this.#live.values()) yield* list;
  }

  /** False when its service or subset is gone. */
  #followConfiguration(cluster: Cluster): boolean {
    const { service, port, subset, clientNamespace } = cluster.target;
    if (this.#context.directory.find(service) === null) return false;
    const policy = this.#l7.traffic(service, { port, subset, clientNamespace });
    const settings = effectiveSettings(policy, subset);
    if (settings === null) return false;
    cluster.reconfigure(policy, settings);
    return true;
  }
}
