// Networks of nodes and workloads inside the sealed box (test/kit/box.ts): each node and each workload is a network
// namespace, and a wire joins every two nodes.
//
//   await using network = MeshNetwork.create();                  // { mtu } if wanted
//   const east = network.node("east");                           // 198.18.1.1,  2001:db8:1::1
//   const west = network.node("west");                           // 198.18.2.1,  2001:db8:2::1
//   const web = east.workload("web");                            // 198.18.1.10, 2001:db8:1::a
//   const v4 = west.workload("legacy", { ipv6: false });         // a workload whose kernel has IPv6 off
//   const mine = west.workload("mine", { ipv4: "198.18.77.5" }); // any address of 198.18.0.0/15 or 2001:db8::/32
//
// A node and a workload are both a Place:
//
//   web.namespacePath   /run/netns/web: for `weft`, `nsenter --net=`, `ip netns exec`
//   web.namespaceFd     for src/net's dial, listenTcp, installRedirect; borrowed, closed with the network
//   web.exec(["curl", "http://198.18.2.10/"])       a running program inside; killed, with its children, when the network goes
//   await web.run(["curl", ...])                    the same, awaited: { exitCode, stdout, stderr }
//   web.inside(() => Bun.listen({ hostname: "0.0.0.0", port: 80, ... }))   system calls of this process, see inNamespace
//   await web.listening(8080)                       resolves when something listens on that TCP port
//
// What passes on the wire between two nodes, to show that it is encrypted:
//
//   using wire = network.witness(east, west);
//   ... traffic ...
//   wire.saw("secret")          false: no flow carried these bytes in the clear
//   wire.packets()              [{ protocol, source, destination, payload }], in order
//
// Names of nodes and workloads are unique in a box, as they are files in /run/netns. Needs `nsenter` (util-linux) for exec.

import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type IpAddress, parseIp } from "../../src/core/ip.ts";
import { close, errnoName, O_CLOEXEC, O_RDONLY, open, readFd } from "../../src/net/libc.ts";
import { createNamespace, must, NamespaceLinks, readSysctl, releaseNamespace, writeSysctl } from "../../src/net/links.ts";
import { inNamespace } from "../../src/net/namespace.ts";
import { LINK_NAME_CHARS_MAX } from "../../src/wire/netlink/route.ts";
import { namespaceFolder, requireBox } from "./box.ts";
import { WireWitness } from "./witness.ts";

const NODES_MAX = 250;
const WORKLOADS_PER_NODE_MAX = 240;
/** Numbers below are the node's. */
const FIRST_WORKLOAD_HOST = 10;
const LISTENING_TIMEOUT_MS = 10_000;
const LISTENING_POLL_MS = 5;

export interface NetworkOptions {
  /** Of every wire and every workload's link; the kernel's 1500 when left out. */
  readonly mtu?: number;
}

export interface WorkloadOptions {
  readonly ipv4?: string;
  /** False: IPv6 is switched off inside. */
  readonly ipv6?: string | false;
}

export interface RunResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ExecOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly stdin?: "ignore" | "pipe" | Uint8Array;
  readonly stdout?: "pipe" | "inherit" | "ignore";
  readonly stderr?: "pipe" | "inherit" | "ignore";
}

/** A node or a workload: a network namespace with addresses, in which programs run. */
export class Place {
  readonly name: string;
  readonly namespacePath: string;
  readonly namespaceFd: number;
  readonly ipv4: IpAddress;
  /** Null where IPv6 is off. */
  readonly ipv6: IpAddress | null;
  readonly #children = new Set<Bun.Subprocess>();

  constructor(name: string, addresses: { readonly ipv4: IpAddress; readonly ipv6: IpAddress | null }) {
    if (!/^[a-z0-9][a-z0-9.-]{0,40}$/.test(name)) throw new Error(`not a name for a namespace: ${name}`);
    this.name = name;
    this.namespacePath = join(namespaceFolder(), name);
    this.ipv4 = addresses.ipv4;
    this.ipv6 = addresses.ipv6;
    writeFileSync(this.namespacePath, "", { flag: "wx" });
    this.namespaceFd = createNamespace(this.namespacePath);
    if (this.namespaceFd < 0) throw new Error(`cannot make the namespace ${name}: ${errnoName(this.namespaceFd)}`);
    // Duplicate address detection would keep neighbours from finding each other for the first two seconds.
    if (this.ipv6 !== null) for (const which of ["all", "default"]) this.setSysctl(`net.ipv6.conf.${which}.accept_dad`, "0");
    using links = this.links();
    must(links.loopbackUp());
  }

