// The servers behind both proxies, over HTTP/1.1 and over HTTP/2: they answer what the request asks for in its own headers, and keep the
// requests that they were sent whole. A call of gRPC is answered by its own message.
//
//   x-status: 418          that status            x-fail: 503,503        so for the first requests with this x-id, then 200
//   x-delay: 300           milliseconds before    x-drop: 1              the connection of the first requests with this x-id dies
//   x-answer: a=b; c=d     headers of the answer  x-trailers: a=b        fields after its body
//   x-interim: 103,103     answers before it      x-grpc-status: 7       that status after the message
//   x-grpc-fail: 14,14     these statuses and nothing else for the first calls with this x-id

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createServer2, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import type { ServerName, ServerProtocol } from "./description.ts";

/** Not loopback: an endpoint of the mesh may not be. Put on the box's own loopback device. */
export const SERVERS: Readonly<Record<ServerName, { readonly address: string }>> = { one: { address: "198.18.7.1" }, two: { address: "198.18.7.2" }, shadow: { address: "198.18.7.3" }, nobody: { address: "198.18.7.9" } };
export const SERVER_PORT: Readonly<Record<ServerProtocol, number>> = { http1: 8080, http2: 8081 };

export interface Arrival {
  readonly server: ServerName | "authorizer";
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Latin-1. */
  readonly body: string;
  readonly trailers?: Readonly<Record<string, string>>;
}

/** What a request asks of its server. */
interface Wish {
  readonly dies: boolean;
  readonly delayMs: number;
  readonly status: number;
  readonly interim: readonly number[];
  readonly headers: readonly (readonly [string, string])[];
  readonly trailers: readonly (readonly [string, string])[];
  /** Of a call: the headers are all of the answer. */
  readonly trailersOnly: boolean;
  readonly body: string;
}

export class Servers implements AsyncDisposable {
  readonly arrivals: Arrival[] = [];
  readonly #servers: (Server | Http2Server)[] = [];
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #counts = new Map<string, number>();

  async start(): Promise<void> {
    for (const [name, { address }] of Object.entries(SERVERS) as [ServerName, { address: string }][]) {
      if (name === "nobody") continue;
      const server = createServer((request, response) => void this.#serve(name, request, response));
      server.keepAliveTimeout = 0;
      server.on("upgrade", (request, socket, early) => this.#upgrade(name, request, socket, early));
      const server2 = createServer2({ settings: { enableConnectProtocol: true } });
      server2.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void this.#serve2(name, stream, headers)).on("session", (session) => {
        this.#sessions.add(session);
        session.on("error", () => {}).on("close", () => this.#sessions.delete(session));
      });
      for (const [one, port] of [[server, SERVER_PORT.http1], [server2, SERVER_PORT.http2]] as const) {
        this.#servers.push(one);
        await new Promise<void>((resolve) => one.listen(port, address, resolve));
      }
    }
  }

  async #serve(server: ServerName, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await bodyOf(request);
    if (body === null) return;
    const wish = this.#arrived({ server, method: request.method!, target: request.url!, headers: plainFields(request.headers), body, ...trailersOf(request.trailers) });
    if (wish.dies) return void request.socket.destroy();
    later(wish.delayMs, () => {
      for (const status of wish.interim) request.socket.write(`HTTP/1.1 ${status} Early\r\nlink: </early>\r\n\r\n`);
      response.statusCode = wish.status;
      for (const [name, value] of wish.headers) response.appendHeader(name, value);
      if (wish.trailers.length > 0) {
        response.setHeader("trailer", wish.trailers.map(([name]) => name).join(", "));
        response.write(wish.body);
        response.addTrailers(Object.fromEntries(wish.trailers));
        response.end();
      } else response.end(wish.body);
    });
  }

