// What a control plane writes into the cluster: statuses, and the objects of waypoints.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { describeUnless } from "../kit/skip.ts";
import { type ApiServer, apply, installDefinitions, type KubeObject, needsKubernetes, pathOf, remove, startApiServer } from "./api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "./control-role.ts";
import { SHOWS_MS } from "./eventually.ts";
import { until } from "../kit/until.ts";
import { namespace, service } from "./objects.ts";

const GATEWAY_API = "gateway.networking.k8s.io/v1";
const OURS = "weft.dev/waypoint";

interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration: number;
  readonly lastTransitionTime: string;
}
interface Entry {
  readonly parentRef: { readonly name: string };
  readonly controllerName: string;
  readonly conditions: readonly Condition[];
}

const route = (name: string, spec: Readonly<Record<string, unknown>>): KubeObject => ({ apiVersion: GATEWAY_API, kind: "HTTPRoute", metadata: { name, namespace: "shop" }, spec });
const gateway = (name: string, more: Readonly<Record<string, unknown>> = {}, labels: Readonly<Record<string, string>> = {}): KubeObject => ({
  apiVersion: GATEWAY_API, kind: "Gateway", metadata: { name, namespace: "shop", labels }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }], ...more },
});
const webParent = { group: "", kind: "Service", name: "web", port: 80 };
const toWeb = [{ backendRefs: [{ name: "web", port: 80 }] }];

