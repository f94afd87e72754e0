import { describe, expect, test } from "bun:test";
import { formatCidr, parseCidr } from "../../core/ip.ts";
import { seededRandom } from "../../core/ports.ts";
import { parseTrustDomain } from "../../core/spiffe.ts";
import type { Workload } from "../../mesh/records.ts";
import { deepEqual } from "../mesh-delta.ts";
import type { TranslationOptions } from "../resource.ts";
import { type ClusterKind, ClusterSet } from "./cluster-set.ts";

type Json = Readonly<Record<string, unknown>>;

const OPTIONS: TranslationOptions = { node: "", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "", rootNamespace: "istio-system", serviceCidrs: [] };

interface PodWords {
  readonly namespace?: string;
  readonly labels?: Json;
  readonly annotations?: Json;
  readonly ip?: string | null;
  readonly ready?: boolean;
  readonly phase?: string;
  readonly uid?: string;
  readonly spec?: Json;
  readonly owner?: Json;
  readonly leaving?: boolean;
}

function pod(name: string, { namespace = "shop", labels = { app: "web" }, annotations = {}, ip = "198.18.1.9", ready = true, phase = "Running", uid = `uid-${name}`, spec = {}, owner, leaving = false }: PodWords = {}): Json {
  return {
    apiVersion: "v1", kind: "Pod",
    metadata: { name, namespace, uid, labels, annotations, ...(owner === undefined ? {} : { ownerReferences: [{ controller: true, ...owner }] }), ...(leaving ? { deletionTimestamp: "2026-01-01T00:00:00Z" } : {}) },
    spec: { nodeName: "node1", serviceAccountName: "web", containers: [{ name: "app", ports: [{ name: "http", containerPort: 8080 }, { name: "dns", containerPort: 53, protocol: "UDP" }] }], ...spec },
    status: { phase, ...(ip === null ? {} : { podIP: ip, podIPs: [{ ip }] }), conditions: [{ type: "Ready", status: ready ? "True" : "False" }] },
  };
}
const namespace = (name: string, labels: Json = {}): Json => ({ apiVersion: "v1", kind: "Namespace", metadata: { name, labels }, spec: { finalizers: ["kubernetes"] }, status: { phase: "Active" } });
const service = (name: string, spec: Json, more: Json = {}): Json => ({ apiVersion: "v1", kind: "Service", metadata: { name, namespace: "shop", ...more }, spec: { clusterIP: "198.19.0.7", ports: [{ name: "http", port: 80, targetPort: "http" }], ...spec } });
const policy = (name: string, spec: Json, at = "shop"): Json => ({ apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name, namespace: at }, spec });
const slice = (name: string, more: Json, labels: Json = { "kubernetes.io/service-name": "db" }): Json => ({ apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice", metadata: { name, namespace: "shop", labels }, addressType: "IPv4", ports: [{ name: "http", port: 5432, protocol: "TCP" }], ...more });

function cluster(...objects: readonly Json[]): ClusterSet {
  const set = new ClusterSet(OPTIONS);
  put(set, namespace("shop"), ...objects);
  return set;
}
function put(set: ClusterSet, ...objects: readonly Json[]): void {
  for (const object of objects) set.upsert(object["kind"] as ClusterKind, object);
}
const workloadOf = (set: ClusterSet, name: string): Workload | undefined => [...set.evaluate().mesh.workloads.values()].find((one) => one.name === name);

describe("a pod as a workload", () => {
  test("has Istio's name, its service by selector, and its named port", () => {
    const set = cluster(service("web", { selector: { app: "web" } }), pod("web-1"));
    expect(workloadOf(set, "web-1")).toMatchObject({
      uid: "Kubernetes//Pod/shop/web-1", serviceAccount: "web", node: "node1", addresses: ["198.18.1.9"], status: "healthy", tunnelProtocol: "TCP", hostNetwork: false, canonicalName: "web", canonicalRevision: "latest", workloadName: "web-1",
      services: [{ service: "shop/web.shop.svc.cluster.local", ports: [{ servicePort: 80, targetPort: 8080 }] }],
    });
  });

  test("is reached by HBONE when the node says that it captures it, or when it ends tunnels itself", () => {
    expect(workloadOf(cluster(pod("a", { annotations: { "ambient.istio.io/redirection": "enabled" } })), "a")).toMatchObject({ tunnelProtocol: "HBONE", nativeTunnel: false });
    expect(workloadOf(cluster(pod("a", { annotations: { "ambient.istio.io/redirection": "pending" } })), "a")).toMatchObject({ tunnelProtocol: "TCP" });
    expect(workloadOf(cluster(pod("a", { labels: { "networking.istio.io/tunnel": "http" } })), "a")).toMatchObject({ tunnelProtocol: "HBONE", nativeTunnel: true });
  });

  test.each([
    ["a Deployment", { kind: "ReplicaSet", name: "web-5d8f7c" }, { "pod-template-hash": "5d8f7c" }, "web"],
    ["a ReplicaSet of nobody", { kind: "ReplicaSet", name: "web-5d8f7c" }, {}, "web-5d8f7c"],
    ["a CronJob", { kind: "Job", name: "backup-28000000" }, {}, "backup"],
    ["a Job", { kind: "Job", name: "migrate" }, {}, "migrate"],
    ["a StatefulSet", { kind: "StatefulSet", name: "db" }, {}, "db"],
  ])("is called after %s", (_, owner, labels, wanted) => expect(workloadOf(cluster(pod("x", { owner, labels })), "x")).toMatchObject({ workloadName: wanted, canonicalName: wanted }));

  test("has its addresses of both families, in the order in which Kubernetes gives them; the one of old is none beside them", () => {
    const dual = { ...pod("a"), status: { phase: "Running", podIP: "2001:db8:1::9", podIPs: [{ ip: "2001:db8:1::9" }, { ip: "198.18.1.9" }], conditions: [] } };
    expect(workloadOf(cluster(dual), "a")?.addresses.join()).toBe("2001:db8:1::9,198.18.1.9");
    expect(workloadOf(cluster({ ...dual, status: { phase: "Running", podIP: "2001:db8:1::9", conditions: [] } }), "a")?.addresses.join()).toBe("2001:db8:1::9");
  });

  test("is unhealthy until it is ready, and while it is deleted; it is there with an address alone, and not once it has ended", () => {
    expect(workloadOf(cluster(pod("a", { ready: false })), "a")?.status).toBe("unhealthy");
    expect(workloadOf(cluster(pod("a", { leaving: true })), "a")?.status).toBe("unhealthy");
    expect(workloadOf(cluster(pod("a", { phase: "Pending", ready: false })), "a")?.status).toBe("unhealthy");
    expect(workloadOf(cluster(pod("a", { ip: null })), "a")).toBeUndefined();
    expect(workloadOf(cluster(pod("a", { phase: "Succeeded" })), "a")).toBeUndefined();
  });

  test("on its node's network it is never found by address", () => expect(workloadOf(cluster(pod("a", { spec: { hostNetwork: true } })), "a")?.hostNetwork).toBe(true));

  test("without a port of that name it is no endpoint for it, but a member", () => {
    const set = cluster(service("web", { selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: "other" }, { name: "plain", port: 81, targetPort: 9090 }] }), pod("web-1"));
    expect(workloadOf(set, "web-1")?.services[0]?.ports).toEqual([{ servicePort: 81, targetPort: 9090 }]);
  });

  test("has the locality of its node, when that comes later too", () => {
    const set = cluster(pod("a"));
    expect(workloadOf(set, "a")?.locality.zone).toBe("");
    put(set, { apiVersion: "v1", kind: "Node", metadata: { name: "node1", labels: { "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z" } } });
    expect(workloadOf(set, "a")?.locality).toEqual({ region: "r", zone: "z", subzone: "" });
  });

  test("is bound to a waypoint that is for workloads, and to none that is for services", () => {
    const gateway = (use: string): Json => ({ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "wp", namespace: "shop", labels: { "istio.io/waypoint-for": use } }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } });
    const set = cluster(gateway("service"), pod("a", { labels: { "istio.io/use-waypoint": "wp" } }), pod("wp-1", { labels: { "gateway.networking.k8s.io/gateway-name": "wp", "istio.io/use-waypoint": "wp" }, ip: "198.18.1.10" }));
    expect(workloadOf(set, "a")?.waypoints).toEqual([]);
    put(set, gateway("all"));
    expect(workloadOf(set, "a")?.waypoints.map(({ gateway: { destination } }) => destination)).toEqual([{ kind: "hostname", service: "shop/wp.shop.svc.cluster.local" as never }]);
    expect(workloadOf(set, "wp-1")?.waypoints).toEqual([]);
  });

  test("and its service may have a canary beside their waypoint, by weight", () => {
    const gateway = (name: string): Json => ({ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name, namespace: "shop", labels: { "istio.io/waypoint-for": "all" } }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } });
    const bound = { labels: { app: "web", "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-canary": "next" }, annotations: { "istio.io/use-waypoint-canary-weight": "20" } };
    const set = cluster(gateway("wp"), gateway("next"), service("web", { selector: { app: "web" } }, bound), pod("a", bound), service("next", { clusterIP: "198.19.0.9", selector: {} }, bound));
    const { mesh } = set.evaluate();
    const sharesOf = (waypoints: Workload["waypoints"]) => waypoints.map(({ gateway: { destination }, weight }) => [destination.kind === "hostname" ? String(destination.service) : "", weight]);
    const wanted = [["shop/wp.shop.svc.cluster.local", 80], ["shop/next.shop.svc.cluster.local", 20]];
    expect(sharesOf(mesh.services.get("shop/web.shop.svc.cluster.local" as never)!.waypoints)).toEqual(wanted);
    expect(sharesOf(workloadOf(set, "a")!.waypoints)).toEqual(wanted);
    expect(mesh.services.get("shop/next.shop.svc.cluster.local" as never)!.waypoints).toEqual([]);
    put(set, { ...namespace("shop", { "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-canary": "next" }), metadata: { name: "shop", labels: { "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-canary": "next" }, annotations: { "istio.io/use-waypoint-canary-weight": "120" } } });
    expect(set.evaluate().diagnostics.map(({ fieldPath }) => fieldPath)).toContain('metadata.annotations["istio.io/use-waypoint-canary-weight"]');
  });

  test("of a namespace that is not known yet is nobody's peer: nobody knows which policies hold there", () => {
    const set = cluster(pod("a", { namespace: "later" }));
    expect(workloadOf(set, "a")).toBeUndefined();
    put(set, namespace("later"));
    expect(workloadOf(set, "a")).toBeDefined();
  });

  test("names the policies that select it, those of the root namespace too", () => {
    const set = cluster(policy("web", { selector: { matchLabels: { app: "web" } }, action: "ALLOW", rules: [{}] }), policy("root", { selector: { matchLabels: { app: "web" } }, action: "DENY", rules: [{}] }, "istio-system"), namespace("istio-system"), pod("a"), pod("b", { labels: { app: "other" }, ip: "198.18.1.10" }));
    expect(workloadOf(set, "a")?.authorizationPolicies.map(String)).toEqual(["istio-system/root", "shop/web"]);
    expect(workloadOf(set, "b")?.authorizationPolicies).toEqual([]);
  });
});

