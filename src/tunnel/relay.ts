// Moves bytes between a plain TCP socket and one HTTP/2 stream of a tunnel, both ways, with half-close in both orders and
// back-pressure through to the other end. Decides nothing: who may talk was settled before.

import type { DeadlineHandle, DeadlineQueue, Expiring } from "../net/deadlines.ts";
import { cancelDeadline } from "../net/deadlines.ts";
import type { ByteRange } from "../wire/http/byte-range.ts";
import { ErrorCode } from "../wire/http2/errors.ts";
import { type Http2Stream, StreamState } from "../wire/http2/stream.ts";
import type { ByteBudget, ByteHolder } from "./byte-budget.ts";
import type { CloseCause } from "./close-cause.ts";
import { causes } from "./close-cause.ts";
import { HeldBytes } from "./held-bytes.ts";
import type { PlainEnd, PlainSocket, SocketError } from "./endpoint-socket.ts";
import type { TunnelStreamUser } from "./client-tunnel.ts";
import { FLUSH_NOW_BYTES, type TunnelTransport } from "./transport.ts";

/** Bytes as they pass, from the socket's point of view. Kept references, so that counting is an addition. */
export interface RelayMeter {
  /** Read from the plain socket and given to the tunnel. */
  fromSocket(bytes: number): void;
  /** Taken from the tunnel and written to the plain socket. */
  toSocket(bytes: number): void;
}

/** Whoever the relay works for. */
export interface RelayOwner {
  /** Called exactly once, with the first cause. */
  relayFinished(cause: CloseCause): void;
}

/** What is the same for every relay of a thread. */
export interface RelayPlace {
  readonly deadlines: {
    /** Limits a connection of which one direction has ended and nothing moves in the other. */
    readonly halfClose: DeadlineQueue;
  };
  readonly nowMs: () => number;
  /** Counts what waits for a slow reader at either end. */
  readonly budget: ByteBudget;
}

export interface RelayOptions {
  readonly transport: TunnelTransport;
  readonly stream: Http2Stream;
  readonly socket: PlainSocket;
  readonly meter: RelayMeter;
  readonly place: RelayPlace;
  readonly owner: RelayOwner;
}

export class StreamRelay implements PlainEnd, Expiring, TunnelStreamUser, ByteHolder {
  readonly #place: RelayPlace;
  readonly #owner: RelayOwner;
  readonly #meter: RelayMeter;
  readonly #socket: PlainSocket;
  readonly #transport: TunnelTransport;
  readonly #stream: Http2Stream;

