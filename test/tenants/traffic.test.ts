// What a user of one namespace can write, and what must not come of it in another.

import { describe, expect } from "bun:test";
import { type ClusterEvaluation, ClusterSet } from "../../src/resources/cluster/cluster-set.ts";
import { item } from "../kit/bad-input.ts";
import { BANK, cluster, object, OPTIONS, pod, put, saidOf, service, serviceEntry, TENANT, VAULT, VICTIM, wayOf, type Json } from "./tenant-cluster.ts";

describe("a tenant cannot take another namespace's traffic", () => {
  item("a ServiceEntry with the address of another namespace's pod", async () => {
    expect(wayOf("198.18.1.1:80", cluster().evaluate())).toBe(VAULT);
    const taken = cluster(serviceEntry("grab", { hosts: ["grab.example"], addresses: ["198.18.1.1"] }), pod(TENANT, "client", "198.18.2.2")).evaluate();
    expect(wayOf("198.18.1.1:80", taken)).toBe(VAULT);
    expect(wayOf("198.18.1.1:80", taken, "aaa/client")).toBe(VAULT);
  });

  item("a ServiceEntry with the address of another namespace's Service", async () => {
    expect(wayOf("198.19.0.1:80", cluster(serviceEntry("grab", { hosts: ["grab.example"], addresses: ["198.19.0.1"] })).evaluate())).toBe(VAULT);
  });

  item("a ServiceEntry with a range around another namespace's addresses", async () => {
    const taken = cluster(serviceEntry("grab", { hosts: ["grab.example"], addresses: ["198.18.0.0/15"] })).evaluate();
    expect([wayOf("198.18.1.1:80", taken), wayOf("198.19.0.1:80", taken)]).toEqual([VAULT, VAULT]);
  });

  item("a WorkloadEntry or an endpoint with the address of another namespace's pod", async () => {
    const entry = object("networking.istio.io/v1", "WorkloadEntry", TENANT, "vault", { address: "198.18.1.1", labels: { app: "vault", "istio.io/dataplane-mode": "ambient" }, serviceAccount: "vault" });
    const taken = cluster(entry, serviceEntry("grab", { hosts: ["grab.example"], endpoints: [{ address: "198.18.1.1", labels: { "networking.istio.io/tunnel": "http" } }] })).evaluate();
    expect([wayOf("198.18.1.1:80", taken), wayOf("198.19.0.1:80", taken)]).toEqual([VAULT, VAULT]);
  });

  item("selectors of Services, ServiceEntries and policies that fit another namespace's pods", async () => {
    const { mesh } = cluster(
      service(TENANT, "vault", "198.19.0.9"), serviceEntry("grab", { hosts: ["grab.example"], endpoints: undefined, workloadSelector: { labels: { app: "vault" } } }),
      object("security.istio.io/v1", "AuthorizationPolicy", TENANT, "none", { selector: { matchLabels: { app: "vault" } }, action: "DENY", rules: [{}] }),
      object("security.istio.io/v1", "PeerAuthentication", TENANT, "default", { mtls: { mode: "DISABLE" } }),
    ).evaluate();
    const vault = [...mesh.workloads.values()].find(({ namespace: at, name }) => at === VICTIM && name === "vault")!;
    expect([vault.services.map(({ service: of }) => String(of)), vault.authorizationPolicies]).toEqual([["bank/vault.bank.svc.cluster.local"], []]);
    for (const policy of mesh.policies.values()) expect(policy.scope).not.toBe("global");
  });

  item("a Gateway to another network", async () => {
    const gateway = (at: string, name: string, address: string): Json => object("gateway.networking.k8s.io/v1", "Gateway", at, name, { gatewayClassName: "istio-remote", addresses: [{ value: address }], listeners: [{ name: "h", port: 15008, protocol: "HBONE" }] }, { labels: { "topology.istio.io/network": "far" } });
    const far = object("networking.istio.io/v1", "WorkloadEntry", VICTIM, "far", { address: "198.18.9.9", network: "far", labels: { app: "far", "istio.io/dataplane-mode": "ambient" } });
    const throughOf = ({ mesh }: ClusterEvaluation): unknown => [...mesh.workloads.values()].find(({ name }) => name === "far")!.networkGateway?.destination;
    const led = (at: string, name: string): unknown => ({ kind: "workload", uid: `Kubernetes/gateway.networking.k8s.io/Gateway/${at}/${name}` });
    const grab = gateway(TENANT, "a", "198.18.6.6");
    // Beside the one of the root namespace, and where there is none.
    expect(throughOf(cluster(far, grab, gateway("istio-system", "z", "198.18.8.8")).evaluate())).toEqual(led("istio-system", "z"));
    const alone = cluster(far, grab).evaluate();
    expect([throughOf(alone), [...alone.mesh.workloads.values()].some(({ addresses }) => addresses.some((ip) => ip === "198.18.6.6"))]).toEqual([undefined, false]);
    expect(saidOf(alone, `Gateway ${TENANT}/a`)).toEqual([expect.stringMatching(/^error metadata\.namespace: found namespace aaa, expected istio-system: /)]);
    // Where the operator says so.
    const allowing = new ClusterSet({ ...OPTIONS, remoteGatewayNamespaces: [TENANT] });
    put(allowing, ...BANK, far, grab);
    expect(throughOf(allowing.evaluate())).toEqual(led(TENANT, "a"));
  });

  item("a MeshConfig outside the root namespace", async () => {
    const claim = (at: string): Json => ({ apiVersion: "weft.dev/v1alpha1", kind: "MeshConfig", metadata: { name: "mesh", namespace: at, creationTimestamp: "2020-01-01T00:00:00Z" }, spec: { extensionProviders: [{ name: "check", envoyExtAuthzGrpc: { service: `grab.${TENANT}.svc.cluster.local`, port: 80 } }] } });
    const asks = object("security.istio.io/v1", "AuthorizationPolicy", VICTIM, "ask", { targetRefs: [{ kind: "Service", group: "", name: "vault" }], action: "CUSTOM", provider: { name: "check" }, rules: [{}] });
    const askedBy = (at: string): string => JSON.stringify([...cluster(service(TENANT, "grab", "198.19.0.6"), asks, claim(at)).evaluate().l7.requestPolicies.values()]);
    expect(askedBy("istio-system")).toContain(TENANT);
    expect(askedBy(TENANT)).not.toContain(TENANT);
  });

  item("a route, a DestinationRule and a VirtualService for another namespace's Service", async () => {
    const { l7 } = cluster(
      pod(TENANT, "grab", "198.18.6.6"), service(TENANT, "grab", "198.19.0.6"),
      object("gateway.networking.k8s.io/v1", "HTTPRoute", TENANT, "grab", { parentRefs: [{ group: "", kind: "Service", namespace: VICTIM, name: "vault" }], rules: [{ backendRefs: [{ name: "grab", port: 80 }] }] }),
      object("networking.istio.io/v1", "VirtualService", TENANT, "grab", { hosts: ["vault.bank.svc.cluster.local"], exportTo: ["*"], http: [{ route: [{ destination: { host: "grab" } }] }] }),
      object("networking.istio.io/v1", "DestinationRule", TENANT, "grab", { host: "vault.bank.svc.cluster.local", exportTo: ["*"], trafficPolicy: { tls: { mode: "DISABLE" } } }),
    ).evaluate();
    const clients = [...l7.routes.values()].flatMap(({ parents }) => parents).map(({ clientNamespace }) => clientNamespace);
    expect(clients.length).toBeGreaterThan(0);
    expect([...new Set(clients)]).toEqual([TENANT]);
  });
});

