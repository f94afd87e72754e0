// One HTTP/2 connection over one TLS socket: moves the engine's output to the socket once per event-loop turn. Knows nothing of
// HBONE. Back-pressure is the engine's: it takes no more data than its output may hold, and tells streams when there is room again.

import { type EndOfTurn, scheduleEndOfTurn } from "../net/turn.ts";
import type { Http2Connection } from "../wire/http2/connection.ts";

/** From this size on a write of its own is worth it: waiting for the end of the turn only helps small frames. */
export const FLUSH_NOW_BYTES = 16 * 1024;
/** What one TLS record holds at most. */
const RECORD_BYTES = 16 * 1024;

/** The part of a socket that the transport writes to. */
export interface TransportSocket {
  /** Writes `length` bytes from `offset` on. Bytes taken, 0 when full (`drain` follows), negative when gone. */
  write(bytes: Uint8Array, offset: number, length: number): number;
}

export class TunnelTransport implements EndOfTurn {
  readonly h2: Http2Connection;
  lastReceivedMs: number;
  #socket: TransportSocket | null = null;
  #scheduled = false;
  #blocked = false;

  constructor(h2: Http2Connection, nowMs: number) {
    this.h2 = h2;
    this.lastReceivedMs = nowMs;
  }

  /** The handshake is done: what the engine has queued so far may leave. */
  attach(socket: TransportSocket): void {
    this.#socket = socket;
    this.flush();
  }

  detach(): void {
    this.#socket = null;
  }

  /** For the engine's onOutput. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    scheduleEndOfTurn(this);
  }

  endOfTurn(): void {
    this.#scheduled = false;
    this.flush();
  }

  receive(chunk: Uint8Array, nowMs: number): void {
    this.lastReceivedMs = nowMs;
    this.h2.receive(chunk);
  }

  flush(): void {
    this.#write(1);
  }

  /**
   * Writes what fills whole records. The rest goes with the bytes that follow in this turn, or at its end: a read of the plain socket
   * with its frame header is a few bytes longer than the records that it fills, and those would travel alone.
   */
  flushRecords(): void {
    this.#write(RECORD_BYTES);
    if (this.h2.output.pendingBytes > 0) this.schedule();
  }

  /** @param unitBytes as many of them as are pending are written, and no part of one. */
  #write(unitBytes: number): void {
    const socket = this.#socket;
    if (socket === null || this.#blocked) return;
    const output = this.h2.output;
    while (output.pendingBytes >= unitBytes) {
      const pending = output.pendingBytes;
      const length = pending - (pending % unitBytes);
      const written = socket.write(output.bytes, output.pendingOffset, length);
      if (written > 0) output.consume(written);
      if (written < length) {
        // Short: the socket tells when it is writable again. Negative: it is gone, and its close event follows.
        this.#blocked = written >= 0;
        return;
      }
    }
  }

  onDrain(): void {
    this.#blocked = false;
    this.flush();
  }
}
