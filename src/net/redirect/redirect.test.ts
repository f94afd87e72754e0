import { expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { unsealed } from "../../../test/kit/box.ts";
import { Answerer, answerUdp, askUdp, Conversation, type Peer } from "../../../test/kit/conversation.ts";
import { MeshNetwork, type Workload } from "../../../test/kit/network.ts";
import { describeUnless, needsProgram, testUnless } from "../../../test/kit/skip.ts";
import { until } from "../../../test/kit/until.ts";
import { type IpAddress, type OrigDst, parseCidr } from "../../core/ip.ts";
import type { Result } from "../../core/result.ts";
import { NFPROTO_INET, writeNewTable } from "../../wire/netlink/nf-tables.ts";
import { NETLINK_NETFILTER, NetlinkSocket } from "../netlink-socket.ts";
import { must } from "../links.ts";
import { carriedOf, countCarried } from "./carried-connections.ts";
import { unifiedRoot } from "./cgroups.ts";
import { liveConnections } from "./existing-connections.ts";
import { NOTHING_EXCLUDED, REDIRECT_DEFAULTS, type RedirectOptions } from "./options.ts";
import { removeProbeSource, setProbeSource } from "./probe-source.ts";
import { drainRedirect, type Inspection, inspectRedirect, installRedirect, removeRedirect, repairRedirect } from "./redirect.ts";

const MARK = 0x539;
const OPTIONS: RedirectOptions = { ...REDIRECT_DEFAULTS, owner: "agent-a" };

function value<T>(result: Result<T, { readonly message: string }>): T {
  if (!result.ok) throw new Error(result.error.message);
  return result.value;
}

function driftOf(inspection: Inspection): readonly string[] {
  return inspection.kind === "present" ? inspection.drift : ["absent"];
}

function packetsOf(inspection: Inspection, comment: string): bigint {
  if (inspection.kind === "absent") return 0n;
  return inspection.counters.filter((counter) => counter.comment === comment).reduce((sum, counter) => sum + counter.packets, 0n);
}

/** A captured workload, with somebody to talk to. */
function pair(): { network: MeshNetwork; web: Workload; client: Workload } & AsyncDisposable {
  const network = MeshNetwork.create();
  const web = network.node("east").workload("web");
  const client = network.node("west").workload("client");
  return { network, web, client, [Symbol.asyncDispose]: () => network[Symbol.asyncDispose]() };
}

const to = (ip: IpAddress, port: number) => ({ ip, port });
/** Plays the agent's listener: says where the connection was going. */
const agent = (place: Workload, port: number): Answerer => Answerer.listen(place, port, (peer) => `for ${peer.originalDestination?.ip} ${peer.originalDestination?.port}.`, MARK);

describeUnless(unsealed)("redirect", () => {
  test("outbound: reaches the outbound listener with the original destination, IPv4 and IPv6", async () => {
    await using at = pair();
    using _agent = agent(at.web, 15001);
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    for (const ip of at.client.addresses) {
      using talk = await Conversation.open(at.web, to(ip, 8080));
      await talk.receive(`for ${ip} 8080.`);
      await talk.echoes("and back");
    }
    expect(packetsOf(value(inspectRedirect(at.web.namespaceFd, OPTIONS)), "outbound")).toBe(2n);
  });

  test("outbound: our own marked sockets and the workload's talk to itself are left alone", async () => {
    await using at = pair();
    using _agent = agent(at.web, 15001);
    using _app = Answerer.listen(at.client, 8080, () => "direct.");
    using _own = Answerer.listen(at.web, 9090, () => "self.");
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    using marked = await Conversation.open(at.web, to(at.client.ipv4, 8080), { mark: MARK });
    await marked.receive("direct.");
    for (const ip of [...at.web.addresses, "127.0.0.1" as IpAddress, "::1" as IpAddress]) {
      using self = await Conversation.open(at.web, to(ip, 9090));
      await self.receive("self.");
    }
  });

  test("inbound: reaches the inbound listener with the original destination; HBONE arrives directly", async () => {
    await using at = pair();
    using _app = Answerer.listen(at.web, 8080, () => "the app itself.");
    using _agent = agent(at.web, 15006);
    using hbone = Answerer.listen(at.web, 15008, () => "hbone.", MARK);
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    for (const ip of at.web.addresses) {
      using talk = await Conversation.open(at.client, to(ip, 8080));
      await talk.receive(`for ${ip} 8080.`);
      await talk.echoes("and back");
      using direct = await Conversation.open(at.client, to(ip, 15008));
      await direct.receive("hbone.");
    }
    // Tracked though not redirected: the kernel answers with the address that was dialled.
    expect(hbone.peers.map((peer) => peer.originalDestination)).toEqual(at.web.addresses.map((ip) => to(ip, 15008) as OrigDst));
  });

  test("inbound: not captured in ingress mode, outbound still is", async () => {
    await using at = pair();
    using _app = Answerer.listen(at.web, 8080, () => "the app itself.");
    using _agent = agent(at.web, 15001);
    value(installRedirect(at.web.namespaceFd, { ...OPTIONS, inboundCapture: false }));
    using talk = await Conversation.open(at.client, to(at.web.ipv4, 8080));
    await talk.receive("the app itself.");
    using out = await Conversation.open(at.web, to(at.client.ipv4, 8080));
    await out.receive(`for ${at.client.ipv4} 8080.`);
  });

  test("a socket that appears from the client's address reaches the application, and its answers come back", async () => {
    await using at = pair();
    using app = Answerer.listen(at.web, 8080, (peer) => `you are ${peer.from.ip}.`);
    using _agent = agent(at.web, 15006);
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    for (const [i, ip] of at.web.addresses.entries()) {
      const source = at.client.addresses[i]!;
      using talk = await Conversation.open(at.web, to(ip, 8080), { mark: MARK, source });
      await talk.receive(`you are ${source}.`);
      await talk.echoes("x".repeat(10_000));
    }
    expect(app.peers).toHaveLength(2);
  });

  test("DNS: UDP and TCP questions reach our resolver and are answered as if from the one asked", async () => {
    await using at = pair();
    using _udp4 = await answerUdp(at.web, to("127.0.0.1" as IpAddress, 15053), "ours");
    using _udp6 = await answerUdp(at.web, to("::1" as IpAddress, 15053), "ours");
    using _tcp = agent(at.web, 15053);
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    for (const ip of at.client.addresses) {
      expect(await askUdp(at.web, to(ip, 53), "who?")).toEqual({ answer: "ours", from: to(ip, 53) });
      using talk = await Conversation.open(at.web, to(ip, 53));
      await talk.receive(`for ${ip} 53.`);
    }
  });

  test("DNS: left alone when its capture is off; TCP port 53 is then outbound like any other", async () => {
    await using at = pair();
    using _theirs = await answerUdp(at.client, to(at.client.ipv4, 53), "theirs");
    using _agent = agent(at.web, 15001);
    value(installRedirect(at.web.namespaceFd, { ...OPTIONS, dnsCapture: false }));
    expect((await askUdp(at.web, to(at.client.ipv4, 53), "who?")).answer).toBe("theirs");
    using talk = await Conversation.open(at.web, to(at.client.ipv4, 53));
    await talk.receive(`for ${at.client.ipv4} 53.`);
  });

  test("probes: connections from a probe address to a probed port go to the application, others are captured", async () => {
    await using at = pair();
    using _app = Answerer.listen(at.web, 8080, () => "alive.");
    using _agent = agent(at.web, 15006);
    value(installRedirect(at.web.namespaceFd, { ...OPTIONS, probes: { addresses: at.client.addresses, ports: [8080, 8081] } }));
    for (const ip of at.web.addresses) {
      using talk = await Conversation.open(at.client, to(ip, 8080));
      await talk.receive("alive.");
      using other = await Conversation.open(at.client, to(ip, 9090));
      await other.receive(`for ${ip} 9090.`);
    }
    value(installRedirect(at.web.namespaceFd, { ...OPTIONS, probes: { addresses: ["198.51.100.7" as IpAddress], ports: [8080] } }));
    using stranger = await Conversation.open(at.client, to(at.web.ipv4, 8080));
    await stranger.receive(`for ${at.web.ipv4} 8080.`);
  });

  test("probe source: the node's own connections to a probed port come from the address that is set aside; nothing else does", async () => {
    await using at = pair();
    const { node } = at.web;
    const sources = ["198.51.100.7" as IpAddress, "2001:db8:7::7" as IpAddress];
    using _app = Answerer.listen(at.web, 8080, (peer) => `you are ${peer.from.ip}.`);
    using _other = Answerer.listen(at.web, 9090, (peer) => `you are ${peer.from.ip}.`);
    const probed = at.web.addresses.map((address) => ({ address, ports: [8080] }));
    expect(value(setProbeSource(node.namespaceFd, sources, probed))).toBeTrue();
    expect(value(setProbeSource(node.namespaceFd, sources, probed))).toBeFalse();
    for (const [i, ip] of at.web.addresses.entries()) {
      using probe = await Conversation.open(node, to(ip, 8080));
      await probe.receive(`you are ${sources[i]}.`);
      await probe.echoes("and back");
      using talk = await Conversation.open(node, to(ip, 9090));
      await talk.receive(`you are ${node.addresses[i]}.`);
    }
    expect(value(setProbeSource(node.namespaceFd, sources, []))).toBeTrue();
    using talk = await Conversation.open(node, to(at.web.ipv4, 8080));
    await talk.receive(`you are ${node.ipv4}.`);
    value(removeProbeSource(node.namespaceFd));
    value(removeProbeSource(node.namespaceFd));
  });

  test("IPv6 off in the namespace: IPv4 is captured and the note says so", async () => {
    await using network = MeshNetwork.create();
    const client = network.node("west").workload("client");
    const web = network.node("east").workload("web", { ipv6: false });
    using _agent = Answerer.listen(web, 15001, () => "captured.", MARK);
    const installed = value(installRedirect(web.namespaceFd, OPTIONS));
    expect(installed.notes).toEqual(["IPv6 is off in this namespace: nothing is set up for it"]);
    using talk = await Conversation.open(web, to(client.ipv4, 80));
    await talk.receive("captured.");
    expect(driftOf(value(inspectRedirect(web.namespaceFd, OPTIONS)))).toEqual([]);
    expect(value(removeRedirect(web.namespaceFd, OPTIONS))).toEqual({ kind: "removed" });
  });

  describeConnections();
  describeOwners();
  describeHost();
  describeKernel();
});

function describeConnections(): void {
  test("connections open before capture stay direct, whoever speaks first; new ones are captured", async () => {
    await using at = pair();
    using _app = Answerer.listen(at.web, 8080, () => "app.");
    using _far = Answerer.listen(at.client, 8080, () => "far.");
    using _own = Answerer.listen(at.web, 9090, () => "self.");
    const before: Conversation[] = [];
    for (const [place, ip, port, greeting] of [
      [at.client, at.web.ipv4, 8080, "app."], [at.client, at.web.ipv6!, 8080, "app."],
      [at.web, at.client.ipv4, 8080, "far."], [at.web, at.client.ipv6!, 8080, "far."],
      [at.web, "127.0.0.1" as IpAddress, 9090, "self."], [at.web, at.web.ipv4, 9090, "self."],
    ] as const) {
      const talk = await Conversation.open(place, to(ip, port));
      await talk.receive(greeting);
      before.push(talk);
    }
    using _in = agent(at.web, 15006);
    using _out = agent(at.web, 15001);
    expect(value(installRedirect(at.web.namespaceFd, OPTIONS)).notes).toEqual([]);
    for (const talk of before) {
      await talk.echoes("still here");
      await talk.echoes("x".repeat(5_000));
    }
    using inbound = await Conversation.open(at.client, to(at.web.ipv4, 8080));
    await inbound.receive(`for ${at.web.ipv4} 8080.`);
    using outbound = await Conversation.open(at.web, to(at.client.ipv4, 8080));
    await outbound.receive(`for ${at.client.ipv4} 8080.`);
    for (const talk of before) talk[Symbol.dispose]();
  });

  test("captured connections outlive another install, a take-over and a drain; drained, new ones are direct", async () => {
    await using at = pair();
    using _app = Answerer.listen(at.web, 8080, () => "app.");
    using _far = Answerer.listen(at.client, 8080, () => "far.");
    using _in = agent(at.web, 15006);
    using _out = agent(at.web, 15001);
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    using inbound = await Conversation.open(at.client, to(at.web.ipv4, 8080));
    using outbound = await Conversation.open(at.web, to(at.client.ipv6!, 8080));
    await inbound.receive(`for ${at.web.ipv4} 8080.`);
    await outbound.receive(`for ${at.client.ipv6} 8080.`);
    using spoofed = await Conversation.open(at.web, to(at.web.ipv4, 8080), { mark: MARK, source: at.client.ipv4 });
    await spoofed.receive("app.");
    const all = async (): Promise<void> => {
      for (const talk of [inbound, outbound, spoofed]) await talk.echoes("alive");
    };
    value(installRedirect(at.web.namespaceFd, { ...OPTIONS, dnsCapture: false }));
    await all();
    const other = { ...OPTIONS, owner: "agent-b" };
    expect(value(installRedirect(at.web.namespaceFd, other)).tookOverFrom).toBe("agent-a");
    await all();
    value(drainRedirect(at.web.namespaceFd, other));
    await all();
    using direct = await Conversation.open(at.client, to(at.web.ipv4, 8080));
    await direct.receive("app.");
    using out = await Conversation.open(at.web, to(at.client.ipv4, 8080));
    await out.receive("far.");
    value(installRedirect(at.web.namespaceFd, other));
    await all();
    await direct.echoes("direct still");
    await out.echoes("direct still");
    value(removeRedirect(at.web.namespaceFd, other));
    await direct.echoes("direct to the end");
    await out.echoes("direct to the end");
  });

  test("drained: a direct connection from a port that we dialled from for the same client keeps its port, and outlives the rules", async () => {
    await using at = pair();
    using app = Answerer.listen(at.web, 8080, () => "app.");
    using _in = agent(at.web, 15006);
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    for (const [i, source] of at.client.addresses.entries()) {
      const dialled = await Conversation.open(at.web, to(at.web.addresses[i]!, 8080), { mark: MARK, source });
      await dialled.receive("app.");
      dialled[Symbol.dispose]();
    }
    value(drainRedirect(at.web.namespaceFd, OPTIONS));
    const talks = await Promise.all(app.peers.slice().map(async ({ from, to: { ip } }) => {
      const direct = await Conversation.open(at.client, to(ip, 8080), { sourcePort: from.port });
      await direct.receive("app.");
      return direct;
    }));
    expect(app.peers.slice(2).map(({ from }) => from)).toEqual(app.peers.slice(0, 2).map(({ from }) => from));
    value(removeRedirect(at.web.namespaceFd, OPTIONS));
    for (const talk of talks) {
      await talk.echoes("direct to the end");
      talk[Symbol.dispose]();
    }
  });

  test("drained: a direct connection that was given another port, as its own was in use for us, is counted until it ends", async () => {
    await using at = pair();
    using app = Answerer.listen(at.web, 8080, () => "app.");
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    const dialled = await Conversation.open(at.web, to(at.web.ipv4, 8080), { mark: MARK, source: at.client.ipv4 });
    await dialled.receive("app.");
    const [{ from }] = app.peers as [Peer];
    value(drainRedirect(at.web.namespaceFd, OPTIONS));
    const direct = await Conversation.open(at.client, to(at.web.ipv4, 8080), { sourcePort: from.port });
    await direct.receive("app.");
    expect(app.peers[1]!.from.port).not.toBe(from.port);
    const carried = () => value(countCarried(at.web.namespaceFd, OPTIONS));
    await dialled.end();
    await until("what we dialled has ended", 5_000, () => carriedOf(value(liveConnections(at.web.namespaceFd)), OPTIONS).length === 0);
    expect(carried()).toBe(1);
    await direct.echoes("still here");
    await direct.end();
    await until("nothing needs the rules", 5_000, () => carried() === 0);
  });
}

function describeOwners(): void {
  test("two agents overlap: the leaving one neither removes, repairs nor drains what the new one holds", async () => {
    await using at = pair();
    const [old, fresh] = [OPTIONS, { ...OPTIONS, owner: "agent-b" }];
    const ns = at.web.namespaceFd;
    expect(value(installRedirect(ns, old))).toMatchObject({ changed: true, tookOverFrom: null });
    expect(value(installRedirect(ns, fresh))).toMatchObject({ changed: true, tookOverFrom: "agent-a" });
    expect(value(removeRedirect(ns, old))).toEqual({ kind: "ownedByOther", owner: "agent-b" });
    for (const refused of [repairRedirect(ns, old), drainRedirect(ns, old)]) {
      expect(refused).toMatchObject({ ok: false, error: { code: "redirect_superseded" } });
    }
    expect(value(inspectRedirect(ns, fresh))).toMatchObject({ kind: "present", owner: "agent-b", drift: [] });
    expect(value(installRedirect(ns, fresh))).toMatchObject({ changed: false });
    expect(value(removeRedirect(ns, fresh))).toEqual({ kind: "removed" });
    expect(value(inspectRedirect(ns, fresh))).toEqual({ kind: "absent", leftovers: [] });
    expect(value(removeRedirect(ns, old))).toEqual({ kind: "absent" });
  });

  test("after a crash: routing without rules is found and taken away, a table of our name without our stamp is replaced", async () => {
    await using at = pair();
    const ns = at.web.namespaceFd;
    value(installRedirect(ns, OPTIONS));
    value(removeRedirect(ns, OPTIONS));
    using links = at.web.links();
    must(links.ensureRule({ family: 4, priority: 32764, mark: 0x111, mask: 0xfff, table: 100 }));
    expect(value(inspectRedirect(ns, OPTIONS))).toEqual({ kind: "absent", leftovers: ["IPv4 routing rule 32764 for replies"] });
    expect(value(removeRedirect(ns, OPTIONS))).toEqual({ kind: "absent" });
    expect(value(inspectRedirect(ns, OPTIONS))).toEqual({ kind: "absent", leftovers: [] });
    using socket = must(NetlinkSocket.open(ns, NETLINK_NETFILTER));
    const table = { family: NFPROTO_INET, name: "weft", comment: "" };
    must(socket.batch("a table", [{ object: "table", write: (writer, stamp) => writeNewTable(writer, stamp, table) }], null));
    expect(driftOf(value(inspectRedirect(ns, OPTIONS)))[0]).toContain("not stamped by us");
    expect(value(repairRedirect(ns, OPTIONS))).toMatchObject({ changed: true });
    expect(driftOf(value(inspectRedirect(ns, OPTIONS)))).toEqual([]);
  });

  test("missing routing is seen and repaired", async () => {
    await using at = pair();
    const ns = at.web.namespaceFd;
    value(installRedirect(ns, OPTIONS));
    using links = at.web.links();
    must(links.deleteRule({ family: 6, priority: 32764, mark: 0x111, mask: 0xfff, table: 100 }));
    const lo = must(links.loopback());
    must(links.deleteRoute({ family: 4, to: null, via: null, linkIndex: lo.index, table: 100, type: "local" }));
    expect(driftOf(value(inspectRedirect(ns, OPTIONS)))).toEqual(["IPv4 local route in table 100 for replies", "IPv6 routing rule 32764 for replies"]);
    value(repairRedirect(ns, OPTIONS));
    expect(driftOf(value(inspectRedirect(ns, OPTIONS)))).toEqual([]);
  });

  test("options that differ from what is in force are drift, and a repair brings them", async () => {
    await using at = pair();
    const ns = at.web.namespaceFd;
    value(installRedirect(ns, OPTIONS));
    const wanted = { ...OPTIONS, exclusions: { ...NOTHING_EXCLUDED, outboundPorts: [25] } };
    expect(driftOf(value(inspectRedirect(ns, wanted))).length).toBeGreaterThan(0);
    expect(value(repairRedirect(ns, wanted))).toMatchObject({ changed: true });
    expect(driftOf(value(inspectRedirect(ns, wanted)))).toEqual([]);
  });
}

function describeHost(): void {
  test("host: SSH is left alone unless asked for, excluded inbound ports too, and forwarded packets always", async () => {
    await using network = MeshNetwork.create();
    const [east, west] = [network.node("east"), network.node("west")];
    const [web, client] = [east.workload("web"), west.workload("client")];
    using _ssh = Answerer.listen(east, 22, () => "ssh.");
    using _app = Answerer.listen(east, 8443, () => "app.");
    using _behind = Answerer.listen(web, 8080, () => "behind.");
    using _agent = Answerer.listen(east, 15006, () => "captured.", MARK);
    const options: RedirectOptions = { ...OPTIONS, scope: "host", exclusions: { ...NOTHING_EXCLUDED, inboundPorts: [8443, 8444] } };
    value(installRedirect(east.namespaceFd, options));
    const greeting = async (ip: IpAddress, port: number, text: string): Promise<void> => {
      using talk = await Conversation.open(client, to(ip, port));
      await talk.receive(text);
    };
    await greeting(east.ipv4, 22, "ssh.");
    await greeting(east.ipv6!, 8443, "app.");
    await greeting(east.ipv4, 9999, "captured.");
    await greeting(web.ipv4, 8080, "behind.");
    value(installRedirect(east.namespaceFd, { ...options, captureSsh: true, inboundPortsOnly: [22, 80, 81] }));
    await greeting(east.ipv4, 22, "captured.");
    await greeting(east.ipv6!, 81, "captured.");
    await greeting(east.ipv4, 8443, "app.");
    value(removeRedirect(east.namespaceFd, options));
    await greeting(east.ipv4, 22, "ssh.");
  });

  test("host: excluded destinations, ports and users are dialled directly", async () => {
    await using at = pair();
    using _far = Answerer.listen(at.client, 8080, () => "far.");
    using _agent = agent(at.web, 15001);
    const reach = async (exclusions: Partial<RedirectOptions["exclusions"]>, ip: IpAddress): Promise<string> => {
      value(installRedirect(at.web.namespaceFd, { ...OPTIONS, exclusions: { ...NOTHING_EXCLUDED, ...exclusions } }));
      using talk = await Conversation.open(at.web, to(ip, 8080));
      return (await Promise.race([talk.receive("far.").catch(() => talk.receive(`for ${ip} 8080.`).then(() => false))])) ? "direct" : "captured";
    };
    const [v4, v6] = [at.client.ipv4, at.client.ipv6!];
    expect(await reach({ outboundCidrs: [parseCidr("198.18.2.0/23")!] }, v4)).toBe("direct");
    expect(await reach({ outboundCidrs: [parseCidr("198.18.4.0/22")!] }, v4)).toBe("captured");
    expect(await reach({ outboundCidrs: [parseCidr("2001:db8:2::/61")!] }, v6)).toBe("direct");
    expect(await reach({ outboundCidrs: [parseCidr("0.0.0.0/0")!] }, v4)).toBe("direct");
    expect(await reach({ outboundPorts: [8079, 8080, 8081] }, v6)).toBe("direct");
    expect(await reach({ outboundPorts: [8079, 8081] }, v6)).toBe("captured");
    expect(await reach({ uids: [{ first: 0, last: 0 }] }, v4)).toBe("direct");
    expect(await reach({ uids: [{ first: 0, last: 999 }] }, v4)).toBe("direct");
    expect(await reach({ uids: [{ first: 1, last: 0xffffffff }] }, v4)).toBe("captured");
  });

  const cgroup = ownCgroup();
  testUnless(cgroup.reason)("host: a process in an excluded cgroup dials directly; one that does not exist is noted", async () => {
    await using at = pair();
    using _far = Answerer.listen(at.client, 8080, () => "far.");
    using _agent = Answerer.listen(at.web, 15001, () => "captured.", MARK);
    const exclusions = { ...NOTHING_EXCLUDED, cgroups: [cgroup.path, "weft/no-such"] };
    const installed = value(installRedirect(at.web.namespaceFd, { ...OPTIONS, exclusions }));
    expect(installed.notes).toEqual(["cgroup weft/no-such does not exist on this host: nothing is excluded by it"]);
    using captured = await Conversation.open(at.web, to(at.client.ipv4, 8080));
    await captured.receive("captured.");
    const dialler = `echo $$ > ${join(unifiedRoot()!, cgroup.path)}/cgroup.procs && exec ${process.execPath} -e '
      Bun.connect({ hostname: "${at.client.ipv4}", port: 8080, socket: { data(s, d) { console.log(d.toString()); process.exit(0); } } })'`;
    expect(await at.web.run(["sh", "-c", dialler])).toEqual({ exitCode: 0, stdout: "far.\n", stderr: "" });
    cgroup.remove();
  });
}

/** A cgroup of our own below the root of the unified hierarchy, where we may make one. */
function ownCgroup(): { path: string; reason: string | null; remove: () => void } {
  const path = `weft-test-${process.pid}`;
  const root = unifiedRoot();
  if (unsealed !== null || root === null) return { path, reason: unsealed ?? "no cgroup v2 hierarchy is mounted", remove: () => undefined };
  try {
    mkdirSync(join(root, path));
    writeFileSync(join(root, path, "cgroup.procs"), "");
  } catch {
    // Writing nothing is allowed or not; what counts is that the folder is there.
  }
  const there = readFileSync("/proc/self/mountinfo", "utf8").includes("cgroup2") && Bun.spawnSync(["test", "-w", join(root, path, "cgroup.procs")]).exitCode === 0;
  return { path, reason: there ? null : "may not make a cgroup here", remove: () => rmdirSync(join(root, path)) };
}

function describeKernel(): void {
  const nft = needsProgram("nft");
  testUnless(nft)("the kernel has exactly the rules that Istio's meaning asks for", async () => {
    await using at = pair();
    value(installRedirect(at.web.namespaceFd, { ...OPTIONS, probes: { addresses: ["198.51.100.7" as IpAddress], ports: [8080] } }));
    const { stdout } = await at.web.run(["nft", "list", "table", "inet", "weft"]);
    const rules = stdout.split("\n").filter((line) => line.includes(' comment "') && line.startsWith("\t\t")).map(plainRule);
    expect(rules.toSorted()).toEqual([
      "ip daddr 127.0.0.0/8 accept",
      "ip saddr 198.51.100.7 tcp dport 8080 accept",
      "ip6 daddr ::1 accept",
      "ip6 daddr fe80::/10 accept",
      "meta l4proto != tcp accept",
      "meta l4proto != tcp accept",
      "meta l4proto tcp oifname \"lo\" meta mark & 0x00000fff == 0x00000539 ct original zone set 2",
      "meta l4proto tcp redirect to :15001",
      "meta l4proto tcp redirect to :15006",
      "meta mark & 0x00000fff != 0x00000539 ct mark & 0x00000fff == 0x00000111 meta mark set ...",
      "meta mark & 0x00000fff == 0x00000111 accept",
      "meta mark & 0x00000fff == 0x00000539 accept",
      "meta mark & 0x00000fff == 0x00000539 accept",
      "meta mark & 0x00000fff == 0x00000539 ct mark set ...",
      "meta mark & 0x00000fff == 0x00000539 ip6 daddr fe80::/10 accept",
      "oifname \"lo\" accept",
      "tcp dport 53 redirect to :15053",
      "th dport 15008 accept",
      "udp dport 53 meta mark & 0x00000fff == 0x00000539 ct zone set 1",
      "udp dport 53 redirect to :15053",
      "udp sport 53 meta mark & 0x00000fff != 0x00000539 ct zone set 1",
    ]);
  });

  testUnless(nft)("rules that were flushed, deleted or added are seen and repaired; other tables are never touched", async () => {
    await using at = pair();
    const ns = at.web.namespaceFd;
    await at.web.run(["nft", "add table ip others; add chain ip others c { type filter hook input priority 0; }; add rule ip others c accept"]);
    const others = (await at.web.run(["nft", "list", "table", "ip", "others"])).stdout;
    value(installRedirect(ns, OPTIONS));
    for (const damage of [
      "flush chain inet weft nat-output",
      "delete chain inet weft nat-prerouting",
      "add rule inet weft nat-output accept",
      "insert rule inet weft nat-output tcp dport 80 accept",
      "flush ruleset",
    ]) {
      const prefix = damage.startsWith("delete chain") ? "flush chain inet weft nat-prerouting; " : "";
      expect((await at.web.run(["nft", prefix + damage])).exitCode).toBe(0);
      if (damage === "flush ruleset") expect(value(inspectRedirect(ns, OPTIONS)).kind).toBe("absent");
      else expect(driftOf(value(inspectRedirect(ns, OPTIONS)))).not.toEqual([]);
      expect(value(repairRedirect(ns, OPTIONS))).toMatchObject({ changed: true });
      expect(driftOf(value(inspectRedirect(ns, OPTIONS)))).toEqual([]);
      if (damage !== "flush ruleset") expect((await at.web.run(["nft", "list", "table", "ip", "others"])).stdout).toBe(others);
    }
    value(removeRedirect(ns, OPTIONS));
    expect((await at.web.run(["nft", "list", "ruleset"])).stdout).toBe("");
  });

  testUnless(needsProgram("ip"))("removal leaves rules and routes as they were found", async () => {
    await using at = pair();
    const seen = async (): Promise<string> => (await at.web.run(["sh", "-c", "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all"])).stdout;
    const before = await seen();
    value(installRedirect(at.web.namespaceFd, OPTIONS));
    expect(await seen()).not.toBe(before);
    value(removeRedirect(at.web.namespaceFd, OPTIONS));
    expect(await seen()).toBe(before);
  });

  test("a transaction decided on stale rules is refused whole", async () => {
    await using at = pair();
    using socket = must(NetlinkSocket.open(at.web.namespaceFd, NETLINK_NETFILTER));
    const table = (name: string) => ({ object: `table ${name}`, write: (writer: Parameters<typeof writeNewTable>[0], stamp: Parameters<typeof writeNewTable>[1]) => writeNewTable(writer, stamp, { family: NFPROTO_INET, name, comment: "" }) });
    must(socket.batch("one", [table("one")], null));
    const stale = socket.batch("two", [table("two")], 0x7fffffff);
    expect(stale).toMatchObject({ ok: false, error: { code: "netlink_refused", errno: 85 } });
  });

  test("a refusal names the object and the kernel's reason", async () => {
    await using at = pair();
    using links = at.web.links();
    const again = links.addVeth({ near: { name: "eth0", namespaceFd: null }, far: { name: "other", namespaceFd: null }, mtu: null });
    expect(again).toMatchObject({ ok: false, error: { errno: 17, message: expect.stringContaining("veth pair eth0 and other: EEXIST") } });
    const bad = installRedirect(at.web.namespaceFd, { ...OPTIONS, owner: "not an owner" });
    expect(bad).toMatchObject({ ok: false, error: { code: "redirect_options", blame: "operator" } });
  });
}

/** Without counts and comments, and without nft's rendering of "clear the mask, set the value", which differs between its versions. */
function plainRule(line: string): string {
  return line.trim().replace(/counter packets \d+ bytes \d+ /, "").replace(/ comment ".*"$/, "").replace(/ mark set .*/, " mark set ...");
}
