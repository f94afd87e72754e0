// Our agent and HBONE peers that somebody else wrote (node:http2 over node:tls): silent ones, and ones that send less, more or
// other headers than we do.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { parseIp } from "../../src/core/ip.ts";
import { parseTrustDomain, type SpiffeId, spiffeId } from "../../src/core/spiffe.ts";
import { unsealed } from "../kit/box.ts";
import { connectTls, HBONE_PORT, HboneServer, issueSvid, SilentServer } from "../kit/hbone-peer.ts";
import { ask, documents, entryYaml, Mesh, namespaceYaml, serve, until } from "../kit/mesh.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { ECHO_PORT, HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

const HTTP2_TIMEOUT_MS = 500;

describeUnless(unsealed)("foreign HBONE peers", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let east: Node;
  let west: Node;
  /** Captured, with the servers of the kit. */
  let client: Workload;
  let far: Workload;
  /** Ends HBONE itself: a server of ours in the test's own process. */
  let foreign: Workload;
  /** Not captured: dials HBONE itself. */
  let alien: Workload;

  const identity = (name: string): SpiffeId => spiffeId(parseTrustDomain("cluster.local")!, "shop", name);
  const get = (from: Workload, to: Workload): Promise<string> => ask(from, "get", urlOf(to.ipv4, HTTP_PORT));

  beforeAll(async () => {
    network = MeshNetwork.create();
    [east, west] = [network.node("east"), network.node("west")];
    [client, alien] = [east.workload("client"), east.workload("alien")];
    [far, foreign] = [west.workload("far"), west.workload("foreign")];
    await serve(far, "http", HTTP_PORT, "far");
    await serve(far, "echo", ECHO_PORT);
    mesh = Mesh.create({ nodes: [east, west], flags: ["--http2-timeout", `${HTTP2_TIMEOUT_MS}ms`] });
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(client), entryYaml(far),
      entryYaml(foreign, { labels: { "networking.istio.io/tunnel": "http" } }),
      entryYaml(alien, { labels: { "istio.io/dataplane-mode": "none" } }),
    ));
    await mesh.start();
    for (const [node, name] of [[east, "client"], [west, "far"]] as const) await mesh.agent(node).logged(new RegExp(`/shop/${name} is in the mesh`));
  }, 60_000);

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("a server that finishes TLS and stays silent: given up after the HTTP/2 limit, with the cause", async () => {
    const agent = mesh.agent(east);
    const mark = agent.mark();
    const failedBefore = await agent.metric("weft_tunnel_handshakes_failed_total", { direction: "outbound", code: "http2_failed" });
    using silent = await SilentServer.listen(foreign, issueSvid(mesh, identity("foreign")));
    expect(await get(client, foreign)).toStartWith("failed");
    expect(silent.accepted).toBe(1);
    const [line] = await agent.connections({ direction: "outbound", "dst.workload": "foreign" }, mark);
    expect(line!["close"]).toBe("http2_failed");
    expect(line!["error"]).toContain(`no SETTINGS came within ${HTTP2_TIMEOUT_MS} ms`);
    expect(await agent.metric("weft_tunnel_handshakes_failed_total", { direction: "outbound", code: "http2_failed" })).toBe(failedBefore + 1);
  });

  test("a client that finishes TLS and stays silent: closed after the HTTP/2 limit, counted and logged", async () => {
    const agent = mesh.agent(west);
    const mark = agent.mark();
    const failedBefore = await agent.metric("weft_tunnel_handshakes_failed_total", { direction: "inbound", code: "http2_failed" });
    const descriptors = () => readdirSync(`/proc/${agent.pid}/fd`).length;
    const before = descriptors();
    const socket = await connectTls(alien, { ip: parseIp(far.ipv4)!, port: HBONE_PORT }, issueSvid(mesh, identity("alien")));
    socket.resume();
    await once(socket, "end", { signal: AbortSignal.timeout(4_000) });
    await agent.logged(new RegExp(`HTTP/2 from ${alien.ipv4}: TLS succeeded, but no SETTINGS came within ${HTTP2_TIMEOUT_MS} ms`), mark);
    expect(await agent.metric("weft_tunnel_handshakes_failed_total", { direction: "inbound", code: "http2_failed" })).toBe(failedBefore + 1);
    // Our end is gone, though the peer never ends its own.
    await until("the agent to give the descriptor back", 2_000, () => descriptors() <= before);
    socket.destroy();
  });

  test("the pool's requests are counted: one opened, then hits; tunnels opened at both ends", async () => {
    const count = (outcome: string) => mesh.agent(east).metric("weft_pool_requests_total", { outcome });
    const opened = (node: Node, direction: string) => mesh.agent(node).metric("weft_tunnels_opened_total", { direction });
    using server = await HboneServer.listen(foreign, issueSvid(mesh, identity("foreign")), (stream) => {
      stream.respond({ ":status": 200 });
      stream.end("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    const before = [await count("opened"), await count("hit"), await opened(east, "outbound")];
    for (let i = 0; i < 3; i++) expect(await get(client, foreign)).toBe("200 ok");
    expect([await count("opened"), await count("hit"), await opened(east, "outbound")]).toEqual([before[0]! + 1, before[1]! + 2, before[2]! + 1]);
    expect(server.opened).toBe(1);
    expect(server.identities).toEqual([identity("client")]);
  });
});