  /** Says what it hears. */
  #upgrade(server: ServerName, request: IncomingMessage, socket: Duplex, early: Buffer): void {
    this.#arrived({ server, method: request.method!, target: request.url!, headers: plainFields(request.headers), body: "" });
    socket.on("error", () => {});
    const key = request.headers["sec-websocket-key"];
    // RFC 6455, section 1.3.
    const accept = key === undefined ? "" : `sec-websocket-accept: ${createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")}\r\n`;
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ${request.headers.upgrade}\r\n${accept}x-server: ${server}\r\n\r\n`);
    socket.write(early);
    socket.pipe(socket);
  }

  async #serve2(server: ServerName, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    stream.on("error", () => {});
    const { ":method": method = "", ":path": target = "", ":authority": host, ":scheme": _, ":protocol": protocol, ...fields } = headers;
    const head = { server, method, target, headers: plainFields({ ...(host === undefined ? {} : { host }), ...fields, ...(protocol === undefined ? {} : { ":protocol": String(protocol) }) }) };
    if (protocol !== undefined) {
      this.#arrived({ ...head, body: "" });
      stream.respond({ ":status": 200, "x-server": server });
      return void stream.pipe(stream);
    }
    let trailers: IncomingHttpHeaders = {};
    stream.on("trailers", (got) => void (trailers = got));
    const body = await bodyOf(stream);
    if (body === null) return;
    const wish = this.#arrived({ ...head, body, ...trailersOf(trailers) });
    if (wish.dies) return void stream.session?.destroy();
    later(wish.delayMs, () => {
      if (stream.destroyed) return;
      for (const status of wish.interim) stream.additionalHeaders({ ":status": status, link: "</early>" });
      const out: Record<string, string | string[] | number> = { ":status": wish.status };
      for (const [name, value] of wish.headers) out[name] = out[name] === undefined ? value : [String(out[name]), value].flat();
      stream.respond(out, { endStream: wish.trailersOnly, waitForTrailers: wish.trailers.length > 0 });
      if (wish.trailersOnly) return;
      stream.on("wantTrailers", () => stream.sendTrailers(Object.fromEntries(wish.trailers)));
      stream.end(Buffer.from(wish.body, "latin1"));
    });
  }

  #arrived(arrival: Arrival): Wish {
    this.arrivals.push(arrival);
    const { server, method, target, headers, body } = arrival;
    const text = (name: string): string => headers[name] ?? "";
    const pairs = (name: string) => text(name).split("; ").filter((part) => part !== "").map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)] as const);
    const key = `${server} ${text("x-id")}`;
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    const failure = text("x-fail").split(",")[count - 1];
    const common = { dies: count <= Number(text("x-drop")), delayMs: Number(text("x-delay")), status: Number(failure || text("x-status") || 200), interim: text("x-interim").split(",").filter((part) => part !== "").map(Number) };
    const own = [["x-server", server] as const, ...pairs("x-answer")];
    if (!text("content-type").startsWith("application/grpc")) return { ...common, headers: own, trailers: pairs("x-trailers"), trailersOnly: false, body: `${server} ${method} ${target} ${body}`.trimEnd() };
    const type = ["content-type", text("content-type")] as const;
    const broken = text("x-grpc-fail").split(",")[count - 1];
    if (broken) return { ...common, headers: [...own, type, ["grpc-status", broken], ["grpc-message", "as asked"]], trailers: [], trailersOnly: true, body: "" };
    return { ...common, headers: [...own, type], trailers: [["grpc-status", text("x-grpc-status") || "0"], ...pairs("x-trailers")], trailersOnly: false, body };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions) session.destroy();
    for (const server of this.#servers) {
      if ("closeAllConnections" in server) server.closeAllConnections();
      server.close();
    }
  }
}

/** Null when it broke off: whether the head of such a request comes through is a matter of time. */
export async function bodyOf(stream: AsyncIterable<Buffer>): Promise<string | null> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of stream) chunks.push(chunk);
  } catch {
    return null;
  }
  return Buffer.concat(chunks).toString("latin1");
}

export function plainFields(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : value ?? ""]));
}

function trailersOf(fields: Readonly<Record<string, string | string[] | undefined>>): Pick<Arrival, "trailers"> {
  return Object.keys(fields).length === 0 ? {} : { trailers: plainFields(fields) };
}

function later(delayMs: number, answer: () => void): void {
  if (delayMs > 0) setTimeout(answer, delayMs);
  else answer();
}
