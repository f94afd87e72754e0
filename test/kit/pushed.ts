// Values that one side pushes as they come and the other reads as a stream: what a call that streams to its server takes.

/** For one reader. Holds without a bound what is not read yet: whoever pushes has its own. */
export class Pushed<T> implements AsyncIterable<T> {
  readonly #queue: T[];
  #wake = Promise.withResolvers<void>();
  #ended = false;

  constructor(first: readonly T[] = []) {
    this.#queue = [...first];
  }

  push(value: T): void {
    this.#queue.push(value);
    this.#wake.resolve();
  }

  /** The reader gets what was pushed, and then the end. */
  end(): void {
    this.#ended = true;
    this.#wake.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    for (;;) {
      while (this.#queue.length > 0) yield this.#queue.shift()!;
      if (this.#ended) return;
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    }
  }
}
