// Where what resources come to is put, by whoever brings it up to date: each replaces what was put under the same name before.

import type { NamespacedName } from "../../core/brand.ts";
import type { Route } from "../../mesh/l7/route.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { ResourceDiagnostic } from "../resource.ts";
import type { LostParent } from "./route-conflicts.ts";

export interface Outcome {
  /** Null for one that holds nowhere. */
  route(id: string, route: Route | null): void;
  /** Null for a service of which nothing is said. */
  policies(service: NamespacedName, policies: readonly TrafficPolicy[] | null): void;
  /** What others take from resources. @param source what the list is about, the only one to speak of it. */
  lost(source: string, lost: readonly LostParent[]): void;
  /** @param source what the list is about, the only one to speak of it. */
  said(source: string, diagnostics: readonly ResourceDiagnostic[]): void;
}

/** What each resource adds to the one thing they have in common. */
export class Members<K extends string, P extends object, T> {
  readonly #members = new Map<K, Map<P, T[]>>();

  add(key: K, by: P, item: T): void {
    const members = this.#members.get(key);
    const items = members?.get(by);
    if (items !== undefined) items.push(item);
    else if (members !== undefined) members.set(by, [item]);
    else this.#members.set(key, new Map([[by, [item]]]));
  }

  /** All that it adds to this one. */
  remove(key: K, by: P): void {
    const members = this.#members.get(key);
    members?.delete(by);
    if (members?.size === 0) this.#members.delete(key);
  }

  of(key: K): T[] {
    const found: T[] = [];
    for (const items of this.#members.get(key)?.values() ?? []) for (const item of items) found.push(item);
    return found;
  }
}
