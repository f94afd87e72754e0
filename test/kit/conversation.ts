// TCP and UDP between places of a test network, spoken in text, made by this process inside their namespaces.
//
//   using app = Answerer.listen(web, 8080, (peer) => `hello ${peer.from.ip}:`);   // greets, then echoes
//   using talk = await Conversation.open(client, { ip: web.ipv4, port: 8080 });
//   expect(await talk.receive("hello 198.18.1.11:")).toBe(true)
//   talk.send("x"); await talk.receive("x");
//
// `receive(text)` resolves when exactly that comes next; it rejects on other bytes, on the end, and after a while.

import { isIpv6, type OrigDst, type SocketAddress } from "../../src/core/ip.ts";
import { dial } from "../../src/net/dial.ts";
import { AF_INET, AF_INET6, bind, close, connect, EINPROGRESS, errnoName, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket } from "../../src/net/libc.ts";
import { listenTcpAnyAddress } from "../../src/net/listen.ts";
import { localAddress, originalDestination } from "../../src/net/original-destination.ts";
import type { IpAddress } from "../../src/core/ip.ts";
import { encodeSockaddr } from "../../src/net/socket-address.ts";
import type { Place } from "./network.ts";

const KEEPALIVE_OFF = { idleS: 0, intervalS: 0, probes: 0 };
const RECEIVE_TIMEOUT_MS = 5_000;

/** A peer as the listener's side sees it. */
export interface Peer {
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  /** Where it was going before it was redirected; null when it was not. */
  readonly originalDestination: OrigDst | null;
}

type Greeting = (peer: Peer) => string;
/** What a listener does with its side of a connection when the other has ended. */
type WhenEnded = "ends" | "keeps";

/** A listener on every address of a place: greets each connection, then echoes. */
export class Answerer implements Disposable {
  readonly peers: Peer[] = [];
  readonly #listener: Bun.TCPSocketListener<undefined>;

  private constructor(fd: number, greeting: Greeting, whenEnded: WhenEnded) {
    this.#listener = Bun.listen<undefined>({
      fd,
      allowHalfOpen: true,
      socket: {
        open: (socket: Bun.Socket) => {
          const fd = (socket as unknown as { fd: number }).fd;
          const peer: Peer = {
            from: { ip: socket.remoteAddress.replace(/^::ffff:/, "") as IpAddress, port: socket.remotePort },
            to: localAddress(fd)!,
            originalDestination: originalDestination(fd),
          };
          this.peers.push(peer);
          socket.write(greeting(peer));
        },
        data: (socket: Bun.Socket, bytes: Uint8Array) => void socket.write(bytes),
        end: (socket: Bun.Socket) => void (whenEnded === "ends" ? socket.end() : undefined),
      },
    } as never);
  }

  /** @param mark on the listening socket and all it accepts: 0x539 for one that plays the agent. */
  static listen(place: Place, port: number, greeting: Greeting = () => "", mark = 0, whenEnded: WhenEnded = "ends"): Answerer {
    const fd = listenTcpAnyAddress({ namespaceFd: place.namespaceFd, port, mark, keepalive: null, shared: true });
    if (fd < 0) throw new Error(`cannot listen on port ${port} in ${place.name}: ${errnoName(fd)}`);
    return new Answerer(fd, greeting, whenEnded);
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
  }
}

export interface ConversationOptions {
  readonly mark?: number;
  /** Appear from this address (needs the mark and the routing of replies). */
  readonly source?: IpAddress;
  /** Connect from this port of the place's own. */
  readonly sourcePort?: number;
}

export class Conversation implements Disposable {
  #socket: Bun.Socket | null = null;
  #received = "";
  #ended: Error | null = null;
  #changed: () => void = () => undefined;
  readonly #peerEnded = Promise.withResolvers<void>();

  private constructor() {}

