// Our agent and HBONE peers that somebody else wrote (node:http2 over node:tls): silent ones, and ones that send less, more or
// other headers than we do.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { join } from "node:path";
import { parseIp } from "../../src/core/ip.ts";
import { parseTrustDomain, type SpiffeId, spiffeId } from "../../src/core/spiffe.ts";
import { LOST_TUNNEL_RETRIES_MAX } from "../../src/ztunnel/outbound.ts";
import { unsealed } from "../kit/box.ts";
import { type Answer, connectTls, HBONE_PORT, HboneClient, HboneServer, issueSvid, SilentServer } from "../kit/hbone-peer.ts";
import { ask, documents, entryYaml, Mesh, namespaceYaml, serve, serviceYaml } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { ECHO_PORT, HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

/** On a machine that is busy; what must be quick has a limit of its own. */
setDefaultTimeout(60_000);

const HTTP2_TIMEOUT_MS = 1_000;
const VIP = "198.18.250.40";
const FOREIGN_VIP = "198.18.250.41";
const vectors = JSON.parse(readFileSync(join(import.meta.dir, "../vectors/hbone/headers.json"), "utf8")) as { traceparentRefused: string[] };

/** Descriptors come and go while they are looked at. */
function isSocket(path: string): boolean {
  try {
    return readlinkSync(path).startsWith("socket:");
  } catch {
    return false;
  }
}

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
      serviceYaml("far", { clusterIPs: [VIP], ports: { 80: HTTP_PORT, 90: ECHO_PORT } }),
      serviceYaml("foreign", { clusterIPs: [FOREIGN_VIP], ports: { 80: HTTP_PORT } }),
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

  test("a server whose connections break off before HTTP/2, as when another takes its place, is asked again; only so often", async () => {
    const agent = mesh.agent(east);
    using server = await HboneServer.listen(foreign, issueSvid(mesh, identity("foreign")), (stream) => {
      stream.respond({ ":status": 200 });
      stream.end("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    server.breaks = LOST_TUNNEL_RETRIES_MAX;
    expect(await get(client, foreign)).toBe("200 ok");
    expect([server.breaks, server.opened]).toEqual([0, 1]);
    server.cut();
    await until("the tunnel to be gone", 5_000, () => server.ended === 1);
    const mark = agent.mark();
    server.breaks = LOST_TUNNEL_RETRIES_MAX + 2;
    expect(await get(client, foreign)).toStartWith("failed");
    expect(server.breaks).toBe(1);
    const [line] = await agent.connections({ direction: "outbound", "dst.workload": "foreign", close: "http2_failed" }, mark);
    expect(line).toMatchObject({ error: expect.stringContaining("TLS succeeded, but before any SETTINGS came") });
  });

  test("a client that finishes TLS and stays silent: closed after the HTTP/2 limit, counted and logged", async () => {
    const agent = mesh.agent(west);
    const mark = agent.mark();
    const failedBefore = await agent.metric("weft_tunnel_handshakes_failed_total", { direction: "inbound", code: "http2_failed" });
    const sockets = () => readdirSync(`/proc/${agent.pid}/fd`).filter((fd) => isSocket(`/proc/${agent.pid}/fd/${fd}`)).length;
    const before = sockets();
    const socket = await connectTls(alien, { ip: parseIp(far.ipv4)!, port: HBONE_PORT }, issueSvid(mesh, identity("alien")));
    socket.resume();
    await once(socket, "end", { signal: AbortSignal.timeout(4_000) });
    await agent.logged(new RegExp(`HTTP/2 from ${alien.ipv4}: TLS succeeded, but no SETTINGS came within ${HTTP2_TIMEOUT_MS} ms`), mark);
    expect(await agent.metric("weft_tunnel_handshakes_failed_total", { direction: "inbound", code: "http2_failed" })).toBe(failedBefore + 1);
    // Our end is gone, though the peer never ends its own.
    await until("the agent to give the socket back", 2_000, () => sockets() <= before);
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

  const answering = (headers: OutgoingHttpHeaders) => (stream: ServerHttp2Stream) => {
    stream.respond({ ":status": 200, ...headers });
    stream.end("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok");
  };

  test("what we send: CONNECT with method and authority alone, the sender in baggage, its address and the service in forwarded, a trace", async () => {
    using server = await HboneServer.listen(foreign, issueSvid(mesh, identity("foreign")), answering({}));
    expect(await get(client, foreign)).toBe("200 ok");
    expect(await ask(client, "get", urlOf(FOREIGN_VIP, 80))).toBe("200 ok");
    const [direct, byService] = server.requests;
    const names = (headers: object | undefined) => Object.keys(headers ?? {}).sort();
    for (const headers of [direct, byService]) {
      expect(names(headers)).toEqual([":authority", ":method", "baggage", "forwarded", "traceparent"]);
      expect([headers![":method"], headers![":authority"]]).toEqual(["CONNECT", `${foreign.ipv4}:${HTTP_PORT}`]);
      expect(headers!["baggage"]).toBe("k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=client,service.name=client,service.version=latest");
      expect(headers!["traceparent"]).toMatch(/^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00$/);
    }
    const port = /^for="198\.18\.1\.10:([0-9]+)"$/.exec(String(direct!["forwarded"]))?.[1];
    expect(Number(port)).toBeGreaterThan(1023);
    expect(byService!["forwarded"]).toMatch(/^for="198\.18\.1\.10:[0-9]+";host=foreign\.shop\.svc\.cluster\.local$/);
    expect(direct!["traceparent"]).not.toBe(byService!["traceparent"]);
  });

  test("what is answered beside the 200 is survived: none, malformed, much, unknown", async () => {
    const answers: OutgoingHttpHeaders[] = [
      {}, { baggage: "" }, { baggage: ",;=%%%zz,k8s.namespace.name" }, { baggage: "x=".repeat(4000) }, { baggage: ["a=b", "k8s.namespace.name=elsewhere"] },
      { "x-unknown": "y", traceparent: vectors.traceparentRefused[1]!, "x-istio-source": "gateway" },
    ];
    let next = 0;
    using _server = await HboneServer.listen(foreign, issueSvid(mesh, identity("foreign")), (stream) => answering(answers[next++]!)(stream));
    for (const _ of answers) expect(await get(client, foreign)).toBe("200 ok");
    expect(next).toBe(answers.length);
  });

  /** One CONNECT to far's echo server that carries bytes there and back. */
  async function echoes({ status, stream }: Answer, text: string): Promise<boolean> {
    if (status !== 200) return false;
    stream.write(text);
    let heard = "";
    for await (const chunk of stream) {
      heard += String(chunk);
      if (heard.length >= text.length) break;
    }
    return heard === text;
  }

  test("what we are sent is survived in one tunnel: absent, malformed, repeated, huge and unknown headers", async () => {
    const agent = mesh.agent(west);
    using tunnel = await HboneClient.open(alien, { ip: parseIp(far.ipv4)!, port: HBONE_PORT }, issueSvid(mesh, identity("alien")));
    const headers: OutgoingHttpHeaders[] = [
      {}, ...vectors.traceparentRefused.filter((text) => text === text.trim()).map((traceparent) => ({ traceparent })),
      { traceparent: ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] },
      { baggage: "" }, { baggage: ",,=,=x,%%%;;;" }, { baggage: "k8s.namespace.name=" + "x".repeat(20_000) }, { baggage: Array.from({ length: 50 }, (_, i) => `k${i}=v`) },
      { baggage: "k8s.namespace.name=a%0d%0ab,service.name=%00" },
      { forwarded: "" }, { forwarded: 'for="unclosed;host=' }, { forwarded: "for=1;host=not a host" }, { forwarded: `for="198.18.0.1:1";host=${"a.".repeat(4000)}` },
      { "x-forwarded-network": "" }, { "x-forwarded-network": "n".repeat(5000) }, { "x-forwarded-network": ["a", "b"] },
      { "x-istio-source": "waypoint", "x-request-id": "1", "x-forwarded-proto": "https", "x-unknown": "\u00e9" },
    ];
    // HTTP/2 itself forbids blanks around a value: that request is reset, and nothing else.
    await expect(tunnel.connect(`${far.ipv4}:${ECHO_PORT}`, { traceparent: " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" })).rejects.toThrow("NGHTTP2_PROTOCOL_ERROR");
    for (const [index, sent] of headers.entries()) {
      const answer = await tunnel.connect(`${far.ipv4}:${ECHO_PORT}`, sent);
      expect([sent, await echoes(answer, `message ${index}`)]).toEqual([sent, true]);
      answer.stream.close();
    }
    expect(tunnel.session.destroyed).toBe(false);
    expect(await agent.metric("weft_http2_fatal_total")).toBe(0);
  });

  test("each form of authority is taken, and the 200 says who the destination is", async () => {
    using tunnel = await HboneClient.open(alien, { ip: parseIp(far.ipv4)!, port: HBONE_PORT }, issueSvid(mesh, identity("alien")));
    for (const authority of [`${far.ipv4}:${ECHO_PORT}`, `[${far.ipv6}]:${ECHO_PORT}`, "far.shop.svc.cluster.local:90", "FAR.shop.svc.cluster.local:90"]) {
      const answer = await tunnel.connect(authority);
      expect([authority, answer.status, answer.headers["baggage"]]).toEqual([
        authority, 200, "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=far,service.name=far,service.version=latest",
      ]);
      expect(await echoes(answer, authority)).toBe(true);
    }
    for (const [authority, status] of [[`${client.ipv4}:${ECHO_PORT}`, 400], ["far:", 400], [`${far.ipv4}:15008`, 503], ["foreign.shop.svc.cluster.local:80", 503], [`${far.ipv4}:8999`, 503]] as const) {
      expect([authority, (await tunnel.connect(authority)).status]).toEqual([authority, status]);
    }
  });

  test("a trace and a service are taken over into the log; who the sender is, is not believed", async () => {
    const agent = mesh.agent(west);
    using tunnel = await HboneClient.open(alien, { ip: parseIp(far.ipv4)!, port: HBONE_PORT }, issueSvid(mesh, identity("alien")));
    const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
    const mark = agent.mark();
    const { status, stream } = await tunnel.connect(`${far.ipv4}:${ECHO_PORT}`, {
      traceparent: `00-${traceId}-00f067aa0ba902b7-00`, baggage: "k8s.namespace.name=bank,k8s.pod.name=teller,service.name=teller",
      forwarded: 'for="198.51.100.7:1";host=far.shop.svc.cluster.local',
    });
    expect(status).toBe(200);
    stream.end();
    const [line] = await agent.connections({ direction: "inbound", trace_id: traceId }, mark);
    expect([line!["src.workload"], line!["src.namespace"], line!["src.identity"], line!["dst.service"]]).toEqual(["alien", "shop", identity("alien"), "far.shop.svc.cluster.local"]);
    expect(line!["src.addr"]).toStartWith(`${alien.ipv4}:`);
  });
});
