// The mesh on a real cluster, from installation to removal: pods join and leave under load, policies, probes, new pods, the agents replaced,
// the control plane killed. One story; each test goes on from the one before.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { install } from "../../src/cli/verbs/install.ts";
import { uninstall } from "../../src/cli/verbs/uninstall.ts";
import { ownDefinitions } from "../../src/cli/install/definitions.ts";
import { installObjects, type KubernetesObject } from "../../src/cli/install/objects.ts";
import { objectPath } from "../../src/cli/install/object-paths.ts";
import { defaultValues } from "../../src/cli/install/values.ts";
import { APPLY_PATCH } from "../../src/runtime/kubernetes/api.ts";
import { describeUnless } from "../kit/skip.ts";
import { appPod, Cluster, namespaceObject, needsCluster, type PodNow, serviceObject, WAIT_MS, WEFT_IMAGE } from "./cluster.ts";
import { testDefinitions } from "./definitions.ts";
import { SHOWS_MS } from "./eventually.ts";
import { LoadCounts } from "./load-counts.ts";
import { MeshLogs } from "./mesh-logs.ts";
import { until } from "../kit/until.ts";

const MESH = "istio-system";
const SHOP = "weft-e2e-shop";
const OUTSIDE = "weft-e2e-outside";
const PORT = 8080;
const GRPC_PORT = 9000;
const AMBIENT = { "istio.io/dataplane-mode": "ambient" };
const REDIRECTION = "ambient.istio.io/redirection";
const LONG = 240_000;
/** Of the pods between which there is load: as much as an agent has. */
const LOAD_CPU = "200m";

