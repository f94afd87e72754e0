// Moves bytes between two plain TCP sockets, both ways, with half-close in both orders and back-pressure: traffic that is not
// tunnelled, and traffic between two workloads of this node. What the runtime has not read of a bulk transfer goes inside the kernel.

import { cancelDeadline, type DeadlineHandle, type DeadlineQueue, type Expiring } from "../net/deadlines.ts";
import { Splicer } from "../net/splice.ts";
import type { ByteBudget, ByteHolder } from "./byte-budget.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import { descriptorOf, type PlainEnd, type PlainSocket, type SocketError } from "./endpoint-socket.ts";

/** Counts by direction. */
export interface PlainMeter {
  toServer(bytes: number): void;
  toClient(bytes: number): void;
}

export interface PlainRelayOptions {
  readonly client: PlainSocket;
  readonly server: PlainSocket;
  readonly meter: PlainMeter;
  readonly halfCloseIdle: DeadlineQueue;
  readonly nowMs: () => number;
  /** Counts what waits for a slow reader at either end. */
  readonly budget: ByteBudget;
  /** Called exactly once, with the first cause. */
  readonly onFinished: (cause: CloseCause) => void;
}

export class PlainRelay implements Expiring, ByteHolder {
  readonly #options: PlainRelayOptions;
  readonly #client: Side;
  readonly #server: Side;
  #finished = false;
  #deadline: DeadlineHandle | null = null;
  moved = false;
  /** Of the slower reader: when it last took something while bytes waited for it. */
  progressMs = 0;

  constructor(options: PlainRelayOptions) {
    this.#options = options;
    this.#client = new Side(this, options.client, (n) => options.meter.toClient(n));
    this.#server = new Side(this, options.server, (n) => options.meter.toServer(n));
    this.#client.other = this.#server;
    this.#server.other = this.#client;
  }

  /** Takes over both sockets. `early` was read from the client before the server was reached; `ended` when its FIN was seen as well. */
  start(early: readonly Uint8Array[], ended: boolean, clientPaused: boolean): void {
    this.#options.client.data = this.#client;
    this.#options.server.data = this.#server;
    this.#client.paused = clientPaused;
    for (const chunk of early) this.#server.accept(chunk);
    if (ended) this.#client.onEnd();
    else this.#server.resumeOtherWhenEmpty();
  }

