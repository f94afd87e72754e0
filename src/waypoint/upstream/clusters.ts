// All clusters of one data thread, made when a request first needs them and kept while their services are there.

import { nameHalf } from "../../core/brand.ts";
import type { L7Store } from "../../mesh/l7/l7-store.ts";
import { effectiveSettings } from "../../policy/upstream/settings.ts";
import { dynamicDestination, dynamicHost, notCovered } from "../services/dynamic-host.ts";
import { Cluster, type ClusterContext, type ClusterTarget, type WildcardCluster } from "./cluster.ts";

/**
 * Hosts under wildcards that have a cluster of their own at once, in each thread: whoever asks for ever new names fills no memory, and asks
 * the resolver for few: one that is put in the place of another waits until that is old enough.
 */
export const DYNAMIC_HOSTS_MAX = 512;
/** One that nobody asked for in this time is forgotten. */
export const DYNAMIC_IDLE_MS = 600_000;
/** Where there is no room, one that nobody asked for in this time makes place for another. */
export const DYNAMIC_SETTLED_MS = 10_000;

export type FoundHost = { readonly kind: "cluster"; readonly cluster: Cluster } | { readonly kind: "notCovered" | "exhausted"; readonly why: string };

export class Clusters {
  readonly #context: ClusterContext;
  readonly #l7: L7Store;
  /** Several of one name where clients of some namespaces have a policy of their own. */
  readonly #live = new Map<string, Cluster[]>();
  /** Those of what is gone, until their last request has ended. */
  readonly #retired = new Set<Cluster>();
  /** Of hosts under wildcards: when each was asked for last, the longest ago first. */
  readonly #dynamic = new Map<Cluster, number>();
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

  /** The host under the wildcard of `cluster` that a request or connection names. */
  hostUnder(cluster: Cluster, host: string, nowMs: number): FoundHost {
    const { target } = cluster;
    const why = notCovered(nameHalf(target.service), host) ?? (this.#context.directory.hasHost(host) ? `${host} has a service of its own in the configuration, with policies of its own: it is reached by that` : null);
    if (why !== null) return { kind: "notCovered", why };
    const named: ClusterTarget = { ...target, service: dynamicDestination({ service: target.service, host }) };
    const known = this.#live.get(keyOf(named))?.find(({ policy }) => policy === cluster.policy);
    if (known === undefined && this.#dynamic.size >= DYNAMIC_HOSTS_MAX && !this.#makeRoom(nowMs)) {
      return { kind: "exhausted", why: `${DYNAMIC_HOSTS_MAX} hosts under wildcards are in use, and ${host} is another one` };
    }
    const found = known ?? this.#find(named, { cluster, makeRoom: (besides) => this.#closeIdle(cluster, besides) });
    if (found === null) return { kind: "notCovered", why: `no DestinationRule defines the subset ${target.subset} of ${target.service}` };
    this.#dynamic.delete(found);
    this.#dynamic.set(found, nowMs);
    return { kind: "cluster", cluster: found };
  }

  /** The one that was asked for the longest ago goes, unless that was just now. */
  #makeRoom(nowMs: number): boolean {
    for (const [cluster, usedMs] of this.#dynamic) {
      if (nowMs - usedMs < DYNAMIC_SETTLED_MS) return false;
      if (!cluster.busy) return this.#drop(cluster);
    }
    return false;
  }

  /** Of a host under `wildcard`, the one that was asked for the longest ago first. */
  #closeIdle(wildcard: Cluster, besides: Cluster): boolean {
    for (const host of this.#dynamic.keys()) if (host !== besides && host.isUnder(wildcard) && host.closeIdle()) return true;
    return false;
  }

  #drop(cluster: Cluster): true {
    const key = keyOf(cluster.target);
    const left = this.#live.get(key)?.filter((other) => other !== cluster) ?? [];
    if (left.length === 0) this.#live.delete(key);
    else this.#live.set(key, left);
    this.#letGo(cluster);
    return true;
  }

  #forget(cluster: Cluster): void {
    this.#retired.delete(cluster);
    if (!this.#live.has(keyOf(cluster.target))) this.#context.directory.forget(cluster.target.service);
  }

  #letGo(cluster: Cluster): void {
    this.#dynamic.delete(cluster);
    cluster.retire();
    this.#retired.add(cluster);
  }

  #find(target: ClusterTarget, wildcard: WildcardCluster | null = null): Cluster | null {
    const { service, port, subset, clientNamespace } = target;
    const policy = this.#l7.traffic(dynamicHost(service)?.service ?? service, { port, subset, clientNamespace });
    const key = keyOf(target);
    const known = this.#live.get(key)?.find((cluster) => cluster.policy === policy);
    if (known !== undefined) return known;
    const settings = effectiveSettings(policy, subset);
    if (settings === null) return null;
    const cluster = new Cluster(this.#context, target, policy, settings, wildcard);
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
        else this.#letGo(cluster);
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
    for (const cluster of this.#retired) if (cluster.empty) this.#forget(cluster);
    for (const [cluster, usedMs] of this.#dynamic) {
      if (nowMs - usedMs < DYNAMIC_IDLE_MS) break;
      if (!cluster.busy) this.#drop(cluster);
    }
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
    this.#dynamic.clear();
    this.#retired.clear();
  }

  *[Symbol.iterator](): IterableIterator<Cluster> {
    for (const list of this.#live.values()) yield* list;
  }

  /** False when its service or subset is gone. */
  #followConfiguration(cluster: Cluster): boolean {
    const { service, port, subset, clientNamespace } = cluster.target;
    if (this.#context.directory.find(service) === null) return false;
    const dynamic = dynamicHost(service);
    const policy = this.#l7.traffic(dynamic?.service ?? service, { port, subset, clientNamespace });
    const settings = effectiveSettings(policy, subset);
    if (settings === null || (dynamic !== null && settings.dynamicHosts === null)) return false;
    cluster.reconfigure(policy, settings);
    return true;
  }
}

const keyOf = ({ service, port, subset }: ClusterTarget): string => `${service}:${port}|${subset ?? ""}`;
