// Bounds the bytes of all responses that have been made and are not on the wire yet. A first response to a node may be tens of
// megabytes; a thousand nodes that come back at once are served a few at a time, and what a slow one holds is counted.

interface Waiting {
  readonly bytes: number;
  readonly start: (permit: Disposable) => void;
}

export class SendBudget {
  readonly #bytesMax: number;
  readonly #waiting: Waiting[] = [];
  #usedBytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Bytes of responses that are being sent. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** Resolves when there is room, in order of arrival. What is larger than the whole budget goes alone. The permit gives the room back. */
  take(bytes: number): Promise<Disposable> {
    const { promise, resolve } = Promise.withResolvers<Disposable>();
    this.#waiting.push({ bytes, start: resolve });
    this.#startWaiting();
    return promise;
  }

  #startWaiting(): void {
    for (let next = this.#waiting[0]; next !== undefined && (this.#usedBytes === 0 || this.#usedBytes + next.bytes <= this.#bytesMax); next = this.#waiting[0]) {
      this.#waiting.shift();
      const { bytes, start } = next;
      this.#usedBytes += bytes;
      let held = true;
      start({
        [Symbol.dispose]: () => {
          if (!held) return;
          held = false;
          this.#usedBytes -= bytes;
          this.#startWaiting();
        },
      });
    }
  }
}
