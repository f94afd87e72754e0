// The records of the mesh as one state that is put together from parts, each the work of one namespace: a part that is replaced costs what
// is in it, and a copy of the tables that it changes. States that were handed out stay as they are.

import { ITEMS_PER_STEP, type Steps } from "../core/steps.ts";
import { emptyDelta, type MeshDelta } from "../mesh/records.ts";
import { deepEqual, emptySnapshot, equalButSource, type MeshSnapshot } from "./mesh-delta.ts";

/** What one part holds; its keys are in no other part. */
export type Records = MeshSnapshot;

export interface Replaced {
  readonly before: Records | undefined;
  readonly after: Records | undefined;
}

export class MeshAssembly {
  #snapshot: MeshSnapshot = emptySnapshot;

  get snapshot(): MeshSnapshot {
    return this.#snapshot;
  }

  /** @returns what of it is news. A workload or service of which only the line moved in its file is none; a policy's line is told, as explanations name it. */
  *replace(parts: readonly Replaced[]): Steps<MeshDelta> {
    if (parts.length === 0) return emptyDelta;
    const workloads = yield* replaceIn(this.#snapshot.workloads, parts.map(({ before, after }) => [before?.workloads, after?.workloads]), equalButSource);
    const services = yield* replaceIn(this.#snapshot.services, parts.map(({ before, after }) => [before?.services, after?.services]), equalButSource);
    const policies = yield* replaceIn(this.#snapshot.policies, parts.map(({ before, after }) => [before?.policies, after?.policies]), deepEqual);
    this.#snapshot = { workloads: workloads.next, services: services.next, policies: policies.next };
    return {
      workloads: workloads.upserted, services: services.upserted, policies: policies.upserted,
      removedWorkloads: workloads.removed, removedServices: services.removed, removedPolicies: policies.removed,
    };
  }
}

type Part<K, V> = readonly [before: ReadonlyMap<K, V> | undefined, after: ReadonlyMap<K, V> | undefined];

function* replaceIn<K, V>(current: ReadonlyMap<K, V>, parts: readonly Part<K, V>[], equal: (a: V, b: V) => boolean): Steps<{ readonly next: ReadonlyMap<K, V>; readonly upserted: V[]; readonly removed: K[] }> {
  const upserted: V[] = [];
  const removed: K[] = [];
  let next: Map<K, V> | null = null;
  let looked = 0;
  for (const [before, after] of parts) {
    if (before === after) continue;
    for (const [key, value] of after ?? []) {
      if (++looked % ITEMS_PER_STEP === 0) yield;
      const known = before?.get(key);
      if (known === value) continue;
      next ??= new Map(current);
      next.set(key, value);
      if (known === undefined || !equal(known, value)) upserted.push(value);
    }
    for (const key of before?.keys() ?? []) {
      if (after?.has(key) === true) continue;
      next ??= new Map(current);
      next.delete(key);
      removed.push(key);
    }
  }
  return { next: next ?? current, upserted, removed };
}