  /** Both addresses, or the one there is. */
  get addresses(): readonly IpAddress[] {
    return this.ipv6 === null ? [this.ipv4] : [this.ipv4, this.ipv6];
  }

  /** Starts a program inside. It leads a process group of its own, which ends with the network. */
  exec(argv: readonly string[], options: ExecOptions = {}): Bun.Subprocess<"ignore" | "pipe" | Uint8Array, "pipe" | "inherit" | "ignore", "pipe" | "inherit" | "ignore"> {
    const child = Bun.spawn(["nsenter", `--net=${this.namespacePath}`, "--", ...argv], {
      stdin: options.stdin ?? "ignore",
      stdout: options.stdout ?? "pipe",
      stderr: options.stderr ?? "pipe",
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      detached: true,
    });
    this.#children.add(child);
    void child.exited.then(() => this.#children.delete(child));
    return child;
  }

  /** Runs a program to its end. */
  async run(argv: readonly string[], options: Omit<ExecOptions, "stdout" | "stderr"> = {}): Promise<RunResult> {
    const child = this.exec(argv, { ...options, stdout: "pipe", stderr: "pipe" });
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout as ReadableStream<Uint8Array>).text(),
      new Response(child.stderr as ReadableStream<Uint8Array>).text(),
      child.exited,
    ]);
    return { exitCode, stdout, stderr };
  }

  /** System calls of this process inside the namespace; the rules of `inNamespace` hold. */
  inside<R>(body: () => R): R {
    return inNamespace(this.namespaceFd, body);
  }

  /** The namespace's links, addresses, routes and rules; the caller disposes it. */
  links(): NamespaceLinks {
    return must(NamespaceLinks.open(this.namespaceFd));
  }

  /** Resolves once a TCP socket listens on `port`, on whatever address. */
  async listening(port: number, timeoutMs = LISTENING_TIMEOUT_MS): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    while (!this.#hasListener(port)) {
      if (performance.now() >= deadlineMs) throw new Error(`nothing listens on port ${port} in ${this.name} after ${timeoutMs} ms`);
      await Bun.sleep(LISTENING_POLL_MS);
    }
  }

  /** Reads a kernel setting such as `net.ipv4.tcp_rmem`; null when there is none. */
  sysctl(name: string): string | null {
    return readSysctl(this.namespaceFd, name);
  }

  setSysctl(name: string, value: string): void {
    const written = writeSysctl(this.namespaceFd, name, value);
    if (written < 0) throw new Error(`cannot set ${name} to ${value} in ${this.name}: ${errnoName(written)}`);
  }

  /** Ends the programs inside and takes the name away. */
  async remove(): Promise<void> {
    const ending = [...this.#children].map((child) => {
      killGroup(child.pid);
      return child.exited;
    });
    await Promise.all(ending);
    releaseNamespace(this.namespacePath);
    rmSync(this.namespacePath, { force: true });
    close(this.namespaceFd);
  }

  #hasListener(port: number): boolean {
    const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
    return ["tcp", "tcp6"].some((table) =>
      this.#readInside(`/proc/thread-self/net/${table}`).split("\n").some((line) => {
        const fields = line.trim().split(/\s+/);
        return fields[3] === "0A" && fields[1]?.endsWith(local);
      }));
  }

  #readInside(path: string): string {
    const chunks: Uint8Array[] = [];
    const buffer = new Uint8Array(64 * 1024);
    this.inside(() => {
      const fd = open(path, O_RDONLY | O_CLOEXEC);
      if (fd < 0) return;
      for (let count = readFd(fd, buffer); count > 0; count = readFd(fd, buffer)) chunks.push(buffer.slice(0, count));
      close(fd);
    });
    return Buffer.concat(chunks).toString();
  }
}