  /** Resolves when connected; rejects with the errno's name when refused. */
  static async open(place: Place, to: SocketAddress, options: ConversationOptions = {}): Promise<Conversation> {
    const conversation = new Conversation();
    const fd = options.sourcePort === undefined
      ? dial({ namespaceFd: place.namespaceFd, to, mark: options.mark ?? 0, transparentSource: options.source ?? null, keepalive: KEEPALIVE_OFF })
      : dialFromPort(place, to, options.sourcePort);
    if (fd < 0) throw new Error(`cannot dial ${to.ip} port ${to.port} from ${place.name}: ${errnoName(fd)}`);
    const connected = Promise.withResolvers<void>();
    const ended = (error: Error): void => {
      conversation.#ended ??= error;
      conversation.#peerEnded.resolve();
      connected.reject(error);
      conversation.#changed();
    };
    const handlers: Bun.SocketHandler = {
      data: (_, bytes) => {
        conversation.#received += bytes.toString();
        conversation.#changed();
      },
      drain: () => connected.resolve(),
      end: () => conversation.#peerEnded.resolve(),
      close: (_, error) => ended(error ?? new Error("closed")),
      error: (_, error) => ended(error),
      connectError: (_, error) => ended(error),
    };
    void Bun.connect({ fd, allowHalfOpen: true, socket: handlers } as never).then((socket) => {
      conversation.#socket = socket as unknown as Bun.Socket;
    }, ended);
    const timer = setTimeout(() => connected.reject(new Error(`no connection to ${to.ip} port ${to.port} in ${RECEIVE_TIMEOUT_MS} ms`)), RECEIVE_TIMEOUT_MS);
    try {
      await connected.promise;
      return conversation;
    } catch (error) {
      conversation[Symbol.dispose]();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  send(text: string): void {
    this.#socket!.write(text);
  }

  async receive(text: string): Promise<boolean> {
    const deadlineMs = performance.now() + RECEIVE_TIMEOUT_MS;
    while (this.#received.length < text.length) {
      const missing = (why: string): Error => new Error(`${why}: wanted ${JSON.stringify(text)}, got ${JSON.stringify(this.#received)}`);
      if (this.#ended !== null) throw missing(`the connection ended (${this.#ended.message})`);
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) throw missing("nothing came");
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    if (!this.#received.startsWith(text)) throw new Error(`wanted ${JSON.stringify(text)}, got ${JSON.stringify(this.#received)}`);
    this.#received = this.#received.slice(text.length);
    return true;
  }

  /** What was sent comes back. */
  async echoes(text: string): Promise<boolean> {
    this.send(text);
    return await this.receive(text);
  }

  /** In order: our side first, then the peer's. */
  async end(): Promise<void> {
    this.#socket!.end();
    await this.#peerEnded.promise;
  }

  [Symbol.dispose](): void {
    this.#socket?.terminate();
  }
}

/** Sends one datagram from a place and resolves to the answer and who it came from. */
export async function askUdp(place: Place, to: SocketAddress, question: string): Promise<{ readonly answer: string; readonly from: SocketAddress }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ answer: string; from: SocketAddress }>();
  const socket = await place.inside(() =>
    Bun.udpSocket({
      hostname: to.ip.includes(":") ? "::" : "0.0.0.0",
      socket: { data: (_, bytes, port, ip) => resolve({ answer: bytes.toString(), from: { ip: ip as IpAddress, port } }) },
    }));
  const timer = setTimeout(() => reject(new Error(`no answer from ${to.ip} port ${to.port} in ${RECEIVE_TIMEOUT_MS} ms`)), RECEIVE_TIMEOUT_MS);
  try {
    socket.send(question, to.port, to.ip);
    return await promise;
  } finally {
    clearTimeout(timer);
    socket.close();
  }
}

/** Answers every datagram to an address of a place with `reply`. */
export async function answerUdp(place: Place, at: SocketAddress, reply: string): Promise<Disposable> {
  const socket = await place.inside(() => Bun.udpSocket({ hostname: at.ip, port: at.port, socket: { data: (s, _, port, ip) => void s.send(reply, port, ip) } }));
  return { [Symbol.dispose]: () => socket.close() };
}

function dialFromPort(place: Place, to: SocketAddress, port: number): number {
  const v6 = isIpv6(to.ip);
  return place.inside(() => {
    const fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return fd;
    const bound = bind(fd, encodeSockaddr({ ip: v6 ? place.ipv6! : place.ipv4, port }));
    const connected = bound < 0 ? bound : connect(fd, encodeSockaddr(to));
    if (connected >= 0 || connected === -EINPROGRESS) return fd;
    close(fd);
    return connected;
  });
}
