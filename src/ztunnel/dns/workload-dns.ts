// The DNS proxy of one workload: UDP and TCP on the loopback addresses of its namespace, port 15053, where the kernel redirects
// its questions. Questions about services are answered from the mesh, all others by the workload's own resolvers.
// Runs on the main thread. A workload's failure is its own: start() returns it, nothing throws.

import type { Fault } from "../../core/fault.ts";
import { type IpAddress, isIpv6, type SocketAddress } from "../../core/ip.ts";
import type { Clock, Random } from "../../core/ports.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { Workload } from "../../mesh/records.ts";
import type { MeshStore } from "../../mesh/store.ts";
import {
  AF_INET, AF_INET6, bind, close, connect, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, errnoName, F_DUPFD_CLOEXEC, fcntl, IPV6_V6ONLY, MSG_DONTWAIT, sendTo, setIntOption, SO_MARK, SO_REUSEPORT, SOCK_CLOEXEC,
  SOCK_DGRAM, SOCK_NONBLOCK, socket, SOL_IPV6, SOL_SOCKET,
} from "../../net/libc.ts";
import { listenTcp } from "../../net/listen.ts";
import { inNamespace } from "../../net/namespace.ts";
import { encodeSockaddr } from "../../net/socket-address.ts";
import { nameClient, type NameScope } from "../../policy/resolve-name.ts";
import { truncatedReply } from "../../wire/dns/encode.ts";
import { ResponseCode } from "../../wire/dns/types.ts";
import { adoptListener, type Listener } from "../../tunnel/endpoint-socket.ts";
import { Forwarder, nameExists } from "./forwarder.ts";
import { DNS_LIMITS, type DnsLimits } from "./limits.ts";
import type { DnsMetrics, DnsProtocol } from "./metrics.ts";
import { errorReply, isOurselves, judgeQuery, ourEdns, replyBytesMax } from "./query.ts";
import { TcpClient } from "./tcp-client.ts";

export const DNS_PORT = 15053;
/** RFC 863: nobody asks from there. */
const DISCARD_PORT = 9;
const LOOPBACK = ["127.0.0.1", "::1"] as unknown as readonly IpAddress[];

/** What a workload's resolv.conf says, as far as it can be read; see ResolverFiles. */
export interface ResolverConfig {
  readonly upstreams: readonly SocketAddress[];
  /** Null when the workload's own list is not known. */
  readonly searchDomains: readonly string[] | null;
}

export interface WorkloadDnsOptions {
  /** Borrowed until stop(). */
  readonly namespaceFd: number;
  /** Null while the mesh does not know the workload: then everything is forwarded. */
  readonly workload: () => Workload | null;
  readonly store: MeshStore;
  readonly clusterDomain: string;
  readonly resolver: () => ResolverConfig;
  /** Mark of every socket: keeps our own questions out of our own redirection. */
  readonly mark: number;
  /** False: no IPv6 addresses of services are given out. */
  readonly ipv6: boolean;
  /** Must be unpredictable: see secureRandom. */
  readonly random: Random;
  readonly clock: Clock;
  readonly metrics: DnsMetrics;
  /** Sockets that are open already, by role; owned from here on. */
  readonly inherited?: (role: DnsRole) => number[];
  readonly limits?: Partial<DnsLimits>;
}

export const DNS_ROLES = ["dns-udp4", "dns-udp6", "dns-tcp4", "dns-tcp6"] as const;
export type DnsRole = (typeof DNS_ROLES)[number];
export const DNS_LISTENING_ROLES = ["dns-tcp4", "dns-tcp6"] as const satisfies readonly DnsRole[];

export type DnsFault = Fault<"dns_listen_failed">;

interface UdpListener {
  send(bytes: Uint8Array, port: number, address: string): boolean;
  close(): void;
}

/** A bound socket. `answerFd` once it is no longer read: answers to what had been read go out by it. */
interface UdpSocket {
  readonly ip: IpAddress;
  readonly fd: number;
  listener: UdpListener | null;
  answerFd: number;
}

export class WorkloadDns {
  readonly #options: WorkloadDnsOptions;
  readonly #limits: DnsLimits;
  readonly #forwarder: Forwarder;
  readonly #udp: UdpSocket[] = [];
  readonly #tcp: Listener[] = [];
  readonly #open: { readonly role: DnsRole; readonly fd: number }[] = [];
  readonly #clients = new Set<TcpClient>();
  #tokens: number;
  #tokensAtMs: number;
  #stopped = false;

