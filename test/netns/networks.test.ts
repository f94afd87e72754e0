// Two networks with a gateway between them: double HBONE from our agent, through a gateway that is not ours, to our agent. All of it
// from YAML. The namespaces of both networks can reach each other here, so what shows the path is the gateway's own book.

import { afterAll, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { type IpAddress, parseIp } from "../../src/core/ip.ts";
import { parseTrustDomain, type SpiffeId, spiffeId } from "../../src/core/spiffe.ts";
import { ATTEMPTS_MAX } from "../../src/ztunnel/outbound.ts";
import { INNER_TUNNELS_SPREAD } from "../../src/tunnel/pool.ts";
import { promised } from "../kit/fair-time.ts";
import { unsealed } from "../kit/box.ts";
import { EastWestGateway } from "../kit/east-west-gateway.ts";
import { issueSvid, SilentServer } from "../kit/hbone-peer.ts";
import { type Agent, ask, documents, entryYaml, Mesh, namespaceYaml, program, serve, serviceYaml } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { CHANGE_MS, ECHO_PORT, FAREWELL_PORT, GREETER_PORT, GREETING, HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

/** On a machine that is busy; what must be quick has a limit of its own. */
setDefaultTimeout(60_000);

const VIP = "198.18.250.20";
const HTTP = 80;
const ECHO = 90;
const GREETER = 91;
const FAREWELL = 92;
const REFUSED = 99;
const HOSTNAME = "web.shop.svc.cluster.local";
const HTTP2_TIMEOUT_MS = 1_000;
const NAMED = "named.example";
const NAMED_VIP = "198.18.250.21";
const STREAM_BYTES = 32 * 1024 * 1024;

describeUnless(unsealed)("two networks", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let east: Node;
  let west: Node;
  let client: Workload;
  let far: Workload;
  let further: Workload;
  /** In the mesh, on the far network, and no endpoint of the service. */
  let impostor: Workload;
  /** Known to no configuration: a peer of ours in the test's own process. */
  let mute: Workload;
  let gate: Workload;
  let gateway: EastWestGateway;
  let endpoints: readonly IpAddress[];

  const identity = (name: string, namespace = "shop"): SpiffeId => spiffeId(parseTrustDomain("cluster.local")!, namespace, name);
  const get = () => ask(client, "get", urlOf(VIP, HTTP));
  const openGateway = () => EastWestGateway.listen(gate, issueSvid(mesh, identity("east-west", "istio-system")), () => endpoints);
  const gatewayYaml = (serviceAccount: string): string => JSON.stringify({
    apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway",
    metadata: { name: "to-n2", namespace: "istio-system", labels: { "topology.istio.io/network": "n2" }, annotations: { "gateway.istio.io/service-account": serviceAccount } },
    spec: { gatewayClassName: "istio-remote", addresses: [{ value: gate.ipv4 }], listeners: [{ name: "cross-network", port: 15008, protocol: "HBONE" }] },
  });
  /** Of east's agent, for connections that failed. */
  const outbound = async (mark: number, close: string) => (await mesh.agent(east).connections({ direction: "outbound", close }, mark))[0]!;
  const dropTunnels = async (agent: Agent) => {
    gateway.cut();
    await until("the tunnels to be gone", 2_000, async () => (await agent.metric("weft_tunnels_open", { direction: "outbound" })) === 0);
  };

  beforeAll(async () => {
    network = MeshNetwork.create();
    [east, west] = [network.node("east"), network.node("west")];
    client = east.workload("client");
    mute = west.workload("mute");
    [far, further, impostor, gate] = [west.workload("far"), west.workload("further"), west.workload("impostor"), west.workload("gate")];
    for (const server of [far, further, impostor]) {
      await Promise.all([serve(server, "http", HTTP_PORT, server.name), serve(server, "echo", ECHO_PORT), serve(server, "greeter", GREETER_PORT, GREETING)]);
    }
    const networkOf = (node: Node): string => (node === east ? "n1" : "n2");
    mesh = Mesh.create({ nodes: [east, west], flags: ["--http2-timeout", `${HTTP2_TIMEOUT_MS}ms`], flagsOf: (node) => ["--network", networkOf(node)] });
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true),
      entryYaml(client, { network: "n1" }), entryYaml(impostor, { network: "n2" }),
      // The far network knows who its gateway is, and must not take it for the sender.
      entryYaml(gate, { network: "n2", labels: { "istio.io/dataplane-mode": "none" } }),
      ...[far, further].map((server) => entryYaml(server, { network: "n2", app: "web", serviceAccount: "web" })),
      serviceYaml("web", { clusterIPs: [VIP], ports: { [HTTP]: HTTP_PORT, [ECHO]: ECHO_PORT, [GREETER]: GREETER_PORT, [FAREWELL]: FAREWELL_PORT, [REFUSED]: 8999 } }),
    ));
    mesh.write("gateway.yaml", gatewayYaml("east-west"));
    await mesh.start();
    await mesh.agent(east).logged(/\/shop\/client is in the mesh/);
    for (const name of ["far", "further", "impostor"]) await mesh.agent(west).logged(new RegExp(`/shop/${name} is in the mesh`));
    endpoints = [parseIp(far.ipv4)!];
    gateway = await openGateway();
  }, 60_000);

  afterAll(async () => {
    gateway?.[Symbol.dispose]();
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  beforeEach(() => void (endpoints = [parseIp(far.ipv4)!]));

  test("a service on the other network: through the gateway, by its name, with both identities, and the sender told by its baggage", async () => {
    const marks = [mesh.agent(east).mark(), mesh.agent(west).mark()] as const;
    expect(await get()).toBe(`200 far to ${gate.ipv4}`);
    expect(gateway.connects).toContain(`${HOSTNAME}:${HTTP}`);
    expect(new Set(gateway.callers)).toEqual(new Set([identity("client")]));
    const [sent] = await mesh.agent(east).connections({ direction: "outbound", "dst.service": HOSTNAME }, marks[0]);
    expect([sent!["dst.addr"], sent!["dst.identity"], sent!["close"]]).toEqual([`${gate.ipv4}:15008`, identity("web"), "clean"]);
    const [received] = await mesh.agent(west).connections({ direction: "inbound", "dst.workload": "far" }, marks[1]);
    expect([received!["src.workload"], received!["src.namespace"], received!["src.identity"]]).toEqual(["client", "shop", identity("client")]);
    expect(received!["src.addr"]).toStartWith(`${gate.ipv4}:`);
    const labels = { reporter: "destination", source_workload: "client", source_workload_namespace: "shop", source_principal: identity("client"), destination_workload: "far" };
    expect(await mesh.agent(west).metric("istio_tcp_connections_opened_total", labels)).toBe(1);
  });

  test("bytes both ways at once, intact, and our end first", async () => {
    const { stdout } = await client.run(program("stream", VIP, ECHO, STREAM_BYTES));
    expect(stdout.trim().split("\n").at(-1)).toStartWith(`ok ${STREAM_BYTES} `);
  }, 60_000);

  test("a server that speaks first, and one that ends first and still hears the answer", async () => {
    expect(await ask(client, "read", VIP, GREETER)).toBe(GREETING);
    const app = far.exec(program("farewell", FAREWELL_PORT, "that is all"), { stderr: "inherit" });
    await far.listening(FAREWELL_PORT);
    const lines = (app.stdout as ReadableStream<Uint8Array>).getReader();
    expect(await ask(client, "afterwards", VIP, FAREWELL, "thanks")).toBe("ok that is all");
    let heard = "";
    while (!heard.includes("heard")) heard += Buffer.from((await lines.read()).value!).toString();
    expect(heard).toContain("heard thanks");
  });

  test("connections share a few tunnels inside one, which end at different endpoints", async () => {
    await dropTunnels(mesh.agent(east));
    endpoints = [parseIp(far.ipv4)!, parseIp(further.ipv4)!];
    const before = { connects: gateway.connects.length, opened: await mesh.agent(east).metric("weft_tunnels_opened_total", { direction: "outbound" }) };
    const answers = new Map<string, number>();
    for (let i = 0; i < 24; i++) {
      const answer = await get();
      answers.set(answer, (answers.get(answer) ?? 0) + 1);
    }
    expect([...answers.keys()].sort()).toEqual([`200 far to ${gate.ipv4}`, `200 further to ${gate.ipv4}`]);
    for (const count of answers.values()) expect(count).toBeGreaterThanOrEqual(6);
    expect(gateway.connects.length - before.connects).toBe(INNER_TUNNELS_SPREAD);
    expect((await mesh.agent(east).metric("weft_tunnels_opened_total", { direction: "outbound" })) - before.opened).toBe(INNER_TUNNELS_SPREAD + 1);
  });

  test("an endpoint of another identity than the service's is refused, whoever the gateway chose; the gateway is not blamed", async () => {
    await dropTunnels(mesh.agent(east));
    endpoints = [parseIp(impostor.ipv4)!];
    const mark = mesh.agent(east).mark();
    expect(await get()).toStartWith("failed");
    const line = await outbound(mark, "identity_refused");
    expect(line["error"]).toContain(`through the gateway ${gate.ipv4}:15008`);
    expect(line["error"]).toContain(identity("impostor"));
    expect(await mesh.agent(east).metric("weft_endpoints_ejected")).toBe(0);
    // One of several: another choice is asked for before the application hears of it.
    endpoints = [parseIp(impostor.ipv4)!, parseIp(far.ipv4)!];
    expect(await get()).toBe(`200 far to ${gate.ipv4}`);
  });

  test("a far workload that finishes TLS and stays silent is given up after the HTTP/2 limit, with the cause", async () => {
    await dropTunnels(mesh.agent(east));
    using silent = await SilentServer.listen(mute, issueSvid(mesh, identity("web")));
    endpoints = [parseIp(mute.ipv4)!];
    const mark = mesh.agent(east).mark();
    expect(await get()).toStartWith("failed");
    expect((await outbound(mark, "http2_failed"))["error"]).toContain(`through the gateway ${gate.ipv4}:15008: TLS succeeded, but no SETTINGS came within ${HTTP2_TIMEOUT_MS} ms`);
    expect(silent.accepted).toBe(ATTEMPTS_MAX);
    // Given up, not only forgotten: the gateway's connections to it end too.
    await until("the silent ones to be let go", 2_000, () => silent.ended === silent.accepted);
  });

  test("where the service names identities, those alone may answer", async () => {
    const named = (subjectAltNames: readonly string[]): string => JSON.stringify({
      apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "named", namespace: "shop" },
      spec: { hosts: [NAMED], addresses: [NAMED_VIP], location: "MESH_INTERNAL", resolution: "STATIC", ports: [{ number: HTTP, name: "tcp", protocol: "TCP", targetPort: HTTP_PORT }], workloadSelector: { labels: { app: "web" } }, subjectAltNames },
    });
    const ask80 = () => ask(client, "get", urlOf(NAMED_VIP, HTTP));
    mesh.write("named.yaml", named([identity("web")]));
    try {
      await promised("the service to be reached", CHANGE_MS, async () => (await ask80()) === `200 far to ${gate.ipv4}`);
      expect(gateway.connects).toContain(`${NAMED}:${HTTP}`);
      const mark = mesh.agent(east).mark();
      mesh.write("named.yaml", named([identity("somebody-else")]));
      await promised("the endpoint to be refused", CHANGE_MS, async () => (await ask80()).startsWith("failed"));
      const line = await outbound(mark, "identity_refused");
      expect(line["error"]).toContain(identity("web"));
      expect(line["error"]).toContain(identity("somebody-else"));
    } finally {
      mesh.remove("named.yaml");
    }
  });

  test("an application that is not there is said to be so; a gateway that reaches nobody too", async () => {
    const mark = mesh.agent(east).mark();
    expect(await ask(client, "get", urlOf(VIP, REFUSED))).toStartWith("failed");
    expect((await outbound(mark, "destination_refused"))["error"]).toContain("the destination could not reach its application");
    endpoints = [];
    await dropTunnels(mesh.agent(east));
    const later = mesh.agent(east).mark();
    expect(await get()).toStartWith("failed");
    expect((await outbound(later, "destination_refused"))["error"]).toContain("the gateway reached no endpoint of the service");
  });

  test("a policy of the destination is judged with the sender's identity", async () => {
    const deny = JSON.stringify({
      apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "under-test", namespace: "shop" },
      spec: { action: "DENY", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/client"] } }] }] },
    });
    expect(await get()).toStartWith("200");
    mesh.write("policy.yaml", deny);
    try {
      await promised("the policy to be in force", CHANGE_MS, async () => (await get()).startsWith("failed"));
      // The one before may have been cut half-way, as the policy came.
      const mark = mesh.agent(east).mark();
      expect(await get()).toStartWith("failed");
      expect((await outbound(mark, "policy_denied"))["error"]).toContain("401");
    } finally {
      mesh.remove("policy.yaml");
      await promised("the policy to be gone", CHANGE_MS, async () => (await get()).startsWith("200"));
    }
  });

  test("a gateway of another identity than configured is refused before anything is said to it", async () => {
    const mark = mesh.agent(east).mark();
    const connects = gateway.connects.length;
    mesh.write("gateway.yaml", gatewayYaml("somebody-else"));
    try {
      await promised("the wrong gateway to be refused", CHANGE_MS, async () => (await get()).startsWith("failed"));
      const line = await outbound(mark, "identity_refused");
      expect(line["error"]).toContain(identity("east-west", "istio-system"));
      expect(line["error"]).toContain(identity("somebody-else", "istio-system"));
      expect(await get()).toStartWith("failed");
      expect(gateway.connects.length).toBeLessThanOrEqual(connects + INNER_TUNNELS_SPREAD);
    } finally {
      mesh.write("gateway.yaml", gatewayYaml("east-west"));
      await promised("the gateway to be accepted again", CHANGE_MS, async () => (await get()).startsWith("200"));
    }
  });

  test("without a Gateway the service is refused, with the reason", async () => {
    const mark = mesh.agent(east).mark();
    mesh.remove("gateway.yaml");
    try {
      await promised("the service to be refused", CHANGE_MS, async () => (await get()).startsWith("failed"));
      expect((await outbound(mark, "no_endpoint"))["error"]).toContain("on another network without a gateway");
    } finally {
      mesh.write("gateway.yaml", gatewayYaml("east-west"));
      await promised("the gateway to be back", CHANGE_MS, async () => (await get()).startsWith("200"));
    }
  });

  test("a gateway that dies ends what goes through it, with the cause, and is used again when it is back", async () => {
    const mark = mesh.agent(east).mark();
    const live = client.exec(program("talk", VIP, ECHO), { stderr: "inherit" });
    const reader = (live.stdout as ReadableStream<Uint8Array>).getReader();
    expect(Buffer.from((await reader.read()).value!).toString()).toContain("beat 1");
    gateway[Symbol.dispose]();
    let heard = "";
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) heard += Buffer.from(chunk.value).toString();
    expect(heard).toContain("ended");
    expect((await outbound(mark, "tunnel_lost"))["dst.service"]).toBe(HOSTNAME);
    gateway = await openGateway();
    expect(await get()).toStartWith("200");
  });
});
