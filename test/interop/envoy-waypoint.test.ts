// Our ztunnel and a waypoint that is Envoy, as Istio's are: tunnels from us to it, and from it to us. ENVOY_BIN names an Envoy.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { issueSvid } from "../kit/hbone-peer.ts";
import { ask, documents, entryYaml, Mesh, namespaceYaml, policyYaml, program, serve } from "../kit/mesh.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { parseTrustDomain, spiffeId } from "../../src/core/spiffe.ts";
import { EnvoyWaypoint, needsEnvoy } from "./envoy-waypoint.ts";

setDefaultTimeout(60_000);

const VIP = "198.18.250.41";
const HTTP_PORT = 8080;
const GREETER_PORT = 9000;
const ECHO_PORT = 9090;
const PORTS = [{ port: 80, targetPort: HTTP_PORT, http: true }, { port: 90, targetPort: GREETER_PORT, http: false }, { port: 91, targetPort: ECHO_PORT, http: false }];
const BYTES = 8_000_000;
const CONCURRENCY = 150;
const STORM = 2_000;
/** Longer than a handshake takes on a busy machine: Envoy cuts off what gets as old before it has said a word of HTTP/2. */
const TUNNEL_AGE = "3s";

const identity = (serviceAccount: string) => spiffeId(parseTrustDomain("cluster.local")!, "shop", serviceAccount);

describeUnless(firstReason(unsealed, needsEnvoy, needsProgram("curl")))("our ztunnel and Envoy as a waypoint", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let east: Node;
  let client: Workload;
  let server: Workload;
  let waypoint: Workload;
  let envoy: EnvoyWaypoint;

  const object = (apiVersion: string, kind: string, name: string, spec: object, labels: object = {}): string => JSON.stringify({ apiVersion, kind, metadata: { name, namespace: "shop", labels }, spec });
  const curl = (...args: readonly string[]) => client.run(["curl", "-sS", "--max-time", "20", ...args]);
  const storm = (): Promise<{ readonly stdout: string; readonly stderr: string }> => client.run(program("storm", VIP, 91, STORM, CONCURRENCY));

  beforeAll(async () => {
    network = MeshNetwork.create();
    east = network.node("east");
    const west = network.node("west");
    [client, server, waypoint] = [east.workload("client"), east.workload("server"), west.workload("waypoint")];
    await Promise.all([serve(server, "http", HTTP_PORT, "server"), serve(server, "greeter", GREETER_PORT, "hello"), serve(server, "echo", ECHO_PORT)]);
    mesh = Mesh.create({ nodes: [east] });
    const bound = { "istio.io/use-waypoint": "waypoint" };
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(client), entryYaml(server),
      entryYaml(waypoint, { labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "waypoint" } }),
      object("gateway.networking.k8s.io/v1", "Gateway", "waypoint", { gatewayClassName: "istio-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] }),
      object("v1", "Service", "web", { clusterIP: VIP, selector: { app: "server" }, ports: PORTS.map(({ port, targetPort, http }) => ({ name: `${http ? "http" : "tcp"}-${port}`, port, targetPort })) }, bound),
      // Istio's waypoints decide for the client; what is behind them takes it from them alone.
      policyYaml("AuthorizationPolicy", { selector: { matchLabels: { app: "server" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/waypoint"] } }] }] }),
    ));
    await mesh.start();
    await mesh.agent(east).logged(/\/shop\/server is in the mesh/);
    envoy = new EnvoyWaypoint({ place: waypoint, directory: mesh.directory, svid: issueSvid(mesh, identity("waypoint")), endpoint: { place: server, identity: identity("server") }, ports: PORTS, tunnelAge: TUNNEL_AGE });
    await envoy.start();
  }, 90_000);

  afterAll(async () => {
    await envoy?.[Symbol.asyncDispose]();
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("requests go through it", async () => {
    const { stdout } = await curl("-i", `http://${VIP}/`);
    expect(stdout).toMatch(/x-served-by: envoy/);
    expect(stdout).toContain(`server to ${waypoint.ipv4}`);
  });

  test("nobody else gets there", async () => {
    expect(await ask(client, "get", `http://${server.ipv4}:${HTTP_PORT}/`)).toStartWith("failed");
  });

  test("much of it, both ways", async () => {
    const { stdout } = await curl("-o", "/dev/null", "-w", "%{http_code} %{size_download}", `http://${VIP}/bytes/${BYTES}`);
    expect(stdout).toBe(`200 ${BYTES}`);
    const sent = new Uint8Array(BYTES).fill(0x62);
    const echoed = await client.run(["curl", "-sS", "--max-time", "20", "--data-binary", "@-", "-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", `http://${VIP}/echo`], { stdin: sent });
    expect(echoed.stdout).toBe(`200 ${BYTES}`);
    expect(await ask(client, "websocket", VIP, 80, 22)).toBe("ok 22");
  });

  test("a server that speaks first; each side of it knows the other", async () => {
    const mark = mesh.agent(east).mark();
    expect(await ask(client, "read", VIP, 90)).toBe("hello");
    const [out] = await mesh.agent(east).connections({ direction: "outbound", "dst.hbone_addr": `${VIP}:90` }, mark);
    expect(out).toMatchObject({ "src.identity": identity("client"), "dst.identity": identity("waypoint"), "dst.addr": `${waypoint.ipv4}:15008` });
    const [inbound] = await mesh.agent(east).connections({ direction: "inbound", "dst.hbone_addr": `${server.ipv4}:${GREETER_PORT}` }, mark);
    expect(inbound).toMatchObject({ "src.identity": identity("waypoint"), "dst.identity": identity("server"), "src.addr": expect.stringMatching(new RegExp(`^${waypoint.ipv4}:`)), decision: "allow" });
  });

  test("more connections than its tunnels take at once, while it gives up tunnels by GOAWAY: none is lost", async () => {
    const givenUp = (): Promise<number> => envoy.counter("http.connect_terminate.downstream_cx_max_duration_reached");
    const before = await givenUp();
    do {
      const { stdout, stderr } = await storm();
      expect(`${stdout.trim().split("\n").at(-1)}${stderr}`).toBe(`ok ${STORM}`);
    } while ((await givenUp()) === before);
  });

  test("it dies and comes again", async () => {
    await envoy.kill();
    expect(await ask(client, "get", `http://${VIP}/`)).toStartWith("failed");
    await envoy.start();
    await until("an answer", 10_000, async () => (await ask(client, "get", `http://${VIP}/`)).startsWith("200 server"));
  });
});
