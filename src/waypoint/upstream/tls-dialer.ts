// A channel to a server that wants TLS: first the way there, then the handshake, then a look at who answered. All within one time.

import type { Due, DueList } from "../../net/due-list.ts";
import type { BackendHandshake } from "../../net/tls.ts";
import type { ChannelWithUser } from "../channel/channel.ts";
import { type ChannelOwner, type ConnectFailure, type PendingChannel, PlainChannel } from "../channel/plain-channel.ts";
import { type HandshakeUser, InnerTlsChannel, type Securing, TlsChannel } from "../channel/tls-channel.ts";

export interface TlsDialOptions {
  readonly due: DueList;
  /** The way there. */
  readonly dial: (owner: ChannelOwner, timeoutMs: number, nowMs: number) => PendingChannel;
  readonly handshake: BackendHandshake;
  /** Null when the server is the one that was meant; else what is wrong with it. */
  readonly judge: (chainDer: readonly Uint8Array[], chainError: string | null) => string | null;
  /** For messages: `198.18.0.1:8443`. */
  readonly name: string;
  readonly timeoutMs: number;
}

/** Fails through `owner`, always after it returned. */
export function dialTls(options: TlsDialOptions, owner: ChannelOwner, nowMs: number): PendingChannel {
  const dial = new TlsDial(options, owner, nowMs);
  dial.start(nowMs);
  return dial;
}

class TlsDial implements PendingChannel, ChannelOwner, HandshakeUser, Due {
  dueMs: number;
  dueIndex = -1;
  readonly #options: TlsDialOptions;
  readonly #owner: ChannelOwner;
  #pending: PendingChannel | null = null;
  #securing: Securing | null = null;
  #settled = false;

  constructor(options: TlsDialOptions, owner: ChannelOwner, nowMs: number) {
    this.#options = options;
    this.#owner = owner;
    this.dueMs = nowMs + options.timeoutMs;
  }

  start(nowMs: number): void {
    this.#options.due.add(this);
    this.#pending = this.#options.dial(this, this.#options.timeoutMs, nowMs);
  }

  cancel(): void {
    if (!this.#settle()) return;
    this.#pending?.cancel();
    this.#securing?.destroy();
  }

  connected(channel: ChannelWithUser): void {
    this.#pending = null;
    if (this.#settled) return channel.destroy();
    const { handshake } = this.#options;
    try {
      this.#securing = channel instanceof PlainChannel ? new TlsChannel(channel, handshake, this) : new InnerTlsChannel(channel, handshake, this);
    } catch (error) {
      // A name that no server can be asked for.
      channel.destroy();
      this.handshakeFailed(error instanceof Error ? error.message : String(error));
    }
  }

  connectFailed(message: string, what: ConnectFailure): void {
    this.#pending = null;
    if (this.#settle()) this.#owner.connectFailed(message, what);
  }

  secured(channel: ChannelWithUser, { chainDer, chainError, alpn }: Parameters<HandshakeUser["secured"]>[1]): void {
    const wrong = this.#options.judge(chainDer, chainError);
    if (wrong !== null) {
      channel.destroy();
      return this.handshakeFailed(wrong);
    }
    if (this.#settle()) this.#owner.connected(channel, alpn);
    else channel.destroy();
  }

  handshakeFailed(seen: string): void {
    const { name, handshake } = this.#options;
    if (this.#settle()) this.#owner.connectFailed(`TLS with ${name} as ${handshake.sni} failed: ${seen}`, "tls");
  }

  onDue(): void {
    const { timeoutMs } = this.#options;
    if (this.#securing !== null) {
      this.#securing.destroy();
      return this.handshakeFailed(`the handshake was not finished within ${timeoutMs} ms`);
    }
    this.#pending?.cancel();
    this.connectFailed(`no connection to ${this.#options.name} within ${timeoutMs} ms`, "connect");
  }

  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    this.#options.due.remove(this);
    return true;
  }
}
