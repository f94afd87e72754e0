// The HBONE list of docs/bad-input.md, tried on a running agent by a peer whose certificate is good: what it may reach, what it may claim,
// and what becomes of streams and tunnels that end in the wrong way.

import { afterAll, beforeAll, expect } from "bun:test";
import { encodeProxyV2 } from "../../src/wire/proxy-protocol/v2.ts";
import { parseIp, type SocketAddress } from "../../src/core/ip.ts";
import { item } from "../kit/bad-input.ts";
import { unsealed } from "../kit/box.ts";
import { RawPeer } from "../kit/hostile-peer.ts";
import { data, headers, reset, settings } from "../kit/http2-peer.ts";
import { policyYaml, serve, serviceYaml } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { RIVAL_ID, Siege } from "../kit/siege.ts";
import { ECHO_PORT, FAREWELL_PORT, GREETER_PORT, GREETING, HTTP_PORT, VIP } from "../kit/shop.ts";
import { describeUnless } from "../kit/skip.ts";

describeUnless(unsealed)("hostile tunnel", () => {
  let siege: Siege;
  beforeAll(async () => {
    siege = await Siege.open({ yaml: [serviceYaml("web", { clusterIPs: [VIP], selector: { app: "client" }, ports: { 80: HTTP_PORT } }), serviceYaml("far", { clusterIPs: ["198.18.250.11"], ports: { 80: HTTP_PORT } })] });
    await serve(siege.far, "farewell", FAREWELL_PORT, "bye");
  }, 60_000);
  afterAll(async () => await siege?.[Symbol.asyncDispose]());

  const FAR = "198.18.1.10";
  const closed = (code: string) => ["weft_connections_closed_total", { reporter: "destination", code }] as const;

  // Where a CONNECT may go

  const places: readonly (readonly [name: string, authority: string, status: string, code: string])[] = [
    ["CONNECT to another pod of the node", `198.18.1.11:${HTTP_PORT}`, "400", "destination_refused"],
    ["CONNECT to an address outside", "198.51.100.1:80", "400", "destination_refused"],
    ["CONNECT to loopback", `127.0.0.1:${HTTP_PORT}`, "400", "destination_refused"],
    ["CONNECT to another loopback address", `127.9.9.9:${HTTP_PORT}`, "400", "destination_refused"],
    ["CONNECT to IPv6 loopback", `[::1]:${HTTP_PORT}`, "400", "destination_refused"],
    ["CONNECT to loopback as IPv4-mapped IPv6", `[::ffff:127.0.0.1]:${HTTP_PORT}`, "400", "destination_refused"],
    ["CONNECT to the unspecified address", `0.0.0.0:${HTTP_PORT}`, "400", "destination_refused"],
    ["CONNECT to the metadata server", "169.254.169.254:80", "400", "destination_refused"],
    ["CONNECT to the IPv6 metadata server", "[fd00:ec2::254]:80", "400", "destination_refused"],
    ["CONNECT to multicast", "224.0.0.1:80", "400", "destination_refused"],
    ["CONNECT to the node itself", "198.18.1.1:15000", "400", "destination_refused"],
    ["CONNECT to port 15001", `${FAR}:15001`, "503", "destination_refused"],
    ["CONNECT to port 15006", `${FAR}:15006`, "503", "destination_refused"],
    ["CONNECT to port 15008, a tunnel in a tunnel", `${FAR}:15008`, "503", "destination_refused"],
    ["CONNECT to port 15053", `${FAR}:15053`, "503", "destination_refused"],
    ["CONNECT to the VIP of a service that is not behind this pod", `${VIP}:80`, "400", "destination_refused"],
    ["CONNECT to the VIP of its own service", "198.18.250.11:80", "400", "destination_refused"],
    ["CONNECT to a hostname that nobody has", "nobody.shop.svc.cluster.local:80", "503", "destination_refused"],
    ["CONNECT to the hostname of another's service", "web.shop.svc.cluster.local:80", "503", "destination_refused"],
    ["CONNECT to a port its service does not have", "far.shop.svc.cluster.local:81", "503", "destination_refused"],
    ["CONNECT to a port nobody listens on", `${FAR}:8999`, "503", "connect_failed"],
    ["CONNECT to port 0", `${FAR}:0`, "400", "bad_request"],
    ["CONNECT to a port beyond 65535", `${FAR}:65616`, "400", "bad_request"],
    ["CONNECT without a port", FAR, "400", "bad_request"],
    ["CONNECT to an address in decimal", "3323068682:80", "400", "bad_request"],
    ["CONNECT to an address with leading zeros", "198.018.001.010:80", "400", "bad_request"],
    ["CONNECT to IPv6 without brackets", "2001:db8:1::a:80", "400", "bad_request"],
    ["CONNECT to IPv6 with a zone", "[fe80::1%25eth0]:80", "400", "bad_request"],
    ["CONNECT to a name of 300 characters", `${"a".repeat(300)}:80`, "400", "bad_request"],
  ];
  for (const [name, authority, status, code] of places) {
    item(name, async () => {
      using peer = await siege.tunnel();
      const id = await siege.counted(...closed(code), 1, async () => {
        const stream = peer.connect(authority);
        expect(await peer.status(stream)).toBe(status);
        return stream;
      });
      expect([peer.bodyOf(id), peer.goawayCode]).toEqual(["", null]);
      // The tunnel lives on for those that behave.
      expect(await peer.status(peer.connect(`${FAR}:${HTTP_PORT}`))).toBe("200");
    });
  }

  item("CONNECT to the pod as IPv4-mapped IPv6 is CONNECT to the pod", async () => {
    using peer = await siege.tunnel();
    const id = peer.connect(`[::ffff:${FAR}]:${GREETER_PORT}`);
    expect(await peer.status(id)).toBe("200");
    await until("the greeting", 5_000, () => peer.bodyOf(id) === `${GREETING}\n`);
  });

  item("CONNECT with user information in its authority", async () => {
    using peer = await siege.tunnel();
    const id = peer.connect(`admin@${FAR}:${HTTP_PORT}`);
    expect(await peer.status(id)).toMatch(/^(400|reset 1)$/);
    expect(await peer.status(peer.connect(`${FAR}:${HTTP_PORT}`))).toBe("200");
  });

  // What is not a CONNECT

  item("GET instead of CONNECT", async () => {
    using peer = await siege.tunnel();
    const id = await siege.counted(...closed("bad_request"), 1, () => peer.request([":method", "GET", ":scheme", "https", ":authority", FAR, ":path", "/"], true));
    expect(await peer.status(id)).toBe("400");
  });

  item("extended CONNECT, which was not offered", async () => {
    using peer = await siege.tunnel();
    const id = peer.request([":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/", ":authority", `${FAR}:80`]);
    expect(await peer.status(id)).toBe("reset 1");
  });

  item("CONNECT with a path", async () => {
    using peer = await siege.tunnel();
    expect(await peer.status(peer.request([":method", "CONNECT", ":path", "/", ":authority", `${FAR}:80`]))).toBe("reset 1");
  });

  item("CONNECT that ends at once", async () => {
    using peer = await siege.tunnel();
    const id = peer.request([":method", "CONNECT", ":authority", `${FAR}:${GREETER_PORT}`], true);
    expect(await peer.status(id)).toBe("200");
    await until("greeting and end", 5_000, () => peer.bodyOf(id) === `${GREETING}\n` && peer.hasEnded(id));
  });

  item("DATA before the 200", async () => {
    using peer = await siege.tunnel();
    const id = 1;
    peer.write(headers(id, [":method", "CONNECT", ":authority", `${FAR}:${ECHO_PORT}`]), data(id, "early "), data(id, "bird", true));
    expect(await peer.status(id)).toBe("200");
    await until("echo and end", 5_000, () => peer.bodyOf(id) === "early bird" && peer.hasEnded(id));
  });

  // What a peer may claim

  const forged: readonly string[] = [
    "forwarded", 'for="198.18.77.1";host="far.shop.svc";by=unknown', "baggage", "k8s.namespace.name=admin,k8s.deployment.name=root,service.name=root,k8s.cluster.name=other", "x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/client",
    "x-istio-source", "gateway", "x-forwarded-for", "127.0.0.1",
  ];

  item("forged Forwarded, baggage and XFCC do not change who the peer is", async () => {
    using peer = await siege.tunnel();
    const mark = siege.agent.mark();
    const id = peer.connect(`${FAR}:${GREETER_PORT}`, forged);
    expect(await peer.status(id)).toBe("200");
    peer.write(reset(id));
    const [line] = await siege.agent.connections({ direction: "inbound", "src.identity": RIVAL_ID }, mark);
    expect(line!["src.addr"]).toStartWith(`${siege.rival.ipv4}:`);
  });

  item("forged headers do not get past a policy", async () => {
    const admitted = async (): Promise<string> => {
      using peer = await siege.tunnel();
      return await peer.status(peer.connect(`${FAR}:${GREETER_PORT}`, forged));
    };
    siege.mesh.write("policy.yaml", policyYaml("AuthorizationPolicy", { action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/client"] } }] }] }));
    try {
      await siege.counted("istio_tcp_connections_failed_total", { reporter: "destination", response_flags: "DENY" }, 1, async () =>
        await until("the policy to refuse it", 2_000, async () => (await admitted()) === "401"));
    } finally {
      siege.mesh.remove("policy.yaml");
      await until("the policy to be gone", 2_000, async () => (await admitted()) === "200");
    }
  });

  const survived: readonly (readonly [name: string, more: readonly string[]])[] = [
    ["malformed traceparent is survived", ["traceparent", "00-00000000000000000000000000000000-0000000000000000-00", "traceparent", "nonsense"]],
    ["malformed baggage is survived", ["baggage", "=,;=;%zz%,k8s.namespace.name=%00%ff,,,", "forwarded", '";;="\\']],
    ["baggage of 60 KiB is survived", ["baggage", "k=".repeat(20_000), "forwarded", "for=".repeat(4_000)]],
  ];
  for (const [name, more] of survived) {
    item(name, async () => {
      using peer = await siege.tunnel();
      const id = peer.connect(`${FAR}:${GREETER_PORT}`, more);
      expect(await peer.status(id)).toBe("200");
      await until("the greeting", 5_000, () => peer.bodyOf(id) === `${GREETING}\n`);
    });
  }

  item("PROXY headers inside a tunnel are the application's bytes", async () => {
    using peer = await siege.tunnel();
    const id = peer.connect(`${FAR}:${ECHO_PORT}`);
    expect(await peer.status(id)).toBe("200");
    const at = (text: string): SocketAddress => ({ ip: parseIp(text)!, port: 1 });
    const header = encodeProxyV2({ source: at("198.18.77.1"), destination: at("198.18.77.2"), sourceIdentity: null });
    peer.write(data(id, header));
    await until("the header to be echoed", 5_000, () => peer.bodyOf(id).length >= Buffer.from(header).toString().length);
    expect(peer.bodyOf(id)).toBe(Buffer.from(header).toString());
  });

  // How streams and tunnels end

  for (const [name, code] of [["stream reset by CANCEL is an end", 8], ["stream reset by an error resets the application", 2]] as const) {
    item(name, async () => {
      using peer = await siege.tunnel();
      const id = peer.connect(`${FAR}:${ECHO_PORT}`);
      expect(await peer.status(id)).toBe("200");
      await siege.counted(...closed("stream_reset"), 1, () => peer.write(reset(id, code)));
      expect(await peer.status(peer.connect(`${FAR}:${HTTP_PORT}`))).toBe("200");
    });
  }

  item("half-close, the application first", async () => {
    using peer = await siege.tunnel();
    const id = peer.connect(`${FAR}:${FAREWELL_PORT}`);
    expect(await peer.status(id)).toBe("200");
    await until("the farewell and its end", 5_000, () => peer.bodyOf(id) === "bye" && peer.hasEnded(id));
    await siege.counted(...closed("clean"), 1, () => peer.write(data(id, "still talking"), data(id, "", true)));
  });

  item("half-close, the peer first", async () => {
    using peer = await siege.tunnel();
    const id = peer.connect(`${FAR}:${ECHO_PORT}`);
    expect(await peer.status(id)).toBe("200");
    await siege.counted(...closed("clean"), 1, async () => {
      peer.write(data(id, "one last thing", true));
      await until("the echo and its end", 5_000, () => peer.bodyOf(id) === "one last thing" && peer.hasEnded(id));
    });
  });

  item("TCP reset of a tunnel with live streams", async () => {
    const peer = await siege.tunnel();
    for (let i = 0; i < 20; i++) expect(await peer.status(peer.connect(`${FAR}:${ECHO_PORT}`))).toBe("200");
    await siege.counted(...closed("tunnel_lost"), 20, () => peer.tls.socket.destroy());
    await until("no stream to be open", 5_000, async () => (await siege.metric("weft_tunnel_streams_open", { direction: "inbound" })) === 0);
  });

  item("FIN of a tunnel without close_notify and with live streams", async () => {
    const peer = await siege.tunnel();
    expect(await peer.status(peer.connect(`${FAR}:${ECHO_PORT}`))).toBe("200");
    await siege.counted(...closed("tunnel_lost"), 1, () => peer.tls.raw.end());
    peer[Symbol.dispose]();
  });

  item("more streams than were allowed", async () => {
    using peer = await siege.tunnel();
    const ids = Array.from({ length: 1_050 }, () => peer.connect(`${FAR}:${ECHO_PORT}`));
    await until("an answer to each", 15_000, () => ids.every((id) => peer.answered(id) || peer.resetCode(id) !== null));
    const refusedIds = ids.filter((id) => peer.resetCode(id) === 7);
    expect(refusedIds.length).toBeGreaterThanOrEqual(50);
    expect(peer.goawayCode).toBeNull();
  }, 60_000);

  item("SETTINGS that change in mid-stream", async () => {
    using peer = await siege.tunnel();
    const id = peer.connect(`${FAR}:${ECHO_PORT}`);
    expect(await peer.status(id)).toBe("200");
    peer.write(settings([4, 0]), data(id, "held back"));
    // With no window the echo must stay where it is; a PING tells that the SETTINGS were read.
    await peer.ping();
    expect(peer.bodyOf(id)).toBe("");
    peer.write(settings([4, 5]));
    await until("five bytes", 5_000, () => peer.bodyOf(id) === "held ");
    peer.write(settings([4, 65_535]));
    await until("the rest", 5_000, () => peer.bodyOf(id) === "held back");
  });

  item("plaintext dialled to ports 15001 and 15006 themselves", async () => {
    for (const port of [15001, 15006]) {
      using raw = await RawPeer.open(siege.rival, siege.at(port)).catch(() => ({ closed: Promise.resolve("refused"), [Symbol.dispose]: () => {} }));
      expect(await raw.closed).toMatch(/close|ECONNRESET|refused/);
    }
    expect(await siege.lives()).toBe(true);
  });

  item("honest traffic after these tunnels", async () => {
    await until("all hostile tunnels to be gone", 5_000, async () => (await siege.metric("weft_tunnels_open", { direction: "inbound" })) === 0);
    expect(await siege.metric("weft_buffered_bytes")).toBe(0);
    expect(await siege.lives()).toBe(true);
  });
});
