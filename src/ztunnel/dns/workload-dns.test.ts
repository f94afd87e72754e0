import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { unsealed } from "../../../test/kit/box.ts";
import { delta, ip, member, service, workload } from "../../../test/kit/mesh-records.ts";
import { MeshNetwork, type Place, type Workload as PlaceOfWorkload } from "../../../test/kit/network.ts";
import { describeUnless, firstReason, needsProgram } from "../../../test/kit/skip.ts";
import { until } from "../../../test/kit/until.ts";
import type { IpAddress, SocketAddress } from "../../core/ip.ts";
import { systemClock } from "../../core/ports.ts";
import { MeshStore } from "../../mesh/store.ts";
import { F_DUPFD_CLOEXEC, fcntl } from "../../net/libc.ts";
import { REDIRECT_DEFAULTS } from "../../net/redirect/options.ts";
import { installRedirect, removeRedirect } from "../../net/redirect/redirect.ts";
import { decodeMessage } from "../../wire/dns/decode.ts";
import { encodeMessage } from "../../wire/dns/encode.ts";
import { addressRecord, cnameRecord, type DnsMessage, type Edns } from "../../wire/dns/message.ts";
import { RecordType, ResponseCode } from "../../wire/dns/types.ts";
import type { DnsLimits } from "./limits.ts";
import type { DnsMetrics } from "./metrics.ts";
import { secureRandom } from "./secure-random.ts";
import { frame, FrameReader } from "./tcp-frames.ts";
import { DNS_PORT, DNS_ROLES, type DnsRole, WorkloadDns } from "./workload-dns.ts";

const MARK = 0x539;

const store = new MeshStore();
store.apply(delta({
  services: [service({ name: "web", vips: ["198.18.100.1", "2001:db8:100::1"] }), service({ name: "db", headless: true }), service({ name: "six", vips: ["2001:db8:100::6"], ipFamilies: "ipv6" })],
  workloads: [
    ...Array.from({ length: 200 }, (_, i) => workload({ name: `db-${i}`, addresses: [ip(`198.19.0.${i}`)], services: member({ "shop/db.shop.svc.cluster.local": { 80: 5432 } }) })),
  ],
}));
const client = workload({ name: "client" });

type Protocol = "udp" | "tcp";
/** What the upstream sends back for a question, in order; nothing is silence. */
type Behaviour = (query: DnsMessage, protocol: Protocol, bytes: Uint8Array) => readonly Uint8Array[];

/** A resolver of our own making, on port 53 of a place. */
class Upstream {
  readonly seen: { readonly query: DnsMessage; readonly protocol: Protocol; readonly from: string; readonly port: number }[] = [];
  behave: Behaviour = (query) => [answer(query, ["198.18.200.1"])];
  #udp!: { close(): void; send(bytes: Uint8Array, port: number, address: string): boolean };
  #tcp!: { stop(force: boolean): void };

  static async at(place: Place, address: IpAddress): Promise<Upstream> {
    const upstream = new Upstream();
    upstream.#udp = await place.inside(() => Bun.udpSocket({
      hostname: address, port: 53,
      socket: {
        data: (socket, bytes, port, from) => {
          for (const reply of upstream.#answers(bytes, "udp", from, port)) socket.send(reply, port, from);
        },
      },
    }));
    upstream.#tcp = place.inside(() => Bun.listen<{ reader: FrameReader; unsent: Uint8Array }>({
      hostname: address, port: 53,
      socket: {
        open: (socket) => void (socket.data = { reader: new FrameReader(), unsent: new Uint8Array(0) }),
        data: (socket, chunk) => {
          socket.data.reader.push(chunk);
          for (let query = socket.data.reader.next(); query !== null; query = socket.data.reader.next()) {
            for (const reply of upstream.#answers(query, "tcp", socket.remoteAddress, 0)) socket.data.unsent = new Uint8Array([...socket.data.unsent, ...frame(reply)]);
          }
          socket.data.unsent = socket.data.unsent.subarray(socket.write(socket.data.unsent));
        },
        drain: (socket) => void (socket.data.unsent = socket.data.unsent.subarray(socket.write(socket.data.unsent))),
      },
    }));
    return upstream;
  }

  #answers(bytes: Uint8Array, protocol: Protocol, from: string, port: number): readonly Uint8Array[] {
    const read = decodeMessage(bytes);
    if (!read.ok) throw new Error(`the proxy sent a malformed question: ${read.error}`);
    this.seen.push({ query: read.value, protocol, from, port });
    return this.behave(read.value, protocol, bytes);
  }

  /** Answers a datagram that it let wait. */
  answerLate(index: number, make: (query: DnsMessage) => Uint8Array): void {
    const { query, port, from } = this.seen[index]!;
    this.#udp.send(make(query), port, from);
  }

  close(): void {
    this.#udp.close();
    this.#tcp.stop(true);
  }
}

