// Floods of HTTP/2 inside of a tunnel: a client whose certificate is good opens HBONE to a waypoint and attacks from within. What it does ends
// its own connection with the GOAWAY that it gets on any other port; the tunnel around it, and what else is in it, go on.

import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import type { ClientHttp2Stream } from "node:http2";
import { Flag, FrameType } from "../../src/wire/http2/frames.ts";
import { encodeStateless } from "../../src/wire/http2/hpack-encoder.ts";
import { identity } from "../kit/mesh-records.ts";
import { item } from "../kit/bad-input.ts";
import { unsealed } from "../kit/box.ts";
import { HboneClient, issueSvid, type PeerSvid } from "../kit/hbone-peer.ts";
import { ATTACK_ENDS, type AttackKind, http2Attacks, strike } from "../kit/http2-attacks.ts";
import { data, frame, headers, Http2Peer, settings } from "../kit/http2-peer.ts";
import { documents, entryYaml, Mesh, namespaceYaml } from "../kit/mesh.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { describeUnless } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

setDefaultTimeout(120_000);

const VIP = "198.18.250.20";
const SERVICE = `${VIP}:80`;
const MALFORMED = "weft_request_malformed_total";
const FLOW_CONTROL_ERROR = 3;
/** What one hostile client may add to the memory of the node's process while it lasts. */
const GROWTH_BYTES_MAX = 64 * 1024 * 1024;
const COUNTED_MS = 10_000;

/** `/held` is never answered, `/large` with 4 MiB that are made as they are taken, anything else with its path. */
const SERVER = `
function* large() { for (let i = 0; i < 64; i++) yield Buffer.alloc(64 * 1024, "x"); }
require("node:http2").createServer().on("stream", (stream, headers) => {
  stream.on("error", () => {}).resume();
  if (headers[":path"] === "/held") return;
  stream.respond({ ":status": 200 });
  if (headers[":path"] === "/large") require("node:stream").Readable.from(large()).pipe(stream);
  else stream.end(headers[":path"]);
}).on("sessionError", () => {}).listen(8080, "0.0.0.0");`;

