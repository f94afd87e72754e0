// The agent's end of ZDS: tells the ztunnels of this node which pods are in the mesh, with the network namespace of each. Ztunnels come
// and go, two of them overlap in an upgrade: each is told everything when it comes, additions go to the newest, removals to all.

import { mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { err, ok, type Result } from "../core/result.ts";
import { SOCK_SEQPACKET } from "../net/libc.ts";
import { listenUnix } from "../net/unix-socket.ts";
import { ZtunnelConnection, type ZdsMessage } from "./ztunnel-connection.ts";

export interface MeshedPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  /** Null once it is let go of, and where it was not found: then whoever serves it goes on. */
  readonly namespaceFd: () => number | null;
}

export interface ZdsServerOptions {
  readonly path: string;
  /** All there are now. */
  readonly pods: () => readonly MeshedPod[];
  /** A ztunnel has come or gone; `connected` counts those that are there. */
  readonly onConnections: (connected: number, what: string) => void;
}

const BACKLOG = 8;

/** What the runtime's sockets have besides their types. */
interface RawSocket {
  readonly fd: number;
  data: ZtunnelConnection;
  end(): void;
}

export class ZdsServer {
  readonly #options: ZdsServerOptions;
  /** In the order in which they said hello; the last is the newest. */
  readonly #greeted: ZtunnelConnection[] = [];
  readonly #all = new Set<ZtunnelConnection>();
  #arrival = Promise.withResolvers<void>();
  #stop: () => void = () => {};

  constructor(options: ZdsServerOptions) {
    this.#options = options;
  }

  /**
   * Takes the socket's name, whoever had it: the agent before us has ended, or is about to. Call it when all pods are known: what a ztunnel
   * is not told of when it comes, it lets go of.
   */
  listen(): Result<void, string> {
    const { path } = this.#options;
    mkdirSync(dirname(path), { recursive: true });
    rmSync(path, { force: true });
    const made = listenUnix(path, SOCK_SEQPACKET, BACKLOG);
    if ("error" in made) return err(`cannot listen for ztunnels: ${made.error}`);
    const listener = Bun.listen({
      fd: made.fd,
      socket: {
        open: (socket: RawSocket) => {
          const connection: ZtunnelConnection = new ZtunnelConnection({ fd: socket.fd, end: () => socket.end(), onHello: () => this.#hello(connection) });
          socket.data = connection;
          this.#all.add(connection);
        },
        // A SEQPACKET socket: what comes at once is one packet.
        data: (socket: RawSocket, packet: Uint8Array) => socket.data.received(packet),
        close: (socket: RawSocket) => {
          socket.data.close("it has gone");
          this.#gone(socket.data);
        },
      },
    } as never);
    this.#stop = () => listener.stop(true);
    return ok(undefined);
  }

  get connected(): number {
    return this.#greeted.length;
  }

  /**
   * Resolves when a ztunnel serves the pod, or with the reason why none does.
   * @param waitMs how long a first ztunnel is waited for.
   * @param running true: the pod goes on outside the mesh until it is served with its certificate.
   */
  async add(pod: MeshedPod, waitMs: number, running = false): Promise<Result<void, string>> {
    const deadline = performance.now() + waitMs;
    for (;;) {
      const newest = this.#greeted.at(-1);
      if (newest !== undefined) return await newest.send(added(pod, running), pod.namespaceFd);
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) return err(`no ztunnel of this node has come to ${this.#options.path}${waitMs > 0 ? ` in ${Math.round(waitMs / 1000)} s` : ""}: is the DaemonSet ztunnel running here?`);
      await Promise.race([this.#arrival.promise, Bun.sleep(leftMs)]);
    }
  }

  /** Told to everybody; who does not answer is on its way out, and ends with the pod's connections in any case. */
  async remove(uid: string): Promise<void> {
    await Promise.all(this.#greeted.map((connection) => connection.send({ payload: { case: "del", value: { uid } } })));
  }

  close(): void {
    this.#stop();
    for (const connection of this.#all) connection.close("the agent ends");
    rmSync(this.#options.path, { force: true });
  }

  #hello(connection: ZtunnelConnection): void {
    for (const pod of this.#options.pods()) {
      const known = pod.namespaceFd() !== null;
      void connection.send(known ? added(pod) : { payload: { case: "keep", value: { uid: pod.uid } } }, known ? pod.namespaceFd : null).then((outcome) => {
        if (!outcome.ok && connection.closedBecause === null) this.#options.onConnections(this.connected, `a ztunnel refused ${pod.namespace}/${pod.name}: ${outcome.error}`);
      });
    }
    void connection.send({ payload: { case: "snapshotSent", value: {} } });
    this.#greeted.push(connection);
    this.#arrival.resolve();
    this.#arrival = Promise.withResolvers();
    this.#options.onConnections(this.connected, "a ztunnel has come");
  }

  #gone(connection: ZtunnelConnection): void {
    this.#all.delete(connection);
    const at = this.#greeted.indexOf(connection);
    if (at < 0) return;
    const wasNewest = at === this.#greeted.length - 1;
    this.#greeted.splice(at, 1);
    this.#options.onConnections(this.connected, `a ztunnel has gone: ${connection.closedBecause ?? ""}`);
    // The one that is left may not have heard of what came since: adding again is harmless.
    const left = this.#greeted.at(-1);
    if (wasNewest && left !== undefined) for (const pod of this.#options.pods()) void left.send(added(pod), pod.namespaceFd);
  }
}

function added({ uid, name, namespace, serviceAccount }: MeshedPod, running = false): ZdsMessage {
  return { payload: { case: "add", value: { uid, workloadInfo: { name, namespace, serviceAccount }, running } } };
}

