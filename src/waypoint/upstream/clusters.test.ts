import { describe, expect, test } from "bun:test";
import { delta, service } from "../../../test/kit/mesh-records.ts";
import { NO_LIMITS, trafficPolicy } from "../../../test/kit/upstreams.ts";
import { WaypointFixture } from "../../../test/kit/waypoint.ts";
import type { NamespacedName } from "../../core/brand.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import { explainRefusal, Permits } from "../../policy/upstream/circuit-breaker.ts";
import type { Cluster } from "./cluster.ts";
import { DYNAMIC_HOSTS_MAX, DYNAMIC_IDLE_MS, DYNAMIC_SETTLED_MS } from "./clusters.ts";

const WILDCARD = "shop/*.example.com" as NamespacedName;
const policy = { ...trafficPolicy({ dynamicHosts: { allowPrivate: false } }), service: WILDCARD };

function fixture(fields: Partial<TrafficPolicy> = {}) {
  const waypoint = new WaypointFixture({ endpoints: [], l7: { trafficPolicies: [{ service: WILDCARD, policies: [{ ...policy, ...fields }] }] } });
  waypoint.store.apply(delta({ services: [service({ name: "outside", hostname: "*.example.com", ports: [{ servicePort: 80, targetPort: 80, name: "http", appProtocol: "" }] })] }));
  const { clusters } = waypoint.plane;
  const wildcard = clusters.of({ service: WILDCARD, port: 80, subset: null, clientNamespace: null })!;
  const count = (): number => [...clusters].filter(({ owner, target }) => owner === WILDCARD && target.service !== WILDCARD).length;
  return { waypoint, clusters, count, ask: (host: string, nowMs: number) => clusters.hostUnder(wildcard, host, nowMs) };
}

describe("hosts under a wildcard", () => {
  test("have one cluster each, with the wildcard's policies and a name of their own", async () => {
    const { waypoint, ask } = fixture();
    await using _ = waypoint;
    const first = ask("a.example.com", 0);
    if (first.kind !== "cluster") throw new Error(first.why);
    expect([first.cluster.name, first.cluster.host, first.cluster.owner]).toEqual(["shop/a.example.com:80", "a.example.com", WILDCARD]);
    expect(first.cluster.settings.dynamicHosts).toEqual({ allowPrivate: false });
    expect(ask("a.example.com", 1)).toEqual(first);
    expect(ask("b.example.com", 1)).not.toEqual(first);
  });

  test("are bounded: with no room a new one waits until another is old enough, whatever is asked for", async () => {
    const { waypoint, ask, count } = fixture();
    await using _ = waypoint;
    for (let i = 0; i < DYNAMIC_HOSTS_MAX; i++) expect(ask(`h${i}.example.com`, i).kind).toBe("cluster");
    expect(ask("more.example.com", DYNAMIC_SETTLED_MS - 1)).toMatchObject({ kind: "exhausted", why: expect.stringContaining("more.example.com is another one") });
    // Known ones go on.
    expect(ask("h0.example.com", DYNAMIC_SETTLED_MS).kind).toBe("cluster");
    expect([ask("more.example.com", DYNAMIC_SETTLED_MS + 1).kind, count()]).toEqual(["cluster", DYNAMIC_HOSTS_MAX]);
    // The one that was asked for the longest ago has made place, not the one that was asked for again.
    expect([ask("h0.example.com", DYNAMIC_SETTLED_MS + 1).kind, ask("h1.example.com", DYNAMIC_SETTLED_MS + 1).kind]).toEqual(["cluster", "exhausted"]);
  });

  test("are forgotten when nobody asks, and when the wildcard goes", async () => {
    const { waypoint, clusters, ask, count } = fixture();
    await using _ = waypoint;
    ask("a.example.com", 0);
    ask("b.example.com", DYNAMIC_IDLE_MS);
    clusters.tick(DYNAMIC_IDLE_MS);
    expect(count()).toBe(1);
    waypoint.store.apply(delta({ removedServices: [WILDCARD] }));
    waypoint.plane.changed();
    expect(count()).toBe(0);
  });

  test("are those under it, and none that the configuration has by itself", async () => {
    const { waypoint, ask } = fixture();
    await using _ = waypoint;
    waypoint.store.apply(delta({ services: [service({ name: "own", hostname: "own.example.com" })] }));
    for (const host of ["", "example.com", "aexample.com", "own.example.com", "127.0.0.1", "a..example.com", `${"a".repeat(64)}.example.com`]) expect(ask(host, 0).kind).toBe("notCovered");
  });

  test("have what the wildcard's limits allow all of them together, and no more each", async () => {
    const limits = { ...NO_LIMITS, activeRequestsMax: 2 };
    const { waypoint, clusters, ask } = fixture({ limits });
    await using _ = waypoint;
    const under = (name: string): Cluster => {
      const found = ask(`${name}.example.com`, 0);
      if (found.kind !== "cluster") throw new Error(found.why);
      return found.cluster;
    };
    const [a, b] = [under("a"), under("b")];
    const wildcard = clusters.of({ service: WILDCARD, port: 80, subset: null, clientNamespace: null })!;
    const inUse = (): number[] => [a, b, wildcard].map(({ breaker }) => breaker.inUse("activeRequests"));
    const permits = [a, b, b].map(({ breaker }) => new Permits(breaker));
    expect(permits.slice(0, 2).map((one) => one.acquire("activeRequests"))).toEqual([null, null]);
    expect(inUse()).toEqual([1, 1, 2]);
    expect(explainRefusal(permits[2]!.acquire("activeRequests")!)).toBe("2 requests under way of all hosts of shop/*.example.com:80, which is the limit (activeRequestsMax)");
    // What one of the two refuses is held of neither.
    expect(inUse()).toEqual([1, 1, 2]);
    permits[0]![Symbol.dispose]();
    expect(permits[2]!.acquire("activeRequests")).toBeNull();
    for (const one of permits) one[Symbol.dispose]();
    expect(inUse()).toEqual([0, 0, 0]);
  });
});
