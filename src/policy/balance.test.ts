import { describe, expect, test } from "bun:test";
import { delta, ip, member, service, serviceName, uid, workload } from "../../test/kit/mesh-records.ts";
import type { WorkloadUid } from "../core/brand.ts";
import { seededRandom } from "../core/ports.ts";
import type { LoadBalancing, LoadBalancingScope, Service, Workload } from "../mesh/records.ts";
import { MeshStore } from "../mesh/store.ts";
import { Balancer, type BalancerOptions } from "./balance.ts";
import { EJECTION_LIMITS } from "./ejection.ts";
import { rankOf } from "./locality.ts";
import { processorMs } from "../../test/kit/fair-time.ts";

const SERVICE = service({ name: "web" });
const NAME = serviceName(SERVICE);
const SOURCE = workload({ name: "client", locality: { region: "r1", zone: "z1", subzone: "s1" } });
const NONE: ReadonlySet<WorkloadUid> = new Set();

const endpoint = (name: string, fields: Partial<Workload> = {}): Workload => workload({ name, uid: uid(name), addresses: [ip("198.18.0.1")], services: member({ [NAME]: { 80: 8080 } }), ...fields });

class Fixture {
  readonly store = new MeshStore();
  readonly balancer: Balancer;
  nowMs = 0;
  service: Service;

  constructor(endpoints: readonly Workload[], loadBalancing: Partial<LoadBalancing> = {}, options: Partial<BalancerOptions> = {}) {
    this.service = { ...SERVICE, loadBalancing: { ...SERVICE.loadBalancing, ...loadBalancing } };
    this.store.apply(delta({ services: [this.service], workloads: endpoints }));
    this.balancer = new Balancer({ random: seededRandom(11), ...options });
  }

  pick(exclude: ReadonlySet<WorkloadUid> = NONE): string {
    const result = this.balancer.pick({
      service: this.service, endpoints: this.store.endpointSet(NAME)!, source: SOURCE, servicePort: 80, portFallback: null, anyNetwork: false, family: 4, exclude, nowMs: this.nowMs,
    });
    return result.ok ? result.value.workload.uid : "none";
  }

  /** How often each was picked. */
  tally(count: number, after: (name: string) => void = () => {}): Record<string, number> {
    const counts: Record<string, number> = {};
    for (let i = 0; i < count; i++) {
      const name = this.pick();
      counts[name] = (counts[name] ?? 0) + 1;
      after(name);
    }
    return counts;
  }

  fail(name: string, times: number): void {
    for (let i = 0; i < times; i++) this.balancer.failed(uid(name), this.nowMs);
  }
}
const many = (count: number, fields: Partial<Workload> = {}): Workload[] => Array.from({ length: count }, (_, i) => endpoint(`e${i}`, fields));

describe("least connections", () => {
  test("keeps two endpoints level", () => {
    const f = new Fixture(many(2));
    const counts = f.tally(1000, (name) => f.balancer.connected(uid(name), 0));
    expect(Math.abs(counts["e0"]! - counts["e1"]!)).toBeLessThanOrEqual(1);
  });

  test("keeps a hundred far closer together than chance would", () => {
    const spread = (algorithm: "leastConnections" | "random"): number => {
      const f = new Fixture(many(100), {}, { algorithm });
      const counts = Object.values(f.tally(10_000, (name) => f.balancer.connected(uid(name), 0)));
      return Math.max(...counts) - Math.min(...counts, counts.length < 100 ? 0 : Infinity);
    };
    expect(spread("leastConnections")).toBeLessThan(15);
    expect(spread("random")).toBeGreaterThan(30);
  });

  test("counts what closes", () => {
    const f = new Fixture(many(2));
    for (let i = 0; i < 5; i++) f.balancer.connected(uid("e0"), 0);
    expect(f.tally(50)).toEqual({ e1: 50 });
    for (let i = 0; i < 9; i++) f.balancer.closed(uid("e0"));
    expect(f.balancer.activeConnections(uid("e0"))).toBe(0);
    f.balancer.connected(uid("e1"), 0);
    expect(f.tally(50)).toEqual({ e0: 50 });
  });

  test("of two unequal ones fills both in proportion", () => {
    const f = new Fixture([endpoint("big", { capacity: 3 }), endpoint("small")]);
    const counts = f.tally(4000, (name) => f.balancer.connected(uid(name), 0));
    expect(Math.abs(counts["big"]! / counts["small"]! - 3)).toBeLessThan(0.1);
  });
});

describe("random by weight", () => {
  test("gives each its share", () => {
    const f = new Fixture([endpoint("a", { capacity: 5 }), endpoint("b", { capacity: 3 }), endpoint("c", { capacity: 2 }), endpoint("d", { capacity: 0 })], {}, { algorithm: "random" });
    const counts = f.tally(20_000);
    expect([counts["a"]! / 20_000, counts["b"]! / 20_000, counts["c"]! / 20_000].map((share) => Math.round(share * 50) / 50)).toEqual([0.5, 0.3, 0.2]);
    expect(counts["d"]).toBeUndefined();
  });
});

test("the same seed and history give the same choices, however the endpoints arrived", () => {
  const names = (endpoints: readonly Workload[]): string[] => {
    const f = new Fixture(endpoints);
    return Array.from({ length: 200 }, () => {
      const name = f.pick();
      f.balancer.connected(uid(name), 0);
      return name;
    });
  };
  expect(names(many(20))).toEqual(names(many(20).reverse()));
});

