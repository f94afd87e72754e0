// What the waypoints of a node tell: spans of a request that went client ─▶ ztunnel ─▶ waypoint ─▶ ztunnel ─▶ server, in a collector on the
// node's own network, which is where the node's main thread sends from.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { unsealed } from "../kit/box.ts";
import { documents, entryYaml, Mesh, namespaceYaml, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { describeUnless } from "../kit/skip.ts";

setDefaultTimeout(60_000);

const VIP = "198.18.250.10";
const GRPC_PORT = 4317;
const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";

/** Prints each span as a line of JSON. */
const COLLECTOR = (address: string): string => `
  const { OtlpCollectorServer } = await import(${JSON.stringify(join(import.meta.dir, "../kit/otlp-collector.ts"))});
  const server = await OtlpCollectorServer.start(${JSON.stringify(address)}, { http: 4318, grpc: ${GRPC_PORT} });
  console.log("listening");
  setInterval(() => { for (const { traceId, kind, attributes, resource } of server.spans.splice(0)) console.log(JSON.stringify({ traceId, kind, attributes, resource })); }, 20);
`;

interface Span {
  readonly traceId: string;
  readonly kind: string;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly resource: Readonly<Record<string, unknown>>;
}

describeUnless(unsealed)("a waypoint of a node and a collector", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let node: Node;
  let client: Workload;
  let printed = "";

  beforeAll(async () => {
    network = MeshNetwork.create();
    node = network.node("east");
    const web = node.workload("web");
    client = node.workload("client");
    const waypoint = node.workload("waypoint");
    mesh = Mesh.create({ nodes: [node] });
    await serve(web, "http", 8080, "web");
    const collector = node.exec([process.execPath, "-e", COLLECTOR(node.ipv4)], { stderr: "inherit" });
    void (async () => {
      for await (const chunk of collector.stdout as ReadableStream<Uint8Array>) printed += Buffer.from(chunk).toString();
    })();
    await until("the collector to listen", 10_000, () => printed.includes("listening"));
    const json = (value: object): string => JSON.stringify(value);
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(client), entryYaml(web), entryYaml(waypoint, { labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "waypoint" } }),
      json({ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } }),
      json({ apiVersion: "v1", kind: "Service", metadata: { name: "web", namespace: "shop", labels: { "istio.io/use-waypoint": "waypoint" } }, spec: { clusterIP: VIP, selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: 8080 }] } }),
      json({ apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "otel", namespace: "shop" }, spec: { hosts: ["otel.example"], addresses: ["198.18.250.20"], ports: [{ number: GRPC_PORT, name: "grpc", protocol: "GRPC" }], resolution: "STATIC", location: "MESH_EXTERNAL", endpoints: [{ address: node.ipv4 }] } }),
      json({ apiVersion: "weft.dev/v1alpha1", kind: "TrafficPolicy", metadata: { name: "web", namespace: "shop" }, spec: { targetRefs: [{ kind: "Service", name: "web" }], limits: { idleTimeout: "500ms" } } }),
    ));
    mesh.write("tracing.yaml", json({ apiVersion: "weft.dev/v1alpha1", kind: "MeshConfig", metadata: { name: "mesh", namespace: "istio-system" }, spec: { extensionProviders: [{ name: "otel", opentelemetry: { service: "shop/otel.example", port: GRPC_PORT } }], defaultProviders: { tracing: ["otel"] } } }));
    await mesh.start();
    await mesh.agent(node).logged(/the waypoint shop\/waypoint as .* serves/, 0, 20_000);
    await mesh.agent(node).logged(/shop\/client is in the mesh/, 0, 20_000);
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("a request's spans arrive, with both ends by name and identity; what was exported is in the node's metrics", async () => {
    const get = async (path: string): Promise<string> => (await client.run(["curl", "-sS", "--max-time", "5", "-H", `traceparent: 00-${TRACE}-00f067aa0ba902b7-01`, `http://${VIP}${path}`])).stdout;
    await until("an answer through the waypoint", 10_000, async () => (await get("/first")).startsWith("web to"));
    await get("/told");
    const [server, attempt] = await until("the spans", 15_000, () => {
      const spans = printed.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Span);
      const own = spans.find(({ kind, attributes }) => kind === "server" && attributes["url.path"] === "/told");
      return own === undefined ? null : [own, spans.find(({ kind }) => kind === "client")!] as const;
    });
    expect(server.traceId).toBe(TRACE);
    expect(server.resource).toMatchObject({ "service.name": "waypoint.shop" });
    expect(server.attributes).toMatchObject({
      source_workload: "client", source_principal: "spiffe://cluster.local/ns/shop/sa/client", destination_workload: "web", destination_principal: "spiffe://cluster.local/ns/shop/sa/web",
      destination_service: "web.shop.svc.cluster.local", "http.response.status_code": 200,
    });
    expect(attempt.attributes).toMatchObject({ "weft.attempt": 1 });
    // The collector has a call before it answers it.
    await until("the call to be counted", 5_000, async () => (await mesh.agent(node).metric("weft_otlp_exports_total", { collector: "otel", signal: "traces", outcome: "ok" })) > 0);
  });

  test("the node's /config_dump has the L7 configuration, and /clusters its waypoint's endpoints", async () => {
    const admin = async (path: string): Promise<string> => (await node.run(["curl", "-sS", `http://127.0.0.1:15000${path}`])).stdout;
    const dump = JSON.parse(await admin("/config_dump")) as { waypoints: { name: string }[]; waypointState: Record<string, { threads: { clusters: { name: string }[] }[]; certificates: { state: string }[] }>; telemetry: object[] };
    expect(dump.waypoints.map(({ name }) => name)).toEqual(["waypoint"]);
    expect(dump.telemetry).toHaveLength(1);
    const [state] = Object.values(dump.waypointState);
    expect(state!.certificates[0]).toMatchObject({ state: "Available" });
    expect(JSON.stringify(dump)).not.toContain("PRIVATE KEY");
    expect(await admin("/clusters")).toMatch(/^shop\/web\.shop\.svc\.cluster\.local:80::[0-9.]+:8080::health_flags::unchecked$/m);
  });

  test("one trace id leads from the client's proxy to the endpoint's", async () => {
    const agent = mesh.agent(node);
    const get = async (path: string, ...more: readonly string[]): Promise<string> => (await client.run(["curl", "-sS", "--max-time", "5", ...more, `http://${VIP}${path}`])).stdout;
    const lineOf = (path: string) => until(`the line of ${path}`, 5_000, () => agent.requestsSoFar().find((line) => line["path"] === path) ?? null);
    const inbound = { direction: "inbound", "src.workload": "waypoint", "dst.workload": "web" };
    // No connection of another test is left.
    await until("the endpoint's connections to have ended", 10_000, async () => (await agent.metric("istio_tcp_connections_opened_total", { reporter: "destination", destination_workload: "web" })) === (await agent.metric("istio_tcp_connections_closed_total", { reporter: "destination", destination_workload: "web" })));
    let mark = agent.log.length;
    const first = "1".repeat(32);
    await get("/one", "-H", `traceparent: 00-${first}-00f067aa0ba902b7-00`);
    await get("/two", "-H", `traceparent: 00-${"2".repeat(32)}-00f067aa0ba902b7-00`);
    const [one, two] = [await lineOf("/one"), await lineOf("/two")];
    expect([one["trace_id"], one["dst.trace_id"], two["trace_id"], two["dst.trace_id"]]).toEqual([first, undefined, "2".repeat(32), first]);
    await agent.connections({ direction: "outbound", "src.workload": "client", trace_id: one["src.trace_id"]! }, mark);
    await agent.connections({ direction: "outbound", "src.workload": "client", trace_id: two["src.trace_id"]! }, mark);
    await agent.connections({ ...inbound, trace_id: first }, mark);
    expect(one["src.trace_id"]).not.toBe(two["src.trace_id"]);
    // A trace that begins at the waypoint.
    mark = agent.log.length;
    await get("/three");
    const three = await lineOf("/three");
    await agent.connections({ ...inbound, trace_id: three["trace_id"]! }, mark);
    await agent.connections({ direction: "outbound", "src.workload": "client", trace_id: three["src.trace_id"]! }, mark);
    // And one that nobody reports: the id of the client's own connection goes on.
    mesh.remove("tracing.yaml");
    let n = 0;
    const untraced = await until("requests to be part of no trace", 10_000, async () => {
      const path = `/four/${++n}`;
      await get(path);
      const line = await lineOf(path);
      return line["src.trace_id"] === undefined ? line : null;
    });
    await agent.connections({ direction: "outbound", "src.workload": "client", trace_id: untraced["trace_id"]! }, mark);
    await agent.connections({ ...inbound, trace_id: untraced["dst.trace_id"] ?? untraced["trace_id"]! }, mark);
  });
});
