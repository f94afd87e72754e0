// The list of TCP and kernel trouble of docs/bad-input.md: peers and applications that vanish, stop or storm, resources that run out, links
// that are odd. The agent survives, counts, and serves the others.

import { afterAll, beforeAll, expect } from "bun:test";
import { join } from "node:path";
import { AF_INET, bind, close, listen, SOCK_CLOEXEC, SOCK_STREAM, socket } from "../../src/net/libc.ts";
import { encodeSockaddr } from "../../src/net/socket-address.ts";
import type { SocketAddress } from "../../src/core/ip.ts";
import { item } from "../kit/bad-input.ts";
import { unsealed } from "../kit/box.ts";
import { HbonePeer, RawPeer, TlsPeer } from "../kit/hostile-peer.ts";
import { data, reset, settings, windowUpdate } from "../kit/http2-peer.ts";
import { ask, documents, entryYaml, namespaceYaml, program, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import type { Workload } from "../kit/network.ts";
import { Siege } from "../kit/siege.ts";
import { ECHO_PORT, GREETER_PORT, GREETING } from "../kit/shop.ts";
import { describeUnless, needsProgram } from "../kit/skip.ts";

const CONNECT_TIMEOUT_MS = 1_500;
const closed = (code: string) => ["weft_connections_closed_total", { reporter: "destination", code }] as const;

describeUnless(unsealed)("hostile kernel", () => {
  let siege: Siege;
  beforeAll(async () => void (siege = await Siege.open({ flags: ["--connect-timeout", `${CONNECT_TIMEOUT_MS}ms`, "--keepalive", "1s"] })), 60_000);
  afterAll(async () => await siege?.[Symbol.asyncDispose]());

  const socketsOpen = async (): Promise<number> => await siege.metric("istio_tcp_sockets_open", { reporter: "destination" });
  const echo = (): string => `${siege.far.ipv4}:${ECHO_PORT}`;

  item("server that speaks first, to a silent client", async () => {
    using raw = await RawPeer.open(siege.rival, siege.at(GREETER_PORT));
    await until("the greeting in the clear", 5_000, () => Buffer.from(raw.received).toString() === `${GREETING}\n`);
    using peer = await siege.tunnel();
    const id = peer.connect(`${siege.far.ipv4}:${GREETER_PORT}`);
    await until("the greeting by tunnel", 5_000, () => peer.bodyOf(id) === `${GREETING}\n`);
  });

  item("silent client and silent server", async () => {
    using raw = await RawPeer.open(siege.rival, siege.at(ECHO_PORT));
    await until("the connection to be counted", 5_000, async () => (await socketsOpen()) >= 1);
    // Nothing is said for longer than every time limit of the set-up, and it still works.
    const silentSinceMs = performance.now();
    await until("the time limits to be over", 5_000, () => performance.now() - silentSinceMs > CONNECT_TIMEOUT_MS + 500);
    await raw.write("still here");
    await until("the echo", 5_000, () => Buffer.from(raw.received).toString() === "still here");
  });

  item("storm of connections reset at once", async () => {
    for (let i = 0; i < 500; i++) {
      (await flooding(siege.rival, siege.at(ECHO_PORT)))?.terminate();
    }
    await until("all to be gone", 10_000, async () => (await socketsOpen()) === 0);
    expect(await siege.lives()).toBe(true);
  }, 60_000);

  item("storm of tunnels reset at once", async () => {
    for (let i = 0; i < 50; i++) {
      const peer = await siege.tunnel();
      peer.connect(echo());
      peer.tls.raw.destroy();
    }
    await until("all to be gone", 10_000, async () => (await siege.metric("weft_tunnels_open", { direction: "inbound" })) === 0 && (await socketsOpen()) === 0);
    expect(await siege.lives()).toBe(true);
  }, 60_000);

  item("peer that vanishes without a word", async () => {
    const lost = siege.east.workload("lost");
    using peer = await HbonePeer.open(lost, siege.hbone, siege.leaf());
    const id = peer.connect(echo());
    expect(await peer.status(id)).toBe("200");
    using plain = await RawPeer.open(lost, siege.at(ECHO_PORT));
    await plain.write("x");
    await until("the echo", 5_000, () => plain.received.length === 1);
    await siege.counted("weft_connections_closed_total", { reporter: "destination" }, 2, async () => {
      await lost.run(["ip", "link", "set", "eth0", "down"]);
      await until("both to be given up", 35_000, async () => (await siege.metric("weft_tunnels_open", { direction: "inbound" })) === 0 && (await socketsOpen()) === 0);
    });
    expect(await siege.lives()).toBe(true);
  }, 60_000, needsProgram("ip"));

  item("peer stopped: PING is not answered", async () => {
    const peer = await siege.tunnel();
    expect(await peer.status(peer.connect(echo()))).toBe("200");
    peer.tls.raw.pause();
    const mark = siege.agent.mark();
    await siege.counted(...closed("tunnel_lost"), 1, async () =>
      await until("the tunnel to be given up", 45_000, async () => (await siege.metric("weft_tunnels_open", { direction: "inbound" })) === 0));
    // Another item's tunnel may have been told of only now.
    const told = (): number => siege.agent.connectionsSoFar({ direction: "inbound", close: "tunnel_lost" }, mark).filter((line) => line["src.addr"]?.startsWith(`${siege.rival.ipv4}:`)).length;
    await until("its line", 5_000, () => told() > 0);
    expect(told()).toBe(1);
    peer[Symbol.dispose]();
  }, 60_000);

  item("application stopped, and going on", async () => {
    const app = siege.far.exec(program("echo", 9_300), { stdout: "ignore", stderr: "inherit" });
    await siege.far.listening(9_300);
    process.kill(app.pid, "SIGSTOP");
    using peer = await siege.tunnel();
    peer.write(settings([4, 16 * 1024 * 1024]), windowUpdate(0, 64 * 1024 * 1024));
    await peer.ping();
    const id = peer.connect(`${siege.far.ipv4}:9300`);
    expect(await peer.status(id)).toBe("200");
    const sent = peer.fill(id, 4 * 1024 * 1024);
    await peer.ping();
    expect(peer.bodyOf(id)).toBe("");
    expect(await siege.metric("weft_buffered_bytes")).toBeLessThanOrEqual(sent + 65_536);
    expect(await siege.lives()).toBe(true);
    process.kill(app.pid, "SIGCONT");
    await until("all of it to be echoed", 15_000, () => peer.bodyOf(id).length === sent);
    expect(await siege.metric("weft_buffered_bytes")).toBe(0);
  }, 60_000);

  item("application whose backlog is full", async () => {
    const fd = siege.far.inside(() => {
      const made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      bind(made, encodeSockaddr(siege.at(9_400)));
      listen(made, 0);
      return made;
    });
    try {
      using peer = await siege.tunnel();
      // One after the other: the kernel answers every SYN that comes while there is still room.
      for (let i = 0; i < 2; i++) await peer.status(peer.connect(`${siege.far.ipv4}:9400`));
      const ids = Array.from({ length: 8 }, () => peer.connect(`${siege.far.ipv4}:9400`));
      const statuses = await siege.counted(...closed("connect_timeout"), 1, async () => {
        // A connection to another port is not held up meanwhile.
        expect(await peer.status(peer.connect(echo()))).toBe("200");
        return await Promise.all(ids.map((id) => peer.status(id)));
      });
      expect(statuses).toContain("503");
    } finally {
      close(fd);
    }
  });

  item("destination unreachable by ICMP", async () => {
    await siege.west.run(["ip", "route", "add", "unreachable", "198.51.100.7/32"]);
    const mark = siege.agent.mark();
    expect(await ask(siege.client, "read", "198.51.100.7", 80)).toStartWith("failed");
    const [line] = await siege.agent.connections({ direction: "outbound", close: "connect_failed" }, mark);
    expect(line!["error"]).toMatch(/EHOSTUNREACH|ENETUNREACH/);
  }, 60_000, needsProgram("ip"));

  item("ports towards an application used up", async () => {
    siege.far.setSysctl("net.ipv4.ip_local_port_range", "40000 40009");
    try {
      using peer = await siege.tunnel();
      const ids: number[] = [];
      const statuses = await siege.counted(...closed("connect_failed"), 1, async () => {
        for (let i = 0; i < 40; i++) ids.push(peer.connect(echo()));
        return await Promise.all(ids.map((id) => peer.status(id)));
      });
      expect(new Set(statuses)).toEqual(new Set(["200", "503"]));
      expect(await siege.metric("weft_source_not_preserved_total")).toBeGreaterThan(0);
      // They end, without the minute of TIME_WAIT that a FIN would cost, and the next gets a port.
      for (const [i, id] of ids.entries()) if (statuses[i] === "200") peer.write(reset(id, 2));
      await until("a connection to succeed again", 10_000, async () => (await peer.status(peer.connect(echo()))) === "200");
    } finally {
      siege.far.setSysctl("net.ipv4.ip_local_port_range", "32768 60999");
    }
    await until("all to be gone", 5_000, async () => (await socketsOpen()) === 0);
    expect(await siege.lives()).toBe(true);
  }, 60_000);

  item("two thousand idle connections", async () => {
    const before = siege.agent.residentBytes();
    const idle: RawPeer[] = [];
    for (let i = 0; i < 2_000; i++) idle.push(await RawPeer.open(siege.rival, siege.at(ECHO_PORT)));
    await until("all to be open", 30_000, async () => (await socketsOpen()) === 2_000);
    const each = (siege.agent.residentBytes() - before) / idle.length;
    expect(each).toBeLessThan(24 * 1024);
    expect(await siege.lives()).toBe(true);
    for (const raw of idle) raw.terminate();
    await until("all to be gone", 10_000, async () => (await socketsOpen()) === 0);
  }, 60_000);

  const config = (...entries: readonly string[]): void => siege.mesh.write("shop.yaml", documents(namespaceYaml("shop", true), ...entries));
  const nameAt = async (): Promise<string> => {
    using peer = TlsPeer.open(siege.rival, siege.hbone, { leaf: siege.leaf() });
    await peer.secured;
    return peer.socket.getPeerCertificate()?.subjectaltname ?? "";
  };

  item("address of a pod taken over by another workload", async () => {
    using before = await siege.tunnel();
    let left = false;
    void before.tls.closed.then(() => (left = true));
    expect(await before.status(before.connect(echo()))).toBe("200");
    const heir = entryYaml(siege.far, { serviceAccount: "heir" }).replace('"name":"far"', '"name":"heir"');
    const written = siege.agent.mark();
    config(heir, entryYaml(siege.client));
    try {
      // Its certificate is shown as soon as it is there, and what came to its predecessor's listeners until these were closed is the predecessor's.
      await siege.agent.logged(/\/shop\/heir is in the mesh/, written);
      await until("the heir to answer under its own name", 3_000, async () => (await nameAt()) === "URI:spiffe://cluster.local/ns/shop/sa/heir");
      const mark = siege.agent.mark();
      using peer = await siege.tunnel();
      const id = peer.connect(echo());
      expect(await peer.status(id)).toBe("200");
      peer.write(data(id, "", true));
      const [line] = await siege.agent.connections({ direction: "inbound", close: "clean" }, mark);
      expect(line!["dst.identity"]).toBe("spiffe://cluster.local/ns/shop/sa/heir");
      // The tunnel made with its predecessor is not the heir's.
      await until("the old tunnel to be left or closed", 5_000, () => before.goawayCode !== null || left);
    } finally {
      config(entryYaml(siege.far), entryYaml(siege.client));
      await until("the first to be back", 5_000, async () => (await nameAt()) === "URI:spiffe://cluster.local/ns/shop/sa/far");
    }
    expect(await siege.lives()).toBe(true);
  }, 60_000);

  item("namespace gone with live sockets in it", async () => {
    const doomed = siege.west.workload("doomed");
    await serve(doomed, "echo", ECHO_PORT);
    const mark = siege.agent.mark();
    config(entryYaml(siege.far), entryYaml(siege.client), entryYaml(doomed));
    await siege.agent.logged(/\/shop\/doomed is in the mesh/, mark);
    const peer = await HbonePeer.open(siege.rival, { ip: doomed.ipv4, port: 15008 }, siege.leaf());
    const id = peer.connect(`${doomed.ipv4}:${ECHO_PORT}`);
    expect(await peer.status(id)).toBe("200");
    await siege.counted("weft_tunnels_closed_total", { direction: "inbound" }, 1, async () => {
      await doomed.remove();
      siege.west.workloads.splice(siege.west.workloads.indexOf(doomed), 1);
      config(entryYaml(siege.far), entryYaml(siege.client));
      await peer.tls.closed;
    });
    peer[Symbol.dispose]();
    expect(await siege.lives()).toBe(true);
    await until("nothing of it to be left", 5_000, async () => (await siege.metric("workload_manager_active_proxy_count")) === 2);
  }, 60_000);

  item("kernel trouble leaves nothing behind", async () => {
    await until("no tunnel to be open", 10_000, async () => (await siege.metric("weft_tunnels_open", { direction: "inbound" })) === 0);
    const left = async (): Promise<number[]> => [await socketsOpen(), await siege.metric("weft_buffered_bytes"), await siege.metric("weft_handshakes_under_way")];
    // What is left then fails the next line, which shows it.
    await until("nothing to be left", 10_000, async () => (await left()).every((count) => count === 0)).catch(() => {});
    expect(await left()).toEqual([0, 0, 0]);
  });
});

const DESCRIPTORS = 512;
/** A connection that may be reset before we see it open. */
const flooding = async (from: Workload, to: SocketAddress): Promise<RawPeer | null> => await RawPeer.open(from, to).catch(() => null);

describeUnless(unsealed)("descriptors that run out", () => {
  let siege: Siege;
  const weft = ["sh", "-c", `ulimit -n ${DESCRIPTORS}; exec "$@"`, "weft", process.execPath, join(import.meta.dir, "../../src/main.ts")];
  beforeAll(async () => void (siege = await Siege.open({ weft })), 60_000);
  afterAll(async () => await siege?.[Symbol.asyncDispose]());

  item("descriptors used up by plaintext connections", async () => {
    using established = await siege.tunnel();
    const id = established.connect(`${siege.far.ipv4}:${ECHO_PORT}`);
    expect(await established.status(id)).toBe("200");
    const many: (RawPeer | null)[] = [];
    await siege.counted(...closed("limit"), 50, async () => {
      for (let i = 0; i < DESCRIPTORS; i++) many.push(await flooding(siege.rival, siege.at(ECHO_PORT)));
    });
    expect(await siege.metric("process_open_fds")).toBeLessThan(DESCRIPTORS);
    // What was there goes on, and the agent can still be asked.
    established.fill(id, 10);
    await until("the established stream's echo", 5_000, () => established.bodyOf(id).length === 10);
    const mark = siege.agent.mark();
    await siege.agent.connections({ close: "limit", blame: "us" }, 0);
    for (const raw of many) raw?.terminate();
    await until("all to be gone", 10_000, async () => (await siege.metric("istio_tcp_sockets_open", { reporter: "destination" })) === 1);
    await until("honest traffic to pass again", 10_000, async () => await siege.lives().catch(() => false));
    expect(siege.agent.log.slice(mark)).not.toContain("EMFILE");
  }, 60_000);

  item("descriptors used up by streams of one tunnel", async () => {
    using peer = await siege.tunnel();
    const ids: number[] = [];
    const statuses = await siege.counted(...closed("limit"), 1, async () => {
      for (let i = 0; i < 900; i++) ids.push(peer.connect(`${siege.far.ipv4}:${ECHO_PORT}`));
      return await Promise.all(ids.map((id) => peer.status(id)));
    });
    expect(new Set(statuses)).toEqual(new Set(["200", "503"]));
    expect(await siege.metric("process_open_fds")).toBeLessThan(DESCRIPTORS);
    for (const [i, id] of ids.entries()) if (statuses[i] === "200") peer.write(reset(id));
    await until("all to be gone", 10_000, async () => (await siege.metric("istio_tcp_sockets_open", { reporter: "destination" })) === 0);
    await until("honest traffic to pass again", 10_000, async () => await siege.lives().catch(() => false));
  }, 60_000);

  item("descriptors used up by handshakes", async () => {
    const many: (RawPeer | null)[] = [];
    const third = siege.east.workload("third");
    await siege.counted("weft_handshakes_refused_total", {}, 20, async () => {
      for (let i = 0; i < DESCRIPTORS; i++) many.push(await flooding(i % 2 === 0 ? siege.rival : third, siege.hbone));
    });
    for (const raw of many) raw?.terminate();
    await until("all to be gone", 10_000, async () => (await siege.metric("weft_handshakes_under_way")) === 0);
    await until("honest traffic to pass again", 10_000, async () => await siege.lives().catch(() => false));
  }, 60_000);
});

for (const [mtu, name] of [[1280, "three megabytes there and back, MTU 1280"], [9000, "three megabytes there and back, MTU 9000"]] as const) {
  describeUnless(unsealed)(`links with an MTU of ${mtu}`, () => {
    let siege: Siege;
    beforeAll(async () => void (siege = await Siege.open({ network: { mtu } })), 60_000);
    afterAll(async () => await siege?.[Symbol.asyncDispose]());

    item(name, async () => {
      using peer = await siege.tunnel();
      peer.write(settings([4, 16 * 1024 * 1024]), windowUpdate(0, 64 * 1024 * 1024));
      await peer.ping();
      const id = peer.connect(`${siege.far.ipv4}:${ECHO_PORT}`);
      expect(await peer.status(id)).toBe("200");
      const sent = peer.fill(id, 3 * 1024 * 1024);
      expect(sent).toBe(3 * 1024 * 1024);
      await until("all of it to be echoed", 15_000, () => peer.bodyOf(id).length === sent);
      using raw = await RawPeer.open(siege.rival, siege.at(ECHO_PORT));
      await raw.write(new Uint8Array(1024 * 1024).fill(0x61));
      await until("the plain echo", 15_000, () => raw.received.length === 1024 * 1024);
    }, 60_000);
  });
}