describe("a tenant cannot bring the control plane down", () => {
  item("objects with names, labels and ports that are words of the language", async () => {
    const words = ["constructor", "tostring", "prototype", "valueof", "hasownproperty"];
    const set = cluster(
      ...words.map((word, i) => pod(TENANT, word, `198.18.3.${i + 1}`, { labels: { app: word, __proto__x: word }, ports: [{ name: word, containerPort: 9000 + i }] })),
      service(TENANT, "constructor", "198.19.1.1", { ports: [{ name: "constructor", port: 80, targetPort: "constructor" }] }),
      // A pod without a port of that name is a member without it.
      service(TENANT, "vault", "198.19.1.2", { selector: { app: "prototype" }, ports: [{ name: "constructor", port: 80, targetPort: "constructor" }] }),
      object("networking.istio.io/v1", "WorkloadEntry", TENANT, "tostring", { address: "198.18.3.99", labels: { app: "prototype" }, ports: { constructor: 7 } }),
    );
    const made = [...set.evaluate().mesh.workloads.values()];
    const portsOf = (kind: string, name: string): unknown => made.find(({ provenance: of }) => of.kind === kind && of.namespace === TENANT && of.name === name)!.services.map(({ ports }) => ports);
    expect([portsOf("Pod", "constructor"), portsOf("Pod", "prototype"), portsOf("WorkloadEntry", "tostring")]).toEqual([[[{ servicePort: 80, targetPort: 9000 }]], [[]], [[{ servicePort: 80, targetPort: 7 }]]]);
  });

  item("names that no API server would take", async () => {
    for (const name of ["a b", "a/b", "../../x", "\u0000", "\u202e", "ä", "A".repeat(5_000), "", "."]) {
      const hand = [pod(TENANT, name, "198.18.3.1"), pod(name, "x", "198.18.3.2"), service(TENANT, name, "198.19.1.1"), object("networking.istio.io/v1", "WorkloadEntry", TENANT, name, { address: "198.18.3.3" }), { apiVersion: "v1", kind: "Node", metadata: { name } },
        serviceEntry(name, { hosts: ["x.example"] }), service(TENANT, "db", "198.19.1.2", { selector: {} }),
        { apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice", metadata: { name, namespace: TENANT, labels: { "kubernetes.io/service-name": "db" } }, addressType: "IPv4", ports: [{ name: "tcp", port: 80 }], endpoints: [{ addresses: ["198.18.3.4"] }] }];
      const evaluation = cluster(...hand).evaluate();
      expect([...evaluation.mesh.workloads.values()].map((one) => `${one.namespace}/${one.name}`).sort()).toEqual(["bank/client", "bank/vault"]);
      expect(evaluation.broken.size).toBeGreaterThan(0);
      expect(wayOf("198.19.0.1:80", evaluation)).toBe(VAULT);
    }
  });
});
