// A change to the mesh as bytes, for whoever does not look at every record of it.

import type { MeshDelta } from "../records.ts";
import { policyShape, serviceShape, workloadShape } from "./record-codecs.ts";
import { unpackEach } from "./record-table.ts";

export type Removals = Pick<MeshDelta, "removedWorkloads" | "removedServices" | "removedPolicies">;

/** The records of each kind, each with its length, and what is gone. */
export interface PackedDelta extends Removals {
  readonly workloads: Uint8Array;
  readonly services: Uint8Array;
  readonly policies: Uint8Array;
}

const NO_RECORDS = new Uint8Array(0);
export const EMPTY_PACKED_DELTA: PackedDelta = { workloads: NO_RECORDS, services: NO_RECORDS, policies: NO_RECORDS, removedWorkloads: [], removedServices: [], removedPolicies: [] };

export const isEmptyPackedDelta = ({ workloads, services, policies, removedWorkloads, removedServices, removedPolicies }: PackedDelta): boolean =>
  [workloads, services, policies, removedWorkloads, removedServices, removedPolicies].every(({ length }) => length === 0);

/** The same as records, which are unpacked each time that they are looked at: few look. */
export const unpackedDelta = ({ workloads, services, policies, removedWorkloads, removedServices, removedPolicies }: PackedDelta): MeshDelta => ({
  get workloads() { return Array.from(unpackEach(workloadShape, workloads), ({ record }) => record()); },
  get services() { return Array.from(unpackEach(serviceShape, services), ({ record }) => record()); },
  get policies() { return Array.from(unpackEach(policyShape, policies), ({ record }) => record()); },
  removedWorkloads, removedServices, removedPolicies,
});
