// A clock that is read once in each turn of the event loop: what is served together happens at the same time. A request asks for the time a
// dozen times, and a turn with many of them lasts a millisecond or two.

import type { Clock } from "../core/ports.ts";
import { currentTurn } from "./turn.ts";

/** Wall time is not kept: it is asked for seldom, and stamps lines. */
export class TurnClock implements Clock {
  readonly #clock: Clock;
  #turn = -1;
  #nowMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  monotonicMs(): number {
    const turn = currentTurn();
    if (turn !== this.#turn) {
      this.#turn = turn;
      this.#nowMs = this.#clock.monotonicMs();
    }
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#clock.wallMs();
  }
}