describe("rank", () => {
  const near = (fields: Partial<Workload>): Workload => endpoint("x", fields);
  const scopes: LoadBalancingScope[] = ["network", "region", "zone", "subzone", "node"];
  const at = (region: string, zone: string, subzone: string) => ({ locality: { region, zone, subzone } });
  test.each([
    ["all the same", near({ ...at("r1", "z1", "s1") }), 9], ["another node", near({ ...at("r1", "z1", "s1"), node: "node-2" }), 8], ["another subzone", near({ ...at("r1", "z1", "s2") }), 7],
    ["another zone", near({ ...at("r1", "z2", "s1") }), 6], ["another region with a zone of the same name", near({ ...at("r2", "z1", "s1") }), 5],
    ["another network, same place", near({ ...at("r1", "z1", "s1"), network: "far", node: "" }), 3], ["another network, another region", near({ ...at("r2", "z1", "s1"), network: "far" }), 0],
  ] as const)("failover: %s", (_, w, rank) => expect(rankOf({ mode: "failover", scopes, allowUnhealthy: false }, SOURCE, w)).toBe(rank));
  test.each([
    [["node"], near({}), 0], [["node"], near({ node: "node-2" }), -1], [["node"], near({ clusterId: "other" }), -1], [["zone"], near(at("r1", "z1", "")), 0], [["zone"], near(at("r2", "z1", "")), -1],
    [["subzone"], near(at("r1", "z2", "s1")), -1], [["region"], near(at("", "", "")), -1], [["cluster", "network"], near({}), 0], [["cluster"], near({ clusterId: "other" }), -1], [["network"], near({ network: "far" }), -1], [[], near({ network: "far" }), 0],
  ] as const)("strict %p", (strict, w, rank) => expect(rankOf({ mode: "strict", scopes: strict, allowUnhealthy: false }, SOURCE, w)).toBe(rank));
  test("an unknown node is nobody's node", () => expect(rankOf({ mode: "strict", scopes: ["node"], allowUnhealthy: false }, { ...SOURCE, node: "" }, near({ node: "" }))).toBe(-1));

  test("failover uses the next rank when the best is unhealthy, excluded or ejected", () => {
    const local = endpoint("local");
    const remote = endpoint("remote", { node: "node-2" });
    const f = new Fixture([local, remote], { mode: "failover", scopes: ["node"] });
    expect(f.tally(20)).toEqual({ local: 20 });
    expect(f.pick(new Set([uid("local")]))).toBe("remote");
    f.fail("local", 3);
    expect(f.pick()).toBe("remote");
    f.store.apply(delta({ workloads: [{ ...local, status: "unhealthy" }] }));
    f.balancer.workloadChanged(uid("local"));
    expect(f.tally(20)).toEqual({ remote: 20 });
  });
  test("strict uses none elsewhere", () => expect(new Fixture([endpoint("remote", { node: "node-2" })], { mode: "strict", scopes: ["node"] }).pick()).toBe("none"));
});

describe("ejection", () => {
  test("leaves out who refuses, lets one probe in when its time has come, and takes it back", () => {
    const f = new Fixture(many(4));
    f.tally(100);
    f.fail("e0", 3);
    expect(f.tally(200)["e0"]).toBeUndefined();
    expect(f.balancer.ejectedCount).toBe(1);
    f.nowMs = EJECTION_LIMITS.baseEjectionMs * 2;
    expect(f.tally(200)["e0"]).toBe(1);
    f.balancer.connected(uid("e0"), f.nowMs);
    f.balancer.closed(uid("e0"));
    expect(f.tally(200)["e0"]).toBeGreaterThan(20);
    expect(f.balancer.ejectedCount).toBe(0);
  });

  test("takes out no more than its share of a service", () => {
    const f = new Fixture(many(10));
    f.tally(500);
    for (let i = 0; i < 10; i++) f.fail(`e${i}`, 5);
    expect(f.balancer.ejectedCount).toBe(5);
    expect(Object.keys(f.tally(500)).length).toBe(5);
  });

  test("never takes out an only endpoint", () => {
    const f = new Fixture(many(1));
    f.pick();
    f.fail("e0", 50);
    expect(f.pick()).toBe("e0");
  });

  test("is forgotten when the control plane has news, and nothing is kept of the gone", () => {
    const f = new Fixture(many(4));
    f.tally(100);
    f.fail("e0", 3);
    f.balancer.workloadChanged(uid("e0"));
    expect([f.balancer.ejection(uid("e0")).kind, f.balancer.ejectedCount]).toEqual(["healthy", 0]);
  });

  test("when all that is left is ejected, one of them is tried rather than none", () => {
    const f = new Fixture(many(2));
    f.tally(50);
    f.fail("e0", 3);
    expect(f.pick(new Set([uid("e1")]))).toBe("e0");
  });
});

test("an endpoint that comes is used at once, one that changes or goes is not used as it was", () => {
  const f = new Fixture(many(1));
  expect(f.tally(10)).toEqual({ e0: 10 });
  f.store.apply(delta({ workloads: [endpoint("new")] }));
  expect(f.tally(200)["new"]).toBeGreaterThan(50);
  f.store.apply(delta({ workloads: [endpoint("e0", { services: [] })] }));
  expect(f.tally(10)).toEqual({ new: 10 });
  f.store.apply(delta({ removedWorkloads: [uid("new")] }));
  expect(f.pick()).toBe("none");
});

test("choosing among 10 000 endpoints does not look at each of them", () => {
  const time = (count: number): number => {
    const f = new Fixture(many(count));
    f.pick();
    let best = Infinity;
    for (let round = 0; round < 10; round++) {
      best = Math.min(best, processorMs(() => f.tally(2000, (name) => f.balancer.connected(uid(name), 0))));
    }
    return best;
  };
  time(100);
  // A scan would cost a hundred times as much; the misses of the processor's cache alone cost up to ten on a busy machine.
  expect(time(10_000) / time(100)).toBeLessThan(30);
});
