// All clusters of one data thread, made when a request first needs them and replaced when the configuration says something else.

import type { L7Store } from "../mesh/l7/l7-store.ts";
import { effectiveSettings } from "../policy/upstream/settings.ts";
import { Cluster, type ClusterContext, type ClusterTarget } from "./cluster.ts";

export class Clusters {
  readonly #context: ClusterContext;
  readonly #l7: L7Store;
  /** Several of one name where clients of some namespaces have a policy of their own. */
  readonly #live = new Map<string, Cluster[]>();
  /** Replaced ones, until their last request has ended. */
  readonly #retired = new Set<Cluster>();

  constructor(context: ClusterContext, l7: L7Store) {
    this.#context = context;
    this.#l7 = l7;
  }

  /** Null when the subset is not defined: requests to it have no endpoint. */
  of(target: ClusterTarget): Cluster | null {
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

  /** The stores were changed: clusters that are no longer what the configuration says are replaced when they are next asked for. */
  changed(): void {
    for (const [key, list] of this.#live) {
      const kept = list.filter((cluster) => this.#isCurrent(cluster));
      for (const cluster of list) {
        if (kept.includes(cluster)) continue;
        cluster.retire();
        this.#retired.add(cluster);
      }
      if (kept.length === 0) this.#live.delete(key);
      else this.#live.set(key, kept);
    }
  }

  tick(nowMs: number): void {
    for (const cluster of this) cluster.tick(nowMs);
    for (const cluster of this.#retired) if (cluster.empty) this.#retired.delete(cluster);
  }

  /** Of requests that have ended: closes what idles. */
  retire(): void {
    for (const cluster of this) cluster.retire();
  }

  destroy(): void {
    for (const cluster of this) cluster.destroy();
    for (const cluster of this.#retired) cluster.destroy();
    this.#live.clear();
    this.#retired.clear();
  }

  *[Symbol.iterator](): IterableIterator<Cluster> {
    for (const list of this.#live.values()) yield* list;
  }

  #isCurrent({ target: { service, port, subset, clientNamespace }, policy }: Cluster): boolean {
    return this.#context.store.service(service) !== undefined && this.#l7.traffic(service, { port, subset, clientNamespace }) === policy;
  }
}
