// A channel that is a socket of the runtime, plain or with TLS on it: what is asked of it is asked of the socket, and what the socket tells
// goes to the channel's user. How it ends is the business of its kinds.

import type { Socket } from "bun";
import { giveBack } from "../../core/spent-bytes.ts";
import type { Channel } from "./channel.ts";
import { ToldChannel } from "./told-channel.ts";

export abstract class SocketChannel extends ToldChannel implements Channel {
  protected abstract readonly socket: Pick<Socket<never>, "write" | "pause" | "resume" | "shutdown" | "end" | "terminate">;

  write(bytes: Uint8Array): number {
    return this.socket.write(bytes);
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  end(): void {
    this.socket.shutdown();
  }

  close(): void {
    this.socket.end();
  }

  destroy(): void {
    this.user = null;
    this.socket.terminate();
  }

  // What the socket tells

  data(chunk: Uint8Array): void {
    this.user?.onBytes(chunk);
    giveBack(chunk);
  }

  drain(): void {
    this.user?.onWritable();
  }

  ended(): void {
    this.tellEnd();
  }
}
