// Who has to be looked at again when a part of the world is another: everyone whose last questions had to do with that part.

import { addTo, removeFrom } from "../../core/set-index.ts";

export class Dependents<T> {
  readonly #byPart = new Map<string, Set<T>>();
  readonly #partsOf = new Map<T, ReadonlySet<string>>();

  /** In the place of what it had to do with before. */
  set(one: T, parts: ReadonlySet<string>): void {
    const before = this.#partsOf.get(one);
    if (before === parts) return;
    for (const part of before ?? []) if (!parts.has(part)) removeFrom(this.#byPart, part, one);
    for (const part of parts) addTo(this.#byPart, part, one);
    this.#partsOf.set(one, parts);
  }

  delete(one: T): void {
    for (const part of this.#partsOf.get(one) ?? []) removeFrom(this.#byPart, part, one);
    this.#partsOf.delete(one);
  }

  /** Each once. */
  of(parts: Iterable<string>): Set<T> {
    const found = new Set<T>();
    for (const part of parts) for (const one of this.#byPart.get(part) ?? []) found.add(one);
    return found;
  }
}
