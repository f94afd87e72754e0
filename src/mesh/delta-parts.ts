// A large delta as several small ones, for whoever takes it in before anybody asks: what is made on the way is garbage then before there is
// much of it. Between two parts the mesh is not whole.

import { emptyDelta, type MeshDelta } from "./records.ts";

/**
 * What others refer to comes first, removals last; applied in their order the parts come to the same as `delta`.
 * @param recordsMax of one kind in a part, at least 1. @returns `delta` itself where it has no more.
 */
export function partsOf(delta: MeshDelta, recordsMax: number): readonly MeshDelta[] {
  if ([delta.workloads, delta.services, delta.policies].every(({ length }) => length <= recordsMax)) return [delta];
  const slices = <T>(records: readonly T[]): (readonly T[])[] => Array.from({ length: Math.ceil(records.length / recordsMax) }, (_, i) => records.slice(i * recordsMax, (i + 1) * recordsMax));
  return [
    ...slices(delta.policies).map((policies) => ({ ...emptyDelta, policies })), ...slices(delta.services).map((services) => ({ ...emptyDelta, services })),
    ...slices(delta.workloads).map((workloads) => ({ ...emptyDelta, workloads })), { ...delta, policies: [], services: [], workloads: [] },
  ];
}
