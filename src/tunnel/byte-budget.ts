// The memory that all connections of one data thread may hold for readers that are slow. Below half of it nobody is disturbed. Above
// half, tunnels give window back only for what was read, and whoever has not read for long enough is ended. At the limit the largest go at
// once. So what a thread buffers is bounded by configuration, and not by connections times windows.

import { type EndOfTurn, scheduleEndOfTurn } from "../net/turn.ts";
import { DEFAULT_LIMITS, type Http2Limits } from "../wire/http2/limits.ts";

/** Under pressure a connection that has taken nothing for this long gives way: a TCP peer that only pauses is back much sooner. */
export const STALLED_MS_MAX = 10_000;
/** Pressure begins at this share of the limit, and ends well below it, so that it does not flutter. */
const PRESSURE_SHARE = 0.5;
const RELIEF_SHARE = 0.4;
/** Shedding at the limit goes on down to this share: a little room, so that it is not done again for the next byte. */
const SHED_TO_SHARE = 0.9;

/** Close to the limit: what has not begun is better refused than what is under way ended. */
const TIGHT_SHARE = 0.8;

/** Within one turn thousands of sockets may be read before the end of the turn comes: beyond this share whoever adds to it goes at once. */
const OVERFLOW_SHARE = 1.25;

/** A connection with bytes that its reader has not taken. */
export interface ByteHolder {
  readonly heldBytes: number;
  /** When its reader last took something, or when it began to wait. */
  readonly progressMs: number;
  /** Ends the connection and lets go of all its bytes. */
  shed(): void;
}

export interface ByteBudgetEvents {
  /** Under pressure from here on. */
  pressed(): void;
  /** No longer: what was held back may be given. */
  relieved(): void;
  /** A connection is about to be ended; `limit` at once, `stalled` because it had not read for long. */
  shedding(why: "limit" | "stalled"): void;
}

export class ByteBudget implements EndOfTurn {
  readonly limitBytes: number;
  /** Given to every HTTP/2 connection: under pressure none of them gives window back ahead of its readers. */
  readonly http2Limits: Http2Limits;
  #held = 0;
  #pressed = false;
  #scheduled = false;
  /** With how many queues each waits. */
  readonly #holders = new Map<ByteHolder, number>();
  readonly #events: ByteBudgetEvents;
  readonly #setUnconsumedMax: (bytes: number) => void;
  readonly #normalUnconsumedMax: number;

  constructor(limitBytes: number, events: ByteBudgetEvents, limits: Http2Limits = DEFAULT_LIMITS) {
    this.limitBytes = limitBytes;
    this.#events = events;
    const shared = { ...limits };
    this.http2Limits = shared;
    this.#setUnconsumedMax = (bytes) => void (shared.unconsumedBytesMax = bytes);
    this.#normalUnconsumedMax = limits.unconsumedBytesMax;
  }

  get heldBytes(): number {
    return this.#held;
  }

  get pressed(): boolean {
    return this.#pressed;
  }

  get holderCount(): number {
    return this.#holders.size;
  }

  /** Nearly full: whoever can be refused should be. */
  get tight(): boolean {
    return this.#held >= this.limitBytes * TIGHT_SHARE;
  }

  /** Full: nothing new is taken on. */
  get full(): boolean {
    return this.#held >= this.limitBytes;
  }

  /** One of the holder's queues has its first bytes to wait with. */
  enter(holder: ByteHolder): void {
    this.#holders.set(holder, (this.#holders.get(holder) ?? 0) + 1);
  }

  /** One of its queues is empty again. */
  leave(holder: ByteHolder): void {
    const queues = this.#holders.get(holder) ?? 0;
    if (queues > 1) this.#holders.set(holder, queues - 1);
    else this.#holders.delete(holder);
  }

  /** @param bytes positive or negative. */
  change(bytes: number): void {
    this.#held += bytes;
    if (this.#held > this.limitBytes * PRESSURE_SHARE) {
      if (!this.#pressed) this.#press();
      if (this.#held > this.limitBytes) this.#schedule();
    } else if (this.#pressed && this.#held < this.limitBytes * RELIEF_SHARE) {
      this.#relieve();
    }
  }

  /** For a holder that has just added to what is held, at the end of its own callback: ends it when the limit is long passed. */
  check(holder: ByteHolder): void {
    if (this.#held <= this.limitBytes * OVERFLOW_SHARE) return;
    this.#events.shedding("limit");
    holder.shed();
  }

  /** At the end of a turn and not in its middle: ending a connection from inside another's callback would surprise both. */
  endOfTurn(): void {
    this.#scheduled = false;
    if (this.#held <= this.limitBytes) return;
    const largestFirst = [...this.#holders.keys()].sort((a, b) => b.heldBytes - a.heldBytes);
    this.#shed(largestFirst, "limit", this.limitBytes * SHED_TO_SHARE);
  }

  /** Call about once a second. */
  tick(nowMs: number): void {
    if (!this.#pressed) return;
    const stalled = [...this.#holders.keys()].filter((holder) => nowMs - holder.progressMs >= STALLED_MS_MAX).sort((a, b) => a.progressMs - b.progressMs);
    this.#shed(stalled, "stalled", this.limitBytes * RELIEF_SHARE);
  }

  #shed(holders: readonly ByteHolder[], why: "limit" | "stalled", downToBytes: number): void {
    for (const holder of holders) {
      if (this.#held <= downToBytes) return;
      this.#events.shedding(why);
      holder.shed();
    }
  }

  #press(): void {
    this.#pressed = true;
    this.#setUnconsumedMax(0);
    this.#events.pressed();
  }

  #relieve(): void {
    this.#pressed = false;
    this.#setUnconsumedMax(this.#normalUnconsumedMax);
    this.#events.relieved();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    scheduleEndOfTurn(this);
  }
}
