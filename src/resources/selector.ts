// Label selectors: equality only, as Service.spec.selector and Istio's WorkloadSelector have it.

import type { Labels } from "./object-meta.ts";

/** True when `labels` has every pair of `selector`. An empty selector selects everything; callers that mean nothing must say so. */
export function selects(selector: Labels, labels: Labels): boolean {
  for (const key in selector) if (!Object.hasOwn(labels, key) || labels[key] !== selector[key]) return false;
  return true;
}

/** Selecting items by one of their pairs, so that finding those which select given labels does not try each. */
export class SelectorIndex<T> {
  readonly #byPair = new Map<string, { readonly selector: Labels; readonly item: T }[]>();
  readonly #everything: T[] = [];

  add(selector: Labels, item: T): void {
    const key = Object.keys(selector)[0];
    if (key === undefined) {
      this.#everything.push(item);
      return;
    }
    const pair = `${key}=${selector[key]}`;
    const entries = this.#byPair.get(pair);
    if (entries === undefined) this.#byPair.set(pair, [{ selector, item }]);
    else entries.push({ selector, item });
  }

  /** Items whose selector the labels satisfy, in no particular order. */
  selecting(labels: Labels): T[] {
    const found = [...this.#everything];
    if (this.#byPair.size === 0) return found;
    for (const key in labels) {
      for (const { selector, item } of this.#byPair.get(`${key}=${labels[key]}`) ?? []) if (selects(selector, labels)) found.push(item);
    }
    return found;
  }
}
