// Records that name what they are attached to, found by service and waypoint.

import { namespacedName, type NamespacedName, namespaceHalf } from "../../core/brand.ts";
import type { AccessTarget } from "./access.ts";

export interface Targeting {
  readonly name: string;
  readonly namespace: string;
  readonly targets: readonly AccessTarget[];
}

interface Attached<T> {
  readonly record: T;
  readonly target: AccessTarget;
}

export class TargetIndex<T extends Targeting> {
  readonly #records = new Map<NamespacedName, T>();
  readonly #byTarget = new Map<string, Map<NamespacedName, Attached<T>>>();

  /** Upserts, then removals. True when anything changed. */
  update(upserts: readonly T[], removals: readonly NamespacedName[]): boolean {
    let changed = false;
    for (const record of upserts) {
      const name = namespacedName(record.namespace, record.name);
      this.#detach(name);
      this.#records.set(name, record);
      for (const target of record.targets) {
        const key = keyOf(target);
        let attached = this.#byTarget.get(key);
        if (attached === undefined) this.#byTarget.set(key, (attached = new Map()));
        attached.set(name, { record, target });
      }
      changed = true;
    }
    for (const name of removals) changed = this.#detach(name) || changed;
    return changed;
  }

  /** Every record, whatever it is attached to. */
  values(): IterableIterator<T> {
    return this.#records.values();
  }

  /** What holds for a service behind a waypoint, each record once; in the order of `compare` (least first), then of `namespace/name`. */
  of(service: NamespacedName, waypoint: NamespacedName, compare: (a: AccessTarget, b: AccessTarget) => number = () => 0): T[] {
    const namespace = namespaceHalf(waypoint);
    const found = new Map<NamespacedName, Attached<T>>();
    for (const key of [keyOf({ kind: "namespace", namespace: "" }), keyOf({ kind: "namespace", namespace }), keyOf({ kind: "waypoint", gateway: waypoint }), keyOf({ kind: "service", service })]) {
      for (const [name, attached] of this.#byTarget.get(key) ?? []) found.set(name, attached);
    }
    return [...found].sort(([a, x], [b, y]) => compare(x.target, y.target) || (a < b ? -1 : 1)).map(([, { record }]) => record);
  }

  #detach(name: NamespacedName): boolean {
    const before = this.#records.get(name);
    if (before === undefined) return false;
    this.#records.delete(name);
    for (const target of before.targets) {
      const key = keyOf(target);
      const attached = this.#byTarget.get(key);
      attached?.delete(name);
      if (attached?.size === 0) this.#byTarget.delete(key);
    }
    return true;
  }
}

function keyOf(target: AccessTarget): string {
  switch (target.kind) {
    case "service": return `s ${target.service}`;
    case "waypoint": return `w ${target.gateway}`;
    case "namespace": return `n ${target.namespace}`;
  }
}