export class Workload extends Place {
  readonly node: Node;
  /** The workload's own name for its link to the node. */
  readonly linkName = "eth0";

  constructor(name: string, node: Node, addresses: { readonly ipv4: IpAddress; readonly ipv6: IpAddress | null }) {
    super(name, addresses);
    this.node = node;
  }
}

export class Node extends Place {
  readonly #network: MeshNetwork;
  readonly number: number;
  readonly workloads: Workload[] = [];
  /** Names of this node's links to other nodes. */
  readonly wires = new Map<Node, { readonly linkName: string; readonly peerIpv4: IpAddress; readonly peerIpv6: IpAddress | null }>();

  constructor(name: string, network: MeshNetwork, number: number) {
    super(name, { ipv4: ip(`198.18.${number}.1`), ipv6: network.hasIpv6 ? ip(`2001:db8:${number.toString(16)}::1`) : null });
    this.#network = network;
    this.number = number;
    this.setSysctl("net.ipv4.ip_forward", "1");
    this.setSysctl("net.ipv4.conf.all.rp_filter", "0");
    this.setSysctl("net.ipv4.conf.default.rp_filter", "0");
    if (this.ipv6 !== null) this.setSysctl("net.ipv6.conf.all.forwarding", "1");
    using links = this.links();
    const loopback = must(links.loopback());
    must(links.addAddress(loopback, this.ipv4, 32));
    if (this.ipv6 !== null) must(links.addAddress(loopback, this.ipv6, 128));
  }

  /** A workload on this node. Addresses left out are given. */
  workload(name: string, options: WorkloadOptions = {}): Workload {
    const host = FIRST_WORKLOAD_HOST + this.workloads.length;
    if (this.workloads.length >= WORKLOADS_PER_NODE_MAX) throw new Error(`a node has room for ${WORKLOADS_PER_NODE_MAX} workloads`);
    const ipv4 = ip(options.ipv4 ?? `198.18.${this.number}.${host}`);
    const ipv6 = options.ipv6 === false || this.ipv6 === null ? null : ip(options.ipv6 ?? `2001:db8:${this.number.toString(16)}::${host.toString(16)}`);
    const workload = new Workload(name, this, { ipv4, ipv6 });
    this.workloads.push(workload);
    this.#plugIn(workload);
    this.#network.announce(workload);
    return workload;
  }

  /** Routes to a place on another node, over the wire to that node. */
  routeTo(place: Place, node: Node): void {
    const wire = this.wires.get(node);
    if (wire === undefined) throw new Error(`no wire from ${this.name} to ${node.name}`);
    using links = this.links();
    const link = must(links.find(wire.linkName));
    must(links.addRoute(`${place.ipv4}/32`, { link, via: wire.peerIpv4 }));
    if (place.ipv6 !== null && wire.peerIpv6 !== null) must(links.addRoute(`${place.ipv6}/128`, { link, via: wire.peerIpv6 }));
  }

  /** A routed link: the workload's default route is the node, the node's route to the workload is the link. */
  #plugIn(workload: Workload): void {
    const linkName = `w${this.workloads.length}-${workload.name}`.slice(0, LINK_NAME_CHARS_MAX);
    using links = this.links();
    must(links.addVeth({
      near: { name: linkName, namespaceFd: null },
      far: { name: workload.linkName, namespaceFd: workload.namespaceFd },
      mtu: this.#network.mtu,
    }));
    const link = must(links.find(linkName));
    if (workload.ipv6 !== null && this.ipv6 !== null) must(links.addAddress(link, this.ipv6, 128));
    must(links.setUp(link));
    if (workload.ipv6 === null && this.#network.hasIpv6) workload.setSysctl("net.ipv6.conf.all.disable_ipv6", "1");
    using inner = workload.links();
    const eth0 = must(inner.find(workload.linkName));
    must(inner.addAddress(eth0, workload.ipv4, 32));
    if (workload.ipv6 !== null) must(inner.addAddress(eth0, workload.ipv6, 128));
    must(inner.setUp(eth0));
    must(inner.addRoute(`${this.ipv4}/32`, { link: eth0 }));
    must(inner.addRoute("default", { link: eth0, via: this.ipv4 }));
    must(links.addRoute(`${workload.ipv4}/32`, { link }));
    if (workload.ipv6 === null || this.ipv6 === null) return;
    must(inner.addRoute(`${this.ipv6}/128`, { link: eth0 }));
    must(inner.addRoute("default", { link: eth0, via: this.ipv6 }));
    must(links.addRoute(`${workload.ipv6}/128`, { link }));
  }
}

