import { describe, expect, test } from "bun:test";
import { policy, service, workload } from "../../test/kit/mesh-records.ts";
import { partsOf } from "./delta-parts.ts";
import { emptyDelta, type MeshDelta } from "./records.ts";
import { MeshStore } from "./store.ts";

describe("a delta in parts", () => {
  const workloads = Array.from({ length: 7 }, (_, i) => workload({ name: `w${i}` }));
  const whole: MeshDelta = {
    ...emptyDelta, workloads, services: Array.from({ length: 3 }, (_, i) => service({ name: `s${i}` })), policies: [policy({ name: "p" })], removedWorkloads: [workloads[6]!.uid],
  };

  test("has at most so many records of a kind in each, and comes to the same", () => {
    const parts = partsOf(whole, 2);
    expect(parts.map(({ policies, services, workloads: of, removedWorkloads }) => [policies.length, services.length, of.length, removedWorkloads.length]))
      .toEqual([[1, 0, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 2, 0], [0, 0, 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]);
    const [inParts, atOnce] = [new MeshStore(), new MeshStore()];
    for (const part of parts) inParts.apply(part);
    atOnce.apply(whole);
    expect(inParts.counts()).toEqual(atOnce.counts());
    expect([...inParts.workloads()]).toEqual([...atOnce.workloads()]);
  });

  test("is itself where it is small", () => {
    expect(partsOf(whole, 7)).toEqual([whole]);
    expect(partsOf(emptyDelta, 1)).toEqual([emptyDelta]);
  });
});
