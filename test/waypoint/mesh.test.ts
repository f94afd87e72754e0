// A waypoint in the mesh: client ─▶ its ztunnel ─▶ waypoint ─▶ the server's ztunnel ─▶ server, between network namespaces on two nodes.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type AccessFields, documents, entryYaml, Mesh, namespaceYaml, policyYaml, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";

const VIP = "198.18.250.10";
const VIP6 = "2001:db8:250::10";
const URL = `http://${VIP}`;
const WEBSOCKET_SERVER = `Bun.serve({ port: 8081, hostname: "0.0.0.0", fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("no WebSocket")), websocket: { message: (ws, text) => ws.send("echo " + text) } })`;
const WEBSOCKET_CLIENT = `const ws = new WebSocket("ws://${VIP}:81/chat"); ws.onopen = () => ws.send("hi"); ws.onmessage = ({ data }) => { console.log(data); ws.close(1000); }; ws.onclose = ({ code }) => { console.log(code); process.exit(0); };`;

let network: MeshNetwork;
let mesh: Mesh;
let east: Node;
let west: Node;
let client: Workload;
let other: Workload;
let v1: Workload;
let v2: Workload;
let waypoint: Workload;
const log = (): string => mesh.agent(east).log;

const service = (name: string, vip: string | readonly string[], selector: object, labels: object = {}): string => JSON.stringify({
  apiVersion: "v1", kind: "Service", metadata: { name, namespace: "shop", labels },
  spec: { clusterIPs: [vip].flat(), selector, ports: [{ name: "http", port: 80, targetPort: 8080 }, { name: "http-ws", port: 81, targetPort: 8081 }, { name: "tcp-echo", port: 90, targetPort: 9000 }] },
});

const gateway = JSON.stringify({
  apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" },
  spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] },
});

const httpRoute = (rules: readonly object[]): string => JSON.stringify({
  apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: "web", namespace: "shop" },
  spec: { parentRefs: [{ group: "", kind: "Service", name: "web" }], rules },
});

beforeAll(async () => {
  network = MeshNetwork.create();
  [east, west] = [network.node("east"), network.node("west")];
  [client, other, waypoint, v1] = [east.workload("client"), east.workload("other"), east.workload("waypoint"), east.workload("v1")];
  v2 = west.workload("v2");
  mesh = Mesh.create({ nodes: [east, west] });
  await Promise.all([v1, v2].flatMap((place) => [serve(place, "http", 8080, place.name), serve(place, "echo", 9000)]));
  // One of the two endpoints has nobody at this port: the other is tried.
  v1.exec([process.execPath, "-e", WEBSOCKET_SERVER], { stdout: "ignore", stderr: "inherit" });
  await v1.listening(8081);
  mesh.write("shop.yaml", documents(
    namespaceYaml("shop", true),
    entryYaml(client), entryYaml(other), ...[v1, v2].map((workload) => entryYaml(workload, { labels: { role: "server" } })),
    entryYaml(waypoint, { labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "waypoint" } }),
    gateway, service("web", network.hasIpv6 ? [VIP, VIP6] : VIP, { role: "server" }, { "istio.io/use-waypoint": "waypoint" }), service("v1", "198.18.250.11", { app: "v1" }), service("v2", "198.18.250.12", { app: "v2" }),
  ));
  await mesh.start();
  for (const [node, names] of [[east, ["client", "other", "v1"]], [west, ["v2"]]] as const) for (const name of names) await mesh.agent(node).logged(new RegExp(`/shop/${name} is in the mesh`));
  await mesh.agent(east).logged(/the waypoint shop\/waypoint as .* serves/);
}, 60_000);

afterAll(async () => {
  await mesh[Symbol.asyncDispose]();
  await network[Symbol.asyncDispose]();
});

const curl = async (from: Workload, ...args: string[]): Promise<string> => (await from.run(["curl", "-sS", "--max-time", "5", ...args])).stdout;
const requests = (): AccessFields[] => mesh.agent(east).requestsSoFar();

async function under(name: string, yaml: string, settled: () => Promise<boolean>, body: () => Promise<void>): Promise<void> {
  mesh.write(name, yaml);
  try {
    await until("the change to be in force", 3_000, settled);
    await body();
  } finally {
    mesh.remove(name);
    await until("the change to be gone", 3_000, async () => (await Promise.all([1, 2, 3, 4, 5, 6].map(() => curl(other, `${URL}/gone`)))).some((text) => text.startsWith("v2 to")));
  }
}

