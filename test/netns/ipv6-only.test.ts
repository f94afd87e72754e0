// A mesh in which nothing has an IPv4 address: the control plane, the agents and the pods find each other by IPv6, and a service of IPv6 alone
// is called by its address and by its name.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { TestControlPlane } from "../kit/control-plane.ts";
import { type Agent, ask, program, serve } from "../kit/mesh.ts";
import { member, service, workload } from "../kit/mesh-records.ts";
import { MeshNetwork, type Node, type Place, type Workload } from "../kit/network.ts";
import { ECHO_PORT, HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

setDefaultTimeout(60_000);

const VIP = "2001:db8:250::60";
const WEB = "web.shop.svc.cluster.local";

describeUnless(firstReason(unsealed, needsProgram("ip"), needsProgram("dig")))("a mesh of IPv6 alone", () => {
  let network: MeshNetwork;
  let control: TestControlPlane;
  let east: Node;
  let west: Node;
  let front: Workload;
  let web: Workload;
  let agents: readonly Agent[] = [];

  beforeAll(async () => {
    network = MeshNetwork.create();
    const hub = network.node("hub");
    [east, west] = [network.node("east"), network.node("west")];
    [front, web] = [east.workload("front"), west.workload("web")];
    const places = [east, west].map((node) => node.workload(`agent-${node.name}`));
    for (const place of [hub, east, west, front, web, ...places] satisfies Place[]) {
      const { stdout } = await place.run(["ip", "-4", "-o", "address", "show", "scope", "global"]);
      for (const link of new Set(stdout.trim().split("\n").map((line) => line.split(/\s+/)[1]!))) expect(await place.run(["ip", "-4", "address", "flush", "dev", link])).toMatchObject({ exitCode: 0 });
      // Loopback has its own again: programs take it for granted.
      expect(await place.run(["ip", "address", "replace", "127.0.0.1/8", "dev", "lo"])).toMatchObject({ exitCode: 0 });
      expect((await place.run(["ip", "-4", "-o", "address", "show", "scope", "global"])).stdout).toBe("");
    }
    await Promise.all([serve(web, "http", HTTP_PORT, "web"), serve(web, "echo", ECHO_PORT)]);
    control = await TestControlPlane.start(hub, hub.ipv6!);
    control.publish({
      services: [service({ name: "web", vips: [VIP], ipFamilies: "ipv6" })],
      workloads: [front, web].map((pod) => workload({
        name: pod.name, serviceAccount: pod.name, node: pod.node.name, addresses: [pod.ipv6!], workloadType: "pod", services: pod === web ? member({ [`shop/${WEB}`]: { 80: HTTP_PORT } }) : [],
      })),
    });
    await control.cni(east).add(front);
    await control.cni(west).add(web);
    agents = places.map((place, i) => control.agent("ztunnel", place, { INPOD_UDS: control.cni([east, west][i]!).path, NODE_NAME: [east, west][i]!.name }));
    await Promise.all(agents.map((agent) => agent.start()));
  }, 60_000);

  afterAll(async () => {
    await Promise.all(agents.map((agent) => agent.kill()));
    await control?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("pods and services answer through tunnels, to the client's own address", async () => {
    using wire = network.witness(east, west);
    for (const url of [urlOf(web.ipv6!, HTTP_PORT), urlOf(VIP, 80)]) {
      await until(`${url} to answer`, 10_000, async () => (await ask(front, "get", url)) === `200 web to ${front.ipv6}`);
    }
    expect(wire.bytesOnPort(15008)).toBeGreaterThan(0);
    expect(wire.bytesOnPort(HTTP_PORT)).toBe(0);
  });

  test("the service's name has its address, asked of a resolver of IPv6 by UDP and by TCP", async () => {
    for (const protocol of ["+notcp", "+tcp"]) {
      const { stdout } = await front.run(["dig", "+short", "+tries=1", "+time=4", protocol, "@2001:db8::53", WEB, "AAAA"]);
      expect(stdout.trim()).toBe(VIP);
      expect((await front.run(["dig", "+tries=1", "+time=4", protocol, "@2001:db8::53", WEB, "A"])).stdout).toMatch(/status: NOERROR[^]*ANSWER: 0/);
    }
  });

  test("a thousand connections, and the agent of their node started anew in the middle of its work", async () => {
    const storm = async (): Promise<string> => (await front.run(program("storm", web.ipv6!, ECHO_PORT, 500, 8))).stdout.trim().split("\n").at(-1)!;
    expect(await storm()).toBe("ok 500");
    await agents[0]!.kill();
    await agents[0]!.start();
    expect(await storm()).toBe("ok 500");
  });
});
