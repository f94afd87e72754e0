// What changed between two states of the mesh, as one delta that holds nothing else.

import type { NamespacedName, WorkloadUid } from "../core/brand.ts";
import type { Provenance } from "../core/fault.ts";
import { atOnce, ITEMS_PER_STEP, type Steps } from "../core/steps.ts";
import type { AuthorizationPolicy, MeshDelta, Service, Workload } from "../mesh/records.ts";
import { StateMap } from "./state-map.ts";

export interface MeshSnapshot {
  readonly workloads: ReadonlyMap<WorkloadUid, Workload>;
  readonly services: ReadonlyMap<NamespacedName, Service>;
  readonly policies: ReadonlyMap<NamespacedName, AuthorizationPolicy>;
}

export const emptySnapshot: MeshSnapshot = { workloads: new Map(), services: new Map(), policies: new Map() };

/**
 * The delta that makes `next` of `previous`. A workload or service of which only the line moved in its file is no change:
 * one line more at the top of a file would otherwise be a push of everything below. A policy's line is told, as explanations name it.
 */
export function diff(previous: MeshSnapshot, next: MeshSnapshot): MeshDelta {
  const workloads = atOnce(changed(previous.workloads, next.workloads, equalButSource));
  const services = atOnce(changed(previous.services, next.services, equalButSource));
  const policies = atOnce(changed(previous.policies, next.policies, deepEqual));
  return {
    workloads: workloads.upserted, services: services.upserted, policies: policies.upserted,
    removedWorkloads: workloads.removed, removedServices: services.removed, removedPolicies: policies.removed,
  };
}

export function isEmptyDelta(delta: MeshDelta): boolean {
  return Object.values(delta).every((part: readonly unknown[]) => part.length === 0);
}

export function* changed<K, V>(previous: ReadonlyMap<K, V>, next: ReadonlyMap<K, V>, equal: (a: V, b: V) => boolean): Steps<{ readonly upserted: V[]; readonly removed: K[] }> {
  const upserted: V[] = [];
  const removed: K[] = [];
  if (previous === next) return { upserted, removed };
  let looked = 0;
  for (const [key, value] of next) {
    if (++looked % ITEMS_PER_STEP === 0) yield;
    const before = previous.get(key);
    if (before === value) continue;
    if (before === undefined || !equal(before, value)) upserted.push(value);
  }
  for (const key of previous.keys()) if (!next.has(key)) removed.push(key);
  return { upserted, removed };
}

export function equalButSource<T extends { readonly provenance: Provenance }>(a: T, b: T): boolean {
  return deepEqual({ ...a, provenance: { ...a.provenance, source: "" } }, { ...b, provenance: { ...b.provenance, source: "" } });
}

const isMap = (value: object): value is ReadonlyMap<unknown, unknown> => value instanceof Map || value instanceof StateMap;

/** Equality of plain data: records, lists, maps by their keys, byte arrays and scalars. */
export function deepEqual(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return false;
  if (ArrayBuffer.isView(a) || ArrayBuffer.isView(b)) {
    return a instanceof Uint8Array && b instanceof Uint8Array && a.length === b.length && a.every((byte, i) => byte === b[i]);
  }
  if (isMap(a) || isMap(b)) {
    if (!isMap(a) || !isMap(b) || a.size !== b.size) return false;
    for (const [key, value] of a) if (!b.has(key) || !deepEqual(value, b.get(key))) return false;
    return true;
  }
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!deepEqual(a[i], b[i])) return false;
    return true;
  }
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  for (const key of keys) if (!Object.hasOwn(b, key) || !deepEqual((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key])) return false;
  return true;
}
