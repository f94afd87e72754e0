// What a waypoint asks of services of the mesh, what it passes through, and workloads behind it: a whole node with its waypoint, between
// network namespaces, configured by YAML alone.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { selfSigned } from "../kit/certificates.ts";
import { type AccessFields, documents, entryYaml, Mesh, namespaceYaml, policyYaml, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";

const WEB = "198.18.250.20";
const DB = "198.18.250.21";
const TLS_SERVER = (name: string): string => {
  const { cert, key } = selfSigned(name);
  return `require("node:tls").createServer(${JSON.stringify({ cert, key })}, (socket) => { socket.on("error", () => {}); socket.end("${name} for " + socket.servername + "\\n"); }).listen(8443, "0.0.0.0")`;
};
const GREETER = (name: string): string => `require("node:net").createServer((socket) => { socket.on("error", () => {}); socket.write("${name}\\n"); socket.resume(); }).listen(9000, "0.0.0.0")`;

let network: MeshNetwork;
let mesh: Mesh;
let node: Node;
let client: Workload;
let other: Workload;
let one: Workload;
let two: Workload;
let authz: Workload;
let limits: Workload;

const object = (apiVersion: string, kind: string, name: string, spec: object, more: { readonly labels?: object; readonly namespace?: string } = {}): string =>
  JSON.stringify({ apiVersion, kind, metadata: { name, namespace: more.namespace ?? "shop", labels: more.labels ?? {} }, spec });
const service = (name: string, clusterIP: string, selector: object, ports: readonly object[], labels: object = {}): string => object("v1", "Service", name, { clusterIP, selector, ports }, { labels });
const route = (kind: "TCPRoute" | "TLSRoute", name: string, port: number, spec: object): string =>
  object("gateway.networking.k8s.io/v1", kind, name, { parentRefs: [{ group: "", kind: "Service", name: "db", port }], ...spec });

beforeAll(async () => {
  network = MeshNetwork.create();
  node = network.node("east");
  const names = ["client", "other", "one", "two", "authz", "limits", "waypoint"];
  const workloads = names.map((name) => node.workload(name));
  [client, other, one, two, authz, limits] = workloads as [Workload, Workload, Workload, Workload, Workload, Workload];
  mesh = Mesh.create({ nodes: [node] });
  await Promise.all([serve(one, "http", 8080, "one"), serve(two, "http", 8080, "two"), serve(authz, "grpc-authorizer", 9001), serve(limits, "grpc-rate-limit", 9002, 3)]);
  for (const [place, name] of [[one, "one"], [two, "two"]] as const) {
    for (const script of [TLS_SERVER(name), GREETER(name)]) place.exec([process.execPath, "-e", script], { stdout: "ignore", stderr: "inherit" });
    await Promise.all([place.listening(8443), place.listening(9000)]);
  }
  const bound = { "istio.io/use-waypoint": "waypoint" };
  const dbPorts = [{ name: "tcp-db", port: 90, targetPort: 9000 }, { name: "tls-db", port: 443, targetPort: 8443 }];
  mesh.write("shop.yaml", documents(
    namespaceYaml("shop", true),
    ...workloads.filter(({ name }) => name !== "waypoint").map((workload) => entryYaml(workload, { labels: { ...(workload === one ? bound : {}), role: workload === one || workload === two ? "server" : "other" } })),
    entryYaml(workloads[6]!, { labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "waypoint" } }),
    object("gateway.networking.k8s.io/v1", "Gateway", "waypoint", { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] }, { labels: { "istio.io/waypoint-for": "all" } }),
    service("web", WEB, { role: "server" }, [{ name: "http", port: 80, targetPort: 8080 }], bound), service("db", DB, { app: "one" }, dbPorts, bound),
    service("one", "198.18.250.22", { app: "one" }, dbPorts), service("two", "198.18.250.23", { app: "two" }, dbPorts),
    service("authz", "198.18.250.24", { app: "authz" }, [{ name: "grpc", port: 9001 }]), service("limits", "198.18.250.25", { app: "limits" }, [{ name: "grpc", port: 9002 }]),
    object("weft.dev/v1alpha1", "MeshConfig", "mesh", { extensionProviders: [{ name: "who", envoyExtAuthzGrpc: { service: "shop/authz.shop.svc.cluster.local", port: 9001, timeout: "2s" } }] }, { namespace: "istio-system" }),
  ));
  await mesh.start();
  for (const name of ["client", "other", "one", "two", "authz", "limits"]) await mesh.agent(node).logged(new RegExp(`/shop/${name} is in the mesh`));
  await mesh.agent(node).logged(/the waypoint shop\/waypoint as .* serves/);
}, 60_000);

afterAll(async () => {
  await mesh[Symbol.asyncDispose]();
  await network[Symbol.asyncDispose]();
});

const curl = async (from: Workload, ...args: string[]): Promise<string> => (await from.run(["curl", "-sS", "--max-time", "5", ...args])).stdout;
const status = (from: Workload, ...args: string[]): Promise<string> => curl(from, "-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", ...args);
const requests = (): AccessFields[] => mesh.agent(node).requestsSoFar();

async function under(name: string, yaml: string, settled: () => Promise<boolean>, body: () => Promise<void>): Promise<void> {
  mesh.write(name, yaml);
  try {
    await until("the change to be in force", 5_000, settled);
    await body();
  } finally {
    mesh.remove(name);
  }
}

