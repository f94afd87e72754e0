// Addresses that are somebody's, in order, to find whether a range holds one of another namespace.

import { compareText } from "../../core/compare-text.ts";
import { type Cidr, type IpAddress, ipToBytes } from "../../core/ip.ts";
import type { Steps } from "../../core/steps.ts";

/** Sorted at once: some milliseconds. */
const SORTED_AT_ONCE = 4_096;

interface Owned {
  /** Network-order bytes as text, one character each: compared as the address is. */
  readonly key: string;
  readonly namespace: string;
}

export class OwnedAddresses {
  readonly #byFamily: { readonly 4: readonly Owned[]; readonly 6: readonly Owned[] };

  /** @param byFamily each in the order of its keys. */
  constructor(byFamily: { readonly 4: readonly Owned[]; readonly 6: readonly Owned[] }) {
    this.#byFamily = byFamily;
  }

  /** Costs as many steps as the range holds addresses of `namespace` itself before the first of another. */
  holdsForeign(cidr: Cidr, namespace: string): boolean {
    const list = this.#byFamily[cidr.family];
    const last = lastKey(cidr);
    for (let i = firstAtLeast(list, keyOf(cidr.bytes)); i < list.length && list[i]!.key <= last; i++) if (list[i]!.namespace !== namespace) return true;
    return false;
  }
}

export function* ownedAddresses(owned: Iterable<readonly [ip: IpAddress, namespace: string]>): Steps<OwnedAddresses> {
  const byFamily: { readonly 4: Owned[]; readonly 6: Owned[] } = { 4: [], 6: [] };
  let count = 0;
  for (const [ip, namespace] of owned) {
    if (++count % SORTED_AT_ONCE === 0) yield;
    const bytes = ipToBytes(ip);
    byFamily[bytes.length === 4 ? 4 : 6].push({ key: keyOf(bytes), namespace });
  }
  return new OwnedAddresses({ 4: yield* sorted(byFamily[4]), 6: yield* sorted(byFamily[6]) });
}

/** Runs that are sorted one by one, then merged two by two. */
function* sorted(all: readonly Owned[]): Steps<readonly Owned[]> {
  let runs: (readonly Owned[])[] = [];
  for (let i = 0; i < all.length; i += SORTED_AT_ONCE) {
    runs.push(all.slice(i, i + SORTED_AT_ONCE).sort((a, b) => compareText(a.key, b.key)));
    yield;
  }
  while (runs.length > 1) {
    const merged: (readonly Owned[])[] = [];
    for (let i = 0; i < runs.length; i += 2) merged.push(i + 1 < runs.length ? yield* merge(runs[i]!, runs[i + 1]!) : runs[i]!);
    runs = merged;
  }
  return runs[0] ?? [];
}

function* merge(a: readonly Owned[], b: readonly Owned[]): Steps<readonly Owned[]> {
  const merged: Owned[] = [];
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    merged.push(j >= b.length || (i < a.length && a[i]!.key <= b[j]!.key) ? a[i++]! : b[j++]!);
    if (merged.length % SORTED_AT_ONCE === 0) yield;
  }
  return merged;
}

const keyOf = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

function lastKey({ bytes, prefixLength }: Cidr): string {
  const last = bytes.slice();
  for (let bit = prefixLength; bit < last.length * 8; bit++) last[bit >> 3] = last[bit >> 3]! | (0x80 >> (bit & 7));
  return keyOf(last);
}

function firstAtLeast(list: readonly Owned[], key: string): number {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle]!.key < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