  /** Read from the socket, not yet taken by the engine. Non-empty only while the socket is paused. */
  #toStream: Uint8Array[] = [];
  #toStreamBytes = 0;
  /** Received from the stream, not yet taken by the socket. Bounded by the stream's window, and by the budget. */
  #toSocket: HeldBytes | null = null;
  /** Of the slower reader: when it last took something while bytes waited for it. */
  progressMs = 0;
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
    this.#place = options.place;
    this.#owner = options.owner;
    this.#meter = options.meter;
    this.#socket = options.socket;
    this.#transport = options.transport;
    this.#stream = options.stream;
  }

  /** Takes over the socket. `early` was read from it before the path was ready; `ended` when its FIN was seen as well. */
  start(early: readonly Uint8Array[], ended: boolean, paused: boolean): void {
    this.#socket.data = this;
    this.#paused = paused;
    for (const chunk of early) this.#wait(chunk, false);
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
      this.#wait(chunk, false);
      return;
    }
    this.#offer(chunk);
    if (this.#transport.h2.output.pendingBytes >= FLUSH_NOW_BYTES) this.#transport.flushRecords();
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
    this.#meter.fromSocket(taken);
    if (taken === chunk.length) return true;
    this.#hold(chunk.subarray(taken));
    return false;
  }

  #hold(chunk: Uint8Array): void {
    this.#wait(chunk, true);
    if (!this.#paused) {
      this.#paused = true;
      this.#socket.pause();
    }
    this.#place.budget.check(this);
  }

  /** Keeps a chunk for the stream, at the front when it is what was left of one. */
  #wait(chunk: Uint8Array, atFront: boolean): void {
    const { budget, nowMs } = this.#place;
    if (this.#toStream.length === 0) {
      budget.enter(this);
      this.progressMs = nowMs();
    }
    if (atFront) this.#toStream.unshift(chunk);
    else this.#toStream.push(chunk);
    this.#toStreamBytes += chunk.length;
    budget.change(chunk.length);
  }

  #next(): Uint8Array {
    const chunk = this.#toStream.shift()!;
    this.#toStreamBytes -= chunk.length;
    if (this.#toStream.length === 0) this.#place.budget.leave(this);
    this.#place.budget.change(-chunk.length);
    return chunk;
  }

  #pump(): void {
    if (this.#finished || this.#stream.state === StreamState.closed) return;
    while (this.#toStream.length > 0) {
      if (!this.#offer(this.#next())) return;
    }
    if (this.#socketEnded) {
      this.#endStreamWhenDrained();
    } else if (this.#paused) {
      this.#paused = false;
      this.#socket.resume();
    }
    if (this.#transport.h2.output.pendingBytes >= FLUSH_NOW_BYTES) this.#transport.flushRecords();
  }

  #endStreamWhenDrained(): void {
    if (this.#toStream.length > 0 || this.#streamEndSent) return;
    this.#streamEndSent = true;
    this.#transport.h2.endStream(this.#stream);
  }

  /** Part of TunnelStreamUser: the answer came before the relay did. */
  onResponse(): void {}

  // Stream to socket

  /** @param bytes borrowed: what the socket does not take at once is copied. */
  onStreamData(bytes: ByteRange, end: boolean): void {
    if (this.#finished) return;
    this.#moved = true;
    const length = bytes.length;
    if (length > 0) {
      const taken = this.#waits ? 0 : this.#write(bytes.bytes, bytes.start, length);
      if (taken < length) {
        if (!this.#waits) this.progressMs = this.#place.nowMs();
        this.#toSocket ??= new HeldBytes(this.#place.budget, this);
        this.#toSocket.push(bytes.view(taken));
        this.#place.budget.check(this);
      }
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
    const held = this.#toSocket;
    if (held !== null && !held.empty) {
      this.progressMs = this.#place.nowMs();
      while (!held.empty) {
        const chunk = held.first();
        const taken = this.#write(chunk, 0, chunk.length);
        held.take(taken);
        if (taken < chunk.length) return;
      }
    }
    this.#shutWhenDrained();
  }

  /** Something waits for the socket. */
  get #waits(): boolean {
    return this.#toSocket !== null && !this.#toSocket.empty;
  }

  /** Writes, counts, and gives the window back for what the application's socket took. */
  #write(bytes: Uint8Array, start: number, length: number): number {
    const taken = Math.max(0, this.#socket.write(bytes, start, length));
    if (taken > 0) {
      this.#meter.toSocket(taken);
      this.#transport.h2.consumed(this.#stream, taken);
    }
    return taken;
  }

  #shutWhenDrained(): void {
    if (!this.#streamEnded || this.#waits || this.#socketShut) return;
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
    } else if (this.#waits || (!this.#streamEnded && !this.#socketEnded)) {
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
    if (this.#finished || !this.#streamEnded || this.#waits) return;
    if (this.#socketEnded && this.#socketShut) this.#finish(causes.clean);
  }

  onDeadline(): void {
    this.#deadline = null;
    if (this.#finished) return;
    if (this.#moved) this.#armHalfClose();
    else this.destroy(causes.halfCloseIdle(this.#place.deadlines.halfClose.durationMs));
  }

  #armHalfClose(): void {
    if (this.#deadline !== null || this.#finished || this.#place.deadlines.halfClose.durationMs <= 0) return;
    this.#moved = false;
    this.#deadline = this.#place.deadlines.halfClose.add(this, this.#place.nowMs());
  }

  #finish(cause: CloseCause): void {
    if (this.#finished) return;
    this.#finished = true;
    cancelDeadline(this.#deadline);
    while (this.#toStream.length > 0) this.#next();
    this.#toSocket?.clear();
    this.#owner.relayFinished(cause);
  }

  // ByteHolder

  get heldBytes(): number {
    return this.#toStreamBytes + (this.#toSocket?.capacityBytes ?? 0);
  }

  shed(): void {
    const { limitBytes } = this.#place.budget;
    this.destroy(causes.limit(`${this.heldBytes} bytes waited for a reader that did not take them, and this thread's ${limitBytes} bytes for slow readers ran short (--buffer-limit)`), ErrorCode.enhanceYourCalm);
  }
}
