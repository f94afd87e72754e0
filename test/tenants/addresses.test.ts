// Addresses of another namespace's pods, Services and workloads, claimed by entries. What comes of it holds for every ztunnel, as it is the
// records themselves that say nothing of the claim: of a real one, the order in which it looks is its own.

import { describe, expect } from "bun:test";
import { cidrContains, parseIp } from "../../src/core/ip.ts";
import type { ClusterEvaluation } from "../../src/resources/cluster/cluster-set.ts";
import { item } from "../kit/bad-input.ts";
import { cluster, gateway, type Json, namespace, object, pod, put, saidOf, service, serviceEntry, serviceOf, TENANT, VAULT, VICTIM, wayOf, workloadEntry, workloadOf } from "./tenant-cluster.ts";

const [POD, VIP] = ["198.18.1.1", "198.19.0.1"];

/** Every record of the tenant's by which a ztunnel would find an address, in whatever order it looks. */
function foundAt(text: string, { mesh }: ClusterEvaluation): string[] {
  const ip = parseIp(text)!;
  return [
    ...[...mesh.services.values()].filter(({ addresses }) => addresses.some(({ cidr }) => cidrContains(cidr, ip))).map(({ namespace, hostname }) => `${namespace}/${hostname}`),
    ...[...mesh.workloads.values()].filter(({ addresses, hostNetwork }) => !hostNetwork && addresses.includes(ip)).map(({ namespace, name }) => `${namespace}/${name}`),
  ].sort();
}

