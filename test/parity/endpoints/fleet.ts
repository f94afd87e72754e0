// The endpoints of one scenario behind one proxy: servers that say which they are, and that fail when they are told to.

import { createServer, type Server } from "node:http";
import { HEALTH_PATH } from "./description.ts";

export type Condition =
  | "well"
  /** Every answer has this status; the health check is answered well. */
  | { readonly status: number }
  /** Every second one has. */
  | { readonly everySecond: number }
  | { readonly delayMs: number }
  /** Serves, but answers its health check with 503. */
  | "unhealthy";

interface Member {
  condition: Condition;
  server: Server | null;
  served: number;
  /** Times that its health was asked for. */
  checked: number;
  /** When a request came last, monotonic; 0 for never. */
  lastMs: number;
}

export class Fleet implements AsyncDisposable {
  readonly #members: Member[] = [];
  readonly #addresses: readonly string[];
  readonly #port: number;

  /** @param addresses of the endpoints, in order. */
  constructor(addresses: readonly string[], port: number) {
    this.#addresses = addresses;
    this.#port = port;
  }

  async start(): Promise<void> {
    for (const index of this.#addresses.keys()) {
      this.#members.push({ condition: "well", server: null, served: 0, checked: 0, lastMs: 0 });
      await this.open(index);
    }
  }

  get size(): number {
    return this.#members.length;
  }

  set(index: number, condition: Condition): void {
    this.#members[index]!.condition = condition;
  }

  setAll(condition: Condition): void {
    for (const member of this.#members) member.condition = condition;
  }

  /** Of every endpoint an answer has been looked at: it is asked again. */
  get allChecked(): boolean {
    return this.#members.every(({ checked }) => checked >= 2);
  }

  served(index: number): number {
    return this.#members[index]!.served;
  }

  lastMs(index: number): number {
    return this.#members[index]!.lastMs;
  }

  async open(index: number): Promise<void> {
    const member = this.#members[index]!;
    const server = createServer((request, response) => {
      const { condition } = member;
      if (request.url === HEALTH_PATH) member.checked++;
      if (request.url === HEALTH_PATH) return void response.writeHead(condition === "unhealthy" ? 503 : 200).end();
      member.lastMs = performance.now();
      const count = ++member.served;
      const status = typeof condition === "string" || "delayMs" in condition ? 200 : "status" in condition ? condition.status : count % 2 === 0 ? condition.everySecond : 200;
      const answer = (): void => void response.writeHead(status, { "x-endpoint": String(index) }).end();
      if (typeof condition === "object" && "delayMs" in condition) setTimeout(answer, condition.delayMs);
      else answer();
    });
    server.keepAliveTimeout = 0;
    member.server = server;
    await new Promise<void>((resolve) => server.listen(this.#port, this.#addresses[index]!, resolve));
  }

  /** Takes no more connections, and ends those it has. */
  async close(index: number): Promise<void> {
    const { server } = this.#members[index]!;
    this.#members[index]!.server = null;
    if (server === null) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const index of this.#members.keys()) await this.close(index);
  }
}