  constructor(options: WorkloadDnsOptions) {
    this.#options = options;
    this.#limits = { ...DNS_LIMITS, ...options.limits };
    this.#tokens = this.#limits.questionsPerSecond;
    this.#tokensAtMs = options.clock.monotonicMs();
    this.#forwarder = new Forwarder({
      namespaceFd: options.namespaceFd,
      mark: options.mark,
      upstreams: () => options.resolver().upstreams.filter((upstream) => !isOurselves(upstream, DNS_PORT)),
      random: options.random,
      clock: options.clock,
      limits: this.#limits,
      metrics: options.metrics,
    });
  }

  /**
   * Listens on both loopback addresses; without ::1 in the namespace, on 127.0.0.1 alone. All or nothing: after a fault
   * nothing is left open. Once.
   * @returns the addresses listened on.
   */
  async start(): Promise<Result<readonly IpAddress[], DnsFault>> {
    const listening: IpAddress[] = [];
    try {
      for (const ip of LOOPBACK) {
        const failed = await this.#listenAt({ ip, port: DNS_PORT });
        if (failed === 0) {
          listening.push(ip);
        } else if (!isIpv6(ip) || (failed !== -EADDRNOTAVAIL && failed !== -EAFNOSUPPORT)) {
          this.stop();
          return err(listenFault(ip, failed));
        }
      }
    } catch (cause) {
      // The namespace could not be entered, or the runtime refused the socket: this workload's trouble alone.
      this.stop();
      return err({ ...NOT_LISTENING, message: `cannot listen for DNS in the workload's namespace: ${(cause as Error).message}`, cause });
    }
    return ok(listening);
  }

  /** Every socket that listens, to be handed over. */
  get sockets(): readonly { readonly role: DnsRole; readonly fd: number }[] {
    return this.#open;
  }

  /**
   * Takes no more questions; those under way are answered. Then, after a while: stop().
   * @param shared true when whoever comes next reads these very sockets. False: it has sockets of its own on the same port, and ours, open
   * for the answers, would go on getting their share of the questions; so they are connected to where no question comes from. What listens
   * for TCP goes on until the kernel gives it nothing any more, and nothing is lost by its end: then stopListening().
   */
  drain(shared = true): void {
    this.#open.length = 0;
    for (const socket of this.#udp) {
      if (socket.listener === null) continue;
      // What is queued already is still read.
      if (!shared && connect(socket.fd, encodeSockaddr({ ip: socket.ip, port: DISCARD_PORT })) >= 0) continue;
      socket.answerFd = fcntl(socket.fd, F_DUPFD_CLOEXEC, 0);
      socket.listener.close();
      socket.listener = null;
    }
    if (shared) this.stopListening();
  }

  /** No connection is taken any more; those that are there go on. Idempotent. */
  stopListening(): void {
    for (const listener of this.#tcp.splice(0)) listener.stop();
  }

  /** Closes every socket; questions under way are not answered. Idempotent. */
  stop(): void {
    this.#stopped = true;
    this.#open.length = 0;
    for (const { listener, answerFd } of this.#udp) {
      listener?.close();
      if (answerFd >= 0) close(answerFd);
    }
    this.stopListening();
    for (const client of [...this.#clients]) client.destroy();
    this.#forwarder.stop();
    this.#udp.length = 0;
  }

  /** Different questions under way upstream. */
  get underWay(): number {
    return this.#forwarder.underWay;
  }

  get connections(): number {
    return this.#clients.size;
  }

  /** 0, or -errno of the step that failed. */
  async #listenAt(at: SocketAddress): Promise<number> {
    const { namespaceFd, mark, inherited } = this.#options;
    const [udpRole, tcpRole] = isIpv6(at.ip) ? (["dns-udp6", "dns-tcp6"] as const) : (["dns-udp4", "dns-tcp4"] as const);
    const udpFd = oneOf(inherited?.(udpRole)) ?? bindUdp(namespaceFd, at, mark);
    if (udpFd < 0) return udpFd;
    const tcpFd = oneOf(inherited?.(tcpRole)) ?? listenTcp({ namespaceFd, at, mark, keepalive: null, shared: true });
    if (tcpFd < 0) {
      close(udpFd);
      return tcpFd;
    }
    this.#tcp.push(adoptListener(tcpFd, () => this.#accept()));
    const socket: UdpSocket = { ip: at.ip, fd: udpFd, listener: null, answerFd: -1 };
    const handlers = {
      data: (_listener: UdpListener, query: Uint8Array, port: number, address: string) =>
        this.#onQuery(query, "udp", (reply) => this.#sendUdp(socket, reply, { ip: address as IpAddress, port })),
      error: () => {}, // ICMP errors for answers to clients that have gone
    };
    const listener = (await Bun.udpSocket({ fd: udpFd, socket: handlers } as unknown as Parameters<typeof Bun.udpSocket>[0])) as unknown as UdpListener;
    if (this.#stopped) {
      listener.close();
      return 0;
    }
    socket.listener = listener;
    this.#udp.push(socket);
    this.#open.push({ role: udpRole, fd: udpFd }, { role: tcpRole, fd: tcpFd });
    return 0;
  }

  #accept(): TcpClient {
    const { metrics } = this.#options;
    const client = new TcpClient(this.#limits, {
      onQuery: (query, reply) => this.#onQuery(query, "tcp", reply),
      onSlowReader: () => metrics.refused("slow reader"),
      onClosed: (closed) => this.#clients.delete(closed),
    });
    if (this.#clients.size >= this.#limits.tcpConnectionsMax || this.#stopped) {
      metrics.refused("connections");
      queueMicrotask(() => client.destroy());
    } else {
      this.#clients.add(client);
    }
    return client;
  }

  /** A datagram that does not go out is lost, as datagrams are; the client asks again. */
  #sendUdp({ listener, answerFd }: UdpSocket, reply: Uint8Array | null, to: SocketAddress): void {
    if (reply === null || this.#stopped) return;
    if (listener !== null) listener.send(reply, to.port, to.ip);
    else if (answerFd >= 0) sendTo(answerFd, reply, MSG_DONTWAIT, encodeSockaddr(to));
  }

  /** @param reply called at most once; null when there is nothing to say. */
  #onQuery(query: Uint8Array, protocol: DnsProtocol, reply: (message: Uint8Array | null) => void): void {
    const { metrics } = this.#options;
    if (!this.#takeToken()) {
      metrics.refused("rate");
      return reply(null);
    }
    const outcome = judgeQuery(query, protocol, this.#scope());
    switch (outcome.kind) {
      case "drop":
        metrics.refused(outcome.reason);
        return reply(null);
      case "refuse":
        metrics.refused(outcome.reason);
        return reply(outcome.reply);
      case "answer":
        metrics.request(outcome.labels);
        return reply(outcome.reply);
      case "forward": {
        metrics.request(outcome.labels);
        const { message, known } = outcome;
        const taken = this.#forwarder.forward(query, outcome.labels, (answer) => {
          if (answer === null) return reply(errorReply(message, ResponseCode.SERVFAIL));
          if (known) nameExists(answer);
          reply(answer.length > replyBytesMax(message, protocol) ? truncatedReply(answer, ourEdns(message)) : answer);
        });
        if (!taken) {
          metrics.refused("busy");
          reply(errorReply(message, ResponseCode.SERVFAIL));
        }
      }
    }
  }

  #scope(): NameScope | null {
    const { store, clusterDomain, ipv6, random, resolver } = this.#options;
    const workload = this.#options.workload();
    if (workload === null) return null;
    return { store, client: nameClient(workload, clusterDomain, resolver().searchDomains), clusterDomain, ipv6, random };
  }

  #takeToken(): boolean {
    const { questionsPerSecond } = this.#limits;
    const nowMs = this.#options.clock.monotonicMs();
    this.#tokens = Math.min(questionsPerSecond, this.#tokens + ((nowMs - this.#tokensAtMs) * questionsPerSecond) / 1000);
    this.#tokensAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

