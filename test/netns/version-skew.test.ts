// Two versions of the program in one mesh: agents and waypoints of an earlier one (WEFT_PREVIOUS_BIN) under the control plane of this one,
// which is the order in which a mesh is upgraded, then one after the other replaced in its place, with traffic before and after.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { namespacedName } from "../../src/core/brand.ts";
import type { Waypoint } from "../../src/mesh/l7/waypoint.ts";
import { unsealed } from "../kit/box.ts";
import { TestControlPlane } from "../kit/control-plane.ts";
import { requestPolicy, route, rule, when } from "../kit/http-records.ts";
import { Agent, ask, serve } from "../kit/mesh.ts";
import { exact, match, member, policy, PRESENCE, provenance, service, waypoint, workload } from "../kit/mesh-records.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason, needsBinary } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

setDefaultTimeout(60_000);

const PREVIOUS = [process.env["WEFT_PREVIOUS_BIN"] ?? ""];
const WEB = namespacedName("shop", "web.shop.svc.cluster.local");
const WP_SERVICE = namespacedName("shop", "wp.shop.svc.cluster.local");
const GATEWAY = namespacedName("shop", "wp");
const WEB_VIP = "198.18.250.71";
const WP_VIP = "198.18.250.72";
const TOLD_MS = 15_000;

describeUnless(firstReason(unsealed, needsBinary("WEFT_PREVIOUS_BIN")))("an earlier version's agents under this version's control plane", () => {
  let network: MeshNetwork;
  let control: TestControlPlane;
  let [east, west]: readonly (Node | null)[] = [null, null];
  let front: Workload;
  let web: Workload;
  let instance: Workload;
  const agents = new Map<"east" | "west" | "waypoint", Agent>();

  const record = (pod: Workload, fields: Partial<Parameters<typeof workload>[0]> = {}) =>
    workload({ name: pod.name, serviceAccount: pod.name, node: pod.node.name, addresses: pod.addresses, workloadType: "pod", ...fields });
  const gateway: Waypoint = { name: "wp", namespace: "shop", service: WP_SERVICE, serves: "service", clientCertificate: null, provenance: provenance("Gateway", "shop", "wp") };
  const answered = (host: string, port: number, path: string, wanted: RegExp): Promise<string> => until(`${wanted} from ${host}:${port}${path}`, TOLD_MS, async () => {
    const answer = await ask(front, "get", urlOf(host, port, path));
    return wanted.test(answer) ? answer : null;
  }).catch((cause: unknown) => {
    throw new Error([String(cause), ...[...agents.values()].map(({ log }) => log.slice(-2500))].join("\n----\n"));
  });
  const refusals = () => control.xds.xds.clients().flatMap(({ id, types }) => types.filter(({ rejected }) => rejected !== null).map(({ rejected }) => `${id}: ${rejected?.message}`));

  /** Every kind of thing that an agent is told, seen to hold. */
  async function meshHolds(): Promise<void> {
    const teapot = route({ parents: [{ service: WEB, port: null, clientNamespace: null }], rules: [
      rule({ matches: [when({ path: { kind: "prefix", value: "/teapot" } })], filters: [{ kind: "respond", status: 418, body: "short and stout" }] }),
      rule({ backends: [{ weight: 1, filters: [], target: { kind: "service", service: WEB, port: 80, subset: null } }] }),
    ] });
    const secret = requestPolicy({ name: "no-secrets", action: "deny", targets: [{ kind: "service", service: WEB }], rules: [{ paths: [exact("/secret")] }] });
    control.publish({}, { routes: new Map([[teapot.id, teapot]]), requestPolicies: new Map([[namespacedName("shop", "no-secrets"), secret]]) });
    await answered(WEB_VIP, 80, "/teapot", /^418 short and stout/);
    await answered(WEB_VIP, 80, "/secret", /^403/);
    await answered(WEB_VIP, 80, "/", /^200 web to /);
    control.publish({}, { routes: new Map(), requestPolicies: new Map() });
    await answered(WEB_VIP, 80, "/teapot", /^200 web to /);
    control.publish({ policies: [policy({ name: "nobody", action: "deny", rules: [[[match({ principals: [PRESENCE] })]]] })] });
    await answered(web.ipv4, HTTP_PORT, "/", /^(?!200 )/);
    control.publish({ removedPolicies: [namespacedName("shop", "nobody")] });
    await answered(web.ipv4, HTTP_PORT, "/", /^200 web to /);
    await until("everything is confirmed", TOLD_MS, () => control.xds.xds.clients().length === 3 && control.xds.xds.clients().every(({ types }) => types.every(({ sentState, ackedState }) => ackedState === sentState)));
    expect(refusals()).toEqual([]);
  }

  const agentOf = (who: "east" | "west" | "waypoint", weft?: readonly string[]): Agent => {
    if (who === "waypoint") return control.agent("waypoint", instance, { WAYPOINT_GATEWAY: GATEWAY, POD_NAMESPACE: "shop" }, weft);
    const node = who === "east" ? east! : west!;
    return control.agent("ztunnel", node, { INPOD_UDS: control.cni(node).path }, weft);
  };

  beforeAll(async () => {
    network = MeshNetwork.create();
    const hub = network.node("hub");
    [east, west] = [network.node("east"), network.node("west")];
    [front, web, instance] = [east.workload("front"), west.workload("web"), west.workload("wp-1")];
    await serve(web, "http", HTTP_PORT, "web");
    control = await TestControlPlane.start(hub);
    control.publish({
      workloads: [record(front), record(web, { services: member({ [WEB]: { 80: HTTP_PORT } }) }), record(instance, { serviceAccount: "wp", nativeTunnel: true, services: member({ [WP_SERVICE]: { 15008: 15008 } }) })],
      services: [
        service({ name: "web", vips: [WEB_VIP], ports: [{ servicePort: 80, targetPort: HTTP_PORT, name: "http", appProtocol: "http" }], waypoints: [waypoint(WP_SERVICE)] }),
        service({ name: "wp", vips: [WP_VIP], ports: [{ servicePort: 15008, targetPort: 15008, name: "mesh", appProtocol: "" }] }),
      ],
    }, { waypoints: new Map([[GATEWAY, gateway]]) });
    await control.cni(east).add(front);
    await control.cni(west).add(web);
    for (const who of ["east", "west", "waypoint"] as const) agents.set(who, agentOf(who, PREVIOUS));
    await Promise.all([...agents.values()].map((agent) => agent.start()));
  }, 60_000);

  afterAll(async () => {
    await Promise.all([...agents.values()].map((agent) => agent.kill()));
    await control?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("they take everything, and it is in force", () => meshHolds());

  for (const who of ["waypoint", "east", "west"] as const) {
    test(`${who}: this version takes the place of the earlier one, from what that one had on disk, and the mesh of both holds`, async () => {
      await control.end();
      await agents.get(who)!.kill();
      const newer = agentOf(who);
      agents.set(who, newer);
      await newer.start();
      await answered(WEB_VIP, 80, "/", /^200 web to /);
      await control.serve();
      await meshHolds();
    });
  }
});
