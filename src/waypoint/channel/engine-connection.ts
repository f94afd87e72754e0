// What every connection of a waypoint does, to clients and to servers, in both versions of HTTP: an engine between a channel and its user,
// output once per turn, one deadline, one end. What the engine says and how long it may take is the business of its kinds.

import type { Due, DueList } from "../../net/due-list.ts";
import type { OutputBuffer } from "../../wire/http/output-buffer.ts";
import type { Channel, ChannelUser } from "./channel.ts";
import { ChannelWriter, type EngineEnd } from "./channel-writer.ts";
import { HeldCount } from "./held-count.ts";
import type { ByteBudget, ByteHolder } from "../../tunnel/byte-budget.ts";

/** Where it lives. */
export interface ConnectionPlace {
  readonly due: DueList;
  readonly budget: ByteBudget;
  readonly nowMs: () => number;
}

export abstract class EngineConnection implements ChannelUser, Due, ByteHolder {
  dueMs = Infinity;
  dueIndex = -1;
  protected readonly channel: Channel;
  /** The peer took something, or began to be waited for. */
  progressMs: number;
  readonly #place: ConnectionPlace;
  readonly #held: HeldCount;
  #writer: ChannelWriter | null = null;
  #isGone = false;
  /** What went wrong below the engine; null for a usual end. */
  protected channelError: string | null = null;

  constructor(channel: Channel, place: ConnectionPlace) {
    this.channel = channel;
    this.#place = place;
    this.#held = new HeldCount(place.budget, this);
    this.progressMs = place.nowMs();
  }

  /** Last in the constructor of a kind. */
  protected begin(output: OutputBuffer, end: EngineEnd, dueMs: number): void {
    this.#writer = new ChannelWriter(this.channel, output, end, this.#held);
    this.dueMs = dueMs;
    this.#place.due.add(this);
    if (output.pendingBytes > 0) this.#writer.schedule();
  }

  protected get isGone(): boolean {
    return this.#isGone;
  }

  abstract onBytes(chunk: Uint8Array): void;
  abstract onPeerEnd(): void;
  abstract onDue(nowMs: number): void;
  /** Once, after the last of it: tells the engine and the owner. */
  protected abstract onGone(): void;

  destroy(): void {
    if (this.#isGone) return;
    this.channel.destroy();
    this.end();
  }

  /** Output that the peer does not take. */
  get heldBytes(): number {
    return this.#held.bytes;
  }

  shed(): void {
    this.channelError = `${this.#held.bytes} bytes were not taken, and the limit for all connections is reached (--buffer-limit)`;
    this.destroy();
  }

  onWritable(): void {
    this.progressMs = this.#place.nowMs();
    this.#writer!.drained();
  }

  onChannelClosed(error: string | null): void {
    this.channelError = error;
    this.end();
  }

  // For engines of both versions. The first output of one comes from within its constructor.

  onOutput(): void {
    this.#writer?.schedule();
  }

  onFinished(): void {
    this.#writer!.schedule();
  }

  onWantsInput(wanted: boolean): void {
    if (wanted) this.channel.resume();
    else this.channel.pause();
  }

  protected dueAt(atMs: number): void {
    this.dueMs = atMs;
    this.#place.due.sooner(this);
  }

  protected end(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#writer!.stop();
    this.#held.end();
    this.#place.due.remove(this);
    this.onGone();
  }
}
