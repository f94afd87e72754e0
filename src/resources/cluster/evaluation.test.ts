// That an evaluation which looks only at what a change can touch comes to what a fresh one comes to, whatever came before and in between.

import { describe, expect, test } from "bun:test";
import { CLUSTER_OPTIONS, holdAgainstFresh } from "../../../test/kit/cluster-changes.ts";
import { ClusterSet } from "./cluster-set.ts";

describe("an evaluation", () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8])("comes to what a fresh one comes to, of the moment in which it began (seed %i)", (seed) => holdAgainstFresh({ seed, rounds: 60 }), 60_000);

  test("that has begun is not begun a second time", () => {
    const set = new ClusterSet(CLUSTER_OPTIONS);
    const steps = set.evaluationSteps();
    set.upsert("Namespace", { apiVersion: "v1", kind: "Namespace", metadata: { name: "shop", labels: {} } });
    expect(steps.next().done).toBe(false);
    expect(() => set.evaluate()).toThrow("evaluated already");
  });

  test("does not keep a pod that has gone from losing its identity", () => {
    const set = new ClusterSet(CLUSTER_OPTIONS);
    const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "web", namespace: "shop", uid: "u", labels: {} }, spec: { nodeName: "n", serviceAccountName: "web", containers: [] }, status: { phase: "Running", podIP: "198.18.1.1" } };
    set.upsert("Pod", pod);
    set.evaluate();
    set.upsert("Namespace", { apiVersion: "v1", kind: "Namespace", metadata: { name: "shop", labels: {} } });
    const steps = set.evaluationSteps();
    steps.next();
    expect([set.runsOn("n", "shop", "web"), set.podByUid("u")?.name]).toEqual([true, "web"]);
    set.remove("Pod", "shop", "web");
    expect([set.runsOn("n", "shop", "web"), set.podByUid("u")]).toEqual([false, null]);
    while (steps.next().done !== true);
    expect([set.runsOn("n", "shop", "web"), set.podByUid("u"), set.counts.pods]).toEqual([false, null, 0]);
  });
});
