// A pod that runs is put into the mesh while the CA is away: it goes on as it was, outside, and joins when its certificate is here. One that
// starts is captured at once, and its connections wait.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { TestControlPlane } from "../kit/control-plane.ts";
import { type Agent, ask, serve } from "../kit/mesh.ts";
import { service, workload } from "../kit/mesh-records.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

setDefaultTimeout(60_000);

const CA_LATE = "can join when it has a certificate: ";

describeUnless(firstReason(unsealed, needsProgram("socat")))("a CA that is away", () => {
  let network: MeshNetwork;
  let control: TestControlPlane;
  let east: Node;
  let west: Node;
  let front: Workload;
  let web: Workload;
  const agents: Agent[] = [];

  beforeAll(async () => {
    network = MeshNetwork.create();
    const hub = network.node("hub");
    [east, west] = [network.node("east"), network.node("west")];
    [front, web] = [east.workload("front"), west.workload("web")];
    await serve(web, "http", HTTP_PORT, "web");
    control = await TestControlPlane.start(hub);
    control.publish({ services: [service({ name: "web", vips: ["198.18.250.70"] })], workloads: [front, web].map((pod) => workload({ name: pod.name, serviceAccount: pod.name, node: pod.node.name, addresses: pod.addresses, workloadType: "pod" })) });
    await control.cni(west).add(web);
  }, 60_000);

  afterAll(async () => {
    await Promise.all(agents.map((agent) => agent.kill()));
    await control?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  const start = async (node: Node, environment: Readonly<Record<string, string>>): Promise<Agent> => {
    const agent = control.agent("ztunnel", node, { INPOD_UDS: control.cni(node).path, NODE_NAME: node.name, ...environment });
    agents.push(agent);
    await agent.start();
    return agent;
  };
  const get = (): Promise<string> => ask(front, "get", urlOf(web.ipv4, HTTP_PORT));

  test("a running pod stays outside, where its requests go on, until its certificate is here; then it joins", async () => {
    const late = new URL(control.environmentOf(east)["CA_ADDRESS"]!);
    const caAt = `TCP:${late.host}`;
    late.port = String(Number(late.port) + 1000);
    await Promise.all([start(west, {}), start(east, { CA_ADDRESS: late.origin })]);
    expect(await control.cni(east).join(front)).toContain(`shop/front ${CA_LATE}`);
    {
      using wire = network.witness(east, west);
      expect(await get()).toStartWith("200 web to ");
      expect(wire.bytesOnPort(HTTP_PORT)).toBeGreaterThan(0);
    }
    // Asked again while the CA fails, the answer is there at once: others of the node wait behind it.
    expect(await control.cni(east).join(front)).toContain(CA_LATE);

    const way = control.hub.exec(["socat", `TCP-LISTEN:${late.port},fork,reuseaddr`, caAt], { stdout: "ignore", stderr: "inherit" });
    let missing: string | null = null;
    await until(() => `the pod to join: ${missing}`, 20_000, async () => (missing = await control.cni(east).join(front)) === null);
    using wire = network.witness(east, west);
    for (let i = 0; i < 3; i++) expect(await get()).toStartWith("200 web to ");
    expect(wire.bytesOnPort(HTTP_PORT)).toBe(0);
    expect(wire.bytesOnPort(15008)).toBeGreaterThan(0);
    way.kill();
    await way.exited;
  });
});
