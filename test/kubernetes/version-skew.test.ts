// A control plane that is upgraded replica by replica: one of an earlier version (WEFT_PREVIOUS_BIN) and one of this, over one cluster. Agents
// of this version meet either; both are one CA; and whichever is left goes on.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { parseTrustDomain, spiffeId } from "../../src/core/spiffe.ts";
import { createRequest } from "../../src/identity/csr.ts";
import { GrpcCertificateSource } from "../../src/identity/grpc-certificate-source.ts";
import { Relay } from "../kit/relay.ts";
import { describeUnless, firstReason, needsBinary } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { XdsAgent } from "../kit/xds-agent.ts";
import { type ApiServer, apply, installDefinitions, type KubeObject, needsKubernetes, pathOf, startApiServer } from "./api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "./control-role.ts";
import { SHOWS_MS } from "./eventually.ts";
import { namespace, node, pod, service, serviceAccount, tokenFor } from "./objects.ts";

const object = (apiVersion: string, kind: string, name: string, spec: object): KubeObject => ({ apiVersion, kind, metadata: { name, namespace: "shop" }, spec });
const web = { group: "", kind: "Service", name: "web" };
const route = (path: string): KubeObject => object("gateway.networking.k8s.io/v1", "HTTPRoute", "web", {
  parentRefs: [{ ...web, port: 80 }],
  rules: [{ matches: [{ path: { type: "PathPrefix", value: path }, headers: [{ name: "x-a", value: "1" }] }], filters: [{ type: "RequestHeaderModifier", requestHeaderModifier: { set: [{ name: "x-b", value: "2" }] } }], backendRefs: [{ name: "web", port: 80 }], timeouts: { request: "5s" } }, { backendRefs: [{ name: "web", port: 80 }] }],
});
const L7: readonly KubeObject[] = [
  object("gateway.networking.k8s.io/v1", "Gateway", "wp", { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] }), route("/one"),
  object("security.istio.io/v1", "AuthorizationPolicy", "get-only", { targetRefs: [web], action: "ALLOW", rules: [{ to: [{ operation: { methods: ["GET"] } }] }] }),
  object("security.istio.io/v1", "RequestAuthentication", "tokens", { targetRefs: [web], jwtRules: [{ issuer: "https://issuer.example", jwksUri: "https://issuer.example/keys" }] }),
  object("networking.istio.io/v1", "DestinationRule", "web", { host: "web", trafficPolicy: { loadBalancer: { simple: "ROUND_ROBIN" }, outlierDetection: { consecutive5xxErrors: 3 }, connectionPool: { http: { maxRequestsPerConnection: 9 } } } }),
  object("telemetry.istio.io/v1", "Telemetry", "mesh", { tracing: [{ randomSamplingPercentage: 5 }] }),
];
const NAMES = ["shop/wp", "HTTPRoute/shop/web", "shop/get-only", "shop/tokens", "shop/web.shop.svc.cluster.local", "shop/mesh"];

