// Addresses that are somebody's, in order, to find whether a range holds one of another namespace.

import { type Cidr, type IpAddress, ipToBytes } from "../../core/ip.ts";

interface Owned {
  /** Network-order bytes as text, one character each: compared as the address is. */
  readonly key: string;
  readonly namespace: string;
}

export class OwnedAddresses {
  readonly #byFamily: { readonly 4: Owned[]; readonly 6: Owned[] } = { 4: [], 6: [] };

  constructor(owned: Iterable<readonly [ip: IpAddress, namespace: string]>) {
    for (const [ip, namespace] of owned) {
      const bytes = ipToBytes(ip);
      this.#byFamily[bytes.length === 4 ? 4 : 6].push({ key: keyOf(bytes), namespace });
    }
    for (const list of [this.#byFamily[4], this.#byFamily[6]]) list.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  }

  /** Costs as many steps as the range holds addresses of `namespace` itself before the first of another. */
  holdsForeign(cidr: Cidr, namespace: string): boolean {
    const list = this.#byFamily[cidr.family];
    const last = lastKey(cidr);
    for (let i = firstAtLeast(list, keyOf(cidr.bytes)); i < list.length && list[i]!.key <= last; i++) if (list[i]!.namespace !== namespace) return true;
    return false;
  }
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
