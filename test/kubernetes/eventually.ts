// States that come one after the other, and waiting for one that is as it should be.

/** Until what was changed at the API server shows elsewhere, on a machine with much else to do. */
export const SHOWS_MS = 45_000;

export class Eventually<T> {
  #last: { readonly value: T } | null = null;
  #waiting: { readonly holds: (value: T) => boolean; readonly resolve: (value: T) => void }[] = [];

  get last(): T | null {
    return this.#last?.value ?? null;
  }

  put(value: T): void {
    this.#last = { value };
    const met = this.#waiting.filter(({ holds }) => holds(value));
    this.#waiting = this.#waiting.filter((one) => !met.includes(one));
    for (const { resolve } of met) resolve(value);
  }

  /** The first state, from the present one on, for which `holds`. */
  when(holds: (value: T) => boolean): Promise<T> {
    if (this.#last !== null && holds(this.#last.value)) return Promise.resolve(this.#last.value);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no such state came; the last one: ${Bun.inspect(this.#last?.value, { depth: 3 }).slice(0, 4000)}`)), SHOWS_MS);
      this.#waiting.push({ holds, resolve: (value) => {
        clearTimeout(timer);
        resolve(value);
      } });
    });
  }
}