describeUnless(unsealed)("hostile HTTP/2 inside of a tunnel", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let node: Node;
  let waypoint: Workload;
  let rival: Workload;
  let svid: PeerSvid;

  beforeAll(async () => {
    network = MeshNetwork.create();
    node = network.node("west");
    const server = node.workload("server");
    waypoint = node.workload("waypoint");
    rival = network.node("east").workload("rival");
    server.exec([process.execPath, "-e", SERVER], { stdout: "ignore", stderr: "inherit" });
    await server.listening(8080);
    mesh = Mesh.create({ nodes: [node], flags: ["--drain", "500ms"] });
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(server), entryYaml(waypoint, { labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "waypoint" } }),
      JSON.stringify({ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } }),
      JSON.stringify({ apiVersion: "v1", kind: "Service", metadata: { name: "web", namespace: "shop", labels: { "istio.io/use-waypoint": "waypoint" } }, spec: { clusterIP: VIP, selector: { app: "server" }, ports: [{ name: "http2", port: 80, targetPort: 8080 }] } }),
    ));
    await mesh.start();
    await mesh.agent(node).logged(/\/shop\/server is in the mesh/);
    await mesh.agent(node).logged(/the waypoint shop\/waypoint as .* serves/);
    svid = issueSvid(mesh, identity("shop", "rival"));
    using tunnel = await openTunnel();
    await until("an honest answer", 20_000, async () => (await honest(tunnel)) === "/honest");
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  const openTunnel = (): Promise<HboneClient> => HboneClient.open(rival, { ip: waypoint.ipv4, port: 15008 }, svid);
  const request = (path: string, method = "POST"): string[] => [":method", method, ":scheme", "http", ":path", path, ":authority", "web"];
  const malformed = (code: string): Promise<number> => mesh.agent(node).metric(MALFORMED, code === "" ? {} : { code });

  async function open(tunnel: HboneClient): Promise<ClientHttp2Stream> {
    const { status, stream } = await tunnel.connect(SERVICE);
    expect(status).toBe(200);
    return stream;
  }

  /** HTTP/2 of the test's own frames in one stream of a tunnel. */
  async function inside(tunnel: HboneClient, within?: ClientHttp2Stream): Promise<Http2Peer> {
    const stream = within ?? (await open(tunnel));
    const closed = new Promise<string>((resolve) => void stream.on("close", () => resolve("close")).on("end", () => resolve("end")));
    const peer = new Http2Peer({ write: (bytes) => void (stream.writable && stream.write(bytes)), closed, destroy: () => cancel(stream) });
    stream.on("data", (chunk: Buffer) => peer.received(chunk));
    await peer.greet();
    return peer;
  }

  function cancel(stream: ClientHttp2Stream): void {
    if (!stream.closed) stream.close(8);
  }

  /** A request in a stream of its own: its body. */
  async function honest(tunnel: HboneClient): Promise<string> {
    using peer = await inside(tunnel);
    const id = peer.request(request("/honest", "GET"), true);
    await until("the honest answer's end", COUNTED_MS, () => peer.hasEnded(id) || peer.goawayCode !== null);
    return peer.bodyOf(id);
  }

  item("the floods of the list, inside of a tunnel", async () => {
    using tunnel = await openTunnel();
    const before = mesh.agent(node).residentBytes();
    for (const kind of Object.keys(ATTACK_ENDS) as AttackKind[]) {
      const [goaway, code] = ATTACK_ENDS[kind];
      const countedBefore = await malformed(code);
      using peer = await inside(tunnel);
      await strike(peer, http2Attacks(request("/held"))[kind]);
      expect([kind, await peer.goaway()]).toEqual([kind, expect.stringMatching(new RegExp(`^${goaway} `))]);
      await peer.closed;
      await until(`${kind}: ${MALFORMED} ${code} to move`, COUNTED_MS, async () => (await malformed(code)) > countedBefore);
      expect([kind, await honest(tunnel)]).toEqual([kind, "/honest"]);
      expect(mesh.agent(node).residentBytes() - before).toBeLessThan(GROWTH_BYTES_MAX);
    }
    expect(tunnel.session.destroyed).toBe(false);
  }, 120_000);

  item("lists that are bombs, and bytes beyond a window, inside of a tunnel", async () => {
    using tunnel = await openTunnel();
    using peer = await inside(tunnel);
    const bomb = Buffer.concat([encodeStateless(request("/held")), Buffer.from([0x40, 1, 0x61, 0x7f, 0xa1, 0x1e]), Buffer.alloc(4_000, 0x62), Buffer.alloc(100, 0xbe)]);
    peer.write(frame(FrameType.headers, Flag.endHeaders, 1, bomb));
    expect(await peer.status(1)).toBe("431");
    peer.write(frame(FrameType.headers, Flag.endHeaders, 3, Buffer.concat([encodeStateless(request("/held")), ...Array.from({ length: 8_000 }, () => Buffer.from([0x60, 1, 0x61]))])));
    expect(await peer.status(3)).toBe("431");
    peer.write(headers(5, request("/held")), ...Array.from({ length: 6 * 64 }, () => data(5, new Uint8Array(16_384))));
    await until("the stream to be reset", COUNTED_MS, () => peer.resetCode(5) !== null);
    expect([peer.resetCode(5), peer.goawayCode]).toEqual([FLOW_CONTROL_ERROR, null]);
    peer.write(headers(7, request("/after", "GET"), true));
    expect(await peer.status(7)).toBe("200");
    expect(await honest(tunnel)).toBe("/honest");
  }, 60_000);

  item("windows shut inside of a tunnel, and the tunnel's own shut around them", async () => {
    const before = mesh.agent(node).residentBytes();
    using tunnel = await openTunnel();
    const buffered = (): Promise<number> => mesh.agent(node).metric("weft_buffered_bytes");
    for (const shut of ["inner", "outer"] as const) {
      const stream = await open(tunnel);
      using peer = await inside(tunnel, stream);
      if (shut === "inner") peer.write(settings([4, 0]));
      await peer.ping();
      const ids = Array.from({ length: 50 }, () => peer.request(request("/large", "GET"), true));
      // What nobody reads shuts its window in the tunnel.
      if (shut === "outer") stream.pause();
      await until(`bytes to wait (${shut})`, COUNTED_MS, async () => (await buffered()) > 0);
      if (shut === "inner") for (const id of ids) expect(peer.bodyOf(id)).toBe("");
      // 50 answers of 4 MiB were asked for; a window of each at most is held.
      expect(mesh.agent(node).residentBytes() - before).toBeLessThan(50 * 1024 * 1024 + GROWTH_BYTES_MAX);
      expect(await honest(tunnel)).toBe("/honest");
      peer[Symbol.dispose]();
      await until(`nothing to wait (${shut})`, COUNTED_MS, async () => (await buffered()) === 0);
    }
  }, 90_000);

  item("tunnels that end in the middle of a flood", async () => {
    for (const how of ["stream", "tunnel"] as const) {
      using tunnel = await openTunnel();
      const peer = await inside(tunnel);
      for (let i = 0; i < 50; i++) peer.request(request("/held"));
      await until("them to be under way", COUNTED_MS, async () => (await mesh.agent(node).metric("weft_upstream_in_use", { resource: "activeRequests" })) >= 50);
      if (how === "stream") peer[Symbol.dispose]();
      else tunnel.session.destroy();
      await until(`nothing to be left (${how})`, COUNTED_MS, async () => (await mesh.agent(node).metric("weft_upstream_in_use", { resource: "activeRequests" })) === 0);
    }
    using tunnel = await openTunnel();
    expect(await honest(tunnel)).toBe("/honest");
  }, 60_000);
});