describeUnless(needsCluster)("the mesh on a cluster", () => {
  let cluster: Cluster;
  let nodes: string[];
  let near: string;
  let far: string;
  let load: LoadCounts;
  let logs: MeshLogs;
  const loads = ["load-near", "load-far"];

  const values = (...more: readonly string[]): string[] =>
    [`image=${WEFT_IMAGE}`, "imagePullPolicy=Never", "control.replicas=2", "ztunnel.drainSeconds=30", ...(process.env["WEFT_PROBE_ADDRESSES"] === undefined ? [] : [`cni.probeAddresses=${process.env["WEFT_PROBE_ADDRESSES"]}`]), ...more].flatMap((each) => ["--set", each]);
  const installed = (...more: readonly string[]) => cluster.weft(install, ["--timeout", "120", ...values(...more)]);
  const label = (value: string | null) => cluster.merge(`/api/v1/namespaces/${SHOP}`, { metadata: { labels: { "istio.io/dataplane-mode": value } } });
  const shopPods = () => cluster.pods(SHOP);
  const announced = (pods: readonly PodNow[]) => pods.filter(({ metadata }) => metadata.annotations?.[REDIRECTION] === "enabled").map(({ metadata }) => metadata.name).sort();
  const ztunnelMetrics = async (): Promise<string> => {
    const pods = (await cluster.pods(MESH, "app=ztunnel")).filter(({ metadata }) => metadata.deletionTimestamp === undefined);
    return (await Promise.all(pods.map(({ metadata }) => cluster.proxied(MESH, metadata.name, 15020, "/metrics")))).join("\n");
  };
  const mutualConnections = async (): Promise<number> =>
    (await ztunnelMetrics()).split("\n").filter((line) => line.startsWith("istio_tcp_connections_opened_total{") && line.includes('connection_security_policy="mutual_tls"') && line.includes(`destination_workload_namespace="${SHOP}"`))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  const once = async (name: string, where: { namespace: string; node: string; serviceAccount?: string; initArgs?: readonly string[] }, url: string) => {
    const pod = appPod({ name, ...where, args: ["get", url] });
    await cluster.apply(pod);
    const result = await cluster.finished(where.namespace, name);
    await cluster.remove(pod);
    return result;
  };
  const url = (service: string) => `http://${service}.${SHOP}.svc.cluster.local/`;
  const policy = (name: string, spec: object): KubernetesObject => ({ apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name, namespace: SHOP, labels: {} }, spec });
  const applyRaw = async (path: string, body: object) => {
    const applied = await cluster.client.request({ method: "PATCH", path, query: { fieldManager: "test", force: "true" }, body, contentType: APPLY_PATCH });
    if (!applied.ok) throw new Error(applied.error.message);
  };
  const removeRaw = async (path: string) => {
    const removed = await cluster.client.request({ method: "DELETE", path });
    if (!removed.ok && removed.error.status !== 404) throw new Error(removed.error.message);
  };
  const policyPath = (name: string) => `/apis/security.istio.io/v1/namespaces/${SHOP}/authorizationpolicies/${name}`;
  const peerPath = `/apis/security.istio.io/v1/namespaces/${SHOP}/peerauthentications/strict`;
  const definitions = () => testDefinitions().filter(({ kind }) => ["AuthorizationPolicy", "PeerAuthentication"].includes(kind));
  const definitionPath = (name: string) => `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`;

  beforeAll(async () => {
    cluster = new Cluster();
    logs = new MeshLogs(cluster, MESH);
    nodes = await cluster.nodes();
    [near = "", far = near] = nodes;
    for (const { object } of definitions()) await applyRaw(definitionPath(object.metadata.name), object);
    for (const namespace of [SHOP, OUTSIDE]) await cluster.remove(namespaceObject(namespace), WAIT_MS);
    await cluster.apply(namespaceObject(SHOP), namespaceObject(OUTSIDE));
    for (const [i, node] of [near, far].entries()) {
      await cluster.apply(appPod({ name: `web-${i}`, namespace: SHOP, node, args: ["serve", String(PORT), String(GRPC_PORT)], labels: { app: "web" }, probe: PORT, cpu: LOAD_CPU }));
    }
    await cluster.apply(serviceObject("web", SHOP, PORT, GRPC_PORT));
    for (const namespace of [SHOP, OUTSIDE]) await until("the service account", SHOWS_MS, () => cluster.get(`/api/v1/namespaces/${namespace}/serviceaccounts/default`));
    for (const name of ["friend", "stranger"]) await cluster.apply({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace: SHOP, labels: {} } });
    await cluster.ready(SHOP, "web-0", "web-1");
    await cluster.apply(
      appPod({ name: "load-near", namespace: SHOP, node: near, args: ["load", url("web"), `web.${SHOP}.svc.cluster.local:${GRPC_PORT}`], serviceAccount: "friend", labels: { app: "load" }, cpu: LOAD_CPU }),
      appPod({ name: "load-far", namespace: SHOP, node: far, args: ["load", url("web"), `web.${SHOP}.svc.cluster.local:${GRPC_PORT}`], serviceAccount: "friend", labels: { app: "load" }, cpu: LOAD_CPU }),
    );
    await cluster.ready(SHOP, ...loads);
    load = new LoadCounts(cluster, SHOP, loads, logs);
    await load.begun();
  }, LONG);

  afterAll(async () => {
    if (cluster === undefined) return;
    await cluster.weft(uninstall, []).catch(() => {});
    for (const namespace of [SHOP, OUTSIDE]) await cluster.remove(namespaceObject(namespace));
    for (const { object } of definitions()) await removeRaw(definitionPath(object.metadata.name));
    await logs[Symbol.asyncDispose]();
  }, LONG);

  test("install: ready on every node; again changes nothing; nobody is in the mesh yet", async () => {
    await load.withoutLoss(async () => {
      expect(await installed()).toContain("ready.");
      const again = await installed();
      expect(again.split("\n").filter((line) => /(created|changed)$/.test(line) && !line.endsWith("unchanged"))).toEqual([]);
    });
    expect((await cluster.pods(MESH, "app=ztunnel")).length).toBe(nodes.length);
    expect(announced(await shopPods())).toEqual([]);
  }, LONG);

  test("label the namespace: pods that run join without a restart and without a failed request, and speak mutual TLS", async () => {
    const before = await shopPods();
    await load.withoutLoss(async () => {
      await label("ambient");
      await until("every pod is announced", WAIT_MS, async () => announced(await shopPods()).length === before.length);
    });
    expect((await shopPods()).map(({ metadata }) => metadata.uid).sort()).toEqual(before.map(({ metadata }) => metadata.uid).sort());
    const first = await mutualConnections();
    await until("connections with mutual TLS", WAIT_MS, async () => (await mutualConnections()) > first);
  }, LONG);

  test("unlabel and label again under load: no request fails", async () => {
    await load.withoutLoss(async () => {
      await label(null);
      await until("nobody is announced", WAIT_MS, async () => announced(await shopPods()).length === 0);
    });
    await load.withoutLoss(async () => {
      await label("ambient");
      await until("every pod is announced", WAIT_MS, async () => announced(await shopPods()).length === 4);
    });
  }, LONG);

  test("an ALLOW policy by identity: who is named gets through, from a pod's first packet on; everybody else is refused", async () => {
    await applyRaw(policyPath("friends"), policy("friends", { selector: { matchLabels: { app: "web" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: [`cluster.local/ns/${SHOP}/sa/friend`] } }] }] }));
    await until("the stranger is refused", WAIT_MS, async () => !(await once("stranger", { namespace: SHOP, node: near, serviceAccount: "stranger" }, url("web"))).succeeded);
    expect((await once("outsider", { namespace: OUTSIDE, node: far }, url("web"))).succeeded).toBeFalse();
    const friend = await once("friend", { namespace: SHOP, node: far, serviceAccount: "friend", initArgs: ["get", url("web")] }, url("web"));
    expect(friend.log).toMatch(/^got 200 web-/);
    await load.withoutLoss(async () => {});
    await removeRaw(policyPath("friends"));
    await until("the stranger is let in again", WAIT_MS, async () => (await once("stranger", { namespace: SHOP, node: near, serviceAccount: "stranger" }, url("web"))).succeeded);
  }, LONG);

  test("STRICT: plaintext from outside is refused, the kubelet's probes go on", async () => {
    expect((await once("outsider", { namespace: OUTSIDE, node: far }, url("web"))).succeeded).toBeTrue();
    await applyRaw(peerPath, { apiVersion: "security.istio.io/v1", kind: "PeerAuthentication", metadata: { name: "strict", namespace: SHOP }, spec: { mtls: { mode: "STRICT" } } });
    await until("the outsider is refused", WAIT_MS, async () => !(await once("outsider", { namespace: OUTSIDE, node: near }, url("web"))).succeeded);
    const before = (await shopPods()).filter(({ metadata }) => metadata.name.startsWith("web-"));
    const probes = async () => Promise.all(["web-0", "web-1"].map(async (name) => {
      const result = await once(`ask-${name}`, { namespace: SHOP, node: near, serviceAccount: "friend" }, `http://${(await cluster.get<PodNow>(`/api/v1/namespaces/${SHOP}/pods/${name}`))?.status.podIP}:${PORT}/probes`);
      return Number(/got 200 (\d+)/.exec(result.log)?.[1] ?? Number.NaN);
    }));
    const first = await probes();
    await until("probes are answered", WAIT_MS, async () => (await probes()).every((count, i) => count >= first[i]! + 6));
    const after = (await shopPods()).filter(({ metadata }) => metadata.name.startsWith("web-"));
    const life = (pods: readonly PodNow[]) => pods.map(({ metadata, status }) => [metadata.name, status.containerStatuses?.[0]?.restartCount, status.conditions?.find(({ type }) => type === "Ready")?.lastTransitionTime]);
    expect(life(after)).toEqual(life(before));
    await removeRaw(peerPath);
    await until("the outsider is let in again", WAIT_MS, async () => (await once("outsider", { namespace: OUTSIDE, node: near }, url("web"))).succeeded);
  }, LONG);

  test("a pod that opts out, one of the host's network, and one that comes by itself into a namespace outside", async () => {
    await cluster.apply(
      appPod({ name: "out", namespace: SHOP, node: near, args: ["serve", "8081"], labels: { app: "out", "istio.io/dataplane-mode": "none" }, probe: 8081 }),
      appPod({ name: "host", namespace: SHOP, node: near, args: ["serve", "18099"], labels: { app: "host" }, probe: 18099, hostNetwork: true }),
      appPod({ name: "alone", namespace: OUTSIDE, node: far, args: ["serve", "8081"], labels: { app: "alone", ...AMBIENT }, probe: 8081 }),
    );
    await cluster.ready(SHOP, "out", "host");
    await cluster.ready(OUTSIDE, "alone");
    expect(announced(await shopPods())).toEqual(["load-far", "load-near", "web-0", "web-1"]);
    await until("the pod that comes by itself is announced", WAIT_MS, async () => announced(await cluster.pods(OUTSIDE)).join() === "alone");
  }, LONG);

  test("the control plane is killed under load: nobody notices", async () => {
    await load.withoutLoss(async () => {
      for (const { metadata } of await cluster.pods(MESH, "app=weft-control")) {
        const removed = await cluster.client.request({ method: "DELETE", path: `/api/v1/namespaces/${MESH}/pods/${metadata.name}`, query: { gracePeriodSeconds: "0" } });
        if (!removed.ok) throw new Error(removed.error.message);
      }
    });
    await installed(); // waits until it is back
  }, LONG);

  test("agents of both kinds are replaced under load: no request fails", async () => {
    await load.withoutLoss(async () => {
      await installed("logLevel=info,access=info");
    });
    expect(announced(await shopPods())).toEqual(["load-far", "load-near", "web-0", "web-1"]);
  }, LONG);

  test("uninstall under load: no request fails, and nothing is left", async () => {
    await load.withoutLoss(async () => {
      expect(await cluster.weft(uninstall, [])).toContain("the mesh is gone");
    });
    expect(announced(await shopPods())).toEqual([]);
    const left = [];
    for (const object of [...ownDefinitions(), ...installObjects(defaultValues(MESH))]) if ((await cluster.get(objectPath(object))) !== null) left.push(`${object.kind} ${object.metadata.name}`);
    expect(left).toEqual([]);
    // New pods start by the runtime's own plugins alone: ours would refuse them, with nobody to ask.
    expect((await once("afterwards", { namespace: SHOP, node: near }, url("web"))).succeeded).toBeTrue();
    expect((await once("afterwards", { namespace: SHOP, node: far }, url("web"))).succeeded).toBeTrue();
  }, LONG);
});