describe("services without a selector", () => {
  const db = service("db", {});

  test("have the endpoints that somebody listed, never found by their address", () => {
    const set = cluster(db, slice("db-1", { endpoints: [{ addresses: ["198.51.100.7"], conditions: { ready: true } }, { addresses: ["198.51.100.8"], conditions: { ready: false } }] }));
    const made = [...set.evaluate().mesh.workloads.values()];
    expect(made.map(({ uid, status, hostNetwork, services }) => [uid, status, hostNetwork, services[0]?.ports])).toEqual([
      ["Kubernetes/discovery.k8s.io/EndpointSlice/shop/db-1/198.51.100.7" as never, "healthy", true, [{ servicePort: 80, targetPort: 5432 }]], ["Kubernetes/discovery.k8s.io/EndpointSlice/shop/db-1/198.51.100.8" as never, "unhealthy", true, [{ servicePort: 80, targetPort: 5432 }]],
    ]);
    set.remove("EndpointSlice", "shop", "db-1");
    expect(set.evaluate().delta.removedWorkloads.length).toBe(2);
  });

  test("have the pods that a slice of their own namespace names", () => {
    const set = cluster(db, pod("db-0", { labels: {} }), slice("db-1", { endpoints: [{ addresses: ["198.18.1.9"], targetRef: { kind: "Pod", namespace: "shop", name: "db-0", uid: "uid-db-0" } }] }));
    expect(workloadOf(set, "db-0")?.services).toEqual([{ service: "shop/db.shop.svc.cluster.local" as never, ports: [{ servicePort: 80, targetPort: 5432 }] }]);
  });

  test("of both families have the endpoints and the pods of a slice of each", () => {
    const both = service("db", { clusterIPs: ["198.19.0.7", "2001:db8:2::7"], ipFamilies: ["IPv4", "IPv6"], ipFamilyPolicy: "PreferDualStack" });
    const listed = (ip: string) => ({ addresses: [ip] });
    const ofPod = (ip: string) => ({ addresses: [ip], targetRef: { kind: "Pod", namespace: "shop", name: "db-0", uid: "uid-db-0" } });
    const set = cluster(both, pod("db-0", { labels: {} }), slice("db-4", { endpoints: [listed("198.51.100.7"), ofPod("198.18.1.9")] }), slice("db-6", { addressType: "IPv6", endpoints: [listed("2001:db8:3::7"), ofPod("2001:db8:1::9")] }));
    const { mesh } = set.evaluate();
    expect([...mesh.services.values()].map(({ addresses, ipFamilies }) => [addresses.map(({ cidr }) => formatCidr(cidr)).join(), ipFamilies])).toEqual([["198.19.0.7/32,2001:db8:2::7/128", "dual"]]);
    const members = [...mesh.workloads.values()].map(({ name, addresses, services }) => `${name} ${addresses.join()} ${services.length}`).sort();
    expect(members).toEqual(["db-0 198.18.1.9 1", "db-4 198.51.100.7 1", "db-6 2001:db8:3::7 1"]);
  });

  test("hosts of ServiceEntries have an address of each range; the service of a waypoint that the API does not have yet takes none of theirs", () => {
    const set = new ClusterSet({ ...OPTIONS, serviceCidrs: [parseCidr("198.19.255.0/24")!, parseCidr("2001:db8:ff::/112")!] });
    put(set, namespace("shop"),
      { apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "api", namespace: "shop", creationTimestamp: "2026-01-01T00:00:00Z" }, spec: { hosts: ["api.example.com"], resolution: "DNS", ports: [{ number: 443, name: "tls", protocol: "TLS" }] } },
      { apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } });
    expect([...set.evaluate().mesh.services.values()].map(({ name, addresses }) => `${name} ${addresses.map(({ cidr }) => formatCidr(cidr).replace(/[0-9a-f]+\/\d+$/, "x")).join()}`).sort()).toEqual(["api 198.19.255.x,2001:db8:ff::x", "waypoint "]);
  });

  test("a slice of names is not used, and whoever runs the mesh is told while it is there", () => {
    const names = { addressType: "FQDN", endpoints: [{ addresses: ["db.example.com"] }] };
    const set = cluster(db, slice("db-1", names));
    const told = () => set.evaluate().diagnostics.map(({ severity, resource, fieldPath }) => `${severity} ${resource} ${fieldPath}`);
    expect(told()).toEqual(["warning EndpointSlice shop/db-1 addressType"]);
    expect(set.evaluate().mesh.workloads.size).toBe(0);
    put(set, slice("db-1", { endpoints: [{ addresses: ["198.51.100.7"] }] }));
    expect(told()).toEqual([]);
    expect(set.evaluate().mesh.workloads.size).toBe(1);
    put(set, slice("db-1", names));
    expect([told().length, set.evaluate().mesh.workloads.size]).toEqual([1, 0]);
    set.remove("EndpointSlice", "shop", "db-1");
    expect(told()).toEqual([]);
  });

  test("a slice says nothing of another namespace's pods", () => {
    const set = cluster(db, namespace("bank"), pod("vault", { namespace: "bank", labels: {} }), slice("db-1", { endpoints: [{ addresses: ["198.18.1.9"], targetRef: { kind: "Pod", namespace: "bank", name: "vault", uid: "uid-vault" } }] }));
    expect(workloadOf(set, "vault")?.services).toEqual([]);
  });

  test("a slice under the name of a service with a selector adds nothing", () => {
    const set = cluster(service("web", { selector: { app: "web" } }), slice("web-x", { endpoints: [{ addresses: ["198.51.100.7"] }] }, { "kubernetes.io/service-name": "web" }));
    expect(set.evaluate().mesh.workloads.size).toBe(0);
  });
});