export class MeshNetwork implements AsyncDisposable {
  readonly mtu: number | null;
  /** False where the kernel has no IPv6; then nothing has an IPv6 address. */
  readonly hasIpv6: boolean;
  readonly #nodes: Node[] = [];
  #wires = 0;

  private constructor(options: NetworkOptions) {
    this.mtu = options.mtu ?? null;
    const own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    this.hasIpv6 = readSysctl(own, "net.ipv6.conf.all.disable_ipv6") === "0";
    close(own);
  }

  /** An empty network. Throws outside the sealed box. */
  static create(options: NetworkOptions = {}): MeshNetwork {
    requireBox();
    return new MeshNetwork(options);
  }

  get nodes(): readonly Node[] {
    return this.#nodes;
  }

  /** A node with a wire to every node there is. */
  node(name: string): Node {
    if (this.#nodes.length >= NODES_MAX) throw new Error(`a network has room for ${NODES_MAX} nodes`);
    const node = new Node(name, this, this.#nodes.length + 1);
    for (const other of this.#nodes) {
      this.#wire(node, other);
      for (const place of [other, ...other.workloads]) node.routeTo(place, other);
      other.routeTo(node, node);
    }
    this.#nodes.push(node);
    return node;
  }

  /** Tells the other nodes the way to a workload. */
  announce(workload: Workload): void {
    for (const node of this.#nodes) if (node !== workload.node) node.routeTo(workload, workload.node);
  }

  /** Watches the wire between two nodes. Dispose it. */
  witness(from: Node, to: Node): WireWitness {
    const wire = from.wires.get(to);
    if (wire === undefined) throw new Error(`no wire from ${from.name} to ${to.name}`);
    return WireWitness.on(from.namespaceFd, wire.linkName);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const places = this.#nodes.flatMap((node) => [...node.workloads, node]);
    this.#nodes.length = 0;
    await Promise.all(places.map((place) => place.remove()));
  }

  #wire(a: Node, b: Node): void {
    this.#wires += 1;
    const [nameAtA, nameAtB] = [`to-${b.name}`, `to-${a.name}`].map((name) => name.slice(0, LINK_NAME_CHARS_MAX)) as [string, string];
    const subnet = (host: number): { ipv4: IpAddress; ipv6: IpAddress | null } => ({
      ipv4: ip(`198.19.${Math.floor(this.#wires / 60)}.${(this.#wires % 60) * 4 + host}`),
      ipv6: this.hasIpv6 ? ip(`2001:db8:ffff:${this.#wires.toString(16)}::${host}`) : null,
    });
    const ends = [{ node: a, peer: b, name: nameAtA, own: subnet(1), far: subnet(2) }, { node: b, peer: a, name: nameAtB, own: subnet(2), far: subnet(1) }];
    using atA = a.links();
    must(atA.addVeth({ near: { name: nameAtA, namespaceFd: null }, far: { name: nameAtB, namespaceFd: b.namespaceFd }, mtu: this.mtu }));
    for (const end of ends) {
      using links = end.node.links();
      const link = must(links.find(end.name));
      must(links.addAddress(link, end.own.ipv4, 30));
      if (end.own.ipv6 !== null) must(links.addAddress(link, end.own.ipv6, 64));
      must(links.setUp(link));
      end.node.wires.set(end.peer, { linkName: end.name, peerIpv4: end.far.ipv4, peerIpv6: end.far.ipv6 });
    }
  }
}

function ip(text: string): IpAddress {
  const address = parseIp(text);
  if (address === null || !/^(198\.1[89]\.|198\.51\.100\.|2001:db8:)/.test(address)) throw new Error(`not an address for tests: ${text} (198.18.0.0/15, 198.51.100.0/24, 2001:db8::/32)`);
  return address;
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // ESRCH: it has ended, which is what was wanted.
  }
}
