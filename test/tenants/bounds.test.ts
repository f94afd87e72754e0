// A tenant that writes as much as the API server takes: what the control plane keeps of it is bounded, and what it does for others goes on.

import { describe, expect } from "bun:test";
import { NAMESPACE_CHARS_MAX, NAMESPACE_OBJECTS_MAX } from "../../src/resources/cluster/namespace-allowance.ts";
import type { ClusterSet } from "../../src/resources/cluster/cluster-set.ts";
import { item } from "../kit/bad-input.ts";
import { cluster, object, put, saidOf, service, TENANT, VAULT, VICTIM, wayOf } from "./tenant-cluster.ts";

const policy = (at: string, name: string, spec: Readonly<Record<string, unknown>> = { action: "ALLOW", rules: [{ from: [{ source: { namespaces: [VICTIM] } }] }] }) => object("security.istio.io/v1", "AuthorizationPolicy", at, name, spec);
const rule = (i: number) => object("networking.istio.io/v1", "DestinationRule", TENANT, `r${i}`, { host: "nobody.example" });
const removeRules = (set: ClusterSet, from: number, to: number): void => {
  for (let i = from; i < to; i++) set.remove("DestinationRule", TENANT, `r${i}`);
};

describe("more than a namespace may have", () => {
  item("fifty thousand objects of one namespace", async () => {
    const set = cluster();
    for (let i = 0; i < 50_000; i++) expect(set.upsert("DestinationRule", rule(i))).toBe(i < NAMESPACE_OBJECTS_MAX ? "kept" : i < NAMESPACE_OBJECTS_MAX + 100 ? "refused" : "unnoticed");
    const evaluation = set.evaluate();
    expect([set.counts.objects, set.counts.broken]).toEqual([NAMESPACE_OBJECTS_MAX + 4, 100]);
    expect(saidOf(evaluation, `DestinationRule aaa/r${NAMESPACE_OBJECTS_MAX}`).join()).toContain("has no room for it");
    expect(saidOf(evaluation, "Namespace aaa").join()).toContain(`holds ${NAMESPACE_OBJECTS_MAX} objects`);
    // The bank goes on, and has its own room.
    put(set, policy(VICTIM, "more"), service(VICTIM, "more", "198.19.0.33"));
    const after = set.evaluate();
    expect([wayOf("198.19.0.1:80", after), after.mesh.policies.has("bank/more" as never), after.mesh.services.has("bank/more.bank.svc.cluster.local" as never)]).toEqual([VAULT, true, true]);
    // Room again: what was not kept is kept when it is brought again.
    removeRules(set, 0, 1_000);
    expect(set.hasRoomAgain(TENANT)).toBe(false);
    removeRules(set, 1_000, 40_000);
    expect(set.hasRoomAgain(TENANT)).toBe(true);
    expect(set.upsert("DestinationRule", rule(49_999))).toBe("kept");
  }, 60_000);

  item("objects of a megabyte each", async () => {
    const set = cluster();
    const large = (i: number) => policy(TENANT, `p${i}`, { action: "ALLOW", rules: [{ from: [{ source: { principals: Array.from({ length: 10_000 }, (_, n) => `${i}-${n}-${"x".repeat(90)}`) } }] }] });
    let kept = 0;
    for (let i = 0; i < 80; i++) if (set.upsert("AuthorizationPolicy", large(i)) === "kept") kept++;
    expect(kept).toBeGreaterThan(50);
    expect(kept).toBeLessThanOrEqual(NAMESPACE_CHARS_MAX / 1_000_000);
    expect(saidOf(set.evaluate(), `AuthorizationPolicy aaa/p${kept}`).join()).toContain("until there is room what it may cover is denied");
    // One that grows keeps what it was.
    expect(set.upsert("AuthorizationPolicy", policy(TENANT, "small"))).toBe("kept");
    const grown = large(999);
    expect(set.upsert("AuthorizationPolicy", { ...grown, metadata: { name: "small", namespace: TENANT } })).toBe("refused");
    expect(saidOf(set.evaluate(), "AuthorizationPolicy aaa/small").join()).toContain("its last good version stays in force");
  }, 60_000);

  item("a policy for which there is no room", async () => {
    const set = cluster();
    for (let i = 0; i < NAMESPACE_OBJECTS_MAX; i++) set.upsert("DestinationRule", rule(i));
    set.upsert("AuthorizationPolicy", policy(TENANT, "late"));
    set.upsert("AuthorizationPolicy", policy(TENANT, "later"));
    const denied = (): string[] => [...set.evaluate().mesh.policies.values()].filter(({ namespace }) => namespace === TENANT).map(({ name, action }) => `${action} ${name}`);
    expect(denied()).toEqual(["deny namespace-full.weft.dev"]);
    set.remove("AuthorizationPolicy", TENANT, "late");
    expect(denied()).toEqual(["deny namespace-full.weft.dev"]);
    removeRules(set, 0, 5_000);
    expect(set.upsert("AuthorizationPolicy", policy(TENANT, "later"))).toBe("kept");
    expect(denied()).toEqual(["allow later"]);
  }, 60_000);
});
