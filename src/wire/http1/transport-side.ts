// The side of an HTTP/1 connection that faces the transport, the same for both roles: input that cannot be taken yet is held and the
// shell told to stop reading; output is gathered for one write per turn. Knows nothing of messages.

import { copyBytes } from "../http/copy-bytes.ts";
import { OutputBuffer } from "../http/output-buffer.ts";
import { Http1Counters } from "./counters.ts";
import { assertLimits, DEFAULT_LIMITS, type Http1Limits } from "./limits.ts";

export interface TransportEvents {
  /** `output` went from empty to not empty. Schedule one flush per turn. */
  onOutput(): void;
  /** Whether the shell should go on reading. What it has read already it may still hand in. */
  onWantsInput(wanted: boolean): void;
  /** Nothing more will be written: once `output` is empty, end the sending half. Then read on until `closed`, or a few seconds. */
  onFinished(): void;
}

export abstract class TransportSide {
  readonly output: OutputBuffer;
  readonly counters: Http1Counters;
  protected readonly limits: Http1Limits;
  private readonly events: TransportEvents;

  /** Held input lies from `heldAt` to `heldEnd`; there may be room behind it. */
  private heldBytes: Uint8Array | null = null;
  private heldAt = 0;
  private heldEnd = 0;
  private running = false;
  private wanted = true;
  protected paused = false;
  /** The peer ended its half; what is held comes before it. */
  protected inputEnded = false;
  protected isFinished = false;
  protected isClosed = false;

  constructor(events: TransportEvents, limits: Http1Limits | undefined, counters: Http1Counters | undefined) {
    this.events = events;
    this.limits = limits ?? DEFAULT_LIMITS;
    this.counters = counters ?? new Http1Counters();
    assertLimits(this.limits);
    this.output = new OutputBuffer(() => this.outputConsumed());
  }

  /** Nothing more will be heard, nor said beyond what is in `output`: once that is written, the transport may go without ceremony. */
  get closed(): boolean {
    return this.isClosed;
  }

  /** See `onFinished`. */
  get finished(): boolean {
    return this.isFinished;
  }

  get wantsInput(): boolean {
    return this.wanted;
  }

  /** Bytes from the peer, in order, in any cut. Borrowed for the call. */
  receive(chunk: Uint8Array): void {
    if (this.isClosed || this.inputEnded) return;
    if (this.running) throw new Error("http1: receive called from inside a handler of the same connection");
    if (this.heldBytes !== null) {
      this.hold(chunk, 0);
      return;
    }
    const at = this.runOver(chunk, 0);
    if (at < chunk.length && !this.isClosed) this.hold(chunk, at);
  }

  /** The peer ended its half (FIN). */
  receiveEnd(): void {
    if (this.isClosed || this.inputEnded) return;
    this.inputEnded = true;
    if (this.heldBytes === null) this.endOfInput();
  }

  /** No more body bytes until `resume`. Those of the present chunk that follow the current view are held. */
  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.advance();
  }

  /** Takes bytes from `at` on and returns where it stopped. */
  protected abstract run(chunk: Uint8Array, at: number): number;
  /** Input ended and everything before it was taken. */
  protected abstract endOfInput(): void;
  /** More was held than may be; `bytes` of them. Returns whether they are kept all the same. */
  protected abstract heldTooMuch(bytes: number): boolean;
  protected abstract outputConsumed(): void;

  /** Inside `run` over held input it still counts what that has taken. */
  protected get heldCount(): number {
    return this.heldEnd - this.heldAt;
  }

  protected dropHeld(): void {
    this.heldBytes = null;
    this.heldAt = this.heldEnd = 0;
    this.want(true);
  }

  /** Goes on with what is held. Does nothing inside `run`, whose loop goes on by itself. */
  protected advance(): void {
    if (this.running || this.heldBytes === null) return;
    const held = this.heldBytes.subarray(0, this.heldEnd);
    const at = this.runOver(held, this.heldAt);
    if (this.heldBytes === null) return;
    this.heldAt = at;
    if (at < held.length && !this.isClosed) return;
    this.dropHeld();
    if (this.inputEnded && !this.isClosed) this.endOfInput();
  }

  /** Call after writing, with what was pending before it. */
  protected wrote(pendingBefore: number): void {
    if (pendingBefore === 0 && this.output.pendingBytes > 0) this.events.onOutput();
  }

  /** Nothing more will be written. */
  protected finish(): void {
    if (this.isFinished) return;
    this.isFinished = true;
    this.events.onFinished();
  }

  protected want(wanted: boolean): void {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    this.events.onWantsInput(wanted);
  }

  private runOver(chunk: Uint8Array, at: number): number {
    this.running = true;
    try {
      return this.run(chunk, at);
    } finally {
      this.running = false;
    }
  }

  private hold(chunk: Uint8Array, at: number): void {
    const before = this.heldCount;
    const bytes = before + chunk.length - at;
    if (!this.heldTooMuch(bytes)) return;
    if (this.heldBytes === null || this.heldEnd + chunk.length - at > this.heldBytes.length) {
      // Twice what is needed when it grows, so that a peer of many small pieces cannot make us copy the whole for each.
      const larger = new Uint8Array(before === 0 ? bytes : 2 * bytes);
      if (this.heldBytes !== null) larger.set(this.heldBytes.subarray(this.heldAt, this.heldEnd));
      this.heldBytes = larger;
      this.heldAt = 0;
      this.heldEnd = before;
    }
    copyBytes(chunk, at, chunk.length, this.heldBytes, this.heldEnd);
    this.heldEnd += chunk.length - at;
    this.want(false);
  }
}
