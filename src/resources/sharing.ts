// Equal small values kept once, where thousands of objects of a cluster repeat them. Forgets everything when it has grown too large:
// what is in use stays with its users, and is shared anew from then on.

/** Distinct values kept: a mesh of 10 000 pods has some thousands. */
const VALUES_MAX = 20_000;

export class Sharing {
  #records = new Map<string, object>();
  #texts = new Map<string, string>();

  /** @returns an equal record: treat it as read-only. */
  record<T extends Readonly<Record<string, unknown>>>(value: T): T {
    const key = JSON.stringify(value);
    const known = this.#records.get(key);
    if (known !== undefined) return known as T;
    if (this.#records.size >= VALUES_MAX) this.#records = new Map();
    this.#records.set(key, value);
    return value;
  }

  text(value: string): string {
    const known = this.#texts.get(value);
    if (known !== undefined) return known;
    if (this.#texts.size >= VALUES_MAX) this.#texts = new Map();
    this.#texts.set(value, value);
    return value;
  }
}
