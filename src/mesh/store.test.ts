import { describe, expect, test } from "bun:test";
import { delta, ip, member, policy, service, serviceName, uid, workload } from "../../test/kit/mesh-records.ts";
import { run as fuzz } from "../../test/fuzz/mesh.ts";
import type { NamespacedName } from "../core/brand.ts";
import type { MeshDelta, Service, Workload } from "./records.ts";
import { MeshStore } from "./store.ts";
import { processorMs } from "../../test/kit/fair-time.ts";

function storeOf(fields: Partial<MeshDelta>): MeshStore {
  const store = new MeshStore();
  store.apply(delta(fields));
  return store;
}
const at = (store: MeshStore, address: string, network = ""): string | undefined => store.workloadByAddress(network, ip(address))?.name;
const vip = (store: MeshStore, address: string, namespace = "client", network = ""): string | undefined => store.serviceByAddress(network, ip(address), namespace)?.name;

describe("workloads", () => {
  test("are found by uid and by address within their network", () => {
    const store = storeOf({ workloads: [workload({ name: "web", addresses: [ip("198.18.0.1"), ip("2001:db8::1")], network: "n1" })] });
    expect(store.workload(uid("Kubernetes//Pod/shop/web"))?.name).toBe("web");
    expect([at(store, "198.18.0.1", "n1"), at(store, "2001:db8::1", "n1")]).toEqual(["web", "web"]);
    expect([at(store, "198.18.0.1", "n2"), at(store, "198.18.0.2", "n1"), at(store, "198.18.0.1")]).toEqual([undefined, undefined, undefined]);
  });

  test("come back equal to what was put in", () => {
    const given = workload({ name: "web", services: member({ "shop/a": { 80: 8080 } }), authorizationPolicies: ["shop/p" as NamespacedName] });
    expect(storeOf({ workloads: [given] }).workload(given.uid)).toEqual(given);
  });

  test("on their node's network are never found by address", () => {
    expect(at(storeOf({ workloads: [workload({ name: "agent", hostNetwork: true })] }), "198.18.0.1")).toBeUndefined();
  });

  test("leave their old address when they move, and are gone when removed", () => {
    const store = storeOf({ workloads: [workload({ name: "web" })] });
    store.apply(delta({ workloads: [workload({ name: "web", addresses: [ip("198.18.0.2")] })] }));
    expect([at(store, "198.18.0.1"), at(store, "198.18.0.2")]).toEqual([undefined, "web"]);
    store.apply(delta({ removedWorkloads: [uid("Kubernetes//Pod/shop/web")] }));
    expect([at(store, "198.18.0.2"), store.counts().workloads]).toEqual([undefined, 0]);
  });

  test("with one address: a pod before others, HBONE before not, the youngest before the rest; and the next one when it goes", () => {
    const entry = workload({ name: "entry", uid: uid("Kubernetes/networking.istio.io/WorkloadEntry/shop/entry") });
    const plain = workload({ name: "plain", tunnelProtocol: "TCP" });
    const first = workload({ name: "first" });
    const second = workload({ name: "second" });
    const store = storeOf({ workloads: [second, entry, plain, first] });
    const order: (string | undefined)[] = [];
    for (const gone of [null, first, second, plain, entry]) {
      if (gone !== null) store.apply(delta({ removedWorkloads: [gone.uid] }));
      order.push(at(store, "198.18.0.1"));
    }
    expect(order).toEqual(["first", "second", "plain", "entry", undefined]);
  });

  test("an address taken over at once belongs to the newcomer, also when the old owner is updated on its way out", () => {
    const store = storeOf({ workloads: [workload({ name: "old" })] });
    store.apply(delta({ workloads: [workload({ name: "new" })] }));
    store.apply(delta({ workloads: [workload({ name: "old", status: "unhealthy" })] }));
    expect(at(store, "198.18.0.1")).toBe("new");
  });
});