describe("addresses of others", () => {
  item("claims of a pod's and a Service's address, as any ztunnel hears of them", async () => {
    const claims = [
      serviceEntry("grab", { hosts: ["grab.example"], addresses: [POD, VIP, "198.51.100.7"] }),
      serviceEntry("grab-range", { hosts: ["range.example"], addresses: ["198.18.0.0/15", "198.51.100.0/24"] }),
      serviceEntry("grab-all", { hosts: ["all.example"], addresses: ["0.0.0.0/0", "::/0"] }),
      serviceEntry("grab-endpoint", { hosts: ["endpoint.example"], endpoints: [{ address: "198.51.100.8" }, { address: POD, labels: { "networking.istio.io/tunnel": "http" } }] }),
      workloadEntry(TENANT, "pod", POD), workloadEntry(TENANT, "vip", VIP),
      object("networking.istio.io/v1", "WorkloadEntry", TENANT, "annotated", { labels: { "istio.io/dataplane-mode": "ambient" } }, { annotations: { "weft.dev/addresses": `198.51.100.9,${POD}` } }),
    ];
    const evaluation = cluster(...claims, pod(TENANT, "client", "198.18.2.2")).evaluate();
    expect([foundAt(POD, evaluation), foundAt(VIP, evaluation)]).toEqual([["bank/vault"], ["bank/vault.bank.svc.cluster.local"]]);
    // The rest of them holds.
    expect([foundAt("198.51.100.7", evaluation), foundAt("198.51.100.77", evaluation)]).toEqual([["aaa/grab.example", "aaa/range.example"], ["aaa/range.example"]]);
    for (const client of ["bank/client", "aaa/client"]) expect([wayOf(`${POD}:80`, evaluation, client), wayOf(`${VIP}:80`, evaluation, client)]).toEqual([VAULT, VAULT]);
    expect(saidOf(evaluation, "ServiceEntry aaa/grab")).toEqual([`error spec.addresses[0]: found ${POD}, which is the address of a pod or Service of another namespace: it is left out`, `error spec.addresses[1]: found ${VIP}, which is the address of a pod or Service of another namespace: it is left out`]);
    for (const name of ["grab-range", "grab-all", "grab-endpoint"]) expect(saidOf(evaluation, `ServiceEntry aaa/${name}`).join()).toMatch(/^error spec\.(addresses|endpoints)/);
    for (const name of ["pod", "vip", "annotated"]) expect(saidOf(evaluation, `WorkloadEntry aaa/${name}`).join()).toContain("not found by its address");
    // Whose address it is, is nothing for the tenant to learn.
    expect(JSON.stringify(evaluation.diagnostics)).not.toContain("vault");
  });

  item("a pod that comes later than the claim of its address", async () => {
    for (const claim of [serviceEntry("grab", { hosts: ["grab.example"], addresses: ["198.18.1.50"] }), serviceEntry("grab", { hosts: ["grab.example"], addresses: ["198.18.1.48/30"] }), workloadEntry(TENANT, "grab", "198.18.1.50")]) {
      const set = cluster(claim);
      expect(foundAt("198.18.1.50", set.evaluate()).length).toBe(1);
      put(set, pod(VICTIM, "late", "198.18.1.50"));
      expect(foundAt("198.18.1.50", set.evaluate())).toEqual(["bank/late"]);
      set.remove("Pod", VICTIM, "late");
      expect(foundAt("198.18.1.50", set.evaluate()).length).toBe(1);
      put(set, service(VICTIM, "late", "198.18.1.50"));
      expect(foundAt("198.18.1.50", set.evaluate())).toEqual(["bank/late.bank.svc.cluster.local"]);
    }
  });

  item("two WorkloadEntries with one address", async () => {
    const address = "198.51.100.20";
    const [bank, tenant] = [workloadEntry(VICTIM, "machine", address, {}, { creationTimestamp: "2026-01-01T00:00:00Z" }), workloadEntry(TENANT, "grab", address, {}, { creationTimestamp: "2026-02-01T00:00:00Z" })];
    for (const order of [[bank, tenant], [tenant, bank]]) {
      const set = cluster(...order);
      expect(foundAt(address, set.evaluate())).toEqual(["bank/machine"]);
      expect(saidOf(set.evaluate(), "WorkloadEntry aaa/grab").join()).toContain("which an older workload of another namespace has");
      // Written again, it is as old as before.
      put(set, workloadEntry(VICTIM, "machine", address, { weight: 7 }, { creationTimestamp: "2026-01-01T00:00:00Z" }));
      expect(foundAt(address, set.evaluate())).toEqual(["bank/machine"]);
      set.remove("WorkloadEntry", VICTIM, "machine");
      expect(foundAt(address, set.evaluate())).toEqual(["aaa/grab"]);
    }
    // Of one age, and of one namespace: the first by name.
    const same = cluster(...["b", "a", "c"].map((name) => workloadEntry(VICTIM, name, address))).evaluate();
    expect([foundAt(address, same), workloadOf(same, VICTIM, "b")!.hostNetwork]).toEqual([["bank/a"], true]);
    // An endpoint of an entry is as good as a WorkloadEntry.
    expect(foundAt(address, cluster(bank, serviceEntry("grab", { hosts: ["grab.example"], endpoints: [{ address }] }, TENANT, { creationTimestamp: "2026-02-01T00:00:00Z" })).evaluate())).toEqual(["bank/machine"]);
    // On another network it is another address.
    expect(foundAt(address, cluster(bank, workloadEntry(TENANT, "far", address, { network: "far" })).evaluate())).toEqual(["aaa/far", "bank/machine"]);
  });

  item("a hidden WorkloadEntry is an endpoint all the same", async () => {
    const evaluation = cluster(workloadEntry(TENANT, "web", POD), service(TENANT, "web", "198.19.0.6"), pod(TENANT, "client", "198.18.2.2")).evaluate();
    expect(workloadOf(evaluation, TENANT, "web")).toMatchObject({ hostNetwork: true, addresses: [POD], services: [{ service: "aaa/web.aaa.svc.cluster.local" }] });
    // Whoever answers there must prove to be the tenant's, which the bank's pod is not.
    expect(wayOf("198.19.0.6:80", evaluation, "aaa/client")).toBe(`tunnel to aaa/web at ${POD}`);
  });

  item("a Gateway with another namespace's address", async () => {
    const evaluation = cluster(gateway(TENANT, "wp", { addresses: [{ value: VIP }, { value: POD }] }), gateway(TENANT, "wp2", { addresses: [{ value: POD }] }), pod(TENANT, "grab", "198.18.6.6", { labels: { "gateway.networking.k8s.io/gateway-name": "wp" } })).evaluate();
    expect([foundAt(POD, evaluation), foundAt(VIP, evaluation)]).toEqual([["bank/vault"], ["bank/vault.bank.svc.cluster.local"]]);
    expect(serviceOf(evaluation, "aaa/wp.aaa.svc.cluster.local")!.addresses).toEqual([]);
  });

  item("an EndpointSlice with another namespace's addresses", async () => {
    const slice: Json = {
      apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice", metadata: { name: "db-x", namespace: TENANT, labels: { "kubernetes.io/service-name": "db" } }, addressType: "IPv4", ports: [{ name: "tcp", port: 80, protocol: "TCP" }],
      endpoints: [{ addresses: [POD] }, { addresses: [VIP], targetRef: { kind: "Pod", namespace: VICTIM, name: "vault", uid: "uid-bank-vault" } }],
    };
    const evaluation = cluster(service(TENANT, "db", "198.19.0.6", { selector: {} }), slice).evaluate();
    expect([foundAt(POD, evaluation), foundAt(VIP, evaluation)]).toEqual([["bank/vault"], ["bank/vault.bank.svc.cluster.local"]]);
    expect(workloadOf(evaluation, VICTIM, "vault")!.services.map(({ service: of }) => String(of))).toEqual(["bank/vault.bank.svc.cluster.local"]);
  });

  item("a pod on its node's network owns no address of the node", async () => {
    const set = cluster(pod(TENANT, "host", "198.51.100.10", { spec: { hostNetwork: true } }), serviceEntry("node", { hosts: ["node.example"], addresses: ["198.51.100.10"] }, VICTIM));
    expect(foundAt("198.51.100.10", set.evaluate())).toEqual(["bank/node.example"]);
  });

  item("an address that an older ServiceEntry has", async () => {
    const [bank, tenant] = [serviceEntry("api", { hosts: ["api.example"], addresses: ["203.0.113.5"] }, VICTIM, { creationTimestamp: "2026-01-01T00:00:00Z" }), serviceEntry("grab", { hosts: ["grab.example"], addresses: ["203.0.113.5"] }, TENANT, { creationTimestamp: "2026-02-01T00:00:00Z" })];
    const others = [namespace("shop"), pod("shop", "client", "198.18.3.3"), pod(TENANT, "client", "198.18.2.2")];
    const evaluation = cluster(bank, tenant, ...others).evaluate();
    expect(["bank/client", "shop/client", "aaa/client"].map((client) => wayOf("203.0.113.5:80", evaluation, client))).toEqual(["plain to bank/api", "plain to bank/api", "plain to aaa/grab"]);
    expect(saidOf(evaluation, "ServiceEntry aaa/grab").join()).toContain("for clients of namespace aaa alone");
    expect(saidOf(evaluation, "ServiceEntry bank/api")).toEqual([]);
  });

  item("more ranges than one namespace may name", async () => {
    const ranges = (from: number, count: number): string[] => Array.from({ length: count }, (_, i) => `100.${64 + ((from + i) >> 8)}.${(from + i) & 255}.0/24`);
    const entries = Array.from({ length: 6 }, (_, i) => serviceEntry(`r${i}`, { hosts: [`r${i}.example`], addresses: ranges(i * 200, 200) }));
    const evaluation = cluster(...entries).evaluate();
    expect([...evaluation.mesh.services.values()].filter(({ namespace }) => namespace === TENANT).reduce((sum, { addresses }) => sum + addresses.length, 0)).toBe(1024);
    expect(saidOf(evaluation, "ServiceEntry aaa/r5").length).toBeLessThan(10);
    expect(saidOf(evaluation, "ServiceEntry aaa/r5").join()).toContain("more than 1024 different ranges");
  });
});
