// Applications that take every connection behind a PROXY protocol header (`PROXY/PORT`): servers that read it themselves, and one that
// shows the bytes. All of them listen on loopback alone.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseIp } from "../../src/core/ip.ts";
import { promised } from "../kit/fair-time.ts";
import { unsealed } from "../kit/box.ts";
import { HBONE_PORT, HboneClient, issueSvid } from "../kit/hbone-peer.ts";
import { ask, documents, entryYaml, Mesh, namespaceYaml, policyYaml, serviceYaml } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { addressOf, CHANGE_MS, urlOf } from "../kit/shop.ts";
import { describeUnless, needsProgram, testUnless } from "../kit/skip.ts";
import { parseTrustDomain, spiffeId } from "../../src/core/spiffe.ts";

/** On a machine that is busy; what must be quick has a limit of its own. */
setDefaultTimeout(60_000);

const BOUND_PORT = 15088;
/** Nothing listens there: it is where the client goes. */
const ASKED_PORT = 8080;
const VIP = "198.18.250.50";
const LOOPBACKS = ["127.0.0.1", "::1"] as const;

/** A PROXY v2 header as the specification lays it out, taken apart here and not by the code under test. */
function readHeader(bytes: Buffer) {
  const length = bytes.readUInt16BE(14);
  const ipBytes = bytes[13] === 0x21 ? 16 : 4;
  const ip = (at: number): string => (ipBytes === 4 ? [...bytes.subarray(at, at + 4)].join(".") : parseIp(bytes.toString("hex", at, at + 16).match(/.{4}/g)!.join(":"))!);
  const ports = 16 + 2 * ipBytes;
  const tlvs: [number, string][] = [];
  for (let at = ports + 4; at < 16 + length; at += 3 + bytes.readUInt16BE(at + 1)) tlvs.push([bytes[at]!, bytes.toString("latin1", at + 3, at + 3 + bytes.readUInt16BE(at + 1))]);
  return {
    signature: bytes.toString("latin1", 0, 12), command: bytes[12], family: bytes[13], source: ip(16), destination: ip(16 + ipBytes),
    sourcePort: bytes.readUInt16BE(ports), destinationPort: bytes.readUInt16BE(ports + 2), tlvs, rest: bytes.toString("latin1", 16 + length),
  };
}

/** Listens on the loopback of a place and keeps what each connection said first; answers as HTTP. */
class FirstWords implements Disposable {
  readonly heard: Buffer[] = [];
  readonly #listeners: Bun.TCPSocketListener<{ bytes: Buffer }>[];

  constructor(place: Workload) {
    this.#listeners = LOOPBACKS.map((hostname) => place.inside(() => Bun.listen<{ bytes: Buffer }>({
      hostname, port: BOUND_PORT,
      socket: {
        open: (socket) => void (socket.data = { bytes: Buffer.alloc(0) }),
        data: (socket, chunk) => {
          socket.data.bytes = Buffer.concat([socket.data.bytes, chunk]);
          if (!socket.data.bytes.includes("\r\n\r\n", 12)) return; // the signature has such bytes of its own
          this.heard.push(socket.data.bytes);
          socket.end("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok");
        },
      },
    })));
  }

  [Symbol.dispose](): void {
    for (const listener of this.#listeners) listener.stop(true);
  }
}