describe("what cannot be read", () => {
  test("a policy keeps its last good version, or denies when it never had one", () => {
    const set = cluster(policy("a", { action: "ALLOW", rules: [{ from: [{ source: { namespaces: ["shop"] } }] }] }));
    expect(set.evaluate().mesh.policies.get("shop/a" as never)?.action).toBe("allow");
    put(set, policy("a", { action: "ALLOW", rules: [{ from: [{ source: { future: ["x"] } }] }] }));
    const kept = set.evaluate();
    expect(kept.mesh.policies.get("shop/a" as never)?.action).toBe("allow");
    expect(kept.diagnostics[0]).toMatchObject({ resource: "AuthorizationPolicy shop/a", fieldPath: "spec.rules[0].from[0].source.future", message: expect.stringMatching(/^unknown field.*; its last good version stays in force$/) });
    put(set, policy("b", { action: "ALLOW", rules: [{ from: [{ source: { future: ["x"] } }] }] }));
    expect(set.evaluate().mesh.policies.get("shop/b" as never)).toMatchObject({ action: "deny", rules: [{ clauses: expect.any(Array) }] });
    put(set, policy("b", { action: "ALLOW", rules: [{}] }));
    const mended = set.evaluate();
    expect(mended.mesh.policies.get("shop/b" as never)?.action).toBe("allow");
    expect(mended.broken.size).toBe(1);
  });

  test("fields of Kubernetes' own kinds that we do not know are none of our affair", () => {
    const set = cluster(service("web", { selector: { app: "web" }, invention: { of: "tomorrow" } }));
    const { mesh, diagnostics } = set.evaluate();
    expect(mesh.services.size).toBe(1);
    expect(diagnostics.filter(({ severity }) => severity === "error")).toEqual([]);
  });

  test("an alias in DNS is no service of the mesh, and one that becomes an alias is none any more", () => {
    const set = cluster(service("web", { selector: { app: "web" } }));
    expect(set.evaluate().mesh.services.size).toBe(1);
    put(set, service("web", { type: "ExternalName", externalName: "example.com", clusterIP: undefined }));
    const { mesh, delta } = set.evaluate();
    expect([mesh.services.size, delta.removedServices.map(String)]).toEqual([0, ["shop/web.shop.svc.cluster.local"]]);
  });

  test.each([
    [{}], [{ metadata: null }], [{ metadata: { name: 7, namespace: [] } }], [{ metadata: { name: "a", namespace: "shop", uid: "u", labels: { a: 1 } } }], [{ metadata: { name: "a", namespace: "shop", uid: "u" }, spec: { containers: "none" } }],
    [{ metadata: { name: "a", namespace: "shop", uid: "u" }, status: { podIPs: [{ ip: "not an address" }] } }],
  ])("no object brings it down: %j", (object) => {
    for (const kind of ["Pod", "Node", "EndpointSlice", "Service", "HTTPRoute", "AuthorizationPolicy", "Secret"] as const) {
      const set = cluster();
      set.upsert(kind, { apiVersion: "v1", kind, ...object });
      expect(set.evaluate().mesh.workloads.size).toBe(0);
    }
  });
});

