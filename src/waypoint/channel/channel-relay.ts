// Bytes between two channels, both ways, with half-close in both orders and back-pressure: what is no HTTP, passed through as it is.

import type { Due, DueList } from "../../net/due-list.ts";
import type { Channel, ChannelUser } from "./channel.ts";

export interface RelayOptions {
  readonly client: Channel & { user: ChannelUser | null };
  readonly server: Channel & { user: ChannelUser | null };
  readonly due: DueList;
  readonly nowMs: () => number;
  /** Without a byte either way; then both are cut. */
  readonly idleMs: number;
  /** Once. @param error what ended it, null for a usual end. */
  readonly finished: (error: string | null, relay: ChannelRelay) => void;
}

export class ChannelRelay implements Due {
  dueMs: number;
  dueIndex = -1;
  toServerBytes = 0;
  toClientBytes = 0;
  readonly #options: RelayOptions;
  readonly #client: Side;
  readonly #server: Side;
  #lastMs: number;
  #finished = false;

  /** @param early what the client sent before the server was there; `ended` when it has ended already. */
  constructor(options: RelayOptions, early: readonly Uint8Array[], ended: boolean) {
    this.#options = options;
    this.#lastMs = options.nowMs();
    this.dueMs = this.#lastMs + options.idleMs;
    options.due.add(this);
    this.#client = new Side(this, options.client);
    this.#server = new Side(this, options.server);
    this.#client.other = this.#server;
    this.#server.other = this.#client;
    options.client.user = this.#client;
    options.server.user = this.#server;
    for (const chunk of early) this.#client.onBytes(chunk);
    if (ended) this.#client.onPeerEnd();
    options.client.resume();
  }

  moved(from: Side, bytes: number): void {
    this.#lastMs = this.#options.nowMs();
    if (from === this.#client) this.toServerBytes += bytes;
    else this.toClientBytes += bytes;
  }

  onDue(nowMs: number): void {
    const idleDueMs = this.#lastMs + this.#options.idleMs;
    if (nowMs >= idleDueMs) this.destroy(`no byte for ${this.#options.idleMs} ms`);
    else {
      this.dueMs = idleDueMs;
      this.#options.due.sooner(this);
    }
  }

  finishIfBothEnded(): void {
    if (!this.#client.done || !this.#server.done) return;
    this.#finish(null);
    this.#options.client.close();
    this.#options.server.close();
  }

  destroy(error: string): void {
    if (this.#finished) return;
    this.#finish(error);
    this.#options.client.destroy();
    this.#options.server.destroy();
  }

  #finish(error: string | null): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#options.due.remove(this);
    this.#options.client.user = NOBODY;
    this.#options.server.user = NOBODY;
    this.#options.finished(error, this);
  }
}

const NOBODY: ChannelUser = { onBytes() {}, onWritable() {}, onPeerEnd() {}, onChannelClosed() {} };

/** One of the two channels: what it reads goes to `other`, what it must still write waits here while `other` is paused. */
class Side implements ChannelUser {
  other!: Side;
  readonly channel: Channel;
  readonly #relay: ChannelRelay;
  #queue: Uint8Array[] = [];
  #paused = false;
  /** The peer sends no more, */
  #ended = false;
  /** and has been told that we do not either. */
  #shut = false;

  constructor(relay: ChannelRelay, channel: Channel) {
    this.#relay = relay;
    this.channel = channel;
  }

  get done(): boolean {
    return this.#ended && this.#shut;
  }

  onBytes(chunk: Uint8Array): void {
    this.#relay.moved(this, chunk.length);
    this.other.#write(chunk);
  }

  onWritable(): void {
    const queue = this.#queue;
    while (queue.length > 0) {
      const written = Math.max(0, this.channel.write(queue[0]!));
      if (written < queue[0]!.length) {
        queue[0] = queue[0]!.subarray(written);
        return;
      }
      queue.shift();
    }
    const { other } = this;
    if (other.#paused) {
      other.#paused = false;
      other.channel.resume();
    }
    this.#shutWhenWritten();
  }

  onPeerEnd(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.other.#shutWhenWritten();
    this.#relay.finishIfBothEnded();
  }

  onChannelClosed(error: string | null): void {
    if (error === null && this.#ended && this.#queue.length === 0) {
      this.#shut = true;
      this.#relay.finishIfBothEnded();
      return;
    }
    this.#relay.destroy(error ?? "closed before everything was written");
  }

  #write(chunk: Uint8Array): void {
    const written = this.#queue.length > 0 ? 0 : Math.max(0, this.channel.write(chunk));
    if (written === chunk.length) return;
    this.#queue.push(new Uint8Array(chunk.subarray(written)));
    const { other } = this;
    if (other.#paused) return;
    other.#paused = true;
    other.channel.pause();
  }

  #shutWhenWritten(): void {
    if (!this.other.#ended || this.#queue.length > 0 || this.#shut) return;
    this.#shut = true;
    this.channel.end();
    this.#relay.finishIfBothEnded();
  }
}
