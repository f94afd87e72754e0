// A way to a port of loopback that a test leads elsewhere, cuts and holds up: what stands between a client and a server that is several
// replicas, or is gone, or says nothing any more.

import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** `silent`: connections stand and nothing passes, as when the other machine has gone without a word. */
export type RelayMode = "passes" | "cut" | "silent";

export class Relay implements AsyncDisposable {
  #mode: RelayMode = "passes";
  /** Where new connections are led. */
  target: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(target: number) {
    this.target = target;
    this.#server = createServer((client) => this.#admit(client));
  }

  static async to(target: number): Promise<Relay> {
    const relay = new Relay(target);
    await new Promise<void>((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that were silent are cut when anything passes again: what was sent meanwhile is lost, as it is there. */
  set mode(mode: RelayMode) {
    this.#mode = mode;
    if (mode === "silent") for (const socket of this.#sockets) socket.pause();
    else this.cut();
  }

  /** Ends every connection there is. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.cut();
    await closed;
  }

  #admit(client: Socket): void {
    this.#keep(client);
    if (this.#mode === "cut") {
      client.destroy();
      return;
    }
    if (this.#mode === "silent") {
      client.pause();
      return;
    }
    const server = connect(this.target, "127.0.0.1");
    this.#keep(server);
    client.pipe(server);
    server.pipe(client);
    client.once("close", () => server.destroy());
    server.once("close", () => client.destroy());
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => this.#sockets.delete(socket));
  }
}