function replyTo(query: DnsMessage, more: Partial<DnsMessage> = {}): Uint8Array {
  return encodeMessage({ ...query, response: true, recursionAvailable: true, ...more });
}
const answer = (query: DnsMessage, addresses: readonly string[], ttl = 60): Uint8Array =>
  replyTo(query, { answers: addresses.map((text) => addressRecord(query.questions[0]!.name, ip(text), ttl)) });
const changed = (bytes: Uint8Array, at: number, value: number): Uint8Array => Uint8Array.from(bytes, (byte, i) => (i === at ? value : byte));

const question = (name: string, type: keyof typeof RecordType = "A", more: Partial<DnsMessage> = {}): DnsMessage => ({
  id: 0x4242, response: false, opcode: 0, authoritative: false, truncated: false, recursionDesired: true, recursionAvailable: false, authenticData: false,
  checkingDisabled: false, rcode: 0, questions: [{ name, type: RecordType[type], class: 1 }], answers: [], authorities: [], additionals: [], edns: null, ...more,
});
const bigEdns: Edns = { udpBytes: 4096, version: 0, dnssecOk: false, extendedRcode: 0, options: new Uint8Array(0) };

class Counts implements DnsMetrics {
  readonly all = new Map<string, number>();
  request = ({ queryType, protocol }: { queryType: string; protocol: string }): void => this.#add(`request ${queryType} ${protocol}`);
  upstream = (): void => this.#add("upstream");
  upstreamFailure = (): void => this.#add("upstream failure");
  upstreamDuration = (_labels: unknown, seconds: number): void => this.#add(seconds >= 0 && seconds < 60 ? "upstream duration" : "absurd duration");
  refused = (reason: string): void => this.#add(`refused ${reason}`);
  badReply = (reason: string): void => this.#add(`bad reply ${reason}`);
  of(name: string): number {
    return this.all.get(name) ?? 0;
  }
  #add(name: string): void {
    this.all.set(name, this.of(name) + 1);
  }
}

const WAIT_MS = 5_000;

/** At most as many as before: a program of an earlier test may still have had its pipes open then. */
const openFds = (): number => readdirSync("/proc/self/fd").length;

