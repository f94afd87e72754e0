// What an application sends before its path is ready: kept up to a limit, then the socket is paused.

import type { ByteBudget } from "./byte-budget.ts";
import type { PlainSocket } from "./endpoint-socket.ts";

/** One read of a small request; a client that sends more waits for its path. Pausing each client would cost two system calls a connection. */
export const EARLY_BYTES_MAX = 64 * 1024;

export class EarlyBytes {
  readonly chunks: Uint8Array[] = [];
  ended = false;
  paused = false;
  readonly #budget: ByteBudget;
  #bytes = 0;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  /** Whoever takes the chunks counts them from here on. */
  release(): void {
    this.#budget.change(-this.#bytes);
    this.#bytes = 0;
  }

  add(socket: PlainSocket, chunk: Uint8Array): void {
    this.chunks.push(chunk);
    this.#bytes += chunk.length;
    this.#budget.change(chunk.length);
    if (this.#bytes >= EARLY_BYTES_MAX && !this.paused) {
      this.paused = true;
      socket.pause();
    }
  }
}
