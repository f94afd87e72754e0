// What people run on a cluster, all of it in the mesh: a service with two ports, TCP without a protocol, a StatefulSet behind a headless
// service, a Job, a pod in the node's network, endpoints that are not ready, a name for somebody else's service, and a waypoint with a route.

import { afterAll, beforeAll, expect, test } from "bun:test";
import type { KubernetesObject } from "../../src/cli/install/objects.ts";
import { install } from "../../src/cli/verbs/install.ts";
import { status } from "../../src/cli/verbs/status.ts";
import { uninstall } from "../../src/cli/verbs/uninstall.ts";
import { waypoint } from "../../src/cli/verbs/waypoint.ts";
import { APPLY_PATCH } from "../../src/runtime/kubernetes/api.ts";
import { describeUnless } from "../kit/skip.ts";
import { appPod, appPodSpec, Cluster, namespaceObject, needsCluster, serviceObject, WAIT_MS, WEFT_IMAGE } from "./cluster.ts";
import { testDefinitions } from "./definitions.ts";
import { SHOWS_MS } from "./eventually.ts";
import { until } from "../kit/until.ts";

const SHOP = "weft-e2e-kinds";
const LONG = 240_000;

describeUnless(needsCluster)("what people run, in the mesh", () => {
  let cluster: Cluster;
  let near: string;
  let far: string;
  let asked = 0;

  const host = (service: string) => `${service}.${SHOP}.svc.cluster.local`;
  /** Asks from a new pod of the namespace, as often as it takes: what was applied a moment ago is on its way. */
  const says = async (args: readonly string[], wanted: RegExp, node = near): Promise<string> =>
    until(`${args.join(" ")} says ${wanted}`, WAIT_MS, async () => {
      const name = `ask-${asked++}`;
      const pod = appPod({ name, namespace: SHOP, node, args });
      await cluster.apply(pod);
      const { log } = await cluster.finished(SHOP, name);
      await cluster.remove(pod);
      return wanted.test(log) ? log : null;
    });
  const raw = async (path: string, body: object): Promise<void> => {
    const applied = await cluster.client.request({ method: "PATCH", path, query: { fieldManager: "test", force: "true" }, body, contentType: APPLY_PATCH });
    if (!applied.ok) throw new Error(applied.error.message);
  };
  const service = (name: string, spec: object): KubernetesObject => ({ apiVersion: "v1", kind: "Service", metadata: { name, namespace: SHOP, labels: {} }, spec });
  const definitions = () => testDefinitions().filter(({ kind }) => ["Gateway", "GatewayClass", "HTTPRoute"].includes(kind));
  const definitionPath = (name: string) => `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`;

  beforeAll(async () => {
    cluster = new Cluster();
    const nodes = await cluster.nodes();
    [near = "", far = near] = nodes;
    for (const { object } of definitions()) await raw(definitionPath(object.metadata.name), object);
    await cluster.remove(namespaceObject(SHOP), WAIT_MS);
    const addresses = process.env["WEFT_PROBE_ADDRESSES"];
    await cluster.weft(install, ["--set", `image=${WEFT_IMAGE}`, "--set", "imagePullPolicy=Never", "--set", "control.replicas=1", "--set", "ztunnel.drainSeconds=5", ...(addresses === undefined ? [] : ["--set", `cni.probeAddresses=${addresses}`])]);
    await cluster.apply(namespaceObject(SHOP, { "istio.io/dataplane-mode": "ambient" }));
    await until("the service account", SHOWS_MS, () => cluster.get(`/api/v1/namespaces/${SHOP}/serviceaccounts/default`));
  }, LONG);

  afterAll(async () => {
    if (cluster === undefined) return;
    await cluster.remove(namespaceObject(SHOP), WAIT_MS);
    await cluster.weft(uninstall, []);
    for (const { object } of definitions()) await cluster.client.request({ method: "DELETE", path: definitionPath(object.metadata.name) });
  }, LONG);

  test("a service with two ports, on another node", async () => {
    await cluster.apply(
      appPod({ name: "two", namespace: SHOP, node: far, args: ["serve", "8080,8081"], labels: { app: "two" }, probe: 8081 }),
      service("two", { selector: { app: "two" }, ports: [{ name: "http", port: 80, targetPort: 8080 }, { name: "http-more", port: 81, targetPort: 8081 }] }),
    );
    await cluster.ready(SHOP, "two");
    expect((await says(["get", `http://${host("two")}/`, `http://${host("two")}:81/`], /^got 200 two .*\ngot 200 two /)).split("\n")).not.toContain("failed");
  }, LONG);

  test("TCP of a server that speaks first, and a Job that asks it", async () => {
    await cluster.apply(appPod({ name: "tcp", namespace: SHOP, node: far, args: ["tcp", "7000"], labels: { app: "tcp" } }), service("tcp", { selector: { app: "tcp" }, ports: [{ name: "tcp", port: 7000 }] }));
    await says(["ask", `${host("tcp")}:7000`], /^got tcp greets/);
    await cluster.apply({
      apiVersion: "batch/v1", kind: "Job", metadata: { name: "job", namespace: SHOP, labels: {} },
      spec: { backoffLimit: 0, template: { metadata: { labels: { app: "job" } }, spec: appPodSpec({ node: near, args: ["ask", `${host("tcp")}:7000`] }) } },
    });
    await until("the Job has succeeded", WAIT_MS, async () => (await cluster.get<{ status: { succeeded?: number } }>(`/apis/batch/v1/namespaces/${SHOP}/jobs/job`))?.status.succeeded === 1);
  }, LONG);

  test("a StatefulSet behind a headless service: each by its name", async () => {
    await cluster.apply(
      service("db", { clusterIP: "None", selector: { app: "db" }, ports: [{ name: "http", port: 8080 }] }),
      {
        apiVersion: "apps/v1", kind: "StatefulSet", metadata: { name: "db", namespace: SHOP, labels: {} },
        spec: { serviceName: "db", replicas: 2, podManagementPolicy: "Parallel", selector: { matchLabels: { app: "db" } }, template: { metadata: { labels: { app: "db" } }, spec: appPodSpec({ node: far, args: ["serve", "8080"], probe: 8080 }) } },
      },
    );
    await cluster.ready(SHOP, "db-0", "db-1");
    for (const name of ["db-0", "db-1"]) await says(["get", `http://${name}.${host("db")}:8080/`], new RegExp(`^got 200 ${name} `));
    await says(["get", `http://${host("db")}:8080/`], /^got 200 db-[01] /);
  }, LONG);

  test("a pod in the node's own network, endpoints that are not ready, and a name for another's service", async () => {
    await cluster.apply(
      appPod({ name: "host", namespace: SHOP, node: far, args: ["serve", "18098"], labels: { app: "host" }, probe: 18098, hostNetwork: true }), service("host", { selector: { app: "host" }, ports: [{ name: "http", port: 80, targetPort: 18098 }] }),
      appPod({ name: "unready", namespace: SHOP, node: far, args: ["serve", "8080"], labels: { app: "unready" }, probe: 1 }), service("unready", { publishNotReadyAddresses: true, selector: { app: "unready" }, ports: [{ name: "http", port: 80, targetPort: 8080 }] }),
      service("other", { type: "ExternalName", externalName: host("two") }),
    );
    await cluster.ready(SHOP, "host");
    await says(["get", `http://${host("host")}/`], /^got 200 host /);
    await says(["get", `http://${host("unready")}/`], /^got 200 unready /);
    await says(["get", `http://${host("other")}/`], /^got 200 two /);
  }, LONG);

  test("a waypoint: a route by weight is followed, and status shows it", async () => {
    for (const version of ["one", "next"]) {
      await cluster.apply(appPod({ name: version, namespace: SHOP, node: far, args: ["serve", "8080"], labels: { app: version, shop: "web" }, probe: 8080 }), serviceObject(version, SHOP, 8080));
    }
    await cluster.apply(service("web", { selector: { shop: "web" }, ports: [{ name: "http", port: 80, targetPort: 8080 }] }));
    await cluster.ready(SHOP, "one", "next");
    await cluster.weft(waypoint, ["apply", "-n", SHOP, "--enroll-namespace", "--wait"]);
    const route = (weight: number) => raw(`/apis/gateway.networking.k8s.io/v1/namespaces/${SHOP}/httproutes/web`, {
      apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: "web", namespace: SHOP },
      spec: { parentRefs: [{ group: "", kind: "Service", name: "web", port: 80 }], rules: [{ backendRefs: [{ name: "one", port: 80, weight: 100 - weight }, { name: "next", port: 80, weight }] }] },
    });
    const eight = Array.from({ length: 8 }, () => `http://${host("web")}/`);
    await route(0);
    await says(["get", ...eight], /^(got 200 one .*\n){8}$/);
    await route(100);
    await says(["get", ...eight], /^(got 200 next .*\n){8}$/);
    expect(await cluster.weft(status, [])).toContain(`waypoint ${SHOP}/waypoint`);
  }, LONG);
});
