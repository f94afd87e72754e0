// The control plane under the rights that an installation gives it, and no more: it lacks none, and what is not given is not done.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { installObjects } from "../../src/cli/install/objects.ts";
import { defaultValues } from "../../src/cli/install/values.ts";
import { describeUnless } from "../kit/skip.ts";
import { type ApiServer, apply, installDefinitions, type KubeObject, needsKubernetes, pathOf, startApiServer } from "./api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "./control-role.ts";
import { SHOWS_MS } from "./eventually.ts";
import { until } from "../kit/until.ts";
import { namespace, service, tokenFor } from "./objects.ts";

const RIGHTS: readonly string[] = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
const GATEWAY_API = "gateway.networking.k8s.io/v1";

describeUnless(needsKubernetes)("the control plane with the rights of an installation", () => {
  let server: ApiServer;
  let control: ControlRole;

  const exists = (apiVersion: string, kind: string, name: string) => async (): Promise<boolean> => (await server.client.request({ method: "GET", path: pathOf({ apiVersion, kind, metadata: { name, namespace: "shop" } }) })).ok;

  beforeAll(async () => {
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, namespace(CONTROL_NAMESPACE), namespace("shop"), service("web", "shop", { selector: { app: "web" }, ports: [{ name: "http", port: 80 }] }));
    const rights = installObjects(defaultValues(CONTROL_NAMESPACE)).filter(({ kind }) => RIGHTS.includes(kind));
    expect(rights.length).toBeGreaterThan(4);
    for (const object of rights) await apply(server.client, JSON.parse(JSON.stringify(object)) as KubeObject);
    const token = await tokenFor(server.client, "weft-control", CONTROL_NAMESPACE, { audience: "https://kubernetes.default.svc" });
    const kubeconfig = `${server.kubeconfig}-control`;
    writeFileSync(kubeconfig, readFileSync(server.kubeconfig, "utf8").replace("admin-token", token), { mode: 0o600 });
    control = startControl({ ...server, kubeconfig }, "control-1", ["--waypoint-image", "localhost/weft:1"]);
    await control.ready();
  }, 240_000);

  afterAll(async () => {
    await control?.kill();
    await server?.stop();
  });

  test("does all of its work", async () => {
    await apply(server.client,
      { apiVersion: GATEWAY_API, kind: "HTTPRoute", metadata: { name: "web", namespace: "shop" }, spec: { parentRefs: [{ group: "", kind: "Service", name: "web", port: 80 }], rules: [{ backendRefs: [{ name: "web", port: 80 }] }] } },
      { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "tuned", namespace: "shop" }, data: { horizontalPodAutoscaler: "spec: {maxReplicas: 3}" } },
      { apiVersion: GATEWAY_API, kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }], infrastructure: { parametersRef: { group: "", kind: "ConfigMap", name: "tuned" } } } });
    for (const [apiVersion, kind, name] of [["v1", "ConfigMap", "istio-ca-root-cert"], ["v1", "Service", "waypoint"], ["v1", "ServiceAccount", "waypoint"], ["apps/v1", "Deployment", "waypoint"], ["policy/v1", "PodDisruptionBudget", "waypoint"], ["autoscaling/v2", "HorizontalPodAutoscaler", "waypoint"]] as const) {
      await until(`${kind} ${name}`, SHOWS_MS, exists(apiVersion, kind, name)).catch((cause: unknown) => {
        throw new Error(`${String(cause)}\n${control.log().slice(-3000)}`);
      });
    }
    await until("the status of the route", SHOWS_MS, async () => {
      const answer = await server.client.request({ method: "GET", path: pathOf({ apiVersion: GATEWAY_API, kind: "HTTPRoute", metadata: { name: "web", namespace: "shop" } }) });
      return answer.ok && JSON.stringify(answer.value).includes('"controllerName":"weft.dev/waypoint"');
    });
  }, 90_000);

  test("is refused nothing", () => {
    const refused = control.log().split("\n").filter((line) => / 403 |orbidden/.test(line));
    expect(refused).toEqual([]);
  });
});
