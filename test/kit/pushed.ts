// Values that are pushed one by one and read as a stream without an end: the client's side of a call that a test drives by hand.

export class Pushed<T> implements AsyncIterable<T> {
  readonly #queue: T[] = [];
  #wake = Promise.withResolvers<void>();

  push(value: T): void {
    this.#queue.push(value);
    this.#wake.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    for (;;) {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) yield next;
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    }
  }
}
