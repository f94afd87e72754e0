// The upgrade of a DaemonSet with surge: the next agent of a node comes up beside the present one, has a state of its own, and is told of
// everything by xDS and ZDS; then the present one is told to end. No connection is refused or lost on the way.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { TestControlPlane } from "../kit/control-plane.ts";
import { type Agent, ask, program, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { service, workload } from "../kit/mesh-records.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { ECHO_PORT, HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

setDefaultTimeout(60_000);

const CONCURRENCY = 16;
/** First packets of connections that were sent again, after a second: what met a listener on its way out. */
async function synsSentAgain(pod: Workload): Promise<number> {
  const lines = (await pod.run(["cat", "/proc/net/netstat"])).stdout.split("\n").filter((line) => line.startsWith("TcpExt:")).map((line) => line.split(" "));
  const at = lines[0]!.indexOf("TCPSynRetrans");
  if (at < 0) throw new Error("the kernel does not count TCPSynRetrans");
  return Number(lines[1]![at]);
}

/** Connections of one storm: some seconds of them, so that the change falls into it. */
const STORM = 3_000;

describeUnless(unsealed)("a surge upgrade", () => {
  let network: MeshNetwork;
  let control: TestControlPlane;
  let east: Node;
  let west: Node;
  let front: Workload;
  let web: Workload;
  const running = new Set<Agent>();
  let agentOfClients: Agent;

  const ztunnel = (node: Node, generation: number): Agent =>
    // In a cluster each has a network namespace of its own; what it does for the pods happens in theirs.
    control.agent("ztunnel", node.workload(`agent-${node.name}-${generation}`), { INPOD_UDS: control.cni(node).path, NODE_NAME: node.name, CONNECTION_TERMINATION_DEADLINE: "10s" });
  const start = async (agent: Agent): Promise<Agent> => {
    running.add(agent);
    await agent.start();
    return agent;
  };

  beforeAll(async () => {
    network = MeshNetwork.create();
    const hub = network.node("hub");
    [east, west] = [network.node("east"), network.node("west")];
    [front, web] = [east.workload("front"), west.workload("web")];
    await Promise.all([serve(web, "http", HTTP_PORT, "web"), serve(web, "echo", ECHO_PORT)]);
    control = await TestControlPlane.start(hub);
    control.publish({ services: [service({ name: "web", vips: ["198.18.250.70"] })], workloads: [front, web].map((pod) => workload({ name: pod.name, serviceAccount: pod.name, node: pod.node.name, addresses: pod.addresses, workloadType: "pod" })) });
    await control.cni(east).add(front);
    await control.cni(west).add(web);
  }, 60_000);

  afterAll(async () => {
    await Promise.all([...running].map((agent) => agent.kill()));
    await control?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("of the node of clients, then of the node of servers, under load", async () => {
    let [clients, servers] = await Promise.all([start(ztunnel(east, 1)), start(ztunnel(west, 1))]);
    await until("the first answer", 10_000, async () => (await ask(front, "get", urlOf(web.ipv4, HTTP_PORT))).startsWith("200"));
    for (const node of [east, west]) {
      const next = await start(ztunnel(node, 2));
      const storm = front.run(program("storm", web.ipv4, ECHO_PORT, STORM, CONCURRENCY));
      await until("the storm to have begun", 10_000, async () => (await (node === east ? clients : servers).metric("istio_tcp_connections_opened_total")) > CONCURRENCY);
      const ended = (node === east ? clients : servers).stop();
      const { stdout, stderr } = await storm;
      expect(`${stdout.trim().split("\n").at(-1)}${stderr}`).toBe(`ok ${STORM}`);
      expect(await ended).toBe(0);
      if (node === east) clients = next;
      else servers = next;
    }
    expect(await ask(front, "get", urlOf(web.ipv4, HTTP_PORT))).toStartWith("200 web to ");
    agentOfClients = clients;
  });

  test("of a node whose pods ask for names by TCP, at resolvers of either family: each is answered", async () => {
    let present = agentOfClients;
    for (let generation = 3; generation < 6; generation++) {
      const next = await start(ztunnel(east, generation));
      const before = await present.metric("istio_dns_requests_total");
      const storm = front.run(program("questions", "web.shop.svc.cluster.local", STORM, CONCURRENCY, "198.51.100.53", ...(front.ipv6 === null ? [] : ["2001:db8::53"])));
      await until("the questions to have begun", 10_000, async () => (await present.metric("istio_dns_requests_total")) > before + CONCURRENCY);
      const ended = present.stop();
      const { stdout, stderr } = await storm;
      expect(`${stdout.trim().split("\n").at(-1)}${stderr}`).toBe(`ok ${STORM}`);
      expect(await ended).toBe(0);
      present = next;
    }
    agentOfClients = present;
  });

  test("and the next one at once, while the one before is still on its way out: no connection is refused or lost", async () => {
    const second = await start(ztunnel(east, 6));
    const sentAgain = await synsSentAgain(front);
    let storming = true;
    const storms = (async (): Promise<string[]> => {
      const wrong: string[] = [];
      while (storming) {
        const { stdout, stderr } = await front.run(program("storm", web.ipv4, ECHO_PORT, STORM, CONCURRENCY));
        const said = `${stdout.trim().split("\n").at(-1)}${stderr}`;
        if (said !== `ok ${STORM}`) wrong.push(said);
      }
      return wrong;
    })();
    await until("the storm to have begun", 10_000, async () => (await second.metric("istio_tcp_connections_opened_total")) > CONCURRENCY);
    // The third comes before the first has closed its listeners, and the second goes as soon as the third is ready.
    const firstEnded = agentOfClients.stop();
    const third = await start(ztunnel(east, 7));
    const secondEnded = second.stop();
    expect([await firstEnded, await secondEnded]).toEqual([0, 0]);
    storming = false;
    expect(await storms).toEqual([]);
    expect(await synsSentAgain(front) - sentAgain).toBe(0);
    agentOfClients = third;
  });

  test("a next one that is taken back leaves everything to the one before", async () => {
    const next = await start(ztunnel(east, 8));
    const [before, sentAgain] = [await next.metric("istio_tcp_connections_opened_total"), await synsSentAgain(front)];
    const storm = front.run(program("storm", web.ipv4, ECHO_PORT, STORM, CONCURRENCY));
    await until("the storm to have begun", 10_000, async () => (await next.metric("istio_tcp_connections_opened_total")) > before + CONCURRENCY);
    const ended = next.stop();
    const { stdout, stderr } = await storm;
    expect(`${stdout.trim().split("\n").at(-1)}${stderr}`).toBe(`ok ${STORM}`);
    expect(await ended).toBe(0);
    expect(await synsSentAgain(front) - sentAgain).toBe(0);
  });

  test("the next one is not ready while it has no certificate for the pods of its node: the present one is not told to end", async () => {
    const place = east.workload("agent-east-late");
    const late = new URL(control.environmentOf(place)["CA_ADDRESS"]!);
    const caAt = `TCP:${late.host}`;
    late.port = String(Number(late.port) + 1000);
    const next = control.agent("ztunnel", place, { INPOD_UDS: control.cni(east).path, NODE_NAME: east.name, CA_ADDRESS: late.origin });
    const readiness = async (): Promise<string> => ask(place, "get", "http://127.0.0.1:15021/healthz/ready").catch(String);
    const started = start(next);
    await next.logged(/front is in the mesh/, 0, 30_000);
    await until("it says what it waits for", 10_000, async () => /certificates: waiting for the CA's answer about spiffe:\S+\/sa\/front/.test(await readiness()));
    const way = control.hub.exec(["socat", `TCP-LISTEN:${late.port},fork,reuseaddr`, caAt]);
    await started;
    expect(await readiness()).toStartWith("200");
    way.kill();
    await way.exited;
  });
});