describe("services", () => {
  test("by exact address, in their network", () => {
    const store = storeOf({ services: [service({ name: "web", vips: ["198.19.0.1", "2001:db8:1::1"], network: "n1" })] });
    expect([vip(store, "198.19.0.1", "c", "n1"), vip(store, "2001:db8:1::1", "c", "n1"), vip(store, "198.19.0.1")]).toEqual(["web", "web", undefined]);
  });

  test("an exact address before any range, a long prefix before a short one", () => {
    const store = storeOf({
      services: [service({ name: "wide", vips: ["198.18.0.0/15"] }), service({ name: "narrow", vips: ["198.19.0.0/24"] }), service({ name: "one", vips: ["198.19.0.1"] })],
    });
    expect([vip(store, "198.19.0.1"), vip(store, "198.19.0.2"), vip(store, "198.19.1.1"), vip(store, "198.51.100.1")]).toEqual(["one", "narrow", "wide", undefined]);
  });

  test("of the client's namespace first, then canonical ones, then by name; hidden ones only for their own namespace", () => {
    const of = (namespace: string, fields: Partial<Omit<Service, "addresses">> = {}) => service({ name: namespace, namespace, vips: ["198.19.0.1"], canonical: false, ...fields });
    const store = storeOf({ services: [of("d", { visibility: "namespace", canonical: true }), of("c"), of("b"), of("a", { canonical: true })] });
    expect([vip(store, "198.19.0.1", "b"), vip(store, "198.19.0.1", "d"), vip(store, "198.19.0.1", "z")]).toEqual(["b", "d", "a"]);
    store.apply(delta({ removedServices: ["a/a.a.svc.cluster.local" as NamespacedName] }));
    expect(vip(store, "198.19.0.1", "z")).toBe("b");
  });

  test("a hidden exact address does not hide a visible range", () => {
    const store = storeOf({ services: [service({ name: "hidden", vips: ["198.19.0.1"], visibility: "namespace" }), service({ name: "range", vips: ["198.19.0.0/16"] })] });
    expect([vip(store, "198.19.0.1", "other"), vip(store, "198.19.0.1", "shop")]).toEqual(["range", "hidden"]);
  });

  test("by hostname without regard to case, canonical ones first", () => {
    const store = storeOf({ services: [service({ name: "x", namespace: "a", hostname: "X.example", canonical: false }), service({ name: "y", namespace: "b", hostname: "x.EXAMPLE" })] });
    expect(store.servicesByHostname("x.example").map((s) => s.name)).toEqual(["y", "x"]);
    expect(store.servicesByHostname("y.example")).toEqual([]);
  });

  test("give up their old addresses and names when they change", () => {
    const web = service({ name: "web", vips: ["198.19.0.1", "198.19.1.0/24"] });
    const store = storeOf({ services: [web] });
    store.apply(delta({ services: [{ ...web, addresses: service({ name: "web", vips: ["198.19.0.2"] }).addresses }] }));
    expect([vip(store, "198.19.0.1"), vip(store, "198.19.1.1"), vip(store, "198.19.0.2")]).toEqual([undefined, undefined, "web"]);
    store.apply(delta({ removedServices: [serviceName(web)] }));
    expect([vip(store, "198.19.0.2"), store.service(serviceName(web)), store.servicesByHostname(web.hostname).length]).toEqual([undefined, undefined, 0]);
  });
});