describe("services that a waypoint asks", () => {
  test("an external authoriser, through its ztunnel as the waypoint: who may, and as whom", async () => {
    const ask = policyYaml("AuthorizationPolicy", { targetRefs: [{ group: "", kind: "Service", name: "web" }], action: "CUSTOM", provider: { name: "who" }, rules: [{ to: [{ operation: { paths: ["/guarded*"] } }] }] });
    await under("custom.yaml", ask, async () => (await status(client, `http://${WEB}/guarded`)).startsWith("401"), async () => {
      expect(await curl(client, "-H", "x-user: bert", `http://${WEB}/guarded`)).toBe("not bert");
      expect(await status(client, "-H", "x-user: anna", `http://${WEB}/guarded`)).toBe("200 ");
      expect(await status(client, `http://${WEB}/open`)).toBe("200 ");
      // Closed to everybody but the waypoint: it is the waypoint that asks, in its own name.
      const only = policyYaml("AuthorizationPolicy", { selector: { matchLabels: { app: "authz" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/waypoint"] } }] }] }).replace(/"name":"[^"]+"/, '"name":"only-waypoint"');
      mesh.write("only.yaml", only);
      await until("the authoriser to be closed to others", 5_000, async () => (await curl(client, "http://198.18.250.24:9001/")) === "");
      expect(await status(client, "-H", "x-user: anna", `http://${WEB}/guarded`)).toBe("200 ");
      mesh.write("only.yaml", only.replace("sa/waypoint", "sa/nobody"));
      await until("the authoriser to be closed to the waypoint", 5_000, async () => (await status(client, "-H", "x-user: anna", `http://${WEB}/guarded`)) === "403 authorizer_failed");
      mesh.remove("only.yaml");
      await until("the authoriser to be open again", 5_000, async () => (await status(client, "-H", "x-user: anna", `http://${WEB}/guarded`)) === "200 ");
    });
  });

  test("a rate limit service that counts by the caller's identity", async () => {
    const limit = object("weft.dev/v1alpha1", "TrafficPolicy", "web", {
      targetRefs: [{ group: "", kind: "Service", name: "web" }],
      rateLimits: { global: [{ name: "per-caller", service: { name: "limits", namespace: "shop", port: 9002 }, domain: "shop", descriptors: [[{ key: "caller", identity: {} }]], timeout: "2s", onFailure: "Deny" }] },
    });
    await under("limit.yaml", limit, async () => (await status(client, `http://${WEB}/`)) === "429 rate_limited", async () => {
      const answers = [];
      for (let i = 0; i < 5; i++) answers.push(await status(other, `http://${WEB}/`));
      expect(answers).toEqual(["200 ", "200 ", "200 ", "429 rate_limited", "429 rate_limited"]);
    });
  });
});

describe("connections that are passed through", () => {
  const greeting = async (from: Workload): Promise<string> => (await from.run(["sh", "-c", `timeout 3 curl -sS --max-time 1 telnet://${DB}:90 < /dev/null || true`])).stdout.trim();
  const tls = async (name: string): Promise<string> => (await client.run(["sh", "-c", `echo | timeout 3 openssl s_client -quiet -connect ${DB}:443 -servername ${name} 2>/dev/null || true`])).stdout.trim();

  test("by a TCPRoute; the server speaks first", async () => {
    await until("the service's own server", 5_000, async () => (await greeting(client)) === "one");
    await under("tcp.yaml", route("TCPRoute", "db", 90, { rules: [{ backendRefs: [{ name: "one", port: 90, weight: 0 }, { name: "two", port: 90, weight: 1 }] }] }), async () => (await greeting(client)) === "two", async () => {
      expect(await greeting(client)).toBe("two");
    });
  });

  test("by a TLSRoute and the name that is asked for", async () => {
    const yaml = documents(
      route("TLSRoute", "one", 443, { hostnames: ["one.example"], rules: [{ backendRefs: [{ name: "one", port: 443 }] }] }),
      route("TLSRoute", "two", 443, { hostnames: ["*.example"], rules: [{ backendRefs: [{ name: "two", port: 443 }] }] }),
    );
    await under("tls.yaml", yaml, async () => (await tls("other.example")) === "two for other.example", async () => {
      expect(await tls("one.example")).toBe("one for one.example");
      expect(await tls("else.test")).toBe("");
    });
  });
});

describe("a workload behind a waypoint", () => {
  test("is reached through it by its own address, with its policies", async () => {
    expect(await until("an answer", 5_000, async () => (await curl(client, `http://${one.ipv4}:8080/direct`)) || null)).toStartWith("one to");
    expect(await until("its line", 5_000, () => requests().find((line) => line["path"] === "/direct"))).toMatchObject({ status: "200", "src.identity": "spiffe://cluster.local/ns/shop/sa/client", "dst.workload": "one" });
    const deny = policyYaml("AuthorizationPolicy", { targetRefs: [{ group: "gateway.networking.k8s.io", kind: "Gateway", name: "waypoint" }], action: "DENY", rules: [{ to: [{ operation: { paths: ["/closed"] } }] }] });
    await under("deny.yaml", deny, async () => (await status(client, `http://${one.ipv4}:8080/closed`)) === "403 access_denied", async () => {
      expect(await status(client, `http://${one.ipv4}:8080/open`)).toBe("200 ");
      // Not bound to it: around.
      expect(await status(client, `http://${two.ipv4}:8080/closed`)).toBe("200 ");
    });
  });

  test("a server of it that speaks first is heard", async () => {
    expect((await client.run(["sh", "-c", `timeout 3 curl -sS --max-time 1 telnet://${one.ipv4}:9000 < /dev/null || true`])).stdout.trim()).toBe("one");
  });
});
