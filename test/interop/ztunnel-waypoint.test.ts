// Clients of the reference ztunnel through a waypoint of ours: to a service, and to a workload by its own address. Runs where ZTUNNEL_BIN
// names a ztunnel.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { documents, entryYaml, Mesh, namespaceYaml, policyYaml, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";
import { needsZtunnel, ReferenceZtunnel } from "./reference-ztunnel.ts";

setDefaultTimeout(60_000);

const VIP = "198.18.250.40";
const HTTP_PORT = 8080;
const GREETER_PORT = 9000;
const PORTS = { 80: HTTP_PORT, 90: GREETER_PORT };

describeUnless(firstReason(unsealed, needsZtunnel))("the reference ztunnel and a waypoint", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let east: Node;
  let theirs: Workload;
  let server: Workload;
  let ztunnel: ReferenceZtunnel;

  const object = (apiVersion: string, kind: string, name: string, spec: object, labels: object = {}): string => JSON.stringify({ apiVersion, kind, metadata: { name, namespace: "shop", labels }, spec });
  const curl = async (...args: string[]): Promise<string> => (await theirs.run(["curl", "-sS", "--max-time", "5", ...args])).stdout;
  const status = (url: string): Promise<string> => curl("-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", url);

  beforeAll(async () => {
    network = MeshNetwork.create();
    east = network.node("east");
    const west = network.node("west");
    const waypoint = east.workload("waypoint");
    [server, theirs] = [east.workload("server"), west.workload("theirs")];
    await Promise.all([serve(server, "http", HTTP_PORT, "server"), serve(server, "greeter", GREETER_PORT, "hello")]);
    mesh = Mesh.create({ nodes: [east] });
    const bound = { "istio.io/use-waypoint": "waypoint" };
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(server, { labels: bound }), entryYaml(theirs, { labels: { "networking.istio.io/tunnel": "http" } }),
      entryYaml(waypoint, { labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "waypoint" } }),
      object("gateway.networking.k8s.io/v1", "Gateway", "waypoint", { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] }, { "istio.io/waypoint-for": "all" }),
      object("v1", "Service", "web", { clusterIP: VIP, selector: { app: "server" }, ports: [{ name: "http", port: 80, targetPort: HTTP_PORT }, { name: "tcp", port: 90, targetPort: GREETER_PORT }] }, bound),
      policyYaml("AuthorizationPolicy", {
        targetRefs: [{ group: "gateway.networking.k8s.io", kind: "Gateway", name: "waypoint" }], action: "DENY",
        rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/theirs"] } }], to: [{ operation: { paths: ["/closed"], ports: ["80", String(HTTP_PORT)] } }] }],
      }),
    ));
    await mesh.start();
    await mesh.agent(east).logged(/\/shop\/server is in the mesh/);
    await mesh.agent(east).logged(/the waypoint shop\/waypoint as .* serves/);
    ztunnel = await ReferenceZtunnel.start(mesh, theirs, {
      workloads: [{ workload: server, services: { "shop/web.shop.svc.cluster.local": PORTS }, waypoint }, { workload: waypoint, services: {} }, { workload: theirs, services: {} }],
      services: { "shop/web.shop.svc.cluster.local": { vips: [VIP], ports: PORTS, waypoint } }, deniedPorts: [],
    });
  }, 60_000);

  afterAll(async () => {
    await ztunnel?.[Symbol.asyncDispose]();
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("requests to a service: judged by the client's own identity", async () => {
    expect(await until("an answer", 10_000, async () => (await curl(`http://${VIP}/open`)) || null)).toStartWith("server to");
    expect(await status(`http://${VIP}/closed`)).toBe("403 access_denied");
    const line = await until("its line", 5_000, () => mesh.agent(east).requestsSoFar().find((each) => each["path"] === "/open"));
    expect(line).toMatchObject({ "src.identity": "spiffe://cluster.local/ns/shop/sa/theirs", cluster: "shop/web.shop.svc.cluster.local:80" });
  });

  test("requests to a workload by its own address", async () => {
    expect(await curl(`http://${server.ipv4}:${HTTP_PORT}/direct`)).toStartWith("server to");
    expect(await status(`http://${server.ipv4}:${HTTP_PORT}/closed`)).toBe("403 access_denied");
    expect(await until("its line", 5_000, () => mesh.agent(east).requestsSoFar().find((each) => each["path"] === "/direct"))).toMatchObject({ "src.identity": "spiffe://cluster.local/ns/shop/sa/theirs" });
  });

  test("connections in which the server speaks first, to the service and to the workload", async () => {
    const read = async (to: string): Promise<string> => (await theirs.run(["sh", "-c", `timeout 3 curl -sS --max-time 1 telnet://${to} < /dev/null || true`])).stdout.trim();
    expect(await read(`${VIP}:90`)).toBe("hello");
    expect(await read(`${server.ipv4}:${GREETER_PORT}`)).toBe("hello");
  });
});
