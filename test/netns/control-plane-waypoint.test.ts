// A waypoint without a directory: a control plane tells it the mesh and what holds at its Gateway, over the same xDS as the nodes.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { namespacedName } from "../../src/core/brand.ts";
import type { Waypoint } from "../../src/mesh/l7/waypoint.ts";
import { unsealed } from "../kit/box.ts";
import { TestControlPlane } from "../kit/control-plane.ts";
import { requestPolicy, route, rule, when } from "../kit/http-records.ts";
import { type Agent, ask, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { exact, member, provenance, service, waypoint, workload } from "../kit/mesh-records.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

setDefaultTimeout(60_000);

const WEB = namespacedName("shop", "web.shop.svc.cluster.local");
const WP_SERVICE = namespacedName("shop", "wp.shop.svc.cluster.local");
const GATEWAY = namespacedName("shop", "wp");
const WEB_VIP = "198.18.250.61";
const WP_VIP = "198.18.250.62";

describeUnless(unsealed)("a waypoint under a control plane", () => {
  let network: MeshNetwork;
  let control: TestControlPlane;
  let east: Node;
  let front: Workload;
  let web: Workload;
  let instance: Workload;
  let agents: readonly Agent[] = [];

  const record = (pod: Workload, fields: Partial<Parameters<typeof workload>[0]> = {}) =>
    workload({ name: pod.name, serviceAccount: pod.name, node: pod.node.name, addresses: pod.addresses, workloadType: "pod", ...fields });
  const gateway: Waypoint = { name: "wp", namespace: "shop", service: WP_SERVICE, serves: "service", clientCertificate: null, provenance: provenance("Gateway", "shop", "wp") };
  const get = (path: string): Promise<string> => ask(front, "get", urlOf(WEB_VIP, 80, path));
  const answered = (path: string, wanted: RegExp): Promise<string> => until(`${wanted} from ${path}`, 10_000, async () => {
    const answer = await get(path);
    return wanted.test(answer) ? answer : null;
  }).catch((cause: unknown) => {
    throw new Error([String(cause), ...agents.map(({ log }) => log.slice(-2500))].join("\n----\n"));
  });

  beforeAll(async () => {
    network = MeshNetwork.create();
    const hub = network.node("hub");
    east = network.node("east");
    const west = network.node("west");
    [front, web, instance] = [east.workload("front"), west.workload("web"), west.workload("wp-1")];
    await serve(web, "http", HTTP_PORT, "web");
    control = await TestControlPlane.start(hub);
    const http = [{ servicePort: 80, targetPort: HTTP_PORT, name: "http", appProtocol: "http" }];
    control.publish({
      workloads: [record(front), record(web, { services: member({ [WEB]: { 80: HTTP_PORT } }) }), record(instance, { serviceAccount: "wp", nativeTunnel: true, services: member({ [WP_SERVICE]: { 15008: 15008 } }) })],
      services: [
        service({ name: "web", vips: [WEB_VIP], ports: http, waypoints: [waypoint(WP_SERVICE)] }),
        service({ name: "wp", vips: [WP_VIP], ports: [{ servicePort: 15008, targetPort: 15008, name: "mesh", appProtocol: "" }] }),
      ],
    }, { waypoints: new Map([[GATEWAY, gateway]]) });
    await control.cni(east).add(front);
    await control.cni(west).add(web);
    agents = [
      control.agent("ztunnel", east, { INPOD_UDS: control.cni(east).path }), control.agent("ztunnel", west, { INPOD_UDS: control.cni(west).path }),
      control.agent("waypoint", instance, { WAYPOINT_GATEWAY: GATEWAY, POD_NAMESPACE: "shop" }),
    ];
    await Promise.all(agents.map((agent) => agent.start()));
  }, 60_000);

  afterAll(async () => {
    await Promise.all(agents.map((agent) => agent.kill()));
    await control?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("requests to its service go through it", async () => {
    expect(await answered("/", /^200 web to /)).toStartWith("200 web to ");
    await until("its access log line", 5_000, () => agents[2]!.requestsSoFar().find(({ status, path }) => status === "200" && path === "/"));
    expect(control.xds.xds.clients().find(({ view }) => view.kind === "waypoint")).toMatchObject({ view: { gateway: GATEWAY } });
  });

  test("routes and policies come and go while it runs", async () => {
    const respond = route({ parents: [{ service: WEB, port: null, clientNamespace: null }], rules: [
      rule({ matches: [when({ path: { kind: "prefix", value: "/teapot" } })], filters: [{ kind: "respond", status: 418, body: "short and stout" }] }),
      rule({ backends: [{ weight: 1, filters: [], target: { kind: "service", service: WEB, port: 80, subset: null } }] }),
    ] });
    control.publish({}, { routes: new Map([[respond.id, respond]]) });
    await answered("/teapot", /^418 short and stout/);
    await answered("/", /^200 web to /);
    const secret = requestPolicy({ name: "no-secrets", action: "deny", targets: [{ kind: "service", service: WEB }], rules: [{ paths: [exact("/secret")] }] });
    control.publish({}, { requestPolicies: new Map([[namespacedName("shop", "no-secrets"), secret]]) });
    await answered("/secret", /^403/);
    await answered("/", /^200 web to /);
    control.publish({}, { routes: new Map(), requestPolicies: new Map() });
    await answered("/secret", /^200 web to /);
    await answered("/teapot", /^200 web to /);
  });

  test("it starts again while the control plane is gone, with what it was told", async () => {
    const guard = requestPolicy({ name: "no-secrets", action: "deny", targets: [{ kind: "waypoint", gateway: GATEWAY }], rules: [{ paths: [exact("/secret")] }] });
    control.publish({}, { requestPolicies: new Map([[namespacedName("shop", "no-secrets"), guard]]) });
    await answered("/secret", /^403/);
    await control.end();
    await agents[2]!.kill();
    await agents[2]!.start();
    await answered("/secret", /^403/);
    await answered("/", /^200 web to /);
    await control.serve();
    control.publish({}, { requestPolicies: new Map() });
    await answered("/secret", /^200 web to /);
  });
});

