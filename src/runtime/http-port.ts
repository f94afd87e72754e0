// A small HTTP/1.1 server on a listening descriptor made elsewhere, so that the socket can outlive this process. For the few requests of
// operators and monitoring. Bodies of requests are read and dropped: nobody has anything to send here.

import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer, type Socket } from "node:net";
import type { Hono } from "hono";

/** A client that says nothing for this long is cut off. */
const IDLE_MS = 30_000;
/** Monitoring has a handful; beyond this somebody is playing. */
const CONNECTIONS_MAX = 256;
const HEADER_BYTES_MAX = 16 * 1024;
const BODY_BYTES_MAX = 16 * 1024;

export interface HttpPort {
  /**
   * Takes no new connection. Those there are get an answer to the request that is on its way, and are told to close; what is left after
   * `deadlineMs` is cut. Resolves when none is left.
   */
  stop(deadlineMs: number): Promise<void>;
}

/** @param fd listening; owned from here on. */
export async function serveHttp(fd: number, app: Hono): Promise<HttpPort> {
  const sockets = new Set<Socket>();
  let stopping = false;
  const http = createHttpServer({ maxHeaderSize: HEADER_BYTES_MAX }, (request, response) => {
    if (stopping) response.setHeader("Connection", "close");
    void answer(app, request, response);
  });
  http.on("clientError", (_error, socket) => socket.destroy());
  const listener = createServer((socket) => {
    if (sockets.size >= CONNECTIONS_MAX) return void socket.destroy();
    sockets.add(socket);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on("error", () => {}); // `close` follows
    socket.once("close", () => sockets.delete(socket));
    http.emit("connection", socket);
  });
  const listening = Promise.withResolvers<void>();
  listener.once("error", listening.reject);
  listener.listen({ fd }, listening.resolve);
  await listening.promise;
  return {
    async stop(deadlineMs) {
      stopping = true;
      listener.close();
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, deadlineMs);
      await Promise.all([...sockets].map((socket) => new Promise<void>((resolve) => socket.once("close", () => resolve()))));
      clearTimeout(timer);
    },
  };
}

/** False when the body is larger than anybody has a reason to send. */
function bodyDropped(request: IncomingMessage): Promise<boolean> {
  if (Number(request.headers["content-length"] ?? 0) > BODY_BYTES_MAX) return Promise.resolve(false);
  return new Promise((resolve) => {
    let bytes = 0;
    request.on("data", (chunk: Uint8Array) => {
      bytes += chunk.length;
      if (bytes > BODY_BYTES_MAX) resolve(false);
    });
    request.on("end", () => resolve(true));
    request.on("close", () => resolve(true));
  });
}

async function answer(app: Hono, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    if (!(await bodyDropped(request))) {
      response.writeHead(413, { Connection: "close" }).end("the request's body is too large\n", () => request.socket.destroy());
      return;
    }
    const url = URL.canParse(request.url ?? "", "http://localhost") ? new URL(request.url ?? "", "http://localhost") : null;
    if (url === null) return void response.writeHead(400).end("the request's target is malformed\n");
    const headers = new Headers();
    for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) headers.append(request.rawHeaders[i]!, request.rawHeaders[i + 1]!);
    const reply = await app.fetch(new Request(url.href, { method: request.method ?? "GET", headers }));
    response.writeHead(reply.status, Object.fromEntries(reply.headers));
    response.end(Buffer.from(await reply.arrayBuffer()));
  } catch (error) {
    if (!response.headersSent) response.writeHead(500);
    response.end(`${error instanceof Error ? error.message : String(error)}\n`);
  }
}
