// The life of one client's stream: begun when it is admitted, ended once, by whoever is first. What it holds is given back at its end, even
// when the response in flight is never taken.

import type { ConnectError } from "@connectrpc/connect";
import type { NodeIdentity } from "../node-message.ts";
import type { ClientStatus, XdsCaller } from "../serving.ts";
import type { Session } from "./session.ts";

export interface ClientConnectionOptions {
  readonly identity: NodeIdentity;
  readonly caller: XdsCaller;
  readonly peer: string;
  readonly connectedMs: number;
  readonly session: Session;
  /** Called once. @param error what the client is told; null for an end in order. */
  readonly onEnd: (error: ConnectError | null) => void;
}

export class ClientConnection {
  readonly session: Session;
  readonly identity: NodeIdentity;
  readonly #options: ClientConnectionOptions;
  #ended = false;
  #error: ConnectError | null = null;
  #news = false;
  #waiting: (() => void) | null = null;
  #sending: { readonly permit: Disposable; readonly sinceMs: number } | null = null;

  constructor(options: ClientConnectionOptions) {
    this.#options = options;
    this.session = options.session;
    this.identity = options.identity;
  }

  get ended(): boolean {
    return this.#ended;
  }

  get error(): ConnectError | null {
    return this.#error;
  }

  get status(): ClientStatus {
    const { identity, caller, peer, connectedMs, session } = this.#options;
    return { id: identity.id, caller: caller.name, view: identity.view, peer, connectedMs, agentVersion: identity.agentVersion, types: session.types };
  }

  /** Monotonic time since which a response waits to be taken; null when none does. */
  get sendingSinceMs(): number | null {
    return this.#sending?.sinceMs ?? null;
  }

  /** A response goes out: its room is taken until `sent`. */
  sending(permit: Disposable, nowMs: number): void {
    this.#sending = { permit, sinceMs: nowMs };
    if (this.#ended) this.sent();
  }

  sent(): void {
    this.#sending?.permit[Symbol.dispose]();
    this.#sending = null;
  }

  /** There may be something to tell. */
  wake(): void {
    this.#news = true;
    this.#waiting?.();
    this.#waiting = null;
  }

  /** Resolves at the next `wake`; at once when there was one since the last time. */
  async news(): Promise<void> {
    if (!this.#news) await new Promise<void>((resolve) => (this.#waiting = resolve));
    this.#news = false;
  }

  end(error: ConnectError | null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.sent();
    this.#options.onEnd(error);
    this.wake();
  }
}