describeUnless(firstReason(unsealed, needsProgram("dig")))("DNS proxy", () => {
  let network: MeshNetwork;
  let web: PlaceOfWorkload;
  let first: Upstream;
  let second: Upstream;
  let upstreams: SocketAddress[];
  let counts: Counts;
  const running: WorkloadDns[] = [];
  const sockets: { close(): void }[] = [];

  beforeAll(() => {
    network = MeshNetwork.create();
    web = network.node("east").workload("web");
    const west = network.node("west");
    west.workload("resolver-a");
    west.workload("resolver-b");
  });
  afterAll(() => network[Symbol.asyncDispose]());

  beforeEach(async () => {
    const [a, b] = network.nodes[1]!.workloads as [PlaceOfWorkload, PlaceOfWorkload];
    first = await Upstream.at(a, a.ipv4);
    second = await Upstream.at(b, b.ipv4);
    upstreams = [{ ip: a.ipv4, port: 53 }, { ip: b.ipv4, port: 53 }];
    counts = new Counts();
  });
  afterEach(() => {
    for (const dns of running.splice(0)) dns.stop();
    for (const socket of sockets.splice(0)) socket.close();
    first.close();
    second.close();
  });

  function make(limits: Partial<DnsLimits> = {}, place: Place = web, inherited: (role: DnsRole) => number[] = () => []): WorkloadDns {
    const dns = new WorkloadDns({
      namespaceFd: place.namespaceFd, workload: () => client, store, clusterDomain: "cluster.local", resolver: () => ({ upstreams, searchDomains: null }),
      mark: MARK, ipv6: true, random: secureRandom, clock: systemClock, metrics: counts, limits, inherited,
    });
    running.push(dns);
    return dns;
  }

  async function started(limits: Partial<DnsLimits> = {}, place: Place = web): Promise<WorkloadDns> {
    const dns = make(limits, place);
    const outcome = await dns.start();
    if (!outcome.ok) throw new Error(outcome.error.message);
    return dns;
  }

  /** A real client's whole output. */
  async function dig(...args: string[]): Promise<string> {
    const { stdout, stderr } = await web.run(["dig", "-p", String(DNS_PORT), "+tries=1", "+time=4", ...args]);
    return stdout + stderr;
  }
  const short = async (...args: string[]): Promise<string[]> => (await dig("+short", ...args)).trim().split("\n").filter((line) => line !== "").sort();

  /** Raw datagrams; `reply` resolves to the next one that comes back. */
  async function rawUdp(): Promise<{ send(bytes: Uint8Array): void; replies: Uint8Array[]; reply(): Promise<DnsMessage> }> {
    const replies: Uint8Array[] = [];
    const socket = await web.inside(() => Bun.udpSocket({ hostname: "127.0.0.1", port: 0, socket: { data: (_socket, bytes) => void replies.push(bytes.slice()) } }));
    sockets.push(socket);
    let taken = 0;
    return {
      replies,
      send: (bytes) => void socket.send(bytes, DNS_PORT, "127.0.0.1"),
      async reply() {
        await until("a reply", WAIT_MS, () => replies.length > taken);
        const read = decodeMessage(replies[taken++]!);
        if (!read.ok) throw new Error(read.error);
        return read.value;
      },
    };
  }

  interface RawTcp {
    readonly messages: DnsMessage[];
    closed: boolean;
    write(bytes: Uint8Array): void;
    pause(): void;
    end(): void;
  }

  async function rawTcp(): Promise<RawTcp> {
    const reader = new FrameReader();
    const talk: RawTcp = { messages: [], closed: false, write: () => {}, pause: () => {}, end: () => {} };
    const socket = await web.inside(() => Bun.connect({
      hostname: "127.0.0.1", port: DNS_PORT, allowHalfOpen: true,
      socket: {
        data: (_socket, chunk) => {
          reader.push(chunk);
          for (let message = reader.next(); message !== null; message = reader.next()) {
            const read = decodeMessage(message);
            if (!read.ok) throw new Error(read.error);
            talk.messages.push(read.value);
          }
        },
        end: () => void (talk.closed = true),
        close: () => void (talk.closed = true),
        error: () => {},
      },
    }));
    sockets.push({ close: () => socket.terminate() });
    talk.write = (bytes) => void socket.write(bytes);
    talk.pause = () => socket.pause();
    talk.end = () => void socket.shutdown();
    return talk;
  }

  // What is ours

  test("answers for services by UDP and TCP, on 127.0.0.1 and ::1", async () => {
    await started();
    for (const server of ["@127.0.0.1", "@::1"]) {
      for (const protocol of ["+notcp", "+tcp"]) {
        expect(await short(server, protocol, "web.shop.svc.cluster.local", "A")).toEqual(["198.18.100.1"]);
        expect(await short(server, protocol, "web", "AAAA")).toEqual(["2001:db8:100::1"]);
      }
    }
    expect(counts.of("request A udp")).toBe(2);
    expect(counts.of("request AAAA tcp")).toBe(2);
    expect(first.seen).toEqual([]);
  });

  test("answers by CNAME for a name that the client completed, SRV with its addresses, and an empty NOERROR", async () => {
    await started();
    expect(await short("@127.0.0.1", "web.shop.shop.svc.cluster.local")).toEqual(["198.18.100.1", "web.shop.svc.cluster.local."]);
    expect(await short("@127.0.0.1", "_http._tcp.web.shop", "SRV")).toEqual(["0 100 80 web.shop.svc.cluster.local."]);
    const nothing = await dig("@127.0.0.1", "db.shop", "AAAA");
    expect(nothing).toContain("status: NOERROR");
    expect(nothing).toContain("flags: qr aa rd ra;");
    expect(nothing).toContain("ANSWER: 0");
  });

  test("keeps the case of the question, and speaks EDNS with those who do", async () => {
    await started();
    const output = await dig("@127.0.0.1", "+dnssec", "WeB.sHoP");
    expect(output).toMatch(/^WeB\.sHoP\.\s+30\s+IN\s+A\s+198\.18\.100\.1$/m);
    expect(output).toContain("EDNS: version: 0, flags: do; udp: 1232");
    expect(await dig("@127.0.0.1", "+noedns", "web")).not.toContain("EDNS");
    expect(await dig("@127.0.0.1", "+edns=1", "+noednsnegotiation", "web")).toContain("status: BADVERS");
  });

  test("200 endpoints do not fit in a datagram: truncated, then whole by TCP", async () => {
    await started();
    const raw = await rawUdp();
    raw.send(encodeMessage(question("db")));
    const reply = await raw.reply();
    expect(reply.truncated).toBe(true);
    expect(raw.replies[0]!.length).toBeLessThanOrEqual(512);
    expect(await short("@127.0.0.1", "db")).toHaveLength(200);
  });

  // What is not

  test("forwards every type untouched, from the workload's own address, with an id and a port of our own", async () => {
    await started();
    const text = { name: "example.test", type: RecordType.TXT, class: 1, ttl: 0, rdata: Uint8Array.of(2, 0x68, 0x69) };
    const odd = { name: "example.test", type: 65280, class: 1, ttl: 7, rdata: Uint8Array.of(0xc0, 0x0c) };
    first.behave = (query) => [replyTo(query, { answers: [text, odd], authenticData: true })];
    const raw = await rawUdp();
    const options = Uint8Array.of(0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8);
    const asked = question("example.test", "TXT", { edns: { ...bigEdns, dnssecOk: true, options }, checkingDisabled: true });
    const ids = new Set<number>();
    const ports = new Set<number>();
    for (let i = 0; i < 20; i++) {
      raw.send(encodeMessage(asked));
      const reply = await raw.reply();
      expect(reply).toMatchObject({ id: 0x4242, answers: [text, odd], authenticData: true, edns: asked.edns });
      ids.add(first.seen[i]!.query.id);
      ports.add(first.seen[i]!.port);
      expect(first.seen[i]!.from).toBe(web.ipv4);
      expect({ ...first.seen[i]!.query, id: 0 }).toEqual({ ...asked, id: 0 });
    }
    expect(ids.size).toBeGreaterThan(15);
    expect(ports.size).toBeGreaterThan(15);
    expect(counts.of("upstream")).toBe(20);
    expect(counts.of("upstream duration")).toBe(20);
  });

  test("a resolver of IPv6 is asked by UDP and TCP, for names of addresses too", async () => {
    const place = network.nodes[1]!.workloads[0]!;
    const six = await Upstream.at(place, place.ipv6!);
    try {
      upstreams = [{ ip: place.ipv6!, port: 53 }];
      await started();
      for (const server of ["@127.0.0.1", "@::1"]) {
        for (const protocol of ["+notcp", "+tcp"]) {
          expect(await short(server, protocol, "example.test")).toEqual(["198.18.200.1"]);
          expect(await dig(server, protocol, "-x", "2001:db8:100::1")).toContain("status: NOERROR");
        }
      }
      const reverse = `1.${"0.".repeat(19)}0.0.1.0.8.b.d.0.1.0.0.2.ip6.arpa`;
      expect(six.seen.map(({ query, protocol, from }) => [query.questions[0]!.name.replace(reverse, "its address"), protocol, from])).toEqual(
        [1, 2].flatMap(() => (["udp", "tcp"] as const).flatMap((protocol) => ["example.test", "its address"].map((name) => [name, protocol, web.ipv6!]))));
    } finally {
      six.close();
    }
  });

  test("a service of IPv6 alone: its AAAA record, and for A an empty answer that denies nothing, with the search path gone through or not", async () => {
    await started();
    for (const name of ["six", "six.shop.svc.cluster.local"]) {
      expect(await short("@127.0.0.1", name, "AAAA")).toEqual(["2001:db8:100::6"]);
      const empty = await dig("@127.0.0.1", name, "A");
      expect(empty).toContain("status: NOERROR");
      expect(empty).toContain("ANSWER: 0");
    }
    expect(first.seen).toEqual([]);
  });

  test("captured for real: questions to any resolver, ours not captured again", async () => {
    await started();
    const options = { ...REDIRECT_DEFAULTS, owner: "dns-test" };
    const installed = installRedirect(web.namespaceFd, options);
    if (!installed.ok) throw new Error(installed.error.message);
    try {
      const captured = async (...args: string[]) => (await web.run(["dig", "+short", "+tries=1", "+time=4", ...args])).stdout.trim();
      for (const server of [first, second].map((_, i) => upstreams[i]!.ip)) {
        for (const protocol of ["+notcp", "+tcp"]) {
          expect(await captured(`@${server}`, protocol, "web.shop.svc.cluster.local")).toBe("198.18.100.1");
          expect(await captured(`@${server}`, protocol, "example.test")).toBe("198.18.200.1");
        }
      }
      expect(await captured("@2001:db8:2::a", "web.shop.svc.cluster.local")).toBe("198.18.100.1");
      // Whatever the client asked, the workload's first resolver is asked, once for each question.
      expect(first.seen).toHaveLength(4);
      expect(second.seen).toHaveLength(0);
    } finally {
      removeRedirect(web.namespaceFd, options);
    }
  });

  test("an NXDOMAIN for a type of a name that is ours becomes NOERROR, for other names it stays", async () => {
    await started();
    first.behave = (query) => [replyTo(query, { rcode: ResponseCode.NXDOMAIN })];
    expect(await dig("@127.0.0.1", "web.shop", "TXT")).toContain("status: NOERROR");
    expect(await dig("@127.0.0.1", "example.test", "TXT")).toContain("status: NXDOMAIN");
  });

  test("a CNAME loop and a TTL of 0 are the client's to judge: passed on, never followed", async () => {
    await started();
    first.behave = (query) => [replyTo(query, { answers: [cnameRecord("a.test", "b.test", 0), cnameRecord("b.test", "a.test", 0)] })];
    expect(await dig("@127.0.0.1", "a.test")).toContain("ANSWER: 2");
    expect(first.seen).toHaveLength(1);
  });

  // Hostile and broken resolvers

  test("wrong ids, wrong questions and garbage are ignored, the true reply after them is taken", async () => {
    await started();
    first.behave = (query) => {
      const good = answer(query, ["198.18.200.1"]);
      const forged = answer(query, ["198.18.200.66"]);
      return [
        changed(forged, 0, forged[0]! ^ 1), answer({ ...query, questions: [{ ...query.questions[0]!, name: "other.test" }] }, ["198.18.200.66"]),
        Uint8Array.of(1, 2, 3), forged.subarray(0, 20), changed(forged, 2, 0), changed(forged, 7, 200), good,
      ];
    };
    expect(await short("@127.0.0.1", "example.test")).toEqual(["198.18.200.1"]);
    expect(counts.of("bad reply id")).toBe(1);
    expect(counts.of("bad reply question")).toBe(2);
    expect(counts.of("bad reply short")).toBe(1);
    expect(counts.of("bad reply malformed")).toBe(2);
  });

  test("a forger who guesses and guesses loses the socket: the next resolver is asked", async () => {
    await started({ attemptMs: 60_000 });
    first.behave = (query) => Array.from({ length: 100 }, (_, i) => changed(answer(query, ["198.18.200.66"]), 1, (query.id + 1 + i) & 0xff));
    second.behave = (query) => [answer(query, ["198.18.200.2"])];
    expect(await short("@127.0.0.1", "example.test")).toEqual(["198.18.200.2"]);
    expect(counts.of("bad reply id")).toBe(16);
  });

  test("a reply from another address or port is never seen", async () => {
    await started({ attemptMs: 100, answerMs: 400 });
    const [a, b] = network.nodes[1]!.workloads as [PlaceOfWorkload, PlaceOfWorkload];
    // The kernel turns them away before we see them: their senders are told that nobody listens.
    let turnedAway = 0;
    const socket = { error: () => void turnedAway++ };
    const elsewhere = await Promise.all([
      b.inside(() => Bun.udpSocket({ hostname: b.ipv4, port: 0, socket })), a.inside(() => Bun.udpSocket({ hostname: a.ipv4, port: 5353, socket })),
    ]);
    sockets.push(...elsewhere);
    first.behave = (query) => {
      const { port, from } = first.seen.at(-1)!;
      for (const forger of elsewhere) forger.send(answer(query, ["198.18.200.66"]), port, from);
      return [];
    };
    second.behave = () => [];
    expect(await dig("@127.0.0.1", "example.test")).toContain("status: SERVFAIL");
    expect(turnedAway).toBeGreaterThan(0);
    expect([...counts.all.keys()].filter((name) => name.startsWith("bad reply"))).toEqual([]);
  });

  test("a truncated reply is passed on; the client's TCP question goes upstream by TCP", async () => {
    await started();
    const addresses = Array.from({ length: 250 }, (_, i) => `198.19.1.${i}`);
    first.behave = (query, protocol) => [protocol === "udp" ? replyTo(query, { truncated: true }) : answer(query, addresses)];
    expect(await short("@127.0.0.1", "example.test")).toHaveLength(250);
    expect(first.seen.map(({ protocol }) => protocol)).toEqual(["udp", "tcp"]);
  });

  test("an answer of 4,000 addresses passes by TCP; by UDP only what the client takes", async () => {
    await started();
    const addresses = Array.from({ length: 4000 }, (_, i) => `198.19.${i >> 8}.${i & 255}`);
    first.behave = (query) => [answer(query, addresses)];
    expect(await short("@127.0.0.1", "+tcp", "example.test")).toHaveLength(4000);
    const raw = await rawUdp();
    first.behave = (query) => [answer(query, addresses.slice(0, 300))];
    for (const edns of [null, bigEdns]) {
      raw.send(encodeMessage(question("example.test", "A", { edns })));
      const reply = await raw.reply();
      expect(reply).toMatchObject({ truncated: true, answers: [], id: 0x4242, questions: [{ name: "example.test" }] });
      expect(reply.edns === null).toBe(edns === null);
    }
  });

  test("a resolver that is silent, slow, closed, or answers SERVFAIL: the second one is asked", async () => {
    await started({ attemptMs: 50 });
    second.behave = (query) => [answer(query, ["198.18.200.2"])];
    first.behave = () => [];
    expect(await short("@127.0.0.1", "silent.test")).toEqual(["198.18.200.2"]);
    expect(await short("@127.0.0.1", "+tcp", "silent.test")).toEqual(["198.18.200.2"]);
    for (const rcode of [ResponseCode.SERVFAIL, ResponseCode.REFUSED, ResponseCode.NOTIMP]) {
      first.behave = (query) => [replyTo(query, { rcode })];
      expect(await short("@127.0.0.1", `failing-${rcode}.test`)).toEqual(["198.18.200.2"]);
    }
    upstreams[0] = { ip: upstreams[0]!.ip, port: 54 };
    expect(await short("@127.0.0.1", "closed.test")).toEqual(["198.18.200.2"]);
    expect(await short("@127.0.0.1", "+tcp", "closed.test")).toEqual(["198.18.200.2"]);
  });

  test("the first resolver may still answer while the second is asked", async () => {
    await started({ attemptMs: 300 });
    first.behave = () => [];
    second.behave = () => {
      first.answerLate(0, (query) => answer(query, ["198.18.200.1"]));
      return [];
    };
    expect(await short("@127.0.0.1", "slow.test")).toEqual(["198.18.200.1"]);
    expect(second.seen).toHaveLength(1);
  });

  test("nobody answers: SERVFAIL in time, counted, and no socket is left", async () => {
    const dns = await started({ attemptMs: 100, answerMs: 2_000 });
    const before = openFds();
    first.behave = second.behave = () => [];
    expect(await dig("@127.0.0.1", "nobody.test")).toContain("status: SERVFAIL");
    expect(first.seen.length + second.seen.length).toBe(4);
    expect(counts.of("upstream failure")).toBe(1);
    expect(dns.underWay).toBe(0);
    await until("sockets closed", WAIT_MS, () => openFds() <= before);
  });

  test("all resolvers say SERVFAIL: that is passed on", async () => {
    await started();
    first.behave = second.behave = (query) => [replyTo(query, { rcode: ResponseCode.SERVFAIL })];
    expect(await dig("@127.0.0.1", "broken.test")).toContain("status: SERVFAIL");
    expect(counts.of("upstream failure")).toBe(0);
  });

  test("no resolver at all, or only ourselves: SERVFAIL at once, no loop", async () => {
    await started();
    for (const list of [[], [{ ip: ip("127.0.0.1"), port: DNS_PORT }, { ip: ip("::1"), port: DNS_PORT }]]) {
      upstreams = list;
      expect(await dig("@127.0.0.1", "example.test")).toContain("status: SERVFAIL");
      expect(await short("@127.0.0.1", "web")).toEqual(["198.18.100.1"]);
    }
    expect(counts.of("upstream failure")).toBe(2);
  });

  test("a resolver that asks us back finds its own question under way: it ends, with one question sent for each attempt", async () => {
    await started({ attemptMs: 50, answerMs: 300 });
    const loop = await rawUdp();
    first.behave = second.behave = (_query, _protocol, bytes) => {
      loop.send(bytes);
      return [];
    };
    expect(await dig("@127.0.0.1", "loop.test")).toContain("status: SERVFAIL");
    expect(first.seen.length + second.seen.length).toBeLessThanOrEqual(8);
  });

  test("equal questions share one flight, and each gets its own id", async () => {
    await started({ attemptMs: 200 });
    first.behave = () => [];
    const raw = await rawUdp();
    for (let id = 1; id <= 30; id++) raw.send(encodeMessage(question("same.test", "A", { id })));
    await until("30 questions", WAIT_MS, () => counts.of("request A udp") === 30);
    first.behave = second.behave = (query) => [answer(query, ["198.18.200.1"])];
    const ids = new Set<number>();
    for (let i = 0; i < 30; i++) ids.add((await raw.reply()).id);
    expect(ids.size).toBe(30);
    expect(counts.of("upstream")).toBe(1);
  });

  test("a flood of names that do not exist: bounded sockets, SERVFAIL beyond, own names still answered, all freed", async () => {
    const dns = await started({ flightsMax: 50, answerMs: 300, attemptMs: 200 });
    const before = openFds();
    first.behave = second.behave = () => [];
    const raw = await rawUdp();
    for (let i = 0; i < 500; i++) raw.send(encodeMessage(question(`n${i}.test`)));
    await until("refusals", WAIT_MS, () => counts.of("refused busy") > 0);
    expect(dns.underWay).toBeLessThanOrEqual(50);
    raw.send(encodeMessage(question("web", "A", { id: 7 })));
    await until("the answer for web", WAIT_MS, () => raw.replies.some((reply) => reply[1] === 7 && reply[0] === 0));
    await until("flights over", WAIT_MS, () => dns.underWay === 0);
    await until("sockets closed", WAIT_MS, () => openFds() <= before + 1);
  });

  test("beyond the rate questions are dropped, and the rate recovers", async () => {
    await started({ questionsPerSecond: 20 });
    const raw = await rawUdp();
    for (let i = 0; i < 60; i++) raw.send(encodeMessage(question("web")));
    await until("refusals", WAIT_MS, () => counts.of("refused rate") >= 30);
    const answered = counts.of("request A udp");
    await until("recovery", WAIT_MS, () => {
      raw.send(encodeMessage(question("web")));
      return counts.of("request A udp") > answered;
    });
  });

  // Hostile clients

  test("malformed questions: an error where there is somebody to tell, silence where there is not", async () => {
    await started();
    const raw = await rawUdp();
    const send = async (bytes: Uint8Array) => {
      raw.send(bytes);
      return (await raw.reply()).rcode;
    };
    const good = encodeMessage(question("web"));
    expect(await send(good.subarray(0, good.length - 1))).toBe(ResponseCode.FORMERR);
    expect(await send(changed(good, 5, 2))).toBe(ResponseCode.FORMERR);
    expect(await send(changed(good, 5, 0).subarray(0, 12))).toBe(ResponseCode.FORMERR);
    expect(await send(changed(good, 12, 0xc0))).toBe(ResponseCode.FORMERR);
    expect(await send(changed(good, 2, 0x29))).toBe(ResponseCode.NOTIMP);
    expect(await send(encodeMessage({ ...question("web"), questions: [{ name: "web", type: 252, class: 1 }] }))).toBe(ResponseCode.REFUSED);
    const answered = raw.replies.length;
    raw.send(changed(good, 2, 0x81));
    raw.send(Uint8Array.of(1, 2, 3));
    raw.send(new Uint8Array(0));
    raw.send(good);
    await until("the good one", WAIT_MS, () => raw.replies.length > answered);
    expect(raw.replies).toHaveLength(answered + 1);
    expect(counts.of("refused not a query")).toBe(1);
    expect(counts.of("refused malformed")).toBeGreaterThanOrEqual(5);
    expect(counts.of("refused zone transfer")).toBe(1);
  });

  test("TCP: questions one byte at a time, and pipelined beyond the bound, are all answered; half-close ends it", async () => {
    await started({ tcpPipelineMax: 4 });
    const talk = await rawTcp();
    for (const byte of frame(encodeMessage(question("web", "A", { id: 1 })))) talk.write(Uint8Array.of(byte));
    await until("the first answer", WAIT_MS, () => talk.messages.length === 1);
    const many = Array.from({ length: 40 }, (_, i) => frame(encodeMessage(question(i % 2 === 0 ? "web" : `t${i}.test`, "A", { id: 100 + i }))));
    talk.write(new Uint8Array(many.flatMap((one) => [...one])));
    talk.end();
    await until("all answers", WAIT_MS, () => talk.messages.length === 41);
    expect(new Set(talk.messages.map(({ id }) => id)).size).toBe(41);
    await until("closed after the last answer", WAIT_MS, () => talk.closed);
  });

  test("TCP: idle connections, unfinished questions, too many connections and slow readers are closed", async () => {
    const dns = await started({ tcpIdleMs: 60, tcpConnectionsMax: 3 });
    const idle = await rawTcp();
    const unfinished = await rawTcp();
    unfinished.write(Uint8Array.of(0xff, 0xff, 1));
    const third = await rawTcp();
    await until("three connections", WAIT_MS, () => dns.connections === 3 || idle.closed);
    const fourth = await rawTcp();
    await until("the fourth closed", WAIT_MS, () => fourth.closed);
    expect(counts.of("refused connections")).toBe(1);
    await until("idle ones closed", WAIT_MS, () => idle.closed && unfinished.closed && third.closed);
    await until("none left", WAIT_MS, () => dns.connections === 0);
  });

  test("TCP: a client that does not read is closed when too much waits for it", async () => {
    const dns = await started({ tcpUnsentBytesMax: 64 * 1024, questionsPerSecond: 1_000_000 });
    const talk = await rawTcp();
    talk.pause();
    const asked = frame(encodeMessage(question("db")));
    const block = new Uint8Array(asked.length * 200);
    for (let i = 0; i < 200; i++) block.set(asked, i * asked.length);
    await until("slow reader seen", WAIT_MS, () => {
      talk.write(block);
      return counts.of("refused slow reader") > 0;
    });
    await until("closed", WAIT_MS, () => dns.connections === 0);
  });

  // Life

  test("a workload without IPv6 is served on 127.0.0.1 alone", async () => {
    const legacy = network.node("south").workload("legacy", { ipv6: false });
    const outcome = await make({}, legacy).start();
    expect(outcome).toEqual({ ok: true, value: ["127.0.0.1" as IpAddress] });
    const { stdout } = await legacy.run(["dig", "-p", String(DNS_PORT), "+short", "@127.0.0.1", "web"]);
    expect(stdout.trim()).toBe("198.18.100.1");
  });

  test("a port that is taken is a fault of this workload, and leaves nothing open", async () => {
    const before = openFds();
    const squatter = await web.inside(() => Bun.udpSocket({ hostname: "::1", port: DNS_PORT, socket: {} }));
    const outcome = await make().start();
    expect(outcome.ok).toBe(false);
    if (!outcome.ok) expect(outcome.error.message).toBe("cannot listen for DNS on [::1]:15053 in the workload's namespace: EADDRINUSE; a program in this namespace holds the port, or a proxy runs there under another user");
    squatter.close();
    await until("all closed", WAIT_MS, () => openFds() <= before);
  });

  test("a namespace that is gone is a fault, not an exception", async () => {
    const dns = new WorkloadDns({
      namespaceFd: 9999, workload: () => client, store, clusterDomain: "cluster.local", resolver: () => ({ upstreams, searchDomains: null }), mark: MARK, ipv6: true,
      random: secureRandom, clock: systemClock, metrics: counts,
    });
    const outcome = await dns.start();
    expect(outcome.ok).toBe(false);
  });

  test("a successor listens beside us; after stop it has every question, and we have no descriptor", async () => {
    const before = openFds();
    const old = await started();
    const next = await started();
    old.stop();
    old.stop();
    for (let i = 0; i < 5; i++) expect(await short("@127.0.0.1", "web")).toEqual(["198.18.100.1"]);
    next.stop();
    await until("all closed", WAIT_MS, () => openFds() <= before);
  });

  test("handed over, a successor has the very sockets, and questions under way are still answered by whom they were asked", async () => {
    const before = openFds();
    const old = await started();
    const waiting = await rawUdp();
    const talk = await rawTcp();
    first.behave = () => [];
    waiting.send(encodeMessage(question("udp.test")));
    talk.write(frame(encodeMessage(question("tcp.test"))));
    await until("questions under way", WAIT_MS, () => old.underWay === 2 && first.seen.length === 2);

    expect(old.sockets.map(({ role }) => role).sort()).toEqual([...DNS_ROLES].sort());
    const next = make({}, web, (role) => old.sockets.filter((socket) => socket.role === role).map(({ fd }) => fcntl(fd, F_DUPFD_CLOEXEC, 0)));
    expect((await next.start()).ok).toBe(true);
    old.drain();
    expect(old.sockets).toEqual([]);
    for (let i = 0; i < 5; i++) expect(await short("@127.0.0.1", "web")).toEqual(["198.18.100.1"]);
    first.answerLate(first.seen.findIndex(({ query }) => query.questions[0]!.name === "udp.test"), (query) => answer(query, ["198.18.200.7"]));
    expect((await waiting.reply()).questions[0]!.name).toBe("udp.test");
    // The other one by the second resolver, which is asked when the first has been silent.
    await until("the answer by TCP", WAIT_MS, () => talk.messages.length === 1);
    old.stop();
    next.stop();
    for (const socket of sockets.splice(0)) socket.close();
    await until("all closed", WAIT_MS, () => openFds() <= before);
  });

  test("a successor with sockets of its own on the same port gets every question as soon as we drain, and those under way are answered", async () => {
    const before = openFds();
    const old = await started();
    const waiting = await rawUdp();
    first.behave = () => [];
    waiting.send(encodeMessage(question("udp.test")));
    await until("a question under way", WAIT_MS, () => old.underWay === 1 && first.seen.length === 1);
    const next = await started();
    old.drain(false);
    // Each from a port of its own: the kernel deals them out among the sockets by their ports.
    for (let i = 0; i < 40; i++) {
      const raw = await rawUdp();
      raw.send(encodeMessage(question("web.shop.svc.cluster.local")));
      expect((await raw.reply()).answers).toHaveLength(1);
    }
    first.answerLate(first.seen.findIndex(({ query }) => query.questions[0]!.name === "udp.test"), (query) => answer(query, ["198.18.200.7"]));
    expect((await waiting.reply()).questions[0]!.name).toBe("udp.test");
    old.stop();
    next.stop();
    for (const socket of sockets.splice(0)) socket.close();
    await until("all closed", WAIT_MS, () => openFds() <= before);
  });

  test("stop in the middle of questions: nothing is called back, nothing stays open", async () => {
    const before = openFds();
    const dns = await started();
    first.behave = second.behave = () => [];
    const raw = await rawUdp();
    for (let i = 0; i < 20; i++) raw.send(encodeMessage(question(`q${i}.test`)));
    const talk = await rawTcp();
    talk.write(frame(encodeMessage(question("tcp.test"))));
    await until("questions under way", WAIT_MS, () => dns.underWay === 21);
    dns.stop();
    await until("client closed", WAIT_MS, () => talk.closed);
    for (const socket of sockets.splice(0)) socket.close();
    await until("all closed", WAIT_MS, () => openFds() <= before);
    expect(raw.replies).toHaveLength(0);
  });
});
