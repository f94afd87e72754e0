// Bodies that are held for authorisers to see, of all requests of one data thread together: each is bounded by its policy, and all by this.

/** An authoriser is given a megabyte of a body at most; so many of the largest, or thousands of usual ones, wait at once. */
export const GATHERED_BYTES_MAX = 64 * 1024 * 1024;

export class GatherBudget {
  #heldBytes = 0;

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** False when there is no room: nothing is taken then. */
  take(bytes: number): boolean {
    if (this.#heldBytes + bytes > GATHERED_BYTES_MAX) return false;
    this.#heldBytes += bytes;
    return true;
  }

  giveBack(bytes: number): void {
    this.#heldBytes -= bytes;
  }
}
