// Moves bytes between a plain TCP socket and one HTTP/2 stream of a tunnel, both ways, with half-close in both orders and
// back-pressure through to the other end. Decides nothing: who may talk was settled before.

import type { DeadlineHandle, DeadlineQueue, Expiring } from "../net/deadlines.ts";
import { cancelDeadline } from "../net/deadlines.ts";
import { ErrorCode } from "../wire/http2/errors.ts";
import { type Http2Stream, StreamState } from "../wire/http2/stream.ts";
import type { CloseCause } from "./close-cause.ts";
import { causes } from "./close-cause.ts";
import type { PlainEnd, PlainSocket, SocketError } from "./endpoint-socket.ts";
import type { TunnelStreamUser } from "./outbound-tunnel.ts";
import { FLUSH_NOW_BYTES, type TunnelTransport } from "./transport.ts";

/** Bytes as they pass, from the socket's point of view. Kept references, so that counting is an addition. */
export interface RelayMeter {
  /** Read from the plain socket and given to the tunnel. */
  fromSocket(bytes: number): void;
  /** Taken from the tunnel and written to the plain socket. */
  toSocket(bytes: number): void;
}

export interface RelayOptions {
  readonly transport: TunnelTransport;
  readonly stream: Http2Stream;
  readonly socket: PlainSocket;
  readonly meter: RelayMeter;
  /** Limits a connection of which one direction has ended and nothing moves in the other. */
  readonly halfCloseIdle: DeadlineQueue;
  readonly nowMs: () => number;
  /** Called exactly once, with the first cause. */
  readonly onFinished: (cause: CloseCause) => void;
}

export class StreamRelay implements PlainEnd, Expiring, TunnelStreamUser {
  readonly #options: RelayOptions;
  readonly #socket: PlainSocket;
  readonly #transport: TunnelTransport;
  readonly #stream: Http2Stream;