describe("changes", () => {
  test("a changed pod is told alone, an unchanged one not at all", () => {
    const set = cluster(service("web", { selector: { app: "web" } }), pod("a"), pod("b", { ip: "198.18.1.10" }));
    set.evaluate();
    put(set, pod("a"), pod("b", { ip: "198.18.1.11" }));
    expect(set.evaluate().delta.workloads.map(({ name }) => name)).toEqual(["b"]);
    put(set, pod("a", { annotations: { "example.com/note": "of no meaning" } }));
    expect(set.evaluate().delta).toMatchObject({ workloads: [], removedWorkloads: [] });
  });

  test("a pod that is made anew under the same name before anybody looked is one change", () => {
    const set = cluster(pod("db-0", { uid: "one" }));
    set.evaluate();
    set.remove("Pod", "shop", "db-0");
    put(set, pod("db-0", { uid: "two", ip: null }));
    expect(set.evaluate().delta.removedWorkloads.map(String)).toEqual(["Kubernetes//Pod/shop/db-0"]);
    put(set, pod("db-0", { uid: "two", ip: "198.18.1.20" }));
    expect(set.evaluate().delta.workloads.map(({ addresses }) => addresses)).toEqual([["198.18.1.20" as never]]);
  });

  test("its node's pods alone may be asked for", () => {
    const set = cluster(pod("a"));
    expect(set.runsOn("node1", "shop", "web")).toBe(true);
    expect(set.runsOn("node2", "shop", "web")).toBe(false);
    put(set, pod("a", { phase: "Failed" }));
    expect(set.runsOn("node1", "shop", "web")).toBe(false);
    expect(set.podByUid("uid-a")?.name).toBe("a");
    set.remove("Pod", "shop", "a");
    expect(set.podByUid("uid-a")).toBeNull();
  });

  test("whatever the order of changes: what comes out is what a fresh start would make of it, and the deltas lead there", () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = seededRandom(seed);
      const pick = <T>(items: readonly T[]): T => items[Math.floor(random.next() * items.length)]!;
      const set = cluster();
      const objects = new Map<string, Json>([["Namespace//shop", namespace("shop")]]);
      const known = new Map<string, Workload>();
      for (let step = 0; step < 120; step++) {
        const name = pick(["a", "b", "c"]);
        const made: Json = pick<() => Json>([
          () => pod(name, { labels: pick([{ app: "web" }, { app: "db" }, {}]), ip: pick([`198.18.1.${1 + name.charCodeAt(0)}`, null]), ready: random.next() < 0.5, uid: `${name}-${pick([1, 2])}`, phase: pick(["Running", "Succeeded"]) }),
          () => service(name, pick([{ selector: { app: "web" } }, { selector: { app: "db" } }, {}, { type: "ExternalName", externalName: "example.com" }])),
          () => policy(name, pick([{ selector: { matchLabels: { app: "web" } }, action: "ALLOW", rules: [{}] }, { action: "DENY", rules: [{}] }])),
          () => slice(name, { endpoints: [{ addresses: ["198.51.100.7"] }, { addresses: ["198.18.1.9"], targetRef: { kind: "Pod", uid: `${name}-1` } }] }, { "kubernetes.io/service-name": pick(["a", "b"]) }),
          () => ({ apiVersion: "v1", kind: "Node", metadata: { name: "node1", labels: { "topology.kubernetes.io/zone": pick(["z1", "z2"]) } } }),
          () => namespace("shop", pick([{}, { "istio.io/use-waypoint": "wp" }])),
        ])();
        const { name: called, namespace: at = "" } = made["metadata"] as { name: string; namespace?: string };
        const key = `${String(made["kind"])}/${at}/${called}`;
        if (random.next() < 0.3 && made["kind"] !== "Namespace") {
          set.remove(made["kind"] as ClusterKind, at, called);
          objects.delete(key);
        } else {
          put(set, made);
          objects.set(key, made);
        }
        if (random.next() < 0.5) continue;
        const { mesh, delta } = set.evaluate();
        for (const workload of delta.workloads) known.set(workload.uid, workload);
        for (const uid of delta.removedWorkloads) known.delete(uid);
        const fresh = new ClusterSet(OPTIONS);
        put(fresh, ...objects.values());
        const wanted = fresh.evaluate().mesh;
        for (const [part, ours, theirs] of [["workloads", mesh.workloads, wanted.workloads], ["services", mesh.services, wanted.services], ["policies", mesh.policies, wanted.policies], ["deltas", known, wanted.workloads]] as const) {
          if (!deepEqual(ours, theirs)) expect({ seed, step, part, ours: [...ours.values()] }).toEqual({ seed, step, part, ours: [...theirs.values()] as never });
        }
      }
    }
  });

  test("what is to be told is the same list while pods come and go, and another when something of it has changed", () => {
    const set = cluster(policy("odd", { action: "PERHAPS" }), pod("a"));
    const { diagnostics } = set.evaluate();
    expect(diagnostics.map(({ resource }) => resource)).toEqual(["AuthorizationPolicy shop/odd"]);
    put(set, pod("a", { ip: "198.18.1.11" }), pod("b"));
    expect(set.evaluate().diagnostics).toBe(diagnostics);
    put(set, policy("odder", { action: "NEVER" }));
    expect(set.evaluate().diagnostics).toHaveLength(2);
    set.remove("AuthorizationPolicy", "shop", "odder");
    put(set, policy("odd", { action: "DENY", rules: [{}] }));
    expect(set.evaluate().diagnostics).toEqual([]);
    // Of a pod nothing is translated that would have the list made anew.
    put(set, pod("a", { spec: { containers: "none" } }));
    expect(set.evaluate().diagnostics.map(({ resource }) => resource)).toEqual(["Pod shop/a"]);
    put(set, pod("a"));
    expect(set.evaluate().diagnostics).toEqual([]);
  });

  test("a Secret of another namespace is asked for once a ReferenceGrant there allows it, and no longer than that", () => {
    const set = new ClusterSet(OPTIONS);
    put(set, namespace("shop"), namespace("team"), {
      apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "wp", namespace: "shop" },
      spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }], tls: { backend: { clientCertificateRef: { name: "client", namespace: "team" } } } },
    });
    expect([...set.references()]).toEqual([]);
    put(set, {
      apiVersion: "gateway.networking.k8s.io/v1", kind: "ReferenceGrant", metadata: { name: "grant", namespace: "team" },
      spec: { from: [{ group: "gateway.networking.k8s.io", kind: "Gateway", namespace: "shop" }], to: [{ group: "", kind: "Secret" }] },
    });
    expect([...set.references()]).toEqual([{ kind: "Secret", namespace: "team", name: "client" }]);
    set.evaluate();
    set.remove("ReferenceGrant", "team", "grant");
    expect([...set.references()]).toEqual([]);
  });

  test("labels of pods whose namespace comes with the rule that looks at them, though what the rule names was asked for before", () => {
    const set = new ClusterSet(OPTIONS);
    put(set, pod("a", { labels: { app: "web", track: "one" } }));
    expect(set.evaluate().mesh.workloads.size).toBe(0);
    put(set, namespace("shop"), service("web", { selector: { app: "web" } }), { apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: { name: "web", namespace: "shop" }, spec: { host: "web", subsets: [{ name: "one", labels: { track: "one" } }] } });
    expect([...set.references()]).toEqual([]);
    expect([...set.evaluate().l7.workloadLabels.values()].map(({ labels }) => labels)).toEqual([{ track: "one" }]);
  });

  test("labels that a rule looks at: whatever the order of changes, and whatever was asked for in between, what is told is what a fresh start would tell", () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = seededRandom(seed);
      const pick = <T>(items: readonly T[]): T => items[Math.floor(random.next() * items.length)]!;
      const set = new ClusterSet(OPTIONS);
      const objects = new Map<string, Json>();
      const known = new Map<string, unknown>();
      for (let step = 0; step < 120; step++) {
        const name = pick(["a", "b", "c"]);
        const labels = (): Json => pick([{ app: "web", track: "one" }, { app: "web", track: "two" }, {}]);
        const made: Json = pick<() => Json>([
          () => namespace("shop"),
          () => pod(name, { labels: labels(), ip: pick([`198.18.1.${1 + name.charCodeAt(0)}`, null]) }),
          () => ({ apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: { name, namespace: "shop" }, spec: { address: `198.18.2.${1 + name.charCodeAt(0)}`, labels: labels() } }),
          () => service("web", { selector: { app: "web" } }),
          () => ({ apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: { name: "web", namespace: "shop" }, spec: { host: "web", subsets: pick([[], [{ name: "one", labels: { track: "one" } }]]) } }),
        ])();
        const { name: called, namespace: at = "" } = made["metadata"] as { name: string; namespace?: string };
        const key = `${String(made["kind"])}/${at}/${called}`;
        if (random.next() < 0.3) {
          set.remove(made["kind"] as ClusterKind, at, called);
          objects.delete(key);
        } else {
          put(set, made);
          objects.set(key, made);
        }
        if (random.next() < 0.5) [...set.references()];
        if (random.next() < 0.5) continue;
        const { l7, l7Delta } = set.evaluate();
        for (const told of l7Delta.workloadLabels) known.set(told.uid, told);
        for (const uid of l7Delta.removedWorkloadLabels) known.delete(uid);
        const fresh = new ClusterSet(OPTIONS);
        put(fresh, ...objects.values());
        const wanted = fresh.evaluate().l7.workloadLabels;
        for (const [part, ours] of [["labels", l7.workloadLabels], ["deltas", known]] as const) {
          if (!deepEqual(ours, wanted)) expect({ seed, step, part, ours: [...ours.values()] }).toEqual({ seed, step, part, ours: [...wanted.values()] });
        }
      }
    }
  });
});