  destroy(cause: CloseCause): void {
    if (this.#finished) return;
    this.finish(cause);
    this.#options.client.terminate();
    this.#options.server.terminate();
  }

  finish(cause: CloseCause): void {
    if (this.#finished) return;
    this.#finished = true;
    cancelDeadline(this.#deadline);
    this.#client.clear();
    this.#server.clear();
    this.#options.onFinished(cause);
  }

  get heldBytes(): number {
    return this.#client.queuedBytes + this.#server.queuedBytes;
  }

  shed(): void {
    const { limitBytes } = this.#options.budget;
    this.destroy(causes.limit(`${this.heldBytes} bytes waited for a reader that did not take them, and this thread's ${limitBytes} bytes for slow readers ran short (--buffer-limit)`));
  }

  checkBudget(): void {
    this.#options.budget.check(this);
  }

  queued(bytes: number, first: boolean): void {
    if (first) {
      this.#options.budget.enter(this);
      this.progressMs = this.#options.nowMs();
    }
    this.#options.budget.change(bytes);
  }

  dequeued(bytes: number, last: boolean): void {
    this.progressMs = this.#options.nowMs();
    if (last) this.#options.budget.leave(this);
    this.#options.budget.change(-bytes);
  }

  get finished(): boolean {
    return this.#finished;
  }

  armHalfClose(): void {
    if (this.#deadline !== null || this.#finished || this.#options.halfCloseIdle.durationMs <= 0) return;
    this.moved = false;
    this.#deadline = this.#options.halfCloseIdle.add(this, this.#options.nowMs());
  }

  onDeadline(): void {
    this.#deadline = null;
    if (this.#finished) return;
    if (this.moved) this.armHalfClose();
    else this.destroy(causes.halfCloseIdle(this.#options.halfCloseIdle.durationMs));
  }

  finishIfBothEnded(): void {
    if (this.#client.done && this.#server.done) this.finish(causes.clean);
  }
}

/** A read as large as this leaves more behind: the sender is faster than we are, and the rest goes without being copied. */
const SPLICE_FROM_BYTES = 256 * 1024;
/** What goes so in one event at most: the other connections of the thread wait meanwhile. A millisecond or less. */
const SPLICE_BYTES_MAX = 2 * 1024 * 1024;

/** Of this thread; undefined until it is first wanted. */
let splicer: Splicer | null | undefined;

function threadSplicer(): Splicer | null {
  if (splicer === undefined) splicer = Splicer.open();
  return splicer;
}

/** One of the two sockets: what it reads goes to `other`, what it must still write waits in `#queue`. */
class Side implements PlainEnd {
  readonly #relay: PlainRelay;
  readonly socket: PlainSocket;
  readonly #written: (bytes: number) => void;
  other!: Side;
  /** Not yet taken by this socket. Non-empty only while `other` is paused, but for what was read before the pause took hold. */
  #queue: Uint8Array[] = [];
  queuedBytes = 0;
  paused = false;
  #ended = false;
  #shut = false;

  constructor(relay: PlainRelay, socket: PlainSocket, written: (bytes: number) => void) {
    this.#relay = relay;
    this.socket = socket;
    this.#written = written;
  }

  onOpen(): void {}

  onData(chunk: Uint8Array): void {
    if (this.#relay.finished) return;
    this.#relay.moved = true;
    this.other.accept(chunk);
    if (chunk.length >= SPLICE_FROM_BYTES) this.other.spliceOther();
  }

  /** Moves what the other socket has still to give, when all that it gave before has been taken. */
  spliceOther(): void {
    const { other } = this;
    if (this.#queue.length > 0 || other.paused || this.#relay.finished) return;
    const spliced = threadSplicer()?.move(descriptorOf(other.socket), descriptorOf(this.socket), SPLICE_BYTES_MAX);
    if (spliced === undefined) return;
    if (spliced.moved > 0) this.#written(spliced.moved);
    // Offered to the socket once more: it is full, and this makes it tell when it is not.
    if (spliced.left !== null) this.accept(spliced.left);
  }

  accept(chunk: Uint8Array): void {
    if (this.#relay.finished) return;
    if (this.#queue.length > 0) {
      this.#push(chunk);
      return;
    }
    const taken = this.#write(chunk);
    if (taken < chunk.length) {
      this.#push(chunk.subarray(taken));
      if (!this.other.paused) {
        this.other.paused = true;
        this.other.socket.pause();
      }
      this.#relay.checkBudget();
    }
  }

  onDrain(): void {
    if (this.#relay.finished) return;
    while (this.#queue.length > 0) {
      const chunk = this.#queue[0]!;
      const taken = this.#write(chunk);
      const isWhole = taken === chunk.length;
      if (isWhole) this.#queue.shift();
      else this.#queue[0] = chunk.subarray(taken);
      this.queuedBytes -= taken;
      this.#relay.dequeued(taken, this.#queue.length === 0);
      if (!isWhole) return;
    }
    this.#shutWhenDrained();
    this.resumeOtherWhenEmpty();
  }

  resumeOtherWhenEmpty(): void {
    if (this.#queue.length === 0 && this.other.paused) {
      this.other.paused = false;
      this.other.socket.resume();
    }
  }

  onEnd(): void {
    if (this.#relay.finished || this.#ended) return;
    this.#ended = true;
    this.other.#shutWhenDrained();
    this.#relay.armHalfClose();
    this.#relay.finishIfBothEnded();
  }

  onClose(error: SocketError | null): void {
    if (this.#relay.finished) return;
    if (error !== null) {
      this.#relay.destroy(causes.socketReset(error.code ?? error.message));
    } else if (this.#queue.length > 0 || (!this.#shut && !this.#ended)) {
      this.#relay.destroy(causes.socketClosedEarly);
    } else if (!this.#ended) {
      this.onEnd();
    }
  }

  /** Lets go of what will not be written any more. */
  clear(): void {
    if (this.#queue.length === 0) return;
    const bytes = this.queuedBytes;
    this.#queue = [];
    this.queuedBytes = 0;
    this.#relay.dequeued(bytes, true);
  }

  #push(chunk: Uint8Array): void {
    this.#queue.push(chunk);
    this.queuedBytes += chunk.length;
    this.#relay.queued(chunk.length, this.#queue.length === 1);
  }

  get done(): boolean {
    return this.#ended && this.#shut;
  }

  #write(chunk: Uint8Array): number {
    const taken = Math.max(0, this.socket.write(chunk));
    if (taken > 0) this.#written(taken);
    return taken;
  }

  #shutWhenDrained(): void {
    if (!this.other.#ended || this.#queue.length > 0 || this.#shut) return;
    this.#shut = true;
    this.socket.shutdown();
    this.#relay.finishIfBothEnded();
  }
}
