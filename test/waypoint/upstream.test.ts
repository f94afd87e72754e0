// The ways from a waypoint to endpoints, between network namespaces: TLS of the application inside the mesh's tunnel, an endpoint on
// another network through its gateway, and the mesh's mutual TLS with a server that has no ztunnel.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseIp } from "../../src/core/ip.ts";
import { parseTrustDomain, type SpiffeId, spiffeId } from "../../src/core/spiffe.ts";
import { EastWestGateway } from "../kit/east-west-gateway.ts";
import { issueSvid } from "../kit/hbone-peer.ts";
import { documents, entryYaml, Mesh, namespaceYaml, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { BackendAuthority } from "../kit/tls-backends.ts";

setDefaultTimeout(60_000);

const VIPS = { secure: "198.18.250.31", far: "198.18.250.32", sidecar: "198.18.250.33" } as const;
const NAME = "secure.example.com";
/** What a change may take to be in force, on a machine that is busy. */
const CHANGE_MS = 10_000;
const TLS_PORT = 8443;

let network: MeshNetwork;
let mesh: Mesh;
let east: Node;
let west: Node;
let client: Workload;
let waypoint: Workload;
let secure: Workload;
let sidecar: Workload;
let far: Workload;
let gate: Workload;
let gateway: EastWestGateway;
const authority = new BackendAuthority();

const identity = (name: string, namespace = "shop"): SpiffeId => spiffeId(parseTrustDomain("cluster.local")!, namespace, name);
const labels = { "istio.io/use-waypoint": "waypoint" };
const serviceOf = (name: keyof typeof VIPS, targetPort: number): string => JSON.stringify({
  apiVersion: "v1", kind: "Service", metadata: { name, namespace: "shop", labels }, spec: { clusterIP: VIPS[name], selector: { app: name }, ports: [{ name: "http", port: 80, targetPort }] },
});
const destinationRule = (host: string, tls: object): string => JSON.stringify({
  apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: { name: host, namespace: "shop" }, spec: { host, trafficPolicy: { tls } },
});
const get = async (name: keyof typeof VIPS, ...args: string[]): Promise<string> => (await client.run(["curl", "-sS", "--max-time", "5", ...args, `http://${VIPS[name]}/`])).stdout.trim();
const becomes = (name: keyof typeof VIPS, wanted: string, ...args: string[]): Promise<unknown> => {
  let last = "";
  return until(wanted, CHANGE_MS, async () => (last = await get(name, ...args)) === wanted || null).catch((error: unknown) => {
    throw new Error(`${String(error)}: saw ${last}\n${mesh.agent(east).log.split("\n").filter((line) => !line.includes("connection complete")).slice(-12).join("\n")}`);
  });
};
const REASON = ["-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}"];

/** A server that answers by TLS, and says who asked where it wants a certificate. */
async function serveTls(place: Workload, files: { readonly cert: string; readonly key: string; readonly ca?: string }): Promise<void> {
  const path = (kind: string): string => join(mesh.directory, `${place.name}-${kind}.pem`);
  for (const [kind, text] of Object.entries(files)) writeFileSync(path(kind), text);
  const program = `
    const { createServer } = require("node:tls");
    const { readFileSync } = require("node:fs");
    const ca = ${files.ca === undefined ? "null" : `readFileSync(${JSON.stringify(path("ca"))})`};
    createServer({ cert: readFileSync(${JSON.stringify(path("cert"))}), key: readFileSync(${JSON.stringify(path("key"))}), ...(ca === null ? {} : { ca, requestCert: true, rejectUnauthorized: true }), ALPNProtocols: ["istio-http/1.1", "http/1.1"] }, (socket) => {
      socket.on("error", () => {});
      socket.on("data", (chunk) => {
        if (!chunk.includes("\\r\\n\\r\\n")) return;
        const body = "${place.name} by TLS to " + (ca === null ? "anyone" : socket.getPeerCertificate().subjectaltname);
        socket.write("HTTP/1.1 200 OK\\r\\ncontent-length: " + Buffer.byteLength(body) + "\\r\\n\\r\\n" + body);
      });
    }).listen(${TLS_PORT}, "0.0.0.0");`;
  place.exec([process.execPath, "-e", program], { stdout: "ignore", stderr: "inherit" });
  await place.listening(TLS_PORT);
}

beforeAll(async () => {
  network = MeshNetwork.create();
  [east, west] = [network.node("east"), network.node("west")];
  [client, waypoint, secure, sidecar] = [east.workload("client"), east.workload("waypoint"), east.workload("secure"), east.workload("sidecar")];
  [far, gate] = [west.workload("far"), west.workload("gate")];
  mesh = Mesh.create({ nodes: [east, west], flagsOf: (node) => ["--network", node === east ? "n1" : "n2"] });
  await serve(far, "http", 8080, "far");
  const leaf = authority.leaf({ dns: [NAME] });
  await serveTls(secure, { cert: leaf.certificatePem, key: leaf.keyPem });
  mesh.write("shop.yaml", documents(
    namespaceYaml("shop", true), namespaceYaml("istio-system", false),
    entryYaml(client, { network: "n1" }), entryYaml(secure, { network: "n1" }),
    entryYaml(waypoint, { network: "n1", labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "waypoint" } }),
    entryYaml(sidecar, { network: "n1", labels: { "istio.io/dataplane-mode": "none" } }),
    entryYaml(far, { network: "n2" }), entryYaml(gate, { network: "n2", labels: { "istio.io/dataplane-mode": "none" } }),
    JSON.stringify({ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } }),
    JSON.stringify({
      apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway",
      metadata: { name: "to-n2", namespace: "istio-system", labels: { "topology.istio.io/network": "n2" }, annotations: { "gateway.istio.io/service-account": "east-west" } },
      spec: { gatewayClassName: "istio-remote", addresses: [{ value: gate.ipv4 }], listeners: [{ name: "cross-network", port: 15008, protocol: "HBONE" }] },
    }),
    serviceOf("secure", TLS_PORT), serviceOf("far", 8080), serviceOf("sidecar", TLS_PORT),
    JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "ca", namespace: "shop" }, data: { "ca.crt": authority.caPem } }),
  ));
  await mesh.start();
  for (const name of ["client", "secure"]) await mesh.agent(east).logged(new RegExp(`/shop/${name} is in the mesh`));
  await mesh.agent(west).logged(/\/shop\/far is in the mesh/);
  await mesh.agent(east).logged(/the waypoint shop\/waypoint as .* serves/);
  const svid = issueSvid(mesh, identity("sidecar"));
  await serveTls(sidecar, { cert: svid.cert, key: svid.key, ca: svid.ca });
  gateway = await EastWestGateway.listen(gate, issueSvid(mesh, identity("east-west", "istio-system")), () => [parseIp(far.ipv4)!]);
}, 60_000);

