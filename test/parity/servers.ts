// The servers behind both proxies: they answer what the request asks for in its own headers, and keep the requests that they were sent whole.
//
//   x-status: 418          that status            x-fail: 503,503   so for the first requests with this x-id, then 200
//   x-delay: 300           milliseconds before    x-drop: 1         the connection of the first requests with this x-id dies
//   x-answer: a=b; c=d     headers of the answer

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { ServerName } from "./description.ts";

/** Not loopback: an endpoint of the mesh may not be. Put on the box's own loopback device. */
export const SERVERS: Readonly<Record<ServerName, { readonly address: string; readonly port: number }>> = {
  one: { address: "198.18.7.1", port: 8080 }, two: { address: "198.18.7.2", port: 8080 }, shadow: { address: "198.18.7.3", port: 8080 },
};

export interface Arrival {
  readonly server: ServerName;
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export class Servers implements AsyncDisposable {
  readonly arrivals: Arrival[] = [];
  readonly #servers: Server[] = [];
  readonly #counts = new Map<string, number>();

  async start(): Promise<void> {
    for (const [name, { address, port }] of Object.entries(SERVERS) as [ServerName, { address: string; port: number }][]) {
      const server = createServer((request, response) => void this.#serve(name, request, response));
      server.keepAliveTimeout = 0;
      this.#servers.push(server);
      await new Promise<void>((resolve) => server.listen(port, address, resolve));
    }
  }

  async #serve(server: ServerName, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { headers } = request;
    let body = "";
    try {
      for await (const chunk of request) body += String(chunk);
    } catch {
      // Whether the head of a request that breaks off came through is a matter of time.
      return;
    }
    this.arrivals.push({
      server, method: request.method!, target: request.url!, body,
      headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : value ?? ""])),
    });
    const text = (name: string): string => String(headers[name] ?? "");
    const key = `${server} ${text("x-id")}`;
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    if (count <= Number(text("x-drop"))) return void request.socket.destroy();
    const failure = text("x-fail").split(",")[count - 1];
    const answer = (): void => {
      response.statusCode = Number(failure || text("x-status") || 200);
      response.setHeader("x-server", server);
      for (const pair of text("x-answer").split("; ").filter((part) => part !== "")) response.appendHeader(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
      response.end(`${server} ${request.method} ${request.url} ${body}`.trimEnd());
    };
    const delayMs = Number(text("x-delay"));
    if (delayMs > 0) setTimeout(answer, delayMs);
    else answer();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      server.close();
    }
  }
}