describeUnless(firstReason(needsKubernetes, needsBinary("WEFT_PREVIOUS_BIN")))("a control plane of two versions", () => {
  let server: ApiServer;
  let relay: Relay;
  let earlier: ControlRole;
  let present: ControlRole;
  let rootsPem: string;
  const agents: XdsAgent[] = [];
  const tokens = {} as Record<"ztunnel" | "waypoint", string>;

  const askCa = async (role: ControlRole): Promise<string> => {
    const source = new GrpcCertificateSource({ address: `127.0.0.1:${role.port}`, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootCaPath: rootsPem, token: { kind: "literal", value: tokens.ztunnel }, clusterId: "Kubernetes", headers: {}, impersonate: true });
    const wanted = spiffeId(parseTrustDomain("cluster.local")!, "shop", "web");
    const issued = await source.issue({ spiffeId: wanted, csrPem: createRequest(wanted).csrPem, lifetimeMs: 3_600_000, signal: AbortSignal.timeout(20_000) });
    source.destroy();
    if (!issued.ok) throw new Error(issued.error.message);
    return issued.value.trustBundlePem;
  };
  const everythingIsTaken = async (): Promise<void> => {
    const missing = (): string[] => agents.flatMap(({ versions }, at) => ["Kubernetes//Pod/shop/web-1", ...(at === 1 ? NAMES : [])].filter((name) => !versions.has(name)));
    await until(() => `every agent has everything; missing: ${missing().join(", ")}; refused: ${agents.flatMap(({ refused }) => refused).join("; ")}`, SHOWS_MS, () => missing().length === 0);
    expect(agents.flatMap(({ refused }) => refused)).toEqual([]);
  };
  async function allMoveTo(replica: ControlRole): Promise<void> {
    const before = agents.map(({ streams }) => streams.length);
    relay.target = replica.port;
    relay.cut();
    await until(`every agent is told by ${replica.name}`, SHOWS_MS, () => agents.every((agent, at) => agent.isTold(before[at]! + 1)));
  }

  beforeAll(async () => {
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, namespace(CONTROL_NAMESPACE), namespace("shop", { "istio.io/use-waypoint": "wp" }), node("node1"), serviceAccount("ztunnel", CONTROL_NAMESPACE), serviceAccount("wp", "shop"), serviceAccount("web", "shop"),
      pod("ztunnel-1", CONTROL_NAMESPACE, { labels: { app: "ztunnel" }, node: "node1", ip: "198.18.0.9", serviceAccount: "ztunnel" }),
      pod("wp-1", "shop", { labels: { "gateway.networking.k8s.io/gateway-name": "wp" }, node: "node1", ip: "198.18.1.8", serviceAccount: "wp" }),
      pod("web-1", "shop", { labels: { app: "web" }, node: "node1", ip: "198.18.1.9", serviceAccount: "web", ports: [{ name: "http", containerPort: 8080 }] }),
      service("wp", "shop", { clusterIP: "198.19.0.81", selector: { "gateway.networking.k8s.io/gateway-name": "wp" }, ports: [{ name: "mesh", port: 15008 }] }),
      service("web", "shop", { clusterIP: "198.19.0.80", selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: "http" }] }), ...L7);
    earlier = startControl(server, "control-earlier", [], "info", [process.env["WEFT_PREVIOUS_BIN"]!]);
    await earlier.ready();
    rootsPem = await until("the roots", SHOWS_MS, async () => {
      const answer = await server.client.request({ method: "GET", path: "/api/v1/namespaces/shop/configmaps/istio-ca-root-cert" });
      return answer.ok ? (answer.value as { data: Record<string, string> }).data["root-cert.pem"] : null;
    });
    [tokens.ztunnel, tokens.waypoint] = [await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" }), await tokenFor(server.client, "wp", "shop", { audience: "istio-ca", pod: "wp-1" })];
    relay = await Relay.to(earlier.port);
    const of = { port: relay.port, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootsPem, node: "node1" };
    agents.push(new XdsAgent({ ...of, token: tokens.ztunnel }), new XdsAgent({ ...of, token: tokens.waypoint, gateway: "shop/wp" }));
  }, 240_000);

  afterAll(async () => {
    await Promise.all(agents.map((agent) => agent[Symbol.asyncDispose]()));
    await relay?.[Symbol.asyncDispose]();
    await earlier?.kill();
    await present?.kill();
    await server?.stop();
  });

  test("agents of this version take everything of the earlier control plane", () => everythingIsTaken(), 60_000);

  test("a replica of this version joins: one CA, and agents go to and fro between the two", async () => {
    present = startControl(server, "control-present", [], "info");
    await present.ready();
    expect(await askCa(present)).toBe(await askCa(earlier));
    for (const replica of [present, earlier, present]) {
      await allMoveTo(replica);
      await everythingIsTaken();
    }
  }, 120_000);

  test("the earlier one is gone: this version writes, and a change arrives", async () => {
    await earlier.kill();
    await apply(server.client, route("/two"));
    await until("the status of the changed route", 60_000, async () => {
      const answer = await server.client.request({ method: "GET", path: pathOf(L7[1]!) });
      const found = answer.ok ? (answer.value as { metadata: { generation: number }; status?: { parents?: { conditions: { observedGeneration: number }[] }[] } }) : null;
      return found?.status?.parents?.[0]?.conditions.every(({ observedGeneration }) => observedGeneration === found.metadata.generation);
    });
    expect(await askCa(present)).toContain("BEGIN CERTIFICATE");
    await everythingIsTaken();
  }, 120_000);
});