describe("endpoints", () => {
  const web = service({ name: "web" });
  const member1 = workload({ name: "w1", services: member({ [serviceName(web)]: { 80: 8080 } }) });

  test("wait for their service and are there when it comes", () => {
    const store = storeOf({ workloads: [member1] });
    expect([store.counts().awaitedServices, store.endpointSet(serviceName(web)), store.service(serviceName(web))]).toEqual([1, undefined, undefined]);
    store.apply(delta({ services: [web] }));
    expect(store.endpointSet(serviceName(web))?.endpoints.map((e) => [e.workload.name, e.ports])).toEqual([["w1", [{ servicePort: 80, targetPort: 8080 }]]]);
    expect(store.counts()).toEqual({ workloads: 1, services: 1, policies: 0, endpoints: 1, awaitedServices: 0 });
  });

  test("survive their service's removal, and leave nothing behind when they go too", () => {
    const store = storeOf({ workloads: [member1], services: [web] });
    store.apply(delta({ removedServices: [serviceName(web)] }));
    expect([store.endpointSet(serviceName(web)), store.endpoints(serviceName(web)).length]).toEqual([undefined, 1]);
    store.apply(delta({ removedWorkloads: [member1.uid] }));
    expect(store.counts()).toEqual({ workloads: 0, services: 0, policies: 0, endpoints: 0, awaitedServices: 0 });
  });

  test("move the version of their set, and only of theirs", () => {
    const other = service({ name: "other" });
    const store = storeOf({ workloads: [member1], services: [web, other] });
    const [before, untouched] = [store.endpointSet(serviceName(web))!.version, store.endpointSet(serviceName(other))!.version];
    store.apply(delta({ workloads: [{ ...member1, status: "unhealthy" }] }));
    expect(store.endpointSet(serviceName(web))!.version).not.toBe(before);
    expect(store.endpointSet(serviceName(other))!.version).toBe(untouched);
  });

  test("a membership named twice is one endpoint", () => {
    const twice = workload({ name: "w", services: [...member({ "shop/x": { 80: 1 } }), ...member({ "shop/x": { 80: 2 } })] });
    expect(storeOf({ workloads: [twice] }).endpoints("shop/x" as NamespacedName).map((e) => e.ports[0]!.targetPort)).toEqual([1]);
  });
});

describe("apply", () => {
  test("puts removals last, and tells what it touched", () => {
    const web = workload({ name: "web", services: member({ "shop/x": {} }) });
    const store = new MeshStore();
    const { packed, ...change } = store.apply(delta({ workloads: [web], removedWorkloads: [web.uid, uid("none")], removedPolicies: ["shop/none" as NamespacedName] }));
    expect([packed.removedWorkloads, packed.workloads.length > 0]).toEqual([[web.uid, uid("none")], true]);
    expect({ ...change, left: store.counts().workloads }).toEqual({ workloadsChanged: new Set([web.uid]), servicesChanged: new Set(["shop/x" as NamespacedName]), policiesChanged: false, left: 0 });
    expect(store.apply(delta({ policies: [policy({ name: "p" })] })).policiesChanged).toBe(true);
  });
});

