// What every connection of a waypoint does, to clients and to servers, in both versions of HTTP: an engine between a channel and its user,
// output once per turn, one deadline, one end. What the engine says and how long it may take is the business of its kinds.

import type { Due, DueList } from "../net/due-list.ts";
import type { OutputBuffer } from "../wire/http/output-buffer.ts";
import type { Channel, ChannelUser } from "./channel.ts";
import { ChannelWriter, type EngineEnd } from "./channel-writer.ts";

export abstract class EngineConnection implements ChannelUser, Due {
  dueMs = Infinity;
  dueIndex = -1;
  protected readonly channel: Channel;
  readonly #dueList: DueList;
  #writer: ChannelWriter | null = null;
  #isGone = false;
  /** What went wrong below the engine; null for a usual end. */
  protected channelError: string | null = null;

  constructor(channel: Channel, dueList: DueList) {
    this.channel = channel;
    this.#dueList = dueList;
  }

  /** Last in the constructor of a kind. */
  protected begin(output: OutputBuffer, end: EngineEnd, dueMs: number): void {
    this.#writer = new ChannelWriter(this.channel, output, end);
    this.dueMs = dueMs;
    this.#dueList.add(this);
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

  onWritable(): void {
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
    this.#dueList.sooner(this);
  }

  protected end(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#writer!.stop();
    this.#dueList.remove(this);
    this.onGone();
  }
}
