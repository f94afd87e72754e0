// Joins an Http2Connection to a Bun socket, in the plainest correct way: one flush per turn of the event loop, back-pressure by
// `drain`. For tests against foreign peers; the data plane has its own, with TLS.

import type { Socket, TCPSocketListener } from "bun";
import { Http2Connection, type Http2Handler, type Http2Options } from "../../src/wire/http2/connection.ts";

interface Attached {
  shell: SocketShell | null;
}

/** What a test's handler is made of: everything but `onOutput`, which belongs to the socket. */
export type TestHandler = (connection: () => Http2Connection) => Omit<Http2Handler, "onOutput">;

/** How long the peer may take to answer our FIN with its own. */
const LINGER_MS = 500;

class SocketShell {
  readonly connection: Http2Connection;
  private readonly socket: Socket<Attached>;
  private scheduled = false;
  private finishing = false;
  private readonly flush = (): void => {
    this.scheduled = false;
    this.write();
  };

  constructor(socket: Socket<Attached>, options: Pick<Http2Options, "role" | "settings"> & Partial<Pick<Http2Options, "limits">>, handler: TestHandler) {
    this.socket = socket;
    let connection: Http2Connection | null = null;
    const inner = handler(() => connection!);
    const full = Object.assign(Object.create(null), inner, { onOutput: () => this.schedule() }) as Http2Handler;
    this.connection = connection = new Http2Connection({ ...options, handler: full, nowMs: () => performance.now() });
  }

  write(): void {
    const output = this.connection.output;
    while (output.pendingBytes > 0) {
      const offered = output.pendingBytes;
      const taken = this.socket.write(output.peek());
      if (taken <= 0) break;
      output.consume(taken);
      if (taken < offered) return;
    }
    if (this.connection.drained && output.pendingBytes === 0) this.finish();
  }

  /** Our FIN first: closing at once with bytes of the peer unread would reset the connection under its last answer. */
  private finish(): void {
    if (this.finishing) return;
    this.finishing = true;
    this.socket.shutdown();
    setTimeout(() => this.socket.end(), LINGER_MS).unref();
  }

  ended(): void {
    this.connection.receiveEnd();
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(this.flush);
  }
}

const socketHandlers = {
  data(socket: Socket<Attached>, chunk: Buffer): void {
    socket.data.shell!.connection.receive(chunk);
    // A client may go away with nothing left to say; look once more whether all is done.
    setImmediate(() => socket.data.shell!.write());
  },
  drain(socket: Socket<Attached>): void {
    socket.data.shell?.write();
  },
  end(socket: Socket<Attached>): void {
    socket.data.shell?.ended();
    socket.end();
  },
  close(socket: Socket<Attached>): void {
    socket.data.shell?.ended();
  },
  error(): void {},
};

export interface Http2TestServer {
  readonly port: number;
  readonly connections: readonly Http2Connection[];
  stop(): void;
}

/** Listens on loopback, any port, cleartext with prior knowledge. */
export function listenHttp2(options: Pick<Http2Options, "settings"> & Partial<Pick<Http2Options, "limits">>, handler: TestHandler): Http2TestServer {
  const connections: Http2Connection[] = [];
  const listener: TCPSocketListener<Attached> = Bun.listen<Attached>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      ...socketHandlers,
      open(socket) {
        const shell = new SocketShell(socket, { ...options, role: "server" }, handler);
        socket.data = { shell };
        connections.push(shell.connection);
      },
    },
  });
  return { port: listener.port, connections, stop: () => listener.stop(true) };
}

/** Connects to loopback. Resolves when the socket is open; the preface is on its way. */
export async function connectHttp2(port: number, options: Pick<Http2Options, "settings"> & Partial<Pick<Http2Options, "limits">>, handler: TestHandler): Promise<Http2Connection> {
  const socket = await Bun.connect<Attached>({
    hostname: "127.0.0.1",
    port,
    data: { shell: null },
    socket: {
      ...socketHandlers,
      open(opened) {
        opened.data.shell = new SocketShell(opened, { ...options, role: "client" }, handler);
      },
    },
  });
  return socket.data.shell!.connection;
}
