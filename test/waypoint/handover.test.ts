// A waypoint replaced by another process while requests flow: no connection is refused, no request is lost, long ones go on to their own
// end. By itself, and as a part of a node.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { documents, entryYaml, Mesh, namespaceYaml, policyYaml, program, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { describeUnless } from "../kit/skip.ts";
import { backend1, type Backend } from "../kit/waypoint.ts";
import { ownAddresses, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(180_000);

const FULL = process.env["WEFT_TEST_LOAD"] === "full";
const REPLACEMENTS = FULL ? 20 : 3;

/** A program in a workload, or in this box, with what it says. */
function start(name: string, from: { exec: Workload["exec"] } | null, ...argv: readonly [string, ...(string | number)[]]) {
  const child = from === null ? Bun.spawn(program(...argv), { stdout: "pipe", stderr: "inherit" }) : from.exec(program(...argv), { stderr: "inherit" });
  const said = { text: "" };
  void (async () => {
    for await (const chunk of child.stdout as ReadableStream<Uint8Array>) said.text += Buffer.from(chunk).toString();
  })();
  return { name, child, said };
}

async function allWell(loads: readonly ReturnType<typeof start>[]): Promise<void> {
  for (const { name, child, said } of loads) {
    child.kill("SIGTERM");
    await child.exited;
    expect(`${name}: ${said.text.trimEnd().split("\n").at(-1)}`).toMatch(new RegExp(`^${name}: ok \\d{2,}$`));
  }
}

describe("weft waypoint", () => {
  const SERVER = "198.18.7.1";
  const URL_BASE = "http://127.0.0.1:8080";
  let server: Backend;
  let waypoint: WaypointProcess;
  const held: (() => void)[] = [];
  const yaml = (port: number): string => `${WAYPOINT_YAML}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: web, namespace: shop }
spec: { address: ${SERVER}, labels: { app: web }, serviceAccount: web }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { clusterIP: 198.18.250.1, selector: { app: web }, ports: [{ name: http, port: 80, targetPort: ${port} }] }
`;

  beforeAll(async () => {
    ownAddresses([SERVER]);
    server = await backend1((request, response) => {
      if (request.url === "/held") held.push(() => response.end("held"));
      else response.end("ok");
    }, SERVER);
    waypoint = await WaypointProcess.start({ yaml: { "shop.yaml": yaml(server.port) }, flags: ["--handover-drain", "300s", "--access-log", "off", "--serve", "127.0.0.1:8080=shop/web.shop.svc.cluster.local:80"] });
  });

  afterAll(async () => {
    await waypoint[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  /** Starts another one, and waits until it has the place. @returns the one before. */
  const replace = async (flags: readonly string[]): Promise<Bun.Subprocess> => {
    const before = waypoint.process;
    const successor = waypoint.spawn(flags);
    await until("the place to be taken", 20_000, () => {
      if (successor.exitCode !== null) throw new Error(`the successor ended with ${successor.exitCode}: ${waypoint.lastLog.slice(-2_000)}`);
      return waypoint.lastLog.includes("took the place of the running process");
    });
    await waypoint.ready();
    return before;
  };

  test(`under load, ${REPLACEMENTS} times: no request fails, one that lasts is answered by the process that began it`, async () => {
    const loads = [start("new connections", null, "load", `${URL_BASE}/`, 4), start("kept connections", null, "load-kept", `${URL_BASE}/`, 4), start("readiness", null, "load", "http://127.0.0.1:15021/healthz/ready", 1)];
    await until("every load to be going", 10_000, () => loads.every(({ said }) => said.text.includes("going")));
    const slow = fetch(`${URL_BASE}/held`);
    await until("the long request to arrive", 5_000, () => held.length > 0);
    const replaced: Bun.Subprocess[] = [];
    for (let i = 0; i < REPLACEMENTS; i++) replaced.push(await replace(["--workers", String(1 + (i % 2))]));
    await allWell(loads);
    expect(replaced[0]!.exitCode).toBeNull();
    held[0]!();
    expect(await (await slow).text()).toBe("held");
    for (const process of replaced) expect(await process.exited).toBe(0);
  });

  test("a second one without handover is refused with words that help, one that cannot come up changes nothing", async () => {
    const before = waypoint.process;
    const second = waypoint.spawn(["--no-handover"]);
    expect(await second.exited).toBe(1);
    expect(waypoint.lastLog).toMatch(/is in use by another weft \(process \d+ waypoint running\)/);
    const broken = waypoint.spawn(["--metrics-address", "127.0.0.1:8080"]);
    expect(await broken.exited).toBe(1);
    await until("the word about it", 5_000, () => waypoint.log.includes("the handover came to nothing, this process goes on"));
    expect(await (await fetch(`${URL_BASE}/`)).text()).toBe("ok");
    expect(before.exitCode).toBeNull();
    before.kill("SIGTERM");
    expect(await before.exited).toBe(0);
  });
});

describeUnless(unsealed)("a waypoint of a node", () => {
  const VIP = "198.18.250.10";
  let network: MeshNetwork;
  let mesh: Mesh;
  let node: Node;
  let client: Workload;
  let waypoint: Workload;

  beforeAll(async () => {
    network = MeshNetwork.create();
    node = network.node("east");
    const web = node.workload("web");
    [client, waypoint] = [node.workload("client"), node.workload("waypoint")];
    mesh = Mesh.create({ nodes: [node], flags: ["--handover-drain", "300s", "--access-log", "off"] });
    await serve(web, "http", 8080, "web");
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(client), entryYaml(web), entryYaml(waypoint, { labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "waypoint" } }),
      JSON.stringify({ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } }),
      JSON.stringify({ apiVersion: "v1", kind: "Service", metadata: { name: "web", namespace: "shop", labels: { "istio.io/use-waypoint": "waypoint" } }, spec: { clusterIP: VIP, selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: 8080 }] } }),
    ));
    await mesh.start();
    await mesh.agent(node).logged(/the waypoint shop\/waypoint as .* serves/, 0, 20_000);
    await mesh.agent(node).logged(/shop\/client is in the mesh/, 0, 20_000);
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  const get = async (...args: string[]): Promise<string> => (await client.run(["curl", "-sS", "--max-time", "5", ...args])).stdout;

  test(`under load, ${REPLACEMENTS} times: no request through it fails, and a new policy holds in the process that drains`, async () => {
    await until("an answer through the waypoint", 10_000, async () => (await get(`http://${VIP}/`)).startsWith("web to"));
    const loads = [start("new connections", client, "load", `http://${VIP}/`, 4), start("kept connections", client, "load-kept", `http://${VIP}/`, 4)];
    await until("every load to be going", 10_000, () => loads.every(({ said }) => said.text.includes("going")));
    const replaced: Bun.Subprocess[] = [];
    for (let i = 0; i < REPLACEMENTS; i++) replaced.push(await mesh.agent(node).replace(["--workers", String(1 + (i % 2))]));
    await allWell(loads);
    for (const process of replaced) expect(await process.exited).toBe(0);
    mesh.write("deny.yaml", policyYaml("AuthorizationPolicy", { targetRefs: [{ group: "", kind: "Service", name: "web" }], action: "DENY", rules: [{ to: [{ operation: { paths: ["/no"] } }] }] }));
    await until("the denial", 5_000, async () => (await get("-o", "/dev/null", "-w", "%{http_code}", `http://${VIP}/no`)) === "403");
    expect(await get(`http://${VIP}/`)).toStartWith("web to");
  });
});
