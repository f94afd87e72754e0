// What one request or connection holds for readers that are slow, told to the budget of its data thread. The budget ends the largest holders
// when the limit is reached, so that what a waypoint buffers is bounded by configuration and not by the number of its connections.

import type { ByteBudget, ByteHolder } from "../../tunnel/byte-budget.ts";

export class HeldCount {
  readonly #budget: ByteBudget;
  readonly #owner: ByteHolder;
  #bytes = 0;
  #ended = false;

  constructor(budget: ByteBudget, owner: ByteHolder) {
    this.#budget = budget;
    this.#owner = owner;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(bytes: number): void {
    if (bytes === 0 || this.#ended) return;
    const before = this.#bytes;
    this.#bytes += bytes;
    if (before === 0) this.#budget.enter(this.#owner);
    else if (this.#bytes === 0) this.#budget.leave(this.#owner);
    this.#budget.change(bytes);
  }

  /** All of it is gone; whatever is told afterwards does not count. */
  end(): void {
    this.add(-this.#bytes);
    this.#ended = true;
  }
}