afterAll(async () => {
  gateway?.[Symbol.dispose]();
  await mesh[Symbol.asyncDispose]();
  await network[Symbol.asyncDispose]();
});

describe("a waypoint reaches", () => {
  test("a server that speaks TLS, inside the tunnel to it", async () => {
    const policy = (hostname: string): string => JSON.stringify({
      apiVersion: "gateway.networking.k8s.io/v1", kind: "BackendTLSPolicy", metadata: { name: "secure", namespace: "shop" },
      spec: { targetRefs: [{ group: "", kind: "Service", name: "secure" }], validation: { hostname, caCertificateRefs: [{ group: "", kind: "ConfigMap", name: "ca" }] } },
    });
    mesh.write("tls.yaml", policy(NAME));
    await becomes("secure", "secure by TLS to anyone");
    for (let i = 0; i < 5; i++) expect(await get("secure")).toBe("secure by TLS to anyone");
    mesh.write("tls.yaml", policy("other.example.com"));
    await becomes("secure", "503 tls_failed", ...REASON);
    mesh.write("tls.yaml", policy(NAME));
    await becomes("secure", "secure by TLS to anyone");
  });

  test("an endpoint on another network, through the gateway there, as itself", async () => {
    await becomes("far", `far to ${gate.ipv4}`);
    expect(gateway.connects).toContain("far.shop.svc.cluster.local:80");
    expect(new Set(gateway.callers)).toEqual(new Set([identity("waypoint")]));
    const before = gateway.connects.length;
    for (let i = 0; i < 10; i++) expect(await get("far")).toBe(`far to ${gate.ipv4}`);
    expect(gateway.connects.length - before).toBeLessThanOrEqual(4);
  });

  test("a server without a tunnel by the mesh's mutual TLS, when that is asked for", async () => {
    mesh.write("mutual.yaml", destinationRule("sidecar", { mode: "ISTIO_MUTUAL" }));
    await becomes("sidecar", `sidecar by TLS to URI:${identity("waypoint")}`);
    // One that cannot prove to be the workload gets nothing.
    mesh.write("mutual.yaml", destinationRule("sidecar", { mode: "DISABLE" }));
    await until("plain bytes, which it does not take", CHANGE_MS, async () => !(await get("sidecar")).startsWith("sidecar by TLS"));
  });
});
