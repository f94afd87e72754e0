// Names of another namespace's services, claimed by ServiceEntries: a client that asks for one gets the service, or nothing.

import { describe, expect } from "bun:test";
import { seededRandom } from "../../src/core/ports.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { assumedSearchDomains, resolveName } from "../../src/policy/resolve-name.ts";
import type { ClusterEvaluation } from "../../src/resources/cluster/cluster-set.ts";
import { item } from "../kit/bad-input.ts";
import { cluster, namespace, object, pod, put, saidOf, service, serviceEntry, serviceOf, TENANT, VICTIM } from "./tenant-cluster.ts";

const claim = (host: string, at = TENANT) => serviceEntry("grab", { hosts: [host, "grab.example"], addresses: ["198.51.100.66"] }, at);

/** The addresses that a client of `from` is given for a name. */
function answerTo(name: string, { mesh }: ClusterEvaluation, from: string): string {
  const store = new MeshStore();
  store.apply({ services: [...mesh.services.values()], workloads: [...mesh.workloads.values()], policies: [], removedServices: [], removedWorkloads: [], removedPolicies: [] });
  const answer = resolveName({ store, client: { namespace: from, network: "", searchDomains: assumedSearchDomains(from, "cluster.local") }, clusterDomain: "cluster.local", ipv6: true, random: seededRandom(1) }, { name, type: 1, class: 1 });
  return answer.kind === "answer" ? String(answer.service.hostname) : answer.kind;
}

describe("names of others", () => {
  item("hosts below another namespace's names", async () => {
    const hosts = [
      "vault.bank.svc.cluster.local", "absent.bank.svc.cluster.local", "pod-0.vault.bank.svc.cluster.local", "x.nobody.svc.cluster.local", "*.bank.svc.cluster.local", "*.vault.bank.svc.cluster.local", "*.svc.cluster.local", "*.cluster.local", "*.local",
      "svc.cluster.local", "cluster.local", "bank.svc.cluster.local", "vault.bank", "vault.bank.svc", "*.bank", "*.bank.svc", "*.svc",
    ];
    for (const host of hosts) {
      const evaluation = cluster(claim(host)).evaluate();
      const made = [...evaluation.mesh.services.values()].filter((one) => one.namespace === TENANT).map(({ hostname }) => hostname);
      expect([host, made]).toEqual([host, ["grab.example"]]);
      expect([host, saidOf(evaluation, "ServiceEntry aaa/grab")]).toEqual([host, [expect.stringMatching(/^error spec\.hosts\[0\]: .*: it is left out$/)]]);
      // What waypoints are told knows no more of it.
      expect([host, answerTo("vault.bank.shop.svc.cluster.local", evaluation, "shop"), answerTo("absent.bank.svc.cluster.local", evaluation, "shop")]).toEqual([host, "vault.bank.svc.cluster.local", "forward"]);
    }
  });

  item("hosts that look like another namespace's and are not", async () => {
    const hosts = ["vault.bank.example", "absent.bank", "bank", "vault", "*.example", "*.vault.bank.example", "svc.example", "mysvc.cluster.local.example", "other.aaa.svc.cluster.local", "*.aaa.svc.cluster.local"];
    for (const host of hosts) expect([host, [...cluster(claim(host)).evaluate().mesh.services.values()].filter((one) => one.namespace === TENANT).map(({ hostname }) => hostname)]).toEqual([host, [host, "grab.example"]]);
  });

  item("a host that is a Service's of its own namespace", async () => {
    const evaluation = cluster(service(TENANT, "web", "198.19.0.6"), claim("web.aaa.svc.cluster.local")).evaluate();
    expect(serviceOf(evaluation, "aaa/web.aaa.svc.cluster.local")).toMatchObject({ canonical: true, addresses: [{ cidr: { prefixLength: 32 } }] });
    expect(saidOf(evaluation, "ServiceEntry aaa/grab").join()).toContain("the Service aaa/web has it");
  });

  item("a Service that comes later than the claim of its name", async () => {
    const set = cluster(claim("late.bank"));
    expect(answerTo("late.bank", set.evaluate(), VICTIM)).toBe("late.bank");
    put(set, service(VICTIM, "late", "198.19.0.20"));
    const after = set.evaluate();
    expect([answerTo("late.bank", after, VICTIM), serviceOf(after, "aaa/late.bank")]).toEqual(["late.bank.svc.cluster.local", undefined]);
    put(set, claim("*.shop"));
    expect(serviceOf(set.evaluate(), "aaa/*.shop")).toBeDefined();
    put(set, namespace("shop"));
    expect(serviceOf(set.evaluate(), "aaa/*.shop")).toBeUndefined();
  });

  item("a host that an older ServiceEntry of another namespace exports", async () => {
    const bank = serviceEntry("api", { hosts: ["api.example"], addresses: ["203.0.113.5"] }, VICTIM, { creationTimestamp: "2024-01-01T00:00:00Z" });
    const grab = serviceEntry("grab", { hosts: ["api.example"], addresses: ["198.51.100.66"] });
    const evaluation = cluster(bank, grab, namespace("shop"), pod("shop", "client", "198.18.3.3")).evaluate();
    expect([serviceOf(evaluation, "bank/api.example")?.visibility, serviceOf(evaluation, "aaa/api.example")?.visibility]).toEqual(["public", "namespace"]);
    // A destination rule or route of a third namespace means the older one's as well.
    const rule = object("networking.istio.io/v1", "DestinationRule", "shop", "api", { host: "api.example", trafficPolicy: { tls: { mode: "SIMPLE" } } });
    expect([...cluster(bank, grab, namespace("shop"), rule).evaluate().l7.trafficPolicies.keys()].map(String)).toEqual(["bank/api.example"]);
    // One that is not exported takes nothing from anybody.
    const quiet = serviceEntry("api", { hosts: ["api.example"], exportTo: ["."] }, VICTIM, { creationTimestamp: "2024-01-01T00:00:00Z" });
    expect(serviceOf(cluster(quiet, grab).evaluate(), "aaa/api.example")?.visibility).toBe("public");
  });

  item("the operator's entries in the root namespace", async () => {
    const evaluation = cluster(claim("stub.bank.svc.cluster.local", "istio-system")).evaluate();
    expect(serviceOf(evaluation, "istio-system/stub.bank.svc.cluster.local")).toBeDefined();
    expect(saidOf(evaluation, "ServiceEntry istio-system/grab")).toEqual([]);
  });
});