describeUnless(unsealed)("application tunnels", () => {
  let folder: string;
  let network: MeshNetwork;
  let mesh: Mesh;
  let east: Node;
  let west: Node;
  let client: Workload;
  let alien: Workload;
  /** With an application tunnel: on the client's node, and across. */
  let near: Workload;
  let far: Workload;
  let withHaproxy: Workload;
  let withNginx: Workload;

  const identity = (name: string) => spiffeId(parseTrustDomain("cluster.local")!, "shop", name);
  const bound = { annotations: { "ambient.istio.io/waypoint-inbound-binding": `PROXY/${BOUND_PORT}` } };

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "weft-proxy-"));
    network = MeshNetwork.create();
    [east, west] = [network.node("east"), network.node("west")];
    [client, near, alien] = [east.workload("client"), east.workload("near"), east.workload("alien")];
    [far, withHaproxy, withNginx] = [west.workload("far"), west.workload("haproxy"), west.workload("nginx")];
    mesh = Mesh.create({ nodes: [east, west] });
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(client), entryYaml(alien, { labels: { "istio.io/dataplane-mode": "none" } }),
      ...[near, far, withHaproxy, withNginx].map((workload) => entryYaml(workload, bound)),
      serviceYaml("far", { clusterIPs: [VIP], ports: { 80: ASKED_PORT } }),
    ));
    await mesh.start();
    for (const [node, names] of [[east, ["client", "near"]], [west, ["far", "haproxy", "nginx"]]] as const) {
      for (const name of names) await mesh.agent(node).logged(new RegExp(`/shop/${name} is in the mesh`));
    }
  }, 60_000);

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  for (const [where, server] of [["across", () => far], ["on the same node", () => near]] as const) {
    for (const family of [4, 6] as const) {
      test(`${where}, IPv${family}: one header with both ends and the client's identity, then the client's bytes, on loopback`, async () => {
        using app = new FirstWords(server());
        const [from, to] = [addressOf(client, family), addressOf(server(), family)];
        expect(await ask(client, "get", urlOf(to, ASKED_PORT))).toBe("200 ok");
        const header = readHeader(app.heard[0]!);
        expect(header).toMatchObject({
          signature: "\r\n\r\n\0\r\nQUIT\n", command: 0x21, family: family === 4 ? 0x11 : 0x21, source: from, destination: to, destinationPort: ASKED_PORT,
          tlvs: [[0xd0, identity("client")]],
        });
        expect(header.sourcePort).toBeGreaterThan(0);
        expect(header.rest).toStartWith("GET / HTTP/1.1\r\n");
        expect(app.heard.length).toBe(1);
      });
    }
  }

  test("by a service's address and by its name: the endpoint's address, and the service's", async () => {
    using app = new FirstWords(far);
    expect(await ask(client, "get", urlOf(VIP, 80))).toBe("200 ok");
    expect(readHeader(app.heard[0]!)).toMatchObject({ source: client.ipv4, destination: far.ipv4, destinationPort: ASKED_PORT });
    using tunnel = await HboneClient.open(alien, { ip: parseIp(far.ipv4)!, port: HBONE_PORT }, issueSvid(mesh, identity("alien")));
    const { status, stream } = await tunnel.connect("far.shop.svc.cluster.local:80");
    expect(status).toBe(200);
    stream.write("GET / HTTP/1.0\r\n\r\n");
    await until("the application to hear it", 2_000, () => app.heard.length === 2);
    expect(readHeader(app.heard[1]!)).toMatchObject({ source: alien.ipv4, destination: VIP, destinationPort: 80, tlvs: [[0xd0, identity("alien")]] });
  });

  test("policy judges the port that was asked for, not the one that is bound", async () => {
    using app = new FirstWords(far);
    mesh.write("policy.yaml", policyYaml("AuthorizationPolicy", { selector: { matchLabels: { app: "far" } }, action: "DENY", rules: [{ to: [{ operation: { ports: [String(ASKED_PORT)] } }] }] }));
    try {
      await promised("the policy to be in force", CHANGE_MS, async () => (await ask(client, "get", urlOf(far.ipv4, ASKED_PORT))).startsWith("failed"));
      const before = app.heard.length;
      expect(await ask(client, "get", urlOf(far.ipv4, ASKED_PORT + 1))).toBe("200 ok");
      expect(app.heard.length).toBe(before + 1);
    } finally {
      mesh.remove("policy.yaml");
      await promised("the policy to be gone", CHANGE_MS, async () => (await ask(client, "get", urlOf(far.ipv4, ASKED_PORT))).startsWith("200"));
    }
  });

  testUnless(needsProgram("haproxy"))("HAProxy reads it: both ends as the client had them", async () => {
    const configuration = join(folder, "haproxy.cfg");
    writeFileSync(configuration, `defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend bound
  bind 127.0.0.1:${BOUND_PORT} accept-proxy
  bind [::1]:${BOUND_PORT} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] to %[dst] %[dst_port]"
`);
    withHaproxy.exec(["haproxy", "-db", "-f", configuration], { stdout: "ignore", stderr: "inherit" });
    await withHaproxy.listening(BOUND_PORT);
    for (const family of [4, 6] as const) {
      const to = addressOf(withHaproxy, family);
      expect(await ask(client, "get", urlOf(to, ASKED_PORT))).toBe(`200 ${addressOf(client, family)} to ${to} ${ASKED_PORT}`);
    }
  });

  testUnless(needsProgram("nginx"))("nginx reads it: both ends as the client had them", async () => {
    const configuration = join(folder, "nginx.conf");
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`).join(" ");
    writeFileSync(configuration, `daemon off; user root; pid ${folder}/nginx.pid; error_log stderr;
events {}
http {
  access_log off; default_type text/plain; ${paths}
  server {
    listen 127.0.0.1:${BOUND_PORT} proxy_protocol;
    listen [::1]:${BOUND_PORT} proxy_protocol;
    location / { return 200 "$proxy_protocol_addr to $proxy_protocol_server_addr $proxy_protocol_server_port"; }
  }
}
`);
    withNginx.exec(["nginx", "-e", "stderr", "-c", configuration], { stdout: "ignore", stderr: "inherit" });
    await withNginx.listening(BOUND_PORT);
    for (const family of [4, 6] as const) {
      const to = addressOf(withNginx, family);
      expect(await ask(client, "get", urlOf(to, ASKED_PORT))).toBe(`200 ${addressOf(client, family)} to ${to} ${ASKED_PORT}`);
    }
  });
});
