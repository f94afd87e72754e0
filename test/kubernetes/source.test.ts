// The source of a cluster against a real API server: what is written there is what comes out.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { ClusterSource } from "../../src/control/source/cluster-source.ts";
import { systemClock, systemRandom } from "../../src/core/ports.ts";
import { parseTrustDomain } from "../../src/core/spiffe.ts";
import { kubeconfigAccess } from "../../src/runtime/kubernetes/kubeconfig.ts";
import { KubernetesClient } from "../../src/runtime/kubernetes/client.ts";
import { systemTimers } from "../../src/net/timers.ts";
import type { ClusterEvaluation } from "../../src/resources/cluster/cluster-set.ts";
import { describeUnless } from "../kit/skip.ts";
import { type ApiServer, apply, installDefinitions, type KubeObject, needsKubernetes, remove, startApiServer } from "./api-server.ts";
import { quietLog } from "../kit/quiet-log.ts";
import { until } from "../kit/until.ts";
import { Eventually, SHOWS_MS } from "./eventually.ts";
import { namespace, node, pod, service, serviceAccount, tokenFor } from "./objects.ts";

const OPTIONS = { node: "", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "", rootNamespace: "istio-system", serviceCidrs: [] };

describeUnless(needsKubernetes)("the cluster as a source", () => {
  let server: ApiServer;
  let source: ClusterSource;
  const seen = new Eventually<ClusterEvaluation>();
  /** How many policies each state had. */
  const policies: number[] = [];

  beforeAll(async () => {
    server = await startApiServer();
    source = new ClusterSource({
      api: server.client, clock: systemClock, random: systemRandom, timers: systemTimers, log: quietLog(), namespaces: [], onObject: () => {},
      onEvaluated: (evaluation) => {
        policies.push(evaluation.mesh.policies.size);
        seen.put(evaluation);
      },
      options: OPTIONS,
    });
    source.start();
  }, 180_000);

  afterAll(async () => {
    await source?.stop();
    await server?.stop();
  });

  const workload = (evaluation: ClusterEvaluation, name: string) => [...evaluation.mesh.workloads.values()].find((one) => one.name === name);

  test("is complete without the kinds that are not installed", async () => {
    const first = await seen.when(() => true);
    expect(source.unsynced).toEqual([]);
    expect([...first.mesh.services.keys()].map(String)).toContain("default/kubernetes.default.svc.cluster.local");
  }, 60_000);

  test("a pod with its node, service and ports becomes a workload, and leaves with it", async () => {
    await apply(server.client, namespace("shop"), node("node1", { "topology.kubernetes.io/zone": "z1" }), service("web", "shop", { clusterIP: "198.19.0.77", selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: "http" }] }));
    const web = pod("web-1", "shop", { labels: { app: "web" }, node: "node1", ip: "198.18.1.9", ports: [{ name: "http", containerPort: 8080 }] });
    await apply(server.client, web);
    const made = workload(await seen.when((evaluation) => workload(evaluation, "web-1")?.services.length === 1), "web-1")!;
    expect(made).toMatchObject({
      uid: "Kubernetes//Pod/shop/web-1", node: "node1", addresses: ["198.18.1.9"], status: "healthy", tunnelProtocol: "TCP", locality: { zone: "z1" },
      services: [{ service: "shop/web.shop.svc.cluster.local", ports: [{ servicePort: 80, targetPort: 8080 }] }],
    });
    await apply(server.client, pod("web-1", "shop", { labels: { app: "web" }, annotations: { "ambient.istio.io/redirection": "enabled" }, node: "node1", ip: "198.18.1.9", ports: [{ name: "http", containerPort: 8080 }] }));
    await seen.when((evaluation) => workload(evaluation, "web-1")?.tunnelProtocol === "HBONE");
    await remove(server.client, web);
    const gone = await seen.when((evaluation) => workload(evaluation, "web-1") === undefined);
    expect(gone.mesh.services.has("shop/web.shop.svc.cluster.local" as never)).toBe(true);
  }, 60_000);

  test("a kind that is installed later is picked up", async () => {
    await installDefinitions(server.client, ["AuthorizationPolicy"]);
    await apply(server.client, { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "deny", namespace: "shop" }, spec: { action: "DENY", rules: [{}] } });
    const evaluation = await seen.when(({ mesh }) => mesh.policies.size === 1);
    expect([...evaluation.mesh.policies.keys()].map(String)).toEqual(["shop/deny"]);
  }, 60_000);

  test("a ConfigMap that a resource names is there with the first state that has the resource", async () => {
    await installDefinitions(server.client, ["BackendTLSPolicy"]);
    await apply(server.client, { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "roots", namespace: "shop" }, data: { "ca.crt": "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n" } },
      { apiVersion: "gateway.networking.k8s.io/v1", kind: "BackendTLSPolicy", metadata: { name: "web", namespace: "shop" }, spec: { targetRefs: [{ group: "", kind: "Service", name: "web" }], validation: { hostname: "web.example", caCertificateRefs: [{ group: "", kind: "ConfigMap", name: "roots" }] } } });
    const states: (string | undefined)[] = [];
    await seen.when((evaluation) => {
      const policies = evaluation.l7.trafficPolicies.get("shop/web.shop.svc.cluster.local" as never);
      if (policies !== undefined) states.push(policies[0]?.tls?.mode);
      return policies !== undefined;
    });
    expect(states).not.toContain("broken");
    expect(states.length).toBe(1);
  }, 60_000);

  test("where no more than two namespaces may be read, those are the mesh", async () => {
    const at = ["shop", "istio-system"];
    const account = { kind: "ServiceAccount", name: "narrow", namespace: "shop" };
    const everything = { apiGroups: ["*"], resources: ["*"], verbs: ["list", "watch"] };
    await apply(server.client, namespace("istio-system"), namespace("elsewhere"), serviceAccount("narrow", "shop"), service("hidden", "elsewhere", { selector: {}, ports: [{ port: 80 }] }),
      { apiVersion: "rbac.authorization.k8s.io/v1", kind: "ClusterRole", metadata: { name: "narrow" }, rules: [{ apiGroups: [""], resources: ["namespaces"], resourceNames: at, verbs: ["list", "watch"] }] },
      { apiVersion: "rbac.authorization.k8s.io/v1", kind: "ClusterRoleBinding", metadata: { name: "narrow" }, roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "narrow" }, subjects: [account] },
      ...at.flatMap((name): KubeObject[] => [
        { apiVersion: "rbac.authorization.k8s.io/v1", kind: "Role", metadata: { name: "narrow", namespace: name }, rules: [everything] },
        { apiVersion: "rbac.authorization.k8s.io/v1", kind: "RoleBinding", metadata: { name: "narrow", namespace: name }, roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "narrow" }, subjects: [account] },
      ]));
    const access = kubeconfigAccess(server.kubeconfig);
    if (!access.ok) throw new Error(access.error);
    const token = await tokenFor(server.client, "narrow", "shop", { audience: "https://kubernetes.default.svc" });
    const narrow = new Eventually<ClusterEvaluation>();
    const watching = new ClusterSource({
      api: new KubernetesClient({ ...access.value, authorization: async () => `Bearer ${token}` }), clock: systemClock, random: systemRandom, timers: systemTimers, log: quietLog(), namespaces: at,
      onEvaluated: (evaluation) => narrow.put(evaluation), onObject: () => {}, options: OPTIONS,
    });
    watching.start();
    try {
      const { mesh } = await narrow.when(({ mesh: found }) => found.services.size > 0);
      expect([...mesh.services.keys()].map(String)).toEqual(["shop/web.shop.svc.cluster.local"]);
      expect(watching.unsynced).toEqual([]);
    } finally {
      await watching.stop();
    }
  }, 60_000);

  test("an API server that is away for a while costs nothing but the while", async () => {
    const before = policies.length;
    await server.stopApiServer();
    await server.startApiServer();
    await apply(server.client, pod("web-2", "shop", { labels: { app: "web" }, node: "node1", ip: "198.18.1.10", ports: [] }));
    const evaluation = await seen.when((one) => workload(one, "web-2") !== undefined);
    expect(evaluation.mesh.policies.size).toBe(1);
    // While it starts, kinds of definitions are not there yet.
    expect(policies.slice(before)).not.toContain(0);
  }, 120_000);

  test("a kind that is uninstalled takes its objects with it at once, each by its event", async () => {
    await remove(server.client, { apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition", metadata: { name: "authorizationpolicies.security.istio.io" } });
    expect((await seen.when(({ mesh }) => mesh.policies.size === 0)).mesh.workloads.size).toBeGreaterThan(0);
    await installDefinitions(server.client, ["AuthorizationPolicy"]);
    await apply(server.client, { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "again", namespace: "shop" }, spec: { action: "DENY", rules: [{}] } });
    await seen.when(({ mesh }) => mesh.policies.size === 1);
    await until("every list is followed", SHOWS_MS, () => source.unfollowed === 0);
  }, 120_000);
});
