// A plain socket in memory, for the tests of what relays bytes: its kernel buffer holds `room` bytes, and what was done to it can be read.

import type { PlainEnd, PlainSocket } from "../../src/tunnel/endpoint-socket.ts";

export class FakePlainSocket {
  data!: PlainEnd;
  /** None: whatever works on descriptors finds no socket here. */
  readonly fd = -1;
  written: Uint8Array[] = [];
  room = Number.POSITIVE_INFINITY;
  paused = false;
  shut = false;
  ended = false;
  terminated = false;

  /** As the relays take it. */
  get plain(): PlainSocket {
    return this as unknown as PlainSocket;
  }

  write(bytes: Uint8Array, offset = 0, length = bytes.length - offset): number {
    const taken = Math.min(length, this.room);
    this.room -= taken;
    if (taken > 0) this.written.push(new Uint8Array(bytes.subarray(offset, offset + taken)));
    return taken;
  }

  pause = () => void (this.paused = true);
  resume = () => void (this.paused = false);
  shutdown = () => void (this.shut = true);
  end = () => void (this.ended = true);
  terminate = () => void (this.terminated = true);

  get bytes(): number {
    return this.written.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  get text(): string {
    return Buffer.concat(this.written).toString();
  }
}