describeUnless(needsKubernetes)("what a control plane writes", () => {
  let server: ApiServer;
  let control: ControlRole;

  const read = async <T>(object: Parameters<typeof pathOf>[0]): Promise<T | null> => {
    const answer = await server.client.request({ method: "GET", path: pathOf(object) });
    return answer.ok ? (answer.value as T) : null;
  };
  const managed = <T>(apiVersion: string, kind: string, name: string) => read<T>({ apiVersion, kind, metadata: { name, namespace: "shop" } });
  const parents = async (name: string): Promise<readonly Entry[]> => (await read<{ status?: { parents?: Entry[] } }>(route(name, {})))?.status?.parents ?? [];
  const ours = async (name: string, holds: (conditions: readonly Condition[]) => boolean): Promise<readonly Condition[]> =>
    until(`the status of HTTPRoute ${name}`, SHOWS_MS, async () => {
      const conditions = (await parents(name)).find(({ controllerName }) => controllerName === OURS)?.conditions;
      return conditions !== undefined && holds(conditions) ? conditions : null;
    });
  const says = (type: string, status: string, reason: string) => (conditions: readonly Condition[]): boolean => conditions.some((one) => one.type === type && one.status === status && one.reason === reason);

  beforeAll(async () => {
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, namespace(CONTROL_NAMESPACE), namespace("shop", { "istio.io/use-waypoint": "waypoint" }), service("web", "shop", { selector: { app: "web" }, ports: [{ name: "http", port: 80 }] }));
    control = startControl(server, "control-1", ["--waypoint-image", "localhost/weft:1"]);
    await control.ready();
  }, 240_000);

  afterAll(async () => {
    await control?.kill();
    await server?.stop();
  });

  test("a route is accepted, with the generation that was looked at", async () => {
    await apply(server.client, route("good", { parentRefs: [webParent], rules: toWeb }));
    const first = await ours("good", says("Accepted", "True", "Accepted"));
    expect(first.map(({ type, status, observedGeneration }) => [type, status, observedGeneration])).toEqual([["Accepted", "True", 1], ["ResolvedRefs", "True", 1]]);
    await apply(server.client, route("good", { parentRefs: [webParent], rules: [{ backendRefs: [{ name: "nobody", port: 80 }] }] }));
    const second = await ours("good", says("ResolvedRefs", "False", "BackendNotFound"));
    expect(second.find(({ type }) => type === "Accepted")).toMatchObject({ status: "True", observedGeneration: 2, lastTransitionTime: first.find(({ type }) => type === "Accepted")!.lastTransitionTime });
  }, 60_000);

  test("entries of other controllers stay as they are, and a gateway's route alone is left alone", async () => {
    const gatewayParent = { group: "gateway.networking.k8s.io", kind: "Gateway", name: "ingress" };
    const theirs = { parentRef: gatewayParent, controllerName: "example.com/ingress", conditions: [{ type: "Accepted", status: "True", reason: "Accepted", message: "", observedGeneration: 1, lastTransitionTime: "2026-01-01T00:00:00Z" }] };
    await apply(server.client, { ...route("both", { parentRefs: [gatewayParent, webParent], rules: toWeb }), status: { parents: [theirs] } });
    await apply(server.client, { ...route("theirs", { parentRefs: [gatewayParent], rules: toWeb }), status: { parents: [theirs] } });
    await ours("both", says("Accepted", "True", "Accepted"));
    expect((await parents("both")).find(({ controllerName }) => controllerName === "example.com/ingress")).toEqual(theirs as never);
    expect(await parents("theirs")).toEqual([theirs as never]);
  }, 60_000);

  test("a route that cannot be read says so, and says so no more when it is mended", async () => {
    await apply(server.client, route("odd", { parentRefs: [webParent], rules: [{ backendRefs: [{ name: "web", port: 80 }], futureField: { anything: true } }] }));
    const said = await ours("odd", says("Accepted", "False", "UnsupportedValue"));
    expect(said[0]!.message).toContain("futureField");
    await apply(server.client, route("odd", { parentRefs: [webParent], rules: toWeb }));
    await ours("odd", says("Accepted", "True", "Accepted"));
  }, 60_000);

  test("policies say whether they are in force", async () => {
    const policy: KubeObject = { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "allow", namespace: "shop" }, spec: { action: "ALLOW", rules: [{ from: [{ source: { principals: ["spiffe://wrong"] } }] }] } };
    const condition = async (): Promise<Condition | null> => (await read<{ status?: { conditions?: Condition[] } }>(policy))?.status?.conditions?.find(({ type }) => type === "weft.dev/Accepted") ?? null;
    await apply(server.client, policy);
    expect(await until("the status of the policy", SHOWS_MS, condition)).toMatchObject({ status: "False", reason: "Invalid", message: expect.stringContaining("principals") });
    await apply(server.client, { ...policy, spec: { action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/front"] } }] }] } });
    await until("the policy is in force", SHOWS_MS, async () => (await condition())?.status === "True");
  }, 60_000);

  test("a Service says whether it has the waypoint that its labels ask for", async () => {
    const labels = { "istio.io/use-waypoint": "closed", "istio.io/use-waypoint-namespace": "infra" };
    const closed = (allowedRoutes: Readonly<Record<string, unknown>>): KubeObject => ({
      apiVersion: GATEWAY_API, kind: "Gateway", metadata: { name: "closed", namespace: "infra" }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE", allowedRoutes }] },
    });
    await apply(server.client, namespace("infra"), closed({ namespaces: { from: "Same" } }), service("guest", "shop", { ports: [{ name: "http", port: 80 }] }, labels));
    const condition = async (): Promise<Condition | null> => (await read<{ status?: { conditions?: Condition[] } }>(service("guest", "shop", {})))?.status?.conditions?.find(({ type }) => type === "istio.io/WaypointBound") ?? null;
    await until("the waypoint does not take it", SHOWS_MS, async () => (await condition())?.reason === "AttachmentDenied");
    await apply(server.client, closed({ namespaces: { from: "Selector", selector: { matchLabels: { "kubernetes.io/metadata.name": "shop" } } } }));
    await until("the waypoint takes it", SHOWS_MS, async () => (await condition())?.status === "True");
    await apply(server.client, service("guest", "shop", { ports: [{ name: "http", port: 80 }] }, { "istio.io/use-waypoint": "none" }));
    await until("it asks for none", SHOWS_MS, async () => (await condition()) === null);
  }, 60_000);

  test("classes are there, and a Gateway of one becomes a waypoint", async () => {
    for (const name of ["weft-waypoint", "istio-waypoint"]) await until(`GatewayClass ${name}`, SHOWS_MS, () => read({ apiVersion: GATEWAY_API, kind: "GatewayClass", metadata: { name } }));
    await apply(server.client, gateway("waypoint", { infrastructure: { labels: { team: "shop" }, annotations: { "example.com/note": "yes" } } }, { "istio.io/waypoint-for": "all" }));
    const deployment = await until("the Deployment", SHOWS_MS, () => managed<KubeObject & { spec: { template: { spec: { containers: { image: string; env: { name: string; value?: string }[] }[] } } } }>("apps/v1", "Deployment", "waypoint"));
    const made = await read<{ metadata: { uid: string } }>(gateway("waypoint"));
    expect(deployment.metadata).toMatchObject({
      labels: { team: "shop", "gateway.networking.k8s.io/gateway-name": "waypoint" }, annotations: { "example.com/note": "yes" }, ownerReferences: [{ kind: "Gateway", name: "waypoint", uid: made!.metadata.uid, controller: true }],
    });
    const [container] = deployment.spec.template.spec.containers;
    expect(container!.image).toBe("localhost/weft:1");
    expect(container!.env).toContainEqual({ name: "WAYPOINT_GATEWAY", value: "shop/waypoint" });
    await until("the ServiceAccount", SHOWS_MS, () => managed("v1", "ServiceAccount", "waypoint"));
    await until("the PodDisruptionBudget", SHOWS_MS, () => managed("policy/v1", "PodDisruptionBudget", "waypoint"));
    expect(await until("the Service", SHOWS_MS, () => managed<KubeObject>("v1", "Service", "waypoint"))).toMatchObject({ metadata: { labels: { "istio.io/waypoint-for": "all" } }, spec: { ports: expect.arrayContaining([expect.objectContaining({ port: 15008 })]) } });
    const status = await until("the Gateway is programmed", SHOWS_MS, async () => {
      const found = (await read<{ status?: { conditions?: Condition[]; addresses?: unknown[]; listeners?: { conditions: Condition[] }[] } }>(gateway("waypoint")))?.status;
      return found?.conditions?.some(({ type, status: holds }) => type === "Programmed" && holds === "True") ? found : null;
    });
    const { spec: { clusterIPs } } = (await managed<KubeObject & { spec: { clusterIPs: readonly string[] } }>("v1", "Service", "waypoint"))!;
    expect(status.addresses).toEqual([...clusterIPs.map((value) => ({ type: "IPAddress", value })), { type: "Hostname", value: "waypoint.shop.svc.cluster.local" }]);
    expect(status.listeners?.[0]?.conditions.map(({ type, status: holds }) => [type, holds])).toEqual([["Accepted", "True"], ["Programmed", "True"], ["ResolvedRefs", "True"]]);
  }, 60_000);

  test("what somebody changes or deletes comes back; what somebody adds stays", async () => {
    const path = pathOf({ apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "waypoint", namespace: "shop" } });
    const before = await managed<{ spec: { template: { spec: { containers: object[] } } } }>("apps/v1", "Deployment", "waypoint");
    const forged = before!.spec.template.spec.containers.map((container) => ({ ...container, image: "localhost/forged:1" }));
    const changed = await server.client.request({ method: "PATCH", path, contentType: "application/merge-patch+json", body: { metadata: { annotations: { "example.com/added": "mine" } }, spec: { template: { spec: { containers: forged } } } } });
    expect(changed.ok).toBe(true);
    await until("the image is ours again", SHOWS_MS, async () => {
      const found = await managed<{ metadata: { annotations: Record<string, string> }; spec: { template: { spec: { containers: { image: string }[] } } } }>("apps/v1", "Deployment", "waypoint");
      return found?.spec.template.spec.containers[0]?.image === "localhost/weft:1" && found.metadata.annotations["example.com/added"] === "mine";
    });
    await server.client.request({ method: "DELETE", path: pathOf({ apiVersion: "v1", kind: "Service", metadata: { name: "waypoint", namespace: "shop" } }) });
    await until("the Service is back", SHOWS_MS, () => managed("v1", "Service", "waypoint"));
  }, 60_000);

  test("parameters are laid over, but give nobody the node or another account", async () => {
    await apply(server.client, {
      apiVersion: "v1", kind: "ConfigMap", metadata: { name: "tuned", namespace: "shop" },
      data: {
        deployment: "spec: {template: {spec: {hostNetwork: true, serviceAccountName: admin, containers: [{name: istio-proxy, resources: {limits: {memory: 2Gi}}, securityContext: {privileged: true}}], volumes: [{name: host, hostPath: {path: /}}]}}}",
        horizontalPodAutoscaler: "spec: {minReplicas: 2, maxReplicas: 7}",
      },
    });
    await apply(server.client, gateway("tuned", { infrastructure: { parametersRef: { group: "", kind: "ConfigMap", name: "tuned" } } }));
    const found = await until("the Deployment", SHOWS_MS, () => managed<{ spec: { replicas?: number; template: { spec: Record<string, unknown> & { containers: Record<string, unknown>[]; volumes: { name: string }[] } } } }>("apps/v1", "Deployment", "tuned"));
    const pod = found.spec.template.spec;
    expect(pod).toMatchObject({ serviceAccountName: "tuned", containers: [{ name: "istio-proxy", image: "localhost/weft:1", resources: { limits: { memory: "2Gi" } }, securityContext: { privileged: false } }] });
    expect(pod["hostNetwork"]).toBeUndefined();
    expect(pod.volumes.map(({ name }) => name)).not.toContain("host");
    expect(await until("the autoscaler", SHOWS_MS, () => managed<{ spec: unknown }>("autoscaling/v2", "HorizontalPodAutoscaler", "tuned"))).toMatchObject({ spec: { minReplicas: 2, maxReplicas: 7, scaleTargetRef: { name: "tuned" } } });
  }, 60_000);

  test("the mesh is an object, accepted, with the features that it has in order", async () => {
    const mesh = { apiVersion: "gateway.networking.x-k8s.io/v1alpha1", kind: "XMesh", metadata: { name: "weft" } };
    const status = await until("the XMesh has a status", SHOWS_MS, async () => (await read<{ status?: { conditions: Condition[]; supportedFeatures: { name: string }[] } }>(mesh))?.status);
    expect(status.conditions).toMatchObject([{ type: "Accepted", status: "True", observedGeneration: 1 }]);
    const names = status.supportedFeatures.map(({ name }) => name);
    expect(names).toEqual([...names].sort());
    expect(names).toContain("MeshConsumerRoute");
    await apply(server.client, { ...mesh, metadata: { name: "theirs" }, spec: { controllerName: "example.com/mesh" } }, { ...mesh, metadata: { name: "tuned" }, spec: { controllerName: "weft.dev/mesh", parametersRef: { group: "", kind: "ConfigMap", name: "x" } } });
    await until("parameters are refused", SHOWS_MS, async () => (await read<{ status?: { conditions: Condition[] } }>({ ...mesh, metadata: { name: "tuned" } }))?.status?.conditions[0]?.reason === "InvalidParameters");
    expect((await read<{ status?: unknown }>({ ...mesh, metadata: { name: "theirs" } }))?.status).toBeUndefined();
  }, 60_000);

  test("nothing is written again while nothing changes", async () => {
    const written = async (): Promise<number> => Number(/^weft_control_writes_total (\d+)/m.exec(await (await fetch(`http://127.0.0.1:${control.metricsPort}/metrics`)).text())?.[1] ?? "-1");
    const waiting = async (): Promise<number> => Number(/^weft_control_writes_waiting (\d+)/m.exec(await (await fetch(`http://127.0.0.1:${control.metricsPort}/metrics`)).text())?.[1] ?? "-1");
    // What the tests before brought about may still be on its way from one object to the next: all is written when a change brings its own write and no other.
    let settling = 0;
    await until("all is written", SHOWS_MS, async () => {
      const soFar = await written();
      const name = `settling-${settling++}`;
      await apply(server.client, route(name, { parentRefs: [webParent], rules: toWeb }));
      await ours(name, says("Accepted", "True", "Accepted"));
      await remove(server.client, route(name, {}));
      return (await waiting()) === 0 && (await written()) === soFar + 1;
    });
    const before = await written();
    // A change that says nothing new is looked at, and its look is over when one that does say something has been answered.
    await apply(server.client, { ...route("odd", { parentRefs: [webParent], rules: toWeb }), metadata: { name: "odd", namespace: "shop", annotations: { "example.com/note": "1" } } });
    await apply(server.client, route("last", { parentRefs: [webParent], rules: toWeb }));
    await ours("last", says("Accepted", "True", "Accepted"));
    // It is counted when the API server has answered, which may be after others have seen what it wrote.
    await until("the one write is counted", SHOWS_MS, async () => (await written()) > before);
    expect(await written()).toBe(before + 1);
    await remove(server.client, route("last", {}));
  }, 60_000);
});