describe("a service behind a waypoint", () => {
  test("answers through it; the waypoint knows the client, the server's agent sees the waypoint", async () => {
    const answer = await until("an answer", 10_000, async () => {
      const text = await curl(client, `${URL}/a`);
      return /^v[12] to /.test(text) ? text : null;
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}\nwaypoint: ${log().slice(-3000)}\neast: ${mesh.agent(east).log.slice(-3000)}`);
    });
    expect(answer).toMatch(/^v[12] to /);
    const line = await until("its line", 5_000, () => requests().find((line) => line["status"] === "200"));
    expect(line).toMatchObject({ method: "GET", path: "/a", authority: VIP, "src.identity": "spiffe://cluster.local/ns/shop/sa/client", "src.workload": "client", cluster: "shop/web.shop.svc.cluster.local:80" });
  });

  test("by its IPv6 address too: the name in the request is in brackets, and the client's own address is what a policy's range holds against", async () => {
    const url = `http://[${VIP6}]`;
    expect(await curl(client, "-g", `${url}/six`)).toMatch(/^v[12] to /);
    const line = await until("its line", 5_000, () => requests().find((each) => each["path"] === "/six"));
    expect(line).toMatchObject({ status: "200", authority: `[${VIP6}]`, "src.identity": "spiffe://cluster.local/ns/shop/sa/client", cluster: "shop/web.shop.svc.cluster.local:80" });
    const deny = policyYaml("AuthorizationPolicy", { targetRefs: [{ group: "", kind: "Service", name: "web" }], action: "DENY", rules: [{ from: [{ source: { ipBlocks: [`${client.ipv6}/128`] } }] }] });
    const status = (from: Workload, at: string) => curl(from, "-g", "-o", "/dev/null", "-w", "%{http_code}", at);
    await under("six.yaml", deny, async () => (await status(client, url)) === "403", async () => {
      expect([await status(client, URL), await status(other, url)]).toEqual(["200", "200"]);
    });
  });

  test("its endpoints see the waypoint, and can be closed to everybody else", async () => {
    const only = policyYaml("AuthorizationPolicy", { selector: { matchLabels: { app: "v2" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/waypoint"] } }] }] });
    await under("only.yaml", only, async () => (await curl(client, `http://${v2.ipv4}:8080/`)) === "", async () => {
      // Several at once: one after the other they would go to whichever of the two is quicker.
      await until("an answer of v2 through the waypoint", 5_000, async () => (await Promise.all([1, 2, 3, 4, 5, 6].map(() => curl(client, URL)))).some((text) => text.startsWith("v2 to")));
    });
  });

  test("endpoints whose policy denies the waypoint are asked once, and the answer says so", async () => {
    const nobody = policyYaml("AuthorizationPolicy", { selector: { matchLabels: { role: "server" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/nobody"] } }] }] });
    const denied = (path: string) => curl(client, "-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", URL + path);
    const linesOf = (path: string) => requests().filter((line) => line["path"] === path && line["reason"] === "endpoint_denied");
    // Until each node has the policy, a kept connection is closed by it and the request goes again: two attempts, and right so.
    const byBoth = async (): Promise<boolean> => {
      await Promise.all([1, 2, 3, 4, 5, 6].map(() => denied("/until-denied")));
      const by = new Set(linesOf("/until-denied").map((line) => line["dst.workload"]));
      return by.has("v1") && by.has("v2");
    };
    await under("nobody.yaml", nobody, byBoth, async () => {
      for (let i = 0; i < 3; i++) expect(await denied("/denied")).toBe("503 endpoint_denied");
      const lines = await until("a line of each", 5_000, () => {
        const told = linesOf("/denied");
        return told.length > 2 ? told : null;
      });
      for (const line of lines) expect([line["flags"], line["attempts"] ?? "1"]).toEqual(["UF", "1"]);
    });
  });

  test("an HTTPRoute by header, and by weight", async () => {
    const rules = [
      { matches: [{ headers: [{ name: "x-version", value: "two" }] }], backendRefs: [{ name: "v2", port: 80 }] },
      { backendRefs: [{ name: "v1", port: 80, weight: 0 }, { name: "v2", port: 80, weight: 0 }, { name: "v1", port: 80, weight: 1 }] },
    ];
    // Chance alone sends four to one of two endpoints often enough; not four and four as the rules say.
    const bothWays = async (): Promise<boolean> => {
      const [plain, two] = await Promise.all([[], ["-H", "x-version: two"]].map((flags) => Promise.all([1, 2, 3, 4].map(() => curl(client, ...flags, URL)))));
      return plain!.every((text) => text.startsWith("v1")) && two!.every((text) => text.startsWith("v2"));
    };
    await under("route.yaml", httpRoute(rules), bothWays, async () => {
      expect(await curl(client, "-H", "x-version: two", URL)).toMatch(/^v2 to /);
    });
  });

  test("an AuthorizationPolicy by method, path and the client's own identity", async () => {
    const spec = {
      targetRefs: [{ group: "", kind: "Service", name: "web" }], action: "ALLOW",
      rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/client"] } }], to: [{ operation: { methods: ["GET"], paths: ["/open*"] } }] }],
    };
    const status = (from: Workload, ...args: string[]): Promise<string> => curl(from, "-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", ...args);
    await under("policy.yaml", policyYaml("AuthorizationPolicy", spec), async () => (await status(client, `${URL}/closed`)).startsWith("403"), async () => {
      expect(await status(client, `${URL}/open/1`)).toBe("200 ");
      expect(await status(client, "-X", "POST", `${URL}/open/1`)).toBe("403 access_not_allowed");
      expect(await status(other, `${URL}/open/1`)).toBe("403 access_not_allowed");
    });
  });

  test("a fault is injected by a VirtualService, and marked", async () => {
    const yaml = JSON.stringify({
      apiVersion: "networking.istio.io/v1", kind: "VirtualService", metadata: { name: "web", namespace: "shop" },
      spec: { hosts: ["web.shop.svc.cluster.local"], http: [{ fault: { abort: { percentage: { value: 100 }, httpStatus: 418 } }, route: [{ destination: { host: "web.shop.svc.cluster.local" } }] }] },
    });
    await under("fault.yaml", yaml, async () => (await curl(client, "-o", "/dev/null", "-w", "%{http_code}", URL)) === "418", async () => {
      expect(await until("its line", 3_000, () => requests().find((line) => line["status"] === "418"))).toMatchObject({ flags: "FI", reason: "fault_abort" });
    });
  });

  test("a WebSocket, both ways and to its end", async () => {
    expect((await client.run([process.execPath, "-e", WEBSOCKET_CLIENT])).stdout).toBe("echo hi\n1000\n");
    expect(await until("its line", 5_000, () => requests().find((line) => line["path"] === "/chat"))).toMatchObject({ status: "101", flags: "-" });
  });

  test("a port that is no HTTP is passed through", async () => {
    const { stdout } = await client.run(["sh", "-c", `printf 'hello\\n' | timeout 3 curl -sS --max-time 2 telnet://${VIP}:90 || true`]);
    expect(stdout).toContain("hello");
  });

  test("a host under a wildcard: the mesh's DNS leads to the waypoint, which finds it by its name", async () => {
    // A machine outside of the mesh, and a name for it that the node's resolver knows.
    const outside = east.workload("outside");
    await serve(outside, "http", 8080, "outside");
    const hosts = join(mkdtempSync(join(tmpdir(), "weft-hosts-")), "hosts");
    writeFileSync(hosts, `${outside.ipv4} api.example.com\n`);
    Bun.spawnSync(["mount", "--bind", hosts, "/etc/hosts"]);
    try {
      mesh.write("outside.yaml", JSON.stringify({
        apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "outside", namespace: "shop", labels: { "istio.io/use-waypoint": "waypoint" } },
        spec: { hosts: ["*.example.com"], addresses: ["198.18.250.40"], location: "MESH_EXTERNAL", resolution: "DYNAMIC_DNS", ports: [{ number: 80, name: "http", protocol: "HTTP", targetPort: 8080 }] },
      }));
      await until("an answer from outside", 10_000, async () => (await curl(client, "--resolve", "api.example.com:80:198.18.250.40", "http://api.example.com/out")).startsWith("outside to") || null);
      const line = await until("its line", 5_000, () => requests().find(({ path, status }) => path === "/out" && status === "200") ?? null);
      expect(line).toMatchObject({ authority: "api.example.com", cluster: "shop/api.example.com:80", "src.identity": "spiffe://cluster.local/ns/shop/sa/client" });
      expect(await curl(client, "-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", "--resolve", "other.example.org:80:198.18.250.40", "http://other.example.org/")).toBe("404 host_not_covered");
    } finally {
      mesh.remove("outside.yaml");
      Bun.spawnSync(["umount", "/etc/hosts"]);
      rmSync(dirname(hosts), { recursive: true });
    }
  });

  test("its requests and tunnels are in the node's metrics", async () => {
    expect(await mesh.agent(east).metric("istio_requests_total", { reporter: "waypoint", response_code: "418" })).toBeGreaterThan(0);
    expect(await mesh.agent(east).metrics()).toContain('weft_thread_lag_seconds{thread="shop/waypoint data-0"}');
  });
});
