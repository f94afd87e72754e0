// A plain HTTP/1 proxy made of both engines and Bun sockets, in the plainest correct way: one upstream connection for each downstream one,
// one flush per turn, back-pressure both ways. For tests against foreign peers; the waypoint has its own.

import type { Socket, TCPSocketListener } from "bun";
import { type ClientExchange, Http1ClientConnection, outgoingRequest } from "../../src/wire/http1/client-connection.ts";
import { OUTPUT_DATA_BYTES_MAX } from "../../src/wire/http1/limits.ts";
import { Http1ServerConnection, type ServerExchange } from "../../src/wire/http1/server-connection.ts";
import type { TransportSide } from "../../src/wire/http1/transport-side.ts";
import { LENGTH_UNKNOWN } from "../../src/wire/http/content-length.ts";
import { ListFields } from "../../src/wire/http/fields.ts";

/** Output of one side at which the other is told to wait, and at which it may go on: an engine takes whatever comes before its own limit. */
const FULL_BYTES = OUTPUT_DATA_BYTES_MAX / 2;
const EMPTY_BYTES = FULL_BYTES / 4;

interface Attached {
  pipe: Pipe | null;
}

/** One engine and its socket. */
class Pipe {
  engine: TransportSide | null = null;
  socket: Socket<Attached> | null = null;
  private scheduled = false;
  private readonly flush = (): void => {
    this.scheduled = false;
    this.write();
  };

  readonly events = {
    onOutput: (): void => {
      if (this.scheduled) return;
      this.scheduled = true;
      setImmediate(this.flush);
    },
    onWantsInput: (wanted: boolean): void => void (wanted ? this.socket?.resume() : this.socket?.pause()),
    onFinished: (): void => this.events.onOutput(),
  };

  write(): void {
    const { engine, socket } = this;
    if (engine === null || socket === null) return;
    while (engine.output.pendingBytes > 0) {
      const offered = engine.output.pendingBytes;
      const taken = socket.write(engine.output.peek());
      if (taken > 0) engine.output.consume(taken);
      if (taken < offered) return;
    }
    if (engine.finished) socket.shutdown();
    if (engine.closed) socket.end();
  }
}

export interface Http1TestProxy {
  readonly port: number;
  readonly faults: string[];
  stop(): void;
}

export function listenHttp1Proxy(upstreamPort: number): Http1TestProxy {
  const faults: string[] = [];
  const handlers = {
    data: (socket: Socket<Attached>, bytes: Uint8Array): void => socket.data.pipe?.engine?.receive(bytes),
    drain: (socket: Socket<Attached>): void => socket.data.pipe?.write(),
    end: (socket: Socket<Attached>): void => {
      socket.data.pipe?.engine?.receiveEnd();
      socket.data.pipe?.events.onOutput();
    },
    close: (socket: Socket<Attached>): void => {
      const engine = socket.data.pipe?.engine;
      if (engine instanceof Http1ServerConnection || engine instanceof Http1ClientConnection) engine.transportClosed();
    },
    error: (): void => {},
  };
  const listener: TCPSocketListener<Attached> = Bun.listen<Attached>({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: { ...handlers, open: (socket) => open(socket, upstreamPort, handlers, faults) },
  });
  return { port: listener.port, faults, stop: () => listener.stop(true) };
}

function open(socket: Socket<Attached>, upstreamPort: number, handlers: object, faults: string[]): void {
  const down = new Pipe();
  const up = new Pipe();
  let asked: ServerExchange | null = null;
  let asking: ClientExchange | null = null;
  const fail = (): void => {
    if (asked === null) return;
    if (asked.responseStarted) server.abort(asked);
    else server.respond(asked, { status: 502, fields: ListFields.of([]), contentLength: LENGTH_UNKNOWN }, true);
  };
  const server: Http1ServerConnection = new Http1ServerConnection({
    handler: {
      ...down.events,
      onRequest: (exchange) => {
        asked = exchange;
        asking = client.request(outgoingRequest(exchange), !exchange.hasBody);
        if (asking === null) fail();
      },
      onBody: (_, bytes) => {
        if (asking === null) return;
        if (client.sendBody(asking, bytes) === 0) throw new Error("the upstream took nothing, although it was not full");
        if (client.output.pendingBytes > FULL_BYTES) server.pause();
      },
      onRequestEnd: (_, trailers) => void (asking !== null && client.endBody(asking, trailers)),
      onSendable: () => {},
      onAborted: () => void (asking !== null && client.abort(asking)),
      onClosed: () => void (asked = null),
      onError: (error) => void faults.push(`downstream ${error.code}`),
    },
  });
  const client: Http1ClientConnection = new Http1ClientConnection({
    handler: {
      ...up.events,
      onInformational: (_, response) => void (asked !== null && server.inform(asked, response.status, response.fields)),
      onResponse: (_, response, endStream) => void (asked !== null && server.respond(asked, response, endStream)),
      onBody: (_, bytes) => {
        if (asked === null) return;
        if (server.sendBody(asked, bytes) === 0) throw new Error("the client took nothing, although it was not full");
        if (server.output.pendingBytes > FULL_BYTES) client.pause();
      },
      onResponseEnd: (_, trailers) => void (asked !== null && server.endBody(asked, trailers)),
      onSendable: () => {},
      onAborted: fail,
      onClosed: () => void (asking = null),
      onError: (error) => void faults.push(`upstream ${error.code}`),
    },
  });
  const resumeWhenEmpty = (from: Pipe, to: { resume(): void }): void => {
    const write = from.write.bind(from);
    from.write = (): void => {
      write();
      if (from.engine !== null && from.engine.output.pendingBytes < EMPTY_BYTES) to.resume();
    };
  };
  resumeWhenEmpty(down, client);
  resumeWhenEmpty(up, server);
  down.engine = server;
  down.socket = socket;
  socket.data = { pipe: down };
  up.engine = client;
  void Bun.connect<Attached>({
    hostname: "127.0.0.1", port: upstreamPort, allowHalfOpen: true, data: { pipe: up },
    socket: { ...handlers, open: (opened: Socket<Attached>) => { up.socket = opened; up.write(); } },
  }).catch(() => client.transportClosed());
}