  /** Read from the socket, not yet taken by the engine. Non-empty only while the socket is paused. */
  #toStream: Uint8Array[] = [];
  /** Received from the stream, not yet taken by the socket. Bounded by the stream's window. */
  #toSocket: Uint8Array[] = [];
  #paused = false;
  #socketEnded = false;
  #streamEndSent = false;
  #streamEnded = false;
  #socketShut = false;
  #gentleReset: CloseCause | null = null;
  #finished = false;
  #moved = false;
  #deadline: DeadlineHandle | null = null;

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#socket = options.socket;
    this.#transport = options.transport;
    this.#stream = options.stream;
  }

  /** Takes over the socket. `early` was read from it before the path was ready; `ended` when its FIN was seen as well. */
  start(early: readonly Uint8Array[], ended: boolean, paused: boolean): void {
    this.#socket.data = this;
    this.#paused = paused;
    for (const chunk of early) this.#toStream.push(chunk);
    this.#socketEnded = ended;
    this.#pump();
  }

  /** Ends both sides now: the stream by a reset, the socket by RST, so that neither application takes it for a clean end. */
  destroy(cause: CloseCause, streamCode: number = ErrorCode.connectError): void {
    if (this.#finished) return;
    this.#finish(cause);
    this.#transport.h2.reset(this.#stream, streamCode);
    this.#socket.terminate();
  }

  // Socket to stream

  onOpen(): void {}

  onData(chunk: Uint8Array): void {
    if (this.#finished || this.#stream.state === StreamState.closed) return;
    this.#moved = true;
    if (this.#toStream.length > 0) {
      this.#toStream.push(chunk);
      return;
    }
    this.#offer(chunk);
    if (this.#transport.h2.output.pendingBytes >= FLUSH_NOW_BYTES) this.#transport.flush();
  }

  onEnd(): void {
    if (this.#finished || this.#socketEnded) return;
    this.#socketEnded = true;
    this.#endStreamWhenDrained();
    this.#armHalfClose();
  }

  /** The window, or the tunnel's output, has room again. */
  onSendable(): void {
    this.#pump();
  }

  #offer(chunk: Uint8Array): boolean {
    const taken = this.#transport.h2.sendData(this.#stream, chunk, false);
    this.#options.meter.fromSocket(taken);
    if (taken === chunk.length) return true;
    this.#hold(chunk.subarray(taken));
    return false;
  }

  #hold(chunk: Uint8Array): void {
    this.#toStream.unshift(chunk);
    if (!this.#paused) {
      this.#paused = true;
      this.#socket.pause();
    }
  }

  #pump(): void {
    if (this.#finished || this.#stream.state === StreamState.closed) return;
    while (this.#toStream.length > 0) {
      if (!this.#offer(this.#toStream.shift()!)) return;
    }
    if (this.#socketEnded) {
      this.#endStreamWhenDrained();
    } else if (this.#paused) {
      this.#paused = false;
      this.#socket.resume();
    }
    if (this.#transport.h2.output.pendingBytes >= FLUSH_NOW_BYTES) this.#transport.flush();
  }

  #endStreamWhenDrained(): void {
    if (this.#toStream.length > 0 || this.#streamEndSent) return;
    this.#streamEndSent = true;
    this.#transport.h2.endStream(this.#stream);
  }

  /** Part of TunnelStreamUser: the answer came before the relay did. */
  onResponse(): void {}

  // Stream to socket

  /** @param chunk borrowed: what the socket does not take at once is copied. */
  onStreamData(chunk: Uint8Array, end: boolean): void {
    if (this.#finished) return;
    this.#moved = true;
    if (chunk.length > 0) {
      const taken = this.#toSocket.length > 0 ? 0 : this.#write(chunk);
      if (taken < chunk.length) this.#toSocket.push(Buffer.from(chunk.subarray(taken)));
    }
    if (end) this.onStreamEnd();
  }

  onStreamEnd(): void {
    if (this.#finished || this.#streamEnded) return;
    this.#streamEnded = true;
    this.#shutWhenDrained();
    this.#armHalfClose();
  }

  /** NO_ERROR and CANCEL from the peer read as its end of stream; anything else, and a dead tunnel, resets the application's socket too. */
  onStreamReset(code: number, by: "peer" | "us" | "connection", cause: CloseCause): void {
    if (this.#finished) return;
    if (by !== "peer" || (code !== ErrorCode.noError && code !== ErrorCode.cancel)) {
      this.#finish(cause);
      this.#socket.terminate();
      return;
    }
    this.#gentleReset = cause;
    this.#streamEnded = true;
    this.#shutWhenDrained();
  }

  onDrain(): void {
    if (this.#finished) return;
    while (this.#toSocket.length > 0) {
      const chunk = this.#toSocket[0]!;
      const taken = this.#write(chunk);
      if (taken < chunk.length) {
        this.#toSocket[0] = chunk.subarray(taken);
        return;
      }
      this.#toSocket.shift();
    }
    this.#shutWhenDrained();
  }

  /** Writes, counts, and gives the window back for what the application's socket took. */
  #write(chunk: Uint8Array): number {
    const taken = Math.max(0, this.#socket.write(chunk));
    if (taken > 0) {
      this.#options.meter.toSocket(taken);
      this.#transport.h2.consumed(this.#stream, taken);
    }
    return taken;
  }

  #shutWhenDrained(): void {
    if (!this.#streamEnded || this.#toSocket.length > 0 || this.#socketShut) return;
    this.#socketShut = true;
    if (this.#gentleReset === null) {
      this.#socket.shutdown();
      return;
    }
    this.#finish(this.#gentleReset);
    this.#socket.end();
  }

  // Ends

  onClose(error: SocketError | null): void {
    if (this.#finished) return;
    if (error !== null) {
      this.destroy(causes.socketReset(error.code ?? error.message));
    } else if (this.#toSocket.length > 0 || (!this.#streamEnded && !this.#socketEnded)) {
      // Closed by the application with our bytes unread: it will never see them.
      this.destroy(causes.socketClosedEarly);
    } else {
      // After our own FIN the peer's comes as a close without `end`.
      this.#socketEnded = true;
      this.#endStreamWhenDrained();
      if (this.#streamEnded) this.#finish(causes.clean);
      else this.destroy(causes.socketClosedEarly);
    }
  }

  /** The engine has forgotten the stream: both halves ended. The socket's own close completes the picture. */
  onStreamClosed(): void {
    if (this.#finished || !this.#streamEnded || this.#toSocket.length > 0) return;
    if (this.#socketEnded && this.#socketShut) this.#finish(causes.clean);
  }

  onDeadline(): void {
    this.#deadline = null;
    if (this.#finished) return;
    if (this.#moved) this.#armHalfClose();
    else this.destroy(causes.halfCloseIdle(this.#options.halfCloseIdle.durationMs));
  }

  #armHalfClose(): void {
    if (this.#deadline !== null || this.#finished || this.#options.halfCloseIdle.durationMs <= 0) return;
    this.#moved = false;
    this.#deadline = this.#options.halfCloseIdle.add(this, this.#options.nowMs());
  }

  #finish(cause: CloseCause): void {
    if (this.#finished) return;
    this.#finished = true;
    cancelDeadline(this.#deadline);
    this.#toStream = [];
    this.#options.onFinished(cause);
  }
}