/** Bound to one loopback address, so that the answer leaves from the address that was asked. SO_REUSEPORT: a successor may listen beside us. */
function bindUdp(namespaceFd: number, at: SocketAddress, mark: number): number {
  const address = encodeSockaddr(at);
  const v6 = isIpv6(at.ip);
  return inNamespace(namespaceFd, () => {
    const fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return fd;
    setIntOption(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (v6) setIntOption(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    const marked = mark === 0 ? 0 : setIntOption(fd, SOL_SOCKET, SO_MARK, mark);
    const failed = marked < 0 ? marked : bind(fd, address);
    if (failed < 0) {
      close(fd);
      return failed;
    }
    return fd;
  });
}

/** The first of several; the others are not needed. */
function oneOf(fds: readonly number[] | undefined): number | undefined {
  for (const surplus of fds?.slice(1) ?? []) close(surplus);
  return fds?.[0];
}

const NOT_LISTENING = { code: "dns_listen_failed", blame: "operator", dies: "nothing", retry: { kind: "after", afterMs: 5_000 } } as const;

function listenFault(ip: IpAddress, errno: number): DnsFault {
  const at = isIpv6(ip) ? `[${ip}]` : ip;
  const hint = errno === -EADDRINUSE ? "; a program in this namespace holds the port, or a proxy runs there under another user" : "";
  return { ...NOT_LISTENING, message: `cannot listen for DNS on ${at}:${DNS_PORT} in the workload's namespace: ${errnoName(errno)}${hint}` };
}