describe("policiesFor", () => {
  const names = (store: MeshStore, w: Workload) => {
    const set = store.policiesFor(store.workload(w.uid)!);
    return { deny: set.deny.map((p) => p.name), allow: set.allow.map((p) => p.name), missing: set.missing };
  };
  const plain = workload({ name: "plain" });
  const bound = workload({ name: "bound", authorizationPolicies: ["other/w" as NamespacedName, "shop/ns" as NamespacedName, "shop/lost" as NamespacedName] });

  test("gives those of the mesh, of the namespace, and the named ones; once each; and says which are missing", () => {
    const store = storeOf({
      workloads: [plain, bound],
      policies: [
        policy({ name: "all", namespace: "istio-system", scope: "global", action: "deny" }), policy({ name: "ns" }), policy({ name: "else", namespace: "bank" }),
        policy({ name: "w", namespace: "other", scope: "workload" }), policy({ name: "unbound", scope: "workload" }),
      ],
    });
    expect(names(store, plain)).toEqual({ deny: ["all"], allow: ["ns"], missing: [] });
    expect(names(store, bound)).toEqual({ deny: ["all"], allow: ["w", "ns"], missing: ["shop/lost" as NamespacedName] });
  });

  test("is a new set when one of them changed, and the same object otherwise", () => {
    const store = storeOf({ workloads: [plain, bound], policies: [policy({ name: "ns" })] });
    const [first, firstBound] = [store.policiesFor(store.workload(plain.uid)!), store.policiesFor(store.workload(bound.uid)!)];
    store.apply(delta({ policies: [policy({ name: "else", namespace: "bank" })] }));
    expect(store.policiesFor(store.workload(plain.uid)!)).toBe(first);
    expect(store.policiesFor(store.workload(bound.uid)!)).toBe(firstBound);
    store.apply(delta({ policies: [policy({ name: "lost", scope: "workload" })] }));
    expect(store.policiesFor(store.workload(plain.uid)!)).toBe(first);
    expect(names(store, bound)).toEqual({ deny: [], allow: ["lost", "ns"], missing: ["other/w" as NamespacedName] });
    store.apply(delta({ removedPolicies: ["shop/ns" as NamespacedName] }));
    expect(names(store, plain)).toEqual({ deny: [], allow: [], missing: [] });
    expect(names(store, bound).missing).toEqual(["other/w", "shop/ns"] as NamespacedName[]);
  });

  test("follows a policy that changes its scope", () => {
    const store = storeOf({ workloads: [plain], policies: [policy({ name: "p", scope: "global", namespace: "root" })] });
    expect(names(store, plain).allow).toEqual(["p"]);
    store.apply(delta({ policies: [policy({ name: "p", scope: "namespace", namespace: "root" })] }));
    expect(names(store, plain).allow).toEqual([]);
  });

  test("judges a workload that is not in the store by what it names", () => {
    expect(new MeshStore().policiesFor(bound).missing.length).toBe(3);
  });
});

describe("at size", () => {
  /** Time for the same number of look-ups in a store of `count` workloads, the best of several rounds. */
  function lookupMs(count: number): number {
    const store = new MeshStore();
    const address = (i: number) => ip(`198.${18 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`);
    const workloads = Array.from({ length: count }, (_, i) => workload({
      name: `w${i}`, addresses: [address(i)], services: member({ [`shop/s${i % (count / 50)}`]: { 80: 8080 } }),
    }));
    const services = Array.from({ length: count / 50 }, (_, i) => service({ name: `s${i}`, hostname: `s${i}`, vips: [`2001:db8::${i.toString(16)}`, `2001:db8:${(i + 1).toString(16)}::/48`] }));
    store.apply(delta({ workloads, services }));
    const keys = Array.from({ length: 256 }, (_, i) => {
      const n = Math.floor((i * count) / 256);
      const s = n % (count / 50);
      return { w: address(n), v: ip(`2001:db8::${s.toString(16)}`), c: ip(`2001:db8:${(s + 1).toString(16)}::7`), name: `shop/s${s}` as NamespacedName, host: `s${s}` };
    });
    let best = Infinity;
    for (let round = 0; round < 12; round++) {
      best = Math.min(best, processorMs(() => {
        for (let i = 0; i < 4096; i++) {
          const key = keys[i & 255]!;
          if (store.workloadByAddress("", key.w) === undefined || store.serviceByAddress("", key.v, "c") === undefined) throw new Error("not found");
          if (store.serviceByAddress("", key.c, "c") === undefined || store.endpoints(key.name).length === 0 || store.servicesByHostname(key.host).length === 0) throw new Error("not found");
        }
      }));
    }
    return best;
  }

  test("look-ups cost about the same among 1 000 workloads and among 100 000", () => {
    const [small, large] = [lookupMs(1_000), lookupMs(100_000)];
    // A scan would make it a hundred times as long; colder caches make it a few times.
    expect(large / small).toBeLessThan(12);
  }, 60_000);
});

test("whatever the history, the store answers as plain lists would", () => {
  for (let seed = 1000; seed < 1010; seed++) fuzz({ seed, iterations: 250 });
});
