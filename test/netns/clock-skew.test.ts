// Machines whose clocks differ by five minutes, on the day on which everything is new: the CA, its own certificate, and those that it signs
// now. Whoever is behind or ahead, agents get certificates, take each other's, and traffic flows at once. Wall clocks of agents are bent
// with libfaketime (Debian: faketime), the CA's is handed to it; durations are as they are.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { namespacedName } from "../../src/core/brand.ts";
import { systemClock } from "../../src/core/ports.ts";
import type { Waypoint } from "../../src/mesh/l7/waypoint.ts";
import { unsealed } from "../kit/box.ts";
import { TestControlPlane } from "../kit/control-plane.ts";
import { type Agent, ask, serve } from "../kit/mesh.ts";
import { member, provenance, service, waypoint, workload } from "../kit/mesh-records.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

setDefaultTimeout(60_000);

const library = [...new Bun.Glob("*/faketime/libfaketimeMT.so.1").scanSync({ cwd: "/usr/lib" })][0];
const MAIN = join(import.meta.dir, "../../src/main.ts");
const SKEW_S = 300;
/** Far less than clocks differ: nothing waits until they agree. */
const FLOWS_MS = 20_000;
const WEB = namespacedName("shop", "web.shop.svc.cluster.local");
const WP_SERVICE = namespacedName("shop", "wp.shop.svc.cluster.local");
const GATEWAY = namespacedName("shop", "wp");
const [WEB_VIP, WP_VIP] = ["198.18.250.81", "198.18.250.82"];

type Who = "the CA" | "the client's node" | "the server's node" | "the waypoint";
/** Who is behind has the harder part: what is new is not valid yet. */
const CASES: readonly { readonly who: Who; readonly seconds: number }[] = [
  { who: "the CA", seconds: SKEW_S }, { who: "the CA", seconds: -SKEW_S }, { who: "the client's node", seconds: SKEW_S },
  { who: "the client's node", seconds: -SKEW_S }, { who: "the server's node", seconds: -SKEW_S }, { who: "the waypoint", seconds: -SKEW_S },
];

for (const { who, seconds } of CASES) {
  describeUnless(firstReason(unsealed, library === undefined ? "needs faketime" : null))(`${who} is five minutes ${seconds > 0 ? "ahead" : "behind"}`, () => {
    let network: MeshNetwork;
    let control: TestControlPlane;
    let [east, west]: readonly (Node | null)[] = [null, null];
    let front: Workload;
    let web: Workload;
    let agents: readonly Agent[] = [];

    const record = (pod: Workload, fields: Partial<Parameters<typeof workload>[0]> = {}) =>
      workload({ name: pod.name, serviceAccount: pod.name, node: pod.node.name, addresses: pod.addresses, workloadType: "pod", ...fields });
    const gateway: Waypoint = { name: "wp", namespace: "shop", service: WP_SERVICE, serves: "service", clientCertificate: null, provenance: provenance("Gateway", "shop", "wp") };
    const flows = (from: Workload, host: string, port: number, wanted: RegExp): Promise<string> => until(`${from.name} to get ${wanted} from ${host}`, FLOWS_MS, async () => {
      const answer = await ask(from, "get", urlOf(host, port));
      return wanted.test(answer) ? answer : null;
    }).catch((cause: unknown) => {
      throw new Error([String(cause), ...agents.map(({ log }) => log.slice(-2500))].join("\n----\n"));
    });
    /** The program, by a clock that is wrong where it is this one's turn. */
    const weft = (whose: Who): string[] => {
      const bent = whose === who ? ["env", `LD_PRELOAD=/usr/lib/${library}`, `FAKETIME=${seconds > 0 ? "+" : ""}${seconds}`, "FAKETIME_DONT_FAKE_MONOTONIC=1"] : [];
      return [...bent, process.execPath, MAIN];
    };

    beforeAll(async () => {
      network = MeshNetwork.create();
      const hub = network.node("hub");
      [east, west] = [network.node("east"), network.node("west")];
      const instance = west.workload("wp-1");
      [front, web] = [east.workload("front"), west.workload("web")];
      await Promise.all([serve(web, "http", HTTP_PORT, "web"), serve(front, "http", HTTP_PORT, "front")]);
      control = await TestControlPlane.start(hub, hub.ipv4, who === "the CA" ? { monotonicMs: () => systemClock.monotonicMs(), wallMs: () => systemClock.wallMs() + seconds * 1000 } : systemClock);
      control.publish({
        workloads: [record(front), record(web, { services: member({ [WEB]: { 80: HTTP_PORT } }) }), record(instance, { serviceAccount: "wp", nativeTunnel: true, services: member({ [WP_SERVICE]: { 15008: 15008 } }) })],
        services: [
          service({ name: "web", vips: [WEB_VIP], ports: [{ servicePort: 80, targetPort: HTTP_PORT, name: "http", appProtocol: "http" }], waypoints: [waypoint(WP_SERVICE)] }),
          service({ name: "wp", vips: [WP_VIP], ports: [{ servicePort: 15008, targetPort: 15008, name: "mesh", appProtocol: "" }] }),
        ],
      }, { waypoints: new Map([[GATEWAY, gateway]]) });
      await control.cni(east).add(front);
      await control.cni(west).add(web);
      agents = [
        control.agent("ztunnel", east, { INPOD_UDS: control.cni(east).path }, weft("the client's node")), control.agent("ztunnel", west, { INPOD_UDS: control.cni(west).path }, weft("the server's node")),
        control.agent("waypoint", instance, { WAYPOINT_GATEWAY: GATEWAY, POD_NAMESPACE: "shop" }, weft("the waypoint")),
      ];
      await Promise.all(agents.map((agent) => agent.start()));
    }, 60_000);

    afterAll(async () => {
      await Promise.all(agents.map((agent) => agent.kill()));
      await control?.[Symbol.asyncDispose]();
      await network?.[Symbol.asyncDispose]();
    });

    test("traffic flows between the nodes and through the waypoint, and to a pod that has just begun", async () => {
      using wire = network.witness(east!, west!);
      await flows(front, WEB_VIP, 80, /^200 web to /);
      await flows(front, web.ipv4, HTTP_PORT, /^200 web to /);
      await flows(web, front.ipv4, HTTP_PORT, /^200 front to /);
      const late = west!.workload("late");
      await serve(late, "http", HTTP_PORT, "late");
      control.publish({ workloads: [record(late)] });
      await control.cni(west!).add(late);
      await flows(front, late.ipv4, HTTP_PORT, /^200 late to /);
      expect(wire.bytesOnPort(HTTP_PORT)).toBe(0);
      expect(wire.bytesOnPort(15008)).toBeGreaterThan(0);
    });
  });
}
