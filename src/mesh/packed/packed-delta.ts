// A change to the mesh as bytes: what crosses to a data thread, where a structured clone would cost several times as much on both sides.

import type { MeshDelta } from "../records.ts";
import { policyCodec, serviceCodec, workloadCodec } from "./record-codecs.ts";
import { packAll } from "./record-table.ts";

export type Removals = Pick<MeshDelta, "removedWorkloads" | "removedServices" | "removedPolicies">;

/** The records of each kind, one after the other, and what is gone. */
export interface PackedDelta extends Removals {
  readonly workloads: Uint8Array;
  readonly services: Uint8Array;
  readonly policies: Uint8Array;
}

const NO_RECORDS = new Uint8Array(0);
export const EMPTY_PACKED_DELTA: PackedDelta = { workloads: NO_RECORDS, services: NO_RECORDS, policies: NO_RECORDS, removedWorkloads: [], removedServices: [], removedPolicies: [] };

export function packDelta({ workloads, services, policies, removedWorkloads, removedServices, removedPolicies }: MeshDelta): PackedDelta {
  return {
    workloads: packAll(workloadCodec, workloads), services: packAll(serviceCodec, services), policies: packAll(policyCodec, policies), removedWorkloads, removedServices, removedPolicies,
  };
}
