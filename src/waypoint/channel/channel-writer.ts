// Moves an engine's output to its channel once per event-loop turn: never from inside a sender's call, so that nobody is told to go on
// before it knows that it was stopped. Back-pressure is the engine's, by the bytes that its output may hold.

import { type EndOfTurn, scheduleEndOfTurn } from "../../net/turn.ts";
import type { OutputBuffer } from "../../wire/http/output-buffer.ts";
import type { Channel } from "./channel.ts";
import type { HeldCount } from "./held-count.ts";

/** What the engine says of its end; looked at whenever all output is written. */
export interface EngineEnd {
  /** Nothing more will be written. */
  readonly finished: boolean;
  /** Nothing more will be heard either. */
  readonly closed: boolean;
}

export class ChannelWriter implements EndOfTurn {
  readonly #channel: Channel;
  readonly #output: OutputBuffer;
  readonly #end: EngineEnd;
  readonly #held: HeldCount;
  #scheduled = false;
  #blocked = false;
  #gone = false;
  #ended = false;

  /** @param held counts what waits for a peer that does not read. */
  constructor(channel: Channel, output: OutputBuffer, end: EngineEnd, held: HeldCount) {
    this.#held = held;
    this.#channel = channel;
    this.#output = output;
    this.#end = end;
  }

  /** For the engine's onOutput, and when its end has changed. */
  schedule(): void {
    if (this.#scheduled || this.#gone) return;
    this.#scheduled = true;
    scheduleEndOfTurn(this);
  }

  endOfTurn(): void {
    this.#scheduled = false;
    this.flush();
  }

  flush(): void {
    if (this.#gone) return;
    if (!this.#blocked) this.#write();
    const waiting = this.#blocked ? this.#output.pendingBytes : 0;
    if (waiting !== this.#held.bytes) this.#held.add(waiting - this.#held.bytes);
  }

  #write(): void {
    const output = this.#output;
    while (output.pendingBytes > 0) {
      const view = output.peek();
      const written = this.#channel.write(view);
      if (written > 0) output.consume(written);
      if (this.#gone) return;
      if (written < view.length) {
        this.#blocked = written >= 0;
        return;
      }
    }
    this.#finish();
  }

  drained(): void {
    this.#blocked = false;
    this.flush();
  }

  /** The channel is gone: nothing is written any more. */
  stop(): void {
    this.#gone = true;
  }

  #finish(): void {
    if (this.#end.closed) {
      this.#gone = true;
      this.#channel.close();
    } else if (this.#end.finished && !this.#ended) {
      this.#ended = true;
      this.#channel.end();
    }
  }
}
